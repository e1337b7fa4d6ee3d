"""What the caller gets wrong ends in one clear error, before anything runs or is written."""

from __future__ import annotations

import gc
import math
import re
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import entangled
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import AnnotatedOperation, Gate, Instruction, InverseModifier, Parameter
from qiskit.circuit.library import (
    CXGate,
    ExactReciprocalGate,
    HamiltonianGate,
    Initialize,
    LinearPauliRotationsGate,
    MSGate,
    PauliEvolutionGate,
    PauliProductMeasurement,
    PermutationGate,
    PiecewiseLinearPauliRotationsGate,
    PolynomialPauliRotationsGate,
    RVGate,
    RZZGate,
)
from qiskit.primitives import BaseSamplerV2, StatevectorSampler
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import (
    Kraus,
    Operator,
    Pauli,
    SparseObservable,
    SparsePauliOp,
    Statevector,
)
from qiskit.synthesis import MatrixExponential, QDrift
from qiskit_addon_cutting.instructions import CutWire, Move
from qiskit_addon_cutting.qpd import QPDBasis, SingleQubitQPDGate, TwoQubitQPDGate
from qiskit_aer.library import SaveStatevector
from qiskit_machine_learning.circuit.library import raw_feature_vector

from distributed_estimator import (
    AutoCut,
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
)
from distributed_estimator.backends.fleet import Fleet, homogeneous
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import (
    BackendError,
    CircuitError,
    CutError,
    DistributedEstimatorError,
    InputError,
    ObservableError,
    PlanTooLargeError,
    RecordError,
    TaskFailedError,
)
from distributed_estimator.execution import (
    Batches,
    Constant,
    Deadline,
    Policy,
    Retry,
    SlowWorker,
    Speculation,
    Stragglers,
)
from distributed_estimator.execution.pools import ExecutorPool, ProcessPool, ThreadPool
from distributed_estimator.records import RecordWriter
from distributed_estimator.reference import ReferenceEstimator
from distributed_estimator.simulation import simulate
from distributed_estimator.training.config import AttackConfig, TrainingConfig
from distributed_estimator.training.workloads import WorkloadConfig


def chain(width=4):
    return entangled(width, 1, layers=1)


def rotation():
    """One qubit, one parameter."""
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("angle"), 0)
    return circuit


@pytest.fixture
def refused(tmp_path):
    """Asserts that a run ends in an error of this kind and leaves no record and no thread."""

    def check(error, match, circuit, observables="ZZZZ", values=None, *, cuts=None, **keywords):
        options = EstimatorOptions(**keywords.pop("options", {"default_precision": 0}))
        log = tmp_path / "log.jsonl"
        estimator = DistributedEstimator(cuts, workers=2, options=options, log=log, **keywords)
        threads = threading.active_count()
        pub = (circuit, observables) if values is None else (circuit, observables, values)
        with pytest.raises(error, match=match) as caught:
            estimator.run([pub]).result()
        assert type(caught.value) is error
        assert isinstance(caught.value, DistributedEstimatorError)
        assert not log.exists()
        del estimator, caught  # idle workers go with their pool
        deadline = time.monotonic() + 5
        while threading.active_count() > threads:
            gc.collect()
            assert time.monotonic() < deadline, "a thread is left running"

    return check


# --- labels and plans -----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["", "A", "AAB", "AABBB", ["A"] * 5, np.arange(3).tolist()])
def test_labels_too_few_or_too_many(refused, labels):
    match = rf"`cuts` labels {len(labels)} qubits, the circuit has 4: give one label per qubit"
    refused(CutError, match, chain(), cuts=labels)
    with pytest.raises(CutError, match=match):
        CutPlan.build(chain(), labels)


@pytest.mark.parametrize("labels", [["A", None, "B", "B"], [None] * 4])
def test_labels_that_do_not_cover(refused, labels):
    number = labels.index(None)
    refused(CutError, f"leaves qubit {number} without a label: give one", chain(), cuts=labels)


@pytest.mark.parametrize(
    "labels",
    [5, 3.5, [["A"], ["A"], ["B"], ["B"]], [{}, {}, {}, {}], {0: "A"}, AutoCut, iter("AB")],
)
def test_labels_of_the_wrong_type(labels):
    match = "`cuts` is .*: give one hashable label per qubit"
    with pytest.raises(InputError, match=match):
        DistributedEstimator(labels)
    with pytest.raises(InputError, match=match):
        CutPlan.build(chain(), labels)


