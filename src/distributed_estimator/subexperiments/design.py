"""The design of a round: how many shots each setting gets, and the weights of their outcomes.

To first order a result is linear in the tensor of each fragment. The best linear unbiased estimate
of a tensor weighs the outcomes of its settings by their covariances and shots; its variance is a
convex function of the shots, which are divided so that all results meet a standard error with the
fewest of them. How outcomes scatter, and what results depend on, is known from a pilot, which is
thrown away: shots and weights depend on it alone, so that estimates are unbiased whatever it said.
docs/mathematics.md derives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import scipy

from ..cutting import FloatArray, IntArray
from .seen import SEED, Entries, Seen, SeenGroup, Sensitivity, Values, over
from .shots import FEWEST_SHOTS, Accuracy, check_countable

_STEPS = 3
"""Steps of weights for the shots, and shots for the weights; the optimum is flat."""
_SHARES_OUT = 0.0, 1 / 64, 1 / 16, 1 / 4, 1.0
"""Shots of circuits that are tried to be left out, in units of what a circuit costs besides."""
_BALANCING, _BALANCED = 30, 0.01
"""Steps that divide shots between results, and how far from the fewest they may end."""
_DRAWS, _CHECKS = 4, 8
"""Tensors drawn from what a pilot leaves open: for the design, and for its margin."""
_MISSED = 0.05
"""Chance that some result of a round misses its precision, if variances were normal: 1.6 standard
deviations for one result."""
_ROUNDED = 5
"""Steps that allow for whole numbers of shots."""
_LARGE, _LEAP, _APPROACHES, _CLOSE, _MOVED = 2.0, 5.0, 2, 1.2, 0.01
"""Margin from which on it is approached in steps, as a factor; how large one is, and how many; how
near is enough, and from what change of the logarithm on a step tells how variances fall."""
_DOUBTFUL, _PILOT = 5.0, 0.25
"""Shots of a margin from which on a further pilot is worth it, in units of those that pilots took;
and the part of a limit of shots that pilots may take."""
_DRAWN_PILOT = 4.0
"""The same for all shots planned where settings are drawn: what is not known of each slot's
environment multiplies."""
_LEAST_SHARE = 1e-4
"""Shots of a circuit at least, in units of the mean, while they are still fractions."""
_COARSE, _FINE = 1e3, 1e-30
"""Standard errors that are planned for, in units of the largest derivative: of larger ones the
fewest shots meet each, smaller ones take more than can be counted, and powers of both overflow."""
_MOST_VARIANCE = 1e100
"""Larger ones would overflow when squared."""
_LEAST_TOTAL, _LEAST_BY_ERROR = 64, 8.0
"""Shots that a binding takes at least, however sure its value seems; the second over the error."""

Shots: TypeAlias = list[FloatArray]


@dataclass(frozen=True, eq=False)
class Design:
    """Shots and weights of one fragment.

    Attributes:
        shots: Shape (rows, measurement groups, settings).
        weights: Per measurement group the tensor of its Paulis from their means at all outcomes,
            shape (rows, paulis, product of ranks, slot outcomes); None: those fixed by the gates.
    """

    shots: IntArray
    weights: tuple[FloatArray, ...] | None


@dataclass(frozen=True, eq=False)
class ShotPlan:
    """The designs of a round.

    Attributes:
        designs: Per fragment; None where nothing runs.
        influences: Per fragment, what each row's measurement groups contribute to the variances of
            all results, shape (rows, groups).
        stderr: Largest standard error that it is to give.
        needs_pilot: Whether too little is known for a design; the rest is empty then.
        is_short: Whether it has fewer shots than the precision takes.
    """

    designs: Sequence[Design | None]
    influences: Sequence[FloatArray]
    stderr: float
    needs_pilot: bool = False
    is_short: bool = False

    @property
    def fragment_shots(self) -> tuple[int, ...]:
        """Shots of each fragment."""
        return tuple(0 if own is None else int(own.shots.sum()) for own in self.designs)


def plan_shots(
    pilots: Sequence[Seen | None],
    sensitivities: Callable[[Values], tuple[int, list[Sensitivity]]],
    accuracy: Accuracy,
    spent: int,
    variances: FloatArray | None = None,
    *,
    may_pilot: bool = False,
    fewest: int = 0,
) -> ShotPlan:
    """Divide shots between the circuits of all fragments.

    Args:
        pilots: What earlier rounds saw of each fragment; None where nothing runs.
        sensitivities: How many results there are, and their derivatives at given tensors.
        accuracy: What the results are to meet, or the budget.
        spent: Shots that earlier rounds took.
        variances: What results are to have, shape (results,), infinite for those that the round is
            not for; None: as the precision says.
        may_pilot: Whether the round may be a further pilot.
        fewest: Shots of every circuit at least, where a precision rules.

    Raises:
        InputError: A circuit takes more shots than can be counted.
    """
    fragments = _groups_of(pilots, accuracy)
    if variances is None:
        variances = np.array(accuracy.precision**2 if accuracy.budget is None else 1.0)
    plan = _Plan(fragments, sensitivities, variances, equal=accuracy.allocation == "uniform")
    if accuracy.budget is not None:
        return ShotPlan(*plan.designs(plan.within(accuracy.budget - spent)))
    if accuracy.circuit_overhead:
        plan.leave_out(accuracy.circuit_overhead)
    left = None if accuracy.most is None else max(0, accuracy.most - spent)
    may_pilot = may_pilot and (left is None or _PILOT * left > spent)
    planned = plan.total
    if may_pilot and plan.draws and planned > _DRAWN_PILOT * spent:
        return ShotPlan([], [], np.inf, needs_pilot=True)
    shots = plan.meeting(accuracy.precision, fewest)
    if may_pilot and _total(shots) - planned > _DOUBTFUL * spent:
        return ShotPlan([], [], np.inf, needs_pilot=True)
    if left is not None and not plan.fits(shots, left):
        return ShotPlan(*plan.designs(plan.within(left)), is_short=True)
    most = max((float(own.max(initial=0.0)) for own in shots), default=0.0)
    check_countable(most, accuracy.precision)
    return ShotPlan(*plan.designs(shots))


def least_shots(bindings: int, precision: float) -> float:
    """Shots of a round at least: with fewer, standard errors say little, and rounds repeat."""
    return bindings * max(_LEAST_TOTAL, _LEAST_BY_ERROR / precision)


def environments(
    pilots: Sequence[Seen | None],
    sensitivities: Callable[[Values], tuple[int, list[Sensitivity]]],
    accuracy: Accuracy,
) -> list[FloatArray]:
    """What every fragment's tensor is multiplied with, and what is not known of it.

    As in `plan_shots`; shape (draws, entries, paulis, product of ranks) each.
    """
    rng = np.random.default_rng(SEED)
    _, found = sensitivities(_tensors(_groups_of(pilots, accuracy), _DRAWS, None, rng))
    return [_with_unknown(own.vectors) for own in found]


def _groups_of(pilots: Sequence[Seen | None], accuracy: Accuracy) -> list[list[SeenGroup]]:
    best = accuracy.allocation == "optimal"
    return [
        [SeenGroup(seen, number, best=best) for number in range(len(seen.counts))] if seen else []
        for seen in pilots
    ]


def _with_unknown(vectors: FloatArray) -> FloatArray:
    """Derivatives, and what is not known of them, which adds to their square."""
    unknown = (vectors[1:] - vectors[:1]) / np.sqrt(_DRAWS)
    return np.concatenate([vectors[:1], unknown])


def _tensors(
    fragments: Sequence[Sequence[SeenGroup]],
    draws: int,
    shots: Shots | None,
    rng: np.random.Generator,
) -> Values:
    """Draws of all fragments' tensors; None where nothing runs."""
    every = [group for own in fragments for group in own]
    each = iter([None] * len(every) if shots is None else shots)
    values: list[FloatArray | None] = []
    for groups in fragments:
        parts = [group.drawn(draws, next(each), rng) for group in groups]
        if not parts:
            values.append(None)
            continue
        rows, size = parts[0].shape[1], parts[0].shape[3]
        whole = np.empty((1 + draws, rows, sum(len(g.paulis) for g in groups), size))
        for group, part in zip(groups, parts, strict=True):
            whole[:, :, group.paulis] = part
        values.append(whole)
    return values


