"""Fragments too wide for state vectors: Clifford ones, and weakly entangled ones.

A slot's branches are states of qubits of its own here, and so the fragment tensor is made of
expectation values of Pauli strings in one state. Where all gates are Clifford, strings go back
through them (Gottesman, 1998), which is exact. Elsewhere the state is a matrix product (Vidal,
2003), in right-canonical form after Hastings (2009), which never divides by Schmidt values; how
entangled it can be at any angles is known from the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from math import prod
from typing import TypeAlias

import numpy as np
import scipy  # whose parts are imported when they are first used
from qiskit.circuit.library import CXGate, HGate, SwapGate

from ..cutting import ComplexArray, FloatArray, Fragment, IntArray, Slot
from ..cutting.gates import GateKernel
from ..subexperiments import FragmentExperiment, MeasurementGroup, PauliGroup, SlotwiseMap

_PAULIS = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=complex
)
_LETTERS = "IXYZ"
_CX, _H, _SWAP = (gate.to_matrix() for gate in (CXGate(), HGate(), SwapGate()))
_WIDEST_CLIFFORD = 3
_ROUNDING = 1e-12
_NEGLIGIBLE = 1e-14
"""Schmidt values, in units of the largest, that are left out; rounding makes some of 1e-16."""
_MOST_ELEMENTS = 1 << 19
"""Of the arrays of strings that are evaluated together."""
_LARGEST_LOG = 40.0
_SECONDS_A_GATE, _SECONDS_A_SITE, _SECONDS_A_CUBE = 1e-4, 1e-4, 1e-8
_SECONDS_A_LETTER, _SECONDS_A_PRODUCT = 1e-7, 5e-9

_Means: TypeAlias = Callable[[IntArray], FloatArray]
"""Expectation values of strings, (strings, qubits) -> (strings,); letters are 0 to 3."""


@dataclass(frozen=True, eq=False)
class _Gate:
    """A constant matrix, or a gate with its angles, in Qiskit's order of `qubits`."""

    qubits: tuple[int, ...]
    part: ComplexArray | tuple[GateKernel, tuple[int, ...]]

    def matrix(self, angles: FloatArray | None) -> ComplexArray:
        """The unitary at a row of angles; None: at any that are nothing special."""
        if not isinstance(self.part, tuple):
            return self.part
        kernel, columns = self.part
        own = np.sqrt(2.0 + np.arange(len(columns))) if angles is None else angles[list(columns)]
        return np.asarray(kernel.matrices(own[None])[0])


