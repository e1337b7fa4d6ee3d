"""Charts of runs and studies: one definition each for PNG, SVG and the interactive page.

A figure is a list of panels, which are Vega-Lite documents without a width: a picture sets them
side by side, a page gives each the width of its column. A panel is a list of rows and the layers
that draw them; there are four kinds: bars, stages, curves and timelines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..checks import require
from ..errors import InputError, MissingExtraError
from ..records import QueryRecord, TaskRecord, TrainingRecord, atomic, given_path, plain
from ..views import counted, duration
from .accuracy import ATTACK_NAMES, AccuracyCurve, AccuracyPoint, percent
from .escape import between, cuts_label, natural, number, one_line, with_unit
from .load import STAGES, StageRow, stage_table
from .trace import PlacedQuery, lanes, nanoseconds

try:
    import pandas as pd
except ImportError as error:
    raise MissingExtraError("pandas", "report", "a report") from error

ItemT = TypeVar("ItemT")
Panel = dict[str, Any]
Layer = dict[str, Any]
Row = dict[str, Any]

CUT_COLOURS = ("#1b4f9c", "#f5a623", "#3da35d", "#c8372d", "#6b7280")
"""The paper's colours by cuts, at lightnesses that stay apart in grey; the last for more than 3."""
# Okabe and Ito's palette: its colours stay apart under every common colour blindness.
STAGE_COLOURS = dict(zip(STAGES, ("#cc79a7", "#009e73", "#0072b2", "#e69f00"), strict=True))
CYCLE = ("#0072b2", "#e69f00", "#009e73", "#c8372d", "#cc79a7", "#6b7280")
SCORES = {"train_accuracy": "training samples", "test_accuracy": "test samples"}
"""Metrics of training records that are drawn as accuracies."""
MOST_POINTS = 400
MOST_TASKS = 300
_WIDE = 30
"""Bars whose greatest is so many times the least are drawn over a logarithmic axis."""
_ROW = 34
"""Pixels of a row: its label above, its bar below."""
_SCHEMA = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json"}
_TICKS = {
    "seconds": "datum.value > 86400 ? format(datum.value / 86400, ',.3~r') + ' days' : "
    "datum.value == 86400 ? '1 day' : "
    "datum.value >= 3600 ? format(datum.value / 3600, '.3~r') + ' h' : "
    "datum.value >= 60 ? format(datum.value / 60, '.3~r') + ' min' : "
    "datum.value >= 1 || datum.value == 0 ? format(datum.value, '.3~r') + ' s' : "
    "datum.value >= 0.001 ? format(1000 * datum.value, '.3~r') + ' ms' : "
    "format(1000000 * datum.value, '.3~r') + ' µs'",
    "times": "format(datum.value, '.3~r') + '×'",
    **dict.fromkeys(("share", "accuracy"), "format(100 * datum.value, '.3~r') + ' %'"),
    "points": "format(100 * datum.value, '.3~r')",
    "number": "format(datum.value, ',.3~r')",
}
"""How an axis writes numbers of each of `UNITS`, as Vega expressions."""
_TIMES = (60, 600, 3600, *(86_400 * 10**power for power in range(7)))
"""Where an axis by powers of ten has ticks above 10 s."""
_AT_ROW = {"y": {"field": "row", "type": "ordinal", "axis": None}}
_TOOLTIP = {"tooltip": {"field": "details", "type": "nominal", "title": None}}
_NO_LEGEND = {"field": "key", "type": "nominal", "legend": None}
_DASHED = [2, 3]
_CHANNELS = ("color", "stroke", "shape", "strokeDash", "x", "y")
_INDEPENDENT = {"resolve": {"scale": dict.fromkeys(_CHANNELS, "independent")}}
"""Panels that share no scale."""
_CONFIG: dict[str, Any] = {
    "background": "white",
    "view": {"stroke": None},
    "axis": {"gridOpacity": 0.6, "titleFontWeight": "normal"},
    "title": {"anchor": "start", "fontSize": 13},
    "legend": {"orient": "top"},
}


