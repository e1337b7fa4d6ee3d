"""What goes into the dispatcher, and what comes out. Times are seconds on any clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FailureKind: TypeAlias = Literal["error", "lost", "damaged", "strained", "throttled", "fatal"]
"""error: it raised. lost: its worker died or hung. damaged: its result is not what a result looks
like. strained: its worker lacked files, memory or the like. throttled: the device asks to come
again later. fatal: it cannot succeed, nor can others."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt at a task that failed.

    Attributes:
        task: The task's number.
        kind: What kind of failure.
        cause: One clause for people.
        retry_after: Seconds that a throttled task should wait at least.
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
class JobEnded:
    """A job is over, and its place is free.

    Attributes:
        job: The job.
        at: When.
        finished: (task, seconds it took) of tasks with a sound result.
        failures: Tasks that failed. The job's other tasks were not begun.
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


Event: TypeAlias = JobStarted | JobEnded | JobLost | Tick


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand a job to the pool.

    Attributes:
        job: Its number.
        tasks: Its tasks, in order.
        attempts: For each task, how often it was submitted before.
        purpose: Why.
    """

    job: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]
    purpose: Literal["first", "retry", "duplicate", "restart"]


@dataclass(frozen=True, slots=True)
class Accept:
    """Fold these results of a job in; those of its other tasks are late duplicates or failures."""

    job: int
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for a job any more."""

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
