"""Charts of runs and studies: one definition each for PNG, SVG and the interactive page.

A figure is a list of panels, which are Altair charts without a width: a picture sets them side by
side, a page gives each the width of its column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import require
from ..errors import InputError, MissingExtraError
from ..records import QueryRecord, TaskRecord, TrainingRecord, atomic, given_path
from .accuracy import ATTACK_NAMES, AccuracyCurve, AccuracyPoint, percent
from .escape import cuts_label, natural, one_line
from .load import STAGES, StageRow, stage_table
from .trace import PlacedQuery, lanes, nanoseconds

try:
    import pandas as pd
except ImportError as error:
    raise MissingExtraError("pandas", "report", "a report") from error

if TYPE_CHECKING:
    import altair

    Panel = altair.LayerChart | altair.Chart

CUT_COLOURS = ("#1b4f9c", "#f5a623", "#3da35d", "#c8372d", "#6b7280")
"""The paper's colours by cuts, at lightnesses that stay apart in grey; the last for more than 3."""
# Okabe and Ito's palette: its colours stay apart under every common colour blindness.
STAGE_COLOURS = {
    "partition": "#cc79a7",
    "generate": "#009e73",
    "execute": "#0072b2",
    "reconstruct": "#e69f00",
}
CYCLE = ("#0072b2", "#e69f00", "#009e73", "#c8372d", "#cc79a7", "#6b7280")
MOST_POINTS = 400
MOST_TASKS = 300
_WIDE = 30
"""Bars whose greatest is so many times the least are drawn over a logarithmic axis."""
_ROW = 34
"""Pixels of a row: its label above, its bar below."""
_SECOND = 1e9


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: Its heading.
        panels: Its charts.
        colours: Of each series that can be hidden.
        logarithmic: Whether its bars are drawn over powers of ten.
    """

    title: str
    panels: tuple[Panel, ...]
    colours: Mapping[str, str]
    logarithmic: bool = False


def require_altair() -> None:
    """Raises MissingExtraError, with the install command, if charts cannot be drawn."""
    _altair()


def _altair() -> Any:
    altair = require("altair", "report", "a chart")
    require("vl_convert", "report", "a chart", "vl-convert-python")
    altair.data_transformers.disable_max_rows()
    return altair


def number(value: float | None) -> str:
    """A number to three digits; a dash where there is none.

    Example:
        >>> number(12345.6), number(0.01234), number(None)
        ('12,346', '0.0123', '–')
    """
    if value is None or not -1e300 < value < 1e300:
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


# Pictures and specifications


def picture(figure: Figure) -> Any:
    """The panels of a figure side by side, under its title."""
    alt = _altair()
    columns = 2 if len(figure.panels) > 1 else 1
    panels = [panel.properties(width=430 if columns == 2 else 640) for panel in figure.panels]
    title = alt.TitleParams(figure.title, anchor="start", fontSize=16)
    joined = alt.concat(*panels, columns=columns).properties(title=title)
    return joined.resolve_scale(color="independent", x="independent", y="independent")


def picture_of_all(figures: Sequence[Figure]) -> Any:
    """Several figures one below the other."""
    alt = _altair()
    joined = alt.vconcat(*map(picture, figures), spacing=40)
    return joined.resolve_scale(color="independent", x="independent", y="independent")


def write_picture(chart: Any, *paths: Path) -> None:
    """Writes a chart as PNG or SVG, by the ending of each path; files appear whole or not at all.

    Raises:
        OSError: The operating system refused to write.
    """
    import vl_convert

    specification = {**chart.to_dict(), "config": _CONFIG}
    for path in paths:
        with atomic(path, durable=False) as unfinished:
            if path.suffix == ".svg":
                text = _renumbered(vl_convert.vegalite_to_svg(specification))
                unfinished.write_text(text + "\n", "utf-8", newline="\n")
            else:
                unfinished.write_bytes(vl_convert.vegalite_to_png(specification, scale=2))


def _renumbered(svg: str) -> str:
    """The same picture with clip paths numbered from 0: Vega counts on from picture to picture."""
    numbers: dict[str, int] = {}
    return re.sub(
        r"\bclip(\d+)\b", lambda found: f"clip{numbers.setdefault(found[1], len(numbers))}", svg
    )


def page_specification(panel: Panel) -> dict[str, Any]:
    """A panel as a page draws it: as wide as its place, its legend left to the page.

    It has the parameter `hidden`, a list of series that are left out, and the interval `zoom`,
    which is bound to the horizontal axis.
    """
    found: dict[str, Any] = panel.properties(width="container").to_dict(validate=False)
    zoom = {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"}
    found["layer"][0]["params"] = [{"name": "zoom", "select": zoom, "bind": "scales"}]
    found["params"] = [{"name": "hidden", "value": []}]
    found["transform"] = [{"filter": "indexof(hidden, datum.key) < 0"}]
    found["config"] = {**_CONFIG, "background": None, "legend": {"disable": True}}
    found["autosize"] = {"type": "fit-x", "contains": "padding"}
    return found


_CONFIG: dict[str, Any] = {
    "background": "white",
    "view": {"stroke": None},
    "axis": {"gridOpacity": 0.6, "titleFontWeight": "normal"},
    "title": {"anchor": "start", "fontSize": 13},
    "legend": {"orient": "top"},
}


def _panel(title: str, layers: Sequence[Any], data: Any, height: int) -> Panel:
    """Layers over the same data."""
    chart: Panel = _altair().layer(*layers, data=data)
    return chart.properties(title=one_line(title, 120), height=height)


def _scale(colours: Mapping[str, str]) -> Any:
    return _altair().Scale(domain=list(colours), range=list(colours.values()))


def _colour(colours: Mapping[str, str], *, legend: bool = True) -> Any:
    alt = _altair()
    channel = alt.Color("key:N", scale=_scale(colours), title=None)
    return channel if legend else channel.legend(None)


def _labels() -> list[Any]:
    """The text above each bar, and the names of series in bold."""
    alt = _altair()
    text = alt.Chart().encode(y=alt.Y("row:O", axis=None), x=alt.value(0), text="label:N")
    return [
        text.transform_filter(f"isValid(datum.label) && {sign}datum.head").mark_text(
            align="left", baseline="middle", dy=dy, fontWeight=weight
        )
        for sign, weight, dy in (("", "bold", 6), ("!", "normal", -6))
    ]


# Bars


def bars(
    title: str,
    rows: pd.DataFrame,
    quantity: str,
    *,
    level: float | None = None,
    points: bool = False,
    logarithmic: bool | None = None,
) -> Figure:
    """Bars, or points with intervals, with a panel for each data set.

    Args:
        title: Of the figure.
        rows: `dataset`, `series`, `cuts`, `value`, `low`, `high`, `n`, and if known `spread`,
            `basis` (what is not "measured" is drawn hollow), `queries`, `bound`, `origin`.
        quantity: What the length of a bar is, with its unit.
        level: Where to draw a line for "no change"; None: nowhere.
        points: Whether to draw points instead of bars.
        logarithmic: Whether the axis is; None: where bars are wide apart.
    """
    counts = sorted(set(rows.cuts))
    colours = {cuts_label(count): CUT_COLOURS[min(count, 4)] for count in counts}
    values = rows.value[rows.value > 0]
    if logarithmic is None:
        spans = len(values) == len(rows) and values.max() / values.min() > _WIDE
        logarithmic = bool(spans) and not points
    panels = [
        _bar_panel(str(dataset), part, quantity, colours, level, points, logarithmic)
        for dataset, part in rows.groupby("dataset", sort=True)
    ]
    return Figure(title, tuple(panels), colours, logarithmic)


def _bar_panel(
    dataset: str,
    rows: pd.DataFrame,
    quantity: str,
    colours: Mapping[str, str],
    level: float | None,
    points: bool,
    logarithmic: bool,
) -> Panel:
    alt = _altair()
    data = _labelled(rows, quantity)
    ends = pd.concat([rows.value, rows.high[rows.high.notna()]])
    floor = 0.0
    scale = alt.Scale(zero=not points)
    if logarithmic:  # a bar needs a foot, and a logarithmic axis has none
        least = min(rows.value.min(), *rows.low[rows.low > 0]) if len(rows) else 1.0
        floor = 10.0 ** math.floor(math.log10(least) - 0.3)
        scale = alt.Scale(type="log", domain=[floor, float(ends.max()) * 1.2], nice=False)
    data["floor"] = floor
    x = alt.X("value:Q", scale=scale, title=quantity, axis=alt.Axis(labelOverlap=True))
    y = alt.Y("row:O", axis=None)
    tooltip = alt.Tooltip("details:N", title=None)
    known = "isValid(datum.value)"
    colour = _colour(colours, legend=False)  # each bar has its label
    base = alt.Chart().encode(y=y, tooltip=tooltip)
    hollow = "datum.basis != 'measured'"
    if points:
        mark = base.transform_filter(known).mark_point(
            size=70, filled=True, opacity=1, yOffset=8, clip=True
        )
        mark = mark.encode(x=x, color=colour, shape=alt.Shape("key:N", legend=None))
    else:
        mark = base.transform_filter(known).mark_bar(height=12, yOffset=8, clip=True, strokeWidth=2)
        mark = mark.encode(
            x=x,
            x2="floor:Q",
            color=colour,
            stroke=alt.Stroke("key:N", scale=_scale(colours), legend=None),
            fillOpacity=alt.condition(hollow, alt.value(0.15), alt.value(1)),
            strokeDash=alt.condition(hollow, alt.value([4, 3]), alt.value([1, 0])),
        )
    whisker = base.transform_filter("datum.has_spread").mark_rule(
        strokeWidth=1.5, yOffset=8, y2Offset=8, clip=True
    )
    whisker = whisker.encode(x=alt.X("low:Q"), x2="high:Q")
    bound = base.transform_filter("isValid(datum.bound)").mark_tick(
        thickness=3, height=18, yOffset=8, clip=True, color="black"
    )
    layers = [mark]
    if data.has_spread.any():
        layers.insert(0 if points else 1, whisker)
    if data.bound.notna().any():
        layers.append(bound.encode(x="bound:Q"))
    layers += _labels()
    if level is not None:
        layers.append(alt.Chart().mark_rule(strokeDash=[2, 3]).encode(x=alt.datum(level)))
    origin = ", ".join(sorted(set(rows.get("origin", ()))))
    name = f"{one_line(dataset, 60)} · {origin}" if origin else one_line(dataset, 60)
    return _panel(name, layers, data, _ROW * len(data))


def _labelled(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A row for each bar behind one for the head of its series."""
    found: list[dict[str, Any]] = []
    for series, part in rows.groupby("series", sort=False):
        name = one_line(str(series), 80)
        found.append({"label": name, "head": True, "has_spread": False, "key": None})
        for row in part.to_dict("records"):
            key = cuts_label(int(row["cuts"]))
            basis = measured = row.get("basis", "measured")
            count = row["n"]
            if basis == "extrapolated":
                count = row["queries"]
                measured += f" from {number(count)} queries"
            has_spread = count > 1 and pd.notna(row["low"]) and row["high"] > row["low"]
            label = f"{key}: {number(row['value'])} (n = {row['n']})"
            details = [f"{name}, {key}", f"{quantity}: {number(row['value'])}"]
            if has_spread:
                details.append(f"{row['spread']}: {number(row['low'])} to {number(row['high'])}")
            details.append(f"n = {row['n']}, {measured}, {one_line(str(row.get('origin', '')))}")
            if pd.notna(row.get("bound", math.nan)):
                details.append(f"no policy can beat {number(row['bound'])} on average")
            found.append(
                {
                    **{"key": key, "head": False, "has_spread": has_spread, "details": details},
                    "label": label if basis == "measured" else f"{label}, {measured}",
                    "basis": basis,
                    **{k: float(row[k]) for k in ("value", "low", "high")},
                    "bound": row.get("bound", math.nan),
                }
            )
    return pd.DataFrame(found).assign(row=range(len(found)))


