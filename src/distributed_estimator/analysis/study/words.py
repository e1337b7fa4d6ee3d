"""Numbers as sentences and tables show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "–"


def number(value: float | None) -> str:
    """A number to three digits; a dash where there is none.

    Example:
        >>> number(12345.6), number(0.01234), number(None)
        ('12,346', '0.0123', '–')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time with its unit: milliseconds below one second.

    Example:
        >>> duration(2.5), duration(0.000228)
        ('2.5 s', '0.228 ms')
    """
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "worker"), counted(8, "worker")
        ('1 worker', '8 workers')
    """
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """Some things in a sentence.

    Example:
        >>> listed(["0.1", "0.2", "0.3"])
        '0.1, 0.2 and 0.3'
    """
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])
