"""A run while it trains: its network, where it stands, what it logs and keeps."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..analysis.load import QueryTotals
from ..errors import CheckpointError, InputError, RecordError, TrainingStoppedError
from ..records import (
    DeviceRecord,
    Header,
    RecordWriter,
    TrainingRecord,
    read_records,
    truncate_records,
)
from ._ml import torch
from .checkpoints import Logs, Position, RunState
from .classifier import Classifier, accuracy, evaluating, mean_loss
from .config import TrainingConfig
from .models import Model
from .runs import UNSCORED, QueryMeter, RunFolder, Scores
from .workloads import Workload

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[TrainingRecord], None]
Stop = Callable[[], bool]

SCORED_AT_ONCE = 256
"""A constant, not a share of free memory: the number of runs decides the shots that are drawn."""

_SECONDS_TO_SYNC = 1.0


@dataclass
class Session:
    """A run between its first step in this process and its last.

    Attributes:
        config: How to train.
        workload: The data.
        data: Digest of the data.
        folder: Where the files are.
        model: The circuit.
        classifier: The network.
        optimizer: What steps, for gradient optimisers.
        progress: Called with every training record once it is safe on the disk.
        stop: Asked after every step whether to stop there.
        start: Initial weights as one vector.
        position: How far the run is.
        points: Weights that a gradient-free optimiser has asked for, in order.
        losses: The loss at each of them.
        norms: Gradient norms of the epoch that has begun.
        scores: Of the last epoch that ended.
    """

    config: TrainingConfig
    workload: Workload
    data: str
    folder: RunFolder
    model: Model
    classifier: Classifier
    optimizer: torch.optim.Optimizer | None
    progress: Progress
    stop: Stop
    start: torch.Tensor
    position: Position = field(default_factory=Position)
    points: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    scores: Scores = UNSCORED

    def __post_init__(self) -> None:
        self.features = torch.from_numpy(self.workload.x_train)
        self.targets = torch.from_numpy(self.workload.y_train)
        self.loss = mean_loss(self.config.loss)
        self._everything = torch.from_numpy(
            np.concatenate([self.workload.x_train, self.workload.x_test])
        )
        self._unseen = torch.from_numpy(self.workload.y_test)
        self._log = self.folder.writer(self.folder.training)
        self._queries = RecordWriter(self.folder.queries)
        self._tasks = RecordWriter(self.folder.tasks) if self.config.trace else None
        self._meter = QueryMeter(self.folder.queries)
        self._started = self._synced = time.perf_counter()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.position.is_done(self.config)

    @property
    def run_id(self) -> str:
        """The run in every record."""
        return self.classifier.layer.network.estimator.run_id

    @property
    def totals(self) -> QueryTotals:
        """What all queries so far came to."""
        return self._meter.read()

    @property
    def seconds(self) -> float:
        """Wall time of the run, earlier sessions included."""
        return self.position.seconds + time.perf_counter() - self._started

    def score_start(self) -> TrainingRecord:
        """Scores the initial weights; every run does so once, before its first step."""
        self.position.scored = True
        return self._end_epoch()

    def close_epoch(self, asked: FloatArray | None = None) -> None:
        """Scores and records the weights as they are, writes a checkpoint, and says so.

        `asked`: the point whose loss a gradient-free optimiser is waiting for, if one is.
        """
        self.progress(self._end_epoch(asked))

    def _end_epoch(self, asked: FloatArray | None = None) -> TrainingRecord:
        scores = self.score(self._everything)
        seen, unseen = scores.split([len(self.targets), len(self._unseen)])
        self.scores = Scores(
            loss=float(self.loss(seen, self.targets)),
            train_accuracy=accuracy(seen, self.targets),
            test_accuracy=accuracy(unseen, self._unseen),
        )
        record = self._record()
        self.norms = []
        self._log.write(record)
        if asked is not None:
            self.note(asked, self.scores.loss)
        self.save()
        return record

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of many samples as in use: no gradient, no dropout; some at a time."""
        with evaluating(self.classifier), torch.no_grad():
            return torch.cat([self.classifier(part) for part in features.split(SCORED_AT_ONCE)])

    def _record(self) -> TrainingRecord:
        totals = self._meter.read()
        metrics = {
            "train_accuracy": self.scores.train_accuracy,
            "test_accuracy": self.scores.test_accuracy,
            "subexperiments": float(totals.subexperiments),
            "shots": float(totals.shots),
            "t_partition": totals.t_partition,
            "t_generate": totals.t_generate,
            "t_execute": totals.t_execute,
            "t_reconstruct": totals.t_reconstruct,
        }
        if self.norms:
            metrics["gradient_norm"] = float(np.mean(self.norms))
        return TrainingRecord(
            run_id=self.run_id,
            step=self.position.step,
            epoch=self.position.epoch,
            loss=self.scores.loss,
            metrics=metrics,
            queries=totals.queries,
            at=self.seconds,
        )

    def note(self, point: FloatArray, loss: float) -> None:
        """Keeps a point that a gradient-free optimiser asked for, and its loss."""
        self.points.append(torch.tensor(point, dtype=torch.float64))
        self.losses.append(loss)

    def check_weights(self) -> None:
        """Raises `InputError` if a step has led out of the numbers."""
        if not all(bool(p.isfinite().all()) for p in self.classifier.parameters()):
            raise InputError(
                f"weights are not finite after step {self.position.step}: the run diverged, take "
                f"a smaller learning rate than {self.config.lr:g}"
            )

    def stop_if_asked(self) -> None:
        """Saves and raises `TrainingStoppedError` if somebody wants the run to stop."""
        if self.stop():
            self.save()
            raise TrainingStoppedError(
                f"stopped after {self.position.epoch} of {self.config.epochs} epochs, "
                f"{self.position.step} steps; everything is kept, go on with: "
                f"dest train --resume {shlex.quote(str(self.folder.path))}"
            )

    def save(self) -> None:
        """Writes a checkpoint, logs first: it never speaks of records that are not there.

        Whoever kills the process loses nothing. A power cut may lose what came after the last
        wait for the disk, which is made once a second and at the end: it takes longer than a step.

        Raises:
            CheckpointError, RecordError: The operating system refused.
        """
        now = time.perf_counter()
        self.position.seconds += now - self._started
        self._started = now
        durable = self.is_done or now - self._synced > _SECONDS_TO_SYNC
        if durable:
            self._synced = now
            for log in self._logs():
                log.sync()
        self._state().save(self.folder.checkpoint, durable=durable)

    def _state(self) -> RunState:
        numbers = {
            "start": self.start,
            "points": torch.stack(self.points) if self.points else torch.empty(0),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "norms": torch.tensor(self.norms, dtype=torch.float64),
            "scores": torch.tensor(astuple(self.scores), dtype=torch.float64),
            "random": torch.get_rng_state(),
        }
        tasks = 0 if self._tasks is None else self._tasks.size()
        return RunState(
            config=self.config,
            data=self.data,
            position=self.position,
            logs=Logs(self.run_id, self._queries.size(), self._log.size(), tasks),
            num_runs=self.classifier.layer.network.estimator.num_runs,
            totals=self._meter.read(),
            classifier=dict(self.classifier.state_dict()),
            optimizer=None if self.optimizer is None else self.optimizer.state_dict(),
            numbers=numbers,
        )

    def _logs(self) -> list[RecordWriter]:
        """The logs, the training log last: it never speaks of queries that are not there."""
        tasks = [] if self._tasks is None else [self._tasks]
        return [*tasks, self._queries, self._log]

    def restore(self, state: RunState) -> None:
        """Goes back to a checkpoint; what was logged after it will be logged again.

        Raises:
            CheckpointError, RecordError: The checkpoint does not fit the network, or the logs are
                not those it speaks of; nothing was changed on the disk.
        """
        load_classifier(state, self.classifier, self.folder)
        if self.optimizer is not None and state.optimizer is not None:
            self.optimizer.load_state_dict(state.optimizer)
        self.position = state.position
        numbers = state.numbers
        self.start = numbers["start"]
        self.points = list(numbers["points"])
        self.losses = numbers["losses"].tolist()
        self.norms = numbers["norms"].tolist()
        self.scores = Scores(*numbers["scores"].tolist())
        torch.set_rng_state(numbers["random"])
        self.classifier.layer.network.estimator.continue_run(state.logs.run_id, state.num_runs)
        self._rewind(state)

    def _rewind(self, state: RunState) -> None:
        sizes = {
            self.folder.queries: state.logs.queries,
            self.folder.training: state.logs.training,
            self.folder.tasks: state.logs.tasks,
        }
        present = {path: size for path, size in sizes.items() if size or path.exists()}
        for path in present:
            _check_run(path, state.logs.run_id)
        for check_only in (True, False):
            for path, size in present.items():
                truncate_records(path, size, check_only=check_only)
        self._meter = QueryMeter(self.folder.queries, state.totals, state.logs.queries)

    def close(self) -> None:
        """Closes the logs."""
        for log in self._logs():
            log.close()
        self.classifier.layer.network.close()


def load_classifier(state: RunState, classifier: Classifier, folder: RunFolder) -> None:
    """Sets a network's weights; raises `CheckpointError` if they are of another network."""
    try:
        classifier.load_state_dict(state.classifier)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"`{folder.checkpoint}` is of another network ({reason}): give the same head"
        ) from error


def _check_run(log: Path, run_id: str) -> None:
    """Raises `CheckpointError` if a log is another run's."""
    try:
        found = next(
            (r.run_id for r in read_records(log) if not isinstance(r, Header | DeviceRecord)),
            run_id,
        )
    except RecordError:  # damaged, of which more is said where it is cut
        return
    if found != run_id:
        raise CheckpointError(
            f"`{log}` is of run {found}, the checkpoint beside it of run {run_id}: restore the "
            "files that belong together"
        )
