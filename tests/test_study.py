"""Studies: what a YAML file may say, which runs it comes to, and that each is run once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from distributed_estimator.cli.main import dest, main
from distributed_estimator.errors import (
    InputError,
    MissingExtraError,
    RecordError,
    TrainingStoppedError,
)
from distributed_estimator.records import Header, QueryRecord, TrainingRecord, read_records
from distributed_estimator.records.files import take_lock
from distributed_estimator.study.config import Study, content_hash, load_study
from distributed_estimator.study.folder import StudyFolder, differences
from distributed_estimator.study.matrix import StudyRun, expected_seconds, runs_of, total_seconds
from distributed_estimator.study.runner import check_packages, run_study
from distributed_estimator.training import loop
from distributed_estimator.training.runs import RunFolder

TINY = """\
name: tiny
shots: 16
experiments:
  learn:
    kind: train
    datasets:
      iris: {qubits: [2], epochs: 3, samples: 8, test_samples: 4}
    cuts: [0, 1]
    seeds: [1]
    workers: [2]
    robustness: {attacks: [gaussian, fgsm], draws: 2, samples: 4}
  ask:
    kind: queries
    backend: fleet
    datasets:
      iris: {qubits: [2]}
    cuts: [1]
    seeds: [1]
    devices: [2]
    device: {seconds_per_job: 0.001, seconds_per_shot: 0.0}
    queries: 3
    trace: true
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def write(tmp_path: Path, old: str = "", new: str = "") -> Path:
    """The tiny study with one change."""
    assert old in TINY
    path = tmp_path / "study.yaml"
    path.write_text(TINY.replace(old, new, 1))
    return path


