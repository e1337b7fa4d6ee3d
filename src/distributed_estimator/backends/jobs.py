"""Jobs at a service: each is sent once, found again by whoever asks for it, and recorded.

A service keeps a job whether or not the client that sent it still lives. Before a job is sent, its
name is noted in a book; it is sent with a tag that derives from the name, and its id is noted then.
So whatever ends the client at whatever moment, the next one finds the job by its id, or by its tag
where the id had not been noted yet. It is sent again only where the service says that it ended
without a result, or does not know it.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn

from qiskit.primitives import BaseSamplerV2, BitArray, DataBin, SamplerPubResult

from ..errors import BackendError
from ..forks import Lock, register
from ..records import DeviceRecord, RecordWriter
from ..subexperiments import JobBook
from .modes import ClosedError, Mode
from .services import (
    FAILED,
    FOUND,
    KEPT,
    NOTHING,
    SILENT,
    calibrated_at,
    charged_seconds,
    is_closed,
    is_gone,
    is_too_long,
    metrics_of,
    names_of,
    status,
    times_of,
    unreachable,
    why_ended,
    without_secrets,
)

_log = logging.getLogger(__name__)

_STRIPES = 64
_MOST_REMEMBERED = 1 << 14
"""Jobs without a journal that are remembered, and those that are known to be recorded."""


class TooLongError(BackendError):
    """A job of several circuits took longer than a job may."""


class Remembered:
    """A `JobBook` that lasts as long as the program; the jobs that came first are forgotten.

    Args:
        most: Jobs that are remembered.
    """

    def __init__(self, most: int = _MOST_REMEMBERED) -> None:
        self._most = most
        self._jobs: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = Lock()

    def intend(self, name: str) -> None:
        """See `JobBook`."""
        self.sent(name, (), "")

    def sent(self, name: str, jobs: Sequence[str], device: str) -> None:
        """See `JobBook`."""
        with self._lock:
            self._jobs[name] = tuple(jobs)
            while len(self._jobs) > self._most:
                self._jobs.popitem(last=False)

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

    def halves(self) -> tuple[JobRequest, JobRequest]:
        """Two jobs with half of the circuits each, where there are two at least."""
        middle = self.circuits // 2
        return self._part(0, middle), self._part(middle, self.circuits)

    def _part(self, start: int, stop: int) -> JobRequest:
        """Circuits from `start` to `stop`, bindings of PUBs counted one after the other."""
        pubs, first = [], 0
        for pub in self.pubs:
            own = slice(max(0, start - first), max(0, stop - first))
            first += _bindings(pub)
            circuit, values, shots = pub
            if values is not None:
                values = values[own]
            if range(_bindings(pub))[own]:
                pubs.append((circuit, values, shots))
        return replace(self, name=f"{self.name} circuits {start} {stop}", pubs=pubs)

    def joined(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        """Results of both halves as those of the whole job."""
        if len(first) + len(second) == len(self.pubs):
            return [*first, *second]
        both = [own.data for own in (first[-1], second[0])]  # of one PUB, between them
        arrays = {name: BitArray.concatenate([own[name] for own in both]) for name in both[0]}
        shape = next(iter(arrays.values())).shape
        return [*first[:-1], SamplerPubResult(DataBin(**arrays, shape=shape)), *second[1:]]

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
        self._recorded: OrderedDict[str, None] = OrderedDict()
        self._numbers: Counter[str] = Counter()
        register(self)

    def _renew_in_fork(self) -> None:
        """The book is the parent's, as a journal is."""
        self._book = Remembered()

    def run(
        self,
        sampler: Callable[[], BaseSamplerV2],
        backend: Any,
        request: JobRequest,
        mode: Mode | None = None,
    ) -> Callable[[], list[Any]]:
        """Send a job as `send` does; what is returned waits as `results` does.

        A job that takes longer than it may is sent again in two halves, and these in halves if they
        do. The book keeps its id, by which the next one learns that its halves were sent.
        """
        sent = self.send(sampler, backend, request, mode)

        def wait() -> list[Any]:
            try:
                return self.results(sent, backend.name)
            except TooLongError as error:
                _log.warning("%s: its %d circuits are sent in halves", error, request.circuits)
            first, second = (self.run(sampler, backend, half, mode) for half in request.halves())
            return request.joined(first(), second())

        return wait

    def send(
        self,
        sampler: Callable[[], BaseSamplerV2],
        backend: Any,
        request: JobRequest,
        mode: Mode | None = None,
    ) -> SentJob:
        """Find a job at the service, or send it.

        Args:
            sampler: Gives what sends it; called only where that has to be done.
            backend: The device, with its service.
            request: What is sent.
            mode: The batch or session that it is sent in; None: that of the sampler.

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
            own = _tagged(sampler(), request.tag)
            job = (mode or Mode(None)).send(own, backend, lambda own: _run(own, request, backend))
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
            TooLongError: It took longer than it may, and has circuits to be divided.
        """
        what = f"job {sent.id} on {device}"
        failure: BackendError | None = None
        results: list[Any] = []
        try:
            results = list(sent.job.result() or ())
        except Exception as error:
            cause = why_ended(sent.job, error)
            if cause is not None and is_too_long(error) and sent.request.circuits > 1:
                failure = TooLongError(f"{what} took longer than it may")
            elif cause is None:
                failure = unreachable(error, f"the result of {what} did not arrive", KEPT)
        else:
            cause = sent.request.fault_of(results)
        if isinstance(failure, TooLongError):
            self._record(sent, device, None)
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
            self._recorded[sent.id] = None
            if len(self._recorded) > _MOST_REMEMBERED:
                self._recorded.popitem(last=False)
            number = self._numbers[device]
            self._numbers[device] += 1
        now, request, metrics = self._clock(), sent.request, metrics_of(sent.job)
        queued, started, finished = times_of(metrics) or (None, None, None)
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
                calibrated_at=calibrated_at(sent.job),
                charged_seconds=charged_seconds(metrics),
                options=request.options,
            )
        )


