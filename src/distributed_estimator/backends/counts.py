"""From counts to a task's estimate, for every backend that samples."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..subexperiments import (
    FragmentEstimate,
    FragmentExperiment,
    MeasurementGroup,
    SettingFamily,
    Task,
)

Counts: TypeAlias = tuple[MeasurementGroup, SettingFamily, NDArray[Any]]
"""Counts of a family's settings for one group, shape (rows, settings, outcomes)."""


def estimate_from_counts(
    experiment: FragmentExperiment, task: Task, counts: Iterable[Counts]
) -> FragmentEstimate:
    """Reduce the counts of all groups and families of a task, group by group, to its estimate."""
    assert task.shots is not None, "exact tasks have no counts"
    rows, size = len(task.angles), prod(experiment.fragment.shape)
    values = np.zeros((rows, len(experiment.paulis), size))
    covariances = {
        id(group): np.zeros((rows, len(group.paulis) ** 2, size * size))
        for group in experiment.groups
        if task.covariances
    }
    for group, family, table in counts:
        frequencies = table / task.shots
        values[:, list(group.paulis)] += family.means(frequencies, group)
        if task.covariances:
            covariances[id(group)] += family.covariances(frequencies, task.shots, group)
    return FragmentEstimate(values, tuple(covariances.values()))
