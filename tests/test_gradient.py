"""Gradients through cuts: exact to rounding, sampled without bias, at the cost of a fragment."""

from __future__ import annotations

import gate_catalogue as catalogue
import numpy as np
import pytest
import torch
from helpers import entangled, random_paulis, without_marks
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_addon_cutting.instructions import CutWire
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.errors import BackendError, CutError, InputError
from distributed_estimator.records import QueryRecord, read_records

STEP = 1e-5
"""Of central differences: with |f'''| ≤ 1e3 they are off by STEP²/6·1e3 < 2e-8, and by rounding
of values of order ten, 1e-14, over STEP: 1e-9. Both are far below the bar of 1e-6."""


def make(cuts=None, precision=0, log=None, **options):
    options = EstimatorOptions(**options)
    return FragmentGradient(
        DistributedEstimator(cuts, workers=2, options=options, log=log), precision
    )


def exact(circuit, observable, values, cuts=None, wanted=None):
    wanted = None if wanted is None else [wanted]
    return make(cuts).run([circuit], [observable], [values], wanted).result().gradients[0]


def differences(circuit, observable, values, cuts):
    """Central differences of exact cut values, all points in one batch."""
    values = np.asarray(values, dtype=float)
    steps = STEP * np.eye(len(values))
    points = np.concatenate([values + steps, values - steps])
    estimator = DistributedEstimator(cuts, workers=2)
    evs = estimator.run([(circuit, observable, points)], precision=0).result()[0].data.evs
    return (evs[: len(values)] - evs[len(values) :]) / (2 * STEP)


def uncut(circuit, observable, values, wanted=None):
    """Qiskit Machine Learning's own gradient of the uncut circuit, exact."""
    gradient = ParamShiftEstimatorGradient(StatevectorEstimator(default_precision=0))
    wanted = None if wanted is None else [wanted]
    job = gradient.run([circuit], [observable], [np.asarray(values)], wanted)
    return np.asarray(job.result().gradients[0])


def assert_agrees(circuit, observable, values, cuts, plain=None):
    """Against differences and against Qiskit Machine Learning; `plain` has no marks of cuts."""
    found = exact(circuit, observable, values, cuts)
    assert found.shape == (circuit.num_parameters,)
    assert np.abs(found - differences(circuit, observable, values, cuts)).max() <= 1e-6
    assert np.abs(found - uncut(plain or circuit, observable, values)).max() <= 1e-10
    return found


def queries(log):
    """Records of the values and gradients that were asked for."""
    return [record for record in read_records(log) if isinstance(record, QueryRecord)]


def point(circuit, seed=5):
    return np.random.default_rng(seed).uniform(-2.5, 2.5, circuit.num_parameters)


def framed(num_qubits, seed=1):
    """A body to put gates in: a random circuit before it and one after it."""
    return entangled(num_qubits, seed, layers=1), entangled(num_qubits, seed + 50, layers=1)


def with_body(num_qubits, body, seed=1):
    before, after = framed(num_qubits, seed)
    return before.compose(body).compose(after)


def iris_circuit():
    return z_feature_map(4, reps=1).compose(real_amplitudes(4, reps=1, entanglement="linear"))


X, Y = Parameter("x"), Parameter("y")


# --- Exact gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [None, "AAAA", "AABB", "AABC", "ABCD", "ABBA"])
def test_model_of_the_paper(cuts):
    circuit = iris_circuit()
    found = assert_agrees(circuit, SparsePauliOp("ZZZZ"), point(circuit), cuts)
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("name", [name for name in catalogue.TWO_QUBIT if catalogue.ANGLES[name]])
@pytest.mark.parametrize("labels", ["AABB", "AAAB"])
def test_every_symbolic_gate_cut_or_inside(name, labels):
    """Between qubits 1 and 2: cut by the first labels, with CX beside it, inside by the second."""
    body = QuantumCircuit(4)
    body.append(catalogue.make(name, ParameterVector("a", catalogue.ANGLES[name])), [1, 2])
    circuit = with_body(4, body)
    found = assert_agrees(circuit, random_paulis(4, 4, 3), point(circuit), labels)
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("labels", [None, "AAB", "ABC"])
def test_expressions_and_repeated_parameters(labels):
    x, y = Parameter("x"), Parameter("y")
    body = QuantumCircuit(3)
    body.rx(2 * x, 0)
    body.rzz(x * y, 0, 1)
    body.ry(x + y, 1)
    body.crx(y - 0.5 * x, 1, 2)
    body.rz(x**2, 2)
    body.ry(y.sin(), 2)
    body.rx(x, 1)
    circuit = with_body(3, body)
    assert_agrees(circuit, random_paulis(3, 4, 2), [0.7, -1.3], labels)


