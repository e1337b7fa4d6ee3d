"""Timing in turns, budgets and peak memory, shared by the benchmarks."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from rich.console import Console

from benchmarks._workload import Floats, Outcome

P = ParamSpec("P")
T = TypeVar("T")

WARM_UP_AGAIN_BELOW = 2.0  # seconds
BRIEF = 0.05  # seconds
CALLS_A_TURN = 10  # of a brief call
UNCOUNTED = 3

_console = Console(stderr=True, highlight=False)


def progress(message: str) -> None:
    """Say on standard error what is being measured."""
    _console.print(message, markup=False)


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
        name: What it is called in the tables.
        call: Does the work once; this is what is timed.
        slow: Timed once and without a warm-up call, since one call already takes seconds.
    """

    name: str
    call: Callable[[], Outcome]
    slow: bool = False


@dataclass(frozen=True)
class Timing:
    """What a contestant took.

    Attributes:
        seconds: Median over the repeats.
        low: First quartile.
        high: Third quartile.
        repeats: How often it was timed.
        stages: Median seconds of each stage it reported.
        values: What the last call computed.
    """

    name: str
    seconds: float
    low: float
    high: float
    repeats: int
    stages: dict[str, float]
    values: Floats


@dataclass(frozen=True)
class _Sample:
    seconds: float
    outcome: Outcome


def _timed(contestant: Contestant) -> _Sample:
    start = time.perf_counter()
    outcome = contestant.call()
    return _Sample(time.perf_counter() - start, outcome)


@dataclass(frozen=True)
class _Share:
    """How many timed calls a contestant gets, and whether an untimed one comes before each."""

    turns: int
    brief: bool


def _share(contestant: Contestant, repeats: int, allowance: float) -> _Share:
    """What fits into `allowance` seconds, from a warm-up call.

    The very first call may import or compile things, so it does not say how long the next ones
    take.
    """
    if contestant.slow:
        return _Share(1, brief=False)
    seconds = _timed(contestant).seconds
    if seconds < WARM_UP_AGAIN_BELOW:
        seconds = _timed(contestant).seconds
    brief = seconds < BRIEF
    turn = seconds * (CALLS_A_TURN if brief else 1)
    turns = max(1, min(repeats, int(2 * allowance / max(turn, 1e-9))))
    return _Share(turns, brief)


def _turn(contestant: Contestant, share: _Share) -> _Sample:
    """One timed call; of a brief one the median of several, as a loop would have them.

    The first are not counted: they pay for processor caches that another contestant has filled.
    """
    if not share.brief:
        return _timed(contestant)
    samples = [_timed(contestant) for _ in range(CALLS_A_TURN)][UNCOUNTED:]
    return sorted(samples, key=lambda sample: sample.seconds)[len(samples) // 2]


def _summary(contestant: Contestant, samples: Sequence[_Sample]) -> Timing:
    low, median, high = np.quantile([s.seconds for s in samples], [0.25, 0.5, 0.75])
    names = samples[0].outcome.stages
    stages = {n: float(np.median([s.outcome.stages[n] for s in samples])) for n in names}
    return Timing(
        name=contestant.name,
        seconds=float(median),
        low=float(low),
        high=float(high),
        repeats=len(samples),
        stages=stages,
        values=np.asarray(samples[-1].outcome.values, dtype=float),
    )


def take_turns(
    contestants: Sequence[Contestant], repeats: int = 30, allowance: float = 0.5
) -> dict[str, Timing]:
    """Time the contestants in turns, so that what else the machine does hits all of them.

    A contestant that may run fewer times than the others has its turns spread evenly over the
    rounds. A call of less than 50 ms is made ten times in a turn, and the median of the last seven
    counts.

    Args:
        contestants: Each with its own name.
        repeats: Most timed calls of one contestant.
        allowance: Seconds one contestant may take; one call is always timed.

    Returns:
        A timing for every contestant, by name.
    """
    shares = [_share(c, repeats, allowance) for c in contestants]
    rounds = max(share.turns for share in shares)
    samples: list[list[_Sample]] = [[] for _ in contestants]
    for number in range(1, rounds + 1):
        for contestant, share, taken in zip(contestants, shares, samples, strict=True):
            if number * share.turns // rounds > len(taken):
                taken.append(_turn(contestant, share))
    return {c.name: _summary(c, s) for c, s in zip(contestants, samples, strict=True)}


class Budget:
    """Seconds that slow counterparts may take together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left = seconds

    def refusal(self, estimate: float) -> str | None:
        """Why `estimate` seconds do not fit, or None if they do."""
        if estimate <= self.left:
            return None
        return (
            f"estimated {estimate:.0f} s, of the budget of {self.seconds:.0f} s "
            f"{self.left:.0f} s are left: raise --budget"
        )

    def spend(self, seconds: float) -> None:
        """Take `seconds` off what is left."""
        self.left = max(0.0, self.left - seconds)


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


class Child:
    """A process for calls that may take too long: one that does ends it, the next has another."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def call(
        self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What `function` returns or raises.

        Raises:
            TimeoutError: It takes longer than `seconds`.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context)
            self._pool.submit(callable, function).result()  # imports what it is from
        try:
            return self._pool.submit(function, *args).result(seconds)
        except TimeoutError:
            self.end()
            raise

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._pool is not None:
            for process in list(self._pool._processes.values()):
                process.kill()
            self._pool.shutdown()
            self._pool = None


def peak_memory() -> int:
    """Most bytes of memory this process has held at once.

    Linux hands `ru_maxrss` on from the process that started this one, so its own high-water mark
    is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The exponent k of y ∝ x^k, by least squares on logarithms.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])
