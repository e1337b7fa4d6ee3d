"""Standard errors of values that are products of independently estimated tensors.

With estimates F of independent fragments, y = <cores, F_1 (x) … (x) F_n> has
E[y²] contracted from second moments E[F F^T] = f f^T + S. An unbiased estimate of f f^T is
F F^T − S, so y² minus the network contracted from these is an unbiased estimate of Var(y):
the first-order error less what it counts twice, to all orders.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def squared_core(core: FloatArray) -> FloatArray:
    """The core of the doubled network, shape (rows, r, s) -> (rows, r², s²)."""
    rows, r, s = core.shape
    doubled = core[:, :, None, :, None] * core[:, None, :, None, :]
    return np.asarray(doubled.reshape(rows, r * r, s * s))


def outer_product(left: FloatArray, right: FloatArray, ranks: Sequence[int]) -> FloatArray:
    """F F'^T slot by slot, (queries, product of ranks) twice -> (queries, ranks²…)."""
    first = left.reshape(len(left), *(x for r in ranks for x in (r, 1)))
    second = right.reshape(len(right), *(x for r in ranks for x in (1, r)))
    return np.asarray((first * second).reshape(len(left), *(r * r for r in ranks)))


def quadratic_form(
    left: FloatArray, covariance: FloatArray, right: FloatArray, ranks: Sequence[int]
) -> FloatArray:
    """e^T S e' per query, with S in the slot-by-slot order of `outer_product`."""
    doubled = outer_product(left.reshape(len(left), -1), right.reshape(len(right), -1), ranks)
    return np.asarray((doubled.reshape(len(left), -1) * covariance).sum(axis=1))
