"""Fragments too wide for state vectors: against narrow ones, known values and other simulators."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from helpers import run as result_of
from helpers import value, without_marks
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import UnitaryGate, real_amplitudes
from qiskit.quantum_info import Pauli, SparsePauliOp, StabilizerState, Statevector, random_unitary
from qiskit_addon_cutting.instructions import CutWire
from qiskit_aer.primitives import EstimatorV2

from distributed_estimator import CutAt, DistributedEstimator, EstimatorOptions
from distributed_estimator.backends.compact import CompactProgram, _Line
from distributed_estimator.backends.statevector import Program, StatevectorBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import PlanTooLargeError
from distributed_estimator.gradient import FragmentGradient
from distributed_estimator.subexperiments import FragmentExperiment

WIDE = 42
TOLERANCE = 1e-12


def mixed(rng: np.random.Generator, *, clifford: bool) -> QuantumCircuit:
    """Gates on neighbours and on distant qubits, some of them wide, a reset and a wire to cut."""

    def angle() -> float:
        return float(rng.integers(4) * np.pi / 2 if clifford else rng.uniform(-3, 3))

    circuit = QuantumCircuit(8)
    for qubit in range(8):
        circuit.ry(angle(), qubit)
        circuit.rz(angle(), qubit)
    for qubit in range(7):
        circuit.cx(qubit, qubit + 1)
    circuit.iswap(3, 5)
    circuit.rzz(angle(), 0, 3)
    circuit.reset(1)
    if not clifford:
        circuit.ccx(0, 4, 2)
        circuit.append(UnitaryGate(random_unitary(8, seed=1)), [3, 0, 4])
    circuit.append(CutWire(), [2])
    circuit.rxx(angle(), 2, 0)
    circuit.cx(2, 6)
    for qubit in range(8):
        circuit.rx(angle(), qubit)
    return circuit


def chain(num_qubits: int) -> tuple[QuantumCircuit, list[float]]:
    circuit = real_amplitudes(num_qubits, reps=2, entanglement="linear")
    angles = np.random.default_rng(5).normal(scale=0.5, size=circuit.num_parameters)
    return circuit, angles.tolist()


def ghz(num_qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(num_qubits)
    circuit.h(0)
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


def run(*query, **options):
    return result_of(*query, **options).data.evs


def on(num_qubits: int, letters: dict[int, str]) -> str:
    return "".join(letters.get(qubit, "I") for qubit in reversed(range(num_qubits)))


def scrambled(num_qubits: int, *, angle: float, layers: int | None = None) -> QuantumCircuit:
    """As entangled as layers make it; Clifford where the angle is a multiple of pi / 2."""
    circuit, rng = QuantumCircuit(num_qubits), np.random.default_rng(3)
    for layer in range(num_qubits if layers is None else layers):
        for qubit in range(num_qubits):
            circuit.ry(angle * int(rng.integers(4)), qubit)
            circuit.rz(angle * int(rng.integers(4)), qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)
    return circuit


# --- the same tensors as of state vectors ---------------------------------------------------------


@pytest.mark.parametrize("names", [("iswap",), ("rxx", "cut_wire")])
@pytest.mark.parametrize("method", ["Paulis", "matrix product states"])
def test_tensors_are_those_of_state_vectors(method, names, monkeypatch):
    """With all kinds of slots, resets, gates on distant qubits, in several bases."""
    rng = np.random.default_rng(len(names))
    circuit = mixed(rng, clifford=method == "Paulis")
    if "cut_wire" not in names:
        circuit = without_marks(circuit)
    cuts = [n for n, item in enumerate(circuit.data) if item.operation.name in names]
    plan = CutPlan.build(circuit, CutAt(cuts))
    angles = plan.normal.angles.evaluate(np.zeros((1, 0)))
    ends = [slot.side for fragment in plan.fragments for slot in fragment.slots]
    kinds = {(side.end, len(side.branches)) for side in ends}
    assert kinds >= ({("gate", 4)} if "iswap" in names else {("wire_in", 2), ("wire_out", 2)})
    for fragment in plan.fragments:
        letters = rng.choice(list("IXYZ"), (2, fragment.num_qubits))
        outputs = sorted(fragment.outputs.values())
        paulis = (tuple((q, str(own[q])) for q in outputs if own[q] != "I") for own in letters)
        experiment = FragmentExperiment(fragment, tuple(dict.fromkeys([(), *paulis])), "full")
        own, program, narrow = (
            angles[:, fragment.angles],
            CompactProgram(fragment),
            Program(fragment),
        )
        assert program.is_clifford(own) or method != "Paulis"
        if method != "Paulis":
            monkeypatch.setattr(program, "_images", lambda row: None)
        states, means = narrow.run(own), program.values(experiment, own)
        found = program.tensors(own, experiment.groups)
        for group, tensor in zip(experiment.groups, found, strict=True):
            expected = narrow.coordinates(states, group)
            assert_allclose(tensor, expected, atol=TOLERANCE)
            assert_allclose(means[:, list(group.paulis)], group.means(expected), atol=TOLERANCE)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7])
def test_deep_and_hardly_entangled_states_are_exact(scale):
    """Schmidt values of all sizes, down to what is left out."""
    circuit, rng = QuantumCircuit(10), np.random.default_rng(2)
    for _ in range(12):
        for qubit in range(10):
            circuit.rx(rng.normal(), qubit)
            circuit.rz(rng.normal(), qubit)
        for qubit in range(10):
            circuit.rzz(scale * rng.normal(), qubit, (qubit + 1) % 10)
    (fragment,) = CutPlan.build(circuit, "A" * 10).fragments
    labels = ["".join(rng.choice(list("IXYZ"), 10)) for _ in range(20)]
    strings = np.array([["IXYZ".index(letter) for letter in reversed(own)] for own in labels])
    found = CompactProgram(fragment)._line.means_at(np.zeros(0))(strings)
    state = Statevector(circuit)
    assert_allclose(found, [state.expectation_value(Pauli(own)).real for own in labels], atol=1e-12)


def test_ranks_are_bounds_that_chains_reach():
    """A layer of CX doubles the rank of a chain; ranks found are no higher than the bound."""
    for layers in (1, 2, 3):
        circuit = real_amplitudes(12, reps=layers, entanglement="linear")
        plan = CutPlan.build(circuit, "A" * 12)
        line: _Line = CompactProgram(plan.fragments[0])._line
        rng = np.random.default_rng(layers)
        values = plan.normal.angles.evaluate(rng.normal(size=(1, circuit.num_parameters)))
        sites = line._state(values[0, list(plan.fragments[0].angles)])
        assert line.largest == layers
        assert max(len(site) for site in sites) == 2**layers
        assert sum(site.nbytes for site in sites) < line.bytes


# --- wide fragments -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["A" * 60, "A" * 45 + "B" * 15])
def test_a_wide_ghz_state(labels, caplog):
    paulis = [dict.fromkeys(range(60), "X"), {3: "Z", 50: "Z"}, {40: "Z"}, {0: "Y", 1: "Y"}]
    with caplog.at_level(logging.INFO, "distributed_estimator"):
        values = run(ghz(60), [on(60, own) for own in paulis], labels)
    assert_allclose(values, [1, 1, 0, 0], atol=TOLERANCE)
    assert "fragment 0 (" in caplog.text
    assert "is simulated by Paulis" in caplog.text


def test_a_fragment_is_logged_once_in_all_rounds(caplog):
    observable = on(40, {39: "Z"})
    with caplog.at_level(logging.INFO, "distributed_estimator"):
        narrow = result_of(ghz(40), observable, "A" * 20 + "B" * 20, precision=0.05)
        wide = result_of(ghz(40), observable, "A" * 40, precision=0.05)
    assert min(narrow.metadata["shots_total"], wide.metadata["shots_total"]) > 0
    assert caplog.messages == ["fragment 0 (40 qubits, 0 slots) is simulated by Paulis"]


def test_wide_clifford_plans_by_their_angles():
    """With cuts of all kinds."""
    circuit = scrambled(WIDE, angle=np.pi / 2, layers=12)
    circuit.cx(WIDE - 9, WIDE - 8)
    extended = QuantumCircuit(WIDE + 3)
    extended.compose(circuit, range(WIDE), inplace=True)
    extended.cx(WIDE - 1, WIDE)
    extended.append(CutWire(), [0])
    extended.cx(0, WIDE + 1)
    extended.iswap(1, WIDE + 2)
    labels = "A" * WIDE + "BCD"
    state, rng = StabilizerState(without_marks(extended)), np.random.default_rng(1)
    # Stabilisers of the state, and strings that hardly are some.
    strings = [own[1:] for own in state.clifford.to_labels(mode="S")[:6]]
    strings += ["".join(rng.choice(list("IXYZ"), WIDE + 3)) for _ in range(3)]
    values = run(extended, strings, labels)
    expected = [state.expectation_value(Pauli(own)) for own in strings]
    assert set(np.abs(expected)) == {0, 1}
    assert_allclose(values, expected, atol=1e-10)


def test_a_wide_chain_is_that_of_another_simulator():
    circuit, angles = chain(WIDE)
    observables = [on(WIDE, {q: "Z"}) for q in (0, 29, 30, 41)] + [on(WIDE, {29: "X", 31: "X"})]
    aer = EstimatorV2(
        options={
            "backend_options": {"method": "matrix_product_state", "max_parallel_threads": 1},
            "default_precision": 0.0,
        }
    )
    (result,) = aer.run([(circuit, observables, angles)]).result()
    for labels in ("A" * WIDE, "A" * 30 + "B" * 12):
        found = run(circuit, observables, labels, angles)
        assert_allclose(found, result.data.evs, atol=1e-8)


def test_shots_on_wide_fragments_are_as_any():
    """Within five standard errors, and the same on any number of workers."""
    circuit, angles = chain(WIDE)
    observables = [on(WIDE, {q: "Z"}) for q in (0, 29, 41)] + [on(WIDE, {29: "X", 31: "X"})]
    pub, labels = (circuit, observables, angles), "A" * 30 + "B" * 12
    exact = run(*pub[:2], labels, angles)
    found = []
    for workers in (1, 3):
        options = EstimatorOptions(shots=2000, seed=4)
        with DistributedEstimator(labels, workers=workers, options=options) as estimator:
            data = estimator.run([pub]).result()[0].data
        assert (np.abs(data.evs - exact) < 5 * data.stds).all()
        found.append(data.evs)
    assert (found[0] == found[1]).all()
    assert (found[0] != exact).all()


def test_probabilities_of_a_wide_state():
    options = EstimatorOptions(default_precision=0)
    with DistributedEstimator("A" * 40 + "B" * 10, options=options) as estimator:
        found = estimator.probabilities(ghz(50), [2, 30, 49])
    assert_allclose(found.values.ravel(), [0.5, 0, 0, 0, 0, 0, 0, 0.5], atol=TOLERANCE)


def test_gradients_of_wide_fragments():
    circuit, angles = chain(WIDE)
    observable, step = on(WIDE, {3: "Z"}), 1e-4
    estimator = DistributedEstimator(
        "A" * 30 + "B" * 12, options=EstimatorOptions(default_precision=0)
    )
    parameters = [circuit.parameters[place] for place in (2, 3, WIDE + 3)]
    job = FragmentGradient(estimator).run([circuit], [observable], [angles], [parameters])
    for parameter, found in zip(parameters, job.result().gradients[0], strict=True):
        moved = np.array([angles, angles])
        moved[:, list(circuit.parameters).index(parameter)] += [step, -step]
        above, below = run(circuit, [[observable]], "A" * WIDE, moved).ravel()
        # The error of a central difference is at most step²/6 times the third derivative, up to 1.
        assert found == pytest.approx((above - below) / (2 * step), abs=1e-8)


def test_gradients_at_clifford_angles_take_no_state_vectors():
    """Where going back through the gates would take as many bytes as are refused otherwise."""
    there = scrambled(WIDE, angle=np.pi / 2, layers=8)
    circuit, angles = there.compose(there.inverse()), ParameterVector("x", 3)
    for qubit, angle in enumerate(angles):
        circuit.rx(angle, qubit)
    observable = SparsePauliOp([on(WIDE, {1: "Y"}), on(WIDE, {2: "Z"})], [0.5, 2.0])
    options = EstimatorOptions(default_precision=0)
    gradient = FragmentGradient(DistributedEstimator("A" * WIDE, options=options))
    found = gradient.run([circuit], [observable], [[0.0, np.pi, np.pi / 2]]).result().gradients[0]
    assert_allclose(found, [0, 0.5, -2], atol=TOLERANCE)  # of -0.5 sin(x[1]) + 2 cos(x[2])


# --- which fragments ------------------------------------------------------------------------------


def method_of(circuit, angles=(), **fields):
    plan = CutPlan.build(circuit, "A" * circuit.num_qubits)
    experiment = FragmentExperiment(plan.fragments[0], (((0, "Z"),),), "full")
    rows = plan.normal.angles.evaluate(np.array([angles]))[:, plan.fragments[0].angles]
    return StatevectorBackend(**fields).method(experiment, rows)


def test_state_vectors_are_left_where_they_are_large_and_another_way_is_shorter():
    assert method_of(ghz(24)) == "state vectors"
    assert method_of(ghz(25)) == "Paulis"
    assert method_of(*chain(24)) == "state vectors"
    assert method_of(*chain(25)) == "matrix product states"
    assert method_of(scrambled(26, angle=np.pi / 2)) == "Paulis"
    assert method_of(scrambled(26, angle=1.0)) == "state vectors"


def test_a_limit_of_memory_leaves_less_to_state_vectors():
    """An eighth of it, but not less than what always is run."""
    assert method_of(*chain(22), memory_limit=1 << 30) == "matrix product states"
    assert method_of(*chain(21), memory_limit=1 << 30) == "state vectors"
    assert method_of(*chain(21), memory_limit=1 << 10) == "matrix product states"
    assert method_of(*chain(20), memory_limit=1 << 10) == "state vectors"
    circuit, angles = chain(21)
    observable = on(21, {4: "Z", 9: "X"})
    limited = value(circuit, observable, "A" * 21, angles, memory_limit=100 << 20)
    assert limited == pytest.approx(value(circuit, observable, "A" * 21, angles), abs=1e-10)


def test_wide_entangled_fragments_are_refused():
    circuit = scrambled(WIDE, angle=1.0)
    with pytest.raises(PlanTooLargeError, match=r"memory, the limit.*narrower fragments"):
        value(circuit, on(WIDE, {0: "Z"}), "A" * WIDE)
