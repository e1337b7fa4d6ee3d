"""Published results: what they are made of, and that the committed ones are what they should be."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hostile_study import hostile_study, traced_study
from study_folders import StudyFolder, paper_study, trained

from distributed_estimator.analysis.study.archive import pack_study
from distributed_estimator.analysis.study.results import REDRAW, write_results
from distributed_estimator.cli.main import main
from distributed_estimator.errors import RecordError

PUBLISHED = Path(__file__).parents[1] / "docs" / "results" / "laptop"
FIGURES = {
    *("fig4_training_time", "fig5_speed_up", "fig6_slow_down", "fig7_accuracy", "fig8_robustness"),
    *("stage_shares", "saved_subexperiments", "saved_shots", "policies", "accuracy_differences"),
    "fleet_stages",
}
TABLES = {"table1_reconstruction_share", "savings", "speed_ups", "causes", "cost_model"}
LINK = re.compile(r"!?\[(?:\\.|[^\]\\])*\]\(([^)]+)\)")
HASH = re.compile(r"\b[0-9a-f]{64}\b|(?<=SHA-256 )[0-9a-f]{12}\b")
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The results of a study of everything that a report shows, and what was written."""
    place = tmp_path_factory.mktemp("made")
    folder = place / "results"
    pack_study(traced_study(place / "study"), folder / "records")
    return folder, write_results(folder)


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    """The committed results, made again from their records."""
    assert (PUBLISHED / "records" / "archive.json").is_file(), (
        f"{PUBLISHED} has no records: run `dest study run paper --scale laptop --out DIR`, "
        f"`dest study pack DIR --out {PUBLISHED}/records` and "
        f"`dest study report {PUBLISHED} --from-logs`"
    )
    out = tmp_path_factory.mktemp("redrawn")
    write_results(PUBLISHED, out)
    return out


