"""How far the cost model is off for configurations that it has not seen.

``python -m benchmarks.cost_model [--json] [--quick] [--records FILE]``

QNNs of 2 to 8 qubits, 0 to 3 cuts, several shots, numbers of queries and workers, on the local
simulator and on Aer's sampler: a seeded choice of all combinations, whose queries take turns, so
that what else the machine does hits all of them. The first query of each makes its plan and stands
apart, as a setup of its own.

Two ways of holding out: each configuration against a fit without it, which has seen the same
circuit at other shots or batch sizes; and all configurations of some circuits (width and cuts)
against a fit to the other circuits. An error is |predicted / median of the measured - 1|.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from qiskit_aer.primitives import SamplerV2

from benchmarks._harness import progress
from benchmarks._report import Bar, Figure, Report, parser, run
from benchmarks._workload import Workload, block_labels, workload
from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.analysis.costs import CostData, CostModel, Setup, Validation, read_costs
from distributed_estimator.records import QueryRecord

QUBITS = range(2, 9)
CUTS = range(4)
SHOTS = (128, 256, 512, 1024, 2048, 4096)
QUERIES = (1, 2, 4, 8, 16)
WORKERS = (1, 2)
BACKENDS = ("statevector", "aer")
CONFIGURATIONS = {"statevector": 120, "aer": 80}
QUICK_CONFIGURATIONS = 14
TURNS = {"statevector": 21, "aer": 11}
MOST_SHOTS_IN_ALL = 400_000
"""Of a configuration on Aer: what takes about half a second."""
CIRCUITS_PER_CUTS = (1, 10, 35, 60)
SEED = 7
TARGET = 0.15


@dataclass(frozen=True)
class Case:
    """One configuration."""

    backend: str
    qubits: int
    cuts: int
    shots: int
    queries: int
    workers: int

    @property
    def is_brief(self) -> bool:
        """Whether its shots are few enough for Aer."""
        shots = CIRCUITS_PER_CUTS[self.cuts] * self.queries * self.shots
        return self.backend == "statevector" or shots <= MOST_SHOTS_IN_ALL


def cases(backend: str, count: int) -> list[Case]:
    """A seeded choice of so many configurations."""
    grid = itertools.product(QUBITS, CUTS, SHOTS, QUERIES, WORKERS)
    every = [Case(backend, *numbers) for numbers in grid]
    possible = [case for case in every if case.cuts < case.qubits and case.is_brief]
    picks = np.random.default_rng(SEED).permutation(len(possible))[:count]
    return [possible[pick] for pick in picks]


@dataclass
class Bench:
    """A configuration and the estimator that asks its queries again and again."""

    case: Case
    log: Path
    load: Workload = field(init=False)
    estimator: DistributedEstimator = field(init=False)

    def __post_init__(self) -> None:
        case = self.case
        backend = SamplerV2(options={"backend_options": {"max_parallel_threads": 1}})
        self.load = workload(case.qubits, case.queries)
        self.estimator = DistributedEstimator(
            cuts=block_labels(case.qubits, case.cuts),
            backend=backend if case.backend == "aer" else None,
            workers=case.workers,
            options=EstimatorOptions(shots=case.shots, seed=SEED),
            log=self.log,
        )

    def ask(self) -> None:
        """One batch of queries."""
        load = self.load
        self.estimator.run([(load.circuit, load.observable, load.bindings)]).result()


def record(backend: str, quick: bool, log: Path) -> None:
    """Ask all configurations of a backend in turns; their records go to `log`."""
    chosen = cases(backend, QUICK_CONFIGURATIONS if quick else CONFIGURATIONS[backend])
    turns = 3 if quick else TURNS[backend]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # What a process pays once, for imports say, is not a query's.
        warm_up = Bench(chosen[0], Path(folder) / "warm-up.jsonl")
        warm_up.ask()
        warm_up.estimator.close()
        benches = [Bench(case, log) for case in chosen]
        for bench in benches:
            stack.callback(bench.estimator.close)
        for turn in range(1 + turns):
            progress(f"{backend}: turn {turn} of {turns}, {len(benches)} configurations")
            for bench in benches:
                bench.ask()


def _circuit(query: QueryRecord) -> tuple[int, int]:
    return query.circuit.num_qubits, query.num_cuts


def _halves(
    queries: Sequence[QueryRecord],
) -> Iterator[tuple[list[QueryRecord], list[QueryRecord]]]:
    """Records of a random half of the circuits, those of the rest; then the other way round."""
    circuits = sorted({_circuit(query) for query in queries})
    order = np.random.default_rng(SEED).permutation(len(circuits))
    for start in (0, 1):
        kept = {circuits[place] for place in order[start::2]}
        yield (
            [query for query in queries if _circuit(query) in kept],
            [query for query in queries if _circuit(query) not in kept],
        )


def _named(setup: Setup) -> str:
    return f"{setup.backend}, {'plan at hand' if setup.plan_cached else 'plan to be made'}"


def _figures(
    setup: Setup, validation: Validation, way: str, *, judged: bool = False
) -> Iterator[Figure]:
    case = {"configurations": validation.configurations}
    for name, error in validation.median_error.items():
        title = f"{_named(setup)}, {way}: median error of {name}"
        is_bar = judged and name == "total" and setup.plan_cached
        bars = (Bar(title, error, "<=", TARGET),) if is_bar else ()
        yield Figure(case, title, error, "", bars)
    title = f"{_named(setup)}, {way}: 90th percentile of the error of total"
    yield Figure(case, title, validation.p90_error["total"], "")


def _scatter(data: CostData) -> Iterator[Figure]:
    """How far two medians, of half the queries each, are apart for the same configuration.

    That is about twice what the medians that predictions are held against are off themselves.
    """
    for setup, configurations in data.configurations.items():
        totals = [each.times[:, -1] for each in configurations if len(each.times) > 1]
        apart = [abs(np.median(own[::2]) / np.median(own[1::2]) - 1) for own in totals]
        if apart:
            title = f"{_named(setup)}: every other query's total against the others'"
            yield Figure({"configurations": len(apart)}, title, float(np.median(apart)), "")


def _held_out_circuits(queries: Sequence[QueryRecord], report: Report) -> None:
    for number, (fitted, others) in enumerate(_halves(queries), start=1):
        way = f"held-out circuits, half {number}"
        for setup, (validation, inside) in CostModel.fit(fitted).held_out(others).items():
            report.figures.extend(_figures(setup, validation, way))
            title = f"{_named(setup)}, {way}: total inside its 90 % interval"
            case = {"configurations": validation.configurations}
            report.figures.append(Figure(case, title, inside["total"], ""))


def measure(arguments: argparse.Namespace) -> Report:
    """Record, fit, and hold out."""
    report = Report("cost_model", {"quick": arguments.quick, "seed": SEED})
    with tempfile.TemporaryDirectory() as folder:
        log = arguments.records or Path(folder) / "queries.jsonl"
        if not log.exists():
            for backend in BACKENDS:
                record(backend, arguments.quick, log)
        queries, headers = read_costs(log)
    model = CostModel.fit(queries, headers)
    for own in model.setups:
        way = "held-out configurations"
        report.figures.extend(_figures(own.setup, own.validation, way, judged=not arguments.quick))
    report.figures.extend(_scatter(CostData.of(queries)))
    if not arguments.quick:
        _held_out_circuits(queries, report)
    return report


def main() -> None:
    """The command."""
    options = parser("cost_model", "How far the cost model is off.")
    options.add_argument(
        "--records", type=Path, metavar="FILE", help="keep the records in FILE, or use those there"
    )
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
