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
from qiskit.circuit.classical import expr
from qiskit.circuit.library import (
    CXGate,
    ExactReciprocalGate,
    HamiltonianGate,
    LinearPauliRotationsGate,
    MSGate,
    PauliEvolutionGate,
    PiecewiseLinearPauliRotationsGate,
    PolynomialPauliRotationsGate,
    RVGate,
    RZZGate,
    XGate,
)
from qiskit.primitives import (
    BaseSamplerV1,
    BaseSamplerV2,
    StatevectorEstimator,
    StatevectorSampler,
)
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers.basic_provider import BasicProvider
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
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveStatevector
from qiskit_machine_learning.circuit.library import raw_feature_vector

from distributed_estimator import (
    AutoCut,
    CutAt,
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


def rotation(*factors):
    """One qubit, turned by multiples or functions of one parameter."""
    circuit, x = QuantumCircuit(1), Parameter("x")
    for factor in factors or (lambda x: x,):
        circuit.rx(factor(x), 0)
    return circuit


def built(width, *gates, clbits=0, start=()):
    """Gates on the first qubits of a circuit."""
    circuit = QuantumCircuit(QuantumRegister(width), ClassicalRegister(clbits))
    for qubit in start:
        circuit.h(qubit)
    for gate in gates:
        circuit.append(gate, range(gate.num_qubits))
    return circuit


@pytest.fixture
def refused(tmp_path):
    """Asserts that a run ends in an error of this kind and leaves no record and no thread."""

    def check(error, match, circuit, observables=None, values=None, *, cuts=None, **keywords):
        options = EstimatorOptions(**keywords.pop("options", {"default_precision": 0}))
        log = tmp_path / "log.jsonl"
        estimator = DistributedEstimator(cuts, workers=2, options=options, log=log, **keywords)
        threads = threading.active_count()
        observables = "Z" * circuit.num_qubits if observables is None else observables
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

LABELS = r"`cuts` labels {} qubits, the circuit has 4: give one label per qubit"


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        *((labels, LABELS.format(len(labels))) for labels in ("", "AAB", ["A"] * 5, [0, 1, 2])),
        (["A", None, "B", "B"], "leaves qubit 1 without a label: give one"),
        ([None] * 4, "leaves qubit 0 without a label: give one"),
        # Wires alone cannot part a two-qubit gate.
        (
            AutoCut(1, gate_cuts=False),
            "no plan under `max_qubits` 1 .*: allow 2 qubits, .* or set `gate_cuts`",
        ),
    ],
)
def test_labels_and_searches_that_do_not_fit(refused, labels, match):
    refused(CutError, match, chain(), cuts=labels)
    with pytest.raises(CutError, match=match):
        CutPlan.build(chain(), labels)


def test_labels_that_are_instructions_are_said_to_be_for_cut_at():
    circuit = chain()
    circuit.h(0)
    gate = next(i for i, item in enumerate(circuit.data) if len(item.qubits) == 2)
    remedy = f"one label per qubit, or `CutAt([{gate}])` to cut these instructions"
    with pytest.raises(CutError, match=re.escape(remedy)):
        CutPlan.build(circuit, [gate])
    assert CutPlan.build(circuit, CutAt([gate])).num_cuts == 1
    for labels in (
        [len(circuit.data) - 1],
        [len(circuit.data)],
        [True],
        "A",
        [],
    ):  # none of a two-qubit gate
        with pytest.raises(CutError, match=r"one label per qubit$"):
            CutPlan.build(circuit, labels)


@pytest.mark.parametrize("labels", [5, [["A"], ["A"], ["B"], ["B"]], {0: "A"}, AutoCut, iter("AB")])
@pytest.mark.parametrize("use", [DistributedEstimator, lambda cuts: CutPlan.build(chain(), cuts)])
def test_labels_of_the_wrong_type(labels, use):
    with pytest.raises(InputError, match=r"`cuts` is .*: give one hashable label per qubit"):
        use(labels)