@dataclass(frozen=True, eq=False)
class _Move:
    """A gate on neighbouring places, and the place of each of its qubits counted from the first."""

    first: int
    places: tuple[int, ...]
    gate: _Gate

    def matrix(self, angles: FloatArray | None) -> ComplexArray:
        """Its unitary, the first place being the slowest."""
        width = len(self.places)
        # Of the qubits, the last is the slowest.
        order = [width - 1 - self.places.index(place) for place in range(width)]
        tensor = self.gate.matrix(angles).reshape((2,) * (2 * width))
        tensor = tensor.transpose(*order, *(width + axis for axis in order))
        return np.asarray(tensor).reshape(1 << width, -1)

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Schmidt ranks between its places at angles that are nothing special, left to right."""
        return _ranks(self.matrix(None).tobytes(), len(self.places))


_EXCHANGE = _Gate((0, 1), _SWAP)


class CompactProgram:
    """A fragment's steps on its qubits and those of its slots, and how to read its tensor.

    Args:
        fragment: Any; measurements and resets take a qubit more each.
    """

    def __init__(self, fragment: Fragment) -> None:
        own = fragment.purified
        self.num_qubits = own.num_qubits
        self._gates: list[_Gate] = []
        self._ends: list[int] = []  # qubits of slots, the first being the slowest
        readings = []
        for step in own.steps:
            if isinstance(step, Slot):
                readings.append(self._add_slot(step))
                continue
            assert step.kernel is not None, "steps are gates"
            constant = np.asarray(step.kernel.coefficients[0])
            part = (step.kernel, step.angles) if step.angles else constant
            self._gates.append(_Gate(step.qubits, part))
        self._reading = SlotwiseMap(readings)

    def _add_slot(self, slot: Slot) -> FloatArray:
        """Branches as states of qubits, and coordinates from the means of the qubits' Paulis."""
        branches, qubit, first = slot.side.branches, slot.qubit, self.num_qubits
        ends: tuple[int, ...] = ()
        scale = 1.0  # of the branches' squared norms, all together
        if len(branches) == 1:
            self._gates.append(_Gate((qubit,), branches[0]))
        elif slot.side.end == "wire_out":
            ends = (qubit,)
        elif slot.side.end == "wire_in":
            ends, scale = (first,), 2.0
            self._gates += [_Gate((qubit,), _H), _Gate((qubit, first), _CX)]
        elif len(branches) == 2:
            ends = (first,)
            before, after = next(o for o in slot.side.distinct if o.measures).rotations
            self._gates += [
                _Gate((qubit,), before),
                _Gate((qubit, first), _CX),
                _Gate((qubit,), after),
            ]
        else:  # |i><j| for all i and j: the state is kept, and half of a pair is in its place
            ends, scale = (first, first + 1), 2.0
            self._gates += [
                _Gate((qubit, first + 1), _SWAP),
                _Gate((qubit,), _H),
                _Gate((qubit, first), _CX),
            ]
        self.num_qubits += len(set(ends) - {qubit})
        self._ends += ends
        paulis = _paulis(len(ends)).reshape(4 ** len(ends), -1)
        return np.asarray((slot.side.coordinates @ paulis.T).real * scale / 2 ** len(ends))

    def is_clifford(self, angles: FloatArray) -> bool:
        """Whether all gates are at all rows of angles."""
        return all(self._images(row) is not None for row in angles)

    def values(self, experiment: FragmentExperiment, angles: FloatArray) -> FloatArray:
        """The fragment tensor of each Pauli, shape (rows, paulis, product of ranks)."""
        shape = len(angles), len(experiment.paulis), prod(experiment.fragment.shape)
        result = np.empty(shape)
        for row, means in zip(result, map(self._means_at, angles), strict=True):
            for group in experiment.groups:
                if isinstance(group, PauliGroup):
                    row[list(group.paulis)] = self._products(means, group, group.combinations)
                else:
                    row[list(group.paulis)] = group.means(self._outcomes(means, group)[None])[0]
        return result

    def tensors(self, angles: FloatArray, groups: Sequence[MeasurementGroup]) -> list[FloatArray]:
        """Per group, the fragment tensor of each outcome, (rows, outcomes, product of ranks)."""
        rows = [
            [self._outcomes(means, group) for group in groups]
            for means in map(self._means_at, angles)
        ]
        return [np.stack(own) for own in zip(*rows, strict=True)]

    def _outcomes(self, means: _Means, group: MeasurementGroup) -> FloatArray:
        table = self._products(means, group, range(group.num_outcomes))
        for bit in range(len(group.generators)):
            even, odd = np.moveaxis(table.reshape(-1, 2, (1 << bit) * table.shape[1]), 1, 0)
            table = np.stack([even + odd, even - odd], axis=1).reshape(table.shape) / 2
        return table

    def _products(self, means: _Means, group: MeasurementGroup, masks: Sequence[int]) -> FloatArray:
        """The tensor of products of generators, which are bit masks, (masks, product of ranks)."""
        letters = {qubit: _LETTERS.index(letter) for qubit, letter in group.basis}
        strings = np.zeros((len(masks), 4 ** len(self._ends), self.num_qubits), dtype=np.int8)
        for own, mask in zip(strings, masks, strict=True):
            for bit, qubits in enumerate(group.generators):
                if mask >> bit & 1:
                    for qubit in qubits:
                        own[:, qubit] ^= letters[qubit]
        slots = np.indices((4,) * len(self._ends), dtype=np.int8).reshape(
            len(self._ends), strings.shape[1]
        )
        strings[:, :, self._ends] = slots.T
        flat = strings.reshape(-1, self.num_qubits)
        return np.asarray(self._reading(means(flat).reshape(len(masks), -1)))

    def _means_at(self, row: FloatArray) -> _Means:
        images = self._images(row)
        if images is not None:
            return lambda strings: _clifford_means(images, strings)
        return self._line.means_at(row)

    def _images(self, row: FloatArray) -> list[tuple[tuple[int, ...], IntArray, IntArray]] | None:
        """What every gate makes of Paulis; None if one makes several of one."""
        images = []
        for gate in self._gates:
            matrix = gate.matrix(row)
            image = _image(matrix.tobytes(), len(matrix))
            if image is None:
                return None
            images.append((gate.qubits, *image))
        return images

    @cached_property
    def _line(self) -> _Line:
        return _Line(self._gates, self.num_qubits)

    def seconds(self, experiment: FragmentExperiment, *, paulis: bool = False) -> float:
        """About how long a row takes, with all outcomes of all groups."""
        strings = min(_num_strings(experiment), 10**18)
        if paulis:
            return len(self._gates) * (_SECONDS_A_GATE + _SECONDS_A_LETTER * strings)
        return self._line.seconds(strings)

    def row_bytes(self, experiment: FragmentExperiment, *, paulis: bool) -> int:
        """Memory that a row takes."""
        strings = _num_strings(experiment) * (self.num_qubits + 32)
        return strings + 64 * _MOST_ELEMENTS + (0 if paulis else self._line.bytes)


