"""`dest study pack DIR`: a study small enough to be published, with all that its report reads."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from ._output import counted, note, print_json, print_table, printable
from ._paths import FOLDER, PATH

NOTHING = 1
"""Exit code where no run has ended."""


@click.command(short_help="Pack a study's records into an archive.")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--out",
    type=PATH,
    required=True,
    metavar="ARCHIVE",
    help="The archive's folder: a new one, or an archive to be replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def pack(folder: Path, out: Path, as_json: bool) -> int:
    """Write the records of the study in DIR as a few Parquet files, without what no report needs.

    Reports, `dest records` and `dest predict` read an archive as they read the study, and find the
    same numbers but for the traces left out: of runs of one kind the records of single tasks and
    jobs are kept of the first alone, which a report draws. Checkpoints, weights and locks are left
    out. Runs that have not ended are listed, and in the archive by name alone; if none has ended,
    nothing is written and the exit code is 1. The same study makes the same bytes. DIR can be an
    archive of an earlier release, which is packed again.
    """
    from ..analysis.archive import pack_study, summary

    packed = pack_study(folder, out)
    if packed is None:
        note(f"no run in {printable(str(folder))} has ended: nothing is packed")
        return NOTHING
    if as_json:
        print_json(summary(packed))
        return 0
    table = Table()
    table.add_column("files")
    table.add_column("kB", justify="right")
    for name, size in packed.sizes.items():
        table.add_row(name, f"{size / 1000:.1f}")
    print_table(table)
    click.echo(
        f"packed {counted(sum(packed.ended.values()), 'run')}, {packed.ended.get('failed', 0)} of "
        f"them failed; {sum(packed.sizes.values()) / 1e6:.2f} MB in {printable(str(packed.out))}"
    )
    if packed.left_out:
        click.echo(f"{counted(packed.left_out, 'file')} of single tasks and jobs left out")
    for run_id, experiment in packed.unfinished.items():
        click.echo(f"not ended, without records: {printable(run_id)} ({printable(experiment)})")
    return 0
