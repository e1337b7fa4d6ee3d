"""The public estimator: translates PUBs into batches, and batches into results and jobs."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import PathLike
from threading import Event
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from uuid import uuid4

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import (
    BaseEstimatorV2,
    BasePrimitiveJob,
    BaseSamplerV2,
    DataBin,
    EstimatorPubLike,
)
from qiskit.providers import BackendV2, JobStatus

from .backends import StatevectorBackend
from .checks import (
    Fixed,
    check_kind,
    check_precision,
    check_whole,
    from_numpy,
    is_number,
)
from .cutting import CutPlan, Cuts, SettingBasis, check_cuts
from .errors import InputError, PoolError, RunCancelledError
from .execution import Conditions, Journal, Policy, Pool, Stop, Stragglers, make_pool
from .forks import Lock, register
from .pipeline import Evaluation, Pipeline, Price, Request
from .probabilities import Probabilities, batch_of_outcomes, read_qubits
from .pubs import Batch, Pub, merge, read_pubs
from .records import RecordWriter, new_run_id
from .records.files import writer_of
from .results import EstimatorPubResult, EstimatorResult, brief
from .subexperiments import (
    MOST_SHOTS,
    Accuracy,
    Allocation,
    Backend,
    ErrorNorm,
    Mitigation,
    Norms,
    ServiceBackend,
)
from .views import Shown, changed, changes, counted

if TYPE_CHECKING:
    from .backends.noise import NoisePrice
    from .pipeline.forecasts import Simulator

AnyBackend: TypeAlias = BaseSamplerV2 | Backend | BackendV2
"""What `backend` may be, or a list of it may hold."""

_JOBS_AT_A_TIME = 32
_BRIEF = 0.005  # seconds
_ALREADY_CLOSED = "the estimator is closed: make a new one"
_CLOSED = (
    "the estimator was closed before the run was complete: ask for its result inside the `with` "
    "block, or before `close()`"
)


@dataclass(frozen=True)
class EstimatorOptions:
    """Accuracy, seed, settings and policy of an estimator.

    Attributes:
        shots: Fixed shots a subexperiment (the paper's protocol); None: as many as `precision`
            asks for. If set, it wins over any `precision` but 0. Noise factors share them.
        shots_total: Shots that PUBs on one circuit with one precision take in all, divided so that
            the largest standard error is least. If set, it wins over any `precision` but 0.
        max_shots: Shots that PUBs on one circuit with one precision take at most to meet it; if
            that is not enough, standard errors are larger, and a `PrecisionWarning` says so.
        default_precision: Standard error to meet where `run` is given none; 0: exact.
        allocation: How shots are divided where they are not fixed: "optimal", with the best weights
            of what they find; "neyman", with the weights that the gates fix; "uniform", with these
            and the same number for every circuit.
        circuit_overhead: What a circuit costs besides its shots, in shots; the more, the fewer
            circuits run where the "optimal" allocation meets a precision.
        error_norm: What meets a precision: "max", every standard error; "rms", the root mean square
            of the standard errors of each PUB's values, or of each gradient's components, which
            takes fewer shots. It is also what `shots_total` makes least.
        reuse_pilots: Whether what earlier runs of the estimator saw takes the place of a pilot,
            where they asked the same of the same circuit at nearly the same angles, as the steps of
            a training do. What a run draws then depends on those before it: runs that are to be
            repeatable must follow each other.
        seed: Seed of everything random; None: a fresh one. The same seed and sequence of
            `run` calls give the same bits on any pool.
        setting_basis: "full": every distinct operation of a cut, less error a shot; "minimal": the
            fewest circuits.
        memory_limit: Bytes a run may take; None: half of what is free. A plan that needs more is
            refused before any is taken.
        policy: Order, batches, speculation, retries and deadline of tasks.
        stragglers: Delays to inject into tasks, for experiments; None: none.
        mitigation: What is done about the noise of the backend; None: nothing.
    """

    shots: int | None = None
    default_precision: float = 1 / 64
    seed: int | None = None
    setting_basis: SettingBasis = "full"
    memory_limit: int | None = None
    policy: Policy = field(default_factory=Policy)
    stragglers: Stragglers | None = None
    shots_total: int | None = None
    max_shots: int | None = None
    allocation: Allocation = "optimal"
    circuit_overhead: float = 0.0
    reuse_pilots: bool = False
    error_norm: ErrorNorm = "max"
    mitigation: Mitigation | None = None

    __repr__ = changed

    def __post_init__(self) -> None:
        for name, least, otherwise in (
            ("shots", 1, ", or None to meet a precision"),
            ("shots_total", 1, ", or None to meet a precision"),
            ("max_shots", 1, ", or None for any number"),
            ("seed", 0, ", or None"),
            ("memory_limit", 1, " (bytes), or None"),
        ):
            value = from_numpy(getattr(self, name))  # NumPy's integers are no JSON
            if value is not None:
                object.__setattr__(self, name, check_whole(name, value, least, otherwise))
        if self.shots is not None and self.shots > MOST_SHOTS:
            raise InputError(f"`shots` is {self.shots}: {MOST_SHOTS} a subexperiment is the most")
        for name in ("shots_total", "max_shots"):
            if (getattr(self, name) or 0) > MOST_SHOTS:
                raise InputError(f"`{name}` is {getattr(self, name)}: {MOST_SHOTS} is the most")
        given = [name for name in ("shots", "shots_total", "max_shots") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(
                f"`{given[0]}` and `{given[1]}` were both set, and the first would hold alone: "
                "set one of them"
            )
        if self.allocation not in ("optimal", "neyman", "uniform"):
            raise InputError(
                f'`allocation` is {self.allocation!r}: use "optimal", "neyman" or "uniform"'
            )
        if self.error_norm not in ("max", "rms"):
            raise InputError(f'`error_norm` is {self.error_norm!r}: use "max" or "rms"')
        overhead = from_numpy(self.circuit_overhead)
        if not (is_number(overhead) and 0 <= overhead < sys.float_info.max):
            raise InputError(
                f"`circuit_overhead` is {overhead!r}: give a number of shots, 0 or more"
            )
        check_precision(self.default_precision, "default_precision")
        if self.setting_basis not in ("full", "minimal"):
            raise InputError(f'`setting_basis` is {self.setting_basis!r}: use "full" or "minimal"')
        check_kind("reuse_pilots", self.reuse_pilots, bool, "True or False")
        check_kind("policy", self.policy, Policy, "a Policy, such as Policy()")
        check_kind("stragglers", self.stragglers, Stragglers | None, "Stragglers, or None")
        expected = "a Mitigation, such as Mitigation(readout=True), or None"
        check_kind("mitigation", self.mitigation, Mitigation | None, expected)


class EstimatorJob(Shown, BasePrimitiveJob[EstimatorResult, JobStatus]):
    """A run of the estimator as Qiskit's job; `stop` ends it early."""

    def __init__(self, future: Future[EstimatorResult], stop: Stop, num_pubs: int) -> None:
        super().__init__(str(uuid4()))
        self._future = future
        self._stop = stop
        self._num_pubs = num_pubs
        over = self._over = Event()
        future.add_done_callback(lambda _: over.set())
        register(self)

    def _facts(self) -> dict[str, str]:
        return {
            "PUBs": str(self._num_pubs),
            "status": self.status().name,
            "id": self.job_id(),
        }

    def _renew_in_fork(self) -> None:
        """A run that is not over goes on in the parent alone."""
        if not self._over.is_set():
            self._future = Future()
            self._future.set_exception(
                PoolError(
                    f"the run goes on in process {os.getppid()}, and this is a fork of it: ask "
                    "for its result there, or run again here"
                )
            )

    def result(self) -> EstimatorResult:
        """Wait for the result; raises what the run raised. Ctrl-C meanwhile cancels the run."""
        try:
            return self._future.result()
        except KeyboardInterrupt:
            self.cancel()
            raise
        except CancelledError as error:
            raise RunCancelledError(self._stop.reason) from error

    def status(self) -> JobStatus:
        """How far the run is."""
        if self._future.cancelled():
            return JobStatus.CANCELLED
        if not self._future.done():
            return JobStatus.RUNNING if self._future.running() else JobStatus.QUEUED
        error = self._future.exception()
        if isinstance(error, RunCancelledError):
            return JobStatus.CANCELLED
        return JobStatus.DONE if error is None else JobStatus.ERROR

    def done(self) -> bool:
        """Whether there is a result."""
        return bool(self.status() == JobStatus.DONE)

    def running(self) -> bool:
        """Whether it runs now."""
        return bool(self.status() == JobStatus.RUNNING)

    def cancelled(self) -> bool:
        """Whether it was cancelled before it was complete."""
        return bool(self.status() == JobStatus.CANCELLED)

    def in_final_state(self) -> bool:
        """Whether nothing more will happen to it."""
        return self._future.done()

    def cancel(self) -> bool:
        """Cancel it, also while it runs; whether it was not over yet."""
        if self._future.done():
            return False
        self._stop.ask()
        self._future.cancel()
        return True


class DistributedEstimator(Shown, Fixed, BaseEstimatorV2):
    """Expectation values of circuits that do not fit the device, by cutting them.

    Args:
        cuts: Where to cut: a label per qubit (a string, or any sequence of hashables; character i
            labels qubit i), an `AutoCut`, a `CutAt`, a `CutPlan`, or None: at the marks in the
            circuit, if there are any.
        backend: None: the local statevector simulator; or any `BaseSamplerV2`, or backend of
            Qiskit; or a list of these, whose items share the fragments of a circuit: see
            `distributed_estimator.backends.devices.Devices`.
        pool: Where tasks run: "threads", "processes", "dask" or "ray" (started here, with the first
            task that needs them), a `Pool` of `distributed_estimator.execution`, or any
            `concurrent.futures.Executor`. What is given as an object is not closed here.
        workers: Tasks that run at a time.
        options: Accuracy, seed, settings and policy.
        log: A path or `RecordWriter` that gets a record for every batch of queries.
        trace: A path or `RecordWriter` that gets a record for every attempt at a task.
        journal: A path where tasks' results are kept, so that a run that was lost goes on from
            there when it is repeated with the same seed.

    An estimator that is closed, or forgotten, ends the workers it has started; it is a context
    manager, too. Forks of the process may use it: it has workers of its own there, and no journal,
    as pickled copies have. With a seed, both draw what it would draw next; without, their own.
    What it was given cannot be changed later: make another one.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(4)
        >>> _ = circuit.h(0)
        >>> for qubit in range(3):
        ...     _ = circuit.cx(qubit, qubit + 1)
        >>> estimator = DistributedEstimator(cuts="AABB")
        >>> result = estimator.run([(circuit, "XXXX")], precision=0).result()
        >>> print(f"{result[0].data.evs:.3f}")
        1.000
    """

    cuts: Cuts
    backend: Backend
    pool: str | Pool | Executor
    workers: int
    options: EstimatorOptions
    log: RecordWriter | None
    trace: RecordWriter | None
    journal: Journal | None

    def __init__(
        self,
        cuts: Cuts = None,
        backend: AnyBackend | Sequence[AnyBackend] | None = None,
        pool: str | Pool | Executor = "threads",
        workers: int = 8,
        options: EstimatorOptions | None = None,
        log: str | PathLike[str] | RecordWriter | None = None,
        *,
        trace: str | PathLike[str] | RecordWriter | None = None,
        journal: str | PathLike[str] | None = None,
    ) -> None:
        check_cuts(cuts)
        expected = "EstimatorOptions, such as EstimatorOptions(shots=100), or None"
        check_kind("options", options, EstimatorOptions | None, expected)
        check_kind("journal", journal, str | PathLike | None, "the path of a file, or None")
        chosen = EstimatorOptions() if options is None else options
        if journal is not None and chosen.seed is None:
            raise InputError("`journal` needs a seed, as a run is found again by it: set `seed`")
        self.__dict__.update(
            cuts=cuts,
            backend=_backend(backend, chosen.memory_limit),
            pool=pool,
            workers=workers,
            options=chosen,
            log=writer_of("log", log),
            trace=writer_of("trace", trace),
            journal=None if journal is None else Journal(journal),
        )
        if self.journal and self.journal.path in [w.path for w in (self.log, self.trace) if w]:
            raise InputError(
                f"`journal` names the file of a log, {self.journal.path}: name one of its own"
            )
        self._runs = 0
        self._shots = 0
        self._start()

    def _start(self) -> None:
        self._closed = False
        self._pace: tuple[Any, float] = None, float("inf")
        pool, backend, waits = make_pool(self.pool, self.workers), self.backend, False
        if isinstance(backend, ServiceBackend):
            waits = backend.has_service
            backend = backend.with_jobs(self.journal, self.trace)
        if waits and not pool.in_process:
            raise InputError(
                f"`pool` is {pool.name!r}, and the connection to the service of "
                f'{self.backend.name} travels to no other process: use pool="threads"; its threads '
                "wait for the service, and take no processor"
            )
        options = self.options
        self.pipeline = Pipeline(
            self.cuts,
            backend,
            pool,
            Conditions(options.policy, options.stragglers, self.journal, patient=waits),
            basis=options.setting_basis,
            memory_limit=options.memory_limit,
            log=self.log,
            trace=self.trace,
            seed=options.seed,
            mitigation=options.mitigation,
        )
        self._begin_afresh()
        register(self)

    def _begin_afresh(self) -> None:
        self._lock = Lock()
        self._stops: set[Stop] = set()
        self._jobs = ThreadPoolExecutor(_JOBS_AT_A_TIME, "distributed-estimator-job")
        # Without a seed, copies and forks are not to repeat each other's noise.
        seed = self.options.seed
        self._entropy = secrets.randbits(64) if seed is None else seed

    def _renew_in_fork(self) -> None:
        """A fork keeps the plans; runs, workers, records and random numbers are its own."""
        self._begin_afresh()
        pipeline = self.pipeline
        pipeline.run_id = new_run_id()
        self.__dict__["journal"] = None  # two cannot write one
        pipeline.conditions = replace(pipeline.conditions, journal=None)
        if not isinstance(self.pool, Pool | Executor):
            pipeline.pool = make_pool(self.pool, self.workers)

    def run(
        self,
        pubs: Iterable[EstimatorPubLike],
        *,
        precision: float | None = None,
        shots_total: int | None = None,
        covariance: bool = False,
        independent: bool = False,
    ) -> EstimatorJob:
        """Estimate expectation values.

        Args:
            pubs: Tuples (circuit, observables, parameter values, precision), the last two
                optional; observables and parameter values broadcast as Qiskit's PUBs do. PUBs
                on one circuit are evaluated together.
            precision: Standard error to meet where a PUB names none; 0: the exact value.
            shots_total: Shots that the queries on one circuit take in all, for this run; None: as
                the options say.
            covariance: Whether the result's `metadata["covariance"]` is to be the covariance matrix
                of all values, flattened PUB by PUB; to first order in the fragments' errors.
            independent: Whether every value is to have shots of its own, whose errors are those of
                no other: sums and means then have errors that add in quadrature.

        Returns:
            A job whose result holds, per PUB, `data.evs`, `data.stds` (standard errors), the whole
            query record as `record`, and its most important fields as `metadata`, with the
            `product_formulas`: instructions of the circuit that ran as product formulas of terms
            not known to commute; with the `reached_precision`, the `error_norm` of the PUB's
            standard errors; and with `devices`, what each did and what its calibration took. Values
            of one
            `run` share noise: equal bindings of a fragment run once, so that the same query asked
            twice gives the same number twice. The standard error of every single value is right;
            for that of a sum or mean of values, ask for the `covariance`, or for `independent`
            values.

        Raises:
            InputError: A PUB is not well formed (all such errors are raised here, before anything
                runs).
        """
        if precision is not None:
            check_precision(precision, "precision")
        read = read_pubs(pubs, precision)
        accuracies = [self.accuracy(pub.precision, shots_total) for pub in read]
        check_kind("covariance", covariance, bool, "True or False")
        check_kind("independent", independent, bool, "True or False")
        kinds = covariance, independent
        stop = self._begin()
        run = self.next_run()
        future: Future[EstimatorResult] = Future()
        if self._is_brief(read, accuracies):
            try:
                future.set_result(self._run(read, accuracies, run, stop, *kinds))
            except Exception as error:
                future.set_exception(error)
        else:
            try:
                future = self._jobs.submit(self._run, read, accuracies, run, stop, *kinds)
            except RuntimeError:
                self._end(stop)
                if self._closed:
                    raise PoolError(_ALREADY_CLOSED) from None
                raise
        future.add_done_callback(lambda _: self._end(stop))
        return EstimatorJob(future, stop, len(read))

    def price(
        self,
        pubs: Iterable[EstimatorPubLike],
        *,
        precision: float | None = None,
        independent: bool = False,
    ) -> Price:
        """What a run would take to meet a precision, before anything of it runs.

        Fragments are simulated here to see how their outcomes scatter; the backend is not asked.
        They have no noise, but where the options have a `mitigation`: then with the errors of gates
        and readout that the device reports (its `Target`; of several devices, the first that is
        wide enough), as the weights that undo these take more shots, and every noise factor takes
        its own. What a calibration of the readout takes comes on top, once a device.

        Args:
            pubs: As for `run`.
            precision: As for `run`; it must be positive.
            independent: As for `run`.

        Raises:
            InputError: A PUB is not well formed, or its precision is 0.
            PlanTooLargeError: The fragments are too large to be simulated here.

        Example:
            >>> from qiskit import QuantumCircuit
            >>> circuit = QuantumCircuit(2)
            >>> _ = circuit.ry(0.4, [0, 1])
            >>> _ = circuit.cx(0, 1)
            >>> estimator = DistributedEstimator("AB", options=EstimatorOptions(seed=1))
            >>> price = estimator.price([(circuit, "ZZ")], precision=0.01)
            >>> price.circuits, price.optimal < price.uniform < price.quasi_probability
            (10, True)
        """
        if precision is not None:
            check_precision(precision, "precision")
        read = read_pubs(pubs, precision)
        accuracies = [
            replace(self.accuracy(pub.precision), shots=None, budget=None, most=None, reuse=False)
            for pub in read
        ]
        if any(accuracy.exact for accuracy in accuracies):
            raise InputError("`precision` is 0, which takes no shots: give a positive one")
        requests = [request for _, request in _requests(read, accuracies, "price")]
        if independent:
            requests = [_apart(request) for request in requests]
        simulator = self._simulator(self.cuts)
        found = (self._simulated(simulator, request.batch).price(request) for request in requests)
        return sum(found, Price(0, 0, 0, 0, 0.0))

    def _simulator(self, cuts: Cuts) -> Simulator:
        from .pipeline.forecasts import Simulator

        options = self.options
        return Simulator(cuts, self.pipeline.pool, options.setting_basis, options.memory_limit)

    def _simulated(self, simulator: Simulator, batch: Batch) -> Pipeline:
        """What simulates a batch, with the errors that devices report where these are mitigated."""
        mitigation = self.options.mitigation
        if mitigation is None:
            return simulator.noiseless
        from .backends.forecast import forecasts_on

        forecasts = forecasts_on(self.pipeline.backend, simulator.prepared(batch).experiments)
        return simulator.noisy(batch, forecasts, mitigation)

    def noise(self, pub: EstimatorPubLike, device: Any, *, shots: int | None = None) -> NoisePrice:
        """What a device's noise is expected to cost, whole and cut, before anything runs.

        Errors are those that the device reports of its gates and its readout; see
        `distributed_estimator.backends.noise` for what follows, and what is left out. Fragments of
        up to 20 qubits are simulated here with these errors, for the size of the value and for the
        standard error that so many shots leave, pilots included; of others the largest value and
        spread are taken that the observable may have.

        Args:
            pub: A PUB as for `run`; of several values the largest counts.
            device: A Qiskit backend, or a `Target`.
            shots: Shots of each way, in all. None: as many as the cut circuit takes by the options:
                by `shots`, by `shots_total`, or to meet the precision.

        Raises:
            BackendError: A fragment is wider than the device, or cannot be transpiled to it.
            InputError: The PUB is not well formed, or nothing is known of the device's errors.

        Example:
            >>> from qiskit import QuantumCircuit
            >>> from qiskit.providers.fake_provider import GenericBackendV2
            >>> device = GenericBackendV2(3, noise_info=True, seed=1)
            >>> circuit = QuantumCircuit(4)
            >>> _ = circuit.ry(0.4, range(4))
            >>> for qubit in range(3):
            ...     _ = circuit.cx(qubit, qubit + 1)
            >>> found = DistributedEstimator("AABB").noise((circuit, "ZZZZ"), device)
            >>> found.whole is None, found.cut.qubits, 0 < found.cut.infidelity < 0.2
            (True, 2, True)
        """
        from .backends.noise import target_of, without_marks
        from .pipeline.forecasts import forecast_noise

        target = target_of(device)
        total = None if shots is None else check_whole("shots", from_numpy(shots))
        if total is not None and total > MOST_SHOTS:
            raise InputError(f"`shots` is {total}: {MOST_SHOTS} is the most")
        (read,) = read_pubs([pub], None)
        accuracy = self.accuracy(read.precision)
        if accuracy.exact and total is None:
            raise InputError("`precision` is 0, which takes no shots: give `shots`")
        uncut = replace(read, circuit=without_marks(read.circuit))
        whole = self._simulator("A" * read.circuit.num_qubits), merge([uncut])
        cut = self._simulator(self.cuts), merge([read])
        return forecast_noise(whole, cut, target, accuracy, total)

    def probabilities(
        self,
        circuit: QuantumCircuit,
        qubits: Sequence[int],
        parameter_values: Any = None,
        *,
        precision: float | None = None,
        shots_total: int | None = None,
    ) -> Probabilities:
        """Estimate the probabilities of all outcomes of some qubits, in this thread.

        Outcomes are those of measuring the qubits at the end, all others summed over.

        Args:
            circuit: The circuit; its own final measurements are taken off.
            qubits: Up to 12 of its qubits; `qubits[0]` is the least significant bit of an outcome's
                number.
            parameter_values: As of a PUB; several bindings give several distributions.
            precision: Standard error that every probability is to meet, whatever `error_norm` the
                options have; 0: the exact ones. None: as the options say.
            shots_total: Shots in all, for this call; None: as the options say.

        Raises:
            InputError: Qubits or values do not fit the circuit.
            PlanTooLargeError: It does not fit in memory.

        Example:
            >>> from qiskit import QuantumCircuit
            >>> circuit = QuantumCircuit(4)
            >>> _ = circuit.h(0)
            >>> for qubit in range(3):
            ...     _ = circuit.cx(qubit, qubit + 1)
            >>> found = DistributedEstimator("AABB").probabilities(circuit, [0, 3], precision=0)
            >>> [f"{value:.3f}" for value in abs(found.values)]
            ['0.500', '0.000', '0.000', '0.500']
        """
        check_kind("circuit", circuit, QuantumCircuit, "a QuantumCircuit")
        chosen = read_qubits(qubits, circuit.num_qubits)
        if precision is not None:
            check_precision(precision, "precision")
        # Whatever the options say: each probability has a limit of its own.
        accuracy = replace(self.accuracy(precision, shots_total), reuse=False, norm="max")
        shape, batch = batch_of_outcomes(circuit, chosen, parameter_values)
        stop = self._begin()
        try:
            request = Request(batch, accuracy, self.next_run())
            found = self.pipeline.evaluate(request, stop)
            self._count(found)
        finally:
            self._end(stop)
        values, stderrs = found.values.reshape(shape), found.stderrs.reshape(shape)
        metadata = {**brief(found.record), "devices": found.devices.as_dicts}
        return Probabilities(chosen, values, stderrs, metadata, found.record)

    def gradient(self, requests: Sequence[Request]) -> list[Evaluation]:
        """Values of batches and their derivatives, in this thread; see `FragmentGradient`.

        Args:
            requests: Batches with the parameters to differentiate by. A deadline holds for all of
                them together.

        Raises:
            PoolError: The estimator is closed.
        """
        stop = self._begin()
        begun = self.pipeline.conditions.clock()
        evaluations = []
        try:
            for request in requests:
                evaluations.append(self.pipeline.evaluate(request, stop, begun))
                self._count(evaluations[-1])
        finally:
            self._end(stop)
        return evaluations

    def close(self) -> None:
        """Cancel what runs, and end the workers that this estimator has started.

        Closing twice does nothing. A closed estimator refuses to run.
        """
        with self._lock:
            self._closed = True
            stops = list(self._stops)
        for stop in stops:
            stop.ask(_CLOSED)
        self._jobs.shutdown(wait=False)
        if not isinstance(self.pool, Pool | Executor):
            self.pipeline.pool.close()
        if isinstance(self.pipeline.backend, ServiceBackend):
            self.pipeline.backend.close()
        for file in filter(None, (self.journal, self.log, self.trace)):
            file.close()

    def _facts(self) -> dict[str, str]:
        cuts, pool = self.cuts, self.pipeline.pool
        files = {name: getattr(self, name) for name in ("log", "trace", "journal")}
        so_far = f"{counted(self._runs, 'run')}, {counted(self._shots, 'shot')}"
        return {
            "cuts": repr(cuts) if isinstance(cuts, CutPlan) else changed(cuts),
            "backend": self.backend.name,
            "pool": f"{pool.name}, {counted(pool.workers, 'worker')}",
            "options": changes(self.options) or "defaults",
            **{name: str(file.path) for name, file in files.items() if file is not None},
            "so far": so_far + "; closed" * self._closed,
        }

    def _count(self, evaluation: Evaluation) -> None:
        with self._lock:
            self._shots += evaluation.record.shots_total

    def _begin(self) -> Stop:
        with self._lock:
            if self._closed:
                raise PoolError(_ALREADY_CLOSED)
            stop = Stop()
            self._stops.add(stop)
            return stop

    def _end(self, stop: Stop) -> None:
        with self._lock:
            self._stops.discard(stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_brief(self, pubs: Sequence[Pub], accuracies: Sequence[Accuracy]) -> bool:
        """Whether a run is sooner done than handed to a thread, judged by the last one like it."""
        kind, seconds = self._pace
        alike = len({id(pub.circuit) for pub in pubs}) == 1 and all(
            kind == _kind(pubs[0].circuit, accuracy) for accuracy in accuracies
        )
        return alike and sum(pub.size for pub in pubs) * seconds < _BRIEF

    @property
    def default_precision(self) -> float:
        """The options' own; Qiskit's estimators have it, and qiskit-algorithms reads it."""
        return self.options.default_precision

    def accuracy(self, precision: float | None, shots_total: int | None = None) -> Accuracy:
        """What a precision means under these options (DESIGN: 0 is exact, `shots` wins).

        Shots in all that a run was given win over these, but for a precision of 0.
        """
        if precision is None:
            precision = self.options.default_precision
        options = self.options
        if shots_total is not None:
            options = replace(options, shots=None, max_shots=None, shots_total=shots_total)
        if precision == 0:
            return Accuracy(None, 0.0)
        return Accuracy(
            options.shots,
            float(precision),
            options.allocation,
            options.shots_total,
            options.max_shots,
            float(options.circuit_overhead),
            bool(options.reuse_pilots),
            options.error_norm,
        )

    def next_run(self) -> str:
        """A name for the next run, from which its seeds derive."""
        with self._lock:
            self._runs += 1
            return f"{self._entropy} run {self._runs}"

    @property
    def run_id(self) -> str:
        """The run that this estimator's records belong to."""
        return self.pipeline.run_id

    @property
    def num_runs(self) -> int:
        """How many runs were begun; with the seed it decides the noise of the next."""
        return self._runs

    def continue_run(self, run_id: str, num_runs: int) -> None:
        """Go on where another estimator with this one's seed stopped.

        The next run draws what the other's next would have drawn, and its record joins theirs.
        """
        with self._lock:
            self.pipeline.run_id = run_id
            self._runs = num_runs

    def _run(
        self,
        pubs: Sequence[Pub],
        accuracies: Sequence[Accuracy],
        run: str,
        stop: Stop,
        covariance: bool,
        independent: bool,
    ) -> EstimatorResult:
        begun = self.pipeline.conditions.clock()
        results: dict[int, EstimatorPubResult] = {}
        metadata: dict[str, Any] = {"version": 2}
        ends = np.cumsum([0, *(pub.size for pub in pubs)])
        if covariance:
            metadata["covariance"] = np.zeros((ends[-1], ends[-1]))
        for members, request in _requests(pubs, accuracies, run):
            chosen, accuracy = [pubs[number] for number in members], request.accuracy
            request = replace(_apart(request) if independent else request, covariance=covariance)
            evaluation = self.pipeline.evaluate(request, stop, begun)
            self._count(evaluation)
            record = evaluation.record
            seconds = record.t_total / max(1, record.num_queries)
            self._pace = _kind(chosen[0].circuit, accuracy), seconds
            parts = _split(evaluation, chosen, accuracy)
            results.update(zip(members, parts, strict=True))
            if evaluation.covariance is not None:
                places = np.concatenate([np.arange(ends[n], ends[n + 1]) for n in members])
                metadata["covariance"][np.ix_(places, places)] = evaluation.covariance
        return EstimatorResult([results[n] for n in range(len(pubs))], metadata=metadata)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for live in ("pipeline", "_lock", "_jobs", "_stops"):
            del state[live]
        if isinstance(self.pool, Pool | Executor):
            state["pool"] = "threads"
        state["journal"] = None  # two cannot write one
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _requests(
    pubs: Sequence[Pub], accuracies: Sequence[Accuracy], run: str
) -> Iterator[tuple[list[int], Request]]:
    """PUBs on one circuit and with one accuracy, by their numbers, and what to evaluate of them."""
    groups: dict[tuple[int, Accuracy], list[int]] = {}
    for number, (pub, accuracy) in enumerate(zip(pubs, accuracies, strict=True)):
        groups.setdefault((id(pub.circuit), accuracy), []).append(number)
    for place, ((_, accuracy), members) in enumerate(groups.items()):
        batch = merge([pubs[number] for number in members])
        yield members, Request(batch, accuracy, f"{run} batch {place}")


def _apart(request: Request) -> Request:
    """With shots of its own for every query."""
    return replace(request, batch=request.batch.with_own_bindings(), independent=True)


def _split(
    evaluation: Evaluation, pubs: Sequence[Pub], accuracy: Accuracy
) -> Iterable[EstimatorPubResult]:
    """The part of a batch's results that belongs to each PUB."""
    metadata = {
        **brief(evaluation.record),
        "target_precision": accuracy.precision,
        "error_norm": accuracy.norm,
        "product_formulas": list(evaluation.product_formulas),
        "devices": evaluation.devices.as_dicts,
    }
    start = 0
    for pub in pubs:
        stop = start + pub.size
        stderrs = evaluation.stderrs[start:stop]
        data = DataBin(
            evs=evaluation.values[start:stop].reshape(pub.shape),
            stds=stderrs.reshape(pub.shape),
            shape=pub.shape,
        )
        norms = Norms.of_groups(np.zeros(pub.size, dtype=np.intp), accuracy.norm)
        reached = float(norms.of(stderrs).max(initial=0.0))
        metadata = {**metadata, "reached_precision": reached}
        yield EstimatorPubResult(data, metadata, evaluation.record)
        start = stop


def _backend(backend: AnyBackend | Sequence[AnyBackend] | None, limit: int | None) -> Backend:
    if backend is None:
        return StatevectorBackend(limit)
    from .backends.device_list import backend_from
    from .backends.devices import Devices

    return Devices(backend) if isinstance(backend, list | tuple) else backend_from(backend)


def _kind(circuit: QuantumCircuit, accuracy: Accuracy) -> tuple[int, int, Accuracy]:
    return circuit.num_qubits, len(circuit.data), accuracy
