"""What a run has found and sent, on the disk, so that one that was lost need not start again.

One JSON object a line, appended as things happen: a header, then results and jobs. A result has
`key` (the task's identity), `shapes` of its arrays, `data` (their numbers one after the other,
little-endian float64 in base64) and `crc` (CRC-32 of all of that). Jobs of a task at a service have
`key`, `jobs` (their ids; empty before they are sent, null when they have ended without a result),
`note` (the device, or why they ended) and `crc`. Numbers that a run began with (readout, qubits)
are kept as results are. Nothing in it is code.
"""

from __future__ import annotations

import base64
import json
import math
import os
import zlib
from collections.abc import Sequence

import msgspec
import numpy as np

from ..errors import RecordError
from ..records.environment import installed
from ..records.files import LineFile, read_at, refused, take_lock, write_all
from ..records.schema import parse
from .messages import Arrays

FORMAT = 2
_READABLE = (1, FORMAT)
"""The first one had no jobs, and is otherwise the same."""
_PACKAGE = "distributed-estimator"
_NUMBER = np.dtype("<f8")


class Journal(LineFile):
    """Keeps results of tasks and ids of jobs in a file; threads may share it, processes may not.

    Repeat a run with the same seed and the same journal, and it goes on where it was: a task's
    key names the run's seed, too, so what is found under it is what would be computed again, to
    the bit. The file is made, and held against other runs, with the first look-up or result. In
    memory are the keys and where in the file their results are. A line that a lost process left
    half-written is cut off; a result is with the operating system when `add` returns. What is noted
    of jobs, which cost money, is on the disk (see `JobBook`).

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
        self._jobs: dict[str, tuple[str, ...]] = {}
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
        entry = self._parsed(line, f"byte {offset}")
        if entry.key != key or isinstance(entry, _Jobs):
            raise RecordError(
                f"`{self.path}` was changed while in use: the result of {key!r} is not where it was"
            )
        return entry.arrays

    def add(self, key: str, arrays: Arrays) -> None:
        """Keeps a result; a second one under the same key is left out.

        Raises:
            RecordError: The file cannot be written, or another process holds it.
        """
        line = _Result.of(key, arrays).line()
        with refused("write", self.path), self._lock:
            descriptor = self._opened()
            if key in self._places:
                return
            self._append(descriptor, line)
            self._places[key] = self._end - len(line), len(line)

    def intend(self, name: str) -> None:
        """Notes that a job is about to be sent; see `JobBook`.

        Raises:
            RecordError: The file cannot be written, or another process holds it.
        """
        self._note(name, (), "")

    def sent(self, name: str, jobs: Sequence[str], device: str) -> None:
        """Notes ids of jobs that were sent; see `JobBook`.

        Raises:
            RecordError: The file cannot be written, or another process holds it.
        """
        self._note(name, tuple(jobs), device)

    def ended(self, name: str, cause: str) -> None:
        """Notes that jobs ended without a result; see `JobBook`.

        Raises:
            RecordError: The file cannot be written, or another process holds it.
        """
        self._note(name, None, cause)

    def jobs(self, name: str) -> tuple[str, ...] | None:
        """Ids of jobs that have not ended so; see `JobBook`.

        Raises:
            RecordError: The file cannot be read, or another process holds it.
        """
        with refused("read", self.path), self._lock:
            self._opened()
            return self._jobs.get(name)

    def _note(self, name: str, jobs: tuple[str, ...] | None, note: str) -> None:
        entry = _Jobs.of(name, jobs, note)
        with refused("write", self.path), self._lock:
            descriptor = self._opened()
            self._append(descriptor, entry.line())
            os.fsync(descriptor)
            self._learn(entry)

    def _learn(self, entry: _Jobs) -> None:
        if entry.jobs is None:
            self._jobs.pop(entry.key, None)
        else:
            self._jobs[entry.key] = tuple(entry.jobs)

    def _append(self, descriptor: int, line: bytes) -> None:
        data = line if self._end else _header() + line
        os.ftruncate(descriptor, self._end)  # a crash remnant, or what a full disk cut short
        write_all(descriptor, data)
        self._end += len(data)

    def _begin(self, descriptor: int) -> None:
        """Locks the file and finds all results; what follows the last newline stays out."""
        if not take_lock(descriptor):
            raise RecordError(
                f"`{self.path}` is in use by another run: wait for it, or name another journal"
            )
        self._places, self._jobs, self._end = {}, {}, 0
        with open(descriptor, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # a crash remnant
                    if number == 1 and not _header().startswith(line):
                        raise self._foreign()
                    return
                if number == 1:
                    self._check_header(line)
                else:
                    entry = self._parsed(line, f"line {number}")
                    if isinstance(entry, _Jobs):
                        self._learn(entry)
                    else:
                        self._places.setdefault(entry.key, (self._end, len(line)))
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
        if header["journal"] not in _READABLE or written != _version():
            raise RecordError(
                f"`{self.path}` is a journal of format {header['journal']}, written by "
                f"{_PACKAGE} {written}; this is {_PACKAGE} {_version()} with format {FORMAT}: "
                "results of two versions do not mix, so go on with the one that wrote it, or name "
                "another file"
            )

    def _foreign(self) -> RecordError:
        return RecordError(f"`{self.path}` is no journal: name another file; it was left as it is")

    def _parsed(self, line: bytes, place: str) -> _Result | _Jobs:
        try:
            return _parse(line)
        except ValueError as error:
            raise RecordError(
                f"{self.path}, {place} is damaged ({error}): restore the journal, or name another "
                "file and let all tasks run again"
            ) from error


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A line after the header; `crc` is that of the other fields in order."""

    key: str
    crc: int

    def line(self) -> bytes:
        return json.dumps(msgspec.structs.asdict(self)).encode("ascii") + b"\n"


