"""Record files: appended to by any number of threads and processes, readable after any crash.

**Torn lines.** A line and its newline are one write, so a writer that dies leaves at most one line
without a newline, at the end. The next writer closes such a line with `TORN_MARK` and a newline,
and only then appends. So an unreadable line is a crash remnant, and skipped, exactly when it
carries the mark or when it is last and has no newline; any other unreadable line is damage and
raises `RecordError`. A line that lost nothing but its newline is read like any other.
"""

from __future__ import annotations

import errno
import gzip
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..checks import check_kind
from ..errors import InputError, RecordError
from ..forks import Lock, register
from .locks import locked
from .schema import Header, Record, decode, encode, parse

TORN_MARK = b" #torn"
"""No record ends like this: the last byte of a record is its closing brace."""
_MAX_HEADER = 1 << 16


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path that somebody gave.

    Raises:
        InputError: It is none, or empty as that of an unset variable, which `Path` would take for
            the current folder.

    Example:
        >>> given_path("runs/iris").name
        'iris'
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path!r} is no path: give text or a `pathlib.Path`")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"{text!r} is no path: name a file or folder (`.` is the current folder)")
    return Path(text)


def read_records(*paths: str | os.PathLike[str]) -> Iterator[Record]:
    """Reads files one after the other, in the order given, and skips crash remnants.

    Files whose names end in `.gz` are taken to be compressed with gzip.

    Raises:
        RecordError: A file cannot be read, or a line is damaged or of a newer schema; names file
            and line. Raised when the iteration gets there.
    """
    for path in map(given_path, paths):
        compressed = path.suffix == ".gz"
        try:
            with gzip.open(path) if compressed else open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    record = _read_line(line, f"{path}, line {number}")
                    if record is not None:
                        yield record
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RecordError(f"{path} is damaged: {error}") from error
        except OSError as error:
            raise RecordError(f"cannot read {path}: {error.strerror}") from error


def _read_line(line: bytes, place: str) -> Record | None:
    """The record on a line; None for an empty line and for a crash remnant."""
    remnant = not line.endswith(b"\n") or line.rstrip().endswith(TORN_MARK)
    # Takes off whole and half-written marks; neither a record nor a piece of one can become JSON.
    text = line.rstrip(TORN_MARK + b"\r\n") if remnant else line.strip()
    if not text or (remnant and not _is_json(text)):
        return None
    try:
        return decode(text)
    except RecordError as error:
        raise RecordError(f"{place} is unreadable: {error}") from error


