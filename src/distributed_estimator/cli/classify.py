"""`dest classify RUN DATA`: what a trained network says of new rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..analysis.accuracy import percent
from ..errors import InputError
from ..records import atomic
from ..training.config import TrainingConfig
from ..training.runs import RunFolder
from ..training.sources import Rows, read_rows
from ._devices import backend_option, find_backend
from ._options import FOLDER, NEW_FILE, PATH, Verb, examples, json_option, options_of
from ._output import note, print_files, print_json, print_table, printable

if TYPE_CHECKING:
    from ..training.trained import Evaluation, Predictions, TrainedNetwork

_SHOWN = 20
"""Rows that the terminal gets; files and documents get all."""

_OF_RUN = ("shots", "pool", "workers")
_COLUMNS = ("row", "class", "probability", "stderr")


@click.command(
    cls=Verb,
    short_help="Classify new rows with a trained network.",
    epilog=examples(
        "dest classify runs/iris rows.csv",
        "dest classify runs/iris rows.csv --backend aer --out classes.csv",
    ),
)
@click.argument("folder", type=FOLDER, metavar="RUN")
@click.argument("data", type=PATH, metavar="DATA")
@click.option(
    "--target",
    help="Column of the classes, if the rows have one.  [default: as in the training's data]",
)
@click.option("--exact", is_flag=True, help="Without shots, whatever the run was trained with.")
@options_of(TrainingConfig, _OF_RUN, defaults=dict.fromkeys(_OF_RUN, "as the run"))
@backend_option(
    "Where circuits run, as of `dest estimate`; once for each that fragments are shared by.  "
    "[default: statevector]"
)
@click.option("--out", type=NEW_FILE, help="A CSV file that gets all rows.")
@json_option
def classify(
    folder: Path,
    data: Path,
    target: str | None,
    exact: bool,
    shots: int | None,
    pool: Any,
    workers: int | None,
    backend: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Classify the rows of DATA with the network of the run in RUN.

    DATA is a CSV or Parquet file, or - for CSV on the standard input. Its columns are found by
    their names, and reduced and scaled as those of the training were. If it has the column of
    classes, too, the accuracy and the confusion matrix are shown.

    RUN is the folder of a `dest train`; its last weights are taken, of an unfinished run those of
    its last checkpoint. Its files are not changed.
    """
    from ..training.trained import TrainedNetwork

    if out is not None:
        _check_out(out, data, folder)
    found_backend = [find_backend(spec) for spec in backend] or None
    network = TrainedNetwork.load(
        folder, exact=exact, shots=shots, pool=pool, workers=workers, backend=found_backend
    )
    with network:
        made = network.preprocessing
        if made is None:
            raise InputError(
                f"`{folder}` was trained on arrays, or on data that is gone, so that it has no "
                "names of columns: use `TrainedNetwork` from Python"
            )
        rows = read_rows(data, made.columns, made.target if target is None else target)
        if target is not None and rows.labels is None:
            raise InputError(
                f"`target` is {target!r}, and `{data}` has no such column: name one that it has, "
                "or leave it out"
            )
        if rows.ignored:
            note(f"columns that the training did not have are ignored: {', '.join(rows.ignored)}")
        found = None if rows.labels is None else network.evaluate(rows.features, rows.labels)
        predictions = (
            network.predict_with_errors(rows.features) if found is None else found.predictions
        )
    if out is not None:
        with atomic(out) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            _write(file, network, predictions)
    if as_json:
        print_json(_document(network, rows, predictions, found))
        return
    _print_text(network, predictions, found, rest=out is None)
    if out is not None:
        print_files({"rows": str(out)})


def _check_out(out: Path, data: Path, folder: Path) -> None:
    """Raises InputError where the output would replace the rows, or a file of the run."""
    for path, holds in (
        (data, "the rows"),
        *((file, "a part of the run") for file in RunFolder(folder).files()),
    ):
        if out.exists() and path.exists() and out.samefile(path):
            raise InputError(f"`out` is `{out}`, which holds {holds}: name another file")


def _rows_of(
    network: TrainedNetwork, found: Predictions
) -> Iterator[tuple[int, str, float, float]]:
    """The number of each row from 1 on, its class, and that class's probability with its error."""
    known = network.classes_.tolist()
    for row, name in enumerate(found.classes.tolist()):
        place = known.index(name)
        yield row + 1, name, *(float(x[row, place]) for x in (found.probabilities, found.stderrs))


def _write(file: TextIO, network: TrainedNetwork, found: Predictions) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_rows_of(network, found))


def _document(
    network: TrainedNetwork, rows: Rows, predictions: Predictions, found: Evaluation | None
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "network": network.title,
        "epoch": network.epoch,
        "finished": network.finished,
        "classes": network.classes_.tolist(),
        "ignored_columns": list(rows.ignored),
        "rows": [dict(zip(_COLUMNS, row, strict=True)) for row in _rows_of(network, predictions)],
        "probabilities": predictions.probabilities.tolist(),
        "stderrs": predictions.stderrs.tolist(),
    }
    if found is not None:
        names = ("accuracy", "stderr", "low", "high")
        document["evaluation"] = {name: getattr(found, name) for name in names}
        document["evaluation"]["confusion"] = found.confusion.tolist()
    return document


def _print_text(
    network: TrainedNetwork, predictions: Predictions, found: Evaluation | None, *, rest: bool
) -> None:
    click.echo(printable(network.title))
    rows = list(_rows_of(network, predictions))
    cells = ((row, name, f"{share:.4f}", f"{error:.4f}") for row, name, share, error in rows)
    print_table(_COLUMNS, [cell for cell, _ in zip(cells, range(_SHOWN), strict=False)], left=2)
    if len(rows) > _SHOWN and rest:
        note(f"{len(rows) - _SHOWN} more rows: `--out FILE.csv` gets all of them")
    if found is None:
        return
    click.echo(
        f"accuracy {percent(found.accuracy)} ± {percent(found.stderr)} "
        f"({percent(found.low)} to {percent(found.high)}) of {len(rows)} rows"
    )
    known = network.classes_.tolist()
    table = ((name, *counts) for name, counts in zip(known, found.confusion.tolist(), strict=True))
    click.echo("rows of a class (down), by predicted class (across):")
    print_table(("class", *known), table)
