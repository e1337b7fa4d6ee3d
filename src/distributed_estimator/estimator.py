"""The public estimator: translates PUBs into batches and batches into results."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from os import PathLike
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.primitives import (
    BaseEstimatorV2,
    BaseSamplerV2,
    DataBin,
    EstimatorPubLike,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
)
from qiskit.primitives.containers import EstimatorPub
from qiskit.primitives.containers.bindings_array import BindingsArray

from .backends import Backend, StatevectorBackend
from .cutting import AutoCut, CutPlan, Labels, SettingBasis
from .cutting.angles import check_values
from .errors import InputError
from .execution import make_pool
from .pipeline import Accuracy, Batch, Evaluation, Pipeline
from .records import RecordWriter, to_dict
from .subexperiments import Observables, parse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class EstimatorOptions:
    """How well and how values are estimated.

    Attributes:
        shots: Fixed shots a subexperiment (the paper's protocol); None: as many as `precision`
            asks for. If set, it wins over any `precision` but 0.
        default_precision: Standard error to meet where `run` is given none; 0: exact.
        seed: Seed of everything random; None: a fresh one. The same seed and sequence of
            `run` calls give the same bits on any pool.
        setting_basis: "full": every distinct operation of a cut, less error a shot; "minimal": the
            fewest circuits.
        memory_limit: Bytes a run may take; None: half of what is free. A plan that needs more is
            refused before any is taken.
    """

    shots: int | None = None
    default_precision: float = 1 / 64
    seed: int | None = None
    setting_basis: SettingBasis = "full"
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.shots is not None and (not _is_whole(self.shots) or self.shots < 1):
            raise InputError(
                f"`shots` is {self.shots!r}: give a whole number of at least 1, or None to meet "
                "a precision"
            )
        _check_precision(self.default_precision, "default_precision")
        if self.seed is not None and (not _is_whole(self.seed) or self.seed < 0):
            raise InputError(f"`seed` is {self.seed!r}: give a whole number of at least 0, or None")
        if self.setting_basis not in ("full", "minimal"):
            raise InputError(f'`setting_basis` is {self.setting_basis!r}: use "full" or "minimal"')
        if self.memory_limit is not None and self.memory_limit <= 0:
            raise InputError(f"`memory_limit` is {self.memory_limit!r}: give bytes, or None")


class DistributedEstimator(BaseEstimatorV2):
    """Expectation values of circuits that do not fit the device, by cutting them.

    Args:
        cuts: Where to cut: a label per qubit (a string, or any sequence of hashables; character i
            labels qubit i), a `CutPlan`, an `AutoCut`, or None for no cut.
        backend: None: the local statevector simulator; or any `BaseSamplerV2`.
        pool: "threads", or a `concurrent.futures.Executor`.
        workers: Tasks that run at a time.
        options: Accuracy, seed and settings.
        log: A JSONL file to which every batch of queries appends its record.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(4)
        >>> circuit.h(0)
        <...>
        >>> for qubit in range(3):
        ...     _ = circuit.cx(qubit, qubit + 1)
        >>> estimator = DistributedEstimator(cuts="AABB")
        >>> result = estimator.run([(circuit, "XXXX")], precision=0).result()
        >>> print(f"{result[0].data.evs:.3f}")
        1.000
    """

    def __init__(
        self,
        cuts: Labels | AutoCut | CutPlan | None = None,
        backend: BaseSamplerV2 | Backend | None = None,
        pool: str | Executor = "threads",
        workers: int = 8,
        options: EstimatorOptions | None = None,
        log: str | PathLike[str] | None = None,
    ) -> None:
        self.cuts = cuts
        self.backend = _backend(backend)
        self.pool = pool
        self.workers = workers
        self.options = options or EstimatorOptions()
        self.log = None if log is None else RecordWriter(log)
        self._entropy = secrets.randbits(64) if self.options.seed is None else self.options.seed
        self._runs = 0
        self._start()

    def _start(self) -> None:
        self._lock = Lock()
        self.pipeline = Pipeline(
            self.cuts,
            self.backend,
            make_pool(self.pool, self.workers),
            basis=self.options.setting_basis,
            memory_limit=self.options.memory_limit,
            log=self.log,
            seed=self.options.seed,
        )

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Estimate expectation values.

        Args:
            pubs: Tuples (circuit, observables, parameter values, precision), the last two
                optional; observables and parameter values broadcast as Qiskit's PUBs do. PUBs
                on one circuit are evaluated together.
            precision: Standard error to meet where a PUB names none; 0: the exact value.

        Returns:
            A job whose result holds, per PUB, `data.evs`, `data.stds` (standard errors) and the
            fields of the query record as `metadata`.

        Raises:
            InputError: A PUB is not well formed (all such errors are raised here, before anything
                runs).
        """
        if precision is not None:
            _check_precision(precision, "precision")
        requests = _read_pubs(pubs, precision)
        accuracies = [self.accuracy(request.precision) for request in requests]
        job: PrimitiveJob[PrimitiveResult[PubResult]] = PrimitiveJob(
            self._run, requests, accuracies, self.next_run()
        )
        job._submit()
        return job

    def accuracy(self, precision: float | None) -> Accuracy:
        """What a precision means under these options (DESIGN: 0 is exact, `shots` wins)."""
        if precision is None:
            precision = self.options.default_precision
        return Accuracy(None if precision == 0 else self.options.shots, float(precision))

    def next_run(self) -> str:
        """A name for the next run, from which its seeds derive."""
        with self._lock:
            self._runs += 1
            return f"{self._entropy} run {self._runs}"

    def _run(
        self, requests: Sequence[_Request], accuracies: Sequence[Accuracy], run: str
    ) -> PrimitiveResult[PubResult]:
        results: list[PubResult | None] = [None] * len(requests)
        groups: dict[tuple[int, Accuracy], list[int]] = {}
        for number, (request, accuracy) in enumerate(zip(requests, accuracies, strict=True)):
            groups.setdefault((id(request.circuit), accuracy), []).append(number)
        for place, ((_, accuracy), members) in enumerate(groups.items()):
            chosen = [requests[number] for number in members]
            evaluation = self.pipeline.evaluate(merge(chosen), accuracy, f"{run} batch {place}")
            for number, result in zip(members, _split(evaluation, chosen), strict=True):
                results[number] = result
        return PrimitiveResult(cast(list[PubResult], results), metadata={"version": 2})

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["pipeline"], state["_lock"]
        if isinstance(self.pool, Executor):
            state["pool"] = "threads"
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


@dataclass(frozen=True, eq=False)
class _Request:
    """A PUB, checked.

    Attributes:
        circuit: The circuit.
        observables: Qiskit's sparse observables, any shape.
        values: Shape (*bindings shape, parameters).
        precision: The PUB's own precision or that of the run.
    """

    circuit: QuantumCircuit
    observables: NDArray[np.object_]
    values: FloatArray
    precision: float | None

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.observables.shape, self.values.shape[:-1])


