"""All that a run needs to go on, as one value that goes into a checkpoint and comes out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..analysis.load import QueryTotals
from ._ml import torch
from .checkpoints import Checkpoint, Tensors, flatten, unflatten
from .config import TrainingConfig
from .workloads import Workload

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass
class Position:
    """How far a run is.

    Attributes:
        scored: Whether the initial weights have their record.
        epoch: Epochs finished.
        batch: Batches finished of the epoch that has begun.
        step: Optimiser steps taken.
        seconds: Wall time spent.
        chosen: Whether a gradient-free optimiser has made its choice.
    """

    scored: bool = False
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    chosen: bool = False

    def is_done(self, config: TrainingConfig) -> bool:
        """Whether nothing is left to train."""
        return self.chosen if config.is_gradient_free else self.epoch >= config.epochs


@dataclass(frozen=True)
class Logs:
    """The logs a state speaks of.

    Attributes:
        run_id: The run in every record.
        queries: Bytes of the query log.
        training: Bytes of the training log.
        tasks: Bytes of the task log, 0 where there is none.
    """

    run_id: str
    queries: int
    training: int
    tasks: int = 0


@dataclass(frozen=True, eq=False)
class RunState:
    """A run between two steps.

    Attributes:
        config: How it is trained.
        data: Digest of the data.
        position: How far it is.
        logs: What was logged until then.
        num_runs: Runs the estimator has begun, which decide the noise of the next.
        totals: What its queries came to.
        classifier: Weights, and what else a head keeps, by name.
        optimizer: What a gradient optimiser remembers; None: there is none.
        numbers: Vectors by name: `start` (initial weights), `points` and `losses` (what a
            gradient-free optimiser has asked for, one point a row, and was told), `norms` (of the
            gradients in the epoch that has begun), `scores` (of the last epoch that ended), and
            `random` (PyTorch's random state).
    """

    config: TrainingConfig
    data: str
    position: Position
    logs: Logs
    num_runs: int
    totals: QueryTotals
    classifier: Tensors
    optimizer: dict[str, Any] | None
    numbers: Tensors

    def save(self, path: Path, *, durable: bool) -> None:
        """Writes it as a checkpoint; see `Checkpoint.save`."""
        tensors: Tensors = {}
        state = {
            "config": self.config.as_dict(),
            "data": self.data,
            "position": asdict(self.position),
            "logs": asdict(self.logs),
            "num_runs": self.num_runs,
            "totals": asdict(self.totals),
            "classifier": flatten(self.classifier, "classifier", tensors),
            "optimizer": flatten(self.optimizer, "optimizer", tensors),
            "numbers": flatten(self.numbers, "numbers", tensors),
        }
        Checkpoint(state, tensors).save(path, durable=durable)

    @classmethod
    def load(cls, path: Path) -> RunState:
        """Reads it back.

        Raises:
            CheckpointError: There is no checkpoint, or it is damaged or of another version.
        """
        checkpoint = Checkpoint.load(path)
        state, tensors = checkpoint.state, checkpoint.tensors
        return cls(
            config=TrainingConfig.from_dict(state["config"]),
            data=state["data"],
            position=Position(**state["position"]),
            logs=Logs(**state["logs"]),
            num_runs=state["num_runs"],
            totals=QueryTotals(**state["totals"]),
            classifier=unflatten(state["classifier"], tensors),
            optimizer=unflatten(state["optimizer"], tensors),
            numbers=unflatten(state["numbers"], tensors),
        )


def snapshot(workload: Workload) -> Checkpoint:
    """The data of a run, to be kept beside it: reductions of one file differ by machine."""
    arrays = {name: getattr(workload, name) for name in _ARRAYS}
    state = {
        "name": workload.name,
        "classes": list(workload.classes),
        "feature_range": list(workload.feature_range),
    }
    return Checkpoint(state, {name: torch.from_numpy(array) for name, array in arrays.items()})


def restored(data: Checkpoint) -> Workload:
    """The workload that `snapshot` was given."""
    arrays = {name: data.tensors[name].numpy() for name in _ARRAYS}
    return Workload(
        name=data.state["name"],
        classes=tuple(data.state["classes"]),
        feature_range=tuple(data.state["feature_range"]),
        **arrays,
    )
