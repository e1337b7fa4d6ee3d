"""Imaginary workers: what becomes of jobs, and when."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import numpy as np

from ..execution.messages import Submit
from ..execution.policies import TaskSpec
from ..execution.stragglers import Stragglers

Services: TypeAlias = Sequence[float] | Callable[[int, int], float]
"""Seconds that each task takes; or seconds of (task, attempt), attempts counted from 0."""

STARTED, OVER = 0, 1
"""What happens to a job."""


class Attempts:
    """How long every attempt at every task takes."""

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        services: Services,
        stragglers: Stragglers | None,
        seed: int | None,
    ) -> None:
        self._tasks = tasks
        self._services = services
        self._stragglers = stragglers
        self._slow = None if stragglers is None else stragglers.slow
        self._prefix = "" if seed is None else f"{seed}\0"

    def seconds(self, task: int, attempt: int, worker: int) -> float:
        """Seconds of an attempt at a task on a worker, delays included."""
        services = self._services
        seconds = services(task, attempt) if callable(services) else services[task]
        if self._stragglers is not None:
            spec = self._tasks[task]
            key = self._prefix + spec.key
            seconds += self._stragglers.seconds(key, attempt, spec.subexperiments)
        if self._slow is not None and self._slow.worker == worker:
            seconds += self._slow.delay
        return seconds


@dataclass(slots=True, eq=False)
class Job:
    """A job under way.

    Attributes:
        tasks: Its tasks, in order.
        seconds: What each takes.
        worker: Where.
        begin: When its worker begins.
        end: When it is over, as far as is known.
        kind: How it ends.
        whole: It is not cut short.
    """

    tasks: tuple[int, ...]
    seconds: list[float]
    worker: int
    begin: float
    end: float
    kind: Literal["ended", "lost", "cancelled"] = "ended"
    whole: bool = True


class Workers:
    """Imaginary workers, and what will happen to them."""

    def __init__(
        self,
        workers: int,
        attempts: Attempts,
        overhead: float,
        latency: float,
        can_cancel: bool,
        crashes: float,
        seed: int,
    ) -> None:
        self.workers = workers
        self.overhead = overhead
        self.jobs: dict[int, Job] = {}
        self.events: list[tuple[float, int, int, int]] = []
        self._attempts = attempts
        self._latency = latency
        self._can_cancel = can_cancel
        self._crashes = crashes
        self._rng = np.random.default_rng(seed)
        self._free = list(range(workers))
        self._numbers = count()

    def submit(self, at: float, order: Submit) -> None:
        """Give a job to a free worker; the dispatcher sees to it that there is one."""
        worker = heapq.heappop(self._free)
        seconds = [
            self._attempts.seconds(task, attempt, worker)
            for task, attempt in zip(order.tasks, order.attempts, strict=True)
        ]
        begin = at + self._latency
        job = Job(order.tasks, seconds, worker, begin, begin + (self.overhead + sum(seconds)))
        if self._crashes and self._rng.random() < self._crashes:
            job.kind = "lost"
            job.end = begin + self._rng.random() * (job.end - begin)
        self.jobs[order.job] = job
        self._push(begin, STARTED, order.job)
        self._push(job.end, OVER, order.job)

    def cancel(self, at: float, number: int) -> None:
        """End a job now, if cancelling does that here."""
        job = self.jobs.get(number)
        if job is not None and self._can_cancel:
            kind: Literal["ended", "cancelled"] = "cancelled" if at < job.begin else "ended"
            self._end(number, job, at, kind)

    def abandon(self, at: float, number: int) -> None:
        """Take a job for lost."""
        job = self.jobs.get(number)
        if job is not None:
            self._end(number, job, at, "lost")

    def take(self, at: float, number: int) -> Job | None:
        """The job that is over now, its worker free again; None if it was over before."""
        job = self.jobs.get(number)
        if job is None or job.end != at:
            return None
        heapq.heappush(self._free, job.worker)
        return self.jobs.pop(number)

    def _end(
        self, number: int, job: Job, at: float, kind: Literal["ended", "lost", "cancelled"]
    ) -> None:
        job.end, job.kind, job.whole = at, kind, False
        self._push(at, OVER, number)

    def _push(self, at: float, kind: int, number: int) -> None:
        heapq.heappush(self.events, (at, next(self._numbers), kind, number))
