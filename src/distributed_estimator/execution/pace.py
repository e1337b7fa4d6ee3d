"""How long tasks really take, learnt from those that ended."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence

from .policies import TaskSpec

_REMEMBERED = 101
_ENOUGH = 3


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
        """Whether anything is known of any task."""
        return len(self._all) >= _ENOUGH

    def learn(self, task: int, seconds: float) -> None:
        """A task took so long."""
        spec = self._tasks[task]
        if spec.seconds > 0:
            ratio = seconds / spec.seconds
            self._groups.setdefault(spec.group, _Ratios()).add(ratio)
            self._all.add(ratio)

    def expected(self, task: int) -> float:
        """The median of what such a task takes; as told, as long as nothing is known."""
        ratios = self._of(task)
        seconds = self._tasks[task].seconds
        return seconds if ratios is None else seconds * ratios.quantile(0.5)

    def known(self, tasks: Iterable[int], quantile: float) -> float | None:
        """What tasks take one after the other, each at that quantile; None: too little is known."""
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
