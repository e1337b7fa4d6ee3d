"""A Dask client on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import pickle
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any, NamedTuple, TypeVar

from ...errors import PoolError
from ...forks import Lock
from .base import closed
from .dask_worker import TOPIC, Begun, Reply, end_process, keep_work, run_order, stop_order
from .versions import PACKAGES, check_versions

_T = TypeVar("_T")

_CONNECT_SECONDS = 5.0
_WORKERS_SECONDS = 10.0
_END_SECONDS = 10.0
_CLOSE_SECONDS = 1.5
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.25
_PING_SECONDS = 1.0
_SILENCE = 120
"""Looks, each after `_WATCH_SECONDS`, at a scheduler that does not answer. They are counted, since
a clock also counts while this program, or the machine, is suspended."""

_ARRIVE_SECONDS = 60.0
"""For a work to reach a worker on this machine, and for a report to come from it."""

_THREAD = "distributed-estimator-dask"
_LOGGERS = "distributed.batched", "distributed.client"
_RECONNECT = "Failed to reconnect"
_EXPIRED = "Cannot change state of"
"""How asyncio objects to a connection that is closed as its time-out strikes."""


_configuring = Lock()


class LinkLostError(Exception):
    """The scheduler is gone, or cannot be reached any more."""


class WorkerLostError(Exception):
    """The worker ended, or what it has to say cannot be had."""


class Report(NamedTuple):
    """What a worker says became of an order, not checked, and the worker's name."""

    worker: str
    content: Any


