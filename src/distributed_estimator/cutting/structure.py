"""Whether two circuits are the same: exactly, and before anything is cut."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlledGate,
    Instruction,
    Operation,
    Parameter,
    ParameterExpression,
)
from qiskit.circuit.library import HamiltonianGate, PauliEvolutionGate, UnitaryGate

from .gates import MAX_MATRIX_QUBITS, definition_of, is_standard


def structure_key(circuit: QuantumCircuit) -> str:
    """A content hash of a circuit: its gates, qubits and angles, parameters by name."""
    places = {bit: number for number, bit in enumerate(circuit.qubits)}
    lines = [f"{circuit.num_qubits}"]
    for item in circuit.data:
        qubits = [places[bit] for bit in item.qubits]
        content = "" if item.is_standard_gate() else _content(item.operation)
        lines.append(f"{item.name} {qubits} {[_as_text(p) for p in item.params]} {content}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def gate_key(gate: Instruction) -> str:
    """The content of a gate as text, its symbolic parameters left out."""
    base = getattr(gate, "base_class", type(gate))
    numbers = ["" if getattr(p, "parameters", ()) else _as_text(p) for p in gate.params]
    content = "" if is_standard(gate) else _content(gate)
    return f"{base.__name__} {gate.name} {gate.num_qubits} {numbers} {content}"


def structure_of(circuit: QuantumCircuit) -> list[Any]:
    """The properties that two circuits of one plan share; compared, never hashed.

    Qiskit compares gates to a tolerance, which is no ground to return one circuit's value for
    another's; this compares numbers exactly, and definitions and matrices where gates have any.
    """
    structure = [circuit.num_qubits, circuit.qubits, _exactly(circuit.global_phase)]
    return structure + [
        (i.name, [_exactly(p) for p in i.params], i.qubits)
        if i.is_standard_gate()
        else (_gate_structure(i.operation), i.qubits, i.clbits)
        for i in circuit.data
    ]


def _gate_structure(operation: Operation) -> list[Any]:
    parameters = [_exactly(p) for p in getattr(operation, "params", ())]
    structure: list[Any] = [type(operation), operation.name, parameters]
    if isinstance(operation, AnnotatedOperation):
        return [*structure, operation.modifiers, _gate_structure(operation.base_op)]
    if not isinstance(operation, Instruction):  # a Clifford, say: compares exactly by itself
        return [*structure, operation]
    if isinstance(operation, ControlledGate):
        structure += [operation.ctrl_state, _gate_structure(operation.base_gate)]
    if type(operation) is UnitaryGate:
        return structure
    definition, matrix = definition_of(operation), _matrix(operation)
    if definition is not None:
        structure.append(structure_of(definition))
    # Without either there is nothing to compare but the object itself.
    structure.append(operation if definition is matrix is None else matrix)
    return structure


def _content(operation: Operation) -> str:
    """The content of a gate beyond its name and parameters, as text."""
    if isinstance(operation, AnnotatedOperation):
        base = operation.base_op
        numbers = [_as_text(p) for p in getattr(base, "params", ())]
        return f"{operation.modifiers} {base.name} {numbers} {_content(base)}"
    if isinstance(operation, UnitaryGate | HamiltonianGate):
        return ""  # its parameters are all there is
    if not isinstance(operation, Instruction):
        return repr(operation)
    if isinstance(operation, ControlledGate):
        base = operation.base_gate
        return f"{base.name} {[_as_text(p) for p in base.params]} {_content(base)}"
    matrix = _matrix(operation)
    if matrix is not None:
        return matrix.hex()
    definition = definition_of(operation)
    return "" if definition is None else structure_key(definition)


def _matrix(operation: Instruction) -> bytes | None:
    """The matrix of a gate that brings its own, to the bit."""
    if isinstance(operation, PauliEvolutionGate):  # is its definition
        return None
    if operation.num_qubits > MAX_MATRIX_QUBITS and type(operation) is not UnitaryGate:
        return None
    try:
        return np.asarray(operation.to_matrix()).tobytes()
    except Exception:  # Qiskit raises CircuitError, TypeError or AttributeError
        return None


def _exactly(parameter: Any) -> Any:
    """A gate's parameter as something that is equal to nothing but itself."""
    if isinstance(parameter, np.ndarray):
        return parameter.tobytes()
    if isinstance(parameter, QuantumCircuit):  # what a box holds
        return structure_of(parameter)
    if isinstance(parameter, Parameter) or not isinstance(parameter, ParameterExpression):
        return parameter
    return str(parameter), parameter.parameters


def _as_text(parameter: Any) -> str:
    if isinstance(parameter, QuantumCircuit):
        return structure_key(parameter)
    if isinstance(parameter, ParameterExpression) and not parameter.parameters:
        parameter = parameter.numeric()
    return parameter.tobytes().hex() if isinstance(parameter, np.ndarray) else str(parameter)
