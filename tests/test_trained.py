"""Trained networks in use, from Python and by `dest classify`; and training on several classes."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Done, load, refused, samples, write_csv

from distributed_estimator.errors import InputError, TrainingStoppedError
from distributed_estimator.estimator import EstimatorOptions
from distributed_estimator.training import TrainedNetwork
from distributed_estimator.training.checkpoints import Checkpoint, restored, snapshot
from distributed_estimator.training.config import AttackConfig, TrainingConfig
from distributed_estimator.training.loop import resume, train
from distributed_estimator.training.models import ModelConfig
from distributed_estimator.training.robustness import measure
from distributed_estimator.training.runs import RunFolder, TrainingResult
from distributed_estimator.training.workloads import WorkloadConfig, load_workload

COLUMNS = ("width", "height", "count")
SEVERAL = TrainingConfig(
    workload=WorkloadConfig("iris", classes=("3",)),
    shots=None,
    loss="cross_entropy",
    head="linear",
    epochs=3,
)


def run(config: TrainingConfig, folder: Path, **options: object) -> TrainingResult:
    return train(load_workload(config.workload), config, RunFolder(folder), **options)


def table_of(rows: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    table = samples(rows, seed)
    return np.column_stack([table[name] for name in COLUMNS]), np.array(table["kind"])


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run with shots on a table of the user's, cut once."""
    folder = tmp_path_factory.mktemp("binary")
    path = write_csv(folder / "survey.csv", samples())
    config = TrainingConfig(WorkloadConfig(str(path)), cuts=1, shots=256, epochs=3, lr=0.3)
    return run(config, folder / "run")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return run(replace(SEVERAL, epochs=30, cuts=1), tmp_path_factory.mktemp("several") / "run")


# --- TrainedNetwork


def test_predictions_and_evaluations_show_what_they_are_in_one_line(binary: TrainingResult):
    rows, kinds = table_of()
    with TrainedNetwork.load(binary.folder.path, exact=True) as network:
        found = network.evaluate(rows, kinds)
    (no, wrong), (missed, yes) = found.confusion
    assert repr(found).startswith(f"<Evaluation: accuracy {found.accuracy:.3f} ± ")
    assert f"of 40 rows; interval {found.low:.3f} to {found.high:.3f}" in repr(found)
    assert f"confusion {no} {wrong} / {missed} {yes}>" in repr(found)
    counts = f"rows 40; classes {no + missed} no, {wrong + yes} yes"
    assert repr(found.predictions).startswith(f"<Predictions: {counts}; probability 0.")
    assert "stderr 0 at most" in repr(found.predictions)


def test_new_rows_go_the_way_of_the_training_to_the_bit(binary: TrainingResult):
    rows, kinds = table_of()
    with TrainedNetwork.load(binary.folder.path, exact=True) as network:
        task = network.workload
        features = network.preprocessing(rows)
        known = np.concatenate([task.x_train, task.x_test])
        assert sorted(map(tuple, features)) == sorted(map(tuple, known))
        places = [int(np.flatnonzero((features == x).all(axis=1))[0]) for x in task.x_test]
        with torch.no_grad():
            scores = network.classifier(torch.from_numpy(task.x_test)).numpy()
        found = network.evaluate(rows[places], kinds[places])
        assert list(network.classes_) == ["no", "yes"]
        assert list(network.feature_names_in_) == list(COLUMNS)
        assert found.accuracy == np.mean((scores >= 0) == (task.y_test > 0))
        assert np.array_equal(
            found.predictions.probabilities[:, 1], np.clip((1 + scores) / 2, 0, 1)
        )
        assert not found.predictions.stderrs.any()
        assert found.confusion.sum() == len(places)
        assert np.trace(found.confusion) / len(places) == found.accuracy


def test_accuracy_of_an_exact_run_is_that_of_its_last_record(several: TrainingResult):
    from sklearn.datasets import load_iris

    network = TrainedNetwork.load(several.folder)
    data = load_iris()
    names = np.array(data.target_names)[data.target]
    features = network.preprocessing(data.data)
    test = [np.flatnonzero((features == x).all(axis=1))[0] for x in network.workload.x_test]
    assert network.score(data.data[test], names[test]) == several.final.test_accuracy
    probabilities = network.predict_proba(data.data[test])
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert list(network.classes_[probabilities.argmax(axis=1)]) == list(
        network.predict(data.data[test])
    )


