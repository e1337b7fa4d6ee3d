"""Each benchmark runs, and prints one JSON document that holds what it promises."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _cut_circuits as cut_circuits
from benchmarks._cut_circuits import CutCircuit
from benchmarks._harness import CALLS_A_TURN, Budget, Child, Contestant, slope, take_turns
from benchmarks._learning import Cell, Score, Setting, markdown, statement
from benchmarks._optimum import fewest
from benchmarks._paired import holm, paired
from benchmarks._peers import Terms, addon, addon_terms, qcut, qcut_missing, qcut_terms
from benchmarks._report import Bar
from benchmarks._runtime import check_same, empty_tasks, in_turns
from benchmarks._workload import Outcome, block_labels, boundaries, workload
from benchmarks.figure import (
    draw_fragments,
    draw_peers,
    draw_search,
    draw_shots,
    draw_wide,
)
from benchmarks.overhead import POLICIES, VirtualRun
from benchmarks.startup import COMMANDS
from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.execution import TaskSpec, make_pool, run_tasks
from distributed_estimator.execution.dispatcher import Dispatcher

ROOT = Path(__file__).parent.parent


# Cuts, cases, and rows a case of a smoke run.
EXPECTED = {
    "query": ({0, 1}, 4, 10),
    "train_step": ({0, 1}, 2, 6),
    "cuts": ({1, 2, 3}, 3, 2),
    "training": ({0, 1}, 2, 5),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", EXPECTED)
def test_a_smoke_run_prints_one_complete_document(name: str) -> None:
    """Every promised row is there once; one may be missing only where something was skipped."""
    cuts, cases, rows_a_case = EXPECTED[name]
    document = smoke_run(name)
    rows = document["rows"]
    assert {row["case"]["cuts"] for row in rows} == cuts
    assert len({(str(row["case"]), row["name"], row["counterpart"]) for row in rows}) == len(rows)
    if not document["skipped"]:
        assert len(rows) == cases * rows_a_case
    assert all(skip["reason"] for skip in document["skipped"])


@pytest.mark.soak
def test_a_smoke_run_of_learning_holds_every_seed_and_writes_the_table(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    document = smoke_run("accuracy", "--processes", "1", "--markdown", str(table))
    cells = document["cells"]
    expected = [("iris", 0), ("iris", 1), ("mnist", 0), ("mnist", 1)]
    assert [(cell["workload"], cell["cuts"]) for cell in cells] == expected
    for cell in cells:
        shares = [seed["test_accuracy"] for seed in cell["seeds"]]
        assert len(shares) == len(document["settings"]["seeds"]) == 2
        assert cell["test_accuracy"] == pytest.approx(sum(shares) / 2)
        assert (cell["against_uncut"] is None) == (cell["cuts"] == 0)
    lines = table.read_text().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(cells)
    assert lines[-1] == document["statement"]


@pytest.mark.soak
def test_a_smoke_run_of_noise_trains_with_and_without_mitigation() -> None:
    trainings = smoke_run("noise")["trainings"]
    assert [each["mitigated"] for each in trainings] == ["nothing", "readout"]
    for each in trainings:
        assert (len(each["measured"]), len(each["exact"])) == (3, 2)
        assert min(each["exact"]) > each["ground"]


@pytest.mark.soak
def test_a_smoke_run_of_scaling_holds_every_part() -> None:
    document = smoke_run("scaling")
    ways = [(row["name"], row["counterpart"]) for row in document["rows"]]
    assert ways.count(("fleet, 2 workers", "fleet, 1 worker")) == 2
    assert ways.count(("processes, 2 workers", "processes, 1 worker")) == 1
    assert len([way for way in ways if "Aer" in way[0]]) == 5
    figures = figures_of(document)
    assert len([name for name in figures if name.startswith("simulation, ")]) == 2
    used = [value for name, value in figures.items() if name.startswith("utilisation")]
    assert len(used) == 2
    assert all(0 < share <= 1 for share in used)
    # The fleet's jobs take 10 ms, and no run of 12 jobs can be over before the last of its rounds.
    for row in (row for row in document["rows"] if row["name"] == "fleet, 2 workers"):
        assert row["case"]["jobs"] == 12
        assert row["seconds"] >= 0.06
        assert row["counterpart_seconds"] >= 0.12


@pytest.mark.soak
def test_a_smoke_run_of_stragglers_holds_every_policy_and_the_bound() -> None:
    document = smoke_run("stragglers")
    delayed = [row for row in document["rows"] if row["case"]["percent_delayed"] == 20]
    assert {row["name"] for row in delayed} == set(document["settings"]["policies"])
    figures = document["figures"]
    measured = [f["value"] for f in figures if f["name"] == "expected lower bound"]
    exactly = "expected lower bound, tasks of exactly 20 ms"
    nominal = [f["value"] for f in figures if f["name"] == exactly]
    assert nominal == pytest.approx([60 * 0.02 / 8, 60 * 0.02 / 0.8 / 8])
    assert all(m >= n for m, n in zip(measured, nominal, strict=True))
    assert all(row["seconds"] >= 8 * 0.02 for row in document["rows"])


@pytest.mark.soak
def test_a_smoke_run_of_startup_times_every_command_but_the_training() -> None:
    figures = figures_of(smoke_run("startup"))
    for name in COMMANDS.keys() - {"dest train iris"}:
        assert figures[f"{name}: processor time"] > 0


@pytest.mark.soak
def test_a_smoke_run_of_overhead_times_the_dispatcher_and_every_pool_that_is_installed() -> None:
    document = smoke_run("overhead", "--repeats", "1")
    figures = figures_of(document)
    assert len([name for name in figures if "processor time" in name]) == len(POLICIES)
    assert all(value > 0 for value in figures.values())
    timed = {name.partition(",")[0] for name in figures} - {"dispatcher"}
    left_out = {skip["name"] for skip in document["skipped"]}
    assert timed | left_out == {"threads", "processes", "dask", "ray"}
    assert timed >= {"threads", "processes"}


@pytest.mark.soak
def test_a_smoke_run_of_shots_holds_every_contestant_and_circuit() -> None:
    document = smoke_run("shots", "--runs", "8")
    entries = {(e["circuit"], e["contestant"], e["precision"]): e for e in document["shots"]}
    assert len(entries) == len(document["shots"])
    names = {circuit for circuit, _, _ in entries}
    ours = {f"ours, {name}" for name in ("uniform", "neyman", "optimal")}
    with_prior = ours | {"ours, optimal with prior"}
    for circuit in names:
        for precision in document["settings"]["precisions"]:
            found = {c for n, c, p in entries if (n, p) == (circuit, precision)}
            assert with_prior | {"not cut", "oracle", "qiskit-addon-cutting"} <= found
            assert ("QCut" in found) == (not document["skipped"])
    for entry in document["shots"]:
        assert min(entry["shots"]) > 0
    assert {claim["contestant"] for claim in document["claims"]} == with_prior
    assert all(claim["missed"] == 0 for claim in document["claims"])
    assert ours <= {entry["contestant"] for entry in document["growth"]}
    assert ours == {entry["contestant"] for entry in document["fleet"]}
    assert all(entry["seconds"] > 0 for entry in document["fleet"])
    assert len(document["learning"]) == len({entry["way"] for entry in document["learning"]}) > 1
    assert all(len(entry["shots"]) == 1 for entry in document["learning"])
    *_, chain = draw_shots(document).axes
    assert {line.get_label() for line in chain.get_lines()} > ours | {"oracle", "Π γ²"}


@pytest.mark.soak
def test_a_smoke_run_of_fragments_holds_every_part() -> None:
    document = smoke_run("fragment")
    threads = [row["case"]["threads"] for row in document["rows"]]
    assert threads.count(1) == threads.count(2) >= 1
    assert {figure["case"].get("qubits") for figure in document["figures"]} == {8, 10, 12}
    panels = draw_fragments(document["rows"]).axes
    names = {row["name"] for row in document["rows"]}
    names |= {row["counterpart"] for row in document["rows"]}
    assert [{line.get_label() for line in axes.get_lines()} for axes in panels] == [names, names]


@pytest.mark.soak
def test_a_smoke_run_of_wide_circuits_holds_every_way() -> None:
    document = smoke_run("wide")
    rows = {
        (row["case"]["qubits"], row["name"], row["counterpart"][:3]) for row in document["rows"]
    }
    pieces = "cut into pieces of at most 10"
    narrow = {(14, "whole", "not"), (14, "cut once", "not"), (14, "cut once", "who")}
    assert rows == narrow | {(40, pieces, "not"), (40, "whole", "not")}
    assert all(row["error"] <= 1e-8 for row in document["rows"])
    assert not document["skipped"]
    times, _ = draw_wide(document).axes
    assert len(times.get_lines()) == 4


@pytest.mark.soak
def test_a_smoke_run_of_peers_holds_every_package_that_is_installed() -> None:
    document = smoke_run("peers")
    packages = {"qiskit-addon-cutting", "QCut", "PennyLane cut_circuit, wire cuts"}
    absent = {skip["name"] for skip in document["skipped"]}
    measured = {cost["contestant"]: cost for cost in document["costs"]}
    assert set(measured) == {"ours", "ours, shots by design"} | (packages - absent)
    assert all("pip install" in skip["reason"] for skip in document["skipped"])
    assert measured["ours"]["circuits"] == 10
    assert measured["qiskit-addon-cutting"]["circuits"] == 12
    for cost in document["costs"]:
        assert cost["runs"] >= 2
        assert cost["price_stderr"] > 0
    assert {len(axes.containers) for axes in draw_peers(document).axes} == {len(measured)}


CHAIN = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[12];
creg c[12];
h q[0];
"""


