"""`dest study report DIR`: the tables and figures of a study, from its records alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RecordError, named
from ._output import counted, print_json, printable
from ._paths import FOLDER, NEW_FOLDER

if TYPE_CHECKING:
    from ..analysis.report import StudyData


@click.command(short_help="Make a study's tables and figures.")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--out",
    type=NEW_FOLDER,
    help="Where to write them.  [default: DIR/report; with --from-logs: DIR]",
)
@click.option(
    "--from-logs",
    "from_logs",
    is_flag=True,
    help="DIR holds published results: draw them again from the archive DIR/records.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def report(folder: Path, out: Path | None, from_logs: bool, as_json: bool) -> None:
    """Write report.html, README.md, tables (CSV) and figures (PNG, SVG) of a study.

    DIR is the study's folder, or an archive of it (`dest study pack`). All is made from its records
    alone, which are only read: the same records give the same files. report.html opens without a
    network. What was not measured is named, with the command that runs it. Runs that are damaged
    are left out and named at the end, with exit code 2.

    With --from-logs, DIR holds an archive named `records` and what is made from it: README.md, two
    pictures of all figures, and summary.json with all tables.
    """
    from ..analysis.report import write_report, write_results
    from ..analysis.study import REPEAT, is_archive

    if from_logs:
        written = write_results(folder, out)
    else:
        words = ["dest", "study", "report", str(folder)]
        words += [] if out is None else ["--out", str(out)]
        written = write_report(folder, out, command=shlex.join(words))
    if as_json:
        files = [str(path) for path in written.files]
        print_json({**written.data.as_dict(), "out": str(written.out), "files": files})
    else:
        _print_text(written.data)
        click.echo(f"wrote {counted(len(written.files), 'file')} to {printable(str(written.out))}")
    damaged = written.data.study.damaged
    if damaged:
        remedy = "pack the study again" if from_logs or is_archive(folder) else REPEAT
        raise RecordError(
            f"{counted(len(damaged), 'run')} left out of the report: "
            f"{named(list(damaged.values()))}; {remedy}"
        )


def _print_text(data: StudyData) -> None:
    runs = ", ".join(f"{count} {status}" for status, count in data.counts.items())
    click.echo(printable(f"study {data.study.name}, scale {data.study.scale}: runs {runs}"))
    for question in data.questions():
        click.echo(f"{question['title']}: {question['what']} (bar: {question['bar']})")
        for row in question["rows"]:
            place = f"{row['dataset']}, {row['series']}, {counted(row['cuts'], 'cut')}"
            spread = f" ({row['spread']})" if row["spread"] else ""
            found = f"{row['value']}{spread}, n = {row['n']}, " if row["n"] else ""
            paper = f" (paper: {row['paper']})" if row["paper"] else ""
            click.echo(printable(f"  {place}: {found}{row['outcome']}{paper}"))
    click.echo("cost model: held-out configurations, median relative error of T_total")
    for row in data.cost_rows():
        click.echo(
            printable(f"  {row['setup']}: {row['value']} ({row['spread']}), {row['outcome']}")
        )
    for reason, count in data.tables.left_out.items():
        click.echo(f"  left out: {count} ({reason})")
    found = ", ".join(f"{len(rows)} {kind}" for kind, rows in data.remarks.items() if rows)
    click.echo(f"deviations: {found or 'none'}")
    if data.missing:
        click.echo(printable(f"missing: {', '.join(data.missing)}"))
        click.echo(printable(f"to run them: {data.how_to_go_on}"))
