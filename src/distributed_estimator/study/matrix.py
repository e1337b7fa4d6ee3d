"""The matrix of a study: every combination that its configuration asks for, as a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

from ..errors import InputError
from ..training.models import labels_for_cuts
from ..training.settings import close_to
from .config import (
    QueriesExperiment,
    QueryDataset,
    StudyConfig,
    TrainDataset,
    TrainExperiment,
    Variant,
    without_later,
)
from .load import Study
from .runs import StudyRun, attack_config, policy_of, training_config


def runs_of(
    study: Study, pipelines: Sequence[str] | None = None, only: Sequence[str] = ()
) -> list[StudyRun]:
    """The runs of a study, in the order in which they are run.

    Args:
        study: The study.
        pipelines: Those to take; None: all.
        only: Experiments to take; none: all.

    Raises:
        InputError: An experiment is unknown, nothing is left, or a run cannot be configured.
    """
    config = study.config
    unknown = [name for name in only if name not in config.experiments]
    if unknown:
        raise InputError(
            f"`{unknown[0]}` is no experiment of this study: "
            f"{close_to(unknown[0], list(config.experiments))}"
        )
    runs = [
        run
        for name, experiment in config.experiments.items()
        if not only or name in only
        for run in _experiment_runs(config, name, experiment)
        if pipelines is None or run.pipeline in pipelines
    ]
    if not runs:
        raise InputError(
            f"no run of this study is of the pipeline {' or '.join(pipelines or ())}"
            f"{' in ' + ', '.join(only) if only else ''}: choose others"
        )
    _check_runs(study, runs)
    return runs


def _check_runs(study: Study, runs: Iterable[StudyRun]) -> None:
    """Makes every configuration once, so that none is refused when hours have gone by."""
    for run in runs:
        try:
            if run.kind == "train":
                training_config(run)
                attack_config(run)
            else:
                policy_of(run)
        except InputError as error:
            raise InputError(
                study.document.error(("experiments", run.experiment), f"{run.title}: {error}")
            ) from error


def _experiment_runs(
    config: StudyConfig, name: str, experiment: TrainExperiment | QueriesExperiment
) -> Iterator[StudyRun]:
    for dataset, part in experiment.datasets.items():
        # Runs to be compared stand close together, as the machine's pace changes.
        axes = (
            part.qubits,
            experiment.seeds,
            experiment.cuts,
            experiment.policies,
            _places(experiment),
            experiment.straggler_p,
            experiment.pipelines,
        )
        for qubits, seed, cuts, policy, place, p, pipeline in product(*axes):
            chosen: dict[str, Any] = {
                "dataset": dataset,
                "qubits": qubits,
                "cuts": cuts,
                "label": labels_for_cuts(qubits, cuts),
                "seed": seed,
                "policy": policy,
                "policy_options": {
                    **without_later("policies", config.policies[policy].as_dict()),
                    "subexperiments": experiment.subexperiments
                    or config.policies[policy].subexperiments,
                },
                "straggler_p": p,
                **place,
                "model": without_later("model", config.model.as_dict()),
                "shots": config.shots,
                "pool": experiment.pool,
                "straggler_delay": experiment.straggler_delay,
                "reduction": part.reduction,
                "samples": part.samples,
                "test_samples": part.test_samples,
                "trace": experiment.trace and pipeline == "contracted",
            }
            if isinstance(experiment, QueriesExperiment):
                chosen |= _query_config(experiment, cuts, pipeline)
            else:
                chosen |= _training_config(config, experiment, part)
            yield StudyRun(name, experiment.KIND, pipeline, chosen)


def _places(experiment: TrainExperiment | QueriesExperiment) -> list[dict[str, Any]]:
    """Where and how the runs of an experiment run; a fleet's devices have a worker each."""
    if isinstance(experiment, TrainExperiment):
        return [{"workers": count} for count in experiment.workers]
    devices = experiment.devices
    variants = experiment.variants or [
        Variant(workers=count) for count in devices or experiment.workers or ()
    ]
    return [
        {**variant.as_dict(), "devices": variant.workers if devices else None}
        for variant in variants
    ]


def _training_config(
    config: StudyConfig, experiment: TrainExperiment, part: QueryDataset
) -> dict[str, Any]:
    assert isinstance(part, TrainDataset)
    attacks = experiment.robustness
    return {
        "backend": "statevector",
        "optimizer": config.optimizer,
        "lr": config.lr,
        "epochs": part.epochs,
        "batch_size": part.batch_size,
        "robustness": None if attacks is None else without_later("robustness", attacks.as_dict()),
    }


def _query_config(experiment: QueriesExperiment, cuts: int, pipeline: str) -> dict[str, Any]:
    queries = experiment.queries
    if pipeline == "reference":
        queries = experiment.reference_queries.get(cuts, queries)
    device = experiment.device
    return {
        "backend": experiment.backend,
        "queries": queries,
        "device": None if device is None else device.as_dict(),
    }
