"""Shots of a round for probabilities of outcomes, which are many, and share all that is measured.

To first order the variance of a probability is a sum over settings, of the variance of one shot
divided by their number. Shots are divided so that all probabilities meet their variances with the
fewest, as in `design`; the weights of slot outcomes stay those that the gates fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cutting import BoolArray, FloatArray, IntArray
from .design import Design, ShotPlan, least_shots
from .shots import Accuracy, check_countable

OUTCOME_PILOT = 128
"""Shots of a circuit in the first pilot, at most: how likely outcomes are is not known before."""
_FURTHER = 16
"""Shots from which on a further pilot is worth it, in units of those that pilots took."""
_FEWEST_SHOTS = 16
"""Of a circuit that runs: with fewer, the errors of fragments, multiplied, say little."""
_STEPS, _ENOUGH = 40, 1.01
"""Steps that divide shots between probabilities, and how far from the fewest they may end."""
_LEAST_SHARE = 1 / 16
"""Shots of a circuit at least, in units of the mean: a pilot may have missed that it scatters."""
_MARGIN = 1.1
"""Factor of the variances that a pilot says."""
_PARTS = 8
"""Numbers of shots between one and twice as many: few distinct ones make few jobs."""


@dataclass(frozen=True, eq=False)
class Spread:
    """How the outcomes of one fragment scatter, as results depend on them.

    Attributes:
        rows: The row of each result, shape (results,).
        variances: Of one shot of each setting, shape (results, settings).
        runs: Which settings are circuits that run, shape (settings,).
        num_rows: Rows of the fragment.
    """

    rows: IntArray
    variances: FloatArray
    runs: BoolArray
    num_rows: int


def plan_outcomes(
    fragments: Sequence[Spread | None],
    targets: FloatArray,
    accuracy: Accuracy,
    spent: int,
    *,
    may_pilot: bool = False,
    fewest: int = 0,
) -> ShotPlan:
    """Divide shots between the settings of all fragments.

    Args:
        fragments: What a pilot says; None where nothing runs.
        targets: Variances that results are to have, shape (results,).
        accuracy: The precision, the budget, or the limit.
        spent: Shots that earlier rounds took.
        may_pilot: Whether the round may be a further pilot.
        fewest: Shots of every circuit at least, where a precision rules.

    Raises:
        InputError: A circuit takes more shots than can be counted.
    """
    found = [own for own in fragments if own is not None]
    shots = _divide(found, targets / _MARGIN, equal=accuracy.allocation == "uniform")
    shots = _at_least(shots, [fewest * _asked(own) for own in found])
    if accuracy.promises:  # what a pilot did not see may be there
        bindings = max((own.num_rows for own in found), default=0)
        least = least_shots(bindings, accuracy.precision)
        shots = [own * max(1.0, least / max(1, _taken(shots))) for own in shots]
    limit = accuracy.most if accuracy.budget is None else accuracy.budget
    if may_pilot and limit is None and _taken(shots) > _FURTHER * spent:
        return ShotPlan([], [], np.inf, needs_pilot=True)
    left = None if limit is None else max(0, limit - spent)
    is_short = left is not None and (accuracy.budget is not None or _taken(shots) > left)
    if left is not None and is_short:
        shots = _within(shots, left)
    largest = max((float(own.max(initial=0.0)) for own in shots), default=0.0)
    check_countable(largest, accuracy.precision)
    stderr = float(np.sqrt(_variances(found, shots).max(initial=0.0)))
    each = iter(zip(found, map(_whole, shots), strict=True))
    designs: list[Design | None] = []
    influences: list[FloatArray] = []
    for fragment in fragments:
        if fragment is None:
            designs.append(None)
            influences.append(np.zeros((0, 0)))
            continue
        own, whole = next(each)
        designs.append(Design(whole[:, None], None))
        influence: FloatArray = np.zeros(own.num_rows)
        np.add.at(influence, own.rows, _contribution(own, whole))
        influences.append(influence[:, None])
    return ShotPlan(designs, influences, stderr, is_short=is_short and accuracy.budget is None)


def _divide(found: Sequence[Spread], targets: FloatArray, *, equal: bool) -> list[FloatArray]:
    """The fewest shots at which results have these variances at most, shape (rows, settings)."""
    asked = [_asked(own) for own in found]
    multipliers = np.ones(len(targets))
    for _ in range(_STEPS):
        if equal:
            shots = [own.astype(np.float64) for own in asked]
        else:
            shots = [
                np.maximum(_roots(own, multipliers / targets), 1e-300) * runs
                for own, runs in zip(found, asked, strict=True)
            ]
            circuits = sum(int(runs.sum()) for runs in asked)
            least = _LEAST_SHARE * sum(float(own.sum()) for own in shots) / max(1, circuits)
            shots = _at_least(shots, [least * runs for runs in asked])
        reached = _variances(found, shots) / targets
        most = float(reached.max(initial=0.0))
        if equal or most <= _ENOUGH * float((multipliers * reached).sum() / multipliers.sum()):
            break
        multipliers *= reached / max(most, 1e-300)
    # Something runs even where nothing seems to scatter.
    return _at_least([most * own for own in shots], [_FEWEST_SHOTS * runs for runs in asked])


def _asked(own: Spread) -> BoolArray:
    """Which circuits run at rows on which results depend, shape (rows, settings)."""
    needed = np.zeros((own.num_rows, 1), dtype=bool)
    needed[own.rows] = True
    return needed & own.runs


def _roots(own: Spread, weights: FloatArray) -> FloatArray:
    """Roots of weighted sums of variances, shape (rows, settings)."""
    total = np.zeros((own.num_rows, own.variances.shape[1]))
    np.add.at(total, own.rows, weights[:, None] * own.variances)
    return np.sqrt(total)


def _variances(found: Sequence[Spread], shots: Sequence[FloatArray]) -> FloatArray:
    """Of all results, shape (results,)."""
    parts = (_contribution(own, n) for own, n in zip(found, shots, strict=True))
    return np.asarray(sum(parts, np.zeros(len(found[0].rows) if found else 0)))


def _contribution(own: Spread, shots: FloatArray | IntArray) -> FloatArray:
    """What a fragment adds to the variance of each result, shape (results,)."""
    return np.asarray((own.variances / np.maximum(shots, 1e-300)[own.rows]).sum(axis=1))


def _within(shots: Sequence[FloatArray], limit: int) -> list[FloatArray]:
    """So many less, or more, as the limit allows; a pilot leaves the fewest that a circuit has."""
    least = [_FEWEST_SHOTS * (own > 0) for own in shots]
    low, high = 0.0, limit / max(1.0, min(float(own[own > 0].min()) for own in shots))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _taken(_at_least([middle * own for own in shots], least)) <= limit:
            low = middle
        else:
            high = middle
    return _at_least([low * own for own in shots], least)


def _at_least(shots: Sequence[FloatArray], least: Sequence[Any]) -> list[FloatArray]:
    return [np.maximum(own, few) for own, few in zip(shots, least, strict=True)]


def _whole(shots: FloatArray) -> IntArray:
    """Whole numbers, few distinct ones."""
    parts = np.ceil(_PARTS * np.log2(np.maximum(shots, 1.0)) - 1e-9)
    return np.asarray(np.where(shots > 0, np.ceil(np.exp2(parts / _PARTS)), 0), dtype=np.intp)


def _taken(shots: Sequence[FloatArray]) -> int:
    return sum(int(_whole(own).sum()) for own in shots)
