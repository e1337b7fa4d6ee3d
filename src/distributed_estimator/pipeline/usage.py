"""What each device did for a run, and what its calibration took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class DeviceUse:
    """What a device did for a run; what a journal knew does not count.

    Attributes:
        fragments: Numbers of the fragments that ran on it.
        jobs: Tasks whose results came from it, which are a job each, unless a sampler takes one
            number of shots a job.
        circuits: Circuits of these, each binding counting.
        shots: Shots of these.
        calibration_shots: Shots that calibrated its readout.
        calibrated_at: When the oldest of what is known of its readout was measured, ISO-8601, UTC;
            None: it was not asked for.
    """

    fragments: set[int] = field(default_factory=set)
    jobs: int = 0
    circuits: int = 0
    shots: int = 0
    calibration_shots: int = 0
    calibrated_at: str | None = None

    def add(self, other: DeviceUse) -> None:
        """Count what it did besides."""
        self.fragments |= other.fragments
        self.jobs += other.jobs
        self.circuits += other.circuits
        self.shots += other.shots
        self.calibration_shots += other.calibration_shots
        self.calibrated_before(other.calibrated_at)

    def calibrated_before(self, at: str | None) -> None:
        """Note when something was calibrated that is in use."""
        times = [own for own in (self.calibrated_at, at) if own is not None]
        self.calibrated_at = min(times, default=None)


@dataclass
class Uses:
    """What several devices did, by name."""

    each: dict[str, DeviceUse] = field(default_factory=dict)

    def of(self, device: str) -> DeviceUse:
        """What a device did."""
        return self.each.setdefault(device, DeviceUse())

    def add(self, others: Iterable[Uses]) -> None:
        """Count what they did besides."""
        for other in others:
            for name, own in other.each.items():
                self.of(name).add(own)

    @property
    def as_dicts(self) -> list[dict[str, Any]]:
        """Fields of each device, its name first, for metadata."""
        return [
            {"device": name, **vars(own), "fragments": sorted(own.fragments)}
            for name, own in sorted(self.each.items())
        ]
