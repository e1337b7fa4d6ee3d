"""The dispatcher on a virtual clock, with imaginary workers."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np

from ..checks import check_whole, is_number
from ..errors import InputError
from ..execution.dispatcher import Dispatcher
from ..execution.messages import (
    Abandon,
    Accept,
    Cancel,
    Instruction,
    JobFinished,
    JobLost,
    JobStarted,
    Submit,
    Tick,
)
from ..execution.policies import MOST_SECONDS, Policy, TaskSpec, check_seconds
from ..execution.stragglers import Stragglers
from .bounds import lower_bound

Services: TypeAlias = Sequence[float] | Callable[[int, int], float]
"""Seconds that each task takes; or seconds of (task, attempt), attempts counted from 0."""

_MOST = 0.95
"""The tail is the time that the last tasks beyond this fraction take."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a task's first submission until its result is accepted; NaN where none was.

    Attributes:
        p50: The median.
        p95: Of 95 % of the tasks at most.
        p99: Of 99 % of the tasks at most.
        max: Of the slowest task.
    """

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Percentiles of some latencies."""
        if not seconds:
            return cls(math.nan, math.nan, math.nan, math.nan)
        return cls(*np.percentile(seconds, (50, 95, 99, 100)).tolist())


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Measures of a simulated run. All times are seconds.

    Attributes:
        makespan: From the first submission until every task is accepted or given up.
        workers: Of the pool.
        useful: Workers' time for results that were accepted, injected delays included.
        wasted: Workers' time, until the end of the run, for attempts that brought nothing.
        latency: Of the tasks that were accepted.
        tail: From the time when 95 % of the results were there until the last one was.
        jobs: How many were submitted.
        retries: Tasks submitted again after a failure.
        speculated: Tasks duplicated or restarted for being late.
        missing: Tasks given up, by the deadline or after failures.
        lower_bound: Expected makespan that no policy can beat; None where tasks are missing or
            their service time differs from attempt to attempt.
    """

    makespan: float
    workers: int
    useful: float
    wasted: float
    latency: Latency
    tail: float
    jobs: int
    retries: int
    speculated: int
    missing: int
    lower_bound: float | None

    @property
    def utilisation(self) -> float:
        """The fraction of all workers' time that went into accepted results."""
        return self.useful / (self.workers * self.makespan) if self.makespan else 1.0


def simulate(
    tasks: Sequence[TaskSpec],
    services: Services,
    policy: Policy,
    workers: int,
    *,
    stragglers: Stragglers | None = None,
    overhead: float = 0.0,
    latency: float = 0.0,
    can_cancel: bool = True,
    job_seconds: float = 0.0,
    crashes: float = 0.0,
    seed: int | None = None,
) -> SimulationResult:
    """Runs tasks on imaginary workers, with the dispatcher that real runs have.

    Args:
        tasks: What the policy knows of the tasks.
        services: What they really take, without injected delays.
        policy: How they are handed out.
        workers: Jobs that run at a time.
        stragglers: Delays added to attempts.
        overhead: Seconds that a worker spends on a job before its first task.
        latency: Seconds from submission until a worker begins.
        can_cancel: Whether a cancelled job ends at once, without the task it is in the middle of;
            otherwise it runs to its end.
        job_seconds: What a job should take at least; short tasks share one.
        crashes: Probability that a job's worker dies during it; another takes its place at once.
        seed: Of delays and crashes. None: the delays are those of a real run of tasks with these
            keys.

    Raises:
        InputError: A number is out of range, or there is not a service time for every task.

    Example:
        >>> tasks = [TaskSpec(str(n), 1.0) for n in range(10)]
        >>> simulate(tasks, [1.0] * 10, Policy(), workers=4).makespan
        3.0
    """
    _check_services(tasks, services)
    check_whole("workers", workers)
    if not (is_number(crashes) and 0 <= crashes < 1):
        raise InputError(f"`crashes` is {crashes!r}: give a probability of at least 0 and below 1")
    for name, value in (("overhead", overhead), ("latency", latency), ("job_seconds", job_seconds)):
        check_seconds(name, value)
    dispatcher = Dispatcher(tasks, policy, workers, job_seconds=job_seconds)
    run = _Run(
        *(dispatcher, workers, tasks, services, stragglers),
        *(overhead, latency, can_cancel, crashes, seed),
    )
    run.to_the_end()
    bound = None
    if not run.missing and not callable(services):
        counts = [task.subexperiments for task in tasks]
        at_a_time = min(workers, policy.in_flight or workers)
        bound = lower_bound(services, at_a_time, stragglers, counts)
    return run.result(bound)


