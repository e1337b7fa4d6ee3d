"""One thread for linear algebra, and what was before restored."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distributed_estimator.execution import pinning

# In a process of its own: threadpoolctl heeds the first thread that ever set a limit, and other
# tests have loaded other libraries.
BEFORE = """
import threading, numpy, threadpoolctl
from distributed_estimator.execution import pinning

def threads():
    return {info["num_threads"] for info in threadpoolctl.threadpool_info()}

threadpoolctl.threadpool_limits(2)
assert threads() == {2}, "or this test can not fail"
"""

NESTED = """
with pinning.one_thread():
    with pinning.one_thread():
        pass
    assert threads() == {1}
assert threads() == {2}
"""

RAISING = """
try:
    with pinning.one_thread():
        raise KeyError
except KeyError:
    assert threads() == {2}
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
assert threads() == {1}, "the last to leave restores"
leave.set()
holder.join(30.0)
assert threads() == {2}
"""

ONCE = """
with pinning.one_thread():
    pass
pinning.ThreadpoolController = None
with pinning.one_thread():
    assert threads() == {1}
"""


@pytest.mark.parametrize("program", [NESTED, RAISING, THREADS, ONCE])
def test_the_limit_holds_inside_and_what_was_before_comes_back(program):
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)

    with pinning.one_thread_environment():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ["MKL_NUM_THREADS"] == "1"

    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
