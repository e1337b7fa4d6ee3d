"""`dest records`: a summary of a folder's records, or the answer to a query in SQL."""

from __future__ import annotations

import csv
import io
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..analysis.frames import Answer, Inventory, query_records, take_inventory
from ..checks import is_number
from ..errors import RecordError, named
from ..views import counted
from ._options import PATH, Verb, examples, json_option
from ._output import note, print_json, printable, progress_console, table

_MOST_ROWS = 1000
_WIDEST = 100_000


@click.command(
    cls=Verb,
    short_help="Sum up records, or ask them in SQL.",
    epilog=examples('dest records runs/iris --sql "select t_total from query" --csv'),
)
@click.argument("path", metavar="PATH", type=PATH)
@click.option(
    "--sql",
    metavar="TEXT",
    help="One SELECT statement (DuckDB) on the tables query, training, task, device and header.",
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV; with --sql.")
def records(path: Path, sql: str | None, as_json: bool, as_csv: bool) -> None:
    """Sum up the records in PATH, or ask them in SQL.

    PATH is the folder of a run or of a study, or one file of records.

    Nested fields have flat names: circuit.num_qubits is the column circuit_num_qubits. SQL reads
    the records and nothing else: no file, no network. Times are in UTC.
    """
    if as_json and as_csv:
        raise click.UsageError("give `--json` or `--csv`, not both")
    if as_csv and sql is None:
        raise click.UsageError("`--csv` prints rows that SQL selects: give `--sql TEXT` too")
    with progress_console().status("reading records"):
        found = take_inventory(path) if sql is None else query_records(path, sql)
    if isinstance(found, Inventory):
        _print_inventory(found, as_json)
        return
    if not (as_json or as_csv):
        _print_rows(found)
        return
    rows = [[_plain(value) for value in row] for row in found.rows]
    if as_json:
        print_json({"columns": found.columns, "rows": rows})
    else:
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([found.columns, *rows])
        text = written.getvalue()
        click.echo(printable(text) if sys.stdout.isatty() else text, nl=False)


def _print_inventory(found: Inventory, as_json: bool) -> None:
    """The summary; files that cannot be read end the command with an error, after it."""
    summary = found.as_dict()
    if as_json:
        print_json(summary)
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.counts.items()))
        versions = ", ".join(
            f"{name} {' / '.join(version or 'not installed' for version in versions)}"
            for name, versions in summary["versions"].items()
        )
        lines = {
            "files": str(found.files),
            "records": kinds or "none",
            "runs": str(len(found.runs)),
            "queries began": f"{summary['first']} to {summary['last']}" if found.first else "–",
            "versions": versions or "–",
            "processors": ", ".join(summary["processors"]) or "–",
            "commits": ", ".join(summary["commits"]) or "–",
        }
        rows = [*lines.items(), *(("unreadable", problem) for problem in found.unreadable)]
        _print_upright(rows)
    if found.unreadable:
        raise RecordError(
            f"{counted(len(found.unreadable), 'file')} cannot be read, the records before the "
            f"damage count: {named(found.unreadable)}"
        )


def _print_rows(answer: Answer) -> None:
    shown = answer.rows[:_MOST_ROWS]
    cells = [[_shown(value) for value in row] for row in shown]
    made = table(answer.columns, cells, left=0)
    for index, column in enumerate(made.columns):
        if not all(row[index] is None or is_number(row[index]) for row in shown):
            column.justify = "left"
    console = Console()
    if Console(width=_WIDEST).measure(made).minimum <= console.width:
        console.print(made)
    else:  # too wide for the terminal
        for number, row in enumerate(cells, start=1):
            _print_upright(list(zip(answer.columns, row, strict=True)), f"row {number}")
    if len(answer.rows) > len(shown):
        note(f"{len(answer.rows) - len(shown)} more rows: print them all with --csv or --json")


def _print_upright(lines: list[tuple[str, str]], title: str = "") -> None:
    """A line for each value."""
    made = table(("", ""), lines, title, left=2)
    made.show_header, made.box = False, None
    made.columns[0].no_wrap, made.columns[1].overflow = True, "fold"
    Console().print(made)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(_plain(value))


def _plain(value: Any) -> Any:
    """A value of DuckDB's as one that JSON and CSV can hold."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if isinstance(value, str | int | float | None) else str(value)
