"""`DistributedEstimator` as a Qiskit primitive: PUBs, jobs, seeds, records, plans, precision."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from helpers import entangled, random_paulis, reference, run
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    Gate,
    InverseModifier,
    Parameter,
    ParameterVector,
    PowerModifier,
)
from qiskit.circuit.library import (
    DiagonalGate,
    PauliEvolutionGate,
    PauliProductRotationGate,
    RXGate,
    SGate,
    TGate,
    UnitaryGate,
    real_amplitudes,
)
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers import EstimatorPub
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.providers import JobStatus
from qiskit.quantum_info import Clifford, Pauli, SparsePauliOp

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import CircuitError
from distributed_estimator.records import QueryRecord, read_records
from distributed_estimator.results import brief

TOLERANCE = 1e-10


def estimator(cuts="AABB", *, workers=2, pool="threads", log=None, backend=None, **options):
    return DistributedEstimator(
        cuts, backend, pool, workers, options=EstimatorOptions(**options), log=log
    )


def sampled(cuts="AABB", **changes):
    """An estimator with a seed and few shots."""
    return estimator(cuts, **{"shots": 100, "seed": 7, **changes})


def ansatz():
    return real_amplitudes(4, reps=1, entanglement="linear")


def bindings(count, seed=0, parameters=8):
    return np.random.default_rng(seed).uniform(-3, 3, (count, parameters))


def queries(path):
    return [record for record in read_records(path) if isinstance(record, QueryRecord)]


def assert_same_as_qiskit(pubs, cuts="AABB"):
    """Exact values of shape and content that Qiskit's own estimator gives; returns them."""
    ours = estimator(cuts).run(pubs, precision=0).result()
    theirs = StatevectorEstimator().run(pubs).result()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.data.evs.shape == other.data.evs.shape == mine.data.stds.shape
        assert mine.data.shape == other.data.shape
        assert mine.data.evs.dtype == np.float64
        assert np.allclose(mine.data.evs, other.data.evs, rtol=0, atol=TOLERANCE)
        assert not mine.data.stds.any()
    return ours


# --- PUBs -----------------------------------------------------------------------------------------

SHAPES = [(), (1,), (3,), (2, 1), (2, 3), (4, 2, 1)]
PAULIS = np.array(["ZZZZ", "XIXI", "IIIY", "ZXYZ", "IZII", "YYII", "ZIIZ", "XXXX"])


def broadcastable(pair):
    try:
        np.broadcast_shapes(*pair)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("observables", "values"),
    [p for p in product(SHAPES, [*SHAPES, (0,), (2, 0)]) if broadcastable(p)],
)
def test_observables_and_bindings_broadcast(observables, values):
    chosen = np.resize(PAULIS, observables).tolist()
    points = bindings(int(np.prod(values, dtype=int))).reshape(*values, 8)
    (result,) = assert_same_as_qiskit([(ansatz(), chosen, points)])
    assert result.data.evs.shape == np.broadcast_shapes(observables, values)


def test_values_in_every_form():
    vector, single = ParameterVector("v", 2), Parameter("s")
    circuit = entangled(4, 2, layers=1)
    circuit.rx(vector[0], 0)
    circuit.rzz(vector[1], 1, 2)
    circuit.ry(single, 3)
    grid = np.linspace(0, 1, 6)
    forms = [
        [0.1, 0.2, 0.3],
        np.array([[0.1, 0.2, 0.3]]),
        grid.reshape(2, 1, 3),
        {vector: [0.1, 0.2], single: 0.3},
        {"v[0]": 0.1, "v[1]": 0.2, "s": 0.3},
        {vector[0]: grid, vector[1]: grid + 1, single: grid + 2},
        {(single, vector[1]): grid.reshape(3, 2), vector[0]: [0.7, 0.8, 0.9]},
        {vector: np.ones((2, 3, 2)), single: np.zeros((2, 3))},
        BindingsArray({vector: np.ones((4, 2)), single: np.arange(4)}),
        BindingsArray({vector: np.ones((4, 1, 2)), single: np.ones((4, 1, 1))}, shape=(4, 1)),
    ]
    assert_same_as_qiskit([(circuit, "ZXYZ", form) for form in forms])


