"""The matrix of a study: every combination that its configuration asks for, as a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from ..backends.fleet import DeviceSpec
from ..errors import InputError, close_to
from ..execution.policies import Policy
from ..execution.stragglers import Constant, Stragglers
from ..training.config import AttackConfig, Pipeline, TrainingConfig
from ..training.models import ModelConfig, feature_range, labels_for_cuts
from ..training.policies import PolicySettings
from ..training.settings import from_dict
from ..training.workloads import WorkloadConfig
from ..views import counted
from .config import (
    SIZES,
    QueriesExperiment,
    Study,
    StudyConfig,
    TrainDataset,
    TrainExperiment,
    ValuesExperiment,
    Variant,
    content_hash,
    without_later,
)
from .values import widest, width_of

SCHEMA_VERSION = 1
"""Of run.json and result.json."""


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study; `config` is all that decides it, as plain JSON."""

    experiment: str
    kind: Literal["train", "queries", "values"]
    pipeline: Pipeline
    config: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that follow from all the rest."""
        return content_hash(self._content())

    def as_dict(self) -> dict[str, Any]:
        """The run for a JSON document."""
        return {**self._content(), "run_id": self.run_id}

    def _content(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **vars(self), "config": dict(self.config)}

    @property
    def title(self) -> str:
        """The run in a few words: what differs between the runs of an experiment."""
        config = self.config
        if self.kind == "values":
            cuts, shots = counted(config["cuts"], "cut"), counted(config["shots_total"], "shot")
            circuit = f"{config['circuit']} {config['qubits']}q on {config['device']}"
            mitigation = f"mitigation {config['mitigation']}"
            seed = f"seed {config['seed']}"
            return ", ".join([self.experiment, circuit, cuts, mitigation, seed, shots])
        threads, policy = config.get("simulator_threads", 1), config["policy"]
        chosen = "threads as Aer chooses" if threads is None else f"{threads} threads in Aer"
        words = [
            self.experiment,
            f"{config['dataset']} {config['qubits']}q",
            counted(config["cuts"], "cut"),
            f"seed {config['seed']}",
            counted(config["workers"], "worker"),
            policy if policy != "eager" else "",
            f"p={config['straggler_p']:g}" if config["straggler_p"] else "",
            chosen if threads != 1 else "",
            "deferred measurements" if config.get("defer_measurements") else "",
            "reference" if self.pipeline == "reference" else "",
        ]
        return ", ".join(filter(None, words))

    @property
    def model(self) -> ModelConfig:
        """The circuit."""
        return from_dict(ModelConfig, self.config["model"])

    @property
    def workload(self) -> WorkloadConfig:
        """The data."""
        return WorkloadConfig(
            self.config["dataset"],
            num_features=self.config["qubits"],
            feature_range=feature_range(self.model),
            **self._chosen("reduction", "samples", "test_samples", "seed"),
        )

    @property
    def policy(self) -> Policy:
        """How tasks are handed out."""
        return from_dict(PolicySettings, self.config["policy_options"]).policy

    @property
    def stragglers(self) -> Stragglers | None:
        """The delays that are injected; None: none are."""
        p, delay = self.config["straggler_p"], self.config["straggler_delay"]
        return Stragglers(p, Constant(delay)) if p and delay else None

    @property
    def training(self) -> TrainingConfig:
        """How the run trains."""
        same = ("cuts", "shots", "optimizer", "epochs", "batch_size", "lr", "workers", "seed")
        return TrainingConfig(
            workload=self.workload,
            model=self.model,
            pipeline=self.pipeline,
            policy=self.policy,
            stragglers=self.stragglers,
            **self._chosen(*same, "pool", "trace"),
        )

    @property
    def attacks(self) -> AttackConfig | None:
        """The attacks on the network once it is trained; None: none."""
        fields = self.config["robustness"]
        return None if fields is None else from_dict(AttackConfig, fields)

    def _chosen(self, *names: str) -> dict[str, Any]:
        return {name: self.config[name] for name in names}


def runs_of(
    study: Study, pipelines: Sequence[str] | None = None, only: Sequence[str] = ()
) -> list[StudyRun]:
    """The runs of a study in their order, of all pipelines and experiments or of some.

    Raises:
        InputError: An experiment is unknown, nothing is left, or a run cannot be configured.
    """
    config = study.config
    for name in only:
        if name not in config.experiments:
            raise InputError(
                f"`{name}` is no experiment of this study: "
                f"{close_to(name, list(config.experiments))}"
            )
    runs = [
        run
        for name, experiment in config.experiments.items()
        if not only or name in only
        for run in (
            _values_runs(name, experiment)
            if isinstance(experiment, ValuesExperiment)
            else _experiment_runs(config, name, experiment)
        )
        if pipelines is None or run.pipeline in pipelines
    ]
    if not runs:
        raise InputError(
            f"no run of this study is of the pipeline {' or '.join(pipelines or ())}"
            f"{' in ' + ', '.join(only) if only else ''}: choose others"
        )
    for run in runs:  # every configuration once, so that none is refused when hours have gone by
        try:
            if run.kind == "train":
                _ = run.training, run.attacks
            elif run.kind == "queries":
                _ = run.policy
        except InputError as error:
            raise InputError(
                study.document.error(("experiments", run.experiment), f"{run.title}: {error}")
            ) from error
    return runs


def _values_runs(name: str, experiment: ValuesExperiment) -> Iterator[StudyRun]:
    axes = {
        "device": experiment.devices,
        "circuit": experiment.circuits,
        "qubits": experiment.qubits,
        "shots_total": experiment.shots_total,
        "seed": experiment.seeds,
        "cuts": experiment.cuts,
        "mitigation": experiment.mitigations,
        "trace": (experiment.trace,),
    }
    for chosen in product(*axes.values()):
        yield StudyRun(name, experiment.KIND, "contracted", dict(zip(axes, chosen, strict=True)))


def _experiment_runs(
    config: StudyConfig, name: str, experiment: TrainExperiment | QueriesExperiment
) -> Iterator[StudyRun]:
    model = without_later(config.model)
    policies = {name: without_later(part) for name, part in config.policies.items()}
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
            subexperiments = experiment.subexperiments or config.policies[policy].subexperiments
            chosen: dict[str, Any] = {
                "dataset": dataset,
                "qubits": qubits,
                "cuts": cuts,
                "label": labels_for_cuts(qubits, cuts),
                "seed": seed,
                "policy": policy,
                "policy_options": {**policies[policy], "subexperiments": subexperiments},
                "straggler_p": p,
                **place,
                "model": model,
                "shots": config.shots,
                "pool": experiment.pool,
                "straggler_delay": experiment.straggler_delay,
                "reduction": part.reduction,
                "samples": part.samples,
                "test_samples": part.test_samples,
                "trace": experiment.trace and pipeline == "contracted",
            }
            if isinstance(experiment, QueriesExperiment):
                queries, device = experiment.queries, experiment.device
                if pipeline == "reference":
                    queries = experiment.reference_queries.get(cuts, queries)
                chosen |= {
                    "backend": experiment.backend,
                    "queries": queries,
                    "device": None if device is None else device.as_dict(),
                }
            else:
                assert isinstance(part, TrainDataset)
                attacks = experiment.robustness
                chosen |= {
                    "backend": "statevector",
                    "optimizer": config.optimizer,
                    "lr": config.lr,
                    "epochs": part.epochs,
                    "batch_size": part.batch_size,
                    "robustness": None if attacks is None else without_later(attacks),
                }
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


# --- how long it takes ----------------------------------------------------------------------------

# Seconds by number of cuts, 0 to 3: medians on two cores, Python 3.11, one thread in NumPy's BLAS.
_TRAINING = (0.00022, 0.00014, 0.0002, 0.00025)
"""A query of a training on 8 qubits: a value, or a gradient by all weights."""
_REFERENCE = (0.01, 0.28, 2.4, 18.5)
_DEFERRED = (0.01, 0.09, 0.85, 7.5)
"""The reference with deferred measurements."""
_VALUE = (0.6, 1.7, 3.0, 4.0)
"""A value on a small simulated device, 8192 shots."""
_NOISE_MODEL = 0.001
"""Of a device with one qubit; it grows with the square of their number."""
_AER = (0.007, 0.035, 0.065, 0.09)
_STATEVECTOR = (0.003, 0.004, 0.005, 0.005)
_SUBEXPERIMENTS = {4: (5.4, 24.0, 33.0, 35.0), 8: (7.4, 42.0, 115.0, 156.0)}
"""Of a query of a training, on average over values and gradients."""
_SETTINGS = (1.0, 10.0, 35.0, 60.0)
"""Circuits of a single query."""
_TASK = 0.0015
"""One that holds a single subexperiment."""
_START, _LOAD, _ATTACK = 0.1, {"mnist": 2.0}, 0.6
"""A run's beginning, its data, and the attacks on it."""


