"""Derivatives by gate angles, from parameter shifts; influences of measurements on values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ..cutting import CutPlan, FloatArray, Fragment, IntArray, Operation
from ..cutting.angles import AngleTable
from ..subexperiments import FragmentExperiment, Sensitivity
from .reconstruction import Queries, Reconstruction


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

    @property
    def count(self) -> int:
        """Number of shifts: blocks of rows beside the base rows."""
        return len(self._shifts)

    @property
    def terms(self) -> Iterator[tuple[int, int, float]]:
        """Of every shift, its number, the column of its angle, and its weight in the derivative."""
        for place, (number, weight) in enumerate(self._weights):
            yield place, self.columns[number], weight

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


def gradients(
    plan: CutPlan,
    reconstruction: Reconstruction,
    shifts: Sequence[Shifts],
    angles: FloatArray,
    slopes: FloatArray,
    known: Mapping[int, FloatArray],
) -> FloatArray:
    """Derivatives of every query by parameters.

    Args:
        plan: The plan.
        reconstruction: Of tensors that hold base rows first, then the shifted ones, where the
            derivatives by their fragments' angles are not known.
        shifts: Of each fragment.
        angles: Angles of all gates at every binding, shape (bindings, angles).
        slopes: Of the angles, as `slopes_of_angles` gives them.
        known: By fragment, derivatives of every query by its angles, shape (queries, angles).

    Returns:
        Shape (queries, parameters).
    """
    queries = reconstruction.queries
    fragments = [
        (number, shift.columns, shift.derivatives(reconstruction.tensors[number].values))
        for number, shift in enumerate(shifts)
        if shift.columns and number not in known
    ]
    cores = list(_core_slopes(plan, angles, slopes))
    result = np.zeros((queries.count, angles.shape[1]))
    for number, own in known.items():
        result[:, plan.fragments[number].angles] = own
    for part, environments in reconstruction.environments() if fragments or cores else ():
        entries = np.zeros((part.stop - part.start, result.shape[1]))
        for number, columns, own in fragments:
            chosen = own[:, queries.rows[number][part], queries.paulis[number][part]]
            environment = environments[number].reshape(len(entries), -1)
            entries[:, columns] = np.einsum("aer,er->ea", chosen, environment)
        for leaf, column, core in cores:
            chosen = core[queries.binding[part]]
            entries[:, column] = np.einsum("ers,ers->e", chosen, environments[leaf])
        np.add.at(result, queries.query[part], queries.weight[part, None] * entries)
    return np.asarray((_of_queries(slopes, queries) @ result[:, :, None])[:, :, 0])


def sensitivities(
    plan: CutPlan,
    reconstruction: Reconstruction,
    shifts: Sequence[Shifts],
    angles: FloatArray,
    slopes: FloatArray,
) -> list[Sensitivity]:
    """How the `gradients` depend on the tensor of each fragment.

    A derivative by an angle depends on the shifted rows of its fragment, and on the base rows of
    all others. Results are numbered by query, then by parameter.
    """
    queries, tensors = reconstruction.queries, reconstruction.tensors
    of_queries, of_values = _of_queries(slopes, queries), reconstruction.sensitivities()
    parameters = slopes.shape[1]
    results = np.arange(queries.count * parameters).reshape(queries.count, parameters)
    totals = [np.zeros((*results.shape, *own.vectors.shape[2:])) for own in of_values]
    leaves = [
        (number, of_queries[:, :, shift.columns], shift.derivatives(tensors[number].values))
        for number, shift in enumerate(shifts)
        if shift.columns
    ]
    for number, own, derivatives in leaves:
        at_entries = derivatives[:, queries.rows[number], queries.paulis[number]]
        for parameter in np.flatnonzero(own.any(axis=(0, 2))).tolist():
            slope = np.einsum("ea,aer->er", own[queries.query, parameter], at_entries)
            _add_environments(totals, parameter, reconstruction, number, slope)
    for leaf, column, core in _core_slopes(plan, angles, slopes):
        own = of_queries[queries.query, :, column]
        for parameter in np.flatnonzero(own.any(axis=0)).tolist():
            slope = own[:, parameter, None, None] * core[queries.binding]
            _add_environments(totals, parameter, reconstruction, leaf, slope)
    found = []
    for number, (shift, value, total) in enumerate(zip(shifts, of_values, totals, strict=True)):
        rows = [np.repeat(value.rows, parameters)]
        which, vectors = [results.ravel()], [total.reshape(-1, *total.shape[2:])]
        base = len(tensors[number].values) // (1 + shift.count)
        for place, column, weight in shift.terms:
            query, by = np.nonzero(of_queries[:, :, column])
            rows.append(value.rows[query] + (1 + place) * base)
            which.append(results[query, by])
            factor = weight * of_queries[query, by, column]
            vectors.append(factor[:, None, None] * value.vectors[0, query])
        joined = map(np.concatenate, (rows, which, vectors))
        found.append(Sensitivity(next(joined), next(joined), next(joined)[None]))
    return found


def of_sums(
    found: Sequence[Sensitivity], weights: FloatArray, parameters: int
) -> list[Sensitivity]:
    """How derivatives of the sum of all queries with weights depend on the fragments' tensors.

    Args:
        found: The `sensitivities`, of which several draws of all queries may follow each other.
        weights: Shape (queries,).
        parameters: How many there are, and results of a draw.
    """
    summed = []
    for own in found:
        query, parameter = np.divmod(own.results, parameters)
        draw, query = np.divmod(query, len(weights))
        results = draw * parameters + parameter
        count = int(results.max(initial=-1)) + 1
        places, inverse = np.unique(own.rows * count + results, return_inverse=True)
        vectors = np.zeros((len(own.vectors), len(places), *own.vectors.shape[2:]))
        weighted = weights[query, None, None] * own.vectors
        np.add.at(vectors.swapaxes(0, 1), inverse, weighted.swapaxes(0, 1))
        summed.append(Sensitivity(*np.divmod(places, max(1, count)), vectors))
    return summed


def _add_environments(
    totals: Sequence[FloatArray],
    parameter: int,
    reconstruction: Reconstruction,
    leaf: int,
    slope: FloatArray,
) -> None:
    """Add derivatives of queries by all fragments but `leaf`, which `slope` takes the place of."""
    queries = reconstruction.queries
    for part, environments in reconstruction.environments(leaf, slope):
        query, weight = queries.query[part], queries.weight[part, None]
        for number, total in enumerate(totals):
            if number != leaf:
                own = weight * environments[number].reshape(len(query), -1)
                np.add.at(total[:, parameter], (query, queries.paulis[number][part]), own)


def _core_slopes(
    plan: CutPlan, angles: FloatArray, slopes: FloatArray
) -> Iterator[tuple[int, int, FloatArray]]:
    """Leaf, column of the angle and derivative by it of every core that depends on a parameter."""
    wanted = set(np.flatnonzero(slopes.any(axis=(0, 1))).tolist())
    for number, cut in enumerate(plan.cuts):
        for index, column in enumerate(cut.angles):
            if column in wanted:
                yield len(plan.fragments) + number, column, cut.core_slopes(angles, index)


def _of_queries(slopes: FloatArray, queries: Queries) -> FloatArray:
    """Slopes at every query's binding, shape (queries, parameters, angles)."""
    if len(slopes) == 1:
        return np.broadcast_to(slopes, (queries.count, *slopes.shape[1:]))
    binding = np.zeros(queries.count, dtype=np.intp)
    binding[queries.query] = queries.binding
    return slopes[binding]


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