@dataclass(frozen=True)
class Figure:
    """One figure: panels, and the colours of series that can be hidden.

    Bars of a logarithmic one are drawn over powers of ten.
    """

    title: str
    panels: tuple[Panel, ...]
    colours: Mapping[str, str]
    logarithmic: bool = False


# Pictures and specifications


def require_charts() -> Any:
    """What draws charts; raises MissingExtraError, with the install command, if it is missing."""
    return require("vl_convert", "report", "a chart", "vl-convert-python")


def _panel(title: str, rows: Sequence[Row], height: int, layers: Sequence[Layer]) -> Panel:
    """A chart: rows, and the layers that draw them."""
    data = {"values": plain(rows)}
    return {"title": one_line(title, 120), "height": height, "data": data, "layer": list(layers)}


def _layer(
    mark: str, encoding: Mapping[str, Any], only: str | None = None, /, **style: Any
) -> Layer:
    """Marks of one kind, for the rows that the Vega expression `only` chooses; None: for all."""
    chosen = {} if only is None else {"transform": [{"filter": only}]}
    return {"mark": {"type": mark, **style}, **chosen, "encoding": dict(encoding)}


def _field(name: str, title: str | list[str] | None = "", /, **more: Any) -> Layer:
    """A channel that shows numbers; without a title by default, as another layer has it."""
    titled = {} if title == "" else {"title": title}
    return {"field": name, "type": "quantitative", **titled, **more}


def _ticks(unit: str) -> Layer:
    return {"labelExpr": _TICKS[unit], "labelOverlap": True, "labelSeparation": 6}


def _key(colours: Mapping[str, str], **more: Any) -> Layer:
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": "key", "type": "nominal", "scale": scale, **more}


def picture(figure: Figure) -> Panel:
    """The panels of a figure side by side, under its title."""
    columns = 2 if len(figure.panels) > 1 else 1
    panels = [{**panel, "width": 430 if columns == 2 else 640} for panel in figure.panels]
    title = {"text": figure.title, "anchor": "start", "fontSize": 16}
    return {"concat": panels, "columns": columns, "title": title, **_INDEPENDENT}


def picture_of_all(figures: Sequence[Figure]) -> Panel:
    """Several figures one below the other."""
    pictures = [picture(figure) for figure in figures]
    return {"vconcat": pictures, "spacing": 40, **_INDEPENDENT}


def write_picture(chart: Panel, *paths: Path) -> None:
    """Writes a chart as PNG or SVG, by the ending of each path, whole or not at all."""
    vl_convert = require_charts()
    specification = {**_SCHEMA, **chart, "config": _CONFIG}
    for path in paths:
        with atomic(path, durable=False) as unfinished:
            if path.suffix.lower() == ".svg":
                text = _renumbered(vl_convert.vegalite_to_svg(specification))
                unfinished.write_text(text + "\n", "utf-8", newline="\n")
            else:
                unfinished.write_bytes(vl_convert.vegalite_to_png(specification, scale=2))


def _renumbered(svg: str) -> str:
    """The same with clip paths numbered from 0, as Vega counts on from picture to picture."""
    numbers: dict[str, int] = {}
    return re.sub(
        r"\bclip(\d+)\b", lambda found: f"clip{numbers.setdefault(found[1], len(numbers))}", svg
    )