@pytest.mark.parametrize("mark", [CutWire(), Move(), TwoQubitQPDGate.from_instruction(CXGate())])
def test_a_search_on_a_circuit_with_cut_marks(refused, mark):
    circuit = chain()
    circuit.append(mark, range(mark.num_qubits))
    match = "`CutWire` or `Move` .*: remove the marks, or give labels"
    refused(CutError, match, circuit, cuts=AutoCut(3))


def test_a_plan_of_another_circuit(refused):
    plan = CutPlan.build(chain(), "AABB")
    wider = "plan was built for 4 qubits, the circuit has 5: build a plan from this circuit"
    refused(CutError, wider, chain(5), cuts=plan)
    other = "plan was built for another circuit, .*: build a plan from this circuit"
    refused(CutError, other, entangled(4, 2, layers=1), cuts=plan)
    renamed = QuantumCircuit(1)
    renamed.rx(Parameter("y"), 0)
    refused(CutError, other, rotation(), values=[0.1], cuts=CutPlan.build(renamed, "A"))


# --- circuits -------------------------------------------------------------------------------------


def with_classical(build):
    circuit = built(2, clbits=1, start=[0])
    circuit.measure(0, 0)
    build(circuit)
    circuit.cx(0, 1)
    return circuit


def conditional(circuit):
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)


def loop(circuit):
    with circuit.for_loop(range(2)):
        circuit.x(1)


def stored(circuit):
    circuit.store(circuit.add_var("a", expr.lift(False)), expr.lift(True))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (conditional, r"classical control \(`if_else`\) \(instruction 2\)"),
        (loop, r"classical control \(`for_loop`\) \(instruction 2\)"),
        (stored, r"a classical store \(instruction 2\)"),
    ],
)
@pytest.mark.parametrize("cuts", [None, "AB", AutoCut(1)])
def test_what_depends_on_outcomes(refused, build, match, cuts):
    match = f"the circuit holds .*(?:{match}): outcomes of measurements are ignored, .*: remove it"
    refused(CircuitError, match, with_classical(build), cuts=cuts)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("cuts", ["AAB", "ABC"])
@pytest.mark.parametrize("angle", [0.3, Parameter("a")])
def test_a_gate_without_matrix_and_definition(refused, width, cuts, angle):
    circuit = built(3, Gate("mystery", width, [angle]), start=[0])
    match = r"`mystery` \(instruction 1\) has neither a matrix nor a definition .*: set its `def"
    refused(CircuitError, match, circuit, values=[0.3] * circuit.num_parameters, cuts=cuts)


NO_GATE = r"`{}` \(instruction 2\) is not a unitary gate .*: remove it"
SIDE = r"one side of a gate that qiskit-addon-cutting has cut \(instruction 2\).*: give the circuit"


@pytest.mark.parametrize(
    ("operation", "match"),
    [
        (
            Kraus([np.eye(2) * 0.8, np.eye(2)[::-1] * 0.6]).to_instruction(),
            NO_GATE.format("kraus") + "; noise belongs",
        ),
        (SaveStatevector(2), NO_GATE.format("save_statevector")),
        (Instruction("pulse", 1, 0, []), NO_GATE.format("pulse")),
        (
            TwoQubitQPDGate(QPDBasis.from_instruction(RZZGate(0.3)), basis_id=1),
            r"instruction 2 \(`qpd_2q`\) is one term of .*: give the circuit as it was",
        ),
        (
            TwoQubitQPDGate(QPDBasis([([XGate()], [XGate()]), ([], [])], [0.5, 0.5])),
            r"instruction 2 \(`qpd_2q`\) decomposes something that is neither",
        ),
        (SingleQubitQPDGate(QPDBasis.from_instruction(CXGate()), 0), SIDE),
    ],
    ids=["kraus", "save", "opaque", "addon, term", "addon, channel", "addon, side"],
)
@pytest.mark.parametrize("cuts", [None, "AB"])
def test_operations_that_are_no_gates(refused, operation, match, cuts):
    refused(CircuitError, match, built(2, operation, start=[0, 1]), cuts=cuts)


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
    circuit = built(2, gate)
    names = ", ".join(f"`{p.name}`" for p in circuit.parameters).replace("[", r"\[")
    match = rf"`\w+` \(instruction 0\) has neither .* without a value for {names}: bind it first"
    values = np.full(circuit.num_parameters, 0.5)
    refused(CircuitError, match, circuit, values=values, cuts=cuts)
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
    circuit = built(3, gate, start=[0])
    match = r"`.*` \(instruction 1\) depends on `t`, which Qiskit does not count .*: build the gate"
    refused(CircuitError, match, circuit)
    circuit = circuit.decompose(reps=3)
    found = DistributedEstimator(workers=1).run([(circuit, "ZZZ", [0.4])], precision=0)
    expected = Statevector(circuit.assign_parameters([0.4])).expectation_value(Pauli("ZZZ"))
    assert found.result()[0].data.evs == pytest.approx(expected.real, abs=1e-10)


