"""Worker processes that die, hang, lie or lose their parent."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
import psutil
import pytest
from faults import is_gone, wait_until
from pool_works import Calls, Inbox, Program, job_of, wait_for_calls

from distributed_estimator.errors import InputError
from distributed_estimator.execution.messages import Finished, Lost
from distributed_estimator.execution.pools import processes
from distributed_estimator.execution.pools.processes import ProcessPool

GIGABYTE = 1 << 30


class Liar(Calls):
    """Says to its parent what no worker says."""

    def do_send(self, message):
        self.connection().send(message)
        return (np.array([0.0]),)

    def do_send_bytes(self, data):
        self.connection().send_bytes(data)
        return (np.array([0.0]),)

    def do_write(self, data):
        os.write(self.connection().fileno(), data)
        os._exit(5)

    def connection(self):
        (found,) = [o for o in gc.get_objects() if isinstance(o, Connection) and not o.closed]
        return found


@pytest.fixture(scope="module")
def pool():
    made = ProcessPool(2)
    yield made
    made.close()


def run(pool, inbox, *jobs):
    for job in jobs:
        pool.submit(job, inbox)
    return inbox.until_over(*jobs)


def wait_until_gone(*pids, timeout=10.0):
    wait_until(lambda: all(map(is_gone, pids)), f"{pids} end", timeout)


def value_of(pool, inbox, work):
    """What an ordinary job gives: the pool is well."""
    (end,) = run(pool, inbox, job_of(work, ("value", 3.0)))
    assert isinstance(end, Finished), end
    return float(end.outcomes[0].arrays[0][0])


LIES = [
    (("send", "nonsense"), "sent a report that is none: 'nonsense'"),
    (("send_bytes", b"\x80nonsense"), "sent a report that cannot be read"),
    (("write", b"\x00\x00\x10\x00half a report"), "ended with exit code 5"),
]


@pytest.mark.parametrize(("task", "cause"), LIES)
def test_a_report_that_is_none_costs_the_worker_its_place(pool, inbox, tmp_path, task, cause):
    liar = Liar(str(tmp_path))
    (pid_end,) = run(pool, inbox, job_of(liar, ("pid",)))

    (lost,) = run(pool, inbox, job_of(liar, task))

    assert isinstance(lost, Lost)
    assert lost.kind == "lost"
    assert cause in lost.cause
    assert isinstance(pid_end, Finished)
    assert value_of(pool, inbox, liar) == 3.0


def test_a_task_that_takes_too_much_memory_fails_alone(inbox, work):
    pool = ProcessPool(1, memory_limit=GIGABYTE)
    try:
        (end,) = run(pool, inbox, job_of(work, ("allocate", 4 * GIGABYTE)))
        assert isinstance(end, Finished), end
        assert str(end.outcomes[0].error).startswith("MemoryError: Unable to allocate 4.00 GiB")
        assert value_of(pool, inbox, work) == 3.0
    finally:
        pool.close()


def test_a_limit_that_leaves_no_memory_is_refused(inbox, work):
    pool = ProcessPool(2, memory_limit=1_000_000)
    try:
        ends = run(pool, inbox, *(job_of(work, ("value", 1.0), number=n) for n in range(3)))
    finally:
        pool.close()

    assert [end.kind for end in ends] == ["refused"] * 3
    assert "`memory_limit` is 1000000 bytes" in ends[0].cause
    assert "give more" in ends[0].cause


def test_spawned_workers_do_as_well(inbox, work):
    pool = ProcessPool(1, start_method="spawn")
    try:
        assert value_of(pool, inbox, work) == 3.0
        (lost,) = run(pool, inbox, job_of(work, ("signal", signal.SIGKILL)))
        assert lost.cause == "worker 0 was ended by signal 9 (SIGKILL)"
    finally:
        pool.close()


def test_a_task_may_have_processes_of_its_own(pool, inbox, tmp_path):
    (end,) = run(pool, inbox, job_of(Parent(str(tmp_path)), ("child",)))

    assert isinstance(end, Finished)
    assert end.outcomes[0].error is None
    assert end.outcomes[0].arrays[0][0] == 0.0


class Parent(Calls):
    """Gives the exit code of a process that it starts."""

    def do_child(self):
        process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
        process.start()
        process.join(60.0)
        return (np.array([float(process.exitcode)]),)


def fork_server():
    """Number of the process that starts this program's workers, of other pools too."""
    return processes._server.process.pid