@pytest.mark.soak
def test_files_are_searched_or_listed_with_the_reason(tmp_path: Path) -> None:
    chain = CHAIN + "".join(f"cx q[{n}],q[{n + 1}];\n" for n in range(11)) + "measure q -> c;\n"
    files = {
        "chain": chain,
        "control": CHAIN + "measure q[0] -> c[0];\nif(c==1) x q[1];\n",
        "broken": "OPENQASM 2.0;\nnonsense q;\n",
        "narrow": chain.replace("[12]", "[11]").replace("cx q[10],q[11];", ""),
    }
    (tmp_path / "below").mkdir()
    for name, text in files.items():
        (tmp_path / "below" / f"{name}.qasm").write_text(text)
    document = smoke_run("search", "--part", "qasm", "--qasm", str(tmp_path))
    figures = figures_of(document)
    assert set(figures) == {"chain: search", "chain: circuits", "chain: predicted price"}
    assert figures["chain: circuits"] == 10
    reasons = {skip["name"]: skip["reason"] for skip in document["skipped"]}
    assert set(reasons) == {"control", "broken"}
    assert "classical control" in reasons["control"]
    assert "nonsense" in reasons["broken"]
    seconds, _ = draw_search(document).axes
    assert [line.get_label() for line in seconds.get_lines()] == ["AutoCut"]


