"""A record as one line of strict JSON, and back.

Not-a-number and infinities are written as ``null``, because JSON has neither; where a number must
stand, ``null`` is read back as NaN.
"""

from __future__ import annotations

import json
import math
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import numpy as np

from ..errors import RecordError
from .schema import (
    SCHEMA_VERSION,
    CircuitInfo,
    DeviceRecord,
    Header,
    Machine,
    QueryRecord,
    Record,
    StragglerInfo,
    Summary,
    TaskRecord,
    TrainingRecord,
)

KINDS: dict[str, type[Record]] = {
    kind.kind: kind for kind in (Header, QueryRecord, TrainingRecord, TaskRecord, DeviceRecord)
}
"""Each kind of line with its dataclass."""
_PLAIN = (str, int, bool)


def to_dict(record: Record) -> dict[str, Any]:
    """The fields of a record, `kind` first, nested ones as dicts; NaN stays NaN."""
    return {"kind": record.kind} | {name: _as_dict(value) for name, value in vars(record).items()}


def _as_dict(value: Any) -> Any:
    # `dataclasses.asdict` copies deeply, which costs more than writing the line.
    if isinstance(value, CircuitInfo | StragglerInfo | Summary | Machine):
        return dict(vars(value))
    return dict(value) if isinstance(value, dict) else value


def encode(record: Record) -> bytes:
    """A record as one line of ASCII, without the newline; NumPy's numbers are taken as Python's.

    Raises:
        RecordError: A field holds what JSON has no word for.
    """
    data = to_dict(record)
    try:
        try:
            line = json.dumps(data, allow_nan=False)
        except (TypeError, ValueError):  # NaN, infinite or NumPy's: seldom, so looked for only now
            line = json.dumps(plain(data), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"a {record.kind} record cannot be written as JSON: {error}") from error
    return line.encode("ascii")


def parse(line: bytes) -> Any:
    """Whatever JSON value a line holds.

    Raises:
        ValueError: The line is no strict JSON in UTF-8.
    """
    try:
        return json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def decode(line: bytes) -> Record:
    """The record on one line; keys that this version does not know are ignored.

    Raises:
        RecordError: No JSON, an unknown kind, a field missing or of the wrong type, or a newer
            schema; the message says which.
    """
    try:
        data = parse(line)
    except ValueError as error:
        raise RecordError(f"it is not JSON ({error})") from error
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int:
        raise RecordError("it is no JSON object with a whole number `schema_version`")
    if data["schema_version"] > SCHEMA_VERSION:
        raise RecordError(
            f"its schema version is {data['schema_version']} and this release reads up to "
            f"{SCHEMA_VERSION}: install a newer distributed-estimator"
        )
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RecordError(f"its kind is {kind!r}, expected one of {sorted(KINDS)}")
    record: Record = _build(KINDS[kind], data, "")
    return record


def _build(kind: type[Any], data: Mapping[str, Any], prefix: str) -> Any:
    """An instance of a dataclass from its fields by name; others are ignored."""
    arguments = {}
    for name, hint, required in _fields_of(kind):  # type: ignore[arg-type]
        if name in data:
            arguments[name] = _convert(hint, data[name], prefix + name)
        elif required:
            raise RecordError(f"its field `{prefix}{name}` is missing")
    return kind(**arguments)


@cache
def _fields_of(kind: type[Any]) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(kind)
    return tuple(
        (f.name, hints[f.name], f.default is MISSING and f.default_factory is MISSING)
        for f in fields(kind)
    )


def _convert(hint: Any, value: Any, name: str) -> Any:
    """A JSON value as the type of a field; refuses rather than guesses."""
    # Most fields are plain, and seen before what takes longer to tell.
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if hint in _PLAIN and type(value) is hint:
        return value
    if hint is float and value is None:
        return math.nan
    origin = get_origin(hint)
    if origin is UnionType:
        (wanted,) = (option for option in get_args(hint) if option is not NoneType)
        return None if value is None else _convert(wanted, value, name)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _build(hint, value, name + ".")
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(get_args(hint)[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(get_args(hint)[1], item, name) for key, item in value.items()}
    raise RecordError(
        f"its field `{name}` is {reprlib.repr(value)}, expected {getattr(hint, '__name__', hint)}"
    )


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, NaN and infinities as None, all the way down."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
