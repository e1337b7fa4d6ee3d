"""A study's tables and figures against numbers worked out by hand, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import file_size_limit
from study_folders import (
    CAUSES,
    StudyFolder,
    add_causes,
    on_machine,
    paper_study,
    query_record,
    sampled_by,
    trained,
)

from distributed_estimator.analysis.cost_files import read_costs
from distributed_estimator.analysis.costs import CostModel
from distributed_estimator.analysis.escape import csv_text, figure_text, markdown, one_line
from distributed_estimator.analysis.page.timeline import timelines_of
from distributed_estimator.analysis.study.data import study_data
from distributed_estimator.analysis.study.figures import CUT_COLOURS, CUT_HATCHES
from distributed_estimator.analysis.study.groups import mean_interval, pairs
from distributed_estimator.analysis.study.report import replaced_files, write_report, write_text
from distributed_estimator.analysis.study.runs import load_study
from distributed_estimator.analysis.study.text import cost_told, markdown_of
from distributed_estimator.analysis.study.text import told as headline_told
from distributed_estimator.cli.main import main
from distributed_estimator.cli.study_report import report
from distributed_estimator.errors import MissingExtraError, RecordError
from distributed_estimator.records import RecordWriter

HOSTILE = "=1|<b>\x1b[31m`$x_1$`\n[a](http://x) *\u202e"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The folder of a study with all experiments, its data and its report, drawn once."""
    path = tmp_path_factory.mktemp("paper") / "study"
    study = paper_study(path)
    study.add("training", "train", cause="Aer died", cuts=3, seed=9)
    study.add("training", "train", cuts=3, seed=10)
    return path, study_data(load_study(path)), write_report(path, command="dest study report DIR")


def bars(data, name):
    """The bars of a figure by data set, series and cuts."""
    (chart,) = (chart for chart in data.charts if chart.name == name)
    return {(bar.dataset, bar.series, bar.cuts): bar for bar in chart.bars}


def rows(data, name):
    """The rows of a table."""
    return next(sheet.rows for sheet in data.sheets if sheet.name == name)


def small(tmp_path, **more):
    """A study with one pair of trainings."""
    study = StudyFolder(tmp_path / "study", **more)
    study.add("training", "train", trained(2.0))
    study.add("training", "train", trained(3.0), cuts=3)
    return study


def data_of(study):
    return study_data(load_study(study.path))


def test_training_time_is_the_median_over_seeds_with_min_and_max(paper):
    bar = bars(paper[1], "fig4_training_time")["iris", "ours", 2]
    assert (bar.value, bar.low, bar.high, bar.n) == (24, 12, 36, 3)
    assert (bar.basis, bar.spread, len(bar.runs)) == ("measured", "min–max", 3)


def test_the_references_training_time_is_extrapolated_and_says_from_how_many_queries(paper):
    bar = bars(paper[1], "fig4_training_time")["iris", "the paper's pipeline", 1]
    # Queries of 10, 20 and 30 s; a training asks 1000 of them.
    assert (bar.value, bar.low, bar.high) == (20_000, 10_000, 30_000)
    assert (bar.basis, bar.queries) == ("extrapolated", 3)
    told = [line.told for line in paper[1].deviations if line.kind == "extrapolated"]
    assert "iris, the paper's pipeline, 1 cut: from 3 measured queries" in told


def test_what_cannot_be_extrapolated_is_listed_and_has_no_bar(paper):
    assert ("mnist", "the paper's pipeline", 1) not in bars(paper[1], "fig4_training_time")
    alone = [line for line in paper[1].deviations if line.kind == "no partner"]
    assert any("cannot be extrapolated" in line.told for line in alone)


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
    found = bars(data_of(extrapolating(tmp_path, (40.0, other))), "fig4_training_time")
    bar = found["iris", "the paper's pipeline", 1]
    assert (bar.value, bar.low, bar.high, bar.queries) == (500, 500, 500, 2)


def test_a_delay_that_nothing_has_is_no_difference(tmp_path):
    study = extrapolating(tmp_path, (7.0, {"straggler_p": 0, "straggler_delay": 0.1, "seed": 2}))
    bar = bars(data_of(study), "fig4_training_time")["iris", "the paper's pipeline", 1]
    assert (bar.value, bar.queries) == (600, 4)


def test_two_widths_of_a_data_set_are_two_series(tmp_path):
    study = extrapolating(tmp_path)
    study.add("training", "train", trained(1.0, queries=20), cuts=1, qubits=6)
    study.add("training", "train", trained(1.0, queries=200), cuts=1, qubits=6, epochs=20)
    study.add("training", "train", trained(1.0, queries=100), cuts=1, policy="batches")
    queries = [{"total": 3.0}]
    study.add("shares", "queries", {}, "reference", queries, cuts=1, qubits=6)
    chart = next(one for one in data_of(study).charts if one.name == "fig4_training_time")
    found = {bar.series: bar.value for bar in chart.bars if bar.basis == "extrapolated"}
    assert found == {
        "the paper's pipeline, epochs 10, 4 qubits": 500,
        "the paper's pipeline, epochs 10, 6 qubits": 60,
        "the paper's pipeline, epochs 20, 6 qubits": 600,
    }
    names = [(bar.dataset, bar.series, bar.cuts) for bar in chart.bars]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("queries", [-100, 0, None])
def test_a_training_without_a_number_of_queries_is_not_extrapolated(tmp_path, queries):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", trained(1.0, queries=queries), cuts=1)
    study.add("shares", "queries", {}, "reference", [{"total": 5.0}], cuts=1)
    data = data_of(study)
    assert set(bars(data, "fig4_training_time")) == {("iris", "ours", 1)}
    told = [line.told for line in data.deviations if line.what == "fig4_training_time"]
    assert any("does not tell how many reference queries" in line for line in told)


def test_speed_up_is_the_time_of_one_worker_over_that_of_sixteen(paper):
    bar = bars(paper[1], "fig5_speed_up")["mnist", "ours", 1]
    assert bar.value == pytest.approx((8 + 1) / (2 + 1))
    assert (bar.n, bar.spread) == (1, "none (n = 1)")
    found = {row.workers: row.value for row in rows(paper[1], "speed_ups") if row.cuts == 0}
    assert found[4] == pytest.approx(2)
    assert set(found) == {2, 4, 8, 16}


