"""Which device a job goes to."""

from __future__ import annotations

from collections.abc import Sequence

from .device import SimulatedQPU


def soonest(
    devices: Sequence[SimulatedQPU], circuits: int, shots: int, now: float
) -> SimulatedQPU | None:
    """The device that should have a job back first; None: it is too large for all of them.

    Rate limits, queues, calibrations, latency and speed count, as `SimulatedQPU.estimate` sees
    them. Of several that should have it back at the same time, it is the first.

    Args:
        devices: To choose from.
        circuits: Circuits of the job, each binding counting.
        shots: Shots of each.
        now: The time.
    """
    able = (device for device in devices if device.takes(circuits))
    return min(able, key=lambda device: device.estimate(circuits, shots, now), default=None)
