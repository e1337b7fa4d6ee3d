"""The execution of subexperiments: a task each on a thread pool, or all of a query in one job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, SamplerPubResult

from ..errors import BackendError, InputError, MissingExtraError
from ..execution import Stragglers, Tally
from .stages import Experiments, Results


@dataclass(frozen=True)
class Execution:
    """Runs the subexperiments of queries.

    Attributes:
        sampler: Any `BaseSamplerV2`; None: Aer's, one for each task, single-threaded.
        workers: Threads of the pool.
        shots: Shots of each subexperiment.
        deferred: Whether all of a query are one job, which needs no pool.
        stragglers: Delays to inject; None: none are.
        entropy: What seeds derive from.

    Raises:
        InputError: `stragglers` has a slow worker.
        MissingExtraError: `sampler` is None and qiskit-aer is not installed.
    """

    sampler: BaseSamplerV2 | None
    workers: int
    shots: int
    deferred: bool
    stragglers: Stragglers | None
    entropy: Any

    def __post_init__(self) -> None:
        if self.sampler is None:
            _aer_sampler()
        if self.stragglers is not None and self.stragglers.slow is not None:
            raise InputError(
                f"`stragglers` has {self.stragglers.slow!r}, and the reference's workers are "
                "threads without numbers: leave `slow` out"
            )

    @property
    def backend_name(self) -> str:
        """Package and class of the sampler."""
        kind = _aer_sampler() if self.sampler is None else type(self.sampler)
        return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"

    def run(self, experiments: Experiments, place: tuple[int, ...]) -> tuple[Results, Tally]:
        """Runs every subexperiment of the query at `place`, the numbers of call, PUB and query.

        Raises:
            BackendError: The sampler failed, whatever it raised.
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
            options = {"backend_options": {"max_parallel_threads": 1}}
            sampler = _aer_sampler()(seed=int(seed), options=options)
        return list(sampler.run(circuits, shots=self.shots).result())


def _aer_sampler() -> type[BaseSamplerV2]:
    try:
        from qiskit_aer.primitives import SamplerV2
    except ImportError as error:
        raise MissingExtraError("qiskit-aer", "aer", "the reference pipeline") from error
    sampler: type[BaseSamplerV2] = SamplerV2
    return sampler
