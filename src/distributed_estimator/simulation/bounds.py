"""Times that no policy can beat, however it orders, cancels and duplicates tasks.

**Model.** Task k takes t_k seconds in every attempt. Each attempt besides draws a delay D_k of its
own, whose distribution is known and whose value shows when the attempt is over. A policy may begin,
withdraw and duplicate attempts whenever it likes, on w workers, and does not know the future.

**Work.** Let E*_k be the infimum over cutoffs τ of E[min(t_k + D_k, τ)] / P(t_k + D_k ≤ τ), the
expected work of restarts after every τ seconds (Luby, Sinclair and Zuckerman, 1993).
No policy needs less expected work for task k. Until an attempt succeeds, nothing that happens
depends on its delay; so the age at which it would be given up is independent of the delay, and by
the definition of E*_k its expected work is at least E*_k times its probability of success. Summed
over all attempts, side by side or not: E[work on k] ≥ E*_k · E[successes of k] ≥ E*_k.

**Time.** w workers do at most w seconds of work a second, so E[makespan] ≥ Σ_k E*_k / w. And no
task is over sooner than its service time and the least delay that it can have.

**Numbers.** With F the distribution function of D, a cutoff at delay c costs (t + E[min(D, c)]) /
F(c): a straight line in t. E*(t) is the lower envelope of these lines. For constant delays the
lines are exact: D has as many values as there are subexperiments. For a continuous delay of one
subexperiment, cutoffs between two grid points c < c' are bounded by (t + E[min(D, c)]) / F(c'),
which errs to the safe side, by less than 1 %. For sums of several continuous delays, a seeded
sample stands in for the distribution and four standard errors are taken off, some per cent in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, exprel, log_ndtr, ndtri

from ..errors import InputError
from ..execution.stragglers import LONGEST, Constant, Delay, LogNormal, Pareto, Stragglers

Floats = NDArray[np.float64]

_RARE = 1e-12
"""Cutoffs that succeed less often are bounded by t / `_RARE` instead of looked at."""
_GRID = 3000
_FEWEST_SAMPLES = 250
_MOST_SAMPLES = 200_000
_MOST_DRAWS = 5e6
_STANDARD_ERRORS = 4.0


def lower_bound(
    services: Sequence[float] | Floats,
    workers: int,
    stragglers: Stragglers | None = None,
    subexperiments: Sequence[int] | int = 1,
) -> float:
    """Expected makespan in seconds that no policy can beat.

    Args:
        services: What each task takes without delays.
        workers: Attempts that run at a time.
        stragglers: The delays; a slow worker is left out of account.
        subexperiments: Of each task, or of all.

    Example:
        >>> stragglers = Stragglers(0.5, Constant(10.0))
        >>> round(lower_bound([1.0] * 8, 4, stragglers), 12)  # 8 · min(1 / 0.5, 1 + 0.5 · 10) / 4
        4.0
    """
    times = np.asarray(services, dtype=float)
    if not times.size:
        return 0.0
    work = float(expected_work(times, stragglers, subexperiments).sum())
    least = times + _least_delay(stragglers, np.asarray(subexperiments))
    return max(work / workers, float(least.max()))


def expected_work(
    services: Sequence[float] | Floats,
    stragglers: Stragglers | None,
    subexperiments: Sequence[int] | int = 1,
) -> Floats:
    """E*: the least expected worker-seconds that any policy needs for each task.

    Raises:
        InputError: A service time is negative or infinite, or the lengths do not agree.
    """
    times = np.asarray(services, dtype=float)
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise InputError("`services` has a negative or infinite entry: give seconds")
    counts = np.asarray(subexperiments)
    if counts.ndim and counts.shape != times.shape:
        raise InputError(
            f"`subexperiments` has {counts.size} entries for {times.size} tasks: give one for each"
        )
    if stragglers is None or stragglers.p == 0:
        return times.copy()
    counts = np.broadcast_to(counts, times.shape)
    work = times.copy()  # where no subexperiment can be delayed, that is all
    for count in np.unique(counts[counts > 0]):
        chosen = counts == count
        work[chosen] = _lines(stragglers, int(count)).lowest(times[chosen])
    return work


def _least_delay(stragglers: Stragglers | None, subexperiments: NDArray[np.int_]) -> Floats:
    """What a task is delayed at least: 0 unless every subexperiment is delayed."""
    if stragglers is None or stragglers.p < 1:
        return np.zeros(subexperiments.shape)
    delay = stragglers.delay
    if isinstance(delay, LogNormal):
        return np.zeros(subexperiments.shape)
    each = delay.seconds if isinstance(delay, Constant) else delay.scale
    return np.asarray(np.minimum(subexperiments * each, LONGEST), dtype=float)


@dataclass(frozen=True, eq=False)
class _Lines:
    """Lower bounds slope · t + intercept on what cutoffs cost, one for each range of cutoffs."""

    slopes: Floats
    intercepts: Floats

    def lowest(self, times: Floats) -> Floats:
        """The least of them at every t."""
        starts, kept = self._envelope()
        best = kept[np.searchsorted(starts, times, side="right") - 1]
        return self.slopes[best] * times + self.intercepts[best]

    def _envelope(self) -> tuple[Floats, NDArray[np.int_]]:
        """From which t ≥ 0 on which line is the lowest."""
        order = np.lexsort((self.intercepts, -self.slopes)).tolist()
        slopes, intercepts = self.slopes.tolist(), self.intercepts.tolist()
        kept: list[int] = []
        starts: list[float] = []
        for line in order:
            start = 0.0
            while kept:
                steeper = slopes[kept[-1]] - slopes[line]
                rise = intercepts[line] - intercepts[kept[-1]]
                start = max(0.0, rise / steeper) if steeper else math.inf * (rise or 1.0)
                if start > starts[-1]:
                    break
                kept.pop()
                starts.pop()
                start = 0.0
            if start < math.inf:
                kept.append(line)
                starts.append(start)
        return np.array(starts), np.array(kept)


def _lines(stragglers: Stragglers, count: int) -> _Lines:
    """The lines of a task of so many subexperiments."""
    p, delay = stragglers.p, stragglers.delay
    if isinstance(delay, LogNormal) and delay.sigma == 0:
        delay = Constant(delay.median)
    if isinstance(delay, Constant):
        return _constant(p, delay.seconds, count)
    return _single(p, delay) if count == 1 else _sampled(p, delay, count)


def _constant(p: float, seconds: float, count: int) -> _Lines:
    """Cutoffs at every number of delayed subexperiments."""
    numbers = np.arange(count + 1)
    below = bdtr(numbers, count, p)
    steps = np.diff(np.minimum(numbers * seconds, LONGEST), prepend=0.0)
    means = np.cumsum(steps * np.concatenate(([0.0], np.maximum(1.0 - below, 0.0)))[:-1])
    usual = below >= _RARE
    return _with_rare(1.0 / below[usual], means[usual] / below[usual])


def _with_rare(slopes: Floats, intercepts: Floats) -> _Lines:
    return _Lines(np.append(slopes, 1.0 / _RARE), np.append(intercepts, 0.0))


def _between(means: Floats, successes: Floats) -> _Lines:
    """Cutoffs between points: at least the mean of the one, at most the success of the next."""
    before, after = np.concatenate(([0.0], means)), np.concatenate((successes, [1.0]))
    usual = after >= _RARE
    return _with_rare(1.0 / after[usual], before[usual] / after[usual])


def _single(p: float, delay: Pareto | LogNormal) -> _Lines:
    """One delayed subexperiment, on a grid of quantiles that is finer where either tail is."""
    tail = np.geomspace(1e-9, 0.5, _GRID)
    below = np.concatenate((tail, 1.0 - tail[-2::-1]))
    survival = np.concatenate((1.0 - tail, tail[-2::-1]))
    if isinstance(delay, Pareto):
        means = _pareto_means(delay, survival)
    else:
        means = _lognormal_means(delay, np.where(below < 0.5, ndtri(below), -ndtri(survival)))
    return _between(p * means, (1.0 - p) + p * below[: len(means)])


def _pareto_means(delay: Pareto, survival: Floats) -> Floats:
    """E[min(delay, c)] at the delay's quantiles c up to `LONGEST`, given as P(delay > c)."""
    log_ratio = -np.log(survival) / delay.shape  # of c to the scale
    log_ratio = log_ratio[log_ratio <= math.log(LONGEST / delay.scale)]
    growth: Floats = log_ratio * exprel((1.0 - delay.shape) * log_ratio)
    return delay.scale * (1.0 + growth)


