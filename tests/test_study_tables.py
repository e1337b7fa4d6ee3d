"""A study's tables against numbers worked out by hand, and what they are made from."""

from __future__ import annotations

import json
import math
import re

import pandas as pd
import pytest
from study_folders import StudyFolder, add_causes, paper_study, small, trained

from distributed_estimator.analysis.costs import CostModel, read_costs
from distributed_estimator.analysis.report import StudyData
from distributed_estimator.analysis.study import load_study
from distributed_estimator.errors import RecordError

PAPERS = "the paper's pipeline"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The data of a study with all experiments."""
    study = paper_study(tmp_path_factory.mktemp("paper") / "study")
    study.add("training", "train", cause="Aer died", cuts=3, seed=9)
    study.add("training", "train", cuts=3, seed=10)
    return data_of(study)


def data_of(study):
    return StudyData.of(load_study(study.path))


def rows(data, table, **where):
    """The rows of a table that have some values."""
    found = data.tables[table].rows
    for name, value in where.items():
        found = found[found[name] == value]
    return list(found.itertuples())


def one(data, table, **where):
    (row,) = rows(data, table, **where)
    return row


def unmatched(data, table):
    return [why for _, why in data.tables[table].unmatched]


def test_training_time_is_the_median_over_seeds_with_min_and_max(paper):
    row = one(paper, "fig4_training_time", dataset="iris", series="ours", cuts=2)
    assert (row.value, row.low, row.high, row.n) == (24, 12, 36, 3)
    assert (row.basis, row.spread, len(row.runs.split())) == ("measured", "min–max", 3)


def test_the_references_training_time_is_extrapolated_and_says_from_how_many_queries(paper):
    row = one(paper, "fig4_training_time", dataset="iris", series=PAPERS, cuts=1)
    # Queries of 10, 20 and 30 s; a training asks 1000 of them.
    assert (row.value, row.low, row.high) == (20_000, 10_000, 30_000)
    assert (row.basis, row.queries) == ("extrapolated", 3)
    place = {"dataset": "iris", "series": PAPERS, "cuts": 1, "queries": 3}
    assert any(place.items() <= found.items() for found in paper.remarks["extrapolated"])
    assert not rows(paper, "fig4_training_time", dataset="mnist", series=PAPERS)
    assert any("no reference query" in why for why in unmatched(paper, "fig4_training_time"))


def extrapolating(tmp_path, *shares, **training):
    """A study with a training of 100 reference queries, and measured queries of 5 s at 8 workers.

    `shares` are further measured runs: their seconds a query and how they differ.
    """
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", trained(1.0, queries=100), cuts=1, **training)
    for seconds, changes in ((5.0, {}), *shares):
        queries = [{"total": seconds}] * 2
        study.add(
            "shares", "queries", {}, "reference", queries, **{"cuts": 1, **training, **changes}
        )
    return study


def test_ratios_are_of_runs_that_differ_in_one_thing(paper, tmp_path):
    assert one(paper, "fig6_slow_down", dataset="iris", cuts=3).value == pytest.approx(1.4)
    study = StudyFolder(tmp_path / "study")
    study.add("scaling", "train", trained(1.0), workers=1)
    data = data_of(study)  # one worker alone is not compared with itself
    assert rows(data, "fig5_speed_up") == []
    why = ["nothing to compare between 1 and 16 workers with it"]
    assert unmatched(data, "fig5_speed_up") == why
    study.add("scaling", "train", trained(0.0), workers=16)
    for workers in (1, 4, 8):
        study.add("scaling", "train", trained(32 / workers), dataset="mnist", workers=workers)
    data = data_of(study)
    (row,) = rows(data, "fig5_speed_up")
    assert (row.dataset, row.workers, row.value) == ("mnist", 8, 8)
    assert unmatched(data, "fig5_speed_up") == ["no time above 0 s on both sides"]


@pytest.mark.parametrize(
    "other",
    [
        {"workers": 1},
        {"straggler_p": 0.2, "straggler_delay": 0.1},
        {"simulator_threads": None},
        {"simulator_threads": 2},
        {"defer_measurements": True},
        {"shots": 10},
        {"qubits": 6},
    ],
)
def test_only_queries_like_the_trainings_are_extrapolated_from(tmp_path, other):
    same = (7.0, {"straggler_p": 0, "straggler_delay": 0.1, "seed": 2})  # nothing is delayed
    data = data_of(extrapolating(tmp_path, (40.0, other), same))
    row = one(data, "fig4_training_time", basis="extrapolated")
    assert (row.value, row.low, row.high, row.queries) == (600, 500, 700, 4)


def test_two_widths_of_a_data_set_are_two_series(tmp_path):
    study = extrapolating(tmp_path)
    study.add("training", "train", trained(1.0, queries=20), cuts=1, qubits=6)
    study.add("training", "train", trained(1.0, queries=200), cuts=1, qubits=6, epochs=20)
    study.add("training", "train", trained(1.0, queries=100), cuts=1, policy="batches")
    study.add("shares", "queries", {}, "reference", [{"total": 3.0}], cuts=1, qubits=6)
    found = rows(data_of(study), "fig4_training_time", basis="extrapolated")
    assert {row.series: row.value for row in found} == {
        f"{PAPERS}, epochs 10, 4 qubits": 500,
        f"{PAPERS}, epochs 10, 6 qubits": 60,
        f"{PAPERS}, epochs 20, 6 qubits": 600,
    }


@pytest.mark.parametrize("queries", [-100, 0, None])
def test_a_training_without_a_number_of_queries_is_not_extrapolated(tmp_path, queries):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", trained(1.0, queries=queries), cuts=1)
    study.add("shares", "queries", {}, "reference", [{"total": 5.0}], cuts=1)
    data = data_of(study)
    assert [row.series for row in rows(data, "fig4_training_time")] == ["ours"]
    assert any("no number of reference" in why for why in unmatched(data, "fig4_training_time"))


def test_speed_up_is_the_time_of_one_worker_over_that_of_more(paper):
    row = one(paper, "fig5_speed_up", dataset="mnist", cuts=1)
    assert row.value == pytest.approx((8 + 1) / (2 + 1))
    assert (row.n, row.spread, row.workers) == (1, "none (n = 1)", 16)
    found = {row.workers: row.value for row in rows(paper, "speed_ups", dataset="iris", cuts=0)}
    assert found[4] == pytest.approx(2)
    assert list(found) == [2, 4, 8, 16]


def test_table_1_stands_beside_the_papers(paper):
    row = one(paper, "fig8_robustness", dataset="iris", cuts=0)
    assert row.value == pytest.approx(((0.8 + 0.6) / 2 + 0.7) / 2)  # above 0, of both attacks
    ours = one(paper, "table1_reconstruction_share", series="ours", cuts=3)
    theirs = one(paper, "table1_reconstruction_share", series=PAPERS, cuts=3)
    assert (ours.n, ours.median_share) == (2, pytest.approx(0.04))
    assert (theirs.n, theirs.median_share) == (3, pytest.approx(0.5))
    assert (ours.paper_n, ours.paper_median_share, ours.paper_p95_share) == (5, 0.53, 0.58)
    assert pd.isna(one(paper, "table1_reconstruction_share", series="ours", cuts=0).paper_n)


def test_savings_compare_matched_runs_of_both_pipelines(paper):
    row = one(paper, "savings", cuts=3)
    assert (row.paper_subexperiments, row.our_subexperiments, row.n) == (864, 30, 1)
    assert row.fewer_subexperiments == row.fewer_shots == pytest.approx(28.8)


def test_unit_costs_are_sums_over_sums(paper):
    row = one(paper, "unit_costs", experiment="shares", series=PAPERS, cuts=2)
    # Queries of 100, 200 and 300 s with 108 subexperiments of 1024 shots; half is reconstruction.
    assert row.query_ms == pytest.approx(200_000)
    assert row.execute_circuit_ms == pytest.approx(1e3 * 0.4 * 600 / (3 * 108))
    assert row.reconstruct_shot_us == pytest.approx(1e6 * 300 / (3 * 108 * 1024))


def test_reasons_compare_pipelines_whatever_else_differs(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for qubits in (4, 6):
        place = {"qubits": qubits, "cuts": 2}
        for pipeline, seconds in (("contracted", 0.01), ("reference", 10.0)):
            queries = [{"total": seconds}]
            study.add("shares", "queries", {}, pipeline, queries, **place)
    study.add("shares", "queries", {}, "reference", [{"total": 99.0}], cuts=3)
    data = data_of(study)
    (row,) = data.reasons()["shots"]
    assert (row["cuts"], row["query_ms_theirs"], row["query_ms"]) == (2, 10_000, 10)


def test_policies_stand_beside_the_bound_where_there_is_one(paper):
    row = one(paper, "policies", series="ours, eager", p=0.2)
    assert (row.value, row.low, row.high) == pytest.approx((0.5, 0.3, 0.7))
    assert (row.over_clean, row.over_bound) == pytest.approx((5, 0.5 / 0.07))
    found = rows(paper, "policies", series="ours", p=0.2)
    assert all(math.isnan(row.lower_bound) for row in found)
    assert one(paper, "policies", series="ours, eager", p=0.0).over_clean == 1


def test_policies_compare_matched_runs_alone(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for seed, seconds in enumerate((1.0, 10.0, 100.0), start=1):
        for p in (0.0, 0.1, 0.2):
            failed = (seed, p) in ((1, 0.2), (1, 0.1), (2, 0.1), (3, 0.1))
            place = {"seed": seed, "straggler_p": p, "straggler_delay": 0.1}
            results = None if failed else trained(seconds * (2 if p else 1))
            study.add("stragglers", "train", results, cause="x" if failed else None, **place)
    study.add("stragglers", "train", trained(5.0), seed=4, straggler_p=0.1, straggler_delay=0.1)
    data = data_of(study)
    row = one(data, "policies", p=0.2)
    assert row.value == 110  # medians of all runs are 110 s and 10 s
    assert row.over_clean == one(data, "fig6_slow_down").value == 2
    row = one(data, "policies", p=0.1)
    assert row.value == 5
    assert math.isnan(row.over_clean)
    assert "no finished partner between p = 0 and p = 0.1" in unmatched(data, "policies")


def test_differences_are_paired_by_seed_with_students_interval(paper):
    row = one(paper, "accuracy_differences", dataset="iris", metric="test accuracy", cuts=2)
    half = 4.302653 * 0.01 / math.sqrt(3)  # differences 0.01, 0.02 and 0.03
    assert (row.value, row.low, row.high) == pytest.approx((0.02, 0.02 - half, 0.02 + half))
    assert (row.n, row.zero) == (3, "inside")
    robust = one(paper, "accuracy_differences", dataset="iris", metric="robustness", cuts=3)
    assert robust.zero == "outside"


def test_equal_differences_have_no_interval_of_no_width(tmp_path):
    study = StudyFolder(tmp_path / "study")
    # 0.95 - 0.9 and 1 - 0.95 are equal but for their rounding.
    for seed, (uncut, cut) in enumerate(((0.9, 0.95), (0.95, 1.0)), start=1):
        study.add("training", "train", trained(1.0, uncut), seed=seed)
        study.add("training", "train", trained(1.0, cut), seed=seed, cuts=3)
    data = data_of(study)
    row = one(data, "accuracy_differences", metric="test accuracy")
    assert row.value == pytest.approx(0.05)
    assert (row.n, row.zero) == (2, "no spread: all 2 equal")
    assert math.isnan(row.low)
    lines = data.tables.headlines
    (line,) = lines[(lines.question == "RQ4") & lines.value.notna()].itertuples()
    assert line.outcome == "no spread: all 2 equal"


def test_fleet_times_are_per_stage_by_devices_in_natural_order(paper):
    found = rows(paper, "fleet_stages", stage="total")
    names = ["ours, 1 device", "ours, 4 devices", "ours, 16 devices"]
    assert [row.series for row in found[::4]] == names
    assert found[-1].median_seconds == pytest.approx(0.25)
    assert {row.origin for row in found} == {"simulated fleet"}


def test_headlines_state_what_was_found_against_each_bar(paper):
    lines = paper.tables.headlines.itertuples()
    found = {(line.question, line.dataset, line.cuts): line for line in lines}
    assert found["RQ1", "iris", 3].value == pytest.approx(1.3)
    outcomes = [found["RQ2", "iris", cuts].outcome for cuts in (1, 2, 3)]
    assert outcomes == ["met", "not met", "not met"]
    assert found["RQ1", "iris", 3].outcome == "met"
    assert (found["RQ3", "iris", 2].value, found["RQ3", "iris", 2].outcome) == (1.6, "as found")
    assert found["RQ2", "mnist", 1].outcome == "not measured"
    assert found["RQ4", "mnist", 2].outcome == "0 is inside the interval"
    assert found["RQ5", "mnist", 3].outcome == "0 is outside the interval"


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"dataset": "mnist"}, {"model": {"ansatz_reps": 2}}, {"epochs": 11}]
)
def test_runs_that_differ_in_more_than_what_is_compared_are_no_pair(tmp_path, other):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", trained(2.0))
    study.add("training", "train", trained(3.0), cuts=3, **other)
    data = data_of(study)
    assert rows(data, "accuracy_differences") == []
    assert len(unmatched(data, "accuracy_differences")) == 2  # neither is dropped silently
    lines = data.tables.headlines
    assert lines[lines.question == "RQ1"].value.isna().all()


def test_runs_that_differ_in_more_than_their_seed_share_no_row(tmp_path):
    study = small(tmp_path)
    study.add("training", "train", trained(9.0), workers=2)
    names = {row.series for row in rows(data_of(study), "fig7_accuracy")}
    assert names == {"ours, 8 workers", "ours, 2 workers"}


def test_causes_have_a_row_for_each_variation(paper):
    found = {row.variant: row for row in rows(paper, "causes")}
    assert list(found) == [
        "1 worker",
        "2 workers",
        "8 workers",
        "8 workers, the simulator's own choice of threads",
        "1 worker, measurements deferred",
    ]
    assert [row.t_exec for row in found.values()] == [4.0, 2.0, 2.5, 7.5, 0.5]
    row = found["2 workers"]
    assert (row.t_part, row.t_gen, row.t_exec, row.t_rec) == (0.1, 0.4, 2.0, 1.0)
    assert (row.t_exec_low, row.t_exec_high) == pytest.approx((1.8, 2.2))
    assert (row.share, row.share_high) == pytest.approx((1 / 3.5, 1 / 3.3))
    assert (row.n, row.simulator_threads, row.deferred, row.spread) == (3, "1", False, "min–max")


def test_changes_are_compared_with_the_plain_pipeline(paper):
    found = {row.variant: row for row in rows(paper, "changes")}
    free = found["8 workers, the simulator's own choice of threads"]
    assert (free.over, free.t_exec_ratio, free.overlap, free.threads_held) == (
        "8 workers",
        3,
        False,
        2,
    )
    deferred = found["1 worker, measurements deferred"]
    assert (deferred.over, deferred.t_exec_ratio, deferred.n) == ("1 worker", 0.125, 3)
    assert (deferred.share_before, deferred.share_after) == pytest.approx((1 / 5.5, 1 / 2))
    more = found["8 workers"]
    assert (more.over, more.t_exec_ratio, more.paper_share) == ("1 worker", 0.625, 0.489)
    # T_rec / (T_rec + T_part + T_gen + T_exec of 1 worker / 8)
    assert more.share_if_divided == pytest.approx(1 / (1 + 0.5 + 4 / 8))
    assert "1 worker" not in found


def test_variations_of_other_seeds_are_not_compared(tmp_path):
    study = StudyFolder(tmp_path / "study")
    add_causes(study, [(8, 1, False, 2.0, 1.0)])
    add_causes(study, [(8, None, False, 1.0, 1.0)], seed=2)
    data = data_of(study)
    assert len(rows(data, "causes")) == 2
    assert rows(data, "changes") == []
    assert "threads of simulators" in data.why()["not_measured"]


def test_the_cost_model_is_validated_as_predict_validates_it(tmp_path):
    study = StudyFolder(tmp_path / "study")
    seconds = [{"total": 0.001 * n + 0.0001 * (n % 3), "subexperiments": n} for n in range(1, 16)]
    study.add("scaling", "train", trained(1.0), queries=seconds)
    row = one(data_of(study), "cost_model")
    (own,) = CostModel.fit(*read_costs(study.path)).setups
    assert row.configurations == own.validation.configurations
    assert row.error_total == pytest.approx(own.validation.median_error["total"])
    assert row.p90_error_total == pytest.approx(own.validation.p90_error["total"])


def test_a_study_too_small_for_a_cost_model_says_so(tmp_path):
    study = small(tmp_path)
    study.add("scaling", "train", trained(1.0), queries=[{}])
    study.add("stragglers", "train", trained(1.0), queries=[{"retries": 1}])
    data = data_of(study)
    assert rows(data, "cost_model") == []
    assert data.tables.left_out == {
        "tasks were repeated or missing": 1,
        "setups with too few configurations": 1,
    }


def test_failed_runs_and_departures_from_the_protocol_are_listed(paper, tmp_path):
    (failed,) = paper.remarks["failed"]
    assert (failed["seed"], failed["attempts"], failed["cause"]) == (9, 3, "Aer died")
    (unfinished,) = paper.remarks["unfinished"]
    assert (unfinished["seed"], unfinished["workers"]) == (10, 8)
    assert {"experiment": "stragglers", "p": 0.2, "runs": 8} in paper.remarks["delays"]
    study = StudyFolder(tmp_path / "study", scale="smoke")
    study.add("training", "train", trained(1.0), epochs=2, backend="statevector", samples=160)
    found = {
        (row["what"], row["found"], row["paper"]) for row in data_of(study).remarks["protocol"]
    }
    assert found >= {
        ("scale", "smoke", "the full matrix"),
        ("epochs", "2", "60"),
        ("samples", "160", "no limit"),
        ("cuts", "no run", "1, 2, 3"),
        ("backend", "statevector", "aer"),
    }


@pytest.mark.parametrize(
    ("changes", "origin"),
    [
        ({"backend": "statevector"}, "local simulator"),
        ({"backend": "fleet", "devices": 4}, "simulated fleet"),
        ({"backend": "fake_sherbrooke"}, "fake backend"),
        ({"backend": "ibm_fez"}, "real backend ibm_fez"),
    ],
)
def test_simulated_fake_and_real_results_are_labelled(tmp_path, changes, origin):
    study = StudyFolder(tmp_path / "study")
    study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}], **changes)
    assert {row.origin for row in rows(data_of(study), "stage_shares")} == {origin}


def test_studies_without_a_sound_run_say_what_to_do(tmp_path):
    study = StudyFolder(tmp_path / "empty", scale="smoke")
    with pytest.raises(RecordError, match="holds no run: start it with `dest study run paper"):
        load_study(study.path)
    other = small(tmp_path, runs=["0" * 12])
    with pytest.raises(RecordError, match="mixture of two studies: 2 of its runs"):
        load_study(other.path)
    study = small(tmp_path / "more")
    for path in study.path.glob("runs/*/result.json"):
        path.write_text("{")
    with pytest.raises(RecordError, match=r"no run of .* can be read: .*result\.json is damaged"):
        load_study(study.path)


@pytest.fixture
def damaged(tmp_path):
    """Changes a document of a study with three runs; gives the study and the first run's folder."""

    def damage(name, content=None, **changes):
        study = small(tmp_path)
        study.add("training", "train", trained(4.0), cuts=3, seed=2)
        folder = next((study.path / "runs").iterdir())
        path = study.path / name if name == "study.json" else folder / name
        if content is None:
            document = json.loads(path.read_text())
            for key, value in changes.items():
                document[key] = {**document[key], **value} if isinstance(value, dict) else value
            content = json.dumps(document)
        path.write_text(content)
        return study, folder

    return damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "study.json", "content": "{"}, "study.json is damaged: it is not JSON"),
        ({"name": "run.json", "schema_version": 2}, "schema version 2 .* install a newer"),
        ({"name": "run.json", "run_id": "0" * 12}, "mixture of two studies"),
        ({"name": "result.json", "run_id": "f" * 12}, "mixture of two studies"),
    ],
)
def test_what_is_no_study_is_refused(damaged, change, message):
    study, _ = damaged(**change)
    with pytest.raises(RecordError, match=message):
        load_study(study.path)
    (study.path / "study.json").unlink()
    with pytest.raises(RecordError, match=r"is no study: it has no study\.json"):
        load_study(study.path)


