"""Actors of a real Ray: what they compute, how they die, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pytest
from pool_works import SIGNALS, Calls, Inbox, job_of, wait_for_calls

from distributed_estimator.errors import BackendError, InputError, MissingExtraError, PoolError
from distributed_estimator.execution import worker
from distributed_estimator.execution.messages import Finished, Lost
from distributed_estimator.execution.pools import ray as ray_pool
from distributed_estimator.execution.pools import ray_link, transfer
from distributed_estimator.execution.pools.ray import RayPool
from distributed_estimator.execution.worker import Works, checksum

START = 150.0
"""Seconds that a Ray may take to come up on a busy machine."""


@pytest.fixture(scope="module")
def pool():
    with contextlib.closing(RayPool(2)) as pool:
        yield pool


@pytest.fixture
def inbox():
    return Inbox()


def run(pool, inbox, *jobs, timeout=START):
    for job in jobs:
        pool.submit(job, inbox)
    return inbox.until_over(*jobs, timeout=timeout)


def wait_until(condition, what, timeout=60.0):
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, f"in vain: {what}"
        time.sleep(0.05)


def descendants():
    return psutil.Process().children(recursive=True)


def actors():
    found = set()
    for process in descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "ray::RayWorker":
                found.add(process.pid)
    return found


def arrive(kind, folder, key):
    (Path(folder) / f"arrived.{os.getpid()}.{uuid4().hex}").touch()
    return kind(folder, key)


@dataclass(frozen=True)
class Noted:
    """A work that notes where and how often it is unpickled."""

    folder: str
    key: str = field(default_factory=lambda: uuid4().hex)

    def __reduce__(self):
        return arrive, (type(self), self.folder, self.key)

    def run(self, task):
        return (np.array([float(task)]),)


# With a real Ray.


def test_orders_give_values_with_checksums(pool, inbox):
    work = Calls()
    jobs = [job_of(work, ("value", float(n)), ("value", -1.0), number=n) for n in range(9)]
    for n, ended in enumerate(run(pool, inbox, *jobs)):
        assert isinstance(ended, Finished)
        assert ended.worker in ("0", "1")
        assert [outcome.number for outcome in ended.outcomes] == [0, 1]
        np.testing.assert_array_equal(ended.outcomes[0].arrays[0], [n, n * n])
        assert all(outcome.checksum == checksum(outcome.arrays) for outcome in ended.outcomes)
    assert len(inbox.seen) == 2 * len(jobs)


def test_both_workers_run_at_a_time(pool, inbox, tmp_path):
    work = Calls(str(tmp_path))
    jobs = [job_of(work, ("until", "go")) for _ in range(2)]
    for job in jobs:
        pool.submit(job, inbox)
    assert len(set(wait_for_calls(tmp_path, "until", 2, START))) == 2
    (tmp_path / "go").touch()
    assert {ended.worker for ended in inbox.until_over(*jobs)} == {"0", "1"}


def test_a_work_travels_to_each_actor_once(pool, inbox, tmp_path):
    work = Noted(str(tmp_path))
    ends = run(pool, inbox, *(job_of(work, n) for n in range(20)))
    assert [ended.outcomes[0].arrays[0][0] for ended in ends] == list(range(20))
    arrivals = [path.name.split(".")[1] for path in tmp_path.iterdir()]
    assert len(arrivals) == len(set(arrivals)) == len({ended.worker for ended in ends})


def test_works_that_were_forgotten_are_sent_again(pool, inbox, tmp_path):
    works = [Noted(str(tmp_path)) for _ in range(12)]
    for work in [*works, *works]:
        (ended,) = run(pool, inbox, job_of(work, 3))
        assert ended.outcomes[0].arrays[0][0] == 3


def test_an_actor_that_has_forgotten_a_work_is_given_it_again(pool, inbox, tmp_path):
    work = Forgotten(str(tmp_path))
    ends = run(pool, inbox, *(job_of(work, n) for n in range(5)))
    assert [ended.outcomes[0].arrays[0][0] for ended in ends] == list(range(5))
    assert len(list(tmp_path.iterdir())) == 5


class Forgotten(Noted):
    """Makes its worker forget all works."""

    def run(self, task):
        worker.works = Works()
        return super().run(task)


def test_tasks_may_be_of_classes_of_the_callers_own_script(pool, inbox, monkeypatch):
    class Angle(float):
        pass

    Angle.__module__, Angle.__qualname__ = "__main__", "Angle"
    monkeypatch.setattr(sys.modules["__main__"], "Angle", Angle, raising=False)
    (ended,) = run(pool, inbox, job_of(Calls(), ("value", Angle(3.0))))
    np.testing.assert_array_equal(ended.outcomes[0].arrays[0], [3.0, 9.0])


def test_a_task_that_raises_does_not_keep_others_from_running(pool, inbox):
    (ended,) = run(pool, inbox, job_of(Calls(), ("raise", "no such thing"), ("value", 2.0)))
    raised, good = ended.outcomes
    assert str(raised.error) == "ValueError: no such thing"
    np.testing.assert_array_equal(good.arrays[0], [2.0, 4.0])


@pytest.mark.parametrize("task", [("signal", 9), ("signal", 11), ("exit", 3)])
def test_a_worker_that_dies_loses_its_order_and_is_replaced(pool, inbox, task):
    work = Calls()
    jobs = [job_of(work, task), *(job_of(work, ("value", 1.0)) for _ in range(5))]
    lost, *others = run(pool, inbox, *jobs)
    assert isinstance(lost, Lost)
    assert lost.kind == "lost"
    assert lost.cause.startswith(("worker 0 died (", "worker 1 died ("))
    assert all(isinstance(ended, Finished) for ended in others)
    # Both places are filled again: each of these needs the other one to run meanwhile.
    assert {ended.worker for ended in run_side_by_side(pool, inbox, work)} == {"0", "1"}


def run_side_by_side(pool, inbox, work):
    jobs = [job_of(work, ("value", 1.0), delay=3600.0) for _ in range(2)]
    for job in jobs:
        pool.submit(job, inbox)
    for job in jobs:
        inbox.until_started(job, timeout=START)
    for job in jobs:
        pool.cancel(job)
    return inbox.until_over(*jobs)


def test_a_stopped_worker_is_ended_when_it_is_given_up(pool, inbox, tmp_path):
    job = job_of(Calls(str(tmp_path)), ("signal", SIGNALS["stop"]))
    pool.submit(job, inbox)
    wait_until(lambda: list(tmp_path.glob("call.signal.*")), "the task begins")
    (note,) = tmp_path.glob("call.signal.*")
    process = psutil.Process(int(note.name.split(".")[2]))
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the worker stops")
    pool.abandon(job)
    (lost,) = inbox.until_over(job)
    assert (lost.kind, lost.cause[9:]) == ("lost", "did not come back in time")
    wait_until(lambda: not process.is_running(), "the worker ends")
    assert len(run_side_by_side(pool, inbox, Calls())) == 2


def test_an_idle_worker_that_dies_costs_no_order(pool, inbox):
    (ended,) = run(pool, inbox, job_of(Calls(), ("pid",)))
    process = psutil.Process(int(ended.outcomes[0].arrays[0][0]))
    process.kill()
    wait_until(lambda: len(actors() - {process.pid}) == 2, "another takes its place")
    ended, other = run_side_by_side(pool, inbox, Calls())
    assert isinstance(ended, Finished)
    assert isinstance(other, Finished)


def test_cancel_ends_an_injected_sleep_and_withdraws_what_waits(pool, inbox):
    work = Calls()
    jobs = [job_of(work, ("value", 1.0), delay=3600.0) for _ in range(3)]
    for job in jobs:
        pool.submit(job, inbox)
    pool.cancel(jobs[2])
    pool.cancel(jobs[0])
    pool.cancel(jobs[1])
    first, second, waiting = inbox.until_over(*jobs, timeout=60.0)
    assert first.outcomes == second.outcomes == ()
    assert (waiting.kind, waiting.cause) == ("cancelled", "it was withdrawn before it began")
    (ended,) = run(pool, inbox, job_of(work, ("value", 1.0)))
    assert len(ended.outcomes) == 1


def test_workers_use_one_thread_for_linear_algebra(pool, inbox):
    (ended,) = run(pool, inbox, job_of(Threads(), None))
    assert set(ended.outcomes[0].arrays[0]) == {1.0}


@dataclass(frozen=True)
class Threads:
    key: str = "threads"

    def run(self, task):
        import threadpoolctl

        return (np.array([float(p["num_threads"]) for p in threadpoolctl.threadpool_info()]),)


def test_a_work_that_cannot_be_unpickled_there_fails_task_by_task(pool, inbox):
    (failed,) = run(pool, inbox, job_of(Unloadable(), None, None))
    assert [outcome.number for outcome in failed.outcomes] == [0, 1]
    for outcome in failed.outcomes:
        assert isinstance(outcome.error, BackendError)
        assert "cannot unpickle what it is to run (RuntimeError: not here)" in str(outcome.error)
    (ended,) = run(pool, inbox, job_of(Calls(), ("value", 1.0)))
    assert isinstance(ended, Finished)


def fail_to_load():
    raise RuntimeError("not here")


@dataclass(frozen=True)
class Unloadable:
    key: str = "unloadable"

    def __reduce__(self):
        return fail_to_load, ()


def test_ray_listens_on_the_loopback_interface_alone(pool, inbox):
    run(pool, inbox, job_of(Calls(), ("value", 1.0)))
    listening = [
        connection.laddr.ip
        for process in descendants()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    for address in map(ipaddress.ip_address, listening):
        inner = getattr(address, "ipv4_mapped", None) or address
        assert inner.is_loopback, f"a process listens on {address}"


@pytest.mark.soak
def test_a_second_ray_dies_alone(pool, inbox):
    before = set(descendants())
    second = RayPool(1)
    (ended,) = run(second, inbox, job_of(Calls(), ("value", 2.0)))
    assert isinstance(ended, Finished)
    (forked,) = run(second, inbox, job_of(Forking(), None))
    child = psutil.Process(int(forked.outcomes[0].arrays[0][0]))
    child.suspend()
    run(second, inbox, job_of(Calls(), ("signal", 9)))
    wait_until(lambda: not child.is_running(), "what an actor forked ends with it")
    running = job_of(Calls(), ("value", 1.0), delay=3600.0)
    second.submit(running, inbox)
    inbox.until_started(running)
    own = set(descendants()) - before
    next(process for process in own if process.name() == "raylet").kill()
    (lost,) = inbox.until_over(running, timeout=60.0)
    assert lost.kind == "refused"
    assert lost.cause.startswith("Ray is gone (")
    with pytest.raises(PoolError, match=r"Ray is gone .*: make a new estimator"):
        second.submit(job_of(Calls(), ("value", 1.0)), inbox)
    second.close()
    wait_until(lambda: not any(p.is_running() for p in own), "its processes end")
    (ended,) = run(pool, inbox, job_of(Calls(), ("value", 2.0)))
    assert isinstance(ended, Finished)


@dataclass(frozen=True)
class Forking:
    key: str = "forking"

    def run(self, task):
        child = os.fork()
        if not child:
            time.sleep(3600.0)
        return (np.array([float(child)]),)


# Without Ray.


class FakeLink:
    """Actors that come up with the versions it is given, and answer nothing."""

    versions = transfer.own_versions()
    ended = 0

    def __init__(self, address, workers, environment):
        self.sent = []
        self.messages = queue.SimpleQueue()
        self.over = False

    def send(self, *message):
        self.sent.append(message)
        if message[0] == "start":
            self.messages.put(("up", message[1], self.versions, "host", None))

    def receive(self):
        return self.messages.get()

    def remember(self, process):
        raise AssertionError("no process was told of")

    def end(self):
        if not self.over:
            self.over = True
            type(self).ended += 1
            self.messages.put(None)


@pytest.fixture
def link(monkeypatch):
    class Link(FakeLink):
        pass

    monkeypatch.setattr(ray_pool, "RayLink", Link)
    return Link


def test_other_versions_are_refused_before_any_work_is_sent(link, inbox):
    link.versions = {**transfer.own_versions(), "numpy": "0.9", "qiskit": None}
    pool = RayPool(2)
    with pytest.raises(PoolError, match=r"numpy 0\.9 instead of .*qiskit \(not installed\)"):
        pool.submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert {message[0] for message in pool._engine._link.sent} == {"start"}
    assert link.ended == 1
    assert inbox.messages.empty()


def test_actors_that_never_come_up_are_given_up(link, inbox, monkeypatch):
    def send(self, *message):
        self.sent.append(message)
        if message[0] == "start":
            self.messages.put(("died", message[1], "ImportError: no such module"))

    monkeypatch.setattr(link, "send", send)
    with pytest.raises(PoolError, match=r"worker 0 died \(ImportError: no such module\) before"):
        RayPool(1).submit(job_of(Calls(), ("value", 1.0)), inbox)


def test_orders_do_not_wait_for_ever_for_an_actor(link, inbox, monkeypatch):
    pool = RayPool(1)
    job = job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)
    inbox.until_started(job)
    following = job_of(Calls(), ("value", 1.0))
    pool.submit(following, inbox)
    monkeypatch.setattr(ray_pool, "_SECONDS_TO_START", 3 * ray_pool.SECONDS_TO_LOOK)
    monkeypatch.setattr(link, "send", lambda self, *message: None)
    for _ in range(3):
        pool._engine._link.messages.put(("beat",))  # which do not count: the actor is up
    pool.abandon(job)
    for _ in range(3):
        pool._engine._link.messages.put(("beat",))
    lost, refused = inbox.until_over(job, following)
    assert (lost.kind, refused.kind) == ("lost", "refused")
    assert refused.cause.startswith("Ray started 0 of 1 actors in 1.5 s")
    assert link.ended == 1


def test_actors_that_find_no_place_are_told_of(link, inbox, monkeypatch):
    monkeypatch.setattr(link, "send", lambda self, *message: None)
    monkeypatch.setattr(ray_pool, "_SECONDS_TO_START", 0.01)
    with pytest.raises(PoolError, match=r"0 of 3 actors .* give fewer `workers` or a larger"):
        RayPool(3).submit(job_of(Calls(), ("value", 1.0)), inbox)


def test_without_a_thread_to_listen_nothing_is_left(link, inbox, monkeypatch):
    start = threading.Thread.start

    def fail(thread):
        if thread.name.endswith("-ray"):
            raise RuntimeError("can't start new thread")
        start(thread)

    pool = RayPool(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(PoolError, match=r"no thread can be started \(can't start new"):
            pool.submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert link.ended == 1
    assert inbox.messages.empty()
    job = job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)  # there may be threads again
    inbox.until_started(job)
    pool.close()
    assert link.ended == 2


def test_without_a_process_to_drive_ray_nothing_is_left(inbox, monkeypatch, tmp_path):
    def fail(*arguments, **settings):
        raise BlockingIOError("no more processes")

    folder = tmp_path / "ray"
    folder.mkdir()
    monkeypatch.setattr(ray_link, "_folder", lambda: str(folder))
    monkeypatch.setattr(subprocess, "Popen", fail)
    pool = RayPool(1)
    with pytest.raises(PoolError, match=r"cannot be started .*BlockingIOError: no more processes"):
        pool.submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert not folder.exists()
    assert inbox.messages.empty()


def test_close_tells_every_order_and_may_be_repeated(link, inbox):
    pool = RayPool(1)
    jobs = [job_of(Calls(), ("value", 1.0)) for _ in range(3)]
    for job in jobs:
        pool.submit(job, inbox)
    pool.close()
    pool.close()
    ends = inbox.until_over(*jobs)
    assert {(end.kind, end.cause) for end in ends} == {("cancelled", "the pool was closed")}
    assert link.ended == 1
    with pytest.raises(PoolError, match="the pool is closed: make a new estimator"):
        pool.submit(jobs[0], inbox)


def test_a_pool_that_nobody_holds_ends(link, inbox):
    pool = RayPool(1)
    pool.submit(job_of(Calls(), ("value", 1.0)), inbox)
    inbox.messages.get(timeout=30.0)
    del pool
    wait_until(lambda: gc.collect() is not None and link.ended == 1, "the link ends")


def test_a_report_that_comes_after_the_order_was_given_up_is_dropped(link, inbox):
    pool = RayPool(1)
    job = job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)
    inbox.until_started(job)
    pool.abandon(job)
    inbox.until_over(job)
    (_, actor, number, *_), *_ = [m for m in pool._engine._link.sent if m[0] == "run"]
    pool._engine._link.messages.put(("done", actor, number, b""))
    following = job_of(Calls(), ("value", 1.0))
    pool.submit(following, inbox)
    inbox.until_started(following)
    pool.close()
    (lost,) = inbox.until_over(following)
    assert lost.kind == "cancelled"


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        (b"", "worker 0 sent a report that is none: 'unreadable (EOFError"),
        (pickle.dumps("fine"), "worker 0 sent a report that is none: 'fine'"),
    ],
)
def test_what_is_no_report_loses_the_order(link, inbox, report, cause):
    pool = RayPool(1)
    job = job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)
    (_, actor, number, *_), *_ = [m for m in pool._engine._link.sent if m[0] == "run"]
    pool._engine._link.messages.put(("done", actor, number, report))
    (lost,) = inbox.until_over(job)
    assert lost.kind == "lost"
    assert lost.cause.startswith(cause)
    pool.close()


def test_a_work_that_does_not_pickle_is_refused_before_ray_is_started(link, inbox):
    pool = RayPool(1)
    with pytest.raises(InputError, match="cannot be sent to another process"):
        pool.submit(job_of(Calls(folder=threading.Lock()), ("value", 1.0)), inbox)
    with pytest.raises(InputError, match="a task cannot be sent to another process"):
        pool.submit(job_of(Calls(), ("value", threading.Lock())), inbox)
    assert pool._engine._link is None


@pytest.fixture
def unlaunched(monkeypatch):
    """Fails where a process is started to connect: what is refused before is so within seconds."""

    def launch(*arguments, **settings):
        raise AssertionError("launched")

    monkeypatch.setattr(ray_link, "_launch", launch)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nobody_listens_is_told_at_once(form, unlaunched, inbox):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(PoolError, match=f"cannot be reached at '{address}' .*leave `address`"):
            RayPool(1, address=address).submit(job_of(Calls(), ("value", 1.0)), inbox)


def test_an_address_in_the_environment_is_tried_as_fast(serving, unlaunched, inbox, monkeypatch):
    address = serving(socket.socket.close)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(PoolError, match=f"cannot be reached at '{address}'"):
        RayPool(1, address="auto").submit(job_of(Calls(), ("value", 1.0)), inbox)


def test_an_address_that_outlasts_its_cluster_is_tried_as_fast(
    serving, unlaunched, inbox, monkeypatch, tmp_path
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_link, "_HEAD", "of other tests no process")
    address = serving(socket.socket.close)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"{address}\n")
    with pytest.raises(PoolError, match=f"cannot be reached at '{address}'"):
        RayPool(1, address="auto").submit(job_of(Calls(), ("value", 1.0)), inbox)


def say_nothing(line):
    while line.recv(1024):
        pass


def speak_otherwise(line):
    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    say_nothing(line)


@pytest.fixture
def serving():
    """Serve one connection, with a function; gives the address."""
    threads = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(answer):
            def accept():
                with contextlib.suppress(ConnectionError), server.accept()[0] as line:
                    answer(line)

            threads.append(threading.Thread(target=accept))
            threads[-1].start()
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield serve
        for thread in threads:
            thread.join(30.0)
            assert not thread.is_alive()


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
@pytest.mark.parametrize("answer", [say_nothing, socket.socket.close, speak_otherwise])
def test_a_server_that_is_not_ray_is_told_at_once(
    answer, form, serving, unlaunched, inbox, monkeypatch
):
    assert 2 * ray_link._SECONDS_TO_PROBE < 10, "as is promised"
    monkeypatch.setattr(ray_link, "_SECONDS_TO_PROBE", 0.2 if answer is say_nothing else 60.0)
    address = form.format(serving(answer))
    with pytest.raises(PoolError, match=f"cannot be reached at '{address}' .*leave `address`"):
        RayPool(1, address=address).submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert inbox.messages.empty()


def test_a_server_that_uses_tls_is_left_to_ray(serving, unlaunched, inbox, monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with pytest.raises(AssertionError, match="launched"):
        RayPool(1, address=serving(say_nothing)).submit(job_of(Calls(), ("value", 1.0)), inbox)


@pytest.mark.parametrize("address", ["", "somewhere", "host:", "host:99999", "http://host:1/"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match='give "ray://host:port"'):
        RayPool(1, address=address)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "distributed-estimator\[ray\]"'):
        RayPool(1)


# What workers keep.


@dataclass(frozen=True)
class Large:
    """A work that takes so many bytes, pickled, and some more."""

    key: str
    size: int

    def __reduce__(self):
        return build_large, (self.key, bytes(self.size))


def build_large(key, content):
    return Large(key, len(content))


def kept(sizes):
    works = Works()
    for key, size in sizes.items():
        assert works.get(key, lambda key=key, size=size: pickle.dumps(Large(key, size))).key == key
    return [key for key in sizes if key in works]


def test_works_are_forgotten_beyond_a_number_of_bytes(monkeypatch):
    monkeypatch.setattr(worker, "_MOST_BYTES", 1000)
    assert kept({"a": 300, "b": 300, "c": 5000}) == ["a", "b", "c"]
    assert kept({"a": 300, "b": 5000, "c": 300}) == ["c"]
    assert kept({"a": 300, "b": 300, "c": 300, "d": 300, "e": 1}) == ["c", "d", "e"]


def test_works_are_forgotten_beyond_a_count(monkeypatch):
    monkeypatch.setattr(worker, "_MOST_WORKS", 2)
    assert kept({"a": 0, "b": 0, "c": 0}) == ["b", "c"]


def test_a_work_that_was_used_is_kept_and_one_forgotten_loaded_again(monkeypatch):
    monkeypatch.setattr(worker, "_MOST_WORKS", 2)
    works, loaded = Works(), []

    def use(key):
        def load():
            loaded.append(key)
            return pickle.dumps(Large(key, 0))

        works.get(key, load)

    for key in "abacab":
        use(key)
    assert loaded == ["a", "b", "c", "b"]


# Whole programs, each with a Ray of its own.

PRELUDE = """
import gc, os, sys, time
from pool_works import Calls, Inbox, job_of
from distributed_estimator.execution.pools.ray import RayPool

