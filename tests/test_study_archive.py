"""Archives of studies: what is packed, and that whoever reads them finds the same numbers."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from helpers import file_size_limit
from hostile_study import hostile_study, task, traced_study, write_tasks
from report_pages import page_of
from study_folders import StudyFolder, trained

from distributed_estimator.analysis.cost_files import load_costs
from distributed_estimator.analysis.sql import query_records
from distributed_estimator.analysis.study import archive
from distributed_estimator.analysis.study.archive import pack_study, read_manifest, records_hash
from distributed_estimator.analysis.study.report import write_report
from distributed_estimator.analysis.study.runs import is_archive, load_study
from distributed_estimator.cli.main import main
from distributed_estimator.errors import InputError, RecordError
from distributed_estimator.records import RecordWriter, TrainingRecord

SCRAP = ("attempts.json", "checkpoint.safetensors", "weights.json", ".dest-lock", "summary.json")


def study_with_everything(path: Path) -> Path:
    """Finished, failed and unfinished runs, traces of several seeds, and what runs leave behind."""
    traced_study(path)
    study = StudyFolder.__new__(StudyFolder)
    study.path = path
    for seed in (2, 3):
        what = {"dataset": "mnist", "cuts": 1, "trace": True, "seed": seed}
        folder = study.add("shares", "queries", {"median_seconds": 1.0}, queries=[{}], **what)
        write_tasks(folder, [task(number) for number in range(4)])
        (folder / "devices.jsonl").write_bytes((folder / "tasks.jsonl").read_bytes())
    folder = study.add("training", "train", cuts=3, seed=10)
    (folder / "queries.jsonl").write_text('{"kind": "query", "unfin')
    folder = study.add("training", "train", trained(3.0), cuts=2, seed=11, queries=[{}, {}])
    for name in SCRAP:
        (folder / name).write_text("{}")
    for name in ("training.jsonl", "robustness-queries.jsonl"):
        with RecordWriter(folder / name) as log:
            log.write(
                TrainingRecord(run_id="r", step=0, epoch=0, loss=0.5, metrics={}, queries=8, at=1.5)
            )
    (path / "study.lock").touch()
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A study and its archive."""
    place = tmp_path_factory.mktemp("both")
    folder = study_with_everything(place / "study")
    packed = pack_study(folder, place / "archive")
    return folder, packed


