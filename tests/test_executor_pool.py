"""Executors that the caller brings: broken ones, closed ones, odd ones."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
from pool_works import Calls, job_of

from distributed_estimator.errors import InputError
from distributed_estimator.execution.messages import Finished
from distributed_estimator.execution.pools.executors import ExecutorPool


class ByHand(Executor):
    """Runs nothing; tests end its futures."""

    def __init__(self):
        self.jobs = []
        self.arrived = threading.Semaphore(0)

    def submit(self, function, /, *arguments):
        future = Future()
        self.jobs.append((future, lambda: function(*arguments)))
        self.arrived.release()
        return future

    def wait_for_job(self):
        assert self.arrived.acquire(timeout=30.0)
        return self.jobs[-1]


@pytest.fixture
def executor():
    return ByHand()


@pytest.fixture
def pool(executor):
    return ExecutorPool(executor, 1)


def test_only_executors_will_do():
    with pytest.raises(InputError, match="`executor` is 'threads': give a"):
        ExecutorPool("threads", 1)


def test_an_executor_that_was_shut_down_is_refused_with_a_remedy(inbox):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    pool = ExecutorPool(executor, 1)
    jobs = [job_of(Calls(), ("value", 1.0), number=n) for n in range(3)]
    for job in jobs:
        pool.submit(job, inbox)

    ends = inbox.until_over(*jobs)

    assert [end.kind for end in ends] == ["refused"] * 3
    assert "the ThreadPoolExecutor takes no jobs any more (RuntimeError: " in ends[0].cause
    assert ends[0].cause.endswith("make a new one, and a new estimator with it")


def test_an_executor_that_breaks_is_refused_with_a_remedy(inbox):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        pool = ExecutorPool(executor, 2)
        jobs = [job_of(Calls(), ("exit", 3)), *(job_of(Calls(), ("pid",)) for _ in range(4))]
        for job in jobs:
            pool.submit(job, inbox)

        ends = inbox.until_over(*jobs, timeout=60.0)

    assert [end.kind for end in ends] == ["refused"] * 5
    assert "BrokenProcessPool" in ends[0].cause
    assert "make a new one" in ends[0].cause


def test_no_more_jobs_than_workers_are_handed_on(inbox, executor, pool):
    jobs = [job_of(Calls(), ("value", float(n)), number=n) for n in range(3)]
    for job in jobs:
        pool.submit(job, inbox)

    for n in range(3):
        future, run = executor.wait_for_job()
        assert len(executor.jobs) == n + 1
        future.set_result(run())
    ends = inbox.until_over(*jobs)

    assert [end.outcomes[0].arrays[0][0] for end in ends] == [0.0, 1.0, 2.0]


class Unprintable:
    """Cannot be told of."""

    def __repr__(self):
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (lambda f: f.set_exception(OSError("no route")), "executor failed (OSError: no route)"),
        (lambda f: f.set_result(42), "worker 0 sent a report that is none: 42"),
        (lambda f: f.set_result(Unprintable()), "is none: unreadable (ValueError: no words)"),
        (lambda f: f.cancel(), "its executor cancelled it"),
    ],
)
def test_an_end_without_a_report_loses_its_job_alone(inbox, executor, pool, end, cause):
    job, later = (job_of(Calls(), ("value", 1.0), number=n) for n in range(2))
    pool.submit(job, inbox)
    pool.submit(later, inbox)
    end(executor.wait_for_job()[0])
    future, run = executor.wait_for_job()
    future.set_result(run())

    lost, finished = inbox.until_over(job, later)

    assert lost.kind == "lost"
    assert lost.cause.endswith(cause)
    assert isinstance(finished, Finished)


def test_a_job_that_the_executor_has_not_begun_can_be_cancelled(inbox, executor, pool):
    job = job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)
    future, _ = executor.wait_for_job()

    pool.cancel(job)
    (lost,) = inbox.until_over(job)

    assert future.cancelled()
    assert lost.kind == "cancelled"


def test_what_comes_after_a_job_was_given_up_is_dropped(inbox, executor, pool):
    hung, following = (job_of(Calls(), ("value", 1.0), number=n) for n in range(2))
    pool.submit(hung, inbox)
    pool.submit(following, inbox)
    late, run_late = executor.wait_for_job()
    late.set_running_or_notify_cancel()

    pool.abandon(hung)
    future, run = executor.wait_for_job()
    late.set_result(run_late())
    future.set_result(run())
    lost, end = inbox.until_over(hung, following)

    assert (lost.kind, lost.cause) == ("lost", "job 0 of the executor did not come back in time")
    assert isinstance(end, Finished)
    assert inbox.messages.empty()
