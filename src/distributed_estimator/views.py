"""What objects show of themselves, as text and in notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from html import escape
from typing import Any

from .errors import short, shortened

_UNITS = (
    *(("days", 86_400, 172_800), ("h", 3600, 7200), ("min", 60, 120), ("s", 1, 1)),
    *(("ms", 1e-3, 1e-3), ("µs", 1e-6, -math.inf)),
)
"""Units of time: their seconds, and from how many seconds on they are used."""


class Shown:
    """Shows what it is and its `_facts`: in one line, as a table of text, and in notebooks."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, str]:
        raise NotImplementedError

    def _line(self) -> str:
        return "; ".join(f"{name} {fact}" for name, fact in self._facts().items())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._line()}>"

    def __str__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts), default=0) + 2
        lines = (f"  {name:<{width}}{fact}" for name, fact in facts.items())
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'
        rows = (
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(fact)}</td></tr>"
            for name, fact in self._facts().items()
        )
        return f"<strong>{type(self).__name__}</strong><table>{''.join(rows)}</table>"


def changed(value: object) -> str:
    """A value as text; of a dataclass, only the fields that differ from their defaults.

    Example:
        >>> from distributed_estimator import AutoCut
        >>> changed(AutoCut(max_qubits=10, seed=3))
        'AutoCut(max_qubits=10, seed=3)'
    """
    if not is_dataclass(value):
        return shortened(value)
    return f"{type(value).__name__}({changes(value)})"


def changes(value: Any) -> str:
    """The fields of a dataclass that differ from their defaults, as text."""
    own = [(each, getattr(value, each.name)) for each in fields(value)]
    return ", ".join(
        f"{each.name}={changed(now)}"
        for each, now in own
        if now != (each.default if each.default_factory is MISSING else each.default_factory())
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 cut, 2 cuts."""
    return f"1 {noun}" if number == 1 else f"{short(number)} {noun}s"


def significant(value: float, digits: int = 2) -> str:
    """A number to so many digits, without an exponent and with a minus sign.

    Example:
        >>> significant(0.0304), significant(-99.6), significant(432.1)
        ('0.030', '−100', '432')
    """
    if not value:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}".replace("-", "−")


def duration(seconds: float, digits: int = 3) -> str:
    """Seconds in the unit that people would use.

    Example:
        >>> duration(0.00125), duration(3.2), duration(23_423, 2), duration(1_561_261, 2)
        ('1.25 ms', '3.2 s', '6.5 h', '18 days')
    """
    if not seconds:
        return "0 s"
    unit, size = next((unit, size) for unit, size, least in _UNITS if seconds >= least)
    text = significant(seconds / size, digits)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


def with_error(value: float, stderr: float) -> str:
    """A value to the second digit of its standard error.

    Example:
        >>> with_error(-0.0040460, 0.01532), with_error(0.5, 0.0)
        ('-0.004 ± 0.015', '0.5 ± 0')
        >>> with_error(0.5, math.nan)
        '0.5 (no standard error)'
    """
    if math.isnan(stderr):
        return f"{value:.12g} (no standard error)"
    if stderr == 0:
        return f"{value:.12g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"
