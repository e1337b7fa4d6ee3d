"""A Dask cluster: one that is there, or processes of our own on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import PoolError
from ..pinning import ONE_THREAD
from .base import closed
from .dask_link import Link
from .dask_worker import Begun

_START_SECONDS = 120.0
_PATIENCE = 30
"""Looks, one a second, at a worker that was given an order and does not run it."""

_PROGRAM = Path(__file__).with_name("dask_host.py")
_WORKER_MODULE = f"{__package__}.dask_worker"


class Cluster:
    """What a pool must give back: a connection to a scheduler, and the processes it started.

    Args:
        workers: Worker processes to start.
        address: Of a scheduler that is there; None: start a cluster here.
        security: Dask's `Security`, for that address.
        memory_limit: Bytes a worker started here may take; None: as much as there is.
        on_begun: Called on the link's loop when a worker begins with an order.

    Attributes:
        names: The workers', in order.
    """

    def __init__(
        self,
        workers: int,
        address: str | None,
        security: Any,
        memory_limit: int | None,
        on_begun: Callable[[Begun], None],
    ) -> None:
        self.names: list[str] = []
        self._address = address
        self._security = security
        self._on_begun = on_begun
        self._process = _ClusterProcess(workers, memory_limit) if address is None else None
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the processes if they are ours, and connect.

        Raises:
            PoolError: They did not start, cannot be reached, differ in versions, or were closed.
        """
        address = self._address if self._process is None else self._process.start()
        assert address is not None
        security = self._security if self._process is None else _unencrypted()
        with self._lock:
            if self._closed:
                raise closed()
            self._link = Link(address, security, self._on_begun, own=self._process is not None)
        self.names = self.link.call(self.link.connect(check=self._process is None))

    @property
    def link(self) -> Link:
        """The connection, once there is one."""
        assert self._link is not None
        return self._link

    def check_alive(self) -> None:
        """Raise a `PoolError` where the scheduler is known to be gone."""
        if not self.link.alive:
            raise PoolError(f"{self.link.cause}: make a new estimator")

    def close(self) -> None:
        """Disconnect, and end the processes if they are ours."""
        if os.getpid() != self._owner:
            return  # a fork of the owner ends; the owner still uses it
        with self._lock:
            self._closed = True
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.close()

    def close_aside(self) -> None:
        """Close on another thread: the link's own may be the one that lets go of a pool."""
        closing = threading.Thread(target=self.close, daemon=True)
        try:
            closing.start()
        except RuntimeError:
            self.close()  # the interpreter ends, and starts no more threads
        else:
            if self._link is None or not self._link.is_current_thread():
                closing.join()


class _ClusterProcess:
    """A local cluster.

    It is in a session of its own, so that all of it can be ended at once, whatever state it is in,
    and so that Dask's settings, threads and signals are none of the caller's.

    Args:
        workers: Worker processes, one thread each.
        memory_limit: Bytes a worker may take; None: as much as there is.
    """

    def __init__(self, workers: int, memory_limit: int | None) -> None:
        self._workers = workers
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._directory: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def start(self) -> str:
        """Start it, and wait until all workers are up.

        Returns:
            The scheduler's address.

        Raises:
            PoolError: It did not start, or was closed meanwhile.
        """
        with self._lock:
            if self._closed:
                raise closed()
            self._directory = tempfile.mkdtemp(prefix="distributed-estimator-dask-")
            self._process = process = subprocess.Popen(
                # -P: the folder of the program holds a `dask` of its own.
                [sys.executable, "-P", str(_PROGRAM), self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
            )
        address = _first_line(process)
        if not address:
            self.close()
            raise PoolError(
                f"a Dask cluster of {self._workers} workers did not start on this machine; "
                'standard error says why: mend that, or use pool="processes"'
            )
        return address

    def close(self) -> None:
        """Kill the whole session, stopped processes too, and remove its files."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
            directory, self._directory = self._directory, None
        if process is not None:
            # It has not been waited for, so its number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _arguments(self) -> str:
        return json.dumps(
            {
                "parent": os.getpid(),
                "workers": self._workers,
                "memory_limit": self._memory_limit or 0,
                "directory": self._directory,
                "preload": _WORKER_MODULE,
                "patience": _PATIENCE,
            }
        )


def _unencrypted() -> Any:
    """Nothing leaves this machine, whatever the caller's own configuration asks for elsewhere."""
    import distributed

    make: Any = distributed.Security
    return make(require_encryption=False)


def _environment() -> dict[str, str]:
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    quiet = {"DASK_LOGGING__DISTRIBUTED": "critical"}
    return quiet | os.environ | dict(ONE_THREAD) | {"PYTHONPATH": path}


def _first_line(process: subprocess.Popen[bytes]) -> str:
    """What the process says first; nothing where it ends or takes too long."""
    assert process.stdout is not None
    with process.stdout as said, selectors.DefaultSelector() as selector:
        selector.register(said, selectors.EVENT_READ)
        return said.readline().decode().strip() if selector.select(_START_SECONDS) else ""