class _Plan:
    """How shots are divided between the groups of all fragments.

    Shots are arrays of shape (r, s), one for each group. Results are in units of the standard
    errors that they are to have, so that all variances are to be one.
    """

    def __init__(
        self,
        fragments: Sequence[Sequence[SeenGroup]],
        sensitivities: Callable[[Values], tuple[int, list[Sensitivity]]],
        variances: FloatArray,
        *,
        equal: bool,
    ) -> None:
        self._fragments, self._sensitivities, self._equal = fragments, sensitivities, equal
        self._groups = [group for own in fragments for group in own]
        self.draws = any(group.pooled for group in self._groups)
        self._rng = np.random.default_rng(SEED)
        self._count, found = sensitivities(_tensors(fragments, _DRAWS, None, self._rng))
        units = np.broadcast_to(np.sqrt(variances), self._count)
        self._pending = np.isfinite(units)
        largest = max((float(np.abs(own.vectors).max(initial=0.0)) for own in found), default=0.0)
        limited = np.clip(units, _FINE * largest, _COARSE * largest) if largest else units
        self._units = np.where(self._pending, limited, np.inf)
        self._parts: list[tuple[int, Entries]] = []
        """Entries, and the number of their group."""
        for number, (own, group) in enumerate(self._with_groups(found)):
            vectors = _with_unknown(own.vectors)
            self._parts += [(number, entries) for entries in group.entries(own, vectors)]
            group.needed[own.rows] = True
        self._shots: Shots = [np.ones((g.rows, g.layout.num_settings)) for g in self._groups]
        self._improve()

    def _improve(self) -> None:
        """The best weights for the shots and the best shots for the weights, in turns."""
        for _ in range(_STEPS if any(group.best for group in self._groups) else 1):
            self._spreads = [
                self._groups[number].spread(entries, self._shots[number])
                for number, entries in self._parts
            ]
            self._shots = self._divide(np.ones(self._count))

    def leave_out(self, circuit_overhead: float) -> None:
        """Do without circuits that cost more than they save, if the others determine all.

        Of those that get few shots, different numbers are tried.
        """
        every, found = self._shots, []
        for share in _SHARES_OUT:
            for group, own in zip(self._groups, every, strict=True):
                group.keep(own, own >= share * circuit_overhead)
            self._shots = [n * g.kept for g, n in zip(self._groups, every, strict=True)]
            self._improve()
            circuits = sum(int((g.kept & g.needed[:, None]).sum()) for g in self._groups)
            cost = _total(self.meeting()) + circuit_overhead * circuits
            state = [g.kept for g in self._groups], self._spreads, self._shots
            found.append((cost, state))
        kept, self._spreads, self._shots = min(found, key=lambda each: each[0])[1]
        for group, own in zip(self._groups, kept, strict=True):
            group.kept = own

    @property
    def total(self) -> float:
        """Shots that results take in all, as it seems."""
        return _total(self._shots)

    def within(self, budget: int) -> Shots:
        """All shots there are, so that the largest variance is least."""
        total, wanted = self.total, float(max(0, budget))
        for _ in range(_BALANCING):
            shots = [own * (wanted / total if total else 0.0) for own in self._shots]
            taken = sum(int(n.sum()) for n in self._whole(shots))
            if taken <= budget:
                break
            wanted *= 0.999 * budget / taken  # whole numbers came out larger
        else:
            shots = [np.full(own.shape, float(FEWEST_SHOTS)) for own in self._shots]
        return shots

    def _whole(self, shots: Shots) -> list[IntArray]:
        return [group.whole(own) for group, own in zip(self._groups, shots, strict=True)]

    def meeting(self, precision: float = np.inf, fewest: int = 0) -> Shots:
        """So many that a variance hardly ever comes out larger than it may be.

        What is not known of a variance falls faster than that where the noise of several fragments
        is multiplied, so that a large margin is approached in steps.
        """
        shots = self._shots
        planned = self._variances(shots)
        safety = float(scipy.special.ndtri(1 - _MISSED / max(1, int(self._pending.sum()))))
        margins = before = last = np.ones(self._count)
        for _ in range(_APPROACHES):
            found = self._variances(shots) + safety * np.sqrt(self._doubts(shots))
            excess = np.maximum(found, 1e-9)
            power = np.ones(self._count)
            moved = np.abs(np.log(margins / before)) > _MOVED
            power[moved] = np.log(last[moved] / excess[moved]) / np.log(margins / before)[moved]
            factor = excess ** (1 / np.clip(power, 1.0, 4.0))
            before, last = margins, excess
            margins = margins * np.minimum(factor, _LEAP)
            targets = np.where(planned > 0, planned / margins, 1.0)
            shots = self._divide(targets)
            if _total(shots) <= _LARGE * self.total or excess.max(initial=0.0) <= _CLOSE:
                break
        total, rows = _total(shots), max((g.needed.sum() for g in self._groups), default=0)
        least = least_shots(rows, precision)
        shots = [
            np.maximum(own * max(1.0, least / total if total else 0.0), fewest * group.kept)
            for own, group in zip(shots, self._groups, strict=True)
        ]
        return self._more_than_rounding(shots)

    def _more_than_rounding(self, shots: Shots) -> Shots:
        """As many more as keep variances from coming out larger where numbers are rounded."""
        planned, factor = self._variances(shots), 1.0
        counts = planned > 0
        for _ in range(_ROUNDED):
            scaled = [factor * own for own in shots]
            rounded = []
            for group, own in zip(self._groups, scaled, strict=True):
                whole = group.rounded(own)
                rounded.append(np.where(whole > 0, whole, own))
            excess = self._variances(rounded)[counts] / planned[counts]
            most = float(excess.max(initial=0.0))
            if most <= 1:
                break
            factor *= most
        return scaled

    def fits(self, shots: Shots, limit: int) -> bool:
        """Whether these are no more than a limit, as whole numbers."""
        return _total(shots) <= limit and sum(int(n.sum()) for n in self._whole(shots)) <= limit

    def designs(self, shots: Shots) -> tuple[list[Design | None], list[FloatArray], float]:
        """Designs and influences of all fragments, and the largest standard error."""
        whole = self._whole(shots)
        found = self._variances([np.maximum(own, 1.0) for own in whole])
        influences = [np.zeros(group.rows) for group in self._groups]
        for (number, entries), spread in zip(self._parts, self._spreads, strict=True):
            own = np.maximum(whole[number][entries.rows], 1.0)
            influences[number][entries.rows] += over(spread, own).sum(axis=1)
        place = 0
        designs: list[Design | None] = []
        tables: list[FloatArray] = []
        for groups in self._fragments:
            part = slice(place, place + len(groups))
            place = part.stop
            if not groups:
                designs.append(None)
                tables.append(np.zeros((0, 0)))
                continue
            weights = None
            if all(group.best for group in groups):
                weights = tuple(
                    g.weights(n.astype(np.float64))
                    for g, n in zip(groups, whole[part], strict=True)
                )
            designs.append(Design(np.stack(whole[part], axis=1), weights))
            tables.append(np.stack(influences[part], axis=1))
        largest = np.sqrt(found[self._pending]) * self._units[self._pending]
        return designs, tables, float(largest.max(initial=0.0))

    def _with_groups(self, found: Sequence[Sensitivity]) -> Iterator[tuple[Sensitivity, SeenGroup]]:
        """What depends on every fragment and is pending, once for each of its groups."""
        for own, groups in zip(found, self._fragments, strict=True):
            chosen = self._pending[own.results]
            results = own.results[chosen]
            vectors = own.vectors[:, chosen] / self._units[results, None, None]
            kept = Sensitivity(own.rows[chosen], results, vectors)
            for group in groups:
                yield kept, group

    def _variances(self, shots: Shots) -> FloatArray:
        """Variances of all results; 0 for those that are not pending."""
        total = np.zeros(self._count)
        for (number, entries), spread in zip(self._parts, self._spreads, strict=True):
            own = over(spread, shots[number][entries.rows])
            total += _by_result(own, entries, self._count)
        return np.where(self._pending, total, 0.0)

    def _doubts(self, shots: Shots) -> FloatArray:
        """Variances of what a round with these shots will find the results' variances to be.

        The tensors that derivatives are taken at are not known, and scatter in the round itself;
        and so do the variances of outcomes.
        """
        # Whole numbers are no smaller; with less, noise of many fragments multiplies beyond bounds.
        shots = [
            np.maximum(own, FEWEST_SHOTS * group.kept)
            for own, group in zip(shots, self._groups, strict=True)
        ]
        count, found = self._sensitivities(_tensors(self._fragments, _CHECKS, shots, self._rng))
        variances, scatter = np.zeros((1 + _CHECKS, count)), np.zeros(count)
        for (own, group), shot in zip(self._with_groups(found), shots, strict=True):
            for entries in group.entries(own, own.vectors):
                found_here = group.variances(entries, shot)
                for draw in range(1 + _CHECKS):
                    variances[draw] += _by_result(found_here[:, draw], entries, count)
                first = replace(entries, vectors=entries.vectors[:, :, :1])
                scatter += _by_result(group.spread_of_spread(first, shot), entries, count)
        return np.asarray(np.minimum(variances[1:], _MOST_VARIANCE).var(axis=0, ddof=1) + scatter)

    def _divide(self, targets: FloatArray) -> Shots:
        """The fewest shots at which results have these variances at most.

        Results have multipliers λ: shots at which the variances v, times these, have the least sum
        are √(Σ λ v), and a multiplier grows where its result's variance is too large.
        """
        if self._equal:
            shots: Shots = [1.0 * g.needed[:, None] * ~g.sure for g in self._groups]
            most = float((self._variances(shots) / targets).max(initial=0.0))
            return [own * most for own in shots]
        roots = np.zeros(self._count)
        for (_, entries), spread in zip(self._parts, self._spreads, strict=True):
            roots += _by_result(np.sqrt(spread).sum(axis=2), entries, self._count)
        multipliers = self._pending * roots**2 / targets**2
        for _ in range(_BALANCING):
            shots = [np.zeros((g.rows, g.layout.num_settings)) for g in self._groups]
            for (number, entries), spread in zip(self._parts, self._spreads, strict=True):
                weighted = multipliers[entries.results][:, None] @ spread
                shots[number][entries.rows] = np.sqrt(weighted[:, 0])
            if not _total(shots):  # nothing depends on anything
                return [1.0 * group.kept for group in self._groups]
            least = _LEAST_SHARE * _total(shots) / max(1, sum(own.size for own in shots))
            shots = [
                np.maximum(own, least) * group.kept
                for own, group in zip(shots, self._groups, strict=True)
            ]
            reached = self._variances(shots) / targets
            most, total = float(reached.max(initial=0.0)), _total(shots)
            # No division takes fewer shots than the dual problem's value.
            if total * most <= (1 + _BALANCED) * (2 * total - multipliers @ targets):
                break
            multipliers = multipliers * reached
        return [own * most for own in shots]


def _total(shots: Shots) -> float:
    return sum(float(own.sum()) for own in shots)


def _by_result(part: FloatArray, entries: Entries, count: int) -> FloatArray:
    """Sums over what entries have, (r, k) -> (results,)."""
    return np.asarray(np.bincount(entries.results.ravel(), part.ravel(), count), dtype=np.float64)
