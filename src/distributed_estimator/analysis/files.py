"""Files of a report that take their places together, and not at all where one cannot be written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RecordError

LEFT_BEHIND = re.compile(r"\.[0-9a-f]{8}")
"""Names of folders that a killed program may leave."""


@contextmanager
def replaced_files(
    out: Path, known: Collection[str] = (), last: str | None = None
) -> Iterator[Path]:
    """A folder to fill, whose files take their places in `out` at the end.

    If it cannot be filled, or a folder is in the place of a file, `out` is as it was.

    Args:
        out: The folder, which is made if need be.
        known: Files in it that are removed if they are not among the new ones; others stay.
        last: A file that is removed first and takes its place last: where it is, all are whole.

    Raises:
        RecordError: The operating system refused to write.
    """
    new = out / f".{secrets.token_hex(4)}"
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        new.mkdir(parents=True)
        yield new
        old = [name for name in known if not (new / name).exists()]
        if last is not None:
            (out / last).unlink(missing_ok=True)
        try:
            _move(new, out, last)
        except KeyboardInterrupt:  # half of them would be two reports in one
            _move(new, out, last)
            raise
        for name in old:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        blamed = error.filename2 or error.filename
        if blamed is None or new.name in str(blamed):
            blamed = out
        raise RecordError(f"cannot write {blamed}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # what is not empty stays
                place.rmdir()


def _move(new: Path, out: Path, last: str | None) -> None:
    files = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    for file in files:
        if (out / file).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out / file))
        (out / file).parent.mkdir(parents=True, exist_ok=True)
    for file in sorted(files, key=lambda file: (file.name == last, file)):
        (new / file).replace(out / file)


def write_text(path: Path, text: str) -> Path:
    """Writes a file with the same bytes on every system, and its folder; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
