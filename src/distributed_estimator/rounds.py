"""One round: all fragments of a batch, run at some bindings with some shots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .division import chunks, circuits_per_task, rows_per_task
from .errors import DeadlineError, named
from .execution import (
    Arrays,
    Assignment,
    Attempt,
    Conditions,
    LargestInfluenceFirst,
    Policy,
    Pool,
    Stragglers,
    Tally,
    TaskSpec,
    run_tasks,
)
from .preparation import Prepared
from .reconstruction import FragmentTensor, SliceWork
from .records import RecordWriter, StragglerInfo, TaskRecord
from .subexperiments import Backend, Task, make_tasks

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


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
        self._deadline = policy.deadline
        self._shots = shots
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
                    rows_per_task=rows_per_task(experiment, backend, policy),
                    circuits_per_task=circuits_per_task(experiment, backend, policy),
                    chunks=chunks(policy),
                    covariances=covariances,
                )
            self.tasks += tasks
            self.tensors.append(FragmentTensor(experiment, len(angles), tasks))
        self._influences = influences
        self._taken: dict[int, int] = {}

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
            estimate = self._prepared.work.estimate_of(arrays)
            self._taken[number] = estimate.shots or 0
            tensor.add(task, estimate)
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
            self._settle()
        return tally, overlapped

    def ran(self, tally: Tally) -> tuple[int, int]:
        """Subexperiments and shots of all tasks but those that are missing or were known before.

        Chunks of the same subexperiments count once.
        """
        known = set(tally.known)
        subexperiments = shots = 0
        for number, task in enumerate(self.tasks):
            if number in known:
                continue
            held = task.num_subexperiments(self._prepared.experiments[task.experiment])
            subexperiments += held if task.chunk[0] == 0 else 0
            shots += held * self._taken.get(number, 0)
        return subexperiments, shots

    @property
    def shots_range(self) -> tuple[int, int]:
        """Fewest and most shots that a subexperiment got, of all its chunks; 0 for exact values.

        A backend may take another number than it was asked to, and a deadline leave chunks out.
        """
        shots: Counter[tuple[int, int, tuple[int, int] | None]] = Counter()
        for number, taken in self._taken.items():
            task = self.tasks[number]
            shots[task.experiment, task.start, task.circuits] += taken
        asked = self._shots or 0
        return min(shots.values(), default=asked), max(shots.values(), default=asked)

    def _assignment(self) -> Assignment:
        work = self._prepared.work
        specs = [self._spec(task) for task in self.tasks]
        origin = self._backend.identity
        return Assignment(work, self.tasks, specs, work.check, self._describe, origin)

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
            # Delays are injected into subexperiments, whose shots chunks share.
            task.num_subexperiments(experiment) if task.chunk[0] == 0 else 0,
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

    def _settle(self) -> None:
        """Make do with the shots that have arrived."""
        missing = [task for tensor in self.tensors for task in tensor.settle()]
        if missing and self._deadline is not None:
            raise DeadlineError(
                f"after {self._deadline.seconds:g} s nothing had arrived of "
                f"{named([self._describe(task) for task in missing])}: give a later deadline, more "
                "chunks or more workers"
            )

    def _record(self, attempt: Attempt, trace: Trace) -> TaskRecord:
        task = self.tasks[attempt.task]
        experiment = self._prepared.experiments[task.experiment]
        started = None if attempt.started is None else attempt.started - trace.start
        shots = task.shots
        if attempt.arrays is not None:
            shots = self._prepared.work.estimate_of(attempt.arrays).shots
        return TaskRecord(
            run_id=trace.run_id,
            query_id=trace.query_id,
            key=task.key,
            job=attempt.job,
            fragment=task.experiment,
            rows=(task.start, len(task.angles)),
            circuits=task.circuits or (0, experiment.num_circuits),
            chunk=task.chunk[0],
            shots=shots,
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


def influences(
    policy: Policy,
    rows: Sequence[FloatArray],
    inverses: Sequence[IntArray],
    binding: IntArray,
) -> list[FloatArray] | None:
    """Per fragment, how many of the queries depend on each row; None if the policy does not ask.

    Args:
        policy: The policy.
        rows: Rows of each fragment; shifted ones follow all that they are shifts of.
        inverses: Per fragment, the row of each binding.
        binding: The binding of each query.
    """
    if policy.order != LargestInfluenceFirst():
        return None
    counts = [np.bincount(inverse[binding]).astype(float) for inverse in inverses]
    return [np.resize(count, len(own)) for own, count in zip(rows, counts, strict=True)]


def run_slices(
    pool: Pool, work: SliceWork, tasks: Sequence[int], conditions: Conditions
) -> tuple[list[Arrays], Tally]:
    """Run slices of a contraction on a pool.

    Args:
        pool: The pool.
        work: The slices.
        tasks: Numbers of the tasks wanted.
        conditions: Those of the run, of which stop, clock and retries hold here too.

    Returns:
        Their results, in the order of `tasks`, and what it took.
    """
    results: dict[int, Arrays] = {}
    specs = [TaskSpec(f"{work.key} {task}", work.seconds) for task in tasks]
    tally = run_tasks(
        pool,
        Assignment(work, tasks, specs, work.check, work.describe),
        lambda number, arrays, _: results.update({number: arrays}),
        Conditions(
            Policy(retry=conditions.policy.retry), stop=conditions.stop, clock=conditions.clock
        ),
    )
    return [results[number] for number in range(len(tasks))], tally


def straggler_info(stragglers: Stragglers | None, tally: Tally) -> StragglerInfo:
    """What was injected, for records."""
    if stragglers is None:
        return StragglerInfo()
    return StragglerInfo(
        stragglers.p,
        stragglers.delay.mean,
        tally.injected,
        tally.injected_seconds,
        stragglers.name,
    )