@pytest.mark.parametrize("max_qubits", [0, -3])
def test_fragments_of_no_qubits(max_qubits):
    with pytest.raises(InputError, match=f"`max_qubits` is {max_qubits}: .*at least 1"):
        AutoCut(max_qubits)


@pytest.mark.parametrize("max_qubits", [2.5, "3", None, True, math.nan])
def test_widths_that_are_no_whole_numbers(max_qubits):
    with pytest.raises(InputError, match=r"`max_qubits` is .*: .*whole number"):
        AutoCut(max_qubits)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", True),
        ("seed", -1),
        ("max_gamma", True),
        ("max_gamma", math.nan),
        ("max_backjumps", True),
        ("max_backjumps", -1),
        ("gate_cuts", 1),
        ("wire_cuts", "no"),
    ],
)
def test_searches_that_are_none(field, value):
    with pytest.raises(InputError, match=f"`{field}` is {value!r}: give "):
        AutoCut(3, **{field: value})


def test_neither_kind_of_cut():
    with pytest.raises(InputError, match="`gate_cuts` and `wire_cuts` are both off: allow one"):
        AutoCut(3, gate_cuts=False, wire_cuts=False)


def test_no_plan_under_max_qubits(refused):
    """Wires alone cannot part a two-qubit gate."""
    search = AutoCut(1, gate_cuts=False)
    match = "no plan under `max_qubits` 1 .*: allow more qubits.*both kinds of cut"
    refused(CutError, match, chain(), cuts=search)
    with pytest.raises(CutError, match=match):
        CutPlan.build(chain(), search)


@pytest.mark.parametrize("mark", [CutWire(), Move()])
def test_a_search_on_a_circuit_with_cut_marks(refused, mark):
    circuit = chain()
    circuit.append(mark, range(mark.num_qubits))
    refused(
        CutError,
        "`CutWire` or `Move` .*: remove the marks, or give labels",
        circuit,
        cuts=AutoCut(3),
    )


def test_a_plan_of_another_circuit(refused):
    plan = CutPlan.build(chain(), "AABB")
    wider = "plan was built for 4 qubits, the circuit has 5: build a plan from this circuit"
    refused(CutError, wider, chain(5), "ZZZZZ", cuts=plan)
    other = "plan was built for another circuit, .*: build a plan from this circuit"
    refused(CutError, other, entangled(4, 2, layers=1), cuts=plan)
    renamed = QuantumCircuit(4)
    renamed.rx(Parameter("a"), range(4))
    plan = CutPlan.build(renamed, "AABB")
    different = QuantumCircuit(4)
    different.rx(Parameter("b"), range(4))
    refused(CutError, other, different, values=[0.1], cuts=plan)


# --- circuits -------------------------------------------------------------------------------------


def with_classical(build):
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(1))
    circuit.h(0)
    build(circuit)
    circuit.cx(0, 1)
    return circuit


def conditional(circuit):
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)


def loop(circuit):
    with circuit.for_loop(range(2)):
        circuit.x(1)


def boxed(circuit):
    body = QuantumCircuit(2, 1, name="innocent")
    body.measure(0, 0)
    circuit.append(body.to_instruction(), [0, 1], [0])


def hidden_reset(circuit):
    body = QuantumCircuit(1)
    body.reset(0)
    outer = QuantumCircuit(1)
    outer.append(body.to_instruction(), [0])
    circuit.append(outer.to_instruction(), [0])


def measured_pauli(circuit):
    circuit.append(PauliProductMeasurement(Pauli("XZ")), [0, 1], [0])


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda c: c.measure(0, 0), r"a measurement \(instruction 1\)"),
        (lambda c: c.reset(0), r"a reset \(instruction 1\)"),
        (conditional, r"classical control \(`if_else`\) \(instruction 1\)"),
        (loop, r"classical control \(`for_loop`\)"),
        (boxed, r"a measurement \(instruction 1\)"),
        (measured_pauli, r"a measurement \(instruction 1\)"),
        (hidden_reset, r"a reset \(instruction 1\)"),
        (lambda c: c.append(Initialize([1, 0]), [0]), "an `Initialize`"),
        (lambda c: c.initialize([1, 0, 0, 0]), "an `Initialize`"),
        (lambda c: c.measure_all(), "a measurement"),
        (lambda c: (c.measure(0, 0), c.append(PermutationGate([1, 0]), [0, 1])), "a measurement"),
    ],
)
@pytest.mark.parametrize("cuts", [None, "AB", AutoCut(1)])
def test_what_is_not_unitary(refused, build, match, cuts):
    refused(
        CircuitError,
        f"the circuit holds .*(?:{match}).*takes unitary circuits: remove it",
        with_classical(build),
        "ZZ",
        cuts=cuts,
    )


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("cuts", ["AAB", "ABC", "AAA"])
@pytest.mark.parametrize("angle", [0.3, Parameter("a")])
def test_a_gate_without_matrix_and_definition(refused, width, cuts, angle):
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.append(Gate("mystery", width, [angle]), range(width))
    match = r"`mystery` \(instruction 1\) has neither a matrix nor a definition .*: set its `def"
    refused(CircuitError, match, circuit, "ZZZ", [0.3] * circuit.num_parameters, cuts=cuts)


