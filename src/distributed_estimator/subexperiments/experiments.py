"""An experiment: a fragment, its Paulis, the circuits that measure them, and their outcomes.

The outcomes of all settings of a fragment are kept in one table, with an axis per slot that runs
over the outcomes of all operations of that slot: one for a rotation, two for a measurement.
Every linear map of them is one small matrix per slot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cutting import (
    BoolArray,
    FloatArray,
    Fragment,
    IntArray,
    LocalOperation,
    SettingBasis,
    SlotBasis,
)
from .observables import MeasurementGroup, Pauli, group

_LARGEST_BLOCK = 256
"""Entries along an axis up to which matrices of several slots are multiplied out."""
_DRAWN_AT_ONCE = 1 << 20
_RESOLUTION = 2.0**-40
"""Relative decrease of probabilities before drawing; smaller probabilities count as 0.

NumPy draws otherwise at 0 than just above, and at 1/2 and below than just above, and so would turn
rounding, which differs between processors, into other numbers.
"""
_ROUNDING = 1e-13
_SURE = 2.0
"""Shots that a circuit counts as having whose outcome is sure, and which does not run."""
_NARROWEST = 8
"""Outcomes that settings with fewer are padded to: one large draw is faster than several small."""


class SlotwiseMap:
    """The Kronecker product of one (out, in) matrix per slot, not formed as a whole if large."""

    def __init__(self, matrices: Sequence[NDArray[Any]]) -> None:
        self.blocks: list[NDArray[Any]] = []
        for matrix in matrices:
            if self.blocks and self.blocks[-1].shape[1] * matrix.shape[1] <= _LARGEST_BLOCK:
                self.blocks[-1] = np.kron(self.blocks[-1], matrix)
            else:
                self.blocks.append(matrix)

    def __call__(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Map (batch, product of ins) to (batch, product of outs)."""
        batch = len(tensor)
        before, after = 1, reduce(lambda size, b: size * b.shape[1], self.blocks, 1)
        for block in self.blocks:
            after //= block.shape[1]
            if before == after == 1:
                tensor = tensor.reshape(batch, -1) @ block.T
            else:
                tensor = block @ tensor.reshape(batch * before, block.shape[1], after)
            before *= block.shape[0]
        return tensor.reshape(batch, before)


@dataclass(frozen=True, eq=False)
class SettingFamily:
    """The settings of a fragment that measure at the same slots: one circuit, other rotations.

    They are numbered from `first` among all of the fragment.
    """

    bases: tuple[SlotBasis, ...]
    measured: tuple[bool, ...]
    first: int

    @cached_property
    def choices(self) -> tuple[list[int], ...]:
        """Per slot, the operations of its basis that the family uses."""
        return tuple(
            [i for i, operation in enumerate(basis.operations) if operation.measures == measured]
            for basis, measured in zip(self.bases, self.measured, strict=True)
        )

    @cached_property
    def num_settings(self) -> int:
        """Number of settings."""
        return prod(len(choice) for choice in self.choices)

    @property
    def numbers(self) -> IntArray:
        """Its settings' numbers among all of the fragment."""
        return np.arange(self.first, self.first + self.num_settings)

    @property
    def num_slot_outcomes(self) -> int:
        """Joint outcomes of the measured slots."""
        return int(2 ** sum(self.measured))

    def settings(self) -> Iterator[tuple[LocalOperation, ...]]:
        """The operations of each setting, the last slot's varying fastest."""
        for choice in product(*self.choices):
            yield tuple(b.operations[i] for b, i in zip(self.bases, choice, strict=True))

    @cached_property
    def places(self) -> IntArray:
        """Where its outcomes stand in the table of all, shape (settings, slot outcomes)."""
        places = np.zeros((1, 1), dtype=np.intp)
        for basis, choice, measured in zip(self.bases, self.choices, self.measured, strict=True):
            own = basis.first[choice][:, None] + np.arange(1 + measured)
            places = places[:, None, :, None] * len(basis.outcomes) + own[None, :, None, :]
            places = places.reshape(places.shape[0] * len(choice), -1)
        return places


