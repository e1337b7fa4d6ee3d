"""The circuits, labels and numbers every benchmark uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What one timed call returned.

    Attributes:
        values: The numbers it computed, so that two contestants can be compared.
        stages: Seconds by stage, where the contestant says so.
    """

    values: Floats
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """A QNN with its data: ZFeatureMap, then RealAmplitudes(reps=1, linear), Z on every qubit.

    Attributes:
        circuit: Parameters in order: one feature a qubit, then two weights a qubit.
        features: Shape ``(queries, qubits)``.
        weights: Shape ``(2 * qubits,)``.
    """

    circuit: QuantumCircuit
    features: Floats
    weights: Floats

    @property
    def num_qubits(self) -> int:
        """The width of the uncut circuit."""
        return int(self.circuit.num_qubits)

    @property
    def observable(self) -> SparsePauliOp:
        """Z on every qubit."""
        return SparsePauliOp("Z" * self.num_qubits)

    @property
    def bindings(self) -> Floats:
        """Parameter values of every query, shape ``(queries, 3 * qubits)``."""
        rows = len(self.features)
        return np.hstack([self.features, np.tile(self.weights, (rows, 1))])

    def exact(self) -> Floats:
        """The value of every query from Qiskit's `Statevector`."""
        bound = (self.circuit.assign_parameters(row) for row in self.bindings)
        return np.array([Statevector(c).expectation_value(self.observable).real for c in bound])


def qnn(num_qubits: int) -> QuantumCircuit:
    """The circuit of the paper's §V-A on `num_qubits` qubits, parameterised."""
    ansatz = real_amplitudes(num_qubits, reps=1, entanglement="linear")
    return z_feature_map(num_qubits).compose(ansatz)


def workload(num_qubits: int, queries: int, scale: float = 1.0, seed: int = 7) -> Workload:
    """A QNN with features in [0, `scale`] and weights in [-`scale`, `scale`]."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0, scale, (queries, num_qubits))
    weights = rng.uniform(-scale, scale, 2 * num_qubits)
    return Workload(qnn(num_qubits), features, weights)


def block_labels(num_qubits: int, num_cuts: int) -> list[int]:
    """A label per qubit: contiguous blocks as equal as they can be, one cut at each boundary.

    >>> block_labels(4, 2)
    [0, 0, 1, 2]
    """
    blocks = np.array_split(np.arange(num_qubits), num_cuts + 1)
    return [label for label, block in enumerate(blocks) for _ in block]


def boundaries(labels: list[int]) -> list[int]:
    """The first qubit of every block but the first.

    >>> boundaries([0, 0, 1, 2])
    [2, 3]
    """
    return [q for q in range(1, len(labels)) if labels[q] != labels[q - 1]]
