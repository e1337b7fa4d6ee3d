"""A run that stops, is killed or meets a full disk goes on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distributed_estimator.analysis.load import load_queries, load_training
from distributed_estimator.errors import (
    CheckpointError,
    DamagedCheckpointError,
    DistributedEstimatorError,
    InputError,
    RecordError,
    TrainingStoppedError,
)
from distributed_estimator.records import TrainingRecord, files
from distributed_estimator.training import loop, session
from distributed_estimator.training.checkpoints import Checkpoint
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import resume, train
from distributed_estimator.training.models import ModelConfig
from distributed_estimator.training.runs import RunFolder, Scores, TrainingResult
from distributed_estimator.training.trained import TrainedNetwork
from distributed_estimator.training.workloads import Workload, WorkloadConfig, load_workload

BASE = TrainingConfig(WorkloadConfig("iris", seed=7, samples=10, test_samples=6), shots=16, cuts=1)
DIVIDED = replace(BASE, shots=1024, shots_total=20_000)
CONFIGS = {
    "adam": replace(BASE, epochs=3, batch_size=4),
    "sgd": replace(BASE, epochs=3, batch_size=4, optimizer="sgd"),
    "lbfgs": replace(BASE, epochs=3, optimizer="lbfgs", lr=1.0),
    "lbfgs in batches": replace(BASE, epochs=2, batch_size=5, optimizer="lbfgs", lr=1.0),
    "cobyla": replace(BASE, epochs=12, optimizer="cobyla"),
    "spsa": replace(BASE, epochs=3, optimizer="spsa"),
    "linear head": replace(
        BASE, epochs=2, batch_size=5, head="linear", model=ModelConfig(observable="z_each")
    ),
    "exact": replace(BASE, epochs=3, shots=None),
    "cut search": replace(BASE, cuts=0, max_qubits=2, epochs=3),
    "divided shots": replace(DIVIDED, epochs=3),
    "divided shots, cobyla": replace(DIVIDED, epochs=12, optimizer="cobyla"),
    "divided shots, spsa": replace(DIVIDED, epochs=2, optimizer="spsa"),
    "adaptive shots": replace(DIVIDED, epochs=4, batch_size=5, adaptive_shots=0.5),
}
CHANGING = ("run_id", "query_id", "started_at", "plan_cached", "at")


@pytest.fixture(scope="module")
def task() -> Workload:
    return load_workload(BASE.workload)


def every(count: int) -> Callable[[], bool]:
    """Says stop at every `count`-th time it is asked."""
    asked = iter(range(1, 10**9))
    return lambda: next(asked) % count == 0


def story(folder: RunFolder) -> dict[str, object]:
    """All that a run has logged and learnt, without times and names."""
    lines = []
    for log in (folder.queries, folder.training):
        for line in log.read_text("utf-8").splitlines():
            record = json.loads(line)
            times = [name for name in record if name.startswith("t_")]
            for name in (*CHANGING, *times):
                record.pop(name, None)
            for name in [name for name in record.get("metrics", ()) if name.startswith("t_")]:
                del record["metrics"][name]
            lines.append(record)
    summary = json.loads(folder.summary.read_text("utf-8"))
    totals = {n: v for n, v in summary["totals"].items() if isinstance(v, int)}
    return {
        "records": lines,
        "weights": json.loads(folder.weights.read_text("utf-8")),
        "final": summary["final"],
        "totals": totals,
    }


def check_sound(folder: RunFolder) -> None:
    """No record lost or doubled: one run, ids of their own, sums that agree."""
    queries, training = load_queries(folder.queries), load_training(folder.training)
    assert len({record.query_id for record in queries}) == len(queries)
    assert len({record.run_id for record in (*queries, *training)}) == 1
    assert [record.epoch for record in training] == list(range(len(training)))
    assert training[-1].queries == sum(record.num_queries for record in queries)
    assert training[-1].metrics["shots"] == sum(record.shots_total for record in queries)
    times = [record.at for record in training]
    assert times == sorted(times)


def resume_to_the_end(folder: RunFolder, stop: Callable[[], bool]) -> TrainingResult:
    for _ in range(1000):
        try:
            return resume(folder, stop=stop)
        except TrainingStoppedError:
            continue
    raise AssertionError("it never ends")


# --- stopping and going on


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_that_was_stopped_ends_as_if_it_had_not(task: Workload, tmp_path: Path, name: str):
    config = CONFIGS[name]
    whole = RunFolder(tmp_path / "whole")
    train(task, config, whole)
    parts = RunFolder(tmp_path / "parts")
    stop = every(2)
    with pytest.raises(TrainingStoppedError, match=r"go on with: dest train --resume .*parts"):
        train(task, config, parts, stop=stop)
    resume_to_the_end(parts, stop)
    assert story(parts) == story(whole)
    check_sound(parts)


def test_a_resumed_run_takes_no_pilot_again(task: Workload, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingStoppedError):
        train(task, CONFIGS["divided shots"], folder, stop=every(1))
    resume(folder)
    check_sound(folder)
    designs = [record.design for record in load_queries(folder.queries)]
    # Scores, then values, derivatives and scores of each step, of which the second is resumed.
    pilots = [design is not None and design.pilot_shots > 0 for design in designs]
    assert pilots == [1, *[0, 1, 0], *[0, 0, 0], *[0, 0, 0]]


def test_a_checkpoint_from_before_divided_shots_is_read(task: Workload, tmp_path: Path):
    """It lacks what later releases keep; pilots take its place."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingStoppedError):
        train(task, CONFIGS["divided shots"], folder, stop=every(1))
    kept = Checkpoint.load(folder.checkpoint)
    state = {k: v for k, v in kept.state.items() if k not in ("priors", "noise", "test")}
    tensors = {k: v for k, v in kept.tensors.items() if not k.startswith("priors")}
    assert len(tensors) < len(kept.tensors)
    Checkpoint(state, tensors).save(folder.checkpoint)
    resume(folder)
    check_sound(folder)


