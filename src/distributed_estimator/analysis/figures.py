"""Figures of a run, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..records import QueryRecord, TrainingRecord, atomic, given_path
from .tables import StageRow, stage_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: its colours stay apart under every common colour blindness.
BLUE, ORANGE, GREEN, PINK, INK, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#222222",
    "#B8B8B8",
)
STAGE_COLOURS = {"partition": PINK, "generate": GREEN, "execute": BLUE, "reconstruct": ORANGE}
DPI = 160


def require_matplotlib() -> None:
    """Raises MissingExtraError, with the install command, if figures cannot be drawn."""
    new_figure()


def training_figure(
    training: Sequence[TrainingRecord],
    queries: Sequence[QueryRecord],
    path: Path | str,
    title: str,
) -> None:
    """Draws loss, accuracy and stage shares of one training run as a PNG.

    Args:
        training: The run's training records, in order; `train_accuracy` and `test_accuracy` are
            drawn where their metrics hold them.
        queries: The run's query records.
        path: The PNG to write; it appears whole or not at all.
        title: What was trained and how.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
        RecordError: If there is no query record.
    """
    rows = stage_table(queries)
    figure = new_figure()
    panels = figure.subplot_mosaic(
        [["loss", "stages"], ["accuracy", "stages"]], width_ratios=[3, 2]
    )
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    _draw_loss(panels["loss"], training)
    _draw_accuracy(panels["accuracy"], training)
    panels["accuracy"].sharex(panels["loss"])
    _draw_stages(panels["stages"], rows)
    save(figure, given_path(path))


def new_figure() -> Figure:
    """An empty figure; raises MissingExtraError if Matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "a figure") from error
    return Figure(figsize=(10, 5.2), layout="constrained")


def _draw_loss(axes: Axes, training: Sequence[TrainingRecord]) -> None:
    steps = [record.step for record in training]
    axes.plot(steps, [record.loss for record in training], color=BLUE, linewidth=2)
    axes.set_title("Training loss", **TITLE)
    axes.set_ylabel("mean over the training part")
    axes.set_ylim(bottom=0)
    axes.tick_params(labelbottom=False)
    tidy(axes)


def _draw_accuracy(axes: Axes, training: Sequence[TrainingRecord]) -> None:
    curves = (("train_accuracy", "training", BLUE, "-"), ("test_accuracy", "test", ORANGE, "--"))
    for metric, label, colour, line in curves:
        points = [
            (record.step, 100 * record.metrics[metric])
            for record in training
            if metric in record.metrics
        ]
        if points:
            axes.plot(*zip(*points, strict=True), line, color=colour, linewidth=2, label=label)
    axes.set_title("Accuracy", **TITLE)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("correct (%)")
    axes.set_ylim(0, 104)
    if axes.lines:
        axes.legend(loc="lower right", frameon=False)
    tidy(axes)


def _draw_stages(axes: Axes, rows: Sequence[StageRow]) -> None:
    stages, total = rows[:-1], rows[-1]
    positions = range(len(stages))
    bars = axes.barh(
        positions,
        [100 * row.share for row in stages],
        color=[STAGE_COLOURS[row.stage] for row in stages],
        height=0.62,
    )
    labels = [f"{100 * row.share:.1f} %  ({row.seconds:.3g} s)" for row in stages]
    axes.bar_label(bars, labels, padding=4, color=INK)
    axes.set_yticks(positions, [row.stage for row in stages])
    axes.invert_yaxis()
    # Room for the label of a bar that fills the axis.
    axes.set_xlim(0, 155)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_title(f"Estimator time by stage, {total.seconds:.3g} s in all", **TITLE)
    axes.set_xlabel("share of $T_{total}$ (%)")
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_bounds(0, 100)


TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11, "color": INK}


def tidy(axes: Axes) -> None:
    """Takes off what says nothing, and puts the grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GREY, linewidth=0.6, alpha=0.5)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG that is there whole or not at all."""
    with atomic(path, durable=False) as unfinished:
        figure.savefig(unfinished, dpi=DPI, format="png")
