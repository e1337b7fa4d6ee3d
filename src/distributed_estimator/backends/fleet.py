"""A simulated fleet of QPUs as a backend: real values, modelled time.

It shows how a network, queues, rate limits and unlike devices change a run, where there is no QPU.
Values come from a simulator; only the time they take is made up, and every name says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

from ..errors import BackendError, InputError
from ..forks import Lock
from ..records import DeviceRecord, RecordWriter
from ..records.files import writer_of
from ..subexperiments import Backend, FragmentEstimate, FragmentExperiment, Task
from .devices import Background, Calibration, DeviceSpec, SimulatedQPU, homogeneous
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


class Fleet:
    """Devices that share the tasks of a run: values are computed, time is modelled.

    Every task is one job, on the device predicted to have it back first; where that has a rate
    limit, the job waits here until it is let through. The inner backend evaluates the task while
    the modelled time passes, so values do not depend on which device it is. (The smallest
    `most_circuits` decides how tasks are divided, and with that what is drawn.) Time that the
    evaluation takes beyond the modelled time comes on top: `returned` in the records is always the
    model's. Exact values, which no device gives, count as one circuit without shots per binding.

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
        self.backend: Backend = StatevectorBackend() if backend is None else backend
        self.log = writer_of("log", log)
        self._clock, self._sleep = clock, sleep
        self._origin = clock()
        self._devices = [SimulatedQPU(spec) for spec in self.specs]
        self._lock = Lock()
        limits = [spec.most_circuits for spec in self.specs if spec.most_circuits is not None]
        self._most_circuits = min(limits, default=None)

    @property
    def name(self) -> str:
        """The number of simulated devices, and the backend that gives the values."""
        return f"simulated(fleet of {len(self.specs)}: {self.backend.name})"

    @property
    def identity(self) -> str:
        """The inner backend's, which gives all values."""
        return self.backend.identity

    @property
    def exact(self) -> bool:
        """The inner backend's."""
        return self.backend.exact

    @property
    def max_qubits(self) -> int | None:
        """The inner backend's."""
        return self.backend.max_qubits

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

    def row_bytes(self, experiment: FragmentExperiment, shots: int | None) -> int:
        """The inner backend's."""
        return self.backend.row_bytes(experiment, shots)

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """Seconds of a task on an idle device, on average over the devices."""
        circuits, shots = _num_circuits(experiment, task), task.shots or 0
        each = [2 * s.latency + s.service_seconds(circuits, shots) for s in self.specs]
        return sum(each) / len(each)

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentEstimate:
        """Evaluates a task, and returns when its job would be back; see `Backend`.

        Raises:
            BackendError: The job failed, or the inner backend did.
        """
        job = self.submit(task.key, _num_circuits(experiment, task), task.shots or 0)
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

        Args:
            task: The task's key.
            circuits: Circuits, each binding counting.
            shots: Shots of each; 0 for exact values.

        Returns:
            Its times and how it ends.

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


def _num_circuits(experiment: FragmentExperiment, task: Task) -> int:
    """Circuits of a task, each binding counting; exact values count as one per binding."""
    return len(task.angles) if task.shots is None else task.num_subexperiments(experiment)


def _specs(devices: object) -> tuple[DeviceSpec, ...]:
    if not isinstance(devices, Iterable):
        raise InputError(f"`devices` is {devices!r}: give a list of `DeviceSpec`")
    specs = tuple(devices)
    if not specs:
        raise InputError("`devices` is empty: give at least one `DeviceSpec`")
    names: set[str] = set()
    for spec in specs:
        if not isinstance(spec, DeviceSpec):
            raise InputError(f"`devices` holds {spec!r}: give objects of type `DeviceSpec`")
        if spec.name in names:
            raise InputError(f"several devices are named {spec.name!r}: give each its own name")
        names.add(spec.name)
    return specs
