"""Advisory locks between processes, on systems and file systems that have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Where a system has no file locks, threads are safe, and processes on their own.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None


@contextmanager
def locked(descriptor: int) -> Iterator[int]:
    """Hold a file's lock meanwhile; waits for whoever has it."""
    if fcntl is None:
        yield descriptor
        return
    with suppress(OSError):  # some network file systems have no locks: then do without
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def take_lock(descriptor: int) -> bool:
    """Take a file's lock until it is closed; False if another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks: then do without
        pass
    return True
