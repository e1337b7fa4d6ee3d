"""What queries will cost: laws fitted to the stage times of records, with intervals.

Every stage is a sum of physically meaningful terms (`features.STAGE_TERMS`) with weights that
are not negative, fitted for each `Setup` on its own. Intervals come from configurations that the
fit had not seen; see docs/cost-model.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from ...errors import InputError, RecordError, named, short
from ...records import Header, Record
from .data import Configuration, CostData
from .features import STAGE_TERMS, Features, Setup
from .fit import HeldOut, StageWeights, fit_stages, leave_one_out, stage_seconds

LEVEL = 0.9
"""Probability of an interval, where none is asked for."""
_FEWEST = 8
COSTS: tuple[str, ...] = (*STAGE_TERMS, "total")
"""What is predicted: the stages, then their total."""

Ranges: TypeAlias = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Interval:
    """A prediction, in seconds, and between which two times a query's is expected."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """What a configuration costs under a setup.

    Attributes:
        setup: The setup.
        features: The configuration.
        costs: By stage, and their "total".
        extrapolated: What lies outside of what was fitted, in words; empty: nothing does.
    """

    setup: Setup
    features: Features
    costs: dict[str, Interval]
    extrapolated: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """How far predictions are off for configurations that the fit had not seen.

    Attributes:
        configurations: How many were held out.
        median_error: By stage, and "total": the median of |predicted / measured - 1|, where
            measured is the median over a configuration's records.
        p90_error: The 90th percentile of the same.
    """

    configurations: int
    median_error: dict[str, float]
    p90_error: dict[str, float]

    @classmethod
    def of(cls, held_out: HeldOut) -> Validation:
        """Sums up errors."""
        errors = held_out.errors()
        return cls(
            configurations=len(errors),
            median_error=_by_cost(np.median(errors, axis=0)),
            p90_error=_by_cost(np.quantile(errors, 0.9, axis=0)),
        )


@dataclass(frozen=True)
class SetupCosts:
    """The law of one setup.

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
    factors: dict[str, float]
    ranges: Ranges
    num_records: int
    validation: Validation

    @classmethod
    def fit(cls, setup: Setup, configurations: Sequence[Configuration], level: float) -> SetupCosts:
        """Fits the law, and its intervals to configurations held out one after the other."""
        held_out = leave_one_out(configurations)
        return cls(
            setup=setup,
            weights=fit_stages(configurations),
            factors=_by_cost(held_out.factors(level)),
            ranges=_ranges([each.features for each in configurations]),
            num_records=sum(len(each.times) for each in configurations),
            validation=Validation.of(held_out),
        )

    def predict(self, features: Features) -> Prediction:
        """What a configuration costs.

        Raises:
            InputError: It has more circuits than can be counted.
        """
        try:
            seconds = stage_seconds(self.weights, features)
            outside = self._extrapolated(features)
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
        return Prediction(self.setup, features, costs, outside)

    def held_out(
        self, configurations: Sequence[Configuration]
    ) -> tuple[Validation, dict[str, float]]:
        """Errors, and the share of records inside their intervals, for others than were fitted."""
        predicted = [stage_seconds(self.weights, each.features) for each in configurations]
        beside = HeldOut(tuple(configurations), np.array(predicted))
        factors = np.array([self.factors[name] for name in COSTS])
        return Validation.of(beside), _by_cost(beside.inside(factors))

    def _extrapolated(self, features: Features) -> tuple[str, ...]:
        outside = []
        for name, (low, high) in self.ranges.items():
            value = getattr(features, name)
            if not low <= value <= high:
                fitted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
                outside.append(f"{name} is {value:g}, fitted on {fitted}")
        return tuple(outside)


