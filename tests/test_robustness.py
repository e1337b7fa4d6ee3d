"""Perturbed samples through the public face: attacks, intervals, files, and `dest robustness`."""

from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Done
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from distributed_estimator.analysis import charts
from distributed_estimator.analysis.accuracy import (
    MOST_RADIANS,
    AccuracyCurve,
    AccuracyPoint,
    wilson_interval,
)
from distributed_estimator.analysis.charts import robustness_figure
from distributed_estimator.cli.main import main
from distributed_estimator.errors import (
    CheckpointError,
    InputError,
    RecordError,
    TrainingStoppedError,
)
from distributed_estimator.training.config import ATTACKS, AttackConfig, TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.models import ModelConfig, feature_range
from distributed_estimator.training.networks import Classifier, Wanted, build_classifier, mean_loss
from distributed_estimator.training.robustness import (
    Measured,
    Probe,
    RobustnessFiles,
    RobustnessResult,
    evaluate_robustness,
    fgsm,
    gaussian,
    measure,
    pgd,
)
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.trained import TrainedNetwork
from distributed_estimator.training.workloads import WorkloadConfig, load_workload

PNG = b"\x89PNG\r\n\x1a\n"
OWN = {"robustness.json", "robustness.png", "robustness-queries.jsonl"}
BRIEF = AttackConfig(sigma=(0.0, 0.2), epsilon=(0.0, 0.2), draws=2, pgd_steps=2)


def train_in(path: Path, **settings: Any) -> RunFolder:
    config = TrainingConfig(**settings)
    folder = RunFolder(path)
    train(load_workload(config.workload), config, folder)
    return folder


@pytest.fixture(scope="session")
def exact_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunFolder]:
    """Iris, trained with exact values, by the number of cuts."""
    path = tmp_path_factory.mktemp("exact")
    return {cuts: train_in(path / str(cuts), cuts=cuts, shots=None, epochs=30) for cuts in (0, 2)}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two features, one cut, few shots, few samples."""
    data = WorkloadConfig("iris", num_features=2, samples=8, test_samples=6)
    path = tmp_path_factory.mktemp("small") / "run"
    return train_in(path, workload=data, cuts=1, shots=64, epochs=3)


@pytest.fixture
def run(small_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the small run, to write into."""
    copy = tmp_path / "run"
    copy.mkdir()
    for name, content in snapshot(small_run.path).items():
        (copy / name).write_bytes(content)
    return RunFolder(copy)


