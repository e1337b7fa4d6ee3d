"""Shots that reach a standard error, against qiskit-addon-cutting and QCut on the same cuts.

``python -m benchmarks.shots [--json [FILE]] [--quick] [--runs N]``

Ours is run for each precision as a user runs it, and its shots to reach ε are the variance over the
repeats times the shots it took, pilots counted, over ε². Claimed against actual errors come from
the same runs: how often the 68 % and 95 % intervals hold the exact value, and the mean of error
over standard error. The peers' shots are the fewest with a standard error of at most ε by the exact
variance of their runs (`benchmarks._peers`, where the runs themselves are, too): all terms, and as
many shots for every circuit, as their tutorials have it; where the terms of a cut weigh
differently, also shots by weight, which both leave to their users. A circuit that is not cut
takes (1 - y²)/ε².

QCut decomposes parallel cuts of two fragments together, such as the weak ones; elsewhere its terms
are the addon's. Variance × shots against the number of cuts is measured on a chain with small
angles: with large ones the value of a long chain is 0 and so is its variance.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks import _cut_circuits as circuits
from benchmarks._cut_circuits import CutCircuit
from benchmarks._harness import progress
from benchmarks._peers import Terms, addon_terms, qcut_missing, qcut_terms
from benchmarks._report import Bar, Figure, Report, Skipped, deliver, parser, show, table, tables
from benchmarks._workload import Floats, block_labels, workload
from distributed_estimator import DistributedEstimator, EstimatorOptions

PRECISIONS = (0.05, 0.02, 0.01, 0.005)
QUICK_PRECISIONS = (0.05, 0.02)
COMPARED_AT = 0.01
RUNS = 200  # of a circuit and a precision, over all bindings
QUICK_RUNS = 16
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
ADDON, QCUT, UNCUT = "qiskit-addon-cutting", "QCut", "not cut"

ADDON_BARS = {"QNN, 2 cuts": 6.0, "QNN, 3 cuts": 8.0}
WEAK_BAR, WEAK_AT = 3.0, 0.005
INTERVALS = {"68 %": 1.0, "95 %": 1.959964}
NOMINAL = {"68 %": 0.682689, "95 %": 0.95}
COVERAGE_BAR, BIAS_BAR = 0.03, 0.1


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
    """Shots that one contestant needs for one precision.

    Attributes:
        shots: To reach the precision, of every binding.
        taken: Of a run with that precision: more, where pilots alone are more than enough.
        ratio: Of the shots over those of `REFERENCE`, median over the bindings.
    """

    circuit: str
    cuts: int
    contestant: str
    precision: float
    shots: tuple[float, ...]
    taken: tuple[float, ...]
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
    """

    circuit: str
    contestant: str
    precision: float | None
    runs: int
    within: Mapping[str, float]
    mean_score: float

    @staticmethod
    def of(circuit: str, contestant: str, precision: float | None, scores: Floats) -> Claim:
        """From errors over standard errors."""
        within = {name: float((abs(scores) <= z).mean()) for name, z in INTERVALS.items()}
        return Claim(circuit, contestant, precision, len(scores), within, float(scores.mean()))


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


