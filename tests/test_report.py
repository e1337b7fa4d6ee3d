"""Reports, archives and published results: what is written, escaped, refused and kept."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import file_size_limit
from hostile_study import HOSTILE, hostile_study, task, traced_study, training_run, write_tasks
from study_folders import StudyFolder, small, trained

from distributed_estimator.analysis import report
from distributed_estimator.analysis.archive import (
    pack_study,
    read_manifest,
    replaced_files,
    write_text,
)
from distributed_estimator.analysis.charts import CUT_COLOURS
from distributed_estimator.analysis.costs import load_costs
from distributed_estimator.analysis.frames import query_records
from distributed_estimator.analysis.load import Packed
from distributed_estimator.analysis.pages import json_in_html, write_run_report
from distributed_estimator.analysis.report import StudyData, study_page, write_report, write_results
from distributed_estimator.analysis.study import is_archive, load_study
from distributed_estimator.cli.main import main
from distributed_estimator.cli.report import study_report as report_command
from distributed_estimator.errors import InputError, MissingExtraError, RecordError
from distributed_estimator.records import (
    DeviceRecord,
    RecordWriter,
    TrainingRecord,
    read_records,
)

PUBLISHED = Path(__file__).parents[1] / "docs" / "results" / "laptop"
FIGURES = {
    *("fig4_training_time", "fig5_speed_up", "fig6_slow_down", "fig7_accuracy", "fig8_robustness"),
    *("table1_reconstruction_share", "stage_shares", "saved_subexperiments", "saved_shots"),
    *("policies", "accuracy_differences", "speed_ups", "fleet_stages"),
}
TOLERANCE = 1e-9


class Structure(HTMLParser):
    """Elements and text of a page; fails where tags do not close as they were opened."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def charts_in(html):
    """The figures that a page holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    return json.loads(found.group(1))


def charts_of(path):
    return charts_in(path.read_text("utf-8"))


def data_in(panel):
    """The rows that a panel is drawn from."""
    return panel["data"]["values"]


def contents(folder):
    """All files by their paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module", autouse=True)
