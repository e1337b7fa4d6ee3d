"""Faults for real: tasks that harm their worker once, and a harness that sees what became of all.

Times are `time.perf_counter()`, which all processes of a Linux machine share.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import resource
import signal
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil

from distributed_estimator.errors import ThrottledError
from distributed_estimator.execution import worker
from distributed_estimator.execution.driver import (
    Assignment,
    Attempt,
    Conditions,
    Stop,
    Tally,
    run_tasks,
)
from distributed_estimator.execution.messages import Arrays
from distributed_estimator.execution.policies import Policy, TaskSpec
from distributed_estimator.execution.stragglers import Constant, Stragglers

SECONDS = 0.05
"""What a task takes."""
MEBIBYTE = 1 << 20
ONE_TASK_A_JOB = Stragglers(0.0, Constant(0.0))
"""Delays nothing; but where delays are injected, tasks share no jobs."""

_SIZE = 64
_LONG = 600.0


def answer(number):
    """What a task is to give: numbers that follow from its own."""
    values = np.random.default_rng(number).standard_normal(_SIZE)
    return values, np.outer(values[:8], values[:8])


@dataclass(frozen=True)
class Faulty:
    """A work whose tasks are (number, verb): a verb but "meet" strikes in the first attempt alone.

    Where and when it struck is noted in the folder. "poison" strikes in every attempt.
    """

    folder: str
    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task):
        number, verb = task
        if verb == "meet":
            return self._meet()
        if verb is not None and (self._is_first(number) or verb == "poison"):
            return getattr(self, "do_" + verb)(number)
        time.sleep(SECONDS)
        return answer(number)

    def _is_first(self, number):
        (Path(self.folder) / f"attempt.{number}.{uuid4().hex}").touch()
        try:
            note = os.open(
                Path(self.folder) / f"struck.{number}", os.O_CREAT | os.O_EXCL | os.O_RDWR
            )
        except FileExistsError:
            return False
        os.write(note, f"{time.perf_counter()!r} {os.getpid()}".encode())
        os.close(note)
        return True

    def _meet(self):
        """Give this process's number once all that are to meet have come."""
        folder = Path(self.folder)
        (folder / f"met.{uuid4().hex}").touch()
        wanted = int((folder / "wanted").read_text())
        wait_until(lambda: len(list(folder.glob("met.*"))) >= wanted, "all workers come", 120.0)
        return (np.array([float(os.getpid())]),)

    def do_kill(self, number):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_stop(self, number):
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(_LONG)

    def do_segv(self, number):
        ctypes.string_at(0)

    def do_unplug(self, number):
        """Close every socket under whoever uses it."""
        for file in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{file}").startswith("socket:"):
                    os.close(int(file))
        return answer(number)

    def do_babble(self, number):
        """Send a few random bytes over every connection."""
        return self._send(number, np.random.default_rng().bytes(number % 11 + 1))

    def do_mumble(self, number):
        """Send the beginning of what Dask takes for a message, and never the rest."""
        return self._send(number, struct.pack("<Q", MEBIBYTE << 6) + b"x")

    def _send(self, number, content):
        lines = [c.fd for c in psutil.Process().net_connections("tcp") if c.raddr]
        assert lines
        for line in lines:
            os.write(line, content)
        return answer(number)

    def do_orphan(self, number):
        """Leave a child that holds all connections."""
        if not os.fork():
            time.sleep(_LONG)
        os.kill(os.getpid(), signal.SIGKILL)

    def do_poison(self, number):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_hang(self, number):
        """Hold the interpreter's lock, so that no thread of this process does anything."""
        ctypes.PyDLL(None).sleep(int(_LONG))

    def do_memory(self, number):
        """Take more and more; there must be a limit."""
        blocks = [np.ones(2 * MEBIBYTE) for _ in range(64)]
        time.sleep(30.0)
        raise AssertionError(f"{len(blocks)} blocks of 16 MiB met no limit")

    def do_own_memory(self, number):
        """The same, against the process's own limit."""
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = psutil.Process().memory_info().vms + 256 * MEBIBYTE
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        try:
            return self.do_memory(number)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

    def do_raise(self, number):
        raise ConnectionError("the line is dead")

    def do_throttle(self, number):
        raise ThrottledError("come again", retry_after=0.01)

    def do_nan(self, number):
        values, table = answer(number)
        return np.where(np.arange(_SIZE) == 5, np.nan, values), table

    def do_shape(self, number):
        return answer(number)[:1]

    def do_change(self, number):
        """Have the next result counted as another than it is, as if it changed on its way."""
        right = worker.checksum

        def wrong(arrays):
            worker.checksum = right
            return right(arrays) ^ 1

        worker.checksum = wrong
        return answer(number)

    def do_files(self, number):
        """Leave this process without a file descriptor for anybody, for good."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        return (np.array([float(os.open(os.devnull, os.O_RDONLY))]),)

    def do_late(self, number):
        """Answer only after another attempt has won."""
        wait_until((Path(self.folder) / f"folded.{number}").exists, "its duplicate wins")
        return answer(number)

    def do_wait(self, number):
        """Keep the run going until both attempts at task 0 have come back."""
        wait_until((Path(self.folder) / "landed.0.2").exists, "the late result comes")
        return answer(number)


def check(task, arrays):
    """Why arrays are not what a task gives; None where they may be."""
    if task[1] == "meet":
        return None
    shapes = [array.shape for array in arrays]
    if shapes != [(_SIZE,), (8, 8)]:
        return f"the shapes are {shapes}"
    return None if all(np.isfinite(array).all() for array in arrays) else "not all are finite"


def wait_until(condition, what, timeout=60.0):
    """Poll; an `AssertionError` where it was in vain."""
    limit = time.perf_counter() + timeout
    while not condition():
        assert time.perf_counter() < limit, f"in vain: {what}"
        time.sleep(0.01)


@dataclass
class Play:
    """What became of a run.

    Attributes:
        folded: By task, when its results were folded, and what they were.
        attempts: All that the driver told of.
        tally: What it gave back.
        error: What it raised.
    """

    folded: dict[int, list[tuple[float, Arrays]]] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    tally: Tally | None = None
    error: BaseException | None = None

    def of(self, number, status):
        """Attempts at a task that ended so."""
        return [a for a in self.attempts if a.task == number and a.status == status]


def play(pool, work, tasks, policy, *, stragglers=ONE_TASK_A_JOB, meanwhile=None, limit=90.0):
    """Run tasks under a time limit, and call `meanwhile` while they run.

    Raises:
        AssertionError: The run did not end in time.
    """
    played, stop, folder = Play(), Stop(), Path(work.folder)
    landings = {number: itertools.count(1) for number, _ in tasks}

    def fold(number, arrays, _more):
        played.folded.setdefault(number, []).append((time.perf_counter(), arrays))
        (folder / f"folded.{number}").touch()

    def watch(attempt):
        played.attempts.append(attempt)
        (folder / f"landed.{attempt.task}.{next(landings[attempt.task])}").touch()

    specs = [TaskSpec(f"{work.key} {number}", SECONDS) for number, _ in tasks]
    assignment = Assignment(work, tasks, specs, check, lambda task: f"task {task[0]}")
    conditions = Conditions(policy, stragglers, watch=watch, stop=stop)

    def run():
        try:
            played.tally = run_tasks(pool, assignment, fold, conditions)
        except BaseException as error:
            played.error = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        if meanwhile is not None:
            meanwhile()
        thread.join(limit)
        assert not thread.is_alive(), f"the run hangs: it did not end in {limit:g} s"
    finally:
        stop.ask()
        thread.join(30.0)
    return played


def assert_each_folded_once(played, numbers):
    """No result lost, doubled or changed."""
    counts = {number: len(folds) for number, folds in played.folded.items()}
    assert counts == dict.fromkeys(numbers, 1), f"times folded: {dict(sorted(counts.items()))}"
    for number in numbers:
        ((_, arrays),) = played.folded[number]
        for array, right in zip(arrays, answer(number), strict=True):
            assert array.tobytes() == right.tobytes(), f"task {number} was changed"


def struck(work, number):
    """When a task struck, and in which process."""
    at, pid = (Path(work.folder) / f"struck.{number}").read_text().split()
    return float(at), int(pid)


# --- processes ------------------------------------------------------------------------------------


def workers_of(pool):
    """The worker processes of this process's pools of that name, dead ones left out."""
    return [p for p in psutil.Process().children(recursive=True) if _is_worker(p, pool)]


