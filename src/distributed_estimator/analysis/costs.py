"""The cost model: laws of cost fitted to the stage times of query records, with intervals.

The time of every stage is a sum of physically meaningful terms (`STAGE_TERMS`) with weights that
are not negative, fitted for each `Setup` by itself. Intervals come from configurations that the fit
had not seen; see docs/cost-model.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec
import numpy as np
import scipy  # whose parts are imported when they are first used
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ..errors import InputError, RecordError, named, short
from ..records import Header, QueryRecord, Record, atomic, encode, given_path
from ..records.files import refused
from .load import RUNS, STAGES, TIMES, check_record, record_files, records_of

FloatArray: TypeAlias = NDArray[np.float64]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0, le=1e300)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]

MODEL_VERSION = 1
"""Newest schema of model files that is read."""
LEVEL = 0.9
"""Default probability of an interval."""
CLOCK = 1e-6
"""Seconds that a clock can resolve: shorter times count as this much."""
_COUNTS = ("num_cuts", "num_fragments", "num_circuits", "num_subexperiments", "num_queries")
"""Fields of records that are features as they are."""
_MOST_POWERS = 500  # of two: no memory holds them, and floats can still be multiplied
_FEWEST = 8
MOST_FOLDS = 50
_ROUNDS = 12
_BEND = 1.5
"""Errors beyond so many times the usual one count in proportion to themselves, not squared."""
_RIDGE = 1e-6
"""Weights are held small by this part of the design's size, so that terms which few configurations
tell apart have one solution, the same on every processor."""
_LEAST_SPREAD = 0.01  # so that records without noise do not make outliers of the last digit


@dataclass(frozen=True, order=True)
class Setup:
    """A way of running queries that has a law of cost of its own; none lends terms to another.

    Attributes are as records have them. `sampled`: shots were drawn, values are not exact.
    `plan_cached`: the plan was at hand.
    """

    pipeline: str
    quantity: str
    backend: str
    pool: str
    policy: str
    sampled: bool
    plan_cached: bool

    @classmethod
    def of(cls, record: QueryRecord) -> Setup:
        """The setup of a record."""
        own = record.pipeline, record.quantity, record.backend, record.pool, record.policy
        return cls(*own, record.shots_total > 0, record.plan_cached)

    def __str__(self) -> str:
        mode = "sampled" if self.sampled else "exact"
        plan = "plan at hand" if self.plan_cached else "plan to be made"
        words = f"{mode} {self.quantity}", self.backend, f"pool {self.pool}", self.policy, plan
        return f"{self.pipeline}: {', '.join(words)}"


@dataclass(frozen=True, order=True)
class Features:
    """Numbers of a query, or of a batch, that decide its cost within a setup.

    Qubits and depth are those of the circuit that is cut; cuts, fragments and circuits (for one
    binding) those of the plan after its reduction to what reaches the observables. Subexperiments
    are circuits times distinct local bindings, `shots` those of a subexperiment on average (0 for
    exact values), `workers` the tasks that run at a time.
    """

    num_qubits: int
    depth: int
    widest_fragment: int
    num_cuts: int
    num_fragments: int
    num_circuits: int
    num_subexperiments: int
    num_queries: int
    shots: float
    workers: int

    @classmethod
    def of(cls, record: QueryRecord) -> Features:
        """The features of a record."""
        qubits, widest = record.circuit.num_qubits, record.max_fragment_qubits
        if widest is None:
            widest = widest_fragment(qubits, record.partition_label, record.num_fragments)
        return cls(
            num_qubits=qubits,
            depth=record.circuit.depth,
            widest_fragment=widest,
            shots=record.shots_total / max(1, record.num_subexperiments),
            workers=record.subexp_workers,
            **{name: getattr(record, name) for name in _COUNTS},
        )


def widest_fragment(num_qubits: int, label: str | None, num_fragments: int) -> int:
    """Qubits of the widest fragment, for records without `max_fragment_qubits`.

    They are counted in the label, which has a letter for each qubit, or texts with commas between
    them. Where it is not known, fragments are taken to be alike.

    Example:
        >>> widest_fragment(4, "AAAB", 2), widest_fragment(3, "0,0,1", 2)
        (3, 2)
    """
    for labels in (label or "", (label or "").split(",")):
        if len(labels) == num_qubits:
            return max(Counter(labels).values(), default=0)
    return -(-num_qubits // max(1, num_fragments))


# --- Terms

Term: TypeAlias = Callable[[Features], float]


def _rows(features: Features) -> float:
    """Distinct local bindings of a fragment, on average."""
    return features.num_subexperiments / max(1, features.num_circuits)


def _divided(term: Term) -> Term:
    """The share of a term for each worker that has a subexperiment to run."""
    return lambda f: term(f) / max(1, min(f.workers, f.num_subexperiments))


_SHARED: Mapping[str, Term] = {
    "fragments": lambda f: f.num_fragments,
    "circuits": lambda f: f.num_circuits,
    "subexperiments": lambda f: f.num_subexperiments,
    # That gates touch, over all fragments and their bindings.
    "amplitudes": lambda f: (
        _rows(f) * f.num_fragments * f.depth * 2.0 ** min(f.widest_fragment, _MOST_POWERS)
    ),
    "shots": lambda f: f.num_subexperiments * f.shots,
    # Measurements inside a circuit, which only cuts bring, make simulators go shot by shot.
    "shots, if cut": lambda f: f.num_subexperiments * f.shots * (f.num_cuts > 0),
    "shots × widest fragment": lambda f: f.num_subexperiments * f.shots * f.widest_fragment,
    "shots × depth": lambda f: f.num_subexperiments * f.shots * f.depth,
}
"""Work of tasks, which workers may share."""

TERMS: Mapping[str, Term] = {
    "constant": lambda f: 1.0,
    "workers": lambda f: f.workers,
    "qubits": lambda f: f.num_qubits,
    "gates": lambda f: f.num_qubits * f.depth,
    "cuts": lambda f: f.num_cuts,
    "queries": lambda f: f.num_queries,
    "queries × qubits": lambda f: f.num_queries * f.num_qubits,
    "queries × circuits": lambda f: f.num_queries * f.num_circuits,
    "pairs of circuits": lambda f: (
        _rows(f) * f.num_circuits * (f.num_circuits / max(1, f.num_fragments))
    ),
    **_SHARED,
    **{f"{name} / workers": _divided(term) for name, term in _SHARED.items()},
}
"""Terms by their names in model files; all are positive and grow with their features, but for those
that workers share."""

_SHARED_OUT = tuple(f"{name} / workers" for name in _SHARED)
_BATCH = ("subexperiments", "queries")
STAGE_TERMS: Mapping[str, tuple[str, ...]] = {
    "partition": ("constant", "qubits", "gates", "cuts", "fragments", "circuits"),
    "generate": ("constant", "fragments", "circuits", *_BATCH, "queries × qubits"),
    "execute": ("constant", "workers", "gates", *_SHARED, *_SHARED_OUT),
    "reconstruct": (
        *("constant", "cuts", "fragments", *_BATCH, "queries × circuits", "pairs of circuits"),
        *("shots", "shots, if cut"),
    ),
}
"""Terms that a stage's time may be a sum of."""
COSTS = (*STAGES, "total")
"""The predicted times: those of the stages, then their total."""


