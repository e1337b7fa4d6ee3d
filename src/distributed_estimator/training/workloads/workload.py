"""A binary classification task that is ready for a circuit.

From a configuration to it there is one way: choose two classes, split, thin out, reduce to as many
features as the circuit has qubits, scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...checks import require
from ...errors import InputError
from .config import FEATURE_RANGE, FloatArray, RawData, WorkloadConfig, check_range
from .sources import read_raw

TEST_SHARE = 0.2

FEWEST_PER_CLASS = 2
"""In each part."""

ROUNDING = 1e-9

DEFAULT_FEATURES = 8

GRIDS = {4: (2, 2), 6: (2, 3), 8: (2, 4), 10: (2, 5), 16: (4, 4)}
"""Rows and columns of the pooling grid, by the number of features."""

CONSTANT = 1e-14
"""A column that varies less than this, relative to its values, varies by rounding."""

SMALLEST = 1e-150
"""Squares of anything smaller underflow."""

NO_VARIANCE = 1e-20
"""A principal component with less of the first one's variance is rounding."""


Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Workload:
    """A binary classification task, ready to be encoded into a circuit.

    Attributes:
        name: What the task is called on the command line and in the records.
        x_train: Training features, shape (samples, features), within `feature_range`.
        y_train: Training targets, shape (samples,), -1 for the first class and +1 for the second.
        x_test: Test features, scaled as the training part was and clipped to its range.
        y_test: Test targets.
        classes: The names of the first and the second class.
        feature_range: Least and greatest value a feature can take, in radians.

    Raises:
        InputError: If the parts do not fit together, or hold no features or targets.

    Example:
        >>> x, y = np.array([[0.0], [1.0]]), np.array([-1.0, 1.0])
        >>> Workload("tiny", x, y, x, y, classes=("no", "yes")).num_features
        1
    """

    name: str
    x_train: FloatArray
    y_train: FloatArray
    x_test: FloatArray
    y_test: FloatArray
    classes: tuple[str, str]
    feature_range: tuple[float, float] = FEATURE_RANGE

    def __post_init__(self) -> None:
        check_range(self.feature_range)
        for name in ("x_train", "y_train", "x_test", "y_test"):
            object.__setattr__(self, name, _as_floats(self.name, name, getattr(self, name)))
        for part in ("train", "test"):
            features, targets = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            _check_part(self.name, part, features, targets)
            _check_inside(self.name, part, features, self.feature_range)
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise InputError(
                f"workload `{self.name}` has {self.x_train.shape[1]} training features and "
                f"{self.x_test.shape[1]} test features: give both parts the same columns"
            )

    @property
    def num_features(self) -> int:
        """Features a sample, and so the qubits that encode it."""
        return int(self.x_train.shape[1])


@dataclass(frozen=True)
class Parts:
    """Features of the training and the test part; shape (samples, columns) each."""

    train: FloatArray
    test: FloatArray


def load_workload(config: WorkloadConfig) -> Workload:
    """Loads the samples that a configuration asks for, ready to be encoded.

    The split is stratified, seeded and 80:20, except for the full MNIST, which has its own test
    part. PCA and then the scaler are fitted on the training part, after it is thinned out to
    `config.samples`; test features outside its range are clipped to it.

    Args:
        config: Which data, and how.

    Raises:
        InputError: If the data is not there, is damaged, or does not have what is asked for.
        MissingExtraError: If a package that holds or reads the data is not installed.

    Example:
        >>> task = load_workload(WorkloadConfig("iris", seed=7))
        >>> task.x_train.shape, task.x_test.shape, task.classes
        ((80, 4), (20, 4), ('setosa', 'versicolor'))
    """
    raw = read_raw(config)
    classes = _chosen_classes(raw, config)
    first, second = (raw.class_names.index(name) for name in classes)
    rows = np.flatnonzero((raw.labels == first) | (raw.labels == second))
    targets = np.where(raw.labels[rows] == second, 1.0, -1.0)
    train, test = _split(raw, rows, targets, classes, config)
    parts = Parts(_rows(raw, rows[train]), _rows(raw, rows[test]))
    scaled = _scale(reduce_features(raw, parts, config), config)
    return Workload(
        name=config.title,
        x_train=scaled.train,
        y_train=targets[train],
        x_test=scaled.test,
        y_test=targets[test],
        classes=classes,
        feature_range=config.feature_range,
    )


def _chosen_classes(raw: RawData, config: WorkloadConfig) -> tuple[str, str]:
    known = ", ".join(raw.class_names[:10]) + (", ..." if len(raw.class_names) > 10 else "")
    if config.classes is None:
        if raw.default_classes is not None:
            return raw.default_classes
        if len(raw.class_names) != 2:
            raise InputError(
                f"workload `{config.title}` has {len(raw.class_names)} class(es) ({known}), and "
                f"two are needed: choose two with `classes`, or the class column with `target`"
            )
        return raw.class_names[0], raw.class_names[1]
    first, second = (_class_name(raw, name) for name in config.classes)
    unknown = [name for name in (first, second) if name not in raw.class_names]
    if unknown:
        raise InputError(
            f"`classes` names {unknown[0]!r}, and workload `{config.title}` has {known}: choose "
            f"two of these"
        )
    if first == second:
        raise InputError(f"`classes` is {config.classes}, the same twice: choose two of {known}")
    return first, second


