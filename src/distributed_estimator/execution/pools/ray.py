"""Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import sys
import threading
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import MissingExtraError, PoolError
from ..messages import Order, Tell
from .base import Pool, closed
from .jobs import Job, checked_report, is_strained, no_thread, pack_items
from .packing import Packer
from .ray_driver import SECONDS_TO_LOOK
from .ray_link import RayLink, split_address
from .versions import check_versions

_MOST_WORKS = 8
_MOST_FAILED_STARTS = 3
_SECONDS_TO_START = 120.0
"""For actors to come up; also for one to do so, where none is left."""


class _RayJob(Job):
    """An order with what goes to an actor for it, pickled."""

    def __init__(self, order: Order, tell: Tell, run: int, packed: bytes) -> None:
        super().__init__(order, tell)
        self.run = run
        self.packed = packed
        self.items = pack_items(order)


@dataclass(eq=False)
class _Actor:
    worker: int
    versions: dict[str, str | None] | None = None
    running: _RayJob | None = None


class RayPool(Pool):
    """Workers that are Ray actors, one order at a time on each.

    A Ray of its own listens on this machine alone, asks for a token, and ends with the pool. Where
    this process is connected to Ray already, or an address is given, the actors run there, beside
    whatever else does. A child process drives Ray: if Ray's controller dies, orders are refused,
    and the caller's process goes on.

    Args:
        workers: Actors, each with one CPU.
        address: Of a running cluster: "ray://host:port", "host:port" or "auto". None: what this
            process is connected to, or else a Ray of its own.

    Raises:
        InputError: An argument is not of this form.
        MissingExtraError: Ray is not installed.
    """

    name = "ray"

    def __init__(self, workers: int, *, address: str | None = None) -> None:
        super().__init__(workers)
        if address is not None and address != "auto":
            split_address(address)
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", 'pool="ray"')
        self._address = address
        self._packer = Packer()
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._queue: deque[_RayJob] = deque()
        self._actors: dict[int, _Actor] = {}
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._numbers = itertools.count(1)
        self._failed_starts = 0
        self._beats_without = 0
        self._link: RayLink | None = None
        self._end: weakref.finalize[..., Any] | None = None
        self._refusal: str | None = None

    def _submit(self, order: Order, tell: Tell) -> None:
        """See `Pool.submit`."""
        job = _RayJob(order, tell, next(self._numbers), self._packer.pack(order.work))
        with self._starting:
            self._check_open()
            if self._link is None:
                self._start()
        with self._changed:
            self._check_open()
            self._queue.append(job)
            self._hand_out()

    def _cancel(self, order: Order) -> None:
        """See `Pool.cancel`: an injected sleep ends at once, a task that computes goes on."""
        with self._changed:
            job = next((job for job in self._queue if job.order is order), None)
            if job is not None:
                self._queue.remove(job)
            for number, actor in self._actors.items():
                if actor.running is not None and actor.running.order is order:
                    self._send("cancel", number, actor.running.run)
        if job is not None:
            job.lose("cancelled", "it was withdrawn before it began")

    def _abandon(self, order: Order) -> None:
        """See `Pool.abandon`: its actor is ended, and another takes its place."""
        with self._changed:
            number = next(
                (n for n, a in self._actors.items() if a.running and a.running.order is order), None
            )
            if number is not None:
                # Under the lock: a moment later the actor may be through, and run another order.
                self._replace(number, "did not come back in time")
        if number is None:
            self._cancel(order)

    def _close(self) -> None:
        """See `Pool.close`."""
        self._refuse(str(closed()), "cancelled", "the pool was closed")
        if self._link is not None:
            self._link.end()  # a lost Ray is being ended by the thread that lost it

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise PoolError(self._refusal)

    def _connect(self) -> None:
        link = RayLink(*_connection(self._address, self.workers))
        end = weakref.finalize(self, link.end)
        listener = threading.Thread(
            target=_listen, args=[weakref.ref(self), link], name="ray-pool", daemon=True
        )
        try:
            listener.start()
        except Exception as error:
            end()
            raise PoolError(no_thread(error)) from error
        self._link, self._end = link, end

    def _start(self) -> None:
        """Connect, start the actors, and see that they match this process."""
        self._connect()
        with self._changed:
            for worker in range(self.workers):
                self._start_actor(worker)
            self._changed.wait_for(self._is_started, _SECONDS_TO_START)
            refusal = self._refusal
            if refusal is None and not self._is_started():
                refusal = self._too_few()
        if refusal is not None:
            self._refuse(refusal, "refused", refusal)
            raise PoolError(refusal)

    def _too_few(self) -> str:
        up = sum(actor.versions is not None for actor in self._actors.values())
        return (
            f"Ray started {up} of {self.workers} actors in {_SECONDS_TO_START:g} s: it needs a "
            "free CPU for each, so give fewer `workers` or a larger cluster"
        )

    def _is_started(self) -> bool:
        return self._refusal is not None or all(a.versions for a in self._actors.values())

    def _start_actor(self, worker: int) -> None:
        number = next(self._numbers)
        self._actors[number] = _Actor(worker)
        self._send("start", number, worker)

    def _send(self, *message: Any) -> None:
        if self._link is not None:
            self._link.send(*message)

    def _hand_out(self) -> None:
        """Give what waits to idle actors. The lock is held, so that what is told is in order."""
        for number, actor in self._actors.items():
            if not self._queue:
                return
            if actor.running is None and actor.versions is not None:
                job = actor.running = self._queue.popleft()
                job.start(str(actor.worker))
                key = job.order.work.key
                self._send_work(key, job.packed)
                self._send("run", number, job.run, key, job.items, job.order.slow)

    def _send_work(self, key: str, packed: bytes) -> None:
        if key not in self._sent:
            self._send("work", key, packed)
        self._sent[key] = None
        self._sent.move_to_end(key)
        if len(self._sent) > _MOST_WORKS:
            self._send("forget", self._sent.popitem(last=False)[0])

    def take(self, message: tuple[Any, ...] | None) -> None:
        """Act on what the driving process says; None: it has ended."""
        match message:
            case ("done", number, run, report):
                self._end_order(number, run, report)
            case ("up", number, versions, host, process):
                self._welcome(number, versions, host, process)
            case ("died", number, cause):
                self._replace(number, f"died ({cause})")
            case ("beat",):
                self._count_beat()
            case ("gone", cause):
                self._lose(str(cause))
            case _:
                self._lose("the process that drives it ended")

    def _count_beat(self) -> None:
        """Orders wait for actors, but not for ever: where none has been up for so many beats."""
        with self._changed:
            up = any(actor.versions is not None for actor in self._actors.values())
            self._beats_without = 0 if up or self._refusal else self._beats_without + 1
            if self._beats_without * SECONDS_TO_LOOK < _SECONDS_TO_START:
                return
            cause = self._too_few()
        self._refuse(cause, "refused", cause)

    def _lose(self, cause: str) -> None:
        cause = f"Ray is gone ({cause})"
        self._refuse(f"{cause}: make a new estimator", "refused", cause)

    def _welcome(self, number: int, versions: dict[str, str | None], host: str, here: Any) -> None:
        with self._changed:
            actor = self._actors.get(number)
        if actor is None:
            return
        if here is not None and self._link is not None:
            self._link.remember(here)
        try:
            check_versions({f"{actor.worker} on {host}": versions})
        except PoolError as error:
            self._refuse(str(error), "refused", str(error))
            return
        with self._changed:
            actor.versions = versions
            self._failed_starts = 0
            self._hand_out()
            self._changed.notify_all()

    def _end_order(self, number: int, run: int, pickled: bytes) -> None:
        report = _unpickled(pickled)
        with self._changed:
            actor = self._actors.get(number)
            if actor is None or actor.running is None or actor.running.run != run:
                return  # given up meanwhile
            job, actor.running = actor.running, None
            outcomes = checked_report(report, job.order)
            if outcomes is not None and is_strained(outcomes):
                self._replace(number, "lacked what tasks need")
            self._hand_out()
        if outcomes is None:
            cause = f"worker {actor.worker} sent a report that is none: {report!r:.80}"
            job.lose("lost", cause)
        else:
            job.end(str(actor.worker), outcomes)

    def _replace(self, number: int, what: str) -> None:
        """Put a new actor in the place of one that died or is given up."""
        with self._changed:
            actor = self._actors.pop(number, None)
            if actor is None:
                return
            self._failed_starts += actor.versions is None
            hopeless = self._failed_starts >= _MOST_FAILED_STARTS
            self._send("end", number)
            if not hopeless:
                self._start_actor(actor.worker)
        if actor.running is not None:
            actor.running.lose("lost", f"worker {actor.worker} {what}")
        if hopeless:
            self._lose(f"worker {actor.worker} {what} before it was up, as others did")

    def _refuse(self, refusal: str, kind: Literal["refused", "cancelled"], cause: str) -> None:
        """Take no more orders, end what runs, and say so of every order there is."""
        with self._changed:
            self._refusal = self._refusal or refusal
            left = [*self._queue, *(a.running for a in self._actors.values() if a.running)]
            self._queue.clear()
            self._actors.clear()
            self._changed.notify_all()
            end = self._end
        for job in left:
            job.lose(kind, cause)
        if end is not None:
            end()


def _listen(pool: weakref.ref[RayPool], link: RayLink) -> None:
    """Pass on what the driving process says, without keeping the pool from being collected."""
    message: tuple[Any, ...] | None = ()
    while message is not None:
        message = link.receive()
        there = pool()
        if there is None:
            return
        there.take(message)
        del there


def _unpickled(pickled: bytes) -> object:
    try:
        return pickle.loads(pickled)
    except Exception as error:
        return f"unreadable ({type(error).__name__}: {error})"


def _connection(address: str | None, workers: int) -> tuple[str | None, int, dict[str, Any]]:
    """Where to connect, and with which runtime environment: that of this process's own Ray."""
    ray: Any = sys.modules.get("ray")
    if address is not None or ray is None or not ray.is_initialized():
        return address, workers, {}
    if ray.util.client.ray.is_connected():
        raise PoolError(
            "this process is connected to Ray as a client: give the pool the same "
            '"ray://host:port" as its `address`'
        )
    context = ray.get_runtime_context()
    return context.gcs_address, workers, dict(context.runtime_env)