def test_a_seed_makes_predictions_reproducible_and_options_replace_it(binary: TrainingResult):
    rows, _ = table_of()

    def probabilities(**options: object) -> np.ndarray:
        with TrainedNetwork.load(binary.folder, **options) as network:
            return network.predict_proba(rows)

    assert np.array_equal(probabilities(), probabilities(workers=1))
    other = EstimatorOptions(shots=256, seed=1)
    assert not np.array_equal(probabilities(), probabilities(options=other))
    assert np.array_equal(probabilities(options=other), probabilities(options=other))
    exact = EstimatorOptions(default_precision=0)
    assert np.array_equal(probabilities(exact=True), probabilities(options=exact))


@pytest.mark.parametrize("kind", ["binary", "several"])
def test_standard_errors_are_those_of_the_shots(kind: str, request: pytest.FixtureRequest):
    """Of n = 150 or more rows with shots of their own, the mean of ((p - exact)/stderr)² has the
    mean 1 and a standard deviation of sqrt(2/n) < 0.12, were they normal: 0.5 is more than 4 of it.
    """
    folder = request.getfixturevalue(kind).folder
    rng = np.random.default_rng(1)
    low, high = (0, 1) if kind == "binary" else (1, 6)
    width = TrainedNetwork.load(folder, exact=True).n_features_in_
    rows = rng.uniform(low, high, (600, width))
    exact = TrainedNetwork.load(folder, exact=True).predict_proba(rows)
    found = TrainedNetwork.load(folder, shots=20_000).predict_with_errors(rows)
    known = (found.stderrs > 1e-6).all(axis=1) & ((exact > 0.02) & (exact < 0.98)).all(axis=1)
    assert known.sum() >= 150
    ratios = ((found.probabilities - exact)[known, 0] / found.stderrs[known, 0]) ** 2
    assert np.mean(ratios) == pytest.approx(1, abs=0.5)


def test_a_data_frame_is_read_by_the_names_of_its_columns(binary: TrainingResult):
    pandas = pytest.importorskip("pandas")
    rows, _ = table_of()
    frame = pandas.DataFrame(rows, columns=COLUMNS)[["count", "width", "height"]].assign(more="x")
    network = TrainedNetwork.load(binary.folder, exact=True)
    assert np.array_equal(network.predict_proba(frame), network.predict_proba(rows))
    with pytest.raises(InputError, match="has no column `width`: give those that the network was"):
        network.predict(frame.drop(columns="width"))


def test_scikit_learn_takes_it_for_a_fitted_classifier(several: TrainingResult):
    from sklearn.base import is_classifier
    from sklearn.datasets import load_iris
    from sklearn.frozen import FrozenEstimator
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import get_scorer, log_loss

    network = TrainedNetwork.load(several.folder)
    data = load_iris()
    rows, names = data.data[::5], np.array(data.target_names)[data.target][::5]
    assert is_classifier(network)
    loss = log_loss(names, network.predict_proba(rows))
    assert get_scorer("neg_log_loss")(network, rows, names) == pytest.approx(-loss)
    assert FrozenEstimator(network).fit(rows, names).predict(rows[:2]).tolist() == ["setosa"] * 2
    found = permutation_importance(network, rows, names, n_repeats=2, random_state=0)
    assert found.importances_mean.shape == (4,)
    with pytest.raises(InputError, match="is trained, and is not fitted"):
        network.fit(rows, names)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0]], r"the rows have shape \(1, 2\): give \(rows, 3\)"),
        (np.empty((0, 3)), r"the rows have shape \(0, 3\)"),
        ([1.0, 2.0, 3.0], r"the rows have shape \(3,\)"),
        ([[1.0, 2.0, np.nan]], "row 1 has nan in column 3"),
        ([[1.0, 2.0, "x"]], "the rows are no numbers"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: object, message: str, binary: TrainingResult):
    with pytest.raises(InputError, match=message):
        TrainedNetwork.load(binary.folder, exact=True).predict(rows)


def test_ways_to_load_exclude_one_another(binary: TrainingResult):
    with pytest.raises(InputError, match="`exact` and `shots` exclude one another: give one"):
        TrainedNetwork.load(binary.folder, exact=True, shots=3)