def test_subset_and_order_of_parameters():
    circuit = iris_circuit()
    values = point(circuit)
    every = exact(circuit, SparsePauliOp("XZZY"), values, "AABB")
    names = list(circuit.parameters)
    for places in ([3], [7, 0, 5], list(range(len(names)))[::-1]):
        wanted = [names[place] for place in places]
        job = make("AABB").run([circuit], [SparsePauliOp("XZZY")], [values], [wanted])
        result = job.result()
        np.testing.assert_allclose(result.gradients[0], every[places], atol=1e-12)
        assert list(result.metadata[0]["parameters"]) == wanted


def test_wires():
    x = ParameterVector("x", 4)
    circuit, plain = QuantumCircuit(3), QuantumCircuit(3)
    for place in (circuit, plain):
        place.ry(x[0], 0)
        place.cx(0, 1)
        place.ry(x[1], 1)
        if place is circuit:
            place.append(CutWire(), [1])
        place.rx(x[2], 1)
        place.crx(x[3], 1, 2)
        place.ry(x[0], 2)
    assert without_marks(circuit) == plain
    found = assert_agrees(
        circuit, SparsePauliOp(["ZZX", "IXZ"], [1, 2]), point(circuit), None, plain
    )
    assert np.abs(found).min() > 1e-6


def test_parameters_outside_the_light_cone_are_zero(tmp_path):
    x = ParameterVector("x", 4)
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(x[qubit], qubit)
    circuit.cx(0, 1)
    circuit.cx(2, 3)
    log = tmp_path / "log.jsonl"
    gradient = make("ABCD", log=log)
    found = gradient.run([circuit], ["IIZZ"], [[0.3, 0.4, 0.5, 0.6]]).result().gradients[0]
    assert (found[2:] == 0).all()
    expected = uncut(circuit, SparsePauliOp("IIZZ"), [0.3, 0.4, 0.5, 0.6])
    assert np.abs(found - expected).max() <= 1e-10
    # Nothing runs at all where only such parameters are asked by, but the value.
    beyond = gradient.run([circuit], ["IIZZ"], [[0.3, 0.4, 0.5, 0.6]], [[x[2], x[3]]]).result()
    assert (beyond.gradients[0] == 0).all()
    gradient._estimator.run([(circuit, "IIZZ", [0.3, 0.4, 0.5, 0.6])], precision=0).result()
    _, second, value = queries(log)
    assert second.num_subexperiments == value.num_subexperiments


STEEP = {
    "asin": (X.arcsin(), 1),
    "root": (X**0.5, 0),
    "power": (X**X, 0),
    "product": (Y * X.arcsin(), -1),
}


def steep(name, cut):
    """A circuit whose slope by y is finite and by x is not, and the values of x and y."""
    expression, value = STEEP[name]
    circuit = QuantumCircuit(2)
    circuit.ry(Y, 1)
    circuit.cx(0, 1)
    circuit.ryy(expression, 0, 1) if cut else circuit.ry(expression, 0)
    return circuit, [value, 0.3]


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("cut", [False, True], ids=["inside", "cut"])
@pytest.mark.parametrize("precision", [0, 0.1])
def test_a_slope_that_is_not_finite_is_refused_before_anything_runs(tmp_path, name, cut, precision):
    circuit, values = steep(name, cut)
    log = tmp_path / "log.jsonl"
    gradient = make("AB", precision, log)
    match = f"no finite slope by the parameter `x` at x = {values[0]}.*leave `x` out of"
    for wanted in (None, [[circuit.parameters[0]]]):
        with pytest.raises(InputError, match=match):
            gradient.run([circuit], ["ZZ"], [values], wanted).result()
    rows = [[0.5, 0.3], values]  # the second row of a batch alone
    with pytest.raises(InputError, match=match):
        gradient.values_and_gradients((circuit, "ZZ", rows))
    assert not log.exists()


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("cut", [False, True], ids=["inside", "cut"])
def test_other_parameters_do_not_suffer_from_a_steep_one(name, cut):
    circuit, values = steep(name, cut)
    found = exact(circuit, "ZZ", values, "AB", wanted=[circuit.parameters[1]])
    weights = circuit.assign_parameters({circuit.parameters[0]: values[0]})
    expected = differences(weights, "ZZ", values[1:], "AB")
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("name", ["asin", "root", "power"])
def test_steep_angles_that_nothing_observed_depends_on(name):
    circuit, values = steep(name, cut=False)
    assert exact(circuit, "ZI", values, "AA") == pytest.approx([0, -np.sin(0.3)], abs=1e-10)


