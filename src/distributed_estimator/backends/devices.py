"""Several devices as one backend: each fragment of a plan runs on one of them.

A device is a sampler, a noise model or a simulator. Where a fragment runs follows from widths,
expected noise and load, and not from the time; where a device goes away, what it has not done goes
to another one. The simulated fleet finds the device of a job by the same `soonest`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from qiskit.primitives import BaseSamplerV2
from qiskit.providers import BackendV2

from ..checks import check_kind, check_whole
from ..cutting import FloatArray
from ..errors import (
    BackendError,
    DeadlineError,
    DeviceLostError,
    InputError,
    PoolError,
    RecordError,
    RunCancelledError,
    TaskFailedError,
    ThrottledError,
    UnreachableError,
    chain,
    is_short,
)
from ..forks import Lock
from ..records import DeviceRecord, RecordWriter
from ..records.files import writer_of
from ..subexperiments import (
    NO_RUN,
    Backend,
    FragmentExperiment,
    FragmentResult,
    JobBook,
    Mitigation,
    NoisyBackend,
    Readout,
    ReadoutRun,
    Task,
    no_noise,
)
from .device_list import (
    apart,
    devices_from,
    has_service,
    is_heavy,
    is_offline,
    is_wide,
    mitigated_device,
    pending_of,
    perfect_readout,
)
from .placement import Candidate, expected_noise, soonest, work_of
from .statevector import StatevectorBackend

__all__ = ["DeviceShare", "Devices"]

_log = logging.getLogger(__name__)

_FAILURES = 3
_MOST_RAN = 1 << 16
"""Tasks whose devices are remembered."""
_UNREACHABLE = {
    "UnreachableError",
    "ConnectionError",
    "AccountNotFoundError",
    "IBMNotAuthorizedError",
}
"""Names of classes of errors that say so, Python's and those of libraries that may be missing."""
_NOT_OF_A_DEVICE = (
    *(InputError, ThrottledError, DeadlineError, RunCancelledError, PoolError, RecordError),
)
"""Errors that say nothing of the device that was asked."""


@dataclass(frozen=True)
class DeviceShare:
    """What a device has done so far.

    Attributes:
        device: Its name.
        tasks: Tasks whose results came from it.
        failed: Jobs of tasks that failed on it.
        circuits: Circuits of these tasks, each binding counting.
        shots: Shots of these circuits, as they were asked for.
        seconds: Time in which its tasks were under way, each counting; failed ones too.
        gone: Why nothing more is sent there; None: it is in use.
    """

    device: str
    tasks: int = 0
    failed: int = 0
    circuits: int = 0
    shots: int = 0
    seconds: float = 0.0
    gone: str | None = None


_Places: TypeAlias = dict[tuple[int, str], tuple[int, float]]
"""By number and content of a fragment, the number of its device, and the load it is there."""


