"""What every pool can do."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

from ...checks import check_whole, is_whole
from ...errors import InputError, PoolError
from ..messages import Order, Tell


class Pool(ABC):
    """Workers that take orders. Several drivers may share a pool, from several threads.

    Every order that was submitted ends with exactly one `Ended` or `Lost`, whatever happens to its
    worker, and with at most one `Started` before it. Workers are started with the first order.
    They belong to the process that made the pool: a fork of it can neither use nor end them
    (threads excepted, which start afresh there).

    No method waits for another process for long. One that was stopped (SIGSTOP) keeps its
    connections, takes nothing, says nothing and ignores SIGTERM: a pool sends without waiting,
    counts the silence of every helper process that it depends on, loses its orders after a bounded
    one, and ends by SIGKILL what it started, with all that this leaves without a parent. Where this
    program itself was suspended, that is no silence.

    Attributes:
        name: For records.
        workers: Orders that run at a time; more wait inside the pool, in order.
        in_process: Whether workers share this process: works are not pickled, and a lone short job
            may run where it is asked for.
        job_seconds: How long a job should take at least, so that the pool's overhead is small
            beside it.
    """

    name: str
    in_process: bool = False
    job_seconds: float = 0.05

    def __init__(self, workers: Any) -> None:
        self.workers = check_whole("workers", workers)
        self._owner = os.getpid()

    def submit(self, order: Order, tell: Tell) -> None:
        """Run an order on the next free worker. Returns at once, once workers are up.

        Raises:
            InputError: The order's work cannot be sent to the workers; nothing was sent.
            PoolError: The workers cannot be started or reached, or belong to another process, or
                the pool is closed.
        """
        if not self._is_ours:
            raise PoolError(
                f"the pool's workers belong to process {self._owner}, and this is a fork of it: "
                "make a new estimator here, with a new pool or one by name"
            )
        self._submit(order, tell)

    def cancel(self, order: Order) -> None:
        """Nobody waits for this order any more: drop it, or end it soon where that is cheap."""
        if self._is_ours:
            self._cancel(order)

    def abandon(self, order: Order) -> None:
        """Its worker is presumed hung: get the order's `Lost` told and its place free, by force."""
        if self._is_ours:
            self._abandon(order)

    def close(self) -> None:
        """End all workers within 5 s, orders on them too (`Lost`). Closing twice does nothing."""
        if self._is_ours:
            self._close()

    @property
    def _is_ours(self) -> bool:
        return os.getpid() == self._owner

    @abstractmethod
    def _submit(self, order: Order, tell: Tell) -> None: ...

    @abstractmethod
    def _cancel(self, order: Order) -> None: ...

    @abstractmethod
    def _abandon(self, order: Order) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


def check_memory_limit(limit: Any) -> None:
    """Refuse what is no memory limit for workers.

    Raises:
        InputError: It is neither a positive number of bytes nor None.
    """
    if limit is not None and not (is_whole(limit) and limit >= 1):
        raise InputError(f"`memory_limit` is {limit!r}: give a number of bytes, or None")


def closed() -> PoolError:
    """The error for an order that comes after the end of its pool."""
    return PoolError("the pool is closed: make a new estimator")
