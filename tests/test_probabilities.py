"""Probabilities of outcomes: exact ones equal Qiskit's, error bars of sampled ones hold."""

from __future__ import annotations

import re
from dataclasses import fields

import numpy as np
import pytest
from helpers import entangled
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import DensityMatrix, Statevector

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions
from distributed_estimator.errors import InputError, PrecisionWarning
from distributed_estimator.probabilities import Probabilities
from distributed_estimator.records import read_records

THETA, PHI = Parameter("theta"), Parameter("phi")


def estimator(cuts=None, backend=None, **options):
    return DistributedEstimator(cuts, backend, options=EstimatorOptions(**options))


def turned():
    """Every qubit begins with a parameter that changes nothing to be seen."""
    circuit = QuantumCircuit(4)
    circuit.rz(THETA, [0, 1, 2, 3])
    circuit.ry(0.8, [0, 1])
    circuit.ry(0.5, [2, 3])
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.rx(0.4, [1, 2])
    circuit.cx(2, 3)
    return circuit


@pytest.mark.parametrize("cuts", [None, "ABBBAB", AutoCut(3)])
@pytest.mark.parametrize("qubits", [[4], np.array([5, 0, 3]), range(6)])
def test_exact_probabilities_are_qiskits(cuts, qubits):
    circuit = entangled(6, 3, layers=1)
    found = estimator(cuts).probabilities(circuit, qubits, precision=0)
    assert found.values == pytest.approx(Statevector(circuit).probabilities(qubits), abs=1e-10)
    assert not found.stderrs.any()
    assert found.qubits == tuple(qubits)


def test_twelve_of_sixteen_qubits():
    circuit, qubits = entangled(16, 1, layers=1), [15, 0, 3, 4, 8, 7, 11, 10, 2, 9, 12, 1]
    found = estimator("A" * 8 + "B" * 8).probabilities(circuit, qubits, precision=0)
    assert found.values.shape == (4096,)
    assert found.values == pytest.approx(Statevector(circuit).probabilities(qubits), abs=1e-10)


def test_bindings_and_permuted_measured_and_reset_qubits():
    circuit = QuantumCircuit(3, 3)
    circuit.ry(THETA, 0)
    circuit.cx(0, 1)
    circuit.swap(1, 2)
    circuit.ry(PHI, 1)
    circuit.measure(2, 2)
    circuit.cx(2, 1)
    circuit.reset(0)
    circuit.measure([0, 1], [0, 1])
    values = np.random.default_rng(1).uniform(-3, 3, (2, 3, 2))
    found = estimator("AAB").probabilities(circuit, [1, 0], values, precision=0)
    assert found.values.shape == found.stderrs.shape == (2, 3, 4)
    names = [parameter.name for parameter in circuit.parameters]
    for place in np.ndindex(2, 3):
        phi, theta = (values[place][names.index(name)] for name in ("phi", "theta"))
        bound = QuantumCircuit(3)  # the measurement of a qubit that nothing interferes with later
        bound.ry(theta, 0)
        bound.cx(0, 1)
        bound.swap(1, 2)
        bound.ry(phi, 1)
        bound.cx(2, 1)
        expected = DensityMatrix(bound).reset([0]).probabilities([1, 0])
        assert found.values[place] == pytest.approx(expected, abs=1e-10)


