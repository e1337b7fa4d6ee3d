"""How files are written: whole lines appended, or a whole file replaced; and record files.

**Torn lines.** A line and its newline are one write, so a writer that dies leaves at most one line
without a newline, at the end. The next writer of records closes such a line with `TORN_MARK` and a
newline, and only then appends. So an unreadable line is a crash remnant, and skipped, exactly when
it carries the mark or when it is last and has no newline; any other unreadable line is damage and
raises `RecordError`. A line that lost nothing but its newline is read like any other.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import secrets
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self

from ..checks import check_kind, given_path
from ..errors import CheckpointError, RecordError
from ..forks import Lock, register
from .schema import Header, Record, decode, encode, parse, plain

# Where a system has no file locks, threads are safe, and processes on their own.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

TORN_MARK = b" #torn"
"""No record ends like this: the last byte of a record is its closing brace."""
_MAX_HEADER = 1 << 16


@contextmanager
def refused(
    verb: str, path: Path, kind: type[RecordError | CheckpointError] = RecordError
) -> Iterator[None]:
    """Reports what the operating system refuses, such as to "write" a path, as our error."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot {verb} `{path}`: {error.strerror or error}") from error


def take_lock(descriptor: int, *, wait: bool = False) -> bool:
    """Take a file's lock until it is closed; False if another process has it, unless we wait."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # some network file systems have no locks: then do without
            pass
    return True


@contextmanager
def locked(descriptor: int) -> Iterator[int]:
    """Hold a file's lock meanwhile; waits for whoever has it."""
    take_lock(descriptor, wait=True)
    try:
        yield descriptor
    finally:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)


def hold_folder(lock: Path) -> IO[str] | None:
    """Take the lock file of a folder, which is made if need be, until the file is closed.

    Returns None if another process has it.

    Raises:
        OSError: The folder or the file cannot be made.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = lock.open("w")
    if take_lock(file.fileno()):
        return file
    file.close()
    return None


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


def is_left_behind(name: str) -> bool:
    """Whether a file has the name of one that `atomic` had not finished when it was killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}", name) is not None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON file that is there whole or not at all; NaN and infinities become null.

    Raises:
        RecordError: The operating system refused.
    """
    text = json.dumps(plain(document), indent=2, allow_nan=False) + "\n"
    with refused("write", path), atomic(path) as unfinished:
        unfinished.write_text(text, "utf-8")


def read_json(path: Path, remedy: str = "restore it") -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        RecordError: The file cannot be read, or holds no object; the message ends in the remedy.
    """
    with refused("read", path):
        content = path.read_bytes()
    try:
        document = parse(content)
    except ValueError as error:
        raise RecordError(f"`{path}` is damaged: it is not JSON ({error}); {remedy}") from error
    if not isinstance(document, dict):
        raise RecordError(f"`{path}` is damaged: it is no JSON object; {remedy}")
    return document