def _class_name(raw: RawData, name: str) -> str:
    """The class of that name, or, if the workload is one of ours, of that number."""
    numbered = {str(number): known for number, known in enumerate(raw.class_names)}
    if name in raw.class_names or raw.default_classes is None:
        return name
    return numbered.get(name, name)


def _split(
    raw: RawData,
    rows: Indices,
    targets: FloatArray,
    classes: tuple[str, str],
    config: WorkloadConfig,
) -> tuple[Indices, Indices]:
    """Places of the training and the test samples among `rows`."""
    if raw.in_test is not None:
        train, test = np.flatnonzero(~raw.in_test[rows]), np.flatnonzero(raw.in_test[rows])
    else:
        # Fewer in all, and there is nothing to split.
        _check_counts(config.title, "data", targets, classes, 2 * FEWEST_PER_CLASS)
        purpose = f"the workload `{config.title}`"
        module = require("sklearn.model_selection", "ml", purpose, "scikit-learn")
        train, test = module.train_test_split(
            np.arange(len(rows)), test_size=TEST_SHARE, stratify=targets, random_state=config.seed
        )
    train = _thin(train, targets, config.samples, (config.seed, 0))
    test = _thin(test, targets, config.test_samples, (config.seed, 1))
    _check_counts(config.title, "training part", targets[train], classes, FEWEST_PER_CLASS)
    _check_counts(config.title, "test part", targets[test], classes, FEWEST_PER_CLASS)
    return train, test


def _thin(part: Indices, targets: FloatArray, most: int | None, seed: tuple[int, int]) -> Indices:
    """At most `most` of `part`, in its order and its proportion of classes.

    Fewer samples of a seed are among the more of it, but for rounding of the proportion.
    """
    if most is None or most >= len(part):
        return part
    shuffled = np.random.default_rng(seed).permutation(len(part))
    second = targets[part[shuffled]] > 0
    count = round(most * np.count_nonzero(second) / len(part))
    kept = np.concatenate([shuffled[~second][: most - count], shuffled[second][:count]])
    thinned: Indices = part[np.sort(kept)]
    return thinned


def _check_counts(
    title: str, part: str, targets: FloatArray, classes: tuple[str, str], least: int
) -> None:
    for name, target in zip(classes, (-1.0, 1.0), strict=True):
        count = np.count_nonzero(targets == target)
        if count < least:
            raise InputError(
                f"class {name!r} has {count} sample(s) in the {part} of workload `{title}`, and "
                f"{least} or more are needed: give more samples, or choose other classes"
            )


def _rows(raw: RawData, rows: Indices) -> FloatArray:
    return np.ascontiguousarray(raw.features[rows], dtype=np.float64)


def _scale(parts: Parts, config: WorkloadConfig) -> Parts:
    purpose = f"the workload `{config.title}`"
    module = require("sklearn.preprocessing", "ml", purpose, "scikit-learn")
    # The scaler takes a range below 2e-15 for none. A power of 2 changes the unit and no digit.
    _, powers = np.frexp(np.ptp(parts.train, axis=0))
    train, test = np.ldexp(parts.train, -powers), np.ldexp(parts.test, -powers)
    scaler = module.MinMaxScaler(config.feature_range, clip=True).fit(train)
    return Parts(scaler.transform(train), scaler.transform(test))


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
    module = require("sklearn.decomposition", "ml", "PCA", "scikit-learn")
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


def _as_floats(workload: str, name: str, values: Any) -> FloatArray:
    """The values as PyTorch takes them, whatever they came in."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("some are complex")
        return np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"`{name}` of workload `{workload}` is no array of numbers ({error}): give real ones"
        ) from error


def _check_part(name: str, part: str, features: FloatArray, targets: FloatArray) -> None:
    if features.ndim != 2 or targets.shape != features.shape[:1] or not len(targets):
        raise InputError(
            f"the {part} part of workload `{name}` has features of shape {features.shape} and "
            f"targets of shape {targets.shape}: give (samples, features) and (samples,)"
        )
    if not np.isfinite(features).all():
        raise InputError(f"the {part} features of workload `{name}` hold NaN or infinite values")
    if not np.isin(targets, (-1.0, 1.0)).all():
        raise InputError(f"the {part} targets of workload `{name}` must each be -1 or +1")


def _check_inside(name: str, part: str, features: FloatArray, bounds: tuple[float, float]) -> None:
    if not features.size:
        raise InputError(f"the {part} part of workload `{name}` has no features: give one or more")
    slack = ROUNDING * (bounds[1] - bounds[0])
    low, high = float(features.min()), float(features.max())
    if low < bounds[0] - slack or high > bounds[1] + slack:
        raise InputError(
            f"the {part} features of workload `{name}` go from {low:g} to {high:g}, outside "
            f"`feature_range` {bounds}: scale them, or state the range they have"
        )
