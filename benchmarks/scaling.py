"""How time falls with workers: a fleet, processors, the reference, and the simulation of a run.

``python -m benchmarks.scaling [--json] [--quick] [--part NAME] [--repeats N]``

fleet       A simulated fleet of 16 equal devices that take 50 ms a job, whatever is in it, and a
            thread for each job under way. A batch of 120 queries on 8 qubits with 3 cuts is 7200
            circuits, in 288 jobs of at most 25; a single query is 60 jobs of one circuit. The
            1-worker run's task records then predict the others by simulation.
processes   A CPU-bound batch, exact values of circuits with one cut and fragments of 14 and of 16
            qubits: one process against two. They are up, and have their plan, before the time
            starts. Every process has one thread for linear algebra. Beside it the two halves of
            the batch in processes without a runtime, after and beside each other: what the
            machine itself can do.
reference   One query on 4 qubits, by the paper's pipeline and by ours, on the same Aer sampler, on
            1 and on 16 threads.
simulation  What the simulator itself takes for 200,000 tasks on 10,000 workers.

Times are those of whole `run` calls with a plan that is there already; ratios are of medians over
contestants in turns. Values are compared bit by bit: the number of workers may not change them.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks._harness import Contestant, Timing, progress, take_turns
from benchmarks._report import Bar, Figure, Report, Row, compare, parser, run
from benchmarks._runtime import SEED, SHOTS, check_same, evaluate, in_turns
from benchmarks._workload import Floats, Outcome, Workload, block_labels, workload
from benchmarks.query import aer_sampler
from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends.fleet import Fleet, homogeneous
from distributed_estimator.execution import Constant, Policy, Speculation, Stragglers
from distributed_estimator.records import TaskRecord, read_records
from distributed_estimator.reference import ReferenceEstimator
from distributed_estimator.simulation import Load, parse_service, simulate

QUBITS, CUTS = 8, 3
DEVICES = 16
LEAST_FLEET_SPEED_UP = 14.0
LEAST_PROCESS_SPEED_UP = 1.8
MOST_PREDICTION_ERROR = 0.15
MOST_SIMULATION_SECONDS = 60.0

SERVICE = "lognormal:0.05,1"
SIMULATED = {
    "eager": (Policy(), None),
    "speculation with restarts, 10 % delayed": (
        Policy(speculation=Speculation(0.5, 2.0, budget=1.0, restart=True)),
        Stragglers(0.1, Constant(1.0)),
    ),
}


@dataclass(frozen=True)
class Batch:
    """Queries for the fleet.

    Attributes:
        most_circuits: Of a job.
    """

    queries: int
    most_circuits: int


@dataclass(frozen=True)
class Size:
    """How much every part runs.

    Attributes:
        job: Seconds of a device for a job.
        workers: Of the fleet, the first being 1.
        batches: For the fleet; the bars are of the first.
        bindings: Of the CPU-bound batch, by the qubits of a fragment.
        simulated: Tasks and workers.
    """

    job: float
    workers: tuple[int, ...]
    batches: tuple[Batch, ...]
    bindings: dict[int, int]
    reference_cuts: tuple[int, ...]
    simulated: tuple[int, int]
    held: bool


FULL = Size(
    job=0.05,
    workers=(1, 2, 4, 8, 16),
    batches=(Batch(120, 25), Batch(1, 1)),
    bindings={14: 400, 16: 128},
    reference_cuts=(1, 2),
    simulated=(200_000, 10_000),
    held=True,
)
QUICK = Size(
    job=0.01,
    workers=(1, 2),
    batches=(Batch(5, 25), Batch(1, 5)),
    bindings={6: 32},
    reference_cuts=(1,),
    simulated=(2000, 100),
    held=False,
)


def plural(workers: int) -> str:
    """So many workers.

    >>> plural(1), plural(2)
    ('1 worker', '2 workers')
    """
    return f"{workers} worker" + ("" if workers == 1 else "s")


# --- a fleet --------------------------------------------------------------------------------------


class FleetRun:
    """An estimator with a fleet of its own, and the task records of what it ran."""

    def __init__(self, batch: Batch, job: float, workers: int, folder: Path) -> None:
        self.load = workload(QUBITS, batch.queries)
        self._path = folder / f"{workers}.jsonl"
        devices = homogeneous(
            DEVICES, seconds_per_job=job, seconds_per_shot=0.0, most_circuits=batch.most_circuits
        )
        self.estimator = DistributedEstimator(
            block_labels(QUBITS, CUTS),
            Fleet(devices),
            workers=workers,
            options=EstimatorOptions(shots=SHOTS, seed=SEED),
            trace=self._path,
        )
        evaluate(self.estimator, self.load, queries=0)

    def __call__(self) -> Outcome:
        return evaluate(self.estimator, self.load)

    def tasks(self) -> list[TaskRecord]:
        """Those of the last run."""
        records = [r for r in read_records(self._path) if isinstance(r, TaskRecord)]
        return [record for record in records if record.query_id == records[-1].query_id]


def _utilisation(tasks: Sequence[TaskRecord], workers: int) -> float:
    """The fraction of all workers' time, from first submission to last result, that tasks took."""
    spent = sum(task.finished - task.started for task in tasks if task.started is not None)
    span = max(task.finished for task in tasks) - min(task.submitted for task in tasks)
    return spent / (workers * span)


