"""Where orders are worked on: threads, processes, Dask, Ray, or any executor."""

from .base import Pool
from .make import POOLS, make_pool
from .threads import ThreadPool

__all__ = ["POOLS", "Pool", "ThreadPool", "make_pool"]