def without_png():
    """SVG alone is drawn, which holds text; tests of a run's figures draw PNG."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vl_convert.vegalite_to_png", lambda *_, **__: b"")
        yield


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The report of a study with all experiments."""
    folder = traced_study(tmp_path_factory.mktemp("paper") / "study")
    return write_report(folder, command="dest study report DIR")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of a study whose texts are hostile, and what the command printed."""
    folder = hostile_study(tmp_path_factory.mktemp("hostile") / "study")
    printed = CliRunner().invoke(report_command, [str(folder)], catch_exceptions=False)
    return folder / "report", printed.output


# What a report holds


def test_every_table_and_figure_is_written_and_none_is_empty(paper):
    for table in paper.data.tables.shown.values():
        with (paper.out / "tables" / f"{table.name}.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == len(table.rows) > 0
    summary = json.loads((paper.out / "summary.json").read_text("utf-8"))
    tables = paper.data.tables.shown
    assert {name: len(found["rows"]) for name, found in summary["tables"].items()} == {
        name: len(table.rows) for name, table in tables.items()
    }
    assert summary["deviations"]["failed"][0]["cause"] == "Aer died"
    assert {path.stem for path in (paper.out / "figures").iterdir()} == FIGURES
    assert {path.name for path in paper.files} >= {
        *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
        *("report.html", "README.md", "summary.json"),
    }


def test_the_page_draws_every_figure_from_the_tables_numbers(paper):
    found = charts_of(paper.out / "report.html")
    assert set(found) == {name.replace("_", "-") for name in FIGURES} | {"timeline"}
    rows = [row for panel in found["fig4-training-time"]["panels"] for row in data_in(panel)]
    bars = sorted(row["value"] for row in rows if not row["head"])
    assert bars == pytest.approx(sorted(paper.data.tables["fig4_training_time"].rows.value))
    assert found["fig4-training-time"]["log"] is True
    labels = [row["label"] for row in rows if row.get("basis") == "extrapolated"]
    assert "1 cut: 5.6 h, extrapolated from 3 queries (n = 3)" in labels
    assert [one["label"] for one in found["timeline"]["choices"]] == [
        f"shares, ours, local simulator, mnist, {cuts}, eager, 8 workers"
        for cuts in ("1 cut", "2 cuts")
    ]
    lanes = {row["lane"] for row in data_in(found["timeline"]["choices"][0]["panels"][0])}
    assert lanes == {"stages", "worker 0", "worker 1"}


def test_bars_share_an_axis_that_says_where_it_begins(paper):
    figures = paper.data.figures
    channels = [
        panel["layer"][0]["encoding"]["x"] for panel in figures["fig4_training_time"].panels
    ]
    assert channels[0] == channels[1]
    assert channels[0]["scale"]["domain"][0] == 1  # the least is 10 s
    assert channels[0]["title"][0] == "training time, logarithmic axis from 1 s"


def test_policies_are_coloured_by_stragglers_and_eager_stands_first(paper):
    figure = paper.data.figures["policies"]
    rows = data_in(figure.panels[0])
    assert list(figure.colours) == ["p = 0", "p = 0.2"]
    assert [row["label"] for row in rows[:3]] == [
        "ours, eager, 3 cuts",
        "p = 0: 100 ms (n = 3)",
        "p = 0.2: 500 ms (n = 3)",
    ]


def test_accuracies_are_points_with_the_interval_of_their_mean(paper):
    panel = paper.data.figures["fig7_accuracy"].panels[0]
    row = next(row for row in data_in(panel) if row.get("key") == "2 cuts")
    half = 4.302653 * 0.01 / math.sqrt(3)  # Student's t of 0.91, 0.92 and 0.93
    assert (row["low"], row["high"]) == pytest.approx((0.92 - half, 0.92 + half))
    assert row["label"] == "2 cuts: 92.0 %, 95 %: 89.5 to 94.5 % (n = 3)"
    labels = [row["label"] for row in data_in(paper.data.figures["fig6_slow_down"].panels[0])]
    assert labels[1] == "uncut: 2.0× (n = 1, no spread known)"


def test_the_page_names_study_machine_versions_and_headlines(paper):
    html = (paper.out / "report.html").read_text("utf-8")
    page = Structure(html)
    assert len(html) < 1_700_000
    assert not page.attributes("src")  # nothing is fetched
    assert "default-src 'none'" in html
    assert "unsafe" not in html.split("<title>")[0]
    for text in (
        *("Study paper, scale full", "processors", "OMP_NUM_THREADS", "qiskit", "python"),
        *("RQ1: what cutting costs", "1.3×", "met", "not measured", "Aer died"),
        *("Repeated subexperiments", "share extrapolated, a processor each"),
        "Stages of a query, before and after",
    ):
        assert text in page.text, text
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = {href.removeprefix("#") for href in page.attributes("href") if href[:1] == "#"}
    assert targets <= set(ids)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(headings))
    files = [href for href in page.attributes("href") if href[:1] not in "#d"]
    assert files
    assert all((paper.out / href).exists() for href in files)


def test_the_page_in_markdown_links_to_files_that_exist(paper):
    text = (paper.out / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {Path(link).suffix for link in links} == {".svg", ".csv"}
    assert all((paper.out / link).is_file() for link in links)
    assert "| RQ" not in text
    assert "### Loops over shots" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) > 20
    for table in tables:
        bars = {line.replace(r"\|", "").count("|") for line in table.splitlines()}
        assert len(bars) == 1, table


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_tasks_cost_timelines_alone(tmp_path, caplog, packed):
    study = StudyFolder(tmp_path / "study")
    folder = study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}])
    write_tasks(folder, [task(1)])
    place, log = study.path, folder / "tasks.jsonl"
    if packed:
        place = pack_study(study.path, tmp_path / "archive").out
        log = place / "tasks.parquet"
    data = StudyData.of(load_study(place))
    assert "timeline" in charts_in(study_page(data, tmp_path, "command"))
    log.write_text("{}\n{}\n")
    data = StudyData.of(load_study(place))
    assert "timeline" not in charts_in(study_page(data, tmp_path, "command"))
    assert re.search("timelines? left out: .*tasks.* (damaged|unreadable)", caplog.text)
    assert data.counts == {"done": 1}


def test_an_archive_of_an_earlier_release_reads_like_the_study(tmp_path):
    study = small(tmp_path)
    study.add("scaling", "train", trained(1.0), queries=[{}, {}])
    before = load_study(study.path)
    for log in study.path.glob("runs/*/queries.jsonl"):
        log.with_name("queries.jsonl.gz").write_bytes(gzip.compress(log.read_bytes()))
        log.unlink()
    assert is_archive(study.path)
    assert load_study(study.path).queries.equals(before.queries)


def test_what_was_not_measured_says_so_and_how_to_run_it(tmp_path):
    study = StudyFolder(tmp_path / "study", scale="smoke")
    study.add("training", "train", cause="no memory")
    written = write_report(study.path)
    assert [path.name for path in written.files] == ["README.md", "report.html", "summary.json"]
    for path in written.files[:2]:
        text = path.read_text("utf-8")
        assert "Missing: training, scaling, shares, stragglers, policies, fleet, causes" in text
        assert "dest study run paper --scale smoke --out" in text
        assert "Not measured" in text


def test_colours_of_cuts_differ_in_grey_too():
    def lightness(colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return (0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2) ** (1 / 2.2)

    levels = sorted(map(lightness, CUT_COLOURS[:4]))
    assert min(b - a for a, b in pairwise(levels)) > 0.08


# Hostile names


def test_hostile_names_do_no_harm_anywhere(hostile):
    out, printed = hostile
    texts = [printed, *(path.read_text("utf-8") for path in out.rglob("*.md"))]
    for text in texts:
        assert "\x1b" not in text
        assert "\u202e" not in text
    page = Structure((out / "report.html").read_text("utf-8"))
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    assert not any(tag in ("img", "svg", "iframe") for tag, _ in page.elements)
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "{{ 7 * 191 }}" in page.text  # no template runs what data holds
    # Between backticks everything is text.
    readme = (out / "README.md").read_text("utf-8").replace(r"\`", "")
    readme = re.sub("`+[^`]*`+", "", readme)
    assert "<img" not in readme
    assert "<script" not in readme
    for path in out.rglob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not any(cell.startswith(("=", "@", "|")) for cell in cells)
    for path in out.rglob("*.svg"):
        assert "<img" not in path.read_text("utf-8")


@pytest.mark.parametrize("text", [*HOSTILE[:5], "\u2028", "&<>"])
def test_json_cannot_end_its_element(text):
    shown = json_in_html({"name": text})
    assert not set(shown) & set("<>&\u2028")
    assert shown.isascii()
    assert json.loads(shown) == {"name": text}


# The command, and what is refused


def test_the_command_prints_headlines_and_what_is_missing(tmp_path, capsys):
    study = small(tmp_path)
    out = tmp_path / "out"
    assert main(["study", "report", str(study.path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "iris, ours, 3 cuts: 1.5×, n = 1, met (paper: increases sharply)" in printed
    assert "missing: scaling, shares, stragglers, policies, fleet, causes" in printed
    assert "dest study run paper --scale full --out" in printed
    assert (out / "figures" / "fig4_training_time.svg").exists()
    assert main(["study", "report", str(study.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == {"done": 2}
    assert any(line["value"] == 1.5 for line in document["headlines"])
    assert (study.path / "report").samefile(document["out"])
    assert all(Path(file).is_file() for file in document["files"])


def test_a_report_without_a_damaged_run_is_whole_and_ends_with_exit_code_2(tmp_path, capsys):
    study = small(tmp_path)
    folder = next((study.path / "runs").iterdir())
    (folder / "result.json").write_text("{")
    assert main(["study", "report", str(study.path)]) == 2
    printed = capsys.readouterr()
    assert "runs 1 done, 1 damaged" in printed.out
    assert printed.err.startswith("dest: 1 run left out of the report: ")
    assert f"{folder / 'result.json'} is damaged" in printed.err
    assert "remove their folders, and `dest study run` repeats them" in printed.err
    assert folder.name in (study.path / "report" / "README.md").read_text()
    with pytest.raises(RecordError, match=r"1 of the runs of .* cannot be packed"):
        pack_study(study.path, tmp_path / "out")


@pytest.mark.parametrize("before", ["nothing", "a report"])
@pytest.mark.parametrize("accident", ["full disk", "Ctrl-C"])
def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch, before, accident):
    study = small(tmp_path)
    out = tmp_path / "made" / "for it"
    if before == "a report":
        out.mkdir(parents=True)
        (out / "summary.json").write_text("earlier")
    there = contents(tmp_path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    if accident == "full disk":
        with file_size_limit(10_000), pytest.raises(RecordError, match=r"cannot write .*too large"):
            write_report(study.path, out)
    else:
        monkeypatch.setattr(report, "_readme", interrupt)
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
    assert contents(out) == {
        "a.md": b"new",
        "tables/b.csv": b"new",
        "mine": b"earlier",
        "tables/gone.csv": b"earlier",
    }


def test_what_cannot_be_made_any_more_is_removed_and_other_files_stay(tmp_path):
    study = small(tmp_path)
    out = study.path / "report"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "fig5_speed_up.png").write_bytes(b"old")
    (out / "mine.txt").write_text("mine")
    write_report(study.path)
    assert not (out / "figures" / "fig5_speed_up.png").exists()
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.html", "README.md"])
def test_a_page_of_ones_own_is_not_replaced(tmp_path, name):
    study = small(tmp_path)
    (tmp_path / name).write_text("<h1>My thesis</h1>")
    with pytest.raises(RecordError, match=f"{name}` is there and .* move it away"):
        write_report(study.path, tmp_path)
    assert (tmp_path / name).read_text() == "<h1>My thesis</h1>"
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("missing", ["vl_convert", "jinja2", "markupsafe"])
def test_without_a_library_nothing_is_written(tmp_path, monkeypatch, missing):
    study = small(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"distributed-estimator\[report\]"):
        write_report(study.path)
    assert not (study.path / "report").exists()
    run = training_run(tmp_path / "run")
    with pytest.raises(MissingExtraError, match=r"distributed-estimator\[report\]"):
        write_run_report(run)


# Archives


def study_with_everything(path: Path) -> Path:
    """Finished, failed and unfinished runs, traces of several seeds, and what runs leave behind."""
    traced_study(path)
    study = StudyFolder.__new__(StudyFolder)
    study.path = path
    for seed in (2, 3):
        what = {"dataset": "mnist", "cuts": 1, "trace": True, "seed": seed}
        folder = study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}], **what)
        write_tasks(folder, [task(number) for number in range(4)])
    folder = study.add("training", "train", cuts=3, seed=10)
    (folder / "queries.jsonl").write_text('{"kind": "query", "unfin')
    folder = study.add("training", "train", trained(3.0), cuts=2, seed=11, queries=[{}, {}])
    for name in ("attempts.json", "checkpoint.safetensors", "weights.json", ".dest-lock"):
        (folder / name).write_text("{}")
    for name, metrics in (("training", {"a": 1.0}), ("robustness-queries", {"b": math.nan})):
        with RecordWriter(folder / f"{name}.jsonl") as log:
            fields = {"run_id": "r", "step": 0, "epoch": 0, "loss": 0.5, "queries": 8, "at": 1.5}
            log.write(TrainingRecord(**fields, metrics=metrics))
    (path / "study.lock").touch()
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A study and its archive."""
    place = tmp_path_factory.mktemp("both")
    folder = study_with_everything(place / "study")
    return folder, pack_study(folder, place / "archive")