def _is_json(text: bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def truncate_records(path: str | os.PathLike[str], size: int, *, check_only: bool = False) -> None:
    """Takes off what was appended to a file after it had `size` bytes, as `RecordWriter.size` said.

    With `check_only`, says whether that can be done and changes nothing.

    Raises:
        RecordError: The file is missing or shorter, no line ends there, or it cannot be written.
    """
    try:
        with open(path, "r+b") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if size > length or (size and file.read(1) != b"\n"):
                raise RecordError(
                    f"{os.fspath(path)} has {length} bytes and no line that ends after {size}: it "
                    "is not the file it was, restore it"
                )
            if not check_only:
                file.truncate(size)
    except OSError as error:
        raise RecordError(f"cannot write {os.fspath(path)}: {error.strerror}") from error


@contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path to write to, which replaces `path` at the end, unless something was raised.

    It is beside `path`, under a name that no other writer has: the last to end wins, whole.

    Args:
        path: The file to be; its folder is there.
        durable: Whether to wait until it is on the disk, where a power cut does not reach it.

    Raises:
        IsADirectoryError: There is a folder of that name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # Not `tempfile`, whose files are for their owner alone, and would be so under this path.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield unfinished
        if durable:
            with unfinished.open("rb+") as file:
                os.fsync(file)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class RecordWriter:
    """Appends records to a file; threads and processes may share it.

    The file and its folders are made with the first record, and the header goes before it. Each
    record is one write in append mode, under a lock, and is with the operating system when `write`
    returns (a crash of the program loses none; a power cut may). As a context manager it closes
    its descriptor at the end; a closed or unpickled writer opens its path again when it needs to.

    Args:
        path: The file, new or with records in it; relative paths are resolved now.
        config_hash: Of the run's configuration, for the header.
        attempt: How often the run was begun, this time included, for the header. A writer that is
            told either writes a header of its own, though there be records before it.

    Raises:
        InputError: What is given is no path.
        RecordError: The path is a folder or cannot be written.

    Example:
        >>> import tempfile
        >>> from distributed_estimator.records import TrainingRecord
        >>> step = TrainingRecord(
        ...     run_id="r1", step=0, epoch=0, loss=0.5, metrics={}, queries=80, at=1.5
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "runs" / "training.jsonl"
        ...     with RecordWriter(path) as log:
        ...         log.write(step)
        ...     [record.kind for record in read_records(path)]
        ['header', 'training']
    """

    path: Path
    _run: dict[str, Any]
    _header_due: bool
    _descriptor: int | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config_hash: str | None = None,
        attempt: int | None = None,
    ) -> None:
        self.path = given_path(path).absolute()
        self._run = {"config_hash": config_hash, "attempt": attempt}
        self._header_due = config_hash is not None or attempt is not None
        self._reset()
        try:
            if self.path.is_dir():
                raise RecordError(f"{self.path} is a folder: give the path of a file in it")
            nearest = next(place for place in (self.path, *self.path.parents) if place.exists())
        except OSError as error:  # a name that is too long
            raise RecordError(f"cannot write {self.path}: {error.strerror}") from error
        is_place = nearest == self.path or nearest.is_dir()
        if not (is_place and os.access(nearest, os.R_OK | os.W_OK)):
            raise RecordError(
                f"cannot write {self.path}: {nearest} must be a folder or file that can be read "
                "and written; choose another path or change its permissions"
            )

    def write(self, record: Record) -> None:
        """Appends one record, and before it what makes the file sound: torn mark, header.

        Raises:
            RecordError: The record cannot be written as JSON, or the operating system refused
                (disk full, folder gone).
        """
        line = encode(record) + b"\n"
        try:
            with self._lock, locked(self._open()) as descriptor:
                mark, headless = _end_of(descriptor)
                if headless or self._header_due:
                    line = encode(Header.current(**self._run)) + b"\n" + line
                _write_all(descriptor, mark + line)
                self._header_due = False
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror}") from error

    def sync(self) -> None:
        """Waits until every record is on the disk, where a power cut does not reach it.

        Raises:
            RecordError: The operating system refused.
        """
        try:
            with self._lock:
                os.fsync(self._open())
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror}") from error

    def size(self) -> int:
        """The size of the file in bytes; 0 before the first record."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Closes the descriptor; closing twice does nothing, writing again reopens."""
        with self._lock:
            self._renew_in_fork()

    def _renew_in_fork(self) -> None:
        """A descriptor and its lock are shared with the parent: let go, and open another."""
        # First let go of, then closed: another thread may fork this process in between.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _reset(self) -> None:
        self._lock = Lock()
        self._descriptor = None
        register(self)

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
        return self._descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_run": self._run, "_header_due": self._header_due}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()


def writer_of(name: str, log: str | os.PathLike[str] | RecordWriter | None) -> RecordWriter | None:
    """The writer that an argument of that name asks for; None: none.

    Raises:
        InputError: It is neither a path nor a writer.
        RecordError: The path is a folder or cannot be written.
    """
    if log is None or isinstance(log, RecordWriter):
        return log
    check_kind(name, log, str | os.PathLike, "the path of a file, a RecordWriter, or None")
    return RecordWriter(log)


def _end_of(descriptor: int) -> tuple[bytes, bool]:
    """What has to stand between a file's end and what comes next; whether a header is missing."""
    size = os.fstat(descriptor).st_size
    torn = size > 0 and _read_at(descriptor, size - 1, 1) != b"\n"
    start = _read_at(descriptor, 0, _MAX_HEADER) if torn else b""
    headless = size == 0 or (torn and b"\n" not in start and not _is_json(start))
    return TORN_MARK + b"\n" if torn else b"", headless


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:  # one write takes it all, unless the disk is full or a signal comes in
        data = data[os.write(descriptor, data) :]
