"""The estimator on pools, under policies and faults: always the same bits, or one clear error."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes
from qiskit.providers import JobStatus
from qiskit_aer.primitives import SamplerV2

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import (
    CircuitError,
    DeadlineError,
    InputError,
    PoolError,
    RunCancelledError,
    TaskFailedError,
)
from distributed_estimator.execution import (
    Batches,
    ByLabel,
    Constant,
    Deadline,
    LargestInfluenceFirst,
    LongestFirst,
    Policy,
    Retry,
    Speculation,
    Stragglers,
)
from distributed_estimator.execution.pools import ThreadPool
from distributed_estimator.records import TaskRecord, read_records

LABEL = "AABBCC"


def pub(points=12):
    circuit = real_amplitudes(6, reps=1, entanglement="linear")
    rng = np.random.default_rng(3)
    values = rng.uniform(-3, 3, (points, 1, circuit.num_parameters))
    return circuit, ["ZZZZZZ", "XIZIYI"], values


def run(pool="threads", workers=2, policy=None, backend=None, **options):
    """A sampled run in which every task is one subexperiment, so that there are many."""
    options = {"shots": 64, "seed": 5, **options}
    policy = policy or Policy(subexperiments=1)
    chosen = EstimatorOptions(policy=policy, **options)
    with DistributedEstimator(LABEL, backend, pool, workers, chosen) as estimator:
        return estimator.run([pub()]).result()[0]


@pytest.fixture(scope="module")
def expected():
    return run(workers=1).data


def assert_same_bits(data, expected):
    assert np.array_equal(data.evs, expected.evs)
    assert np.array_equal(data.stds, expected.stds)


# --- the same bits --------------------------------------------------------------------------------


# On clusters `test_faults.py` compares the same run in `make test`, and kills workers meanwhile.
@pytest.mark.parametrize(
    "pool",
    ["threads", "processes", *(pytest.param(n, marks=pytest.mark.soak) for n in ("dask", "ray"))],
)
def test_the_same_bits_on_every_pool(pool, expected):
    result = run(pool)
    assert result.metadata["pool"] == pool
    assert_same_bits(result.data, expected)


@pytest.mark.parametrize(("pool", "workers"), [("threads", 8), ("processes", 1), ("processes", 3)])
def test_the_same_bits_on_any_number_of_workers(pool, workers, expected):
    assert_same_bits(run(pool, workers).data, expected)


@pytest.mark.parametrize(
    "policy",
    [
        {"order": LongestFirst()},
        {"order": ByLabel(), "in_flight": 1},
        {"order": LargestInfluenceFirst()},
        {"dispatch": Batches(40, delay=0.001)},
        {"speculation": Speculation(quantile=0.5, factor=1.0, budget=1.0)},
        {"speculation": Speculation(quantile=0.5, factor=1.0, budget=1.0, restart=True)},
        {"retry": Retry(attempts=9, timeout=30.0)},
    ],
)
def test_the_same_bits_under_every_policy(policy, expected):
    result = run(workers=4, policy=Policy(subexperiments=1, **policy))
    assert_same_bits(result.data, expected)
    assert result.record.policy == Policy(subexperiments=1, **policy).name


def test_the_same_bits_with_stragglers_and_speculation(expected):
    speculation = Speculation(quantile=0.5, factor=2.0, budget=1.0, restart=True)
    result = run(
        workers=8,
        policy=Policy(subexperiments=1, speculation=speculation),
        stragglers=Stragglers(0.02, Constant(0.05)),
    )
    assert_same_bits(result.data, expected)
    injected = result.record.straggler
    assert injected.injected > 0
    # Less than 50 ms each, as late attempts are withdrawn.
    assert 0 < injected.injected_seconds < 0.05 * injected.injected
    assert injected.p == 0.02


class Flaky(StatevectorBackend):
    """Every task fails the first time it is tried."""

    seen: ClassVar[set[str]] = set()

    def run(self, experiment, task):
        if task.key not in self.seen:
            self.seen.add(task.key)
            raise ConnectionError("the line is dead")
        return super().run(experiment, task)


def test_the_same_bits_when_every_task_fails_once(expected):
    Flaky.seen.clear()
    policy = Policy(subexperiments=1, retry=Retry(backoff=0.0))
    result = run(policy=policy, backend=Flaky())
    assert_same_bits(result.data, expected)
    assert result.record.retries == len(Flaky.seen) > 100


# --- failures -------------------------------------------------------------------------------------


class Refusing(StatevectorBackend):
    ran: ClassVar[list[int]] = []

    def run(self, experiment, task):
        self.ran.append(1)
        raise CircuitError("no such gate here")


def test_what_no_attempt_can_mend_ends_the_run_at_once():
    Refusing.ran.clear()
    with pytest.raises(CircuitError, match="no such gate here"):
        run(workers=1, backend=Refusing())
    assert len(Refusing.ran) == 1


# --- hanging and stopping -------------------------------------------------------------------------


class Hanging(StatevectorBackend):
    """The first task hangs until the test is over."""

    over = threading.Event()
    begun = threading.Event()

    def run(self, experiment, task):
        if not self.begun.is_set():
            self.begun.set()
            self.over.wait(60)
        return super().run(experiment, task)


@pytest.fixture
def hanging():
    Hanging.over.clear()
    Hanging.begun.clear()
    yield Hanging()
    Hanging.over.set()


def test_a_task_that_hangs_is_run_elsewhere(hanging, expected):
    """Without a limit per task this would wait for the hung thread for ever."""
    policy = Policy(subexperiments=1, retry=Retry(timeout=0.3, backoff=0.0))
    result = run(workers=1, policy=policy, backend=hanging)
    assert_same_bits(result.data, expected)
    assert result.record.retries >= 1


def test_a_run_can_be_cancelled_while_it_runs(hanging):
    options = EstimatorOptions(shots=64, seed=5, policy=Policy(in_flight=2))
    estimator = DistributedEstimator(LABEL, hanging, workers=2, options=options)
    job = estimator.run([pub()])
    assert hanging.begun.wait(10)
    assert job.cancel()
    with pytest.raises(RunCancelledError, match="cancelled before it was complete"):
        job.result()
    assert job.status() is JobStatus.CANCELLED
    assert job.cancelled()
    assert not job.cancel()


def test_a_closed_estimator_refuses_to_run(hanging):
    options = EstimatorOptions(shots=64, seed=5, policy=Policy(in_flight=2))
    estimator = DistributedEstimator(LABEL, hanging, workers=2, options=options)
    job = estimator.run([pub()])
    assert hanging.begun.wait(10)
    estimator.close()
    estimator.close()
    with pytest.raises(RunCancelledError, match=r"estimator was closed .* inside the `with` block"):
        job.result()
    assert job.cancelled()
    with pytest.raises(PoolError, match="the estimator is closed: make a new one"):
        estimator.run([pub()]).result()


def test_a_closed_estimator_leaves_no_threads():
    before = set(threading.enumerate())
    for _ in range(20):
        with DistributedEstimator(LABEL, workers=2, options=EstimatorOptions(seed=5)) as estimator:
            estimator.run([pub()], precision=0).result()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def test_pools_that_were_brought_along_are_left_open():
    with ThreadPoolExecutor(2) as executor:
        run(executor)
        assert executor.submit(int).result() == 0
    pool = ThreadPool(2)
    run(pool)
    run(pool)
    pool.close()


# --- deadline -------------------------------------------------------------------------------------


class Never(StatevectorBackend):
    """Nothing arrives of one of the fragments before the test is over."""

    over = threading.Event()

    def run(self, experiment, task):
        if experiment.fragment.index == 1:
            self.over.wait(30)
        return super().run(experiment, task)


def test_without_any_shots_of_a_subexperiment_there_is_no_value():
    Never.over.clear()
    policy = Policy(deadline=Deadline(0.5, chunks=2))
    try:
        with pytest.raises(DeadlineError, match=r"after 0.5 s nothing had arrived of fragment 1"):
            run(policy=policy, backend=Never(), workers=8)
    finally:
        Never.over.set()


# --- records --------------------------------------------------------------------------------------


def test_every_attempt_is_recorded(tmp_path):
    Flaky.seen.clear()
    path = tmp_path / "tasks.jsonl"
    policy = Policy(subexperiments=20, retry=Retry(backoff=0.0))
    options = EstimatorOptions(
        shots=64, seed=5, policy=policy, stragglers=Stragglers(0.1, Constant(0.001))
    )
    with DistributedEstimator(LABEL, Flaky(), workers=3, options=options, trace=path) as estimator:
        result = estimator.run([pub(4)]).result()[0]
    records = [r for r in read_records(path) if isinstance(r, TaskRecord)]
    done = [r for r in records if r.status == "done"]
    failed = [r for r in records if r.status == "failed"]
    assert {r.key for r in done} == {r.key for r in failed} == Flaky.seen
    assert len(done) == len(failed) == len(Flaky.seen)
    assert sum(r.subexperiments for r in done) == result.metadata["num_subexperiments"]
    assert sum(r.injected_delay > 0 for r in records) == result.record.straggler.injected
    assert sum(r.injected_delay for r in records) == pytest.approx(
        result.record.straggler.injected_seconds
    )
    assert {r.query_id for r in records} == {result.metadata["query_id"]}
    assert {r.worker for r in records} <= {"0", "1", "2"}
    for record in records:
        assert 0 <= record.submitted <= record.started <= record.finished
        assert record.finished - record.started >= record.injected_delay
        assert record.attempt == (record.status == "done")
    assert all("ConnectionError: the line is dead" in r.cause for r in failed)


# --- going on where a controller was lost ---------------------------------------------------------


# --- bad input ------------------------------------------------------------------------------------


class Tied(StatevectorBackend):
    """A backend that cannot leave its process."""

    def __init__(self):
        object.__setattr__(self, "lock", threading.Lock())


@pytest.mark.parametrize("pool", ["processes", "dask", "ray"])
def test_a_backend_that_cannot_be_sent_is_refused_before_anything_is(pool):
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"`backend` cannot be sent .*: use pool=\"threads\""):
        run(pool, backend=Tied())
    assert time.monotonic() - begin < 60


class Damaging(StatevectorBackend):
    """Every fifth task's first result is no number."""

    seen: ClassVar[set[str]] = set()

    def run(self, experiment, task):
        estimate = super().run(experiment, task)
        if int(task.key[:4], 16) % 5 == 0 and task.key not in self.seen:
            self.seen.add(task.key)
            estimate.values[0, 0, 0] = np.nan
        return estimate


