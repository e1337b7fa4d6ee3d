"""`dest study`: the paper's whole protocol, errors on devices, or a matrix from a YAML file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from msgspec import Meta

from ..errors import InputError, TrainingStoppedError
from ..training.config import Pipeline
from ..views import counted
from ._options import FOLDER, PATH, TEXT_PATH, FieldType, Verb, examples, json_option
from ._output import (
    note,
    print_json,
    print_table,
    printable,
    progress_bar,
    stop_on_interrupt,
)
from .report import study_report

if TYPE_CHECKING:
    from ..study.config import Study
    from ..study.matrix import StudyRun
    from ..study.runner import StudyResult

FAILED = 1
"""Exit code where every run has ended and some have failed, and where none has to be packed."""


@click.group(short_help="Run the paper's protocol, or a matrix of your own, and report on it.")
def study() -> None:
    """Run a matrix of experiments that a YAML file describes, and make its tables and figures."""


study.add_command(study_report)


@study.command(
    cls=Verb,
    short_help="Run a study, or go on with one.",
    epilog=examples(
        "dest study run paper --out runs/study --dry-run",
        "dest study run study.yaml --out runs/study --only accuracy",
    ),
)
@click.argument("source", metavar="paper|noise|FILE", type=TEXT_PATH)
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="The study's folder: a new one, or that of the same study, which goes on.",
)
@click.option("--scale", metavar="NAME", help="smoke, laptop or full.  [default: the file's first]")
@click.option(
    "--pipeline",
    "pipelines",
    type=FieldType(Annotated[tuple[Pipeline, ...], Meta(min_length=1)]),
    help="Only runs of these: reference, contracted.  [default: as the file says]",
)
@click.option("--only", multiple=True, metavar="EXPERIMENT", help="May be given several times.")
@click.option("--retry-failed", is_flag=True, help="Try runs again that failed before.")
@click.option("--dry-run", is_flag=True, help="List the runs and end; nothing is written.")
@json_option
def run(
    source: str,
    out: Path,
    scale: str | None,
    pipelines: tuple[str, ...] | None,
    only: tuple[str, ...],
    retry_failed: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run every run of a study that has not ended yet, one after another.

    A study is `paper`, the protocol that comes with the package, `noise`, errors on simulated
    devices whole and cut, or a YAML file of your own. The same command goes on with a study that
    was stopped or killed: what has ended is never repeated. Runs that fail are listed at the end
    with their causes, and the exit code is then 1.
    """
    from ..analysis.study import is_archive
    from ..study.config import load_study
    from ..study.folder import StudyFolder
    from ..study.matrix import runs_of
    from ..study.runner import pending, run_study

    chosen = load_study(source, scale)
    runs = runs_of(chosen, pipelines, only)
    if is_archive(out):
        raise InputError(
            f"`{out}` is an archive: nothing can be run in it; name the folder that the study ran "
            "in, or a new one"
        )
    folder = StudyFolder(out)
    folder.check(chosen)
    waiting = pending(folder, runs, retry_failed=retry_failed)
    head = _head(chosen, runs, waiting)
    if dry_run:
        _print_matrix(head, runs, as_json=as_json)
        return 0
    ended = head["runs"] - head["waiting"]
    kept = f", {ended} of them ended before" if ended else ""
    note(f"{_title(head)}: {counted(head['runs'], 'run')}{kept}; {_about(head)}")
    with stop_on_interrupt() as stop, progress_bar("", len(waiting), timed=False) as update:
        watcher = _Bar(waiting, update)
        try:
            result = run_study(
                chosen, runs, folder, retry_failed=retry_failed, watcher=watcher, stop=stop
            )
        except (TrainingStoppedError, KeyboardInterrupt) as error:
            if not folder.study.exists():  # nothing was begun
                raise
            left = len(pending(folder, runs, retry_failed=retry_failed))
            raise TrainingStoppedError(
                f"stopped with {len(runs) - left} of {len(runs)} runs ended; everything is kept, "
                f"go on with: {_same_command()}"
            ) from error
    _report(head, result, out, as_json=as_json)
    return FAILED if result.failures else 0


def _head(study: Study, runs: list[StudyRun], waiting: list[StudyRun]) -> dict[str, Any]:
    from ..study.matrix import total_seconds

    by_experiment = {
        name: [run for run in runs if run.experiment == name] for name in study.config.experiments
    }
    return {
        "schema_version": 1,
        "study": study.config.name,
        "scale": study.scale,
        "hash": study.hash,
        "runs": len(runs),
        "waiting": len(waiting),
        "estimated_seconds": round(total_seconds(waiting), 1),
        "experiments": {
            name: {"runs": len(found), "estimated_seconds": round(total_seconds(found), 1)}
            for name, found in by_experiment.items()
            if found
        },
        "deviations": list(study.config.deviations),
    }


