"""The reference pipeline: the addon's counts and values, one record a query, honest by default.

Bounds on sampled values. A cut CX has six terms of weight ±1/2, so the squared weights of k cuts
add up to 1.5^k. A term is a product of independent sample means, one for each of F fragments, of
outcomes ±1 over S shots: by the Efron-Stein inequality its variance is at most F/S. Hence the
standard deviation of a value is at most sqrt(1.5^k F/S), and five of these are allowed.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Measure, Parameter
from qiskit.circuit.library import (
    UnitaryGate,
    get_standard_gate_name_mapping,
    real_amplitudes,
    z_feature_map,
)
from qiskit.primitives import BaseSamplerV2, StatevectorSampler
from qiskit.quantum_info import Operator, PauliList, SparsePauliOp, Statevector, random_unitary
from qiskit_addon_cutting.instructions import CutWire, Move
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import SamplerV2

from distributed_estimator.errors import (
    BackendError,
    CircuitError,
    CutError,
    InputError,
    MissingExtraError,
    ObservableError,
    RecordError,
)
from distributed_estimator.execution.messages import SlowWorker
from distributed_estimator.execution.stragglers import Constant, Pareto, Stragglers
from distributed_estimator.records import (
    Header,
    QueryRecord,
    RecordWriter,
    StragglerInfo,
    read_records,
)
from distributed_estimator.records.environment import thread_limits
from distributed_estimator.reference import ReferenceEstimator
from distributed_estimator.reference.execution import lifted_limit
from distributed_estimator.reference.stages import CutStages, defer_measurements, flatten

LABELS = {0: None, 1: "AABB", 2: "AABC", 3: "ABCD"}
COUNTS = {1: 12, 2: 108, 3: 864}


def qnn() -> QuantumCircuit:
    """The circuit of the paper, §V-A: four qubits, a chain of three CX."""
    return z_feature_map(4).compose(real_amplitudes(4, reps=1, entanglement="linear"))


def telling_points(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Parameter values, shape (count, 12), whose exact values are far from 0."""
    draws = np.random.default_rng(11).uniform(-math.pi, math.pi, (100, qnn().num_parameters))
    far = np.argsort([-abs(exact(qnn(), "ZZZZ", row)) for row in draws])
    return draws[far[:count]]


def exact(circuit: QuantumCircuit, observable: str | SparsePauliOp, values: Any = ()) -> float:
    state = Statevector(circuit.assign_parameters(values))
    return float(state.expectation_value(SparsePauliOp(observable)).real)


def bound(cuts: int, fragments: int, shots: int) -> float:
    return 5 * math.sqrt(1.5**cuts * fragments / shots)


def bell(angle: float | None = None) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("a") if angle is None else angle, 0)
    circuit.cx(0, 1)
    return circuit


def once(labels: Any, *pub: Any, **options: Any) -> Any:
    """The result of a single PUB."""
    return ReferenceEstimator(labels, **options).run([pub]).result()[0]


class CountingSampler(BaseSamplerV2):
    """Aer's sampler, noting how many circuits each job holds."""

    def __init__(self) -> None:
        self.jobs: list[int] = []

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        self.jobs.append(len(pubs))
        return SamplerV2(seed=len(self.jobs)).run(pubs, shots=shots)


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuts", "deferred", "points", "shots"),
    [
        (0, False, 20, 8192),
        (1, False, 2, 2048),
        (2, True, 1, 2048),
        pytest.param(1, True, 8, 8192, marks=pytest.mark.soak),
    ],
)
def test_values_agree_with_the_statevector(
    cuts: int, deferred: bool, points: int, shots: int
) -> None:
    values = telling_points(points)
    options = {"seed": 7, "shots": shots, "defer_measurements": deferred}
    evs = once(LABELS[cuts], qnn(), "ZZZZ", values, **options).data.evs
    expected = np.array([exact(qnn(), "ZZZZ", row) for row in values])
    assert np.abs(expected).min() > 1.5 * bound(cuts, cuts + 1, shots), "these points show nothing"
    assert np.abs(evs - expected).max() < bound(cuts, cuts + 1, shots)


