"""Which device a job goes to."""

from __future__ import annotations

from collections.abc import Sequence

from .device import SimulatedQPU


def ranking(
    devices: Sequence[SimulatedQPU], circuits: int, shots: int, now: float
) -> list[SimulatedQPU]:
    """The devices that take a job, the one that should have it back first in front.

    Queues, calibrations, latency and speed count, as `SimulatedQPU.estimate` sees them. Where
    several should have it back at the same time, they keep their order.

    Args:
        devices: To choose from.
        circuits: Circuits of the job, each binding counting.
        shots: Shots of each.
        now: The time.
    """
    able = [device for device in devices if device.takes(circuits)]
    return sorted(able, key=lambda device: device.estimate(circuits, shots, now))
