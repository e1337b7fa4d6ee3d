"""From counts to a task's estimate, for every backend that samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..subexperiments import (
    FragmentEstimate,
    FragmentExperiment,
    MeasurementGroup,
    SettingFamily,
    Task,
)

Counts: TypeAlias = tuple[MeasurementGroup, SettingFamily, slice, NDArray[Any]]
"""Counts of some of a family's settings for one group, with the shape
(rows, settings, observable · slot outcomes)."""


def estimate_from_counts(
    experiment: FragmentExperiment, task: Task, counts: Iterable[Counts]
) -> FragmentEstimate:
    """Reduce the counts of all circuits of a task to its estimate."""
    assert task.shots is not None, "exact tasks have no counts"
    rows, size = len(task.angles), experiment.layout.num_outcomes
    tables = {id(group): np.zeros((rows, group.num_outcomes, size)) for group in experiment.groups}
    taken: set[int] = set()
    for group, family, settings, table in counts:
        taken.update(np.unique(table.sum(axis=-1)).tolist())
        shape = rows, table.shape[1], group.num_outcomes, family.num_slot_outcomes
        arranged = table.reshape(shape).transpose(0, 2, 1, 3)
        tables[id(group)][:, :, family.places[settings]] = arranged
    if len(taken) != 1:
        raise BackendError(
            f"between {min(taken)} and {max(taken)} shots came back where {task.shots} were asked "
            "for: choose a number of shots that the sampler can take"
        )
    shots = int(taken.pop())
    return estimate_from_frequencies(
        experiment, task, [table / shots for table in tables.values()], shots
    )


def estimate_from_frequencies(
    experiment: FragmentExperiment, task: Task, tables: Sequence[NDArray[np.float64]], shots: int
) -> FragmentEstimate:
    """Reduce tables of relative frequencies of `shots` shots, one per group, to an estimate.

    Whatever becomes of a setting in it depends on the outcomes of that setting alone, and is zero
    where these are: estimates from parts of a table add up to the estimate from all of it.
    """
    layout = experiment.layout
    values = np.empty((len(task.angles), len(experiment.paulis), prod(experiment.fragment.shape)))
    covariances = []
    for group, table in zip(experiment.groups, tables, strict=True):
        values[:, list(group.paulis)] = layout.means(table, group)
        if task.covariances:
            covariances.append(layout.covariances(table, shots, group))
    return FragmentEstimate(values, tuple(covariances), shots)
