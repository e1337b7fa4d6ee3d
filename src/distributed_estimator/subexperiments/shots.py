"""How well a result must be known, and the shots of a pilot, which is thrown away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Allocation = Literal["optimal", "neyman", "uniform"]
"""optimal: shots and weights by the design. neyman: shots alone, weights fixed by the gates.
uniform: the same number for every circuit, weights fixed by the gates."""

MOST_SHOTS = 10**12
"""Shots a subexperiment can have."""
MOST_ROUNDS = 12
"""Rounds that are tried to meet a precision."""
_FEWEST_PILOT_SHOTS = 2
"""Of each circuit."""
_PILOT_ROOT, _PILOT_LINEAR, _PILOT_SQUARE = 10.0, 75.0, 3.0
_BUDGET_SHARE = 0.1
"""Shots of a pilot as a part of all."""


@dataclass(frozen=True)
class Accuracy:
    """How well a result must be known.

    Attributes:
        shots: Shots of each subexperiment; None: as many as the rest asks for.
        precision: Standard error to meet; 0: the exact value.
        allocation: How shots are divided.
        budget: Shots in all, whatever the precision; None: no such number.
        most: Shots in all that a precision may take; None: any number.
    """

    shots: int | None
    precision: float
    allocation: Allocation = "optimal"
    budget: int | None = None
    most: int | None = None

    @property
    def exact(self) -> bool:
        """Whether nothing is sampled."""
        return self.shots is None and self.precision == 0

    @property
    def adaptive(self) -> bool:
        """Whether shots are divided by a design, with a pilot of its own."""
        return self.shots is None and self.precision > 0


@dataclass(frozen=True)
class ShotsTaken:
    """Shots that a round's subexperiments got, of all their chunks; all 0 for exact values.

    A backend may take another number than it was asked to, and a deadline leave chunks out. The
    mean is harmonic, as variances go with one over the shots; 0 where any has none.
    """

    fewest: int = 0
    most: int = 0
    mean: float = 0.0


def pilot_shots(accuracy: Accuracy, circuits: int, bindings: int) -> int:
    """Shots of each circuit in a pilot, where all bindings together have so many circuits.

    They grow as one over the error ε, where a value takes as one over its square, and are no more
    than 3/ε², which is about what a value takes.
    """
    own, error = circuits / max(1, bindings), accuracy.precision
    shots = min(min(_PILOT_ROOT * math.sqrt(own), _PILOT_LINEAR) / error, _PILOT_SQUARE / error**2)
    if accuracy.budget is not None:
        shots = _BUDGET_SHARE * accuracy.budget / max(1, bindings)
    return max(_FEWEST_PILOT_SHOTS, math.ceil(shots / max(1.0, own)))
