"""Algorithm 1: a batch of queries through its four stages, timed and recorded.

partition   the plan and what of it can reach the observables            (cached by structure)
generate    angles, distinct local bindings, tasks
execute     tasks on the pool; fragment tensors fill up as results arrive
reconstruct values and standard errors, or gradients, from the tensors
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .backends.seeds import Repetition
from .batch import Accuracy, Batch, Evaluation
from .cutting import AutoCut, CutPlan, Labels, SettingBasis
from .derivatives import (
    derivatives_by_angle,
    derivatives_by_parameter,
    influences_measured,
    influences_of_terms,
    slopes_of_angles,
)
from .errors import BackendError, PlanTooLargeError
from .execution import Arrays, Conditions, LargestInfluenceFirst, Pool, Stop, one_thread
from .memory import MemoryLimit, Need
from .preparation import Preparation
from .reconstruction import Queries, Reconstruction, SliceWork, Wanted, run_here
from .records import QueryRecord, RecordWriter, Summary, new_run_id, utc_now
from .rounds import Round, Spent, Trace, in_time, run_slices, straggler_info
from .subexperiments import (
    PILOT_SHOTS,
    PILOTS,
    Backend,
    Estimate,
    ShotsTaken,
    meet_precision,
    shots_for_slopes,
    shots_to_meet,
    unique_rows,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

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
        self.repetition = Repetition()

    def evaluate(
        self,
        batch: Batch,
        accuracy: Accuracy,
        run: str,
        stop: Stop | None = None,
        begun: float | None = None,
    ) -> Evaluation:
        """Values and standard errors of a batch.

        Args:
            batch: The queries.
            accuracy: How well they must be known.
            run: Names this evaluation; everything random derives from it.
            stop: Ends it early.
            begun: When whatever has the deadline began, on the conditions' clock; None: now.

        Raises:
            BackendError: The backend cannot give what is asked, or failed.
            DeadlineError: Some circuits had no shots at all when the deadline came.
            PlanTooLargeError: It would not fit in memory.
            PoolError: Workers could not be started or reached.
            RunCancelledError: It was asked to stop.
        """
        with self._session(batch, accuracy, stop, begun) as session:
            estimate = session.estimate_to(accuracy, run)
            return self._finish(session, estimate, "value")

    def gradient(
        self,
        batch: Batch,
        accuracy: Accuracy,
        run: str,
        parameters: Sequence[int],
        stop: Stop | None = None,
        begun: float | None = None,
    ) -> Evaluation:
        """A batch's values and their derivatives by some of the circuit's parameters.

        Args:
            batch: The queries.
            accuracy: How well *values* must be known; derivatives take the same shots, and at
                least as many as an uncut derivative would.
            run: Names this evaluation; everything random derives from it.
            parameters: Numbers of the parameters wanted.
            stop: Ends it early.
            begun: As for `evaluate`.
        """
        with self._session(batch, accuracy, stop, begun) as session:
            shots = session.shots_for(accuracy, run)
            if shots is not None and accuracy.shots is None:
                weights = batch.observables.weights
                shots = max(shots, shots_for_slopes(accuracy.precision, weights))
            estimate, gradients = session.gradients(shots, f"{run} gradient", parameters)
            return self._finish(session, estimate, "gradient", gradients)

    def _session(
        self, batch: Batch, accuracy: Accuracy, stop: Stop | None, begun: float | None
    ) -> _Session:
        if accuracy.exact and not self.backend.exact:
            raise BackendError(
                f"`precision` is 0, but the backend {self.backend.name} samples: ask for a "
                "positive precision, set `shots`, or use the statevector backend (backend=None)"
            )
        return _Session(self, batch, accuracy, replace(self.conditions, stop=stop), begun)

    def _finish(
        self,
        session: _Session,
        estimate: Estimate,
        quantity: str,
        gradients: FloatArray | None = None,
    ) -> Evaluation:
        record = session.record(estimate, quantity)
        if self.log is not None:
            self.log.write(record)
        formulas = session.plan.normal.product_formulas
        return Evaluation(estimate.values, estimate.stderrs, record, gradients, formulas)


class _Session(ExitStack):
    """One batch on its way through the stages; what it needs meanwhile is given back at the end."""

    def __init__(
        self,
        pipeline: Pipeline,
        batch: Batch,
        accuracy: Accuracy,
        conditions: Conditions,
        begun: float | None,
    ) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.conditions = conditions
        self.batch = batch
        self.accuracy = accuracy
        self.query_id = new_run_id()
        self.started_at = utc_now()
        self.times = dict.fromkeys(_STAGES, 0.0)
        self.shots_taken = ShotsTaken()
        self.spent = Spent()
        self._measured: list[FloatArray] | None = None
        self._mark = self._begun = conditions.clock()
        deadline = conditions.policy.deadline
        began = self._begun if begun is None else begun
        self._end = math.inf if deadline is None else began + deadline.seconds
        self.prepared, self.plan_cached = pipeline.preparation.prepare(
            batch.circuit, batch.observables
        )
        self.plan = self.prepared.plan
        self._lap("partition")
        self.angles = self.plan.normal.angles.evaluate(batch.values)

    def estimate_to(self, accuracy: Accuracy, run: str) -> Estimate:
        """Values and standard errors that meet `accuracy`, or are the best in time."""
        if accuracy.exact or accuracy.shots is not None:
            return self._estimate(accuracy.shots, run)
        shots = self.shots_for(accuracy, run)
        assert shots is not None
        return meet_precision(
            accuracy.precision,
            shots,
            lambda number, shots: self._estimate(shots, f"{run} round {number}"),
            lambda: self.conditions.clock() >= self._end,
        )

    def shots_for(self, accuracy: Accuracy, run: str) -> int | None:
        """Shots per subexperiment at which values meet `accuracy`, from pilots of their own."""
        if accuracy.exact or accuracy.shots is not None:
            return accuracy.shots
        pilots, taken = [], PILOT_SHOTS
        for pilot in range(PILOTS):
            pilots.append(self._sample(PILOT_SHOTS, f"{run} pilot {pilot}", "orders"))
            taken = max(taken, self.shots_taken.most)
        orders = np.array([pilot.variance_orders() for pilot in pilots])
        shots = shots_to_meet(accuracy.precision, orders[:, 0], orders[:, 1], taken)
        if self._by_influence:
            with suppress(PlanTooLargeError):  # then the order goes by the observables alone
                self._measured = influences_measured(pilots[-1])
        self._lap("reconstruct")
        return shots

    def _estimate(self, shots: int | None, run: str) -> Estimate:
        reconstruction = self._sample(shots, run, "values" if shots is None else "errors")
        values = reconstruction.values()
        stderrs, first_order = np.zeros_like(values), 0
        if shots is not None:
            stderrs, first_order = reconstruction.standard_errors(values)
        self._lap("reconstruct")
        return Estimate(values, stderrs, self.shots_taken, first_order)

    def _sample(self, shots: int | None, run: str, wanted: Wanted) -> Reconstruction:
        rows, inverses = self._local_rows()
        return self._execute(rows, inverses, shots, run, wanted)

    def gradients(
        self, shots: int | None, run: str, parameters: Sequence[int]
    ) -> tuple[Estimate, FloatArray]:
        """Values without standard errors, and derivatives of shape (queries, parameters)."""
        shifts = self.prepared.shifts(tuple(parameters))
        slopes = slopes_of_angles(self.plan, shifts, self.batch.values, parameters)
        base, inverses = self._local_rows()
        rows = [s.rows(b) for s, b in zip(shifts, base, strict=True)]
        reconstruction = self._execute(rows, inverses, shots, run, "environments")
        by_angle = derivatives_by_angle(self.plan, reconstruction, shifts, self.angles, parameters)
        gradients = derivatives_by_parameter(by_angle, slopes, self.batch.binding)
        values = reconstruction.values()
        self._lap("reconstruct")
        return Estimate(values, np.zeros(0), self.shots_taken), gradients

    def _local_rows(self) -> tuple[list[FloatArray], list[IntArray]]:
        rows, inverses = [], []
        for fragment, parameters in zip(self.plan.fragments, self.prepared.parameters, strict=True):
            # Rows are distinguished by what was given: angles are rounded differently elsewhere.
            places, inverse = unique_rows(self.batch.values[:, parameters])
            rows.append(self.angles[places][:, fragment.angles])
            inverses.append(inverse)
        return rows, inverses

    def _execute(
        self,
        rows: Sequence[FloatArray],
        inverses: Sequence[IntArray],
        shots: int | None,
        run: str,
        wanted: Wanted,
    ) -> Reconstruction:
        """Generate the tasks of all fragments and run them; fold results in as they arrive."""
        round_, reconstruction = self._generate(rows, inverses, shots, run, wanted)
        self._lap("generate")
        try:
            round_.execute(
                self.pipeline.pool,
                in_time(self.conditions, self._end),
                self._trace(),
                reconstruction.fragment_complete,
                self.spent,
            )
        finally:
            self._lap("execute")
        self.shots_taken = round_.shots_taken
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
        queries = Queries.build(
            batch.observables, batch.observable, batch.binding, inverses, prepared.term_paulis
        )
        influences = self._measured
        if self._by_influence and influences is None:
            influences = influences_of_terms(prepared.experiments, queries, inverses)
        round_ = Round(
            prepared,
            pipeline.backend,
            policy,
            rows,
            shots,
            run,
            pipeline.repetition,
            covariances=wanted in ("errors", "orders"),
            influences=influences,
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

    @property
    def _by_influence(self) -> bool:
        return isinstance(self.conditions.policy.order, LargestInfluenceFirst)

    def _run_slices(self, work: SliceWork, tasks: Sequence[int]) -> Sequence[Arrays]:
        """Run slices on the pool, or here where they would not fit side by side."""
        pipeline = self.pipeline
        if pipeline.memory.is_exceeded(8 * work.elements * pipeline.pool.workers):
            return list(run_here(work, tasks))
        results, tally = run_slices(pipeline.pool, work, tasks, self.conditions)
        self.spent.tally.add(tally)
        return results

    def _trace(self) -> Trace | None:
        log = self.pipeline.trace
        if log is None:
            return None
        return Trace(log, self.pipeline.run_id, self.query_id, self._begun)

    def _lap(self, stage: str) -> None:
        now = self.conditions.clock()
        self.times[stage] += now - self._mark
        self._mark = now

    def record(self, estimate: Estimate, quantity: str) -> QueryRecord:
        """The record of the batch as it stands."""
        pipeline, plan, times, spent = self.pipeline, self.plan, self.times, self.spent
        fewest, most = estimate.shots.fewest, estimate.shots.most
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
            max_fragment_qubits=self.prepared.max_qubits,
            num_terms=plan.num_terms,
            num_subexperiments=spent.subexperiments,
            num_circuits=self.prepared.num_circuits,
            shots=most if 0 < fewest == most else None,
            shots_total=spent.shots,
            setting_basis=pipeline.basis,
            backend=pipeline.backend.name,
            pool=pipeline.pool.name,
            subexp_workers=pipeline.pool.workers,
            policy=self.conditions.policy.name,
            straggler=straggler_info(self.conditions.stragglers, spent.tally),
            t_partition=times["partition"],
            t_generate=times["generate"],
            t_execute=times["execute"],
            t_reconstruct=times["reconstruct"],
            t_overlapped=spent.overlapped,
            t_total=math.fsum(times.values()),
            plan_cached=self.plan_cached,
            retries=spent.tally.retries,
            speculated=spent.tally.speculated,
            missing=spent.missing,
            value=Summary.of(estimate.values),
            stderr=Summary.of(estimate.stderrs),
            stderr_first_order=estimate.first_order,
            precision=None if self.accuracy.shots is not None else self.accuracy.precision,
            seed=pipeline.seed,
        )


_STAGES = ("partition", "generate", "execute", "reconstruct")
