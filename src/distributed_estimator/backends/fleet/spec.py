"""What a simulated device is like: numbers only, checked where they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...checks import check_whole, is_number
from ...errors import InputError


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pauses in which no job starts; one that runs when a pause begins is finished.

    Attributes:
        every: Seconds from the beginning of a pause to that of the next.
        seconds: How long a pause is, less than `every`.
        first: When the first pause begins, in seconds on the fleet's clock; None: after `every`.

    Example:
        >>> pauses = Calibration(every=100.0, seconds=10.0)
        >>> pauses.earliest_start(99.0), pauses.earliest_start(103.0)
        (99.0, 110.0)
    """

    every: float
    seconds: float
    first: float | None = None

    def __post_init__(self) -> None:
        _check_number("every", self.every, positive=True)
        _check_number("seconds", self.seconds, positive=True)
        if self.first is not None:
            _check_number("first", self.first)
        if self.seconds >= self.every:
            raise InputError(
                f"a calibration takes {self.seconds} seconds every {self.every}: make it shorter, "
                "so that jobs can start in between"
            )

    def earliest_start(self, at: float) -> float:
        """When a job can start that could otherwise start `at`."""
        first = self.every if self.first is None else self.first
        begin = first + self.every * math.floor((at - first) / self.every)
        end = begin + self.seconds
        return end if first <= at < end else at


@dataclass(frozen=True, slots=True)
class Background:
    """Other users' jobs: Poisson arrivals, exponential service times.

    Attributes:
        rate: Jobs that arrive per second, on average.
        seconds: Mean service time of one.
    """

    rate: float
    seconds: float

    def __post_init__(self) -> None:
        _check_number("rate", self.rate, positive=True)
        _check_number("seconds", self.seconds, positive=True)

    @property
    def utilisation(self) -> float:
        """The part of a device's time that these jobs take."""
        return self.rate * self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device that runs one job after the other. Times are seconds.

    A job of c circuits with s shots each takes seconds_per_job + c (seconds_per_circuit +
    s seconds_per_shot), and the network's latency before and after.

    Attributes:
        name: For records; part of what the device's random numbers derive from.
        seconds_per_job: Fixed overhead.
        seconds_per_shot: For one shot of one circuit.
        seconds_per_circuit: Fixed overhead of a circuit.
        latency: Mean time on the way there, and again back.
        jitter: Standard deviation of the latency's logarithm (it is lognormal); 0: always the mean.
        rate_limit: Jobs per second that it takes from us, by a token bucket; None: any.
        burst: Jobs that the bucket lets through at once after a rest.
        most_circuits: Largest job, a circuit with each of its bindings counting; None: any.
        calibration: Pauses; None: never.
        background: Other users' jobs in the same queue; None: none.
        failure_probability: Of every job, on its own. One that fails takes its full time.
        seed: Of everything random on this device.

    Raises:
        InputError: A value is out of range, or other users leave the device no time.

    Example:
        >>> spec = DeviceSpec(name="north", seconds_per_job=2, seconds_per_shot=1e-3, latency=0.1)
        >>> spec.service_seconds(circuits=10, shots=100)
        3.0
    """

    name: str
    seconds_per_job: float
    seconds_per_shot: float
    seconds_per_circuit: float = 0.0
    latency: float = 0.0
    jitter: float = 0.0
    rate_limit: float | None = None
    burst: int = 1
    most_circuits: int | None = None
    calibration: Calibration | None = None
    background: Background | None = None
    failure_probability: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_name(self.name)
        for name in ("seconds_per_job", "seconds_per_shot", "seconds_per_circuit"):
            _check_number(name, getattr(self, name))
        _check_number("latency", self.latency)
        _check_number("jitter", self.jitter)
        if self.rate_limit is not None:
            _check_number("rate_limit", self.rate_limit, positive=True)
        check_whole("burst", self.burst, 1)
        if self.most_circuits is not None:
            check_whole("most_circuits", self.most_circuits, 1)
        check_whole("seed", self.seed, 0)
        _check_number("failure_probability", self.failure_probability)
        if self.failure_probability > 1:
            raise InputError(
                f"`failure_probability` is {self.failure_probability}: give a number from 0 to 1"
            )
        self._check_load()

    def _check_load(self) -> None:
        for name, kind in (("calibration", Calibration), ("background", Background)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InputError(f"`{name}` is {value!r}: give a `{kind.__name__}`, or None")
        others = self.background.utilisation if self.background else 0.0
        paused = self.calibration.seconds / self.calibration.every if self.calibration else 0.0
        if others + paused >= 1:
            raise InputError(
                f"on {self.name!r} other users take {others:.3g} of the time and calibrations "
                f"{paused:.3g}: together they must be less than 1, or its queue grows for ever"
            )

    def service_seconds(self, circuits: int, shots: int) -> float:
        """How long the device is busy with a job of so many circuits, with so many shots each."""
        per_circuit = self.seconds_per_circuit + shots * self.seconds_per_shot
        return self.seconds_per_job + circuits * per_circuit


def homogeneous(count: int, name: str = "qpu", **fields: Any) -> tuple[DeviceSpec, ...]:
    """Devices that differ in their names, and so in their random numbers, alone.

    Args:
        count: How many.
        name: Their names are this with "-0", "-1", … after it.
        **fields: The other fields of `DeviceSpec`.

    Example:
        >>> [spec.name for spec in homogeneous(2, seconds_per_job=1, seconds_per_shot=0)]
        ['qpu-0', 'qpu-1']
    """
    check_whole("count", count, 1)
    return tuple(DeviceSpec(name=f"{name}-{number}", **fields) for number in range(count))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise InputError(f"`name` is {name!r}: give text that tells the device from others")


def _check_number(name: str, value: Any, *, positive: bool = False) -> None:
    if not (is_number(value) and 0 <= value < math.inf) or (positive and value == 0):
        raise InputError(
            f"`{name}` is {value!r}: give a "
            + ("positive number" if positive else "number of at least 0")
        )