def test_three_cuts_agree_with_the_statevector() -> None:
    circuit = QuantumCircuit(4)
    circuit.h(0)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    result = once("ABCD", circuit, "ZZZZ", seed=7, shots=256, defer_measurements=True)
    assert result.metadata["num_subexperiments"] == 864
    assert abs(result.data.evs - 1) < bound(3, 4, 256)


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_the_addon_writes_out_every_term(cuts: int) -> None:
    labels = LABELS[cuts]
    assert labels is not None
    stages = CutStages(labels)
    circuit = qnn().assign_parameters(telling_points(1)[0])
    experiments = stages.generate(stages.partition(circuit, PauliList(["ZZZZ"])))
    assert experiments.num_circuits == COUNTS[cuts]
    assert (experiments.num_cuts, experiments.num_terms) == (cuts, 6**cuts)


@pytest.mark.parametrize("labels", ["AABB", None])
def test_sums_of_paulis_with_identities_and_projectors(labels: str | None) -> None:
    circuit = qnn()
    values = telling_points(1)[0]
    observables = [
        SparsePauliOp(["IIII", "ZZII", "XIXI", "IYYI"], [0.5, -0.7, 0.3, 0.2]),
        {"ZZ01": 1.0},
        "IIII",
    ]
    options = {"seed": 5, "shots": 4096, "defer_measurements": True}
    evs = once(labels, circuit, observables, values, **options).data.evs
    projectors = SparsePauliOp(["ZZII", "ZZZI", "ZZIZ", "ZZZZ"], [0.25, 0.25, -0.25, -0.25])
    expected = [exact(circuit, o, values) for o in (observables[0], projectors, "IIII")]
    # Weights whose absolute values add up to at most 1.7 scale the bound of a single Pauli string.
    assert np.abs(evs - expected).max() < 1.7 * bound(1, 2, 4096)


@pytest.mark.parametrize("labels", ["AB", None])
def test_small_weights_count(labels: str | None) -> None:
    """On |11>, where every shot says the same of an uncut circuit and most of a cut one."""
    circuit = QuantumCircuit(2)
    circuit.x(0)
    circuit.cx(0, 1)
    observable = SparsePauliOp(["ZZ", "ZI", "IZ"], [9e-9, -2e-8, -1e-30])
    value = float(once(labels, circuit, observable, seed=5, shots=4096).data.evs)
    assert abs(value - 2.9e-8) <= 2.9e-8 * bound(1, 1, 4096)


def test_a_deferred_subexperiment_has_the_outcomes_of_the_original() -> None:
    """Both sampled distributions lie within the distance that as many shots keep from the exact.

    Total variation of S shots over d outcomes: its mean is at most sqrt(d/S)/2, and it exceeds its
    mean by t with probability exp(-2 S t²) at most (McDiarmid).
    """
    shots = 4096
    circuit = QuantumCircuit(3)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    circuit.rx(1.1, 1)
    circuit.append(Move(), [1, 2])
    circuit.ry(0.4, 2)
    circuit.rzz(0.9, 0, 1)
    stages = CutStages("ABC")
    experiments = stages.generate(stages.partition(circuit, PauliList(["ZXZ"])))
    circuits = [circuit for of in experiments.circuits.values() for circuit in of][::29]
    assert any("reset" in circuit.count_ops() for circuit in circuits)
    for original in circuits:
        deferred = defer_measurements(original)
        assert "reset" not in deferred.count_ops()
        counts = [
            SamplerV2(seed=seed).run([c], shots=shots).result()[0].join_data()
            for seed, c in enumerate((original, deferred))
        ]
        a, b = (data.get_int_counts() for data in counts)
        distance = sum(abs(a.get(k, 0) - b.get(k, 0)) for k in a | b) / (2 * shots)
        outcomes = 2 ** counts[0].num_bits
        assert distance < math.sqrt(outcomes / shots) + 2 * math.sqrt(math.log(1e9) / (2 * shots))