def marked_as_cut(circuit):
    circuit.append(TwoQubitQPDGate(QPDBasis.from_instruction(RZZGate(0.3))), [0, 1])


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (
            lambda c: c.append(Kraus([np.eye(2) * 0.8, np.eye(2)[::-1] * 0.6]), [0]),
            r"`kraus` \(instruction 2\) is not a unitary gate .*: remove it; noise belongs",
        ),
        (
            lambda c: c.append(SaveStatevector(2), [0, 1]),
            r"`save_statevector` \(instruction 2\) is not a unitary gate .*: remove it",
        ),
        (
            lambda c: c.append(Instruction("pulse", 1, 0, []), [0]),
            r"`pulse` \(instruction 2\) is not a unitary gate .*: remove it",
        ),
        (
            marked_as_cut,
            r"marked as cut \(`qpd_2q`\) \(instruction 2\): give the circuit as it was before",
        ),
        (
            lambda c: c.append(SingleQubitQPDGate(QPDBasis.from_instruction(CXGate()), 0), [0]),
            r"marked as cut \(`qpd_1q`\) \(instruction 2\): give the circuit as it was before",
        ),
    ],
    ids=["kraus", "save", "opaque", "addon, gate", "addon, side"],
)
@pytest.mark.parametrize("cuts", [None, "AB"])
def test_operations_that_are_no_gates(refused, build, match, cuts):
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    build(circuit)
    refused(CircuitError, match, circuit, "ZZ", cuts=cuts)


ANGLE = Parameter("t")
HAMILTONIAN = SparsePauliOp(["ZZ", "XI"])


@pytest.mark.parametrize(
    "gate",
    [
        HamiltonianGate(np.eye(4), ANGLE),
        RVGate(ANGLE, 0.1, 0.2),
        PauliEvolutionGate(HAMILTONIAN, ANGLE, synthesis=MatrixExponential()),
        PauliEvolutionGate(HAMILTONIAN, ANGLE, synthesis=QDrift(seed=1)),
        AnnotatedOperation(RVGate(ANGLE, 0.1, 0.2), [InverseModifier()]),
        raw_feature_vector(4).data[0].operation,
    ],
    ids=lambda gate: gate.name,
)
@pytest.mark.parametrize("cuts", [None, "AB"])
def test_symbolic_gates_that_only_exist_bound(refused, gate, cuts):
    circuit = QuantumCircuit(2)
    circuit.append(gate, range(gate.num_qubits))
    names = ", ".join(f"`{p.name}`" for p in circuit.parameters).replace("[", r"\[")
    match = rf"`\w+` \(instruction 0\) has neither .* without a value for {names}: bind it first"
    values = np.full(circuit.num_parameters, 0.5)
    refused(CircuitError, match, circuit, "ZZ", values, cuts=cuts)
    bound = DistributedEstimator(cuts, workers=1).run(
        [(circuit.assign_parameters(values), "ZZ")], precision=0
    )
    assert math.isfinite(bound.result()[0].data.evs)


@pytest.mark.parametrize(
    "gate",
    [
        LinearPauliRotationsGate(2, ANGLE, 0.3),
        LinearPauliRotationsGate(2, 0.4, ANGLE).inverse(),
        PolynomialPauliRotationsGate(2, [0.1, ANGLE]),
        PiecewiseLinearPauliRotationsGate(1, [0, 1], [ANGLE, 0.2], [0.1, 0.2]),
        MSGate(3, [[0, ANGLE, 0], [ANGLE, 0, 0.1], [0, 0.1, 0]]),
    ],
    ids=lambda gate: gate.name,
)
def test_parameters_that_qiskit_hides_in_gates(refused, gate):
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.append(gate, range(gate.num_qubits))
    match = r"`.*` \(instruction 1\) depends on `t`, which Qiskit does not count .*: build the gate"
    refused(CircuitError, match, circuit, "ZZZ")
    circuit = circuit.decompose(reps=3)
    found = DistributedEstimator(workers=1).run([(circuit, "ZZZ", [0.4])], precision=0)
    expected = Statevector(circuit.assign_parameters([0.4])).expectation_value(Pauli("ZZZ"))
    assert found.result()[0].data.evs == pytest.approx(expected.real, abs=1e-10)


