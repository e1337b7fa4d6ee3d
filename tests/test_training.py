"""Training through its public face: same data, same start, whatever is cut; everything recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_without
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.utils import algorithm_globals

from distributed_estimator.analysis.load import load_queries, load_training
from distributed_estimator.errors import InputError
from distributed_estimator.execution.stragglers import Constant, Stragglers
from distributed_estimator.records import TrainingRecord
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.models import ModelConfig, build_model, initial_weights
from distributed_estimator.training.runs import RunFolder, TrainingResult
from distributed_estimator.training.trained import TrainedNetwork
from distributed_estimator.training.workloads import Workload, WorkloadConfig, load_workload

FILES = [
    *(".dest-lock", "checkpoint.safetensors", "data.safetensors", "queries.jsonl"),
    *("summary.json", "training.jsonl", "weights.json"),
]
EXACT = TrainingConfig(shots=None, epochs=3)


@pytest.fixture(scope="module")
def task() -> Workload:
    return load_workload(WorkloadConfig("iris", seed=7))


@pytest.fixture(scope="module")
def small(task: Workload) -> Workload:
    return replace(
        task,
        x_train=task.x_train[:6],
        y_train=task.y_train[:6],
        x_test=task.x_test[:3],
        y_test=task.y_test[:3],
    )


def losses(result: TrainingResult) -> list[float]:
    return [record.loss for record in load_training(result.folder.training)]


def trained_weights(result: TrainingResult) -> np.ndarray:
    return np.array(json.loads(result.folder.weights.read_text("utf-8"))["final"])


# --- the loop


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 2},
        {"optimizer": "sgd", "head": "linear"},
        {"optimizer": "lbfgs", "lr": 1.0},
        {"optimizer": "cobyla", "epochs": 12},
        {"optimizer": "spsa"},
        {"loss": "cross_entropy", "model": ModelConfig(feature_map="zz", observable="z_mean")},
        {"head": "linear", "model": ModelConfig(ansatz="efficient_su2", observable="z_each")},
    ],
    ids=str,
)
def test_exact_training_is_the_same_however_the_circuit_is_cut(
    small: Workload, tmp_path: Path, change: dict[str, object]
):
    config = replace(EXACT, **change)
    uncut = train(small, config, RunFolder(tmp_path / "0"))
    for cuts in (1, 3):
        cut = train(small, replace(config, cuts=cuts), RunFolder(tmp_path / str(cuts)))
        assert losses(cut) == pytest.approx(losses(uncut), rel=0, abs=1e-8)
        assert trained_weights(cut) == pytest.approx(trained_weights(uncut), rel=0, abs=1e-8)
        assert load_queries(cut.folder.queries)[0].num_fragments == cuts + 1


def test_ways_to_name_the_same_cut_train_the_same(small: Workload, tmp_path: Path):
    config = replace(EXACT, shots=64)
    by_count = train(small, replace(config, cuts=1), RunFolder(tmp_path / "count"))
    by_label = train(small, replace(config, label="AABB"), RunFolder(tmp_path / "label"))
    assert losses(by_count) == losses(by_label)
    by_width = train(small, replace(config, max_qubits=2), RunFolder(tmp_path / "width"))
    assert load_queries(by_width.folder.queries)[0].num_cuts == 1
    assert by_width.label is None


def test_exact_loss_is_that_of_the_uncut_statevector(small: Workload, tmp_path: Path):
    result = train(small, replace(EXACT, cuts=2, epochs=1), RunFolder(tmp_path / "run"))
    model = build_model(ModelConfig(), 4)
    weights = initial_weights(model, EXACT.seed)
    outputs = [
        Statevector(
            model.circuit.assign_parameters(
                dict(zip(model.inputs, x, strict=True))
                | dict(zip(model.weights, weights, strict=True))
            )
        ).expectation_value(model.observables[0])
        for x in small.x_train
    ]
    assert losses(result)[0] == pytest.approx(
        np.mean((np.real(outputs) - small.y_train) ** 2), abs=1e-10
    )


def test_a_seed_and_shots_make_a_run_reproducible(small: Workload, tmp_path: Path):
    config = TrainingConfig(cuts=2, shots=64, epochs=2, batch_size=4)
    first = train(small, config, RunFolder(tmp_path / "first"))
    again = train(small, replace(config, workers=1), RunFolder(tmp_path / "again"))
    other = train(small, replace(config, seed=8), RunFolder(tmp_path / "other"))
    assert losses(first) == losses(again)
    assert np.array_equal(trained_weights(first), trained_weights(again))
    assert losses(first) != losses(other)


def test_training_leaves_the_callers_random_state_alone(small: Workload, tmp_path: Path):
    def draws() -> list[float]:
        return [*torch.rand(3).tolist(), *algorithm_globals.random.random(3)]

    def seed() -> None:
        torch.manual_seed(1)
        algorithm_globals.random_seed = 4

    seed()
    wanted = draws()
    seed()
    config = replace(EXACT, head="linear", optimizer="spsa", epochs=1)
    train(small, config, RunFolder(tmp_path / "run"))
    assert draws() == wanted


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs", "cobyla", "spsa"])
def test_every_epoch_is_recorded(small: Workload, tmp_path: Path, optimizer: str):
    config = TrainingConfig(cuts=1, shots=32, epochs=10, optimizer=optimizer)
    seen: list[TrainingRecord] = []
    result = train(small, config, RunFolder(tmp_path / "run"), progress=seen.append)
    folder = result.folder

    assert sorted(path.name for path in folder.path.iterdir()) == FILES
    records = load_training(folder.training)
    assert records == seen
    last = 11 if config.is_gradient_free else 10  # the optimiser's choice, scored once more
    assert [record.epoch for record in records] == list(range(last + 1))
    assert records[-1].loss == result.final.loss
    assert records[-1].metrics["test_accuracy"] == result.final.test_accuracy

    queries = load_queries(folder.queries)
    assert {record.run_id for record in (*records, *queries)} == {result.run_id}
    asked = [record.queries for record in records]
    assert asked == sorted(asked)
    assert asked[-1] == result.totals.queries == sum(record.num_queries for record in queries)
    assert result.totals.shots == sum(record.shots_total for record in queries) > 0
    metrics = records[-1].metrics
    assert metrics["shots"] == result.totals.shots
    assert metrics["subexperiments"] == sum(record.num_subexperiments for record in queries)
    stages = [metrics[f"t_{stage}"] for stage in ("partition", "generate", "execute")]
    assert sum(stages) + metrics["t_reconstruct"] == pytest.approx(result.totals.seconds)
    gradients = ["gradient_norm" in record.metrics for record in records]
    assert gradients == [False] + [not config.is_gradient_free] * last


def test_an_epoch_goes_through_every_sample_once_and_in_another_order(
    small: Workload, tmp_path: Path
):
    config = replace(EXACT, epochs=2, batch_size=4)
    result = train(small, config, RunFolder(tmp_path / "run"))
    # Scores of 6 + 3 samples, then two batches of 4 and 2 with their gradients in each epoch.
    sizes = [record.num_queries for record in load_queries(result.folder.queries)]
    assert sizes == [9, 4, 2, 9, 4, 2, 9]
    assert [record.step for record in load_training(result.folder.training)] == [0, 2, 4]
    whole = train(small, replace(config, batch_size=6), RunFolder(tmp_path / "whole"))
    full = train(small, replace(config, batch_size=None), RunFolder(tmp_path / "full"))
    assert losses(whole) == losses(full) != losses(result)


def test_values_and_slopes_of_a_step_have_shots_of_their_own(small: Workload, tmp_path: Path):
    """A loss multiplies the two: noise they shared would bias its gradient."""
    config = TrainingConfig(cuts=1, shots=16, epochs=1)
    result = train(small, config, RunFolder(tmp_path / "run"))
    kinds = [record.quantity for record in load_queries(result.folder.queries)]
    assert kinds == ["value", "value", "gradient", "value"]


def test_files_of_a_run_say_how_it_went(small: Workload, tmp_path: Path):
    config = replace(EXACT, cuts=3, head="linear")
    result = train(small, config, RunFolder(tmp_path / "run"))
    summary = json.loads(result.folder.summary.read_text("utf-8"))
    assert summary == json.loads(json.dumps(result.as_dict()))
    assert TrainingConfig.from_dict(summary["config"]) == config
    assert (summary["label"], summary["num_qubits"], summary["num_weights"]) == ("ABCD", 4, 10)
    assert summary["final"]["loss"] == losses(result)[-1]
    assert str(tmp_path) not in json.dumps(summary)

    model = build_model(ModelConfig(), 4)
    weights = json.loads(result.folder.weights.read_text("utf-8"))
    assert weights["names"] == [parameter.name for parameter in model.weights]
    assert weights["initial"] == initial_weights(model, config.seed).tolist()
    assert weights["final"] != weights["initial"]
    assert set(weights["head"]) == {"weight", "bias"}


def test_sixty_steps_with_shots_learn_iris(task: Workload, tmp_path: Path):
    result = train(task, TrainingConfig(cuts=3), RunFolder(tmp_path / "run"))
    assert result.final.test_accuracy >= 0.95
    assert result.final.loss <= 0.25


def test_shots_of_a_batch_are_divided_by_what_earlier_steps_saw(small: Workload, tmp_path: Path):
    config = TrainingConfig(cuts=1, shots_total=20_000, epochs=2)
    runs = [train(small, config, RunFolder(tmp_path / name)) for name in "ab"]
    assert losses(runs[0]) == losses(runs[1])
    queries = load_queries(runs[0].folder.queries)
    assert [record.quantity for record in queries] == ["value", *["value", "gradient", "value"] * 2]
    designs = [record.design for record in queries]
    assert all(design is not None and design.allocation == "optimal" for design in designs)
    # The scores that come first and the first derivatives have nothing to go by.
    assert [design.pilot_shots > 0 for design in designs if design] == [1, 0, 1, 0, 0, 0, 0]
    bounds = {"value": 2_500, "gradient": 17_500}
    assert all(0.9 < record.shots_total / bounds[record.quantity] <= 1 for record in queries)
    document = json.loads(runs[0].folder.summary.read_text("utf-8"))["config"]
    assert TrainingConfig.from_dict(document) == config
    exact = TrainedNetwork.load(runs[0].folder, exact=True)
    assert (exact.config.shots, exact.config.shots_total) == (None, None)


def test_what_a_configuration_does_not_use_is_in_no_document():
    """Checkpoints and summaries are those of earlier releases."""
    assert "shots_total" not in TrainingConfig().as_dict()
    assert TrainingConfig(shots_total=9).as_dict()["shots_total"] == 9


def test_a_head_of_the_callers_is_trained_and_read_back(small: Workload, tmp_path: Path):
    def head() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(3, 1)
        )

    torch.manual_seed(3)
    config = replace(EXACT, cuts=1, model=ModelConfig(observable="z_each"))
    module = head()
    before = [parameter.clone() for parameter in module.parameters()]
    result = train(small, config, RunFolder(tmp_path / "run"), head=module)
    assert result.config.head == "custom"
    assert result.num_weights == 8 + 15 + 4
    assert not any(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    trained = TrainedNetwork.load(result.folder, workload=small, head=head())
    assert trained.finished
    for mine, theirs in zip(trained.classifier.head.parameters(), module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Normed(torch.nn.Module):
    """A head that behaves otherwise while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.Sequential(
            torch.nn.BatchNorm1d(1), torch.nn.Dropout(0.5), torch.nn.Linear(1, 1)
        )

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.parts(outputs)


