"""Values, standard errors and environments, read off fragment tensors.

With estimates F of independent fragments, y = <cores, F_1 (x) … (x) F_n> has
E[y²] contracted from second moments E[F F^T] = f f^T + S. An unbiased estimate of f f^T is
F F^T − S, so y² minus the network contracted from these is an unbiased estimate of Var(y):
the first-order error less what it counts twice, to all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from ..cutting import CutPlan, FloatArray, IntArray
from ..subexperiments import Observables, Outcomes, Sensitivity, Spread
from .network import Network
from .path import Contraction
from .slicing import SECONDS_PER_PRODUCT, RunSlices, SlicedNetwork, run_here
from .tensors import FragmentTensor

Wanted: TypeAlias = Literal["values", "errors", "environments"]
"""The results that will be asked for, whose computation may begin early: values alone, values and
standard errors, or environments and values."""

_CHUNK_BYTES = 64 << 20
_ROUNDING = 1e-13
_MOST_PAIRS, _MOST_SECONDS = 1000, 0.1
"""Pairs of terms of an observable up to which its variance is estimated to all orders, and how long
that may take as estimated: at cuts of rank 16 the doubled network is large."""
_SECONDS_PER_NUMBER = 8e-9
"""To make and copy a number of a covariance, or of a tensor of the doubled network."""


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries as sums of weighted terms, each at a row of every fragment.

    Attributes:
        count: Number of queries.
        query: Shape (entries,): the query an entry belongs to, ascending.
        weight: Shape (entries,): the weight of its term.
        binding: Shape (entries,): the binding it is evaluated at.
        rows: Per fragment, shape (entries,): the row of the fragment's tensor.
        paulis: Per fragment, shape (entries,): the Pauli of the fragment's tensor.
    """

    count: int
    query: IntArray
    weight: FloatArray
    binding: IntArray
    rows: tuple[IntArray, ...]
    paulis: tuple[IntArray, ...]

    @staticmethod
    def build(
        observables: Observables | Outcomes,
        observable: IntArray,
        binding: IntArray,
        local_rows: Sequence[IntArray],
        term_paulis: Sequence[IntArray],
    ) -> Queries:
        """List the terms of every query.

        Args:
            observables: The observables and their common terms.
            observable: Shape (queries,): which observable is asked for.
            binding: Shape (queries,): at which binding.
            local_rows: Per fragment, the row of each binding.
            term_paulis: Per fragment, the Pauli of each term.
        """
        query, term, weight = observables.entries(observable)
        where = binding[query]
        return Queries(
            len(observable),
            query,
            weight,
            where,
            tuple(rows[where] for rows in local_rows),
            tuple(paulis[term] for paulis in term_paulis),
        )

    @cached_property
    def one_each(self) -> bool:
        """Whether every query has one entry."""
        return np.array_equal(self.query, np.arange(self.count))

    @cached_property
    def num_pairs(self) -> int:
        """Pairs of entries of the same query, each counted once."""
        if self.one_each:
            return self.count
        counts = np.bincount(self.query, minlength=self.count)
        return int(counts @ (counts + 1)) // 2

    def repeated(self, times: int) -> Queries:
        """The same, several times over, with rows of their own each time."""
        return Queries(
            times * self.count,
            np.concatenate([self.query + n * self.count for n in range(times)]),
            np.tile(self.weight, times),
            np.tile(self.binding, times),
            tuple(
                np.concatenate([rows + n * (int(rows.max(initial=0)) + 1) for n in range(times)])
                for rows in self.rows
            ),
            tuple(np.tile(paulis, times) for paulis in self.paulis),
        )

    def only(self, chosen: IntArray) -> Queries:
        """Some of the queries, which have one entry each."""
        return Queries(
            len(chosen),
            np.arange(len(chosen)),
            self.weight[chosen],
            self.binding[chosen],
            tuple(rows[chosen] for rows in self.rows),
            tuple(paulis[chosen] for paulis in self.paulis),
        )

    def sum(self, entries: FloatArray) -> FloatArray:
        """Weighted sums of entries, shape (entries, …) -> (queries, …)."""
        weighted = entries * self.weight.reshape(-1, *[1] * (entries.ndim - 1))
        if self.one_each:
            return weighted
        result = np.zeros((self.count, *entries.shape[1:]))
        np.add.at(result, self.query, weighted)
        return result

    def pair_blocks(self, size: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Pairs of entries of the same query, each once, about `size` pairs at a time."""
        if self.one_each:
            for start in range(0, self.count, size):
                yield self.query[start : start + size], self.query[start : start + size]
            return
        counts = np.bincount(self.query, minlength=self.count)
        partners = np.cumsum(counts)[self.query] - np.arange(self.query.size)
        ends = np.cumsum(partners)
        first = 0
        while first < len(partners):
            done = ends[first] - partners[first]
            last = max(first + 1, int(np.searchsorted(ends, done + size, side="right")))
            left = np.repeat(np.arange(first, last), partners[first:last])
            own = np.repeat(ends[first:last] - partners[first:last], partners[first:last])
            yield left, left + np.arange(done, done + len(left)) - own
            first = last


class Reconstruction:
    """Values, standard errors and environments of queries from fragment tensors.

    It may be made before tensors are complete. Each one reported by `fragment_complete` is then
    contracted as far as it goes; the rest follows when a result is asked for, with the same bits.

    Args:
        plan: The plan, and its `network`.
        tensors: A tensor per fragment. They must be complete when a result is asked for.
        queries: What is asked for.
        angles: Angles of all gates at every binding, shape (bindings, angles).
        wanted: What to begin with early.
        most_elements: Numbers a contraction may hold; where one query takes more, it is sliced
            (`run_slices`). None: any.

    Raises:
        PlanTooLargeError: A contraction does not fit even in slices.
    """

    def __init__(
        self,
        plan: CutPlan,
        network: Network,
        tensors: Sequence[FragmentTensor],
        queries: Queries,
        angles: FloatArray,
        *,
        wanted: Wanted = "values",
        most_elements: int | None = None,
        run_slices: RunSlices = run_here,
    ) -> None:
        self.plan, self.network = plan, network
        self._angles = angles
        self.tensors = tensors
        self.queries = queries
        self._cores = [cut.cores(angles) for cut in plan.cuts]
        self._ranks = [fragment.shape for fragment in plan.fragments]
        self._wanted = "environments" if wanted == "errors" and self._is_long else wanted
        self._most_elements = most_elements
        self._run_slices = run_slices
        self._sliced = network.sliced(most_elements, squared=False)
        self._begun: dict[bool, Contraction] | None = None

    def fragment_complete(self, number: int) -> None:
        """Contract a fragment's tensor, which is complete, with the tensors that came before it.

        Optional, and in any order, but not from two threads at a time. Nothing happens where the
        entries do not fit in one part, or the network is sliced.
        """
        if self._begun is None:
            self._begun = self._begin()
        for squared, contraction in self._begun.items():
            if number in contraction.missing:
                contraction.feed(number, self._leaf(number, squared))

    def values(self) -> FloatArray:
        """Expectation values, shape (queries,)."""
        entries = np.empty(self.queries.query.size)
        for part in self._parts(self._sliced):
            begun = self._finish(squared=False)
            if begun is not None:
                entries[part] = begun.value
            else:
                leaves = (self._leaf_at(number, part) for number in self._leaves)
                entries[part] = self._contract(self._sliced, leaves, part.stop - part.start)
        return self.queries.sum(entries)

    def environments(
        self, leaf: int | None = None, slope: FloatArray | None = None
    ) -> Iterator[tuple[slice, list[FloatArray]]]:
        """Derivatives of entries by fragment tensors and cores, some entries at a time.

        Args:
            leaf: A leaf that another takes the place of; None: none.
            slope: That other, shape (entries, axes…).

        Yields:
            Which entries, and per leaf an array of shape (entries, axes…).
        """
        sliced = self._sliced_back
        for part in self._parts(sliced):
            begun = None
            if leaf is None and self._wanted == "environments":
                begun = self._finish(squared=False)
            if begun is not None:
                yield part, begun.environments()
                continue
            leaves = [self._leaf_at(number, part) for number in self._leaves]
            if leaf is not None and slope is not None:
                leaves[leaf] = slope[part].reshape(-1, *leaves[leaf].shape[1:])
            if sliced is None:
                yield part, self.network.environments(leaves)
            else:
                yield part, sliced.environments(leaves, self._run_slices)

    def sensitivities(self) -> list[Sensitivity]:
        """Derivatives of queries by fragment tensors.

        Raises:
            PlanTooLargeError: The environments do not fit in memory.
        """
        queries = self.queries
        rows = [np.zeros(queries.count, dtype=np.intp) for _ in self.tensors]
        totals = [np.zeros((queries.count, *t.values.shape[1:])) for t in self.tensors]
        for part, environments in self.environments():
            query, weight = queries.query[part], queries.weight[part, None]
            for number, total in enumerate(totals):
                own = weight * environments[number].reshape(len(query), -1)
                np.add.at(total, (query, queries.paulis[number][part]), own)
                rows[number][query] = queries.rows[number][part]
        every = np.arange(queries.count)
        return [
            Sensitivity(own, every, total[None]) for own, total in zip(rows, totals, strict=True)
        ]

    def at(self, values: Sequence[FloatArray]) -> Reconstruction:
        """The same queries at several other tensors, one draw after the other.

        Args:
            values: Of every fragment, shape (draws, rows, paulis, product of ranks). Rows of a
                fragment come in blocks as long as the bindings it is asked at; of each block, those
                of all draws follow each other.
        """
        draws = len(values[0]) if values else 1
        tensors = []
        for tensor, own, rows in zip(self.tensors, values, self.queries.rows, strict=True):
            base = int(rows.max(initial=0)) + 1
            blocks = own.reshape(draws, -1, base, *own.shape[2:]).swapaxes(0, 1)
            drawn = FragmentTensor(tensor.experiment, 0, ())
            drawn.values = blocks.reshape(-1, *own.shape[2:])
            tensors.append(drawn)
        return Reconstruction(
            self.plan,
            self.network,
            tensors,
            self.queries.repeated(draws),
            self._angles,
            most_elements=self._most_elements,
            run_slices=self._run_slices,
        )

    def standard_errors(self, values: FloatArray) -> tuple[FloatArray, int]:
        """Standard errors of `values`, and for how many only the first order was left.

        Where few shots make the unbiased variance negative, or leave nothing of it but rounding,
        where a circuit has one shot, where it would take long, and where "environments" were
        wanted, the first-order variance stands in, which is larger on average.
        """
        if self._wanted == "environments" or self._is_long:
            variances = self._first_order_of_values()
            return np.sqrt(variances), int(np.count_nonzero(variances))
        squares, size = self._sum_pairs(self._moments)
        variances = values**2 - squares
        doubtful = ~(variances > _ROUNDING * (values**2 + size))  # also where it is NaN
        if doubtful.any():
            first = self._first_order_of_values()
            variances[doubtful] = first[doubtful]
        return np.sqrt(variances), int(np.count_nonzero(variances[doubtful]))

    @cached_property
    def _is_long(self) -> bool:
        """Whether variances to all orders take too many pairs of terms, or too much time."""
        pairs, queries = self.queries.num_pairs, self.queries.count
        if pairs > _MOST_PAIRS * queries or not all(t.has_covariances for t in self.tensors):
            return True
        numbers = pairs * self.network.elements_per_query(squared=True)
        products = pairs * self.network.path.doubled_products
        for tensor in self.tensors:
            own = tensor.covariance_work
            numbers, products = numbers + own[0], products + own[1]
        seconds = numbers * _SECONDS_PER_NUMBER + products * SECONDS_PER_PRODUCT
        return seconds > _MOST_SECONDS * queries

    def covariance(self, stderrs: FloatArray) -> FloatArray:
        """Covariances of queries, which share shots where they share a fragment's binding.

        They are to first order, and scaled to the queries' standard errors. Shape (queries,
        queries).
        """
        total = np.zeros((len(stderrs), len(stderrs)))
        for tensor, own in zip(self.tensors, self.sensitivities(), strict=True):
            tensor.add_covariances(total, own)
        total = (total + total.T) / 2  # rounding differs between the two
        roots = np.sqrt(np.maximum(np.diag(total), 0.0))
        scale = np.divide(stderrs, roots, out=np.zeros_like(roots), where=roots > 0)
        total *= scale[:, None] * scale
        np.fill_diagonal(total, stderrs**2)
        return total

    def first_order(self, count: int, sensitivities: Sequence[Sensitivity]) -> FloatArray:
        """Variances of `count` results by propagation of the tensors' errors."""
        total = np.zeros(count)
        for tensor, own in zip(self.tensors, sensitivities, strict=True):
            np.add.at(total, own.results, tensor.variances(own))
        return total

    def readout_errors(
        self, count: int, sensitivities: Sequence[Sensitivity]
    ) -> dict[tuple[str, int], FloatArray]:
        """How far `count` results move with a standard error of a physical qubit's readout.

        Fragments that the same qubit measured are added up with their signs. To first order.

        Returns:
            By device and qubit, shape (count,) each.
        """
        found: dict[tuple[str, int], FloatArray] = {}
        for tensor, own in zip(self.tensors, sensitivities, strict=True):
            if tensor.readout is None:
                continue
            moved = tensor.moved(own)
            for qubit, part in zip(tensor.readout.qubits.tolist(), moved.T, strict=True):
                total = found.setdefault((tensor.readout.device, qubit), np.zeros(count))
                np.add.at(total, own.results, part)
        return found

    def spreads(self, targets: FloatArray, most: int) -> tuple[IntArray, list[Spread | None]]:
        """How outcomes of every fragment scatter, as queries of one entry each depend on them.

        Args:
            targets: Variances that queries are to have; infinite for those that do not count.
            most: Queries of a binding to go by, those whose variances are the largest beside these.

        Returns:
            The numbers of these queries, and per fragment what is known; None where nothing ran.
        """
        excess = self._first_order_of_values() / targets
        order = np.lexsort((-excess, self.queries.binding))
        place = np.arange(len(order)) - np.searchsorted(
            self.queries.binding[order], self.queries.binding[order]
        )
        chosen = np.sort(order[(place < most) & np.isfinite(targets[order])])
        some = Reconstruction(
            self.plan,
            self.network,
            self.tensors,
            self.queries.only(chosen),
            self._angles,
            most_elements=self._most_elements,
            run_slices=self._run_slices,
        )
        found = [
            None
            if not tensor.counts
            else Spread(
                some.queries.rows[number],
                np.zeros((len(chosen), tensor.experiment.layout.num_settings)),
                tensor.experiment.all_runs[0],
                len(tensor.values),
            )
            for number, tensor in enumerate(self.tensors)
        ]
        for part, own in some._vectors():
            for number, spread in enumerate(found):
                if spread is not None:
                    for places, variances, _ in self.tensors[number].spreads_of(*own[number]):
                        spread.variances[part.start + places] = variances
        return chosen, found

    def _first_order_of_values(self) -> FloatArray:
        """As `first_order`, without the sensitivities where each query is of one Pauli alone."""
        if not self.queries.one_each:
            return self.first_order(self.queries.count, self.sensitivities())
        total = np.zeros(self.queries.count)
        for part, own in self._vectors():
            for tensor, entries in zip(self.tensors, own, strict=True):
                total[part] += tensor.variances_of(*entries)
        return total

    def _vectors(self) -> Iterator[tuple[slice, list[tuple[IntArray, IntArray, FloatArray]]]]:
        """Rows, Paulis and derivatives of queries of one entry each, per fragment."""
        queries = self.queries
        for part, environments in self.environments():
            weight = queries.weight[part, None]
            own = []
            for number in range(len(self.tensors)):
                vectors = weight * environments[number].reshape(len(weight), -1)
                own.append((queries.rows[number][part], queries.paulis[number][part], vectors))
            yield part, own

    def _contract(
        self, sliced: SlicedNetwork | None, leaves: Iterable[FloatArray], queries: int
    ) -> FloatArray:
        if sliced is not None:
            return sliced.values(list(leaves), self._run_slices)
        return self.network.values(list(leaves), queries)

    @property
    def _leaves(self) -> range:
        return range(self.network.path.num_leaves)

    def _leaf_at(self, number: int, part: slice) -> FloatArray:
        if number >= len(self.tensors):
            return self._at(self._cores[number - len(self.tensors)], part)
        rows, paulis = self.queries.rows[number][part], self.queries.paulis[number][part]
        return self.tensors[number].select(rows, paulis)

    def _at(self, core: FloatArray, part: slice | IntArray) -> FloatArray:
        return core if len(core) == 1 else core[self.queries.binding[part]]

    def _sum_pairs(
        self, term: Callable[[IntArray, IntArray], FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Weighted sums over pairs of entries of each query, and of the terms' magnitudes."""
        queries = self.queries
        total, size = np.zeros(queries.count), np.zeros(queries.count)
        for left, right in queries.pair_blocks(self._pairs_at_once):
            twice = np.where(left == right, 1.0, 2.0)
            terms = twice * queries.weight[left] * queries.weight[right] * term(left, right)
            total += np.bincount(queries.query[left], terms, queries.count)
            size += np.bincount(queries.query[left], np.abs(terms), queries.count)
        return total, size

    def _moments(self, left: IntArray, right: IntArray) -> FloatArray:
        """Unbiased estimates of products of the true values of two entries."""
        contraction = self._finish(squared=True)
        if contraction is not None:
            return contraction.value
        leaves = (self._moment(number, left, right) for number in self._leaves)
        return self._contract(self._sliced_squares, leaves, len(left))

    def _moment(self, number: int, left: IntArray, right: IntArray) -> FloatArray:
        """A leaf of the doubled network."""
        if number >= len(self.tensors):
            return self._at(self._squared_cores[number - len(self.tensors)], left)
        tensor = self.tensors[number]
        rows, paulis = self.queries.rows[number][left], self.queries.paulis[number]
        first, second = tensor.values[rows, paulis[left]], tensor.values[rows, paulis[right]]
        moment = _outer_product(first, second, self._ranks[number])
        covariance = tensor.covariance(rows, paulis[left], paulis[right])
        return moment - covariance.reshape(moment.shape)

    @cached_property
    def _squared_cores(self) -> list[FloatArray]:
        """Those of the doubled network, shape (rows, r², s²) each."""
        doubled = (core[:, :, None, :, None] * core[:, None, :, None, :] for core in self._cores)
        return [core.reshape(len(core), core.shape[1] ** 2, -1) for core in doubled]

    @cached_property
    def _sliced_back(self) -> SlicedNetwork | None:
        return self.network.sliced(self._most_elements, squared=False, derivatives=True)

    @cached_property
    def _sliced_squares(self) -> SlicedNetwork | None:
        return self.network.sliced(self._most_elements, squared=True)

    def _begin(self) -> dict[bool, Contraction]:
        """Contractions that may begin early, with all leaves that need not be waited for.

        False is the network itself, True the doubled one.
        """
        begun: dict[bool, Contraction] = {}
        if self._sliced is None and len(self._parts(None)) == 1:
            begun[False] = Contraction(self.network.path, keep=self._wanted == "environments")
        early = self._wanted == "errors" and self._sliced_squares is None
        if early and 0 < self.queries.num_pairs <= self._pairs_at_once:
            begun[True] = Contraction(self.network.path, keep=False)
        trivial = [n for n, tensor in enumerate(self.tensors) if tensor.experiment.is_trivial]
        cores = range(len(self.tensors), self.network.path.num_leaves)
        for squared, contraction in begun.items():
            for number in (*trivial, *cores):
                contraction.feed(number, self._leaf(number, squared))
        return begun

    def _finish(self, *, squared: bool) -> Contraction | None:
        """The contraction that began early, if one did, with all its leaves."""
        contraction = (self._begun or {}).get(squared)
        if contraction is not None:
            for number in sorted(contraction.missing):
                contraction.feed(number, self._leaf(number, squared))
        return contraction

    def _leaf(self, number: int, squared: bool) -> FloatArray:
        """A leaf of a contraction that takes all entries, or pairs, at once."""
        if squared:
            return self._moment(number, *self._all_pairs)
        return self._leaf_at(number, slice(0, self.queries.query.size))

    @cached_property
    def _all_pairs(self) -> tuple[IntArray, IntArray]:
        return next(self.queries.pair_blocks(self.queries.num_pairs))

    def _parts(self, sliced: SlicedNetwork | None) -> list[slice]:
        count, size = self.queries.query.size, self._at_once(sliced, squared=False)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    @property
    def _pairs_at_once(self) -> int:
        return self._at_once(self._sliced_squares, squared=True)

    def _at_once(self, sliced: SlicedNetwork | None, *, squared: bool) -> int:
        whole = self.network.elements_per_query(squared=squared)
        elements = whole if sliced is None else sliced.elements_per_query
        most = _CHUNK_BYTES // 8
        if self._most_elements is not None:
            most = min(most, self._most_elements)
        return max(1, most // elements)


def _outer_product(left: FloatArray, right: FloatArray, ranks: Sequence[int]) -> FloatArray:
    """F F'^T slot by slot, (queries, product of ranks) twice -> (queries, ranks²…)."""
    first = left.reshape(len(left), *(x for r in ranks for x in (r, 1)))
    second = right.reshape(len(right), *(x for r in ranks for x in (1, r)))
    return np.asarray((first * second).reshape(len(left), *(r * r for r in ranks)))
