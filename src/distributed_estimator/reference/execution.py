"""The execution of subexperiments: a task each on a thread pool, or all of a query in one job.

And Aer, which runs them unless another sampler is given: how many threads it simulates with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, SamplerPubResult
from threadpoolctl import ThreadpoolController

from ..backends.samplers import name_of
from ..backends.seeds import Repetition, draws_of, reseeded
from ..checks import check_kind, require
from ..errors import BackendError, InputError
from ..execution import Stragglers, Tally
from ..records import StragglerInfo
from ..records.environment import usable_processors
from .stages import Experiments, Results

_PURPOSE = "the reference pipeline"


@dataclass(frozen=True)
class Execution:
    """Runs the subexperiments of queries.

    Attributes:
        sampler: Any `BaseSamplerV2`; None: Aer's, one for each task.
        workers: Threads of the pool.
        shots: Shots of each subexperiment.
        deferred: Whether all of a query are one job, which needs no pool.
        stragglers: Delays to inject; None: none are.
        entropy: What seeds derive from.
        threads: Of each of Aer's samplers; None: as many as Aer chooses.
        repetition: Compares the tasks of all queries.

    Raises:
        InputError: `sampler` or `stragglers` is none, or the latter has a slow worker.
        MissingExtraError: `sampler` is None and qiskit-aer is not installed.
    """

    sampler: BaseSamplerV2 | None
    workers: int
    shots: int
    deferred: bool
    stragglers: Stragglers | None
    entropy: Any
    threads: int | None = 1
    repetition: Repetition = field(default_factory=Repetition, compare=False)

    def __post_init__(self) -> None:
        expected = "an instance of any Qiskit BaseSamplerV2, or None for Aer's"
        check_kind("sampler", self.sampler, BaseSamplerV2 | None, expected)
        if self.sampler is None:
            sampler_class(_PURPOSE)
        check_kind("stragglers", self.stragglers, Stragglers | None, "Stragglers, or None")
        if self.stragglers is not None and self.stragglers.slow is not None:
            raise InputError(
                f"`stragglers` has {self.stragglers.slow!r}, and the reference's workers are "
                "threads without numbers: leave `slow` out"
            )

    @property
    def backend_name(self) -> str:
        """Package and class of the sampler, its device, and Aer's threads where it has not one.

        What is simulated on other numbers of threads has a law of cost of its own.
        """
        if self.sampler is not None:
            return name_of(self.sampler)
        kind = sampler_class(_PURPOSE)
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        if self.threads == 1:
            return name
        return f"{name}(threads={'all' if self.threads is None else self.threads})"

    def recorded(self, tally: Tally) -> dict[str, Any]:
        """Fields of a query's record, with the delays of that query."""
        straggler, delays = StragglerInfo(), self.stragglers
        if delays is not None:
            injected = tally.injected, tally.injected_seconds
            straggler = StragglerInfo(delays.p, delays.delay.mean, *injected, delays.name)
        return {
            "shots": self.shots,
            "backend": self.backend_name,
            "pool": "none" if self.deferred else "threads",
            "subexp_workers": 1 if self.deferred else self.workers,
            "policy": "one job" if self.deferred else "eager",
            "straggler": straggler,
        }

    def run(self, experiments: Experiments, place: tuple[int, ...]) -> tuple[Results, Tally]:
        """Runs every subexperiment of the query at `place`, the numbers of call, PUB and query.

        Raises:
            BackendError: The sampler failed, with any exception, or repeats its random numbers.
        """
        circuits = [circuit for of in experiments.circuits.values() for circuit in of]
        sequence = np.random.SeedSequence(self.entropy, spawn_key=place)
        seeds, delays = sequence.generate_state(len(circuits)), self._delays(place, len(circuits))
        tasks = [[circuit] for circuit in circuits]
        if self.deferred:
            tasks, delays = [circuits], [fsum(delays)]
        try:
            done = self._run_tasks(tasks, seeds, delays)
        except Exception as error:
            raise BackendError(
                f"{self.backend_name} failed on a subexperiment: {error} If it lacks a gate, "
                "transpile the circuit first; if it refuses mid-circuit measurement, use "
                "`defer_measurements=True`"
            ) from error
        if self.sampler is not None:
            for task, seed in zip(done, seeds, strict=False):  # a deferred query has one task
                self.repetition.check(draws_of(task), self.backend_name, int(seed))
        ordered = (result for task in done for result in task)
        results = {label: [next(ordered) for _ in of] for label, of in experiments.circuits.items()}
        injected = sum(delay > 0 for delay in delays)
        return results, Tally(injected=injected, injected_seconds=fsum(delays))

    def _delays(self, place: tuple[int, ...], count: int) -> list[float]:
        """Seconds that each subexperiment is delayed, from what names it in all runs (§III)."""
        if self.stragglers is None:
            return [0.0] * count
        query = f"{self.entropy} {'.'.join(map(str, place))}"
        return [self.stragglers.seconds(f"{query} {number}", 0, 1) for number in range(count)]

    def _run_tasks(
        self, tasks: Sequence[Sequence[QuantumCircuit]], seeds: Any, delays: Sequence[float]
    ) -> list[list[SamplerPubResult]]:
        if self.deferred:
            return list(map(self._run_task, tasks, seeds, delays))
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._run_task, tasks, seeds, delays))

    def _run_task(
        self, circuits: Sequence[QuantumCircuit], seed: np.uint32, delay: float
    ) -> list[SamplerPubResult]:
        if delay > 0:
            time.sleep(delay)
        sampler = self.sampler
        if sampler is None:
            options = thread_options(self.threads)
            sampler = sampler_class(_PURPOSE)(seed=int(seed), options=options)
        else:
            sampler = reseeded(sampler, int(seed))
        return list(sampler.run(circuits, shots=self.shots).result())


def sampler_class(purpose: str) -> type[BaseSamplerV2]:
    """Aer's sampler.

    Args:
        purpose: What needs it, for the error.

    Raises:
        MissingExtraError: qiskit-aer is not installed.
    """
    module = require("qiskit_aer.primitives", "reference", purpose, "qiskit-aer")
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
