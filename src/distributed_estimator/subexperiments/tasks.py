"""From the bindings of an experiment to tasks of bounded size, and what comes back of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .experiments import FragmentExperiment

FloatArray = NDArray[np.float64]

_FEWEST_SHOTS = 2
"""Shots a chunk has at least, where there are as many: one shot says nothing of its spread."""


@dataclass(frozen=True, eq=False)
class Task:
    """Subexperiments handed to a worker together: circuits of some bindings of a fragment.

    Attributes:
        key: Hash of its place: run, experiment, first row, circuits and chunk.
        experiment: Number of the experiment among those of the run.
        start: Number of the first row among the experiment's rows.
        angles: Local angles in radians, shape (rows, angles of the fragment).
        shots: Shots per circuit and row that this task asks for; None for exact values.
        seed: Seed of everything random in the task, from the same hash.
        covariances: Whether the covariances of sampled values are wanted, too.
        circuits: First circuit and how many, in the order of `FragmentExperiment.family_parts`;
            None: all.
        chunk: Number of the task among those that share the shots of its circuits, and how many
            these are; (0, 1): it has all shots.
    """

    key: str
    experiment: int
    start: int
    angles: FloatArray
    shots: int | None
    seed: int
    covariances: bool
    circuits: tuple[int, int] | None = None
    chunk: tuple[int, int] = (0, 1)

    @property
    def undivided(self) -> bool:
        """Whether it holds all there is of its rows."""
        return self.circuits is None and self.chunk == (0, 1)

    def num_subexperiments(self, experiment: FragmentExperiment) -> int:
        """Circuits times bindings that it runs."""
        circuits = experiment.num_circuits if self.circuits is None else self.circuits[1]
        return len(self.angles) * circuits


@dataclass(frozen=True, eq=False)
class FragmentEstimate:
    """What a task says of a fragment tensor; estimates by different circuits add up.

    Attributes:
        values: Shape (rows, paulis, product of slot ranks), in slot coordinates.
        covariances: One array per measurement group, shape (rows, paulis of the group
            squared, product of squared slot ranks); empty where they are not wanted.
        shots: Shots per circuit and row that it is made of, which a backend may choose otherwise
            than it was asked to; None for exact values.
        draws: What shows whether two tasks drew the same random numbers, shape (any,); None:
            the backend knows that they did not.
    """

    values: FloatArray
    covariances: tuple[FloatArray, ...]
    shots: int | None
    draws: FloatArray | None = None


def make_tasks(
    number: int,
    experiment: FragmentExperiment,
    angles: FloatArray,
    shots: int | None,
    run: str,
    *,
    rows_per_task: int,
    circuits_per_task: int | None,
    chunks: int,
    covariances: bool,
) -> Iterator[Task]:
    """Divide an experiment into tasks with their own keys and seeds.

    Both derive from names and positions alone, as computed numbers are rounded differently on
    another processor. They depend on how an experiment is divided, so that may depend on neither
    the pool nor the time. Exact values come from a binding as a whole: such tasks are divided by
    rows alone.

    Args:
        number: The experiment's place in the run.
        experiment: What is run.
        angles: Local angles, shape (rows, angles of the fragment).
        shots: Shots per subexperiment, None for exact.
        run: Names the run and stage; every task's seed derives from it and from the task's key.
        rows_per_task: Rows a task holds at most.
        circuits_per_task: Subexperiments a task holds at most, the circuits of a row being
            divided where they are more; None: never divided.
        chunks: Tasks that share the shots of the same circuits, as evenly as possible; fewer
            where one would be left with a single shot.
        covariances: Whether the covariances of sampled values are wanted.
    """
    parts: list[tuple[int, int] | None] = [None]
    sizes = [shots]
    if shots is not None:
        sizes = [*_even(shots, max(1, min(chunks, shots // _FEWEST_SHOTS)))]
        if circuits_per_task is not None:
            whole = max(1, experiment.num_circuits)
            rows_per_task = min(rows_per_task, max(1, circuits_per_task // whole))
            parts = _runs(experiment.num_circuits, circuits_per_task)
    wanted = covariances and shots is not None
    for start in range(0, len(angles), rows_per_task):
        rows = np.ascontiguousarray(angles[start : start + rows_per_task])
        for circuits in parts:
            for place, size in enumerate(sizes):
                chunk = place, len(sizes)
                name = f"{run} {number} {start}{_division(circuits, chunk)}"
                digest = hashlib.sha256(name.encode()).hexdigest()
                key, seed = digest[:32], int(digest[32:], 16)
                yield Task(key, number, start, rows, size, seed, wanted, circuits, chunk)


def _runs(count: int, most: int) -> list[tuple[int, int] | None]:
    """Runs of at most so many circuits; None where one would hold all."""
    if count <= most:
        return [None]
    return [(first, min(most, count - first)) for first in range(0, count, most)]


def _even(total: int, parts: int) -> Iterator[int]:
    least, larger = divmod(total, parts)
    return (least + (part < larger) for part in range(parts))


def _division(circuits: tuple[int, int] | None, chunk: tuple[int, int]) -> str:
    """What tells the tasks of the same rows apart: nothing where there is but one."""
    text = "" if circuits is None else f" circuits {circuits[0]} {circuits[1]}"
    return text if chunk == (0, 1) else f"{text} chunk {chunk[0]} {chunk[1]}"
