"""Workers of a Dask cluster: one of our own on this machine, or one that is there already."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...checks import require
from ...errors import InputError, PoolError
from ..pinning import ONE_THREAD
from .base import Engine, Pool, Submission, check_memory_limit
from .dask_link import Link, LinkLostError, WorkerLostError
from .dask_worker import Begun

_START_SECONDS = 120.0
_END_SECONDS = 10.0
_PATIENCE = 30
"""Looks, one a second, at a worker that was given a job and does not run it."""

_PROGRAM = Path(__file__).with_name("dask_host.py")
_WORKER_MODULE = f"{__package__}.dask_worker"


class DaskPool(Pool):
    """Workers of a Dask cluster.

    Without an address, worker processes of one thread each are started on this machine; nothing of
    them can be reached from elsewhere. A worker that dies is replaced, and its job reported lost at
    once. With an address, jobs go to the cluster there, whose workers must have the same versions
    installed; Dask itself tries a job again whose worker died, as often as the cluster's
    `distributed.scheduler.allowed-failures` says, before it is reported lost.

    A job that is cancelled while it runs ends with the task that runs, and keeps its place until
    then; an injected sleep ends at once.

    Args:
        workers: Jobs that run at a time. A cluster with fewer workers lets some wait.
        address: Of a scheduler, such as "tcp://10.0.0.1:8786"; None: start a cluster here.
        security: A `distributed.Security`, for an address that begins with "tls://".
        memory_limit: Bytes that a worker started here may take, checked ten times a second, before
            it is ended and its job lost; None: as much as there is.

    Raises:
        InputError: Arguments out of range, or that do not go together.
        MissingExtraError: Dask is not installed.
    """

    name = "dask"
    job_seconds = 0.2  # Dask takes 0.02 s from one job of a worker to the next

    def __init__(
        self,
        workers: int,
        *,
        address: str | None = None,
        security: Any = None,
        memory_limit: int | None = None,
    ) -> None:
        require("distributed", "dask", 'pool="dask"')
        if address is not None and not isinstance(address, str):
            raise InputError(
                f"`address` is {address!r}: give a string such as 'tcp://10.0.0.1:8786'"
            )
        if address is None and security is not None:
            raise InputError("`security` is given without `address`: give the scheduler's address")
        check_memory_limit(memory_limit)
        if address is not None and memory_limit is not None:
            raise InputError(
                "`memory_limit` is given with `address`: set it where workers are started"
            )
        super().__init__(_Dask(workers, address, security, memory_limit))


@dataclass(eq=False)
class _Attempt:
    """A job that Dask has.

    Attributes:
        name: The job's, among all that any worker may ever be sent.
        begun: The worker that runs it, as far as is known.
        withdrawn: Set where it is to be taken back.
        given_up: Whether its worker is to be ended.
    """

    name: str = field(default_factory=lambda: uuid4().hex)
    begun: Begun | None = None
    withdrawn: asyncio.Event = field(default_factory=asyncio.Event)
    given_up: bool = False


class _Dask(Engine):
    """Places are workers of our own, by name. In another's cluster Dask chooses the worker."""

    def __init__(
        self, workers: int, address: str | None, security: Any, memory_limit: int | None
    ) -> None:
        super().__init__(workers)
        self._address = address
        self._security = security
        self._host = None if address is not None else _Host(self.workers, memory_limit)
        self._link: Link | None = None
        self._names: list[str] = []
        self._attempts: dict[str, Submission] = {}
        self._addresses: dict[int, str] = {}
        self._ended: set[str] = set()
        self._withdrawn: deque[str] = deque(maxlen=1000)

    def _start(self) -> None:
        address, security = self._address, self._security
        if self._host is not None:
            # Nothing leaves this machine, whatever the caller's configuration asks for elsewhere.
            make = require("distributed", "dask", 'pool="dask"').Security
            address, security = self._host.start(), make(require_encryption=False)
        assert address is not None
        try:
            link = Link(
                address,
                security,
                own=self._host is not None,
                on_begun=self._note_begun,
                on_workers=self._note_workers,
                on_lost=self.dropped.put,
            )
            with self._changed:
                self._link = link
                self._check_open()
            found = link.connect(check=self._host is None)
            self._close_when_dropped()
        except BaseException:
            self._stop([])
            while not self.dropped.empty():  # another attempt may have more luck
                self.dropped.get()
            raise
        self._names = list(found)
        if self._host is not None:
            self._note_workers(found)
        else:
            self._idle.update(range(self.workers))

    def _note_workers(self, found: dict[str, str]) -> None:
        """Workers come and go; those of our own are numbered by their names."""
        if self._host is None:
            return
        lingering = []
        for place in range(self.workers):
            address = found.get(str(place))
            with self._changed:
                before = self._addresses.get(place)
                if address is not None and address in self._ended:
                    lingering.append(address)
                    continue
                if address == before:
                    continue
                if before is not None:
                    self._ended.add(self._addresses.pop(place))
                    self._idle.discard(place)
                if address is not None:
                    self._addresses[place] = address
                busy = [s for s in self._attempts.values() if s.place == place]
            for submission in busy:  # the worker that they were given to died
                submission.worker.withdrawn.set()
            if address is not None and not busy:
                self._free(place)
        for address in lingering:  # the order to end it may have been lost
            assert self._link is not None
            self._link.spawn(self._link.end_worker(address))

    def _run(self, submission: Submission) -> None:
        attempt = submission.worker = _Attempt()
        with self._changed:
            self._attempts[attempt.name] = submission
            address = self._addresses.get(submission.place)
            if address is None and self._host is not None:  # it is being replaced, since just now
                del self._attempts[attempt.name]
                self._lose(submission, f"worker {submission.place} died before it began")
                return
        if address is not None:
            attempt.begun = Begun(attempt.name, address, str(submission.place), True)
            submission.start(str(submission.place))
        assert self._link is not None
        self._link.spawn(self._follow(submission, attempt, address))

    async def _follow(self, submission: Submission, attempt: _Attempt, address: str | None) -> None:
        """See a job through, on the link's loop, until its place is free."""
        link, job = self._link, submission.job
        assert link is not None
        packed = job.work.key, submission.packed, submission.items
        running = asyncio.ensure_future(
            link.run(attempt.name, *packed, self._slow(submission), address)
        )
        withdrawn = asyncio.ensure_future(attempt.withdrawn.wait())
        await asyncio.wait({running, withdrawn}, return_when=asyncio.FIRST_COMPLETED)
        withdrawn.cancel()
        if address is not None and not running.done():
            if attempt.given_up:
                await link.end_worker(address)
            # Dask reports the death of a worker, but not that of one that had died before.
            await asyncio.wait({running}, timeout=_END_SECONDS if attempt.given_up else 1.0)
        running.cancel()
        await asyncio.wait({running})
        sound = self._conclude(submission, running)
        if sound is None:
            return
        if not sound:
            begun = attempt.begun
            if begun is not None and begun.address not in self._ended:
                await link.end_worker(begun.address)
            if address is not None:
                self._ended.add(address)
        with self._changed:
            del self._attempts[attempt.name]
            current = self._addresses.get(submission.place)
        if self._host is None or (current is not None and current not in self._ended):
            self._free(submission.place)

    def _conclude(
        self, submission: Submission, running: asyncio.Future[tuple[str, Any]]
    ) -> bool | None:
        """Report the end of a job; whether its worker may go on. None: the scheduler is lost."""
        attempt = submission.worker
        if running.cancelled():
            self._forget(submission)
            if self._host is None:
                self._withdrawn.append(attempt.name)
            if attempt.given_up:
                pass  # whoever gave it up reports it, with the cause
            elif self._host is None:
                submission.lose("cancelled", "it was withdrawn before it began")
            else:
                submission.lose("lost", f"worker {submission.place} died before it began")
            return self._host is None and not attempt.given_up
        try:
            worker, report = running.result()
        except LinkLostError:
            return None
        except WorkerLostError as error:
            self._lose(submission, str(error))
            if self._host is not None and attempt.begun is not None:
                self._ended.add(attempt.begun.address)
            return self._host is None
        except Exception as error:
            self._forget(submission)
            cause = f"no worker can begin with it: {type(error).__name__}: {error}"
            submission.lose("refused", cause)
            return True
        return self._finish(submission, report, worker)

    def _slow(self, submission: Submission) -> tuple[str, float] | None:
        """The slow worker's name, and its delay. Workers are numbered in the order of names."""
        slow = submission.job.slow
        if slow is None or slow.worker >= len(self._names):
            return None
        return self._names[slow.worker], slow.delay

    def _note_begun(self, begun: Begun) -> None:
        """A worker begins with a job; of other pools too."""
        with self._changed:
            submission = self._attempts.get(begun.job)
        if begun.job in self._withdrawn and self._link is not None:  # it was about to begin
            self._link.spawn(self._link.cancel(begun.job, begun.address))
        if submission is None or self._host is not None:
            return
        again, submission.worker.begun = submission.worker.begun is not None, begun
        if submission.cancelled.is_set():
            self._interrupt(submission)
        elif not again:
            submission.start(begun.worker)

    def _interrupt(self, submission: Submission) -> None:
        attempt, link = submission.worker, self._link
        assert link is not None
        if attempt.begun is not None:
            link.spawn(link.cancel(attempt.name, attempt.begun.address))
        else:
            link.call_soon(attempt.withdrawn.set)

    def _kill(self, submission: Submission) -> str:
        attempt, link = submission.worker, self._link
        assert link is not None
        attempt.given_up = True
        link.call_soon(attempt.withdrawn.set)
        if attempt.begun is None:
            return "its worker did not begin in time"
        without = "" if attempt.begun.nanny else "; it has no nanny, so end its process yourself"
        return f"worker {attempt.begun.worker} did not come back in time{without}"

    def _stop(self, running: list[Submission]) -> None:
        """Of a cluster that was there before, only the connection is closed."""
        if self._link is not None:
            self._link.close()
        if self._host is not None:
            self._host.close()