def stages(title: str, rows: pd.DataFrame, *, absolute: bool) -> Figure:
    """Stages of queries as stacked bars, with a panel for each data set.

    Args:
        title: Of the figure.
        rows: `dataset`, `series`, `cuts`, `stage`, `n`, `median_seconds`, `share`, `origin`.
        absolute: Whether to draw median seconds instead of shares.
    """
    alt = _altair()
    quantity = "median seconds of each stage of a query" if absolute else "share of the time (%)"
    ends: dict[str, Any] = {} if absolute else {"domain": [0, 100]}
    panels = []
    for dataset, part in rows.groupby("dataset", sort=True):
        data, height = _stacked(part, absolute)
        base = alt.Chart().encode(y=alt.Y("row:O", axis=None))
        bar = base.transform_filter("datum.stage != null").mark_bar(height=12, yOffset=8, clip=True)
        bar = bar.encode(
            x=alt.X("length:Q", title=quantity, stack="zero", scale=alt.Scale(**ends)),
            color=_colour(STAGE_COLOURS),
            order=alt.Order("order:Q"),
            tooltip=alt.Tooltip("details:N", title=None),
        )
        origin = ", ".join(sorted(set(part.origin)))
        name = f"{one_line(str(dataset), 60)} · {one_line(origin, 60)}"
        panels.append(_panel(name, [bar, *_labels()], data, height))
    return Figure(title, tuple(panels), STAGE_COLOURS)


