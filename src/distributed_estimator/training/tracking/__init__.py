"""Training records as TensorBoard event files and MLflow runs, written while a run trains.

The training log is the truth, and a tracker a copy of it: it looks up which scalars it already
holds, takes from the log what it lacks, and writes no scalar of an epoch twice. So a run that was
killed at any moment and resumed, or tracked for a part of its time, ends up tracked whole.

A tracker that fails (disk full, server gone) does not stop the training: it is given up for the
rest of the session, with one warning, and catches up when the run is resumed with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...analysis.load import load_training
from ...errors import InputError, TrainingStoppedError
from ...records import TrainingRecord
from ..config import TrainingConfig
from ..runs import RunFolder
from ..session import Progress
from .mlflow import MLflowTracker
from .tensorboard import TensorBoardTracker
from .tracker import Held, Tracker

_TRACKERS: dict[str, Callable[[RunFolder, TrainingConfig], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
}
TRACKERS = tuple(_TRACKERS)

_log = logging.getLogger(__name__)


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
    followers = [_Follower(name, folder, config) for name in _known(names)]

    def progress(record: TrainingRecord) -> None:
        for follower in followers:
            follower.follow(record)

    outcome = "FAILED"
    try:
        yield progress
        for follower in followers:
            follower.catch_up()
        outcome = "FINISHED"
    except (TrainingStoppedError, KeyboardInterrupt):
        outcome = "KILLED"
        raise
    finally:
        for follower in followers:
            follower.close(outcome)


def _known(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"unknown tracker {name!r}: give one of {', '.join(TRACKERS)}")
    return list(dict.fromkeys(names))


class _Follower:
    """Keeps one tracker up with the training log, until the tracker fails."""

    def __init__(self, name: str, folder: RunFolder, config: TrainingConfig) -> None:
        self._name = name
        self._folder = folder
        self._tracker: Tracker = _TRACKERS[name](folder, config)
        self._held: Held | None = None
        self._failed = False

    def follow(self, record: TrainingRecord) -> None:
        """Tracks a record, and at the first call those before it.

        Not earlier: until a resumed run logs, its log may hold records that it takes back.
        """
        with self._survived():
            earlier = self._logged() if self._held is None and not self._failed else []
            self._track([*(r for r in earlier if r.epoch < record.epoch), record])

    def catch_up(self) -> None:
        """Tracks what the log holds and the tracker lacks."""
        with self._survived():
            if self._folder.training.exists() and not self._failed:
                self._track(self._logged())

    def close(self, outcome: str) -> None:
        """Ends the session of a tracker that was begun and did not fail."""
        with self._survived():
            if self._held is not None:
                self._tracker.close(outcome)

    def _logged(self) -> list[TrainingRecord]:
        return load_training(self._folder.training)

    def _track(self, records: Sequence[TrainingRecord]) -> None:
        if self._failed:
            return
        if self._held is None:
            self._held = self._tracker.open(records[-1].run_id)
        now = time.time()
        for record in records:
            missing = {
                name: value
                for name, value in _scalars(record).items()
                if (name, record.epoch) not in self._held
            }
            if missing:
                # As if it had been tracked when it was made, so that curves over time are right.
                self._tracker.write(record.epoch, missing, now - (records[-1].at - record.at))
                self._held.update((name, record.epoch) for name in missing)

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Gives the tracker up if it fails, whatever a package or a server comes up with."""
        try:
            yield
        except Exception as error:
            self._failed, self._held = True, None
            _log.warning(
                "tracking with %s failed and is given up (%s: %s); the run itself goes on and is "
                "logged in full. Track what is missing: dest train --resume %s --track %s",
                *(self._name, type(error).__name__, error, self._folder.path, self._name),
            )


def _scalars(record: TrainingRecord) -> dict[str, float]:
    own = {"loss": record.loss, "queries": float(record.queries), "seconds": record.at}
    return {**own, **record.metrics}
