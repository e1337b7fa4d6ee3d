"""Tracking on the real packages: what TensorBoard and MLflow read back is what the log says."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distributed_estimator.analysis.load import load_training
from distributed_estimator.errors import InputError, MissingExtraError, TrainingStoppedError
from distributed_estimator.records import RecordWriter
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import resume, train
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.tracking import TRACKERS, tracked
from distributed_estimator.training.workloads import Workload, WorkloadConfig, load_workload

CONFIG = TrainingConfig(
    WorkloadConfig("iris", samples=8, test_samples=4), shots=None, epochs=3, cuts=1, workers=1
)
NAMES = {
    *("loss", "train_accuracy", "test_accuracy", "gradient_norm", "queries", "shots"),
    *("subexperiments", "seconds", "t_partition", "t_generate", "t_execute", "t_reconstruct"),
}
Scalars = list[tuple[str, int, float]]


@pytest.fixture(scope="module")
def task() -> Workload:
    return load_workload(CONFIG.workload)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    return RunFolder(tmp_path / "run")


@contextmanager
def mlflow_client(uri: str | Path) -> Iterator:
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield MlflowClient(tracking_uri=uri.as_uri() if isinstance(uri, Path) else uri)


def mlflow_runs(uri: str | Path, experiment: str = "distributed-estimator") -> list:
    with mlflow_client(uri) as client:
        found = client.get_experiment_by_name(experiment)
        return list(client.search_runs([found.experiment_id]))


def in_mlflow(uri: str | Path, **place: str) -> Scalars:
    """Every scalar of the one run in a store."""
    (run,) = mlflow_runs(uri, **place)
    with mlflow_client(uri) as client:
        return sorted(
            (name, metric.step, metric.value)
            for name in run.data.metrics
            for metric in client.get_metric_history(run.info.run_id, name)
        )


def events(folder: RunFolder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def in_tensorboard(folder: RunFolder) -> Scalars:
    found = events(folder)
    return sorted(
        (name, event.step, event.value)
        for name in found.Tags()["scalars"]
        for event in found.Scalars(name)
    )


def logged(folder: RunFolder) -> Scalars:
    return sorted(
        (name, record.epoch, float(value))
        for record in load_training(folder.training)
        for name, value in {
            **record.metrics,
            "loss": record.loss,
            "queries": record.queries,
            "seconds": record.at,
        }.items()
    )


def assert_tracked_whole(folder: RunFolder, *names: str) -> None:
    """Every scalar of the log is there once, and nothing else."""
    expected = logged(folder)
    assert {step for _, step, _ in expected} == set(range(CONFIG.epochs + 1))
    if "mlflow" in names:
        assert in_mlflow(folder.path / "mlruns") == expected
    if "tensorboard" in names:  # which keeps 32 bits
        assert in_tensorboard(folder) == [(n, s, float(np.float32(v))) for n, s, v in expected]


def run(task: Workload, folder: RunFolder, *names: str, **how) -> None:
    with tracked(names, folder, CONFIG) as progress:
        train(task, CONFIG, folder, progress=progress, **how)


def go_on(task: Workload, folder: RunFolder, *names: str) -> None:
    with tracked(names, folder, CONFIG) as progress:
        resume(folder, workload=task, progress=progress)


def stop_after(count: int) -> Callable[[], bool]:
    steps = iter(range(1, count + 1))
    return lambda: next(steps) == count


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("distributed_estimator")]


# --- what is tracked


def test_both_trackers_at_once_hold_every_scalar_of_every_record(
    task: Workload, folder: RunFolder, caplog: pytest.LogCaptureFixture
):
    with tracked([*TRACKERS, *TRACKERS], folder, CONFIG) as progress:  # a record twice, too
        train(task, CONFIG, folder, progress=lambda record: (progress(record), progress(record)))
    assert {name for name, _, _ in logged(folder)} == NAMES
    assert_tracked_whole(folder, *TRACKERS)
    assert warnings_of(caplog) == []


def test_tensorboard_shows_the_configuration(task: Workload, folder: RunFolder):
    from tensorboard.plugins.hparams import metadata

    run(task, folder, "tensorboard")
    found = events(folder)
    assert found.Tags()["tensors"] == [metadata.SESSION_START_INFO_TAG]
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    assert info.group_name == load_training(folder.training)[0].run_id
    assert info.hparams["workload.name"].string_value == "iris_binary_pml"
    assert info.hparams["cuts"].number_value == 1
    assert info.hparams["shots"].string_value == "None"
    assert info.hparams["optimizer"].string_value == "adam"


def test_mlflow_shows_the_configuration_and_the_final_scores(task: Workload, folder: RunFolder):
    run(task, folder, "mlflow")
    (found,) = mlflow_runs(folder.path / "mlruns")
    last = load_training(folder.training)[-1]
    assert found.info.run_name == folder.path.name
    assert found.info.status == "FINISHED"
    assert found.data.tags["distributed_estimator.run_id"] == last.run_id
    assert found.data.metrics["test_accuracy"] == last.metrics["test_accuracy"]
    assert found.data.params["workload.name"] == "iris_binary_pml"
    assert found.data.params["model.ansatz"] == "real_amplitudes"
    assert (found.data.params["cuts"], found.data.params["shots"]) == ("1", "None")


def test_times_are_those_of_the_training_even_where_it_is_tracked_later(
    task: Workload, folder: RunFolder
):
    run(task, folder)
    go_on(task, folder, *TRACKERS)
    ats = [record.at for record in load_training(folder.training)]
    expected = pytest.approx([at - ats[0] for at in ats], abs=2e-3)
    times = [event.wall_time for event in events(folder).Scalars("loss")]
    assert [when - times[0] for when in times] == expected
    assert times[-1] == pytest.approx(time.time(), abs=60)
    (found,) = mlflow_runs(folder.path / "mlruns")
    with mlflow_client(folder.path / "mlruns") as client:
        history = client.get_metric_history(found.info.run_id, "loss")
    assert [(m.timestamp - history[0].timestamp) / 1000 for m in history] == expected


# --- a run in several sessions


def test_a_run_that_was_stopped_is_tracked_as_one(task: Workload, folder: RunFolder):
    with pytest.raises(TrainingStoppedError):
        run(task, folder, *TRACKERS, stop=stop_after(2))
    assert {step for _, step, _ in in_tensorboard(folder)} == {0, 1, 2}
    assert mlflow_runs(folder.path / "mlruns")[0].info.status == "KILLED"
    folder = RunFolder(folder.path.rename(folder.path.with_name("moved")))
    go_on(task, folder, *TRACKERS)
    assert_tracked_whole(folder, *TRACKERS)
    assert mlflow_runs(folder.path / "mlruns")[0].info.status == "FINISHED"
    assert len(events(folder).Tags()["tensors"]) == 1


def test_a_run_killed_next_to_a_record_loses_and_doubles_nothing(task: Workload, folder: RunFolder):
    """A copy of the folder is what a kill at that moment leaves: all is with the system by then."""
    killed = {epoch: RunFolder(folder.path / f"../{epoch}") for epoch in range(CONFIG.epochs + 1)}
    with tracked(TRACKERS, folder, CONFIG) as progress:

        def copied(record):
            progress(record)
            shutil.copytree(folder.path, killed[record.epoch].path)

        train(task, CONFIG, folder, progress=copied)
    for epoch, copy in killed.items():
        assert len(load_training(copy.training)) == epoch + 1
        go_on(task, copy, *TRACKERS)
        assert_tracked_whole(copy, *TRACKERS)


def test_records_that_a_resumed_run_takes_back_are_not_tracked(task: Workload, folder: RunFolder):
    """The kill came after the record was logged and before its checkpoint was written."""
    with pytest.raises(TrainingStoppedError):
        run(task, folder, stop=stop_after(1))
    last = load_training(folder.training)[-1]
    undone = replace(last, epoch=last.epoch + 1, step=last.step + 1, loss=123.0)
    RecordWriter(folder.training).write(undone)
    go_on(task, folder, *TRACKERS)
    assert_tracked_whole(folder, *TRACKERS)


def test_a_finished_run_can_be_tracked_afterwards_and_only_once(task: Workload, folder: RunFolder):
    run(task, folder)
    for _ in range(2):
        go_on(task, folder, *TRACKERS)
        assert_tracked_whole(folder, *TRACKERS)
    assert len(list((folder.path / "tensorboard").iterdir())) == 1


def half_an_event(folder: Path) -> None:
    (file,) = (folder / "tensorboard").iterdir()
    os.truncate(file, file.stat().st_size - 5)


def half_an_epoch(folder: Path) -> None:
    (file,) = (folder / "mlruns").glob("*/*/metrics/t_execute")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize(
    ("name", "tear"), [("tensorboard", half_an_event), ("mlflow", half_an_epoch)]
)
def test_what_is_tracked_by_half_is_completed(
    task: Workload, folder: RunFolder, name: str, tear: Callable[[Path], None]
):
    with pytest.raises(TrainingStoppedError):
        run(task, folder, name, stop=stop_after(2))
    tear(folder.path)
    go_on(task, folder, name)
    assert_tracked_whole(folder, name)


@pytest.mark.parametrize("torn", ["*/*/metrics/loss", "*/*/params/cuts", "*/*/meta.yaml"])
def test_a_file_store_torn_by_a_kill_is_set_aside_and_made_anew(
    task: Workload, folder: RunFolder, torn: str, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(TrainingStoppedError):
        run(task, folder, "mlflow", stop=stop_after(2))
    (file,) = (folder.path / "mlruns").glob(torn)
    os.truncate(file, 0)
    go_on(task, folder, "mlflow")
    assert_tracked_whole(folder, "mlflow")
    assert (folder.path / "mlruns.damaged-0").is_dir()
    (message,) = warnings_of(caplog)
    assert message.startswith(f"`{folder.path / 'mlruns'}` is damaged (")


def test_a_store_of_the_users_own_is_never_set_aside(
    task: Workload, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    store = tmp_path / "shared"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    with pytest.raises(TrainingStoppedError):
        run(task, folder, "mlflow", stop=stop_after(2))
    (file,) = store.glob("*/*/metrics/loss")
    os.truncate(file, 0)
    go_on(task, folder, "mlflow")
    assert file.exists()
    assert list(tmp_path.glob("**/*damaged*")) == []
    assert not (folder.path / "mlruns").exists()


# --- MLflow's places and manners


def test_mlflow_goes_where_its_variables_say_and_runs_share_a_store(
    task: Workload, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    store = tmp_path / "shared"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cuts")
    run(task, folder, "mlflow")
    assert in_mlflow(store, experiment="cuts") == logged(folder)
    run(task, RunFolder(tmp_path / "other"), "mlflow")
    names = {found.info.run_name for found in mlflow_runs(store, "cuts")}
    assert names == {"run", "other"}
    assert not (folder.path / "mlruns").exists()


def test_a_folder_can_be_removed_and_trained_in_anew(task: Workload, folder: RunFolder):
    for _ in range(2):  # MLflow remembers stores
        run(task, folder, *TRACKERS)
        assert_tracked_whole(folder, *TRACKERS)
        shutil.rmtree(folder.path)


def test_mlflow_prints_nothing_and_leaves_the_environment_as_it_was(
    task: Workload, folder: RunFolder, capsys: pytest.CaptureFixture[str]
):
    before = dict(os.environ)
    seen = []
    with tracked(["mlflow"], folder, CONFIG) as progress:
        train(
            task,
            CONFIG,
            folder,
            progress=lambda record: (progress(record), seen.append(dict(os.environ))),
        )
    after = dict(os.environ)
    for environment in (*seen, after):  # pytest says here which phase a test is in
        environment.pop("PYTEST_CURRENT_TEST", None)
    before.pop("PYTEST_CURRENT_TEST", None)
    assert [*seen, after] == [before] * (len(seen) + 1)
    assert capsys.readouterr().out == ""


ALONE = """
import json, socket, sys
calls = []

