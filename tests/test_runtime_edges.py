"""Corners of the runtime where numbers, times or ends could go wrong without anybody noticing."""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit_aer.noise import NoiseModel, depolarizing_error
from qiskit_aer.primitives import SamplerV2

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.errors import (
    DeadlineError,
    InputError,
    PoolError,
    PrecisionWarning,
    RunCancelledError,
    TaskFailedError,
    ThrottledError,
)
from distributed_estimator.execution import (
    Assignment,
    Conditions,
    Constant,
    Deadline,
    Fifo,
    LargestInfluenceFirst,
    LongestFirst,
    Policy,
    Retry,
    SlowWorker,
    Stop,
    Stragglers,
    TaskSpec,
    run_tasks,
)
from distributed_estimator.execution.pools import ThreadPool
from distributed_estimator.pipeline import pipeline
from distributed_estimator.records import QueryRecord, TaskRecord, read_records


def chain(qubits=4):
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(0.3 + qubit, qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


def estimator(label="AABB", backend=None, *, workers=2, journal=None, log=None, **options):
    options = EstimatorOptions(**{"shots": 100, "seed": 1, **options})
    return DistributedEstimator(label, backend, "threads", workers, options, log, journal=journal)


def value(chosen, precision=None):
    with chosen:
        data = chosen.run([(chain(), "ZZZZ")], precision=precision).result()[0].data
    return float(data.evs), float(data.stds)


# --- the journal ----------------------------------------------------------------------------------


def noisy(probability):
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(probability, 1), ["ry", "u"])
    return SamplerV2(options={"backend_options": {"noise_model": model}})


def test_a_journal_never_gives_one_backend_the_results_of_another(tmp_path):
    path = tmp_path / "journal.jsonl"
    backends = {"none": None, "aer": SamplerV2(), "some": noisy(0.1), "more": noisy(0.3)}
    plain = {name: value(estimator(backend=b)) for name, b in backends.items()}
    assert len(set(plain.values())) == 4, "or the test shows nothing"
    for _ in range(2):
        for name, backend in backends.items():
            assert value(estimator(backend=backend, journal=path)) == plain[name]


def test_records_count_what_ran_and_not_what_a_journal_had(tmp_path):
    journal, log = tmp_path / "journal.jsonl", tmp_path / "log.jsonl"
    for _ in range(2):
        value(estimator(journal=journal, log=log))
    first, second = (r for r in read_records(log) if isinstance(r, QueryRecord))
    assert first.shots_total == 100 * first.num_subexperiments > 0
    assert second.shots_total == second.num_subexperiments == 0
    assert second.value == first.value


def test_a_journal_needs_a_seed(tmp_path):
    with pytest.raises(InputError, match="`journal` needs a seed"):
        estimator(seed=None, journal=tmp_path / "journal.jsonl")


# --- deadlines ------------------------------------------------------------------------------------


class BusyAtFirst(StatevectorBackend):
    """The last chunk is asked to come again long after anyone waits."""

    def run(self, experiment, task):
        if task.chunk[0] == 3:
            raise ThrottledError("later", retry_after=60.0)
        return super().run(experiment, task)


def test_a_task_that_waits_for_its_next_attempt_is_missing_at_a_deadline_not_failed():
    chosen = estimator(backend=BusyAtFirst(), policy=Policy(deadline=Deadline(1.0)))
    with chosen:
        result = chosen.run([(chain(), "ZZZZ")]).result()[0]
    assert result.metadata["missing"] == 2
    assert result.metadata["shots_total"] == 0.75 * 100 * result.metadata["num_subexperiments"]


class Timed(StatevectorBackend):
    """A task takes a second of a clock that nothing else moves."""

    now: ClassVar[list[float]] = [0.0]

    def run(self, experiment, task):
        result = super().run(experiment, task)
        self.now[0] += 1.0
        return result


def timed(deadline, *, journal=None, log=None, order=None, subexperiments=None, **options):
    """One worker on that clock; a round of `chain` has 8 tasks, or 40 of one subexperiment each."""
    Timed.now[0] = 0.0
    policy = Policy(
        order=order or Fifo(), deadline=Deadline(deadline), subexperiments=subexperiments
    )
    chosen = estimator(
        backend=Timed(), workers=1, policy=policy, journal=journal, log=log, **options
    )
    chosen.pipeline.conditions = replace(
        chosen.pipeline.conditions, clock=lambda: float(Timed.now[0])
    )
    return chosen


