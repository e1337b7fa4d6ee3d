"""Calibrations of readout in runs: tried again, ended early, divided, and found by a run again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_client import circuit
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer.primitives import SamplerV2
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from standin import SECRETS as ACCOUNT
from standin import Faults, Service, sampler_of
from test_calibration import Device, OnDevice, experiment_on
from test_calibration import backend_of as calibrated_backend
from test_devices import Noisy, placed
from test_tasks import experiments_of

from distributed_estimator import DistributedEstimator, EstimatorOptions, Mitigation
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.calibration import CalibrationWork
from distributed_estimator.backends.devices import Devices
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import (
    DeadlineError,
    DeviceLostError,
    InputError,
    RunCancelledError,
    TaskFailedError,
)
from distributed_estimator.execution import Conditions, Deadline, Policy, Retry, make_pool
from distributed_estimator.pipeline.calibrating import Calibrating, Kept
from distributed_estimator.subexperiments.mitigation import NoRun

ONCE = Policy(retry=Retry(attempts=1))
SHOTS = 1 << 10
LINE = [[qubit, qubit + 1] for qubit in range(9)]


@dataclass(frozen=True)
class Keeping(NoRun):
    """A run that keeps what it goes by, as one with a journal does."""

    memory: dict[str, np.ndarray] = field(default_factory=dict)

    def at(self, place: int) -> Keeping:
        return Keeping(place=place, memory=self.memory)

    def kept(self, name: str) -> np.ndarray | None:
        return self.memory.get(f"{self.place} {name}")

    def keep(self, name: str, numbers: np.ndarray) -> None:
        self.memory[f"{self.place} {name}"] = numbers


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def estimator_of(
    folder: Path,
    *,
    policy: Policy = ONCE,
    seed: int | None = None,
    hours: float = 24.0,
    circuits_per_job: int = 512,
    **service: Any,
) -> DistributedEstimator:
    """Of a device in a folder, with a journal; a `seed` gives it errors, and so a layout."""
    sampler = sampler_of(folder / "jobs", **service)
    if seed is not None:
        own = GenericBackendV2(10, coupling_map=LINE, noise_info=True, seed=seed)
        sampler.backend()._target = own.target
    mitigation = Mitigation(
        readout=True, twirling=2, calibration_shots=SHOTS, calibration_hours=hours
    )
    options = EstimatorOptions(shots=200, seed=7, policy=policy, mitigation=mitigation)
    backend = SamplerBackend(sampler, circuits_per_job=circuits_per_job)
    return DistributedEstimator(
        "AABB", backend, workers=1, options=options, journal=folder / "run.journal"
    )


def value_of(folder: Path, **options: Any) -> float:
    with estimator_of(folder, **options) as estimator:
        return float(estimator.run([(circuit(4), "ZZZZ")]).result()[0].data.evs)


def calibrations(folder: Path) -> list[str]:
    """Jobs that calibrate."""
    service = Service(folder / "jobs")
    return [job for job in service.ids() if service.content(job)["pubs"][0][2] == SHOTS]


def test_a_calibration_that_fails_is_tried_again_as_the_policy_says(tmp_path: Path):
    expected = value_of(tmp_path / "calm")
    again = Policy(retry=Retry(attempts=2, backoff=0.0))
    found = value_of(tmp_path / "failing", policy=again, faults=Faults(cancelled=1))
    assert found == expected
    one, other = calibrations(tmp_path / "failing")[:2]
    service = Service(tmp_path / "failing" / "jobs")
    assert service.content(one)["tags"] == service.content(other)["tags"]
    message = r"the calibration of the readout of .* failed once.*was cancelled"
    with pytest.raises(TaskFailedError, match=message):
        value_of(tmp_path / "once", faults=Faults(cancelled=1))


def at_waiting(first: int, does: Callable[[], None]) -> Callable[[str], None]:
    """Does something when jobs are waited for, from the n-th on, counted from 1."""
    steps: list[str] = []

    def died(step: str) -> None:
        steps.extend([step] * (step == "waiting"))
        if step == "waiting" and len(steps) >= first:
            does()

    return died


def lost() -> None:
    raise ConnectionError(ACCOUNT)


def test_a_calibration_ends_with_its_run_and_at_the_deadline(tmp_path: Path):
    waits, goes = threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        goes.wait()

    try:
        with estimator_of(tmp_path / "stopped", died=at_waiting(1, wait)) as estimator:
            job = estimator.run([(circuit(4), "ZZZZ")])
            assert waits.wait(60)
            job.cancel()
            with pytest.raises(RunCancelledError):
                job.result()
        late = Policy(deadline=Deadline(0.2))
        with pytest.raises(DeadlineError, match="readout was still to be calibrated"):
            value_of(tmp_path / "late", policy=late, died=at_waiting(1, wait))
    finally:
        goes.set()


def test_a_deadline_may_come_at_any_moment():
    """Such as between a look at the clock and the next one."""
    clock = iter([0.5, 1.0])
    conditions = Conditions(Policy(deadline=Deadline(1.0)), clock=lambda: next(clock))
    with closing(make_pool("threads", 1)) as pool:
        run = Calibrating(pool, conditions, 1.0, "device", Kept("run"))
        work = CalibrationWork(calibrated_backend(OnDevice()), "device")
        with pytest.raises(DeadlineError, match="after 1 s the readout was still to be calibrated"):
            run.run(work, [])


def test_a_run_that_goes_on_has_the_calibration_that_it_began_with(tmp_path: Path):
    """However old it is by then."""
    expected = value_of(tmp_path / "calm")
    again = tmp_path / "again"
    with pytest.raises(TaskFailedError):
        value_of(again, died=at_waiting(2, lost))
    assert (len(calibrations(again)), len(Service(again / "jobs").ids())) == (1, 3)
    assert value_of(again, hours=1e-9) == expected
    assert (len(calibrations(again)), len(Service(again / "jobs").ids())) == (1, 3)


def test_noise_factors_of_a_run_have_one_calibration(tmp_path: Path):
    """Which is too old for the second factor."""
    sampler = sampler_of(tmp_path / "jobs")
    mitigation = Mitigation(
        readout=True, zne=True, twirling=2, calibration_shots=SHOTS, calibration_hours=1e-9
    )
    options = EstimatorOptions(shots=200, seed=7, mitigation=mitigation)
    with DistributedEstimator(None, sampler, options=options) as estimator:
        estimator.run([(circuit(2), "ZZ")]).result()
        assert len(calibrations(tmp_path)) == 1
        estimator.run([(circuit(2), "ZZ")]).result()
    assert len(calibrations(tmp_path)) == 2


def test_a_run_that_goes_on_stays_on_its_qubits(tmp_path: Path):
    """Whichever the device would have now that it was calibrated again."""
    expected = value_of(tmp_path / "calm", seed=1)
    with pytest.raises(TaskFailedError):
        value_of(tmp_path / "moved", seed=1, died=at_waiting(3, lost))
    assert value_of(tmp_path / "moved", seed=2) == expected
    jobs = Service(tmp_path / "moved" / "jobs").tags()
    assert jobs == Service(tmp_path / "calm" / "jobs").tags()
    # With the errors of now, they would have others.
    value_of(tmp_path / "other", seed=2)
    assert qubits_of(tmp_path / "other") != qubits_of(tmp_path / "calm")


def qubits_of(folder: Path) -> set[tuple[int, ...]]:
    """Qubits that calibrations measure."""
    service, found = Service(folder / "jobs"), set()
    for job in calibrations(folder):
        measured = service.content(job)["pubs"][0][0]
        found.add(
            tuple(
                measured.find_bit(item.qubits[0]).index
                for item in measured.data
                if item.operation.name == "measure"
            )
        )
    return found


def test_qubits_that_circuits_cannot_have_any_more_are_refused(tmp_path: Path):
    (experiment,) = experiments_of(circuit(), None, ["ZZZZZZ"])
    run = Keeping()
    for couplings in (LINE, [*LINE[::2], [1, 4], [3, 6], [5, 8], [7, 2]]):
        sampler = sampler_of(tmp_path / "jobs")
        own = GenericBackendV2(10, coupling_map=couplings, noise_info=True, seed=1)
        sampler.backend()._target = own.target
        backend = SamplerBackend(sampler).mitigated(Mitigation(readout=True, calibration_shots=10))
        if couplings is LINE:
            first = backend.readout(experiment, run)
            again = backend.readout(experiment, run)
            np.testing.assert_array_equal(first.observed, again.observed)
            continue
        with pytest.raises(InputError, match=r"calibrated again.*give a new journal"):
            backend.readout(experiment, run)


def test_a_calibration_is_divided_into_jobs_as_a_device_takes_them():
    sampler = OnDevice()
    backend = SamplerBackend(
        sampler, defer_measurements=False, shots_per_circuit=900, circuits_per_job=4
    )
    backend = backend.mitigated(Mitigation(readout=True, calibration_shots=2000))
    readout = backend.readout(experiment_on(2))
    assert sampler.jobs == [[667] * 4, [667] * 2]
    whole = calibrated_backend(OnDevice(Device("whole"))).readout(experiment_on(2))
    # Both are within five standard errors of the same.
    apart = np.hypot(readout.stderrs, whole.stderrs)
    assert (np.abs(readout.flips - whole.flips) <= 5 * apart).all()
    single = SamplerBackend(
        OnDevice(Device("single")), defer_measurements=False, circuits_per_job=1
    )
    single = single.mitigated(Mitigation(readout=True, calibration_shots=2000))
    single.readout(experiment_on(2))
    assert single.sampler.jobs == [[2000]] * 2


def test_simulators_of_one_name_are_calibrated_each_with_its_own_random_numbers():
    devices = [SamplerV2.from_backend(FakeManilaV2()) for _ in range(2)]
    alone = calibrated_backend(devices[0]).readout(experiment_on(2))
    own = [calibrated_backend(device) for device in devices]
    first, second = (
        device.readout(experiment_on(2), NoRun().at(place)) for place, device in enumerate(own)
    )
    np.testing.assert_array_equal(first.flips, alone.flips)
    np.testing.assert_array_equal(first.qubits, second.qubits)
    assert (first.flips != second.flips).all()


def test_devices_are_calibrated_at_their_places():
    """Fragments of two equal devices: what is measured of one is not that of the other."""
    experiments = placed([Noisy("a"), Noisy("b")])[1]
    sampler = SamplerV2.from_backend(FakeManilaV2())
    backend = Devices([sampler, SamplerV2.from_backend(FakeManilaV2())])
    view = backend.placed(experiments).mitigated(Mitigation(readout=True, calibration_shots=SHOTS))
    found = {}
    for experiment in experiments:
        readout = view.readout(experiment)
        rates = dict(zip(readout.qubits.tolist(), readout.flips.tolist(), strict=True))
        found.setdefault(readout.device, {}).update(rates)
    one, other = found.values()
    assert all(one[qubit] != other[qubit] for qubit in one.keys() & other.keys())


def test_what_two_samplers_know_of_one_device_is_one_calibration():
    """Of a real device, by its name: their errors are no independent ones."""
    first, second, third = (OnDevice(), OnDevice(), OnDevice(Device("there")))
    backends = [SamplerBackend(own, defer_measurements=False) for own in (first, second, third)]
    experiments = placed([Noisy("a"), Noisy("b"), Noisy("c")])[1]
    view = Devices(backends).placed(experiments)
    view = view.mitigated(Mitigation(readout=True, calibration_shots=SHOTS))
    found = {view.device_of(own): view.readout(own) for own in experiments}
    assert sorted(found) == sorted(view.names)
    names = [found[name].device for name in view.names]
    assert names == [view.names[0], view.names[0], view.names[2]]
    assert (len(first.jobs) + len(second.jobs), len(third.jobs)) == (1, 1)


def test_a_run_that_goes_on_has_its_fragments_where_they_were():
    """Where a device would be taken now whose noise is less than it was."""
    devices, experiments, mitigation = placed([Noisy("a"), Noisy("b")])
    run, mine = Keeping(), experiments[0]
    first = devices.mitigated(mitigation).readout(mine, run)
    for items in ([Noisy("a"), Noisy("b")], [Noisy("a", qubits=1), Noisy("b", qubits=1)]):
        for start in (0, 1):
            view = Devices(items).mitigated(mitigation)
            view._places[mine.fragment.index, mine.fragment.key] = start, 0.0
            assert view.readout(mine, run).device == first.device


def test_a_run_that_goes_on_has_its_fragments_where_they_were_simulated():
    """As results of the simulator have no errors of readout that a device's could be taken for."""
    devices, experiments, mitigation = placed([StatevectorBackend(), Noisy("b")])
    run, mine = Keeping(), experiments[0]
    view = devices.mitigated(mitigation)
    view._places[mine.fragment.index, mine.fragment.key] = 0, 0.0
    assert view.readout(mine, run).device == "statevector"
    again = Devices([StatevectorBackend(), Noisy("b")]).mitigated(mitigation)
    again._places[mine.fragment.index, mine.fragment.key] = 1, 0.0
    assert again.readout(mine, run).device == "statevector"


def test_a_run_that_goes_on_is_refused_without_the_device_of_its_results():
    """Lost before it is asked, or as it is."""

    class Lost(Noisy):
        def readout(self, experiment, run=None):
            raise ConnectionError("no route to host")

    devices, experiments, mitigation = placed([Noisy("a"), Noisy("b")])
    run = Keeping()
    for experiment in experiments:
        first = devices.mitigated(mitigation).readout(experiment, run).device
        names = ("a", "b")
        items = [Lost(name) if name == first else Noisy(name) for name in names]
        view = Devices(items).placed(experiments).mitigated(mitigation)
        for _ in range(2):
            message = rf"in the journal are those of {first}, which was lost.*or give a new journal"
            with pytest.raises(DeviceLostError, match=message):
                view.readout(experiment, run)


def test_a_list_of_simulators_alone_has_no_noise():
    for backend in (StatevectorBackend(), [StatevectorBackend()]):
        with pytest.raises(InputError, match=r"statevector\)? has no noise that it could take out"):
            DistributedEstimator(
                "AB", backend, options=EstimatorOptions(mitigation=Mitigation(readout=True))
            )
