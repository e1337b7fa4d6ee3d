"""A binary classification task that is ready for a circuit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...checks import is_number
from ...errors import InputError

FloatArray = npt.NDArray[np.float64]

FEATURE_RANGE = (0.0, math.pi / 2)
"""Features are scaled into this range. A ZFeatureMap encodes x as the phase P(2x), so [0, π/2] is
half a turn: the encoding stays one-to-one. Over [0, π] the phase closes on itself, the smallest and
the largest feature become one state, and two linearly separable Iris classes no longer separate."""

ROUNDING = 1e-9

LARGEST = 1e100
"""Far beyond this, squares and sums overflow."""


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
        InputError: If the parts do not fit together, or hold what is no feature or target.

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


def check_range(bounds: object) -> None:
    """Raises InputError unless `bounds` are two finite numbers, the smaller first."""
    match bounds:
        case (low, high) if is_number(low) and is_number(high) and -LARGEST < low < high < LARGEST:
            return
    raise InputError(
        f"`feature_range` is {bounds}: give two finite numbers, the smaller first, such as "
        f"(0.0, 1.5708)"
    )


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
