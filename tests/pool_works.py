"""Works that do to their worker what a test wants, and a harness that waits for a pool."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil

from distributed_estimator.errors import CircuitError, ThrottledError
from distributed_estimator.execution.messages import Finished, Item, Job, Lost, Started


@dataclass(frozen=True)
class Calls:
    """A work whose tasks are (verb, arguments…); every call is noted in a folder, if there is one.

    Verbs: ("value", x) gives x and x²; ("sleep", seconds); ("raise", text); ("exit", code);
    ("signal", number) to its own process; ("allocate", bytes); ("once", verb, arguments…) does it
    only in the first attempt anywhere, later ones give a value; ("pid",) gives the process;
    ("until", name) waits for a file in the folder; ("hold",) holds the interpreter's lock;
    ("strange",) raises what cannot be pickled, and ("lambda",) returns it; ("quit",) calls
    `sys.exit`; ("threads",) gives the most threads of a library for linear algebra; ("echo", array)
    gives it back; ("laden", how) returns arrays with, and ("harmful", how) raises what ends whoever
    unpickles it.
    """

    folder: str | None = None
    key: str = field(default_factory=lambda: uuid4().hex)

    def run(self, task):
        verb, *arguments = task
        if verb == "once":
            name = "-".join(map(str, task))
            first = not list(Path(self.folder).glob(f"{name}.*"))
            (Path(self.folder) / f"{name}.{uuid4().hex}").touch()
            verb, *arguments = arguments if first else ("value", 1.0)
        if self.folder is not None:
            (Path(self.folder) / f"call.{verb}.{os.getpid()}.{uuid4().hex}").touch()
        return getattr(self, "do_" + verb)(*arguments)

    def do_value(self, x):
        return np.array([x, x * x]), np.array([[x]])

    def do_pid(self):
        return (np.array([float(os.getpid())]),)

    def do_sleep(self, seconds):
        time.sleep(seconds)
        return (np.array([seconds]),)

    def do_raise(self, text):
        raise ValueError(text)

    def do_exit(self, code):
        os._exit(code)

    def do_signal(self, number):
        os.kill(os.getpid(), number)
        time.sleep(0.2)
        return (np.array([0.0]),)

    def do_until(self, name):
        while not (Path(self.folder) / name).exists():
            time.sleep(0.01)
        return (np.array([0.0]),)

    def do_hold(self):
        ctypes.PyDLL(None).sleep(1000)  # without letting go of the interpreter's lock

    def do_strange(self):
        raise StrangeError("strange", threading.Lock())

    def do_lambda(self):
        return (lambda: None,)

    def do_quit(self):
        sys.exit("quit")

    def do_laden(self, how):
        numbers = np.array([1.0, 2.0])
        if how == "subclass":
            return (numbers.view(Laden),)
        if how == "names":
            return (numbers.astype(np.dtype(np.float64, metadata={"name": Harm()})),)
        return (np.array([Harm()]),)

    def do_harmful(self, how):
        if how == "silent":
            raise SilentError
        error = {
            "args": HarmfulError(0, Harm()),
            "input": CircuitError("no such gate"),
            "throttled": ThrottledError("come again", retry_after=7.0),
        }[how]
        error.cause = Harm()
        raise error

    def do_threads(self):
        import threadpoolctl

        return (np.array([max(float(p["num_threads"]) for p in threadpoolctl.threadpool_info())]),)

    def do_echo(self, array):
        return (array,)

    def do_allocate(self, size):
        block = np.ones(size // 8)
        return (block[:1],)


class Harm:
    """Ends the thread that unpickles it."""

    def __reduce__(self):
        return sys.exit, ("unpickled",)

    def __repr__(self):
        return "Harm()"


class Laden(np.ndarray):
    """Ends the thread that unpickles it."""

    def __reduce_ex__(self, protocol):
        return sys.exit, ("unpickled",)


class HarmfulError(Exception):
    """Its arguments may hold anything."""


class SilentError(Exception):
    """Says nothing."""

    def __str__(self):
        sys.exit("asked")


class StrangeError(Exception):
    """Cannot be pickled."""

    def __init__(self, text, lock):
        super().__init__(text)
        self.lock = lock


class Counted(Calls):
    """Notes in its folder where it is unpickled."""

    def __setstate__(self, state):
        self.__dict__.update(state)
        (Path(self.folder) / f"unpickled.{os.getpid()}.{uuid4().hex}").touch()


class Unsendable(Calls):
    """Cannot be pickled."""

    def __getstate__(self):
        raise TypeError("holds a device")


def job_of(work, *tasks, number=0, delay=0.0, slow=None):
    """A job of these tasks."""
    return Job(number, work, tuple(Item(n, t, delay) for n, t in enumerate(tasks)), slow)


def wait_for_calls(folder, verb, count, timeout=60.0):
    """Wait until workers noted so many calls of a verb; the processes that did."""
    limit = time.monotonic() + timeout
    while len(calls := list(folder.glob(f"call.{verb}.*"))) < count:
        assert time.monotonic() < limit, f"{len(calls)} of {count} calls of {verb}"
        time.sleep(0.01)
    return [int(path.name.split(".")[2]) for path in calls]


class Inbox:
    """Keeps what a pool tells."""

    def __init__(self):
        self.messages = queue.Queue()
        self.seen = []
        self.ends = {}

    def __call__(self, message):
        self.messages.put(message)

    def receive(self, limit):
        message = self.messages.get(timeout=max(0.0, limit - time.monotonic()))
        self.seen.append(message)
        if isinstance(message, Finished | Lost):
            assert message.job not in self.ends, "a job ended twice"
            self.ends[message.job] = message

    def until_over(self, *jobs, timeout=30.0):
        """Wait until these jobs are over, whatever others are; their last messages, in order."""
        limit = time.monotonic() + timeout
        while not set(jobs) <= self.ends.keys():
            self.receive(limit)
        return [self.ends.pop(job) for job in jobs]

    def until_started(self, job, timeout=30.0):
        limit = time.monotonic() + timeout
        while not any(isinstance(m, Started) and m.job is job for m in self.seen):
            self.receive(limit)


SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "segv": signal.SIGSEGV}


class Program:
    """An interpreter and a session of its own for a program; all that it starts bears its mark.

    It finds the modules of the tests. Leave it as a context, and it is over.
    """

    def __init__(self, folder, text, *arguments, options=(), **environment):
        path = Path(folder) / "program.py"
        path.write_text(text)
        self.mark = uuid4().hex
        here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-u", *options, str(path), *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": here, "FAULTS_MARK": self.mark} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def descendants(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self, text=None, timeout=150.0):
        """Its output, its errors and its exit code."""
        return *self.process.communicate(text, timeout=timeout), self.process.returncode
