"""Runs tasks: acts on the dispatcher's instructions with a real pool and a real clock."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import (
    DeviceLostError,
    InputError,
    PoolError,
    RunCancelledError,
    TaskFailedError,
    ThrottledError,
    named,
)
from ..records.schema import TaskStatus
from .dispatcher import Dispatcher
from .journal import Journal
from .messages import (
    Abandon,
    Accept,
    Arrays,
    Cancel,
    Event,
    Failure,
    FailureKind,
    Finished,
    GiveUp,
    Instruction,
    Item,
    Job,
    JobFinished,
    JobLost,
    JobStarted,
    Lost,
    Message,
    Outcome,
    Started,
    StrainedError,
    Submit,
    Tick,
    Work,
)
from .policies import Fifo, Policy, Retry, TaskSpec
from .pools.base import Pool
from .stragglers import Stragglers
from .worker import cause_of, checksum, one_thread

_log = logging.getLogger(__name__)

_LOOK_UP = 0.5
"""Seconds after which a driver looks whether the program is about to end."""

_QUEUE_SECONDS = 30 * 24 * 3600.0
"""After which a job in a device's queue counts as lost: no service keeps it for longer."""

Fold = Callable[[int, Arrays, bool], None]
"""Takes a task's number, its result, and whether other tasks are still to come."""


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
        progress: Called with the tasks that are done and all there are, at first and with each.
        stop: Ends the run early.
        clock: Seconds.
        patient: Whether tasks may wait in a queue for days: none counts as hung then, unless the
            policy has a timeout.
    """

    policy: Policy = field(default_factory=Policy)
    stragglers: Stragglers | None = None
    journal: Journal | None = None
    watch: Callable[[Attempt], None] | None = None
    progress: Callable[[int, int], None] | None = None
    stop: Stop | None = None
    clock: Callable[[], float] = time.perf_counter
    patient: bool = False

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


def run_tasks(
    pool: Pool, assignment: Assignment, fold: Fold, conditions: Conditions | None = None
) -> Tally:
    """Run every task, and fold each one's result once, in whatever order they finish.

    Raises:
        TaskFailedError: Tasks failed as often as the policy allows; all others were folded.
        DeviceLostError: So they did as a device is gone.
        InputError: A task, or the whole work, is not fit to run.
        PoolError: The workers cannot be started or reached.
        RunCancelledError: The run was asked to stop.
    """
    conditions = conditions or Conditions()
    if conditions.stop is not None:
        conditions.stop.check()
    tally = Tally()
    left = list(range(len(assignment.tasks)))
    if conditions.progress is not None:
        fold = _counted(fold, len(left), conditions.progress)
    if conditions.journal is not None:
        tally.known = tuple(_fold_known(assignment, fold, conditions.journal))
        known = set(tally.known)
        left = [number for number in left if number not in known]
    if _fits_here(pool, assignment, left, conditions):
        _log.debug("%d tasks run in this thread", len(left))
        left = _run_here(assignment, left, fold)
        tally.retries = len(left)
        retry = Retry(Retry().attempts - 1)
        conditions = replace(conditions, policy=replace(conditions.policy, retry=retry))
    if left:
        _log.debug("%d tasks go to %r", len(left), pool)
        with one_thread() if pool.in_process else nullcontext():
            _Run(pool, assignment, left, fold, conditions, tally).run()
    return tally


def _counted(fold: Fold, total: int, progress: Callable[[int, int], None]) -> Fold:
    """The same fold, which reports how many tasks are done."""
    done = 0
    progress(done, total)

    def counted(number: int, arrays: Arrays, others_run: bool) -> None:
        nonlocal done
        fold(number, arrays, others_run)
        done += 1
        progress(done, total)

    return counted


def _fold_known(assignment: Assignment, fold: Fold, journal: Journal) -> Iterator[int]:
    """Fold what the journal has; gives its tasks' numbers."""
    for number, task in enumerate(assignment.tasks):
        arrays = journal.find(assignment.kept_as(number))
        if arrays is not None and assignment.check(task, arrays) is None:
            fold(number, arrays, False)
            yield number