def begin(pool, task=("value", 1.0), delay=3600.0):
    inbox, job = Inbox(), job_of(Calls(), task, delay=delay)
    pool.submit(job, inbox)
    inbox.until_started(job)
    return inbox, job

def value(pool):
    inbox, job = begin(pool, delay=0.0)
    return inbox.until_over(job, timeout=60.0)[0].outcomes[0].arrays[0][0]

"""


@pytest.fixture
def start(tmp_path):
    """Start a program and wait until it says "ready"; its process and its descendants."""
    programs = []

    def start(text):
        path = tmp_path / "program.py"
        path.write_text(PRELUDE + text)
        program = subprocess.Popen(
            [sys.executable, "-u", path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        programs.append(program)
        for line in program.stdout:
            if line == "ready\n":
                break
        else:
            pytest.fail(program.communicate()[1])
        return program, psutil.Process(program.pid).children(recursive=True)

    yield start
    for program in programs:
        if program.poll() is None:
            program.kill()
        program.communicate()


@pytest.fixture
def folder():
    """Under a short name: Ray puts Unix sockets there."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield name


def folders(processes):
    """Ray's own folders, as its processes name them."""
    words = [word for process in processes for word in process.cmdline()]
    return {Path(w.partition("=")[2]) for w in words if w.startswith("--temp-dir=")}


