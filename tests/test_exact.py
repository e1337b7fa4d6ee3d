"""Exact values of cut circuits equal those of the circuit, to 1e-10."""

from __future__ import annotations

import inspect

import gate_catalogue as catalogue
import numpy as np
import pytest
from helpers import as_operator, entangled, random_paulis, reference, run, value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qasm2, qasm3
from qiskit.circuit import (
    AnnotatedOperation,
    Gate,
    InverseModifier,
    Parameter,
    ParameterVector,
    PowerModifier,
    library,
)
from qiskit.circuit.library import (
    CXGate,
    CZGate,
    PauliEvolutionGate,
    PauliProductRotationGate,
    PermutationGate,
    PhaseGate,
    RXGate,
    RYGate,
    RZGate,
    RZZGate,
    SwapGate,
    TGate,
    U1Gate,
    UnitaryGate,
    XGate,
    iSwapGate,
    real_amplitudes,
    z_feature_map,
    zz_feature_map,
)
from qiskit.quantum_info import Clifford, Pauli, SparseObservable, SparsePauliOp, random_unitary
from qiskit.synthesis import MatrixExponential, QDrift, SuzukiTrotter
from qiskit_addon_cutting.instructions import CutWire, Move
from qiskit_addon_cutting.qpd import QPDBasis

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import CircuitError, InputError
from distributed_estimator.subexperiments import FragmentWork

TOLERANCE = 1e-10
PAULI_PAIRS = [a + b for a in "IXYZ" for b in "IXYZ"][1:]


def assert_exact(circuit, observable, cuts=None, values=None, **options):
    """The value of one query equals the reference; returns the metadata."""
    result = run(circuit, observable, cuts, values, **options)
    expected = reference(circuit, observable, values)
    assert abs(float(result.data.evs) - expected) <= TOLERANCE
    assert float(result.data.stds) == 0
    return result.metadata


