"""How many shots a precision needs, from pilots that are thrown away."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..cutting import FloatArray
from ..errors import InputError

PILOTS = 4
PILOT_SHOTS = 128
"""Shots per subexperiment that each pilot asks for."""
FEWEST_SHOTS = 256
"""However coarse the precision: fewer say little of their own standard error."""

MOST_SHOTS = 10**12
"""Shots a subexperiment can have."""
MOST_ROUNDS = 12
"""Rounds that are tried to meet a precision."""
_MOST_STEPS = 10
_SAFETY = 3.0
"""Standard deviations by which a standard error may come out larger than planned."""


@dataclass(frozen=True)
class ShotsTaken:
    """Shots that a round's subexperiments got, of all their chunks; all 0 for exact values.

    A backend may take another number than it was asked to, and a deadline leave chunks out. The
    mean is harmonic, as variances go with one over the shots; 0 where any has none.
    """

    fewest: int = 0
    most: int = 0
    mean: float = 0.0


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
        first: What each pilot says of the variances, shape (`PILOTS`, queries): with x times the
            pilot's shots they are first / x + second / x².
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
    fewest = _countable(max(FEWEST_SHOTS, 4 / precision), precision)
    shots = fewest
    for _ in range(_MOST_STEPS):
        ratio = excess(shots)
        better = _countable(max(fewest, shots * ratio), precision)
        if better == shots or 0.98 <= ratio <= 1.0:
            return shots
        shots = better
    return _countable(shots * max(1.0, excess(shots)), precision)


def shots_for_slopes(precision: float, weights: FloatArray) -> int:
    """Shots at which the derivative of an uncut observable meets `precision` at any value.

    A value may be known exactly where its derivative is not: at θ = 0, say. The weights are those
    of the observables' terms, shape (observables, terms).
    """
    largest = float((weights**2).sum(axis=1).max(initial=0.0))
    return _countable(largest / precision**2, precision)


def _countable(shots: float, precision: float) -> int:
    """Rounded up, but not for what rounding may add on some processor."""
    if shots > MOST_SHOTS:
        raise InputError(
            f"precision {precision:g} takes {shots:.3g} shots a subexperiment, {MOST_SHOTS:.0e} is "
            "the most: ask for a larger precision, or 0 for the exact value"
        )
    return math.ceil(shots * (1 - 1e-9))


def shots_after_failing(shots: int, stderr: float, precision: float) -> int:
    """More shots, after `shots` gave the standard error `stderr` instead of `precision`."""
    return _countable(1.5 * shots * (stderr / precision) ** 2, precision)
