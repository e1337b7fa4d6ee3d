"""Pools whose engine is driven by a child process: Dask and Ray."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import queue
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from ...errors import PoolError
from .base import (
    Engine,
    LossKind,
    Submission,
    check_versions,
    hang_up,
    standard_streams,
    start_thread,
)
from .child import BEAT_SECONDS, end_processes, led_by

SILENCE = 30.0
"""Seconds that the child, which has something to say twice a second, may not say anything. The
kernel counts them while this process waits, and from the beginning after it was stopped, so that a
program or a machine that was suspended does not count."""

SECONDS_TO_START = 120.0
"""For workers to come up; also for one to do so, where none is left."""
_SECONDS_TO_CONNECT = 60.0
"""A busy cluster may take so long to serve one that it answered."""
_SECONDS_TO_END = 3.5
_MOST_WORKS = 8
_MOST_FAILED_STARTS = 3

# Packages are entered past their own code, which imports Qiskit: a driver needs none of it.
_COMMAND = """
import sys, types
sys.path[:] = {paths!r}
for name, folder in {packages!r}.items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from {package}.child import main
main({descriptor})
"""


class Child:
    """A process that drives an engine; messages go and come as tuples, see `child.py`.

    Args:
        driver: Module of its `Driver`, beside this one, and its arguments.
        environment: Of the process.
        folder: To be removed at the end, if there is one.
        quiet: Whether nothing that it writes to standard error is shown.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        driver: str,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str],
        folder: str | None,
        *,
        quiet: bool,
    ) -> None:
        self._folder = folder
        self._outbox: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._ending = threading.Lock()
        self._ended = False
        with standard_streams():
            ours, theirs = socket.socketpair()
        wait = struct.pack("ll", int(SILENCE), int(SILENCE % 1 * 1e6))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self._connection = Connection(ours.detach())
        try:
            with theirs, standard_streams():
                self._process = _launch(theirs.fileno(), environment, quiet=quiet)
        except OSError:
            self._remove_folder()
            raise
        self.pid = self._process.pid
        self.send(f"{__package__}.{driver}", arguments, folder, os.getpid())
        try:
            start_thread(self._deliver, name="outbox")
        except BaseException:
            self.end(0.0)
            raise

    def send(self, *message: Any) -> None:
        """Send a message, without waiting: the process may be stopped, and take none.

        One that is not taken any more is dropped: `receive` reports the end.
        """
        self._outbox.put(message)

    def _deliver(self) -> None:
        with contextlib.suppress(OSError):
            while (message := self._outbox.get()) is not None:
                self._connection.send(message)

    def receive(self, limit: float | None = None) -> tuple[Any, ...]:
        """Wait for a message, for so many seconds; ("gone", cause) once the process has ended."""
        try:
            if limit is not None and not self._connection.poll(limit):
                return "gone", "no answer in time"
            message: tuple[Any, ...] = self._connection.recv()
        except BlockingIOError:
            self._process.kill()
            return "gone", f"the process that drives it was silent for {SILENCE:g} s"
        except (EOFError, OSError):
            return "gone", "the process that drives it ended unexpectedly"
        return message

    def end(self, grace: float = _SECONDS_TO_END) -> None:
        """End the process, and what it started on this machine, within 5 s.

        Whoever calls while another ends it waits for that.
        """
        with self._ending:
            if self._ended:
                return
            self._ended = True
            hang_up(self._connection, socket.SHUT_WR)  # ours stays open, as it may be being read
            self._outbox.put(None)
            # Before it is waited for: then its number may be another's.
            started = led_by(self.pid)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                started = led_by(self.pid)
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_SECONDS_TO_END)
            end_processes(started)
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _launch(
    descriptor: int, environment: Mapping[str, str], *, quiet: bool
) -> subprocess.Popen[bytes]:
    """Start the child in a session of its own, so that Ctrl-C ends it through us alone."""
    root = Path(__file__).parents[2]
    packages = {}
    for folder in (root, root / "execution", root / "execution" / "pools"):
        packages[".".join(folder.relative_to(root.parent).parts)] = str(folder)
    paths = [os.path.abspath(path) for path in sys.path]
    command = _COMMAND.format(
        paths=paths, packages=packages, package=__package__, descriptor=descriptor
    )
    return subprocess.Popen(
        [sys.executable, "-c", command],
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else 2,
        stderr=subprocess.DEVNULL if quiet else None,
        start_new_session=True,
    )


