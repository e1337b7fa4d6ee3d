"""One thread for linear algebra, and what was before restored."""

from __future__ import annotations

import os
import threading

import pytest
import threadpoolctl

from distributed_estimator.execution import pinning


def threads():
    return [info["num_threads"] for info in threadpoolctl.threadpool_info()]


@pytest.fixture
def many():
    """Linear algebra with two threads around a test."""
    with threadpoolctl.threadpool_limits(2):
        yield threads()


def test_the_limit_holds_inside_and_what_was_before_comes_back(many):
    assert set(many) == {2}, "or this test can not fail"

    with pinning.one_thread():
        assert set(threads()) == {1}

    assert threads() == many


def test_it_nests(many):
    with pinning.one_thread():
        with pinning.one_thread():
            pass
        assert set(threads()) == {1}

    assert threads() == many


def test_an_error_inside_restores_too(many):
    with pytest.raises(KeyError), pinning.one_thread():
        raise KeyError

    assert threads() == many


def test_the_last_of_several_threads_restores(many):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with pinning.one_thread():
            inside.set()
            leave.wait(30.0)

    holder = threading.Thread(target=hold)
    with pinning.one_thread():
        holder.start()
        assert inside.wait(30.0)
    limited = threads()
    leave.set()
    holder.join(30.0)

    assert set(limited) == {1}
    assert threads() == many


def test_libraries_are_looked_for_once(many, monkeypatch):
    with pinning.one_thread():
        pass
    monkeypatch.setattr(pinning, "ThreadpoolController", None)

    with pinning.one_thread():
        assert set(threads()) == {1}


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)

    with pinning.one_thread_environment():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ["MKL_NUM_THREADS"] == "1"

    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
