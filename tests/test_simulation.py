"""The dispatcher on a virtual clock, and the times that no policy can beat."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from record_examples import STEP, TASK
from scipy import integrate, stats

from distributed_estimator.errors import InputError, RecordError
from distributed_estimator.execution.messages import SlowWorker
from distributed_estimator.execution.policies import (
    MOST_SECONDS,
    Batches,
    Deadline,
    LongestFirst,
    Policy,
    Retry,
    Speculation,
    TaskSpec,
)
from distributed_estimator.execution.stragglers import Constant, LogNormal, Pareto, Stragglers
from distributed_estimator.records import RecordWriter
from distributed_estimator.simulation import (
    Load,
    expected_work,
    lower_bound,
    parse_service,
    predicted,
    simulate,
)

LAWS = [
    (Pareto(0.1, 1.5), stats.pareto(1.5, scale=0.1)),
    (Pareto(1.0, 0.5), stats.pareto(0.5, scale=1.0)),
    (Pareto(0.5, 1.0), stats.pareto(1.0, scale=0.5)),
    (LogNormal(0.3, 0.5), stats.lognorm(0.5, scale=0.3)),
    (LogNormal(1.0, 2.5), stats.lognorm(2.5, scale=1.0)),
]


def specs(seconds, **fields):
    return [TaskSpec(f"t{n}", each, **fields) for n, each in enumerate(seconds)]


def work_of(seconds, stragglers, subexperiments=1):
    return float(expected_work([seconds], stragglers, subexperiments)[0])


# --- the least expected work


@pytest.mark.parametrize(
    ("p", "count"),
    [*((p, 1) for p in (0.0, 0.01, 0.9, 1.0)), (0.1, 5), (0.5, 3), (0.9, 8), (0.02, 300)],
)
@pytest.mark.parametrize("seconds", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_constant_delays_of_subexperiments(p, count, seconds, delay):
    chances = stats.binom.pmf(np.arange(count + 1), count, p)
    times = seconds + delay * np.arange(count + 1)
    costs = [
        float(chances @ np.minimum(times, cutoff)) / success
        for cutoff in times
        if (success := chances[times <= cutoff].sum())
    ]
    assert work_of(seconds, Stragglers(p, Constant(delay)), count) == pytest.approx(min(costs))


def limited_means(law, cutoffs):
    """E[min(delay, c)] at ascending cutoffs, piece by piece."""
    least = law.support()[0]
    edges = np.concatenate(([min(least, cutoffs[0])], cutoffs))
    pieces = [integrate.quad(law.sf, *ends)[0] for ends in itertools.pairwise(edges)]
    return edges[0] + np.cumsum(pieces)


@pytest.mark.parametrize(("delay", "law"), LAWS)
@pytest.mark.parametrize("p", [0.1, 1.0])
@pytest.mark.parametrize("seconds", [0.02, 3.0])
def test_continuous_delays_against_quadrature(delay, law, p, seconds):
    def costs(cutoffs):
        return (seconds + p * limited_means(law, cutoffs)) / (1 - p + p * law.cdf(cutoffs))

    cutoffs = law.ppf(
        np.concatenate((np.geomspace(1e-4, 0.5, 50), 1 - np.geomspace(0.4, 1e-5, 50)))
    )
    best = int(costs(cutoffs).argmin())
    near = np.geomspace(cutoffs[max(0, best - 1)], cutoffs[min(best + 1, len(cutoffs) - 1)], 50)
    never, at_once = seconds + p * delay.mean, seconds / (1 - p) if p < 1 else math.inf
    least = min(costs(near).min(), never, at_once)
    assert 0.99 * least < work_of(seconds, Stragglers(p, delay)) <= least * (1 + 1e-6)


@pytest.mark.parametrize("delay", [Pareto(0.1, 1.5), LogNormal(0.2, 1.0)])
@pytest.mark.parametrize(("p", "count"), [(0.2, 6), (0.02, 40), (0.5, 60)])
def test_sums_of_continuous_delays_against_another_sample(delay, p, count):
    rng, size, seconds = np.random.default_rng(5), 40_000, 0.5
    numbers = rng.binomial(count, p, size)
    draws = np.split(delay.draw(rng, int(numbers.sum())), np.cumsum(numbers)[:-1])
    sums = np.sort([draw.sum() for draw in draws])
    inside = np.searchsorted(sums, sums, side="right")
    limited = (np.cumsum(sums) + (size - np.arange(1, size + 1)) * sums) / size
    best = ((seconds + limited) / (inside / size))[size // 100 :].min()
    assert 0.95 * best < work_of(seconds, Stragglers(p, delay), count) < 1.01 * best


def restarted(seconds, stragglers, cutoff, repeats):
    """Seconds of work until success, beginning anew after every `cutoff` seconds."""
    spent = np.zeros(repeats)
    for n in range(repeats):
        for attempt in itertools.count():
            took = seconds + stragglers.seconds(f"{n}", attempt, 3)
            spent[n] += min(took, cutoff)
            if took <= cutoff:
                break
    return spent.mean(), spent.std() / math.sqrt(repeats)


@pytest.mark.parametrize("delay", [Constant(2.0), Pareto(0.3, 1.2), LogNormal(0.5, 1.5)])
def test_no_cutoff_takes_less_work_and_the_best_takes_no_more(delay):
    stragglers, seconds = Stragglers(0.2, delay), 1.0
    bound = work_of(seconds, stragglers, 3)
    cutoffs = seconds + np.array([0.0, 0.2, 0.35, 0.5, 0.8, 1.3, 2.0, 4.0, 8.0, 20.0])
    costs = [restarted(seconds, stragglers, cutoff, 1000) for cutoff in cutoffs]
    assert all(mean > bound - 5 * error for mean, error in costs)
    assert min(mean - 5 * error for mean, error in costs) < bound
    assert min(mean for mean, _ in costs) < 1.15 * bound


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_side_by_side_take_no_less_work(copies):
    stragglers = Stragglers(0.4, Pareto(1.0, 0.8))
    bound = work_of(1.0, stragglers)
    spent = np.array(
        [
            copies * min(1.0 + stragglers.seconds(f"{n}", a, 1) for a in range(copies))
            for n in range(4000)
        ]
    )
    assert spent.mean() > bound - 5 * spent.std() / math.sqrt(spent.size)


@pytest.mark.parametrize(
    "delay", [Pareto(1e-3, 0.01), Pareto(5e6, 2.0), Pareto(1.0, 1e6), LogNormal(1.0, 100.0)]
)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("p", [1e-6, 0.5, 1.0])
def test_extreme_delays_have_a_sound_bound(delay, count, p):
    bounds = expected_work([0.0, 1e-3, 1.0, 1e3], Stragglers(p, delay), count)
    assert np.isfinite(bounds).all()
    assert (np.diff(bounds) > 0).all()
    assert (bounds >= [0.0, 1e-3, 1.0, 1e3]).all()
    if p < 1:
        assert (bounds <= np.array([0.0, 1e-3, 1.0, 1e3]) / (1 - p) ** count).all()


@pytest.mark.parametrize("delay", [Pareto(0.1, 1.5), LogNormal(0.1, 1.0)])
def test_large_tasks_are_not_worth_restarting(delay):
    count, p = 20_000, 0.5
    bound = work_of(1.0, Stragglers(p, delay), count)
    assert 0.9 * (1 + p * count * delay.mean) < bound < 1 + p * count * delay.mean


def test_restarts_make_infinite_means_finite():
    assert work_of(1.0, Stragglers(0.5, Pareto(1.0, 0.5))) == pytest.approx(2.0)
    assert work_of(1.0, Stragglers(1.0, Pareto(1.0, 0.5))) < 10


# --- lower bounds on time


def test_the_bound_is_work_over_workers_or_the_longest_task():
    stragglers = Stragglers(0.5, Constant(10.0))
    assert lower_bound([1.0] * 8, 4, stragglers) == pytest.approx(4.0)
    assert lower_bound([1.0] * 8, 100, stragglers) == pytest.approx(1.0)
    assert lower_bound([1.0] * 8, 100, Stragglers(1.0, Constant(10.0)), 2) == pytest.approx(21.0)
    assert lower_bound([1.0, 5.0], 4) == 5.0
    assert lower_bound([], 4) == 0.0


def test_every_task_has_its_own_number_of_subexperiments():
    stragglers = Stragglers(0.1, Constant(0.5))
    services, counts = [1.0, 2.0, 3.0], [1, 4, 1]
    each = [lower_bound([s], 1, stragglers, c) for s, c in zip(services, counts, strict=True)]
    assert lower_bound(services, 1, stragglers, counts) == pytest.approx(sum(each))


def test_bounds_refuse_what_is_no_time():
    with pytest.raises(InputError, match="`services` has a negative or infinite entry"):
        lower_bound([1.0, -1.0], 2)
    with pytest.raises(InputError, match="`subexperiments` has 3 entries for 2 tasks"):
        lower_bound([1.0, 1.0], 2, Stragglers(0.1, Constant(1)), [1, 1, 1])


POLICIES = [
    Policy(),
    Policy(order=LongestFirst()),
    Policy(Batches(7, 0.2)),
    Policy(order=LongestFirst(), speculation=Speculation()),
    Policy(speculation=Speculation(factor=1.0, budget=5.0, restart=True)),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("delay", [Constant(3.0), Pareto(0.5, 1.1)], ids=["constant", "pareto"])
@pytest.mark.parametrize("workers", [1, 6])
def test_no_policy_beats_the_bound_in_expectation(policy, delay, workers):
    load = Load.drawn(parse_service("exponential:1"), 40, 3)
    runs = [
        simulate(
            load.tasks, load.services, policy, workers, stragglers=Stragglers(0.2, delay), seed=seed
        )
        for seed in range(16)
    ]
    times = np.array([run.makespan for run in runs])
    assert times.mean() > runs[0].lower_bound - 5 * times.std() / math.sqrt(times.size)
    assert not any(run.missing for run in runs)


# --- simulation against what can be calculated


def slow_at_first(slow, seconds=100.0):
    """Tasks take a second, but the first attempts at some of them so many."""
    return lambda task, attempt: seconds if task in slow and attempt == 0 else 1.0


def schedule(known, workers, policy=None, services=None, options=None, **expected):
    """What tasks are known to take and take, how they are run, and what that comes to."""
    return known, services or known, policy or Policy(), workers, options or {}, expected


LATE = Speculation(0.75, 1.5, budget=0.25)
ANEW = replace(LATE, restart=True)
RETRIED = Retry(backoff=0.25, timeout=5.0)
LONGEST = Policy(Batches(1, delay=MOST_SECONDS), retry=Retry(timeout=MOST_SECONDS))
DEAF = {"can_cancel": False}
SCHEDULES = {
    "nothing to do": schedule([], 3, makespan=0, utilisation=1, lower_bound=0),
    "whole rounds": schedule(
        *([0.5] * 10, 4),
        **{"makespan": 1.5, "utilisation": 10 / 12, "jobs": 10},
        **{"wasted": 0, "retries": 0, "speculated": 0, "missing": 0},
    ),
    "one round": schedule([0.5] * 3, 8, makespan=0.5, utilisation=3 / 8),
    "overhead and latency": schedule(
        *([1.0] * 6, 2),
        options={"overhead": 0.25, "latency": 0.5, "can_cancel": False},
        **{"makespan": 3 * 1.75, "useful": 6, "wasted": 0},
    ),
    "batches": schedule([0.5] * 10, 8, Policy(Batches(4, delay=2.0)), makespan=4.5),
    "jobs in flight": schedule([1.0] * 6, 6, Policy(in_flight=2), makespan=3),
    # Graham's: the optimum is 9, and (4/3 - 1/9) · 9 = 11.
    "longest first": schedule([3, 5, 4, 3, 4, 5, 3], 3, Policy(order=LongestFirst()), makespan=11),
    "a tail": schedule([1.0] * 95 + [2.0, 3.0, 4.0, 5.0, 6.0], 100, tail=5),
    # A late task is duplicated once a worker is idle.
    **{
        f"late, {options}": schedule(
            *([1.0] * 10, 10, Policy(speculation=LATE), slow_at_first({9}), options),
            **{"makespan": 2.5, "speculated": 1, "useful": 10, "wasted": 2.5, "lower_bound": None},
        )
        for options in ({}, DEAF)
    },
    # Begun at 3 and late at 4.5; where nothing can be cancelled, one worker does all the rest.
    **{
        f"restarted, {options}": schedule(
            *([1.0] * 12, 2, Policy(speculation=ANEW), slow_at_first({6}, 50.0), options),
            **{"makespan": makespan, "speculated": 1},
        )
        for options, makespan in (({}, 7), (DEAF, 9))
    },
    "a hung job": schedule(
        *([1.0] * 3, 3, Policy(retry=RETRIED), slow_at_first({1}, 1e9)),
        **{"makespan": 5 + 0.25 + 1, "retries": 1, "missing": 0},
    ),
    "a deadline": schedule(
        *([1.0] * 10, 2, Policy(deadline=Deadline(2.5))),
        **{"makespan": 2.5, "missing": 6, "useful": 4, "wasted": 1, "lower_bound": None},
    ),
    # Bounded, so that their sums are numbers.
    "the longest times": schedule(
        *([MOST_SECONDS / 2] * 20, 2, LONGEST),
        options={"overhead": MOST_SECONDS / 4},
        **{"makespan": (19 + 3 / 4) * MOST_SECONDS, "missing": 0},
    ),
    "a slow worker": schedule(
        *([1.0] * 3, 2),
        options={"stragglers": Stragglers(0.0, Constant(0.0), SlowWorker(0, 1.0))},
        **{"makespan": 2, "useful": 4},
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_can_be_calculated(name):
    known, services, policy, workers, options, expected = SCHEDULES[name]
    result = simulate(specs(known), services, policy, workers, **options)
    assert {field: getattr(result, field) for field in expected} == expected


def test_latencies_are_percentiles():
    services = [1.0] * 95 + [2.0, 3.0, 4.0, 5.0, 6.0]
    latency = simulate(specs(services), services, Policy(), 100).latency
    assert (latency.p50, latency.max) == (1.0, 6.0)
    assert math.isnan(simulate([], [], Policy(), 3).latency.p50)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=30),
    st.integers(1, 6),
    st.sampled_from([Policy(), Policy(order=LongestFirst())]),
)
def test_list_schedules_keep_grahams_bound(services, workers, policy):
    result = simulate(specs(services), services, policy, workers)
    total, longest = sum(services), max(services)
    assert result.makespan <= (total / workers + (1 - 1 / workers) * longest) * (1 + 1e-9)
    assert result.makespan >= result.lower_bound * (1 - 1e-9)
    assert result.useful == pytest.approx(total)


def test_a_budget_for_speculation_that_is_spent_ends_it():
    policy = Policy(speculation=Speculation(factor=1.0, budget=0.02, restart=True))
    load = Load.drawn(parse_service("lognormal:0.1,1"), 100, 2)
    stragglers = Stragglers(0.2, Pareto(0.5, 1.5))
    result = simulate(load.tasks, load.services, policy, 4, stragglers=stragglers, seed=1)
    assert (result.speculated, result.missing) == (2, 0)


def test_crashes_cost_time_but_no_result():
    tasks, policy = specs([1.0] * 200), Policy(retry=Retry(attempts=50, backoff=0.0))
    result = simulate(tasks, [1.0] * 200, policy, 8, crashes=0.2, seed=1)
    assert result.retries > 10
    assert result.missing == 0
    assert result.useful == 200.0
    assert result.wasted > 0
    assert result.makespan > 25.0
    hopeless = Policy(retry=Retry(attempts=1))
    assert simulate(tasks, [1.0] * 200, hopeless, 8, crashes=0.2, seed=1).missing > 0


def test_short_tasks_share_jobs():
    result = simulate(
        specs([0.01] * 400), [0.01] * 400, Policy(), 4, job_seconds=0.1, overhead=0.05
    )
    alone = simulate(specs([0.01] * 400), [0.01] * 400, Policy(), 4, overhead=0.05)
    assert result.jobs < 100
    assert result.makespan < alone.makespan / 2


def test_the_seed_decides():
    load = Load.drawn(parse_service("lognormal:0.1,1"), 100, 2)
    assert load == Load.drawn(parse_service("lognormal:0.1,1"), 100, 2)
    assert load != Load.drawn(parse_service("lognormal:0.1,1"), 100, 3)
    policy = Policy(speculation=Speculation(restart=True), retry=Retry(attempts=20))

    def run(seed):
        return simulate(
            load.tasks,
            load.services,
            policy,
            7,
            stragglers=Stragglers(0.1, Pareto(0.1, 1.5)),
            crashes=0.1,
            seed=seed,
        )

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 0}, "`workers` is 0: give a whole number of at least 1"),
        ({"workers": 1.5}, "`workers` is 1.5"),
        ({"services": [1.0]}, "`services` has 1 entries for 2 tasks"),
        ({"services": [1.0, math.nan]}, "`services` has the entry nan for task 1: give seconds"),
        ({"services": [1e308, 1.0]}, "`services` has the entry 1e+308 for task 0"),
        ({"overhead": -1.0}, "`overhead` is -1.0: give seconds of at least 0"),
        ({"latency": math.inf}, "`latency` is inf"),
        ({"crashes": 1.0}, "`crashes` is 1.0: give a probability"),
        ({"crashes": "x"}, "`crashes` is 'x': give a probability"),
        ({"overhead": "x"}, "`overhead` is 'x': give seconds"),
        ({"job_seconds": 1e308}, "`job_seconds` is 1e+308: give seconds of at least 0 and at most"),
    ],
)
def test_what_cannot_be_simulated_is_refused(fields, message):
    arguments = {"services": [1.0, 1.0], "policy": Policy(), "workers": 2} | fields
    with pytest.raises(InputError) as caught:
        simulate(specs([1.0, 1.0]), **arguments)
    assert message in str(caught.value)


@pytest.mark.soak
def test_ten_thousand_workers():
    load = Load.drawn(parse_service("exponential:0.05"), 200_000, 1)
    result = simulate(load.tasks, load.services, Policy(order=LongestFirst()), 10_000)
    assert result.lower_bound <= result.makespan <= 1.2 * result.lower_bound
    assert result.missing == 0


# --- service times


def record(key="a", *, fragment=0, started=1.0, seconds=2.0, **changes):
    fields = {"query_id": "q", "subexperiments": 1} | changes
    finished = (started or 0.0) + seconds
    return replace(TASK, key=key, fragment=fragment, started=started, finished=finished, **fields)


RECORDS = [
    record("a", seconds=2.0),
    record("b", seconds=9.0, status="failed"),
    record("b", seconds=7.0, injected_delay=3.0, attempt=1, purpose="retry"),
    record("c", fragment=1, seconds=0.5, subexperiments=4),
    record("c", fragment=1, seconds=0.9, status="late"),
    record("d", fragment=1, started=None, status="cancelled"),
]


def test_services_from_records_are_without_injected_delays():
    load = Load.measured(RECORDS)
    assert load.services == (2.0, 4.0, 0.5)
    assert load.tasks == (
        TaskSpec("a", 3.0, 0),
        TaskSpec("b", 3.0, 0),
        TaskSpec("c", 0.5, 1, subexperiments=4),
    )


def test_chunks_of_the_same_subexperiments_are_delayed_once():
    """As in a real run: the first chunk is, for all of them."""
    chunks = [record(f"c{n}", chunk=n, subexperiments=3, seconds=1.0 + n) for n in range(4)]
    stragglers = Stragglers(1.0, Constant(10.0))
    result = predicted(chunks, 1, Policy(), stragglers=stragglers)
    assert result.makespan == pytest.approx(1 + 2 + 3 + 4 + 3 * 10)
    assert result.lower_bound == pytest.approx(result.makespan)


def test_more_tasks_are_drawn_from_the_records():
    load = Load.measured(RECORDS).resampled(300, seed=4)
    assert load == Load.measured(RECORDS).resampled(300, seed=4)
    assert len({task.key for task in load.tasks}) == 300
    pairs = {(t.group, s) for t, s in zip(load.tasks, load.services, strict=True)}
    assert pairs == {(0, 2.0), (0, 4.0), (1, 0.5)}


def test_records_without_a_task_that_succeeded_are_refused():
    with pytest.raises(RecordError, match="no task record with the status `done`"):
        Load.measured([record(status="lost")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"subexperiments": -1},
            "`subexperiments` of task a (query q, attempt 0) is -1, expected",
        ),
        ({"subexperiments": 0}, "is 0, expected a number from 1 to 1000000"),
        ({"subexperiments": 10**12}, "is 1000000000000, expected a number from 1 to 1000000"),
        ({"subexperiments": 10**30}, "is 1000000"),
        (
            {"finished": math.nan},
            "`finished` of task a (query q, attempt 0) is nan, expected secon",
        ),
        ({"finished": 1e308, "started": -1e308}, "`started` of task a"),
        ({"injected_delay": math.nan}, "`injected_delay` of task a"),
        (
            {"injected_delay": -1e-3},
            "`injected_delay` of task a (query q, attempt 0) is -0.001",
        ),
    ],
)
def test_records_of_what_nobody_measured_are_refused(change, message):
    with pytest.raises(RecordError) as caught:
        Load.measured([replace(RECORDS[0], **change), *RECORDS[1:]])
    assert message in str(caught.value)
    # Of an attempt that counts for nothing, nothing is looked at.
    assert Load.measured([replace(RECORDS[1], **change), *RECORDS]) == Load.measured(RECORDS)


@pytest.mark.parametrize("delay", [Constant(0.5), Pareto(0.5, 1.5), LogNormal(0.5, 1.0)])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_a_task_that_no_delay_is_injected_into_takes_its_time(p, delay):
    work = expected_work([1.0, 2.0, 1.0], Stragglers(p, delay), [0, 0, 1])
    assert work.tolist()[:2] == [1.0, 2.0]
    assert work[2] > 1.0


def test_the_bound_of_a_task_with_very_many_subexperiments_takes_little_memory():
    """As drawn at once, the delays of all samples would take 2 GB."""
    drawn = []

    class Counted(Pareto):
        def draw(self, rng, count):
            drawn.append(count)
            return np.ones(count)

    assert work_of(1.0, Stragglers(0.2, Counted(1.0, 1.5)), 10**6) > 0.19 * 10**6
    assert sum(drawn) > 40 * 10**6
    assert max(drawn) < 6 * 10**6


def test_a_prediction_delays_what_the_real_run_delays():
    stragglers = Stragglers(0.5, Pareto(1.0, 2.0))
    delays = [stragglers.seconds(key, 0, n) for key, n in (("a", 1), ("b", 1), ("c", 4))]
    result = predicted(RECORDS, 3, Policy(), stragglers=stragglers)
    times = [s + d for s, d in zip((2.0, 4.0, 0.5), delays, strict=True)]
    assert result.makespan == pytest.approx(max(times))
    assert predicted(RECORDS, 1, Policy()).makespan == 6.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma:1", "`gamma:1` is no distribution of service times: give one of constant:SECONDS"),
        ("constant", "`constant` cannot be read: give constant:SECONDS"),
        ("pareto:1", "`pareto:1` cannot be read: give pareto:SCALE,SHAPE"),
        ("lognormal:1,x", "cannot be read: give lognormal:MEDIAN,SIGMA"),
        ("exponential:-1", "`mean` is -1.0: give a positive number"),
        ("constant:inf", "`seconds` is inf"),
        ("constant:1e308", "`seconds` is 1e+308: give seconds of at least 0 and at most 1e+09"),
        ("exponential:1e308", "`mean` is 1e+308"),
    ],
)
def test_distributions_that_cannot_be_read(text, message):
    with pytest.raises(InputError) as caught:
        parse_service(text)
    assert message in str(caught.value)


# --- dest simulate


def test_the_command_prints_a_row_for_each_number_of_workers(dest):
    code, out, _ = dest("simulate --service constant:1 --tasks 12 --workers 2,5 --json")
    document = json.loads(out)
    assert code == 0
    assert document["num_tasks"] == 12
    two, five = document["rows"]
    assert (two["workers"], two["time"], two["speed_up"], two["lower_bound"]) == (2, 6.0, 2.0, 6.0)
    assert (five["workers"], five["time"], five["speed_up"]) == (5, 3.0, 4.0)
    assert five["time_over_bound"] == pytest.approx(3 / 2.4)


def test_the_command_repeats_and_prints_a_table(dest):
    code, out, _ = dest(
        "simulate --service lognormal:0.1,1 --tasks 50 --workers 1,4 --repeats 3 --order longest "
        "--speculate --restart --straggler-p 0.1 --straggler-delay 0.5 "
        "--straggler-distribution pareto --straggler-shape 1.5 --overhead 0.01"
    )
    assert code == 0
    assert "mean of 3 runs" in out
    assert "stragglers p=0.1 pareto(scale=0.5, shape=1.5)" in out
    assert "±" in out


def test_the_command_knows_when_tasks_are_missing(dest):
    code, out, _ = dest("simulate --service constant:1 --tasks 9 --workers 2 --deadline 2.5 --json")
    row = json.loads(out)["rows"][0]
    assert code == 0
    assert (row["time"], row["missing"]) == (2.5, 5)
    assert row["speed_up"] is row["lower_bound"] is row["time_over_bound"] is None


@pytest.mark.parametrize("ending", ["--workers 1,2", "--workers 2 --attempts 1 --deadline 1e6"])
def test_the_command_says_why_tasks_that_run_for_hours_are_missing(dest, ending):
    code, out, err = dest(f"simulate --service constant:4000 --tasks 6 {ending} --json")
    assert code == 0
    assert [row["missing"] for row in json.loads(out)["rows"]][-1] == 6
    assert err.count("note: tasks are missing, since jobs took so long that they counted") == 1
    assert "`--timeout SECONDS`, more than the longest job takes" in err
    code, out, err = dest(f"simulate --service constant:4000 --tasks 6 {ending} --timeout 4001")
    assert (code, "note" in err, "missing" in out) == (0, False, False)


def test_the_command_says_nothing_of_tasks_that_the_deadline_ended(dest):
    code, _, err = dest("simulate --service constant:1 --tasks 9 --deadline 2.5")
    assert (code, "note" in err) == (0, False)


def test_the_command_simulates_recorded_tasks(dest):
    with RecordWriter("tasks.jsonl") as log:
        for each in RECORDS:
            log.write(each)
        log.write(record("a", query_id="other", seconds=1.0))
    code, out, err = dest("simulate --records tasks.jsonl --workers 1 --json")
    assert code == 0
    assert json.loads(out)["rows"][0]["time"] == 7.5
    assert "the tasks of 2 query records are simulated as one run" in err
    _, out, _ = dest("simulate --records tasks.jsonl --tasks 100 --workers 1 --json")
    assert json.loads(out)["num_tasks"] == 100


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("subexperiments", "-1", "`subexperiments` of task a (query q, attempt 0) is -1"),
        ("subexperiments", "1" + "0" * 12, "is 1000000000000, expected a number from 1 to"),
        ("finished", "null", "`finished` of task a (query q, attempt 0) is nan, expected seconds"),
        ("started", "-1e300", "`started` of task a (query q, attempt 0) is -1e+300"),
        ("started", "-1e999", "line 2 is unreadable: it is not JSON (-1e999 is no finite number)"),
        ("started", "9" * 400, "tasks.jsonl, line 2 is unreadable: its field `started` is 9999"),
        ("submitted", "9" * 400, "line 2 is unreadable: its field `submitted` is 9999"),
    ],
)
def test_the_command_refuses_damaged_records(dest, field, value, message):
    with RecordWriter("tasks.jsonl") as log:
        log.write(RECORDS[0])
    text = Path("tasks.jsonl").read_text("ascii")
    damaged = re.sub(rf'"{field}": [^,]+', f'"{field}": {value}', text)
    assert damaged != text
    Path("tasks.jsonl").write_text(damaged, "ascii")
    done = dest("simulate --records tasks.jsonl --straggler-p 0.2 --straggler-delay 0.1")
    assert message in refused(done)
    assert len(done.err) < 300


def test_the_command_refuses_files_without_tasks(dest):
    with RecordWriter("training.jsonl") as log:
        log.write(STEP)
    Path("empty.jsonl").touch()
    Path("text.jsonl").write_text("hello\n", "utf-8")
    for file, message in (
        ("training.jsonl", "`training.jsonl` has no task records"),
        ("empty.jsonl", "`empty.jsonl` has no task records"),
        ("text.jsonl", "text.jsonl, line 1 is unreadable"),
        ("none.jsonl", "cannot read `none.jsonl`"),
    ):
        assert message in refused(dest(f"simulate --records {file}"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--service gamma:1", "`gamma:1` is no distribution"),
        ("--workers 0", "give a list of whole numbers from 1 to 10000"),
        ("--workers 10001", "`--workers` is 10001: give a list"),
        ("--tasks 0", "`--tasks` is 0: give"),
        ("--repeats 0", "`--repeats` is 0: give"),
        ("--straggler-p 1.5 --straggler-delay 1", "`--straggler-p` is 1.5"),
        ("--straggler-p nan --straggler-delay 1", "`--straggler-p` is nan"),
        ("--straggler-p 0.5 --straggler-delay inf", "`--straggler-delay` is inf"),
        ("--policy batches --batch-size 0", "`--tasks-per-batch` is 0"),
        ("--policy batches --batch-size 2 --batch-delay -1", "`--batch-delay` is -1"),
        ("--policy batches --batch-size 1 --batch-delay 1e308", "`--batch-delay` is 1e308"),
        ("--order up", "'up' is not one of"),
        ("--policy lazy", "'lazy' is not one of"),
        ("--overhead nan", "`--overhead` is nan"),
        ("--overhead 1e308", "`--overhead` is 1e308"),
        ("--speculate --budget 1e308", "`--budget` is 1e308"),
        ("--timeout 1e308", "`--timeout` is 1e308"),
        ("--service constant:1e308 --timeout 9e8", "`seconds` is 1e+308"),
        ("--service lognormal:1,100", "`services` has the entry"),
        ("--subexperiments-per-task 2", "has no effect"),
        ("--seed -1", "`--seed` is -1"),
        ("--records x", "give `--records FILE` or `--service TEXT`"),
    ],
)
def test_the_command_refuses_bad_input(dest, options, message):
    assert message in refused(dest(f"simulate --service constant:1 {options}"))


def test_the_command_needs_times(dest):
    assert "give `--records FILE` or `--service TEXT`" in refused(dest("simulate"))
