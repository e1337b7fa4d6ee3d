"""A fork of a program that has used its estimators: nothing hangs, nothing is done twice."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import entangled, reference

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend, statevector
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import PoolError, RecordError
from distributed_estimator.execution import Journal, Policy
from distributed_estimator.execution.pools import ProcessPool, ThreadPool
from distributed_estimator.pipeline import Prepared
from distributed_estimator.records import QueryRecord, read_records
from distributed_estimator.reference import ReferenceEstimator

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

PUB = (entangled(4, 1), "ZZZZ")
LONG = 30.0
"""Seconds after which a fork is taken to hang; it takes a few hundredths."""


def in_a_fork(call):
    """What `call` returns, or the error it raises, in a fork of this process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            sender.send(call())
        except BaseException as error:
            sender.send(error)
        finally:
            os._exit(0)
    sender.close()
    try:
        assert receiver.poll(LONG), "the fork hangs"
        return receiver.recv()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        receiver.close()


def estimator(pool="threads", **options):
    return DistributedEstimator("AABB", pool=pool, workers=2, options=EstimatorOptions(**options))


def value(chosen, precision=0.05, pub=PUB):
    return float(chosen.run([pub], precision=precision).result()[0].data.evs)


def value_of_shared():
    return value(Shared.estimator, 0)


class Shared:
    estimator: DistributedEstimator


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_a_used_estimator_serves_multiprocessings_own_pool(pool):
    """Whose workers are daemons, which may not have children of their own."""
    with estimator(pool) as Shared.estimator:
        value_of_shared()
        with multiprocessing.get_context("fork").Pool(1) as forks:
            forked = forks.apply_async(value_of_shared).get(timeout=2 * LONG)
        assert forked == pytest.approx(reference(*PUB), abs=1e-10)
        assert value_of_shared() == forked


def test_threads_of_ours_may_be_brought_to_a_fork():
    pool = ThreadPool(2)
    with estimator(pool) as chosen:
        assert in_a_fork(lambda: value(chosen, 0)) == value(chosen, 0)
    pool.close()


@pytest.mark.parametrize("make", [ProcessPool, ThreadPoolExecutor])
def test_other_pools_that_are_brought_are_refused_in_a_fork(make):
    pool = make(1)
    # With another policy, a short job does not run without a worker.
    with estimator(pool, policy=Policy(in_flight=1)) as chosen:
        value(chosen)
        error = in_a_fork(lambda: value(chosen))
        assert isinstance(error, PoolError)
        assert str(error) == (
            f"the pool's workers belong to process {os.getpid()}, and this is a fork of it: make a "
            "new estimator here, with a new pool or one by name"
        )
        value(chosen)
    pool.close() if isinstance(pool, ProcessPool) else pool.shutdown()


PLACES = {
    "plan": (CutPlan, "build"),
    "property": (vars(Prepared)["circuit_info"], "func"),
    "program": (statevector, "Program"),
    "task": (StatevectorBackend, "run"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_fork_does_not_wait_for_what_another_thread_was_doing(place, monkeypatch):
    """In all but the last, that thread holds a lock."""
    owner, name = PLACES[place]
    original, parent = getattr(owner, name), os.getpid()
    reached, go_on = threading.Event(), threading.Event()

    def held(*arguments):
        if os.getpid() == parent:
            reached.set()
            go_on.wait(LONG)
        return original(*arguments)

    monkeypatch.setattr(owner, name, held)
    circuit = entangled(4, 1)
    for qubit in range(4):  # no other has fragments like these, whose programs are remembered
        circuit.ry(len(place), qubit)
    pub = circuit, "ZXYZ"
    with estimator() as chosen:
        try:
            job = chosen.run([pub], precision=0.05)
            assert reached.wait(LONG)
            forked = in_a_fork(lambda: value(chosen, 0, pub))
            waited_for = in_a_fork(job.result)
        finally:
            go_on.set()
        assert forked == pytest.approx(reference(*pub), abs=1e-10)
        assert isinstance(waited_for, PoolError)
        assert f"the run goes on in process {os.getpid()}, and this is a fork" in str(waited_for)
        job.result()


def draws(chosen):
    pub = (entangled(2, 1), ["ZZ", "XX", "YY"])
    return tuple(chosen.run([pub]).result()[0].data.evs)


def test_noise_of_a_fork_is_its_own():
    """Thousands of shots for each of three values: the same by chance once in 10⁵ or less."""
    chosen = DistributedEstimator("AB", options=EstimatorOptions(shots=4096))
    draws(chosen)
    forks = [in_a_fork(lambda: draws(chosen)) for _ in range(2)]
    assert len({*forks, draws(chosen)}) == 3


def test_noise_of_a_fork_with_a_seed_is_what_the_original_draws_next():
    """As that of pickled copies."""
    chosen = DistributedEstimator("AB", options=EstimatorOptions(shots=64, seed=7))
    draws(chosen)
    copy = pickle.loads(pickle.dumps(chosen))
    assert in_a_fork(lambda: draws(chosen)) == draws(copy) == draws(chosen)


def test_noise_of_the_references_copies_and_forks_is_their_own():
    chosen = ReferenceEstimator("AB", shots=128, defer_measurements=True)
    copy = pickle.loads(pickle.dumps(chosen))
    assert len({in_a_fork(lambda: draws(chosen)), draws(copy), draws(chosen)}) == 3


def test_records_of_a_fork_are_its_own(tmp_path):
    path = tmp_path / "log.jsonl"
    with DistributedEstimator("AABB", workers=2, log=path, trace=path) as chosen:
        value(chosen)
        in_a_fork(lambda: value(chosen))
        value(chosen)
    records = list(read_records(path))
    runs = [record.run_id for record in records if isinstance(record, QueryRecord)]
    assert len(runs) == 3
    assert runs[0] == runs[2] != runs[1]
    assert sum(record.kind == "header" for record in records) == 1


def test_a_journal_stays_with_the_parent(tmp_path):
    path = tmp_path / "run.journal"
    options = EstimatorOptions(shots=64, seed=7)
    with DistributedEstimator("AABB", options=options, journal=path) as chosen:
        value(chosen)
        size = path.stat().st_size
        forked = in_a_fork(lambda: value(chosen))
        assert path.stat().st_size == size > 0
        assert value(chosen) == forked
        assert path.stat().st_size > size
    with Journal(path) as journal:
        journal.add("task", (np.array([1.0]),))
        error = in_a_fork(lambda: journal.add("other", (np.array([2.0]),)))
        assert isinstance(error, RecordError)
        assert "in use by another run" in str(error)
        assert journal.find("other") is None
