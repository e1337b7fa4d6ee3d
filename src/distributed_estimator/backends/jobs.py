"""Jobs at a service: each is sent once, found again by whoever asks for it, and recorded.

A service keeps a job whether or not the client that sent it still lives. Before a job is sent, its
name is noted in a book; it is sent with a tag that derives from the name, and its id is noted then.
So whatever ends the client at whatever moment, the next one finds the job by its id, or by its tag
where the id had not been noted yet. It is sent again only where the service says that it ended
without a result, or does not know it. Errors are recognised by the names of their classes, so that
the client of no service has to be installed or imported.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from math import prod
from typing import Any, Literal, NoReturn, TypeAlias

from qiskit.primitives import BaseSamplerV2

from ..errors import BackendError, ThrottledError, UnreachableError
from ..forks import Lock, register
from ..records import DeviceRecord, RecordWriter
from ..subexperiments import JobBook

_log = logging.getLogger(__name__)

ExecutionMode: TypeAlias = Literal["batch", "session"]

_STRIPES = 64
_SECRETS = re.compile(
    r"\bhttps?://\S+|\bcrn:\S+|\b(?:Bearer|apikey)\s+\S+|[\w-]{32,}", re.IGNORECASE
)
"""Addresses, instances and tokens."""
_SILENT = {
    "ApiError",
    "AuthenticationException",
    "IBMAccountError",
    "IBMApiError",
    "IBMNotAuthorizedError",
    "IBMRuntimeError",
    "OSError",  # of the network; those of `requests` are derived from it
    "ApiException",
}
"""Errors of a connection, whose texts may hold tokens, instances and addresses."""
_ACCOUNT = {"AuthenticationException", "IBMAccountError", "IBMNotAuthorizedError"}
_MESSAGE = re.compile(r'"message": *"([^"]+)"')
"""What a service says for people, in the text of an error."""
_KEPT = "The service keeps the job: the same run, with its journal, fetches it"
_FOUND = "If it arrived all the same, the next attempt finds it"
_NOTHING = "Nothing was sent"
_FAILED = "CANCELLED", "ERROR"
_GONE = 404, 410
_TOO_MANY = 429


def service_of(sampler: BaseSamplerV2, backend: Any) -> Any:
    """The service that keeps a sampler's jobs; None: there is none, or jobs cannot be tagged."""
    service = getattr(backend, "service", None)
    keeps = callable(getattr(service, "job", None)) and callable(getattr(service, "jobs", None))
    return service if keeps and hasattr(_environment(sampler), "job_tags") else None


def without_secrets(text: object) -> str:
    """A text of a service, without what an account could be known by.

    Example:
        >>> without_secrets("POST https://there.example/jobs failed: Bearer abc")
        'POST (left out) failed: (left out)'
    """
    return _SECRETS.sub("(left out)", str(text))


def options_text(sampler: BaseSamplerV2) -> str | None:
    """Options of a sampler that are not the defaults, as JSON; None: it has no others.

    Those of its environment are left out: they name jobs, and change no result.
    """
    options: Any = getattr(sampler, "options", None)
    try:
        defaults = _plain(type(options)())
    except Exception:  # it takes arguments
        defaults = {}
    found = _plain(options)
    changed = _changed(found, defaults) if isinstance(found, dict) else None
    return without_secrets(json.dumps(changed, sort_keys=True, default=_kind)) if changed else None


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # of the runtime's newer samplers
        value = value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items() if name != "environment"}
    return value


