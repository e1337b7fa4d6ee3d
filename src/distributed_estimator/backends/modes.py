"""Batches and sessions of the runtime, opened with the first job and closed with the estimator."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

from qiskit.primitives import BaseSamplerV2

from ..errors import BackendError
from ..forks import Lock, register
from .services import NOTHING, unreachable

_log = logging.getLogger(__name__)

ExecutionMode: TypeAlias = Literal["batch", "session"]
Sent = TypeVar("Sent")


class ClosedError(BackendError):
    """A batch or session takes no more jobs; what was to be sent was not."""


class Mode:
    """A batch or session of the runtime, opened with the first job.

    Args:
        kind: Which; None: jobs are sent one by one.
    """

    def __init__(self, kind: ExecutionMode | None) -> None:
        self.kind = kind
        self._lock = Lock()
        self._open: Any = None
        register(self)

    def _renew_in_fork(self) -> None:
        """What is open is the parent's, and a fork must not close it."""
        self._open = None

    def applied(self, sampler: BaseSamplerV2, backend: Any) -> BaseSamplerV2:
        """A copy of a sampler that sends its jobs in this mode."""
        if self.kind is None:
            return sampler
        with self._lock:
            if self._open is None:
                self._open = _opened(self.kind, backend)
            fresh: Any = copy.copy(sampler)
            fresh._mode = self._open
            return fresh

    def send(
        self, sampler: BaseSamplerV2, backend: Any, send: Callable[[BaseSamplerV2], Sent]
    ) -> Sent:
        """Send a job in this mode; where the service has closed what is open, in another one.

        Raises:
            BackendError: The service closed that one, too, before it took the job.
        """
        if self.kind is None:
            return send(sampler)
        own: Any = self.applied(sampler, backend)
        try:
            return send(own)
        except ClosedError:
            with self._lock:
                if self._open is own._mode:  # no other thread has opened another
                    self._open = None
        _log.warning("the %s on %s was closed, and another is opened", self.kind, backend.name)
        try:
            return send(self.applied(sampler, backend))
        except ClosedError:
            pass
        raise BackendError(
            f"the service closed a {self.kind} on {backend.name} twice in a row, before it took a "
            "job: run again later, or leave `mode` out of SamplerBackend"
        )

    def close(self) -> None:
        """Close what is open; jobs that were sent are run all the same."""
        with self._lock:
            opened, self._open = self._open, None
        try:
            if opened is not None:
                opened.close()
        except Exception as error:  # results are there, and the service closes it in time
            _log.warning("a %s could not be closed (%s)", self.kind, type(error).__name__)


def _opened(kind: ExecutionMode, backend: Any) -> Any:
    from qiskit_ibm_runtime import Batch, Session

    try:
        return (Batch if kind == "batch" else Session)(backend=backend)
    except Exception as error:
        failure = unreachable(error, f"no {kind} was opened on {backend.name}", NOTHING)
    raise failure