def generated(folder: Path) -> set[str]:
    """The files of results but for their records."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {name.as_posix() for name in names if name.parts[0] != "records"}


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
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


def cells(path: Path) -> list[list[str | float]]:
    """The cells of a CSV, numbers with a point or an exponent as floats."""

    def cell(text: str) -> str | float:
        return float(text) if re.fullmatch(r"-?\d+(\.\d+|(\.\d+)?e[-+]?\d+)", text) else text

    with path.open(newline="", encoding="utf-8") as file:
        return [[cell(text) for text in row] for row in csv.reader(file)]


def document(path: Path) -> Any:
    """JSON, without hashes of texts: their numbers may differ in the last digit."""
    return json.loads(HASH.sub("hash", path.read_text("utf-8")))


def texts(path: Path) -> list[str]:
    """What is written in a picture: its numbers and names, wherever they stand."""
    root = ElementTree.parse(path).getroot()
    return sorted(
        "".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")
    )


@pytest.mark.soak
def test_the_committed_results_are_all_that_the_records_make(redrawn):
    assert generated(redrawn) == generated(PUBLISHED)
    drawn = {path.stem for path in PUBLISHED.glob("figures/*.svg")}
    assert drawn >= FIGURES
    assert {path.stem for path in PUBLISHED.glob("tables/*.csv")} >= TABLES


@pytest.mark.soak
def test_the_committed_numbers_are_those_of_the_records(redrawn):
    for path in sorted(redrawn.glob("tables/*.csv")):
        assert differences(cells(path), cells(PUBLISHED / "tables" / path.name)) == [], path.name
    for path in (redrawn / "summary.json", *sorted(redrawn.glob("figures/*.json"))):
        committed = PUBLISHED / path.relative_to(redrawn)
        assert differences(document(path), document(committed)) == [], path.name


@pytest.mark.soak
def test_the_committed_figures_show_these_numbers(redrawn):
    for path in sorted(redrawn.glob("figures/*.svg")):
        assert texts(path) == texts(PUBLISHED / "figures" / path.name), path.name


@pytest.mark.soak
def test_the_committed_page_is_the_generated_one(redrawn):
    page = (redrawn / "README.md").read_text("utf-8")
    committed = (PUBLISHED / "README.md").read_text("utf-8")
    assert HASH.sub("hash", page).splitlines() == HASH.sub("hash", committed).splitlines()


@pytest.mark.soak
def test_the_committed_study_is_whole_and_small(redrawn):
    summary = json.loads((redrawn / "summary.json").read_text("utf-8"))
    assert summary["scale"] == "laptop"
    assert summary["missing"] == []
    assert set(summary["runs"]) <= {"done", "failed"}
    assert sum(path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file()) < 12e6


def test_a_changed_number_is_noticed(made, tmp_path):
    changed = tmp_path / "table.csv"
    table = made[0] / "tables" / "fig4_training_time.csv"
    rows = cells(table)
    changed.write_text(table.read_text().replace(",24.0,", ",24.0000001,"))
    assert len(differences(cells(changed), rows)) == 2
    changed.write_text(table.read_text().replace(",24.0,", ",24.0000000000001,"))
    assert differences(cells(changed), rows) == []
    assert differences({"n": 3, "told": "met"}, {"n": 4, "told": "not met"}) == [
        ".n: 3 is not 4",
        ".told: 'met' is not 'not met'",
    ]
    assert differences([1.0], [1.0, 2.0]) != []


def test_results_hold_a_page_every_figure_every_table_and_their_hashes(made):
    folder, written = made
    assert {path.relative_to(folder).as_posix() for path in written.files} == generated(folder)
    assert {path.stem for path in folder.glob("figures/*.svg")} == FIGURES
    for path in folder.glob("figures/*.json"):
        about = json.loads(path.read_text())
        assert about["command"] == REDRAW
        assert (folder / about["data"]).is_file()
        assert all((folder / "records" / run).is_dir() for run in about["records"])
        described = path.with_suffix(".svg").read_text()
        assert f"<desc>Data: {about['data']}, SHA-256 {about['data_sha256']}</desc>" in described


def test_the_page_shows_every_figure_and_its_links_lead_to_files(made):
    folder, written = made
    page = (folder / "README.md").read_text("utf-8")
    links = LINK.findall(page)
    assert {f"figures/{name}.svg" for name in FIGURES} <= set(links)
    assert {f"tables/{path.name}" for path in folder.glob("tables/*.csv")} <= set(links)
    assert all((folder / link).is_file() for link in links)
    told = [line.told for line in written.data.deviations if line.kind == "failed"]
    assert len(told) == 1
    assert "Aer died" in page
    assert all(f"\n## {name}\n" in page for name in ("Machine and versions", "Made again"))
    assert REDRAW in page
    assert "The paper's figures" in page
    assert "Simulated fleet" in page
    manifest = json.loads((folder / "records" / "archive.json").read_text())
    assert manifest["records_sha256"] in page
    numpy = written.data.study.environments[0]["versions"]["numpy"]
    assert f"numpy {numpy}" in page


@pytest.mark.soak
def test_results_are_the_same_wherever_they_are_made_and_whatever_was_there(
    made, tmp_path, monkeypatch
):
    folder, _ = made
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    for name in generated(folder):
        with (moved / name).open("ab") as earlier:
            earlier.write(b"\n")
    monkeypatch.chdir(moved)
    assert main(["study", "report", ".", "--from-logs"]) == 0
    assert generated(moved) == generated(folder)
    for name in generated(folder):
        assert (moved / name).read_bytes() == (folder / name).read_bytes(), name
    assert not list(moved.glob("records/report*"))


def test_what_can_not_be_made_any_more_is_removed_and_nothing_else(tmp_path):
    out = tmp_path / "results"
    ours = {f"figures/{name}.{end}" for name in FIGURES for end in ("svg", "json")}
    ours |= {f"tables/{name}.csv" for name in TABLES}
    kept = {"figures/mine.svg", "figures/mine.json", "figures/fleet_stages.png", "mine.md"}
    kept |= {"tables/mine.csv", "tables/notes.txt"}
    for name in ours | kept:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("earlier")
    small = StudyFolder(tmp_path / "study")
    small.add("training", "train", trained(2.0))
    pack_study(small.path, out / "records")
    written = write_results(out)
    assert all((out / name).read_text() == "earlier" for name in kept)
    assert generated(out) - kept == {path.relative_to(out).as_posix() for path in written.files}
    assert {name for name in ours if (out / name).exists()} < ours
    page = (out / "README.md").read_text("utf-8")
    assert "Not measured." in page
    assert "dest study run paper --scale full --out DIR" in page
    assert str(tmp_path) not in page


def test_a_page_of_ones_own_is_not_overwritten(made, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("# My thesis\n")
    assert main(["study", "report", str(made[0]), "--from-logs", "--out", str(tmp_path)]) == 2
    assert "was not made from records/: move it away" in capsys.readouterr().err
    assert page.read_text() == "# My thesis\n"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.soak
def test_results_that_cannot_be_written_leave_what_was_there(made, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_bytes((made[0] / "README.md").read_bytes() + b"earlier")
    before = (tmp_path / "README.md").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distributed_estimator.analysis.study.results._published", full)
    with pytest.raises(RecordError, match=f"cannot write {tmp_path}: No space left on device"):
        write_results(made[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_bytes() == before


def test_a_study_that_is_not_packed_is_no_results(tmp_path, capsys):
    paper_study(tmp_path / "study")
    assert main(["study", "report", str(tmp_path / "study"), "--from-logs"]) == 2
    told = "holds no archive named records: pack a study there with `dest study pack STUDY --out"
    assert told in capsys.readouterr().err


def test_a_report_of_results_is_told_where_the_study_is(made, capsys):
    assert main(["study", "report", str(made[0])]) == 2
    assert "its `records` are one: name them, or give `--from-logs`" in capsys.readouterr().err


def test_changed_records_are_refused_and_nothing_is_written(made, tmp_path):
    folder, _ = made
    shutil.copytree(folder / "records", tmp_path / "records")
    result = next(tmp_path.glob("records/runs/*/result.json"))
    result.write_text(result.read_text().replace('"attempts": 1', '"attempts": 2'))
    with pytest.raises(RecordError, match="its records are not those that were packed"):
        write_results(tmp_path)
    assert generated(tmp_path) == set()


@pytest.mark.soak
def test_names_from_data_stay_text(tmp_path):
    pack_study(hostile_study(tmp_path / "study"), tmp_path / "records")
    write_results(tmp_path, tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text("utf-8")
    bare = re.sub(r"`[^`]*`", "", page.replace("<!-- Made", "").replace("\\`", ""))
    assert not re.search(r"<\s*[a-zA-Z/!]", bare)
    assert not set(page) & set("\x1b\x00\u202e\u2066\u2028\ud800")
    links = LINK.findall(page)
    assert links
    assert all(re.match(r"(figures|tables)/[a-z0-9_]+\.(svg|json|csv)$", link) for link in links)
    drawn = list((tmp_path / "out" / "figures").glob("*.svg"))
    assert drawn
    assert all(texts(path) for path in drawn)
