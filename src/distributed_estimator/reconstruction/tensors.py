"""Fragment tensors as they fill up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod

import numpy as np

from ..cutting import FloatArray, IntArray
from ..subexperiments import FragmentEstimate, FragmentExperiment, Task


class FragmentTensor:
    """The estimated tensor of one fragment for all its rows, from the `tasks` that make it up.

    Tasks may be added in any order: no bit of the result depends on it.

    Attributes:
        values: Shape (rows, paulis, product of ranks).
        covariances: Per measurement group, shape (rows, paulis², product of ranks²).
    """

    def __init__(self, experiment: FragmentExperiment, rows: int, tasks: Sequence[Task]) -> None:
        self.experiment = experiment
        size = prod(experiment.fragment.shape)
        fill = np.ones if experiment.is_trivial else np.zeros
        self.values: FloatArray = fill((rows, len(experiment.paulis), size))
        self.covariances: list[FloatArray] = []
        self._awaited = {task.key: task for task in tasks}
        divided = sorted((task for task in tasks if not task.undivided), key=_order)
        self._blocks = {
            start: _Block(list(own)) for start, own in groupby(divided, lambda task: task.start)
        }

    @property
    def complete(self) -> bool:
        """Whether nothing is awaited any more."""
        return not self._awaited

    def add(self, task: Task, estimate: FragmentEstimate) -> None:
        """Fold the result of one task in.

        Raises:
            ValueError: The task is not awaited, or no longer.
        """
        if self._awaited.pop(task.key, None) is None:
            raise ValueError(
                f"task {task.key} is not awaited: it was added before, came after the tensor was "
                "settled, or is not among its tasks; add each of them once"
            )
        if task.undivided:
            self._fold(task, estimate)
            return
        block = self._blocks[task.start]
        block.arrived[task.key] = estimate
        for pooled in block.pooled():
            self._fold(task, pooled)

    def settle(self) -> list[Task]:
        """Do without the tasks that were not added, if every circuit has shots without them.

        Values and covariances are then those of the shots there are, and the tensor is complete.

        Returns:
            The tasks without which some circuits of some rows have no shots; if there are any,
            nothing else happens.
        """
        missing = [task for task in self._awaited.values() if task.undivided]
        missing += [task for block in self._blocks.values() for task in block.missing()]
        if missing:
            return missing
        for block in self._blocks.values():
            for pooled in block.pooled(settle=True):
                self._fold(block.parts[0][0], pooled)
        self._awaited.clear()
        return []

    def _fold(self, task: Task, estimate: FragmentEstimate) -> None:
        rows = slice(task.start, task.start + len(task.angles))
        self.values[rows] += estimate.values
        if estimate.covariances and not self.covariances:
            self.covariances = [
                np.zeros((len(self.values), *c.shape[1:])) for c in estimate.covariances
            ]
        for total, part in zip(self.covariances, estimate.covariances, strict=True):
            total[rows] += part

    def select(self, rows: IntArray, paulis: IntArray) -> FloatArray:
        """Tensors of the given rows and Paulis, shape (queries, ranks…)."""
        return self.values[rows, paulis].reshape(len(rows), *self.experiment.fragment.shape)

    def covariance(self, rows: IntArray, first: IntArray, second: IntArray) -> FloatArray:
        """Covariances between two Paulis' tensors, shape (queries, product of ranks²).

        Zero between groups, which share no shots.
        """
        if self.values.shape[1] == len(self.covariances) == 1:
            return np.asarray(self.covariances[0][rows, 0])
        result = np.zeros((len(rows), self.values.shape[2] ** 2))
        if not self.covariances:
            return result
        group, place = self.experiment.group_places
        shared = group[first] == group[second]
        for number, covariance in enumerate(self.covariances):
            chosen = np.flatnonzero(shared & (group[first] == number))
            width = len(self.experiment.groups[number].paulis)
            pair = place[first[chosen]] * width + place[second[chosen]]
            result[chosen] = covariance[rows[chosen], pair]
        return result


class _Block:
    """Tasks of the same rows: parts with circuits of their own, each divided by shots.

    Sums of floats depend on their order, so that parts are folded in by their number. Results that
    have `arrived` wait by their task's key until then.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.parts = [list(part) for _, part in groupby(tasks, lambda task: task.circuits)]
        self.arrived: dict[str, FragmentEstimate] = {}
        self._folded = 0

    def pooled(self, *, settle: bool = False) -> Iterator[FragmentEstimate]:
        """Estimates by the next parts in turn, as long as these are complete.

        With `settle`, parts of which anything arrived are as complete as they get.
        """
        for part in self.parts[self._folded :]:
            own = [task for task in part if task.key in self.arrived]
            if not own or (len(own) < len(part) and not settle):
                return
            self._folded += 1
            yield _pool([self.arrived.pop(task.key) for task in own])

    def missing(self) -> list[Task]:
        """All tasks of the parts of which nothing arrived."""
        waiting = self.parts[self._folded :]
        empty = [part for part in waiting if self.arrived.keys().isdisjoint(t.key for t in part)]
        return [task for part in empty for task in part]


def _pool(results: Sequence[FragmentEstimate]) -> FragmentEstimate:
    """One estimate from several by the same circuits, weighted by their shots."""
    if len(results) == 1:
        return results[0]
    shots = [estimate.shots or 0 for estimate in results]
    weights = [own / sum(shots) for own in shots]
    values = sum(w * estimate.values for w, estimate in zip(weights, results, strict=True))
    covariances = [
        sum(w**2 * c for w, c in zip(weights, same, strict=True))
        for same in zip(*(estimate.covariances for estimate in results), strict=True)
    ]
    return FragmentEstimate(np.asarray(values), tuple(map(np.asarray, covariances)), sum(shots))


def _order(task: Task) -> tuple[int, tuple[int, int], tuple[int, int]]:
    return task.start, task.circuits or (0, 0), task.chunk
