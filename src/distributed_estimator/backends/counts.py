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

Counts: TypeAlias = tuple[MeasurementGroup, SettingFamily, NDArray[Any]]
"""Counts of a family's settings for one group, (rows, settings, observable · slot outcomes)."""


def estimate_from_counts(
    experiment: FragmentExperiment, task: Task, counts: Iterable[Counts]
) -> FragmentEstimate:
    """Reduce the counts of all groups and families of a task to its estimate."""
    assert task.shots is not None, "exact tasks have no counts"
    rows, size = len(task.angles), experiment.layout.num_outcomes
    tables = {id(group): np.zeros((rows, group.num_outcomes, size)) for group in experiment.groups}
    for group, family, table in counts:
        if (table.sum(axis=-1) != task.shots).any():
            raise BackendError(
                f"{int(table.sum(axis=-1).min())} shots came back where {task.shots} were asked "
                "for: choose a number of shots that the sampler can take"
            )
        shape = rows, family.num_settings, group.num_outcomes, family.num_slot_outcomes
        frequencies = table.reshape(shape).transpose(0, 2, 1, 3) / task.shots
        tables[id(group)][:, :, family.places] = frequencies
    return estimate_from_frequencies(experiment, task, list(tables.values()))


def estimate_from_frequencies(
    experiment: FragmentExperiment, task: Task, tables: Sequence[NDArray[np.float64]]
) -> FragmentEstimate:
    """Reduce tables of relative frequencies, one per measurement group, to a task's estimate."""
    assert task.shots is not None, "exact tasks have no frequencies"
    layout = experiment.layout
    values = np.empty((len(task.angles), len(experiment.paulis), prod(experiment.fragment.shape)))
    covariances = []
    for group, table in zip(experiment.groups, tables, strict=True):
        values[:, list(group.paulis)] = layout.means(table, group)
        if task.covariances:
            covariances.append(layout.covariances(table, task.shots, group))
    return FragmentEstimate(values, tuple(covariances))
