"""Real faults under runs: no result is lost, doubled or changed, nothing hangs, nothing is left.

The quick tests strike once with each fault on each pool; those marked `soak` strike again and
again at random moments, and print how long it took until the tasks concerned were folded in.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import time
import zlib
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pytest
from faults import (
    MEBIBYTE,
    SECONDS,
    Faulty,
    all_gone,
    assert_each_folded_once,
    children_called,
    gather,
    is_gone,
    play,
    struck,
    wait_until,
    workers_of,
)
from pool_works import Program
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import BaseSamplerV2, StatevectorSampler

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.sampler import SamplerBackend
from distributed_estimator.errors import PoolError, TaskFailedError, ThrottledError
from distributed_estimator.execution import (
    Constant,
    Deadline,
    Policy,
    Retry,
    Speculation,
    Stragglers,
)
from distributed_estimator.execution.dispatcher import Dispatcher
from distributed_estimator.execution.pools import driven
from distributed_estimator.execution.pools.child import led_by
from distributed_estimator.execution.pools.clusters import DaskEngine, DaskPool, RayPool
from distributed_estimator.execution.pools.processes import ProcessPool
from distributed_estimator.records import TaskRecord, read_records

POOLS = ("processes", "dask", "ray")
WORKERS = 3
TASKS = 12
TIMEOUT = 0.75
"""Seconds after which a task counts as hung, where one is."""
PATIENCE = 60.0
LOOKS = 3
"""One a second, at a worker whose report does not come."""
BACKOFF = 0.01
ALLOWANCE = 8.0
"""Seconds that recovery may take beyond what is told of it: the machine may be busy, and Dask asks
for 5 s for an answer that died with its worker."""

ROUNDS = 3
"""What goes wrong one time in two is seen in 7 of 8 runs of a fault, and a flaw of the dispatcher
strikes on every pool and with several faults."""

VERBS = {"answers": ("raise", "throttle", "nan", "shape", "change")}
"""Faults that disturb nobody else strike together; any other's verb is its own name."""
OUTSIDE = {"kill from outside": signal.SIGKILL, "stop from outside": signal.SIGSTOP}
FAULTS = ("kill", "stop", "segv", "hang", "memory", "files", "answers", "late", "unplug", *OUTSIDE)
LINES = ("babble", "mumble", "orphan")
"""What happens to connections between workers and an engine of its own."""
STATUS = {
    "raise": "failed",
    "throttle": "failed",
    "own_memory": "failed",
    "files": "failed",
    "nan": "damaged",
    "shape": "damaged",
    "change": "damaged",
}


def make(name):
    """A pool of which tasks can meet the memory limit; Ray's actors have only the process's own."""
    if name == "processes":
        return ProcessPool(WORKERS, memory_limit=512 * MEBIBYTE)
    return DaskPool(WORKERS, memory_limit=640 * MEBIBYTE) if name == "dask" else RayPool(WORKERS)


@pytest.fixture(scope="module", params=POOLS)
def pool(request):
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(make(request.param)) as made:
        patch.setattr(DaskEngine, "patience", LOOKS)
        yield made
    assert not workers_of(request.param)


def in_soak(*names):
    """These pools are left to the soak tests: a quick one has what a cluster adds elsewhere."""
    pools = [pytest.param(n, marks=pytest.mark.soak) if n in names else n for n in POOLS]
    return pytest.mark.parametrize("pool", pools, indirect=True, scope="module")


@pytest.fixture
def processes():
    with contextlib.closing(make("processes")) as made:
        yield made


# --- tasks of a run -------------------------------------------------------------------------------


def new_work(folder):
    folder = folder / uuid4().hex
    folder.mkdir()
    return Faulty(str(folder))


def policy(fault, **more):
    hangs = fault.startswith(("stop", "hang"))
    retry = Retry(attempts=6, timeout=TIMEOUT if hangs else PATIENCE, backoff=BACKOFF)
    return Policy(retry=retry, **more)


def verbs_of(fault, pool):
    if fault == "memory" and pool.name == "ray":
        return ("own_memory",)
    return VERBS.get(fault, (fault,))


