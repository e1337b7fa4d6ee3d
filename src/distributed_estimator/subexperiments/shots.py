"""How well a result must be known, and the shots of a pilot, which is thrown away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..cutting import FloatArray, IntArray
from ..errors import InputError

Allocation = Literal["optimal", "neyman", "uniform"]
"""optimal: shots and weights by the design. neyman: shots alone, weights fixed by the gates.
uniform: the same number for every circuit, weights fixed by the gates."""

ErrorNorm = Literal["max", "rms"]
"""What a precision is to be met by. max: every standard error. rms: the root mean square of those
of results that belong together."""

MOST_SHOTS = 10**12
"""Shots a subexperiment can have."""
MOST_PILOTS, MOST_DRAWN_PILOTS = 6, 12
"""The second where settings are drawn, of which less is known."""
MOST_ROUNDS = 12
"""Rounds that are tried to meet a precision."""
_FEWEST_PILOT_SHOTS = 2
"""Of each circuit."""
_PILOT_ROOT, _PILOT_LINEAR, _PILOT_SQUARE = 10.0, 75.0, 3.0
_BUDGET_ROOT = 2.0
LARGEST_DENSE = 1 << 22
"""Weights of a fragment at all bindings up to which the best ones are looked for."""
_MOST_WEIGHTS = 1 << 80
FEWEST_SHOTS = 4
"""Shots of a circuit that runs: fewer say little of their own variance."""
_GOOD = 16
"""Shots of a circuit, with its pilot, from which on they are divided between circuits."""

DRAWN_AS_CIRCUITS = 64
"""Circuits that a fragment counts as in a pilot whose settings are drawn."""


@dataclass(frozen=True)
class Accuracy:
    """How well a result must be known.

    Attributes:
        shots: Shots of each subexperiment; None: as many as the rest asks for.
        precision: Standard error to meet; 0: the exact value.
        allocation: How shots are divided.
        budget: Shots in all, whatever the precision; None: no such number.
        most: Shots in all that a precision may take; None: any number.
        circuit_overhead: Shots that a circuit costs besides its own.
        reuse: Whether what earlier runs saw takes the place of a pilot.
        norm: What the precision holds for, and what a budget makes least.
        part: Part that these are of all shots, which several noise factors share.
    """

    shots: int | None
    precision: float
    allocation: Allocation = "optimal"
    budget: int | None = None
    most: int | None = None
    circuit_overhead: float = 0.0
    reuse: bool = False
    norm: ErrorNorm = "max"
    part: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether nothing is sampled."""
        return self.shots is None and self.precision == 0

    @property
    def adaptive(self) -> bool:
        """Whether shots are divided by a design, with a pilot of its own."""
        return self.shots is None and self.precision > 0

    @property
    def promises(self) -> bool:
        """Whether a precision is to be met, whatever shots that takes."""
        return self.adaptive and self.budget is None


@dataclass(frozen=True, eq=False)
class Norms:
    """Root mean squares of the standard errors of results that belong together.

    Attributes:
        number: The norm that each result counts in, shape (results,).
    """

    number: IntArray

    @staticmethod
    def of_groups(groups: IntArray, norm: ErrorNorm) -> Norms:
        """Those of groups of results; with "max" every result is one by itself."""
        alone = np.arange(len(groups))
        return Norms(alone if norm == "max" else np.unique(groups, return_inverse=True)[1])

    @cached_property
    def scales(self) -> FloatArray:
        """What standard errors count with, before they are squared, shape (results,)."""
        return 1 / np.sqrt(np.bincount(self.number)[self.number])

    def of(self, stderrs: FloatArray) -> FloatArray:
        """The norms of standard errors, shape (norms,).

        Example:
            >>> stderrs = np.array([0.3, 0.4, 0.1])
            >>> Norms.of_groups(np.array([0, 0, 1]), "rms").of(stderrs).round(4)
            array([0.3536, 0.1   ])
        """
        return np.sqrt(np.bincount(self.number, (self.scales * stderrs.ravel()) ** 2))


@dataclass(frozen=True)
class ShotsTaken:
    """Shots that a round's subexperiments got, of all their chunks; all 0 for exact values.

    A backend may take another number than it was asked to, and a deadline leave chunks out.
    """

    fewest: int = 0
    most: int = 0


def draws_settings(accuracy: Accuracy, num_weights: int) -> bool:
    """Whether settings of a fragment are drawn, which has so many weights of outcomes a binding.

    They are where these are too many for the best ones; tensors of the widest fit in no memory.
    """
    wanted = accuracy.adaptive and accuracy.allocation == "optimal"
    return wanted and LARGEST_DENSE < num_weights < _MOST_WEIGHTS


def first_shots(
    accuracy: Accuracy, circuits: int, results: int, *, knows: bool = False, draws: bool = False
) -> tuple[int, int | None]:
    """Shots of each circuit in a pilot, and instead of one where there are too few to design with.

    A pilot's shots for a result grow as one over the error ε, where the result takes as many as one
    over its square, and are no more than 3/ε², which is about what a value takes. Of N shots in all
    it takes as many as the square root of N.

    Args:
        accuracy: What is wanted.
        circuits: Circuits of all results.
        results: How many there are: bindings, each with every parameter to differentiate by.
        knows: Whether no pilot is needed.
        draws: Whether settings of some fragment are drawn, which takes two pilots.

    Raises:
        InputError: There are fewer shots than circuits or, where settings are drawn, than can be
            divided; or more than can be counted.
    """
    own, error = circuits / max(1, results), accuracy.precision
    name, limit = "shots_total", accuracy.budget
    if limit is not None:
        wanted = _BUDGET_ROOT * math.sqrt(own * limit / max(1, results))
    else:
        name, limit = "max_shots", accuracy.most
        check_countable(1 / error, error)
        most = min(_PILOT_ROOT * math.sqrt(own), _PILOT_LINEAR) / error
        wanted = min(most, _PILOT_SQUARE / error**2)
    pilot = max(_FEWEST_PILOT_SHOTS, math.ceil(wanted / max(1.0, own)))
    if limit is None:
        check_countable(pilot, error)
        return pilot, None
    given = f"`{name}` is {limit}"
    if accuracy.part < 1:
        given = f"`{name}` leaves {limit} shots for a noise factor"

    def least(shots: int) -> int:
        return math.ceil(shots / accuracy.part)

    if draws:
        if limit < circuits * _GOOD:
            raise InputError(
                f"{given}, too few for a fragment whose settings are drawn at random, being too "
                f"many to run each: give at least {least(circuits * _GOOD)}"
            )
        return min(pilot, limit // max(1, circuits) // 8), None
    if limit < circuits:
        raise InputError(
            f"{given}, and {circuits} circuits are to run: give at least {least(circuits)}, one "
            f"shot each; from {least(circuits * _GOOD)} on they are divided well"
        )
    each = limit // max(1, circuits)
    return min(pilot, each // 4), each if each < (FEWEST_SHOTS if knows else _GOOD) else None


def check_countable(shots: float, precision: float) -> None:
    """Make sure that a circuit can have so many shots.

    Raises:
        InputError: It cannot.
    """
    if shots > MOST_SHOTS:
        raise InputError(
            f"precision {precision:g} takes {shots:.3g} shots a subexperiment, {MOST_SHOTS:.0e} is "
            "the most: ask for a larger precision, or 0 for the exact value"
        )