def surrounded(gate, qubits, num_qubits, seed):
    """A gate between random one-qubit gates, so that every element of its channel matters."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.u(*rng.uniform(-3, 3, 3), qubit)
    circuit.append(gate, qubits)
    for qubit in range(num_qubits):
        circuit.u(*rng.uniform(-3, 3, 3), qubit)
    return circuit


# --- every gate of the standard library -----------------------------------------------------------


@pytest.mark.parametrize(("name", "state"), catalogue.VARIANTS)
@pytest.mark.parametrize("qubits", [(0, 1), (1, 0)])
def test_every_two_qubit_gate_is_cut_exactly(name, state, qubits):
    """All fifteen Paulis of a cut gate between random gates, with numbers for angles."""
    rng = np.random.default_rng(len(name))
    gate = catalogue.make(name, rng.uniform(-3, 3, catalogue.ANGLES[name]), state)
    circuit = surrounded(gate, qubits, 2, seed=3)
    result = run(circuit, PAULI_PAIRS, "AB")
    expected = [reference(circuit, pauli) for pauli in PAULI_PAIRS]
    assert result.metadata["num_cuts"] == 1
    assert np.abs(result.data.evs - expected).max() <= TOLERANCE


SYMBOLIC = [v for v in catalogue.VARIANTS if catalogue.ANGLES[v[0]]]


@pytest.mark.parametrize(("name", "state"), SYMBOLIC)
@pytest.mark.parametrize("labels", ["AB", "AA"])
def test_every_symbolic_two_qubit_gate_is_exact(name, state, labels):
    """One plan serves all bindings, also those at which a gate is local or the identity."""
    count = catalogue.ANGLES[name]
    parameters = ParameterVector("p", count)
    circuit = surrounded(catalogue.make(name, parameters, state), (1, 0), 2, seed=4)
    rng = np.random.default_rng(count)
    bindings = np.concatenate(
        [rng.uniform(-7, 7, (4, count)), np.zeros((1, count)), np.full((1, count), np.pi)]
    )
    result = run(circuit, PAULI_PAIRS, labels, bindings[:, None, :])
    assert result.metadata["num_cuts"] == (labels == "AB")
    expected = [[reference(circuit, pauli, row) for pauli in PAULI_PAIRS] for row in bindings]
    assert np.abs(result.data.evs - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", list(catalogue.ONE_QUBIT))
def test_every_one_qubit_gate_is_exact(name):
    count = catalogue.ANGLES[name]
    parameters = ParameterVector("p", count)
    circuit = surrounded(catalogue.make(name, parameters), (1,), 2, seed=5)
    circuit.cz(0, 1)
    circuit.h([0, 1])
    rng = np.random.default_rng(6)
    bindings = rng.uniform(-7, 7, (3, count)) if count else None
    result = run(circuit, PAULI_PAIRS, "AB", None if bindings is None else bindings[:, None, :])
    rows = [None] if bindings is None else bindings
    expected = np.squeeze([[reference(circuit, p, row) for p in PAULI_PAIRS] for row in rows])
    assert np.abs(result.data.evs - expected).max() <= TOLERANCE


@pytest.mark.parametrize("labels", ["AAA", "AAB", "ABA", "BAA", "ABC"])
@pytest.mark.parametrize(
    ("name", "state"),
    [(n, None) for n in catalogue.THREE_QUBIT] + [("CCXGate", 1), ("CCZGate", 0), ("CSwapGate", 0)],
)
def test_three_qubit_gates_are_exact_inside_a_fragment_and_across(name, state, labels):
    circuit = surrounded(catalogue.make(name, (), state), (2, 0, 1), 3, seed=6)
    metadata = assert_exact(circuit, random_paulis(3, 6, seed=1), labels)
    assert (metadata["num_cuts"] == 0) == (labels == "AAA")


def test_the_catalogue_names_every_other_gate_of_the_library():
    """But for old names of gates of another module, and what is no gate of its own."""
    gates = {n for n, k in vars(library).items() if inspect.isclass(k) and issubclass(k, Gate)}
    old = {"GlobalPhaseGate", "MCXGrayCode", "MCXRecursive", "MCXVChain", "WeightedSumGate"}
    assert gates - old == {*catalogue.ANGLES, *catalogue.OTHERS}


@pytest.mark.parametrize("name", list(catalogue.OTHERS))
def test_every_other_gate_of_the_library_is_exact(name):
    """Whole, and with its last qubit cut off where the plan fits."""
    gate = catalogue.OTHERS[name]()
    circuit = surrounded(gate, range(gate.num_qubits), gate.num_qubits, seed=8)
    observable = random_paulis(gate.num_qubits, 5, 1)
    assert_exact(circuit, observable)
    labels = "A" * (gate.num_qubits - 1) + "B"
    if CutPlan.build(circuit, labels).num_cuts <= 4:
        assert_exact(circuit, observable, labels)


# --- random circuits ------------------------------------------------------------------------------


@st.composite
def queries(draw, max_qubits=5):
    """A random circuit with labels, a Pauli sum and values for its parameters.

    At most four cuts are made; gates that would exceed them are put on qubits of one label.
    """
    width = draw(st.integers(2, max_qubits))
    labels = draw(st.lists(st.sampled_from("ABC"), min_size=width, max_size=width))
    parameters = ParameterVector("x", 3)
    circuit = QuantumCircuit(width, global_phase=draw(st.floats(-3, 3)))
    cuts = draw(st.integers(1, 4))
    angle = st.floats(-6.5, 6.5)
    expressions = [
        lambda c: c,
        lambda c: parameters[0],
        lambda c: 2 * parameters[1] + c,
        lambda c: parameters[0] + parameters[2],
        lambda c: (np.pi - parameters[1]) * (np.pi - parameters[2]),
        lambda c: c * parameters[2].sin(),
    ]
    for _ in range(draw(st.integers(2, 14))):
        name = draw(st.sampled_from([*catalogue.ONE_QUBIT, *catalogue.TWO_QUBIT, *EXTRA]))
        count = 0 if name in EXTRA else catalogue.ANGLES[name]
        angles = [draw(st.sampled_from(expressions))(draw(angle)) for _ in range(count)]
        if name in catalogue.ONE_QUBIT:
            circuit.append(catalogue.make(name, angles), [draw(st.integers(0, width - 1))])
            continue
        order = draw(st.permutations(range(width)))
        if name == "PermutationGate":
            some = order[: draw(st.integers(2, 3))]
            price = (len({labels[qubit] for qubit in some}) > 1) * (len(some) - 1)
            if price <= cuts:
                cuts -= price
                circuit.append(PermutationGate(draw(st.permutations(range(len(some))))), some)
            continue
        pair = order[:2]
        price = {"CutWire": 1, "Move": 1}.get(name, int(labels[pair[0]] != labels[pair[1]]))
        if name == "barrier":
            circuit.barrier(*pair)
        elif name == "delay":
            circuit.delay(10, pair[0])
        elif price <= cuts:
            cuts -= price
            if name == "CutWire":
                circuit.append(CutWire(), pair[:1])
            elif name == "Move":
                circuit.append(Move(), pair)
            else:
                state = draw(st.sampled_from([None, 0])) if name in catalogue.CONTROLLED else None
                circuit.append(catalogue.make(name, angles, state), pair)
    letters = st.text("IIXYZ01+-rl", min_size=width, max_size=width)
    weights = st.floats(-2, 2).filter(lambda w: abs(w) > 1e-3)
    terms = draw(st.dictionaries(letters, weights, min_size=1, max_size=4))
    values = draw(st.lists(angle, min_size=3, max_size=3))
    used = {p.name: v for p, v in zip(parameters, values, strict=True)}
    return circuit, "".join(labels), terms, [used[p.name] for p in circuit.parameters]


EXTRA = ["barrier", "delay", "CutWire", "Move", "PermutationGate"]
SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=100, suppress_health_check=SLOW_TO_DRAW)
@given(queries())
def test_random_cut_circuits_equal_the_statevector(query):
    circuit, labels, terms, values = query
    assert_exact(circuit, as_operator(terms), labels, values)


@pytest.mark.soak
@settings(max_examples=200, suppress_health_check=SLOW_TO_DRAW)
@given(queries(max_qubits=7))
def test_very_many_random_cut_circuits_equal_the_statevector(query):
    circuit, labels, terms, values = query
    assert_exact(circuit, as_operator(terms), labels, values)


class ExpectedCounts:
    """A stand-in for NumPy's generator that draws every outcome exactly as often as expected.

    That is no whole number, which results are checked for.
    """

    def multinomial(self, shots, probabilities):
        assert np.allclose(np.sum(probabilities, axis=-1), 1)
        return np.asarray(shots)[..., None] * np.asarray(probabilities)


@pytest.mark.parametrize("basis", ["full", "minimal"])
@pytest.mark.parametrize(
    "gate", ["CXGate", "RZZGate", "SwapGate", "iSwapGate", "XXPlusYYGate", "CutWire", "Move"]
)
def test_settings_of_both_bases_give_the_exact_value_from_exact_frequencies(
    basis, gate, monkeypatch
):
    """With frequencies equal to probabilities, sampling leaves nothing but the mathematics."""
    rng = np.random.default_rng(5)
    circuit = QuantumCircuit(3)
    turn = lambda: [circuit.u(*rng.uniform(-3, 3, 3), qubit) for qubit in range(3)]  # noqa: E731
    turn()
    circuit.cx(0, 1)
    if gate == "CutWire":
        circuit.append(CutWire(), [1])
    elif gate == "Move":
        circuit.append(Move(), [1, 2])
    else:
        circuit.append(catalogue.make(gate, [0.7, 0.3][: catalogue.ANGLES[gate]]), [1, 2])
    turn()
    if gate not in {"SwapGate", "iSwapGate"}:  # 22 settings a slot are enough
        circuit.rzz(0.4, 1, 2)
        turn()
    observable = random_paulis(3, 8, seed=3)
    expected = reference(circuit, observable)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: ExpectedCounts())
    monkeypatch.setattr(FragmentWork, "check", lambda *_: None)
    estimated = run(
        circuit, observable, "AAB", shots=1000, seed=1, setting_basis=basis, precision=None
    )
    assert estimated.data.stds > 0
    assert estimated.metadata["num_cuts"] >= 1
    assert abs(float(estimated.data.evs) - expected) <= TOLERANCE


# --- shapes of plans ------------------------------------------------------------------------------


def test_character_i_labels_qubit_i():
    """Qiskit's order of qubits, not that of Pauli strings."""
    circuit = entangled(3, 1, layers=1)
    circuit.data = [item for item in circuit.data if item.qubits != tuple(circuit.qubits[1:])]
    assert CutPlan.build(circuit, "ABB").num_cuts == 1
    assert CutPlan.build(circuit, "AAB").num_cuts == 0


