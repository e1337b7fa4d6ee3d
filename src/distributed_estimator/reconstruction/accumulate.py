"""Fragment tensors as they fill up, and the queries read off them."""

from __future__ import annotations

from collections.abc import Sequence
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

    def pairs(self) -> tuple[IntArray, IntArray]:
        """All ordered pairs of entries of the same query."""
        if self._one_each:
            return self.query, self.query
        sizes = np.bincount(self.query, minlength=self.count)
        starts = np.cumsum(sizes) - sizes
        left = np.repeat(np.arange(self.query.size), sizes[self.query])
        first = np.repeat(np.cumsum(sizes[self.query]) - sizes[self.query], sizes[self.query])
        right = starts[self.query[left]] + np.arange(len(left)) - first
        return left, right


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
        for part in self._chunks(len(entries), squared=False):
            entries[part] = self.network.values(self._leaves(part), part.stop - part.start)
        return self.queries.sum(entries)

    def environments(self) -> list[FloatArray]:
        """Derivatives of entries by fragment tensors and cores, shape (entries, axes…) each."""
        count = self.queries.query.size
        parts = [
            self.network.environments(self._leaves(part))
            for part in self._chunks(count, squared=False)
        ]
        return [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]

    def variances_at(self, scale: float) -> FloatArray:
        """Variances the queries would have, were all tensors' covariances `scale` times as large.

        Taking 1 / scale times the shots does that.
        """
        left, right = self.queries.pairs()
        changes = np.empty(len(left))
        for part in self._chunks(len(left), squared=True):
            moments = self._moments(left[part], right[part], scale)
            changes[part] = moments - self._moments(left[part], right[part], 0.0)
        return np.maximum(self._sum_pairs(left, right, changes), 0.0)

    def standard_errors(self, values: FloatArray) -> tuple[FloatArray, int]:
        """Standard errors of `values`, and for how many only the first order was left.

        Where few shots make the unbiased variance negative, the first-order variance stands in,
        which is larger on average.
        """
        left, right = self.queries.pairs()
        moments = np.empty(len(left))
        for part in self._chunks(len(left), squared=True):
            moments[part] = self._moments(left[part], right[part], 0.0)
        variances = values**2 - self._sum_pairs(left, right, moments)
        # What is left of exact cancellation is rounding, not variance.
        variances[np.abs(variances) < 1e-14 * np.maximum(values**2, 1e-3)] = 0.0
        negative = variances < 0
        if negative.any():
            variances[negative] = self._first_order()[negative]
        return np.sqrt(variances), int(negative.sum())

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

    def _sum_pairs(self, left: IntArray, right: IntArray, numbers: FloatArray) -> FloatArray:
        weights = self.queries.weight[left] * self.queries.weight[right]
        query = self.queries.query[left]
        return np.bincount(query, weights * numbers, self.queries.count).astype(np.float64)

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
        cores = [squared_core(self._at(core, left)) for core in self._cores]
        return self.network.values(leaves + cores, len(left))

    def _first_order(self) -> FloatArray:
        left, right = self.queries.pairs()
        environments = self.environments()
        variances = np.zeros(self.queries.count)
        for number, tensor in enumerate(self.tensors):
            rows, paulis = self.queries.rows[number][left], self.queries.paulis[number]
            covariance = tensor.covariance(rows, paulis[left], paulis[right])
            environment = environments[number]
            forms = quadratic_form(
                environment[left], covariance, environment[right], self._ranks[number]
            )
            variances += self._sum_pairs(left, right, forms)
        return np.maximum(variances, 0.0)

    def _chunks(self, count: int, *, squared: bool) -> list[slice]:
        elements = self.network.elements_per_query(squared=squared)
        size = max(1, int(_CHUNK_BYTES / (8 * elements)))
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