@pytest.mark.parametrize("name", ["asin", "root", "power"])
def test_steep_angles_without_sympy(name, monkeypatch):
    monkeypatch.setattr("distributed_estimator.cutting.angles._tree", lambda expression: None)
    circuit, values = steep(name, cut=False)
    with pytest.raises(InputError, match="no finite slope by the parameter `x`"):
        exact(circuit, "ZZ", values, "AB")
    weights = circuit.parameters[1:]
    assert np.isfinite(exact(circuit, "ZZ", values, "AB", wanted=weights)).all()


def test_several_circuits_in_a_call_keep_their_places():
    first, second = iris_circuit(), real_amplitudes(4, reps=2)
    wanted = [None, list(second.parameters)[:3], None, list(second.parameters)[5:6], None]
    circuits = [first, second, first, second, second]
    observables = [SparsePauliOp(p) for p in ("ZZZZ", "XXII", "IZIY", "YYYY", "ZIIZ")]
    values = [point(circuit, seed) for seed, circuit in enumerate(circuits)]
    result = make("AABB").run(circuits, observables, values, wanted).result()
    for number, row in enumerate(result.gradients):
        expected = uncut(circuits[number], observables[number], values[number], wanted[number])
        assert row.shape == expected.shape
        assert np.abs(row - expected).max() <= 1e-10
        own = list(circuits[number].parameters) if wanted[number] is None else wanted[number]
        assert list(result.metadata[number]["parameters"]) == own


# --- Through Qiskit Machine Learning --------------------------------------------------------------


def make_qnn(gradient, circuit, observables, *, input_gradients=True):
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    parameters = list(circuit.parameters)
    inputs = [p for p in parameters if p.name.startswith("x")]
    return EstimatorQNN(
        circuit=circuit,
        observables=observables,
        input_params=inputs,
        weight_params=[p for p in parameters if p not in inputs],
        estimator=gradient._estimator,
        gradient=gradient,
        input_gradients=input_gradients,
        default_precision=0,
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("input_gradients", [True, False])
def test_network_shapes_and_values(count, input_gradients):
    circuit = iris_circuit()
    observables = [SparsePauliOp("ZZZZ"), SparsePauliOp(["XIII", "IIZY"], [1, 0.5])][:count]
    qnn = make_qnn(make("AABB"), circuit, observables, input_gradients=input_gradients)
    rng = np.random.default_rng(4)
    inputs, weights = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, 8)
    assert qnn.forward(inputs, weights).shape == (3, count)
    by_inputs, by_weights = qnn.backward(inputs, weights)
    assert by_weights.shape == (3, count, 8)
    assert (by_inputs is None) != input_gradients
    if input_gradients:
        assert by_inputs.shape == (3, count, 4)
    order = [*qnn.input_params, *qnn.weight_params]
    places = [list(circuit.parameters).index(parameter) for parameter in order]
    for sample in range(3):
        values = np.empty(12)
        values[places] = np.concatenate([inputs[sample], weights])
        for number, observable in enumerate(observables):
            expected = uncut(circuit, observable, values)[places]
            assert np.abs(by_weights[sample, number] - expected[4:]).max() <= 1e-10
            if input_gradients:
                assert np.abs(by_inputs[sample, number] - expected[:4]).max() <= 1e-10


# --- Sampled gradients ----------------------------------------------------------------------------


RUNS = 300
LIMIT = 4.5
"""For the mean of 300 independent runs over its own standard error, nearly a standard normal:
|t| > 4.5 has a probability of 1e-5 a component, and a hundred components are tested. Seeds are
fixed."""