def test_what_a_run_has_not_kept_is_fitted_again_while_its_data_is_there(tmp_path: Path):
    path = write_csv(tmp_path / "survey.csv", samples())
    config = TrainingConfig(WorkloadConfig(str(path)), shots=None, epochs=1)
    folder = run(config, tmp_path / "run").folder
    rows, _ = table_of()
    before = TrainedNetwork.load(folder).predict_proba(rows)
    snapshot(restored(Checkpoint.load(folder.data))).save(folder.data)
    assert np.array_equal(TrainedNetwork.load(folder).predict_proba(rows), before)
    path.unlink()
    network = TrainedNetwork.load(folder)
    assert np.array_equal(network.predict_proba(network.workload.x_test).shape, (8, 2))
    with pytest.raises(InputError, match=r"trained on arrays with features from 0 to 1\.5708"):
        network.predict(rows)


# --- several classes


def test_several_classes_are_trained_better_than_by_nearest_centroids(several: TrainingResult):
    from sklearn.neighbors import NearestCentroid

    task = load("iris", classes=("3",))
    assert task.classes == ("setosa", "versicolor", "virginica")
    assert set(task.y_train) == {0.0, 1.0, 2.0}
    centroids = NearestCentroid().fit(task.x_train, task.y_train)
    assert several.final.train_accuracy >= centroids.score(task.x_train, task.y_train)
    assert several.config.model.observable == "z_each"


@pytest.mark.parametrize(
    "change",
    [
        {"head": "none"},
        {"head": "none", "loss": "mse", "optimizer": "spsa", "epochs": 1},
        {"head": "none", "model": ModelConfig(observable="ZZII, IZZI, IIZZ")},
        {},
    ],
    ids=str,
)
def test_several_classes_are_the_same_however_the_circuit_is_cut(
    change: dict[str, object], tmp_path: Path
):
    config = replace(SEVERAL, **change)
    task = replace(config.workload, samples=30, test_samples=12)
    uncut, cut = (
        run(replace(config, workload=task, cuts=cuts), tmp_path / str(cuts)) for cuts in (0, 2)
    )
    assert cut.final.loss == pytest.approx(uncut.final.loss, rel=0, abs=1e-8)
    found = measure(
        TrainedNetwork.load(cut.folder), AttackConfig(sigma=(0.1,), epsilon=(0.1,), draws=2)
    )
    assert found.clean.accuracy == cut.final.test_accuracy
    by_attack = {curve.attack: curve.points[-1].loss for curve in found.curves}
    assert by_attack["fgsm"] > found.clean.loss


