"""What a sampler is: its device, name, options and limits."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from qiskit.primitives import BaseSamplerV2, StatevectorSampler

from .seeds import comes_from

_PLAIN = "aer_simulator"
"""Aer's simulators of no device are named so, some with the method after it."""


def limit_of(sampler: BaseSamplerV2, name: str) -> int | None:
    """What a device says that it takes at most; older ones in their configuration."""
    backend = device_of(sampler)
    found = getattr(backend_of(sampler), name, None)
    if found is None and backend is not None and not comes_from(backend, "qiskit_aer"):
        configuration = getattr(backend, "configuration", None)
        found = getattr(configuration() if callable(configuration) else None, name, None)
    return found


def known_as(device: Any, name: str) -> str | None:
    """What tells a device that a service has from all others; None: no service has it.

    Names alone do not: two instances, or two services, may have devices of one name.
    """
    kind = type(device)
    simulated = any("fake_provider" in own.__module__ for own in kind.__mro__)
    if simulated or not getattr(device, "name", None) or getattr(device, "service", None) is None:
        return None
    content = [kind.__module__, kind.__qualname__, getattr(device, "_instance", None)]
    return f"{name} {hashlib.sha256(as_text(content).encode()).hexdigest()[:8]}"


def is_noiseless(sampler: BaseSamplerV2) -> bool:
    """Whether a sampler is a simulator without noise."""
    if isinstance(sampler, StatevectorSampler):
        return True
    backend: Any = getattr(sampler, "_backend", None)
    if not comes_from(backend, "qiskit_aer"):
        return False
    options = getattr(sampler, "options", None)
    return not (
        (getattr(options, "run_options", None) or {}).get("noise_model")
        or getattr(getattr(options, "simulator", None), "noise_model", None)
        or getattr(backend.options, "noise_model", None)
    )


def on_one_thread(sampler: BaseSamplerV2) -> BaseSamplerV2:
    """Aer's sampler with one thread a worker, unless its options say otherwise.

    On many small circuits Aer's own threads cost more than they gain.
    """
    if not comes_from(sampler, "qiskit_aer") or "max_parallel_threads" in {
        **sampler.options.backend_options,
        **sampler.options.run_options,
    }:
        return sampler
    fresh = copy.copy(sampler)
    fresh._options = copy.copy(sampler.options)
    fresh._options.run_options = {"max_parallel_threads": 1, **sampler.options.run_options}
    return fresh


def backend_of(sampler: BaseSamplerV2) -> Any:
    """The backend that a sampler runs on; None if it names none."""
    backend = getattr(sampler, "backend", None) or getattr(sampler, "_backend", None)
    # Of its class, as a device's own may have to be asked for.
    return backend() if callable(backend) and not hasattr(type(backend), "target") else backend


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


def as_text(value: Any) -> str:
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
        # Aer gives each error of a noise model a number that no other has, and the environment of
        # a job (its tags, how much is logged) changes no result.
        names = sorted((key for key in value if key not in ("id", "environment")), key=str)
        return f"{{{', '.join(f'{name}: {as_text(value[name])}' for name in names)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_text, value))}]"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)