def test_data_sets_with_other_numbers_of_workers_are_all_drawn(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for dataset, most in (("iris", 8), ("mnist", 16)):
        for workers in (1, 4, most):
            study.add("scaling", "train", trained(32.0 / workers), dataset=dataset, workers=workers)
    data = data_of(study)
    found = bars(data, "fig5_speed_up")
    assert {key: bar.value for key, bar in found.items()} == {
        ("iris", "ours, 8 workers", 0): 8,
        ("mnist", "ours, 16 workers", 0): 16,
    }
    (chart,) = (chart for chart in data.charts if chart.name == "fig5_speed_up")
    assert chart.unmatched == ()
    assert chart.title.endswith("speed-up of the most workers over 1")


def test_a_table_says_how_many_runs_are_in_none_of_its_rows(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for workers, seed in ((1, 1), (4, 1), (1, 2)):
        study.add("scaling", "train", trained(1.0), workers=workers, seed=seed)
    for seed, p in ((1, 0.0), (1, 0.2), (2, 0.2)):
        place = {"straggler_p": p, "straggler_delay": 0.1}
        study.add("stragglers", "train", trained(1.0), seed=seed, **place)
    sheets = {sheet.name: sheet for sheet in data_of(study).sheets}
    text = markdown_of(sheets["fig5_speed_up"])
    assert text.endswith(
        "From experiment scaling, 2 runs.  \n1 run is in no row: see the deviations.\n"
    )
    assert sheets["policies"].unmatched  # without a ratio, and in its rows all the same
    text = markdown_of(sheets["policies"])
    assert text.endswith("From experiments stragglers and policies, 3 runs.\n")


def test_costs_come_from_all_experiments(paper):
    text = markdown_of(paper[1].costs)
    assert re.search(r"From all experiments, \d+ runs\.\n$", text)
    assert "others of the same circuit stay in the fit" in text


def test_one_worker_alone_is_not_compared_with_itself(tmp_path):
    study = StudyFolder(tmp_path / "study")
    study.add("scaling", "train", trained(1.0), workers=1)
    (chart,) = (chart for chart in data_of(study).charts if chart.name == "fig5_speed_up")
    assert chart.title.endswith("speed-up of 16 workers over 1")
    assert chart.bars == ()
    assert [one.why for one in chart.unmatched] == [
        "nothing to compare between 1 and 16 workers with it"
    ]


def test_slow_down_is_the_time_with_stragglers_over_that_without(paper):
    bar = bars(paper[1], "fig6_slow_down")["iris", "ours", 3]
    assert bar.value == pytest.approx(1.4)


def test_robustness_is_the_mean_above_zero_averaged_over_gaussian_and_fgsm(paper):
    bar = bars(paper[1], "fig8_robustness")["iris", "ours", 0]
    assert bar.value == pytest.approx(((0.8 + 0.6) / 2 + 0.7) / 2)


def test_robustness_names_what_was_run(paper, tmp_path):
    (chart,) = (chart for chart in paper[1].charts if chart.name == "fig8_robustness")
    assert chart.title.endswith("(mean accuracy under Gaussian noise and FGSM)")
    study = StudyFolder(tmp_path / "study")
    results = trained(1.0)
    del results["robustness"]["fgsm"]
    study.add("training", "train", results)
    (chart,) = (chart for chart in data_of(study).charts if chart.name == "fig8_robustness")
    assert chart.title.endswith("(mean accuracy under Gaussian noise)")


def test_table_1_stands_beside_the_papers(paper):
    found = {(row.series, row.cuts): row for row in rows(paper[1], "table1_reconstruction_share")}
    ours, theirs = found["ours", 3], found["the paper's pipeline", 3]
    assert (ours.n, ours.median_share) == (2, pytest.approx(0.04))
    assert (theirs.n, theirs.median_share) == (3, pytest.approx(0.5))
    assert (ours.paper_n, ours.paper_median_share, ours.paper_p95_share) == (5, 0.53, 0.58)
    assert found["ours", 0].paper_n is None


def test_stage_shares_before_and_after_add_up(paper):
    stages = [row for row in rows(paper[1], "stage_shares") if row.cuts == 2]
    for series, share in (("ours", 0.03), ("the paper's pipeline", 0.5)):
        mine = {row.stage: row.share for row in stages if row.series == series}
        assert mine["reconstruct"] == pytest.approx(share)
        assert sum(mine.values()) - mine["total"] == pytest.approx(1)


def test_savings_compare_matched_runs_of_both_pipelines(paper):
    row = next(row for row in rows(paper[1], "savings") if row.cuts == 3)
    assert (row.paper_subexperiments, row.our_subexperiments, row.n) == (864, 30, 1)
    assert row.fewer_subexperiments == row.fewer_shots == pytest.approx(28.8)


def test_policies_stand_beside_the_bound_where_there_is_one(paper):
    found = {(row.series, row.p): row for row in rows(paper[1], "policies")}
    row = found["ours, eager", 0.2]
    assert (row.value, row.low, row.high) == pytest.approx((0.5, 0.3, 0.7))
    assert (row.over_clean, row.over_bound) == pytest.approx((5, 0.5 / 0.07))
    assert found["ours", 0.2].lower_bound is None
    assert found["ours, eager", 0.0].over_clean == 1


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
    found = {row.p: row for row in rows(data, "policies")}
    assert found[0.2].value == 110  # medians of all runs are 110 s and 10 s
    assert found[0.2].over_clean == bars(data, "fig6_slow_down")["iris", "ours", 0].value == 2
    assert (found[0.1].value, found[0.1].over_clean) == (5, None)
    told = [line.told for line in data.deviations if line.what == "policies"]
    assert any("no finished partner between p = 0 and p = 0.1" in line for line in told)


def test_differences_are_paired_by_seed_with_students_interval(paper):
    found = {
        (row.metric, row.cuts): row
        for row in rows(paper[1], "accuracy_differences")
        if row.dataset == "iris"
    }
    row = found["test accuracy", 2]  # differences 0.01, 0.02 and 0.03
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (row.value, row.low, row.high) == pytest.approx((0.02, 0.02 - half, 0.02 + half))
    assert (row.n, row.zero) == (3, "inside")
    assert found["robustness", 3].zero == "outside"


def test_one_seed_has_no_interval(tmp_path):
    found = rows(data_of(small(tmp_path)), "accuracy_differences")
    assert {row.zero for row in found} == {"no interval: one seed only"}
    assert math.isnan(mean_interval([0.5]).low)


def test_equal_differences_have_no_interval_of_no_width(tmp_path):
    study = StudyFolder(tmp_path / "study")
    # 0.95 - 0.9 and 1 - 0.95 are equal but for their rounding.
    for seed, (uncut, cut) in enumerate(((0.9, 0.95), (0.95, 1.0)), start=1):
        study.add("training", "train", trained(1.0, uncut), seed=seed)
        study.add("training", "train", trained(1.0, cut), seed=seed, cuts=3)
    data = data_of(study)
    row = next(row for row in rows(data, "accuracy_differences") if row.metric == "test accuracy")
    assert row.value == pytest.approx(0.05)
    assert (row.n, row.zero) == (2, "no spread: all 2 equal")
    assert math.isnan(row.low)
    (line,) = (one for one in data.headlines if one.question == "RQ4" and one.value is not None)
    assert line.outcome == "no spread: all 2 equal"
    assert "interval" not in headline_told(line)
    (bar,) = (
        bar for bar in bars(data, "accuracy_differences").values() if "accuracy" in bar.dataset
    )
    assert not bar.has_spread
    write_report(study.path)


def test_fleet_times_are_per_stage_by_devices_in_natural_order(paper):
    found = [row for row in rows(paper[1], "fleet_stages") if row.stage == "total"]
    assert [row.series for row in found[::4]] == [
        "ours, 1 device",
        "ours, 4 devices",
        "ours, 16 devices",
    ]
    assert found[-1].median_seconds == pytest.approx(0.25)
    assert {row.origin for row in found} == {"simulated fleet"}


def test_headlines_state_what_was_found_against_each_bar(paper):
    found = {(line.question, line.dataset, line.cuts): line for line in paper[1].headlines}
    assert found["RQ1", "iris", 3].value == pytest.approx(1.3)
    assert found["RQ1", "iris", 3].outcome == "met"
    outcomes = [found["RQ2", "iris", cuts].outcome for cuts in (1, 2, 3)]
    assert outcomes == ["met", "not met", "not met"]
    assert found["RQ2", "mnist", 1].outcome == "not measured"
    assert found["RQ4", "mnist", 2].outcome == "0 is inside the interval"
    assert found["RQ5", "mnist", 3].outcome == "0 is outside the interval"


def test_nothing_is_concluded_where_nothing_was_measured(tmp_path):
    study = StudyFolder(tmp_path / "study", scale="smoke")
    study.add("training", "train", cause="no memory")
    data = data_of(study)
    assert {line.outcome for line in data.headlines} == {"not measured"}
    assert data.missing == (
        *("training", "scaling", "shares", "stragglers", "policies", "fleet", "causes"),
    )
    written = write_report(study.path)
    assert [path.name for path in written.files] == [
        "deviations.md",
        "explanation.md",
        "summary.md",
        "summary.json",
        "report.html",
    ]
    assert "--scale smoke --out" in (study.path / "report" / "summary.md").read_text()


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"dataset": "mnist"}, {"model": {"ansatz_reps": 2}}, {"epochs": 11}]
)
def test_runs_that_differ_in_more_than_what_is_compared_are_no_pair(tmp_path, other):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", trained(2.0))
    study.add("training", "train", trained(3.0), cuts=3, **other)
    data = data_of(study)
    assert not rows(data, "accuracy_differences")
    told = [line.told for line in data.deviations if line.what == "accuracy_differences"]
    assert len(told) == 2  # neither run is dropped silently
    assert all(line.value is None for line in data.headlines if line.question == "RQ1")


