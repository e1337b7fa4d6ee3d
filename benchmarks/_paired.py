"""Paired differences over a few seeds: what they say about a true difference of 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t

DIGITS = 12  # differences of shares: what is left of rounding is no difference


@dataclass(frozen=True)
class Paired:
    """A mean difference with its t-interval and test.

    Attributes:
        mean: Over the pairs.
        half_width: Of the interval; 0 if all differences are the same.
        p_value: Of a mean of 0, two-sided.
    """

    mean: float
    half_width: float
    p_value: float

    @property
    def contains_zero(self) -> bool:
        """Whether the interval does."""
        return abs(self.mean) <= self.half_width

    def as_json(self) -> dict[str, Any]:
        """The fields, and whether 0 is in the interval."""
        return asdict(self) | {"contains_zero": self.contains_zero}


def paired(differences: Sequence[float], confidence: float = 0.95) -> Paired:
    """Student's interval and test for the mean of `differences`.

    >>> paired([0.0, 0.0, 0.0])
    Paired(mean=0.0, half_width=0.0, p_value=1.0)
    >>> found = paired([1.0, 2.0, 3.0])
    >>> found.mean, round(found.half_width, 3), round(found.p_value, 4)
    (2.0, 2.484, 0.0742)
    """
    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    mean = round(float(values.mean()), DIGITS)
    if np.ptp(values) == 0:
        return Paired(mean, 0.0, 1.0 if mean == 0 else 0.0)
    freedom = len(values) - 1
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half_width = float(t.ppf((1 + confidence) / 2, freedom)) * error
    return Paired(mean, half_width, float(2 * t.sf(abs(mean) / error, freedom)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: one is small only if it is among so many.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
