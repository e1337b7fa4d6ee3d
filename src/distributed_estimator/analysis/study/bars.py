"""The numbers of the paper's figures 4 to 8, from a study's records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from ...errors import RecordError
from ..accuracy import AccuracyCurve, AccuracyPoint
from ..costs import CostData
from .extrapolation import bar_of, extrapolated_bars, extrapolation_notes
from .groups import (
    STRAGGLERS,
    Pair,
    Spread,
    Unmatched,
    grouped,
    mean_range,
    median_range,
    pairs,
    series_names,
)
from .rows import Bar, Chart
from .runs import Run, Study
from .words import counted, listed

PAPER_WORKERS = 16
PAPER_P = 0.2
PERTURBATIONS = {"gaussian": "Gaussian noise", "fgsm": "FGSM"}
"""Curves of a training's robustness, and what they are called."""


def charts(study: Study) -> tuple[Chart, ...]:
    """Figures 4 to 8 in order; those that were not measured have no bar.

    Raises:
        RecordError: The records of a run are damaged.
    """
    return (
        training_time(study),
        speed_up(study),
        slow_down(study),
        clean_accuracy(study),
        robustness(study),
    )


def training_time(study: Study) -> Chart:
    """Fig. 4: training time by cuts; the reference's is extrapolated from measured queries."""
    bars, alone = _measured(study.done("training", "train"), _seconds, median_range)
    extrapolated, more = extrapolated_bars(study)
    return Chart(
        "fig4_training_time",
        "Fig. 4 · RQ1: training time by number of cuts",
        "training",
        "training time (s)",
        _in_order([*bars, *extrapolated]),
        (*alone, *more),
        notes=("Bars are medians over runs.", *extrapolation_notes(extrapolated)),
    )


def speed_up(study: Study) -> Chart:
    """Fig. 5: time of one worker over that of 16, or of the most that a data set was run with."""
    runs = study.done("scaling")
    by_dataset = grouped(runs, lambda run: run.dataset)
    most = {dataset: _most_workers(members) for dataset, members in by_dataset.items()}
    matches = [worker_pairs(members, most[name]) for name, members in by_dataset.items()]
    found = [pair for pairs_of, _ in matches for pair in pairs_of]
    bars, zero = _ratios(found, ("workers",), lambda pair: _inverse(pair.ratio()))
    counts = set(most.values()) or {PAPER_WORKERS}
    told = str(max(counts))
    if len(counts) > 1:
        told = "the most"
        bars = tuple(
            replace(bar, series=f"{bar.series}, {counted(most[bar.dataset], 'worker')}")
            for bar in bars
        )
    return Chart(
        "fig5_speed_up",
        f"Fig. 5 · RQ2: speed-up of {told} workers over 1",
        "scaling",
        f"training time at 1 worker / at {told}",
        bars,
        (*(one for _, alone in matches for one in alone), *zero),
        level=1.0,
        notes=("Bars are medians over pairs of runs that differ in their workers alone.",),
    )


def _most_workers(runs: Sequence[Run]) -> int:
    """The paper's number of workers if it was measured, else the greatest above 1 there is."""
    counts = {run.config.get("workers") or 1 for run in runs} - {1}
    return PAPER_WORKERS if PAPER_WORKERS in counts else max(counts, default=PAPER_WORKERS)


def worker_pairs(runs: Sequence[Run], workers: int) -> tuple[list[Pair], list[Unmatched]]:
    """Runs on one worker, each with the same on `workers`."""
    base = [run for run in runs if run.config.get("workers") == 1]
    others = [run for run in runs if run.config.get("workers") == workers != 1]
    return pairs(base, others, ("workers",), f"between 1 and {workers} workers")


def slow_down(study: Study) -> Chart:
    """Fig. 6: time under stragglers over time without, per policy."""
    runs = study.done("stragglers")
    p = straggler_probability(runs)
    found, alone = straggler_pairs(runs, p)
    bars, zero = _ratios(found, STRAGGLERS, Pair.ratio)
    return Chart(
        "fig6_slow_down",
        f"Fig. 6 · RQ3: slow-down under injected stragglers, p = {p:g} over p = 0",
        "stragglers",
        f"training time at p = {p:g} / at p = 0",
        bars,
        (*alone, *zero),
        level=1.0,
        notes=("Bars are medians over pairs of runs that differ in their stragglers alone.",),
    )


def straggler_probability(runs: Sequence[Run]) -> float:
    """The paper's p if it was measured, else the greatest there is."""
    found = {run.config.get("straggler_p") or 0.0 for run in runs}
    return PAPER_P if PAPER_P in found else max(found, default=PAPER_P) or PAPER_P


def straggler_pairs(runs: Sequence[Run], p: float) -> tuple[list[Pair], list[Unmatched]]:
    """Runs without stragglers, each with the same at probability `p`."""
    base = [run for run in runs if not run.config.get("straggler_p")]
    others = [run for run in runs if run.config.get("straggler_p") == p]
    return pairs(base, others, STRAGGLERS, f"between p = 0 and p = {p:g}")


