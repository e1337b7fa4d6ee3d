"""Accuracy of a trained network on perturbed samples, and the interval of a proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ..errors import InputError

ATTACK_NAMES = {"gaussian": "Gaussian noise", "fgsm": "FGSM", "pgd": "PGD"}
"""What each attack is called in tables and figures."""

CONFIDENCE = 0.95
MOST_RADIANS = 1e6
"""Of a perturbation, where it is measured and where it is read."""


@dataclass(frozen=True)
class AccuracyPoint:
    """How a network does on samples perturbed by one magnitude, in radians.

    `accuracy` is the share of samples on the right side of 0, the mean over the draws of a sample,
    with its 95 % interval from `low` to `high`; `loss` is the mean over samples and draws.
    """

    magnitude: float
    accuracy: float
    low: float
    high: float
    loss: float

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= MOST_RADIANS:
            raise InputError(
                f"`magnitude` is {self.magnitude!r}: give radians from 0 to {MOST_RADIANS:g}"
            )
        for name in ("accuracy", "low", "high"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"`{name}` is {getattr(self, name)!r}: give a share from 0 to 1")


@dataclass(frozen=True)
class AccuracyCurve:
    """One attack (gaussian, fgsm or pgd) over a grid of rising magnitudes."""

    attack: str
    points: tuple[AccuracyPoint, ...]

    def __post_init__(self) -> None:
        if self.attack not in ATTACK_NAMES:
            raise InputError(f"`attack` is {self.attack!r}: give one of {', '.join(ATTACK_NAMES)}")
        if not any(point.magnitude > 0 for point in self.points):
            raise InputError("`points` has no magnitude above 0: measure at least one")

    @classmethod
    def of(cls, attack: str, points: Sequence[Sequence[float]]) -> AccuracyCurve:
        """A curve from its points as records hold them: magnitude, accuracy, low, high."""
        if any(len(point) < 4 for point in points):
            raise InputError("a point of the curve has not [magnitude, accuracy, low, high]")
        found = (AccuracyPoint(m, a, low, high, math.nan) for m, a, low, high, *_ in points)
        return cls(attack, tuple(found))

    @property
    def mean_accuracy(self) -> float:
        """The mean over the non-zero magnitudes."""
        accuracies = [point.accuracy for point in self.points if point.magnitude > 0]
        return sum(accuracies) / len(accuracies)


def percent(share: float) -> str:
    """A share as the terminal, figures and reports all show it.

    Example:
        >>> percent(0.8525)
        '85.2 %'
    """
    return f"{100 * share:.1f} %"


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), never empty and never outside [0, 1].

    `share` may be the mean of proportions, too; `count` are the independent samples.

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
