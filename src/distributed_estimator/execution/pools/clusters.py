"""Dask and Ray, of their own on this machine or on a cluster that is there already."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from ...errors import InputError, MissingExtraError, PoolError
from ..worker import ONE_THREAD
from . import driven
from .base import PACKAGES, Pool, check_memory_limit
from .dask_driver import unreachable as dask_unreachable
from .driven import Child, Driven
from .ray_driver import unreachable as ray_unreachable


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra, f'pool="{extra}"')


class DaskPool(Pool):
    """Workers of a Dask cluster.

    Without an address, worker processes of one thread each are started on this machine; nothing of
    them can be reached from elsewhere. A worker that dies is replaced, and its job reported lost at
    once. With an address, jobs go to the cluster there, whose workers must have the same versions
    installed; Dask itself tries a job again whose worker died, as often as the cluster's
    `distributed.scheduler.allowed-failures` says, before it is reported lost.

    A job that is cancelled while it runs ends with the task that runs, and keeps its place until
    then; an injected sleep ends at once.

    Args:
        workers: Jobs that run at a time. A cluster with fewer workers lets some wait.
        address: Of a scheduler, such as "tcp://10.0.0.1:8786"; None: start a cluster here.
        security: A `distributed.Security`, for an address that begins with "tls://".
        memory_limit: Bytes that a worker started here may take, checked ten times a second, before
            it is ended and its job lost; None: as much as there is.

    Raises:
        InputError: Arguments out of range, or that do not go together.
        MissingExtraError: Dask is not installed.
    """

    name = "dask"
    job_seconds = 0.2  # Dask takes 0.02 s from one job of a worker to the next

    def __init__(
        self,
        workers: int,
        *,
        address: str | None = None,
        security: Any = None,
        memory_limit: int | None = None,
    ) -> None:
        _require("distributed", "dask")
        if address is not None and not isinstance(address, str):
            raise InputError(
                f"`address` is {address!r}: give a string such as 'tcp://10.0.0.1:8786'"
            )
        if address is None and security is not None:
            raise InputError("`security` is given without `address`: give the scheduler's address")
        check_memory_limit(memory_limit)
        if address is not None and memory_limit is not None:
            raise InputError(
                "`memory_limit` is given with `address`: set it where workers are started"
            )
        super().__init__(DaskEngine(workers, address, security, memory_limit))


class DaskEngine(Driven):
    """Places are workers of our own, by name. In another's cluster Dask chooses the worker."""

    engine = "Dask"
    patience = 30
    """Looks, one a second, at a worker of our own that was given a job and does not run it."""
    limits = 5.0, 10.0
    """Seconds to connect to an address, and for its workers to come and to answer."""

    def __init__(
        self, workers: int, address: str | None, security: Any, memory_limit: int | None
    ) -> None:
        super().__init__(workers, address)
        self._security = security
        self._memory_limit = memory_limit
        self.begins = address is None

    def _launch(self) -> Child:
        settings: dict[str, Any] = {}
        environment = {"DASK_LOGGING__DISTRIBUTED": "critical", **os.environ}
        folder = None
        if self.address is None:
            environment |= ONE_THREAD
            folder = tempfile.mkdtemp(prefix="distributed-estimator-dask-")
        elif (dask := sys.modules.get("dask.config")) is not None:
            settings = dask.config  # for its time-outs, say
        arguments = {
            "address": self.address,
            "packages": PACKAGES,
            "security": pickle.dumps((self._security, settings)),
            "workers": self.workers,
            "memory_limit": self._memory_limit or 0,
            "patience": self.patience,
            "silence": driven.SILENCE,
            "limits": self.limits,
        }
        return Child("dask_driver", arguments, environment, folder, quiet=False)

    def _explain(self, reason: str) -> str:
        return dask_unreachable(self.address, reason)

    def _too_few(self, up: int) -> str:
        return self._explain(f"{up} of {self.workers} workers came up in time")


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
        _require("ray", "ray")
        super().__init__(_Ray(workers, address))


_OBJECT_STORE = 256 * 2**20
_LONGEST_FOLDER = 40
"""Ray puts Unix sockets some 65 characters below its folder; their names may have 107."""

_QUIET = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}

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


class _Ray(Driven):
    engine = "Ray"

    def _launch(self) -> Child:
        address, runtime = _connection(self.address)
        _probe(address)
        # A call that comes after the end must not start another Ray.
        environment = {**os.environ, "RAY_ENABLE_AUTO_CONNECT": "0"}
        environment.pop("PYTHONWARNINGS", None)
        options: dict[str, Any]
        if address is not None:
            environment = _HASTY_ENVIRONMENT | environment
            folder, options = None, {"address": address, "runtime_env": runtime or None}
        else:
            environment |= {**_OWN_ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            base = tempfile.gettempdir()
            base = base if len(base) < _LONGEST_FOLDER - 13 else "/tmp"
            folder = tempfile.mkdtemp(prefix="ray-", dir=base)
            options = {
                "address": "local",
                "num_cpus": self.workers,
                "num_gpus": 0,
                "include_dashboard": False,
                "dashboard_host": "127.0.0.1",
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": folder,
                "object_store_memory": _OBJECT_STORE,
            }
        arguments = {"options": options | _QUIET, "silence": driven.SILENCE}
        return Child("ray_driver", arguments, environment, folder, quiet=True)

    def _explain(self, reason: str) -> str:
        return ray_unreachable(self.address, reason)

    def _too_few(self, up: int) -> str:
        return (
            f"Ray started {up} of {self.workers} actors in {driven.SECONDS_TO_START:g} s: it needs "
            "a free CPU for each, so give fewer `workers` or a larger cluster"
        )


def _connection(address: str | None) -> tuple[str | None, dict[str, Any]]:
    """Where to connect, and with which runtime environment: that of this process's own Ray."""
    ray: Any = sys.modules.get("ray")
    if address is not None or ray is None or not ray.is_initialized():
        return address, {}
    if ray.util.client.ray.is_connected():
        raise PoolError(
            "this process is connected to Ray as a client: give the pool the same "
            '"ray://host:port" as its `address`'
        )
    context = ray.get_runtime_context()
    return context.gcs_address, dict(context.runtime_env)


# --- whether anybody listens at an address, who may be Ray ----------------------------------------

_SECONDS_TO_PROBE = 4.0
"""For each of two steps: to get a connection, and an answer."""

_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How HTTP/2, which Ray speaks, is begun: its preface, and a frame of no settings (RFC 9113)."""

_SETTINGS = 4
"""Type of the frame that must come first; the fourth of the nine bytes that begin each."""

_HEAD = "gcs_server"


def _probe(address: str | None) -> None:
    """See that somebody listens, and may be Ray: Ray itself takes much longer to give up."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _noted_address()
    if not address or address in ("auto", "local"):
        return
    # As Ray itself finds out: with TLS, a greeting in the clear gets no answer.
    tls = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
    try:
        with socket.create_connection(split_address(address), _SECONDS_TO_PROBE) as line:
            sound = tls or _is_answered(line)
    except OSError as error:
        raise PoolError(ray_unreachable(address, str(error))) from error
    if not sound:
        raise PoolError(ray_unreachable(address, "what listens there is not Ray"))


def _noted_address() -> str | None:
    """Where Ray looks when no address is given: the file may outlast the cluster.

    None where a cluster's head runs on this machine, which Ray finds by its process.
    """
    if any(process.info["name"] == _HEAD for process in psutil.process_iter(["name"])):
        return None
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return Path(base, "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return None


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
