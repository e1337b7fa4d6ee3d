"""What only the Dask pool does; what every pool does is in `test_pools.py`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress

import distributed
import numpy as np
import psutil
import pytest
from faults import is_gone, wait_until
from pool_works import Calls, Counted, job_of, wait_for_calls

from distributed_estimator.errors import InputError, MissingExtraError, PoolError
from distributed_estimator.execution.messages import Finished, Lost
from distributed_estimator.execution.pools import base, driven
from distributed_estimator.execution.pools.base import PACKAGES, check_versions, own_versions
from distributed_estimator.execution.pools.clusters import DaskEngine, DaskPool

MEMORY = 700 * 2**20
PATIENCE = 60.0


class Wild(Calls):
    """Works that only this pool is tried with."""

    def do_hoard(self, size):
        kept = np.ones(size // 8)
        time.sleep(PATIENCE)
        return (kept[:1],)


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


def test_a_worker_over_its_memory_limit_is_ended(inbox, work):
    hoards, following = job_of(work, ("hoard", 2 * MEMORY)), job_of(work, ("value", 2.0))
    with closing(DaskPool(1, memory_limit=MEMORY)) as pool:
        lost, after = run(pool, inbox, hoards, following)

    assert isinstance(lost, Lost)
    assert lost.kind == "lost"
    assert value_of(after) == 2.0


@pytest.mark.soak
def test_a_worker_that_is_stopped_before_it_begins(inbox, work):
    with closing(DaskPool(1)) as pool:
        (end,) = run(pool, inbox, job_of(work, ("pid",)))
        psutil.Process(int(value_of(end))).suspend()
        job = job_of(work, ("value", 3.0))
        pool.submit(job, inbox)
        pool.abandon(job)
        (lost,) = inbox.until_over(job)
        (after,) = run(pool, inbox, job_of(work, ("value", 2.0)))

    assert lost.kind == "lost"
    assert "did not come back in time" in lost.cause
    assert value_of(after) == 2.0


@pytest.mark.soak
def test_a_cluster_of_our_own_needs_no_certificates(inbox, work, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "true")
    with closing(DaskPool(1)) as pool:
        (end,) = run(pool, inbox, job_of(work, ("value", 4.0)))

    assert value_of(end) == 4.0


def test_closing_while_workers_start(inbox, work):
    pool = DaskPool(1)
    before = set(psutil.Process().children())
    errors = []

    def submit():
        try:
            pool.submit(job_of(work, ("value", 1.0)), inbox)
        except PoolError as error:
            errors.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    started = set()
    wait_until(lambda: started.update(set(psutil.Process().children()) - before) or started, "one")
    pool.close()
    thread.join(PATIENCE)

    assert errors == ["the pool is closed: make a new estimator"]
    wait_until(lambda: all(is_gone(p.pid) for p in started), "all are gone")


def test_a_cluster_that_takes_too_long_to_start(inbox, work, monkeypatch):
    """While its process says that it is there."""
    monkeypatch.setattr(driven, "SECONDS_TO_START", 0.5)
    before = psutil.Process().children()
    with pytest.raises(PoolError, match=r"on this machine \(no answer in time"):
        DaskPool(1).submit(job_of(work, ("value", 1.0)), inbox)
    assert not set(psutil.Process().children()) - set(before)


@contextmanager
def scheduler(*worker_options):
    """A scheduler in a process of its own, with workers; gives it and its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address, folder = f"tcp://127.0.0.1:{port}", tempfile.mkdtemp()
    shared = {"PYTHONPATH": os.pathsep.join(sys.path), "DASK_TEMPORARY_DIRECTORY": folder}
    started = [dask("scheduler", "--host", address, "--no-dashboard", **shared)]
    for option in worker_options:
        worker = ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", option]
        started.append(dask(*worker, **shared))
    try:
        wait_until(lambda: listens(port), "the scheduler listens")
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