def _print_matrix(head: dict[str, Any], runs: list[StudyRun], *, as_json: bool) -> None:
    from ..study.matrix import expected_seconds

    if as_json:
        matrix = [
            {**run.as_dict(), "estimated_seconds": round(expected_seconds(run), 1)} for run in runs
        ]
        print_json({**head, "matrix": matrix})
        return
    for run in runs:
        click.echo(f"{run.run_id}  {_clock(expected_seconds(run)):>9}  {printable(run.title)}")
    rows = [
        (name, found["runs"], _clock(found["estimated_seconds"]))
        for name, found in head["experiments"].items()
    ]
    print_table(("experiment", "runs", "about"), rows, _title(head))
    click.echo(f"{counted(head['waiting'], 'run')} to run, {_about(head)}")


def _title(head: dict[str, Any]) -> str:
    scale = f", scale {head['scale']}" if head["scale"] else ""
    return printable(f"study {head['study']}{scale}")


def _about(head: dict[str, Any]) -> str:
    """The estimate, and what it is made of."""
    if not head["waiting"]:
        return "none is left"
    seconds = _clock(head["estimated_seconds"])
    return f"about {seconds}, by what such runs took on a machine with two cores"


def _clock(seconds: float) -> str:
    """Time as people plan with it.

    Example:
        >>> _clock(12.3), _clock(150), _clock(9000)
        ('12 s', '2.5 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _same_command() -> str:
    """The command line of `dest study run`, as it was given but for its output options."""
    given = click.get_current_context().params
    command = ["dest", "study", "run", given["source"], "--out", str(given["out"])]
    command += ["--scale", given["scale"]] if given["scale"] else []
    command += ["--pipeline", ",".join(given["pipelines"])] if given["pipelines"] else []
    command += [part for name in given["only"] for part in ("--only", name)]
    command += ["--retry-failed"] if given["retry_failed"] else []
    return shlex.join(command)


class _Bar:
    """Progress on stderr: a `Watcher` of the study."""

    def __init__(self, waiting: list[StudyRun], update: Callable[..., None]) -> None:
        from ..study.matrix import expected_seconds

        self._expected = {run.run_id: expected_seconds(run) for run in waiting}
        self._update = update
        self._spent = self._ended = 0.0

    def begin(self, run: StudyRun, attempt: int) -> None:
        """Shows which run it is."""
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self._update(description=f"{printable(run.title)}{again}", about=self._left())

    def end(self, run: StudyRun, outcome: dict[str, Any], seconds: float) -> None:
        """Counts it."""
        self._spent += seconds
        self._ended += self._expected.pop(run.run_id, 0.0)
        self._update(advance=1, about=self._left())
        if outcome["status"] == "failed":
            click.echo(printable(f"failed: {run.title}: {outcome['cause']}"), err=True)

    def _left(self) -> str:
        """The time that the waiting runs take, at the pace of those that have ended."""
        left = sum(self._expected.values())
        left *= self._spent / self._ended if self._ended > 0 else 1.0
        return f"time left {_clock(left)}"


def _report(head: dict[str, Any], result: StudyResult, out: Path, *, as_json: bool) -> None:
    failed = [failure.as_dict() for failure in result.failures]
    numbers = {"done": result.done, "kept": result.kept, "failed": failed}
    if as_json:
        print_json({**head, **numbers, "seconds": result.seconds, "folder": str(out)})
        return
    click.echo(
        f"{_title(head)}: {counted(result.done, 'run')} done in {_clock(result.seconds)}, "
        f"{result.kept} from before, {len(failed)} failed; in {out}"
    )
    for cause, count in Counter(failure["cause"] for failure in failed).items():
        ids = ", ".join(failure["run_id"] for failure in failed if failure["cause"] == cause)
        click.echo(f"failed ({count}): {printable(cause)}\n  {ids}")
    if failed:
        note("try these again with --retry-failed")


@study.command(
    cls=Verb,
    short_help="Pack a study's records into an archive.",
    epilog=examples("dest study pack runs/study"),
)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--out",
    type=PATH,
    required=True,
    metavar="ARCHIVE",
    help="The archive's folder: a new one, or an archive to be replaced.",
)
@json_option
def pack(folder: Path, out: Path, as_json: bool) -> int:
    """Write the records of the study in DIR as a few Parquet files, without what no report needs.

    Reports, `dest records` and `dest costs` read an archive as they read the study, and find the
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
        return FAILED
    if as_json:
        print_json(summary(packed))
        return 0
    sizes = ((name, f"{size / 1000:.1f}") for name, size in packed.sizes.items())
    print_table(("files", "kB"), sizes)
    click.echo(
        f"packed {counted(sum(packed.ended.values()), 'run')}, {packed.ended.get('failed', 0)} of "
        f"them failed; {sum(packed.sizes.values()) / 1e6:.2f} MB in {printable(str(packed.out))}"
    )
    if packed.left_out:
        click.echo(f"{counted(packed.left_out, 'file')} of single tasks and jobs left out")
    for run_id, experiment in packed.unfinished.items():
        click.echo(f"not ended, without records: {printable(run_id)} ({printable(experiment)})")
    return 0