def test_a_gate_whose_definition_fails(refused):
    """It divides by its parameter, which Qiskit does not count as one."""
    match = r"neither a matrix nor a definition that Qiskit can give: .*build it of numbers"
    refused(CircuitError, match, built(3, ExactReciprocalGate(2, ANGLE)))


@pytest.mark.parametrize("angle", [math.nan, math.inf, -math.inf])
def test_gate_angles_that_are_no_numbers(refused, angle):
    circuit = chain()
    circuit.rx(angle, 0)
    match = r"`rx` \(instruction 11\) has the angle -?(nan|inf), which is not finite: give"
    refused(CircuitError, match, circuit, cuts="AABB")


@pytest.mark.parametrize(
    ("error", "expression", "value", "match"),
    [
        (CircuitError, lambda x: 1j * x, 0.3, "complex number.*angles have to be real"),
        *(
            (InputError, expression, value, "gate angle `.*x.*` is not a finite real number.*bind")
            for expression, value in (
                (lambda x: x.log(), -1),
                (lambda x: x.arcsin(), 3),
                (lambda x: 1 / x, 0),
                (lambda x: x**0.5, -2),
                (lambda x: -1e308 * x, 10),
            )
        ),
    ],
    ids=["complex", "log", "asin", "1/x", "sqrt", "overflow"],
)
def test_expressions_that_give_no_angle(refused, error, expression, value, match):
    refused(error, match, rotation(expression), values=[value])


# --- parameter values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([0.1], "1 parameter values were given, the circuit has 2: give one value per parameter"),
        ([[0.1, 0.2, 0.3]], "3 parameter values were given, the circuit has 2"),
        (None, "0 parameter values were given, the circuit has 2"),
        ([], "0 parameter values were given, the circuit has 2"),
        ([math.nan, 0.1], "parameter `a` is NaN or infinite: bind finite numbers only"),
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


def test_values_and_shapes_that_do_not_fit_the_circuit(refused):
    match = "2 parameter values were given, the circuit has 0"
    refused(InputError, match, chain(), values=[0.1, 0.2])
    match = r"observables of shape \(3,\) and parameter values of shape \(2,\) do not broadcast"
    refused(InputError, match, rotation(), ["X", "Y", "Z"], [[0.1], [0.2]])


# --- observables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("observable", ["ZZZ", SparsePauliOp("ZZ"), {"Z": 1.0}, ""])
def test_observables_of_the_wrong_width(refused, observable):
    width = (len(observable) if isinstance(observable, str) else 0) or "[0-9]"
    match = f"the observable acts on {width} qubits, the circuit has 4: give one Pauli letter per"
    refused(ObservableError, match, chain(), observable, cuts="AABB")


def test_the_same_observable_is_checked_for_every_circuit():
    """One object, two circuits: it fits the first and not the second."""
    observable = "ZZ"
    estimator = DistributedEstimator(None, options=EstimatorOptions(default_precision=0))
    with pytest.raises(ObservableError, match="acts on 2 qubits, the circuit has 3"):
        estimator.run([(chain(2), observable), (chain(3), observable)])


