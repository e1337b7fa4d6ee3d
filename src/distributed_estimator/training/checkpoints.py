"""The state of a training run in one safetensors file, which is there whole or not at all.

Tensors hold numbers (weights, what the optimiser remembers, random state); everything else is one
JSON text in the file's metadata, with a digest over both. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.load import QueryTotals
from ..errors import CheckpointError, DamagedCheckpointError
from ..records.files import atomic, refused
from ._ml import safetensors, torch
from .config import TrainingConfig
from .norm_test import NormTest
from .preprocessing import Preprocessing
from .runs import Scores
from .workloads import Workload

SCHEMA_VERSION = 1
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_NAMES, _FITTED = ("columns", "target", "bounds"), ("divisor", "matrix", "shift", "scale", "offset")
"""Of the preprocessing, in JSON and as tensors."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on: `state` is whatever JSON can hold, `tensors` numbers by name."""

    state: dict[str, Any]
    tensors: Tensors

    def save(self, path: Path, *, durable: bool = True) -> None:
        """Writes the checkpoint over the one before, which stays if anything goes wrong.

        `durable`: whether to wait until it is on the disk, where a power cut does not reach it.

        Raises:
            CheckpointError: The operating system refused (disk full, read-only folder).
        """
        metadata = {"state": self._text, "digest": self.digest}
        with (
            refused("write", path, CheckpointError),
            atomic(path, durable=durable) as unfinished,
        ):
            unfinished.write_bytes(safetensors.torch.save(self.tensors, metadata))

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return _digest(self._text, self.tensors)

    @property
    def _text(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **self.state}, allow_nan=False)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads a checkpoint and checks that it is what was written.

        Raises:
            DamagedCheckpointError: It is not what was written.
            CheckpointError: It is missing, cannot be read, or is of another version.
        """
        if not path.is_file():
            raise CheckpointError(
                f"`{path.parent}` holds no {path.name}: name the folder of a run that `dest train` "
                "began"
            )
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            text = metadata["state"]
            state = json.loads(text)
            if metadata["digest"] != _digest(text, tensors) or not isinstance(state, dict):
                raise ValueError("its digest does not match")
        except OSError as error:
            raise CheckpointError(
                f"`{path}` cannot be read ({error}): see that this process may read it"
            ) from error
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise DamagedCheckpointError(
                f"`{path}` is damaged ({error}): restore it from a copy"
            ) from error
        if state.pop("schema_version", None) != SCHEMA_VERSION:
            raise CheckpointError(
                f"`{path}` is of another version: go on with the release that wrote it"
            )
        return cls(state, tensors)


def flatten(value: Any, name: str, tensors: Tensors) -> Any:
    """Takes tensors and arrays out of nested lists and dicts, such as an optimiser's state.

    Returns what is left, for JSON: a tensor becomes {"tensor": name}, a dict a list of pairs,
    so that its keys keep their types.
    """
    if isinstance(value, np.ndarray):
        return {"array": flatten(torch.from_numpy(value), name, tensors)}
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[key, flatten(item, f"{name}.{key}", tensors)] for key, item in value.items()]
        return {"items": items}
    if isinstance(value, list | tuple):
        parts = [flatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    return value


def unflatten(value: Any, tensors: Tensors) -> Any:
    """What `flatten` took apart, put together.

    Example:
        >>> tensors = {}
        >>> left = flatten({0: [torch.ones(2), 0.5]}, "state", tensors)
        >>> unflatten(left, tensors)
        {0: [tensor([1., 1.]), 0.5]}
    """
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return unflatten(content, tensors).numpy()
    if kind == "items":
        return {key: unflatten(item, tensors) for key, item in content}
    parts = [unflatten(item, tensors) for item in content]
    return tuple(parts) if kind == "tuple" else parts


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_POSITION = ("scored", "epoch", "batch", "step", "seconds", "chosen")


@dataclass(eq=False)
class RunState:
    """A run between two steps.

    Attributes:
        data: Digest of the data.
        start: Initial weights as one vector.
        scored: Whether the initial weights have their record.
        batch: Batches finished of the epoch that has begun; `epoch` and `step` are counts, too.
        seconds: Wall time spent.
        chosen: Whether a gradient-free optimiser has made its choice.
        points: Weights that a gradient-free optimiser has asked for, in order.
        losses: The loss at each of them.
        norms: Gradient norms of the epoch that has begun.
        noise: Shots of its steps and variances of their gradients, where shots adapt.
        test: Which chooses the shots of the next step; None: they are fixed.
        scores: Of the last epoch that ended.
        run_id: The run in every record.
        sizes: Bytes of the logs when it was saved, by their names in `RunFolder`.
        num_runs: Runs the estimator has begun, which decide the noise of the next.
        totals: What its queries came to.
        classifier: Weights, and what else a head keeps, by name.
        optimizer: What a gradient optimiser remembers; None: there is none.
        priors: What was seen, by which the next shots are divided; None: they are not.
    """

    config: TrainingConfig
    data: str
    start: torch.Tensor
    scored: bool = False
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    chosen: bool = False
    points: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    noise: list[tuple[int, float]] = field(default_factory=list)
    test: NormTest | None = None
    scores: Scores = field(default_factory=Scores)
    run_id: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    num_runs: int = 0
    totals: QueryTotals = field(default_factory=QueryTotals)
    classifier: Tensors = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    priors: list[Any] | None = None
    random: torch.Tensor = field(default_factory=torch.get_rng_state)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.chosen if self.config.is_gradient_free else self.epoch >= self.config.epochs

    def save(self, path: Path, *, durable: bool) -> None:
        """Writes it as a checkpoint; see `Checkpoint.save`."""
        tensors: Tensors = {}
        numbers = {
            "start": self.start,
            "points": torch.stack(self.points) if self.points else torch.empty(0),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "norms": torch.tensor(self.norms, dtype=torch.float64),
            "scores": torch.tensor(astuple(self.scores), dtype=torch.float64),
            "random": self.random,
        }
        state = {
            "config": self.config.as_dict(),
            "data": self.data,
            "position": {name: getattr(self, name) for name in _POSITION},
            "logs": {"run_id": self.run_id, **self.sizes},
            "num_runs": self.num_runs,
            "noise": self.noise,
            "test": None if self.test is None else asdict(self.test),
            "totals": asdict(self.totals),
            "classifier": flatten(self.classifier, "classifier", tensors),
            "optimizer": flatten(self.optimizer, "optimizer", tensors),
            "priors": flatten(self.priors, "priors", tensors),
            "numbers": flatten(numbers, "numbers", tensors),
        }
        Checkpoint(state, tensors).save(path, durable=durable)

    @classmethod
    def load(cls, path: Path) -> RunState:
        """Reads it back.

        Raises:
            CheckpointError: There is no checkpoint, or it is damaged or of another version.
        """
        checkpoint = Checkpoint.load(path)
        state, tensors = checkpoint.state, checkpoint.tensors
        sizes = dict(state["logs"])
        numbers = unflatten(state["numbers"], tensors)
        return cls(
            config=TrainingConfig.from_dict(state["config"]),
            data=state["data"],
            start=numbers["start"],
            **state["position"],
            points=list(numbers["points"]),
            losses=numbers["losses"].tolist(),
            norms=numbers["norms"].tolist(),
            scores=Scores(*numbers["scores"].tolist()),
            run_id=sizes.pop("run_id"),
            sizes=sizes,
            num_runs=state["num_runs"],
            noise=state.get("noise", []),
            test=NormTest(**state["test"]) if state.get("test") else None,
            totals=QueryTotals(**state["totals"]),
            classifier=unflatten(state["classifier"], tensors),
            optimizer=unflatten(state["optimizer"], tensors),
            priors=unflatten(state.get("priors"), tensors),
            random=numbers["random"],
        )


def snapshot(workload: Workload) -> Checkpoint:
    """The samples of a run; their digest says whether others are the same."""
    state = {
        "name": workload.name,
        "classes": list(workload.classes),
        "feature_range": list(workload.feature_range),
    }
    return Checkpoint(state, {name: torch.from_numpy(getattr(workload, name)) for name in _ARRAYS})


def kept(workload: Workload) -> Checkpoint:
    """The samples and what made them, for beside the run: reductions differ by machine."""
    data, made = snapshot(workload), workload.preprocessing
    if made is None:
        return data
    state = {"preprocessing": {name: getattr(made, name) for name in _NAMES}}
    fitted = {name: getattr(made, name) for name in _FITTED}
    tensors = {
        f"preprocessing.{name}": torch.from_numpy(np.ascontiguousarray(array))
        for name, array in fitted.items()
        if array is not None
    }
    return Checkpoint(data.state | state, data.tensors | tensors)


def restored(data: Checkpoint) -> Workload:
    """The workload that `kept` was given."""
    made, names = None, data.state.get("preprocessing")
    if names is not None:
        arrays = {name: data.tensors.get(f"preprocessing.{name}") for name in _FITTED}
        made = Preprocessing(
            columns=tuple(names["columns"]),
            target=names["target"],
            bounds=tuple(names["bounds"]),
            **{name: None if array is None else array.numpy() for name, array in arrays.items()},  # type: ignore[arg-type]
        )
    return Workload(
        name=data.state["name"],
        classes=tuple(data.state["classes"]),
        feature_range=tuple(data.state["feature_range"]),
        preprocessing=made,
        **{name: data.tensors[name].numpy() for name in _ARRAYS},
    )
