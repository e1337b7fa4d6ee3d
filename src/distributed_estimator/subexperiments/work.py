"""A run's experiments and what evaluates them, as workers receive them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from .backend import Backend
from .experiments import FragmentExperiment
from .tasks import FragmentEstimate, Task

Arrays: TypeAlias = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, eq=False)
class FragmentWork:
    """Evaluates tasks, whose results travel as plain arrays.

    Attributes:
        backend: Evaluates subexperiments.
        experiments: Those that tasks refer to by number.
        key: Names it among all works there ever are; copies share it.
    """

    backend: Backend
    experiments: tuple[FragmentExperiment, ...]
    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task: Task) -> Arrays:
        """Evaluate one task: its values, then its covariances by measurement group."""
        estimate = self.backend.run(self.experiments[task.experiment], task)
        return estimate.values, *estimate.covariances

    @staticmethod
    def estimate_of(arrays: Arrays) -> FragmentEstimate:
        """The estimate that `run` made arrays of."""
        values, *covariances = arrays
        return FragmentEstimate(values, tuple(covariances))

    def check(self, task: Task, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""
        shapes = list(self._shapes(task))
        if len(arrays) != len(shapes):
            return f"{len(arrays)} arrays came back instead of {len(shapes)}"
        for number, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
            name = "values" if number == 0 else f"covariances of measurement group {number - 1}"
            if not isinstance(array, np.ndarray) or array.dtype != np.float64:
                kind = getattr(array, "dtype", type(array).__name__)
                return f"the {name} are {kind} instead of float64"
            if array.shape != shape:
                return f"the {name} have shape {array.shape} instead of {shape}"
            # One shot says nothing of its spread.
            unknown = number > 0 and task.shots == 1
            if not (~np.isinf(array) if unknown else np.isfinite(array)).all():
                return f"the {name} are not all finite"
        return None

    def _shapes(self, task: Task) -> Iterator[tuple[int, ...]]:
        experiment, rows = self.experiments[task.experiment], len(task.angles)
        size = prod(experiment.fragment.shape)
        yield rows, len(experiment.paulis), size
        if task.covariances:
            for group in experiment.groups:
                yield rows, len(group.paulis) ** 2, size**2
