"""Probabilities of the outcomes of some qubits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

from .checks import from_numpy, is_whole
from .cutting import FloatArray
from .errors import InputError
from .pubs import Batch, read_values
from .records import QueryRecord
from .subexperiments import Outcomes
from .views import Shown, with_error

MOST_QUBITS = 12
"""Their outcomes are 2 to that power."""
_MOST_SHOWN = 16


@dataclass(frozen=True, eq=False, repr=False)
class Probabilities(Shown):
    """Estimated probabilities of the outcomes of some qubits.

    Attributes:
        qubits: The qubits; bit b of an outcome's number is that of `qubits[b]`, as in Qiskit.
        values: Unbiased estimates, shape (*bindings, 2**number of qubits). Each scatters by itself:
            they may be negative, and their sum is 1 up to its own error.
        stderrs: Their standard errors, in the same shape; 0 where they are exact, and where no shot
            of any circuit had the outcome, which does not make it impossible. Probabilities come
            from the same shots and are correlated, so errors of their sums do not add in
            quadrature.
        metadata: The most important fields of the query record, and `devices`: what each of them
            did.
        record: The whole query record; None: a program made the estimates itself.
    """

    qubits: tuple[int, ...]
    values: FloatArray
    stderrs: FloatArray
    metadata: dict[str, Any]
    record: QueryRecord | None = None

    def nearest(self) -> FloatArray:
        """The distributions with the least sum of squared differences to the estimates.

        They are no longer unbiased, but nearer to the true ones. The method is that of Smolin,
        Gambetta and Smith, Phys. Rev. Lett. 108, 070502 (2012), on probabilities in the place of
        eigenvalues: the same is taken off all, and what would become negative is 0.

        Returns:
            Shape (*bindings, 2**number of qubits); nowhere negative, with sums of 1.

        Example:
            >>> found = Probabilities((0, 1), np.array([0.7, 0.4, -0.1, 0.0]), np.zeros(4), {})
            >>> found.nearest().round(6).tolist()
            [0.65, 0.35, 0.0, 0.0]
        """
        ordered = -np.sort(-self.values, axis=-1)
        count = np.arange(1, ordered.shape[-1] + 1)
        excess = (np.cumsum(ordered, axis=-1) - 1) / count
        kept = np.count_nonzero(ordered > excess, axis=-1, keepdims=True)
        taken = np.take_along_axis(excess, np.maximum(kept, 1) - 1, axis=-1)
        return np.maximum(self.values - taken, 0.0)

    def _line(self) -> str:
        error = float(np.max(self.stderrs, initial=0.0))
        qubits = ", ".join(map(str, reversed(self.qubits)))
        return f"{self.values.size} outcomes of qubits {qubits}; largest standard error {error:.2g}"

    def _facts(self) -> Mapping[str, str]:
        """The likeliest outcomes, the last of the qubits on the left as in Qiskit's bit strings."""
        facts = {"qubits": ", ".join(map(str, reversed(self.qubits)))}
        if self.values.ndim > 1:
            return facts | {"values": f"an array of shape {self.values.shape}"}
        likeliest = np.sort(np.argsort(-self.values, kind="stable")[:_MOST_SHOWN])
        for outcome in likeliest:
            shown = with_error(self.values[outcome], self.stderrs[outcome])
            facts[f"{outcome:0{len(self.qubits)}b}"] = shown
        if likeliest.size < self.values.size:
            facts["…"] = f"{self.values.size - likeliest.size} less likely outcomes"
        return facts


def read_qubits(qubits: Any, num_qubits: int) -> tuple[int, ...]:
    """Qubits of a circuit of `num_qubits`, checked.

    Raises:
        InputError: They are none, too many, repeated, or not in the circuit.
    """
    if isinstance(qubits, str) or not isinstance(qubits, Sequence | np.ndarray | range):
        raise InputError(f"`qubits` is {qubits!r}: give a list of qubits' numbers, such as [0, 3]")
    numbers = [from_numpy(qubit) for qubit in qubits]
    for qubit in numbers:
        if not (is_whole(qubit) and 0 <= qubit < num_qubits):
            raise InputError(
                f"`qubits` has {qubit!r}: give numbers from 0 to {num_qubits - 1}, as the circuit "
                f"has {num_qubits} qubits"
            )
    twice = [qubit for place, qubit in enumerate(numbers) if qubit in numbers[:place]]
    if twice:
        raise InputError(f"`qubits` has {twice[0]} more than once: give each once")
    if not 1 <= len(numbers) <= MOST_QUBITS:
        raise InputError(
            f"`qubits` names {len(numbers)}: give 1 to {MOST_QUBITS}, whose outcomes are at most "
            f"{1 << MOST_QUBITS}; the others are summed over"
        )
    return tuple(numbers)


def batch_of_outcomes(
    circuit: QuantumCircuit, qubits: tuple[int, ...], parameter_values: Any
) -> tuple[tuple[int, ...], Batch]:
    """Queries for all outcomes at all bindings, and the shape of their results.

    Raises:
        InputError: The values do not fit the circuit.
    """
    values = read_values(parameter_values, tuple(circuit.parameters))
    shape = *values.shape[:-1], 1 << len(qubits)
    count = math.prod(shape[:-1])
    batch = Batch(
        circuit,
        Outcomes(qubits),
        np.tile(np.arange(shape[-1]), count),
        np.repeat(np.arange(count), shape[-1]),
        values.reshape(count, values.shape[-1]),
        np.zeros(count * shape[-1], dtype=np.intp),
    )
    return shape, batch