def test_a_moved_wire_is_cut_by_its_labels() -> None:
    circuit = QuantumCircuit(3)
    circuit.compose(bell(0.6), inplace=True)
    circuit.append(Move(), [1, 2])
    circuit.ry(0.4, 2)
    whole = bell(0.6)
    whole.ry(0.4, 1)
    # A wire has eight terms of weight ±1/2: their squares add up to 2.
    limit = 5 * math.sqrt(2 * 2 / 4096)
    for deferred in (False, True):
        for labels in ("AAB", "AAA"):
            options = {"seed": 3, "shots": 4096, "defer_measurements": deferred}
            result = once(labels, circuit, "ZIZ", **options)
            assert result.metadata["num_cuts"] == (labels == "AAB")
            assert abs(result.data.evs - exact(whole, "ZZ")) < limit


def test_the_uncut_error_bar_is_the_sample_s_own_and_a_cut_circuit_has_none() -> None:
    shots = 500
    data = once(None, bell(1.0), "ZI", shots=shots, seed=1).data
    # Outcomes are ±1, so the sample variance follows from the sample mean.
    assert data.stds == pytest.approx(math.sqrt((1 - data.evs**2) / (shots - 1)))
    assert math.isnan(once(None, bell(1.0), "ZI", shots=1, seed=1).data.stds)
    assert math.isnan(once("AB", bell(1.0), "ZI", shots=10, seed=1).data.stds)


# --- circuits ---------------------------------------------------------------------------------

GATES = {
    name: gate
    for name, gate in get_standard_gate_name_mapping().items()
    if isinstance(gate, Gate) and gate.num_qubits > 0
}


def bound_gate(gate: Gate) -> Gate:
    return type(gate.to_mutable())(*[0.3 + 0.4 * k for k in range(len(gate.params))])


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_standard_gate_runs_whole_and_comes_apart(name: str) -> None:
    gate = bound_gate(GATES[name])
    circuit = QuantumCircuit(gate.num_qubits)
    for qubit in range(gate.num_qubits):
        circuit.ry(0.5 + 0.3 * qubit, qubit)
    circuit.append(gate, range(gate.num_qubits))
    circuit.h(range(gate.num_qubits))
    apart = flatten(circuit, lambda qubits: len(qubits) > 1)
    assert all(len(item.qubits) <= 2 for item in apart.data)
    assert Operator(apart).equiv(Operator(circuit))
    whole = flatten(circuit, lambda qubits: False)
    assert Operator(whole).equiv(Operator(circuit))
    observable = "Z" * circuit.num_qubits
    value = once(None, circuit, observable, shots=2000, seed=2).data.evs
    assert abs(value - exact(circuit, observable)) < 5 / math.sqrt(2000)