def test_damaged_results_are_not_folded_in(expected):
    Damaging.seen.clear()
    policy = Policy(subexperiments=1, retry=Retry(backoff=0.0))
    result = run(policy=policy, backend=Damaging())
    assert_same_bits(result.data, expected)
    assert result.record.retries == len(Damaging.seen) > 10


class Poisoned(StatevectorBackend):
    """One fragment's tasks at one binding never succeed."""

    ran: ClassVar[list[int]] = []

    def run(self, experiment, task):
        if task.experiment == 1 and task.start == 3:
            raise RuntimeError("the device is on fire")
        self.ran.append(1)
        return super().run(experiment, task)


def test_a_task_that_always_fails_is_named_and_all_others_complete():
    Poisoned.ran.clear()
    policy = Policy(subexperiments=10_000, retry=Retry(backoff=0.0))
    with pytest.raises(TaskFailedError) as caught:
        run(policy=policy, backend=RowByRow(Poisoned()))
    message = str(caught.value)
    assert message.startswith("fragment 1, settings 0 to ")
    assert (
        "binding 3 failed 3 times, at last because RuntimeError: the device is on fire" in message
    )
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert len(Poisoned.ran) == 3 * 12 - 1


class RowByRow:
    """A backend whose tasks hold one binding."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def rows_per_task(self, experiment):
        return 1


def test_sampler_jobs_that_fail_or_are_cancelled_are_sent_again(monkeypatch):
    backend = SamplerBackend(SamplerV2(), circuits_per_job=16)
    undisturbed = run(policy=Policy(), backend=backend, workers=1)
    plain, jobs = SamplerV2.run, []

    def unreliable(sampler, pubs, *, shots=None):
        jobs.append(1)
        if len(jobs) % 3 == 0:
            raise RuntimeError("the job was cancelled by the provider")
        return plain(sampler, pubs, shots=shots)

    monkeypatch.setattr(SamplerV2, "run", unreliable)
    policy = Policy(retry=Retry(attempts=20, backoff=0.0))
    result = run(policy=policy, backend=backend, workers=1)
    assert_same_bits(result.data, undisturbed.data)
    assert result.record.retries == len(jobs) // 3 > 3


class Slow(StatevectorBackend):
    """The last chunk of every subexperiment's shots takes longer than anyone waits."""

    over = threading.Event()

    def run(self, experiment, task):
        if task.chunk[0] == 3:
            self.over.wait(30)
        return super().run(experiment, task)


