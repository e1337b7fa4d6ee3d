"""The two ends of a cut: local operations, their channels, and the core between them.

A cut gate is a sum of products ``U = sum_ij u_ij E_i (x) G_j`` over a basis E of the operators its
one side needs, and G of the other's. Its channel is then bilinear in the *coordinates* of the two
sides: the Hermitian combinations of ``rho -> E_i rho E_j^+``. Every physical operation that can be
run at a slot is a *functional* of these coordinates; enough of them determine the coordinates, and
the coordinates of both sides are joined by one small matrix, the *core*. docs/mathematics.md
derives it.

Sides follow from the gate. Those that need two operators (of all controlled gates and two-qubit
rotations) are brought to a frame in which these are the projectors; others, and wires, take the
operations of the decompositions of SWAP (Mitarai and Fujii, 2021) and of a wire (Peng and others,
2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, product
from typing import Literal

import numpy as np
import scipy  # whose parts are imported when they are first used
from qiskit.circuit.library import (
    HGate,
    IGate,
    RYGate,
    SdgGate,
    SGate,
    SXdgGate,
    SXGate,
    XGate,
    YGate,
    ZGate,
)
from qiskit.synthesis import TwoQubitWeylDecomposition

from .gates import ComplexArray, FloatArray, IntArray

SettingBasis = Literal["full", "minimal"]
End = Literal["gate", "wire_out", "wire_in"]

_TOLERANCE = 1e-9
# Relative to the largest weight: terms left out of a gate are an error of the value.
_NO_WEIGHT = 1e-12
_MATRIX_UNITS = np.eye(4, dtype=complex).reshape(4, 2, 2)
_PROBES = [(t, p) for t in (0.0, 0.4, 0.8, 1.2, 1.5708) for p in (1, 1j, -1, -1j)]
_PAULIS = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=complex
)
_ROTATIONS = {
    gate.name: gate.to_matrix()
    for gate in (
        IGate(),
        XGate(),
        YGate(),
        ZGate(),
        HGate(),
        SGate(),
        SdgGate(),
        SXGate(),
        SXdgGate(),
    )
} | {"ry": RYGate(np.pi / 2).to_matrix(), "ry†": RYGate(-np.pi / 2).to_matrix()}
# What is applied at a slot, one operation after the other; M measures.
_WIRE_OUT = "id h·M sx·M M"
_WIRE_IN = "id x h x·h sxdg x·sxdg"
_UNIVERSAL = (
    "id x y z h·M·h sx·M·sxdg M s·y z·s·y sx·z x·sx·z h y·h sx sxdg ry ry† s sdg "
    "M·x h·M·h·y sx·M·sxdg·z"
)
PROJECTORS = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]]], dtype=complex)


@dataclass(frozen=True, eq=False)
class LocalOperation:
    """One physical choice at a slot: a rotation, or a measurement between two rotations.

    It has as many functionals as rotations: a measurement's are its outcome as a sign, and its
    outcome ignored.

    Attributes:
        name: For people: "I", "S", "M", …
        rotations: One 2×2 unitary, or two around a measurement in the computational basis.
    """

    name: str
    rotations: tuple[ComplexArray, ...]

    @property
    def measures(self) -> bool:
        """Whether the operation yields an outcome."""
        return len(self.rotations) == 2

    @cached_property
    def kraus(self) -> ComplexArray:
        """One 2×2 Kraus operator per outcome, shape (outcomes, 2, 2)."""
        if not self.measures:
            return self.rotations[0][None]
        before, after = self.rotations
        return np.asarray(after @ PROJECTORS @ before)

    @cached_property
    def ptm(self) -> FloatArray:
        """The Pauli transfer matrix with the outcome as a sign, shape (4, 4)."""
        signs = np.array([1.0, -1.0][: len(self.kraus)])
        moved = np.einsum("o,oab,pbc,odc->pad", signs, self.kraus, _PAULIS, self.kraus.conj())
        return np.asarray(np.einsum("qda,pad->qp", _PAULIS, moved).real / 2)


@dataclass(frozen=True, eq=False)
class SlotBasis:
    """The settings of a slot and how their functionals span its coordinates.

    Attributes:
        operations: The settings.
        outcomes: Shape (outcomes, rank); row o maps coordinates to the weight of outcome o.
        functionals: Shape (functionals of all settings, rank).
        inverse: Shape (rank, functionals); coordinates from functionals, of least norm.
    """

    operations: tuple[LocalOperation, ...]
    outcomes: FloatArray
    functionals: FloatArray
    inverse: FloatArray

    @cached_property
    def first(self) -> IntArray:
        """Index of each setting's first functional (and outcome: both are as many)."""
        sizes = [len(operation.rotations) for operation in self.operations]
        return np.cumsum([0, *sizes[:-1]])

    @cached_property
    def signed(self) -> FloatArray:
        """Functionals from outcomes, shape (functionals, outcomes): signs, or a plain sum."""
        return self._blocks(np.array([[1.0, -1.0], [1.0, 1.0]]))

    @cached_property
    def paired(self) -> FloatArray:
        """Products of two functionals of one setting from outcomes, shape (pairs, outcomes)."""
        return self._blocks(np.array([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [1.0, 1.0]]))

    @cached_property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """The two functionals of every pair of one setting, two arrays of shape (pairs,)."""
        pairs = [
            (start + a, start + b)
            for start, operation in zip(self.first, self.operations, strict=True)
            for a, b in product(range(len(operation.rotations)), repeat=2)
        ]
        left, right = np.array(pairs).T
        return left, right

    def _blocks(self, measured: FloatArray) -> FloatArray:
        alone = np.ones((1, 1))
        blocks = [measured if operation.measures else alone for operation in self.operations]
        return np.asarray(scipy.linalg.block_diag(*blocks))

    @cached_property
    def pair_inverse(self) -> FloatArray:
        """`inverse` on pairs of functionals of one setting, shape (rank², pairs)."""
        left, right = self.pairs
        pairs = self.inverse[:, None, left] * self.inverse[None, :, right]
        return pairs.reshape(-1, len(left))