def test_an_archive_is_a_few_files_that_hold_the_same_records(both):
    folder, packed = both
    assert set(contents(packed.out)) == {
        *("archive.json", "study.json", "runs.parquet", "queries.parquet"),
        *("training.parquet", "tasks.parquet"),
    }
    found: dict[str, list[str]] = {}
    for run_id, _, file, record in Packed(packed.out).records():
        found.setdefault(f"{run_id}/{file}", []).append(repr(record))
    for log in folder.glob("runs/*/*.jsonl"):
        name = f"{log.parent.name}/{log.name}"
        unfinished = log.parent.name in packed.unfinished
        expected = [] if unfinished else [repr(record) for record in read_records(log)]
        assert found.get(name, expected if log.name == "tasks.jsonl" else []) == expected, name
    assert packed.sizes.keys() == contents(packed.out).keys()


def test_traces_are_kept_of_the_first_run_of_each_kind(both):
    folder, packed = both
    # Three seeds of one kind, and one run of another kind.
    assert len(list(folder.glob("runs/*/tasks.jsonl"))) == 4
    assert len(Packed(packed.out).traced("tasks.jsonl")) == 2
    assert packed.left_out == 2


def test_the_same_study_makes_the_same_bytes(both, tmp_path):
    folder, packed = both
    for path in folder.rglob("*.jsonl"):
        os.utime(path, (1, 1))
    again = pack_study(folder, tmp_path / "elsewhere")
    assert contents(again.out) == contents(packed.out)
    assert again.digest == packed.digest == read_manifest(packed.out).records_sha256


