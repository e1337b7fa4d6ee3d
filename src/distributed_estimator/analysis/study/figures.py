"""Figures of a study as PNG and SVG; drawn from the same numbers, they have the same bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...records import atomic
from ..escape import figure_text
from ..figures import GREY, INK, STAGE_COLOURS, TITLE, new_figure, save, tidy
from ..tables import STAGES
from .groups import grouped, told_cuts
from .rows import MEASURED, Bar, Chart, Sheet, StageShareRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CUT_COLOURS = {0: "#1B4F9C", 1: "#F5A623", 2: "#3DA35D", 3: "#C8372D"}
"""The paper's colours, at lightnesses that stay apart in grey: blue, orange, green and red."""
CUT_HATCHES = {0: "", 1: "//", 2: "..", 3: "xx"}
STAGE_HATCHES = {"partition": "..", "generate": "//", "execute": "", "reconstruct": "xx"}
_LOG_BEYOND = 30
_MOST_BARS = 7
_WIDTH = 10.0
_SMALL: dict[str, Any] = {"fontsize": 7.5, "color": INK}


def draw_chart(chart: Chart, png: Path, svg: Path) -> None:
    """Draws a chart, one panel a data set, clusters by series and colours by cuts.

    Args:
        chart: What to draw; it has a bar.
        png: Where to; both files appear whole or not at all.
        svg: See `png`.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
    """
    panels = grouped(chart.bars, lambda bar: bar.dataset)
    with _style(chart.name):
        figure, places = _panels([len(bars) for bars in panels.values()])
        draw = _draw_points if chart.points else _draw_bars
        for axes, (name, bars) in zip(places, panels.items(), strict=True):
            draw(axes, bars, _is_wide(chart.bars))
            axes.set_title(_with_origin(name, bars), **TITLE)
            axes.set_ylabel(chart.quantity)
            if chart.level is not None:
                axes.axhline(chart.level, color=INK, linewidth=1, linestyle=":")
        _legend(figure, chart.bars)
        _finish(figure, chart.title, (*chart.notes, _told_spread(chart.bars)), png, svg)


def draw_stages(sheet: Sheet, png: Path, svg: Path, *, absolute: bool) -> None:
    """Draws stages as stacked bars, one panel a data set, a bar for each series and cuts.

    Args:
        sheet: Rows of `StageShareRow`, at least one.
        png: Where to; both files appear whole or not at all.
        svg: See `png`.
        absolute: Whether to draw median seconds instead of shares.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
    """
    rows: tuple[StageShareRow, ...] = sheet.rows
    panels = grouped(rows, lambda row: row.dataset)
    with _style(sheet.name):
        figure, places = _panels([_MOST_BARS + 1] * len(panels))
        for axes, (name, members) in zip(places, panels.items(), strict=True):
            _draw_stack(axes, members, absolute)
            axes.set_title(_with_origin(name, members), **TITLE)
            axes.set_xlabel(
                "median seconds of each stage of a query" if absolute else "share of the time (%)"
            )
        _stage_legend(figure)
        _finish(figure, sheet.title, sheet.notes, png, svg)


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Names are no mathematics, and an SVG's ids are those of the last drawing."""
    new_figure()  # says what to install where there is no Matplotlib
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "svg.hashsalt": salt, "hatch.linewidth": 0.7}):
        yield