def _num_strings(experiment: FragmentExperiment) -> int:
    outcomes = sum(group.num_outcomes for group in experiment.groups)
    return outcomes * prod(experiment.fragment.shape)


@lru_cache(maxsize=8)
def _paulis(width: int) -> ComplexArray:
    """All Paulis of some qubits, shape (4**width, d, d), the slowest qubit as in matrices."""
    total = np.ones((1, 1, 1), dtype=complex)
    for _ in range(width):
        total = np.array([np.kron(one, other) for one in total for other in _PAULIS])
    return total


# --- Clifford fragments ---------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _image(matrix: bytes, size: int) -> tuple[IntArray, IntArray] | None:
    """What U†PU is for every Pauli, and its sign; None where it is no Pauli."""
    width = size.bit_length() - 1
    if width > _WIDEST_CLIFFORD:
        return None
    unitary, paulis = np.frombuffer(matrix, dtype=complex).reshape(size, size), _paulis(width)
    moved = unitary.conj().T @ paulis @ unitary
    weights = moved.reshape(len(paulis), -1) @ paulis.reshape(len(paulis), -1).conj().T / size
    image = np.abs(weights).argmax(axis=1)
    signs = np.rint(weights[np.arange(len(image)), image].real)
    weights[np.arange(len(image)), image] -= signs
    if np.abs(weights).max() > _ROUNDING or not signs.all():
        return None
    return image, signs.astype(np.int8)


def _clifford_means(
    images: Sequence[tuple[tuple[int, ...], IntArray, IntArray]], strings: IntArray
) -> FloatArray:
    result = []
    for letters in _chunks(strings, strings.shape[1] + 8):
        letters, sign = letters.T.copy(), np.ones(len(letters), dtype=np.int8)
        for qubits, image, signs in reversed(images):
            number = sum(letters[qubit].astype(np.intp) << 2 * j for j, qubit in enumerate(qubits))
            sign *= signs[number]
            for j, qubit in enumerate(qubits):
                letters[qubit] = image[number] >> 2 * j & 3
        result.append(sign * ((letters == 0) | (letters == 3)).all(axis=0))
    return np.concatenate(result).astype(np.float64)


