"""One round: all fragments of a batch, run at some bindings with some shots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .backends.seeds import Repetition
from .division import chunks, circuits_per_task, rows_per_task
from .errors import DeadlineError, named
from .execution import (
    Arrays,
    Assignment,
    Attempt,
    Conditions,
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
from .subexperiments import Backend, ShotsTaken, Task, make_tasks

FloatArray = NDArray[np.float64]


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


@dataclass
class Spent:
    """What rounds took, all together.

    Attributes:
        subexperiments: That ran; chunks of the same ones count once.
        shots: By all of them.
        missing: Tasks that had not arrived at the deadline.
        overlapped: Seconds spent on results while others were still to come.
        tally: What the dispatcher counts.
    """

    subexperiments: int = 0
    shots: int = 0
    missing: int = 0
    overlapped: float = 0.0
    tally: Tally = field(default_factory=Tally)


class Round:
    """Tasks of all fragments, and the tensors that their results make up.

    Args:
        prepared: What is run.
        backend: Where.
        policy: How tasks are divided.
        rows: Local bindings of each fragment, shape (rows, angles) each.
        shots: Shots per subexperiment; None for exact values.
        run: Names the round; everything random derives from it.
        repetition: Compares its tasks with those of earlier rounds.
        covariances: Whether the covariances of sampled values are wanted.
        influences: Per fragment, how much values depend on each row's measurement groups, shape
            (base rows, groups); rows that follow these are shifts of them, in the same order. None:
            nobody asks.
    """

    def __init__(
        self,
        prepared: Prepared,
        backend: Backend,
        policy: Policy,
        rows: Sequence[FloatArray],
        shots: int | None,
        run: str,
        repetition: Repetition,
        *,
        covariances: bool,
        influences: Sequence[FloatArray] | None = None,
    ) -> None:
        self._prepared = prepared
        self._backend = backend
        self._deadline = policy.deadline
        self._shots = shots
        self._repetition = repetition
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
        self._influences = [
            np.resize(table, (len(angles), table.shape[1]))
            for table, angles in zip(influences or (), rows, strict=influences is not None)
        ]
        self._total_influence = sum(float(table.sum()) for table in self._influences)
        self._taken: dict[int, int] = {}

    def execute(
        self,
        pool: Pool,
        conditions: Conditions,
        trace: Trace | None,
        complete: Callable[[int], None] | None,
        spent: Spent,
    ) -> None:
        """Run the tasks and fold their results into the tensors.

        Args:
            pool: Where workers are.
            conditions: How tasks are run.
            trace: Where attempts are recorded, if anywhere.
            complete: Called with the number of a fragment whose tensor is complete while others
                are not.
            spent: What this takes is counted there, also where it is in vain.

        Raises:
            BackendError: Tasks drew the same random numbers.
            DeadlineError: Some circuits had no shots at all when the deadline came.
        """

        def fold(number: int, arrays: Arrays, others_run: bool) -> None:
            before = conditions.clock()
            task = self.tasks[number]
            tensor = self.tensors[task.experiment]
            estimate = self._prepared.work.estimate_of(arrays)
            self._taken[number] = estimate.shots or 0
            # Here, where the results of all workers come together: copies of one sampler may
            # repeat each other.
            self._repetition.check(
                estimate.draws, self._taken[number], self._backend.name, task.seed
            )
            tensor.add(task, estimate)
            if others_run:
                if complete is not None and tensor.complete:
                    complete(task.experiment)
                spent.overlapped += conditions.clock() - before

        if trace is not None:
            conditions = replace(
                conditions, watch=lambda a: trace.log.write(self._record(a, trace))
            )
        tally = run_tasks(pool, self._assignment(), fold, conditions)
        spent.tally.add(tally)
        spent.missing += len(tally.missing)
        self._count(set(tally.known), spent)
        if tally.missing:
            self._settle()

    def _count(self, known: Container[int], spent: Spent) -> None:
        """Count subexperiments and shots of the tasks that ran now."""
        ran: set[_Place] = set()
        for number, taken in self._taken.items():
            if number in known:
                continue
            task = self.tasks[number]
            held = task.num_subexperiments(self._prepared.experiments[task.experiment])
            spent.subexperiments += 0 if _place(task) in ran else held
            spent.shots += held * taken
            ran.add(_place(task))

    @property
    def shots_taken(self) -> ShotsTaken:
        """Shots that subexperiments got; as asked for where there are none to run."""
        shots: Counter[_Place] = Counter()
        held: dict[_Place, int] = {}
        for number, taken in self._taken.items():
            task = self.tasks[number]
            shots[_place(task)] += taken
            experiment = self._prepared.experiments[task.experiment]
            held[_place(task)] = max(1, task.num_subexperiments(experiment))
        if not shots:
            asked = self._shots or 0
            return ShotsTaken(asked, asked, asked)
        fewest, mean = min(shots.values()), 0.0
        if fewest:
            mean = sum(held.values()) / sum(held[place] / own for place, own in shots.items())
        return ShotsTaken(fewest, max(shots.values()), mean)

    def _assignment(self) -> Assignment:
        work = self._prepared.work
        specs = [self._spec(task) for task in self.tasks]
        origin = self._backend.identity
        return Assignment(work, self.tasks, specs, work.check, self._describe, origin, work.content)

    def _spec(self, task: Task) -> TaskSpec:
        experiment = self._prepared.experiments[task.experiment]
        return TaskSpec(
            task.key,
            self._backend.expected_seconds(experiment, task),
            task.experiment,
            self._influence(task),
            # Delays are injected into subexperiments, whose shots chunks share.
            task.num_subexperiments(experiment) if task.chunk[0] == 0 else 0,
            task.chunk[0],
        )

    def _influence(self, task: Task) -> float:
        """Its part in all influences."""
        if not self._total_influence:
            return 0.0
        shares = self._prepared.experiments[task.experiment].group_shares(task.circuits)
        rows = slice(task.start, task.start + len(task.angles))
        own = float(self._influences[task.experiment][rows].sum(axis=0) @ shares)
        return own / self._total_influence

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


_Place: TypeAlias = tuple[int, int, tuple[int, int] | None]


def _place(task: Task) -> _Place:
    """What chunks of the same subexperiments have in common."""
    return task.experiment, task.start, task.circuits


def in_time(conditions: Conditions, end: float) -> Conditions:
    """Conditions whose deadline, if they have one, is when the clock says `end`.

    Raises:
        DeadlineError: That has passed.
    """
    deadline = conditions.policy.deadline
    if deadline is None:
        return conditions
    left = end - conditions.clock()
    if left <= 0:
        raise DeadlineError(
            f"after {deadline.seconds:g} s some tasks of the run were still to be made: give a "
            "later deadline, or fewer circuits a run"
        )
    policy = replace(conditions.policy, deadline=replace(deadline, seconds=left))
    return replace(conditions, policy=policy)


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
    slow = stragglers.slow
    return StragglerInfo(
        stragglers.p,
        stragglers.delay.mean,
        tally.injected,
        tally.injected_seconds,
        stragglers.name,
        None if slow is None else slow.worker,
        None if slow is None else slow.delay,
    )
