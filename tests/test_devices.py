"""Several devices as one backend: where fragments run, and what happens when a device goes away."""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import entangled, reference
from qiskit import QuantumCircuit
from qiskit.primitives import BackendSamplerV2, StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer.noise import NoiseModel
from qiskit_aer.primitives import SamplerV2
from qiskit_ibm_runtime.fake_provider import FakeLimaV2, FakeManilaV2

from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions, Mitigation
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.devices import Devices
from distributed_estimator.backends.placement import expected_noise, soonest
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import (
    BackendError,
    DeviceLostError,
    InputError,
    RecordError,
    TaskFailedError,
    ThrottledError,
)
from distributed_estimator.execution import Policy, Retry
from distributed_estimator.pubs import merge, read_pubs
from distributed_estimator.records import (
    DeviceRecord,
    RecordWriter,
    TaskRecord,
    read_records,
)
from distributed_estimator.subexperiments import Readout, make_tasks

SHOTS = 512
MOST = 5.0
"""Standard errors a value may be off by: a normal does so once in two million values."""


class Device:
    """The local simulator as a device: so wide, with the readout of another, which may fail.

    Jobs after the first `lives` raise `error`.
    """

    exact = False

    def __init__(self, name, qubits=None, lives=None, error=None, circuits=4):
        self.name, self.max_qubits, self.circuits = name, qubits, circuits
        self.lives, self.error = lives, error or ConnectionError("no route to host")
        self.inner = StatevectorBackend()
        self.ran, self.asked, self.lock = [], 0, threading.Lock()

    @property
    def identity(self):
        return f"device {self.name}"

    def rows_per_task(self, experiment):
        return 1

    def circuits_per_task(self, experiment):
        return self.circuits

    def row_bytes(self, *_):
        return 0

    def expected_seconds(self, *_):
        return 1.0

    def run(self, experiment, task):
        with self.lock:
            self.asked += 1
            if self.lives is not None and len(self.ran) >= self.lives:
                raise self.error
            self.ran.append((experiment.fragment.index, task.key))
        return self.inner.run(experiment, task)

    def __getstate__(self):
        return {**vars(self), "lock": None}

    def __setstate__(self, state):
        vars(self).update(state, lock=threading.Lock())


class Noisy(Device):
    """A device whose readout can be calibrated."""

    calibrated = 0

    def mitigated(self, mitigation, factor=1):
        return self

    def readout(self, experiment, run=None):
        self.calibrated += 1
        none = np.zeros((1, 1), dtype=int)
        return Readout(self.name, none[0], none[0] / 1.0, none[0] / 1.0, none, none)


def chain(qubits=6):
    circuit = entangled(qubits, seed=4, layers=1)
    return circuit, "Z" * qubits


def estimate(backend, cuts="AABBCC", *, workers=4, seed=5, trace=None, shots=SHOTS, **options):
    circuit, observable = chain()
    options = EstimatorOptions(shots=shots, seed=seed, **options)
    with DistributedEstimator(
        cuts, backend, workers=workers, options=options, trace=trace
    ) as estimator:
        return estimator.run([(circuit, observable)]).result()[0].data


def homes(*devices):
    """The fragments that ran on each device."""
    return [{fragment for fragment, _ in device.ran} for device in devices]


def jobs(path):
    return [record for record in read_records(path) if isinstance(record, DeviceRecord)]


def agrees(data):
    circuit, observable = chain()
    assert abs(data.evs - reference(circuit, observable)) <= MOST * data.stds
    assert data.stds > 0


# -- placement -------------------------------------------------------------------------------------


def test_each_fragment_runs_on_one_device_and_all_devices_have_work():
    devices = [Device("a"), Device("b"), Device("c")]
    agrees(estimate(devices))
    ran = homes(*devices)
    assert sorted(itertools.chain(*ran)) == [0, 1, 2], "a fragment on each, and none on two"


