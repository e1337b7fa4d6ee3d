"""Tasks as workers get them, their results, and the protocol of backends.

Bindings of an experiment are divided into tasks of bounded size, whose keys and seeds derive from
their place alone; a backend turns each into an estimate, which travels as plain arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol, TypeAlias
from uuid import uuid4

import numpy as np

from ..cutting import FloatArray
from .experiments import FragmentExperiment

Arrays: TypeAlias = tuple[FloatArray, ...]
"""The result of a task as it travels."""

_FEWEST_SHOTS = 2
"""Shots a chunk has at least, where there are as many: one shot says nothing of its spread."""


@dataclass(frozen=True, eq=False)
class Task:
    """Subexperiments handed to a worker together: circuits of some bindings of a fragment.

    Attributes:
        key: Hash of its place: run, experiment, first row, circuits and chunk.
        experiment: Number of the experiment among those of the run.
        start: Number of the first row among the experiment's rows.
        angles: Local angles in radians, shape (rows, angles of the fragment).
        shots: Shots per circuit and row that this task asks for; None for exact values.
        seed: Seed of everything random in the task, from the same hash.
        covariances: Whether the covariances of sampled values are wanted, too.
        circuits: First and number of circuits, ordered as `family_parts` has them; None: all.
        chunk: Its number among tasks that share the shots of its circuits, and how many these are.
    """

    key: str
    experiment: int
    start: int
    angles: FloatArray
    shots: int | None
    seed: int
    covariances: bool
    circuits: tuple[int, int] | None = None
    chunk: tuple[int, int] = (0, 1)

    @property
    def undivided(self) -> bool:
        """Whether it holds all there is of its rows."""
        return self.circuits is None and self.chunk == (0, 1)

    def num_subexperiments(self, experiment: FragmentExperiment) -> int:
        """Circuits times bindings that it runs."""
        circuits = experiment.num_circuits if self.circuits is None else self.circuits[1]
        return len(self.angles) * circuits


@dataclass(frozen=True, eq=False)
class FragmentEstimate:
    """A task's estimate of a fragment tensor; estimates by different circuits add up.

    Attributes:
        values: Shape (rows, paulis, product of slot ranks), in slot coordinates.
        covariances: One array per measurement group, shape (rows, paulis of the group
            squared, product of squared slot ranks); empty where they are not wanted.
        shots: Shots per circuit and row that it is made of, which a backend may choose otherwise
            than it was asked to; None for exact values.
        draws: Evidence of the random numbers drawn, shape (any,); None: they are independent.
    """

    values: FloatArray
    covariances: tuple[FloatArray, ...]
    shots: int | None
    draws: FloatArray | None = None

    @classmethod
    def of_frequencies(
        cls, experiment: FragmentExperiment, task: Task, tables: Sequence[FloatArray], shots: int
    ) -> FragmentEstimate:
        """Reduce tables of relative frequencies of `shots` shots, one per measurement group.

        The contribution of a setting depends on the outcomes of that setting alone, and is zero
        where these are: estimates from parts of a table add up to the one from all of it.
        """
        layout, size = experiment.layout, prod(experiment.fragment.shape)
        values = np.empty((len(task.angles), len(experiment.paulis), size))
        covariances = []
        for group, table in zip(experiment.groups, tables, strict=True):
            values[:, list(group.paulis)] = layout.means(table, group)
            if task.covariances:
                covariances.append(layout.covariances(table, shots, group))
        return FragmentEstimate(values, tuple(covariances), shots)


def make_tasks(
    number: int,
    experiment: FragmentExperiment,
    angles: FloatArray,
    shots: int | None,
    run: str,
    *,
    rows_per_task: int,
    circuits_per_task: int | None,
    chunks: int,
    covariances: bool,
) -> Iterator[Task]:
    """Divide the experiment numbered `number` into tasks with their own keys and seeds.

    Both derive from names and positions alone, as computed numbers are rounded differently on
    another processor. They depend on how an experiment is divided, so that may depend on neither
    the pool nor the time. Exact values come from a binding as a whole: such tasks are divided by
    rows alone.

    Args:
        number: The experiment's place in the run.
        experiment: What is run.
        angles: Local angles, shape (rows, angles of the fragment).
        shots: Shots per subexperiment, None for exact.
        run: Names the run and stage; keys and seeds derive from it.
        rows_per_task: Rows a task holds at most.
        circuits_per_task: Subexperiments a task holds at most; None: a row is never divided.
        chunks: Tasks that share the shots of the same circuits, as evenly as possible; fewer
            where one would be left with a single shot.
        covariances: Whether the covariances of sampled values are wanted.
    """
    parts: list[tuple[int, int] | None] = [None]
    sizes: list[int | None] = [shots]
    if shots is not None:
        count = max(1, min(chunks, shots // _FEWEST_SHOTS))
        sizes = [shots // count + (place < shots % count) for place in range(count)]
        if circuits_per_task is not None:
            last = experiment.num_circuits
            rows_per_task = min(rows_per_task, max(1, circuits_per_task // max(1, last)))
            if last > circuits_per_task:
                starts = range(0, last, circuits_per_task)
                parts = [(first, min(circuits_per_task, last - first)) for first in starts]
    wanted = covariances and shots is not None
    for start in range(0, len(angles), rows_per_task):
        rows = np.ascontiguousarray(angles[start : start + rows_per_task])
        for circuits in parts:
            for place, size in enumerate(sizes):
                chunk = place, len(sizes)
                name = f"{run} {number} {start}"
                if circuits is not None:
                    name += f" circuits {circuits[0]} {circuits[1]}"
                if len(sizes) > 1:
                    name += f" chunk {place} {len(sizes)}"
                digest = hashlib.sha256(name.encode()).hexdigest()
                key, seed = digest[:32], int(digest[32:], 16)
                yield Task(key, number, start, rows, size, seed, wanted, circuits, chunk)


class Backend(Protocol):
    """Evaluates the subexperiments of a task.

    A backend holds no state that changes from task to task: tasks run in any order, on any
    number of workers.
    """

    @property
    def name(self) -> str:
        """For records."""

    @property
    def identity(self) -> str:
        """Differs between backends that give different results for the same tasks."""

    @property
    def exact(self) -> bool:
        """Whether it can give exact values (shots None)."""

    @property
    def max_qubits(self) -> int | None:
        """Qubits of the widest fragment it takes; None: as wide as memory allows."""

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """Bindings of an experiment that make a task; a function of the experiment alone."""

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """Subexperiments that make a task at most, a function of the experiment alone.

        None: all of them, as nothing is gained by dividing them.
        """

    def row_bytes(self, experiment: FragmentExperiment, shots: int | None) -> int:
        """Memory a worker needs at its peak per binding of a task, in bytes."""

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """A rough guess of how long a task takes, by which short tasks are bundled."""

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentEstimate:
        """Evaluate the task's circuits at its rows, as if no other circuit had any outcome."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Name (in the plural) and shape of an array of a result, and whether NaN is not allowed."""

    name: str
    shape: tuple[int, ...]
    known: bool = True


def check_arrays(arrays: Sequence[object], expected: Iterable[Expected]) -> str | None:
    """Why arrays do not match, in one clause; None where they do."""
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
    """Evaluates tasks of experiments, which they name by number; results travel as plain arrays.

    Its `key` names it among all works there ever are; copies share it.
    """

    backend: Backend
    experiments: tuple[FragmentExperiment, ...]
    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task: Task) -> Arrays:
        """Values of one task.

        Where these are sampled, then the shots they are made of, covariances by measurement group,
        and the draws where the backend gives any.
        """
        estimate = self.backend.run(self.experiments[task.experiment], task)
        if estimate.shots is None:
            return (estimate.values,)
        shots = np.array([float(estimate.shots)])
        draws = () if estimate.draws is None else (estimate.draws,)
        return estimate.values, shots, *estimate.covariances, *draws

    def content(self, task: Task) -> str:
        """Everything but backend and seed that determines the result: experiment, angles, shots."""
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