RESULTS = {
    "training_seconds": ("2", r".* - at `results.training_seconds`"),
    "median_seconds": (-1.0, r".* >= 0.0 - at `results.median_seconds`"),
    "test_accuracy": (math.inf, "it is not JSON .Infinity is no finite number"),
    "lower_bound": ([], r".* - at `results.lower_bound`"),
}
CURVES = {
    r".* - at `results.robustness\[...\]\[0\]\[0\]`": ["a"],
    "`robustness` holds no curves": [0.1, 0.5],
    ".*`magnitude` is 1000000000.0: give radians from 0": [1e9, 0.5, 0.4, 0.6],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "result.json", "content": '{"schema_ver'}, "result.json is damaged: .* not JSON"),
        ({"name": "run.json", "config": {"cuts": "3"}}, "Expected `int.*` - at `config.cuts`"),
        ({"name": "run.json", "config": {"simulator_threads": 0}}, ">= 1 - at `config.simulator_"),
        *(
            ({"name": "result.json", "results": {key: value}}, f"result.json is damaged: {message}")
            for key, (value, message) in RESULTS.items()
        ),
        *(
            (
                {"name": "result.json", "results": {"robustness": {"gaussian": [point]}}},
                f"result.json is damaged: {message}",
            )
            for message, point in CURVES.items()
        ),
        ({"name": "queries.jsonl", "content": "{}\n{}\n"}, "queries.jsonl, line 1 is unreadable"),
    ],
)
def test_a_damaged_run_is_left_out_and_named(damaged, change, message):
    study, folder = damaged(**change)
    data = data_of(study)
    ((run_id, why),) = data.study.damaged.items()
    assert run_id == folder.name
    assert re.search(message, why), why
    assert data.counts == {"damaged": 1, "done": 2}
    (failed,) = data.remarks["failed"]
    assert (failed["run"], failed["cause"]) == (run_id, why)
    assert run_id not in " ".join(row.runs for row in rows(data, "fig4_training_time"))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"t_total": math.nan}, "`t_total` of query 0"),
        ({"num_queries": 0}, "holds no query"),
        ({"num_cuts": -1}, "the records of run .* are damaged: `num_cuts` of query 0 .* is -1"),
    ],
)
def test_queries_without_times_and_counts_are_left_out(tmp_path, query, message):
    study = small(tmp_path)
    folder = study.add("shares", "queries", {}, "reference", [query], cuts=1)
    (next(study.path.glob("runs/*/result.json")).with_name("run.json")).unlink()
    damaged = load_study(study.path).damaged
    assert re.search(message, damaged.pop(folder.name))
    (why,) = damaged.values()
    assert re.search(r"cannot read .*run.json: No such file", why)
