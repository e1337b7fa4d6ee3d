"""Orders inside a pool: each is told once that it began, and once that it is over."""

from __future__ import annotations

import threading
from typing import Any, Literal

import cloudpickle

from ...errors import InputError
from ..messages import Ended, Lost, Order, Outcome, Started, StrainedError, Tell
from ..worker import Wait


class Job:
    """An order, and what its pool told about it.

    Attributes:
        order: The order.
        cancelled: Set when nobody waits for it any more.
    """

    def __init__(self, order: Order, tell: Tell) -> None:
        self.order = order
        self.cancelled = threading.Event()
        self._tell = tell
        self._over = False
        # A worker that begins may meet another thread that gives it up: telling is one at a time.
        self._telling = threading.RLock()

    def start(self, worker: str) -> None:
        """Tell that a worker begins, unless it is over already."""
        with self._telling:
            if not self._over:
                self._tell(Started(self.order, worker))

    def end(self, worker: str, report: tuple[Outcome, ...] | Exception) -> None:
        """Tell what a worker reported: outcomes, or the error that kept it from running any."""
        if isinstance(report, Exception):
            report = tuple(
                Outcome(item.number, 0.0, 0.0, 0.0, None, None, report) for item in self.order.items
            )
        self._finish(Ended(self.order, worker, report))

    def lose(self, kind: Literal["lost", "cancelled", "refused"], cause: str) -> None:
        """Tell that there will be no report."""
        self._finish(Lost(self.order, kind, cause))

    def _finish(self, message: Ended | Lost) -> None:
        with self._telling:
            if not self._over:
                self._over = True
                self._tell(message)


def woken_by(cancelled: threading.Event) -> Wait:
    """A `Wait` for a job that this event cancels."""
    return lambda seconds: cancelled.wait(seconds) if seconds > 0 else cancelled.is_set()


def no_thread(error: Exception) -> str:
    """Why a pool that cannot start a thread runs nothing."""
    return f"no thread can be started ({error}): use fewer workers, or raise the limit of processes"


def checked_report(report: Any, order: Order) -> tuple[Outcome, ...] | Exception | None:
    """A report on an order, as it came from another process; None where it is none."""
    if isinstance(report, Exception):
        return report
    numbers = {item.number for item in order.items}
    sound = isinstance(report, tuple) and all(
        isinstance(outcome, Outcome) and outcome.number in numbers for outcome in report
    )
    return report if sound else None


def is_strained(report: tuple[Outcome, ...] | Exception) -> bool:
    """Whether a report comes from a worker that is to be replaced."""
    errors = [report] if isinstance(report, Exception) else [outcome.error for outcome in report]
    return any(isinstance(error, StrainedError) for error in errors)


def pack_items(order: Order) -> bytes:
    """An order's items, pickled; by value where their classes are the caller's own script's.

    Raises:
        InputError: They cannot be sent to another process.
    """
    try:
        return bytes(cloudpickle.dumps(order.items))
    except Exception as error:
        raise InputError(
            f"a task cannot be sent to another process ({type(error).__name__}: {error}): use "
            'pool="threads", or tasks that pickle'
        ) from error
