"""This process's end of the line to the process that drives Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from ...errors import InputError, PoolError
from ..pinning import ONE_THREAD
from .base import start_thread
from .ray_driver import end_processes, led_by

_SECONDS_TO_PROBE = 4.0
"""For each of two steps: to get a connection, and an answer."""

_SECONDS_TO_CONNECT = 60.0  # to what has answered as Ray does, on a busy machine
"""A busy cluster may take so long to serve one that it answered."""

_SECONDS_TO_START = 120.0
_SECONDS_TO_END = 3.5
_SILENCE = 30.0
"""Seconds that the process, which has something to say twice a second, or one of Ray's own may not
do anything. The kernel counts them while this process waits, and from the beginning after it was
stopped, so that a program or a machine that was suspended does not count."""

_OBJECT_STORE = 256 * 2**20
_LONGEST_FOLDER = 40
"""Ray puts Unix sockets some 65 characters below its folder; their names may have 107."""

_COMMAND = (
    "import sys; sys.path[:] = {paths!r}; "
    "from distributed_estimator.execution.pools.ray_driver import main; main({descriptor})"
)

_QUIET = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}

_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How HTTP/2, which Ray speaks, is begun: its preface, and a frame of no settings (RFC 9113)."""

_SETTINGS = 4
"""Type of the frame that must come first; the fourth of the nine bytes that begin each."""

_HEAD = "gcs_server"

_HASTY_ENVIRONMENT = {
    # Ray takes half a minute to give up a server that speaks HTTP/2 but is not what it looks for,
    # such as another port of a cluster. Tries of a second; seconds for each of three tries.
    "RAY_NUM_REDIS_GET_RETRIES": "5",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "2",
}

_OWN_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Otherwise Ray replaces the loopback address by the host's, and listens on all of them.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    **ONE_THREAD,
}


class RayLink:
    """A child process that is connected to Ray; messages go and come as tuples.

    Args:
        address: Of a cluster; None: start Ray on this machine, for this link alone.
        workers: Actors that a Ray of our own must have room for.
        environment: Ray's runtime environment for the actors; empty: none.

    Raises:
        PoolError: Ray cannot be started, reached, or is of another version.
    """

    def __init__(self, address: str | None, workers: int, environment: dict[str, Any]) -> None:
        _probe(address)
        self._address = address
        self._creator = os.getpid()
        self._outbox: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._ending = threading.Lock()
        self._ended = False
        self._folder = None if address is not None else _folder()
        try:
            ours, theirs = socket.socketpair()
            wait = struct.pack("ll", int(_SILENCE), int(_SILENCE % 1 * 1e6))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
            self._connection = Connection(ours.detach())
            with theirs:
                self._process = _launch(theirs.fileno(), own=address is None)
        except OSError as error:
            self._remove_folder()
            raise PoolError(self._explain(type(error).__name__, str(error))) from error
        options = _options(address, workers, environment, self._folder)
        self.send(options, self._folder, _SILENCE, self._creator)
        try:
            start_thread(self._deliver, name="ray-outbox")
            self._wait_until_connected()
        except BaseException:
            self.end()
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

    def receive(self) -> tuple[Any, ...] | None:
        """Wait for a message; None once the process has ended."""
        try:
            message: tuple[Any, ...] = self._connection.recv()
        except BlockingIOError:
            self._process.kill()
            return "gone", f"the process that drives it was silent for {_SILENCE:g} s"
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> None:
        """End the process, and what it started on this machine, within 5 s.

        Whoever calls while another ends it waits for that.
        """
        if os.getpid() != self._creator:
            return  # a fork of ours
        with self._ending:
            if not self._ended:
                self._end()
            self._ended = True

    def _end(self) -> None:
        self._hang_up()
        self._outbox.put(None)
        # Before it is waited for: then its number may be another's.
        started = led_by(self._process.pid, os.getsid)
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            started = led_by(self._process.pid, os.getsid)
            self._process.kill()
            self._process.wait()
        end_processes(started)
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _hang_up(self) -> None:
        """Make the other end read its end of file; ours stays open, as it may be being read."""
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_WR)

    def _wait_until_connected(self) -> None:
        limit = _SECONDS_TO_START if self._address is None else _SECONDS_TO_CONNECT
        message: tuple[Any, ...] | None = ("failed", "TimeoutError", f"no answer in {limit:g} s")
        if self._connection.poll(limit):
            message = self.receive()
        if message is None:
            message = ("failed", "", "the process that connects to it ended unexpectedly")
        if message[0] == "failed":
            raise PoolError(self._explain(message[1], message[2]))

    def _explain(self, kind: str, text: str) -> str:
        reason = f"{kind}: {text}".strip(": ")
        if "version mismatch" in text.lower():
            return (
                f"Ray at {self._address!r} does not match this process ({reason}): install the "
                "same versions of Python and Ray on both"
            )
        if self._address is None:
            return f"Ray cannot be started on this machine ({reason}): see that `ray.init()` works"
        return _unreachable(self._address, reason)


