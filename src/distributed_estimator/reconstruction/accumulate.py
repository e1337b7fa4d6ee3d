"""Fragment tensors as they fill up, and the queries read off them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..cutting import CutPlan
from ..subexperiments import FragmentEstimate, FragmentExperiment, Observables, Task
from .network import Network
from .uncertainty import outer_product, quadratic_form, squared_core

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_CHUNK_BYTES = 64 << 20
_ROUNDING = 1e-13


class FragmentTensor:
    """The estimated tensor of one fragment for all its rows.

    Attributes:
        values: Shape (rows, paulis, product of ranks).
        covariances: Per measurement group, shape (rows, paulis², product of ranks²).
    """

    def __init__(self, experiment: FragmentExperiment, rows: int) -> None:
        self.experiment = experiment
        size = int(np.prod(experiment.fragment.shape, dtype=int))
        fill = np.ones if experiment.is_trivial else np.zeros
        self.values: FloatArray = fill((rows, len(experiment.paulis), size))
        self.covariances: list[FloatArray] = []

    def add(self, task: Task, estimate: FragmentEstimate) -> None:
        """Fold the result of one task in; each task is folded in once."""
        rows = slice(task.start, task.start + len(task.angles))
        self.values[rows] += estimate.values
        if estimate.covariances and not self.covariances:
            self.covariances = [
                np.zeros((len(self.values), *c.shape[1:])) for c in estimate.covariances
            ]
        for total, part in zip(self.covariances, estimate.covariances, strict=True):
            total[rows] += part

    def select(self, rows: IntArray, paulis: IntArray) -> FloatArray:
        """Tensors of the given rows and Paulis, shape (queries, ranks…)."""
        return self.values[rows, paulis].reshape(len(rows), *self.experiment.fragment.shape)

    def covariance(self, rows: IntArray, first: IntArray, second: IntArray) -> FloatArray:
        """Covariances between two Paulis' tensors, shape (queries, product of ranks²).

        Zero between groups, which share no shots.
        """
        if self.values.shape[1] == len(self.covariances) == 1:
            return np.asarray(self.covariances[0][rows, 0])
        result = np.zeros((len(rows), self.values.shape[2] ** 2))
        if not self.covariances:
            return result
        group, place = self.experiment.group_places
        shared = group[first] == group[second]
        for number, covariance in enumerate(self.covariances):
            chosen = np.flatnonzero(shared & (group[first] == number))
            width = len(self.experiment.groups[number].paulis)
            pair = place[first[chosen]] * width + place[second[chosen]]
            result[chosen] = covariance[rows[chosen], pair]
        return result


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
        observables: Observables,
        observable: IntArray,
        binding: IntArray,
        local_rows: Sequence[IntArray],
        term_paulis: Sequence[IntArray],
    ) -> Queries:
        """List the terms of every query.

        Args:
            observables: Weights of all observables on their common terms.
            observable: Shape (queries,): which observable is asked for.
            binding: Shape (queries,): at which binding.
            local_rows: Per fragment, the row of each binding.
            term_paulis: Per fragment, the Pauli of each term.
        """
        if observables.weights.shape[1] == 1:
            query = np.arange(len(observable))
            term = np.zeros(len(observable), dtype=np.intp)
        else:
            query, term = np.nonzero(observables.weights[observable])
        where = binding[query]
        return Queries(
            len(observable),
            query,
            observables.weights[observable[query], term],
            where,
            tuple(rows[where] for rows in local_rows),
            tuple(paulis[term] for paulis in term_paulis),
        )

    @cached_property
    def _one_each(self) -> bool:
        return np.array_equal(self.query, np.arange(self.count))

    def sum(self, entries: FloatArray) -> FloatArray:
        """Weighted sums of entries, shape (entries, …) -> (queries, …)."""
        weighted = entries * self.weight.reshape(-1, *[1] * (entries.ndim - 1))
        if self._one_each:
            return weighted
        result = np.zeros((self.count, *entries.shape[1:]))
        np.add.at(result, self.query, weighted)
        return result

    def pair_blocks(self, size: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Pairs of entries of the same query, each once, about `size` pairs at a time."""
        if self._one_each:
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
    """Values, standard errors and environments of queries from complete fragment tensors."""

    def __init__(
        self,
        plan: CutPlan,
        network: Network,
        tensors: Sequence[FragmentTensor],
        queries: Queries,
        angles: FloatArray,
    ) -> None:
        self.network = network
        self.tensors = tensors
        self.queries = queries
        self._cores = [cut.cores(angles) for cut in plan.cuts]
        self._ranks = [fragment.shape for fragment in plan.fragments]

    def values(self) -> FloatArray:
        """Expectation values, shape (queries,)."""
        entries = np.empty(self.queries.query.size)
        for part in self._parts():
            entries[part] = self.network.values(self._leaves(part), part.stop - part.start)
        return self.queries.sum(entries)

    def environments(self) -> Iterator[tuple[slice, list[FloatArray]]]:
        """Derivatives of entries by fragment tensors and cores, some entries at a time.

        Yields:
            Which entries, and per leaf an array of shape (entries, axes…).
        """
        for part in self._parts():
            yield part, self.network.environments(self._leaves(part))

    def variance_orders(self) -> tuple[FloatArray, FloatArray]:
        """How variances depend on shots, to first and second order in 1 / shots.

        Returns:
            a and b, shape (queries,) each: with x times the shots, the variance is a/x + b/x².
        """
        scale = 1 / 16
        full, part = self._excess(1.0), self._excess(scale)
        second = (full - part / scale) / (1 - scale)
        return full - second, second

    def _excess(self, scale: float) -> FloatArray:
        """Variances the queries would have, were all covariances `scale` times as large."""

        def term(left: IntArray, right: IntArray) -> FloatArray:
            return self._moments(left, right, scale) - self._moments(left, right, 0.0)

        return self._sum_pairs(term)[0]

    def standard_errors(self, values: FloatArray) -> tuple[FloatArray, int]:
        """Standard errors of `values`, and for how many only the first order was left.

        Where few shots make the unbiased variance negative, or leave nothing of it but rounding,
        the first-order variance stands in, which is larger on average.
        """
        squares, size = self._sum_pairs(lambda left, right: self._moments(left, right, 0.0))
        variances = values**2 - squares
        doubtful = variances <= _ROUNDING * (values**2 + size)
        if doubtful.any():
            variances[doubtful] = self._first_order()[doubtful]
        return np.sqrt(variances), int(np.count_nonzero(variances[doubtful]))

    def _leaves(self, part: slice | IntArray) -> list[FloatArray]:
        leaves = [
            tensor.select(rows[part], paulis[part])
            for tensor, rows, paulis in zip(
                self.tensors, self.queries.rows, self.queries.paulis, strict=True
            )
        ]
        return leaves + [self._at(core, part) for core in self._cores]

    def _at(self, core: FloatArray, part: slice | IntArray) -> FloatArray:
        return core if len(core) == 1 else core[self.queries.binding[part]]

    def _sum_pairs(
        self, term: Callable[[IntArray, IntArray], FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Weighted sums over pairs of entries of each query, and of the terms' magnitudes."""
        queries = self.queries
        total, size = np.zeros(queries.count), np.zeros(queries.count)
        for left, right in queries.pair_blocks(self._at_once(squared=True)):
            twice = np.where(left == right, 1.0, 2.0)
            terms = twice * queries.weight[left] * queries.weight[right] * term(left, right)
            total += np.bincount(queries.query[left], terms, queries.count)
            size += np.bincount(queries.query[left], np.abs(terms), queries.count)
        return total, size

    def _moments(self, left: IntArray, right: IntArray, scale: float) -> FloatArray:
        """Unbiased estimates of mean products of two entries at `scale` times the covariances.

        At scale 0, which is without any noise, these are products of true values.
        """
        leaves = []
        for number, tensor in enumerate(self.tensors):
            rows, paulis = self.queries.rows[number][left], self.queries.paulis[number]
            first, second = tensor.values[rows, paulis[left]], tensor.values[rows, paulis[right]]
            moment = outer_product(first, second, self._ranks[number])
            covariance = tensor.covariance(rows, paulis[left], paulis[right])
            leaves.append(moment - (1 - scale) * covariance.reshape(moment.shape))
        cores = [self._at(core, left) for core in self._squared_cores]
        return self.network.values(leaves + cores, len(left))

    @cached_property
    def _squared_cores(self) -> list[FloatArray]:
        return [squared_core(core) for core in self._cores]

    def _first_order(self) -> FloatArray:
        parts = [leaves for _, leaves in self.environments()]
        environments = [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]

        def term(left: IntArray, right: IntArray) -> FloatArray:
            total = np.zeros(len(left))
            for number, tensor in enumerate(self.tensors):
                rows, paulis = self.queries.rows[number][left], self.queries.paulis[number]
                covariance = tensor.covariance(rows, paulis[left], paulis[right])
                own = environments[number]
                total += quadratic_form(own[left], covariance, own[right], self._ranks[number])
            return total

        return np.maximum(self._sum_pairs(term)[0], 0.0)

    def _parts(self) -> list[slice]:
        count, size = self.queries.query.size, self._at_once(squared=False)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _at_once(self, *, squared: bool) -> int:
        elements = self.network.elements_per_query(squared=squared)
        return max(1, _CHUNK_BYTES // (8 * elements))
