"""The process that speaks with Ray, and the actors that it starts.

Ray ends the process that drives it when its controller dies, allows one connection in a process,
and takes long to notice an address where nothing answers. None of that may befall the caller's
process, so a child drives Ray, and passes messages on.

From the pool come tuples: ("start", actor, number), ("work", key, pickled), ("forget", key),
("run", actor, run, key, pickled items, slow worker), ("cancel", actor, run) and ("end", actor). To
the pool go ("up", actor, versions, host), ("done", actor, run, pickled report),
("died", actor, cause), ("gone", cause), and ("beat",) twice a second.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from ..messages import SlowWorker
from ..pinning import pin_process
from ..worker import run_job, unpack
from .transfer import own_versions

Identity: TypeAlias = tuple[int, float]
"""Number of a process and when it began, in seconds since 1970: numbers are used again."""

_MOST_CANCELLED = 8
"""Runs that an actor remembers it need not run: it has one at a time, and one on its way."""

SECONDS_TO_LOOK = 0.5

_SECONDS_TO_END = 2.5
"""Ray may take so long to shut down; then its processes are ended by force."""


class RayWorker:
    """What runs inside an actor.

    Args:
        number: Of this worker among the pool's.
        paths: Where the caller's process finds modules.
    """

    def __init__(self, number: int, paths: list[str]) -> None:
        sys.path.extend(path for path in paths if path not in sys.path)
        self._number = number
        self._cancelled: deque[int] = deque(maxlen=_MOST_CANCELLED)
        self._changed = threading.Condition()
        pin_process()

    def about(self) -> tuple[dict[str, str | None], str, str, Identity]:
        """Versions of packages, name of the host, mark of the machine, and this process."""
        versions = dict(own_versions())
        return versions, socket.gethostname(), _machine(), identity(psutil.Process())

    def stay(self) -> None:
        """Never returns: who waits for it learns at once when this process dies."""
        threading.Event().wait()

    def run(
        self, run: int, key: str, held: tuple[Any], items: bytes, slow: SlowWorker | None
    ) -> bytes:
        """Run a job.

        Args:
            run: Number of the submission.
            key: The work's.
            held: Where to fetch the work, pickled, if it is not here.
            items: The tasks, pickled.
            slow: See `run_job`.

        Returns:
            Its `worker.Report`, pickled.
        """
        report = run_job(
            partial(unpack, key, lambda: _fetch(*held), items),
            wait=lambda seconds: self._wait(run, seconds),
            worker=self._number,
            slow=slow,
        )
        return pickle.dumps(report, pickle.HIGHEST_PROTOCOL)

    def cancel(self, run: int) -> None:
        """Leave out what is left of this run, even where it is still on its way here."""
        with self._changed:
            self._cancelled.append(run)
            self._changed.notify_all()

    def _wait(self, run: int, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: run in self._cancelled, seconds)


def _fetch(reference: Any) -> bytes:
    import ray

    pickled: bytes = ray.get(reference)
    return pickled


def identity(process: psutil.Process) -> Identity:
    """What tells a process from a later one with its number."""
    return process.pid, process.create_time()


def end_processes(identities: Iterable[Identity]) -> None:
    """End those that still run, by force, and wait a moment until they are gone."""
    ended = []
    for pid, began in identities:
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - began) < 1.0:
                process.kill()
                ended.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    psutil.wait_procs(ended, timeout=1.0)


def led_by(pid: int, group: Callable[[int], int]) -> list[Identity]:
    """All in the session or group of a process: what was forked and has lost its parent, too.

    Args:
        pid: The process, which may have ended.
        group: `os.getsid` or `os.getpgid`.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if group(process.pid) == pid:
                found.append(identity(process))
    return found