# --- Records, sorted for a fit


@dataclass(frozen=True, eq=False)
class Configuration:
    """Records with the same features.

    `times` are seconds, shape (records, stages and their total); at least `CLOCK` each.
    """

    features: Features
    times: FloatArray

    @property
    def median(self) -> FloatArray:
        """Over the records, shape (stages and their total,): one slow call moves it little."""
        return np.asarray(np.median(self.times, axis=0))


@dataclass(frozen=True, eq=False)
class CostData:
    """The data of a fit: configurations by setup, each in the order of its features.

    `left_out` are numbers of records that no law is fitted to, by the reason; `hash` is SHA-256
    over the others, whatever their order and files.
    """

    configurations: dict[Setup, tuple[Configuration, ...]]
    left_out: dict[str, int]
    hash: str

    @classmethod
    def of(cls, records: Iterable[Record]) -> CostData:
        """Sorts query records; others are ignored.

        Raises:
            RecordError: A time is no number of seconds, a total is 0, or a count cannot be; names
                the record.
        """
        left_out: Counter[str] = Counter()
        kept = []
        times: defaultdict[Setup, defaultdict[Features, list[list[float]]]]
        times = defaultdict(lambda: defaultdict(list))
        for record in records:
            if not isinstance(record, QueryRecord):
                continue
            check_record(record)
            if reason := reason_left_out(record):
                left_out[reason] += 1
                continue
            kept.append(record)
            seconds = [max(CLOCK, getattr(record, name)) for name in TIMES]
            times[Setup.of(record)][Features.of(record)].append(seconds)
        configurations = {
            setup: tuple(Configuration(each, np.array(rows)) for each, rows in sorted(own.items()))
            for setup, own in sorted(times.items())
        }
        content = hashlib.sha256(b"\n".join(sorted(map(encode, kept)))).hexdigest()
        return cls(configurations, dict(sorted(left_out.items())), content)


