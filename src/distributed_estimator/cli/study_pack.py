"""`dest study pack DIR`: a study small enough to be published, with all that its report reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from ._output import counted, note, print_json, print_table, printable
from ._paths import FOLDER, PATH

if TYPE_CHECKING:
    from ..analysis.study.archive import Packed

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
    """Compress the records of the study in DIR, and leave out what no report needs.

    Reports, `dest records` and `dest predict` read an archive as they read the study, and find the
    same numbers but for the traces left out: of runs of one kind the records of single tasks and
    jobs are kept of the first alone, which a report draws. Checkpoints, weights and locks are left
    out. Runs that have not ended are listed, and in the archive by name alone; if none has ended,
    nothing is written and the exit code is 1. The same study makes the same bytes.
    """
    from ..analysis.study.archive import pack_study

    packed = pack_study(folder, out)
    if packed is None:
        note(f"no run in {printable(str(folder))} has ended: nothing is packed")
        return NOTHING
    if as_json:
        print_json(_document(packed))
    else:
        _print_text(packed)
    return 0


def _document(packed: Packed) -> dict[str, Any]:
    return {
        "archive": str(packed.out),
        "packed": len(packed.ended),
        "unfinished": [run.run_id for run in packed.unfinished],
        "traces_left_out": packed.left_out,
        "bytes": sum(packed.sizes.values()),
        "bytes_by_file": packed.sizes,
        "records_sha256": packed.digest,
    }


def _print_text(packed: Packed) -> None:
    table = Table()
    table.add_column("files")
    table.add_column("kB", justify="right")
    for name, size in packed.sizes.items():
        table.add_row(name, f"{size / 1000:.1f}")
    print_table(table)
    failed = sum(run.status == "failed" for run in packed.ended)
    total = sum(packed.sizes.values()) / 1e6
    click.echo(
        f"packed {counted(len(packed.ended), 'run')}, {failed} of them failed; {total:.2f} MB in "
        f"{printable(str(packed.out))}"
    )
    if packed.left_out:
        click.echo(f"{counted(packed.left_out, 'file')} of single tasks and jobs left out")
    for run in packed.unfinished:
        click.echo(f"not ended, without records: {printable(run.run_id)} ({run.experiment})")