def test_a_call_that_takes_too_long_is_ended_and_the_next_has_a_process() -> None:
    child = Child()
    with pytest.raises(TimeoutError):
        child.call(0.05, time.sleep, 60)
    assert child.call(60, abs, -3) == 3
    child.end()


@pytest.mark.soak
def test_a_smoke_run_of_searches_holds_every_part() -> None:
    document = smoke_run("search")
    names = {figure["name"] for figure in document["figures"]}
    assert {"ghz: circuits", "plan", "rank correlation of prices"} <= names
    (distance,) = (f["value"] for f in document["figures"] if f["name"].startswith("distance"))
    assert distance <= 1e-8


CUT_CIRCUITS = [
    cut_circuits.qnn_blocks(2, 1),
    cut_circuits.chain(2, 1),
    cut_circuits.random_gates(1, 1),
    cut_circuits.ring(1),
    cut_circuits.star(1),
    cut_circuits.weak(1),
]
named = pytest.mark.parametrize("case", CUT_CIRCUITS, ids=lambda case: case.name)


@named
def test_the_terms_of_peers_add_up_to_the_uncut_value(case: CutCircuit) -> None:
    bound, (exact,) = case.bound(case.bindings[0]), case.exact()
    assert addon_terms(bound, case.labels).value == pytest.approx(exact, abs=1e-10)
    if qcut_missing() is None:
        assert qcut_terms(bound, case.labels).value == pytest.approx(exact, abs=1e-10)