def reason_left_out(record: QueryRecord) -> str | None:
    """The reason why no law is fitted to a record; None: its cost follows from its features."""
    straggler = record.straggler
    if record.precision or record.design is not None:
        return "asked for a precision: pilots and rounds cannot be distinguished"
    if straggler.p != 0 or straggler.slow_worker is not None:
        return "stragglers were injected"
    if record.retries or record.speculated or record.missing:
        return "tasks were repeated or missing"
    if record.num_queries == 0 or (record.num_circuits > 0 and record.num_subexperiments == 0):
        return "nothing ran"
    return None


# --- Fits, and how far they are off where they were not fitted

StageWeights: TypeAlias = dict[str, dict[str, NotNegative]]
"""By stage and name of the term, seconds for one of it."""


def fit_stages(configurations: Sequence[Configuration]) -> StageWeights:
    """Non-negative weights of each stage's terms; those of weight 0 are left out."""
    medians = np.array([each.median for each in configurations])
    weights: StageWeights = {}
    for place, (stage, names) in enumerate(STAGE_TERMS.items()):
        rows = [[TERMS[name](each.features) for name in names] for each in configurations]
        found = _fit(np.array(rows, dtype=float), medians[:, place]).tolist()
        weights[stage] = {name: w for name, w in zip(names, found, strict=True) if w > 0}
    return weights


def _fit(design: FloatArray, seconds: FloatArray) -> FloatArray:
    """Weights whose sums are off by as little as can be, relatively, outliers bent.

    Errors are (sum - time) / √(sum · time), of the fit before: nearly log(sum / time), so that
    half and double are equally wrong.
    """
    sizes = np.maximum(design.max(axis=0), np.finfo(float).tiny)
    scaled, count = design / sizes, design.shape[1]
    scale, bent = seconds, np.ones(len(seconds))
    for _ in range(_ROUNDS):
        rows = np.sqrt(bent) / scale
        weighted = scaled * rows[:, None]
        ridge = _RIDGE * np.linalg.norm(weighted) * np.eye(count)
        weights, _ = scipy.optimize.nnls(
            np.vstack([weighted, ridge]),
            np.concatenate([seconds * rows, np.zeros(count)]),
            maxiter=100 * count,
        )
        sums = np.maximum(scaled @ weights, CLOCK)
        errors = np.abs(np.log(sums / seconds))
        usual = max(_LEAST_SPREAD, 1.4826 * float(np.median(errors)))
        bent = np.minimum(1.0, _BEND * usual / np.maximum(errors, usual * 1e-3))
        scale = np.sqrt(sums * seconds)
    return np.asarray(weights / sizes)


