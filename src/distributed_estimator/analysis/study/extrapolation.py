"""Training times of the paper's pipeline, from a few measured queries and marked as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from ...errors import RecordError
from .groups import (
    SERIES,
    Spread,
    Unmatched,
    canonical,
    grouped,
    run_ids,
    told_origin,
)
from .rows import EXTRAPOLATED, MEASURED, Bar
from .runs import Run, Study

_SAME_QUERY = ("dataset", "qubits", "cuts", "label", "shots", "model")


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
    measured = grouped(
        (run for run in study.done("shares", "queries") if run.pipeline == "reference"), _query_of
    )
    whole = {_query_of(run) for run in study.done("training", "train") if _is_reference(run)}
    asked = [run for run in study.done("training", "train") if not _is_reference(run)]
    bars, alone = [], []
    for key, trainings in grouped(asked, _query_of).items():
        queries = [count for run in trainings if (count := run.number("reference_queries"))]
        if key in measured and queries and key not in whole:
            bars.append(_extrapolate(measured[key], trainings, queries))
        elif key not in whole:
            why = "no reference query measured of its circuit: its time cannot be extrapolated"
            alone += [Unmatched(run.run_id, why) for run in trainings]
    return bars, alone


def _is_reference(run: Run) -> bool:
    return run.pipeline == "reference"


def _query_of(run: Run) -> str:
    return canonical([run.config.get(name) for name in _SAME_QUERY])


def _extrapolate(measured: Sequence[Run], trainings: Sequence[Run], queries: list[float]) -> Bar:
    seconds = [
        record.t_total / record.num_queries
        for run in measured
        for record in run.queries()
        if record.num_queries
    ]
    if not seconds:
        raise RecordError(f"{measured[0].folder} is damaged: its run is done and holds no query")
    spread = Spread(
        value=median(seconds) * median(queries),
        low=min(seconds) * min(queries),
        high=max(seconds) * max(queries),
        n=len(queries),
        spread="min–max of the measured queries",
    )
    first = trainings[0]
    bar = bar_of(first.dataset, SERIES["reference"], first.cuts, spread, measured)
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
