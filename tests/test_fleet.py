"""A simulated fleet: its time is the model's, its values are the inner backend's."""

from __future__ import annotations

import math
import pickle
import threading
from collections import Counter, defaultdict
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import entangled, reference
from hypothesis import given
from hypothesis import strategies as st

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.fleet import (
    Background,
    Calibration,
    DeviceSpec,
    Fleet,
    SimulatedQPU,
    homogeneous,
    soonest,
)
from distributed_estimator.errors import BackendError, InputError
from distributed_estimator.execution.pools.base import Packer
from distributed_estimator.records import DeviceRecord, QueryRecord, RecordWriter, read_records
from distributed_estimator.subexperiments import FragmentWork, Task


def spec(name="q", *, seconds_per_job=2.0, seconds_per_shot=0.0, **fields):
    return DeviceSpec(
        name=name, seconds_per_job=seconds_per_job, seconds_per_shot=seconds_per_shot, **fields
    )


def times(job):
    return job.submitted, job.queued, job.started, job.finished, job.returned


class Clock:
    """Virtual time, which passes only while somebody sleeps."""

    def __init__(self, at=0.0):
        self.at = at
        self.lock = threading.Lock()

    def __call__(self):
        return self.at

    def sleep(self, seconds):
        with self.lock:
            self.at += seconds


class Inner:
    """A backend of experiments with so many circuits; evaluating takes so long on the clock."""

    name = identity = "inner"
    exact = True
    max_qubits = None

    def __init__(self, clock=None, seconds=0.0, error=None, rows=10, circuits=None):
        self.clock, self.seconds, self.error = clock, seconds, error
        self.rows, self.circuits = rows, circuits
        self.calls = 0

    def rows_per_task(self, experiment):
        return self.rows

    def circuits_per_task(self, experiment):
        return self.circuits

    def row_bytes(self, experiment, shots):
        return 123

    def run(self, experiment, task):
        self.calls += 1
        if self.clock is not None:
            self.clock.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return f"value of {task.key}"


def experiment(circuits=3):
    runs = np.ones((1, circuits), dtype=bool)
    return SimpleNamespace(num_circuits=circuits, runs_of=lambda _: runs)


def task(key="t", *, rows=1, shots=100, circuits=None):
    return Task(key, 0, 0, np.zeros((rows, 1)), shots, 0, circuits)


def fleet_at(clock, devices, backend=None, **options):
    return Fleet(devices, backend or Inner(), clock=clock, sleep=clock.sleep, **options)


def logged(path):
    return [record for record in read_records(path) if isinstance(record, DeviceRecord)]


# -- one device ------------------------------------------------------------------------------------


def test_jobs_queue_in_order_of_submission():
    device = SimulatedQPU(spec(seconds_per_circuit=0.25, seconds_per_shot=0.5, latency=0.125))
    # 2 + circuits (0.25 + shots / 2) seconds of service.
    assert times(device.submit("a", 2, 10, 0.0)) == (0.0, 0.125, 0.125, 12.625, 12.75)
    assert times(device.submit("b", 1, 1, 1.0)) == (1.0, 1.125, 12.625, 15.375, 15.5)
    job = device.submit("c", 1, 1, 20.0)
    assert times(job) == (20.0, 20.125, 20.125, 22.875, 23.0)
    assert (job.device, job.job, job.task, job.circuits, job.shots) == ("q", 2, "c", 1, 1)


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_latency_has_the_mean_and_the_spread_it_should(jitter):
    device = SimulatedQPU(spec(latency=0.2, jitter=jitter, seed=5))
    count = 3000
    # So far apart that no job waits for another.
    jobs = [device.submit(f"task {n}", 1, 1, 1000.0 * n) for n in range(count)]
    there = np.array([job.queued - job.submitted for job in jobs])
    back = np.array([job.returned - job.finished for job in jobs])
    for latency in (there, back):
        error = 0.2 * math.sqrt(math.expm1(jitter**2) / count)
        assert abs(latency.mean() - 0.2) <= 5 * error + 1e-9
        assert abs(np.log(latency).std() - jitter) <= 5 * jitter / math.sqrt(2 * count) + 1e-6
        assert (latency > 0).all()
    if jitter:
        assert abs(np.corrcoef(np.log(there), np.log(back))[0, 1]) < 5 / math.sqrt(count)