@pytest.mark.parametrize("order", [Fifo(), LongestFirst(), LargestInfluenceFirst()])
def test_with_half_the_time_that_it_takes_there_are_half_the_shots(order):
    with timed(20.5, subexperiments=1, order=order) as chosen:
        result = chosen.run([(chain(), "ZZZZ")]).result()[0]
    with estimator(policy=Policy(), default_precision=0, shots=None) as chosen:
        exact = float(chosen.run([(chain(), "ZZZZ")]).result()[0].data.evs)
    assert result.metadata["missing"] == 19
    assert result.metadata["shots_total"] == 21 * 25
    assert abs(float(result.data.evs) - exact) < 5 * float(result.data.stds) < 2


def test_all_circuits_of_a_run_have_one_deadline():
    with timed(20.5) as chosen:
        results = chosen.run([(chain(), "ZZZZ") for _ in range(3)]).result()
    assert [result.metadata["missing"] for result in results] == [0, 0, 3]
    assert Timed.now[0] == 21
    with (
        timed(20.5) as chosen,
        pytest.raises(DeadlineError, match=r"after 20\.5 s .*a later deadline, or fewer circuits"),
    ):
        chosen.run([(chain(), "ZZZZ") for _ in range(4)]).result()


@pytest.fixture
def missed(monkeypatch):
    """The first round that a pilot plans is for a coarser precision, which it meets."""
    planned = pipeline.plan_shots

    def plan(pilots, sensitivities, accuracy, spent, pending=None, **keywords):
        if pending is None:
            accuracy = replace(accuracy, precision=2 * accuracy.precision)
        return planned(pilots, sensitivities, accuracy, spent, pending, **keywords)

    monkeypatch.setattr(pipeline, "plan_shots", plan)


