"""The words of execution: tasks, jobs, and the messages between dispatcher, driver and pool.

A *task* is computed, a *job* is what a worker gets: some tasks, one after the other. A job is
submitted, and then started at most once, and finished or lost exactly once. A pool reports that
about `Job` objects; the dispatcher, which is pure, gets the same as events about their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import BackendError
from ..subexperiments import Arrays as Arrays

Purpose: TypeAlias = Literal["first", "retry", "duplicate", "restart"]
"""Why a job is submitted."""

FailureKind: TypeAlias = Literal["error", "lost", "damaged", "strained", "throttled", "fatal"]
"""error: it raised. lost: its worker died or hung. damaged: its result is not what a result looks
like. strained: its worker lacked files, memory or the like. throttled: the device asks to come
again later. fatal: it cannot succeed, nor can others."""


class RaisedError(BackendError):
    """What a task raised, in plain text: unpickling errors of the caller's could do anything."""


class StrainedError(RaisedError):
    """The same where a worker lacks files, memory or the like: another may do better."""


class Work(Protocol):
    """What the tasks of a run have in common. It travels to a worker once; tasks follow alone."""

    @property
    def key(self) -> str:
        """Names it among all that a worker may ever be sent."""
        ...

    def run(self, task: Any) -> Arrays:
        """Evaluate one task. Called by several threads at once where workers are threads."""
        ...


# --- between driver, pool and worker --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlowWorker:
    """An injected slow worker: its number among the pool's, and seconds it sleeps before a task."""

    worker: int
    delay: float


@dataclass(frozen=True, slots=True)
class Item:
    """A task of a run by its number, what `Work.run` takes, and seconds to sleep first."""

    number: int
    task: Any
    delay: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Some tasks of a work for one worker, one after the other.

    `number` is its number in the run; a job is identified by itself, not by this.
    """

    number: int
    work: Work
    items: tuple[Item, ...]
    slow: SlowWorker | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one task.

    Attributes:
        number: The task.
        started: When, in seconds after the worker began its job.
        seconds: How long it took, injected delay included.
        injected: Seconds of that it was made to sleep.
        arrays: Its result; None where it raised.
        checksum: CRC-32 of the result as the worker had it; None within one process.
        error: What it raised; from another process, an error of this package's own in its place.
    """

    number: int
    started: float
    seconds: float
    injected: float
    arrays: Arrays | None
    checksum: int | None
    error: Exception | None


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    """A worker begins with a job. Pools that cannot know report it when they hand the job on."""

    job: Job
    worker: str


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A worker is through with a job; tasks without an outcome were cancelled before they began."""

    job: Job
    worker: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """A job ended without a report.

    Attributes:
        job: The job.
        kind: "lost": its worker died, was given up, or its report never arrived. "cancelled": it
            was withdrawn before a worker began. "refused": the pool cannot run it, nor any other.
        cause: One clause for people, such as "worker 3 was ended by signal 9".
    """

    job: Job
    kind: Literal["lost", "cancelled", "refused"]
    cause: str


Message: TypeAlias = Started | Finished | Lost
Notify: TypeAlias = Callable[[Message], None]
"""Takes messages, from any thread, without blocking."""


# --- events for the dispatcher: times are seconds on any clock ------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt at a task that failed, for a cause that people read.

    A throttled task should wait at least `retry_after` seconds.
    """

    task: int
    kind: FailureKind
    cause: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A worker has begun with a job."""

    job: int
    at: float


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job is over, and its place is free.

    `finished` has (task, seconds it took) of tasks with a sound result, `failures` those that
    failed. The job's other tasks were not begun.
    """

    job: int
    at: float
    finished: tuple[tuple[int, float], ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class JobLost:
    """A job ended without a report: all of its tasks count as failed, or none where withdrawn."""

    job: int
    at: float
    kind: Literal["lost", "cancelled", "fatal"]
    cause: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    at: float


Event: TypeAlias = JobStarted | JobFinished | JobLost | Tick


# --- instructions of the dispatcher ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand a job to the pool; `attempts`: how often each task was submitted before."""

    job: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Accept:
    """Fold these results of the job that just ended; its other tasks failed or came too late."""

    job: int
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A job's results are no longer needed."""

    job: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """A job has not ended for too long: free its place by force; a `JobLost` is to follow."""

    job: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A task will not be tried again; `failures` says why, and is empty at a deadline."""

    task: int
    failures: tuple[Failure, ...]


Instruction: TypeAlias = Submit | Accept | Cancel | Abandon | GiveUp
