"""What a driver, its pool and the workers say to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import BackendError
from ..subexperiments import Arrays as Arrays


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


@dataclass(frozen=True, slots=True)
class SlowWorker:
    """A worker that takes longer: injected, for experiments.

    Attributes:
        worker: Its number among the pool's, from 0.
        delay: Seconds it sleeps before every task.
    """

    worker: int
    delay: float


@dataclass(frozen=True, slots=True)
class Item:
    """A task on its way to a worker.

    Attributes:
        number: Its number in the run.
        task: What `Work.run` takes.
        delay: Seconds to sleep first: an injected straggler.
    """

    number: int
    task: Any
    delay: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A job for one worker: some tasks, one after the other.

    Attributes:
        number: Its number in the run; an order is identified by itself, not by this.
        work: What its tasks are of.
        items: The tasks.
        slow: The worker that takes longer, if any.
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
    """A worker begins with a job. Pools that cannot know say so when they hand it on."""

    order: Order
    worker: str


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A worker is through with a job; tasks without an outcome were cancelled before they began."""

    order: Order
    worker: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """A job ended without a report.

    Attributes:
        order: The job.
        kind: "lost": its worker died, was given up, or its report never arrived. "cancelled": it
            was withdrawn before a worker began. "refused": the pool cannot run it, nor any other.
        cause: One clause for people, such as "worker 3 was ended by signal 9".
    """

    order: Order
    kind: Literal["lost", "cancelled", "refused"]
    cause: str


Message: TypeAlias = Started | Ended | Lost
Tell: TypeAlias = Callable[[Message], None]
"""Takes messages, from any thread, without blocking."""
