"""Tasks that wait: in the policy's order, batch by batch, and failed ones until they are due."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .pace import Pace
from .policies import Batches, Policy, TaskSpec

Purpose: TypeAlias = Literal["first", "retry", "duplicate", "restart"]

_SMALLEST_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Bundle:
    """Tasks for one job.

    Attributes:
        tasks: Their numbers.
        purpose: Why they run.
        origin: The job that they are run again for, if it may still be running.
    """

    tasks: tuple[int, ...]
    purpose: Purpose
    origin: int | None = None


class Backlog:
    """What is to be submitted next.

    Args:
        tasks: All tasks of the run.
        policy: Their order and batches.
        pace: How long they take.
        workers: Jobs that run at a time.
        job_seconds: What a job should take at least.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        policy: Policy,
        pace: Pace,
        workers: int,
        job_seconds: float,
    ) -> None:
        self._tasks = tasks
        self._dispatch = policy.dispatch
        # Without any shots of a subexperiment there is no value.
        self._order = sorted(policy.order.arrange(tasks), key=lambda task: tasks[task].chunk)
        self._pace = pace
        self._workers = workers
        self._job_seconds = job_seconds
        self._start = 0.0
        self._released = 0
        self._waiting: deque[int] = deque()
        self._waiting_seconds = 0.0
        self._front: deque[Bundle] = deque()
        self._retries: list[tuple[float, int]] = []

    def start(self, at: float) -> None:
        """The first batch is due now."""
        self._start = at

    def put_first(self, bundle: Bundle) -> None:
        """Tasks that go before all that wait."""
        self._front.append(bundle)

    def put_off(self, task: int, due: float) -> None:
        """A task that is to be tried again, not before `due`."""
        heapq.heappush(self._retries, (due, task))

    @property
    def next_wake(self) -> float | None:
        """When the next batch or retry is due."""
        times = [self._retries[0][0]] if self._retries else []
        if self._released < len(self._order):
            times.append(self._next_release)
        return min(times, default=None)

    @property
    def waits(self) -> bool:
        """Whether anything could be submitted now."""
        return bool(self._front or self._waiting)

    def advance(self, at: float) -> None:
        """Let everything go whose time has come."""
        while self._released < len(self._order) and self._next_release <= at:
            self._release()
        while self._retries and self._retries[0][0] <= at:
            self._front.append(Bundle((heapq.heappop(self._retries)[1],), "retry"))

    def pop(self, is_open: Sequence[bool]) -> Bundle | None:
        """The next bundle, without tasks that are no longer open; None: nothing waits now."""
        while self._front:
            bundle = self._front.popleft()
            left = tuple(task for task in bundle.tasks if is_open[task])
            if left:
                return Bundle(left, bundle.purpose, bundle.origin)
        return Bundle(self._fill(), "first") if self._waiting else None

    @property
    def _next_release(self) -> float:
        if not isinstance(self._dispatch, Batches):
            return self._start
        return self._start + (self._released // self._dispatch.size) * self._dispatch.delay

    def _release(self) -> None:
        size = len(self._order)
        if isinstance(self._dispatch, Batches):
            size = self._dispatch.size
        batch = self._order[self._released : self._released + size]
        self._released += len(batch)
        self._waiting.extend(batch)
        self._waiting_seconds += sum(self._tasks[task].seconds for task in batch)

    def _fill(self) -> tuple[int, ...]:
        """Waiting tasks until they make up a job."""
        target = self._target(self._waiting[0])
        bundle: list[int] = []
        seconds = 0.0
        while self._waiting and (not bundle or seconds < target):
            task = self._waiting.popleft()
            self._waiting_seconds -= self._tasks[task].seconds
            seconds += self._pace.expected(task)
            bundle.append(task)
        return tuple(bundle)

    def _target(self, task: int) -> float:
        """Seconds the next job should take: less towards the end, so that all workers have some."""
        told = self._tasks[task].seconds
        if not self._job_seconds or not told:
            return 0.0
        left = self._waiting_seconds * self._pace.expected(task) / told
        share = max(left / (2 * self._workers), self._job_seconds * _SMALLEST_SHARE)
        return min(self._job_seconds, share)
