"""Corners of the runtime where numbers, times or ends could go wrong without anybody noticing."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit_aer.noise import NoiseModel, depolarizing_error
from qiskit_aer.primitives import SamplerV2

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.errors import (
    InputError,
    PoolError,
    RunCancelledError,
    TaskFailedError,
    ThrottledError,
)
from distributed_estimator.execution import (
    Assignment,
    Conditions,
    Constant,
    Deadline,
    Policy,
    Retry,
    SlowWorker,
    Stop,
    Stragglers,
    TaskSpec,
    run_tasks,
)
from distributed_estimator.execution.pools import ThreadPool
from distributed_estimator.records import QueryRecord, read_records


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
        if task.chunk[0] == 3 and task.shots > 128:
            self.over.wait(60)
        return super().run(experiment, task)


def test_what_a_round_has_at_the_deadline_is_returned_though_the_precision_is_not_met():
    SlowRound.over.clear()
    policy = Policy(deadline=Deadline(3.0))
    chosen = estimator(
        backend=SlowRound(), workers=8, shots=None, default_precision=0.01, policy=policy
    )
    try:
        with chosen:
            result = chosen.run([(chain(), "ZZZZ")]).result()[0]
    finally:
        SlowRound.over.set()
    assert result.metadata["missing"] == 2
    assert 0 < float(result.data.stds) < 0.05


def test_a_deadline_injects_no_more_delays():
    injected = []
    for deadline in (None, Deadline(60.0, chunks=4)):
        policy = Policy(deadline=deadline)
        chosen = estimator(stragglers=Stragglers(1.0, Constant(0.002)), policy=policy)
        with chosen:
            result = chosen.run([(chain(), "ZZZZ")]).result()[0]
        injected.append(result.metadata["straggler"]["injected_seconds"])
    assert injected[0] == pytest.approx(injected[1]) == pytest.approx(0.002 * 10)


def test_what_a_slow_worker_sleeps_is_counted():
    chosen = estimator(
        workers=1, stragglers=Stragglers(0.0, Constant(0.0), slow=SlowWorker(0, 0.01))
    )
    with chosen:
        straggler = chosen.run([(chain(), "ZZZZ")]).result()[0].metadata["straggler"]
    assert straggler["injected"] == 2
    assert straggler["injected_seconds"] == pytest.approx(0.02)


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
            with pytest.raises((RunCancelledError, PoolError)):
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
