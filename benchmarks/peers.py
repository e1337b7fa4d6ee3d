"""The same queries on four packages that cut circuits: circuits, seconds, and variance × shots.

``python -m benchmarks.peers [--json [FILE]] [--quick] [--budget SECONDS] [--runs N]``

One value of the paper's QNN with Z on every qubit: 4 qubits with 1 to 3 cuts, and 10 in two halves,
at the same places for all. Every contestant starts from the circuit in each run, on one thread,
with 256 shots for each of its circuits: qiskit-addon-cutting, QCut and ours on Aer; PennyLane's
`cut_circuit`, which cuts wires where the others cut gates, on its `default.qubit`. Ours runs once
more by its design: no more shots than that, divided as a small pilot says, pilot included.

Contestants take turns. Run n of each has seed n and binding n of a few random ones, so that the
variance is the mean of the squared distances from the exact value, with the standard error of that
mean. A contestant ends when its --budget is spent, which leaves slow ones fewer runs. For the addon
and QCut the variance is known exactly, too (`benchmarks._peers`). Variance × shots is what a
standard error of 1 costs in shots: less is better, and 1 - y² is what a circuit that is not cut
takes.

What qTPU publishes about circuits is listed as published beside ours; it is not run. A package that
is not installed is listed as absent.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks import _cut_circuits as circuits
from benchmarks import _peers as peers
from benchmarks import _pennylane as pennylane
from benchmarks._cut_circuits import CutCircuit
from benchmarks._harness import progress
from benchmarks._peers import Estimate, SeededAer, Terms
from benchmarks._report import (
    Figure,
    Report,
    Skipped,
    deliver,
    duration,
    parser,
    show,
    table,
    tables,
)
from benchmarks._workload import boundaries
from distributed_estimator import DistributedEstimator, EstimatorOptions

SHOTS = 256  # of each circuit
BINDINGS = 8
RUNS, QUICK_RUNS = 200, 3  # at most, of each contestant and query
LEAST_RUNS = 2
BUDGET, QUICK_BUDGET = 60.0, 1.0  # seconds of each contestant and query

ADDON, QCUT, PENNYLANE = "qiskit-addon-cutting", "QCut", "PennyLane cut_circuit, wire cuts"
OURS, DESIGNED = "ours", "ours, shots by design"

# Circuits for one measurement basis of the 80-qubit `qnn` of MQT Bench in pieces of ten, as
# published. Ours for the same is a figure of `benchmarks.search`.
QTPU_CIRCUITS = 228

Run = Callable[[int], Estimate]
"""One estimate, by the number of the run."""


@dataclass(frozen=True)
class Cost:
    """What one contestant took for one query.

    Attributes:
        circuits: Of a run; by design, the most of one, as a pilot's come twice.
        shots: Mean over the runs.
        seconds: Median over the runs.
        spread: First and third quartile of the seconds.
        price: Variance × shots.
        price_stderr: Its standard error.
        exact_price: The same in closed form, where that is known.
    """

    circuit: str
    contestant: str
    runs: int
    circuits: int
    shots: float
    seconds: float
    spread: tuple[float, float]
    price: float
    price_stderr: float
    exact_price: float | None


@dataclass
class Found:
    """All that was measured."""

    report: Report
    costs: list[Cost] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report with every entry."""
        return self.report.as_json() | {"costs": [asdict(cost) for cost in self.costs]}


@dataclass
class Taken:
    """Runs of one contestant.

    Attributes:
        errors: Distances from the exact value.
    """

    estimates: list[Estimate] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, run: Run, number: int, exact: float) -> None:
        """Run once more."""
        begun = time.perf_counter()
        estimate = run(number)
        self.seconds.append(time.perf_counter() - begun)
        self.estimates.append(estimate)
        self.errors.append(estimate.value - exact)

    def cost(self, circuit: str, contestant: str, exact_price: float | None) -> Cost:
        """Everything about them."""
        squares = np.square(self.errors)
        shots = float(np.mean([estimate.shots for estimate in self.estimates]))
        low, median, high = np.quantile(self.seconds, [0.25, 0.5, 0.75]).tolist()
        return Cost(
            circuit,
            contestant,
            runs=len(squares),
            circuits=max(estimate.circuits for estimate in self.estimates),
            shots=shots,
            seconds=median,
            spread=(low, high),
            price=float(squares.mean()) * shots,
            price_stderr=float(squares.std(ddof=1) / len(squares) ** 0.5) * shots,
            exact_price=exact_price,
        )


def _ours(case: CutCircuit, number: int, options: EstimatorOptions) -> Estimate:
    """From nothing: plan, circuits and value."""
    values = case.bindings[number % len(case.bindings)]
    with DistributedEstimator(
        case.labels, SeededAer(number), workers=1, options=options
    ) as estimator:
        result = estimator.run([(case.circuit, case.observable, values)]).result()[0]
    metadata = result.metadata
    return Estimate(float(result.data.evs), metadata["shots_total"], metadata["num_circuits"])