def _check_services(tasks: Sequence[TaskSpec], services: Services) -> None:
    if callable(services):
        return
    if len(services) != len(tasks):
        raise InputError(
            f"`services` has {len(services)} entries for {len(tasks)} tasks: give one for each"
        )
    for number, seconds in enumerate(services):
        if not 0 <= seconds <= MOST_SECONDS:
            raise InputError(
                f"`services` has the entry {seconds!r} for task {number}: give seconds of at least "
                f"0 and at most {MOST_SECONDS:g}"
            )


@dataclass(slots=True, eq=False)
class _Job:
    """A job under way.

    Attributes:
        tasks: Its tasks, in order.
        seconds: Seconds that each takes.
        worker: Where it runs.
        begin: When its worker begins.
        overhead: Seconds from then until its first task begins.
        end: When it is over, as far as is known.
        kind: How it ends.
        whole: It is not cut short.
    """

    tasks: tuple[int, ...]
    seconds: list[float]
    worker: int
    begin: float
    overhead: float
    end: float
    kind: Literal["ended", "lost", "cancelled"] = "ended"
    whole: bool = True

    def worked(self, now: float) -> float:
        """Seconds spent on its tasks so far."""
        return now - self.begin - self.overhead

    def finished(self) -> Iterable[tuple[int, float]]:
        """The tasks that are through, with the seconds they took."""
        left = math.inf if self.whole else self.worked(self.end)
        for task, seconds in zip(self.tasks, self.seconds, strict=True):
            left -= seconds
            if left < 0:
                return
            yield task, seconds