def _stacked(rows: pd.DataFrame, absolute: bool) -> tuple[pd.DataFrame, int]:
    found: list[dict[str, Any]] = []
    place = 0
    for series, part in rows.groupby("series", sort=False):
        found.append({"row": place, "label": one_line(str(series), 80), "head": True})
        for cuts, members in part.groupby("cuts", sort=True):
            place += 1
            total = members[members.stage == "total"].iloc[0]
            label = (
                f"{cuts_label(int(cuts))}: {number(total.median_seconds)} s a query (n = {total.n})"
            )
            found.append({"row": place, "label": label, "head": False})
            for order, stage in enumerate(STAGES):
                row = members[members.stage == stage].iloc[0]
                details = [
                    f"{stage}: {one_line(str(series), 80)}, {cuts_label(int(cuts))}",
                    f"{100 * row.share:.2f} % of the time, {number(row.median_seconds)} s a query",
                    f"n = {row.n}, {one_line(row.origin)}",
                ]
                length = row.median_seconds if absolute else 100 * row.share
                where = {"row": place, "stage": stage, "key": stage, "order": order}
                found.append({**where, "length": float(length), "details": details})
        place += 1
    return pd.DataFrame(found), _ROW * place


# Curves


def curves(
    title: str,
    panels: Mapping[str, pd.DataFrame],
    x: str,
    y: str,
    *,
    top: float | None = None,
    level: float | None = None,
    whole: bool = False,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Lines with points, one panel for each frame.

    Args:
        title: Of the figure.
        panels: By title, rows of `key` (the series), `x`, `y`, `details`, and where there is an
            interval `low` and `high`.
        x: What is drawn to the right, with its unit.
        y: What is drawn upwards, with its unit.
        top: Where the upright axis ends; None: above the greatest.
        level: Where to draw a line for "no change"; None: nowhere.
        whole: Whether `x` are whole numbers.
        colours: Of the series; None: a cycle.
    """
    alt = _altair()
    keys = list(dict.fromkeys(key for frame in panels.values() for key in frame.key))
    chosen = colours or {key: CYCLE[place % len(CYCLE)] for place, key in enumerate(keys)}
    drawn = []
    for name, frame in panels.items():
        ticks = alt.Axis(values=sorted(set(frame.x))) if whole else alt.Axis(labelOverlap=True)
        base = alt.Chart().encode(
            x=alt.X(
                "x:Q",
                title=x,
                axis=ticks,
                scale=alt.Scale(type="log", base=2) if whole else alt.Scale(nice=False),
            ),
            color=_colour({key: chosen[key] for key in keys}),
        )
        domain = alt.Scale(domainMin=0, domainMax=top) if top else alt.Scale(domainMin=0)
        line = base.mark_line(clip=True).encode(
            y=alt.Y("y:Q", title=y, scale=domain),
            strokeDash=alt.StrokeDash("key:N", legend=None, sort=keys),
        )
        point = base.mark_point(filled=True, size=45, opacity=1, clip=True).encode(
            y="y:Q",
            shape=alt.Shape("key:N", legend=None, sort=keys),
            tooltip=alt.Tooltip("details:N", title=None),
        )
        layers = [line, point]
        if "low" in frame:
            layers.append(
                base.mark_rule(strokeWidth=1.5, clip=True).encode(
                    y=alt.Y("low:Q", title=y), y2="high:Q"
                )
            )
        if level is not None:
            layers.append(alt.Chart().mark_rule(strokeDash=[2, 3]).encode(y=alt.datum(level)))
        drawn.append(_panel(name, layers, frame, 220))
    return Figure(title, tuple(drawn), {key: chosen[key] for key in keys})


def speed_up(title: str, rows: pd.DataFrame) -> Figure:
    """Speed-up by workers, one panel for each data set and series."""
    found = {}
    for (dataset, series), part in rows.groupby(["dataset", "series"], sort=True):
        ones = part.drop_duplicates("cuts").assign(workers=1, value=1.0, low=1.0, high=1.0)
        data = pd.concat([ones, part], ignore_index=True)
        data = data.assign(
            key=[cuts_label(cuts) for cuts in data.cuts], x=data.workers, y=data.value
        )
        data["details"] = [
            [
                f"{one_line(str(dataset))}, {one_line(str(series))}, {row.key}",
                f"{row.x} workers: {number(row.y)} times as fast",
                f"{row.spread}: {number(row.low)} to {number(row.high)}, n = {row.n}",
            ]
            for row in data.itertuples()
        ]
        columns = ["key", "x", "y", "low", "high", "details"]
        origin = ", ".join(sorted(set(part.origin)))
        found[f"{one_line(f'{dataset}, {series}', 90)} · {one_line(origin, 60)}"] = data[columns]
    colours = {cuts_label(c): CUT_COLOURS[min(c, 4)] for c in sorted(set(rows.cuts))}
    return curves(title, found, "workers", "speed-up", level=1, whole=True, colours=colours)


_SCORES = {"train_accuracy": "training samples", "test_accuracy": "test samples"}


def loss(training: Sequence[TrainingRecord]) -> Figure | None:
    """Loss by step; None where no loss is finite."""
    frame = _by_step(training, {"loss": [record.loss for record in training]})
    if frame.empty:
        return None
    panels = {"Training loss, mean over the training part": frame}
    return curves("Training loss", panels, "optimizer step", "loss")


def accuracy(training: Sequence[TrainingRecord]) -> Figure | None:
    """Training and test accuracy by step, where the records hold them; None: they do not."""
    known = {
        label: [100 * record.metrics.get(name, math.nan) for record in training]
        for name, label in _SCORES.items()
    }
    frame = _by_step(training, known)
    if frame.empty:
        return None
    return curves("Accuracy", {"Accuracy": frame}, "optimizer step", "correct (%)", top=100)


def _by_step(
    training: Sequence[TrainingRecord], values: Mapping[str, Sequence[float]]
) -> pd.DataFrame:
    places = thinned(range(len(training)))
    return pd.DataFrame(
        [
            {
                "key": label,
                "x": training[place].step,
                "y": numbers[place],
                "details": [
                    f"{label}: {number(numbers[place])}",
                    f"step {training[place].step}, epoch {training[place].epoch}",
                    f"{number(training[place].queries)} queries, {number(training[place].at)} s",
                ],
            }
            for label, numbers in values.items()
            for place in places
            if math.isfinite(numbers[place])
        ]
    )


def thinned(items: Sequence[Any]) -> list[Any]:
    """At most so many items that a browser draws them at once, the last among them.

    Example:
        >>> len(thinned(range(10_000))), thinned(range(10_000))[-1]
        (400, 9999)
    """
    if len(items) <= MOST_POINTS:
        return list(items)
    return [
        items[place] for place in np.linspace(0, len(items) - 1, MOST_POINTS).round().astype(int)
    ]


def robustness(clean: AccuracyPoint | None, found: Sequence[AccuracyCurve]) -> Figure:
    """Accuracy by magnitude of a perturbation with its 95 % interval, one panel an attack.

    Args:
        clean: The unperturbed samples, where each curve begins; None: as the curves have it.
        found: One an attack.
    """
    panels = {}
    for curve in found:
        points = [clean] if clean else []
        points += [point for point in curve.points if clean is None or point.magnitude > 0]
        name = ATTACK_NAMES.get(curve.attack, one_line(curve.attack))
        panels[f"{name}, mean {percent(curve.mean_accuracy)}"] = pd.DataFrame(
            [
                {
                    **{"key": name, "x": point.magnitude, "y": 100 * point.accuracy},
                    **{"low": 100 * point.low, "high": 100 * point.high},
                    "details": [
                        f"{name}, {number(point.magnitude)} rad: {percent(point.accuracy)} correct",
                        f"95 % interval: {percent(point.low)} to {percent(point.high)}",
                    ],
                }
                for point in points
            ]
        )
    level = None if clean is None else 100 * clean.accuracy
    x, y = "magnitude of the perturbation (rad)", "test samples correct (%)"
    return curves("Accuracy on perturbed test samples", panels, x, y, top=100, level=level)


# Tasks


def timeline(title: str, query: PlacedQuery) -> Figure:
    """The stages of one query and its tasks by worker, on the clock of the query."""
    alt = _altair()
    tasks = sorted(query.tasks, key=lambda task: (task.started is None, task.submitted))
    begun = [task for task in tasks if task.started is not None]
    shown = begun[:MOST_TASKS]
    rows = [*_stage_slices(query.record), *_task_slices(shown)]
    data = pd.DataFrame(rows)
    fragments = sorted({task.fragment for task in shown})
    colours = {f"fragment {one}": CYCLE[one % len(CYCLE)] for one in fragments}
    if query.record is not None:
        colours = {**STAGE_COLOURS, **colours}
    if any(task.injected_delay > 0 for task in shown):
        colours["injected delay"] = "#6b7280"
    if len(shown) < len(tasks):
        title += f" ({len(shown)} of {len(tasks)} tasks shown)"
    labels = list(dict.fromkeys(row["lane"] for row in rows))
    mark = (
        alt.Chart()
        .mark_bar(clip=True)
        .encode(
            y=alt.Y("lane:N", sort=labels, title=None, axis=alt.Axis(labelLimit=90, grid=False)),
            x=alt.X("begin:Q", title="time since the query began (ms)"),
            x2="end:Q",
            color=_colour(colours),
            opacity=alt.condition("datum.lost", alt.value(0.35), alt.value(1)),
            tooltip=alt.Tooltip("details:N", title=None),
        )
    )
    return Figure(title, (_panel(title, [mark], data, 22 * len(labels)),), colours)


def _stage_slices(record: QueryRecord | None) -> Iterable[dict[str, Any]]:
    end = 0.0
    for name in STAGES if record is not None else ():
        length = 1e3 * float(getattr(record, f"t_{name}"))
        details = [f"{name}: {number(length)} ms"]
        place = {"lane": "stages", "begin": end, "end": end + length}
        yield {**place, "key": name, "details": details, "lost": False}
        end += length


def _task_slices(tasks: Sequence[TaskRecord]) -> Iterable[dict[str, Any]]:
    for worker in sorted({task.worker for task in tasks}, key=natural):
        mine = [_slice(task) for task in tasks if task.worker == worker]
        for number, lane in enumerate(lanes(mine), start=1):
            label = one_line(f"worker {worker}", 24) + f" ({number})" * (number > 1)
            for begin, end, task in lane:
                for mark in _marks(begin, end, task):
                    yield {"lane": label, **mark}


def _slice(task: TaskRecord) -> tuple[int, int, TaskRecord]:
    what = f"task {task.key}"
    begin = nanoseconds(task.started or 0.0, what)
    return begin, max(begin, nanoseconds(task.finished, what)), task


def _marks(begin: int, end: int, task: TaskRecord) -> Iterable[dict[str, Any]]:
    start, stop = begin / 1e6, end / 1e6
    details = [
        one_line(f"fragment {task.fragment}, {task.status}, {task.purpose}"),
        f"{number(stop - start)} ms on worker {one_line(task.worker, 40)}",
        f"submitted at {number(1e3 * task.submitted)} ms, started at {number(start)} ms",
        f"{number(task.subexperiments)} subexperiments, attempt {task.attempt + 1}",
    ]
    if task.cause:
        details.append(one_line(task.cause))
    lost = task.status not in ("done", "late")
    key = f"fragment {task.fragment}"
    yield {"key": key, "begin": start, "end": stop, "details": details, "lost": lost}
    if task.injected_delay > 0:
        delay = 1e3 * task.injected_delay
        slept = [f"injected delay: {number(delay)} ms", *details]
        ends = {"begin": start, "end": min(stop, start + delay)}
        yield {"key": "injected delay", **ends, "details": slept, "lost": False}


# Pictures of a run


def training_figure(
    training: Sequence[TrainingRecord], queries: Sequence[QueryRecord], path: Path | str, title: str
) -> None:
    """Draws loss, accuracy and stage shares of one training run as a PNG.

    Args:
        training: The run's training records, in order; `train_accuracy` and `test_accuracy` are
            drawn where their metrics hold them.
        queries: The run's query records.
        path: The PNG to write; it appears whole or not at all.
        title: What was trained and how.

    Raises:
        MissingExtraError: Altair or vl-convert is not installed.
        RecordError: There is no query record.
    """
    alt = _altair()
    rows = stage_table(queries)
    curves_of = [figure for figure in (loss(training), accuracy(training)) if figure]
    left = alt.vconcat(
        *(figure.panels[0].properties(width=430, height=180) for figure in curves_of)
    )
    right = run_stages(rows).panels[0].properties(width=330)
    left = left.resolve_scale(color="independent", shape="independent", strokeDash="independent")
    chart = alt.hconcat(*([left] if curves_of else []), right).resolve_scale(color="independent")
    heading = alt.TitleParams(one_line(title, 120), anchor="start", fontSize=16)
    write_picture(chart.properties(title=heading), given_path(path))


def run_stages(rows: Sequence[StageRow]) -> Figure:
    """The stages of one run, a row each."""
    alt = _altair()
    data = pd.DataFrame(
        [
            {
                **{"key": row.stage, "row": place, "share": 100 * row.share},
                "head": False,
                "label": f"{row.stage}: {100 * row.share:.1f} %, {number(row.seconds)} s",
                "details": [
                    f"{row.stage}: {number(row.seconds)} s, {100 * row.share:.2f} % of the time",
                    f"median of a call: {number(row.median_seconds)} s",
                ],
            }
            for place, row in enumerate(rows)
            if row.stage != "total"
        ]
    )
    base = alt.Chart().encode(y=alt.Y("row:O", axis=None))
    bar = base.mark_bar(height=12, yOffset=8, clip=True).encode(
        x=alt.X("share:Q", title="share of T_total (%)", scale=alt.Scale(domain=[0, 100])),
        color=_colour(STAGE_COLOURS, legend=False),
        tooltip=alt.Tooltip("details:N", title=None),
    )
    title = f"Estimator time by stage, {number(rows[-1].seconds)} s in all"
    panel = _panel(title, [bar, *_labels()], data, _ROW * len(data))
    return Figure("Estimator time by stage", (panel,), STAGE_COLOURS)


def robustness_figure(
    clean: AccuracyPoint, found: Sequence[AccuracyCurve], path: Path | str, title: str
) -> None:
    """Draws accuracy over magnitude with its 95 % interval as a PNG, one panel an attack.

    Args:
        clean: The unperturbed samples; where each curve begins, and the level it falls from.
        found: One an attack.
        path: The PNG to write; it appears whole or not at all.
        title: What was attacked.

    Raises:
        MissingExtraError: Altair or vl-convert is not installed.
        InputError: There is no curve.
    """
    if not found:
        raise InputError("`found` is empty: give one curve an attack")
    figure = robustness(clean, found)
    drawn = Figure(one_line(title, 120), figure.panels, figure.colours)
    write_picture(picture(drawn), given_path(path))
