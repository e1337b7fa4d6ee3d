"""Settings that are drawn at random, for fragments with too many of them to run each.

Every slot, or both ends together of a cut that has them on one fragment, has a distribution of
operations, p, and weights Ω of their outcomes that undo what the operations do. A shot takes an
operation for every slot at random; its outcome weighs what the weights over probabilities multiply
to. All shots of a row and measurement group are then independent draws from one distribution, whose
mean is the fragment tensor: as of one large setting.
docs/mathematics.md has the estimator and its variance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from ..cutting import BoolArray, Cut, FloatArray, Fragment, IntArray, LocalOperation, SlotBasis
from .experiments import FragmentExperiment, SettingFamily, SettingLayout

_STEPS = 30
"""Steps that find weights and probabilities of a slot."""
_RARE = 1 / 64
"""Least probability of an operation, in units of the mean, lest weights become infinite."""
_GRID = 1 << 20
"""Probabilities are multiples of one over this: rounding, which differs between processors, would
otherwise change what is drawn."""
_UNKNOWN = 1e-6
"""What is not known of a slot's environment at least, in units of what is."""
_FAINT = 1e-6
"""Norm of a result's environment from which on it counts as much as any, in units of the largest:
where one is much smaller, what it needs would hardly be drawn, with weights that no sample shows
the spread of."""


@dataclass(frozen=True, eq=False)
class SlotDraw:
    """The distribution of the operations of slots that are drawn together.

    Operations, outcomes and coordinates are products of those of the slots, the last slot's
    running fastest.

    Attributes:
        slots: Numbers of the slots.
        chances: Shape (operations,).
        weights: Coordinates from the probabilities of the outcomes of every operation, shape (rank,
            outcomes).
    """

    slots: tuple[int, ...]
    chances: FloatArray
    weights: FloatArray

    @staticmethod
    def best(
        slots: tuple[int, ...], bases: Sequence[SlotBasis], moment: FloatArray | None = None
    ) -> SlotDraw:
        """Those with the least mean square of a shot, in steps as a design's (14).

        Args:
            slots: Numbers of the slots.
            bases: The operations of all slots of the fragment.
            moment: Second moment of what the coordinates are multiplied with, shape (rank, rank);
                None: nothing is known of it.
        """
        rows, of = _outcomes([bases[slot] for slot in slots])
        widths = np.bincount(of)
        size = len(widths)
        if moment is None:
            moment = np.eye(rows.shape[1])
        unknown = _UNKNOWN * (float(np.trace(moment)) or 1.0) / len(moment)
        moment = moment + unknown * np.eye(len(moment))
        chances = np.full(size, 1 / size)
        for _ in range(_STEPS):
            scales = (chances * widths)[of]  # outcomes of an operation as equally likely
            weights = np.linalg.solve((rows.T * scales) @ rows, rows.T * scales)
            squares = np.einsum("rj,rj->j", weights, moment @ weights) / widths[of]
            roots = np.sqrt(np.bincount(of, np.maximum(squares, 0.0)))
            chances = np.maximum(roots / roots.sum(), _RARE / size)
            chances /= chances.sum()
        chances = np.rint(chances * _GRID)
        return SlotDraw(slots, chances / chances.sum(), np.asarray(weights, dtype=np.float64))


def drawn_bases(fragment: Fragment) -> list[SlotBasis]:
    """The bases whose operations are drawn: those with the least mean square of a shot."""
    return [slot.side.basis("full") for slot in fragment.slots]


def drawn_together(fragment: Fragment, cuts: Sequence[Cut]) -> tuple[tuple[int, ...], ...]:
    """A fragment's slots by what is drawn together: the ends of a loop, any other alone.

    Slots are numbered in the order of their cuts, so that the groups hold them in this order, too.

    Args:
        fragment: The fragment.
        cuts: All cuts of its plan.
    """
    ends = [[slot for number, slot in cut.ends if number == fragment.index] for cut in cuts]
    return tuple(tuple(own) for own in ends if own)


