"""The matrix of a study: every combination that its configuration asks for, as a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

from ..errors import InputError
from ..training.models import labels_for_cuts
from .config import (
    DatasetPart,
    Pipeline,
    PolicyPart,
    QueriesPart,
    StudyConfig,
    TrainingDatasetPart,
    TrainPart,
    VariantPart,
)
from .document import close_to
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
    config: StudyConfig, name: str, experiment: TrainPart | QueriesPart
) -> Iterator[StudyRun]:
    for dataset, part in experiment.datasets.items():
        # What is compared with one another stands close together, as the machine's pace changes.
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
                "policy_options": _policy_options(config.policies[policy], experiment),
                "straggler_p": float(p),
                **place,
            }
            yield StudyRun(
                name,
                experiment.kind,
                pipeline,
                _run_config(config, experiment, part, chosen, pipeline),
            )


def _places(experiment: TrainPart | QueriesPart) -> list[dict[str, Any]]:
    """Where and how the runs of an experiment run; a fleet's devices have a worker each."""
    if isinstance(experiment, TrainPart):
        return [{"workers": count} for count in experiment.workers]
    if experiment.devices is not None:
        return [
            {**VariantPart(workers=count).model_dump(), "devices": count}
            for count in experiment.devices
        ]
    variants = experiment.variants or [
        VariantPart(workers=count) for count in experiment.workers or ()
    ]
    return [{**variant.model_dump(), "devices": None} for variant in variants]


def _policy_options(policy: PolicyPart, experiment: TrainPart | QueriesPart) -> dict[str, Any]:
    return {**policy.model_dump(mode="json"), "subexperiments": experiment.subexperiments}


def _run_config(
    config: StudyConfig,
    experiment: TrainPart | QueriesPart,
    part: DatasetPart,
    chosen: dict[str, Any],
    pipeline: Pipeline,
) -> dict[str, Any]:
    common = {
        **chosen,
        "model": config.model.model_dump(mode="json"),
        "shots": config.shots,
        "pool": experiment.pool,
        "straggler_delay": float(experiment.straggler_delay),
        "reduction": part.reduction,
        "samples": part.samples,
        "test_samples": part.test_samples,
        "trace": experiment.trace and pipeline == "contracted",
    }
    if isinstance(experiment, QueriesPart):
        return {**common, **_query_config(experiment, chosen["cuts"], pipeline)}
    assert isinstance(part, TrainingDatasetPart)
    return {**common, **_training_config(config, experiment, part)}


def _training_config(
    config: StudyConfig, experiment: TrainPart, part: TrainingDatasetPart
) -> dict[str, Any]:
    attacks = experiment.robustness
    return {
        "backend": "statevector",
        "optimizer": config.optimizer,
        "lr": float(config.lr),
        "epochs": part.epochs,
        "batch_size": part.batch_size,
        "robustness": None if attacks is None else attacks.model_dump(mode="json"),
    }


def _query_config(experiment: QueriesPart, cuts: int, pipeline: str) -> dict[str, Any]:
    queries = experiment.queries
    if pipeline == "reference":
        queries = experiment.reference_queries.get(cuts, queries)
    device = experiment.device
    return {
        "backend": experiment.backend,
        "queries": queries,
        "device": None if device is None else device.model_dump(mode="json"),
    }
