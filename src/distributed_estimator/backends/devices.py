"""A simulated device: a queue, a single server, and the network before it.

Whatever happens to a job is settled the moment it is sent: jobs reach a device in the order they
were sent, as on one connection; it serves in order of arrival, one at a time; and random numbers
derive from the job, not from what else goes on. So a device is a pure machine, and reads no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_whole, is_number
from ..errors import InputError
from ..records import DeviceRecord

_REMEMBERED = 1 << 16
"""Tasks whose submissions are counted; repeats come soon, so that old ones may be forgotten."""
_ROUNDING = 1e-6
"""Seconds by which a job may come too early: clocks and sums round."""
_BLOCK = 256


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
        _check_numbers(positive=True, every=self.every, seconds=self.seconds)
        if self.first is not None:
            _check_numbers(first=self.first)
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
        _check_numbers(positive=True, rate=self.rate, seconds=self.seconds)

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
        name: Any = self.name
        if not (isinstance(name, str) and name):
            raise InputError(f"`name` is {name!r}: give text that tells the device from others")
        _check_numbers(
            seconds_per_job=self.seconds_per_job,
            seconds_per_shot=self.seconds_per_shot,
            seconds_per_circuit=self.seconds_per_circuit,
            latency=self.latency,
            jitter=self.jitter,
            failure_probability=self.failure_probability,
        )
        if self.rate_limit is not None:
            _check_numbers(positive=True, rate_limit=self.rate_limit)
        check_whole("burst", self.burst, 1)
        if self.most_circuits is not None:
            check_whole("most_circuits", self.most_circuits, 1)
        check_whole("seed", self.seed, 0)
        if self.failure_probability > 1:
            raise InputError(
                f"`failure_probability` is {self.failure_probability}: give a number from 0 to 1"
            )
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


def _check_numbers(*, positive: bool = False, **values: Any) -> None:
    for name, value in values.items():
        if not (is_number(value) and 0 <= value < math.inf) or (positive and value == 0):
            expected = "positive number" if positive else "number of at least 0"
            raise InputError(f"`{name}` is {value!r}: give a {expected}")


class SimulatedQPU:
    """The state of a device: its queue, other users' jobs, its rate limit.

    At time 0 its queue is empty. Time may not go back from call to call. Not thread-safe.

    Args:
        spec: What it is like.

    Example:
        >>> device = SimulatedQPU(DeviceSpec(name="q", seconds_per_job=2, seconds_per_shot=0))
        >>> first = device.submit("a", circuits=1, shots=100, now=0.0)
        >>> second = device.submit("b", circuits=1, shots=100, now=0.5)
        >>> second.started, second.returned, device.estimate(circuits=1, shots=100, now=1.0)
        (2.0, 4.0, 6.0)
    """

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec
        self._jobs = 0
        self._free = 0.0  # when the server is through with all that has arrived
        self._arrived = 0.0  # when our last job arrived
        self._full = 0.0  # when the token bucket is full again
        self._submissions: OrderedDict[str, int] = OrderedDict()
        self._others = _background(spec)
        self._next = next(self._others)

    def estimate(self, circuits: int, shots: int, now: float) -> float:
        """When a job that is sent now should be back, as far as can be known now.

        It knows the rate limit, the queue, with all jobs of ours that are on their way, and the
        calibrations; it knows neither how the network will vary nor which jobs of other users are
        still to come.
        """
        sent = now + self.wait(now)
        self._serve_others(sent)
        started = self._start(sent + self.spec.latency)
        return started + self.spec.service_seconds(circuits, shots) + self.spec.latency

    def submit(self, task: str, circuits: int, shots: int, now: float) -> DeviceRecord:
        """Sends a job as soon as the rate limit lets it through, and settles all that follows.

        Args:
            task: The task's key; random numbers derive from it and from how often it was sent.
            circuits: Circuits, each binding counting; no more than the device takes.
            shots: Shots of each; 0 for exact values.
            now: The time.

        Returns:
            Its times and how it ends: "done" or "failed".
        """
        sent = now + self.wait(now)
        if self.spec.rate_limit is not None:  # the bucket holds `burst` tokens
            self._full = max(self._full, sent) + 1 / self.spec.rate_limit
        there, back, fails = self._draw(task)
        self._arrived = max(self._arrived, sent + there)
        self._serve_others(self._arrived)
        started = self._start(self._arrived)
        self._free = started + self.spec.service_seconds(circuits, shots)
        self._jobs += 1
        return DeviceRecord(
            device=self.spec.name,
            job=self._jobs - 1,
            task=task,
            circuits=circuits,
            shots=shots,
            submitted=sent,
            queued=self._arrived,
            started=started,
            finished=self._free,
            returned=self._free + back,
            status="failed" if fails else "done",
        )

    def wait(self, now: float) -> float:
        """Seconds until the rate limit lets a job through; 0: it does now."""
        if self.spec.rate_limit is None:
            return 0.0
        wait = self._full - (self.spec.burst - 1) / self.spec.rate_limit - now
        return wait if wait > _ROUNDING else 0.0

    def takes(self, circuits: int) -> bool:
        """Whether a job of so many circuits is not too large."""
        return self.spec.most_circuits is None or circuits <= self.spec.most_circuits

    def _draw(self, task: str) -> tuple[float, float, bool]:
        """Latencies there and back, and whether the job fails."""
        spec = self.spec
        before = self._submissions.pop(task, 0)
        self._submissions[task] = before + 1
        if len(self._submissions) > _REMEMBERED:
            self._submissions.popitem(last=False)
        rng = _rng(spec, f"job {task} {before}")
        fails = bool(rng.random() < spec.failure_probability)
        normal = rng.standard_normal(2)
        there, back = spec.latency * np.exp(spec.jitter * normal - spec.jitter**2 / 2)
        return float(there), float(back), fails

    def _serve_others(self, until: float) -> None:
        """Puts other users' jobs that arrive by then into the queue."""
        while self._next[0] <= until:
            arrived, seconds = self._next
            self._free = self._start(arrived) + seconds
            self._next = next(self._others)

    def _start(self, arrived: float) -> float:
        """When a job starts that arrives then, after all before it."""
        at = max(arrived, self._free)
        calibration = self.spec.calibration
        return at if calibration is None else calibration.earliest_start(at)


def _background(spec: DeviceSpec) -> Iterator[tuple[float, float]]:
    """Other users' jobs as (arrival, seconds of service), without end."""
    if spec.background is None:
        while True:
            yield math.inf, 0.0
    rng = _rng(spec, "background")
    at = 0.0
    while True:
        gaps = rng.exponential(1 / spec.background.rate, _BLOCK).tolist()
        services = rng.exponential(spec.background.seconds, _BLOCK).tolist()
        for gap, seconds in zip(gaps, services, strict=True):
            at += gap
            yield at, seconds


def _rng(spec: DeviceSpec, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{spec.seed} {spec.name} {purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