def started():
    """Processes that it has started and that may still run."""
    server = processes._server.process
    return set() if server is None else {c.pid for c in psutil.Process(server.pid).children()}


def pid_of(pool, inbox, work):
    """The process that does the next task."""
    (end,) = run(pool, inbox, job_of(work, ("pid",)))
    assert isinstance(end, Finished), end
    return int(end.outcomes[0].arrays[0][0])


def lose_server(moment, folder):
    """Stop the fork server at a moment in the life of a pool, which is to go on, or to end."""
    inbox, work = Inbox(), Calls(str(folder))
    with contextlib.closing(ProcessPool(1)) as pool:
        if moment == "before the start":
            with contextlib.closing(ProcessPool(1)) as first:
                worker = pid_of(first, inbox, work)  # so that there is a server
        else:
            worker = pid_of(pool, inbox, work)
        job = job_of(work, ("until", "never"))
        if moment == "while a worker is replaced":
            pool.submit(job, inbox)
            wait_for_calls(folder, "until", 1)
        server = fork_server()
        os.kill(server, signal.SIGSTOP)
        if moment in ("between tasks", "while a worker is replaced"):
            whole = os.pidfd_open(worker)
            os.kill(worker, signal.SIGKILL)
            assert wait([whole], 30.0), "all its threads have ended"
            os.close(whole)
        if moment == "while a worker is replaced":
            (lost,) = inbox.until_over(job)
            assert "ended" in lost.cause
        if moment != "while it closes":
            worker = pid_of(pool, inbox, work)
            assert fork_server() != server
        begin = time.monotonic()
        pool.close()
        assert time.monotonic() - begin < 5.0
    wait_until_gone(server, worker)


MOMENTS = ("before the start", "between tasks", "while a worker is replaced", "while it closes")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_fork_server_is_replaced(pool, inbox, work, tmp_path, moment):
    bystander = pid_of(pool, inbox, work)
    lose_server(moment, tmp_path)
    assert not is_gone(bystander), "workers outlive their server"


def test_a_fork_server_that_never_answers_is_one_error(inbox, work, monkeypatch):
    monkeypatch.setattr(processes, "_SERVER_LIMIT", 0.0)  # it has to import NumPy first
    processes._server.end()
    with contextlib.closing(ProcessPool(1)) as pool:
        (refused,) = run(pool, inbox, job_of(work, ("value", 1.0)))

    assert refused.kind == "refused"
    assert refused.cause.startswith("a worker process cannot be started (the process that starts")
    assert refused.cause.endswith('use pool="threads"')


def test_a_worker_that_is_stopped_while_it_starts_is_replaced(inbox, work, monkeypatch):
    ask, launched = processes._server.ask, []

    def stopped_at_first(verb, *arguments, **options):
        answer = ask(verb, *arguments, **options)
        if verb == "spawn":
            if not launched:
                os.kill(answer, signal.SIGSTOP)
            launched.append(answer)
        return answer

    monkeypatch.setattr(processes._server, "ask", stopped_at_first)
    with contextlib.closing(ProcessPool(1, start_method="spawn")) as pool:
        assert pid_of(pool, inbox, work) == launched[1]
    wait_until_gone(*launched)


FAMILY = [("forked", "abandon"), ("forked", "die"), ("run", "abandon"), ("run", "close")]


@pytest.mark.parametrize(("how", "end"), FAMILY)
def test_what_a_task_has_started_ends_with_its_worker(inbox, tmp_path, how, end):
    work = Family(str(tmp_path))
    job = job_of(work, (how,))
    with contextlib.closing(ProcessPool(1)) as pool:
        pool.submit(job, inbox)
        (worker,) = wait_for_calls(tmp_path, how, 1)
        wait_until(lambda: psutil.Process(worker).children(), "it has a child")
        children = [child.pid for child in psutil.Process(worker).children()]
        if end == "abandon":
            pool.abandon(job)
        elif end == "die":
            os.kill(worker, signal.SIGKILL)
        if end != "close":
            assert inbox.until_over(job)[0].kind == "lost"
    wait_until_gone(worker, *children)


class Family(Calls):
    """Starts processes that would never end."""

    def do_forked(self):
        if os.fork() == 0:
            time.sleep(1000.0)
        time.sleep(1000.0)

    def do_run(self):
        subprocess.run(["sleep", "1000"], check=False)