def _panels(bars: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """Panels beside each other, or where their bars are many, one above the other."""
    figure = new_figure()
    columns = min(2, len(bars)) if max(bars) <= _MOST_BARS else 1
    rows = math.ceil(len(bars) / columns)
    figure.set_size_inches(_WIDTH, 1.5 + 3.2 * rows)
    figure.set_layout_engine("constrained", h_pad=0.08)
    places = [axes for line in figure.subplots(rows, columns, squeeze=False) for axes in line]
    for axes in places[len(bars) :]:
        axes.set_visible(False)
    return figure, places[: len(bars)]


def _draw_bars(axes: Axes, bars: Sequence[Bar], wide: bool) -> None:
    _scale(axes, bars, wide)
    places = _places(bars)
    for place, bar in zip(places, bars, strict=True):
        axes.bar(place, bar.value, width=0.86, **_look(bar))
        _whisker(axes, place, bar)
        if bar.bound is not None:
            axes.plot([place - 0.43, place + 0.43], [bar.bound] * 2, color="black", linewidth=2.2)
        _label(axes, place, _top(bar), bar)
    _clusters(axes, bars, places)
    tidy(axes)
    axes.grid(visible=False, axis="x")


def _draw_points(axes: Axes, bars: Sequence[Bar], wide: bool) -> None:
    places = _places(bars)
    for place, bar in zip(places, bars, strict=True):
        colour = _colour(bar.cuts)
        axes.plot(place, bar.value, "osD^v"[bar.cuts % 5], color=colour, markersize=8)
        _whisker(axes, place, bar)
        _label(axes, place, _top(bar), bar)
    _clusters(axes, bars, places)
    axes.margins(y=0.2)
    tidy(axes)
    axes.grid(visible=False, axis="x")


def _is_wide(bars: Sequence[Bar]) -> bool:
    """Whether the least of some bars would not be seen beside the greatest."""
    values = [bar.value for bar in bars]
    return min(values) > 0 and max(values) / min(values) > _LOG_BEYOND


def _top(bar: Bar) -> float:
    return bar.value if math.isnan(bar.high) else max(bar.value, bar.high)


def _scale(axes: Axes, bars: Sequence[Bar], wide: bool) -> None:
    """From 0, or where bars are wide apart by powers of ten; with room for labels above."""
    top = max(_top(bar) for bar in bars)
    if not wide:
        axes.set_ylim(0, 1.25 * top if top > 0 else 1)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: _number(value))
    axes.yaxis.set_minor_formatter("")
    least = min(end for bar in bars for end in (bar.value, bar.low) if end > 0)
    floor = math.floor(math.log10(least) - 0.3)
    axes.set_ylim(10.0**floor, top * 10 ** (0.3 * (math.log10(top) - floor)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _places(bars: Sequence[Bar]) -> list[float]:
    """Bars side by side, with a gap between clusters."""
    order = sorted({bar.series for bar in bars})
    return [number + 0.9 * order.index(bar.series) for number, bar in enumerate(bars)]


def _look(bar: Bar) -> dict[str, Any]:
    colour, hatch = _colour(bar.cuts), CUT_HATCHES.get(bar.cuts, "\\\\")
    if bar.basis == MEASURED:
        return {"facecolor": colour, "edgecolor": "white", "hatch": hatch, "linewidth": 0}
    look = {"facecolor": "white", "edgecolor": colour, "hatch": hatch}
    return {**look, "linewidth": 1.6, "linestyle": "--"}


def _colour(cuts: int) -> str:
    return CUT_COLOURS.get(cuts, GREY)


def _whisker(axes: Axes, place: float, bar: Bar) -> None:
    if bar.has_spread and bar.high > bar.low:
        ends = [[max(0.0, bar.value - bar.low)], [max(0.0, bar.high - bar.value)]]
        axes.errorbar(place, bar.value, yerr=ends, color=INK, linewidth=1.1, capsize=3)


def _label(axes: Axes, place: float, top: float, bar: Bar) -> None:
    told = f"{_number(bar.value)}\nn={bar.n}"
    if bar.basis != MEASURED:
        told += f"\nextrapolated\nfrom {bar.queries} q."
    axes.annotate(
        told,
        (place, top),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        **_SMALL,
    )


def _clusters(axes: Axes, bars: Sequence[Bar], places: Sequence[float]) -> None:
    """One tick a series, under the middle of its bars."""
    clusters = grouped(zip(places, bars, strict=True), lambda item: item[1].series)
    middles = [sum(place for place, _ in items) / len(items) for items in clusters.values()]
    width = max(12, 90 // (len(clusters) * (1 if len(bars) > _MOST_BARS else 2)))
    names = [textwrap.fill(name, width) for name in _short_names(list(clusters))]
    axes.set_xticks(middles, names, fontsize=8.5)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(places[0] - 0.9, places[-1] + 0.9)


def _short_names(names: Sequence[str]) -> list[str]:
    """Series without what all of them begin with; an equation stays on one line."""
    common = names[0].split(", ")[0] + ", "
    start = len(common) if all(name.startswith(common) for name in names) else 0
    return [figure_text(name[start:], 80).replace(" = ", "\u00a0=\u00a0") for name in names]


def _draw_stack(axes: Axes, rows: Sequence[StageShareRow], absolute: bool) -> None:
    groups = grouped(rows, lambda row: (row.series, row.cuts))
    for place, members in enumerate(groups.values()):
        stages = {row.stage: row for row in members}
        left, total = 0.0, stages["total"]
        for stage, _ in STAGES:
            row = stages[stage]
            length = row.median_seconds if absolute else 100 * row.share
            look: dict[str, Any] = {"color": STAGE_COLOURS[stage], "hatch": STAGE_HATCHES[stage]}
            axes.barh(place, length, left=left, height=0.7, edgecolor="white", linewidth=0, **look)
            left += length
        told = f"  {_number(total.median_seconds)} s a query, n={total.n}"
        axes.text(left, place, told, va="center", **_SMALL)
    names = [f"{figure_text(series, 40)}, {told_cuts(cuts)}" for series, cuts in groups]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * axes.dataLim.x1 if absolute else 130)
    if not absolute:
        axes.set_xticks([0, 20, 40, 60, 80, 100])
    tidy(axes)
    axes.grid(visible=False, axis="y")


def _with_origin(name: str, rows: Sequence[Bar | StageShareRow]) -> str:
    origins = ", ".join(sorted({row.origin for row in rows}))
    return f"{figure_text(name)}  ·  {figure_text(origins, 60)}"


def _told_spread(bars: Sequence[Bar]) -> str:
    kinds = sorted({bar.spread for bar in bars if bar.has_spread})
    if not kinds:
        return "No whiskers: there is one number a bar."
    return f"Whiskers: {'; '.join(kinds)}."


def _legend(figure: Figure, bars: Sequence[Bar]) -> None:
    from matplotlib.patches import Patch

    cuts = sorted({bar.cuts for bar in bars})
    handles = [
        Patch(
            facecolor=_colour(number),
            edgecolor="white",
            hatch=CUT_HATCHES.get(number, "\\\\"),
            label=told_cuts(number),
        )
        for number in cuts
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)


def _stage_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=STAGE_COLOURS[stage], edgecolor="white", hatch=hatch, label=stage)
        for stage, hatch in STAGE_HATCHES.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)


def _finish(figure: Figure, title: str, notes: Sequence[str], png: Path, svg: Path) -> None:
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    lines = textwrap.fill(" ".join(notes), 150)
    figure.supxlabel(lines, fontsize=8, color=INK, x=0.01, ha="left")
    save(figure, png)
    figure.set_layout_engine("none")  # it is laid out
    with atomic(svg, durable=False) as unfinished:
        figure.savefig(unfinished, format="svg", metadata={"Date": None})
