"""Records as flat tables, one for each kind, for libraries that think in columns.

Nested fields are flattened (`circuit.num_qubits` becomes `circuit_num_qubits`), and each entry of a
dictionary is a column of its own (`metrics_train_accuracy`). What is `null` in a file is missing in
the table.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import RecordError
from ..records import KINDS, Header, Record, given_path, read_records
from ..records.environment import THREAD_VARIABLES
from ..records.schema import PACKAGES
from .documents import read_document

Type = Literal["str", "int", "float", "bool", "time", "ints", "floats"]

PATTERNS = ("*.jsonl", "*.jsonl.gz")
_TIMES = ("started_at",)
_INT64 = 2**63
_SIMPLE: dict[Any, Type] = {str: "str", int: "int", float: "float", bool: "bool"}
_KNOWN_KEYS: dict[tuple[type[Any], str], tuple[str, ...]] = {
    (Header, "versions"): (*PACKAGES, "python"),
    (Header, "threads"): (*THREAD_VARIABLES, "usable_cpus"),
}


@dataclass(frozen=True)
class Column:
    """Values of one type, None where there is none; times are in UTC.

    `optional` says whether there may be none, whatever the values at hand. Whole numbers of more
    than 64 bits make their column one of floats.
    """

    type: Type
    values: list[Any]
    optional: bool


Table = dict[str, Column]


@dataclass(frozen=True)
class Source:
    """Where records were: the file, and its run in a study as `run.json` beside it has it."""

    file: str
    study_run_id: str | None = None
    experiment: str | None = None


def record_files(path: str | os.PathLike[str]) -> list[Path]:
    """The record files at a path: the file itself, or all in a folder and the folders in it.

    Raises:
        RecordError: There is nothing, or a folder without record files.
    """
    place = given_path(path)
    if not place.is_dir():
        if not place.exists():
            raise RecordError(f"`{place}` does not exist: name a record file or a run's folder")
        return [place]
    found = each_once(
        file for pattern in PATTERNS for file in place.rglob(pattern) if file.is_file()
    )
    if not found:
        raise RecordError(
            f"`{place}` holds no record files ({' or '.join(PATTERNS)}): name the folder of a run "
            "or of a study"
        )
    return found


def each_once(files: Iterable[Path]) -> list[Path]:
    """Files sorted, without those compressed that stand beside the same file as it was."""
    found = set(files)
    return sorted(f for f in found if f.suffix != ".gz" or f.with_suffix("") not in found)


def source_of(file: Path, path: str | os.PathLike[str]) -> Source:
    """Where a file's records are from, its name relative to `path`.

    Raises:
        RecordError: The `run.json` beside it is damaged, or of a newer release.
    """
    name = file.name if file == Path(path) else file.relative_to(path).as_posix()
    described = file.with_name("run.json")
    if not described.is_file():
        return Source(name)
    run = read_document(described, dict[str, Any])
    run_id, experiment = run.get("run_id"), run.get("experiment")
    return Source(
        name,
        run_id if isinstance(run_id, str) else None,
        experiment if isinstance(experiment, str) else None,
    )


def read_tables(
    path: str | os.PathLike[str], kinds: Sequence[str] = tuple(KINDS)
) -> dict[str, Table]:
    """Reads a file or a folder of them, and makes a table for each kind.

    Every table begins with the columns `file`, `study_run_id` and `experiment` (see `Source`).

    Raises:
        RecordError: Nothing can be read there, a file is damaged or of a newer schema, or a kind is
            unknown.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise RecordError(f"kind is {kind!r}: use one of {', '.join(sorted(KINDS))}")
    rows: dict[str, list[tuple[Source, Record]]] = {kind: [] for kind in kinds}
    for file in record_files(path):
        source = source_of(file, path)
        for record in read_records(file):
            if record.kind in rows:
                rows[record.kind].append((source, record))
    return {kind: _table(KINDS[kind], found) for kind, found in rows.items()}


def _table(kind: type[Record], rows: Sequence[tuple[Source, Record]]) -> Table:
    sources, records = [row[0] for row in rows], [row[1] for row in rows]
    taken: set[str] = set()  # folded, since SQL does not tell upper and lower case apart
    table: Table = {}
    for name, hint, values in [*_columns(Source, "", sources), *_columns(kind, "", records)]:
        unique = _unique(name, taken)
        table[unique] = _column(name, hint, values)
    return table


def _unique(name: str, taken: set[str]) -> str:
    """A name that no other column has; it is taken then."""
    unique, number = name, 2
    while unique.casefold() in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique.casefold())
    return unique


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
            yield from _entries(name, _KNOWN_KEYS.get((kind, field.name), ()), hint, values)
        else:
            yield name, hint, values


def _entries(
    name: str, known: Iterable[str], hint: Any, values: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Any, list[Any]]]:
    """A column for each key of a dictionary: those always there, and those that were found."""
    keys = dict.fromkeys([*known, *(key for value in values for key in value)])
    for key in keys:
        column = re.sub(r"\W", "_", f"{name}_{key}", flags=re.ASCII)
        yield column, get_args(hint)[1] | None, [value.get(key) for value in values]


def _column(name: str, hint: Any, values: list[Any]) -> Column:
    optional = get_origin(hint) is UnionType
    if optional:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is tuple:
        return _list_column(get_args(hint)[0], values, optional)
    if name in _TIMES:
        return Column("time", [time_of(value) for value in values], True)
    if hint is str:
        return Column("str", [_text(value) for value in values], optional)
    if hint is float:
        return Column("float", [_number(value) for value in values], True)
    if hint is int and not _fits(values):
        return Column("float", [_as_float(value) for value in values], True)
    return Column(_SIMPLE[hint], values, optional)


def _list_column(hint: Any, values: list[Any], optional: bool) -> Column:
    whole = hint is int and all(_fits(value) for value in values if value is not None)
    convert = int if whole else _as_float if hint is int else _number
    lists = [None if value is None else [convert(item) for item in value] for value in values]
    return Column("ints" if whole else "floats", lists, optional)


def _fits(values: Iterable[int | None]) -> bool:
    return all(value is None or -_INT64 <= value < _INT64 for value in values)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def time_of(text: str) -> datetime | None:
    """A time that a record says, in UTC; None: it is none."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _as_float(number: int | None) -> float | None:
    if number is None:
        return None
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _text(text: str | None) -> str | None:
    # JSON can escape half a character, which neither Arrow nor DuckDB can hold.
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
