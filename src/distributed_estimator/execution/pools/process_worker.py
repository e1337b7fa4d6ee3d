"""The process that forks a program's workers, and what runs in a worker.

From the parent, workers get ("run", job, key, pickled items, delay), the pickled work where they
ask for it, ("cancel", job), and None: go. They send ("ready", refusal), ("need work",) and
("report", job, outcomes).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import psutil

from ..messages import StrainedError
from ..worker import cause_of, pin_process, run_job, unpack

_LOOK = 0.5
_PIDFD_OPEN = 434
"""Number of this system call, the same on every machine that Python's builds are for."""

Start: TypeAlias = tuple[int, int | None, list[str], str]
"""Number of a worker, bytes that it may hold, where it finds modules, and its folder."""


def command(function: str, paths: list[str], *arguments: Any) -> list[str]:
    """What calls a function of this module in a new interpreter."""
    call = f"from {__name__} import {function}; {function}{arguments!r}"
    return [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {call}"]


def open_process(pid: int) -> int:
    """A file descriptor that is ready to be read once a process has ended.

    `os.pidfd_open` is not there where Python was built with old headers, as uv's and conda's are.

    Raises:
        OSError: There is no such process, or the kernel is older than Linux 5.3.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    descriptor = call(*map(ctypes.c_long, (_PIDFD_OPEN, pid, 0)))
    if descriptor < 0:
        raise OSError(code := ctypes.get_errno(), os.strerror(code))
    return int(descriptor)


def serve_starts(descriptor: int, alive: int, parent: int) -> None:
    """Start workers as the parent asks on a socket, and say how they ended, until it is gone.

    One that ended keeps its number until the parent has asked. The pipe `alive` is closed when the
    parent ends.
    """
    # Where the parent ignores this signal, the kernel would not keep how a worker ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.set_inheritable(descriptor, False)  # else spawned workers would keep it open
    with socket.socket(fileno=descriptor) as channel:
        while os.getppid() == parent:
            if not wait([channel], _LOOK):
                continue
            data, descriptors, *_ = socket.recv_fds(channel, 1 << 17, 1)
            if not data:
                return
            verb, argument = pickle.loads(data)
            answer: Any
            try:
                if verb == "fork":
                    answer = _fork(channel, descriptors[0], alive, parent, argument)
                elif verb == "spawn":
                    answer = _spawn(descriptors[0], alive, parent, argument)
                else:
                    pid, status = os.waitpid(argument, os.WNOHANG)
                    answer = os.waitstatus_to_exitcode(status) if pid else None
            except OSError as error:
                answer = error
            for each in descriptors:
                os.close(each)
            channel.send(pickle.dumps(answer))


def _fork(channel: socket.socket, line: int, alive: int, parent: int, start: Start) -> int:
    pid = os.fork()
    if pid == 0:
        channel.close()
        sys.path[:] = start[2]
        work(line, alive, parent, start)
    return pid


def _spawn(line: int, alive: int, parent: int, start: Start) -> int:
    os.set_inheritable(line, True)
    program = command("work", start[2], line, alive, parent, start)
    return os.posix_spawn(sys.executable, program, os.environ)


def work(line: int, alive: int, parent: int, start: Start) -> None:
    """Run jobs until the parent has none; then, or where the parent ends, end this process."""
    code = 1
    try:
        _work(Connection(line), alive, parent, *start)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _work(
    connection: Connection,
    alive: int,
    parent: int,
    number: int,
    memory_limit: int | None,
    paths: list[str],
    folder: str,
) -> None:
    # What tasks start is in this worker's own process group, and so can be ended with it.
    os.setpgid(0, 0)
    for descriptor in (connection.fileno(), alive):
        os.set_inheritable(descriptor, False)
    _end_with(alive, parent)
    with suppress(OSError):
        os.chdir(folder)
    pin_process()
    refusal = None if memory_limit is None else _limit_memory(memory_limit)
    connection.send(("ready", refusal))
    if refusal is not None:
        return
    line = _Line(connection)
    with suppress(EOFError):
        while (run := line.next_run()) is not None:
            job, key, items, delay = run
            load = partial(unpack, key, line.fetch_work, items)
            report = run_job(load, wait=line.wait, delay=delay)
            try:
                connection.send(("report", job, report))
            except MemoryError as error:  # it is pickled first, so nothing was sent
                connection.send(("report", job, StrainedError(cause_of(error))))


def _end_with(alive: int, parent: int) -> None:
    """End this process, and what it has started, as soon as its parent is gone.

    A task in compiled code may keep the interpreter's lock, and so a thread from watching: the
    kernel kills this group once the pipe is closed. What the parent forked may hold that open; the
    thread sees through it.
    """
    # Opened again: whom a file signals is the same for all processes that inherited it.
    pipe = os.open(f"/proc/self/fd/{alive}", os.O_RDONLY | os.O_NONBLOCK)
    watched: list[Any] = [pipe]
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    with suppress(OSError):
        watched.append(open_process(parent))

    def watch() -> None:
        wait(watched)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="distributed-estimator-parent", daemon=True).start()


def _limit_memory(limit: int) -> str | None:
    """Make allocations beyond the limit fail; says why where that leaves nothing to work with."""
    memory = psutil.Process().memory_info()
    if limit <= memory.rss:
        return (
            f"`memory_limit` is {limit} bytes, but a worker holds {memory.rss} before its first "
            "task: give more"
        )
    # Libraries reserve far more addresses than they use: only what is used counts.
    most = memory.vms + limit - memory.rss
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return None


class _Line:
    """The connection to the parent, on which jobs come, and cancels of the one that runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._job = -1
        self._cancelled = False

    def next_run(self) -> tuple[int, str, bytes, float] | None:
        """The next job; None where the parent has none any more."""
        while (message := self._connection.recv()) is not None:
            if message[0] == "run":
                self._job, self._cancelled = message[1], False
                run: tuple[int, str, bytes, float] = message[1:]
                return run
        return None

    def fetch_work(self) -> bytes:
        self._connection.send(("need work",))
        # A cancel sent before the parent saw this comes first.
        while isinstance(message := self._connection.recv(), tuple):
            self._note(message)
        packed: bytes = message
        return packed

    def wait(self, seconds: float) -> bool:
        """Sleep, and listen to the parent; whether the job was cancelled."""
        limit = time.monotonic() + seconds
        while not self._cancelled:
            if not self._connection.poll(max(0.0, limit - time.monotonic())):
                return False
            self._note(self._connection.recv())
        return True

    def _note(self, message: object) -> None:
        self._cancelled |= message == ("cancel", self._job)
