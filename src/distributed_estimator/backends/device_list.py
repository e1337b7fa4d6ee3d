"""What a list of devices is made of, and what can be known of each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
from qiskit.primitives import (
    BackendSamplerV2,
    BaseEstimatorV1,
    BaseEstimatorV2,
    BaseSamplerV1,
    BaseSamplerV2,
)
from qiskit.providers import BackendV2

from ..checks import described
from ..errors import InputError, MissingExtraError
from ..subexperiments import Backend, FragmentExperiment, Mitigation, NoisyBackend, Readout
from .sampler import SamplerBackend
from .samplers import backend_of
from .seeds import comes_from
from .statevector import StatevectorBackend

_MOST_BYTES = 1 << 30
"""Memory of a fragment that the local simulator takes where another device may have it."""
_INSTEAD = (
    (
        str,
        "give the device itself, such as AerSimulator() or "
        'QiskitRuntimeService().backend("ibm_…"); the local simulator is None',
    ),
    (
        BaseEstimatorV1 | BaseEstimatorV2,
        "fragments need a sampler; give that of the same device, such as qiskit_aer's "
        "SamplerV2.from_backend(AerSimulator())",
    ),
    (
        BaseSamplerV1,
        "its interface is that of Qiskit 1; give a sampler of the second version, such as "
        "qiskit_aer's SamplerV2()",
    ),
)
"""What to give in the place of things that are no backends, and are often taken for one."""
_ONE_OF_THEM = "give one of the devices that its `backends()` lists"
_ANY = (
    "give an instance of any Qiskit BaseSamplerV2 or backend, or StatevectorBackend() for the "
    "local simulator"
)


def backend_from(item: object, what: str = "`backend` is") -> Backend:
    """A backend of this package from a sampler, a backend of Qiskit, or one of this package.

    Errors begin with `what` the item is.

    Raises:
        InputError: It is none of them.
    """
    if isinstance(item, BaseSamplerV2):
        return SamplerBackend(item)
    if isinstance(item, BackendV2):
        return SamplerBackend(_sampler_of(item))
    if isinstance(item, type) or not hasattr(item, "expected_seconds"):
        raise InputError(f"{what} {described(item)}: {_remedy(item)}")
    found: Any = item
    return cast(Backend, found)


def _remedy(item: object) -> str:
    """What to give in the place of something that is no backend."""
    if isinstance(item, type):
        return _ANY
    otherwise = _ONE_OF_THEM if callable(getattr(item, "backends", None)) else _ANY
    return next((text for kinds, text in _INSTEAD if isinstance(item, kinds)), otherwise)


def _sampler_of(backend: BackendV2) -> BaseSamplerV2:
    """What runs circuits on a backend; raises `MissingExtraError` for a simulated one without Aer.

    Aer is many times faster than such a backend's own `run`, which leaves out noise without it.
    """
    if hasattr(backend, "service"):  # of an account, which runs primitives only
        try:
            from qiskit_ibm_runtime.executor_sampler import Sampler
        except ImportError:  # before 0.50
            from qiskit_ibm_runtime import SamplerV2 as Sampler
        found: BaseSamplerV2 = Sampler(mode=backend)
        return found
    if comes_from(backend, "qiskit_aer") or comes_from(backend, "qiskit_ibm_runtime"):
        try:
            from qiskit_aer.primitives import SamplerV2
        except ImportError as error:
            raise MissingExtraError("qiskit-aer", "aer", "a simulated device") from error
        found = SamplerV2.from_backend(backend)
        return found
    return BackendSamplerV2(backend=backend)


def devices_from(items: object) -> tuple[Backend, ...]:
    """Backends of a list of devices; raises `InputError` where one is none, or comes twice."""
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise InputError(f"`devices` is {described(items)}: give a list of samplers or backends")
    found: list[Backend] = []
    seen: list[object] = []
    for item in items:
        device = backend_from(item, "the list of devices holds")
        inner = getattr(device, "sampler", device)
        if any(inner is other or item is other for other in seen):
            raise InputError(
                f"the device {device.name} comes twice in the list: give each once, and as many "
                "`workers` as jobs are to be under way"
            )
        seen += [inner, item]
        found.append(device)
    if not found:
        raise InputError(
            "the list of devices is empty: give at least one sampler or backend, or "
            "backend=None for the statevector simulator"
        )
    return tuple(found)


def apart(names: Iterable[str]) -> Iterator[str]:
    """Names with a number where they come again."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} #{seen[name]}"


def mitigated_device(name: str, device: Backend, mitigation: Mitigation, factor: int) -> Backend:
    """A device that is mitigated; raises `InputError` where nothing can be done about its noise."""
    if isinstance(device, StatevectorBackend):
        return device
    if isinstance(device, NoisyBackend):
        return device.mitigated(mitigation, factor)
    raise InputError(
        f"`mitigation` is set, and the device {name} can do nothing about its noise: take it out "
        "of the list, or give a sampler"
    )


def perfect_readout(name: str, experiment: FragmentExperiment) -> Readout:
    """That of a simulator without noise."""
    fragment, none = experiment.fragment, np.zeros(experiment.fragment.num_qubits)
    qubits, settings = np.arange(fragment.num_qubits), experiment.layout.num_settings
    slots = np.array([slot.qubit for slot in fragment.slots], dtype=np.int64)
    return Readout(
        *(name, qubits, none, none),
        observed=np.tile(qubits, (settings, 1)),
        slots=np.tile(slots, (settings, 1)),
    )


def has_service(device: Any) -> bool:
    """Whether its jobs go to a service."""
    return bool(getattr(device, "has_service", False))


def is_wide(device: Backend, experiment: FragmentExperiment) -> bool:
    """Whether a fragment has no more qubits than a device."""
    most = device.max_qubits
    return most is None or experiment.fragment.num_qubits <= most


def is_heavy(device: Backend, experiment: FragmentExperiment) -> bool:
    """Whether the local simulator had better leave a fragment to others, for its memory."""
    if not isinstance(device, StatevectorBackend):
        return False
    # Angles of no particular kind: others might be simulated as a Clifford circuit.
    angles = np.full((1, len(experiment.fragment.angles)), 0.5)
    return device.row_bytes(experiment, angles, 1) > (device.memory_limit or _MOST_BYTES)


def pending_of(device: Backend) -> int:
    """Jobs that wait there, as it reports; 0 where it does not."""
    try:
        return int(_backend_of(device).status().pending_jobs)
    except Exception:
        return 0


def is_offline(device: Backend) -> bool:
    """Whether a device reports that it is; no report is none."""
    try:
        return _backend_of(device).status().operational is False
    except Exception:
        return False


def _backend_of(device: Backend) -> Any:
    return backend_of(device.sampler) if isinstance(device, SamplerBackend) else None
