"""What runs in the processes of a `ProcessPool`, and the messages between them and their parent.

The fork server imports this module, so that workers have all they need from the start.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from ..messages import SlowWorker, StrainedError
from ..pinning import pin_process, restore_environment
from ..worker import Report as Outcomes
from ..worker import cause_of, run_job, unpack


@dataclass(frozen=True, slots=True)
class Run:
    """Parent to worker: run these items, which are pickled."""

    job: int
    key: str
    items: bytes
    slow: SlowWorker | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Parent to worker: the results of this job are no longer needed."""

    job: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Parent to worker: go."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker to parent: it can take jobs, or never will for this cause."""

    refusal: str | None


@dataclass(frozen=True, slots=True)
class NeedWork:
    """Worker to parent: send the pickled work of the job."""


@dataclass(frozen=True, slots=True)
class Report:
    """Worker to parent: a job is over."""

    job: int
    outcomes: Outcomes


def serve(connection: Connection, number: int, memory_limit: int | None, parent: int) -> None:
    """Run jobs until told to stop. Ends with its parent, whatever it does at that moment.

    Args:
        connection: To the parent.
        number: Of this worker.
        memory_limit: Bytes that this process may hold; None: no limit.
        parent: Process id of the parent.
    """
    # What tasks start is in this worker's own process group, and so can be ended with it. Ctrl-C
    # reaches the parent's group alone, which decides what becomes of its workers.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    pin_process()
    refusal = None if memory_limit is None else _limit_memory(memory_limit)
    connection.send(Ready(refusal))
    if refusal is not None:
        return
    line = _Line(connection)
    with suppress(EOFError):
        while (run := line.next_run()) is not None:
            report = run_job(
                partial(unpack, run.key, line.fetch_work, run.items),
                wait=line.wait,
                worker=number,
                slow=run.slow,
            )
            try:
                connection.send(Report(run.job, report))
            except MemoryError as error:  # it is pickled first, so nothing was sent
                connection.send(Report(run.job, StrainedError(cause_of(error))))


def _end_with(parent: int) -> None:
    """End this process, and what it has started, as soon as its parent is gone."""
    alive = multiprocessing.parent_process()
    assert alive is not None
    watched: list[Any] = [alive.sentinel]
    with suppress(OSError):
        # A task in compiled code may keep the interpreter's lock, and so the thread from watching.
        _have_kernel_watch(alive.sentinel)
    with suppress(OSError):
        # Processes that the parent forked hold its pipes open beyond its end; this sees through it.
        watched.append(os.pidfd_open(parent))

    def watch() -> None:
        wait(watched)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="distributed-estimator-parent", daemon=True).start()


def _have_kernel_watch(pipe: int) -> None:
    """Have this group killed once the other end of a pipe is closed, or written to."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


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

    def next_run(self) -> Run | None:
        """The next job; None where the parent wants none run any more."""
        while not isinstance(message := self._connection.recv(), Run):
            if isinstance(message, Stop):
                return None
        self._job, self._cancelled = message.job, False
        return message

    def fetch_work(self) -> bytes:
        self._connection.send(NeedWork())
        # A cancel sent before the parent saw this comes first.
        while isinstance(message := self._connection.recv(), Cancel):
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
        self._cancelled |= message == Cancel(self._job)


# In a process started by `one_thread_environment`, all libraries are loaded by now: its environment
# is not for what a fork server starts for others.
restore_environment()