@pytest.mark.parametrize(
    "values", [0.4, [0.4], [[0.4]], [0.1, 0.2, 0.3], [[0.1], [0.2]], [[0.1, 0.2], [0.3, 0.4]]]
)
def test_the_last_axis_may_be_left_out_for_a_single_parameter(values):
    """Qiskit's rule: an array that cannot be read otherwise is an array of bindings."""
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("a"), 0)
    circuit.cx(0, 1)
    assert_same_as_qiskit([(circuit, "ZZ", values), (circuit, "ZI", {"a": values})], "AB")


@pytest.mark.parametrize(
    "values", [None, [], {}, np.zeros((3, 0)), np.zeros((2, 1, 0)), BindingsArray({}, shape=(5,))]
)
def test_circuits_without_parameters(values):
    assert_same_as_qiskit([(entangled(4, 1), "ZZXX", values)])


def test_estimator_pubs_and_pubs_of_every_length():
    circuit, points = ansatz(), bindings(3)
    pubs = [
        EstimatorPub.coerce((circuit, ["ZZZZ", "XIIX", "IIIY"], points)),
        EstimatorPub.coerce((entangled(4, 1), "ZZZZ")),
        (entangled(4, 2), "ZZZZ"),
        [entangled(4, 2), "ZZZZ", None],
        (circuit, "ZIII", points, None),
        (circuit, "ZIII", points, 0),
    ]
    assert_same_as_qiskit(pubs)


def test_several_circuits_in_any_order_keep_their_places():
    first, second = ansatz(), entangled(4, 3)
    pubs = [
        (first, "ZZZZ", bindings(2)),
        (second, ["XXII", "IIZZ"]),
        (first, "XIXI", bindings(1, seed=2)[0]),
        (second, "YYYY"),
        (ansatz(), "ZZZZ", bindings(2)),
    ]
    assert_same_as_qiskit(pubs)
    assert_same_as_qiskit(pubs[::-1])


# --- jobs and pools -------------------------------------------------------------------------------


class Held(Executor):
    """Runs nothing until it is released."""

    def __init__(self):
        self.released = threading.Event()
        self.calls = 0

    def submit(self, function, /, *arguments, **keywords):
        self.calls += 1
        future = Future()

        def work():
            self.released.wait()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments, **keywords))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future


def test_a_job_runs_in_the_background_and_can_be_waited_on():
    pool = Held()
    circuit = entangled(4, 1)
    job = estimator(pool=pool).run([(circuit, "ZZZZ")], precision=0)
    assert not job.done()
    assert job.status() in (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.INITIALIZING)
    pool.released.set()
    result = job.result()
    assert float(result[0].data.evs) == pytest.approx(reference(circuit, "ZZZZ"), abs=TOLERANCE)
    assert job.result() is result
    assert job.in_final_state()
    assert job.status() is JobStatus.DONE


def test_jobs_of_one_estimator_run_side_by_side():
    """Several started before any is waited for give what they give one after the other."""
    points = [bindings(20, seed) for seed in range(6)]
    pubs = [[(ansatz(), "ZZZZ", p)] for p in points]
    one, other = sampled(), sampled()
    jobs = [one.run(p) for p in pubs]
    together = [job.result()[0].data.evs for job in jobs]
    apart = [other.run(p).result()[0].data.evs for p in pubs]
    assert np.array_equal(together, apart)


class Counting(ThreadPoolExecutor):
    """Threads that remember what was submitted."""

    def __init__(self, workers):
        super().__init__(workers)
        self.futures = []

    @property
    def jobs(self):
        return len(self.futures)

    def submit(self, *arguments, **keywords):
        self.futures.append(super().submit(*arguments, **keywords))
        return self.futures[-1]


class FailingOnce(StatevectorBackend):
    """Fails on its first task and keeps later ones waiting until told to go on."""

    go_on = threading.Event()
    tasks: list[str] = []  # noqa: RUF012

    def run(self, experiment, task):
        self.tasks.append(task.key)
        if len(self.tasks) == 1:
            raise CircuitError("the device has no such gate")
        self.go_on.wait()
        return super().run(experiment, task)


WIDE = "A" * 8 + "B" * 8


def many_tasks():
    """A PUB of several tasks in several jobs."""
    circuit = real_amplitudes(16, reps=1, entanglement="linear")
    return circuit, ["Z" * 16, "XZ" * 8], bindings(500, parameters=32)[:, None]