def total_seconds(runs: Sequence[StudyRun]) -> float:
    """About how long runs take on a laptop, one after another, with the loading of their data."""
    sampled = [run.config for run in runs if run.kind != "values"]
    loads = {(config["dataset"], config["qubits"], config["seed"]) for config in sampled}
    loading = sum(_LOAD.get(dataset, 0.1) for dataset, _, _ in loads)
    return loading + sum(expected_seconds(run) for run in runs)


def expected_seconds(run: StudyRun) -> float:
    """About how long a run takes on a laptop; right within a factor of about two."""
    config = run.config
    if run.kind == "values":
        return _value_seconds(run)
    qubits, workers = int(config["qubits"]), int(config["workers"])
    delay = float(config["straggler_p"] * config["straggler_delay"])  # of one, on average
    if run.kind == "queries":
        return _START + int(config["queries"]) * _query_seconds(run, workers, delay)
    # Values and gradients that a training asks for, scores of epochs included.
    _, train, test = SIZES[config["dataset"]]
    train, test = min(train, config["samples"] or train), min(test, config["test_samples"] or test)
    values = (config["epochs"] + 1) * (train + test) + config["epochs"] * train
    gradients = config["epochs"] * train
    if run.pipeline == "reference":
        shifts = 2 * 2 * qubits
        return float((values + gradients * shifts) * _at(_REFERENCE, run))
    seconds = _START + (values + gradients) * _at(_TRAINING, run) * qubits / 8
    if config["robustness"] is not None:
        seconds += _ATTACK
    if config["policy_options"]["subexperiments"] == 1 or config["straggler_p"]:
        nearest = min(_SUBEXPERIMENTS, key=lambda known: abs(known - qubits))
        subexperiments = _at(_SUBEXPERIMENTS[nearest], run) * qubits / nearest
        # Each adds its task on one core, and its delay on one of the workers.
        seconds += (values + gradients) * subexperiments * (_TASK + delay / workers)
    return float(seconds)


