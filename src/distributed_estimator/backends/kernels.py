"""State vectors in batches: gates, slots and inner products on arrays (rows, branches, 2**n)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ComplexArray = NDArray[np.complex128]


def zero_state(rows: int, num_qubits: int) -> ComplexArray:
    """|0…0> in one branch, shape (rows, 1, 2**num_qubits)."""
    states = np.zeros((rows, 1, 1 << num_qubits), dtype=np.complex128)
    states[:, :, 0] = 1
    return states


def apply_gate(
    states: ComplexArray,
    matrices: ComplexArray,
    nonzero: NDArray[np.bool_],
    qubits: Sequence[int],
) -> ComplexArray:
    """Apply one gate to every branch.

    Args:
        states: Shape (rows, branches, 2**n); qubit q is bit q of the last index.
        matrices: Shape (rows or 1, d, d), in Qiskit's order of `qubits`.
        nonzero: Which matrix elements can differ from zero, shape (d, d).
        qubits: The qubits acted on.
    """
    view = _expose(states, qubits)
    result = np.empty_like(states)
    target = _expose(result, qubits)
    factors = matrices if len(matrices) == 1 else _spread(matrices, view[0].ndim)
    for i in range(len(view)):
        columns = np.flatnonzero(nonzero[i])
        out = target[i]
        np.multiply(view[columns[0]], _element(factors, i, columns[0]), out=out)
        for j in columns[1:]:
            out += view[j] * _element(factors, i, j)
    return result


def apply_branches(states: ComplexArray, operators: ComplexArray, qubit: int) -> ComplexArray:
    """Split every branch into one per operator, shape (rows, branches · operators, 2**n)."""
    rows, branches, dim = states.shape
    result = np.zeros((rows, branches, len(operators), dim), dtype=np.complex128)
    for number, operator in enumerate(operators):
        view = _expose(states, [qubit])
        target = _expose(result[:, :, number], [qubit])
        for i, j in np.argwhere(np.abs(operator) > 0):
            target[i] += operator[i, j] * view[j]
    return result.reshape(rows, -1, dim)


def outcome_grams(states: ComplexArray, order: NDArray[np.intp], outcomes: int) -> ComplexArray:
    """Inner products of branches, outcome by outcome.

    Args:
        states: Shape (rows, branches, 2**n), already in the measured basis.
        order: Basis states sorted by outcome, equally many for each.
        outcomes: Number of outcomes.

    Returns:
        Shape (rows, outcomes, branches, branches); element (i, j) is <psi_j|P_outcome|psi_i>.
    """
    rows, branches, _ = states.shape
    if outcomes > 1:
        states = states[:, :, order]
    parts = states.reshape(rows, branches, outcomes, -1).transpose(0, 2, 1, 3)
    return np.asarray(parts @ parts.conj().swapaxes(-1, -2))


def outcome_order(num_qubits: int, generators: Sequence[Sequence[int]]) -> NDArray[np.intp]:
    """Basis states sorted by the parities of `generators`, shape (2**num_qubits,)."""
    states = np.arange(1 << num_qubits)
    outcome = np.zeros_like(states)
    for bit, qubits in enumerate(generators):
        mask = sum(1 << q for q in qubits)
        outcome |= (np.bitwise_count(states & mask) & 1).astype(states.dtype) << bit
    return np.argsort(outcome, kind="stable")


def _expose(states: ComplexArray, qubits: Sequence[int]) -> list[ComplexArray]:
    """Views of the states for each value of `qubits`, without a copy."""
    rows, branches, dim = states.shape
    width = dim.bit_length() - 1
    shape, axes, previous = [rows, branches], {}, width
    for qubit in sorted(qubits, reverse=True):
        shape += [1 << (previous - qubit - 1), 2]
        axes[qubit] = len(shape) - 1
        previous = qubit
    split = states.reshape(*shape, 1 << previous)
    views = []
    for value in range(1 << len(qubits)):
        index: list[Any] = [slice(None)] * split.ndim
        for bit, qubit in enumerate(qubits):
            index[axes[qubit]] = value >> bit & 1
        views.append(split[tuple(index)])
    return views


def _spread(matrices: ComplexArray, ndim: int) -> ComplexArray:
    return matrices.reshape(*matrices.shape, *[1] * (ndim - 1))


def _element(matrices: ComplexArray, i: int, j: int) -> Any:
    return matrices[0, i, j] if len(matrices) == 1 else matrices[:, i, j]
