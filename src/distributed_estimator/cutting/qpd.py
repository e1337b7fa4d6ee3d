"""What qiskit-addon-cutting marks as cut, told by name and definition, as a file leaves no more.

A marked gate no longer holds the gate that it was, but the quasi-probability decomposition of it: a
weighted sum of products of operations on either qubit, which adds up to the gate's channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from qiskit.circuit import Instruction
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping

from ..errors import CircuitError
from .gates import ComplexArray, definition_of

_TOLERANCE = 1e-9
_DIGITS = 14
"""That a matrix is rounded to, so that it has the same bits on every processor."""

# Tensors T[out, out', in, in'] of what is no rotation: ρ' = Σ T ρ[in, in'].
_MEASURE = np.zeros((2, 2, 2, 2))
_MEASURE[0, 0, 0, 0], _MEASURE[1, 1, 1, 1] = 1, -1
_RESET = np.zeros((2, 2, 2, 2))
_RESET[0, 0, [0, 1], [0, 1]] = 1
_KNOWN = {"qpd_measure": _MEASURE, "reset": _RESET}


_WIRES: dict[str, tuple[int, list[str]]] = {"cut_wire": (1, []), "move": (2, ["reset", "swap"])}
"""Qubits of a wire's mark, and what it is defined as."""


def is_wire(operation: Any) -> bool:
    """Whether an operation is a `CutWire` or a `Move`: a user's own gate may have any name."""
    width, names = _WIRES.get(getattr(operation, "name", ""), (0, []))
    if not isinstance(operation, Instruction) or operation.num_qubits != width:
        return False
    definition = definition_of(operation)
    return definition is None or [item.name for item in definition.data] == names


def is_marked(operation: Any) -> bool:
    """Whether an operation is a two-qubit gate that is marked as cut."""
    return getattr(operation, "name", "") == "qpd_2q" and hasattr(operation, "basis")


def unmarked(operation: Any, position: int) -> Instruction:
    """The gate or move that a marked gate was, up to a global phase.

    Args:
        operation: A gate that `is_marked`.
        position: Of its instruction in the circuit, for the error.

    Raises:
        CircuitError: One term of the decomposition is selected, or it adds up to something else.
    """
    if operation.basis_id is not None:
        raise CircuitError(
            f"instruction {position} (`qpd_2q`) is one term of a cut gate's decomposition: give "
            "the circuit as it was before terms were selected"
        )
    weights, terms = operation.basis.coeffs, operation.basis.maps
    sides = [[_channel(term[qubit]) for term in terms] for qubit in (0, 1)]
    # As a gate's matrix, with qubit 1 first.
    channel = np.einsum("t,tabcd,tefgh->eagcfbhd", np.asarray(weights), sides[0], sides[1])
    choi = channel.reshape(16, 16)
    if np.allclose(choi, _move(), atol=_TOLERANCE):
        return Instruction("move", 2, 0, [])
    pivot = int(np.argmax(np.diag(choi).real > 0.2))
    flat = choi[:, pivot] / np.sqrt(np.abs(choi[pivot, pivot]) + 1e-300)
    if not np.allclose(choi, np.outer(flat, flat.conj()), atol=_TOLERANCE):
        raise CircuitError(
            f"instruction {position} (`qpd_2q`) decomposes something that is neither a unitary "
            "gate nor a move: give the circuit as it was before it was marked"
        )
    unitary = flat.reshape(4, 4)
    return _standard(operation, unitary) or UnitaryGate(unitary.round(_DIGITS) + 0.0)


def _channel(sequence: Iterable[Any]) -> ComplexArray:
    """The tensor of operations one after the other."""
    found: ComplexArray = np.einsum("ac,bd->abcd", np.eye(2), np.eye(2)).astype(complex)
    for operation in sequence:
        if operation.name in _KNOWN:
            own = _KNOWN[operation.name]
        else:
            matrix = operation.to_matrix()
            own = np.einsum("ac,bd->abcd", matrix, matrix.conj())
        found = np.asarray(np.einsum("abcd,cdef->abef", own, found))
    return found


def _move() -> ComplexArray:
    """Qubit 1 is reset and gets the state of qubit 0, which is then in |0>."""
    kraus = np.zeros((2, 2, 2, 2, 2), dtype=complex)  # dropped, out 1, out 0, in 1, in 0
    for dropped in (0, 1):
        kraus[dropped, [0, 1], 0, dropped, [0, 1]] = 1
    flat = kraus.reshape(2, 16)
    return flat.T @ flat


def _standard(operation: Any, unitary: ComplexArray) -> Instruction | None:
    """The gate of Qiskit's library without angles that the mark names, if it is that."""
    name = str(operation.label or "").removeprefix("cut_")
    gate = get_standard_gate_name_mapping().get(name)
    if gate is None or gate.num_qubits != 2 or gate.params:
        return None
    overlap = np.vdot(np.asarray(gate.to_matrix()), unitary)
    return gate if abs(abs(overlap) - 4) < _TOLERANCE else None
