"""Exact derivatives of a fragment's part in a result, where a backend can go back through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from uuid import uuid4

from ..cutting import FloatArray
from .experiments import FragmentExperiment
from .tasks import Arrays, Backend, Expected, check_arrays

COPIES = 4
"""Rows that take as long as the derivatives of one product: forth once, back with two states, and
as much again for what these say together."""


@runtime_checkable
class AdjointBackend(Backend, Protocol):
    """A backend that also differentiates, whatever the number of angles, in a few passes."""

    def differentiates(self, experiment: FragmentExperiment, angles: FloatArray) -> bool:
        """Whether it does so with this fragment at rows of angles."""

    def row_seconds(self, experiment: FragmentExperiment) -> float:
        """About how long the exact tensor of a row takes."""

    def gradient(
        self, experiment: FragmentExperiment, angles: FloatArray, vector: FloatArray
    ) -> FloatArray:
        """Derivatives of the product of the exact fragment tensor with a vector.

        Args:
            experiment: The fragment.
            angles: Local angles of one row, shape (angles,).
            vector: Shape (paulis, product of ranks).

        Returns:
            By every local angle, shape (angles,).
        """


def adjoint_pays(
    backend: Backend,
    experiment: FragmentExperiment,
    angles: FloatArray,
    shifted_rows: int,
    products: int,
) -> bool:
    """Whether derivatives of so many products take less work than so many rows with shifts.

    The rows without shifts are `angles`.
    """
    return (
        COPIES * products < shifted_rows
        and isinstance(backend, AdjointBackend)
        and backend.differentiates(experiment, angles)
    )


@dataclass(frozen=True, eq=False)
class AdjointTask:
    """The derivatives of one product: of a row of an experiment, with a vector.

    The arrays are those of `AdjointBackend.gradient`; `row` and `experiment` are numbers.
    """

    experiment: int
    row: int
    angles: FloatArray
    vector: FloatArray


@dataclass(frozen=True, eq=False)
class AdjointWork:
    """Runs such tasks; its `key` names it among all works."""

    backend: AdjointBackend
    experiments: tuple[FragmentExperiment, ...]
    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task: AdjointTask) -> Arrays:
        """The derivatives, one array."""
        experiment = self.experiments[task.experiment]
        return (self.backend.gradient(experiment, task.angles, task.vector),)

    def check(self, task: AdjointTask, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""
        return check_arrays(arrays, [Expected("derivatives", task.angles.shape)])

    def describe(self, task: AdjointTask) -> str:
        """A task for people."""
        return f"derivatives of fragment {task.experiment}, binding {task.row}"

    def seconds(self, task: AdjointTask) -> float:
        """About how long it takes."""
        return COPIES * self.backend.row_seconds(self.experiments[task.experiment])