def _value_seconds(run: StudyRun) -> float:
    """By circuits that run, the width of those that are simulated, and that of the device."""
    config = run.config
    extrapolated = 2.5 if config["mitigation"] == "readout+zne" else 1.0
    wide = 2.0 ** max(0, widest(config["circuit"], config["qubits"], config["cuts"]) - 9)
    seconds = _at(_VALUE, run) * extrapolated * wide * config["shots_total"] / 8192
    return float(seconds + _NOISE_MODEL * width_of(config["device"]) ** 2)


def _query_seconds(run: StudyRun, workers: int, delay: float) -> float:
    config = run.config
    if run.pipeline == "reference":
        return _at(_DEFERRED if config["defer_measurements"] else _REFERENCE, run)
    if config["backend"] == "aer":
        return _at(_AER, run)
    jobs = math.ceil(_at(_SETTINGS, run) / workers)
    seconds = _at(_STATEVECTOR, run) + jobs * delay
    if config["backend"] == "fleet":
        device = DeviceSpec(name="device", **config["device"])
        seconds += jobs * (2 * device.latency + device.service_seconds(1, config["shots"]))
    return float(seconds)


def _at(table: tuple[float, ...], run: StudyRun) -> float:
    """The table's value for a run's cuts; beyond it, it goes on growing as it did."""
    beyond = max(0, run.config["cuts"] - len(table) + 1)
    return float(table[run.config["cuts"] - beyond] * (table[-1] / table[-2]) ** beyond)
