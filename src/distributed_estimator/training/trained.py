"""A network as training left it, read back from the run's folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ._ml import torch
from .checkpoints import Checkpoint
from .classifier import Classifier, build_classifier
from .config import TrainingConfig
from .models import Model
from .runs import RunFolder
from .session import check_data, load_classifier
from .workloads import Workload, load_workload


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with its data.

    Attributes:
        config: How it was trained; `shots` is None where exact values were asked for.
        workload: The data.
        model: The circuit.
        classifier: Scores samples; on an estimator of its own, with the run's seed and cuts.
        epoch: Epochs trained.
        finished: Whether training had ended.
    """

    config: TrainingConfig
    workload: Workload
    model: Model
    classifier: Classifier
    epoch: int
    finished: bool


def load_trained(
    folder: RunFolder,
    *,
    exact: bool = False,
    log: Path | None = None,
    workload: Workload | None = None,
    head: torch.nn.Module | None = None,
) -> Trained:
    """Reads the network of a run that has ended, or of its last checkpoint.

    Args:
        folder: The run's folder; nothing in it is changed.
        exact: Whether to evaluate without shots, whatever the run did.
        log: Where queries of the network are recorded.
        workload: The data; None: loaded as the run's configuration says.
        head: The classical module, where the run has one of the caller's.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged, or of other data or another head.
        InputError: Exact values were asked for on the reference pipeline.
    """
    checkpoint = Checkpoint.load(folder.checkpoint)
    config = TrainingConfig.from_dict(checkpoint.state["config"])
    if exact:
        config = replace(config, shots=None)
    workload = workload or load_workload(config.workload)
    check_data(checkpoint, workload, folder)
    with torch.random.fork_rng(devices=[]):
        model, classifier = build_classifier(config, workload.num_features, log, head)
    load_classifier(checkpoint, classifier, folder)
    position = checkpoint.state["position"]
    done = position["finished"] or position["epoch"] >= config.epochs
    return Trained(config, workload, model, classifier, position["epoch"], bool(done))
