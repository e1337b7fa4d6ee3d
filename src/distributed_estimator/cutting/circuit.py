"""A circuit in normal form: gates with kernels, measurements, resets, wire cuts and moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from qiskit.circuit import (
    Barrier,
    BoxOp,
    ControlFlowOp,
    Delay,
    Gate,
    Instruction,
    Measure,
    Parameter,
    ParameterExpression,
    QuantumCircuit,
    Reset,
    Store,
)
from qiskit.circuit.library import (
    GlobalPhaseGate,
    IGate,
    PauliEvolutionGate,
    PermutationGate,
    UnitaryGate,
)
from qiskit.quantum_info import PauliList, SparsePauliOp
from qiskit.synthesis import LieTrotter, MatrixExponential, SuzukiTrotter
from qiskit.transpiler.passes import HighLevelSynthesis

from ..errors import CircuitError
from .angles import AngleTable
from .gates import MAX_MATRIX_QUBITS, GateKernel, definition_of, kernel_of
from .qpd import is_marked, is_wire, unmarked
from .rewrite import Operation, Together, merge_rotations, relabel

# Recognised by type: a user's own gate may have any name.
_IGNORED = (Barrier, Delay, GlobalPhaseGate, IGate)
_NOT_CLASSICAL = (
    "outcomes of measurements are ignored, and nothing can depend on them: remove it, or split the "
    "circuit there; qubits may be measured and reset anywhere"
)
_REFUSED: dict[type[Instruction], tuple[str, str]] = {
    Store: ("a classical store", _NOT_CLASSICAL),
    ControlFlowOp: ("classical control (`{}`)", _NOT_CLASSICAL),
}
_MAX_NESTING = 64


@dataclass(frozen=True, eq=False)
class NormalCircuit:
    """Operations on `num_qubits` qubits, with the table of their angles.

    Attributes:
        num_qubits: Width of the circuit.
        operations: In order, on the qubits where permutations have left the states.
        angles: The angles of the operations.
        outputs: For each qubit of the circuit, the one that holds its state at the end.
        product_formulas: Instructions of the source circuit that evolve under terms not known to
            commute, and are run as product formulas.
    """

    num_qubits: int
    operations: tuple[Operation, ...]
    angles: AngleTable
    outputs: tuple[int, ...]
    product_formulas: tuple[int, ...] = ()

    def light_cone(self, support: Iterable[int]) -> NormalCircuit:
        """Only the operations that can change an observable on the qubits of `support`."""
        live = {self.outputs[qubit] for qubit in support}
        kept: list[Operation] = []
        for operation in reversed(self.operations):
            if live.isdisjoint(operation.qubits):
                continue
            if operation.kind == "reset":
                live.difference_update(operation.qubits)
            elif operation.kind == "move":
                source, target = operation.qubits
                if target not in live:  # only the source's reset counts: another operation, uncut
                    operation = replace(operation)
                live = (live - {source, target}) | ({source} if target in live else set())
            else:
                live.update(operation.qubits)
            kept.append(operation)
        run = {source for operation in kept for source in operation.sources}
        formulas = tuple(position for position in self.product_formulas if position in run)
        return replace(self, operations=tuple(reversed(kept)), product_formulas=formulas)


def normalise(
    circuit: QuantumCircuit, together: Together, widest: int = MAX_MATRIX_QUBITS
) -> NormalCircuit:
    """Bring a circuit into normal form, with ``CX·RZ·CX`` and its kin merged to one rotation.

    Args:
        circuit: Any circuit without classical control, parameterised or not, with `CutWire` and
            `Move`. The outcomes of measurements are ignored, so that one that nothing follows on
            its qubit changes nothing, nor does a reset of a qubit in its first state.
        together: Whether qubits have one label. A gate on more than two of unlike labels is
            decomposed to two-qubit gates.
        widest: Qubits of a gate that need not be decomposed whatever its labels.

    Raises:
        CircuitError: The circuit branches, or a gate cannot be decomposed.
    """
    flattener = _Flattener(circuit, together, widest)
    flat = list(flattener.flatten(circuit, tuple(range(circuit.num_qubits))))
    flat, outputs = relabel(flat, circuit.num_qubits, together)
    expressions: list[ParameterExpression | float] = []
    operations: list[Operation] = []
    for operation in merge_rotations(flat):
        if operation.kernel is not None and operation.kernel.num_angles:
            first = len(expressions)
            expressions.extend(operation.instruction.params)
            operation = replace(operation, angles=tuple(range(first, len(expressions))))
        operations.append(operation)
    angles = AngleTable(tuple(circuit.parameters), tuple(expressions))
    formulas = tuple(dict.fromkeys(flattener.product_formulas))
    return NormalCircuit(circuit.num_qubits, tuple(operations), angles, outputs, formulas)


class _Flattener:
    """Yields the operations of a circuit one by one, decomposing where it must be."""

    def __init__(self, circuit: QuantumCircuit, together: Together, widest: int) -> None:
        self._circuit = circuit
        self._together = together
        self._widest = widest
        self._parameters = frozenset(circuit.parameters)
        self._used: set[int] = set()
        self._measured: dict[int, int] = {}
        self.product_formulas: list[int] = []

    def flatten(
        self,
        circuit: QuantumCircuit,
        qubits: tuple[int, ...],
        position: int | None = None,
        depth: int = 0,
    ) -> Iterator[Operation]:
        """The operations of a circuit, or of a definition, on these qubits."""
        if depth > _MAX_NESTING:
            raise CircuitError(f"gate definitions nest deeper than {_MAX_NESTING}: transpile first")
        places = {bit: qubits[i] for i, bit in enumerate(circuit.qubits)}
        for index, item in enumerate(circuit.data):
            operation = item.operation
            where = index if position is None else position
            targets = tuple(places[bit] for bit in item.qubits)
            marked = is_marked(operation)
            if marked:
                operation = unmarked(operation, where)
            if isinstance(operation, _IGNORED):
                continue
            if isinstance(operation, Measure):
                self._measured.setdefault(targets[0], where)
                continue
            if isinstance(operation, Reset):
                self._measured.pop(targets[0], None)
                if targets[0] in self._used:
                    self._used.remove(targets[0])
                    yield Operation(Reset(), targets, where)
                continue
            _refuse(operation, where)
            if is_wire(operation) or isinstance(operation, PermutationGate):
                yield from self._placed(Operation(operation, targets, where, marked=marked))
                continue
            for angle in getattr(operation, "params", ()):
                if isinstance(angle, float) and not isfinite(angle):
                    raise CircuitError(
                        f"`{operation.name}` (instruction {where}) has the angle {angle}, which is "
                        "not finite: give a finite number or a parameter"
                    )
            kernel = kernel_of(operation)
            if kernel is not None and (
                len(targets) <= 2 or (len(targets) <= self._widest and self._together(targets))
            ):
                yield from self._placed(Operation(operation, targets, where, kernel, marked=marked))
                continue
            if isinstance(operation, PauliEvolutionGate) and not _is_exact(operation):
                self.product_formulas.append(where)
            definition = _definition(operation, kernel)
            if definition is None:
                raise _undefined(operation, where)
            yield from self.flatten(definition, targets, where, depth + 1)

    def _placed(self, gate: Operation) -> Iterator[Operation]:
        """The gate, checked, after the measurements of its qubits that it makes matter."""
        for qubit in gate.qubits:
            position = self._measured.pop(qubit, None)
            if position is not None and qubit in self._used:
                yield Operation(Measure(), (qubit,), position)
        self._used.update(gate.qubits)
        if gate.kernel is not None and gate.kernel.num_angles:
            unknown = _symbols(gate.instruction) - self._parameters
            if unknown:
                outer = self._circuit.data[gate.position].operation
                raise CircuitError(
                    f"`{outer.name}` (instruction {gate.position}) depends on {_listed(unknown)}, "
                    "which Qiskit does not count among the circuit's parameters, so nothing can be "
                    "bound to it: build the gate of numbers, or `decompose` the circuit until it "
                    "counts"
                )
        yield gate


def _is_exact(evolution: PauliEvolutionGate) -> bool:
    """Whether an evolution is known to be synthesised without Trotter error."""
    synthesis, operators = evolution.synthesis, evolution.operator
    if isinstance(synthesis, MatrixExponential):
        return True
    operators = operators if isinstance(operators, list) else [operators]
    if not isinstance(synthesis, LieTrotter | SuzukiTrotter) or not all(
        isinstance(operator, SparsePauliOp) for operator in operators
    ):
        return False
    paulis = PauliList([pauli for operator in operators for pauli in operator.paulis])
    return all(paulis.commutes(pauli).all() for pauli in paulis)


def _definition(operation: Any, kernel: GateKernel | None) -> QuantumCircuit | None:
    """The circuit an operation stands for; None if Qiskit knows none."""
    if isinstance(operation, BoxOp):
        body: QuantumCircuit = operation.body
        return body
    if isinstance(operation, Instruction):
        definition = definition_of(operation)
        if definition is not None:
            return definition
    circuit = QuantumCircuit(operation.num_qubits)
    circuit.append(operation, circuit.qubits)
    with suppress(Exception):  # Qiskit's own and TypeError, such as for unbound parameters
        circuit = HighLevelSynthesis()(circuit)
    if [item.name for item in circuit.data] != [operation.name]:
        return circuit
    return None if kernel is None else UnitaryGate(kernel.coefficients[0]).definition


def _undefined(operation: Any, position: int) -> CircuitError:
    """The error for an operation with neither a matrix nor a definition."""
    name, symbols = f"`{operation.name}` (instruction {position})", _symbols(operation)
    if symbols and type(operation) not in (Gate, Instruction):  # these never get a definition
        return CircuitError(
            f"{name} has neither a matrix nor a definition without a value for {_listed(symbols)}: "
            "bind it first, with `circuit.assign_parameters`"
        )
    if isinstance(operation, Instruction) and not isinstance(operation, Gate):
        return CircuitError(
            f"{name} is not a unitary gate and has no definition: remove it; noise belongs to the "
            "backend, and what to find out to the observable"
        )
    return CircuitError(
        f"{name} has neither a matrix nor a definition that Qiskit can give: set its `definition`, "
        "build it of numbers if it holds parameters, or transpile the circuit first"
    )


def _symbols(operation: Any) -> set[Parameter]:
    params = getattr(operation, "params", ())
    return {symbol for angle in params for symbol in getattr(angle, "parameters", ())}


def _listed(parameters: Iterable[Parameter]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(p.name for p in parameters))


def _refuse(operation: Any, position: int) -> None:
    if isinstance(operation, BoxOp):
        return
    if operation.name == "qpd_1q" and definition_of(operation) is None:
        raise CircuitError(
            f"the circuit holds one side of a gate that qiskit-addon-cutting has cut (instruction "
            f"{position}), or of one whose decomposition a file has lost: give the circuit as it "
            "was before, and where to cut as `cuts`"
        )
    for kind, (what, remedy) in _REFUSED.items():
        if isinstance(operation, kind):
            what = what.format(operation.name)
            raise CircuitError(f"the circuit holds {what} (instruction {position}): {remedy}")
