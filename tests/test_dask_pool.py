"""What only the Dask pool does; what every pool does is in `test_pools.py`."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress

import dask.config as dask_config
import distributed
import numpy as np
import psutil
import pytest
from faults import is_gone, wait_until
from pool_works import Calls, Counted, Inbox, job_of, wait_for_calls

from distributed_estimator.errors import InputError, MissingExtraError, PoolError
from distributed_estimator.execution.messages import Finished, Lost
from distributed_estimator.execution.pools import dask_link, transfer
from distributed_estimator.execution.pools.dask import DaskPool
from distributed_estimator.execution.pools.ray_driver import led_by
from distributed_estimator.execution.pools.transfer import PACKAGES, check_versions, own_versions

MEMORY = 700 * 2**20
PATIENCE = 60.0


class Wild(Calls):
    """Works that only this pool is tried with."""

    def do_hoard(self, size):
        kept = np.ones(size // 8)
        time.sleep(PATIENCE)
        return (kept[:1],)

    def do_length(self, text):
        return (np.array([float(len(text))]),)

    def do_threads(self):
        import threadpoolctl

        return (np.array([max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())]),)


@pytest.fixture(scope="module")
def pool():
    made = DaskPool(2, memory_limit=MEMORY)
    yield made
    made.close()


@pytest.fixture
def work(tmp_path):
    made = Wild(str(tmp_path))
    yield made
    (tmp_path / "go").touch()


def run(pool, inbox, *jobs, timeout=PATIENCE):
    for job in jobs:
        pool.submit(job, inbox)
    return inbox.until_over(*jobs, timeout=timeout)


def value_of(end):
    assert isinstance(end, Finished), end
    return float(end.outcomes[0].arrays[0][0])


def test_a_worker_over_its_memory_limit_is_ended(pool, inbox, work):
    hoards, following = job_of(work, ("hoard", 2 * MEMORY)), job_of(work, ("value", 2.0))

    lost, after = run(pool, inbox, hoards, following)

    assert isinstance(lost, Lost)
    assert lost.kind == "lost"
    assert value_of(after) == 2.0


def stop_workers(pool):
    """Stop all workers of a pool, and return what lets them go on."""
    nannies = [psutil.Process(p.pid) for p in psutil.Process().children(recursive=True)]
    stopped = [p for p in nannies if "spawn_main" in " ".join(p.cmdline())]
    assert len(stopped) == pool.workers
    for process in stopped:
        process.suspend()

    def go_on():
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    return go_on


@pytest.fixture
def stopping(pool, inbox, work, monkeypatch):
    """Have all workers stopped when a coroutine of the client's is called next."""
    run(pool, inbox, job_of(work, ("value", 1.0)))
    undo = []

    def stop_in(owner, name):
        method = getattr(owner, name)

        async def stop_first(*arguments, **options):
            if not undo:
                undo.append(stop_workers(pool))
            return await method(*arguments, **options)

        monkeypatch.setattr(owner, name, stop_first)

    yield stop_in, undo
    undo[0]()


@pytest.mark.parametrize("moment", ["the work is sent", "the answer is fetched"])
@pytest.mark.soak
def test_a_worker_that_is_stopped_before_it_begins(pool, inbox, stopping, moment, tmp_path):
    link, (stop_in, stopped) = pool._engine._link, stopping
    if moment == "the work is sent":
        stop_in(link, "_attempt")
    else:
        stop_in(link._client, "_gather")
    job = job_of(Wild(str(tmp_path)), ("value", 3.0))
    pool.submit(job, inbox)

    wait_until(lambda: stopped, "the workers stop")
    pool.abandon(job)
    (lost,) = inbox.until_over(job)

    assert lost.kind == "lost"
    assert "did not come back in time" in lost.cause


@pytest.mark.soak
def test_a_cluster_of_our_own_needs_no_certificates(inbox, work):
    with dask_config.set({"distributed.comm.require-encryption": True}):
        pool = DaskPool(1)
        try:
            (end,) = run(pool, inbox, job_of(work, ("value", 4.0)))
        finally:
            pool.close()

    assert value_of(end) == 4.0


def test_closing_while_workers_start(inbox, work):
    pool = DaskPool(1)
    before = set(psutil.Process().children())
    errors = []

    def submit():
        try:
            pool.submit(job_of(work, ("value", 1.0)), inbox)
        except PoolError as error:
            errors.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    limit = time.monotonic() + PATIENCE
    while not (started := set(psutil.Process().children()) - before):
        assert time.monotonic() < limit
        time.sleep(0.01)
    pool.close()
    thread.join(PATIENCE)

    assert len(errors) == 1
    wait_until(lambda: all(is_gone(p.pid) for p in started), "all are gone")


