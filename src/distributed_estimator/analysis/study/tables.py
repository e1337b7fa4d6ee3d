"""Table I and what goes beyond the paper: stages, savings, policies, differences, workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from ..tables import StageRow, stage_table
from .bars import (
    accuracy_of,
    robustness_of,
    worker_pairs,
)
from .causes import causes
from .costs import cost_model
from .groups import (
    CUTS,
    EXECUTION,
    Pair,
    Spread,
    grouped,
    mean_interval,
    median_range,
    pairs,
    run_ids,
    series_names,
    told_origin,
)
from .policies import policies
from .rows import (
    Bar,
    Chart,
    DifferenceRow,
    SavingRow,
    ShareRow,
    Sheet,
    SpeedUpRow,
    StageShareRow,
)
from .runs import Run, Study

PAPER_SHARES = {1: (41, 0.430, 0.474), 2: (28, 0.489, 0.533), 3: (5, 0.530, 0.580)}
"""Table I of the paper: by cuts, n and the median and 95th percentile of T_rec/T_total."""


def sheets(study: Study, drawn: Sequence[Chart]) -> tuple[Sheet, ...]:
    """Every table, those of the figures first; those that were not measured have no row.

    Raises:
        RecordError: The records of a run are damaged.
    """
    return (
        *(chart_sheet(chart) for chart in drawn),
        reconstruction_shares(study),
        stage_shares(study, "shares", "stage_shares", "Stages of a query, before and after"),
        savings(study),
        policies(study),
        differences(study),
        speed_ups(study),
        stage_shares(study, "fleet", "fleet_stages", "Stages of a query on a simulated fleet"),
        causes(study),
        cost_model(study),
    )


def chart_sheet(chart: Chart) -> Sheet:
    """The bars of a figure as a table."""
    rows: tuple[Bar, ...] = chart.bars
    notes = (f"value, low and high: {chart.quantity}.", *chart.notes)
    return Sheet(chart.name, chart.title, chart.experiment, rows, chart.unmatched, notes)


def reconstruction_shares(study: Study) -> Sheet:
    """Table I: median and 95th percentile of T_rec/T_total by cuts."""
    rows = []
    for (dataset, series, cuts), runs, stages in _stages(study, "shares"):
        paper_n, paper_median, paper_p95 = PAPER_SHARES.get(cuts, (None, None, None))
        row = ShareRow(
            dataset=dataset,
            series=series,
            cuts=cuts,
            n=_records(runs),
            median_share=stages[3].median_share,
            p95_share=stages[3].p95_share,
            paper_n=paper_n,
            paper_median_share=paper_median,
            paper_p95_share=paper_p95,
            origin=told_origin(runs),
            runs=run_ids(runs),
        )
        rows.append(row)
    note = "Shares of T_rec in T_total within a query record; n counts query records."
    return Sheet(
        "table1_reconstruction_share",
        "Table I · RQ2: share of reconstruction in a query",
        "shares",
        tuple(rows),
        notes=(note, "The paper's: its Table I, over its own runs and machine."),
    )


def stage_shares(study: Study, experiment: str, name: str, title: str) -> Sheet:
    """Time of each stage of a query, by series and cuts."""
    rows = [
        StageShareRow(
            *key,
            stage.stage,
            _records(runs),
            stage.median_seconds,
            stage.share,
            stage.median_share,
            told_origin(runs),
            run_ids(runs),
        )
        for key, runs, stages in _stages(study, experiment)
        for stage in stages
    ]
    note = "share: of the summed time of all n query records; median_share: within a record."
    return Sheet(name, title, experiment, tuple(rows), notes=(note,))


def _stages(
    study: Study, experiment: str
) -> list[tuple[tuple[str, str, int], list[Run], tuple[StageRow, ...]]]:
    runs = [run for run in study.done(experiment, "queries") if run.totals.records]
    names = series_names(runs)
    groups = grouped(runs, lambda run: (run.dataset, names[run.run_id], run.cuts))
    return [
        (key, members, stage_table([record for run in members for record in run.queries()]))
        for key, members in groups.items()
    ]


def _records(runs: Sequence[Run]) -> int:
    return sum(run.totals.records for run in runs)


def savings(study: Study) -> Sheet:
    """Subexperiments and shots that a query takes, the paper's pipeline beside ours."""
    runs = [run for run in study.done("shares", "queries") if run.totals.queries]
    ours = [run for run in runs if run.pipeline == "contracted"]
    theirs = [run for run in runs if run.pipeline == "reference"]
    compared = ("pipeline", *EXECUTION)
    found, alone = pairs(theirs, ours, compared, "of the other pipeline")
    names = series_names([pair.other for pair in found], compared)
    rows = []
    for key, group in grouped(
        found, lambda pair: (pair.other.dataset, names[pair.other.run_id], pair.other.cuts)
    ).items():
        base, other = [pair.base for pair in group], [pair.other for pair in group]
        circuits = [_a_query(side, "subexperiments") for side in (base, other)]
        shots = [_a_query(side, "shots") for side in (base, other)]
        both = [*base, *other]
        numbers = (*_fewer(circuits), *_fewer(shots))
        rows.append(SavingRow(*key, len(group), *numbers, told_origin(both), run_ids(both)))
    return Sheet(
        "savings",
        "Subexperiments and shots of a query, the paper's pipeline and ours",
        "shares",
        tuple(rows),
        tuple(alone),
        ("fewer_…: the paper's number over ours; n counts pairs of matched runs.",),
    )


