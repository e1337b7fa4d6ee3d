"""BLAS and OpenMP kept to one thread where tasks are what runs in parallel."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pin_process() -> None:
    """Keep this process to one thread for good: libraries that are loaded, and those to come."""
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    ThreadpoolController().limit(limits=1)


@contextmanager
def one_thread_environment() -> Iterator[None]:
    """Processes started meanwhile load their libraries with one thread each.

    Not safe to enter in two threads at once.
    """
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Limit:
    """One limit for all who want it: the first sets it, the last restores what was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._controller: Any = None
        self._set: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                # Looking for the loaded libraries takes milliseconds: once is enough.
                self._controller = self._controller or ThreadpoolController()
                _take_control(self._controller)
                self._set = self._controller.limit(limits=1)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _take_control(self._controller)
                self._set.restore_original_limits()
                _take_control(self._controller)


def _take_control(controller: Any) -> None:
    """Let this thread set limits.

    From version 3.8, threadpoolctl heeds only the first thread that ever set one; the last of our
    users to leave may be another.
    """
    for library in controller.lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


_limit = _Limit()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the BLAS and OpenMP of this process to one thread meanwhile.

    May be nested, and entered by several threads at once: the last to leave restores.
    """
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()