def to_precision(deadline, log=None):
    with (
        timed(deadline, shots=None, default_precision=0.05, log=log) as chosen,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", PrecisionWarning)
        result = chosen.run([(chain(), "ZZZZ")]).result()[0]
    return (float(result.data.evs), float(result.data.stds)), result.metadata


@pytest.mark.usefixtures("missed")
def test_a_whole_round_is_not_thrown_away_for_one_that_comes_too_late():
    """The pilot ends at 8 s, the first round at 16 s, the second would at 24 s."""
    first, cut_short = to_precision(16.5)  # nothing of a fragment
    assert first[1] > 0.05
    assert cut_short["missing"] == 7
    second, more = to_precision(100.0)
    assert second[1] <= 0.05
    assert more["missing"] == 0
    totals = [cut_short["shots_total"]]
    for deadline, missing in ((18.5, 5), (22.5, 1)):  # not all of it
        kept, metadata = to_precision(deadline)
        assert kept == first
        # The clock moves before the result arrives, and the driver may look in between.
        assert metadata["missing"] in (missing, missing + 1)
        totals.append(metadata["shots_total"])
    assert sorted(set(totals)) == totals
    assert totals[-1] < more["shots_total"]


def test_what_a_resumed_run_adds_is_counted(tmp_path):
    journal, log = tmp_path / "journal.jsonl", tmp_path / "log.jsonl"
    for deadline in (20.5, 1000.0):
        with timed(deadline, subexperiments=1, journal=journal, log=log) as chosen:
            chosen.run([(chain(), "ZZZZ")]).result()
    first, second = (r for r in read_records(log) if isinstance(r, QueryRecord))
    assert first.missing == 19
    assert (first.num_subexperiments, first.shots_total) == (10, 525)
    assert (second.num_subexperiments, second.shots_total) == (10, 475)


def test_a_deadline_injects_no_more_delays():
    injected = []
    for deadline in (None, Deadline(60.0, chunks=4)):
        policy = Policy(deadline=deadline)
        chosen = estimator(stragglers=Stragglers(1.0, Constant(0.002)), policy=policy)
        with chosen:
            result = chosen.run([(chain(), "ZZZZ")]).result()[0]
        injected.append(result.record.straggler.injected_seconds)
    assert injected[0] == pytest.approx(injected[1]) == pytest.approx(0.002 * 10)


def test_what_a_slow_worker_sleeps_is_counted():
    chosen = estimator(
        workers=1, stragglers=Stragglers(0.0, Constant(0.0), slow=SlowWorker(0, 0.01))
    )
    with chosen:
        straggler = chosen.run([(chain(), "ZZZZ")]).result()[0].record.straggler
    assert straggler.injected == 2
    assert straggler.injected_seconds == pytest.approx(0.02)
    assert (straggler.slow_worker, straggler.slow_delay) == (0, 0.01)


# --- how work is divided among workers ------------------------------------------------------------


def test_short_tasks_of_a_large_batch_are_spread_over_the_workers(tmp_path):
    """A task of a few rows takes longer than its arithmetic does."""
    path = tmp_path / "tasks.jsonl"
    options = EstimatorOptions(shots=256, seed=3, policy=Policy(subexperiments=30))
    circuit = real_amplitudes(12, reps=0)
    for qubit in range(11):
        circuit.cx(qubit, qubit + 1)
    points = np.random.default_rng(0).random((40, 12))
    with DistributedEstimator("AAAABBBBCCCC", workers=4, options=options, trace=path) as chosen:
        chosen.run([(circuit, "Z" * 12, points)]).result()
    records = [r for r in read_records(path) if isinstance(r, TaskRecord)]
    assert len(records) == 54
    assert len({r.job for r in records}) >= 4


class Idle(ThreadPool):
    def submit(self, job, notify):
        raise AssertionError("this was to run where it was asked for")


@pytest.mark.parametrize("shots", [None, 1000])
def test_a_short_run_needs_no_worker(shots):
    options = EstimatorOptions(shots=shots, seed=1, default_precision=0)
    pool = Idle(8)
    with DistributedEstimator("AABBCCDDEEFF", None, pool, options=options) as chosen:
        precision = None if shots else 0
        result = chosen.run([(chain(12), "Z" * 12)], precision=precision).result()[0]
    assert abs(float(result.data.evs)) <= 2
    pool.close()


# --- memory ---------------------------------------------------------------------------------------


def test_the_number_of_workers_does_not_decide_how_a_contraction_is_sliced():
    """More workers take more memory for fragments; what is left for the network is the same."""
    circuit = QuantumCircuit(9)
    rng = np.random.default_rng(4)
    for qubit in range(9):
        circuit.ry(rng.uniform(-2, 2), qubit)
    for a in range(9):
        for b in (a + 1, a + 3):
            if b < 9 and (b == a + 3 or b % 3):
                circuit.rzz(rng.uniform(-2, 2), a, b)
                circuit.rx(rng.uniform(-2, 2), b)
    values = []
    for workers in (1, 8):
        options = EstimatorOptions(default_precision=0, memory_limit=400_000)
        with DistributedEstimator("ABCDEFGHI", None, "threads", workers, options) as chosen:
            values.append(float(chosen.run([(circuit, "Z" * 9)]).result()[0].data.evs))
    assert values[0] == values[1]


def test_a_finished_run_is_not_held_by_what_could_have_stopped_it():
    stop = Stop()
    work = Echo()
    pool = ThreadPool(1)
    specs = [TaskSpec("0", 1.0)]
    assignment = Assignment(work, [0], specs, lambda *_: None, str)
    for _ in range(3):
        run_tasks(pool, assignment, lambda *_: None, Conditions(stop=stop))
    assert not stop._listeners
    pool.close()


# --- ends -----------------------------------------------------------------------------------------


class Echo:
    key = "echo"

    def run(self, task):
        return (np.array([float(task)]),)


class Interrupted(Echo):
    key = "interrupted"

    def run(self, task):
        raise KeyboardInterrupt


def test_an_interrupt_inside_a_task_is_that_tasks_failure():
    pool = ThreadPool(1)
    assignment = Assignment(
        Interrupted(), [0], [TaskSpec("0", 1.0)], lambda *_: None, lambda t: f"task {t}"
    )
    policy = Policy(retry=Retry(attempts=2, backoff=0.0))
    with pytest.raises(TaskFailedError, match=r"task 0 failed 2 times, .*KeyboardInterrupt"):
        run_tasks(pool, assignment, lambda *_: None, Conditions(policy))
    pool.close()


class Failing(StatevectorBackend):
    calls: ClassVar[list[int]] = []

    def run(self, experiment, task):
        self.calls.append(1)
        raise RuntimeError("no")


class NotANumber(StatevectorBackend):
    def run(self, experiment, task):
        result = super().run(experiment, task)
        return replace(result, counts=tuple(counts * np.nan for counts in result.counts))


def test_a_short_run_takes_no_result_that_a_long_one_refuses():
    with (
        estimator("AAAA", NotANumber()) as chosen,
        pytest.raises(TaskFailedError, match=r"3 times, .*group 0 are not all finite"),
    ):
        chosen.run([(chain(), "ZZZZ")]).result()


def test_a_short_run_tries_a_task_no_more_often_than_a_long_one():
    Failing.calls.clear()
    with estimator("AAAA", Failing()) as chosen, pytest.raises(TaskFailedError, match="3 times"):
        chosen.run([(chain(), "ZZZZ")]).result()
    assert len(Failing.calls) == 3


def test_nothing_runs_on_a_closed_estimator():
    chosen = estimator()
    gradient = FragmentGradient(chosen, precision=0)
    circuit = QuantumCircuit(2)
    from qiskit.circuit import Parameter

    circuit.rx(Parameter("a"), 0)
    chosen.close()
    with pytest.raises(PoolError, match="the estimator is closed"):
        chosen.run([(chain(), "ZZZZ")], precision=0)
    with pytest.raises(PoolError, match="the estimator is closed"):
        gradient.run([circuit], ["ZZ"], [[0.1]]).result()


class Waiting(StatevectorBackend):
    over = threading.Event()
    begun = threading.Event()

    def run(self, experiment, task):
        self.begun.set()
        self.over.wait(60)
        return super().run(experiment, task)


def test_closing_cancels_runs_that_were_queued_too():
    Waiting.over.clear()
    Waiting.begun.clear()
    chosen = estimator(backend=Waiting(), policy=Policy(in_flight=2))
    jobs = [chosen.run([(chain(), "ZZZZ")]) for _ in range(40)]  # more than run side by side
    try:
        assert Waiting.begun.wait(20)
        chosen.close()
        for job in jobs:
            with pytest.raises(RunCancelledError, match="the estimator was closed"):
                job.result()
    finally:
        Waiting.over.set()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"dispatch": "batches"},
        {"order": "lpt"},
        {"speculation": True},
        {"deadline": 5.0},
        {"retry": None},
    ],
)
def test_parts_of_a_policy_of_the_wrong_type(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"`{name}` is .*: give "):
        Policy(**wrong)


