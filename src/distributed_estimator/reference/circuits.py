"""Circuits in the forms the reference pipeline needs: flat, measured, deferred."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from qiskit.circuit import ControlFlowOp, Instruction, QuantumCircuit
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping
from qiskit.quantum_info import PauliList
from qiskit_addon_cutting.instructions import CutWire, Move
from qiskit_addon_cutting.qpd import BaseQPDGate

from ..errors import CircuitError

Spans = Callable[[tuple[int, ...]], bool]
"""Whether some of these qubits are labelled differently from others."""

_STANDARD = {name: gate.base_class for name, gate in get_standard_gate_name_mapping().items()}
# Gates of the standard library that Aer simulates under the same name.
# fmt: off
_SIMULATED = frozenset({
    "ccx", "ccz", "cp", "crx", "cry", "crz", "cswap", "csx", "cu", "cu1", "cu3", "cx", "cy", "cz",
    "ecr", "h", "id", "p", "r", "rx", "rxx", "ry", "ryy", "rz", "rzx", "rzz", "s", "sdg", "swap",
    "sx", "sxdg", "t", "tdg", "u", "u1", "u2", "u3", "x", "y", "z",
})
# fmt: on
_MAX_NESTING = 64


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
        elif isinstance(operation, Move):
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
        known = standard or isinstance(operation, UnitaryGate | Move)
        return known and bool(operation.num_qubits == 2)
    return isinstance(operation, UnitaryGate) or (standard and operation.name in _SIMULATED)


def _refuse(operation: Instruction, uses_clbits: bool) -> None:
    if uses_clbits or isinstance(operation, ControlFlowOp) or operation.name == "reset":
        raise CircuitError(
            f"the circuit holds `{operation.name}`, expected a unitary circuit without "
            "measurement, reset or classical control: remove it (the observable says what is "
            "measured)"
        )
    if isinstance(operation, CutWire | BaseQPDGate):
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
