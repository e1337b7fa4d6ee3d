"""A simulated fleet of QPUs as a backend: real values, modelled time.

It shows how a network, queues, rate limits and unlike devices change a run, where there is no QPU.
Values come from a simulator; only the time they take is made up, and every name says so. A device
is a queue, a single server, and the network before it.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from ..checks import check_kind, check_whole, is_number
from ..errors import BackendError, InputError
from ..forks import Lock
from ..records import DeviceRecord, RecordWriter
from ..records.files import writer_of
from ..subexperiments import Backend, FragmentExperiment, FragmentResult, Task
from .placement import soonest
from .statevector import StatevectorBackend

__all__ = [
    "Background",
    "Calibration",
    "DeviceSpec",
    "Fleet",
    "SimulatedQPU",
    "homogeneous",
    "soonest",
]

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
        _check(self, "every", "seconds", positive=True)
        if self.first is not None:
            _check(self, "first")
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
        _check(self, "rate", "seconds", positive=True)


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
        _check(self, "seconds_per_job", "seconds_per_shot", "seconds_per_circuit")
        _check(self, "latency", "jitter", "failure_probability")
        if self.rate_limit is not None:
            _check(self, "rate_limit", positive=True)
        check_whole("burst", self.burst)
        if self.most_circuits is not None:
            check_whole("most_circuits", self.most_circuits)
        check_whole("seed", self.seed, 0)
        if self.failure_probability > 1:
            raise InputError(
                f"`failure_probability` is {self.failure_probability}: give a number from 0 to 1"
            )
        for name, kind in (("calibration", Calibration), ("background", Background)):
            check_kind(name, getattr(self, name), kind | None, f"a `{kind.__name__}`, or None")
        others = self.background.rate * self.background.seconds if self.background else 0.0
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


def _check(spec: object, *names: str, positive: bool = False) -> None:
    for name in names:
        value = getattr(spec, name)
        if not (is_number(value) and 0 <= value < math.inf) or (positive and value == 0):
            expected = "positive number" if positive else "number of at least 0"
            raise InputError(f"`{name}` is {value!r}: give a {expected}")


class SimulatedQPU:
    """The state of a device: its queue, other users' jobs, its rate limit.

    Whatever happens to a job is settled the moment it is sent: jobs reach a device in the order
    they were sent, as on one connection; it serves in order of arrival, one at a time; and random
    numbers derive from the job, not from what else goes on. So a device is a pure machine, and
    reads no clock. At time 0 its queue is empty. Time may not go back from call to call. Not
    thread-safe.

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

        That is without knowing how the network will vary, or which jobs of others are to come.
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