@dataclass(frozen=True, eq=False)
class Side:
    """One end of a cut.

    Attributes:
        end: "gate", or the end or the start of a wire.
        branches: The operators E_i, shape (k, 2, 2).
        distinct: All distinct local operations known for this side.
    """

    end: End
    branches: ComplexArray
    distinct: tuple[LocalOperation, ...]

    @property
    def rank(self) -> int:
        """Number of coordinates, k²."""
        return len(self.branches) ** 2

    @cached_property
    def coordinates(self) -> ComplexArray:
        """Rows h with ``x_r = sum_ij h[r, ij] <psi_j|O|psi_i>``, shape (rank, k²)."""
        return _hermitian_basis(len(self.branches)).reshape(self.rank, -1)

    def basis(self, kind: SettingBasis) -> SlotBasis:
        """The settings to run: all distinct operations, or as few as span the coordinates."""
        return self._minimal if kind == "minimal" else self._full

    @cached_property
    def _full(self) -> SlotBasis:
        return self._basis_of(self.distinct)

    @cached_property
    def _minimal(self) -> SlotBasis:
        return self._basis_of(_smallest_spanning(self))

    def _basis_of(self, operations: tuple[LocalOperation, ...]) -> SlotBasis:
        outcomes = np.concatenate([self.outcome_rows(op) for op in operations])
        functionals = np.concatenate([self.functional_rows(op) for op in operations])
        inverse = np.linalg.pinv(functionals, rcond=_TOLERANCE)
        assert np.allclose(inverse @ functionals, np.eye(self.rank)), "settings do not span"
        return SlotBasis(operations, outcomes, functionals, inverse)

    def outcome_rows(self, operation: LocalOperation) -> FloatArray:
        """Weights of the operation's outcomes as functions of the coordinates."""
        rows = []
        for kraus in operation.kraus:
            parts = [self._expand(part) for part in self._completed(kraus)]
            matrix = sum(np.outer(part, part.conj()) for part in parts)
            rows.append((self.coordinates.conj() @ np.ravel(matrix)).real)
        return np.array(rows)

    def functional_rows(self, operation: LocalOperation) -> FloatArray:
        """The operation's functionals: signed and unsigned, or the only one."""
        rows = self.outcome_rows(operation)
        return np.array([rows[0] - rows[1], rows[0] + rows[1]]) if operation.measures else rows

    def _completed(self, kraus: ComplexArray) -> list[ComplexArray]:
        """What becomes of a Kraus operator where a wire begins or ends."""
        if self.end == "wire_out":  # the qubit is discarded afterwards
            return [np.outer([1, 0], row) for row in kraus]
        if self.end == "wire_in":  # the qubit was in |0> before
            return [np.outer(kraus[:, 0], [1, 0])]
        return [kraus]

    def _expand(self, operator: ComplexArray) -> ComplexArray:
        flat = self.branches.reshape(len(self.branches), 4).T
        weights, *_ = np.linalg.lstsq(flat, operator.ravel(), rcond=None)
        assert np.allclose(flat @ weights, operator.ravel(), atol=_TOLERANCE), "outside the span"
        return np.asarray(weights)


