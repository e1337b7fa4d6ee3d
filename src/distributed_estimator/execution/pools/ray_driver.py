"""The process that speaks with Ray, and the actors that it starts.

Ray ends the process that drives it when its controller dies, allows one connection in a process,
and takes long to notice an address where nothing answers.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from . import child
from .child import Identity, end_processes, identity, led_by

_MOST_CANCELLED = 8
"""Runs that an actor remembers it need not run: it has one at a time, and one on its way."""
_TRIES = 3
"""A cluster starts a process for each of its clients, which on a busy machine may fail."""


class RayWorker:
    """What runs inside an actor.

    Args:
        place: Number of this worker among the pool's.
        paths: Where the caller's process finds modules.
    """

    def __init__(self, place: int, paths: list[str]) -> None:
        sys.path.extend(path for path in paths if path not in sys.path)
        self._place = place
        self._cancelled: deque[int] = deque(maxlen=_MOST_CANCELLED)
        self._changed = threading.Condition()
        from ..worker import pin_process  # here, as the driver does without

        pin_process()

    def about(self) -> tuple[dict[str, dict[str, str | None]], str, Identity]:
        """Versions of packages by worker, mark of the machine, and this process."""
        from .base import own_versions

        versions = {f"{self._place} on {socket.gethostname()}": own_versions()}
        return versions, _machine(), identity(psutil.Process())

    def stay(self) -> None:
        """Never returns: who waits for it learns at once when this process dies."""
        threading.Event().wait()

    def run(self, run: int, key: str, held: tuple[Any], items: bytes, delay: float) -> bytes:
        """Run a job.

        Args:
            run: Number of the submission.
            key: The work's.
            held: Where to fetch the work, pickled, if it is not here.
            items: The tasks, pickled.
            delay: Seconds that each task takes longer.

        Returns:
            Its `worker.Report`, pickled.
        """
        import ray

        from ..worker import run_job, unpack

        report = run_job(
            partial(unpack, key, lambda: ray.get(held[0]), items),
            wait=lambda seconds: self._wait(run, seconds),
            delay=delay,
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


def _machine() -> str:
    """The same for processes that see each other's numbers; host names need not differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


class Driver(child.Driver):
    """Drives Ray.

    Args:
        common: See `child.Driver`.
        options: What `ray.init` is called with.
        silence: Seconds for which one of Ray's own processes may be stopped.
    """

    def __init__(self, *common: Any, options: dict[str, Any], silence: float) -> None:
        self._ray: Any = None
        self._options = options
        self._silence = silence
        self._actors: dict[int, Any] = {}
        self._processes: dict[int, Identity] = {}
        self._works: dict[str, Any] = {}
        super().__init__(*common)

    def run(self) -> None:
        """Connect, and watch Ray: it may take a minute to notice that its controller is lost."""
        import ray

        connect(lambda: ray.init(**self._options))
        self._ray = ray
        remote: Any = ray.remote
        self._make = remote(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            max_concurrency=3,  # to run, to stay, and to cancel
        )(RayWorker)
        self.tell("connected")
        children = psutil.Process().children(recursive=True)
        vital = [c for c in children if _ask(c, "name") in ("gcs_server", "raylet")]
        stopped = 0
        dead: set[int] = set()
        while stopped < self._silence / child.BEAT_SECONDS:
            time.sleep(child.BEAT_SECONDS)
            self.tell("beat")
            states = {_ask(process, "status") for process in vital}
            if states & {"", psutil.STATUS_ZOMBIE}:
                self.tell("gone", "one of Ray's own processes ended")
                return
            stopped = stopped + 1 if psutil.STATUS_STOPPED in states else 0
            dead = self._report_dead(dead)
        self.tell("gone", f"one of Ray's own processes was stopped for {self._silence:g} s")

    def stop(self) -> None:
        """End the actors, and Ray where it is ours."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def left(self) -> list[Identity]:
        """Processes of the session, and of the actors on this machine."""
        return super().left() + [p for actor in self._processes.values() for p in _family(actor)]

    def explain(self, error: BaseException) -> str:
        """The reason, and what to do about it."""
        if self._ray is not None:
            return f"{type(error).__name__}: {clause(error)}"
        address = self._options["address"]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}"
        if "version mismatch" in reason.lower():
            return (
                f"Ray at {address!r} does not match this process ({reason}): install the "
                "same versions of Python and Ray on both"
            )
        return unreachable(None if address == "local" else address, reason)

    def _start(self, actor: int, place: int) -> None:
        handle = self._actors[actor] = self._make.remote(place, sys.path)
        self._when_done(handle.about.remote(), actor, lambda found: self._up(actor, *found))
        self._when_done(handle.stay.remote(), actor, lambda _: None)

    def _up(self, actor: int, versions: Any, machine: str, process: Identity) -> None:
        if machine == _machine() and actor in self._actors:
            self._processes[actor] = process
        self.tell("up", actor, versions)

    def _work(self, key: str, pickled: bytes) -> None:
        self._works[key] = self._ray.put(pickled)

    def _forget(self, key: str) -> None:
        del self._works[key]

    def _run(self, actor: int, run: int, key: str, items: bytes, delay: float) -> None:
        if actor in self._actors:
            # In a tuple, so that it is fetched only where the work is not there.
            held = (self._works[key],)
            report = self._actors[actor].run.remote(run, key, held, items, delay)
            self._when_done(report, actor, lambda r: self.tell("done", actor, run, None, r))

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
                self.tell("died", actor, clause(error))
            else:
                use(found)

        reference.future().add_done_callback(done)

    def _report_dead(self, before: set[int]) -> set[int]:
        """Report actors dead by now and `before`: Ray does not notice where a child lives on.

        What an actor forked holds the connections by whose end Ray knows.
        """
        dead = {actor for actor, (pid, _) in list(self._processes.items()) if _is_dead(pid)}
        for actor in dead & before:
            self.tell("died", actor, "its process ended")
        return dead


def connect(init: Callable[[], object]) -> None:
    """Connect to Ray, again where a cluster that was reached could not serve."""
    for left in reversed(range(_TRIES)):
        try:
            init()
        except ConnectionAbortedError:
            if not left:
                raise
        else:
            return


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


def clause(error: BaseException) -> str:
    """The one line of an error of Ray's that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    line = line.rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return line[:300].rstrip(". ")


def unreachable(address: str | None, reason: str) -> str:
    """Ray cannot be started, or reached at an address, and what to do about it."""
    if address is None:
        return f"Ray cannot be started on this machine ({reason}): see that `ray.init()` works"
    return (
        f"Ray cannot be reached at {address!r} ({reason}): see that the cluster runs and that the "
        "address is right, or leave `address` out to start Ray on this machine"
    )
