"""A run's tasks, the conditions they run under, and the tally that comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import RunCancelledError
from ..records.schema import TaskStatus
from .journal import Journal
from .messages import Arrays, Work
from .policies import Fifo, Policy, TaskSpec
from .stragglers import Stragglers


@dataclass(frozen=True, eq=False)
class Assignment:
    """The tasks of a run.

    Attributes:
        work: What the tasks have in common.
        tasks: Arguments of `work.run`, one each.
        specs: What a policy may know of each.
        check: Why arrays cannot be the result of a task; None where they can.
        describe: A task for people, such as "fragment 1, bindings 0 to 7".
        origin: What evaluates the tasks. A journal keeps results under it, `content` and key.
        content: What the result of a task depends on besides its key and origin.
    """

    work: Work
    tasks: Sequence[Any]
    specs: Sequence[TaskSpec]
    check: Callable[[Any, Arrays], str | None]
    describe: Callable[[Any], str]
    origin: str = ""
    content: Callable[[Any], str] = lambda task: ""

    def kept_as(self, number: int) -> str:
        """What a journal calls a task's result."""
        return f"{self.origin} {self.content(self.tasks[number])} {self.specs[number].key}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task, as it went. Times are the driver's clock.

    Attributes:
        task: Number of the task.
        job: Number of the job it was part of.
        number: How often the task was submitted before.
        purpose: Why.
        worker: Where; empty if none began.
        submitted: When.
        started: When; None if none began.
        finished: When it was over.
        injected: Seconds of an injected straggler.
        status: "done", "late", "failed", "lost", "damaged" or "cancelled".
        cause: Of a failure.
        arrays: A sound result; None where there is none.
    """

    task: int
    job: int
    number: int
    purpose: str
    worker: str
    submitted: float
    started: float | None
    finished: float
    injected: float
    status: TaskStatus
    cause: str | None
    arrays: Arrays | None = None


class Stop:
    """Asks drivers to end; any thread may.

    Attributes:
        reason: Why the run ends, for the error of whoever waits for it.
    """

    def __init__(self) -> None:
        self.reason = "the run was cancelled before it was complete"
        self._asked = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def ask(self, reason: str | None = None) -> None:
        """End as soon as possible; the reason of whoever asks first is kept."""
        with self._lock:
            if reason is not None and not self._asked.is_set():
                self.reason = reason
            self._asked.set()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @property
    def asked(self) -> bool:
        """Whether it was asked."""
        return self._asked.is_set()

    @contextmanager
    def calling(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` if it is asked meanwhile."""
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def check(self) -> None:
        """Raises `RunCancelledError` if it was asked."""
        if self.asked:
            raise RunCancelledError(self.reason)


@dataclass(frozen=True, eq=False)
class Conditions:
    """How tasks are run.

    Attributes:
        policy: Which task when.
        stragglers: Delays to inject.
        journal: Keeps results, and has those of an earlier run of the same tasks.
        watch: Called with every attempt.
        stop: Ends the run early.
        clock: Seconds.
    """

    policy: Policy = field(default_factory=Policy)
    stragglers: Stragglers | None = None
    journal: Journal | None = None
    watch: Callable[[Attempt], None] | None = None
    stop: Stop | None = None
    clock: Callable[[], float] = time.perf_counter

    @property
    def plain(self) -> bool:
        """Whether tasks may as well run one after the other, without a dispatcher."""
        if self.stragglers or self.journal or self.watch:
            return False
        policy = self.policy
        return replace(policy, order=Fifo(), subexperiments=None) == Policy()


@dataclass(slots=True)
class Tally:
    """What running the tasks took.

    Attributes:
        retries: Tasks submitted again after a failure.
        speculated: Tasks run a second time for being late.
        injected: Attempts that were made to sleep.
        injected_seconds: For how long in all.
        missing: Numbers of the tasks that had no result at the deadline.
        known: Numbers of the tasks whose results a journal had.
    """

    retries: int = 0
    speculated: int = 0
    injected: int = 0
    injected_seconds: float = 0.0
    missing: tuple[int, ...] = ()
    known: tuple[int, ...] = ()

    def add(self, other: Tally) -> None:
        """Count another run in, but for the numbers of its tasks."""
        self.retries += other.retries
        self.speculated += other.speculated
        self.injected += other.injected
        self.injected_seconds += other.injected_seconds