def test_no_job_overtakes_another_on_the_way():
    device = SimulatedQPU(spec(seconds_per_job=0.0, latency=1.0, jitter=1.0))
    jobs = [device.submit(f"task {n}", 1, 1, 0.01 * n) for n in range(200)]
    arrivals = [job.queued for job in jobs]
    assert arrivals == sorted(arrivals)
    assert len(set(arrivals)) < len(arrivals), "none was held up by the one before it"


def test_rate_limit_is_a_token_bucket():
    device = SimulatedQPU(spec(rate_limit=2.0, burst=3))

    def sent(number, now):
        return [device.submit("a", 1, 1, now).submitted for _ in range(number)]

    assert sent(3, 0.0) == [0.0] * 3
    assert (device.wait(0.0), device.wait(0.25)) == (0.5, 0.25)
    assert sent(3, 0.25) == [0.5, 1.0, 1.5]
    # A token each half second, and no more than three after any time.
    assert sent(2, 2.5) == [2.5, 2.5]
    assert sent(5, 99.0) == [99.0] * 3 + [99.5, 100.0]


def test_no_job_starts_during_calibration():
    device = SimulatedQPU(spec(seconds_per_job=4.0, calibration=Calibration(10.0, 3.0)))
    starts = [device.submit("a", 1, 1, 0.0).started for _ in range(6)]
    # Pauses from 10 to 13 and from 20 to 23: what runs as they begin is finished.
    assert starts == [0.0, 4.0, 8.0, 13.0, 17.0, 23.0]
    assert device.estimate(1, 1, 0.0) == 31.0  # from 27 on
    assert device.submit("a", 1, 1, 31.5).started == 33.0


@given(
    every=st.integers(2, 50), part=st.data(), first=st.none() | st.integers(0, 60), at=st.integers()
)
def test_calibration_delays_to_the_end_of_the_pause(every, part, first, at):
    seconds = part.draw(st.integers(1, every - 1))
    at %= 10 * every
    begin = every if first is None else first
    paused = {begin + every * n + s for n in range(20) for s in range(seconds)}
    expected = next(t for t in range(at, at + 2 * every) if t not in paused)
    assert Calibration(every, seconds, first).earliest_start(at) == expected


# -- other users -----------------------------------------------------------------------------------


def test_background_load_has_the_utilisation_and_the_queue_of_theory():
    """An M/M/1 queue, looked at by jobs that take no time themselves."""
    busy, mean = 0.5, 1.0
    device = SimulatedQPU(spec(seconds_per_job=0.0, background=Background(busy / mean, mean)))
    count = 2000
    # Queues forget within about mean / (1 - √busy)², here 12 s.
    jobs = [device.submit("probe", 1, 1, 60.0 * n) for n in range(1, count + 1)]
    waits = np.array([job.started - job.queued for job in jobs])
    assert abs((waits > 0).mean() - busy) < 5 * math.sqrt(busy * (1 - busy) / count)
    rate = (1 - busy) / mean
    variance = 2 * busy / rate**2 - (busy / rate) ** 2
    assert abs(waits.mean() - busy / rate) < 5 * math.sqrt(variance / count)


def test_background_load_does_not_depend_on_our_jobs():
    load = Background(0.4, 1.0)
    few, many = (SimulatedQPU(spec(seconds_per_job=0.0, background=load)) for _ in range(2))
    for number in range(500):
        many.submit("other", 1, 1, 0.2 * number)
    assert few.submit("a", 1, 1, 100.0).started == many.submit("a", 1, 1, 100.0).started


# -- random numbers --------------------------------------------------------------------------------

NOISY = {"latency": 1.0, "jitter": 0.7, "failure_probability": 0.3}