def page_specification(panel: Panel) -> Panel:
    """A panel as a page draws it: as wide as its place, its title and legend left to the page.

    It has the parameter `hidden`, a list of series that are left out, and the interval `zoom`,
    which is bound to the horizontal axis.
    """
    zoom = {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"}
    first, *others = panel["layer"]
    first = {**first, "params": [{"name": "zoom", "select": zoom, "bind": "scales"}]}
    return {
        **_SCHEMA,
        **{name: part for name, part in panel.items() if name != "title"},
        "width": "container",
        "layer": [first, *others],
        "params": [{"name": "hidden", "value": []}],
        "transform": [{"filter": "indexof(hidden, datum.key) < 0"}],
        "config": {**_CONFIG, "background": None, "legend": {"disable": True}},
        "autosize": {"type": "fit-x", "contains": "padding"},
    }


def _name(text: str, part: pd.DataFrame, most: int = 60) -> str:
    """A panel's heading: what it shows and where its numbers come from."""
    return f"{one_line(text, most)} · {one_line(', '.join(sorted(set(part.origin))), 60)}"


def _colours_of(rows: pd.DataFrame) -> dict[str, str]:
    return {cuts_label(cuts): CUT_COLOURS[min(cuts, 4)] for cuts in sorted(set(rows.cuts))}


# Bars


_BAR: dict[str, Any] = {"height": 12, "yOffset": 8, "clip": True}
_SPREAD = _layer(
    "rule",
    {"x": _field("low"), "x2": {"field": "high"}, **_TOOLTIP, **_AT_ROW},
    "datum.has_spread",
    **{"strokeWidth": 1.5, "yOffset": 8, "y2Offset": 8, "clip": True},
)
_BOUND = _layer(
    "tick",
    {"x": _field("bound"), **_TOOLTIP, **_AT_ROW},
    "isValid(datum.bound)",
    **{"thickness": 3, "height": 18, "yOffset": 8, "clip": True, "color": "black"},
)
_LABELS = [
    _layer(
        "text",
        {"text": {"field": "label", "type": "nominal"}, "x": {"value": 0}, **_AT_ROW},
        f"isValid(datum.label) && {'' if head else '!'}datum.head",
        **{"align": "left", "baseline": "middle", "dy": 6 if head else -6},
        fontWeight="bold" if head else "normal",
    )
    for head in (True, False)
]


@dataclass(frozen=True)
class Measure:
    """What the length of bars is, its unit (one of `UNITS`), and what bars and lines stand for.

    `level` is where "no change" is marked; `points` are drawn instead where 0 is far off.
    """

    quantity: str
    unit: str
    drawn: str
    level: float | None = None
    points: bool = False


def bars(
    title: str, rows: pd.DataFrame, measure: Measure, colours: Mapping[str, str] | None = None
) -> Figure:
    """Bars, or points with intervals, with a panel for each data set over the same axis.

    Bars that are wide apart stand over a logarithmic axis, which says where it begins.

    Args:
        title: Of the figure.
        rows: `dataset`, `series`, `cuts`, `value`, `low`, `high`, `n`, `origin`, and if known
            `spread`, `basis` (what is not "measured" is drawn hollow), `queries`, `bound`.
        measure: What the numbers are.
        colours: By the column `key` of the rows; None: the colours of cuts.
    """
    if colours is None:
        rows, colours = rows.assign(key=rows.cuts.map(cuts_label)), _colours_of(rows)
    wide = (rows.value > 0).all() and rows.value.max() / rows.value.min() > _WIDE
    axis = _axis(rows, measure, logarithmic=bool(wide) and not measure.points)
    panels = []
    for dataset, part in rows.groupby("dataset", sort=True):
        data = list(_bar_rows(part, measure))
        layers = [_value_layer(axis, colours, measure.points)]
        if any(row.get("has_spread") for row in data):
            layers.insert(0 if measure.points else 1, _SPREAD)
        if any(pd.notna(row.get("bound")) for row in data):
            layers.append(_BOUND)
        layers += _LABELS
        if measure.level is not None:  # beside each bar, so that no label is struck through
            at = {"x": {"datum": measure.level}, **_AT_ROW}
            style = {"thickness": 1.5, "height": 14, "yOffset": 8, "clip": True, "color": "black"}
            layers.append(_layer("tick", at, "isValid(datum.value)", **style))
        panels.append(_panel(_name(str(dataset), part), data, _ROW * len(data), layers))
    return Figure(title, tuple(panels), colours, axis["scale"].get("type") == "log")


def _axis(rows: pd.DataFrame, measure: Measure, logarithmic: bool) -> Layer:
    """The horizontal channel of bars, the same for all panels."""
    ends = pd.concat([rows.value, rows.low, rows.high, pd.Series([measure.level], dtype=float)])
    ends = ends.dropna()
    quantity, ticks, high = measure.quantity, _ticks(measure.unit), float(ends.max()) or 1.0
    scale: dict[str, Any] = {"domain": [min(0.0, ends.min()), high]}
    if measure.points:
        margin = 0.1 * max(high - ends.min(), 0.01)
        scale = {"domain": [ends.min() - margin, high + margin], "nice": False, "zero": False}
    elif logarithmic:  # a bar needs a foot, and a logarithmic axis has none
        base = 10.0 ** math.floor(math.log10(ends[ends > 0].min()) - 0.3)
        scale = {"type": "log", "domain": [base, 1.2 * high], "nice": False}
        quantity += f", logarithmic axis from {with_unit(base, measure.unit)}"
        powers = [base * 10**power for power in range(math.ceil(math.log10(high / base)) + 1)]
        if measure.unit == "seconds":
            powers = [*(one for one in powers if one < 60), *_TIMES]
        ticks |= {"values": [one for one in powers if one <= 1.2 * high]}
    return _field("value", [quantity, measure.drawn], axis=ticks, scale=scale)


def _value_layer(axis: Layer, colours: Mapping[str, str], points: bool) -> Layer:
    colour, scale = _key(colours, title=None, legend=None), axis["scale"]
    encoding = {"x": axis, "color": colour, **_TOOLTIP, **_AT_ROW}
    if points:
        style = {"filled": True, "opacity": 1, "size": 70, "yOffset": 8, "clip": True}
        return _layer("point", encoding | {"shape": _NO_LEGEND}, "isValid(datum.value)", **style)
    guessed = "datum.basis != 'measured'"
    encoding |= {
        "x2": {"datum": scale["domain"][0] if scale.get("type") == "log" else 0.0},
        "stroke": _key(colours, legend=None),
        "fillOpacity": {"condition": {"test": guessed, "value": 0.15}, "value": 1},
        "strokeDash": {"condition": {"test": guessed, "value": [4, 3]}, "value": [1, 0]},
    }
    return _layer("bar", encoding, "isValid(datum.value)", **_BAR, strokeWidth=2)


def _bar_rows(rows: pd.DataFrame, measure: Measure) -> Iterator[Row]:
    """A row for each bar behind one for the head of its series."""
    places = count()
    for series, part in rows.groupby("series", sort=False):
        name = one_line(str(series), 80)
        yield {"row": next(places), "label": name, "head": True}
        for row in part.to_dict("records"):
            yield {"row": next(places), "head": False, **_bar_row(name, row, measure)}


def _bar_row(name: str, row: Mapping[str, Any], measure: Measure) -> Row:
    basis, n, bound = row.get("basis", "measured"), row["n"], row.get("bound", math.nan)
    number_of = row["queries"] if basis == "extrapolated" else n
    if basis == "extrapolated":
        basis += f" from {number(number_of)} {'query' if number_of == 1 else 'queries'}"
    spread, value = row["spread"], with_unit(row["value"], measure.unit)
    has_spread = bool(number_of > 1 and row["high"] > row["low"])
    ends = f"{spread} {between(row['low'], row['high'], measure.unit)}" if has_spread else spread
    how_many = {"exact": ""}.get(spread, f" (n = {n})" if n > 1 else " (n = 1, no spread known)")
    label = [f"{row['key']}: {value}", *([] if basis == "measured" else [basis])]
    details = [f"{name}, {row['key']}, {cuts_label(int(row['cuts']))}"]
    details += [f"{measure.quantity}: {value}", ends, f"n = {n}, {basis}, {row['origin']}"]
    if measure.points and n > 1:
        label.append(ends.replace(" interval", ":"))  # short, for narrow pages
    if pd.notna(bound):
        details.append(f"no policy can beat {with_unit(bound, measure.unit)} on average")
    return {
        **{"key": row["key"], "basis": row.get("basis", "measured"), "has_spread": has_spread},
        **{"value": row["value"], "low": row["low"], "high": row["high"], "bound": bound},
        **{"label": ", ".join(label) + how_many, "details": [one_line(line) for line in details]},
    }


def stages(title: str, rows: pd.DataFrame, *, absolute: bool) -> Figure:
    """Stages of queries as stacked bars, of shares or median seconds; a panel for each data set.

    Rows have `dataset`, `series`, `cuts`, `stage`, `n`, `median_seconds`, `share`, `origin`.
    """
    quantity = "median time of each stage of a query" if absolute else "share of the time"
    panels = [
        _stage_panel(_name(str(dataset), part), list(_stacked(part, absolute)), quantity, absolute)
        for dataset, part in rows.groupby("dataset", sort=True)
    ]
    return Figure(title, tuple(panels), STAGE_COLOURS)


def _stacked(rows: pd.DataFrame, absolute: bool) -> Iterator[Row]:
    places = count()
    for series, part in rows.groupby("series", sort=False):
        yield {"row": next(places), "label": one_line(str(series), 80), "head": True}
        for cuts, members in part.groupby("cuts", sort=True):
            place = next(places)
            by_stage = members.set_index("stage")
            total = by_stage.loc["total"]
            time = f"{duration(total.median_seconds, 2)} a query (n = {total.n})"
            yield {"row": place, "label": f"{cuts_label(int(cuts))}: {time}", "head": False}
            for order, stage in enumerate(STAGES):
                row = by_stage.loc[stage]
                details = [
                    f"{stage}: {one_line(str(series), 80)}, {cuts_label(int(cuts))}",
                    f"{percent(row.share)} of the time, {duration(row.median_seconds)} a query",
                    f"n = {row.n}, {one_line(row.origin)}",
                ]
                length = float(row.median_seconds if absolute else row.share)
                where = {"row": place, "key": stage, "order": order}
                yield {**where, "length": length, "details": details}


def run_stages(rows: Sequence[StageRow]) -> Figure:
    """The stages of one run, a row each."""
    data = [
        {
            **{"key": row.stage, "row": place, "length": row.share, "head": False},
            "label": f"{row.stage}: {percent(row.share)}, {duration(row.seconds, 2)}",
            "details": [
                f"{row.stage}: {duration(row.seconds)}, {percent(row.share)} of the time",
                f"median of a call: {duration(row.median_seconds)}",
            ],
        }
        for place, row in enumerate(rows[:-1])
    ]
    title = f"Estimator time by stage, {duration(rows[-1].seconds, 2)} in all"
    panel = _stage_panel(title, data, "share of T_total", legend=False)
    return Figure("Estimator time by stage", (panel,), STAGE_COLOURS)


def _stage_panel(
    title: str, rows: Sequence[Row], quantity: str, absolute: bool = False, legend: bool = True
) -> Panel:
    scale = {} if absolute else {"domain": [0, 1]}
    axis = _ticks("seconds" if absolute else "share")
    encoding = {
        "x": _field("length", quantity, stack="zero", scale=scale, axis=axis),
        "color": _key(STAGE_COLOURS, title=None, **({} if legend else {"legend": None})),
        "order": _field("order"),
        **_TOOLTIP,
        **_AT_ROW,
    }
    layers = [_layer("bar", encoding, "isValid(datum.key)", **_BAR), *_LABELS]
    return _panel(title, rows, _ROW * len({row["row"] for row in rows}), layers)


# Curves


def curves(
    title: str,
    panels: Mapping[str, Sequence[Row]],
    x: str,
    y: str,
    *,
    top: float | None = None,
    level: float | None = None,
    whole: bool = False,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Lines with points, one panel for each list of rows.

    Args:
        title: Of the figure.
        panels: By title, rows of `key` (the series), `x`, `y`, `details`, and where there is an
            interval `low` and `high`.
        x: What is drawn to the right, with its unit.
        y: What is drawn upwards, with its unit.
        top: Where the upright axis ends; None: above the greatest.
        level: Where to draw a line for "no change".
        whole: Whether `x` stand for whole numbers, which rows have as `whole`.
        colours: Of the series; None: a cycle.
    """
    keys = dict.fromkeys(row["key"] for rows in panels.values() for row in rows)
    chosen = {key: CYCLE[place % len(CYCLE)] for place, key in enumerate(keys)}
    colours = colours or chosen
    sort = list(colours)
    upright = {"domainMin": 0, **({} if top is None else {"domainMax": 1.03 * top})}
    shares = {} if top is None else {"axis": {"values": [share * top / 5 for share in range(6)]}}
    drawn = []
    for name, rows in panels.items():
        axis: dict[str, Any] = {"axis": {"labelOverlap": True}, "scale": {"nice": False}}
        if whole:
            ticks = sorted({row["whole"] for row in rows})
            scale = {"type": "log", "base": 2, "nice": False, "padding": 8}
            axis = {"axis": {"values": ticks}, "scale": scale}
        place = {"x": _field("x", x, **axis), "color": _key(colours, title=None)}
        line = {
            "y": _field("y", y, scale=upright, **shares),
            "strokeDash": {**_NO_LEGEND, "sort": sort},
        }
        point = {"y": _field("y"), "shape": {**_NO_LEGEND, "sort": sort}, **_TOOLTIP}
        layers = [
            _layer("line", line | place, clip=True),
            _layer("point", point | place, filled=True, size=45, opacity=1, clip=True),
        ]
        if "low" in rows[0]:
            interval = {"y": _field("low", y), "y2": {"field": "high"}}
            layers.append(_layer("rule", interval | place, strokeWidth=1.5, clip=True))
        if level is not None:
            layers.append(_layer("rule", {"y": {"datum": level}}, strokeDash=_DASHED))
        drawn.append(_panel(name, rows, 220, layers))
    return Figure(title, tuple(drawn), colours)


def speed_up(title: str, rows: pd.DataFrame) -> Figure:
    """Speed-up by workers, one panel for each data set and series."""
    found = {}
    for (dataset, series), part in rows.groupby(["dataset", "series"], sort=True):
        ones = part.drop_duplicates("cuts").assign(workers=1, value=1.0, low=1.0, high=1.0)
        found[_name(f"{dataset}, {series}", part, 90)] = [
            {
                **{"key": cuts_label(row.cuts), "y": row.value, "low": row.low, "high": row.high},
                # Beside each other, so that intervals do not hide one another.
                **{"x": row.workers * 1.05 ** (min(row.cuts, 4) - 1.5), "whole": row.workers},
                "details": [
                    f"{one_line(str(dataset))}, {one_line(str(series))}, {cuts_label(row.cuts)}",
                    f"{row.workers} workers: {number(row.value)} times as fast",
                    f"{row.spread}: {number(row.low)} to {number(row.high)}, n = {row.n}",
                ],
            }
            for row in pd.concat([ones, part]).itertuples()
        ]
    colours = _colours_of(rows)
    return curves(
        title,
        found,
        "workers (series side by side)",
        "speed-up, median and min–max",
        level=1,
        whole=True,
        colours=colours,
    )


def loss(training: Sequence[TrainingRecord]) -> Figure | None:
    """Loss by step; None where no loss is finite."""
    rows = _by_step(training, {"loss": [record.loss for record in training]})
    panels = {"Training loss, mean over the training part": rows}
    return curves("Training loss", panels, "optimizer step", "loss") if rows else None


def accuracy(training: Sequence[TrainingRecord]) -> Figure | None:
    """Training and test accuracy by step, where the records hold them; None: they do not."""
    values = {
        label: [100 * record.metrics.get(name, math.nan) for record in training]
        for name, label in SCORES.items()
    }
    rows = _by_step(training, values)
    if not rows:
        return None
    return curves("Accuracy", {"Accuracy": rows}, "optimizer step", "correct (%)", top=100)


def _by_step(
    training: Sequence[TrainingRecord], values: Mapping[str, Sequence[float]]
) -> list[Row]:
    return [
        {
            **{"key": label, "x": record.step, "y": value},
            "details": [
                f"{label}: {number(value)}",
                f"step {record.step}, epoch {record.epoch}",
                f"{number(record.queries)} queries, {duration(record.at)}",
            ],
        }
        for label, numbers in values.items()
        for record, value in thinned(list(zip(training, numbers, strict=True)))
        if math.isfinite(value)
    ]


def thinned(items: Sequence[ItemT]) -> list[ItemT]:
    """At most so many items that a browser draws them at once, the last among them.

    Example:
        >>> len(thinned(range(10_000))), thinned(range(10_000))[-1]
        (400, 9999)
    """
    places = np.linspace(0, len(items) - 1, min(len(items), MOST_POINTS))
    return [items[place] for place in places.round().astype(int)]


def robustness(clean: AccuracyPoint | None, found: Sequence[AccuracyCurve]) -> Figure:
    """Accuracy by magnitude of a perturbation with its 95 % interval, one panel an attack.

    Each curve begins at the unperturbed samples, `clean`; None: as the curves have it.
    """
    panels = {}
    for curve in found:
        points = [clean] if clean else []
        points += [point for point in curve.points if clean is None or point.magnitude > 0]
        name = ATTACK_NAMES[curve.attack]
        panels[f"{name}, mean {percent(curve.mean_accuracy)}"] = [
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
    level = None if clean is None else 100 * clean.accuracy
    x, y = "magnitude of the perturbation (rad)", "test samples correct (%)"
    return curves("Accuracy on perturbed test samples", panels, x, y, top=100, level=level)


# Tasks


def timeline(title: str, query: PlacedQuery) -> Figure:
    """The stages of one query and its tasks by worker, on the clock of the query."""
    begun = sorted(
        (task for task in query.tasks if task.started is not None), key=lambda task: task.submitted
    )
    shown = begun[:MOST_TASKS]
    rows = [*_stage_slices(query.record), *_task_slices(shown)]
    fragments = sorted({task.fragment for task in shown})
    colours = {f"fragment {one}": CYCLE[one % len(CYCLE)] for one in fragments}
    if any(task.injected_delay > 0 for task in shown):
        colours["injected delay"] = CYCLE[-1]
    if len(shown) < len(query.tasks):
        title += f" ({len(shown)} of {len(query.tasks)} tasks shown)"
    labels = list(dict.fromkeys(row["lane"] for row in rows))
    axis = {"labelLimit": 90, "grid": False}
    place = {
        "y": {"field": "lane", "type": "nominal", "sort": labels, "title": None, "axis": axis},
        "x": _field("begin", "time since the query began (ms)"),
    }
    marks = {
        **place,
        "x2": {"field": "end"},
        "opacity": {"condition": {"test": "datum.lost", "value": 0.35}, "value": 1},
        **_TOOLTIP,
    }
    # Stages in greys with their names, so that colours mean fragments alone.
    grey = {"fillOpacity": _field("grey", scale=None, legend=None)}
    layers = [
        _layer("bar", marks | grey, "isValid(datum.grey)", clip=True, color="#8b929d"),
        _layer("bar", marks | {"color": _key(colours, title=None)}, "!datum.grey", clip=True),
        _layer(
            *("text", place | {"text": {"field": "name", "type": "nominal"}}, "datum.name"),
            **{"align": "left", "dx": 4, "clip": True, "fontSize": 10},
        ),
    ]
    return Figure(title, (_panel(title, rows, 22 * len(labels), layers),), colours)


def _stage_slices(record: QueryRecord | None) -> Iterator[Row]:
    end = 0.0
    for place, stage in enumerate(STAGES):
        if record is None:
            return
        share = getattr(record, f"t_{stage}") / record.t_total
        begin, end = end, end + 1e3 * float(getattr(record, f"t_{stage}"))
        yield {
            **{"lane": "stages", "begin": begin, "end": end, "key": stage, "lost": False},
            **{"grey": 0.5 - 0.25 * (place % 2), "name": stage if share > 0.15 else None},
            "details": [f"{stage}: {number(end - begin)} ms, {percent(share)} of the query"],
        }


def _task_slices(tasks: Iterable[TaskRecord]) -> Iterator[Row]:
    by_worker: dict[str, list[tuple[int, int, TaskRecord]]] = {}
    for task in tasks:
        what = f"task {task.key}"
        begin = nanoseconds(task.started or 0.0, what)
        end = max(begin, nanoseconds(task.finished, what))
        by_worker.setdefault(task.worker, []).append((begin, end, task))
    for worker in sorted(by_worker, key=natural):
        for place, lane in enumerate(lanes(by_worker[worker]), start=1):
            label = one_line(f"worker {worker}", 24) + f" ({place})" * (place > 1)
            for begin, end, task in lane:
                yield from _marks(label, begin / 1e6, end / 1e6, task)


def _marks(lane: str, start: float, stop: float, task: TaskRecord) -> Iterator[Row]:
    details = [
        one_line(f"fragment {task.fragment}, {task.status}, {task.purpose}"),
        f"{number(stop - start)} ms on worker {one_line(task.worker, 40)}",
        f"submitted at {number(1e3 * task.submitted)} ms, started at {number(start)} ms",
        f"{number(task.subexperiments)} subexperiments, attempt {task.attempt + 1}",
        *([one_line(task.cause)] if task.cause else []),
    ]
    place = {"lane": lane, "begin": start, "end": stop, "key": f"fragment {task.fragment}"}
    yield {**place, "details": details, "lost": task.status not in ("done", "late")}
    delay = 1e3 * task.injected_delay
    if delay > 0:
        slept = {"details": [f"injected delay: {number(delay)} ms", *details], "lost": False}
        yield {**place, "end": min(stop, start + delay), "key": "injected delay", **slept}


# A picture of a plan


def front_figure(front: Sequence[Row], chosen: Row, path: Path) -> None:
    """Draws what plans cost by the width of their widest fragment, as a PNG or SVG.

    Args:
        front: Plans from the narrowest to the widest, each of a lower price than all before it:
            `width`, `price`, `num_cuts`, `circuits`.
        chosen: The same of the plan that the search has chosen, which need not be among them.
        path: The file to write; it appears whole or not at all.
    """
    rows = [
        {**row, "key": "chosen" if row is chosen else "other widths"}
        | {"label": f"{cuts_label(row['num_cuts'])}, {counted(row['circuits'], 'circuit')}"}
        for row in (*(row for row in front if row != chosen), chosen)
    ]
    widths = sorted({row["width"] for row in rows})
    across = {"scale": {"zero": False, "padding": 120}, "axis": {"values": widths, "format": "d"}}
    upright = {
        "scale": {"type": "log", "padding": 30, "nice": False},
        "axis": {"format": "~s", "grid": False},
    }
    place = {
        "x": _field("width", "qubits of the widest fragment", **across),
        "y": _field("price", "price in shots", **upright),
    }
    colours = {"chosen": CYCLE[3], "other widths": CYCLE[0]}
    layers = [
        _layer("line", place, interpolate="step-after", color=CYCLE[-1], strokeDash=_DASHED),
        _layer(
            "point", place | {"color": _key(colours, title=None)}, filled=True, size=80, opacity=1
        ),
        # Slanted, as points of nearly the same price would have their labels on each other.
        _layer("text", place | {"text": {"field": "label"}}, align="left", angle=-25, dx=9, dy=-4),
    ]
    title = "What narrower fragments cost"
    write_picture(picture(Figure(title, (_panel("", rows, 260, layers),), colours)), path)


# Pictures of a run


def training_figure(
    training: Sequence[TrainingRecord], queries: Sequence[QueryRecord], path: Path | str, title: str
) -> None:
    """Draws loss, accuracy (where metrics hold it) and stage shares of a training run as a PNG.

    Raises:
        MissingExtraError: vl-convert is not installed.
        RecordError: There is no query record.
    """
    require_charts()
    left = {
        "vconcat": [
            {**figure.panels[0], "width": 430, "height": 180}
            for figure in (loss(training), accuracy(training))
            if figure
        ],
        **_INDEPENDENT,
    }
    right = {**run_stages(stage_table(queries)).panels[0], "width": 330}
    heading = {"text": one_line(title, 120), "anchor": "start", "fontSize": 16}
    columns = [left, right] if left["vconcat"] else [right]
    chart = {"hconcat": columns, "title": heading, **_INDEPENDENT}
    write_picture(chart, given_path(path))


def robustness_figure(
    clean: AccuracyPoint, found: Sequence[AccuracyCurve], path: Path | str, title: str
) -> None:
    """Draws accuracy over magnitude with its 95 % interval as a PNG, one panel an attack.

    Raises:
        MissingExtraError: vl-convert is not installed.
        InputError: There is no curve.
    """
    if not found:
        raise InputError("`found` is empty: give one curve an attack")
    figure = robustness(clean, found)
    drawn = Figure(one_line(title, 120), figure.panels, figure.colours)
    write_picture(picture(drawn), given_path(path))
