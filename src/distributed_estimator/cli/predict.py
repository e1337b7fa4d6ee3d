"""`dest predict`: what a query costs, from records of others; and how far that may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..analysis.costs import LEVEL, CostModel, load_costs, write_model
from ..errors import InputError
from ._forecast import (
    Forecast,
    costs_option,
    features_of,
    predictions,
    print_predictions,
    stage_table,
)
from ._output import counted, note, print_json, print_table, printable, progress_console
from ._paths import NEW_FILE, PATH
from ._query import query_settings, read_query

_OF_A_QUERY = (
    "observable",
    "label",
    "max_qubits",
    "parameters",
    "shots",
    "precision",
    "exact",
)


@click.command(short_help="Predict what a query costs, from records of other queries.")
@click.argument("file", type=PATH, required=False)
@costs_option(required=True)
@click.option(
    "--fit",
    "target",
    type=NEW_FILE,
    metavar="MODEL",
    help="Write the fitted model to MODEL, a JSON file, for --costs.",
)
@click.option("--validate", is_flag=True, help="Show errors for configurations that were held out.")
@click.option(
    "--level",
    type=float,
    default=None,
    metavar="P",
    help="Probability of intervals, in a fit.  [default: 0.9]",
)
@query_settings
def predict(
    file: Path | None,
    costs: tuple[Path, ...],
    target: Path | None,
    validate: bool,
    level: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict what the query on the circuit in FILE costs: every stage, with an interval.

    A law of cost is fitted to the query records in --costs, for every setup (pipeline, backend,
    pool, policy, plan at hand or not) on its own, or read from the model that it names. Takes the
    options of `dest estimate` and runs nothing. Without FILE, --fit writes the model down, and
    --validate shows how far it is off.
    """
    if file is None:
        _check_purpose(target is not None or validate, options)
    features = None
    notes: list[str] = []
    if file is not None:
        query = read_query(file=file, **options)
        forecast = Forecast.of(query)
        features = features_of(query, forecast)
        notes += query.notes
        if forecast.refusal is not None:
            notes.append(f"it would not run: {forecast.refusal}")
    model = _model(costs, level)
    found = [] if features is None else predictions(model, features)
    if target is not None:
        write_model(model, target)
    for text in (*notes, *map(printable, model.notes())):
        note(text)
    if as_json:
        print_json(
            {
                "level": model.level,
                "data_hash": model.data_hash,
                "sources": model.sources,
                "predictions": [asdict(each) for each in found],
                "validation": [
                    {
                        "setup": asdict(own.setup),
                        "num_records": own.num_records,
                        "ranges": own.ranges,
                        **asdict(own.validation),
                    }
                    for own in model.setups
                ],
                "model": None if target is None else str(target),
                "notes": model.notes(),
            }
        )
        return
    print_predictions(found, model.level)
    if validate:
        _print_errors(model)
    if target is not None:
        click.echo(f"model   {target}")


def _check_purpose(fits: bool, options: dict[str, Any]) -> None:
    """Refuses options that would be left without effect."""
    if not fits or any(options[name] for name in _OF_A_QUERY):
        without = "" if fits else ", `--fit MODEL` or `--validate`"
        raise click.UsageError(f"give a FILE with a circuit to predict its cost{without}")


def _model(costs: Sequence[Path], level: float | None) -> CostModel:
    with progress_console().status("fitting"):
        model = load_costs(*costs, level=LEVEL if level is None else level)
    if level not in (None, model.level):
        raise InputError(
            f"`--level` is {level:g}, and the model in `{costs[0]}` was fitted for "
            f"{model.level:g}: give the records in its place, to fit them again"
        )
    return model


def _print_errors(model: CostModel) -> None:
    for own in model.setups:
        validation = own.validation
        count = counted(validation.configurations, "configuration")
        click.echo(printable(f"Errors, each of {count} held out, {own.setup}"))
        table = stage_table("median", "90th percentile")
        for name, median in validation.median_error.items():
            cells = (f"{100 * error:.1f} %" for error in (median, validation.p90_error[name]))
            table.add_row(name, *cells, style="bold" if name == "total" else None)
        print_table(table)