def files_of(folder: Path) -> dict[str, bytes]:
    """All files by their paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_archive_holds_the_same_records_and_nothing_that_no_report_needs(both):
    folder, packed = both
    found, whole = files_of(packed.out), files_of(folder)
    unfinished = {run.run_id for run in packed.unfinished}
    names = {name.split("/")[-1] for name in found}
    assert names == {
        *("archive.json", "study.json", "run.json", "result.json"),
        *("queries.jsonl.gz", "training.jsonl.gz", "robustness-queries.jsonl.gz"),
        *("tasks.jsonl.gz",),
    }
    for name, content in found.items():
        if name.endswith(".gz"):
            assert gzip.decompress(content) == whole[name.removesuffix(".gz")]
        elif name != "archive.json":
            assert content == whole[name]
    logs = {name for name in whole if name.endswith(("queries.jsonl", "training.jsonl"))}
    missing = logs - {name.removesuffix(".gz") for name in found}
    assert {name.split("/")[1] for name in missing} == unfinished
    assert sum(packed.sizes.values()) == sum(map(len, found.values()))


def test_traces_are_kept_of_the_first_run_of_each_kind(both):
    folder, packed = both
    traces = [
        {path.relative_to(place).as_posix().removesuffix(".gz") for path in place.glob(pattern)}
        for place in (folder, packed.out)
        for pattern in ("runs/*/tasks.jsonl*", "runs/*/devices.jsonl*")
    ]
    # Three seeds of one kind, and one run of another kind.
    assert (len(traces[0]), len(traces[2])) == (4, 2)
    assert packed.left_out == len((traces[0] | traces[1]) - (traces[2] | traces[3]))


def test_the_same_study_makes_the_same_bytes(both, tmp_path):
    folder, packed = both
    for path in folder.rglob("*.jsonl"):
        os.utime(path, (1, 1))
    again = pack_study(folder, tmp_path / "elsewhere")
    assert files_of(again.out) == files_of(packed.out)
    assert again.digest == packed.digest == read_manifest(packed.out)["records_sha256"]
    for path in packed.out.glob("runs/*/*.gz"):
        assert path.read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # no name, no time


def test_the_report_of_an_archive_has_the_studys_numbers(both, tmp_path, monkeypatch):
    """A figure is a function of what it is drawn from, which takes a tenth of the time."""

    def write(drawn, png, svg, **how):
        png.write_text(repr((drawn, how)))
        svg.write_text(repr((drawn, how)))

    for name in ("draw_chart", "draw_stages"):
        monkeypatch.setattr(f"distributed_estimator.analysis.study.report.{name}", write)
    folder, packed = both
    reports = [
        write_report(place, tmp_path / place.name, command="the same")
        for place in (folder, packed.out)
    ]
    ours, theirs = (files_of(report.out) for report in reports)
    page = "report.html"
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {page}
    charts = [page_of(report.out / page).charts for report in reports]
    assert charts[0] == charts[1]
    assert "timeline" in charts[0]


def test_records_and_costs_of_an_archive_are_the_studys(both, capsys):
    folder, packed = both
    (unfinished,) = packed.unfinished
    sql = (
        "SELECT study_run_id, count(*), sum(t_total), min(started_at) FROM query "
        f"WHERE study_run_id <> '{unfinished.run_id}' GROUP BY 1 ORDER BY 1"
    )
    assert query_records(folder, sql).rows == query_records(packed.out, sql).rows
    assert query_records(packed.out, "SELECT count(*) FROM training").rows == [(2,)]
    models = [load_costs(place) for place in (folder, packed.out)]
    assert models[0].data_hash == models[1].data_hash
    assert models[0].setups == models[1].setups
    assert main(["records", str(packed.out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unreadable"] == []


def test_nothing_runs_in_an_archive(both, capsys):
    _, packed = both
    before = files_of(packed.out)
    assert main(["study", "run", "paper", "--out", str(packed.out)]) == 2
    assert f"`{packed.out}` is an archive: nothing can be run in it" in capsys.readouterr().err
    assert files_of(packed.out) == before
    assert load_study(packed.out).place == "DIR"
    assert not is_archive(both[0])


def test_the_command_says_what_it_packed_and_what_has_not_ended(both, tmp_path, capsys):
    folder, packed = both
    out = tmp_path / "new" / "archive"
    assert main(["study", "pack", str(folder), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"packed {len(packed.ended)} runs, 1 of them failed" in text
    (run,) = packed.unfinished
    assert f"not ended, without records: {run.run_id} (training)" in text
    assert main(["study", "pack", str(folder), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unfinished"] == [run.run_id]
    assert document["bytes"] == sum(map(len, files_of(out).values()))
    assert document["records_sha256"] == packed.digest


def test_of_a_study_that_has_only_begun_nothing_is_packed(tmp_path, capsys):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", cuts=3)
    assert main(["study", "pack", str(study.path), "--out", str(tmp_path / "archive")]) == 1
    assert "has ended: nothing is packed" in capsys.readouterr().err
    assert not (tmp_path / "archive").exists()


def test_only_an_archive_is_replaced(both, tmp_path):
    folder, packed = both
    with pytest.raises(InputError, match="is an archive already"):
        pack_study(packed.out, tmp_path / "archive")
    with pytest.raises(InputError, match="is not empty and no archive"):
        pack_study(folder, folder)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: name a folder"):
        pack_study(folder, tmp_path / "file")
    small = StudyFolder(tmp_path / "small")
    small.add("training", "train", trained(1.0))
    out = tmp_path / "archive"
    pack_study(folder, out)
    pack_study(small.path, out)
    assert len(load_study(out).runs) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "file", "small"]


@pytest.mark.parametrize("foreign", ["src/thesis.tex", "notes.txt"])
def test_a_folder_that_holds_anything_else_is_not_replaced(both, tmp_path, foreign):
    out = tmp_path / "project"
    pack_study(both[0], out)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    before = files_of(out)
    with pytest.raises(InputError, match=rf"holds what no archive has \({foreign.split('/')[0]}\)"):
        pack_study(both[0], out)
    assert files_of(out) == before


def test_a_folder_with_a_file_of_the_manifests_name_is_not_replaced(both, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").touch()
    (tmp_path / "archive.json").write_text("{}")
    before = files_of(tmp_path)
    with pytest.raises(RecordError, match=r"archive\.json is damaged"):
        pack_study(both[0], tmp_path)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("step", ["move away", "move in"])
def test_an_archive_that_cannot_be_replaced_stays(both, tmp_path, monkeypatch, step):
    out = tmp_path / "archive"
    pack_study(both[0], out)
    (out / "study.json").write_bytes((out / "study.json").read_bytes() + b"\n")
    before = files_of(out)
    rename = Path.rename

    def refuse(path, target):
        if (path if step == "move away" else Path(target)) == out and path.suffix != ".old":
            raise OSError(16, "Device or resource busy", str(out))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RecordError, match="Device or resource busy"):
        pack_study(both[0], out)
    assert files_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_the_new_archive_is_there_before_the_old_one_is_removed(both, tmp_path, monkeypatch):
    out = tmp_path / "archive"
    digest = pack_study(both[0], out).digest

    def refuse_halfway(path, *_, **__):
        (Path(path) / "study.json").unlink(missing_ok=True)
        raise OSError(13, "Permission denied", str(path))

    monkeypatch.setattr(archive.shutil, "rmtree", refuse_halfway)
    with pytest.raises(RecordError, match="Permission denied"):
        pack_study(both[0], out)
    assert read_manifest(out)["records_sha256"] == digest


def test_an_archive_can_be_made_in_the_working_folder(both, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "pack", str(both[0]), "--out", "."]) == 0
    assert "MB in .\n" in capsys.readouterr().out
    assert read_manifest(tmp_path)["records_sha256"] == both[1].digest


def test_a_full_disk_leaves_the_archive_that_was_there_and_is_said_of_it(both, tmp_path):
    folder, _ = both
    out = tmp_path / "archive"
    pack_study(folder, out)
    before = files_of(out)

    with file_size_limit(100), pytest.raises(RecordError) as caught:
        pack_study(folder, out)
    assert str(caught.value) == f"cannot write {out}: File too large"
    assert files_of(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_damaged_run_is_not_packed(tmp_path):
    study = StudyFolder(tmp_path / "study")
    study.add("training", "train", trained(1.0))
    folder = study.add("training", "train", trained(1.0), cuts=1)
    (folder / "result.json").write_text("{")
    with pytest.raises(RecordError, match=r"1 run of .* cannot be packed: .*result\.json is damag"):
        pack_study(study.path, tmp_path / "archive")
    assert not (tmp_path / "archive").exists()


def test_changed_or_missing_records_are_noticed(both, tmp_path):
    folder, packed = both
    out = pack_study(folder, tmp_path / "archive").out
    log = next(out.glob("runs/*/queries.jsonl.gz"))
    text = gzip.decompress(log.read_bytes())
    log.write_bytes(gzip.compress(text))  # other bytes, the same records
    assert records_hash(out) == packed.digest
    log.write_bytes(gzip.compress(text.replace(b'"t_total": ', b'"t_total": 1')))
    with pytest.raises(RecordError, match="its records are not those that were packed"):
        read_manifest(out)
    log.write_bytes(gzip.compress(text)[:-10])
    with pytest.raises(RecordError, match=r"queries\.jsonl\.gz is damaged"):
        read_manifest(out)
    log.unlink()
    with pytest.raises(RecordError, match="its records are not those that were packed"):
        read_manifest(out)
    with pytest.raises(RecordError, match="is no archive of a study: make one with"):
        read_manifest(folder)


def test_hostile_names_are_packed_as_they_are(tmp_path):
    folder = hostile_study(tmp_path / "study")
    packed = pack_study(folder, tmp_path / "archive")
    assert {run.run_id for run in load_study(packed.out).runs} == {
        run.run_id for run in load_study(folder).runs
    }
    assert read_manifest(packed.out)["records_sha256"] == packed.digest
