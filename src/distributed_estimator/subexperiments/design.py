"""The design of a round: how many shots each setting gets, and the weights of their outcomes.

To first order a result is linear in the tensor of each fragment. The best linear unbiased estimate
of a tensor weighs the outcomes of its settings by their covariance and shots; its variance is a
convex function of the shots, which are divided so that the results meet a standard error with the
fewest of them. What outcomes scatter by is known from a pilot, which is thrown away: shots and
weights depend on it alone, so that estimates are unbiased whatever it said. docs/mathematics.md
derives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..cutting import BoolArray, FloatArray, IntArray
from .experiments import FragmentExperiment
from .shots import Accuracy, Allocation

_LARGEST_DENSE = 1 << 16
"""Numbers that a Pauli's weights at one binding may be for the best weights to be looked for."""
_FEWEST = 4
"""Shots of a circuit that runs: fewer say little of their own variance."""
_MARGIN = 1.15
_ROUNDS = 6
"""Rounds of weights for the shots, and shots for the weights; the optimum is flat."""
_BALANCING = 30
_BALANCED = 0.005
_EXTRA = 0.5
"""Shots that every outcome counts as having had in addition to those of the pilot."""
_SURE_VARIANCE = 1e-9
"""Of a circuit with a sure outcome, which does not run."""
_SPANNED = 1e-3
"""Least eigenvalue of the kept settings' outcomes; it is of the order of one where all are kept."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of results by the tensor of one fragment.

    Several entries of one result and row stand for what is not known of its derivative: variances
    are the sums over them.

    Attributes:
        rows: The row of the tensor, shape (entries,).
        results: The result, shape (entries,).
        vectors: The derivative, shape (entries, paulis, product of ranks).
    """

    rows: IntArray
    results: IntArray
    vectors: FloatArray


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
class Seen:
    """What earlier rounds saw of one fragment, and what depends on it.

    Attributes:
        experiment: The fragment's.
        counts: Per measurement group, as in `FragmentResult`.
        sensitivity: Of the results.
    """

    experiment: FragmentExperiment
    counts: Sequence[FloatArray]
    sensitivity: Sensitivity