class LineFile:
    """A file that grows by whole lines. Threads may share it; see subclasses for processes.

    It is opened, and its folders made, with its first use. A closed one opens its path again when
    it needs to, and so does a fork, which leaves its parent's alone. One that is forgotten closes.

    Args:
        path: The file, new or old; relative paths are resolved now.

    Raises:
        InputError: What is given is no path.
        RecordError: The path is a folder or cannot be written.
    """

    path: Path
    _lock: Lock
    _descriptor: int | None
    _close: Callable[[], object]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = given_path(path).absolute()
        with refused("write", self.path):  # a name that is too long
            if self.path.is_dir():
                raise RecordError(f"`{self.path}` is a folder: give the path of a file in it")
            nearest = next(place for place in (self.path, *self.path.parents) if place.exists())
            is_place = nearest == self.path or nearest.is_dir()
        if not (is_place and os.access(nearest, os.R_OK | os.W_OK)):
            raise RecordError(
                f"cannot write `{self.path}`: `{nearest}` must be a folder or file that can be "
                "read and written; choose another path or change its permissions"
            )
        self._reset()

    def _reset(self) -> None:
        self._lock = Lock()
        self._descriptor = None
        register(self)

    def close(self) -> None:
        """Closes the file; closing twice does nothing, using it again opens it again."""
        with self._lock:
            self._renew_in_fork()

    def _renew_in_fork(self) -> None:
        """A descriptor and its lock are shared with the parent: let go, and open another."""
        # First let go of, then closed: another thread may fork this process in between.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._close()

    def _opened(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags, 0o666)
            try:
                self._begin(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            self._close = weakref.finalize(self, os.close, descriptor)
        return self._descriptor

    def _begin(self, descriptor: int) -> None:
        """What has to be done when the file has been opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_at(descriptor: int, offset: int, count: int) -> bytes:
    """So many bytes of a file, fewer at its end."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    parts = []
    while count and (part := os.read(descriptor, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Appends to a file: in one write, unless the disk is full or a signal comes in."""
    while data:
        data = data[os.write(descriptor, data) :]


class RecordWriter(LineFile):
    """Appends records to a file; threads and processes may share it.

    The file and its folders are made with the first record, and the header goes before it. Each
    record is one write in append mode, under a lock, and is with the operating system when `write`
    returns (a crash of the program loses none; a power cut may). As a context manager it closes
    its descriptor at the end; a closed or unpickled writer opens its path again when it needs to.

    Args:
        path: The file, new or with records in it; relative paths are resolved now.
        config_hash: Of the run's configuration, for the header.
        attempt: How often the run was begun, this time included, for the header. A writer that is
            given either writes a header of its own, though there be records before it.

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

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config_hash: str | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(path)
        self._run: dict[str, Any] = {"config_hash": config_hash, "attempt": attempt}
        self._header_due = config_hash is not None or attempt is not None

    def write(self, record: Record) -> None:
        """Appends one record, and before it what makes the file sound: torn mark, header.

        Raises:
            RecordError: The record cannot be written as JSON, or the operating system refused
                (disk full, folder gone).
        """
        line = encode(record) + b"\n"
        with refused("write", self.path), self._lock, locked(self._opened()) as descriptor:
            mark, headless = _end_of(descriptor)
            if headless or self._header_due:
                line = encode(Header.current(**self._run)) + b"\n" + line
            write_all(descriptor, mark + line)
            self._header_due = False

    def sync(self) -> None:
        """Waits until every record is on the disk, where a power cut does not reach it.

        Raises:
            RecordError: The operating system refused.
        """
        with refused("write", self.path), self._lock:
            os.fsync(self._opened())

    def size(self) -> int:
        """The size of the file in bytes; 0 before the first record."""
        return self.path.stat().st_size if self.path.exists() else 0

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
    torn = size > 0 and read_at(descriptor, size - 1, 1) != b"\n"
    start = read_at(descriptor, 0, _MAX_HEADER) if torn else b""
    headless = size == 0 or (torn and b"\n" not in start and not _is_json(start))
    return TORN_MARK + b"\n" if torn else b"", headless


def _is_json(text: bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def read_records(*paths: str | os.PathLike[str]) -> Iterator[Record]:
    """Reads files one after the other, in the order given, and skips crash remnants.

    Files whose names end in `.gz` are taken to be compressed with gzip.

    Raises:
        RecordError: A file cannot be read, or a line is damaged or of a newer schema; names file
            and line. Raised when the iteration gets there.
    """
    for path in map(given_path, paths):
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    record = _read_line(line, f"{path}, line {number}")
                    if record is not None:
                        yield record
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RecordError(f"`{path}` is damaged: {error}; restore it") from error
        except OSError as error:
            raise RecordError(f"cannot read `{path}`: {error.strerror}") from error


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


def truncate_records(path: str | os.PathLike[str], size: int, *, check_only: bool = False) -> None:
    """Takes off what was appended to a file after it had `size` bytes, see `RecordWriter.size`.

    With `check_only`, only checks whether that can be done.

    Raises:
        RecordError: The file is missing or shorter, no line ends there, or it cannot be written.
    """
    with refused("write", Path(path)), open(path, "r+b") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size > length or (size and file.read(1) != b"\n"):
            raise RecordError(
                f"`{os.fspath(path)}` has {length} bytes and no line that ends after {size}: it is "
                "not the file it was, restore it"
            )
        if not check_only:
            file.truncate(size)
