"""One worker process of a `ProcessPool`, as its parent sees it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import (
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from typing import Any, Literal

import psutil

from ...forks import Lock
from ..pinning import one_thread_environment
from . import process_worker
from .process_worker import Ready, Stop, serve

StartMethod = Literal["forkserver", "spawn"]

_NAME = "distributed-estimator-"
_START_LIMIT = 300.0
_KILL_LIMIT = 5.0
_SERVER_LIMIT = 60.0
"""Seconds that a fork server may take to answer; its first answer comes when it has its modules."""
_LOOK = 0.25
"""Seconds between looks whether a process that is waited for has been stopped."""
_UNKNOWN = 255
"""Exit code that `multiprocessing` makes up where somebody else has read the true one."""

_STANDARD_INPUT = (
    "a program read from standard input cannot be imported by worker processes: put it into a "
    'file, or use pool="threads"'
)
_NO_SERVER = (
    "a worker process cannot be started (the fork server ended, or gave no answer and was ended): "
    'use ProcessPool(start_method="spawn") or pool="threads"'
)
_GUARD = (
    "if your script makes the estimator at its top level, put that under "
    '`if __name__ == "__main__":`'
)

# `multiprocessing` looks after all children of this process whenever one is started, and reads
# each exit code just once: two threads that do so at a time would get wrong ones.
_launching = Lock()


class ProcessEndedError(Exception):
    """The process ended, or had to be ended; the message says how.

    Attributes:
        passing: Whether that was no fault of its own, so that another may well do.
    """

    def __init__(self, cause: str, *, passing: bool = False) -> None:
        super().__init__(cause)
        self.passing = passing


class WorkerProcess:
    """A process that was asked to start.

    One thread uses it; others may call `kill` and `interrupt` meanwhile.

    Attributes:
        number: The worker's.
        pid: The process's.
        is_up: Whether it was ready once.

    Args:
        number: Of the worker.
        method: How to start it.
        memory_limit: Bytes that it may hold; None: no limit.

    Raises:
        ProcessEndedError: It cannot be started.
    """

    def __init__(self, number: int, method: StartMethod, memory_limit: int | None) -> None:
        self.number = number
        self.is_up = False
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._killed = False
        self._over = False
        if getattr(sys.modules["__main__"], "__file__", None) == "<stdin>":
            raise ProcessEndedError(_STANDARD_INPUT)
        with ExitStack() as ends:
            try:
                ours, theirs = map(ends.enter_context, multiprocessing.Pipe())
                self._process = _launch(method, number, (theirs, number, memory_limit, os.getpid()))
            except ProcessEndedError:
                raise
            except Exception as error:
                text = " ".join(str(error).split())
                raise ProcessEndedError(
                    f"a worker process cannot be started ({type(error).__name__}: {text}): use "
                    'pool="threads", or fewer workers'
                ) from error
            ends.pop_all()
        theirs.close()
        self._connection: Connection = ours
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._pidfd: int | None = None
        with suppress(OSError):  # it is gone, or the kernel has none
            self._pidfd = os.pidfd_open(self.pid)
        # The sentinel is the fork server's to close.
        self._gone = self._process.sentinel if self._pidfd is None else self._pidfd

    def wait_until_ready(self) -> None:
        """Wait until it takes orders.

        Raises:
            ProcessEndedError: It never will.
        """
        limit = time.monotonic() + _START_LIMIT
        while not wait([self._connection, self._gone], _LOOK):
            if _is_stopped(self.pid):
                self.end(0.0)
                cause = f"worker {self.number} was stopped while it started, and was killed"
                raise ProcessEndedError(cause, passing=True)
            if time.monotonic() > limit:
                self.kill()
        try:
            ready: Ready = self.receive()
        except ProcessEndedError as error:
            cause = f"a worker process ended while it started ({error})"
            raise ProcessEndedError(f"{cause}: {_GUARD}") from None
        if ready.refusal is not None:
            self.end(1.0)
            raise ProcessEndedError(ready.refusal)
        self.is_up = True

    def is_alive(self) -> bool:
        """Whether it is there, idle and as it should be: it says nothing unasked."""
        return not self._killed and not wait([self._connection, self._gone], 0.0)

    def send(self, message: object) -> None:
        """Send a message, however long that takes.

        Raises:
            ProcessEndedError: It ended.
        """
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            raise ProcessEndedError(self.end(1.0)) from None

    def interrupt(self, message: object) -> None:
        """Send a short message, unless another is being sent or it would take long."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            with self._lock, suppress(OSError):
                writable = select.poll()
                if not self._over:
                    writable.register(self._connection, select.POLLOUT)
                if any(event == select.POLLOUT for _, event in writable.poll(0)):
                    self._connection.send(message)
        finally:
            self._sending.release()

    def receive(self) -> Any:
        """The next message of the process.

        Raises:
            ProcessEndedError: It ended, or sent what is no message and was ended for that.
        """
        wait([self._connection, self._gone])
        try:
            # What it sent before it died counts.
            data = self._connection.recv_bytes() if self._connection.poll() else b""
        except (OSError, EOFError):
            data = b""
        if not data:
            raise ProcessEndedError(self.end(1.0))
        try:
            return pickle.loads(data)
        except Exception as error:
            self.end(0.0)
            cause = f"worker {self.number} sent a report that cannot be read"
            raise ProcessEndedError(f"{cause} ({type(error).__name__}: {error})") from None

    def stop(self, grace: float) -> None:
        """Ask it to go; after `grace` seconds it is made to."""
        if wait([self._gone], 0.0):
            self._forget()  # who knows since when: its group's number may be another's by now
            return
        with suppress(OSError):
            self._connection.send(Stop())
        self.end(grace)

    def kill(self) -> None:
        """End it and its children by force, even stopped ones; what waits for it finds it gone."""
        with self._lock:
            self._killed = True
            if self._over:
                return
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            if not wait([self._gone], 0.0):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)  # it has no group before it is up

    def end(self, grace: float) -> str:
        """Wait for its end, by force after `grace` seconds, and forget it; says how it ended."""
        wait([self._gone], grace)
        self.kill()
        return self._forget()

    def _forget(self) -> str:
        code = self._exit_code() if wait([self._gone], _KILL_LIMIT) else None
        with self._lock:
            self._over = True
            self._connection.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
        if code is None:
            return f"worker {self.number} does not end"
        self._process.close()
        return f"worker {self.number} {_how_ended(code)}"

    def _exit_code(self) -> int | None:
        """Its exit code, once it is gone."""
        if isinstance(self._process, ForkServerProcess):
            sentinel = self._process.sentinel
            _await_server(lambda seconds: wait([sentinel], seconds))
        limit = time.monotonic() + _KILL_LIMIT
        while True:
            with _launching:
                code = self._process.exitcode
            # There may be no code yet for a moment after the sentinel fell.
            if code is not None or time.monotonic() > limit:
                return code
            time.sleep(0.002)


