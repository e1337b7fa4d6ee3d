"""Every pool: a handle for drivers, the queue that all engines share, and what they send."""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cloudpickle

from ...checks import check_workers, described, is_whole
from ...errors import InputError, PoolError
from ...records.schema import installed
from ...views import counted
from ..messages import Finished, Job, Lost, Notify, Outcome, Started, StrainedError, Work

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_CLOSED = "the pool is closed: make a new estimator"

LossKind: TypeAlias = Literal["lost", "cancelled", "refused"]


class Pool:
    """Workers that take jobs. Several drivers may share a pool, from several threads.

    Every job that was submitted ends with exactly one `Finished` or `Lost`, whatever happens to its
    worker, and with at most one `Started` before it. Workers are started with the first job.
    They belong to the process that made the pool: a fork of it can neither use nor end them
    (threads excepted, which start afresh there). A pool that nothing refers to any more is closed.

    No method waits for another process for long. One that was stopped (SIGSTOP) keeps its
    connections, takes nothing, says nothing and ignores SIGTERM: a pool sends without waiting,
    counts the silence of every helper process that it depends on, loses its jobs after a bounded
    one, and ends by SIGKILL what it started, with all that this leaves without a parent. Where this
    program itself was suspended, that is no silence.

    Attributes:
        name: For records.
        workers: Jobs that run at a time; more wait inside the pool, in order.
        in_process: Whether workers share this process: works are not pickled, and a lone short job
            may run where it is asked for.
        job_seconds: How long a job should take at least, so that the pool's overhead is small
            beside it.
    """

    name: str
    in_process: bool = False
    job_seconds: float = 0.05

    def __init__(self, engine: Engine) -> None:
        self.workers = engine.workers
        self._engine = engine
        # Finalisers run anywhere, even where a lock is held: all they may do is put a token.
        weakref.finalize(self, engine.dropped.put, None).atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {counted(self.workers, 'worker')}>"

    def submit(self, job: Job, notify: Notify) -> None:
        """Run a job on the next free worker. Returns at once, once workers are up.

        Raises:
            InputError: The job cannot be sent to the workers; nothing was sent.
            PoolError: The workers cannot be started or reached, or belong to another process, or
                the pool is closed.
        """
        if not self._engine.is_ours:
            raise PoolError(
                f"the pool's workers belong to process {self._engine.owner}, and this is a fork of "
                "it: make a new estimator here, with a new pool or one by name"
            )
        self._engine.submit(job, notify)

    def cancel(self, job: Job) -> None:
        """The job's results are no longer needed: drop it, or end it soon where that is cheap."""
        if self._engine.is_ours:
            self._engine.cancel(job)

    def abandon(self, job: Job) -> None:
        """Its worker is presumed hung: report the job `Lost`, and free its place by force."""
        if self._engine.is_ours:
            self._engine.abandon(job)

    def close(self) -> None:
        """End all workers within 5 s, jobs on them too (`Lost`). Closing twice does nothing."""
        self._engine.close()


