"""Records as data frames of pandas and of Polars."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._extras import required
from .columns import Column, Table, Type, read_tables

if TYPE_CHECKING:
    import pandas
    import polars

_PANDAS: dict[Type, str] = {
    "str": "string",
    "int": "int64",
    "float": "float64",
    "bool": "bool",
    "time": "datetime64[us, UTC]",
    "ints": "object",
    "floats": "object",
}
_PANDAS_OPTIONAL: dict[Type, str] = {"int": "Int64", "bool": "boolean"}


def to_pandas(path: str | os.PathLike[str], kind: str = "query") -> pandas.DataFrame:
    """The records of one kind as a pandas data frame, a row for each.

    Nested fields are flattened: `circuit.num_qubits` is the column `circuit_num_qubits`, and the
    entry `train_accuracy` of `metrics` is `metrics_train_accuracy`. The first columns say where a
    record is from: `file`, and `study_run_id` and `experiment` where it belongs to a study. Times
    are in UTC; lists are objects; whole numbers of more than 64 bits make a column of floats.

    Args:
        path: A record file, or a folder of a run or of a study.
        kind: "query", "training", "task", "device" or "header". If there are none, the frame has
            the columns and no rows.

    Raises:
        MissingExtraError: pandas is not installed.
        RecordError: Nothing can be read there, a file is damaged or of a newer schema, or the kind
            is unknown.
    """
    library = required("pandas", "to_pandas")
    table = _read(path, kind)
    return library.DataFrame({name: _series(library, column) for name, column in table.items()})


def to_polars(path: str | os.PathLike[str], kind: str = "query") -> polars.DataFrame:
    """The records of one kind as a Polars data frame; see `to_pandas`.

    Lists are lists here, and what is missing is null, not NaN.

    Raises:
        MissingExtraError: Polars is not installed.
        RecordError: See `to_pandas`.
    """
    library = required("polars", "to_polars")
    types: dict[Type, Any] = {
        "str": library.String,
        "int": library.Int64,
        "float": library.Float64,
        "bool": library.Boolean,
        "time": library.Datetime("us", "UTC"),
        "ints": library.List(library.Int64),
        "floats": library.List(library.Float64),
    }
    table = _read(path, kind)
    frame: polars.DataFrame = library.DataFrame(
        [
            library.Series(name, column.values, dtype=types[column.type])
            for name, column in table.items()
        ]
    )
    return frame


def _read(path: str | os.PathLike[str], kind: str) -> Table:
    return read_tables(path, [kind])[kind]


def _series(library: Any, column: Column) -> Any:
    dtype = _PANDAS_OPTIONAL.get(column.type) if column.optional else None
    return library.Series(column.values, dtype=dtype or _PANDAS[column.type])