def test_pairs_tell_what_has_no_partner(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for workers, seed in ((1, 1), (16, 1), (16, 2)):
        study.add("scaling", "train", trained(1.0), workers=workers, seed=seed)
    runs = load_study(study.path).runs
    base = [run for run in runs if run.config["workers"] == 1]
    found, alone = pairs(
        base, [run for run in runs if run not in base], ("workers",), "at 1 and 16"
    )
    assert [(pair.base.config["seed"], pair.other.config["seed"]) for pair in found] == [(1, 1)]
    assert [one.why for one in alone] == ["no finished partner at 1 and 16"]


def test_runs_that_differ_in_more_than_their_seed_share_no_bar(tmp_path):
    study = small(tmp_path)
    study.add("training", "train", trained(9.0), workers=2)
    assert {key[1] for key in bars(data_of(study), "fig7_accuracy")} == {
        "ours, 8 workers",
        "ours, 2 workers",
    }


def test_a_run_of_no_time_makes_no_ratio(tmp_path):
    study = StudyFolder(tmp_path / "study")
    study.add("scaling", "train", trained(1.0), workers=1)
    study.add("scaling", "train", trained(0.0), workers=16)
    data = data_of(study)
    assert not bars(data, "fig5_speed_up")
    assert any("no time above 0 s" in line.told for line in data.deviations)


def because(study, **threads):
    """Sentences of the explanation by what stands behind them."""
    on_machine(study.path, **threads)
    found = {}
    for reason in data_of(study).reasons:
        found.setdefault(reason.text.split(" (")[0], []).append(reason)
    return found


def caused(tmp_path, variants=CAUSES, **changes):
    """A study of the variations of the paper's pipeline alone."""
    study = StudyFolder(tmp_path / "study")
    add_causes(study, variants, **changes)
    return study


def test_causes_have_a_row_for_each_variation(paper):
    found = {row.variant: row for row in rows(paper[1], "causes")}
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
    text = (paper[0] / "report" / "tables" / "causes.md").read_text()
    assert "| yes |" in text
    assert "the simulator's own choice" in text


def test_threads_are_told_with_their_ratio_processors_and_count(tmp_path):
    (reason,) = because(caused(tmp_path), usable_cpus="2")["Thread oversubscription"]
    assert "(mnist, 2 cuts, 8 workers, 2 usable processors)" in reason.text
    assert "7.5 s where the simulator chooses its own number of threads (at most 2)" in reason.text
    assert "2.5 s with one thread for each worker: 3 times as long" in reason.text
    assert "n = 3 (6.75 to 8.25 s) and n = 3 (2.25 to 2.75 s)" in reason.text
    assert (reason.basis, reason.table) == ("measured", "causes")


@pytest.mark.parametrize(("held", "warned"), [(1, True), (2, False), (None, False)])
def test_the_threads_that_held_decide_whether_the_own_choice_was_measured(tmp_path, held, warned):
    # What the header says of OMP_NUM_THREADS does not: it is lifted for these runs.
    found = because(caused(tmp_path, held=held), usable_cpus="2", OMP_NUM_THREADS="1")
    (reason,) = found["Thread oversubscription"]
    assert ("could have no more than 1 thread there, either" in reason.text) is warned
    assert ("(at most " in reason.text) is (held is not None)
    assert "OMP_NUM_THREADS" not in reason.text


NO_CAUSE = "More threads are faster here, so oversubscription is no cause of the difference."


@pytest.mark.parametrize(
    ("free", "held", "told", "refuted"),
    [
        (2.6, 2, "1.04 times as long, which counts as no difference", False),
        (1.0, 2, "0.4 times as long (", True),
        (1.0, 1, "0.4 times as long (", False),  # there were no more threads
        (2.2, 2, "0.88 times as long, though the ranges overlap", False),
        (2.9, 2, "1.16 times as long, though the ranges overlap", False),
    ],
)
def test_what_makes_no_difference_is_said_so(tmp_path, free, held, told, refuted):
    variants = [(8, 1, False, 2.5, 1.0), (8, None, False, free, 1.0)]
    study = caused(tmp_path, variants, held=held)
    (reason,) = because(study, usable_cpus="2")["Thread oversubscription"]
    assert told in reason.text
    assert reason.text.endswith(NO_CAUSE) is refuted


def test_deferred_measurements_are_compared_on_as_many_workers(tmp_path):
    (reason,) = because(caused(tmp_path), usable_cpus="2")["Mid-circuit measurement"]
    assert "(mnist, 2 cuts, 1 worker)" in reason.text
    assert "is 4 s with measurements inside circuits" in reason.text
    assert "0.5 s with the same ones deferred" in reason.text
    assert "8 times as long" in reason.text
    assert "T_rec/T_total is 0.182, and deferred 0.5. The paper's Table I states" in reason.text
    assert "states 0.489 with 2 cuts (n = 28). So the share depends on how long" in reason.text
    assert reason.text.endswith(
        " No other change that was measured moves it as far (2 workers: 0.286; 8 workers: 0.25; "
        "8 workers, the simulator's own choice of threads: 0.111)."
    )


DEPENDS = "So the share depends on how long executing these circuits takes."


@pytest.mark.parametrize(
    ("execute", "rebuilt", "told"),
    [
        (0.5, 1.0, f"(n = 28). {DEPENDS}"),
        # 1 / (0.1 + 0.4 + 0.5 + 1)
        (
            0.5,
            2.0,
            "T_rec is 1 s, and deferred 2 s; with all but T_exec as it was, the medians would make "
            f"a share of 0.5. {DEPENDS}",
        ),
        (4.0, 3.0, "T_exec is not shorter with that, so nothing follows for the share."),
        (0.5, 0.2, "So the share does not rise here where these circuits are faster."),
        (3.4, 1.0, "The ranges of the shares overlap: what they depend on is not settled here."),
    ],
)
def test_what_the_share_depends_on_follows_from_the_runs(tmp_path, execute, rebuilt, told):
    study = caused(tmp_path, [(1, 1, False, 4.0, 1.0), (1, 1, True, execute, rebuilt)])
    (reason,) = because(study, usable_cpus="2")["Mid-circuit measurement"]
    assert reason.text.endswith(told)
    assert ("the share depends" in reason.text) is (DEPENDS in told)


def test_a_change_that_moves_the_share_further_than_deferring_is_told(tmp_path):
    study = caused(tmp_path, [*CAUSES, (16, 1, False, 0.1, 1.0)])
    (reason,) = because(study, usable_cpus="2")["Mid-circuit measurement"]
    assert "Another change that was measured moves it as far or further (2 workers: " in reason.text
    assert "16 workers: 0.625" in reason.text
    assert "No other change" not in reason.text


@pytest.mark.parametrize(
    ("sampler", "because_of"),
    [
        ("qiskit_aer.SamplerV2", ". Aer runs all jobs of a process one after another"),
        ("x.Y", ". What more"),
    ],
)
def test_threads_that_do_not_help_are_told_in_numbers(tmp_path, sampler, because_of):
    variants = [(1, 1, False, 4.0, 1.0), (2, 1, False, 4.2, 1.0), (8, 1, False, 4.1, 1.0)]
    study = caused(tmp_path, variants)
    sampled_by(study.path, sampler)
    (reason,) = because(study, usable_cpus="2")["Share of reconstruction"]
    assert "with 1, 2 and 8 workers, T_exec of a query" in reason.text
    assert "is 4, 4.2 and 4.1 s" in reason.text
    told = (
        "More workers do not help here: at best, T_exec is 1.02 times that of 1 worker, "
        "with 8 workers"
    )
    assert told + because_of in reason.text
    assert "What more processors would do to the share is not measured." in reason.text


def test_more_workers_that_help_later_are_not_overlooked(tmp_path):
    variants = [(1, 1, False, 4.0, 1.0), (2, 1, False, 4.0, 1.0), (8, 1, False, 1.0, 1.0)]
    (reason,) = because(caused(tmp_path, variants), usable_cpus="8")["Share of reconstruction"]
    assert "From 1 worker to 8, T_exec shrinks to 0.25 of it" in reason.text


def test_nothing_is_extrapolated_to_more_workers_than_aer_runs_jobs_for(tmp_path):
    found = because(caused(tmp_path), usable_cpus="2")
    (reason,) = found["Share of reconstruction"]
    assert "the share depends on how many workers there are. Aer runs all jobs of" in reason.text
    assert "Extrapolated, not measured" not in found


def test_the_share_is_told_by_workers_and_extrapolated_openly(tmp_path):
    study = caused(tmp_path)
    sampled_by(study.path, "x.Y")
    found = because(study, usable_cpus="2")
    (reason,) = found["Share of reconstruction"]
    assert "with 1, 2 and 8 workers, T_exec of a query" in reason.text
    assert "is 4, 2 and 2.5 s, T_rec 1, 1 and 1 s, and T_rec/T_total 0.182, 0.286 and 0.25" in (
        reason.text
    )
    assert "From 1 worker to 2, T_exec shrinks to 0.5 of it, and T_rec" in reason.text
    assert "the share depends on how many workers there are. The paper's Table I" in reason.text
    assert "states 0.489 with 2 cuts (n = 28)" in reason.text
    (far,) = found["Extrapolated, not measured"]
    # 1 / (1 + 0.1 + 0.4 + 4 / 8)
    assert "would be 0.5, from medians of n = 3 with 1 worker" in far.text
    assert far.basis == "extrapolated"
    told = [line.told for line in data_of(study).deviations if line.kind == "extrapolated"]
    assert told == [far.text]


@pytest.mark.parametrize(
    ("execute", "rebuilt", "told"),
    [
        (4.0, 1.0, "at best, T_exec is 1 times that of 1 worker, with 2"),
        (2.0, 0.5, "both shrink here (T_exec to 0.5 of it, T_rec to 0.5)"),
    ],
)
def test_nothing_is_extrapolated_from_what_the_runs_do_not_say(tmp_path, execute, rebuilt, told):
    study = caused(tmp_path, [(1, 1, False, 4.0, 1.0), (2, 1, False, execute, rebuilt)])
    found = because(study, usable_cpus="1")
    assert told in found["Share of reconstruction"][0].text
    assert "Extrapolated, not measured" not in found


def test_a_processor_for_each_worker_needs_no_extrapolation(tmp_path):
    study = caused(tmp_path)
    sampled_by(study.path, "x.Y")
    found = because(study, usable_cpus="8")
    assert "Share of reconstruction" in found
    assert "Extrapolated, not measured" not in found


def test_variations_of_other_seeds_are_not_compared(tmp_path):
    study = caused(tmp_path, CAUSES[2:3])
    add_causes(study, CAUSES[3:4], seed=2)
    found = because(study, usable_cpus="2")
    assert "Thread oversubscription" not in found
    assert any("Thread oversubscription is not measured" in text for text in found)


def test_what_was_not_measured_of_the_causes_is_said_so(tmp_path):
    found = [reason for reason in data_of(small(tmp_path)).reasons if reason.basis != "measured"]
    told = " ".join(reason.text for reason in found)
    for what in ("deferred measurements", "threads", "number of workers", "repeated"):
        assert what in told
    text = write_report(tmp_path / "study").out.joinpath("explanation.md").read_text()
    assert all(reason.text.split(":")[0] in text for reason in found)


def test_causes_are_no_departure_from_the_protocol(tmp_path):
    found = [line for line in data_of(caused(tmp_path)).deviations if line.kind == "protocol"]
    assert found == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("simulator_threads", HOSTILE, "expected int"),
        ("simulator_threads", True, "expected int"),
        ("simulator_threads", 0, "expected at least 1"),
        ("defer_measurements", "yes", "expected bool"),
    ],
)
def test_a_variation_that_cannot_be_is_refused(tmp_path, key, value, expected):
    study = StudyFolder(tmp_path / "study")
    study.add("causes", "queries", {}, "reference", [{}], **{key: value})
    with pytest.raises(RecordError, match=rf"`config.{key}` is .*{expected}"):
        load_study(study.path)


