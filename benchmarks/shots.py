"""Shots that reach a standard error, against qiskit-addon-cutting and QCut on the same cuts.

``python -m benchmarks.shots [--json [FILE]] [--quick] [--runs N] [--seed N]``

Ours is run for each precision ε as a user runs it. What counts are the shots that the runs took,
pilots and repeated rounds included; every standard error has to be at most ε. Claimed against
actual errors come from the same runs: how often the 68 % and 95 % intervals hold the exact value,
and the mean of error over standard error.

The peers' shots are the fewest with a standard error of at most ε by the exact variance of their
runs (`benchmarks._peers`, where the runs themselves are, too), which a user does not know: all
terms, and as many shots for every circuit, as their tutorials have it; where the terms of a cut
weigh differently, also shots by weight, which both leave to their users. A circuit that is not cut
takes (1 - y²)/ε². The oracle (`benchmarks._optimum`) takes the fewest shots to first order with
everything known in advance.

QCut decomposes parallel cuts of two fragments together, such as the weak ones; elsewhere its terms
are the addon's. Variance × shots against the number of cuts is measured on a chain with small
angles: with large ones the value of a long chain is 0 and so is its variance.

Training (`benchmarks._frugal`): shots until the exact loss of the weights is that of exact training
after 30 epochs and 1 %, Iris with 2 cuts; ours by the norm test against the best fixed number of
shots a circuit that gets there with every seed.

Time to ε is that of simulated devices, from the first job sent to the last result back, with real
time for what is computed between the rounds.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

from benchmarks import _cut_circuits as circuits
from benchmarks import _frugal as frugal
from benchmarks._cut_circuits import CutCircuit
from benchmarks._frugal import Learning
from benchmarks._harness import progress
from benchmarks._optimum import fewest
from benchmarks._peers import Terms, addon_terms, qcut_missing, qcut_terms
from benchmarks._report import Bar, Figure, Report, Skipped, deliver, parser, show, table, tables
from benchmarks._workload import Floats, block_labels, workload
from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends.fleet import Fleet, homogeneous
from distributed_estimator.execution import Policy
from distributed_estimator.pipeline import pipeline
from distributed_estimator.records import DeviceRecord, read_records
from distributed_estimator.subexperiments import ShotPlan

PRECISIONS = (0.05, 0.02, 0.01, 0.005)
QUICK_PRECISIONS = (0.05, 0.02)
COMPARED_AT = 0.01
RUNS = 400  # of a circuit and a precision, over all bindings
QUICK_RUNS = 16
OTHERS = 8  # runs of the other allocations are fewer by this factor
SEED = 7

CHAIN_CUTS = (1, 2, 3, 4, 8, 16, 23)
QUICK_CHAIN_CUTS = (1, 2, 3)
CHAIN_SCALE = 0.1  # of the angles
CHAIN_PRECISION = 0.02
CHAIN_RUNS = 60
CHAIN_ADDON_UP_TO = 4
TOLERANCE = 1e-9

OURS: dict[str, dict[str, Any]] = {
    f"ours, {name}": {"allocation": name} for name in ("uniform", "neyman", "optimal")
}
REFERENCE = "ours, optimal"  # what every ratio is over
PRIOR = "ours, optimal with prior"  # what runs before saw of the same binding instead of a pilot
REUSED = {"allocation": "optimal", "reuse_pilots": True}
ADDON, QCUT, UNCUT, ORACLE = "qiskit-addon-cutting", "QCut", "not cut", "oracle"

DEVICES, MOST_CIRCUITS = 4, 5  # of the fleet; circuits of a job
DEVICE = {"seconds_per_job": 0.01, "seconds_per_circuit": 1e-3, "seconds_per_shot": 2e-5}
FLEET_WORKERS = 16  # jobs that are under way at a time
FLEET_RUNS, QUICK_FLEET_RUNS = 16, 2  # of a circuit and an allocation

ORACLE_BARS = {"QNN, 1 cuts": 2.0, "QNN, 2 cuts": 2.0, "QNN, 3 cuts": 2.0}
ADDON_BARS = {"QNN, 2 cuts": 6.0, "QNN, 3 cuts": 8.0}
WEAK_BAR, WEAK_AT = 3.0, 0.005
INTERVALS = {"68 %": 1.0, "95 %": 1.959964}
NOMINAL = {"68 %": 0.682689, "95 %": 0.95}
COVERAGE_BAR, BIAS_BAR = 0.03, 0.1
BATCH, BATCH_RUNS, DESIGN_BAR = 80, 15, 0.25  # bindings; runs; share of the time that plans take
LEARNING_BAR = 4.0
LEARNING, QUICK_LEARNING = (8, frugal.EPOCHS), (1, 2)  # seeds, epochs at most


@dataclass(frozen=True)
class Effort:
    """How often ours is run.

    Attributes:
        runs: Of `REFERENCE`, of a circuit and a precision.
        seed: Of all draws.
    """

    runs: int
    seed: int

    def runs_of(self, contestant: str) -> int:
        """The others' errors are checked less closely."""
        return self.runs if contestant == REFERENCE else max(1, self.runs // OTHERS)


@dataclass(frozen=True, eq=False)
class Runs:
    """Repeated runs of one binding for one precision.

    Attributes:
        errors: Values less the exact one.
        stderrs: As the runs claim them.
        shots: As the runs count them, with pilots.
    """

    errors: Floats
    stderrs: Floats
    shots: Floats

    @property
    def price(self) -> float:
        """Variance × shots."""
        return float((self.errors**2).mean() * self.shots.mean())

    @property
    def scores(self) -> Floats:
        """Errors over standard errors."""
        return self.errors / self.stderrs


@dataclass(frozen=True)
class Cost:
    """Shots that one contestant takes for one precision.

    Attributes:
        shots: Of every binding; of ours, the median over the runs.
        ratio: Of the shots over those of `REFERENCE`, median over the bindings.
    """

    circuit: str
    cuts: int
    contestant: str
    precision: float
    shots: tuple[float, ...]
    ratio: float

    @property
    def median(self) -> float:
        """Over the bindings."""
        return float(np.median(self.shots))

    def as_json(self) -> dict[str, Any]:
        """The fields, with the median."""
        return asdict(self) | {"median": self.median}


@dataclass(frozen=True)
class Claim:
    """Claimed against actual error.

    Attributes:
        within: Share of the runs whose interval holds the exact value, by interval.
        mean_score: Mean of error over standard error.
        missed: Share of the runs whose standard error is larger than the precision.
    """

    circuit: str
    contestant: str
    precision: float | None
    runs: int
    within: Mapping[str, float]
    mean_score: float
    missed: float

    @staticmethod
    def of(circuit: str, contestant: str, precision: float, taken: Sequence[Runs]) -> Claim:
        """From the runs of all bindings."""
        scores = np.concatenate([runs.scores for runs in taken])
        within = {name: float((abs(scores) <= z).mean()) for name, z in INTERVALS.items()}
        missed = float((np.concatenate([runs.stderrs for runs in taken]) > precision).mean())
        of = circuit, contestant, precision, len(scores)
        return Claim(*of, within, float(scores.mean()), missed)


@dataclass(frozen=True)
class Growth:
    """Variance × shots on a chain.

    Attributes:
        sampling_overhead: Π γ² of the cuts, the bound where terms are sampled.
    """

    cuts: int
    contestant: str
    price: float
    sampling_overhead: float


@dataclass(frozen=True)
class FleetTime:
    """Time to a precision on a fleet.

    Attributes:
        seconds: Of the devices, median over bindings and runs.
        shots: The same of the shots.
    """

    circuit: str
    contestant: str
    precision: float
    seconds: float
    shots: float


@dataclass
class Found:
    """All that was measured."""

    report: Report
    costs: list[Cost] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    fleet: list[FleetTime] = field(default_factory=list)
    learning: list[Learning] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report with every entry."""
        return self.report.as_json() | {
            "shots": [cost.as_json() for cost in self.costs],
            "claims": [asdict(claim) for claim in self.claims],
            "growth": [asdict(growth) for growth in self.growth],
            "fleet": [asdict(one) for one in self.fleet],
            "learning": [one.as_json() for one in self.learning],
        }


def estimator(labels: Sequence[int], contestant: str, seed: int) -> DistributedEstimator:
    """Ours, by its name in `OURS`."""
    options = EstimatorOptions(seed=seed, **{**OURS, PRIOR: REUSED}[contestant])
    return DistributedEstimator(cuts=labels, workers=1, options=options)


def run_ours(
    ours: DistributedEstimator, pub: tuple[Any, ...], exact: float, precision: float, repeats: int
) -> Runs:
    """Run one binding again and again; each run draws its own shots."""
    results = [ours.run([pub], precision=precision).result()[0] for _ in range(repeats)]
    return Runs(
        np.array([float(result.data.evs) for result in results]) - exact,
        np.array([float(result.data.stds) for result in results]),
        np.array([float(result.metadata["shots_total"]) for result in results]),
    )


def _peers(case: CutCircuit) -> Iterator[tuple[str, list[Terms]]]:
    """Every peer, and once more by weight where that makes a difference."""
    for name, terms_of in {ADDON: addon_terms, QCUT: qcut_terms}.items():
        if name == QCUT and qcut_missing() is not None:
            continue
        every = [terms_of(case.bound(values), case.labels) for values in case.bindings]
        yield name, every
        if not all(terms.is_balanced for terms in every):
            yield f"{name}, shots by weight", [terms.weighted() for terms in every]


Shots = dict[str, list[Floats]]
"""By contestant and precision: shots of every binding."""


def _shots(found: Found, case: CutCircuit, precisions: Sequence[float], effort: Effort) -> Shots:
    """Shots of every contestant; the claims of ours go into `found`."""
    exact = case.exact()
    least = fewest(case)
    shots = {
        UNCUT: [(1 - exact**2) / precision**2 for precision in precisions],
        ORACLE: [least / precision**2 for precision in precisions],
    }
    for name, terms in _peers(case):
        for one, value in zip(terms, exact, strict=True):
            if abs(one.value - value) > TOLERANCE:
                raise RuntimeError(f"{name}, {case.name}: {one.value}, expected {value}")
        shots[name] = [np.array([one.shots_to(p) for one in terms], float) for p in precisions]
    pubs = [(case.circuit, case.observable, values) for values in case.bindings]
    for name in (*OURS, PRIOR):
        shots[name], ours = [], estimator(case.labels, name, effort.seed)
        repeats = -(-effort.runs_of(name) // len(case.bindings))
        for precision in precisions:
            taken = [
                run_ours(ours, pub, float(value), precision, repeats)
                for pub, value in zip(pubs, exact, strict=True)
            ]
            shots[name].append(np.array([np.median(one.shots) for one in taken]))
            found.claims.append(Claim.of(case.name, name, precision, taken))
    return shots


def _add_case(found: Found, case: CutCircuit, precisions: Sequence[float], effort: Effort) -> None:
    shots = _shots(found, case, precisions, effort)
    for name, by_precision in shots.items():
        for precision, own, reference in zip(
            precisions, by_precision, shots[REFERENCE], strict=True
        ):
            ratio = float(np.median(own / reference))
            of = case.name, case.plan.num_cuts, name, precision
            found.costs.append(Cost(*of, tuple(own.tolist()), ratio))


def _add_growth(found: Found, cuts: int, effort: Effort) -> None:
    load = workload(2 * (cuts + 1), queries=1, scale=CHAIN_SCALE)
    labels = block_labels(load.num_qubits, cuts)
    pub = (load.circuit, load.observable, load.bindings[0])
    case = CutCircuit(f"chain, {cuts} cuts", load.circuit, labels, load.bindings)
    overhead = case.plan.sampling_overhead
    found.growth.append(Growth(cuts, ORACLE, float(fewest(case)[0]), overhead))
    if cuts <= CHAIN_ADDON_UP_TO:
        terms = addon_terms(case.bound(load.bindings[0]), labels)
        shots = terms.shots_to(CHAIN_PRECISION)
        most = shots // terms.num_circuits
        found.growth.append(Growth(cuts, ADDON, terms.variance(most) * shots, overhead))
    for name in OURS:
        ours = estimator(labels, name, effort.seed)
        exact = float(ours.run([pub], precision=0).result()[0].data.evs)
        taken = run_ours(ours, pub, exact, CHAIN_PRECISION, min(effort.runs, CHAIN_RUNS))
        found.growth.append(Growth(cuts, name, taken.price, overhead))


def _add_fleet(found: Found, case: CutCircuit, runs: int, seed: int) -> None:
    """Each run on devices of its own, with empty queues."""
    for name in OURS:
        taken = [
            _on_fleet(case, case.bindings[number % len(case.bindings)], name, seed + number)
            for number in range(runs)
        ]
        seconds, shots = np.median(np.array(taken), axis=0).tolist()
        found.fleet.append(FleetTime(case.name, name, COMPARED_AT, seconds, shots))


def _on_fleet(case: CutCircuit, values: Floats, contestant: str, seed: int) -> tuple[float, float]:
    """Seconds from the first job sent to the last one back, and shots."""
    options = EstimatorOptions(
        seed=seed, policy=Policy(subexperiments=MOST_CIRCUITS), **OURS[contestant]
    )
    pub = (case.circuit, case.observable, values)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "devices.jsonl"
        fleet = Fleet(homogeneous(DEVICES, **DEVICE), log=log)
        with DistributedEstimator(
            case.labels, fleet, workers=FLEET_WORKERS, options=options
        ) as ours:
            result = ours.run([pub], precision=COMPARED_AT).result()[0]
        jobs = [record for record in read_records(log) if isinstance(record, DeviceRecord)]
    seconds = max(job.returned for job in jobs) - min(job.submitted for job in jobs)
    return seconds, float(result.metadata["shots_total"])


def _cases(quick: bool) -> list[CutCircuit]:
    if quick:
        return [circuits.qnn_blocks(1, 2), circuits.qnn_blocks(2, 2), circuits.weak(1)]
    return [
        *(circuits.qnn_blocks(cuts, 8) for cuts in (1, 2, 3)),
        *(circuits.random_gates(number, 4) for number in (1, 2, 3)),
        *(circuits.chain(cuts, 4) for cuts in (1, 2, 3)),
        circuits.chain(4, 2),
        circuits.star(4),
        circuits.ring(4),
        circuits.weak(4),
    ]


def _add_bars(found: Found) -> None:
    """What ours is held to."""
    costs = {(c.circuit, c.contestant, c.precision): c for c in found.costs}
    figures = found.report.figures

    def hold(name: str, value: float, relation: Literal["<=", ">="], target: float) -> None:
        figures.append(Figure({}, name, value, "", (Bar(name, value, relation, target),)))

    for circuit, target in ORACLE_BARS.items():
        name = f"{circuit}: shots of {REFERENCE} / {ORACLE} to {COMPARED_AT}"
        own = np.array(costs[circuit, REFERENCE, COMPARED_AT].shots)
        least = np.array(costs[circuit, ORACLE, COMPARED_AT].shots)
        hold(name, float(np.median(own / least)), "<=", target)
    for circuit, target in ADDON_BARS.items():
        name = f"{circuit}: shots of {ADDON} / {REFERENCE} to {COMPARED_AT}"
        hold(name, costs[circuit, ADDON, COMPARED_AT].ratio, ">=", target)
    name = f"{circuits.WEAK}: shots of {REFERENCE} / {UNCUT} to {WEAK_AT}"
    own = np.array(costs[circuits.WEAK, REFERENCE, WEAK_AT].shots)
    uncut = np.array(costs[circuits.WEAK, UNCUT, WEAK_AT].shots)
    hold(name, float(np.median(own / uncut)), "<=", WEAK_BAR)
    reliable = {one.way: one.median for one in found.learning if None not in one.shots}
    ours = reliable.pop(frugal.OURS, np.inf)
    name = f"training on Iris: shots of the best fixed number / {frugal.OURS}"
    hold(name, min(reliable.values(), default=np.inf) / ours, ">=", LEARNING_BAR)
    _add_claims(found, hold)


def _add_claims(found: Found, hold: Callable[..., None]) -> None:
    """Of all circuits together, and of the one that is off most."""
    claims = [claim for claim in found.claims if claim.contestant == REFERENCE]
    by_circuit = list(_by_circuit(claims))
    (whole,) = _pooled(claims)
    for interval, nominal in NOMINAL.items():
        worst = max(by_circuit, key=lambda claim: abs(claim.within[interval] - nominal))
        for claim, of in ((whole, "all circuits"), (worst, f"worst, {worst.circuit}")):
            name = f"{REFERENCE}: coverage of {interval} intervals, off by; {of}"
            hold(name, abs(claim.within[interval] - nominal), "<=", COVERAGE_BAR)
    worst = max(by_circuit, key=lambda claim: abs(claim.mean_score))
    for claim, of in ((whole, "all circuits"), (worst, f"worst, {worst.circuit}")):
        name = f"{REFERENCE}: |mean of error over standard error|; {of}"
        hold(name, abs(claim.mean_score), "<=", BIAS_BAR)
    hold(f"{REFERENCE}: share of standard errors above the precision", whole.missed, "<=", 0.0)


def _add_design_time(found: Found, seed: int) -> None:
    """How much of a batch's time on the local simulator its plans take."""
    case = circuits.qnn_blocks(3, BATCH)
    ours, pub = estimator(case.labels, REFERENCE, seed), (case.circuit, case.observable)
    shares: list[float] = []
    plan_shots, planning = pipeline.plan_shots, [0.0]

    def timed(*args: Any, **options: Any) -> ShotPlan:
        begun = perf_counter()
        plan = plan_shots(*args, **options)
        planning[0] += perf_counter() - begun
        return plan

    with patch.object(pipeline, "plan_shots", timed):
        for _ in range(1 + BATCH_RUNS):
            planning[0], begun = 0.0, perf_counter()
            ours.run([(*pub, case.bindings)], precision=COMPARED_AT).result()
            shares.append(planning[0] / (perf_counter() - begun))
    share = float(np.median(shares[1:]))
    name = f"{case.name}: share of a batch's time that its plans take, {BATCH} bindings"
    bar = Bar(name, share, "<=", DESIGN_BAR)
    found.report.figures.append(Figure({}, name, share, "", (bar,)))


def _by_circuit(claims: Iterable[Claim]) -> Iterator[Claim]:
    """All precisions of a circuit and a contestant together."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.circuit, claim.contestant), []).append(claim)
    for names, of in groups.items():
        yield _together(*names, of)


def _pooled(claims: Iterable[Claim]) -> list[Claim]:
    """All circuits and precisions of a contestant together."""
    by_name: dict[str, list[Claim]] = {}
    for claim in claims:
        by_name.setdefault(claim.contestant, []).append(claim)
    return [_together("all", name, of) for name, of in by_name.items()]


def _together(circuit: str, contestant: str, claims: Sequence[Claim]) -> Claim:
    runs = [claim.runs for claim in claims]
    within = {
        name: float(np.average([claim.within[name] for claim in claims], weights=runs))
        for name in INTERVALS
    }
    mean = float(np.average([claim.mean_score for claim in claims], weights=runs))
    missed = float(np.average([claim.missed for claim in claims], weights=runs))
    return Claim(circuit, contestant, None, sum(runs), within, mean, missed)


def measure(arguments: Namespace) -> Found:
    """Everything; a smoke run is held to no bars."""
    quick = arguments.quick
    precisions = QUICK_PRECISIONS if quick else PRECISIONS
    effort = Effort(arguments.runs or (QUICK_RUNS if quick else RUNS), arguments.seed)
    settings = {"quick": quick, "precisions": list(precisions), **asdict(effort)}
    found = Found(Report("shots", settings))
    if (reason := qcut_missing()) is not None:
        found.report.skipped.append(Skipped({}, QCUT, reason))
    for case in _cases(quick):
        progress(f"{case.name}, {len(case.bindings)} bindings")
        _add_case(found, case, precisions, effort)
    for cuts in QUICK_CHAIN_CUTS if quick else CHAIN_CUTS:
        progress(f"growth: chain of {cuts} cuts")
        _add_growth(found, cuts, effort)
    for case in (circuits.qnn_blocks(3, 8), circuits.weak(4)):
        progress(f"fleet: {case.name}")
        _add_fleet(found, case, QUICK_FLEET_RUNS if quick else FLEET_RUNS, effort.seed)
    progress("training on Iris")
    extent = QUICK_LEARNING if quick else LEARNING
    found.learning = list(frugal.learnings(*extent))
    if not quick:
        _add_bars(found)
        _add_design_time(found, effort.seed)
    return found


def _by_names(costs: Iterable[Cost]) -> Mapping[tuple[str, str], list[Cost]]:
    lines: dict[tuple[str, str], list[Cost]] = {}
    for cost in costs:
        lines.setdefault((cost.circuit, cost.contestant), []).append(cost)
    return lines


def _cost_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for names, costs in _by_names(found.costs).items():
        yield (*names, *(f"{c.median:,.0f}" for c in costs), *(f"{c.ratio:.3g}" for c in costs))


def _claim_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for claim in [*_by_circuit(found.claims), *_pooled(found.claims)]:
        shares = (f"{share:.1%}" for share in claim.within.values())
        rest = f"{claim.mean_score:+.3f}", f"{claim.missed:.1%}"
        yield claim.circuit, claim.contestant, str(claim.runs), *shares, *rest


def _growth_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for one in found.growth:
        yield str(one.cuts), one.contestant, f"{one.price:.3g}", f"{one.sampling_overhead:.3g}"


def _fleet_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for one in found.fleet:
        yield one.circuit, one.contestant, f"{one.shots:,.0f}", f"{one.seconds:.3g}"


def _learning_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for one in found.learning:
        reached = [own for own in one.shots if own is not None]
        yield one.way, f"{one.median:,.0f}", f"{len(reached)} of {len(one.shots)}"


def print_tables(found: Found) -> None:
    """The tables for people."""
    precisions = [str(p) for p in found.report.settings["precisions"]]
    columns = ("circuit", "contestant", *precisions, *(f"ratio, {p}" for p in precisions))
    title = f"Shots to a standard error, and over those of {REFERENCE}; medians over the bindings"
    claims = ("circuit", "contestant", "runs", "in 68 %", "in 95 %", "mean z", "above ε")
    growth = ("cuts", "contestant", "variance × shots", "Π γ²")
    fleet = ("circuit", "contestant", "shots", "modelled seconds")
    show(
        [
            table(title, columns, _cost_lines(found)),
            table("Claimed against actual error, all precisions", claims, _claim_lines(found)),
            table("Variance × shots on a chain", growth, _growth_lines(found)),
            table("Training on Iris", ("way", "shots", "reached"), _learning_lines(found)),
            table(f"To {COMPARED_AT} on {DEVICES} devices", fleet, _fleet_lines(found)),
            *tables(found.report),
        ]
    )


def main() -> None:
    """The command."""
    options = parser("shots", "Shots to a standard error, against other packages that cut.")
    options.add_argument(
        "--runs",
        type=int,
        metavar="N",
        help=f"runs of ours, a circuit and a precision; default: {RUNS}",
    )
    options.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"default: {SEED}")
    arguments = options.parse_args()
    found = measure(arguments)
    deliver(found.as_json(), arguments, lambda: print_tables(found))


if __name__ == "__main__":
    main()
