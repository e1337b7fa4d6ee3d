"""The tensor network of a plan: fragment tensors joined by cores, contracted along one fixed path.

The path depends on the plan alone and is found once. Values are one pass along it, for all queries
of a batch at once; the environments of all fragments and cores are one pass back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import opt_einsum
from numpy.typing import NDArray

from ..cutting import CutPlan

FloatArray = NDArray[np.float64]

_EXHAUSTIVE = 8
"""Networks of up to this many tensors get the best path there is, larger ones a greedy one."""

_LARGEST_TENSOR = 1 << 60
"""Elements of a tensor that no memory holds: such a plan is refused, and no path is looked for."""


@dataclass(frozen=True)
class _Step:
    """Contract tensors `left` and `right`; the result takes the next free number."""

    left: int
    right: int
    left_axes: tuple[int, ...]
    right_axes: tuple[int, ...]
    num_shared: int


class Network:
    """Contracts fragment tensors and cores of one plan.

    Leaves are numbered fragments first, cores after them. A leaf has a batch axis of the number
    of queries or of one, then an axis per slot (fragments) or per side (cores).
    """

    def __init__(self, plan: CutPlan) -> None:
        self.num_leaves = len(plan.fragments) + len(plan.cuts)
        indices: list[list[int]] = [[0] * len(f.slots) for f in plan.fragments]
        sizes: dict[int, int] = {}
        for number, cut in enumerate(plan.cuts):
            for side, (fragment, slot) in enumerate(cut.ends):
                indices[fragment][slot] = 2 * number + side
                sizes[2 * number + side] = cut.rank[side]
            indices.append([2 * number, 2 * number + 1])
        self._leaf_indices = indices
        self._held = [prod(sizes[i] for i in leaf) for leaf in indices]
        self._steps: tuple[_Step, ...] = ()
        if max(self._held, default=0) <= _LARGEST_TENSOR:
            self._steps, self._held = _compile(indices, sizes)

    def elements_per_query(self, *, squared: bool) -> int:
        """Numbers held at once per query, also of the doubled network for standard errors."""
        return sum(size**2 if squared else size for size in self._held)

    def values(self, leaves: Sequence[FloatArray], queries: int) -> FloatArray:
        """Contract the network, shape (queries,); one where there are no leaves."""
        return self._forward(leaves)[-1].reshape(-1) if leaves else np.ones(queries)

    def environments(self, leaves: Sequence[FloatArray]) -> list[FloatArray]:
        """Derivative of every query's value by every leaf, each with the queries' batch axis."""
        if not leaves:
            return []
        tensors = self._forward(leaves)
        adjoints: list[FloatArray | None] = [None] * len(tensors)
        adjoints[-1] = np.ones_like(tensors[-1])
        for number in reversed(range(len(self._steps))):
            step = self._steps[number]
            above = adjoints[self.num_leaves + number]
            assert above is not None
            left, right = _matrices(tensors, step)
            above = above.reshape(len(above), left.shape[1], right.shape[2])
            for place, axes, adjoint in (
                (step.left, step.left_axes, above @ right.swapaxes(1, 2)),
                (step.right, step.right_axes, left.swapaxes(1, 2) @ above),
            ):
                shape = tensors[place].shape[1:]
                moved = adjoint.reshape(len(adjoint), *(shape[a] for a in axes))
                back = np.argsort(axes) + 1
                adjoints[place] = moved.transpose(0, *back)
        return [a for a in adjoints[: self.num_leaves] if a is not None]

    def _forward(self, leaves: Sequence[FloatArray]) -> list[FloatArray]:
        tensors = list(leaves)
        for step in self._steps:
            left, right = _matrices(tensors, step)
            result = _multiply(left, right)
            shape = _result_shape(tensors, step)
            tensors.append(result.reshape(len(result), *shape))
        return tensors


def _matrices(tensors: Sequence[FloatArray], step: _Step) -> tuple[FloatArray, FloatArray]:
    left, right = tensors[step.left], tensors[step.right]
    left = left.transpose(0, *(a + 1 for a in step.left_axes))
    right = right.transpose(0, *(a + 1 for a in step.right_axes))
    shared = prod(right.shape[1 : 1 + step.num_shared])
    return left.reshape(len(left), -1, shared), right.reshape(len(right), shared, -1)


def _multiply(left: FloatArray, right: FloatArray) -> FloatArray:
    if len(right) == 1 < len(left):
        flat = left.reshape(-1, left.shape[2]) @ right[0]
        return np.asarray(flat.reshape(len(left), left.shape[1], -1))
    return np.asarray(left @ right)


def _result_shape(tensors: Sequence[FloatArray], step: _Step) -> list[int]:
    left, right = tensors[step.left].shape[1:], tensors[step.right].shape[1:]
    kept = len(step.left_axes) - step.num_shared
    return [left[a] for a in step.left_axes[:kept]] + [
        right[a] for a in step.right_axes[step.num_shared :]
    ]


def _compile(
    indices: Sequence[Sequence[int]], sizes: dict[int, int]
) -> tuple[tuple[_Step, ...], list[int]]:
    """Steps along the path, and the size of every tensor on it."""
    if not indices:
        return (), [1]
    terms = ["".join(opt_einsum.get_symbol(i) for i in leaf) for leaf in indices]
    shapes = [tuple(sizes[i] for i in leaf) for leaf in indices]
    method = "optimal" if len(terms) <= _EXHAUSTIVE else "greedy"
    path, _ = opt_einsum.contract_path(
        ",".join(terms) + "->", *shapes, shapes=True, optimize=method
    )
    held = [list(leaf) for leaf in indices]
    alive = list(range(len(indices)))
    steps: list[_Step] = []
    for pair in path:
        if len(pair) < 2:
            continue
        right, left = (alive.pop(p) for p in sorted(pair, reverse=True))
        shared = [i for i in held[left] if i in held[right]]
        kept = [i for i in held[left] if i not in shared]
        new = [i for i in held[right] if i not in shared]
        steps.append(
            _Step(
                left,
                right,
                tuple(held[left].index(i) for i in kept + shared),
                tuple(held[right].index(i) for i in shared + new),
                len(shared),
            )
        )
        alive.append(len(held))
        held.append(kept + new)
    return tuple(steps), [prod(sizes[i] for i in tensor) for tensor in held]
