"""What the verbs print: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ..analysis.tables import StageRow


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one JSON document on stdout; what no JSON number can hold becomes null."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def print_table(table: Table) -> None:
    """Prints a table on stdout, as wide as the terminal."""
    Console().print(table)


def note(text: str) -> None:
    """Prints a remark on stderr, out of the way of the result."""
    click.echo(f"note: {text}", err=True)


def progress_console() -> Console:
    """Where progress goes, so that stdout holds the result and nothing else."""
    return Console(stderr=True)


def stages_as_dict(rows: Sequence[StageRow]) -> dict[str, dict[str, float]]:
    """Stage rows for a JSON document, by the name of the stage."""
    return {
        row.stage: {
            "seconds": row.seconds,
            "share": row.share,
            "median_seconds": row.median_seconds,
        }
        for row in rows
    }


def stages_as_table(rows: Sequence[StageRow], per_record: bool) -> Table:
    """Stage times and shares for the terminal.

    Args:
        rows: The stages and their total.
        per_record: Whether to show medians, which one record has no use for.
    """
    table = Table(title="Where the time went", title_justify="left")
    table.add_column("stage")
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    if per_record:
        table.add_column("median a call", justify="right")
    for row in rows:
        cells = [row.stage, duration(row.seconds), f"{100 * row.share:.1f} %"]
        if per_record:
            cells.append(duration(row.median_seconds))
        table.add_row(*cells, style="bold" if row.stage == "total" else None)
    return table


def duration(seconds: float) -> str:
    """Seconds with a unit that keeps the number readable.

    Example:
        >>> duration(0.00125), duration(3.2)
        ('1.25 ms', '3.2 s')
    """
    if seconds >= 1000:
        return f"{seconds:.0f} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def whole(number: int) -> str:
    """A whole number, by its power of ten where it has too many digits to read.

    Example:
        >>> whole(12500), whole(5**40)
        ('12500', '9.1e+27')
    """
    if number < 10**9:
        return str(number)
    exponent = math.log10(number)
    return f"{10 ** (exponent % 1):.1f}e+{math.floor(exponent)}"


def with_error(value: float, stderr: float) -> str:
    """A value to the second digit of its standard error.

    Example:
        >>> with_error(-0.0040460, 0.01532), with_error(0.5, 0.0)
        ('-0.004 ± 0.015', '0.5 ± 0')
        >>> with_error(0.5, math.nan)
        '0.5 (one shot a circuit gives no standard error)'
    """
    if math.isnan(stderr):
        return f"{value:.12g} (one shot a circuit gives no standard error)"
    if stderr == 0:
        return f"{value:.12g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


def printable(text: str) -> str:
    """Text from a file without what would steer the terminal."""
    return "".join(
        letter for letter in click.unstyle(text) if letter.isprintable() or letter == "\n"
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 cut, 2 cuts."""
    return f"1 {noun}" if number == 1 else f"{whole(number)} {noun}s"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, int) and value.bit_length() > 63:  # more than most JSON readers take
        value = float(value) if value.bit_length() < 1024 else math.inf
    return None if isinstance(value, float) and not math.isfinite(value) else value
