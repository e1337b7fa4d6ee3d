"""The records' JSON Schema, made from their dataclasses."""

from __future__ import annotations

import ast
import inspect
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise, takewhile
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from . import schema
from .codec import KINDS
from .schema import (
    PIPELINES,
    QUANTITIES,
    SCHEMA_VERSION,
    TASK_STATUSES,
    QueryRecord,
    Record,
    TaskRecord,
)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPES = {int: "integer", str: "string", bool: "boolean"}
# What the types of fields do not say, and the records check.
_CHECKED: dict[type[Any], dict[str, dict[str, Any]]] = {
    QueryRecord: {
        "pipeline": {"enum": list(PIPELINES)},
        "quantity": {"enum": list(QUANTITIES)},
        "num_queries": {"minimum": 0},
        "started_at": {"format": "date-time"},
    },
    TaskRecord: {"status": {"enum": list(TASK_STATUSES)}},
}


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of one line of a record file, whatever its kind.

    Fields that came later are not required, since older files lack them, and fields that are not
    known are allowed, since newer files may have them: readers take both. `null` stands where a
    number is not a number, so every fractional number may be `null`.

    Example:
        >>> sorted(json_schema()["$defs"])[:3]
        ['CircuitInfo', 'DeviceRecord', 'Header']
    """
    definitions: dict[str, Any] = {}
    kinds = [_reference(kind, definitions) for kind in KINDS.values()]
    return {
        "$schema": _DIALECT,
        "title": "DistributedEstimator record",
        "description": "One line of a record file, such as queries.jsonl.",
        "oneOf": kinds,
        "$defs": dict(sorted(definitions.items())),
    }


def _reference(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = _definition(kind, definitions)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _definition(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    hints, notes = get_type_hints(kind), _field_notes(kind)
    properties: dict[str, Any] = {}
    if kind in KINDS.values():
        properties["kind"] = {"const": kind.kind}
    for field in fields(kind):
        described = {"description": notes[field.name]} if field.name in notes else {}
        checked = _CHECKED.get(kind, {}).get(field.name, {})
        properties[field.name] = _type(hints[field.name], definitions) | checked | described
    if "schema_version" in properties:
        properties["schema_version"] = {"const": SCHEMA_VERSION}
    optional = {
        field.name
        for field in fields(kind)
        if field.default is not MISSING or field.default_factory is not MISSING
    } - {"schema_version"}
    return {
        "description": _about(kind),
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _type(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field's type: those that the codec reads, and no other."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        (wanted,) = (option for option in arguments if option is not NoneType)
        return _or_null(_type(wanted, definitions))
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], definitions)}
    if is_dataclass(hint) and isinstance(hint, type):
        return _reference(hint, definitions)
    return {"type": ["number", "null"]} if hint is float else {"type": _JSON_TYPES[hint]}


def _or_null(wanted: dict[str, Any]) -> dict[str, Any]:
    kind = wanted["type"]
    return wanted | {"type": kind if isinstance(kind, list) else [kind, "null"]}


def _about(kind: type[Any]) -> str:
    """What the class says of itself, without its sections on errors and use."""
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    told = takewhile(lambda text: not text.startswith(("Raises:", "Example:")), paragraphs)
    return " ".join(" ".join(told).split())


def _field_notes(kind: type[Record] | type[Any]) -> dict[str, str]:
    """The texts that stand below fields in the source, which Python does not keep."""
    body = next(
        node.body
        for node in ast.parse(inspect.getsource(schema)).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    return {
        field.target.id: " ".join(inspect.cleandoc(note.value.value).split())
        for field, note in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(note, ast.Expr)
        and isinstance(note.value, ast.Constant)
        and isinstance(note.value.value, str)
    }