class _Result(_Entry, forbid_unknown_fields=True):
    shapes: list[list[int]]
    data: str

    @classmethod
    def of(cls, key: str, arrays: Arrays) -> _Result:
        numbers = b"".join(array.astype(_NUMBER).tobytes() for array in arrays)
        shapes = [list(array.shape) for array in arrays]
        data = base64.b64encode(numbers).decode("ascii")
        return cls(key, _crc(key, shapes, data), shapes, data)

    @property
    def is_whole(self) -> bool:
        return self.crc == _crc(self.key, self.shapes, self.data)

    @property
    def arrays(self) -> Arrays:
        numbers = np.frombuffer(base64.b64decode(self.data), _NUMBER)
        arrays, start = [], 0
        for shape in self.shapes:
            end = start + math.prod(shape)
            arrays.append(numbers[start:end].reshape(shape).astype(np.float64))
            start = end
        return tuple(arrays)


class _Jobs(_Entry, forbid_unknown_fields=True):
    jobs: list[str] | None
    note: str

    @classmethod
    def of(cls, key: str, jobs: Sequence[str] | None, note: str) -> _Jobs:
        ids = None if jobs is None else list(jobs)
        return cls(key, _crc(key, ids, note), ids, note)

    @property
    def is_whole(self) -> bool:
        return self.crc == _crc(self.key, self.jobs, self.note)


def _version() -> str:
    return installed(_PACKAGE) or "unknown"


def _header() -> bytes:
    header = {"journal": FORMAT, "versions": {_PACKAGE: _version()}}
    return json.dumps(header).encode("ascii") + b"\n"


def _crc(*fields: object) -> int:
    return zlib.crc32(json.dumps(fields).encode("ascii"))


def _parse(line: bytes) -> _Result | _Jobs:
    """The entry on a line.

    Raises:
        ValueError: It is not what `add` and `_note` write.
    """
    found = parse(line)
    entry: _Result | _Jobs
    if isinstance(found, dict) and "jobs" in found:
        entry = msgspec.convert(found, _Jobs)
    else:
        entry = msgspec.convert(found, _Result)
    if not entry.is_whole:
        raise ValueError("its checksum does not match")
    if isinstance(entry, _Result):
        _ = entry.arrays
    return entry