def test_a_task_that_cannot_succeed_fails_the_job_and_nothing_else_is_begun():
    """One worker: what other tasks would give is not waited for."""
    backend = FailingOnce()
    with Counting(1) as pool:
        circuit, observables, values = many_tasks()
        query = circuit, observables, np.tile(values, (4, 1, 1)) + np.arange(2000)[:, None, None]
        job = estimator(WIDE, pool=pool, backend=backend, workers=1).run([query], precision=0)
        try:
            with pytest.raises(CircuitError, match="no such gate"):
                job.result()
        finally:
            backend.go_on.set()
        assert job.status() is JobStatus.ERROR
        assert ThreadPoolExecutor.submit(pool, int).result(timeout=10) == 0
    assert pool.jobs == 1


# --- seeds ----------------------------------------------------------------------------------------


def three_runs(instance):
    pub = (ansatz(), "ZZZZ", bindings(5))
    return [instance.run([pub]).result()[0].data.evs for _ in range(3)]


def test_equal_fragments_and_equal_observables_are_sampled_independently():
    """Two halves that are the same circuit, in one run: same distribution, other shots."""
    half = entangled(2, 5)
    circuit = half.tensor(half)
    result = run(circuit, ["IIZX", "ZXII"], "AABB", shots=1000, seed=1, precision=None)
    assert result.data.evs[0] != result.data.evs[1]


@pytest.mark.parametrize("options", [{"shots": 100}, {"shots": None, "default_precision": 0.05}])
def test_a_seed_fixes_a_sequence_of_unlike_runs(options):
    first = three_runs(estimator(seed=7, **options))
    assert np.array_equal(first, three_runs(estimator(seed=7, **options)))
    assert not np.array_equal(first, three_runs(estimator(seed=8, **options)))
    assert len({tuple(evs) for evs in first}) == 3


# --- pickling -------------------------------------------------------------------------------------


def test_a_pickled_estimator_goes_on_where_it_was(tmp_path):
    """Also with a pool that cannot be pickled and a log."""
    pub = (ansatz(), "ZZZZ", bindings(5))
    with ThreadPoolExecutor(2) as pool:
        original = sampled(pool=pool, log=tmp_path / "log.jsonl")
        original.run([pub]).result()
        copy = pickle.loads(pickle.dumps(original))
        ours = [original.run([pub]).result()[0].data.evs for _ in range(2)]
    assert np.array_equal(ours, [copy.run([pub]).result()[0].data.evs for _ in range(2)])
    assert len(queries(tmp_path / "log.jsonl")) == 5


def test_copies_of_an_unseeded_estimator_do_not_repeat_its_noise():
    original = estimator(shots=100)
    copy = pickle.loads(pickle.dumps(original))
    assert not np.array_equal(three_runs(original), three_runs(copy))


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_is_made_once_for_a_structure():
    instance = estimator()
    first = instance.run([(ansatz(), "ZZZZ", bindings(1))], precision=0).result()[0]
    again = instance.run([(ansatz(), "ZZZZ", bindings(2, 1))], precision=0).result()[0]
    assert not first.record.plan_cached
    assert not again.record.plan_cached, "other Parameter objects, another circuit"
    circuit = ansatz()
    for number in range(3):
        result = instance.run([(circuit, "ZZZZ", bindings(1, number))], precision=0).result()[0]
        assert result.record.plan_cached == (number > 0)
        copy = instance.run([(circuit.copy(), "ZZZZ", bindings(1))], precision=0).result()[0]
        assert copy.record.plan_cached
    other = instance.run([(circuit, "IIIX", bindings(1))], precision=0).result()[0]
    assert not other.record.plan_cached, "another observable has another light cone"


def test_a_circuit_changed_in_place_is_planned_anew():
    circuit = QuantumCircuit(4)
    circuit.ry(0.3, range(4))
    instance = estimator()
    changes = [
        lambda: circuit.cx(1, 2),
        lambda: circuit.data.pop(0),
        lambda: circuit.rz(0.2, 0),
        lambda: circuit.data.__setitem__(0, (RXGate(1.2), [circuit.qubits[3]], [])),
        lambda: circuit.append(UnitaryGate(RXGate(0.7).to_matrix()), [2]),
        lambda: circuit.compose(entangled(4, 1), inplace=True),
    ]
    for change in [lambda: None, *changes]:
        change()
        observables = ["ZZZZ", "IXXI", "YIIZ"]
        found = instance.run([(circuit, observables)], precision=0).result()[0].data.evs
        expected = [reference(circuit, observable) for observable in observables]
        assert np.abs(found - expected).max() <= TOLERANCE