@contextmanager
def scheduler(*worker_options):
    """A scheduler in a process of its own, with workers; gives it and its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
    folder = tempfile.mkdtemp()
    shared = {"PYTHONPATH": os.pathsep.join(sys.path), "DASK_TEMPORARY_DIRECTORY": folder}
    started = [dask("scheduler", "--host", address, "--no-dashboard", **shared)]
    for option in worker_options:
        worker = ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", option]
        started.append(dask(*worker, **shared))
    try:
        yield started[0], address
    finally:
        for process in started:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def dask(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def host():
    """A scheduler's process and address, and a worker that is there."""
    with scheduler("--nanny") as (process, address):
        pool = DaskPool(2, address=address)
        inbox = Inbox()
        for attempt in range(10):  # until it listens
            try:
                run(pool, inbox, job_of(Calls(), ("value", 1.0)))
                break
            except PoolError:
                assert attempt < 9
        pool.close()
        yield process, address


@pytest.fixture
def cluster(host):
    return host[1]


def test_a_cluster_that_is_there_is_used_and_left(cluster, inbox, tmp_path):
    work = Counted(str(tmp_path))
    for _ in range(2):
        pool = DaskPool(3, address=cluster)
        ends = run(pool, inbox, *(job_of(work, ("value", float(n))) for n in range(6)))
        pool.close()

        assert [value_of(end) for end in ends] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(list(tmp_path.glob("unpickled.*"))) == 1


def test_a_hung_worker_of_a_cluster_is_replaced(cluster, inbox, work, tmp_path):
    pool = DaskPool(1, address=cluster)
    hung = job_of(work, ("until", "go"))
    pool.submit(hung, inbox)
    inbox.until_started(hung)

    pool.abandon(hung)
    (lost,) = inbox.until_over(hung)
    (after,) = run(pool, inbox, job_of(work, ("value", 2.0)))
    pool.close()

    assert lost.kind == "lost"
    assert "nanny" not in lost.cause
    assert value_of(after) == 2.0


def test_workers_of_other_versions_are_refused(cluster, inbox, work, monkeypatch, tmp_path):
    other = own_versions() | {"numpy": "1.0"}
    monkeypatch.setattr(transfer, "own_versions", lambda: other)
    before = threads()
    pool = DaskPool(1, address=cluster)

    with pytest.raises(PoolError, match=rf"numpy {np.__version__} instead of 1\.0 on tcp://"):
        pool.submit(job_of(work, ("value", 1.0)), inbox)

    assert threads() == before
    assert list(tmp_path.iterdir()) == []


def threads():
    return sum(t.name == "distributed-estimator-dask" for t in threading.enumerate())


def test_a_scheduler_that_dies(host, inbox, work, tmp_path, capfd):
    """The last of all that share the cluster."""
    process, address = host
    pool = DaskPool(1, address=address)
    jobs = [job_of(work, ("until", "go"), number=n) for n in range(3)]
    for job in jobs:
        pool.submit(job, inbox)
    wait_for_calls(tmp_path, "until", 1)

    process.kill()
    ends = inbox.until_over(*jobs, timeout=PATIENCE)
    with pytest.raises(PoolError, match=r"connection to the Dask scheduler at .* was lost"):
        pool.submit(job_of(work, ("value", 1.0)), inbox)
    pool.close()

    assert [end.kind for end in ends] == ["refused"] * 3
    assert all(address in end.cause for end in ends)
    assert capfd.readouterr().err == ""


