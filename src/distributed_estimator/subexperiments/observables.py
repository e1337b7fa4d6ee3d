"""Pauli sums: taken apart into terms, restricted to fragments, grouped to be measured together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli as QiskitPauli
from qiskit.quantum_info import PauliList, SparseObservable

from ..cutting import FloatArray, Fragment, IntArray
from ..errors import ObservableError, shortened

Pauli = tuple[tuple[int, str], ...]
"""A Pauli string as (qubit, "X" | "Y" | "Z") pairs in order of qubits; empty for the identity.

Of `Outcomes`, a projector onto an outcome, with the letters "0" and "1".
"""

_MOST_GENERATORS = 12
"""Independent parities a measurement group may have: its outcomes are 2 to that power."""
_LARGEST_WEIGHT = 1e70


@dataclass(frozen=True, eq=False)
class Outcomes:
    """All outcomes of some qubits as observables: the projectors, whose values are probabilities.

    Attributes:
        qubits: They are distinct; bit b of an outcome's number is that of qubit b.
    """

    qubits: tuple[int, ...]

    @cached_property
    def terms(self) -> tuple[Pauli, ...]:
        """The projectors, by number of their outcome."""
        order = sorted(range(len(self.qubits)), key=self.qubits.__getitem__)
        return tuple(
            tuple((self.qubits[bit], "01"[number >> bit & 1]) for bit in order)
            for number in range(1 << len(self.qubits))
        )

    @property
    def support(self) -> frozenset[int]:
        """The qubits."""
        return frozenset(self.qubits)

    def entries(self, observable: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
        """As of `Observables`: every query has one term."""
        return np.arange(len(observable)), observable, np.ones(len(observable))


@dataclass(frozen=True, eq=False)
class Observables:
    """Several observables as weights on common Pauli terms.

    Attributes:
        terms: The distinct Pauli strings.
        weights: Shape (observables, terms).
    """

    terms: tuple[Pauli, ...]
    weights: FloatArray

    def entries(self, observable: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
        """The terms of queries for observables: number of the query, of the term, and weight."""
        query, term = np.nonzero(self.weights[observable])
        return query, term, self.weights[observable[query], term]

    @property
    def support(self) -> frozenset[int]:
        """Qubits that any term acts on."""
        return frozenset(qubit for term in self.terms for qubit, _ in term)

    @staticmethod
    def gather(observables: Iterable[SparseObservable]) -> Observables:
        """Collect the distinct terms of Hermitian observables on the same qubits."""
        columns: dict[Pauli, int] = {}
        rows: list[dict[int, float]] = []
        for observable in observables:
            row: dict[int, float] = {}
            for letters, qubits, weight in observable.as_paulis().to_sparse_list():
                term = tuple(sorted(zip(map(int, qubits), letters, strict=True)))
                column = columns.setdefault(term, len(columns))
                row[column] = row.get(column, 0.0) + float(np.real(weight))
            rows.append(row)
        weights = np.zeros((len(rows), len(columns)))
        for i, row in enumerate(rows):
            weights[i, list(row)] = list(row.values())
        return Observables(tuple(columns), weights)


def parse(observables: Any, num_qubits: int) -> ObservablesArray:
    """Read anything that Qiskit's array of observables takes, with all of its weights.

    Qiskit leaves out weights of 1e-8 and less. Here only those go that are lost in the rounding of
    the largest one of their observable.

    Raises:
        ObservableError: Empty, of another width, with weights that are not real or not in range, or
            of a type Qiskit does not know.
    """
    try:
        array = _Array(observables)
    except ObservableError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise ObservableError(
            f"the observable {shortened(observables)} cannot be read ({error}): give a Hermitian "
            "Pauli sum with real weights"
        ) from error
    if array.size == 0:
        raise ObservableError("the observables array is empty: give at least one observable")
    if array.num_qubits != num_qubits:
        raise ObservableError(
            f"the observable acts on {array.num_qubits} qubits, the circuit has {num_qubits}: give "
            "one Pauli letter per qubit"
        )
    return array


class _Array(ObservablesArray):
    """Qiskit's array of observables, but for the weights that an entry may have."""

    @classmethod
    def coerce_observable(cls, observable: Any) -> SparseObservable:
        """An entry as a sparse observable with real weights, like terms added up."""
        if isinstance(observable, Mapping):
            observable = SparseObservable.from_list([_term(*item) for item in observable.items()])
        sparse = SparseObservable(observable)
        _check_weights(sparse)
        rounding = np.finfo(float).eps * float(np.abs(sparse.coeffs).max(initial=0.0))
        sparse = sparse.simplify(rounding)
        weights = np.asarray(sparse.coeffs)
        if (np.abs(weights.imag) > 100 * rounding).any():
            raise ValueError("it is not Hermitian: like terms added up, some weights are complex")
        if not weights.any():
            raise ValueError("its weights are 0 or cancel")
        return SparseObservable.from_raw_parts(
            sparse.num_qubits,
            weights.real.astype(complex),
            sparse.bit_terms,
            sparse.indices,
            sparse.boundaries,
        )