@dataclass(frozen=True)
class CostModel:
    """Laws of cost for every setup that has enough records.

    Attributes:
        setups: In order.
        level: Probability of the intervals.
        too_few: Setups that have too few configurations, with how many these have.
        left_out: Numbers of records that no law is fitted to, by the reason.
        data_hash: SHA-256 over the records that were fitted, whatever their order.
        sources: Versions, machine and processor that wrote them, each combination once.

    Example:
        >>> from distributed_estimator.analysis.costs.data import read_costs
        >>> model = CostModel.fit(*read_costs("runs/iris"))  # doctest: +SKIP
        >>> model.setups[0].validation.median_error["total"]  # doctest: +SKIP
        0.08
    """

    setups: tuple[SetupCosts, ...]
    level: float
    too_few: dict[Setup, int]
    left_out: dict[str, int]
    data_hash: str
    sources: tuple[dict[str, Any], ...]

    @classmethod
    def fit(
        cls, records: Iterable[Record], headers: Iterable[Header] = (), level: float = LEVEL
    ) -> CostModel:
        """Fits stage costs to query records.

        Args:
            records: Query records; others are ignored.
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
        few = {s: len(own) for s, own in data.configurations.items() if len(own) < least}
        if not enough:
            raise RecordError(_too_few(few, data.left_out, least))
        return cls(
            setups=tuple(SetupCosts.fit(setup, own, level) for setup, own in enough.items()),
            level=level,
            too_few=few,
            left_out=data.left_out,
            data_hash=data.hash,
            sources=_sources(headers),
        )

    def of(self, setup: Setup) -> SetupCosts:
        """The law of a setup.

        Raises:
            InputError: It has none; names those that have.
        """
        for own in self.setups:
            if own.setup == setup:
                return own
        few = self.too_few.get(setup)
        why = "" if few is None else f" ({few} configurations were too few)"
        raise InputError(
            f"nothing is known of the cost of {setup}{why}; fitted are "
            f"{named([str(own.setup) for own in self.setups])}: record queries of that setup"
        )

    def predict(self, setup: Setup, features: Features) -> Prediction:
        """What a configuration costs under a setup.

        Raises:
            InputError: As for `of` and `SetupCosts.predict`.
        """
        return self.of(setup).predict(features)

    def held_out(
        self, records: Iterable[Record]
    ) -> dict[Setup, tuple[Validation, dict[str, float]]]:
        """Predictions beside records that were not fitted, for setups that this knows.

        Returns:
            By setup: errors, and by cost the share of records inside their intervals.

        Raises:
            RecordError: A record has a time that cannot be.
        """
        laws = {own.setup: own for own in self.setups}
        return {
            setup: laws[setup].held_out(own)
            for setup, own in CostData.of(records).configurations.items()
            if setup in laws
        }

    def notes(self) -> tuple[str, ...]:
        """What whoever uses the model should know of the records it is fitted to."""
        machines = {str((s["machine"], s["processor"])) for s in self.sources}
        texts = [f"{count} records left out: {why}" for why, count in self.left_out.items()]
        texts += [f"too few configurations, {count}, of {s}" for s, count in self.too_few.items()]
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


def _too_few(few: dict[Setup, int], left_out: dict[str, int], least: int) -> str:
    if not few:
        reasons = [f"{count} left out: {reason}" for reason, count in left_out.items()]
        return (
            f"there is no query record to fit{': ' if reasons else ''}{named(reasons)}: record "
            "queries with fixed shots, or exact ones, without stragglers"
        )
    most = max(few, key=lambda setup: few[setup])
    return (
        f"{least} different configurations of one setup are needed, and the most there are is "
        f"{few[most]}, of {most}: record more queries of it, with other circuits, cuts, shots, "
        "numbers of queries or workers"
    )


def _by_cost(numbers: Iterable[float]) -> dict[str, float]:
    return {name: float(number) for name, number in zip(COSTS, numbers, strict=True)}


def _ranges(features: Sequence[Features]) -> Ranges:
    values = {f.name: [float(getattr(each, f.name)) for each in features] for f in fields(Features)}
    return {name: (min(own), max(own)) for name, own in values.items()}


def _sources(headers: Iterable[Header]) -> tuple[dict[str, Any], ...]:
    sources: list[dict[str, Any]] = []
    for header in headers:
        source = {
            "versions": dict(header.versions),
            "machine": dict(vars(header.machine)),
            "processor": header.processor,
        }
        if source not in sources:
            sources.append(source)
    return tuple(sources)
