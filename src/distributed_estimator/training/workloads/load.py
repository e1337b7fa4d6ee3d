"""The one way from a configuration to a workload: choose, split, thin out, reduce, scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .._extras import optional_import
from .config import WorkloadConfig
from .raw import RawData
from .reduction import Parts, reduce_features
from .sources import read_raw
from .workload import FloatArray, Workload

TEST_SHARE = 0.2

FEWEST_PER_CLASS = 2
"""In each part."""

Indices = npt.NDArray[np.intp]


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
                f"two are told apart: choose two with `classes`, or the class column with `target`"
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
        module = optional_import("sklearn.model_selection", "scikit-learn", "ml", purpose)
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
    module = optional_import("sklearn.preprocessing", "scikit-learn", "ml", purpose)
    # The scaler takes a range below 2e-15 for none. A power of 2 changes the unit and no digit.
    _, powers = np.frexp(np.ptp(parts.train, axis=0))
    train, test = np.ldexp(parts.train, -powers), np.ldexp(parts.test, -powers)
    scaler = module.MinMaxScaler(config.feature_range, clip=True).fit(train)
    return Parts(scaler.transform(train), scaler.transform(test))