def one_round(pool, folder, fault, seed):
    """Run tasks under a fault; seconds from when it was, or had to be, noticed to each result."""
    pids = gather(pool, folder, WORKERS)
    work, rng = new_work(folder), np.random.default_rng(seed)
    if fault == "late":
        return late_round(pool, work)
    if fault in OUTSIDE:
        return outside_round(pool, work, fault, pids, rng)
    return inside_round(pool, work, fault, rng)


def inside_round(pool, work, fault, rng):
    """Have random tasks strike their own worker, or answer wrongly."""
    verbs = verbs_of(fault, pool)
    places = rng.choice(TASKS, len(verbs), replace=False).tolist()
    chosen = dict(zip(places, verbs, strict=True))
    played = play(pool, work, [(n, chosen.get(n)) for n in range(TASKS)], policy(fault))
    assert_sound(played, TASKS)
    assert played.tally.retries >= len(verbs)
    seconds = []
    for place, verb in chosen.items():
        # Within a process, a limit makes the task raise; Dask ends the worker.
        raises = verb == "memory" and pool.name == "processes"
        (failed,) = played.of(place, "failed" if raises else STATUS.get(verb, "lost"))
        assert failed.cause
        assert failed.number == 0
        at, pid = struck(work, place)
        if failed.status == "lost" or verb == "files":
            wait_until(lambda pid=pid: is_gone(pid), "the worker that was lost is gone")
        if fault == "memory":
            at = failed.finished  # it takes a while until a limit is met
        seconds.append(recovery(played, place, at, fault))
    return seconds


def outside_round(pool, work, fault, pids, rng):
    """Strike a random worker at a random moment of the first half of a run."""
    at, pid = [], int(rng.choice(pids))

    def strike():
        time.sleep(rng.uniform(0.0, TASKS / WORKERS / 2 * SECONDS))
        os.kill(pid, OUTSIDE[fault])
        at.append(time.perf_counter())

    tasks = [(n, None) for n in range(TASKS)]
    played = play(pool, work, tasks, policy(fault), meanwhile=strike)
    assert_sound(played, TASKS)
    wait_until(lambda: is_gone(pid), "the worker that was struck is gone")
    lost = {attempt.task for attempt in played.attempts if attempt.status == "lost"}
    return [recovery(played, n, at[0], fault) for n in lost]


def late_round(pool, work):
    """Task 0 answers after its duplicate; the last task ends when both answers have come."""
    verbs = {0: "late", TASKS: "wait"}
    speculation = Speculation(quantile=0.5, factor=2.0, budget=0.01)
    tasks = [(n, verbs.get(n)) for n in range(TASKS + 1)]
    played = play(pool, work, tasks, policy("late", speculation=speculation), limit=30.0)
    assert_sound(played, TASKS + 1)
    assert [a.status for a in played.attempts if a.task == 0] == ["done", "late"]
    assert [a.purpose for a in played.attempts if a.task == 0] == ["duplicate", "first"]
    assert played.tally.speculated == 1
    return []


def assert_sound(played, count):
    assert played.error is None, played.error
    assert played.tally.missing == ()
    assert_each_folded_once(played, range(count))


def recovery(played, number, at, fault):
    noticed = at + TIMEOUT if policy(fault).retry.timeout == TIMEOUT else at
    return played.folded[number][0][0] - noticed


@pytest.mark.parametrize("pool", ["processes"], indirect=True, scope="module")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_task_is_folded_in_once_whatever_happens(pool, fault, tmp_path):
    one_round(pool, tmp_path, fault, seed=1)
    gather(pool, tmp_path, WORKERS)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_task_is_folded_in_once_however_often_it_happens(pool, fault, tmp_path, capsys):
    seconds = []
    for seed in range(ROUNDS):
        seconds += one_round(pool, tmp_path, fault, seed)
    gather(pool, tmp_path, WORKERS)
    if seconds:
        p95 = np.quantile(seconds, 0.95)
        with capsys.disabled():
            print(
                f"\n{pool.name}, {fault}: {ROUNDS} rounds, {len(seconds)} tasks struck, recovered "
                f"after {np.median(seconds):.3f} s, p95 {p95:.3f}, most {max(seconds):.3f}; "
                f"two tasks and the pause are {2 * SECONDS + BACKOFF:.3f}"
            )
        assert p95 <= 2 * SECONDS + BACKOFF + ALLOWANCE


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", LINES)
@pytest.mark.parametrize("pool", ["dask", "ray"], indirect=True)
def test_lines_that_carry_rubbish_are_survived(pool, fault, tmp_path):
    for seed in range(2):
        one_round(pool, tmp_path, fault, seed)
    gather(pool, tmp_path, WORKERS)