def test_a_gate_whose_definition_fails(refused):
    """It divides by its parameter, which Qiskit does not count as one."""
    circuit = QuantumCircuit(3)
    circuit.append(ExactReciprocalGate(2, ANGLE), range(3))
    match = r"neither a matrix nor a definition that Qiskit can give: .*build it of numbers"
    refused(CircuitError, match, circuit, "ZZZ")


@pytest.mark.parametrize("angle", [math.nan, math.inf, -math.inf])
def test_gate_angles_that_are_no_numbers(refused, angle):
    circuit = chain()
    circuit.rx(angle, 0)
    refused(
        CircuitError,
        r"`rx` \(instruction 11\) has the angle -?(nan|inf), which is not finite: give",
        circuit,
        cuts="AABB",
    )


def test_complex_gate_angles(refused):
    circuit = QuantumCircuit(1)
    circuit.rx(1j * Parameter("a"), 0)
    refused(CircuitError, "complex number.*angles have to be real", circuit, "Z", [0.3])


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (lambda x: x.log(), -1),
        (lambda x: x.arcsin(), 3),
        (lambda x: 1 / x, 0),
        (lambda x: x**0.5, -2),
    ],
    ids=["log", "asin", "1/x", "sqrt"],
)
def test_expressions_outside_their_domain(refused, expression, value):
    circuit = QuantumCircuit(1)
    circuit.rx(expression(Parameter("x")), 0)
    refused(
        InputError, "gate angle `.*x.*` is not a finite real number.*bind", circuit, "Z", [value]
    )


# --- parameter values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([0.1], "1 parameter values were given, the circuit has 2: give one value per parameter"),
        ([0.1, 0.2, 0.3], "3 parameter values were given, the circuit has 2"),
        ([[0.1]], "1 parameter values were given, the circuit has 2"),
        (None, "0 parameter values were given, the circuit has 2"),
        ([], "0 parameter values were given, the circuit has 2"),
        ([math.nan, 0.1], "parameter `a` is NaN or infinite: bind finite numbers only"),
        ([0.1, math.inf], "parameter `b` is NaN or infinite"),
        ([[0.1, 0.2], [0.1, -math.inf]], "parameter `b` is NaN or infinite"),
        ([0.1, 0.2j], "not real numbers"),
        (["x", "y"], "not real numbers"),
        ([[0.1, 0.2], [0.3]], "not real numbers"),
        ({"a": 0.1}, "parameter values do not fit the circuit"),
        ({"a": 0.1, "b": 0.2, "c": 0.3}, "parameter values do not fit the circuit"),
        ({"a": 0.1, "c": 0.3}, "parameter values do not fit the circuit.*'c'"),
        ({"a": [0.1, 0.2], "b": [0.1, 0.2, 0.3]}, "parameter values do not fit the circuit"),
        ({"a": math.nan, "b": 0.2}, "parameter `a` is NaN or infinite"),
        ({"a": 1j, "b": 0.2}, "do not fit the circuit|not real"),
    ],
)
def test_parameter_values_that_do_not_fit(refused, values, match):
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("a"), 0)
    circuit.rx(Parameter("b"), 1)
    circuit.cx(0, 1)
    refused(InputError, match, circuit, "ZZ", values, cuts="AB")


def test_values_for_a_circuit_without_parameters(refused):
    refused(
        InputError, "2 parameter values were given, the circuit has 0", chain(), values=[0.1, 0.2]
    )


def test_shapes_that_do_not_broadcast(refused):
    match = r"observables of shape \(3,\) and parameter values of shape \(2,\) do not broadcast"
    refused(InputError, match, rotation(), ["X", "Y", "Z"], [[0.1], [0.2]])


# --- observables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("observable", ["ZZZ", "ZZZZZ", SparsePauliOp("ZZ"), {"Z": 1.0}, ""])
def test_observables_of_the_wrong_width(refused, observable):
    width = len(observable) if isinstance(observable, str) else 0
    told = width or "[0-9]"
    match = (
        f"the observable acts on {told} qubits, the circuit has 4: give one Pauli letter per qubit"
    )
    refused(ObservableError, match, chain(), observable, cuts="AABB")