def test_the_oracle_takes_what_a_circuit_that_is_not_cut_takes() -> None:
    case = replace(cut_circuits.qnn_blocks(1, 2), labels=[0, 0, 0, 0])
    assert fewest(case) == pytest.approx(1 - case.exact() ** 2, rel=1e-4)


@named
def test_a_design_from_a_very_large_pilot_is_near_the_oracle_and_not_below(
    case: CutCircuit,
) -> None:
    budget = 10**12
    options = EstimatorOptions(shots_total=budget, seed=3)
    with DistributedEstimator(case.labels, workers=1, options=options) as estimator:
        pub = (case.circuit, case.observable, case.bindings[0])
        result = estimator.run([pub]).result()[0]
    shots = result.metadata["shots_total"] - result.record.design.pilot_shots
    price = float(result.data.stds) ** 2 * shots
    assert 0.99 <= price / fewest(case)[0] <= 1.12


def test_the_variance_of_terms_is_that_of_their_draws() -> None:
    terms = Terms(np.array([1.5, -0.5]), np.array([[0.6, -0.3], [0.1, 0.9]]), np.array([1.0, 0.3]))
    rng = np.random.default_rng(3)
    drawn = [
        2 * rng.binomial(shots, (1 + means) / 2, (200_000, 2)) / shots - 1
        for shots, means in zip((4, 2), terms.means, strict=True)
    ]
    values = sum(c * draws.prod(axis=1) for c, draws in zip(terms.coefficients, drawn, strict=True))
    assert terms.shots(4) == 2 * (4 + 2)
    assert np.mean(values) == pytest.approx(terms.value, abs=0.01)
    assert np.var(values) == pytest.approx(terms.variance(4), rel=0.02)


def test_terms_take_the_fewest_shots_that_are_enough() -> None:
    terms = Terms.of([0.5, 0.5, -0.5], [[0.2, 0.4], [0.0, 0.7], [-0.9, 0.1]])
    most = terms.shots_to(0.03) // terms.num_circuits
    assert terms.variance(most) <= 0.03**2 < terms.variance(most - 1)


@pytest.mark.soak
def test_runs_of_peers_scatter_as_their_terms_say() -> None:
    """Within four standard errors of the mean, and of the variance of near-normal values."""
    case, repeats, shots = cut_circuits.qnn_blocks(1, 1), 300, 64
    bound = case.bound(case.bindings[0])
    peers = [(addon, addon_terms)] + ([] if qcut_missing() else [(qcut, qcut_terms)])
    for run, terms_of in peers:
        terms = terms_of(bound, case.labels)
        estimates = [run(bound, case.labels, shots, seed) for seed in range(repeats)]
        assert {estimate.shots for estimate in estimates} == {terms.shots(shots)}
        values = np.array([estimate.value for estimate in estimates])
        variance = terms.variance(shots)
        assert abs(values.mean() - terms.value) < 4 * (variance / repeats) ** 0.5
        assert values.var() == pytest.approx(variance, rel=4 * (2 / repeats) ** 0.5)


def figures_of(document: dict[str, Any]) -> dict[str, float]:
    """Values by name; of equal names, the last."""
    return {figure["name"]: figure["value"] for figure in document["figures"]}


