"""The process that speaks with Dask, and what runs on Dask's workers.

Of a cluster of our own, this is the process of the scheduler and of the nannies, too. It sees their
state as it changes, and ends workers itself: no message about them can be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from . import child

_END_SECONDS = 10.0
_CLOSE_SECONDS = 1.5
_LOOK_SECONDS = 1.0
_ARRIVE_SECONDS = 60.0
"""For a report to come from a worker on this machine."""

_TOPIC = "distributed-estimator"
"""Dask's event topic on which workers of another's cluster report that they begin with a job."""

_LOOPBACK = "127.0.0.1"
_SETTINGS = {
    "distributed.admin.large-graph-warning-threshold": "1 TiB",  # slices of a contraction are large
}
_OWN_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # the dispatcher counts, and tries again
    "distributed.scheduler.worker-ttl": "2 minutes",
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.daemon": False,  # a backend may have child processes
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    # A worker over its limit is ended, never paused: a paused one keeps its order for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Dask would end, for good, a nanny whose worker is just being replaced a second time.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.comm.require-encryption": False,  # nothing leaves the machine
    # So long does the scheduler ask a worker that has died for the answer that died with it.
    "distributed.comm.timeouts.connect": "5s",
}

# --- on workers and nannies -----------------------------------------------------------------------

_running: dict[str, threading.Event] = {}
_cancelled: deque[str] = deque(maxlen=64)
"""Jobs that may still be on their way here."""


class _AbsentError(BaseException):
    """The work is not here. Not a failure of the job."""


class Begun(NamedTuple):
    """A worker, known by address and name, begins with a job; `nanny`: whether it has one."""

    job: str
    address: str
    worker: str
    nanny: bool


class Reply(NamedTuple):
    """The result of a Dask task: its worker, and a `worker.Report`, pickled.

    That is None where the work is to be sent along.
    """

    address: str
    worker: str
    report: bytes | None


def run_there(
    name: str, key: str, packed: bytes | None, items: bytes, delay: float, announced: bool
) -> Reply:
    """Run the tasks of a job, whose name no other has; without its work, that may be here already.

    `announced`: whether to report the beginning.
    """
    import distributed

    from ..worker import run_job, unpack, waits_for  # here, as the driver does without

    worker: Any = distributed.get_worker()
    address, own_name = str(worker.address), str(worker.name)

    def fetch() -> bytes:
        if packed is None:
            raise _AbsentError
        return packed

    cancelled = _running[name] = threading.Event()
    if name in _cancelled:
        cancelled.set()
    try:
        if announced:
            begun = Begun(name, address, own_name, worker.nanny is not None)
            worker.log_event(_TOPIC, begun._asdict())
        load = partial(unpack, key, fetch, items)
        report = run_job(load, wait=waits_for(cancelled), delay=delay)
    except _AbsentError:
        return Reply(address, own_name, None)
    finally:
        del _running[name]
    return Reply(address, own_name, pickle.dumps(report))


def cancel_there(name: str) -> None:
    """End a job's injected sleep, and leave out its tasks that have not begun."""
    _cancelled.append(name)
    if name in _running:
        _running[name].set()


def kill_there(dask_worker: Any) -> None:
    """Kill the worker of a nanny, also if it was stopped; the nanny starts another."""
    if dask_worker.pid is not None:
        os.kill(dask_worker.pid, signal.SIGKILL)


# --- the driver -----------------------------------------------------------------------------------


def unreachable(address: str | None, reason: str) -> str:
    """Dask cannot be started, or reached at an address, and what to do about it."""
    if address is None:
        return (
            f"a Dask cluster cannot be started on this machine ({reason}): standard error may say "
            'more; mend that, or use pool="processes"'
        )
    return (
        f"no Dask scheduler can be reached at {address} ({reason}): start one there, or give "
        "`address` and `security` as the cluster has them"
    )


class _ClusterError(Exception):
    """The message says what is wrong with the cluster, and what to do about it."""


class _LostError(Exception):
    """The worker ended, or its report cannot be had."""


@dataclass(eq=False)
class _Job:
    run: int
    name: str = field(default_factory=lambda: uuid4().hex)
    task: asyncio.Task[None] | None = None
    begun: Begun | None = None


@dataclass(eq=False)
class _Actor:
    """A worker of our own, once it has an address; in another's cluster, a place for a job."""

    place: str
    address: str | None = None
    job: _Job | None = None


