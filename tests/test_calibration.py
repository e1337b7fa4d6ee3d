"""How often qubits are misread: measured, remembered, kept in the user's cache, and refused."""

from __future__ import annotations

import json
import logging
import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.primitives import BackendSamplerV2, PrimitiveJob, StatevectorSampler
from qiskit_aer.primitives import SamplerV2
from qiskit_ibm_runtime.fake_provider import FakeLimaV2, FakeManilaV2
from test_tasks import experiments_of

from distributed_estimator import Mitigation
from distributed_estimator.backends.calibration import ReadoutCalibration
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import BackendError, InputError
from distributed_estimator.subexperiments import NoisyBackend

MOST = 5.0
SHOTS = 2000
RATES = np.array([[0.01, 0.05], [0.02, 0.1], [0.0, 0.0], [0.2, 0.1]])
"""Of each qubit of `Device`: how likely 0 reads 1, and 1 reads 0."""


class Device:
    """A device with a name, as a service would give it."""

    num_qubits = 4
    max_shots = None
    service = "here"

    def __init__(self, name="here", instance=None):
        self.name, self._instance = name, instance


class Local(Device):
    """One that no service has, so that others may have its name."""

    service = None


class OnDevice(StatevectorSampler):
    """Misreads its qubits by `RATES`, and counts its jobs."""

    def __init__(self, device=None, rates=RATES, seed=1):
        super().__init__(seed=np.random.default_rng(seed))
        self.device, self.rates, self.jobs = device or Device(), rates, []

    def backend(self):
        return self.device

    def run(self, pubs, *, shots=None):
        self.jobs.append([pub[2] for pub in pubs])
        results = super().run(pubs, shots=shots).result()
        for (circuit, *_), result in zip(pubs, results, strict=True):
            bits = result.data["readout"]
            measured = [
                circuit.find_bit(item.qubits[0]).index
                for item in circuit.data
                if item.operation.name == "measure"
            ]
            read = np.unpackbits(bits.array, axis=-1, bitorder="little")[..., : bits.num_bits]
            flips = self._seed.random(read.shape) < self.rates[measured, read]
            bits.array[:] = np.packbits(read ^ flips, axis=-1, bitorder="little")
        job = PrimitiveJob(lambda: results)
        job._submit()
        return job


def product(size):
    circuit = QuantumCircuit(size)
    circuit.h(range(size))
    return circuit


def experiment_on(size, pauli=None):
    """One fragment of some qubits."""
    circuit = product(size)
    for qubit in range(size - 1):
        circuit.cx(qubit, qubit + 1)
    (experiment,) = experiments_of(circuit, None, [pauli or "Z" * size])
    return experiment


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder that calibrations are kept in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "distributed-estimator" / "readout"


def file_in(cache):
    (found,) = cache.iterdir()
    return found


def backend_of(sampler, **options):
    options = {"readout": True, "calibration_shots": SHOTS, **options}
    return SamplerBackend(sampler, defer_measurements=False).mitigated(Mitigation(**options))


# --- What is measured -----------------------------------------------------------------------------


def test_rates_are_means_of_both_preparations(cache):
    backend = backend_of(OnDevice())
    assert isinstance(backend, NoisyBackend)
    readout = backend.readout(experiment_on(4))
    assert readout.device == "here"
    assert readout.qubits.tolist() == [0, 1, 2, 3]
    expected = np.sqrt((RATES * (1 - RATES)).sum(axis=1) / 4 / SHOTS)
    assert (np.abs(readout.flips - RATES.mean(axis=1)) <= MOST * expected).all()
    # A rate of a twentieth is known to a tenth from 2000 shots, its square root to a twentieth.
    np.testing.assert_allclose(readout.stderrs[[0, 1, 3]], expected[[0, 1, 3]], rtol=0.25)
    # No shot of 4000 was misread: at the rate 1/4000 that would come in one case of three.
    assert readout.flips[2] == 0
    assert 0.1 / SHOTS < readout.stderrs[2] < 1 / SHOTS


