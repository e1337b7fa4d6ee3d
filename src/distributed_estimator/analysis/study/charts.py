"""Figures beyond the paper's, as bars or points made from the tables' rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .groups import SERIES
from .rows import MEASURED, Bar, Chart, DifferenceRow, PolicyRow, SavingRow, Sheet

NO_SPREAD = "none"


def charts_beyond(sheets: Mapping[str, Sheet]) -> tuple[Chart, ...]:
    """Savings, policies and differences; those that were not measured have no bar.

    Args:
        sheets: The tables by name.
    """
    return (
        _savings(sheets["savings"], "subexperiments"),
        _savings(sheets["savings"], "shots"),
        _policies(sheets["policies"]),
        _differences(sheets["accuracy_differences"]),
    )


def _savings(sheet: Sheet, what: str) -> Chart:
    rows: tuple[SavingRow, ...] = sheet.rows
    sides = (("our", SERIES["contracted"]), ("paper", SERIES["reference"]))
    bars = tuple(
        _saving_bar(row, name, getattr(row, f"{side}_{what}"))
        for side, name in sides
        for row in rows
    )
    title = f"{what.capitalize()} of a query, the paper's pipeline and ours"
    return Chart(
        f"saved_{what}",
        title,
        sheet.experiment,
        f"{what} a query",
        bars,
        notes=("Bars are medians over matched runs; the counts do not vary.",),
        sheet=sheet.name,
    )


def _saving_bar(row: SavingRow, series: str, value: float) -> Bar:
    return Bar(
        dataset=row.dataset,
        series=series,
        cuts=row.cuts,
        value=value,
        low=value,
        high=value,
        n=row.n,
        spread=NO_SPREAD,
        basis=MEASURED,
        origin=row.origin,
        runs=row.runs,
    )


def _policies(sheet: Sheet) -> Chart:
    """Of the experiment that compares policies, or where it is missing, of the stragglers'."""
    rows: tuple[PolicyRow, ...] = sheet.rows
    experiments = {row.experiment for row in rows}
    experiment = "policies" if "policies" in experiments else "stragglers"
    quantity = "a query" if experiment == "policies" else "a training"
    bars = tuple(
        replace(_bar(row), series=f"{row.series}, p = {row.p:g}", bound=row.lower_bound)
        for row in rows
        if row.experiment == experiment
    )
    known = any(bar.bound is not None for bar in bars)
    line = "A black line is the expected time that no policy can beat; "
    bounded = (line + "a median may be below it by chance.",) if known else ()
    return Chart(
        "policies",
        "Policies with and without injected stragglers",
        experiment,
        f"time of {quantity} (s)",
        bars,
        notes=("Bars are medians.", *bounded),
        sheet=sheet.name,
    )


def _differences(sheet: Sheet) -> Chart:
    rows: tuple[DifferenceRow, ...] = sheet.rows
    bars = tuple(replace(_bar(row), dataset=f"{row.dataset}, {row.metric}") for row in rows)
    return Chart(
        "accuracy_differences",
        "RQ4, RQ5: accuracy with cuts less accuracy uncut",
        sheet.experiment,
        "difference to uncut",
        bars,
        level=0.0,
        notes=("Points are means over seeds of paired differences.",),
        points=True,
        sheet=sheet.name,
    )


def _bar(row: PolicyRow | DifferenceRow) -> Bar:
    return Bar(
        dataset=row.dataset,
        series=row.series,
        cuts=row.cuts,
        value=row.value,
        low=row.low,
        high=row.high,
        n=row.n,
        spread=row.spread,
        basis=MEASURED,
        origin=row.origin,
        runs=row.runs,
    )
