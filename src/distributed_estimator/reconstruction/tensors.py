"""Fragment tensors as they fill up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod

import numpy as np

from ..cutting import FloatArray, IntArray
from ..subexperiments import (
    LARGEST_DENSE,
    DrawnExperiment,
    FragmentExperiment,
    FragmentResult,
    MeasurementGroup,
    Readout,
    Sensitivity,
    Task,
    Unfolding,
    above_rounding,
    degrees_of,
)

_AT_ONCE = 1 << 20


class FragmentTensor:
    """The estimated tensor of one fragment for all its rows, from the `tasks` that make it up.

    Tasks may be added in any order: counts of shots are whole numbers, whose sums have no rounding.
    Weights are those of a `Design`, which undo errors of readout as well; None: those fixed by the
    gates and by what is known of these errors.

    Attributes:
        values: Shape (rows, paulis, product of ranks).
        counts: Per measurement group, shape (rows, products, slot outcomes); see `FragmentResult`.
    """

    def __init__(
        self,
        experiment: FragmentExperiment,
        rows: int,
        tasks: Sequence[Task],
        weights: Sequence[FloatArray] | None = None,
        readout: Readout | None = None,
    ) -> None:
        self.experiment, self.readout = experiment, readout
        self._weights = weights
        size, paulis = prod(experiment.fragment.shape), len(experiment.paulis)
        self.values: FloatArray = np.zeros((rows, paulis, size))
        self.counts: list[FloatArray] = []
        drawn = rows > 0 and isinstance(experiment, DrawnExperiment)
        if rows and not (experiment.num_circuits or drawn):  # all outcomes are sure
            layout = experiment.layout
            self.values[:] = layout.means(np.ones((1, paulis, layout.num_outcomes)))
        if drawn or any(task.shots is not None for task in tasks):
            size = experiment.layout.num_outcomes
            self.counts = [np.zeros((rows, len(g.products), size)) for g in experiment.groups]
        if drawn and not experiment.measures:
            self._estimate(slice(None))  # rows may have drawn settings with a sure outcome alone
        self._awaited = {task.key: task for task in tasks}
        self._left = Counter(task.start for task in tasks)

    @property
    def complete(self) -> bool:
        """Whether nothing is awaited any more."""
        return not self._awaited

    def add(self, task: Task, result: FragmentResult) -> None:
        """Fold the result of one task in.

        Raises:
            ValueError: The task is not awaited, or no longer.
        """
        if self._awaited.pop(task.key, None) is None:
            raise ValueError(
                f"task {task.key} is not awaited: it was added before, came after the tensor was "
                "settled, or is not among its tasks; add each of them once"
            )
        rows = slice(task.start, task.start + len(task.angles))
        if result.values is not None:
            self.values[rows] = result.values
        for total, part in zip(self.counts, result.counts, strict=True):
            total[rows] += part
        self._left[task.start] -= 1
        if self.counts and not self._left[task.start]:
            self._estimate(rows)

    def settle(self) -> list[Task]:
        """Do without the tasks that were not added, if every circuit has shots without them.

        Values and covariances are then those of the shots there are, and the tensor is complete.

        Returns:
            The tasks without which some circuits of some rows have no shots; if there are any,
            nothing else happens.
        """
        missing = [task for task in self._awaited.values() if self._needs(task)]
        if missing:
            return missing
        for task in self._awaited.values():
            if self._left.pop(task.start, 0):
                self._estimate(slice(task.start, task.start + len(task.angles)))
        self._awaited.clear()
        return []

    def _needs(self, task: Task) -> bool:
        """Whether circuits of a task have no shots from others."""
        if task.shots is None:
            return True
        rows = slice(task.start, task.start + len(task.angles))
        wanted = task.shots_of(self.experiment) > 0
        return bool((wanted & (self.shots(rows) == 0)).any())

    def shots(self, rows: slice | IntArray) -> FloatArray:
        """Shots that circuits have, shape (rows, measurement groups, settings)."""
        layout = self.experiment.layout
        return np.stack([layout.by_setting(own[rows, 0]) for own in self.counts], axis=1)

    def _estimate(self, rows: slice) -> None:
        for number, group in enumerate(self.experiment.groups):
            means = self._means(number, rows)[0][:, group.singles]
            if self._weights is None:
                if self._unfoldings is not None:
                    means = self._unfoldings[number].unfold(means)
                values = self.experiment.strata.means(means)
            else:
                values = (self._weights[number][rows] @ means[..., None])[..., 0]
            self.values[rows, list(group.paulis)] = values

    @cached_property
    def _unfoldings(self) -> list[Unfolding] | None:
        """Of every measurement group; None: there are no errors of readout to take out."""
        if self.readout is None:
            return None
        groups = range(len(self.experiment.groups))
        return [Unfolding(self.experiment, number, self.readout) for number in groups]

    def _means(self, number: int, rows: slice | IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean of every product of a group's Paulis at every outcome, and shots of strata."""
        return self.experiment.means(number, self.counts[number][rows], rows)

    def variances(self, sensitivity: Sensitivity) -> FloatArray:
        """What the fragment adds to the variance of each entry, to first order, (entries,)."""
        total, layout = np.zeros(len(sensitivity.rows)), self.experiment.strata
        for number, part, weights, means, shots in self._weighted(sensitivity):
            group = self.experiment.groups[number]
            spread = layout.spread(means, group, weights[:, :, None], shots)[:, 0]
            total[part] += (spread / degrees_of(shots)).sum(axis=1)
        return total

    def moved(self, sensitivity: Sensitivity) -> FloatArray:
        """How far entries move with a standard error of each physical qubit's readout.

        To first order; shape (entries, physical qubits of `readout`).
        """
        assert self.readout is not None
        assert self._unfoldings is not None
        total = np.zeros((len(sensitivity.rows), len(self.readout.qubits)))
        for number, part, weights, means, _ in self._weighted(sensitivity):
            singles = means[:, self.experiment.groups[number].singles]
            total[part] += self._unfoldings[number].moved(weights, singles)
        return total

    def _weighted(
        self, sensitivity: Sensitivity
    ) -> Iterator[tuple[int, slice, FloatArray, FloatArray, FloatArray]]:
        """Of every measurement group, some entries at a time: which, and the weights of outcomes.

        With these the means of all products, and the shots, of their rows.
        """
        layout = self.experiment.strata
        for number, group in enumerate(self.experiment.groups if self.counts else ()):
            numbers = max(len(group.products), len(group.paulis) * layout.size)
            step = max(1, _AT_ONCE // max(1, layout.num_outcomes * numbers))
            for start in range(0, len(sensitivity.rows), step):
                part = slice(start, start + step)
                rows = sensitivity.rows[part]
                weights = self._pulled_back(number, rows, sensitivity.vectors[0, part])
                yield number, part, weights, *self._means(number, rows)

    def variances_of(self, rows: IntArray, paulis: IntArray, vectors: FloatArray) -> FloatArray:
        """Variances of products of one Pauli's tensor with a vector each, shape (entries,).

        Args:
            rows: Shape (entries,).
            paulis: The same.
            vectors: Shape (entries, product of ranks).
        """
        total = np.zeros(len(rows))
        for part, spread, shots in self.spreads_of(rows, paulis, vectors):
            total[part] = (spread / degrees_of(shots)).sum(axis=1)
        return total

    def spreads_of(
        self, rows: IntArray, paulis: IntArray, vectors: FloatArray
    ) -> Iterator[tuple[IntArray, FloatArray, FloatArray]]:
        """The same of one shot of each setting, some entries at a time.

        Where a setting has one shot, its square stands in, which is larger on average.

        Yields:
            Which entries, an array of shape (entries, settings), and the shots of these settings.
        """
        layout = self.experiment.strata
        numbers, places = self.experiment.group_places
        for number, group in enumerate(self.experiment.groups if self.counts else ()):
            own = np.flatnonzero(numbers[paulis] == number)
            for row in np.unique(rows[own]).tolist():
                (means,), (shots,) = self._means(number, slice(row, row + 1))
                chosen = own[rows[own] == row]
                step = max(1, _AT_ONCE // max(1, layout.num_outcomes))
                for part in np.split(chosen, range(step, len(chosen), step)):
                    members = places[paulis[part]]
                    if self._weights is None:
                        weights = layout.pulled_back(vectors[part])
                        if self._unfoldings is not None:
                            unfolding = self._unfoldings[number]
                            weights = unfolding.sorted_out(weights) / unfolding.scale[members]
                    else:
                        weights = vectors[part, None] @ self._weights[number][row, members]
                        weights = weights[:, 0]
                    first = layout.by_setting(weights * means[group.singles[members]])
                    second = layout.by_setting(weights**2 * means[group.squares[members]])
                    spread = above_rounding(second - first**2, second)
                    yield part, np.where(shots == 1, second, spread), shots

    def add_covariances(self, total: FloatArray, sensitivity: Sensitivity) -> None:
        """Add what the fragment adds to the covariances of results, shape (results, results)."""
        layout = self.experiment.strata
        for number, group in enumerate(self.experiment.groups if self.counts else ()):
            pairs = group.pairs.reshape(len(group.paulis), -1)
            for row in np.unique(sensitivity.rows).tolist():
                chosen = np.flatnonzero(sensitivity.rows == row)
                rows = slice(row, row + 1)
                weights = self._pulled_back(number, rows, sensitivity.vectors[0, chosen])
                (means,), (shots,) = self._means(number, rows)
                degrees = degrees_of(shots)
                first = layout.by_setting((weights * means[group.singles]).sum(axis=1))
                first *= (shots != 1) / np.sqrt(degrees)
                own = -first @ first.T
                for left, right in np.ndindex(pairs.shape):
                    scaled = weights[:, left] * (
                        means[pairs[left, right]] / degrees[layout.setting_of]
                    )
                    own += scaled @ weights[:, right].T
                total[np.ix_(sensitivity.results[chosen], sensitivity.results[chosen])] += own

    def _pulled_back(self, number: int, rows: IntArray | slice, vectors: FloatArray) -> FloatArray:
        """Weights of a group's outcomes that estimate products with vectors.

        (entries, all paulis, product of ranks) -> (entries, paulis, slot outcomes). The rows are
        those of the entries, or one for all.
        """
        own = vectors[:, list(self.experiment.groups[number].paulis)]
        if self._weights is None:
            weights = self.experiment.strata.pulled_back(own)
            return weights if self._unfoldings is None else self._unfoldings[number].unfold(weights)
        return np.asarray((own[:, :, None] @ self._weights[number][rows])[:, :, 0])

    def select(self, rows: IntArray, paulis: IntArray) -> FloatArray:
        """Tensors of the given rows and Paulis, shape (queries, ranks…)."""
        return self.values[rows, paulis].reshape(len(rows), *self.experiment.fragment.shape)

    @cached_property
    def covariances(self) -> list[FloatArray]:
        """Per measurement group, shape (rows, pairs, product of ranks²), when complete."""
        return [self._covariances(*numbered) for numbered in enumerate(self.experiment.groups)]

    @property
    def covariance_work(self) -> tuple[int, int]:
        """Numbers that `covariances` hold, and multiplications that they take at least."""
        pairs = sum(len(group.paulis) ** 2 for group in self.experiment.groups)
        numbers = len(self.values) * pairs * self.values.shape[2] ** 2
        slotwise = self._weights is None and self.readout is None
        each = 1 if slotwise else self.experiment.layout.num_outcomes
        return numbers, numbers * each

    @property
    def has_covariances(self) -> bool:
        """Whether `covariances` can be had: slot by slot, or with weights that are not too many."""
        slotwise = self._weights is not None or self.readout is None
        return slotwise or len(self.values) * self.experiment.num_weights <= LARGEST_DENSE

    def _covariances(self, number: int, group: MeasurementGroup) -> FloatArray:
        means, shots = self._means(number, slice(None))
        layout = self.experiment.layout
        if self._weights is not None:
            weights = self._weights[number]
        elif self._unfoldings is not None:
            unit = layout.pulled_back(np.eye(layout.size))
            weights = np.broadcast_to(unit, (len(means), len(group.paulis), *unit.shape))
            weights = self._unfoldings[number].unfold(weights)
        else:
            return layout.covariances(means, group, shots)
        singles, pairs = means[:, group.singles], means[:, group.pairs]
        return layout.weighted_covariances(singles, pairs, shots, weights)

    def covariance(self, rows: IntArray, first: IntArray, second: IntArray) -> FloatArray:
        """Covariances between two Paulis' tensors, shape (queries, product of ranks²).

        Zero between groups, which share no shots.
        """
        if self.values.shape[1] == len(self.counts) == 1:
            return np.asarray(self.covariances[0][rows, 0])
        result = np.zeros((len(rows), self.values.shape[2] ** 2))
        if not self.counts:
            return result
        group, place = self.experiment.group_places
        shared = group[first] == group[second]
        for number, covariance in enumerate(self.covariances):
            chosen = np.flatnonzero(shared & (group[first] == number))
            members = self.experiment.groups[number]
            pair = members.pair(place[first[chosen]], place[second[chosen]])
            result[chosen] = covariance[rows[chosen], pair]
        return result
