"""What stragglers cost under every policy, beside what no policy can beat.

``python -m benchmarks.stragglers [--json] [--quick] [--seeds N]``

The paper's straggler model (§III): every subexperiment sleeps 0.1 s with probability p before it
runs. A batch of 8 queries on 8 qubits with 3 cuts is 480 subexperiments, each a task of its own as
in the paper, on 8 threads before a simulated fleet of 8 devices that take 20 ms a job. All policies
get the same delays for first attempts; another seed is another draw. A delay is withdrawn with its
attempt, a job that is on a device is not.

The lower bound holds for the expected time of every policy that does not know the future. Tasks
take as long in it as they took a worker in traced runs without stragglers, which is some more than
the device's 20 ms; the bound for exactly 20 ms stands beside it. Times are those of the whole `run`
call, with a plan that is there already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import Timing, progress
from benchmarks._report import Bar, Figure, Report, compare, parser, run
from benchmarks._runtime import SHOTS, Sample, check_same, evaluate, summary
from benchmarks._workload import Workload, block_labels, workload
from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends.fleet import Fleet, homogeneous
from distributed_estimator.execution import (
    Batches,
    ByLabel,
    Constant,
    LongestFirst,
    Policy,
    Speculation,
    Stragglers,
)
from distributed_estimator.records import read_records
from distributed_estimator.simulation import Load, lower_bound

QUBITS, CUTS = 8, 3
CIRCUITS = 60  # settings of a query
WORKERS = 8
JOB = 0.02  # seconds
DELAY = 0.1  # seconds

FACTOR = 1.1
"""Low, as a delay that is withdrawn ends at once, and a job that is on a device still counts."""

EAGER = "eager"
BASELINE = "eager, no stragglers"
POLICIES: Mapping[str, Policy] = {
    EAGER: Policy(subexperiments=1),
    "batches of 8 every 20 ms": Policy(Batches(WORKERS, delay=JOB), subexperiments=1),
    "by label": Policy(order=ByLabel(), subexperiments=1),
    "longest first": Policy(order=LongestFirst(), subexperiments=1),
    "speculation, duplicates": Policy(
        speculation=Speculation(quantile=0.5, factor=FACTOR, budget=2.0), subexperiments=1
    ),
    "speculation, restarts": Policy(
        speculation=Speculation(quantile=0.5, factor=FACTOR, budget=2.0, restart=True),
        subexperiments=1,
    ),
}

OVER = "best policy / expected lower bound"
OVER_NOMINAL = f"{OVER}, tasks of exactly 20 ms"
LEFT = "(best policy - no stragglers) / (eager - no stragglers)"
MOST_OVER_BOUND = 1.15
MOST_LEFT = 0.5
BARS_AT = 20  # per cent


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        percents: Probabilities of a delay, in per cent; the first is 0.
    """

    queries: int
    percents: tuple[int, ...]

    @property
    def tasks(self) -> int:
        """Subexperiments of the batch."""
        return self.queries * CIRCUITS


FULL = Size(8, (0, 5, 10, 20, 30))
QUICK = Size(1, (0, 20))


def stragglers(percent: int) -> Stragglers:
    """Constant delays, as in the paper."""
    return Stragglers(percent / 100, Constant(DELAY))


def run_once(
    policy: Policy, load: Workload, percent: int, seed: int, trace: Path | None = None
) -> Sample:
    """One batch with delays drawn for the seed; the estimator has its plan before."""
    options = EstimatorOptions(
        shots=SHOTS, seed=seed, policy=policy, stragglers=stragglers(percent)
    )
    fleet = Fleet(homogeneous(WORKERS, seconds_per_job=JOB, seconds_per_shot=0.0))
    labels = block_labels(QUBITS, CUTS)
    estimator = DistributedEstimator(labels, fleet, "threads", WORKERS, options, trace=trace)
    with closing(estimator):
        evaluate(estimator, load, queries=0)
        start = time.perf_counter()
        outcome = evaluate(estimator, load)
        return time.perf_counter() - start, outcome


