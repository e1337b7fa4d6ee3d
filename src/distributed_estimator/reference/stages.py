"""Partition, generate and reconstruct, with the addon for a cut circuit and without for an uncut.

Execution lies between `generate` and `reconstruct`, and belongs to the estimator. Circuits are
flattened first, into gates that the addon cuts and Aer runs, and may have measurements deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qiskit.circuit import ControlFlowOp, Instruction, QuantumCircuit
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping
from qiskit.primitives import PrimitiveResult, SamplerPubResult
from qiskit.quantum_info import PauliList, SparsePauliOp

from ..checks import require
from ..cutting.gates import structure_key
from ..cutting.qpd import is_wire
from ..errors import CircuitError, CutError, InputError
from ..pubs import Pub
from ..records import CircuitInfo

FloatArray = npt.NDArray[np.float64]
Results = dict[Hashable, list[SamplerPubResult]]
"""Results by fragment label, in the order of the circuits they come from."""

Spans = Callable[[tuple[int, ...]], bool]
"""Whether some of these qubits are labelled differently from others."""

_STANDARD = {name: gate.base_class for name, gate in get_standard_gate_name_mapping().items()}
_CUT_MARKS = ("cut_wire", "qpd_1q", "qpd_2q")


def _addon() -> Any:
    """The addon; raises `MissingExtraError` where it is not installed."""
    purpose = "the reference pipeline"
    return require("qiskit_addon_cutting", "reference", purpose, "qiskit-addon-cutting")


# Gates of the standard library that Aer simulates under the same name.
# fmt: off
_SIMULATED = frozenset({
    "ccx", "ccz", "cp", "crx", "cry", "crz", "cswap", "csx", "cu", "cu1", "cu3", "cx", "cy", "cz",
    "ecr", "h", "id", "p", "r", "rx", "rxx", "ry", "ryy", "rz", "rzx", "rzz", "s", "sdg", "swap",
    "sx", "sxdg", "t", "tdg", "u", "u1", "u2", "u3", "x", "y", "z",
})
# fmt: on
_MAX_NESTING = 64


@dataclass(frozen=True)
class Experiments:
    """What `generate` hands over: circuits by fragment label, and what puts results together.

    `num_terms` counts quasi-probability terms; `recipe` is only for `reconstruct`.
    """

    circuits: dict[Hashable, list[QuantumCircuit]]
    num_cuts: int
    num_terms: int
    recipe: Any

    @property
    def num_circuits(self) -> int:
        """How many circuits there are in all fragments together."""
        return sum(map(len, self.circuits.values()))

    @property
    def max_qubits(self) -> int:
        """Qubits of the widest circuit."""
        widths: list[int] = [c.num_qubits for of in self.circuits.values() for c in of]
        return max(widths)


class CutStages:
    """The addon's workflow: `partition_problem` to `reconstruct_expectation_values`.

    `partition` splits a bound circuit and the Pauli strings to measure, `generate` writes out every
    term of the decomposition (no sampling of terms), and `reconstruct` adds up Σ weight · Pauli
    string. The addon gives no standard error, and none is made up: it is NaN.
    """

    setting_basis = "qpd"

    def __init__(self, labels: Sequence[Hashable]) -> None:
        self.labels = tuple(labels)

    def partition(self, circuit: QuantumCircuit, paulis: PauliList) -> Any:
        """One subcircuit and its part of the Pauli strings for each label.

        Raises:
            CutError: The addon cannot cut a gate, or a qubit labelled None is in use.
        """
        try:
            return _addon().partition_problem(circuit, self.labels, paulis)
        except ValueError as error:
            raise CutError(
                f"`cuts` cannot cut this circuit by {self.labels!r}: {error} Give other labels, or "
                "transpile the gates across them to CX or CZ first"
            ) from error

    def generate(self, problem: Any) -> Experiments:
        """Every term of the decomposition, for every fragment and commuting group."""
        circuits, coefficients = _addon().generate_cutting_experiments(
            problem.subcircuits, problem.subobservables, num_samples=np.inf
        )
        recipe = (coefficients, problem.subobservables)
        return Experiments(circuits, len(problem.bases), len(coefficients), recipe)

    def reconstruct(
        self, experiments: Experiments, results: Results, weights: FloatArray
    ) -> tuple[float, float]:
        """The addon's sum over terms, fragments and shots."""
        coefficients, observables = experiments.recipe
        by_label = {label: PrimitiveResult(of) for label, of in results.items()}
        values = _addon().reconstruct_expectation_values(by_label, coefficients, observables)
        return float(np.dot(weights, values)), float("nan")


