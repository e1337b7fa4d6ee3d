"""What tables and figures of a study are made of, before anything is written or drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from .groups import Unmatched

MEASURED, EXTRAPOLATED = "measured", "extrapolated"
ALL = "all"
"""Stands for every experiment."""


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        dataset: The panel it is in.
        series: Its cluster within the panel.
        cuts: Its colour.
        value: Its height.
        low: Lower end of its spread.
        high: Upper end of its spread.
        n: Runs, or pairs of runs, that it stands for.
        spread: What `low` and `high` are.
        basis: "measured" or "extrapolated".
        origin: Whether its runs were simulated, on a fake backend or real.
        runs: Their ids.
        queries: Measured queries that it was extrapolated from.
        bound: Expected time that no policy can beat, where that is known.
    """

    dataset: str
    series: str
    cuts: int
    value: float
    low: float
    high: float
    n: int
    spread: str
    basis: str
    origin: str
    runs: tuple[str, ...]
    queries: int | None = None
    bound: float | None = None

    @property
    def has_spread(self) -> bool:
        """Whether `low` and `high` are of more than one number."""
        count = self.n if self.queries is None else self.queries
        return count > 1 and math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Chart:
    """One figure of bars.

    Attributes:
        name: Of its files.
        title: Its title.
        experiment: That it was drawn from.
        quantity: What the height of a bar is, with its unit.
        bars: By data set, series and cuts; empty: not measured.
        unmatched: Runs that no bar holds, and why.
        level: Where to draw a line for "no change"; None: nowhere.
        notes: What a reader must know.
        points: Whether to draw points with intervals instead of bars.
        sheet: Name of the table with its numbers, if that is not its own.
    """

    name: str
    title: str
    experiment: str
    quantity: str
    bars: tuple[Bar, ...]
    unmatched: tuple[Unmatched, ...] = ()
    level: float | None = None
    notes: tuple[str, ...] = ()
    points: bool = False
    sheet: str | None = None


@dataclass(frozen=True)
class ShareRow:
    """Share of reconstruction in a query, beside the paper's (Table I).

    `n` counts query records; the paper's columns are None where it states nothing.
    """

    dataset: str
    series: str
    cuts: int
    n: int
    median_share: float
    p95_share: float
    paper_n: int | None
    paper_median_share: float | None
    paper_p95_share: float | None
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class StageShareRow:
    """One stage of the queries of a series; `share` is of their summed time."""

    dataset: str
    series: str
    cuts: int
    stage: str
    n: int
    median_seconds: float
    share: float
    median_share: float
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class SavingRow:
    """Circuits and shots of a query, the paper's pipeline over ours, for matched runs."""

    dataset: str
    series: str
    cuts: int
    n: int
    paper_subexperiments: float
    our_subexperiments: float
    fewer_subexperiments: float
    paper_shots: float
    our_shots: float
    fewer_shots: float
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class PolicyRow:
    """A policy with stragglers at probability `p`; `value` is the median time, with min–max.

    `lower_bound` is the expected time that no policy can beat, None where the records hold none.
    """

    experiment: str
    dataset: str
    series: str
    cuts: int
    p: float
    value: float
    low: float
    high: float
    n: int
    spread: str
    over_clean: float | None
    lower_bound: float | None
    over_bound: float | None
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class DifferenceRow:
    """Accuracy with cuts less that of the same training uncut, paired by seed.

    `zero` says whether 0 is inside the 95 % interval, or why there is none.
    """

    dataset: str
    series: str
    cuts: int
    metric: str
    value: float
    low: float
    high: float
    n: int
    spread: str
    zero: str
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class SpeedUpRow:
    """Speed-up over one worker, for every number of workers."""

    dataset: str
    series: str
    cuts: int
    workers: int
    value: float
    low: float
    high: float
    n: int
    spread: str
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class CauseRow:
    """A query of the paper's pipeline with one thing changed; times are medians in seconds."""

    dataset: str
    series: str
    cuts: int
    variant: str
    workers: int
    simulator_threads: str
    deferred: bool
    n: int
    t_part: float
    t_gen: float
    t_exec: float
    t_rec: float
    share: float
    t_exec_low: float
    t_exec_high: float
    t_rec_low: float
    t_rec_high: float
    share_low: float
    share_high: float
    spread: str
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class CostRow:
    """Errors of the cost model for a setup, relative; `n` counts query records."""

    setup: str
    configurations: int
    n: int
    error_total: float
    p90_error_total: float
    inside_interval: float
    outcome: str
    error_partition: float
    error_generate: float
    error_execute: float
    error_reconstruct: float
    origin: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """A sentence of an explanation.

    Attributes:
        text: The sentence with its numbers.
        basis: "measured", "extrapolated" or "not measured".
        table: Name of the table that holds the numbers.
    """

    text: str
    basis: str = MEASURED
    table: str | None = None


@dataclass(frozen=True)
class Sheet:
    """One table: rows of one dataclass, whose fields are its columns.

    Attributes:
        name: Of its files.
        title: Its heading.
        experiment: That it was made from.
        rows: Empty: not measured.
        unmatched: Runs that no row holds, and why.
        notes: What a reader must know.
    """

    name: str
    title: str
    experiment: str
    rows: tuple[Any, ...]
    unmatched: tuple[Unmatched, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields of a row."""
        return tuple(field.name for field in fields(self.rows[0])) if self.rows else ()

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of the runs that the rows were made from."""
        return tuple(sorted({run for row in self.rows for run in row.runs}))