def refuse(*address, **_):
    calls.append(repr(address))
    raise OSError("no network here")

socket.socket.connect = socket.getaddrinfo = refuse
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_tracking import CONFIG, RunFolder, load_workload, run
run(load_workload(CONFIG.workload), RunFolder(Path(sys.argv[1])), "mlflow", "tensorboard")
from mlflow.telemetry import get_telemetry_client
print(json.dumps({"calls": calls, "telemetry": get_telemetry_client() is not None}))
"""


@pytest.mark.soak
def test_no_network_is_touched_outside_of_tests_either(folder: RunFolder):
    """MLflow sends no telemetry where it sees pytest or CI, so another process that it does not."""
    kept = ("HOME", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH")
    plain = {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder.path), str(Path(__file__).parent)],
        env=plain,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"calls": [], "telemetry": False}
    assert len(in_mlflow(folder.path / "mlruns")) == len(logged(folder))


# --- what goes wrong


@pytest.mark.parametrize("names", [["wandb"], ["mlflow", "wandb"]])
def test_an_unknown_tracker_is_refused_with_the_known(folder: RunFolder, names: list[str]):
    message = "unknown tracker 'wandb': give one of tensorboard, mlflow"
    with pytest.raises(InputError, match=message), tracked(names, folder, CONFIG):
        pass
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("tensorboard", "tensorboard", "tensorboard"), ("mlflow", "mlflow", "mlflow-skinny")],
)
def test_a_missing_package_ends_in_an_install_hint(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf'needs `{package}`, .* run `pip install "distributed-estimator\[track\]"`'
    with pytest.raises(MissingExtraError, match=message), tracked([name], folder, CONFIG):
        pass
    assert not folder.path.exists()


def test_a_new_run_does_not_mix_with_the_events_of_another(task: Workload, folder: RunFolder):
    run(task, folder, "tensorboard")
    for file in (path for path in folder.path.iterdir() if path.is_file()):
        file.unlink()
    message = r"tensorboard` holds the events of another run: remove it, or name another folder"
    with pytest.raises(InputError, match=message):
        run(task, folder, "tensorboard")
    assert not folder.training.exists()


@pytest.mark.parametrize(
    ("name", "place", "other"),
    [("tensorboard", "tensorboard", "mlflow"), ("mlflow", "mlruns", "tensorboard")],
)
def test_a_tracker_that_fails_in_the_middle_stops_neither_the_training_nor_the_other_tracker(
    task: Workload,
    folder: RunFolder,
    caplog: pytest.LogCaptureFixture,
    name: str,
    place: str,
    other: str,
):
    place = folder.path / place
    with tracked(TRACKERS, folder, CONFIG) as progress:

        def broken(record):
            if record.epoch == 1:
                place.rename(place.with_name("gone"))
            progress(record)

        result = train(task, CONFIG, folder, progress=broken)
    assert result.final.loss == load_training(folder.training)[-1].loss
    assert_tracked_whole(folder, other)
    (message,) = warnings_of(caplog)
    assert message.startswith(f"tracking with {name} failed and is given up (")
    assert message.endswith(f"dest train --resume {folder.path} --track {name}")
    (record,) = (r for r in caplog.records if r.name.startswith("distributed_estimator"))
    assert record.levelno == logging.WARNING

    shutil.rmtree(place, ignore_errors=True)
    place.with_name("gone").rename(place)
    go_on(task, folder, *TRACKERS)
    assert_tracked_whole(folder, *TRACKERS)


def test_a_server_that_is_gone_gives_mlflow_up(
    task: Workload,
    folder: RunFolder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run(task, folder, "mlflow")
    assert len(load_training(folder.training)) == CONFIG.epochs + 1
    assert len(warnings_of(caplog)) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    go_on(task, folder, "mlflow")
    assert_tracked_whole(folder, "mlflow")


def test_what_goes_wrong_in_the_training_is_not_hidden(task: Workload, folder: RunFolder):
    with (
        pytest.raises(ZeroDivisionError),
        tracked(TRACKERS, folder, CONFIG) as progress,
    ):
        train(task, CONFIG, folder, progress=lambda record: (progress(record), 1 / 0))
    assert mlflow_runs(folder.path / "mlruns")[0].info.status == "FAILED"


KILLED = """
import os, signal
from pathlib import Path
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.tracking import tracked
from distributed_estimator.training.workloads import WorkloadConfig, load_workload
from mlflow.store.tracking.file_store import FileStore

