"""Draw a benchmark: `python -m benchmarks.figure query.json figure.png`.

query: one line per way to ask one query of 4 qubits, against the number of cuts. shots: shots
against the precision, and variance × shots against the number of cuts. fragment: seconds a value
against the width, on one and two threads. wide: time and memory of whole and cut circuits against
the width. peers: circuits, seconds and variance × shots of each package. search: seconds and
circuits of every plan against the width. Axes are logarithmic.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Colour-blind safe (Okabe and Ito), and a marker each.
_LOOKS = (
    ("#D55E00", "o"),
    ("#E69F00", "s"),
    ("#999999", "^"),
    ("#56B4E9", "D"),
    ("#0072B2", "v"),
    ("#009E73", "P"),
)

# Of `shots`: a colour, a marker and a style each, in the legend's order.
_CONTESTANTS = {
    "Π γ²": ("#999999", "", ":"),
    "qiskit-addon-cutting": ("#D55E00", "o", "-"),
    "QCut": ("#E69F00", "s", "-"),
    "ours, uniform": ("#56B4E9", "^", "-"),
    "ours, neyman": ("#0072B2", "D", "-"),
    "ours, optimal": ("#009E73", "P", "-"),
    "oracle": ("black", "", "--"),
    "not cut": ("black", "", ":"),
}
_DRAWN = ("QNN, 3 cuts", "weak, 3 cut RZZ(0.3)")


def main() -> None:
    """Read a JSON document of one of these benchmarks and write a PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    document = json.loads(arguments.document.read_text())
    draws: dict[str, Callable[[dict[str, Any]], Figure]] = {
        "query": lambda of: draw(of["rows"]),
        "fragment": lambda of: draw_fragments(of["rows"]),
        "shots": draw_shots,
        "wide": draw_wide,
        "peers": draw_peers,
        "search": draw_search,
    }
    figure = draws[document["benchmark"]](document)
    figure.savefig(arguments.picture, dpi=150)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """The figure from the rows of the document."""
    times = _times(rows)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    lines = [(name, points) for name, points in times.items() if len(points) > 1]
    lines.sort(key=lambda line: -line[1][max(line[1])])
    for (name, points), (colour, marker) in zip(lines, _LOOKS, strict=False):
        cuts = sorted(points)
        axes.plot(cuts, [points[c] for c in cuts], color=colour, marker=marker, label=name)
    for name, points in times.items():
        if len(points) == 1:
            axes.axhline(*points.values(), color="black", linestyle=":", linewidth=1, label=name)
    axes.set_yscale("log")
    axes.set_xticks(range(4))
    axes.set_xlabel("cuts")
    axes.set_ylabel("seconds a query")
    axes.set_title("One query: 4 qubits, ZFeatureMap + RealAmplitudes, Z⊗Z⊗Z⊗Z", loc="left")
    _plain(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return figure


def _times(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Seconds by contestant and number of cuts, for one query of 4 qubits."""
    times: dict[str, dict[int, float]] = {}
    for row in rows:
        case = row["case"]
        if case.get("qubits") != 4 or case.get("queries") != 1:
            continue
        for name, seconds in (
            (row["name"], row["seconds"]),
            (row["counterpart"], row["counterpart_seconds"]),
        ):
            if "plan built" in name:
                continue
            times.setdefault(name, {})[case["cuts"]] = seconds
    return {
        name: {0: points[0]} if name.startswith("not cut") else points
        for name, points in times.items()
    }


def draw_fragments(rows: list[dict[str, Any]]) -> Figure:
    """Seconds a value by width, for each number of threads, from rows of `benchmarks.fragment`."""
    times: dict[int, dict[str, dict[int, float]]] = {}
    for row in rows:
        case = row["case"]
        lines = times.setdefault(case["threads"], {})
        ours = row["name"], row["seconds"]
        for name, seconds in (ours, (row["counterpart"], row["counterpart_seconds"])):
            lines.setdefault(name, {})[case["qubits"]] = seconds / case["queries"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(times), sharey=True, squeeze=False)[0]
    for axes, (threads, lines) in zip(panels, sorted(times.items()), strict=True):
        for (name, points), (colour, marker) in zip(sorted(lines.items()), _LOOKS, strict=False):
            widths = sorted(points)
            seconds = [points[width] for width in widths]
            axes.plot(widths, seconds, color=colour, marker=marker, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("qubits")
        axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}", loc="left", fontsize=10)
        _plain(axes)
    panels[0].set_ylabel("seconds a value")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def draw_wide(document: dict[str, Any]) -> Figure:
    """Seconds and memory by width, from a document of `benchmarks.wide`."""
    seconds: dict[str, dict[int, float]] = {}
    memory: dict[str, dict[int, float]] = {}
    for row in document["rows"]:
        for of in ("name", "seconds"), ("counterpart", "counterpart_seconds"):
            name, value = (row[key] for key in of)
            seconds.setdefault(name, {})[row["case"]["qubits"]] = value
    for entry in document["figures"]:
        name, _, what = entry["name"].partition(": ")
        if what == "memory" and entry["value"] > 0:
            memory.setdefault(name, {})[entry["case"]["qubits"]] = entry["value"] / 2**20
    looks = dict(zip(seconds, _LOOKS, strict=False))
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, lines, what in zip(
        figure.subplots(1, 2), (seconds, memory), ("seconds a value", "MiB"), strict=True
    ):
        for name, points in lines.items():
            widths, (colour, marker) = sorted(points), looks[name]
            values = [points[width] for width in widths]
            axes.plot(widths, values, color=colour, marker=marker, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("qubits")
        axes.set_ylabel(what)
        _plain(axes)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_peers(document: dict[str, Any]) -> Figure:
    """Three panels from a document of `benchmarks.peers`, a column of points for each query."""
    costs = document["costs"]
    queries = list(dict.fromkeys(cost["circuit"] for cost in costs))
    names = list(dict.fromkeys(cost["contestant"] for cost in costs))
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = {"circuits": "circuits", "seconds": "seconds a value", "price": "variance × shots"}
    for axes, (what, label) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name, (colour, marker) in zip(names, _LOOKS, strict=False):
            own = [cost for cost in costs if cost["contestant"] == name]
            shift = 0.1 * (names.index(name) - (len(names) - 1) / 2)
            xs = [queries.index(cost["circuit"]) + shift for cost in own]
            bars = [cost["price_stderr"] for cost in own] if what == "price" else None
            axes.errorbar(
                xs, [c[what] for c in own], bars, color=colour, marker=marker, ls="", label=name
            )
        axes.set_yscale("log")
        axes.set_xticks(range(len(queries)), [query.replace(", ", "\n") for query in queries])
        axes.tick_params(axis="x", labelsize=8)
        axes.set_ylabel(label)
        _plain(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def draw_search(document: dict[str, Any]) -> Figure:
    """Seconds and circuits of every plan by width, from a document of `benchmarks.search`."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (what, label) in zip(
        figure.subplots(1, 2), {"search": "seconds", "circuits": "circuits"}.items(), strict=True
    ):
        points: dict[str, list[tuple[int, float]]] = {"AutoCut": [], "qiskit-addon-cutting": []}
        for entry in document["figures"]:
            name, _, found = entry["name"].partition(": ")
            if found == what:
                whose = "qiskit-addon-cutting" if "qiskit-addon-cutting" in name else "AutoCut"
                points[whose].append((entry["case"]["qubits"], entry["value"]))
        for (name, found_points), (colour, marker) in zip(points.items(), _LOOKS, strict=False):
            if found_points:
                xs, ys = zip(*found_points, strict=True)
                axes.plot(xs, ys, color=colour, marker=marker, ls="", alpha=0.7, label=name)
        axes.set_yscale("log")
        axes.set_xlabel("qubits")
        axes.set_ylabel(label)
        _plain(axes)
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_shots(document: dict[str, Any]) -> Figure:
    """Two circuits and the chain from a document of `benchmarks.shots`."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    *left, chain = figure.subplots(1, 1 + len(_DRAWN))
    for axes, circuit in zip(left, _DRAWN, strict=True):
        points: dict[str, dict[float, float]] = {}
        for cost in document["shots"]:
            if cost["circuit"] == circuit:
                points.setdefault(cost["contestant"], {})[cost["precision"]] = cost["median"]
        _lines(axes, points)
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(sorted(document["settings"]["precisions"]))
        axes.set_xticklabels(map(str, sorted(document["settings"]["precisions"])))
        axes.set_xlabel("standard error asked for")
        axes.set_ylabel("shots")
        axes.set_title(circuit, loc="left", fontsize=10)
    growth: dict[str, dict[float, float]] = {}
    for entry in document["growth"]:
        growth.setdefault(entry["contestant"], {})[entry["cuts"]] = entry["price"]
        growth.setdefault("Π γ²", {})[entry["cuts"]] = entry["sampling_overhead"]
    _lines(chain, growth)
    chain.set_ylim(top=1e6)
    chain.set_xlabel("cuts")
    chain.set_ylabel("variance × shots")
    chain.set_title("chain, two qubits a fragment", loc="left", fontsize=10)
    handles = {
        name: line
        for axes in (*left, chain)
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = [name for name in _CONTESTANTS if name in handles]
    lines = [handles[name] for name in names]
    figure.legend(lines, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _lines(axes: Axes, points: dict[str, dict[float, float]]) -> None:
    for name, (colour, marker, style) in _CONTESTANTS.items():
        if name in points:
            xs = sorted(points[name])
            ys = [points[name][x] for x in xs]
            axes.plot(xs, ys, color=colour, marker=marker, linestyle=style, label=name)
    axes.set_yscale("log")
    _plain(axes)


if __name__ == "__main__":
    main()
