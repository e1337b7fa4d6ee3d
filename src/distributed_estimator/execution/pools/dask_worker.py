"""What runs on Dask's workers and nannies."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from functools import partial
from typing import Any, NamedTuple

from ..messages import SlowWorker
from ..worker import run_job, unpack, waits_for

TOPIC = "distributed-estimator"
"""Dask's event topic on which workers report that they begin with a job."""

_running: dict[str, threading.Event] = {}
_cancelled: deque[str] = deque(maxlen=64)
"""Jobs that may still be on their way here."""


class _AbsentError(BaseException):
    """The work is not here. Not a failure of the job."""


class Begun(NamedTuple):
    """A worker begins with a job.

    Attributes:
        job: The job's name.
        address: The worker's.
        worker: Its name.
        nanny: Whether it has one.
    """

    job: str
    address: str
    worker: str
    nanny: bool


class Reply(NamedTuple):
    """The result of a Dask task.

    Attributes:
        address: The worker's.
        worker: Its name.
        report: A `worker.Report`, pickled; None where the work is to be sent along.
    """

    address: str
    worker: str
    report: bytes | None


def run_there(
    name: str, key: str, packed: bytes | None, items: bytes, slow: tuple[str, float] | None
) -> Reply:
    """Run the tasks of a job.

    Args:
        name: The job's, unique among all that this worker may ever be sent.
        key: Its work's.
        packed: Its work, pickled; None: it may be here already.
        items: Its tasks, pickled.
        slow: Name of the worker that takes longer, and by how many seconds a task.
    """
    import distributed

    worker: Any = distributed.get_worker()
    address, own_name = str(worker.address), str(worker.name)

    def fetch() -> bytes:
        if packed is None:
            raise _AbsentError
        return packed

    cancelled = _running[name] = threading.Event()
    if name in _cancelled:
        cancelled.set()
    try:
        begun = Begun(name, address, own_name, worker.nanny is not None)
        worker.log_event(TOPIC, begun._asdict())
        report = run_job(
            partial(unpack, key, fetch, items),
            wait=waits_for(cancelled),
            slow=SlowWorker(0, slow[1]) if slow is not None and slow[0] == own_name else None,
        )
    except _AbsentError:
        return Reply(address, own_name, None)
    finally:
        del _running[name]
    return Reply(address, own_name, pickle.dumps(report))


def cancel_there(name: str) -> None:
    """End a job's injected sleep, and leave out its tasks that have not begun."""
    _cancelled.append(name)
    if name in _running:
        _running[name].set()


def kill_there(dask_worker: Any) -> None:
    """Kill the worker of a nanny, also if it was stopped; the nanny starts another."""
    if dask_worker.pid is not None:
        os.kill(dask_worker.pid, signal.SIGKILL)