@pytest.fixture
def client_log():
    """What Dask's client would have said to the user."""
    records: queue.SimpleQueue = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    loggers = [logging.getLogger(name) for name in dask_link._LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.soak
def test_a_scheduler_that_stops_as_it_is_connected_to(inbox, work, monkeypatch):
    meet = dask_link.Link._meet

    leaders = []

    async def stop_first(link, **options):
        leaders.append(pool._engine._host._process.pid)
        psutil.Process(leaders[0]).suspend()
        monkeypatch.setattr(dask_link, "_SILENCE", 8)
        return await meet(link, **options)

    monkeypatch.setattr(dask_link.Link, "_meet", stop_first)
    pool = DaskPool(1)
    with pytest.raises(PoolError, match="did not answer for 2 s: make a new estimator"):
        pool.submit(job_of(work, ("value", 1.0)), inbox)
    wait_until(lambda: not led_by(leaders[0], os.getsid), "no process of its session is left")


@pytest.mark.soak
def test_dask_is_silent_about_what_the_pool_tells(inbox, work, client_log):
    pool = DaskPool(1)
    run(pool, inbox, job_of(work, ("value", 1.0)))
    cluster = psutil.Process(pool._engine._host._process.pid)
    cluster.suspend()
    job = job_of(work, ("length", "x" * 50_000_000))  # more than a connection takes at once
    pool.submit(job, inbox)
    time.sleep(1.0)  # for the client to be amid its writing when the connection is lost
    os.killpg(cluster.pid, signal.SIGKILL)
    inbox.until_over(job, timeout=PATIENCE)
    pool.close()

    assert client_log.empty()
    logging.getLogger("distributed.batched").warning("from another client")
    assert client_log.get(timeout=PATIENCE).msg == "from another client"


def submit_when_up(pool, job, inbox):
    for _ in range(9):
        try:
            return pool.submit(job, inbox)
        except PoolError:
            continue
    return pool.submit(job, inbox)


def test_an_address_where_nothing_answers(inbox, work, capfd, monkeypatch):
    assert dask_link._CONNECT_SECONDS <= 5.0, "as is promised"
    monkeypatch.setattr(dask_link, "_CONNECT_SECONDS", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        before = threads()
        pool = DaskPool(1, address=address)

        begin = time.monotonic()
        with pytest.raises(PoolError, match=f"no Dask scheduler can be reached at {address}"):
            pool.submit(job_of(work, ("value", 1.0)), inbox)
        seconds = time.monotonic() - begin
        pool.close()

    assert seconds < 16.0, "one second, and a busy machine"
    assert threads() == before
    assert inbox.messages.empty()
    assert capfd.readouterr().err == ""


def test_a_cluster_behind_tls(inbox, work, monkeypatch):
    security = distributed.Security.temporary()
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=4,
        processes=False,
        security=security,
        protocol="tls",
        dashboard_address="127.0.0.1:0",
    ) as there:
        pool = DaskPool(4, address=there.scheduler_address, security=security)
        ends = run(pool, inbox, *(job_of(work, ("value", float(n))) for n in range(8)))
        pool.close()
        monkeypatch.setattr(dask_link, "_CONNECT_SECONDS", 1.0)
        stranger = DaskPool(1, address=there.scheduler_address)
        with pytest.raises(PoolError, match="no Dask scheduler can be reached at tls://"):
            stranger.submit(job_of(work, ("value", 1.0)), inbox)

    assert [value_of(end) for end in ends] == [float(n) for n in range(8)]


def test_a_cluster_without_workers(inbox, work, monkeypatch):
    monkeypatch.setattr(dask_link, "_WORKERS_SECONDS", 0.2)
    with scheduler() as (_, address):
        pool = DaskPool(1, address=address)
        for _ in range(10):
            with pytest.raises(PoolError) as caught:
                pool.submit(job_of(work, ("value", 1.0)), inbox)
            if "can be reached" not in str(caught.value):
                break

    assert f"cluster at {address} has had no worker" in str(caught.value)


@pytest.mark.soak
def test_a_cluster_without_nannies(inbox, work, tmp_path):
    with scheduler("--no-nanny") as (_, address):
        pool = DaskPool(1, address=address)
        hung, after = job_of(work, ("until", "go")), job_of(work, ("value", 2.0))
        submit_when_up(pool, hung, inbox)
        inbox.until_started(hung)

        pool.abandon(hung)
        (lost,) = inbox.until_over(hung)
        (tmp_path / "go").touch()  # as somebody would end the worker
        (end,) = run(pool, inbox, after)
        pool.close()

    assert lost.cause.endswith("it has no nanny, so end its process yourself")
    assert value_of(end) == 2.0


def test_versions_that_agree_pass():
    check_versions({"one": own_versions(), "two": own_versions()})


def test_every_difference_of_versions_is_named():
    without = {name: version for name, version in own_versions().items() if name != PACKAGES[0]}
    older = own_versions() | {"python": "3.9", "qiskit": "1.4.0"}

    with pytest.raises(PoolError) as caught:
        check_versions({"one": older, "two": without, "three": older, "four": own_versions()})

    message = str(caught.value)
    assert (
        f"distributed-estimator (not installed) instead of {own_versions()[PACKAGES[0]]} on two"
        in message
    )
    assert (
        f"python 3.9 instead of {sys.version_info.major}.{sys.version_info.minor} on one, three"
        in message
    )
    assert "qiskit 1.4.0 instead of" in message
    assert "four" not in message


def test_many_workers_are_not_all_named():
    older = own_versions() | {"scipy": "1.0"}

    with pytest.raises(PoolError, match=r"on w0, .*, w7 and 92 more\. Install"):
        check_versions({f"w{n}": older for n in range(100)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "`workers` is 0"),
        ({"workers": 1, "address": 8786}, "`address` is 8786: give a string"),
        ({"workers": 1, "security": object()}, "`security` is given without `address`"),
        ({"workers": 1, "memory_limit": 0}, "`memory_limit` is 0"),
        ({"workers": 1, "memory_limit": "1 GB"}, "`memory_limit` is '1 GB'"),
        ({"workers": 1, "memory_limit": 10, "address": "tcp://h:1"}, "is given with `address`"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        DaskPool(**arguments)


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(MissingExtraError, match=r'pool="dask" needs `distributed`.*\[dask\]'):
        DaskPool(1)
