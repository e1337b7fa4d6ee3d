"""`dest train WORKLOAD`: train a quantum neural network, cut or not, and keep the record."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ..analysis.accuracy import percent
from ..analysis.load import StageRow, load_queries, load_training, stage_table
from ..records import TrainingRecord
from ..training.config import GRADIENT_FREE, TrainingConfig
from ..training.models import ModelConfig, feature_range
from ..training.policies import StragglerSettings
from ..training.runs import RunFolder, TrainingResult
from ..training.workloads import ALIASES, WORKLOADS, WorkloadConfig, load_workload
from ._options import (
    is_given,
    json_option,
    options_of,
    policy_options,
    straggler_options,
    take,
    take_policy,
)
from ._output import (
    duration,
    note,
    print_json,
    print_table,
    progress_bar,
    stages_as_dict,
    stages_as_table,
    stop_on_interrupt,
)
from ._paths import PATH, TEXT_PATH

MNIST_EPOCHS, MNIST_BATCH = 10, 32
"""The paper's longest budget for MNIST, in mini-batches of PyTorch's usual size."""

_SHORT = {name: alias for alias, name in ALIASES.items()}
_NAMES = ", ".join(_SHORT.get(name, name) for name in WORKLOADS)


@click.command(short_help="Train a quantum neural network on a data set.")
@click.argument("workload", required=False, metavar="WORKLOAD")
@options_of(
    WorkloadConfig,
    without=("name", "feature_range", "seed"),
    types={"data_dir": TEXT_PATH},
)
@options_of(ModelConfig)
@options_of(
    TrainingConfig,
    defaults={
        "epochs": "60, or 10 for MNIST",
        "batch_size": "all, or 32 for MNIST",
        "lr": "0.1, or 1 for lbfgs",
    },
    types={"head": click.Choice(("none", "linear"))},
)
@click.option("--exact", is_flag=True, help="Exact expectation values, without shots.")
@click.option(
    "--maxiter",
    type=int,
    help="Evaluations of COBYLA, iterations of SPSA, or steps over the whole training part.",
)
@policy_options()
@straggler_options
@click.option(
    "--out",
    type=PATH,
    help="Folder for the run's files; it may not hold another run.  [default: runs/WORKLOAD]",
)
@click.option(
    "--resume",
    type=PATH,
    metavar="DIR",
    help="Go on with the run in DIR, as it was configured.",
)
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "mlflow"]),
    multiple=True,
    help="Write curves for that tool as well, into the run's folder.",
)
@click.option("--figure/--no-figure", default=True, help="Draw loss, accuracy and stage shares.")
@json_option
def train(
    workload: str | None,
    out: Path | None,
    resume: Path | None,
    track: tuple[str, ...],
    figure: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a quantum neural network on WORKLOAD; report accuracy and stage times.

    WORKLOAD is iris, mnist, breast_cancer, wine, digits, or a CSV or Parquet file. Runs that share
    a seed share data and initial weights, whatever is cut: run with --cuts 2 and with --cuts 0 to
    compare. Ctrl-C ends a run after the step it is at; --resume goes on with it, and with one that
    was killed.
    """
    if figure:
        from ..analysis.charts import require_charts

        require_charts()
    if resume is not None:
        _check_alone({"workload": workload, "out": out, **settings})
        result = _train(None, RunFolder(resume), track)
    elif workload is None:
        raise click.UsageError(f"Missing argument 'WORKLOAD': {_NAMES}, or a CSV or Parquet file")
    else:
        place = out if out is not None else Path("runs") / Path(workload).stem
        result = _train(build_config(workload, settings), RunFolder(place).check_free(), track)
    _report(result, figure=figure, as_json=as_json)


def _train(
    config: TrainingConfig | None, folder: RunFolder, track: tuple[str, ...]
) -> TrainingResult:
    """Trains as configured, or, with no configuration, goes on with the run in the folder."""
    from ..training import loop  # PyTorch takes seconds to import

    task = None if config is None else load_workload(config.workload)
    config = config or loop.config_of(folder)
    with _watched(config, folder, track) as progress, _going_on(folder) as stop:
        if task is None:
            return loop.resume(folder, progress=progress, stop=stop)
        return loop.train(task, config, folder, progress=progress, stop=stop)


def build_config(workload: str, settings: dict[str, Any]) -> TrainingConfig:
    """The configuration that the options come to.

    Raises:
        InputError: A value is out of range, or does not go with others.
        click.UsageError: Options exclude one another.
    """
    left = dict(settings)
    model = take(ModelConfig, left)
    seed = TrainingConfig().seed if left["seed"] is None else left["seed"]
    data = take(WorkloadConfig, left, name=workload, feature_range=feature_range(model), seed=seed)
    policy, stragglers = take_policy(left).policy, take(StragglerSettings, left).stragglers
    _set_budget(data, left)
    exact = {"shots": None} if left.pop("exact") else {}
    return take(
        TrainingConfig,
        left,
        workload=data,
        model=model,
        policy=policy,
        stragglers=stragglers,
        **exact,
    )