@pytest.mark.soak
def test_a_fork_can_neither_use_nor_end_the_workers(start):
    program, _ = start("""
from distributed_estimator.errors import PoolError

pool = RayPool(1)
inbox, job = begin(pool)
for leave in (os._exit, sys.exit):
    child = os.fork()
    if not child:
        try:
            pool.submit(job_of(Calls(), ("value", 1.0)), print)
        except PoolError as error:
            assert "this is a fork of it: make a new estimator" in str(error)
            pool.cancel(job)
            pool.abandon(job)
            pool.close()
            leave(7)
        leave(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert inbox.messages.empty()
pool.cancel(job)
assert inbox.until_over(job)[0].outcomes == ()
assert value(pool) == 1.0
print("ready")
""")
    _, noise = program.communicate(timeout=60)
    assert program.returncode == 0, noise


HOW = {
    "close": "pool.close()",
    "collect": "del pool; gc.collect()",
    "exit": "",
    "raise": "raise SystemExit(0)",
    "kill": "",
    "interrupt": "",
}


@pytest.mark.soak
@pytest.mark.parametrize("task", [("value", 1.0), ("sleep", 3600.0)])
@pytest.mark.parametrize("how", HOW)
def test_nothing_is_left_of_a_program(start, how, task):
    delay = 3600.0 if task[0] == "value" else 0.0
    program, processes = start(
        f"pool = RayPool(2)\ninbox, job = begin(pool, {task}, {delay})\n"
        f"assert 'ray' not in sys.modules\nprint('ready')\n"
        f"sys.stdin.readline()\n{HOW[how]}\n"
    )
    (folder,) = folders(processes)
    begin = time.monotonic()
    if how in ("kill", "interrupt"):
        os.killpg(program.pid, signal.SIGKILL if how == "kill" else signal.SIGINT)
    _, noise = program.communicate("go on\n" if HOW[how] or how == "exit" else None, timeout=60)
    _, alive = psutil.wait_procs(processes, timeout=30)
    print(f"{how}: {time.monotonic() - begin:.1f} s")
    assert not alive
    wait_until(lambda: not folder.exists(), "the folder is removed")
    if how == "interrupt":
        assert noise.strip().splitlines()[-1] == "KeyboardInterrupt"
        assert noise.count("Traceback") == 1
    else:
        assert noise == ""


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_program_that_ends_while_ray_starts(start, number):
    program, _ = start("print('ready')\nvalue(RayPool(2))\n")
    found = psutil.Process(program.pid)
    wait_until(lambda: "raylet" in names(found.children(recursive=True)), "Ray starts", START)
    processes = found.children(recursive=True)
    program.send_signal(number)
    program.communicate(timeout=60)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def answer_as_ray(line):
    line.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    say_nothing(line)


