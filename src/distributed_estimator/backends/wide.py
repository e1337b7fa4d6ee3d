"""Wide fragments: a row at a time, with compiled kernels, and their exact gradients.

Neighbouring gates are fused into blocks on at most two qubits, and as many blocks as possible are
applied in one pass over the state. Gradients are those of reverse differentiation: the state and
the derivative of the result by it go back through the gates side by side, and what they say
together around every gate gives the derivatives by all angles (`docs/mathematics.md`, section 9).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TypeAlias

import numpy as np

from ..cutting import ComplexArray, FloatArray, Fragment, IntArray, Slot
from ..cutting.gates import GateKernel
from ..subexperiments import MeasurementGroup, SlotwiseMap

NARROWEST = 12
"""Qubits from which compiled kernels are used. They are faster from ten on, but by milliseconds a
row, and a machine compiles them once for some seconds: pieces of ten qubits do without."""

_LANE_BITS = 4
_MOST_HOT = 8
"""Qubits of a pass: the buffer is to fit a processor's second cache."""
_MOST_FUSED = 2
_ROTATIONS: dict[str, ComplexArray] = {
    "X": np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2),
    "Y": np.array([[1, -1j], [1, 1j]]) / np.sqrt(2),
}

_Part: TypeAlias = ComplexArray | tuple[GateKernel, tuple[int, ...]]
"""A constant matrix, or a gate with its angles."""

_importing = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A fork waits until the compiler is done: a half compiled kernel would stay so in the child.
    os.register_at_fork(
        before=_importing.acquire,
        after_in_parent=_importing.release,
        after_in_child=_importing.release,
    )


@cache
def kernels() -> ModuleType:
    """The compiled kernels, which take seconds the first time and a moment in other processes."""
    with _importing:
        return import_module(f"{__package__}.kernels")


@dataclass(eq=False)
class _Block:
    """Gates on a few qubits, applied as one."""

    qubits: tuple[int, ...]
    factors: list[tuple[tuple[int, ...], _Part]] = field(default_factory=list)

    @property
    def parts_wanted(self) -> int:
        """Parts of the transitions that derivatives depend on: none, the real one, or both."""
        parts = [part for _, part in self.factors]
        if not any(isinstance(part, tuple) for part in parts):
            return 0
        elements = (p[0].coefficients if isinstance(p, tuple) else p for p in parts)
        return 2 if any(np.any(array.imag) for array in elements) else 1


@dataclass(frozen=True, eq=False)
class _Pass:
    """Blocks that are applied together; `wanted` are the `parts_wanted` of each."""

    layout: tuple[IntArray, IntArray, IntArray, IntArray, IntArray, IntArray]
    wanted: IntArray


class _Matrices:
    """The matrices of some blocks and of the gates they are made of, laid out for the kernels."""

    def __init__(self, blocks: Sequence[_Block]) -> None:
        self._values: list[ComplexArray] = []
        self.starts: dict[_Block, int] = {}
        self._of_kernels: dict[GateKernel, tuple[list[tuple[int, ...]], list[int]]] = {}
        factors: list[tuple[int, ...]] = []
        offsets: list[int] = []
        layout: list[tuple[int, ...]] = []
        identities = []
        begin = start = 0
        for block in blocks:
            dim, first = 1 << len(block.qubits), len(factors)
            for qubits, part in block.factors:
                size = 1 << len(qubits)
                factors.append((size, begin, len(offsets)))
                own = [block.qubits.index(qubit) for qubit in qubits]
                offsets += _offsets(own)
                offsets += _offsets([n for n in range(len(block.qubits)) if n not in own])
                if isinstance(part, tuple):
                    kernel, angles = part
                    columns, places = self._of_kernels.setdefault(kernel, ([], []))
                    columns.append(angles)
                    places.append(begin)
                    self._values.append(np.zeros(size * size, dtype=complex))
                else:
                    self._values.append(np.asarray(part, dtype=complex).ravel())
                begin += size * size
            layout.append((dim, first, len(factors), start))
            identities.append(np.eye(dim, dtype=complex).ravel())
            self.starts[block] = start
            start += dim * dim
        self._constants = np.concatenate([*self._values, np.zeros(0, dtype=complex)])
        self._identities = np.concatenate([*identities, np.zeros(0, dtype=complex)])
        self._layout = _array(factors, 3), np.array(offsets, np.int64), _array(layout, 4)
        self._gathers = [
            (kernel, np.array(columns), np.array(places)[:, None] + np.arange(4**kernel.num_qubits))
            for kernel, (columns, places) in self._of_kernels.items()
        ]

    def fold(self, angles: FloatArray) -> tuple[ComplexArray, ComplexArray]:
        """Matrices of all gates and of all blocks, from the fragment's angles."""
        values, matrices = self._constants.copy(), self._identities.copy()
        for kernel, columns, places in self._gathers:
            values[places] = kernel.matrices(angles[columns]).reshape(places.shape)
        kernels().fold(values, *self._layout, matrices)
        return values, matrices

    def derivatives(
        self, angles: FloatArray, values: ComplexArray, transitions: ComplexArray
    ) -> FloatArray:
        """Derivatives of a result by all angles, from the transitions behind every block."""
        slopes, result = np.zeros_like(values), np.zeros(len(angles))
        kernels().unfold(values, *self._layout, transitions, slopes)
        for kernel, columns, places in self._gathers:
            own, around = angles[columns], slopes[places]
            for index in range(kernel.num_angles):
                matrices = kernel.derivatives(own, index).reshape(places.shape)
                result[columns[:, index]] = 2 * (matrices * around).sum(axis=1).real
        return result