class UncutStages:
    """The whole circuit, measured once for each group of qubit-wise commuting Pauli strings.

    The standard error is the sample's own, from the joint outcomes of each group; NaN for a
    single shot.
    """

    setting_basis = "uncut"

    def partition(self, circuit: QuantumCircuit, paulis: PauliList) -> Any:
        """The unchanged circuit, and the Pauli strings in groups with their places in the sum."""
        order = {pauli.to_label(): index for index, pauli in enumerate(paulis)}
        groups = paulis.group_commuting(qubit_wise=True)
        places = [[order[label] for label in group.to_labels()] for group in groups]
        return circuit, list(zip(groups, places, strict=True))

    def generate(self, problem: Any) -> Experiments:
        """One measured circuit for each group."""
        circuit, groups = problem
        circuits = [measured(circuit, group) for group, _ in groups]
        return Experiments({None: circuits}, 0, 1, groups)

    def reconstruct(
        self, experiments: Experiments, results: Results, weights: FloatArray
    ) -> tuple[float, float]:
        """Sample means added up; groups are independent, strings of one group are not."""
        value, variance = 0.0, 0.0
        for (group, places), result in zip(experiments.recipe, results[None], strict=True):
            outcomes = _signs(result, group) @ weights[places]
            value += float(outcomes.mean())
            shots = len(outcomes)
            variance += float(outcomes.var(ddof=1)) / shots if shots > 1 else float("nan")
        return value, variance**0.5


def _signs(result: SamplerPubResult, group: PauliList) -> FloatArray:
    """Eigenvalue of each Pauli string of a group in each shot, shape (shots, strings)."""
    packed = result.data.meas.array  # (shots, bytes), big-endian
    bits = np.unpackbits(packed, axis=-1)[:, ::-1][:, : group.num_qubits].astype(np.int64)
    support = (group.x | group.z).astype(np.int64)
    signs: FloatArray = 1.0 - 2.0 * ((bits @ support.T) % 2)
    return signs


@dataclass(frozen=True)
class Problem:
    """A PUB with its circuit flattened, and the stages that will handle its queries.

    Attributes:
        pub: The PUB.
        circuit: Its circuit in gates that the addon cuts and Aer runs.
        stages: How its queries are handled.
    """

    pub: Pub
    circuit: QuantumCircuit
    stages: CutStages | UncutStages

    @staticmethod
    def of(pub: Pub, labels: tuple[Hashable, ...] | None) -> Problem:
        """Make a PUB ready to run.

        Raises:
            InputError: The precision is 0; or, as `CircuitError` or `CutError`, circuit or labels
                are to blame.
        """
        circuit = pub.circuit
        if pub.precision == 0:
            raise InputError(
                "`precision` is 0, and the reference samples: give a positive number or None (an "
                "exact value takes `DistributedEstimator` on its own simulator)"
            )
        if labels is not None and len(labels) != circuit.num_qubits:
            raise CutError(
                f"`cuts` labels {len(labels)} qubits, the circuit has {circuit.num_qubits}: "
                "give one label per qubit"
            )

        def spans(qubits: tuple[int, ...]) -> bool:
            return labels is not None and len({labels[qubit] for qubit in qubits}) > 1

        flat = flatten(circuit, spans)
        is_cut = any(
            spans(tuple(flat.find_bit(bit).index for bit in item.qubits))
            for item in flat.data
            if item.operation.name != "barrier"
        )
        return Problem(pub, flat, CutStages(labels) if labels and is_cut else UncutStages())

    @property
    def info(self) -> CircuitInfo:
        """The circuit as it was given, for records."""
        circuit = self.pub.circuit
        return CircuitInfo(circuit.num_qubits, circuit.depth(), structure_key(circuit))

    def bind(self, index: tuple[int, ...]) -> QuantumCircuit:
        """The circuit with the parameter values of one query."""
        values = self.pub.values
        row = np.broadcast_to(values, (*self.pub.shape, values.shape[-1]))[index]
        bound = dict(zip(self.pub.circuit.parameters, row.tolist(), strict=True))
        return self.circuit.assign_parameters(bound, strict=False)

    def observable(self, index: tuple[int, ...]) -> tuple[FloatArray, PauliList]:
        """Real weights and Pauli strings of the observable of one query."""
        observable = np.broadcast_to(self.pub.observables, self.pub.shape)[index]
        terms = SparsePauliOp.from_sparse_observable(observable).simplify(atol=0, rtol=0)
        return terms.coeffs.real, terms.paulis