def results(out: Path) -> dict[str, dict[str, Any]]:
    """The results of a study's runs, by their ids."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in out.glob("runs/*/result.json")
    }


def comparable(out: Path) -> dict[str, Any]:
    """What must not depend on how often a study was interrupted: all but times and attempts."""
    found = {}
    for path in sorted(out.glob("runs/*")):
        records = list(read_records(path / "queries.jsonl"))
        queries = [
            (r.quantity, r.num_queries, r.value, r.stderr.mean)
            for r in records
            if isinstance(r, QueryRecord)
        ]
        ids = [r.query_id for r in records if isinstance(r, QueryRecord)]
        assert len(ids) == len(set(ids)), "a query is recorded twice"
        log = path / "training.jsonl"
        epochs = (
            [r.epoch for r in read_records(log) if isinstance(r, TrainingRecord)]
            if log.exists()
            else []
        )
        numbers = json.loads((path / "result.json").read_text())["results"]
        kept = {key: value for key, value in numbers.items() if not key.endswith("seconds")}
        found[path.name] = (repr(queries), epochs, kept)
    return found


# --- the file -------------------------------------------------------------------------------------


def bad(old: str, *rows: tuple[str, int, str]) -> list[tuple[str, str, int, str]]:
    """Changes of a line; those that begin with + come after it."""
    return [(old, f"{old}\n{new[1:]}" if new[0] == "+" else new, *end) for new, *end in rows]


LEARN = "{qubits: [2], epochs: 3"
BAD = [
    *bad(
        "shots: 16",
        ("+shot: 8", 3, "`shot` is no known key: did you mean `shots`?"),
        ("shots: many", 2, "`shots` is 'many': give a whole number"),
        ("+lr: fast\nmodel: z", 3, "line 4: `model` is 'z': give a mapping"),
        ("+lr: 1e-3", 3, "`lr` is '1e-3': give a positive learning rate, such as 0.1, without quo"),
        ("shots:", 2, "`shots` is missing: add it"),
        ("+1: 2", 3, "`[1]` is no known key: use some of about"),
        (" ", 1, "`shots` is missing: add it"),
        ("+shots: 8", 3, "`shots` is there already, on line 2: keep one"),
        ("shots: !!python/name:os.system x", 2, "put that line right"),
        ("shots: !!int 'x'", 2, "found the tag 'tag:yaml.org,2002:int': leave it out"),
        ("shots: [16", 3, "put that line right"),
        ("lr: &a 0.1\nshots: *a", 3, "found an alias: write the value out"),
        ("+<<: {shots: 8}", 3, "`<<` is no known key"),
        ("+? [a]\n: b", 3, "a key is no text or number: give a name"),
        ("+scales: {a: {? {b: 1} : c}}", 3, "a key is no text or number: give a name"),
        ("+scales: {small: {shot: 8}}", 3, "did you mean `shots`?"),
        ("+scales: {small: {experiments: {lern: {}}}}", 3, "did you mean `learn`?"),
        ("+scales: {small: {experiments: {learn: {kind: }}}}", 3, "needs `kind`: give `train`"),
        ("+scales: {small: {experiments: [{}]}}", 3, "`experiments` is [{}]: give a mapping"),
        ("+scales: []", 3, "`scales` is no mapping: give the name of each scale"),
        ("+optimizer: spsa\nscales: {a: {}, b: {lr: -1}}", 4, "`lr` is -1"),
        ("+model: {observable: zz_top}", 3, "observable"),
        *(
            (f"shots: {text}", 2, "without quotes, in digits from 0 to 9 (at most 18, none of them")
            for text in ("'16'", "0100", "08", "0x10", "1_000", "1:30", "1" * 5000)
        ),
    ),
    *bad("name: tiny", ("name: <b>", 1, "`name` is '<b>': give a name of letters")),
    *bad("  learn:", ("  1st:", 4, "begins with a letter")),
    *bad(
        "kind: train",
        ("knd: train", 4, "`experiments.learn` needs `kind`: give `train` or `queries` or"),
    ),
    *bad(
        "    cuts: [0, 1]",
        ("    cuts: []", 8, "`experiments.learn.cuts` is []: give at least one"),
        ("    cuts: [0, 2]", 8, "`cuts` has 2, and iris with 2 qubits takes 0 to 1"),
        ("    cuts: [0, 0]", 8, "`cuts` has 0 twice: remove one"),
    ),
    *bad("    seeds: [1]", ("    sheds: [1]", 9, "did you mean `seeds`?")),
    *bad(
        LEARN,
        ("{qubits: [5], epochs: 3", 7, "iris takes 1 to 4: give fewer"),
    ),
    *bad(
        "iris: {qubits: [2], e",
        ("mnist: {qubits: [25], e", 7, "mnist takes 1 to 24: give fewer"),
        ("mnist: {qubits: [8], e", 7, "8 principal components need 9"),
        ("irish: {qubits: [2], e", 7, "`experiments.learn.datasets.irish`"),
    ),
    *bad("attacks: [gaussian, fgsm]", ("attacks: [x]", 11, "`experiments.learn.robustness.att")),
    *bad(
        "workers: [2]",
        ("+    devices: [2]", 11, "`experiments.learn.devices` belongs to `kind: queries`, and"),
        ("+    straggler_p: [1.5]", 11, "straggler_p[0]` is 1.5: give a number of at least 0"),
        ("+    straggler_p: [0.2]", 11, "add `straggler_delay` in seconds"),
        ("+    policies: [egaer]", 11, "did you mean `eager`?"),
        ("+    pipelines: [reference]\n    pool: processes", 12, "threads"),
    ),
    *bad("backend: fleet", ("backend: aer", 12, "`workers` is missing: add it")),
    *bad("    devices: [2]", (" ", 12, "`devices` is missing: a fleet needs it, add it")),
    *bad(
        "    trace: true",
        ("    pipelines: [reference]", 14, "`backend` is fleet, and the reference pipeline runs"),
        ("    workers: [2]", 22, "remove `workers`, give `devices`"),
        ("    pool: processes", 22, "a simulated fleet lives in this process"),
        ("    reference_queries: {1: 2}", 22, "belongs to the reference pipeline"),
        ("    reference_queries: {1: 2, 0x1: 3}", 22, "reference_queries.0x1` is '0x1': give a"),
        ("    reference_queries: {1: 2, true: 3}", 22, "`true` is there already, on line 22"),
        ("    variants:\n      - {simulator_thread: 2}", 23, "did you mean `simulator_threads`?"),
        ("    variants:\n      - {}", 23, "`experiments.ask.variants[0].workers` is missing"),
        ("    variants: [{workers: 1}, {workers: 1}]", 22, "has the same variant twice"),
        ("    variants: [{workers: 1}]", 22, "`pipelines` is [contracted]: give `backend: aer`"),
        ("    workers: [1]\n    variants: [{workers: 1}]", 22, "has its own `workers`: remove"),
        (
            "    pipelines: [reference]\n    variants: [{workers: 2, defer_measurements: true}]",
            23,
            "`workers` is 2, and with `defer_measurements` a query is one job: give 1",
        ),
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), BAD)
def test_bad_files_are_refused_with_line_and_remedy(
    old: str, new: str, line: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, old, new)
    out = tmp_path / "out"
    assert main(["study", "run", str(path), "--out", str(out)]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert f"study.yaml, line {line}: " in text
    assert not out.exists()


def test_an_error_is_named_once(tmp_path: Path) -> None:
    """Both experiments have the model, and it cannot be built for either; others come with it."""
    path = write(tmp_path, "shots: 16", "shots: 16\nmodel: {observable: ZZZ}")
    with pytest.raises(InputError) as caught:
        load_study(path)
    assert str(caught.value).count("cannot be built") == 1


@pytest.mark.parametrize("text", ["", "- a", "just text", "\x00", "a: [" * 4000])
def test_what_is_no_study_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml"):
        load_study(path)


@pytest.mark.parametrize(
    "text",
    ['about: "\\UFFFFFFFF"', 'about: "\\U00FFFFFF"', f"%YAML 1.{'1' * 5000}\n---\nname: a"],
    ids=["no C integer", "no character", "directive"],
)
def test_numbers_that_the_parser_cannot_hold_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text + "\n")
    with pytest.raises(InputError, match=r"study\.yaml is not YAML .*: write characters"):
        load_study(path)


@pytest.mark.parametrize("text", ["1.0e1", "1.0e+1", "100.E-1", ".1e2", "10"])
def test_an_exponent_after_a_point_needs_no_sign(text: str, tmp_path: Path) -> None:
    assert load_study(write(tmp_path, "shots: 16", f"shots: 16\nlr: {text}")).config.lr == 10.0


def test_dates_and_merges_are_texts_where_texts_stand(tmp_path: Path) -> None:
    path = write(tmp_path, "shots: 16", "shots: 16\nabout: 2026-02-30\ndeviations: [<<, =, 010]")
    config = load_study(path).config
    assert (config.about, config.deviations) == ("2026-02-30", ("<<", "=", "010"))


@pytest.mark.parametrize(
    ("key", "zero"),
    [
        ("straggler_p", "straggler_p: [{}]"),
        ("straggler_delay", "straggler_delay: {}"),
        ("sigma", "robustness: {{attacks: [gaussian], sigma: [{}, 0.1]}}"),
    ],
)
def test_zero_has_no_sign(key: str, zero: str, tmp_path: Path) -> None:
    """Or the same run would have two IDs."""
    found = []
    for text in ("0.0", "-0.0", "0"):
        robustness = "    robustness: {attacks: [gaussian, fgsm], draws: 2, samples: 4}"
        lines = [f"    {zero.format(text)}"] + [robustness] * (key != "sigma")
        found.append(ids(write(tmp_path, robustness, "\n".join(lines))))
    assert found[0] == found[1] == found[2]


class Counting(int):
    """An integer that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counting.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


