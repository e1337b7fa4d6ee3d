"""Circuits with their cuts, for the benchmarks of shots and peers.

Z on every qubit is what they measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector

from benchmarks._workload import Floats, block_labels, qnn
from distributed_estimator.cutting import CutPlan

WEAK_ANGLE = 0.3
WEAK = f"weak, 3 cut RZZ({WEAK_ANGLE})"


@dataclass(frozen=True, eq=False)
class CutCircuit:
    """A parameterised circuit, where it is cut, and random values of its parameters.

    Attributes:
        name: What it is called in the tables.
        labels: One a qubit.
        bindings: In [-π, π], shape ``(bindings, parameters)``.
    """

    name: str
    circuit: QuantumCircuit
    labels: Sequence[int]
    bindings: Floats

    @property
    def observable(self) -> SparsePauliOp:
        """Z on every qubit."""
        return SparsePauliOp("Z" * self.circuit.num_qubits)

    @property
    def plan(self) -> CutPlan:
        """The fragments and cuts."""
        return CutPlan.build(self.circuit, self.labels)

    def bound(self, values: Floats) -> QuantumCircuit:
        """The circuit of one binding."""
        return self.circuit.assign_parameters(values)

    def exact(self) -> Floats:
        """The value of every binding from Qiskit's `Statevector`."""
        states = (Statevector(self.bound(values)) for values in self.bindings)
        return np.array([s.expectation_value(self.observable).real for s in states])


def _with_bindings(
    name: str, circuit: QuantumCircuit, labels: Sequence[int], count: int, seed: int
) -> CutCircuit:
    rng = np.random.default_rng(seed)
    bindings = rng.uniform(-np.pi, np.pi, (count, circuit.num_parameters))
    return CutCircuit(name, circuit, labels, bindings)


def qnn_blocks(cuts: int, count: int) -> CutCircuit:
    """The paper's QNN of 4 qubits."""
    return _with_bindings(f"QNN, {cuts} cuts", qnn(4), block_labels(4, cuts), count, seed=7)


def halves(qubits: int, count: int) -> CutCircuit:
    """The paper's QNN in two halves."""
    labels = block_labels(qubits, 1)
    return _with_bindings(f"QNN, {qubits} qubits, 1 cut", qnn(qubits), labels, count, seed=23)


def chain(cuts: int, count: int) -> CutCircuit:
    """The paper's QNN on two qubits a fragment."""
    qubits = 2 * (cuts + 1)
    labels = block_labels(qubits, cuts)
    return _with_bindings(f"chain, {cuts} cuts", qnn(qubits), labels, count, seed=11)


def star(count: int) -> CutCircuit:
    """One fragment of two qubits, joined to three others by a CX each."""
    circuit, angles = _rotated(8, layers=2)
    for qubit in range(0, 8, 2):
        circuit.cx(qubit, qubit + 1)
    for centre, leaf in ((0, 2), (1, 4), (0, 6)):
        circuit.cx(centre, leaf)
    _rotate(circuit, angles)
    return _with_bindings("star, 3 cuts", circuit, block_labels(8, 3), count, seed=13)


def ring(count: int) -> CutCircuit:
    """Three fragments of two qubits, each joined to both others by a CX."""
    circuit, angles = _rotated(6, layers=2)
    for qubit in range(6):
        circuit.cx(qubit, (qubit + 1) % 6)
    _rotate(circuit, angles)
    return _with_bindings("loop, 3 cuts", circuit, block_labels(6, 2), count, seed=17)


def weak(count: int) -> CutCircuit:
    """Two halves of three qubits, joined by three RZZ(0.3).

    The barriers are for QCut, which without them does not see that the three are parallel.
    """
    circuit, angles = _rotated(6, layers=3)
    for first in (0, 3):
        circuit.cx(first, first + 1)
        circuit.cx(first + 1, first + 2)
    _rotate(circuit, angles)
    _barriers(circuit)
    for qubit in range(3):
        circuit.rzz(WEAK_ANGLE, qubit, qubit + 3)
    _barriers(circuit)
    _rotate(circuit, angles)
    return _with_bindings(WEAK, circuit, block_labels(6, 1), count, seed=19)


def _barriers(circuit: QuantumCircuit) -> None:
    for first in (0, 3):
        circuit.barrier(range(first, first + 3))


def random_gates(number: int, count: int) -> CutCircuit:
    """Two halves of three qubits under random gates, two of which are cut."""
    rng = np.random.default_rng(number)
    circuit, angles = _rotated(6, layers=3)
    for _ in range(2):
        for first in (0, 3):
            pair = first + rng.choice(3, size=2, replace=False)
            _entangle(circuit, rng, *pair.tolist())
        _entangle(circuit, rng, int(rng.integers(3)), int(rng.integers(3, 6)))
        _rotate(circuit, angles)
    name = f"random {number}, 2 cuts"
    return _with_bindings(name, circuit, block_labels(6, 1), count, seed=100 + number)


def _entangle(circuit: QuantumCircuit, rng: np.random.Generator, a: int, b: int) -> None:
    match int(rng.integers(3)):
        case 0:
            circuit.cx(a, b)
        case 1:
            circuit.cz(a, b)
        case _:
            circuit.rzz(rng.uniform(0, np.pi), a, b)


Angles = list[list[object]]


def _rotated(qubits: int, layers: int) -> tuple[QuantumCircuit, Angles]:
    """A circuit after its first layer of rotations, and the angles of those to come."""
    circuit = QuantumCircuit(qubits)
    vector = ParameterVector("θ", 2 * qubits * layers)
    angles = [list(vector[k : k + 2 * qubits]) for k in range(0, len(vector), 2 * qubits)]
    _rotate(circuit, angles)
    return circuit, angles


def _rotate(circuit: QuantumCircuit, angles: Angles) -> None:
    """RY and RZ on every qubit, by the next of the angles."""
    layer = angles.pop(0)
    for qubit in range(circuit.num_qubits):
        circuit.ry(layer[2 * qubit], qubit)
        circuit.rz(layer[2 * qubit + 1], qubit)