@dataclass(frozen=True, eq=False)
class FamilyPart:
    """Circuits `start` to `stop` of a family, numbered by measurement group, then by setting."""

    family: SettingFamily
    start: int
    stop: int

    def by_group(self) -> Iterator[tuple[int, slice]]:
        """Each measurement group's number and which of the family's settings it holds."""
        size = self.family.num_settings
        for number in range(self.start // size, -(-self.stop // size)):
            first = number * size
            yield number, slice(max(0, self.start - first), min(size, self.stop - first))


class SettingLayout:
    """All settings of a fragment in one setting basis, and the maps between their outcomes."""

    def __init__(self, fragment: Fragment, kind: SettingBasis) -> None:
        self.bases = tuple(slot.side.basis(kind) for slot in fragment.slots)
        self.num_settings = prod(len(basis.operations) for basis in self.bases)
        self.num_outcomes = prod(len(basis.outcomes) for basis in self.bases)
        self.size = prod(fragment.shape)

    @cached_property
    def _probabilities(self) -> SlotwiseMap:
        return SlotwiseMap([basis.outcomes for basis in self.bases])

    @cached_property
    def _functionals(self) -> SlotwiseMap:
        return SlotwiseMap([basis.signed for basis in self.bases])

    @cached_property
    def _means(self) -> SlotwiseMap:
        return SlotwiseMap([basis.inverse @ basis.signed for basis in self.bases])

    @cached_property
    def _seconds(self) -> SlotwiseMap:
        return SlotwiseMap([basis.paired for basis in self.bases])

    @cached_property
    def _pairs(self) -> SlotwiseMap:
        return SlotwiseMap([basis.pair_inverse for basis in self.bases])

    @cached_property
    def families(self) -> tuple[SettingFamily, ...]:
        """The settings by the slots they measure; made when used, being exponentially many."""
        families: list[SettingFamily] = []
        first = 0
        for measured in product((False, True), repeat=len(self.bases)):
            family = SettingFamily(self.bases, measured, first)
            first += family.num_settings
            families += [family] if family.num_settings else []
        return tuple(families)

    @cached_property
    def setting_of(self) -> IntArray:
        """The setting that every outcome belongs to, shape (slot outcomes of all settings,)."""
        settings = np.empty(self.num_outcomes, dtype=np.intp)
        for family in self.families:
            settings[family.places] = family.numbers[:, None]
        return settings

    def by_setting(self, table: FloatArray) -> FloatArray:
        """Sums over the outcomes of every setting, (…, slot outcomes) -> (…, settings)."""
        order, starts = self._sorted_by_setting
        return np.asarray(np.add.reduceat(table[..., order], starts, axis=-1))

    @cached_property
    def _sorted_by_setting(self) -> tuple[IntArray, IntArray]:
        order = np.argsort(self.setting_of, kind="stable")
        return order, np.searchsorted(self.setting_of[order], np.arange(self.num_settings))

    def probabilities(self, coordinates: FloatArray) -> FloatArray:
        """The table of outcome probabilities from the coordinates of each observable outcome.

        (rows, observable outcomes, product of ranks) -> (…, slot outcomes of all settings).
        """
        rows, outcomes, size = coordinates.shape
        table = self._probabilities(coordinates.reshape(rows * outcomes, size))
        return np.asarray(np.maximum(table, 0.0).reshape(rows, outcomes, -1))

    def draw(
        self, probabilities: FloatArray, shots: IntArray, rng: np.random.Generator
    ) -> FloatArray:
        """Counts of outcomes where settings are run with `shots`, shape (rows, settings)."""
        rows, outcomes, size = probabilities.shape
        padded = np.concatenate([probabilities, np.zeros((rows, outcomes, 1))], axis=2)
        result = np.empty_like(padded)
        for places in self._blocks(rows * outcomes):
            chances = padded[:, :, places].transpose(0, 2, 1, 3).reshape(rows, len(places), -1)
            chances *= (1 - _RESOLUTION) / chances.sum(axis=-1, keepdims=True)
            chances[chances < _RESOLUTION] = 0.0
            counts = rng.multinomial(shots[:, self.setting_of[places[:, 0]]], chances)
            counts = counts.reshape(rows, -1, outcomes, places.shape[1])
            result[:, :, places] = counts.transpose(0, 2, 1, 3)
        return result[:, :, :size]

    def _blocks(self, size: int) -> Iterator[IntArray]:
        """Places of the outcomes of some settings at a time, each drawn `size` times at once."""
        for places in self._padded_places:
            block = max(1, _DRAWN_AT_ONCE // (size * places.shape[1]))
            for start in range(0, len(places), block):
                yield places[start : start + block]

    @cached_property
    def _padded_places(self) -> list[IntArray]:
        """Places of every setting's outcomes, by their number; few are padded with nothing."""
        blocks: dict[int, list[IntArray]] = {}
        for family in self.families:
            narrowest = min(_NARROWEST, 1 << len(self.bases))
            width = max(family.num_slot_outcomes, narrowest)
            places = np.full((family.num_settings, width), self.num_outcomes)
            places[:, : family.num_slot_outcomes] = family.places
            blocks.setdefault(width, []).append(places)
        return [np.concatenate(parts) for parts in blocks.values()]

    def means(self, frequencies: FloatArray) -> FloatArray:
        """The fragment tensor of some Paulis from the mean of each at every slot outcome.

        (rows, paulis, slot outcomes) -> (rows, paulis, product of ranks), in slot coordinates.
        """
        return _apply(self._means, frequencies)

    def covariances(
        self, means: FloatArray, group: MeasurementGroup, shots: FloatArray
    ) -> FloatArray:
        """Covariances of the tensors of a group's Paulis, pair by pair.

        Slot by slot, so that they can be had where the weights of all slots together are too many;
        `weighted_covariances` is for these.

        Args:
            means: Of every product of the group, shape (rows, products, slot outcomes).
            group: The Paulis.
            shots: Of each setting, shape (rows, settings).

        Returns:
            Shape (rows, pairs, product of ranks²); NaN where a setting has one shot, which says
            nothing of its spread.
        """
        seconds = _apply(self._seconds, means[:, group.pairs])
        functionals = _apply(self._functionals, means[:, group.singles])
        left, right = self._pair_places
        both = group.paired(functionals[..., left], functionals[..., right])
        degrees = _unbiased_degrees(shots)[:, None, self.setting_of[left]]
        return _apply(self._pairs, (seconds - both) / degrees)

    def weighted_covariances(
        self, frequencies: FloatArray, products: FloatArray, shots: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """As `covariances` of all pairs of Paulis, for tensors that `weights` make of frequencies.

        Args:
            frequencies: As for `means`.
            products: The same for the products of two Paulis, shape (rows, paulis², …).
            shots: Of each setting, shape (rows, settings).
            weights: Shape (rows, paulis, product of ranks, slot outcomes).
        """
        rows, paulis, size, outcomes = weights.shape
        degrees = _unbiased_degrees(shots)
        scaled = products / degrees[:, None, self.setting_of]
        both = scaled.reshape(rows, paulis, paulis, 1, outcomes) * weights[:, None]
        seconds = weights[:, :, None] @ both.swapaxes(3, 4)
        sums = self.by_setting(weights * frequencies[:, :, None])
        sums = sums / np.sqrt(degrees)[:, None, None]
        seconds -= sums[:, :, None] @ sums[:, None].swapaxes(3, 4)
        ranks = [len(basis.inverse) for basis in self.bases]
        slots = len(ranks)
        order = [2 + s + end for s in range(slots) for end in (0, slots)]
        split = seconds.reshape(rows, paulis**2, *ranks, *ranks)
        return np.asarray(split.transpose(0, 1, *order)).reshape(rows, paulis**2, size**2)

    @cached_property
    def outcome_rows(self) -> FloatArray:
        """Weights of all outcomes as functions of the coordinates, (slot outcomes, coordinates)."""
        rows: NDArray[Any] = np.ones((1, 1))
        for basis in self.bases:
            rows = np.kron(rows, basis.outcomes)
        return rows

    def pulled_back(self, vectors: FloatArray) -> FloatArray:
        """Weights of outcomes that make `means` of them products with vectors.

        (…, product of ranks) -> (…, slot outcomes).
        """
        flat = self._pull_back(vectors.reshape(-1, self.size))
        return flat.reshape(*vectors.shape[:-1], self.num_outcomes)

    @cached_property
    def _pull_back(self) -> SlotwiseMap:
        return SlotwiseMap([(basis.inverse @ basis.signed).T for basis in self.bases])

    def spread(
        self,
        means: FloatArray,
        group: MeasurementGroup,
        weights: FloatArray,
        shots: FloatArray | None = None,
    ) -> FloatArray:
        """Variance of one shot of each setting, its outcomes weighted.

        Args:
            means: Of every product of the group's Paulis, shape (rows, products, slot outcomes).
            group: The Paulis.
            weights: Shape (rows, paulis, entries, slot outcomes).
            shots: Of each setting, shape (rows, settings); None: more than one.

        Returns:
            Shape (rows, entries, settings); the mean square where a setting has one shot.
        """
        paulis = weights.shape[1]
        first, second = np.zeros_like(weights[:, 0]), np.zeros_like(weights[:, 0])
        pairs = group.pairs.reshape(paulis, paulis)
        for left in range(paulis):
            first += weights[:, left] * means[:, group.singles[left], None]
            for right in range(left, paulis):
                twice = 1.0 if left == right else 2.0
                product = weights[:, left] * weights[:, right]
                second += twice * product * means[:, pairs[left, right], None]
        squares, means = self.by_setting(second), self.by_setting(first)
        spread = above_rounding(squares - means**2, squares)
        return spread if shots is None else np.where(shots[:, None] == 1, squares, spread)

    @cached_property
    def _pair_places(self) -> tuple[IntArray, IntArray]:
        """The two functionals of every pair within one setting, over all slots."""
        left = right = np.zeros(1, dtype=np.intp)
        for basis in self.bases:
            own_left, own_right = basis.pairs
            size = len(basis.functionals)
            left = (left[:, None] * size + own_left).ravel()
            right = (right[:, None] * size + own_right).ravel()
        return left, right


def above_rounding(variances: FloatArray, squares: FloatArray) -> FloatArray:
    """Variances, but 0 where they are rounding of the mean squares that they were made from.

    What n shots can show is about 1/n of the squares at least.
    """
    return np.where(variances > _ROUNDING * squares, variances, 0.0)


def degrees_of(shots: FloatArray) -> FloatArray:
    """Degrees of freedom of circuits' variances; 1 for one shot, whose square stands for them.

    A square is the variance and the square of the mean, on average, so that it is too large.
    """
    return np.maximum(shots - 1, 1.0)


def _unbiased_degrees(shots: FloatArray) -> FloatArray:
    """The same, but NaN for one shot, of which no variance is known without bias."""
    return np.where(shots == 1, np.nan, degrees_of(shots))


def _apply(mapping: SlotwiseMap, table: FloatArray) -> FloatArray:
    rows, paulis, size = table.shape
    return mapping(table.reshape(rows * paulis, size)).reshape(rows, paulis, -1)


@dataclass(frozen=True, eq=False)
class FragmentExperiment:
    """A fragment, the observables' distinct parts on it, and the settings that give them."""

    fragment: Fragment
    paulis: tuple[Pauli, ...]
    basis: SettingBasis

    @cached_property
    def groups(self) -> tuple[MeasurementGroup, ...]:
        """Paulis that share their shots."""
        return group(self.paulis, self.fragment.num_qubits)

    @cached_property
    def group_places(self) -> tuple[IntArray, IntArray]:
        """Per Pauli, the number of its group and its place there."""
        numbers, places = np.empty((2, len(self.paulis)), dtype=np.intp)
        for number, members in enumerate(self.groups):
            numbers[list(members.paulis)] = number
            places[list(members.paulis)] = np.arange(len(members.paulis))
        return numbers, places

    @cached_property
    def layout(self) -> SettingLayout:
        """The fragment's settings."""
        return SettingLayout(self.fragment, self.basis)

    @property
    def strata(self) -> SettingLayout:
        """What shots are alike in: settings."""
        return self.layout

    def means(
        self, number: int, counts: FloatArray, rows: slice | IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Mean of every product of a group's Paulis at every outcome, and shots of its strata.

        Args:
            number: The measurement group.
            counts: Its counts, as in `FragmentResult`, shape (rows, products, slot outcomes).
            rows: Which rows these are.
        """
        shots = self.layout.by_setting(counts[:, 0])
        sure = ~self.all_runs[number]
        if sure.any():
            shots[:, sure] = _SURE
            counts = np.where(sure[self.layout.setting_of], _SURE, counts)
        return counts / np.maximum(shots, 1.0)[:, None, self.layout.setting_of], shots

    @property
    def is_trivial(self) -> bool:
        """Whether the fragment contributes a factor of one and need not run."""
        return not self.fragment.slots and not any(self.paulis)

    @property
    def measures(self) -> bool:
        """Whether any qubit is measured for the observables."""
        return any(self.paulis)

    @cached_property
    def num_circuits(self) -> int:
        """Settings times measurement bases: circuits per binding.

        Where nothing is observed, settings that measure nothing either need not run.
        """
        settings = len(self.groups) * self.fragment.num_settings(self.basis)
        if self.measures:
            return settings
        silent = [
            sum(not operation.measures for operation in slot.side.basis(self.basis).operations)
            for slot in self.fragment.slots
        ]
        return settings - prod(silent)

    def runs(self, family: SettingFamily) -> bool:
        """Whether a family's circuits measure anything; those of others have a sure outcome."""
        return self.measures or family.num_slot_outcomes > 1

    def family_parts(self, circuits: tuple[int, int] | None = None) -> Iterator[FamilyPart]:
        """Some of the `num_circuits` circuits, by the family they belong to.

        Circuits are numbered by family in the order of the layout, within a family by measurement
        group, within a group by setting; `circuits` are the first and how many; None: all.
        """
        first, count = circuits or (0, self.num_circuits)
        for family in self.layout.families:
            if not self.runs(family):
                continue
            size = len(self.groups) * family.num_settings
            start, stop = max(first, 0), min(first + count, size)
            if start < stop:
                yield FamilyPart(family, start, stop)
            first -= size

    def runs_of(self, circuits: tuple[int, int] | None) -> BoolArray:
        """Which circuits some are, shape (measurement groups, settings); None: `all_runs`."""
        if circuits is None:
            return self.all_runs
        mask = np.zeros((len(self.groups), self.layout.num_settings), dtype=bool)
        for part in self.family_parts(circuits):
            for number, settings in part.by_group():
                mask[number, part.family.numbers[settings]] = True
        return mask

    @cached_property
    def all_runs(self) -> BoolArray:
        """Which circuits run, shape (measurement groups, settings)."""
        return self.runs_of((0, self.num_circuits))

    @cached_property
    def key(self) -> str:
        """Content hash of fragment, Paulis and setting basis."""
        text = f"{self.fragment.key} {self.paulis} {self.basis}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def table_bytes(self) -> int:
        """Memory for drawing the tables of outcomes per binding, in bytes."""
        layout = self.layout
        outcomes = sum(group.num_outcomes for group in self.groups)
        places = 8 * (_NARROWEST * layout.num_settings + 2 * layout.num_outcomes)
        return 8 * layout.num_outcomes * 6 * outcomes + places

    def result_bytes(self, *, sampled: bool) -> int:
        """Memory that the result takes per binding, in bytes."""
        products = sum(len(group.products) for group in self.groups) if sampled else 0
        values = len(self.paulis) * prod(self.fragment.shape)
        return 8 * (values + products * self.layout.num_outcomes)

    @property
    def num_weights(self) -> int:
        """Weights of outcomes that give the tensor at one binding, if they are not slot by slot."""
        return len(self.paulis) * self.layout.num_outcomes * self.layout.size

    def covariance_bytes(self) -> int:
        """Memory for covariances of the fragment tensor and their making, per binding, in bytes."""
        pairs = sum(len(group.pairs) for group in self.groups)
        size, outcomes = prod(self.fragment.shape), self.layout.num_outcomes
        return 8 * pairs * (2 * size**2 + 4 * outcomes)

    @cached_property
    def row_work(self) -> int:
        """Amplitudes touched per binding, over all gates."""
        qubits = self.fragment.num_qubits + self.fragment.environment_qubits
        amplitudes = self.fragment.num_branches << qubits
        return amplitudes * (len(self.fragment.steps) + 1) + 20 * self.num_circuits

    def __reduce__(self) -> tuple[Any, ...]:
        # The cached properties are far larger than the fields they derive from.
        return type(self), (self.fragment, self.paulis, self.basis)


def unique_rows(rows: FloatArray) -> tuple[IntArray, IntArray]:
    """Where each distinct row stands first and, for each row, its place among the distinct."""
    if len(rows) <= 1 or not rows.shape[1]:
        return np.zeros(min(len(rows), 1), dtype=np.intp), np.zeros(len(rows), dtype=np.intp)
    keys = np.ascontiguousarray(rows).view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist()
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(key, number) for number, key in enumerate(keys)]
    places = np.array(list(seen.values()), dtype=np.intp)
    return places, np.searchsorted(places, first)