@pytest.mark.soak
def test_a_deadline_ends_a_run_that_has_a_precision_to_meet():
    """Pilots, rounds and their repetitions have one deadline together."""
    chosen = estimator(
        backend=BusyAtFirst(),
        shots=None,
        default_precision=0.01,
        policy=Policy(deadline=Deadline(3.0)),
    )
    begin = time.monotonic()
    with chosen, pytest.raises(Exception, match=r"after 3 s .*: give a later deadline"):
        chosen.run([(chain(), "ZZZZ")]).result()
    assert (
        time.monotonic() - begin < 30
    )  # five rounds of 3 s each, were each given its own, and more


class SlowRound(StatevectorBackend):
    """Pilots are quick, and of the round that counts the last chunk never comes."""

    over = threading.Event()

    def run(self, experiment, task):
        if task.chunk[0] == 3 and np.max(task.shots) > 128:
            self.over.wait(60)
        return super().run(experiment, task)


def test_what_a_round_has_at_the_deadline_is_returned_though_the_precision_is_not_met():
    SlowRound.over.clear()
    policy = Policy(deadline=Deadline(3.0))
    chosen = estimator(
        backend=SlowRound(), workers=8, shots=None, default_precision=0.01, policy=policy
    )
    try:
        with chosen, pytest.warns(PrecisionWarning, match=r"precision 0\.01 takes more than"):
            result = chosen.run([(chain(), "ZZZZ")]).result()[0]
    finally:
        SlowRound.over.set()
    assert result.metadata["missing"] == 2
    assert 0 < float(result.data.stds) < 0.05