def snapshot(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def accuracies(measured: Measured) -> dict[str, list[float]]:
    return {curve.attack: [point.accuracy for point in curve.points] for curve in measured.curves}


def losses(measured: Measured) -> dict[str, list[float]]:
    return {curve.attack: [point.loss for point in curve.points] for curve in measured.curves}


def untimed(result: RobustnessResult) -> dict[str, Any]:
    document = result.as_dict()
    del document["seconds"]
    for name in [name for name in document["totals"] if name.startswith(("t_", "seconds"))]:
        del document["totals"][name]
    return document


# --- gradients by the features


def build(config: TrainingConfig) -> Classifier:
    torch.manual_seed(3)
    return build_classifier(config, 4, None, None)[1]


@pytest.mark.parametrize("cuts", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("feature_map", "head", "loss"),
    [("z", "none", "mse"), ("zz", "none", "cross_entropy"), ("angle", "linear", "mse")],
)
def test_slopes_are_finite_differences_of_each_samples_loss(
    cuts: int, feature_map: str, head: Any, loss: Any
):
    observable = "z_each" if head == "linear" else "z_all"
    model = ModelConfig(feature_map=feature_map, feature_map_reps=1, observable=observable)
    config = TrainingConfig(model=model, cuts=cuts, shots=None, head=head, loss=loss)
    classifier = build(config)
    features = np.random.default_rng(5).uniform(*feature_range(model), (3, 4))
    targets = np.array([1.0, -1.0, 1.0])
    # The central difference is off by step² |f'''| / 6, about 1e-9, and by rounding, 1e-16 / step.
    step = 1e-5
    expected = np.empty_like(features)
    kind = mean_loss(loss)
    for i, j in np.ndindex(features.shape):
        ends = np.repeat(features[i : i + 1], 2, axis=0)
        ends[:, j] += [step, -step]
        with torch.no_grad():
            scores = classifier(torch.from_numpy(ends))
        target = torch.from_numpy(targets[i : i + 1])
        high, low = (float(kind(score.reshape(1), target)) for score in scores)
        expected[i, j] = (high - low) / (2 * step)
    found = Probe(classifier, loss).slope(features, targets)
    assert np.abs(expected).max() > 0.01
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_probe_asks_for_no_more_than_it_needs_and_leaves_the_network_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
):
    classifier = build(TrainingConfig(shots=None, head="linear"))
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    network = classifier.layer.network
    evaluate, seen = network.evaluate, []
    monkeypatch.setattr(network, "evaluate", lambda *a: (seen.append(a[2]), evaluate(*a))[1])
    probe = Probe(classifier, "mse")
    probe.scores(np.full((2, 4), 0.3))
    probe.slope(np.full((2, 4), 0.3), np.ones(2))
    assert seen == [Wanted(features=False, weights=False), Wanted(features=True, weights=False)]
    assert all(torch.equal(before[name], now) for name, now in classifier.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())


def test_batches_are_runs_and_their_borders_do_not_show(monkeypatch: pytest.MonkeyPatch):
    classifier = build(TrainingConfig(shots=None, cuts=1))
    features, targets = np.random.default_rng(1).uniform(0, 1.5, (7, 4)), np.ones(7)
    whole = Probe(classifier, "mse")
    scores, slopes = whole.scores(features), whole.slope(features, targets)
    monkeypatch.setattr("distributed_estimator.training.robustness.BATCH", 3)
    seen: list[int] = []
    parts = Probe(classifier, "mse", seen.append)
    assert parts.scores(features) == pytest.approx(scores, abs=1e-12)
    assert parts.slope(features, targets) == pytest.approx(slopes, abs=1e-12)
    assert seen == [3, 3, 1, 3, 3, 1]


# --- attacks, on slopes that are given


