"""Draw the `query` benchmark: `python -m benchmarks.figure query.json figure.png`.

One line per way to ask one query of 4 qubits, against the number of cuts, on a logarithmic axis.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Colour-blind safe (Okabe and Ito), and a marker each.
_LOOKS = (
    ("#D55E00", "o"),
    ("#E69F00", "s"),
    ("#999999", "^"),
    ("#56B4E9", "D"),
    ("#0072B2", "v"),
    ("#009E73", "P"),
)


def main() -> None:
    """Read a JSON document of `benchmarks.query` and write a PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    rows = json.loads(arguments.document.read_text())["rows"]
    figure = draw(rows)
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
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
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


if __name__ == "__main__":
    main()
