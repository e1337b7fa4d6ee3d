"""Running jobs that take too long: late ones, and ones that must be hung."""

from __future__ import annotations

import heapq
from collections.abc import Container
from dataclasses import dataclass

from .pace import Pace
from .policies import Policy

_FEWEST_SECONDS = 60.0
_PATIENCE = 20.0
_UNKNOWN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    tasks: tuple[int, ...]
    started: float


class Watch:
    """When to look at which running job again.

    What is usual is learnt while jobs run, so that every time is looked up anew when it comes.
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
