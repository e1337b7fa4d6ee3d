"""How many shots a precision needs, from pilots that are thrown away afterwards."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

FloatArray = NDArray[np.float64]

PILOTS = 4
PILOT_SHOTS = 128
"""Shots per subexperiment that each pilot asks for."""
FEWEST_SHOTS = 256
"""However coarse the precision: fewer say little of their own standard error."""

MOST_SHOTS = 10**12
"""Shots a subexperiment can have."""
_MOST_STEPS = 10
_SAFETY = 3.0
"""Standard deviations by which a standard error may come out larger than planned."""


def shots_to_meet(
    precision: float, first: FloatArray, second: FloatArray, pilot_shots: int = PILOT_SHOTS
) -> int:
    """Shots per subexperiment at which all standard errors come out at most `precision`.

    A run whose standard error comes out too large has to be repeated, and choosing among runs by
    their standard error chooses among their values, too. So that it hardly ever happens, the
    plan allows for how much variances scatter between pilots, both as the pilots' mean is
    off and as the run's own will be.

    Args:
        precision: Standard error wanted, greater than 0.
        first: What each pilot says of the variances to first order, shape (`PILOTS`, queries):
            with x times the pilot's shots they are first / x + second / x².
        second: The same to second order.
        pilot_shots: Shots per subexperiment that the pilots had.

    Raises:
        InputError: It takes more shots than can be counted.
    """

    def excess(shots: int) -> float:
        x = shots / pilot_shots
        variances = np.maximum(first / x + second / x**2, 0.0)
        mean, scatter = variances.mean(axis=0), variances.std(axis=0, ddof=1)
        own = min(1.0, math.sqrt(1 / x))
        planned = mean + _SAFETY * scatter * (own + 1 / math.sqrt(PILOTS))
        return float(planned.max(initial=0.0)) / precision**2

    # An outcome too rare for the pilots to have seen may still be worth a few shots' weight.
    fewest = _countable(max(FEWEST_SHOTS, math.ceil(4 / precision)), precision)
    shots = fewest
    for _ in range(_MOST_STEPS):
        ratio = excess(shots)
        better = max(fewest, math.ceil(shots * ratio))
        if better == shots or 0.98 <= ratio <= 1.0:
            return shots
        shots = _countable(better, precision)
    return _countable(math.ceil(shots * max(1.0, excess(shots))), precision)


def shots_for_slopes(precision: float, weights: FloatArray) -> int:
    """Shots at which the derivative of an uncut observable meets `precision`, whatever its value.

    A value may be known exactly where its derivative is not: at θ = 0, say.

    Args:
        precision: Standard error wanted, greater than 0.
        weights: Weights of the observables' terms, shape (observables, terms).
    """
    largest = float((weights**2).sum(axis=1).max(initial=0.0))
    return _countable(math.ceil(largest / precision**2), precision)


def _countable(shots: int, precision: float) -> int:
    if shots > MOST_SHOTS:
        raise InputError(
            f"precision {precision:g} takes {shots:.3g} shots a subexperiment, {MOST_SHOTS:.0e} is "
            "the most: ask for a larger precision, or 0 for the exact value"
        )
    return shots


def shots_after_failing(shots: int, stderr: float, precision: float) -> int:
    """More shots, after `shots` gave the standard error `stderr` instead of `precision`."""
    return _countable(math.ceil(1.5 * shots * (stderr / precision) ** 2), precision)
