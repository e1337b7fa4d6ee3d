"""Queries as weighted sums of terms, each an entry to be read off the fragments' tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..cutting import FloatArray, IntArray
from ..subexperiments import Observables


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

    @cached_property
    def num_pairs(self) -> int:
        """Pairs of entries of the same query, each counted once."""
        if self._one_each:
            return self.count
        counts = np.bincount(self.query, minlength=self.count)
        return int(counts @ (counts + 1)) // 2

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
