"""Seeds of samplers, and whether a sampler repeats its random numbers in spite of them.

Simulators are given a new seed for every task. Some cannot be: a wrapper hides its simulator, a
class of the caller's ignores the seed. If such a sampler has a seed of its own, every task draws
the same random numbers, and values err by more than their standard errors say. Shots that were
taken anyway show it: nothing extra runs, which on a device would cost a job.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from qiskit.primitives import BackendSamplerV2, BaseSamplerV2, StatevectorSampler

from ..cutting import FloatArray
from ..errors import BackendError
from ..forks import Lock

_LARGEST_SEED = 2**31
_BLOCK = 16
"""Neighbouring shots of a circuit that could have come in any order."""
_BLOCKS = 256
"""Blocks of a task that are looked at."""
_MOST_BLOCKS = 64
"""Blocks of a circuit that are looked at."""
_MOST_TASKS = 64
"""Tasks that are remembered."""
_CERTAIN = 15 * math.log(10)


def comes_from(thing: object, package: str) -> bool:
    """Whether the class of a thing, or one that it is derived from, is of a package."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(thing).__mro__)


def reseeded(sampler: BaseSamplerV2, seed: int) -> BaseSamplerV2:
    """A copy of a local simulator with another seed; a sampler that takes none, as it is.

    Attributes of a subclass stay, and so does the seed of the sampler itself. A backend's own seed
    gives way to that of its sampler.
    """
    seed %= _LARGEST_SEED
    fresh: Any = copy.copy(sampler)
    if isinstance(sampler, StatevectorSampler):
        # A generator, not a number: with a number every circuit would draw the same.
        fresh._seed = np.random.default_rng(seed)
    elif comes_from(sampler, "qiskit_aer"):
        fresh._seed = seed
    elif isinstance(sampler, BackendSamplerV2):
        fresh._options = replace(sampler.options, seed_simulator=seed)
    elif _is_local_runtime(sampler):
        options = copy.copy(sampler.options)
        options.simulator = copy.copy(options.simulator)
        options.simulator.seed_simulator = seed
        setattr(fresh, "_options" if hasattr(fresh, "_options") else "options", options)
    else:
        return sampler
    return fresh


def repeats_by_shots(sampler: BaseSamplerV2) -> bool:
    """Whether PUBs of a job that have different numbers of shots would draw the same.

    Aer and `BackendSamplerV2`, which the runtime's local mode may run on, send those with one
    number to their simulator together, and each such group with the same seed.
    """
    return reseeded(sampler, 0) is not sampler and not isinstance(sampler, StatevectorSampler)


def _is_local_runtime(sampler: BaseSamplerV2) -> bool:
    return type(getattr(sampler, "_service", None)).__name__ == "QiskitRuntimeLocalService"


def repeats_within_jobs(sampler: BaseSamplerV2) -> bool:
    """Whether a simulator takes its seed for each PUB of a job again.

    The runtime's newer sampler does in local mode: equal PUBs of a job have equal shots.
    """
    newer = any(".executor_sampler" in kind.__module__ for kind in type(sampler).__mro__)
    return newer and _is_local_runtime(sampler)


