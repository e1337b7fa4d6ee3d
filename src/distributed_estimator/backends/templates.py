"""Circuits for samplers: one parameterised circuit per family of settings of a fragment.

The settings of a family differ by one-qubit rotations alone, and so do the measurement bases of
the observables. Both become parameters, so that a family is one PUB however many settings it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Instruction, Parameter, ParameterExpression
from qiskit.circuit.library import UGate
from qiskit.synthesis import OneQubitEulerDecomposer
from qiskit.transpiler import Target, generate_preset_pass_manager

from ..cutting import GateStep, SlotStep
from ..cutting.angles import AngleTable
from ..errors import CircuitError
from ..subexperiments import FragmentExperiment, SettingFamily

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

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
        """Parameter values of all subexperiments.

        Args:
            angles: Local angles, shape (rows, angles).

        Returns:
            Shape (rows · groups · settings, parameters), rows slowest.
        """
        rows, groups, settings = len(angles), len(self.bases), len(self.settings)
        columns = np.concatenate(
            [
                np.repeat(angles, groups * settings, axis=0),
                np.tile(np.repeat(self.bases, settings, axis=0), (rows, 1)),
                np.tile(self.settings, (rows * groups, 1)),
            ],
            axis=1,
        )
        return self.table.evaluate(columns)


def make_template(
    experiment: FragmentExperiment, family: SettingFamily, target: Target | None, *, defer: bool
) -> Template:
    """Build the circuit of a family.

    Args:
        experiment: The fragment and its observables.
        family: The settings.
        target: The target to transpile the circuit to; None: not transpiled.
        defer: Whether measurements at slots are deferred to ancilla qubits.
    """
    builder = _Builder(experiment, family, defer)
    circuit = builder.build()
    if target is not None:
        level = 1 if target.build_coupling_map() is not None else 0
        circuit = generate_preset_pass_manager(level, target=target, seed_transpiler=0).run(circuit)
    circuit, expressions = _with_bare_parameters(circuit)
    inputs = tuple(builder.angles + builder.basis_angles + builder.slot_angles)
    return Template(
        circuit,
        builder.observed,
        AngleTable(inputs, expressions),
        builder.setting_values(),
        builder.basis_values(),
    )


class _Builder:
    """Puts a fragment's gates, slot rotations and measurements in order."""

    def __init__(self, experiment: FragmentExperiment, family: SettingFamily, defer: bool) -> None:
        fragment = experiment.fragment
        self._experiment = experiment
        self._family = family
        self._settings = list(family.settings())
        self.observed = tuple(sorted({q for g in experiment.groups for q, _ in g.basis}))
        measured = sum(family.measured)
        self._deferred = [
            defer and m and slot.side.end == "gate"
            for slot, m in zip(fragment.slots, family.measured, strict=True)
        ]
        self._circuit = QuantumCircuit(
            QuantumRegister(fragment.num_qubits + sum(self._deferred), "q"),
            *([ClassicalRegister(measured, SLOT_REGISTER)] if measured else []),
            *([ClassicalRegister(len(self.observed), MEASURE_REGISTER)] if self.observed else []),
        )
        self.angles = [Parameter(f"a{i:04d}") for i in range(len(fragment.angles))]
        self.slot_angles: list[Parameter] = []
        self.basis_angles: list[Parameter] = []
        self._slot_values: list[FloatArray] = []
        self._basis_values: list[FloatArray] = []

    def build(self) -> QuantumCircuit:
        """The circuit, in terms of local angles and rotation angles."""
        ends: list[tuple[int, int]] = []
        ancilla = count(self._experiment.fragment.num_qubits)
        bit = count()
        for step in self._experiment.fragment.steps:
            if isinstance(step, GateStep):
                self._gate(step)
                continue
            slot = self._experiment.fragment.slots[step.slot]
            self._rotate_slot(step, 0)
            if not self._family.measured[step.slot]:
                continue
            place = next(bit)
            if self._deferred[step.slot]:
                extra = next(ancilla)
                self._circuit.cx(step.qubit, extra)
                ends.append((extra, place))
            else:
                self._circuit.measure(step.qubit, place)
            if slot.side.end == "gate":
                self._rotate_slot(step, 1)
        self._measure(ends)
        return self._circuit

    def setting_values(self) -> FloatArray:
        """Slot rotation angles, shape (settings, angles)."""
        return _columns(self._slot_values, len(self._settings))

    def basis_values(self) -> FloatArray:
        """Basis rotation angles, shape (groups, angles)."""
        return _columns(self._basis_values, len(self._experiment.groups))

    def _gate(self, step: GateStep) -> None:
        instruction = step.instruction
        if step.angles:
            instruction = instruction.to_mutable()
            instruction.params = [self.angles[a] for a in step.angles]
        self._append(instruction, step.qubits)

    def _append(self, instruction: Instruction, qubits: Sequence[int]) -> None:
        symbolic = any(getattr(p, "parameters", ()) for p in instruction.params)
        if not symbolic or instruction.name in _BOUND_SAFELY:
            self._circuit.append(instruction, qubits)
            return
        if instruction.definition is None:
            raise CircuitError(
                f"`{instruction.name}` cannot be decomposed to gates that samplers bind correctly: "
                "transpile the circuit first"
            )
        definition = instruction.definition
        for item in definition.data:
            targets = [qubits[definition.find_bit(q).index] for q in item.qubits]
            self._append(item.operation, targets)

    def _rotate_slot(self, step: SlotStep, which: int) -> None:
        rotations = [setting[step.slot].rotations[which] for setting in self._settings]
        self._rotate(step.qubit, rotations, self.slot_angles, self._slot_values, "s")

    def _measure(self, deferred: Sequence[tuple[int, int]]) -> None:
        for place, qubit in enumerate(self.observed):
            letters = [dict(group.basis).get(qubit, "Z") for group in self._experiment.groups]
            rotations = [_TO_Z[letter] for letter in letters]
            self._rotate(qubit, rotations, self.basis_angles, self._basis_values, "b")
            self._circuit.measure(qubit, sum(self._family.measured) + place)
        for qubit, place in deferred:
            self._circuit.measure(qubit, place)

    def _rotate(
        self,
        qubit: int,
        rotations: Sequence[ComplexArray],
        parameters: list[Parameter],
        values: list[FloatArray],
        prefix: str,
    ) -> None:
        """Append a rotation that depends on the setting or basis, or nothing where none does."""
        if all(
            np.allclose(np.abs(r[0, 0]), 1) and np.allclose(r / r[0, 0], _IDENTITY, atol=1e-12)
            for r in rotations
        ):
            return
        angles = np.array([_EULER.angles(rotation) for rotation in rotations])
        if len(rotations) == 1 or (angles == angles[0]).all():
            self._circuit.append(UGate(*map(float, angles[0])), [qubit])
            return
        fresh = [Parameter(f"{prefix}{len(parameters) + i:04d}") for i in range(3)]
        self._circuit.append(UGate(*fresh), [qubit])
        parameters.extend(fresh)
        values.append(angles)


def _columns(values: Sequence[FloatArray], rows: int) -> FloatArray:
    return np.concatenate(values, axis=1) if values else np.zeros((rows, 0))


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
