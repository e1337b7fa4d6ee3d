"""`dest study report DIR`: the tables and figures of a study, from its records alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RecordError, named
from ._output import counted, print_json, printable
from ._paths import FOLDER, NEW_FOLDER

if TYPE_CHECKING:
    from ..analysis.study.headlines import Headline
    from ..analysis.study.report import WrittenReport
    from ..analysis.study.rows import Sheet


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
    help="DIR holds published results: draw them anew from the archive DIR/records.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def report(folder: Path, out: Path | None, from_logs: bool, as_json: bool) -> None:
    """Write report.html, tables (Markdown, CSV), figures (PNG, SVG) and deviations of a study.

    DIR is the study's folder, or an archive of it (`dest study pack`). All is made from its records
    alone, which are only read: the same records give the same files. report.html opens without a
    network. What was not measured is said so, and how to run it. Runs that are damaged are left
    out and named at the end, with exit code 2.

    With --from-logs, DIR holds an archive named `records` and what is made from it: README.md,
    tables as CSV, figures as SVG and summary.json.
    """
    from ..analysis.study.runs import REPEAT

    if from_logs:
        from ..analysis.study.results import write_results

        written = write_results(folder, out)
    else:
        from ..analysis.study.report import write_report

        words = ["dest", "study", "report", str(folder)]
        words += [] if out is None else ["--out", str(out)]
        written = write_report(folder, out, command=shlex.join(words))
    if as_json:
        files = [str(path) for path in written.files]
        print_json({**written.data.as_dict(), "out": str(written.out), "files": files})
    else:
        _print_text(written)
    damaged = written.data.study.damaged
    if damaged:
        raise RecordError(
            f"{counted(len(damaged), 'run')} left out of the report: "
            f"{named(list(damaged.values()))}; {REPEAT}"
        )


def _print_text(written: WrittenReport) -> None:
    from ..analysis.study.groups import grouped

    data = written.data
    counts = data.as_dict()["runs"]
    runs = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(printable(f"study {data.study.name}, scale {data.study.scale}: runs {runs}"))
    for lines in grouped(data.headlines, lambda line: (line.question, line.what)).values():
        _print_headlines(lines)
    _print_costs(data.costs)
    kinds = [line.kind for line in data.deviations]
    told = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    click.echo(f"deviations: {told or 'none'}")
    if data.missing:
        click.echo(printable(f"missing: {', '.join(data.missing)}"))
        click.echo(printable(f"to run them: {data.how_to_go_on}"))
    click.echo(f"wrote {counted(len(written.files), 'file')} to {printable(str(written.out))}")


def _print_headlines(lines: Sequence[Headline]) -> None:
    """The numbers that one bar is about."""
    from ..analysis.escape import one_line
    from ..analysis.study.text import told

    click.echo(f"{lines[0].question}: {lines[0].what} (bar: {lines[0].bar})")
    for line in lines:
        place = one_line(f"{line.dataset}, {line.series}, {counted(line.cuts, 'cut')}")
        number = "" if line.value is None else f"{told(line)}, n = {line.n}, "
        paper = f" (paper: {line.paper})" if line.paper else ""
        click.echo(f"  {place}: {number}{line.outcome}{paper}")


def _print_costs(sheet: Sheet) -> None:
    """How far predictions of this study's own times are off, setup by setup."""
    from ..analysis.escape import one_line
    from ..analysis.study.costs import MOST_ERROR, WHAT, remarks
    from ..analysis.study.headlines import NOT_MEASURED
    from ..analysis.study.text import cost_told

    click.echo(f"cost model: {WHAT} (bar: at most {MOST_ERROR:g})")
    for row in sheet.rows:
        click.echo(printable(f"  {one_line(row.setup)}: {cost_told(row)}, {row.outcome}"))
    if not sheet.rows:
        click.echo(printable(f"  {NOT_MEASURED}. {remarks(sheet)}"))
