"""Values from data as text that is harmless where it is shown: Markdown, CSV, figure, terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from ..views import duration, significant

NOT_MEASURED = "not measured"
MOST_LETTERS = 200
MOST_SHOWN = 2000
"""Letters of a text in a table of a page."""
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


def number(value: float | None) -> str:
    """A number to three digits; a dash where there is none.

    Example:
        >>> number(12345.6), number(0.01234), number(None)
        ('12,346', '0.0123', '–')
    """
    if value is None or not -1e300 < value < 1e300:
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


UNITS: Mapping[str, tuple[Callable[[float], str], str]] = {
    "seconds": (lambda seconds: duration(seconds, 2), ""),
    "times": (significant, "×"),
    "share": (lambda share: significant(100 * share), " %"),
    "accuracy": (lambda share: f"{100 * share:.1f}", " %"),
    "points": (lambda share: f"{100 * share:z.1f}".replace("-", "−"), " points"),
    "number": (number, ""),
}
"""What writes a number of each unit, and what stands behind it."""


def with_unit(value: float, unit: str) -> str:
    """A number with its unit, one of `UNITS`, in digits that a reader needs.

    Example:
        >>> with_unit(0.00811, "share"), with_unit(1.409, "times"), with_unit(-6.25e-05, "points")
        ('0.81 %', '1.4×', '0.0 points')
    """
    written, behind = UNITS[unit]
    return written(value) + behind


def between(low: float, high: float, unit: str) -> str:
    """Two numbers with their unit; one where they are written alike.

    Example:
        >>> between(0.879, 1.41, "times"), between(0.001, 0.001, "share")
        ('0.88 to 1.4×', '0.10 %')
    """
    written, behind = UNITS[unit]
    return " to ".join(dict.fromkeys((written(low), written(high)))) + behind


def cell(value: Any) -> str:
    """What a table shows of a value.

    Example:
        >>> cell(True), cell(0.123456), cell(float("nan"))
        ('yes', '0.123', '–')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return number(value)
    return one_line(str(value), MOST_SHOWN)