def test_a_label_with_two_unconnected_parts_gives_two_fragments():
    circuit = entangled(3, 2, layers=1)
    metadata = assert_exact(circuit, random_paulis(3, 5, 1), "ABA")
    assert (metadata["num_cuts"], metadata["num_fragments"]) == (2, 3)


# --- wires ----------------------------------------------------------------------------------------


def test_a_wire_cut_at_the_start_and_at_the_end():
    circuit = QuantumCircuit(2)
    circuit.append(CutWire(), [0])
    circuit.ry(0.3, 0)
    circuit.cx(0, 1)
    circuit.append(CutWire(), [1])
    for observable in ("ZZ", "XY", "ZI", "IZ"):
        assert_exact(circuit, observable, "AA")


def moved(target_used):
    circuit = QuantumCircuit(4)
    rng = np.random.default_rng(9)
    for qubit in range(4):
        if target_used or qubit != 2:
            circuit.u(*rng.uniform(-3, 3, 3), qubit)
    circuit.cx(0, 1)
    if target_used:
        circuit.cx(2, 3)
    circuit.append(Move(), [1, 2])
    circuit.cx(2, 3)
    for qubit in range(4):
        circuit.u(*rng.uniform(-3, 3, 3), qubit)
    return circuit


@pytest.mark.parametrize("target_used", [False, True])
@pytest.mark.parametrize("labels", ["AABB", "AAAA", "ABBB", None])
def test_a_move_swaps_with_a_reset_target(labels, target_used):
    """The source goes on from |0>; what the target held is lost."""
    circuit = moved(target_used)
    for observable in ("ZZZZ", "IXII", "IIXI", "XYZX"):
        assert_exact(circuit, observable, labels)


# --- parameters -----------------------------------------------------------------------------------


X, Y = Parameter("x"), Parameter("y")
EXPRESSIONS = {
    "2*x": 2 * X,
    "x+y": X + Y,
    "x-y/3+1": X - Y / 3 + 1,
    "x*y": X * Y,
    "x**2": X**2,
    "2**x": 2**X,
    "1/x": 1 / X,
    "x*x/x": X * X / X,
    "x-x": X - X,
    "sin(x)": X.sin(),
    "cos(x)*y": X.cos() * Y,
    "tan(x)": X.tan(),
    "exp(y)": Y.exp(),
    "log(x)": X.log(),
    "asin(y)": Y.arcsin(),
    "acos(y)": Y.arccos(),
    "atan(x*y)": (X * Y).arctan(),
    "abs(-x)": abs(-X),
    "sign(-x)": (-X).sign() * 1.3,
    "(pi-x)(pi-y)": (np.pi - X) * (np.pi - Y),
    "conjugate": X.conjugate() + Y,
}


def bindings_of(circuit):
    values = {"x": [1.3, 0.2, 2.9], "y": [0.4, -0.7, 0.01]}
    return np.array([values[p.name] for p in circuit.parameters]).reshape(-1, 3).T