def _lognormal_means(delay: LogNormal, normal: Floats) -> Floats:
    """E[min(delay, c)] at the delay's quantiles c up to `LONGEST`, given as normal quantiles."""
    normal = normal[delay.sigma * normal <= math.log(LONGEST / delay.median)]
    short: Floats = np.exp(delay.sigma**2 / 2 + log_ndtr(normal - delay.sigma))
    cut: Floats = np.exp(delay.sigma * normal + log_ndtr(-normal))
    return delay.median * (short + cut)


def _sampled(p: float, delay: Pareto | LogNormal, count: int) -> _Lines:
    """Cutoffs at quantiles of a sample, bounded by its means and fractions less standard errors."""
    size = int(np.clip(_MOST_DRAWS / max(p * count, 1.0), _FEWEST_SAMPLES, _MOST_SAMPLES))
    delays = np.sort(_sums(np.random.default_rng(count), p, delay, count, size))
    cutoffs = np.concatenate(
        (
            np.linspace(0.0, delays[0], 32, endpoint=False),  # which no sample is below
            delays[np.unique(np.linspace(0, size - 1, _GRID).astype(int))],
        )
    )
    inside = np.searchsorted(delays, cutoffs, side="right")
    outside = size - inside
    sums = np.concatenate(([0.0], np.cumsum(delays)))[inside]
    squares = np.concatenate(([0.0], np.cumsum(np.square(delays))))[inside]
    means = (sums + outside * cutoffs) / size
    variances = (squares + outside * np.square(cutoffs)) / size - np.square(means)
    mean_errors = np.sqrt(np.maximum(variances, 0.0) / size) + cutoffs / size
    success = inside / size
    success_errors = np.sqrt(success * (1.0 - success) / size) + 1.0 / size
    likely = success + _STANDARD_ERRORS * success_errors
    return _between(
        np.maximum(means - _STANDARD_ERRORS * mean_errors, 0.0),
        np.minimum(likely, _most_success(p, delay, count, cutoffs)),
    )