def flatten(circuit: QuantumCircuit, spans: Spans) -> QuantumCircuit:
    """The same circuit in gates that the addon cuts (across labels) and Aer runs (within one).

    What is neither is replaced by its definition, again and again. Global phases and classical
    bits that nothing uses are dropped: no expectation value depends on them.

    Raises:
        CircuitError: The circuit measures, resets or branches, marks cuts of its own, or holds an
            operation without a definition.
    """
    flat = QuantumCircuit(circuit.num_qubits)
    _append(flat, circuit, range(circuit.num_qubits), spans, 0)
    return flat


def _append(
    flat: QuantumCircuit, source: QuantumCircuit, places: Sequence[int], spans: Spans, depth: int
) -> None:
    if depth > _MAX_NESTING:
        raise CircuitError(f"gate definitions nest deeper than {_MAX_NESTING}: transpile first")
    place_of = dict(zip(source.qubits, places, strict=True))
    for item in source.data:
        operation, qubits = item.operation, tuple(place_of[bit] for bit in item.qubits)
        _refuse(operation, bool(item.clbits))
        if not qubits:
            continue  # a global phase
        if _stays(operation, spans(qubits)):
            flat.append(operation, qubits)
        elif is_wire(operation) and operation.num_qubits == 2:
            flat.compose(operation.definition, qubits, inplace=True)
        elif getattr(operation, "definition", None) is None:
            raise CircuitError(
                f"`{operation.name}` on {len(qubits)} qubits has no definition to decompose it "
                "by: transpile the circuit to standard gates first"
            )
        else:
            _append(flat, operation.definition, qubits, spans, depth + 1)


def _stays(operation: Instruction, cut: bool) -> bool:
    if operation.name in ("barrier", "delay"):
        return True
    kind = getattr(operation, "base_class", None)
    standard = kind is not None and kind is _STANDARD.get(operation.name)
    if cut:
        known = (
            standard
            or isinstance(operation, UnitaryGate)
            or (is_wire(operation) and operation.num_qubits == 2)
        )
        return known and bool(operation.num_qubits == 2)
    return isinstance(operation, UnitaryGate) or (standard and operation.name in _SIMULATED)


def _refuse(operation: Instruction, uses_clbits: bool) -> None:
    if uses_clbits or isinstance(operation, ControlFlowOp) or operation.name == "reset":
        raise CircuitError(
            f"the circuit holds `{operation.name}`, expected a unitary circuit without "
            "measurement, reset or classical control: remove it (the observable says what is "
            "measured)"
        )
    if operation.name in _CUT_MARKS:
        raise CircuitError(
            f"the circuit holds the cut marker `{operation.name}`, and the reference cuts by "
            "labels alone: turn wire cuts into `Move` with `qiskit_addon_cutting.cut_wires`, then "
            "label the new qubits"
        )


def measured(circuit: QuantumCircuit, paulis: PauliList) -> QuantumCircuit:
    """The circuit with all qubits measured where qubit-wise commuting `paulis` are diagonal."""
    measuring: QuantumCircuit = circuit.copy()
    x, z = paulis.x.any(axis=0), paulis.z.any(axis=0)
    for qubit in np.flatnonzero(x):
        if z[qubit]:
            measuring.sdg(qubit)
        measuring.h(qubit)
    measuring.measure_all()
    return measuring


def defer_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    """A subexperiment with every mid-circuit measurement and reset moved to qubits of its own.

    The outcome of a measurement in the `qpd_measurements` register is copied to a fresh qubit that
    is measured at the end; a reset continues on a fresh qubit. Registers and the joint
    distribution of outcomes stay the same, and a simulator can draw all shots from one final state.
    """
    wires = {bit: index for index, bit in enumerate(circuit.qubits)}
    deferred = {bit for reg in circuit.cregs if reg.name == "qpd_measurements" for bit in reg}
    width = circuit.num_qubits
    steps: list[tuple[Instruction | None, list[int], list[object]]] = []
    late: list[tuple[int, object]] = []
    for item in circuit.data:
        qubits = [wires[bit] for bit in item.qubits]
        if item.operation.name == "reset":
            wires[item.qubits[0]] = width
            width += 1
        elif deferred.intersection(item.clbits):
            steps.append((None, [*qubits, width], []))
            late.append((width, item.clbits[0]))
            width += 1
        else:
            steps.append((item.operation, qubits, list(item.clbits)))
    result = QuantumCircuit(width)
    result.add_register(*circuit.cregs)
    for operation, qubits, clbits in steps:
        if operation is None:
            result.cx(*qubits)
        else:
            result.append(operation, qubits, clbits)
    for qubit, clbit in late:
        result.measure(qubit, clbit)
    return result
