"""Circuits for samplers: one parameterised circuit per family of settings of a fragment.

The settings of a family differ by one-qubit rotations alone, and so do the measurement bases of
the observables. Both become parameters, so that a family is one PUB however many settings it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Gate, Instruction, Parameter, ParameterExpression
from qiskit.circuit import Operation as CircuitOperation
from qiskit.circuit.library import UGate
from qiskit.synthesis import OneQubitEulerDecomposer
from qiskit.transpiler import Target, generate_preset_pass_manager

from ..cutting import BoolArray, ComplexArray, FloatArray, IntArray, Operation
from ..cutting.angles import AngleTable
from ..errors import BackendError, CircuitError
from ..subexperiments import FragmentExperiment, SettingFamily

SLOT_REGISTER = "slots"
MEASURE_REGISTER = "observed"

# Gates whose angles every sampler binds correctly. Aer's primitives bind parameterised controlled
# rotations wrongly (its issues 2323, 2391, 2403), so those are decomposed before they are sent.
_BOUND_SAFELY = {"rx", "ry", "rz", "p", "u", "r", "rxx", "ryy", "rzz", "rzx"}
_EULER = OneQubitEulerDecomposer("U")
_IDENTITY = np.eye(2, dtype=complex)
_X = _IDENTITY[::-1]
_TO_Z: dict[str, ComplexArray] = {
    "X": np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2),
    "Y": np.array([[1, -1j], [1, 1j]]) / np.sqrt(2),
    "Z": _IDENTITY,
}


@dataclass(frozen=True, eq=False)
class Template:
    """One circuit for all settings, bases and bindings of a family.

    Measured bits are numbered by slot, then by observed qubit, as in their registers.

    Attributes:
        circuit: Its parameters are bare, one per angle.
        observed: Local qubits measured at the end, in the order of their register.
        table: The circuit's parameters from local angles, and rotation angles of bases and slots.
        settings: Rotation angles per setting, shape (settings, rotations of slots).
        bases: Rotation angles per measurement group, shape (groups, rotations of bases).
        flipped: Settings and bases whose measured bits all come out flipped.
        flips: The measured bit that each rotation of bases, then of slots, flips; -1: none.
        measured: Qubit of `circuit` that gives each measured bit, which is the device's own where
            there is one.
        layout: Qubit of the device that each qubit begins at; None: there is no device.
    """

    circuit: QuantumCircuit
    observed: tuple[int, ...]
    table: AngleTable
    settings: FloatArray
    bases: FloatArray
    flipped: tuple[FloatArray, FloatArray]
    flips: IntArray
    measured: tuple[int, ...]
    layout: tuple[int, ...] | None

    def bind(
        self, angles: FloatArray, circuits: IntArray, flips: BoolArray | None = None
    ) -> FloatArray:
        """Parameter values of subexperiments.

        Args:
            angles: Local angles, shape (rows, angles).
            circuits: Row, measurement group and setting of each, shape (3, circuits).
            flips: Which measured bits are flipped, shape (circuits, bits); None: none. A template
                that is not `twirled` cannot flip any.

        Returns:
            Shape (circuits, parameters).
        """
        rows, groups, settings = circuits
        rotations = np.concatenate([self.bases[groups], self.settings[settings]], axis=1)
        if flips is not None:
            slots, bases = self.flipped
            flipped = np.concatenate([bases[groups], slots[settings]], axis=1)
            rotations = np.where(flips[:, self.flips] & (self.flips >= 0), flipped, rotations)
        return self.table.evaluate(np.concatenate([angles[rows], rotations], axis=1))

    def folded(self, factor: int, target: Target | None) -> Template:
        """The template whose gates on several qubits run `factor` times, an odd number.

        Each gate U becomes U (U⁻¹ U)ᵏ with k = (factor - 1) / 2, which is U without noise.

        Raises:
            BackendError: A gate's inverse is none of the target's gates.
        """
        if factor == 1:
            return self
        stands_for = zip(self.circuit.parameters, self.table.expressions, strict=True)
        symbolic = self.circuit.assign_parameters(dict(stands_for))
        circuit, expressions = _with_bare_parameters(_folded(symbolic, factor, target))
        table = AngleTable(self.table.parameters, expressions)
        return replace(self, circuit=circuit, table=table)


def make_template(
    experiment: FragmentExperiment,
    family: SettingFamily,
    target: Target | None,
    *,
    defer: bool,
    purify: bool,
    twirled: bool = False,
    layout: Sequence[int] | None = None,
) -> Template:
    """Build the circuit of a family, transpiled to a target where there is one.

    With `defer`, measurements at gates' slots are deferred to ancilla qubits. With `purify`, those
    of the circuit itself are, and others take the place of qubits that are reset. With `twirled`,
    each measured bit can be flipped by the rotation before it; the one after a slot's measurement
    flips the qubit back.

    On a device, qubits begin at those of `layout`. None: where the target's errors of gates and
    readout are least, as far as the transpiler finds it.
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

    def flips(place: int) -> int | None:
        return place if twirled else None

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
        before = [own.rotations[0] for own in operations]
        if not family.measured[step.number]:
            slots.append(circuit, step.qubit, before)
            continue
        place = next(bit)
        slots.append(circuit, step.qubit, before, [_X @ r for r in before], flips(place))
        if deferred[step.number]:
            ends.append((next(ancilla), place))
            circuit.cx(step.qubit, ends[-1][0])
        else:
            circuit.measure(step.qubit, place)
        if step.side.end == "gate":
            after = [own.rotations[1] for own in operations]
            slots.append(circuit, step.qubit, after, [r @ _X for r in after], flips(place))
    for place, qubit in enumerate(observed):
        letters = [dict(group.basis).get(qubit, "Z") for group in groups]
        before = [_TO_Z[letter] for letter in letters]
        bases.append(circuit, qubit, before, [_X @ r for r in before], flips(measured + place))
        circuit.measure(qubit, measured + place)
    for qubit, place in ends:
        circuit.measure(qubit, place)
    begun: tuple[int, ...] | None = None
    if target is not None:
        circuit, begun = _transpiled(circuit, target, layout)
    bits = {
        circuit.find_bit(item.clbits[0]).index: circuit.find_bit(item.qubits[0]).index
        for item in circuit.data
        if item.operation.name == "measure"
    }
    bare, expressions = _with_bare_parameters(circuit)
    inputs = (*angles, *bases.parameters, *slots.parameters)
    return Template(
        bare,
        observed,
        AngleTable(inputs, expressions),
        slots.values,
        bases.values,
        (slots.flipped, bases.flipped),
        np.array([*bases.flips, *slots.flips], dtype=np.intp),
        tuple(bits[place] for place in range(measured + len(observed))),
        begun,
    )