def _run(sampler: BaseSamplerV2, request: JobRequest, backend: Any) -> Any:
    """Send a job.

    Raises:
        ClosedError: The sampler's batch or session is closed; nothing was sent.
        UnreachableError: The service cannot be reached, or refuses the account.
        ValueError: The circuits are refused.
    """
    failure: Exception
    try:
        if request.shots is None:
            return sampler.run(list(request.pubs))
        return sampler.run(list(request.pubs), shots=request.shots)
    except Exception as error:
        if is_closed(error):
            failure = ClosedError(
                f"the batch or session of {backend.name} takes no more jobs: give a sampler made "
                "with the device, and SamplerBackend(sampler, mode=...), which opens another"
            )
        elif names_of(error) & SILENT:
            failure = unreachable(error, f"a job could not be sent to {backend.name}", FOUND)
        else:
            failure = ValueError(without_secrets(getattr(error, "message", error)))
    raise failure  # not above: a traceback would show the texts of what is handled there


def _fetched(backend: Any, number: str) -> Any:
    """A job by its id; None: the service does not know it."""
    try:
        return backend.service.job(number)
    except Exception as error:
        if is_gone(error):
            return None
        failure = unreachable(error, f"job {number} of {backend.name} is not fetched", NOTHING)
    raise failure


def _found_by_tag(backend: Any, tag: str) -> Any:
    """The job with a tag, one that has not failed where there are several; None: there is none."""
    # Jobs are listed for one instance, which need not be the one that the service used last.
    instance = getattr(backend, "_instance", None)
    where = {} if instance is None else {"instance": instance}
    try:
        found = list(backend.service.jobs(limit=None, job_tags=[tag], **where))
        return min(found, key=lambda job: status(job) in FAILED, default=None)
    except Exception as error:
        failure = unreachable(error, f"jobs of {backend.name} are not looked for", NOTHING)
    raise failure


def _tagged(sampler: BaseSamplerV2, tag: str) -> BaseSamplerV2:
    """A copy of a sampler whose jobs have one more tag."""
    options = copy.copy(sampler.options)
    options.environment = copy.copy(options.environment)
    options.environment.job_tags = [*(options.environment.job_tags or ()), tag]
    fresh = copy.copy(sampler)
    setattr(fresh, "_options" if hasattr(fresh, "_options") else "options", options)
    return fresh
