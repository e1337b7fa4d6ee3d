"""From the columns of a table, or the pixels of an image, to the features of a network.

What is fitted is fitted on the training part alone, and kept: rows that come later go the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .sources import FloatArray, RawData, sklearn

if TYPE_CHECKING:
    from .workloads import WorkloadConfig

_DEFAULT_FEATURES = 8

_GRIDS = {4: (2, 2), 6: (2, 3), 8: (2, 4), 10: (2, 5), 16: (4, 4)}
"""Rows and columns of the pooling grid, by the number of features."""

_CONSTANT = 1e-14
"""A column that varies less than this, relative to its values, varies by rounding."""

_SMALLEST = 1e-150
"""Squares of anything smaller underflow."""

_NO_VARIANCE = 1e-20
"""A principal component with less of the first one's variance is rounding."""


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The way from rows of a table to features.

    Of a row x these are scale · (matrix · (x / divisor) - shift) + offset, clipped.

    Attributes:
        columns: Names of the columns that rows have, in their order.
        target: Name of the column of classes, which is none of them.
        bounds: Least and greatest value of a feature.
        divisor: Shape (columns,).
        matrix: Shape (features, columns); None: every column is a feature.
        shift: Shape (features,), like scale and offset.
    """

    columns: tuple[str, ...]
    target: str
    bounds: tuple[float, float]
    divisor: FloatArray
    matrix: FloatArray | None
    shift: FloatArray
    scale: FloatArray
    offset: FloatArray

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Features of shape (rows, features), from shape (rows, columns)."""
        reduced = _reduced(rows, self.divisor, self.matrix, self.shift)
        return np.clip(reduced * self.scale + self.offset, *self.bounds)


def fit(raw: RawData, train: FloatArray, config: WorkloadConfig) -> Preprocessing:
    """What reduces and scales the training rows, of shape (samples, columns), as configured.

    Raises:
        InputError: The rows do not vary enough, or cannot be reduced so.
    """
    divisor, matrix, shift = _reduction(raw, train, config)
    reduced = _reduced(train, divisor, matrix, shift)
    # The scaler takes a range below 2e-15 for none. A power of 2 changes the unit and no digit.
    _, powers = np.frexp(np.ptp(reduced, axis=0))
    scaler = sklearn("preprocessing", config.title).MinMaxScaler(config.feature_range)
    scaler.fit(np.ldexp(reduced, -powers))
    return Preprocessing(
        columns=raw.columns,
        target=raw.target,
        bounds=config.feature_range,
        divisor=divisor,
        matrix=matrix,
        shift=shift,
        scale=np.ldexp(scaler.scale_, -powers),
        offset=scaler.min_,
    )


_Reduction = tuple[FloatArray, FloatArray | None, FloatArray]
"""Divisor, matrix and shift."""


def _reduced(
    rows: FloatArray, divisor: FloatArray, matrix: FloatArray | None, shift: FloatArray
) -> FloatArray:
    if matrix is None:
        return rows / divisor - shift
    # Equal rows stay equal, whatever BLAS adds up first.
    distinct, places = np.unique(rows, axis=0, return_inverse=True)
    reduced: FloatArray = distinct / divisor @ matrix.T - shift
    return reduced[places.ravel()]


def _reduction(raw: RawData, train: FloatArray, config: WorkloadConfig) -> _Reduction:
    """What reduces rows to `config.num_features`, by what the training part alone shows.

    Before PCA, columns in different units are each divided by their standard deviation: a unit
    would otherwise decide what counts. Pixels, and the centimetres of Iris, stay as they are.
    """
    columns = len(raw.columns)
    ones = np.ones(columns)
    wanted = config.num_features or min(_DEFAULT_FEATURES, columns)
    if wanted > columns:
        raise InputError(
            f"`num_features` is {wanted}, and workload `{config.title}` has {columns} columns: "
            f"give {columns} or fewer"
        )
    if config.reduction == "pool":
        return ones, _pooling(raw, train, wanted, config.title), np.zeros(wanted)
    if raw.image_shape is None:
        _check_constant(config.title, raw.columns, train)
        if config.reduction is None and wanted == columns:
            return ones, None, np.zeros(columns)
    divisor = ones if raw.one_unit else train.std(axis=0)
    return divisor, *_components(train / divisor, wanted, config.title)


def pooling_weights(size: int, cells: int) -> FloatArray:
    """Weights that average `size` pixels in a row to `cells` values; shape (cells, size).

    Cell i averages the pixels from ⌊i·size/cells⌋ to ⌈(i+1)·size/cells⌉, so neighbours share a
    pixel where the division leaves a remainder. This is torch's `AdaptiveAvgPool2d`, in one
    dimension.

    Example:
        >>> pooling_weights(4, 2)
        array([[0.5, 0.5, 0. , 0. ],
               [0. , 0. , 0.5, 0.5]])
    """
    weights = np.zeros((cells, size))
    for cell in range(cells):
        start, stop = cell * size // cells, -(-(cell + 1) * size // cells)
        weights[cell, start:stop] = 1 / (stop - start)
    return weights


def _pooling(raw: RawData, train: FloatArray, wanted: int, title: str) -> FloatArray:
    """Weights that average the pixels of an image over the fields of a grid."""
    if raw.image_shape is None:
        raise InputError(
            f"`reduction` is 'pool', and workload `{title}` is a table, not images: give 'pca'"
        )
    if wanted not in _GRIDS:
        raise InputError(
            f"`num_features` is {wanted}, and pooling gives {', '.join(map(str, _GRIDS))}: give "
            f"one of these, or reduce by 'pca'"
        )
    grid = _GRIDS[wanted]
    rows, columns = (pooling_weights(*sides) for sides in zip(raw.image_shape, grid, strict=True))
    weights: FloatArray = np.asarray(np.kron(rows, columns), dtype=np.float64)
    cells = tuple(f"cell {row},{column}" for row, column in np.ndindex(grid))
    _check_constant(title, cells, train @ weights.T)
    return weights


def _check_constant(title: str, columns: tuple[str, ...], train: FloatArray) -> None:
    """Raises InputError, with their names, if columns of the training part do not vary."""
    largest = np.abs(train).max(axis=0)
    constant = np.flatnonzero(np.ptp(train, axis=0) <= np.maximum(_CONSTANT * largest, _SMALLEST))
    if constant.size:
        names = ", ".join(f"`{columns[place]}`" for place in constant[:10])
        more = ", ..." if len(constant) > 10 else ""
        raise InputError(
            f"constant columns in workload `{title}`: {names}{more} do not vary over the "
            f"{len(train)} training samples; drop them, or give more samples"
        )


def _components(train: FloatArray, wanted: int, title: str) -> tuple[FloatArray, FloatArray]:
    """Directions of the principal components, and the components of the mean."""
    varying = 0
    pca = sklearn("decomposition", title).PCA(min(wanted, len(train)), svd_solver="full")
    if np.ptp(train, axis=0).any():
        variance: FloatArray = pca.fit(train).explained_variance_
        varying = int(np.count_nonzero(variance > _NO_VARIANCE * variance[0]))
    if varying < wanted:
        raise InputError(
            f"`num_features` is {wanted}, and the {len(train)} training samples of workload "
            f"`{title}` vary in {varying} directions only: give {max(varying, 1)} or fewer, or "
            f"more samples"
        )
    # scikit-learn makes the largest entry of each component positive, so signs are settled.
    directions: FloatArray = pca.components_
    return directions, pca.mean_ @ directions.T