@dataclass(eq=False)
class _Run:
    """One run: the dispatcher, imaginary workers, and all that will happen; see `simulate`."""

    dispatcher: Dispatcher
    workers: int
    tasks: Sequence[TaskSpec]
    services: Services
    stragglers: Stragglers | None
    overhead: float
    latency: float
    can_cancel: bool
    crashes: float
    seed: int | None
    missing: int = 0

    def __post_init__(self) -> None:
        self._now = 0.0
        self._jobs: dict[int, _Job] = {}
        self._events: list[tuple[float, int, int, bool]] = []
        self._rng = np.random.default_rng(self.seed or 0)
        self._free = list(range(self.workers))
        self._numbers = count()
        self._submitted: dict[int, float] = {}
        self._accepted: dict[int, float] = {}
        self._num_jobs = 0
        self._spent = self._useful = 0.0

    def to_the_end(self) -> None:
        """Runs until every task is accepted or given up."""
        dispatcher, events = self.dispatcher, self._events
        self._apply(dispatcher.start(0.0))
        while not dispatcher.done:
            wake = dispatcher.next_wake
            assert events or wake is not None, "the dispatcher waits for nothing"
            if events and (wake is None or events[0][0] <= wake):
                self._now, _, number, is_start = heapq.heappop(events)
                self._report(number, is_start)
            elif wake is not None:
                self._now = max(self._now, wake)
                self._apply(dispatcher.handle(Tick(self._now)))
                wake = dispatcher.next_wake
                assert wake is None or wake > self._now, "the dispatcher is woken in vain"

    def _report(self, number: int, is_start: bool) -> None:
        """Reports to the dispatcher that a job has begun, or is over."""
        job, now = self._jobs.get(number), self._now
        if job is None:
            return
        if is_start:
            self._apply(self.dispatcher.handle(JobStarted(number, now)))
        elif job.end == now:  # not one that was cut short since
            heapq.heappush(self._free, job.worker)
            del self._jobs[number]
            self._spent += max(0.0, job.worked(now))
            if job.kind == "ended":
                event = JobFinished(number, now, tuple(job.finished()))
                self._apply(self.dispatcher.handle(event), job)
            else:
                self._apply(self.dispatcher.handle(JobLost(number, now, job.kind, "simulated")))

    def _apply(self, instructions: Iterable[Instruction], ended: _Job | None = None) -> None:
        """Applies the instructions; `Accept` refers to the job that has just ended."""
        for instruction in instructions:
            if isinstance(instruction, Submit):
                self._submit(instruction)
            elif isinstance(instruction, Accept):
                assert ended is not None, "only results that have arrived can be accepted"
                for task in instruction.tasks:
                    self._accepted[task] = self._now
                    self._useful += ended.seconds[ended.tasks.index(task)]
            elif isinstance(instruction, Cancel):
                job = self._jobs.get(instruction.job)
                if job is not None and self.can_cancel:
                    self._cut(instruction.job, "cancelled" if self._now < job.begin else "ended")
            elif isinstance(instruction, Abandon):
                self._cut(instruction.job, "lost")
            else:
                self.missing += 1

    def _submit(self, order: Submit) -> None:
        """Gives a job to a free worker; the dispatcher sees to it that there is one."""
        self._num_jobs += 1
        for task in order.tasks:
            self._submitted.setdefault(task, self._now)
        worker = heapq.heappop(self._free)
        seconds = [
            self._seconds(task, attempt, worker)
            for task, attempt in zip(order.tasks, order.attempts, strict=True)
        ]
        begin = self._now + self.latency
        end = begin + (self.overhead + sum(seconds))
        job = _Job(order.tasks, seconds, worker, begin, self.overhead, end)
        if self.crashes and self._rng.random() < self.crashes:
            job.kind = "lost"
            job.end = begin + self._rng.random() * (end - begin)
        self._jobs[order.job] = job
        self._push(begin, order.job, is_start=True)
        self._push(job.end, order.job)

    def _seconds(self, task: int, attempt: int, worker: int) -> float:
        """Seconds of an attempt at a task on a worker, delays included."""
        services, stragglers = self.services, self.stragglers
        seconds = services(task, attempt) if callable(services) else services[task]
        if stragglers is not None:
            spec = self.tasks[task]
            key = spec.key if self.seed is None else f"{self.seed}\0{spec.key}"
            seconds += stragglers.seconds(key, attempt, spec.subexperiments)
            if stragglers.slow is not None and stragglers.slow.worker == worker:
                seconds += stragglers.slow.delay
        return seconds

    def _cut(self, number: int, kind: Literal["ended", "lost", "cancelled"]) -> None:
        """Ends a job now."""
        job = self._jobs.get(number)
        if job is not None:
            job.end, job.kind, job.whole = self._now, kind, False
            self._push(self._now, number)

    def _push(self, at: float, number: int, *, is_start: bool = False) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), number, is_start))

    def result(self, bound: float | None) -> SimulationResult:
        """The measures of the run; jobs that still run are counted until now."""
        running = sum(max(0.0, job.worked(self._now)) for job in self._jobs.values())
        accepted = sorted(self._accepted.values())
        most = math.ceil(_MOST * len(accepted)) - 1
        return SimulationResult(
            makespan=self._now,
            workers=self.workers,
            useful=self._useful,
            wasted=max(0.0, self._spent + running - self._useful),
            latency=Latency.of([at - self._submitted[t] for t, at in self._accepted.items()]),
            tail=accepted[-1] - accepted[most] if accepted else 0.0,
            jobs=self._num_jobs,
            retries=self.dispatcher.retries,
            speculated=self.dispatcher.speculated,
            missing=self.missing,
            lower_bound=bound,
        )
