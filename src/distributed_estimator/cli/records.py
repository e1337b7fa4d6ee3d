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
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.frames import Answer, Inventory, query_records, take_inventory
from ..checks import is_number
from ..errors import RecordError, named
from ._output import counted, note, print_json, print_table, printable, progress_console
from ._paths import PATH

_MOST_ROWS = 1000
_WIDEST = 100_000


@click.command(short_help="Sum up records, or ask them in SQL.")
@click.argument("path", metavar="PATH", type=PATH)
@click.option(
    "--sql",
    metavar="TEXT",
    help="One SELECT statement (DuckDB) on the tables query, training, task, device and header.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
    elif as_json:
        print_json({"columns": found.columns, "rows": [_plain(row) for row in found.rows]})
    elif as_csv:
        _print_csv(found)
    else:
        _print_rows(found)


def _print_inventory(found: Inventory, as_json: bool) -> None:
    """The summary; files that cannot be read end the command with an error, after it."""
    if as_json:
        print_json(found.as_dict())
    else:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in _inventory_rows(found):
            table.add_row(name, _text(value))
        print_table(table)
    if found.unreadable:
        files = counted(len(found.unreadable), "file")
        raise RecordError(
            f"{files} cannot be read, the records before the damage count: "
            f"{named(found.unreadable)}"
        )


def _inventory_rows(found: Inventory) -> list[tuple[str, str]]:
    summary = found.as_dict()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.counts.items()))
    span = f"{summary['first']} to {summary['last']}" if found.first else "–"
    versions = ", ".join(
        f"{name} {' / '.join(version or 'not installed' for version in versions)}"
        for name, versions in summary["versions"].items()
    )
    return [
        ("files", str(found.files)),
        ("records", kinds or "none"),
        ("runs", str(len(found.runs))),
        ("queries began", span),
        ("versions", versions or "–"),
        ("processors", ", ".join(summary["processors"]) or "–"),
        ("commits", ", ".join(summary["commits"]) or "–"),
        *(("unreadable", problem) for problem in found.unreadable),
    ]


def _print_rows(answer: Answer) -> None:
    shown = answer.rows[:_MOST_ROWS]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(answer.columns):
        numeric = all(row[index] is None or is_number(row[index]) for row in shown)
        table.add_column(_text(name), justify="right" if numeric else "left")
    for row in shown:
        table.add_row(*(_text(_shown(value)) for value in row))
    console = Console()
    if Console(width=_WIDEST).measure(table).minimum > console.width:
        for number, row in enumerate(shown, start=1):
            console.print(_upright(answer.columns, row, number))
    else:
        console.print(table)
    if len(answer.rows) > len(shown):
        note(f"{len(answer.rows) - len(shown)} more rows: print them all with --csv or --json")


def _upright(columns: tuple[str, ...], row: tuple[Any, ...], number: int) -> Table:
    """A row that is too wide for the terminal, a line for each value."""
    table = Table(title=f"row {number}", title_justify="left", box=None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in zip(columns, row, strict=True):
        table.add_row(_text(name), _text(_shown(value)))
    return table


def _print_csv(answer: Answer) -> None:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(_plain(row) for row in answer.rows)
    text = written.getvalue()
    click.echo(printable(text) if sys.stdout.isatty() else text, nl=False)


def _text(text: str) -> Text:
    # Never Rich's own markup, which records could hold.
    return Text(printable(text))


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
