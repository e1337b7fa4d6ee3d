"""A network as training left it, read back from the run's folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CheckpointError
from ._ml import torch
from .checkpoints import Checkpoint, RunState, restored, snapshot
from .classifier import Classifier, build_classifier
from .config import TrainingConfig
from .models import Model
from .runs import RunFolder
from .session import load_classifier
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
        workload: The data; None: as it was kept beside the run.
        head: The classical module, where the run has one of the caller's.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged, or of other data or another head.
        InputError: Exact values were asked for on the reference pipeline.
    """
    state = RunState.load(folder.checkpoint)
    config = replace(state.config, shots=None) if exact else state.config
    workload, _ = data_of(state, folder, workload)
    with torch.random.fork_rng(devices=[]):
        model, classifier = build_classifier(
            config.for_evaluation(),
            workload.num_features,
            None if log is None else folder.writer(log),
            head,
        )
    load_classifier(state, classifier, folder)
    classifier.eval()
    done = state.position.is_done(state.config)
    return Trained(config, workload, model, classifier, state.position.epoch, done)


def data_of(
    state: RunState, folder: RunFolder, given: Workload | None
) -> tuple[Workload, Checkpoint]:
    """The data of a run, and a snapshot of it: as given, or as kept, or loaded again.

    Raises:
        CheckpointError: It is not what the run was trained on.
    """
    if given is None and folder.data.exists():
        given = restored(Checkpoint.load(folder.data))
    workload = load_workload(state.config.workload) if given is None else given
    kept = snapshot(workload)
    if kept.digest != state.data:
        raise CheckpointError(
            f"the data of workload `{workload.name}` is not what `{folder.path}` was trained on: "
            "give the same data, or begin a new run"
        )
    return workload, kept
