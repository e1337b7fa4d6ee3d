"""PUBs of families of settings: copies of their circuits, and counts of their outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from scipy.linalg import hadamard

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


def copies_of(shots: int, copies: int) -> list[tuple[int, int]]:
    """How many copies of a circuit take how many of its shots each; 0 copies: it runs as it is.

    All shots are taken: some copies may have one more than others, and none run without a shot.

    Example:
        >>> copies_of(1024, 16), copies_of(1003, 16), copies_of(7, 16)
        ([(16, 64)], [(11, 63), (5, 62)], [(7, 1)])
    """
    copies = max(1, copies)
    each, more = divmod(shots, copies)
    return [part for part in ((more, each + 1), (copies - more, each)) if all(part)]


def balanced_flips(circuits: int, copies: int, bits: int, rng: np.random.Generator) -> BoolArray:
    """Which measured bits of the copies of circuits are flipped, shape (circuits, copies, bits).

    Each copy's bits are flipped with probability 1/2, independently of each other. Together, copies
    are the rows of an orthogonal array in random order, with random columns, each of them inverted
    or not: columns of a Hadamard matrix. So each bit is flipped in half of the copies, and each two
    of up to copies - 1 bits are in a quarter of them; of up to copies / 2 bits, each three in an
    eighth. What bits that misread 0 and 1 differently add to the scatter of a mean cancels as far.

    Args:
        circuits: How many circuits.
        copies: Of each, a power of two.
        bits: That are measured. Of more than copies - 1, each so many have an array of their own.
        rng: Draws orders, columns and which are inverted.
    """
    signs, half = hadamard(copies, dtype=np.int8), copies // 2
    columns = np.arange(half if bits <= half else min(1, copies - 1), copies)
    flips = np.repeat(rng.integers(2, size=(circuits, 1, bits)) == 1, copies, axis=1)
    for start in range(0, bits, len(columns)):
        block = flips[:, :, start : start + len(columns)]
        rows, own = (
            rng.permuted(np.broadcast_to(numbers, (circuits, len(numbers))), axis=1)
            for numbers in (np.arange(copies), columns)
        )
        block ^= signs[rows[:, :, None], own[:, None, : block.shape[2]]] < 0
    return flips


def pieces_of(shots: int, most: int | None) -> list[int]:
    """Shots divided as evenly as possible into as few parts of at most `most` as there can be."""
    count = 1 if most is None else -(-shots // most)
    return [shots // count + (place < shots % count) for place in range(count)]