def test_long_lists_are_checked_in_time_that_grows_as_they_do(tmp_path: Path) -> None:
    config = load_study(write(tmp_path)).config
    learn = config.experiments["learn"]
    seeds: list[int] = [Counting(seed) for seed in range(2000)]
    many = replace(learn, seeds=(*seeds, Counting(7)))
    changed = replace(config, experiments={"learn": many})
    Counting.compared = 0
    problems = list(changed.problems())
    assert problems == [
        (("experiments", "learn", "seeds", 2000), "`seeds` has 7 twice: remove one")
    ]
    assert Counting.compared < 10 * len(seeds)


def test_a_configuration_that_training_refuses_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "shots: 16", "shots: 16\noptimizer: spsa")
    text = path.read_text().replace("epochs: 3,", "epochs: 3, batch_size: 4,")
    path.write_text(text)
    with pytest.raises(InputError, match=r"line 5: learn, iris 2q.*`batch_size` is 4, and spsa"):
        runs_of(load_study(path))


def test_unknown_file_and_scale_are_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"`papr` is no study: give paper or noise, or the"):
        load_study("papr")
    with pytest.raises(
        InputError, match=r"the scale is `small`, and paper.yaml has the scales smoke"
    ):
        load_study("paper", "small")
    with pytest.raises(InputError, match="has no scales: leave it out"):
        load_study(tiny, "small")


# --- the matrix -----------------------------------------------------------------------------------


def ids(path: Path) -> list[str]:
    return [run.run_id for run in runs_of(load_study(path))]


def test_ids_do_not_depend_on_the_order_of_keys_or_on_texts(tiny: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.yaml"
    lines = TINY.splitlines()
    ask = lines.index("  ask:")
    head, learn, asked = lines[:2], lines[3:ask], lines[ask:]
    turned.write_text(
        "\n".join(["about: other words", "experiments:", *asked, learn[0], "    about: and here"])
        + "\n"
        + "\n".join([*reversed(learn[5:]), *learn[1:5], *reversed(head), ""])
    )
    assert set(ids(turned)) == set(ids(tiny))
    assert load_study(turned).hash == load_study(tiny).hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shots: 16", "shots: 17"),
        ("shots: 16", "shots: 16\nlr: 0.2"),
        ("shots: 16", "shots: 16\nmodel: {ansatz_reps: 2}"),
        ("shots: 16", "shots: 16\noptimizer: sgd"),
        ("epochs: 3", "epochs: 4"),
        ("samples: 8", "samples: 10"),
        ("qubits: [2], epochs", "qubits: [3], epochs"),
        ("seeds: [1]", "seeds: [2]"),
        ("workers: [2]", "workers: [3]"),
        ("workers: [2]", "workers: [2]\n    pool: processes"),
        ("workers: [2]", "workers: [2]\n    subexperiments: 1"),
        ("workers: [2]", "workers: [2]\n    straggler_p: [0.2]\n    straggler_delay: 0.1"),
        ("draws: 2", "draws: 3"),
        ("  learn:", "  teach:"),
    ],
)
def test_every_parameter_changes_the_ids(old: str, new: str, tiny: Path, tmp_path: Path) -> None:
    before, after = ids(tiny)[:2], ids(write(tmp_path, old, new))[:2]
    assert not set(before) & set(after)


