"""Training times of the paper's pipeline, from a few measured queries and marked as such."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from statistics import median

from .groups import (
    EXECUTION,
    Spread,
    Unmatched,
    canonical,
    grouped,
    run_ids,
    series_names,
    told_origin,
)
from .rows import EXTRAPOLATED, MEASURED, Bar
from .runs import Run, Study

_SAME_QUERY = ("dataset", "qubits", "cuts", "label", "shots", "model", "workers")
_OF_OURS = tuple(key for key in EXECUTION if key != "workers")
"""What decides a training's own time and not that of the reference."""


def bar_of(dataset: str, series: str, cuts: int, spread: Spread, runs: Sequence[Run]) -> Bar:
    """A bar with the spread of some runs."""
    return Bar(
        dataset=dataset,
        series=series,
        cuts=cuts,
        **vars(spread),
        basis=MEASURED,
        origin=told_origin(runs),
        runs=run_ids(runs),
    )


def extrapolated_bars(study: Study) -> tuple[list[Bar], list[Unmatched]]:
    """Reference trainings: measured seconds a query times the queries that a training asks."""
    shares = [run for run in study.done("shares", "queries") if _is_reference(run) and run.is_usual]
    measured = grouped(shares, _query_of)
    trainings = study.done("training", "train")
    whole = {_query_of(run) for run in trainings if _is_reference(run)}
    asked = [run for run in trainings if not _is_reference(run) and _query_of(run) not in whole]
    known, alone = [], []
    for run in asked:
        if why := _why_not(run, measured):
            alone.append(Unmatched(run.run_id, f"{why}: its time cannot be extrapolated"))
        else:
            known.append(run)
    names = _names(trainings)
    groups = grouped(known, lambda run: (_query_of(run), names[run.run_id]))
    bars = [_extrapolate(name, measured[key], members) for (key, name), members in groups.items()]
    return bars, alone


def _why_not(run: Run, measured: Container[str]) -> str | None:
    """What is missing to extrapolate a training's time."""
    if _query_of(run) not in measured:
        return "no reference query measured of its circuit, with its workers and stragglers"
    return None if _asked(run) > 0 else "it does not tell how many reference queries it would ask"


def _asked(run: Run) -> float:
    return run.number("reference_queries") or 0.0


def _names(trainings: Sequence[Run]) -> dict[str, str]:
    """Series of the reference that trainings stand for, told apart by what its time depends on."""
    theirs = [replace(run, pipeline="reference") for run in trainings]
    return series_names(theirs, _OF_OURS)


def _is_reference(run: Run) -> bool:
    return run.pipeline == "reference"


def _query_of(run: Run) -> str:
    p = float(run.config.get("straggler_p") or 0)
    delays = [p, float(run.config.get("straggler_delay") or 0) if p else 0.0]
    return canonical([*(run.config.get(name) for name in _SAME_QUERY), *delays])


def _extrapolate(series: str, measured: Sequence[Run], trainings: Sequence[Run]) -> Bar:
    queries = [_asked(run) for run in trainings]
    seconds = [
        record.t_total / record.num_queries
        for run in measured
        for record in run.queries()
        if record.num_queries
    ]
    spread = Spread(
        value=median(seconds) * median(queries),
        low=min(seconds) * min(queries),
        high=max(seconds) * max(queries),
        n=len(queries),
        spread="min–max of the measured queries" if len(seconds) > 1 else "none (1 query)",
    )
    first = trainings[0]
    bar = bar_of(first.dataset, series, first.cuts, spread, measured)
    both = run_ids([*measured, *trainings])
    return replace(bar, basis=EXTRAPOLATED, queries=len(seconds), runs=both)


def extrapolation_notes(bars: Sequence[Bar]) -> tuple[str, ...]:
    """What to say beneath bars some of which may be extrapolated."""
    if not bars:
        return ()
    return (
        "Hollow bars are extrapolated, not measured: median seconds of so many measured reference "
        "queries (q.) times the queries that the same training asks of that pipeline.",
    )
