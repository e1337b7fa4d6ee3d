"""The shifted bindings that a fragment's part of a gradient needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cutting import Fragment, GateStep
from ..cutting.angles import AngleTable
from ..cutting.gates import ShiftRule

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ShiftedAngle:
    """One gate angle to differentiate by: local column, column of the plan, and its rule."""

    local: int
    column: int
    rule: ShiftRule


@dataclass(frozen=True, eq=False)
class Shifts:
    """All angles of a fragment that depend on the parameters wanted."""

    angles: tuple[ShiftedAngle, ...]

    @staticmethod
    def of(fragment: Fragment, table: AngleTable, parameters: Collection[int]) -> Shifts:
        """Angles of a fragment's gates that are functions of any of `parameters`."""
        wanted = frozenset(parameters)
        return Shifts(
            tuple(
                ShiftedAngle(local, fragment.angles[local], step.kernel.shift_rules[index])
                for step in fragment.steps
                if isinstance(step, GateStep)
                for index, local in enumerate(step.angles)
                if wanted & table.depends_on(fragment.angles[local])
            )
        )

    @property
    def columns(self) -> list[int]:
        """Columns of the plan's angle table, in the order of `derivatives`."""
        return [angle.column for angle in self.angles]

    def rows(self, base: FloatArray) -> FloatArray:
        """Base rows, then all of them shifted once per term of each angle's rule."""
        blocks = [base]
        for angle in self.angles:
            for shift in angle.rule.shifts:
                block = base.copy()
                block[:, angle.local] += shift
                blocks.append(block)
        return np.concatenate(blocks)

    def derivatives(self, values: FloatArray) -> FloatArray:
        """Derivatives of a fragment tensor from its values at `rows`.

        Args:
            values: Shape (rows, …), base rows first.

        Returns:
            Shape (angles, base rows, …).
        """
        terms = sum(len(angle.rule.shifts) for angle in self.angles)
        blocks = values.reshape(1 + terms, -1, *values.shape[1:])[1:]
        result = np.zeros((len(self.angles), *blocks.shape[1:]))
        place = 0
        for number, angle in enumerate(self.angles):
            for weight in angle.rule.weights:
                result[number] += weight * blocks[place]
                place += 1
        return result