def listens(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture(scope="module")
def host():
    """A scheduler's process and address, with a worker."""
    with scheduler("--nanny") as found:
        yield found


@pytest.fixture
def cluster(host):
    return host[1]


def test_a_cluster_that_is_there_is_used_and_left(cluster, inbox, tmp_path):
    work = Counted(str(tmp_path))
    for _ in range(2):
        with closing(DaskPool(3, address=cluster)) as pool:
            ends = run(pool, inbox, *(job_of(work, ("value", float(n))) for n in range(6)))

        assert [value_of(end) for end in ends] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(list(tmp_path.glob("unpickled.*"))) == 1


def test_a_hung_worker_of_a_cluster_is_replaced(cluster, inbox, work):
    hung, waiting = job_of(work, ("until", "go")), job_of(work, ("raise", "ran"))
    with closing(DaskPool(2, address=cluster)) as pool:
        pool.submit(hung, inbox)
        inbox.until_started(hung)
        pool.submit(waiting, inbox)  # to Dask, which has no other worker

        pool.cancel(waiting)
        pool.abandon(hung)
        lost, withdrawn = inbox.until_over(hung, waiting)
        (after,) = run(pool, inbox, job_of(work, ("value", 2.0)))

    assert (lost.kind, withdrawn.kind) == ("lost", "cancelled")
    assert "nanny" not in lost.cause
    assert value_of(after) == 2.0


def test_workers_of_other_versions_are_refused(cluster, inbox, work, monkeypatch, tmp_path):
    other = own_versions() | {"numpy": "1.0"}
    monkeypatch.setattr(base, "own_versions", lambda: other)
    before = psutil.Process().children()

    with pytest.raises(PoolError, match=rf"numpy {np.__version__} instead of 1\.0 on tcp://"):
        DaskPool(1, address=cluster).submit(job_of(work, ("value", 1.0)), inbox)

    assert not set(psutil.Process().children()) - set(before)
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_that_is_lost(host, inbox, work, tmp_path, monkeypatch, capfd):
    """The last of all that share the cluster: it is stopped, then killed."""
    process, address = host
    monkeypatch.setattr(driven, "SILENCE", 4.0)
    silent, pool = DaskPool(1, address=address), DaskPool(2, address=address)
    jobs = [job_of(work, ("until", "go"), number=n) for n in range(3)]
    first = job_of(work, ("value", 1.0))
    run(silent, inbox, first)
    for job in jobs:
        pool.submit(job, inbox)
    wait_for_calls(tmp_path, "until", 1)

    psutil.Process(process.pid).suspend()
    waiting = job_of(work, ("value", 1.0))
    silent.submit(waiting, inbox)
    (refused,) = inbox.until_over(waiting, timeout=PATIENCE)
    process.kill()
    ends = inbox.until_over(*jobs, timeout=PATIENCE)
    with pytest.raises(PoolError, match=r"Dask is gone \(.*: make a new estimator"):
        pool.submit(job_of(work, ("value", 1.0)), inbox)
    pool.close()

    assert refused.cause == f"Dask is gone (the scheduler at {address} did not answer for 4 s)"
    assert [end.kind for end in ends] == ["refused"] * 3
    assert all(address in end.cause for end in ends)
    assert capfd.readouterr().err == ""


def test_an_address_where_nothing_answers(inbox, work, capfd, monkeypatch):
    assert DaskEngine.limits[0] <= 5.0, "as is promised"
    monkeypatch.setattr(DaskEngine, "limits", (0.5, 10.0))
    before = psutil.Process().children()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(PoolError, match=f"no Dask scheduler can be reached at {address}"):
            DaskPool(1, address=address).submit(job_of(work, ("value", 1.0)), inbox)

    assert time.monotonic() - begin < 16.0, "half a second, and a busy machine"
    assert not set(psutil.Process().children()) - set(before)
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
        with closing(DaskPool(4, address=there.scheduler_address, security=security)) as pool:
            ends = run(pool, inbox, *(job_of(work, ("value", float(n))) for n in range(8)))
        monkeypatch.setattr(DaskEngine, "limits", (0.5, 10.0))
        stranger = DaskPool(1, address=there.scheduler_address)
        with pytest.raises(PoolError, match="no Dask scheduler can be reached at tls://"):
            stranger.submit(job_of(work, ("value", 1.0)), inbox)

    assert [value_of(end) for end in ends] == [float(n) for n in range(8)]


def test_a_cluster_without_workers(inbox, work, monkeypatch):
    monkeypatch.setattr(DaskEngine, "limits", (5.0, 0.2))
    with (
        scheduler() as (_, address),
        pytest.raises(PoolError, match=f"cluster at {address} has had no worker for 0.2 s"),
    ):
        DaskPool(1, address=address).submit(job_of(work, ("value", 1.0)), inbox)


@pytest.mark.soak
def test_a_cluster_without_nannies(inbox, work, tmp_path):
    hung, after = job_of(work, ("until", "go")), job_of(work, ("value", 2.0))
    with scheduler("--no-nanny") as (_, address), closing(DaskPool(1, address=address)) as pool:
        pool.submit(hung, inbox)
        inbox.until_started(hung)
        pool.abandon(hung)
        (lost,) = inbox.until_over(hung)
        (tmp_path / "go").touch()  # as somebody would end the worker
        (end,) = run(pool, inbox, after)

    assert lost.cause.endswith("it has no nanny, so end its process yourself")
    assert value_of(end) == 2.0


def test_every_difference_of_versions_is_named():
    without = {name: version for name, version in own_versions().items() if name != PACKAGES[0]}
    older = own_versions() | {"python": "3.9", "qiskit": "1.4.0"}
    check_versions({"one": own_versions(), "two": own_versions()})

    with pytest.raises(PoolError) as caught:
        check_versions({"one": older, "two": without, "three": older, "four": own_versions()})

    message, own = str(caught.value), own_versions()
    assert f"{PACKAGES[0]} (not installed) instead of {own[PACKAGES[0]]} on two" in message
    assert f"python 3.9 instead of {own['python']} on one, three" in message
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
