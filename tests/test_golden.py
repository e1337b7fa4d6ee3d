"""Files that earlier versions wrote are read, and gone on with, by this one."""

from __future__ import annotations

import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_estimator.analysis.study import load_study as load_results
from distributed_estimator.execution import Journal
from distributed_estimator.records import KINDS, decode, encode, read_records, to_dict
from distributed_estimator.study.config import load_study
from distributed_estimator.study.folder import StudyFolder
from distributed_estimator.study.matrix import runs_of
from distributed_estimator.study.runner import run_study
from distributed_estimator.training.loop import resume
from distributed_estimator.training.runs import RunFolder

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = [path for path in sorted(GOLDEN.iterdir()) if path.is_dir() and path.name[0].isdigit()]
FIRST = GOLDEN / "first-schema.jsonl"
"""Records with the fields that the first versions had, and no others."""


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The files of a version, which a test may change."""
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True)
    return [line.rstrip() for line in lines if line.endswith(b"}\n")]


def agrees(value: Any, line: Any) -> bool:
    """Whether a field is what its line says, where null stands for NaN, too."""
    if isinstance(line, dict):
        return value.keys() >= line.keys() and all(agrees(value[key], line[key]) for key in line)
    if isinstance(line, list):
        return len(value) == len(line) and all(map(agrees, value, line))
    if line is None:
        return value is None or math.isnan(value)
    return type(value) is type(line) and bool(value == line)


@pytest.mark.parametrize("path", [*(path / "records.jsonl" for path in VERSIONS), FIRST])
def test_records_say_what_their_lines_say(path: Path) -> None:
    lines = whole_lines(path)
    assert {json.loads(line)["kind"] for line in lines} == set(KINDS)
    for record, line in zip(read_records(path), lines, strict=True):
        assert record == decode(line) or b"null" in line
        assert agrees(to_dict(record), json.loads(line))


def test_a_line_is_written_as_it_was() -> None:
    """Hashes of records, such as a cost model's, depend on the text of their lines."""
    for line in whole_lines(GOLDEN / "0.1" / "records.jsonl"):
        assert encode(decode(line)) == line


def test_a_journal_goes_on(golden: Path) -> None:
    """Within a version of the package: results of two versions do not mix."""
    path = golden / "run.journal"
    written, *lines, torn = path.read_bytes().splitlines(keepends=True)
    header = json.loads(written)
    header["versions"]["distributed-estimator"] = version("distributed-estimator")
    whole = json.dumps(header).encode() + b"\n" + b"".join(lines)
    path.write_bytes(whole + torn)
    with Journal(path) as journal:
        for line in map(json.loads, lines):
            found = journal.find(line["key"])
            assert found is not None
            assert [list(array.shape) for array in found] == line["shapes"]
        journal.add("more", (np.array([0.5]),))
    assert path.read_bytes().startswith(whole + b'{"key": "more"')


def test_a_training_goes_on_from_its_checkpoint(golden: Path) -> None:
    folder = RunFolder(golden / "training")
    resume(folder)
    ends = json.loads((golden / "training-weights.json").read_text())
    found = json.loads(folder.weights.read_text())
    assert found.keys() == ends.keys()
    for name in ends:
        assert np.asarray(found[name]) == pytest.approx(np.asarray(ends[name]), abs=1e-6)


def test_a_study_has_nothing_left_to_run(golden: Path) -> None:
    study = load_study(golden / "study.yaml", "small")
    kept = {path: path.read_bytes() for path in (golden / "study").rglob("*") if path.is_file()}
    done = run_study(study, runs_of(study), StudyFolder(golden / "study"))
    assert (done.done, done.kept, done.failures) == (0, 2, [])
    assert {path: path.read_bytes() for path in kept} == kept
    read = load_results(golden / "study")
    assert list(read.runs.status) == ["done", "done"]
    assert not read.damaged
