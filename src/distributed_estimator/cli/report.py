"""`dest report DIR` and `dest study report DIR`: pages and figures, from records alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RecordError, named
from ..views import counted
from ._options import FOLDER, NEW_FILE, NEW_FOLDER, Verb, examples, json_option
from ._output import print_json, printable

if TYPE_CHECKING:
    from ..analysis.report import StudyData


def _command(*words: str, out: Path | None) -> str:
    """The command line, for the page that it makes."""
    return shlex.join(["dest", *words, *([] if out is None else ["--out", str(out)])])


@click.command(
    cls=Verb,
    short_help="Make the report page of a training run.",
    epilog=examples("dest report runs/iris"),
)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--out", type=NEW_FILE, help="The HTML file.  [default: DIR/report.html]")
@json_option
def report(folder: Path, out: Path | None, as_json: bool) -> None:
    """Write one HTML file with curves, stages and tasks of the training run in DIR.

    The page opens from the disk and needs no network. It is made from the run's records alone,
    which are only read. Robustness is in it if `dest robustness DIR` measured it, tasks if the run
    was trained with --trace. For a study, see `dest study report`.
    """
    from ..analysis.pages import write_run_report

    command = _command("report", str(folder), out=out)
    written = write_run_report(folder, out, command=command)
    if as_json:
        print_json({"report": str(written)})
    else:
        click.echo(f"wrote {printable(str(written))}")


@click.command(
    "report",
    cls=Verb,
    short_help="Make a study's tables and figures.",
    epilog=examples("dest study report runs/study"),
)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--out",
    type=NEW_FOLDER,
    help="Where to write them.  [default: DIR/report; with --from-logs: DIR]",
)
@click.option(
    "--from-logs",
    is_flag=True,
    help="DIR holds published results: draw them again from the archive DIR/records.",
)
@json_option
def study_report(folder: Path, out: Path | None, from_logs: bool, as_json: bool) -> None:
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
        command = _command("study", "report", str(folder), out=out)
        written = write_report(folder, out, command=command)
    if as_json:
        files = [str(path) for path in written.files]
        print_json({**written.data.as_dict(), "out": str(written.out), "files": files})
    else:
        for line in _lines(written.data):
            click.echo(printable(line))
        click.echo(f"wrote {counted(len(written.files), 'file')} to {printable(str(written.out))}")
    damaged = written.data.study.damaged
    if damaged:
        remedy = "pack the study again" if from_logs or is_archive(folder) else REPEAT
        raise RecordError(
            f"{counted(len(damaged), 'run')} left out of the report: "
            f"{named(list(damaged.values()))}; {remedy}"
        )


def _lines(data: StudyData) -> list[str]:
    runs = ", ".join(f"{count} {status}" for status, count in data.counts.items())
    lines = [f"study {data.study.title}: runs {runs}"]
    for question in data.questions():
        lines.append(f"{question['title']}: {question['what']} (bar: {question['bar']})")
        for row in question["rows"]:
            place = f"{row['dataset']}, {row['series']}, {counted(row['cuts'], 'cut')}"
            spread = f" ({row['spread']})" if row["spread"] else ""
            found = f"{row['value']}{spread}, n = {row['n']}, " if row["n"] else ""
            paper = f" (paper: {row['paper']})" if row["paper"] else ""
            lines.append(f"  {place}: {found}{row['outcome']}{paper}")
    if data.tables.is_paper:
        lines.append("cost model: held-out configurations, median relative error of T_total")
    for row in data.cost_rows():
        lines.append(f"  {row['setup']}: {row['value']} ({row['spread']}), {row['outcome']}")
    for reason, count in data.tables.left_out.items() if data.tables.is_paper else ():
        lines.append(f"  left out: {count} ({reason})")
    found = ", ".join(f"{len(rows)} {kind}" for kind, rows in data.remarks.items() if rows)
    lines.append(f"deviations: {found or 'none'}")
    if data.missing:
        lines.append(f"missing: {', '.join(data.missing)}")
        lines.append(f"to run them: {data.how_to_go_on}")
    return lines
