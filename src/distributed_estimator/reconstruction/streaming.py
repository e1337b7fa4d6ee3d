"""A contraction whose leaves come one by one, in any order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .path import Path

FloatArray = NDArray[np.float64]


class Contraction:
    """One pass along a path that runs every step as soon as both of its tensors exist.

    The path is fixed and each step is one product, so the bits of every tensor are those of
    `Path.forward`, in whatever order leaves come.

    Args:
        path: The path.
        keep: Whether to keep every tensor, for the way back; else one goes when it has been used.
    """

    def __init__(self, path: Path, *, keep: bool) -> None:
        self._path = path
        self._keep = keep
        self._tensors: list[FloatArray | None] = [None] * len(path.sizes)
        self._fed = [False] * path.num_leaves

    def missing(self, leaf: int) -> bool:
        """Whether a leaf is still to come."""
        return not self._fed[leaf]

    def feed(self, leaf: int, tensor: FloatArray) -> None:
        """Take a leaf, with its batch axis first, and run what has become possible.

        Raises:
            ValueError: The leaf has come before.
        """
        if self._fed[leaf]:
            raise ValueError(f"leaf {leaf} has come before: feed every leaf once")
        self._fed[leaf] = True
        place, self._tensors[leaf] = leaf, tensor
        while (number := self._path.users[place]) is not None:
            step = self._path.steps[number]
            left, right = self._tensors[step.left], self._tensors[step.right]
            if left is None or right is None:
                return
            place = self._path.num_leaves + number
            self._tensors[place] = step.run(left, right)
            if not self._keep:
                self._tensors[step.left] = self._tensors[step.right] = None

    @property
    def value(self) -> FloatArray:
        """The last tensor, shape (queries,). Every leaf must have come."""
        last = self._tensors[-1]
        if last is None:
            waiting = [leaf for leaf, fed in enumerate(self._fed) if not fed]
            raise ValueError(f"leaves {waiting} have not come: feed them first")
        return last.reshape(-1)

    def environments(self) -> list[FloatArray]:
        """Derivative of the value by every leaf. Every leaf must have come, and been kept."""
        tensors = [t for t in self._tensors if t is not None]
        if len(tensors) < len(self._tensors):
            raise ValueError("the way back needs every tensor: give `keep=True`, feed all leaves")
        return self._path.backward(tensors)
