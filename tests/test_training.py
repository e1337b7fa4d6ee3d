"""Training through its public face: same data, same start, whatever is cut; everything recorded."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distributed_estimator.analysis.load import load_queries, load_training
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import InputError, MissingExtraError
from distributed_estimator.records import TrainingRecord
from distributed_estimator.training.loop import train
from distributed_estimator.training.models import build_model, initial_weights, labels_for_cuts
from distributed_estimator.training.runs import RunFolder, TrainingConfig, TrainingResult
from distributed_estimator.training.workloads import FEATURE_RANGE, WORKLOADS, Workload, iris

FILES = ["queries.jsonl", "summary.json", "training.jsonl", "weights.json"]
EXACT = TrainingConfig(shots=None, maxiter=3)


@pytest.fixture(scope="module")
def task() -> Workload:
    return iris(seed=7)


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


# --- the workload


def test_iris_is_split_evenly_and_the_scaler_sees_the_training_part_alone():
    for seed in range(5):
        task = iris(seed)
        low, high = FEATURE_RANGE
        assert task.x_train.shape == (80, 4)
        assert task.x_test.shape == (20, 4)
        assert task.y_train.sum() == task.y_test.sum() == 0
        assert task.x_train.min(axis=0) == pytest.approx(low)
        assert task.x_train.max(axis=0) == pytest.approx(high)
        assert low <= task.x_test.min() <= task.x_test.max() <= high


def test_iris_depends_on_its_seed_alone():
    assert np.array_equal(iris(3).x_train, iris(3).x_train)
    assert not np.array_equal(iris(3).x_train, iris(4).x_train)


def test_iris_takes_any_two_species():
    assert iris(0, (1, 2)).classes == ("versicolor", "virginica")
    for classes, sign in (((0, 1), 1), ((1, 0), -1)):
        task = iris(0, classes)
        # Setosa, species 0, has by far the shorter petals.
        assert np.sign(np.corrcoef(task.x_train[:, 2], task.y_train)[0, 1]) == sign


@pytest.mark.parametrize("classes", [(0, 0), (0, 3), (-1, 1)])
def test_iris_refuses_other_classes(classes: tuple[int, int]):
    with pytest.raises(InputError, match="give two different ones of 0, 1 and 2"):
        iris(0, classes)


def test_only_what_works_is_registered():
    assert list(WORKLOADS) == ["iris"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.zeros(80)}, "train targets of workload `iris` must each be -1 or [+]1"),
        ({"y_train": np.ones(79)}, r"the train part .* shape \(79,\): give \(samples, features\)"),
        ({"x_test": np.full((20, 4), np.nan)}, "test features of workload `iris` hold NaN"),
        ({"x_test": np.ones((20, 3))}, "4 training features and 3 test features"),
        ({"x_test": np.ones((0, 4)), "y_test": np.ones(0)}, "the test part"),
    ],
)
def test_a_workload_that_does_not_fit_together_is_refused(
    task: Workload, change: dict[str, np.ndarray], message: str
):
    with pytest.raises(InputError, match=message):
        replace(task, **change)


# --- the model


@pytest.mark.parametrize("num_qubits", [1, 2, 4, 7])
def test_labels_cut_the_model_as_often_as_asked(num_qubits: int):
    circuit = build_model(num_qubits).circuit
    for cuts in range(num_qubits):
        label = labels_for_cuts(num_qubits, cuts)
        plan = CutPlan.build(circuit, label)
        assert (plan.num_cuts, plan.num_fragments) == (cuts, cuts + 1)
        sizes = [label.count(letter) for letter in dict.fromkeys(label)]
        assert sum(sizes) == num_qubits
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("num_qubits", "cuts"), [(4, 4), (4, -1), (100, 60)])
def test_labels_for_more_cuts_than_there_can_be_are_refused(num_qubits: int, cuts: int):
    with pytest.raises(InputError, match=f"`num_cuts` is {cuts}, and a chain of {num_qubits}"):
        labels_for_cuts(num_qubits, cuts)


@pytest.mark.parametrize("name", ["num_features", "feature_map_reps", "ansatz_reps"])
def test_a_model_of_nothing_is_refused(name: str):
    with pytest.raises(InputError, match=f"`{name}` is 0: give 1 or more"):
        build_model(**{"num_features": 4, name: 0})


def test_a_model_whose_parts_do_not_fit_is_refused():
    model = build_model(4)
    with pytest.raises(InputError, match="acts on 3 qubits and the circuit has 4"):
        replace(model, observable=build_model(3).observable)
    with pytest.raises(InputError, match=r"differ from the circuit's parameters: θ\[7\]"):
        replace(model, weights=model.weights[:-1])


def test_initial_weights_depend_on_the_seed_alone():
    model = build_model(4)
    assert np.array_equal(initial_weights(model, 3), initial_weights(model, 3))
    assert not np.array_equal(initial_weights(model, 3), initial_weights(model, 4))


# --- the loop


def test_exact_training_is_the_same_however_the_circuit_is_cut(small: Workload, tmp_path: Path):
    uncut = train(small, EXACT, RunFolder(tmp_path / "0"))
    for cuts in (1, 2, 3):
        cut = train(small, replace(EXACT, cuts=cuts), RunFolder(tmp_path / str(cuts)))
        assert losses(cut) == pytest.approx(losses(uncut), abs=1e-5)  # torch computes in float32
        assert cut.final == uncut.final or cut.final.loss == pytest.approx(uncut.final.loss)
        assert load_queries(cut.folder.queries)[0].num_cuts == cuts


def test_exact_loss_is_that_of_the_uncut_statevector(small: Workload, tmp_path: Path):
    from qiskit.quantum_info import Statevector

    result = train(small, replace(EXACT, cuts=2, maxiter=1), RunFolder(tmp_path / "run"))
    model = build_model(4)
    weights = initial_weights(model, EXACT.seed)
    outputs = [
        Statevector(
            model.circuit.assign_parameters(
                dict(zip(model.inputs, x, strict=True))
                | dict(zip(model.weights, weights, strict=True))
            )
        ).expectation_value(model.observable)
        for x in small.x_train
    ]
    assert losses(result)[0] == pytest.approx(
        np.mean((np.real(outputs) - small.y_train) ** 2), abs=1e-5
    )


def test_a_seed_and_shots_make_a_run_reproducible(small: Workload, tmp_path: Path):
    config = TrainingConfig(cuts=2, shots=64, maxiter=2)
    first = train(small, config, RunFolder(tmp_path / "first"))
    again = train(small, replace(config, workers=1), RunFolder(tmp_path / "again"))
    other = train(small, replace(config, seed=8), RunFolder(tmp_path / "other"))
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)


@pytest.mark.parametrize("optimizer", ["adam", "cobyla"])
def test_every_step_is_recorded(small: Workload, tmp_path: Path, optimizer: str):
    config = TrainingConfig(cuts=1, shots=32, maxiter=10, optimizer=optimizer)
    seen: list[TrainingRecord] = []
    result = train(small, config, RunFolder(tmp_path / "run"), seen.append)
    folder = result.folder

    assert sorted(path.name for path in folder.path.iterdir()) == FILES
    records = load_training(folder.training)
    assert records == seen
    assert [record.step for record in records] == list(range(11))
    assert records[-1].loss == result.final.loss
    assert records[-1].metrics["test_accuracy"] == result.final.test_accuracy

    queries = load_queries(folder.queries)
    assert {record.run_id for record in (*records, *queries)} == {result.run_id}
    asked = [record.queries for record in records]
    assert asked == sorted(asked)
    assert asked[-1] == result.totals.queries == sum(record.num_queries for record in queries)
    assert result.totals.shots == sum(record.shots_total for record in queries) > 0
    gradients = ["gradient_norm" in record.metrics for record in records]
    assert gradients == [optimizer == "adam"] * 10 + [False]


def test_files_of_a_run_say_how_it_went(small: Workload, tmp_path: Path):
    config = replace(EXACT, cuts=3)
    result = train(small, config, RunFolder(tmp_path / "run"))
    summary = json.loads(result.folder.summary.read_text("utf-8"))
    assert summary == json.loads(json.dumps(result.as_dict()))
    assert summary["config"]["cuts"] == 3
    assert summary["label"] == "ABCD"
    assert summary["final"]["loss"] == losses(result)[-1]
    assert str(tmp_path) not in json.dumps(summary)

    weights = json.loads(result.folder.weights.read_text("utf-8"))
    assert weights["names"] == [parameter.name for parameter in build_model(4).weights]
    assert weights["initial"] == initial_weights(build_model(4), config.seed).tolist()
    assert weights["final"] != weights["initial"]


@pytest.mark.parametrize("cuts", [0, 3])
def test_sixty_steps_with_shots_learn_iris(task: Workload, tmp_path: Path, cuts: int):
    result = train(task, TrainingConfig(cuts=cuts), RunFolder(tmp_path / "run"))
    assert result.final.test_accuracy >= 0.95
    assert result.final.loss <= 0.25
    assert result.seconds < 60


def test_the_reference_pipeline_trains_too(small: Workload, tmp_path: Path):
    tiny = replace(small, x_train=small.x_train[:1], y_train=small.y_train[:1])
    config = TrainingConfig(
        shots=16, maxiter=10, optimizer="cobyla", pipeline="reference", workers=2, cuts=1
    )
    result = train(tiny, config, RunFolder(tmp_path / "run"))
    assert {record.pipeline for record in load_queries(result.folder.queries)} == {"reference"}


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuts": -1}, "`cuts` is -1: give a whole number of at least 0"),
        ({"shots": 0}, "`shots` is 0: give a whole number of at least 1"),
        ({"shots": 1.5}, "`shots` is 1.5: give a whole number"),
        ({"maxiter": 0}, "`maxiter` is 0: give a whole number of at least 1"),
        ({"workers": 0}, "`workers` is 0: give a whole number of at least 1"),
        ({"seed": -1}, "`seed` is -1: give a whole number of at least 0"),
        ({"seed": 2**32}, "`seed` is 4294967296: give a number below"),
        ({"lr": 0.0}, "`lr` is 0.0: give a positive learning rate"),
        ({"lr": float("nan")}, "`lr` is nan: give a positive learning rate"),
        ({"optimizer": "sgd"}, "`optimizer` is 'sgd': give one of adam, cobyla"),
        ({"setting_basis": "half"}, "`setting_basis` is 'half': give one of full, minimal"),
        ({"pipeline": "fast"}, "`pipeline` is 'fast': give one of contracted, reference"),
        ({"pipeline": "reference", "shots": None}, "the reference pipeline has no exact values"),
    ],
)
def test_a_configuration_out_of_range_is_refused(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**change)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainingConfig(cuts=4), "a chain of 4 qubits takes 0 to 3 cuts"),
        (TrainingConfig(optimizer="cobyla", maxiter=9), "COBYLA takes 10 evaluations"),
    ],
)
def test_a_configuration_that_does_not_fit_writes_nothing(
    task: Workload, tmp_path: Path, config: TrainingConfig, message: str
):
    with pytest.raises(InputError, match=message):
        train(task, config, RunFolder(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*FILES, "training.png"])
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


@pytest.mark.parametrize("module", ["torch", "qiskit_machine_learning"])
def test_a_missing_library_is_named_with_its_extra(
    task: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"distributed-estimator\[ml\]"):
        train(task, EXACT, RunFolder(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_missing_scikit_learn_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"distributed-estimator\[ml\]"):
        iris(seed=7)
