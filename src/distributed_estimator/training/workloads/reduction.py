"""From as many columns as the data has to as many features as the circuit has qubits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from .._extras import optional_import
from .config import WorkloadConfig
from .raw import RawData
from .workload import FloatArray

DEFAULT_FEATURES = 8

GRIDS = {4: (2, 2), 6: (2, 3), 8: (2, 4), 10: (2, 5), 16: (4, 4)}
"""Rows and columns of the pooling grid, by the number of features."""

CONSTANT = 1e-14
"""A column that varies less than this, relative to its values, varies by rounding."""

SMALLEST = 1e-150
"""Squares of anything smaller underflow."""

NO_VARIANCE = 1e-20
"""A principal component with less of the first one's variance is rounding."""


@dataclass(frozen=True)
class Parts:
    """Features of the training and the test part; shape (samples, columns) each."""

    train: FloatArray
    test: FloatArray


def reduce_features(raw: RawData, parts: Parts, config: WorkloadConfig) -> Parts:
    """Reduces both parts to `config.num_features`, by what the training part alone shows.

    Before PCA, columns in different units are each divided by their standard deviation: a unit
    would otherwise decide what counts. Pixels, and the centimetres of Iris, stay as they are.

    Args:
        raw: Where the samples are from: the names of the columns, the shape of an image.
        parts: The samples.
        config: How many features, and how.

    Raises:
        InputError: If the data has fewer columns, varies in fewer directions, is no image for
            pooling, or a column is constant.
        MissingExtraError: If scikit-learn is not installed.
    """
    columns = len(raw.columns)
    wanted = config.num_features or min(DEFAULT_FEATURES, columns)
    if wanted > columns:
        raise InputError(
            f"`num_features` is {wanted}, and workload `{config.title}` has {columns} columns: "
            f"give {columns} or fewer"
        )
    if config.reduction == "pool":
        return _pool(raw, parts, wanted, config.title)
    if raw.image_shape is None:
        check_constant(config.title, raw.columns, parts.train)
        if config.reduction is None and wanted == columns:
            return parts
    if not raw.one_unit:
        scale = parts.train.std(axis=0)
        parts = Parts(parts.train / scale, parts.test / scale)
    return _pca(parts, wanted, config.title)


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


def check_constant(title: str, columns: tuple[str, ...], train: FloatArray) -> None:
    """Raises InputError, with their names, if columns of the training part do not vary."""
    largest = np.abs(train).max(axis=0)
    constant = np.flatnonzero(np.ptp(train, axis=0) <= np.maximum(CONSTANT * largest, SMALLEST))
    if constant.size:
        names = ", ".join(f"`{columns[place]}`" for place in constant[:10])
        more = ", ..." if len(constant) > 10 else ""
        raise InputError(
            f"constant columns in workload `{title}`: {names}{more} do not vary over the "
            f"{len(train)} training samples; drop them, or give more samples"
        )


def _pool(raw: RawData, parts: Parts, wanted: int, title: str) -> Parts:
    if raw.image_shape is None:
        raise InputError(
            f"`reduction` is 'pool', and workload `{title}` is a table, not images: give 'pca'"
        )
    if wanted not in GRIDS:
        raise InputError(
            f"`num_features` is {wanted}, and pooling gives {', '.join(map(str, GRIDS))}: give "
            f"one of these, or reduce by 'pca'"
        )
    down, across = GRIDS[wanted]
    rows, columns = raw.image_shape
    weights = np.kron(pooling_weights(rows, down), pooling_weights(columns, across))
    pooled = _mapped(parts, lambda rows: rows @ weights.T)
    cells = tuple(f"cell {row},{column}" for row in range(down) for column in range(across))
    check_constant(title, cells, pooled.train)
    return pooled


def _pca(parts: Parts, wanted: int, title: str) -> Parts:
    module = optional_import("sklearn.decomposition", "scikit-learn", "ml", "PCA")
    pca = module.PCA(min(wanted, len(parts.train)), svd_solver="full")
    varying = 0
    if np.ptp(parts.train, axis=0).any():
        variance: FloatArray = pca.fit(parts.train).explained_variance_
        varying = int(np.count_nonzero(variance > NO_VARIANCE * variance[0]))
    if varying < wanted:
        raise InputError(
            f"`num_features` is {wanted}, and the {len(parts.train)} training samples of workload "
            f"`{title}` vary in {varying} directions only: give {max(varying, 1)} or fewer, or "
            f"more samples"
        )
    # scikit-learn makes the largest entry of each component positive, so signs are settled.
    return _mapped(parts, pca.transform)


def _mapped(parts: Parts, map_rows: Callable[[FloatArray], FloatArray]) -> Parts:
    """Both parts, mapped row by row; equal samples stay equal, whatever BLAS adds up first."""

    def mapped(rows: FloatArray) -> FloatArray:
        distinct, places = np.unique(rows, axis=0, return_inverse=True)
        return map_rows(distinct)[places.ravel()]

    return Parts(mapped(parts.train), mapped(parts.test))