config = TrainingConfig(
    WorkloadConfig("iris", samples=8, test_samples=4), shots=None, epochs=3, cuts=1, workers=1
)
log_metric = FileStore._log_run_metric

def log_or_die(self, info, metric):
    if (metric.key, metric.step) == ("shots", 2):  # some of the epoch is written by now
        os.kill(os.getpid(), signal.SIGKILL)
    log_metric(self, info, metric)

FileStore._log_run_metric = log_or_die
folder = RunFolder(Path({folder!r}))
with tracked({names!r}, folder, config) as progress:
    train(load_workload(config.workload), config, folder, progress=progress)
"""


@pytest.mark.soak
def test_a_process_killed_while_it_tracks_loses_and_doubles_nothing(
    task: Workload, folder: RunFolder
):
    script = KILLED.format(folder=str(folder.path), names=TRACKERS)
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(load_training(folder.training)) == 3
    assert {step for _, step, _ in in_tensorboard(folder)} == {0, 1, 2}
    held = in_mlflow(folder.path / "mlruns")
    assert {step for _, step, _ in held} == {0, 1, 2}
    assert sum(step == 2 for _, step, _ in held) < sum(step == 1 for _, step, _ in held)
    go_on(task, folder, *TRACKERS)
    assert_tracked_whole(folder, *TRACKERS)


def test_a_full_disk_gives_tensorboard_up(
    task: Workload,
    folder: RunFolder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(self, data):
        raise OSError(28, "No space left on device")

    with tracked(["tensorboard"], folder, CONFIG) as progress:

        def fills_up(record):
            if record.epoch == 2:
                monkeypatch.setattr(RecordWriter, "write", full)
            progress(record)

        train(task, CONFIG, folder, progress=fills_up)
    monkeypatch.undo()
    assert {step for _, step, _ in in_tensorboard(folder)} == {0, 1}
    assert "(OSError: [Errno 28] No space left on device)" in warnings_of(caplog)[0]
    assert len(warnings_of(caplog)) == 1
    go_on(task, folder, "tensorboard")
    assert_tracked_whole(folder, "tensorboard")
