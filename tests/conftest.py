"""What all tests share: one thread for linear algebra, and reproducible property tests in CI."""

from __future__ import annotations

import gc
import os
import signal

import hypothesis
import pytest

# A shell has what it starts in the background ignore Ctrl-C, and programs hand that down.
signal.signal(signal.SIGINT, signal.default_int_handler)

# NumPy and torch read these once, when they are imported: later than this file.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Simulators warm up on their first call, so a deadline per example would fail by chance.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("reproducible", deadline=None, derandomize=True)
hypothesis.settings.load_profile("reproducible" if os.environ.get("CI") else "local")


def pytest_collection_finish() -> None:
    """Take what is imported by now out of the garbage collector's sight.

    It is the largest part of all objects by far, and lasts as long as the process: every full
    collection, which tests of threads and pools call by hand, would walk through it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def dest(capsys, monkeypatch, tmp_path_factory):
    """Runs the command `dest` in an empty folder, in this process; a single text is its words."""
    from helpers import Done

    from distributed_estimator.cli.main import main

    monkeypatch.chdir(tmp_path_factory.mktemp("here"))

    def run(*arguments):
        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        code = main(words[0].split() if len(words) == 1 else words)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def inbox():
    """Keeps what a pool reports."""
    from pool_works import Inbox

    return Inbox()


@pytest.fixture
def work(tmp_path):
    """A work that notes its calls, and lets go of whatever waits in it when the test is over."""
    from pool_works import Calls

    yield Calls(str(tmp_path))
    (tmp_path / "go").touch()
