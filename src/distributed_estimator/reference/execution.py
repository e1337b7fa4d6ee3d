"""The execution of subexperiments: a task each on a thread pool, or all of a query in one job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, SamplerPubResult

from ..backends.sampler import name_of
from ..backends.seeds import Repetition, draws_of, reseeded
from ..checks import check_kind
from ..errors import BackendError, InputError
from ..execution import Stragglers, Tally
from .aer import sampler_class, thread_options
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
                self.repetition.check(draws_of(task), self.shots, self.backend_name, int(seed))
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
