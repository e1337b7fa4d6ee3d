"""Where orders are worked on: threads, processes, Dask, Ray, or any executor."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Pool
from .make import POOLS, make_pool
from .threads import ThreadPool

if TYPE_CHECKING:
    from .dask import DaskPool
    from .executors import ExecutorPool
    from .processes import ProcessPool
    from .ray import RayPool

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

_MODULES = {
    "DaskPool": "dask",
    "ExecutorPool": "executors",
    "ProcessPool": "processes",
    "RayPool": "ray",
}


def __getattr__(name: str) -> Any:
    """Imports a pool when it is first asked for: most programs have one, and threads are here."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
