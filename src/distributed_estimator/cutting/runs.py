"""Runs of cut gates on one pair of qubits, put together to one gate before they are cut.

Two CX around a small rotation are nearly the identity, and together cost less than one of them: 5
circuits a side instead of 25, and shots in proportion to γ² = 2 instead of 81. Gates on one of the
qubits between them belong to the run. Angles stay angles: the core of the cut depends on all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Gate

from .circuit import NormalCircuit
from .fragments import largest_overhead, sides_of
from .gates import ComplexArray, GateKernel
from .rewrite import Operation

_MOST_ANGLES = 4
_MOST_TERMS = 256
"""Of the unitary as a polynomial of its angles: a run goes on as long as it has no more."""


def merge_runs(normal: NormalCircuit, cut: Collection[int]) -> tuple[NormalCircuit, frozenset[int]]:
    """Put one gate in the place of each run of gates that are cut between the same two qubits.

    Nothing but gates on one of the two may lie between them, and the one gate has to be worth it:
    shots grow with γ², circuits with the settings of a side, and the product has to be at most half
    of what it is with each gate cut for itself. The circuit stays the same.

    Returns:
        The circuit, and the numbers of its operations that are cut.
    """
    kept = dict(enumerate(normal.operations))
    for run in _runs(normal.operations, cut):
        if len(run) == 1:
            continue
        parts = [normal.operations[number] for number in run]
        merged = _merged(parts)
        if 2 * _cost([merged], normal) <= _cost(parts, normal):
            for number in run[:-1]:
                del kept[number]
            kept[run[-1]] = merged
    chosen = frozenset(place for place, number in enumerate(kept) if number in cut)
    return replace(normal, operations=tuple(kept.values())), chosen


def _runs(operations: Sequence[Operation], cut: Collection[int]) -> list[list[int]]:
    """Numbers of the operations of each run, in order."""
    runs: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    between: dict[int, list[int]] = {}
    for number, operation in enumerate(operations):
        if operation.kind == "gate" and len(operation.qubits) == 1:
            between.setdefault(operation.qubits[0], []).append(number)
            continue
        if operation.kind == "gate" and number in cut:
            first, second = operation.qubits
            before, run = last.get(first, -1), [number]
            if before in runs and before == last.get(second):
                joined = [*runs[before], *sorted(between[first] + between[second]), number]
                if _is_small([operations[part] for part in joined]):
                    run = joined
                    del runs[before]
            runs[number] = run
        for qubit in operation.qubits:
            last[qubit], between[qubit] = number, []
    return list(runs.values())


def _is_small(parts: Sequence[Operation]) -> bool:
    kernels = [part.kernel for part in parts if part.kernel is not None]
    terms = prod(len(kernel.exponents) for kernel in kernels)
    return terms <= _MOST_TERMS and sum(kernel.num_angles for kernel in kernels) <= _MOST_ANGLES


def _cost(parts: Sequence[Operation], normal: NormalCircuit) -> float:
    """γ² times the settings of both sides, where each gate on two qubits is cut for itself."""
    shots, settings = 1.0, np.ones(2)
    for part in parts:
        if part.kernel is not None and len(part.qubits) == 2:
            shots *= largest_overhead(part.kernel)
            settings *= [len(side.distinct) for side in sides_of(part, normal.angles)]
    return shots * float(settings.sum())


def _merged(parts: Sequence[Operation]) -> Operation:
    """One gate, on the qubits of the first."""
    pair = parts[0].qubits
    whole = QuantumCircuit(2)
    exponents, coefficients = np.zeros((1, 0), np.intp), np.eye(4, dtype=complex)[None]
    for part in parts:
        assert part.kernel is not None, "a run consists of gates"
        whole.append(part.instruction, [pair.index(qubit) for qubit in part.qubits])
        own, terms = part.kernel, len(exponents)
        exponents = np.concatenate(
            [np.tile(exponents, (len(own.exponents), 1)), np.repeat(own.exponents, terms, axis=0)],
            axis=1,
        )
        coefficients = (_on_pair(part, pair)[:, None] @ coefficients).reshape(-1, 4, 4)
    names = [part.instruction.name for part in parts if len(part.qubits) == 2]
    whole.name = "·".join(names if len(names) <= 3 else [names[0], "…", names[-1]])
    return Operation(
        _gate_of(whole),
        pair,
        parts[0].position,
        GateKernel(2, exponents, coefficients),
        tuple(angle for part in parts for angle in part.angles),
        merged=tuple(source for part in parts for source in part.sources),
        marked=any(part.marked for part in parts),
    )


def _gate_of(circuit: QuantumCircuit) -> Gate:
    """A gate that is defined by a circuit: its content is what plans are told apart by."""
    gate = Gate(circuit.name, 2, [])
    gate.definition = circuit
    return gate


def _on_pair(part: Operation, pair: tuple[int, ...]) -> ComplexArray:
    """Coefficients of a gate as those of one on both qubits, shape (terms, 4, 4)."""
    assert part.kernel is not None
    own = part.kernel.coefficients
    if part.qubits == pair:
        return own
    if len(part.qubits) == 2:
        turned = own.reshape(-1, 2, 2, 2, 2).transpose(0, 2, 1, 4, 3)
    elif part.qubits[0] == pair[0]:
        turned = np.einsum("ac,tbd->tabcd", np.eye(2), own)
    else:
        turned = np.einsum("tac,bd->tabcd", own, np.eye(2))
    return np.asarray(turned.reshape(-1, 4, 4))
