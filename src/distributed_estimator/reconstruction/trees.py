"""The search for a contraction path, and for indices to slice, under a bound on memory.

Everything random in it is seeded, it runs in one process, and indices are integers, whose order in
hash tables is the same in every process: so the result is a function of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

from .path import Path

MOST_SLICES = 1 << 20
"""Slices that a network may be cut into."""

_SEED = 0
_GREEDY_TRIALS = 64
_SLICING_TRIALS = 16
_MOST_SUBTREES = 32
"""Parts of a tree to mend after a slice, the most expensive ones first."""

_MINIMIZE = "combo"
"""Arithmetic and memory traffic, weighed against each other as cotengra proposes."""


@dataclass(frozen=True)
class Slicing:
    """A path for a network some of whose indices are fixed.

    Attributes:
        sliced: The indices, ascending.
        path: The steps of one slice; sizes are those of one slice too.
    """

    sliced: tuple[int, ...]
    path: Path


def find_slicing(
    indices: Sequence[Sequence[int]],
    sizes: Mapping[int, int],
    pairs: Sequence[Sequence[int]],
    elements: Callable[[Path], int],
    most_elements: int,
) -> Slicing | None:
    """The cheapest slicing found, or None where `MOST_SLICES` slices are not enough.

    Args:
        indices: The indices of every leaf.
        sizes: How many values each index takes.
        pairs: A path to begin with, in opt_einsum's linear format.
        elements: Numbers that are held at once along the path of a slice.
        most_elements: How many there may be.
    """
    best: tuple[int, Slicing] | None = None
    for tree in _trees(indices, sizes, pairs):
        slicing = _slice(tree, indices, sizes, elements, most_elements)
        if slicing is not None and (best is None or tree.total_flops() < best[0]):
            best = tree.total_flops(), slicing
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
) -> Slicing | None:
    """Slice some indices and mend the tree around them, until a slice fits.

    Fixing an index that takes n values makes slices smaller by n at most, so it shows early when
    there would be too many.
    """
    while True:
        _reconfigure(tree)
        kept = [[i for i in leaf if i not in tree.sliced_inds] for leaf in indices]
        path = Path.follow(kept, sizes, tree.get_path())
        too_large = -(-elements(path) // most_elements)
        if tree.nslices * too_large > MOST_SLICES:
            return None
        if too_large <= 1:
            return Slicing(tuple(sorted(tree.sliced_inds)), path)
        if not any(kept):
            return None
        tree.slice_(
            target_slices=max(2, isqrt(too_large)),
            minimize=_MINIMIZE,
            max_repeats=_SLICING_TRIALS,
            seed=_SEED,
        )


def _reconfigure(tree: Any) -> None:
    import cotengra

    optimal = cotengra.OptimalOptimizer(minimize=_MINIMIZE, accel=False)
    tree.subtree_reconfigure_(
        minimize=_MINIMIZE, optimize=optimal, maxiter=_MOST_SUBTREES, seed=_SEED
    )
