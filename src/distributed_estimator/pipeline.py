"""Algorithm 1: a batch of queries through its four stages, timed and recorded.

partition   the plan and what of it can reach the observables            (cached by structure)
generate    angles, distinct local bindings, tasks
execute     tasks on the pool; fragment tensors fill up as results arrive
reconstruct values and standard errors, or gradients, from the tensors
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import psutil
from numpy.typing import NDArray

from .batch import Accuracy, Batch, Evaluation
from .cutting import AutoCut, CutPlan, Labels, SettingBasis
from .errors import BackendError, PlanTooLargeError
from .execution import Pool, run_tasks
from .preparation import Preparation
from .reconstruction import FragmentTensor, Queries, Reconstruction
from .records import QueryRecord, RecordWriter, Summary, new_run_id, utc_now
from .subexperiments import (
    PILOT_SHOTS,
    PILOTS,
    Backend,
    FragmentEstimate,
    Shifts,
    Task,
    make_tasks,
    shots_after_failing,
    shots_for_slopes,
    shots_to_meet,
    unique_rows,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_MOST_ROUNDS = 12

_ALWAYS_FREE = 64 << 20


class Pipeline:
    """The four stages over a backend and a pool."""

    def __init__(
        self,
        cuts: Labels | AutoCut | CutPlan | None,
        backend: Backend,
        pool: Pool,
        *,
        basis: SettingBasis = "full",
        memory_limit: int | None = None,
        log: RecordWriter | None = None,
        seed: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.preparation = Preparation(cuts, basis)
        self.backend = backend
        self.pool = pool
        self.basis = basis
        self.log = log
        self.clock = clock
        self.seed = seed
        self.run_id = new_run_id()
        self._memory_limit = memory_limit

    def evaluate(self, batch: Batch, accuracy: Accuracy, run: str) -> Evaluation:
        """Values and standard errors of a batch.

        Args:
            batch: The queries.
            accuracy: How well they must be known.
            run: Names this evaluation; everything random derives from it.

        Raises:
            BackendError: The backend cannot give what is asked, or failed.
            PlanTooLargeError: It would not fit in memory.
        """
        session = self._session(batch, accuracy)
        values, stderrs = session.values_to(accuracy, run)
        return self._finish(values, stderrs, session.record(values, stderrs, "value"))

    def gradient(
        self, batch: Batch, accuracy: Accuracy, run: str, parameters: Sequence[int]
    ) -> Evaluation:
        """A batch's values and their derivatives by some of the circuit's parameters.

        Args:
            batch: The queries.
            accuracy: How well *values* must be known; derivatives take the same shots, and at
                least as many as an uncut derivative would.
            run: Names this evaluation; everything random derives from it.
            parameters: Numbers of the parameters wanted.
        """
        session = self._session(batch, accuracy)
        shots = session.shots_for(accuracy, run)
        if shots is not None and accuracy.shots is None:
            weights = batch.observables.weights
            shots = max(shots, shots_for_slopes(accuracy.precision, weights))
        values, gradients = session.gradients(shots, f"{run} gradient", parameters)
        stderrs = np.zeros(0)
        record = session.record(values, stderrs, "gradient")
        return self._finish(values, stderrs, record, gradients)

    def exceeds_memory(self, size: int) -> bool:
        """Whether so many bytes are too many. Free memory is asked for only where it matters."""
        if self._memory_limit is None and size < _ALWAYS_FREE:
            return False
        return size > self.memory_limit()

    def memory_limit(self) -> int:
        """Bytes a batch may take: as configured, or half of what is free now."""
        return self._memory_limit or psutil.virtual_memory().available // 2

    def _session(self, batch: Batch, accuracy: Accuracy) -> _Session:
        if accuracy.exact and not self.backend.exact:
            raise BackendError(
                f"`precision` is 0, but the backend {self.backend.name} samples: ask for a "
                "positive precision, set `shots`, or use the statevector backend (backend=None)"
            )
        return _Session(self, batch, accuracy)

    def _finish(
        self,
        values: FloatArray,
        stderrs: FloatArray,
        record: QueryRecord,
        gradients: FloatArray | None = None,
    ) -> Evaluation:
        if self.log is not None:
            self.log.write(record)
        return Evaluation(values, stderrs, record, gradients)


class _Session:
    """One batch on its way through the stages."""

    def __init__(self, pipeline: Pipeline, batch: Batch, accuracy: Accuracy) -> None:
        self.pipeline = pipeline
        self.batch = batch
        self.accuracy = accuracy
        self.started_at = utc_now()
        self.times = dict.fromkeys(_STAGES, 0.0)
        self.shots: int | None = None
        self.num_subexperiments = 0
        self.shots_total = 0
        self.first_order = 0
        self._mark = pipeline.clock()
        self.prepared, self.plan_cached = pipeline.preparation.prepare(
            batch.circuit, batch.observables
        )
        self.plan = self.prepared.plan
        self._lap("partition")
        self.angles = self.plan.normal.angles.evaluate(batch.values)

    def values_to(self, accuracy: Accuracy, run: str) -> tuple[FloatArray, FloatArray]:
        """Values and standard errors that meet `accuracy`."""
        if accuracy.exact:
            values, _ = self._values(None, run)
            return values, np.zeros_like(values)
        if accuracy.shots is not None:
            return self._values(accuracy.shots, run)
        shots = self.shots_for(accuracy, run)
        assert shots is not None
        for attempt in range(_MOST_ROUNDS):
            values, stderrs = self._values(shots, f"{run} round {attempt}")
            worst = float(stderrs.max(initial=0.0))
            if worst <= accuracy.precision:
                return values, stderrs
            shots = shots_after_failing(shots, worst, accuracy.precision)
        raise BackendError(
            f"precision {accuracy.precision:g} was not met with {shots} shots a subexperiment "
            f"(standard error {worst:.3g}): ask for a larger precision"
        )

    def shots_for(self, accuracy: Accuracy, run: str) -> int | None:
        """Shots per subexperiment at which values meet `accuracy`, from pilots of their own."""
        if accuracy.exact or accuracy.shots is not None:
            return accuracy.shots
        pilots = [self._sample(PILOT_SHOTS, f"{run} pilot {p}") for p in range(PILOTS)]
        orders = np.array([pilot.variance_orders() for pilot in pilots])
        shots = shots_to_meet(accuracy.precision, orders[:, 0], orders[:, 1])
        self._lap("reconstruct")
        return shots

    def _values(self, shots: int | None, run: str) -> tuple[FloatArray, FloatArray]:
        reconstruction = self._sample(shots, run)
        values = reconstruction.values()
        stderrs = np.zeros_like(values)
        if shots is not None:
            stderrs, self.first_order = reconstruction.standard_errors(values)
        self._lap("reconstruct")
        return values, stderrs

    def _sample(self, shots: int | None, run: str) -> Reconstruction:
        rows, inverses = self._local_rows()
        tensors = self._execute(rows, shots, run, covariances=True)
        return self._reconstruction(tensors, inverses)

    def gradients(
        self, shots: int | None, run: str, parameters: Sequence[int]
    ) -> tuple[FloatArray, FloatArray]:
        """Values, and derivatives of shape (queries, parameters)."""
        table = self.plan.normal.angles
        shifts = self.prepared.shifts(tuple(parameters))
        base, inverses = self._local_rows()
        rows = [s.rows(b) for s, b in zip(shifts, base, strict=True)]
        tensors = self._execute(rows, shots, run, covariances=False)
        reconstruction = self._reconstruction(tensors, inverses)
        by_angle = self._by_angle(reconstruction, shifts, parameters)
        jacobian = table.jacobian(self.batch.values)[:, list(parameters)]
        if len(jacobian) > 1:
            jacobian = jacobian[self.batch.binding]
        gradients = (jacobian @ by_angle[:, :, None])[:, :, 0]
        values = reconstruction.values()
        self._lap("reconstruct")
        return values, gradients

    def _by_angle(
        self, reconstruction: Reconstruction, shifts: Sequence[Shifts], parameters: Sequence[int]
    ) -> FloatArray:
        """Derivatives of every query by every gate angle, shape (queries, angles)."""
        queries, plan = reconstruction.queries, self.plan
        fragments = [
            (number, shift.columns, shift.derivatives(reconstruction.tensors[number].values))
            for number, shift in enumerate(shifts)
            if shift.angles
        ]
        wanted = frozenset(parameters)
        cores = [
            (len(plan.fragments) + number, column, cut.core_slopes(self.angles, index))
            for number, cut in enumerate(plan.cuts)
            for index, column in enumerate(cut.angles)
            if wanted & plan.normal.angles.depends_on(column)
        ]
        result = np.zeros((queries.count, self.angles.shape[1]))
        for part, environments in reconstruction.environments():
            entries = np.zeros((part.stop - part.start, result.shape[1]))
            for number, columns, slopes in fragments:
                chosen = slopes[:, queries.rows[number][part], queries.paulis[number][part]]
                environment = environments[number].reshape(len(entries), -1)
                entries[:, columns] = np.einsum("aer,er->ea", chosen, environment)
            for leaf, column, slopes in cores:
                chosen = slopes[queries.binding[part]]
                entries[:, column] = np.einsum("ers,ers->e", chosen, environments[leaf])
            np.add.at(result, queries.query[part], queries.weight[part, None] * entries)
        return result

    def _local_rows(self) -> tuple[list[FloatArray], list[IntArray]]:
        local = [unique_rows(self.angles[:, f.angles]) for f in self.plan.fragments]
        return [rows for rows, _ in local], [inverse for _, inverse in local]

    def _execute(
        self, rows: Sequence[FloatArray], shots: int | None, run: str, *, covariances: bool
    ) -> list[FragmentTensor]:
        """Generate the tasks of all fragments and run them; fold results in as they arrive."""
        experiments = self.prepared.experiments
        covariances = covariances and shots is not None
        self._check_memory(rows, shots, covariances=covariances)
        tensors = [FragmentTensor(e, len(r)) for e, r in zip(experiments, rows, strict=True)]
        tasks = [
            task
            for number, (experiment, angles) in enumerate(zip(experiments, rows, strict=True))
            if not experiment.is_trivial
            for task in make_tasks(
                number,
                experiment,
                angles,
                shots,
                run,
                rows_per_task=self.pipeline.backend.rows_per_task(experiment),
                covariances=covariances,
            )
        ]
        for task in tasks:
            ran = len(task.angles) * experiments[task.experiment].num_circuits
            self.num_subexperiments += ran
            self.shots_total += ran * (shots or 0)
        self.shots = shots
        self._lap("generate")

        def fold(task: Task, estimate: FragmentEstimate, overlapped: bool) -> None:
            before = self.pipeline.clock()
            tensors[task.experiment].add(task, estimate)
            if overlapped:
                self.times["overlapped"] += self.pipeline.clock() - before

        run_tasks(self.pipeline.pool, self.pipeline.backend, experiments, tasks, fold)
        self._lap("execute")
        return tensors

    def _reconstruction(
        self, tensors: Sequence[FragmentTensor], inverses: Sequence[IntArray]
    ) -> Reconstruction:
        queries = Queries.build(
            self.batch.observables,
            self.batch.observable,
            self.batch.binding,
            inverses,
            self.prepared.term_paulis,
        )
        return Reconstruction(self.plan, self.prepared.network, tensors, queries, self.angles)

    def _check_memory(
        self, rows: Sequence[FloatArray], shots: int | None, *, covariances: bool
    ) -> None:
        backend, workers = self.pipeline.backend, self.pipeline.pool.workers
        needs = []
        for experiment, angles in zip(self.prepared.experiments, rows, strict=True):
            at_once = min(len(angles), workers * backend.rows_per_task(experiment))
            worker = 0 if experiment.is_trivial else backend.row_bytes(experiment, shots)
            result = experiment.result_bytes(covariances=covariances)
            needs.append(at_once * worker + len(angles) * result)
        query = 8 * self.prepared.network.elements_per_query(squared=covariances)
        total = sum(needs) + query
        if self.pipeline.exceeds_memory(total):
            self._refuse(total, needs, query, sampled=shots is not None)

    def _refuse(self, total: int, needs: Sequence[int], network: int, *, sampled: bool) -> None:
        limit = self.pipeline.memory_limit()
        worst = needs.index(max(needs))
        fragment = self.plan.fragments[worst]
        exact = "ask for exact values, " if sampled and self.pipeline.backend.exact else ""
        raise PlanTooLargeError(
            f"the plan needs {_gib(total)} of memory, the limit is {_gib(limit)}: fragment {worst} "
            f"({fragment.num_qubits} qubits, {len(fragment.slots)} slots, "
            f"{_short(fragment.num_branches)} branches) takes {_gib(needs[worst])}, the "
            f"contraction {_gib(network)} (number of cuts {self.plan.num_cuts}, circuits a "
            f"binding {_short(self._num_circuits)}, sampling overhead "
            f"{self.plan.sampling_overhead:.3g}); cut fewer gates of that fragment, give it fewer "
            f"qubits, send fewer bindings a run, {exact}or raise `memory_limit`"
        )

    @property
    def _num_circuits(self) -> int:
        return sum(e.num_circuits for e in self.prepared.experiments if not e.is_trivial)

    def _lap(self, stage: str) -> None:
        now = self.pipeline.clock()
        self.times[stage] += now - self._mark
        self._mark = now

    def record(self, values: FloatArray, stderrs: FloatArray, quantity: str) -> QueryRecord:
        """The record of the batch as it stands."""
        pipeline, plan, times = self.pipeline, self.plan, self.times
        return QueryRecord(
            run_id=pipeline.run_id,
            query_id=new_run_id(),
            started_at=self.started_at,
            pipeline="contracted",
            quantity=quantity,
            circuit=self.prepared.circuit_info,
            num_queries=len(self.batch.observable),
            partition_label=plan.label,
            num_cuts=plan.num_cuts,
            num_fragments=plan.num_fragments,
            num_terms=plan.num_terms,
            num_subexperiments=self.num_subexperiments,
            num_circuits=self._num_circuits,
            shots=self.shots,
            shots_total=self.shots_total,
            setting_basis=pipeline.basis,
            backend=pipeline.backend.name,
            pool=pipeline.pool.name,
            subexp_workers=pipeline.pool.workers,
            policy="eager",
            t_partition=times["partition"],
            t_generate=times["generate"],
            t_execute=times["execute"],
            t_reconstruct=times["reconstruct"],
            t_overlapped=times["overlapped"],
            t_total=math.fsum(times[stage] for stage in _STAGES[:4]),
            plan_cached=self.plan_cached,
            value=Summary.of(values),
            stderr=Summary.of(stderrs),
            stderr_first_order=self.first_order,
            precision=None if self.accuracy.shots is not None else self.accuracy.precision,
            seed=pipeline.seed,
        )


_STAGES = ("partition", "generate", "execute", "reconstruct", "overlapped")


def _gib(size: int) -> str:
    return f"{min(size, 10**300) / 2**30:.3g} GiB"


def _short(count: int) -> str:
    return str(count) if count < 10**7 else f"{min(count, 10**300):.3g}"
