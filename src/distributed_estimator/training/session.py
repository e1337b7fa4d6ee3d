"""A run while it trains: what it has done, its logs, its checkpoints."""

from __future__ import annotations

import hashlib
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..analysis.load import QueryTotals
from ..errors import CheckpointError, InputError, TrainingStoppedError
from ..records import RecordWriter, TrainingRecord, truncate_records
from ._ml import torch
from .checkpoints import Checkpoint, Tensors, flatten, unflatten
from .classifier import Classifier, accuracy, mean_loss
from .config import TrainingConfig
from .runs import QueryMeter, RunFolder, Scores
from .workloads import Workload

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[TrainingRecord], None]
Stop = Callable[[], bool]

SCORED_AT_ONCE = 256
"""A constant, not a share of free memory: the number of runs decides the shots that are drawn."""

_SECONDS_TO_SYNC = 1.0

UNSCORED = Scores(math.nan, math.nan, math.nan)


@dataclass
class Position:
    """How far a run is.

    Attributes:
        epoch: Epochs finished, and so records written after the first.
        batch: Batches finished of the epoch that has begun.
        step: Optimiser steps taken.
        seconds: Wall time spent.
        finished: Whether nothing is left to do.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    finished: bool = False


@dataclass
class Session:
    """Everything that a checkpoint keeps, and the files it is kept in.

    Attributes:
        config: How to train.
        workload: The data.
        folder: Where the files are.
        classifier: The network.
        optimizer: What steps, for gradient optimisers.
        progress: Called with every training record once it is safe on the disk.
        stop: Asked after every step whether to stop there.
        points: Weights that a gradient-free optimiser has asked for, in order.
        losses: The loss at each of them.
        norms: Gradient norms of the epoch that has begun.
    """

    config: TrainingConfig
    workload: Workload
    folder: RunFolder
    classifier: Classifier
    optimizer: torch.optim.Optimizer | None
    progress: Progress
    stop: Stop
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
        self._log = RecordWriter(self.folder.training)
        self._queries = RecordWriter(self.folder.queries)
        self._meter = QueryMeter(self.folder.queries)
        self._started = self._synced = time.perf_counter()

    @property
    def totals(self) -> QueryTotals:
        """What all queries so far came to."""
        return self._meter.read()

    @property
    def seconds(self) -> float:
        """Wall time of the run, earlier sessions included."""
        return self.position.seconds + time.perf_counter() - self._started

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        by_gradient = not self.config.is_gradient_free
        return self.position.finished or (by_gradient and self.position.epoch >= self.config.epochs)

    def close_epoch(self, asked: FloatArray | None = None) -> None:
        """Scores and records the weights as they are, writes a checkpoint, and says so.

        `asked`: the point whose loss a gradient-free optimiser is waiting for, if one is.
        """
        record = self._observe()
        if asked is not None:
            self.note(asked, self.scores.loss)
        self.save()
        self.progress(record)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of many samples, without a gradient; some at a time, to bound the memory."""
        with torch.no_grad():
            return torch.cat([self.classifier(part) for part in features.split(SCORED_AT_ONCE)])

    def _observe(self) -> TrainingRecord:
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
        return record

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
            run_id=self.classifier.layer.network.estimator.run_id,
            step=self.position.step,
            epoch=self.position.epoch,
            loss=self.scores.loss,
            metrics=metrics,
            queries=totals.queries,
            at=self.seconds,
        )

    def note(self, point: FloatArray, loss: float) -> None:
        """Keeps what a gradient-free optimiser has asked for and was told."""
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
        estimator = self.classifier.layer.network.estimator
        now = time.perf_counter()
        self.position.seconds += now - self._started
        self._started = now
        durable = self.is_done or now - self._synced > _SECONDS_TO_SYNC
        if durable:
            self._synced = now
            self._queries.sync()
            self._log.sync()
        tensors: Tensors = {"random.torch": torch.get_rng_state()}
        state = {
            "config": self.config.as_dict(),
            "data": _digest(self.workload),
            "position": asdict(self.position),
            "run_id": estimator.run_id,
            "num_runs": estimator.num_runs,
            "logs": {"queries": self._queries.size(), "training": self._log.size()},
            "totals": asdict(self._meter.read()),
            "classifier": flatten(dict(self.classifier.state_dict()), "classifier", tensors),
            "optimizer": None,
        }
        if self.optimizer is not None:
            state["optimizer"] = flatten(self.optimizer.state_dict(), "optimizer", tensors)
        # Numbers that may be NaN, which JSON has no word for.
        tensors["norms"] = torch.tensor(self.norms, dtype=torch.float64)
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["scores"] = torch.tensor(list(asdict(self.scores).values()), dtype=torch.float64)
        if self.points:
            tensors["points"] = torch.stack(self.points)
        Checkpoint(state, tensors).save(self.folder.checkpoint, durable=durable)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to a checkpoint; what was logged after it will be logged anew.

        Raises:
            CheckpointError: The checkpoint does not fit the data or the network, or the logs are
                not those it speaks of; nothing was changed on the disk.
        """
        state, tensors = checkpoint.state, checkpoint.tensors
        check_data(checkpoint, self.workload, self.folder)
        load_classifier(checkpoint, self.classifier, self.folder)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(unflatten(state["optimizer"], tensors))
        self.position = Position(**state["position"])
        self.norms = tensors["norms"].tolist()
        self.losses = tensors["losses"].tolist()
        self.points = list(tensors["points"]) if "points" in tensors else []
        self.scores = Scores(*tensors["scores"].tolist())
        torch.set_rng_state(tensors["random.torch"])
        self.classifier.layer.network.estimator.continue_run(state["run_id"], state["num_runs"])
        self._rewind(state)

    def _rewind(self, state: dict[str, Any]) -> None:
        sizes = {
            self.folder.queries: state["logs"]["queries"],
            self.folder.training: state["logs"]["training"],
        }
        for check_only in (True, False):
            for path, size in sizes.items():
                truncate_records(path, size, check_only=check_only)
        totals = QueryTotals(**state["totals"])
        self._meter = QueryMeter(self.folder.queries, totals, sizes[self.folder.queries])


def check_data(checkpoint: Checkpoint, workload: Workload, folder: RunFolder) -> None:
    """Raises `CheckpointError` unless a run was trained on this very data."""
    if checkpoint.state["data"] != _digest(workload):
        raise CheckpointError(
            f"the data of workload `{workload.name}` is not what `{folder.path}` was trained on: "
            "give the same data, or begin a new run"
        )


def load_classifier(checkpoint: Checkpoint, classifier: Classifier, folder: RunFolder) -> None:
    """Sets a network's weights; raises `CheckpointError` if they are of another network."""
    try:
        classifier.load_state_dict(unflatten(checkpoint.state["classifier"], checkpoint.tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"`{folder.checkpoint}` is of another network ({reason}): give the same head"
        ) from error


def _digest(workload: Workload) -> str:
    digest = hashlib.sha256()
    for part in (workload.x_train, workload.y_train, workload.x_test, workload.y_test):
        digest.update(f"{part.shape} {part.dtype}".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
