"""What waits and what runs: tasks in the policy's order, how long they take, and late jobs."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from .messages import Purpose
from .policies import Batches, Policy, TaskSpec

_SMALLEST_SHARE = 1 / 8
_LONGEST_PAUSE = 5.0
_SHORTEST_PAUSE = 1e-3
_MOST_IN_VAIN = 100
_REMEMBERED = 101
_ENOUGH = 3
_FEWEST_SECONDS = 60.0
_PATIENCE = 20.0
_UNKNOWN_SECONDS = 3600.0


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
    """The tasks to submit next.

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
        rank = policy.order.rank
        self._order = sorted(range(len(tasks)), key=lambda n: (tasks[n].chunk, rank(tasks[n])))
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
        estimate = self._tasks[task].seconds
        if not self._job_seconds or not estimate:
            return 0.0
        left = self._waiting_seconds * self._pace.expected(task) / estimate
        share = max(left / (2 * self._workers), self._job_seconds * _SMALLEST_SHARE)
        return min(self._job_seconds, share)


class Throttle:
    """Holds submissions back after a refusal, then lets them go one by one, ever faster.

    Args:
        backoff: Seconds after the first refusal that does not say how long to wait; twice as long
            after each that follows it.
    """

    def __init__(self, backoff: float) -> None:
        self._backoff = backoff
        self._pause = 0.0
        self._until = -math.inf
        self._refused_at = -math.inf
        self._in_vain = 0

    def holds(self, at: float) -> bool:
        """Whether nothing may be submitted now."""
        return at < self._until

    def wake(self, at: float) -> float | None:
        """When something may be submitted again; None: now."""
        return self._until if self.holds(at) else None

    def submitted(self, at: float) -> None:
        """A job went out: after a refusal, the next one follows at a distance that shrinks."""
        if self._pause:
            self._until = at + self._pause
            self._pause = self._pause / 2 if self._pause > _SHORTEST_PAUSE else 0.0

    def refused(self, at: float, retry_after: float, *, alone: bool) -> bool:
        """A job was refused; False where it is time to give up.

        Args:
            at: The time.
            retry_after: Seconds to wait, as the device says; 0: it does not say.
            alone: Whether nothing else is under way, whose end might help.
        """
        if at > self._refused_at:  # what comes back together counts as one
            self._in_vain += alone
            self._refused_at = at
        pause = self._backoff * 2.0 ** min(max(self._in_vain - 1, 0), 60)
        self._pause = retry_after or min(pause, _LONGEST_PAUSE)
        self._until = max(self._until, at + self._pause)
        return self._in_vain < _MOST_IN_VAIN

    def succeeded(self) -> None:
        """A task was done: asking again is not in vain."""
        self._in_vain = 0


class Pace:
    """Quantiles of service time relative to what was expected, for each group of tasks.

    A group of which too little is known goes by what is known of all.
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self._tasks = tasks
        self._groups: dict[int, _Ratios] = {}
        self._all = _Ratios()

    @property
    def is_known(self) -> bool:
        """Whether enough tasks have finished."""
        return len(self._all) >= _ENOUGH

    def learn(self, task: int, seconds: float) -> None:
        """A task took so long."""
        spec = self._tasks[task]
        if spec.seconds > 0:
            ratio = seconds / spec.seconds
            self._groups.setdefault(spec.group, _Ratios()).add(ratio)
            self._all.add(ratio)

    def expected(self, task: int) -> float:
        """Median service time; the caller's estimate until enough tasks have finished."""
        ratios = self._of(task)
        seconds = self._tasks[task].seconds
        return seconds if ratios is None else seconds * ratios.quantile(0.5)

    def known(self, tasks: Iterable[int], quantile: float) -> float | None:
        """Sum of the tasks' service times at that quantile; None: too little is known."""
        total = 0.0
        for task in tasks:
            ratios = self._of(task)
            if ratios is None:
                return None
            total += self._tasks[task].seconds * ratios.quantile(quantile)
        return total

    def _of(self, task: int) -> _Ratios | None:
        ratios = self._groups.get(self._tasks[task].group, self._all)
        if len(ratios) < _ENOUGH:
            ratios = self._all
        return ratios if len(ratios) >= _ENOUGH else None