class WideProgram:
    """A wide fragment's steps, ready to run on any number of rows."""

    def __init__(self, fragment: Fragment) -> None:
        self._fragment = fragment
        sides = [slot.side for slot in fragment.slots]
        counts = [len(side.branches) for side in sides]
        self._pairs_shape = *counts, *counts
        self._pairs_order = [1 + s + end for s in range(len(sides)) for end in (0, len(sides))]
        self._to_coordinates = SlotwiseMap([side.coordinates for side in sides])
        self._to_pairs = SlotwiseMap([side.coordinates.T for side in sides])
        self._first, steps = _fuse(fragment)
        blocks = [step for step in steps if isinstance(step, _Block)]
        self._matrices = _Matrices([*self._first.values(), *blocks])
        self._steps: list[_Pass | Slot] = []
        bits, waiting = fragment.num_qubits, []
        for step in steps:
            if isinstance(step, _Block):
                waiting.append(step)
                continue
            self._steps += _passes(waiting, bits, self._matrices.starts)
            self._steps.append(step)
            bits, waiting = bits + (len(step.side.branches).bit_length() - 1), []
        self._steps += _passes(waiting, bits, self._matrices.starts)
        self._bits = bits
        self._rotations: dict[tuple[tuple[int, str], ...], tuple[list[_Pass], ComplexArray]] = {}

    def tensors(self, angles: FloatArray, groups: Sequence[MeasurementGroup]) -> list[FloatArray]:
        """The fragment tensor of each outcome of each group.

        Returns:
            Per group, shape (rows, outcomes, product of ranks).
        """
        rows = []
        for row in angles:
            states = self._run(row, self._matrices.fold(row)[1])
            rows.append([self._coordinates(states, group) for group in groups])
            del states
        return [np.stack(own) for own in zip(*rows, strict=True)]

    def gradient(
        self,
        angles: FloatArray,
        groups: Sequence[MeasurementGroup],
        vector: FloatArray,
    ) -> FloatArray:
        """Derivatives of the product of the fragment tensor with a vector by all angles.

        Args:
            angles: Of one row, shape (angles,).
            groups: The Paulis' measurement groups.
            vector: Shape (paulis, product of ranks).
        """
        values, matrices = self._matrices.fold(angles)
        kept: list[ComplexArray] = []
        states = self._run(angles, matrices, kept)
        slopes = self._slopes(states, groups, vector)
        transitions = np.zeros_like(matrices)
        for step in reversed(self._steps):
            if isinstance(step, Slot):
                states, slopes = kept.pop(), _join(slopes, step)
            else:
                kernels().pull_back_pass(
                    states.ravel(), slopes.ravel(), *step.layout, matrices, step.wanted, transitions
                )
        self._pull_back_product(slopes.ravel(), matrices, transitions)
        return self._matrices.derivatives(angles, values, transitions)

    def _run(
        self, angles: FloatArray, matrices: ComplexArray, kept: list[ComplexArray] | None = None
    ) -> ComplexArray:
        """Branch states of one row, shape (branches, 2**qubits); those before slots are `kept`."""
        states = np.ones((1, 1), dtype=complex)
        for qubit in range(self._fragment.num_qubits):
            states = (self._column(qubit, matrices)[:, None] * states).reshape(1, -1)
        for step in self._steps:
            if isinstance(step, Slot):
                if kept is not None:
                    kept.append(states)
                states = _split(states, step)
            else:
                kernels().apply_pass(states.ravel(), *step.layout, matrices, False)
        return states

    def _column(self, qubit: int, matrices: ComplexArray) -> ComplexArray:
        """The state of a qubit before the first step."""
        if qubit not in self._first:
            return np.array([1, 0], dtype=complex)
        start = self._matrices.starts[self._first[qubit]]
        return matrices[start : start + 4 : 2]

    def _pull_back_product(
        self, slopes: ComplexArray, matrices: ComplexArray, transitions: ComplexArray
    ) -> None:
        """Transitions of the first gates, from the derivative by the product state they make."""
        columns = [self._column(q, matrices) for q in range(self._fragment.num_qubits)]
        below = [np.ones(1, dtype=complex)]
        for column in columns[:-1]:
            below.append((column[:, None] * below[-1]).ravel())
        for qubit in reversed(range(len(columns))):
            halves = slopes.reshape(2, -1)
            if qubit in self._first:
                start = self._matrices.starts[self._first[qubit]]
                own = halves.conj() @ below[qubit]
                transitions[start : start + 4] = np.outer(own, columns[qubit]).ravel()
            slopes = columns[qubit].conj() @ halves

    def _coordinates(self, states: ComplexArray, group: MeasurementGroup) -> FloatArray:
        """The fragment tensor of each outcome of a group, (outcomes, product of ranks)."""
        if any(letter in _ROTATIONS for _, letter in group.basis):
            states = self._rotate(states.copy(), group, adjoint=False)
        parities, low = self._parities(group)
        if len(states) == 1:
            by_lane = np.zeros((group.num_outcomes, len(low)))
            kernels().add_chances(states[0], parities, by_lane)
            outcomes = np.arange(group.num_outcomes)[:, None] ^ low
            sums = np.bincount(outcomes.ravel(), by_lane.ravel(), group.num_outcomes)
            return np.asarray(sums[:, None], dtype=np.float64)
        ends = np.zeros(group.num_outcomes, dtype=np.int64)
        parts = np.empty((len(ends), len(states), states.shape[1] // len(ends)), dtype=complex)
        kernels().sort_by_outcome(states, parities, low, ends, parts)
        del states
        grams = (parts @ parts.conj().swapaxes(-1, -2)).reshape(-1, *self._pairs_shape)
        pairs = grams.transpose(0, *self._pairs_order).reshape(len(grams), -1)
        return np.asarray(self._to_coordinates(pairs).real)

    def _slopes(
        self, states: ComplexArray, groups: Sequence[MeasurementGroup], vector: FloatArray
    ) -> ComplexArray:
        """The derivative by the conjugate of the branch states, of the vector's product."""
        total: ComplexArray | None = None
        slots = len(self._fragment.slots)
        split = [k for slot in self._fragment.slots for k in 2 * [len(slot.side.branches)]]
        order = [1 + 2 * s + end for end in (1, 0) for s in range(slots)]
        for group in groups:
            means = group.means(np.eye(group.num_outcomes))
            weights = self._to_pairs((means.T @ vector[list(group.paulis)]).astype(complex))
            if not weights.any():
                continue
            weights = weights.reshape(-1, *split).transpose(0, *order)
            weights = np.ascontiguousarray(weights.reshape(-1, len(states), len(states)))
            weighed = np.zeros_like(states)
            self._rotate(states, group, adjoint=False)  # here and back: a copy takes memory
            kernels().weigh(states, *self._parities(group), weights, weighed)
            for own in (states, weighed):
                self._rotate(own, group, adjoint=True)
            total = weighed if total is None else np.add(total, weighed, out=total)
        return np.zeros_like(states) if total is None else total

    def _parities(self, group: MeasurementGroup) -> tuple[IntArray, IntArray]:
        """What each qubit that is 1 adds to an outcome, by exclusive or, and the lanes of a run."""
        parities = np.zeros(self._fragment.num_qubits, dtype=np.int64)
        for bit, qubits in enumerate(group.generators):
            parities[list(qubits)] |= 1 << bit
        low = np.zeros(1, dtype=np.int64)
        for own in parities[:_LANE_BITS]:
            low = np.concatenate([low, low ^ own])
        return parities, low

    def _rotate(
        self, states: ComplexArray, group: MeasurementGroup, *, adjoint: bool
    ) -> ComplexArray:
        """Rotate to the basis of a group, or back, in place."""
        if group.basis not in self._rotations:
            blocks = [
                _Block((qubit,), [((qubit,), _ROTATIONS[letter])])
                for qubit, letter in group.basis
                if letter in _ROTATIONS
            ]
            own = _Matrices(blocks)
            passes = list(_passes(blocks, self._bits, own.starts))
            self._rotations[group.basis] = passes, own.fold(np.zeros(0))[1]
        passes, matrices = self._rotations[group.basis]
        for one in passes:
            kernels().apply_pass(states.ravel(), *one.layout, matrices, adjoint)
        return states


def _split(states: ComplexArray, slot: Slot) -> ComplexArray:
    """One branch per operator of a slot for each there was."""
    operators, halves = slot.side.branches, states.reshape(len(states), -1, 2, 1 << slot.qubit)
    result = np.zeros((len(states), len(operators), *halves.shape[1:]), dtype=complex)
    for number, i, j in np.argwhere(operators):
        result[:, number, :, i] += operators[number, i, j] * halves[:, :, j]
    return result.reshape(-1, states.shape[1])


def _join(slopes: ComplexArray, slot: Slot) -> ComplexArray:
    """The adjoint of `_split`."""
    operators = slot.side.branches
    parts = slopes.reshape(
        -1, len(operators), slopes.shape[1] >> slot.qubit + 1, 2, 1 << slot.qubit
    )
    result = np.zeros((len(parts), *parts.shape[2:]), dtype=complex)
    for number, i, j in np.argwhere(operators):
        result[:, :, j] += operators[number, i, j].conj() * parts[:, number, :, i]
    return result.reshape(-1, slopes.shape[1])


def _fuse(fragment: Fragment) -> tuple[dict[int, _Block], list[_Block | Slot]]:
    """Blocks of gates: those that come first on their qubit and act on it alone, and the steps."""
    first: dict[int, _Block] = {}
    last: dict[int, _Block] = {}  # the block that a qubit's next gate may join
    touched: set[int] = set()
    steps: list[_Block | Slot | None] = []
    places: dict[_Block, int] = {}
    for step in fragment.steps:
        if isinstance(step, Slot):
            last.pop(step.qubit, None)
            touched.add(step.qubit)
            steps.append(step)
            continue
        assert step.kernel is not None, "steps are gates"
        part: _Part = np.asarray(step.kernel.coefficients[0])
        if step.angles:
            part = step.kernel, step.angles
        qubits = step.qubits
        if len(qubits) == 1 and qubits[0] not in touched:
            first.setdefault(qubits[0], _Block(qubits)).factors.append((qubits, part))
            continue
        before = [last.get(qubit) for qubit in qubits]
        shared = before[0] if all(block is before[0] for block in before) else None
        if shared is not None and len(shared.qubits) <= _MOST_FUSED:
            joined = shared
        else:
            joined = _Block(tuple(sorted(qubits)))
            for old in before if len(qubits) <= _MOST_FUSED else ():
                if old is not None and len(old.qubits) == 1:
                    joined.factors += old.factors
                    steps[places.pop(old)] = None
            places[joined] = len(steps)
            steps.append(joined)
        joined.factors.append((qubits, part))
        touched.update(qubits)
        last.update(dict.fromkeys(qubits, joined))
    return first, [step for step in steps if step is not None]


def _passes(blocks: Sequence[_Block], bits: int, starts: dict[_Block, int]) -> Iterator[_Pass]:
    """Few passes that apply all blocks, to a state whose index has so many bits."""
    most = min(_MOST_HOT, bits - _LANE_BITS)
    left = list(blocks)
    while left:
        hot: set[int] = set()
        blocked: set[int] = set()
        taken, later = [], []
        for block in left:
            if blocked.isdisjoint(block.qubits) and len(hot.union(block.qubits)) <= most:
                hot.update(block.qubits)
                taken.append(block)
            else:
                blocked.update(block.qubits)
                later.append(block)
        yield _pass(taken, sorted(hot), bits, most, starts)
        left = later


def _pass(
    blocks: Sequence[_Block], hot: Sequence[int], bits: int, most: int, starts: dict[_Block, int]
) -> _Pass:
    free = (bit for bit in range(bits) if bit not in hot)
    lanes = [next(free) for _ in range(_LANE_BITS)]
    places = {bit: place for place, bit in enumerate(hot)}
    gates: list[tuple[int, ...]] = []
    flat: list[int] = []
    offsets: list[int] = []
    for block in blocks:
        own = [places[qubit] for qubit in block.qubits]
        gates.append((len(own), len(flat), len(offsets), starts[block]))
        flat += own
        offsets += _offsets(own)
    layout = (
        np.array(_offsets(hot), np.int64),
        np.array(_offsets(lanes), np.int64),
        np.array(sorted([*hot, *lanes]), np.int64),
        _array(gates, 4),
        np.array(flat, np.int64),
        np.array(offsets, np.int64),
    )
    return _Pass(layout, np.array([block.parts_wanted for block in blocks], np.int64))


def _offsets(bits: Sequence[int]) -> list[int]:
    """The number with the given bits, for all values of these, the first being the lowest."""
    offsets = [0]
    for bit in bits:
        offsets += [offset + (1 << bit) for offset in offsets]
    return offsets


def _array(rows: Iterable[tuple[int, ...]], width: int) -> IntArray:
    return np.array(list(rows), dtype=np.int64).reshape(-1, width)