def _measure_fleet(size: Size, repeats: int, report: Report) -> None:
    for place, batch in enumerate(size.batches):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            runs = {w: FleetRun(batch, size.job, w, folder) for w in size.workers}
            for one in runs.values():
                stack.callback(one.estimator.close)
            held = size.held and place == 0
            _measure_batch(batch, runs, repeats, held, report)


def _measure_batch(
    batch: Batch, runs: dict[int, FleetRun], repeats: int, held: bool, report: Report
) -> None:
    calls = {f"fleet, {plural(w)}": call for w, call in runs.items()}
    progress(f"fleet: {batch}")
    timings = dict(zip(runs, in_turns(calls, repeats).values(), strict=True))
    check_same({timing.name: timing for timing in timings.values()})
    one = runs[1].tasks()
    jobs = len({task.job for task in one})
    case = {"qubits": QUBITS, "cuts": CUTS, "queries": batch.queries, "jobs": jobs}
    for workers, timing in timings.items():
        ideal = jobs / math.ceil(jobs / workers)
        used = _utilisation(runs[workers].tasks(), workers)
        report.figures.append(Figure(case, f"utilisation, {plural(workers)}", used, ""))
        if workers > 1:
            report.rows.append(_speed_up(case, timing, timings[1], held and workers == DEVICES))
            report.figures.append(Figure(case, f"ideal speed-up, {plural(workers)}", ideal, ""))
            report.figures += _predictions(case, one, workers, timing, held)


def _speed_up(case: dict[str, int], timing: Timing, one: Timing, held: bool) -> Row:
    ratio = one.seconds / timing.seconds
    figure = f"speed-up, {DEVICES} workers over 1"
    bars = (Bar(figure, ratio, ">=", LEAST_FLEET_SPEED_UP),) if held else ()
    return compare(case, timing, one, bars=bars)


def _predictions(
    case: dict[str, int], one: Sequence[TaskRecord], workers: int, timing: Timing, held: bool
) -> list[Figure]:
    """What the 1-worker run's records say of the execution stage, and how wrong that is."""
    load = Load.measured(one)
    expected = simulate(load.tasks, load.services, Policy(), workers).makespan
    error = abs(expected / timing.stages["t_execute"] - 1)
    name = f"simulated against real execution, {plural(workers)}: relative error"
    bars = (Bar(name, error, "<=", MOST_PREDICTION_ERROR),) if held else ()
    return [
        Figure(case, f"simulated execution, {plural(workers)}", expected, "s"),
        Figure(case, name, error, "", bars),
    ]


# --- processors -----------------------------------------------------------------------------------


def _measure_processes(size: Size, repeats: int, report: Report) -> None:
    for qubits, bindings in size.bindings.items():
        load = workload(2 * qubits, bindings)
        progress(f"processes: {bindings} bindings of two fragments of {qubits} qubits")
        with ExitStack() as stack:
            calls = {f"processes, {plural(w)}": _warm(load, w, stack) for w in (1, 2)}
            bare = {f"halves without a runtime, {plural(w)}": _bare(load, w, stack) for w in (1, 2)}
            timings = in_turns(calls | bare, repeats)
        check_same(timings)
        one, two, bare_one, bare_two = timings.values()
        case = {"qubits": 2 * qubits, "cuts": 1, "queries": bindings}
        figure = f"speed-up, 2 processes over 1, fragments of {qubits} qubits"
        bar = Bar(figure, one.seconds / two.seconds, ">=", LEAST_PROCESS_SPEED_UP)
        report.rows.append(compare(case, two, one, bars=(bar,) if size.held else ()))
        report.rows.append(compare(case, bare_two, bare_one))


