"""Which tasks values depend on most, and that these run first where that is asked for."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.execution import LargestInfluenceFirst, Policy
from distributed_estimator.reconstruction import Queries
from distributed_estimator.reconstruction.derivatives import influences_of_terms
from distributed_estimator.subexperiments import FragmentExperiment, Observables, parse, restrict


class Noted(StatevectorBackend):
    """Notes what ran, in that order."""

    tasks: ClassVar[list] = []

    def run(self, experiment, task):
        self.tasks.append(task)
        return super().run(experiment, task)


@pytest.fixture(autouse=True)
def tasks():
    Noted.tasks.clear()
    return Noted.tasks


def by_influence(label, **options):
    """One task at a time; a task has a few circuits of one binding."""
    policy = Policy(order=LargestInfluenceFirst(), subexperiments=4, in_flight=1)
    chosen = EstimatorOptions(seed=1, policy=policy, **options)
    return DistributedEstimator(label, Noted(), workers=1, options=chosen)


def pairs(count, theta=0.4):
    """Entangled pairs of qubits, weakly coupled to the next ones."""
    circuit = QuantumCircuit(2 * count)
    for qubit in range(2 * count):
        circuit.ry(theta + 0.3 * qubit, qubit)
    for first in range(0, 2 * count, 2):
        circuit.cx(first, first + 1)
    for first in range(1, 2 * count - 1, 2):
        circuit.rzz(1e-3, first, first + 1)
    return circuit


def test_one_query_runs_the_fragment_first_that_its_largest_terms_act_on(tasks):
    weights = {"IIIIZZ": 0.01, "IIZZII": 0.0001, "ZZIIII": 1.0}
    with by_influence("AABBCC", shots=64) as estimator:
        estimator.run([(pairs(3), SparsePauliOp(list(weights), list(weights.values())))]).result()
    order = [task.experiment for task in tasks]
    assert order == sorted(order, key=[2, 0, 1].index)
    assert len(set(order)) == 3


def test_bases_of_large_terms_run_before_those_of_small_ones(tasks):
    observable = SparsePauliOp(["IIXX", "IIZZ"], [1.0, 0.01])
    with by_influence("AABB", shots=64) as estimator:
        estimator.run([(pairs(2), observable)]).result()
    parts = [task.circuits for task in tasks if task.experiment == 0]
    with by_influence("AABB", shots=64) as estimator:
        tasks.clear()
        estimator.run([(pairs(2), SparsePauliOp(["IIXX", "IIZZ"], [0.01, 1.0]))]).result()
    assert sorted(parts) == sorted(t.circuits for t in tasks if t.experiment == 0)
    assert parts[0] != next(t.circuits for t in tasks if t.experiment == 0)


def test_pilots_say_what_the_weights_cannot(tasks):
    """What the first fragment measures is certain, however large its terms are."""
    circuit = QuantumCircuit(4)
    circuit.ry(0.7, 2)
    circuit.ry(1.1, 3)
    circuit.cx(0, 1)
    circuit.cx(2, 3)
    circuit.rzz(0.5, 1, 2)
    circuit.ry(0.6, 2)
    observable = SparsePauliOp(["IIZZ", "ZZII"], [1.0, 0.5])
    with by_influence("AABB", shots=None, default_precision=0.01) as estimator:
        estimator.run([(circuit, observable)]).result()
    pilots = [task for task in tasks if isinstance(task.shots, int)]
    after = [task for task in tasks if not isinstance(task.shots, int)]
    assert pilots[0].experiment == 0
    order = [task.experiment for task in after]
    assert order == sorted(order, reverse=True)
    assert set(order) == {0, 1}


def test_shifted_rows_count_like_those_they_are_shifts_of(tasks):
    x = ParameterVector("x", 4)
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(x[qubit], qubit)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    points = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])
    with by_influence("AABB", shots=64) as estimator:
        FragmentGradient(estimator).run(
            [circuit] * 2, [SparsePauliOp("ZZZZ", 0.1), SparsePauliOp("ZZZZ", 1.0)], points
        ).result()
    base = [task.start % 2 for task in tasks]
    assert set(base) == {0, 1}
    assert all(len(task.angles) == 1 for task in tasks)
    # Parts of a row differ in size: within one size the second binding comes first.
    for size in {task.circuits for task in tasks}:
        rows = [task.start % 2 for task in tasks if task.circuits == size]
        assert rows == sorted(rows, reverse=True)


def test_rows_that_no_query_asks_for_count_nothing():
    array = parse(["ZZZZ", "IIZZ"], 4).sparse_observables_array().ravel()
    observables = Observables.gather(array)
    plan = CutPlan.build(pairs(2), "AABB").for_observables(observables.support)
    experiments, places = [], []
    for fragment in plan.fragments:
        paulis, index = restrict(observables.terms, fragment)
        experiments.append(FragmentExperiment(fragment, tuple(paulis), "full"))
        places.append(index)
    inverses = [np.array([0, 1, 2]), np.array([0, 0, 1])]
    queries = Queries.build(observables, np.array([0, 1, 1]), np.array([1, 1, 0]), inverses, places)
    first, second = influences_of_terms(experiments, queries, inverses)
    assert first.tolist() == [[1.0], [2.0], [0.0]]
    assert second.tolist() == [[1.0], [0.0]]