def test_a_head_learns_nothing_from_being_scored(small: Workload, tmp_path: Path):
    """Neither from the test part, nor anything but the same score twice."""
    other = replace(small, x_test=small.x_test[::-1] * 0.5, y_test=-small.y_test)
    states = []
    for number, workload in enumerate((small, other)):
        torch.manual_seed(1)
        module = Normed()
        result = train(workload, EXACT, RunFolder(tmp_path / str(number)), head=module)
        states.append({name: tensor.tolist() for name, tensor in module.state_dict().items()})
        assert module.training
        trained = TrainedNetwork.load(result.folder, head=Normed())
        with torch.no_grad():
            scores = trained.classifier(torch.from_numpy(workload.x_train)).numpy()
        assert np.mean((scores - workload.y_train) ** 2) == pytest.approx(result.final.loss)
    assert states[0] == states[1]


@pytest.mark.parametrize("optimizer", ["adam", "cobyla"])
def test_what_is_frozen_stays(small: Workload, tmp_path: Path, optimizer: str):
    head = torch.nn.Linear(1, 1)
    head.bias.requires_grad_(False)
    bias = float(head.bias)
    config = replace(EXACT, optimizer=optimizer, epochs=11)  # two more than weights to train
    result = train(small, config, RunFolder(tmp_path / "run"), head=head)
    assert float(head.bias) == bias
    assert result.num_weights == 8 + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(">f8"),
        lambda array: array.tolist(),
        lambda array: np.asfortranarray(array),
    ],
    ids=["big-endian", "lists", "by columns"],
)
def test_arrays_of_the_callers_come_in_any_form(
    small: Workload, tmp_path: Path, change: Callable[[np.ndarray], object]
):
    names = ("x_train", "y_train", "x_test", "y_test")
    workload = replace(small, **{name: change(getattr(small, name)) for name in names})
    here, there = (RunFolder(tmp_path / name) for name in ("here", "there"))
    assert losses(train(workload, EXACT, here)) == losses(train(small, EXACT, there))