@lru_cache(maxsize=8)
def _hermitian_basis(k: int) -> ComplexArray:
    """An orthonormal basis of the Hermitian k×k matrices, shape (k², k, k)."""
    basis = np.zeros((k * k, k, k), dtype=complex)
    basis[np.arange(k), np.arange(k), np.arange(k)] = 1
    for n, (i, j) in enumerate(combinations(range(k), 2)):
        real, imaginary = k + 2 * n, k + 2 * n + 1
        basis[real, i, j] = basis[real, j, i] = np.sqrt(0.5)
        basis[imaginary, i, j], basis[imaginary, j, i] = 1j * np.sqrt(0.5), -1j * np.sqrt(0.5)
    return basis


def core_of(expansions: ComplexArray, slopes: ComplexArray | None = None) -> FloatArray:
    """The core of a cut from its expansion ``U = sum_ij u_ij E_i (x) G_j``.

    Args:
        expansions: u, shape (rows, k, l).
        slopes: Derivatives of u by an angle; given, the core's derivative is returned.

    Returns:
        Shape (rows, k², l²), real.
    """
    _, k, m = expansions.shape
    left = _hermitian_basis(k).conj()
    right = _hermitian_basis(m).conj()
    varied = expansions if slopes is None else slopes
    core = np.einsum("rxy,nxu,nyv,suv->nrs", left, varied, expansions.conj(), right, optimize=True)
    return np.asarray(core.real if slopes is None else 2 * core.real)


def expand(unitaries: ComplexArray, first: Side, second: Side) -> ComplexArray:
    """Coefficients u of two-qubit unitaries, shape (rows, 4, 4) -> (rows, k, l).

    Qubit 0 of the gate is the `first` side, as Qiskit orders matrices.
    """
    left = np.linalg.pinv(first.branches.reshape(-1, 4).T)
    right = np.linalg.pinv(second.branches.reshape(-1, 4).T)
    return np.asarray(left @ operator_schmidt(unitaries) @ right.T)


def overhead(unitary: ComplexArray) -> float:
    """Sampling overhead γ² of a cut gate, from its operator-Schmidt coefficients s.

    γ = 2 (Σ s)² − 1 with Σ s² = 1 (Schmitt, Piveteau, Sutter 2025): 3 for CX, 7 for SWAP.
    """
    weights = np.linalg.svd(operator_schmidt(unitary[None])[0], compute_uv=False)
    weights = weights / np.linalg.norm(weights)
    return float((2 * weights.sum() ** 2 - 1) ** 2)


def operator_schmidt(unitaries: ComplexArray) -> ComplexArray:
    """Rearrange (rows, 4, 4) unitaries to (rows, operators on qubit 0, operators on qubit 1)."""
    tensor = unitaries.reshape(-1, 2, 2, 2, 2)  # row, out 1, out 0, in 1, in 0
    return np.asarray(tensor.transpose(0, 2, 4, 1, 3).reshape(-1, 4, 4))


def _smallest_spanning(side: Side) -> tuple[LocalOperation, ...]:
    """As few operations as span the side's coordinates; among equals the best conditioned."""
    rows = [side.functional_rows(operation) for operation in side.distinct]
    if len(rows) > 8:
        return tuple(side.distinct[i] for i in _greedy_spanning(rows, side.rank))
    for size in range(1, len(rows) + 1):
        candidates = []
        for subset in combinations(range(len(rows)), size):
            stacked = np.concatenate([rows[i] for i in subset])
            if np.linalg.matrix_rank(stacked, _TOLERANCE) == side.rank:
                norm = np.linalg.norm(np.linalg.pinv(stacked, rcond=_TOLERANCE))
                candidates.append((round(float(norm), 6), subset))
        if candidates:
            return tuple(side.distinct[i] for i in min(candidates)[1])
    raise AssertionError("the distinct operations do not span their side")


def _greedy_spanning(rows: list[FloatArray], rank: int) -> list[int]:
    chosen: list[int] = []
    while True:
        stacked = [rows[i] for i in chosen]
        reached = np.linalg.matrix_rank(np.concatenate(stacked), _TOLERANCE) if chosen else 0
        if reached == rank:
            return sorted(chosen)

        def gain(index: int, stacked: list[FloatArray] = stacked) -> tuple[int, float]:
            values = np.linalg.svd(np.concatenate([*stacked, rows[index]]), compute_uv=False)
            values = values[values > _TOLERANCE]
            return len(values), round(float(values[-1]), 6)

        chosen.append(max((i for i in range(len(rows)) if i not in chosen), key=gain))


