"""The state of a run in one safetensors file: there whole or not at all, and no code in it.

Tensors hold numbers (weights, what the optimiser remembers, random state); everything else is one
JSON text in the file's metadata, with a digest over both. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DamagedCheckpointError
from ..records import atomic
from ._ml import safetensors, torch

SCHEMA_VERSION = 1

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        state: Whatever JSON can hold.
        tensors: Numbers by name.
    """

    state: dict[str, Any]
    tensors: Tensors

    def save(self, path: Path, *, durable: bool = True) -> None:
        """Writes the checkpoint over the one before, which stays if anything goes wrong.

        `durable`: whether to wait until it is on the disk, where a power cut does not reach it.

        Raises:
            CheckpointError: The operating system refused (disk full, read-only folder).
        """
        text = self._text
        metadata = {"state": text, "digest": _digest(text, self.tensors)}
        try:
            with atomic(path, durable=durable) as unfinished:
                unfinished.write_bytes(safetensors.torch.save(self.tensors, metadata))
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror}") from error

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
            sound = metadata["digest"] == _digest(text, tensors)
        except OSError as error:
            raise CheckpointError(
                f"`{path}` cannot be read ({error}): see that this process may read it"
            ) from error
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise DamagedCheckpointError(
                f"`{path}` is damaged ({error}): restore it from a copy"
            ) from error
        if not sound or not isinstance(state, dict):
            raise DamagedCheckpointError(
                f"`{path}` is damaged (its digest does not match): restore it from a copy"
            )
        if state.pop("schema_version", None) != SCHEMA_VERSION:
            raise CheckpointError(
                f"`{path}` is of another version: go on with the release that wrote it"
            )
        return cls(state, tensors)


def flatten(value: Any, name: str, tensors: Tensors) -> Any:
    """Takes the tensors out of nested lists and dicts, such as an optimiser's state.

    Returns what is left, for JSON: a tensor becomes {"tensor": name}, a dict a list of pairs,
    so that its keys keep their types.
    """
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