def _probe(address: str | None) -> None:
    """See that somebody listens, and may be Ray: Ray itself takes much longer to give up."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _noted_address()
    if not address or address in ("auto", "local"):
        return
    try:
        with socket.create_connection(split_address(address), _SECONDS_TO_PROBE) as line:
            sound = _uses_tls() or _is_answered(line)
    except OSError as error:
        raise PoolError(_unreachable(address, str(error))) from error
    if not sound:
        raise PoolError(_unreachable(address, "what listens there is not Ray"))


def _noted_address() -> str | None:
    """Where Ray looks when it is told nothing: the file may outlast the cluster.

    None where a cluster's head runs on this machine, which Ray finds by its process.
    """
    if any(process.info["name"] == _HEAD for process in psutil.process_iter(["name"])):
        return None
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return Path(base, "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return None


def _uses_tls() -> bool:
    """As Ray itself finds out: then a greeting in the clear gets no answer."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _is_answered(line: socket.socket) -> bool:
    """Whether HTTP/2 is spoken at the other end."""
    line.sendall(_GREETING)
    with line.makefile("rb") as answer:
        frame = answer.read(9)
    return len(frame) == 9 and frame[3] == _SETTINGS


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "ray://host:port" or "host:port".

    Raises:
        InputError: It is neither.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f'`address` is {address!r}: give "ray://host:port", "host:port", "auto", or None for '
            "a Ray of its own on this machine"
        )
    return host.strip("[]"), int(port)


def _unreachable(address: str, reason: str) -> str:
    return (
        f"Ray cannot be reached at {address!r} ({reason}): see that the cluster runs and that the "
        "address is right, or leave `address` out to start Ray on this machine"
    )


def _folder() -> str:
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=base if len(base) < _LONGEST_FOLDER - 13 else "/tmp")


def _launch(descriptor: int, *, own: bool) -> subprocess.Popen[bytes]:
    """Start the child in a session of its own, so that Ctrl-C ends it through us alone."""
    # A call that comes after the end must not start another Ray.
    environment = {**os.environ, "RAY_ENABLE_AUTO_CONNECT": "0"}
    if own:
        environment |= {**_OWN_ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    else:
        environment = _HASTY_ENVIRONMENT | environment
    environment.pop("PYTHONWARNINGS", None)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = _COMMAND.format(paths=sys.path, descriptor=descriptor)
    return subprocess.Popen(
        [sys.executable, "-c", command],
        env=environment,
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _options(
    address: str | None, workers: int, environment: dict[str, Any], folder: str | None
) -> dict[str, Any]:
    """What `ray.init` is called with."""
    if address is not None:
        return {"address": address, **_QUIET, "runtime_env": environment or None}
    return {
        "address": "local",
        **_QUIET,
        "num_cpus": workers,
        "num_gpus": 0,
        "include_dashboard": False,
        "dashboard_host": "127.0.0.1",
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
        "object_store_memory": _OBJECT_STORE,
    }
