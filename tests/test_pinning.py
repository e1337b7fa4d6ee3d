"""One thread for linear algebra, and what was before restored."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from pool_works import Calls, Inbox, job_of
from threadpoolctl import threadpool_info

from distributed_estimator.execution import worker as pinning
from distributed_estimator.execution.pools.executors import ExecutorPool

HERE = str(Path(__file__).parent)

# In a process of its own: libraries read the environment once, and other tests have loaded others.
BEFORE = """
import sys, threading, numpy, qiskit_aer
from threadpoolctl import ThreadpoolController, threadpool_limits
from distributed_estimator.execution import worker as pinning

def threads(*apis):  # some have one thread in any case
    found = ThreadpoolController().lib_controllers
    return max(library.num_threads for library in found if library.user_api in apis)

def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(30.0)
    return results[0]

threadpool_limits(2, user_api="blas")
assert threads("blas") == 2, "or this test can not fail"
assert threads("openmp") == 4, "or this test can not fail"
"""

NESTED = """
with pinning.one_thread():
    with pinning.one_thread():
        pass
    assert threads("blas") == 1
assert threads("blas") == 2
"""


THREADS = """
inside, leave = threading.Event(), threading.Event()

def hold():
    with pinning.one_thread():
        inside.set()
        leave.wait(30.0)

holder = threading.Thread(target=hold)
with pinning.one_thread():
    holder.start()
    assert inside.wait(30.0)
assert threads("blas") == 1, "the last to leave restores"
leave.set()
holder.join(30.0)
assert threads("blas") == 2
"""

ONCE = """
with pinning.one_thread():
    pass
pinning.ThreadpoolController = None
with pinning.one_thread():
    assert threads("blas") == 1
"""

OPENMP = """
def enter():
    with pinning.one_thread():
        inside = threads("openmp")
    return inside, threads("openmp")

with pinning.one_thread():
    assert threads("openmp") == 1
    assert in_thread(enter) == (1, 4)
    assert threads("openmp") == 1
assert threads("openmp") == 4
"""

POOL = """
import numpy
from pool_works import Calls, Inbox, job_of
from distributed_estimator.execution.pools.executors import ExecutorPool
from distributed_estimator.execution.pools.executors import ThreadPool
from concurrent.futures import ThreadPoolExecutor

class Limits(Calls):
    def do_limits(self):
        return (numpy.array([float(threads("blas", "openmp"))]),)

for pool in (ThreadPool(1), ExecutorPool(ThreadPoolExecutor(1), 1)):
    inbox, job = Inbox(), job_of(Limits(), ("limits",))
    pool.submit(job, inbox)
    (end,) = inbox.until_over(job)
    assert end.outcomes[0].arrays[0].tolist() == [1.0], end
"""


def test_the_limit_holds_inside_and_what_was_before_comes_back():
    run("".join([BEFORE, NESTED, THREADS, OPENMP, POOL, ONCE]))


LATE = """
import numpy
from threadpoolctl import threadpool_info
from distributed_estimator.execution import worker as pinning

def openmp():
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "openmp"}

def all_threads():
    return {info["num_threads"] for info in threadpool_info()}

with pinning.one_thread():
    pass
assert openmp() == set(), "or this test can not fail"

import qiskit_aer

assert openmp() == {4}, "or this test can not fail"
with pinning.one_thread():
    assert all_threads() == {1}
assert openmp() == {4}
"""

LATE_INSIDE = """
from distributed_estimator.execution import worker as pinning

class Library:
    user_api = "blas"

    def __init__(self, filepath):
        self.filepath, self.num_threads = filepath, 4

    def set_num_threads(self, threads):
        self.num_threads = threads

class Loaded:
    lib_controllers = [Library("first")]

pinning.ThreadpoolController = Loaded
with pinning.one_thread():
    Loaded.lib_controllers = [Library("first"), Library("second")]
    Loaded.lib_controllers[0].num_threads = 1
    import xmlrpc.client
    with pinning.one_thread():
        pass
    assert [library.num_threads for library in Loaded.lib_controllers] == [1, 1]
assert Loaded.lib_controllers[1].num_threads == 4
"""

PROCESS = """
from distributed_estimator.execution import worker as pinning

pinning.pin_process()

import numpy, qiskit_aer
from threadpoolctl import threadpool_info

assert {info["num_threads"] for info in threadpool_info()} == {1}
"""


@pytest.mark.parametrize("program", [LATE, LATE_INSIDE, PROCESS])
def test_the_limit_holds_for_libraries_that_are_loaded_later(program):
    run(program)


def run(program):
    """Run a program in an environment that asks for four threads."""
    names = [*pinning.ONE_THREAD]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([HERE, *sys.path]),
            **dict.fromkeys(names, "4"),
        },
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_processes_of_an_executor_have_one_thread_while_they_run_tasks(monkeypatch):
    for name in pinning.ONE_THREAD:
        monkeypatch.setenv(name, "4")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        inbox, job = Inbox(), job_of(Limits(), ("limits",))
        ExecutorPool(executor, 1).submit(job, inbox)
        (end,) = inbox.until_over(job, timeout=60.0)
        after = executor.submit(limits_of_openmp).result()

    assert end.outcomes[0].arrays[0].tolist() == [1.0]
    assert after == {4}, "the process is the caller's"


class Limits(Calls):
    """Loads a library with threads where it is unpickled, and tells how many there are."""

    def __setstate__(self, state):
        self.__dict__.update(state)
        importlib.import_module("qiskit_aer")

    def do_limits(self):
        return (np.array([*map(float, limits_of_openmp())]),)


def limits_of_openmp():
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "openmp"}
