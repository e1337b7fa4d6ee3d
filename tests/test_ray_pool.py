"""Actors of a real Ray: what they compute, how they die, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import itertools
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
from dataclasses import dataclass
from unittest.mock import Mock
from uuid import uuid4

import numpy as np
import psutil
import pytest
from faults import is_gone, wait_until
from pool_works import Calls, Program, job_of

from distributed_estimator.errors import InputError, MissingExtraError, PoolError
from distributed_estimator.execution import worker
from distributed_estimator.execution.messages import Finished
from distributed_estimator.execution.pools import base, clusters, driven, ray_driver
from distributed_estimator.execution.pools.child import BEAT_SECONDS
from distributed_estimator.execution.pools.clusters import RayPool
from distributed_estimator.execution.worker import Works

START = 150.0
"""Seconds that a Ray may take to come up on a busy machine."""


@pytest.fixture(scope="module")
def pool():
    with contextlib.closing(RayPool(2)) as pool:
        yield pool


def run(pool, inbox, *jobs, timeout=START):
    for job in jobs:
        pool.submit(job, inbox)
    return inbox.until_over(*jobs, timeout=timeout)


def descendants():
    return psutil.Process().children(recursive=True)


# With a real Ray.


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


class FakeChild:
    """Actors that come up with the versions it is given, and answer nothing."""

    versions = base.own_versions()
    ended = 0

    def __init__(self, driver, arguments, environment, folder, *, quiet):
        self.sent = []
        self.messages = queue.SimpleQueue()
        self.messages.put(("connected",))
        self.over = False

    def send(self, *message):
        self.sent.append(message)
        if message[0] == "start":
            self.messages.put(("up", message[1], {"0 on host": self.versions}))

    def receive(self, limit=None):
        return self.messages.get()

    def end(self):
        if not self.over:
            self.over = True
            type(self).ended += 1
            self.messages.put(("gone", "it was ended"))


@pytest.fixture
def link(monkeypatch):
    class Child(FakeChild):
        pass

    monkeypatch.setattr(clusters, "Child", Child)
    return Child


def test_other_versions_are_refused_before_any_work_is_sent(link, inbox):
    link.versions = {**base.own_versions(), "numpy": "0.9", "qiskit": None}
    pool = RayPool(2)
    with pytest.raises(PoolError, match=r"numpy 0\.9 instead of .*qiskit \(not installed\)"):
        pool.submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert {message[0] for message in pool._engine._child.sent} == {"start"}
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


def test_jobs_do_not_wait_for_ever_for_an_actor(link, inbox, monkeypatch):
    pool = RayPool(1)
    job = job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)
    inbox.until_started(job)
    following = job_of(Calls(), ("value", 1.0))
    pool.submit(following, inbox)
    monkeypatch.setattr(driven, "SECONDS_TO_START", 3 * BEAT_SECONDS)
    monkeypatch.setattr(link, "send", lambda self, *message: None)
    for _ in range(3):
        pool._engine._child.messages.put(("beat",))  # which do not count: the actor is up
    pool.abandon(job)
    for _ in range(3):
        pool._engine._child.messages.put(("beat",))
    lost, refused = inbox.until_over(job, following)
    assert (lost.kind, refused.kind) == ("lost", "refused")
    assert refused.cause.startswith("Ray started 0 of 1 actors in 1.5 s")
    assert link.ended == 1


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


@pytest.fixture
def unlaunched(monkeypatch):
    """Fails where a process is started to connect: what is refused before is so within seconds."""

    def launch(*arguments, **settings):
        raise AssertionError("launched")

    monkeypatch.setattr(driven, "_launch", launch)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nobody_listens_is_told_at_once(form, unlaunched, inbox):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(PoolError, match=f"cannot be reached at '{address}' .*leave `address`"):
            RayPool(1, address=address).submit(job_of(Calls(), ("value", 1.0)), inbox)


def test_an_address_that_outlasts_its_cluster_is_tried_as_fast(
    serving, unlaunched, inbox, monkeypatch, tmp_path
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(clusters, "_HEAD", "of other tests no process")
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
    assert 2 * clusters._SECONDS_TO_PROBE < 10, "as is promised"
    monkeypatch.setattr(clusters, "_SECONDS_TO_PROBE", 0.2 if answer is say_nothing else 60.0)
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


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [
        ({"_MOST_BYTES": 1000}, {"a": 300, "b": 300, "c": 5000}, "abc"),
        ({"_MOST_BYTES": 1000}, {"a": 300, "b": 5000, "c": 300}, "c"),
        ({"_MOST_BYTES": 1000}, {"a": 300, "b": 300, "c": 300, "d": 300, "e": 1}, "cde"),
        ({"_MOST_WORKS": 2}, {"a": 0, "b": 0, "c": 0}, "bc"),
    ],
)
def test_workers_forget_works_beyond_a_number_or_size(limit, used, left, monkeypatch):
    for name, value in limit.items():
        monkeypatch.setattr(worker, name, value)
    works = Works()
    for key, size in used.items():
        assert works.get(key, lambda key=key, size=size: pickle.dumps(Large(key, size))).key == key
    assert [key for key in used if key in works] == list(left)


# Whole programs, each with a Ray of its own.

PRELUDE = """
import os
from pool_works import Calls, Inbox, job_of
from distributed_estimator.execution.pools import RayPool

