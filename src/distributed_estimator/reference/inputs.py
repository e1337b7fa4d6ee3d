"""What `run` is given, checked and made ready before anything runs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.quantum_info import PauliList, SparsePauliOp

from ..checks import from_numpy, is_number
from ..cutting.structure import structure_key
from ..errors import CutError, InputError, ObservableError
from ..records import CircuitInfo
from ..subexperiments import parse
from .circuits import Spans, flatten
from .stages import CutStages, FloatArray, Stages, UncutStages


@dataclass(frozen=True)
class Problem:
    """A PUB with its circuit flattened, and the stages that will handle its queries.

    `values` has shape (bindings…, parameters); `observables` and `values` broadcast to the
    PUB's shape.
    """

    pub: EstimatorPub
    circuit: QuantumCircuit
    stages: Stages
    partition_label: str | None
    values: FloatArray

    @property
    def info(self) -> CircuitInfo:
        """The circuit as it was given, for records."""
        circuit = self.pub.circuit
        return CircuitInfo(circuit.num_qubits, circuit.depth(), structure_key(circuit))

    def bind(self, index: tuple[int, ...]) -> QuantumCircuit:
        """The circuit with the parameter values of one query."""
        shape = self.pub.shape
        row = np.broadcast_to(self.values, (*shape, self.values.shape[-1]))[index]
        values = dict(zip(self.pub.circuit.parameters, row.tolist(), strict=True))
        return self.circuit.assign_parameters(values, strict=False)

    def observable(self, index: tuple[int, ...]) -> tuple[FloatArray, PauliList]:
        """Real weights and Pauli strings of the observable of one query."""
        observables = self.pub.observables.sparse_observables_array()
        observable = np.broadcast_to(observables, self.pub.shape)[index]
        terms = SparsePauliOp.from_sparse_observable(observable).simplify(atol=0, rtol=0)
        return terms.coeffs.real, terms.paulis


def prepare(
    pub: EstimatorPubLike,
    precision: float | None,
    labels: tuple[Hashable, ...] | None,
    number: int,
) -> Problem:
    """Checks one PUB and readies it.

    Raises:
        InputError: The PUB (the `number`-th) is not valid; as `CircuitError`, `CutError` or
            `ObservableError` where circuit, labels or observable are to blame.
    """
    ready = _coerce(pub, precision, number)
    circuit = ready.circuit
    if labels is not None and len(labels) != circuit.num_qubits:
        raise CutError(
            f"`cuts` labels {len(labels)} qubits, the circuit has {circuit.num_qubits}: "
            "give one label per qubit"
        )
    spans = _spans(labels)
    flat = flatten(circuit, spans)
    is_cut = any(
        spans(tuple(flat.find_bit(bit).index for bit in item.qubits))
        for item in flat.data
        if item.operation.name != "barrier"
    )
    stages = CutStages(labels) if labels is not None and is_cut else UncutStages()
    values = ready.parameter_values.as_array(circuit.parameters)
    if not np.isfinite(values).all():
        raise InputError(
            f"the parameter values of PUB {number} hold {_first_bad(values)}: "
            "every value must be a finite number"
        )
    return Problem(ready, flat, stages, _join(labels), values)


def _coerce(pub: EstimatorPubLike, precision: float | None, number: int) -> EstimatorPub:
    try:
        if isinstance(pub, Sequence) and len(pub) > 1 and isinstance(pub[0], QuantumCircuit):
            pub = cast(EstimatorPubLike, (pub[0], parse(pub[1], pub[0].num_qubits), *pub[2:]))
        ready = EstimatorPub.coerce(pub, precision)
    except ObservableError as error:
        raise ObservableError(f"PUB {number} is not valid: {error}") from error
    except (AttributeError, TypeError, ValueError, QiskitError) as error:
        raise InputError(
            f"PUB {number} is not valid: {error} Expected "
            "(circuit, observables[, parameter values[, precision]])"
        ) from error
    asked = ready.precision
    if asked is not None and not (is_number(from_numpy(asked)) and 0 < asked < math.inf):
        raise InputError(
            f"`precision` of PUB {number} is {asked}: the reference samples, so give a positive "
            "number or None (an exact value takes `DistributedEstimator` on its own simulator)"
        )
    return ready


def _spans(labels: tuple[Hashable, ...] | None) -> Spans:
    if labels is None:
        return lambda qubits: False
    return lambda qubits: len({labels[qubit] for qubit in qubits}) > 1


def _join(labels: tuple[Hashable, ...] | None) -> str | None:
    """Labels as records show them: side by side, or with commas if one is longer than a letter."""
    if labels is None:
        return None
    words = [str(label) for label in labels]
    return ("" if all(len(word) == 1 for word in words) else ",").join(words)


def _first_bad(values: FloatArray) -> float:
    return float(values[~np.isfinite(values)][0])