UNREADABLE = {
    "imaginary": SparsePauliOp(["ZZZZ"], [1j]),
    "partly imaginary": SparsePauliOp(["ZZZZ", "XXXX"], [1, 1 + 1e-3j]),
    "imaginary dict": {"ZZZZ": 2j},
    "imaginary Pauli": Pauli("iZZZZ"),
    "empty list": [],
    "empty dict": {},
    "empty array": np.array([]),
    "zero": SparsePauliOp(["ZZZZ"], [0]),
    "zeros": SparsePauliOp(["ZZZZ", "XXXX"], [0, 0]),
    "unknown letter": "ZZZQ",
    "lower case": "zzzz",
    "number": 5,
    "nothing": None,
    "dense": Operator(np.eye(16)),
    "unlike widths": ["ZZZZ", "ZZ"],
    "ragged": [["ZZZZ"], []],
    "symbolic weight": SparsePauliOp(["ZZZZ"], np.array([Parameter("w")])),
    "a weight that is no float": {"ZZZZ": 10**400},
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_observables_that_cannot_be_read(tmp_path, kind):
    log = tmp_path / "log.jsonl"
    match = "(cannot be read .*: give a Hermitian Pauli sum|empty: give at least one)"
    with pytest.raises(ObservableError, match=match) as caught:
        DistributedEstimator("AABB", log=log).run([(chain(), UNREADABLE[kind])])
    assert "\n" not in str(caught.value)
    assert not log.exists()


@pytest.mark.parametrize("weight", [math.nan, -math.inf, 1e308, -1e71, complex("1+infj")])
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


def test_weights_that_are_all_too_small_or_that_qiskit_made_an_array_of(refused):
    refused(ObservableError, "the weight 1e-71 of .*: give finite", chain(), {"ZZZZ": 1e-71})
    array = ObservablesArray([{"ZZZZ": 1e308}])
    refused(ObservableError, r"the weight 1e\+308 of", chain(), array)


# --- arguments ------------------------------------------------------------------------------------

PRECISION = "is .*: give a standard error above 0 and up to .*, or 0 for the exact value"


@pytest.mark.parametrize(
    "precision",
    [*(-1e-12, math.nan, math.inf, 1e308, 10**400, "0.1", [0.1, 0.2], 1j), *(True, np.True_)],
)
def test_precisions_that_are_none(precision):
    estimator = DistributedEstimator("AABB")
    with pytest.raises(InputError, match=f"`precision` {PRECISION}"):
        estimator.run([(chain(), "ZZZZ")], precision=precision)
    with pytest.raises(InputError, match=f"`precision` {PRECISION}"):
        estimator.run([(chain(), "ZZZZ", None, precision)])
    with pytest.raises(InputError, match=f"`default_precision` {PRECISION}"):
        EstimatorOptions(default_precision=precision)


def device(**changes):
    return homogeneous(**{"count": 1, "seconds_per_job": 1, "seconds_per_shot": 0} | changes)


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
        lambda true: device(count=true),
        lambda true: device(seconds_per_job=true),
        lambda true: device(seed=true),
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


WHOLE = "`{}` is .*: .*whole number of at least {}"


class FirstSampler(BaseSamplerV1):
    def _run(self, *_args, **_options):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kind", "name", "values", "match"),
    [
        (AutoCut, "max_qubits", [0, -3, 2.5, "3", None], WHOLE.format("max_qubits", 1)),
        (AutoCut, "max_qubits", ["fake_manila"], "whole number .*, a Qiskit backend or Target"),
        (AutoCut, "seed", [True, -1], "`seed` is .*: give "),
        (AutoCut, "max_qubits", [[], [3, 0], (True,), "33"], "`max_qubits` is .*: give "),
        (AutoCut, "max_fragments", [True, 0, 1.5], WHOLE.format("max_fragments", 1)),
        (AutoCut, "max_price", [True, math.nan, 0], "`max_price` is .*: give "),
        (AutoCut, "seconds", [True, -1, "5"], "`seconds` is .*: give "),
        (AutoCut, "gate_cuts", [1], "`gate_cuts` is 1: give "),
        (AutoCut, "wire_cuts", ["no"], "`wire_cuts` is 'no': give "),
        (
            EstimatorOptions,
            "shots",
            [0, 1.5, "many", True, math.nan, math.inf],
            WHOLE.format("shots", 1) + ", or None",
        ),
        (EstimatorOptions, "seed", [-1, 1.5, True], WHOLE.format("seed", 0) + ", or None"),
        (EstimatorOptions, "setting_basis", ["tiny"], 'is .*: use "full" or "minimal"'),
        (EstimatorOptions, "memory_limit", [0, -5, True], "`memory_limit` is "),
        (EstimatorOptions, "policy", [Policy], "is the class Policy, .*: give a Policy"),
        (EstimatorOptions, "stragglers", [0.5], "`stragglers` is 0.5: give Stragglers, or None"),
        (DistributedEstimator, "workers", [0, 1.5, "two", True, None], WHOLE.format("workers", 1)),
        (
            DistributedEstimator,
            "pool",
            ["fibres", "", 5, None, object()],
            '`pool` is .*: give "threads"',
        ),
        (
            DistributedEstimator,
            "backend",
            [5, object(), AerSimulator],
            "`backend` is .*: give an instance of any Qiskit",
        ),
        (
            DistributedEstimator,
            "backend",
            ["aer"],
            r"`backend` is 'aer': give the device itself, such as AerSimulator\(\)",
        ),
        (
            DistributedEstimator,
            "backend",
            [StatevectorEstimator(), DistributedEstimator()],
            r"`backend` is .*Estimator.*: fragments need a sampler; .* SamplerV2\.from_backend",
        ),
        (
            DistributedEstimator,
            "backend",
            [FirstSampler()],
            "is an object of the class FirstSampler: its interface is that of Qiskit 1; give a",
        ),
        (
            DistributedEstimator,
            "backend",
            [BasicProvider()],
            r"is an object of the class BasicProvider: give one of .* `backends\(\)` lists",
        ),
        (
            DistributedEstimator,
            "options",
            [{"shots": 100}, {}, 0, "exact"],
            r"`options` is .*: give EstimatorOptions, such as EstimatorOptions\(shots=100\), or No",
        ),
    ],
)
def test_arguments_that_are_out_of_range(kind, name, values, match):
    first = {"max_qubits": 3} if kind is AutoCut else {}
    for value in values:
        with pytest.raises(InputError, match=match):
            kind(**first | {name: value})