def test_an_archive_reads_like_the_study(both):
    folder, packed = both
    whole, archived = load_study(folder), load_study(packed.out)
    assert archived.runs.equals(whole.runs)
    assert archived.queries.equals(whole.queries)
    assert archived.traced_kinds() == whole.traced_kinds()
    assert archived.environments == whole.environments
    ask = "SELECT count(*), sum(t_total), count(DISTINCT study_run_id) FROM query"
    assert query_records(packed.out, ask).rows == query_records(folder, ask).rows
    assert load_costs(packed.out).data_hash == load_costs(folder).data_hash


def test_nothing_runs_in_an_archive(both, capsys):
    assert is_archive(both[1].out)
    assert not is_archive(both[0])
    assert main(["study", "run", "paper", "--out", str(both[1].out)]) == 2
    assert "archive" in capsys.readouterr().err


def test_the_command_says_what_it_packed_and_what_has_not_ended(both, tmp_path, capsys):
    folder, packed = both
    assert main(["study", "pack", str(folder), "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    (run_id,) = packed.unfinished
    assert f"not ended, without records: {run_id} (training)" in printed
    assert "1 of them failed" in printed
    assert main(["study", "pack", str(folder), "--out", str(tmp_path / "a"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["unfinished"], document["traces_left_out"]) == ([run_id], 2)
    study = StudyFolder(tmp_path / "begun")
    study.add("training", "train")
    assert main(["study", "pack", str(study.path), "--out", str(tmp_path / "b")]) == 1
    assert "no run in" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda out: out.write_text("mine"), "is a file"),
        (lambda out: (out.mkdir(), (out / "mine").touch()), "is not empty and no archive"),
        (lambda out: (out.mkdir(), (out / "archive.json").write_text("{}")), "damaged"),
        (
            lambda out: (out.mkdir(), (out / "runs.parquet").touch(), (out / "thesis").touch()),
            r"holds what no archive has \(thesis\)",
        ),
    ],
)
def test_only_an_archive_is_replaced(both, tmp_path, prepare, message):
    prepare(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises((InputError, RecordError), match=message):
        pack_study(both[0], tmp_path / "out")
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_the_archive_that_was_there(both, tmp_path):
    pack_study(both[0], tmp_path / "out")
    before = contents(tmp_path)
    with file_size_limit(3_000), pytest.raises(RecordError, match=r"cannot write .*too large"):
        pack_study(both[0], tmp_path / "out")
    assert contents(tmp_path) == before
    with pytest.raises(InputError, match="is an archive already"):
        pack_study(both[1].out, tmp_path / "other")


def test_an_archive_that_was_cut_off_is_none_until_it_is_packed_again(both, tmp_path):
    out = pack_study(both[0], tmp_path / "out").out
    whole = contents(out)
    (out / "archive.json").unlink()
    (out / ".0a1b2c3d").mkdir()
    with pytest.raises(RecordError, match="was cut off while it was packed: pack the study again"):
        load_study(out)
    pack_study(both[0], out)
    assert contents(out) == whole


@pytest.mark.parametrize("change", ["other bytes", "other columns", "one file less", "no manifest"])
def test_changed_or_missing_records_are_noticed(both, tmp_path, change):
    out = pack_study(both[0], tmp_path / "out").out
    path = out / ("archive.json" if change == "no manifest" else "queries.parquet")
    if change == "other bytes":
        path.write_bytes(path.read_bytes()[:-9] + b"X" * 9)
        damaged = load_study(out).damaged
        assert damaged
        assert all("queries.parquet is damaged" in why for why in damaged.values())
    elif change == "other columns":
        (out / "runs.parquet").write_bytes(path.read_bytes())
        with pytest.raises(RecordError, match=r"runs.parquet is damaged: it has no column"):
            load_study(out)
    else:
        path.unlink()
    with pytest.raises(RecordError, match=r"is no archive|is damaged: its records are not those"):
        read_manifest(out)


def test_hostile_names_are_packed_as_they_are(tmp_path):
    folder = hostile_study(tmp_path / "study")
    whole, packed = load_study(folder), load_study(pack_study(folder, tmp_path / "out").out)
    assert whole.runs.config.tolist() == packed.runs.config.tolist()
    assert whole.runs.cause.tolist() == packed.runs.cause.tolist()


# Published results


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The results of a study of everything that a report shows."""
    place = tmp_path_factory.mktemp("made")
    pack_study(traced_study(place / "study"), place / "results" / "records")
    return write_results(place / "results")


def test_results_are_a_page_two_pictures_and_a_summary(made):
    assert [path.name for path in made.files] == [
        *("README.md", "beyond.svg", "paper.svg", "summary.json")
    ]
    text = (made.out / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert set(links) == {"paper.svg", "beyond.svg", "summary.json"}
    assert read_manifest(made.out / "records").records_sha256 in text
    assert "Fig. 4" in (made.out / "paper.svg").read_text("utf-8")


@pytest.mark.soak
def test_results_are_the_same_wherever_they_are_made(made, tmp_path):
    again = write_results(made.out, tmp_path / "elsewhere")
    for path in again.files:
        assert path.read_bytes() == (made.out / path.name).read_bytes(), path.name


def test_results_need_an_archive_of_this_release(tmp_path, capsys):
    study = small(tmp_path)
    assert main(["study", "report", str(study.path), "--from-logs"]) == 2
    assert "holds no archive named records" in capsys.readouterr().err
    folder = tmp_path / "results"
    pack_study(study.path, folder / "records")
    (folder / "README.md").write_text("mine")
    with pytest.raises(RecordError, match="is there and is no report page: move it away"):
        write_results(folder)
    manifest = json.loads((folder / "records" / "archive.json").read_text())
    del manifest["archive_version"]
    (folder / "records" / "archive.json").write_text(json.dumps(manifest))
    with pytest.raises(RecordError, match="an archive of an earlier release"):
        write_results(folder)
    with pytest.raises(RecordError, match="its `records` are one: name them, or give `--from-logs"):
        load_study(folder)


def differences(found, wanted, place=""):
    """Where two documents differ: numbers by more than the tolerance, anything else at all."""
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        return [one for k in found for one in differences(found[k], wanted[k], f"{place}.{k}")]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [one for k, (f, w) in pairs for one in differences(f, w, f"{place}[{k}]")]
    if isinstance(found, float) and isinstance(wanted, float):
        same = math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=1e-12)
    else:
        same = type(found) is type(wanted) and found == wanted
    return [] if same else [f"{place}: {found!r} is not {wanted!r}"]


@pytest.mark.soak
def test_the_committed_results_are_all_that_the_records_make(tmp_path):
    """All tables, pictures and sentences, made again from the committed records."""
    written = write_results(PUBLISHED, tmp_path)
    summary = json.loads((PUBLISHED / "summary.json").read_text("utf-8"))
    found = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert differences(found, summary) == []
    for path in written.files:
        if path.suffix != ".json":
            shown = [
                re.findall(r">([^<>]*)<|^([|-].*)$", text.read_text("utf-8"), flags=re.MULTILINE)
                for text in (path, PUBLISHED / path.name)
            ]
            assert shown[0] == shown[1], path.name
    files = [path for path in PUBLISHED.rglob("*") if path.is_file()]
    assert {path.name for path in written.files} <= {path.name for path in files}
    assert summary["runs"] == {"done": 307}
    assert not any(summary["deviations"][kind] for kind in ("failed", "unfinished", "missing"))


def test_the_committed_study_is_few_and_small_files():
    files = [path for path in PUBLISHED.parent.rglob("*") if path.is_file()]
    assert len(files) <= 12
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    read_manifest(PUBLISHED / "records")


# The page of a run


def test_a_run_has_curves_stages_robustness_and_tasks(tmp_path):
    path = write_run_report(training_run(tmp_path / "run"))
    found = charts_of(path)
    assert set(found) == {"loss", "accuracy", "stages", "perturbed", "timeline"}
    assert [row["y"] for row in data_in(found["loss"]["panels"][0])] == [
        *(1, 1 / 2, 1 / 3, 1 / 4, 1 / 5)
    ]
    assert len(data_in(found["accuracy"]["panels"][0])) == 10
    first = data_in(found["perturbed"]["panels"][0])[0]
    assert (first["x"], first["y"], first["low"], first["high"]) == (0, 90, 80, 100)
    assert len(data_in(found["timeline"]["choices"][0]["panels"][0])) == 4 + 4 + 1
    assert "Training run iris_binary" in Structure(path.read_text("utf-8")).text
    # As a study measured the robustness of its trainings.
    (tmp_path / "run" / "robustness.json").unlink()
    results = {"schema_version": 1, "status": "done", "attempts": 1, "results": trained(2.0)}
    (tmp_path / "run" / "result.json").write_text(json.dumps(results))
    panels = charts_of(write_run_report(tmp_path / "run"))["perturbed"]["panels"]
    assert sum(len(data_in(panel)) for panel in panels) == 4


def test_a_run_on_devices_says_what_each_did(tmp_path):
    folder = training_run(tmp_path / "run")
    assert "Jobs by device" not in write_run_report(folder).read_text("utf-8")
    with RecordWriter(folder / "tasks.jsonl") as log:
        for number, status in enumerate(("done", "failed", "done")):
            log.write(
                DeviceRecord(
                    device=f"qpu-{number // 2}",
                    job=number,
                    task=f"task {number}",
                    circuits=3,
                    shots=100,
                    status=status,
                    **{name: 1.0 for name in ("submitted", "queued", "started")},
                    **{name: 1.5 for name in ("finished", "returned")},
                )
            )
    text = Structure(write_run_report(folder).read_text("utf-8")).text
    shares = text[text.index("Jobs by device") :].split()
    first, second = shares.index("qpu-0"), shares.index("qpu-1")
    assert shares[first : first + 6] == ["qpu-0", "2", "1", "3", "300", "1"]
    assert shares[second : second + 6] == ["qpu-1", "1", "0", "3", "300", "0.5"]


def test_a_run_without_tasks_and_robustness_says_how_to_get_them(tmp_path):
    folder = training_run(tmp_path / "run")
    for name in ("tasks.jsonl", "robustness.json", "queries.jsonl", "summary.json"):
        (folder / name).unlink()
    path = write_run_report(folder)
    assert set(charts_of(path)) == {"loss", "accuracy"}
    text = Structure(path.read_text("utf-8")).text
    assert "dest robustness" in text
    assert "train with `--trace`" in text


def test_a_hostile_run_is_escaped_and_a_long_one_thinned_out(tmp_path):
    folder = training_run(tmp_path / "run", name="".join(HOSTILE[:2]), steps=2000)
    path = write_run_report(folder)
    page = Structure(path.read_text("utf-8"))
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    assert "<img src=x onerror=alert(1)>" in page.text
    points = data_in(charts_of(path)["loss"]["panels"][0])
    assert (len(points), points[-1]["x"]) == (400, 1999)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("training.jsonl", "", "holds no training"),
        ("robustness.json", "[", "robustness.json is damaged"),
        ("robustness.json", '{"curves": {"fgsm": 1}}', "robustness.json is damaged"),
        ("robustness.json", '{"curves": {"fgsm": {"points": []}}}', "no magnitude above 0"),
        (
            "robustness.json",
            '{"curves": {"fgsm": {"points": [{"magnitude": 1}]}}}',
            "missing required field `accuracy`",
        ),
        ("summary.json", "[]", "summary.json is damaged"),
        ("study.json", "{}", "is a study: report it with `dest study report"),
    ],
)
def test_a_folder_that_is_no_sound_run_is_refused(tmp_path, name, content, message):
    folder = training_run(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(RecordError, match=message):
        write_run_report(folder)
    assert not (folder / "report.html").exists()


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


def test_report_is_a_verb(tmp_path, capsys):
    folder = training_run(tmp_path / "run")
    out = tmp_path / "pages" / "run.html"
    assert main(["report", str(folder), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out)}
    assert f"dest report {folder} --out {out}" in Structure(out.read_text("utf-8")).text
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"
