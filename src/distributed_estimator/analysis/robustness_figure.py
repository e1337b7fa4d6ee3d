"""A figure of the accuracy of a trained network on perturbed samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..records import given_path
from .accuracy import ATTACK_NAMES, AccuracyCurve, AccuracyPoint, percent
from .figures import BLUE, INK, ORANGE, PINK, TITLE, new_figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {
    "gaussian": ("standard deviation σ (rad)", BLUE),
    "fgsm": ("radius ε (rad)", ORANGE),
    "pgd": ("radius ε (rad)", PINK),
}
"""Magnitude and colour of each attack."""


def robustness_figure(
    clean: AccuracyPoint, curves: Sequence[AccuracyCurve], path: Path | str, title: str
) -> None:
    """Draws accuracy over magnitude with its 95 % band as a PNG, one panel an attack.

    Args:
        clean: The unperturbed samples; where each curve begins, and the level it falls from.
        curves: One an attack.
        path: The PNG to write; it appears whole or not at all.
        title: What was attacked.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
        InputError: If there is no curve.
    """
    if not curves:
        raise InputError("`curves` is empty: give one curve an attack")
    figure = new_figure()
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, curve in zip(panels, curves, strict=True):
        _draw(axes, clean, curve)
    panels[0].set_ylabel("test samples correct (%)")
    panels[0].set_ylim(0, 104)
    panels[0].legend(loc="best", frameon=False)
    save(figure, given_path(path))


def _draw(axes: Axes, clean: AccuracyPoint, curve: AccuracyCurve) -> None:
    magnitude, colour = _STYLES[curve.attack]
    points = [clean, *(point for point in curve.points if point.magnitude > 0)]
    at = [point.magnitude for point in points]
    low, high = [100 * point.low for point in points], [100 * point.high for point in points]
    level = 100 * clean.accuracy
    axes.axhline(level, color=INK, linewidth=1, linestyle=":", label="clean accuracy")
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0, label="95 % interval")
    accuracy = [100 * point.accuracy for point in points]
    axes.plot(at, accuracy, "o-", color=colour, linewidth=2, label="accuracy", clip_on=False)
    name = ATTACK_NAMES[curve.attack]
    axes.set_title(f"{name}, mean {percent(curve.mean_accuracy)}", **TITLE)
    axes.set_xlabel(magnitude)
    axes.set_xlim(0, 1.02 * at[-1])
    tidy(axes)