def test_the_same_observable_is_checked_for_every_circuit():
    """One object, two circuits: it fits the first and not the second."""
    observable = "ZZ"
    estimator = DistributedEstimator(None, options=EstimatorOptions(default_precision=0))
    with pytest.raises(ObservableError, match="acts on 2 qubits, the circuit has 3"):
        estimator.run([(chain(2), observable), (chain(3), observable)])


@pytest.mark.parametrize(
    "observable",
    [
        SparsePauliOp(["ZZZZ"], [1j]),
        SparsePauliOp(["ZZZZ", "XXXX"], [1, 1 + 1e-3j]),
        {"ZZZZ": 2j},
        Pauli("iZZZZ"),
        [],
        {},
        [[]],
        np.array([]),
        SparsePauliOp(["ZZZZ"], [0]),
        "ZZZQ",
        "zzzz",
        5,
        None,
        Operator(np.eye(16)),
        ["ZZZZ", "ZZ"],
        [["ZZZZ"], []],
        SparsePauliOp(["ZZZZ"], np.array([Parameter("w")])),
    ],
    ids=[
        "imaginary",
        "partly imaginary",
        "imaginary dict",
        "imaginary Pauli",
        "empty list",
        "empty dict",
        "empty lists",
        "empty array",
        "zero",
        "unknown letter",
        "lower case",
        "number",
        "nothing",
        "dense",
        "unlike widths",
        "ragged",
        "symbolic weight",
    ],
)
def test_observables_that_cannot_be_read(refused, observable):
    match = "(cannot be read .*: give a Hermitian Pauli sum|empty: give at least one)"
    refused(ObservableError, f"(?s){match}", chain(), observable, cuts="AABB")


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 1e308, -1e71, complex("1+infj")])
def test_weights_out_of_range(refused, weight):
    match = r"the weight {} of \('XXXX', .*: give finite weights.* from 1e-70 to 1e\+70".format(
        re.escape(f"{weight:g}")
    )
    for observable in (
        {"ZZZZ": 1.0, "XXXX": weight},
        SparseObservable.from_list([("ZZZZ", 1), ("XXXX", weight)]),
        ["ZZZZ", {"XXXX": weight}],
    ):
        refused(ObservableError, match, chain(), observable, cuts="AABB")


def test_weights_that_are_all_too_small_or_no_float(refused):
    refused(ObservableError, "the weight 1e-71 of .*: give finite", chain(), {"ZZZZ": 1e-71})
    refused(ObservableError, "cannot be read .*: give a Herm", chain(), {"ZZZZ": 10**400})


def test_an_array_that_qiskit_made_is_checked_too(refused):
    array = ObservablesArray([{"ZZZZ": 1e308}])
    refused(ObservableError, r"the weight 1e\+308 of", chain(), array)


# --- accuracy -------------------------------------------------------------------------------------

NO_PRECISION = [
    *(-0.1, -1e-12, math.nan, math.inf, 1e308, 10**400, "high", "0.1", [0.1, 0.2], 1j),
    *(True, False, np.True_),
]


@pytest.mark.parametrize("precision", NO_PRECISION)
def test_precisions_that_are_none(precision):
    match = (
        "`precision` is .*: give a standard error above 0 and up to .*, or 0 for the exact value"
    )
    estimator = DistributedEstimator("AABB")
    with pytest.raises(InputError, match=match):
        estimator.run([(chain(), "ZZZZ")], precision=precision)
    with pytest.raises(InputError, match=match):
        estimator.run([(chain(), "ZZZZ", None, precision)])
    with pytest.raises(InputError, match="`default_precision` is "):
        EstimatorOptions(default_precision=precision)


