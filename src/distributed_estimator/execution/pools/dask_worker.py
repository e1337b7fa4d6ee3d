"""What runs on Dask's workers and nannies."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from typing import Any, NamedTuple

from ..messages import SlowWorker
from ..worker import run_packed, works
from .jobs import woken_by

TOPIC = "distributed-estimator"
"""Dask's event topic on which workers say that they begin with an order."""


class Begun(NamedTuple):
    """What a worker says as it begins with an order.

    Attributes:
        order: The order's name.
        address: Of the worker.
        name: Its name.
        nanny: Whether it has one.
    """

    order: str
    address: str
    name: str
    nanny: bool


class Reply(NamedTuple):
    """What a worker returns for an order.

    Attributes:
        address: Of the worker.
        name: Its name.
        report: What `run_packed` gave, pickled; None where the worker does not have the work yet.
    """

    address: str
    name: str
    report: bytes | None


_MOST_ARRIVED = 8

_arrived: dict[str, bytes] = {}
_stops: dict[str, threading.Event] = {}


class _GoneError(BaseException):
    """Another thread of this worker forgot a work just now. Not a failure of the task."""


def keep_work(key: str, packed: bytes) -> None:
    """Take a work in, for orders to come. It is unpickled by the first, not on the event loop."""
    if key not in works:
        _arrived[key] = packed
    while len(_arrived) > _MOST_ARRIVED:
        del _arrived[next(iter(_arrived))]


def stop_order(name: str) -> None:
    """Nobody waits for an order: end its injected sleep and leave out what it has not begun."""
    if name in _stops:
        _stops[name].set()


def end_process(dask_worker: Any) -> None:
    """Kill the worker of a nanny, stopped ones too; the nanny starts another."""
    if dask_worker.pid is not None:
        os.kill(dask_worker.pid, signal.SIGKILL)


def run_order(name: str, key: str, items: bytes, slow: tuple[str, float] | None) -> Reply:
    """Run the tasks of an order.

    Args:
        name: Of the order, among all that this worker may ever be sent.
        key: Of its work.
        items: Its tasks, pickled.
        slow: Name of the worker that takes longer, and by how many seconds a task.
    """
    import distributed

    worker: Any = distributed.get_worker()
    address, own_name = str(worker.address), str(worker.name)
    if key not in works and key not in _arrived:
        return Reply(address, own_name, None)
    stop = _stops[name] = threading.Event()
    try:
        begun = Begun(name, address, own_name, worker.nanny is not None)
        worker.log_event(TOPIC, begun._asdict())
        report = run_packed(
            key,
            lambda: _take(key),
            items,
            wait=woken_by(stop),
            slow=SlowWorker(0, slow[1]) if slow is not None and slow[0] == own_name else None,
        )
    except _GoneError:
        return Reply(address, own_name, None)
    finally:
        _stops.pop(name, None)
    return Reply(address, own_name, pickle.dumps(report))


def _take(key: str) -> bytes:
    try:
        return _arrived.pop(key)
    except KeyError:
        raise _GoneError from None
