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

import pytest
from click.testing import CliRunner
from study_folders import StudyFolder, paper_study, query_record, trained

from distributed_estimator.analysis.escape import csv_text, figure_text, markdown, one_line
from distributed_estimator.analysis.study.data import study_data
from distributed_estimator.analysis.study.figures import CUT_COLOURS, CUT_HATCHES
from distributed_estimator.analysis.study.groups import mean_interval, pairs
from distributed_estimator.analysis.study.report import write_report
from distributed_estimator.analysis.study.runs import load_study
from distributed_estimator.cli.study_report import report
from distributed_estimator.errors import MissingExtraError, RecordError

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


def test_speed_up_is_the_time_of_one_worker_over_that_of_sixteen(paper):
    bar = bars(paper[1], "fig5_speed_up")["mnist", "ours", 1]
    assert bar.value == pytest.approx((8 + 1) / (2 + 1))
    assert (bar.n, bar.spread) == (1, "none (n = 1)")
    found = {row.workers: row.value for row in rows(paper[1], "speed_ups") if row.cuts == 0}
    assert found[4] == pytest.approx(2)
    assert set(found) == {2, 4, 8, 16}


def test_slow_down_is_the_time_with_stragglers_over_that_without(paper):
    bar = bars(paper[1], "fig6_slow_down")["iris", "ours", 3]
    assert bar.value == pytest.approx(1.4)


def test_robustness_is_the_mean_above_zero_averaged_over_gaussian_and_fgsm(paper):
    bar = bars(paper[1], "fig8_robustness")["iris", "ours", 0]
    assert bar.value == pytest.approx(((0.8 + 0.6) / 2 + 0.7) / 2)


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
    assert data.missing == ("training", "scaling", "shares", "stragglers", "policies", "fleet")
    written = write_report(study.path)
    assert [path.name for path in written.files] == [
        "deviations.md",
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
    study = StudyFolder(tmp_path / "study")
    folder = study.add("shares", "queries", {}, queries=[{"share": 0.25}])
    before = rows(data_of(study), "table1_reconstruction_share")
    log = folder / "queries.jsonl"
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    assert rows(data_of(study), "table1_reconstruction_share") == before


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
    assert "missing: scaling, shares, stragglers, policies, fleet" in run.output
    assert "dest study run paper --scale full --out" in run.output
    assert (tmp_path / "out" / "figures" / "fig4_training_time.svg").exists()


def test_json_output_is_one_document(tmp_path):
    study = small(tmp_path)
    run = CliRunner().invoke(report, [str(study.path), "--json"])
    document = json.loads(run.stdout)
    assert document["runs"] == {"done": 2}
    assert any(line["value"] == 1.5 for line in document["headlines"])
    assert document["environments"] == []  # no query was asked, so no header was written
    assert all((study.path / "report").samefile(document["out"]) for _ in document["files"][:1])


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
    elif what == "damaged records":
        (folder / "queries.jsonl").write_text("{}\n{}\n")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no study", "is no study: it has no study.json"),
        ("not JSON", "study.json is damaged: it is not JSON"),
        ("newer", "schema version 2 .* install a newer"),
        ("wrong type", "`config.cuts` is '3', expected int"),
        ("renamed", "mixture of two studies"),
        ("of another run", "mixture of two studies"),
        ("no number", "`training_seconds` is '2', expected a finite number"),
        ("infinite", "`test_accuracy` is inf, expected a finite number"),
        ("curves", "`robustness` holds no curves"),
        ("damaged records", "queries.jsonl, line 1 is unreadable"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, what, message):
    study = small(tmp_path)
    broken(study, what)
    with pytest.raises(RecordError, match=message):
        write_report(study.path)
    assert not (study.path / "report").exists()


def test_without_matplotlib_nothing_is_written(tmp_path, monkeypatch):
    study = small(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="distributed-estimator\\[report\\]"):
        write_report(study.path)
    assert not (study.path / "report").exists()


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


def test_a_query_without_times_is_refused(tmp_path):
    study = StudyFolder(tmp_path / "study")
    study.add("shares", "queries", {}, queries=[{"t_total": math.nan}])
    with pytest.raises(RecordError, match="has no finite times"):
        load_study(study.path)


def test_the_helpers_records_add_up():
    record = query_record(
        "contracted", {"label": "AA", "cuts": 1, "backend": "aer", "workers": 1}, 0
    )
    parts = record.t_partition + record.t_generate + record.t_execute + record.t_reconstruct
    assert parts == pytest.approx(record.t_total)
