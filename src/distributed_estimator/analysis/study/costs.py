"""How well the cost model predicts this study's own queries, each configuration held out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..costs import (
    LEVEL,
    Configuration,
    CostData,
    Features,
    FloatArray,
    HeldOut,
    Setup,
    Validation,
    least_configurations,
    leave_one_out,
)
from .groups import run_ids, told_origin
from .rows import ALL, CostRow, Sheet
from .runs import Run, Study
from .words import counted

WHAT = "held-out configurations, median relative error of T_total"
MOST_ERROR = 0.15
_MOST_FOLDS = 50


@dataclass(frozen=True)
class _Own:
    """What the study holds of one setup."""

    configurations: tuple[Configuration, ...]
    runs: tuple[Run, ...]


def cost_model(study: Study) -> Sheet:
    """Errors of predictions for configurations that were held out, by setup.

    Raises:
        RecordError: The records of a run are damaged, or a time of theirs cannot be.
    """
    setups, left_out = _by_setup(study)
    least = least_configurations(LEVEL)
    rows = [_row(setup, own) for setup, own in setups.items() if len(own.configurations) >= least]
    few = [len(own.configurations) for own in setups.values() if len(own.configurations) < least]
    return Sheet(
        "cost_model",
        "Cost model: how far predictions are off",
        ALL,
        tuple(rows),
        notes=(*_NOTES, *_too_few(few, least), *_left_out(left_out)),
    )


_NOTES = (
    "Every configuration is predicted by a fit that it was held out of (in parts where there are "
    f"more than {_MOST_FOLDS}); others of the same circuit stay in the fit.",
    "error_…: median of |predicted / measured - 1| over configurations; measured is the median of "
    "a configuration's records.",
    f"inside_interval: share of records inside the {100 * LEVEL:.0f} % interval for T_total, whose "
    "width comes from the other configurations.",
    f"Bar: error_total at most {MOST_ERROR:g}.",
)


def remarks(sheet: Sheet) -> str:
    """What of the study the cost model was not validated with, and why."""
    told = " ".join(sheet.notes[len(_NOTES) :])
    return told or ("" if sheet.rows else "No finished run holds a query.")


def _by_setup(study: Study) -> tuple[dict[Setup, _Own], Counter[str]]:
    """Configurations of finished runs, by setup."""
    times: defaultdict[Setup, defaultdict[Features, list[FloatArray]]]
    times = defaultdict(lambda: defaultdict(list))
    members: defaultdict[Setup, list[Run]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for run in study.runs:
        if run.status != "done" or not run.totals.records:
            continue
        data = CostData.of(run.queries())
        left_out.update(data.left_out)
        for setup, configurations in data.configurations.items():
            members[setup].append(run)
            for each in configurations:
                times[setup][each.features].append(each.times)
    found = {
        setup: _Own(
            tuple(Configuration(f, np.concatenate(parts)) for f, parts in sorted(own.items())),
            tuple(members[setup]),
        )
        for setup, own in sorted(times.items())
    }
    return found, left_out


def _row(setup: Setup, own: _Own) -> CostRow:
    held_out = leave_one_out(own.configurations)
    found = Validation.of(held_out)
    error = found.median_error
    return CostRow(
        setup=str(setup),
        configurations=found.configurations,
        n=sum(len(each.times) for each in own.configurations),
        error_partition=error["partition"],
        error_generate=error["generate"],
        error_execute=error["execute"],
        error_reconstruct=error["reconstruct"],
        error_total=error["total"],
        p90_error_total=found.p90_error["total"],
        inside_interval=_inside(held_out),
        outcome="met" if error["total"] <= MOST_ERROR else "not met",
        origin=told_origin(own.runs),
        runs=run_ids(own.runs),
    )


def _inside(held_out: HeldOut) -> float:
    """Share of each configuration's records inside intervals made of the others, on average."""
    count = len(held_out.configurations)
    places, folds = np.arange(count), min(count, _MOST_FOLDS)
    shares = [
        _part(held_out, places % folds == fold).inside(
            _part(held_out, places % folds != fold).factors(LEVEL)
        )
        for fold in range(folds)
    ]
    sizes = [int(np.sum(places % folds == fold)) for fold in range(folds)]
    return float(np.average(np.array(shares)[:, -1], weights=sizes))


def _part(held_out: HeldOut, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> HeldOut:
    pairs = zip(held_out.configurations, chosen, strict=True)
    return HeldOut(tuple(each for each, is_in in pairs if is_in), held_out.predicted[chosen])


def _too_few(few: Sequence[int], least: int) -> list[str]:
    if not few:
        return []
    are = "is" if len(few) == 1 else "are"
    return [
        f"{counted(len(few), 'setup')} {are} not validated: that takes {least} configurations, "
        f"and the most that one of these has is {max(few)}."
    ]


def _left_out(reasons: Counter[str]) -> list[str]:
    return [
        f"{counted(count, 'record')} left out: {why}." for why, count in sorted(reasons.items())
    ]