def value(pool):
    inbox, job = Inbox(), job_of(Calls(), ("value", 1.0))
    pool.submit(job, inbox)
    return inbox.until_over(job, timeout=60.0)[0].outcomes[0].arrays[0][0]

"""


@pytest.fixture
def start(tmp_path):
    """Start a program and wait until it says "ready"."""
    with contextlib.ExitStack() as programs:

        def start(text):
            program = programs.enter_context(Program(tmp_path, PRELUDE + text))
            assert program.process.stdout.readline() == "ready\n"
            return program

        yield start


@pytest.fixture
def folder():
    """Under a short name: Ray puts Unix sockets there."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield name


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_program_that_ends_while_ray_starts(start, number):
    program = start("print('ready')\nvalue(RayPool(2))\n")
    wait_until(lambda: "raylet" in names(program.descendants()), "Ray starts", START)
    processes = program.descendants()
    program.process.send_signal(number)
    program.wait(timeout=60)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def answer_as_ray(line):
    line.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    say_nothing(line)


@pytest.mark.soak
def test_nothing_is_left_of_a_program_that_ends_while_it_connects(start, serving):
    address = serving(answer_as_ray)  # once: Ray itself gets no answer
    program = start(f"print('ready')\nvalue(RayPool(1, address={address!r}))\n")
    wait_until(program.descendants, "a process connects")
    processes = program.descendants()
    time.sleep(2.0)  # long enough to be told of the address, and to wait for its answer
    program.process.kill()
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
    program = start(
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
    out, noise, code = program.wait()
    assert (out, code) == ("2.0 42\n", 0), noise


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


def actors(pool, inbox):
    """The processes of both workers of a pool, once both are up."""
    found = set()
    while len(found) < 2:
        jobs = [job_of(Calls(), ("pid",), delay=1.0) for _ in range(2)]
        found = {int(end.outcomes[0].arrays[0][0]) for end in run(pool, inbox, *jobs)}
    return found


@pytest.mark.soak
def test_a_cluster_serves_through_either_address_and_is_left(cluster, inbox):
    for address in cluster:
        with contextlib.closing(RayPool(2, address=address)) as pool:
            before = actors(pool, inbox)
            (lost,) = run(pool, inbox, job_of(Calls(), ("signal", 9)))
            assert lost.kind == "lost"
            after = actors(pool, inbox)
            assert len(before & after) == 1
        wait_until(lambda pids=before | after: all(map(is_gone, pids)), "the actors end")


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (2, 3), (3, 3)])
def test_a_cluster_that_could_not_serve_is_asked_again(failures, tries):
    """Ray's server of clients gives this error where the process for a client did not start."""
    answers = itertools.chain([ConnectionAbortedError("server")] * failures, itertools.repeat(None))
    init = Mock(side_effect=answers)
    with contextlib.nullcontext() if failures < 3 else pytest.raises(ConnectionAbortedError):
        ray_driver.connect(init)
    assert init.call_count == tries


@pytest.mark.soak
def test_another_port_of_a_cluster_is_told_of(cluster, inbox):
    plain, client = cluster
    before = descendants()
    for address in (client.removeprefix("ray://"), f"ray://{plain}"):
        # Ray's own error: it gave up before its time was over.
        with pytest.raises(PoolError, match=f"cannot be reached at '{address}' .ConnectionError"):
            RayPool(1, address=address).submit(job_of(Calls(), ("value", 1.0)), inbox)
    assert set(descendants()) <= set(before)
