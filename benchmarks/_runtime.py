"""What the benchmarks of the runtime share: turns without a warm-up, and empty tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import numpy as np

from benchmarks._harness import Timing, progress
from benchmarks._workload import Outcome, Workload
from distributed_estimator import DistributedEstimator
from distributed_estimator.execution import Assignment, TaskSpec
from distributed_estimator.execution.messages import Arrays
from distributed_estimator.reference import ReferenceEstimator

SHOTS = 1024
SEED = 7

Sample = tuple[float, Outcome]


def summary(name: str, samples: Sequence[Sample]) -> Timing:
    """Median and quartiles of timed calls; the values are the last one's."""
    low, median, high = np.quantile([seconds for seconds, _ in samples], [0.25, 0.5, 0.75])
    outcomes = [outcome for _, outcome in samples]
    stages = {s: float(np.median([o.stages[s] for o in outcomes])) for s in outcomes[0].stages}
    return Timing(
        name, float(median), float(low), float(high), len(samples), stages, outcomes[-1].values
    )


def in_turns(calls: Mapping[str, Callable[[], Outcome]], repeats: int) -> dict[str, Timing]:
    """Time calls of seconds in turns, each `repeats` times. What they need is warm already."""
    samples: dict[str, list[Sample]] = {name: [] for name in calls}
    for turn in range(1, repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            outcome = call()
            seconds = time.perf_counter() - start
            samples[name].append((seconds, outcome))
            progress(f"  [{turn}/{repeats}] {name}: {seconds:.3g} s")
    return {name: summary(name, taken) for name, taken in samples.items()}


def check_same(timings: Mapping[str, Timing]) -> None:
    """A time for another value means nothing: workers and policies may not change a bit."""
    first, *others = timings.values()
    for other in others:
        if not np.array_equal(first.values, other.values):
            raise RuntimeError(
                f"{other.name} and {first.name} differ by "
                f"{abs(first.values - other.values).max():.3g}, expected the same bits"
            )


def evaluate(
    estimator: DistributedEstimator | ReferenceEstimator,
    load: Workload,
    precision: float | None = None,
    queries: int | None = None,
) -> Outcome:
    """All queries of a workload, or its first few, as one PUB, with the stages it reports."""
    pub = load.circuit, load.observable, load.bindings[:queries]
    result = estimator.run([pub], precision=precision).result()[0]
    stages = {name: float(s) for name, s in result.metadata.items() if name.startswith("t_")}
    return Outcome(result.data.evs, stages)


@dataclass(frozen=True)
class Empty:
    """A work whose tasks do nothing, so that what they take is the runtime's."""

    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task: int) -> Arrays:
        """One number."""
        return (np.zeros(1),)


def empty_tasks(count: int) -> Assignment:
    """So many tasks that do nothing, and are expected to take 0.1 ms."""
    specs = [TaskSpec(str(number), 1e-4) for number in range(count)]
    return Assignment(Empty(), range(count), specs, lambda task, arrays: None, str)
