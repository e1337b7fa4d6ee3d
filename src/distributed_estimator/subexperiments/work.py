"""A run's experiments and what evaluates them, as workers receive them; and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
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
"""The result of a task as it travels."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an array of a result must be like.

    Attributes:
        name: For people, in the plural.
        shape: Its shape.
        known: Whether its entries must be numbers.
    """

    name: str
    shape: tuple[int, ...]
    known: bool = True


def check_arrays(arrays: Sequence[object], expected: Iterable[Expected]) -> str | None:
    """Why arrays cannot be what is expected, in one clause; None where they can."""
    wanted = list(expected)
    if len(arrays) != len(wanted):
        return f"{len(arrays)} arrays came back instead of {len(wanted)}"
    for array, own in zip(arrays, wanted, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            kind = getattr(array, "dtype", type(array).__name__)
            return f"the {own.name} are {kind} instead of float64"
        if array.shape != own.shape:
            return f"the {own.name} have shape {array.shape} instead of {own.shape}"
        if not (np.isfinite(array) if own.known else ~np.isinf(array)).all():
            return f"the {own.name} are not all finite"
    return None


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
        """Evaluate one task.

        Returns:
            Its values. Where these are sampled, then the shots they are made of, covariances by
            measurement group, and the draws where the backend gives any.
        """
        estimate = self.backend.run(self.experiments[task.experiment], task)
        if estimate.shots is None:
            return (estimate.values,)
        shots = np.array([float(estimate.shots)])
        draws = () if estimate.draws is None else (estimate.draws,)
        return estimate.values, shots, *estimate.covariances, *draws

    def content(self, task: Task) -> str:
        """What the result depends on besides backend and seed: experiment, angles and shots."""
        angles = hashlib.sha256(task.angles.tobytes()).hexdigest()[:32]
        return f"{self.experiments[task.experiment].key} {angles} {task.shots}"

    @staticmethod
    def estimate_of(arrays: Arrays) -> FragmentEstimate:
        """The estimate that `run` made arrays of."""
        values, *sampled = arrays
        if not sampled:
            return FragmentEstimate(values, (), None)
        shots, *covariances = sampled
        draws = covariances.pop() if covariances and covariances[-1].ndim == 1 else None
        return FragmentEstimate(values, tuple(covariances), int(shots[0]), draws)

    def check(self, task: Task, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""
        wrong = check_arrays(arrays, self._expected(task, arrays))
        if wrong is None and task.shots is not None:
            (shots,) = np.asarray(arrays[1])
            if shots < 1 or shots != round(shots):
                return f"the shots are {shots:g} instead of a whole number"
        return wrong

    def _expected(self, task: Task, arrays: Sequence[object]) -> Iterator[Expected]:
        experiment, rows = self.experiments[task.experiment], len(task.angles)
        size = prod(experiment.fragment.shape)
        yield Expected("values", (rows, len(experiment.paulis), size))
        if task.shots is None:
            return
        yield Expected("shots", (1,))
        # One shot says nothing of its spread.
        known = not (len(arrays) > 1 and np.array_equal(np.asarray(arrays[1]), [1.0]))
        for number, group in enumerate(experiment.groups if task.covariances else ()):
            shape = rows, len(group.paulis) ** 2, size**2
            yield Expected(f"covariances of measurement group {number}", shape, known)
        if len(arrays) > 2 and np.ndim(last := np.asarray(arrays[-1])) == 1:
            yield Expected("draws", last.shape)
