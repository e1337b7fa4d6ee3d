"""What pilots saw of a fragment's outcomes, and the weights and variances that follow.

Of every measurement group the outcomes of all settings have frequencies, from which a tensor is
fitted; for some shots of the settings there are the weights of outcomes that estimate it best, and
the variances of what depends on it. docs/mathematics.md derives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import scipy

from ..cutting import BoolArray, FloatArray, IntArray
from .drawn import DrawnExperiment
from .experiments import FragmentExperiment
from .mitigation import Readout
from .readout import Unfolding
from .shots import FEWEST_SHOTS, LARGEST_DENSE

_EXTRA = 0.5
"""Shots that every outcome counts as having had besides those of the pilot, half of either sign."""
_FITS = 3
"""Steps that find how large a pilot's coordinates are."""
_SURE_VARIANCE, _ROUNDING = 1e-6, 1e-6
"""Least variance of an outcome, such as that of a circuit that does not run; and of what is drawn,
in units of the mean, as no matrix has an inverse that is exact."""
_SPANNED = 0.05
"""Least eigenvalue of the outcomes of settings that are kept, in units of that of all."""
_LEAST_KEPT = 0.5
"""Part of a pilot's coordinates that counts as real where all may be noise: with none, circuits
would get no shots that turn out to need many."""
_HARDLY = 1e-300
"""Frequency of drawn outcomes that were not seen, by which numbers are divided."""
_UNEVEN = 1.01
"""Largest of the factors that tell apart outcomes which are equally good."""
SEED = 20
"""Of the draws that only choose a design: the same for all runs."""

Values: TypeAlias = Sequence[FloatArray | None]
"""Tensors of every fragment, shape (draws, rows, paulis, product of ranks); None: that of one that
does not run."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of results by the tensor of one fragment.

    Attributes:
        rows: The row of the tensor, shape (entries,).
        results: The result, shape (entries,). Entries that share both are different directions,
            whose variances add up in a design.
        vectors: The derivative at several tensors, shape (draws, entries, paulis, product of
            ranks).
    """

    rows: IntArray
    results: IntArray
    vectors: FloatArray


@dataclass(frozen=True, eq=False)
class Seen:
    """What earlier rounds saw of one fragment: counts by measurement group.

    Errors of readout that they are known to have enter the design; None: there are none.
    """

    experiment: FragmentExperiment
    counts: Sequence[FloatArray]
    readout: Readout | None = None


@dataclass(frozen=True, eq=False)
class Entries:
    """Rows of a fragment on which as many results depend.

    Attributes:
        rows: Which, shape (r,).
        results: Shape (r, k).
        vectors: Their derivatives at each draw d, shape (r, p, d, k, c).
    """

    rows: IntArray
    results: IntArray
    vectors: FloatArray

    def together(self, variances: FloatArray) -> FloatArray:
        """Variances that sum to those of sums over what a row adds to a result, shape (r, k).

        It comes from the same shots: as if all of it were proportional, which is the most.
        """
        count = int(self.results.max(initial=0)) + 1
        pairs = np.arange(len(self.rows))[:, None] * count + self.results
        distinct, place = np.unique(pairs, return_inverse=True)
        if len(distinct) == pairs.size:
            return variances
        deviations, place = np.sqrt(variances), place.reshape(pairs.shape)
        return deviations * np.bincount(place.ravel(), deviations.ravel())[place]