def test_scales_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    scales = (
        "scales:\n  small: {experiments: {learn: {datasets: {iris: {epochs: 1}}, seeds: [5, 6]}}}\n"
        "  whole: {}\n"
    )
    path = tmp_path / "study.yaml"
    path.write_text(TINY + scales)
    small = [run.config for run in runs_of(load_study(path)) if run.experiment == "learn"]
    assert [(c["epochs"], c["samples"], c["seed"], c["cuts"]) for c in small] == [
        (1, 8, 5, 0),
        (1, 8, 5, 1),
        (1, 8, 6, 0),
        (1, 8, 6, 1),
    ]
    assert [run.config["epochs"] for run in runs_of(load_study(path, "whole"))[:2]] == [3, 3]


def paper(scale: str, **chosen: Any) -> list[StudyRun]:
    """The runs of the paper's study with those values."""
    return [
        run
        for run in runs_of(load_study("paper", scale))
        if all(run.config.get(key, getattr(run, key, None)) == v for key, v in chosen.items())
    ]


@pytest.mark.parametrize("scale", ["smoke", "laptop", "full"])
def test_every_scale_has_something_for_every_figure(scale: str) -> None:
    runs = paper(scale)
    assert len({run.run_id for run in runs}) == len(runs)
    for dataset in ("iris", "mnist"):
        for cuts in range(4):
            mine = [r for r in runs if (r.config["dataset"], r.config["cuts"]) == (dataset, cuts)]
            trained = [r for r in mine if r.experiment == "training"]
            assert trained
            assert all(r.config["robustness"] for r in trained)
            scaled = {r.config["workers"] for r in mine if r.experiment == "scaling"}
            assert scaled >= {1, 16}
            shares = {r.pipeline for r in mine if r.experiment == "shares"}
            assert shares == {"contracted", "reference"}
            delayed = {r.config["straggler_p"] for r in mine if r.experiment == "stragglers"}
            assert delayed == {0.0, 0.2}


@pytest.mark.parametrize(
    ("scale", "study", "runs"),
    [
        ("full", "d762beff0d6e", "c68867161882"),
        ("laptop", "f6c61cac43ac", "de9dc6d281fb"),
        ("smoke", "3257af88da91", "138cd84f929e"),
    ],
)
def test_the_papers_runs_keep_their_ids(scale: str, study: str, runs: str) -> None:
    """Or folders of earlier versions could not go on, and published records lose their runs."""
    assert load_study("paper", scale).hash == study
    text = " ".join(run.run_id for run in paper(scale))
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == runs


def how(run: StudyRun) -> tuple[int, int | None, bool]:
    """Workers, simulator's threads and whether measurements are deferred."""
    config = run.config
    return config["workers"], config["simulator_threads"], config["defer_measurements"]


def test_the_estimate_grows_with_the_scale() -> None:
    smoke, laptop, full = (total_seconds(paper(scale)) for scale in ("smoke", "laptop", "full"))
    assert 60 < smoke < 300
    assert smoke < laptop < 2700 < full
    (few,) = [r for r in paper("smoke", cuts=2, dataset="iris", pipeline="reference")]
    (more,) = [r for r in paper("smoke", cuts=3, dataset="iris", pipeline="reference")]
    assert expected_seconds(more) / more.config["queries"] > 5 * expected_seconds(few) / 2


def test_pipelines_and_experiments_can_be_chosen() -> None:
    study = load_study("paper", "smoke")
    assert {run.pipeline for run in runs_of(study, ["reference"])} == {"reference"}
    assert {run.experiment for run in runs_of(study, only=["fleet"])} == {"fleet"}
    with pytest.raises(InputError, match="`fleets` is no experiment of this study: did you mean"):
        runs_of(study, only=["fleets"])
    with pytest.raises(InputError, match="no run of this study is of the pipeline reference"):
        runs_of(study, ["reference"], ["fleet"])


def test_a_missing_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed_estimator.study import runner

    find = runner.importlib.util.find_spec
    monkeypatch.setattr(
        runner.importlib.util,
        "find_spec",
        lambda name: None if name == "qiskit_aer" else find(name),
    )
    with pytest.raises(MissingExtraError, match="qiskit-aer"):
        check_packages(paper("smoke"))