def test_standard_errors_are_the_spread():
    """400 calibrations: a standard deviation is known within 1/√800, of which 0.18 is five."""
    rng = np.random.default_rng(3)
    found = []
    for zeros, ones in rng.binomial(SHOTS, [0.05, 0.02], (400, 2)).tolist():
        now = datetime.now(UTC)
        found.append(ReadoutCalibration(now, (SHOTS, SHOTS), (0,), (zeros,), (ones,)).rates(0))
    rates, stderrs = np.array(found).T
    assert abs(rates.mean() - 0.035) <= MOST * rates.std() / 20
    assert abs(rates.std() / stderrs.mean() - 1) <= 0.18


def test_places_of_qubits_and_slots():
    """A fragment with a slot on a qubit that is not observed, and settings that do not measure."""
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    experiment = experiments_of(circuit, "AAB", ["ZIZ"])[0]
    (slot,) = experiment.fragment.slots
    sampler = SamplerV2.from_backend(FakeManilaV2())
    backend = backend_of(sampler)
    readout = backend.readout(experiment)
    measured = [o.measures for o in slot.side.basis("full").operations]
    families = {tuple(f.measured): f.numbers for f in experiment.layout.families}
    assert set(families) == {(False,), (True,)}
    assert sum(measured) == len(families[True,])
    assert (readout.slots[families[False,]] == -1).all()
    assert (readout.slots[families[True,]] >= 0).all()
    assert (readout.observed[:, 0] >= 0).all()
    assert (readout.observed[:, 1] == -1).all()
    # Two qubits that are not the same.
    assert len(readout.qubits) == 2
    assert (readout.observed[families[True,], 0] != readout.slots[families[True,], 0]).all()


def test_fake_devices_are_calibrated_to_what_they_say():
    """X gates add a thousandth at most."""
    for device in (FakeManilaV2(), FakeLimaV2()):
        backend = backend_of(SamplerV2.from_backend(device))
        readout = backend.readout(experiment_on(4))
        said = np.array([device.target["measure"][int(q),].error for q in readout.qubits])
        assert (np.abs(readout.flips - said) <= MOST * readout.stderrs + 1e-3).all()


def test_shots_are_divided_as_a_device_takes_them():
    sampler = OnDevice()
    backend = SamplerBackend(sampler, defer_measurements=False, shots_per_circuit=900)
    backend = backend.mitigated(Mitigation(readout=True, calibration_shots=SHOTS))
    readout = backend.readout(experiment_on(2))
    assert sampler.jobs == [[667] * 6]
    assert (np.abs(readout.flips - RATES[:2].mean(axis=1)) < 0.03).all()


# --- What is remembered ---------------------------------------------------------------------------


def test_qubits_are_calibrated_once(caplog):
    sampler = OnDevice()
    backend = backend_of(sampler)
    with caplog.at_level(logging.INFO, "distributed_estimator"):
        first = backend.readout(experiment_on(2))
        again = backend.mitigated(Mitigation(readout=True, calibration_shots=SHOTS), 3)
        second = again.readout(experiment_on(2))
    assert len(sampler.jobs) == 1
    assert sampler.jobs[0] == [SHOTS, SHOTS]
    np.testing.assert_array_equal(first.flips, second.flips)
    assert "readout of here calibrated: qubits 0, 1, 2 circuits of 2000 shots" in caplog.text
    # Only what is not known yet.
    wider = backend.readout(experiment_on(4))
    assert len(sampler.jobs) == 2
    np.testing.assert_array_equal(wider.flips[:2], first.flips)


def test_what_a_real_device_showed_is_kept_for_other_processes(cache):
    one, other = OnDevice(), OnDevice()
    first = backend_of(one).readout(experiment_on(2))
    assert file_in(cache).name.startswith("here")
    second = backend_of(other).readout(experiment_on(2))
    assert not other.jobs
    np.testing.assert_array_equal(first.flips, second.flips)
    np.testing.assert_array_equal(first.stderrs, second.stderrs)
    # A new qubit is added to those that were known.
    backend_of(other).readout(experiment_on(3))
    third = OnDevice()
    backend_of(third).readout(experiment_on(3))
    assert (len(other.jobs), len(third.jobs)) == (1, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SamplerV2.from_backend(FakeManilaV2()),
        lambda: BackendSamplerV2(backend=FakeManilaV2()),
        lambda: SamplerV2(),
        lambda: OnDevice(Device(None)),
        lambda: OnDevice(Local()),
    ],
)
def test_devices_that_no_service_has_and_those_without_a_name_keep_nothing(make, cache):
    backend_of(make(), calibration_shots=50).readout(experiment_on(1))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [(Local(), Local()), (Device(), Local()), (Device(), Device(instance="another"))],
)
def test_devices_that_have_a_name_in_common_are_calibrated_each_by_itself(one, other):
    first, second = OnDevice(one), OnDevice(other, rates=RATES[::-1])
    found = [backend_of(own).readout(experiment_on(2)).flips for own in (first, second)]
    assert (len(first.jobs), len(second.jobs)) == (1, 1)
    assert (found[0] < found[1][::-1]).any()