def test_what_was_done_after_the_last_checkpoint_is_done_again(task: Workload, tmp_path: Path):
    """As after a kill: the checkpoint is older than the logs, which end in half a line."""
    whole = RunFolder(tmp_path / "whole")
    kept = tmp_path / "kept.safetensors"

    def keep(record: object) -> None:
        if record.epoch == 1:
            shutil.copy(whole.checkpoint, kept)

    train(task, CONFIGS["adam"], whole, progress=keep)
    expected = story(whole)
    for log in (whole.queries, whole.training):
        with log.open("ab") as file:
            file.write(b'{"schema_version": 1, "kind": "qu')
    shutil.copy(kept, whole.checkpoint)
    resume(whole)
    assert story(whole) == expected
    check_sound(whole)


def test_a_finished_run_is_finished(task: Workload, tmp_path: Path):
    for name in ("adam", "cobyla"):
        folder = RunFolder(tmp_path / name)
        result = train(task, CONFIGS[name], folder)
        before = folder.queries.read_bytes(), folder.training.read_bytes()
        folder.summary.unlink()  # as if it had been killed just before it wrote this
        again = resume(folder)
        assert (again.final, again.totals, again.run_id) == (
            result.final,
            result.totals,
            result.run_id,
        )
        assert (folder.queries.read_bytes(), folder.training.read_bytes()) == before


def dropout() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(1, 1))


def normed() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1))


@pytest.mark.parametrize("head", [dropout, normed])
@pytest.mark.parametrize("optimizer", ["adam", "cobyla"])
def test_a_head_of_the_callers_goes_on(
    task: Workload, tmp_path: Path, head: Callable[[], torch.nn.Module], optimizer: str
):
    """Into a fresh module, whose own initial weights do not matter."""
    config = replace(BASE, epochs=4 if optimizer == "adam" else 14, optimizer=optimizer)
    torch.manual_seed(5)
    first, again = head(), head()
    again.load_state_dict(first.state_dict())
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train(task, config, whole, head=first)
    with pytest.raises(TrainingStoppedError):
        train(task, config, parts, head=again, stop=every(2))
    resume(parts, head=head())
    assert story(parts) == story(whole)