# --- a task that kills every worker it meets ------------------------------------------------------


@in_soak("dask", "ray")
def test_a_poison_task_is_given_up_and_named_and_all_others_complete(pool, tmp_path):
    work = new_work(tmp_path)
    tasks = [(n, "poison" if n == 4 else None) for n in range(TASKS)]

    # Tasks share jobs here, so that the poison takes others with it at first.
    played = play(pool, work, tasks, Policy(retry=Retry(timeout=PATIENCE)), stragglers=None)

    assert isinstance(played.error, TaskFailedError)
    assert str(played.error).startswith("task 4 failed 3 times, at last because worker ")
    assert ";" not in str(played.error), "no other task is named"
    assert_each_folded_once(played, [n for n in range(TASKS) if n != 4])
    assert [a.number for a in played.of(4, "lost")] == [0, 1, 2]
    assert len(list(Path(work.folder).glob("attempt.4.*"))) == 3
    gather(pool, tmp_path, WORKERS)


def test_a_task_is_not_to_blame_for_workers_without_file_descriptors(processes, tmp_path):
    work = new_work(tmp_path)
    tasks = [(n, "files" if n < WORKERS else None) for n in range(TASKS)]
    played = play(processes, work, tasks, Policy(retry=Retry(1, timeout=PATIENCE)))

    assert_sound(played, TASKS)
    cause = "OSError: [Errno 24] Too many open files: '/dev/null'"
    assert [a.cause for a in played.attempts if a.status == "failed"] == [cause] * WORKERS
    pids = {struck(work, number)[1] for number in range(WORKERS)}
    assert len(pids) == WORKERS, "none was there for another strike"
    wait_until(lambda: all(map(is_gone, pids)), "they are gone")


# --- the guards, removed --------------------------------------------------------------------------


def test_without_deduplication_a_late_answer_would_count_twice(processes, tmp_path, monkeypatch):
    ended = Dispatcher._finished

    def accept_again(self, event):
        for task, _ in event.finished:
            self._num_open += not self._open[task]
            self._open[task] = True
        ended(self, event)

    monkeypatch.setattr(Dispatcher, "_finished", accept_again)
    with pytest.raises(AssertionError, match=r"\{0: 2, .*12: 1\}"):
        late_round(processes, new_work(tmp_path))


# --- the estimator --------------------------------------------------------------------------------

LABEL = "AABBCC"
POINTS = 3
OPTIONS = EstimatorOptions(
    shots=64,
    seed=5,
    policy=Policy(subexperiments=1, retry=Retry(backoff=BACKOFF)),
    stragglers=Stragglers(1.0, Constant(0.03)),
)


def pub():
    circuit = real_amplitudes(6, reps=1, entanglement="linear")
    values = np.random.default_rng(3).uniform(-3, 3, (POINTS, 1, circuit.num_parameters))
    return circuit, ["ZZZZZZ", "XIZIYI"], values


def estimate(pool, folder, backend=None, options=OPTIONS, meanwhile=None):
    """A sampled run in some hundred tasks; its folder gets a journal and a record of attempts."""
    files = {"journal": folder / "journal", "trace": folder / f"trace.{uuid4().hex}"}
    with DistributedEstimator(LABEL, backend, pool, WORKERS, options, **files) as estimator:
        job = estimator.run([pub()])
        if meanwhile is not None:
            meanwhile()
        return job.result()[0], files["trace"]