def test_simulators_repeat_their_calibration():
    found = [
        backend_of(SamplerV2.from_backend(FakeManilaV2())).readout(experiment_on(2)).flips
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)


def test_names_of_devices_are_no_paths(cache):
    backend_of(OnDevice(Device("../a b/c"))).readout(experiment_on(1))
    (path,) = cache.iterdir()
    assert path.parent == cache
    other = OnDevice(Device("../a b/c"))
    backend_of(other).readout(experiment_on(1))
    assert not other.jobs


def test_names_of_devices_that_are_no_text_are_written_as_escapes(cache):
    readout = backend_of(OnDevice(Device("a\ud800"))).readout(experiment_on(1))
    assert readout.device == r"a\ud800"
    assert len(list(cache.iterdir())) == 1


def test_copies_of_a_backend_calibrate_for_themselves():
    backend = backend_of(SamplerV2.from_backend(FakeManilaV2()), calibration_shots=50)
    copy = pickle.loads(pickle.dumps(backend))
    one, other = (own.readout(experiment_on(2)) for own in (backend, copy))
    np.testing.assert_array_equal(one.flips, other.flips)


# --- What is measured again -----------------------------------------------------------------------


def aged(cache, hours):
    path = file_in(cache)
    document = json.loads(path.read_text())
    for own in document["calibrations"]:
        own["taken_at"] = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("age", "limit", "measured"),
    [(23, 24.0, False), (25, 24.0, True), (25, 48.0, False), (-2, 24.0, True), (1e5, 1e300, False)],
)
def test_old_calibrations_are_measured_again(cache, age, limit, measured):
    """And those of the future, as a clock was wrong."""
    backend_of(OnDevice()).readout(experiment_on(2))
    aged(cache, age)
    sampler = OnDevice()
    backend_of(sampler, calibration_hours=limit).readout(experiment_on(2))
    assert bool(sampler.jobs) == measured


def test_what_is_in_memory_ages_too():
    sampler = OnDevice()
    backend = backend_of(sampler, calibration_hours=1e-9)
    for _ in range(2):
        backend.readout(experiment_on(1))
    assert len(sampler.jobs) == 2


def test_calibrations_of_fewer_shots_than_asked_for_are_not_used():
    for shots, jobs in ((SHOTS, 1), (100, 0), (2 * SHOTS, 1), (SHOTS, 0)):
        sampler = OnDevice()
        readout = backend_of(sampler, calibration_shots=shots).readout(experiment_on(2))
        assert len(sampler.jobs) == jobs
    assert readout.stderrs[1] < np.sqrt((RATES[1] * (1 - RATES[1])).sum() / 4 / SHOTS)


def test_calibrations_that_others_may_use_are_kept_beside_those_of_more_shots(cache):
    backend_of(OnDevice()).readout(experiment_on(4))
    for shots in (2 * SHOTS, 4 * SHOTS):
        backend_of(OnDevice(), calibration_shots=shots).readout(experiment_on(1))
    sampler = OnDevice()
    backend_of(sampler).readout(experiment_on(4))
    assert not sampler.jobs
    # That of a number of shots between is of no use to anyone.
    kept = json.loads(file_in(cache).read_text())["calibrations"]
    assert [own["shots"][0] for own in kept] == [SHOTS, 4 * SHOTS]


def rewritten(cache, change):
    path = file_in(cache)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


