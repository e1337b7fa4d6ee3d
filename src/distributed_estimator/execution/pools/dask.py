"""Workers of a Dask cluster: one of our own on this machine, or one that is there already."""

from __future__ import annotations

import asyncio
import importlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

from ...errors import InputError, MissingExtraError
from ..messages import Order, Tell
from .base import Pool, check_memory_limit, closed
from .dask_cluster import Cluster
from .dask_link import Link, LinkLostError, WorkerLostError
from .dask_worker import Begun
from .jobs import Job, checked_report, is_strained, pack_items
from .packing import Packer

_BEGIN_SECONDS = 1.0
_REPLACE_SECONDS = 60.0


class _Entry(Job):
    """An order that is not over, or whose worker is being ended."""

    def __init__(self, order: Order, tell: Tell, packed: bytes) -> None:
        super().__init__(order, tell)
        self.packed = packed
        self.items = pack_items(order)
        self.name = uuid4().hex
        self.begun: Begun | None = None
        self.withdrawn = asyncio.Event()
        self.end_worker = False


class DaskPool(Pool):
    """Workers of a Dask cluster.

    Without an address, worker processes of one thread each are started on this machine; nothing of
    them can be reached from elsewhere. A worker that dies is replaced, and its order told lost at
    once. With an address, orders go to the cluster there, whose workers must have the same
    versions installed; Dask itself tries an order anew whose worker died, as often as the
    cluster's `distributed.scheduler.allowed-failures` says, before it is told lost.

    An order that is withdrawn while it runs ends with the task that runs, and keeps its place
    until then; an injected sleep ends at once.

    Args:
        workers: Orders that run at a time. A cluster with fewer workers lets some wait.
        address: Of a scheduler, such as "tcp://10.0.0.1:8786"; None: start a cluster here.
        security: A `distributed.Security`, for an address that begins with "tls://".
        memory_limit: Bytes that a worker started here may take, checked ten times a second, before
            it is ended and its order lost; None: as much as there is.

    Raises:
        InputError: Arguments out of range, or that do not go together.
        MissingExtraError: Dask is not installed.
    """

    name = "dask"
    job_seconds = 0.2  # Dask takes 0.02 s from one order of a worker to the next

    def __init__(
        self,
        workers: int,
        *,
        address: str | None = None,
        security: Any = None,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(workers)
        _check(address, security, memory_limit)
        self._own = address is None
        self._open = partial(Cluster, workers, address, security, memory_limit)
        self._packer = Packer()
        self._starting = threading.Lock()
        self._lock = threading.RLock()
        self._cluster: Cluster | None = None
        self._entries: dict[Order, _Entry] = {}
        self._names: dict[str, _Entry] = {}
        self._queue: deque[_Entry] = deque()
        self._taken = 0
        self._closed = False

    def _submit(self, order: Order, tell: Tell) -> None:
        """See `Pool.submit`."""
        entry = _Entry(order, tell, self._packer.pack(order.work))
        self._start()
        with self._lock:
            if self._closed:
                raise closed()
            self._entries[order] = entry
            self._queue.append(entry)
        self._fill()

    def _cancel(self, order: Order) -> None:
        """See `Pool.cancel`: an order that runs is asked to end, and tells what it has by then."""
        with self._lock:
            entry = self._entries.get(order)
            begun = entry.begun if entry is not None else None
        if entry is None:
            return
        if begun is not None:
            self._stop(begun)
        elif self._forget(entry):
            self._withdraw(entry)
            entry.lose("cancelled", "it was withdrawn before it began")

    def _abandon(self, order: Order) -> None:
        """See `Pool.abandon`: the worker is killed by its nanny, and the place free once it is."""
        with self._lock:
            entry = self._entries.get(order)
            waiting = entry is None or entry in self._queue
        if entry is None or waiting:
            self._cancel(order)
            return
        if self._forget(entry):
            entry.end_worker = True
            self._withdraw(entry)
            entry.lose("lost", _given_up(entry.begun))

    def _close(self) -> None:
        """See `Pool.close`. Of a cluster that was there before, only the connection is closed."""
        with self._lock:
            self._closed = True
            cluster, entries = self._cluster, list(self._entries.values())
        for entry in entries:
            self._forget(entry)
            entry.lose("cancelled", "the pool was closed")
        if cluster is not None:
            cluster.close()

    def _start(self) -> None:
        """Start or reach the workers, once."""
        with self._starting:
            with self._lock:
                if self._closed:
                    raise closed()
                if self._cluster is not None:
                    self._cluster.check_alive()
                    return
                self._cluster = cluster = self._open(_weak(self._begin))
            try:
                cluster.start()
            except BaseException:
                self._cluster = None
                cluster.close()
                raise
            weakref.finalize(self, cluster.close_aside)

    @property
    def _link(self) -> Link:
        assert self._cluster is not None
        return self._cluster.link

    def _fill(self) -> None:
        """Give what waits to free places."""
        while True:
            with self._lock:
                if not self._queue or self._taken >= self.workers:
                    return
                entry = self._queue.popleft()
                self._names[entry.name] = entry
                self._taken += 1
            if self._link.spawn(self._follow(entry)) is None:
                self._forget(entry)
                entry.lose("cancelled", "the pool was closed")
                return

    async def _follow(self, entry: _Entry) -> None:
        """See an order through, on the link's loop, until its place is free."""
        try:
            running = asyncio.ensure_future(self._run(entry))
            await self._watch(entry, running)
            if not running.done():
                await self._clear(entry, running)
        finally:
            self._forget(entry)
            entry.lose("lost", "what became of it cannot be found out")
            with self._lock:
                del self._names[entry.name]
                self._taken -= 1
            self._fill()

    async def _watch(self, entry: _Entry, running: asyncio.Future[None]) -> None:
        """Wait until an order is over or withdrawn.

        A worker that was stopped cannot say that it begins. Of our own, one that an order waits for
        does begin with it unless it is busy with another: then that is told, so that somebody may
        find it to take too long.
        """
        withdrawn = asyncio.ensure_future(entry.withdrawn.wait())
        either: set[asyncio.Future[Any]] = {running, withdrawn}
        over: set[asyncio.Future[Any]] = set()
        while not over:
            silent = entry.begun is None and self._own
            over, _ = await asyncio.wait(
                either,
                timeout=_BEGIN_SECONDS if silent else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not over and (given := await self._link.assigned(entry.name)) is not None:
                self._begin_unless_busy(given)
        withdrawn.cancel()

    async def _run(self, entry: _Entry) -> None:
        order = entry.order
        try:
            report = await self._link.run(
                entry.name, order.work.key, entry.packed, entry.items, self._slow(order)
            )
        except WorkerLostError as error:
            self._forget(entry)
            entry.lose("lost", str(error))
            await self._replaced()
        except LinkLostError:
            self._forget(entry)
            entry.lose("refused", self._link.cause)
        except Exception as error:
            self._forget(entry)
            entry.lose("refused", f"no worker can begin with it: {type(error).__name__}: {error}")
        else:
            self._forget(entry)
            outcomes = checked_report(report.content, order)
            if outcomes is None:
                entry.lose("lost", f"worker {report.worker} gave what is no report")
            else:
                entry.end(report.worker, outcomes)
                if is_strained(outcomes) and entry.begun is not None:
                    await self._link.end_worker(entry.begun.address)
                    await self._replaced()

    async def _clear(self, entry: _Entry, running: asyncio.Future[None]) -> None:
        """Take an order back from Dask, and its worker by force where it was given up."""
        if entry.end_worker and self._own:
            await self._end_own_worker(entry, running)
        running.cancel()
        await asyncio.wait({running})
        # A worker that did not say that it begins may be busy with another's task.
        if entry.end_worker and entry.begun is not None and not self._own:
            await self._link.end_worker(entry.begun.address)

    async def _end_own_worker(self, entry: _Entry, running: asyncio.Future[None]) -> None:
        """Kill first: as long as Dask thinks the worker busy, it gives it no other order."""
        if entry.begun is None:
            entry.begun = await self._link.assigned(entry.name)
        if entry.begun is not None:
            await self._link.end_worker(entry.begun.address)
            await asyncio.wait({running}, timeout=_REPLACE_SECONDS)

    async def _replaced(self) -> None:
        """Keep a place until a worker has taken the dead one's: Dask would overload the others."""
        if self._own:
            await self._link.replaced(self.workers, _REPLACE_SECONDS)

    def _slow(self, order: Order) -> tuple[str, float] | None:
        """The slow worker's name, and its delay. Workers are numbered in the order of names."""
        assert self._cluster is not None
        names, slow = self._cluster.names, order.slow
        if slow is None or slow.worker >= len(names):
            return None
        return names[slow.worker], slow.delay

    def _begin(self, begun: Begun) -> None:
        """A worker says that it begins with an order; of other pools too."""
        with self._lock:
            entry = self._names.get(begun.order)
            if entry is None:
                return
            again, entry.begun = entry.begun is not None, begun
            over = entry.order not in self._entries
        if over:
            self._stop(begun)
        elif not again:
            entry.start(begun.name)

    def _begin_unless_busy(self, given: Begun) -> None:
        with self._lock:
            begun = [entry.begun for entry in self._names.values() if entry.begun is not None]
            busy = any(given.address == b.address and given.order != b.order for b in begun)
        if not busy:
            self._begin(given)

    def _forget(self, entry: _Entry) -> bool:
        """An order is over; False if it was before."""
        with self._lock:
            if entry in self._queue:
                self._queue.remove(entry)
            return self._entries.pop(entry.order, None) is not None

    def _withdraw(self, entry: _Entry) -> None:
        async def withdraw() -> None:
            entry.withdrawn.set()

        self._link.spawn(withdraw())

    def _stop(self, begun: Begun) -> None:
        self._link.spawn(self._link.stop(begun.order, begun.address))


def _check(address: Any, security: Any, memory_limit: Any) -> None:
    try:
        importlib.import_module("distributed")
    except ImportError as error:
        raise MissingExtraError("distributed", "dask", 'pool="dask"') from error
    if address is not None and not isinstance(address, str):
        raise InputError(f"`address` is {address!r}: give a string such as 'tcp://10.0.0.1:8786'")
    if address is None and security is not None:
        raise InputError("`security` is given without `address`: give the scheduler's address")
    check_memory_limit(memory_limit)
    if address is not None and memory_limit is not None:
        raise InputError("`memory_limit` is given with `address`: set it where workers are started")


def _given_up(begun: Begun | None) -> str:
    if begun is None:
        return "its worker did not begin in time"
    without = "" if begun.nanny else "; it has no nanny, so end its process yourself"
    return f"worker {begun.name} did not come back in time{without}"


def _weak(method: Callable[[Begun], None]) -> Callable[[Begun], None]:
    """A method that does not keep its object, and does nothing once that is gone."""
    reference = weakref.WeakMethod(method)

    def call(begun: Begun) -> None:
        if (alive := reference()) is not None:
            alive(begun)

    return call