def _term(basis: Any, weight: Any) -> tuple[str, complex]:
    if isinstance(basis, QiskitPauli):
        return basis[:].to_label(), (-1j) ** basis.phase * weight
    return basis, weight


def _check_weights(observable: SparseObservable) -> None:
    """Refuse weights whose fourth power, as in the variance of a variance, is no number."""
    sizes = np.abs(observable.coeffs)
    if not sizes.any() or (1 / _LARGEST_WEIGHT <= sizes.max() <= _LARGEST_WEIGHT):
        return
    worst = int(np.argmax(np.where(np.isnan(sizes), np.inf, sizes)))
    *term, weight = observable.to_sparse_list()[worst]
    if not weight.imag or np.isnan(weight.imag):  # NaN is what becomes of inf * (1 + 0j)
        weight = weight.real
    raise ObservableError(
        f"the weight {weight:g} of {shortened(tuple(term))} in an "
        "observable is not finite or out of range: give finite weights, the largest of them from "
        f"{1 / _LARGEST_WEIGHT:g} to {_LARGEST_WEIGHT:g}"
    )


@dataclass(frozen=True, eq=False)
class MeasurementGroup(ABC):
    """Observables of a fragment that are functions of the same outcomes and share their shots.

    Tables of counts have a row for each of its `products`, which are those of two members as far as
    they are needed, and the identity, which is first and counts shots.

    Attributes:
        basis: (local qubit, letter) of every qubit that is measured.
        paulis: Positions of the members in the fragment's list of Paulis.
        generators: The measured qubits of each generator. An outcome is the parity of every
            generator; bit b of its number is the parity of generator b.
    """

    basis: tuple[tuple[int, str], ...]
    paulis: tuple[int, ...]
    generators: tuple[tuple[int, ...], ...]

    @property
    def num_outcomes(self) -> int:
        """Number of distinguishable outcomes."""
        return 1 << len(self.generators)

    @property
    @abstractmethod
    def products(self) -> IntArray:
        """What tables of counts have a row for."""

    @property
    @abstractmethod
    def singles(self) -> IntArray:
        """Which of the `products` each member is, shape (members,)."""

    @property
    @abstractmethod
    def squares(self) -> IntArray:
        """Which of the `products` the square of each member is, shape (members,)."""

    @property
    @abstractmethod
    def pairs(self) -> IntArray:
        """Which of the `products` that of each pair is, shape (pairs,)."""

    @abstractmethod
    def pair(self, first: IntArray, second: IntArray) -> IntArray:
        """Numbers of pairs of members."""

    @abstractmethod
    def paired(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Products for all pairs, (rows, members, …) twice -> (rows, pairs, …)."""

    @abstractmethod
    def signed(self, table: FloatArray) -> FloatArray:
        """Sums of a table over outcomes, weighted by the eigenvalues of each of the `products`.

        (rows, outcomes, anything) -> (rows, products, anything).
        """

    @abstractmethod
    def means(self, table: FloatArray) -> FloatArray:
        """The same for each of the members, (rows, outcomes, anything) -> (rows, members, …)."""


@dataclass(frozen=True, eq=False)
class OutcomeGroup(MeasurementGroup):
    """The projectors onto all outcomes of some qubits, in order of their numbers.

    Pairs are those of a projector with itself: different ones are for different queries.
    """

    @property
    def products(self) -> IntArray:
        """Nothing, then every projector."""
        return np.arange(1 + self.num_outcomes)

    @property
    def singles(self) -> IntArray:
        """Behind the identity."""
        return np.arange(1, 1 + self.num_outcomes)

    squares = pairs = singles

    def pair(self, first: IntArray, second: IntArray) -> IntArray:
        """Both are the same."""
        return first

    def paired(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Each with itself."""
        return left * right

    def signed(self, table: FloatArray) -> FloatArray:
        """All shots, then those with each outcome."""
        return np.concatenate([table.sum(axis=1, keepdims=True), table], axis=1)

    def means(self, table: FloatArray) -> FloatArray:
        """The table itself."""
        return table


@dataclass(frozen=True, eq=False)
class PauliGroup(MeasurementGroup):
    """Pauli strings that commute qubit by qubit.

    Attributes:
        combinations: Per Pauli, the generators it is the product of, as a bit mask.
    """

    combinations: tuple[int, ...]

    @cached_property
    def signs(self) -> FloatArray:
        """The eigenvalue ±1 of each Pauli at each outcome, shape (paulis, outcomes)."""
        outcomes = np.arange(self.num_outcomes)
        odd = [np.bitwise_count(outcomes & combination) & 1 for combination in self.combinations]
        return 1.0 - 2.0 * np.array(odd)

    @cached_property
    def products(self) -> IntArray:
        """The distinct products of two Paulis, or none, as bit masks; the identity is first."""
        own = np.array(self.combinations)
        return np.unique(np.concatenate([[0], own, (own[:, None] ^ own).ravel()]))

    @cached_property
    def singles(self) -> IntArray:
        """Which of the `products` each Pauli is, shape (paulis,)."""
        return np.searchsorted(self.products, np.array(self.combinations))

    @property
    def squares(self) -> IntArray:
        """The identity."""
        return np.zeros(len(self.paulis), dtype=np.intp)

    @cached_property
    def pairs(self) -> IntArray:
        """Which of the `products` that of two Paulis is, shape (paulis²,)."""
        own = np.array(self.combinations)
        return np.asarray(np.searchsorted(self.products, (own[:, None] ^ own).ravel()))

    def pair(self, first: IntArray, second: IntArray) -> IntArray:
        """All pairs, the second changing fastest."""
        return first * len(self.paulis) + second

    def paired(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Every Pauli with every other."""
        both = left[:, :, None] * right[:, None]
        return both.reshape(len(left), -1, *left.shape[2:])

    def means(self, table: FloatArray) -> FloatArray:
        """Weighted by the Paulis' signs."""
        return np.asarray(self.signs @ table)

    def signed(self, table: FloatArray) -> FloatArray:
        """As a Walsh-Hadamard transform."""
        # For all products of generators at once it is the table's Walsh-Hadamard transform.
        rows, outcomes, size = table.shape
        for bit in range(len(self.generators)):
            split = table.reshape(rows, -1, 2, (1 << bit) * size)
            even, odd = split[:, :, 0], split[:, :, 1]
            table = np.stack([even + odd, even - odd], axis=2).reshape(rows, outcomes, size)
        return table[:, self.products]


def restrict(terms: Sequence[Pauli], fragment: Fragment) -> tuple[list[Pauli], IntArray]:
    """The distinct parts of the terms that lie on a fragment, on its local qubits.

    Returns:
        The local Pauli strings, and the position of each term's part among them.
    """
    found: dict[Pauli, int] = {}
    index = np.empty(len(terms), dtype=np.intp)
    for t, term in enumerate(terms):
        part = ((fragment.outputs[q], letter) for q, letter in term if q in fragment.outputs)
        index[t] = found.setdefault(tuple(sorted(part)), len(found))
    return list(found), index


def group(paulis: Sequence[Pauli], num_qubits: int) -> tuple[MeasurementGroup, ...]:
    """Divide Pauli strings into as few groups as a greedy colouring finds.

    The identity joins the first group: any setting yields it. All projectors of a fragment are one.
    """
    if any(letter in "01" for _, letter in paulis[0]):
        return (_outcome_group(paulis),)
    proper = [i for i, pauli in enumerate(paulis) if pauli]
    identity = [i for i, pauli in enumerate(paulis) if not pauli]
    if len(proper) <= 1:
        return (_make_group(paulis, identity + proper),)
    qubits = range(num_qubits - 1, -1, -1)
    labels = ["".join(dict(paulis[i]).get(qubit, "I") for qubit in qubits) for i in proper]
    positions = dict(zip(labels, proper, strict=True))
    parts = PauliList(labels).group_commuting(qubit_wise=True)
    members = sorted(sorted(positions[label] for label in part.to_labels()) for part in parts)
    members[0] = identity + members[0]
    return tuple(_make_group(paulis, part) for whole in members for part in _narrow(paulis, whole))


def _outcome_group(projectors: Sequence[Pauli]) -> OutcomeGroup:
    qubits = [qubit for qubit, _ in projectors[0]]
    numbers = [
        sum(1 << bit for bit, (_, letter) in enumerate(own) if letter == "1") for own in projectors
    ]
    return OutcomeGroup(
        tuple((qubit, "Z") for qubit in qubits),
        tuple(np.argsort(numbers).tolist()),
        tuple((qubit,) for qubit in qubits),
    )


def _narrow(paulis: Sequence[Pauli], members: Sequence[int]) -> Iterator[list[int]]:
    """Divide a group whose outcomes would be too many to tabulate."""
    part: list[int] = []
    parities = _ParityBasis()
    for i in members:
        parities.express(_mask(paulis[i]))
        if len(parities.generators) > _MOST_GENERATORS:
            yield part
            part, parities = [], _ParityBasis()
            parities.express(_mask(paulis[i]))
        part.append(i)
    yield part


def _mask(pauli: Pauli) -> int:
    return sum(1 << qubit for qubit, _ in pauli)


def _make_group(paulis: Sequence[Pauli], members: Sequence[int]) -> PauliGroup:
    basis = dict(pair for i in members for pair in paulis[i])
    parities = _ParityBasis()
    combinations = [parities.express(_mask(paulis[i])) for i in members]
    return PauliGroup(
        tuple(sorted(basis.items())),
        tuple(members),
        tuple(tuple(q for q in sorted(basis) if g >> q & 1) for g in parities.generators),
        tuple(combinations),
    )


class _ParityBasis:
    """Bit masks written as exclusive ors of few generators (a linear basis over GF(2))."""

    def __init__(self) -> None:
        self.generators: list[int] = []
        self._pivots: list[tuple[int, int]] = []

    def express(self, mask: int) -> int:
        """The generators that make up `mask`, as a bit mask; adds one if they do not."""
        rest, combination = mask, 0
        for pivot, members in self._pivots:
            if rest ^ pivot < rest:
                rest, combination = rest ^ pivot, combination ^ members
        if not rest:
            return combination
        bit = 1 << len(self.generators)
        self.generators.append(mask)
        self._pivots.append((rest, combination | bit))
        return bit