def _transpiled(
    circuit: QuantumCircuit, target: Target, layout: Sequence[int] | None
) -> tuple[QuantumCircuit, tuple[int, ...] | None]:
    """A circuit for a target, and the qubits of the device that its own begin at."""
    if target.build_coupling_map() is None:
        passes = generate_preset_pass_manager(0, target=target, seed_transpiler=0)
        return passes.run(circuit), None
    # From level 2 on, qubits that fit as they are numbered are laid out by their errors, too.
    passes = generate_preset_pass_manager(
        2, target=target, seed_transpiler=0, initial_layout=None if layout is None else [*layout]
    )
    found = passes.run(circuit)
    return found, tuple(found.layout.initial_index_layout(filter_ancillas=True))


def _folded(circuit: QuantumCircuit, factor: int, target: Target | None) -> QuantumCircuit:
    """Run every gate on several qubits `factor` times, itself and its inverse in turns."""
    folded = circuit.copy_empty_like()
    for item in circuit.data:
        folded.append(item)
        gate = item.operation
        if len(item.qubits) < 2 or getattr(gate, "_directive", False):
            continue
        inverse = _native_inverse(gate, [circuit.find_bit(q).index for q in item.qubits], target)
        for _ in range(factor // 2):
            # What comes between may not cancel.
            for again in (inverse, gate):
                folded.barrier(item.qubits)
                folded.append(again, item.qubits)
    return folded


def _native_inverse(gate: CircuitOperation, qubits: Sequence[int], target: Target | None) -> Gate:
    """The inverse of a gate on some qubits of a target."""
    inverse = gate.inverse() if isinstance(gate, Gate) else None
    if inverse is not None and target is not None:
        name, angles = inverse.name, any(getattr(p, "parameters", ()) for p in inverse.params)
        bounded = getattr(target, "gate_has_angle_bounds", lambda name: False)(name)
        if not target.instruction_supported(name, tuple(qubits)) or (angles and bounded):
            inverse = None
    if inverse is None:
        raise BackendError(
            f"`{gate.name}` on qubits {', '.join(map(str, qubits))} cannot be run several times "
            "over for zero-noise extrapolation, as its inverse is no gate of the device: leave "
            "`zne` out of Mitigation, or take a device with cx, cz or ecr gates"
        )
    return inverse


class _Rotations:
    """Rotations that differ between settings, or bases: their parameters and angles.

    Attributes:
        values: Shape (settings or bases, parameters).
        flipped: The same where measured bits are flipped.
        flips: Per parameter, the measured bit that it flips; -1: none.
    """

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self.parameters: list[Parameter] = []
        self.values = self.flipped = np.zeros((count, 0))
        self.flips: list[int] = []

    def append(
        self,
        circuit: QuantumCircuit,
        qubit: int,
        rotations: Sequence[ComplexArray],
        flipped: Sequence[ComplexArray] = (),
        bit: int | None = None,
    ) -> None:
        """Append one rotation per setting to a circuit, or nothing where none does anything.

        With a `bit`, there is always one, and it is the `flipped` one where that bit is.
        """
        if bit is None and all(
            np.allclose(np.abs(r[0, 0]), 1) and np.allclose(r / r[0, 0], _IDENTITY, atol=1e-12)
            for r in rotations
        ):
            return
        angles = np.array([_EULER.angles(rotation) for rotation in rotations])
        if bit is None and (len(rotations) == 1 or (angles == angles[0]).all()):
            circuit.append(UGate(*map(float, angles[0])), [qubit])
            return
        fresh = [Parameter(f"{self._prefix}{len(self.parameters) + i:04d}") for i in range(3)]
        circuit.append(UGate(*fresh), [qubit])
        self.parameters += fresh
        self.values = np.concatenate([self.values, angles], axis=1)
        others = angles if bit is None else np.array([_EULER.angles(own) for own in flipped])
        self.flipped = np.concatenate([self.flipped, others], axis=1)
        self.flips += [-1 if bit is None else bit] * 3


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