def test_error_bars_cover():
    """400 bindings with shots of their own and the same distribution."""
    circuit, count = turned(), 400
    values = np.linspace(0.1, 3, count)[:, None]
    qubits = [3, 1, 2]
    found = estimator("AABB", shots=200, seed=5).probabilities(circuit, qubits, values)
    expected = Statevector(circuit.assign_parameters([0.0])).probabilities(qubits)
    errors = found.values - expected
    # Means of 400 draws of 8 outcomes: beyond 5 of their standard errors once in 200,000 seeds.
    assert (np.abs(errors.mean(axis=0)) < 5 * errors.std(axis=0) / np.sqrt(count)).all()
    # The ratio of mean squared error and mean variance scatters by √(2/400), the estimate of the
    # variance and what is not normal in the errors aside.
    ratio = (errors**2).mean(axis=0) / (found.stderrs**2).mean(axis=0)
    assert (np.abs(ratio - 1) < 5 * np.sqrt(2 / count)).all()
    within = (np.abs(errors) < 2 * found.stderrs).mean()
    assert abs(within - 0.9545) < 0.02
    assert (found.values < 0).any()
    nearest = found.nearest()
    assert (nearest >= 0).all()
    assert nearest.sum(axis=-1) == pytest.approx(1, abs=1e-12)
    # The true distribution is among those onto which they are projected.
    assert (((nearest - expected) ** 2).sum(axis=1) <= (errors**2).sum(axis=1) + 1e-12).all()


@pytest.mark.parametrize(("cuts", "sampler"), [(None, False), ("AABB", False), ("AABB", True)])
def test_a_precision_is_met(cuts, sampler, tmp_path):
    backend = StatevectorSampler(seed=2) if sampler else None
    log = tmp_path / "queries.jsonl"
    made = DistributedEstimator(cuts, backend, options=EstimatorOptions(seed=3), log=log)
    circuit = turned()
    found = made.probabilities(circuit, [0, 2], [0.2], precision=0.01)
    expected = Statevector(circuit.assign_parameters([0.2])).probabilities([0, 2])
    assert 0.005 < found.stderrs.max() <= 0.01
    assert (np.abs(found.values - expected) < 5 * found.stderrs).all()
    assert found.metadata["precision"] == 0.01
    records = [record for record in read_records(log) if record.kind == "query"]
    assert found.metadata["shots_total"] == sum(record.shots_total for record in records)
    assert found.record.value.count == 4


def test_a_precision_is_that_of_every_probability_whatever_the_norm():
    """Further rounds are planned for those that miss it."""
    circuit = entangled(4, 2, layers=1)
    found = [
        estimator("AABB", error_norm=norm, seed=4).probabilities(circuit, [0, 3, 1], precision=0.02)
        for norm in ("max", "rms")
    ]
    assert found[1].stderrs.max() <= 0.02
    assert np.array_equal(found[0].values, found[1].values)


def test_shots_are_divided_where_they_count():
    circuit, values = turned(), np.linspace(0.1, 3, 40)[:, None]
    expected = Statevector(circuit.assign_parameters([0.0])).probabilities([3, 1, 2])
    shots = {}
    for allocation in ("uniform", "optimal"):
        found = estimator("ABBA", allocation=allocation, seed=1).probabilities(
            circuit, [3, 1, 2], values, precision=0.02
        )
        assert found.stderrs.max() <= 0.02
        assert found.record.design.allocation == allocation
        shots[allocation] = found.metadata["shots_total"]
        # 40 bindings of 8 outcomes: means beyond 5 standard errors once in 200,000 seeds.
        errors = found.values - expected
        assert (np.abs(errors.mean(axis=0)) < 5 * errors.std(axis=0) / np.sqrt(40)).all()
        # 320 squares, of which the 8 of a binding depend on each other.
        ratio = (errors**2).mean() / (found.stderrs**2).mean()
        assert abs(ratio - 1) < 5 * np.sqrt(2 / 40)
    assert shots["optimal"] < 0.85 * shots["uniform"]


def test_shots_and_budgets():
    circuit = turned()
    fixed = estimator("AABB", shots=100, seed=1).probabilities(circuit, [1, 2], [0.2])
    circuits = fixed.metadata["num_circuits"]
    assert fixed.metadata["shots_total"] == 100 * circuits
    again = estimator("AABB", shots=100, seed=1).probabilities(circuit, [1, 2], [0.2])
    assert again.values.tolist() == fixed.values.tolist()
    total = estimator("AABB", seed=1).probabilities(circuit, [1, 2], [0.2], shots_total=1005)
    assert 900 < total.metadata["shots_total"] <= 1005
    with pytest.raises(InputError, match="`shots_total` is 5, and 10 circuits are to run"):
        estimator("AABB").probabilities(circuit, [1, 2], [0.2], shots_total=5)
    with pytest.warns(PrecisionWarning, match="precision 0.001 takes more than the .* shots"):
        short = estimator("AABB", max_shots=2000).probabilities(
            circuit, [1, 2], [0.2], precision=1e-3
        )
    assert 1800 < short.metadata["shots_total"] <= 2000


