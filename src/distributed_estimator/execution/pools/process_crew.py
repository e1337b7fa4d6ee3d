"""The processes of a pool: who runs what, and what happens when one dies."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
from collections import deque
from functools import partial
from queue import SimpleQueue

from ...errors import PoolError
from ..messages import Order, Outcome, Tell
from .base import closed
from .jobs import Job, checked_report, is_strained, no_thread
from .process_handle import ProcessEndedError, StartMethod, WorkerProcess
from .process_worker import Cancel, NeedWork, Report, Run

_MOST_STARTS = 3
_GRACE = 2.0
_CLOSE_LIMIT = 4.5


class ProcessJob(Job):
    """An order with what goes to a process for it, pickled.

    Args:
        order: The order.
        tell: Takes messages on it.
        packed: Its work.
        items: Its items.
    """

    _numbers = itertools.count()

    def __init__(self, order: Order, tell: Tell, packed: bytes, items: bytes) -> None:
        super().__init__(order, tell)
        self.number = next(self._numbers)
        self.packed = packed
        self.items = items
        self.process: WorkerProcess | None = None
        # Whether its worker may be sent a cancel: two senders at a time would mix their bytes.
        self.listening = False


class Crew:
    """The processes of a pool, each with a thread that starts, feeds and replaces it.

    Args:
        workers: How many.
        method: How to start them.
        memory_limit: Bytes that each may hold; None: no limit.

    Attributes:
        dropped: Whatever is put here ends the crew.
    """

    def __init__(self, workers: int, method: StartMethod, memory_limit: int | None) -> None:
        self.dropped: SimpleQueue[None] = SimpleQueue()
        self._workers = workers
        self._method = method
        self._memory_limit = memory_limit
        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._queue: deque[ProcessJob] = deque()
        self._running: dict[Order, ProcessJob] = {}
        self._starting: set[WorkerProcess] = set()
        self._threads: list[threading.Thread] = []
        self._came_up = False
        self._closed = False

    def submit(self, job: ProcessJob) -> None:
        """See `Pool.submit`."""
        with self._changed:
            if self._closed:
                raise closed()
            self._start_threads()
            self._queue.append(job)
            self._changed.notify_all()

    def cancel(self, order: Order) -> None:
        """See `Pool.cancel`."""
        with self._changed:
            job = next((job for job in self._queue if job.order is order), None)
            if job is not None:
                self._queue.remove(job)
            elif order in self._running:
                self._interrupt(self._running[order])
        if job is not None:
            job.lose("cancelled", "it was withdrawn before it began")

    def abandon(self, order: Order) -> None:
        """See `Pool.abandon`."""
        with self._changed:
            job = self._running.get(order)
            if job is not None and job.process is not None:
                # Under the lock: a moment later its worker may have come back, and run another.
                job.process.kill()
                cause = f"worker {job.process.number} did not come back in time, and was killed"
        if job is None:
            self.cancel(order)
        else:
            job.lose("lost", cause)

    def close(self) -> None:
        """See `Pool.close`."""
        if os.getpid() != self._owner:
            return  # a fork runs its owner's `atexit` hooks too
        with self._changed:
            self._closed = True
            running = list(self._running.values())
            left = [*self._queue, *running]
            self._queue.clear()
            doomed = {*self._starting, *(job.process for job in running if job.process)}
            self._changed.notify_all()
        for job in left:
            job.lose("cancelled", "the pool was closed")
        for process in doomed:
            process.kill()
        self.dropped.put(None)
        limit = time.monotonic() + _CLOSE_LIMIT
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, limit - time.monotonic()))
        atexit.unregister(self.close)

    def _start_threads(self) -> None:
        """Start those that are missing; where there is no room for all, orders have to wait."""
        if not self._threads:
            # It runs before the hook of `multiprocessing`, which waits for all processes.
            atexit.register(self.close)
        while (count := len(self._threads)) <= self._workers:
            target = partial(self._serve, count - 1) if count else self._close_when_dropped
            name = f"distributed-estimator-crew-{count}"
            thread = threading.Thread(target=target, name=name, daemon=True)
            try:
                thread.start()
            except Exception as error:
                if count < 2:  # nobody would start a worker
                    raise PoolError(no_thread(error)) from error
                return
            self._threads.append(thread)

    def _close_when_dropped(self) -> None:
        # Finalisers run anywhere, even where a lock is held: all they may do is put a token here.
        self.dropped.get()
        self.close()

    def _serve(self, number: int) -> None:
        """Keep a worker up as long as there is something to do for it."""
        failures = 0
        while self._is_wanted(number):
            try:
                process = self._start(number)
            except ProcessEndedError as error:
                failures += 1
                if failures == _MOST_STARTS or not (self._came_up or error.passing):
                    self._refuse(str(error))
                    failures = 0
                continue
            failures = 0
            while self._serve_next(process):
                pass

    def _is_wanted(self, number: int) -> bool:
        """Wait until orders do. The first worker starts alone: if it cannot, nor can others."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._queue and (number == 0 or self._came_up))
            )
            return not self._closed

    def _start(self, number: int) -> WorkerProcess:
        process = WorkerProcess(number, self._method, self._memory_limit)
        with self._changed:
            self._starting.add(process)
            if self._closed:
                process.kill()
        try:
            process.wait_until_ready()
        finally:
            with self._changed:
                self._starting.discard(process)
        with self._changed:
            self._came_up = True
            self._changed.notify_all()
        return process

    def _refuse(self, cause: str) -> None:
        with self._changed:
            refused = list(self._queue)
            self._queue.clear()
        for job in refused:
            job.lose("refused", cause)

    def _serve_next(self, process: WorkerProcess) -> bool:
        """Wait for an order and run it; whether the worker is there for another one.

        Nothing of an order outlives this call: a thread that waits keeps nobody's objects alive.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._queue)
            usable = process.is_alive() and not self._closed
            if usable:
                job = self._queue.popleft()
                job.process = process
                self._running[job.order] = job
        if not usable:
            process.stop(_GRACE)
            return False
        return self._run(job, process)

    def _run(self, job: ProcessJob, process: WorkerProcess) -> bool:
        job.start(str(process.number))
        cause, outcomes = "", None
        try:
            self._send(job, process, Run(job.number, job.order.work.key, job.items, job.order.slow))
            while isinstance(report := process.receive(), NeedWork):
                self._send(job, process, job.packed)
            outcomes = _checked(report, job)
        except ProcessEndedError as error:
            cause = str(error)
        except Exception as error:  # no memory for the report, say: this thread must go on
            process.end(0.0)
            cause = f"worker {process.number} was given up ({type(error).__name__}: {error})"
        with self._changed:
            del self._running[job.order]
            job.listening = False
        if outcomes is not None:
            job.end(str(process.number), outcomes)
            if is_strained(outcomes):
                process.stop(_GRACE)
                return False
            return True
        if not cause:
            process.end(0.0)
            cause = f"worker {process.number} sent a report that is none: {report!r:.80}"
        job.lose("lost", cause)
        return False

    def _send(self, job: ProcessJob, process: WorkerProcess, message: object) -> None:
        with self._changed:
            job.listening = False
        process.send(message)
        with self._changed:
            job.listening = True
            if job.cancelled.is_set():
                self._interrupt(job)

    def _interrupt(self, job: ProcessJob) -> None:
        job.cancelled.set()
        if job.listening and job.process is not None:
            job.process.interrupt(Cancel(job.number))


def _checked(report: object, job: ProcessJob) -> tuple[Outcome, ...] | Exception | None:
    if not isinstance(report, Report) or report.job != job.number:
        return None
    return checked_report(report.outcomes, job.order)
