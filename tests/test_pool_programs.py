"""Programs that end in one way or another: nothing that their pools have started is left."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil
import pytest
from pool_works import Program

PROGRAM = """
import gc, os, re, signal, sys, time
from pathlib import Path
import psutil
from pool_works import Calls, Inbox, job_of, wait_for_calls
from distributed_estimator.execution.pools import {pool}

HELPERS = re.compile("serve_starts")

folder = Path(sys.argv[1])
pool, inbox, work = {pool}(2{arguments}), Inbox(), Calls(str(folder))
first = job_of(work, ("value", 1.0))
pool.submit(first, inbox)
inbox.until_over(first, timeout=150.0)
jobs = [job_of(work, task) for task in {tasks}]
for job in jobs:
    pool.submit(job, inbox)
for job in jobs:
    wait_for_calls(folder, job.items[0].task[0], 1)
started = [
    process for process in psutil.Process().children(recursive=True)
    if process.ppid() != os.getpid() or not HELPERS.search(str(process.cmdline()))
]  # without the one that all process pools share
print(*(process.pid for process in started), flush=True)
sys.stdin.readline()
{end}
"""
GONE = "psutil.wait_procs(started, timeout=20); assert not any(p.is_running() for p in started)"
BUSY = [("signal", int(signal.SIGSTOP)), ("hold",)]
"""One worker is stopped, the other one holds its interpreter's lock."""

ENDS = {
    "close": "pool.close(); " + GONE,
    "collect": "del pool, job, jobs, first; gc.collect(); " + GONE,
    "exit": "",
    "kill": "time.sleep(1000)",
    "interrupt": "time.sleep(1000)",
}
QUICK = ("exit", "kill", "interrupt")
CASES = [
    pytest.param(
        pool, end, marks=() if pool == "ProcessPool" and end in QUICK else pytest.mark.soak
    )
    for pool in ("ProcessPool", "DaskPool", "RayPool")
    for end in ENDS
    if pool == "ProcessPool" or end != "collect"  # all pools have one finaliser
]


def assert_nothing_is_left(folder, pool, end, tasks, arguments=""):
    text = PROGRAM.format(pool=pool, end=ENDS[end], tasks=tasks, arguments=arguments)
    with Program(folder, text, folder, options=["-W", "error"]) as made:
        started = []
        for pid in made.process.stdout.readline().split():
            with contextlib.suppress(psutil.NoSuchProcess):
                started.append(psutil.Process(int(pid)))
        assert started, "the program ended too early"
        if end == "kill":
            made.process.kill()
        elif end == "interrupt":
            os.killpg(made.process.pid, signal.SIGINT)
        _, errors, _ = made.wait(None if end in ("kill", "interrupt") else "\n", timeout=60)
        _, alive = psutil.wait_procs(started, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    if end == "interrupt":
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
        assert errors.count("Traceback") == 1, "the program's own, and no worker's"
    else:
        assert errors == ""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("pool", "end"), CASES)
def test_nothing_is_left_of_a_program_with_busy_workers(tmp_path, pool, end):
    assert_nothing_is_left(tmp_path, pool, end, BUSY)


@pytest.mark.soak
@pytest.mark.parametrize("pool", ["DaskPool", "RayPool"])
def test_nothing_is_left_of_a_program_with_idle_workers(tmp_path, pool):
    assert_nothing_is_left(tmp_path, pool, "exit", [])


@pytest.mark.soak
def test_nothing_is_left_of_a_program_whose_workers_were_spawned(tmp_path):
    assert_nothing_is_left(tmp_path, "ProcessPool", "kill", BUSY, ', start_method="spawn"')


CLOSED = """
import os, sys
for stream in range(3):
    os.close(stream)
from pool_works import Calls, Inbox, job_of
from distributed_estimator.execution.pools import {pool}

pool, inbox, job = {pool}(1), Inbox(), job_of(Calls(), ("value", 1.0))
pool.submit(job, inbox)
(end,) = inbox.until_over(job, timeout=150.0)
with open(os.path.join(sys.argv[1], "done"), "w") as file:
    file.write(str(end.outcomes[0].error))
"""


@pytest.mark.soak
@pytest.mark.parametrize("pool", ["DaskPool", "RayPool"])
def test_a_program_without_standard_streams_has_workers(tmp_path, pool):
    with Program(tmp_path, CLOSED.format(pool=pool), tmp_path) as made:
        *_, code = made.wait()

    assert code == 0
    assert (tmp_path / "done").read_text() == "None"
