"""JSON documents of runs and studies, checked against their declarations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import RecordError
from ..records.schema import parse as parse_json

DocumentT = TypeVar("DocumentT")

STUDY_VERSION = 1
"""Newest schema of study.json, run.json and result.json that is read."""
_MOST_BYTES = 64 * 2**20


class ForeignError(RecordError):
    """A file of another study or of a newer release: it says nothing of the study it lies in."""


def read_bytes(path: Path) -> bytes:
    """The content of a JSON document.

    Raises:
        RecordError: It cannot be read, or is larger than any document of ours.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecordError(f"{path} is damaged: it is larger than {_MOST_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def parse(place: str, content: bytes | None, kind: type[DocumentT]) -> DocumentT:
    """A JSON document with a schema version, checked against its declaration.

    Raises:
        RecordError: It is damaged, or newer than this release.
    """
    data = decode(place, content)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int:
        raise RecordError(f"{place} is damaged: it is no object with a whole `schema_version`")
    if version > STUDY_VERSION:
        raise ForeignError(
            f"{place} has schema version {version} and this release reads up to {STUDY_VERSION}: "
            "install a newer distributed-estimator"
        )
    return convert(place, data, kind)


def decode(place: str, content: bytes | None) -> Any:
    """What a JSON document says.

    Raises:
        RecordError: It is not JSON.
    """
    try:
        data = parse_json(content or b"")
        if content and b"\\ud" in content.lower():  # which no data frame can hold
            data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
        return data
    except ValueError as error:
        raise RecordError(f"{place} is damaged: it is not JSON ({error})") from error


def convert(place: str, data: Any, kind: type[DocumentT], within: str = "") -> DocumentT:
    """Data of a document, checked against its declaration.

    Raises:
        RecordError: A field is missing or of another type.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        why = str(error).replace("`$.", f"`{within}.".replace("`.", "`"))
        raise RecordError(f"{place} is damaged: {why}; restore it, or run it again") from error


def read_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """A JSON document of a file, checked against its declaration.

    Raises:
        RecordError: It cannot be read, is damaged or newer than this release.
    """
    return parse(str(path), read_bytes(path), kind)