@dataclass(eq=False)
class _Actor:
    """A worker as the driver knows it; `hint` is for whoever gives its job up."""

    place: int
    is_up: bool = False
    running: Submission | None = None
    hint: str = ""


class Driven(Engine):
    """Places are actors, each of which is replaced by another of a new number.

    Attributes:
        engine: Its name, for errors.
        address: Of a cluster; None: one of our own.
        begins: Whether a worker that is given a job begins at once; else the driver reports it.
    """

    engine: Literal["Dask", "Ray"]
    begins = True

    def __init__(self, workers: int, address: str | None) -> None:
        super().__init__(workers)
        self.address = address
        self._actors: dict[int, _Actor] = {}
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._numbers = itertools.count(1)
        self._failed_starts = 0
        self._beats_without = 0
        self._child: Child | None = None

    @abstractmethod
    def _launch(self) -> Child:
        """Start the process that drives the engine.

        Raises:
            OSError, PoolError: It cannot be started, or it is clear that it cannot connect.
        """

    @abstractmethod
    def _explain(self, reason: str) -> str:
        """Why the engine cannot be started or reached."""

    @abstractmethod
    def _too_few(self, up: int) -> str:
        """Only so many workers came up in time."""

    def _start(self) -> None:
        """Connect, start the actors, and see that they match this process."""
        self._close_when_dropped()
        try:
            child = self._launch()
        except OSError as error:
            raise PoolError(self._explain(f"{type(error).__name__}: {error}")) from error
        with self._changed:
            self._child = child
        try:
            self._check_open()
            self._connect(child)
            start_thread(self._listen, child, name=self.engine.lower())
        except BaseException:
            child.end()
            raise
        with self._changed:
            for place in range(self.workers):
                self._start_actor(place)
            self._changed.wait_for(self._is_settled, SECONDS_TO_START)
            refusal = self._refusal
            if refusal is None and not self._is_settled():
                refusal = self._too_few(self._num_up)
        if refusal is not None:
            self._end(refusal, "refused", refusal)
            raise PoolError(refusal)

    def _connect(self, child: Child) -> None:
        seconds = SECONDS_TO_START if self.address is None else _SECONDS_TO_CONNECT
        limit = time.monotonic() + seconds
        while (message := child.receive(max(0.0, limit - time.monotonic())))[0] == "beat":
            pass
        verb, *rest = message
        self._check_open()
        if verb != "connected":
            raise PoolError(rest[0] if verb == "failed" else self._explain(rest[0]))

    @property
    def _num_up(self) -> int:
        return sum(actor.is_up for actor in self._actors.values())

    def _is_settled(self) -> bool:
        return self._refusal is not None or self._num_up == self.workers

    def _start_actor(self, place: int) -> None:
        number = next(self._numbers)
        self._actors[number] = _Actor(place)
        self._send("start", number, place)

    def _send(self, *message: Any) -> None:
        if self._child is not None:
            self._child.send(*message)

    def _run(self, submission: Submission) -> None:
        with self._changed:  # so that messages on works and jobs are sent in order
            at = [n for n, actor in self._actors.items() if actor.place == submission.place]
            if not at:
                return  # all are being ended
            number = at[0]
            if not self._actors[number].is_up:  # it has just taken the place of one that died
                if self._running.pop(submission.job, None) is not None:
                    self._queue.appendleft(submission)
                return
            submission.worker = number
            self._actors[number].running = submission
            self._actors[number].hint = ""
            key = submission.job.work.key
            if self.begins:
                submission.start(str(submission.place))
            if key not in self._sent:
                self._send("work", key, submission.packed)
            self._sent[key] = None
            self._sent.move_to_end(key)
            if len(self._sent) > _MOST_WORKS:
                self._send("forget", self._sent.popitem(last=False)[0])
            items, delay = submission.items, submission.delay
            self._send("run", number, submission.number, key, items, delay)
            if submission.cancelled.is_set():  # its cancel may have come before it had a worker
                self._interrupt(submission)

    def _interrupt(self, submission: Submission) -> None:
        self._send("cancel", submission.worker, submission.number)

    def _kill(self, submission: Submission) -> str:
        actor = self._replace(submission.worker)
        hint = actor.hint if actor is not None else ""
        return f"worker {submission.place} did not come back in time{hint}"

    def _stop(self, running: list[Submission]) -> None:
        with self._changed:
            child = self._child
            self._actors.clear()
        if child is not None:
            child.end()  # whoever comes second waits for the first

    def _listen(self, child: Child) -> None:
        """Act on what the driver reports, until it has ended."""
        while True:
            match child.receive():
                case ("done", number, run, worker, report):
                    self._end_job(number, run, worker, report)
                case ("began", number, run, worker, hint):
                    self._note_begin(number, run, worker, hint)
                case ("lost", number, run, kind, cause):
                    self._end_run(number, run, kind, cause)
                case ("up", number, versions):
                    self._welcome(number, versions)
                case ("died", number, cause):
                    self._note_death(number, cause)
                case ("beat",):
                    self._count_beat()
                case ("gone" | "failed", cause):
                    self.dropped.put(f"{self.engine} is gone ({cause})")
                    return

    def _count_beat(self) -> None:
        """Jobs wait for actors, but not for ever: where none has been up for so many beats."""
        with self._changed:
            waits = not self._num_up and not self._refusal
            self._beats_without = self._beats_without + 1 if waits else 0
            if self._beats_without * BEAT_SECONDS >= SECONDS_TO_START:
                self.dropped.put(self._too_few(0))

    def _welcome(self, number: int, versions: Mapping[str, Mapping[str, str | None]]) -> None:
        with self._changed:
            actor = self._actors.get(number)
        if actor is None:
            return
        try:
            check_versions(versions)
        except PoolError as error:
            self._end(str(error), "refused", str(error))
            return
        with self._changed:
            actor.is_up = True
            self._failed_starts = 0
            self._changed.notify_all()
        self._free(actor.place)

    def _running_on(self, number: int, run: int) -> tuple[_Actor, Submission] | None:
        """An actor and its job; None where that was given up meanwhile. Call it with the lock."""
        actor = self._actors.get(number)
        if actor is None or actor.running is None or actor.running.number != run:
            return None
        return actor, actor.running

    def _note_begin(self, number: int, run: int, worker: str, hint: str) -> None:
        with self._changed:
            found = self._running_on(number, run)
            if found is None:
                return
            found[0].hint = hint
        found[1].start(worker)

    def _end_run(self, number: int, run: int, kind: LossKind, cause: str) -> None:
        """A job ended without a report; its actor goes on."""
        with self._changed:
            found = self._running_on(number, run)
            if found is None:
                return
            found[0].running = None
        self._forget(found[1])
        found[1].lose(kind, cause)
        self._free(found[1].place)

    def _end_job(self, number: int, run: int, worker: str | None, pickled: bytes) -> None:
        with self._changed:
            found = self._running_on(number, run)
            if found is None:
                return
            found[0].running = None
        try:
            report = pickle.loads(pickled)
        except Exception as error:
            report = f"unreadable ({type(error).__name__}: {error})"
        if self._finish(found[1], report, worker):
            self._free(found[1].place)
        else:
            self._replace(number)

    def _note_death(self, number: int, how: str) -> None:
        with self._changed:
            actor = self._actors.get(number)
            if actor is None:
                return
            self._failed_starts += not actor.is_up
            hopeless = self._failed_starts >= _MOST_FAILED_STARTS
        cause = f"worker {actor.place} died ({how})"
        if hopeless:
            self.dropped.put(f"{self.engine} is gone ({cause} before it was up)")
            return
        self._replace(number)
        if actor.running is not None:
            self._lose(actor.running, cause)

    def _replace(self, number: int) -> _Actor | None:
        """Put a new actor in the place of one that died or is to be ended."""
        with self._changed:
            actor = self._actors.pop(number, None)
            if actor is not None:
                self._idle.discard(actor.place)
                self._send("end", number)
                self._start_actor(actor.place)
            return actor