def test_at_a_deadline_the_shots_that_have_arrived_make_up_the_value():
    Slow.over.clear()
    deadline = Deadline(3.0, chunks=4)
    policy = Policy(deadline=deadline)
    try:
        result = run(policy=policy, backend=Slow(), workers=32, shots=400)
    finally:
        Slow.over.set()
    whole = run(policy=policy, shots=400, workers=4)
    assert result.metadata["missing"] == 3  # of each fragment, a quarter
    assert result.metadata["shots_total"] == 0.75 * whole.metadata["shots_total"]
    assert whole.metadata["missing"] == 0
    exact = run(shots=None, default_precision=0.0, policy=Policy()).data.evs
    z = (result.data.evs - exact) / result.data.stds
    assert np.abs(z).max() < 5  # 24 values, five standard errors: 1 in 70,000
    # A quarter of the shots is missing, and error bars know: sqrt(4/3), give or take their noise.
    ratio = np.median(result.data.stds / whole.data.stds)
    assert 1.0 < ratio < 1.35


class Counted(StatevectorBackend):
    ran: ClassVar[list[str]] = []

    def run(self, experiment, task):
        self.ran.append(task.key)
        return super().run(experiment, task)


class Dying(Counted):
    def run(self, experiment, task):
        if len(self.ran) >= 50:
            raise InputError("the lights go out")
        return super().run(experiment, task)


def test_what_a_lost_run_had_finished_is_not_run_again(tmp_path, expected):
    path = tmp_path / "journal.jsonl"
    options = EstimatorOptions(shots=64, seed=5, policy=Policy(subexperiments=1))
    Counted.ran.clear()
    with (
        DistributedEstimator(LABEL, Dying(), workers=1, options=options, journal=path) as estimator,
        pytest.raises(InputError, match="lights"),
    ):
        estimator.run([pub()]).result()
    first = set(Counted.ran)
    Counted.ran.clear()
    with DistributedEstimator(LABEL, Counted(), options=options, journal=path) as estimator:
        result = estimator.run([pub()]).result()[0]
    assert_same_bits(result.data, expected)
    assert len(first) == 50
    assert not first & set(Counted.ran)
