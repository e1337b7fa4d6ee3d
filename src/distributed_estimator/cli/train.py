"""`dest train WORKLOAD`: train a quantum neural network, cut or not, and keep the record."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..analysis.accuracy import percent
from ..analysis.load import load_queries, load_training, stage_table
from ..records import TrainingRecord
from ..training.config import GRADIENT_FREE, TrainingConfig
from ..training.models import ModelConfig, feature_range
from ..training.policies import StragglerSettings
from ..training.runs import RunFolder, Scores, TrainingResult
from ..training.workloads import ALIASES, WORKLOADS, WorkloadConfig, load_workload
from ..views import duration
from ._options import (
    PATH,
    TEXT_PATH,
    FieldType,
    Verb,
    examples,
    is_given,
    json_option,
    options_of,
    policy_options,
    straggler_options,
    take,
    take_policy,
)
from ._output import (
    note,
    print_files,
    print_json,
    print_stages,
    progress_bar,
    stages_as_dict,
    stop_on_interrupt,
)

MNIST_EPOCHS, MNIST_BATCH = 10, 32
"""The paper's longest budget for MNIST, in mini-batches of PyTorch's usual size."""

_SHORT = {name: alias for alias, name in ALIASES.items()}
_NAMES = ", ".join(_SHORT.get(name, name) for name in WORKLOADS)


@click.command(
    cls=Verb,
    short_help="Train a quantum neural network on a data set.",
    epilog=examples(
        "dest train iris --cuts 3 --shots 1024 --maxiter 60 --out runs/iris",
        "dest train mnist --features 8 --cuts 3 --track tensorboard",
        "dest train --resume runs/mnist",
    ),
)
@click.argument("workload", required=False, metavar="WORKLOAD")
@options_of(
    WorkloadConfig,
    without=("name", "feature_range", "seed"),
    types={"data_dir": TEXT_PATH, "classes": FieldType(tuple[str, ...])},
)
@options_of(ModelConfig)
@options_of(
    TrainingConfig,
    defaults={
        "epochs": "60, or 10 for MNIST",
        "batch_size": "all, or 32 for MNIST",
        "lr": "0.1, or 1 for lbfgs",
        "loss": "mse, or cross_entropy for more than two classes",
        "head": "none, or linear for more than two classes",
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

    WORKLOAD is iris, mnist, breast_cancer, wine, digits, or a CSV or Parquet file; the named ones
    tell two classes apart, or more with --classes 3. Runs that share
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
    if config is not None and task is not None and len(task.classes) > 2:
        given = click.get_current_context().params
        config = replace(
            config,
            loss=config.loss if is_given(given["loss"]) else "cross_entropy",
            head=config.head if is_given(given["head"]) else "linear",
        )
    config = config or loop.config_of(folder)
    with _watched(config, folder, track) as (progress, stop):
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
    parts: dict[str, Any] = {
        "policy": take_policy(left).policy,
        "stragglers": take(StragglerSettings, left).stragglers,
    }
    _set_budget(data, left)
    parts |= {"shots": None} if left.pop("exact") else {}
    return take(TrainingConfig, left, workload=data, model=model, **parts)


def _set_budget(data: WorkloadConfig, settings: dict[str, Any]) -> None:
    """Puts the paper's budget and the optimiser's learning rate where none is given."""
    for one, other in (
        ("shots", "exact"),
        ("shots-total", "shots"),
        ("shots-total", "exact"),
        ("adaptive-shots", "shots"),
        ("adaptive-shots", "exact"),
        ("epochs", "maxiter"),
    ):
        if is_given(settings[one.replace("-", "_")]) and is_given(settings[other]):
            raise click.UsageError(f"`--{one}` and `--{other}` exclude one another: give one")
    maxiter, epochs = settings.pop("maxiter"), settings["epochs"]
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
    given = [
        f"`{each.opts[0] if isinstance(each, click.Option) else each.human_readable_name}`"
        for each in click.get_current_context().command.params
        if is_given(settings.get(str(each.name)))
    ]
    if given:
        raise click.UsageError(
            f"`--resume` goes on with a run as it was configured: leave out {', '.join(given)}"
        )


@contextmanager
def _watched(
    config: TrainingConfig, folder: RunFolder, track: tuple[str, ...]
) -> Iterator[tuple[Callable[[TrainingRecord], None], Callable[[], bool]]]:
    """Shows and tracks the progress of every record; Ctrl-C stops, and shows how to go on."""
    try:
        with ExitStack() as stack:
            update = stack.enter_context(progress_bar("training", config.epochs))
            tracker = None
            if track:
                from ..training.tracking import tracked

                tracker = stack.enter_context(tracked(track, folder, config))

            def watch(record: TrainingRecord) -> None:
                accuracy = percent(record.metrics["test_accuracy"])
                about = f"loss {record.loss:.4f} test {accuracy}"
                if "step_shots" in record.metrics:
                    about += f" {record.metrics['step_shots']:,.0f} shots a step"
                update(completed=min(record.epoch, config.epochs), about=about)
                if tracker is not None:
                    tracker(record)

            yield watch, stack.enter_context(stop_on_interrupt())
    except KeyboardInterrupt:
        if folder.checkpoint.exists():
            note(f"go on with: dest train --resume {shlex.quote(str(folder.path))}")
        raise


def _report(result: TrainingResult, *, figure: bool, as_json: bool) -> None:
    folder, final, totals = result.folder, result.final, result.totals
    queries, training = load_queries(folder.queries), load_training(folder.training)
    title = f"{result.config.title(result.workload, result.label)}, seed {result.config.seed}"
    if figure:
        from ..analysis.charts import training_figure

        training_figure(training, queries, folder.figure, title)
    names = ("queries", "training", "data", "checkpoint", "weights", "summary")
    paths = {name: getattr(folder, name) for name in (*names, "tasks", "trace", "figure")}
    files = {name: str(path) for name, path in paths.items() if path.exists()}
    rows = stage_table(queries)
    if as_json:
        print_json({**result.as_dict(), "stages": stages_as_dict(rows), "files": files})
        return
    click.echo(title)
    click.echo(_scored(final))
    if result.config.shots_total is not None:  # of which scores get few
        from ..training.trained import exact_scores

        click.echo(f"without shots: {_scored(exact_scores(folder))}")
    click.echo(
        f"{duration(result.seconds)} for {totals.queries} values and gradients, "
        f"{totals.subexperiments} subexperiments, {totals.shots} shots"
    )
    steps = [r.metrics["step_shots"] for r in training if "step_shots" in r.metrics]
    if steps:
        click.echo(
            f"shots a step: {steps[0]:,.0f} in the first epoch, {steps[-1]:,.0f} in the last"
        )
    print_stages(rows, medians=True)
    print_files(files)


def _scored(scores: Scores) -> str:
    return (
        f"test accuracy {percent(scores.test_accuracy)}, training accuracy "
        f"{percent(scores.train_accuracy)}, loss {scores.loss:.4f}"
    )
