"""Accuracy of a trained network on perturbed samples: the numbers, and a figure of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from ..errors import InputError
from .figures import BLUE, INK, ORANGE, PINK, TITLE, new_figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONFIDENCE = 0.95

_STYLES = {
    "gaussian": ("Gaussian noise", "standard deviation σ (rad)", BLUE),
    "fgsm": ("FGSM", "radius ε (rad)", ORANGE),
    "pgd": ("PGD", "radius ε (rad)", PINK),
}
"""Name, magnitude and colour of each attack."""


@dataclass(frozen=True)
class AccuracyPoint:
    """How a network does on samples perturbed by one magnitude.

    Attributes:
        magnitude: Of the perturbation, in radians; 0: none.
        accuracy: Share of samples on the right side of 0, the mean over the draws of a sample.
        low: Lower end of the 95 % interval of `accuracy`.
        high: Its upper end.
        loss: Mean loss over samples and draws.
    """

    magnitude: float
    accuracy: float
    low: float
    high: float
    loss: float


@dataclass(frozen=True)
class AccuracyCurve:
    """One attack over a grid of magnitudes.

    Attributes:
        attack: gaussian, fgsm or pgd.
        points: By rising magnitude.
    """

    attack: str
    points: tuple[AccuracyPoint, ...]

    def __post_init__(self) -> None:
        if self.attack not in _STYLES:
            raise InputError(f"`attack` is {self.attack!r}: give one of {', '.join(_STYLES)}")
        if not any(point.magnitude > 0 for point in self.points):
            raise InputError("`points` has no magnitude above 0: measure at least one")

    @property
    def mean_accuracy(self) -> float:
        """The mean over the non-zero magnitudes."""
        accuracies = [point.accuracy for point in self.points if point.magnitude > 0]
        return sum(accuracies) / len(accuracies)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), never empty and never outside [0, 1].

    Args:
        share: The observed proportion; the mean of proportions may be given too.
        count: Independent samples it is the mean of.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> [round(end, 3) for end in wilson_interval(1.0, 20)]
        [0.839, 1.0]
    """
    if not (0 <= share <= 1 and count >= 1):
        raise InputError(
            f"`share` is {share} and `count` {count}: give a proportion of one sample or more"
        )
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5 / scale
    # Rounding may put the ends of a proportion of 0 or 1 past it.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


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
    save(figure, Path(path))


def _draw(axes: Axes, clean: AccuracyPoint, curve: AccuracyCurve) -> None:
    name, magnitude, colour = _STYLES[curve.attack]
    points = [clean, *(point for point in curve.points if point.magnitude > 0)]
    at = [point.magnitude for point in points]
    low, high = [100 * point.low for point in points], [100 * point.high for point in points]
    level = 100 * clean.accuracy
    axes.axhline(level, color=INK, linewidth=1, linestyle=":", label="clean accuracy")
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0, label="95 % interval")
    accuracy = [100 * point.accuracy for point in points]
    axes.plot(at, accuracy, "o-", color=colour, linewidth=2, label="accuracy", clip_on=False)
    axes.set_title(f"{name}, mean {100 * curve.mean_accuracy:.1f} %", **TITLE)
    axes.set_xlabel(magnitude)
    axes.set_xlim(0, 1.02 * at[-1])
    tidy(axes)
