"""`dest train WORKLOAD`: train a quantum neural network, cut or not, and keep the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..analysis.figures import require_matplotlib, training_figure
from ..analysis.load import load_queries, load_training
from ..analysis.tables import StageRow, stage_table
from ..records import TrainingRecord
from ..training import loop
from ..training.runs import RunFolder, TrainingConfig, TrainingResult
from ..training.workloads import WORKLOADS
from ._output import (
    counted,
    duration,
    print_json,
    print_table,
    progress_console,
    stages_as_dict,
    stages_as_table,
)

DEFAULT_SHOTS = 1024


@click.command(short_help="Train a quantum neural network on a data set.")
@click.argument("workload", type=click.Choice(sorted(WORKLOADS)), metavar="WORKLOAD")
@click.option(
    "--cuts",
    type=click.IntRange(0, 3),
    default=0,
    show_default=True,
    help="Places where the circuit is cut into contiguous pieces.",
)
@click.option(
    "--shots", type=int, help=f"Shots for each circuit that is run.  [default: {DEFAULT_SHOTS}]"
)
@click.option("--exact", is_flag=True, help="Exact expectation values, without shots.")
@click.option(
    "--maxiter",
    type=int,
    default=60,
    show_default=True,
    help="Adam steps over the whole training part, or COBYLA evaluations.",
)
@click.option(
    "--workers", type=int, default=8, show_default=True, help="Tasks to run at the same time."
)
@click.option(
    "--optimizer", type=click.Choice(["adam", "cobyla"]), default="adam", show_default=True
)
@click.option("--lr", type=float, default=0.1, show_default=True, help="Learning rate of Adam.")
@click.option(
    "--basis",
    "setting_basis",
    type=click.Choice(["full", "minimal"]),
    default="full",
    show_default=True,
    help="Settings at a cut: full takes fewer shots for an error, minimal runs fewer circuits.",
)
@click.option(
    "--pipeline",
    type=click.Choice(["contracted", "reference"]),
    default="contracted",
    show_default=True,
    help="reference: the paper's own, on qiskit-addon-cutting and Aer; many times slower.",
)
@click.option(
    "--seed",
    type=int,
    default=7,
    show_default=True,
    help="Of the split, the initial weights and the shots.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the run's files; it may not hold another run.  [default: runs/WORKLOAD]",
)
@click.option("--figure/--no-figure", default=True, help="Draw loss, accuracy and stage shares.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def train(
    workload: str,
    out: Path | None,
    exact: bool,
    shots: int | None,
    figure: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train the paper's quantum neural network on WORKLOAD (iris); report accuracy and stage times.

    Runs that share a seed share data and initial weights, whatever is cut: run with --cuts 2 and
    with --cuts 0 to compare.
    """
    if exact and shots is not None:
        raise click.UsageError("`--shots` and `--exact` exclude one another: give one")
    if shots is None and not exact:
        shots = DEFAULT_SHOTS
    config = TrainingConfig(shots=shots, **settings)
    folder = RunFolder(out if out is not None else Path("runs") / workload).check_free()
    loop.require_ml()
    if figure:
        require_matplotlib()
    task = WORKLOADS[workload](config.seed)
    with _progress(config.maxiter) as advance:
        result = loop.train(task, config, folder, advance)
    queries = load_queries(folder.queries)
    if figure:
        training_figure(load_training(folder.training), queries, folder.figure, _title(result))
    rows = stage_table(queries)
    if as_json:
        print_json({**result.as_dict(), "stages": stages_as_dict(rows), "files": _files(result)})
    else:
        _print_text(result, rows)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[TrainingRecord], None]]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("time left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=progress_console())
    task = bar.add_task("training", total=steps, loss="–")

    def advance(record: TrainingRecord) -> None:
        bar.start()  # not before the first step, so that bad input ends in one line
        bar.update(task, completed=min(record.step, steps), loss=f"{record.loss:.4f}")

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def _title(result: TrainingResult) -> str:
    config = result.config
    cuts = f"{counted(config.cuts, 'cut')} ({result.label})" if result.label else "not cut"
    shots = "exact" if config.shots is None else f"{config.shots} shots a circuit"
    return f"{result.workload}, {cuts}, {shots}, {config.optimizer}, seed {config.seed}"


def _files(result: TrainingResult) -> dict[str, str]:
    folder = result.folder
    files = {
        "queries": folder.queries,
        "training": folder.training,
        "weights": folder.weights,
        "summary": folder.summary,
        "figure": folder.figure,
    }
    return {name: str(path) for name, path in files.items() if path.exists()}


def _print_text(result: TrainingResult, rows: tuple[StageRow, ...]) -> None:
    final, totals = result.final, result.totals
    click.echo(_title(result))
    click.echo(
        f"test accuracy {final.test_accuracy:.3f}, training accuracy {final.train_accuracy:.3f}, "
        f"loss {final.loss:.4f}"
    )
    click.echo(
        f"{duration(result.seconds)} for {totals.queries} values and gradients, "
        f"{totals.subexperiments} subexperiments, {totals.shots} shots"
    )
    print_table(stages_as_table(rows, per_record=True))
    for name, path in _files(result).items():
        click.echo(f"{name:<9}{path}")