@pytest.mark.parametrize(
    "make",
    [
        lambda true: Batches(true),
        lambda true: Batches(1, delay=true),
        lambda true: Policy(in_flight=true),
        lambda true: Policy(subexperiments=true),
        lambda true: Deadline(true),
        lambda true: Deadline(1.0, chunks=true),
        lambda true: Retry(attempts=true),
        lambda true: Retry(timeout=true),
        lambda true: Speculation(factor=true),
        lambda true: Stragglers(true, Constant(1.0)),
        lambda true: Stragglers(0.5, Constant(true)),
        lambda true: Stragglers(0.5, Constant(1.0), SlowWorker(true, 1.0)),
        lambda true: AutoCut(true),
        lambda true: SamplerBackend(StatevectorSampler(), circuits_per_job=true),
        lambda true: homogeneous(true, seconds_per_job=1, seconds_per_shot=0),
        lambda true: homogeneous(1, seconds_per_job=true, seconds_per_shot=0),
        lambda true: homogeneous(1, seconds_per_job=1, seconds_per_shot=0, seed=true),
        lambda true: ProcessPool(1, memory_limit=true),
        lambda true: ThreadPool(true),
        lambda true: FragmentGradient(DistributedEstimator(), precision=true),
        lambda true: ReferenceEstimator("A", shots=true),
        lambda true: ReferenceEstimator("A").run([(rotation(), "Z", [1.0])], precision=true),
        lambda true: TrainingConfig(epochs=true),
        lambda true: TrainingConfig(lr=true),
        lambda true: WorkloadConfig("iris", feature_range=(0, true)),
        lambda true: AttackConfig(sigma=(0.1, true)),
        lambda true: simulate([], [], Policy(), workers=true),
        lambda true: simulate([], [], Policy(), workers=1, crashes=true),
    ],
)
def test_true_is_no_number(make):
    with pytest.raises(InputError, match=r"True.*: .*give "):
        make(True)


@pytest.mark.parametrize("shots", [0, -1, 1.5, "many", True, math.nan, math.inf])
def test_shots_that_are_none(shots):
    with pytest.raises(
        InputError, match=r"`shots` is .*: give a whole number of at least 1, or None"
    ):
        EstimatorOptions(shots=shots)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"seed": -1}, "`seed` is -1: give a whole number of at least 0, or None"),
        ({"seed": 1.5}, "`seed` is 1.5"),
        ({"setting_basis": "tiny"}, '`setting_basis` is .*: use "full" or "minimal"'),
        ({"memory_limit": 0}, "`memory_limit` is 0"),
        ({"memory_limit": -5}, "`memory_limit` is -5"),
        ({"memory_limit": True}, "`memory_limit` is True"),
        ({"seed": True}, "`seed` is True"),
        ({"policy": Policy}, "`policy` is the class Policy, not an instance of it: give a Policy"),
        ({"stragglers": 0.5}, "`stragglers` is 0.5: give Stragglers, or None"),
    ],
)
def test_other_options(options, match):
    with pytest.raises(InputError, match=match):
        EstimatorOptions(**options)


def test_a_precision_that_takes_more_shots_than_can_be_counted():
    options = {"default_precision": 1e-11, "seed": 1}
    with pytest.raises(DistributedEstimatorError, match=r"precision.*: .*larger"):
        DistributedEstimator("AABB", options=EstimatorOptions(**options)).run(
            [(chain(), "ZZZZ")]
        ).result()


# --- the estimator's own arguments ----------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -2, 1.5, "two", True, None])
def test_workers(workers):
    with pytest.raises(InputError, match=r"`workers` is .*: give a whole number of at least 1"):
        DistributedEstimator("AB", workers=workers)


@pytest.mark.parametrize("pool", ["fibres", "", 5, None, object()])
def test_pools(pool):
    with pytest.raises(InputError, match=r'`pool` is .*: give "threads"'):
        DistributedEstimator("AB", pool=pool)


@pytest.mark.parametrize("backend", ["aer", 5, object()])
def test_backends(backend):
    with pytest.raises(
        InputError,
        match=r"`backend` is .*: give None .* or an instance of any Qiskit",
    ):
        DistributedEstimator("AB", backend=backend)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: DistributedEstimator(backend=StatevectorSampler), "backend"),
        (lambda: DistributedEstimator(backend=SamplerBackend), "backend"),
        (lambda: DistributedEstimator(pool=ThreadPoolExecutor), "pool"),
        (lambda: DistributedEstimator(options=EstimatorOptions), "options"),
        (lambda: DistributedEstimator(log=RecordWriter), "log"),
        (lambda: SamplerBackend(StatevectorSampler), "sampler"),
        (lambda: ExecutorPool(ThreadPoolExecutor, 1), "executor"),
        (lambda: FragmentGradient(DistributedEstimator), "estimator"),
        (lambda: ReferenceEstimator("AB", sampler=StatevectorSampler), "sampler"),
    ],
)
def test_classes_in_place_of_instances(make, name):
    with pytest.raises(InputError, match=rf"`{name}` is the class \w+, not an instance of it: "):
        make()


