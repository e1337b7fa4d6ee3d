"""Where tasks run: threads of this process, or any executor the user brings."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from ..errors import InputError


class Pool:
    """Workers behind the interface of `concurrent.futures`.

    Attributes:
        name: For records.
        workers: Tasks that run at a time.
        in_process: Whether workers share this process, so that a lone short job may run where it
            is asked for.
    """

    def __init__(
        self, name: str, workers: int, make: Callable[[], Executor], *, in_process: bool
    ) -> None:
        self.name = name
        self.workers = workers
        self.in_process = in_process
        self._make = make
        self._executor: Executor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start a call on a worker; workers are started with the first."""
        if self._executor is None:
            self._executor = self._make()
        return self._executor.submit(function, *arguments)


def make_pool(pool: str | Executor, workers: Any) -> Pool:
    """A pool from its name or from an executor.

    Raises:
        InputError: The name is unknown or `workers` is less than one.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InputError(f"`workers` is {workers!r}: give a whole number of at least 1")
    if isinstance(pool, Executor):
        local = isinstance(pool, ThreadPoolExecutor)
        return Pool(type(pool).__name__, workers, lambda: pool, in_process=local)
    if pool == "threads":
        prefix = "distributed-estimator"
        return Pool(pool, workers, lambda: ThreadPoolExecutor(workers, prefix), in_process=True)
    raise InputError(
        f'`pool` is {pool!r}: give "threads" or an object of type `concurrent.futures.Executor`'
    )
