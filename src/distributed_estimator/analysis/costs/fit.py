"""Fits of sums of terms to times, and how far they are off where they were not fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from .data import CLOCK, Configuration
from .features import STAGE_TERMS, TERMS, Features

FloatArray = NDArray[np.float64]

_ROUNDS = 12
_BEND = 1.5
"""Errors beyond so many times the usual one count in proportion to themselves, not squared."""
_RIDGE = 1e-6
"""Weights are held small by this part of the design's size, so that terms which few configurations
tell apart have one solution, the same on every processor."""
_LEAST_SPREAD = 0.01  # so that records without noise do not make outliers of the last digit
_MOST_FOLDS = 50

StageWeights = dict[str, dict[str, float]]
"""By stage and name of the term, seconds for one of it."""


def fit_stages(configurations: Sequence[Configuration]) -> StageWeights:
    """Non-negative weights of each stage's terms; those of weight 0 are left out."""
    medians = np.array([each.median for each in configurations])
    features = [each.features for each in configurations]
    return {
        stage: _named(names, _fit(_design(names, features), medians[:, place]))
        for place, (stage, names) in enumerate(STAGE_TERMS.items())
    }


def stage_seconds(weights: StageWeights, features: Features) -> FloatArray:
    """What the stages take, then their total, in seconds."""
    stages = [
        max(CLOCK, sum(weight * TERMS[name](features) for name, weight in weights[stage].items()))
        for stage in STAGE_TERMS
    ]
    return np.array([*stages, math.fsum(stages)])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Configurations beside what a fit without them says.

    Attributes:
        configurations: Those held out.
        predicted: Seconds, shape (configurations, stages and their total).
    """

    configurations: tuple[Configuration, ...]
    predicted: FloatArray

    def errors(self) -> FloatArray:
        """|predicted / median - 1|, shape (configurations, stages and their total)."""
        medians = np.array([each.median for each in self.configurations])
        return np.asarray(np.abs(self.predicted / medians - 1))

    def factors(self, level: float) -> FloatArray:
        """What to multiply and divide predictions by, for an interval, per stage and total.

        The records of a configuration share one weight, and the configuration to come has as much
        as each: the quantile of |log(time / predicted)| so weighted is the conformal one for data
        in groups. It takes level / (1 - level) configurations.
        """
        logs = [
            np.abs(np.log(each.times / predicted))
            for each, predicted in zip(self.configurations, self.predicted, strict=True)
        ]
        shares = [np.full(len(each), 1 / len(each)) for each in logs]
        scores, share = np.concatenate(logs), np.concatenate(shares) / (1 + len(logs))
        columns = range(scores.shape[1])
        return np.exp([_quantile(scores[:, column], share, level) for column in columns])

    def inside(self, factors: FloatArray) -> FloatArray:
        """Share of configurations' records within such intervals, per stage and total."""
        hits = [
            (np.abs(np.log(each.times / predicted)) <= np.log(factors)).mean(axis=0)
            for each, predicted in zip(self.configurations, self.predicted, strict=True)
        ]
        return np.asarray(np.mean(hits, axis=0))


def leave_one_out(configurations: Sequence[Configuration]) -> HeldOut:
    """Every configuration beside a fit to the others; of more than 50, as many parts in turn."""
    count = len(configurations)
    folds = min(count, _MOST_FOLDS)
    predicted = np.empty((count, len(STAGE_TERMS) + 1))
    for fold in range(folds):
        weights = fit_stages([each for i, each in enumerate(configurations) if i % folds != fold])
        for i in range(fold, count, folds):
            predicted[i] = stage_seconds(weights, configurations[i].features)
    return HeldOut(tuple(configurations), predicted)


def _design(names: Sequence[str], features: Sequence[Features]) -> FloatArray:
    return np.array([[TERMS[name](each) for name in names] for each in features], dtype=float)


def _fit(design: FloatArray, seconds: FloatArray) -> FloatArray:
    """Weights whose sums are off by as little as can be, relatively, outliers bent.

    Errors are (sum - time) / √(sum · time), of the fit before: nearly log(sum / time), so that
    half and double are equally wrong.
    """
    sizes = np.maximum(design.max(axis=0), np.finfo(float).tiny)
    scaled, count = design / sizes, design.shape[1]
    scale, bent = seconds, np.ones(len(seconds))
    for _ in range(_ROUNDS):
        rows = np.sqrt(bent) / scale
        weighted = scaled * rows[:, None]
        ridge = _RIDGE * np.linalg.norm(weighted) * np.eye(count)
        weights, _ = nnls(
            np.vstack([weighted, ridge]),
            np.concatenate([seconds * rows, np.zeros(count)]),
            maxiter=100 * count,
        )
        sums = np.maximum(scaled @ weights, CLOCK)
        errors = np.abs(np.log(sums / seconds))
        usual = max(_LEAST_SPREAD, 1.4826 * float(np.median(errors)))
        bent = np.minimum(1.0, _BEND * usual / np.maximum(errors, usual * 1e-3))
        scale = np.sqrt(sums * seconds)
    return np.asarray(weights / sizes)


def _named(names: Sequence[str], weights: FloatArray) -> dict[str, float]:
    return {name: float(weight) for name, weight in zip(names, weights, strict=True) if weight > 0}


def _quantile(scores: FloatArray, share: FloatArray, level: float) -> float:
    order = np.argsort(scores)
    # A hair less, as sums of shares are not exact.
    place = np.searchsorted(np.cumsum(share[order]), level - 1e-9)
    return float(scores[order[min(int(place), len(order) - 1)]])