def slot_draws(
    groups: Sequence[tuple[int, ...]], bases: Sequence[SlotBasis], environments: FloatArray
) -> tuple[SlotDraw, ...]:
    """Distributions for what a fragment's tensor is multiplied with.

    Its shape is (draws, results, paulis, product of ranks). All results count alike, however small
    their environments are.
    """
    norms = np.sqrt((environments**2).sum(axis=(0, 2, 3), keepdims=True))
    least = _FAINT * norms.max(initial=0.0)
    environments = environments / np.where(norms > 0, np.maximum(norms, least), 1.0)
    tensors = environments.reshape(-1, *(len(basis.inverse) for basis in bases))
    found = []
    for slots in groups:
        axes = [1 + slot for slot in slots]
        unfolded = np.moveaxis(tensors, axes, range(len(axes)))
        unfolded = unfolded.reshape(prod(len(bases[slot].inverse) for slot in slots), -1)
        found.append(SlotDraw.best(slots, bases, unfolded @ unfolded.T))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class DrawnSettings:
    """Settings of a fragment that were drawn, and how often.

    Attributes:
        slots: What they were drawn from, in the order of the slots' numbers.
        operations: The number of the operation at every slot, shape (settings, slots). Settings
            that measure at the same slots follow each other.
        shots: How often each was drawn, shape (rows, measurement groups, settings).
    """

    slots: tuple[SlotDraw, ...]
    operations: IntArray
    shots: IntArray

    @staticmethod
    def draw(
        bases: Sequence[SlotBasis], slots: tuple[SlotDraw, ...], shots: IntArray, name: str
    ) -> DrawnSettings:
        """Draw a setting for each of so many shots, shape (rows, measurement groups).

        The name is that of the round and fragment: all that is random derives from it.
        """
        rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[32:], 16))
        counts = shots.ravel()
        place, codes = np.arange(counts.size), np.zeros(counts.size, dtype=np.int64)
        for slot in slots:  # the shots of every sequence of operations, divided further
            split = rng.multinomial(counts, slot.chances)
            parent, operation = np.nonzero(split)
            codes = codes[parent] * len(slot.chances) + operation
            place, counts = place[parent], split[parent, operation]
        distinct, setting = np.unique(codes, return_inverse=True)
        table = np.zeros((shots.size, len(distinct)), dtype=np.intp)
        table[place, setting] = counts
        sizes = [len(basis.operations) for basis in bases]
        operations = np.stack(np.unravel_index(distinct, sizes), axis=1)
        order = np.lexsort(measured_slots(bases, operations).T[::-1])
        return DrawnSettings(
            slots, operations[order], table[:, order].reshape(*shots.shape, len(order))
        )

    @cached_property
    def key(self) -> str:
        """Content hash of the settings."""
        return hashlib.sha256(self.operations.tobytes()).hexdigest()[:32]


class SelectedMap:
    """Some rows of the Kronecker product of one (out, in) matrix per slot.

    The product of the first half of the slots is formed, and that of the others, of the rows
    that occur.

    Args:
        matrices: One per slot.
        places: Which row of each matrix, shape (rows, slots).
    """

    def __init__(self, matrices: Sequence[FloatArray], places: IntArray) -> None:
        half = len(matrices) // 2
        self._left, self._of_left = _distinct_rows(matrices[:half], places[:, :half])
        self._right, self._of_right = _distinct_rows(matrices[half:], places[:, half:])
        order = np.argsort(self._of_left, kind="stable")
        ends = np.cumsum(np.bincount(self._of_left))
        self._by_left = np.split(order, ends)[: len(ends)]

    def __call__(self, tensor: NDArray[Any]) -> FloatArray:
        """Map (batch, product of ins) to (batch, rows)."""
        halfway = self._left @ tensor.reshape(len(tensor), -1, self._right.shape[1])
        result = np.empty((len(tensor), len(self._of_left)))
        for number, own in enumerate(self._by_left):
            result[:, own] = halfway[:, number] @ self._right[self._of_right[own]].T
        return result

    def transposed(self, table: NDArray[Any]) -> FloatArray:
        """Map (batch, rows) to (batch, product of ins) by the transposed matrix."""
        shape, places = (len(self._left), len(self._right)), (self._of_left, self._of_right)
        sums = [
            self._left.T @ (scipy.sparse.csr_array((own, places), shape) @ self._right)
            for own in table
        ]
        return np.stack(sums).reshape(len(table), -1)