def test_a_fragment_never_goes_to_a_device_that_is_too_narrow():
    narrow, wide = Device("narrow", qubits=2), Device("wide", qubits=4)
    agrees(estimate([narrow, wide], "AAAABB"))
    assert homes(narrow, wide) == [{1}, {0}]
    # The wide one is kept free for what no other takes, whatever comes first.
    narrow, wide = Device("narrow", qubits=2), Device("wide", qubits=4)
    estimate([wide, narrow], "AABBBB")
    assert homes(narrow, wide) == [{0}, {1}]


def test_a_fragment_that_no_device_takes_is_refused_with_all_widths():
    devices = [Device("a", qubits=2), Device("b", qubits=3)]
    with pytest.raises(BackendError, match=r"has 4 qubits.*a takes 2, b takes 3.*max_qubits=3"):
        estimate(devices, "AAAABB")
    assert not any(device.asked for device in devices)


def test_the_widths_of_devices_are_those_of_an_automatic_cut():
    devices = [Device("a", qubits=2), Device("b", qubits=4)]
    agrees(estimate(devices, AutoCut(max_qubits=[2, 4])))
    assert all(device.ran for device in devices)


def test_placement_follows_from_the_plan_and_not_from_time_or_workers():
    values, placements = set(), []
    for workers in (1, 2, 8):
        devices = [Device("a"), Device("b")]
        values.add(float(estimate(devices, workers=workers).evs))
        placements.append(homes(*devices))
    assert len(values) == 1
    assert placements[0] == placements[1] == placements[2]
    assert all(placements[0])


def test_all_rounds_of_a_run_stay_on_the_device():
    devices = [Device("a"), Device("b")]
    circuit, observable = chain()
    estimator = DistributedEstimator("AABBCC", devices, options=EstimatorOptions(seed=1))
    data = estimator.run([(circuit, observable)], precision=0.05).result()[0].data
    agrees(data)
    assert set.intersection(*homes(*devices)) == set()
    assert len(devices[0].ran) + len(devices[1].ran) > 6, "a pilot and a main round"


def test_the_local_simulator_gives_exact_values_alone_and_not_beside_a_sampler():
    circuit, observable = chain()
    exact = DistributedEstimator("AABBCC", [StatevectorBackend(), StatevectorBackend(1 << 30)])
    found = exact.run([(circuit, observable)], precision=0).result()[0].data.evs
    assert found == pytest.approx(reference(circuit, observable), abs=1e-10)
    mixed = DistributedEstimator("AABBCC", [StatevectorBackend(), StatevectorSampler()])
    with pytest.raises(BackendError, match=r"devices\(statevector, qiskit.StatevectorSampler\) s"):
        mixed.run([(circuit, observable)], precision=0).result()


def noisy(error):
    """Two qubits whose gates and measurements err with this probability."""
    backend = GenericBackendV2(2, basis_gates=["cx", "id", "rz", "sx", "x"], seed=1)
    for name in ("cx", "sx", "x", "measure"):
        for properties in backend.target[name].values():
            properties.error = error
    return backend


def test_noise_makes_a_device_the_last_to_be_used():
    circuit, observable = chain()
    clean, dirty = (SamplerBackend(SamplerV2.from_backend(noisy(e))) for e in (1e-3, 0.2))
    estimator = DistributedEstimator("AABBCC", [dirty, clean])
    work = estimator.pipeline.preparation.prepare(circuit, _observables(observable))[0].work
    assert [work.backend.device_of(own) for own in work.experiments] == [clean.name + " #2"] * 3
    found = [expected_noise(work.experiments[1], device) for device in (clean, dirty)]
    assert found[1] == pytest.approx(found[0] * np.log(0.8) / np.log(0.999))
    assert expected_noise(work.experiments[1], StatevectorBackend()) == 0


@pytest.mark.parametrize("error", [np.nan, -1.0])
def test_errors_that_are_none_do_not_count(error):
    circuit, observable = chain()
    strange = noisy(1e-3)
    strange.target["measure"][0,].error = error
    devices = [SamplerBackend(BackendSamplerV2(backend=own)) for own in (strange, noisy(1e-3))]
    work = DistributedEstimator("AABBCC", devices).pipeline.preparation
    experiments = work.prepare(circuit, _observables(observable))[0].work.experiments
    one, other = (expected_noise(experiments[1], device) for device in devices)
    assert one == other > 0


