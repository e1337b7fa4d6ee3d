"""Jobs at a service: paid for once, found again, and recorded."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from killed_client import OPTIONS, circuit
from qiskit import QuantumCircuit
from qiskit.primitives import (
    BitArray,
    DataBin,
    PrimitiveJob,
    SamplerPubResult,
    StatevectorSampler,
)
from qiskit_aer.primitives import SamplerV2
from standin import (
    ADDRESS,
    INSTANCE,
    TOKEN,
    Device,
    Faults,
    Options,
    Service,
    Twirling,
    raised,
    sampler_of,
)
from standin import (
    SECRETS as ACCOUNT,
)

from distributed_estimator import DistributedEstimator, EstimatorOptions, Mitigation
from distributed_estimator.backends import jobs, modes, services
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import (
    BackendError,
    InputError,
    PoolError,
    TaskFailedError,
    UnreachableError,
    chain,
)
from distributed_estimator.execution import Journal, Policy, Retry, Speculation
from distributed_estimator.records import DeviceRecord, TaskRecord, read_records

HERE = Path(__file__).parent
ONCE = Policy(retry=Retry(attempts=1))
SECRETS = (TOKEN, INSTANCE, ADDRESS)


class Found(NamedTuple):
    """What a run came to."""

    value: float
    stderr: float
    shots: int
    service: Service
    tasks: list[TaskRecord]
    devices: list[DeviceRecord]


def run(folder: Path, *, policy: Policy | None = None, workers: int = 2, **service: Any) -> Found:
    """Run the chain with a journal and a trace in a folder."""
    sampler = sampler_of(folder / "jobs", **service)
    trace = folder / "trace.jsonl"
    options = EstimatorOptions(
        shots_total=OPTIONS.shots_total, seed=OPTIONS.seed, policy=policy or Policy()
    )
    with DistributedEstimator(
        "AABBCC",
        sampler,
        workers=workers,
        options=options,
        journal=folder / "run.journal",
        trace=trace,
    ) as estimator:
        result = estimator.run([(circuit(), "ZZZZZZ")]).result()[0]
    records = list(read_records(trace)) if trace.exists() else []
    return Found(
        float(result.data.evs),
        float(result.data.stds),
        result.metadata["shots_total"],
        sampler.backend().service,
        [record for record in records if isinstance(record, TaskRecord)],
        [record for record in records if isinstance(record, DeviceRecord)],
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A run in which nothing goes wrong: two rounds of three fragments."""
    return run(tmp_path_factory.mktemp("whole"))


def assert_same(found: Found, whole: Found) -> None:
    assert (found.value, found.stderr) == (whole.value, whole.stderr)


