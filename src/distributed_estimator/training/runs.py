"""The folder that keeps a training run, and what the run came to."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from ..analysis.load import QueryTotals
from ..errors import CheckpointError, DistributedEstimatorError, InputError
from ..records import QueryRecord, RecordWriter, decode, given_path
from ..records.files import hold_folder
from ..records.files import write_json as write_json
from .config import TASK_LOG, TrainingConfig


@dataclass(frozen=True)
class Scores:
    """How well some weights do: mean loss over the training part, shares on the right side of 0."""

    loss: float = math.nan
    train_accuracy: float = math.nan
    test_accuracy: float = math.nan


@dataclass
class QueryMeter:
    """Follows a query log while it grows; `position` is how many bytes were read so far."""

    path: Path
    totals: QueryTotals = field(default_factory=QueryTotals)
    position: int = 0

    def read(self) -> QueryTotals:
        """Reads what was appended since last time and returns the totals."""
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self.position)
                records = [decode(line) for line in log]
                self.position = log.tell()
            self.totals += QueryTotals.of(r for r in records if isinstance(r, QueryRecord))
        return self.totals


class File:
    """A file of a folder that has a `path`, by its name there."""

    def __init__(self, name: str, about: str) -> None:
        self._name = name
        self.__doc__ = about

    def __get__(self, folder: Any, kind: Any = None) -> Path:
        return Path(self._name if folder is None else folder.path / self._name)


@contextmanager
def held(
    lock: Path, taken: str, kind: type[DistributedEstimatorError], remedy: str
) -> Iterator[None]:
    """Keeps other processes out of a lock file's folder, which is made if need be.

    Raises an error of that kind, with the message `taken` where another process is in the folder,
    and the remedy where it cannot be written.
    """
    try:
        file = hold_folder(lock)
    except OSError as error:
        raise kind(f"`{lock.parent}` cannot be written ({error.strerror}): {remedy}") from error
    if file is None:
        raise kind(taken)
    with file:
        yield


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Logs grow line by line; the rest appears whole or not at all.

    The hash of the run's configuration and the number of the attempt go into the headers of its
    logs, where they are known.
    """

    path: Path
    config_hash: str | None = None
    attempt: int | None = None

    queries = File("queries.jsonl", "Query records.")
    training = File("training.jsonl", "Training records.")
    tasks = File(TASK_LOG, "Task records, where they are kept.")
    trace = File("trace.json", "The same for chrome://tracing and Perfetto.")
    checkpoint = File("checkpoint.safetensors", "The state to go on from.")
    data = File("data.safetensors", "The samples, as they were split and scaled.")
    weights = File("weights.json", "Initial and final weights by parameter name.")
    summary = File("summary.json", "Configuration, final scores and totals.")
    figure = File("training.png", "The figure of the run.")
    lock = File(".dest-lock", "Held by the process that trains here; empty.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", given_path(self.path))

    def writer(self, path: Path) -> RecordWriter:
        """Appends to a log of the run, under a header that says which run and attempt it is."""
        return RecordWriter(path, config_hash=self.config_hash, attempt=self.attempt)

    def check_free(self) -> Self:
        """Returns itself if no run is in the folder; makes nothing.

        Raises:
            InputError: If the path is a file, cannot be written, or holds another run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"`{self.path}` is a file: name a folder for the run")
        found = [file.name for file in self.files() if file.exists()]
        if found:
            raise InputError(
                f"`{self.path}` already holds a run ({', '.join(found)}): name another folder, "
                f"remove this one, or go on with it: dest train --resume {self.path}"
            )
        nearest = next(
            place for place in (self.path, *self.path.absolute().parents) if place.exists()
        )
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            raise InputError(f"`{self.path}` cannot be made: `{nearest}` is no folder to write to")
        return self

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in the folder, which is made if need be.

        Raises:
            CheckpointError: Another process trains there, or the folder cannot be written.
        """
        taken = f"another process trains in `{self.path}`: wait for it, or name another folder"
        with held(self.lock, taken, CheckpointError, "give a run a folder of its own"):
            yield

    def missing(self) -> list[Path]:
        """Folders that have to be made for the run, the innermost first."""
        path = self.path.absolute()
        return [place for place in (path, *path.parents) if not place.exists()]

    def clear(self, made: Sequence[Path]) -> None:
        """Removes the run's files, and those of the folders in `made` that are empty then."""
        for file in (*self.files(), self.lock):
            file.unlink(missing_ok=True)
        for place in made:
            with suppress(OSError):
                place.rmdir()

    def files(self) -> tuple[Path, ...]:
        """What a run writes, whether it is there or not; its lock left out."""
        logs = (self.queries, self.training, self.tasks)
        ends = (self.weights, self.summary, self.figure, self.trace)
        return (*logs, self.data, self.checkpoint, *ends)


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        label: The partition label; None: not cut by label.
        num_weights: Weights that were trained, those of a head included.
        seconds: Wall time of training, evaluation included, over all sessions of the run.
        totals: What its queries cost.
    """

    workload: str
    config: TrainingConfig
    label: str | None
    num_qubits: int
    num_weights: int
    run_id: str
    final: Scores
    seconds: float
    totals: QueryTotals
    folder: RunFolder

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON document, without the place of its files."""
        fields = asdict(self)
        del fields["folder"]
        return {"schema_version": 2, **fields, "config": self.config.as_dict()}
