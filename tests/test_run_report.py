"""The report page of a single training run, and the folders that it refuses."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner
from hostile_study import HOSTILE, task, training_run, write_tasks
from report_pages import marks, page_of
from study_folders import trained

from distributed_estimator.analysis.page import write_run_report
from distributed_estimator.cli.report import report
from distributed_estimator.errors import RecordError


def test_a_run_has_curves_stages_robustness_and_tasks(tmp_path):
    folder = training_run(tmp_path / "run")
    page = page_of(write_run_report(folder))
    assert set(page.charts) == {"loss", "accuracy", "stages", "perturbed", "timeline"}
    assert [point["y"] for point in marks(page.charts["loss"])] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert len(marks(page.charts["accuracy"])) == 10
    first = marks(page.charts["perturbed"])[0]
    assert (first["x"], first["y"], first["low"], first["high"]) == (0, 90, 80, 100)
    assert len(marks(page.charts["timeline"]["choices"][0]["chart"])) == 4 + 4 + 1
    assert "Training run iris_binary" in page.parsed.text


def test_a_run_without_tasks_and_robustness_says_how_to_get_them(tmp_path):
    folder = training_run(tmp_path / "run")
    for name in ("tasks.jsonl", "robustness.json", "queries.jsonl", "summary.json"):
        (folder / name).unlink()
    page = page_of(write_run_report(folder))
    assert set(page.charts) == {"loss", "accuracy"}
    assert "dest robustness" in page.parsed.text
    assert "train with `--trace`" in page.parsed.text


def test_a_training_of_a_study_has_a_page_with_its_robustness(tmp_path):
    folder = training_run(tmp_path / "run")
    (folder / "robustness.json").unlink()
    results = {"schema_version": 1, "status": "done", "results": trained(2.0)}
    (folder / "result.json").write_text(json.dumps(results))
    page = page_of(write_run_report(folder))
    assert len(marks(page.charts["perturbed"])) == 4


def test_a_hostile_run_is_escaped_and_a_long_one_thinned_out(tmp_path):
    folder = training_run(tmp_path / "run", name="".join(HOSTILE[:2]), steps=2000)
    page = page_of(write_run_report(folder))
    assert Counter(tag for tag, _ in page.parsed.elements)["script"] == 2
    assert "<img src=x onerror=alert(1)>" in page.parsed.text
    points = marks(page.charts["loss"])
    assert (len(points), points[-1]["x"]) == (400, 1999)
    assert "400 of 2000 steps are shown" in page.parsed.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("training.jsonl", "", "holds no training"),
        ("robustness.json", "[", "robustness.json is damaged"),
        ("robustness.json", '{"curves": {"fgsm": [[0.1]]}}', "holds no curves"),
        ("robustness.json", '{"curves": {"fgsm": {"points": [{"magnitude": 1}]}}}', "no curves"),
        ("robustness.json", '{"curves": {"fgsm": [[1e7, 1, 1, 1]]}}', "radians from 0 to 1e\\+06"),
        ("robustness.json", '{"curves": {"fgsm": [[1, 2, 1, 1]]}}', "`accuracy` is 2.0: give a sh"),
        ("summary.json", "[]", "summary.json is damaged: it is no JSON object"),
        ("study.json", "{}", "is a study: report it with `dest study report"),
    ],
)
def test_a_folder_that_is_no_sound_run_is_refused(tmp_path, name, content, message):
    folder = training_run(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(RecordError, match=message):
        write_run_report(folder)
    assert not (folder / "report.html").exists()


def test_tasks_without_finite_times_are_refused(tmp_path):
    folder = training_run(tmp_path / "run")
    write_tasks(folder, [task(1, started=0.1, finished=1e300)])
    with pytest.raises(RecordError, match="finite"):
        write_run_report(folder)


@pytest.mark.parametrize("name", ["training.jsonl", "thesis.html"])
def test_only_a_report_is_replaced(tmp_path, name):
    folder = training_run(tmp_path / "run")
    (folder / "thesis.html").write_text("<h1>Mine</h1>")
    before = (folder / name).read_bytes()
    with pytest.raises(RecordError, match=f"{name}` is there and is no report page: move it away"):
        write_run_report(folder, folder / name)
    assert (folder / name).read_bytes() == before
    write_run_report(folder)
    write_run_report(folder)


def test_report_is_a_verb(tmp_path):
    folder = training_run(tmp_path / "run")
    out = tmp_path / "pages" / "run.html"
    ended = CliRunner().invoke(report, [str(folder), "--out", str(out), "--json"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.output) == {"report": str(out)}
    assert f"dest report {folder} --out {out}" in page_of(out).parsed.text
    ended = CliRunner().invoke(report, [str(folder)])
    assert ended.output == f"wrote {folder / 'report.html'}\n"