def test_a_missing_extra_ends_in_an_install_hint(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['yaml'] = None\n"
        "from distributed_estimator.cli.main import main\n"
        f"sys.exit(main(['study', 'run', 'paper', '--out', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert 'pip install "distributed-estimator[study]"' in done.stderr


# --- running --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run without any accident."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    study = load_study(path)
    out = folder / "out"
    done = run_study(study, runs_of(study), StudyFolder(out))
    assert (done.done, done.kept, done.failures) == (3, 0, [])
    return out


def test_a_study_leaves_what_the_tables_need(finished: Path) -> None:
    head = json.loads((finished / "study.json").read_text())
    assert head["runs"] == [run.run_id for run in runs_of(load_study(finished / "../tiny.yaml"))]
    assert head["name"] == "tiny"
    assert head["config"]["shots"] == 16
    found = results(finished)
    assert len(found) == 3
    for run_id, result in found.items():
        run = json.loads((finished / "runs" / run_id / "run.json").read_text())
        assert run.pop("run_id") == run_id == content_hash(run)
        assert result["status"] == "done"
        assert result["attempts"] == 1
        assert result["seconds"] > 0
        if run["kind"] == "queries":
            assert result["results"]["num_queries"] == 3
            assert len(result["results"]["values"]) == 3
            assert {p.name for p in (finished / "runs" / run_id).iterdir()} >= {
                "queries.jsonl",
                "tasks.jsonl",
                "devices.jsonl",
            }
            continue
        numbers = result["results"]
        assert 0 <= numbers["test_accuracy"] <= 1
        # Scores of 8 + 4 samples at the start and after each epoch, and the values of 3 steps.
        assert numbers["values"] == 4 * 12 + 3 * 8
        assert numbers["gradients"] == 3 * 8
        assert numbers["reference_queries"] == numbers["values"] + 2 * 4 * numbers["gradients"]
        assert [row[0] for row in numbers["robustness"]["fgsm"]] == [0.0, 0.05, 0.1, 0.2, 0.3]
        assert all(len(row) == 4 for row in numbers["robustness"]["gaussian"])
        assert 0 <= numbers["robustness_summary"] <= 1


def test_finished_runs_are_never_repeated(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*")}
    study = load_study(finished.parent / "tiny.yaml")
    again = run_study(study, runs_of(study), StudyFolder(finished))
    assert (again.done, again.kept) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*")} == before


@pytest.fixture
def begun(tiny: Path, tmp_path: Path) -> tuple[Study, StudyFolder]:
    """The tiny study, with a folder that none of its runs has been in."""
    study, folder = load_study(tiny), StudyFolder(tmp_path / "out")
    with folder.held(study):
        pass
    return study, folder


Begun = tuple[Study, StudyFolder]
Halfway = tuple[Study, StudyFolder, StudyRun]


def test_a_folder_of_another_configuration_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "shots: 16", "shots: 8")
    path.write_text(path.read_text().replace("epochs: 3", "epochs: 2"))
    assert main(["study", "run", str(path), "--out", str(finished)]) == 2
    text = capsys.readouterr().err
    assert "`shots` is 16 there and 8 here" in text
    assert "`experiments.learn.datasets.iris.epochs` is 3 there and 2 here" in text


def test_a_folder_with_other_things_or_of_another_version_is_refused(begun: Begun) -> None:
    study, folder = begun
    head = json.loads(folder.study.read_text())
    other = json.dumps(head | {"hash": "0" * 12})  # the same file, read by one that knew fewer keys
    for text, error, message in (
        (other, InputError, "begun by a version whose runs were others; name another"),
        ('{"schema_version": 2}', InputError, "has schema 2, and this version reads 1"),
        ("[" * 100_000, RecordError, r"study\.json` is damaged: .*restore it"),
    ):
        folder.study.write_text(text)
        with pytest.raises(error, match=message):
            run_study(study, runs_of(study), folder)
    thesis = folder.study.rename(folder.path / "thesis.tex")
    with pytest.raises(InputError, match=r"holds no study, but thesis\.tex"):
        run_study(study, runs_of(study), folder)
    with pytest.raises(InputError, match="is a file: name a folder"):
        run_study(study, runs_of(study), StudyFolder(thesis))


def test_a_folder_whose_study_names_no_runs_goes_on(begun: Begun) -> None:
    """As one that an older release began."""
    study, folder = begun
    head = json.loads(folder.study.read_text())
    del head["runs"]
    folder.study.write_text(json.dumps(head))
    assert run_study(study, runs_of(study, only=["ask"]), folder).done == 1


def test_differences_are_named_by_their_place() -> None:
    found = {"a": {"b": [1], "about": "x"}, "c": 1}
    wanted = {"a": {"b": [2], "about": "y"}, "d": 2}
    assert differences(found, wanted) == [
        "`a.b` is [1] there and [2] here",
        "`c` is 1 there and nothing here",
        "`d` is nothing there and 2 here",
    ]


def test_a_second_program_is_refused_while_one_runs(begun: Begun) -> None:
    study, folder = begun
    with folder.held(study), pytest.raises(InputError, match="another program runs the study"):
        run_study(study, runs_of(study), folder)
    assert not results(folder.path)


def test_a_failed_run_is_recorded_and_the_study_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["study", "run", str(tiny), "--out", str(out)]
    with monkeypatch.context() as broken:
        broken.setattr(loop, "train", refusing(ZeroDivisionError("no\nway")))
        assert main([*command, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["done"] == 1
    causes = [(failed["experiment"], failed["cause"]) for failed in document["failed"]]
    assert causes == [("learn", "ZeroDivisionError: no way")] * 2
    assert {r["status"] for r in results(out).values()} == {"done", "failed"}
    # Failed runs are listed again, and only tried again when that is asked for.
    assert main(command) == 1
    assert "failed (2): ZeroDivisionError: no way" in capsys.readouterr().out
    assert main([*command, "--retry-failed"]) == 0
    assert sorted(r["attempts"] for r in results(out).values()) == [1, 2, 2]


def refusing(error: Exception) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


def stop_after(count: int) -> Callable[[], bool]:
    """Says stop once it has been asked so often."""
    asked = iter(range(count))
    return lambda: next(asked, None) is None


@pytest.fixture
def halfway(begun: Begun) -> Halfway:
    """A training that was stopped on its way."""
    study, folder = begun
    (run,) = [r for r in runs_of(study) if r.config["cuts"] == 1 and r.kind == "train"]
    with pytest.raises(TrainingStoppedError):
        run_study(study, [run], folder, stop=stop_after(2))
    return study, folder, run


def trained(path: Path) -> dict[str, bytes]:
    """What a training has written, by the names of the files."""
    names = ("checkpoint.safetensors", "data.safetensors", "queries.jsonl", "training.jsonl")
    return {name: (path / name).read_bytes() for name in names}


def test_a_damaged_checkpoint_is_begun_again(halfway: Halfway, finished: Path) -> None:
    study, folder, run = halfway
    (folder.of(run) / "checkpoint.safetensors").write_bytes(b"nothing")
    run_study(study, runs_of(study), folder)
    assert comparable(folder.path) == comparable(finished)


def test_the_files_of_another_trainer_are_left_alone(halfway: Halfway) -> None:
    study, folder, run = halfway
    path = folder.of(run)
    before = trained(path)
    with RunFolder(path).held():
        done = run_study(study, [run], folder)
        assert [failure.cause for failure in done.failures] == [
            f"another process trains in `{path}`: wait for it, or name another folder"
        ]
        assert trained(path) == before
        with (path / ".dest-lock").open() as lock:
            assert not take_lock(lock.fileno()), "the lock was removed under its holder"
    assert run_study(study, [run], folder, retry_failed=True).done == 1


FULL = "cannot write queries.jsonl: No space left on device"
ACCIDENTS = {
    "the disk is full": ("loop.resume", refusing(RecordError(FULL)), FULL),
    "the version is another": ("checkpoints.SCHEMA_VERSION", 99, "of another version: go on with"),
    "too many files are open": (
        "checkpoints.safetensors.safe_open",
        refusing(OSError(24, "Too many open files")),
        r"cannot be read .*Too many open files",
    ),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_a_training_that_fails_as_it_goes_on_keeps_what_it_has(
    accident: str, halfway: Halfway, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder, run = halfway
    before = trained(folder.of(run))
    name, value, cause = ACCIDENTS[accident]
    with monkeypatch.context() as broken:
        broken.setattr(f"distributed_estimator.training.{name}", value)
        done = run_study(study, [run], folder)
    assert re.search(cause, done.failures[0].cause)
    assert trained(folder.of(run)) == before
    run_study(study, runs_of(study), folder, retry_failed=True)
    assert comparable(folder.path) == comparable(finished)


@pytest.mark.parametrize("name", ["data.safetensors", "queries.jsonl"])
def test_a_training_whose_data_or_records_are_damaged_fails_and_keeps_its_files(
    name: str, halfway: Halfway
) -> None:
    study, folder, run = halfway
    (folder.of(run) / name).write_bytes(b"nothing\n")
    before = trained(folder.of(run))
    assert len(run_study(study, [run], folder).failures) == 1
    assert trained(folder.of(run)) == before


def test_headers_name_the_run_and_the_attempt(halfway: Halfway) -> None:
    study, folder, run = halfway
    run_study(study, [run], folder)
    for name in ("queries.jsonl", "training.jsonl"):
        headers = [r for r in read_records(folder.of(run) / name) if isinstance(r, Header)]
        assert [header.attempt for header in headers] == [1, 2]
        assert {header.config_hash for header in headers} == {run.run_id}


RESULT = {"schema_version": 1, "status": "failed", "attempts": 1, "cause": "x", "run_id": "ID"}
"""ID stands for the run's."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: None}, f"is damaged: .*`.*{name}`") for name in RESULT if name != "run_id"),
        ({"status": "done"}, "is damaged: .*field `results`"),
        ({"schema_version": 99}, "has schema version 99 .* install a newer"),
        ({"run_id": "0" * 12}, "is not the result of this run"),
        ("[" * 100_000, "it is not JSON"),
        ("", "it is not JSON"),
    ],
)
def test_a_damaged_result_is_refused_with_a_remedy(
    changes: Any, message: str, begun: Begun
) -> None:
    study, folder = begun
    run = runs_of(study)[0]
    folder.begin(run)
    text = changes if isinstance(changes, str) else json.dumps(RESULT | changes)
    (folder.of(run) / "result.json").write_text(text.replace("ID", run.run_id))
    with pytest.raises(RecordError, match=rf"{message}.*remove the folder .*the run is repeated"):
        run_study(study, [run], folder)


@pytest.mark.parametrize("text", ["{}", '{"attempts": "x"}', '{"attempts": true}', "[" * 100_000])
def test_a_damaged_number_of_attempts_is_refused(text: str, begun: Begun) -> None:
    study, folder = begun
    run = runs_of(study)[0]
    folder.begin(run)
    (folder.of(run) / "attempts.json").write_text(text)
    with pytest.raises(RecordError, match=r"attempts\.json` is damaged: .*remove it"):
        run_study(study, [run], folder)


def test_a_file_in_the_place_of_the_runs_is_named(begun: Begun) -> None:
    study, folder = begun
    (folder.path / "runs").write_text("")
    with pytest.raises(RecordError, match=r"cannot be written \(Not a directory\): move away what"):
        run_study(study, runs_of(study), folder)


@pytest.mark.parametrize("asked", [1, 3, 10])
def test_a_study_that_is_stopped_goes_on(asked: int, finished: Path, begun: Begun) -> None:
    study, folder = begun
    with pytest.raises(TrainingStoppedError):
        run_study(study, runs_of(study), folder, stop=stop_after(asked))
    run_study(study, runs_of(study), folder)
    assert comparable(folder.path) == comparable(finished)


def test_dry_run_lists_the_matrix_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["study", "run", "paper", "--out", str(out), "--scale", "smoke", "--dry-run"]
    listed = CliRunner().invoke(dest, command)
    assert listed.exit_code == 0
    study = load_study("paper", "smoke")
    for run in runs_of(study):
        assert run.run_id in listed.output
    document = json.loads(CliRunner().invoke(dest, [*command, "--json"]).stdout)
    assert [run["run_id"] for run in document["matrix"]] == [r.run_id for r in runs_of(study)]
    assert document["estimated_seconds"] > 0
    assert set(document["experiments"]) == set(study.config.experiments)
    assert document["deviations"]
    assert not out.exists()


# --- variants of the reference ------------------------------------------------------------------

VARIANTS = """\
name: variants
shots: 64
experiments:
  causes:
    kind: queries
    backend: aer
    pipelines: [reference]
    datasets:
      iris: {qubits: [3]}
    cuts: [1]
    seeds: [1]
    variants:
      - {workers: 2}
      - {workers: 2, simulator_threads: 3}
      - {workers: 1, defer_measurements: true}
    queries: 2
"""


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[StudyRun, Path]]:
    """Runs of three variants with their folders."""
    path = tmp_path_factory.mktemp("variants") / "study.yaml"
    path.write_text(VARIANTS)
    study, folder = load_study(path), StudyFolder(path.parent / "out")
    runs = runs_of(study)
    assert run_study(study, runs, folder).failures == []
    return [(run, folder.of(run)) for run in runs]


def test_variants_are_run_as_their_configuration_says(
    variants: list[tuple[StudyRun, Path]],
) -> None:
    assert [how(run) for run, _ in variants] == [(2, 1, False), (2, 3, False), (1, 1, True)]
    for run, folder in variants:
        queries = [r for r in read_records(folder / "queries.jsonl") if isinstance(r, QueryRecord)]
        deferred = run.config["defer_measurements"]
        assert [r.policy for r in queries] == ["one job" if deferred else "eager"] * 2
        assert {r.subexp_workers for r in queries} == {run.config["workers"]}
        shapes = {(r.num_subexperiments, r.num_fragments, r.max_fragment_qubits) for r in queries}
        assert shapes == {(12, 2, 2)}
        numbers = json.loads((folder / "result.json").read_text())["results"]
        assert numbers["simulator_threads"] == run.config["simulator_threads"]
        assert numbers["lower_bound"] is None


# --- the bound that no policy can beat ----------------------------------------------------------

BOUND = """\
name: bound
shots: 16
experiments:
  policies:
    kind: queries
    backend: fleet
    datasets:
      iris: {{qubits: [2]}}
    cuts: [1]
    seeds: [1]
    straggler_p: [{p}]
    straggler_delay: 0.04
    subexperiments: 1
    devices: [3]
    device: {{seconds_per_job: 0.01, seconds_per_shot: 1.0e-5, latency: 0.001, jitter: {jitter}}}
    queries: 2
"""


@pytest.mark.parametrize(("jitter", "p"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.4)])
def test_the_bound_is_the_expected_work_on_all_devices(
    jitter: float, p: float, tmp_path: Path
) -> None:
    """Ten jobs a query of 10 ms and 16 shots of 10 µs on three devices, and 2 ms on the way.

    A way that varies is left out. Expected work is least for who gives up every job that is
    delayed: 1 / (1 - p) as much. Without stragglers nothing is random, and no query is faster.
    """
    path = tmp_path / "bound.yaml"
    path.write_text(BOUND.format(jitter=jitter, p=p))
    study, folder = load_study(path), StudyFolder(tmp_path / "out")
    (run,) = runs_of(study)
    assert run_study(study, [run], folder).failures == []
    (result,) = results(folder.path).values()
    job = 0.01 + 16e-5 + (0 if jitter else 0.002)
    bound = result["results"]["lower_bound"]
    assert bound == pytest.approx(10 * job / 3 / (1 - p))
    records = read_records(folder.of(run) / "queries.jsonl")
    if not p:
        assert min(r.t_total for r in records if isinstance(r, QueryRecord)) >= bound


# --- accidents to the process ---------------------------------------------------------------------

SLOW = TINY.replace("epochs: 3", "epochs: 60").replace("queries: 3", "queries: 60")


@contextmanager
def running(path: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """The study in a process of its own, killed at the end if it still runs."""
    code = "import sys; from distributed_estimator.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "study", "run", str(path), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Waits until something holds, or the process has ended."""
    limit = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.002)


def lines(out: Path, name: str) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob(f"runs/*/{name}"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study that takes a moment, and its folder once it is finished."""
    folder = tmp_path_factory.mktemp("slow")
    path = folder / "tiny.yaml"
    path.write_text(SLOW)
    study = load_study(path)
    run_study(study, runs_of(study), StudyFolder(folder / "out"))
    return path, folder / "out"


@pytest.mark.soak
def test_a_study_that_is_killed_goes_on(slow: tuple[Path, Path], tmp_path: Path) -> None:
    path, whole = slow
    out = tmp_path / "out"
    moments: list[Callable[[], bool]] = [
        lambda: lines(out, "training.jsonl") >= 5,  # in the midst of the first training
        lambda: lines(out, "devices.jsonl") >= 5,  # in the midst of the queries
    ]
    for moment in moments:
        with running(path, out) as process:
            wait_for(process, moment)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    study = load_study(path)
    run_study(study, runs_of(study), StudyFolder(out))
    assert comparable(out) == comparable(whole)


def test_an_interrupted_retry_says_to_retry(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = load_study(tiny), StudyFolder(tmp_path / "out")
    with folder.held(study):
        for run in runs_of(study):
            folder.begin(run)
            folder.end(run, {"status": "failed", "attempts": 1, "cause": "x"})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StudyFolder, "begin", interrupt)
    command = ["study", "run", str(tiny), "--out", str(folder.path), "--retry-failed"]
    assert main(command) == 130
    text = " ".join(capsys.readouterr().err.split())
    assert "stopped with 0 of 3 runs ended" in text
    assert f"go on with: dest {shlex.join(command)}" in text


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_smoke_study_of_the_paper_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["study", "run", "paper", "--scale", "smoke", "--out", str(out)]) == 0
    study = load_study("paper", "smoke")
    assert set(results(out)) == {run.run_id for run in runs_of(study)}
    assert {result["status"] for result in results(out).values()} == {"done"}


@pytest.mark.soak
def test_a_study_survives_kills_at_random_moments(slow: tuple[Path, Path], tmp_path: Path) -> None:
    path, whole = slow
    out = tmp_path / "out"
    rng = random.Random(7)
    for _ in range(3):
        with running(path, out) as process:
            wait_for(process, (out / "study.json").exists)
            time.sleep(rng.uniform(0.5, 3.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
    study = load_study(path)
    run_study(study, runs_of(study), StudyFolder(out))
    assert comparable(out) == comparable(whole)


@pytest.mark.soak
def test_an_interrupt_ends_cleanly_and_says_how_to_go_on(
    slow: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = slow
    out = tmp_path / "out"
    with running(path, out) as process:
        wait_for(process, lambda: lines(out, "training.jsonl") >= 3)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"go on with: dest study run {path} --out {out}" in text
    with (out / "study.lock").open() as lock:
        assert take_lock(lock.fileno())
    assert not [p for p in out.rglob(".*") if p.name != ".dest-lock"]
