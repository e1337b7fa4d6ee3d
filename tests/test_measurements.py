"""Measurements and resets inside a circuit, whose outcomes nothing depends on."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import run
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Measure, Parameter, Reset
from qiskit.circuit.library import Initialize, PauliProductMeasurement, PermutationGate
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import DensityMatrix, Kraus, Pauli, SparsePauliOp, random_statevector
from qiskit_addon_cutting.instructions import CutWire
from qiskit_aer.primitives import SamplerV2 as AerSampler

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.cutting import CutPlan

DEPHASING = Kraus([np.diag([1, 0]), np.diag([0, 1])])
OBSERVABLE = SparsePauliOp(["ZZZZ", "XIYX", "IYXI", "YXII", "IIIX"], [0.7, 0.5, -0.9, 0.4, 0.3])


def density_matrix(circuit):
    """The state at the end, measured qubits dephased unless nothing follows on them."""
    state = DensityMatrix.from_label("0" * circuit.num_qubits)
    pending = set()
    for item in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in item.qubits]
        if item.name == "measure":
            pending.update(qubits)
            continue
        for qubit in pending.intersection(qubits):
            state = state.evolve(DEPHASING, [qubit])
        pending -= set(qubits)
        if item.name == "reset":
            state = state.reset(qubits)
        elif item.name == "initialize":
            prepared = item.operation.gates_to_uncompute().inverse()
            state = state.reset(qubits).evolve(prepared, qubits)
        elif item.name not in ("barrier", "cut_wire"):
            state = state.evolve(item.operation, qubits)
    return state


def expected(circuit, observable, values=()):
    bound = circuit.assign_parameters(values)
    return density_matrix(bound).expectation_value(SparsePauliOp(observable)).real


def noisy(num_qubits, seed, layers=2):
    """Random rotations and CX gates in a chain, with measurements and resets among them."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for _ in range(layers):
        for qubit in range(num_qubits):
            circuit.u(*rng.uniform(-3, 3, 3), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cx(qubit, qubit + 1)
        for qubit in rng.choice(num_qubits, 2, replace=False):
            (circuit.reset if rng.random() < 0.5 else lambda q: circuit.measure(q, q))(int(qubit))
    return circuit


@pytest.mark.parametrize(("cuts", "seed"), [(None, 0), ("AABB", 1), ("ABBA", 0), (AutoCut(3), 1)])
def test_exact_values_are_those_of_the_density_matrix(cuts, seed):
    circuit = noisy(4, seed)
    for observable in (OBSERVABLE, "ZIII", "IIXI"):  # the light cones of the last two differ
        data = run(circuit, observable, cuts).data
        assert float(data.evs) == pytest.approx(expected(circuit, observable), abs=1e-10)


def plain(*operations):
    circuit = QuantumCircuit(3, 3)
    circuit.ry(0.7, [0, 1, 2])
    circuit.cx([0, 1], [1, 2])
    for operation, qubits in operations:
        circuit.append(operation, qubits, range(operation.num_clbits))
    return circuit


def hidden():
    inner = QuantumCircuit(2, 1)
    inner.h(0)
    inner.measure(0, 0)
    inner.cx(0, 1)
    inner.reset(0)
    circuit = plain()
    circuit.append(inner.to_instruction(), [0, 2], [0])
    return circuit


def prepared():
    """The state of two fresh qubits, in one fragment or two, and that of a third."""
    circuit = QuantumCircuit(3)
    circuit.initialize(random_statevector(4, seed=1), [0, 1])
    circuit.initialize("1", 2)
    circuit.cx(1, 2)
    circuit.ry(0.3, 1)
    return circuit


SPECIAL = {
    "initialized": prepared(),
    "last": plain((Measure(), [0]), (Measure(), [1])),
    "reset last": plain((Reset(), [0])),
    "measured and reset": plain((Measure(), [1]), (Reset(), [1])),
    "twice": plain((Measure(), [0]), (Measure(), [0]), (Reset(), [1]), (Reset(), [1])),
    "initialized again": plain((Initialize(random_statevector(4, seed=1)), [0, 2])),
    "permuted": plain((Measure(), [0]), (PermutationGate([2, 0, 1]), [0, 1, 2])),
    "reset and permuted": plain((Reset(), [0]), (PermutationGate([1, 0]), [0, 2])),
    "a wire": plain((Measure(), [1]), (CutWire(), [1]), (Reset(), [1])),
}


@pytest.mark.parametrize("cuts", [None, "ABA"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_kinds_of_measurements_and_resets(kind, cuts):
    circuit = SPECIAL[kind]
    for observable in ("ZZZ", "XYI", "IIX"):
        data = run(circuit, observable, cuts).data
        assert float(data.evs) == pytest.approx(expected(circuit, observable), abs=1e-10)


@pytest.mark.parametrize("cuts", [None, "AAB"])
def test_measurements_within_definitions(cuts):
    circuit = hidden()
    flat = circuit.decompose("circuit-*")
    assert flat.count_ops()["measure"] == 1
    value = float(run(circuit, "ZZX", cuts).data.evs)
    assert value == pytest.approx(expected(flat, "ZZX"), abs=1e-10)
    joint = plain()
    joint.append(PauliProductMeasurement(Pauli("XZ")), [0, 1], [0])
    # Between the two outcomes of a joint measurement there is no coherence left.
    assert float(run(joint, "IIX", cuts).data.evs) == pytest.approx(0, abs=1e-10)
    assert float(run(joint, "IZI", cuts).data.evs) == pytest.approx(0, abs=1e-10)


def test_a_qubit_that_was_never_used_takes_no_other():
    circuit = QuantumCircuit(2, 1)
    circuit.reset(0)
    circuit.measure(0, 0)
    circuit.reset(0)
    circuit.initialize([1, 1j], 0, normalize=True)
    circuit.measure(1, 0)
    circuit.cx(0, 1)
    (fragment,) = CutPlan.build(circuit, None).fragments
    assert fragment.purified is fragment


@pytest.mark.parametrize("cuts", [None, "AAB"])
def test_what_many_measurements_lose_takes_no_more_than_the_state(cuts):
    circuit = QuantumCircuit(3, 1)
    circuit.ry(0.4, [0, 1, 2])
    for number in range(10):
        circuit.cx(0, 1)
        circuit.rx(0.1 * number, 1)
        circuit.measure(1, 0)
        circuit.ry(0.2, [0, 1])
        circuit.cx(1, 0)
        circuit.reset(1)
        circuit.ry(0.3, 1)
        if number == 7:
            circuit.cx(1, 2)
    (fragment, *_) = CutPlan.build(circuit, cuts).fragments
    assert (fragment.num_lost, fragment.environment_qubits) == (20, 3)
    for observable in ("ZZZ", "XXI"):
        data = run(circuit, observable, cuts).data
        assert float(data.evs) == pytest.approx(expected(circuit, observable), abs=1e-10)


@pytest.mark.soak
def test_aer_runs_many_measurements_as_they_are():
    circuit = QuantumCircuit(3, 1)
    circuit.ry(0.4, [0, 1, 2])
    for _ in range(30):
        circuit.cx(0, 1)
        circuit.measure(1, 0)
        circuit.ry(0.2, [0, 1])
        circuit.reset(1)
        circuit.cx(0, 2)
    estimator = DistributedEstimator(
        None, AerSampler(), options=EstimatorOptions(shots=300, seed=3)
    )
    data = estimator.run([(circuit, ["ZIZ", "IIZ"])]).result()[0].data
    truth = [expected(circuit, observable) for observable in ("ZIZ", "IIZ")]
    assert (np.abs(data.evs - truth) < 4.5 * data.stds).all()


def test_a_gradient_through_measurements():
    circuit = noisy(4, 5)
    theta = Parameter("theta")
    circuit.ry(theta, 1)
    circuit.cx(1, 2)
    circuit.measure(2, 0)
    circuit.rx(2 * theta, 2)
    circuit.cx(2, 3)
    circuit.reset(2)
    estimator = DistributedEstimator("AABB")
    gradient = FragmentGradient(estimator).run([circuit], [OBSERVABLE], [[0.3]], precision=0)
    step = 1e-5
    ends = [expected(circuit, OBSERVABLE, [0.3 + sign * step]) for sign in (1, -1)]
    slope = gradient.result().gradients[0][0]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


SAMPLERS = {
    "statevector": lambda: StatevectorSampler(seed=1),  # takes no measurement inside a circuit
    "aer": lambda: AerSampler(seed=1),
    "aer as it is": lambda: SamplerBackend(AerSampler(seed=1), defer_measurements=False),
    "local": lambda: None,
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampled_values_are_within_their_errors(sampler):
    # Registers named as our own.
    circuit = QuantumCircuit(QuantumRegister(3, "slots"), ClassicalRegister(2, "observed"))
    circuit.ry(0.7, [0, 1, 2])
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    circuit.h(0)
    circuit.cx(1, 2)
    circuit.reset(1)
    circuit.ry(0.4, 1)
    circuit.cx(0, 1)
    estimator = DistributedEstimator(
        "AAB", SAMPLERS[sampler](), options=EstimatorOptions(shots=500, seed=3)
    )
    observables = ["ZZZ", "IYX", "IZI", "IIX"]
    data = estimator.run([(circuit, observables)]).result()[0].data
    truth = [expected(circuit, observable) for observable in observables]
    # Four values beyond 4.5 standard errors: once in 37,000 seeds.
    assert (np.abs(data.evs - truth) < 4.5 * data.stds).all()
    assert (data.stds < 0.2).all()
