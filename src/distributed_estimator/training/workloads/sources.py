"""Where the samples of each workload come from.

A new workload is a function here that gives `RawData`, and a line in `WORKLOADS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .._extras import optional_import
from .config import WorkloadConfig
from .files import read_file
from .mnist import DIGITS, read_mnist
from .raw import RawData

Source = Callable[[WorkloadConfig], RawData]


def read_raw(config: WorkloadConfig) -> RawData:
    """Reads the samples a configuration asks for.

    Raises:
        InputError: If its file or folder cannot be used.
        MissingExtraError: If the package that holds or reads the data is not installed.
    """
    return read_file(config) if config.file is not None else SOURCES[config.name](config)


def _table(loader: str, config: WorkloadConfig, *, one_unit: bool = False) -> RawData:
    data = _bundled(loader, config)
    names = tuple(str(name) for name in data.target_names)
    return RawData(
        features=data.data,
        labels=data.target.astype(np.intp),
        class_names=names,
        columns=tuple(str(name) for name in data.feature_names),
        default_classes=(names[0], names[1]),
        one_unit=one_unit,
    )


def _digits(config: WorkloadConfig) -> RawData:
    data = _bundled("load_digits", config)
    return RawData(
        features=data.data,
        labels=data.target.astype(np.intp),
        class_names=DIGITS,
        columns=tuple(data.feature_names),
        default_classes=("3", "6"),
        image_shape=data.images.shape[1:],
        one_unit=True,
    )


def _bundled(loader: str, config: WorkloadConfig) -> Any:
    purpose = f"the workload `{config.title}`"
    return getattr(optional_import("sklearn.datasets", "scikit-learn", "ml", purpose), loader)()


SOURCES: dict[str, Source] = {
    "iris_binary_pml": partial(_table, "load_iris", one_unit=True),  # centimetres
    "mnist_binary": read_mnist,
    "breast_cancer": partial(_table, "load_breast_cancer"),
    "wine": partial(_table, "load_wine"),
    "digits": _digits,
}
