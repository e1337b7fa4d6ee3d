"""A run while it trains: its network, what it logs and keeps."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from .checkpoints import RunState
from .models import Model
from .networks import Classifier, accuracy, evaluating, loss_variance, mean_loss
from .runs import QueryMeter, RunFolder, Scores
from .sources import FloatArray
from .workloads import Workload

Progress = Callable[[TrainingRecord], None]
Stop = Callable[[], bool]

SCORED_AT_ONCE = 256
"""A constant, not a share of free memory: the number of runs decides the shots that are drawn."""

_SECONDS_TO_SYNC = 1.0


@dataclass
class Session:
    """A run between its first step in this process and its last.

    Attributes:
        state: Where the run stands; what others keep is brought up to date when it is saved.
        optimizer: What steps, for gradient optimisers.
        progress: Called with every training record once it is safe on the disk.
        stop: Asked after every step whether to stop there.
    """

    state: RunState
    workload: Workload
    folder: RunFolder
    model: Model
    classifier: Classifier
    optimizer: torch.optim.Optimizer | None
    progress: Progress
    stop: Stop

    def __post_init__(self) -> None:
        workload = self.workload
        self.config = self.state.config
        self.features = torch.from_numpy(workload.x_train)
        self.targets = torch.from_numpy(workload.y_train)
        self.loss = mean_loss(self.config.loss)
        self.estimator = self.classifier.layer.network.estimator
        self.meter = QueryMeter(self.folder.queries)
        self._everything = torch.from_numpy(np.concatenate([workload.x_train, workload.x_test]))
        self._unseen = torch.from_numpy(workload.y_test)
        # In the order in which they are made safe: no log speaks of what one before it lacks.
        self._logs = {"tasks": RecordWriter(self.folder.tasks)} if self.config.trace else {}
        self._logs["queries"] = RecordWriter(self.folder.queries)
        self._logs["training"] = self.folder.writer(self.folder.training)
        self._noise: tuple[int, float] | None = None
        self._started = self._synced = time.perf_counter()

    def chosen(self, batch: torch.Tensor) -> torch.Tensor:
        """The samples of a step: of a batch at random as many as there are shots for."""
        layer = self.classifier.layer
        features, weights = self.features[batch].numpy(), layer.weights.detach().numpy()
        count = layer.network.num_affordable(features, weights)
        if count >= len(batch):
            return batch
        rng = np.random.default_rng([self.config.seed, self.state.step, 1])
        return batch[torch.from_numpy(np.sort(rng.permutation(len(batch))[:count]))]

    def measure_noise(self, loss: torch.Tensor, outputs: torch.Tensor, part: float) -> None:
        """Keeps what shots leave open of the loss gradient, where the next step's depend on it."""
        noise, self._noise = self.classifier.layer.network.noise, None
        if self.state.test is not None and noise is not None:
            self._noise = noise.shots, loss_variance(loss, outputs, noise, part)

    def adapt_shots(self) -> None:
        """Chooses the shots of the next step, where they adapt."""
        layer, test, noise = self.classifier.layer, self.state.test, self._noise
        if test is None or noise is None or layer.weights.grad is None:
            return
        if math.isfinite(noise[1]):  # outputs may overflow
            self.state.noise.append(noise)
            test.update(*noise, layer.weights.grad.numpy())
            layer.network.of_step = test.shots

    def close_epoch(self, asked: FloatArray | None = None) -> None:
        """Scores and records the weights as they are, writes a checkpoint, and says so.

        `asked`: the point whose loss a gradient-free optimiser is waiting for, if one is.
        """
        self.progress(self.score_epoch(asked))

    def score_epoch(self, asked: FloatArray | None = None) -> TrainingRecord:
        """The same, for the caller to say so."""
        self.state.scored = True
        scores = self.score(self._everything)
        seen, unseen = scores.split([len(self.targets), len(self._unseen)])
        self.state.scores = Scores(
            loss=float(self.loss(seen, self.targets)),
            train_accuracy=accuracy(seen, self.targets),
            test_accuracy=accuracy(unseen, self._unseen),
        )
        record = self._record(self.state.scores)
        self.state.norms, self.state.noise = [], []
        self._logs["training"].write(record)
        if asked is not None:
            self.note(asked, self.state.scores.loss)
        self.save()
        return record

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of many samples as in use: no gradient, no dropout; some at a time."""
        with evaluating(self.classifier), torch.no_grad():
            return torch.cat([self.classifier(part) for part in features.split(SCORED_AT_ONCE)])

    def _record(self, scores: Scores) -> TrainingRecord:
        totals, state = self.meter.read(), self.state
        metrics = {
            "train_accuracy": scores.train_accuracy,
            "test_accuracy": scores.test_accuracy,
            "subexperiments": float(totals.subexperiments),
            "shots": float(totals.shots),
            "t_partition": totals.t_partition,
            "t_generate": totals.t_generate,
            "t_execute": totals.t_execute,
            "t_reconstruct": totals.t_reconstruct,
        }
        if state.norms:
            metrics["gradient_norm"] = float(np.mean(state.norms))
        if state.noise:
            shots, variances = np.array(state.noise).T
            metrics["step_shots"] = float(shots.mean())
            metrics["gradient_stderr"] = float(np.sqrt(variances.mean()))
        return TrainingRecord(
            run_id=self.estimator.run_id,
            step=state.step,
            epoch=state.epoch,
            loss=scores.loss,
            metrics=metrics,
            queries=totals.queries,
            at=state.seconds + time.perf_counter() - self._started,
        )

    def note(self, point: FloatArray, loss: float) -> None:
        """Keeps a point that a gradient-free optimiser asked for, and its loss."""
        self.state.points.append(torch.tensor(point, dtype=torch.float64))
        self.state.losses.append(loss)

    def check_weights(self) -> None:
        """Raises `InputError` if a step has led out of the numbers."""
        if not all(bool(p.isfinite().all()) for p in self.classifier.parameters()):
            raise InputError(
                f"weights are not finite after step {self.state.step}: the run diverged, "
                f"take a smaller learning rate than {self.config.lr:g}"
            )

    def stop_if_asked(self) -> None:
        """Saves and raises `TrainingStoppedError` if somebody wants the run to stop."""
        if self.stop():
            self.save()
            state = self.state
            raise TrainingStoppedError(
                f"stopped after {state.epoch} of {self.config.epochs} epochs, "
                f"{state.step} steps; everything is kept, go on with: "
                f"dest train --resume {shlex.quote(str(self.folder.path))}"
            )

    def save(self) -> None:
        """Writes a checkpoint, logs first: it never speaks of records that are not there.

        Whoever kills the process loses nothing. A power cut may lose what came after the last
        wait for the disk, which is made once a second and at the end: it takes longer than a step.

        Raises:
            CheckpointError, RecordError: The operating system refused.
        """
        state, now = self.state, time.perf_counter()
        state.seconds += now - self._started
        self._started = now
        durable = state.is_done or now - self._synced > _SECONDS_TO_SYNC
        if durable:
            self._synced = now
            for log in self._logs.values():
                log.sync()
        state.run_id, state.num_runs = self.estimator.run_id, self.estimator.num_runs
        names = ("queries", "training", "tasks")
        sizes = {name: log.size() for name, log in self._logs.items()}
        state.sizes = {name: sizes.get(name, 0) for name in names}
        state.totals = self.meter.read()
        state.classifier = dict(self.classifier.state_dict())
        state.optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        priors = self.classifier.layer.network.priors
        state.priors = None if priors is None else priors.state
        state.random = torch.get_rng_state()
        state.save(self.folder.checkpoint, durable=durable)

    def restore(self, state: RunState) -> None:
        """Goes back to a checkpoint; what was logged after it will be logged again.

        Raises:
            CheckpointError, RecordError: The checkpoint does not fit the network, or the logs are
                not those it speaks of; nothing was changed on the disk.
        """
        load_classifier(state, self.classifier, self.folder)
        if self.optimizer is not None and state.optimizer is not None:
            self.optimizer.load_state_dict(state.optimizer)
        self.state = state
        torch.set_rng_state(state.random)
        self.estimator.continue_run(state.run_id, state.num_runs)
        network = self.classifier.layer.network
        if state.test is not None:
            network.of_step = state.test.shots
        if network.priors is not None and state.priors is not None:
            network.priors.restore(state.priors)
        paths = {getattr(self.folder, name): size for name, size in state.sizes.items()}
        present = {path: size for path, size in paths.items() if size or path.exists()}
        for path in present:
            _check_run(path, state.run_id)
        for check_only in (True, False):
            for path, size in present.items():
                truncate_records(path, size, check_only=check_only)
        self.meter = QueryMeter(self.folder.queries, state.totals, state.sizes["queries"])

    def close(self) -> None:
        """Closes the logs, and ends the workers."""
        for log in self._logs.values():
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
        ids = (r.run_id for r in read_records(log) if not isinstance(r, Header | DeviceRecord))
        found = next(ids, run_id)
    except RecordError:  # damaged, of which more is said where it is cut
        return
    if found != run_id:
        raise CheckpointError(
            f"`{log}` is of run {found}, the checkpoint beside it of run {run_id}: restore the "
            "files that belong together"
        )
