"""Which circuits a fragment needs, and how their counts become its tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..cutting import Fragment, LocalOperation, SettingBasis, SlotBasis
from .observables import MeasurementGroup
from .slotwise import SlotwiseMap

FloatArray = NDArray[np.float64]

# Functionals of a measurement from its two outcomes: signed, unsigned; and the pairs of them.
_SIGNED = np.array([[1.0, -1.0], [1.0, 1.0]])
_PAIRED = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])
_UNMEASURED = np.ones((1, 1))


@dataclass(frozen=True, eq=False)
class SettingFamily:
    """The settings of a fragment that measure at the same slots: one circuit, other rotations.

    Counts of a family have the axes (rows, settings, observable outcomes · slot outcomes); the
    first slot's choice and outcome vary slowest.

    Attributes:
        bases: The setting basis of each slot.
        measured: Whether each slot is measured.
    """

    bases: tuple[SlotBasis, ...]
    measured: tuple[bool, ...]

    @cached_property
    def choices(self) -> tuple[NDArray[np.intp], ...]:
        """Per slot, the operations of its basis that the family uses."""
        return tuple(
            np.array([i for i, op in enumerate(basis.operations) if op.measures == m], dtype=int)
            for basis, m in zip(self.bases, self.measured, strict=True)
        )

    @cached_property
    def num_settings(self) -> int:
        """Number of settings."""
        return prod(len(choice) for choice in self.choices)

    @property
    def num_slot_outcomes(self) -> int:
        """Joint outcomes of the measured slots."""
        return int(2 ** sum(self.measured))

    def settings(self) -> Iterator[tuple[LocalOperation, ...]]:
        """The operations of each setting, in the order of the counts."""
        for choice in product(*self.choices):
            yield tuple(b.operations[i] for b, i in zip(self.bases, choice, strict=True))

    def probabilities(self, coordinates: FloatArray) -> FloatArray:
        """Outcome distributions from the coordinates of each observable outcome.

        Args:
            coordinates: Shape (rows, observable outcomes, product of ranks).

        Returns:
            Shape (rows, settings, observable outcomes · slot outcomes); each sums to one.
        """
        rows, parities, _ = coordinates.shape
        flat = self._outcome_map(coordinates.reshape(rows * parities, -1))
        sizes = [
            n for c, m in zip(self.choices, self.measured, strict=True) for n in (len(c), 1 + m)
        ]
        table = flat.reshape(rows, parities, *sizes)
        slots = range(len(self.bases))
        order = [0, *(2 + 2 * s for s in slots), 1, *(3 + 2 * s for s in slots)]
        chances = table.transpose(order).reshape(rows, self.num_settings, -1)
        chances = np.maximum(chances, 0.0)
        return np.asarray(chances / chances.sum(axis=-1, keepdims=True))

    def means(self, frequencies: FloatArray, group: MeasurementGroup) -> FloatArray:
        """This family's part of a fragment tensor; the parts of all families add up to it.

        Args:
            frequencies: Counts over shots, shape (rows, settings, observable · slot outcomes).
            group: The Paulis measured.

        Returns:
            Shape (rows, paulis, product of ranks), in slot coordinates.
        """
        return self._slotwise(self._functionals(frequencies, group), self._coordinate_map, 2)

    def covariances(
        self, frequencies: FloatArray, shots: int, group: MeasurementGroup
    ) -> FloatArray:
        """Covariances of `means`, shape (rows, paulis², product of ranks²)."""
        seconds = group.pair_signs @ self._table(frequencies, group) @ self._paired.T
        spread = seconds - self._outer(self._functionals(frequencies, group))
        # One shot says nothing of its spread; a sign's variance is at most one.
        variance = spread / (shots - 1) if shots > 1 else np.ones_like(spread)
        return self._slotwise(variance, self._pair_map, 4)

    def _functionals(self, frequencies: FloatArray, group: MeasurementGroup) -> FloatArray:
        return np.asarray(group.signs @ self._table(frequencies, group) @ self._signed.T)

    @staticmethod
    def _table(frequencies: FloatArray, group: MeasurementGroup) -> FloatArray:
        rows, settings, _ = frequencies.shape
        return frequencies.reshape(rows, settings, group.num_outcomes, -1)

    @cached_property
    def _signed(self) -> FloatArray:
        return _kron([_SIGNED if m else _UNMEASURED for m in self.measured])

    @cached_property
    def _paired(self) -> FloatArray:
        return _kron([_PAIRED if m else _UNMEASURED for m in self.measured])

    def _outer(self, means: FloatArray) -> FloatArray:
        """Products of means in the order of `pair_signs` and `_PAIRED`."""
        rows, settings, paulis, _ = means.shape
        sizes = [1 + m for m in self.measured]
        left = means.reshape(rows, settings, paulis, 1, *(x for n in sizes for x in (n, 1)))
        right = means.reshape(rows, settings, 1, paulis, *(x for n in sizes for x in (1, n)))
        return (left * right).reshape(rows, settings, paulis * paulis, -1)

    def _slotwise(self, table: FloatArray, mapping: SlotwiseMap, width: int) -> FloatArray:
        """Bring (rows, settings, paulis, functionals) slot by slot to coordinates."""
        rows, _, paulis, _ = table.shape
        slots = len(self.bases)
        choices = [len(choice) for choice in self.choices]
        functionals = [width if m else 1 for m in self.measured]
        split = table.reshape(rows, *choices, paulis, *functionals)
        order = [0, slots + 1, *(x for s in range(slots) for x in (1 + s, slots + 2 + s))]
        flat = split.transpose(order).reshape(rows * paulis, -1)
        return mapping(flat).reshape(rows, paulis, -1)

    @cached_property
    def _outcome_map(self) -> SlotwiseMap:
        return SlotwiseMap(
            [
                basis.outcomes[_places(basis.first, choice, 1 + m)]
                for basis, choice, m in zip(self.bases, self.choices, self.measured, strict=True)
            ]
        )

    @cached_property
    def _coordinate_map(self) -> SlotwiseMap:
        return SlotwiseMap(
            [
                basis.inverse[:, _places(basis.first, choice, 1 + m)]
                for basis, choice, m in zip(self.bases, self.choices, self.measured, strict=True)
            ]
        )

    @cached_property
    def _pair_map(self) -> SlotwiseMap:
        return SlotwiseMap(
            [
                basis.pair_inverse[:, _places(basis.first_pair, choice, (1 + m) ** 2)]
                for basis, choice, m in zip(self.bases, self.choices, self.measured, strict=True)
            ]
        )


def setting_families(fragment: Fragment, kind: SettingBasis) -> tuple[SettingFamily, ...]:
    """All settings of a fragment in a setting basis, by the slots they measure."""
    bases = tuple(slot.side.basis(kind) for slot in fragment.slots)
    families = (SettingFamily(bases, m) for m in product((False, True), repeat=len(bases)))
    return tuple(family for family in families if family.num_settings)


def _places(first: NDArray[np.intp], choice: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    return np.asarray((first[choice][:, None] + np.arange(width)).ravel())


def _kron(matrices: Sequence[FloatArray]) -> FloatArray:
    total = _UNMEASURED
    for matrix in matrices:
        total = np.kron(total, matrix).astype(np.float64)
    return total