class _Host:
    """The process of a local cluster.

    It leads a session of its own, so that all of it can be ended at once, whatever state it is in,
    and so that Dask's settings, threads and signals are none of the caller's.

    Args:
        workers: Worker processes, one thread each.
        memory_limit: Bytes a worker may take; None: as much as there is.
    """

    def __init__(self, workers: int, memory_limit: int | None) -> None:
        self._workers = workers
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._directory: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it, and wait until all workers are up.

        Returns:
            The scheduler's address.

        Raises:
            PoolError: It did not start, or was closed meanwhile.
        """
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        quiet = {"DASK_LOGGING__DISTRIBUTED": "critical"}
        with self._lock:
            self._directory = tempfile.mkdtemp(prefix="distributed-estimator-dask-")
            arguments = {
                "parent": os.getpid(),
                "workers": self._workers,
                "memory_limit": self._memory_limit or 0,
                "directory": self._directory,
                "preload": _WORKER_MODULE,
                "patience": _PATIENCE,
            }
            self._process = process = subprocess.Popen(
                # -P: the folder of the program holds a `dask` of its own.
                [sys.executable, "-P", str(_PROGRAM), json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=quiet | os.environ | dict(ONE_THREAD) | {"PYTHONPATH": path},
                start_new_session=True,
            )
        assert process.stdout is not None
        with process.stdout as output, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            address = output.readline().decode().strip() if selector.select(_START_SECONDS) else ""
        if not address:
            self.close()
            raise PoolError(
                f"a Dask cluster of {self._workers} workers did not start on this machine; "
                'standard error says why: mend that, or use pool="processes"'
            )
        return address

    def close(self) -> None:
        """Kill the whole session, stopped processes too, and remove its files."""
        with self._lock:
            process, self._process = self._process, None
            directory, self._directory = self._directory, None
        if process is not None:
            # It has not been waited for, so its number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