def services(load: Workload, seed: int) -> tuple[float, ...]:
    """What every task takes a worker, in seconds, in a run without stragglers."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "tasks.jsonl"
        run_once(POLICIES[EAGER], load, 0, seed, trace)
        return Load.measured(read_records(trace)).services


def _timings(percent: int, load: Workload, seeds: Sequence[int]) -> dict[str, Timing]:
    """Medians over the seeds of every policy; policies take turns."""
    samples: dict[str, list[Sample]] = {name: [] for name in POLICIES}
    for seed in seeds:
        for name, policy in POLICIES.items():
            sample = run_once(policy, load, percent, seed)
            samples[name].append(sample)
            progress(f"  p = {percent} %, seed {seed}, {name}: {sample[0]:.3f} s")
    timings = {name: summary(name, taken) for name, taken in samples.items()}
    check_same(timings)
    return timings


def _figures(
    case: Mapping[str, int],
    timings: Mapping[str, Timing],
    baseline: Timing,
    measured: Sequence[Sequence[float]],
) -> list[Figure]:
    """The best policy beside the bound, and what it leaves of the loss."""
    best = min(timings.values(), key=lambda timing: timing.seconds)
    delays = stragglers(case["percent_delayed"])
    bound = float(np.median([lower_bound(each, WORKERS, delays) for each in measured]))
    nominal = lower_bound([JOB] * case["tasks"], WORKERS, delays)
    figures = [
        Figure(case, "expected lower bound", bound, "s"),
        Figure(case, "expected lower bound, tasks of exactly 20 ms", nominal, "s"),
        Figure(case, BASELINE, baseline.seconds, "s"),
        Figure(case, f"best policy ({best.name})", best.seconds, "s"),
        _ratio(case, OVER, best.seconds / bound, MOST_OVER_BOUND),
        _ratio(case, OVER_NOMINAL, best.seconds / nominal, MOST_OVER_BOUND),
    ]
    loss = timings[EAGER].seconds - baseline.seconds
    if case["percent_delayed"] and loss > 0:
        left = (best.seconds - baseline.seconds) / loss
        figures.append(_ratio(case, LEFT, left, MOST_LEFT))
    return figures


def _ratio(case: Mapping[str, int], name: str, value: float, target: float) -> Figure:
    """A ratio, held to its bar where there is one."""
    held = case["percent_delayed"] == BARS_AT and case["tasks"] == FULL.tasks
    bars = (Bar(name, value, "<=", target),) if held else ()
    return Figure(case, name, value, "", bars)


def measure(arguments: argparse.Namespace) -> Report:
    """Every policy at every probability."""
    size, seeds = (QUICK, range(1)) if arguments.quick else (FULL, range(arguments.seeds))
    report = Report("stragglers", _settings(arguments.quick, seeds))
    load = workload(QUBITS, size.queries)
    run_once(POLICIES[EAGER], load, 0, 0)
    measured = [services(load, seed) for seed in seeds]
    baseline: Timing | None = None
    for percent in size.percents:
        case = {"tasks": size.tasks, "percent_delayed": percent}
        timings = _timings(percent, load, seeds)
        baseline = baseline or replace(timings[EAGER], name=BASELINE)
        for name, timing in timings.items():
            other = baseline if name == EAGER else timings[EAGER]
            if percent or name != EAGER:
                report.rows.append(compare(case, timing, other))
        report.figures += _figures(case, timings, baseline, measured)
    return report


def _settings(quick: bool, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "quick": quick,
        "qubits": QUBITS,
        "cuts": CUTS,
        "shots": SHOTS,
        "workers": WORKERS,
        "job_seconds": JOB,
        "delay_seconds": DELAY,
        "seeds": list(seeds),
        "policies": {name: policy.name for name, policy in POLICIES.items()},
    }


def main() -> None:
    """The command."""
    options = parser("stragglers", "Time a batch with stragglers under every policy.")
    options.add_argument("--seeds", type=int, default=3, metavar="N", help="default: 3")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