def draws(device, keys):
    """Per key what became of it; jobs are so far apart that none waits."""
    jobs = [device.submit(key, 1, 1, 1000.0 * n) for n, key in enumerate(keys)]
    return {
        job.task: (job.queued - job.submitted, job.returned - job.finished, job.status)
        for job in jobs
    }


def test_draws_depend_on_the_task_and_not_on_the_order():
    keys = [f"task {n}" for n in range(50)]
    forward = draws(SimulatedQPU(spec(**NOISY)), keys)
    backward = draws(SimulatedQPU(spec(**NOISY)), keys[::-1])
    for key in keys:
        assert forward[key][2] == backward[key][2]
        assert forward[key][:2] == pytest.approx(backward[key][:2], abs=1e-8)
    assert len({round(there, 6) for there, _, _ in forward.values()}) == 50


def test_a_task_sent_again_draws_anew_but_reproducibly():
    runs = []
    for _ in range(2):
        device = SimulatedQPU(spec(**NOISY))
        runs.append([device.submit("a", 1, 1, 1000.0 * n) for n in range(20)])
    assert runs[0] == runs[1]
    assert len({round(job.queued - job.submitted, 6) for job in runs[0]}) == 20
    assert {job.status for job in runs[0]} == {"done", "failed"}


def test_as_many_jobs_fail_as_should():
    device = SimulatedQPU(spec(failure_probability=0.3))
    count = 3000
    failed = sum(device.submit(f"{n}", 1, 1, 0.0).status == "failed" for n in range(count))
    assert abs(failed / count - 0.3) < 5 * math.sqrt(0.3 * 0.7 / count)


# -- routing ---------------------------------------------------------------------------------------

