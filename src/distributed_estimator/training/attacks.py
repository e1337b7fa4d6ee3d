"""Perturbed samples: Gaussian noise, FGSM and PGD, all within the range that features can have.

Magnitudes are in radians, the unit of the scaled features. Whole grids of magnitudes are made at
once, from the same random numbers: the draws of one σ are those of another, stretched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ..analysis.accuracy import MOST_RADIANS
from ..checks import from_numpy
from ..errors import InputError
from .settings import Config, Count, Seed, about

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


Magnitudes = Annotated[
    tuple[Annotated[float, Meta(ge=0, le=MOST_RADIANS)], ...], Meta(min_length=1)
]
"""In radians."""


@dataclass(frozen=True)
class AttackConfig(Config):
    """Which perturbations to measure; attacks and magnitudes in any order.

    Raises:
        InputError: A field is out of range.

    Example:
        >>> AttackConfig(attacks=("fgsm",), epsilon=(0.2, 0.1)).grid("fgsm")
        (0.1, 0.2)
    """

    attacks: Annotated[
        tuple[Attack, ...],
        Meta(
            min_length=1,
            description="Some of gaussian, fgsm and pgd.",
            extra={"option": "--attack"},
        ),
    ] = ATTACKS
    sigma: Annotated[
        Magnitudes, about("Standard deviations of the Gaussian noise, in radians.")
    ] = DEFAULT_GRID
    epsilon: Annotated[Magnitudes, about("Radii of FGSM and PGD in the L∞ norm, in radians.")] = (
        DEFAULT_GRID
    )
    draws: Annotated[Count, about("Noisy copies of each sample, for each σ.")] = 10
    pgd_steps: Annotated[Count, about("Steps of PGD, of size 2.5 ε / steps each.")] = 10
    seed: Annotated[
        Seed | None, about("Of noise, random starts and the choice of samples. None: the run's.")
    ] = None
    samples: Annotated[
        Count | None, about("At most so many test samples, chosen at random. None: all.")
    ] = None

    def __post_init__(self) -> None:
        for name in ("attacks", "sigma", "epsilon"):
            given = getattr(self, name)
            if isinstance(given, list | tuple | np.ndarray):
                object.__setattr__(self, name, tuple(map(from_numpy, given)))
        super().__post_init__()
        for name in ("sigma", "epsilon"):
            _check_grid(name, getattr(self, name))
        if "gaussian" in self.attacks:  # at the least; how many values a draw has, `gaussian` knows
            check_room(self.draws, len(self.sigma), 1)

    def ordered(self) -> AttackConfig:
        """The same with each attack once, in the order of `ATTACKS`, and magnitudes sorted."""
        return replace(
            self,
            attacks=tuple(attack for attack in ATTACKS if attack in self.attacks),
            sigma=self.grid("gaussian"),
            epsilon=self.grid("fgsm"),
        )

    def grid(self, attack: Attack) -> tuple[float, ...]:
        """The magnitudes of an attack, in their order."""
        return tuple(sorted(self.sigma if attack == "gaussian" else self.epsilon))


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


def _check_grid(name: str, grid: tuple[float, ...]) -> None:
    if not any(grid):
        raise InputError(f"`{name}` has no magnitude above 0: give some, such as 0,0.05,0.1,0.2")
    if len(set(grid)) < len(grid):
        raise InputError(f"`{name}` is {grid}, a magnitude twice: give each once")