def _is_worker(process, pool):
    line = _command(process)
    if pool == "processes":
        # The server's own parent is this process; the workers', as its forks, is the server.
        return "serve_starts" in line and _parent(process) != os.getpid()
    return line.startswith("ray::RayWorker") if pool == "ray" else "spawn_main" in line


def _parent(process):
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def children_called(name):
    """Processes below this one with that in their command line, dead ones left out."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if name in _command(process)]


def _command(process):
    """Its command line; nothing where it is dead."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # zombies count as such
        return ""


def is_gone(pid):
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def gather(pool, folder, count, timeout=120.0):
    """Have all workers meet, see that there are no others, and say which processes they are."""
    meeting = folder / uuid4().hex
    meeting.mkdir()
    (meeting / "wanted").write_text(str(count))
    tasks = [(number, "meet") for number in range(count)]
    played = play(pool, Faulty(str(meeting)), tasks, Policy(), limit=timeout)
    assert played.error is None, played.error
    pids = {int(folds[0][1][0][0]) for folds in played.folded.values()}
    assert len(pids) == count
    wait_until(
        lambda: {process.pid for process in workers_of(pool.name)} == pids,
        "no worker but those that met is there",
    )
    return sorted(pids)


def all_gone(processes, mark, timeout):
    """Wait until these processes, and all with that mark in their environment, are gone.

    Returns:
        How long that took, in seconds.
    """
    begin = time.perf_counter()
    wait_until(
        lambda: all(map(_has_ended, processes)) and not marked(mark), "no process is left", timeout
    )
    return time.perf_counter() - begin


def _has_ended(process):
    return not process.is_running() or is_gone(process.pid)


def marked(mark):
    """Processes that inherited a variable of that value; some, as Ray's, may have lost it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().values():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