@pytest.mark.soak
def test_nothing_is_left_of_a_program_that_ends_while_it_connects(start, serving):
    address = serving(answer_as_ray)  # once: Ray itself gets no answer
    program, _ = start(f"print('ready')\nvalue(RayPool(1, address={address!r}))\n")
    found = psutil.Process(program.pid)
    wait_until(lambda: found.children(), "a process connects")
    processes = found.children(recursive=True)
    time.sleep(2.0)  # long enough to be told of the address, and to wait for its answer
    program.kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def names(processes):
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(process.name())
    return found


@pytest.mark.soak
@pytest.mark.parametrize("address", ["None", "os.environ['RAY_ADDRESS']", "'auto'"])
def test_a_ray_that_was_there_is_used_and_left(start, folder, monkeypatch, address):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # else Ray writes a token to the home directory
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid4().hex * 2)
    program, _ = start(
        "import ray\n"
        f"ray.init(num_cpus=4, log_to_driver=False, _temp_dir={folder!r})\n"
        "os.environ['RAY_ADDRESS'] = ray.get_runtime_context().gcs_address\n"
        "before = len(ray.nodes())\n"
        f"pool = RayPool(2, address={address})\n"
        "assert value(pool) == 1.0\n"
        "actors = ray.cluster_resources()['CPU'] - ray.available_resources().get('CPU', 0)\n"
        "print('ready')\n"
        "pool.close()\n"
        "assert ray.is_initialized() and len(ray.nodes()) == before\n"
        "print(actors, ray.get(ray.remote(lambda: 41 + 1).remote()))\n"
        "ray.shutdown()\n"
    )
    out, noise = program.communicate(timeout=120)
    assert program.returncode == 0, noise
    assert out.split() == ["2.0", "42"]