def stage_seconds(weights: StageWeights, features: Features) -> FloatArray:
    """Seconds of the stages, then their total."""
    stages = [
        max(CLOCK, sum(weight * TERMS[name](features) for name, weight in weights[stage].items()))
        for stage in STAGE_TERMS
    ]
    return np.array([*stages, math.fsum(stages)])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Configurations beside their predictions by fits without them.

    `predicted` are seconds, shape (configurations, stages and their total).
    """

    configurations: tuple[Configuration, ...]
    predicted: FloatArray

    def errors(self) -> FloatArray:
        """|predicted / median - 1|, shape (configurations, stages and their total)."""
        medians = np.array([each.median for each in self.configurations])
        return np.asarray(np.abs(self.predicted / medians - 1))

    def factors(self, level: float) -> FloatArray:
        """The factors to multiply and divide predictions by for an interval, per stage and total.

        The records of a configuration share one weight, and the configuration to come has as much
        as each: the quantile of |log(time / predicted)| so weighted is the conformal one for data
        in groups. It takes level / (1 - level) configurations.
        """
        return np.exp(_widths(self._logs(), level))

    def inside(self, factors: FloatArray) -> FloatArray:
        """Share of configurations' records within such intervals, per stage and total."""
        shares = [(each <= np.log(factors)).mean(axis=0) for each in self._logs()]
        return np.asarray(np.mean(shares, axis=0))

    def coverage(self, level: float) -> float:
        """Share of records inside intervals for the total that are made of other configurations."""
        logs, shares = self._logs(), []
        folds = min(len(logs), MOST_FOLDS)
        for fold in range(folds):
            others = [each for i, each in enumerate(logs) if i % folds != fold]
            width = _widths(others, level)[-1]
            shares.append(np.mean([(each[:, -1] <= width).mean() for each in logs[fold::folds]]))
        return float(np.average(shares, weights=[len(logs[fold::folds]) for fold in range(folds)]))

    def _logs(self) -> list[FloatArray]:
        """|log(time / predicted)| of each configuration's records."""
        pairs = zip(self.configurations, self.predicted, strict=True)
        return [np.abs(np.log(each.times / predicted)) for each, predicted in pairs]


def _widths(logs: Sequence[FloatArray], level: float) -> FloatArray:
    shares = [np.full(len(each), 1 / len(each)) for each in logs]
    # A hair less, as sums of shares are not exact.
    place = min(1.0, (level - 1e-9) * (1 + len(logs)) / len(logs))
    found: FloatArray = np.quantile(
        np.concatenate(logs), place, axis=0, weights=np.concatenate(shares), method="inverted_cdf"
    )
    return found


def leave_one_out(configurations: Sequence[Configuration]) -> HeldOut:
    """Every configuration beside a fit to the others; of more than 50, as many parts in turn."""
    count = len(configurations)
    folds = min(count, MOST_FOLDS)
    predicted = np.empty((count, len(COSTS)))
    for fold in range(folds):
        weights = fit_stages([each for i, each in enumerate(configurations) if i % folds != fold])
        for i in range(fold, count, folds):
            predicted[i] = stage_seconds(weights, configurations[i].features)
    return HeldOut(tuple(configurations), predicted)


# --- The model