whole = st.integers(0, 8).map(float)
pauses = st.builds(
    lambda seconds, more, first: Calibration(seconds + more, seconds, first),
    *(st.integers(1, 6).map(float), st.integers(1, 9).map(float), whole),
)
devices_of = st.lists(
    st.tuples(
        *[whole] * 4,
        st.none() | pauses,
        st.sampled_from([None, 2, 5]),
        st.sampled_from([None, 0.25]),
    ),
    min_size=1,
    max_size=5,
)
sent = st.lists(st.tuples(whole, st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=12)


@given(devices=devices_of, jobs=sent)
def test_the_router_picks_the_earliest_finisher(devices, jobs):
    """Against trying every device, by replaying its past on a copy."""
    specs = [
        spec(
            f"q{n}",
            seconds_per_job=job,
            seconds_per_shot=shot,
            seconds_per_circuit=circuit,
            latency=latency,
            calibration=calibration,
            most_circuits=most,
            rate_limit=rate,
        )
        for n, (job, shot, circuit, latency, calibration, most, rate) in enumerate(devices)
    ]
    fleet = [SimulatedQPU(s) for s in specs]
    past = defaultdict(list)
    now = 0.0
    for gap, circuits, shots in jobs:
        now += gap
        returned = {}
        for device in specs:
            if device.most_circuits is None or circuits <= device.most_circuits:
                copy = SimulatedQPU(device)
                for earlier in past[device.name]:
                    copy.submit("a", *earlier)
                returned[device.name] = copy.submit("a", circuits, shots, now).returned
        first = soonest(fleet, circuits, shots, now)
        if first is None:
            assert not returned
            continue
        assert first.spec.name == min(returned, key=returned.__getitem__)
        assert first.estimate(circuits, shots, now) == min(returned.values())
        first.submit("a", circuits, shots, now)
        past[first.spec.name].append((circuits, shots, now))


# -- the fleet -------------------------------------------------------------------------------------


def test_modelled_time_passes_while_values_are_computed(tmp_path):
    clock = Clock(at=100.0)
    inner = Inner(clock, seconds=0.5)
    fleet = fleet_at(clock, [spec(latency=0.25)], inner, log=tmp_path / "log.jsonl")
    assert fleet.run(experiment(), task("a")) == "value of a"
    assert clock.at == 102.5
    inner.seconds = 7.0  # longer than the model says
    assert fleet.run(experiment(), task("b")) == "value of b"
    assert clock.at == 109.5
    first, second = logged(tmp_path / "log.jsonl")
    assert times(first) == (0.0, 0.25, 0.25, 2.25, 2.5)
    assert times(second) == (2.5, 2.75, 2.75, 4.75, 5.0)


def test_a_job_holds_the_circuits_of_its_task(tmp_path):
    clock = Clock()
    log = tmp_path / "log.jsonl"
    fleet = fleet_at(clock, [spec(seconds_per_circuit=1.0)], log=RecordWriter(log))
    for case in (
        task("all", rows=4, shots=10),
        task("some", rows=4, shots=10, circuits=(1, 2)),
        task("exact", rows=4, shots=None),
        task("each its own", rows=2, shots=np.array([[[0, 5, 10]], [[0, 0, 8]]])),
    ):
        before = clock.at
        expected = fleet.expected_seconds(experiment(3), case)
        fleet.run(experiment(3), case)
        assert clock.at - before == expected
    jobs = {job.task: (job.circuits, job.shots) for job in logged(log)}
    # Shots of a circuit on average, rounded up, where they differ; those with none do not run.
    own = {"each its own": (3, 8)}
    assert jobs == {"all": (12, 10), "some": (8, 10), "exact": (4, 0)} | own


def test_expected_seconds_are_those_of_an_idle_device_on_average():
    devices = [spec("a", seconds_per_job=1.0, latency=0.5), spec("b", seconds_per_shot=0.01)]
    fleet = fleet_at(Clock(), devices)
    assert fleet.expected_seconds(experiment(3), task(rows=2, shots=50)) == pytest.approx(
        ((1 + 2 * 0.5) + (2 + 6 * 50 * 0.01)) / 2
    )


@pytest.mark.parametrize(
    ("most", "inner_circuits", "circuits", "rows", "circuits_per_task"),
    [
        ([None, None], None, 4, 10, None),
        ([None, None], 3, 4, 10, 3),
        ([None, 9], None, 4, 2, 9),
        ([100, 9], 3, 4, 2, 3),
        ([3, 9], None, 4, 1, 3),
        ([3, None], 2, 4, 1, 2),
        ([500, None], None, 4, 10, 500),
        ([5, None], None, 0, 5, 5),
    ],
)
def test_tasks_fit_the_smallest_device(most, inner_circuits, circuits, rows, circuits_per_task):
    devices = [spec(f"q{n}", most_circuits=m) for n, m in enumerate(most)]
    fleet = Fleet(devices, Inner(rows=10, circuits=inner_circuits))
    assert fleet.rows_per_task(experiment(circuits)) == rows
    assert fleet.circuits_per_task(experiment(circuits)) == circuits_per_task


def test_a_job_too_large_for_every_device_is_refused():
    fleet = fleet_at(Clock(), [spec("a", most_circuits=3), spec("b", most_circuits=5)])
    assert fleet.submit("t", 5, 1).device == "b"
    with pytest.raises(BackendError, match="6 circuits and no device takes more than 5"):
        fleet.submit("t", 6, 1)


def test_a_failed_job_takes_its_time_and_is_recorded(tmp_path):
    clock, inner = Clock(), Inner()
    fleet = fleet_at(
        clock, [spec(failure_probability=1.0)], inner, log=tmp_path / "fleet" / "log.jsonl"
    )
    with pytest.raises(BackendError, match="job 0 failed on the simulated device q"):
        fleet.run(experiment(), task("a"))
    assert (clock.at, inner.calls) == (2.0, 0)
    (job,) = logged(tmp_path / "fleet" / "log.jsonl")
    assert (job.status, times(job)) == ("failed", (0.0, 0.0, 0.0, 2.0, 2.0))


def test_a_fleet_is_as_its_inner_backend_is():
    """Whatever changes there: a journal keeps results by it."""
    inner = Inner()
    fleet = Fleet([spec()], inner)
    assert (fleet.identity, fleet.row_bytes(experiment(), 10)) == ("inner", 123)
    inner.identity = "with noise"
    assert fleet.identity == "with noise"


def test_threads_share_the_queues(tmp_path):
    """Time stands still, so that all jobs are there at once whatever the threads do."""
    log = tmp_path / "log.jsonl"
    devices = homogeneous(2, seconds_per_job=1.0, seconds_per_shot=0.0)
    fleet = Fleet(devices, Inner(), log=log, clock=lambda: 0.0, sleep=lambda seconds: None)
    values = {}

    def work(worker):
        for number in range(20):
            key = f"{worker} {number}"
            values[key] = fleet.run(experiment(), task(key))

    threads = [threading.Thread(target=work, args=[n], daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    jobs = logged(log)
    assert {job.task for job in jobs} == set(values)
    assert len(jobs) == 160
    assert values == {key: f"value of {key}" for key in values}
    for device in devices:
        own = sorted((job for job in jobs if job.device == device.name), key=lambda job: job.job)
        assert [job.job for job in own] == list(range(80))
        assert [job.started for job in own] == [float(n) for n in range(80)]


@pytest.mark.parametrize("change", [{"seed": 1}, {"name": "other"}])
def test_another_seed_or_name_draws_otherwise(change):
    keys = [f"task {n}" for n in range(50)]
    one = draws(SimulatedQPU(spec(**NOISY)), keys)
    other = draws(SimulatedQPU(spec(**{**NOISY, **change})), keys)
    assert all(abs(one[key][0] - other[key][0]) > 1e-6 for key in keys)


def test_an_inner_failure_is_passed_on_and_recorded(tmp_path):
    clock = Clock()
    inner = Inner(error=BackendError("out of qubits"))
    fleet = fleet_at(clock, [spec()], inner, log=tmp_path / "log.jsonl")
    with pytest.raises(BackendError, match="out of qubits"):
        fleet.run(experiment(), task("a"))
    assert [job.status for job in logged(tmp_path / "log.jsonl")] == ["failed"]
    assert clock.at == 2.0


def test_a_fleet_does_not_leave_its_process():
    fleet, message = Fleet([spec()]), r'queues live in one process: use pool="threads"'
    with pytest.raises(TypeError, match=message):
        pickle.dumps(fleet)
    with pytest.raises(InputError, match=message):
        Packer().pack(FragmentWork(fleet, ()))


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "`name` is ''"),
        ({"name": 5}, "`name` is 5: give text that tells the device from others"),
        ({"seconds_per_job": -1.0}, "`seconds_per_job` is -1.0: give a number of at least 0"),
        ({"seconds_per_shot": math.nan}, "`seconds_per_shot` is nan"),
        ({"seconds_per_circuit": math.inf}, "`seconds_per_circuit` is inf"),
        ({"latency": "soon"}, "`latency` is 'soon'"),
        ({"jitter": -0.1}, "`jitter` is -0.1"),
        ({"rate_limit": 0}, "`rate_limit` is 0: give a positive number"),
        ({"burst": 0}, "`burst` is 0: give a whole number of at least 1"),
        ({"most_circuits": 2.5}, "`most_circuits` is 2.5: give a whole number"),
        ({"failure_probability": 1.5}, "`failure_probability` is 1.5: give a number from 0 to 1"),
        ({"seed": -1}, "`seed` is -1"),
        ({"calibration": 5}, "`calibration` is 5: give a `Calibration`"),
        ({"background": (1, 2)}, "`background` is .*: give a `Background`"),
        ({"background": Background(2.0, 0.5)}, "other users take 1 of the time"),
        (
            {"background": Background(1.0, 0.5), "calibration": Calibration(10.0, 5.0)},
            "'q' other users take 0.5 of the time and calibrations 0.5",
        ),
    ],
)
def test_bad_specs(fields, message):
    with pytest.raises(InputError, match=message):
        spec(**fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Calibration(0, 1), "`every` is 0: give a positive number"),
        (lambda: Calibration(10, 10), "takes 10 seconds every 10: make it shorter"),
        (lambda: Calibration(10, 1, first=-1), "`first` is -1"),
        (lambda: Background(1, -1), "`seconds` is -1"),
        (lambda: homogeneous(0, seconds_per_job=1, seconds_per_shot=0), "`count` is 0"),
        (lambda: Fleet([]), "`devices` is empty"),
        (lambda: Fleet(["north"]), "`devices` holds 'north'"),
        (lambda: Fleet(spec()), "`devices` is DeviceSpec.*: give a list of `DeviceSpec`"),
        (lambda: Fleet([spec("a"), spec("b"), spec("a")]), "several devices are named 'a'"),
    ],
)
def test_bad_fleets(make, message):
    with pytest.raises(InputError, match=message):
        make()


