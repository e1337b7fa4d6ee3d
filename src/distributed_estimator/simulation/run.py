"""The dispatcher on a virtual clock."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any

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
from .result import Latency, SimulationResult, tail_of
from .workers import STARTED, Attempts, Job, Services, Workers


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
    """Run tasks on imaginary workers, with the dispatcher that real runs have.

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
    _check_numbers(workers, crashes, overhead=overhead, latency=latency, job_seconds=job_seconds)
    attempts = Attempts(tasks, services, stragglers, seed)
    imaginary = Workers(workers, attempts, overhead, latency, can_cancel, crashes, seed or 0)
    run = _Run(Dispatcher(tasks, policy, workers, job_seconds=job_seconds), imaginary)
    run.to_the_end()
    bound = None
    if not run.missing and not callable(services):
        counts = [task.subexperiments for task in tasks]
        at_a_time = min(workers, policy.in_flight or workers)
        bound = lower_bound(services, at_a_time, stragglers, counts)
    return run.result(bound)


def _check_numbers(workers: Any, crashes: Any, **seconds: Any) -> None:
    check_whole("workers", workers)
    if not (is_number(crashes) and 0 <= crashes < 1):
        raise InputError(f"`crashes` is {crashes!r}: give a probability of at least 0 and below 1")
    for name, value in seconds.items():
        check_seconds(name, value)


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


class _Run:
    """One run: the dispatcher's instructions acted on, and the workers' events told to it."""

    def __init__(self, dispatcher: Dispatcher, workers: Workers) -> None:
        self.missing = 0
        self._dispatcher = dispatcher
        self._workers = workers
        self._now = 0.0
        self._submitted: dict[int, float] = {}
        self._accepted: dict[int, float] = {}
        self._num_jobs = 0
        self._spent = 0.0
        self._useful = 0.0

    def to_the_end(self) -> None:
        """Until every task is accepted or given up."""
        dispatcher, events = self._dispatcher, self._workers.events
        self._act(dispatcher.start(0.0), None)
        while not dispatcher.done:
            wake = dispatcher.next_wake
            assert events or wake is not None, "the dispatcher waits for nothing"
            if events and (wake is None or events[0][0] <= wake):
                self._now, _, kind, number = heapq.heappop(events)
                self._tell(kind, number)
            elif wake is not None:
                self._now = max(self._now, wake)
                self._act(dispatcher.handle(Tick(self._now)), None)
                wake = dispatcher.next_wake
                assert wake is None or wake > self._now, "the dispatcher is woken in vain"

    def _tell(self, kind: int, number: int) -> None:
        now = self._now
        if kind == STARTED:
            if number in self._workers.jobs:
                self._act(self._dispatcher.handle(JobStarted(number, now)), None)
            return
        job = self._workers.take(now, number)
        if job is None:
            return
        self._spent += max(0.0, now - job.begin - self._workers.overhead)
        if job.kind == "ended":
            finished = tuple(self._finished(job))
            self._act(self._dispatcher.handle(JobFinished(number, now, finished)), job)
        else:
            lost = JobLost(number, now, job.kind, "simulated")
            self._act(self._dispatcher.handle(lost), None)

    def _finished(self, job: Job) -> Iterable[tuple[int, float]]:
        """The tasks that are through, with the seconds they took."""
        left = math.inf if job.whole else job.end - job.begin - self._workers.overhead
        for task, seconds in zip(job.tasks, job.seconds, strict=True):
            left -= seconds
            if left < 0:
                return
            yield task, seconds

    def _act(self, instructions: Iterable[Instruction], ended: Job | None) -> None:
        """Do as told; results to accept are those of the job that has just ended."""
        for told in instructions:
            if isinstance(told, Submit):
                self._num_jobs += 1
                for task in told.tasks:
                    self._submitted.setdefault(task, self._now)
                self._workers.submit(self._now, told)
            elif isinstance(told, Accept):
                assert ended is not None, "only results that have arrived can be accepted"
                self._accept(told.tasks, ended)
            elif isinstance(told, Cancel):
                self._workers.cancel(self._now, told.job)
            elif isinstance(told, Abandon):
                self._workers.abandon(self._now, told.job)
            else:
                self.missing += 1

    def _accept(self, tasks: tuple[int, ...], job: Job) -> None:
        for task in tasks:
            self._accepted[task] = self._now
            self._useful += job.seconds[job.tasks.index(task)]

    def result(self, bound: float | None) -> SimulationResult:
        """What it was like; jobs that still run are counted until now."""
        running = sum(
            max(0.0, self._now - job.begin - self._workers.overhead)
            for job in self._workers.jobs.values()
        )
        latencies = [at - self._submitted[task] for task, at in self._accepted.items()]
        return SimulationResult(
            makespan=self._now,
            workers=self._workers.workers,
            useful=self._useful,
            wasted=max(0.0, self._spent + running - self._useful),
            latency=Latency.of(latencies),
            tail=tail_of(list(self._accepted.values())),
            jobs=self._num_jobs,
            retries=self._dispatcher.retries,
            speculated=self._dispatcher.speculated,
            missing=self.missing,
            lower_bound=bound,
        )