def _a_query(runs: Sequence[Run], what: str) -> float:
    return float(median(getattr(run.totals, what) / run.totals.queries for run in runs))


def _fewer(both: Sequence[float]) -> tuple[float, float, float]:
    theirs, ours = both
    return theirs, ours, theirs / ours if ours else math.nan


def differences(study: Study) -> Sheet:
    """Differences of accuracy and robustness to the uncut training of the same seed."""
    runs = study.done("training", "train")
    found, alone = pairs(
        [run for run in runs if not run.cuts], [run for run in runs if run.cuts], CUTS, "uncut"
    )
    names = series_names([pair.other for pair in found], CUTS)
    rows = []
    for key, group in grouped(
        found, lambda pair: (pair.other.dataset, names[pair.other.run_id], pair.other.cuts)
    ).items():
        for metric, number in (("test accuracy", accuracy_of), ("robustness", robustness_of)):
            both = [(number(pair.base), number(pair.other), pair) for pair in group]
            known = [(c - u, pair) for u, c, pair in both if u is not None and c is not None]
            if known:
                members = [run for _, pair in known for run in (pair.base, pair.other)]
                spread = mean_interval([difference for difference, _ in known])
                rows.append(_difference(key, metric, spread, members))
    return Sheet(
        "accuracy_differences",
        "Accuracy with cuts less accuracy uncut, paired by seed",
        "training",
        tuple(rows),
        tuple(alone),
        (
            "Mean of paired differences with the 95 % interval of Student's t over seeds.",
            "Equal differences say nothing of their spread: there is no interval then.",
        ),
    )


def _difference(
    key: tuple[str, str, int], metric: str, spread: Spread, members: Sequence[Run]
) -> DifferenceRow:
    if spread.n < 2:
        zero = "no interval: one seed only"
    elif math.isnan(spread.low):
        zero = spread.spread
    else:
        zero = "inside" if spread.low <= 0 <= spread.high else "outside"
    return DifferenceRow(
        *key,
        metric,
        **vars(spread),
        zero=zero,
        origin=told_origin(members),
        runs=run_ids(members),
    )


def speed_ups(study: Study) -> Sheet:
    """Speed-up over one worker at every number of workers that was measured."""
    runs = study.done("scaling")
    names = series_names(runs, ("workers",))
    rows = []
    for workers in sorted({run.config.get("workers") or 1 for run in runs} - {1}):
        found = [(pair, pair.ratio()) for pair in worker_pairs(runs, workers)[0]]
        timed = [(pair, 1 / ratio) for pair, ratio in found if ratio]
        for key, group in grouped(timed, _pair_key(names)).items():
            spread = median_range([gain for _, gain in group])
            both = [run for pair, _ in group for run in (pair.base, pair.other)]
            row = SpeedUpRow(
                *key,
                workers,
                **vars(spread),
                origin=told_origin(both),
                runs=run_ids(both),
            )
            rows.append(row)
    return Sheet("speed_ups", "Speed-up over one worker", "scaling", tuple(rows))


def _pair_key(names: Mapping[str, str]) -> Callable[[tuple[Pair, float]], tuple[str, str, int]]:
    def key(item: tuple[Pair, float]) -> tuple[str, str, int]:
        run = item[0].other
        return run.dataset, names[run.run_id], run.cuts

    return key
