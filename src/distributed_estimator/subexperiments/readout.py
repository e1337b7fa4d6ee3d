"""What errors of readout make of a fragment's outcomes, and how they are taken out.

Each measured bit is flipped with one probability, whatever it was. A Pauli's mean is then smaller
by a factor for every qubit of its support, and outcomes of a measured slot mix with each other: a
matrix Λ, with one block for every setting and Pauli, whose inverse is as simple. Counts stay as
they are; the weights of outcomes undo Λ. docs/mathematics.md derives it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..cutting import FloatArray, IntArray
from .experiments import FragmentExperiment
from .mitigation import Readout


class Unfolding:
    """The errors of readout of one measurement group of a fragment, which is one of Paulis.

    Tables have the shape (any, paulis, …, slot outcomes of all settings).
    """

    def __init__(self, experiment: FragmentExperiment, number: int, readout: Readout) -> None:
        self._layout, self._readout = experiment.layout, readout
        self._paulis = [experiment.paulis[place] for place in experiment.groups[number].paulis]
        self._flips = np.append(readout.flips, 0.0)  # what is not measured has the place -1
        kept = 1 - 2 * self._flips[readout.observed]
        factors = [kept[:, [qubit for qubit, _ in own]].prod(axis=1) for own in self._paulis]
        self.scale = np.array(factors)[:, self._layout.setting_of]
        """What is left of every Pauli at every outcome, shape (paulis, slot outcomes)."""

    @cached_property
    def _mixing(self) -> list[tuple[IntArray, FloatArray]]:
        """Of every slot, the outcome that differs there alone, and how likely one is the other."""
        found = []
        for slot in range(len(self._layout.bases)):
            others = np.arange(self._layout.num_outcomes)
            for family in self._layout.families:
                if family.measured[slot]:
                    shape = family.num_settings, *[2] * sum(family.measured)
                    places = family.places.reshape(shape)
                    others[places] = np.flip(places, 1 + sum(family.measured[:slot]))
            flips = self._flips[self._readout.slots[:, slot]]
            found.append((others, flips[self._layout.setting_of]))
        return found

    def fold(self, table: FloatArray) -> FloatArray:
        """Λ times true means."""
        for others, flips in self._mixing:
            table = table + flips * (table[..., others] - table)
        return table * self._scale_of(table)

    def unfold(self, table: FloatArray) -> FloatArray:
        """Λ⁻¹ times observed means; or, as Λ is symmetric, weights of observed ones from true."""
        return self.sorted_out(table) / self._scale_of(table)

    def sorted_out(self, table: FloatArray) -> FloatArray:
        """With the slots' outcomes unmixed, alone; tables have any shape (…, slot outcomes)."""
        for others, flips in self._mixing:
            table = table - flips / (1 - 2 * flips) * (table[..., others] - table)
        return table

    def _scale_of(self, table: FloatArray) -> FloatArray:
        return self.scale.reshape(len(self.scale), *[1] * (table.ndim - 3), -1)

    def moved(self, weights: FloatArray, means: FloatArray) -> FloatArray:
        """How far estimates move with a standard error of each qubit's flips.

        Args:
            weights: Of observed means, that make the estimates, (entries, paulis, slot outcomes).
            means: What was observed, of the same shape.

        Returns:
            Shape (entries, physical qubits).
        """
        layout, readout = self._layout, self._readout
        total = np.zeros((len(self._flips), len(weights)))
        seen = layout.by_setting(weights * means)
        for place, pauli in enumerate(self._paulis):
            for qubit, _ in pauli:
                np.add.at(total, readout.observed[:, qubit], 2 * seen[:, place].T)
        for slot, (others, _) in enumerate(self._mixing):
            mixed = layout.by_setting((weights * (means - means[..., others])).sum(axis=1))
            np.add.at(total, readout.slots[:, slot], mixed.T)
        return np.asarray(total[:-1].T * (readout.stderrs / (1 - 2 * readout.flips)))
