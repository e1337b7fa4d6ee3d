"""What every pool does, whatever its workers are."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context

import numpy as np
import psutil
import pytest
from faults import is_gone, wait_until
from pool_works import SIGNALS, Calls, Counted, Inbox, Unsendable, job_of, wait_for_calls

from distributed_estimator.errors import (
    BackendError,
    CircuitError,
    InputError,
    PoolError,
    ThrottledError,
)
from distributed_estimator.execution import worker
from distributed_estimator.execution.messages import (
    Finished,
    Lost,
    SlowWorker,
    Started,
)
from distributed_estimator.execution.pools.clusters import DaskPool, RayPool
from distributed_estimator.execution.pools.driven import Driven, _Actor
from distributed_estimator.execution.pools.executors import ExecutorPool, ThreadPool
from distributed_estimator.execution.pools.processes import ProcessPool
from distributed_estimator.execution.worker import Works, cause_of, checksum

WORKERS = 2


@contextmanager
def executor_pool(executor):
    with executor:
        yield ExecutorPool(executor, WORKERS)


@contextmanager
def own(pool_class):
    pool = pool_class(WORKERS)
    try:
        yield pool
    finally:
        pool.close()


POOLS = {
    "threads": lambda: own(ThreadPool),
    "processes": lambda: own(ProcessPool),
    "executor-threads": lambda: executor_pool(ThreadPoolExecutor(WORKERS)),
    "executor-processes": lambda: executor_pool(
        ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    ),
    "dask": lambda: own(DaskPool),
    "ray": lambda: own(RayPool),
}
elsewhere = pytest.mark.parametrize(
    "pool_name",
    [name for name in POOLS if not name.endswith("threads")],
    indirect=True,
    scope="module",
)
"""For what is about workers in other processes."""
OURS = ("processes", "dask", "ray")
ours = pytest.mark.parametrize("pool_name", OURS, indirect=True, scope="module")
"""For what is about workers that the pool starts, and ends."""


@pytest.fixture(scope="module", params=POOLS)
def pool_name(request):
    return request.param


@pytest.fixture(scope="module")
def pool(pool_name):
    """A pool of two workers, shared by the tests of this module."""
    with POOLS[pool_name]() as made:
        yield made


def run(pool, inbox, *jobs):
    for job in jobs:
        pool.submit(job, inbox)
    return inbox.until_over(*jobs)


def values(end):
    assert isinstance(end, Finished), end
    assert [outcome.error for outcome in end.outcomes] == [None] * len(end.outcomes)
    return [float(outcome.arrays[0][0]) for outcome in end.outcomes]


def test_results_arrive_whole_and_in_order(pool, inbox, work):
    jobs = [job_of(work, *(("value", 10.0 * n + k) for k in range(3)), number=n) for n in range(5)]

    ends = run(pool, inbox, *jobs)

    for n, end in enumerate(ends):
        assert values(end) == [10.0 * n, 10.0 * n + 1, 10.0 * n + 2]
        assert [outcome.number for outcome in end.outcomes] == [0, 1, 2]
        for outcome in end.outcomes:
            x = outcome.arrays[0][0]
            np.testing.assert_array_equal(outcome.arrays[0], [x, x * x])
            np.testing.assert_array_equal(outcome.arrays[1], [[x]])
            if pool.in_process:
                assert outcome.checksum is None
            else:
                assert outcome.checksum == checksum(outcome.arrays)


def test_many_jobs_end_once_each_and_start_before(pool, inbox, work):
    jobs = [job_of(work, ("value", float(n)), number=n) for n in range(40)]

    ends = run(pool, inbox, *jobs)

    assert [values(end) for end in ends] == [[float(n)] for n in range(40)]
    seen = [*inbox.seen, *drained(inbox)]
    for job in jobs:
        kinds = [type(message) for message in seen if message.job is job]
        assert kinds in ([Started, Finished], [Finished])
    assert all(isinstance(message.worker, str) for message in seen)


def drained(inbox):
    return [inbox.messages.get() for _ in range(inbox.messages.qsize())]


def test_tasks_follow_one_another_after_their_delays(pool, inbox, work):
    slow = SlowWorker(worker=10_000, delay=5.0)
    tasks = ("sleep", 0.02), ("value", 1.0)

    (end,) = run(pool, inbox, job_of(work, *tasks, delay=0.05, slow=slow))

    first, second = end.outcomes
    assert first.injected == second.injected == pytest.approx(0.05)
    assert first.seconds >= 0.07
    assert 0.0 <= first.started <= first.started + first.seconds <= second.started


FAILURES = {
    ("raise", "no luck"): "ValueError: no luck",
    ("quit",): "SystemExit: quit",
    ("laden", "objects"): "gave an array of object as its result: expected a tuple",
    ("lambda",): "expected a tuple of numeric arrays",
    ("strange",): "StrangeError: ",
    ("harmful", "args"): "HarmfulError: (0, Harm())",
    ("harmful", "input"): "CircuitError: no such gate",
    ("harmful", "throttled"): "ThrottledError: come again",
    ("harmful", "silent"): "an error whose message cannot be read",
}
KINDS = {"input": CircuitError, "throttled": ThrottledError}


@pytest.mark.parametrize("task", FAILURES)
def test_a_task_fails_alone_with_an_error_in_plain_text(pool, inbox, work, task):
    (end,) = run(pool, inbox, job_of(work, task, *[("value", 2.0)] * (task[-1] != "input")))

    failed, *others = end.outcomes
    assert FAILURES[task] in cause_of(failed.error)
    assert failed.arrays is None
    if not pool.in_process:
        assert isinstance(failed.error, KINDS.get(task[-1], BackendError))
        assert getattr(failed.error, "retry_after", 7.0) == 7.0
        assert not hasattr(failed.error, "cause")
    assert [outcome.arrays[0][0] for outcome in others] == [2.0] * len(others)


@pytest.mark.parametrize("how", ["subclass", "names"])
def test_a_result_carries_nothing_but_numbers(pool, inbox, work, how):
    (end,) = run(pool, inbox, job_of(work, ("laden", how)))

    (array,) = end.outcomes[0].arrays
    assert type(array) is np.ndarray
    assert array.dtype.metadata is None
    assert array.tolist() == [1.0, 2.0]


@elsewhere
def test_what_cannot_be_sent_is_refused_before_anything_runs(pool, inbox, work, tmp_path):
    for job in (
        job_of(Unsendable(str(tmp_path)), ("value", 1.0)),
        job_of(work, ("value", threading.Lock())),
    ):
        with pytest.raises(InputError, match="cannot be sent to another process"):
            pool.submit(job, inbox)

    assert inbox.messages.empty()
    assert not list(tmp_path.glob("call.*"))


def test_several_threads_may_submit(pool, work):
    results = {}

    def use(n):
        inbox = Inbox()
        jobs = [job_of(work, ("value", 100.0 * n + k), number=k) for k in range(5)]
        results[n] = [values(end)[0] for end in run(pool, inbox, *jobs)]

    threads = [threading.Thread(target=use, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    assert results == {n: [100.0 * n + k for k in range(5)] for n in range(4)}


@elsewhere
def test_a_work_travels_to_each_worker_once(pool, inbox, tmp_path):
    work = Counted(str(tmp_path))
    same = Counted(str(tmp_path), work.key)

    for round_of in (work, same, work):
        run(pool, inbox, *(job_of(round_of, ("value", 1.0), number=n) for n in range(6)))

    processes = [path.name.split(".")[1] for path in tmp_path.glob("unpickled.*")]
    callers = {path.name.split(".")[2] for path in tmp_path.glob("call.*")}
    assert sorted(processes) == sorted(callers)


def test_the_slow_worker_is_slow_and_no_other(pool, inbox, work, tmp_path):
    slow = SlowWorker(worker=0, delay=0.1)
    jobs = [job_of(work, ("until", "go"), number=n, slow=slow) for n in range(WORKERS)]
    for job in jobs:
        pool.submit(job, inbox)

    wait_for_calls(tmp_path, "until", WORKERS)  # so each worker has one
    (tmp_path / "go").touch()
    ends = inbox.until_over(*jobs)

    assert len({end.worker for end in ends}) == WORKERS
    assert sorted(end.outcomes[0].injected for end in ends) == pytest.approx([0.0, 0.1])


def test_a_waiting_job_can_be_withdrawn(pool, inbox, work, tmp_path):
    busy = [job_of(work, ("until", "go"), number=n) for n in range(2 * WORKERS)]
    waiting = job_of(work, ("raise", "ran"), number=99)
    for job in [*busy, waiting]:
        pool.submit(job, inbox)

    pool.cancel(waiting)
    (tmp_path / "go").touch()
    *ends, last = inbox.until_over(*busy, waiting)

    assert isinstance(last, Lost)
    assert last.kind == "cancelled"
    assert not list(tmp_path.glob("call.raise.*"))
    assert all(values(end) == [0.0] for end in ends)


def test_cancelling_what_is_over_does_nothing(pool, inbox, work):
    job = job_of(work, ("value", 1.0))
    run(pool, inbox, job)

    pool.cancel(job)
    pool.abandon(job)

    assert values(run(pool, inbox, job_of(work, ("value", 2.0)))[0]) == [2.0]
    assert not [m for m in drained(inbox) if m.job is job and not isinstance(m, Started)]


def test_a_job_that_hangs_can_be_given_up(pool, inbox, work, tmp_path):
    hung = job_of(work, ("until", "go"))
    pool.submit(hung, inbox)
    inbox.until_started(hung)
    wait_for_calls(tmp_path, "until", 1)

    pool.abandon(hung)
    (lost,) = inbox.until_over(hung)
    following = [job_of(work, ("value", float(n)), number=n) for n in range(6)]
    ends = run(pool, inbox, *following)

    assert isinstance(lost, Lost)
    assert lost.kind == "lost"
    assert lost.cause
    assert [values(end) for end in ends] == [[float(n)] for n in range(6)]


# --- what workers meet ----------------------------------------------------------------------------


@elsewhere
def test_workers_use_one_thread_for_linear_algebra(pool, inbox, work):
    (end,) = run(pool, inbox, job_of(work, ("threads",)))
    assert values(end) == [1.0]


class Unreadable(Calls):
    """A work that can be sent, and not be read."""

    def __reduce__(self):
        return int, ("not a number",)


@elsewhere
def test_a_work_that_cannot_be_unpickled_there_fails_task_by_task(pool, inbox, work):
    (end,) = run(pool, inbox, job_of(Unreadable(), ("value", 1.0), ("value", 2.0)))

    assert [outcome.number for outcome in end.outcomes] == [0, 1]
    for outcome in end.outcomes:
        assert isinstance(outcome.error, BackendError)
        assert "cannot unpickle what it is to run (ValueError: invalid" in str(outcome.error)
    assert values(run(pool, inbox, job_of(work, ("value", 2.0)))[0]) == [2.0]


@elsewhere
def test_tasks_may_be_of_classes_of_the_callers_own_script(pool, inbox, work, monkeypatch):
    class Angle(float):
        pass

    Angle.__module__, Angle.__qualname__ = "__main__", "Angle"
    monkeypatch.setattr(sys.modules["__main__"], "Angle", Angle, raising=False)
    assert values(run(pool, inbox, job_of(work, ("value", Angle(3.0))))[0]) == [3.0]


class Forgotten(Counted):
    """Makes its worker forget all works."""

    def do_value(self, x):
        worker.works = Works()
        return super().do_value(x)


@elsewhere
def test_a_worker_that_has_forgotten_a_work_is_sent_it_again(pool, inbox, tmp_path):
    work = Forgotten(str(tmp_path))
    ends = run(pool, inbox, *(job_of(work, ("value", float(n)), number=n) for n in range(5)))

    assert [values(end) for end in ends] == [[float(n)] for n in range(5)]
    assert len(list(tmp_path.glob("unpickled.*"))) == 5


@elsewhere
def test_more_works_than_a_pool_keeps_are_sent_again(pool, inbox, tmp_path):
    works = [Calls(str(tmp_path)) for _ in range(12)]
    for work in [*works, *works]:
        assert values(run(pool, inbox, job_of(work, ("value", 2.0)))[0]) == [2.0]


@elsewhere
def test_large_jobs_and_large_results_pass_each_other(pool, inbox, work):
    """Far more than a pipe holds, and more than Dask warns of."""
    arrays = [np.full(1_000_000, float(n)) for n in range(4)]
    ends = run(pool, inbox, *(job_of(work, ("echo", a), ("echo", a + 0.5)) for a in arrays))

    for array, end in zip(arrays, ends, strict=True):
        np.testing.assert_array_equal(end.outcomes[0].arrays[0], array)
        np.testing.assert_array_equal(end.outcomes[1].arrays[0], array + 0.5)


# --- workers that die, hang, or are cancelled -----------------------------------------------------

DEATHS = [
    ("processes", ("signal", SIGNALS["segv"])),
    ("processes", ("exit", 7)),
    *((name, ("signal", SIGNALS["kill"])) for name in OURS),
    pytest.param("dask", ("exit", 3), marks=pytest.mark.soak),
    pytest.param("ray", ("signal", SIGNALS["segv"]), marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("pool_name", "task"), DEATHS, indirect=["pool_name"], scope="module")
def test_a_worker_that_dies_loses_its_own_job_alone_and_is_replaced(
    pool, inbox, work, tmp_path, task
):
    steady = job_of(work, ("until", "go"))
    deadly = job_of(work, ("value", 1.0), task)
    waiting = [job_of(work, ("value", float(n)), number=n) for n in range(4)]
    for job in (steady, deadly, *waiting):
        pool.submit(job, inbox)

    lost, *ends = inbox.until_over(deadly, *waiting, timeout=120.0)
    (tmp_path / "go").touch()
    (last,) = inbox.until_over(steady)

    assert (type(lost), lost.kind) == (Lost, "lost")
    assert "worker" in lost.cause
    assert [values(end) for end in [*ends, last]] == [[0.0], [1.0], [2.0], [3.0], [0.0]]
    assert {end.worker for end in side_by_side(pool, inbox, work)} == {"0", "1"}


def side_by_side(pool, inbox, work):
    """Jobs that each need another worker; their ends."""
    jobs = [job_of(work, ("value", 1.0), number=n, delay=3600.0) for n in range(WORKERS)]
    for job in jobs:
        pool.submit(job, inbox)
    for job in jobs:
        inbox.until_started(job, timeout=120.0)
    for job in jobs:
        pool.cancel(job)
    return inbox.until_over(*jobs, timeout=60.0)


@ours
def test_a_stopped_worker_and_an_idle_one_that_died_are_replaced(pool, inbox, work, tmp_path):
    both = [job_of(work, ("until", "go"), number=n) for n in range(WORKERS)]
    for job in both:
        pool.submit(job, inbox)
    pids = wait_for_calls(tmp_path, "until", WORKERS)
    (tmp_path / "go").touch()
    inbox.until_over(*both)
    stopped = job_of(work, ("signal", SIGNALS["stop"]))
    pool.submit(stopped, inbox)
    (pid,) = wait_for_calls(tmp_path, "signal", 1)
    process = psutil.Process(pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the worker stops")

    (idle,) = set(pids) - {pid}
    os.kill(idle, SIGNALS["kill"])
    pool.abandon(stopped)
    (lost,) = inbox.until_over(stopped)

    assert lost.kind == "lost"
    assert "did not come back in time" in lost.cause
    wait_until(lambda: is_gone(pid), "the worker ends")
    wait_until(lambda: is_gone(idle) and threads_of(idle) <= 1, "nothing holds its connections")
    if pool.name != "processes":  # there it is found out when the next job comes
        time.sleep(0.5)
    assert all(isinstance(end, Finished) for end in side_by_side(pool, inbox, work))


class Unmanned(Driven):
    """Its one worker has just taken the place of another, whose place a job was about to take."""

    engine = "Dask"

    def _start(self):
        self.sent = []
        self._actors[1] = _Actor(0)
        self._idle.add(0)

    def _send(self, *message):
        self.sent.append(message)

    def _launch(self):
        raise AssertionError

    def _explain(self, reason):
        return reason

    def _too_few(self, up):
        return str(up)


def test_a_job_waits_for_a_worker_that_is_not_up_yet(inbox, work):
    engine, job = Unmanned(1, None), job_of(work, ("value", 1.0))

    engine.submit(job, inbox)
    assert not engine.sent
    engine._welcome(1, {})

    assert [message[0] for message in engine.sent] == ["work", "run"]
    assert inbox.messages.get_nowait().job is job, "it has started"
    assert inbox.messages.empty()


def threads_of(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).num_threads()
    return 0


@pytest.mark.parametrize(
    "pool_name", [n for n in POOLS if n != "executor-processes"], indirect=True, scope="module"
)
def test_a_cancelled_job_wakes_from_its_injected_sleep(pool, inbox, work):
    jobs = [job_of(work, ("value", 1.0), ("value", 2.0), delay=3600.0) for _ in range(WORKERS + 1)]
    for job in jobs:
        pool.submit(job, inbox)
    for job in reversed(jobs):
        pool.cancel(job)
    waiting, *ends = reversed(inbox.until_over(*jobs, timeout=60.0))

    assert (waiting.kind, waiting.cause) == ("cancelled", "it was withdrawn before it began")
    assert all(isinstance(end, Lost) or end.outcomes == () for end in ends)
    assert values(run(pool, inbox, job_of(work, ("value", 2.0)))[0]) == [2.0]


@pytest.mark.parametrize(
    "pool_name",
    ["threads", "processes", *(pytest.param(n, marks=pytest.mark.soak) for n in ("dask", "ray"))],
    indirect=True,
    scope="module",
)
def test_jobs_end_once_each_whatever_happens_when(pool, inbox, work):
    chance, harm = random.Random(5), [("signal", 9), ("exit", 1)]
    tasks = [("value", 1.0), ("sleep", 0.05), ("raise", "no"), ("pid",)]
    tasks += harm if pool.name != "threads" else []
    jobs = [job_of(work, tasks[n % len(tasks)], number=n) for n in range(60)]
    for job in jobs:
        pool.submit(job, inbox)
    for job in chance.sample(jobs, 20):
        chance.choice([pool.cancel, pool.abandon])(job)
        time.sleep(chance.random() * 0.05)

    ends = inbox.until_over(*jobs, timeout=250.0)

    assert {type(end) for end in ends} == {Finished, Lost}
    assert len(side_by_side(pool, inbox, work)) == WORKERS


@pytest.mark.parametrize("pool_name", ["dask", "ray"], indirect=True, scope="module")
def test_all_that_listens_listens_on_loopback(pool, inbox, work):
    run(pool, inbox, job_of(work, ("value", 1.0)))
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) <= {"127.0.0.1", "::1"}


# --- the end --------------------------------------------------------------------------------------


def test_closing_ends_everything(pool, inbox, work, tmp_path):
    """The last of all that share the pool: an engine is not started for this alone."""
    jobs = [job_of(work, ("until", "go"), number=n) for n in range(WORKERS + 2)]
    for job in jobs:
        pool.submit(job, inbox)
    wait_for_calls(tmp_path, "until", 1)

    begin = time.monotonic()
    pool.close()
    seconds = time.monotonic() - begin
    ends = inbox.until_over(*jobs)
    pool.close()
    with pytest.raises(PoolError, match="closed"):
        pool.submit(job_of(work, ("value", 1.0)), inbox)

    assert all(isinstance(end, Lost) and end.kind == "cancelled" for end in ends)
    assert seconds < 15.0, "five seconds, and a busy machine"


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, 10**9, "two"])
@pytest.mark.parametrize("pool_class", [ThreadPool, ProcessPool])
def test_workers_must_be_a_number(pool_class, workers):
    with pytest.raises(InputError, match="`workers` is"):
        pool_class(workers)
