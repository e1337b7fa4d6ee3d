"""The numbers to expect of a reproduction are those of the committed study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
SUMMARY = json.loads((DOCS / "results" / "laptop" / "summary.json").read_text("utf-8"))
OURS, PAPERS = "ours", "the paper's pipeline"


def rows(table: str, **where: object) -> list[dict[str, Any]]:
    found = SUMMARY["tables"][table]["rows"]
    return [row for row in found if all(row[key] == value for key, value in where.items())]


def one(table: str, column: str = "value", **where: object) -> float:
    (row,) = rows(table, **where)
    return float(row[column])


def mnist(table: str, column: str = "value", series: str = OURS, cuts: int = 3) -> float:
    return one(table, column, dataset="mnist", series=series, cuts=cuts)


def over_bound(policy: str) -> float:
    return one("policies", "over_bound", experiment="policies", series=f"ours, {policy}", p=0.2)


def fleet_seconds(devices: str) -> float:
    where = {"dataset": "mnist", "cuts": 3, "stage": "total", "series": f"ours, {devices}"}
    return one("fleet_stages", "median_seconds", **where)


def paired_ratio(dataset: str) -> float:
    """The headline's: a median of ratios, which is not the ratio of medians."""
    lines = SUMMARY["headlines"]
    (found,) = (r for r in lines if r["question"] == "RQ1" and r["dataset"] == dataset)
    return float(found["value"])


def difference(metric: str) -> float:
    (row,) = rows("accuracy_differences", dataset="mnist", cuts=3, metric=metric)
    assert float(row["low"]) <= 0 <= float(row["high"])
    return float(row["value"])


FOUND: dict[str, Callable[[], float]] = {
    "RQ1, Iris: training": lambda: paired_ratio("iris"),
    "RQ1, MNIST: the same": lambda: paired_ratio("mnist"),
    "RQ1, MNIST: the same of": lambda: (
        mnist("fig4_training_time", series=PAPERS)
        / mnist("fig4_training_time", series=PAPERS, cuts=0)
    ),
    "RQ2, MNIST: T_rec/T_total with 1 cut": lambda: mnist(
        "table1_reconstruction_share", "median_share", cuts=1
    ),
    "RQ2, MNIST: with 2 cuts": lambda: mnist("table1_reconstruction_share", "median_share", cuts=2),
    "RQ2, MNIST: with 3 cuts": lambda: mnist("table1_reconstruction_share", "median_share"),
    "RQ2, MNIST: with 3 cuts, the paper's": lambda: mnist(
        "table1_reconstruction_share", "median_share", PAPERS
    ),
    "RQ2, MNIST: T_rec/T_total of the paper's": lambda: one("causes", "share", deferred=True),
    "RQ2, MNIST: speed-up": lambda: mnist("fig5_speed_up"),
    "RQ2, MNIST: the same on 16": lambda: fleet_seconds("1 device") / fleet_seconds("16 devices"),
    "RQ3, MNIST: slow-down": lambda: mnist("fig6_slow_down"),
    "RQ3, MNIST: query time": lambda: over_bound("eager"),
    "RQ3, MNIST: the same": lambda: over_bound("restart"),
    "RQ4, MNIST: test accuracy": lambda: difference("test accuracy"),
    "RQ5, MNIST: robustness": lambda: difference("robustness"),
    "Subexperiments of a query with 3 cuts, the": lambda: mnist("savings", "paper_subexperiments"),
    "Subexperiments of a query with 3 cuts, ours": lambda: mnist("savings", "our_subexperiments"),
    "Cost model": lambda: max(float(row["error_total"]) for row in rows("cost_model")),
}
"""By the beginning of a claim; of several that fit, the longest is meant."""


def claims() -> dict[str, list[str]]:
    lines = (DOCS / "reproduce.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {
        max((known for known in FOUND if claim.startswith(known)), key=len, default=claim): cells
        for claim, *cells in table[1:]
    }


def test_every_claim_is_checked() -> None:
    assert set(claims()) == set(FOUND)


@pytest.mark.parametrize("claim", FOUND)
def test_the_number_to_expect_is_the_studys(claim: str) -> None:
    *_, expected, tolerance = claims()[claim]
    found = FOUND[claim]()
    shown = expected.lstrip("-0.").replace(".", "")
    digits = len(shown if "." in expected else shown.rstrip("0"))
    # The page rounds to the digits that it shows.
    assert float(expected) == pytest.approx(found, rel=0.5 * 10.0 ** (1 - digits))
    if tolerance.startswith("at most"):
        assert found <= float(tolerance.removeprefix("at most"))
    elif tolerance == "exact":
        assert float(expected) == found
    else:
        assert "±" in tolerance or "95 %" in tolerance
