"""Processes of our own: one that dies or hangs is replaced, and only its own job is lost."""

from __future__ import annotations

import multiprocessing
import threading
import time
from contextlib import suppress

from ...errors import InputError
from ...forks import is_fork
from ..messages import Job, Notify
from .base import Engine, NoThreadError, Pool, Submission, check_memory_limit, start_thread
from .process_handle import ProcessEndedError, StartMethod, WorkerProcess, end_if_starting
from .process_worker import Cancel, NeedWork, Report, Run

_MOST_STARTS = 3
_GRACE = 2.0
_CLOSE_LIMIT = 4.5


class ProcessPool(Pool):
    """Worker processes on this machine, each with one thread for linear algebra.

    Processes are started when jobs wait for them, the first one alone. They end with this pool
    and with this process, however it ends.

    Args:
        workers: Processes, and so tasks that run at a time.
        start_method: "forkserver" or "spawn"; None: the former where the platform has it. Either
            imports the caller's script, which must make its estimator under
            `if __name__ == "__main__":`.
        memory_limit: Bytes that each process may hold; a task that wants more raises
            `MemoryError`. None: no limit.

    Raises:
        InputError: An argument is out of range.
    """

    name = "processes"

    def __init__(
        self,
        workers: int,
        *,
        start_method: StartMethod | None = None,
        memory_limit: int | None = None,
    ) -> None:
        check_memory_limit(memory_limit)
        super().__init__(_Processes(workers, _checked_method(start_method), memory_limit))


class _Processes(Engine):
    """Each process has a thread that starts, feeds and replaces it."""

    def __init__(self, workers: int, method: StartMethod, memory_limit: int | None) -> None:
        super().__init__(workers)
        self._method = method
        self._memory_limit = memory_limit
        self._threads: list[threading.Thread] = []
        self._processes: dict[int, WorkerProcess] = {}
        self._came_up = False

    def submit(self, job: Job, notify: Notify) -> None:
        """See `Pool.submit`; returns at once, even where no worker is up yet."""
        end_if_starting()
        super().submit(job, notify)

    def _start(self) -> None:
        if not self._threads:
            self._start_thread()
        self._close_when_dropped()

    def _start_thread(self) -> None:
        number = len(self._threads)
        self._threads.append(start_thread(self._serve, number, name=f"process-{number}"))

    def _hand_out(self) -> None:
        """Threads take jobs by themselves; where no other can be started, jobs wait."""
        with self._changed:
            with suppress(NoThreadError):
                while len(self._threads) < self.workers:
                    self._start_thread()
            self._changed.notify_all()

    def _serve(self, place: int) -> None:
        """Keep a worker up as long as there is something to do for it."""
        failures = 0
        while self._is_wanted(place):
            try:
                process = self._boot(place)
            except ProcessEndedError as error:
                failures += 1
                if failures == _MOST_STARTS or not (self._came_up or error.passing):
                    self._refuse_waiting(str(error))
                    failures = 0
                continue
            failures = 0
            while self._serve_next(process, place):
                pass

    def _is_wanted(self, place: int) -> bool:
        """Wait for jobs. The first worker starts alone: if it cannot, nor can others."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._refusal or (self._queue and (place == 0 or self._came_up))
            )
            return self._refusal is None

    def _boot(self, place: int) -> WorkerProcess:
        process = WorkerProcess(place, self._method, self._memory_limit)
        with self._changed:
            self._processes[place] = process
            if self._refusal is not None:
                process.kill()
        process.wait_until_ready()
        with self._changed:
            self._came_up = True
            self._changed.notify_all()
        return process

    def _serve_next(self, process: WorkerProcess, place: int) -> bool:
        """Wait for a job and run it; whether the worker is there for another one.

        Nothing of a job outlives this call: a thread that waits keeps no objects of a caller alive.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._refusal or self._queue)
            submission = self._next(place) if process.is_alive() else None
            if submission is not None:
                submission.worker = process
        if submission is not None:
            submission.start(str(place))
            try:
                if self._finish(submission, self._report_on(submission, process)):
                    return True
            except ProcessEndedError as error:
                self._lose(submission, str(error))
                return False
            except Exception as error:  # no memory for the report, say: this thread must go on
                process.kill()
                cause = f"worker {place} was given up ({type(error).__name__}: {error})"
                self._lose(submission, cause)
        process.stop(_GRACE)
        return False

    def _report_on(self, submission: Submission, process: WorkerProcess) -> object:
        """Have a job run."""
        job = submission.job
        message: object = Run(submission.number, job.work.key, submission.items, job.slow)
        while True:
            process.send(message)
            if submission.cancelled.is_set():  # its cancel may have come while this was sent
                self._interrupt(submission)
            report = process.receive()
            if not isinstance(report, NeedWork):
                break
            message = submission.packed
        sound = isinstance(report, Report) and report.job == submission.number
        return report.outcomes if sound else report

    def _interrupt(self, submission: Submission) -> None:
        submission.worker.interrupt(Cancel(submission.number))

    def _kill(self, submission: Submission) -> str:
        submission.worker.kill()
        return f"worker {submission.place} did not come back in time, and was killed"

    def _run(self, submission: Submission) -> None:
        raise AssertionError("threads take jobs by themselves")

    def _stop(self, running: list[Submission]) -> None:
        """End busy and starting processes by force; the threads of idle ones ask them to end."""
        with self._changed:
            starting = [process for process in self._processes.values() if not process.is_up]
        for process in [*starting, *(submission.worker for submission in running)]:
            process.kill()
        limit = time.monotonic() + _CLOSE_LIMIT
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, limit - time.monotonic()))


def _checked_method(method: StartMethod | None) -> StartMethod:
    if method is None and is_fork():
        return "spawn"  # the fork server is its parent's, and takes no requests from it
    if method is None:
        available = multiprocessing.get_all_start_methods()
        return "forkserver" if "forkserver" in available else "spawn"
    if method not in ("forkserver", "spawn"):
        raise InputError(
            f'`start_method` is {method!r}: give "forkserver" or "spawn" (with "fork", simulators '
            "that ran before may hang in the workers)"
        )
    return method