def _observables(text):
    return merge(read_pubs([(chain()[0], text)], None)).observables


def test_queues_count_where_they_are_asked_for():
    circuit, observable = chain()
    full = SamplerV2.from_backend(noisy(1e-3))
    full._backend.status = lambda: SimpleNamespace(pending_jobs=50, operational=True)
    free = SamplerV2.from_backend(noisy(1e-3))
    for queues, expected in ((False, 2), (True, 1)):
        estimator = DistributedEstimator("AABBCC", Devices([full, free], queues=queues))
        work = estimator.pipeline.preparation.prepare(circuit, _observables(observable))[0].work
        assert len({work.backend.device_of(own) for own in work.experiments}) == expected


def test_a_large_fragment_is_left_to_those_with_the_memory_for_it():
    small, other = StatevectorBackend(memory_limit=100), Device("other")
    agrees(estimate([small, other]))
    assert homes(other) == [{0, 1, 2}]


def test_the_router_takes_the_first_of_the_soonest_that_take_the_job():
    def server(ready, most):
        return SimpleNamespace(
            takes=lambda circuits: circuits <= most, estimate=lambda *_: ready, ready=ready
        )

    servers = [server(3.0, 9), server(1.0, 2), server(2.0, 9), server(2.0, 9)]
    assert soonest(servers, 5, 1, 0.0) is servers[2]
    assert soonest(servers, 1, 1, 0.0) is servers[1]
    assert soonest(servers, 10, 1, 0.0) is None


# -- failover --------------------------------------------------------------------------------------


def test_one_of_two_devices_dies_and_nothing_is_lost_or_done_twice(tmp_path, caplog):
    dying, other = Device("dying", lives=3), Device("other")
    trace = tmp_path / "trace.jsonl"
    with caplog.at_level(logging.WARNING, "distributed_estimator"):
        agrees(estimate([dying, other], trace=trace))
    records = jobs(trace)
    done = Counter(record.task for record in records if record.status == "done")
    tasks = {r.key for r in read_records(trace) if isinstance(r, TaskRecord)}
    assert set(done) == tasks
    assert set(done.values()) == {1}
    on_dying = [record for record in records if record.device == "dying"]
    assert sum(record.status == "done" for record in on_dying) == 3
    failed = {record.task for record in on_dying if record.status == "failed"}
    assert failed
    assert failed <= {r.task for r in records if r.device == "other" and r.status == "done"}
    lost = [r.getMessage() for r in caplog.records if "is lost" in r.getMessage()]
    assert lost == ["the device dying is lost: it cannot be reached (ConnectionError)"]
    assert any("leaves dying for other" in r.getMessage() for r in caplog.records)
    # Every job has a number on its device, and they count from 0.
    assert sorted(record.job for record in on_dying) == list(range(len(on_dying)))


@pytest.mark.parametrize("lives", [0, 1, 5])
def test_a_device_that_dies_gives_the_right_value_at_any_time(lives):
    dying, other = Device("dying", lives=lives), Device("other")
    agrees(estimate([dying, other], policy=Policy(retry=Retry(attempts=1))))
    assert len(dying.ran) == lives
    keys = [key for device in (dying, other) for _, key in device.ran]
    assert len(keys) == len(set(keys))


def test_a_device_is_left_by_a_fragment_after_failures_in_a_row():
    failing, other = Device("failing", lives=2, error=RuntimeError("out of cold")), Device("other")
    agrees(estimate([failing, other], workers=1))
    # Its jobs were sent three times in a row, and no more.
    assert (len(failing.ran), failing.asked) == (2, 5)
    other = Device("other")
    failing = Device("failing", lives=0, error=RuntimeError("out of cold"))
    estimate(Devices([failing, other], failures=1), workers=1)
    own = 3 - len({f for f, _ in other.ran} - {0, 1, 2})
    assert failing.asked <= own