def test_a_run_on_several_classes_that_stops_goes_on(tmp_path: Path):
    config = replace(SEVERAL, shots=64, cuts=1, batch_size=50)
    whole = run(config, tmp_path / "whole")
    asked = iter(range(100))
    with pytest.raises(TrainingStoppedError):
        run(config, tmp_path / "parts", stop=lambda: next(asked) == 3)
    parts = resume(RunFolder(tmp_path / "parts"))
    assert parts.final == whole.final
    assert parts.folder.weights.read_bytes() == whole.folder.weights.read_bytes()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            replace(SEVERAL, head="none", workload=WorkloadConfig("digits", classes=("10",))),
            "there are 10 classes and 8 features, a qubit each, .*: give more features",
        ),
        (
            replace(SEVERAL, head="none", model=ModelConfig(observable="z_one")),
            r"`observable` is 'z_one', which has 1 output\(s\), and there are 3 classes: give one",
        ),
    ],
)
def test_too_few_outputs_for_the_classes_are_refused(
    config: TrainingConfig, message: str, tmp_path: Path
):
    with pytest.raises(InputError, match=message):
        run(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


# --- dest classify


def test_a_table_is_learnt_and_new_rows_are_classified(dest: Callable[..., Done], monkeypatch):
    write_csv(Path("survey.csv"), samples())
    new = samples(30, seed=5)
    # A name from a file does not steer the terminal.
    write_csv(Path("new.csv"), {"count": new["count"], "no\a\x9bte": ["x"] * 30, **new})
    options = ("--exact", "--maxiter", 3, "--no-figure")
    assert dest("train", "survey.csv", *options).code == 0
    done = dest("classify", "runs/survey", "new.csv", "--out", "classes.csv")
    assert done.code == 0, done.err
    assert "accuracy" in done.out
    assert "are ignored: note\n" in done.err
    document = dest("classify", "runs/survey", "new.csv", "--json").document
    with Path("classes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["class"] for line in lines] == [row["class"] for row in document["rows"]]
    assert [float(line["probability"]) for line in lines] == [
        row["probability"] for row in document["rows"]
    ]
    network = TrainedNetwork.load("runs/survey")
    rows = np.column_stack([new[name] for name in COLUMNS])
    assert np.array_equal(document["probabilities"], network.predict_proba(rows))
    assert document["evaluation"]["accuracy"] == network.score(rows, new["kind"])

    bare = {name: values for name, values in new.items() if name != "kind"}
    text = write_csv(Path("bare.csv"), bare).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    piped = dest("classify", "runs/survey", "-", "--json").document
    assert piped["rows"] == document["rows"]
    assert "evaluation" not in piped


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    path = write_csv(folder / "survey.csv", samples())
    return run(
        TrainingConfig(WorkloadConfig(str(path)), shots=None, epochs=1), folder / "run"
    ).folder.path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`rows.csv` is empty: give a file that holds data"),
        ("width,height,count\n", "`rows.csv` has no rows below the names of its columns"),
        ("width,height\n1,2\n", "lacks 1 of the 3 columns that the network was trained on (count)"),
        ("1,2,3\n4,5,6\n", "lacks 3 of the 3 columns"),
        ("width,height,count\n1,2,x\n", "(string ('x' in row 1), and features are numbers: put"),
        ("width,height,count\n1,2,3\n1,2,\n", "row 2 of column `count` in `rows.csv` is missing"),
        ("width,height,count\n1,2,nan\n", "row 1 of column `count` in `rows.csv` is missing or"),
        ("width,width,height,count\n1,1,2,3\n", "more than one column `width`"),
        ("width,height,count,kind\n1,2,3,maybe\n", "class 'maybe' was not among those of the trai"),
        ("width,height,count,kind\n1,2,3,\n", "row 1 of the class column `kind`"),
        ("width,height,count\n1,2\n", "`rows.csv` cannot be read (CSV parse error"),
    ],
)
def test_rows_that_cannot_be_classified_are_refused(
    dest: Callable[..., Done], survey: Path, text: str, message: str
):
    Path("rows.csv").write_text(text, "utf-8")
    assert message.lstrip("(") in refused(dest("classify", survey, "rows.csv", "--out", "out.csv"))
    assert not Path("out.csv").exists()


def test_a_place_that_holds_no_run_is_refused(dest: Callable[..., Done], survey: Path):
    write_csv(Path("rows.csv"), samples())
    assert "holds no checkpoint.safetensors" in refused(dest("classify", ".", "rows.csv"))
    assert "does not exist" in refused(dest("classify", "nowhere", "rows.csv"))
    assert "does not exist" in refused(dest("classify", survey, "none.csv"))
    assert "which holds the rows" in refused(
        dest("classify", survey, "rows.csv", "--out", "rows.csv")
    )
    for name in ("checkpoint.safetensors", "weights.json"):
        before = (survey / name).read_bytes()
        done = dest("classify", survey, "rows.csv", "--out", survey / name)
        assert "which holds a part of the run: name another file" in refused(done)
        assert (survey / name).read_bytes() == before
    later = Checkpoint.load(survey / "checkpoint.safetensors")
    later.state["schema_version"] = 99
    Path("later").mkdir()
    later.save(Path("later/checkpoint.safetensors"))
    assert "is of another version" in refused(dest("classify", "later", "rows.csv"))
    assert "has no such column" in refused(dest("classify", survey, "rows.csv", "--target", "a"))


def test_a_run_that_stopped_is_used_as_its_checkpoint_left_it(dest: Callable[..., Done]):
    path = write_csv(Path("survey.csv"), samples())
    config = TrainingConfig(WorkloadConfig(str(path)), shots=None, epochs=5)
    asked = iter(range(9))
    with pytest.raises(TrainingStoppedError):
        run(config, Path("run"), stop=lambda: next(asked) == 1)
    assert "epoch 2 of 5, not finished" in dest("classify", "run", "survey.csv").out
