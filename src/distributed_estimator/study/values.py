"""What experiments of kind `values` are made of: circuits, their cuts, what is done about noise.

All circuits have Z on every qubit for an observable. Values near 0 are left out, to which noise
does little.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp, Statevector

from ..backends.named import find_device
from ..backends.noise import BOTH, READOUT
from ..cutting import CutAt
from ..subexperiments import Mitigation
from ..training.models import labels_for_cuts

Remedy = Literal["none", "readout", "readout+zne"]
MITIGATIONS: dict[Remedy, Mitigation | None] = {
    "none": None,
    "readout": READOUT,
    "readout+zne": BOTH,
}

Shape = Literal["chain", "ring", "far"]

FEWEST: dict[Shape, int] = {"chain": 2, "ring": 3, "far": 4}
"""Qubits that a shape needs."""
MOST = 12
"""Qubits of a circuit: values of wider chains are hardly ever large enough."""
LEAST_VALUE = 0.2
_LAYERS = 2


@cache
def width_of(device: str) -> int:
    """Qubits of a device by its name; raises as `find_device` does."""
    return int(find_device(device).num_qubits)


def chain(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    """RY on every qubit, CX from neighbour to neighbour, and RY again."""
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(rng.uniform(-1.0, 1.0), qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    for qubit in range(qubits):
        circuit.ry(rng.uniform(-1.0, 1.0), qubit)
    return circuit


def ring(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    """Two layers of RX and RZZ around a ring; what closes it comes last in each."""
    circuit = QuantumCircuit(qubits)
    for _ in range(_LAYERS):
        for qubit in range(qubits):
            circuit.rx(rng.uniform(-0.6, 0.6), qubit)
        for qubit in range(qubits):
            circuit.rzz(rng.uniform(0.2, 0.5), qubit, (qubit + 1) % qubits)
    return circuit


def far(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    """Two layers of RX and RZZ along a chain, with a gate from end to end after each."""
    circuit = QuantumCircuit(qubits)
    for layer in range(_LAYERS):
        for qubit in range(qubits):
            circuit.rx(rng.uniform(-0.6, 0.6), qubit)
        for qubit in range(qubits - 1):
            circuit.rzz(rng.uniform(0.2, 0.5), qubit, qubit + 1)
        circuit.rzz(0.4, layer, qubits - 1 - layer)
    return circuit


_DRAW: dict[str, Callable[[int, np.random.Generator], QuantumCircuit]] = {
    "chain": chain,
    "ring": ring,
    "far": far,
}


def drawn(shape: str, qubits: int, seed: int) -> tuple[QuantumCircuit, float]:
    """The first circuit of a seed whose value is large enough, and that value.

    Example:
        >>> circuit, value = drawn("chain", 4, seed=1)
        >>> circuit.num_qubits, abs(value) >= LEAST_VALUE
        (4, True)
    """
    rng, observable = np.random.default_rng(seed), SparsePauliOp("Z" * qubits)
    while True:
        circuit = _DRAW[shape](qubits, rng)
        value = float(Statevector(circuit).expectation_value(observable).real)
        if abs(value) >= LEAST_VALUE:
            return circuit, value


def most_cuts(shape: Shape, qubits: int) -> int:
    """Into how many parts less one a chain falls, or how many layers have a gate to cut."""
    return qubits - 1 if shape == "chain" else _LAYERS


def widest(shape: Shape, qubits: int, cuts: int) -> int:
    """Qubits of the widest fragment."""
    return -(-qubits // (cuts + 1)) if shape == "chain" else qubits


def cuts_of(shape: str, circuit: QuantumCircuit, cuts: int) -> str | CutAt:
    """Labels of a chain's parts; else the last two-qubit gate of each of so many layers."""
    if shape == "chain" or not cuts:
        return labels_for_cuts(circuit.num_qubits, cuts)
    gates = [number for number, item in enumerate(circuit.data) if len(item.qubits) == 2]
    return CutAt(tuple(int(layer[-1]) for layer in np.array_split(gates, _LAYERS)[:cuts]))