@dataclass
class Found:
    """All that was measured."""

    report: Report
    costs: list[Cost] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report with every entry."""
        return self.report.as_json() | {
            "shots": [cost.as_json() for cost in self.costs],
            "claims": [asdict(claim) for claim in self.claims],
            "growth": [asdict(growth) for growth in self.growth],
        }


def estimator(labels: Sequence[int], contestant: str) -> DistributedEstimator:
    """Ours, by its name in `OURS`."""
    options = EstimatorOptions(seed=SEED, **OURS[contestant])
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


Shots = dict[str, list[tuple[Floats, Floats]]]
"""By contestant and precision: shots to reach it, and those taken; both of every binding."""


def _shots(found: Found, case: CutCircuit, precisions: Sequence[float], runs: int) -> Shots:
    """Shots of every contestant; the claims of ours go into `found`."""
    exact, repeats = case.exact(), -(-runs // len(case.bindings))
    counted = {UNCUT: [(1 - exact**2) / precision**2 for precision in precisions]}
    for name, terms in _peers(case):
        for one, value in zip(terms, exact, strict=True):
            if abs(one.value - value) > TOLERANCE:
                raise RuntimeError(f"{name}, {case.name}: {one.value}, expected {value}")
        counted[name] = [np.array([one.shots_to(p) for one in terms], float) for p in precisions]
    shots = {name: [(each, each) for each in of] for name, of in counted.items()}
    pubs = [(case.circuit, case.observable, values) for values in case.bindings]
    for name in OURS:
        shots[name], ours = [], estimator(case.labels, name)
        for precision in precisions:
            taken = [
                run_ours(ours, pub, float(value), precision, repeats)
                for pub, value in zip(pubs, exact, strict=True)
            ]
            needed = np.array([one.price for one in taken]) / precision**2
            shots[name].append((needed, np.array([one.shots.mean() for one in taken])))
            scores = np.concatenate([one.scores for one in taken])
            found.claims.append(Claim.of(case.name, name, precision, scores))
    return shots


def _add_case(found: Found, case: CutCircuit, precisions: Sequence[float], runs: int) -> None:
    shots = _shots(found, case, precisions, runs)
    for name, by_precision in shots.items():
        for precision, (needed, taken), (reference, _) in zip(
            precisions, by_precision, shots[REFERENCE], strict=True
        ):
            ratio = float(np.median(needed / reference))
            of = case.name, case.plan.num_cuts, name, precision
            found.costs.append(Cost(*of, tuple(needed.tolist()), tuple(taken.tolist()), ratio))


def _add_growth(found: Found, cuts: int, runs: int) -> None:
    load = workload(2 * (cuts + 1), queries=1, scale=CHAIN_SCALE)
    labels = block_labels(load.num_qubits, cuts)
    pub = (load.circuit, load.observable, load.bindings[0])
    case = CutCircuit(f"chain, {cuts} cuts", load.circuit, labels, load.bindings)
    overhead = case.plan.sampling_overhead
    if cuts <= CHAIN_ADDON_UP_TO:
        terms = addon_terms(case.bound(load.bindings[0]), labels)
        shots = terms.shots_to(CHAIN_PRECISION)
        most = shots // terms.num_circuits
        found.growth.append(Growth(cuts, ADDON, terms.variance(most) * shots, overhead))
    for name in OURS:
        ours = estimator(labels, name)
        exact = float(ours.run([pub], precision=0).result()[0].data.evs)
        taken = run_ours(ours, pub, exact, CHAIN_PRECISION, runs)
        found.growth.append(Growth(cuts, name, taken.price, overhead))


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
    """What ours is held to, by the ratios and by the claims of all circuits together."""
    ratios = {(c.circuit, c.contestant, c.precision): c for c in found.costs}
    figures = found.report.figures
    for circuit, target in ADDON_BARS.items():
        cost = ratios[circuit, ADDON, COMPARED_AT]
        name = f"{circuit}: shots of {ADDON} / {REFERENCE} to a standard error of {COMPARED_AT}"
        bars = (Bar(name, cost.ratio, ">=", target),)
        figures.append(Figure({"cuts": cost.cuts}, name, cost.ratio, "", bars))
    uncut = ratios[circuits.WEAK, UNCUT, WEAK_AT]
    name = f"{circuits.WEAK}: shots of {REFERENCE} / {UNCUT} to a standard error of {WEAK_AT}"
    over = 1 / uncut.ratio
    bars = (Bar(name, over, "<=", WEAK_BAR),)
    figures.append(Figure({"cuts": uncut.cuts}, name, over, "", bars))
    (whole,) = [claim for claim in _pooled(found.claims) if claim.contestant == REFERENCE]
    for interval, share in whole.within.items():
        name = f"{REFERENCE}: {interval} interval, coverage off its nominal one"
        off = abs(share - NOMINAL[interval])
        figures.append(Figure({}, name, off, "", (Bar(name, off, "<=", COVERAGE_BAR),)))
    name = f"{REFERENCE}: absolute mean of error over standard error"
    off = abs(whole.mean_score)
    figures.append(Figure({}, name, off, "", (Bar(name, off, "<=", BIAS_BAR),)))


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
    return Claim(circuit, contestant, None, sum(runs), within, mean)


def measure(arguments: Namespace) -> Found:
    """Everything; a smoke run is held to no bars."""
    quick = arguments.quick
    precisions = QUICK_PRECISIONS if quick else PRECISIONS
    runs = arguments.runs or (QUICK_RUNS if quick else RUNS)
    found = Found(Report("shots", {"quick": quick, "precisions": list(precisions), "runs": runs}))
    if (reason := qcut_missing()) is not None:
        found.report.skipped.append(Skipped({}, QCUT, reason))
    for case in _cases(quick):
        progress(f"{case.name}, {len(case.bindings)} bindings")
        _add_case(found, case, precisions, runs)
    for cuts in QUICK_CHAIN_CUTS if quick else CHAIN_CUTS:
        progress(f"growth: chain of {cuts} cuts")
        _add_growth(found, cuts, min(runs, CHAIN_RUNS))
    if not quick:
        _add_bars(found)
    return found


def _by_names(costs: Iterable[Cost]) -> Mapping[tuple[str, str], list[Cost]]:
    lines: dict[tuple[str, str], list[Cost]] = {}
    for cost in costs:
        lines.setdefault((cost.circuit, cost.contestant), []).append(cost)
    return lines


def _cost_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for names, costs in _by_names(found.costs).items():
        yield (*names, *(f"{c.median:,.0f}" for c in costs), *(f"{c.ratio:.3g}" for c in costs))


def _taken_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for names, costs in _by_names(c for c in found.costs if c.contestant in OURS).items():
        yield (*names, *(f"{np.median(c.taken):,.0f}" for c in costs))


def _claim_lines(found: Found) -> Iterator[tuple[str, ...]]:
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in found.claims:
        groups.setdefault((claim.circuit, claim.contestant), []).append(claim)
    claims = [_together(*names, of) for names, of in groups.items()]
    for claim in [*claims, *_pooled(found.claims)]:
        shares = (f"{share:.1%}" for share in claim.within.values())
        mean = f"{claim.mean_score:+.3f}"
        yield claim.circuit, claim.contestant, str(claim.runs), *shares, mean


def _growth_lines(found: Found) -> Iterator[tuple[str, ...]]:
    for one in found.growth:
        yield str(one.cuts), one.contestant, f"{one.price:.3g}", f"{one.sampling_overhead:.3g}"


def print_tables(found: Found) -> None:
    """The tables for people."""
    precisions = [str(p) for p in found.report.settings["precisions"]]
    columns = ("circuit", "contestant", *precisions, *(f"ratio, {p}" for p in precisions))
    title = f"Shots to a standard error, and over those of {REFERENCE}; medians over the bindings"
    claims = ("circuit", "contestant", "runs", "in 68 %", "in 95 %", "mean error / standard error")
    growth = ("cuts", "contestant", "variance × shots", "Π γ²")
    show(
        [
            table(title, columns, _cost_lines(found)),
            table("Shots of a run of ours", columns[: 2 + len(precisions)], _taken_lines(found)),
            table("Claimed against actual error, all precisions", claims, _claim_lines(found)),
            table("Variance × shots on a chain", growth, _growth_lines(found)),
            *tables(found.report),
        ]
    )


def main() -> None:
    """The command."""
    options = parser("shots", "Shots to a standard error, against other packages that cut.")
    options.add_argument("--runs", type=int, metavar="N", help=f"a circuit; default: {RUNS}")
    arguments = options.parse_args()
    found = measure(arguments)
    deliver(found.as_json(), arguments, lambda: print_tables(found))


if __name__ == "__main__":
    main()
