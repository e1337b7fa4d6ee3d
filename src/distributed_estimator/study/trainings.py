"""Runs of kind "train": a training, gone on with where it was, and the attacks on its network."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..analysis.load import load_queries
from ..errors import DamagedCheckpointError, TrainingStoppedError
from ..training.config import TrainingConfig
from ..training.loop import config_of, resume, train
from ..training.models import build_model
from ..training.robustness import RobustnessFiles, evaluate_robustness
from ..training.runs import RunFolder, TrainingResult
from ..training.workloads import Workload, WorkloadConfig, load_workload
from .folder import empty
from .runs import StudyRun, attack_config, model_config, training_config, workload_config

Stop = Callable[[], bool]


def run_training(run: StudyRun, folder: Path, attempt: int, stop: Stop) -> dict[str, Any]:
    """Trains, attacks, and returns the numbers; what an earlier attempt has trained is kept.

    Args:
        run: The run.
        folder: Its folder.
        attempt: The attempt's number, which goes into the headers of its records.
        stop: Asked after every step.

    Raises:
        TrainingStoppedError: `stop` said so.
        CheckpointError: Another process trains in the folder, data or logs of an earlier attempt
            are damaged, or its checkpoint cannot be read or is of another version; nothing was
            changed.
    """
    trained = _train(run, RunFolder(folder, run.run_id, attempt), stop)
    return {
        "seconds": trained.seconds,
        "results": {
            "training_seconds": trained.seconds,
            "queries": trained.totals.queries,
            **_asked(run, trained.folder),
            "train_accuracy": trained.final.train_accuracy,
            "test_accuracy": trained.final.test_accuracy,
            "loss": trained.final.loss,
            **_attack(run, trained.folder, stop),
        },
    }


@lru_cache(maxsize=4)
def cached_workload(config: WorkloadConfig) -> Workload:
    """A workload's samples; runs of a study share them, and MNIST takes seconds to load."""
    return load_workload(config)


def _train(run: StudyRun, folder: RunFolder, stop: Stop) -> TrainingResult:
    config = training_config(run)
    with folder.held():  # another trainer's files are its own
        goes_on = _goes_on(folder, config)
        if not goes_on:
            empty(folder.path)
    if goes_on:
        return resume(folder, stop=stop)
    return train(cached_workload(workload_config(run)), config, folder, stop=stop)


def _goes_on(folder: RunFolder, config: TrainingConfig) -> bool:
    """Whether an earlier attempt left a checkpoint of this training that is not damaged.

    One that cannot be read, this time or by this version, is an error: it may be sound.
    """
    try:
        return folder.checkpoint.exists() and config_of(folder) == config
    except DamagedCheckpointError:
        return False


def _asked(run: StudyRun, folder: RunFolder) -> dict[str, int]:
    """Values and gradients asked for, and the single queries that these are for the reference.

    Its gradients are parameter shifts: two queries for each place that a weight has.
    """
    records = load_queries(folder.queries)
    values = sum(r.num_queries for r in records if r.quantity == "value")
    gradients = sum(r.num_queries for r in records if r.quantity == "gradient")
    model = build_model(model_config(run), run.config["qubits"])
    weights = set(model.weights)
    places = sum(
        len(weights & set(getattr(angle, "parameters", ())))
        for instruction in model.circuit.data
        for angle in instruction.operation.params
    )
    if run.pipeline == "reference":
        return {"values": values, "gradients": 0, "reference_queries": values}
    shifted = values + 2 * places * gradients
    return {"values": values, "gradients": gradients, "reference_queries": shifted}


def _attack(run: StudyRun, folder: RunFolder, stop: Stop) -> dict[str, Any]:
    attacks = attack_config(run)
    if attacks is None:
        return {"robustness": None, "robustness_summary": None}

    def check(done: int, total: int) -> None:
        if stop():
            raise TrainingStoppedError(f"stopped after {done} of {total} attacks")

    files = RobustnessFiles(folder.path / "robustness.json", replace=True)  # of an attempt killed
    found = evaluate_robustness(folder, attacks, files, figure=False, advance=check).measured
    curves = {
        curve.attack: [[p.magnitude, p.accuracy, p.low, p.high] for p in curve.points]
        for curve in found.curves
    }
    return {"robustness": curves, "robustness_summary": found.summary}
