"""One round: all fragments of a batch, run at some bindings with some shots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .errors import DeadlineError
from .execution import Assignment, Attempt, Conditions, Policy, Pool, Tally, TaskSpec, run_tasks
from .execution.messages import Arrays
from .preparation import Prepared
from .reconstruction import FragmentTensor
from .records import RecordWriter, TaskRecord
from .subexperiments import Backend, FragmentExperiment, Task, make_tasks

FloatArray = NDArray[np.float64]

_MOST_NAMED = 5


@dataclass(frozen=True)
class Trace:
    """Where every attempt at a task is recorded.

    Attributes:
        log: The file.
        run_id: Of the query record that the tasks belong to.
        query_id: The same.
        start: The clock's seconds that times are counted from.
    """

    log: RecordWriter
    run_id: str
    query_id: str
    start: float


class Round:
    """Tasks of all fragments, and the tensors that their results make up.

    Args:
        prepared: What is run.
        backend: Where.
        policy: How tasks are divided.
        rows: Local bindings of each fragment, shape (rows, angles) each.
        shots: Shots per subexperiment; None for exact values.
        run: Names the round; everything random derives from it.
        covariances: Whether the covariances of sampled values are wanted.
        influences: Per fragment, how many values depend on each row; None: not known.
    """

    def __init__(
        self,
        prepared: Prepared,
        backend: Backend,
        policy: Policy,
        rows: Sequence[FloatArray],
        shots: int | None,
        run: str,
        *,
        covariances: bool,
        influences: Sequence[FloatArray] | None = None,
    ) -> None:
        self._prepared = prepared
        self._backend = backend
        chunks = 1 if policy.deadline is None else policy.deadline.chunks
        self.tasks: list[Task] = []
        self.tensors: list[FragmentTensor] = []
        for number, (experiment, angles) in enumerate(zip(prepared.experiments, rows, strict=True)):
            tasks: list[Task] = []
            if not experiment.is_trivial:
                tasks += make_tasks(
                    number,
                    experiment,
                    angles,
                    shots,
                    run,
                    rows_per_task=_rows_per_task(experiment, backend, policy),
                    circuits_per_task=_circuits_per_task(experiment, backend, policy),
                    chunks=chunks,
                    covariances=covariances,
                )
            self.tasks += tasks
            self.tensors.append(FragmentTensor(experiment, len(angles), tasks))
        self._influences = influences

    def execute(
        self,
        pool: Pool,
        conditions: Conditions,
        trace: Trace | None,
        complete: Callable[[int], None] | None,
    ) -> tuple[Tally, float]:
        """Run the tasks and fold their results into the tensors.

        Args:
            pool: Where workers are.
            conditions: How tasks are run.
            trace: Where attempts are recorded, if anywhere.
            complete: Called with the number of a fragment whose tensor is complete while others
                are not.

        Returns:
            What it took, and the seconds spent on results while others were still to come.

        Raises:
            DeadlineError: Some circuits had no shots at all when the deadline came.
        """
        overlapped = 0.0

        def fold(number: int, arrays: Arrays, others_run: bool) -> None:
            nonlocal overlapped
            before = conditions.clock()
            task = self.tasks[number]
            tensor = self.tensors[task.experiment]
            tensor.add(task, self._prepared.work.estimate_of(arrays))
            if others_run:
                if complete is not None and tensor.complete:
                    complete(task.experiment)
                overlapped += conditions.clock() - before

        if trace is not None:
            conditions = replace(
                conditions, watch=lambda a: trace.log.write(self._record(a, trace))
            )
        tally = run_tasks(pool, self._assignment(), fold, conditions)
        if tally.missing:
            self._settle(conditions)
        return tally, overlapped

    def ran(self, missing: Sequence[int] = ()) -> tuple[int, int]:
        """Subexperiments and shots of all tasks but those that are missing.

        Chunks of the same subexperiments count once.
        """
        left_out, experiments = set(missing), self._prepared.experiments
        subexperiments = shots = 0
        for number, task in enumerate(self.tasks):
            held = task.num_subexperiments(experiments[task.experiment])
            subexperiments += held if task.chunk[0] == 0 else 0
            shots += 0 if number in left_out else held * (task.shots or 0)
        return subexperiments, shots

    def _assignment(self) -> Assignment:
        work = self._prepared.work
        specs = [self._spec(task) for task in self.tasks]
        return Assignment(work, self.tasks, specs, work.check, self._describe)

    def _spec(self, task: Task) -> TaskSpec:
        experiment = self._prepared.experiments[task.experiment]
        influence = 0.0
        if self._influences is not None:
            rows = slice(task.start, task.start + len(task.angles))
            influence = float(self._influences[task.experiment][rows].sum())
        return TaskSpec(
            task.key,
            self._backend.expected_seconds(experiment, task),
            task.experiment,
            influence,
            task.num_subexperiments(experiment),
        )

    def _describe(self, task: Task) -> str:
        """Fragment, setting and bindings of a task, for error messages."""
        last = task.start + len(task.angles) - 1
        bindings = f"binding {last}" if last == task.start else f"bindings {task.start} to {last}"
        first, count = task.circuits or (
            0,
            self._prepared.experiments[task.experiment].num_circuits,
        )
        settings = f"setting {first}" if count == 1 else f"settings {first} to {first + count - 1}"
        part = "" if task.chunk[1] == 1 else f", part {task.chunk[0] + 1} of the shots"
        return f"fragment {task.experiment}, {settings}, {bindings}{part}"

    def _settle(self, conditions: Conditions) -> None:
        """Make do with the shots that have arrived."""
        missing = [task for tensor in self.tensors for task in tensor.settle()]
        deadline = conditions.policy.deadline
        if missing and deadline is not None:
            named = "; ".join(self._describe(task) for task in missing[:_MOST_NAMED])
            more = f"; and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
            raise DeadlineError(
                f"after {deadline.seconds:g} s nothing had arrived of {named}{more}: give a later "
                "deadline, more chunks or more workers"
            )

    def _record(self, attempt: Attempt, trace: Trace) -> TaskRecord:
        task = self.tasks[attempt.task]
        experiment = self._prepared.experiments[task.experiment]
        started = None if attempt.started is None else attempt.started - trace.start
        return TaskRecord(
            run_id=trace.run_id,
            query_id=trace.query_id,
            key=task.key,
            job=attempt.job,
            fragment=task.experiment,
            rows=(task.start, len(task.angles)),
            circuits=task.circuits or (0, experiment.num_circuits),
            chunk=task.chunk[0],
            shots=task.shots,
            subexperiments=task.num_subexperiments(experiment),
            worker=attempt.worker,
            attempt=attempt.number,
            purpose=attempt.purpose,
            submitted=attempt.submitted - trace.start,
            started=started,
            finished=attempt.finished - trace.start,
            injected_delay=attempt.injected,
            status=attempt.status,
            cause=attempt.cause,
        )


def _rows_per_task(experiment: FragmentExperiment, backend: Backend, policy: Policy) -> int:
    rows = backend.rows_per_task(experiment)
    if policy.subexperiments is None:
        return rows
    return min(rows, max(1, policy.subexperiments // max(1, experiment.num_circuits)))


def _circuits_per_task(
    experiment: FragmentExperiment, backend: Backend, policy: Policy
) -> int | None:
    limits = backend.circuits_per_task(experiment), policy.subexperiments
    return min((limit for limit in limits if limit is not None), default=None)
