"""Processes of our own: one that dies or hangs is replaced, and only its own job is lost."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, Literal

import psutil

from ...errors import InputError
from ...forks import Lock, register
from ..worker import ONE_THREAD
from .base import (
    Engine,
    NoThreadError,
    Pool,
    Submission,
    check_memory_limit,
    hang_up,
    standard_streams,
    start_thread,
)
from .process_worker import command, open_process

StartMethod = Literal["forkserver", "spawn"]

_MOST_STARTS = 3
_START_LIMIT = 300.0
_SERVER_LIMIT = 60.0
"""Seconds that the server may take to answer; its first answer comes when it has its modules."""
_LOOK = 0.25
"""Seconds between looks whether a process that is waited for has been stopped."""
_GRACE = 2.0
_KILL_LIMIT = 5.0
_CLOSE_LIMIT = 4.5


class ProcessPool(Pool):
    """Worker processes on this machine, each with one thread for linear algebra.

    Processes are started when jobs wait for them, the first one alone, by a process of this
    program's that has loaded what they need. They end with this pool and with this process, however
    it ends.

    Args:
        workers: Processes, and so tasks that run at a time.
        start_method: "forkserver": workers are forks of that process; "spawn": each is a new
            interpreter. None: the former.
        memory_limit: Bytes that each process may hold; a task that wants more raises
            `MemoryError`. None: no limit.

    Raises:
        InputError: An argument is out of range.
    """

    name = "processes"

    def __init__(
        self,
        workers: int,
        *,
        start_method: StartMethod | None = None,
        memory_limit: int | None = None,
    ) -> None:
        check_memory_limit(memory_limit)
        if start_method not in (None, "forkserver", "spawn"):
            raise InputError(
                f'`start_method` is {start_method!r}: give "forkserver" or "spawn" (with "fork", '
                "simulators that ran before may hang in the workers)"
            )
        super().__init__(_Processes(workers, start_method or "forkserver", memory_limit))


class _Processes(Engine):
    """Each process has a thread that starts, feeds and replaces it."""

    def __init__(self, workers: int, method: StartMethod, memory_limit: int | None) -> None:
        super().__init__(workers)
        self._method = method
        self._memory_limit = memory_limit
        self._threads: list[threading.Thread] = []
        self._processes: dict[int, WorkerProcess] = {}
        self._came_up = False

    def _start(self) -> None:
        if not self._threads:
            self._start_thread()
        self._close_when_dropped()

    def _start_thread(self) -> None:
        number = len(self._threads)
        self._threads.append(start_thread(self._serve, number, name=f"process-{number}"))

    def _hand_out(self) -> None:
        """Threads take jobs by themselves; where no other can be started, jobs wait."""
        with self._changed:
            with suppress(NoThreadError):
                while len(self._threads) < self.workers:
                    self._start_thread()
            self._changed.notify_all()

    def _serve(self, place: int) -> None:
        """Keep a worker up as long as there is something to do for it."""
        failures = 0
        while self._is_wanted(place):
            try:
                process = self._boot(place)
            except Exception as error:  # jobs would wait for ever for a thread that is gone
                failures += 1
                passing = isinstance(error, ProcessEndedError) and error.passing
                if failures == _MOST_STARTS or not (self._came_up or passing):
                    self._refuse_waiting(str(error))
                    failures = 0
                continue
            failures = 0
            while self._serve_next(process, place):
                pass

    def _is_wanted(self, place: int) -> bool:
        """Wait for jobs. The first worker starts alone: if it cannot, nor can others."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._refusal or (self._queue and (place == 0 or self._came_up))
            )
            return self._refusal is None

    def _boot(self, place: int) -> WorkerProcess:
        process = WorkerProcess(place, self._method, self._memory_limit)
        with self._changed:
            self._processes[place] = process
            if self._refusal is not None:
                process.kill()
        try:
            process.wait_until_ready()
        except BaseException:
            process.kill()
            raise
        with self._changed:
            self._came_up = True
            self._changed.notify_all()
        return process

    def _serve_next(self, process: WorkerProcess, place: int) -> bool:
        """Wait for a job and run it; whether the worker is there for another one.

        Nothing of a job outlives this call: a thread that waits keeps no objects of a caller alive.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._refusal or self._queue)
            submission = self._next(place) if process.is_alive() else None
            if submission is not None:
                submission.worker = process
        if submission is not None:
            submission.start(str(place))
            try:
                if self._finish(submission, self._report_on(submission, process)):
                    return True
            except ProcessEndedError as error:
                self._lose(submission, str(error))
                return False
            except Exception as error:  # no memory for the report, say: this thread must go on
                process.kill()
                cause = f"worker {place} was given up ({type(error).__name__}: {error})"
                self._lose(submission, cause)
        process.stop(_GRACE)
        return False

    def _report_on(self, submission: Submission, process: WorkerProcess) -> object:
        """Have a job run."""
        number, key = submission.number, submission.job.work.key
        message: object = ("run", number, key, submission.items, submission.delay)
        while True:
            process.send(message)
            if submission.cancelled.is_set():  # its cancel may have come while this was sent
                self._interrupt(submission)
            match process.receive():
                case ("need work",):
                    message = submission.packed
                case ("report", job, outcomes) if job == number:
                    return outcomes
                case unknown:
                    return unknown

    def _interrupt(self, submission: Submission) -> None:
        submission.worker.interrupt(("cancel", submission.number))

    def _kill(self, submission: Submission) -> str:
        submission.worker.kill()
        return f"worker {submission.place} did not come back in time, and was killed"

    def _run(self, submission: Submission) -> None:
        raise AssertionError("threads take jobs by themselves")

    def _stop(self, running: list[Submission]) -> None:
        """End busy and starting processes by force; the threads of idle ones ask them to end."""
        with self._changed:
            starting = [process for process in self._processes.values() if not process.is_up]
        for process in [*starting, *(submission.worker for submission in running)]:
            process.kill()
        limit = time.monotonic() + _CLOSE_LIMIT
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, limit - time.monotonic()))


class ProcessEndedError(Exception):
    """The message says how; `passing`: that was no fault of its own, and another may well do."""

    def __init__(self, cause: str, *, passing: bool = False) -> None:
        super().__init__(cause)
        self.passing = passing


class WorkerProcess:
    """A process that was asked to start, and whether it was ready once.

    One thread uses it; others may call `kill` and `interrupt` meanwhile. Methods raise
    `ProcessEndedError` where it cannot be started, ended, or had to be ended.
    """

    def __init__(self, number: int, method: StartMethod, memory_limit: int | None) -> None:
        self.number = number
        self.is_up = False
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._killed = False
        self._over = False
        verb = "spawn" if method == "spawn" else "fork"
        try:
            self._connection, theirs = multiprocessing.Pipe()
            with theirs:
                start = number, memory_limit, _paths(), os.getcwd()
                self.pid: int = _server.ask(verb, start, line=theirs.fileno())
            try:
                self._gone = open_process(self.pid)
            except OSError:
                os.kill(self.pid, signal.SIGKILL)
                raise
        except OSError as error:
            raise ProcessEndedError(
                f"a worker process cannot be started ({type(error).__name__}: {error}): use "
                'pool="threads", or fewer workers'
            ) from error

    def wait_until_ready(self) -> None:
        """Wait until it takes orders."""
        limit = time.monotonic() + _START_LIMIT
        while not wait([self._connection, self._gone], _LOOK):
            if _is_stopped(self.pid):
                self.end(0.0)
                cause = f"worker {self.number} was stopped while it started, and was killed"
                raise ProcessEndedError(cause, passing=True)
            if time.monotonic() > limit:
                self.kill()
        try:
            _, refusal = self.receive()
        except ProcessEndedError as error:
            cause = f"a worker process ended while it started ({error}): standard error may say why"
            raise ProcessEndedError(cause) from None
        if refusal is not None:
            self.end(1.0)
            raise ProcessEndedError(refusal)
        self.is_up = True

    def is_alive(self) -> bool:
        """Whether it is there, idle and as it should be: it says nothing unasked."""
        return not self._killed and not wait([self._connection, self._gone], 0.0)

    def send(self, message: object) -> None:
        """Send a message, however long that takes."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            raise ProcessEndedError(self.end(1.0)) from None

    def interrupt(self, message: object) -> None:
        """Send a short message, unless another is being sent or it would take long."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            with self._lock, suppress(OSError):
                writable = select.poll()
                if not self._over:
                    writable.register(self._connection, select.POLLOUT)
                if any(event == select.POLLOUT for _, event in writable.poll(0)):
                    self._connection.send(message)
        finally:
            self._sending.release()

    def receive(self) -> Any:
        """The next message of the process; one that sends what is none is ended."""
        wait([self._connection, self._gone])
        try:
            # What it sent before it died counts.
            data = self._connection.recv_bytes() if self._connection.poll() else b""
        except (OSError, EOFError):
            data = b""
        if not data:
            raise ProcessEndedError(self.end(1.0))
        try:
            return pickle.loads(data)
        except Exception as error:
            self.end(0.0)
            cause = f"worker {self.number} sent a report that cannot be read"
            raise ProcessEndedError(f"{cause} ({type(error).__name__}: {error})") from None

    def stop(self, grace: float) -> None:
        """Ask it to go; after `grace` seconds it is made to."""
        with suppress(OSError):
            self._connection.send(None)
        self.end(grace)

    def kill(self) -> None:
        """End it and its children by force, even stopped ones; what waits for it finds it gone."""
        with self._lock:
            self._killed = True
            if self._over:
                return
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            if not wait([self._gone], 0.0):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)  # it has no group before it is up
            hang_up(self._connection, socket.SHUT_RDWR)  # what it forked may have it open

    def end(self, grace: float) -> str:
        """Wait for its end, by force after `grace` seconds, and forget it; says how it ended."""
        if self._over:
            return f"worker {self.number} has ended"
        wait([self._gone], grace)
        self.kill()
        ended = wait([self._gone], _KILL_LIMIT)
        with self._lock:
            self._over = True  # its number may be another's once the server has been asked
            self._connection.close()
            os.close(self._gone)
        if not ended:
            return f"worker {self.number} does not end"
        code: int | None = None
        with suppress(Exception):
            code = _server.ask("wait", self.pid)
        return f"worker {self.number} {_how_ended(code)}"


class _Server:
    """The process of this program that starts workers; it is started when it is first needed.

    Where it gives no answer, as it was stopped, say, it is ended: the next worker has another one.
    Workers of the old one go on.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._alive: list[int] = []
        register(self)
        atexit.register(self.end)

    def _renew_in_fork(self) -> None:
        """A fork has a server of its own, and its parent's is no child of it."""
        if self.process is not None and self._channel is not None:
            self.process.returncode = 0
            self._channel.close()
        for descriptor in self._alive:
            os.close(descriptor)
        self.process, self._channel, self._alive = None, None, []

    def ask(self, verb: str, argument: Any, line: int | None = None) -> Any:
        """Send a request, and a file descriptor; the answer.

        Raises:
            OSError: What the server met, or that there cannot be any.
            ProcessEndedError: It gave no answer.
        """
        with self._lock:
            if self.process is None:
                if verb == "wait":
                    raise ChildProcessError("the server whose child it was is gone")
                self._start()
            try:
                answer = self._exchange(pickle.dumps((verb, argument)), line)
            except BaseException:
                self.end()  # the next request would get the answer to this one
                raise
            if not answer:
                self.end()
                raise ProcessEndedError(
                    "a worker process cannot be started (the process that starts them ended, or "
                    'gave no answer and was ended): use pool="threads"',
                    passing=True,
                )
        found = pickle.loads(answer)
        if isinstance(found, OSError):
            raise found
        return found

    def _exchange(self, request: bytes, line: int | None) -> bytes:
        """The answer; empty where there is none."""
        channel, process = self._channel, self.process
        assert channel is not None
        assert process is not None
        with suppress(ConnectionError):
            socket.send_fds(channel, [request], [] if line is None else [line])
            limit = time.monotonic() + _SERVER_LIMIT
            while not wait([channel], _LOOK):
                if time.monotonic() > limit or _is_stopped(process.pid):
                    return b""
            return channel.recv(1 << 17)
        return b""

    def _start(self) -> None:
        with standard_streams():
            read, write = os.pipe()
        try:
            with standard_streams():
                self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                descriptors = theirs.fileno(), read
                self.process = subprocess.Popen(
                    command("serve_starts", _paths(), *descriptors, os.getpid()),
                    env={**os.environ, **ONE_THREAD},
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    # Ctrl-C is the parent's to handle. In another session, which the scheduler
                    # treats as a whole, workers would wake up later.
                    process_group=0,
                )
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        self._alive.append(write)  # never closed: workers live as long as it is open

    def end(self) -> None:
        """End the server by force; workers go on."""
        process, self.process = self.process, None
        if process is not None and self._channel is not None:
            self._channel.close()
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_LIMIT)


_server = _Server()


def _paths() -> list[str]:
    return [os.path.abspath(path) for path in sys.path]


def _is_stopped(pid: int) -> bool:
    with suppress(psutil.Error, OSError):  # nor is that known without a free file descriptor
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False


def _how_ended(code: int | None) -> str:
    if code is None:
        return "ended, how is not known"
    if code < 0:
        name = next((known.name for known in signal.Signals if known == -code), "no name")
        return f"was ended by signal {-code} ({name})"
    return f"ended with exit code {code}"