def test_a_head_that_is_missing_or_another_is_refused(task: Workload, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    train(task, replace(BASE, epochs=1), folder, head=dropout())
    before = contents(folder)
    with pytest.raises(DistributedEstimatorError, match="`head` is 'custom'"):
        resume(folder)
    with pytest.raises(CheckpointError, match=r"of another network .*give the same head"):
        resume(folder, head=torch.nn.Linear(1, 1))
    assert contents(folder) == before


def test_the_reference_pipeline_goes_on(task: Workload, tmp_path: Path):
    parts_of = {"x_train": task.x_train[:2], "y_train": task.y_train[:2]}
    few = replace(task, **parts_of, x_test=task.x_test[:1], y_test=task.y_test[:1])
    config = replace(BASE, epochs=2, cuts=0, pipeline="reference", workers=2)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train(few, config, whole)
    with pytest.raises(TrainingStoppedError):
        train(few, config, parts, stop=every(1))
    resume(parts)
    assert story(parts)["final"] == story(whole)["final"]
    assert story(parts)["weights"] == story(whole)["weights"]


def test_a_run_goes_on_wherever_its_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The data stand beside it: neither the user's file nor the same processor is needed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = [f"{i % 7},{(i * i) % 5},{'yes' if i % 2 else 'no'}" for i in range(20)]
    Path("survey.csv").write_text("\n".join(["a,b,answer", *rows]), "utf-8")
    config = replace(BASE, workload=WorkloadConfig("survey.csv"), epochs=3)
    data = load_workload(config.workload)
    train(data, config, RunFolder("whole"))
    with pytest.raises(TrainingStoppedError):
        train(data, config, RunFolder("parts"), stop=every(1))
    Path("survey.csv").unlink()
    shutil.move("parts", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    resume(RunFolder("elsewhere"))
    assert story(RunFolder("elsewhere")) == story(RunFolder("here/whole"))
    assert TrainedNetwork.load(RunFolder("elsewhere")).workload.name == "survey.csv"


def test_a_gradient_free_run_is_not_finished_before_its_choice(task: Workload, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingStoppedError, match="stopped after 12 of 12 epochs"):
        train(task, CONFIGS["cobyla"], folder, stop=every(12))
    assert not TrainedNetwork.load(folder).finished
    resume(folder)
    assert TrainedNetwork.load(folder).finished


def test_runs_leave_no_file_open(task: Workload, tmp_path: Path):
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    config = replace(BASE, epochs=1)
    train(task, config, RunFolder(tmp_path / "first"))
    before = opened()
    for number in range(3):
        train(task, config, RunFolder(tmp_path / str(number)))
    assert opened() <= before


# --- killed


def events(train_it: Callable[[], object], last: int) -> int:
    """Runs something in a child that is killed just before its `last`-th change on the disk.

    Returns the number of changes it made if it came to its end, else 0.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        made = 0

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def change(*arguments: object, **settings: object) -> object:
                nonlocal made
                made += 1
                if made == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **settings)

            return change

        files.write_all = counted(files.write_all)
        Path.replace = counted(Path.replace)
        session.truncate_records = counted(session.truncate_records)
        try:
            train_it()
            os.write(writer, made.to_bytes(4, "big"))
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        return int.from_bytes(pipe.read(), "big")


def check_every_kill(task: Workload, config: TrainingConfig, folder: Path, step: int = 1) -> None:
    whole = RunFolder(folder / "whole")
    count = events(lambda: train(task, config, whole), 0)
    assert count > 10
    for last in range(1, count + 1, step):
        run = RunFolder(folder / f"run {last}")
        assert not events(lambda run=run: train(task, config, run), last)
        if run.checkpoint.exists():
            events(lambda run=run: resume(run), 3)  # killed once more
            resume(run)
        else:
            train(task, config, run)  # as if nothing had been
        assert story(run) == story(whole), last
        check_sound(run)
        shutil.rmtree(run.path)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_before_any_change_on_the_disk_changes_nothing(task: Workload, tmp_path: Path):
    check_every_kill(task, replace(BASE, epochs=2, batch_size=5), tmp_path, step=5)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", ["adam", "lbfgs in batches", "cobyla", "spsa", "adaptive shots"])
def test_so_it_is_for_every_optimiser(task: Workload, tmp_path: Path, name: str):
    check_every_kill(task, CONFIGS[name], tmp_path, step=3 if name == "adam" else 11)


# --- bad input: one clear error each, and the earlier state intact


@pytest.fixture(scope="module")
def stopped_once(task: Workload, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.raises(TrainingStoppedError):
        train(task, CONFIGS["adam"], folder, stop=every(5))
    return folder


@pytest.fixture
def stopped(stopped_once: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(stopped_once.path, tmp_path / "run")))


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def check_refused(folder: RunFolder, kind: type[Exception], message: str, **how: Any) -> None:
    before = contents(folder)
    with pytest.raises(kind, match=message) as told:
        resume(folder, **how)
    assert type(told.value) is kind
    assert contents(folder) == before


def test_a_folder_without_a_run_cannot_be_gone_on_with(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"`.*nowhere` holds no checkpoint.safetensors"):
        resume(RunFolder(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a flipped bit": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "another file": lambda content: b"PK\x03\x04" + b"x" * 400,
    "an edited state": lambda text: text.replace(b'\\"epoch\\": 1', b'\\"epoch\\": 0', 1),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_refused(stopped: RunFolder, how: str):
    content = stopped.checkpoint.read_bytes()
    stopped.checkpoint.write_bytes(DAMAGES[how](content))
    assert stopped.checkpoint.read_bytes() != content
    check_refused(stopped, DamagedCheckpointError, r"is damaged .*: restore it from a copy")


def denied(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SCHEMA_VERSION", 99, "of another version: go on with the release"),
        ("safetensors.safe_open", denied, r"cannot be read .*Permission denied"),
    ],
)
def test_a_checkpoint_of_a_later_version_or_that_cannot_be_read_is_not_called_damaged(
    stopped: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str
):
    monkeypatch.setattr(f"distributed_estimator.training.checkpoints.{name}", value)
    check_refused(stopped, CheckpointError, message)


@pytest.mark.parametrize(
    ("change", "epoch", "message"),
    [
        ({"workload": replace(BASE.workload, num_features=3)}, 3, r"is not what `.*run` was train"),
        ({"seed": 8}, 0, r"queries.jsonl` is of run .*belong together"),  # its logs are shorter
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    stopped: RunFolder, tmp_path: Path, change: dict[str, Any], epoch: int, message: str
):
    other, config = RunFolder(tmp_path / "other"), replace(CONFIGS["adam"], **change)

    def keep(record: TrainingRecord) -> None:
        if record.epoch == epoch:
            stopped.checkpoint.write_bytes(other.checkpoint.read_bytes())

    train(load_workload(config.workload), config, other, progress=keep)
    check_refused(stopped, CheckpointError, message)


def test_other_data_is_refused(stopped: RunFolder, task: Workload):
    other = replace(task, x_train=task.x_train * 0.5)
    message = "data of workload `iris_binary_pml` is not what"
    check_refused(stopped, CheckpointError, message, workload=other)


@pytest.mark.parametrize("name", ["queries.jsonl", "training.jsonl"])
def test_a_log_that_lost_records_is_refused(stopped: RunFolder, name: str):
    log = stopped.path / name
    log.write_bytes(b"\n".join(log.read_bytes().split(b"\n")[:2]) + b"\n")
    check_refused(stopped, RecordError, f"{name}` has [0-9]+ bytes .*restore it")


def test_two_processes_do_not_train_in_one_folder(stopped: RunFolder):
    with stopped.held():
        check_refused(stopped, CheckpointError, r"another process trains in `.*run`: wait")
    resume(stopped)


def test_a_run_that_came_first_is_left_alone(
    task: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another process may begin a run while this one still makes its plan."""
    folder = RunFolder(tmp_path / "run")
    build = loop.build_classifier

    def slow(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(loop, "build_classifier", build)
        train(task, CONFIGS["adam"], folder)
        return build(*arguments, **options)

    monkeypatch.setattr(loop, "build_classifier", slow)
    with pytest.raises(InputError, match="already holds a run"):
        train(task, CONFIGS["adam"], folder)
    final = json.loads(folder.summary.read_text("utf-8"))["final"]
    assert resume(folder).final == Scores(**final)


def fails(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("target", [(files.fcntl, "flock", fails(errno.ENOLCK)), (files, "fcntl")])
def test_a_system_without_locks_will_do(
    task: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: tuple[Any, ...]
):
    monkeypatch.setattr(*target, *([None] if len(target) == 2 else []))
    train(task, replace(BASE, epochs=1), RunFolder(tmp_path / "run"))


no_space = fails(errno.ENOSPC)


@pytest.mark.parametrize(
    ("target", "kind"),
    [((Path, "write_bytes"), CheckpointError), ((os, "write"), RecordError)],
    ids=["checkpoint", "log"],
)
def test_a_full_disk_is_one_error_and_the_run_goes_on_later(
    task: Workload,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: tuple[Any, str],
    kind: type[Exception],
):
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    train(task, CONFIGS["adam"], whole)

    def fill(record: TrainingRecord) -> None:
        if record.epoch == 1:
            monkeypatch.setattr(*target, no_space)

    with pytest.raises(kind, match=r"cannot write .*: No space left on device"):
        train(task, CONFIGS["adam"], run, progress=fill)
    monkeypatch.undo()
    assert not list(run.path.glob(".checkpoint*"))
    resume(run)
    assert story(run) == story(whole)


@pytest.mark.parametrize("name", ["weights.json", "summary.json"])
def test_a_full_disk_at_the_end_is_one_error_too(
    task: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    write, folder = Path.write_text, RunFolder(tmp_path / "run")

    def fill(path: Path, *arguments: object) -> object:
        return no_space() if name in path.name else write(path, *arguments)

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(RecordError, match=f"cannot write .*{name}`: No space left on device"):
        train(task, CONFIGS["adam"], folder)
    monkeypatch.undo()
    resume(folder)
    check_sound(folder)


def test_a_full_disk_at_the_start_leaves_nothing(
    task: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(task, CONFIGS["adam"], RunFolder(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(task: Workload):
    """Nobody, whatever the user, makes a folder below this one."""
    with pytest.raises(DistributedEstimatorError, match=r"cannot be (made|written)"):
        train(task, CONFIGS["adam"], RunFolder(Path("/proc/self/fdinfo/run")))


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distributed_estimator.cli.main", "train", *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


RUN = ("iris", "--cuts", "2", "--epochs", "30", "--batch-size", "16", "--no-figure")


def wait_for(path: Path, text: bytes, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not (path.exists() and text in path.read_bytes()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)


def kill_and_resume(folder: Path, kills: int, seed: int) -> None:
    """Trains to the end, killed so often at random moments, and compares with a run in peace."""
    rng = np.random.default_rng(seed)
    peace = start(folder, *RUN, "--out", "peace")
    peace.communicate()
    assert peace.returncode == 0
    command: tuple[str, ...] = (*RUN, "--out", "war")
    happened = 0
    while True:
        process = start(folder, *command)
        if happened < kills:
            if command[0] == "--resume" or happened % 2:
                time.sleep(2.0)  # imports
            else:
                wait_for(folder / "war" / "training.jsonl", b"training", process)
            time.sleep(rng.uniform(0, 1.2))
            process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
        happened += 1
        if (folder / "war" / "checkpoint.safetensors").exists():
            command = ("--resume", "war", "--no-figure")
    assert happened >= 1
    assert story(RunFolder(folder / "war")) == story(RunFolder(folder / "peace"))
    check_sound(RunFolder(folder / "war"))


@pytest.mark.soak
def test_a_run_that_was_killed_five_times_ends_as_if_it_had_not(tmp_path: Path):
    kill_and_resume(tmp_path, kills=5, seed=0)


@pytest.mark.soak
def test_ctrl_c_ends_the_step_and_says_how_to_go_on(tmp_path: Path):
    process = start(tmp_path, *RUN, "--epochs", "100000", "--out", "my run")
    wait_for(tmp_path / "my run" / "training.jsonl", b'"epoch": 1', process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    message = err.decode().splitlines()[-1]
    assert "everything is kept, go on with: dest train --resume 'my run'" in message
    assert "Traceback" not in err.decode()
    assert not (tmp_path / "my run" / "summary.json").exists()
    Checkpoint.load(tmp_path / "my run" / "checkpoint.safetensors")