def smoke_run(name: str, *options: str) -> dict[str, Any]:
    """What the benchmark prints on standard output, which has to be JSON and nothing else.

    Every benchmark describes itself and the machine; its times are times, ratios are those of
    theirs over ours, and exact values are exact.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", *options]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["benchmark"] == name
    assert all(math.isfinite(number) for number in numbers(document))
    assert {"python", "qiskit", "qiskit-aer"} <= set(document["versions"])
    assert not {"node", "host", "hostname"} & set(document["machine"])
    for row in document.get("rows", ()):
        assert 0 < row["spread"][0] <= row["seconds"] <= row["spread"][1]
        assert row["counterpart_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["counterpart_seconds"] / row["seconds"])
        if "exact" in row["name"]:
            assert row["error"] <= 1e-8
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


def test_calls_in_turns_are_timed_without_a_warm_up() -> None:
    seen: list[str] = []

    def call(name: str) -> Outcome:
        seen.append(name)
        return Outcome(np.array([float(len(seen))]), {"t_execute": float(len(seen))})

    timings = in_turns({"a": lambda: call("a"), "b": lambda: call("b")}, repeats=3)
    assert seen == ["a", "b"] * 3
    assert timings["a"].repeats == 3
    assert timings["a"].stages == {"t_execute": 3.0}
    assert timings["b"].values == 6.0


def test_times_of_different_values_are_refused() -> None:
    timings = in_turns(dict.fromkeys("ab", lambda: Outcome(np.array([0.1]))), repeats=1)
    check_same(timings)
    timings |= in_turns({"d": lambda: Outcome(np.array([0.1 + 1e-9]))}, repeats=1)
    with pytest.raises(RuntimeError, match="d and a differ by 1e-09, expected the same bits"):
        check_same(timings)


@pytest.mark.parametrize("name", POLICIES)
def test_a_virtual_run_drives_a_dispatcher_to_its_end(name: str) -> None:
    dispatcher = Dispatcher([TaskSpec(str(n), 1.0) for n in range(200)], POLICIES[name], 16)
    run = VirtualRun(dispatcher)
    run.to_the_end()
    assert dispatcher.done
    assert run.submitted == 200 + dispatcher.speculated
    assert (dispatcher.speculated > 0) == (name != "eager")


def test_empty_tasks_are_folded_once_each() -> None:
    pool = make_pool("threads", 2)
    folded: list[int] = []
    run_tasks(pool, empty_tasks(300), lambda number, arrays, more: folded.append(number))
    pool.close()
    assert sorted(folded) == list(range(300))


def test_a_budget_refuses_what_no_longer_fits() -> None:
    budget = Budget(10)
    assert budget.refusal(10) is None
    budget.spend(4)
    assert "6 s are left" in (budget.refusal(7) or "")


@pytest.mark.parametrize(("relation", "met"), [("<=", False), (">=", True)])
def test_a_bar_reads_its_own_direction(relation: Any, met: bool) -> None:
    assert Bar("figure", 2.0, relation, 1.0).met is met


def cell(cuts: int, shares: list[float], linear: float, against: list[float]) -> Cell:
    scores = tuple(Score(share, linear, "AB" if cuts else None, 1.0) for share in shares)
    found = paired(against) if cuts else None
    return Cell(Setting("iris", 4, epochs=1, batch_size=None), cuts, scores, found)


def test_seeds_that_agree_make_no_difference_and_those_that_differ_alike_make_one() -> None:
    assert paired([0.0] * 5).contains_zero
    alike = paired([0.8 - 0.75, 0.45 - 0.4])  # not the same double
    assert (alike.mean, alike.half_width, alike.p_value) == (0.05, 0.0, 0.0)
    assert not alike.contains_zero


def test_an_interval_contains_0_where_its_test_is_above_the_level() -> None:
    for shift in (0.0, 0.02, 0.04, 0.06, 0.08):
        found = paired([shift + step for step in (-0.04, -0.01, 0.0, 0.02, 0.03)])
        assert found.contains_zero == (found.p_value > 0.05)


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = [paired(row).contains_zero for row in rng.normal(size=(2000, 5))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_one_interval_of_many_that_misses_0_is_reported_and_corrected() -> None:
    steps = [0.02, 0.03, 0.04, 0.05, 0.01]
    cells = [
        cell(0, [0.9] * 5, 0.92, []),
        cell(1, [0.9 + step for step in steps], 0.92, steps),
        *(cell(cuts, [0.9] * 5, 0.92, [0.0] * 5) for cuts in range(2, 12)),
    ]
    assert "10 of 11 95 % intervals contain 0" in statement(cells)
    assert "no difference at the 5% level" in statement(cells)
    assert "| iris | 4 | 1 (AB) | 93.0% | 91.0% to 95.0% | +3.0 [+1.0, +5.0] | 92.0% |" in markdown(
        cells
    )


def test_holms_correction_never_falls_below_what_came_before_it() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("share", "met"), [(0.87, True), (0.86, False)])
def test_a_linear_model_may_be_5_points_ahead(share: float, met: bool) -> None:
    (bar,) = cell(0, [share], 0.92, []).bars()
    assert bar.met is met
