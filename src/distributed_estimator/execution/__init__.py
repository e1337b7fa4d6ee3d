"""Tasks on workers."""

from .driver import run_tasks
from .pools import Pool, make_pool

__all__ = ["Pool", "make_pool", "run_tasks"]