def main(pool, folder, silence=None):
    """What scripts run: the estimate, and its bits in a file."""
    if silence is not None:
        driven.SILENCE = float(silence)
    result, trace = estimate(pool, Path(folder))
    trace.rename(Path(folder) / "trace")
    np.savez(Path(folder) / "result.npz", evs=result.data.evs, stds=result.data.stds)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    result, trace = estimate("threads", tmp_path_factory.mktemp("undisturbed"))
    keys = [r.key for r in read_records(trace) if isinstance(r, TaskRecord)]
    assert len(keys) == len(set(keys)) > 100
    return result.data, set(keys)


def assert_same_bits(data, expected):
    assert np.array_equal(data.evs, expected.evs)
    assert np.array_equal(data.stds, expected.stds)


def results_in(folder):
    """How many tasks' results a journal has by now."""
    path = folder / "journal"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_an_estimate_has_the_same_bits_where_workers_are_killed(pool, seed, tmp_path, undisturbed):
    expected, keys = undisturbed
    rng = np.random.default_rng(seed)

    def strike():
        moments = np.sort(rng.choice(np.arange(3, 2 * len(keys) // 3), 3, replace=False))
        for moment in moments.tolist():
            wait_until(lambda moment=moment: results_in(tmp_path) >= moment, "results come")
            os.kill(rng.choice([p.pid for p in workers_of(pool.name)]), signal.SIGKILL)

    result, trace = estimate(pool, tmp_path, meanwhile=strike)

    assert_same_bits(result.data, expected)
    records = [r for r in read_records(trace) if isinstance(r, TaskRecord)]
    lost = [r for r in records if r.status == "lost"]
    assert 0 < len(lost) == result.record.retries
    assert all(r.cause.startswith("worker ") for r in lost)
    assert sorted(r.key for r in records if r.status == "done") == sorted(keys)
    gather(pool, tmp_path, WORKERS)


class RowByRow(StatevectorBackend):
    """Tasks hold one binding."""

    def rows_per_task(self, experiment):
        return 1


class Poisoned(RowByRow):
    """The tasks of one fragment at one binding kill every worker they meet."""

    def run(self, experiment, task):
        if task.experiment == 1 and task.start == 2:
            ctypes.string_at(0)
        return super().run(experiment, task)


@in_soak("dask", "ray")
def test_the_fragment_settings_and_binding_that_kill_workers_are_named(pool, tmp_path):
    options = EstimatorOptions(shots=64, seed=5, policy=Policy(retry=Retry(backoff=BACKOFF)))
    whole = tmp_path / "whole"
    whole.mkdir()
    estimate("threads", whole, RowByRow(), options)

    with pytest.raises(TaskFailedError) as caught:
        estimate(pool, tmp_path, Poisoned(), options)

    message = str(caught.value)
    assert message.startswith("fragment 1, settings 0 to ")
    assert ", binding 2 failed 3 times, at last because worker " in message
    assert message.count(" failed ") == 1
    assert results_in(tmp_path) == results_in(whole) - 1 > 0
    gather(pool, tmp_path, WORKERS)


class Line:
    """A job whose result is an error."""

    def __init__(self, error):
        self.error = error

    def result(self):
        raise self.error


def is_first(note):
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class UnreliableSampler(BaseSamplerV2):
    """Of every two jobs that are new to it one fails, is cancelled, or is put off."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, pubs, *, shots=None):
        content = repr([(np.asarray(pub[1]).tobytes(), pub[2]) for pub in pubs]).encode()
        seed = zlib.crc32(content)
        if seed % 2 and is_first(Path(self.folder) / f"job.{seed}"):
            if seed % 3 == 0:
                raise ThrottledError("too many jobs", retry_after=0.01)
            return Line(RuntimeError("the job failed" if seed % 3 == 1 else "it was cancelled"))
        return StatevectorSampler(seed=np.random.default_rng(seed)).run(pubs, shots=shots)


@in_soak("dask", "ray")
def test_an_estimate_has_the_same_bits_where_sampler_jobs_fail(pool, tmp_path):
    plan = Policy(retry=Retry(backoff=BACKOFF))
    options = EstimatorOptions(shots=64, seed=5, policy=plan)
    results = []
    for chosen in (pool, "threads"):
        folder = tmp_path / str(len(results))
        folder.mkdir()
        sampler = UnreliableSampler(str(tmp_path))
        backend = SamplerBackend(sampler, defer_measurements=True, circuits_per_job=8)
        results.append(estimate(chosen, folder, backend, options)[0])
    first, second = results
    assert_same_bits(first.data, second.data)
    assert first.record.retries == len(list(tmp_path.glob("job.*"))) > 10
    assert second.record.retries == 0, "every job is known by now"


# --- the engine is lost ---------------------------------------------------------------------------

ENGINES = {"processes": "serve_starts", "dask": "pools.child", "ray": "gcs_server"}


def kill_engine(pool, others):
    engines = set(children_called(ENGINES[pool.name])) - others
    min(engines, key=psutil.Process.create_time).kill()  # its forks bear its name


def drop_connection(pool, others):
    """Shut down the sockets to the engine, or to one worker where there is none between."""
    if pool.name == "processes":
        wait_until(lambda: pool._engine._running, "a worker is busy")
        lines = [next(iter(pool._engine._running.values())).worker._connection.fileno()]
    else:
        lines = [pool._engine._child._connection.fileno()]
    for line in lines:
        with socket.socket(fileno=os.dup(line)) as end:
            end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("name", "strike"),
    [
        ("processes", drop_connection),
        # The quick tests stop these engines, and kill a scheduler and a raylet.
        *(pytest.param(name, drop_connection, marks=pytest.mark.soak) for name in ("dask", "ray")),
        *(pytest.param(name, kill_engine, marks=pytest.mark.soak) for name in POOLS),
    ],
)
def test_an_engine_that_is_lost_is_survived_or_one_error(name, strike, tmp_path, undisturbed):
    at = []
    # Of the pool that other tests share; all process pools have one server.
    before, others = set(workers_of(name)), set()
    if name != "processes":
        others |= set(children_called(ENGINES[name]))

    def meanwhile():
        wait_until(lambda: results_in(tmp_path) >= 5, "results come", 120.0)
        at.append(time.perf_counter())
        strike(pool, others)

    with contextlib.closing(make(name)) as pool:
        if name == "processes":  # each has its own line, and outlives the server that started it
            result, _ = estimate(pool, tmp_path, meanwhile=meanwhile)
            assert_same_bits(result.data, undisturbed[0])
        else:
            with pytest.raises(PoolError, match=r"(Dask|Ray) is gone"):
                estimate(pool, tmp_path, meanwhile=meanwhile)
            assert time.perf_counter() - at[0] < 10.0 + ALLOWANCE
    wait_until(lambda: before.issuperset(workers_of(name)), "no worker is left")


SILENCE = 2.0
"""Seconds of it that are waited for where a helper process is stopped."""


def stop_round(name, helper, folder, moment):
    """Stop a helper process amid a run that has a deadline, then run again, and close.

    Args:
        name: The pool.
        helper: Name of the process; None: the one that leads the session of all others.
        folder: For all files.
        moment: When, in seconds after the run began.
    """
    with contextlib.closing(make(name)) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(driven, "SILENCE", SILENCE)
        started = play(pool, new_work(folder), [(0, None)], Policy(), limit=120.0)
        assert started.error is None
        leader = pool._engine._child.pid
        family = [psutil.Process(pid) for pid, _ in led_by(leader, os.getsid)]
        (helping,) = [p for p in family if (p.name() == helper if helper else p.pid == leader)]
        tasks = [(number, None) for number in range(100 * WORKERS)]

        def strike():
            time.sleep(moment)
            helping.suspend()

        begin = time.perf_counter()
        first = play(
            pool, new_work(folder), tasks, Policy(deadline=Deadline(moment + 0.5)), meanwhile=strike
        )
        middle = time.perf_counter()
        second = play(pool, new_work(folder), tasks, Policy())
        end = time.perf_counter()
        pool.close()
        closed = time.perf_counter()

    assert middle - begin < moment + 0.5 + ALLOWANCE / 2
    assert first.error is None
    assert first.tally.missing, "the helper was needed"
    assert isinstance(second.error, PoolError)
    assert re.search(rf"(did not answer|silent|stopped) for {SILENCE:g} s", str(second.error))
    assert end - middle < SILENCE + ALLOWANCE
    assert closed - end < 5.0 + ALLOWANCE / 2
    wait_until(  # re-parented ones, too
        lambda: all(is_gone(pid) for pid, _ in led_by(leader, os.getsid)), "all are gone", 5.0
    )
    assert all(is_gone(process.pid) for process in family)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "helper", "rounds"),
    [("dask", None, 2), ("ray", None, 2), ("ray", "gcs_server", 1), ("ray", "raylet", 1)],
)
def test_a_helper_that_is_stopped_at_any_moment_is_one_error(name, helper, rounds, tmp_path):
    for moment in np.random.default_rng(1).uniform(0.0, 0.5, rounds):
        stop_round(name, helper, tmp_path, moment)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_program_that_was_suspended_does_not_take_its_helper_for_stopped(
    name, tmp_path, undisturbed
):
    with script(name, tmp_path, 2 * SILENCE) as made:
        wait_until(lambda: results_in(tmp_path) >= 5, "results come", 120.0)
        made.process.send_signal(signal.SIGSTOP)
        time.sleep(4 * SILENCE)
        made.process.send_signal(signal.SIGCONT)
        assert made.wait() == ("", "", 0)
    with np.load(tmp_path / "result.npz") as found:
        assert np.array_equal(found["evs"], undisturbed[0].evs)


# --- the controller is lost -----------------------------------------------------------------------

SCRIPT = """
import sys
if __name__ == "__main__":
    from test_faults import main
    main(*sys.argv[1:])
"""


def script(name, folder, *more):
    """The estimate in an interpreter of its own."""
    return Program(folder, SCRIPT, name, folder, *more)


CONTROLLERS = [
    ("processes", "threads", 0),
    *(pytest.param(name, name, 1, marks=pytest.mark.soak) for name in POOLS),
]


@pytest.mark.parametrize(("name", "again", "seed"), CONTROLLERS)
def test_a_run_goes_on_where_its_controller_was_killed(name, again, seed, tmp_path, undisturbed):
    """Kill a script at a random moment, and go on."""
    folder, (expected, keys) = tmp_path, undisturbed
    moment = int(np.random.default_rng(seed).integers(1, 2 * len(keys) // 3))
    with script(name, folder) as made:
        wait_until(lambda: results_in(folder) >= moment, "results come", 120.0)
        descendants = made.descendants()
        made.process.kill()
        all_gone(descendants, made.mark, 10.0 + ALLOWANCE)
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    whole = [json.loads(line)["key"] for line in lines[1:] if line.endswith(b"\n")]
    kept = {key.split()[-1] for key in whole}
    assert kept <= keys
    assert moment <= len(kept) < len(keys)
    assert len(descendants) >= WORKERS

    with script(again, folder) as made:
        assert made.wait() == ("", "", 0)
    with np.load(folder / "result.npz") as found:
        assert np.array_equal(found["evs"], expected.evs)
        assert np.array_equal(found["stds"], expected.stds)
    ran = [r for r in read_records(folder / "trace") if isinstance(r, TaskRecord)]
    assert sorted(r.key for r in ran) == sorted(keys - kept)


@pytest.mark.parametrize(
    "name", ["processes", *(pytest.param(n, marks=pytest.mark.soak) for n in ("dask", "ray"))]
)
def test_ctrl_c_ends_everything_and_workers_say_nothing(name, tmp_path, capsys):
    with script(name, tmp_path) as made:
        wait_until(lambda: results_in(tmp_path) >= 5, "results come", 120.0)
        descendants, begin = made.descendants(), time.perf_counter()
        os.killpg(made.process.pid, signal.SIGINT)
        _, errors, _ = made.wait()
        seconds = time.perf_counter() - begin
        all_gone(descendants, made.mark, ALLOWANCE)
    assert seconds < 5.0 + ALLOWANCE
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert errors.count("Traceback") == 1
    assert not (tmp_path / "result.npz").exists()
    with capsys.disabled():
        print(f"\n{name}: ended {seconds:.1f} s after Ctrl-C")