def _chunks(strings: IntArray, elements: int) -> Iterator[IntArray]:
    """As many strings at a time as are allowed, where each takes so many elements."""
    step = max(1, _MOST_ELEMENTS // elements)
    for start in range(0, len(strings), step):
        yield strings[start : start + step]


# --- matrix product states ------------------------------------------------------------------------


class _Line:
    """Qubits in a line, and the gates as they act on neighbours, with SWAPs in between.

    Attributes:
        largest: Logarithm to base 2 of the largest Schmidt rank there can be.
    """

    def __init__(self, gates: Sequence[_Gate], num_qubits: int) -> None:
        pairs = np.array(
            [(g.qubits[0], q) for g in gates for q in g.qubits[1:]], dtype=np.int32
        ).reshape(-1, 2)
        graph = scipy.sparse.coo_array(
            (np.ones(len(pairs)), tuple(pairs.T)), shape=(num_qubits, num_qubits)
        ).tocsr()
        self._order = scipy.sparse.csgraph.reverse_cuthill_mckee(
            graph + graph.T, symmetric_mode=True
        ).tolist()
        self._moves: list[_Move] = []
        self._cubes = 0.0
        # Logarithms of ranks left of every place: now, at most ever, and by the gates across alone.
        self._bonds, self._peaks, across = np.zeros((3, num_qubits + 1))
        place_of = {qubit: place for place, qubit in enumerate(self._order)}
        for gate in gates:
            places = [place_of[qubit] for qubit in gate.qubits]
            ordered = sorted(places)
            middle = len(places) // 2
            first = ordered[middle] - middle
            swaps = [
                place
                for number in reversed(range(middle))
                for place in range(ordered[number], first + number)
            ]
            swaps += [
                place - 1
                for number in range(middle, len(places))
                for place in range(ordered[number], first + number, -1)
            ]
            for place in swaps:
                self._add(_Move(place, (0, 1), _EXCHANGE))
            move = _Move(first, tuple(map(ordered.index, places)), gate)
            self._add(move)
            for place in reversed(swaps):
                self._add(_Move(place, (0, 1), _EXCHANGE))
            for own, following, rank in zip(ordered, ordered[1:], move.ranks, strict=False):
                across[own + 1 : following + 1] += np.log2(rank)
            np.minimum(self._bonds, across, out=self._bonds)
        self.largest = float(self._peaks.max())
        elements = float(np.exp2(1 + self._peaks[1:] + self._peaks[:-1]).sum())
        # A gate's own arrays: the sites together, their decomposition and LAPACK's work.
        widest = max((len(gate.qubits) for gate in gates), default=1)
        self.bytes = int(16 * (2 * elements + np.exp2(4 + widest + 2 * self.largest)))
        self._products = float(np.exp2(self._bonds[1:] + 2 * self._bonds[:-1]).sum())

    def _add(self, move: _Move) -> None:
        """Note a gate and the ranks that are possible after it."""
        self._moves.append(move)
        first, last, bonds = move.first, move.first + len(move.places), self._bonds
        left, right = bonds[first], bonds[last]
        for k, rank in enumerate(move.ranks, start=1):
            most = min(bonds[first + k] + np.log2(rank), left + k, right + last - first - k)
            bonds[first + k] = min(most, _LARGEST_LOG)
            self._cubes += float(np.exp2(3 * bonds[first + k]))
        np.maximum(self._peaks, bonds, out=self._peaks)

    def seconds(self, strings: int) -> float:
        """About how long so many expectation values take."""
        state = _SECONDS_A_GATE * len(self._moves) + _SECONDS_A_CUBE * self._cubes
        sites = -(-strings // max(1, _MOST_ELEMENTS >> int(2 * self.largest))) * len(self._order)
        return state + _SECONDS_A_SITE * sites + _SECONDS_A_PRODUCT * strings * self._products

    def means_at(self, row: FloatArray) -> _Means:
        """Expectation values in the state at a row of angles."""
        sites = self._state(row)
        return lambda strings: self._means(sites, strings)

    def _state(self, row: FloatArray) -> list[ComplexArray]:
        """The matrices of every place, shape (left, 2, right), right-canonical."""
        zero = np.array([1, 0], dtype=complex).reshape(1, 2, 1)
        sites, weights = [zero] * len(self._order), [np.ones(1)] * len(self._order)
        for move in self._moves:
            first, width = move.first, len(move.places)
            whole = reduce(lambda a, b: np.tensordot(a, b, 1), sites[first : first + width])
            left, right = len(whole), whole.shape[-1]
            whole = move.matrix(row) @ whole.reshape(left, 1 << width, right)
            for k in reversed(range(1, width)):
                shape = left << k, 2 * right
                weighted = weights[first][:, None] * whole.reshape(left, -1)
                _, values, vectors = np.linalg.svd(weighted.reshape(shape), full_matrices=False)
                kept = values > _NEGLIGIBLE * values[0]
                values, vectors = values[kept], vectors[kept]
                weights[first + k] = values / np.linalg.norm(values)
                sites[first + k] = vectors.reshape(-1, 2, right)
                whole, right = whole.reshape(shape) @ vectors.conj().T, len(vectors)
            sites[first] = whole.reshape(left, 2, right)
        return sites

    def _means(self, sites: Sequence[ComplexArray], strings: IntArray) -> FloatArray:
        """From left to right, strings that begin alike together."""
        result = []
        for letters in _chunks(strings, 2 * max(site.size for site in sites)):
            inner, places = np.ones((1, 1, 1), dtype=complex), np.zeros(len(letters), np.intp)
            last = int(np.flatnonzero(letters[:, self._order].any(axis=0)).max(initial=0))
            for site, qubit in zip(sites[: last + 1], self._order, strict=False):
                left, _, right = site.shape
                keys, places = np.unique(4 * places + letters[:, qubit], return_inverse=True)
                after = np.empty((len(keys), right, right), dtype=complex)
                for letter in np.unique(keys & 3):
                    own = keys & 3 == letter
                    bra = np.tensordot(site.conj(), _PAULIS[letter], (1, 0))
                    half = inner[keys[own] >> 2].reshape(-1, left) @ bra.reshape(left, -1)
                    half = half.reshape(-1, left, right, 2).swapaxes(1, 2).reshape(-1, 2 * left)
                    # Of a Hermitian matrix, whose indices are in the other order now.
                    whole = half @ site.reshape(2 * left, right)
                    after[own] = whole.reshape(-1, right, right).conj()
                inner = after
            result.append(np.trace(inner, axis1=1, axis2=2).real[places])
        return np.concatenate(result)


@lru_cache(maxsize=4096)
def _ranks(matrix: bytes, width: int) -> tuple[int, ...]:
    """Schmidt ranks of a gate on neighbouring places, between these."""
    tensor = np.frombuffer(matrix, dtype=complex).reshape((2,) * (2 * width))
    ranks = []
    for k in range(1, width):
        order = *range(k), *range(width, width + k), *range(k, width), *range(width + k, 2 * width)
        ranks.append(int(np.linalg.matrix_rank(tensor.transpose(order).reshape(4**k, -1), 1e-9)))
    return tuple(ranks)