def _fits_here(
    pool: Pool, assignment: Assignment, left: Sequence[int], conditions: Conditions
) -> bool:
    """Whether so little is to be done that handing it to a worker would take longer."""
    if not (pool.in_process and conditions.plain):
        return False
    return sum(assignment.specs[number].seconds for number in left) < pool.job_seconds


def _run_here(assignment: Assignment, left: Sequence[int], fold: Fold) -> list[int]:
    """Run tasks in this thread; those that fail are left, to be tried again by the rules."""
    failed = []
    for number in left:
        task = assignment.tasks[number]
        arrays: Arrays | None = None
        try:
            arrays = assignment.work.run(task)
        except InputError:
            raise
        except Exception:
            pass  # it counts as an attempt
        if arrays is None or assignment.check(task, arrays) is not None:
            failed.append(number)
        else:
            fold(number, arrays, False)
    return failed


@dataclass(slots=True, eq=False)
class _Flight:
    """A job on its way."""

    job: Job
    submit: Submit
    submitted: float
    started: float | None = None
    worker: str = ""


class _Run:
    """Tasks on their way through a pool; numbers of the dispatcher count those that are left."""

    def __init__(
        self,
        pool: Pool,
        assignment: Assignment,
        left: Sequence[int],
        fold: Fold,
        conditions: Conditions,
        tally: Tally,
    ) -> None:
        self._pool = pool
        self._assignment = assignment
        self._left = left
        self._fold = fold
        self._conditions = conditions
        self._specs = [assignment.specs[number] for number in left]
        # A job reports its results when it is over: a late task would keep those of others back.
        alone = conditions.policy.deadline is not None or conditions.stragglers is not None
        job_seconds = 0.0 if alone else pool.job_seconds
        policy = conditions.policy
        if conditions.patient and policy.retry.timeout is None:
            policy = replace(policy, retry=replace(policy.retry, timeout=_QUEUE_SECONDS))
        self._dispatcher = Dispatcher(self._specs, policy, pool.workers, job_seconds=job_seconds)
        self._inbox: queue.SimpleQueue[tuple[float, Message | None]] = queue.SimpleQueue()
        self._now = conditions.clock()
        self._flights: dict[int, _Flight] = {}
        self._errors: dict[int, Exception] = {}
        self._failed: list[GiveUp] = []
        self._missing: list[int] = []
        self._refused: str | None = None
        self._tally = tally
        self._tried_here = tally.retries

    def run(self) -> None:
        stop, dispatcher = self._conditions.stop, self._dispatcher
        with nullcontext() if stop is None else stop.calling(lambda: self._notify(None)):
            try:
                self._act(dispatcher.start(self._now), {})
                while not dispatcher.done:
                    self._step()
            finally:
                self._withdraw()
        self._tally.missing = tuple(self._missing)
        self._tally.retries += dispatcher.retries
        self._tally.speculated = dispatcher.speculated
        if self._failed:
            self._raise()

    def _notify(self, message: Message | None) -> None:
        """Called by the pool, from any thread."""
        self._inbox.put((self._conditions.clock(), message))

    def _step(self) -> None:
        """Wait for the next message, and act on it."""
        at, message = self._next_message()
        self._now = max(self._now, at)  # two threads may report in another order than they looked
        if self._conditions.stop is not None:
            self._conditions.stop.check()
        if _is_interrupted():
            raise RunCancelledError("the program ended before the run was complete")
        outcomes: dict[int, Outcome] = {}
        event: Event = Tick(self._now)
        if message is not None and message.job.number in self._flights:
            if isinstance(message, Finished):
                outcomes = {outcome.number: outcome for outcome in message.outcomes}
            event = self._read(message, self._now)
        instructions = self._dispatcher.handle(event)
        if isinstance(event, JobFinished | JobLost):
            self._land(event, outcomes, instructions)
        self._act(instructions, outcomes)

    def _next_message(self) -> tuple[float, Message | None]:
        wake = self._dispatcher.next_wake
        pause = _LOOK_UP
        if wake is not None:
            pause = min(pause, max(0.0, wake - self._conditions.clock()))
        try:
            return self._inbox.get(timeout=pause) if pause else self._inbox.get_nowait()
        except queue.Empty:
            return self._conditions.clock(), None

    # --- messages of the pool ---------------------------------------------------------------------

    def _read(self, message: Message, at: float) -> Event:
        """A message as an event for the dispatcher."""
        number = message.job.number
        flight = self._flights[number]
        if isinstance(message, Lost):
            if message.kind == "refused":
                self._refused = message.cause
                return JobLost(number, at, "fatal", message.cause)
            return JobLost(number, at, message.kind, message.cause)
        flight.worker = message.worker
        if isinstance(message, Started):
            flight.started = at
            return JobStarted(number, at)
        finished: list[tuple[int, float]] = []
        failures: list[Failure] = []
        for outcome in message.outcomes:
            failure = self._failure(outcome)
            if failure is None:
                finished.append((outcome.number, outcome.seconds))
            else:
                failures.append(failure)
        return JobFinished(number, at, tuple(finished), tuple(failures))

    def _failure(self, outcome: Outcome) -> Failure | None:
        number = outcome.number
        if outcome.error is not None or outcome.arrays is None:
            error = outcome.error or RuntimeError("the worker gave no result")
            self._errors[number] = error
            pause = error.retry_after if isinstance(error, ThrottledError) else 0.0
            return Failure(number, _kind(error), cause_of(error), pause)
        self._errors.pop(number, None)
        if outcome.checksum is not None and outcome.checksum != checksum(outcome.arrays):
            return Failure(number, "damaged", "its result was damaged on the way")
        wrong = self._assignment.check(self._task(number), outcome.arrays)
        return None if wrong is None else Failure(number, "damaged", wrong)

    # --- instructions of the dispatcher -----------------------------------------------------------

    def _act(self, instructions: Sequence[Instruction], outcomes: dict[int, Outcome]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Submit):
                job = self._prepare(instruction)
                try:
                    self._pool.submit(job, self._notify)
                except PoolError:
                    if self._conditions.stop is not None:
                        self._conditions.stop.check()  # the pool may be closed to end this run
                    raise
            elif isinstance(instruction, Accept):
                for number in instruction.tasks:
                    self._accept(number, outcomes[number])
            elif isinstance(instruction, GiveUp):
                if instruction.failures:
                    self._failed.append(instruction)
                self._missing.append(self._left[instruction.task])
            elif (flight := self._flights.get(instruction.job)) is not None:
                if isinstance(instruction, Cancel):
                    self._pool.cancel(flight.job)
                elif isinstance(instruction, Abandon):
                    self._pool.abandon(flight.job)

    def _prepare(self, submit: Submit) -> Job:
        """The job to submit, noted as on its way."""
        stragglers = self._conditions.stragglers
        items = []
        for number, attempt in zip(submit.tasks, submit.attempts, strict=True):
            spec, delay = self._specs[number], 0.0
            if stragglers is not None:
                delay = stragglers.seconds(spec.key, attempt, spec.subexperiments)
            items.append(Item(number, self._task(number), delay))
        slow = None if stragglers is None else stragglers.slow
        job = Job(submit.job, self._assignment.work, tuple(items), slow)
        self._flights[submit.job] = _Flight(job, submit, self._conditions.clock())
        _log.debug("job %d sent: %d tasks, %s", submit.job, len(items), submit.purpose)
        return job

    def _accept(self, number: int, outcome: Outcome) -> None:
        assert outcome.arrays is not None
        if self._conditions.journal is not None:
            kept_as = self._assignment.kept_as(self._left[number])
            self._conditions.journal.add(kept_as, outcome.arrays)
        self._fold(self._left[number], outcome.arrays, not self._dispatcher.done)

    def _task(self, number: int) -> Any:
        return self._assignment.tasks[self._left[number]]

    # --- the end of a job, and of the run ---------------------------------------------------------

    def _land(
        self,
        event: JobFinished | JobLost,
        outcomes: dict[int, Outcome],
        instructions: Sequence[Instruction],
    ) -> None:
        """A job is over: forget it, and report how the attempts at its tasks went."""
        flight = self._flights.pop(event.job)
        _log_end(flight, event)
        accepted = {n for i in instructions if isinstance(i, Accept) for n in i.tasks}
        failures = {f.task: f for f in event.failures} if isinstance(event, JobFinished) else {}
        for item, number in zip(flight.job.items, flight.submit.attempts, strict=True):
            outcome, failure = outcomes.get(item.number), failures.get(item.number)
            status: TaskStatus = "cancelled"
            cause: str | None = None
            if isinstance(event, JobLost) and event.kind != "cancelled":
                status, cause = "lost", event.cause
            elif failure is not None:
                status = "damaged" if failure.kind == "damaged" else "failed"
                cause = failure.cause
            elif outcome is not None:
                status = "done" if item.number in accepted else "late"
            started, finished = flight.started, event.at
            injected = 0.0 if started is None else min(item.delay, finished - started)
            if outcome is not None and started is not None:
                started += outcome.started
                finished = started + outcome.seconds
                injected = outcome.injected
            self._tally.injected += injected > 0
            self._tally.injected_seconds += injected
            if self._conditions.watch is None:
                continue
            attempt = Attempt(
                task=self._left[item.number],
                job=flight.submit.job,
                number=number,
                purpose=flight.submit.purpose,
                worker=flight.worker,
                submitted=flight.submitted,
                started=started,
                finished=finished,
                injected=injected,
                status=status,
                cause=cause,
                arrays=outcome.arrays if outcome and status in ("done", "late") else None,
            )
            self._conditions.watch(attempt)

    def _withdraw(self) -> None:
        """Leave nothing running that can be ended."""
        at = self._conditions.clock()
        for flight in self._flights.values():
            self._pool.cancel(flight.job)
        for number in list(self._flights):
            self._land(JobLost(number, at, "cancelled", ""), {}, ())

    def _raise(self) -> None:
        if self._refused is not None:
            raise PoolError(self._refused)
        for given_up in self._failed:
            error = self._errors.get(given_up.task)
            if isinstance(error, InputError | DeviceLostError):
                raise error
        failed = []
        for given_up in self._failed:
            count = len(given_up.failures) + bool(self._tried_here)
            times = "once" if count == 1 else f"{count} times"
            what = self._assignment.describe(self._task(given_up.task))
            cause = given_up.failures[-1].cause
            failed.append(f"{what} failed {times}, at last because {cause}")
        raise TaskFailedError(named(failed)) from self._errors.get(self._failed[0].task)


def _log_end(flight: _Flight, event: JobFinished | JobLost) -> None:
    if isinstance(event, JobLost):
        _log.debug("job %d %s: %s", event.job, event.kind, event.cause or "the run is over")
        return
    _log.debug(
        "job %d back from worker %s after %.3g s: %d tasks done, %d failed",
        *(event.job, flight.worker, event.at - flight.submitted),
        *(len(event.finished), len(event.failures)),
    )


def _kind(error: Exception) -> FailureKind:
    if isinstance(error, ThrottledError):
        return "throttled"
    if isinstance(error, StrainedError):
        return "strained"
    return "fatal" if isinstance(error, InputError) else "error"


def _is_interrupted() -> bool:
    """Whether the program is ending because of Ctrl-C, and waits for nothing but its threads."""
    ended = not threading.main_thread().is_alive()
    return ended and getattr(sys, "last_type", None) is KeyboardInterrupt