def test_the_cost_model_is_validated_as_predict_validates_it(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for count in range(1, 13):
        noise = 1 + 0.1 * (-1) ** count
        queries = [{"total": 0.01 * count * noise * m, "subexperiments": count} for m in (1, 1.2)]
        study.add("scaling", "train", trained(1.0), queries=queries, seed=count)
    (row,) = rows(data_of(study), "cost_model")
    (setup,) = CostModel.fit(*read_costs(study.path)).setups
    assert row.setup == str(setup.setup)
    assert (row.configurations, row.n, len(row.runs)) == (12, 24, 12)
    assert row.error_total == pytest.approx(setup.validation.median_error["total"])
    assert row.error_execute == pytest.approx(setup.validation.median_error["execute"])
    assert row.p90_error_total == pytest.approx(setup.validation.p90_error["total"])
    assert 0 < row.error_total < 0.25
    assert row.outcome == ("met" if row.error_total <= 0.15 else "not met")
    assert 0.5 < row.inside_interval <= 1


def test_the_cost_model_of_exact_laws_meets_its_bar_and_is_in_the_summary(paper):
    (row,) = (row for row in rows(paper[1], "cost_model") if "statevector," in row.setup)
    assert (row.configurations, row.outcome) == (20, "met")
    assert row.error_total == pytest.approx(0, abs=1e-6)
    summary = (paper[0] / "report" / "summary.md").read_text()
    assert "bar: at most 0.15" in summary
    document = json.loads((paper[0] / "report" / "summary.json").read_text())
    told = {one["setup"]: one["outcome"] for one in document["cost_model"]["setups"]}
    assert told[row.setup] == "met"


def test_a_study_too_small_for_a_cost_model_says_so(tmp_path):
    study = StudyFolder(tmp_path / "study")
    study.add("shares", "queries", {}, queries=[{}])
    deferred = {"simulator_threads": None, "defer_measurements": True}
    query = {"backend": "qiskit_aer.SamplerV2(threads=all)", "pool": "none", "policy": "one job"}
    study.add("shares", "queries", {}, queries=[query], seed=2, **deferred)
    study.add("stragglers", "train", trained(1.0), queries=[{"retries": 1}])
    data = data_of(study)
    assert rows(data, "cost_model") == ()
    notes = " ".join(data.costs.notes)
    assert "2 setups are not validated: that takes 9 configurations" in notes
    assert "the most that one of these has is 1" in notes
    assert "simulator threads" not in notes  # its records tell them
    assert "1 record left out: tasks were repeated or missing" in notes
    summary = write_report(study.path).out.joinpath("summary.md").read_text()
    assert "Not measured. " in summary
    assert "2 setups are not validated" in summary


def test_whiskers_of_the_reference_need_several_measured_queries(tmp_path):
    study = StudyFolder(tmp_path / "study")
    for cuts, count in ((2, 1), (3, 5)):
        study.add("training", "train", trained(1.0), cuts=cuts)
        seconds = [{"total": 20.0 + number} for number in range(count)]
        study.add("shares", "queries", {"median_seconds": 20.0}, "reference", seconds, cuts=cuts)
    found = bars(data_of(study), "fig4_training_time")
    one, five = (found["iris", "the paper's pipeline", cuts] for cuts in (2, 3))
    assert (one.has_spread, one.spread) == (False, "none (1 query)")
    assert (five.low, five.high, five.queries) == (20_000, 24_000, 5)
    assert five.has_spread
    drawn = write_report(study.path).out / "figures" / "fig4_training_time.svg"
    # A whisker is a line with two caps, which are the marks of an error bar.
    assert drawn.read_text().count("LineCollection") == 1


def test_failed_runs_and_departures_from_the_protocol_are_listed(paper, tmp_path):
    text = (paper[0] / "report" / "deviations.md").read_text()
    assert "seed 9, 8 workers, eager, 3 attempts: Aer died" in text
    assert "seed 10, 8 workers" in text
    assert "delays injected with p = 0.2: 8 runs" in text
    study = StudyFolder(tmp_path / "study", scale="smoke")
    study.add("training", "train", trained(1.0), epochs=2, backend="statevector", samples=160)
    told = [line.told for line in data_of(study).deviations if line.kind == "protocol"]
    assert "epochs is 2; the paper's is 60" in told
    assert "samples is 160; the paper names no limit" in told
    assert "no finished run with cuts = 1, 2, 3" in told
    assert "the backend is statevector; the paper's is Aer's sampler" in told


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


def test_every_table_and_figure_is_written_and_none_is_empty(paper):
    out = paper[0] / "report"
    for sheet in paper[1].sheets:
        with (out / "tables" / f"{sheet.name}.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert len(table) == len(sheet.rows) > 0
        assert (out / "tables" / f"{sheet.name}.md").read_text().startswith("# ")
    names = {path.stem for path in (out / "figures").iterdir()}
    assert names == {chart.name for chart in paper[1].charts} | {"stage_shares", "fleet_stages"}
    assert {path.name for path in paper[2].files} >= {f"{name}.png" for name in names}


def test_a_figure_says_which_numbers_and_records_it_was_drawn_from(paper):
    out = paper[0] / "report"
    for path in (out / "figures").glob("*.json"):
        about = json.loads(path.read_text())
        digest = hashlib.sha256((out / about["data"]).read_bytes()).hexdigest()
        assert about["data_sha256"] == digest
        assert about["command"] == "dest study report DIR"
        assert about["records"]
        assert all((paper[0] / folder / "run.json").exists() for folder in about["records"])


@pytest.mark.soak
def test_redrawn_figures_have_the_same_bytes(tmp_path):
    study = small(tmp_path)
    first = write_report(study.path, tmp_path / "a", command="c")
    second = write_report(study.path, tmp_path / "b", command="c")
    assert {path.suffix for path in first.files} >= {".png", ".svg"}
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_what_cannot_be_made_any_more_is_removed_and_other_files_stay(tmp_path):
    study = small(tmp_path)
    out = study.path / "report"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "fig5_speed_up.png").write_bytes(b"old")
    (out / "mine.txt").write_text("mine")
    write_report(study.path)
    assert not (out / "figures" / "fig5_speed_up.png").exists()
    assert (out / "mine.txt").read_text() == "mine"


def test_compressed_records_give_the_same_tables(tmp_path):
    study = paper_study(tmp_path / "study")
    before = data_of(study)
    assert all(sheet.rows for sheet in before.sheets)
    for log in study.path.glob("runs/*/queries.jsonl"):
        log.with_name("queries.jsonl.gz").write_bytes(gzip.compress(log.read_bytes()))
        log.unlink()
    after = data_of(study)
    assert after.sheets == before.sheets
    assert after.reasons == before.reasons


def test_colours_of_cuts_can_be_told_apart_in_grey():
    def lightness(colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    levels = sorted(lightness(colour) ** (1 / 2.2) for colour in CUT_COLOURS.values())
    assert min(b - a for a, b in pairwise(levels)) > 0.08
    assert len(set(CUT_HATCHES.values())) == len(CUT_COLOURS) == 4


def test_hostile_names_do_no_harm_anywhere(tmp_path):
    study = StudyFolder(tmp_path / "study", name=HOSTILE, scale=HOSTILE)
    names = {"dataset": HOSTILE, "label": HOSTILE}
    study.add("training", "train", trained(2.0), policy=HOSTILE, **names)
    study.add("training", "train", trained(2.0), policy="a$b$", **names)
    study.add("training", "train", cause=HOSTILE)
    study.add("shares", "queries", {}, queries=[{"backend": HOSTILE}], backend=HOSTILE, **names)
    add_causes(study, policy=HOSTILE, **names)
    setup = {"backend": HOSTILE, "policy": HOSTILE, "pool": HOSTILE}
    batches = [{**setup, "subexperiments": count} for count in range(1, 11)]
    study.add("scaling", "train", trained(2.0), queries=batches, **names)
    on_machine(study.path, usable_cpus=HOSTILE, OMP_NUM_THREADS=HOSTILE)
    result = CliRunner().invoke(report, [str(study.path)], catch_exceptions=False)
    out = study.path / "report"
    for text in [result.output, *(path.read_text() for path in out.rglob("*.md"))]:
        assert "\x1b" not in text
        assert "\u202e" not in text
    for path in out.rglob("*.md"):
        assert "<b>" not in re.sub("`[^`]*`", "", path.read_text().replace(r"\`", ""))
    table = (out / "tables" / "fig7_accuracy.md").read_text().splitlines()
    cells = [line.replace(r"\|", "").count("|") for line in table if line.startswith("|")]
    assert len(set(cells)) == 1  # no name ends a cell or a row
    for path in out.rglob("*.csv"):
        with path.open(newline="") as file:
            assert not any(
                cell.startswith(("=", "@")) for line in csv.reader(file) for cell in line
            )
    for path in out.rglob("*.svg"):
        assert "<b>" not in path.read_text()
    (about,) = (json.loads(path.read_text()) for path in out.rglob("stage_shares.json"))
    assert about["study"] == HOSTILE  # JSON holds it as it is


def test_escapes():
    assert one_line("x" * 300, 10) == "x" * 9 + "…"
    assert one_line("\x1b]0;title\x07a\tb\x00") == "a b"
    assert markdown("a_b|c") == r"a\_b\|c"
    assert markdown("http://x www.y") == r"http\://x www\.y"
    assert csv_text("-1+1") == "'-1+1"
    assert figure_text("量子 ok") == "?? ok"


def test_the_command_prints_headlines_and_what_is_missing(tmp_path):
    study = small(tmp_path)
    run = CliRunner().invoke(report, [str(study.path), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert "1.5" in run.output
    assert "missing: scaling, shares, stragglers, policies, fleet, causes" in run.output
    assert "dest study run paper --scale full --out" in run.output
    assert (tmp_path / "out" / "figures" / "fig4_training_time.svg").exists()
    assert (
        "cost model: held-out configurations, median relative error of T_total (bar: at most"
        in (run.output)
    )
    assert "  not measured. No finished run holds a query." in run.output


@pytest.mark.soak
def test_the_command_prints_the_cost_model_setup_by_setup(paper, tmp_path):
    run = CliRunner().invoke(report, [str(paper[0]), "--out", str(tmp_path / "out")])
    _, after = run.output.split("cost model: ")
    lines = after.split("\ndeviations: ")[0].splitlines()[1:]
    sheet = paper[1].costs
    assert len(lines) == len(sheet.rows) > 0
    for line, row in zip(lines, sheet.rows, strict=True):
        assert line == f"  {row.setup}: {cost_told(row)}, {row.outcome}"


def test_json_output_is_one_document(tmp_path):
    study = small(tmp_path)
    run = CliRunner().invoke(report, [str(study.path), "--json"])
    document = json.loads(run.stdout)
    assert document["runs"] == {"done": 2}
    assert any(line["value"] == 1.5 for line in document["headlines"])
    assert document["environments"] == []  # no query was asked, so no header was written
    assert (study.path / "report").samefile(document["out"])
    assert all(Path(file).is_file() for file in document["files"])
    assert len(document["files"]) > 5


def broken(study, what):
    """Damages a study in one way."""
    folder = next((study.path / "runs").iterdir())
    document = json.loads((folder / "run.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    if what == "no study":
        (study.path / "study.json").unlink()
    elif what == "not JSON":
        (study.path / "study.json").write_text("{")
    elif what == "newer":
        (folder / "run.json").write_text(json.dumps({**document, "schema_version": 2}))
    elif what == "wrong type":
        document["config"]["cuts"] = "3"
        (folder / "run.json").write_text(json.dumps(document))
    elif what == "renamed":
        folder.rename(folder.with_name("0" * 12))
    elif what == "of another run":
        (folder / "result.json").write_text(json.dumps({**result, "run_id": "f" * 12}))
    elif what == "no number":
        result["results"]["training_seconds"] = "2"
        (folder / "result.json").write_text(json.dumps(result))
    elif what == "infinite":
        (folder / "result.json").write_text(
            json.dumps(result).replace('"test_accuracy": 0.9', '"test_accuracy": Infinity')
        )
    elif what == "curves":
        result["results"]["robustness"] = {"gaussian": [["a"]]}
        (folder / "result.json").write_text(json.dumps(result))
    elif what == "torn":
        (folder / "result.json").write_text('{"schema_ver')
    elif what == "no run.json":
        (folder / "run.json").unlink()
    elif what == "negative":
        result["results"]["training_seconds"] = -1.0
        (folder / "result.json").write_text(json.dumps(result))
    elif what == "far":
        result["results"]["robustness"] = {"gaussian": [[1e9, 0.5, 0.4, 0.6]]}
        (folder / "result.json").write_text(json.dumps(result))
    elif what == "no count":
        with RecordWriter(folder / "queries.jsonl") as log:
            log.write(query_record("contracted", document["config"], 0, num_cuts=-1))
    elif what == "damaged records":
        (folder / "queries.jsonl").write_text("{}\n{}\n")
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no study", "is no study: it has no study.json"),
        ("not JSON", "study.json is damaged: it is not JSON"),
        ("newer", "schema version 2 .* install a newer"),
        ("renamed", "mixture of two studies"),
        ("of another run", "mixture of two studies"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, what, message):
    study = small(tmp_path)
    broken(study, what)
    with pytest.raises(RecordError, match=message):
        write_report(study.path)
    assert not (study.path / "report").exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("torn", "result.json is damaged: it is not JSON"),
        ("no run.json", "cannot read .*run.json: No such file"),
        ("wrong type", "run.json is damaged: `config.cuts` is '3', expected int"),
        ("no number", "result.json is damaged: `training_seconds` is '2', expected a finite"),
        ("infinite", "result.json is damaged: `test_accuracy` is inf, expected a finite number"),
        ("negative", "result.json is damaged: `training_seconds` is -1.0, expected at least 0"),
        ("curves", "result.json is damaged: `robustness` holds no curves"),
        ("far", "result.json is damaged: .*`magnitude` is 1000000000.0: give radians from 0"),
        ("damaged records", "queries.jsonl, line 1 is unreadable"),
        ("no count", "the records in .* are damaged: `num_cuts` of query 0 .* is -1"),
    ],
)
def test_a_damaged_run_is_left_out_and_named(tmp_path, what, message):
    study = small(tmp_path)
    study.add("training", "train", trained(4.0), cuts=3, seed=2)
    folder = broken(study, what)
    data = data_of(study)
    ((run_id, why),) = data.study.damaged.items()
    assert run_id == folder.name
    assert re.search(message, why)
    assert data.study.counts == {"damaged": 1, "done": 2}
    (line,) = (line for line in data.deviations if line.kind == "failed")
    assert (line.what, line.told) == (run_id, f"left out, since {why}")
    drawn = {run for chart in data.charts for bar in chart.bars for run in bar.runs}
    assert len(drawn) == 2
    assert run_id not in drawn


def test_a_report_without_a_damaged_run_is_whole_and_ends_with_exit_code_2(tmp_path, capsys):
    study = small(tmp_path)
    folder = broken(study, "torn")
    assert main(["study", "report", str(study.path)]) == 2
    printed = capsys.readouterr()
    assert "runs 1 damaged, 1 done" in printed.out
    assert printed.err.startswith("dest: 1 run left out of the report: ")
    assert f"{folder / 'result.json'} is damaged" in printed.err
    assert "remove their folders, and `dest study run` repeats them" in printed.err
    assert folder.name in (study.path / "report" / "deviations.md").read_text()
    for path in study.path.glob("runs/*/result.json"):
        path.write_text("{")
    with pytest.raises(RecordError, match=r"no run of .* can be read: .*result\.json is damaged"):
        load_study(study.path)


def test_damaged_tasks_cost_a_timeline_alone(tmp_path, caplog):
    study = StudyFolder(tmp_path / "study")
    folder = study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}])
    (folder / "tasks.jsonl").write_text("{}\n{}\n")
    found = load_study(study.path)
    assert timelines_of(found) == ([], 1)
    assert "timeline left out: " in caplog.text
    assert "tasks.jsonl, line 1 is unreadable" in caplog.text
    assert data_of(study).study.counts == {"done": 1}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", ["nothing", "a report"])
@pytest.mark.parametrize("accident", ["full disk", "Ctrl-C"])
def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch, before, accident):
    study = small(tmp_path)
    out = tmp_path / "made" / "for it"
    if before == "a report":
        out.mkdir(parents=True)
        (out / "summary.md").write_text("earlier")
    there = contents(tmp_path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    if accident == "full disk":
        with file_size_limit(10_000), pytest.raises(RecordError) as caught:
            write_report(study.path, out)
        assert str(caught.value) == f"cannot write {out}: File too large"
    else:
        monkeypatch.setattr("distributed_estimator.analysis.study.report._write_figures", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_report(study.path, out)
    assert contents(tmp_path) == there
    assert out.exists() is (before == "a report")
    assert (tmp_path / "made").exists() is out.exists()


def test_an_interrupt_while_files_take_their_places_leaves_one_report(tmp_path, monkeypatch):
    out = tmp_path / "out"
    (out / "tables").mkdir(parents=True)
    for name in ("a.md", "tables/b.csv", "tables/gone.csv", "mine"):
        (out / name).write_text("earlier")
    replace, calls = Path.replace, []

    def interrupted(path, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)

    def write():
        with replaced_files(out, {"tables/b.csv", "tables/gone.csv"}) as new:
            for name in ("a.md", "tables/b.csv"):
                write_text(new / name, "new")

    with pytest.raises(KeyboardInterrupt):
        write()
    found = {path.relative_to(out).as_posix(): text for path, text in contents(out).items()}
    assert found == {
        "a.md": b"new",
        "tables/b.csv": b"new",
        "mine": b"earlier",
        "tables/gone.csv": b"earlier",
    }


def test_a_page_of_ones_own_is_not_replaced(tmp_path):
    study = small(tmp_path)
    (tmp_path / "report.html").write_text("<h1>My thesis</h1>")
    with pytest.raises(RecordError, match=r"report\.html` is there and is no report page"):
        write_report(study.path, tmp_path)
    assert (tmp_path / "report.html").read_text() == "<h1>My thesis</h1>"
    assert not (tmp_path / "summary.md").exists()


def test_without_matplotlib_nothing_is_written(tmp_path, monkeypatch):
    study = small(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="distributed-estimator\\[report\\]"):
        write_report(study.path)
    assert not (study.path / "report").exists()


@pytest.mark.parametrize(("stated", "created"), [("2030-01-01", "2030-01-01"), (7, "")])
def test_a_study_says_when_it_was_begun_where_that_is_known(tmp_path, stated, created):
    study = small(tmp_path, created_at=stated)
    assert load_study(study.path).created == created


def test_one_worker_is_no_workers(tmp_path):
    study = small(tmp_path)
    study.add("training", "train", cause="Aer died", workers=1)
    (line,) = (line for line in data_of(study).deviations if line.kind == "failed")
    assert "seed 1, 1 worker, eager, 3 attempts: Aer died" in line.told


def test_an_empty_study_says_how_to_begin_it(tmp_path):
    study = StudyFolder(tmp_path / "study", scale="smoke")
    with pytest.raises(RecordError, match="holds no run: start it with `dest study run paper"):
        load_study(study.path)


@pytest.mark.parametrize(
    "more",
    [
        {"runs": ["0" * 12]},
        {"config": {"experiments": {"scaling": {}}}},
        {"config": {"experiments": {"training": {"seeds": [5]}}}},
        {"config": {"shots": 10, "experiments": {"training": {}}}},
    ],
)
def test_runs_of_another_study_are_refused(tmp_path, more):
    study = small(tmp_path, **more)
    with pytest.raises(RecordError, match="mixture of two studies: 2 of its runs"):
        load_study(study.path)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"t_total": math.nan}, "a query of it has no finite times"),
        ({"num_queries": 0}, "its run is done and holds no query"),
    ],
)
def test_queries_without_times_are_left_out(tmp_path, query, message):
    study = small(tmp_path)
    folder = study.add("shares", "queries", {}, "reference", [query], cuts=1)
    damaged = data_of(study).study.damaged
    assert list(damaged) == [folder.name]
    assert message in damaged[folder.name]


def test_the_helpers_records_add_up():
    record = query_record(
        "contracted", {"label": "AA", "cuts": 1, "backend": "aer", "workers": 1}, 0
    )
    parts = record.t_partition + record.t_generate + record.t_execute + record.t_reconstruct
    assert parts == pytest.approx(record.t_total)