@pytest.mark.parametrize("options", [{"shots": 100}, {}, 0, "exact"])
def test_options_that_are_none(options):
    with pytest.raises(InputError) as caught:
        DistributedEstimator("AB", options=options)
    assert str(caught.value) == (
        f"`options` is {options!r}: give EstimatorOptions, such as EstimatorOptions(shots=100), or "
        "None"
    )


@pytest.mark.parametrize("name", ["log", "trace"])
def test_a_journal_in_a_log_is_refused(tmp_path, name):
    """Each would wait for the other's lock."""
    path, options = tmp_path / "one.jsonl", EstimatorOptions(seed=1)
    with pytest.raises(InputError, match="`journal` names the file of a log"):
        DistributedEstimator(options=options, journal=path, **{name: str(path)})


@pytest.mark.parametrize("path", [5, True, b"log.jsonl", ["log.jsonl"]])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda path: DistributedEstimator(log=path), "log"),
        (lambda path: DistributedEstimator(trace=path), "trace"),
        (lambda path: DistributedEstimator(journal=path), "journal"),
        (lambda path: ReferenceEstimator("AB", log=path), "log"),
        (
            lambda path: Fleet(homogeneous(1, seconds_per_job=1, seconds_per_shot=0), log=path),
            "log",
        ),
    ],
)
def test_paths_that_are_none(make, name, path):
    with pytest.raises(InputError) as caught:
        make(path)
    assert str(caught.value).startswith(f"`{name}` is {path!r}: give the path of a file")


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (
            lambda: DistributedEstimator("AB"),
            ["cuts", "backend", "pool", "workers", "options", "log", "trace", "journal"],
        ),
        (lambda: FragmentGradient(DistributedEstimator("AB")), ["estimator", "precision"]),
        (lambda: ReferenceEstimator("AB"), ["cuts", "shots", "seed", "workers", "log"]),
    ],
)
def test_what_an_estimator_was_given_cannot_be_changed_in_place(make, names):
    made = make()
    kind = type(made).__name__
    for name in names:
        match = rf"`{name}` of a {kind} cannot be changed: make a new {kind}\({name}=\.\.\.\)"
        with pytest.raises(AttributeError, match=match):
            setattr(made, name, None)
    made.note = "attributes of one's own are no concern of it"


def test_subclasses_have_attributes_of_their_own():
    class Named(DistributedEstimator):
        def __init__(self, name):
            super().__init__("AB")
            self.name = name

    assert Named("mine").name == "mine"
    with pytest.raises(AttributeError, match="make a new Named"):
        Named("mine").options = EstimatorOptions()