def _contestants(case: CutCircuit) -> dict[str, Run]:
    """Every contestant that is installed."""
    circuits_of_ours = case.plan.predicted.circuits

    def bound(number: int) -> Any:
        return case.bound(case.bindings[number % len(case.bindings)])

    def designed(number: int) -> Estimate:
        options = EstimatorOptions(shots_total=SHOTS * circuits_of_ours, seed=number)
        return _ours(case, number, options)

    found: dict[str, Run] = {
        OURS: lambda number: _ours(case, number, EstimatorOptions(shots=SHOTS, seed=number)),
        DESIGNED: designed,
    }
    if peers.addon_missing() is None:
        found[ADDON] = lambda number: peers.addon(bound(number), case.labels, SHOTS, number)
    if peers.qcut_missing() is None:
        found[QCUT] = lambda number: peers.qcut(bound(number), case.labels, SHOTS, number)
    if pennylane.missing() is None:
        before = boundaries(list(case.labels))
        found[PENNYLANE] = lambda number: pennylane.cut_estimate(
            case.bindings[number % len(case.bindings)], before, SHOTS, number
        )
    return found


def _exact_price(case: CutCircuit, contestant: str) -> float | None:
    """The mean over the bindings of variance × shots."""
    terms_of: dict[str, Callable[..., Terms]] = {
        ADDON: peers.addon_terms,
        QCUT: peers.qcut_terms,
    }
    if contestant not in terms_of:
        return None
    every = [terms_of[contestant](case.bound(values), case.labels) for values in case.bindings]
    return float(np.mean([terms.variance(SHOTS) * terms.shots(SHOTS) for terms in every]))


def _costs(case: CutCircuit, runs: int, budget: float) -> Iterator[Cost]:
    """All contestants in turns; the first run of each is not counted, as it imports things."""
    exact, contestants = case.exact(), _contestants(case)
    taken = {name: Taken() for name in contestants}
    for run in contestants.values():
        run(runs)
    for number in range(runs):
        for name, run in contestants.items():
            if number < LEAST_RUNS or sum(taken[name].seconds) < budget:
                taken[name].add(run, number, float(exact[number % len(exact)]))
    for name, own in taken.items():
        yield own.cost(case.name, name, _exact_price(case, name))


def measure(arguments: Namespace) -> Found:
    """Every query on every package."""
    quick = arguments.quick
    runs = arguments.runs or (QUICK_RUNS if quick else RUNS)
    budget = QUICK_BUDGET if quick else arguments.budget
    settings = {"quick": quick, "runs": runs, "shots": SHOTS, "bindings": BINDINGS}
    found = Found(Report("peers", settings | {"budget": budget}))
    report = found.report
    for name, reason in (
        (ADDON, peers.addon_missing()),
        (QCUT, peers.qcut_missing()),
        (PENNYLANE, pennylane.missing()),
    ):
        if reason is not None:
            report.skipped.append(Skipped({}, name, reason))
    cases = [circuits.qnn_blocks(cuts, BINDINGS) for cuts in ((1,) if quick else (1, 2, 3))]
    for case in [*cases, circuits.halves(10, BINDINGS)][: 1 if quick else None]:
        progress(case.name)
        found.costs += _costs(case, runs, budget)
        uncut = float(np.mean(1 - case.exact() ** 2))
        of = {"qubits": case.circuit.num_qubits, "cuts": case.plan.num_cuts}
        report.figures.append(Figure(of, "not cut: variance × shots", uncut, ""))
    name = "circuits of qnn in pieces of 10, published by qTPU, not measured"
    report.figures.append(Figure({"qubits": 80}, name, QTPU_CIRCUITS, ""))
    return found


def _line(cost: Cost) -> tuple[str, ...]:
    price = f"{cost.price:.3g} ± {cost.price_stderr:.1g}"
    exact = "" if cost.exact_price is None else f"{cost.exact_price:.3g}"
    counts = str(cost.circuits), f"{cost.shots:,.0f}", str(cost.runs)
    return cost.circuit, cost.contestant, *counts, duration(cost.seconds), price, exact


def print_tables(found: Found) -> None:
    """The tables for people."""
    columns = ("query", "contestant", "circuits", "shots", "runs", "time", "variance × shots")
    title = f"One value, {SHOTS} shots a circuit"
    lines = map(_line, found.costs)
    show([table(title, (*columns, "in closed form"), lines), *tables(found.report)])


def main() -> None:
    """The command."""
    options = parser("peers", "The same queries on packages that cut circuits.")
    options.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        metavar="SECONDS",
        help=f"seconds of each contestant and query (default: {BUDGET:g})",
    )
    options.add_argument(
        "--runs", type=int, metavar="N", help=f"runs of each at most; default: {RUNS}"
    )
    arguments = options.parse_args()
    found = measure(arguments)
    deliver(found.as_json(), arguments, lambda: print_tables(found))


if __name__ == "__main__":
    main()