def _changed(options: dict[str, Any], defaults: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if isinstance(value, dict):
            value = _changed(value, default)
            default = {}
        if not _is_same(value, default):
            found[name] = value
    return found


def _is_same(one: Any, other: Any) -> bool:
    same = one == other
    return same if isinstance(same, bool) else one is other


def _kind(value: object) -> str:
    return type(value).__name__


class Remembered:
    """A `JobBook` that lasts as long as the program."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[str, ...]] = {}

    def intend(self, name: str) -> None:
        """See `JobBook`."""
        self._jobs[name] = ()

    def sent(self, name: str, jobs: Sequence[str], device: str) -> None:
        """See `JobBook`."""
        self._jobs[name] = tuple(jobs)

    def ended(self, name: str, cause: str) -> None:
        """See `JobBook`."""
        self._jobs.pop(name, None)

    def jobs(self, name: str) -> tuple[str, ...] | None:
        """See `JobBook`."""
        return self._jobs.get(name)


@dataclass(frozen=True, eq=False)
class JobRequest:
    """A job as it is sent.

    Attributes:
        name: What the book calls it: all that determines its result.
        task: The key of its task.
        pubs: Circuit, parameter values (None: it has none) and shots of each PUB.
        shots: Of all of them, for samplers that take one number a job; None: each has its own.
        options: Of the sampler, see `options_text`.
    """

    name: str
    task: str
    pubs: Sequence[tuple[Any, ...]]
    shots: int | None = None
    options: str | None = None

    @property
    def tag(self) -> str:
        """By which the service finds it."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:32]

    @property
    def circuits(self) -> int:
        """Circuits, each binding counting."""
        return sum(map(_bindings, self.pubs))

    def fault_of(self, results: Sequence[Any]) -> str | None:
        """Why results are not those of this job, in one clause; None where they are.

        Shots may be others than were asked for, as long as there are some.
        """
        if len(results) != len(self.pubs):
            return f"returned {len(results)} results for {len(self.pubs)} circuits"
        for number, (pub, result) in enumerate(zip(self.pubs, results, strict=True)):
            for bits in result.data.values():
                if prod(bits.shape) != _bindings(pub):
                    return (
                        f"returned {prod(bits.shape)} of {_bindings(pub)} bindings of circuit "
                        f"{number}"
                    )
                if not bits.num_shots:
                    return f"returned no shots of circuit {number}"
        return None


def _bindings(pub: tuple[Any, ...]) -> int:
    return 1 if pub[1] is None else len(pub[1])


@dataclass(frozen=True, eq=False)
class SentJob:
    """A job that the service has.

    Attributes:
        job: The service's own object.
        id: The service's name for it.
        request: What was sent.
        submitted: When, in seconds since 1970; None: by an earlier client.
    """

    job: Any
    id: str
    request: JobRequest
    submitted: float | None


class Jobs:
    """The jobs of a run at a service.

    Threads that ask for the same job wait for the same one.

    Args:
        book: Remembers which jobs were sent; None: they are remembered as long as this lives.
        log: Gets a `DeviceRecord` for every job that has ended.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        book: JobBook | None = None,
        log: RecordWriter | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._book: JobBook = Remembered() if book is None else book
        self._log = log
        self._clock, self._origin = clock, clock()
        # One for many names: a lock for each would have to be kept for ever.
        self._locks = [Lock() for _ in range(_STRIPES)]
        self._records = Lock()
        self._recorded: set[str] = set()
        self._numbers: Counter[str] = Counter()
        register(self)

    def _renew_in_fork(self) -> None:
        """The book is the parent's, as a journal is."""
        self._book = Remembered()

    def send(
        self, sampler: Callable[[], BaseSamplerV2], backend: Any, request: JobRequest
    ) -> SentJob:
        """Find a job at the service, or send it.

        Args:
            sampler: Gives what sends it; called only where that has to be done.
            backend: The device, with its service.
            request: What is sent.

        Raises:
            UnreachableError: The service cannot be reached, and nothing was sent.
            BackendError: A job that was sent before is not known to the service, and the next call
                sends it again.
            ValueError: The sampler itself refused the circuits; nothing was sent.
        """
        with self._alone(request.name):
            known = self._book.jobs(request.name)
            if known is None:
                self._book.intend(request.name)
            else:
                job = self._found(backend, request, known)
                if job is not None:
                    return SentJob(job, job.job_id(), request, None)
            submitted = self._clock()
            job = _run(_tagged(sampler(), request.tag), request, backend)
            self._book.sent(request.name, (job.job_id(),), backend.name)
            return SentJob(job, job.job_id(), request, submitted)

    def has(self, name: str) -> bool:
        """Whether a job of that name was sent, or may have been, and has not failed."""
        return self._book.jobs(name) is not None

    def _found(self, backend: Any, request: JobRequest, known: Sequence[str]) -> Any:
        """A job that was sent before; None: none was."""
        if not known:
            # The client was ended, or the connection lost, while it was sent.
            found = _found_by_tag(backend, request.tag)
            if found is not None:
                self._book.sent(request.name, (found.job_id(),), backend.name)
            return found
        job = _fetched(backend, known[0])
        if job is None:
            cause = (
                f"the service of {backend.name} does not know job {known[0]} that was sent: it has "
                "expired, or is another account's"
            )
            self._book.ended(request.name, cause)
            raise BackendError(f"{cause}; the task is sent again where it is tried again")
        return job

    def results(self, sent: SentJob, device: str) -> list[Any]:
        """Wait for a job.

        Args:
            sent: The job.
            device: Its device, for records and errors.

        Returns:
            What it gave for each PUB.

        Raises:
            UnreachableError: The service cannot be reached, and the next `send` finds the job.
            BackendError: It ended without results, and the next `send` sends it again.
        """
        what = f"job {sent.id} on {device}"
        failure: BackendError | None = None
        results: list[Any] = []
        try:
            results = list(sent.job.result() or ())
        except Exception as error:
            cause = _why_ended(sent.job, error)
            if cause is None:
                failure = _unreachable(error, f"the result of {what} did not arrive", _KEPT)
        else:
            cause = sent.request.fault_of(results)
        if failure is not None:
            raise failure  # not above: a traceback would show the texts of what is handled there
        self._record(sent, device, results if cause is None else None)
        if cause is not None:
            self._give_up(sent, f"{what} {cause}")
        return results

    def _give_up(self, sent: SentJob, cause: str) -> NoReturn:
        """Let the task be sent again, unless another thread has done so already."""
        name = sent.request.name
        with self._alone(name):
            if self._book.jobs(name) == (sent.id,):
                self._book.ended(name, cause)
        raise BackendError(f"{cause}; the task is sent again where it is tried again")

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Meanwhile, no other thread looks for a job of that name, or sends it."""
        with self._locks[hash(name) % _STRIPES]:
            yield

    # --- records ----------------------------------------------------------------------------------

    def _record(self, sent: SentJob, device: str, results: Sequence[Any] | None) -> None:
        """Write the record of a job that has ended; None: it failed."""
        if self._log is None:
            return
        with self._records:
            if sent.id in self._recorded:
                return
            self._recorded.add(sent.id)
            number = self._numbers[device]
            self._numbers[device] += 1
        now, request, metrics = self._clock(), sent.request, _metrics(sent.job)
        queued, started, finished = _times(metrics) or (None, None, None)
        submitted = sent.submitted or queued or now
        circuits, shots = request.circuits, 0
        for result in results or ():
            bits = next(iter(result.data.values()), None)
            shots += 0 if bits is None else bits.num_shots * prod(bits.shape)
        if results is None:
            shots = sum(_bindings(pub) * pub[2] for pub in request.pubs)
        self._log.write(
            DeviceRecord(
                device=device,
                job=number,
                task=request.task,
                circuits=circuits,
                shots=round(shots / circuits),
                submitted=submitted - self._origin,
                queued=(queued or submitted) - self._origin,
                started=(started or submitted) - self._origin,
                finished=(finished or now) - self._origin,
                returned=now - self._origin,
                status="failed" if results is None else "done",
                service_job=sent.id,
                calibrated_at=_calibrated_at(sent.job),
                charged_seconds=_charged_seconds(metrics),
                options=request.options,
            )
        )


def _run(sampler: BaseSamplerV2, request: JobRequest, backend: Any) -> Any:
    """Send a job.

    Raises:
        UnreachableError: The service cannot be reached, or refuses the account.
        ValueError: The circuits are refused.
    """
    failure: Exception
    try:
        if request.shots is None:
            return sampler.run(list(request.pubs))
        return sampler.run(list(request.pubs), shots=request.shots)
    except Exception as error:
        if _names(error) & _SILENT:
            failure = _unreachable(error, f"a job could not be sent to {backend.name}", _FOUND)
        else:
            failure = ValueError(without_secrets(getattr(error, "message", error)))
    raise failure  # not above: a traceback would show the texts of what is handled there


def _fetched(backend: Any, number: str) -> Any:
    """A job by its id; None: the service does not know it."""
    try:
        return backend.service.job(number)
    except Exception as error:
        if _is_gone(error):
            return None
        failure = _unreachable(error, f"job {number} of {backend.name} is not fetched", _NOTHING)
    raise failure


def _found_by_tag(backend: Any, tag: str) -> Any:
    """The job with a tag, one that has not failed where there are several; None: there is none."""
    # Jobs are listed for one instance, which need not be the one that the service used last.
    instance = getattr(backend, "_instance", None)
    where = {} if instance is None else {"instance": instance}
    try:
        found = list(backend.service.jobs(limit=None, job_tags=[tag], **where))
        return min(found, key=lambda job: _status(job) in _FAILED, default=None)
    except Exception as error:
        failure = _unreachable(error, f"jobs of {backend.name} are not looked for", _NOTHING)
    raise failure


def _tagged(sampler: BaseSamplerV2, tag: str) -> BaseSamplerV2:
    """A copy of a sampler whose jobs have one more tag."""
    options = copy.copy(sampler.options)
    options.environment = copy.copy(options.environment)
    options.environment.job_tags = [*(options.environment.job_tags or ()), tag]
    fresh = copy.copy(sampler)
    setattr(fresh, "_options" if hasattr(fresh, "_options") else "options", options)
    return fresh


def _environment(sampler: BaseSamplerV2) -> Any:
    return getattr(getattr(sampler, "options", None), "environment", None)


# --- what a service says --------------------------------------------------------------------------


def _status(job: Any) -> str:
    """How far a job is, in the words of the runtime."""
    status = job.status()
    return str(getattr(status, "name", status)).upper()


def _why_ended(job: Any, error: Exception) -> str | None:
    """Why a job has ended without a result, in one clause; None: it has not, as far as is known."""
    if _is_gone(error):
        return "is no longer kept by the service: it has expired"
    if "RuntimeJobMaxTimeoutError" in _names(error):
        return (
            "took longer than it may: send fewer circuits a job, with "
            "SamplerBackend(sampler, circuits_per_job=...)"
        )
    try:
        status = _status(job)
        if status == "CANCELLED":
            return "was cancelled"
        if status == "ERROR":
            return f"failed: {without_secrets(job.error_message() or 'the service gave no reason')}"
    except Exception:
        return None
    return None


def _is_gone(error: Exception) -> bool:
    return "RuntimeJobNotFound" in _names(error) or getattr(error, "status_code", None) in _GONE


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _unreachable(error: Exception, what: str, remedy: str) -> BackendError:
    """The error of a connection, with no more of its text than the service's own message."""
    kind = type(error).__name__
    if getattr(error, "status_code", None) == _TOO_MANY:
        return ThrottledError(f"{what}, as the service is asked too often ({kind})")
    if _names(error) & _ACCOUNT:
        return UnreachableError(
            f"{what}, as the service refused the account ({kind}): see that it is saved, has not "
            f"expired and may use the device. {remedy}"
        )
    said = _MESSAGE.search(str(error))
    reason = "its text may name the account" if said is None else without_secrets(said[1])
    return UnreachableError(
        f"{what}, as the service cannot be reached, or gave no good answer ({kind}: {reason}). "
        f"{remedy}"
    )


def _metrics(job: Any) -> dict[str, Any]:
    try:
        found = job.metrics()
    except Exception:  # records are no reason to fail
        return {}
    return found if isinstance(found, dict) else {}


def _times(metrics: dict[str, Any]) -> tuple[float, float, float] | None:
    """When a job arrived, started and ended, in seconds since 1970; None: that makes no sense."""
    stamps = metrics.get("timestamps") or {}
    try:
        times = [_seconds(stamps[name]) for name in ("created", "running", "finished")]
    except (KeyError, TypeError, ValueError):
        return None
    created, running, finished = times
    return (created, running, finished) if created <= running <= finished > created else None


def _seconds(stamp: Any) -> float:
    moment = stamp if isinstance(stamp, datetime) else datetime.fromisoformat(stamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _charged_seconds(metrics: dict[str, Any]) -> float | None:
    found = (metrics.get("usage") or {}).get("qpu_charge_time_seconds")
    return float(found) if isinstance(found, int | float) else None


def _calibrated_at(job: Any) -> str | None:
    try:
        moment = job.properties().last_update_date
        return datetime.fromtimestamp(_seconds(moment), UTC).isoformat(timespec="milliseconds")
    except Exception:  # it has none, or the service does not say
        return None


# --- batches and sessions -------------------------------------------------------------------------


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
        failure = _unreachable(error, f"no {kind} was opened on {backend.name}", _NOTHING)
    raise failure
