"""The output of all verbs: results on stdout, progress and notes on stderr; and their Ctrl-C."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..analysis.load import StageRow
from ..views import duration


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one JSON document on stdout; what no JSON number can hold becomes null."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", *, left: int = 1
) -> Table:
    """A table for the terminal; a row called total stands out.

    Args:
        columns: Headings.
        rows: A cell for each column.
        title: Above the table.
        left: How many of the columns hold text; those after them hold numbers.
    """
    made = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(columns):
        made.add_column(plain(heading), justify="left" if number < left else "right")
    for row in rows:
        made.add_row(*map(plain, row), style="bold" if row[0] == "total" else None)
    return made


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", *, left: int = 1
) -> None:
    """Prints a `table` on stdout, as wide as the terminal."""
    Console().print(table(columns, rows, title, left=left))


def print_files(files: Mapping[str, str]) -> None:
    """Prints the files that a verb wrote, by what they hold."""
    width = max(map(len, files), default=0) + 1
    for name, path in files.items():
        click.echo(f"{name:<{width}}{path}")


def note(text: str) -> None:
    """Prints a remark on stderr, out of the way of the result."""
    click.echo(f"note: {printable(text)}", err=True)


def progress_console() -> Console:
    """Where progress goes, so that stdout holds the result and nothing else."""
    return Console(stderr=True)


def stages_as_dict(rows: Sequence[StageRow]) -> dict[str, dict[str, float]]:
    """Stage rows for a JSON document, by the name of the stage."""
    names = ("seconds", "share", "median_seconds")
    return {row.stage: {name: getattr(row, name) for name in names} for row in rows}


def print_stages(rows: Sequence[StageRow], *, medians: bool) -> None:
    """Prints stage times and shares; medians too, unless there is but one record."""
    columns = ("stage", "time", "share", "median a call")
    cells = (
        (row.stage, duration(row.seconds), share(row.share), duration(row.median_seconds))
        for row in rows
    )
    count = 4 if medians else 3
    print_table(columns[:count], (row[:count] for row in cells), "Estimator time by stage")


def share(fraction: float) -> str:
    """A fraction in per cent."""
    return f"{100 * fraction:.1f} %"


def printable(text: str) -> str:
    """Text from a file without what would steer the terminal."""
    return "".join(
        letter for letter in click.unstyle(text) if letter.isprintable() or letter == "\n"
    )


def plain(cell: object) -> Text:
    """A cell of a table, never Rich's own markup, which records could hold."""
    return Text(printable(str(cell)))


@contextmanager
def progress_bar(
    label: str, total: float | None = None, *, timed: bool = True, transient: bool = False
) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr, which shows from the first update on: bad input ends in one line.

    Gives what updates `completed`, `description` (the label) and `about`, a text after the count.

    Args:
        label: Before the bar.
        total: What `completed` ends at; None: that shows later.
        timed: Whether to end with the time that is left, by the pace so far.
        transient: Whether to leave nothing, and to show on terminals only.
    """
    left = ("time left", TimeRemainingColumn()) if timed else ()
    counts = (BarColumn(), MofNCompleteColumn())
    about = "{task.fields[about]}"
    console = progress_console()
    bar = Progress(
        *("{task.description}", *counts, about, *left),
        console=console,
        transient=transient,
        disable=transient and not console.is_terminal,
    )
    task = bar.add_task(label, total=total, about="")

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
