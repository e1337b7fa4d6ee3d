"""Any executor with the interface of `concurrent.futures`."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

from ...checks import check_kind
from ..messages import Order, Outcome, SlowWorker, Tell
from ..worker import run_items, run_packed, sleep
from .base import Pool, closed
from .jobs import Job, checked_report, no_thread, pack_items, woken_by
from .packing import Packer

_Report: TypeAlias = tuple[Outcome, ...] | Exception


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
        super().__init__(workers)
        check_kind("executor", executor, Executor, "a `concurrent.futures.Executor`")
        self.name = type(executor).__name__
        self.in_process = isinstance(executor, ThreadPoolExecutor)
        self._executor = executor
        self._packer = Packer()
        self._changed = threading.Lock()
        self._queue: deque[_ExecutorJob] = deque()
        self._running: dict[Order, _ExecutorJob] = {}
        self._free: set[int] = set(range(workers))
        self._feeding = False
        self._closed = False

    def _submit(self, order: Order, tell: Tell) -> None:
        """See `Pool.submit`."""
        job = _ExecutorJob(order, tell)
        if not self.in_process:
            job.packed, job.items = self._packer.pack(order.work), pack_items(order)
        with self._changed:
            if self._closed:
                raise closed()
            self._queue.append(job)
        self._feed()

    def _cancel(self, order: Order) -> None:
        """See `Pool.cancel`: in threads, an injected sleep ends at once."""
        with self._changed:
            job = self._running.get(order)
            waiting = next((job for job in self._queue if job.order is order), None)
            if waiting is not None:
                self._queue.remove(waiting)
        if waiting is not None:
            waiting.lose("cancelled", "it was withdrawn before it began")
        if job is not None:
            job.withdraw()

    def _abandon(self, order: Order) -> None:
        """See `Pool.abandon`: its place is free, and a late result is dropped."""
        with self._changed:
            job = self._let_go(order)
        if job is None:
            self._cancel(order)
            return
        job.lose("lost", f"job {job.place} of the executor did not come back in time")
        job.withdraw()
        self._feed()

    def _close(self) -> None:
        """See `Pool.close`; the executor itself is left as it is."""
        with self._changed:
            self._closed = True
            left = [*self._queue, *self._running.values()]
            self._queue.clear()
            self._running.clear()
        for job in left:
            job.lose("cancelled", "the pool was closed")
            job.withdraw()

    def _let_go(self, order: Order) -> _ExecutorJob | None:
        """Free the place of an order; None where it has none any more."""
        job = self._running.pop(order, None)
        if job is not None:
            self._free.add(job.place)
        return job

    def _feed(self) -> None:
        """Have what waits handed on, by a thread that has nothing else to do.

        Futures tell their end while their executor may hold its own lock: nothing can be handed on
        from there.
        """
        with self._changed:
            if self._feeding or not (self._queue and self._free):
                return
            self._feeding = True
        name = "distributed-estimator-executor"
        try:
            threading.Thread(target=self._hand_on_all, name=name, daemon=True).start()
        except Exception as error:
            self._put_off(error)

    def _put_off(self, error: Exception) -> None:
        """No thread can be started: the next job to end tries again; without any, nothing will."""
        refused: list[_ExecutorJob] = []
        with self._changed:
            self._feeding = False
            if not self._running:
                refused = list(self._queue)
                self._queue.clear()
        for job in refused:
            job.lose("refused", no_thread(error))

    def _hand_on_all(self) -> None:
        while True:
            with self._changed:
                if not (self._queue and self._free):
                    self._feeding = False
                    return
                job = self._queue.popleft()
                job.place = min(self._free)
                self._free.remove(job.place)
                self._running[job.order] = job
            job.start(str(job.place))
            try:
                self._hand_on(job)
            except Exception as error:
                with self._changed:
                    self._let_go(job.order)
                job.lose("refused", _refusal(self.name, error))

    def _hand_on(self, job: _ExecutorJob) -> None:
        future = job.future = self._hand_over(job)
        if job.cancelled.is_set():
            future.cancel()
        future.add_done_callback(partial(self._finish, job))

    def _hand_over(self, job: _ExecutorJob) -> Future[_Report]:
        order = job.order
        if self.in_process:
            return self._executor.submit(_run_here, order, job.place, job.cancelled)
        key, slow = order.work.key, order.slow
        return self._executor.submit(_run_there, key, job.packed, job.items, job.place, slow)

    def _finish(self, job: _ExecutorJob, future: Future[_Report]) -> None:
        with self._changed:
            self._let_go(job.order)
        try:
            self._tell_end(job, future)
        except Exception as error:  # futures drop errors of what they call
            job.lose("lost", f"its result cannot be read ({type(error).__name__}: {error})")
        self._feed()

    def _tell_end(self, job: _ExecutorJob, future: Future[_Report]) -> None:
        if future.cancelled() and job.cancelled.is_set():
            job.lose("cancelled", "it was withdrawn before it began")
        elif future.cancelled():
            job.lose("lost", "its executor cancelled it")
        elif isinstance(error := future.exception(), BrokenExecutor):
            job.lose("refused", _refusal(self.name, error))
        elif error is not None:
            job.lose("lost", f"the executor failed ({type(error).__name__}: {error})")
        elif (report := checked_report(future.result(), job.order)) is None:
            job.lose("lost", f"the executor gave what is no report: {future.result()!r:.80}")
        else:
            job.end(str(job.place), report)


class _ExecutorJob(Job):
    def __init__(self, order: Order, tell: Tell) -> None:
        super().__init__(order, tell)
        self.packed = b""
        self.items = b""
        self.place = -1
        self.future: Future[_Report] | None = None

    def withdraw(self) -> None:
        """Have it end soon where that is possible."""
        self.cancelled.set()
        if self.future is not None:
            self.future.cancel()


def _refusal(name: str, error: BaseException) -> str:
    return (
        f"the {name} takes no jobs any more ({type(error).__name__}: {error}): make a new one, and "
        "a new estimator with it"
    )


def _run_here(order: Order, place: int, cancelled: threading.Event) -> _Report:
    return run_items(
        order.work,
        order.items,
        wait=woken_by(cancelled),
        worker=place,
        slow=order.slow,
        remote=False,
    )


def _run_there(
    key: str, packed: bytes, items: bytes, place: int, slow: SlowWorker | None
) -> _Report:
    return run_packed(key, lambda: packed, items, wait=sleep, worker=place, slow=slow)
