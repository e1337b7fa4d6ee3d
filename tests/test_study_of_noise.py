"""Studies of noise: values on simulated devices, from the file to the report."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from qiskit.quantum_info import SparsePauliOp, Statevector

from distributed_estimator import DistributedEstimator
from distributed_estimator.analysis.load import load_queries
from distributed_estimator.analysis.study import load_study as load_finished
from distributed_estimator.cli.main import main
from distributed_estimator.cutting import CutPlan
from distributed_estimator.errors import InputError, MissingExtraError
from distributed_estimator.study import runner
from distributed_estimator.study.config import load_study
from distributed_estimator.study.folder import StudyFolder
from distributed_estimator.study.matrix import expected_seconds, runs_of
from distributed_estimator.study.values import LEAST_VALUE, cuts_of, drawn, most_cuts, widest

SMALL = """\
name: small
experiments:
  errors:
    kind: values
    devices: [fake_manila]
    circuits: [chain]
    qubits: [4]
    cuts: [0, 1]
    mitigations: [readout]
    shots_total: [400]
    seeds: [1, 2]
"""


def write(tmp_path: Path, old: str = "", new: str = "") -> Path:
    """The small study with one change."""
    assert old in SMALL
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.replace(old, new, 1))
    return path


# --- what a file may say --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("[fake_manila]", "[fake_manilla]", 5, "did you mean `fake_manila`?"),
        ("[fake_manila]", "[ibm_torino]", 5, "ibm_torino, which is one of an account, and a study"),
        ("[fake_manila]", "[fake_manila, fake_manila]", 5, "has 'fake_manila' twice: remove one"),
        ("[readout]", "[none, zen]", 9, "[1]` is 'zen': give one of none, readout, readout+zne"),
        ("[chain]", "[star]", 6, "circuits[0]` is 'star': give one of chain, ring, far"),
        ("cuts: [0, 1]", "cuts: [4]", 8, "has 4, and `chain` of 4 qubits takes 0 to 3: remove it"),
        ("[chain]", "[chain, ring]\n    cuts: [3]", 9, "on line 7: keep one"),
        ("cuts: [0, 1]", "cuts: [3, 2]\n    trace: 1", 9, "trace` is 1: give true or false"),
        ("qubits: [4]", "qubits: [6]", 7, "with 0 cuts take 6 at once, and fake_manila has 5: giv"),
        ("qubits: [4]", "qubits: [13]", 7, "has 13, and `chain` takes 2 to 12: give others"),
        ("[chain]", "[far]\n    workers: [1]", 7, "`kind: train`, and this is `kind: values`"),
        ("    shots_total: [400]\n", "", 3, "`experiments.errors.shots_total` is missing: add it"),
    ],
)
def test_bad_files_are_refused_with_line_and_remedy(
    old: str, new: str, line: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, old, new)
    assert main(["study", "run", str(path), "--out", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert f"small.yaml, line {line}: " in text
    assert not (tmp_path / "out").exists()


def test_rings_are_cut_in_two_layers_at_most(tmp_path: Path) -> None:
    text = SMALL.replace("[chain]", "[ring, far]").replace("cuts: [0, 1]", "cuts: [0, 3]")
    path = tmp_path / "small.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"line 8: .*`ring` of 4 qubits takes 0 to 2.*`far` of 4"):
        load_study(path)


def test_every_scale_says_what_runs_and_takes_longer_than_the_one_before() -> None:
    seconds, known = [], set()
    for scale in ("smoke", "laptop", "full"):
        runs = runs_of(load_study("noise", scale))
        ids = {run.run_id for run in runs}
        assert known < ids  # so that a smaller scale's runs are parts of the larger one
        assert len(ids) == len({run.title for run in runs}) == len(runs)
        seconds.append(sum(map(expected_seconds, runs)))
        known = ids
    assert 60 < seconds[0] < 300
    assert seconds == sorted(seconds)


def test_the_simulator_of_devices_is_asked_for_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_of(load_study(write(tmp_path)))
    missing = {"torch", "sklearn", "qiskit_aer"}
    find = runner.importlib.util.find_spec
    monkeypatch.setattr(
        runner.importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    with pytest.raises(MissingExtraError, match=r"distributed-estimator\[aer\]"):
        runner.check_packages(runs)
    missing.remove("qiskit_aer")
    runner.check_packages(runs)  # nothing is trained


# --- circuits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "cuts"), [("chain", 3), ("ring", 1), ("far", 2)])
def test_cut_circuits_have_the_value_that_was_drawn(shape: Any, cuts: int) -> None:
    circuit, value = drawn(shape, 5, seed=3)
    whole = Statevector(circuit).expectation_value(SparsePauliOp("ZZZZZ")).real
    assert value == pytest.approx(whole, abs=1e-12)
    assert abs(value) >= LEAST_VALUE
    assert drawn(shape, 5, seed=3)[0] == circuit != drawn(shape, 5, seed=4)[0]
    assert cuts <= most_cuts(shape, 5)
    where = cuts_of(shape, circuit, cuts)
    plan = CutPlan.build(circuit, where)
    assert plan.num_cuts == cuts
    assert max(fragment.num_qubits for fragment in plan.fragments) == widest(shape, 5, cuts)
    with DistributedEstimator(where) as estimator:
        found = estimator.run([(circuit, "ZZZZZ")], precision=0).result()[0]
    assert float(found.data.evs) == pytest.approx(value, abs=1e-10)


# --- runs and their report ------------------------------------------------------------------------


def numbers(out: Path) -> dict[str, dict[str, Any]]:
    """What runs came to, by their ids, without times."""
    found = {}
    for path in out.glob("runs/*/result.json"):
        results = json.loads(path.read_text())["results"]
        found[path.parent.name] = {k: v for k, v in results.items() if k != "query_seconds"}
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, run by the command, in the folder `out` beside its file."""
    folder = tmp_path_factory.mktemp("noise")
    command = ["study", "run", str(write(folder)), "--out", str(folder / "out")]
    assert main(command) == 0
    return folder / "out"


