"""Processes of our own: one that dies or hangs is replaced, and only its own order is lost."""

from __future__ import annotations

import multiprocessing
import weakref

from ...errors import InputError
from ...forks import is_fork
from ..messages import Order, Tell
from .base import Pool, check_memory_limit
from .jobs import pack_items
from .packing import Packer
from .process_crew import Crew, ProcessJob
from .process_handle import StartMethod, end_if_starting


class ProcessPool(Pool):
    """Worker processes on this machine, each with one thread for linear algebra.

    Processes are started when orders wait for them, the first one alone. They end with this pool
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
        super().__init__(workers)
        method = _checked_method(start_method)
        check_memory_limit(memory_limit)
        self._packer = Packer()
        self._crew = Crew(workers, method, memory_limit)
        # Threads know the crew alone, so a pool that nobody has any more is collected.
        self._dropped = weakref.finalize(self, self._crew.dropped.put, None)
        self._dropped.atexit = False

    def _submit(self, order: Order, tell: Tell) -> None:
        """See `Pool.submit`; returns at once, even where no worker is up yet."""
        end_if_starting()
        packed = self._packer.pack(order.work)
        self._crew.submit(ProcessJob(order, tell, packed, pack_items(order)))

    def _cancel(self, order: Order) -> None:
        """See `Pool.cancel`: an injected sleep ends at once, a task that computes goes on."""
        self._crew.cancel(order)

    def _abandon(self, order: Order) -> None:
        """See `Pool.abandon`: its process is killed, and another takes its place."""
        self._crew.abandon(order)

    def _close(self) -> None:
        """See `Pool.close`."""
        self._crew.close()


def _checked_method(method: StartMethod | None) -> StartMethod:
    if method is None and is_fork():
        return "spawn"  # the fork server is its parent's, and takes no orders from it
    if method is None:
        available = multiprocessing.get_all_start_methods()
        return "forkserver" if "forkserver" in available else "spawn"
    if method not in ("forkserver", "spawn"):
        raise InputError(
            f'`start_method` is {method!r}: give "forkserver" or "spawn" (with "fork", simulators '
            "that ran before may hang in the workers)"
        )
    return method
