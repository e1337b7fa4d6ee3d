"""Records as flat tables, one for each kind, for pandas, Polars and SQL.

Nested fields are flattened (`circuit.num_qubits` becomes `circuit_num_qubits`), and each entry of a
dictionary is a column of its own (`metrics_train_accuracy`). Values that are `null` in a file are
missing in the table. The tables are Arrow's, which all three libraries read.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..checks import require
from ..errors import RecordError
from ..records import KINDS, Header, Record, given_path, read_records
from ..records.environment import THREAD_VARIABLES
from ..records.schema import PACKAGES
from .documents import read_document
from .packed import MANIFEST, RUNS, Packed

if TYPE_CHECKING:
    import pandas
    import polars

_PATTERNS = ("*.jsonl", "*.jsonl.gz")
_KNOWN_KEYS: Mapping[tuple[type[Any], str], tuple[str, ...]] = {
    (Header, "versions"): (*PACKAGES, "python"),
    (Header, "threads"): (*THREAD_VARIABLES, "usable_cpus"),
}


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
        MissingExtraError: pandas or pyarrow is not installed.
        RecordError: Nothing can be read there, a file is damaged or of a newer schema, or the kind
            is unknown.
    """
    pd = require("pandas", "analysis", "to_pandas")
    arrow = require("pyarrow", "analysis", "to_pandas")
    table = read_tables(path, [kind])[kind]
    optional = {
        arrow.string(): pd.StringDtype(),
        arrow.int64(): pd.Int64Dtype(),
        arrow.bool_(): pd.BooleanDtype(),
    }
    frame: pandas.DataFrame = table.to_pandas(types_mapper=optional.get)
    for field in table.schema:
        if arrow.types.is_list(field.type):
            frame[field.name] = pd.Series(table[field.name].to_pylist(), dtype=object)
        elif not field.nullable:
            frame[field.name] = frame[field.name].astype(str(field.type))
    return frame


def to_polars(path: str | os.PathLike[str], kind: str = "query") -> polars.DataFrame:
    """The records of one kind as a Polars data frame; see `to_pandas`.

    Lists are lists here, and missing values are null, not NaN.

    Raises:
        MissingExtraError: Polars or pyarrow is not installed.
        RecordError: See `to_pandas`.
    """
    library = require("polars", "analysis", "to_polars")
    frame: polars.DataFrame = library.from_arrow(read_tables(path, [kind])[kind])
    return frame


def read_tables(
    path: str | os.PathLike[str], kinds: Sequence[str] = tuple(KINDS)
) -> dict[str, Any]:
    """Reads a file or a folder of them, and makes a `pyarrow.Table` for each kind.

    Every table begins with the columns `file`, `study_run_id` and `experiment`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        RecordError: Nothing can be read there, a file is damaged or of a newer schema, or a kind is
            unknown.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise RecordError(f"kind is {kind!r}: use one of {', '.join(sorted(KINDS))}")
    rows: dict[str, list[tuple[Source, Record]]] = {kind: [] for kind in kinds}
    for file in record_files(path):
        for source, record in records_of(file, path):
            if record.kind in rows:
                rows[record.kind].append((source, record))
    return {kind: _table(KINDS[kind], found) for kind, found in rows.items()}


def record_files(path: str | os.PathLike[str], patterns: Sequence[str] = _PATTERNS) -> list[Path]:
    """The record files at a path: the file itself, or all in a folder and the folders in it.

    The records of an archive stand for its `runs.parquet`. Compressed files that stand beside the
    same file uncompressed do not count.

    Raises:
        RecordError: There is nothing, or a folder without record files.
    """
    place = given_path(path)
    if not place.is_dir():
        if not place.exists():
            raise RecordError(f"`{place}` does not exist: name a record file or a run's folder")
        return [place]
    found = {f for pattern in patterns for f in place.rglob(pattern) if f.is_file()}
    found |= {f.with_name(RUNS) for f in place.rglob(MANIFEST) if f.with_name(RUNS).is_file()}
    if not found:
        raise RecordError(
            f"`{place}` holds no record files ({' or '.join(patterns)}): name the folder of a run "
            "or of a study"
        )
    return sorted(f for f in found if f.suffix != ".gz" or f.with_suffix("") not in found)


def time_of(text: str) -> datetime | None:
    """A time in a record as one in UTC; None: it cannot be read."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Source:
    """Where records were: the file, and its run in a study as `run.json` beside it has it."""

    file: str
    study_run_id: str | None = None
    experiment: str | None = None