def test_results_have_value_error_and_what_was_paid(finished: Path) -> None:
    runs = {run.run_id: run for run in runs_of(load_study(finished.parent / "small.yaml"))}
    found = numbers(finished)
    assert set(found) == set(runs)
    assert len(found) == 4
    for run_id, result in found.items():
        config = runs[run_id].config
        assert result["exact"] == drawn("chain", 4, config["seed"])[1]
        assert result["error"] == pytest.approx(result["value"] - result["exact"])
        # Gates are right nine times in ten (0.1 of a value of at most 1); the rest is of shots.
        assert abs(result["error"]) < 0.1 + 5 * result["stderr"]
        assert 0 < result["predicted"] < 0.3
        assert 200 <= result["shots"] <= 600
        (record,) = load_queries(finished / "runs" / run_id / "queries.jsonl")
        assert (record.shots_total, record.num_cuts) == (result["shots"], config["cuts"])
        assert record.num_subexperiments == result["circuits"]
        assert "fake_manila" in record.backend
        assert record.value.mean == result["value"]


def test_a_run_that_was_killed_is_repeated_with_the_same_numbers(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run of the study is killed when its records are on the disk, and no result."""
    study = load_study(finished.parent / "small.yaml")
    folder, runs = StudyFolder(tmp_path / "out"), runs_of(study)[:2]
    runner.run_study(study, runs[:1], folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "load_queries", killed)
        with pytest.raises(KeyboardInterrupt):
            runner.run_study(study, runs, folder)
    assert len(load_queries(folder.of(runs[1]) / "queries.jsonl")) == 1
    done = runner.run_study(study, runs, folder)
    assert (done.kept, done.done, done.failures) == (1, 1, [])
    assert len(load_queries(folder.of(runs[1]) / "queries.jsonl")) == 1
    whole = numbers(finished)
    assert numbers(folder.path) == {run.run_id: whole[run.run_id] for run in runs}


def test_the_report_is_of_errors_and_asks_no_question_of_the_paper(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main(["study", "report", str(finished), "--out", str(out)]) == 0
    assert "RQ" not in capsys.readouterr().out
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "noise_errors.png",
        "noise_errors.svg",
    ]
    texts = [(out / name).read_text("utf-8") for name in ("README.md", "report.html")]
    for text in texts:
        assert "RQ1" not in text.split("<script")[0]
        assert "Acceptance criteria" not in text
        assert "Not measured" not in text
        assert "Results of the study small" in text or "Study small<" in text
    table = pd.read_csv(out / "tables" / "noise_errors.csv")
    assert list(zip(table.cuts, table.mitigation, strict=True)) == [(0, "readout"), (1, "readout")]
    found = numbers(finished)
    for row in table.itertuples():
        mine = [found[run_id] for run_id in row.runs.split()]
        squares = [one["error"] ** 2 for one in mine]
        assert row.n == len(mine) == 2
        assert row.error == pytest.approx(math.sqrt(sum(squares) / 2))
        # Of a mean of two: half their distance.
        mean = abs(squares[0] - squares[1]) / 2
        assert row.error_stderr == pytest.approx(mean / (2 * row.error))
        assert row.claimed**2 == pytest.approx(sum(one["stderr"] ** 2 for one in mine) / 2)
        assert row.shots == sum(one["shots"] for one in mine) / 2
        assert row.origin == "fake backend"


def test_a_result_without_its_numbers_is_left_out_of_the_report(
    finished: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(finished, tmp_path / "study")
    result = next(path.glob("runs/*/result.json"))
    document = json.loads(result.read_text())
    del document["results"]["exact"]
    result.write_text(json.dumps(document))
    study = load_finished(path)
    assert len(study.runs) == 3
    assert "is done without one of value, stderr, exact" in study.damaged[result.parent.name]
