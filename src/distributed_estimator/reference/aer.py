"""Aer's sampler, and how many threads it simulates with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qiskit.primitives import BaseSamplerV2
from threadpoolctl import ThreadpoolController

from ..checks import require
from ..records.environment import usable_processors


def sampler_class(purpose: str) -> type[BaseSamplerV2]:
    """Aer's sampler.

    Args:
        purpose: What needs it, for the error.

    Raises:
        MissingExtraError: qiskit-aer is not installed.
    """
    module = require("qiskit_aer.primitives", "aer", purpose, "qiskit-aer")
    sampler: type[BaseSamplerV2] = module.SamplerV2
    return sampler


def thread_options(threads: int | None) -> dict[str, Any]:
    """Options of Aer's sampler for so many threads; None: no option, so that Aer chooses."""
    return {} if threads is None else {"backend_options": {"max_parallel_threads": threads}}


@contextmanager
def lifted_limit(threads: int | None) -> Iterator[int]:
    """Lets Aer simulate with so many threads meanwhile, for any value of `OMP_NUM_THREADS`.

    Aer takes no more threads than OpenMP gives it, even where its options name more, and OpenMP
    gives as many as that variable said when the program began: where it is 1, Aer's own choice
    would be 1, too. OpenMP keeps a limit for each thread that calls it, and Aer simulates all jobs
    of a process on one thread of its own: so the limit is set there, by a job.

    Args:
        threads: How many; None: as many as the process has processors, which is what OpenMP gives
            where nothing limits it.

    Yields:
        How many threads OpenMP gives to Aer meanwhile.

    Raises:
        MissingExtraError: qiskit-aer is not installed.
    """
    sampler_class("a number of simulator threads")
    wanted = (usable_processors() or 1) if threads is None else threads
    before = _on_thread_of_aer(_limits)
    try:
        _on_thread_of_aer(lambda: _set_limits([(library, wanted) for library, _ in before]))
        yield wanted if before else 1
    finally:
        _on_thread_of_aer(lambda: _set_limits(before))


def _on_thread_of_aer(call: Callable[[], Any]) -> Any:
    from qiskit_aer.jobs import AerJob

    job = AerJob(None, "threads", lambda *_: call())
    job.submit()
    return job.result()


def _limits() -> list[tuple[Any, int]]:
    """Every OpenMP that is loaded, with the limit of the calling thread."""
    found = ThreadpoolController().select(user_api="openmp").lib_controllers
    return [(library, library.num_threads) for library in found]


def _set_limits(limits: list[tuple[Any, int]]) -> None:
    for library, threads in limits:
        library.set_num_threads(threads)
