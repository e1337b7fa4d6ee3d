"""Pools in processes that fork, that can start no more threads, or that run out of memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pool_works import job_of, wait_for_calls

from distributed_estimator.errors import PoolError
from distributed_estimator.execution.messages import Finished, Lost
from distributed_estimator.execution.pools import executors
from distributed_estimator.execution.pools.executors import ExecutorPool, ThreadPool
from distributed_estimator.execution.pools.processes import ProcessPool


def value_of(pool, inbox, work):
    """What an ordinary job gives: the pool is well."""
    job = job_of(work, ("value", 3.0))
    pool.submit(job, inbox)
    (end,) = inbox.until_over(job)
    assert isinstance(end, Finished), end
    return float(end.outcomes[0].arrays[0][0])


FORK = """
import os, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from pool_works import Calls, Inbox, job_of
from distributed_estimator.errors import PoolError
from distributed_estimator.execution.pools import DaskPool, ExecutorPool, ProcessPool, RayPool

folder = sys.argv[1]
pool, inbox, work = {pool}, Inbox(), Calls(folder)
busy, later = job_of(work, ("pid",), ("until", "go")), job_of(work, ("pid",))
pool.submit(busy, inbox)
inbox.until_started(busy)
child = os.fork()
if child == 0:
    try:
        pool.submit(job_of(work, ("pid",)), inbox)
    except PoolError as error:
        print(error, flush=True)
    pool.cancel(busy)
    pool.abandon(busy)
    pool.close()
    sys.exit()  # which runs what is to run at exit
os.waitpid(child, 0)
Path(folder, "go").touch()
pool.submit(later, inbox)
first, second = inbox.until_over(busy, later)
print(first.outcomes[0].arrays[0] == second.outcomes[0].arrays[0])
pool.close()
"""


@pytest.mark.parametrize(
    "pool",
    [
        "ProcessPool(1)",
        "ExecutorPool(ThreadPoolExecutor(1), 1)",
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("DaskPool(1)", "RayPool(1)")),
    ],
)
def test_a_fork_can_neither_use_nor_end_the_workers(tmp_path, pool):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK.format(pool=pool), str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=150.0,
        check=False,
    )

    refused, same = done.stdout.splitlines()
    assert "this is a fork of it: make a new estimator here" in refused
    assert same == "[ True]", "the worker, and what it was doing, came through"
    assert done.returncode == 0


@contextlib.contextmanager
def no_threads(beyond=0):
    """A process in which only so many threads more can be started."""
    started, start = [], threading.Thread.start

    def refuse(thread):
        if len(started) == beyond:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


NO_THREAD = "no thread can be started (can't start new thread): use fewer workers"


def executor_pool(workers):
    return ExecutorPool(ThreadPoolExecutor(workers), workers)


@pytest.mark.parametrize("make", [ThreadPool, executor_pool])
def test_a_job_that_no_thread_can_run_is_refused(inbox, work, make):
    with contextlib.closing(make(1)) as pool:
        job = job_of(work, ("value", 1.0))
        with no_threads():
            pool.submit(job, inbox)
            (refused,) = inbox.until_over(job)

        assert isinstance(refused, Lost)
        assert refused.kind == "refused"
        assert NO_THREAD in refused.cause
        assert value_of(pool, inbox, work) == 3.0


@pytest.mark.parametrize("make", [ThreadPool, executor_pool])
def test_a_job_waits_for_another_where_there_is_no_thread_for_both(inbox, work, tmp_path, make):
    first, second = job_of(work, ("until", "go")), job_of(work, ("value", 1.0))
    with contextlib.closing(make(2)) as pool:
        pool.submit(first, inbox)
        wait_for_calls(tmp_path, "until", 1)
        with no_threads():
            pool.submit(second, inbox)
        (tmp_path / "go").touch()

        assert all(isinstance(end, Finished) for end in inbox.until_over(first, second))


@pytest.mark.parametrize("beyond", [0, 1])
def test_processes_that_no_thread_can_look_after_are_not_started(inbox, work, beyond):
    with contextlib.closing(ProcessPool(2)) as pool:
        with no_threads(beyond), pytest.raises(PoolError) as caught:
            pool.submit(job_of(work, ("value", 1.0)), inbox)

        assert NO_THREAD in str(caught.value)
        assert inbox.messages.empty()
        assert value_of(pool, inbox, work) == 3.0


def test_one_process_does_where_there_is_no_thread_for_another(inbox, work, tmp_path):
    busy = [job_of(work, ("until", "go"), number=number) for number in range(2)]
    with contextlib.closing(ProcessPool(2)) as pool:
        with no_threads(beyond=2):
            assert value_of(pool, inbox, work) == 3.0
        for job in busy:
            pool.submit(job, inbox)

        assert len(set(wait_for_calls(tmp_path, "until", 2))) == 2, "now there is a thread for it"


def test_a_job_that_a_thread_cannot_report_on_is_lost_alone(inbox, work, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no memory left")

    with contextlib.closing(ThreadPool(1)) as pool:
        job = job_of(work, ("value", 1.0))
        with monkeypatch.context() as patch:
            patch.setattr(executors, "run_job", fail)
            pool.submit(job, inbox)
            (lost,) = inbox.until_over(job)

        assert (lost.kind, lost.cause) == ("lost", "thread 0 failed (MemoryError: no memory left)")
        assert value_of(pool, inbox, work) == 3.0