def end_if_starting() -> None:
    """End this process if it is itself a worker that imports the caller's script, unguarded.

    Its parent reports that; an error raised here would only repeat it, once for each worker.
    """
    this = multiprocessing.current_process()
    if this.name.startswith(_NAME) and multiprocessing.parent_process() is None:
        os._exit(1)


def _launch(
    method: StartMethod, number: int, arguments: tuple[Connection, int, int | None, int]
) -> ForkServerProcess | SpawnProcess:
    context: ForkServerContext | SpawnContext
    if method == "forkserver":
        context = multiprocessing.get_context("forkserver")
    else:
        context = multiprocessing.get_context("spawn")
    # No daemons: those may not have children, which a backend may want.
    process = context.Process(target=serve, args=arguments, name=f"{_NAME}{number}", daemon=False)
    with _launching:
        if method == "forkserver":
            _start_server()
            started = threading.Event()
            with suppress(RuntimeError):  # no thread for it: then it is done without
                threading.Thread(target=_await_server, args=[started.wait], daemon=True).start()
            try:
                with _no_daemon():
                    process.start()
            except (EOFError, ConnectionError) as error:
                _end_child(_server())  # it may be dying still
                raise ProcessEndedError(_NO_SERVER, passing=True) from error
            finally:
                started.set()
        else:
            with one_thread_environment(), _no_daemon():
                process.start()
    return process


@contextmanager
def _no_daemon() -> Iterator[None]:
    """Let workers of `multiprocessing.Pool`, which are daemons, start processes.

    They may not, as those would outlive them; ours end with whoever started them.
    """
    this = multiprocessing.current_process()
    before, this.daemon = this.daemon, False
    try:
        yield
    finally:
        this.daemon = before


def _start_server() -> None:
    """Start the program's fork server with the modules of our workers, which are its children.

    One that runs already, for others, does as well: then workers import by themselves.
    """
    server = forkserver._forkserver
    others: list[str] = getattr(server, "_preload_modules", [])
    # Ours first: it restores the environment, so that those of others see their own. The caller's
    # script is for the workers to import: they can tell what is wrong with it.
    modules = [name for name in others if name != "__main__"]
    server.set_forkserver_preload([process_worker.__name__, *modules])
    try:
        with one_thread_environment():
            server.ensure_running()
    finally:
        server.set_forkserver_preload(others)


def _await_server(answered: Callable[[float], object]) -> None:
    """Wait until the fork server has answered, and end it where it never will.

    A process that starts needs its answer, and who asks for an exit code, this program's end
    included. The next process to start has a server of its own; those of the old one go on.

    Args:
        answered: Waits for the answer for so many seconds; says whether it came.
    """
    limit = time.monotonic() + _SERVER_LIMIT
    while not answered(_LOOK):
        if time.monotonic() > limit or _is_stopped(_server()):
            _end_child(_server())
            return


def _server() -> int | None:
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


@atexit.register
def _end_stopped_helpers() -> None:
    """End what would not notice that this program is gone, or keep it from ending."""
    for helper in (_server(), getattr(resource_tracker._resource_tracker, "_pid", None)):
        if _is_stopped(helper):
            _end_child(helper)


def _is_stopped(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _end_child(pid: int | None) -> None:
    """Kill a child of this process and wait until it is dead; its exit code is for others."""
    with suppress(psutil.NoSuchProcess, ChildProcessError):
        if pid is not None and psutil.Process(pid).ppid() == os.getpid():
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _how_ended(code: int) -> str:
    if code == _UNKNOWN:
        return f"ended, how is not known (exit code {code})"
    if code < 0:
        name = next((known.name for known in signal.Signals if known == -code), "no name")
        return f"was ended by signal {-code} ({name})"
    return f"ended with exit code {code}"
