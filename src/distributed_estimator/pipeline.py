"""Algorithm 1: a batch of queries through its four stages, timed and recorded.

partition   the plan and what of it can reach the observables            (cached by structure)
generate    angles, distinct local bindings, tasks
execute     tasks on the pool; fragment tensors fill up as results arrive
reconstruct values and standard errors, or gradients, from the tensors
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .batch import Accuracy, Batch, Evaluation
from .cutting import AutoCut, CutPlan, Labels, SettingBasis
from .derivatives import derivatives_by_angle
from .errors import BackendError, DeadlineError
from .execution import Arrays, Conditions, Pool, Stop, Tally, one_thread
from .memory import MemoryLimit, Need
from .preparation import Preparation
from .reconstruction import Queries, Reconstruction, SliceWork, Wanted, run_here
from .records import QueryRecord, RecordWriter, Summary, new_run_id, utc_now
from .rounds import Round, Trace, influences, run_slices, straggler_info
from .subexperiments import (
    PILOT_SHOTS,
    PILOTS,
    Backend,
    shots_after_failing,
    shots_for_slopes,
    shots_to_meet,
    unique_rows,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_MOST_ROUNDS = 12
_ONE_CORE_BYTES = 1 << 20
"""A batch that takes more holds BLAS to one thread: with several, it adds up in another order."""


class Pipeline:
    """The four stages over a backend and a pool.

    Args:
        cuts: Where to cut.
        backend: What evaluates subexperiments.
        pool: Where tasks run.
        conditions: How they do; its clock also times the stages.
        basis: Settings at a cut.
        memory_limit: Bytes a batch may take; None: half of what is free.
        log: Where query records go.
        trace: Where task records go.
        seed: For records; the seeds themselves derive from the names of runs.
    """

    def __init__(
        self,
        cuts: Labels | AutoCut | CutPlan | None,
        backend: Backend,
        pool: Pool,
        conditions: Conditions | None = None,
        *,
        basis: SettingBasis = "full",
        memory_limit: int | None = None,
        log: RecordWriter | None = None,
        trace: RecordWriter | None = None,
        seed: int | None = None,
    ) -> None:
        self.preparation = Preparation(cuts, basis, backend)
        self.backend = backend
        self.pool = pool
        self.conditions = conditions or Conditions()
        self.basis = basis
        self.log = log
        self.trace = trace
        self.seed = seed
        self.run_id = new_run_id()
        self.memory = MemoryLimit(memory_limit)

    def evaluate(
        self, batch: Batch, accuracy: Accuracy, run: str, stop: Stop | None = None
    ) -> Evaluation:
        """Values and standard errors of a batch.

        Args:
            batch: The queries.
            accuracy: How well they must be known.
            run: Names this evaluation; everything random derives from it.
            stop: Ends it early.

        Raises:
            BackendError: The backend cannot give what is asked, or failed.
            PlanTooLargeError: It would not fit in memory.
            PoolError: Workers could not be started or reached.
            RunCancelledError: It was asked to stop.
        """
        with self._session(batch, accuracy, stop) as session:
            values, stderrs = session.values_to(accuracy, run)
            return self._finish(values, stderrs, session.record(values, stderrs, "value"))

    def gradient(
        self,
        batch: Batch,
        accuracy: Accuracy,
        run: str,
        parameters: Sequence[int],
        stop: Stop | None = None,
    ) -> Evaluation:
        """A batch's values and their derivatives by some of the circuit's parameters.

        Args:
            batch: The queries.
            accuracy: How well *values* must be known; derivatives take the same shots, and at
                least as many as an uncut derivative would.
            run: Names this evaluation; everything random derives from it.
            parameters: Numbers of the parameters wanted.
            stop: Ends it early.
        """
        with self._session(batch, accuracy, stop) as session:
            shots = session.shots_for(accuracy, run)
            if shots is not None and accuracy.shots is None:
                weights = batch.observables.weights
                shots = max(shots, shots_for_slopes(accuracy.precision, weights))
            values, gradients = session.gradients(shots, f"{run} gradient", parameters)
            stderrs = np.zeros(0)
            record = session.record(values, stderrs, "gradient")
            return self._finish(values, stderrs, record, gradients)

    def _session(self, batch: Batch, accuracy: Accuracy, stop: Stop | None = None) -> _Session:
        if accuracy.exact and not self.backend.exact:
            raise BackendError(
                f"`precision` is 0, but the backend {self.backend.name} samples: ask for a "
                "positive precision, set `shots`, or use the statevector backend (backend=None)"
            )
        return _Session(self, batch, accuracy, replace(self.conditions, stop=stop))

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


class _Session(ExitStack):
    """One batch on its way through the stages; what it needs meanwhile is given back at the end."""

    def __init__(
        self, pipeline: Pipeline, batch: Batch, accuracy: Accuracy, conditions: Conditions
    ) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.conditions = conditions
        self.batch = batch
        self.accuracy = accuracy
        self.query_id = new_run_id()
        self.started_at = utc_now()
        self.times = dict.fromkeys(_STAGES, 0.0)
        self.shots_range = 0, 0
        self.num_subexperiments = 0
        self.shots_total = 0
        self.first_order = 0
        self.tally = Tally()
        self.missing = 0
        self._mark = self._begun = conditions.clock()
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
            if worst <= accuracy.precision or self.missing:  # out of time: it gets no better
                return values, stderrs
            taken = self.shots_range[1]
            shots = shots_after_failing(max(shots, taken), worst, accuracy.precision)
        raise BackendError(
            f"precision {accuracy.precision:g} was not met with {taken} shots a subexperiment "
            f"(standard error {worst:.3g}): ask for a larger precision"
        )

    def shots_for(self, accuracy: Accuracy, run: str) -> int | None:
        """Shots per subexperiment at which values meet `accuracy`, from pilots of their own."""
        if accuracy.exact or accuracy.shots is not None:
            return accuracy.shots
        pilots, taken = [], PILOT_SHOTS
        for pilot in range(PILOTS):
            pilots.append(self._sample(PILOT_SHOTS, f"{run} pilot {pilot}", "orders"))
            taken = max(taken, self.shots_range[1])
        orders = np.array([pilot.variance_orders() for pilot in pilots])
        shots = shots_to_meet(accuracy.precision, orders[:, 0], orders[:, 1], taken)
        self._lap("reconstruct")
        return shots

    def _values(self, shots: int | None, run: str) -> tuple[FloatArray, FloatArray]:
        reconstruction = self._sample(shots, run, "values" if shots is None else "errors")
        values = reconstruction.values()
        stderrs = np.zeros_like(values)
        if shots is not None:
            stderrs, self.first_order = reconstruction.standard_errors(values)
        self._lap("reconstruct")
        return values, stderrs

    def _sample(self, shots: int | None, run: str, wanted: Wanted) -> Reconstruction:
        rows, inverses = self._local_rows()
        return self._execute(rows, inverses, shots, run, wanted)

    def gradients(
        self, shots: int | None, run: str, parameters: Sequence[int]
    ) -> tuple[FloatArray, FloatArray]:
        """Values, and derivatives of shape (queries, parameters)."""
        table = self.plan.normal.angles
        shifts = self.prepared.shifts(tuple(parameters))
        base, inverses = self._local_rows()
        rows = [s.rows(b) for s, b in zip(shifts, base, strict=True)]
        reconstruction = self._execute(rows, inverses, shots, run, "environments")
        by_angle = derivatives_by_angle(self.plan, reconstruction, shifts, self.angles, parameters)
        jacobian = table.jacobian(self.batch.values)[:, list(parameters)]
        if len(jacobian) > 1:
            jacobian = jacobian[self.batch.binding]
        gradients = (jacobian @ by_angle[:, :, None])[:, :, 0]
        values = reconstruction.values()
        self._lap("reconstruct")
        return values, gradients

    def _local_rows(self) -> tuple[list[FloatArray], list[IntArray]]:
        local = [unique_rows(self.angles[:, f.angles]) for f in self.plan.fragments]
        return [rows for rows, _ in local], [inverse for _, inverse in local]

    def _execute(
        self,
        rows: Sequence[FloatArray],
        inverses: Sequence[IntArray],
        shots: int | None,
        run: str,
        wanted: Wanted,
    ) -> Reconstruction:
        """Generate the tasks of all fragments and run them; fold results in as they arrive."""
        conditions = self._conditions_now()
        round_, reconstruction = self._generate(rows, inverses, shots, run, wanted)
        self._lap("generate")
        tally, overlapped = round_.execute(
            self.pipeline.pool, conditions, self._trace(), reconstruction.fragment_complete
        )
        self.times["overlapped"] += overlapped
        self.tally.add(tally)
        self.missing += len(tally.missing)
        self.shots_range = round_.shots_range
        subexperiments, spent = round_.ran(tally)
        self.num_subexperiments += subexperiments
        self.shots_total += spent
        self._lap("execute")
        return reconstruction

    def _generate(
        self,
        rows: Sequence[FloatArray],
        inverses: Sequence[IntArray],
        shots: int | None,
        run: str,
        wanted: Wanted,
    ) -> tuple[Round, Reconstruction]:
        """The tasks of all fragments, if there is memory for them, and what reads their results."""
        pipeline, prepared, batch = self.pipeline, self.prepared, self.batch
        policy, workers = self.conditions.policy, pipeline.pool.workers
        need = Need(prepared, pipeline.backend, workers, rows, shots, wanted, policy)
        most_elements = pipeline.memory.check(need)
        if need.total > _ONE_CORE_BYTES:
            self.enter_context(one_thread())
        round_ = Round(
            prepared,
            pipeline.backend,
            policy,
            rows,
            shots,
            run,
            covariances=wanted in ("errors", "orders"),
            influences=influences(policy, rows, inverses, batch.binding),
        )
        queries = Queries.build(
            batch.observables, batch.observable, batch.binding, inverses, prepared.term_paulis
        )
        reconstruction = Reconstruction(
            self.plan,
            prepared.network,
            round_.tensors,
            queries,
            self.angles,
            wanted=wanted,
            most_elements=most_elements,
            run_slices=self._run_slices,
        )
        return round_, reconstruction

    def _run_slices(self, work: SliceWork, tasks: Sequence[int]) -> Sequence[Arrays]:
        """Run slices on the pool, or here where they would not fit side by side."""
        pipeline = self.pipeline
        if pipeline.memory.is_exceeded(8 * work.elements * pipeline.pool.workers):
            return list(run_here(work, tasks))
        results, tally = run_slices(pipeline.pool, work, tasks, self.conditions)
        self.tally.add(tally)
        return results

    def _conditions_now(self) -> Conditions:
        """With what is left of the time until the deadline."""
        conditions = self.conditions
        deadline = conditions.policy.deadline
        if deadline is None:
            return conditions
        left = self._begun + deadline.seconds - conditions.clock()
        if left <= 0:
            raise DeadlineError(
                f"after {deadline.seconds:g} s the run had just begun: give a later deadline"
            )
        policy = replace(conditions.policy, deadline=replace(deadline, seconds=left))
        return replace(conditions, policy=policy)

    def _trace(self) -> Trace | None:
        log = self.pipeline.trace
        if log is None:
            return None
        return Trace(log, self.pipeline.run_id, self.query_id, self._begun)

    def _lap(self, stage: str) -> None:
        now = self.conditions.clock()
        self.times[stage] += now - self._mark
        self._mark = now

    def record(self, values: FloatArray, stderrs: FloatArray, quantity: str) -> QueryRecord:
        """The record of the batch as it stands."""
        pipeline, plan, times, tally = self.pipeline, self.plan, self.times, self.tally
        fewest, most = self.shots_range
        return QueryRecord(
            run_id=pipeline.run_id,
            query_id=self.query_id,
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
            num_circuits=self.prepared.num_circuits,
            shots=most if 0 < fewest == most else None,
            shots_total=self.shots_total,
            setting_basis=pipeline.basis,
            backend=pipeline.backend.name,
            pool=pipeline.pool.name,
            subexp_workers=pipeline.pool.workers,
            policy=self.conditions.policy.name,
            straggler=straggler_info(self.conditions.stragglers, tally),
            t_partition=times["partition"],
            t_generate=times["generate"],
            t_execute=times["execute"],
            t_reconstruct=times["reconstruct"],
            t_overlapped=times["overlapped"],
            t_total=math.fsum(times[stage] for stage in _STAGES[:4]),
            plan_cached=self.plan_cached,
            retries=tally.retries,
            speculated=tally.speculated,
            missing=self.missing,
            value=Summary.of(values),
            stderr=Summary.of(stderrs),
            stderr_first_order=self.first_order,
            precision=None if self.accuracy.shots is not None else self.accuracy.precision,
            seed=pipeline.seed,
        )


_STAGES = ("partition", "generate", "execute", "reconstruct", "overlapped")
