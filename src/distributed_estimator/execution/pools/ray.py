"""Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ...errors import MissingExtraError, PoolError
from .base import Engine, NoThreadError, Pool, Submission, start_thread
from .ray_driver import SECONDS_TO_LOOK
from .ray_link import RayLink, split_address
from .transfer import check_versions

_MOST_WORKS = 8
_MOST_FAILED_STARTS = 3
_SECONDS_TO_START = 120.0
"""For actors to come up; also for one to do so, where none is left."""


class RayPool(Pool):
    """Workers that are Ray actors, one job at a time on each.

    A Ray of its own listens on this machine alone, asks for a token, and ends with the pool. Where
    this process is connected to Ray already, or an address is given, the actors run there, beside
    whatever else does. A child process drives Ray: if Ray's controller dies, jobs are refused,
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
        if address is not None and address != "auto":
            split_address(address)
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("ray", "ray", 'pool="ray"')
        super().__init__(_Ray(workers, address))


@dataclass(eq=False)
class _Actor:
    place: int
    is_up: bool = False
    running: Submission | None = None


class _Ray(Engine):
    """Places are actors, each of which is replaced by another of a new number."""

    def __init__(self, workers: int, address: str | None) -> None:
        super().__init__(workers)
        self._address = address
        self._actors: dict[int, _Actor] = {}
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._numbers = itertools.count(1)
        self._failed_starts = 0
        self._beats_without = 0
        self._link: RayLink | None = None

    def _start(self) -> None:
        """Connect, start the actors, and see that they match this process."""
        self._close_when_dropped()
        link = RayLink(*_connection(self._address, self.workers))
        try:
            start_thread(self._listen, link, name="ray")
        except NoThreadError:
            link.end()
            raise
        with self._changed:
            self._link = link
            for place in range(self.workers):
                self._start_actor(place)
            self._changed.wait_for(self._is_settled, _SECONDS_TO_START)
            refusal = self._refusal
            if refusal is None and not self._is_settled():
                refusal = self._too_few()
        if refusal is not None:
            self._end(refusal, "refused", refusal)
            raise PoolError(refusal)

    def _too_few(self) -> str:
        up = sum(actor.is_up for actor in self._actors.values())
        return (
            f"Ray started {up} of {self.workers} actors in {_SECONDS_TO_START:g} s: it needs a "
            "free CPU for each, so give fewer `workers` or a larger cluster"
        )

    def _is_settled(self) -> bool:
        return self._refusal is not None or all(actor.is_up for actor in self._actors.values())

    def _start_actor(self, place: int) -> None:
        number = next(self._numbers)
        self._actors[number] = _Actor(place)
        self._send("start", number, place)

    def _send(self, *message: Any) -> None:
        if self._link is not None:
            self._link.send(*message)

    def _run(self, submission: Submission) -> None:
        with self._changed:  # so that messages on works and jobs are sent in order
            at = [n for n, actor in self._actors.items() if actor.place == submission.place]
            if not at:
                return  # all are being ended
            number = submission.worker = at[0]
            self._actors[number].running = submission
            key, job = submission.job.work.key, submission.job
            submission.start(str(submission.place))
            if key not in self._sent:
                self._send("work", key, submission.packed)
            self._sent[key] = None
            self._sent.move_to_end(key)
            if len(self._sent) > _MOST_WORKS:
                self._send("forget", self._sent.popitem(last=False)[0])
            self._send("run", number, submission.number, key, submission.items, job.slow)

    def _interrupt(self, submission: Submission) -> None:
        self._send("cancel", submission.worker, submission.number)

    def _kill(self, submission: Submission) -> str:
        self._replace(submission.worker)
        return f"worker {submission.place} did not come back in time"

    def _stop(self, running: list[Submission]) -> None:
        with self._changed:
            link = self._link
            self._actors.clear()
        if link is not None:
            link.end()  # whoever comes second waits for the first

    def _listen(self, link: RayLink) -> None:
        """Act on what the driving process says, until it has ended."""
        while (message := link.receive()) is not None:
            match message:
                case ("done", number, run, report):
                    self._end_job(number, run, report)
                case ("up", number, versions, host):
                    self._welcome(number, versions, host)
                case ("died", number, cause):
                    self._note_death(number, f"died ({cause})")
                case ("beat",):
                    self._count_beat()
                case ("gone", cause):
                    self.dropped.put(f"Ray is gone ({cause})")
        self.dropped.put("Ray is gone (the process that drives it ended)")

    def _count_beat(self) -> None:
        """Jobs wait for actors, but not for ever: where none has been up for so many beats."""
        with self._changed:
            up = any(actor.is_up for actor in self._actors.values())
            self._beats_without = 0 if up or self._refusal else self._beats_without + 1
            if self._beats_without * SECONDS_TO_LOOK >= _SECONDS_TO_START:
                self.dropped.put(self._too_few())

    def _welcome(self, number: int, versions: dict[str, str | None], host: str) -> None:
        with self._changed:
            actor = self._actors.get(number)
        if actor is None:
            return
        try:
            check_versions({f"{actor.place} on {host}": versions})
        except PoolError as error:
            self._end(str(error), "refused", str(error))
            return
        with self._changed:
            actor.is_up = True
            self._failed_starts = 0
            self._changed.notify_all()
            idle = actor.running is None  # one may have come as the actor before it died
        if idle:
            self._free(actor.place)

    def _end_job(self, number: int, run: int, pickled: bytes) -> None:
        with self._changed:
            actor = self._actors.get(number)
            if actor is None or actor.running is None or actor.running.number != run:
                return  # given up meanwhile
            submission, actor.running = actor.running, None
        try:
            report = pickle.loads(pickled)
        except Exception as error:
            report = f"unreadable ({type(error).__name__}: {error})"
        if self._finish(submission, report):
            self._free(submission.place)
        else:
            self._replace(number)

    def _note_death(self, number: int, how: str) -> None:
        with self._changed:
            actor = self._actors.get(number)
            if actor is None:
                return
            self._failed_starts += not actor.is_up
            hopeless = self._failed_starts >= _MOST_FAILED_STARTS
        if hopeless:
            self.dropped.put(f"Ray is gone (worker {actor.place} {how} before it was up)")
            return
        self._replace(number)
        if actor.running is not None:
            self._lose(actor.running, f"worker {actor.place} {how}")

    def _replace(self, number: int) -> None:
        """Put a new actor in the place of one that died or is to be ended."""
        with self._changed:
            actor = self._actors.pop(number, None)
            if actor is not None:
                self._idle.discard(actor.place)
                self._send("end", number)
                self._start_actor(actor.place)


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
