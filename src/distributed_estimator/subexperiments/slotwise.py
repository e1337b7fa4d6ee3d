"""One small matrix per slot, applied along the slot axes of a fragment tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_BLOCK = 256


class SlotwiseMap:
    """The Kronecker product of one matrix per slot, never formed as a whole where it is large.

    Args:
        matrices: One (out, in) matrix per slot, in slot order.
    """

    def __init__(self, matrices: Sequence[NDArray[Any]]) -> None:
        self.blocks: list[NDArray[Any]] = []
        for matrix in matrices:
            if self.blocks and self.blocks[-1].shape[1] * matrix.shape[1] <= _LARGEST_BLOCK:
                self.blocks[-1] = np.kron(self.blocks[-1], matrix)
            else:
                self.blocks.append(matrix)

    def __call__(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Map (batch, product of ins) to (batch, product of outs)."""
        batch = len(tensor)
        before, after = 1, reduce(lambda size, b: size * b.shape[1], self.blocks, 1)
        for block in self.blocks:
            after //= block.shape[1]
            if before == after == 1:
                tensor = tensor.reshape(batch, -1) @ block.T
            else:
                tensor = block @ tensor.reshape(batch * before, block.shape[1], after)
            before *= block.shape[0]
        return tensor.reshape(batch, before)