class Submission:
    """A job inside a pool: reported as started at most once, and as over exactly once.

    Attributes:
        job: The job.
        number: Its number among all that this process ever submitted to any pool.
        packed: Its work, pickled, for workers in other processes.
        items: Its tasks, the same.
        place: Number of the worker that it was given to; -1 while it waits.
        worker: What the engine knows that worker by.
        cancelled: Set when its results are no longer needed.
    """

    _numbers = itertools.count()

    def __init__(self, job: Job, notify: Notify, packed: bytes, items: bytes) -> None:
        self.job = job
        self.number = next(self._numbers)
        self.packed = packed
        self.items = items
        self.place = -1
        self.worker: Any = None
        self.cancelled = threading.Event()
        self._notify = notify
        self._over = False
        # A worker that begins may meet another thread that gives it up: one reports at a time.
        self._reporting = threading.RLock()

    @property
    def delay(self) -> float:
        """Seconds that its worker takes longer for each task."""
        slow = self.job.slow
        return slow.delay if slow is not None and slow.worker == self.place else 0.0

    def start(self, worker: str) -> None:
        """Report that a worker begins, unless the job is over already."""
        with self._reporting:
            if not self._over:
                self._notify(Started(self.job, worker))

    def finish(self, worker: str, report: Any) -> bool:
        """Report what came from a worker, and lose the job if that is no report on it.

        Returns:
            Whether the worker may go on: its report was one, and it lacks nothing.
        """
        try:
            outcomes = self._outcomes(report)
            shown = "" if outcomes is not None else f"{report!r:.80}"
        except Exception as error:
            outcomes, shown = None, f"unreadable ({type(error).__name__}: {error})"
        if outcomes is None:
            self.lose("lost", f"worker {worker} sent a report that is none: {shown}")
            return False
        self._end(Finished(self.job, worker, outcomes))
        return not any(isinstance(outcome.error, StrainedError) for outcome in outcomes)

    def lose(self, kind: LossKind, cause: str) -> None:
        """Report that there will be no outcomes."""
        self._end(Lost(self.job, kind, cause))

    def _outcomes(self, report: Any) -> tuple[Outcome, ...] | None:
        items = self.job.items
        if isinstance(report, Exception):
            return tuple(Outcome(i.number, 0.0, 0.0, 0.0, None, None, report) for i in items)
        numbers = {item.number for item in items}
        sound = isinstance(report, tuple) and all(
            isinstance(outcome, Outcome) and outcome.number in numbers for outcome in report
        )
        return report if sound else None

    def _end(self, message: Finished | Lost) -> None:
        with self._reporting:
            if not self._over:
                self._over = True
                self._notify(message)


