"""Stages of queries as stacked bars of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..escape import one_line
from ..study.groups import grouped, told_cuts
from ..study.rows import Sheet, StageShareRow
from ..study.words import number
from ..tables import STAGES, StageRow
from .keys import stage_keys
from .model import Spec
from .text import bar_name


def stage_chart(sheet: Sheet, *, absolute: bool) -> Spec | None:
    """One panel a data set, a row for each series and number of cuts; None without a row.

    Args:
        sheet: Rows of `StageShareRow`.
        absolute: Whether to draw median seconds instead of shares.
    """
    rows: tuple[StageShareRow, ...] = sheet.rows
    if not rows:
        return None
    label = "median seconds of each stage of a query" if absolute else "share of the time (%)"
    axis = {"label": label} if absolute else {"label": label, "most": 100}
    return {
        "title": sheet.title,
        "axis": axis,
        "stacked": True,
        "keys": stage_keys(),
        "panels": [
            _panel(name, members, absolute)
            for name, members in grouped(rows, lambda row: row.dataset).items()
        ],
    }


def _panel(dataset: str, rows: Sequence[StageShareRow], absolute: bool) -> dict[str, Any]:
    groups = grouped(rows, lambda row: row.series)
    return {
        "title": one_line(dataset),
        "origin": one_line(", ".join(sorted({row.origin for row in rows}))),
        "groups": [
            {"title": one_line(series), "rows": _rows(members, absolute)}
            for series, members in groups.items()
        ],
    }


def _rows(rows: Sequence[StageShareRow], absolute: bool) -> list[dict[str, Any]]:
    found = []
    for cuts, members in grouped(rows, lambda row: row.cuts).items():
        stages = {row.stage: row for row in members}
        total = stages["total"]
        lengths = [
            stages[name].median_seconds if absolute else 100 * stages[name].share
            for name, _ in STAGES
        ]
        told = [_told(stages[name]) for name, _ in STAGES]
        note = f"{number(total.median_seconds)} s · n={total.n}"
        found.append({"label": told_cuts(cuts), "note": note, "marks": stacked(lengths, told)})
    return found


def _told(row: StageShareRow) -> list[str]:
    return [
        f"{row.stage}: {bar_name(row.dataset, row.series, row.cuts)}",
        f"{100 * row.share:.2f} % of the time, {number(row.median_seconds)} s a query (median)",
        f"n = {row.n}, {one_line(row.origin)}",
    ]


def stacked(lengths: Sequence[float], told: Sequence[list[str]]) -> list[dict[str, Any]]:
    """Stages one behind the other."""
    marks, end = [], 0.0
    for (name, _), length, lines in zip(STAGES, lengths, told, strict=True):
        place = {"key": name, "from": end, "to": end + length, "look": "slice", "told": lines}
        marks.append(place)
        end += length
    return marks


def one_stage_chart(rows: Sequence[StageRow], title: str) -> Spec:
    """The stages of one run, a row each."""
    marks = [
        {
            "label": row.stage,
            "note": f"{100 * row.share:.1f} % · {number(row.seconds)} s",
            "marks": [
                {
                    "key": row.stage,
                    "from": 0,
                    "to": 100 * row.share,
                    "look": "solid",
                    "told": [
                        row.stage,
                        f"{number(row.seconds)} s, {100 * row.share:.2f} % of the time",
                        f"median of a call: {number(row.median_seconds)} s",
                    ],
                }
            ],
        }
        for row in rows
        if row.stage != "total"
    ]
    return {
        "title": title,
        "axis": {"label": "share of T_total (%)", "most": 100},
        "keys": stage_keys(),
        "panels": [{"groups": [{"title": "", "rows": marks}]}],
    }
