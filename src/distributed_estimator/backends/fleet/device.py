"""One device: a queue, a single server, and the network before it.

Whatever happens to a job is settled the moment it is sent: jobs reach a device in the order they
were sent, as on one connection; it serves in order of arrival, one at a time; and random numbers
derive from the job, not from what else goes on. So a device is a pure machine, and reads no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from ...records import DeviceRecord
from .spec import DeviceSpec

_REMEMBERED = 1 << 16
"""Tasks whose submissions are counted; repeats come soon, so that old ones may be forgotten."""
_ROUNDING = 1e-6
"""Seconds by which a job may come too early: clocks and sums round."""
_BLOCK = 256


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
        """When a job that is there now should be back, as far as can be known now.

        It knows the rate limit, the queue, with all jobs of ours that are on their way, and the
        calibrations; it knows neither how the network will vary nor which jobs of other users are
        still to come.
        """
        sent = now + self.wait(now)
        self._serve_others(sent)
        started = self._start(sent + self.spec.latency)
        return started + self.spec.service_seconds(circuits, shots) + self.spec.latency

    def submit(self, task: str, circuits: int, shots: int, now: float) -> DeviceRecord:
        """Send a job as soon as the rate limit lets it through; learn all that will become of it.

        Args:
            task: The task's key; random numbers derive from it and from how often it was sent.
            circuits: Circuits, each binding counting; no more than the device takes.
            shots: Shots of each; 0 for exact values.
            now: The time.

        Returns:
            Its times and how it ends: "done" or "failed".
        """
        sent = now + self.wait(now)
        self._take_token(sent)
        there, back, fails = self._draw(task)
        self._arrived = max(self._arrived, sent + there)
        self._serve_others(self._arrived)
        started = self._start(self._arrived)
        self._free = started + self.spec.service_seconds(circuits, shots)
        times = sent, self._arrived, started, self._free, self._free + back
        return self._record(task, circuits, shots, times, "failed" if fails else "done")

    def wait(self, now: float) -> float:
        """Seconds until the rate limit lets a job through; 0: it does now."""
        if self.spec.rate_limit is None:
            return 0.0
        wait = self._full - (self.spec.burst - 1) / self.spec.rate_limit - now
        return wait if wait > _ROUNDING else 0.0

    def takes(self, circuits: int) -> bool:
        """Whether a job of so many circuits is not too large."""
        return self.spec.most_circuits is None or circuits <= self.spec.most_circuits

    def _take_token(self, now: float) -> None:
        """From the bucket, which holds `burst` of them and gains `rate_limit` per second."""
        if self.spec.rate_limit is not None:
            self._full = max(self._full, now) + 1 / self.spec.rate_limit

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
        """Put other users' jobs that arrive by then into the queue."""
        while self._next[0] <= until:
            arrived, seconds = self._next
            self._free = self._start(arrived) + seconds
            self._next = next(self._others)

    def _start(self, arrived: float) -> float:
        """When what arrives then, after all before it, is begun with."""
        at = max(arrived, self._free)
        calibration = self.spec.calibration
        return at if calibration is None else calibration.earliest_start(at)

    def _record(
        self, task: str, circuits: int, shots: int, times: Sequence[float], status: str
    ) -> DeviceRecord:
        submitted, queued, started, finished, returned = times
        self._jobs += 1
        return DeviceRecord(
            device=self.spec.name,
            job=self._jobs - 1,
            task=task,
            circuits=circuits,
            shots=shots,
            submitted=submitted,
            queued=queued,
            started=started,
            finished=finished,
            returned=returned,
            status=status,
        )


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
