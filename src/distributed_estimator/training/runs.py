"""What a training run is asked to do, what it came to, and the folder that keeps it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ..analysis.load import QueryTotals
from ..errors import InputError
from ..records import QueryRecord, decode

Optimizer = Literal["adam", "cobyla"]
Pipeline = Literal["contracted", "reference"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Runs that differ in `cuts` alone see the same data and initial weights.

    Attributes:
        cuts: Places where the chain of qubits is cut.
        shots: Shots a subexperiment; None: exact values.
        maxiter: Adam steps, or COBYLA evaluations.
        workers: Size of the thread pool.
        optimizer: "adam" (full batch, fragment-local gradients) or "cobyla" (no gradients).
        lr: Learning rate of Adam; COBYLA has none.
        seed: Of the split, the initial weights and the shots.
        setting_basis: "full" or "minimal" (DistributedEstimator only).
        pipeline: "contracted" for DistributedEstimator, "reference" for the paper's own.
    """

    cuts: int = 0
    shots: int | None = 1024
    maxiter: int = 60
    workers: int = 8
    optimizer: Optimizer = "adam"
    lr: float = 0.1
    seed: int = 7
    setting_basis: Literal["full", "minimal"] = "full"
    pipeline: Pipeline = "contracted"

    def __post_init__(self) -> None:
        for name, least in (("cuts", 0), ("maxiter", 1), ("workers", 1), ("seed", 0)):
            _check_least(name, getattr(self, name), least)
        if self.shots is not None:
            _check_least("shots", self.shots, 1)
        _check_choice("optimizer", self.optimizer, ("adam", "cobyla"))
        _check_choice("setting_basis", self.setting_basis, ("full", "minimal"))
        _check_choice("pipeline", self.pipeline, ("contracted", "reference"))
        if self.seed >= 2**32:
            raise InputError(f"`seed` is {self.seed}: give a number below 2**32")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"`lr` is {self.lr}: give a positive learning rate, such as 0.1")
        if self.pipeline == "reference" and self.shots is None:
            raise InputError("the reference pipeline has no exact values: give `shots`")


@dataclass(frozen=True)
class Scores:
    """How well some weights do on a workload.

    Attributes:
        loss: Mean squared error on the training part, targets ±1.
        train_accuracy: Share of training samples on the right side of 0.
        test_accuracy: The same for the test part.
    """

    loss: float
    train_accuracy: float
    test_accuracy: float


@dataclass
class QueryMeter:
    """Follows a query log while it grows.

    Attributes:
        path: The log.
        totals: What its records came to when it was last read.
        run_id: The run that they belong to; empty before the first.
    """

    path: Path
    totals: QueryTotals = field(default_factory=QueryTotals)
    run_id: str = ""
    _position: int = 0

    def read(self) -> QueryTotals:
        """Reads what was appended since last time and returns the totals."""
        with self.path.open("rb") as log:
            log.seek(self._position)
            for line in log:
                record = decode(line)
                if isinstance(record, QueryRecord):
                    self.run_id = record.run_id
                    self.totals += QueryTotals.of([record])
            self._position = log.tell()
        return self.totals


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Logs grow line by line; the rest appears whole or not at all."""

    path: Path

    @property
    def queries(self) -> Path:
        """Query records."""
        return self.path / "queries.jsonl"

    @property
    def training(self) -> Path:
        """Training records."""
        return self.path / "training.jsonl"

    @property
    def weights(self) -> Path:
        """Initial and final weights by parameter name."""
        return self.path / "weights.json"

    @property
    def summary(self) -> Path:
        """Configuration, final scores and totals."""
        return self.path / "summary.json"

    @property
    def figure(self) -> Path:
        """Where a figure of the run belongs."""
        return self.path / "training.png"

    def check_free(self) -> Self:
        """Returns itself if no run is in the folder; makes nothing.

        Raises:
            InputError: If the path is a file, cannot be written, or holds another run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"`{self.path}` is a file: name a folder for the run")
        files = (self.queries, self.training, self.weights, self.summary, self.figure)
        found = [file.name for file in files if file.exists()]
        if found:
            raise InputError(
                f"`{self.path}` already holds a run ({', '.join(found)}): name another folder, or "
                f"remove this one"
            )
        nearest = next(
            place for place in (self.path, *self.path.absolute().parents) if place.exists()
        )
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            raise InputError(f"`{self.path}` cannot be made: `{nearest}` is no folder to write to")
        return self


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        workload: Name of the task.
        config: How it was trained.
        label: The partition label; None: not cut.
        run_id: The run in its records.
        final: Scores of the final weights.
        seconds: Wall time from the first query to the last, evaluation included.
        totals: What its queries cost.
        folder: Where its files are.
    """

    workload: str
    config: TrainingConfig
    label: str | None
    run_id: str
    final: Scores
    seconds: float
    totals: QueryTotals
    folder: RunFolder

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON document, without the place of its files."""
        fields = asdict(self)
        del fields["folder"]
        return {"schema_version": 1, **fields}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON file that is there whole or not at all, even if the program dies meanwhile."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_least(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise InputError(f"`{name}` is {value!r}: give a whole number of at least {least}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"`{name}` is {value!r}: give one of {', '.join(choices)}")
