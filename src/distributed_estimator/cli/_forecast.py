"""What a query would cut, run and cost, and what other cuts would: the facts of `dest plan`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from typing import Any

from ..analysis.costs import Features
from ..cutting import AutoCut, CutPlan
from ..cutting.search import SHOTS_A_CIRCUIT
from ..errors import CircuitError, InputError, PlanTooLargeError
from ..estimator import DistributedEstimator
from ..pipeline import Prepared, Price, Request
from ..pubs import merge, read_pubs
from ._query import Query

_SEARCHED = 0.01
"""The standard error that `cutting.search.Prediction` has the shots of."""
_SECONDS = 2.0
"""Time for searches beside a plan that is no result of one."""
_FEW_CIRCUITS, _NARROW = 200, 14
"""Circuits and width of plans whose shots are simulated beside those of the query."""
_MOST = 10**300
_BYTES_A_STATE = 1024
"""Of a state vector's number, with the branches of a few cuts."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """A plan, the circuits it takes to measure an observable, and whether they fit in memory.

    Attributes:
        query: The query.
        prepared: The plan reduced to what reaches the observable, and its experiments.
        circuits: Circuits that all bindings run, those that they share once; at most so many where
            settings are drawn.
        memory: Bytes that a run takes; None: it would not run.
        limit: Bytes that it may take.
        refusal: Why it would not run; None: it would.
        price: What it takes where a precision rules; None: none does, or it would not run.
    """

    query: Query
    prepared: Prepared
    circuits: int
    memory: int | None
    limit: int
    refusal: str | None
    price: Price | None

    @classmethod
    def of(cls, query: Query, plan: CutPlan | None = None) -> Forecast:
        """Plans a query, as running it would; or with another plan, whose price has to be simple.

        Raises:
            InputError: The cuts, the observable, the values or the shots do not fit the circuit.
        """
        settings, circuit = query.settings, query.circuit
        pub = circuit, list(query.observables), query.sample()
        memory, refusal, price = None, None, None
        cuts = settings.cuts if plan is None else plan
        with DistributedEstimator(
            cuts, workers=settings.workers, options=settings.options
        ) as estimator:
            pipeline, (read,) = estimator.pipeline, read_pubs([pub], None)
            accuracy, batch = estimator.accuracy(None), merge([read])
            prepared, _ = pipeline.preparation.prepare(batch.circuit, batch.observables)
            prepared.plan.normal.angles.evaluate(batch.values)
            request = Request(batch, accuracy, "plan")
            circuits = pipeline.num_circuits(request)
            try:
                memory = pipeline.memory_of(request)
                if accuracy.promises and (plan is None or _is_simple(plan)):
                    price = estimator.price([pub])
                    circuits = price.circuits
            except PlanTooLargeError as error:
                refusal = str(error)
        return cls(query, prepared, circuits, memory, pipeline.memory.size, refusal, price)

    @property
    def plan(self) -> CutPlan:
        """The plan, without what the observable cannot see."""
        return self.prepared.plan

    @property
    def fits(self) -> bool:
        """Whether it would run."""
        return self.refusal is None

    @property
    def width(self) -> int:
        """Qubits of the widest fragment."""
        return max((fragment.num_qubits for fragment in self.plan.fragments), default=0)

    @property
    def most_qubits(self) -> int:
        """The widest fragment that is allowed: as asked for, or as the plan has it."""
        return self.query.settings.max_qubits or self.width

    @cached_property
    def fragments(self) -> list[dict[str, Any]]:
        """What is run of each fragment; circuits whose outcome is sure are not."""
        return [
            {
                "qubits": list(each.fragment.qubits),
                "slots": len(each.fragment.slots),
                "settings": each.fragment.num_settings(each.basis),
                "measurement_groups": len(each.groups),
                "circuits": 0 if each.is_trivial else each.num_circuits,
            }
            for each in self.prepared.experiments
        ]

    @property
    def num_circuits(self) -> int:
        """Circuits of all fragments, of one binding."""
        return sum(each["circuits"] for each in self.fragments)

    @property
    def precise(self) -> int | None:
        """Shots that meet the precision, as the query divides them; None: that is not known."""
        if self.price is None:
            return None
        found: int | None = getattr(self.price, self.query.settings.options.allocation)
        return found

    @property
    def shots(self) -> int | None:
        """Shots in all; None: that is not known."""
        options = self.query.settings.options
        if options.shots is not None and options.default_precision:
            return options.shots * self.circuits
        if options.shots_total is not None or not options.default_precision:
            return options.shots_total or 0
        if self.precise is None or options.max_shots is None:
            return self.precise
        return min(self.precise, options.max_shots)


@dataclass(frozen=True, eq=False)
class Alternative:
    """Other cuts of the query's circuit, beside its own.

    Attributes:
        option: What asks for them on the command line.
        forecast: What they take.
        shots: In all, about, for the same accuracy; None: that is not known.
    """

    option: str
    forecast: Forecast
    shots: float | None

    @property
    def bill(self) -> float:
        """Shots, with those that take as long as the circuits do."""
        if self.shots is None:
            return inf
        return self.shots + SHOTS_A_CIRCUIT * min(self.forecast.circuits, _MOST)

    @property
    def facts(self) -> dict[str, Any]:
        """For a JSON document."""
        plan = self.forecast.plan
        return asdict(plan.predicted) | {
            "price": plan.predicted.price,
            "num_fragments": plan.num_fragments,
            "num_cuts": plan.num_cuts,
            "num_circuits": self.forecast.num_circuits,
            "shots_total": self.shots,
            "fits": self.forecast.fits,
            "option": self.option,
        }


def alternatives_of(forecast: Forecast) -> list[Alternative]:
    """The plan itself and those of searches for other widths, from the narrowest to the widest."""
    query, own = forecast.query, Alternative("this plan", forecast, forecast.shots)
    search = query.settings.cuts
    if not isinstance(search, AutoCut):
        most = max(1, (forecast.limit // _BYTES_A_STATE).bit_length() - 1)
        width = max(1, forecast.width if forecast.fits else min(forecast.width, most))
        search = AutoCut(width, seed=query.settings.seed, seconds=_SECONDS)
    found = [own]
    with suppress(CircuitError):
        for plan in forecast.plan.alternatives(search):
            if plan.for_observables(forecast.plan.observed).key == forecast.plan.key:
                continue
            with suppress(InputError):  # fewer shots than circuits, say
                other = Forecast.of(query, plan)
                option = f"--max-qubits {plan.predicted.width}"
                if not plan.num_cuts:
                    option = "whole"
                found.append(Alternative(option, other, _shots_of(other, forecast)))
    return sorted(found, key=lambda each: each.forecast.width)


def cheapest(found: list[Alternative], forecast: Forecast) -> Alternative | None:
    """The one of the lowest bill that fits, no wider than allowed; None: none fits."""
    limit = forecast.most_qubits
    fitting = [each for each in found if each.forecast.fits and each.forecast.width <= limit]
    return min(fitting, key=lambda each: each.bill, default=None)


def _is_simple(plan: CutPlan) -> bool:
    """Whether its pilots take no time to speak of."""
    own = plan.predicted
    return own.circuits <= _FEW_CIRCUITS and own.width <= _NARROW


def _shots_of(other: Forecast, own: Forecast) -> float | None:
    """About so many for the same accuracy: from the plan's own, as searches compare the two."""
    if other.shots is not None:
        return other.shots
    predicted = other.plan.predicted.shots
    if own.shots:
        return own.shots * predicted / own.plan.predicted.shots
    return predicted * (_SEARCHED / own.query.settings.options.default_precision) ** 2


def features_of(forecast: Forecast) -> Features:
    """The features that the query's record will have.

    Raises:
        InputError: What its precision takes cannot be found out.
    """
    query, plan = forecast.query, forecast.plan
    options = query.settings.options
    shots, circuits = forecast.shots, forecast.circuits
    if shots is None:
        raise InputError(
            "what a precision takes is not known, as the fragments cannot be simulated here: give "
            "`--shots N` or `--exact` to predict a cost"
        )
    return Features(
        num_qubits=query.circuit.num_qubits,
        depth=plan.circuit.depth(),
        widest_fragment=forecast.prepared.max_qubits,
        num_cuts=plan.num_cuts,
        num_fragments=plan.num_fragments,
        num_circuits=forecast.num_circuits,
        num_subexperiments=circuits,
        num_queries=len(query.observables) * len(query.values),
        shots=options.shots or shots / max(1, circuits),
        workers=query.settings.workers,
    )