def test_a_log_that_cannot_be_written(tmp_path):
    with pytest.raises(RecordError, match="is a folder"):
        DistributedEstimator("AB", log=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        DistributedEstimator("AB", log=tmp_path / "file" / "log.jsonl")


@pytest.mark.parametrize(
    "pubs",
    [
        QuantumCircuit(1),
        5,
        None,
        [QuantumCircuit(1)],
        (QuantumCircuit(1), "Z"),
        [5],
        [None],
        [(QuantumCircuit(1),)],
        [(QuantumCircuit(1), "Z", None, None, None)],
        [("Z", QuantumCircuit(1))],
        [[]],
        ["ZZ"],
    ],
    ids=[
        "a circuit",
        "a number",
        "nothing",
        "a bare circuit",
        "a bare PUB",
        "a number as PUB",
        "nothing as PUB",
        "no observable",
        "too long",
        "turned round",
        "empty",
        "a string",
    ],
)
def test_pubs_that_are_none(pubs):
    """The message says what a PUB is; nothing is started."""
    estimator = DistributedEstimator()
    with pytest.raises(InputError, match=r"(PUB|QuantumCircuit)"):
        estimator.run(pubs)


def test_one_bad_pub_stops_the_whole_run(tmp_path):
    log = tmp_path / "log.jsonl"
    options = EstimatorOptions(default_precision=0)
    estimator = DistributedEstimator("AABB", log=log, options=options)
    with pytest.raises(ObservableError):
        estimator.run([(chain(), "ZZZZ"), (chain(), "ZZ")])
    assert not log.exists()
    estimator.run([(chain(), "ZZZZ")]).result()
    assert log.exists()


# --- memory ---------------------------------------------------------------------------------------


def test_a_plan_beyond_the_memory_limit(refused):
    """The message has the numbers, names the fragment and says what would help."""
    match = (
        r"the plan needs .* of memory, the limit is .*: fragment 0 \(5 qubits, .* slots, .* "
        r"branches\) takes .*; cut fewer gates .*`memory_limit`"
    )
    refused(
        PlanTooLargeError,
        match,
        entangled(10, 1, layers=3),
        "Z" * 10,
        cuts="A" * 5 + "B" * 5,
        options={"default_precision": 0, "memory_limit": 2000},
    )


@pytest.mark.parametrize(
    ("rows", "options", "remedies"),
    [
        (1, {"memory_limit": 1000}, "cut it into narrower fragments, or raise `memory_limit`"),
        (
            9,
            {"memory_limit": 1000},
            "cut it into narrower fragments, or send fewer bindings a run, or raise `memory_limit`",
        ),
        (
            1,
            {"memory_limit": 1500, "shots": 10, "default_precision": 0.1},
            "cut it into narrower fragments, or ask for exact values, or raise `memory_limit`",
        ),
        (
            1,
            {"memory_limit": 1000, "shots": 10, "default_precision": 0.1},
            "cut it into narrower fragments, or raise `memory_limit`",
        ),
    ],
)
def test_remedies_for_a_lack_of_memory_apply(refused, rows, options, remedies):
    """Nothing is cut here, so nothing can be cut less."""
    circuit = chain()
    circuit.rx(Parameter("x"), range(4))
    match = re.escape(f"); {remedies}") + "$"
    values = np.linspace(0, 1, rows)
    observable = SparsePauliOp(["ZZZZ", "IIZZ"])
    options = {"default_precision": 0} | options
    refused(PlanTooLargeError, match, circuit, observable, values, options=options)


def assert_refused_without_taking_memory(circuit, observable, cuts, **options):
    estimator = DistributedEstimator(cuts, workers=2, options=EstimatorOptions(**options))
    tracemalloc.start()
    try:
        with pytest.raises(PlanTooLargeError, match=r"the plan needs .*: "):
            estimator.run([(circuit, observable)]).result()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 << 20, "a bounded amount, whatever the plan would need"


@pytest.mark.parametrize("options", [{"default_precision": 0}, {"shots": 10}])
@pytest.mark.parametrize("cuts", [None, "A" * 40])
def test_a_circuit_too_wide_to_simulate(cuts, options):
    assert_refused_without_taking_memory(chain(40), "Z" * 40, cuts, **options)


@pytest.mark.parametrize("options", [{"default_precision": 0}, {"shots": 10}])
def test_an_observable_with_too_many_outcomes(options):
    """Forty signs that share their shots have 2^40 joint outcomes."""
    terms = [("Z", [qubit], 1.0) for qubit in range(40)]
    observable = SparsePauliOp.from_sparse_list(terms, 40)
    assert_refused_without_taking_memory(chain(40), observable, None, **options)


@pytest.mark.parametrize("options", [{"default_precision": 0}, {"shots": 10}])
@pytest.mark.parametrize("gate", ["cz", "swap"])
def test_too_many_cuts_on_one_fragment(gate, options):
    circuit = QuantumCircuit(2)
    for number in range(40):
        circuit.rx(0.1 * number, [0, 1])
        getattr(circuit, gate)(0, 1)
    assert_refused_without_taking_memory(circuit, "ZZ", "AB", **options)


# --- samplers -------------------------------------------------------------------------------------


class Refusing(BaseSamplerV2):
    """A device that takes no circuit."""

    def run(self, pubs, *, shots=None):
        raise ValueError("instruction 'ry' is not supported by this target")


def test_zero_precision_on_a_sampler(refused):
    match = (
        "`precision` is 0, but the backend .* samples: ask for a positive precision, set `shots`"
    )
    refused(BackendError, match, chain(), cuts="AABB", backend=StatevectorSampler())


def test_a_sampler_that_refuses_a_circuit(refused):
    match = "the sampler .*Refusing failed on fragment .*'ry' is not supported.*transpile"
    refused(TaskFailedError, match, chain(), cuts="AABB", backend=Refusing(), options={"shots": 10})


@pytest.mark.parametrize("factor", [1e308, -1e308])
def test_an_angle_that_overflows_is_refused(factor):
    x = Parameter("x")
    circuit = QuantumCircuit(2)
    circuit.rx(factor * x, 0)
    circuit.cx(0, 1)
    with pytest.raises(InputError, match="is not a finite real number at the parameter values"):
        DistributedEstimator("AB").run([(circuit, "ZZ", [10.0])], precision=0).result()
