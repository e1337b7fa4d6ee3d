"""PUBs of families of settings: copies of their circuits, and counts of their outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..cutting import BoolArray, FloatArray, IntArray
from ..subexperiments import FragmentExperiment, SettingFamily
from .templates import MEASURE_REGISTER, SLOT_REGISTER, Template


@dataclass(frozen=True, eq=False)
class FamilyPub:
    """Circuits of one family, of each as many copies, that are run with `shots` each.

    Attributes:
        circuits: Row, measurement group and setting of the family of each, shape (3, circuits).
        values: Parameters of the copies of each, shape (circuits · copies, parameters).
        flips: Which of their measured bits are flipped, shape (circuits · copies, bits); no bits:
            none is.
    """

    family: SettingFamily
    template: Template
    circuits: IntArray
    values: FloatArray
    flips: BoolArray
    shots: int

    @property
    def content(self) -> tuple[Any, ...]:
        """What a sampler takes."""
        return self.template.circuit, self.values if self.values.size else None, self.shots

    def count(
        self, experiment: FragmentExperiment, data: Any, tables: Sequence[FloatArray]
    ) -> None:
        """Add counts to tables by measurement group, shape (rows, outcomes, slot outcomes)."""
        count = sum(self.family.measured)
        slots = self._bits(data, SLOT_REGISTER, 0, count)
        observed = self._bits(data, MEASURE_REGISTER, count, len(self.template.observed))
        # The first slot is the slowest.
        slot_outcomes = slots @ (1 << np.arange(slots.shape[2])[::-1])
        places = {qubit: place for place, qubit in enumerate(self.template.observed)}
        rows, groups, settings = self.circuits
        for number in np.unique(groups).tolist():
            group, own = experiment.groups[number], np.flatnonzero(groups == number)
            outcomes = np.zeros((len(own), 1), dtype=np.int64)
            for bit, generator in enumerate(group.generators):
                columns = [places[qubit] for qubit in generator]
                outcomes = outcomes | (observed[own][..., columns].sum(axis=-1) & 1) << bit
            outcomes = outcomes * self.family.num_slot_outcomes + slot_outcomes[own]
            shape = group.num_outcomes, self.family.num_slot_outcomes
            offsets = prod(shape) * np.arange(len(own))[:, None]
            counts = np.bincount((outcomes + offsets).ravel(), minlength=len(own) * prod(shape))
            where = self.family.places[settings[own]]
            tables[number][rows[own, None], :, where] += counts.reshape(len(own), *shape).transpose(
                0, 2, 1
            )

    def _bits(self, data: Any, register: str, first: int, width: int) -> IntArray:
        """Measured bits of a register of `width`, flipped back, shape (circuits, shots, width).

        Shots are those of all copies. Among all measured bits, they begin at the `first`.
        """
        circuits = self.circuits.shape[1]
        if not width:
            return np.zeros((circuits, 1, 0), dtype=np.int64)
        found = getattr(data, register)
        packed = found.array.reshape(len(self.values), found.num_shots, -1)
        bits = np.unpackbits(packed[..., ::-1], axis=-1, bitorder="little")[..., :width]
        if self.flips.shape[1]:
            bits ^= self.flips[:, None, first : first + width]
        return bits.reshape(circuits, -1, width).astype(np.int64)


def bound(
    family: SettingFamily,
    template: Template,
    circuits: IntArray,
    angles: FloatArray,
    flips: BoolArray,
) -> Iterator[FamilyPub]:
    """Copies of circuits with flips of shape (circuits, copies, bits), without shots yet."""
    _, copies, bits = flips.shape
    step = circuits.shape[1] if template.circuit.num_parameters else 1
    for start in range(0, circuits.shape[1], step):
        places = slice(start, start + step)
        repeated = np.repeat(circuits[:, places], copies, axis=1)
        own = flips[places].reshape(repeated.shape[1], bits)
        values = template.bind(angles, repeated, own if bits else None)
        yield FamilyPub(family, template, circuits[:, places], values, own, 0)


def copies_of(shots: int, most: int) -> list[tuple[int, int]]:
    """Copies that share the shots of a circuit, and the shots of each; at most so many copies.

    As many shots as asked for: an even number of copies, so that each bit is flipped in half of
    them, have as many each, and what that leaves over are copies of one shot. Fewer shots than
    `most`: one each.

    Example:
        >>> copies_of(1000, 16), copies_of(1003, 16), copies_of(7, 16)
        ([(10, 100)], [(10, 100), (3, 1)], [(7, 1)])
    """
    if shots <= most:
        return [(shots, 1)]
    even = [n for n in range(most, 0, -1) if n % 2 == 0 and n + shots % n <= most] or [1]
    copies = next((n for n in even if 2 * n > most and shots % n == 0), even[0])
    left = shots % copies
    return [(copies, shots // copies), *([(left, 1)] if left else [])]


def balanced_flips(circuits: int, copies: int, bits: int, rng: np.random.Generator) -> BoolArray:
    """Which measured bits of the copies of circuits are flipped, shape (circuits, copies, bits).

    Each bit of each copy is flipped with probability 1/2, independently of other bits, but in half
    of the copies of a circuit: what bits that misread 0 and 1 differently add to the scatter of a
    circuit's mean cancels to first order, and its shots have the variance of independent ones.
    """
    halves = np.broadcast_to(np.arange(copies)[:, None] % 2, (circuits, copies, bits))
    starts = rng.integers(2, size=(circuits, 1, bits))
    return np.asarray((rng.permuted(halves, axis=1) + starts) % 2 == 1)


def pieces_of(shots: int, most: int | None) -> list[int]:
    """Shots divided as evenly as possible into as few parts of at most `most` as there can be."""
    count = 1 if most is None else -(-shots // most)
    return [shots // count + (place < shots % count) for place in range(count)]
