"""One query and a batch of them, cut and not cut: ours, the reference, PennyLane, Aer.

``python -m benchmarks.query [--json] [--quick] [--budget SECONDS]``

Every case is a QNN (ZFeatureMap, RealAmplitudes with linear entanglement, Z on every qubit) with
contiguous blocks of qubits as fragments. A row sets one of our ways to run it against one
counterpart; all of a case are timed in turns. Ours keeps its plan between queries, as it does in
use; the rows named "plan built in the query" start from nothing.

The reference pipeline takes seconds to hours where ours takes milliseconds, so its share of the
run is bounded by `--budget`; what does not fit is listed as not measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit_aer.primitives import EstimatorV2, SamplerV2

from benchmarks import _pennylane
from benchmarks._harness import Budget, Contestant, Timing, progress, take_turns
from benchmarks._report import Bar, Figure, Report, Skipped, compare, distance, parser, run
from benchmarks._workload import (
    Floats,
    Outcome,
    Workload,
    block_labels,
    boundaries,
    workload,
)
from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.reference import ReferenceEstimator

SHOTS = 1024
SEED = 7
WORKERS = 8

EXACT = "ours, statevector, exact"
EXACT_COLD = "ours, statevector, exact, plan built in the query"
SHOTS_LOCAL = f"ours, statevector, {SHOTS} shots"
SHOTS_COLD = f"ours, statevector, {SHOTS} shots, plan built in the query"
SHOTS_AER = f"ours, Aer sampler, {SHOTS} shots"
UNCUT = "not cut, Aer EstimatorV2, exact"
PENNYLANE = "PennyLane cut_circuit, wire cuts, exact"
REFERENCE = f"reference, Aer sampler, {SHOTS} shots"
DEFERRED = f"reference (deferred), Aer sampler, {SHOTS} shots"

PAIRS = (
    (EXACT, UNCUT),
    (EXACT, PENNYLANE),
    (EXACT_COLD, UNCUT),
    (EXACT_COLD, PENNYLANE),
    (SHOTS_LOCAL, REFERENCE),
    (SHOTS_LOCAL, DEFERRED),
    (SHOTS_COLD, REFERENCE),
    (SHOTS_COLD, DEFERRED),
    (SHOTS_AER, REFERENCE),
    (SHOTS_AER, DEFERRED),
)
ALWAYS_EXACT = (EXACT, EXACT_COLD, UNCUT, PENNYLANE)
STAGES = ("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_total")

# What a further cut costs the reference: six times the terms, and fragments with one more slot.
GROWTH_PER_CUT = 10.0
FIRST_GUESS = 0.3
SLOW = 0.5


@dataclass(frozen=True)
class Case:
    """What is asked for."""

    qubits: int
    cuts: int
    queries: int

    def as_json(self) -> dict[str, int]:
        """The case as a row holds it."""
        return {"qubits": self.qubits, "cuts": self.cuts, "queries": self.queries}

    def __str__(self) -> str:
        return f"{self.qubits} qubits, {self.cuts} cuts, {self.queries} queries"


@dataclass
class Pace:
    """How long the reference is likely to take, from what it took before.

    Attributes:
        seconds: A query's seconds, by (pipeline, qubits, cuts).
    """

    budget: Budget
    seconds: dict[tuple[str, int, int], float] = field(default_factory=dict)

    def estimate(self, name: str, case: Case) -> float:
        """Seconds the whole case is likely to take."""
        for fewer in range(case.cuts + 1):
            known = self.seconds.get((name, case.qubits, case.cuts - fewer))
            if known is not None:
                return known * GROWTH_PER_CUT**fewer * case.queries
        return FIRST_GUESS * case.queries

    def learn(self, case: Case, timing: Timing) -> None:
        """Remember what was measured, and take it off the budget."""
        self.seconds[timing.name, case.qubits, case.cuts] = timing.seconds / case.queries
        self.budget.spend(timing.seconds * timing.repeats)


def aer_sampler() -> BaseSamplerV2:
    """The sampler that ours and the reference both use."""
    options = {"backend_options": {"max_parallel_threads": 1}}
    return SamplerV2(default_shots=SHOTS, seed=SEED, options=options)


def cut_estimator(case: Case, backend: BaseSamplerV2 | None = None) -> DistributedEstimator:
    """Ours, cut as the case says."""
    return DistributedEstimator(
        cuts=block_labels(case.qubits, case.cuts),
        backend=backend,
        workers=WORKERS,
        options=EstimatorOptions(shots=SHOTS, seed=SEED),
    )


def estimate(estimator: BaseEstimatorV2, load: Workload, precision: float | None = None) -> Outcome:
    """All queries of the workload as one PUB, with the stages its metadata holds."""
    pub = (load.circuit, load.observable, load.bindings)
    result = estimator.run([pub], precision=precision).result()[0]
    metadata: Mapping[str, Any] = result.metadata
    stages = {name: float(metadata[name]) for name in STAGES if name in metadata}
    return Outcome(result.data.evs, stages)


def _ours(case: Case, load: Workload) -> list[Contestant]:
    local, sampled = cut_estimator(case), cut_estimator(case, aer_sampler())
    return [
        Contestant(EXACT, lambda: estimate(local, load, precision=0)),
        Contestant(EXACT_COLD, lambda: estimate(cut_estimator(case), load, precision=0)),
        Contestant(SHOTS_LOCAL, lambda: estimate(local, load)),
        Contestant(SHOTS_COLD, lambda: estimate(cut_estimator(case), load)),
        Contestant(SHOTS_AER, lambda: estimate(sampled, load)),
    ]


def _uncut(load: Workload) -> Contestant:
    aer = EstimatorV2(options={"backend_options": {"max_parallel_threads": 1}})
    return Contestant(UNCUT, lambda: estimate(aer, load, precision=0))


def _reference_call(case: Case, load: Workload, deferred: bool) -> Callable[[], Outcome]:
    reference = ReferenceEstimator(
        block_labels(case.qubits, case.cuts),
        sampler=aer_sampler(),
        workers=WORKERS,
        shots=SHOTS,
        seed=SEED,
        defer_measurements=deferred,
    )
    return lambda: estimate(reference, load)


def _counterparts(case: Case, load: Workload, pace: Pace, report: Report) -> list[Contestant]:
    found = [_uncut(load)]
    if _pennylane.installed():
        cut_before = boundaries(block_labels(case.qubits, case.cuts))
        slow = case.queries > 1 and case.cuts > 0
        found.append(Contestant(PENNYLANE, _pennylane.cut_query(load, cut_before), slow))
    else:
        report.skipped.append(Skipped(case.as_json(), PENNYLANE, _pennylane.MISSING))
    for name, deferred in ((DEFERRED, True), (REFERENCE, False)):
        expected = pace.estimate(name, case)
        refusal = pace.budget.refusal(expected)
        if refusal is None:
            call = _reference_call(case, load, deferred)
            found.append(Contestant(name, call, slow=expected > SLOW))
        else:
            report.skipped.append(Skipped(case.as_json(), name, refusal))
    return found


def _bars(case: Case, ours: Timing, counterpart: Timing) -> tuple[Bar, ...]:
    """The bars that hold at three cuts; the full batch only, not the smoke run's."""
    if case.cuts != 3 or case.queries not in (1, 80):
        return ()
    pair = ours.name, counterpart.name
    if pair == (EXACT, UNCUT):
        target = 1.0 if case.queries == 1 else 0.1
        figure = "ours exact / uncut Aer EstimatorV2, time a query"
        return (Bar(figure, ours.seconds / counterpart.seconds, "<=", target),)
    if case.queries > 1:
        return ()
    speedup = counterpart.seconds / ours.seconds
    if pair == (SHOTS_LOCAL, REFERENCE):
        return (Bar("reference / ours on the statevector, time", speedup, ">=", 10_000),)
    if pair == (SHOTS_AER, REFERENCE):
        return (Bar("reference / ours on the same Aer sampler, time", speedup, ">=", 200),)
    return ()


