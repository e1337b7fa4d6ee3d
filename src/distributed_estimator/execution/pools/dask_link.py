"""A Dask client on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

from ...errors import PoolError
from ...forks import Lock
from .base import NoThreadError, start_thread
from .dask_host import WORKERS_TOPIC
from .dask_worker import TOPIC, Begun, Reply, cancel_there, kill_there, run_there
from .transfer import PACKAGES, check_versions

_T = TypeVar("_T")

_CONNECT_SECONDS = 5.0
_WORKERS_SECONDS = 10.0
_END_SECONDS = 10.0
_CLOSE_SECONDS = 1.5
_WATCH_SECONDS = 0.25
_PING_SECONDS = 1.0
_SILENCE = 120
"""Looks, each after `_WATCH_SECONDS`, at a scheduler that does not answer. They are counted, since
a clock also counts while this program, or the machine, is suspended."""

_ARRIVE_SECONDS = 60.0
"""For a report to come from a worker on this machine."""

_THREAD = "dask"
_LOGGERS = "distributed.batched", "distributed.client"
_RECONNECT = "Failed to reconnect"
_EXPIRED = "Cannot change state of"
"""How asyncio objects to a connection that is closed as its time-out strikes."""

_configuring = Lock()


class LinkLostError(Exception):
    """The scheduler is gone, or cannot be reached any more."""


class WorkerLostError(Exception):
    """The worker ended, or its report cannot be had."""


class Link:
    """A connection to a scheduler. Its coroutines run on its loop; all else from any thread.

    Args:
        address: The scheduler's.
        security: Dask's `Security`, for TLS.
        own: Whether the scheduler and all workers are on this machine, and ours.
        on_begun: Called on the loop when a worker begins with a job.
        on_workers: Called on the loop with the addresses of all workers, by name, whenever they
            may have changed.
        on_lost: Called on the loop with the cause where the connection is lost.
    """

    def __init__(
        self,
        address: str,
        security: Any,
        *,
        own: bool,
        on_begun: Callable[[Begun], None],
        on_workers: Callable[[dict[str, str]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.address = address
        self._security = security
        self._on_begun = on_begun
        self._on_workers = on_workers
        self._on_lost = on_lost
        self._patience = _ARRIVE_SECONDS if own else None
        self._client: Any = None
        self._loop = asyncio.new_event_loop()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._closing = asyncio.Event()
        self._looking = asyncio.Lock()
        try:
            self._thread = start_thread(self._serve, name=_THREAD)
        except NoThreadError:
            self._loop.close()
            raise

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._closing.wait())

    def spawn(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T] | None:
        """Run a coroutine on the loop; None where the loop has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            return None

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, unless that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def connect(self, *, check: bool) -> dict[str, str]:
        """Connect, wait for a worker, and with `check` compare versions with theirs.

        Returns:
            Addresses of the workers, by name, in the order of names.

        Raises:
            PoolError: One of these failed, or the link was closed meanwhile.
        """
        future = self.spawn(self._connect(check=check))
        # A loop that ends just now may never come to it.
        while future is not None and (self._thread.is_alive() or future.done()):
            wait([future], timeout=_WATCH_SECONDS)
            if future.done() and not future.cancelled():
                return future.result()
            if future.done():
                break
        raise PoolError("the pool is closed: make a new estimator")

    async def _connect(self, *, check: bool) -> dict[str, str]:
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
                f"({type(error).__name__}: {_first_line(error)}): start one there, or give "
                "`address` and `security` as the cluster has them"
            ) from error
        self._client.subscribe_topic(TOPIC, self._note_begun)
        self._client.subscribe_topic(WORKERS_TOPIC, self._look)
        _task(self._watch())
        meeting = _task(self._meet(check=check))
        either: set[asyncio.Future[Any]] = {meeting, self._lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not meeting.done():
            meeting.cancel()
            raise PoolError(f"{self._lost.result()}: make a new estimator")
        return meeting.result()

    async def _meet(self, *, check: bool) -> dict[str, str]:
        try:
            await self._client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        except TimeoutError as error:
            raise PoolError(
                f"the Dask cluster at {self.address} has had no worker for "
                f"{_WORKERS_SECONDS:g} s: start workers, for instance `dask worker {self.address}`"
            ) from error
        if check:
            check_versions(await self._versions())
        return await self._workers()

    async def _versions(self) -> dict[str, dict[str, str | None]]:
        try:
            async with asyncio.timeout(_WORKERS_SECONDS):
                found = (await self._client.get_versions(packages=list(PACKAGES)))["workers"]
        except TimeoutError as error:
            raise PoolError(
                f"some worker of the Dask cluster at {self.address} has not answered for "
                f"{_WORKERS_SECONDS:g} s: end it, or start it again"
            ) from error
        versions = {}
        for address, answer in found.items():
            packages = answer["packages"]
            python = ".".join(str(packages["python"]).split(".")[:2])
            versions[address] = {"python": python} | {name: packages[name] for name in PACKAGES}
        return versions

    async def _workers(self) -> dict[str, str]:
        workers = (await self._client.scheduler.identity())["workers"]
        found = {str(worker["name"]): str(address) for address, worker in workers.items()}
        return dict(sorted(found.items(), key=lambda pair: (len(pair[0]), pair[0])))

    def _note_begun(self, event: tuple[float, dict[str, Any]]) -> None:
        # Dask adds a field of its own.
        self._on_begun(Begun(*(event[1][name] for name in Begun._fields)))

    async def _look(self, _: object = None) -> None:
        async with self._looking:  # so that no answer is older than one before it
            self._on_workers(await self._workers())

    async def _watch(self) -> None:
        """Notice that the connection is lost, and do not take it up again.

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
        await self._look()

    def _lose(self, cause: str | None = None) -> None:
        if not self._lost.done():
            cause = cause or f"the connection to the Dask scheduler at {self.address} was lost"
            self._lost.set_result(cause)
            self._on_lost(cause)

    async def run(
        self,
        name: str,
        key: str,
        packed: bytes,
        items: bytes,
        slow: tuple[str, float] | None,
        address: str | None,
    ) -> tuple[str, Any]:
        """Have a job run by the worker at an address, or by any.

        A worker that lacks the work says so; it is sent there with the job, once. So the scheduler
        holds no works, and a worker that takes another's place gets them again.

        Returns:
            The worker's name, and its report, not checked.

        Raises:
            LinkLostError: The scheduler is gone.
            WorkerLostError: The worker died, or its report did not arrive.
            Exception: What the job raised on its worker, outside of its tasks.
        """
        loose = address is None
        reply = await self._attempt(address, False, name, key, None, items, slow)
        while reply.report is None:
            reply = await self._attempt(reply.address, loose, name, key, packed, items, slow)
        try:
            return reply.worker, pickle.loads(reply.report)
        except Exception as error:
            cause = f"{type(error).__name__}: {_first_line(error)}"
            raise WorkerLostError(
                f"the report of worker {reply.worker} cannot be read ({cause})"
            ) from error

    async def _attempt(self, address: str | None, loose: bool, *arguments: Any) -> Reply:
        import distributed

        self._check()
        with _large_jobs():
            future = self._client.submit(
                run_there,
                *arguments,
                workers=None if address is None else [address],
                allow_other_workers=loose,
                pure=False,
                retries=0,
            )
        try:
            await future.exception()  # that is, until a worker is through with it
            async with asyncio.timeout(self._patience):
                return Reply(*await future)
        except distributed.KilledWorker as error:
            worker: Any = error.last_worker
            raise WorkerLostError(
                f"worker {getattr(worker, 'name', worker)} died with it"
            ) from error
        except CancelledError as error:
            self._check()
            raise WorkerLostError("the cluster was restarted, or it was cancelled there") from error
        except TimeoutError as error:
            raise WorkerLostError("its report did not arrive in time") from error
        except (OSError, MemoryError) as error:
            raise WorkerLostError(f"{type(error).__name__}: {_first_line(error)}") from error
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, RuntimeError):
                await self._client.cancel([future])
            raise

    def _check(self) -> None:
        if self._client.status != "running":
            self._lose()
        if self._lost.done():
            raise LinkLostError

    async def cancel(self, name: str, address: str) -> None:
        """Tell a worker that a job's results are no longer needed."""
        await self._client.run(cancel_there, name, workers=[address], on_error="ignore")

    async def end_worker(self, address: str) -> None:
        """Have a worker killed by its nanny; without one, nothing happens."""
        # It may be gone of itself, or the scheduler may be.
        with contextlib.suppress(OSError, KeyError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._client.run(kill_there, workers=[address], nanny=True, on_error="ignore")

    def close(self) -> None:
        """Take back what is on its way, disconnect, and end the thread."""
        closing = self.spawn(self._disconnect())
        if closing is not None:
            # What Dask cannot close ends with the loop.
            with contextlib.suppress(Exception):
                closing.result(_CLOSE_SECONDS)
        self.call_soon(self._closing.set)
        self._thread.join(_CLOSE_SECONDS)
        if self._client is not None:
            self._client.status = "closed"  # else it would try again when it is collected

    async def _disconnect(self) -> None:
        if not self._lost.done():
            self._lost.set_result("the pool is closed")
        if self._client is not None:
            await self._client.close()


def _task(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """A task whose error is not logged where nothing awaits it any more."""
    task = asyncio.ensure_future(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


@contextlib.contextmanager
def _large_jobs() -> Iterator[None]:
    """Let tasks be larger than the 10 MB that Dask warns of: slices of a contraction may be."""
    import dask

    with (
        _configuring,
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}),
    ):
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of Dask's client is for the user: the pool reports lost connections."""
    if record.threadName != f"distributed-estimator-{_THREAD}":
        return True
    error = record.exc_info[1] if record.exc_info is not None else None
    given_up = isinstance(error, asyncio.CancelledError) or str(error).startswith(_EXPIRED)
    reconnects = given_up or str(record.msg).startswith(_RECONNECT)
    return record.levelno >= logging.WARNING and not reconnects


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else "no more is known"
