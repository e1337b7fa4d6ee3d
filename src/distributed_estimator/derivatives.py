"""From environments to derivatives by gate angles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .cutting import CutPlan
from .reconstruction import Reconstruction
from .subexperiments import Shifts

FloatArray = NDArray[np.float64]


def derivatives_by_angle(
    plan: CutPlan,
    reconstruction: Reconstruction,
    shifts: Sequence[Shifts],
    angles: FloatArray,
    parameters: Sequence[int],
) -> FloatArray:
    """Derivatives of every query by every gate angle.

    Args:
        plan: The plan.
        reconstruction: Of tensors that hold base rows first, then the shifted ones.
        shifts: Per fragment, the angles that depend on the parameters wanted.
        angles: Angles of all gates at every binding, shape (bindings, angles).
        parameters: Numbers of the parameters wanted.

    Returns:
        Shape (queries, angles); zero for angles that do not depend on these parameters.
    """
    queries = reconstruction.queries
    fragments = [
        (number, shift.columns, shift.derivatives(reconstruction.tensors[number].values))
        for number, shift in enumerate(shifts)
        if shift.angles
    ]
    wanted = frozenset(parameters)
    cores = [
        (len(plan.fragments) + number, column, cut.core_slopes(angles, index))
        for number, cut in enumerate(plan.cuts)
        for index, column in enumerate(cut.angles)
        if wanted & plan.normal.angles.depends_on(column)
    ]
    result = np.zeros((queries.count, angles.shape[1]))
    for part, environments in reconstruction.environments():
        entries = np.zeros((part.stop - part.start, result.shape[1]))
        for number, columns, slopes in fragments:
            chosen = slopes[:, queries.rows[number][part], queries.paulis[number][part]]
            environment = environments[number].reshape(len(entries), -1)
            entries[:, columns] = np.einsum("aer,er->ea", chosen, environment)
        for leaf, column, slopes in cores:
            chosen = slopes[queries.binding[part]]
            entries[:, column] = np.einsum("ers,ers->e", chosen, environments[leaf])
        np.add.at(result, queries.query[part], queries.weight[part, None] * entries)
    return result
