"""The tensor network of a plan: fragment tensors joined by cores, contracted along one fixed path.

The path depends on the plan alone and is found once. Values are one pass along it, for all queries
of a batch at once; the environments of all fragments and cores are one pass back. A network whose
path takes too much memory is sliced (`slicing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import opt_einsum

from ..cutting import CutPlan, FloatArray
from ..errors import PlanTooLargeError, short
from .path import Path
from .slicing import MOST_SLICES, SlicedNetwork, find_slicing

_EXHAUSTIVE = 8
"""Networks of up to this many tensors get the best path there is, larger ones a greedy one."""

_LARGEST_TENSOR = 1 << 60
"""Elements of a tensor that no memory holds: such a plan is refused, and no path is looked for."""

_LARGEST_SLICE = 1 << 27
"""Elements a slice may take where there is memory for more: a bound that all machines share lets
them cut the same slices, and so get the same bits."""


class Network:
    """Contracts fragment tensors and cores of one plan.

    Leaves are numbered fragments first, cores after them. A leaf has a batch axis of the number
    of queries or of one, then an axis per slot (fragments) or per side (cores). The doubled
    network, for standard errors, has the same leaves with every axis squared.
    """

    def __init__(self, plan: CutPlan) -> None:
        indices: list[list[int]] = [[0] * len(f.slots) for f in plan.fragments]
        sizes: dict[int, int] = {}
        for number, cut in enumerate(plan.cuts):
            for side, (fragment, slot) in enumerate(cut.ends):
                indices[fragment][slot] = 2 * number + side
                sizes[2 * number + side] = cut.rank[side]
            indices.append([2 * number, 2 * number + 1])
        self._indices, self._sizes = indices, sizes
        self._leaf_sizes = [prod(sizes[i] for i in leaf) for leaf in indices]
        self._sliced: dict[tuple[int, bool, bool], SlicedNetwork | None] = {}
        self._pairs: list[Sequence[int]] = []
        if indices and max(self._leaf_sizes) <= _LARGEST_TENSOR:
            self._pairs = _find_path(indices, sizes)
        self.path = Path.follow(indices, sizes, self._pairs)

    def elements_per_query(self, *, squared: bool) -> int:
        """Numbers held at once per query, also of the doubled network for standard errors."""
        return sum(size**2 if squared else size for size in self.path.sizes or (1,))

    def values(self, leaves: Sequence[FloatArray], queries: int) -> FloatArray:
        """Contract the network, shape (queries,); one where there are no leaves."""
        return self.path.forward(leaves)[-1].reshape(-1) if leaves else np.ones(queries)

    def environments(self, leaves: Sequence[FloatArray]) -> list[FloatArray]:
        """Derivative of every query's value by every leaf, each with the queries' batch axis."""
        return self.path.backward(self.path.forward(leaves)) if leaves else []

    def sliced(
        self, most_elements: int | None, *, squared: bool, derivatives: bool = False
    ) -> SlicedNetwork | None:
        """The network in slices that fit, or None where it fits whole.

        Deterministic, and found once per size of slices, which goes in powers of two.

        Args:
            most_elements: Numbers that may be held at once per query; None: any.
            squared: Whether the doubled network is meant.
            derivatives: Whether environments are wanted, which take more memory than values.

        Raises:
            PlanTooLargeError: The leaves alone take more, or slices would be too many.
        """
        if most_elements is None:
            return None
        leaves = self._leaf_elements(squared=squared)
        needed = self.elements_per_query(squared=squared)
        if derivatives:
            needed = leaves + self.path.elements_back
        if needed <= most_elements:
            return None
        spare = most_elements - leaves
        if spare < 1:
            raise PlanTooLargeError(
                f"the contraction starts from {short(leaves)} numbers a query and may hold "
                f"{short(most_elements)}: slices do not help, so cut fewer gates of the "
                "fragments that have most"
            )
        size = min(1 << (spare.bit_length() - 1), _LARGEST_SLICE)
        key = size, squared, derivatives
        if key not in self._sliced:
            self._sliced[key] = self._search(*key)
        found = self._sliced[key]
        if found is None:
            raise PlanTooLargeError(
                f"the contraction holds {short(needed)} numbers a query and may hold "
                f"{short(most_elements)}, for which it would be cut into more than "
                f"{MOST_SLICES} slices: cut fewer gates"
            )
        return found

    def _search(self, most_elements: int, squared: bool, derivatives: bool) -> SlicedNetwork | None:
        sizes = {i: n * n if squared else n for i, n in self._sizes.items()}
        leaves = self._leaf_elements(squared=squared)

        def held(path: Path) -> int:
            # Derivatives are as large as the leaves: those of a task, and those added up.
            return path.elements_back + 2 * leaves if derivatives else path.elements_forth

        return find_slicing(self._indices, sizes, self._pairs, held, most_elements)

    def _leaf_elements(self, *, squared: bool) -> int:
        return sum(size**2 if squared else size for size in self._leaf_sizes)


def _find_path(indices: Sequence[Sequence[int]], sizes: Mapping[int, int]) -> list[Sequence[int]]:
    terms = ["".join(opt_einsum.get_symbol(i) for i in leaf) for leaf in indices]
    shapes = [tuple(sizes[i] for i in leaf) for leaf in indices]
    method = "optimal" if len(terms) <= _EXHAUSTIVE else "greedy"
    path, _ = opt_einsum.contract_path(
        ",".join(terms) + "->", *shapes, shapes=True, optimize=method
    )
    return list(path)
