"""A table of the user's: CSV or Parquet, read by pyarrow; numbers and the classes they belong to.

Rows in messages are counted from 1, the line of names left out.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...checks import require
from ...errors import InputError
from .config import LARGEST, FloatArray, RawData, WorkloadConfig

SIZE_LIMIT = 2**30
"""Bytes of a file, and of the numbers it unpacks to."""

LISTED = 10

PANDAS_INDEX = "__index_level_"


def read_file(config: WorkloadConfig) -> RawData:
    """Reads the file that `config.name` is the path of.

    Class names are those in the class column, as text: in numeric order if all are numbers (as
    text where two are the same number), in alphabetical order if not.

    Raises:
        InputError: If the file cannot be read, or is no table of numbers with a class column.
        MissingExtraError: If pyarrow is not installed.
    """
    path = Path(config.name)
    arrow = _import_arrow()
    check_size(path)
    # Not by the suffix: a file called `.csv` has none.
    read = _read_csv if path.name.lower().endswith(".csv") else _read_parquet
    try:
        table, target = read(arrow, path, config.target)
        names = [name for name in table.column_names if name != target]
        labels, class_names = _classes(arrow, table[target], target, path)
        columns = [_numbers(arrow, table[name], name, path) for name in names]
    except InputError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"`{path}` cannot be read ({reason}): repair or replace it") from error
    return RawData(np.column_stack(columns), labels, class_names, tuple(names))


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


def _import_arrow() -> Any:
    arrow, *_ = (
        require(module, "data", "a workload from a CSV or Parquet file", "pyarrow")
        for module in ("pyarrow", "pyarrow.csv", "pyarrow.parquet")
    )
    return arrow


def _read_csv(arrow: Any, path: Path, target: str | None) -> tuple[Any, str]:
    """Reads a table whose first line names the columns; the class column stays text."""
    with arrow.csv.open_csv(path) as reader:
        names = reader.schema.names
    _check_header(path, names, target)
    target = _target(path, names, target)
    options = arrow.csv.ConvertOptions(
        column_types={target: arrow.string()}, strings_can_be_null=True
    )
    table = arrow.csv.read_csv(path, convert_options=options)
    _check_unpacked(path, table.num_rows, table.num_columns)
    return table, target


def _read_parquet(arrow: Any, path: Path, target: str | None) -> tuple[Any, str]:
    """Reads a table; the index that pandas may have stored with it is no column."""
    # Not `read_table`: it would make columns of folders that are called `name=value`.
    with arrow.parquet.ParquetFile(path) as file:
        stored = file.schema_arrow.names
        names = [name for name in stored if not name.startswith(PANDAS_INDEX)]
        target = _target(path, names, target)
        _check_unpacked(path, file.metadata.num_rows, len(stored))
        return file.read().select(names), target


def _numbers(arrow: Any, column: Any, name: str, path: Path) -> FloatArray:
    types = arrow.types
    column = _plain(arrow, column)
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise InputError(
            f"column `{name}` of `{path}` holds values of type {column.type}, and features are "
            f"numbers: encode them or drop the column, or name the class column with `target`"
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
    if arrow.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


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
            f"writes its index so, unless told `index=False`)"
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"`{path}` has more than one column `{twice[0]}`: name each differently")
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


def _check_unpacked(path: Path, rows: int, columns: int) -> None:
    if rows * columns * 8 > SIZE_LIMIT:
        raise InputError(
            f"`{path}` unpacks to {rows} rows of {columns} columns, more than the limit of "
            f"{SIZE_LIMIT / 2**30:g} GiB: train on a part of it"
        )


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