def test_one_failure_moves_nothing():
    class Hiccup(Device):
        def run(self, experiment, task):
            if self.asked == 2:
                self.asked += 1
                raise RuntimeError("hiccup")
            return super().run(experiment, task)

    devices = [Hiccup("a"), Device("b")]
    calm = [Device("a"), Device("b")]
    assert float(estimate(devices, workers=1).evs) == float(estimate(calm, workers=1).evs)
    assert homes(*devices) == homes(*calm)


def test_a_lost_device_is_not_asked_again_by_later_runs():
    dying, other = Device("dying", lives=1), Device("other")
    circuit, observable = chain()
    options = EstimatorOptions(shots=SHOTS, seed=1)
    with DistributedEstimator("AABBCC", [dying, other], workers=1, options=options) as estimator:
        estimator.run([(circuit, observable)]).result()
        asked = dying.asked
        agrees(estimator.run([(circuit, observable)]).result()[0].data)
        agrees(estimator.run([(circuit.copy(), observable)]).result()[0].data)
    assert dying.asked == asked
    shares = {share.device: share for share in estimator.backend.shares}
    assert shares["dying"].gone == "it cannot be reached (ConnectionError)"
    assert shares["other"].gone is None


def test_where_no_device_is_left_each_is_named_with_its_cause():
    devices = [
        Device("a", lives=1),
        Device("b", lives=0, error=RuntimeError("out of cold")),
        Device("c", qubits=1),
    ]
    with pytest.raises(DeviceLostError, match="no device is left for fragment") as caught:
        estimate(devices)
    for text in (
        "a: it cannot be reached (ConnectionError)",
        "b: its jobs failed 3 times in a row, at last because RuntimeError: out of cold",
        "c: it takes 1 qubits, the fragment has 2",
        "run again with a new estimator",
    ):
        assert text in str(caught.value)


def test_errors_that_are_no_devices_fault_move_nothing():
    for error in (InputError("no such gate"), MemoryError(), OSError(24, "Too many open files")):
        devices = [Device("a", lives=0, error=error), Device("b")]
        backend = Devices(devices)
        with pytest.raises((InputError, TaskFailedError)):
            estimate(backend)
        assert all(share.gone is None for share in backend.shares)
        assert len(homes(devices[1])[0]) < 3


def test_a_throttled_job_waits_and_stays():
    class Busy(Device):
        def run(self, experiment, task):
            if self.asked == 1:
                self.asked += 1
                raise ThrottledError("come again", 0.0)
            return super().run(experiment, task)

    devices = [Busy("a"), Device("b")]
    agrees(estimate(devices))
    assert set.intersection(*homes(*devices)) == set()


def test_a_device_that_reports_to_be_offline_is_left_at_once():
    broken = SamplerV2.from_backend(noisy(1e-3))
    broken._backend.status = lambda: SimpleNamespace(pending_jobs=0, operational=False)
    broken.run = None  # calling it raises
    backend = Devices([broken, Device("other")])
    agrees(estimate(backend))
    share = backend.shares[0]
    assert share.gone.startswith("it is offline (")
    assert (share.tasks, share.failed) == (0, share.failed)
    assert share.failed <= 4, "once for each worker that had a job there"


class Service(Device):
    """A device whose jobs go to a service, whose connection is lost once a job was sent."""

    has_service = True
    book = log = None
    sent = ()
    closed = 0

    def with_jobs(self, book, log):
        self.book, self.log = book, log
        return self

    def close(self):
        self.closed += 1

    def has_job(self, experiment, task):
        return task.key in self.sent

    def run(self, experiment, task):
        self.sent = [*self.sent, task.key]
        return super().run(experiment, task)


