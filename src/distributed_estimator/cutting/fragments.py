"""From a circuit in normal form and a choice of cuts to fragments joined by cuts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Clbit
from qiskit.circuit.library import CXGate, UGate
from qiskit.synthesis import OneQubitEulerDecomposer
from rustworkx import PyGraph, connected_components

from ..checks import described
from ..errors import InputError, shortened
from ..views import counted
from .angles import AngleTable
from .channels import (
    LocalOperation,
    SettingBasis,
    Side,
    core_of,
    expand,
    gate_sides,
    overhead,
    qpd_terms,
    wire_sides,
)
from .circuit import NormalCircuit
from .gates import ComplexArray, FloatArray, GateKernel, gate_key, kernel_of
from .rewrite import Operation

_EULER = OneQubitEulerDecomposer("U")


@dataclass(frozen=True, eq=False)
class Slot:
    """One end of a cut on a fragment, in the order of its gates.

    Attributes:
        number: Its place among the fragment's slots.
        qubit: The local qubit.
        side: What happens there.
        cut_key: Content of the cut and which end of it this is: what the side follows from.
    """

    number: int
    qubit: int
    side: Side
    cut_key: str

    def __repr__(self) -> str:
        return f"<Slot {self.number}: qubit {self.qubit}, {self.side.end}, rank {self.side.rank}>"


@dataclass(frozen=True, eq=False)
class Fragment:
    """A piece of the circuit on its own qubits.

    Attributes:
        index: Its place in the plan.
        qubits: The circuit qubit of each local qubit.
        outputs: Local qubit by circuit qubit, for those that can be observed here.
        steps: Gates, with local qubits and angles, measurements, resets, and slots in order.
        angles: Columns of the plan's angle table that its gates use, one per local angle.
    """

    index: int
    qubits: tuple[int, ...]
    outputs: dict[int, int]
    steps: tuple[Operation | Slot, ...]
    angles: tuple[int, ...]

    def __repr__(self) -> str:
        qubits, slots = shortened(list(self.qubits)), counted(len(self.slots), "slot")
        steps = counted(len(self.steps) - len(self.slots), "operation")
        return f"<Fragment {self.index}: qubits {qubits}, {steps}, {slots}>"

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Ends of cuts on this fragment."""
        return tuple(step for step in self.steps if isinstance(step, Slot))

    @property
    def num_qubits(self) -> int:
        """Width of the fragment."""
        return len(self.qubits)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Rank of each slot: the shape of the fragment tensor after its batch axes."""
        return tuple(slot.side.rank for slot in self.slots)

    @cached_property
    def num_branches(self) -> int:
        """State vectors the local simulator carries per binding."""
        return int(np.prod([len(slot.side.branches) for slot in self.slots], dtype=object))

    @cached_property
    def num_lost(self) -> int:
        """Measurements and resets, each of which leaves something of the state where none looks."""
        return sum(
            isinstance(step, Operation) and step.kind in ("measure", "reset") for step in self.steps
        )

    @property
    def environment_qubits(self) -> int:
        """Qubits that hold all that is lost; at most as many as the branches' states have."""
        return min(self.num_lost, self.num_qubits + (self.num_branches - 1).bit_length())

    @cached_property
    def purified(self) -> Fragment:
        """The same without measurements and resets, on a qubit more for each.

        A measurement whose outcome is ignored is a CX to a fresh qubit that nothing else acts on; a
        reset leaves the state on such a qubit (Stinespring's dilation). Observed qubits keep their
        numbers.
        """
        places, total = list(range(self.num_qubits)), self.num_qubits
        steps: list[Operation | Slot] = []
        for step in reversed(self.steps):
            if isinstance(step, Slot):
                steps.append(replace(step, qubit=places[step.qubit]))
                continue
            qubits = tuple(places[qubit] for qubit in step.qubits)
            if step.kind == "gate":
                steps.append(replace(step, qubits=qubits))
                continue
            if step.kind == "measure":
                copy = kernel_of(CXGate())
                steps.append(Operation(CXGate(), (*qubits, total), step.position, copy))
            else:
                places[step.qubits[0]] = total
            total += 1
        if not self.num_lost:
            return self
        qubits = self.qubits + (-1,) * (total - self.num_qubits)
        return replace(self, qubits=qubits, steps=tuple(reversed(steps)))

    def num_settings(self, basis: SettingBasis) -> int:
        """Circuits to run for one measurement basis of the observables."""
        sizes = [len(slot.side.basis(basis).operations) for slot in self.slots]
        return int(np.prod(sizes, dtype=object))

    def settings(self, basis: SettingBasis = "full") -> Iterator[tuple[LocalOperation, ...]]:
        """All choices of an operation for each slot, the last slot's varying fastest."""
        return product(*(slot.side.basis(basis).operations for slot in self.slots))

    def circuit(
        self, setting: Sequence[LocalOperation] = (), pauli: str | None = None
    ) -> QuantumCircuit:
        """The circuit that one setting runs, to look at or to run elsewhere.

        Outcomes of slots are in the register `slots`, a bit for each that the setting measures, in
        order of the slots; those of the observable in `observed`, bit q for local qubit q.

        Args:
            setting: One of `settings`.
            pauli: Measured at the end: a letter for each local qubit, the rightmost for qubit 0; I:
                not measured. None: nothing is.

        Raises:
            InputError: The setting is none of this fragment's, or the Pauli not on its qubits.

        Example:
            >>> from qiskit import QuantumCircuit
            >>> from distributed_estimator.cutting import CutPlan
            >>> circuit = QuantumCircuit(2)
            >>> _ = circuit.cx(0, 1)
            >>> fragment = CutPlan.build(circuit, "AB").fragments[0]
            >>> [operation.name for operation, in fragment.settings("minimal")]
            ['I', 'S', 'M']
            >>> *_, last = fragment.settings("minimal")
            >>> dict(fragment.circuit(last, "Z").count_ops())
            {'measure': 2}
        """
        given: Any = setting
        if not (isinstance(given, Sequence) and all(isinstance(o, LocalOperation) for o in given)):
            raise InputError(
                f"`setting` is {described(setting)}: give one of `fragment.settings()`"
            )
        if len(setting) != len(self.slots):
            raise InputError(
                f"`setting` has {len(setting)} operations, the fragment {len(self.slots)} cut "
                "ends: give one of `fragment.settings()`"
            )
        if pauli is not None and (len(pauli) != self.num_qubits or set(pauli) - set("IXYZ")):
            raise InputError(
                f"`pauli` is {pauli!r}, the fragment has {self.num_qubits} qubits: give a letter "
                "of IXYZ for each"
            )
        known = {q for q, letter in enumerate(reversed(pauli or "")) if letter != "I"}
        if gone := sorted(known.difference(self.outputs.values())):
            raise InputError(
                f"`pauli` is {pauli!r}, and the state of local qubit {gone[0]} goes on in another "
                "fragment: give an I for it"
            )
        circuit = QuantumCircuit(self.num_qubits)
        bits = _register(circuit, "slots", sum(operation.measures for operation in setting))
        lost = [o for o in self.steps if isinstance(o, Operation) and o.kind == "measure"]
        ignored = _register(circuit, "ignored", len(lost))
        for step in self.steps:
            if isinstance(step, Slot):
                _append_setting(circuit, step, setting[step.number], bits)
            else:
                clbits = [next(ignored)] if step.kind == "measure" else []
                circuit.append(step.instruction, step.qubits, clbits)
        if pauli is not None:
            _measure_pauli(circuit, pauli)
        return circuit

    @cached_property
    def key(self) -> str:
        """Content hash of the fragment's structure, without its angles' values."""
        lines = [f"{self.num_qubits}"]
        for step in self.steps:
            if isinstance(step, Slot):
                lines.append(f"slot {step.qubit} {step.side.end} {step.cut_key}")
            else:
                lines.append(f"{gate_key(step.instruction)} {step.qubits} {step.angles}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _register(circuit: QuantumCircuit, name: str, size: int) -> Iterator[Clbit]:
    """A new register of a circuit, unless it is empty."""
    register = ClassicalRegister(size, name)
    if size:
        circuit.add_register(register)
    return iter(register)


def _append_setting(
    circuit: QuantumCircuit, slot: Slot, operation: LocalOperation, bits: Iterator[Clbit]
) -> None:
    """What a setting does at a slot."""
    before, *after = operation.rotations
    _rotate(circuit, before, slot.qubit)
    if operation.measures:
        circuit.measure(slot.qubit, next(bits))
    for rotation in after if slot.side.end == "gate" else ():
        _rotate(circuit, rotation, slot.qubit)


def _measure_pauli(circuit: QuantumCircuit, pauli: str) -> None:
    """Measure each qubit in the basis of its letter."""
    register = ClassicalRegister(circuit.num_qubits, "observed")
    circuit.add_register(register)
    for qubit, letter in enumerate(reversed(pauli)):
        if letter == "Y":
            circuit.sdg(qubit)
        if letter in "XY":
            circuit.h(qubit)
        if letter != "I":
            circuit.measure(qubit, register[qubit])


def _rotate(circuit: QuantumCircuit, rotation: ComplexArray, qubit: int) -> None:
    """Append a rotation, if it is one."""
    if not np.allclose(rotation, rotation[0, 0] * np.eye(2), atol=1e-12):
        circuit.append(UGate(*map(float, _EULER.angles(rotation))), [qubit])


@dataclass(frozen=True, eq=False)
class Cut:
    """One cut gate or wire, and the slots it joins.

    Attributes:
        kind: "gate" or "wire".
        name: Qiskit's name of the cut gate, "cut_wire" or "move".
        qubits: Circuit qubits; the wire's one qubit before and after a wire cut.
        position: Index of the cut instruction in the source circuit.
        sides: What happens at either slot.
        ends: (fragment, slot) of either slot.
        kernel: The gate's unitary; None for a wire.
        angles: Columns of the plan's angle table that the cut gate depends on.
    """

    kind: Literal["gate", "wire"]
    name: str
    qubits: tuple[int, int]
    position: int
    sides: tuple[Side, Side]
    ends: tuple[tuple[int, int], tuple[int, int]]
    kernel: GateKernel | None
    angles: tuple[int, ...]

    def __repr__(self) -> str:
        first, second = (fragment for fragment, _ in self.ends)
        return (
            f"<Cut: {self.name} on qubits {self.qubits[0]} and {self.qubits[1]}, instruction "
            f"{self.position}, between fragments {first} and {second}>"
        )

    @property
    def rank(self) -> tuple[int, int]:
        """Shape of the core."""
        return self.sides[0].rank, self.sides[1].rank

    def cores(self, angles: FloatArray) -> FloatArray:
        """The core at each row of the plan's angles, shape (rows or 1, rank, rank)."""
        if not self.angles:
            return self._constant_core
        assert self.kernel is not None, "a cut wire has no angle"
        unitaries = self.kernel.matrices(angles[:, self.angles])
        return core_of(expand(unitaries, *self.sides))

    @cached_property
    def _constant_core(self) -> FloatArray:
        if self.kernel is None:
            return core_of(np.eye(2, dtype=complex)[None])
        return core_of(expand(self.kernel.coefficients, *self.sides))

    def core_slopes(self, angles: FloatArray, index: int) -> FloatArray:
        """Derivative of the cores by the cut gate's angle number `index`."""
        assert self.kernel is not None, "a cut wire has no angle"
        local = angles[:, self.angles]
        unitaries = expand(self.kernel.matrices(local), *self.sides)
        slopes = expand(self.kernel.derivatives(local, index), *self.sides)
        return core_of(unitaries, slopes)

    @cached_property
    def num_terms(self) -> int:
        """Terms of its quasi-probability decomposition: 6 for CX, 34 for SWAP, 8 for a wire."""
        return qpd_terms(None if self.kernel is None else _samples(self.kernel)[0])

    @cached_property
    def sampling_overhead(self) -> float:
        """γ² of the cut; for a symbolic gate its largest over multiples of π/2."""
        return 16.0 if self.kernel is None else largest_overhead(self.kernel)

    @property
    def spread(self) -> float:
        """(Σ s)² for the gate's operator-Schmidt coefficients s, Σ s² = 1: γ = 2 (Σ s)² − 1."""
        return float((np.sqrt(self.sampling_overhead) + 1) / 2)


def largest_overhead(kernel: GateKernel) -> float:
    """Largest γ² of a cut gate over angles that are multiples of π/2."""
    return max(map(overhead, _samples(kernel)))


def _samples(kernel: GateKernel) -> ComplexArray:
    """The gate at angles that are multiples of π/2, none of them 0 in the first."""
    angles = np.arange(1, 5) * np.pi / 2
    return kernel.matrices(np.array(list(product(angles, repeat=kernel.num_angles))))


def separating(normal: NormalCircuit, cut: Iterable[int]) -> frozenset[int]:
    """The operations numbered `cut` without those whose two ends would lie in one fragment."""
    chosen = frozenset(cut)
    while True:
        wires = Segments(normal, chosen)
        component = wires.components(chosen)
        ends = {index: own for index, own in wires.events if index in chosen}
        useless = {i for i, (one, other) in ends.items() if component[one] == component[other]}
        if not useless:
            return chosen
        chosen -= useless


def split(
    normal: NormalCircuit, cut: Iterable[int], observed: Iterable[int]
) -> tuple[tuple[Fragment, ...], tuple[Cut, ...]]:
    """Split a circuit at the operations numbered `cut`.

    Fragments are the connected components of the circuit without its cuts, as far as they do
    something or are observed. A cut may have both ends on one fragment.
    """
    chosen = frozenset(cut)
    wires = Segments(normal, chosen)
    final = {wires.current[normal.outputs[q]]: q for q in observed}
    numbers = wires.fragments(chosen, final)
    parts = [
        _Part(index, [segment for segment, number in numbers.items() if number == index])
        for index in sorted(set(numbers.values()))
    ]
    owner = {segment: parts[number] for segment, number in numbers.items()}
    cuts: list[Cut] = []
    for index, segments in wires.events:
        operation = normal.operations[index]
        if index not in chosen:
            owner[segments[0]].add_gate(operation, segments)
            continue
        sides, kind = sides_of(operation, normal.angles), operation.kind
        content = gate_key(operation.instruction) if kind == "gate" else kind
        first, second = (
            owner[segment].add_slot(segment, side, f"{content} {end}")
            for end, (segment, side) in enumerate(zip(segments, sides, strict=True))
        )
        cuts.append(
            Cut(
                "gate" if kind == "gate" else "wire",
                operation.instruction.name,
                (wires.sources[segments[0]], wires.sources[segments[1]]),
                operation.position,
                sides,
                (first, second),
                operation.kernel,
                operation.angles,
            )
        )
    return tuple(part.fragment(wires.sources, final) for part in parts), tuple(cuts)


class Segments:
    """Wires between cuts: what a qubit is before and after each cut on it.

    Attributes:
        sources: The qubit of each segment.
        current: The segment that each qubit is on at the end.
        events: Numbers of the operations that do something, and the segments they act on.
        after: The segments on the qubits of each operation after it.
    """

    def __init__(self, normal: NormalCircuit, chosen: frozenset[int]) -> None:
        self.sources = list(range(normal.num_qubits))
        self.current = list(range(normal.num_qubits))
        self.events: list[tuple[int, tuple[int, ...]]] = []
        self.after: list[tuple[int, ...]] = []
        for index, operation in enumerate(normal.operations):
            qubits, cut = operation.qubits, index in chosen
            segments = tuple(self.current[q] for q in qubits)
            if operation.kind == "move":
                if cut:
                    segments = segments[0], self._open(qubits[1])
                else:
                    self.current[qubits[1]] = segments[0]
                self._open(qubits[0])
            elif operation.kind == "cut_wire" and cut:
                segments = segments[0], self._open(qubits[0])
            if cut or not operation.is_mark:
                self.events.append((index, segments))
            self.after.append(tuple(self.current[q] for q in qubits))

    def _open(self, qubit: int) -> int:
        self.sources.append(qubit)
        self.current[qubit] = len(self.sources) - 1
        return self.current[qubit]

    def components(self, chosen: frozenset[int]) -> dict[int, int]:
        """The component of each segment, in order of their first segments."""
        graph: PyGraph[None, None] = PyGraph()
        graph.add_nodes_from([None] * len(self.sources))
        for index, segments in self.events:
            if index not in chosen:
                graph.add_edges_from_no_data([(segments[0], s) for s in segments[1:]])
        parts = sorted(connected_components(graph), key=min)
        return {segment: number for number, part in enumerate(parts) for segment in part}

    def fragments(self, chosen: frozenset[int], observed: Iterable[int]) -> dict[int, int]:
        """The fragment of each segment, in order, that something acts on or that is observed."""
        component = self.components(chosen)
        used = sorted({segment for _, own in self.events for segment in own} | set(observed))
        numbers = sorted({component[segment] for segment in used})
        places = {number: place for place, number in enumerate(numbers)}
        return {segment: places[component[segment]] for segment in used}


class _Part:
    """Collects the steps of the fragment numbered `index`."""

    def __init__(self, index: int, segments: Sequence[int]) -> None:
        self.index = index
        self.segments = segments
        self._local = {segment: i for i, segment in enumerate(segments)}
        self._steps: list[Operation | Slot] = []
        self._slots = 0
        self._angles: list[int] = []

    def add_gate(self, operation: Operation, segments: Sequence[int]) -> None:
        angles = tuple(range(len(self._angles), len(self._angles) + len(operation.angles)))
        qubits = tuple(self._local[segment] for segment in segments)
        self._angles.extend(operation.angles)
        self._steps.append(replace(operation, qubits=qubits, angles=angles))

    def add_slot(self, segment: int, side: Side, cut_key: str) -> tuple[int, int]:
        """Gives the numbers of the fragment and of its slot."""
        number = self._slots
        self._steps.append(Slot(number, self._local[segment], side, cut_key))
        self._slots += 1
        return self.index, number

    def fragment(self, sources: Sequence[int], final: dict[int, int]) -> Fragment:
        return Fragment(
            self.index,
            tuple(sources[segment] for segment in self.segments),
            {final[s]: i for i, s in enumerate(self.segments) if s in final},
            tuple(self._steps),
            tuple(self._angles),
        )


def sides_of(operation: Operation, angles: AngleTable) -> tuple[Side, Side]:
    """The two ends of the cut of a gate or wire."""
    kernel = operation.kernel
    if kernel is None:
        return wire_sides()
    if not kernel.num_angles:
        return gate_sides(kernel.coefficients)
    samples = np.array([[0.37 + 1.13 * i + 0.71 * j for j in operation.angles] for i in range(5)])
    for column, angle in enumerate(operation.angles):
        if not angles.depends_on(angle):
            samples[:, column] = float(angles.expressions[angle])
    return gate_sides(kernel.matrices(samples))