def _distinct_rows(matrices: Sequence[FloatArray], places: IntArray) -> tuple[FloatArray, IntArray]:
    """Products of the matrices' rows, each once, and which of them is at every place."""
    sizes = [len(matrix) for matrix in matrices]
    codes = np.zeros(len(places), dtype=np.int64)
    for size, own in zip(sizes, places.T, strict=True):
        codes = codes * size + own
    distinct, where = np.unique(codes, return_inverse=True)
    rows = np.ones((len(distinct), 1))
    for matrix, own in zip(
        matrices, np.unravel_index(distinct, sizes) if sizes else (), strict=True
    ):
        width = rows.shape[1] * matrix.shape[1]
        rows = (rows[:, :, None] * matrix[own][:, None]).reshape(len(rows), width)
    return rows, where


@dataclass(frozen=True, eq=False)
class DrawnFamily(SettingFamily):
    """Those of the drawn settings that measure at the same slots.

    Attributes:
        operations: The number of the operation at every slot, shape (settings, slots).
        start: Where the outcomes of the first one stand in the table of all.
    """

    operations: IntArray
    start: int

    @cached_property
    def num_settings(self) -> int:
        """Number of settings."""
        return len(self.operations)

    def settings(self) -> Iterator[tuple[LocalOperation, ...]]:
        """The operations of each setting."""
        for own in self.operations.tolist():
            yield tuple(basis.operations[n] for basis, n in zip(self.bases, own, strict=True))

    @cached_property
    def places(self) -> IntArray:
        """Where its outcomes stand in the table of all, shape (settings, slot outcomes)."""
        size = self.num_settings * self.num_slot_outcomes
        return np.arange(self.start, self.start + size).reshape(self.num_settings, -1)

    @cached_property
    def slot_outcomes(self) -> IntArray:
        """Every slot's own outcome, shape (settings · slot outcomes, slots)."""
        first = np.stack([b.first[n] for b, n in zip(self.bases, self.operations.T, strict=True)])
        widths = [1 + measured for measured in self.measured]
        bits = np.stack(np.unravel_index(np.arange(self.num_slot_outcomes), widths))
        return np.asarray(first[:, :, None] + bits[:, None]).reshape(len(self.bases), -1).T


class DrawnLayout(SettingLayout):
    """The settings that were drawn, and the outcomes of these alone."""

    def __init__(self, experiment: DrawnExperiment) -> None:
        super().__init__(experiment.fragment, experiment.basis)
        self._drawn = experiment.drawn
        self.num_settings = len(experiment.drawn.operations)
        self.num_outcomes = sum(f.num_settings * f.num_slot_outcomes for f in self.families)

    @cached_property
    def families(self) -> tuple[DrawnFamily, ...]:
        """The settings by the slots they measure."""
        families: list[DrawnFamily] = []
        first = start = 0
        operations = self._drawn.operations
        measured = measured_slots(self.bases, operations)
        # They were sorted by this.
        changes = np.flatnonzero((measured[1:] != measured[:-1]).any(axis=1)) + 1
        for own in np.split(np.arange(len(operations)), changes):
            if len(own):
                pattern = tuple(measured[own[0]].tolist())
                family = DrawnFamily(self.bases, pattern, first, operations[own], start)
                families.append(family)
                first += family.num_settings
                start += family.num_settings * family.num_slot_outcomes
        return tuple(families)

    @cached_property
    def slot_outcomes(self) -> IntArray:
        """Every slot's own outcome, shape (slot outcomes of all settings, slots)."""
        none = np.zeros((0, len(self.bases)), dtype=np.intp)
        return np.concatenate([none, *(family.slot_outcomes for family in self.families)])

    @cached_property
    def _selected(self) -> SelectedMap:
        return SelectedMap([basis.outcomes for basis in self.bases], self.slot_outcomes)

    def probabilities(self, coordinates: FloatArray) -> FloatArray:
        """As of all settings."""
        rows, outcomes, size = coordinates.shape
        table = self._selected(coordinates.reshape(rows * outcomes, size))
        return np.maximum(table, 0.0).reshape(rows, outcomes, -1)