def test_a_job_that_a_lost_device_has_is_not_paid_for_twice_where_a_journal_has_it(caplog):
    service, other = Service("service", lives=1), Device("other")
    journal, log = object(), object()
    backend = Devices([service, other])
    view, experiments, _ = placed(backend)
    backend.with_jobs(journal, log)
    assert (service.book, service.log, backend.has_service) == (journal, log, True)
    view = view.with_jobs(journal, None)
    mine = next(e for e in experiments if view.device_of(e) == "service")
    tasks = list(
        make_tasks(
            *(0, mine, np.zeros((1, len(mine.fragment.angles))), 10, "run"),
            **{"rows_per_task": 1, "circuits_per_task": 1, "chunks": 1},
        )
    )
    view.run(mine, tasks[0])
    with pytest.raises(DeviceLostError, match=r"was sent to service.*which fetches the job; or"):
        view.run(mine, tasks[1])
    view.run(mine, tasks[2])  # which was never sent
    assert other.ran == [(mine.fragment.index, tasks[2].key)]
    # Without a journal nothing could fetch it.
    view.with_jobs(None, None).run(mine, tasks[1])
    assert other.ran[-1] == (mine.fragment.index, tasks[1].key)
    assert "may be charged: other has it now" in caplog.text
    view.close()
    assert service.closed == 1


# -- mitigation ------------------------------------------------------------------------------------


def placed(backend, **mitigation):
    """Devices that are mitigated, and the experiments that they are placed for."""
    circuit, observable = chain()
    estimator = DistributedEstimator("AABBCC", backend)
    work = estimator.pipeline.preparation.prepare(circuit, _observables(observable))[0].work
    return work.backend, work.experiments, Mitigation(**(mitigation or {"readout": True}))


def task_of(experiment):
    angles = np.zeros((1, len(experiment.fragment.angles)))
    return next(
        make_tasks(
            *(0, experiment, angles, 10, "run"), rows_per_task=1, circuits_per_task=1, chunks=1
        )
    )


def test_readout_is_that_of_the_fragments_device():
    devices, experiments, mitigation = placed([Noisy("a"), Noisy("b")])
    view = devices.mitigated(mitigation)
    for experiment in experiments:
        assert view.readout(experiment).device == devices.device_of(experiment)
    assert len({devices.device_of(experiment) for experiment in experiments}) == 2


def test_a_fragment_does_not_move_once_its_weights_are_for_a_device():
    a, b = Noisy("a"), Noisy("b")
    devices, experiments, mitigation = placed([a, b])
    view = devices.mitigated(mitigation)
    mine = next(e for e in experiments if view.readout(e).device == "a")
    a.lives = 0
    # Not now, and not in a later run on the same devices: its weights might be older.
    for own in (view, view.placed(experiments), devices.mitigated(mitigation)):
        with pytest.raises(DeviceLostError, match=r"device a was lost.*new estimator whose list"):
            own.run(mine, task_of(mine))
        with pytest.raises(DeviceLostError, match="leaves that device out"):
            own.readout(mine)
    # The remedy, and what is not mitigated.
    again = placed([b])[0].mitigated(mitigation)
    assert again.readout(mine).device == "b"
    devices.run(mine, task_of(mine))
    assert b.ran[-1][0] == mine.fragment.index


def test_a_device_that_is_gone_before_it_did_anything_costs_no_mitigated_run():
    class Uncalibrated(Noisy):
        def readout(self, experiment, run=None):
            raise BackendError("qubit 2 is misread too often")

    for gone in (Uncalibrated("a"), Noisy("a", lives=0)):
        devices, experiments, mitigation = placed([gone, Noisy("b")])
        view = devices.mitigated(mitigation).placed(experiments)
        for own in experiments:
            if not isinstance(gone, Uncalibrated):
                view.run(own, task_of(own))
            assert view.readout(own).device == "b"
        assert not gone.ran


def test_noise_factors_of_a_run_are_those_of_one_device():
    a, b = Noisy("a"), Noisy("b")
    devices, experiments, mitigation = placed([a, b], zne=True)
    first, third = (devices.mitigated(mitigation, own).placed(experiments) for own in (1, 3))
    assert [third.device_of(own) for own in experiments] == [
        devices.device_of(own) for own in experiments
    ]
    mine = next(e for e in experiments if first.device_of(e) == "a")
    first.run(mine, task_of(mine))
    a.lives = 0
    for own in (third, devices.mitigated(mitigation, 5), devices.mitigated(mitigation, 1)):
        with pytest.raises(DeviceLostError):
            own.run(mine, task_of(mine))
    assert not b.ran


