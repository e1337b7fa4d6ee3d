"""What the runtime itself costs a task: the dispatcher alone, then every pool with empty tasks.

``python -m benchmarks.overhead [--json] [--quick] [--pool NAME] [--repeats N]``

The dispatcher is driven on a virtual clock, without a pool: submissions, starts and ends of 20,000
tasks on 16 workers, eagerly, and with speculation where every twentieth first attempt takes ten
times as long. What counts is processor time, that of the loop that drives it included.

End to end, tasks that do nothing go through `run_tasks` and a pool of 2 workers that are up: one
task a job, and bundled as the pool asks by default. Pools take turns.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from benchmarks._harness import Timing, progress
from benchmarks._report import Bar, Figure, Report, Skipped, parser, run
from benchmarks._runtime import empty_tasks, in_turns
from benchmarks._workload import Outcome
from distributed_estimator.errors import MissingExtraError
from distributed_estimator.execution import (
    Policy,
    Pool,
    Speculation,
    TaskSpec,
    make_pool,
    run_tasks,
)
from distributed_estimator.execution.dispatcher import Dispatcher
from distributed_estimator.execution.messages import (
    Cancel,
    Event,
    Instruction,
    JobFinished,
    JobLost,
    JobStarted,
    Submit,
    Tick,
)

DISPATCHED = 20_000
DISPATCH_WORKERS = 16
TARGET = 50e-6  # seconds a task
LATE_EACH = 20
LATE_SECONDS = 10.0

POOL_WORKERS = 2
ALONE = {"threads": 2000, "processes": 2000, "dask": 100, "ray": 1000}
"""Tasks of a run with a job for each: what takes a second or two."""
BUNDLED = 20_000
POOLS = tuple(ALONE)

POLICIES = {
    "eager": Policy(),
    "speculation, duplicates": Policy(speculation=Speculation(0.5, 1.5, budget=1.0)),
    "speculation, restarts": Policy(speculation=Speculation(0.5, 1.5, budget=1.0, restart=True)),
}


@dataclass
class VirtualRun:
    """A dispatcher driven to the end on a virtual clock by workers that begin at once.

    Attributes:
        submitted: Jobs so far.
    """

    dispatcher: Dispatcher
    submitted: int = 0
    _now: float = 0.0
    _jobs: dict[int, Submit] = field(default_factory=dict)
    _ends: list[tuple[float, int]] = field(default_factory=list)
    _events: deque[Event] = field(default_factory=deque)

    def to_the_end(self) -> None:
        """Until every task is accepted."""
        self._act(self.dispatcher.start(0.0))
        while not self.dispatcher.done:
            event = self._events.popleft() if self._events else self._next()
            self._now = event.at
            self._act(self.dispatcher.handle(event))

    def _next(self) -> Event:
        """What the clock brings: the next job that ends, or the time the dispatcher asked for."""
        while self._ends[0][1] not in self._jobs:
            heapq.heappop(self._ends)
        at, number = self._ends[0]
        wake = self.dispatcher.next_wake
        if wake is not None and wake < at:
            return Tick(max(wake, self._now))
        heapq.heappop(self._ends)
        job = self._jobs.pop(number)
        return JobFinished(number, at, tuple((task, _seconds(job)) for task in job.tasks))

    def _act(self, instructions: Iterable[Instruction]) -> None:
        for told in instructions:
            if isinstance(told, Submit):
                self.submitted += 1
                self._jobs[told.job] = told
                heapq.heappush(self._ends, (self._now + _seconds(told), told.job))
                self._events.append(JobStarted(told.job, self._now))
            elif isinstance(told, Cancel) and self._jobs.pop(told.job, None) is not None:
                self._events.append(JobLost(told.job, self._now, "cancelled", "withdrawn"))


def _seconds(job: Submit) -> float:
    late = job.attempts[0] == 0 and job.tasks[0] % LATE_EACH == 0
    return LATE_SECONDS if late else 1.0


def _dispatch(policy: Policy, specs: Sequence[TaskSpec]) -> Outcome:
    played = VirtualRun(Dispatcher(specs, policy, DISPATCH_WORKERS))
    start = time.process_time()
    played.to_the_end()
    return Outcome(np.array([played.submitted]), {"processor": time.process_time() - start})


def _measure_dispatcher(arguments: argparse.Namespace, report: Report) -> None:
    count = 500 if arguments.quick else DISPATCHED
    progress(f"the dispatcher alone, {count} tasks")
    specs = [TaskSpec(str(number), 1.0) for number in range(count)]
    calls = {name: partial(_dispatch, policy, specs) for name, policy in POLICIES.items()}
    case = {"tasks": count, "workers": DISPATCH_WORKERS}
    for name, timing in in_turns(calls, arguments.repeats).items():
        figure = f"dispatcher, {name}: processor time a task"
        seconds = timing.stages["processor"] / count
        bars = () if arguments.quick else (Bar(figure, seconds, "<=", TARGET),)
        report.figures.append(Figure(case, figure, seconds, "s", bars))
        jobs = float(timing.values[0]) / count
        report.figures.append(Figure(case, f"dispatcher, {name}: jobs a task", jobs, ""))


def _run_empty(pool: Pool, count: int, job_seconds: float) -> Outcome:
    """Tasks that do nothing, in jobs of so many seconds."""
    folded = np.zeros(count)

    def fold(number: int, *_: object) -> None:
        folded[number] += 1

    pool.job_seconds = job_seconds
    run_tasks(pool, empty_tasks(count), fold)
    if not (folded == 1).all():
        raise RuntimeError(f"{pool.name} folded {folded.sum():g} of {count} results once each")
    return Outcome(folded)


def _calls(pool: Pool, quick: bool) -> dict[str, tuple[int, Callable[[], Outcome]]]:
    """What is timed with a pool, by name, each with its number of tasks."""
    counts = (20, 100) if quick else (ALONE[pool.name], BUNDLED)
    default = pool.job_seconds
    ways = {
        f"{pool.name}, a job for each": (counts[0], 0.0),
        f"{pool.name}, bundled to {default:g} s": (counts[1], default),
    }
    return {
        name: (count, partial(_run_empty, pool, count, seconds))
        for name, (count, seconds) in ways.items()
    }


def _start(name: str) -> Pool:
    """A pool with its workers up."""
    pool = make_pool(name, POOL_WORKERS)
    default = pool.job_seconds
    _run_empty(pool, 20 * POOL_WORKERS, 0.0)
    pool.job_seconds = default
    return pool


def _measure_pools(arguments: argparse.Namespace, report: Report) -> None:
    calls: dict[str, tuple[int, Callable[[], Outcome]]] = {}
    with ExitStack() as stack:
        for name in (arguments.pool,) if arguments.pool else POOLS:
            progress(f"starting {POOL_WORKERS} workers: {name}")
            try:
                pool = _start(name)
            except MissingExtraError as error:
                report.skipped.append(Skipped({"workers": POOL_WORKERS}, name, str(error)))
                continue
            stack.callback(pool.close)
            calls |= _calls(pool, arguments.quick)
        timings = in_turns({name: call for name, (_, call) in calls.items()}, arguments.repeats)
    for name, (count, _) in calls.items():
        report.figures.append(_a_task(timings[name], count))


def _a_task(timing: Timing, count: int) -> Figure:
    case = {"tasks": count, "workers": POOL_WORKERS}
    return Figure(case, f"{timing.name}: a task", timing.seconds / count, "s")


def _engine(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def measure(arguments: argparse.Namespace) -> Report:
    """The dispatcher, then the pools."""
    settings = {
        "quick": arguments.quick,
        "repeats": arguments.repeats,
        "late": f"every {LATE_EACH}th first attempt takes {LATE_SECONDS:g} instead of 1",
        "engines": {name: _engine(name) for name in ("distributed", "ray")},
    }
    report = Report("overhead", settings)
    _measure_dispatcher(arguments, report)
    _measure_pools(arguments, report)
    return report


def main() -> None:
    """The command."""
    options = parser("overhead", "What the runtime costs a task.")
    options.add_argument("--pool", choices=POOLS, help="end to end with this pool only")
    options.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
