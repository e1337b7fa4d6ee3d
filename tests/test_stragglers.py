"""Injected stragglers: who is delayed, for how long, and that it can be repeated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from distributed_estimator.errors import InputError
from distributed_estimator.execution.messages import SlowWorker
from distributed_estimator.execution.stragglers import (
    LONGEST,
    Constant,
    LogNormal,
    Pareto,
    Stragglers,
)

DELAYS = [Constant(0.3), Pareto(0.2, 3.0), LogNormal(0.1, 0.5)]


# --- distributions


@pytest.mark.parametrize(
    ("delay", "law"),
    [
        (Pareto(0.2, 1.5), stats.pareto(1.5, scale=0.2)),
        (Pareto(2.0, 0.5), stats.pareto(0.5, scale=2.0)),
        (LogNormal(0.1, 0.7), stats.lognorm(0.7, scale=0.1)),
    ],
)
def test_delays_follow_their_distribution(delay, law):
    drawn = delay.draw(np.random.default_rng(1), 20_000)
    assert drawn.shape == (20_000,)
    assert stats.kstest(drawn, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("delay", DELAYS)
def test_the_mean_is_that_of_what_is_drawn(delay):
    drawn = delay.draw(np.random.default_rng(2), 200_000)
    error = drawn.std() / math.sqrt(drawn.size)
    assert abs(drawn.mean() - delay.mean) <= 5 * error + 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-0.1), "`seconds` is -0.1: give seconds of at least 0"),
        (lambda: Constant(math.nan), "`seconds` is nan"),
        (lambda: Constant(math.inf), "`seconds` is inf"),
        (lambda: Constant("1"), "`seconds` is '1'"),
        (lambda: Constant(1e300), "`seconds` is 1e+300: give seconds of at least 0 and at most"),
        (lambda: Pareto(1, 10**400), "`shape` is 1000"),
        (lambda: LogNormal(1e300, 1), "`median` is 1e+300"),
        (lambda: LogNormal(1, "x"), "`sigma` is 'x'"),
        (lambda: Pareto(0, 1.5), "`scale` is 0: give a positive number of seconds"),
        (lambda: Pareto(1, -1), "`shape` is -1: give a positive number"),
        (lambda: LogNormal(0, 1), "`median` is 0: give a positive number"),
        (lambda: LogNormal(1, 101), "`sigma` is 101: give a number of at least 0 and at most 100"),
        (lambda: LogNormal(1, -1), "`sigma` is -1: give a number of at least 0"),
        (lambda: Stragglers(1.01, Constant(1)), "`p` is 1.01: give a probability, from 0 to 1"),
        (lambda: Stragglers(-0.1, Constant(1)), "`p` is -0.1"),
        (lambda: Stragglers(math.nan, Constant(1)), "`p` is nan"),
        (lambda: Stragglers(True, Constant(1)), "`p` is True"),
        (lambda: Stragglers(0.1, 0.5), "`delay` is 0.5: give Constant"),
        (lambda: Stragglers(0.1, Constant(1), SlowWorker(-1, 1.0)), "`slow` is SlowWorker"),
        (lambda: Stragglers(0.1, Constant(1), SlowWorker(0, math.nan)), "`slow` is SlowWorker"),
        (lambda: Stragglers(0.1, Constant(1), SlowWorker("x", 1.0)), "`slow` is SlowWorker"),
        (lambda: Stragglers(0.1, Constant(1), SlowWorker(0, "x")), "`slow` is SlowWorker"),
        (
            lambda: Stragglers(0.1, Constant(1), "x"),
            "`slow` is 'x': give SlowWorker(worker, delay)",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError) as refused:
        make()
    assert message in str(refused.value)


# --- stragglers


@pytest.mark.parametrize("delay", DELAYS)
def test_an_attempt_is_delayed_the_same_every_time_and_another_one_anew(delay):
    stragglers = Stragglers(0.5, delay)
    first = [stragglers.seconds(f"task {n}", 0, 20) for n in range(50)]
    assert first == [Stragglers(0.5, delay).seconds(f"task {n}", 0, 20) for n in range(50)]
    assert first != [stragglers.seconds(f"task {n}", 1, 20) for n in range(50)]
    assert len(set(first)) > 5


def test_key_and_attempt_do_not_run_into_each_other():
    stragglers = Stragglers(1.0, Pareto(1.0, 2.0))
    assert stragglers.seconds("1", 11, 1) != stragglers.seconds("11", 1, 1)


@pytest.mark.parametrize("subexperiments", [1, 2, 7, 40])
def test_the_number_of_delays_is_binomial(subexperiments):
    p, repeats = 0.15, 4000
    stragglers = Stragglers(p, Constant(1.0))
    seconds = [stragglers.seconds(f"t{n}", 0, subexperiments) for n in range(repeats)]
    counts = np.bincount(np.asarray(seconds, dtype=int), minlength=subexperiments + 1)
    expected = repeats * stats.binom.pmf(np.arange(subexperiments + 1), subexperiments, p)
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    statistic = ((observed[keep] - wanted[keep]) ** 2 / wanted[keep]).sum()
    assert stats.chi2.sf(statistic, keep.sum() - 1) > 1e-4


@pytest.mark.parametrize("delay", DELAYS)
def test_delays_of_subexperiments_add_up(delay):
    p, subexperiments, repeats = 0.3, 12, 3000
    stragglers = Stragglers(p, delay)
    seconds = np.array([stragglers.seconds(f"t{n}", 3, subexperiments) for n in range(repeats)])
    error = seconds.std() / math.sqrt(repeats)
    assert abs(seconds.mean() - p * subexperiments * delay.mean) < 5 * error


def test_none_and_all():
    assert Stragglers(0.0, Constant(1.0)).seconds("t", 0, 10**6) == 0.0
    assert Stragglers(1.0, Constant(0.5)).seconds("t", 0, 8) == 4.0
    assert Stragglers(0.5, Constant(0.0)).seconds("t", 0, 8) == 0.0


@pytest.mark.parametrize("p", [5e-324, 1e-320, 1e-300])
def test_what_next_to_never_happens_does_not(p):
    stragglers = Stragglers(p, Constant(1.0))
    assert {stragglers.seconds(f"t{n}", 0, 10**6) for n in range(50)} == {0.0}


def test_delays_that_no_sum_can_hold_are_as_long_as_delays_get():
    class Huge(Pareto):
        def draw(self, rng, count):
            return np.full(count, 1e308)

    assert Stragglers(1.0, Huge(1.0, 0.1)).seconds("t", 0, 8) == LONGEST


@pytest.mark.parametrize(
    ("delay", "name"),
    [
        (Constant(0.1), "constant(seconds=0.1)"),
        (Pareto(0.1, 1.5), "pareto(scale=0.1, shape=1.5)"),
        (LogNormal(0.1, 2.0), "lognormal(median=0.1, sigma=2.0)"),
    ],
)
def test_names_for_records(delay, name):
    assert Stragglers(0.1, delay).name == name