def test_neither_kind_of_cut():
    with pytest.raises(InputError, match="`gate_cuts` and `wire_cuts` are both off: allow one"):
        AutoCut(3, gate_cuts=False, wire_cuts=False)


def test_a_precision_that_takes_more_shots_than_can_be_counted():
    options = EstimatorOptions(default_precision=1e-11, seed=1)
    with pytest.raises(DistributedEstimatorError, match=r"precision.*: .*larger"):
        DistributedEstimator("AABB", options=options).run([(chain(), "ZZZZ")]).result()


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
        (lambda path: Fleet(device(), log=path), "log"),
    ],
)
def test_paths_that_are_none(make, name, path):
    with pytest.raises(InputError) as caught:
        make(path)
    assert str(caught.value).startswith(f"`{name}` is {path!r}: give the path of a file")


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: DistributedEstimator("AB"), "cuts backend pool workers options log trace journal"),
        (lambda: FragmentGradient(DistributedEstimator("AB")), "estimator precision"),
        (lambda: ReferenceEstimator("AB"), "cuts shots seed workers log"),
    ],
)
def test_what_an_estimator_was_given_cannot_be_changed_in_place(make, names):
    made = make()
    kind = type(made).__name__
    for name in names.split():
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


PUBS = {
    "a circuit": QuantumCircuit(1),
    "nothing": None,
    "a bare circuit": [QuantumCircuit(1)],
    "a bare PUB": (QuantumCircuit(1), "Z"),
    "a number as PUB": [5],
    "no observable": [(QuantumCircuit(1),)],
    "too long": [(QuantumCircuit(1), "Z", None, None, None)],
    "turned round": [("Z", QuantumCircuit(1))],
    "empty": [[]],
    "a string": ["ZZ"],
}