def turn(shift):
    """Qiskit calls unitaries equal that agree to five digits; finite differences need more."""
    return UnitaryGate(RXGate(1.0 + shift).to_matrix())


def body(gate):
    circuit = QuantumCircuit(1, name="body")
    circuit.append(gate, [0])
    return circuit.to_gate()


class Rotation(Gate):
    """A user's gate whose angle only its matrix shows."""

    def __init__(self, angle):
        super().__init__("rotation", 1, [])
        self.angle = angle

    def __array__(self, dtype=None, copy=None):
        return RXGate(self.angle).to_matrix()


def clifford(turned):
    circuit = QuantumCircuit(1)
    circuit.h(0)
    if turned:
        circuit.s(0)
    return Clifford(circuit)


ALIKE = {
    "unitaries": [turn(shift) for shift in (0, 1e-6)],
    "controlled unitaries": [turn(shift).control(1) for shift in (0, 1e-6)],
    "unitaries in a gate": [body(turn(shift)) for shift in (0, 1e-6)],
    "expressions": [RXGate(Parameter("t") * 1.23456789), RXGate(Parameter("t") * 1.23456788)],
    "annotated bases": [AnnotatedOperation(g(), [InverseModifier()]) for g in (SGate, TGate)],
    "annotated powers": [AnnotatedOperation(TGate(), [PowerModifier(k)]) for k in (1, 3)],
    "cliffords": [clifford(False), clifford(True)],
    "own matrices": [Rotation(0.3), Rotation(1.3)],
    "evolutions": [PauliEvolutionGate(Pauli(p), 0.3) for p in "XY"],
    "products": [PauliProductRotationGate(Pauli(p), 0.3) for p in "XY"],
    "diagonals": [DiagonalGate([1, np.exp(1j * angle)]) for angle in (0.3, 0.3 + 1e-7)],
    "control states": [RXGate(1.0).control(1, ctrl_state=state) for state in (0, 1)],
}


@pytest.mark.parametrize("name", list(ALIKE))
def test_operations_alike_in_name_and_parameters_do_not_share_a_plan(name):
    instance = estimator("AB")
    found, expected = [], []
    for operation in ALIKE[name]:
        circuit = QuantumCircuit(2)
        circuit.ry(0.3, [0, 1])
        circuit.append(operation, range(operation.num_qubits))
        circuit.ry(0.8, [0, 1])
        pub = (circuit, "ZZ", [2.0] * circuit.num_parameters)
        found.append(float(instance.run([pub], precision=0).result()[0].data.evs))
        expected.append(reference(*pub))
    assert abs(expected[0] - expected[1]) > 1e-9
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_more_circuits_than_are_remembered():
    instance = estimator("AB", workers=1)
    for turn in range(2):
        for number in range(70):
            circuit = QuantumCircuit(2)
            circuit.ry(0.01 * number, 0)
            circuit.cx(0, 1)
            result = instance.run([(circuit, "ZI")], precision=0).result()[0]
            assert float(result.data.evs) == pytest.approx(np.cos(0.01 * number)), turn


def test_many_pubs_on_one_circuit_object_are_one_batch(tmp_path):
    """As a backward pass of Qiskit Machine Learning sends them."""
    circuit, points = ansatz(), bindings(300)
    observable = SparsePauliOp("ZZZZ")
    instance = estimator(log=tmp_path / "log.jsonl")
    result = instance.run([(circuit, observable, row) for row in points], precision=0).result()
    (record,) = queries(tmp_path / "log.jsonl")
    assert record.num_queries == 300
    whole = instance.run([(circuit, observable, points)], precision=0).result()[0].data.evs
    assert np.abs(whole - [float(r.data.evs) for r in result]).max() <= TOLERANCE


def test_bindings_that_repeat_on_a_fragment_run_once():
    """Only the first fragment's angles change: the others run for one binding."""
    circuit = ansatz()
    points = np.repeat(bindings(1), 50, axis=0)
    together = run(circuit, "ZZZZ", "AABB", points)
    assert together.record.num_queries == 50
    alone = run(circuit, "ZZZZ", "AABB", points[0])
    assert together.metadata["num_subexperiments"] == alone.metadata["num_subexperiments"]
    first = [number for number, p in enumerate(circuit.parameters) if p.index in (0, 1)]
    points[:, first] += np.arange(50)[:, None]
    varied = run(circuit, "ZZZZ", "AABB", points)
    assert varied.metadata["num_subexperiments"] < 50 * alone.metadata["num_subexperiments"]
    assert (
        np.abs(varied.data.evs - [reference(circuit, "ZZZZ", row) for row in points]).max()
        <= TOLERANCE
    )


