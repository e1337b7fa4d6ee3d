"""A run of the estimator as Qiskit's job."""

from __future__ import annotations

from concurrent.futures import Future
from uuid import uuid4

from qiskit.primitives import BasePrimitiveJob, PrimitiveResult, PubResult
from qiskit.providers import JobStatus


class EstimatorJob(BasePrimitiveJob[PrimitiveResult[PubResult], JobStatus]):
    """A run of the estimator, which can be waited for.

    Args:
        future: The run.
    """

    def __init__(self, future: Future[PrimitiveResult[PubResult]]) -> None:
        super().__init__(str(uuid4()))
        self._future = future

    def result(self) -> PrimitiveResult[PubResult]:
        """Wait for the result; raises what the run raised."""
        return self._future.result()

    def status(self) -> JobStatus:
        """How far the run is."""
        if self._future.cancelled():
            return JobStatus.CANCELLED
        if not self._future.done():
            return JobStatus.RUNNING if self._future.running() else JobStatus.QUEUED
        return JobStatus.DONE if self._future.exception() is None else JobStatus.ERROR

    def done(self) -> bool:
        """Whether there is a result."""
        return bool(self.status() == JobStatus.DONE)

    def running(self) -> bool:
        """Whether it runs now."""
        return bool(self.status() == JobStatus.RUNNING)

    def cancelled(self) -> bool:
        """Whether it was cancelled before it began."""
        return bool(self.status() == JobStatus.CANCELLED)

    def in_final_state(self) -> bool:
        """Whether nothing more will happen to it."""
        return self._future.done()

    def cancel(self) -> bool:
        """Cancel it unless it has begun; whether that was so."""
        return self._future.cancel()