DAMAGE = {
    "torn": lambda cache: (file_in(cache)).write_text('{"version": 1, "dev'),
    "empty": lambda cache: (file_in(cache)).write_text(""),
    "a list": lambda cache: (file_in(cache)).write_text("[]"),
    "bytes": lambda cache: (file_in(cache)).write_bytes(bytes(range(256))),
    "no device": lambda cache: rewritten(cache, lambda d: d.pop("device")),
    "other device": lambda cache: rewritten(cache, lambda d: d.update(device="there")),
    "later version": lambda cache: rewritten(cache, lambda d: d.update(version=2)),
    "more misread than shots": lambda cache: rewritten(
        cache, lambda d: d["calibrations"][0].update(zeros=[SHOTS + 1, 0])
    ),
    "lengths": lambda cache: rewritten(cache, lambda d: d["calibrations"][0].update(zeros=[1])),
    "text": lambda cache: rewritten(cache, lambda d: d["calibrations"][0].update(zeros=["a", 0])),
    "no shots": lambda cache: rewritten(cache, lambda d: d["calibrations"][0].update(shots=[0, 0])),
    "no time zone": lambda cache: rewritten(
        cache, lambda d: d["calibrations"][0].update(taken_at="2026-01-01T00:00:00")
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_measured_again_and_replaced(cache, name):
    backend_of(OnDevice()).readout(experiment_on(2))
    DAMAGE[name](cache)
    sampler = OnDevice()
    with pytest.warns(UserWarning, match=r"here.*\.json` cannot be used: .* measured again"):
        backend_of(sampler).readout(experiment_on(2))
    assert len(sampler.jobs) == 1
    other = OnDevice()
    backend_of(other).readout(experiment_on(2))
    assert not other.jobs


def test_a_cache_that_cannot_be_written_costs_no_result(cache, caplog):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder would be")
    readout = backend_of(OnDevice()).readout(experiment_on(2))
    assert len(readout.flips) == 2
    assert "the calibration is not kept" in caplog.text


@pytest.mark.parametrize("name", ["here", "d" * 300])
def test_without_a_file_to_keep_them_in_calibrations_are_made_all_the_same(
    name, cache, monkeypatch, caplog
):
    if name == "here":  # as with a user that the system does not know
        for variable in ("XDG_CACHE_HOME", "HOME", "USERPROFILE", "HOMEPATH"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    sampler = OnDevice(Device(name))
    backend = backend_of(sampler)
    for _ in range(2):
        assert len(backend.readout(experiment_on(2)).flips) == 2
    assert len(sampler.jobs) == 1
    assert "are not kept" in caplog.text
    assert not cache.exists()


# --- What is refused ------------------------------------------------------------------------------


def test_qubits_that_are_misread_too_often_are_refused_by_name():
    rates = np.array([[0.01, 0.01], [0.48, 0.48]])
    message = r"qubit 1 of here is misread in 4\d% of shots.*take another device"
    with pytest.raises(BackendError, match=message):
        backend_of(OnDevice(rates=rates)).readout(experiment_on(2))
    backend_of(OnDevice(rates=rates[:1])).readout(experiment_on(1))


def test_a_sampler_that_fails_is_reported():
    class Failing(OnDevice):
        def run(self, pubs, *, shots=None):
            raise ValueError("out of order")

    with pytest.raises(BackendError, match=r"failed to calibrate its readout: out of order"):
        backend_of(Failing()).readout(experiment_on(1))


def test_fragments_wider_than_the_device_are_refused():
    with pytest.raises(BackendError, match=r"fragment 0 \(6 qubits\) cannot be .*manila"):
        backend_of(SamplerV2.from_backend(FakeManilaV2())).readout(experiment_on(6))


def test_deferred_measurements_are_refused():
    with pytest.raises(InputError, match=r"deferred .*: leave `readout` out of Mitigation"):
        SamplerBackend(OnDevice(), defer_measurements=True).mitigated(Mitigation(readout=True))


def test_the_cache_is_where_the_system_has_it(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    backend_of(OnDevice()).readout(experiment_on(1))
    folder = tmp_path / "home" / ".cache" / "distributed-estimator" / "readout"
    assert file_in(folder).name.startswith("here")
