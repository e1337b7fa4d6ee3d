"""Training records as TensorBoard event files and MLflow runs, written while a run trains.

The training log is the truth, and a tracker a copy of it: it looks up which scalars it already
holds, takes from the log what it lacks, and writes no scalar of an epoch twice. So a run that was
killed at any moment and resumed, or tracked for a part of its time, ends up tracked whole.

A tracker that fails (disk full, server gone) does not stop the training: it is given up for the
rest of the session, with one warning, and catches up when the run is resumed with it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import ClassVar

from ..analysis.load import load_training
from ..checks import require
from ..errors import InputError, TrainingStoppedError
from ..records import TrainingRecord
from .config import TrainingConfig
from .runs import RunFolder
from .session import Progress
from .settings import flat

Held = set[tuple[str, int]]
"""Names of scalars with the epochs they are held for."""

_log = logging.getLogger(__name__)
_RUN_ID_TAG = "distributed_estimator.run_id"
_EXPERIMENT = "distributed-estimator"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # newer versions take databases alone without it
}
_tensorboard = partial(
    require, package="tensorboard", extra="track", purpose="tracking with TensorBoard"
)
_mlflow = partial(require, package="mlflow-skinny", extra="track", purpose="tracking with MLflow")


class Tracker(ABC):
    """Keeps a tool up with the training log, until the tool fails.

    What a subclass adds may fail in any way; none leaves half a scalar behind.
    """

    name: ClassVar[str]

    def __init__(self, folder: RunFolder, config: TrainingConfig) -> None:
        self._folder = folder
        self._config = dict(flat(config.as_dict()))
        self._held: Held | None = None
        self._failed = False

    @abstractmethod
    def _open(self, run_id: str) -> Held:
        """Finds the scalars that are tracked of a run, or begins to track it."""

    @abstractmethod
    def _write(self, epoch: int, scalars: Mapping[str, float], when: float) -> None:
        """Adds scalars of an epoch; `when` is in seconds since 1970."""

    @abstractmethod
    def _end(self, outcome: str) -> None:
        """Says how the session ended, in MLflow's words."""

    def follow(self, record: TrainingRecord) -> None:
        """Tracks a record, and at the first call those before it.

        Not earlier: until a resumed run logs, its log may hold records that it takes back.
        """
        if self._failed:
            return
        with self._survived():
            earlier = load_training(self._folder.training) if self._held is None else []
            self._track([*(r for r in earlier if r.epoch < record.epoch), record])

    def catch_up(self) -> None:
        """Tracks what the log holds and the tracker lacks."""
        with self._survived():
            if self._folder.training.exists() and not self._failed:
                self._track(load_training(self._folder.training))

    def close(self, outcome: str) -> None:
        """Ends the session of a tracker that was begun and did not fail."""
        with self._survived():
            if self._held is not None:
                self._end(outcome)

    def _track(self, records: Sequence[TrainingRecord]) -> None:
        if self._held is None:
            self._held = self._open(records[-1].run_id)
        now = time.time()
        for record in records:
            own = {"loss": record.loss, "queries": float(record.queries), "seconds": record.at}
            missing = {
                name: value
                for name, value in (own | record.metrics).items()
                if (name, record.epoch) not in self._held
            }
            if missing:
                # As if it had been tracked when it was made, so that curves over time are right.
                self._write(record.epoch, missing, now - (records[-1].at - record.at))
                self._held.update((name, record.epoch) for name in missing)

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Gives the tracker up if it fails, with whatever error of a package or a server."""
        try:
            yield
        except Exception as error:
            self._failed, self._held = True, None
            _log.warning(
                "tracking with %s failed and is given up (%s: %s); the run itself goes on and is "
                "logged in full. Track what is missing: dest train --resume %s --track %s",
                *(self.name, type(error).__name__, error, self._folder.path, self.name),
            )


class TensorBoardTracker(Tracker):
    """Event files, one for each session; an epoch is one event, which is there whole or not."""

    name = "tensorboard"

    def __init__(self, folder: RunFolder, config: TrainingConfig) -> None:
        super().__init__(folder, config)
        self._path = folder.path / "tensorboard"
        _tensorboard("tensorboard")
        if not folder.checkpoint.exists() and any(self._path.glob("*tfevents*")):
            raise InputError(
                f"`{self._path}` holds the events of another run: remove it, or name another "
                "folder for the run"
            )

    def _open(self, run_id: str) -> Held:
        accumulators = _tensorboard("tensorboard.backend.event_processing.event_accumulator")
        self._run_id = run_id
        self._path.mkdir(exist_ok=True)
        # The file of a session before may end in half an event: it is never appended to.
        self._file = self._path / f"events.out.tfevents.{time.time_ns()}.{run_id}"
        found = accumulators.EventAccumulator(
            str(self._path), size_guidance={"scalars": 0}, purge_orphaned_data=False
        ).Reload()
        tags = found.Tags()["scalars"]
        self._is_described = bool(tags)
        return {(tag, event.step) for tag in tags for event in found.Scalars(tag)}

    def _write(self, epoch: int, scalars: Mapping[str, float], when: float) -> None:
        proto = _tensorboard("tensorboard.compat.proto.summary_pb2").Summary
        values = [proto.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        summary = proto(value=values)
        if not self._is_described:  # the configuration, for the HParams page
            hparams = _tensorboard("tensorboard.plugins.hparams.summary_v2")
            plain = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in self._config.items()
            }
            summary.MergeFrom(
                hparams.hparams_pb(plain, trial_id=self._run_id, start_time_secs=when)
            )
        # TensorBoard's own `EventFileWriter` writes in a thread, and waits forever if that fails.
        event = _tensorboard("tensorboard.compat.proto.event_pb2").Event
        with self._file.open("ab") as file:
            writer = _tensorboard("tensorboard.summary.writer.record_writer").RecordWriter(file)
            if not file.tell():
                begin = event(wall_time=when, file_version="brain.Event:2")
                writer.write(begin.SerializeToString())
            writer.write(event(wall_time=when, step=epoch, summary=summary).SerializeToString())
        self._is_described = True

    def _end(self, outcome: str) -> None:
        """Nothing is open between events."""


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow without telemetry, and what it prints on stderr; the environment is put back."""
    before = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    os.environ.update(_ENVIRONMENT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)
        os.environ.update(before)


