"""How long tasks take, learnt from those that ended, and which running jobs take too long."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from .policies import Policy, TaskSpec

_REMEMBERED = 101
_ENOUGH = 3
_FEWEST_SECONDS = 60.0
_PATIENCE = 20.0
_UNKNOWN_SECONDS = 3600.0


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