def gate_sides(unitaries: ComplexArray) -> tuple[Side, Side]:
    """Both sides of a gate from its unitaries at one or several angles, shape (rows, 4, 4)."""
    return _gate_sides(np.ascontiguousarray(unitaries, dtype=complex).tobytes())


@lru_cache(maxsize=1024)  # a circuit has few kinds of gates, and a search splits it often
def _gate_sides(unitaries: bytes) -> tuple[Side, Side]:
    matrices = operator_schmidt(np.frombuffer(unitaries, dtype=complex).reshape(-1, 4, 4))
    first = _gate_side(np.concatenate(list(matrices), axis=1))
    second = _gate_side(np.concatenate(list(matrices), axis=0).T)
    return first, second


def qpd_terms(unitary: ComplexArray | None) -> int:
    """Terms of the decomposition of a two-qubit unitary (Mitarai and Fujii, 2021), or of a wire."""
    if unitary is None:
        return 8
    weyl = TwoQubitWeylDecomposition(unitary)
    # Eigenvalues of II, XX, YY and ZZ, a Bell state a row.
    signs = np.array([[1, 1, -1, 1], [1, -1, 1, 1], [1, 1, 1, -1], [1, -1, -1, -1]])
    weights = signs.T @ np.exp(1j * signs[:, 1:] @ [weyl.a, weyl.b, weyl.c]) / 4
    products = np.array([one * other.conj() for one, other in combinations(weights, 2)])
    counts = [(np.abs(part) > _NO_WEIGHT).sum() for part in (weights, products.real, products.imag)]
    return int(np.dot((1, 5, 4), counts))


@lru_cache(maxsize=1)
def wire_sides() -> tuple[Side, Side]:
    """The end of a cut wire and the start of the wire that continues it."""
    kets = np.zeros((2, 2, 2), dtype=complex)
    kets[[0, 1], [0, 1], 0] = 1
    return Side("wire_out", kets.transpose(0, 2, 1), _operations(_WIRE_OUT)), Side(
        "wire_in", kets, _operations(_WIRE_IN)
    )


def _gate_side(columns: ComplexArray) -> Side:
    vectors, weights, _ = np.linalg.svd(columns, full_matrices=False)
    weights = weights[weights > _NO_WEIGHT * weights[0]] / weights[0]
    span = vectors[:, : len(weights)].T.reshape(-1, 2, 2)
    if len(span) == 1:
        unitary = span[0] * np.sqrt(2)
        pivot = _pivot(unitary)
        unitary = unitary * (abs(pivot) / pivot)
        return Side("gate", unitary[None], (LocalOperation("U", (unitary,)),))
    frame = _common_frame(span, weights) if len(span) == 2 else None
    if frame is None:
        return Side("gate", _MATRIX_UNITS, _operations(_UNIVERSAL))
    after, before = frame
    # The five distinct operations of a rank-4 gate, in its own frame.
    diagonals = (("I", (1, 1)), ("Z", (1, -1)), ("S", (1, 1j)), ("S†", (1, -1j)))
    rotations = (LocalOperation(name, (after @ np.diag(d) @ before,)) for name, d in diagonals)
    operations = *rotations, LocalOperation("M", (before, after))
    return Side("gate", after @ PROJECTORS @ before, operations)


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
    unitary, _ = scipy.linalg.polar(regular)
    turned = unitary.conj().T @ span
    _, vectors = scipy.linalg.schur(
        max(turned, key=lambda m: abs(np.subtract(*np.linalg.eigvals(m)))), "complex"
    )
    after, before = unitary @ vectors, vectors.conj().T
    inside = after.conj().T @ span @ before.conj().T
    if np.abs(inside[:, [0, 1], [1, 0]] * weights[:, None]).max() > _NO_WEIGHT:
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


@lru_cache(maxsize=3)
def _operations(names: str) -> tuple[LocalOperation, ...]:
    return tuple(map(_operation, names.split()))


def _operation(name: str) -> LocalOperation:
    """The operation of parts one after the other; resets at a wire's end are implied."""
    rotations = [np.eye(2, dtype=complex)]
    for part in name.split("·"):
        if part == "M":
            rotations.append(np.eye(2, dtype=complex))
        else:
            rotations[-1] = _ROTATIONS[part] @ rotations[-1]
    return LocalOperation("I" if name == "id" else name, tuple(rotations))
