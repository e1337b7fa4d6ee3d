"""What a query will cut, run and cost, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import numpy as np
from rich.table import Table

from ..analysis.costs import CostModel, Features, Prediction
from ..backends import StatevectorBackend
from ..cutting import CutPlan
from ..errors import InputError, PlanTooLargeError, named
from ..estimator import EstimatorOptions
from ..execution import Policy
from ..pipeline import MemoryLimit, Need, Preparation, Prepared, RoundRequest
from ..reconstruction import Wanted
from ..subexperiments import (
    PILOT_SHOTS,
    PILOTS,
    FragmentExperiment,
    Observables,
    parse,
    shots_to_meet,
)
from ._output import duration, note, print_table, printable
from ._paths import PATH
from ._query import Query

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Forecast:
    """A plan, the circuits it takes to measure an observable, and whether they fit in memory.

    Attributes:
        prepared: The plan reduced to what reaches the observable, and its experiments.
        memory: Bytes that a run takes.
        limit: Bytes that it may take.
        refusal: Why it would not run; None: it would.
        fewest_shots: Shots a circuit, or as many as it takes at least where a precision rules.
    """

    prepared: Prepared
    memory: int
    limit: int
    refusal: str | None
    fewest_shots: int

    @classmethod
    def of(cls, query: Query) -> Forecast:
        """Plans a query, as running it would.

        Raises:
            InputError: The cuts, the observable or the values do not fit the circuit.
        """
        options, circuit, backend = query.options, query.circuit, StatevectorBackend()
        array = parse(query.observable, circuit.num_qubits)
        observables = Observables.gather(array.sparse_observables_array().ravel())
        preparation = Preparation(query.cuts, options.setting_basis, backend)
        prepared, _ = preparation.prepare(circuit, observables)
        if len(query.values) == len(circuit.parameters):
            prepared.plan.normal.angles.evaluate(np.array([query.binding()]))
        rows = [np.zeros((1, len(fragment.angles))) for fragment in prepared.plan.fragments]
        shots, wanted, fewest = _first_round(options)
        need = Need(RoundRequest(prepared, Policy(), rows, shots, wanted), query.workers)
        limit, refusal, most_elements = MemoryLimit(None), None, None
        try:
            most_elements = limit.check(need)
        except PlanTooLargeError as error:
            refusal = str(error)
        return cls(prepared, need.total_with(most_elements), limit.size, refusal, fewest)

    @property
    def plan(self) -> CutPlan:
        """The plan, without what the observable cannot see."""
        return self.prepared.plan

    @property
    def experiments(self) -> tuple[FragmentExperiment, ...]:
        """What is run of each fragment."""
        return self.prepared.experiments

    @property
    def settings(self) -> tuple[int, ...]:
        """Settings of each fragment."""
        return tuple(e.fragment.num_settings(e.basis) for e in self.experiments)

    @property
    def groups(self) -> tuple[int, ...]:
        """Measurement groups of each fragment; each group is run in every setting."""
        return tuple(len(e.groups) for e in self.experiments)

    @property
    def circuits(self) -> tuple[int, ...]:
        """Circuits of each fragment that are run; those whose outcome is sure are not."""
        return tuple(0 if e.is_trivial else e.num_circuits for e in self.experiments)


def _first_round(options: EstimatorOptions) -> tuple[int | None, Wanted, int]:
    """Shots and results of the first round of a query, and the fewest shots of all its rounds."""
    if options.shots is not None:
        return options.shots, "errors", options.shots
    precision = options.default_precision
    if precision == 0:
        return None, "values", 0
    sure = np.zeros((PILOTS, 1))  # what pilots find where the value has no variance
    return PILOT_SHOTS, "orders", PILOTS * PILOT_SHOTS + shots_to_meet(precision, sure, sure)


def features_of(query: Query, forecast: Forecast) -> Features:
    """The features that the query's record will have.

    Raises:
        InputError: It asks for a precision: what that takes shows only in its run.
    """
    options = query.options
    if options.shots is None and options.default_precision > 0:
        raise InputError(
            "what a precision costs shows only when it runs: give `--shots N` or `--exact` to "
            "predict a cost"
        )
    plan, circuits = forecast.plan, sum(forecast.circuits)
    num_qubits = query.circuit.num_qubits
    return Features(
        num_qubits=num_qubits,
        depth=plan.circuit.depth(),
        widest_fragment=forecast.prepared.max_qubits,
        num_cuts=plan.num_cuts,
        num_fragments=plan.num_fragments,
        num_circuits=circuits,
        num_subexperiments=circuits,
        num_queries=1,
        shots=0 if options.shots is None else options.shots,
        workers=query.workers,
    )


def costs_option(*, required: bool) -> Callable[[CommandT], CommandT]:
    """The option that names a model or records."""
    return click.option(
        "--costs",
        "costs",
        multiple=True,
        required=required,
        type=PATH,
        metavar="PATH",
        help="Predict the cost from PATH: a model that `dest predict --fit` wrote, a file of query "
        "records, or the folder of a run or a study; once for each.",
    )


def predictions(model: CostModel, features: Features) -> list[Prediction]:
    """The cost of a query under every setup of the model in which the command could run it.

    Raises:
        InputError: There is none.
    """
    sampled = features.shots > 0
    found = [
        own.predict(features)
        for own in model.setups
        if own.setup.pipeline == "contracted"
        and own.setup.quantity == "value"
        and own.setup.sampled == sampled
    ]
    if not found:
        mode = "sampled" if sampled else "exact"
        raise InputError(
            f"nothing is known of the cost of {mode} values; fitted are "
            f"{named([str(own.setup) for own in model.setups])}: record such queries first"
        )
    return found


def print_predictions(found: Sequence[Prediction], level: float) -> None:
    """Prints a table for each setup, and notes what is extrapolated."""
    for prediction in found:
        click.echo(printable(f"Predicted cost, {prediction.setup}"))
        table = stage_table("time", f"{100 * level:g} % from", "to")
        for name, cost in prediction.costs.items():
            cells = (duration(seconds) for seconds in (cost.seconds, cost.low, cost.high))
            table.add_row(name, *cells, style="bold" if name == "total" else None)
        print_table(table)
    for prediction in found:
        if prediction.extrapolated:
            outside, of = "; ".join(prediction.extrapolated), f" ({prediction.setup})"
            text = f"extrapolated, so that intervals may be too narrow: {outside}"
            note(printable(text + of * (len(found) > 1)))


def stage_table(*columns: str) -> Table:
    """An empty table with a row to come for each stage."""
    table = Table()
    table.add_column("stage")
    for name in columns:
        table.add_column(name, justify="right")
    return table
