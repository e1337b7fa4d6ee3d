"""The dispatcher: a pure state machine between policies and a pool."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .backlog import Backlog, Bundle, Pace, Throttle, Watch
from .messages import (
    Abandon,
    Accept,
    Cancel,
    Event,
    Failure,
    GiveUp,
    Instruction,
    JobFinished,
    JobLost,
    JobStarted,
    Submit,
)
from .policies import Policy, TaskSpec

_LONGEST_BACKOFF = 5.0
_MOST_EXCUSED = 8
_HOPELESS = 3
"""So many tasks given up, and none that ever succeeded: the rest need not be tried."""


@dataclass(slots=True, eq=False)
class _Job:
    tasks: tuple[int, ...]
    started: bool = False
    wanted: bool = True
    """Not cancelled."""


class Dispatcher:
    """Decides which tasks run when, again, or not at all. Reads no clock and does no I/O.

    A driver (or a simulation) passes it events whose times never go back, and acts on the
    instructions in the order given. Every job that it submits ends with one `JobFinished` or
    `JobLost`. A task counts once however often it runs: the first sound result is accepted.

    Args:
        tasks: The tasks.
        policy: The rules.
        workers: Jobs that run at a time.
        job_seconds: What a job should take at least; short tasks share one.

    Attributes:
        retries: Tasks submitted again after a failure, so far.
        speculated: Tasks duplicated or restarted for being late, so far.

    Example:
        >>> dispatcher = Dispatcher([TaskSpec("a", 1.0), TaskSpec("b", 1.0)], Policy(), workers=1)
        >>> dispatcher.start(0.0)
        [Submit(job=0, tasks=(0,), attempts=(0,), purpose='first')]
        >>> dispatcher.handle(JobFinished(0, 1.0, finished=((0, 1.0),)))
        [Accept(job=0, tasks=(0,)), Submit(job=1, tasks=(1,), attempts=(0,), purpose='first')]
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        policy: Policy,
        workers: int,
        *,
        job_seconds: float = 0.0,
    ) -> None:
        self.retries = 0
        self.speculated = 0
        self._policy = policy
        self._capacity = min(workers, policy.in_flight or workers)
        # Each strained worker is replaced, so that a task meets every one of them once at most.
        self._excused = min(workers, _MOST_EXCUSED)
        self._pace = Pace(tasks)
        self._backlog = Backlog(tasks, policy, self._pace, workers, job_seconds)
        self._watch = Watch(policy, self._pace)
        self._throttle = Throttle(policy.retry.backoff)
        self._now = 0.0
        self._open = [True] * len(tasks)
        self._num_open = len(tasks)
        self._copies = [0] * len(tasks)
        self._submissions = [0] * len(tasks)
        self._last_job = [-1] * len(tasks)
        self._failures: dict[int, list[Failure]] = {}
        self._given_up = 0
        self._any_success = False
        self._jobs: dict[int, _Job] = {}
        self._num_jobs = 0
        self._origins: dict[int, int] = {}
        self._late: dict[int, None] = {}
        self._deadline = math.inf
        self._out: list[Instruction] = []
        spec = policy.speculation
        self._budget = 0 if spec is None else math.ceil(spec.budget * len(tasks))

    def start(self, at: float) -> list[Instruction]:
        """The first instructions; call once."""
        self._backlog.start(at)
        if self._policy.deadline is not None:
            self._deadline = at + self._policy.deadline.seconds
        return self._advance(at)

    def handle(self, event: Event) -> list[Instruction]:
        """What follows from an event."""
        if isinstance(event, JobStarted):
            self._started(event.job, event.at)
        elif isinstance(event, JobFinished):
            self._finished(event)
        elif isinstance(event, JobLost):
            self._lost(event)
        return self._advance(event.at)

    @property
    def done(self) -> bool:
        """Whether every task is accepted or given up (jobs may still be in flight)."""
        return self._num_open == 0

    @property
    def in_flight(self) -> int:
        """Jobs submitted that have not ended."""
        return len(self._jobs)

    @property
    def next_wake(self) -> float | None:
        """When a `Tick` is due at the latest; None: only when something happens."""
        if self.done:
            return None
        wakes = [self._backlog.next_wake, self._watch.next_wake, self._throttle.wake(self._now)]
        times = [time for time in wakes if time is not None]
        if self._policy.deadline is not None:
            times.append(self._deadline)
        return min(times, default=None)

    def _advance(self, at: float) -> list[Instruction]:
        """Everything that is due, then as many submissions as there is room for."""
        self._now = at
        if at >= self._deadline:
            self._failures.clear()  # what failed once might have succeeded later
            self._give_up_all()
        if not self.done:
            self._backlog.advance(at)
            for number in self._watch.hung(at):
                self._watch.ended(number)
                self._out.append(Abandon(number))
            if self._policy.speculation is not None:
                self._find_late(at)
            while self._may_submit(at) and self._submit_next():
                self._throttle.submitted(at)
        out, self._out = self._out, []
        return out

    def _may_submit(self, at: float) -> bool:
        return len(self._jobs) < self._capacity and not self._throttle.holds(at)

    def _submit_next(self) -> bool:
        """Submit one more job; False if there is nothing to submit now."""
        bundle = self._backlog.pop(self._open)
        while bundle is None and self._late:
            number = next(iter(self._late))
            del self._late[number]
            left = self._speculable(number)
            bundle = Bundle(left, "duplicate", number) if left else None
        if bundle is not None:
            self._submit(bundle)
        return bundle is not None

    def _submit(self, bundle: Bundle) -> None:
        number, self._num_jobs = self._num_jobs, self._num_jobs + 1
        self._jobs[number] = _Job(bundle.tasks)
        if bundle.origin is not None:
            self._origins[number] = bundle.origin
        attempts = tuple(self._submissions[task] for task in bundle.tasks)
        for task in bundle.tasks:
            self._submissions[task] += 1
            self._copies[task] += 1
            self._last_job[task] = number
        if bundle.purpose == "retry":
            self.retries += len(bundle.tasks)
        self._out.append(Submit(number, bundle.tasks, attempts, bundle.purpose))

    # --- the end of jobs --------------------------------------------------------------------------

    def _started(self, number: int, at: float) -> None:
        job = self._jobs.get(number)
        if job is not None and not job.started:
            job.started = True
            self._watch.started(number, job.tasks, at)

    def _finished(self, event: JobFinished) -> None:
        job, was_wanted = self._close(event.job)
        if job is None:
            return
        accepted = tuple(task for task, _ in event.finished if self._open[task])
        for task, seconds in event.finished:
            self._any_success = True
            self._throttle.succeeded()
            self._pace.learn(task, seconds)
        for task in accepted:
            self._close_task(task)
        if accepted:
            self._out.append(Accept(event.job, accepted))
            self._cancel_rivals(accepted)
        if was_wanted:
            for failure in event.failures:
                self._fail(failure, event.at)
            over = {task for task, _ in event.finished} | {f.task for f in event.failures}
            self._put_back(task for task in job.tasks if task not in over)

    def _lost(self, event: JobLost) -> None:
        job, was_wanted = self._close(event.job)
        if job is None or not was_wanted:
            return
        if event.kind == "cancelled":
            self._put_back(job.tasks)
            return
        for task in job.tasks:
            self._fail(Failure(task, event.kind, event.cause), event.at)

    def _close(self, number: int) -> tuple[_Job | None, bool]:
        """Forget a job; also whether it was wanted to the end."""
        job = self._jobs.pop(number, None)
        was_wanted = job is not None and job.wanted
        if job is not None and was_wanted:
            self._drop(number, job)
        self._watch.ended(number)  # a cancelled one that hangs has a place until then
        return job, was_wanted

    def _drop(self, number: int, job: _Job) -> None:
        job.wanted = False
        self._late.pop(number, None)
        for task in job.tasks:
            self._copies[task] -= 1

    def _put_back(self, tasks: Iterable[int]) -> None:
        """Tasks that were never begun go first, unless something else is under way for them."""
        for task in tasks:
            if self._open[task] and not self._copies[task]:
                self._backlog.put_first(Bundle((task,), "first"))

    def _cancel_rivals(self, accepted: Iterable[int]) -> None:
        """Cancel other jobs for these tasks if nothing else is expected of them."""
        for task in accepted:
            for number in self._attempts_at(task):
                job = self._jobs.get(number)
                if job is not None and job.wanted and not any(self._open[t] for t in job.tasks):
                    self._cancel(number, job)

    def _attempts_at(self, task: int) -> Iterator[int]:
        """The last job for a task and those that it was to overtake."""
        number: int | None = self._last_job[task]
        while number is not None:
            yield number
            number = self._origins.get(number)

    def _cancel(self, number: int, job: _Job) -> None:
        self._drop(number, job)
        self._out.append(Cancel(number))

    # --- failures ---------------------------------------------------------------------------------

    def _fail(self, failure: Failure, at: float) -> None:
        task = failure.task
        if not self._open[task]:
            return
        failures = self._failures.setdefault(task, [])
        failures.append(failure)
        if failure.kind == "fatal":
            self._give_up(task)
            self._give_up_all()
        elif self._copies[task]:
            return  # another attempt is under way already
        elif failure.kind == "throttled":
            self._hold_back(failure, at)
        elif self._exhausted(failures):
            self._give_up(task)
            if self._given_up >= _HOPELESS and not self._any_success:
                self._give_up_all()
        else:
            self._backlog.put_off(task, at + self._pause(failures))

    def _hold_back(self, failure: Failure, at: float) -> None:
        """A task goes first once something may be submitted again; a refusal costs no attempt."""
        if self._throttle.refused(at, failure.retry_after, alone=not self._jobs):
            self._backlog.put_first(Bundle((failure.task,), "retry"))
        else:
            self._give_up(failure.task)
            self._give_up_all()

    def _exhausted(self, failures: Sequence[Failure]) -> bool:
        strained = sum(failure.kind == "strained" for failure in failures)
        counted = sum(failure.kind not in ("throttled", "strained") for failure in failures)
        return counted + max(0, strained - self._excused) >= self._policy.retry.attempts

    def _pause(self, failures: Sequence[Failure]) -> float:
        """Seconds until the next attempt: twice as long with each failure of the kind."""
        alike = sum(failure.kind == failures[-1].kind for failure in failures)
        return min(self._policy.retry.backoff * 2.0 ** min(alike - 1, 60), _LONGEST_BACKOFF)

    def _give_up(self, task: int) -> None:
        self._close_task(task)
        self._given_up += 1
        self._out.append(GiveUp(task, tuple(self._failures.get(task, ()))))

    def _give_up_all(self) -> None:
        for task, is_open in enumerate(self._open):
            if is_open:
                self._give_up(task)
        for number, job in self._jobs.items():
            if job.wanted:
                self._cancel(number, job)

    def _close_task(self, task: int) -> None:
        self._open[task] = False
        self._num_open -= 1

    # --- late jobs --------------------------------------------------------------------------------

    def _find_late(self, at: float) -> None:
        """Note late jobs for idle workers; where none is, restart them if the policy says so."""
        spec = self._policy.speculation
        assert spec is not None
        for number in self._watch.late(at):
            if spec.restart and (self._backlog.waits or len(self._jobs) >= self._capacity):
                self._restart(number)
            else:
                self._late[number] = None

    def _restart(self, number: int) -> None:
        left = self._speculable(number)
        if left:
            self._cancel(number, self._jobs[number])
            self._backlog.put_first(Bundle(left, "restart", number))

    def _speculable(self, number: int) -> tuple[int, ...]:
        """A late job's tasks that nothing else runs; they are taken off the budget."""
        job = self._jobs.get(number)
        if job is None or not job.wanted:
            return ()
        left = tuple(t for t in job.tasks if self._open[t] and self._copies[t] == 1)
        if len(left) > self._budget:
            return ()
        self._budget -= len(left)
        self.speculated += len(left)
        return left
