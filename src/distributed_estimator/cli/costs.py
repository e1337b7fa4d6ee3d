"""`dest costs`: what a query costs in seconds, from records of other queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..analysis.costs import LEVEL, CostModel, Features, Prediction, load_costs, write_model
from ..errors import InputError, named
from ..views import counted, duration
from ._forecast import Forecast, features_of
from ._options import NEW_FILE, PATH, Verb, examples, is_given
from ._output import note, print_json, print_table, printable, progress_console, share
from ._query import query_settings, read_query

costs_type: dict[str, Any] = {
    "multiple": True,
    "type": PATH,
    "metavar": "PATH",
    "help": "Predict the cost from PATH: a model that `dest costs --fit` wrote, a file of query "
    "records, or the folder of a run or a study; once for each.",
}


@click.command(
    cls=Verb,
    short_help="Predict what a query costs, from records of other queries.",
    epilog=examples(
        "dest costs circuit.qasm --label AABB --shots 1024 --costs runs/study",
        "dest costs --costs runs/study --validate --fit model.json",
    ),
)
@click.argument("file", type=PATH, required=False)
@click.option("--costs", "sources", required=True, **costs_type)
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
def costs(
    file: Path | None,
    sources: tuple[Path, ...],
    target: Path | None,
    validate: bool,
    level: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict what the query on the circuit in FILE costs: every stage, with an interval.

    A law of cost is fitted to the query records in --costs, for every setup (pipeline, backend,
    pool, policy, plan at hand or not) on its own, or read from the model that it names. Takes a
    query as `dest estimate` does and runs nothing. Without FILE, --fit writes the model down, and
    --validate shows how far it is off.
    """
    notes: list[str] = []
    features = None
    if file is not None:
        query = read_query(file=file, **options)
        forecast = Forecast.of(query)
        features = features_of(forecast)
        notes += query.notes
        notes += [] if forecast.refusal is None else [f"it would not run: {forecast.refusal}"]
    elif target is None and not validate:
        raise click.UsageError(
            "give a FILE with a circuit to predict its cost, `--fit MODEL` or `--validate`"
        )
    elif any(map(is_given, options.values())):
        raise click.UsageError(
            "give a FILE with a circuit to predict its cost, or leave out the options of a query"
        )
    model = model_of(sources, level)
    found = [] if features is None else predictions(model, features)
    if target is not None:
        write_model(model, target)
    for text in (*notes, *map(printable, model.notes())):
        note(text)
    if as_json:
        print_json(_predicted(model, found) | {"model": None if target is None else str(target)})
        return
    print_predictions(found, model.level)
    if validate:
        _print_errors(model)
    if target is not None:
        click.echo(f"model   {target}")


def _renamed(context: click.Context, **options: Any) -> None:
    note("`dest predict` is called `dest costs`, and goes with the next release")
    context.invoke(costs, **options)


predict = Verb(
    "predict",
    callback=click.pass_context(_renamed),
    params=costs.params,
    help=costs.help,
    short_help=costs.short_help,
    hidden=True,
)
"""The old name of `costs`."""


def _print_errors(model: CostModel) -> None:
    for own in model.setups:
        count = counted(own.validation.configurations, "configuration")
        click.echo(printable(f"Errors, each of {count} held out, {own.setup}"))
        columns = ("stage", "median", "90th percentile")
        worst = own.validation.p90_error
        medians = own.validation.median_error.items()
        print_table(columns, ((n, share(error), share(worst[n])) for n, error in medians))


def model_of(sources: Sequence[Path], level: float | None) -> CostModel:
    """The model of some sources, read or fitted.

    Raises:
        InputError: It was fitted for other intervals.
    """
    with progress_console().status("fitting"):
        model = load_costs(*sources, level=LEVEL if level is None else level)
    if level not in (None, model.level):
        raise InputError(
            f"`--level` is {level:g}, and the model in `{sources[0]}` was fitted for "
            f"{model.level:g}: give the records in its place, to fit them again"
        )
    return model


def predictions(model: CostModel, features: Features) -> list[Prediction]:
    """The cost of a query under every setup of the model in which the command could run it.

    Raises:
        InputError: There is none.
    """
    possible = ("contracted", "value", features.shots > 0)
    found = [
        own.predict(features)
        for own in model.setups
        if (own.setup.pipeline, own.setup.quantity, own.setup.sampled) == possible
    ]
    if not found:
        mode = "sampled" if features.shots > 0 else "exact"
        raise InputError(
            f"nothing is known of the cost of {mode} values; fitted are "
            f"{named([str(own.setup) for own in model.setups])}: record such queries first"
        )
    return found


def _predicted(model: CostModel, found: Sequence[Prediction]) -> dict[str, Any]:
    return {
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
        "notes": model.notes(),
    }


def print_predictions(found: Sequence[Prediction], level: float) -> None:
    """Prints a table for each setup, and notes what is extrapolated."""
    columns = ("stage", "time", f"{100 * level:g} % from", "to")
    for prediction in found:
        click.echo(printable(f"Predicted cost, {prediction.setup}"))
        rows = [
            (name, *map(duration, (cost.seconds, cost.low, cost.high)))
            for name, cost in prediction.costs.items()
        ]
        print_table(columns, rows)
    for prediction in found:
        if prediction.extrapolated:
            outside, of = "; ".join(prediction.extrapolated), f" ({prediction.setup})"
            text = f"extrapolated, so that intervals may be too narrow: {outside}"
            note(printable(text + of * (len(found) > 1)))
