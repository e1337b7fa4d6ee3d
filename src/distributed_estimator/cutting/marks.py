"""Cuts that are named one by one: by their number in the circuit, or by a mark in the circuit."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qiskit import QuantumCircuit

from ..checks import check_whole, described, from_numpy, is_whole
from ..errors import CutError, InputError
from .circuit import NormalCircuit


@dataclass(frozen=True)
class CutAt:
    """Gates and wires to cut, by their numbers, whether that separates anything or not.

    A cut both of whose ends lie in one fragment does not make it narrower. It makes it shallower,
    or does without a gate between qubits that are far apart, as at the end of a periodic chain. All
    of a circuit's cuts are named here; labels and `AutoCut` leave such a gate whole.

    Attributes:
        positions: Indices into `circuit.data`, where every instruction counts, barriers and
            gates on one qubit too. Each is a gate on two qubits, a `CutWire` or a `Move`. Kept in
            ascending order.

    Raises:
        InputError: `positions` is no list of whole numbers of at least 0.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from distributed_estimator import CutAt
        >>> from distributed_estimator.cutting import CutPlan
        >>> ring = QuantumCircuit(4)
        >>> for qubit in range(4):
        ...     _ = ring.rzz(0.3, qubit, (qubit + 1) % 4)
        >>> plan = CutPlan.build(ring, CutAt([3]))
        >>> plan.num_fragments, plan.num_cuts, plan.cuts[0].qubits, plan.cuts[0].ends
        (1, 1, (3, 0), ((0, 0), (0, 1)))
        >>> CutPlan.build(ring, CutAt([1, 3])).num_fragments
        2
    """

    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        given: object = self.positions
        if isinstance(given, str | Mapping | Iterator) or not isinstance(given, Iterable):
            raise InputError(
                f"`positions` of `CutAt` is {described(given)}: give a list of indices into "
                "`circuit.data`"
            )
        numbers = {check_whole("positions", from_numpy(each), 0) for each in given}
        object.__setattr__(self, "positions", tuple(sorted(numbers)))


def cut_at(normal: NormalCircuit, circuit: QuantumCircuit, cuts: CutAt) -> frozenset[int]:
    """Numbers of the operations of a circuit's normal form that `CutAt` names.

    An instruction that stands for several gates on its two qubits is cut at each of them; one that
    was merged with others is cut with these.

    Raises:
        CutError: There is no such instruction, or nothing in it to cut.
    """
    found: set[int] = set()
    for position in cuts.positions:
        own = {
            number
            for number, operation in enumerate(normal.operations)
            if position in operation.sources
            and (len(operation.qubits) == 2 or operation.kind == "cut_wire")
        }
        if not own or not _has_two_sides(circuit, position):
            raise _nothing_to_cut(circuit, position)
        found |= own
    return frozenset(found)


def marks(normal: NormalCircuit) -> frozenset[int]:
    """Numbers of the operations that the circuit itself marks as cut."""
    return frozenset(
        number
        for number, operation in enumerate(normal.operations)
        if operation.marked or operation.is_mark
    )


def check_marks(normal: NormalCircuit, chosen: Container[int]) -> None:
    """Raise `CutError` where a gate or wire that the circuit marks is not among those to cut.

    A `Move` that is not marked is an operation like others.
    """
    for number, operation in enumerate(normal.operations):
        if (operation.marked or operation.kind == "cut_wire") and number not in chosen:
            qubits = " and ".join(map(str, operation.qubits))
            raise CutError(
                f"`cuts` leaves instruction {operation.position} whole (`"
                f"{operation.instruction.name}` on {qubits}), which the circuit marks as cut: "
                "leave out `cuts` to cut at the marks alone, or cut there, too"
            )


def can_cut(circuit: QuantumCircuit, positions: Sequence[object]) -> bool:
    """Whether `CutAt` could have these positions, which were given as labels."""
    return len(positions) > 0 and all(
        is_whole(p) and 0 <= p < len(circuit.data) and _has_two_sides(circuit, p) for p in positions
    )


def _has_two_sides(circuit: QuantumCircuit, position: int) -> bool:
    item = circuit.data[position]
    return len(item.qubits) == 2 or item.operation.name == "cut_wire"


def _nothing_to_cut(circuit: QuantumCircuit, position: int) -> CutError:
    if position >= len(circuit.data):
        return CutError(
            f"`CutAt` names instruction {position}, the circuit has {len(circuit.data)}, counted "
            "from 0: give indices into `circuit.data`"
        )
    item = circuit.data[position]
    name = f"`CutAt` names instruction {position} (`{item.operation.name}`)"
    if len(item.qubits) > 2 and item.operation.name != "barrier":
        return CutError(
            f"{name}, which acts on {len(item.qubits)} qubits: decompose it, and name gates on "
            "two qubits"
        )
    return CutError(
        f"{name}, in which there is nothing to cut: name gates on two qubits, `CutWire`s or `Move`s"
    )