class Link:
    """A connection to a scheduler. Its coroutines run on its loop; all else from any thread.

    Args:
        address: The scheduler's.
        security: Dask's `Security`, for TLS.
        on_begun: Called on the loop with what a worker says as it begins with an order.
        own: Whether the scheduler and all workers are on this machine, and ours.
    """

    def __init__(
        self, address: str, security: Any, on_begun: Callable[[Begun], None], *, own: bool
    ) -> None:
        self.address = address
        self._security = security
        self._on_begun = on_begun
        self._patience = _ARRIVE_SECONDS if own else None
        self._client: Any = None
        self._watching: asyncio.Task[None] | None = None
        self._sending: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks: dict[str, str] = {}
        self._receivers: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name=_THREAD, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._closing.wait())

    @property
    def alive(self) -> bool:
        """Whether the scheduler can be reached, as far as is known."""
        return not self._lost.done()

    @property
    def cause(self) -> str:
        """Why it cannot be reached."""
        return self._lost.result()

    def is_current_thread(self) -> bool:
        """Whether this is called on the loop's thread."""
        return threading.current_thread() is self._thread

    def spawn(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T] | None:
        """Run a coroutine on the loop; None where the loop has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            return None

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop, and wait for its result."""
        future = self.spawn(coroutine)
        # A loop that ends just now may never come to it.
        while future is not None and (self._thread.is_alive() or future.done()):
            wait([future], timeout=_WATCH_SECONDS)
            if future.done() and not future.cancelled():
                return future.result()
            if future.done():
                break
        coroutine.close()
        raise closed()

    async def connect(self, *, check: bool) -> list[str]:
        """Connect, wait for a worker, and with `check` compare versions with theirs.

        Returns:
            The workers' names, in order.

        Raises:
            PoolError: One of these failed.
        """
        import distributed

        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_news)
        make: Any = distributed.Client
        try:
            self._client = make(
                self.address,
                security=self._security,
                timeout=_CONNECT_SECONDS,
                asynchronous=True,
                set_as_default=False,
            )
            await asyncio.wait_for(self._client, _CONNECT_SECONDS + 1)
        except Exception as error:
            raise PoolError(
                f"no Dask scheduler can be reached at {self.address} "
                f"({type(error).__name__}: {_first_sentence(error)}): start one there, or give "
                "`address` and `security` as the cluster has them"
            ) from error
        self._client.subscribe_topic(TOPIC, lambda event: self._on_begun(_begun(event[1])))
        self._watching = asyncio.create_task(self._watch())
        try:
            return await self._unless_lost(self._meet(check=check))
        except LinkLostError:
            raise PoolError(f"{self.cause}: make a new estimator") from None

    async def _meet(self, *, check: bool) -> list[str]:
        await self._await_workers()
        if check:
            check_versions(await self._versions())
        return await self._names()

    async def _await_workers(self) -> None:
        try:
            await self._client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        except TimeoutError as error:
            raise PoolError(
                f"the Dask cluster at {self.address} has had no worker for "
                f"{_WORKERS_SECONDS:g} s: start workers, for instance `dask worker {self.address}`"
            ) from error

    async def _versions(self) -> dict[str, dict[str, str | None]]:
        try:
            async with asyncio.timeout(_WORKERS_SECONDS):
                told = (await self._client.get_versions(packages=list(PACKAGES)))["workers"]
        except TimeoutError as error:
            raise PoolError(
                f"some worker of the Dask cluster at {self.address} has not answered for "
                f"{_WORKERS_SECONDS:g} s: end it, or start it anew"
            ) from error
        versions = {}
        for address, answer in told.items():
            packages = answer["packages"]
            python = ".".join(str(packages["python"]).split(".")[:2])
            versions[address] = {"python": python} | {name: packages[name] for name in PACKAGES}
        return versions

    async def _names(self) -> list[str]:
        workers = (await self._client.scheduler.identity())["workers"].values()
        return sorted((str(w["name"]) for w in workers), key=lambda name: (len(name), name))

    async def _watch(self) -> None:
        """Notice that the connection is lost, and do not take it up again: nobody waits for it.

        It also counts as lost where the scheduler does not answer: a process that was stopped keeps
        its connections.
        """
        silent, ping = 0, _task(self._ping())
        while self._client.status == "running" and silent < _SILENCE:
            await asyncio.sleep(_WATCH_SECONDS)
            silent += 1
            if ping.done():
                silent = silent if isinstance(ping.exception(), OSError) else 0
                ping = _task(self._ping())
        ping.cancel()
        if silent < _SILENCE:
            self._lose()
        else:
            self._lose(
                f"the Dask scheduler at {self.address} did not answer for "
                f"{_SILENCE * _WATCH_SECONDS:g} s"
            )
        await self._client.close()

    async def _ping(self) -> None:
        await asyncio.sleep(_PING_SECONDS)
        await self._client.scheduler.identity(n_workers=0)

    def _lose(self, cause: str | None = None) -> None:
        if not self._lost.done():
            self._lost.set_result(
                cause or f"the connection to the Dask scheduler at {self.address} was lost"
            )

    async def _unless_lost(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine gives; `LinkLostError` where the scheduler is lost meanwhile.

        Whoever asks a stopped scheduler would wait for ever, also for having asked in vain.
        """
        working = _task(coroutine)
        either: set[asyncio.Future[Any]] = {working, self._lost}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() or working.cancelled():
            raise LinkLostError
        return working.result()

    async def run(
        self, name: str, key: str, packed: bytes, items: bytes, slow: tuple[str, float] | None
    ) -> Report:
        """Have an order run on whichever worker Dask gives it to.

        A worker that lacks the work says so; it is sent there once, and the order anew. So the
        scheduler holds no work, and a worker that takes another's place asks for it again.

        Raises:
            LinkLostError: The scheduler is gone.
            WorkerLostError: The worker died, or its report did not arrive.
            Exception: What the order raised on its worker, outside of its tasks.
        """
        return await self._unless_lost(self._work(name, key, packed, items, slow))

    async def _work(
        self, name: str, key: str, packed: bytes, items: bytes, slow: tuple[str, float] | None
    ) -> Report:
        where: str | None = None
        attempts = itertools.count()
        try:
            while True:
                self._tasks[name] = f"distributed-estimator-{name}-{next(attempts)}"
                reply = await self._attempt(where, name, key, items, slow)
                if reply.report is not None:
                    return Report(reply.name, _loaded(reply.name, reply.report))
                where = self._receivers[name] = reply.address
                await self._send(where, key, packed)
                del self._receivers[name]
        finally:
            del self._tasks[name]
            self._receivers.pop(name, None)

    async def _attempt(self, where: str | None, name: str, *arguments: Any) -> Reply:
        import distributed

        self._check()
        with _large_orders():
            future = self._client.submit(
                run_order,
                name,
                *arguments,
                key=self._tasks[name],
                workers=[where] if where is not None else None,
                allow_other_workers=where is not None,
                pure=False,
                retries=0,
            )
        try:
            await future.exception()  # that is, until a worker is through with it
            async with asyncio.timeout(self._patience):
                return Reply(*await future)
        except distributed.KilledWorker as error:
            raise WorkerLostError(f"worker {_name(error)} died with it") from error
        except CancelledError as error:
            self._check()
            raise WorkerLostError("the cluster was restarted, or it was cancelled there") from error
        except TimeoutError as error:
            raise WorkerLostError("its report did not arrive in time") from error
        except (OSError, MemoryError) as error:
            raise WorkerLostError(f"{type(error).__name__}: {_first_sentence(error)}") from error
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, RuntimeError):
                await self._client.cancel([future])
            raise

    def _check(self) -> None:
        if self._client.status != "running":
            self._lose()
        if not self.alive:
            raise LinkLostError

    async def _send(self, address: str, key: str, packed: bytes) -> None:
        """Send a work to a worker; a second order that needs it waits for the first one's."""
        sending = self._sending.get((address, key))
        if sending is None:
            sending = _task(self._client.run(keep_work, key, packed, workers=[address]))
            self._sending[address, key] = sending
            sending.add_done_callback(lambda _: self._sending.pop((address, key)))
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(sending)
        except TimeoutError as error:
            sending.cancel()
            raise WorkerLostError(f"worker {address} did not take it in time") from error
        except (OSError, KeyError) as error:
            raise WorkerLostError(f"worker {address} ended before it began") from error

    async def stop(self, name: str, address: str) -> None:
        """Tell a worker that nobody waits for an order."""
        await self._client.run(stop_order, name, workers=[address], on_error="ignore")

    async def assigned(self, name: str) -> Begun | None:
        """The worker that an order waits for, as the worker itself would tell it."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                address = self._receivers.get(name) or await self._holder(name)
                worker = (await self._client.scheduler.identity())["workers"].get(address)
        except (OSError, TimeoutError):
            return None
        if worker is None or address is None:
            return None
        return Begun(name, address, str(worker["name"]), worker["nanny"] is not None)

    async def _holder(self, name: str) -> str | None:
        """The worker that the scheduler gave an order to, or that has its answer."""
        task = self._tasks.get(name)
        if task is None:
            return None
        for address, tasks in (await self._client.processing()).items():
            if task in tasks:
                return str(address)
        holders = (await self._client.scheduler.who_has(keys=[task])).get(task)
        return str(holders[0]) if holders else None

    async def end_worker(self, address: str) -> None:
        """Have a worker killed by its nanny; without one, nothing happens."""
        # It may be gone of itself, or the scheduler may be.
        with contextlib.suppress(OSError, KeyError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._client.run(
                    end_process, workers=[address], nanny=True, on_error="ignore"
                )

    async def replaced(self, workers: int, patience: float) -> None:
        """Wait until there are so many workers, for a limited time."""

        async def enough() -> None:
            while len(await self._client.processing()) < workers:
                await asyncio.sleep(_POLL_SECONDS)

        with contextlib.suppress(OSError, LinkLostError):
            async with asyncio.timeout(patience):
                await self._unless_lost(enough())

    def close(self) -> None:
        """Take back what is on its way, disconnect, and end the thread."""
        closing = self.spawn(self._disconnect())
        if closing is not None:
            # What Dask cannot close ends with the loop.
            with contextlib.suppress(Exception):
                closing.result(_CLOSE_SECONDS)
        try:
            self._loop.call_soon_threadsafe(self._closing.set)
        except RuntimeError:
            return
        self._thread.join(_CLOSE_SECONDS)

    async def _disconnect(self) -> None:
        self._lose()
        if self._watching is not None:
            self._watching.cancel()
        if self._client is not None:
            await self._client.close()


def _task(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """A task whose error is not logged where nobody waits for it any more."""
    task = asyncio.ensure_future(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


@contextlib.contextmanager
def _large_orders() -> Iterator[None]:
    """Dask warns of tasks above 10 MB meanwhile no more: slices of a contraction may be larger."""
    import dask

    with (
        _configuring,
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}),
    ):
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """Whether what Dask's client logs is for the user: that our connection ends, the pool tells."""
    if record.threadName != _THREAD:
        return True
    error = record.exc_info[1] if record.exc_info is not None else None
    given_up = isinstance(error, asyncio.CancelledError) or str(error).startswith(_EXPIRED)
    reconnects = given_up or str(record.msg).startswith(_RECONNECT)
    return record.levelno >= logging.WARNING and not reconnects


def _begun(event: dict[str, Any]) -> Begun:
    # Dask adds a field of its own.
    return Begun(*(event[name] for name in Begun._fields))


def _loaded(name: str, report: bytes) -> Any:
    try:
        return pickle.loads(report)
    except Exception as error:
        told = f"{type(error).__name__}: {_first_sentence(error)}"
        raise WorkerLostError(f"the report of worker {name} cannot be read ({told})") from error


def _name(killed: Any) -> str:
    return str(getattr(killed.last_worker, "name", killed.last_worker))


def _first_sentence(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else "no more is known"
