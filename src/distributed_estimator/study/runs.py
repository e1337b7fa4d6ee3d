"""A run of a study: what it is, under a content hash, and the configurations it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..execution.policies import (
    Batches,
    ByLabel,
    Eager,
    Fifo,
    LargestInfluenceFirst,
    LongestFirst,
    Policy,
    Speculation,
    TaskOrder,
)
from ..execution.stragglers import Constant, Stragglers
from ..training.attacks import AttackConfig
from ..training.config import TrainingConfig
from ..training.models import ModelConfig, feature_range
from ..training.workloads import WorkloadConfig
from .load import content_hash

SCHEMA_VERSION = 1
"""Of run.json and result.json."""

ORDERS: Mapping[str, TaskOrder] = {
    "fifo": Fifo(),
    "label": ByLabel(),
    "longest": LongestFirst(),
    "influence": LargestInfluenceFirst(),
}


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
    pipeline: Literal["contracted", "reference"]
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
        words += _variant_words(config)
        return ", ".join([*words, *([self.pipeline] if self.pipeline == "reference" else [])])

    def _content(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": self.experiment,
            "kind": self.kind,
            "pipeline": self.pipeline,
            "config": dict(self.config),
        }


def _variant_words(config: Mapping[str, Any]) -> list[str]:
    """How single queries are simulated, where it is not with one thread as they stand."""
    threads = config.get("simulator_threads", 1)
    words = ["threads as Aer chooses" if threads is None else f"{threads} threads in Aer"]
    words = [] if threads == 1 else words
    return [*words, "deferred measurements"] if config.get("defer_measurements") else words


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def model_config(run: StudyRun) -> ModelConfig:
    """The circuit of a run."""
    return ModelConfig(**run.config["model"])


def workload_config(run: StudyRun) -> WorkloadConfig:
    """The data of a run."""
    config = run.config
    return WorkloadConfig(
        config["dataset"],
        num_features=config["qubits"],
        reduction=config["reduction"],
        samples=config["samples"],
        test_samples=config["test_samples"],
        feature_range=feature_range(model_config(run)),
        seed=config["seed"],
    )


def policy_of(run: StudyRun) -> Policy:
    """How a run hands out its tasks."""
    options = run.config["policy_options"]
    speculation = options["speculation"]
    batches = options["dispatch"] == "batches"
    return Policy(
        dispatch=Batches(options["size"], options["delay"] or 0.0) if batches else Eager(),
        order=ORDERS[options["order"]],
        speculation=None if speculation is None else Speculation(**speculation),
        subexperiments=options["subexperiments"],
    )


def stragglers_of(run: StudyRun) -> Stragglers | None:
    """The delays that are injected into a run; None: none are."""
    p, delay = run.config["straggler_p"], run.config["straggler_delay"]
    return Stragglers(p, Constant(delay)) if p and delay else None


def training_config(run: StudyRun) -> TrainingConfig:
    """How a run trains."""
    config = run.config
    return TrainingConfig(
        workload=workload_config(run),
        model=model_config(run),
        cuts=config["cuts"],
        shots=config["shots"],
        optimizer=config["optimizer"],
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        lr=config["lr"],
        workers=config["workers"],
        seed=config["seed"],
        pipeline=run.pipeline,
        pool=config["pool"],
        policy=policy_of(run),
        stragglers=stragglers_of(run),
        trace=config["trace"],
    )


def attack_config(run: StudyRun) -> AttackConfig | None:
    """What is measured once a run is trained; None: nothing."""
    fields = run.config["robustness"]
    if fields is None:
        return None
    lists: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return AttackConfig(**lists)
