"""Circuits for samplers: one parameterised circuit per family of settings of a fragment.

The settings of a family differ by one-qubit rotations alone, and so do the measurement bases of
the observables. Both become parameters, so that a family is one PUB however many settings it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Instruction, Parameter, ParameterExpression
from qiskit.circuit.library import UGate
from qiskit.synthesis import OneQubitEulerDecomposer
from qiskit.transpiler import Target, generate_preset_pass_manager

from ..cutting import ComplexArray, FloatArray, Operation
from ..cutting.angles import AngleTable
from ..errors import CircuitError
from ..subexperiments import FragmentExperiment, SettingFamily

SLOT_REGISTER = "slots"
MEASURE_REGISTER = "observed"

# Gates whose angles every sampler binds correctly. Aer's primitives bind parameterised controlled
# rotations wrongly (its issues 2323, 2391, 2403), so those are decomposed before they are sent.
_BOUND_SAFELY = {"rx", "ry", "rz", "p", "u", "r", "rxx", "ryy", "rzz", "rzx"}
_EULER = OneQubitEulerDecomposer("U")
_IDENTITY = np.eye(2, dtype=complex)
_TO_Z: dict[str, ComplexArray] = {
    "X": np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2),
    "Y": np.array([[1, -1j], [1, 1j]]) / np.sqrt(2),
    "Z": _IDENTITY,
}


@dataclass(frozen=True, eq=False)
class Template:
    """One circuit for all settings, bases and bindings of a family.

    Attributes:
        circuit: Its parameters are bare, one per angle.
        observed: Local qubits measured at the end, in the order of their register.
        table: The circuit's parameters from local angles and rotation angles.
        settings: Rotation angles per setting, shape (settings, rotations of slots).
        bases: Rotation angles per measurement group, shape (groups, rotations of bases).
    """

    circuit: QuantumCircuit
    observed: tuple[int, ...]
    table: AngleTable
    settings: FloatArray
    bases: FloatArray

    def bind(self, angles: FloatArray) -> FloatArray:
        """Parameter values of all subexperiments, from local angles of shape (rows, angles).

        Returns:
            Shape (rows · groups · settings, parameters), rows slowest.
        """
        rows, groups, settings = len(angles), len(self.bases), len(self.settings)
        local = np.repeat(angles, groups * settings, axis=0)
        bases = np.tile(np.repeat(self.bases, settings, axis=0), (rows, 1))
        slots = np.tile(self.settings, (rows * groups, 1))
        return self.table.evaluate(np.concatenate([local, bases, slots], axis=1))


def make_template(
    experiment: FragmentExperiment,
    family: SettingFamily,
    target: Target | None,
    *,
    defer: bool,
    purify: bool,
) -> Template:
    """Build the circuit of a family, transpiled to a target where there is one.

    With `defer`, measurements at gates' slots are deferred to ancilla qubits. With `purify`, those
    of the circuit itself are, and others take the place of qubits that are reset.
    """
    fragment, groups, settings = experiment.fragment, experiment.groups, list(family.settings())
    if purify:
        fragment = fragment.purified
    kinds = [step.kind for step in fragment.steps if isinstance(step, Operation)]
    discarded = kinds.count("measure")
    observed = tuple(sorted({qubit for group in groups for qubit, _ in group.basis}))
    measured = sum(family.measured)
    deferred = [
        defer and own and slot.side.end == "gate"
        for slot, own in zip(fragment.slots, family.measured, strict=True)
    ]
    circuit = QuantumCircuit(
        QuantumRegister(fragment.num_qubits + sum(deferred), "q"),
        *([ClassicalRegister(measured, SLOT_REGISTER)] if measured else []),
        *([ClassicalRegister(len(observed), MEASURE_REGISTER)] if observed else []),
        *([ClassicalRegister(discarded, "discarded")] if discarded else []),
    )
    angles = [Parameter(f"a{i:04d}") for i in range(len(fragment.angles))]
    slots, bases = _Rotations("s", len(settings)), _Rotations("b", len(groups))
    ends: list[tuple[int, int]] = []
    ancilla, bit = count(fragment.num_qubits), count()
    unread = count(measured + len(observed))
    for step in fragment.steps:
        if isinstance(step, Operation) and step.kind != "gate":
            clbits = [next(unread)] if step.kind == "measure" else []
            circuit.append(step.instruction, step.qubits, clbits)
            continue
        if isinstance(step, Operation):
            gate = step.instruction
            if step.angles:
                gate = gate.to_mutable()
                gate.params = [angles[a] for a in step.angles]
            _append(circuit, gate, step.qubits)
            continue
        operations = [setting[step.number] for setting in settings]
        slots.append(circuit, step.qubit, [own.rotations[0] for own in operations])
        if not family.measured[step.number]:
            continue
        place = next(bit)
        if deferred[step.number]:
            ends.append((next(ancilla), place))
            circuit.cx(step.qubit, ends[-1][0])
        else:
            circuit.measure(step.qubit, place)
        if step.side.end == "gate":
            slots.append(circuit, step.qubit, [own.rotations[1] for own in operations])
    for place, qubit in enumerate(observed):
        letters = [dict(group.basis).get(qubit, "Z") for group in groups]
        bases.append(circuit, qubit, [_TO_Z[letter] for letter in letters])
        circuit.measure(qubit, measured + place)
    for qubit, place in ends:
        circuit.measure(qubit, place)
    if target is not None:
        level = 1 if target.build_coupling_map() is not None else 0
        circuit = generate_preset_pass_manager(level, target=target, seed_transpiler=0).run(circuit)
    circuit, expressions = _with_bare_parameters(circuit)
    inputs = (*angles, *bases.parameters, *slots.parameters)
    return Template(circuit, observed, AngleTable(inputs, expressions), slots.values, bases.values)


class _Rotations:
    """Rotations that differ between settings, or bases: their parameters and angles.

    Attributes:
        values: Shape (settings or bases, parameters).
    """

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self.parameters: list[Parameter] = []
        self.values = np.zeros((count, 0))

    def append(
        self, circuit: QuantumCircuit, qubit: int, rotations: Sequence[ComplexArray]
    ) -> None:
        """Append one rotation per setting to a circuit, or nothing where none does anything."""
        if all(
            np.allclose(np.abs(r[0, 0]), 1) and np.allclose(r / r[0, 0], _IDENTITY, atol=1e-12)
            for r in rotations
        ):
            return
        angles = np.array([_EULER.angles(rotation) for rotation in rotations])
        if len(rotations) == 1 or (angles == angles[0]).all():
            circuit.append(UGate(*map(float, angles[0])), [qubit])
            return
        fresh = [Parameter(f"{self._prefix}{len(self.parameters) + i:04d}") for i in range(3)]
        circuit.append(UGate(*fresh), [qubit])
        self.parameters += fresh
        self.values = np.concatenate([self.values, angles], axis=1)


def _append(circuit: QuantumCircuit, gate: Instruction, qubits: Sequence[int]) -> None:
    """Append a gate, decomposed to what every sampler binds correctly."""
    symbolic = any(getattr(p, "parameters", ()) for p in gate.params)
    if not symbolic or gate.name in _BOUND_SAFELY:
        circuit.append(gate, qubits)
        return
    definition = gate.definition
    if definition is None:
        raise CircuitError(
            f"`{gate.name}` cannot be decomposed to gates that samplers bind correctly: "
            "transpile the circuit first"
        )
    for item in definition.data:
        places = [qubits[definition.find_bit(q).index] for q in item.qubits]
        _append(circuit, item.operation, places)


def _with_bare_parameters(
    circuit: QuantumCircuit,
) -> tuple[QuantumCircuit, tuple[ParameterExpression | float, ...]]:
    """Give every symbolic gate angle a parameter of its own; also returns what each stands for."""
    bare = circuit.copy_empty_like()
    bare.global_phase = 0
    expressions: list[ParameterExpression | float] = []
    for item in circuit.data:
        operation = item.operation
        if any(getattr(p, "parameters", ()) for p in operation.params):
            operation = operation.to_mutable()
            fresh = []
            for value in operation.params:
                fresh.append(Parameter(f"p{len(expressions):05d}"))
                expressions.append(value)
            operation.params = fresh
        bare.append(operation, item.qubits, item.clbits)
    return bare, tuple(expressions)
