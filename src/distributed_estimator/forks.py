"""What starts afresh in a fork of this process.

A fork has every object of its parent, but of its threads only the one that forked. So locks that
others held stay held, executors wait for threads that are gone, and files are open in both. What
would be wrong or wait for ever in a fork is registered here, and renewed before the fork goes on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol
from weakref import WeakSet

_LOOK_UP = 0.5
"""Seconds after which whoever waits for a lock looks whether it is still to."""


class Renewable(Protocol):
    """What holds locks, threads, files or random numbers that a fork must not share."""

    def _renew_in_fork(self) -> None:
        """Let go of what belongs to the parent. Called in a fork, before anything else runs."""


_renewables: WeakSet[Renewable] = WeakSet()


def register(renewable: Renewable) -> None:
    """Have an object renewed in every fork, as long as it lives."""
    _renewables.add(renewable)


class Lock:
    """A lock that is free in a fork, whoever held it in the parent."""

    def __init__(self) -> None:
        self._renew_in_fork()
        register(self)

    def _renew_in_fork(self) -> None:
        """Not released but replaced: one that a thread was about to get may be neither's."""
        self._lock = threading.Lock()

    @contextmanager
    def patiently(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold it; until it is free, `check` is called now and then, and may raise."""
        while not self._lock.acquire(timeout=_LOOK_UP):
            check()
        try:
            yield
        finally:
            self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _renew() -> None:
    if sys.version_info < (3, 12):  # there, a property holds a lock while it is computed
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{__package__}."):
                _free_properties(name, vars(module))
    for renewable in list(_renewables):
        renewable._renew_in_fork()


def _free_properties(module: str, names: Mapping[str, object]) -> None:
    for kind in names.values():
        if isinstance(kind, type) and kind.__module__ == module:
            for value in vars(kind).values():
                if isinstance(value, cached_property):
                    vars(value)["lock"] = threading.RLock()


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_renew)