class Halved(Calls):
    """Dies while it sends, and leaves a process of another group that has its line open."""

    def do_halve(self):
        if os.fork() == 0:
            os.setsid()
            (Path(self.folder) / f"call.left.{os.getpid()}").touch()
            time.sleep(1000.0)
        while not list(Path(self.folder).glob("call.left.*")):
            time.sleep(0.01)
        (line,) = [o for o in gc.get_objects() if isinstance(o, Connection) and not o.closed]
        os.write(line.fileno(), b"\x00\x00\x10\x00half a report")
        os._exit(5)


def test_a_report_whose_rest_never_comes_costs_no_worker(inbox, tmp_path):
    work = Halved(str(tmp_path))
    job = job_of(work, ("halve",))
    with contextlib.closing(ProcessPool(1)) as pool:
        pool.submit(job, inbox)
        (worker,) = wait_for_calls(tmp_path, "halve", 1)
        (left,) = wait_for_calls(tmp_path, "left", 1)
        wait_until_gone(worker)
        pool.abandon(job)
        try:
            assert inbox.until_over(job)[0].kind == "lost"
            assert value_of(pool, inbox, work) == 3.0
        finally:
            os.kill(left, signal.SIGKILL)


def test_closing_while_busy_leaves_no_process(inbox, work, tmp_path):
    pool = ProcessPool(2)
    busy = [job_of(work, ("until", "go"), number=n) for n in range(2)]
    for job in busy:
        pool.submit(job, inbox)
    pids = wait_for_calls(tmp_path, "until", 2)
    os.kill(pids[0], signal.SIGSTOP)

    pool.close()

    wait_until_gone(*pids)
    assert [end.kind for end in inbox.until_over(*busy)] == ["cancelled"] * 2


def test_a_stopped_idle_worker_does_not_keep_the_pool_from_closing(inbox, work):
    pool = ProcessPool(1)
    (end,) = run(pool, inbox, job_of(work, ("pid",)))
    pid = int(end.outcomes[0].arrays[0][0])
    os.kill(pid, signal.SIGSTOP)

    pool.close()

    wait_until_gone(pid)


def test_closing_while_workers_start_leaves_no_process(inbox, work):
    before = started()
    pool = ProcessPool(2, start_method="spawn")
    jobs = [job_of(work, ("value", 1.0), number=n) for n in range(3)]
    for job in jobs:
        pool.submit(job, inbox)

    pool.close()

    assert {end.kind for end in inbox.until_over(*jobs) if isinstance(end, Lost)} <= {"cancelled"}
    wait_until_gone(*(started() - before))


@pytest.mark.parametrize("busy", [False, True])
def test_a_pool_nobody_has_any_more_ends_its_workers(work, tmp_path, busy):
    pool = ProcessPool(1)
    inbox = Inbox()
    (end,) = run(pool, inbox, job_of(work, ("pid",)))
    pid = int(end.outcomes[0].arrays[0][0])
    job = job_of(work, ("until", "go"))
    if busy:
        pool.submit(job, inbox)
        wait_for_calls(tmp_path, "until", 1)

    del pool
    gc.collect()

    wait_until_gone(pid)
    if busy:
        assert inbox.until_over(job)[0].kind == "cancelled"


@pytest.mark.parametrize("method", ["fork", "threads", ""])
def test_start_methods_that_hang_are_refused(method):
    with pytest.raises(InputError, match=f'`start_method` is {method!r}: give "forkserver"'):
        ProcessPool(1, start_method=method)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, 10**30, "1 GB"])
def test_memory_limits_are_bytes(limit):
    with pytest.raises(InputError, match="`memory_limit` is"):
        ProcessPool(1, memory_limit=limit)


HEAD = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pool_works import Calls, Inbox, job_of, wait_for_calls
from distributed_estimator.execution.pools.processes import ProcessPool

folder = sys.argv[1]
inbox = Inbox()


class Spin(Calls):
    def do_spin(self):
        while True:
            pass


def start(pool, *verbs):
    work = Spin(folder)
    for n, verb in enumerate(verbs):
        pool.submit(job_of(work, verb, number=n), inbox)
