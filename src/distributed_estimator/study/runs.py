"""A run of a study: what it is, under a content hash, and the configurations it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..execution.policies import Policy
from ..execution.stragglers import Constant, Stragglers
from ..training.config import AttackConfig, Pipeline, TrainingConfig
from ..training.models import ModelConfig, feature_range
from ..training.policies import PolicySettings
from ..training.settings import from_dict
from ..training.workloads import WorkloadConfig
from .load import content_hash

SCHEMA_VERSION = 1
"""Of run.json and result.json."""


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study.

    Attributes:
        experiment: The experiment that it belongs to.
        kind: "train" or "queries".
        pipeline: "contracted" or "reference".
        config: All that decides it, as plain JSON.
    """

    experiment: str
    kind: Literal["train", "queries"]
    pipeline: Pipeline
    config: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that follow from all the rest."""
        return content_hash(self._content())

    def as_dict(self) -> dict[str, Any]:
        """The run for a JSON document."""
        return {**self._content(), "run_id": self.run_id}

    @property
    def title(self) -> str:
        """The run in a few words: what differs between the runs of an experiment."""
        config = self.config
        words = [
            self.experiment,
            f"{config['dataset']} {config['qubits']}q",
            _counted(config["cuts"], "cut"),
            f"seed {config['seed']}",
            _counted(config["workers"], "worker"),
        ]
        words += [config["policy"]] if config["policy"] != "eager" else []
        words += [f"p={config['straggler_p']:g}"] if config["straggler_p"] else []
        threads = config.get("simulator_threads", 1)
        if threads != 1:
            words.append(
                "threads as Aer chooses" if threads is None else f"{threads} threads in Aer"
            )
        words += ["deferred measurements"] if config.get("defer_measurements") else []
        return ", ".join([*words, *([self.pipeline] if self.pipeline == "reference" else [])])

    def _content(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": self.experiment,
            "kind": self.kind,
            "pipeline": self.pipeline,
            "config": dict(self.config),
        }


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def model_config(run: StudyRun) -> ModelConfig:
    """The circuit of a run."""
    return from_dict(ModelConfig, run.config["model"])


def workload_config(run: StudyRun) -> WorkloadConfig:
    """The data of a run."""
    config = run.config
    return WorkloadConfig(
        config["dataset"],
        num_features=config["qubits"],
        feature_range=feature_range(model_config(run)),
        **{name: config[name] for name in ("reduction", "samples", "test_samples", "seed")},
    )


def policy_of(run: StudyRun) -> Policy:
    """How a run hands out its tasks."""
    return from_dict(PolicySettings, run.config["policy_options"]).policy


def stragglers_of(run: StudyRun) -> Stragglers | None:
    """The delays that are injected into a run; None: none are."""
    p, delay = run.config["straggler_p"], run.config["straggler_delay"]
    return Stragglers(p, Constant(delay)) if p and delay else None


def training_config(run: StudyRun) -> TrainingConfig:
    """How a run trains."""
    same = ("cuts", "shots", "optimizer", "epochs", "batch_size", "lr", "workers", "seed", "pool")
    return TrainingConfig(
        workload=workload_config(run),
        model=model_config(run),
        pipeline=run.pipeline,
        policy=policy_of(run),
        stragglers=stragglers_of(run),
        trace=run.config["trace"],
        **{name: run.config[name] for name in same},
    )


def attack_config(run: StudyRun) -> AttackConfig | None:
    """The attacks on the network of a run once it is trained; None: none."""
    fields = run.config["robustness"]
    return None if fields is None else from_dict(AttackConfig, fields)
