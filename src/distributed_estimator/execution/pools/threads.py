"""Threads of this process, of our own: a hung one can be replaced, a sleeping one woken."""

from __future__ import annotations

import os
import threading
from collections import deque

from ...forks import register
from ..messages import Order, Outcome, Tell
from ..worker import run_items
from .base import Pool, closed
from .jobs import Job, no_thread, woken_by


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
        super().__init__(workers)
        self._closed = False
        self._renew_in_fork()
        register(self)

    def _renew_in_fork(self) -> None:
        """Threads are started with the next order; those of the parent are not here."""
        self._owner = os.getpid()
        self._changed = threading.Lock()
        self._queue: deque[Job] = deque()
        self._running: dict[Order, tuple[Job, int]] = {}
        self._idle: set[int] = set(range(self.workers))

    def _submit(self, order: Order, tell: Tell) -> None:
        """See `Pool.submit`."""
        with self._changed:
            if self._closed:
                raise closed()
            self._queue.append(Job(order, tell))
        self._start_waiting()

    def _cancel(self, order: Order) -> None:
        """See `Pool.cancel`: an injected sleep ends at once, a task that computes goes on."""
        with self._changed:
            job = next((job for job in self._queue if job.order is order), None)
            if job is not None:
                self._queue.remove(job)
            elif order in self._running:
                self._running[order][0].cancelled.set()
        if job is not None:
            job.lose("cancelled", "it was withdrawn before it began")

    def _abandon(self, order: Order) -> None:
        """See `Pool.abandon`: its thread is left to itself, and another takes its place."""
        with self._changed:
            job, worker = self._running.pop(order, (None, -1))
            if job is not None:
                self._idle.add(worker)
        if job is None:
            self._cancel(order)
            return
        job.cancelled.set()
        job.lose("lost", f"thread {worker} did not come back in time")
        self._start_waiting()

    def _close(self) -> None:
        """See `Pool.close`; a thread that computes cannot be ended, but nobody waits for it."""
        with self._changed:
            self._closed = True
            left = [*self._queue, *(job for job, _ in self._running.values())]
            self._queue.clear()
            self._running.clear()
        for job in left:
            job.cancelled.set()
            job.lose("cancelled", "the pool was closed")

    def _start_waiting(self) -> None:
        """Give what waits to idle places; a thread lives as long as there is something to do."""
        while True:
            with self._changed:
                if not (self._queue and self._idle):
                    return
                job, worker = self._queue.popleft(), min(self._idle)
                self._idle.remove(worker)
                self._running[job.order] = job, worker
            name = f"distributed-estimator-{worker}"
            thread = threading.Thread(target=self._work, args=[job, worker], name=name, daemon=True)
            try:
                thread.start()
            except Exception as error:
                self._take_back(job, worker, error)
                return

    def _take_back(self, job: Job, worker: int, error: Exception) -> None:
        """No thread can be started: those that run do what waits; without any, nothing will."""
        refused: list[Job] = []
        with self._changed:
            if self._running.pop(job.order, None) is not None:
                self._idle.add(worker)
                self._queue.appendleft(job)
            if not self._running:
                refused = list(self._queue)
                self._queue.clear()
        for each in refused:
            each.lose("refused", no_thread(error))

    def _work(self, job: Job, worker: int) -> None:
        following: Job | None = job
        while following is not None:
            following = self._run(following, worker)

    def _run(self, job: Job, worker: int) -> Job | None:
        """Run an order, tell its end, and say which comes next on this thread."""
        job.start(str(worker))
        report = _report(job, worker)
        with self._changed:
            if self._running.pop(job.order, None) is None:
                return None  # given up meanwhile: another thread has this place
            following = self._queue.popleft() if self._queue and not self._closed else None
            if following is None:
                self._idle.add(worker)
            else:
                self._running[following.order] = following, worker
        if isinstance(report, str):
            job.lose("lost", report)
        else:
            job.end(str(worker), report)
        return following


def _report(job: Job, worker: int) -> tuple[Outcome, ...] | str:
    """Run an order; says why where there is no report."""
    order = job.order
    try:
        return run_items(
            order.work,
            order.items,
            wait=woken_by(job.cancelled),
            worker=worker,
            slow=order.slow,
            remote=False,
        )
    except Exception as error:  # no memory for the report, say: this thread must go on
        return f"thread {worker} failed ({type(error).__name__}: {error})"
