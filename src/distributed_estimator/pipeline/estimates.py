"""Results of rounds, how those of several make one, and how noise factors are extrapolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..cutting import FloatArray
from ..subexperiments import ShotsTaken, Zne, extrapolated

Moves = dict[tuple[str, int], FloatArray]
"""By device and physical qubit, how far results move with a standard error of its readout."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Results of a round, as an `Evaluation` has them, and the shots that they are made of.

    Of the standard errors, `first_order` are to first order only. They and the covariances are
    those of shots; what the calibration of readout leaves open is `moves`, in their shape.
    """

    values: FloatArray
    stderrs: FloatArray
    shots: ShotsTaken
    first_order: int = 0
    gradients: FloatArray | None = None
    covariance: FloatArray | None = None
    moves: Moves = field(default_factory=dict)

    def with_round(self, other: Estimate, kept: FloatArray) -> Estimate:
        """With another round's results, these weighted by what is kept, the others by the rest.

        Results are numbered as standard errors are.
        """
        kept = kept.reshape(self.stderrs.shape)
        return _sum([(kept, self), (1 - kept, other)])

    @property
    def readout_stderrs(self) -> FloatArray:
        """What the calibration of readout adds to standard errors, in their shape."""
        squares = (move**2 for move in self.moves.values())
        return np.sqrt(sum(squares, np.zeros_like(self.stderrs)))

    @property
    def whole_stderrs(self) -> FloatArray:
        """Standard errors with what the calibration of readout leaves open."""
        if not self.moves:
            return self.stderrs
        return np.hypot(self.stderrs, self.readout_stderrs)

    @property
    def whole_covariance(self) -> FloatArray | None:
        """The same of covariances."""
        if self.covariance is None or not self.moves:
            return self.covariance
        moves = np.stack([move.ravel() for move in self.moves.values()])
        return self.covariance + moves.T @ moves


def without_noise(
    zne: Zne, estimates: Sequence[Estimate], weights: FloatArray | None
) -> tuple[Estimate, FloatArray]:
    """The extrapolation of estimates at all noise factors, and its derivatives by these.

    Args:
        zne: How.
        estimates: One for each factor.
        weights: Of queries, where standard errors are those of the derivatives of their sum.
    """
    results = [own.values if own.gradients is None else own.gradients for own in estimates]
    asked = np.stack(results)
    if weights is not None:
        asked = np.einsum("q,lqp->lp", weights, asked)
    stderrs = np.stack([own.stderrs for own in estimates])
    found, slopes = extrapolated(zne.factors, zne.extrapolator, asked, stderrs)
    summed = _sum(list(zip(slopes, estimates, strict=True)))
    taken = [own.shots for own in estimates]
    shots = ShotsTaken(min(own.fewest for own in taken), max(own.most for own in taken))
    summed = replace(summed, shots=shots)
    if estimates[0].gradients is None:
        return replace(summed, values=found), slopes
    values = np.stack([own.values for own in estimates])
    found_values, _ = extrapolated(zne.factors, zne.extrapolator, values, np.zeros_like(values))
    gradients = found if weights is None else summed.gradients
    return replace(summed, values=found_values, gradients=gradients), slopes


def _sum(parts: Sequence[tuple[FloatArray, Estimate]]) -> Estimate:
    """The sum of independent estimates, each times weights in the shape of its errors."""
    weights, estimates = zip(*parts, strict=True)
    first, last = estimates[0], estimates[-1]
    if last.gradients is None:
        values, gradients = _weighted_sum(weights, [own.values for own in estimates]), None
    else:
        values = first.values
        gradients = _weighted_sum(weights, [own.gradients for own in estimates])
    covariance = None
    if last.covariance is not None:
        both = [np.outer(own, own) for own in weights]
        covariance = _weighted_sum(both, [own.covariance for own in estimates])
    variances = _weighted_sum([w**2 for w in weights], [own.stderrs**2 for own in estimates])
    qubits = dict.fromkeys(qubit for own in estimates for qubit in own.moves)
    none = np.zeros_like(last.stderrs)
    moves = {
        qubit: _weighted_sum(weights, [own.moves.get(qubit, none) for own in estimates])
        for qubit in qubits
    }
    return Estimate(
        values,
        np.sqrt(variances),
        last.shots,
        max(own.first_order for own in estimates),
        gradients,
        covariance,
        moves,
    )


def _weighted_sum(weights: Sequence[FloatArray], numbers: Sequence[FloatArray]) -> FloatArray:
    """Numbers times weights; those without weight may be no numbers."""
    parts = zip(weights, numbers, strict=True)
    return np.asarray(sum(np.where(weight, weight * own, 0.0) for weight, own in parts))