def _most_success(p: float, delay: Pareto | LogNormal, count: int, cutoffs: Floats) -> Floats:
    """Chernoff's bound min_s e^{sc} E[e^{-sD}] on P(D ≤ c): tight where a sample has no points."""
    below = np.linspace(0.0, 1.0, _GRID, endpoint=False)
    rates = np.geomspace(1e-4, 1e4, 80)[:, np.newaxis]
    scale = delay.scale if isinstance(delay, Pareto) else delay.median
    with np.errstate(over="ignore", divide="ignore"):
        if isinstance(delay, Pareto):
            ratios = (1.0 - below) ** (-1.0 / delay.shape)
        else:
            ratios = np.exp(delay.sigma * ndtri(below))
        # The mean over left ends of equally likely intervals is no less than that of the delay.
        transforms = np.exp(-rates * ratios).mean(axis=1, keepdims=True)
        logs = rates / scale * cutoffs + count * np.log1p(-p * (1.0 - transforms))
    return np.asarray(np.exp(np.minimum(logs.min(axis=0), 0.0)))


def _sums(rng: np.random.Generator, p: float, delay: Delay, count: int, size: int) -> Floats:
    """A sample of what a task is delayed in all."""
    numbers = rng.binomial(count, p, size)
    at_a_time = math.ceil(_MOST_DRAWS / max(p * count, 1.0))
    totals = np.zeros(size)
    for start in range(0, size, at_a_time):
        part = numbers[start : start + at_a_time]
        drawn = delay.draw(rng, int(part.sum()))
        some = np.flatnonzero(part)
        if some.size:
            firsts = np.cumsum(part) - part
            totals[start + some] = np.add.reduceat(drawn, firsts[some])
    return np.minimum(totals, LONGEST)