def assert_silent(folder: Path, *texts: str) -> None:
    """Neither files nor texts name the account."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for text in (*texts, *(path.read_text("utf-8") for path in files)):
        assert not [secret for secret in SECRETS if secret in text]


def printed(error: BaseException) -> str:
    """An error as Python prints it, with all that led to it."""
    text = io.StringIO()
    traceback.print_exception(error, file=text)
    return text.getvalue()


# --- a client that is killed ----------------------------------------------------------------------


def assert_paid_once(folder: Path, whole: Found, moments: list[tuple[str, int]]) -> None:
    """Kill a client at each of these moments, and go on here, where it is another process."""
    program = [sys.executable, str(HERE / "killed_client.py"), str(folder), json.dumps(moments)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [signal.SIGKILL] * len(moments)
    for number, moment in enumerate(moments):
        before = len(Service(folder / str(number) / "jobs").ids())
        found = run(folder / str(number))
        assert_same(found, whole)
        tags = found.service.tags()
        assert (len(tags), set(tags.values())) == (6, {1}), moment
        assert found.service.asked["run"] == 6 - before, moment


def test_a_killed_client_pays_once(tmp_path: Path, whole: Found):
    """Between the service's having a job and the journal's knowing so, and before a result."""
    assert_paid_once(tmp_path, whole, [("kept", 2), ("done", 4)])


@pytest.mark.soak
def test_a_client_killed_at_any_moment_pays_once(tmp_path: Path, whole: Found):
    steps = ["sending", "kept", "waiting", "done"]
    moments = [(step, count) for step in steps for count in range(1, 7)]
    chosen = random.Random(15).sample([m for m in moments if m != ("kept", 1)], 9)
    assert_paid_once(tmp_path, whole, [("kept", 1), *chosen])


# --- what goes wrong at the service ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("cancelled", r"job \w+ on stand_in was cancelled"),
        ("failed", r"job \w+ on stand_in failed: Error code 6050; the device was recalibrated"),
        ("half_done", r"returned \d+ results for \d+ circuits"),
    ],
)
def test_jobs_without_results_are_named_and_sent_again(
    tmp_path: Path, whole: Found, fault: str, cause: str
):
    found = run(tmp_path, faults=Faults(**{fault: 1}))
    assert_same(found, whole)
    (failed,) = (task for task in found.tasks if task.status == "failed")
    (record,) = (record for record in found.devices if record.status == "failed")
    assert re.search(cause, failed.cause)
    assert record.service_job in failed.cause
    tags = found.service.tags()
    assert sorted(tags.values()) == [1] * 5 + [2]
    assert_silent(tmp_path)


def test_a_job_that_takes_too_long_is_sent_in_halves(
    tmp_path: Path, whole: Found, caplog: pytest.LogCaptureFixture
):
    """And these in halves; the next run finds all of them, and is charged for none."""
    found = run(tmp_path, faults=Faults(too_long=3), workers=1)
    assert abs(found.value - whole.value) < 5 * np.hypot(found.stderr, whole.stderr)
    assert len(re.findall(r"circuits are sent in halves", caplog.text)) == 3
    assert not [task for task in found.tasks if task.status == "failed"]
    tags = found.service.tags()
    assert (len(tags), set(tags.values())) == (6 + 2 * 3, {1})
    records = {record.service_job: record for record in found.devices}
    assert sorted(records) == sorted(found.service.ids())
    failed = [record for record in found.devices if record.status == "failed"]
    done = sum(record.circuits for record in found.devices if record.status == "done")
    assert len(failed) == 3
    assert done == sum(task.subexperiments for task in found.tasks)
    journal = tmp_path / "run.journal"
    lines = [line for line in journal.read_text("ascii").splitlines() if '"data"' not in line]
    journal.write_text("\n".join(lines) + "\n", "ascii")  # jobs without results
    again = run(tmp_path)
    assert_same(again, found)
    assert again.service.tags() == tags


def test_a_single_circuit_that_takes_too_long_ends_with_the_cause(tmp_path: Path):
    message = r"job \w+ on stand_in took longer than it may: send fewer shots a circuit"
    with pytest.raises(TaskFailedError, match=message) as raised:
        run(tmp_path, policy=ONCE, faults=Faults(too_long=99))
    assert_silent(tmp_path, printed(raised.value))
    service = Service(tmp_path / "jobs")
    sizes = [sum(len(pub[1]) for pub in service.content(job)["pubs"]) for job in service.ids()]
    assert min(sizes) == 1


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4, 5), (1, 5), (3,)])
def test_halves_of_jobs_join_to_the_whole(places: tuple[int, ...]):
    """Wherever PUBs begin among six circuits."""
    ends = [*[place for place in places if place], 6]
    pubs = [
        (None, np.arange(start, end)[:, None], 10) for start, end in itertools.pairwise([0, *ends])
    ]

    def results(request: jobs.JobRequest) -> list[SamplerPubResult]:
        """One shot a circuit, whose bits are its number."""
        return [
            SamplerPubResult(
                DataBin(c=BitArray(pub[1].astype(np.uint8)[:, None], 8), shape=(len(pub[1]),))
            )
            for pub in request.pubs
        ]

    def run_in_halves(request: jobs.JobRequest) -> list[SamplerPubResult]:
        if request.circuits == 1:
            return results(request)
        first, second = map(run_in_halves, request.halves())
        return request.joined(first, second)

    whole = jobs.JobRequest("a name", "a task", pubs)
    assert len({half.name for half in whole.halves()} | {whole.name}) == 3
    for one, other in zip(run_in_halves(whole), results(whole), strict=True):
        np.testing.assert_array_equal(one.data.c.array, other.data.c.array)
        assert one.data.shape == other.data.shape


def test_without_another_attempt_the_cause_ends_the_run_and_the_next_sends_again(
    tmp_path: Path, whole: Found
):
    with pytest.raises(TaskFailedError, match=r"job \w+ on stand_in was cancelled") as raised:
        run(tmp_path, policy=ONCE, faults=Faults(cancelled=2))
    assert_silent(tmp_path, printed(raised.value))
    assert len(Service(tmp_path / "jobs").ids()) == 3
    found = run(tmp_path, policy=ONCE)
    assert_same(found, whole)
    assert len(found.service.ids()) == 8  # the two that were cancelled, and six


def test_fewer_shots_are_taken_for_what_they_are(tmp_path: Path, whole: Found):
    found = run(tmp_path, faults=Faults(fewer_shots=99))
    assert len(found.service.ids()) == 6
    assert 0 < found.shots < whole.shots
    # The standard error of that many shots: half as many, √2 of the error, within a third.
    ratio = found.stderr / whole.stderr * np.sqrt(found.shots / whole.shots)
    assert 2 / 3 < ratio < 4 / 3


@pytest.mark.parametrize("fault", ["lost_results", "lost_answers"])
def test_a_connection_that_is_lost_costs_nothing(tmp_path: Path, whole: Found, fault: str):
    """The job is there; it is waited for again, or found by its tag."""
    found = run(tmp_path, faults=Faults(**{fault: 2}))
    assert_same(found, whole)
    assert set(found.service.tags().values()) == {1}
    assert len([task for task in found.tasks if task.status == "failed"]) == 2
    assert_silent(tmp_path)


def test_nothing_is_sent_while_the_service_is_out_of_reach(tmp_path: Path, whole: Found):
    with pytest.raises(TaskFailedError, match=r"The service keeps the job"):
        run(tmp_path, policy=ONCE, faults=Faults(lost_results=99))
    assert len(Service(tmp_path / "jobs").ids()) == 3
    for fault, reason in (("offline", "cannot be reached"), ("account", "refused the account")):
        with pytest.raises(TaskFailedError, match=rf"{reason}.*Nothing was sent") as raised:
            run(tmp_path, faults=Faults(**{fault: True}))
        assert_silent(tmp_path, printed(raised.value))
        assert len(Service(tmp_path / "jobs").ids()) == 3
    found = run(tmp_path)
    assert_same(found, whole)
    assert len(found.service.ids()) == 6
    assert found.service.asked["run"] == 3  # the second round


def test_an_account_is_never_printed(tmp_path: Path):
    message = r"the service refused the account \(AccountNotFoundError\): see that it is saved"
    with pytest.raises(TaskFailedError, match=message) as raised:
        run(tmp_path, policy=ONCE, faults=Faults(account=True))
    assert isinstance(raised.value.__cause__, UnreachableError)
    assert_silent(tmp_path, printed(raised.value))


@pytest.mark.parametrize(
    "text",
    [
        f'400 Client Error: Bad Request for url: {ADDRESS}. {{"errors": [{{"code": 1517, '
        f'"message": "The circuit has 200 qubits, see {INSTANCE}", "token": "{TOKEN}"}}]}}',
    ],
)
def test_what_the_service_says_is_passed_on(text: str):
    kind = type("IBMRuntimeError", (Exception,), {})
    error = services.unreachable(kind(text), "a job could not be sent", "Nothing was sent")
    assert "IBMRuntimeError: The circuit has 200 qubits, see (left out)" in str(error)
    assert not [secret for secret in SECRETS if secret in str(error)]


def test_a_service_that_is_asked_too_often_is_asked_later():
    error = type("RequestsApiError", (Exception,), {"status_code": 429})(TOKEN)
    found = services.unreachable(error, "a job could not be sent", "Nothing was sent")
    assert type(found).__name__ == "ThrottledError"
    assert TOKEN not in str(found)


def test_ids_that_the_service_does_not_know_are_sent_again(tmp_path: Path, whole: Found):
    with pytest.raises(TaskFailedError):
        run(tmp_path, policy=ONCE, faults=Faults(lost_results=99))
    found = run(tmp_path, faults=Faults(expired=1))
    assert_same(found, whole)
    assert sorted(found.service.tags().values()) == [1] * 5 + [2]
    causes = [task.cause for task in found.tasks if task.cause and "not know" in task.cause]
    assert len(causes) == 1
    assert "it has expired, or is another account's" in causes[0]


def test_whether_a_job_was_sent_is_known(tmp_path: Path):
    """By which several devices leave a task where it is."""
    found = []

    class Asking(SamplerBackend):
        def run(self, experiment, task):
            before = self.has_job(experiment, task)
            try:
                return super().run(experiment, task)
            finally:
                found.append((before, self.has_job(experiment, task)))

    options = EstimatorOptions(shots=100, seed=7, policy=ONCE)
    for faults in (Faults(lost_results=3), Faults()):
        backend = Asking(sampler_of(tmp_path / "jobs", faults=faults))
        journal = tmp_path / "run.journal"
        with DistributedEstimator("AABBCC", backend, options=options, journal=journal) as own:
            job = own.run([(circuit(), "ZZZZZZ")])
            if faults.lost_results:
                with pytest.raises(TaskFailedError):
                    job.result()
            else:
                job.result()
    assert found == [(False, True)] * 3 + [(True, True)] * 3


def test_several_devices_leave_jobs_where_they_are(tmp_path: Path):
    """Whatever the order of devices is in the run that goes on, and so where it would place."""

    def died(step: str) -> None:
        if step == "waiting":
            raise SystemExit  # no error of a device, which another one would take over

    def samplers(**service: Any) -> list[Any]:
        return [sampler_of(tmp_path / name, name=name, **service) for name in ("east", "west")]

    def values(backends: list[Any]) -> None:
        options = EstimatorOptions(shots=200, seed=7, policy=ONCE)
        with DistributedEstimator(
            "AABBCC", backends, options=options, journal=tmp_path / "run.journal"
        ) as estimator:
            estimator.run([(circuit(), "ZZZZZZ")]).result()

    with pytest.raises(TaskFailedError):
        values(samplers(died=died))
    again = samplers()
    before = [sampler.backend().service.ids() for sampler in again]
    assert all(before)
    values(again[::-1])
    assert [sampler.backend().service.ids() for sampler in again] == before
    assert sum(sampler.backend().service.asked["job"] for sampler in again) == 3


def test_of_two_jobs_with_a_tag_the_one_that_did_not_fail_is_taken(tmp_path: Path, whole: Found):
    """As of a client that was killed while it sent again what had failed."""
    with pytest.raises(TaskFailedError):
        run(tmp_path, policy=ONCE, faults=Faults(lost_answers=99, cancelled=1))
    found = run(tmp_path, faults=Faults())
    assert_same(found, whole)
    assert sorted(found.service.tags().values()) == [1] * 5 + [2]
    journal = tmp_path / "run.journal"
    lines = [line for line in journal.read_text("ascii").splitlines() if '"jobs": ["' not in line]
    lines = [line for line in lines if '"data"' not in line and '"jobs": null' not in line]
    journal.write_text("\n".join(lines) + "\n", "ascii")  # intentions alone
    again = run(tmp_path, policy=ONCE)
    assert_same(again, whole)
    assert len(again.service.ids()) == 7
    assert again.service.asked["run"] == 0


def test_circuits_that_are_refused_are_not_sent(tmp_path: Path):
    message = r"failed on fragment \d \(2 qubits\): the gate `foo` is unknown.*transpile the"
    with pytest.raises(TaskFailedError, match=message) as raised:
        run(tmp_path, policy=ONCE, faults=Faults(refused=99))
    assert_silent(tmp_path, printed(raised.value))
    assert not Service(tmp_path / "jobs").ids()


def test_a_calibration_is_paid_for_once(tmp_path: Path):
    """The first job of a run whose readout is mitigated."""
    mitigation = Mitigation(readout=True, twirling=2)
    options = EstimatorOptions(shots=200, seed=7, policy=ONCE, mitigation=mitigation)

    def value(faults: Faults) -> float:
        sampler, journal = sampler_of(tmp_path / "jobs", faults=faults), tmp_path / "run.journal"
        with DistributedEstimator(
            "AABB", sampler, options=options, workers=1, journal=journal
        ) as estimator:
            return float(estimator.run([(circuit(4), "ZZZZ")]).result()[0].data.evs)

    with pytest.raises(BackendError, match="The service keeps the job") as raised:
        value(Faults(lost_results=1))
    assert_silent(tmp_path, printed(raised.value))
    value(Faults())
    service = Service(tmp_path / "jobs")
    sizes = [len(service.content(job)["pubs"]) for job in service.ids()]
    assert sizes.count(2) == 1  # nothing measured, and every qubit turned first
    assert set(service.tags().values()) == {1}


@pytest.mark.parametrize(
    ("shape", "shots", "fault"),
    [
        ((3,), 4, None),
        ((3,), 1, None),  # fewer shots than the ten that were asked for
        ((2,), 4, "returned 2 of 3 bindings of circuit 0"),
        ((3,), 0, "returned no shots of circuit 0"),
    ],
)
def test_results_that_are_not_those_of_a_job(shape: tuple[int], shots: int, fault: str | None):
    bits = BitArray(np.zeros((*shape, shots, 1), dtype=np.uint8), 1)
    result = SamplerPubResult(DataBin(c=bits, shape=shape))
    request = jobs.JobRequest("a name", "a task", [(None, np.zeros((3, 1)), 10)])
    assert request.fault_of([result]) == fault
    assert request.fault_of([result] * 2) == "returned 2 results for 1 circuits"


# --- one number of shots a job --------------------------------------------------------------------


def test_a_sampler_that_takes_one_number_of_shots_gets_a_job_for_each(tmp_path: Path, whole: Found):
    found = run(tmp_path, faults=Faults(one_number=True))
    assert abs(found.value - whole.value) < 5 * np.hypot(found.stderr, whole.stderr)
    assert found.shots == whole.shots
    tags = found.service.tags()
    assert len(tags) > 6
    assert set(tags.values()) == {1}
    (tmp_path / "trace.jsonl").unlink()
    journal = tmp_path / "run.journal"
    lines = [line for line in journal.read_text("ascii").splitlines() if '"data"' not in line]
    journal.write_text("\n".join(lines) + "\n", "ascii")  # jobs without results
    again = run(tmp_path, faults=Faults(one_number=True))
    assert_same(again, found)
    assert again.service.tags() == tags
    assert len(again.devices) == len(tags)


def test_of_several_jobs_of_a_task_those_that_are_missing_are_sent(tmp_path: Path):
    steps = itertools.count(1)

    def died(step: str) -> None:
        if step == "sending" and next(steps) > 4:
            raise RuntimeError("the client is gone")

    with pytest.raises(TaskFailedError):
        run(tmp_path, policy=ONCE, died=died, faults=Faults(one_number=True))
    before = Service(tmp_path / "jobs").tags()
    found = run(tmp_path, faults=Faults(one_number=True))
    tags = found.service.tags()
    assert len(before) == 4 < len(tags)
    assert set(tags.values()) == {1}
    assert before.keys() < tags.keys()


def test_a_job_that_fails_for_its_shots_is_not_divided(tmp_path: Path):
    with pytest.raises(TaskFailedError, match="failed: too many shots"):
        run(tmp_path, policy=ONCE, faults=Faults(failed=99, message="too many shots"))
    assert len(Service(tmp_path / "jobs").ids()) == 3


class Late(StatevectorSampler):
    """Its jobs fail after they were taken."""

    runs = 0

    def run(self, pubs, *, shots=None):
        type(self).runs += 1
        job = PrimitiveJob(self._fail)
        job._submit()
        return job

    def _fail(self):
        raise ValueError("these shots were lost")


def test_an_error_of_a_result_is_no_reason_to_run_again():
    options = EstimatorOptions(shots_total=3000, seed=7, policy=ONCE)
    with DistributedEstimator("AABBCC", Late(), options=options) as estimator:
        job = estimator.run([(circuit(), "ZZZZZZ")])
        with pytest.raises(BackendError, match="these shots were lost"):
            job.result()
    assert Late.runs == 3  # one for each fragment


# --- waiting --------------------------------------------------------------------------------------


def test_late_jobs_are_not_sent_twice(tmp_path: Path, whole: Found):
    policy = Policy(speculation=Speculation(quantile=0.1, factor=1.0, budget=5.0))
    found = run(tmp_path, policy=policy, seconds=0.5, workers=8)
    assert_same(found, whole)
    assert len(found.service.ids()) == 6


def test_threads_that_ask_for_a_job_get_the_same(tmp_path: Path):
    """As attempts do that follow one which was given up while it was being sent."""
    sampler = sampler_of(tmp_path / "jobs", died=lambda step: time.sleep(0.02))
    device = sampler.backend()
    one = QuantumCircuit(1, 1)
    one.measure(0, 0)
    request = jobs.JobRequest("a name", "a task", [(one, None, 10)])
    own = jobs.Jobs()
    with ThreadPoolExecutor(8) as threads:
        sent = list(threads.map(lambda _: own.send(lambda: sampler, device, request), range(8)))
        results = list(threads.map(lambda job: own.results(job, device.name), sent))
    assert len({job.id for job in sent}) == len(device.service.ids()) == 1
    assert [result[0].data.c.get_counts() for result in results] == [{"0": 10}] * 8


def test_threads_that_find_a_job_failed_send_it_again_once(tmp_path: Path):
    sampler = sampler_of(tmp_path / "jobs", faults=Faults(cancelled=1))
    device = sampler.backend()
    one = QuantumCircuit(1, 1)
    one.measure(0, 0)
    request = jobs.JobRequest("a name", "a task", [(one, None, 10)])
    own = jobs.Jobs()
    first, late = (own.send(lambda: sampler, device, request) for _ in range(2))
    with pytest.raises(BackendError, match="was cancelled"):
        own.results(first, device.name)
    again = own.send(lambda: sampler, device, request)
    with pytest.raises(BackendError, match="was cancelled"):
        own.results(late, device.name)
    assert own.send(lambda: sampler, device, request).id == again.id
    assert len(device.service.ids()) == 2


def test_a_queue_is_waited_for(tmp_path: Path):
    """On a clock on which every look takes an hour, a job that is not patient would be lost."""

    def leaping() -> float:
        leaping.now += 3600.0
        return leaping.now

    leaping.now = 0.0
    sampler = sampler_of(tmp_path / "jobs", seconds=0.5)
    options = EstimatorOptions(shots=100, seed=7, policy=ONCE)
    one = QuantumCircuit(1)
    one.h(0)
    with DistributedEstimator(None, sampler, options=options) as estimator:
        pipeline = estimator.pipeline
        assert pipeline.conditions.patient
        object.__setattr__(pipeline.conditions, "clock", leaping)
        assert abs(estimator.run([(one, "X")]).result()[0].data.evs) == 1
        object.__setattr__(pipeline.conditions, "patient", False)
        leaping.now = 0.0
        with pytest.raises(TaskFailedError, match="did not come back in time"):
            estimator.run([(one, "X")]).result()
    with DistributedEstimator(None, SamplerV2(), options=options) as estimator:
        assert not estimator.pipeline.conditions.patient


# --- records --------------------------------------------------------------------------------------


def test_every_job_has_a_record(tmp_path: Path, whole: Found):
    before = time.time()
    found = run(tmp_path, seconds=0.2)
    seconds = time.time() - before
    assert sorted(record.service_job for record in found.devices) == sorted(found.service.ids())
    assert sorted(record.job for record in found.devices) == list(range(6))
    assert {record.task for record in found.devices} == {task.key for task in found.tasks}
    shots = sum(task.shots * task.subexperiments for task in found.tasks)
    for record in found.devices:
        assert (record.device, record.status) == ("stand_in", "done")
        assert record.calibrated_at == "2026-11-30T04:30:00.000+00:00"
        assert record.charged_seconds == 2.5
        assert record.options is None
        times = [record.submitted, record.queued, record.started, record.finished, record.returned]
        assert times == sorted(times)
        assert record.started - record.queued == pytest.approx(0.1, abs=1e-5)
        assert 0 <= times[0] <= times[-1] <= seconds
    # Each record rounds its shots a circuit.
    own = sum(record.shots * record.circuits for record in found.devices)
    assert own == pytest.approx(shots, abs=sum(record.circuits for record in found.devices))


def test_times_that_make_no_sense_are_the_clients(tmp_path: Path):
    (record, *_) = run(tmp_path, seconds=0.0).devices  # created, running and finished at once
    assert record.submitted == record.queued == record.started
    assert record.finished == record.returned


@pytest.mark.parametrize(
    "stamps",
    [
        None,
        {},
        {"created": "2026-12-01T00:00:00Z", "running": None, "finished": None},
        {"created": "soon", "running": "later", "finished": "at last"},
        dict.fromkeys(("created", "running", "finished"), "2026-12-01T00:00:00Z"),
        {
            "created": "2026-12-01T00:00:00Z",
            "running": "2026-12-01T00:00:02Z",
            "finished": "2026-12-01T00:00:01Z",
        },
    ],
)
def test_what_a_service_does_not_tell_is_left_out(stamps: Any):
    assert services.times_of({"timestamps": stamps}) is None
    assert services.charged_seconds({"timestamps": stamps}) is None


def test_what_a_service_says_of_its_device_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def lost(backend: object) -> None:
        raise RuntimeError(f"no properties at {ADDRESS} for {TOKEN}")

    monkeypatch.setattr(SamplerBackend, "target", property(lost))
    with pytest.raises(TaskFailedError, match="no properties at") as found:
        run(tmp_path, policy=ONCE)
    text = "".join(traceback.format_exception(found.value))
    assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize("name", ["max_shots", "num_qubits", "target"])
def test_a_device_that_cannot_be_read_names_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """Its client asks the service for what it does not know yet: limits, qubits, errors."""

    def lost(device: object) -> None:
        raise raised("ConnectionError", f"Max retries exceeded with url: {ACCOUNT}")

    sampler = sampler_of(tmp_path / "jobs")
    monkeypatch.setattr(Device, name, property(lost), raising=False)
    mitigation = Mitigation(readout=True, twirling=2)
    for own in (None, mitigation):
        options = EstimatorOptions(shots=100, seed=7, policy=ONCE, mitigation=own)
        with (
            pytest.raises(BackendError, match="a device cannot be read, as the service") as found,
            DistributedEstimator("AABBCC", sampler, options=options) as estimator,
        ):
            estimator.run([(circuit(), "ZZZZZZ")]).result()
        assert_silent(tmp_path, printed(found.value))
        for error in chain(found.value):
            assert not [secret for secret in SECRETS if secret in str(error)]


def test_a_price_names_no_account_where_the_device_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def lost(device: object) -> None:
        raise raised("ConnectionError", f"Max retries exceeded with url: {ACCOUNT}")

    options = EstimatorOptions(seed=7, mitigation=Mitigation(readout=True))
    sampler = sampler_of(tmp_path / "jobs")
    with DistributedEstimator("AABBCC", sampler, options=options) as estimator:
        monkeypatch.setattr(Device, "target", property(lost))
        with pytest.raises(BackendError, match="a device cannot be read, as the service") as found:
            estimator.price([(circuit(), "ZZZZZZ")], precision=0.1)
    assert_silent(tmp_path, printed(found.value))


def test_an_estimator_is_closed_where_its_device_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def lost(device: object) -> None:
        raise raised("ConnectionError", f"Max retries exceeded with url: {ACCOUNT}")

    estimator = DistributedEstimator("AABBCC", sampler_of(tmp_path / "jobs"))
    for name in ("num_qubits", "target"):
        monkeypatch.setattr(Device, name, property(lost))
    estimator.close()
    with pytest.raises(PoolError, match="the estimator is closed"):
        estimator.run([(circuit(), "ZZZZZZ")])


def test_a_device_of_several_that_cannot_be_read_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def lost(device: object) -> None:
        raise raised("ConnectionError", f"Max retries exceeded with url: {ACCOUNT}")

    own = [sampler_of(tmp_path / name, name=name) for name in ("east", "west")]
    east = type("East", (Device,), {"target": property(lost), "num_qubits": 5})
    own[0].backend().__class__ = east
    options = EstimatorOptions(shots=100, seed=7)
    with DistributedEstimator("AABBCC", own, options=options) as estimator:
        estimator.run([(circuit(), "ZZZZZZ")]).result()
    assert not own[0].backend().service.ids()
    assert len(own[1].backend().service.ids()) == 3
    assert "the device standin.Sampler(east) is lost: a device cannot be read" in caplog.text
    assert not [secret for secret in SECRETS if secret in caplog.text]


def test_a_service_that_tells_nothing_does_no_harm(
    tmp_path: Path, whole: Found, monkeypatch: pytest.MonkeyPatch
):
    def silent(job: object) -> None:
        raise RuntimeError(TOKEN)

    monkeypatch.setattr("standin.Job.metrics", silent)
    monkeypatch.setattr("standin.Job.properties", silent)
    found = run(tmp_path)
    assert_same(found, whole)
    assert len(found.devices) == 6
    assert {(r.calibrated_at, r.charged_seconds) for r in found.devices} == {(None, None)}


def test_a_job_of_an_earlier_client_began_before_this_run(tmp_path: Path):
    with pytest.raises(TaskFailedError):
        run(tmp_path, policy=ONCE, faults=Faults(lost_results=99), seconds=0.2)
    (tmp_path / "trace.jsonl").unlink()
    found = run(tmp_path, seconds=0.2)
    first = [record for record in found.devices if record.queued < 0]
    assert len(first) == 3
    assert all(record.submitted == record.queued for record in first)
    assert all(record.returned > 0 for record in first)


def test_options_are_recorded_and_accounts_are_not():
    options = Options(default_shots=10, twirling=Twirling(enable_gates=True))
    options.environment.job_tags = [TOKEN]
    text = services.options_text(type("S", (), {"options": options})())  # type: ignore[arg-type]
    assert text == '{"default_shots": 10, "twirling": {"enable_gates": true}}'


def test_local_simulators_write_none(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    options = EstimatorOptions(shots=100, seed=7)
    journal = tmp_path / "run.journal"
    with DistributedEstimator(
        "AABBCC", SamplerV2(), options=options, trace=trace, journal=journal
    ) as estimator:
        estimator.run([(circuit(), "ZZZZZZ")]).result()
    assert not [record for record in read_records(trace) if isinstance(record, DeviceRecord)]
    assert '"jobs"' not in journal.read_text("ascii")


# --- the client of the runtime -------------------------------------------------------------------


def test_samplers_of_the_runtime_send_the_tag(monkeypatch: pytest.MonkeyPatch):
    """Its own samplers and job, on a device of its own class, as far as the network."""
    runtime = pytest.importorskip("qiskit_ibm_runtime")
    from qiskit_ibm_runtime.executor_sampler import Sampler
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    fake, sent = FakeManilaV2(), []

    class OwnService(runtime.QiskitRuntimeService):
        def __new__(cls):
            return object.__new__(cls)

        def __init__(self):
            pass

        def _run(self, *, program_id, options, **_):
            sent.append(options["job_tags"])
            device = options["backend"]
            return runtime.RuntimeJobV2(device, None, f"id {len(sent)}", program_id, self)

    class OwnBackend(runtime.IBMBackend):
        target = fake.target

        def check_faulty(self, circuit):
            pass

    device = OwnBackend(fake.configuration(), OwnService(), None, INSTANCE)
    one = QuantumCircuit(1, 1)
    one.measure(0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        samplers = [Sampler(mode=device), runtime.SamplerV2(mode=device)]
    for count, sampler in enumerate(samplers, start=1):
        sampler.options.environment.job_tags = ["mine"]
        sampler.options.dynamical_decoupling.enable = True
        backend = SamplerBackend(sampler)
        assert backend.has_service
        request = jobs.JobRequest("a name", f"task {count}", [(one, None, 10)])
        job = jobs.Jobs().send(lambda own=sampler: own, device, request)
        assert job.id == f"id {count}"
        assert sent[-1] == ["mine", request.tag]
        assert sampler.options.environment.job_tags == ["mine"]
        assert services.options_text(sampler) == '{"dynamical_decoupling": {"enable": true}}'
    assert not SamplerBackend(Sampler(mode=fake)).has_service


# --- what does not travel -------------------------------------------------------------------------


def test_other_processes_are_refused(tmp_path: Path):
    sampler = sampler_of(tmp_path / "jobs")
    message = r'connection to the service of .*stand_in\) travels to no other.*pool="threads"'
    with ProcessPoolExecutor(1) as executor:
        for pool in ("processes", "dask", executor):
            with pytest.raises(InputError, match=message):
                DistributedEstimator("AABBCC", sampler, pool=pool)
    with ThreadPoolExecutor(1) as executor:
        DistributedEstimator("AABBCC", sampler, pool=executor).close()


def test_what_names_jobs_changes_no_result(tmp_path: Path):
    sampler = sampler_of(tmp_path / "jobs")
    before = SamplerBackend(sampler).identity
    sampler.options.environment.job_tags = ["mine"]
    sampler.options.environment.log_level = "DEBUG"
    assert SamplerBackend(sampler).identity == before
    sampler.options.twirling.enable_gates = True
    assert SamplerBackend(sampler).identity != before


def test_tags_of_the_caller_stay(tmp_path: Path):
    sampler = sampler_of(tmp_path / "jobs")
    sampler.options.environment.job_tags = ["mine"]
    options = EstimatorOptions(shots=100, seed=7)
    with DistributedEstimator("AABBCC", sampler, options=options) as estimator:
        estimator.run([(circuit(), "ZZZZZZ")]).result()
    assert sampler.options.environment.job_tags == ["mine"]
    tags = sampler.backend().service.tags()
    assert tags.pop("mine") == 3
    assert list(tags.values()) == [1, 1, 1]


# --- batches and sessions -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_a_batch_is_opened_once_and_closed_with_the_estimator(tmp_path: Path, mode: str):
    runtime = pytest.importorskip("qiskit_ibm_runtime")
    kind = {"batch": runtime.Batch, "session": runtime.Session}[mode]
    used = []

    class Noting(type(sampler_of(tmp_path / "jobs"))):
        def run(self, pubs, *, shots=None):
            used.append(self.mode)
            assert self.mode._active
            return super().run(pubs, shots=shots)

    sampler = Noting(sampler_of(tmp_path / "jobs").backend())
    backend = SamplerBackend(sampler, mode=mode)
    options = EstimatorOptions(shots=100, seed=7)
    for count in (1, 2):
        with DistributedEstimator("AABBCC", backend, options=options) as estimator:
            for _ in range(2):
                estimator.run([(circuit(), "ZZZZZZ")]).result()
            assert len(used) == 6 * count
        opened = set(used[6 * count - 6 :])
        assert [type(one) for one in opened] == [kind]
        assert not any(one._active for one in opened)
    assert len(set(used)) == 2
    assert sampler.mode is None


def test_a_batch_is_not_opened_for_jobs_that_were_sent_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = EstimatorOptions(shots=100, seed=7, policy=ONCE)
    opened = []
    monkeypatch.setattr(modes, "_opened", lambda kind, backend: opened.append(kind) or "a batch")

    def run_it(faults: Faults) -> None:
        backend = SamplerBackend(sampler_of(tmp_path / "jobs", faults=faults), mode="batch")
        monkeypatch.setattr(backend, "close", lambda: None)
        journal = tmp_path / "run.journal"
        with DistributedEstimator("AABBCC", backend, options=options, journal=journal) as own:
            own.pipeline.backend._mode.close = lambda: None
            own.run([(circuit(), "ZZZZZZ")]).result()

    with pytest.raises(TaskFailedError):
        run_it(Faults(lost_results=99))
    assert opened == ["batch"]
    run_it(Faults())
    assert opened == ["batch"]


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_a_session_that_is_closed_midway_is_opened_again(
    tmp_path: Path, mode: str, whole: Found, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("qiskit_ibm_runtime")
    used: list[Any] = []

    class Closing(type(sampler_of(tmp_path / "jobs"))):
        """The service closes what is open after the second job."""

        def run(self, pubs, *, shots=None):
            if len(used) == 2 and self.mode is used[-1]:
                raise raised("IBMRuntimeError", "The session is closed.")
            used.append(self.mode)
            return super().run(pubs, shots=shots)

    backend = SamplerBackend(Closing(sampler_of(tmp_path / "jobs").backend()), mode=mode)
    options = EstimatorOptions(shots_total=OPTIONS.shots_total, seed=OPTIONS.seed, policy=ONCE)
    with DistributedEstimator("AABBCC", backend, workers=1, options=options) as estimator:
        found = estimator.run([(circuit(), "ZZZZZZ")]).result()[0].data
    assert len({id(one) for one in used}) == 2
    assert len(used) == len(backend.sampler.backend().service.ids()) == 6
    assert abs(found.evs - whole.value) < 5 * np.hypot(found.stds, whole.stderr)
    assert f"the {mode} on stand_in was closed, and another is opened" in caplog.text


def test_a_session_that_is_closed_twice_in_a_row_is_an_error(tmp_path: Path):
    pytest.importorskip("qiskit_ibm_runtime")

    class Closed(type(sampler_of(tmp_path / "jobs"))):
        def run(self, pubs, *, shots=None):
            raise raised("IBMRuntimeError", f"The session has been closed, see {TOKEN}")

    sampler = Closed(sampler_of(tmp_path / "jobs").backend())
    options = EstimatorOptions(shots=100, seed=7, policy=ONCE)
    for mode, message in (
        ("session", "the service closed a session on stand_in twice in a row"),
        (None, r"the batch or session of stand_in takes no more jobs: give a sampler made with"),
    ):
        backend = SamplerBackend(sampler, mode=mode)
        with (
            DistributedEstimator("AABBCC", backend, options=options) as estimator,
            pytest.raises(TaskFailedError, match=message) as caught,
        ):
            estimator.run([(circuit(), "ZZZZZZ")]).result()
        assert_silent(tmp_path, printed(caught.value))


def test_modes_that_cannot_be():
    with pytest.raises(InputError, match=r'`mode` is \'queue\': use "batch", "session" or None'):
        SamplerBackend(StatevectorSampler(), mode="queue")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="StatevectorSampler sends its jobs in none"):
        SamplerBackend(StatevectorSampler(), mode="batch")


# --- the journal ----------------------------------------------------------------------------------


def test_without_a_journal_the_last_jobs_are_remembered():
    book = jobs.Remembered(most=3)
    for number in range(5):
        book.intend(str(number))
        book.sent(str(number), [f"id {number}"], "device")
    assert [book.jobs(str(number)) for number in range(5)] == [
        *(None, None),
        *[(f"id {number}",) for number in (2, 3, 4)],
    ]
    book.ended("4", "it was cancelled")
    assert book.jobs("4") is None


def test_a_journal_remembers_jobs(tmp_path: Path):
    path = tmp_path / "run.journal"
    with Journal(path) as journal:
        assert journal.jobs("a") is None
        journal.intend("a")
        journal.intend("b")
        journal.sent("b", ["7", "8"], "device")
        journal.intend("c")
        journal.sent("c", ["9"], "device")
        journal.ended("c", "it was cancelled")
        journal.add("b", (np.array([1.0]),))
    with Journal(path) as journal:
        assert [journal.jobs(name) for name in "abcd"] == [(), ("7", "8"), None, None]
        assert journal.find("b")[0] == 1.0
        assert journal.find("a") is None


def test_a_journal_without_jobs_is_gone_on_with(tmp_path: Path):
    path = tmp_path / "run.journal"
    with Journal(path) as journal:
        journal.add("a", (np.array([1.0]),))
    path.write_bytes(path.read_bytes().replace(b'{"journal": 2', b'{"journal": 1', 1))
    with Journal(path) as journal:
        assert journal.find("a")[0] == 1.0
        journal.intend("b")
    with Journal(path) as journal:
        assert journal.jobs("b") == ()


def test_a_batch_that_cannot_be_closed_harms_nothing(caplog: pytest.LogCaptureFixture):
    class Lost:
        def close(self) -> None:
            raise RuntimeError(TOKEN)

    mode = modes.Mode("batch")
    mode._open = Lost()
    mode.close()
    assert "a batch could not be closed (RuntimeError)" in caplog.text
    assert TOKEN not in caplog.text