@pytest.fixture
def cluster(folder, monkeypatch):
    """A cluster of one machine with room for two actors; its address, and that for clients."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid4().hex * 2)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    command = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    command += [f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: all(map(answers, ports)), "the cluster comes up", START)
        yield f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}"
    finally:
        processes = psutil.Process(head.pid).children(recursive=True)
        for process in [head, *processes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        psutil.wait_procs(processes, timeout=30)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.soak
def test_a_cluster_serves_through_either_address_and_is_left(cluster, inbox):
    others = actors()
    for address in cluster:
        with contextlib.closing(RayPool(2, address=address)) as pool:
            (ended,) = run(pool, inbox, job_of(Calls(), ("value", 3.0)))
            np.testing.assert_array_equal(ended.outcomes[0].arrays[0], [3.0, 9.0])
            (lost,) = run(pool, inbox, job_of(Calls(), ("signal", 9)))
            assert lost.kind == "lost"
            assert len(run_side_by_side(pool, inbox, Calls())) == 2
            assert len(actors() - others) == 2
        wait_until(lambda: actors() <= others, "the actors end")


@pytest.mark.soak
def test_another_port_of_a_cluster_is_told_of(cluster, inbox):
    plain, client = cluster
    before = descendants()
    for address in (client.removeprefix("ray://"), f"ray://{plain}"):
        # Ray's own error: it gave up before its time was over.
        with pytest.raises(PoolError, match=f"cannot be reached at '{address}' .ConnectionError"):
            RayPool(1, address=address).submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert set(descendants()) <= set(before)