def test_arrays_of_no_numbers_are_refused(small: Workload):
    with pytest.raises(InputError, match=r"`y_test` of workload `iris_binary_pml` is no array of"):
        replace(small, y_test=["yes", "no", "yes"])
    with pytest.raises(InputError, match="some are complex"):
        replace(small, x_train=small.x_train + 0j)


def test_the_reference_pipeline_trains_too(small: Workload, tmp_path: Path):
    tiny = replace(small, x_train=small.x_train[:1], y_train=small.y_train[:1])
    config = TrainingConfig(
        shots=4,
        epochs=1,
        pipeline="reference",
        workers=2,
        stragglers=Stragglers(1.0, Constant(1e-4)),
    )
    result = train(tiny, config, RunFolder(tmp_path / "run"))
    queries = load_queries(result.folder.queries)
    assert {record.pipeline for record in queries} == {"reference"}
    assert {(record.straggler.p, record.straggler.injected) for record in queries} == {(1.0, 1)}
    # Scores before and after (1 + 3 samples), a value, and two shifts of each of 8 weights.
    assert len(queries) == 4 + 1 + 16 + 4


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuts": -1}, "`cuts` is -1: give a whole number of at least 0"),
        ({"cuts": 1, "label": "AABB"}, "`cuts`, `label` and `max_qubits` exclude one another"),
        ({"shots": 1.5}, "`shots` is 1.5: give a whole number"),
        ({"batch_size": 8, "optimizer": "spsa"}, "`batch_size` is 8, and spsa takes the whole"),
        ({"seed": 2**32}, "`seed` is 4294967296: give a whole number"),
        ({"lr": 10**400}, "give a positive learning rate"),
        ({"lr": float("nan")}, "`lr` is nan: give a positive learning rate"),
        ({"optimizer": "newton"}, "`optimizer` is 'newton': give one of adam, sgd, lbfgs, cobyla"),
        ({"model": {"ansatz": "two_local"}}, "`model` is .*: give a ModelConfig"),
        ({"address": "tcp://a:1"}, "`address` names a cluster, and `pool` is threads: give dask"),
        ({"shots": 64, "shots_total": 9}, "`shots` is 64 and `shots_total` is 9: give one of them"),
        ({"shots": None, "shots_total": 9}, "`shots` is None and `shots_total` is 9: give one"),
        ({"pipeline": "reference", "shots_total": 9}, "the reference .* does not divide"),
        ({"pipeline": "reference", "shots": None}, "the reference pipeline has no exact values"),
        ({"pipeline": "reference", "max_qubits": 2}, "the reference pipeline cuts by label"),
    ],
)
def test_a_configuration_out_of_range_is_refused(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**change)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainingConfig(cuts=4), "a chain of 4 qubits takes 0 to 3 cuts"),
        (TrainingConfig(label="AAB"), "`label` has 3 letters, the circuit has 4 qubits"),
        (TrainingConfig(optimizer="cobyla", epochs=9), "COBYLA takes 10 evaluations"),
        (
            TrainingConfig(model=ModelConfig(observable="ZZ")),
            "acts on 2 qubits, the circuit has 4",
        ),
        (TrainingConfig(shots_total=99), "`shots_total` is 99, and the values and derivatives of"),
        (TrainingConfig(head="custom"), "`head` is 'custom' in the configuration and no module"),
    ],
)
def test_a_configuration_that_does_not_fit_writes_nothing(
    task: Workload, tmp_path: Path, config: TrainingConfig, message: str
):
    with pytest.raises(InputError, match=message):
        train(task, config, RunFolder(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_head_of_the_wrong_shape_writes_nothing(small: Workload, tmp_path: Path):
    with pytest.raises(InputError, match=r"scores of shape \(9, 2\) for 9 samples: it must give"):
        train(small, EXACT, RunFolder(tmp_path / "run"), head=torch.nn.Linear(1, 2))
    assert not list(tmp_path.iterdir())


def test_a_loss_that_no_number_can_hold_is_null_until_the_run_diverges(
    small: Workload, tmp_path: Path
):
    config = replace(EXACT, optimizer="sgd", lr=1e160, epochs=1, head="linear")
    result = train(small, config, RunFolder(tmp_path / "run"))
    assert result.final.loss == float("inf")
    assert json.loads(result.folder.summary.read_text("utf-8"))["final"]["loss"] is None
    with pytest.raises(InputError, match=r"not finite after step [0-9]+: the run diverged, take a"):
        train(small, replace(config, lr=1e200, epochs=50), RunFolder(tmp_path / "other"))


@pytest.mark.parametrize("name", [*FILES[1:], "training.png"])
def test_a_folder_that_holds_another_run_is_left_alone(task: Workload, tmp_path: Path, name: str):
    (tmp_path / name).write_text("theirs", "utf-8")
    with pytest.raises(InputError, match=f"already holds a run \\({name}\\): name another folder"):
        train(task, EXACT, RunFolder(tmp_path))
    assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["theirs"]


def test_a_folder_that_cannot_be_one_is_refused(task: Workload, tmp_path: Path):
    (tmp_path / "file").write_text("theirs", "utf-8")
    with pytest.raises(InputError, match="file` is a file: name a folder for the run"):
        train(task, EXACT, RunFolder(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be made: `.*file` is no folder to write to"):
        train(task, EXACT, RunFolder(tmp_path / "file" / "run"))


def test_a_missing_library_is_named_with_its_extra():
    """In a process of its own: here the library has long been imported."""
    done = run_without("torch", "import distributed_estimator.training.loop")
    assert 'run `pip install "distributed-estimator[ml]"`' in done.stderr