@pytest.mark.parametrize("name", list(EXPRESSIONS))
@pytest.mark.parametrize("labels", ["AAB", "ABB"])
def test_parameter_expressions(name, labels):
    """In a fragment's gate and in a cut gate, for several bindings at once."""
    circuit = entangled(3, 11, layers=1)
    circuit.rx(EXPRESSIONS[name], 0)
    circuit.crx(EXPRESSIONS[name], 0, 1)
    circuit.ryy(EXPRESSIONS[name], 1, 2)
    circuit.h(range(3))
    bindings = bindings_of(circuit)
    result = run(circuit, "XYZ", labels, bindings)
    expected = [reference(circuit, "XYZ", row) for row in bindings]
    assert np.abs(result.data.evs - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", list(EXPRESSIONS))
def test_parameter_expressions_without_sympy(name, monkeypatch):
    """SymPy only makes them faster: Qiskit itself does not need it."""

    circuit = QuantumCircuit(1)
    circuit.rx(EXPRESSIONS[name], 0)
    bindings = bindings_of(circuit)
    expected = [reference(circuit, "Z", row) for row in bindings]
    plan = CutPlan.build(circuit, None)
    monkeypatch.setattr("distributed_estimator.cutting.angles._tree", lambda expression: None)
    angles = plan.normal.angles.evaluate(bindings)[:, 0]
    assert np.cos(angles) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(("expression", "value"), [(1 / X, 0), (X.arcsin(), 2), (X.log(), -1)])
@pytest.mark.parametrize("with_sympy", [True, False])
def test_angles_that_are_no_real_numbers(expression, value, with_sympy, monkeypatch):
    if not with_sympy:
        monkeypatch.setattr("distributed_estimator.cutting.angles._tree", lambda expression: None)
    circuit = QuantumCircuit(1)
    circuit.rx(expression, 0)
    with pytest.raises(InputError, match=r"the gate angle `.*x.*` is not a finite real number"):
        run(circuit, "Z", None, [value])


def test_parameters_are_bound_in_the_circuits_order():
    """Qiskit sorts by name, and vectors by index: x[10] comes after x[2]."""
    vector, late, early = ParameterVector("x", 11), Parameter("z"), Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.rx(late, 0)
    for element in reversed(vector):
        circuit.ry(element, 0)
        circuit.rx(early, 1)
        circuit.rz(element / 2, 0)
    circuit.crz(vector[10] + early, 0, 1)
    values = np.linspace(-1, 1, 13)
    assert_exact(circuit, "XY", "AB", values)


def test_repeated_parameters_and_parameters_that_do_nothing():
    unused = Parameter("unused")
    circuit = QuantumCircuit(3, global_phase=unused)
    circuit.ry(X, range(3))
    circuit.rzz(X, 0, 1)
    circuit.rzz(-X, 1, 2)
    circuit.rx(X + Y, range(3))
    circuit.p(0 * Y, 0)
    assert_exact(circuit, random_paulis(3, 4, 1), "ABC", [0.3, 0.8, 0.5])


# --- composite gates ------------------------------------------------------------------------------


def inner(parameter=None):
    circuit = QuantumCircuit(3, name="inner")
    circuit.h(0)
    circuit.cx(0, 2)
    circuit.crx(0.4 if parameter is None else parameter, 1, 0)
    circuit.rzz(0.4 if parameter is None else 2 * parameter, 1, 2)
    return circuit


def test_nested_composite_gates_with_parameters():
    middle = QuantumCircuit(3, global_phase=0.3)
    middle.append(inner(X).to_gate(), [1, 2, 0])
    middle.rx(Y, 1)
    outer = QuantumCircuit(3)
    outer.append(middle.to_gate({X: 2 * Y + 1, Y: Y}), [2, 0, 1])
    outer.append(middle.to_instruction(), [0, 1, 2])
    circuit = entangled(4, 2, layers=1)
    circuit.append(outer.to_instruction(), [0, 1, 2])
    circuit.cx(2, 3)
    assert_exact(circuit, random_paulis(4, 4, 2), "AABB", [0.9, -0.4])


class SquareRootOfX(Gate):
    """A user's gate with a definition and no matrix."""

    def __init__(self):
        super().__init__("mine", 1, [])

    def _define(self):
        self.definition = QuantumCircuit(1)
        self.definition.sx(0)


class Coupling(Gate):
    """A user's symbolic two-qubit gate."""

    def __init__(self, strength, name="coupling"):
        super().__init__(name, 2, [strength])

    def _define(self):
        self.definition = QuantumCircuit(2)
        self.definition.rxx(self.params[0], 0, 1)
        self.definition.rz(self.params[0] / 2, 1)


@pytest.mark.parametrize("labels", ["AAB", "ABB", "ABC"])
def test_custom_gates_and_their_controlled_and_inverted_kin(labels):
    circuit = entangled(3, 1, layers=1)
    circuit.append(SquareRootOfX(), [0])
    circuit.append(SquareRootOfX().control(1), [0, 1])
    circuit.append(SquareRootOfX().control(1, ctrl_state=0), [2, 1])
    circuit.append(Coupling(X), [1, 2])
    circuit.append(Coupling(X).inverse(), [0, 1])
    circuit.append(Coupling(0.3).repeat(2), [0, 2])
    circuit.ry(0.3, range(3))
    assert_exact(circuit, random_paulis(3, 4, 2), labels, [0.6])


@pytest.mark.parametrize(
    "operation",
    [
        RYGate(0.7).control(1, annotated=True),
        RYGate(0.7).control(1),
        AnnotatedOperation(TGate().control(1), [InverseModifier()]),
        AnnotatedOperation(RZZGate(0.3), [PowerModifier(3)]),
        Clifford(SwapGate().definition),
        UnitaryGate(random_unitary(2, seed=5)).control(1),
        XGate().control(1, ctrl_state=0),
        PauliProductRotationGate(Pauli("XY"), 0.4),
    ],
    ids=lambda operation: operation.name,
)
def test_operations_beyond_gates(operation):
    circuit = surrounded(operation, (0, 1), 2, seed=2)
    assert_exact(circuit, "XY", "AB")
    assert_exact(circuit, "XY", "AA")


@pytest.mark.parametrize("make", [PauliEvolutionGate, PauliProductRotationGate])
def test_symbolic_gates_of_one_class_and_width_are_told_apart(make):
    """They differ in their operator, which is not among their parameters."""
    for pauli in ("ZZ", "XX", "ZX", "XY"):
        operator = SparsePauliOp(pauli) if make is PauliEvolutionGate else Pauli(pauli)
        gate = make(operator, X)
        for labels in ("AB", "AA"):
            assert_exact(surrounded(gate, (0, 1), 2, seed=3), "XY", labels, [0.3])


@pytest.mark.parametrize("labels", ["AAB", "ABC", "AAA", None])
def test_pauli_evolution_is_its_product_formula_wherever_it_is_cut(labels):
    """Bound or not, cut or not: a circuit has one value, that of the circuit a device would run."""
    operator = SparsePauliOp(["IXX", "ZZI", "IZI", "YIY"], [0.4, -0.3, 0.7, 0.2])
    circuit = surrounded(PauliEvolutionGate(operator, X), (0, 1, 2), 3, seed=1)
    assert_exact(circuit, random_paulis(3, 4, 1), labels, [0.9])
    assert_exact(circuit.assign_parameters([0.9]), random_paulis(3, 4, 1), labels)


@pytest.mark.parametrize("labels", ["AB", "AA", None, AutoCut(1)])
def test_an_evolution_is_the_exponential_where_that_is_asked_for(labels):
    """An eigenvalue of H is conserved; the default, a product formula, loses 0.08 of it."""
    hamiltonian = SparsePauliOp(["ZZ", "XI"], [1, -0.1])
    energies = []
    for synthesis, formulas in ((None, [1]), (MatrixExponential(), [])):
        circuit = QuantumCircuit(2)
        circuit.barrier()
        circuit.append(PauliEvolutionGate(hamiltonian, 2.0, synthesis=synthesis), [0, 1])
        result = run(circuit, hamiltonian, labels)
        assert result.metadata["product_formulas"] == formulas
        energies.append(float(result.data.evs))
    assert energies == [pytest.approx(0.92106, abs=1e-5), pytest.approx(1, abs=TOLERANCE)]


@pytest.mark.parametrize(
    ("evolution", "formulas"),
    [
        (PauliEvolutionGate(SparsePauliOp(["ZZ", "XX", "II"]), 0.7), []),
        (PauliEvolutionGate(SparsePauliOp(["ZZ", "XX"]), X, synthesis=SuzukiTrotter(reps=2)), []),
        (PauliEvolutionGate([SparsePauliOp("ZZ"), SparsePauliOp("XX")], 0.7), []),
        (PauliEvolutionGate([SparsePauliOp("ZZ"), SparsePauliOp("XI")], 0.7), [0]),
        (PauliEvolutionGate(SparsePauliOp(["ZZ", "XI"]), X, synthesis=SuzukiTrotter()), [0]),
        (PauliEvolutionGate(SparsePauliOp(["ZZ", "XX"]), 1, synthesis=QDrift(seed=1)), [0]),
        (PauliEvolutionGate(SparsePauliOp(["ZZ", "XI"]), 0.7).control(), [0]),
    ],
)
def test_evolutions_of_terms_that_commute_are_not_named_product_formulas(evolution, formulas):
    circuit = QuantumCircuit(evolution.num_qubits)
    circuit.append(evolution, range(evolution.num_qubits))
    values = [0.4] * circuit.num_parameters
    metadata = run(circuit, "Z" * evolution.num_qubits, None, values).metadata
    assert metadata["product_formulas"] == formulas


@pytest.mark.parametrize("cuts", ["AABBB", AutoCut(3)])
def test_permutations_are_cut_only_where_states_go_on_under_another_label(cuts):
    """In the end, within labels, and for a search, they only say where states are."""
    circuit = QuantumCircuit(5)
    circuit.h(range(5))
    circuit.append(PermutationGate([1, 0]), [0, 1])
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.ccz(2, 3, 4)
    circuit.append(PermutationGate([2, 0, 1]), [2, 3, 4])
    circuit.ry(0.3, range(5))
    before = CutPlan.build(circuit, cuts)
    circuit.append(PermutationGate([3, 4, 2, 1, 0]), range(5))
    after = CutPlan.build(circuit, cuts)
    assert [cut.name for cut in after.cuts] == [cut.name for cut in before.cuts] == ["cx"]
    assert after.key != before.key
    assert_exact(circuit, random_paulis(5, 5, 2), cuts)
    if cuts == "AABBB":
        circuit.ry(0.3, range(5))
        assert [cut.name for cut in CutPlan.build(circuit, cuts).cuts] == ["cx", "swap", "swap"]


def test_a_permutation_wider_than_any_matrix_changes_nothing_but_places():
    circuit = entangled(9, 2, layers=1)
    circuit.append(PermutationGate([8, 7, 6, 5, 4, 3, 2, 1, 0]), range(9))
    circuit.cx(0, 8)
    assert_exact(circuit, "ZIIXIIIIZ")
    assert CutPlan.build(circuit, "AAABBBCCC").for_observables([3]).num_cuts == 2


class Exchange(Gate):
    """A gate of three qubits that brings a matrix and no definition."""

    def __init__(self):
        super().__init__("exchange", 3, [])

    def __array__(self, dtype=None, copy=None):
        matrix = np.eye(8, dtype=dtype or complex)
        return matrix[[0, 1, 2, 3, 4, 5, 7, 6]]


@pytest.mark.parametrize("labels", ["AAA", "AAB"])
def test_a_gate_with_nothing_but_a_matrix(labels):
    circuit = surrounded(Exchange(), (0, 1, 2), 3, seed=1)
    whole = surrounded(UnitaryGate(np.array(Exchange())), (0, 1, 2), 3, seed=1)
    assert value(circuit, "XYZ", labels) == pytest.approx(reference(whole, "XYZ"), abs=TOLERANCE)


@pytest.mark.parametrize("name", ["id", "delay", "barrier", "measure", "reset", "global_phase"])
def test_what_a_gate_does_is_not_read_from_its_name(name):
    flip = QuantumCircuit(1, name=name)
    flip.x(0)
    circuit = QuantumCircuit(1)
    circuit.append(flip.to_gate(), [0])
    assert value(circuit, "Z") == -1


# --- idle, disconnected, phases -------------------------------------------------------------------


def then(first, *, last=(), qubits=3):
    """A circuit that begins with some instructions, goes on with gates and ends with others."""
    circuit = QuantumCircuit(qubits, qubits)
    for build in first:
        build(circuit)
    circuit.compose(entangled(qubits, 4, layers=1), inplace=True)
    for build in last:
        build(circuit)
    return circuit


def reset_in_a_box(circuit):
    body = QuantumCircuit(2)
    body.reset([0, 1])
    body.barrier()
    body.h(0)
    circuit.append(body.to_instruction(), [2, 0])


STARTS = {
    "reset": [lambda c: c.reset([0, 1])],
    "reset twice": [lambda c: c.reset(0), lambda c: c.barrier(), lambda c: c.reset(0)],
    "reset after nothing": [lambda c: c.delay(3, 0), lambda c: c.id(0), lambda c: c.reset(0)],
    "reset of another": [lambda c: c.cx(0, 1), lambda c: c.reset(2)],
    "reset in a gate": [reset_in_a_box],
    "initialize": [lambda c: c.initialize([0.6, 0, 0, 0.8j], [0, 2])],
    "initialize by labels": [lambda c: c.initialize("+r0")],
    "initialize by number": [lambda c: c.initialize(5)],
    "initialize later": [lambda c: c.h(0), lambda c: c.initialize([0.6, 0.8], 2)],
    "prepare_state": [lambda c: c.prepare_state([0.6, 0, 0, 0.8j], [0, 2])],
}


@pytest.mark.parametrize("cuts", [None, "ABC", AutoCut(2)])
@pytest.mark.parametrize("name", list(STARTS))
def test_fresh_qubits_may_be_reset_and_initialized(name, cuts):
    assert_exact(then(STARTS[name]), random_paulis(3, 5, 1), cuts)


def measure_in_a_box(circuit):
    body = QuantumCircuit(2, 2)
    body.cx(0, 1)
    body.measure([0, 1], [1, 0])
    circuit.append(body.to_instruction(), [2, 0], [0, 1])


ENDS = {
    "measure": [lambda c: c.measure([0, 1, 2], [0, 1, 2])],
    "measure_all": [lambda c: c.measure_all()],
    "some": [lambda c: c.measure(1, 1)],
    "then a barrier": [lambda c: c.measure([0, 1], [0, 1]), lambda c: c.barrier()],
    "then others": [lambda c: c.measure(0, 0), lambda c: c.cx(1, 2), lambda c: c.delay(5, 0)],
    "twice": [lambda c: c.measure(0, 0), lambda c: c.measure(0, 1)],
    "in a gate": [measure_in_a_box],
}


@pytest.mark.parametrize("cuts", [None, "ABC", AutoCut(2)])
@pytest.mark.parametrize("name", list(ENDS))
def test_final_measurements_are_left_out(name, cuts):
    """The values are those of the circuit without them, as `remove_final_measurements` has it."""
    observable = random_paulis(3, 5, 1)
    plain = then([], last=ENDS[name]).decompose("circuit-*")
    plain.data = [item for item in plain.data if item.operation.name != "measure"]
    expected = reference(plain, observable)
    assert value(then([], last=ENDS[name]), observable, cuts) == pytest.approx(
        expected, abs=TOLERANCE
    )


@pytest.mark.parametrize("version", [2, 3])
def test_a_circuit_from_openqasm_is_estimated_as_it_is(version):
    circuit = then([lambda c: c.reset(0)], last=ENDS["measure"])
    if version == 2:
        read = QuantumCircuit.from_qasm_str(qasm2.dumps(circuit))
    else:
        read = qasm3.loads(qasm3.dumps(circuit))
    assert read.count_ops()["measure"] == 3
    expected = reference(then([]), "XYZ")
    assert value(read, "XYZ", "AAB") == pytest.approx(expected, abs=TOLERANCE)


def test_boxes_are_what_they_hold():
    estimator = DistributedEstimator("AB", workers=1, options=EstimatorOptions(default_precision=0))
    for angle in (0.4, 0.4 + 1e-12, X):
        circuit = QuantumCircuit(2)
        with circuit.box():
            circuit.ry(angle, 0)
            circuit.cx(0, 1)
        values = [0.9] * circuit.num_parameters
        found = float(run(circuit, "ZI", estimator=estimator, values=values or None).data.evs)
        assert found == pytest.approx(np.cos(0.9 if angle is X else angle), abs=1e-14)


def test_an_empty_circuit():
    assert value(QuantumCircuit(3), "ZZZ", "ABC") == 1
    assert value(QuantumCircuit(3), "XZZ", "ABC") == 0


# --- light cone -----------------------------------------------------------------------------------


def test_what_cannot_reach_the_observable_costs_nothing():
    """Of a chain with all bonds cut, an observable on its first qubit sees the first bond alone."""
    circuit = QuantumCircuit(5)
    circuit.ry(0.4, range(5))
    for qubit in range(4):
        circuit.cx(qubit, qubit + 1)
    metadata = assert_exact(circuit, "IIIIZ", range(5))
    assert (metadata["num_cuts"], metadata["num_fragments"]) == (1, 2)
    whole = assert_exact(circuit, "ZIIII", range(5))
    assert (whole["num_cuts"], whole["num_fragments"]) == (4, 5)
    assert metadata["num_subexperiments"] < whole["num_subexperiments"]


def test_the_cone_of_a_move_does_not_pass_its_reset():
    """What is observed on the source of a move starts there: nothing before it matters."""
    metadata = assert_exact(moved(target_used=False), "IIXI", "AABB")
    assert (metadata["num_cuts"], metadata["num_fragments"]) == (0, 1)


@pytest.mark.parametrize("labels", ["AABB", "AAAA", None])
@pytest.mark.parametrize("options", [{}, {"shots": 100, "precision": None}, {"precision": 0.01}])
def test_the_identity_alone_is_its_weight_and_costs_nothing(labels, options):
    result = run(entangled(4, 3), SparsePauliOp(["IIII"], [2.5]), labels, **options)
    assert (float(result.data.evs), float(result.data.stds)) == (2.5, 0)
    assert result.metadata["num_subexperiments"] == 0


# --- observables ----------------------------------------------------------------------------------


def test_every_kind_of_observable():
    circuit = entangled(2, 6)
    zz, xi = reference(circuit, "ZZ"), reference(circuit, "XI")
    for observable, expected in [
        ("ZZ", zz),
        (Pauli("ZZ"), zz),
        (Pauli("-ZZ"), -zz),
        (SparsePauliOp(["ZZ", "XI"], [2, -1]), 2 * zz - xi),
        (SparsePauliOp(["ZZ", "ZZ"], [2, -1]), zz),
        (SparseObservable.from_list([("ZZ", 2), ("XI", 1)]), 2 * zz + xi),
        ({"ZZ": 1, "XI": 3}, zz + 3 * xi),
    ]:
        assert value(circuit, observable, "AB") == pytest.approx(expected, abs=TOLERANCE)


def test_observables_whose_terms_cancel():
    """|0><0| + |1><1| is the identity, and Z − |0><0| + |1><1| is nothing at all."""
    circuit = entangled(2, 6)
    nothing = {"IZ": 1.0, "I0": -1.0, "I1": 1.0}
    observables = [nothing, {"ZZ": 1.0, "XX": 0.5}, {"I0": 1.0, "I1": 1.0}]
    expected = [reference(circuit, observable) for observable in observables]
    assert expected[0] == pytest.approx(0)
    for labels in ("AB", "AA"):
        for chosen in ([0, 1], [0, 1, 2], [0], [2, 0]):
            given = [observables[i] for i in chosen]
            found = run(circuit, given, labels).data.evs
            assert np.abs(found - [expected[i] for i in chosen]).max() <= TOLERANCE


@pytest.mark.parametrize("unit", [1e-70, 1e-9, 1.0, 1e68])
@pytest.mark.parametrize("labels", ["AB", None])
def test_no_weight_is_too_small_to_count(labels, unit):
    """However small all of them are, or one beside another."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    weights = {"ZZ": 9 * unit, "ZI": 20 * unit, "IZ": 1e-9 * unit}
    mean = 9 + (20 + 1e-9) * np.cos(0.7)
    labels_of, numbers = list(weights), list(weights.values())
    forms = [
        weights,
        SparsePauliOp(labels_of, numbers),
        SparseObservable.from_list(list(weights.items())),
        {Pauli(label): weight for label, weight in weights.items()},
        {"ZZ": 9 * unit, Pauli("-ZI"): -20 * unit, "I0": 1e-9 * unit, "I1": -1e-9 * unit},
    ]
    for form in forms:
        assert value(circuit, form, labels) == pytest.approx(mean * unit, rel=1e-14)
    found = run(circuit, [[form] for form in forms], labels).data.evs
    assert found == pytest.approx(np.full((5, 1), mean * unit), rel=1e-14)
    sampled = run(circuit, weights, labels, shots=1000, precision=None).data
    assert abs(sampled.evs - mean * unit) <= 5 * sampled.stds  # a false alarm in 1.7e6
    # The mean square of 9 ± 20 is 481, of a variance by 1000 shots of at most 5 settings.
    assert 0.1 * unit <= sampled.stds <= np.sqrt(5 * 481 / 1000) * unit


def test_weights_lost_in_rounding_cost_no_circuits():
    circuit = entangled(2, 6)
    plain, noisy = (
        run(circuit, {"ZZ": 0.3, "XX": weight, "IZ": 0.1}, "AB") for weight in (0.0, 5e-17)
    )
    assert noisy.data.evs == plain.data.evs
    assert noisy.metadata["num_circuits"] == plain.metadata["num_circuits"]


# --- automatic cuts -------------------------------------------------------------------------------


AUTOMATIC = {
    "chain": (entangled(6, 1, layers=1), None),
    "parameterised": (
        z_feature_map(5, reps=1).compose(real_amplitudes(5, reps=1, entanglement="linear")),
        np.linspace(-1, 1, 15),
    ),
    "three qubit gates": (
        surrounded(catalogue.make("CCXGate"), (0, 1, 2), 5, 3).compose(
            surrounded(catalogue.make("CCZGate"), (4, 3, 2), 5, 4)
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", list(AUTOMATIC))
@pytest.mark.parametrize("max_qubits", [3, 4])
def test_cuts_found_respect_the_width_and_are_exact(name, max_qubits):
    circuit, values = AUTOMATIC[name]
    search = AutoCut(max_qubits, seed=5)
    plan = CutPlan.build(circuit, search)
    assert max(fragment.num_qubits for fragment in plan.fragments) <= max_qubits
    assert plan.num_cuts >= 1
    observable = random_paulis(circuit.num_qubits, 3, 1)
    assert_exact(circuit, observable, search, values)
    assert CutPlan.build(circuit, search).key == plan.key


@pytest.mark.parametrize(
    ("search", "kind"),
    [(AutoCut(3, wire_cuts=False), "gate"), (AutoCut(3, gate_cuts=False), "wire")],
)
def test_only_the_kinds_of_cut_that_are_allowed_are_made(search, kind):
    circuit = entangled(5, 1, layers=1)
    plan = CutPlan.build(circuit, search)
    assert {cut.kind for cut in plan.cuts} == {kind}
    assert_exact(circuit, random_paulis(5, 3, 1), search)


def test_a_plan_serves_a_circuit_that_was_built_anew():
    """Other objects, the same gates and parameter names."""
    plan = CutPlan.build(real_amplitudes(4, reps=1), "AABB")
    assert_exact(real_amplitudes(4, reps=1), "XYZX", plan, np.linspace(0, 1, 8))


# --- two-qubit rotations that a circuit spells out ------------------------------------------------

ANGLES = (0.7, X, 2 * X - 0.3, X * X)
SPELT = [
    (CXGate, (0, 1), RZGate, 1, "rzz", (0, 1)),
    (CXGate, (0, 1), PhaseGate, 1, "rzz", (0, 1)),
    (CXGate, (1, 0), U1Gate, 0, "rzz", (1, 0)),
    (CXGate, (1, 0), RXGate, 1, "rxx", (1, 0)),
    (CZGate, (0, 1), RXGate, 1, "rzx", (0, 1)),
    (CZGate, (0, 1), RXGate, 0, "rzx", (1, 0)),
]


def spelt(entangler, pair, rotation, qubit, angles):
    """Rotations of one qubit between two entanglers, between random one-qubit gates."""
    body = QuantumCircuit(2)
    body.append(entangler(), pair)
    body.barrier()
    for angle in angles:
        body.append(rotation(angle), [qubit])
    body.append(entangler(), pair)
    circuit = surrounded(RYGate(0.2), (0,), 2, seed=1)
    return circuit.compose(body).compose(surrounded(RYGate(0.3), (1,), 2, seed=2))


@pytest.mark.parametrize("case", SPELT, ids=lambda case: f"{case[0].__name__}-{case[2].__name__}")
@pytest.mark.parametrize(
    "angles", [*((a,) for a in ANGLES), (X, 0.4, -Y)], ids=lambda angles: ",".join(map(str, angles))
)
def test_a_rotation_between_two_entanglers_is_one_cut(case, angles):
    """CX·RZ(φ)·CX is RZZ(φ) up to a phase, for any expression φ."""
    *parts, name, qubits = case
    circuit = spelt(*parts, angles)
    plan = CutPlan.build(circuit, "AB")
    assert [(cut.name, cut.qubits) for cut in plan.cuts] == [(name, qubits)]
    values = np.array([[0.4, -1.3], [2.1, 0.0]])[:, : circuit.num_parameters]
    result = run(circuit, PAULI_PAIRS, "AB", values[:, None, :])
    expected = [[reference(circuit, pauli, row) for pauli in PAULI_PAIRS] for row in values]
    assert np.abs(result.data.evs - expected).max() <= TOLERANCE


def interrupted(gate, qubits):
    circuit = spelt(CXGate, (0, 1), RZGate, 1, [X])
    place = next(i for i, item in enumerate(circuit.data) if item.operation.name == "rz") + 1
    wider = QuantumCircuit(3)
    for index, item in enumerate(circuit.data):
        if index == place:
            wider.append(gate, qubits)
        wider.append(item.operation, [circuit.find_bit(q).index for q in item.qubits])
    return wider


@pytest.mark.parametrize(
    ("gate", "qubits"),
    [
        (RXGate(0.3), [1]),
        (RZGate(0.3), [0]),
        (CXGate(), [1, 2]),
        (CZGate(), [2, 0]),
        (CutWire(), [1]),
        (Move(), [0, 2]),
        (CXGate(ctrl_state=0), [0, 1]),
    ],
    ids=lambda item: getattr(item, "name", ""),
)
def test_a_rotation_is_not_merged_across_anything_else(gate, qubits):
    circuit = interrupted(gate, qubits)
    names = {o.instruction.name for o in CutPlan.build(circuit, None).normal.operations}
    assert "rzz" not in names
    assert_exact(circuit, random_paulis(3, 5, 1), "ABC", [0.4])


def two_qubit_gates(circuit):
    """Before any of them is cut, and put together with others that are."""
    operations = CutPlan.build(circuit, None).normal.operations
    return [own.instruction.name for own in operations if len(own.qubits) == 2]


def test_entanglers_unlike_or_with_nothing_between_stay_as_they_are():
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, [0, 1])
    circuit.cx(0, 1)
    circuit.cx(0, 1)
    circuit.rz(0.3, 1)
    circuit.cx(1, 0)
    circuit.rx(0.2, 1)
    circuit.cz(1, 0)
    circuit.append(CXGate(ctrl_state=0), [0, 1])
    circuit.rz(X, 1)
    circuit.append(CXGate(ctrl_state=0), [0, 1])
    assert two_qubit_gates(circuit) == ["cx", "cx", "cx", "cz", "cx_o0", "cx_o0"]
    assert_exact(circuit, random_paulis(2, 5, 1), "AB", [0.9])


@pytest.mark.parametrize("angles", [(1e308, 1e308), (-1e308, X, -1e308)], ids=["numbers", "mixed"])
def test_rotations_whose_sum_is_beyond_a_float_are_not_merged(angles):
    circuit = spelt(CXGate, (0, 1), RZGate, 1, angles)
    assert two_qubit_gates(circuit) == ["cx", "cx"]
    assert_exact(circuit, random_paulis(2, 5, 1), "AB", [0.4] * circuit.num_parameters)


def test_a_custom_gate_that_is_called_cx_is_not_taken_for_one():
    body = QuantumCircuit(2, name="cx")
    body.iswap(0, 1)
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, [0, 1])
    circuit.append(body.to_gate(), [0, 1])
    circuit.rz(0.7, 1)
    circuit.append(body.to_gate(), [0, 1])
    circuit.ry(0.4, [0, 1])
    assert len(two_qubit_gates(circuit)) == 2
    assert_exact(circuit, "XY", "AB")


def test_a_merged_rotation_keeps_its_place_and_its_light_cone():
    """Positions are those of the source circuit: of the rotation, and of whatever is wrong."""
    circuit = QuantumCircuit(3)
    circuit.h([0, 1, 2])
    for low, angle in ((0, X), (1, Y)):
        circuit.cx(low, low + 1)
        circuit.p(angle, low + 1)
        circuit.cx(low, low + 1)
    circuit.rx(0.3, [0, 1, 2])
    plan = CutPlan.build(circuit, "ABC")
    assert [(cut.name, cut.position) for cut in plan.cuts] == [("rzz", 4), ("rzz", 7)]
    assert plan.for_observables([0]).num_cuts == 1
    assert plan.for_observables([2]).num_cuts == 2
    for observable in ("IIZ", "IZI", "ZII"):
        assert_exact(circuit, observable, "ABC", [0.3, 0.8])
    with circuit.for_loop(range(2)):
        circuit.x(0)
    with pytest.raises(CircuitError, match=r"classical control .* \(instruction 12\)"):
        CutPlan.build(circuit, "ABC")


@pytest.mark.parametrize(("labels", "cuts"), [("AABB", 4), ("ABCD", 6), ("AAAA", 0), (None, 0)])
def test_a_feature_map_of_all_pairs_costs_one_cut_a_pair(labels, cuts):
    circuit = zz_feature_map(4, reps=1, entanglement="full")
    circuit.ry(0.4, range(4))
    metadata = assert_exact(circuit, random_paulis(4, 6, 1), labels, [0.3, -0.8, 1.2, 0.1])
    assert metadata["num_cuts"] == cuts


# --- numbers of a plan ----------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [CXGate(), CZGate(), SwapGate(), iSwapGate(), CutWire()])
def test_the_number_of_terms_is_that_of_the_addons_decomposition(mark):
    """What a reconstruction term by term would sum: 6 for a CX, multiplied over the cuts."""
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.cx(0, 1)
    circuit.append(mark, [1, 2][: mark.num_qubits])
    circuit.ry(0.3, range(3))
    if mark.num_qubits == 1:
        circuit.cx(1, 2)
    circuit.rx(0.1, range(3))
    plan = CutPlan.build(circuit, "ABB" if mark.num_qubits == 1 else "ABC")
    weights = QPDBasis.from_instruction(Move() if mark.num_qubits == 1 else mark).coeffs
    assert plan.num_cuts == 2
    assert plan.num_terms == 6 * np.count_nonzero(np.abs(weights) > 1e-12)