def test_a_tensor_without_room_for_covariances():
    circuit = turned()
    whole, first = (
        estimator("ABAB", shots=300, seed=1, memory_limit=limit).probabilities(
            circuit, [0, 1, 2, 3], [0.2]
        )
        for limit in (None, 50_000)
    )
    assert (whole.record.stderr_first_order, first.record.stderr_first_order) == (0, 16)
    assert first.values == pytest.approx(whole.values, abs=1e-12)
    assert first.stderrs == pytest.approx(whole.stderrs, rel=0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("qubits", "match"),
    [
        ([], "names 0: give 1 to 12"),
        (range(13), r"names 13: give 1 to 12, whose outcomes are at most 4096"),
        ([0, 14], "has 14: give numbers from 0 to 13"),
        ([-1], "has -1: give numbers from 0"),
        ([1, 2, 1], "has 1 more than once"),
        ([0.5], "has 0.5: give numbers"),
        ([True], "has True: give numbers"),
        ("01", re.escape("`qubits` is '01': give a list")),
        (3, "`qubits` is 3: give a list"),
    ],
)
def test_qubits_that_do_not_fit(qubits, match):
    with pytest.raises(InputError, match=match):
        estimator().probabilities(QuantumCircuit(14), qubits)


def test_other_input_that_does_not_fit():
    with pytest.raises(InputError, match="`circuit` is 'x': give a QuantumCircuit"):
        estimator().probabilities("x", [0])
    with pytest.raises(InputError, match="`precision` is -1"):
        estimator().probabilities(turned(), [0], [0.2], precision=-1)
    with pytest.raises(InputError, match="parameter"):
        estimator().probabilities(turned(), [0])


def test_the_nearest_distribution():
    def nearest(*values):
        return Probabilities((0,), np.array(values), np.zeros(len(values)), {}).nearest().tolist()

    assert [field.name for field in fields(Probabilities)][:3] == ["qubits", "values", "stderrs"]
    assert nearest(0.25, 0.75) == [0.25, 0.75]
    assert nearest(1.5, -0.5) == [1.0, 0.0]
    assert nearest(-2.0, -2.0) == [0.5, 0.5]
    rng = np.random.default_rng(1)
    for _ in range(20):
        values, others = rng.normal(0.2, 0.3, 8), rng.dirichlet(np.full(8, 0.3), 200)
        closest = np.sum((np.array(nearest(*values)) - values) ** 2)
        assert (((others - values) ** 2).sum(axis=1) >= closest).all()


@pytest.mark.parametrize("precision", [1 / 64, 0.03])
def test_a_precision_biases_no_rare_outcome(precision):
    """An outcome of 0.019 that many a pilot does not see."""
    circuit = QuantumCircuit(1)
    circuit.ry(0.28, 0)
    exact, runs = np.sin(0.14) ** 2, 200
    made = [estimator(None, seed=seed) for seed in range(runs)]
    found = [own.probabilities(circuit, [0], precision=precision) for own in made]
    values, stderrs = (
        np.array([getattr(own, n)[1] for own in found]) for n in ("values", "stderrs")
    )
    # Five standard errors of the mean, and of the mean of squares of normal numbers.
    assert abs(values.mean() - exact) < 5 * values.std(ddof=1) / np.sqrt(runs)
    assert np.mean((values - exact) ** 2) / np.mean(stderrs**2) < 1 + 5 * np.sqrt(2 / runs)
    # Outcomes that no shot has are as rare as with the fewest shots that a round has.
    assert (stderrs == 0).sum() <= runs * (1 - exact) ** 256 + 5
