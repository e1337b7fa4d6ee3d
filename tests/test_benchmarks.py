"""Each benchmark runs, and prints one JSON document that holds what it promises."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qiskit_aer")
pytest.importorskip("qiskit_machine_learning")

from benchmarks._harness import CALLS_A_TURN, Budget, Contestant, slope, take_turns
from benchmarks._report import Bar
from benchmarks._workload import Outcome, block_labels, boundaries, workload

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Expected:
    """What a smoke run of a benchmark has to hold."""

    cuts: set[int]
    cases: int
    rows_a_case: int


EXPECTED = {
    "query": Expected(cuts={0, 1}, cases=4, rows_a_case=10),
    "train_step": Expected(cuts={0, 1}, cases=2, rows_a_case=6),
    "cuts": Expected(cuts={1, 2, 3}, cases=3, rows_a_case=2),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_smoke_run_prints_one_complete_document(name: str) -> None:
    """One test for all of it: a run takes seconds, and test workers share nothing."""
    document = smoke_run(name)
    assert document["benchmark"] == name
    assert all(math.isfinite(number) for number in numbers(document))
    assert {"python", "qiskit", "qiskit-aer"} <= set(document["versions"])
    assert not {"node", "host", "hostname"} & set(document["machine"])
    check_rows(document["rows"])
    check_coverage(document, EXPECTED[name])


def smoke_run(name: str) -> dict[str, Any]:
    """What the benchmark prints on standard output, which has to be JSON and nothing else."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def numbers(value: object) -> Iterator[float]:
    """Every number anywhere in a document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float):
        yield value


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Times are times, ratios are theirs over ours, exact values are exact."""
    for row in rows:
        assert 0 < row["spread"][0] <= row["seconds"] <= row["spread"][1]
        assert row["counterpart_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["counterpart_seconds"] / row["seconds"])
        if "exact" in row["name"]:
            assert row["error"] <= 1e-8


def check_coverage(document: dict[str, Any], expected: Expected) -> None:
    """Every promised row is there once; one may be missing only where something was skipped."""
    rows = document["rows"]
    assert {row["case"]["cuts"] for row in rows} == expected.cuts
    assert len({(str(row["case"]), row["name"], row["counterpart"]) for row in rows}) == len(rows)
    if not document["skipped"]:
        assert len(rows) == expected.cases * expected.rows_a_case
    assert all(skip["reason"] for skip in document["skipped"])


def test_labels_are_contiguous_blocks_with_one_boundary_a_cut() -> None:
    for cuts in range(4):
        labels = block_labels(8, cuts)
        assert labels == sorted(labels)
        assert len(boundaries(labels)) == cuts


def test_the_workload_is_bound_in_the_circuits_own_order() -> None:
    load = workload(3, queries=2)
    assert load.bindings.shape == (2, load.circuit.num_parameters)
    names = [parameter.name for parameter in load.circuit.parameters]
    assert [name[0] for name in names] == ["x"] * 3 + ["θ"] * 6


def test_slope_recovers_an_exponent() -> None:
    assert slope([1, 2, 4, 8], [5, 20, 80, 320]) == pytest.approx(2)


def test_contestants_take_turns() -> None:
    seen: list[str] = []

    def contestant(name: str, slow: bool) -> Contestant:
        def call() -> Outcome:
            seen.append(name)
            return Outcome(workload(2, 1).weights)

        return Contestant(name, call, slow)

    timings = take_turns([contestant("a", False), contestant("b", False)], 3, allowance=60)
    warm_up, turn = ["a"] * 2 + ["b"] * 2, ["a"] * CALLS_A_TURN + ["b"] * CALLS_A_TURN
    assert seen == warm_up + turn * 3
    assert timings["a"].repeats == timings["b"].repeats == 3
    seen.clear()
    timings = take_turns([contestant("a", False), contestant("slow", True)], 3, allowance=60)
    assert seen.count("slow") == timings["slow"].repeats == 1


def test_a_budget_refuses_what_no_longer_fits() -> None:
    budget = Budget(10)
    assert budget.refusal(10) is None
    budget.spend(4)
    assert "6 s are left" in (budget.refusal(7) or "")


@pytest.mark.parametrize(("relation", "met"), [("<=", False), (">=", True)])
def test_a_bar_reads_its_own_direction(relation: Any, met: bool) -> None:
    assert Bar("figure", 2.0, relation, 1.0).met is met
