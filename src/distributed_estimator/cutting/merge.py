"""Two-qubit rotations that a circuit spells out as a rotation between two CX or CZ.

``CX·RZ(φ)·CX`` is ``RZZ(φ)``: one gate to cut instead of two, of which the core alone depends on φ.
Feature maps, transpiled QAOA and product formulas are full of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isfinite
from operator import add
from typing import Any

from qiskit.circuit import Instruction, ParameterExpression
from qiskit.circuit.library import (
    CXGate,
    CZGate,
    PhaseGate,
    RXGate,
    RXXGate,
    RZGate,
    RZXGate,
    RZZGate,
    U1Gate,
)

from .gates import GateKernel, kernel_of


@dataclass(frozen=True, eq=False)
class PlacedGate:
    """An operation on its way to normal form.

    Attributes:
        operation: Qiskit's gate, `CutWire`, `Move` or `PermutationGate`.
        position: Index of the instruction of the source circuit it came from.
        qubits: The circuit's qubits it acts on.
        kernel: The unitary; None for a wire cut, a move or a permutation.
    """

    operation: Instruction
    position: int
    qubits: tuple[int, ...]
    kernel: GateKernel | None


@dataclass(frozen=True)
class _Rule:
    """``entangler · rotation(φ) on one of its qubits · entangler = result(φ)``.

    Attributes:
        entangler: Its class; only with its control closed.
        rotated: Which of the entangler's qubits is rotated.
        rotations: Classes of rotations about one axis, equal up to a global phase.
        result: The rotation of both qubits.
        turned: Whether the result takes the entangler's qubits the other way round.
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


def merge_rotations(gates: Iterable[PlacedGate]) -> list[PlacedGate]:
    """Put one two-qubit rotation in the place of every ``CX·RZ·CX`` and its kin.

    Nothing but rotations about that axis may lie between the two on either qubit; several are
    summed, unless their sum is beyond what a float holds. The circuit stays the same up to a global
    phase.

    Returns:
        The operations, the new ones with the position of their rotation in the source circuit.

    Example:
        >>> from qiskit.circuit import Parameter
        >>> phi = Parameter("phi")
        >>> spelt = [(CXGate(), (0, 1)), (RZGate(phi), (1,)), (CXGate(), (0, 1))]
        >>> gates = [PlacedGate(g, i, q, kernel_of(g)) for i, (g, q) in enumerate(spelt)]
        >>> [(g.operation.name, g.qubits, g.position) for g in merge_rotations(gates)]
        [('rzz', (0, 1), 1)]
    """
    kept: dict[int, PlacedGate] = {}
    wires: dict[int, list[int]] = {}
    for number, gate in enumerate(gates):
        if not any(_close(rule, gate, kept, wires) for rule in _RULES):
            kept[number] = gate
            for qubit in gate.qubits:
                wires.setdefault(qubit, []).append(number)
    return list(kept.values())


def _close(
    rule: _Rule, gate: PlacedGate, kept: dict[int, PlacedGate], wires: dict[int, list[int]]
) -> bool:
    """Merge what `gate` is the last part of; says whether it is.

    Args:
        rule: What to look for.
        gate: The operation that comes next.
        kept: Operations so far by their number, which rises.
        wires: The numbers of those on each qubit.
    """
    if not _is_entangler(rule, gate.operation):
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
    for number in (first, *between[:-1]):
        del kept[number]
    kept[place] = _merged(rule, gate, parts)
    wire[-len(between) - 1 :] = [place]
    wires[other][-1] = place
    return True


def _fits(
    rule: _Rule, first: PlacedGate, rotations: Sequence[PlacedGate], last: PlacedGate
) -> bool:
    """Whether these are the three parts of one rotation, of an angle that a float holds."""
    angles = [part.operation.params[0] for part in rotations]
    numbers = [float(angle) for angle in angles if not isinstance(angle, ParameterExpression)]
    return (
        _is_entangler(rule, first.operation)
        and _same_pair(rule, first, last)
        and isfinite(sum(numbers))
    )


def _merged(rule: _Rule, gate: PlacedGate, rotations: Sequence[PlacedGate]) -> PlacedGate:
    result = rule.result(reduce(add, (part.operation.params[0] for part in rotations)))
    qubits = gate.qubits[::-1] if rule.turned else gate.qubits
    return PlacedGate(result, rotations[-1].position, qubits, kernel_of(result))


def _rotations_on_top(
    rule: _Rule, kept: Mapping[int, PlacedGate], wire: Sequence[int]
) -> list[int]:
    """Numbers of the rotations that are last on a wire, in order."""
    found: list[int] = []
    for number in reversed(wire):
        if _class_of(kept[number].operation) not in rule.rotations:
            break
        found.append(number)
    return found[::-1]


def _is_entangler(rule: _Rule, operation: Any) -> bool:
    return _class_of(operation) is rule.entangler and operation.ctrl_state == 1


def _same_pair(rule: _Rule, first: PlacedGate, last: PlacedGate) -> bool:
    symmetric = rule.entangler is CZGate
    return first.qubits == last.qubits or (symmetric and first.qubits == last.qubits[::-1])


def _class_of(operation: Any) -> Any:
    """Qiskit's class of a gate, told by type: a user's own gate may have any name."""
    return getattr(operation, "base_class", type(operation))
