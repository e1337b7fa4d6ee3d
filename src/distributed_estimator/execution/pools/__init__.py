"""Where jobs run: threads, processes, Dask, Ray, or any executor."""

from __future__ import annotations

from concurrent.futures import Executor
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...checks import described
from ...errors import InputError
from .base import Pool
from .executors import ExecutorPool, ThreadPool

if TYPE_CHECKING:
    from .clusters import DaskPool, RayPool
    from .processes import ProcessPool

__all__ = [
    "POOLS",
    "DaskPool",
    "ExecutorPool",
    "Pool",
    "ProcessPool",
    "RayPool",
    "ThreadPool",
    "make_pool",
]

POOLS = ("threads", "processes", "dask", "ray")
CLUSTERS = ("dask", "ray")
_LATER = {"ProcessPool": "processes", "DaskPool": "clusters", "RayPool": "clusters"}
"""Pools that are imported when they are first asked for, as most programs have one."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def make_pool(pool: str | Pool | Executor, workers: Any, address: str | None = None) -> Pool:
    """A pool from its name, from an executor, or as it is.

    Args:
        pool: One of `POOLS`, an executor of `concurrent.futures`, or a pool.
        workers: Tasks that run at a time; a pool that is given has its own.
        address: Of a Dask scheduler or a Ray cluster; None: one of our own, on this machine.

    Raises:
        InputError: The name is unknown, `workers` is less than one, or there is nothing to
            address.
        MissingExtraError: The engine is not installed.
    """
    if address is not None and pool not in CLUSTERS:
        raise InputError(f'`address` is {address!r}, but only pool="dask" and "ray" have one')
    if isinstance(pool, Pool):
        return pool
    if isinstance(pool, Executor):
        return ExecutorPool(pool, workers)
    if pool == "threads":
        return ThreadPool(workers)
    if pool == "processes":
        from .processes import ProcessPool

        return ProcessPool(workers)
    if pool in CLUSTERS:
        from .clusters import DaskPool, RayPool

        return (DaskPool if pool == "dask" else RayPool)(workers, address=address)
    raise InputError(
        f'`pool` is {described(pool)}: give "threads", "processes", "dask", "ray", a pool, or an '
        "object of type `concurrent.futures.Executor`"
    )
