"""Predictions of cost for the verbs that print them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click
from rich.table import Table

from ..analysis.costs import CostModel, Features, Prediction
from ..errors import InputError, named
from ._output import duration, note, print_table, printable
from ._paths import PATH

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


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
    """What a query costs under every setup of the model in which the command could run it.

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


def prediction_as_dict(prediction: Prediction) -> dict[str, Any]:
    """A prediction as JSON has it; times in seconds."""
    return {
        "setup": asdict(prediction.setup),
        "features": asdict(prediction.features),
        "costs": {name: asdict(cost) for name, cost in prediction.costs.items()},
        "extrapolated": list(prediction.extrapolated),
    }


def print_predictions(found: Sequence[Prediction], level: float) -> None:
    """A table for each setup, and what is extrapolated."""
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


def note_limits(model: CostModel) -> None:
    """What the records of a model do not tell, as remarks."""
    for text in model.notes():
        note(printable(text))
