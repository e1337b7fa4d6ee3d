"""Where jobs run: threads, processes, Dask, Ray, or any executor."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

from ...checks import described
from ...errors import InputError
from .base import Pool
from .clusters import DaskPool, RayPool
from .executors import ExecutorPool, ThreadPool
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
    match pool:
        case "threads":
            return ThreadPool(workers)
        case "processes":
            return ProcessPool(workers)
        case "dask":
            return DaskPool(workers, address=address)
        case "ray":
            return RayPool(workers, address=address)
    raise InputError(
        f'`pool` is {described(pool)}: give "threads", "processes", "dask", "ray", a pool, or an '
        "object of type `concurrent.futures.Executor`"
    )
