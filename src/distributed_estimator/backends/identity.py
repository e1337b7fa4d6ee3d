"""What tells two samplers apart that would give other results for the same circuits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from qiskit.primitives import BaseSamplerV2


def identity_of(sampler: BaseSamplerV2, *, defer_measurements: bool) -> str:
    """A content hash of a sampler: its class, its device's name, and all options, noise included.

    What cannot be told by content is told by its `repr`, which may differ between two equal
    samplers, but hardly agree between two that differ.
    """
    backend = getattr(sampler, "backend", None) or getattr(sampler, "_backend", None)
    if callable(backend) and not hasattr(backend, "options"):
        backend = backend()
    kind = type(sampler)
    content = [
        f"{kind.__module__}.{kind.__qualname__}",
        defer_measurements,
        getattr(backend, "name", None),
        getattr(backend, "options", None),
        getattr(sampler, "options", None),
    ]
    return hashlib.sha256(_told(content).encode()).hexdigest()[:32]


def _told(value: Any) -> str:
    """A value as text, the same for equal ones in any process wherever that can be had."""
    if hasattr(value, "to_dict"):  # a noise model
        value = value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if not isinstance(value, Mapping) and hasattr(value, "_fields"):  # options of a Qiskit backend
        value = dict(value._fields)
    if isinstance(value, Mapping):
        # Aer gives each error of a noise model a number that no other has.
        names = sorted((key for key in value if key != "id"), key=str)
        return f"{{{', '.join(f'{name}: {_told(value[name])}' for name in names)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)