def _machine() -> str:
    """The same for processes that see each other's numbers; host names need not differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


class _Driver:
    """Does with Ray what the pool says, and tells the pool what happens."""

    def __init__(
        self, ray: Any, connection: Connection, folder: str | None, silence: float, parent: int
    ) -> None:
        self._ray = ray
        self._silence = silence
        self._connection = connection
        self._folder = folder
        self._parent = parent
        self._children = psutil.Process().children(recursive=True)
        self._actors: dict[int, Any] = {}
        self._processes: dict[int, Identity] = {}
        self._works: dict[str, Any] = {}
        self._ending = threading.Lock()
        self._outbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._make = ray.remote(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            max_concurrency=3,  # to run, to stay, and to cancel
        )(RayWorker)

    def serve(self) -> None:
        """Until the pool hangs up, or its process ends."""
        for target in (self._send, self._watch):
            threading.Thread(target=target, daemon=True).start()
        self._outbox.put(("connected",))
        try:
            while True:
                self._obey(*self._connection.recv())
        except (EOFError, OSError):
            return

    def _obey(self, verb: str, *arguments: Any) -> None:
        try:
            getattr(self, "_" + verb)(*arguments)
        except Exception as error:
            self._outbox.put(("gone", f"{type(error).__name__}: {clause(error)}"))

    def end(self) -> None:
        """End the actors, and Ray where it is ours; then this process."""
        self._ending.acquire()  # for good: whoever comes second waits for the exit
        left = _others()
        for process in self._processes.values():
            left += _family(process)
        timer = threading.Timer(_SECONDS_TO_END, self._leave, [left])
        timer.daemon = True
        timer.start()
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()
        self._leave(left)

    def _leave(self, left: list[Identity]) -> None:
        end_processes(left)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)  # past Ray's own clean-up, which can hang

    def _start(self, actor: int, number: int) -> None:
        handle = self._make.remote(number, sys.path)
        self._actors[actor] = handle
        self._when_done(handle.about.remote(), actor, lambda found: self._up(actor, found))
        stay = handle.stay.remote()
        self._when_done(stay, actor, lambda _: None)

    def _up(self, actor: int, found: tuple[Any, ...]) -> None:
        versions, host, machine, process = found
        if machine == _machine() and actor in self._actors:
            self._processes[actor] = process
        self._outbox.put(("up", actor, versions, host))

    def _work(self, key: str, pickled: bytes) -> None:
        self._works[key] = self._ray.put(pickled)

    def _forget(self, key: str) -> None:
        del self._works[key]

    def _run(self, actor: int, run: int, key: str, items: bytes, slow: SlowWorker | None) -> None:
        if actor not in self._actors:
            return
        # In a tuple, so that it is fetched only where the work is not there.
        held = (self._works[key],)
        report = self._actors[actor].run.remote(run, key, held, items, slow)
        self._when_done(report, actor, lambda r: self._outbox.put(("done", actor, run, r)))

    def _cancel(self, actor: int, run: int) -> None:
        if actor in self._actors:
            self._actors[actor].cancel.remote(run)

    def _end(self, actor: int) -> None:
        handle, process = self._actors.pop(actor, None), self._processes.pop(actor, None)
        if process is not None:
            end_processes(_family(process))  # a stopped process would outlast Ray's request
        if handle is not None:
            self._ray.kill(handle)

    def _when_done(self, reference: Any, actor: int, use: Any) -> None:
        def done(future: Any) -> None:
            try:
                found = future.result()
            except BaseException as error:
                self._outbox.put(("died", actor, clause(error)))
            else:
                use(found)

        reference.future().add_done_callback(done)

    def _send(self) -> None:
        """A thread of its own: whoever reads must never wait for a reader at the other end."""
        while True:
            try:
                self._connection.send(self._outbox.get())
            except OSError:
                return

    def _watch(self) -> None:
        """Ray itself may take a minute to notice that its controller has died or is stopped."""
        vital = [c for c in self._children if _ask(c, "name") in ("gcs_server", "raylet")]
        stopped, most = 0, self._silence / SECONDS_TO_LOOK
        dead: set[int] = set()
        while stopped < most:
            if os.getppid() != self._parent:
                self.end()
            time.sleep(SECONDS_TO_LOOK)
            self._outbox.put(("beat",))
            states = {_ask(process, "status") for process in vital}
            if states & {"", psutil.STATUS_ZOMBIE}:
                self._outbox.put(("gone", "one of Ray's own processes ended"))
                return
            stopped = stopped + 1 if psutil.STATUS_STOPPED in states else 0
            dead = self._tell_dead(dead)
        cause = f"one of Ray's own processes was stopped for {self._silence:g} s"
        self._outbox.put(("gone", cause))

    def _tell_dead(self, before: set[int]) -> set[int]:
        """Tell of actors dead by now and `before`: Ray does not notice where a child lives on.

        What an actor forked holds the connections by whose end Ray knows.
        """
        dead = {actor for actor, (pid, _) in list(self._processes.items()) if _is_dead(pid)}
        for actor in dead & before:
            self._outbox.put(("died", actor, "its process ended"))
        return dead


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _family(process: Identity) -> list[Identity]:
    """An actor's process, and what it forked, where Ray gives it a group of its own."""
    return [process, *led_by(process[0], os.getpgid)]


def _ask(process: psutil.Process, what: str) -> str:
    """Its name or status; nothing where it is gone."""
    try:
        return str(getattr(process, what)()) if process.is_running() else ""
    except psutil.NoSuchProcess:
        return ""


def _others() -> list[Identity]:
    """All that this process, which leads a session, has started."""
    return [found for found in led_by(os.getpid(), os.getsid) if found[0] != os.getpid()]


def clause(error: BaseException) -> str:
    """The one line of an error of Ray's that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    line = line.rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return line[:300].rstrip(". ")


def _end_unless(connected: threading.Event, parent: int, folder: str | None) -> None:
    """Until Ray is connected to, which may hang, see whether this process has lost its parent."""
    while not connected.wait(SECONDS_TO_LOOK):
        if os.getppid() != parent:
            end_processes(_others())
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)


def main(descriptor: int) -> None:
    """Connect as the first message says, then serve.

    Args:
        descriptor: Of the socket to the pool.
    """
    os.set_inheritable(descriptor, False)  # else Ray's processes would keep it open
    connection = Connection(descriptor)
    options, folder, silence, parent = connection.recv()
    connected = threading.Event()
    threading.Thread(target=_end_unless, args=(connected, parent, folder), daemon=True).start()
    try:
        import ray

        ray.init(**options)
        driver = _Driver(ray, connection, folder, silence, parent)
        connected.set()
    except BaseException as error:
        connection.send(("failed", type(error).__name__, " ".join(str(error).split())[:1000]))
        return
    try:
        driver.serve()
    finally:
        driver.end()
