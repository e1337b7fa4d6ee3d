"""Probabilities of the outcomes of some qubits, and the shots that they take."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

from .checks import from_numpy, is_whole
from .cutting import FloatArray
from .errors import InputError, PrecisionWarning
from .execution import Stop
from .pipeline import Evaluation, Pipeline, Request
from .pubs import Batch, read_values
from .records import QueryRecord, Summary, to_dict
from .subexperiments import MOST_ROUNDS, MOST_SHOTS, Accuracy, Outcomes

MOST_QUBITS = 12
"""Their outcomes are 2 to that power."""
_PILOT_SHOTS = 256
_FEWEST_SHOTS = 16
_MARGIN = 1.1
"""Factor of the shots that a precision is expected to take."""
_SUMS = (
    *("num_subexperiments", "shots_total", "retries", "speculated", "missing"),
    *("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_overlapped", "t_total"),
)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Estimated probabilities of the outcomes of some qubits.

    Attributes:
        qubits: The qubits; bit b of an outcome's number is that of `qubits[b]`, as in Qiskit.
        values: Unbiased estimates, shape (*bindings, 2**number of qubits). Each scatters by itself:
            they may be negative, and their sum is 1 up to its own error.
        stderrs: Their standard errors, in the same shape; 0 where they are exact, and where no shot
            had the outcome in a circuit that is not cut. Probabilities come from the same shots and
            are correlated, so errors of their sums do not add in quadrature.
        metadata: The fields of the query record, those of all rounds together.
    """

    qubits: tuple[int, ...]
    values: FloatArray
    stderrs: FloatArray
    metadata: dict[str, Any] = field(repr=False)

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


def estimate_probabilities(
    pipeline: Pipeline,
    circuit: QuantumCircuit,
    qubits: tuple[int, ...],
    parameter_values: Any,
    accuracy: Accuracy,
    run: str,
    stop: Stop,
) -> Probabilities:
    """Probabilities on a pipeline; see `DistributedEstimator.probabilities`.

    Every circuit has as many shots. A precision takes a pilot, which only says how many, and then
    rounds, weighted by their shots, until all standard errors are within it.
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
    )
    rounds = _Rounds(pipeline, Request(batch, accuracy, run), stop)
    found, stderrs, record = rounds.estimate()
    return Probabilities(qubits, found.reshape(shape), stderrs.reshape(shape), to_dict(record))


class _Rounds:
    """Rounds of one request, with the same number of shots for every circuit."""

    def __init__(self, pipeline: Pipeline, request: Request, stop: Stop) -> None:
        self._pipeline, self._request, self._stop = pipeline, request, stop
        self._begun = pipeline.conditions.clock()
        self._records: list[QueryRecord] = []

    def estimate(self) -> tuple[FloatArray, FloatArray, QueryRecord]:
        """Values and standard errors, shape (queries,), and one record for all rounds."""
        accuracy = self._request.accuracy
        if accuracy.exact or accuracy.shots is not None:
            found = self._evaluate(accuracy, "")
            return found.values, found.stderrs, found.record
        circuits = max(1, self._pipeline.num_circuits(self._request))
        if accuracy.budget is not None:
            found = self._evaluate(Accuracy(_each(accuracy.budget, circuits), 0.0), "")
            return found.values, found.stderrs, found.record
        most = MOST_SHOTS if accuracy.most is None else _each(accuracy.most, circuits)
        return self._until(accuracy.precision, most)

    def _until(self, precision: float, most: int) -> tuple[FloatArray, FloatArray, QueryRecord]:
        """Rounds until all standard errors are within a precision, or `most` shots a circuit."""
        pilot = min(_PILOT_SHOTS, max(1, most // 4))
        worst = _worst(self._evaluate(Accuracy(pilot, 0.0), " pilot"))
        left = max(1, most - pilot)
        wanted = _wanted(pilot * (worst / precision) ** 2)
        shots, values, variances = 0, np.zeros(()), np.zeros(())
        for number in range(MOST_ROUNDS):
            own = min(max(wanted - shots, _FEWEST_SHOTS), left)
            found = self._evaluate(Accuracy(own, 0.0), f" round {number}")
            values = values + own * found.values
            variances = variances + (own * found.stderrs) ** 2
            shots, left = shots + own, left - own
            stderrs = np.sqrt(variances) / shots
            worst = float(stderrs.max(initial=0.0))
            if worst <= precision or not left:
                break
            wanted = _wanted(shots * (worst / precision) ** 2)
        record = self._record(values / shots, stderrs, precision)
        if not worst <= precision:
            warnings.warn(
                f"precision {precision:g} takes more than the {record.shots_total} shots that "
                f"`max_shots` allows: the largest standard error is {worst:.3g}",
                PrecisionWarning,
                stacklevel=2,
            )
        return values / shots, stderrs, record

    def _evaluate(self, accuracy: Accuracy, name: str) -> Evaluation:
        request = replace(self._request, accuracy=accuracy, run=f"{self._request.run}{name}")
        found = self._pipeline.evaluate(request, self._stop, self._begun)
        self._records.append(found.record)
        return found

    def _record(self, values: FloatArray, stderrs: FloatArray, precision: float) -> QueryRecord:
        sums: dict[str, Any] = {
            name: sum(getattr(record, name) for record in self._records) for name in _SUMS
        }
        return replace(
            self._records[-1],
            **sums,
            shots=None,
            precision=precision,
            value=Summary.of(values),
            stderr=Summary.of(stderrs),
            plan_cached=self._records[0].plan_cached,
        )


def _each(total: int, circuits: int) -> int:
    if total < circuits:
        raise InputError(
            f"{total} shots in all are fewer than the {circuits} circuits: give each at least one"
        )
    return min(total // circuits, MOST_SHOTS)


def _worst(found: Evaluation) -> float:
    """The largest standard error; that of a probability of 1/2 where one shot says none."""
    worst = float(found.stderrs.max(initial=0.0))
    return 0.5 if math.isnan(worst) else worst


def _wanted(shots: float) -> int:
    return math.ceil(min(_MARGIN * shots, MOST_SHOTS)) if math.isfinite(shots) else MOST_SHOTS
