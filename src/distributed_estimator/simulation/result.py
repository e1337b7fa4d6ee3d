"""What a simulated run was like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """What a simulated run was like. All times are seconds.

    Attributes:
        makespan: From the first submission until every task is accepted or given up.
        workers: Of the pool.
        useful: What workers spent on results that were accepted, injected delays included.
        wasted: What they spent, until the end of the run, on attempts that brought nothing.
        latency: Of the tasks that were accepted.
        tail: From the time when 95 % of the results were there until the last one was.
        jobs: How many were submitted.
        retries: Tasks submitted again after a failure.
        speculated: Tasks duplicated or begun anew for being late.
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


def tail_of(accepted: Sequence[float]) -> float:
    """The tail of a run whose results were accepted at these times."""
    if not accepted:
        return 0.0
    times = sorted(accepted)
    return times[-1] - times[math.ceil(_MOST * len(times)) - 1]