class MLflowTracker(Tracker):
    """An MLflow run, found again by a tag with the run id of the records."""

    name = "mlflow"

    def __init__(self, folder: RunFolder, config: TrainingConfig) -> None:
        super().__init__(folder, config)
        self._store = folder.path.absolute() / "mlruns"
        chosen = os.environ.get("MLFLOW_TRACKING_URI")
        self._uri = chosen or self._store.as_uri()
        self._is_ours = not chosen
        with _quiet():
            _mlflow("mlflow")

    @_quiet()
    def _open(self, run_id: str) -> Held:
        self._client = _mlflow("mlflow").MlflowClient(tracking_uri=self._uri)
        try:
            return self._find(run_id)
        except OSError:
            raise
        except Exception as error:  # MLflow has no one name for a store that it cannot read
            if not self._is_ours:
                raise
            # MLflow's file store is not safe against a kill, but all in ours is in the log too.
            siblings = self._store.parent.glob(f"{self._store.name}.damaged-*")
            aside = self._store.with_name(f"{self._store.name}.damaged-{len(list(siblings))}")
            self._store.rename(aside)
            _log.warning("`%s` is damaged (%s): now `%s`, begun again", self._store, error, aside)
            return self._find(run_id)

    @_quiet()
    def _write(self, epoch: int, scalars: Mapping[str, float], when: float) -> None:
        metric = _mlflow("mlflow.entities").Metric
        found = [metric(name, value, int(when * 1000), epoch) for name, value in scalars.items()]
        self._client.log_batch(self._id, found)

    @_quiet()
    def _end(self, outcome: str) -> None:
        self._client.set_terminated(self._id, outcome)

    def _find(self, run_id: str) -> Held:
        if self._is_ours:  # MLflow makes its folders once for a process and a place
            (self._store / ".trash").mkdir(parents=True, exist_ok=True)
        client = self._client
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        found = client.search_runs([experiment], f"tags.`{_RUN_ID_TAG}` = '{run_id}'")
        title = self._folder.path.absolute().name
        run = (
            found[0]
            if found
            else client.create_run(experiment, tags={_RUN_ID_TAG: run_id}, run_name=title)
        )
        self._id = run.info.run_id
        held: Held = set()
        for name in run.data.metrics:
            held.update((name, m.step) for m in client.get_metric_history(self._id, name))
        if run.info.status != "RUNNING":
            client.update_run(self._id, status="RUNNING")
        self._describe(run.data.params)
        return held

    def _describe(self, held: Mapping[str, str]) -> None:
        """Logs the parameters that are missing; MLflow lets none be changed."""
        wanted = {name: str(value) for name, value in self._config.items()}
        torn = [name for name, value in wanted.items() if held.get(name, value) != value]
        if torn and self._is_ours:
            raise ValueError(f"parameter {torn[0]} is not that of the run")
        param = _mlflow("mlflow.entities").Param
        missing = [param(name, value) for name, value in wanted.items() if name not in held]
        if missing:
            self._client.log_batch(self._id, params=missing)


_TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoardTracker, MLflowTracker)
}
TRACKERS = tuple(_TRACKERS)


@contextmanager
def tracked(names: Sequence[str], folder: RunFolder, config: TrainingConfig) -> Iterator[Progress]:
    """Tracks a run while it trains: give what it yields to `train` or `resume` as `progress`.

    TensorBoard's event files are in `tensorboard` in the run's folder. MLflow's run is in the
    file store `mlruns` there, or wherever `MLFLOW_TRACKING_URI` says, in the experiment that
    `MLFLOW_EXPERIMENT_NAME` says. Nothing is written before the first record, and nothing leaves
    the machine unless `MLFLOW_TRACKING_URI` names a server.

    Args:
        names: Some of `TRACKERS`; none: nothing is tracked.
        folder: The run's folder.
        config: How the run is trained.

    Raises:
        InputError: A name is unknown, or the folder of a new run holds events of another.
        MissingExtraError: A tracker's package is not installed.

    Example:
        ::

            with tracked(["tensorboard"], folder, config) as progress:
                train(workload, config, folder, progress=progress)
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"unknown tracker {name!r}: give one of {', '.join(TRACKERS)}")
    trackers = [_TRACKERS[name](folder, config) for name in dict.fromkeys(names)]

    def progress(record: TrainingRecord) -> None:
        for tracker in trackers:
            tracker.follow(record)

    outcome = "FAILED"
    try:
        yield progress
        for tracker in trackers:
            tracker.catch_up()
        outcome = "FINISHED"
    except (TrainingStoppedError, KeyboardInterrupt):
        outcome = "KILLED"
        raise
    finally:
        for tracker in trackers:
            tracker.close(outcome)
