"""The study's numbers against what they must show. Says what was found, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .groups import (
    CUTS,
    SERIES,
    grouped,
    median_range,
    pairs,
    series_names,
)
from .rows import DifferenceRow, ShareRow, Sheet
from .runs import Study

DATASETS = ("iris", "mnist")
MOST_RATIO = 2.0
MOST_SHARE = 0.02
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Headline:
    """One number against its bar.

    Attributes:
        question: RQ1, RQ2, RQ4 or RQ5.
        what: The number.
        dataset: The workload.
        series: Which runs, where there are several series.
        cuts: How many.
        value: The number found; None: not measured.
        low: Lower end of its spread.
        high: Its upper end.
        n: How many runs, pairs or records it stands for.
        spread: What `low` and `high` are.
        bar: What it must show.
        outcome: "met", "not met", "not measured", or for RQ4 and RQ5 where 0 lies.
        paper: What the paper states.
    """

    question: str
    what: str
    dataset: str
    series: str
    cuts: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    spread: str = ""
    bar: str = ""
    outcome: str = NOT_MEASURED
    paper: str = ""


def headlines(study: Study, shares: Sheet, differences: Sheet) -> tuple[Headline, ...]:
    """One headline for each question, data set and number of cuts that has a bar.

    Args:
        study: The study.
        shares: Its Table I.
        differences: Its accuracy differences.

    Raises:
        RecordError: The records of a run are damaged.
    """
    found = [*_cutting_cost(study), *_shares(shares), *_differences(differences)]
    return tuple(sorted(found, key=lambda line: (line.question, line.dataset, line.cuts)))


def _cutting_cost(study: Study) -> Iterator[Headline]:
    what, bar = "training time at 3 cuts / uncut", f"at most {MOST_RATIO:g}"
    runs = [run for run in study.done("training", "train") if run.pipeline == "contracted"]
    found, _ = pairs(
        [run for run in runs if not run.cuts], [run for run in runs if run.cuts == 3], CUTS, "uncut"
    )
    names = series_names([pair.other for pair in found], CUTS)
    ratios = [(pair, ratio) for pair in found if (ratio := pair.ratio()) is not None]
    groups = grouped(ratios, lambda item: (item[0].other.dataset, names[item[0].other.run_id]))
    for (dataset, series), group in groups.items():
        spread = median_range([ratio for _, ratio in group])
        outcome = _outcome(spread.value, MOST_RATIO)
        line = Headline("RQ1", what, dataset, series, 3, bar=bar, paper="increases sharply")
        yield Headline(**{**vars(line), **vars(spread), "outcome": outcome})
    for dataset in _missing([dataset for dataset, _ in groups]):
        series = SERIES["contracted"]
        yield Headline("RQ1", what, dataset, series, 3, bar=bar, paper="increases sharply")


def _shares(sheet: Sheet) -> Iterator[Headline]:
    what, bar = "median T_rec/T_total", f"at most {MOST_SHARE:g}"
    rows: list[ShareRow] = [
        row for row in sheet.rows if row.series.startswith(SERIES["contracted"])
    ]
    for row in rows:
        if row.cuts in (1, 2, 3):
            yield Headline(
                *("RQ2", what, row.dataset, row.series, row.cuts),
                value=row.median_share,
                high=row.p95_share,
                n=row.n,
                spread="high is the 95th percentile",
                bar=bar,
                outcome=_outcome(row.median_share, MOST_SHARE),
                paper=f"{row.paper_median_share:.3f}",
            )
    for dataset in DATASETS:
        for cuts in {1, 2, 3} - {row.cuts for row in rows if _is(row.dataset, dataset)}:
            yield Headline("RQ2", what, dataset, SERIES["contracted"], cuts, bar=bar)


def _differences(sheet: Sheet) -> Iterator[Headline]:
    rows: list[DifferenceRow] = [
        row for row in sheet.rows if row.series.startswith(SERIES["contracted"])
    ]
    bar = "0 inside the 95 % interval, or reported as found"
    for question, metric in (("RQ4", "test accuracy"), ("RQ5", "robustness")):
        what = f"{metric}, difference to uncut"
        mine = [row for row in rows if row.metric == metric]
        for row in mine:
            yield Headline(
                *(question, what, row.dataset, row.series, row.cuts),
                value=row.value,
                low=row.low,
                high=row.high,
                n=row.n,
                spread=row.spread,
                bar=bar,
                outcome=_told_zero(row),
            )
        for dataset in DATASETS:
            for cuts in {1, 2, 3} - {row.cuts for row in mine if _is(row.dataset, dataset)}:
                yield Headline(question, what, dataset, SERIES["contracted"], cuts, bar=bar)


def _told_zero(row: DifferenceRow) -> str:
    return f"0 is {row.zero} the interval" if row.zero in ("inside", "outside") else row.zero


def _outcome(value: float, most: float) -> str:
    return "met" if value <= most else "not met"


def _missing(found: Sequence[str]) -> list[str]:
    return [name for name in DATASETS if not any(_is(dataset, name) for dataset in found)]


def _is(dataset: str, name: str) -> bool:
    return dataset == name or dataset.startswith(f"{name}_")