def test_no_process_moves_a_fragment_of_a_mitigated_run_by_itself():
    devices, experiments, mitigation = placed([Noisy("a", lives=0), Noisy("b")], zne=True)
    mine = next(own for own in experiments if devices.device_of(own) == "a")
    view = devices.mitigated(mitigation)
    with pytest.raises(DeviceLostError):
        pickle.loads(pickle.dumps(view)).run(mine, task_of(mine))


def test_fragments_of_the_same_number_in_two_plans_are_told_apart():
    narrow, wide = Noisy("narrow", qubits=2), Noisy("wide", qubits=4)
    circuit, observable = chain()
    devices = Devices([narrow, wide]).mitigated(Mitigation(readout=True))
    for cuts, expected in (("AABBBB", "narrow"), ("AAAABB", "wide")):
        estimator = DistributedEstimator(cuts, StatevectorBackend())
        prepared = estimator.pipeline.preparation.prepare(circuit, _observables(observable))[0]
        assert devices.device_of(prepared.work.experiments[0]) == expected


def test_a_job_that_cannot_be_recorded_is_not_run_again(tmp_path, caplog):
    class Full(RecordWriter):
        def write(self, record):
            raise RecordError("the disk is full")

    devices = [Device("a"), Device("b")]
    backend = Devices(devices, log=Full(tmp_path / "log.jsonl"))
    agrees(estimate(backend))
    keys = [key for device in devices for _, key in device.ran]
    assert len(keys) == len(set(keys))
    assert "is not recorded: the disk is full" in caplog.text


def test_a_simulator_has_no_noise_and_others_without_a_remedy_are_refused():
    devices, experiments, mitigation = placed([StatevectorBackend(), Noisy("b")])
    view = devices.mitigated(mitigation)
    mine = next(e for e in experiments if devices.device_of(e) == "statevector")
    readout = view.readout(mine)
    assert not readout.flips.any()
    assert readout.observed.shape == (mine.layout.num_settings, mine.fragment.num_qubits)
    assert readout.slots.shape == (mine.layout.num_settings, len(mine.fragment.slots))
    devices, _, _ = placed([Device("plain"), Noisy("b")])
    with pytest.raises(InputError, match="the device plain can do nothing about its noise"):
        devices.mitigated(mitigation)


class Mortal(SamplerV2):
    """Aer's sampler of a device that is lost after some jobs, of all its copies together."""

    def run(self, pubs, *, shots=None):
        if next(self.jobs) >= self.lives:
            raise ConnectionError("no route to host")
        return super().run(pubs, shots=shots)


def mortal(device, lives):
    sampler = Mortal.from_backend(device)
    sampler.jobs, sampler.lives = itertools.count(), lives
    return SamplerBackend(sampler, circuits_per_job=2)


def on_two(lives, **options):
    """A value from two devices, of which the first has so many lives, and the exact one."""
    circuit = QuantumCircuit(4)
    circuit.ry(0.3, range(4))
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    devices = [mortal(FakeManilaV2(), lives), SamplerV2.from_backend(FakeLimaV2())]
    options = EstimatorOptions(shots=1000, seed=1, **options)
    with DistributedEstimator("AABB", devices, workers=2, options=options) as estimator:
        data = estimator.run([(circuit, "ZZZZ")]).result()[0].data
    assert all(share.tasks for share in estimator.backend.shares)
    return data, reference(circuit, "ZZZZ")


def test_readout_is_mitigated_on_each_device_for_itself():
    plain, exact = on_two(100)
    mitigated, _ = on_two(100, mitigation=Mitigation(readout=True))
    # Measured 0.127 and 0.008 with standard errors of 0.013 and 0.015; what gates do stays.
    assert abs(plain.evs - exact) > MOST * plain.stds
    assert abs(mitigated.evs - exact) < abs(plain.evs - exact) / 2


def misreading(probability):
    noise = NoiseModel()
    right = 1 - probability
    noise.add_all_qubit_readout_error([[right, probability], [probability, right]])
    return SamplerV2(options={"backend_options": {"noise_model": noise}})


