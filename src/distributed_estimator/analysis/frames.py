"""Records as flat tables, one for each kind, for pandas, Polars and SQL; and what there are.

Nested fields are flattened (`circuit.num_qubits` becomes `circuit_num_qubits`), and each entry of a
dictionary is a column of its own (`metrics_train_accuracy`). Values that are `null` in a file are
missing in the table. The tables are Arrow's, which all three libraries read.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..checks import require
from ..errors import InputError, RecordError
from ..records import KINDS, DeviceRecord, Header, QueryRecord, Record
from ..records.environment import THREAD_VARIABLES
from ..records.schema import PACKAGES
from .load import Source, record_files, records_of, time_of

if TYPE_CHECKING:
    import pandas
    import polars

_KNOWN_KEYS: Mapping[tuple[type[Any], str], tuple[str, ...]] = {
    (Header, "versions"): (*PACKAGES, "python"),
    (Header, "threads"): (*THREAD_VARIABLES, "usable_cpus"),
}
# A query is not trusted: it sees no file, no network, no extension and no variable of ours.
_SETTINGS = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "allow_persistent_secrets": False,
    "temp_directory": "",
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
    for own in table.schema:
        if arrow.types.is_list(own.type):
            frame[own.name] = pd.Series(table[own.name].to_pylist(), dtype=object)
        elif not own.nullable:
            frame[own.name] = frame[own.name].astype(str(own.type))
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
    """A `pyarrow.Table` for each kind, of a file or a folder of them; raises as `to_pandas` does.

    Every table begins with the columns `file`, `study_run_id` and `experiment`.
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
    for own in fields(kind):
        hint, name = hints[own.name], prefix + own.name
        values = [getattr(item, own.name) for item in items]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _columns(hint, f"{name}_", values)
        elif get_origin(hint) is dict:
            known = _KNOWN_KEYS.get((kind, own.name), ())
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


# What there are


@dataclass
class Inventory:
    """What record files hold: records by kind, run ids, and what wrote them.

    The `first` and `last` query began then, in UTC. `versions` are by package, None for one that
    was not installed; `commits` have a "+" where the source differed from them. `unreadable` says
    what is wrong with each file that is damaged or newer than this release, whose records up to
    there count.
    """

    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    runs: set[str] = field(default_factory=set)
    first: datetime | None = None
    last: datetime | None = None
    versions: dict[str, set[str | None]] = field(default_factory=dict)
    processors: set[str] = field(default_factory=set)
    commits: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same for a JSON document, sets sorted."""
        return {
            "files": self.files,
            "records": dict(self.counts),
            "runs": len(self.runs),
            "first": self.first and self.first.isoformat(),
            "last": self.last and self.last.isoformat(),
            "versions": {name: _sorted(found) for name, found in self.versions.items()},
            "processors": _sorted(self.processors),
            "commits": _sorted(self.commits),
            "unreadable": self.unreadable,
        }

    def _add(self, record: Record) -> None:
        self.counts[record.kind] += 1
        if isinstance(record, Header):
            for name, version in record.versions.items():
                self.versions.setdefault(name, set()).add(version)
            if record.processor is not None:
                self.processors.add(record.processor)
            if record.commit is not None:
                self.commits.add(record.commit + "+" * bool(record.dirty))
        elif not isinstance(record, DeviceRecord):
            self.runs.add(record.run_id)
        began = time_of(record.started_at) if isinstance(record, QueryRecord) else None
        if began is not None:
            self.first = min(began, self.first or began)
            self.last = max(began, self.last or began)


def take_inventory(path: str | os.PathLike[str]) -> Inventory:
    """Reads all records of a file or a folder, and goes on after a file that is damaged."""
    inventory = Inventory()
    for file in record_files(path):
        inventory.files += 1
        try:
            for _, record in records_of(file, path):
                inventory._add(record)
        except RecordError as error:
            inventory.unreadable.append(str(error))
    return inventory


def _sorted(found: set[Any]) -> list[Any]:
    return sorted(found, key=lambda item: (item is None, item))


# SQL


@dataclass(frozen=True)
class Answer:
    """The result of a query: names of columns, and rows of Python values."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query_records(path: str | os.PathLike[str], sql: str) -> Answer:
    """Runs an SQL query (DuckDB's) on the records of a file or folder.

    There are the tables `query`, `training`, `task`, `device` and `header`, with the columns that
    `to_pandas` describes. Times are timestamps in UTC without a zone.

    Args:
        path: A record file, or a folder of a run or of a study.
        sql: One SELECT statement.

    Raises:
        MissingExtraError: DuckDB or pyarrow is not installed.
        RecordError: Nothing can be read at the path, or a file is damaged or of a newer schema.
        InputError: The statement is not one SELECT, or DuckDB refuses it.
    """
    duckdb = require("duckdb", "analysis", "SQL on records")
    with duckdb.connect(":memory:", config=_SETTINGS) as database:
        # First, so that a typing error does not wait for records to be read.
        statement = _parsed(duckdb, database, sql)
        # Before the records, whose times the zone of this process would shift otherwise.
        database.execute("SET TimeZone = 'UTC'")
        for name, table in read_tables(path).items():
            database.register("arrow", table)
            # With a time zone, DuckDB could not hand times to Python without another package.
            columns = "* REPLACE (started_at::TIMESTAMP AS started_at)" if name == "query" else "*"
            database.execute(f'CREATE TABLE "{name}" AS SELECT {columns} FROM arrow')
            database.unregister("arrow")
        database.execute("SET lock_configuration = true")
        database.execute("BEGIN TRANSACTION READ ONLY")
        try:
            database.execute(statement)
            for name, kind, *_ in database.description:
                if "WITH TIME ZONE" in str(kind):
                    raise InputError(
                        f"column `{name}` is a {kind}: select it as `…::timestamp`, in UTC"
                    )
            return Answer(tuple(column[0] for column in database.description), database.fetchall())
        except (duckdb.Error, RuntimeError) as error:
            if "Query interrupted" in str(error):  # in 2.0 a plain RuntimeError
                raise KeyboardInterrupt from error
            raise _refused(error) from error
        except InputError:
            raise
        except (OverflowError, ValueError) as error:
            raise InputError(
                f"a value cannot be handed over ({error}): cast it, such as `…::varchar`"
            ) from error


def _parsed(duckdb: Any, database: Any, sql: str) -> Any:
    try:
        sql.encode("utf-8")
        statements = database.extract_statements(sql)
    except (duckdb.Error, RuntimeError, UnicodeEncodeError) as error:
        raise _refused(error) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("the SQL is not one SELECT statement: records can only be read")
    if statements[0].named_parameters:
        raise InputError("the SQL has parameters, and no values for them: write the values out")
    return statements[0]


def _refused(error: Exception) -> InputError:
    """DuckDB's message without what it draws below it: the statement, or where Python was."""
    lines = str(error).partition("\n\nLINE ")[0].splitlines()
    return InputError(f"the SQL cannot be run: {' '.join(lines[:2])}")