@dataclass
class _State:
    """What is known of the devices, by number; shared by all views of them."""

    gone: dict[int, str] = field(default_factory=dict)
    failures: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    """Causes of the failures in a row of a fragment on a device."""
    bound: set[tuple[int, str]] = field(default_factory=set)
    """Fragments for which something was done with mitigation, by number and content."""
    jobs: Counter[int] = field(default_factory=Counter)
    under_way: Counter[int] = field(default_factory=Counter)
    shares: dict[int, DeviceShare] = field(default_factory=dict)
    ran: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """By the keys of tasks that were done, the devices that did them, until someone asks."""
    lock: Lock = field(default_factory=Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return _State, (self.gone, self.failures, self.bound)


class Devices:
    """Devices that share the fragments of a plan; see `Backend`.

    All tasks of a fragment run on one device, so that shots of a setting come from one device.
    Fragments of a plan are placed one after the other, those that the fewest devices take first,
    then by their circuits: each goes to the device that would be through with it first, if every
    circuit took as long there, times exp(2λ) for the expected noise λ, as so many more shots make
    up for what noise takes from a value. That follows from the plan and the devices alone, so that
    the same seed draws the same. With `queues`, jobs that wait there count too.

    A job that fails is sent again, to the same device at first. A device that cannot be reached is
    left for good; so it is for a fragment whose jobs failed there `failures` times in a row. What
    was not done then goes to the next best device, with a warning in the log; results that are
    there are kept. Where noise is mitigated, results of two devices may not be mixed, and the run
    ends with a `DeviceLostError` instead.

    Args:
        devices: Samplers, backends of this package (`StatevectorBackend()` for the local
            simulator), or Qiskit backends.
        queues: Whether the jobs that wait on a device count when fragments are placed: those it
            reports, and ours. What is drawn depends on them then.
        failures: Failures in a row after which a fragment leaves a device.
        log: A path or `RecordWriter` that gets a `DeviceRecord` for every job. It stays in this
            process: what others run for it is not recorded.
        clock: Reads the time in seconds; records count from when this is made.

    Raises:
        InputError: There is no device, one comes twice, or is none.

    Example:
        >>> from qiskit.primitives import StatevectorSampler
        >>> Devices([StatevectorBackend(), StatevectorSampler()]).name
        'devices(statevector, qiskit.StatevectorSampler)'
    """

    def __init__(
        self,
        devices: Iterable[BaseSamplerV2 | Backend | BackendV2],
        *,
        queues: bool = False,
        failures: int = _FAILURES,
        log: str | os.PathLike[str] | RecordWriter | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_kind("queues", queues, bool, "True or False")
        self.devices = devices_from(devices)
        self.names = tuple(apart(device.name for device in self.devices))
        self.queues = queues
        self.failures = check_whole("failures", failures, 1)
        self.log = writer_of("log", log)
        self._clock, self._origin = clock, clock()
        self._state = _State()
        self._places: _Places = {}
        self._keeps_jobs = False
        self._pins: _Places = {}
        """Places in runs with mitigation, where fragments must stay: noise is one device's."""

    # --- what they are, together ------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The names of all."""
        return f"devices({', '.join(self.names)})"

    @property
    def identity(self) -> str:
        """Hash of the identities of all, in their order."""
        return hashlib.sha256("\n".join(d.identity for d in self.devices).encode()).hexdigest()[:32]

    @property
    def exact(self) -> bool:
        """Whether all can give exact values."""
        return all(device.exact for device in self.devices)

    @property
    def max_qubits(self) -> int | None:
        """Those of the widest device; None: there is one without a limit."""
        widths = [device.max_qubits for device in self.devices]
        known = [width for width in widths if width is not None]
        return max(known) if len(known) == len(widths) else None

    @property
    def shares(self) -> tuple[DeviceShare, ...]:
        """What each device has done so far, for this process."""
        with self._state.lock:
            return tuple(self._share(number) for number in range(len(self.devices)))

    # --- how tasks are divided: the same wherever a fragment runs ---------------------------------

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """The fewest of the devices that are wide enough."""
        return min(device.rows_per_task(experiment) for device in self._wide(experiment))

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """The fewest of the devices that are wide enough."""
        limits = [device.circuits_per_task(experiment) for device in self._wide(experiment)]
        return min((limit for limit in limits if limit is not None), default=None)

    def row_bytes(
        self, experiment: FragmentExperiment, angles: FloatArray, shots: int | None
    ) -> int:
        """Those of the fragment's device."""
        return self._device(experiment).row_bytes(experiment, angles, shots)

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """Those of the fragment's device."""
        return self._device(experiment).expected_seconds(experiment, task)

    # --- placing ----------------------------------------------------------------------------------

    def placed(self, experiments: Sequence[FragmentExperiment]) -> Devices:
        """The same devices, with a place for each fragment of a plan.

        Raises:
            BackendError: A fragment is too wide for all of them.
            DeviceLostError: No device is left that takes it.
        """
        view = self._view()
        if not view._is_pinned:
            view._places = {}
        own = [experiment for experiment in experiments if not experiment.is_trivial]
        for number in range(len(self.devices)):
            self._look_at(number)
        most = max((experiment.num_circuits for experiment in own), default=0)
        waiting = [work_of(most * jobs, 0.0) for jobs in self._waiting()]
        with self._state.lock:
            for experiment in sorted(own, key=self._urgency):
                if _key(experiment) not in view._places:
                    view._settle(experiment, waiting)
        for experiment in own:
            index, (number, _) = experiment.fragment.index, view._places[_key(experiment)]
            _log.info("fragment %d runs on %s", index, self.names[number])
        return view

    def device_of(self, experiment: FragmentExperiment, task: Task | None = None) -> str:
        """The name of the device that a fragment's tasks run on as things are.

        Args:
            experiment: The fragment.
            task: One that ran in this process: the device that ran it, which is forgotten then.

        Raises:
            BackendError: A fragment is too wide for all of them.
            DeviceLostError: No device is left that takes it.
        """
        with self._state.lock:
            if task is None:
                return self.names[self._place(experiment)]
            # In another process, where else?
            number, _ = self._places[_key(experiment)]
            return self.names[self._state.ran.pop(task.key, number)]

    def _look_at(self, number: int) -> None:
        """Leave a device whose target cannot be read."""
        if number in self._state.gone:
            return
        try:
            getattr(self.devices[number], "target", None)
        except UnreachableError as error:
            with self._state.lock:
                self._lose(number, str(error))

    def _urgency(self, experiment: FragmentExperiment) -> tuple[int, int, int]:
        """Sorts fragments as they are placed."""
        takers = sum(self._able(number, experiment) for number in range(len(self.devices)))
        return takers, -experiment.num_circuits, experiment.fragment.index

    def _settle(self, experiment: FragmentExperiment, waiting: Sequence[float]) -> int:
        """Place a fragment on the device that would be through with it first; gives its number."""
        key, loads = _key(experiment), list(waiting)
        for other, (number, load) in self._places.items():
            loads[number] += load if other != key else 0.0
        number = self._choose(experiment, loads)
        self._places[key] = number, self._load(number, experiment)
        return number

    def _choose(self, experiment: FragmentExperiment, loads: Sequence[float]) -> int:
        numbers = range(len(self.devices))
        able = [self._able(number, experiment) for number in numbers]
        if not any(able):
            raise self._refusal(experiment)
        light = [
            able[number] and not is_heavy(self.devices[number], experiment) for number in numbers
        ]
        able = light if any(light) else able
        candidates = [
            Candidate(True, loads[number] + self._load(number, experiment))
            if able[number]
            else Candidate(False, 0.0)
            for number in numbers
        ]
        found = soonest(candidates, experiment.num_circuits, 0, 0.0)
        return next(number for number in numbers if candidates[number] is found)

    def _able(self, number: int, experiment: FragmentExperiment) -> bool:
        """Whether a device is wide enough for a fragment, and still there."""
        return is_wide(self.devices[number], experiment) and not self._cause(number, experiment)

    def _cause(self, number: int, experiment: FragmentExperiment) -> str | None:
        """Why a device is not there for a fragment; None: it is."""
        gone = self._state.gone.get(number)
        failures = self._state.failures.get((number, experiment.fragment.key), [])
        if gone is None and len(failures) >= self.failures:
            return f"its jobs failed {len(failures)} times in a row, at last because {failures[-1]}"
        return gone

    def _place(self, experiment: FragmentExperiment) -> int:
        """The number of the device of a fragment; another one where the one it had is gone."""
        before, _ = self._places.get(_key(experiment), (None, 0.0))
        cause = None if before is None else self._cause(before, experiment)
        if before is not None and cause is None:
            return before
        index = experiment.fragment.index
        if before is not None and self._is_pinned and _key(experiment) in self._state.bound:
            raise DeviceLostError(
                f"the device {self.names[before]} was lost ({cause}), and the mitigation of "
                f"fragment {index} is made for it, so that results of another device would bias "
                "the value: run again with a new estimator whose list leaves that device out"
            )
        after = self._settle(experiment, [0.0] * len(self.devices))
        if before is not None:
            _log.warning(
                "fragment %d leaves %s for %s: %s",
                *(index, self.names[before], self.names[after], cause),
            )
        return after

    @property
    def _is_pinned(self) -> bool:
        return self._places is self._pins

    def _load(self, number: int, experiment: FragmentExperiment) -> float:
        """How long a fragment takes on a device."""
        return work_of(experiment.num_circuits, expected_noise(experiment, self.devices[number]))

    def _waiting(self) -> list[int]:
        """Jobs that wait on each device, where they count."""
        if not self.queues:
            return [0] * len(self.devices)
        return [
            self._state.under_way[number] + pending_of(device)
            for number, device in enumerate(self.devices)
        ]

    def _wide(self, experiment: FragmentExperiment) -> Sequence[Backend]:
        """Devices that are wide enough for a fragment; all of them where none is."""
        return [d for d in self.devices if is_wide(d, experiment)] or self.devices

    def _device(self, experiment: FragmentExperiment) -> Backend:
        with self._state.lock:
            return self.devices[self._place(experiment)]

    def _refusal(self, experiment: FragmentExperiment) -> BackendError:
        """Why no device takes a fragment."""
        fragment, widest = experiment.fragment, self.max_qubits
        if widest is not None and fragment.num_qubits > widest:
            widths = zip(self.names, self.devices, strict=True)
            each = ", ".join(f"{name} takes {device.max_qubits}" for name, device in widths)
            return BackendError(
                f"fragment {fragment.index} has {fragment.num_qubits} qubits, and no device is as "
                f"wide ({each}): cut more, for instance with AutoCut(max_qubits={widest}), or add "
                "a wider device"
            )
        causes = []
        for number, (name, device) in enumerate(zip(self.names, self.devices, strict=True)):
            narrow = f"it takes {device.max_qubits} qubits, the fragment has {fragment.num_qubits}"
            causes.append(f"{name}: {self._cause(number, experiment) or narrow}")
        return DeviceLostError(
            f"no device is left for fragment {fragment.index} ({'; '.join(causes)}): see to the "
            "devices, and run again with a new estimator, which asks all of them again"
        )

    # --- running ----------------------------------------------------------------------------------

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        """Run a task on its fragment's device, or where that fails on another; see `Backend`.

        Raises:
            DeviceLostError: No device is left, or a fragment may not change to another.
        """
        while True:
            number = self._place_of(experiment, task)
            self._look_for_job(number, experiment, task)
            with self._state.lock:
                self._state.under_way[number] += 1
            begun, done = self._clock(), False
            try:
                result = self.devices[number].run(experiment, task)
                done = True
            except Exception as error:
                self._fail(number, experiment, error)
            finally:
                self._note(number, experiment, task, begun, done)
            if done and self._keep(number, experiment):
                return result

    def _place_of(self, experiment: FragmentExperiment, task: Task) -> int:
        """The number of the device of a task: where its job is, or else that of its fragment.

        A run that was lost, and is repeated, may place fragments elsewhere: calibrations change.
        """
        each = range(len(self.devices))
        sent = [number for number in each if self._has_job(number, experiment, task)]
        with self._state.lock:
            place = self._place(experiment)
            if self._is_pinned:
                return place
            return next((n for n in sent if not self._cause(n, experiment)), place)

    def _has_job(self, number: int, experiment: FragmentExperiment, task: Task) -> bool:
        """Whether the service of a device has a job of a task."""
        has_job = getattr(self.devices[number], "has_job", None)
        return has_job is not None and bool(has_job(experiment, task))

    def _keep(self, number: int, experiment: FragmentExperiment) -> bool:
        """Note that a device did something for a fragment; whether that is of use.

        It is not where fragments stay where they are, and another thread has moved this one before
        anything was done for it.
        """
        key = _key(experiment)
        with self._state.lock:
            self._state.failures.pop((number, experiment.fragment.key), None)
            if self._is_pinned:
                if self._places[key][0] != number:
                    return False
                self._state.bound.add(key)
        return True

    def _look_for_job(self, number: int, experiment: FragmentExperiment, task: Task) -> None:
        """See to it that a task whose job a lost device has is not paid for twice unasked.

        Raises:
            DeviceLostError: The job is in a journal, from which it can be fetched later.
        """
        for other, cause in list(self._state.gone.items()):
            if other == number or not self._has_job(other, experiment, task):
                continue
            what = f"a job of fragment {experiment.fragment.index} was sent to {self.names[other]}"
            if self._keeps_jobs:
                raise DeviceLostError(
                    f"{what}, which was lost ({cause}): run again with the same seed and journal "
                    "once it is back, which fetches the job; or with a list without that device, "
                    "which pays for it a second time"
                )
            _log.warning("%s, and may be charged: %s has it now", what, self.names[number])

    def _fail(self, number: int, experiment: FragmentExperiment, error: Exception) -> None:
        """Note that a device failed; raises errors that are none of its own."""
        if isinstance(error, _NOT_OF_A_DEVICE) or is_short(error):
            raise error
        cause = (
            str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"
        )
        classes = {kind.__name__ for own in chain(error) for kind in type(own).__mro__}
        lost = sorted(_UNREACHABLE & classes)
        if "UnreachableError" in lost:
            pass  # which says it without secrets
        elif lost:  # without its text, which may hold addresses of an account
            cause = f"it cannot be reached ({', '.join(lost)})"
        elif is_offline(self.devices[number]):
            lost, cause = ["offline"], f"it is offline ({cause})"
        with self._state.lock:
            causes = self._state.failures.setdefault((number, experiment.fragment.key), [])
            # Those of a calibration were as many as the policy allows.
            causes += [cause] * (self.failures if isinstance(error, TaskFailedError) else 1)
            if lost:
                self._lose(number, cause)

    def _lose(self, number: int, cause: str) -> None:
        if number not in self._state.gone:
            self._state.gone[number] = cause
            _log.warning("the device %s is lost: %s", self.names[number], cause)

    def _note(
        self,
        number: int,
        experiment: FragmentExperiment,
        task: Task,
        begun: float,
        done: bool,
    ) -> None:
        """Count a job that is over, and record it."""
        ended = self._clock()
        circuits, total = task.num_subexperiments(experiment), 0
        if task.shots is not None:
            total = int(task.shots_of(experiment).sum())
        state = self._state
        with state.lock:
            state.under_way[number] -= 1
            if done:
                state.ran[task.key] = number
                if len(state.ran) > _MOST_RAN:
                    state.ran.popitem(last=False)
            job, share = state.jobs[number], self._share(number)
            state.jobs[number] += 1
            state.shares[number] = DeviceShare(
                share.device,
                share.tasks + done,
                share.failed + (not done),
                share.circuits + done * circuits,
                share.shots + done * total,
                share.seconds + ended - begun,
            )
        if self.log is None or has_service(self.devices[number]):
            return  # what has a service records its jobs itself
        begun, ended = begun - self._origin, ended - self._origin
        record = DeviceRecord(
            device=self.names[number],
            job=job,
            task=task.key,
            circuits=circuits,
            shots=-(-total // max(1, circuits)),
            submitted=begun,
            queued=begun,
            started=begun,
            finished=ended,
            returned=ended,
            status="done" if done else "failed",
        )
        try:
            self.log.write(record)
        except RecordError as error:  # the result has been paid for
            _log.warning("a job on %s is not recorded: %s", self.names[number], error)

    def _share(self, number: int) -> DeviceShare:
        state, name = self._state, self.names[number]
        own = state.shares.get(number, DeviceShare(name))
        return DeviceShare(
            *(name, own.tasks, own.failed, own.circuits, own.shots, own.seconds),
            state.gone.get(number),
        )

    # --- noise, jobs and other processes ----------------------------------------------------------

    def mitigated(self, mitigation: Mitigation, factor: int = 1) -> Devices:
        """The same devices, each mitigated; the local simulator as it is, which has no noise.

        Where readout or noise factors are, fragments stay where they are first placed, at all
        factors: the noise of another device would bias the value.

        Raises:
            InputError: A device cannot do what is asked.
        """
        if all(isinstance(device, StatevectorBackend) for device in self.devices):
            raise no_noise(self.name)
        view = self._view()
        view.devices = tuple(
            mitigated_device(name, device, mitigation, factor)
            for name, device in zip(self.names, self.devices, strict=True)
        )
        if mitigation.readout or len(mitigation.factors) > 1:
            with self._state.lock:
                for key, place in self._places.items():
                    if place[0] not in self._state.gone:
                        self._pins.setdefault(key, place)
            view._places = self._pins
        return view

    def readout(self, experiment: FragmentExperiment, run: ReadoutRun = NO_RUN) -> Readout:
        """What is known of the readout of the fragment's device, where a run began with it.

        Raises:
            DeviceLostError: No device is left, or a fragment may not change to another.
        """
        name = f"device of fragment {experiment.fragment.index} {experiment.fragment.key}"
        kept = run.kept(name)
        self._place_again(experiment, kept)
        while True:
            with self._state.lock:
                number = self._place(experiment)
                if kept is not None and number != kept[0]:
                    raise self._lost_by_journal(int(kept[0]), experiment)
            device = self.devices[number]
            try:
                if isinstance(device, NoisyBackend):
                    found = device.readout(experiment, run.at(number))
                else:
                    found = perfect_readout(self.names[number], experiment)
            except Exception as error:
                self._fail(number, experiment, error)
                continue
            if self._keep(number, experiment):
                run.keep(name, np.array([float(number)]))
                return replace(found, device=self.names[self._calibrated_as(number)])

    def _place_again(self, experiment: FragmentExperiment, kept: FloatArray | None) -> None:
        """Place a fragment where a run had it that goes on, whatever is thought of noise now."""
        key = _key(experiment)
        if kept is None:
            return
        with self._state.lock:
            if key not in self._state.bound:
                number = int(kept[0])
                self._places[key] = number, self._load(number, experiment)

    def _lost_by_journal(self, number: int, experiment: FragmentExperiment) -> DeviceLostError:
        """Why a run cannot go on whose fragment was on a device that it cannot have now."""
        cause = self._cause(number, experiment) or "the fragment is on another one by now"
        return DeviceLostError(
            f"results of fragment {experiment.fragment.index} in the journal are those of "
            f"{self.names[number]}, which was lost ({cause}), and readout of another device would "
            "bias them: run again with a new estimator once it is back, or give a new journal"
        )

    def _calibrated_as(self, number: int) -> int:
        """The number of the first device that shares its calibration with one, or its own."""
        own, *shared = (
            getattr(self.devices[n], "calibration_path", None) for n in (number, *range(number))
        )
        return shared.index(own) if own is not None and own in shared else number

    def with_jobs(self, book: JobBook | None, log: RecordWriter | None) -> Devices:
        """The same devices with a log, and those with a service with a book of their jobs.

        These write records of their own, with what the service says of each job.
        """
        view = self._view()
        each: tuple[Any, ...] = self.devices
        view.devices = tuple(
            device.with_jobs(book, log) if has_service(device) else device for device in each
        )
        view.log = log or self.log
        view._keeps_jobs = book is not None
        return view

    @property
    def has_service(self) -> bool:
        """Whether a device's jobs go to a service: its connection travels to no other process."""
        return any(map(has_service, self.devices))

    def close(self) -> None:
        """Close what devices have opened at their services; the next job opens it again."""
        device: Any
        for device in filter(has_service, self.devices):
            device.close()

    def _view(self) -> Devices:
        """The same devices with places of their own."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        if not self._is_pinned:
            with self._state.lock:
                view._places = dict(self._places)
        return view

    def __getstate__(self) -> dict[str, Any]:
        for name, device in zip(self.names, self.devices, strict=True):
            try:
                pickle.dumps(device)
            except Exception as error:
                raise TypeError(
                    f"the device {name} cannot be sent to another process ({error}): use "
                    'pool="threads"'
                ) from error
        with self._state.lock:
            copies: dict[str, Any] = {
                "_places": dict(self._places),
                "_pins": dict(self._pins),
                "_state": _State(
                    *(dict(self._state.gone), dict(self._state.failures)), set(self._state.bound)
                ),
            }
        if self._is_pinned:  # no process knows what another one has moved
            copies["_places"] = copies["_pins"]
            copies["_state"].bound.update(self._pins)
        return {**vars(self), **copies, "log": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._origin = self._clock()


def _key(experiment: FragmentExperiment) -> tuple[int, str]:
    return experiment.fragment.index, experiment.fragment.key