def test_readout_of_fragments_that_are_alike_is_that_of_their_own_devices():
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, [0, 1])
    options = EstimatorOptions(shots=20_000, seed=1, mitigation=Mitigation(readout=True))
    devices = [misreading(0.02), misreading(0.2)]
    with DistributedEstimator("AB", devices, workers=1, options=options) as estimator:
        data = estimator.run([(circuit, "ZZ")]).result()[0].data
    assert all(share.tasks for share in estimator.backend.shares)
    assert abs(data.evs - np.cos(0.4) ** 2) < MOST * data.stds


def test_a_device_that_dies_ends_a_mitigated_run_with_its_name_and_no_other():
    survived, exact = on_two(2)
    assert abs(survived.evs - exact) < 0.2
    with pytest.raises(DeviceLostError, match=r"fake_manila\)+ was lost .*mitigation of fragment"):
        on_two(2, mitigation=Mitigation(readout=True))


# -- what they are, together -----------------------------------------------------------------------


def test_tasks_are_divided_the_same_wherever_they_run():
    devices, experiments, _ = placed([Device("a", circuits=7), Device("b", circuits=3)])
    assert {devices.circuits_per_task(own) for own in experiments} == {3}
    assert {devices.rows_per_task(own) for own in experiments} == {1}


def test_names_and_identities_tell_devices_apart():
    one = Devices([StatevectorSampler(), StatevectorSampler(seed=1)])
    assert one.names == ("qiskit.StatevectorSampler", "qiskit.StatevectorSampler #2")
    a, b = Device("a"), Device("b")
    identities = {Devices(own).identity for own in ([a], [b], [a, b], [b, a])}
    assert len(identities) == 4
    assert Devices([Device("a", qubits=3), Device("b", qubits=5)]).max_qubits == 5
    assert Devices([Device("a", qubits=3), Device("b")]).max_qubits is None


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the list of devices is empty"),
        (["fake_manila"], "'fake_manila'"),
        ([StatevectorBackend], "StatevectorBackend"),
        ([None], "holds None: give an instance .*, or StatevectorBackend"),
    ],
)
def test_lists_that_are_refused(items, message):
    with pytest.raises(InputError, match=message):
        DistributedEstimator("AB", items)


def test_a_device_that_comes_twice_is_refused():
    sampler = StatevectorSampler()
    for items in ([sampler, sampler], [SamplerBackend(sampler), sampler], [Device("a")] * 2):
        with pytest.raises(InputError, match="comes twice in the list"):
            DistributedEstimator("AB", items)


def test_backends_of_qiskit_are_devices_with_unlike_bases():
    bases = (["cx", "id", "rz", "sx", "x"], ["ecr", "id", "rz", "sx", "x"])
    qiskit = [GenericBackendV2(3, basis_gates=own, noise_info=False, seed=1) for own in bases]
    backend = Devices([*qiskit, StatevectorBackend()])
    agrees(estimate(backend, shots=128))
    assert all(share.tasks for share in backend.shares)


def test_shares_add_up_to_what_ran(tmp_path):
    trace = tmp_path / "trace.jsonl"
    backend = Devices([Device("a"), Device("b")])
    estimate(backend, trace=trace)
    records, shares = jobs(trace), backend.shares
    for share in shares:
        own = [record for record in records if record.device == share.device]
        assert share.tasks == len(own) > 0
        assert share.circuits == sum(record.circuits for record in own)
        assert share.shots == sum(record.circuits * record.shots for record in own)
        seconds = sum(record.finished - record.started for record in own)
        assert share.seconds == pytest.approx(seconds)
    assert sum(share.failed for share in shares) == 0


def used(backend, cuts="AABBCC", **options):
    circuit, observable = chain()
    options = EstimatorOptions(**{"shots": SHOTS, "seed": 5, **options})
    with DistributedEstimator(cuts, backend, workers=2, options=options) as estimator:
        return estimator.run([(circuit, observable)]).result()[0].metadata