def hilly(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The derivative of -targets · Σ cos(3 features + column)."""
    phases = 3 * features + np.arange(features.shape[1])
    return targets[:, None] * 3 * np.sin(phases)


samples = st.integers(0, 2**16).map(
    lambda seed: np.random.default_rng(seed).choice([0.0, 1.5, *np.linspace(0.01, 1.4, 40)], (6, 3))
)
radii = st.lists(st.floats(1e-3, 2.0), min_size=1, max_size=3, unique=True).map(
    lambda found: np.array(sorted(found))
)
TARGETS = np.array([1.0, -1.0] * 3)
BOUNDS = (0.0, 1.5)


@given(samples, radii)
def test_fgsm_is_a_signed_step_clipped_to_the_range(features: np.ndarray, epsilon: np.ndarray):
    moved = fgsm(hilly, features, TARGETS, epsilon, BOUNDS)
    signs = np.sign(hilly(features, TARGETS))
    for radius, points in zip(epsilon, moved, strict=True):
        assert np.array_equal(points, np.clip(features + radius * signs, *BOUNDS))


@given(samples, radii, st.integers(1, 8), st.integers(0, 99))
def test_pgd_stays_in_the_ball_and_in_the_range(
    features: np.ndarray, epsilon: np.ndarray, steps: int, seed: int
):
    visited: list[np.ndarray] = []

    def slope(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
        assert np.array_equal(targets, np.tile(TARGETS, len(epsilon)))
        visited.append(points.reshape(len(epsilon), *features.shape))
        return hilly(points, targets)

    last = pgd(slope, features, TARGETS, epsilon, BOUNDS, steps=steps, seed=seed)
    assert len(visited) == steps
    for points in (*visited, last):
        distances = np.abs(points - features).max(axis=(1, 2))
        assert np.all(distances <= epsilon + 1e-12)
        assert points.min() >= BOUNDS[0]
        assert points.max() <= BOUNDS[1]


def test_pgd_takes_the_corner_of_the_ball_where_the_loss_is_a_plane():
    features, epsilon = np.full((6, 3), 0.7), np.array([0.1, 0.2])
    plane = fgsm(lambda x, y: np.ones_like(x), features, TARGETS, epsilon, BOUNDS)
    moved = pgd(lambda x, y: np.ones_like(x), features, TARGETS, epsilon, BOUNDS, steps=4, seed=1)
    assert moved == pytest.approx(plane)


def test_noise_has_the_deviation_asked_for_and_stays_in_the_range():
    features, sigma = np.full((20, 4), 0.75), np.array([0.05, 0.1])
    noise = gaussian(features, sigma, 200, BOUNDS, seed=7) - features
    assert noise.shape == (2, 200, 20, 4)
    # Clipping begins at 7.5 σ. Of n = 16,000 values, the deviation has the relative standard
    # error 1 / √(2n) = 0.0056, the mean σ / √n; five of each.
    count = noise[0].size
    assert noise.std(axis=(1, 2, 3)) == pytest.approx(sigma, rel=5 / math.sqrt(2 * count))
    assert np.all(np.abs(noise.mean(axis=(1, 2, 3))) < 5 * sigma / math.sqrt(count))
    wide = gaussian(features, np.array([3.0]), 50, BOUNDS, seed=7)
    assert (wide.min(), wide.max()) == BOUNDS


# --- intervals


@pytest.mark.parametrize(
    ("right", "count"), [(0, 1), (1, 1), (0, 20), (7, 20), (19, 20), (20, 20), (512, 1000)]
)
def test_intervals_are_wilsons(right: int, count: int):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


def test_noise_is_a_function_of_the_seed_and_independent_between_draws():
    features, sigma = np.full((20, 4), 0.75), np.array([0.05])
    first = gaussian(features, sigma, 2, BOUNDS, seed=7)
    assert np.array_equal(first, gaussian(features, sigma, 2, BOUNDS, seed=7))
    assert not np.array_equal(first, gaussian(features, sigma, 2, BOUNDS, seed=8))
    assert not np.array_equal(first[:, 0], first[:, 1])


@pytest.mark.parametrize(("share", "count"), [(-0.1, 5), (1.1, 5), (math.nan, 5), (0.5, 0)])
def test_an_interval_of_nothing_is_refused(share: float, count: int):
    with pytest.raises(InputError, match=f"`share` is {share} and `count` {count}: give"):
        wilson_interval(share, count)


# --- a trained network


def test_stronger_perturbations_do_more_harm(exact_runs: dict[int, RunFolder]):
    grid = (0.0, 0.1, 0.2, 0.4)
    found = measure(TrainedNetwork.load(exact_runs[2]), AttackConfig(sigma=grid, epsilon=grid))
    for attack, values in accuracies(found).items():
        assert values[0] == found.clean.accuracy >= 0.95
        assert all(np.diff(values) <= 1 / found.samples + 1e-12), attack
        assert np.all(np.diff(losses(found)[attack]) > 0), attack
    assert accuracies(found)["fgsm"][-1] <= 0.5
    assert accuracies(found)["gaussian"][-1] > accuracies(found)["fgsm"][-1]
    assert np.all(np.array(losses(found)["pgd"]) >= losses(found)["fgsm"])
    assert np.all(np.array(losses(found)["fgsm"]) >= losses(found)["gaussian"])
    uncut = measure(TrainedNetwork.load(exact_runs[0]), AttackConfig(sigma=grid, epsilon=grid))
    assert accuracies(found) == accuracies(uncut)
    for attack in ATTACKS:
        assert losses(found)[attack] == pytest.approx(losses(uncut)[attack], abs=1e-6)


def test_the_summary_is_the_papers(small_run: RunFolder):
    found = measure(TrainedNetwork.load(small_run), replace(BRIEF, sigma=(0.1, 0.3)))
    by_attack = {curve.attack: curve for curve in found.curves}
    for curve in found.curves:
        over_zero = [point.accuracy for point in curve.points if point.magnitude > 0]
        assert curve.mean_accuracy == pytest.approx(np.mean(over_zero))
    both = [by_attack["gaussian"].mean_accuracy, by_attack["fgsm"].mean_accuracy]
    assert found.summary == pytest.approx(np.mean(both))
    alone = replace(found, curves=(by_attack["fgsm"], by_attack["pgd"]))
    assert alone.summary == by_attack["fgsm"].mean_accuracy
    assert replace(found, curves=(by_attack["pgd"],)).summary is None


def test_magnitude_zero_is_the_clean_accuracy_shots_and_all(small_run: RunFolder):
    found = measure(TrainedNetwork.load(small_run), BRIEF)
    assert all(curve.points[0] == found.clean for curve in found.curves)
    assert found.clean.magnitude == 0


def test_draws_of_a_sample_do_not_narrow_the_interval(small_run: RunFolder):
    config = AttackConfig(attacks=("gaussian",), sigma=(0.3,), draws=50)
    found = measure(TrainedNetwork.load(small_run, exact=True), config)
    (point,) = found.curves[0].points
    assert (point.low, point.high) == wilson_interval(point.accuracy, found.samples)
    assert found.samples == 6


def test_fewer_samples_are_some_of_them(small_run: RunFolder):
    trained = TrainedNetwork.load(small_run, exact=True)
    assert measure(trained, replace(BRIEF, samples=4)).samples == 4
    whole = measure(trained, BRIEF)
    assert measure(trained, replace(BRIEF, samples=99)) == whole


# --- results on the disk


def test_the_batch_is_one_run(exact_runs: dict[int, RunFolder], tmp_path: Path):
    files = RobustnessFiles(tmp_path / "result.json")
    seen: list[tuple[int, int]] = []
    result = evaluate_robustness(
        exact_runs[2], AttackConfig(), files, advance=lambda *at: seen.append(at)
    )
    # Clean; 4 σ of 10 draws of 20 samples, 500 at a time; FGSM's gradient and the points of all ε;
    # 10 steps of PGD for all ε, and their points.
    assert result.totals.records == 1 + 2 + 2 + 11
    assert result.totals.shots == 0
    assert seen[-1] == (20 + 800 + 20 + 80 + 800 + 80,) * 2
    assert len(seen) == result.totals.records


def test_a_result_is_written_and_read_alone(run: RunFolder):
    before = snapshot(run.path)
    result = evaluate_robustness(run, BRIEF)
    after = snapshot(run.path)
    assert set(after) - set(before) == OWN
    assert {name: after[name] for name in before} == before
    assert json.loads(after["robustness.json"]) == json.loads(json.dumps(result.as_dict()))
    assert after["robustness.png"].startswith(PNG)
    assert result.totals.queries > 0
    assert result.totals.shots == 64 * result.totals.subexperiments


def test_the_same_command_gives_the_same_numbers(run: RunFolder):
    first = evaluate_robustness(run, BRIEF, figure=False)
    again = RobustnessFiles(run.path / "robustness.json", replace=True)
    assert untimed(evaluate_robustness(run, BRIEF, again)) == untimed(first)
    other = evaluate_robustness(run, replace(BRIEF, seed=8), again, figure=False)
    assert losses(other.measured) != losses(first.measured)
    assert not (run.path / "robustness.png").exists()
    assert first.attacks.seed == first.config.seed
    assert {file.name for file in run.path.iterdir()} >= OWN - {"robustness.png"}


@pytest.mark.parametrize(
    "settings",
    [
        {"head": "linear", "model": ModelConfig(observable="z_each"), "loss": "cross_entropy"},
        {"optimizer": "spsa"},
        {"max_qubits": 1},
        pytest.param({"pipeline": "reference", "shots": 16, "cuts": 1}, marks=pytest.mark.soak),
    ],
)
def test_every_kind_of_run_can_be_attacked(tmp_path: Path, settings: dict[str, Any]):
    data = WorkloadConfig("iris", num_features=2, samples=4, test_samples=4)
    run = train_in(tmp_path / "run", **{"workload": data, "shots": 64, "epochs": 1, **settings})
    brief = replace(BRIEF, draws=1, pgd_steps=1, samples=2)
    result = evaluate_robustness(run, brief, figure=False)
    assert [curve.attack for curve in result.measured.curves] == list(ATTACKS)
    assert result.finished


def test_a_run_that_was_stopped_is_taken_where_it_stands(tmp_path: Path):
    config = TrainingConfig(workload=WorkloadConfig("iris", num_features=2), shots=None, epochs=9)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingStoppedError):
        train(load_workload(config.workload), config, folder, stop=stop)
    result = evaluate_robustness(folder, BRIEF, figure=False)
    assert (result.epoch, result.finished) == (2, False)
    assert "epoch 2 of 9, not finished" in result.title


# --- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attacks": ()}, r"`attacks` is \(\): give at least one"),
        ({"attacks": ("fgm",)}, r"`attacks\[0\]` is 'fgm': give one of gaussian, fgsm, pgd"),
        ({"sigma": ()}, r"`sigma` is \(\): give at least one"),
        ({"epsilon": (0.0,)}, "`epsilon` has no magnitude above 0: give some"),
        (
            {"sigma": (0.1, -0.1)},
            r"`sigma\[1\]` is -0.1: give a number of at least 0",
        ),
        ({"epsilon": (0.1, math.nan)}, r"`epsilon\[1\]` is nan: give a number"),
        ({"sigma": (0.1, 0.1)}, "a magnitude twice: give each once"),
        (
            {"draws": 10**9},
            "`draws` is 1000000000, .* 5 magnitudes take 37.3 GiB or more, 1 GiB is",
        ),
        ({"sigma": (0.1, 1e200)}, r"`sigma\[1\]` is 1e\+200: give .* at most 1e\+06"),
    ],
)
def test_attacks_out_of_range_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        AttackConfig(**change)


def test_the_limit_is_on_all_copies_of_all_samples(
    small_run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    trained = TrainedNetwork.load(small_run)
    monkeypatch.setattr("distributed_estimator.training.config.MOST_BYTES", 8 * 2 * 7 * 6 * 2)
    with pytest.raises(InputError, match=r"`draws` is 8, .* give fewer draws, magnitudes or sampl"):
        measure(trained, replace(BRIEF, draws=8))
    assert measure(trained, replace(BRIEF, draws=7, attacks=("gaussian",))).samples == 6
    assert AttackConfig(attacks=("fgsm", "pgd"), draws=10**9).draws == 10**9


def test_a_checkpoint_that_is_missing_or_damaged_leaves_all_as_it_was(run: RunFolder):
    content = run.checkpoint.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    for damage in (content[:-1], flipped):
        run.checkpoint.write_bytes(damage)
        before = snapshot(run.path)
        with pytest.raises(CheckpointError, match="is damaged"):
            evaluate_robustness(run, BRIEF)
        assert snapshot(run.path) == before
    run.checkpoint.unlink()
    before = snapshot(run.path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        evaluate_robustness(run, BRIEF)
    assert snapshot(run.path) == before


def test_a_failure_late_leaves_the_earlier_result(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    evaluate_robustness(run, BRIEF)
    before = snapshot(run.path)
    again = RobustnessFiles(run.path / "robustness.json", replace=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in (
        "training.robustness.write_json",
        "analysis.charts.robustness_figure",
        "training.runs.os.fsync",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"distributed_estimator.{place}", full)
            with pytest.raises(RecordError, match=r"cannot write .*: No space left on device"):
                evaluate_robustness(run, replace(BRIEF, seed=1), again)
        assert snapshot(run.path) == before


def test_a_folder_that_cannot_be_written_is_refused_first(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    before = snapshot(run.path)
    monkeypatch.setattr("distributed_estimator.training.robustness.os.access", lambda *_: False)
    with pytest.raises(InputError, match="is no folder to write to, name another file with --out"):
        evaluate_robustness(run, BRIEF)
    assert snapshot(run.path) == before


def test_attacks_that_would_take_the_reference_hours_are_refused(tmp_path: Path):
    data = WorkloadConfig("iris", num_features=2, samples=4, test_samples=4)
    settings: dict[str, Any] = {"shots": 16, "epochs": 8, "optimizer": "cobyla"}
    run = train_in(tmp_path / "run", workload=data, pipeline="reference", **settings)
    before = snapshot(run.path)
    with pytest.raises(
        InputError, match=r"about \d+ queries of the reference .* hours at the pace"
    ):
        evaluate_robustness(run, AttackConfig(pgd_steps=10**6))
    with pytest.raises(InputError, match="the reference pipeline has no exact values"):
        evaluate_robustness(run, BRIEF, exact=True)
    assert snapshot(run.path) == before


# --- the figure


def curve(attack: str, *accuracy: float) -> AccuracyCurve:
    points = (
        AccuracyPoint(0.1 * i, value, *wilson_interval(value, 20), loss=0.5)
        for i, value in enumerate(accuracy)
    )
    return AccuracyCurve(attack, tuple(points))


def test_a_figure_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="`found` is empty"):
        robustness_figure(curve("pgd", 1, 1).points[0], [], tmp_path / "run.png", "iris")
    with pytest.raises(InputError, match="`points` has no magnitude above 0"):
        curve("pgd", 1.0)
    with pytest.raises(InputError, match="`attack` is 'fgm': give one of gaussian, fgsm, pgd"):
        curve("fgm", 1.0, 1.0)
    assert not list(tmp_path.iterdir())


# --- dest robustness


@pytest.fixture
def dest(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command in this process."""

    def command(*arguments: object) -> Done:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return command


QUICK = ("--sigma", "0,0.2", "--epsilon", "0.2,0", "--draws", 2, "--pgd-steps", 2)


def test_the_command_prints_tables_and_writes_its_files(
    dest: Callable[..., Done], run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    write = charts.write_picture
    monkeypatch.setattr(
        charts, "write_picture", lambda chart, *paths: (drawn.append(chart), write(chart, *paths))
    )
    before = snapshot(run.path)
    done = dest("robustness", run.path, *QUICK)
    assert done.code == 0
    for word in (
        "iris_binary_pml, cut AB, 64 shots a circuit, adam, epoch 3 of 3, seed 7",
        "6 test samples, clean accuracy",
        "Gaussian noise",
        "FGSM",
        "PGD",
        "summary (without PGD)",
        "robustness.json",
        "robustness.png",
        "robustness-queries.jsonl",
    ):
        assert word in done.out, word
    for panel in drawn[0]["concat"]:  # the same means, rounded alike
        assert panel["title"].replace(", mean", "") in done.out
    assert "evaluations" in done.err
    after = snapshot(run.path)
    assert set(after) == set(before) | OWN
    assert {name: after[name] for name in before} == before


def test_the_command_passes_its_options_on(
    dest: Callable[..., Done], run: RunFolder, tmp_path: Path
):
    out = tmp_path / "elsewhere.json"
    options = ("--attack", "pgd", "--attack", "fgsm", "--seed", 5, "--samples", 3, "--exact")
    done = dest("robustness", run.path, *QUICK, *options, "--out", out, "--no-figure", "--json")
    document = json.loads(done.out)
    assert document["attacks"] == {
        "attacks": ["fgsm", "pgd"],
        "sigma": [0.0, 0.2],
        "epsilon": [0.0, 0.2],
        "draws": 2,
        "pgd_steps": 2,
        "seed": 5,
        "samples": 3,
    }
    assert document["samples"] == 3
    assert document["totals"]["shots"] == 0
    assert set(document["curves"]) == {"fgsm", "pgd"}
    assert document["summary"] == document["curves"]["fgsm"]["mean_accuracy"]
    queries = tmp_path / "elsewhere-queries.jsonl"
    assert document.pop("files") == {"result": str(out), "queries": str(queries)}
    assert json.loads(out.read_text("utf-8")) == document
    assert not OWN & {path.name for path in run.path.iterdir()}


def test_a_trial_does_not_replace_a_measurement(dest: Callable[..., Done], run: RunFolder):
    evaluate_robustness(run, BRIEF)
    before = snapshot(run.path)
    trial = ("robustness", run.path, *QUICK, "--samples", 2)
    done = dest(*trial)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "robustness.json` holds an earlier measurement: name another file with" in done.err
    assert snapshot(run.path) == before
    assert dest(*trial, "--replace", "--no-figure").code == 0
    assert json.loads((run.path / "robustness.json").read_text("utf-8"))["samples"] == 2


def test_the_largest_perturbation_is_read_by_the_report(dest: Callable[..., Done], run: RunFolder):
    most = f"{MOST_RADIANS:.0f}"
    options = ("--sigma", most, "--epsilon", most, "--draws", 1, "--pgd-steps", 1, "--no-figure")
    assert dest("robustness", run.path, *options).code == 0
    assert dest("report", run.path).code == 0


def test_the_command_loads_nothing_heavy_for_its_help():
    code = "import sys, distributed_estimator.cli.robustness; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack", "fgm"], "'fgm' is not one of 'gaussian', 'fgsm', 'pgd'"),
        (["--sigma", "0.1,-0.1"], "`--sigma` is 0.1,-0.1: give a list, each a number of"),
        (["--sigma", ""], "`--sigma` is '': give at least one"),
        (["--draws", "1000000000"], "`--draws` is 1000000000, and the noisy copies for"),
        (["--out", "absent/result.json"], "`absent` is no folder to write to"),
        (["--out", "result.txt"], "`result.txt` does not end in .json"),
        (["--out", "{run}/summary.json"], "summary.json` is there and belongs to something else"),
        (["--out", "{run}/queries.jsonl/a.json"], "is no folder to write to"),
    ],
)
def test_bad_options(dest: Callable[..., Done], run: RunFolder, options: list[str], message: str):
    before = snapshot(run.path)
    done = dest("robustness", run.path, *(part.format(run=run.path) for part in options))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("dest: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert snapshot(run.path) == before


@pytest.mark.parametrize("name", ["mine.json", "mine.png", "mine-queries.jsonl"])
def test_files_of_others_are_left_alone(
    dest: Callable[..., Done], run: RunFolder, tmp_path: Path, name: str
):
    (tmp_path / name).write_text('{"theirs": 1}', "utf-8")
    done = dest("robustness", run.path, "--out", tmp_path / "mine.json")
    assert done.code == 2
    assert f"{name}` is there and belongs to something else: name another file" in done.err
    assert (tmp_path / name).read_text("utf-8") == '{"theirs": 1}'


def test_a_folder_that_holds_no_run(dest: Callable[..., Done], tmp_path: Path):
    done = dest("robustness", tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "` holds no checkpoint" in done.err
    assert not list(tmp_path.iterdir())