class _Group:
    """The outcomes of one measurement group of a fragment, at all its rows.

    Axes: r rows, p Paulis, k entries of a row (filled up with zeros), c coordinates, j outcomes, s
    settings.
    """

    def __init__(self, seen: Seen, number: int, *, best: bool) -> None:
        experiment = seen.experiment
        self.layout, self.group = experiment.layout, experiment.groups[number]
        self.best = best
        self.sure = ~experiment.all_runs[number]
        rows = len(seen.counts[number])
        own = seen.sensitivity
        order = np.argsort(own.rows, kind="stable")
        starts = np.searchsorted(own.rows[order], np.arange(rows + 1))
        place = np.arange(len(order)) - starts[own.rows[order]]
        most = int(place.max(initial=0)) + 1
        self.results = np.zeros((rows, most), dtype=np.intp)
        self.results[own.rows[order], place] = own.results[order]
        vectors = own.vectors[:, list(self.group.paulis)]
        self.vectors = np.zeros((rows, len(self.group.paulis), most, vectors.shape[2]))
        self.vectors[own.rows[order], :, place] = vectors[order]
        self.means = self._smoothed(seen.counts[number])
        if not best:
            self._fixed = self.layout.pulled_back(self.vectors)

    def _smoothed(self, counts: FloatArray) -> FloatArray:
        """Means of products, with a part of a shot more at every outcome, half of either sign."""
        counts = counts.copy()
        counts[:, 0] += _EXTRA
        shots, of = self.layout.by_setting(counts[:, 0]), self.layout.setting_of
        means = counts / shots[:, None, of]
        means[:, 0, self.sure[of]] = 1.0
        return means

    def spread(self, shots: FloatArray) -> FloatArray:
        """Per shot, the variance that each setting contributes to each entry, shape (r, k, s)."""
        if not self.best:
            return self._cleared(self.layout.spread(self.means, self.group, self._fixed))
        weights = self._solved(self.vectors, shots) * shots[:, None, None, self.layout.setting_of]
        return self._cleared(self.layout.spread(self.means, self.group, weights))

    def _cleared(self, spread: FloatArray) -> FloatArray:
        spread[:, :, self.sure] = 0.0
        return spread

    def weights(self, shots: FloatArray) -> FloatArray:
        """The best weights at these shots, shape (r, p, c, j)."""
        size = self.vectors.shape[3]
        unit = np.broadcast_to(np.eye(size), (*self.vectors.shape[:2], size, size))
        counted = self._counted(shots)[:, None, None, self.layout.setting_of]
        weights = self._solved(unit, shots) * counted
        # A step of Newton's method, which leaves nothing but rounding of their bias.
        return np.asarray((2 * unit - weights @ self.layout.outcome_rows) @ weights)

    def spans(self, kept: BoolArray) -> BoolArray:
        """Whether some settings, shape (r, s), determine all coordinates of a row."""
        size = self.layout.size
        grams = (kept[:, self.layout.setting_of] @ self._squares).reshape(-1, size, size)
        return np.asarray(np.linalg.eigvalsh(grams)[:, 0] > _SPANNED)

    def _counted(self, shots: FloatArray) -> FloatArray:
        return np.where(self.sure, 1.0, shots)

    def _solved(self, vectors: FloatArray, shots: FloatArray) -> FloatArray:
        """Σ⁻¹ B M⁻¹ of vectors, (r, p, k, c) -> (r, p, k, j), where M = Σ n Bᵀ Σ⁻¹ B."""
        of = self.layout.setting_of
        counted = self._counted(shots)
        first = (counted[:, of] / self.means[:, 0]) @ self._squares
        size = vectors.shape[3]
        second = (self._leaning * (counted[:, None] / self._rest)[:, :, None]) @ (
            self._leaning.swapaxes(2, 3)
        )
        information = first.reshape(len(shots), 1, size, size) + second
        return np.asarray((vectors @ np.linalg.inv(information)) @ self._whitened)

    # Σ = diag(q) - m mᵀ of one setting has the inverse diag(1/q) + u uᵀ / (1 - m·u), u = m/q.

    @cached_property
    def _squares(self) -> FloatArray:
        """B_jc B_jd, shape (j, c·d)."""
        rows = self.layout.outcome_rows
        return np.asarray((rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1))

    @cached_property
    def _tilt(self) -> FloatArray:
        """u, shape (r, p, j)."""
        return np.asarray(self.means[:, self.group.singles] / self.means[:, :1])

    @cached_property
    def _rest(self) -> FloatArray:
        """1 - m·u, shape (r, p, s)."""
        rest = 1.0 - self.layout.by_setting(self._tilt * self.means[:, self.group.singles])
        return np.asarray(np.where(self.sure, _SURE_VARIANCE, np.maximum(rest, _SURE_VARIANCE)))

    @cached_property
    def _leaning(self) -> FloatArray:
        """Bᵀ u, shape (r, p, c, s)."""
        return self.layout.by_setting(self._tilt[:, :, None] * self.layout.outcome_rows.T)

    @cached_property
    def _whitened(self) -> FloatArray:
        """Bᵀ Σ⁻¹, shape (r, p, c, j)."""
        of = self.layout.setting_of
        leaning = (self._leaning / self._rest[:, :, None])[..., of]
        plain = self.layout.outcome_rows.T / self.means[:, :1, None]
        return np.asarray(plain + self._tilt[:, :, None] * leaning)


@dataclass(frozen=True, eq=False)
class ShotPlan:
    """The designs of a round.

    Attributes:
        designs: Per fragment; None where nothing runs.
        influences: Per fragment, what each row's measurement groups contribute to the variances of
            all results, shape (rows, groups).
        is_last: Whether the round is the last one even if it misses the precision.
    """

    designs: Sequence[Design | None]
    influences: Sequence[FloatArray]
    is_last: bool


