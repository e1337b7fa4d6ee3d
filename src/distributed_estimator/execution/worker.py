"""The part that runs where the workers are: tasks in turn, each with its outcome."""

from __future__ import annotations

import errno
import os
import pickle
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import BackendError, InputError, ThrottledError
from ..forks import Lock
from .messages import Arrays, Item, Outcome, RaisedError, SlowWorker, StrainedError, Work
from .pinning import one_thread

_MOST_WORKS = 32
_MOST_BYTES = 256 << 20
"""Of works, pickled, beside the one that came last."""

_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN}
_DEEPEST = 16
_MISSHAPEN = "a task gave {} as its result: expected a tuple of numeric arrays"

Wait = Callable[[float], bool]
"""Sleeps so many seconds, or less where the job is cancelled meanwhile: then it says True."""


@one_thread()
def run_items(
    work: Work,
    items: Sequence[Item],
    *,
    wait: Wait,
    worker: int = 0,
    slow: SlowWorker | None = None,
    remote: bool = True,
) -> tuple[Outcome, ...]:
    """Run tasks in turn, on one thread each; one that raises does not keep others from running.

    Args:
        work: What the tasks are of.
        items: The tasks.
        wait: Sleeps, and tells whether the job was cancelled: tasks not begun then are left out.
        worker: Number of this worker.
        slow: The worker that takes longer, if any.
        remote: Whether outcomes leave this process: then results get checksums, and errors are
            plain text.
    """
    begin = time.perf_counter()
    extra = slow.delay if slow is not None and slow.worker == worker else 0.0
    outcomes: list[Outcome] = []
    for item in items:
        delay = item.delay + extra
        started = time.perf_counter()
        if wait(delay):
            break
        arrays, error = _run(work, item, remote=remote)
        outcomes.append(
            Outcome(
                item.number,
                started - begin,
                time.perf_counter() - started,
                delay,
                arrays,
                checksum(arrays) if remote and arrays is not None else None,
                error,
            )
        )
        if isinstance(error, InputError | StrainedError):
            break  # no attempt can mend it, so that the run is over; or others do better elsewhere
    return tuple(outcomes)


def run_packed(
    key: str,
    load: Callable[[], bytes],
    items: bytes,
    *,
    wait: Wait,
    worker: int = 0,
    slow: SlowWorker | None = None,
) -> tuple[Outcome, ...] | Exception:
    """`run_items` on what came here pickled; an error where it cannot be unpickled.

    Args:
        key: Of the work.
        load: Gives the work pickled, where it is not here yet.
        items: The tasks, pickled.
        wait: See `run_items`.
        worker: See `run_items`.
        slow: See `run_items`.
    """
    try:
        work = works.get(key, load)
        unpacked: tuple[Item, ...] = pickle.loads(items)
    except Exception as error:
        kind = StrainedError if _is_strained(error) else BackendError
        return kind(
            f"a worker cannot unpickle what it is to run ({cause_of(error)}): make what it needs "
            "importable there"
        )
    return run_items(work, unpacked, wait=wait, worker=worker, slow=slow)


def _run(work: Work, item: Item, *, remote: bool) -> tuple[Arrays | None, Exception | None]:
    try:
        return _plain(work.run(item.task)), None
    except Exception as error:
        return None, _portable(error) if remote else error
    except BaseException as error:  # a panic in compiled code, sys.exit(), a stray interrupt
        return None, RaisedError(cause_of(error))


def _plain(result: object) -> Arrays:
    """A result as nothing but numbers: unpickling whatever else it carries could do anything.

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
    """What stands for an error in other processes, in plain text."""
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
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        if isinstance(cause, MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno in _SHORTAGES:
            return True
        cause = cause and (cause.__cause__ or cause.__context__)
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


def sleep(seconds: float) -> bool:
    """A `Wait` for jobs that cannot be cancelled."""
    if seconds > 0:
        time.sleep(seconds)
    return False


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
