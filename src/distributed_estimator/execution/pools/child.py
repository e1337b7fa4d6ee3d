"""What all processes that drive an engine for a pool have in common, and how they end.

An engine may end the process that drives it, or take its settings, signals and logs, so a child of
the caller's process drives it, and passes messages on. It leads a session, so that all of it can be
ended at once. It imports nothing of this package but its driver, so that it is up soon.

Messages are tuples. From the pool come ("start", actor, place), ("work", key, pickled), ("forget",
key), ("run", actor, run, key, pickled items, delay), ("cancel", actor, run) and ("end", actor). To
the pool go ("connected",) or ("failed", why), then ("up", actor, versions by worker), ("began",
actor, run, worker, hint), ("done", actor, run, worker, pickled report), ("lost", actor, run, kind,
cause), ("died", actor, cause), ("gone", cause), and ("beat",) twice a second.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import shutil
import signal
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, NoReturn, TypeAlias

import psutil

BEAT_SECONDS = 0.5
_PARENT_SECONDS = 0.25
_SECONDS_TO_END = 2.5
"""An engine may take so long to shut down; then its processes are ended by force."""

Identity: TypeAlias = tuple[int, float]
"""Number of a process and when it began, in seconds since 1970: numbers are used again."""


def identity(process: psutil.Process) -> Identity:
    """What tells a process from a later one with its number."""
    return process.pid, process.create_time()


def end_processes(identities: Iterable[Identity]) -> None:
    """End those that still run, by force, and wait a moment until they are gone."""
    ended = []
    for pid, began in identities:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if abs(process.create_time() - began) < 1.0:
                process.kill()
                ended.append(process)
    psutil.wait_procs(ended, timeout=1.0)


def led_by(pid: int, group: Callable[[int], int] = os.getsid) -> list[Identity]:
    """All in the session or group of a process: what was forked and has lost its parent, too.

    Args:
        pid: The process, which may have ended.
        group: `os.getsid` or `os.getpgid`.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if group(process.pid) == pid:
                found.append(identity(process))
    return found


class Driver(ABC):
    """Does with an engine what the pool says, and reports what happens.

    A subclass has a method for each message of the pool, with an underscore before its name.

    Args:
        connection: To the pool.
        folder: Of the engine's files, to be removed at the end; None: there is none.
        parent: Process id of the caller.
    """

    def __init__(self, connection: Connection, folder: str | None, parent: int) -> None:
        self.folder = folder
        self._connection = connection
        self._parent = parent
        self._outbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._ending = threading.Lock()
        for target in (self._deliver, self._obey, self._watch_parent):
            threading.Thread(target=target, daemon=True).start()

    @abstractmethod
    def run(self) -> None:
        """Connect, report that, and watch the engine; an error means that it is lost."""

    @abstractmethod
    def stop(self) -> None:
        """Ask the engine to end, or to let go of what the pool has there."""

    def explain(self, error: BaseException) -> str:
        """Why the engine cannot be started, reached or used any more."""
        return f"{type(error).__name__}: {error}"

    def left(self) -> list[Identity]:
        """Processes to end by force: all of this session, whose leader this process is."""
        return [found for found in led_by(os.getpid()) if found[0] != os.getpid()]

    def tell(self, *message: Any) -> None:
        """Send a message, without waiting."""
        self._outbox.put(message)

    def end(self) -> NoReturn:
        """End what was started, then this process; whoever comes second waits for that."""
        with self._ending:
            warnings.simplefilter("ignore")  # of helpers that end before this process
            left = self.left()
            timer = threading.Timer(_SECONDS_TO_END, self._leave, [left])
            timer.daemon = True
            timer.start()
            with contextlib.suppress(BaseException):
                self.stop()
            self._leave(left)

    def _leave(self, left: list[Identity]) -> NoReturn:
        # Where the engine's own clean-up goes on in another thread, Python starts its tracker of
        # semaphores again once that was ended, and the new one complains of names not registered.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        end_processes(left)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)  # past the engine's own clean-up, which can hang
        raise AssertionError("this process is in its own group")

    def _deliver(self) -> None:
        """A thread of its own: whoever reads must never wait for a reader at the other end."""
        with contextlib.suppress(OSError):
            while True:
                self._connection.send(self._outbox.get())

    def _obey(self) -> None:
        """Until the pool hangs up, or its process ends."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.obey(*self._connection.recv())
        self.end()

    def obey(self, verb: str, *arguments: Any) -> None:
        """Do what a message of the pool says."""
        try:
            getattr(self, "_" + verb)(*arguments)
        except Exception as error:
            self.tell("gone", self.explain(error))

    def _watch_parent(self) -> None:
        """What the caller forked may hold the connection open beyond its end."""
        while os.getppid() == self._parent:
            time.sleep(_PARENT_SECONDS)
        self.end()


def main(descriptor: int) -> None:
    """Make the driver that the first message names, and serve.

    Args:
        descriptor: Of the socket to the pool.
    """
    os.set_inheritable(descriptor, False)  # else the engine's processes would keep it open
    connection = Connection(descriptor)
    module, arguments, *common = connection.recv()
    driver: Driver = importlib.import_module(module).Driver(connection, *common, **arguments)
    try:
        driver.run()
    except BaseException as error:
        driver.tell("failed", driver.explain(error))
    threading.Event().wait()  # for the pool to hang up