def _bare(load: Workload, processes: int, stack: ExitStack) -> Callable[[], Outcome]:
    """Both halves of the batch, by one process or by one each."""
    context = multiprocessing.get_context("spawn")
    pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=context))
    halves = [replace(load, features=part) for part in np.array_split(load.features, 2)]
    warm = [replace(load, features=load.features[:1])] * 2 * processes

    def call() -> Outcome:
        return Outcome(np.concatenate(list(pool.map(_evaluate_here, halves))))

    list(pool.map(_evaluate_here, warm))
    return call


def _evaluate_here(load: Workload) -> Floats:
    """Exact values on one thread of this process; an estimator is made anew, which is little."""
    with DistributedEstimator(block_labels(load.num_qubits, 1), workers=1) as estimator:
        return evaluate(estimator, load, precision=0).values


def _warm(load: Workload, workers: int, stack: ExitStack) -> Callable[[], Outcome]:
    """The batch on processes that are up."""
    estimator = DistributedEstimator(
        block_labels(load.num_qubits, 1),
        pool="processes",
        workers=workers,
        options=EstimatorOptions(seed=SEED),
    )
    stack.callback(estimator.close)
    evaluate(estimator, load, precision=0, queries=len(load.bindings) // 4)
    return partial(evaluate, estimator, load, precision=0)


# --- the reference --------------------------------------------------------------------------------


def _measure_reference(size: Size, repeats: int, report: Report) -> None:
    load = workload(4, 1)
    for cuts in size.reference_cuts:
        progress(f"reference and ours, Aer: {cuts} cuts")
        with ExitStack() as stack:
            ways = [_ways(cuts, workers, load, stack) for workers in (1, DEVICES)]
            timings = take_turns([c for way in ways for c in way], repeats * 3, allowance=5.0)
        case = {"qubits": 4, "cuts": cuts, "queries": 1}
        for one, many in zip(*ways, strict=True):
            report.rows.append(compare(case, timings[many.name], timings[one.name]))
        reference, *ours = ways[-1]
        for way in ours:
            report.rows.append(compare(case, timings[way.name], timings[reference.name]))


def _ways(cuts: int, workers: int, load: Workload, stack: ExitStack) -> list[Contestant]:
    """The reference, and ours with large tasks and with the paper's."""
    labels, end = block_labels(4, cuts), f"Aer sampler, {plural(workers)}"
    reference = ReferenceEstimator(
        labels, sampler=aer_sampler(), workers=workers, shots=SHOTS, seed=SEED
    )
    ways = [Contestant(f"reference, {end}", partial(evaluate, reference, load))]
    for name, policy in (
        ("ours", Policy()),
        ("ours, a task for each subexperiment", Policy(subexperiments=1)),
    ):
        options = EstimatorOptions(shots=SHOTS, seed=SEED, policy=policy)
        estimator = DistributedEstimator(labels, aer_sampler(), workers=workers, options=options)
        stack.callback(estimator.close)
        ways.append(Contestant(f"{name}, {end}", partial(evaluate, estimator, load)))
    return ways


# --- the simulator --------------------------------------------------------------------------------


def _measure_simulation(size: Size, repeats: int, report: Report) -> None:
    tasks, workers = size.simulated
    load = Load.drawn(parse_service(SERVICE), tasks, SEED)
    for name, (policy, stragglers) in SIMULATED.items():
        progress(f"simulation of {tasks} tasks on {workers} workers, {name}")
        start = time.perf_counter()
        simulate(load.tasks, load.services, policy, workers, stragglers=stragglers, seed=SEED)
        seconds = time.perf_counter() - start
        figure = f"simulation, {name}"
        bars = (Bar(figure, seconds, "<=", MOST_SIMULATION_SECONDS),) if size.held else ()
        case = {"tasks": tasks, "workers": workers}
        report.figures.append(Figure(case, figure, seconds, "s", bars))


PARTS = {
    "fleet": _measure_fleet,
    "processes": _measure_processes,
    "reference": _measure_reference,
    "simulation": _measure_simulation,
}


def measure(arguments: argparse.Namespace) -> Report:
    """Every part, or the one that is asked for."""
    size = QUICK if arguments.quick else FULL
    settings = {
        "quick": arguments.quick,
        "part": arguments.part or "all",
        "repeats": arguments.repeats,
        "shots": SHOTS,
        "devices": DEVICES,
        "job_seconds": size.job,
        "service": SERVICE,
    }
    report = Report("scaling", settings)
    for name in (arguments.part,) if arguments.part else PARTS:
        PARTS[name](size, 1 if arguments.quick else arguments.repeats, report)
    return report


def main() -> None:
    """The command."""
    options = parser("scaling", "Time how a run scales with its workers.")
    options.add_argument("--part", choices=PARTS, help="one of them only")
    options.add_argument("--repeats", type=int, default=3, metavar="N", help="default: 3")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