def _reconstruction_share(case: Case, timing: Timing) -> Figure | None:
    if case.cuts == 0 or "t_total" not in timing.stages:
        return None
    share = timing.stages["t_reconstruct"] / timing.stages["t_total"]
    name = f"T_rec / T_total, {timing.name}"
    bars = (Bar(name, share, "<=", 0.02),) if timing.name == SHOTS_AER else ()
    return Figure(case.as_json(), name, share, "", bars)


def _check(timings: Mapping[str, Timing], exact: Floats) -> None:
    """A time for a wrong value means nothing."""
    for name in ALWAYS_EXACT:
        error = distance(timings[name].values, exact) if name in timings else 0.0
        if error is None or error > 1e-8:
            raise RuntimeError(f"{name}: {error} from the exact value, expected at most 1e-8")


def _measure_case(case: Case, pace: Pace, quick: bool, report: Report) -> None:
    load = workload(case.qubits, case.queries)
    contestants = _ours(case, load) + _counterparts(case, load, pace, report)
    repeats, allowance = (2, 0.05) if quick else (30, 0.3)
    timings = take_turns(contestants, repeats, allowance)
    exact = load.exact()
    _check(timings, exact)
    for name in (REFERENCE, DEFERRED):
        if name in timings:
            pace.learn(case, timings[name])
    for ours, other in PAIRS:
        if other in timings:
            bars = _bars(case, timings[ours], timings[other])
            report.rows.append(compare(case.as_json(), timings[ours], timings[other], exact, bars))
    shares = (_reconstruction_share(case, timing) for timing in timings.values())
    report.figures.extend(share for share in shares if share is not None)


def _cases(quick: bool) -> list[Case]:
    """Single queries first: they carry most bars, and the budget is spent in this order."""
    widths, cuts, batches = ((4,), (0, 1), (1, 4)) if quick else ((4, 8), range(4), (1, 80))
    return [Case(w, c, b) for b in batches for w in widths for c in cuts]


def measure(arguments: argparse.Namespace) -> Report:
    """Run every case."""
    budget = 30.0 if arguments.quick else arguments.budget
    settings = {"quick": arguments.quick, "shots": SHOTS, "workers": WORKERS, "budget": budget}
    report = Report("query", settings)
    pace = Pace(Budget(budget))
    cases = _cases(arguments.quick)
    for number, case in enumerate(cases, start=1):
        progress(f"[{number}/{len(cases)}] {case}")
        _measure_case(case, pace, arguments.quick, report)
    return report


def main() -> None:
    """The command."""
    options = parser("query", "Time one query and a batch of 80, cut and not cut.")
    options.add_argument(
        "--budget",
        type=float,
        default=150.0,
        metavar="SECONDS",
        help="seconds the reference pipeline may take altogether (default: 150)",
    )
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