@dataclass(frozen=True)
class Interval:
    """A predicted time and the interval that a query's time is expected in, in seconds."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """The cost of a configuration under a setup, by stage and in "total".

    `extrapolated` names the features outside of the fitted ranges, in words.
    """

    setup: Setup
    features: Features
    costs: dict[str, Interval]
    extrapolated: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """How far predictions are off for so many configurations that the fit had not seen.

    `median_error` and `p90_error` are median and 90th percentile, by stage and "total", of
    |predicted / measured - 1|, where measured is the median over a configuration's records.
    """

    configurations: Count
    median_error: dict[str, NotNegative]
    p90_error: dict[str, NotNegative]

    @classmethod
    def of(cls, held_out: HeldOut) -> Validation:
        """Sums up errors."""
        errors = held_out.errors()
        median, p90 = np.median(errors, axis=0), np.quantile(errors, 0.9, axis=0)
        return cls(len(errors), _by_cost(median), _by_cost(p90))


@dataclass(frozen=True)
class SetupCosts:
    """The law of one setup; raises `ValueError` where a part is missing or a term is unknown.

    Attributes:
        setup: The setup.
        weights: By stage and name of the term, seconds for one of it.
        factors: By stage, and "total": an interval is the prediction divided and multiplied by it.
        ranges: Smallest and largest value of each feature in the fit.
        num_records: Records in the fit.
        validation: Each configuration against a fit without it.
    """

    setup: Setup
    weights: StageWeights
    factors: dict[str, Annotated[float, Meta(ge=1, le=1e300)]]
    ranges: dict[str, tuple[NotNegative, NotNegative]]
    num_records: Count
    validation: Validation

    def __post_init__(self) -> None:
        held: dict[str, tuple[Mapping[str, Any], Sequence[str]]] = {
            "weights": (self.weights, STAGES),
            "factors": (self.factors, COSTS),
            "median_error": (self.validation.median_error, COSTS),
            "p90_error": (self.validation.p90_error, COSTS),
            "ranges": (self.ranges, [field.name for field in fields(Features)]),
        }
        for what, (given, expected) in held.items():
            if missing := [repr(name) for name in expected if name not in given]:
                raise ValueError(f"`{what}` has no {', '.join(missing)}")
        unknown = {name for own in self.weights.values() for name in own} - set(TERMS)
        if unknown:
            raise ValueError(f"`weights` has the unknown terms {sorted(unknown)}")

    @classmethod
    def fit(cls, setup: Setup, configurations: Sequence[Configuration], level: float) -> SetupCosts:
        """Fits the law, and its intervals to configurations held out one after the other."""
        held_out = leave_one_out(configurations)
        features = np.array([astuple(each.features) for each in configurations], dtype=float)
        ranges = zip(features.min(axis=0).tolist(), features.max(axis=0).tolist(), strict=True)
        return cls(
            setup=setup,
            weights=fit_stages(configurations),
            factors=_by_cost(held_out.factors(level)),
            ranges={field.name: own for field, own in zip(fields(Features), ranges, strict=True)},
            num_records=sum(len(each.times) for each in configurations),
            validation=Validation.of(held_out),
        )

    def predict(self, features: Features) -> Prediction:
        """The cost of a configuration; `InputError` if it has more circuits than can be counted."""
        outside = []
        try:
            seconds = stage_seconds(self.weights, features)
            for name, (low, high) in self.ranges.items():
                value = getattr(features, name)
                if not low <= value <= high:
                    fitted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
                    outside.append(f"{name} is {value:g}, fitted on {fitted}")
        except OverflowError:
            seconds = np.array([math.inf])
        if not np.isfinite(seconds).all():
            raise InputError(
                f"{short(features.num_circuits)} circuits have no cost that a number can hold: "
                "cut less, or ask for less"
            )
        costs = {
            name: Interval(taken, taken / self.factors[name], taken * self.factors[name])
            for name, taken in _by_cost(seconds).items()
        }
        return Prediction(self.setup, features, costs, tuple(outside))


class Source(TypedDict):
    """Versions, machine and processor that wrote records."""

    versions: dict[str, Any]
    machine: dict[str, Any]
    processor: str | None


@dataclass(frozen=True)
class TooFew(Setup):
    """A setup that has too few configurations for a law."""

    configurations: Count


class CostModel(Struct, frozen=True, tag_field="kind", tag="cost_model"):
    """Laws of cost for every setup that has enough records; in files, a JSON object of its fields.

    Attributes:
        schema_version: Of the file.
        level: Probability of the intervals.
        data_hash: SHA-256 over the records that were fitted, whatever their order.
        sources: What wrote them, each combination once.
        left_out: Numbers of records that no law is fitted to, by the reason.
        too_few: Setups without a law.
        setups: Those that have one, in order.

    Example:
        >>> from distributed_estimator.analysis.costs import read_costs
        >>> model = CostModel.fit(*read_costs("runs/iris"))  # doctest: +SKIP
        >>> model.setups[0].validation.median_error["total"]  # doctest: +SKIP
        0.08
    """

    schema_version: int
    level: Annotated[float, Meta(gt=0, lt=1)]
    data_hash: str
    sources: tuple[Source, ...]
    left_out: dict[str, Count]
    too_few: tuple[TooFew, ...]
    setups: tuple[SetupCosts, ...]

    @classmethod
    def fit(
        cls, records: Iterable[Record], headers: Iterable[Header] = (), level: float = LEVEL
    ) -> CostModel:
        """Fits stage costs to query records; others are ignored.

        Args:
            records: The records.
            headers: Of the files that they come from.
            level: Probability of the intervals.

        Raises:
            InputError: `level` is not between 0 and 1.
            RecordError: A record has a time that cannot be, or no setup has enough configurations;
                says what to record.
        """
        least = least_configurations(level)
        data = CostData.of(records)
        enough = {s: own for s, own in data.configurations.items() if len(own) >= least}
        few = [
            TooFew(**asdict(setup), configurations=len(own))
            for setup, own in data.configurations.items()
            if setup not in enough
        ]
        if not enough:
            raise RecordError(_too_few(few, data.left_out, least))
        sources: list[Source] = []
        for header in headers:
            machine = dict(vars(header.machine))
            source = Source(versions=header.versions, machine=machine, processor=header.processor)
            sources += [source] if source not in sources else []
        laws = tuple(SetupCosts.fit(setup, own, level) for setup, own in enough.items())
        return cls(MODEL_VERSION, level, data.hash, tuple(sources), data.left_out, tuple(few), laws)

    def predict(self, setup: Setup, features: Features) -> Prediction:
        """The cost of a configuration under a setup; raises as `of` and `SetupCosts.predict` do."""
        return self.of(setup).predict(features)

    def of(self, setup: Setup) -> SetupCosts:
        """The law of a setup.

        Raises:
            InputError: It has none; names those that have.
        """
        for own in self.setups:
            if own.setup == setup:
                return own
        few = [each.configurations for each in self.too_few if str(each) == str(setup)]
        why = f" ({few[0]} configurations were too few)" if few else ""
        raise InputError(
            f"nothing is known of the cost of {setup}{why}; fitted are "
            f"{named([str(own.setup) for own in self.setups])}: record queries of that setup"
        )

    def held_out(
        self, records: Iterable[Record]
    ) -> dict[Setup, tuple[Validation, dict[str, float]]]:
        """Predictions beside records that were not fitted, for setups that this model has.

        Returns:
            By setup: errors, and by cost the share of records inside their intervals.
        """
        configurations = CostData.of(records).configurations
        found = {}
        for own in self.setups:
            if held := configurations.get(own.setup, ()):
                predicted = [stage_seconds(own.weights, each.features) for each in held]
                beside = HeldOut(held, np.array(predicted))
                factors = np.array([own.factors[name] for name in COSTS])
                found[own.setup] = Validation.of(beside), _by_cost(beside.inside(factors))
        return found

    def notes(self) -> tuple[str, ...]:
        """Remarks on the records, for whoever uses the model."""
        machines = {str((s["machine"], s["processor"])) for s in self.sources}
        texts = [f"{count} records left out: {why}" for why, count in self.left_out.items()]
        texts += [f"too few configurations, {few.configurations}, of {few}" for few in self.too_few]
        if len(machines) > 1:
            texts.append(f"the records are of {len(machines)} machines, which are fitted as one")
        return tuple(texts)


def least_configurations(level: float) -> int:
    """How many configurations a setup must have for intervals of a probability.

    Raises:
        InputError: `level` is not between 0 and 1.

    Example:
        >>> least_configurations(0.9), least_configurations(0.95)
        (9, 19)
    """
    if not 0 < level < 1:
        raise InputError(f"`level` is {level!r}: give a probability between 0 and 1, such as 0.9")
    return max(_FEWEST, math.ceil(level / (1 - level) - 1e-9))


def _too_few(few: Sequence[TooFew], left_out: dict[str, int], least: int) -> str:
    if not few:
        reasons = named([f"{count} left out: {reason}" for reason, count in left_out.items()])
        return (
            f"there is no query record to fit ({reasons or 'none at all'}): record queries with "
            "fixed shots, or exact ones, without stragglers"
        )
    most = max(few, key=lambda setup: setup.configurations)
    return (
        f"{least} different configurations of one setup are needed, and the most there are is "
        f"{most.configurations}, of {most}: record more queries of it, with other circuits, cuts, "
        "shots, numbers of queries or workers"
    )


def _by_cost(numbers: FloatArray) -> dict[str, float]:
    return dict(zip(COSTS, numbers.tolist(), strict=True))


# --- Files


def read_costs(*paths: str | os.PathLike[str]) -> tuple[list[QueryRecord], list[Header]]:
    """Query records and headers of record files, and of all `queries.jsonl` in folders.

    A file is read once, however many paths lead to it.

    Raises:
        RecordError: A path is missing, a folder has no such file, or a file is damaged.
    """
    logs = ("queries.jsonl", "queries.jsonl.gz")
    files = {file.resolve(): file for path in paths for file in record_files(path, logs)}
    found = [
        record
        for file in files.values()
        for source, record in records_of(file, file)
        if file.name != RUNS or source.file.endswith("/queries.jsonl")
    ]
    queries = [record for record in found if isinstance(record, QueryRecord)]
    if not queries:
        places = ", ".join(f"`{path}`" for path in paths)
        raise RecordError(f"{places} has no query record: name the files of a finished run")
    return queries, [record for record in found if isinstance(record, Header)]


def load_costs(*paths: str | os.PathLike[str], level: float = LEVEL) -> CostModel:
    """A model from one model file, or fitted to record files and folders of runs and studies.

    `level` is the probability of the intervals of a fit; a file has its own.

    Raises:
        InputError: `level` is not between 0 and 1.
        RecordError: A file cannot be read or is damaged, or there are too few records.
    """
    files = [given_path(path) for path in paths]
    models = [file for file in files if _is_model(file)]
    if not models:
        return CostModel.fit(*read_costs(*files), level)
    if len(files) > 1:
        raise RecordError(
            f"`{models[0]}` is a cost model: give it alone, or the records of all to fit them again"
        )
    return read_model(models[0])


def write_model(model: CostModel, path: Path) -> None:
    """Writes a model file, whole or not at all.

    Raises:
        RecordError: It cannot be written, or something other than a model would be lost.
    """
    if path.is_file() and path.stat().st_size and not _is_model(path):
        raise RecordError(f"`{path}` exists and is no cost model: name another file")
    text = json.dumps(msgspec.to_builtins(model), indent=2, allow_nan=False)
    with refused("write", path), atomic(path) as unfinished:
        unfinished.write_text(text + "\n", "ascii")


class _Version(Struct):
    schema_version: int = MODEL_VERSION


def read_model(path: Path) -> CostModel:
    """Reads a model file; nothing in it is ever executed.

    Raises:
        RecordError: It is missing, damaged or of a newer schema.
    """
    with refused("read", path):
        content = path.read_bytes()
    try:
        data = json.loads(content)
        version = msgspec.convert(data, _Version).schema_version
        if version <= MODEL_VERSION:
            return msgspec.convert(data, CostModel)
    except (ValueError, RecursionError) as error:  # no JSON, or not of the declared types
        raise RecordError(
            f"`{path}` is no cost model that can be read ({error}): fit one with `dest costs --fit`"
        ) from error
    raise RecordError(
        f"the schema version of `{path}` is {version} and this release reads up to "
        f"{MODEL_VERSION}: install a newer distributed-estimator, or fit the records again"
    )


def _is_model(path: Path) -> bool:
    """Whether a file claims to be a model."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return b'"cost_model"' in file.read(200)
    except OSError:
        return False  # whoever reads it as records says why
