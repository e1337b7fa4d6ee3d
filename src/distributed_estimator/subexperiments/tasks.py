"""Tasks as workers get them, their results, and the protocol of backends.

Bindings of an experiment are divided into tasks of bounded size, whose keys and seeds derive from
their place alone; a backend turns each into counts or values, which travel as plain arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol, TypeAlias, runtime_checkable
from uuid import uuid4

import numpy as np

from ..cutting import FloatArray, IntArray
from ..records import RecordWriter
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
        shots: Shots that this task asks for, broadcasting to (rows, measurement groups, settings);
            None for exact values.
        seed: Seed of everything random in the task, from the same hash.
        circuits: First and number of circuits, ordered as `family_parts` has them; None: all.
        chunk: Its number among tasks that share the shots of its circuits, and how many these are.
    """

    key: str
    experiment: int
    start: int
    angles: FloatArray
    shots: int | IntArray | None
    seed: int
    circuits: tuple[int, int] | None = None
    chunk: tuple[int, int] = (0, 1)

    def num_subexperiments(self, experiment: FragmentExperiment) -> int:
        """Circuits times bindings that it runs."""
        if isinstance(self.shots, np.ndarray):
            return int(np.count_nonzero(self.shots_of(experiment)))
        circuits = experiment.num_circuits if self.circuits is None else self.circuits[1]
        return len(self.angles) * circuits

    def shots_of(self, experiment: FragmentExperiment) -> IntArray:
        """Shots of every circuit, shape (rows, measurement groups, settings); 0: not run here."""
        runs = experiment.runs_of(self.circuits)
        shots = 0 if self.shots is None else self.shots
        return np.where(runs, np.broadcast_to(shots, (len(self.angles), *runs.shape)), 0)


@dataclass(frozen=True, eq=False)
class FragmentResult:
    """What a task found of its fragment.

    Attributes:
        values: The exact fragment tensor in slot coordinates, shape (rows, paulis, product of
            ranks); None where it is sampled.
        counts: Per measurement group, its shots by outcome, shape (rows, products, slot outcomes of
            all settings), each signed by the eigenvalue of the product of Paulis. Those of the
            same fragment add up. Empty for exact values.
        draws: Evidence of the random numbers drawn, shape (any,); None: they are independent.
    """

    values: FloatArray | None
    counts: tuple[FloatArray, ...] = ()
    draws: FloatArray | None = None