def plan_shots(
    pilots: Sequence[Seen | None], count: int, accuracy: Accuracy, spent: int
) -> ShotPlan:
    """Divide shots between the circuits of all fragments.

    Args:
        pilots: What a pilot saw of each fragment; None where nothing runs.
        count: Number of results.
        accuracy: What the results are to meet, or the budget.
        spent: Shots that earlier rounds took.
    """
    fragments = [
        [
            _Group(seen, number, best=_is_dense(seen.experiment, accuracy.allocation))
            for number in range(len(seen.experiment.groups))
        ]
        for seen in pilots
        if seen is not None
    ]
    groups = [group for own in fragments for group in own]
    shots = [np.ones((len(g.results), g.layout.num_settings)) for g in groups]
    for _ in range(_ROUNDS if any(group.best for group in groups) else 1):
        spreads = [group.spread(own) for group, own in zip(groups, shots, strict=True)]
        shots = _divide(groups, spreads, count, equal=accuracy.allocation == "uniform")
    total = sum(float(own.sum()) for own in shots)
    wanted, is_last = total * _MARGIN / accuracy.precision**2, False
    if accuracy.budget is not None:
        wanted, is_last = max(0.0, accuracy.budget - spent), True
    elif accuracy.most is not None and accuracy.most - spent < wanted:
        wanted, is_last = max(0.0, accuracy.most - spent), True
    shots = [own * (wanted / total if total else 0.0) for own in shots]
    whole = [_whole(*each) for each in zip(groups, shots, strict=True)]
    influences = [
        (spread / np.maximum(own, 1)[:, None]).sum(axis=(1, 2))
        for spread, own in zip(spreads, whole, strict=True)
    ]
    designs: list[Design | None] = []
    tables: list[FloatArray] = []
    place = 0
    for seen in pilots:
        if seen is None:
            designs.append(None)
            tables.append(np.zeros((0, 0)))
            continue
        part = slice(place, place + len(seen.experiment.groups))
        place = part.stop
        weights = None
        if groups[part.start].best:
            both = zip(groups[part], whole[part], strict=True)
            weights = tuple(group.weights(own.astype(float)) for group, own in both)
        designs.append(Design(np.stack(whole[part], axis=1), weights))
        tables.append(np.stack(influences[part], axis=1))
    return ShotPlan(designs, tables, is_last)


def _is_dense(experiment: FragmentExperiment, allocation: Allocation) -> bool:
    """Whether the best weights are looked for."""
    layout = experiment.layout
    return allocation == "optimal" and layout.num_outcomes * layout.size <= _LARGEST_DENSE


def _divide(
    groups: Sequence[_Group], spreads: Sequence[FloatArray], count: int, *, equal: bool
) -> list[FloatArray]:
    """The fewest shots at which no result has a variance above one, shape (r, s) per group.

    Results have multipliers λ: the shots at which their weighted sum is least are √(Σ λ v), and a λ
    grows where its result's variance v is too large.
    """

    def variances(shots: Sequence[FloatArray]) -> FloatArray:
        total = np.zeros(count)
        for group, spread, own in zip(groups, spreads, shots, strict=True):
            each = (spread / np.maximum(own, 1e-300)[:, None]).sum(axis=2)
            total += np.bincount(group.results.ravel(), each.ravel(), count)
        return total

    if equal:
        shots = [np.tile(~group.sure * 1.0, (len(group.results), 1)) for group in groups]
        most = float(variances(shots).max(initial=0.0))
        return [own * most for own in shots]
    start = np.zeros(count)
    for group, spread in zip(groups, spreads, strict=True):
        each = np.sqrt(spread).sum(axis=2)
        start += np.bincount(group.results.ravel(), each.ravel(), count)
    multipliers = start**2
    for _ in range(_BALANCING):
        shots = [
            np.sqrt((multipliers[group.results][:, :, None] * spread).sum(axis=1))
            for group, spread in zip(groups, spreads, strict=True)
        ]
        found = variances(shots)
        most, total = float(found.max(initial=0.0)), sum(float(own.sum()) for own in shots)
        # The dual problem's value: no division takes fewer shots than this.
        if total * most <= (1 + _BALANCED) * (2 * total - multipliers.sum()):
            break
        multipliers = multipliers * found
    return [own * most for own in shots]


def _whole(group: _Group, shots: FloatArray) -> IntArray:
    """Whole numbers, few distinct ones; circuits that hardly count are left out if they can be."""
    runs = ~group.sure
    rounded = np.exp2(np.rint(8 * np.log2(np.maximum(shots, 1e-9))) / 8)
    rounded = np.maximum(np.rint(rounded), _FEWEST) * runs
    if group.best:
        kept = np.where(shots >= _FEWEST, rounded, 0.0)
        spans = group.spans((kept > 0) | group.sure)
        rounded = np.where(spans[:, None], kept, rounded)
    return np.asarray(rounded, dtype=np.intp)