class NoThreadError(Exception):
    """A thread cannot be started."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"no thread can be started ({error}): use fewer workers, or raise the limit of "
            "processes"
        )


def start_thread(target: Any, *arguments: Any, name: str) -> threading.Thread:
    """Start a daemon.

    Raises:
        NoThreadError: The operating system allows no other.
    """
    name = f"distributed-estimator-{name}"
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except Exception as error:
        raise NoThreadError(error) from error
    return thread


class Engine(ABC):
    """The queue of a pool, and who runs what: all that engines have in common.

    A subclass starts its workers in `_start`, and says with `_free` that a worker can take a job.
    `_run` is called to hand a job to that worker; where workers have threads of their own, those
    take jobs with `_next` instead. `_finish` or `_lose` ends a job. `_interrupt` asks a
    running job to end, `_kill` ends its worker by force, and `_stop` ends all.

    Threads that wait for workers refer to the engine alone, so that the `Pool` is collected when
    its users forget it, and closes the engine.

    Args:
        workers: Jobs that run at a time.
        remote: Whether jobs are pickled.

    Attributes:
        workers: The same.
        owner: The process whose workers they are.
        dropped: Whatever is put here closes the engine: None, or the cause why it is lost.
    """

    def __init__(self, workers: Any, *, remote: bool = True) -> None:
        self.workers = check_workers(workers)
        self.dropped: SimpleQueue[str | None] = SimpleQueue()
        self._packer = Packer() if remote else None
        self._refusal: str | None = None
        self._closer: threading.Thread | None = None
        self._reset()

    def _reset(self) -> None:
        self.owner = os.getpid()
        self._starting = threading.Lock()
        self._started = False
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[Submission] = deque()
        self._running: dict[Job, Submission] = {}
        self._idle: set[int] = set()

    @property
    def is_ours(self) -> bool:
        """Whether this process is not a fork of the owner."""
        return os.getpid() == self.owner

    def submit(self, job: Job, notify: Notify) -> None:
        """See `Pool.submit`."""
        packed = items = b""
        if self._packer is not None:
            packed = self._packer.pack(job.work)
            items = _pickled(job.items, "a task", "tasks that pickle")
        submission = Submission(job, notify, packed, items)
        with self._starting:
            self._check_open()
            if not self._started:
                try:
                    self._start()
                except NoThreadError as error:
                    raise PoolError(str(error)) from error
                self._started = True
        with self._changed:
            self._check_open()
            self._queue.append(submission)
        self._hand_out()

    def cancel(self, job: Job) -> None:
        """See `Pool.cancel`."""
        with self._changed:
            running = self._running.get(job)
            waiting = next((each for each in self._queue if each.job is job), None)
            if waiting is not None:
                self._queue.remove(waiting)
        if waiting is not None:
            waiting.lose("cancelled", "it was withdrawn before it began")
        elif running is not None:
            running.cancelled.set()
            self._interrupt(running)

    def abandon(self, job: Job) -> None:
        """See `Pool.abandon`."""
        with self._changed:
            running = self._running.pop(job, None)
        if running is None:
            self.cancel(job)
            return
        running.cancelled.set()
        running.lose("lost", self._kill(running))

    def close(self) -> None:
        """See `Pool.close`."""
        if self.is_ours:  # a fork runs its owner's `atexit` hooks too
            self._end(_CLOSED, "cancelled", "the pool was closed")

    # --- for engines ------------------------------------------------------------------------------

    def _close_when_dropped(self) -> None:
        """Have the engine closed when the pool is forgotten, or the program ends."""
        if self._closer is None:
            self._closer = start_thread(self._await_drop, name="closer")
            atexit.register(self.close)

    def _await_drop(self) -> None:
        cause = self.dropped.get()
        if cause is None:
            self.close()
        else:
            self._fail(cause)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise PoolError(self._refusal)

    def _hand_out(self) -> None:
        """Give waiting jobs to idle workers."""
        while (submission := self._next()) is not None:
            try:
                self._run(submission)
            except NoThreadError as error:
                self._put_back(submission, error)
                return

    def _next(self, place: int | None = None) -> Submission | None:
        """The job that waits longest, for a given worker or an idle one; None if there is none."""
        with self._changed:
            if self._refusal is not None or not self._queue:
                return None
            if place is None:
                if not self._idle:
                    return None
                place = min(self._idle)
                self._idle.remove(place)
            submission = self._queue.popleft()
            submission.place = place
            self._running[submission.job] = submission
            return submission

    def _put_back(self, submission: Submission, error: NoThreadError) -> None:
        """No thread can be started: those that run do what waits; without any, nothing will."""
        with self._changed:
            if self._running.pop(submission.job, None) is not None:
                self._idle.add(submission.place)
                self._queue.appendleft(submission)
            hopeless = not self._running
        if hopeless:
            self._refuse_waiting(str(error))

    def _refuse_waiting(self, cause: str) -> None:
        with self._changed:
            refused = list(self._queue)
            self._queue.clear()
        for submission in refused:
            submission.lose("refused", cause)

    def _free(self, place: int) -> None:
        """The worker of that number can take a job."""
        with self._changed:
            self._idle.add(place)
        self._hand_out()

    def _forget(self, submission: Submission) -> bool:
        """A job runs no longer; False where it was given up or the engine closed meanwhile."""
        with self._changed:
            return self._running.pop(submission.job, None) is not None

    def _finish(self, submission: Submission, report: Any, worker: str | None = None) -> bool:
        """A worker's report on a job has come.

        Returns:
            Whether the worker may go on: it was not given up meanwhile, and is as it should be.
        """
        kept = self._forget(submission)
        name = str(submission.place) if worker is None else worker
        return submission.finish(name, report) and kept

    def _lose(self, submission: Submission, cause: str) -> None:
        """No report on a job will come."""
        self._forget(submission)
        submission.lose("lost", cause)

    def _fail(self, cause: str) -> None:
        """The whole engine is lost."""
        self._end(f"{cause}: make a new estimator", "refused", cause)

    def _end(self, refusal: str, kind: LossKind, cause: str) -> None:
        """Take no more jobs, lose those that there are, and end all workers."""
        with self._changed:
            self._refusal = self._refusal or refusal
            running = list(self._running.values())
            left = [*self._queue, *running]
            self._queue.clear()
            self._running.clear()
            self._idle.clear()
            self._changed.notify_all()
        for submission in left:
            submission.cancelled.set()
            submission.lose(kind, cause)
        self._stop(running)
        self.dropped.put(None)
        atexit.unregister(self.close)

    # --- what an engine adds ----------------------------------------------------------------------

    @abstractmethod
    def _start(self) -> None:
        """Start or reach the workers; called until it succeeds once.

        Raises:
            PoolError: That is not possible; nothing is left of the attempt.
        """

    @abstractmethod
    def _run(self, submission: Submission) -> None:
        """Hand a job to the worker at its place, which is idle. Must not wait.

        Raises:
            NoThreadError: There is no thread for it; it is to wait for another job's end.
        """

    def _interrupt(self, submission: Submission) -> None:  # noqa: B027
        """Its `cancelled` is set: let its worker know, where it is in another process."""

    @abstractmethod
    def _kill(self, submission: Submission) -> str:
        """End a worker by force and see that its place is filled again; the cause of the loss."""

    @abstractmethod
    def _stop(self, running: list[Submission]) -> None:
        """End all workers, those of jobs that were running too. May be called more than once."""


def check_memory_limit(limit: Any) -> None:
    """Check a memory limit for workers.

    Raises:
        InputError: It is neither a positive number of bytes nor None.
    """
    if limit is not None and not (is_whole(limit) and 1 <= limit < 1 << 62):
        raise InputError(f"`memory_limit` is {described(limit)}: give a number of bytes, or None")


def hang_up(connection: Connection, how: int) -> None:
    """Shut down a socket in the given directions, for all processes that have it open."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(how)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Have standard input, output and error open meanwhile, where this process was given none.

    What is opened gets the lowest number that is free, and a child process that inherited a line of
    ours by the number of a stream would have the stream in its place.
    """
    null = os.open(os.devnull, os.O_RDWR)
    held = []
    while null <= 2:
        os.set_inheritable(null, True)
        held.append(null)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    try:
        yield
    finally:
        for each in held:
            os.close(each)


# --- what crosses to other processes --------------------------------------------------------------

PACKAGES = ("distributed-estimator", "numpy", "qiskit", "scipy", "cloudpickle")
"""Distributions whose versions decide the meaning of pickles, and the numbers that come out."""

_MOST_PACKED = 8
_MOST_BYTES = 256 << 20
_MOST_NAMED = 8


class Packer:
    """Pickles works, and keeps the last few."""

    def __init__(self) -> None:
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, work: Work) -> bytes:
        """The work, pickled; by value where its classes are the caller's own script's.

        Raises:
            InputError: It cannot be sent to another process.
        """
        with self._lock:
            if work.key not in self._packed:
                self._packed[work.key] = _pickled(work, "`backend`", "a backend that pickles")
                while len(self._packed) > 1 and (
                    len(self._packed) > _MOST_PACKED
                    or sum(map(len, self._packed.values())) > _MOST_BYTES
                ):
                    self._packed.popitem(last=False)
            return self._packed[work.key]


def _pickled(content: Any, name: str, remedy: str) -> bytes:
    try:
        return bytes(cloudpickle.dumps(content))
    except Exception as error:
        raise InputError(
            f"{name} cannot be sent to another process ({type(error).__name__}: {error}): use "
            f'pool="threads", or {remedy}'
        ) from error


def own_versions() -> dict[str, str | None]:
    """Versions of this process: Python's as "major.minor", packages' in full, None where absent."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, **{name: installed(name) for name in PACKAGES}}


def check_versions(theirs: Mapping[str, Mapping[str, str | None]]) -> None:
    """Compare workers with this process.

    Args:
        theirs: By worker, the result of `own_versions` there. A package that is not named counts
            as not installed.

    Raises:
        PoolError: Some worker differs; the message names each difference.
    """
    differences: dict[str, list[str]] = {}
    for worker, versions in theirs.items():
        for name, own in own_versions().items():
            if (found := versions.get(name)) != own:
                there, here = found or "(not installed)", own or "(not installed)"
                differences.setdefault(f"{name} {there} instead of {here}", []).append(worker)
    if differences:
        listed = "; ".join(f"{what} on {_named(on)}" for what, on in differences.items())
        raise PoolError(
            f"workers differ from this process: {listed}. Install on every worker what is "
            "installed here, `pip install distributed-estimator` and the versions above"
        )


def _named(workers: list[str]) -> str:
    more = len(workers) - _MOST_NAMED
    return ", ".join(workers[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
