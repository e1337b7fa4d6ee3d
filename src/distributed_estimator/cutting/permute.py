"""Permutations of qubits, which cost nothing where states may simply be found on other qubits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from qiskit.circuit.library import PermutationGate, SwapGate

from .gates import kernel_of
from .merge import PlacedGate

Together = Callable[[tuple[int, ...]], bool]


def relabel(
    gates: Sequence[PlacedGate], num_qubits: int, together: Together
) -> tuple[list[PlacedGate], tuple[int, ...]]:
    """Take permutations out of a circuit, and say where its states are afterwards.

    A permutation is written as SWAPs. One that moves nothing between labels, or that no other
    operation follows, only changes which qubit later operations and observables mean; what is left
    are SWAPs between labels, to be cut like any other gate.

    Args:
        gates: The operations in order.
        num_qubits: Width of the circuit.
        together: Whether qubits have one label.

    Returns:
        The operations, on the qubits where the states are; and for each qubit of the circuit the
        one that holds its state at the end.
    """
    parts = [part for gate in gates for part in _parts(gate, together)]
    used: set[int] = set()
    free = set()
    for number, part in reversed(list(enumerate(parts))):
        if isinstance(part.operation, PermutationGate) and (
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
        if isinstance(part.operation, PermutationGate):
            part = replace(part, operation=SwapGate(), kernel=kernel_of(SwapGate()))
        kept.append(replace(part, qubits=tuple(places[qubit] for qubit in part.qubits)))
    return kept, tuple(places)


def _parts(gate: PlacedGate, together: Together) -> Iterator[PlacedGate]:
    """A permutation as exchanges of two qubits, few of them between labels; others as they are."""
    if not isinstance(gate.operation, PermutationGate):
        yield gate
        return
    # Qubit i gets the state of qubit sources[i].
    sources = dict(zip(gate.qubits, (gate.qubits[i] for i in gate.operation.pattern), strict=True))
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
