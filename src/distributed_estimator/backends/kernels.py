"""State vectors in batches: gates, slots and inner products on arrays (branches, 2**n, rows).

Rows come last, so that every operation runs over contiguous memory however small the fragment.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cutting import ComplexArray, IntArray

_SMALL = 1 << 10
"""Amplitudes up to which one call that multiplies zeros too is faster than several without."""


def product_state(columns: Sequence[ComplexArray], rows: int) -> ComplexArray:
    """A product of one-qubit states in one branch, shape (1, 2**num_qubits, rows).

    The columns are the states of the qubits, shape (2, rows or 1).
    """
    total = np.ones((1, 1), dtype=np.complex128)
    for column in reversed(columns):
        product = total[:, None] * column
        total = product.reshape(-1, product.shape[-1])
    return (total if total.shape[1] == rows else np.repeat(total, rows, axis=1))[None]


def apply_gate(
    states: NDArray[Any],
    matrices: NDArray[Any],
    nonzero: Sequence[Sequence[int]],
    qubits: Sequence[int],
) -> NDArray[Any]:
    """Apply one gate to every branch.

    Args:
        states: Shape (branches, 2**n, rows); qubit q is bit q of the middle index.
        matrices: Shape (d, d, rows or 1), in Qiskit's order of `qubits`.
        nonzero: Per matrix row, the columns that can differ from zero.
        qubits: The qubits acted on.
    """
    if len(qubits) == 1 and states.size <= _SMALL:
        split = states.reshape(len(states), -1, 2, 1 << qubits[0], states.shape[2])
        return np.asarray(np.einsum("ijr,bajcr->baicr", matrices, split)).reshape(states.shape)
    views = _expose(states, qubits)
    result = np.empty_like(states)
    product = np.empty_like(views[0]) if max(map(len, nonzero)) > 1 else None
    for i, target in enumerate(_expose(result, qubits)):
        first, *rest = nonzero[i]
        # 1 in all rows, as most elements of a CX are.
        if not rest and matrices.shape[2] == 1 and matrices[i, first, 0] == 1:
            np.copyto(target, views[first])
            continue
        np.multiply(views[first], matrices[i, first], out=target)
        for j in rest:
            np.multiply(views[j], matrices[i, j], out=product)
            target += product
    return result


def apply_real_gate(
    states: ComplexArray,
    matrices: ComplexArray,
    nonzero: Sequence[Sequence[int]],
    qubits: Sequence[int],
) -> ComplexArray:
    """As `apply_gate`, for matrices without imaginary parts: a third of the arithmetic."""
    if states.size <= _SMALL:
        return apply_gate(states, matrices, nonzero, qubits)
    factors = matrices.real
    if factors.shape[2] > 1:
        factors = np.repeat(factors, 2, axis=2)  # of the real and of the imaginary part
    return apply_gate(states.view(np.float64), factors, nonzero, qubits).view(np.complex128)


def apply_branches(states: ComplexArray, operators: ComplexArray, qubit: int) -> ComplexArray:
    """Split every branch into one per operator, shape (branches · operators, 2**n, rows)."""
    branches, dim, rows = states.shape
    split = states.reshape(branches, -1, 2, 1 << qubit, rows)
    if states.size <= _SMALL:
        return np.asarray(np.einsum("kij,bajcr->bkaicr", operators, split)).reshape(-1, dim, rows)
    shape = branches, len(operators), dim >> qubit + 1, 2, 1 << qubit, rows
    result = np.zeros(shape, dtype=np.complex128)
    for number, operator in enumerate(operators.tolist()):
        for i in range(2):
            for j in range(2):
                if operator[i][j]:
                    result[:, number, :, i] += operator[i][j] * split[:, :, j]
    return result.reshape(-1, dim, rows)


def outcome_grams(states: ComplexArray, generators: tuple[tuple[int, ...], ...]) -> ComplexArray:
    """Inner products of branches, outcome by outcome.

    Args:
        states: Shape (branches, 2**n, rows), already in the measured basis.
        generators: Qubits whose parities make up an outcome.

    Returns:
        Shape (rows, outcomes, branches, branches); element (i, j) is <psi_j|P_outcome|psi_i>.
    """
    branches, dim, rows = states.shape
    order = None
    if generators:
        find = _kept_outcome_order if dim <= _SMALL_ORDER else _outcome_order
        order = find(dim.bit_length() - 1, generators)
    if branches == 1:  # probabilities alone
        chances = states[0].real ** 2 + states[0].imag ** 2
        chances = chances if order is None else chances[order]
        summed = chances.reshape(1 << len(generators), -1, rows).sum(axis=1)
        return np.asarray(summed.T, dtype=np.complex128)[:, :, None, None]
    if order is not None:
        states = states[:, order]
    parts = states.reshape(branches, 1 << len(generators), -1, rows).transpose(3, 1, 0, 2)
    parts = np.ascontiguousarray(parts)
    return np.asarray(parts @ parts.conj().swapaxes(-1, -2))


def _outcome_order(num_qubits: int, generators: tuple[tuple[int, ...], ...]) -> IntArray:
    """Basis states sorted by their outcome, equally many for each."""
    states = np.arange(1 << num_qubits)
    outcome = np.zeros_like(states)
    for bit, qubits in enumerate(generators):
        mask = sum(1 << q for q in qubits)
        outcome |= (np.bitwise_count(states & mask) & 1).astype(states.dtype) << bit
    return np.argsort(outcome, kind="stable")


_SMALL_ORDER = 1 << 14
_kept_outcome_order = lru_cache(maxsize=256)(_outcome_order)


def _expose(states: NDArray[Any], qubits: Sequence[int]) -> list[NDArray[Any]]:
    """Views of the states for each value of `qubits`, without a copy."""
    branches, dim, rows = states.shape
    shape, indices = _layout(dim, tuple(qubits))
    split = states.reshape(branches, *shape, rows)
    return [split[index] for index in indices]


@lru_cache(maxsize=1024)
def _layout(dim: int, qubits: tuple[int, ...]) -> tuple[list[int], list[tuple[Any, ...]]]:
    """How to split an axis of length `dim` so that each of `qubits` has an axis of its own."""
    shape, axes, above = [], {}, dim
    for qubit in sorted(qubits, reverse=True):
        shape += [above >> qubit + 1, 2]
        axes[qubit] = len(shape)
        above = 1 << qubit
    shape.append(above)
    indices = []
    for value in range(1 << len(qubits)):
        index: list[Any] = [slice(None)] * (len(shape) + 2)
        for bit, qubit in enumerate(qubits):
            index[axes[qubit]] = value >> bit & 1
        indices.append(tuple(index))
    return shape, indices
