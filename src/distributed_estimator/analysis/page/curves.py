"""Curves of the page: speed-up by workers, loss and accuracy by step, accuracy by magnitude."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...records import TrainingRecord
from ..accuracy import ATTACK_NAMES, percent
from ..escape import one_line
from ..study.groups import grouped
from ..study.rows import Sheet, SpeedUpRow
from ..study.words import number
from .keys import curve_keys, cut_id, cut_keys
from .model import Spec
from .text import bar_name

MOST_POINTS = 400
_WORDS = {"train_accuracy": "training samples", "test_accuracy": "test samples"}


def speed_up_chart(sheet: Sheet) -> Spec | None:
    """Speed-up by workers, one panel for each data set and series; None without a row."""
    rows: tuple[SpeedUpRow, ...] = sheet.rows
    if not rows:
        return None
    panels = grouped(rows, lambda row: (row.dataset, row.series))
    return {
        "title": sheet.title,
        "axis": {
            "label": "workers",
            "least": 1,
            "log": False,
            "ticks": sorted({1, *(row.workers for row in rows)}),
        },
        "upright": {"least": 0, "level": 1},
        "keys": cut_keys(row.cuts for row in rows),
        "panels": [
            {
                "title": one_line(", ".join(name)),
                "origin": one_line(", ".join(sorted({row.origin for row in members}))),
                "series": [
                    {"key": cut_id(cuts), "points": [_alone(part[0]), *map(_speed_up, part)]}
                    for cuts, part in grouped(members, lambda row: row.cuts).items()
                ],
            }
            for name, members in panels.items()
        ],
    }


def _alone(row: SpeedUpRow) -> dict[str, Any]:
    return {"x": 1, "y": 1, "told": [_series(row), "1 worker: what the others are compared with"]}


def _speed_up(row: SpeedUpRow) -> dict[str, Any]:
    told = [_series(row), f"{row.workers} workers: {number(row.value)} times as fast"]
    point: dict[str, Any] = {"x": row.workers, "y": row.value}
    if row.n > 1:
        point |= {"low": row.low, "high": row.high}
        told.append(f"{row.spread}: {number(row.low)} to {number(row.high)}")
    return {**point, "told": [*told, f"n = {row.n}, {one_line(row.origin)}"]}


def _series(row: SpeedUpRow) -> str:
    return bar_name(row.dataset, row.series, row.cuts)


def loss_chart(training: Sequence[TrainingRecord]) -> Spec | None:
    """Loss by step."""
    return _by_step(
        "Training loss", "loss", {"loss": [(r, r.loss) for r in training]}, {"least": 0}
    )


def accuracy_chart(training: Sequence[TrainingRecord]) -> Spec | None:
    """Training and test accuracy by step, where the records hold them."""
    curves = {
        label: [(r, 100 * r.metrics[name]) for r in training if name in r.metrics]
        for name, label in _WORDS.items()
    }
    return _by_step("Accuracy", "correct (%)", curves, {"least": 0, "most": 100})


def _by_step(
    title: str,
    quantity: str,
    curves: Mapping[str, Sequence[tuple[TrainingRecord, float]]],
    upright: Mapping[str, float],
) -> Spec | None:
    finite = {
        label: [(record, value) for record, value in points if math.isfinite(value)]
        for label, points in curves.items()
    }
    known = {label: points for label, points in finite.items() if points}
    if not known:
        return None
    return {
        "title": title,
        "axis": {"label": "optimizer step"},
        "upright": upright,
        "keys": curve_keys(known),
        "panels": [
            {
                "title": quantity,
                "series": [
                    {
                        "key": f"curve-{place}",
                        "points": [_step(label, *one) for one in thinned(points)],
                    }
                    for place, (label, points) in enumerate(known.items())
                ],
            }
        ],
    }


def _step(label: str, record: TrainingRecord, value: float) -> dict[str, Any]:
    told = [
        f"{label}: {number(value)}",
        f"step {record.step}, epoch {record.epoch}",
        f"{number(record.queries)} queries, {number(record.at)} s so far",
    ]
    return {"x": record.step, "y": value, "told": told}


def thinned(points: Sequence[Any]) -> list[Any]:
    """At most so many points that a browser draws them at once, the last among them.

    Example:
        >>> len(thinned(range(10_000))), thinned(range(10_000))[-1]
        (400, 9999)
    """
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(place * step)] for place in range(MOST_POINTS)]


def robustness_chart(curves: Mapping[str, Sequence[Sequence[float]]]) -> Spec | None:
    """Accuracy by magnitude of a perturbation, with its interval.

    Args:
        curves: By attack, points of magnitude (rad), accuracy and the ends of its interval.
    """
    known = {name: points for name, points in curves.items() if points}
    if not known:
        return None
    names = [ATTACK_NAMES.get(name, one_line(name)) for name in known]
    return {
        "title": "Accuracy on perturbed test samples",
        "axis": {"label": "magnitude of the perturbation (rad)", "least": 0},
        "upright": {"least": 0, "most": 100},
        "keys": curve_keys(names),
        "panels": [
            {
                "title": "test samples correct (%)",
                "series": [
                    {"key": f"curve-{place}", "points": [_magnitude(name, *p[:4]) for p in points]}
                    for place, (name, points) in enumerate(zip(names, known.values(), strict=True))
                ],
            }
        ],
    }


def _magnitude(
    name: str, magnitude: float, accuracy: float, low: float, high: float
) -> dict[str, Any]:
    told = [
        f"{name}, {number(magnitude)} rad: {percent(accuracy)} correct",
        f"95 % interval: {percent(low)} to {percent(high)}",
    ]
    ends = {"low": 100 * low, "high": 100 * high}
    return {"x": magnitude, "y": 100 * accuracy, **ends, "told": told}