# --- records --------------------------------------------------------------------------------------


def test_metadata_is_the_record_and_the_record_says_what_ran(tmp_path):
    circuit, path = ansatz(), tmp_path / "runs" / "queries.jsonl"
    result = sampled("AABB", workers=3, log=path).run(
        [(circuit, ["ZZZZ", "XXXX"], bindings(7)[:, None])]
    )
    metadata, record = result.result()[0].metadata, result.result()[0].record
    assert queries(path) == [record]
    assert all(getattr(record, name) == value for name, value in brief(record).items())
    assert brief(record).items() <= metadata.items()
    assert record.circuit.num_qubits == 4
    assert record.circuit.depth == circuit.depth()
    assert record.num_queries == 14
    assert record.partition_label == "AABB"
    assert (metadata["num_cuts"], metadata["num_fragments"], record.num_terms) == (1, 2, 6)
    assert (metadata["shots"], metadata["precision"], metadata["seed"]) == (100, None, 7)
    assert metadata["shots_total"] == 100 * metadata["num_subexperiments"]
    # Five settings a fragment, two bases, seven bindings.
    assert metadata["num_circuits"] == 2 * 5 * 2
    assert metadata["num_subexperiments"] == 7 * metadata["num_circuits"]
    assert (metadata["backend"], metadata["pool"]) == ("statevector", "threads")
    assert record.subexp_workers == 3
    assert record.pipeline == "contracted"
    assert record.quantity == "value"
    assert record.setting_basis == "full"
    stages = ("t_partition", "t_generate", "t_execute", "t_reconstruct")
    assert metadata["t_total"] == pytest.approx(sum(metadata[stage] for stage in stages))
    assert all(metadata[stage] > 0 for stage in stages)
    assert record.value.count == record.stderr.count == 14


@pytest.mark.parametrize(("basis", "circuits"), [("full", 60), ("minimal", 24)])
def test_a_chain_with_three_cuts_takes_the_circuits_it_should(basis, circuits):
    """DESIGN: two ends of one slot and two middles of two; five or three settings a slot."""
    result = run(ansatz(), "ZZZZ", "ABCD", bindings(1), setting_basis=basis)
    metadata = result.metadata
    assert metadata["num_cuts"] == 3
    assert metadata["num_circuits"] == metadata["num_subexperiments"] == circuits
    assert result.record.setting_basis == basis


def test_every_batch_appends_one_record(tmp_path):
    path = tmp_path / "log.jsonl"
    instance = estimator(log=path)
    circuit = entangled(4, 1)
    pubs = [(circuit, "ZZZZ"), (entangled(4, 2), "XXXX"), (circuit, "YYYY")]
    instance.run(pubs, precision=0).result()
    instance.run([(circuit, "ZZZZ")], precision=0).result()
    instance.run([(circuit, "ZZZZ")], precision=0).result()
    records = queries(path)
    assert sum(record.num_queries for record in records) == 5
    assert len({record.query_id for record in records}) == len(records) == 4
    assert len({record.run_id for record in records}) == 1


# --- precision ------------------------------------------------------------------------------------


def test_shots_win_over_precision_and_zero_is_exact():
    circuit = entangled(4, 1)
    exact = reference(circuit, "ZXZX")
    instance = sampled()
    for precision in (None, 0.5, 1e-9):
        result = instance.run([(circuit, "ZXZX")], precision=precision).result()[0]
        assert (result.metadata["shots"], result.metadata["precision"]) == (100, None)
        assert result.data.stds > 0
    for pub in [(circuit, "ZXZX"), (circuit, "ZXZX", None, 0)]:
        result = instance.run([pub], precision=0).result()[0]
        assert float(result.data.evs) == pytest.approx(exact, abs=TOLERANCE)
        assert (float(result.data.stds), result.metadata["shots"]) == (0, None)