def draws_of(results: Iterable[Any]) -> FloatArray:
    """Evidence in a job's results of the random numbers behind them.

    Simulators turn a uniform random number into an outcome by a cumulative distribution, so the
    same number gives a high outcome in two circuits, or a low one, at any angles.

    Args:
        results: Results of PUBs. Only those with as many shots as the first one has count.

    Returns:
        The number of blocks of shots that a circuit has; then for each block, circuit by circuit, a
        number whose bits say which shots had an outcome above the circuit's mean; shape (257,),
        padded with zeros.
    """
    found = np.zeros(_BLOCKS)
    size = first = 0
    for result in results:
        registers = [
            bits.array.reshape(-1, *bits.array.shape[-2:]) for bits in result.data.values()
        ]
        blocks = min(registers[0].shape[1] // _BLOCK, _MOST_BLOCKS) if registers else 0
        first = first or blocks
        if not blocks or blocks != first:
            continue
        circuits = slice((_BLOCKS - size) // blocks)
        # Bytes, the most significant one first.
        packed = np.concatenate(registers, axis=-1)[circuits, : blocks * _BLOCK]
        outcomes = packed @ 256.0 ** -np.arange(packed.shape[2])
        high = outcomes > outcomes.mean(axis=1, keepdims=True)
        numbers = high.reshape(-1, _BLOCK) @ (1 << np.arange(_BLOCK))
        found[size : size + numbers.size] = numbers
        size += numbers.size
    return np.concatenate([[first], found])


class Repetition:
    """Finds tasks, or circuits of one, that were drawn from the same random numbers.

    Let two circuits have k ≤ m high outcomes in a block of n = 16 shots. If they are independent,
    and one's neighbouring shots could have come in any order, all k of them coincide with some of
    the m with the probability p = C(m, k) / C(n, k). The evidence of a block is (1 + 1/p) / 2 if
    they do and 1/2 if not, which is 1 on average; so is the product over blocks, whose chance of
    exceeding 10¹⁵ is therefore at most 10⁻¹⁵ (Markov's inequality). A task is compared with 64
    earlier ones, each and all together, and its first circuit with the others: **less than one in
    10¹³ tasks of an independent sampler is taken for a repetition.** The same random numbers
    coincide in every block: 100 shots of a balanced outcome show it, or 250 of one with the
    probability 0.1. Circuits whose outcome is certain, or with fewer than 16 shots, show nothing.
    Nor do tasks whose shots did not come in random order (sorted, or made from counts): they change
    too seldom or too often from one shot to the next.
    """

    def __init__(self) -> None:
        self._earlier: deque[tuple[int, int, NDArray[np.int64]]] = deque(maxlen=_MOST_TASKS)
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Repetition], tuple[()]]:
        return Repetition, ()

    def check(self, draws: FloatArray | None, backend: str, seed: int) -> None:
        """Compare a task with those before it, by its `draws_of`; None: they are independent.

        Tasks with the same seed draw the same by right: of a run that is repeated, or by chance, as
        samplers take 31 bits of it.

        Raises:
            BackendError: They were drawn from the same random numbers.
        """
        if draws is None or not draws[0]:
            return
        blocks, task = int(draws[0]), draws[1:].astype(np.int64)
        seed %= _LARGEST_SEED
        with self._lock:
            alike = [t for b, own, t in self._earlier if b == blocks and own != seed]
            self._earlier.append((blocks, seed, task))
        circuits = task[: len(task) // blocks * blocks].reshape(-1, blocks)
        if not _in_random_order(circuits):
            return
        earlier = _evidence(np.array(alike, dtype=np.int64).reshape(-1, len(task)), task)
        totals = *earlier.sum(axis=1), earlier.sum(), _evidence(circuits[1:], circuits[0]).sum()
        if max(totals) > _CERTAIN:
            raise BackendError(
                f"the sampler of {backend} drew the same random numbers for circuits that ought to "
                "be independent, so that standard errors would be wrong: it has a seed of its own "
                "that cannot be replaced. Take the seed out of it, or of what it wraps, and give "
                "EstimatorOptions(seed=...) for reproducible values; that replaces the seeds of "
                "Qiskit's and Aer's own samplers, and of the runtime's in local mode"
            )


def _in_random_order(circuits: NDArray[np.int64]) -> bool:
    """Whether outcomes change as often within blocks as on average over all orders."""
    high = np.bitwise_count(circuits).mean(axis=1) / _BLOCK
    expected = circuits.shape[1] * (_BLOCK - 1) * 2 * (high * (1 - high)).sum()
    changes = np.bitwise_count((circuits ^ circuits >> 1) & (1 << _BLOCK - 1) - 1).sum()
    return bool(abs(changes - expected) <= min(expected / 4, 3 * math.sqrt(expected)))


@cache
def _log_evidence() -> FloatArray:
    """Of a block where the fewer high outcomes coincide with the others, by how many both have."""
    fewer, more = np.sort(np.indices((_BLOCK + 1, _BLOCK + 1)), axis=0)
    comb = scipy.special.comb
    ratio: FloatArray = comb(_BLOCK, fewer) / comb(more, fewer)
    return np.log((1 + ratio) / 2)


def _evidence(ones: NDArray[np.int64], others: NDArray[np.int64]) -> FloatArray:
    """Logarithms of the evidence of every block."""
    one, other = np.bitwise_count(ones), np.bitwise_count(others)
    coincide = np.bitwise_count(ones & others) == np.minimum(one, other)
    return np.where(coincide, _log_evidence()[one, other], -math.log(2))
