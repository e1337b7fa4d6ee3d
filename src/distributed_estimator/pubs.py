"""PUBs, read and checked, and brought together to batches of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.primitives import EstimatorPubLike
from qiskit.primitives.containers import EstimatorPub
from qiskit.primitives.containers.bindings_array import BindingsArray

from .checks import check_precision
from .cutting import FloatArray, IntArray
from .cutting.angles import check_values
from .errors import InputError
from .subexperiments import Observables, Outcomes, parse


@dataclass(frozen=True, eq=False)
class Batch:
    """Queries on one circuit, evaluated together.

    Attributes:
        circuit: The circuit.
        observables: The distinct observables, or the outcomes of some qubits.
        observable: Shape (queries,): the observable each query asks for.
        binding: Shape (queries,): the row of `values` it asks at.
        values: Shape (bindings, parameters), in the order of `circuit.parameters`.
        pub: Shape (queries,): the PUB each query belongs to.
    """

    circuit: QuantumCircuit
    observables: Observables | Outcomes
    observable: IntArray
    binding: IntArray
    values: FloatArray
    pub: IntArray

    def with_own_bindings(self) -> Batch:
        """The same, with a binding for each query."""
        own = np.arange(len(self.binding))
        return replace(self, binding=own, values=self.values[self.binding])


@dataclass(frozen=True, eq=False)
class Pub:
    """A PUB, checked.

    Attributes:
        circuit: The circuit.
        observables: Qiskit's sparse observables, any shape.
        values: Shape (*bindings shape, parameters).
        precision: The PUB's own precision or that of the run.
        shape: Shape of the result.
    """

    circuit: QuantumCircuit
    observables: NDArray[np.object_]
    values: FloatArray
    precision: float | None
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of queries."""
        return prod(self.shape)


def read_pubs(pubs: Iterable[EstimatorPubLike], precision: float | None) -> list[Pub]:
    """Check PUBs, with `precision` for those that name none; raises `InputError`."""
    if isinstance(pubs, QuantumCircuit) or not isinstance(pubs, Iterable):
        raise InputError(f"`pubs` is {type(pubs).__name__}: give a list of PUBs")
    known: dict[object, tuple[Any, ...]] = {}
    return [_read_pub(pub, precision, known) for pub in pubs]


def _read_pub(
    pub: EstimatorPubLike, precision: float | None, known: dict[object, tuple[Any, ...]]
) -> Pub:
    """Read one PUB; observables and circuits seen before, which `known` holds, not again."""
    if isinstance(pub, EstimatorPub):
        pub = (pub.circuit, pub.observables, pub.parameter_values, pub.precision)
    if not isinstance(pub, Sequence) or isinstance(pub, str) or not 2 <= len(pub) <= 4:
        raise InputError(
            "a PUB is (circuit, observables), (circuit, observables, values) or (circuit, "
            f"observables, values, precision), not {type(pub).__name__} of that form: wrap it in "
            "a list and a tuple"
        )
    circuit, observables, values, own = (*pub, None, None)[:4]
    if not isinstance(circuit, QuantumCircuit):
        raise InputError(f"a PUB starts with {type(circuit).__name__}: give a QuantumCircuit")
    if own is not None:
        check_precision(own, "precision")
    key = id(observables), circuit.num_qubits
    if key not in known:
        array = parse(observables, circuit.num_qubits).sparse_observables_array()
        known[key] = observables, np.asarray(array, dtype=object)
    if id(circuit) not in known:
        # The run goes on while its caller may change the circuit.
        known[id(circuit)] = circuit, circuit.copy(), tuple(circuit.parameters)
    (_, array), (_, own_circuit, parameters) = known[key], known[id(circuit)]
    rows = read_values(values, parameters)
    try:
        shape = np.broadcast_shapes(array.shape, rows.shape[:-1])
    except ValueError as error:
        raise InputError(
            f"observables of shape {array.shape} and parameter values of shape {rows.shape[:-1]} "
            "do not broadcast: see Qiskit's rules for PUBs"
        ) from error
    return Pub(own_circuit, array, rows, precision if own is None else float(own), shape)


def read_values(values: Any, parameters: tuple[Any, ...]) -> FloatArray:
    """Parameter values of a PUB as an array, shape (*bindings shape, parameters).

    Raises:
        InputError: They are no real numbers, or do not fit the parameters.
    """
    if values is None:
        values = np.zeros(0)
        check_values(values, parameters)
    if isinstance(values, Mapping | BindingsArray):
        try:
            values = BindingsArray.coerce(values).as_array(parameters)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"the parameter values do not fit the circuit: {error}") from error
    try:
        if np.iscomplexobj(values):
            raise TypeError("some are complex")
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"the parameter values are not real numbers: {error}") from error
    if not parameters and array.ndim == 0:
        array = array[None][:0]
    if len(parameters) == 1 and array.shape[-1:] != (1,):
        array = array[..., None]  # Qiskit's rule: the last axis may be left out for one parameter
    check_values(array, parameters)
    return array


def batch_of(circuit: QuantumCircuit, observables: Sequence[Any], values: FloatArray) -> Batch:
    """One query per row: observable i at binding i, shape of `values` (queries, parameters).

    Observables given as the same object are read once.
    """
    check_values(values, tuple(circuit.parameters))
    distinct: dict[int, int] = {}
    sparse: list[Any] = []
    for observable in observables:
        if id(observable) not in distinct:
            distinct[id(observable)] = len(sparse)
            array = parse(observable, circuit.num_qubits).sparse_observables_array()
            if array.shape:
                raise InputError(
                    f"an array of {array.size} observables stands for one: give one per circuit"
                )
            sparse.append(array[()])
    numbers = np.array([distinct[id(observable)] for observable in observables], dtype=np.intp)
    own = np.arange(len(numbers))
    return Batch(circuit, Observables.gather(sparse), numbers, own, values, own)


def merge(pubs: Sequence[Pub]) -> Batch:
    """Queries of several PUBs on one circuit as one batch."""
    distinct: dict[int, int] = {}
    sparse: list[Any] = []
    observable, binding, values = [], [], []
    rows = 0
    for pub in pubs:
        flat = pub.observables.reshape(-1)
        for entry in flat:
            if id(entry) not in distinct:
                distinct[id(entry)] = len(sparse)
                sparse.append(entry)
        numbers = np.array([distinct[id(entry)] for entry in flat], dtype=np.intp)
        bindings = pub.values.shape[:-1]
        count = prod(bindings)
        places = np.arange(rows, rows + count).reshape(bindings)
        observable.append(np.broadcast_to(numbers.reshape(pub.observables.shape), pub.shape))
        binding.append(np.broadcast_to(places, pub.shape))
        values.append(pub.values.reshape(count, pub.values.shape[-1]))
        rows += count
    return Batch(
        pubs[0].circuit,
        Observables.gather(sparse),
        np.concatenate([part.reshape(-1) for part in observable]),
        np.concatenate([part.reshape(-1) for part in binding]),
        np.concatenate(values),
        np.repeat(np.arange(len(pubs)), [pub.size for pub in pubs]),
    )
