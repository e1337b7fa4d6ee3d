"""BLAS and OpenMP kept to one thread where tasks are what runs in parallel."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from threadpoolctl import ThreadpoolController

from ..forks import Lock, register

ONE_THREAD: Mapping[str, str] = MappingProxyType(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
    }
)
"""Environment of a process whose libraries are to have one thread each, from when they are loaded.
"""

_BEFORE = "DISTRIBUTED_ESTIMATOR_ENVIRONMENT_BEFORE"


def pin_process() -> None:
    """Keep this process to one thread for good: libraries that are loaded, and those to come.

    For processes that are a worker's alone. OpenMP has a limit for each thread: that of the calling
    one is set, and of those that start with the environment. Elsewhere, use `one_thread`.
    """
    os.environ.pop(_BEFORE, None)
    os.environ.update(ONE_THREAD)
    for library in ThreadpoolController().lib_controllers:
        _limit(library, 1)


@contextmanager
def one_thread_environment() -> Iterator[None]:
    """Processes started meanwhile load their libraries with one thread each.

    Not safe to enter in two threads at once.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD, **{_BEFORE: json.dumps(before)})
    try:
        yield
    finally:
        restore_environment()


def restore_environment() -> None:
    """Undo `one_thread_environment`, here or in a process that was started meanwhile."""
    before: dict[str, str | None] = json.loads(os.environ.pop(_BEFORE, "{}"))
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class _Libraries:
    """Those of this process that have threads.

    Some have one limit for all who call them: the first who wants it sets it, the last restores
    what was before. OpenMP has one for each thread that calls it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._modules = 0
        self._shared: list[Any] = []
        self._openmp: list[Any] = []
        self._users = 0
        self._before: list[tuple[Any, int]] = []
        register(self)

    def _renew_in_fork(self) -> None:
        """Its users are gone; the next one to leave restores what was before them."""
        self._users = 0

    def enter(self) -> list[tuple[Any, int]]:
        """Set limits; gives what was before for this thread."""
        with self._lock:
            new = self._find()
            # First, as BLAS may ask OpenMP for its limit.
            before = _limit_all(self._openmp)
            if new or self._users == 0:
                known = {library.filepath for library, _ in self._before}
                self._before += _limit_all(
                    [library for library in self._shared if library.filepath not in known]
                )
            self._users += 1
        return before

    def leave(self, before: list[tuple[Any, int]]) -> None:
        """Restore what was before `enter`, which gave `before`."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _restore(self._before)
                self._before = []
        _restore(before)

    def _find(self) -> bool:
        """Whether there may be new ones.

        Looking for them takes a millisecond, so it is done again only where something was imported.
        """
        modules = len(sys.modules)
        if modules == self._modules:
            return False
        self._modules = modules
        found = ThreadpoolController().lib_controllers
        self._shared = [library for library in found if library.user_api != "openmp"]
        self._openmp = [library for library in found if library.user_api == "openmp"]
        return True


def _limit_all(libraries: list[Any]) -> list[tuple[Any, int]]:
    before = [(library, library.num_threads) for library in libraries]
    for library in libraries:
        _limit(library, 1)
    return before


def _restore(before: list[tuple[Any, int]]) -> None:
    for library, threads in before:
        _limit(library, threads)


def _limit(library: Any, threads: int) -> None:
    # From version 3.8, threadpoolctl heeds only the first thread that ever set a limit, and the
    # last of our users to leave may be another.
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)
    library.set_num_threads(threads)
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)


_libraries = _Libraries()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS to one thread meanwhile in this process, and OpenMP in the calling thread.

    May be nested, and entered by several threads at once: the last to leave restores BLAS. Each
    thread that calls OpenMP must enter it by itself.
    """
    before = _libraries.enter()
    try:
        yield
    finally:
        _libraries.leave(before)
