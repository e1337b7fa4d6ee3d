"""An experiment: a fragment, its Paulis, and the circuits that measure them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ..cutting import FloatArray, Fragment, IntArray, SettingBasis
from .observables import MeasurementGroup, Pauli, group
from .settings import FamilyPart, SettingFamily, SettingLayout


@dataclass(frozen=True, eq=False)
class FragmentExperiment:
    """A fragment, the Paulis wanted of it and the settings that give them.

    Attributes:
        fragment: The piece of the circuit.
        paulis: The observables' distinct parts on it.
        basis: Settings to run where shots are counted.
    """

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
        places = np.empty((2, len(self.paulis)), dtype=np.intp)
        for number, members in enumerate(self.groups):
            places[0, list(members.paulis)] = number
            places[1, list(members.paulis)] = np.arange(len(members.paulis))
        return places[0], places[1]

    @cached_property
    def layout(self) -> SettingLayout:
        """The fragment's settings."""
        return SettingLayout(self.fragment, self.basis)

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
        group, within a group by setting.

        Args:
            circuits: First circuit and how many; None: all.
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

    def group_shares(self, circuits: tuple[int, int] | None = None) -> FloatArray:
        """Which part of every measurement group's circuits some circuits are, shape (groups,)."""
        counts = np.zeros(len(self.groups))
        for part in self.family_parts(circuits):
            for number, settings in part.by_group():
                counts[number] += settings.stop - settings.start
        return counts * len(self.groups) / max(1, self.num_circuits)

    def sure_families(self, circuits: tuple[int, int] | None = None) -> list[SettingFamily]:
        """Families without circuits to run; they belong to the task with the first circuit."""
        if circuits is not None and circuits[0] > 0:
            return []
        return [family for family in self.layout.families if not self.runs(family)]

    @cached_property
    def key(self) -> str:
        """Content hash of fragment, Paulis and setting basis."""
        text = f"{self.fragment.key} {self.paulis} {self.basis}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def table_bytes(self) -> int:
        """Memory for the tables of outcomes and their reduction per binding, in bytes."""
        outcomes = sum(group.num_outcomes for group in self.groups)
        pairs = max(len(group.paulis) for group in self.groups) ** 2
        tables = 8 * self.layout.num_outcomes * (6 * outcomes + 4 * pairs)
        return tables + self.layout.place_bytes

    def result_bytes(self, *, covariances: bool) -> int:
        """Memory the fragment tensor takes per binding, in bytes."""
        size = prod(self.fragment.shape)
        pairs = sum(len(group.paulis) ** 2 for group in self.groups) if covariances else 0
        return 8 * (len(self.paulis) * size + 2 * pairs * size**2)

    @cached_property
    def row_work(self) -> int:
        """Amplitudes touched per binding, over all gates."""
        amplitudes = self.fragment.num_branches << self.fragment.num_qubits
        return amplitudes * (len(self.fragment.steps) + 1) + 20 * self.num_circuits

    def __reduce__(self) -> tuple[Any, ...]:
        # The cached properties are far larger than the fields they derive from.
        return type(self), (self.fragment, self.paulis, self.basis)


def unique_rows(rows: FloatArray) -> tuple[IntArray, IntArray]:
    """Where each distinct row stands first and, for each row, its place among the distinct."""
    size = rows.shape[1] * rows.itemsize
    keys = (
        np.ascontiguousarray(rows).view(f"V{size}").ravel().tolist() if size else [b""][: len(rows)]
    )
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(key, number) for number, key in enumerate(keys)]
    places = np.array(list(seen.values()), dtype=np.intp)
    return places, np.broadcast_to(np.searchsorted(places, first), len(rows))
