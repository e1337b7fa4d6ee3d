"""What a benchmark prints: one JSON document, or tables for people."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks._harness import Timing
from benchmarks._workload import Floats

PAGE_WIDTH = 150  # of tables that do not go to a terminal
_STANDARD_OUTPUT = Path("-")

_PACKAGES = (
    "distributed-estimator",
    "numpy",
    "opt_einsum",
    "pennylane",
    "pennylane-lightning",
    "QCut",
    "qiskit",
    "qiskit-addon-cutting",
    "qiskit-aer",
    "qiskit-machine-learning",
    "scikit-learn",
    "scipy",
    "torch",
)


@dataclass(frozen=True)
class Bar:
    """A figure against the target it is held to."""

    figure: str
    value: float
    relation: Literal["<=", ">="]
    target: float

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of the target."""
        if self.relation == "<=":
            return self.value <= self.target
        return self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """The fields, and whether the bar is met."""
        return asdict(self) | {"met": self.met}

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.figure} = {self.value:.3g} ({self.relation} {self.target:g}: {verdict})"


@dataclass(frozen=True)
class Row:
    """Ours and one counterpart, measured in turns in the same run.

    Attributes:
        name: Ours, as it was run.
        seconds: Median over the repeats, for all `queries` together.
        spread: First and third quartile of the seconds.
        stages: Median seconds of each stage.
        error: Largest distance of a value from the exact one; None where there is none to compare.
        ratio: Counterpart seconds over ours: above 1, ours is faster.
        bars: What these figures are held to.
    """

    case: Mapping[str, int]
    name: str
    seconds: float
    spread: tuple[float, float]
    repeats: int
    stages: Mapping[str, float]
    error: float | None
    counterpart: str
    counterpart_seconds: float
    counterpart_spread: tuple[float, float]
    counterpart_repeats: int
    counterpart_stages: Mapping[str, float]
    counterpart_error: float | None
    ratio: float
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A number that is not a time against a time.

    Attributes:
        unit: "s", "bytes" or, for a ratio, nothing.
    """

    case: Mapping[str, int]
    name: str
    value: float
    unit: Literal["s", "bytes", ""]
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Something that was not measured, and why."""

    case: Mapping[str, int]
    name: str
    reason: str


@dataclass
class Report:
    """Everything one benchmark found."""

    benchmark: str
    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def bars(self) -> list[tuple[Mapping[str, int], Bar]]:
        """Every bar with the case it was measured on."""
        found: list[Row | Figure] = [*self.rows, *self.figures]
        return [(entry.case, bar) for entry in found for bar in entry.bars]

    def as_json(self) -> dict[str, Any]:
        """The document `--json` prints."""
        return {
            "benchmark": self.benchmark,
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": dict(self.settings),
            "versions": versions(),
            "machine": machine(),
            "rows": [_entry(row) for row in self.rows],
            "figures": [_entry(figure) for figure in self.figures],
            "skipped": [asdict(skip) for skip in self.skipped],
            "bars": [{"case": dict(case)} | bar.as_json() for case, bar in self.bars()],
        }


def _entry(entry: Row | Figure) -> dict[str, Any]:
    return asdict(entry) | {"bars": [bar.as_json() for bar in entry.bars]}


def distance(values: Floats, exact: Floats | None) -> float | None:
    """Largest distance between two sets of values."""
    return None if exact is None else float(abs(values - exact).max())


def compare(
    case: Mapping[str, int],
    ours: Timing,
    counterpart: Timing,
    exact: Floats | None = None,
    bars: tuple[Bar, ...] = (),
) -> Row:
    """A row from two timings, with their distance from the `exact` values where these are given."""
    return Row(
        case=case,
        name=ours.name,
        seconds=ours.seconds,
        spread=(ours.low, ours.high),
        repeats=ours.repeats,
        stages=ours.stages,
        error=distance(ours.values, exact),
        counterpart=counterpart.name,
        counterpart_seconds=counterpart.seconds,
        counterpart_spread=(counterpart.low, counterpart.high),
        counterpart_repeats=counterpart.repeats,
        counterpart_stages=counterpart.stages,
        counterpart_error=distance(counterpart.values, exact),
        ratio=counterpart.seconds / ours.seconds,
        bars=bars,
    )


def versions() -> dict[str, str]:
    """Python and the packages that were measured."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The hardware, without anything that names the machine."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg()[0],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.00056)
    '560 µs'
    """
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError("unreachable")


def _amount(figure: Figure) -> str:
    if figure.unit == "s":
        return duration(figure.value)
    if figure.unit == "bytes":
        return f"{figure.value / 2**20:.3g} MiB"
    return f"{figure.value:.3g}"


def _case(case: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in case.items())


def table(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """A table with its lines."""
    made = Table(*columns, title=title, title_justify="left")
    for line in lines:
        made.add_row(*line)
    return made


def _time_line(row: Row) -> tuple[str, ...]:
    theirs = duration(row.counterpart_seconds)
    return row.name, duration(row.seconds), row.counterpart, theirs, f"{row.ratio:.3g}×"


def _time_tables(report: Report) -> Iterable[Table]:
    columns = ("ours", "time", "counterpart", "its time", "its time / ours")
    for case, rows in groupby(report.rows, key=lambda row: _case(row.case)):
        yield table(f"Time: {case}", columns, map(_time_line, rows))


def _stage_lines(report: Report) -> list[tuple[str, ...]]:
    """One line for each contestant of each case that reports stages."""
    splits: dict[tuple[str, str], Mapping[str, float]] = {}
    for row in report.rows:
        splits[_case(row.case), row.name] = row.stages
        splits[_case(row.case), row.counterpart] = row.counterpart_stages
    return [
        (
            *names,
            "  ".join(f"{stage.removeprefix('t_')} {duration(s)}" for stage, s in split.items()),
        )
        for names, split in splits.items()
        if split
    ]


def tables(report: Report) -> Iterable[Table]:
    """The tables of a report, some of them without lines."""
    figures = [(_case(f.case), f.name, _amount(f)) for f in report.figures]
    bars = [(_case(case), str(bar)) for case, bar in report.bars()]
    skipped = [(_case(s.case), s.name, s.reason) for s in report.skipped]
    yield from _time_tables(report)
    yield table("Stages", ("case", "what", "stages"), _stage_lines(report))
    yield table("Figures", ("case", "figure", "value"), figures)
    yield table("Bars", ("case", "bar"), bars)
    yield table("Not measured", ("case", "what", "why"), skipped)


def parser(benchmark: str, description: str) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    command = f"python -m benchmarks.{benchmark}"
    made = argparse.ArgumentParser(prog=command, description=description)
    made.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=_STANDARD_OUTPUT,
        metavar="FILE",
        help="print one JSON document, no tables; with FILE: write it there and print the tables",
    )
    made.add_argument("--quick", action="store_true", help="a smoke run: few cases, few repeats")
    return made


def show(contents: Iterable[Table]) -> None:
    """Print the tables that have lines."""
    console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
    for one in contents:
        if one.row_count:
            console.print(one)


def deliver(
    document: Mapping[str, Any], arguments: argparse.Namespace, print_tables: Callable[[], None]
) -> None:
    """Write the document, the tables or both, as `--json` asks for."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if arguments.json == _STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    if arguments.json is not None:
        arguments.json.write_text(text, "utf-8")
    print_tables()


def run(measure: Callable[[argparse.Namespace], Report], arguments: argparse.Namespace) -> None:
    """Measure and print."""
    report = measure(arguments)
    deliver(report.as_json(), arguments, lambda: show(tables(report)))