def _read_pubs(pubs: Iterable[EstimatorPubLike], precision: float | None) -> list[_Request]:
    if isinstance(pubs, QuantumCircuit) or not isinstance(pubs, Iterable):
        raise InputError(f"`pubs` is {type(pubs).__name__}: give a list of PUBs")
    known: dict[int, tuple[Any, NDArray[np.object_]]] = {}
    parameters: dict[int, tuple[Any, ...]] = {}
    return [_read_pub(pub, precision, known, parameters) for pub in pubs]


def _read_pub(
    pub: EstimatorPubLike,
    precision: float | None,
    known: dict[int, tuple[Any, NDArray[np.object_]]],
    parameters: dict[int, tuple[Any, ...]],
) -> _Request:
    """Read one PUB; observables and parameters seen before are not read again."""
    if isinstance(pub, EstimatorPub):
        pub = (pub.circuit, pub.observables, pub.parameter_values, pub.precision)
    if isinstance(pub, QuantumCircuit) or not 2 <= len(pub) <= 4:
        raise InputError(
            "a PUB is (circuit, observables), (circuit, observables, values) or (circuit, "
            f"observables, values, precision), not {type(pub).__name__} of that form: wrap it in "
            "a list and a tuple"
        )
    circuit, observables, values, own = (*pub, None, None)[:4]
    if not isinstance(circuit, QuantumCircuit):
        raise InputError(f"a PUB starts with {type(circuit).__name__}: give a QuantumCircuit")
    if own is not None:
        _check_precision(own, "precision")
    if id(observables) not in known:
        array = parse(observables, circuit.num_qubits).sparse_observables_array()
        known[id(observables)] = observables, np.asarray(array, dtype=object)
    if id(circuit) not in parameters:
        parameters[id(circuit)] = tuple(circuit.parameters)
    request = _Request(
        circuit,
        known[id(observables)][1],
        _read_values(values, parameters[id(circuit)]),
        precision if own is None else float(own),
    )
    try:
        request.shape  # noqa: B018
    except ValueError as error:
        raise InputError(
            f"observables of shape {request.observables.shape} and parameter values of shape "
            f"{request.values.shape[:-1]} do not broadcast: see Qiskit's rules for PUBs"
        ) from error
    return request