def make_tasks(
    number: int,
    experiment: FragmentExperiment,
    angles: FloatArray,
    shots: int | IntArray | None,
    run: str,
    *,
    rows_per_task: int,
    circuits_per_task: int | None,
    chunks: int,
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
        shots: Shots per subexperiment, broadcasting to (rows, measurement groups, settings); None
            for exact values. A task that has none to take is left out.
        run: Names the run and stage; keys and seeds derive from it.
        rows_per_task: Rows a task holds at most.
        circuits_per_task: Subexperiments a task holds at most; None: a row is never divided.
        chunks: Tasks that share the shots of the same circuits, as evenly as possible; fewer of
            those circuits that would be left with a single shot.
    """
    parts: list[tuple[int, int] | None] = [None]
    sizes: list[int | IntArray | None] = [shots]
    if shots is not None:
        sizes = _shared(shots, max(1, min(chunks, int(np.max(shots, initial=0)) // _FEWEST_SHOTS)))
        if circuits_per_task is not None:
            last = experiment.num_circuits
            rows_per_task = min(rows_per_task, max(1, circuits_per_task // max(1, last)))
            if last > circuits_per_task:
                starts = range(0, last, circuits_per_task)
                parts = [(first, min(circuits_per_task, last - first)) for first in starts]
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
                if isinstance(size, np.ndarray) and size.ndim == 3 and len(size) > 1:
                    size = size[start : start + rows_per_task]
                task = Task(key, number, start, rows, size, seed, circuits, chunk)
                if size is None or task.num_subexperiments(experiment):
                    yield task


def _shared(shots: int | IntArray, chunks: int) -> list[int | IntArray | None]:
    """Shots of each chunk, which are several of a circuit or none, if it has several at all."""
    each = np.clip(np.asarray(shots) // _FEWEST_SHOTS, 1, chunks)
    sizes = [
        np.where(place < each, shots // each + (place < shots % each), 0) for place in range(chunks)
    ]
    return [int(size) if isinstance(shots, int) else size for size in sizes]


class JobBook(Protocol):
    """Remembers the jobs that were sent to a service, so that none is paid for twice.

    A task is named by all that determines its result; see `kept_as`.
    """

    def intend(self, name: str) -> None:
        """Note that a job for a task is about to be sent; it is on the disk on return."""

    def sent(self, name: str, jobs: Sequence[str], device: str) -> None:
        """Note the ids of the jobs that a task was sent as."""

    def ended(self, name: str, cause: str) -> None:
        """Note that a task's jobs ended without a result, so that others may be sent."""

    def jobs(self, name: str) -> tuple[str, ...] | None:
        """Ids of a task's jobs that have not ended so; empty: intended; None: never sent."""


def kept_as(origin: str, content: str, task: Task) -> str:
    """The name of a task's result among all there ever are."""
    return f"{origin} {content} {task.key}"


def content_of(experiment: FragmentExperiment, task: Task) -> str:
    """Everything but backend and seed that determines the result: experiment, angles, shots."""
    angles = hashlib.sha256(task.angles.tobytes()).hexdigest()[:32]
    shots: object = task.shots
    if isinstance(shots, np.ndarray):
        shots = f"{shots.shape} {hashlib.sha256(shots.tobytes()).hexdigest()[:32]}"
    return f"counts of {experiment.key} {angles} {shots}"


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

    def row_bytes(
        self, experiment: FragmentExperiment, angles: FloatArray, shots: int | None
    ) -> int:
        """Memory a worker needs at its peak per binding of a task, in bytes.

        Args:
            experiment: What is run.
            angles: Those of all bindings, shape (rows, angles of the fragment).
            shots: As in `Task`, the mean of all circuits.
        """

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """A rough guess of how long a task takes, by which short tasks are bundled."""

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        """Evaluate the task's circuits at its rows, as if no other circuit had any outcome.

        A backend may take another number of shots than it was asked to. A fragment's sure circuits
        (`FragmentExperiment.all_runs`) count as none.
        """


@runtime_checkable
class ServiceBackend(Protocol):
    """A backend whose jobs may go to a service, which keeps them for whoever asks again.

    To look whether an object is one reads its properties, of which none asks the service.
    """

    @property
    def has_service(self) -> bool:
        """Whether jobs go to a service: its connection travels to no other process."""

    def with_jobs(self, book: JobBook | None, log: RecordWriter | None) -> Backend:
        """The same backend, with jobs in a book of the caller's.

        Args:
            book: Remembers the jobs; None: they are remembered as long as the backend lives.
            log: Gets a `DeviceRecord` for every job.
        """

    def close(self) -> None:
        """Close what it has opened at the service; it opens it again when it needs to."""


@runtime_checkable
class PlacingBackend(Protocol):
    """A backend that runs the fragments of a plan in different places."""

    @property
    def names(self) -> Sequence[str]:
        """Of its devices, by their places."""

    def placed(self, experiments: Sequence[FragmentExperiment]) -> Backend:
        """The same backend, which knows where each fragment of a plan runs."""

    def device_of(self, experiment: FragmentExperiment, task: Task | None = None) -> str:
        """The name of the device of a fragment, or of the one that ran a task of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Name (in the plural) and shape of an array of a result."""

    name: str
    shape: tuple[int, ...]


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
        if not np.isfinite(array).all():
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
        """Values of one task, or its counts by measurement group, with draws if there are any."""
        result = self.backend.run(self.experiments[task.experiment], task)
        if result.values is not None:
            return (result.values,)
        return result.counts if result.draws is None else (*result.counts, result.draws)

    def content(self, task: Task) -> str:
        """See `content_of`."""
        return content_of(self.experiments[task.experiment], task)

    def result_of(self, task: Task, arrays: Arrays) -> FragmentResult:
        """The result that `run` made arrays of."""
        if task.shots is None:
            return FragmentResult(arrays[0])
        groups = len(self.experiments[task.experiment].groups)
        draws = arrays[groups] if len(arrays) > groups else None
        return FragmentResult(None, arrays[:groups], draws)

    def check(self, task: Task, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""
        wrong = check_arrays(arrays, self._expected(task, arrays))
        if wrong is None and task.shots is not None:
            experiment = self.experiments[task.experiment]
            wanted = task.shots_of(experiment) > 0
            for number in range(len(experiment.groups)):
                counts, name = np.asarray(arrays[number]), f"measurement group {number}"
                if (counts != np.rint(counts)).any() or (np.abs(counts) > counts[:, :1]).any():
                    return f"the counts of {name} are not whole numbers, or larger than the shots"
                taken = experiment.layout.by_setting(counts[:, 0]) > 0
                if (taken != wanted[:, number]).any():
                    return f"other circuits of {name} have shots than were to run"
        return wrong

    def _expected(self, task: Task, arrays: Sequence[object]) -> Iterator[Expected]:
        experiment, rows = self.experiments[task.experiment], len(task.angles)
        if task.shots is None:
            size = prod(experiment.fragment.shape)
            yield Expected("values", (rows, len(experiment.paulis), size))
            return
        for number, group in enumerate(experiment.groups):
            shape = rows, len(group.products), experiment.layout.num_outcomes
            yield Expected(f"counts of measurement group {number}", shape)
        if len(arrays) > len(experiment.groups) and np.ndim(last := np.asarray(arrays[-1])) == 1:
            yield Expected("draws", last.shape)
