"""Where to cut, found by the search of qiskit-addon-cutting."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit_addon_cutting import automated_cut_finding as addon

from ..checks import check_kind, check_whole, from_numpy, is_number
from ..errors import CutError, InputError
from .circuit import NormalCircuit, Operation


@dataclass(frozen=True)
class AutoCut:
    """Cuts to be found so that no fragment is wider than the device.

    Attributes:
        max_qubits: Widest fragment allowed.
        gate_cuts: Whether gates may be cut.
        wire_cuts: Whether wires may be cut.
        seed: Seed of the search; the same seed finds the same cuts.
        max_gamma: The search stops when the sampling overhead's square root exceeds it.
        max_backjumps: Longest search, in backjumps; None: no limit.

    Example:
        >>> AutoCut(max_qubits=10).max_qubits
        10
    """

    max_qubits: int
    gate_cuts: bool = True
    wire_cuts: bool = True
    seed: int = 0
    max_gamma: float = 1024.0
    max_backjumps: int | None = 10_000

    def __post_init__(self) -> None:
        check_whole("max_qubits", from_numpy(self.max_qubits), 1)
        check_whole("seed", from_numpy(self.seed), 0)
        if self.max_backjumps is not None:
            check_whole("max_backjumps", from_numpy(self.max_backjumps), 0, ", or None")
        if not (is_number(from_numpy(self.max_gamma)) and self.max_gamma >= 1):
            raise InputError(f"`max_gamma` is {self.max_gamma!r}: give a number of at least 1")
        for name in ("gate_cuts", "wire_cuts"):
            check_kind(name, getattr(self, name), bool, "True or False")
        if not (self.gate_cuts or self.wire_cuts):
            raise InputError("`gate_cuts` and `wire_cuts` are both off: allow one of them")

    def check_width(self, width: int) -> None:
        """Raise `CutError` if a plan's widest fragment is wider than allowed."""
        if width > self.max_qubits:
            raise CutError(
                f"no plan under `max_qubits` {self.max_qubits} was found, the best needs {width}: "
                "allow more qubits, a larger `max_gamma` or both kinds of cut"
            )


def find_cuts(normal: NormalCircuit, search: AutoCut) -> tuple[NormalCircuit, frozenset[int]]:
    """Choose cuts for a circuit whose gates act on at most two qubits.

    Wire cuts that the circuit already holds are kept and no more are sought on top of a circuit
    that fits.

    Returns:
        The circuit with the wire cuts found inserted, and the numbers of the operations to cut.
    """
    wires = frozenset(i for i, op in enumerate(normal.operations) if op.kind != "gate")
    if wires:
        raise CutError(
            "the circuit holds `CutWire` or `Move` and `cuts` is an AutoCut: remove the marks, or "
            "give labels instead"
        )
    pairs = [i for i, op in enumerate(normal.operations) if len(op.qubits) == 2]
    if not pairs or normal.num_qubits <= search.max_qubits:
        return normal, frozenset()
    marked = _search(normal, pairs, search)
    operations: list[Operation] = []
    cut: set[int] = set()
    upcoming = iter(range(len(normal.operations)))
    for item in marked.data:
        qubits = tuple(marked.find_bit(q).index for q in item.qubits)
        if item.operation.name == "cut_wire":
            cut.add(len(operations))
            operations.append(Operation("cut_wire", "cut_wire", qubits, -1))
            continue
        for index in upcoming:
            operations.append(normal.operations[index])
            if len(normal.operations[index].qubits) == 2:
                break
        if item.operation.name == "qpd_2q":
            cut.add(len(operations) - 1)
    operations.extend(normal.operations[index] for index in upcoming)
    return replace(normal, operations=_placed(operations)), frozenset(cut)


def _search(normal: NormalCircuit, pairs: list[int], search: AutoCut) -> QuantumCircuit:
    """The two-qubit gates alone, bound to where they entangle most, with cuts marked."""
    skeleton = QuantumCircuit(normal.num_qubits)
    for index in pairs:
        operation = normal.operations[index]
        kernel = operation.kernel
        assert kernel is not None
        angles = np.full((1, kernel.num_angles), np.pi / 2)
        skeleton.append(UnitaryGate(kernel.matrices(angles)[0]), operation.qubits)
    try:
        marked, _ = addon.find_cuts(
            skeleton,
            addon.OptimizationParameters(
                seed=search.seed,
                max_gamma=search.max_gamma,
                max_backjumps=search.max_backjumps,
                gate_lo=search.gate_cuts,
                wire_lo=search.wire_cuts,
            ),
            addon.DeviceConstraints(search.max_qubits),
        )
    except Exception as error:  # the addon fails in several ways where there is no solution
        raise CutError(
            f"no plan under `max_qubits` {search.max_qubits} was found for "
            f"{normal.num_qubits} qubits ({error}): allow more qubits or both kinds of cut"
        ) from error
    return marked


def _placed(operations: list[Operation]) -> tuple[Operation, ...]:
    """Give each inserted wire cut the position of the operation that follows it."""
    placed: list[Operation] = []
    following = 0
    for operation in reversed(operations):
        if operation.position < 0:
            operation = replace(operation, position=following)
        following = operation.position
        placed.append(operation)
    return tuple(reversed(placed))
