"""Results of finished tasks on the disk, so that a run that was lost need not start again.

One JSON object a line, appended as results arrive: a header, then `key` (the task's identity),
`shapes` of its arrays, `data` (their numbers one after the other, little-endian float64 in base64)
and `crc` (CRC-32 of all of that). Nothing in it is code.
"""

from __future__ import annotations

import base64
import json
import math
import os
import zlib

import msgspec
import numpy as np

from ..errors import RecordError
from ..records.environment import installed
from ..records.files import LineFile, read_at, refused, take_lock, write_all
from ..records.schema import parse
from .messages import Arrays

FORMAT = 1
_PACKAGE = "distributed-estimator"
_NUMBER = np.dtype("<f8")


class Journal(LineFile):
    """Keeps the results of finished tasks in a file; threads may share it, processes may not.

    Repeat a run with the same seed and the same journal, and it goes on where it was: a task's
    key names the run's seed, too, so what is found under it is what would be computed again, to
    the bit. The file is made, and held against other runs, with the first look-up or result. In
    memory are the keys and where in the file their results are. A line that a lost process left
    half-written is cut off; a result is with the operating system when `add` returns.

    Args:
        path: The file, new or a journal; relative paths are resolved now.

    Raises:
        InputError: The path is none.
        RecordError: The file is no journal, damaged (names the line), of another version, held by
            another process, or cannot be made, read and written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.journal"
        ...     with Journal(path) as journal:
        ...         journal.add("task 0", (np.array([0.5, -1.0]),))
        ...     with Journal(path) as journal:
        ...         print(journal.find("task 0"), journal.find("task 1"))
        (array([ 0.5, -1. ]),) None
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        if self.path.exists():
            if not self.path.is_file():
                raise RecordError(
                    f"`{self.path}` is no regular file: name a file, new or a journal"
                )
            with refused("read", self.path):
                self._opened()

    def find(self, key: str) -> Arrays | None:
        """The result of a task; None where it has none.

        Raises:
            RecordError: The file cannot be read, has changed since, or another process holds it.
        """
        with refused("read", self.path), self._lock:
            descriptor = self._opened()
            if key not in self._places:
                return None
            offset, length = self._places[key]
            line = read_at(descriptor, offset, length)
        found, arrays = self._parsed(line, f"byte {offset}")
        if found != key:
            raise RecordError(
                f"`{self.path}` was changed while in use: the result of {key!r} is not where it was"
            )
        return arrays

    def add(self, key: str, arrays: Arrays) -> None:
        """Keeps a result; a second one under the same key is left out.

        Raises:
            RecordError: The file cannot be written, or another process holds it.
        """
        line = _line(key, arrays)
        with refused("write", self.path), self._lock:
            descriptor = self._opened()
            if key in self._places:
                return
            data = line if self._end else _header() + line
            os.ftruncate(descriptor, self._end)  # a crash remnant, or what a full disk cut short
            write_all(descriptor, data)
            self._end += len(data)
            self._places[key] = self._end - len(line), len(line)

    def _begin(self, descriptor: int) -> None:
        """Locks the file and finds all results; what follows the last newline stays out."""
        if not take_lock(descriptor):
            raise RecordError(
                f"`{self.path}` is in use by another run: wait for it, or name another journal"
            )
        self._places, self._end = {}, 0
        with open(descriptor, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # a crash remnant
                    if number == 1 and not _header().startswith(line):
                        raise self._foreign()
                    return
                if number == 1:
                    self._check_header(line)
                else:
                    key, _ = self._parsed(line, f"line {number}")
                    self._places.setdefault(key, (self._end, len(line)))
                self._end += len(line)

    def _check_header(self, line: bytes) -> None:
        try:
            header = parse(line)
        except ValueError as error:
            raise self._foreign() from error
        if not isinstance(header, dict) or "journal" not in header:
            raise self._foreign()
        versions = header.get("versions")
        written = versions.get(_PACKAGE) if isinstance(versions, dict) else None
        if (header["journal"], written) != (FORMAT, _version()):
            raise RecordError(
                f"`{self.path}` is a journal of format {header['journal']}, written by "
                f"{_PACKAGE} {written}; this is {_PACKAGE} {_version()} with format {FORMAT}: "
                "results of two versions do not mix, so go on with the one that wrote it, or name "
                "another file"
            )

    def _foreign(self) -> RecordError:
        return RecordError(f"`{self.path}` is no journal: name another file; it was left as it is")

    def _parsed(self, line: bytes, place: str) -> tuple[str, Arrays]:
        try:
            return _parse(line)
        except ValueError as error:
            raise RecordError(
                f"{self.path}, {place} is damaged ({error}): restore the journal, or name another "
                "file and let all tasks run again"
            ) from error


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A line after the header."""

    key: str
    shapes: list[list[int]]
    data: str
    crc: int


def _version() -> str:
    return installed(_PACKAGE) or "unknown"


def _header() -> bytes:
    header = {"journal": FORMAT, "versions": {_PACKAGE: _version()}}
    return json.dumps(header).encode("ascii") + b"\n"


def _line(key: str, arrays: Arrays) -> bytes:
    numbers = b"".join(array.astype(_NUMBER).tobytes() for array in arrays)
    shapes = [list(array.shape) for array in arrays]
    data = base64.b64encode(numbers).decode("ascii")
    entry = {"key": key, "shapes": shapes, "data": data, "crc": _crc(key, shapes, data)}
    return json.dumps(entry).encode("ascii") + b"\n"


def _crc(key: str, shapes: list[list[int]], data: str) -> int:
    return zlib.crc32(json.dumps([key, shapes, data]).encode("ascii"))


def _parse(line: bytes) -> tuple[str, Arrays]:
    """Key and arrays of a line.

    Raises:
        ValueError: It is not what `_line` wrote.
    """
    entry = msgspec.convert(parse(line), _Entry)
    if entry.crc != _crc(entry.key, entry.shapes, entry.data):
        raise ValueError("its checksum does not match")
    numbers = np.frombuffer(base64.b64decode(entry.data), _NUMBER)
    arrays, start = [], 0
    for shape in entry.shapes:
        end = start + math.prod(shape)
        arrays.append(numbers[start:end].reshape(shape).astype(np.float64))
        start = end
    return entry.key, tuple(arrays)