@pytest.mark.parametrize(
    ("kind", "basis"),
    [("gate", "minimal"), ("angle", "full"), ("wire", "full"), ("controlled", "full")],
)
def test_sampled_gradient_is_unbiased(kind, basis):
    x = ParameterVector("x", 3)
    circuit = QuantumCircuit(3)
    circuit.ry(x[0], 0)
    circuit.h(1)
    circuit.ry(0.4, 2)
    if kind == "angle":
        circuit.rzz(x[1], 0, 1)
    elif kind == "wire":
        circuit.cx(0, 1)
        circuit.append(CutWire(), [1])
        circuit.rx(x[1], 1)
    else:
        circuit.cx(0, 1)
        circuit.rx(x[1], 1)
    circuit.crx(x[2], 1, 2) if kind == "controlled" else circuit.rxx(x[2], 1, 2)
    circuit.ry(0.7, 1)
    labels = {"gate": "ABB", "angle": "ABB", "wire": None, "controlled": "ABC"}[kind]
    observable = SparsePauliOp(["ZZZ", "IXI", "XZI"], [1, 0.5, -0.3])
    values = [0.9, -0.6, 1.1]
    expected = exact(circuit, observable, values, labels)
    gradient = make(labels, precision=None, shots=64, seed=11, setting_basis=basis)
    rows = np.array(
        [gradient.run([circuit], [observable], [values]).result().gradients[0] for _ in range(RUNS)]
    )
    error = rows.std(axis=0, ddof=1) / np.sqrt(RUNS)
    assert (error > 0).all()
    assert (np.abs(rows.mean(axis=0) - expected) <= LIMIT * error).all()


def test_groups_of_a_call_have_seeds_of_their_own():
    circuit = iris_circuit()
    values = point(circuit)
    call = [circuit, circuit.copy()], [SparsePauliOp("ZZZZ")] * 2, [values] * 2
    one, two = make("AABB", None, shots=128, seed=5).run(*call).result().gradients
    assert not np.array_equal(one, two)


def test_same_seed_same_bits():
    circuit = iris_circuit()
    call = [circuit] * 2, [SparsePauliOp("ZZZZ")] * 2, [point(circuit, 1), point(circuit, 2)]
    first, second = make("AABB", None, shots=128, seed=5), make("AABB", None, shots=128, seed=5)
    one, two = first.run(*call).result().gradients, first.run(*call).result().gradients
    np.testing.assert_array_equal(one, second.run(*call).result().gradients)
    np.testing.assert_array_equal(two, second.run(*call).result().gradients)
    other = make("AABB", None, shots=128, seed=6)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, other.run(*call).result().gradients)


# --- What it costs --------------------------------------------------------------------------------


def counts(log):
    return [record.num_subexperiments for record in queries(log)]


def test_angle_of_a_cut_gate_costs_no_circuit(tmp_path):
    x, log = ParameterVector("x", 3), tmp_path / "log.jsonl"
    circuit = QuantumCircuit(3)
    circuit.h([0, 1, 2])
    circuit.rzz(x[0], 0, 1)
    circuit.crx(x[1], 1, 2)
    circuit.cp(x[2], 0, 2)
    circuit.ry(0.3, [0, 1, 2])
    gradient = make("ABC", log=log)
    values = [0.4, 0.5, 0.6]
    gradient._estimator.run([(circuit, "ZXZ", values)], precision=0).result()
    found = gradient.run([circuit], [SparsePauliOp("ZXZ")], [values]).result().gradients[0]
    assert np.abs(found - uncut(circuit, SparsePauliOp("ZXZ"), values)).max() <= 1e-10
    value, slope = counts(log)
    assert value == slope > 0
    assert [record.quantity for record in queries(log)] == ["value", "gradient"]


