"""Networks too large to contract at once: some indices are fixed, and the slices summed.

Each slice is a small network of its own, so slices run anywhere and in any order. Their values are
added in a balanced binary tree whose shape depends on their number alone, so the bits of the sum
depend neither on where a slice ran nor on how many of them made a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isqrt, prod
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np

from ..cutting import FloatArray
from ..subexperiments import Arrays, Expected, check_arrays
from .path import Path

MOST_SLICES = 1 << 20
"""Slices that a network may be cut into."""

SECONDS_PER_PRODUCT = 3e-10
_SECONDS_PER_STEP = 2e-5
_MOST_TASKS = 64
_LEAST_WORK = 1 << 22
"""Numbers a task should pass through at least, for its dispatch to cost little beside it."""

_SEED = 0
_GREEDY_TRIALS = 64
_SLICING_TRIALS = 16
_MOST_SUBTREES = 32
"""Parts of a tree to mend after a slice, the most expensive ones first."""

_MINIMIZE = "combo"
"""Arithmetic and memory traffic, weighed against each other as cotengra proposes."""


@dataclass(frozen=True, eq=False)
class SliceWork:
    """The slices of one contraction, as tasks for a pool. Task t is the t-th run of slices.

    With `derivatives`, those by the leaves are wanted instead of values. `key` names it among all
    works.
    """

    network: SlicedNetwork
    leaves: Arrays
    derivatives: bool
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def elements(self) -> int:
        """Numbers that a task holds at once, besides the leaves."""
        return self._queries * self.network.slice_elements

    @property
    def seconds(self) -> float:
        """About how long a task takes."""
        path = self.network.path
        products = self._queries * path.products * SECONDS_PER_PRODUCT
        return self.network.slices_per_task * (products + len(path.steps) * _SECONDS_PER_STEP)

    @property
    def _queries(self) -> int:
        return max(len(leaf) for leaf in self.leaves)

    def run(self, task: int) -> Arrays:
        """Sums over its slices: an array of shape (queries,), or derivatives shaped as leaves."""
        slices = self._slices(task)
        if self.derivatives:
            return self.network.sum_environments(self.leaves, slices)
        return (self.network.sum_values(self.leaves, slices),)

    def check(self, task: int, arrays: Sequence[object]) -> str | None:
        """Why arrays cannot be the result of a task, in one clause; None where they can."""
        queries, expected = self._queries, [Expected("values", (self._queries,))]
        if self.derivatives:
            expected = [
                Expected(f"derivatives by leaf {number}", (queries, *leaf.shape[1:]))
                for number, leaf in enumerate(self.leaves)
            ]
        return check_arrays(arrays, expected)

    def describe(self, task: int) -> str:
        """A task for people."""
        slices = self._slices(task)
        return f"slices {slices[0]} to {slices[-1]} of {self.network.num_slices}"

    def _slices(self, task: int) -> range:
        first = task * self.network.slices_per_task
        return range(first, min(first + self.network.slices_per_task, self.network.num_slices))


RunSlices: TypeAlias = Callable[[SliceWork, Sequence[int]], Iterable[Arrays]]
"""Runs tasks of a work; gives their results in the order of the tasks."""


def run_here(work: SliceWork, tasks: Sequence[int]) -> Iterator[Arrays]:
    """Run tasks one after the other in this thread."""
    return map(work.run, tasks)


def reduce_tree(parts: Iterable[FloatArray]) -> FloatArray:
    """Sum of arrays, each added to its neighbour, the sums to theirs, and so on.

    With parts that are such sums over 2^k neighbours each, it has the bits of the sum over all.

    Example:
        >>> float(reduce_tree([np.float64(x) for x in (1, 2, 3, 4, 5)]))
        15.0
    """
    level = list(parts)
    while len(level) > 1:
        pairs = [a + b for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]


class SlicedNetwork:
    """A network with some indices fixed; its value is the sum over their values.

    Args:
        indices: The indices of every leaf.
        sizes: How many values each index takes.
        sliced: The indices that are fixed, ascending.
        path: The steps of one slice; its sizes are those of one slice too.
        slice_elements: Numbers that a slice holds at once per query, besides the leaves.
    """

    def __init__(
        self,
        indices: Sequence[Sequence[int]],
        sizes: Mapping[int, int],
        sliced: Sequence[int],
        path: Path,
        slice_elements: int,
    ) -> None:
        self.path, self.slice_elements = path, slice_elements
        self.leaf_sizes = [prod(sizes[i] for i in leaf) for leaf in indices]
        self.ranges = tuple(sizes[i] for i in sliced)
        # Per leaf, (axis, number of the sliced index), where axis 0 is the queries'.
        self.places = [
            [(axis, sliced.index(i)) for axis, i in enumerate(leaf, start=1) if i in sliced]
            for leaf in indices
        ]

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return prod(self.ranges)

    @property
    def elements_per_query(self) -> int:
        """Numbers held at once per query: the leaves and one slice."""
        return sum(self.leaf_sizes) + self.slice_elements

    @property
    def slices_per_task(self) -> int:
        """Slices that make a task, a power of two so that tasks are subtrees of the sum."""
        most = ceil(self.num_slices / _MOST_TASKS)
        enough = ceil(_LEAST_WORK / self.slice_elements)
        return 1 << (min(max(most, enough), self.num_slices) - 1).bit_length()

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return ceil(self.num_slices / self.slices_per_task)

    def values(self, leaves: Sequence[FloatArray], run: RunSlices = run_here) -> FloatArray:
        """Contract the network, shape (queries,)."""
        work = self._work(leaves, derivatives=False)
        return reduce_tree(values for (values,) in run(work, range(self.num_tasks)))

    def environments(
        self, leaves: Sequence[FloatArray], run: RunSlices = run_here
    ) -> list[FloatArray]:
        """Derivative of every query's value by every leaf, each with the queries' batch axis.

        A result is as large as all leaves, so no more tasks are handed out at a time than results
        take the place of a slice; they are added in the order of the tasks.
        """
        work = self._work(leaves, derivatives=True)
        wave = max(1, self.slice_elements // sum(self.leaf_sizes))
        totals = self._zeros(leaves)
        for start in range(0, self.num_tasks, wave):
            for arrays in run(work, range(start, min(start + wave, self.num_tasks))):
                for total, part in zip(totals, arrays, strict=True):
                    total += part
        return totals

    def sum_values(self, leaves: Sequence[FloatArray], slices: Iterable[int]) -> FloatArray:
        """Sum of the values of some slices, shape (queries,)."""
        return reduce_tree(self.path.value(self._parts(leaves, number)) for number in slices)

    def sum_environments(self, leaves: Sequence[FloatArray], slices: Iterable[int]) -> Arrays:
        """Sums of the environments of some slices, each where its leaves were taken from."""
        totals = self._zeros(leaves)
        for number in slices:
            parts = self.path.backward(self.path.forward(self._parts(leaves, number)))
            for total, part, place in zip(totals, parts, self._where(number), strict=True):
                total[place] += part
        return tuple(totals)

    @staticmethod
    def _zeros(leaves: Sequence[FloatArray]) -> list[FloatArray]:
        queries = max(len(leaf) for leaf in leaves)
        return [np.zeros((queries, *leaf.shape[1:])) for leaf in leaves]

    def _work(self, leaves: Sequence[FloatArray], *, derivatives: bool) -> SliceWork:
        # A leaf that travels arrives in this order, and products are to see the same everywhere.
        return SliceWork(self, tuple(map(np.ascontiguousarray, leaves)), derivatives)

    def _parts(self, leaves: Sequence[FloatArray], number: int) -> list[FloatArray]:
        return [leaf[place] for leaf, place in zip(leaves, self._where(number), strict=True)]

    def _where(self, number: int) -> Iterator[tuple[slice | int, ...]]:
        """Per leaf, the part of it that belongs to a slice."""
        digits = np.unravel_index(number, self.ranges) if self.ranges else ()
        for places in self.places:
            where: list[slice | int] = [slice(None)] * (1 + max(places, default=(0, 0))[0])
            for axis, index in places:
                where[axis] = int(digits[index])
            yield tuple(where)


# --- the search -----------------------------------------------------------------------------------
# Everything random in it is seeded, it runs in one process, and indices are integers, whose order
# in hash tables is the same in every process: so the result is a function of the arguments.


def find_slicing(
    indices: Sequence[Sequence[int]],
    sizes: Mapping[int, int],
    pairs: Sequence[Sequence[int]],
    elements: Callable[[Path], int],
    most_elements: int,
) -> SlicedNetwork | None:
    """The network in the cheapest slices found, or None where `MOST_SLICES` slices are not enough.

    Args:
        indices: The indices of every leaf.
        sizes: How many values each index takes.
        pairs: A path to begin with, in opt_einsum's linear format.
        elements: Numbers that are held at once along the path of a slice.
        most_elements: How many there may be.
    """
    best: tuple[int, SlicedNetwork] | None = None
    for tree in _trees(indices, sizes, pairs):
        path = _slice(tree, indices, sizes, elements, most_elements)
        if path is not None and (best is None or tree.total_flops() < best[0]):
            sliced = sorted(tree.sliced_inds)
            network = SlicedNetwork(indices, sizes, sliced, path, elements(path))
            best = tree.total_flops(), network
    return None if best is None else best[1]


def _trees(
    indices: Sequence[Sequence[int]], sizes: Mapping[int, int], pairs: Sequence[Sequence[int]]
) -> Iterator[Any]:
    """Contraction trees to slice: along the path given, and along cotengra's best greedy one."""
    import cotengra  # a fifth of a second, which only networks that are sliced need

    network = [tuple(leaf) for leaf in indices], (), dict(sizes)
    yield cotengra.ContractionTree.from_path(*network, path=[p for p in pairs if len(p) > 1])
    greedy = cotengra.RandomGreedyOptimizer(
        max_repeats=_GREEDY_TRIALS, seed=_SEED, accel=False, parallel=False
    )
    yield greedy.search(*network)


def _slice(
    tree: Any,
    indices: Sequence[Sequence[int]],
    sizes: Mapping[int, int],
    elements: Callable[[Path], int],
    most_elements: int,
) -> Path | None:
    """Slice some indices and mend the tree around them, until a slice fits; gives its path.

    Fixing an index that takes n values makes slices smaller by n at most, so it shows early when
    there would be too many.
    """
    import cotengra

    optimal = cotengra.OptimalOptimizer(minimize=_MINIMIZE, accel=False)
    mend = {"minimize": _MINIMIZE, "optimize": optimal, "maxiter": _MOST_SUBTREES, "seed": _SEED}
    while True:
        tree.subtree_reconfigure_(**mend)
        kept = [[i for i in leaf if i not in tree.sliced_inds] for leaf in indices]
        path = Path.follow(kept, sizes, tree.get_path())
        too_large = -(-elements(path) // most_elements)
        if tree.nslices * too_large > MOST_SLICES:
            return None
        if too_large <= 1:
            return path
        if not any(kept):
            return None
        tree.slice_(
            target_slices=max(2, isqrt(too_large)),
            minimize=_MINIMIZE,
            max_repeats=_SLICING_TRIALS,
            seed=_SEED,
        )
