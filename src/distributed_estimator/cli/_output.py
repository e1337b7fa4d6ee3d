"""The output of all verbs: results on stdout, progress and notes on stderr; and their Ctrl-C."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Table

from ..analysis.load import StageRow


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
    names = ("seconds", "share", "median_seconds")
    return {row.stage: {name: getattr(row, name) for name in names} for row in rows}


def stages_as_table(rows: Sequence[StageRow], per_record: bool) -> Table:
    """Stage times and shares for the terminal.

    Args:
        rows: The stages and their total.
        per_record: Whether to show medians, which one record has no use for.
    """
    table = Table(title="Where the time went", title_justify="left")
    table.add_column("stage")
    for name in ("time", "share", *(["median a call"] if per_record else [])):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [row.stage, duration(row.seconds), f"{100 * row.share:.1f} %"]
        cells += [duration(row.median_seconds)] if per_record else []
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


@contextmanager
def progress_bar(
    *columns: ProgressColumn, total: float | None = None, **fields: Any
) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr; gives what updates it.

    It shows from the first update on, so that bad input ends in one line.
    """
    bar = Progress(*columns, console=progress_console())
    task = bar.add_task("", total=total, **fields)

    def update(**changes: Any) -> None:
        bar.start()
        bar.update(task, **changes)

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks what runs to stop after its step; a second one ends it where it is.

    Gives what tells whether it was asked. Where Ctrl-C is ignored, it stays so.
    """
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)
        note("finishing this step; press Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, int) and value.bit_length() > 63:  # more than most JSON readers take
        value = float(value) if value.bit_length() < 1024 else math.inf
    return None if isinstance(value, float) and not math.isfinite(value) else value
