"""Derivatives by gate angles, from parameter shifts; influences of measurements on values."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..cutting import CutPlan, FloatArray, Fragment, IntArray, Operation
from ..cutting.angles import AngleTable
from ..subexperiments import FragmentExperiment
from .reconstruction import Queries, Reconstruction, quadratic_form


class Shifts:
    """The angles of a fragment's gates that are functions of any of `parameters`, to shift.

    Attributes:
        columns: Their columns of the plan's angle table.
    """

    def __init__(self, fragment: Fragment, table: AngleTable, parameters: Collection[int]) -> None:
        wanted = frozenset(parameters)
        angles = [
            (local, step.kernel.shift_rules[index])
            for step in fragment.steps
            if isinstance(step, Operation) and step.kernel is not None
            for index, local in enumerate(step.angles)
            if wanted & table.depends_on(fragment.angles[local])
        ]
        self.columns = [fragment.angles[local] for local, _ in angles]
        self._shifts = [(local, shift) for local, rule in angles for shift in rule.shifts]
        self._weights = [(n, w) for n, (_, rule) in enumerate(angles) for w in rule.weights]

    def rows(self, base: FloatArray) -> FloatArray:
        """Base rows, then all of them shifted once per term of each angle's rule."""
        blocks = [base]
        for local, shift in self._shifts:
            block = base.copy()
            block[:, local] += shift
            blocks.append(block)
        return np.concatenate(blocks)

    def derivatives(self, values: FloatArray) -> FloatArray:
        """Derivatives of a fragment tensor from its values at `rows`.

        (rows, …) -> (angles, base rows, …).
        """
        blocks = values.reshape(1 + len(self._shifts), -1, *values.shape[1:])[1:]
        result = np.zeros((len(self.columns), *blocks.shape[1:]))
        for (number, weight), block in zip(self._weights, blocks, strict=True):
            result[number] += weight * block
        return result


def by_angle(
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
        shifts: Of each fragment.
        angles: Angles of all gates at every binding, shape (bindings, angles).
        parameters: Numbers of the parameters wanted.

    Returns:
        Shape (queries, angles); zero for angles that do not depend on these parameters.
    """
    queries = reconstruction.queries
    fragments = [
        (number, shift.columns, shift.derivatives(reconstruction.tensors[number].values))
        for number, shift in enumerate(shifts)
        if shift.columns
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


def slopes_of_angles(
    plan: CutPlan, shifts: Sequence[Shifts], values: FloatArray, parameters: Sequence[int]
) -> FloatArray:
    """Slopes of the angles that queries depend on, by some of the circuit's parameters.

    Returns:
        Shape (bindings, or 1 where they are the same at all, parameters wanted, angles).

    Raises:
        InputError: A slope is not finite.
    """
    used = {column for shift in shifts for column in shift.columns}
    used |= {column for cut in plan.cuts for column in cut.angles}
    return plan.normal.angles.jacobian(values, parameters, used)


def by_parameter(by_angle: FloatArray, slopes: FloatArray, binding: IntArray) -> FloatArray:
    """Derivatives of every query by parameters, by the chain rule; (queries, parameters)."""
    own = slopes if len(slopes) == 1 else slopes[binding]
    return np.asarray((own @ by_angle[:, :, None])[:, :, 0])


def influences_of_terms(
    experiments: Sequence[FragmentExperiment], queries: Queries, inverses: Sequence[IntArray]
) -> list[FloatArray]:
    """How much the queries depend on each row's measurements, as far as the observables say.

    These are the magnitudes of all terms' weights, summed over the queries and over the terms that
    act on the fragment. A fragment that none acts on is there for what it passes on to others: all
    terms count.

    Returns:
        Per fragment, shape (rows, measurement groups).
    """
    weights, tables = np.abs(queries.weight), []
    for number, (experiment, inverse) in enumerate(zip(experiments, inverses, strict=True)):
        paulis, groups = queries.paulis[number], experiment.group_places[0]
        acts = np.array([bool(pauli) or not experiment.measures for pauli in experiment.paulis])
        table = np.zeros((int(inverse.max(initial=-1)) + 1, len(experiment.groups)))
        np.add.at(table, (queries.rows[number], groups[paulis]), weights * acts[paulis])
        tables.append(table)
    return tables


def influences_measured(reconstruction: Reconstruction) -> list[FloatArray]:
    """How much the queries depend on each row's measurements, as far as samples say.

    These are the shares in the queries' variances, to first order and term by term.

    Returns:
        Per fragment, shape (rows, measurement groups).

    Raises:
        PlanTooLargeError: The environments do not fit in memory.
    """
    queries, tensors = reconstruction.queries, reconstruction.tensors
    tables = [np.zeros((len(t.values), len(t.experiment.groups))) for t in tensors]
    for part, environments in reconstruction.environments():
        weights = queries.weight[part, None]
        for number, (tensor, table) in enumerate(zip(tensors, tables, strict=True)):
            rows, paulis = queries.rows[number][part], queries.paulis[number][part]
            own = weights * environments[number].reshape(len(weights), -1)
            covariances = tensor.covariance(rows, paulis, paulis)
            variances = quadratic_form(own, covariances, own, tensor.experiment.fragment.shape)
            groups = tensor.experiment.group_places[0][paulis]
            np.add.at(table, (rows, groups), np.maximum(variances, 0.0))
    return tables
