"""`dest study`: the paper's whole protocol, or a matrix of runs of one's own, from a YAML file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from ..errors import InputError, TrainingStoppedError
from ._output import (
    counted,
    note,
    print_json,
    print_table,
    printable,
    progress_bar,
    stop_on_interrupt,
)
from ._paths import PATH, TEXT_PATH
from .study_pack import pack
from .study_report import report

if TYPE_CHECKING:
    from ..study.config import Study
    from ..study.folder import StudyFolder
    from ..study.matrix import StudyRun
    from ..study.runner import StudyResult

FAILED = 1
"""Exit code where every run has ended and some have failed."""


@click.group(short_help="Run the paper's protocol, or a matrix of your own, and report on it.")
def study() -> None:
    """Run a matrix of experiments that a YAML file describes, and make its tables and figures."""


study.add_command(pack)
study.add_command(report)


class _Pipelines(click.ParamType[Any]):
    """Some of the pipelines, with commas between them."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The names; fails where one is none."""
        names = tuple(part.strip() for part in value.split(",") if part.strip())
        if not names or not set(names) <= {"reference", "contracted"}:
            self.fail(f"`{value}` is no list of pipelines: give reference,contracted", param, ctx)
        return names


@study.command(short_help="Run a study, or go on with one.")
@click.argument("source", metavar="paper|FILE", type=TEXT_PATH)
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
    type=_Pipelines(),
    help="Only runs of these: reference, contracted.  [default: as the file says]",
)
@click.option("--only", multiple=True, metavar="EXPERIMENT", help="May be given several times.")
@click.option("--retry-failed", is_flag=True, help="Try runs again that failed before.")
@click.option("--dry-run", is_flag=True, help="List the runs and end; nothing is written.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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

    A study is `paper`, the protocol that comes with the package, or a YAML file of your own. The
    same command goes on with a study that was stopped or killed: what has ended is never repeated.
    Runs that fail are listed at the end with their causes, and the exit code is then 1.
    """
    from ..study.config import load_study
    from ..study.matrix import runs_of
    from ..study.runner import pending, run_study

    chosen = load_study(source, scale)
    runs = runs_of(chosen, pipelines, only)
    folder = _folder(out, chosen)
    waiting = pending(folder, runs, retry_failed=retry_failed)
    head = _head(chosen, runs, waiting)
    if dry_run:
        _print_matrix(head, runs, as_json=as_json)
        return 0
    ended = head["runs"] - head["waiting"]
    kept = f", {ended} of them ended before" if ended else ""
    note(f"{_title(head)}: {counted(head['runs'], 'run')}{kept}; {_about(head)}")
    columns = (
        TextColumn("{task.fields[run]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("time left {task.fields[left]}"),
    )
    bar = progress_bar(*columns, total=len(waiting), run="", left="–")
    with stop_on_interrupt() as stop, bar as update:
        watcher = _Bar(waiting, update)
        try:
            result = run_study(
                chosen, runs, folder, retry_failed=retry_failed, watcher=watcher, stop=stop
            )
        except (TrainingStoppedError, KeyboardInterrupt) as error:
            if not folder.study.exists():  # nothing was begun
                raise
            raise TrainingStoppedError(_how_to_go_on(folder, runs)) from error
    _report(head, result, out, as_json=as_json)
    return FAILED if result.failures else 0


def _folder(out: Path, study: Study) -> StudyFolder:
    """A folder that the study can be run in."""
    from ..analysis.study import is_archive
    from ..study.folder import StudyFolder

    if is_archive(out):
        raise InputError(
            f"`{out}` is an archive: nothing can be run in it; name the folder that the study ran "
            "in, or a new one"
        )
    folder = StudyFolder(out)
    folder.check(study)
    return folder


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
    table = Table(title=_title(head), title_justify="left")
    table.add_column("experiment")
    for heading in ("runs", "about"):
        table.add_column(heading, justify="right")
    for name, found in head["experiments"].items():
        table.add_row(printable(name), str(found["runs"]), _clock(found["estimated_seconds"]))
    print_table(table)
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


def _how_to_go_on(folder: StudyFolder, runs: list[StudyRun]) -> str:
    from ..study.runner import pending

    words = click.get_current_context().params
    waiting = pending(folder, runs, retry_failed=words["retry_failed"])
    command = ["dest", "study", "run", words["source"], "--out", str(words["out"])]
    command += ["--scale", words["scale"]] if words["scale"] else []
    command += ["--pipeline", ",".join(words["pipelines"])] if words["pipelines"] else []
    command += [part for name in words["only"] for part in ("--only", name)]
    command += ["--retry-failed"] if words["retry_failed"] else []
    ended = f"{len(runs) - len(waiting)} of {len(runs)} runs ended"
    return f"stopped with {ended}; everything is kept, go on with: {shlex.join(command)}"


class _Bar:
    """Progress on stderr: a `Watcher` of the study."""

    def __init__(self, waiting: list[StudyRun], update: Callable[..., None]) -> None:
        self._waiting = {run.run_id: run for run in waiting}
        self._update = update
        self._spent = self._expected = 0.0

    def begin(self, run: StudyRun, attempt: int) -> None:
        """Shows which run it is."""
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self._update(run=f"{printable(run.title)}{again}", left=self._left())

    def end(self, run: StudyRun, outcome: dict[str, Any], seconds: float) -> None:
        """Counts it."""
        from ..study.matrix import expected_seconds

        self._waiting.pop(run.run_id, None)
        self._spent += seconds
        self._expected += expected_seconds(run)
        self._update(advance=1, left=self._left())
        if outcome["status"] == "failed":
            click.echo(printable(f"failed: {run.title}: {outcome['cause']}"), err=True)

    def _left(self) -> str:
        """The time that the waiting runs take, at the pace of those that have ended."""
        from ..study.matrix import expected_seconds

        left = sum(expected_seconds(run) for run in self._waiting.values())
        return _clock(left * self._spent / self._expected if self._expected > 0 else left)


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
