"""The sides of a cut, derived from the gate: its operators there, and operations that span them.

Gates whose sides need two operators (all controlled gates and two-qubit rotations) are brought to a
frame in which these are the projectors; others, and wires, take the operations that
qiskit-addon-cutting decomposes SWAP and `Move` into.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from qiskit.circuit import Instruction
from qiskit.circuit.library import SwapGate, UnitaryGate
from qiskit_addon_cutting.instructions import Move
from qiskit_addon_cutting.qpd import QPDBasis
from scipy.linalg import polar, schur

from .channels import PROJECTORS, LocalOperation, Side, operator_schmidt
from .gates import ComplexArray, FloatArray

# Relative to the largest weight: terms left out of a gate are an error of the value.
_NEGLIGIBLE = 1e-12
_MATRIX_UNITS = np.eye(4, dtype=complex).reshape(4, 2, 2)
_PROBES = [(t, p) for t in (0.0, 0.4, 0.8, 1.2, 1.5708) for p in (1, 1j, -1, -1j)]


def gate_sides(unitaries: ComplexArray) -> tuple[Side, Side]:
    """Both sides of a gate from its unitaries at one or several angles, shape (rows, 4, 4)."""
    matrices = operator_schmidt(unitaries)
    first = _gate_side(np.concatenate(list(matrices), axis=1))
    second = _gate_side(np.concatenate(list(matrices), axis=0).T)
    return first, second


def qpd_terms(unitary: ComplexArray | None) -> int:
    """Terms of the addon's decomposition of a two-qubit unitary, or of a wire (None)."""
    gate = Move() if unitary is None else UnitaryGate(unitary)
    weights = np.abs(QPDBasis.from_instruction(gate).coeffs)
    return int((weights > _NEGLIGIBLE).sum())


@lru_cache(maxsize=1)
def wire_sides() -> tuple[Side, Side]:
    """The end of a cut wire and the start of the wire that continues it."""
    maps = QPDBasis.from_instruction(Move()).maps
    out = _distinct(operations[0] for operations in maps)
    start = _distinct(operations[1] for operations in maps)
    kets = np.zeros((2, 2, 2), dtype=complex)
    kets[[0, 1], [0, 1], 0] = 1
    return Side("wire_out", kets.transpose(0, 2, 1), out), Side("wire_in", kets, start)


def _gate_side(columns: ComplexArray) -> Side:
    vectors, weights, _ = np.linalg.svd(columns, full_matrices=False)
    weights = weights[weights > _NEGLIGIBLE * weights[0]] / weights[0]
    span = vectors[:, : len(weights)].T.reshape(-1, 2, 2)
    if len(span) == 1:
        unitary = span[0] * np.sqrt(2)
        pivot = _pivot(unitary)
        unitary = unitary * (abs(pivot) / pivot)
        return Side("gate", unitary[None], (LocalOperation("U", (unitary,)),))
    frame = _common_frame(span, weights) if len(span) == 2 else None
    if frame is None:
        return Side("gate", _MATRIX_UNITS, _universal_operations())
    after, before = frame
    return Side("gate", after @ PROJECTORS @ before, _framed_operations(after, before))


def _pivot(array: ComplexArray) -> complex:
    """The first entry that is not small: made positive, it fixes a phase on every processor."""
    return complex(array.ravel()[np.argmax(np.abs(array) > 0.1)])


def _common_frame(
    span: ComplexArray, weights: FloatArray
) -> tuple[ComplexArray, ComplexArray] | None:
    """Unitaries V, W with span = V · diagonal · W, if there are any; V·W as near 1 as can be.

    In a gate that hardly entangles, the second operator has little weight and is known badly. The
    first is nearly unitary then, and diagonal in any frame found so: no weight is lost.
    """
    mixtures = [span[0] * np.cos(t) + span[1] * np.sin(t) * phase for t, phase in _PROBES]
    regular = span[0] if _regularity(span[0]) > 0.3 else max(mixtures, key=_regularity)
    unitary, _ = polar(regular)
    turned = unitary.conj().T @ span
    _, vectors = schur(
        max(turned, key=lambda m: abs(np.subtract(*np.linalg.eigvals(m)))), "complex"
    )
    after, before = unitary @ vectors, vectors.conj().T
    inside = after.conj().T @ span @ before.conj().T
    if np.abs(inside[:, [0, 1], [1, 0]] * weights[:, None]).max() > _NEGLIGIBLE:
        return None
    order = sorted((0, 1), key=lambda i: _frame_key(after[:, i]))
    after, before = after[:, order], before[order]
    for i in range(2):
        pivot = _pivot(after[:, i])
        after[:, i] *= abs(pivot) / pivot
        before[i] *= pivot / abs(pivot)
        overlap = before[i] @ after[:, i]
        if abs(overlap) <= 0.1:
            overlap = _pivot(before[i])
        before[i] *= abs(overlap) / overlap
    return after, before


def _regularity(matrix: ComplexArray) -> float:
    """Smallest singular value over the largest: 1 for a unitary, 0 for a projector."""
    largest, smallest = np.linalg.svd(matrix, compute_uv=False)
    return float(smallest / largest)


def _frame_key(vector: ComplexArray) -> tuple[float, float, float]:
    """|0> before |1>, |+> before |->, |+i> before |-i>."""
    cross = np.conj(vector[0]) * vector[1]
    return (-round(abs(vector[0]), 6), -round(cross.real, 6), -round(cross.imag, 6))


def _framed_operations(after: ComplexArray, before: ComplexArray) -> tuple[LocalOperation, ...]:
    """The five distinct operations of a rank-4 gate, {I, Z, S, S†, M} in its own frame."""
    diagonals = {"I": (1, 1), "Z": (1, -1), "S": (1, 1j), "S†": (1, -1j)}
    rotations = tuple(
        LocalOperation(name, (after @ np.diag(diagonal) @ before,))
        for name, diagonal in diagonals.items()
    )
    return (*rotations, LocalOperation("M", (before, after)))


@lru_cache(maxsize=1)
def _universal_operations() -> tuple[LocalOperation, ...]:
    """Operations that span every single-qubit map, from the decomposition of SWAP."""
    maps = QPDBasis.from_instruction(SwapGate()).maps
    return _distinct(operations[0] for operations in maps)


def _distinct(sequences: Iterable[Sequence[Instruction]]) -> tuple[LocalOperation, ...]:
    found: list[LocalOperation] = []
    for sequence in sequences:
        candidate = _parse(sequence)
        if not any(
            candidate.measures == other.measures and np.allclose(candidate.ptm, other.ptm)
            for other in found
        ):
            found.append(candidate)
    return tuple(found)


def _parse(sequence: Sequence[Instruction]) -> LocalOperation:
    """A `LocalOperation` from the addon's instructions; resets at a wire's end are implied."""
    rotations = [np.eye(2, dtype=complex)]
    names = []
    for instruction in sequence:
        name = instruction.name
        if name == "reset":
            continue
        names.append("M" if name == "qpd_measure" else name)
        if name == "qpd_measure":
            rotations.append(np.eye(2, dtype=complex))
        else:
            rotations[-1] = instruction.to_matrix() @ rotations[-1]
    return LocalOperation("·".join(names) or "I", tuple(rotations))
