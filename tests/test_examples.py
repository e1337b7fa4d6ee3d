"""Each example runs as a newcomer runs it, and what it prints agrees with its reference."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms.gradients import LinCombEstimatorGradient
from qiskit_machine_learning.algorithms import NeuralNetworkClassifier
from qiskit_machine_learning.neural_networks import EstimatorQNN
from qiskit_machine_learning.optimizers import ADAM

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions

FOLDER = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))

Numbers = dict[str, float]


def check_estimator_qnn(numbers: Numbers) -> None:
    """Two classes, 20 test samples: chance is 0.5."""
    assert numbers["last_loss"] < 0.3 * numbers["first_loss"]
    assert numbers["test_accuracy"] >= 0.9
    assert numbers["uncut_test_accuracy"] >= 0.9
    assert 0 < numbers["mean_stderr"] < 0.05
    # The samples share fragments, so their errors are not independent: wide bounds.
    assert 0.4 < numbers["rms_error_in_stderrs"] < 2


def check_classifier(numbers: Numbers) -> None:
    """Two classes, 20 test samples: chance is 0.5."""
    assert numbers["train_accuracy"] >= 0.9
    assert numbers["test_accuracy"] >= 0.9
    assert abs(numbers["test_accuracy"] - numbers["uncut_test_accuracy"]) <= 0.1
    # Errors of 1024 shots a subexperiment; they would be 0.03 uncut, or less.
    assert 0 < numbers["mean_difference"] < 0.04
    assert numbers["classical_test_accuracy"] >= 0.9


def check_vqc(numbers: Numbers) -> None:
    """Three classes: chance is 1/3. VQC's probabilities are 114 frequencies."""
    assert numbers["train_accuracy"] >= 0.8
    assert numbers["test_accuracy"] >= 0.75
    assert abs(numbers["test_accuracy"] - numbers["vqc_test_accuracy"]) <= 0.06
    assert 0 < numbers["largest_difference"] < 5 * numbers["largest_stderr"]


def check_vqe_h2(numbers: Numbers) -> None:
    """The reference is in the literature, too: -1.8572750 hartree, electronic."""
    assert numbers["exact"] == pytest.approx(-1.8572750302, abs=1e-9)
    assert -1e-9 < numbers["energy"] - numbers["exact"] < 1e-5
    assert numbers["energy"] < numbers["hartree_fock"] - 0.02
    assert 0 < numbers["stderr"] <= 0.005
    assert abs(numbers["measured"] - numbers["energy"]) < 4 * numbers["stderr"]
    assert numbers["shots"] > 0


def check_vqe_ising(numbers: Numbers) -> None:
    """From far above to just above the ground state, never below."""
    assert (numbers["num_cuts"], numbers["num_fragments"]) == (3, 2)
    assert numbers["start"] > numbers["exact"] + 0.5
    assert -1e-9 < numbers["energy"] - numbers["exact"] < 5e-3


def check_qaoa_maxcut(numbers: Numbers) -> None:
    """Far below the energy of random cuts, with an error bar that covers the exact one."""
    assert numbers["energy"] < numbers["random_energy"] - 1
    assert 0.01 < numbers["stderr"] < 0.1
    assert abs(numbers["energy"] - numbers["exact_energy"]) < 3 * numbers["stderr"]
    assert numbers["cut"] == numbers["best_cut"] == 9


def check_hybrid(numbers: Numbers) -> None:
    """Every job is done once, though a device goes away; what is left of the value is its noise."""
    assert numbers["jobs"] == 60
    assert numbers["lost"] == numbers["twice"] == 0
    assert numbers["jobs_0"] == 8
    assert 1 <= numbers["failed"] <= 4  # one for each worker that had a job there
    shares = [numbers[f"jobs_{number}"] for number in range(3)]
    assert min(shares) > 0
    assert sum(shares) == 60
    # Two-qubit fragments lose a few per cent a gate and measurement, and gain nothing.
    assert 0.5 < numbers["value"] < numbers["exact"]
    assert 0 < numbers["stderr"] < 0.05


CHECKS: dict[str, Callable[[Numbers], None]] = {
    "classifier": check_classifier,
    "hybrid": check_hybrid,
    "estimator_qnn": check_estimator_qnn,
    "qaoa_maxcut": check_qaoa_maxcut,
    "vqc": check_vqc,
    "vqe_h2": check_vqe_h2,
    "vqe_ising": check_vqe_ising,
}


def load(path: Path) -> ModuleType:
    """The script as a module; other packages install an `examples` too, so not by name."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.soak
def test_what_an_example_returns_agrees_with_its_reference(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = load(path).main()
    assert all(np.isfinite(number) for number in numbers.values())
    assert len(capsys.readouterr().out.splitlines()) >= 3
    assert not list(tmp_path.iterdir()), "an example leaves no files"
    CHECKS[path.stem](numbers)


def test_every_example_has_a_check_and_a_row_in_the_table() -> None:
    assert {path.stem for path in SCRIPTS} == set(CHECKS)
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"| [{path.name}]({path.name}) |" in table for path in SCRIPTS)


def test_a_script_runs_from_any_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(FOLDER / "vqe_h2.py")]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "exact -1.137306" in done.stdout
    assert "±" in done.stdout


def test_a_classifier_goes_through_the_librarys_own_file(tmp_path: Path) -> None:
    circuit = real_amplitudes(2, reps=1)
    values = list(circuit.parameters)
    qnn = EstimatorQNN(
        circuit=circuit,
        input_params=values[:2],
        weight_params=values[2:],
        estimator=DistributedEstimator("AB", options=EstimatorOptions(default_precision=0)),
        default_precision=0,
    )
    features = np.random.default_rng(7).uniform(-1, 1, (6, 2))
    classifier = NeuralNetworkClassifier(
        qnn, optimizer=ADAM(maxiter=2), initial_point=np.array([0.3, 0.4])
    )
    classifier.fit(features, np.array([-1, 1] * 3))
    classifier.to_dill(str(tmp_path / "model"))
    again = NeuralNetworkClassifier.from_dill(str(tmp_path / "model"))
    assert again.predict_proba(features) == pytest.approx(classifier.predict_proba(features))


def test_gradients_that_add_a_qubit_take_automatic_cuts() -> None:
    """They ask the estimator for its `default_precision`, too."""
    circuit, observable = real_amplitudes(2, reps=1), SparsePauliOp(["ZZ", "XI"], [1.0, 0.5])
    cut = DistributedEstimator(AutoCut(max_qubits=2), options=EstimatorOptions(default_precision=0))
    gradients = [
        LinCombEstimatorGradient(estimator).run([circuit], [observable], [[0.1, 0.2, 0.3, 0.4]])
        for estimator in (cut, StatevectorEstimator(default_precision=0))
    ]
    ours, reference = (job.result().gradients[0] for job in gradients)
    assert ours == pytest.approx(reference, abs=1e-9)
