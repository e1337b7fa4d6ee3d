"""Where something runs that several devices could: on the one that is done with it first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from qiskit.transpiler import Target

from ..cutting import Operation
from ..subexperiments import Backend, FragmentExperiment

_MOST_CIRCUITS = 1e100
"""Circuits that are counted; sums of more would be infinite."""
_TWO_QUBIT_GATES = {2: 1, 3: 6}
"""Of an operation on so many qubits, as a device has it."""


class Server(Protocol):
    """Something that a job can be sent to."""

    def takes(self, circuits: int) -> bool:
        """Whether a job of so many circuits may be sent there."""

    def estimate(self, circuits: int, shots: int, now: float) -> float:
        """When a job that is sent now should be back."""


ServerT = TypeVar("ServerT", bound=Server)


def soonest(devices: Iterable[ServerT], circuits: int, shots: int, now: float) -> ServerT | None:
    """The device that should have a job back first; None: none takes it.

    Of several that should have it back at the same time, it is the first.
    """
    able = (device for device in devices if device.takes(circuits))
    return min(able, key=lambda device: device.estimate(circuits, shots, now), default=None)


@dataclass(frozen=True)
class Candidate:
    """A device as the router sees it, for one fragment; circuits are the unit of time."""

    able: bool
    ready: float

    def takes(self, circuits: int) -> bool:
        """See `Server`."""
        return self.able

    def estimate(self, circuits: int, shots: int, now: float) -> float:
        """See `Server`."""
        return now + self.ready


def work_of(circuits: int, noise: float) -> float:
    """Circuits that take as long, without noise."""
    return float(min(circuits, _MOST_CIRCUITS)) * math.exp(min(2 * noise, 100.0))


def expected_noise(experiment: FragmentExperiment, backend: Backend) -> float:
    """Sum of -log(1 - error) over the gates and measurements of a fragment's circuits, roughly.

    Errors are the medians over the qubits of the backend's target; gates count as the fragment has
    them, one of three qubits as six of two. 0 where there is no target, or it names no errors.
    """
    errors = _median_errors(getattr(backend, "target", None))
    if errors is None:
        return 0.0
    one, two, measured = errors
    fragment, total = experiment.fragment, 0.0
    for step in fragment.steps:
        if not isinstance(step, Operation):
            total += measured + one
        elif step.kind == "gate":
            width = len(step.qubits)
            total += one if width == 1 else two * _TWO_QUBIT_GATES.get(width, 6 * width)
    return total + measured * fragment.num_qubits


def _median_errors(target: Target | None) -> tuple[float, float, float] | None:
    """-log(1 - error) of a gate on one qubit, on two, and of a measurement; NaN is no error."""
    if target is None:
        return None
    found: dict[object, list[float]] = {1: [], 2: [], "measure": []}
    for name in target.operation_names:
        for qubits, properties in (target[name] or {}).items():
            error = getattr(properties, "error", None)
            kind = "measure" if name == "measure" else len(qubits or ())
            if (
                error is not None
                and error >= 0
                and kind in found
                and name not in ("delay", "reset", "id")
            ):
                found[kind].append(-math.log1p(-min(error, 1 - 1e-9)))
    one, two, measured = (float(np.median(own)) if own else 0.0 for own in found.values())
    return one, two, measured
