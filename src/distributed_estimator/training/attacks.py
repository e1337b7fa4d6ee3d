"""Perturbed samples: Gaussian noise, FGSM and PGD, all within the range that features can have.

Magnitudes are in radians, the unit of the scaled features. Whole grids of magnitudes are made at
once, from the same random numbers: the draws of one σ are those of another, stretched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..analysis.accuracy import MOST_RADIANS
from ..checks import check_whole, from_numpy, is_number
from ..errors import InputError

FloatArray = npt.NDArray[np.float64]
Attack = Literal["gaussian", "fgsm", "pgd"]
Bounds = tuple[float, float]
Slope = Callable[[FloatArray, FloatArray], FloatArray]
"""The derivative of each sample's loss by its features, from features and targets."""

ATTACKS: tuple[Attack, ...] = get_args(Attack)
DEFAULT_GRID = (0.0, 0.05, 0.1, 0.2, 0.3)
MOST_BYTES = 2**30
"""Of the noisy copies of all samples, which are made at once."""

PGD_REACH = 2.5
"""The steps of PGD add up to this many radii, so that it can cross the ball and come back."""


@dataclass(frozen=True)
class AttackConfig:
    """Which perturbations to measure.

    Attributes:
        attacks: Some of `ATTACKS`; kept in their order.
        sigma: Standard deviations of the Gaussian noise, in radians; kept sorted.
        epsilon: Radii of FGSM and PGD in the L∞ norm, in radians; kept sorted.
        draws: Noisy copies of each sample, for each σ.
        pgd_steps: Steps of PGD, of size 2.5 ε / steps each.
        seed: Of noise, random starts and the choice of samples; None: that of the run.
        samples: At most so many test samples, chosen at random. None: all.

    Raises:
        InputError: A field is out of range.

    Example:
        >>> AttackConfig(attacks=("fgsm",), epsilon=(0.2, 0.1)).epsilon
        (0.1, 0.2)
    """

    attacks: tuple[Attack, ...] = ATTACKS
    sigma: tuple[float, ...] = DEFAULT_GRID
    epsilon: tuple[float, ...] = DEFAULT_GRID
    draws: int = 10
    pgd_steps: int = 10
    seed: int | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        if not self.attacks or not set(self.attacks) <= set(ATTACKS):
            raise InputError(f"`attacks` is {self.attacks!r}: give some of {', '.join(ATTACKS)}")
        kept = tuple(attack for attack in ATTACKS if attack in self.attacks)
        object.__setattr__(self, "attacks", kept)
        for name in ("sigma", "epsilon"):
            object.__setattr__(self, name, _grid(name, getattr(self, name)))
        check_whole("draws", self.draws, 1)
        check_whole("pgd_steps", self.pgd_steps, 1)
        for name, least in (("seed", 0), ("samples", 1)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        if "gaussian" in self.attacks:  # at the least; how many values a draw has, `gaussian` knows
            check_room(self.draws, len(self.sigma), 1)

    def grid(self, attack: Attack) -> tuple[float, ...]:
        """The magnitudes of an attack."""
        return self.sigma if attack == "gaussian" else self.epsilon


def gaussian(
    features: FloatArray, sigma: FloatArray, draws: int, bounds: Bounds, seed: int
) -> FloatArray:
    """Noisy copies of samples, clipped to the range.

    Returns:
        Shape (magnitudes, draws, samples, features).

    Raises:
        InputError: They take more than `MOST_BYTES`.

    Example:
        >>> gaussian(np.zeros((5, 2)), np.array([0.1, 0.2]), 3, (0.0, 1.0), seed=7).shape
        (2, 3, 5, 2)
    """
    check_room(draws, len(sigma), features.size)
    noise = np.random.default_rng([seed, 0]).standard_normal((draws, *features.shape))
    return np.clip(features + sigma[:, None, None, None] * noise, *bounds)


def fgsm(
    slope: Slope, features: FloatArray, targets: FloatArray, epsilon: FloatArray, bounds: Bounds
) -> FloatArray:
    """The fast gradient sign method (Goodfellow et al. 2015): x + ε sign(∂loss/∂x), clipped.

    One gradient serves all radii.

    Returns:
        Shape (magnitudes, samples, features).
    """
    direction = np.sign(slope(features, targets))
    return np.clip(features + epsilon[:, None, None] * direction, *bounds)


def pgd(
    slope: Slope,
    features: FloatArray,
    targets: FloatArray,
    epsilon: FloatArray,
    bounds: Bounds,
    *,
    steps: int,
    seed: int,
) -> FloatArray:
    """Projected gradient descent on the negative loss in the L∞ ball (Madry et al. 2018).

    Starts uniformly in the ball, takes `steps` signed steps of 2.5 ε / steps, and after each goes
    back into the ball and the range. The last point counts. All radii go forward together. With
    shots the signs of small slopes are noise, so that PGD may fall short of FGSM.

    Returns:
        Shape (magnitudes, samples, features).
    """
    radius = epsilon[:, None, None]
    low = np.maximum(features - radius, bounds[0])
    high = np.minimum(features + radius, bounds[1])
    start = np.random.default_rng([seed, 1]).uniform(-1.0, 1.0, features.shape)
    points = np.clip(features + radius * start, low, high)
    repeated = np.tile(targets, len(epsilon))
    for _ in range(steps):
        slopes = slope(points.reshape(-1, features.shape[1]), repeated).reshape(points.shape)
        points = np.clip(points + PGD_REACH / steps * radius * np.sign(slopes), low, high)
    return points


def check_room(draws: int, magnitudes: int, values: int) -> None:
    """Raises InputError if so many draws of so many values, for each magnitude, take too much."""
    size = 8 * draws * magnitudes * values
    if size > MOST_BYTES:
        raise InputError(
            f"`draws` is {draws}, and the noisy copies for {magnitudes} magnitudes take "
            f"{size / 2**30:.3g} GiB or more, {MOST_BYTES / 2**30:g} GiB is the limit: give fewer "
            "draws, magnitudes or samples"
        )


def _grid(name: str, magnitudes: tuple[float, ...]) -> tuple[float, ...]:
    for magnitude in map(from_numpy, magnitudes):
        if not (is_number(magnitude) and 0 <= magnitude <= MOST_RADIANS):
            raise InputError(
                f"`{name}` holds {magnitude!r}: give finite magnitudes of at least 0 and at most "
                f"{MOST_RADIANS:g}, in radians"
            )
    grid = tuple(sorted(map(float, magnitudes)))
    if not grid or grid[-1] == 0:
        raise InputError(f"`{name}` has no magnitude above 0: give some, such as 0,0.05,0.1,0.2")
    if len(set(grid)) < len(grid):
        raise InputError(f"`{name}` is {grid}, a magnitude twice: give each once")
    return grid