class PooledLayout(SettingLayout):
    """All shots as those of one setting, whose outcomes are those of all settings drawn."""

    def __init__(self, layout: DrawnLayout, slots: Sequence[SlotDraw]) -> None:
        self.bases, self.size = layout.bases, layout.size
        self.num_settings, self.num_outcomes = 1, layout.num_outcomes
        weights, places = [], []
        for slot in slots:
            own = [self.bases[number] for number in slot.slots]
            _, of = _outcomes(own)
            weights.append(slot.weights.T / slot.chances[of, None])
            outcomes = layout.slot_outcomes[:, slot.slots].T
            places.append(np.ravel_multi_index(tuple(outcomes), [len(b.outcomes) for b in own]))
        self._weights = SelectedMap(weights, np.stack(places, axis=1))

    @cached_property
    def setting_of(self) -> IntArray:
        """The one setting, for every outcome."""
        return np.zeros(self.num_outcomes, dtype=np.intp)

    def by_setting(self, table: FloatArray) -> FloatArray:
        """Sums over all outcomes, (…, slot outcomes) -> (…, 1)."""
        return np.asarray(table.sum(axis=-1, keepdims=True))

    def means(self, frequencies: FloatArray) -> FloatArray:
        """The fragment tensor of some Paulis from the mean of each at every slot outcome."""
        rows, paulis, size = frequencies.shape
        found = self._weights.transposed(frequencies.reshape(rows * paulis, size))
        return found.reshape(rows, paulis, -1)

    def pulled_back(self, vectors: FloatArray) -> FloatArray:
        """Weights of outcomes that make `means` of them products with vectors."""
        flat = self._weights(vectors.reshape(-1, self.size))
        return flat.reshape(*vectors.shape[:-1], self.num_outcomes)


@dataclass(frozen=True, eq=False)
class DrawnExperiment(FragmentExperiment):
    """An experiment of which only settings run that were drawn."""

    drawn: DrawnSettings

    @cached_property
    def layout(self) -> DrawnLayout:
        """The settings that were drawn."""
        return DrawnLayout(self)

    @cached_property
    def strata(self) -> PooledLayout:
        """All shots together."""
        return PooledLayout(self.layout, self.drawn.slots)

    @cached_property
    def num_circuits(self) -> int:
        """Settings drawn times measurement bases, without those that measure nothing at all."""
        settings = sum(f.num_settings for f in self.layout.families if self.runs(f))
        return settings * len(self.groups)

    @property
    def sure_shots(self) -> int:
        """Shots that drew a setting whose outcome is sure, and were not taken."""
        return int(self.drawn.shots[:, ~self.all_runs].sum())

    @property
    def num_drawn(self) -> int:
        """Numbers that the tensor and its outcomes are at one binding."""
        return len(self.paulis) * (self.layout.size + self.layout.num_outcomes)

    @cached_property
    def key(self) -> str:
        """Content hash of fragment, Paulis and settings."""
        return hashlib.sha256(f"{super().key} {self.drawn.key}".encode()).hexdigest()[:32]

    def means(
        self, number: int, counts: FloatArray, rows: slice | IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Means and shots of all settings together.

        A setting counts as often as it was drawn, however many shots it took; one whose outcome is
        sure takes none.
        """
        layout, drawn = self.layout, self.drawn.shots[rows, number].astype(np.float64)
        runs = self.all_runs[number]
        taken = np.where(runs, layout.by_setting(counts[:, 0]), drawn)
        counts = np.where(runs[layout.setting_of], counts, drawn[:, None, layout.setting_of])
        scale = drawn / np.maximum(taken, 1.0)
        counts = counts * scale[:, None, layout.setting_of]
        total = drawn.sum(axis=1, keepdims=True)
        shots = np.minimum(total, taken.sum(axis=1, keepdims=True))
        return counts / np.maximum(total, 1.0)[:, None], shots

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fragment, self.paulis, self.basis, self.drawn)


def _outcomes(bases: Sequence[SlotBasis]) -> tuple[FloatArray, IntArray]:
    """The outcomes' rows of the operations of some slots together, and each one's operation."""
    rows: FloatArray = np.ones((1, 1))
    of = np.zeros(1, dtype=np.intp)
    for basis in bases:
        widths = [len(operation.rotations) for operation in basis.operations]
        rows = np.asarray(np.kron(rows, basis.outcomes))
        own = np.repeat(np.arange(len(widths)), widths)
        of = np.add.outer(of * len(widths), own).ravel()
    return rows, of


def measured_slots(bases: Sequence[SlotBasis], operations: IntArray) -> BoolArray:
    """Whether every slot is measured in settings of shape (settings, slots)."""
    measures = [np.array([own.measures for own in basis.operations]) for basis in bases]
    return np.stack([m[own] for m, own in zip(measures, operations.T, strict=True)], axis=1)
