"""Shots that training on Iris takes until its exact loss is that of exact training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distributed_estimator.errors import TrainingStoppedError
from distributed_estimator.records import TrainingRecord
from distributed_estimator.training.checkpoints import RunState
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.networks import build_classifier, mean_loss
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.workloads import Workload, WorkloadConfig, load_workload

EXACT_EPOCHS, ABOVE = 30, 1.01  # of the exact training, and over its loss
EPOCHS = 100  # of the others at most
OURS = "norm test"
WAYS: dict[str, dict[str, Any]] = {
    **{f"uniform, {shots} a circuit": {"shots": shots} for shots in (1, 2, 3, 4, 8)},
    OURS: {"shots_total": 10_000, "adaptive_shots": 0.6},
}


@dataclass(frozen=True)
class Learning:
    """Shots until the target, scores of epochs included.

    Attributes:
        shots: Of each seed; None: it was not reached.
    """

    way: str
    shots: tuple[float | None, ...]

    @property
    def median(self) -> float:
        """Over the seeds; infinite where half of them do not arrive."""
        return float(np.median([np.inf if own is None else own for own in self.shots]))

    def as_json(self) -> dict[str, Any]:
        """The fields, with the median."""
        return asdict(self) | {"median": self.median if np.isfinite(self.median) else None}


def learnings(seeds: int, epochs: int = EPOCHS, cuts: int = 2) -> Iterator[Learning]:
    """Of all ways; a seed is that of the data, the initial weights and the shots."""
    found: dict[str, list[float | None]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        config = TrainingConfig(
            WorkloadConfig("iris", seed=seed), cuts=cuts, epochs=epochs, workers=1, seed=seed
        )
        load = load_workload(config.workload)
        with tempfile.TemporaryDirectory() as place:
            exact = replace(config.exact(), epochs=EXACT_EPOCHS)
            target = ABOVE * train(load, exact, RunFolder(Path(place) / "run")).final.loss
        for way, shots in WAYS.items():
            found[way].append(_shots_to(target, load, replace(config, **shots)))
    for way, own in found.items():
        yield Learning(way, tuple(own))


def _shots_to(target: float, load: Workload, config: TrainingConfig) -> float | None:
    """Shots of a run until its weights' exact loss is no more than that; None: it stays above."""
    _, exact = build_classifier(replace(config.exact(), cuts=0), load.num_features, None, None)
    features, targets = torch.from_numpy(load.x_train), torch.from_numpy(load.y_train)
    reached: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")

        def watch(record: TrainingRecord) -> None:
            exact.load_state_dict(RunState.load(folder.checkpoint).classifier)
            with torch.no_grad():
                loss = float(mean_loss(config.loss)(exact(features), targets))
            if loss <= target:
                reached.append(record.metrics["shots"])

        with suppress(TrainingStoppedError):
            train(load, config, folder, progress=watch, stop=lambda: bool(reached))
    return reached[0] if reached else None