class Fleet:
    """Devices that share the tasks of a run: values are computed, time is modelled.

    Every task is one job, on the device predicted to have it back first; where that has a rate
    limit, the job waits here until it is let through. The inner backend evaluates the task while
    the modelled time passes, so values do not depend on the device, but for the smallest
    `most_circuits`, which decides how tasks are divided. Time that the evaluation takes beyond
    comes on top: `returned` in the records is always the model's. Exact values, which no device
    gives, count as one circuit without shots per binding.

    Workers must be threads of this process, as many as jobs are to be under way at a time. A job
    that was sent cannot be withdrawn.

    Args:
        devices: What the devices are like; their names differ.
        backend: What evaluates tasks; None: the statevector simulator.
        log: A path or `RecordWriter` that gets a `DeviceRecord` for every job.
        clock: Reads the time in seconds; the fleet's own clock starts at 0 when it is made.
        sleep: Waits so many seconds of `clock`.

    Raises:
        InputError: There is no device, or two have the same name.

    Example:
        >>> from distributed_estimator.backends.fleet import homogeneous
        >>> Fleet(homogeneous(16, seconds_per_job=0.1, seconds_per_shot=1e-4)).name
        'simulated(fleet of 16: statevector)'
    """

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        backend: Backend | None = None,
        *,
        log: str | os.PathLike[str] | RecordWriter | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.specs = _specs(devices)
        self.backend = inner = StatevectorBackend() if backend is None else backend
        self.name = f"simulated(fleet of {len(self.specs)}: {inner.name})"
        self.exact, self.max_qubits = inner.exact, inner.max_qubits
        self.row_bytes = inner.row_bytes
        self.log = writer_of("log", log)
        self._clock, self._sleep = clock, sleep
        self._origin = clock()
        self._devices = [SimulatedQPU(spec) for spec in self.specs]
        self._lock = Lock()
        limits = [spec.most_circuits for spec in self.specs if spec.most_circuits is not None]
        self._most_circuits = min(limits, default=None)

    @property
    def identity(self) -> str:
        """The inner backend's, which gives all values."""
        return self.backend.identity

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """The inner backend's, but no more than fit into a job on every device."""
        rows, most = self.backend.rows_per_task(experiment), self._most_circuits
        if most is None:
            return rows
        return max(1, min(rows, most // max(1, experiment.num_circuits)))

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """The inner backend's, but no more than fit into a job on every device."""
        limits = self.backend.circuits_per_task(experiment), self._most_circuits
        return min((limit for limit in limits if limit is not None), default=None)

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """Seconds of a task on an idle device, on average over the devices."""
        circuits, shots = _size(experiment, task)
        each = [2 * s.latency + s.service_seconds(circuits, shots) for s in self.specs]
        return sum(each) / len(each)

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        """Evaluates a task, and returns when its job would be back; see `Backend`.

        Raises:
            BackendError: The job failed, or the inner backend did.
        """
        job = self.submit(task.key, *_size(experiment, task))
        if job.status == "failed":
            self._await(job)
            raise BackendError(
                f"job {job.job} failed on the simulated device {job.device}: run its task again"
            )
        try:
            estimate = self.backend.run(experiment, task)
        except Exception:
            self._await(replace(job, status="failed"))
            raise
        self._await(job)
        return estimate

    def submit(self, task: str, circuits: int, shots: int) -> DeviceRecord:
        """Sends a job to the device that should have it back first; does not wait for it.

        Arguments and result are those of `SimulatedQPU.submit`.

        Raises:
            BackendError: It has more circuits than any device takes.
        """
        with self._lock:
            now = self._clock() - self._origin
            device = soonest(self._devices, circuits, shots, now)
            if device is not None:
                return device.submit(task, circuits, shots, now)
        raise BackendError(
            f"a job has {circuits} circuits and no device takes more than "
            f"{max(spec.most_circuits or 0 for spec in self.specs)}: divide it"
        )

    def _await(self, job: DeviceRecord) -> None:
        left = job.returned - (self._clock() - self._origin)
        if left > 0:
            self._sleep(left)
        if self.log is not None:
            self.log.write(job)

    def __reduce__(self) -> NoReturn:
        raise TypeError('a fleet\'s queues live in one process: use pool="threads"')


def _size(experiment: FragmentExperiment, task: Task) -> tuple[int, int]:
    """Circuits of a task, each binding counting, and shots of each, on average and rounded up.

    Exact values count as one circuit without shots per binding.
    """
    if task.shots is None:
        return len(task.angles), 0
    circuits = task.num_subexperiments(experiment)
    if isinstance(task.shots, np.ndarray):
        return circuits, -(-int(task.shots_of(experiment).sum()) // circuits)
    return circuits, task.shots


def _specs(devices: object) -> tuple[DeviceSpec, ...]:
    if not isinstance(devices, Iterable):
        raise InputError(f"`devices` is {devices!r}: give a list of `DeviceSpec`")
    specs = tuple(devices)
    if not specs:
        raise InputError("`devices` is empty: give at least one `DeviceSpec`")
    for number, spec in enumerate(specs):
        if not isinstance(spec, DeviceSpec):
            raise InputError(f"`devices` holds {spec!r}: give objects of type `DeviceSpec`")
        if spec.name in [other.name for other in specs[:number]]:
            raise InputError(f"several devices are named {spec.name!r}: give each its own name")
    return specs