@pytest.mark.parametrize("gate", ["ry", "crx"])
def test_only_the_fragment_that_holds_the_parameter_runs_again(tmp_path, gate):
    """Two shifts of a rotation, four of a controlled one, of one fragment's circuits alone."""
    shifts = {"ry": 2, "crx": 4}[gate]
    x, log = ParameterVector("x", 3), tmp_path / "log.jsonl"
    circuit = QuantumCircuit(6)
    circuit.h(range(6))
    for number in range(3):
        pair = 2 * number, 2 * number + 1
        getattr(circuit, gate)(x[number], *pair[2 - shifts // 2 :])
        circuit.cz(*pair)
    circuit.cx(1, 2)
    circuit.cx(3, 4)
    circuit.ry(0.4, range(6))
    values = [0.4, 0.5, 0.6]
    gradient = make("AABBCC", log=log)
    observable = SparsePauliOp("ZZZZZZ")
    gradient._estimator.run([(circuit, observable, values)], precision=0).result()
    for wanted in ([x[0]], [x[1]], [x[2]], [x[0], x[2]], None):
        gradient.run([circuit], [observable], [values], [wanted]).result()
    value, first, second, third, ends, every = counts(log)
    own = [(cost - value) / shifts for cost in (first, second, third)]
    assert sum(own) == value
    assert own[0] == own[2] < own[1], "the middle one has two cuts"
    assert ends - value == shifts * (own[0] + own[2])
    assert every == value + shifts * value


def test_equal_bindings_of_a_fragment_run_once(tmp_path):
    """Members that differ on one fragment alone share the other's circuits."""
    x, log = ParameterVector("x", 2), tmp_path / "log.jsonl"
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.ry(x[1], 1)
    circuit.cx(0, 1)
    gradient = make("AB", log=log)
    points = [[0.3, y] for y in (0.1, 0.2, 0.3, 0.4)]
    observables = [SparsePauliOp("ZX")]
    gradient.run([circuit], observables, points[:1], [[x[0]]]).result()
    gradient.run([circuit] * 4, observables * 4, points, [[x[0]]] * 4).result()
    wanted = [x[0]]
    gradient.run([circuit] * 4, observables * 4, points, [wanted] * 4).result()
    one, *groups = counts(log)
    assert len(groups) == 2, "lists of parameters that are equal are asked in one batch"
    assert groups[0] == groups[1] < 4 * one


# --- Precision ------------------------------------------------------------------------------------


def test_rules_of_precision(tmp_path):
    circuit, log = iris_circuit(), tmp_path / "log.jsonl"
    call = [circuit], [SparsePauliOp("ZZZZ")], [point(circuit)]
    sampled = make("AABB", None, log=log, shots=77, seed=1)
    sampled.run(*call).result()
    sampled.run(*call, precision=0.1).result()
    zero = sampled.run(*call, precision=0).result().gradients[0]
    make("AABB", 0, log=log, shots=77).run(*call).result()
    make("AABB", None, log=log, default_precision=0).run(*call).result()
    make("AABB", None, log=log, default_precision=0.0625, seed=1).run(*call).result()
    make("AABB", 0.03125, log=log, default_precision=0.0625, seed=1).run(*call).result()
    make("AABB", 0.03125, log=log, seed=1).run(*call, precision=0.02).result()
    records = queries(log)
    assert [r.shots for r in records[:5]] == [77, 77, None, None, None]
    assert [r.precision for r in records] == [None, None, 0, 0, 0, 0.0625, 0.03125, 0.02]
    coarse, middle, fine = [r.shots_total for r in records[5:]]
    assert coarse < middle < fine
    assert np.abs(zero - uncut(circuit, SparsePauliOp("ZZZZ"), call[2][0])).max() <= 1e-10


def test_precision_is_kept_by_slopes_where_the_value_is_certain():
    """At θ = 0 the value has no error, its derivative by θ one of 1/√shots of the shifted pair."""
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.rx(angle, 0)
    circuit.ry(1.0, 1)
    gradient = make("AB", 0.05, seed=2)
    rows = np.array(
        [gradient.run([circuit], ["IZ"], [[0.0]]).result().gradients[0] for _ in range(60)]
    )
    # The sample deviation of 60 runs is within 1 ± 5/√120 of the true one.
    assert rows.std() <= 0.05 * (1 + 5 / np.sqrt(120))
    assert np.abs(rows.mean()) <= LIMIT * 0.05 / np.sqrt(60)


def test_gradient_on_a_sampler():
    from qiskit.primitives import StatevectorSampler

    circuit = real_amplitudes(2, reps=1)
    values = point(circuit)
    options = EstimatorOptions(shots=4096, seed=1)
    estimator = DistributedEstimator("AB", backend=StatevectorSampler(), options=options)
    found = FragmentGradient(estimator).run([circuit], ["ZZ"], [values]).result().gradients[0]
    # A cut cx has an overhead of 3 and at most 6 settings: 6·3/√4096 = 0.28 bounds five sigma
    # of half the difference of two such values.
    assert np.abs(found - uncut(circuit, SparsePauliOp("ZZ"), values)).max() <= 0.28


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [StatevectorEstimator(), None, "AB", DistributedEstimator])
def test_other_estimators_are_refused(estimator):
    with pytest.raises(InputError, match="needs a DistributedEstimator"):
        FragmentGradient(estimator)


NAN, INF = float("nan"), float("inf")
FOUR = [0.1, 0.2, 0.3, 0.4]
RA = real_amplitudes(2, reps=1)
BAD_CALLS = [
    *[(([RA], ["ZZ"], [[0.1, 0.2, bad, 0.4]]), "NaN or infinite") for bad in (NAN, INF, -INF)],
    *[
        (([RA], ["ZZ"], [values]), "value")
        for values in ([0.1, 0.2], [0.1] * 5, ["a"] * 4, [1j, 0, 0, 0], [FOUR] * 2, 0.1)
    ],
    (([RA] * 2, ["ZZ"] * 2, [FOUR, FOUR[:3]]), "rows of real numbers"),
    (([RA], [["ZZ", "XX"]], [FOUR]), "give one per circuit"),
    *[
        (([RA], [observable], [FOUR]), "observable")
        for observable in ("ZZZ", SparsePauliOp("Z"), SparsePauliOp("ZZ", 1j))
    ],
    *[(([circuit], ["ZZ"], [[0.1]]), "QuantumCircuit") for circuit in (None, "circuit", 3)],
    (([RA], ["ZZ"], [FOUR], [[Parameter("stranger")]]), "stranger"),
    (([QuantumCircuit(2)], ["ZZ"], [[]]), "parameters"),
    (([RA] * 2, ["ZZ"], [FOUR]), "give as many of each"),
    (([RA], ["ZZ"] * 2, [FOUR]), "give as many of each"),
    (([RA], ["ZZ"], [FOUR] * 2), "give as many of each"),
    (([RA], ["ZZ"], [FOUR], [None, None]), "give as many of each"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_calls(call, message):
    with pytest.raises(InputError, match=message):
        make("AB").run(*call)


def test_no_circuits_have_no_gradients():
    result = make("AB").run([], [], []).result()
    assert (result.gradients, result.metadata) == ([], [])


@pytest.mark.parametrize("precision", [-0.1, NAN, INF, "fine"])
def test_bad_precision(precision):
    with pytest.raises(InputError, match="precision"):
        make("AB", precision)
    with pytest.raises(InputError, match="precision"):
        make("AB").run([RA], ["ZZ"], [FOUR], precision=precision)


def test_labels_that_do_not_fit_show_in_the_result():
    circuit = real_amplitudes(2, reps=1)
    job = make("ABC").run([circuit], ["ZZ"], [point(circuit)])
    with pytest.raises(CutError, match="label"):
        job.result()


# --- values and gradients together


@pytest.mark.parametrize("cuts", [None, "AABB", "ABCD"])
def test_values_come_with_their_gradients(cuts):
    circuit = real_amplitudes(4, reps=1)
    observables = [[SparsePauliOp("ZZZZ")], [SparsePauliOp(["XIIX", "IYYI"], [0.5, -2.0])]]
    points = np.random.default_rng(3).uniform(-2, 2, (3, 8))
    gradient = make(cuts)
    values, gradients = gradient.values_and_gradients((circuit, observables, points))
    assert (values.shape, gradients.shape) == ((2, 3), (2, 3, 8))
    for i, (observable,) in enumerate(observables):
        for j, row in enumerate(points):
            estimator = DistributedEstimator(cuts, workers=2)
            value = estimator.run([(circuit, observable, row)], precision=0).result()[0].data.evs
            assert values[i, j] == pytest.approx(value, abs=1e-12)
            assert gradients[i, j] == pytest.approx(uncut(circuit, observable, row), abs=1e-10)


def test_values_and_gradients_keep_to_the_precision_and_the_pub():
    circuit = real_amplitudes(2, reps=1)
    sampling = make("AB", precision=None, shots=64, seed=3)
    pub = (circuit, "ZZ", [0.1, 0.2, 0.3, 0.4])
    first, again = (sampling.values_and_gradients(pub)[0] for _ in range(2))
    assert first != again
    exact_values, _ = sampling.values_and_gradients((*pub, 0.0))
    assert exact_values == make("AB").values_and_gradients(pub)[0]
    with pytest.raises(InputError, match="ask by the circuit's own"):
        sampling.values_and_gradients(pub, [Parameter("other")])
    with pytest.raises(InputError, match="parameter"):
        sampling.values_and_gradients((circuit, "ZZ", [0.1]))


def test_torch_backward_reaches_the_inputs():
    from qiskit_machine_learning.connectors import TorchConnector

    circuit = iris_circuit()
    qnn = make_qnn(make("ABBC"), circuit, SparsePauliOp("ZZZZ"))
    weights = np.random.default_rng(6).uniform(-1, 1, 8)
    model = TorchConnector(qnn, initial_weights=weights)
    inputs = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    model.to(torch.float64)(inputs).sum().backward()
    order = [*qnn.input_params, *qnn.weight_params]
    places = [list(circuit.parameters).index(parameter) for parameter in order]
    total = np.zeros(8)
    for sample in range(2):
        values = np.empty(12)
        values[places] = np.concatenate([inputs[sample].detach().numpy(), weights])
        expected = uncut(circuit, SparsePauliOp("ZZZZ"), values)[places]
        total += expected[4:]
        # torch keeps single precision somewhere on the way: 1e-5 is some ulps of it.
        assert np.abs(inputs.grad[sample].numpy() - expected[:4]).max() <= 1e-5
    assert np.abs(model.weight.grad.numpy() - total).max() <= 1e-5


def test_members_of_a_batch_are_unbiased_too():
    """300 bindings at once, a little apart from each other: each has shots of its own."""
    circuit = iris_circuit()
    points = point(circuit) + np.random.default_rng(1).uniform(-0.2, 0.2, (RUNS, 12))
    observable = SparsePauliOp("ZZZZ")
    call = [circuit] * RUNS, [observable] * RUNS, points
    expected = np.array(make("AABB").run(*call).result().gradients)
    found = np.array(make("AABB", None, shots=256, seed=3).run(*call).result().gradients)
    errors = found - expected
    spread = errors.std(axis=0, ddof=1) / np.sqrt(RUNS)
    assert (np.abs(errors.mean(axis=0)) <= LIMIT * spread).all()


def test_precision_zero_needs_an_exact_backend():
    from qiskit.primitives import StatevectorSampler

    circuit = real_amplitudes(2, reps=1)
    estimator = DistributedEstimator("AB", backend=StatevectorSampler())
    job = FragmentGradient(estimator, precision=0).run([circuit], ["ZZ"], [point(circuit)])
    with pytest.raises(BackendError, match="precision"):
        job.result()


def test_a_run_may_have_shots_in_all_of_its_own(tmp_path):
    """They win over those of the options, in values and derivatives; 0 is exact whatever else."""
    circuit = real_amplitudes(2, reps=1)
    pub = (circuit, "ZZ", [0.1, 0.2, 0.3, 0.4])
    log = tmp_path / "queries.jsonl"
    options = EstimatorOptions(shots=10, seed=1)
    with DistributedEstimator("AB", options=options, log=log) as estimator:
        gradient = FragmentGradient(estimator)
        estimator.run([pub], shots_total=2_000).result()
        gradient.values_and_gradients(pub, shots_total=20_000)
        estimator.run([pub], shots_total=2_000, precision=0).result()
        with pytest.raises(InputError, match="`shots_total` is 0: give"):
            estimator.run([pub], shots_total=0)
        counts = gradient.num_circuits(pub)
        estimator.run([pub]).result()
        gradient.values_and_gradients(pub)
    shots = [record.shots_total for record in read_records(log) if isinstance(record, QueryRecord)]
    assert 1_800 < shots[0] <= 2_000
    assert 18_000 < shots[1] <= 20_000
    assert shots[2:] == [0, *(10 * count for count in counts)]


# --- Sums of derivatives --------------------------------------------------------------------------


def sharing():
    """A PUB whose values share shots: many bindings are equal on a fragment."""
    circuit = iris_circuit()
    points = np.repeat(point(circuit)[None], 6, axis=0)
    points[:, 0] += np.repeat([0.0, 0.3, 0.6], 2)  # of the first fragment alone
    points[:, 3] += np.tile([0.0, -0.4], 3)  # of the second alone
    weights = np.array([1.0, -0.8, 0.6, 0.9, -0.7, 1.1])
    return (circuit, "ZZZZ", points), weights, circuit.parameters[4:]


def test_errors_of_a_sum_of_one_are_those_of_its_gradient():
    """With 20,000 shots a circuit, errors are known to one over their root, below one per cent."""
    pub, _, wanted = sharing()
    circuit, observable, points = pub
    gradient = make("AABB", precision=None, shots=20_000, seed=5)
    call = [circuit] * 6, [observable] * 6, points, [list(wanted)] * 6
    for number, metadata in enumerate(gradient.run(*call).result().metadata):
        found, stderrs = gradient.weighted(pub, 2 * np.eye(6)[number], wanted)
        assert found.shape == (6, 8)
        assert stderrs == pytest.approx(2 * metadata["stderrs"], rel=0.05)


@pytest.mark.parametrize("shots", [{"shots": 256}, {"shots_total": 60_000}])
def test_errors_of_sums_know_what_their_members_share(shots):
    """Over 300 runs a variance of normal errors has a standard deviation of √(2/300) = 8 %, and
    the sum of eight one of that at most. First order overstates by some per cent at such shots."""
    pub, weights, wanted = sharing()
    expected = np.einsum("b,bp->p", weights, make("AABB").weighted(pub, weights, wanted)[0])
    own = make("AABB", precision=None, seed=6, **shots)
    runs = [own.weighted(pub, weights, wanted) for _ in range(RUNS)]
    errors = np.array([weights @ found for found, _ in runs]) - expected
    claimed = np.array([stderrs**2 for _, stderrs in runs]).mean(axis=0)
    assert (np.abs(errors.mean(axis=0)) <= LIMIT * errors.std(axis=0, ddof=1) / RUNS**0.5).all()
    ratio = claimed.sum() / (errors**2).mean(axis=0).sum()
    assert 1 - 4 * 0.08 < ratio < 1 + 4 * 0.08 + 0.1


def test_shots_are_divided_for_the_sum():
    """A member of no weight needs no shots, and the sum has smaller errors for as many."""
    pub, weights, wanted = sharing()
    weights = weights * [1, 1, 0, 0, 0, 0]
    own = make("AABB", precision=None, seed=6, shots_total=60_000)
    job = make("AABB", precision=None, seed=6, shots_total=60_000)
    everything = [own.weighted(pub, weights, wanted)[1].max() for _ in range(5)]
    plain = [job.values_and_gradients(pub, wanted)[1] for _ in range(60)]
    spread = np.array([weights @ found for found in plain]).std(axis=0, ddof=1)
    # The standard deviation of 60 draws is right to 1/√120 = 9 %, of the largest of eight.
    assert np.mean(everything) < (1 - 3 * 0.09) * spread.max()


@pytest.mark.parametrize("weights", [[1.0], np.ones((6, 1)), [1, 1, 1, 1, 1, np.nan], [1e101] * 6])
def test_weights_that_do_not_fit_are_refused(weights):
    pub, _, wanted = sharing()
    with pytest.raises(InputError, match=r"`weights` has shape .*: give a finite number for each"):
        make("AABB").weighted(pub, weights, wanted)


@pytest.mark.parametrize("shots", [{"shots": 256}, {"shots_total": 60_000}, {"precision": 0}])
def test_the_sum_of_no_values_is_known(shots):
    circuit, observable, points = sharing()[0]
    own = make("AABB", **{"precision": None, "seed": 6, **shots})
    found, stderrs = own.weighted((circuit, observable, points[:0]), [])
    assert found.shape == (0, 12)
    assert stderrs.tolist() == [0.0] * 12


def test_weights_that_are_no_numbers_are_refused():
    pub, _, wanted = sharing()
    with pytest.raises(InputError, match=r"`weights` is 'ab': give numbers"):
        make("AABB").weighted(pub, "ab", wanted)


def test_large_weights_change_nothing_but_the_scale():
    """Their variances overflowed where they were squared."""
    pub, weights, wanted = sharing()
    small, large = (
        make("AABB", precision=None, seed=6, shots_total=60_000).weighted(pub, own, wanted)[1]
        for own in (np.asarray(weights), 1e90 * np.asarray(weights))
    )
    np.testing.assert_allclose(large, 1e90 * small, rtol=1e-3)
