"""Results of finished tasks on the disk, so that a run that was lost is not begun anew.

One JSON object a line, appended as results arrive: a header, then `key` (the task's identity),
`shapes` of its arrays, `data` (their numbers one after the other, little-endian float64 in base64)
and `crc` (CRC-32 of all of that). Nothing in it is code.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import weakref
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import RecordError
from ..forks import Lock, register
from ..records import given_path
from ..records.environment import installed
from ..records.locks import take_lock
from ..records.schema import parse
from .messages import Arrays

FORMAT = 1
_PACKAGE = "distributed-estimator"
_NUMBER = np.dtype("<f8")


class Journal:
    """Keeps the results of finished tasks in a file; threads may share it, processes may not.

    Repeat a run with the same seed and the same journal, and it goes on where it was: a task's
    key names the run's seed, too, so what is found under it is what would be computed again, to
    the bit. The file is made, and held against other runs, with the first look-up or result. In
    memory are the keys and where in the file their results are. A line that a lost process left
    half-written is cut off; a result is with the operating system when `add` returns.

    Args:
        path: The file, new or a journal; relative paths are resolved now.

    Raises:
        InputError: What is given is no path.
        RecordError: The file is no journal, damaged (names the line), of another version, held by
            another process, or cannot be made, read and written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.journal"
        ...     with Journal(path) as journal:
        ...         journal.add("task 0", (np.array([0.5, -1.0]),))
        ...     with Journal(path) as journal:
        ...         print(journal.find("task 0"), journal.find("task 1"))
        (array([ 0.5, -1. ]),) None
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = given_path(path).absolute()
        self._lock = Lock()
        self._descriptor: int | None = None
        self._let_go: Callable[[], object] = _nothing
        self._lines: dict[str, tuple[int, int]] = {}
        self._end = 0
        try:
            _check_place(self.path)
            exists = self.path.exists()
        except OSError as error:
            raise self._unreadable(error) from error
        if exists:
            self._open()
        register(self)

    def find(self, key: str) -> Arrays | None:
        """The result of a task; None where it has none.

        Raises:
            RecordError: The file cannot be read, has changed since, or another process holds it.
        """
        with self._lock:
            descriptor = self._opened()
            if key not in self._lines:
                return None
            offset, length = self._lines[key]
            try:
                line = _read(descriptor, offset, length)
            except OSError as error:
                raise self._unreadable(error) from error
        found, arrays = self._parsed(line, f"{self.path}, byte {offset}")
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
        with self._lock:
            descriptor = self._opened()
            if key in self._lines:
                return
            self._append(descriptor, line)
            self._lines[key] = self._end - len(line), len(line)

    def close(self) -> None:
        """Lets go of the file; closing twice does nothing, using it again reopens.

        A journal that is forgotten lets go, too.
        """
        with self._lock:
            self._let_go()
            self._descriptor = None

    def _renew_in_fork(self) -> None:
        """The file stays the parent's: a fork that wants it is refused, or waits for its end."""
        self._let_go()
        self._let_go, self._descriptor = _nothing, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> int:
        return self._open() if self._descriptor is None else self._descriptor

    def _open(self) -> int:
        """Opens, locks and reads the file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._hold(descriptor)
            self._scan(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._let_go = weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _hold(self, descriptor: int) -> None:
        if not take_lock(descriptor):
            raise RecordError(
                f"`{self.path}` is in use by another run: wait for it, or name another journal"
            )

    def _scan(self, descriptor: int) -> None:
        """Finds all results; what follows the last newline is a crash remnant, and stays out."""
        self._lines, self._end = {}, 0
        with open(descriptor, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                place = f"{self.path}, line {number}"
                if not line.endswith(b"\n"):
                    self._check_remnant(line, number)
                    return
                if number == 1:
                    self._check_header(line)
                else:
                    key, _ = self._parsed(line, place)
                    self._lines.setdefault(key, (self._end, len(line)))
                self._end += len(line)

    def _check_remnant(self, line: bytes, number: int) -> None:
        """Whether a file of one unfinished line was to be a journal, and may be cut off."""
        if number == 1 and not _header().startswith(line):
            raise self._foreign()

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

    def _unreadable(self, error: OSError) -> RecordError:
        return RecordError(f"cannot read and write `{self.path}`: {error.strerror}")

    def _parsed(self, line: bytes, place: str) -> tuple[str, Arrays]:
        try:
            return _parse(line)
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"{place} is damaged ({error}): restore the journal, or name another file and let "
                "all tasks run again"
            ) from error

    def _append(self, descriptor: int, line: bytes) -> None:
        data = line if self._end else _header() + line
        try:
            os.ftruncate(descriptor, self._end)  # a crash remnant, or what a full disk cut short
            os.lseek(descriptor, self._end, os.SEEK_SET)
            rest = data
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            raise self._unreadable(error) from error
        self._end += len(data)


def _check_place(path: Path) -> None:
    """Refuses a path where no journal is and none can be made, before anything has been computed.

    Raises:
        RecordError: There is something that is no regular file, or no folder to write to.
        OSError: The system cannot look it up.
    """
    if path.is_dir():
        raise RecordError(f"`{path}` is a folder: give the path of a file in it")
    if path.exists() and not path.is_file():
        raise RecordError(f"`{path}` is no regular file: name a file, new or a journal")
    nearest = next(place for place in (path, *path.parents) if place.exists())
    is_place = nearest == path or nearest.is_dir()
    if not (is_place and os.access(nearest, os.R_OK | os.W_OK)):
        raise RecordError(
            f"cannot read and write `{path}`: `{nearest}` must be a folder or file that can be "
            "read and written; choose another path or change its permissions"
        )


def _nothing() -> None:
    """Lets go of what is not held."""


def _version() -> str:
    return installed(_PACKAGE) or "unknown"


def _header() -> bytes:
    header = {"journal": FORMAT, "versions": {_PACKAGE: _version()}}
    return json.dumps(header).encode("ascii") + b"\n"


def _line(key: str, arrays: Arrays) -> bytes:
    numbers = b"".join(array.astype(_NUMBER).tobytes() for array in arrays)
    entry = {
        "key": key,
        "shapes": [list(array.shape) for array in arrays],
        "data": base64.b64encode(numbers).decode("ascii"),
    }
    return json.dumps({**entry, "crc": _crc(entry)}).encode("ascii") + b"\n"


def _crc(entry: Mapping[str, Any]) -> int:
    text = json.dumps([entry["key"], entry["shapes"], entry["data"]])
    return zlib.crc32(text.encode("ascii"))


def _parse(line: bytes) -> tuple[str, Arrays]:
    """Key and arrays of a line.

    Raises:
        ValueError, TypeError, KeyError: It is not what `_line` wrote.
    """
    try:
        entry = parse(line)
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(entry, dict) or set(entry) != {"key", "shapes", "data", "crc"}:
        raise ValueError("it has not the fields of a result")
    if entry["crc"] != _crc(entry):
        raise ValueError("its checksum does not match")
    try:
        numbers = np.frombuffer(base64.b64decode(entry["data"], validate=True), _NUMBER)
    except binascii.Error as error:
        raise ValueError("its numbers are not base64") from error
    counts = [math.prod(shape) for shape in entry["shapes"]]
    parts = np.split(numbers, np.cumsum(counts)[:-1]) if counts else []
    arrays = (
        part.reshape(shape).astype(np.float64)
        for part, shape in zip(parts, entry["shapes"], strict=True)
    )
    return entry["key"], tuple(arrays)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    parts = []
    while length and (part := os.read(descriptor, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