class Driver(child.Driver):
    """Drives Dask. All but the messages of the pool happens on one event loop.

    Args:
        common: See `child.Driver`.
        address: Of a scheduler; None: start a cluster here, of `workers` processes of one thread.
        packages: Whose versions workers at an address are asked for.
        security: Dask's `Security` for the address, and settings of the caller's, pickled.
        memory_limit: Bytes that a worker started here may take; 0: as much as there is.
        patience, limits: See `clusters.DaskEngine`.
        silence: Seconds for which the scheduler at an address need not answer.
    """

    def __init__(
        self,
        *common: Any,
        address: str | None,
        packages: tuple[str, ...],
        security: bytes,
        workers: int,
        memory_limit: int,
        patience: int,
        silence: float,
        limits: tuple[float, float],
    ) -> None:
        self._own = address is None
        self._address = address
        self._packages = packages
        self._security = security
        self._workers = workers
        self._memory_limit = memory_limit
        self._patience = patience
        self._silence = silence
        self._limits = limits
        self._client: Any = None
        self._cluster: Any = None
        self._works: dict[str, bytes] = {}
        self._actors: dict[int, _Actor] = {}
        self._addresses: dict[str, str] = {}
        self._ended: set[str] = set()
        self._withdrawn: deque[str] = deque(maxlen=1000)
        self._versions: dict[str, dict[str, str | None]] = {}
        super().__init__(*common)

    def run(self) -> None:
        """Connect, and look after workers."""
        import dask

        logging.disable(logging.ERROR)  # the pool reports lost connections
        security, theirs = pickle.loads(self._security)
        dask.config.update(dask.config.config, theirs)
        own = _OWN_SETTINGS | {"temporary-directory": self.folder} if self._own else {}
        dask.config.set(_SETTINGS | own)
        asyncio.run(self._serve(security))

    def stop(self) -> None:
        """Take back what is on its way to another's cluster; ours is ended by force."""
        if self._client is not None and not self._own:
            closing = asyncio.run_coroutine_threadsafe(self._client.close(), self._loop)
            closing.result(_CLOSE_SECONDS)

    def explain(self, error: BaseException) -> str:
        """The reason, and what to do about it."""
        if isinstance(error, _ClusterError):
            return str(error)
        return unreachable(self._address, f"{type(error).__name__}: {_first_line(error)}")

    def obey(self, verb: str, *arguments: Any) -> None:
        """Do what a message of the pool says, on the loop."""
        self._loop.call_soon_threadsafe(super().obey, verb, *arguments)

    async def _serve(self, security: Any) -> None:
        self._loop = asyncio.get_running_loop()
        _task(self._beat())
        if self._own:
            await self._start_cluster()
        await self._connect(security)
        self.tell("connected")
        await (self._look_after() if self._own else asyncio.Event().wait())

    async def _beat(self) -> None:
        while True:
            self.tell("beat")
            await asyncio.sleep(child.BEAT_SECONDS)

    async def _connect(self, security: Any) -> None:
        import distributed

        to_connect, for_workers = self._limits
        make: Any = distributed.Client
        plain: Any = distributed.Security
        self._client = make(
            self._cluster.scheduler_address if self._own else self._address,
            security=plain(require_encryption=False) if self._own else security,
            timeout=to_connect,
            asynchronous=True,
            set_as_default=False,
        )
        await asyncio.wait_for(self._client, to_connect + 1)
        if self._own:
            return
        _task(self._watch())
        self._client.subscribe_topic(_TOPIC, self._note_begun)
        try:
            await self._client.wait_for_workers(1, timeout=for_workers)
        except TimeoutError as error:
            raise _ClusterError(
                f"the Dask cluster at {self._address} has had no worker for "
                f"{for_workers:g} s: start workers, for instance `dask worker {self._address}`"
            ) from error
        try:
            async with asyncio.timeout(for_workers):
                found = (await self._client.get_versions(packages=list(self._packages)))["workers"]
        except TimeoutError as error:
            raise _ClusterError(
                f"some worker of the Dask cluster at {self._address} has not answered for "
                f"{for_workers:g} s: end it, or start it again"
            ) from error
        for address, answer in found.items():
            packages = answer["packages"]
            python = ".".join(str(packages["python"]).split(".")[:2])
            self._versions[address] = {name: packages[name] for name in self._packages}
            self._versions[address]["python"] = python

    async def _ping(self) -> None:
        await self._client.scheduler.identity()  # whatever fails here, is no answer

    async def _watch(self) -> None:
        """Notice that the connection is lost, or that the scheduler is silent.

        A process that was stopped keeps its connections. Looks are counted, since a clock also
        counts while this process, or the machine, is suspended.
        """
        silent, ping = 0, _task(self._ping())
        while self._client.status == "running" and silent * _LOOK_SECONDS < self._silence:
            await asyncio.sleep(_LOOK_SECONDS)
            silent += 1
            if ping.done():
                failed = ping.cancelled() or ping.exception() is not None
                silent = silent if failed else 0
                ping = _task(self._ping())
        if self._client.status == "running":
            self.tell(
                "gone",
                f"the scheduler at {self._address} did not answer for {self._silence:g} s",
            )
        else:
            self.tell("gone", f"the connection to the scheduler at {self._address} was lost")

    # --- a cluster of our own ---------------------------------------------------------------------

    async def _start_cluster(self) -> None:
        import distributed

        class Nanny(distributed.Nanny):
            def close_gracefully(self, reason: str = "") -> None:
                """Stay: a worker that loses the scheduler asks for the end of its nanny."""

        make: Any = distributed.LocalCluster
        self._cluster = await make(
            worker_class=Nanny,
            n_workers=self._workers,
            threads_per_worker=1,
            memory_limit=self._memory_limit,
            local_directory=self.folder,
            preload=[f"{__package__.rpartition('.')[0]}.worker"],
            host=_LOOPBACK,
            dashboard_address=f"{_LOOPBACK}:0",
            worker_dashboard_address=f"{_LOOPBACK}:0",
            silence_logs=False,
            asynchronous=True,
        )
        for address, state in self._cluster.scheduler.workers.items():
            self._addresses[str(state.name)] = address
        self._cluster.scheduler.add_plugin(_look_after(self), name="distributed-estimator")

    def note_worker(self, name: str, address: str) -> None:
        """A worker has come; it may take the place of one that ended."""
        self._addresses[name] = address
        for number in list(self._actors):
            self._seat(number)

    def _seat(self, number: int) -> None:
        """Give an actor the worker at its place, if that is up."""
        actor = self._actors[number]
        address = self._addresses.get(actor.place)
        if actor.address is None and address is not None and address not in self._ended:
            actor.address = address
            self.tell("up", number, {})

    def lose_worker(self, address: str) -> None:
        """A worker has gone, or the scheduler has lost it; its nanny starts another.

        One whose sockets were closed under it may never notice, or wait for its task first.
        """
        self._kill_worker(address)
        for number, actor in self._actors.items():
            if actor.address == address:
                self.tell("died", number, "its process ended")

    def _kill_worker(self, address: str) -> None:
        self._ended.add(address)
        for nanny in self._cluster.workers.values():
            if nanny.worker_address == address and nanny.is_alive():
                with contextlib.suppress(ProcessLookupError):  # it has just died
                    os.kill(nanny.pid, signal.SIGKILL)

    async def _look_after(self) -> None:
        """End workers whose reports never come, and again those that were to end and are there.

        What a worker sends is lost where bytes that are none of Dask's came between: the scheduler
        waits for the rest of a message. A nanny learns its worker's address after the scheduler.
        """
        looks: dict[frozenset[str], int] = {}
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            workers = list(self._cluster.scheduler.workers.values())
            silent = await asyncio.gather(*map(self._not_run, workers))
            looks = {tasks: looks.get(tasks, 0) + 1 for tasks in silent if tasks}
            for worker, tasks in zip(workers, silent, strict=True):
                if looks.get(tasks, 0) >= self._patience or worker.address in self._ended:
                    self._kill_worker(worker.address)

    async def _not_run(self, worker: Any) -> frozenset[str]:
        """The tasks a worker was given, if it says that it runs none; empty if it says nothing."""
        tasks = frozenset(task.key for task in worker.processing)
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                running = await self._cluster.scheduler.get_call_stack(tasks)
                return frozenset() if running else tasks
        except Exception:
            return frozenset()

    # --- messages of the pool ---------------------------------------------------------------------

    def _start(self, number: int, place: int) -> None:
        self._actors[number] = _Actor(str(place))
        if self._own:
            self._seat(number)
        else:
            self.tell("up", number, self._versions)

    def _work(self, key: str, packed: bytes) -> None:
        self._works[key] = packed

    def _forget(self, key: str) -> None:
        del self._works[key]

    def _run(self, number: int, run: int, key: str, items: bytes, delay: float) -> None:
        if (actor := self._actors.get(number)) is not None:
            job = actor.job = _Job(run)
            work = key, self._works[key]
            job.task = _task(self._follow(number, actor, job, work, items, delay))

    def _cancel(self, number: int, run: int) -> None:
        actor = self._actors.get(number)
        if actor is None or actor.job is None or actor.job.run != run:
            return
        job = actor.job
        address = actor.address if job.begun is None else job.begun.address
        if address is not None:
            self._cancel_there(job.name, address)
        else:
            actor.job = None
            self._withdraw(job)
            self.tell("lost", number, run, "cancelled", "it was withdrawn before it began")

    def _end(self, number: int) -> None:
        actor = self._actors.pop(number, None)
        if actor is None:
            return
        if actor.address is not None:
            self._kill_worker(actor.address)
        if actor.job is not None:
            self._withdraw(actor.job)
            if actor.job.begun is not None:
                _task(self._kill_there(actor.job.begun.address))

    # --- jobs -------------------------------------------------------------------------------------

    async def _follow(
        self,
        number: int,
        actor: _Actor,
        job: _Job,
        work: tuple[str, bytes],
        items: bytes,
        delay: float,
    ) -> None:
        """See a job through.

        A worker that lacks the work says so; it is sent there with the job, once. So the scheduler
        holds no works, and a worker that takes another's place gets them again.
        """
        key, packed = work
        rest = items, delay, not self._own
        try:
            reply = await self._attempt(actor.address, False, job.name, key, None, *rest)
            while reply.report is None:
                loose = not self._own
                reply = await self._attempt(reply.address, loose, job.name, key, packed, *rest)
        except Exception as error:
            self._report_failure(number, actor, job.run, error)
        else:
            self.tell("done", number, job.run, reply.worker, reply.report)
        actor.job = None

    def _report_failure(self, number: int, actor: _Actor, run: int, error: Exception) -> None:
        if self._client.status != "running":
            return  # the loss of the cluster is reported as such
        if not isinstance(error, _LostError):
            cause = f"no worker can begin with it: {type(error).__name__}: {error}"
            self.tell("lost", number, run, "refused", cause)
        elif actor.address is None:
            self.tell("lost", number, run, "lost", str(error))
        else:
            self._kill_worker(actor.address)
            self.tell("died", number, str(error))

    async def _attempt(self, address: str | None, loose: bool, *arguments: Any) -> Reply:
        import distributed

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
            async with asyncio.timeout(_ARRIVE_SECONDS if self._own else None):
                return Reply(*await future)
        except distributed.KilledWorker as error:
            worker: Any = error.last_worker
            name = getattr(worker, "name", worker)
            raise _LostError(f"worker {name} died with it") from error
        except CancelledError as error:
            raise _LostError("the cluster was restarted, or it was cancelled there") from error
        except TimeoutError as error:
            raise _LostError("its report did not arrive in time") from error
        except (OSError, MemoryError) as error:
            raise _LostError(f"{type(error).__name__}: {_first_line(error)}") from error
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, RuntimeError):
                await self._client.cancel([future])
            raise

    def _note_begun(self, event: tuple[float, dict[str, Any]]) -> None:
        """A worker of another's cluster begins with a job; of other pools too."""
        begun = Begun(*(event[1][name] for name in Begun._fields))  # Dask adds a field of its own
        for number, actor in self._actors.items():
            job = actor.job
            if job is not None and job.name == begun.job:
                again, job.begun = job.begun is not None, begun
                hint = "" if begun.nanny else "; it has no nanny, so end its process yourself"
                if not again:
                    self.tell("began", number, job.run, begun.worker, hint)
        if begun.job in self._withdrawn:  # it was about to begin
            self._cancel_there(begun.job, begun.address)

    def _withdraw(self, job: _Job) -> None:
        self._withdrawn.append(job.name)
        if job.task is not None:
            job.task.cancel()

    def _cancel_there(self, name: str, address: str) -> None:
        _task(self._client.run(cancel_there, name, workers=[address], on_error="ignore"))

    async def _kill_there(self, address: str) -> None:
        """Have a worker killed by its nanny; without one, nothing happens."""
        async with asyncio.timeout(_END_SECONDS):
            await self._client.run(kill_there, workers=[address], nanny=True, on_error="ignore")


def _look_after(driver: Driver) -> Any:
    """Announces to the driver which workers came and went."""
    import distributed

    class LookAfter(distributed.SchedulerPlugin):
        def add_worker(self, scheduler: Any, worker: str) -> None:
            driver.note_worker(str(scheduler.workers[worker].name), worker)

        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            driver.lose_worker(worker)

    return LookAfter()


def _task(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task whose error is not logged where nothing awaits it any more."""
    task = asyncio.ensure_future(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else "no more is known"
