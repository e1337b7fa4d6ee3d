"""`dest report DIR`: one training run as a page that opens from the disk."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ._output import print_json, printable
from ._paths import FOLDER, NEW_FILE


@click.command(short_help="Make the report page of a training run.")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--out",
    type=NEW_FILE,
    help="The HTML file to write.  [default: DIR/report.html]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def report(folder: Path, out: Path | None, as_json: bool) -> None:
    """Write one HTML file with curves, stages and tasks of the training run in DIR.

    The page opens from the disk and needs no network. It is made from the run's records alone,
    which are only read. Robustness is in it if `dest robustness DIR` measured it, tasks if the run
    was trained with --trace. For a study, see `dest study report`.
    """
    from ..analysis.pages import write_run_report

    words = ["dest", "report", str(folder)]
    words += [] if out is None else ["--out", str(out)]
    written = write_run_report(folder, out, command=shlex.join(words))
    if as_json:
        print_json({"report": str(written)})
    else:
        click.echo(f"wrote {printable(str(written))}")
