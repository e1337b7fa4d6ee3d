"""Figures of bars and points as charts of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..escape import one_line
from ..study.groups import grouped, told_cuts
from ..study.rows import MEASURED, Bar, Chart, ShareRow, Sheet
from ..study.words import number
from .keys import SHAPES, cut_id, cut_keys
from .model import Spec
from .text import bar_name

STATED = "stated"
_LOG_BEYOND = 30


def bar_chart(chart: Chart) -> Spec | None:
    """One panel a data set, a group of rows for each series; None without a bar."""
    if not chart.bars:
        return None
    panels = grouped(chart.bars, lambda bar: bar.dataset)
    axis: dict[str, Any] = {"label": chart.quantity, "level": chart.level}
    if not chart.points:
        axis["log"] = _is_wide(chart.bars)
    return {
        "title": chart.title,
        "axis": axis,
        "centred": chart.points,
        "keys": cut_keys(bar.cuts for bar in chart.bars),
        "panels": [_panel(name, bars, chart) for name, bars in panels.items()],
    }


def _panel(dataset: str, bars: Sequence[Bar], chart: Chart) -> dict[str, Any]:
    origins = sorted({bar.origin for bar in bars})
    groups = grouped(bars, lambda bar: bar.series)
    return {
        "title": one_line(dataset),
        "origin": one_line(", ".join(origins)),
        "groups": [
            {"title": one_line(series), "rows": [_row(bar, chart) for bar in members]}
            for series, members in groups.items()
        ],
    }


def _row(bar: Bar, chart: Chart) -> dict[str, Any]:
    note = f"{number(bar.value)} · n={bar.n}"
    if bar.basis != MEASURED:
        note += f" · {bar.basis}"
    mark: dict[str, Any] = {
        "key": cut_id(bar.cuts),
        "from": bar.value if chart.points else 0,
        "to": bar.value,
        "look": _look(bar, chart),
        "told": _told(bar, chart),
    }
    if chart.points:
        mark["shape"] = SHAPES[bar.cuts % len(SHAPES)]
    if bar.has_spread:
        mark |= {"low": bar.low, "high": bar.high}
    if bar.bound is not None:
        mark["bound"] = bar.bound
    return {"label": told_cuts(bar.cuts), "note": note, "marks": [mark]}


def _look(bar: Bar, chart: Chart) -> str:
    if chart.points:
        return "point"
    if bar.basis == STATED:
        return "stated"
    return "solid" if bar.basis == MEASURED else "hollow"


def _told(bar: Bar, chart: Chart) -> list[str]:
    lines = [
        bar_name(bar.dataset, bar.series, bar.cuts),
        f"{chart.quantity}: {number(bar.value)}",
    ]
    if bar.has_spread:
        lines.append(f"{bar.spread}: {number(bar.low)} to {number(bar.high)}")
    lines.append(f"n = {bar.n}, {bar.basis}, {one_line(bar.origin)}")
    if bar.queries is not None:
        lines.append(f"from {bar.queries} measured {'query' if bar.queries == 1 else 'queries'}")
    if bar.bound is not None:
        lines.append(f"no policy can beat {number(bar.bound)} on average")
    return lines


def _is_wide(bars: Sequence[Bar]) -> bool:
    """Whether the least of some bars would not be seen beside the greatest."""
    values = [bar.value for bar in bars]
    return min(values) > 0 and max(values) / min(values) > _LOG_BEYOND


def share_chart(sheet: Sheet) -> Chart:
    """Table I as a figure: what was found here, and what the paper states."""
    rows: tuple[ShareRow, ...] = sheet.rows
    found = [_share_bar(row) for row in rows]
    stated = {(row.dataset, row.cuts): _stated(row) for row in rows}
    bars = (*found, *(bar for bar in stated.values() if bar is not None))
    return Chart(
        sheet.name,
        sheet.title,
        sheet.experiment,
        "T_rec / T_total, median",
        bars,
        notes=(
            *sheet.notes,
            "Whiskers end at the 95th percentile. Dotted bars are stated in the paper.",
        ),
    )


def _share_bar(row: ShareRow) -> Bar:
    return Bar(
        dataset=row.dataset,
        series=row.series,
        cuts=row.cuts,
        value=row.median_share,
        low=row.median_share,
        high=row.p95_share,
        n=row.n,
        spread="median to 95th percentile",
        basis=MEASURED,
        origin=row.origin,
        runs=row.runs,
    )


def _stated(row: ShareRow) -> Bar | None:
    """The paper's own number for a number of cuts."""
    if row.paper_median_share is None or row.paper_p95_share is None or row.paper_n is None:
        return None
    return Bar(
        dataset=row.dataset,
        series="stated in the paper's Table I",
        cuts=row.cuts,
        value=row.paper_median_share,
        low=row.paper_median_share,
        high=row.paper_p95_share,
        n=row.paper_n,
        spread="median to 95th percentile",
        basis=STATED,
        origin="the paper's own runs",
        runs=(),
    )