def test_a_pubs_own_precision_goes_before_the_runs_and_that_before_the_options():
    circuit = entangled(4, 1)
    instance = estimator(default_precision=0.2, seed=1)
    pubs = [(circuit, "ZXZX", None, 0.03), (circuit, "ZXZX"), (circuit, "ZXZX", None, 0)]
    result = instance.run(pubs, precision=0.1).result()
    assert [r.metadata["precision"] for r in result] == [0.03, 0.1, 0]
    assert [r.metadata["target_precision"] for r in result] == [0.03, 0.1, 0]
    assert result[0].data.stds <= 0.03 < result[1].data.stds <= 0.1
    default = instance.run([(circuit, "ZXZX")]).result()[0]
    assert default.metadata["precision"] == 0.2
    assert 0.03 < default.data.stds <= 0.2


def test_the_default_precision_is_read_as_on_qiskits_own():
    """qiskit-algorithms reads it (`run_estimator_job`, version 0.4)."""
    for precision in (0, 0.3):
        qiskits = StatevectorEstimator(default_precision=precision)
        ours = estimator(default_precision=precision)
        assert ours.default_precision == qiskits.default_precision == precision


@pytest.mark.parametrize("basis", ["full", "minimal"])
@pytest.mark.parametrize("precision", [0.2, 0.05, 0.02])
@pytest.mark.parametrize("labels", [None, "AABB", "ABBA", "ABCD"])
def test_the_precision_asked_for_is_met_and_not_far_exceeded(labels, precision, basis):
    """For every query of a batch; the worst one decides how many shots are taken."""
    observables = ["ZZZZ", random_paulis(4, 5, 2) / 2, "XIII"]
    points = bindings(4, seed=5)[:, None]
    result = run(
        ansatz(), observables, labels, points, precision=precision, seed=3, setting_basis=basis
    )
    assert result.data.stds.shape == (4, 3)
    assert result.data.stds.max() <= precision
    # Few shots are planned with a margin, as pilots say little of how many are needed.
    assert result.data.stds.max() >= precision / 3 or result.metadata["shots"] <= 1024
    assert np.isfinite(result.data.evs).all()


def test_a_deterministic_value_takes_few_shots():
    circuit = QuantumCircuit(2)
    circuit.x(0)
    result = run(circuit, "ZZ", None, precision=1e-6, seed=1)
    assert (float(result.data.evs), float(result.data.stds)) == (-1, 0)
    # A chance of one in so many shots would be missed, and shift the value by half the precision.
    assert result.metadata["shots"] >= 4e6
    assert result.metadata["shots_total"] <= 4e7


# --- cuts -----------------------------------------------------------------------------------------


def test_automatic_cuts_serve_circuits_of_any_width():
    instance = estimator(AutoCut(3))
    for width in (2, 3, 4, 5):
        circuit = entangled(width, width, layers=1)
        result = instance.run([(circuit, "ZX" + "Z" * (width - 2))], precision=0).result()[0]
        expected = reference(circuit, "ZX" + "Z" * (width - 2))
        assert float(result.data.evs) == pytest.approx(expected, abs=TOLERANCE)
        assert (result.metadata["num_cuts"] > 0) == (width > 3)


def test_no_pubs_give_an_empty_result():
    assert len(estimator().run([]).result()) == 0


def test_a_pickled_plan_still_serves():
    circuit = ansatz()
    plan = pickle.loads(pickle.dumps(CutPlan.build(circuit, "AABB")))
    result = estimator(plan).run([(circuit, "ZXYZ", bindings(1))], precision=0).result()[0]
    assert result.data.evs == pytest.approx(reference(circuit, "ZXYZ", bindings(1)[0]))


# --- going on where another estimator stopped


def test_an_estimator_goes_on_where_another_stopped(tmp_path):
    pub = (ansatz(), "ZZZZ", np.linspace(-1, 1, 8))
    first = sampled(log=tmp_path / "log.jsonl")
    values = [float(first.run([pub]).result()[0].data.evs) for _ in range(4)]
    assert len(set(values)) == 4
    second = sampled(log=tmp_path / "log.jsonl")
    second.continue_run(first.run_id, 2)
    assert second.num_runs == 2
    assert [float(second.run([pub]).result()[0].data.evs) for _ in range(2)] == values[2:]
    assert second.num_runs == first.num_runs == 4
    assert len({record.run_id for record in queries(tmp_path / "log.jsonl")}) == 1