@pytest.mark.parametrize("kind", PUBS)
def test_pubs_that_are_none(kind):
    """The message says what a PUB is; nothing is started."""
    with pytest.raises(InputError, match=r"(PUB|QuantumCircuit)"):
        DistributedEstimator().run(PUBS[kind])


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
    options = {"default_precision": 0, "memory_limit": 2000}
    circuit = entangled(10, 1, layers=3)
    refused(PlanTooLargeError, match, circuit, cuts="A" * 5 + "B" * 5, options=options)


@pytest.mark.parametrize(
    ("rows", "options", "remedy"),
    [
        (1, {"memory_limit": 1000}, ""),
        (9, {"memory_limit": 1000}, ", or send fewer bindings a run"),
        (
            1,
            {"memory_limit": 1500, "shots": 10, "default_precision": 0.1},
            ", or ask for exact values",
        ),
        (1, {"memory_limit": 1000, "shots": 10, "default_precision": 0.1}, ""),
    ],
)
def test_remedies_for_a_lack_of_memory_apply(refused, rows, options, remedy):
    """Nothing is cut here, so nothing can be cut less."""
    circuit = chain()
    circuit.rx(Parameter("x"), range(4))
    remedies = f"cut it into narrower fragments{remedy}, or raise `memory_limit`"
    match = re.escape(f"); {remedies}") + "$"
    values = np.linspace(0, 1, rows)
    observable = SparsePauliOp(["ZZZZ", "IIZZ"])
    options = {"default_precision": 0} | options
    refused(PlanTooLargeError, match, circuit, observable, values, options=options)


def many_cuts():
    """No two of them in a row on one pair of qubits, which would be one cut."""
    circuit = QuantumCircuit(3)
    for number in range(40):
        circuit.rx(0.1 * number, [0, 1, 2])
        pair = (0, 1) if number % 2 else (1, 2)
        circuit.cz(*pair) if number % 4 > 1 else circuit.swap(*pair)
    return circuit


SIGNS = SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0) for qubit in range(40)], 40)
"""Forty signs that share their shots have 2^40 joint outcomes."""


@pytest.mark.parametrize("options", [{"default_precision": 0}, {"shots": 10}])
@pytest.mark.parametrize(
    ("circuit", "observable", "cuts"),
    [
        (entangled(40, 1, layers=30), "Z" * 40, None),
        (entangled(40, 1, layers=30), "Z" * 40, "A" * 40),
        (entangled(40, 1, layers=30), SIGNS, None),
        (many_cuts(), "ZZZ", "ABC"),
    ],
    ids=["too wide", "too wide, labelled", "too many outcomes", "too many cuts"],
)
def test_what_is_too_large_is_refused_without_taking_memory(circuit, observable, cuts, options):
    estimator = DistributedEstimator(cuts, workers=2, options=EstimatorOptions(**options))
    tracemalloc.start()
    try:
        with pytest.raises(PlanTooLargeError, match=r"the plan needs .*: "):
            estimator.run([(circuit, observable)]).result()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 << 20, "a bounded amount, whatever the plan would need"


# --- samplers -------------------------------------------------------------------------------------


class Refusing(BaseSamplerV2):
    """A device that takes no circuit."""

    def run(self, pubs, *, shots=None):
        raise ValueError("instruction 'ry' is not supported by this target")


def test_zero_precision_on_a_sampler(refused):
    match = (
        "`precision` is 0, but the backend .* samples: ask for a positive precision, leave it out"
    )
    refused(BackendError, match, chain(), cuts="AABB", backend=StatevectorSampler())


def test_a_sampler_that_refuses_a_circuit(refused):
    match = "the sampler .*Refusing failed on fragment .*'ry' is not supported.*transpile"
    refused(TaskFailedError, match, chain(), cuts="AABB", backend=Refusing(), options={"shots": 10})