def test_composites_matrices_and_open_controls_come_apart() -> None:
    inner = QuantumCircuit(3, global_phase=0.3)
    inner.ccx(0, 1, 2)
    inner.append(UnitaryGate(random_unitary(8, seed=3)), [2, 0, 1])
    inner.cx(0, 2, ctrl_state=0)
    circuit = QuantumCircuit(4)
    circuit.h(range(4))
    circuit.append(inner.to_gate(), [3, 1, 0])
    circuit.barrier()
    flat = flatten(circuit, lambda qubits: len({qubit // 2 for qubit in qubits}) > 1)
    assert all(len(i.qubits) <= 2 for i in flat.data if i.operation.name != "barrier")
    assert Operator(flat).equiv(Operator(circuit))


@pytest.mark.parametrize("labels", ["AAAA", "AABB", ["left", "left", "right", None]])
def test_labels_that_cut_nothing_run_uncut(labels: Any) -> None:
    circuit = QuantumCircuit(4)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.x(2)
    circuit.barrier()
    result = once(labels, circuit, "IZZZ", seed=1)
    assert (result.metadata["num_cuts"], result.metadata["num_fragments"]) == (0, 1)
    assert result.data.evs == -1


# --- the interface ----------------------------------------------------------------------------


def test_pubs_broadcast_like_those_of_other_estimators() -> None:
    estimator = ReferenceEstimator("AB", seed=1, shots=1000)
    observables = [["ZI"], ["IZ"]]
    angles = np.array([[0.0], [0.5], [math.pi]])
    first, second = estimator.run([(bell(), observables, angles), (bell(0.0), "ZZ")]).result()
    assert first.data.evs.shape == first.data.stds.shape == (2, 3)
    expected = np.broadcast_to(np.cos(angles[:, 0]), (2, 3))
    assert np.abs(first.data.evs - expected).max() < bound(1, 2, 1000)
    assert first.metadata["num_queries"] == 6
    assert first.metadata["num_subexperiments"] == 6 * 12
    assert first.metadata["value"]["values"] == tuple(first.data.evs.ravel())
    assert second.data.evs.shape == ()
    empty = estimator.run([(bell(), "ZZ", np.zeros((0, 1)))]).result()[0]
    assert empty.data.evs.shape == (0,)
    assert empty.metadata["num_queries"] == 0


@pytest.mark.parametrize(("deferred", "jobs"), [(False, [1] * 12), (True, [12])])
def test_every_subexperiment_is_a_job_unless_deferred(deferred: bool, jobs: list[int]) -> None:
    sampler = CountingSampler()
    once("AB", bell(0.3), "ZZ", sampler=sampler, shots=8, defer_measurements=deferred)  # type: ignore[arg-type]
    assert sampler.jobs == jobs


def test_a_seed_fixes_a_sequence_of_runs_on_any_number_of_workers() -> None:
    def sequence(workers: int, seed: int | None) -> list[float]:
        estimator = ReferenceEstimator("AB", seed=seed, workers=workers, shots=64)
        return [float(estimator.run([(bell(1.2), "ZI")]).result()[0].data.evs) for _ in range(3)]

    assert sequence(1, 7) == sequence(5, 7)
    assert len(set(sequence(1, 7))) > 1
    assert sequence(1, 7) != sequence(1, 8)
    assert sequence(1, None) != sequence(1, None)


# --- stragglers -------------------------------------------------------------------------------


def delayed(stragglers: Stragglers, runs: int = 1, **options: Any) -> list[Any]:
    """Results for a Bell pair's 12 subexperiments, some delayed."""
    settings = {"seed": 7, "shots": 16, "workers": 3} | options
    estimator = ReferenceEstimator("AB", stragglers=stragglers, **settings)
    return [estimator.run([(bell(1.2), "ZI")]).result()[0] for _ in range(runs)]


def injected(result: Any) -> tuple[int, float]:
    straggler = result.metadata["straggler"]
    return straggler["injected"], straggler["injected_seconds"]


@pytest.mark.parametrize(("deferred", "tasks", "at_once"), [(False, 12, 3), (True, 1, 1)])
def test_delays_change_no_value(deferred: bool, tasks: int, at_once: int) -> None:
    """At p = 1 every subexperiment sleeps; three threads, or one job, do so at the same time."""
    sleep = Constant(0.02)
    (plain,) = delayed(Stragglers(0.0, sleep), defer_measurements=deferred)
    (slow,) = delayed(Stragglers(1.0, sleep), defer_measurements=deferred)
    assert slow.data.evs == plain.data.evs
    nothing = StragglerInfo(0.0, 0.02, 0, 0.0, "constant(seconds=0.02)")
    assert plain.metadata["straggler"] == vars(nothing)
    assert injected(slow) == (tasks, pytest.approx(12 * 0.02))
    assert slow.metadata["t_execute"] >= 12 * 0.02 / at_once


def test_as_many_are_delayed_as_said() -> None:
    """20 runs of 12 subexperiments are 240 draws with p = 0.2: 48, give or take 6.2 (a binomial's
    standard deviation, sqrt(240 · 0.2 · 0.8)). 17 to 79 is five of these to either side."""
    found = [injected(each) for each in delayed(Stragglers(0.2, Constant(1e-4)), runs=20)]
    counts = [count for count, _ in found]
    assert 17 <= sum(counts) <= 79
    assert len(set(counts)) > 1
    assert [seconds for _, seconds in found] == pytest.approx([1e-4 * count for count in counts])
    # Those of a PUB's queries are added up.
    pub = (bell(), "ZI", [[0.1], [0.2], [0.3]])
    whole = once("AB", *pub, seed=7, shots=1, stragglers=Stragglers(1.0, Constant(1e-4)))
    assert injected(whole) == (36, pytest.approx(36e-4))


def test_the_seed_decides_who_is_delayed() -> None:
    def seconds(**options: Any) -> list[float]:
        stragglers = Stragglers(0.5, Pareto(1e-5, 3.0))
        return [injected(each)[1] for each in delayed(stragglers, runs=3, shots=1, **options)]

    first = seconds()
    assert seconds(workers=5) == first
    # All in one job, a query sleeps as long in all.
    assert seconds(defer_measurements=True) == pytest.approx(first)
    assert len(set(first)) == 3
    assert set(seconds(seed=8)).isdisjoint(first)


def test_another_estimator_goes_on_where_one_was() -> None:
    pub = (bell(1.2), "ZI")
    before = np.random.get_state()  # noqa: NPY002
    first = ReferenceEstimator("AB", seed=7, shots=64)
    values = [float(first.run([pub]).result()[0].data.evs) for _ in range(2)]
    copy = pickle.loads(pickle.dumps(first))
    second = ReferenceEstimator("AB", shots=64, seed=7, workers=2)
    second.continue_run(first.run_id, 2)
    third = {float(each.run([pub]).result()[0].data.evs) for each in (first, copy, second)}
    assert len(third) == 1
    assert len({*values, *third}) > 1
    assert (second.run_id, second.num_runs) == (first.run_id, 3)
    after = np.random.get_state()  # noqa: NPY002
    assert before[2] == after[2], "NumPy's global generator is left alone"
    assert np.array_equal(before[1], after[1])


# --- records ----------------------------------------------------------------------------------


def ticking(*gaps: float) -> Callable[[], float]:
    """A clock that shows 0, and later by each gap with each further look."""
    times = iter(np.cumsum((0.0, *gaps)).tolist())
    return lambda: next(times)


def test_a_query_is_recorded_stage_by_stage(tmp_path: Path) -> None:
    path = tmp_path / "log" / "queries.jsonl"
    estimator = ReferenceEstimator(
        "AAB", workers=3, shots=100, seed=9, log=path, clock=ticking(1, 2, 4, 8)
    )
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    result = estimator.run([(circuit, "ZZI")], precision=0.25).result()[0]
    header, record = read_records(path)
    assert isinstance(header, Header)
    assert isinstance(record, QueryRecord)
    stages = (record.t_partition, record.t_generate, record.t_execute, record.t_reconstruct)
    assert (stages, record.t_total, record.t_overlapped) == ((1, 2, 4, 8), 15, 0)
    assert (record.pipeline, record.partition_label, record.policy) == ("reference", "AAB", "eager")
    assert (record.backend, record.pool) == ("qiskit_aer.SamplerV2", "threads")
    assert (record.num_cuts, record.num_fragments, record.num_terms) == (1, 2, 6)
    assert (record.num_subexperiments, record.shots, record.shots_total) == (12, 100, 1200)
    assert (record.subexp_workers, record.seed, record.precision) == (3, 9, 0.25)
    assert (record.circuit.num_qubits, record.circuit.depth) == (3, 3)
    assert record.value.values == (float(result.data.evs),)
    assert math.isnan(record.stderr.mean)
    assert result.metadata["run_id"] == record.run_id
    assert result.metadata["t_total"] == 15


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(("labels", "widest"), [("AAAB", 3), ("AABC", 2), (None, 4)])
def test_the_width_of_fragments_is_recorded_without_ancillas(
    labels: str | None, widest: int, deferred: bool
) -> None:
    query = qnn(), "ZZZZ", telling_points(1)[0]
    result = once(labels, *query, shots=1, defer_measurements=deferred)
    assert result.metadata["max_fragment_qubits"] == widest


def test_there_is_one_record_a_query(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "queries.jsonl") as log:
        estimator = ReferenceEstimator("AB", shots=8, log=log)
        pubs = [(bell(), ["ZZ", "XX"], [[0.1], [0.2]]), (bell(0.1), "ZZ")]
        result = estimator.run(pubs).result()
        estimator.run(pubs[1:]).result()
    records = [r for r in read_records(log.path) if isinstance(r, QueryRecord)]
    assert [r.query_id for r in records] == ["0.0.0", "0.0.1", "0.1.0", "1.0.0"]
    assert len({r.circuit.key for r in records}) == 2
    assert result[0].metadata["t_total"] == pytest.approx(sum(r.t_total for r in records[:2]))


# --- threads of the simulator ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "options", "name"),
    [
        (1, {"backend_options": {"max_parallel_threads": 1}}, ""),
        (3, {"backend_options": {"max_parallel_threads": 3}}, "(threads=3)"),
        (None, {}, "(threads=all)"),  # Aer chooses, as a plain sampler does
    ],
)
def test_aer_is_told_how_many_threads_it_may_take_and_records_have_it(
    threads: int | None, options: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Noting(SamplerV2):
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments["options"])
            super().__init__(**arguments)

    query = {"shots": 8, "simulator_threads": threads}
    # A sampler that is given has a number of its own.
    given = once("AB", bell(0.4), "ZZ", sampler=SamplerV2(seed=1), **query)
    assert given.metadata["backend"] == "qiskit_aer.SamplerV2"
    own = once("AB", bell(0.4), "ZZ", **query).metadata["backend"]
    assert own == f"qiskit_aer.SamplerV2{name}"
    monkeypatch.setattr("qiskit_aer.primitives.SamplerV2", Noting)
    once("AB", bell(0.4), "ZZ", **query)
    assert asked == [options] * 12


def parallel_shots(**options: int) -> int:
    """On how many threads Aer divides the shots of a circuit that measures halfway."""
    circuit = QuantumCircuit(1, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.h(0)
    circuit.measure(0, 1)
    result = AerSimulator(**options).run(circuit, shots=1024).result()
    return int(result.results[0].metadata["parallel_shots"])


def test_the_limit_of_the_environment_is_lifted_for_aer_and_comes_back() -> None:
    before = parallel_shots()
    with lifted_limit(5) as threads:
        assert (threads, parallel_shots(), parallel_shots(max_parallel_threads=3)) == (5, 5, 3)
        assert parallel_shots(max_parallel_threads=1) == 1
    assert parallel_shots() == before
    with lifted_limit(None) as threads:
        assert str(threads) == thread_limits()["usable_cpus"]
        assert parallel_shots() == threads
    with pytest.raises(ZeroDivisionError), lifted_limit(4):
        raise ZeroDivisionError
    assert parallel_shots() == before


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cuts": 3}, CutError, "`cuts` is 3: .* a label per qubit"),
        ({"cuts": [[0], [1]]}, CutError, r"`cuts` is \[\[0\], \[1\]\]"),
        ({"shots": 0}, InputError, "`shots` is 0: give a whole number of at least 1"),
        ({"shots": 2.5}, InputError, r"`shots` is 2\.5"),
        ({"workers": -1}, InputError, "`workers` is -1"),
        ({"simulator_threads": 0}, InputError, "`simulator_threads` is 0: give a whole number"),
        ({"seed": -1}, InputError, "`seed` is -1: give a whole number of at least 0"),
        ({"log": "/"}, RecordError, "is a folder"),
        (
            {"stragglers": Stragglers(0.0, Constant(0), SlowWorker(0, 1.0))},
            InputError,
            r"`stragglers` has SlowWorker\(.*: leave `slow` out",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ReferenceEstimator(**({"cuts": "AB"} | arguments))


def holding(*operations: Any, clbits: int = 0) -> QuantumCircuit:
    circuit = QuantumCircuit(2, clbits)
    for operation in operations:
        circuit.append(operation, range(operation.num_qubits), range(operation.num_clbits))
    return circuit


def branching() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    with circuit.if_test((0, True)):
        circuit.x(0)
    return circuit


def resetting() -> QuantumCircuit:
    inner = QuantumCircuit(1)
    inner.reset(0)
    return holding(inner.to_instruction())


# Of PUBs that are none, one stands for all: `pubs.read_pubs` refuses them for every estimator.
@pytest.mark.parametrize(
    ("pub", "error", "message"),
    [
        ((bell(), "ZZ", [math.nan]), InputError, "is NaN or infinite: bind finite numbers"),
        ((bell(0.1), "ZZ", None, 0.0), InputError, "`precision` is 0, and the reference samples"),
        ((bell(0.1), "ZZZ"), ObservableError, "acts on 3 qubits, the circuit has 2"),
        ((QuantumCircuit(3), "ZZZ"), CutError, "labels 2 qubits, the circuit has 3: give one"),
        (
            (holding(Measure(), clbits=1), "ZZ"),
            CircuitError,
            "holds `measure`, expected a unitary circuit",
        ),
        ((branching(), "ZZ"), CircuitError, "holds `if_else`"),
        ((resetting(), "ZZ"), CircuitError, "holds `reset`"),
        ((holding(CutWire()), "ZZ"), CircuitError, "cut marker `cut_wire`"),
        ((holding(Gate("odd", 2, [])), "ZZ"), CircuitError, "`odd` on 2 qubits has no"),
    ],
)
def test_bad_pubs(pub: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ReferenceEstimator("AB").run([pub])


def test_a_label_none_on_a_qubit_in_use() -> None:
    labels: list[Hashable] = [0, 1, None]
    circuit = QuantumCircuit(3)
    circuit.cx(0, 1)
    circuit.h(2)
    with pytest.raises(CutError, match="partition label of `None`"):
        ReferenceEstimator(labels).run([(circuit, "ZZZ")]).result()


def test_a_sampler_that_refuses_mid_circuit_measurement() -> None:
    sampler = StatevectorSampler(seed=1)
    with pytest.raises(BackendError, match="use `defer_measurements=True`"):
        ReferenceEstimator("AB", sampler=sampler).run([(bell(0.4), "ZZ")]).result()
    deferred = ReferenceEstimator("AB", sampler=sampler, shots=4096, defer_measurements=True)
    value = deferred.run([(bell(0.4), "ZI")]).result()[0].data.evs
    assert abs(value - math.cos(0.4)) < bound(1, 2, 4096)


class Fixed(SamplerV2):
    """Draws the same random numbers in every job."""

    def run(self, pubs, *, shots=None):  # type: ignore[no-untyped-def]
        return SamplerV2(seed=5).run(pubs, shots=shots)


def test_the_seed_of_a_sampler_gives_way_to_those_of_tasks() -> None:
    estimator = ReferenceEstimator("AB", sampler=SamplerV2(seed=5), shots=256, seed=1)
    one, two = (estimator.run([(bell(0.4), "ZI")]).result()[0].data.evs for _ in range(2))
    assert one != two
    with pytest.raises(BackendError, match="same random numbers"):
        ReferenceEstimator("AB", sampler=Fixed(), shots=256).run([(bell(0.4), "ZI")]).result()
    uncut = ReferenceEstimator(None, sampler=Fixed(), shots=256)
    uncut.run([(bell(1.2), "ZI")]).result()
    with pytest.raises(BackendError, match="same random numbers"):  # from one query to the next
        uncut.run([(bell(1.2), "ZI")]).result()


def test_a_missing_aer_ends_in_an_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qiskit_aer.jobs", "qiskit_aer.primitives"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=r"reference pipeline needs `qiskit-aer`.*\[reference\]"
    ):
        ReferenceEstimator("AB")
    ReferenceEstimator("AB", sampler=StatevectorSampler())
    with pytest.raises(
        MissingExtraError, match=r"simulator threads needs `qiskit-aer`.*\[reference\]"
    ):
        lifted_limit(2).__enter__()