# -- through the estimator -------------------------------------------------------------------------

CIRCUIT = entangled(4, seed=3)
OBSERVABLES = ["ZZZZ", "XXII", "IYYI"]


def estimate(backend=None, *, log=None, precision=None, **options):
    estimator = DistributedEstimator(
        "AABB",
        backend=backend,
        workers=4,
        options=EstimatorOptions(**{"shots": 256, "seed": 1, **options}),
        log=log,
    )
    result = estimator.run([(CIRCUIT, OBSERVABLES)], precision=precision).result()[0]
    return result.data


def test_values_are_those_without_the_fleet_bit_for_bit():
    clock = Clock()
    unlike = [
        spec("a", latency=3.0, jitter=1.0, background=Background(0.2, 2.0)),
        spec("b", seconds_per_job=5.0, calibration=Calibration(7.0, 2.0), seconds_per_shot=1e-3),
    ]
    plain = estimate()
    for devices in (unlike, homogeneous(7, seconds_per_job=0.5, seconds_per_shot=0.0)):
        simulated = estimate(fleet_at(clock, devices, StatevectorBackend()))
        assert np.array_equal(simulated.evs, plain.evs)
        assert np.array_equal(simulated.stds, plain.stds)


def test_records_are_complete_and_consistent(tmp_path):
    """On the real clock; how long it takes is only checked from below."""
    log, count = tmp_path / "both.jsonl", 4
    devices = homogeneous(
        count,
        seconds_per_job=0.02,
        seconds_per_shot=1e-6,
        latency=0.005,
        jitter=0.5,
        most_circuits=10,
        background=Background(2.0, 0.01),
        calibration=Calibration(1.0, 0.05),
    )
    data = estimate(Fleet(devices, log=log), log=log)
    records = list(read_records(log))
    (query,) = (record for record in records if isinstance(record, QueryRecord))
    jobs = [record for record in records if isinstance(record, DeviceRecord)]
    assert query.backend == "simulated(fleet of 4: statevector)"
    assert sum(job.circuits for job in jobs) == query.num_subexperiments
    assert len({job.task for job in jobs}) == len(jobs)
    for job in jobs:
        assert list(times(job)) == sorted(times(job))
        assert (job.status, job.shots) == ("done", 256)
        service = 0.02 + job.circuits * 256e-6
        assert job.finished - job.started == pytest.approx(service, abs=1e-9)
    for device in devices:
        own = sorted((job for job in jobs if job.device == device.name), key=lambda job: job.job)
        assert [job.job for job in own] == list(range(len(own)))
        assert all(a.finished <= b.started for a, b in pairwise(own))
    modelled = max(job.returned for job in jobs) - min(job.submitted for job in jobs)
    assert query.t_total >= modelled - 1e-3
    assert query.t_total < 60
    expected = [reference(CIRCUIT, observable) for observable in OBSERVABLES]
    assert (np.abs(data.evs - expected) < 6 * data.stds).all()


def test_jobs_that_wait_or_fail_are_sent_again(tmp_path):
    log = tmp_path / "devices.jsonl"
    # Whether a task's first, second, … job fails is settled by the seed.
    unreliable = spec(seconds_per_job=0.001, rate_limit=2.0, failure_probability=0.5, seed=2)
    data = estimate(Fleet([unreliable], log=log))
    assert np.array_equal(data.evs, estimate().evs)
    jobs = logged(log)
    assert {job.status for job in jobs} == {"done", "failed"}
    assert Counter(job.task for job in jobs if job.status == "done") == Counter(
        {job.task for job in jobs}
    )