def _set_budget(data: WorkloadConfig, settings: dict[str, Any]) -> None:
    """Puts the paper's budget and the optimiser's learning rate where none is given."""
    maxiter, epochs = settings.pop("maxiter"), settings["epochs"]
    if settings["exact"] and settings["shots"] is not None:
        raise click.UsageError("`--shots` and `--exact` exclude one another: give one")
    if maxiter is not None and epochs is not None:
        raise click.UsageError("`--epochs` and `--maxiter` exclude one another: give one")
    if maxiter is not None and settings["batch_size"] is not None:
        raise click.UsageError(
            "`--maxiter` counts steps over the whole training part: with `--batch-size` give "
            "`--epochs`"
        )
    if maxiter is not None:
        settings["epochs"] = maxiter
    elif data.name == "mnist_binary" and settings["optimizer"] not in GRADIENT_FREE:
        settings["epochs"] = MNIST_EPOCHS if epochs is None else epochs
        settings["batch_size"] = settings["batch_size"] or MNIST_BATCH
    if settings["lr"] is None and settings["optimizer"] == "lbfgs":
        settings["lr"] = 1.0


def _check_alone(settings: dict[str, Any]) -> None:
    """Refuses what a run that goes on has in its configuration."""
    names = {str(each.name): each for each in click.get_current_context().command.params}
    given = [
        each.opts[0] if isinstance(each, click.Option) else each.human_readable_name
        for each in (names[name] for name, value in settings.items() if is_given(value))
    ]
    if given:
        raise click.UsageError(
            "`--resume` goes on with a run as it was configured: leave out "
            + ", ".join(f"`{name}`" for name in given)
        )


@contextmanager
def _watched(
    config: TrainingConfig, folder: RunFolder, track: tuple[str, ...]
) -> Iterator[Callable[[TrainingRecord], None]]:
    """Shows the progress of every record, and tracks it; gives a function to call with each."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("test {task.fields[accuracy]}"),
        TextColumn("time left"),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        bar = progress_bar(*columns, total=config.epochs, loss="–", accuracy="–")
        update = stack.enter_context(bar)
        tracker = None
        if track:
            from ..training.tracking import tracked

            tracker = stack.enter_context(tracked(track, folder, config))

        def watch(record: TrainingRecord) -> None:
            update(
                completed=min(record.epoch, config.epochs),
                loss=f"{record.loss:.4f}",
                accuracy=percent(record.metrics["test_accuracy"]),
            )
            if tracker is not None:
                tracker(record)

        yield watch


@contextmanager
def _going_on(folder: RunFolder) -> Iterator[Callable[[], bool]]:
    """`stop_on_interrupt`, which says how to go on."""
    try:
        with stop_on_interrupt() as stop:
            yield stop
    except KeyboardInterrupt:
        if folder.checkpoint.exists():
            note(f"go on with: dest train --resume {shlex.quote(str(folder.path))}")
        raise


def _report(result: TrainingResult, *, figure: bool, as_json: bool) -> None:
    folder = result.folder
    queries = load_queries(folder.queries)
    if figure:
        from ..analysis.charts import training_figure

        training_figure(load_training(folder.training), queries, folder.figure, _title(result))
    rows = stage_table(queries)
    if as_json:
        print_json({**result.as_dict(), "stages": stages_as_dict(rows), "files": _files(result)})
    else:
        _print_text(result, rows)


def _title(result: TrainingResult) -> str:
    return f"{result.config.title(result.workload, result.label)}, seed {result.config.seed}"


def _files(result: TrainingResult) -> dict[str, str]:
    names = ("queries", "training", "data", "checkpoint", "weights", "summary")
    paths = {name: getattr(result.folder, name) for name in (*names, "tasks", "trace", "figure")}
    return {name: str(path) for name, path in paths.items() if path.exists()}


def _print_text(result: TrainingResult, rows: tuple[StageRow, ...]) -> None:
    final, totals = result.final, result.totals
    click.echo(_title(result))
    click.echo(
        f"test accuracy {percent(final.test_accuracy)}, training accuracy "
        f"{percent(final.train_accuracy)}, loss {final.loss:.4f}"
    )
    click.echo(
        f"{duration(result.seconds)} for {totals.queries} values and gradients, "
        f"{totals.subexperiments} subexperiments, {totals.shots} shots"
    )
    print_table(stages_as_table(rows, per_record=True))
    for name, path in _files(result).items():
        click.echo(f"{name:<11}{path}")
