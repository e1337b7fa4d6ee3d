"""A run of the estimator as Qiskit's job."""

from __future__ import annotations

import os
from concurrent.futures import CancelledError, Future
from threading import Event
from uuid import uuid4

from qiskit.primitives import BasePrimitiveJob, PrimitiveResult, PubResult
from qiskit.providers import JobStatus

from .errors import PoolError, RunCancelledError
from .execution import Stop
from .forks import register


class EstimatorJob(BasePrimitiveJob[PrimitiveResult[PubResult], JobStatus]):
    """A run of the estimator, which can be waited for.

    Args:
        future: The run.
        stop: Ends it early.
    """

    def __init__(self, future: Future[PrimitiveResult[PubResult]], stop: Stop) -> None:
        super().__init__(str(uuid4()))
        self._future = future
        self._stop = stop
        over = self._over = Event()
        future.add_done_callback(lambda _: over.set())
        register(self)

    def _renew_in_fork(self) -> None:
        """A run that is not over goes on in the parent alone."""
        if not self._over.is_set():
            self._future = Future()
            self._future.set_exception(
                PoolError(
                    f"the run goes on in process {os.getppid()}, and this is a fork of it: ask "
                    "for its result there, or run again here"
                )
            )

    def result(self) -> PrimitiveResult[PubResult]:
        """Wait for the result; raises what the run raised. Ctrl-C meanwhile cancels the run."""
        try:
            return self._future.result()
        except KeyboardInterrupt:
            self.cancel()
            raise
        except CancelledError as error:
            raise RunCancelledError(self._stop.reason) from error

    def status(self) -> JobStatus:
        """How far the run is."""
        if self._future.cancelled():
            return JobStatus.CANCELLED
        if not self._future.done():
            return JobStatus.RUNNING if self._future.running() else JobStatus.QUEUED
        error = self._future.exception()
        if isinstance(error, RunCancelledError):
            return JobStatus.CANCELLED
        return JobStatus.DONE if error is None else JobStatus.ERROR

    def done(self) -> bool:
        """Whether there is a result."""
        return bool(self.status() == JobStatus.DONE)

    def running(self) -> bool:
        """Whether it runs now."""
        return bool(self.status() == JobStatus.RUNNING)

    def cancelled(self) -> bool:
        """Whether it was cancelled before it was complete."""
        return bool(self.status() == JobStatus.CANCELLED)

    def in_final_state(self) -> bool:
        """Whether nothing more will happen to it."""
        return self._future.done()

    def cancel(self) -> bool:
        """Cancel it, also while it runs; whether it was not over yet."""
        if self._future.done():
            return False
        self._stop.ask()
        self._future.cancel()
        return True
