"""Policies with and without injected stragglers, beside the expected time that none can beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from .bars import straggler_pairs, straggler_probability
from .groups import (
    STRAGGLERS,
    Pair,
    Unmatched,
    grouped,
    median_range,
    run_ids,
    series_names,
    told_origin,
)
from .rows import PolicyRow, Sheet
from .runs import Run, Study


def policies(study: Study) -> Sheet:
    """Time of each policy with and without stragglers, over the bound that none can beat."""
    rows: list[PolicyRow] = []
    alone: list[Unmatched] = []
    for experiment in ("stragglers", "policies"):
        runs = [run for run in study.done(experiment) if run.seconds is not None]
        found, unmatched = _slowed(runs)
        rows += _policy_rows(experiment, runs, found)
        alone += unmatched
    return Sheet(
        "policies",
        "Policies with and without injected stragglers",
        "stragglers and policies",
        tuple(rows),
        tuple(alone),
        (
            "value: median seconds of a training (stragglers) or of a query (policies).",
            "over_clean: median over runs of their time over that of the same run at p = 0, where "
            "there is one.",
            "lower_bound: expected seconds that no policy can beat, where the records hold them; "
            "value is a median, which may be below it by chance.",
        ),
    )


def _policy_rows(
    experiment: str, runs: Sequence[Run], found: Sequence[Pair]
) -> Iterator[PolicyRow]:
    of_row = _policy_key(series_names(runs, STRAGGLERS))
    slowed = grouped(found, lambda pair: of_row(pair.other))
    for key, members in grouped(runs, of_row).items():
        ratios = [pair.ratio() for pair in slowed.get(key, ())]
        yield _policy_row(experiment, *key, members, ratios)


def _slowed(runs: Sequence[Run]) -> tuple[list[Pair], list[Unmatched]]:
    """Runs with and without stragglers, each with the same run at p = 0."""
    clean, _ = straggler_pairs(runs, 0.0)
    found, alone = list(clean), []
    delayed = {p for run in runs if (p := run.config.get("straggler_p"))}
    for p in sorted(delayed or {straggler_probability(runs)}):
        more, unmatched = straggler_pairs(runs, p)
        found += more
        alone += unmatched
    return found, alone


def _policy_key(names: Mapping[str, str]) -> Callable[[Run], tuple[str, str, int, float]]:
    def key(run: Run) -> tuple[str, str, int, float]:
        return run.dataset, names[run.run_id], run.cuts, run.config.get("straggler_p") or 0.0

    return key


def _policy_row(
    experiment: str,
    dataset: str,
    series: str,
    cuts: int,
    p: float,
    runs: Sequence[Run],
    ratios: Sequence[float | None],
) -> PolicyRow:
    known = [ratio for ratio in ratios if ratio is not None]
    spread = median_range([run.seconds for run in runs if run.seconds is not None])
    bounds = [bound for run in runs if (bound := run.number("lower_bound")) is not None]
    bound = median(bounds) if len(bounds) == len(runs) else None
    return PolicyRow(
        experiment=experiment,
        dataset=dataset,
        series=series,
        cuts=cuts,
        p=p,
        **vars(spread),
        over_clean=median(known) if known else None,
        lower_bound=bound,
        over_bound=spread.value / bound if bound else None,
        origin=told_origin(runs),
        runs=run_ids(runs),
    )
