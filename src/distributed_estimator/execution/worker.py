"""Where the workers are: a job's tasks are run in turn, on one thread each, with their outcomes."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import BackendError, InputError, ThrottledError, is_short
from ..forks import Lock, register
from .messages import Arrays, Item, Outcome, RaisedError, StrainedError, Work

_MOST_WORKS = 32
_MOST_BYTES = 256 << 20
"""Pickled works that are kept beside the one that came last."""

_MISSHAPEN = "a task gave {} as its result: expected a tuple of numeric arrays"

Wait: TypeAlias = Callable[[float], bool]
"""Sleeps so many seconds; returns True, and at once, where the job is cancelled meanwhile."""

Report: TypeAlias = tuple[Outcome, ...] | Exception
"""Outcomes of a job's tasks, or the error that kept a worker from running any."""


def run_job(
    load: Callable[[], tuple[Work, Sequence[Item]]],
    *,
    wait: Wait,
    delay: float = 0.0,
    remote: bool = True,
) -> Report:
    """Run tasks in turn, on one thread each; one that raises does not keep others from running.

    Args:
        load: Gives the work and the tasks.
        wait: Sleeps; where it says that the job was cancelled, tasks not begun are left out.
        delay: Seconds that this worker sleeps before every task.
        remote: Whether outcomes leave this process: then results get checksums, and errors are
            plain text.
    """
    begin = time.perf_counter()
    try:
        work, items = load()
    except Exception as error:
        kind = StrainedError if _is_strained(error) else BackendError
        return kind(
            f"a worker cannot unpickle what it is to run ({cause_of(error)}): make what it needs "
            "importable there"
        )
    outcomes: list[Outcome] = []
    with one_thread():  # not before: a work may load libraries when it is unpickled
        for item in items:
            injected = item.delay + delay
            started = time.perf_counter()
            if wait(injected):
                break
            arrays: Arrays | None = None
            failure: Exception | None = None
            try:
                arrays = _plain(work.run(item.task))
            except Exception as error:
                failure = _portable(error) if remote else error
            except BaseException as error:
                # A panic in compiled code, `sys.exit()`, or a stray interrupt.
                failure = RaisedError(cause_of(error))
            seconds = time.perf_counter() - started
            mark = checksum(arrays) if remote and arrays is not None else None
            outcomes.append(
                Outcome(item.number, started - begin, seconds, injected, arrays, mark, failure)
            )
            if isinstance(failure, InputError | StrainedError):
                break  # the run is over; or the other tasks do better elsewhere
    return tuple(outcomes)


def unpack(key: str, fetch: Callable[[], bytes], items: bytes) -> tuple[Work, tuple[Item, ...]]:
    """A work and its tasks, from what came here pickled.

    Args:
        key: The work's.
        fetch: Gives the work pickled, where it is not here yet.
        items: The tasks, pickled.
    """
    return works.get(key, fetch), pickle.loads(items)


def waits_for(cancelled: threading.Event) -> Wait:
    """A `Wait` for a job that this event cancels."""
    return lambda seconds: cancelled.wait(seconds) if seconds > 0 else cancelled.is_set()


def _plain(result: object) -> Arrays:
    """A result as bare numbers: unpickling anything else that it carries could do anything.

    Raises:
        BackendError: It is no tuple of numeric arrays.
    """
    if not isinstance(result, tuple):
        raise BackendError(_MISSHAPEN.format(f"a {type(result).__name__}"))
    arrays = []
    for array in result:
        if not isinstance(array, np.ndarray):
            raise BackendError(_MISSHAPEN.format(f"a tuple with a {type(array).__name__}"))
        bare = np.ndarray.view(array, np.ndarray)
        if bare.dtype.kind not in "biufc":
            raise BackendError(_MISSHAPEN.format(f"an array of {bare.dtype}"))
        # The names that a dtype may carry are the caller's objects too.
        arrays.append(bare if bare.dtype.metadata is None else bare.astype(bare.dtype.str))
    return tuple(arrays)


def _portable(error: Exception) -> Exception:
    """The error to send to other processes in place of this one, in plain text."""
    cause = cause_of(error)
    try:
        if _is_strained(error):
            return StrainedError(cause)
        message = cause.partition(": ")[2]
        if isinstance(error, ThrottledError):
            return ThrottledError(message, float(error.retry_after))
        if isinstance(error, InputError):
            ours = [c for c in type(error).__mro__ if c.__module__ == InputError.__module__]
            found: InputError = ours[0](message)
            return found
    except BaseException:  # an error of the caller's may fail to say anything
        return RaisedError(cause)
    return RaisedError(cause)


def cause_of(error: BaseException) -> str:
    """Class and message of an error, for people."""
    try:
        return str(error) if isinstance(error, RaisedError) else f"{type(error).__name__}: {error}"
    except BaseException:
        return "an error whose message cannot be read"


def _is_strained(error: BaseException) -> bool:
    """Whether a task failed because this process lacks something, not for a reason of its own."""
    if is_short(error):
        return True
    try:
        # Libraries may hide the reason, or put it into words of their own.
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False


def checksum(arrays: Arrays) -> int:
    """CRC-32 of the bytes of arrays, one after the other."""
    total = 0
    for array in arrays:
        # A copy of a large result might be more than there is memory for.
        total = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, total)
    return total


class Works:
    """Works that this process was sent, found by key; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._works: OrderedDict[str, tuple[Work, int]] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._works

    def get(self, key: str, load: Callable[[], bytes]) -> Work:
        """The work of that key; `load` gives it pickled where it is not here yet."""
        with self._lock:
            if key in self._works:
                self._works.move_to_end(key)
                return self._works[key][0]
        packed = load()
        work: Work = pickle.loads(packed)
        with self._lock:
            self._works[key] = work, len(packed)
            while len(self._works) > _MOST_WORKS or self._bytes() - len(packed) > _MOST_BYTES:
                self._works.popitem(last=False)
        return work

    def _bytes(self) -> int:
        return sum(size for _, size in self._works.values())


works = Works()
"""Those of this process."""


# --- BLAS and OpenMP kept to one thread, as tasks are what runs in parallel -----------------------

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


def pin_process() -> None:
    """Keep this process to one thread for good: libraries that are loaded, and those to come.

    For processes that are a worker's alone. OpenMP has a limit for each thread: that of the calling
    one is set, and of those that start with the environment. Elsewhere, use `one_thread`.
    """
    os.environ.update(ONE_THREAD)
    for library in ThreadpoolController().lib_controllers:
        _limit(library, 1)


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
