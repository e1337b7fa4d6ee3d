"""The same circuit with fewer gates to cut: permutations taken out, rotations put together.

A permutation of qubits costs nothing where states may simply be found on other qubits.
``CX·RZ(φ)·CX`` is ``RZZ(φ)``: one gate to cut instead of two, of which the core alone depends on φ.
Feature maps, transpiled QAOA and product formulas are full of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from math import isfinite
from operator import add
from typing import Any, Literal

from qiskit.circuit import Instruction, Measure, ParameterExpression, Reset
from qiskit.circuit.library import (
    CXGate,
    CZGate,
    PermutationGate,
    PhaseGate,
    RXGate,
    RXXGate,
    RZGate,
    RZXGate,
    RZZGate,
    SwapGate,
    U1Gate,
)

from .gates import GateKernel, kernel_of

Together = Callable[[tuple[int, ...]], bool]
"""Whether qubits have one label."""


class CutWire(Instruction):
    """A mark on a wire: cut it here. The one of qiskit-addon-cutting means the same.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(3)
        >>> _ = circuit.cx(0, 1)
        >>> _ = circuit.append(CutWire(), [1])
        >>> _ = circuit.cx(1, 2)
    """

    def __init__(self) -> None:
        super().__init__("cut_wire", 1, 0, [])


@dataclass(frozen=True, eq=False)
class Operation:
    """A gate, measurement, reset, wire cut or move; a permutation on the way to normal form.

    Attributes:
        instruction: Qiskit's gate, `Measure` (whose outcome is ignored), `Reset`, `CutWire` (marked
            by the user or found by a search), `Move` (the state of the first qubit goes to the
            second) or `PermutationGate`.
        qubits: The qubits it acts on, in the gate's own order.
        position: Index of the instruction of the source circuit it came from.
        kernel: The unitary of a gate; None for all others.
        angles: Columns of the angle table, one per angle of the kernel.
        merged: Indices of all instructions it was made of, where there are several.
        marked: Whether the circuit marks the gate or move as cut.
    """

    instruction: Instruction
    qubits: tuple[int, ...]
    position: int
    kernel: GateKernel | None = None
    angles: tuple[int, ...] = ()
    merged: tuple[int, ...] = ()
    marked: bool = False

    @property
    def sources(self) -> tuple[int, ...]:
        """Indices of the instructions of the source circuit that it stands for."""
        return self.merged or (self.position,)

    @property
    def kind(self) -> Literal["gate", "measure", "reset", "cut_wire", "move"]:
        """What a circuit in normal form holds."""
        if self.kernel is not None:
            return "gate"
        if isinstance(self.instruction, Measure | Reset):
            return "measure" if isinstance(self.instruction, Measure) else "reset"
        return "cut_wire" if self.instruction.num_qubits == 1 else "move"

    @property
    def is_mark(self) -> bool:
        """Whether it says where a wire may be cut, and does nothing else."""
        return self.kind in ("cut_wire", "move")


def relabel(
    gates: Sequence[Operation], num_qubits: int, together: Together
) -> tuple[list[Operation], tuple[int, ...]]:
    """Take permutations out of a circuit, and say where its states are afterwards.

    A permutation is written as SWAPs. One that moves nothing between labels, or that no other
    operation follows, only changes which qubit later operations and observables mean; SWAPs
    between labels remain, to be cut like any other gate.

    Returns:
        The operations, on the qubits where the states are; and for each qubit of the circuit the
        one that holds its state at the end.
    """
    parts = [part for gate in gates for part in _parts(gate, together)]
    used: set[int] = set()
    free = set()
    for number, part in reversed(list(enumerate(parts))):
        if isinstance(part.instruction, PermutationGate) and (
            together(part.qubits) or used.isdisjoint(part.qubits)
        ):
            free.add(number)
            if len(used.intersection(part.qubits)) == 1:
                used.symmetric_difference_update(part.qubits)
        else:
            used.update(part.qubits)
    places = list(range(num_qubits))
    kept = []
    for number, part in enumerate(parts):
        if number in free:
            first, second = part.qubits
            places[first], places[second] = places[second], places[first]
            continue
        if isinstance(part.instruction, PermutationGate):
            part = replace(part, instruction=SwapGate(), kernel=kernel_of(SwapGate()))
        kept.append(replace(part, qubits=tuple(places[qubit] for qubit in part.qubits)))
    return kept, tuple(places)


def _parts(gate: Operation, together: Together) -> Iterator[Operation]:
    """A permutation as exchanges of two qubits, few of them between labels; others as they are."""
    if not isinstance(gate.instruction, PermutationGate):
        yield gate
        return
    # Qubit i gets the state of qubit sources[i].
    sources = dict(
        zip(gate.qubits, (gate.qubits[i] for i in gate.instruction.pattern), strict=True)
    )
    cycles: list[list[int]] = []
    while sources:
        cycle = [next(iter(sources))]
        while (source := sources.pop(cycle[-1])) != cycle[0]:
            cycle.append(source)
        cycles.append(cycle)
    while cycles:
        cycle = cycles.pop()
        if len(cycle) > 1:
            # Any exchange within a cycle makes two of it.
            pairs = combinations(range(len(cycle)), 2)
            start, stop = next((p for p in pairs if together((cycle[p[0]], cycle[p[1]]))), (0, 1))
            yield replace(gate, qubits=(cycle[start], cycle[stop]))
            cycles += [cycle[:start] + cycle[stop:], cycle[start:stop]]


@dataclass(frozen=True)
class _Rule:
    """``entangler · rotation(φ) on one of its qubits · entangler = result(φ)``.

    The entangler's control is closed; rotations are of classes equal up to a global phase. A result
    that is turned takes the entangler's qubits the other way round.
    """

    entangler: type[Instruction]
    rotated: int
    rotations: tuple[type[Instruction], ...]
    result: Any
    turned: bool = False


_RULES = (
    _Rule(CXGate, 1, (RZGate, PhaseGate, U1Gate), RZZGate),
    _Rule(CXGate, 0, (RXGate,), RXXGate),
    _Rule(CZGate, 1, (RXGate,), RZXGate),
    _Rule(CZGate, 0, (RXGate,), RZXGate, turned=True),
)


def merge_rotations(gates: Iterable[Operation]) -> list[Operation]:
    """Put one two-qubit rotation in the place of every ``CX·RZ·CX`` and its kin.

    Nothing but rotations about that axis may lie between the two on either qubit; several are
    summed, unless their sum is beyond what a float holds. The circuit stays the same up to a global
    phase.

    Returns:
        The operations, the new ones with the position of their rotation in the source circuit.

    Example:
        >>> from qiskit.circuit import Parameter
        >>> phi = Parameter("phi")
        >>> parts = [(CXGate(), (0, 1)), (RZGate(phi), (1,)), (CXGate(), (0, 1))]
        >>> gates = [Operation(g, q, i, kernel_of(g)) for i, (g, q) in enumerate(parts)]
        >>> [(g.instruction.name, g.qubits, g.position) for g in merge_rotations(gates)]
        [('rzz', (0, 1), 1)]
    """
    kept: dict[int, Operation] = {}
    wires: dict[int, list[int]] = {}
    for number, gate in enumerate(gates):
        if not any(_close(rule, gate, kept, wires) for rule in _RULES):
            kept[number] = gate
            for qubit in gate.qubits:
                wires.setdefault(qubit, []).append(number)
    return list(kept.values())


def _close(
    rule: _Rule, gate: Operation, kept: dict[int, Operation], wires: dict[int, list[int]]
) -> bool:
    """Merge what `gate` is the last part of; says whether it is.

    Operations so far are `kept` by number, which rises; `wires` has the numbers on each qubit.
    """
    if not _is_entangler(rule, gate.instruction):
        return False
    rotated, other = gate.qubits[rule.rotated], gate.qubits[1 - rule.rotated]
    wire = wires.get(rotated, [])
    between = _rotations_on_top(rule, kept, wire)
    if not between or len(between) == len(wire):
        return False
    first, place = wire[-len(between) - 1], between[-1]
    parts = [kept[number] for number in between]
    if wires.get(other, [])[-1:] != [first] or not _fits(rule, kept[first], parts, gate):
        return False
    kept_first = kept[first]
    sources = tuple(source for part in (kept_first, *parts, gate) for source in part.sources)
    for number in (first, *between[:-1]):
        del kept[number]
    result = rule.result(reduce(add, (part.instruction.params[0] for part in parts)))
    qubits = gate.qubits[::-1] if rule.turned else gate.qubits
    kept[place] = Operation(
        result,
        qubits,
        parts[-1].position,
        kernel_of(result),
        merged=sources,
        marked=kept_first.marked or gate.marked,
    )
    wire[-len(between) - 1 :] = [place]
    wires[other][-1] = place
    return True


def _fits(rule: _Rule, first: Operation, rotations: Sequence[Operation], last: Operation) -> bool:
    """Whether these are the three parts of one rotation, of an angle that a float holds."""
    angles = [part.instruction.params[0] for part in rotations]
    numbers = [float(angle) for angle in angles if not isinstance(angle, ParameterExpression)]
    pairs = [last.qubits, last.qubits[::-1]] if rule.entangler is CZGate else [last.qubits]
    return (
        _is_entangler(rule, first.instruction) and first.qubits in pairs and isfinite(sum(numbers))
    )


def _rotations_on_top(rule: _Rule, kept: Mapping[int, Operation], wire: Sequence[int]) -> list[int]:
    """Numbers of the rotations that are last on a wire, in order."""
    found: list[int] = []
    for number in reversed(wire):
        if _class_of(kept[number].instruction) not in rule.rotations:
            break
        found.append(number)
    return found[::-1]


def _is_entangler(rule: _Rule, operation: Any) -> bool:
    return _class_of(operation) is rule.entangler and operation.ctrl_state == 1


def _class_of(operation: Any) -> Any:
    """Qiskit's class of a gate, as a user's own gate may have any name."""
    return getattr(operation, "base_class", type(operation))
