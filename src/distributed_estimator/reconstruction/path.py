"""A contraction path, compiled: pairwise products in a fixed order, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod

import numpy as np

from ..cutting import FloatArray


@dataclass(frozen=True)
class Step:
    """Contract tensors `left` and `right`; the result takes the next free number.

    Of the axes of the left one those that are kept come before those that are summed over, of the
    right one the other way round; `num_shared` are summed over.
    """

    left: int
    right: int
    left_axes: tuple[int, ...]
    right_axes: tuple[int, ...]
    num_shared: int

    def run(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """The product, with a batch axis first."""
        kept = len(self.left_axes) - self.num_shared
        shape = [left.shape[1:][a] for a in self.left_axes[:kept]]
        shape += [right.shape[1:][a] for a in self.right_axes[self.num_shared :]]
        one, other = self._matrices(left, right)
        if len(other) == 1 < len(one):
            result = one.reshape(-1, one.shape[2]) @ other[0]
        else:
            result = one @ other
        return np.asarray(result.reshape(max(len(one), len(other)), *shape))

    def back(
        self, left: FloatArray, right: FloatArray, above: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Derivatives by `left` and `right`, given the one by their product."""
        rows, columns = self._matrices(left, right)
        above = above.reshape(len(above), rows.shape[1], columns.shape[2])
        return (
            _restore(above @ columns.swapaxes(1, 2), left.shape[1:], self.left_axes),
            _restore(rows.swapaxes(1, 2) @ above, right.shape[1:], self.right_axes),
        )

    def _matrices(self, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
        left = left.transpose(0, *(a + 1 for a in self.left_axes))
        right = right.transpose(0, *(a + 1 for a in self.right_axes))
        shared = prod(right.shape[1 : 1 + self.num_shared])
        return left.reshape(len(left), -1, shared), right.reshape(len(right), shared, -1)


def _restore(matrix: FloatArray, shape: Sequence[int], axes: Sequence[int]) -> FloatArray:
    moved = matrix.reshape(len(matrix), *(shape[a] for a in axes))
    return moved.transpose(0, *(np.argsort(axes) + 1))


@dataclass(frozen=True)
class Path:
    """Steps from numbered leaves to one tensor. Leaves come first, then results in order.

    Attributes:
        steps: The steps; the last one gives the value.
        sizes: Numbers of every tensor for one query, leaves and results.
    """

    steps: tuple[Step, ...]
    sizes: tuple[int, ...]

    @staticmethod
    def follow(
        indices: Sequence[Sequence[int]], sizes: Mapping[int, int], pairs: Iterable[Sequence[int]]
    ) -> Path:
        """Compile a path.

        Args:
            indices: The indices of every leaf; one that two leaves have is summed over.
            sizes: How many values an index takes.
            pairs: In opt_einsum's linear format: two tensors leave the list by their places in
                it, their product is appended. Entries that name one tensor alone do nothing.
        """
        held = [list(leaf) for leaf in indices]
        alive = list(range(len(indices)))
        steps: list[Step] = []
        for pair in pairs:
            if len(pair) < 2:
                continue
            right, left = (alive.pop(p) for p in sorted(pair, reverse=True))
            shared = [i for i in held[left] if i in held[right]]
            kept = [i for i in held[left] if i not in shared]
            new = [i for i in held[right] if i not in shared]
            steps.append(
                Step(
                    left,
                    right,
                    tuple(held[left].index(i) for i in kept + shared),
                    tuple(held[right].index(i) for i in shared + new),
                    len(shared),
                )
            )
            alive.append(len(held))
            held.append(kept + new)
        return Path(tuple(steps), tuple(prod(sizes[i] for i in tensor) for tensor in held))

    @property
    def num_leaves(self) -> int:
        """Number of leaves."""
        return len(self.sizes) - len(self.steps)

    @property
    def _products(self) -> Iterator[tuple[Step, int, int]]:
        """Each step, the size of its result, and of that and its tensors together."""
        for step, size in zip(self.steps, self.sizes[self.num_leaves :], strict=True):
            yield step, size, self.sizes[step.left] + self.sizes[step.right] + size

    @cached_property
    def products(self) -> int:
        """Multiplications along the path for one query."""
        return sum(self._step_products)

    @cached_property
    def doubled_products(self) -> int:
        """The same where every axis is squared."""
        return sum(products**2 for products in self._step_products)

    @property
    def _step_products(self) -> Iterator[int]:
        sizes = self.sizes
        return (isqrt(sizes[s.left] * sizes[s.right] * size) for s, size, _ in self._products)

    @cached_property
    def users(self) -> tuple[int | None, ...]:
        """Per tensor, the step that takes it; None for the last."""
        result: list[int | None] = [None] * len(self.sizes)
        for number, step in enumerate(self.steps):
            result[step.left] = result[step.right] = number
        return tuple(result)

    @cached_property
    def elements_forth(self) -> int:
        """Numbers `value` holds at most for one query, besides the leaves.

        A product works on copies of its tensors.
        """
        most = held = 0
        for step, size, at_work in self._products:
            most = max(most, held + at_work)
            used = (place for place in (step.left, step.right) if place >= self.num_leaves)
            held += size - sum(self.sizes[place] for place in used)
        return most

    @cached_property
    def elements_back(self) -> int:
        """Numbers `forward` and `backward` hold at most for one query, besides the leaves.

        These are all results, their derivatives and those of the leaves, and a product's copies.
        """
        results = sum(self.sizes[self.num_leaves :])
        return results + sum(self.sizes) + max((most for *_, most in self._products), default=0)

    def value(self, leaves: Sequence[FloatArray]) -> FloatArray:
        """The last tensor, shape (queries,); each one goes when it has been used."""
        held = dict(enumerate(leaves))
        for number, step in enumerate(self.steps, start=self.num_leaves):
            held[number] = step.run(held.pop(step.left), held.pop(step.right))
        return held[len(self.sizes) - 1].reshape(-1)

    def forward(self, leaves: Sequence[FloatArray]) -> list[FloatArray]:
        """All tensors, the value last."""
        tensors = list(leaves)
        for step in self.steps:
            tensors.append(step.run(tensors[step.left], tensors[step.right]))
        return tensors

    def backward(self, tensors: Sequence[FloatArray]) -> list[FloatArray]:
        """Derivative of the value by every leaf, from what `forward` gave."""
        last = len(tensors) - 1
        adjoints = {last: np.ones_like(tensors[last])}
        for place, step in zip(range(last, -1, -1), reversed(self.steps), strict=False):
            left, right = tensors[step.left], tensors[step.right]
            adjoints[step.left], adjoints[step.right] = step.back(left, right, adjoints.pop(place))
        return [adjoints[leaf] for leaf in range(self.num_leaves)]


class Contraction:
    """One pass along a path that runs every step as soon as both of its tensors exist.

    The path is fixed and each step is one product, so the bits of every tensor are those of
    `Path.forward`, in any order of the leaves. With `keep`, every tensor is kept for the way back;
    else one goes when it has been used.
    """

    def __init__(self, path: Path, *, keep: bool) -> None:
        self._path = path
        self._keep = keep
        self._tensors: dict[int, FloatArray] = {}
        self.missing = set(range(path.num_leaves))
        """Leaves that are still to come."""

    def feed(self, leaf: int, tensor: FloatArray) -> None:
        """Take a leaf, with its batch axis first, and run what has become possible.

        Raises:
            ValueError: The leaf has come before.
        """
        if leaf not in self.missing:
            raise ValueError(f"leaf {leaf} has come before: feed every leaf once")
        self.missing.remove(leaf)
        place, held = leaf, self._tensors
        held[leaf] = tensor
        while (number := self._path.users[place]) is not None:
            step = self._path.steps[number]
            if not (step.left in held and step.right in held):
                return
            place = self._path.num_leaves + number
            held[place] = step.run(held[step.left], held[step.right])
            if not self._keep:
                del held[step.left], held[step.right]

    @property
    def value(self) -> FloatArray:
        """The last tensor, shape (queries,). Every leaf must have come."""
        if self.missing:
            raise ValueError(f"leaves {sorted(self.missing)} have not come: feed them first")
        return self._tensors[len(self._path.sizes) - 1].reshape(-1)

    def environments(self) -> list[FloatArray]:
        """Derivative of the value by every leaf. Every leaf must have come, and been kept."""
        if len(self._tensors) < len(self._path.sizes):
            raise ValueError("the way back needs every tensor: give `keep=True`, feed all leaves")
        return self._path.backward([tensor for _, tensor in sorted(self._tensors.items())])
