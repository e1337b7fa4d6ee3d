"""Threads of this process, and executors of `concurrent.futures` that the caller brings."""

from __future__ import annotations

import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial

from ...checks import check_kind
from ...forks import register
from ..messages import Item, Job, Work
from ..worker import Report, run_job, unpack, waits_for
from .base import Engine, NoThreadError, Pool, Submission, start_thread


class ThreadPool(Pool):
    """Threads that share this process and its memory.

    Works run concurrently where they release the interpreter's lock: inside NumPy, inside
    simulators, waiting for a device. Alone among pools, it may be used in a fork, where it has
    threads of its own.

    Args:
        workers: Tasks that run at a time.
    """

    name = "threads"
    in_process = True
    job_seconds = 0.01

    def __init__(self, workers: int) -> None:
        super().__init__(_Threads(workers))


class _Threads(Engine):
    """A thread lives as long as there is something to do for it.

    One that computes cannot be ended: it is left to itself, and another takes its place.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, remote=False)
        register(self)

    def _reset(self) -> None:
        super()._reset()
        self._idle.update(range(self.workers))

    def _renew_in_fork(self) -> None:
        """Threads are started with the next job; those of the parent are not here."""
        self._reset()

    def _start(self) -> None:
        pass

    def _run(self, submission: Submission) -> None:
        start_thread(self._work, submission, name=str(submission.place))

    def _work(self, submission: Submission | None) -> None:
        while submission is not None:
            place = submission.place
            submission.start(str(place))
            report: Report | None = None
            cause = ""
            try:
                report = run_job(
                    partial(_contents, submission.job),
                    wait=waits_for(submission.cancelled),
                    delay=submission.delay,
                    remote=False,
                )
            except Exception as error:  # no memory for the report, say: this thread must go on
                cause = f"thread {place} failed ({type(error).__name__}: {error})"
            kept = self._forget(submission)
            if report is None:
                submission.lose("lost", cause)
            else:
                submission.finish(str(place), report)
            if not kept:
                return  # given up meanwhile: another thread has this place
            submission = self._next(place)
        self._free(place)

    def _kill(self, submission: Submission) -> str:
        self._free(submission.place)
        return f"thread {submission.place} did not come back in time"

    def _stop(self, running: list[Submission]) -> None:
        pass


class ExecutorPool(Pool):
    """An executor that the caller brought, and shuts down.

    At most `workers` jobs are at the executor at a time; each has a place, whose number stands for
    a worker's. Where workers are not threads of this process, the pickled work travels with every
    job, as there is no telling which worker gets it; each unpickles it once.

    What an executor does with a job that hangs is out of reach: `abandon` frees its place here,
    and whether the executor has a worker left for the next job is the executor's affair.

    Args:
        executor: The executor.
        workers: Jobs that it runs at a time.

    Raises:
        InputError: `executor` is none, or `workers` is out of range.
    """

    def __init__(self, executor: Executor, workers: int) -> None:
        check_kind("executor", executor, Executor, "a `concurrent.futures.Executor`")
        self.name = type(executor).__name__
        self.in_process = isinstance(executor, ThreadPoolExecutor)
        super().__init__(_Executor(executor, workers, self.name, remote=not self.in_process))


class _Executor(Engine):
    def __init__(self, executor: Executor, workers: int, name: str, *, remote: bool) -> None:
        super().__init__(workers, remote=remote)
        self._executor = executor
        self._name = name
        self._remote = remote
        self._idle.update(range(self.workers))
        self._futures: dict[Submission, Future[Report]] = {}
        self._feeding = False

    def _start(self) -> None:
        pass

    def _hand_out(self) -> None:
        """Have jobs handed out by a thread that does nothing else.

        Futures report their end while their executor may hold its own lock: nothing can be handed
        to it from there.
        """
        with self._changed:
            if self._feeding or not (self._queue and self._idle):
                return
            self._feeding = True
        try:
            start_thread(self._feed, name="executor")
        except NoThreadError as error:
            with self._changed:
                self._feeding = False
                hopeless = not self._running
            if hopeless:
                self._refuse_waiting(str(error))

    def _feed(self) -> None:
        while True:
            with self._changed:
                submission = self._next()
                if submission is None:
                    self._feeding = False
                    return
            submission.start(str(submission.place))
            try:
                self._run(submission)
            except Exception as error:
                kept = self._forget(submission)
                submission.lose("refused", self._refusal_for(error))
                if kept:
                    self._free(submission.place)

    def _run(self, submission: Submission) -> None:
        future: Future[Report]
        if self._remote:
            packed = submission.job.work.key, submission.packed, submission.items
            future = self._executor.submit(_run_there, *packed, submission.delay)
        else:
            future = self._executor.submit(_run_here, submission)
        self._futures[submission] = future
        if submission.cancelled.is_set():
            future.cancel()
        future.add_done_callback(partial(self._done, submission))

    def _done(self, submission: Submission, future: Future[Report]) -> None:
        """Futures drop errors of their callbacks: there must not be any."""
        self._futures.pop(submission, None)
        kept = self._forget(submission)
        if future.cancelled() and submission.cancelled.is_set():
            submission.lose("cancelled", "it was withdrawn before it began")
        elif future.cancelled():
            submission.lose("lost", "its executor cancelled it")
        elif isinstance(error := future.exception(), BrokenExecutor):
            submission.lose("refused", self._refusal_for(error))
        elif error is not None:
            submission.lose("lost", f"the executor failed ({type(error).__name__}: {error})")
        else:
            submission.finish(str(submission.place), future.result())
        if kept:
            self._free(submission.place)

    def _refusal_for(self, error: BaseException) -> str:
        return (
            f"the {self._name} takes no jobs any more ({type(error).__name__}: {error}): make a "
            "new one, and a new estimator with it"
        )

    def _interrupt(self, submission: Submission) -> None:
        if (future := self._futures.get(submission)) is not None:
            future.cancel()

    def _kill(self, submission: Submission) -> str:
        self._interrupt(submission)
        self._free(submission.place)
        return f"job {submission.place} of the executor did not come back in time"

    def _stop(self, running: list[Submission]) -> None:
        for submission in running:
            self._interrupt(submission)


def _contents(job: Job) -> tuple[Work, tuple[Item, ...]]:
    return job.work, job.items


def _run_here(submission: Submission) -> Report:
    load, wait = partial(_contents, submission.job), waits_for(submission.cancelled)
    return run_job(load, wait=wait, delay=submission.delay, remote=False)


def _run_there(key: str, packed: bytes, items: bytes, delay: float) -> Report:
    load = partial(unpack, key, lambda: packed, items)
    return run_job(load, wait=waits_for(threading.Event()), delay=delay)