def records_of(file: Path, path: str | os.PathLike[str]) -> Iterator[tuple[Source, Record]]:
    """Records with where they are from, of one of the `record_files` of a path.

    Raises:
        RecordError: The file is damaged or of a newer schema.
    """
    if file.name == RUNS:
        for run_id, experiment, log, record in Packed(file.parent).records():
            yield Source(f"runs/{run_id}/{log}", run_id, experiment), record
        return
    source = _source(file, path)
    for record in read_records(file):
        yield source, record


def _source(file: Path, path: str | os.PathLike[str]) -> Source:
    name = file.name if file == Path(path) else file.relative_to(path).as_posix()
    described = file.with_name("run.json")
    run = read_document(described, dict[str, Any]) if described.is_file() else {}
    ids = (run.get(key) for key in ("run_id", "experiment"))
    return Source(name, *(each if isinstance(each, str) else None for each in ids))


def _table(kind: type[Record], rows: Sequence[tuple[Source, Record]]) -> Any:
    arrow = require("pyarrow", "analysis", "a table of records")
    columns: dict[str, Any] = {}
    optional: dict[str, bool] = {}
    taken: set[str] = set()  # folded, since SQL does not tell upper and lower case apart
    sources = _columns(Source, "", [source for source, _ in rows])
    for name, hint, values in (*sources, *_columns(kind, "", [record for _, record in rows])):
        unique, number = name, 2
        while unique.casefold() in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique.casefold())
        columns[unique], optional[unique] = _array(arrow, name, hint, values)
    schema = [arrow.field(name, own.type, optional[name]) for name, own in columns.items()]
    return arrow.table(list(columns.values()), schema=arrow.schema(schema))


def _columns(
    kind: type[Any], prefix: str, items: list[Any]
) -> Iterator[tuple[str, Any, list[Any]]]:
    """Name, type hint and values of all columns that objects of a dataclass make."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint, name = hints[field.name], prefix + field.name
        values = [getattr(item, field.name) for item in items]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _columns(hint, f"{name}_", values)
        elif get_origin(hint) is dict:
            known = _KNOWN_KEYS.get((kind, field.name), ())
            for key in dict.fromkeys([*known, *(key for value in values for key in value)]):
                column = re.sub(r"\W", "_", f"{name}_{key}", flags=re.ASCII)
                yield column, get_args(hint)[1] | None, [value.get(key) for value in values]
        else:
            yield name, hint, values


def _array(arrow: Any, name: str, hint: Any, values: list[Any]) -> tuple[Any, bool]:
    """An Arrow array, and whether values may be missing, whatever the values at hand."""
    if name == "started_at":
        times = [time_of(value) for value in values]
        return arrow.array(times, arrow.timestamp("us", "UTC")), True
    optional = get_origin(hint) is UnionType
    if optional:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    is_list = get_origin(hint) is tuple
    item = get_args(hint)[0] if is_list else hint
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    kind = types.get(item, arrow.string())  # of some words that are allowed
    try:
        found = arrow.array(values, arrow.list_(kind) if is_list else kind, from_pandas=True)
    except (OverflowError, ValueError):  # whole numbers of more than 64 bits; half a character
        kind = arrow.float64() if item is int else kind
        held = [_held(value) for value in values]
        found = arrow.array(held, arrow.list_(kind) if is_list else kind, from_pandas=True)
    return found, optional or (kind == arrow.float64() and not is_list)


def _held(value: Any) -> Any:
    """A value as the nearest that Arrow can hold."""
    if isinstance(value, str):  # JSON can escape half a character
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple):
        return [_held(item) for item in value]
    try:
        return None if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