class _Ratios:
    """The last few of a stream of numbers, in order of size."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, ratio: float) -> None:
        self._recent.append(ratio)
        insort(self._sorted, ratio)
        if len(self._recent) > _REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def quantile(self, q: float) -> float:
        return self._sorted[round(q * (len(self._sorted) - 1))]


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    tasks: tuple[int, ...]
    started: float


class Watch:
    """When to look at which running job again.

    The usual time is learnt while jobs run, so every limit is computed again when it comes.
    """

    def __init__(self, policy: Policy, pace: Pace) -> None:
        self._timeout = policy.retry.timeout
        self._speculation = policy.speculation
        self._pace = pace
        self._running: dict[int, _Running] = {}
        self._limits: list[tuple[float, int]] = []
        self._late: list[tuple[float, int]] = []
        self._unknown: list[int] = []

    def started(self, number: int, tasks: tuple[int, ...], at: float) -> None:
        """A job runs from now on."""
        running = self._running[number] = _Running(tasks, at)
        heapq.heappush(self._limits, (self._limit(running, at), number))
        if self._speculation is not None:
            self._unknown.append(number)

    def ended(self, number: int) -> None:
        """A job runs no longer, or is not to be looked at again."""
        self._running.pop(number, None)

    @property
    def next_wake(self) -> float | None:
        """When to look again."""
        heads = [_head(heap, self._running) for heap in (self._limits, self._late)]
        return min((time for time in heads if time is not None), default=None)

    def hung(self, at: float) -> list[int]:
        """Jobs that have run for so long that they will not end."""
        found = []
        while (head := _head(self._limits, self._running)) is not None and head <= at:
            number = heapq.heappop(self._limits)[1]
            limit = self._limit(self._running[number], at)
            if limit > at:
                heapq.heappush(self._limits, (limit, number))
            else:
                found.append(number)
        return found

    def late(self, at: float) -> list[int]:
        """Jobs that have become late, each once."""
        if not self._pace.is_known:
            return []
        unknown, self._unknown = self._unknown, []
        for number in unknown:
            self._look_later(number)
        found = []
        while (head := _head(self._late, self._running)) is not None and head <= at:
            number = heapq.heappop(self._late)[1]
            time = self._late_time(self._running[number])
            if time is not None and time > at:
                heapq.heappush(self._late, (time, number))
            else:
                found.append(number)
        return found

    def _look_later(self, number: int) -> None:
        if number not in self._running:
            return
        time = self._late_time(self._running[number])
        if time is None:
            self._unknown.append(number)
        else:
            heapq.heappush(self._late, (time, number))

    def _late_time(self, running: _Running) -> float | None:
        assert self._speculation is not None
        usual = self._pace.known(running.tasks, self._speculation.quantile)
        return None if usual is None else running.started + self._speculation.factor * usual

    def _limit(self, running: _Running, at: float) -> float:
        """When a job counts as hung; as long as none has ended, once a minute is soon enough."""
        if self._timeout is not None:
            return running.started + self._timeout
        usual = self._pace.known(running.tasks, 0.5)
        if usual is not None:
            return running.started + max(_FEWEST_SECONDS, _PATIENCE * usual)
        last = running.started + _UNKNOWN_SECONDS
        return last if at >= last else min(last, at + _FEWEST_SECONDS)


def _head(heap: list[tuple[float, int]], running: Container[int]) -> float | None:
    """The earliest time of a job that still runs; entries of others are dropped."""
    while heap and heap[0][1] not in running:
        heapq.heappop(heap)
    return heap[0][0] if heap else None