"""


def script(folder, body, **environment):
    return Program(folder, HEAD + textwrap.dedent(body), folder, **environment)


@pytest.mark.soak
def test_no_worker_outlives_a_killed_parent_whose_pipes_live_on(tmp_path):
    body = """
        pool = ProcessPool(1)
        start(pool, ("spin",))
        wait_for_calls(__import__("pathlib").Path(folder), "spin", 1)
        if os.fork() == 0:
            time.sleep(1000)
        open(os.path.join(folder, "call.forked"), "w").close()
        time.sleep(1000)
    """
    with script(tmp_path, body) as made:
        (pid,) = wait_for_calls(tmp_path, "spin", 1)
        wait_until((tmp_path / "call.forked").exists, "it forks")
        (fork,) = [
            p for p in made.descendants() if p.ppid() == made.process.pid and not p.children()
        ]

        made.process.kill()

        wait_until_gone(pid)
        fork.kill()


def test_the_interpreter_exits_and_takes_a_stopped_helper_with_it(tmp_path):
    body = """
        from distributed_estimator.execution.pools import processes

        pool = ProcessPool(2)
        start(pool, ("value", 1.0))
        wait_for_calls(__import__("pathlib").Path(folder), "value", 1)
        os.kill(processes._server.process.pid, 19)
        print(processes._server.process.pid)
    """
    with script(tmp_path, body) as made:
        out, err, code = made.wait()

    wait_until_gone(int(out))
    assert (err, code) == ("", 0)


SCRIPT = """
    import numpy as np

    class Local(Calls):
        def do_local(self, x):
            import qiskit_aer, threadpoolctl
            threads = [info["num_threads"] for info in threadpoolctl.threadpool_info()]
            return (np.array([x + OFFSET, max(threads), float(os.environ["OMP_NUM_THREADS"])]),)

    OFFSET = 40.0
    before = dict(os.environ)
    pool = ProcessPool(1{arguments})
    job = job_of(Local(), ("local", 2.0))
    pool.submit(job, inbox)
    (end,) = inbox.until_over(job)
    print(end.outcomes[0].arrays[0].tolist())
    assert os.environ == before
"""


@pytest.mark.parametrize(
    "arguments", ["", pytest.param(', start_method="spawn"', marks=pytest.mark.soak)]
)
def test_a_script_needs_no_guard_and_its_works_have_one_thread_each(tmp_path, arguments):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    body = SCRIPT.format(arguments=arguments)
    with script(tmp_path, body, **dict.fromkeys(names, "4")) as made:
        assert made.wait() == ("[42.0, 1.0, 1.0]\n", "", 0)


def test_a_program_from_standard_input_does_as_well():
    program = HEAD + textwrap.dedent(SCRIPT.format(arguments=""))
    done = subprocess.run(
        [sys.executable, "-", "folder"],
        input=program,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("[42.0, 1.0, 1.0]\n", "", 0)


SURROUNDINGS = {
    "many files are open": """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        files = [open(os.devnull) for _ in range(1100)]  # more than `select` takes
    """,
    "Python was built with old headers": "del os.pidfd_open",
    "children's ends are ignored": "__import__('signal').signal(17, __import__('signal').SIG_IGN)",
    "there are no standard streams": "for stream in range(3): os.close(stream)",
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_a_program_has_workers_wherever_it_runs(tmp_path, surroundings):
    body = """
        pool = ProcessPool(1)
        jobs = [job_of(Calls(folder), task) for task in (("exit", 3), ("value", 1.0))]
        for job in jobs:
            pool.submit(job, inbox)
        lost, finished = inbox.until_over(*jobs)
        with open(os.path.join(folder, "done"), "w") as file:
            file.write(f"{lost.cause}, {finished.outcomes[0].error}")
    """
    body = textwrap.dedent(SURROUNDINGS[surroundings]) + textwrap.dedent(body)
    with script(tmp_path, body) as made:
        _, err, code = made.wait()

    assert (err, code) == ("", 0)
    assert (tmp_path / "done").read_text() == "worker 0 ended with exit code 3, None"


def test_a_worker_that_cannot_be_started_is_told_of_and_the_next_is():
    """Out of file descriptors the job is refused; later ones run when there are some again."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.closing(ProcessPool(1)) as pool, contextlib.ExitStack() as files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    files.enter_context(open(os.devnull))
            inbox, job = Inbox(), job_of(Calls(), ("value", 1.0))
            pool.submit(job, inbox)
            (refused,) = inbox.until_over(job)
        finally:
            files.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        later = job_of(Calls(), ("value", 2.0))
        pool.submit(later, inbox)
        (end,) = inbox.until_over(later)

    assert isinstance(refused, Lost)
    assert "cannot be started" in refused.cause
    assert isinstance(end, Finished)