class SeenGroup:
    """The outcomes of one measurement group of a fragment, at all its rows.

    Axes: r rows, p Paulis, k results of a row, d draws of their derivatives, c coordinates, j
    outcomes, s settings. Of one setting the covariance Σ = diag(q) - m mᵀ of the signed outcomes
    has the inverse diag(1/q) + u uᵀ / (1 - m·u), u = m/q.
    """

    def __init__(self, seen: Seen, number: int, *, best: bool) -> None:
        experiment, counts = seen.experiment, seen.counts[number]
        self.layout, self.group = experiment.strata, experiment.groups[number]
        self.paulis = list(self.group.paulis)
        self._unfolding = None
        if seen.readout is not None:
            self._unfolding = Unfolding(experiment, number, seen.readout)
        self.pooled = isinstance(experiment, DrawnExperiment)
        small = len(counts) * experiment.num_weights <= LARGEST_DENSE
        self.dense = small and not self.pooled
        self.best = best and self.dense
        self.sure = np.zeros(1, dtype=bool) if self.pooled else ~experiment.all_runs[number]
        self.of = self.layout.setting_of
        self.rows = len(counts)
        self._inverted: tuple[FloatArray, FloatArray] | None = None
        self.needed = np.zeros(self.rows, dtype=bool)
        """Rows that are to run at all."""
        self.kept = np.broadcast_to(~self.sure, (self.rows, self.layout.num_settings))
        """Circuits that may run."""
        if self.pooled:
            self.means, self.seen = experiment.means(number, counts, slice(None))
            self.means[:, 0] = np.maximum(self.means[:, 0], _HARDLY)
            self.seen_means = self.means[:, self.group.singles]
        else:
            self.seen = self.layout.by_setting(counts[:, 0])
            shots = np.where(self.seen > 0, self.seen, 1.0)[:, None, self.of]
            shown = counts[:, self.group.singles] / shots
            self.seen_means = np.where(self.sure[self.of], 1.0, shown)
            counts = counts.copy()
            counts[:, 0] += _EXTRA
            self.means = counts / self.layout.by_setting(counts[:, 0])[:, None, self.of]
            self.means[:, 0, self.sure[self.of]] = 1.0
        self.signed = self.means[:, self.group.singles]

    # --- the tensor as the pilot saw it ---

    def drawn(self, count: int, shots: FloatArray | None, rng: np.random.Generator) -> FloatArray:
        """The tensor as it seems, then as it may be, or as a round with so many shots may show it.

        Returns:
            Shape (1 + count, r, p, c).
        """
        if not self.dense:
            return self._roughly_drawn(count, shots, rng)
        mean, covariance = self._fit
        if shots is not None:
            covariance = covariance + self._inverse(shots)
        size = self.layout.size
        rounding = _ROUNDING * np.trace(covariance, axis1=-2, axis2=-1)[..., None, None] / size
        covariance = covariance + rounding * np.eye(size)
        normal = rng.standard_normal((count, *mean.shape))
        deviations = (_root(covariance) @ normal[..., None])[..., 0]
        return np.concatenate([mean[None], mean + deviations])

    @cached_property
    def _fit(self) -> tuple[FloatArray, FloatArray]:
        """Mean (r, p, c) and covariance (r, p, c, c) of the tensor after what was seen of it.

        Before, its coordinates are normal, and how large they are is fitted, too.
        """
        size = self.layout.size
        seen = self._counted(self.seen)
        information = self._information(seen)
        pulled = self._whitened @ (seen[:, None, self.of] * self.seen_means)[..., None]
        precision = np.ones((*pulled.shape[:2], 1, 1))
        for _ in range(_FITS):
            covariance = np.asarray(np.linalg.inv(information + precision * np.eye(size)))
            mean = (covariance @ pulled)[..., 0]
            squares = (mean**2).sum(axis=-1) + np.trace(covariance, axis1=-2, axis2=-1)
            precision = ((size + 1) / (squares + 1 / size))[..., None, None]
        return mean, covariance

    def _roughly_drawn(
        self, count: int, shots: FloatArray | None, rng: np.random.Generator
    ) -> FloatArray:
        """The same with fixed weights, shrunk by what is noise in the square of all coordinates."""
        mean = self._fixed(self.seen_means)
        noise = self._noise(count, 1 / np.maximum(self.seen, 1.0), rng)
        # Of drawn settings only some directions matter, which are less noisy than all together.
        least = 1.0 if self.pooled else _LEAST_KEPT
        energies = ((noise**2).sum(axis=-1).mean(axis=0), (mean**2).sum(axis=-1))
        kept = np.clip(1 - energies[0] / np.maximum(energies[1], 1e-300), least, 1.0)[..., None]
        noise *= np.sqrt(kept)
        if shots is not None:
            noise += self._noise(count, 1 / np.maximum(shots, 1.0), rng)
        return np.concatenate([(kept * mean)[None], kept * mean + noise])

    def _noise(self, count: int, inverse: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Errors of a tensor with fixed weights, by one over the shots; (count, r, p, c)."""
        roots = np.sqrt(self.means[:, :1])
        normal = rng.standard_normal((count, *self.signed.shape))
        along = self.layout.by_setting(self.signed / roots * normal) / (1 + np.sqrt(self._rest))
        errors = roots * (normal - self.signed / roots * along[..., self.of])
        errors *= np.sqrt(np.where(self.sure, 0.0, inverse))[:, None, self.of]
        drawn = self._fixed(errors.reshape(-1, *self.signed.shape[1:]))
        return drawn.reshape(count, *self.signed.shape[:2], -1)

    def _fixed(self, means: FloatArray) -> FloatArray:
        """The tensor with the weights that the gates fix."""
        return self.layout.means(self._unfolding.unfold(means) if self._unfolding else means)

    # --- variances ---

    def entries(self, own: Sensitivity, vectors: FloatArray) -> list[Entries]:
        """Vectors of shape (d, entries, all paulis, c), by the rows that they belong to."""
        order = np.argsort(own.rows, kind="stable")
        rows, results = own.rows[order], own.results[order]
        chosen = vectors[:, order][:, :, self.paulis].transpose(1, 2, 0, 3)
        counts = np.bincount(rows, minlength=self.rows)
        found = []
        for count in np.unique(counts[counts > 0]).tolist():
            own_rows = np.flatnonzero(counts == count)
            places = np.searchsorted(rows, own_rows)[:, None] + np.arange(count)
            found.append(
                Entries(own_rows, results[places], chosen[places].transpose(0, 2, 3, 1, 4))
            )
        return found

    def spread(self, entries: Entries, shots: FloatArray) -> FloatArray:
        """What settings contribute to variances of all draws, times their shots, (r, k, s)."""
        rows, layout = entries.rows, self.layout
        if self._is_plain:
            # Of one setting xᵀ Bᵀ Σ⁻¹ B x, where the weights are n Σ⁻¹ B x.
            seen = self._solved(entries, shots) @ self._outcomes[0].T
            leaning = layout.by_setting(seen * self._tilt[rows][:, :, None])
            found = layout.by_setting((seen**2).sum(axis=1) / self.means[rows, :1])
            found += (leaning**2).sum(axis=1) / self._rest[rows]
            found *= self._counted(shots)[rows, None] ** 2
        else:
            found = layout.spread(self.means[rows], self.group, self.weights_of(entries, shots))
            found = found.reshape(len(rows), -1, entries.results.shape[1], found.shape[2])
            found = found.sum(axis=1)
        found[:, :, self.sure] = 0.0
        return found

    def variances(self, entries: Entries, shots: FloatArray) -> FloatArray:
        """Variances at each draw, shape (r, d, k)."""
        rows, draws = entries.rows, entries.vectors.shape[2]
        if self._is_plain:
            return np.asarray((self._solved(entries, shots) * entries.vectors[:, 0]).sum(axis=3))
        found = self.layout.spread(self.means[rows], self.group, self.weights_of(entries, shots))
        found[:, :, self.sure] = 0.0
        return over(found, shots[rows]).reshape(len(rows), draws, -1)

    @property
    def _is_plain(self) -> bool:
        """Whether weights are the best, of one Pauli."""
        return self.best and len(self.paulis) == 1

    def _solved(self, entries: Entries, shots: FloatArray) -> FloatArray:
        """Solutions x = M⁻¹ v, shape (r, d, k, c)."""
        vectors = entries.vectors[:, 0]
        flat = vectors.reshape(len(vectors), -1, self.layout.size)
        return np.asarray(flat @ self._inverse(shots)[entries.rows, 0]).reshape(vectors.shape)

    def spread_of_spread(self, entries: Entries, shots: FloatArray) -> FloatArray:
        """Variance of a round's and the pilot's estimates of variances, for one draw, (r, k)."""
        weights, rows = self.weights_of(entries, shots), entries.rows
        variances = self.layout.spread(self.means[rows], self.group, weights)
        first = (weights * self.signed[rows, :, None]).sum(axis=1)
        squares = np.abs(weights).sum(axis=1) ** 2
        plain = self.means[rows, :1]
        means = self.layout.by_setting(first)
        fourth = self.layout.by_setting(squares**2 * plain)
        fourth += -4 * means * self.layout.by_setting(squares * first)
        fourth += 6 * means**2 * self.layout.by_setting(squares * plain) - 3 * means**4
        kept = np.maximum(shots[rows], 1.0)[:, None]
        uncertain = np.maximum(fourth - variances**2, 0.0) / kept**2
        uncertain *= 1 / kept + 1 / (self.seen[rows, None] + 1)
        uncertain[:, :, self.sure] = 0.0
        return entries.together(np.asarray(uncertain.sum(axis=2)))

    def weights_of(self, entries: Entries, shots: FloatArray) -> FloatArray:
        """Weights of outcomes, times shots, that estimate products with vectors, (r, p, d·k, j)."""
        rows = entries.rows
        vectors = entries.vectors.reshape(*entries.vectors.shape[:2], -1, self.layout.size)
        if not self.best:
            weights = self.layout.pulled_back(vectors)
            return self._unfolding.unfold(weights) if self._unfolding else weights
        solved = (vectors @ self._inverse(shots)[rows]) @ self._whitened[rows]
        return np.asarray(solved * self._counted(shots)[rows][:, None, None, self.of])

    def weights(self, shots: FloatArray) -> FloatArray:
        """The best weights at these shots, shape (r, p, c, j)."""
        unit = np.eye(self.layout.size)
        weights = (self._inverse(shots) @ self._whitened) * (
            self._counted(shots)[:, None, None, self.of]
        )
        for _ in range(2):  # steps of Newton's method, which leave but rounding of their bias
            weights = (2 * unit - weights @ self._outcomes) @ weights
        return np.asarray(weights)

    def _counted(self, shots: FloatArray) -> FloatArray:
        return np.where(self.sure, 1.0, shots)

    def _inverse(self, shots: FloatArray) -> FloatArray:
        """M⁻¹ at these shots, which is often asked for several times in a row."""
        if self._inverted is None or self._inverted[0] is not shots:
            taken = np.where(self.needed[:, None], self._counted(shots), 1.0)
            found = np.linalg.inv(self._information(taken))
            self._inverted = shots, np.asarray(found)
        return self._inverted[1]

    def _information(self, shots: FloatArray) -> FloatArray:
        """M = Σ n Bᵀ Σ⁻¹ B, shape (r, p, c, c)."""
        plain = _weighted_squares(self._outcomes, shots[:, self.of] / self.means[:, 0])
        scaled = self._leaning * (shots[:, None] / self._rest)[:, :, None]
        return plain + scaled @ self._leaning.swapaxes(2, 3)

    @cached_property
    def _outcomes(self) -> FloatArray:
        """ΛB, which is seen for B, shape (p, j, c); or (1, j, c), if the same for all Paulis."""
        rows = self.layout.outcome_rows.T
        if self._unfolding is None:
            return rows.T[None]
        paulis, outcomes = self._unfolding.scale.shape
        table = np.broadcast_to(rows, (1, paulis, self.layout.size, outcomes))
        return np.ascontiguousarray(self._unfolding.fold(table)[0].swapaxes(1, 2))

    @cached_property
    def _tilt(self) -> FloatArray:
        """u, shape (r, p, j)."""
        return np.asarray(self.signed / self.means[:, :1])

    @cached_property
    def _rest(self) -> FloatArray:
        """1 - m·u, shape (r, p, s)."""
        rest = 1.0 - self.layout.by_setting(self._tilt * self.signed)
        return np.asarray(np.where(self.sure, _SURE_VARIANCE, np.maximum(rest, _SURE_VARIANCE)))

    @cached_property
    def _leaning(self) -> FloatArray:
        """Bᵀ u, shape (r, p, c, s)."""
        return self.layout.by_setting(self._tilt[:, :, None] * self._outcomes.swapaxes(1, 2))

    @cached_property
    def _whitened(self) -> FloatArray:
        """Bᵀ Σ⁻¹, shape (r, p, c, j)."""
        leaning = (self._leaning / self._rest[:, :, None])[..., self.of]
        plain = self._outcomes.swapaxes(1, 2) / self.means[:, :1, None]
        return np.asarray(plain + self._tilt[:, :, None] * leaning)

    # --- whole numbers ---

    def rounded(self, shots: FloatArray) -> FloatArray:
        """Whole numbers, few distinct ones; 0 for circuits that may be left out."""
        rounded = np.exp2(np.rint(8 * np.log2(np.maximum(shots, 1e-9))) / 8)
        rounded = np.maximum(np.rint(rounded), FEWEST_SHOTS)
        if self.best:
            rounded = np.where(shots * (1 + 1e-9) >= FEWEST_SHOTS, rounded, 0.0)
        return np.asarray(rounded)

    def whole(self, shots: FloatArray) -> IntArray:
        """Those, and as many of the circuits left out as determine all coordinates."""
        rounded = self.rounded(shots)
        if self.best:
            kept = self.spanning(shots, rounded > 0)
            rounded = np.where(kept, np.maximum(rounded, FEWEST_SHOTS), 0.0)
        return np.asarray(rounded * self.needed[:, None] * ~self.sure, dtype=np.intp)

    def keep(self, shots: FloatArray, wanted: BoolArray) -> None:
        """Leave out the circuits that are not wanted, except for those that have to be there."""
        if self.best:
            self.kept = self.spanning(shots, wanted) & ~self.sure

    def spanning(self, shots: FloatArray, wanted: BoolArray) -> BoolArray:
        """Some settings, and more of those with most shots until they determine all coordinates."""
        kept = wanted | self.sure
        least = _SPANNED * np.prod([np.linalg.norm(b.outcomes, -2) ** 2 for b in self.layout.bases])
        rows = self.layout.outcome_rows[None]
        grams = _weighted_squares(rows, kept[:, self.of].astype(np.float64))[:, 0]
        for row in np.flatnonzero(self.needed & (np.linalg.eigvalsh(grams)[:, 0] < least)):
            scales = self._uneven * np.sqrt(self._counted(shots[row]))[self.of, None]
            scaled = self.layout.outcome_rows * scales
            _, _, order = scipy.linalg.qr(scaled.T, mode="economic", pivoting=True)
            kept[row, self.of[order[: self.layout.size]]] = True
        return np.asarray(kept)

    @cached_property
    def _uneven(self) -> FloatArray:
        """Factors that are almost one, lest rounding decide between outcomes that are equally good.

        Rounding differs between processors. Shape (j, 1).
        """
        return np.random.default_rng(SEED).uniform(1.0, _UNEVEN, (self.layout.num_outcomes, 1))


def _weighted_squares(outcomes: FloatArray, weights: FloatArray) -> FloatArray:
    """Σ_j w_j B_jc B_jd, (p, j, c) and (r, j) -> (r, p, c, d)."""
    return np.asarray((outcomes.swapaxes(1, 2) * weights[:, None, None]) @ outcomes)


def _root(covariance: FloatArray) -> FloatArray:
    """Roots of covariances, which rounding may leave less than positive."""
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def over(spread: FloatArray, shots: FloatArray) -> FloatArray:
    """Variances at some shots, (r, k, s) and (r, s) -> (r, k)."""
    return np.asarray((spread @ (1 / np.maximum(shots, 1e-300))[:, :, None])[:, :, 0])
