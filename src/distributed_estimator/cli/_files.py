"""Files that verbs read, and standard input in the place of one."""

from __future__ import annotations

import sys
from os.path import isfile
from pathlib import Path

from ..errors import InputError

MAX_BYTES = 16 * 2**20
MAX_BITS = 10_000
STDIN = "-"
"""Names standard input where a file is read."""


def read_bytes(path: Path, kind: str, smaller: str) -> bytes:
    """The content of a file that comes from anywhere, or of standard input.

    Args:
        path: The file; `-`: standard input.
        kind: What it should be, for a message.
        smaller: What to give where it is too large, for a message.

    Raises:
        InputError: It is missing, no regular file, or too large. The message begins after the name.
    """
    if str(path) == STDIN:
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
        if not content:
            raise InputError(f"(standard input) has nothing: send {kind}")
    else:
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "does not exist"
            raise InputError(f"{problem}: name {kind}")
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InputError(
            f"holds more than {MAX_BYTES // 2**20} MiB, the most that is read: give {smaller}, or "
            "use the Python interface"
        )
    return content


def named_file(text: str) -> Path | None:
    """The file that an option names as `@FILE`, or `-` for standard input; None: it names none.

    Raises:
        InputError: The text is the name of a file, without the `@`.
    """
    if text.startswith("@"):
        return Path(text[1:])
    # `.5*ZZ` is no suffix; unlike the method of `Path`, this takes texts of any length.
    if Path(text).suffix[1:].isalpha() and isfile(text):
        raise InputError(f"`{text}` is a file: give `@{text}` to read what is in it")
    return Path(STDIN) if text == STDIN else None