def _read_values(values: Any, parameters: tuple[Any, ...]) -> FloatArray:
    if values is None:
        values = np.zeros(0)
    if isinstance(values, Mapping | BindingsArray):
        try:
            values = BindingsArray.coerce(values).as_array(parameters)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"the parameter values do not fit the circuit: {error}") from error
    try:
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"the parameter values are not real numbers: {error}") from error
    if array.ndim == 0 or (array.size == 0 and not parameters):
        array = array.reshape(*array.shape[:-1], array.size) if array.ndim else array.reshape(1)
    check_values(array, parameters)
    return array


def merge(requests: Sequence[_Request]) -> Batch:
    """Queries of several PUBs on one circuit as one batch."""
    distinct: dict[int, int] = {}
    sparse: list[Any] = []
    observable, binding, values = [], [], []
    rows = 0
    for request in requests:
        flat = request.observables.reshape(-1)
        for entry in flat:
            if id(entry) not in distinct:
                distinct[id(entry)] = len(sparse)
                sparse.append(entry)
        numbers = np.array([distinct[id(entry)] for entry in flat], dtype=np.intp)
        shape, bindings = request.shape, request.values.shape[:-1]
        count = int(np.prod(bindings, dtype=int))
        places = np.arange(rows, rows + count).reshape(bindings)
        observable.append(np.broadcast_to(numbers.reshape(request.observables.shape), shape))
        binding.append(np.broadcast_to(places, shape))
        values.append(request.values.reshape(count, -1))
        rows += count
    return Batch(
        requests[0].circuit,
        Observables.gather(sparse),
        np.concatenate([part.reshape(-1) for part in observable]),
        np.concatenate([part.reshape(-1) for part in binding]),
        np.concatenate(values),
    )


def _split(evaluation: Evaluation, requests: Sequence[_Request]) -> Iterable[PubResult]:
    metadata = to_dict(evaluation.record)
    start = 0
    for request in requests:
        stop = start + int(np.prod(request.shape, dtype=int))
        data = DataBin(
            evs=evaluation.values[start:stop].reshape(request.shape),
            stds=evaluation.stderrs[start:stop].reshape(request.shape),
            shape=request.shape,
        )
        yield PubResult(data, metadata={**metadata, "target_precision": request.precision})
        start = stop


def _backend(backend: BaseSamplerV2 | Backend | None) -> Backend:
    if backend is None:
        return StatevectorBackend()
    if isinstance(backend, BaseSamplerV2):
        from .backends.sampler import SamplerBackend

        return SamplerBackend(backend)
    if not hasattr(backend, "expected_seconds"):
        raise InputError(
            f"`backend` is {type(backend).__name__}: give None for the statevector simulator, or "
            "any Qiskit BaseSamplerV2"
        )
    return backend


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_precision(value: Any, name: str) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise InputError(
            f"`{name}` is {value!r}: give a standard error greater than 0, or 0 for the exact value"
        )
