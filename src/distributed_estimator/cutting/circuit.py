"""A circuit in the form that is cut: gates with kernels, wire cuts and moves, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

from qiskit.circuit import (
    Barrier,
    ControlFlowOp,
    Delay,
    Instruction,
    Measure,
    ParameterExpression,
    QuantumCircuit,
    Reset,
    Store,
)
from qiskit.circuit.library import GlobalPhaseGate, IGate, Initialize
from qiskit.transpiler.passes import HighLevelSynthesis
from qiskit_addon_cutting.instructions import CutWire, Move

from ..errors import CircuitError
from .angles import AngleTable
from .gates import GateKernel, kernel_of
from .merge import PlacedGate, merge_rotations

# Told by type: a user's own gate may have any name.
_IGNORED = (Barrier, Delay, GlobalPhaseGate, IGate)
_REFUSED: dict[type[Instruction], str] = {
    Measure: "a measurement",
    Reset: "a reset",
    Initialize: "an `Initialize`, which resets its qubits",
    Store: "a classical store",
}
_REMEDY = "the estimator takes unitary circuits: remove it, or split the circuit there"
_MAX_NESTING = 64

Together = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True, eq=False)
class Operation:
    """One gate, wire cut or move of a circuit in normal form.

    Attributes:
        kind: "gate", "cut_wire" (a wire cut marked by the user or found by a search) or
            "move" (the addon's `Move`: the state of the first qubit goes to the second).
        name: Qiskit's name of the operation.
        qubits: The qubits it acts on, in the gate's own order.
        instruction: Qiskit's gate, None for a wire cut or move.
        kernel: The unitary; None for a wire cut or move.
        angles: Columns of the angle table, one per angle of the kernel.
        position: Index of the instruction of the source circuit it came from.
    """

    kind: Literal["gate", "cut_wire", "move"]
    name: str
    qubits: tuple[int, ...]
    position: int
    instruction: Instruction | None = None
    kernel: GateKernel | None = None
    angles: tuple[int, ...] = ()

    @property
    def unitary(self) -> GateKernel:
        """The kernel of a gate."""
        assert self.kernel is not None, f"`{self.name}` is not a gate"
        return self.kernel


@dataclass(frozen=True, eq=False)
class NormalCircuit:
    """Operations on `num_qubits` qubits, with the table of their angles."""

    num_qubits: int
    operations: tuple[Operation, ...]
    angles: AngleTable

    def light_cone(self, support: Iterable[int]) -> NormalCircuit:
        """Only the operations that can change an observable on the qubits of `support`."""
        live = set(support)
        kept: list[Operation] = []
        for operation in reversed(self.operations):
            if live.isdisjoint(operation.qubits):
                continue
            if operation.kind == "move":
                source, target = operation.qubits
                if target not in live:  # only the source's reset counts: another operation, uncut
                    operation = replace(operation)
                live = (live - {source, target}) | ({source} if target in live else set())
            else:
                live.update(operation.qubits)
            kept.append(operation)
        return replace(self, operations=tuple(reversed(kept)))


def normalise(circuit: QuantumCircuit, together: Together) -> NormalCircuit:
    """Bring a circuit into normal form, two-qubit rotations that it spells out merged to one gate.

    Args:
        circuit: Any unitary circuit, parameterised or not, with the addon's `CutWire` and `Move`.
        together: Whether a gate on these qubits may stay whole; a wider gate for which it says no
            is decomposed to two-qubit gates.

    Raises:
        CircuitError: The circuit measures, resets or branches, or a gate cannot be decomposed.
    """
    expressions: list[ParameterExpression | float] = []
    operations: list[Operation] = []
    flat = _flatten(circuit, tuple(range(circuit.num_qubits)), together, None, 0)
    for gate in merge_rotations(flat):
        operation, kernel = gate.operation, gate.kernel
        columns: tuple[int, ...] = ()
        if kernel is not None and kernel.num_angles:
            columns = tuple(range(len(expressions), len(expressions) + kernel.num_angles))
            expressions.extend(operation.params)
        kind: Literal["gate", "cut_wire", "move"] = "gate"
        if kernel is None:
            kind = "move" if isinstance(operation, Move) else "cut_wire"
        instruction = None if kernel is None else operation
        operations.append(
            Operation(
                kind, operation.name, gate.qubits, gate.position, instruction, kernel, columns
            )
        )
    angles = AngleTable(tuple(circuit.parameters), tuple(expressions))
    return NormalCircuit(circuit.num_qubits, tuple(operations), angles)


def _flatten(
    circuit: QuantumCircuit,
    qubits: tuple[int, ...],
    together: Together,
    position: int | None,
    depth: int,
) -> Iterator[PlacedGate]:
    """Yield the operations one by one, decomposing where it must be."""
    if depth > _MAX_NESTING:
        raise CircuitError(f"gate definitions nest deeper than {_MAX_NESTING}: transpile first")
    places = {bit: qubits[i] for i, bit in enumerate(circuit.qubits)}
    for index, item in enumerate(circuit.data):
        operation = item.operation
        where = index if position is None else position
        targets = tuple(places[bit] for bit in item.qubits)
        if isinstance(operation, _IGNORED):
            continue
        _refuse(operation, where, bool(item.clbits))
        if isinstance(operation, CutWire | Move):
            yield PlacedGate(operation, where, targets, None)
            continue
        _check_angles(operation, where)
        kernel = kernel_of(operation)
        if kernel is not None and (len(targets) <= 2 or together(targets)):
            yield PlacedGate(operation, where, targets, kernel)
            continue
        definition = _definition(operation)
        if definition is None:
            raise CircuitError(
                f"`{operation.name}` on {len(targets)} qubits (instruction {where}) cannot be "
                "decomposed to one- and two-qubit gates: transpile the circuit first, or give "
                "its qubits one label"
            )
        yield from _flatten(definition, targets, together, where, depth + 1)


def _check_angles(operation: Any, position: int) -> None:
    for angle in getattr(operation, "params", ()):
        if isinstance(angle, float) and not isfinite(angle):
            raise CircuitError(
                f"`{operation.name}` (instruction {position}) has the angle {angle}, which is not "
                "finite: give a finite number or a parameter"
            )


def _definition(operation: Any) -> QuantumCircuit | None:
    """The circuit an operation stands for; None if Qiskit knows none."""
    try:
        if isinstance(operation, Instruction):
            return operation.definition
        circuit = QuantumCircuit(operation.num_qubits)
        circuit.append(operation, circuit.qubits)
        circuit = HighLevelSynthesis()(circuit)
    except Exception:  # Qiskit's own and TypeError, such as for unbound parameters
        return None
    return None if circuit.data and circuit.data[0].operation == operation else circuit


def _refuse(operation: Any, position: int, classical: bool) -> None:
    what = next((text for kind, text in _REFUSED.items() if isinstance(operation, kind)), None)
    if isinstance(operation, ControlFlowOp):
        what = f"classical control (`{operation.name}`)"
    if what is None and classical:
        what = f"`{operation.name}`, which acts on classical bits"
    if what is not None:
        raise CircuitError(f"the circuit holds {what} (instruction {position}): {_REMEDY}")