def clean_accuracy(study: Study) -> Chart:
    """Fig. 7: test accuracy after clean training."""
    bars, alone = _measured(study.done("training", "train"), accuracy_of, mean_range)
    return Chart(
        "fig7_accuracy",
        "Fig. 7 · RQ4: test accuracy",
        "training",
        "test accuracy",
        bars,
        alone,
        notes=("Bars are means over seeds.",),
    )


def robustness(study: Study) -> Chart:
    """Fig. 8: mean accuracy over magnitudes above 0, averaged over the perturbations run."""
    runs = study.done("training", "train")
    bars, alone = _measured(runs, robustness_of, mean_range)
    told = _told_perturbations(runs)
    return Chart(
        "fig8_robustness",
        f"Fig. 8 · RQ5: robustness (mean accuracy under {told})",
        "training",
        "mean accuracy under perturbation",
        bars,
        alone,
        notes=("Bars are means over seeds of the mean accuracy over magnitudes above 0.",),
    )


def check_numbers(run: Run) -> None:
    """Reads all that figures and tables are made from.

    Raises:
        RecordError: Something of it is damaged.
    """
    for name in ("test_accuracy", "reference_queries", "lower_bound", "simulator_threads"):
        run.number(name)
    run.seconds  # noqa: B018
    robustness_of(run)
    if run.status == "done" and run.kind == "queries" and not run.totals.queries:
        raise RecordError(f"{run.folder} is damaged: its run is done and holds no query")
    try:
        CostData.of(run.queries())
    except RecordError as error:
        raise RecordError(f"the records in {run.folder} are damaged: {error}") from error


def accuracy_of(run: Run) -> float | None:
    """A training's test accuracy."""
    return run.number("test_accuracy")


def robustness_of(run: Run) -> float | None:
    """The paper's robustness summary of a training, from its curves where they are kept.

    Raises:
        RecordError: The curves are damaged.
    """
    curves = run.results.get("robustness")
    if not curves:
        return run.number("robustness_summary")
    try:
        found = [_curve(name, curves[name]) for name in PERTURBATIONS if curves.get(name)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{run.folder / 'result.json'} is damaged: `robustness` holds no curves of "
            f"[magnitude, accuracy, low, high] ({error})"
        ) from error
    return fmean(curve.mean_accuracy for curve in found) if found else None


def _told_perturbations(runs: Sequence[Run]) -> str:
    done = [name for key, name in PERTURBATIONS.items() if any(_has_curve(r, key) for r in runs)]
    return listed(done) if done else "perturbation"


def _has_curve(run: Run, name: str) -> bool:
    curves = run.results.get("robustness")
    return isinstance(curves, dict) and bool(curves.get(name))


def _curve(name: str, points: Sequence[Sequence[float]]) -> AccuracyCurve:
    numbers = [[float(number) for number in point[:4]] for point in points]
    points_of = tuple(
        AccuracyPoint(magnitude, accuracy, low, high, loss=math.nan)
        for magnitude, accuracy, low, high in numbers
    )
    return AccuracyCurve(name, points_of)


def _seconds(run: Run) -> float | None:
    return run.seconds


def _measured(
    runs: Sequence[Run],
    number: Callable[[Run], float | None],
    spread: Callable[[Sequence[float]], Spread],
) -> tuple[tuple[Bar, ...], tuple[Unmatched, ...]]:
    numbers = {run.run_id: number(run) for run in runs}
    without = [Unmatched(run, "no such number") for run, found in numbers.items() if found is None]
    names = series_names(runs)
    groups = grouped(runs, lambda run: (run.dataset, names[run.run_id], run.cuts))
    bars = []
    for key, members in groups.items():
        with_number = [run for run in members if numbers[run.run_id] is not None]
        if with_number:
            values = [found for run in with_number if (found := numbers[run.run_id]) is not None]
            bars.append(bar_of(*key, spread(values), with_number))
    return tuple(bars), tuple(without)


def _ratios(
    found: Sequence[Pair], compared: Sequence[str], ratio: Callable[[Pair], float | None]
) -> tuple[tuple[Bar, ...], tuple[Unmatched, ...]]:
    usable = [(pair, value) for pair in found if (value := ratio(pair)) is not None]
    without = [
        Unmatched(pair.other.run_id, "no time above 0 s on both sides")
        for pair in found
        if ratio(pair) is None
    ]
    names = series_names([pair.other for pair in found], compared)
    groups = grouped(
        usable,
        lambda item: (item[0].other.dataset, names[item[0].other.run_id], item[0].other.cuts),
    )
    bars = [
        bar_of(*key, median_range([value for _, value in items]), _both(pair for pair, _ in items))
        for key, items in groups.items()
    ]
    return tuple(bars), tuple(without)


def _both(found: Iterable[Pair]) -> list[Run]:
    return [run for pair in found for run in (pair.base, pair.other)]


def _inverse(ratio: float | None) -> float | None:
    return 1 / ratio if ratio else None


def _in_order(bars: Iterable[Bar]) -> tuple[Bar, ...]:
    groups = grouped(bars, lambda bar: (bar.dataset, bar.series, bar.cuts))
    return tuple(bar for members in groups.values() for bar in members)
