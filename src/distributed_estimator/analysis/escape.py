"""Names from data, made harmless for where they are shown: Markdown, CSV, figure, terminal."""

from __future__ import annotations

import re
import unicodedata

MOST_LETTERS = 200
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$@]|^[-+=]|(?<=\w):(?=//)|(?<=www)\.)")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_FORMULA = ("=", "+", "-", "@", "|", "%")


def one_line(text: str, most: int = MOST_LETTERS) -> str:
    r"""Text on one line, without what would steer a terminal or turn the writing round.

    Example:
        >>> one_line("a\x1b[31m red\n\u202eflag")
        'a red flag'
    """
    bare = _TERMINAL.sub("", text[: 20 * most])
    kept = "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "" for letter in bare
    )
    line = " ".join(kept.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def markdown(text: str, most: int = MOST_LETTERS) -> str:
    r"""Text that Markdown shows as it is: no table cell ends, no HTML begins, no link or list.

    Example:
        >>> print(markdown("a|b <b>$x$</b>"))
        a\|b &lt;b&gt;\$x\$&lt;/b&gt;
    """
    line = one_line(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", line))


def csv_text(text: str, most: int = 1000) -> str:
    """Text that no spreadsheet takes for a formula.

    Example:
        >>> csv_text("=1+1"), csv_text("AABB")
        ("'=1+1", 'AABB')
    """
    line = one_line(text, most)
    begin = unicodedata.normalize("NFKC", line[:1])  # wide forms of a sign are signs too
    return f"'{line}" if begin.startswith(_FORMULA) else line


def cuts_label(cuts: int) -> str:
    """How many cuts.

    Example:
        >>> cuts_label(0), cuts_label(1), cuts_label(2)
        ('uncut', '1 cut', '2 cuts')
    """
    return f"{cuts} cut{'s' if cuts > 1 else ''}" if cuts else "uncut"


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts worker 10 behind worker 9."""
    return [
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,9})", name)
    ]
