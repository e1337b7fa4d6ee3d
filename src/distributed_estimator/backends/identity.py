"""What tells two samplers apart that would give other results for the same circuits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from qiskit.primitives import BaseSamplerV2

_PLAIN = "aer_simulator"
"""Aer's simulators of no device are named so, some with the method after it."""


def backend_of(sampler: BaseSamplerV2) -> Any:
    """The backend that a sampler runs on; None if it names none."""
    backend = getattr(sampler, "backend", None) or getattr(sampler, "_backend", None)
    return backend() if callable(backend) and not hasattr(backend, "target") else backend


def device_of(sampler: BaseSamplerV2) -> Any:
    """The backend with a name that a sampler runs on or simulates; None: it simulates circuits."""
    backend = backend_of(sampler)
    name = str(getattr(backend, "name", None) or _PLAIN)
    return None if name.startswith(_PLAIN) and "(" not in name else backend


def name_of(sampler: BaseSamplerV2) -> str:
    """Package and class of a sampler, and the device that it runs on or simulates.

    Example:
        >>> from qiskit.primitives import BackendSamplerV2
        >>> from qiskit.providers.fake_provider import GenericBackendV2
        >>> name_of(BackendSamplerV2(backend=GenericBackendV2(5)))
        'qiskit.BackendSamplerV2(generic_backend_5q)'
    """
    kind, device = type(sampler), device_of(sampler)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    return name if device is None else f"{name}({device.name})"


def identity_of(sampler: BaseSamplerV2, *, defer_measurements: bool) -> str:
    """A content hash of a sampler: its class, its device's name, and all options, noise included.

    What cannot be told by content is told by its `repr`, which may differ between two equal
    samplers, but hardly agree between two that differ.
    """
    kind, backend = type(sampler), backend_of(sampler)
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
    if hasattr(value, "model_dump"):  # options of the runtime's newer samplers
        value = value.model_dump()
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
