"""Data sets a quantum neural network is trained on, split and scaled the same way for every run.

A workload depends on its seed alone, never on how the circuit is cut: runs that share a seed see
the same samples, which is what makes cut and uncut runs comparable (paper §V-A).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MissingExtraError

FloatArray = npt.NDArray[np.float64]

FEATURE_RANGE = (0.0, np.pi / 2)
"""Features are scaled into this range. A ZFeatureMap encodes x as the phase P(2x), so [0, π/2] is
half a turn: the encoding stays one-to-one. Over [0, π] the phase closes on itself, the smallest and
the largest feature become one state, and two linearly separable Iris classes no longer separate."""

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Workload:
    """A binary classification task, ready to be encoded into a circuit.

    Attributes:
        name: What the task is called on the command line and in the records.
        x_train: Training features, shape (samples, features), within `FEATURE_RANGE`.
        y_train: Training targets, shape (samples,), -1 for the first class and +1 for the second.
        x_test: Test features, scaled as the training part was and clipped to its range.
        y_test: Test targets.
        classes: The names of the first and the second class.
    """

    name: str
    x_train: FloatArray
    y_train: FloatArray
    x_test: FloatArray
    y_test: FloatArray
    classes: tuple[str, str]

    def __post_init__(self) -> None:
        _check_part(self.name, "train", self.x_train, self.y_train)
        _check_part(self.name, "test", self.x_test, self.y_test)
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise InputError(
                f"workload `{self.name}` has {self.x_train.shape[1]} training features and "
                f"{self.x_test.shape[1]} test features: give both parts the same columns"
            )

    @property
    def num_features(self) -> int:
        """Features a sample, and so the qubits that encode it."""
        return int(self.x_train.shape[1])


def iris(seed: int, classes: tuple[int, int] = (0, 1)) -> Workload:
    """Two classes of Fisher's Iris data: 4 features, 80 training and 20 test samples.

    The split is stratified and seeded. The scaler sees the training part only; test features that
    fall outside it are clipped to `FEATURE_RANGE`.

    Args:
        seed: Decides the split.
        classes: Which two of the species 0 (setosa), 1 (versicolor) and 2 (virginica). Setosa is
            linearly separable from the others; versicolor and virginica overlap.

    Raises:
        InputError: If `classes` are not two different species.
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> task = iris(seed=7)
        >>> task.x_train.shape, task.x_test.shape, task.classes
        ((80, 4), (20, 4), ('setosa', 'versicolor'))
    """
    try:
        from sklearn.datasets import load_iris
        from sklearn.model_selection import train_test_split
        from sklearn.preprocessing import MinMaxScaler
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "ml", "the Iris workload") from error
    if len(set(classes)) != 2 or not set(classes) <= {0, 1, 2}:
        raise InputError(f"`classes` is {classes}: give two different ones of 0, 1 and 2")

    data: Any = load_iris()
    chosen = np.isin(data.target, classes)
    targets = np.where(data.target[chosen] == classes[1], 1.0, -1.0)
    x_train, x_test, y_train, y_test = train_test_split(
        data.data[chosen], targets, test_size=TEST_SHARE, stratify=targets, random_state=seed
    )
    scaler = MinMaxScaler(FEATURE_RANGE, clip=True).fit(x_train)
    first, second = (str(data.target_names[label]) for label in classes)
    return Workload(
        name="iris",
        x_train=scaler.transform(x_train),
        y_train=y_train,
        x_test=scaler.transform(x_test),
        y_test=y_test,
        classes=(first, second),
    )


WORKLOADS: dict[str, Callable[[int], Workload]] = {"iris": iris}
"""The workloads that can be trained by name; each takes a seed."""


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