def test_results_say_what_each_device_did():
    devices = [Device("a"), Device("b"), Device("idle")]
    metadata = used(devices, "AAABBB")
    *own, idle = homes(*devices)
    assert not idle
    for entry, device, home in zip(metadata["devices"], devices, own, strict=False):
        assert (entry["device"], set(entry["fragments"])) == (device.name, home)
        assert entry["jobs"] == len(device.ran)
        assert entry["shots"] == SHOTS * entry["circuits"]
        assert (entry["calibration_shots"], entry["calibrated_at"]) == (0, None)
    assert len(metadata["devices"]) == 2
    assert sum(entry["shots"] for entry in metadata["devices"]) == metadata["shots_total"]
    circuits = sum(entry["circuits"] for entry in metadata["devices"])
    assert circuits == metadata["num_subexperiments"]


def test_results_say_what_was_done_by_a_device_that_was_lost():
    dying, other = Device("dying", lives=3), Device("other")
    entries = {entry["device"]: entry for entry in used([dying, other])["devices"]}
    assert {name: entry["jobs"] for name, entry in entries.items()} == {
        "dying": 3,
        "other": len(other.ran),
    }
    assert set(entries["dying"]["fragments"]) == homes(dying)[0]


def test_results_say_what_calibrations_took():
    mitigation = Mitigation(readout=True, calibration_shots=100, zne=True)
    devices = [SamplerV2.from_backend(FakeManilaV2()), SamplerV2.from_backend(FakeLimaV2())]
    metadata = used(devices, "AAABBB", mitigation=mitigation, shots=100)
    assert [entry["calibration_shots"] for entry in metadata["devices"]] == [200, 200]
    times = [entry["calibrated_at"] for entry in metadata["devices"]]
    assert min(times) == metadata["mitigation"]["calibrated_at"]
    assert sum(entry["shots"] for entry in metadata["devices"]) == metadata["shots_total"]
    (alone,) = used(devices[0], "AAABBB", mitigation=mitigation, shots=100)["devices"]
    assert alone["device"] == "qiskit_aer.SamplerV2(aer_simulator_from(fake_manila))"
    assert (alone["fragments"], alone["calibration_shots"]) == ([0, 1], 200)
    (exact,) = used(None, shots=None, default_precision=0)["devices"]
    assert (exact["device"], exact["fragments"], exact["shots"]) == ("statevector", [0, 1, 2], 0)


def test_a_journal_has_what_was_done_before_all_devices_were_lost(tmp_path):
    circuit, observable = chain()
    options = EstimatorOptions(shots=SHOTS, seed=3)

    def value(devices, journal=None):
        with DistributedEstimator(
            "AABBCC", devices, workers=2, options=options, journal=journal
        ) as estimator:
            return float(estimator.run([(circuit, observable)]).result()[0].data.evs)

    first = [Device("a", lives=3), Device("b", lives=2)]
    with pytest.raises(DeviceLostError, match="no device is left"):
        value(first, tmp_path / "run.journal")
    second, undisturbed = ([Device("a"), Device("b")] for _ in range(2))
    assert value(second, tmp_path / "run.journal") == value(undisturbed)
    every = {key for device in undisturbed for _, key in device.ran}
    done = {key for device in first for _, key in device.ran}
    assert len(done) == 5
    assert {key for device in second for _, key in device.ran} == every - done


def test_devices_work_in_other_processes_and_what_cannot_be_sent_is_named():
    circuit, observable = chain()
    values = []
    for pool in ("threads", "processes"):
        options = EstimatorOptions(shots=SHOTS, seed=2, policy=Policy())
        with DistributedEstimator(
            *("AABBCC", [Device("dead", lives=0), Device("b"), Device("c")], pool),
            workers=2,
            options=options,
        ) as estimator:
            values.append(estimator.run([(circuit, observable)]).result()[0].data)
    agrees(values[0])
    assert values[0].evs == values[1].evs
    devices = Devices([Device("a"), Device("b")])
    again = pickle.loads(pickle.dumps(devices))
    assert (again.names, again.identity) == (devices.names, devices.identity)
    stuck = Device("stuck")
    stuck.connection = threading.Lock()
    with pytest.raises(TypeError, match=r"device stuck cannot be sent.*pool=\"threads\""):
        pickle.dumps(Devices([Device("a"), stuck]))
