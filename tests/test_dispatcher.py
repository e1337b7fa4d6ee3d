"""The dispatcher on a virtual clock: what it instructs, and what can never happen."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from distributed_estimator.errors import InputError
from distributed_estimator.execution.dispatcher import Dispatcher
from distributed_estimator.execution.messages import (
    Abandon,
    Accept,
    Cancel,
    Failure,
    GiveUp,
    JobFinished,
    JobLost,
    JobStarted,
    Submit,
    Tick,
)
from distributed_estimator.execution.policies import (
    Batches,
    ByLabel,
    Deadline,
    Eager,
    LargestInfluenceFirst,
    LongestFirst,
    Policy,
    Retry,
    Speculation,
    TaskSpec,
)


def tasks(count, seconds=1.0, **fields):
    return [TaskSpec(f"task {n}", seconds, **fields) for n in range(count)]


def dispatcher(specs, policy=None, workers=1, **options):
    return Dispatcher(specs, policy or Policy(), workers, **options)


def submitted(instructions):
    return [i.tasks for i in instructions if isinstance(i, Submit)]


def of(kind, instructions):
    return [i for i in instructions if isinstance(i, kind)]


def ended(job, at, *finished, failures=(), seconds=1.0):
    return JobFinished(job, at, tuple((task, seconds) for task in finished), tuple(failures))


STRAINED = Failure(0, "strained", "no file descriptor is left")


def error(task, cause="it broke"):
    return Failure(task, "error", cause)


# --- order and capacity ---------------------------------------------------------------------------


def test_as_many_jobs_as_workers_and_each_end_makes_room():
    machine = dispatcher(tasks(4), workers=2)
    assert machine.start(0.0) == [
        Submit(0, (0,), (0,), "first"),
        Submit(1, (1,), (0,), "first"),
    ]
    assert machine.handle(ended(1, 1.0, 1)) == [
        Accept(1, (1,)),
        Submit(2, (2,), (0,), "first"),
    ]
    assert machine.in_flight == 2
    assert not machine.done


SPECS = [
    TaskSpec("a", 1.0, group=1, influence=0.5),
    TaskSpec("b", 3.0, group=0, influence=0.1),
    TaskSpec("c", 2.0, group=1, influence=0.9),
    TaskSpec("d", 3.0, group=0, influence=0.5),
]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (ByLabel(), [1, 3, 0, 2]),
        (LongestFirst(), [1, 3, 2, 0]),
        (LargestInfluenceFirst(), [2, 0, 3, 1]),
    ],
)
def test_orders(order, expected):
    machine = dispatcher(SPECS, Policy(order=order), workers=4)
    assert submitted(machine.start(0.0)) == [(task,) for task in expected]


def test_batches_are_released_one_delay_apart():
    """Algorithm 2: a batch does not wait for the one before it to end."""
    machine = dispatcher(tasks(5), Policy(Batches(2, delay=0.5)), workers=8)
    assert submitted(machine.start(10.0)) == [(0,), (1,)]
    assert machine.next_wake == 10.5
    assert submitted(machine.handle(Tick(10.4))) == []
    assert submitted(machine.handle(Tick(10.5))) == [(2,), (3,)]
    assert machine.next_wake == 11.0
    assert submitted(machine.handle(Tick(11.0))) == [(4,)]
    assert machine.next_wake is None


# --- short tasks share jobs -----------------------------------------------------------------------


def test_short_tasks_share_a_job_of_the_length_asked_for():
    machine = dispatcher(tasks(1000, 0.001), workers=1, job_seconds=0.01)
    assert submitted(machine.start(0.0)) == [tuple(range(10))]


def test_the_length_of_jobs_follows_what_was_measured():
    """Tasks that take ten times as long as was thought come one tenth as many to a job."""
    machine = dispatcher(tasks(1000, 0.001), workers=1, job_seconds=0.01)
    (first,) = submitted(machine.start(0.0))
    (second,) = submitted(machine.handle(ended(0, 0.1, *first, seconds=0.01)))
    assert len(first) == 10
    assert len(second) == 1


# --- failures -------------------------------------------------------------------------------------


def test_a_failed_task_is_tried_again_after_a_growing_pause_and_then_given_up():
    machine = dispatcher(tasks(1), Policy(retry=Retry(attempts=3, backoff=0.1)))
    machine.start(0.0)
    assert machine.handle(ended(0, 1.0, failures=[error(0)])) == []
    assert machine.next_wake == pytest.approx(1.1)
    assert machine.handle(Tick(1.1)) == [Submit(1, (0,), (1,), "retry")]
    machine.handle(ended(1, 2.0, failures=[error(0)]))
    assert machine.next_wake == pytest.approx(2.2)
    assert machine.handle(Tick(2.2)) == [Submit(2, (0,), (2,), "retry")]
    (given_up,) = machine.handle(ended(2, 3.0, failures=[error(0, "still broken")]))
    assert isinstance(given_up, GiveUp)
    assert [f.cause for f in given_up.failures] == ["it broke", "it broke", "still broken"]
    assert machine.done
    assert machine.retries == 2


def test_all_others_complete_beside_a_task_that_always_fails():
    machine = dispatcher(tasks(4), Policy(retry=Retry(attempts=1)))
    machine.start(0.0)
    instructions = machine.handle(ended(0, 1.0, failures=[error(0)]))
    assert of(GiveUp, instructions)[0].task == 0
    for job, task in ((1, 1), (2, 2), (3, 3)):
        instructions = machine.handle(ended(job, 1.0 + job, task))
        assert of(Accept, instructions) == [Accept(job, (task,))]
    assert machine.done


def test_nothing_is_tried_to_the_end_where_nothing_ever_succeeds():
    machine = dispatcher(tasks(100), Policy(retry=Retry(attempts=1)))
    machine.start(0.0)
    for job in range(3):
        instructions = machine.handle(ended(job, 1.0 + job, failures=[error(job)]))
    assert len(of(GiveUp, instructions)) == 98
    assert machine.done


def test_tasks_of_a_job_whose_worker_was_lost_are_tried_again_one_by_one():
    machine = dispatcher(tasks(3, 0.001), Policy(retry=Retry(backoff=0.0)), 1, job_seconds=0.01)
    machine.start(0.0)
    instructions = machine.handle(JobLost(0, 1.0, "lost", "worker 0 was ended by signal 9"))
    assert submitted(instructions) == [(0,)]
    assert submitted(machine.handle(ended(1, 2.0, 0))) == [(1,)]
    assert submitted(machine.handle(ended(2, 3.0, 1))) == [(2,)]


def test_a_fatal_failure_ends_everything_at_once():
    machine = dispatcher(tasks(3), workers=2)
    machine.start(0.0)
    instructions = machine.handle(ended(0, 1.0, failures=[Failure(0, "fatal", "bad input")]))
    assert {g.task for g in of(GiveUp, instructions)} == {0, 1, 2}
    assert of(Cancel, instructions) == [Cancel(1)]
    assert machine.done


def test_a_throttled_task_waits_as_long_as_it_is_told_and_loses_no_attempt():
    machine = dispatcher(tasks(1), Policy(retry=Retry(attempts=1, backoff=0.1)))
    machine.start(0.0)
    job, at = 0, 0.0
    for _ in range(5):
        machine.handle(ended(job, at, failures=[Failure(0, "throttled", "wait", 7.0)]))
        assert machine.next_wake == at + 7.0
        at += 7.0
        (again,) = machine.handle(Tick(at))
        job = again.job
    assert machine.handle(ended(job, at, 0)) == [Accept(job, (0,))]


def test_a_task_loses_no_attempt_to_each_of_the_strained_workers():
    machine = dispatcher(tasks(1), Policy(retry=Retry(attempts=2, backoff=0.0)), workers=3)
    machine.start(0.0)
    for job in range(4):
        instructions = machine.handle(ended(job, 1.0, failures=[STRAINED]))
        assert submitted(instructions) == [(0,)]
    instructions = machine.handle(ended(4, 1.0, failures=[STRAINED]))
    assert of(GiveUp, instructions) == [GiveUp(0, (STRAINED,) * 5)]


def refuse(machine, job, at, retry_after=1.0):
    (failing,) = job.tasks
    return machine.handle(
        ended(job.job, at, failures=[Failure(failing, "throttled", "", retry_after)])
    )


def rate_limited(count, workers):
    """Tasks on a device that takes one a second; those accepted, refusals, and the time taken."""
    machine = dispatcher(tasks(count), Policy(retry=Retry(attempts=1)), workers)
    jobs, at, free, refusals = of(Submit, machine.start(0.0)), 0.0, 0.0, 0
    accepted = []
    for _ in range(10 * count):
        out = []
        for job in jobs:
            if at >= free:
                free = at + 1.0
                out += machine.handle(ended(job.job, at, *job.tasks))
            else:
                refusals += 1
                out += refuse(machine, job, at, free - at)
        if not of(Submit, out) and not machine.done:
            at = machine.next_wake
            out += machine.handle(Tick(at))
        jobs = of(Submit, out)
        accepted += [task for accept in of(Accept, out) for task in accept.tasks]
    return accepted, refusals, at


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_rate_limit_loses_no_task_and_is_not_stormed(workers):
    accepted, refusals, seconds = rate_limited(500, workers)
    assert sorted(accepted) == list(range(500))
    # One a second is all the device takes; a few are refused each second, whatever waits.
    assert seconds <= 1.2 * 500
    assert refusals <= 3 * 500 + workers


def test_a_device_that_refuses_for_ever_is_given_up():
    machine = dispatcher(tasks(200), workers=4)
    jobs, at, given_up = of(Submit, machine.start(0.0)), 0.0, []
    for _ in range(1000):
        if machine.done:
            break
        out = [i for job in jobs for i in refuse(machine, job, at)]
        at += 1.0
        out += machine.handle(Tick(at))
        jobs = of(Submit, out)
        given_up += of(GiveUp, out)
    assert machine.done
    assert len(given_up) == 200
    assert 100 <= at <= 110, "a hundred refusals with nothing else under way"


def test_a_job_that_was_cancelled_and_hangs_is_abandoned():
    policy = Policy(retry=Retry(timeout=10.0), speculation=Speculation(restart=True, budget=1.0))
    machine = dispatcher(tasks(8), policy, workers=1)
    (job,) = of(Submit, machine.start(0.0))
    for second in range(4):
        machine.handle(JobStarted(job.job, second))
        (job,) = of(Submit, machine.handle(ended(job.job, second + 1.0, *job.tasks)))
    machine.handle(JobStarted(job.job, 4.0))
    assert of(Cancel, machine.handle(Tick(8.0))) == [Cancel(job.job)]

    assert machine.next_wake == 14.0
    assert of(Abandon, machine.handle(Tick(14.0))) == [Abandon(job.job)]
    out = machine.handle(JobLost(job.job, 14.0, "lost", "hung"))
    assert [s.purpose for s in of(Submit, out)] == ["restart"]


def test_tasks_that_a_cancelled_job_left_over_are_put_back():
    machine = dispatcher(tasks(2, 0.001), workers=1, job_seconds=0.01)
    machine.start(0.0)
    instructions = machine.handle(ended(0, 1.0, 0))
    assert instructions == [Accept(0, (0,)), Submit(1, (1,), (1,), "first")]


# --- hung jobs ------------------------------------------------------------------------------------


def test_a_job_is_given_up_after_its_timeout_and_its_task_runs_again():
    machine = dispatcher(tasks(1), Policy(retry=Retry(timeout=2.0, backoff=0.0)))
    machine.start(0.0)
    machine.handle(JobStarted(0, 0.5))
    assert machine.next_wake == 2.5
    assert machine.handle(Tick(2.5)) == [Abandon(0)]
    assert machine.handle(Tick(3.0)) == []
    instructions = machine.handle(JobLost(0, 3.1, "lost", "gone"))
    assert instructions == [Submit(1, (0,), (1,), "retry")]


def test_the_time_before_a_job_begins_does_not_count():
    machine = dispatcher(tasks(1), Policy(retry=Retry(timeout=2.0)))
    machine.start(0.0)
    assert machine.handle(Tick(100.0)) == []


def test_without_a_timeout_a_job_may_take_twenty_times_the_usual():
    machine = dispatcher(tasks(5), workers=2)
    machine.start(0.0)
    machine.handle(JobStarted(0, 0.0))
    for job in (1, 2, 3):
        machine.handle(JobStarted(job, 0.0))
        machine.handle(ended(job, 10.0 * job, job, seconds=10.0))
    assert not of(Abandon, machine.handle(Tick(199.0)))
    assert of(Abandon, machine.handle(Tick(201.0))) == [Abandon(0)]


# --- speculation ----------------------------------------------------------------------------------


SPECULATE = Policy(speculation=Speculation(quantile=0.5, factor=2.0, budget=1.0))
RESTART = Policy(speculation=Speculation(quantile=0.5, factor=2.0, budget=1.0, restart=True))


def with_history(policy, count=5, workers=2):
    """A machine in which job 0 has run since 0 and three others took a second each."""
    machine = dispatcher(tasks(count), policy, workers)
    machine.start(0.0)
    machine.handle(JobStarted(0, 0.0))
    last = []
    for job in (1, 2, 3):
        machine.handle(JobStarted(job, 0.1))
        last = machine.handle(ended(job, 1.1, job))
    return machine, last


def test_a_late_job_is_duplicated_on_an_idle_worker_and_the_first_result_wins():
    machine, _ = with_history(SPECULATE, count=4)
    assert machine.next_wake == 2.0
    assert machine.handle(Tick(2.0)) == [Submit(4, (0,), (1,), "duplicate")]
    assert machine.handle(ended(4, 3.0, 0)) == [Accept(4, (0,)), Cancel(0)]
    assert machine.done
    assert machine.handle(ended(0, 3.5, 0)) == []
    assert machine.speculated == 1


def test_the_original_may_win_against_its_duplicate():
    machine, _ = with_history(SPECULATE, count=4)
    machine.handle(Tick(2.0))
    assert machine.handle(ended(0, 2.5, 0)) == [Accept(0, (0,)), Cancel(4)]


def test_while_no_worker_is_idle_a_late_job_is_left_alone():
    machine, last = with_history(SPECULATE, count=5)
    assert submitted(last) == [(4,)]
    assert machine.handle(Tick(2.5)) == []
    assert machine.handle(ended(4, 2.6, 4)) == [
        Accept(4, (4,)),
        Submit(5, (0,), (1,), "duplicate"),
    ]


def test_with_restart_a_late_job_is_withdrawn_and_restarted():
    machine, _ = with_history(RESTART, count=5)
    assert machine.handle(Tick(2.5)) == [Cancel(0)]
    assert machine.handle(JobLost(0, 2.5, "cancelled", "")) == [
        Submit(5, (0,), (1,), "restart"),
    ]


def test_a_place_that_has_just_become_free_is_not_idle_while_tasks_wait():
    """A late job found when another ends is restarted before what waits, not after."""
    machine, _ = with_history(RESTART, count=6)
    instructions = machine.handle(ended(4, 2.5, 4))
    assert instructions == [Accept(4, (4,)), Cancel(0), Submit(5, (0,), (1,), "restart")]


def test_no_more_copies_than_the_budget_allows():
    policy = Policy(speculation=Speculation(quantile=0.5, factor=2.0, budget=0.0))
    machine, _ = with_history(policy, count=4)
    assert submitted(machine.handle(Tick(50.0))) == []


def test_failures_of_an_attempt_do_not_count_while_another_is_under_way():
    machine, _ = with_history(SPECULATE, count=4)
    machine.handle(Tick(2.0))
    assert machine.handle(ended(0, 2.5, failures=[error(0)])) == []
    assert machine.handle(ended(4, 3.0, 0)) == [Accept(4, (0,))]


# --- deadline -------------------------------------------------------------------------------------


def test_at_the_deadline_what_is_left_is_given_up_and_what_runs_is_cancelled():
    machine = dispatcher(tasks(3), Policy(deadline=Deadline(5.0)), workers=2)
    machine.start(10.0)
    machine.handle(ended(1, 11.0, 1))
    assert machine.next_wake == 15.0
    instructions = machine.handle(Tick(15.0))
    assert of(GiveUp, instructions) == [GiveUp(0, ()), GiveUp(2, ())]
    assert {c.job for c in of(Cancel, instructions)} == {0, 2}
    assert machine.done
    assert machine.handle(ended(0, 16.0, 0)) == []


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batches(0), r"`size` is 0: give a whole number of at least 1"),
        (lambda: Batches(2, delay=-1.0), r"`delay` is -1.0: give seconds of at least 0"),
        (lambda: Batches(2, delay=float("nan")), r"`delay` is nan"),
        (lambda: Speculation(quantile=1.0), r"`quantile` is 1.0"),
        (lambda: Speculation(factor=0.5), r"`factor` is 0.5"),
        (lambda: Speculation(budget=-0.1), r"`budget` is -0.1"),
        (lambda: Deadline(0.0), r"`seconds` is 0.0: give a positive number of seconds"),
        (lambda: Deadline(1.0, chunks=0), r"`chunks` is 0"),
        (lambda: Retry(attempts=0), r"`attempts` is 0"),
        (lambda: Retry(timeout=0.0), r"`timeout` is 0.0"),
        (lambda: Retry(backoff=float("inf")), r"`backoff` is inf"),
        (lambda: Policy(in_flight=0), r"`in_flight` is 0"),
        (lambda: Policy(subexperiments=True), r"`subexperiments` is True"),
    ],
)
def test_policies_out_of_range(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_policy_names_what_is_not_the_default():
    assert Policy().name == "eager"
    policy = Policy(
        Batches(8, delay=0.1), LongestFirst(), 4, Speculation(), Deadline(9.0), Retry(2), 1
    )
    assert policy.name == (
        "batches(size=8, delay=0.1), longest_first, in_flight=4, "
        "speculation(quantile=0.75, factor=1.5, budget=0.25, restart=False), "
        "deadline(seconds=9.0, chunks=4), retry(attempts=2, backoff=0.05, timeout=None), "
        "subexperiments=1"
    )


# --- whatever happens -----------------------------------------------------------------------------

POLICIES = st.builds(
    Policy,
    dispatch=st.one_of(
        st.just(Eager()),
        st.builds(Batches, st.integers(1, 5), st.sampled_from([0.0, 0.3])),
    ),
    order=st.sampled_from([ByLabel(), LongestFirst(), LargestInfluenceFirst()]),
    in_flight=st.none() | st.integers(1, 3),
    speculation=st.none()
    | st.builds(
        Speculation,
        quantile=st.just(0.5),
        factor=st.sampled_from([1.0, 2.0]),
        budget=st.sampled_from([0.0, 0.3, 2.0]),
        restart=st.booleans(),
    ),
    deadline=st.none() | st.builds(Deadline, st.sampled_from([3.0, 50.0])),
    retry=st.builds(
        Retry,
        attempts=st.integers(1, 3),
        backoff=st.sampled_from([0.0, 0.1]),
        timeout=st.none() | st.just(2.0),
    ),
)


class AnyPool(RuleBasedStateMachine):
    """A pool and workers that do whatever they like, within what pools promise."""

    jobs = Bundle("jobs")

    @initialize(
        count=st.integers(1, 12),
        policy=POLICIES,
        workers=st.integers(1, 5),
        job_seconds=st.sampled_from([0.0, 2.5]),
    )
    def begin(self, count, policy, workers, job_seconds):
        specs = [TaskSpec(str(n), 1.0, n % 3, n % 2) for n in range(count)]
        self.machine = Dispatcher(specs, policy, workers, job_seconds=job_seconds)
        self.policy, self.capacity = policy, min(workers, policy.in_flight or workers)
        self.now = 0.0
        self.running: dict[int, Submit] = {}
        self.cancelled: set[int] = set()
        self.abandoned: set[int] = set()
        self.accepted: set[int] = set()
        self.given_up: dict[int, GiveUp] = {}
        self.submissions = [0] * count
        self.count = count
        self.fatal = False
        self.act(self.machine.start(self.now))

    def act(self, instructions):
        for instruction in instructions:
            if isinstance(instruction, Submit):
                self.take(instruction)
            elif isinstance(instruction, Accept):
                assert not self.accepted & set(instruction.tasks), "accepted twice"
                assert not self.given_up.keys() & set(instruction.tasks)
                self.accepted |= set(instruction.tasks)
            elif isinstance(instruction, GiveUp):
                assert instruction.task not in self.given_up.keys() | self.accepted
                self.given_up[instruction.task] = instruction
            elif isinstance(instruction, Cancel):
                assert instruction.job in self.running
                assert instruction.job not in self.cancelled, "cancelled twice"
                self.cancelled.add(instruction.job)
            else:
                assert isinstance(instruction, Abandon)
                assert instruction.job in self.running
                assert instruction.job not in self.abandoned, "abandoned twice"
                self.abandoned.add(instruction.job)

    def take(self, submit):
        assert submit.job not in self.running
        assert submit.tasks
        assert len(set(submit.tasks)) == len(submit.tasks)
        for task, attempt in zip(submit.tasks, submit.attempts, strict=True):
            assert task not in self.accepted, "ran a task that is done"
            assert task not in self.given_up, "ran a task that is given up"
            assert attempt == self.submissions[task]
            self.submissions[task] += 1
        self.running[submit.job] = submit

    def pick(self, data):
        return data.draw(st.sampled_from(sorted(self.running))) if self.running else None

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.act(self.machine.handle(Tick(self.now)))

    @rule(data=st.data())
    def job_starts(self, data):
        job = self.pick(data)
        if job is not None:
            self.act(self.machine.handle(JobStarted(job, self.now)))

    @rule(data=st.data(), kinds=st.lists(st.sampled_from("dddelstn"), min_size=12, max_size=12))
    def job_ends(self, data, kinds):
        """Each task is done, fails (error, damaged, strained, throttled), or was not begun."""
        job = self.pick(data)
        if job is None:
            return
        submit = self.running.pop(job)
        names = {"e": "error", "l": "damaged", "s": "strained", "t": "throttled"}
        verdicts = dict(zip(submit.tasks, kinds, strict=False))
        failures = [Failure(t, names[k], "why") for t, k in verdicts.items() if k in names]
        done = [t for t, k in verdicts.items() if k == "d"]
        self.act(self.machine.handle(ended(job, self.now, *done, failures=failures)))

    @rule(data=st.data(), kind=st.sampled_from(["lost", "cancelled"]))
    def job_is_lost(self, data, kind):
        job = self.pick(data)
        if job is not None:
            del self.running[job]
            self.act(self.machine.handle(JobLost(job, self.now, kind, "why")))

    @rule(job=st.integers(0, 50))
    def something_is_told_of_a_job_that_is_over(self, job):
        if job not in self.running:
            for event in (
                JobStarted(job, self.now),
                ended(job, self.now, 0),
                JobLost(job, self.now, "lost", "why"),
            ):
                self.act(self.machine.handle(event))

    @invariant()
    def no_more_jobs_than_allowed(self):
        if hasattr(self, "machine"):
            assert self.machine.in_flight == len(self.running) <= self.capacity

    @invariant()
    def done_means_that_every_task_is_accounted_for(self):
        if hasattr(self, "machine"):
            over = len(self.accepted) + len(self.given_up)
            assert self.machine.done == (over == self.count)

    @invariant()
    def tasks_are_given_up_for_a_reason(self):
        if not hasattr(self, "machine"):
            return
        hopeless = not self.accepted and sum(bool(g.failures) for g in self.given_up.values()) >= 3
        late = self.policy.deadline is not None and self.now >= self.policy.deadline.seconds
        for given_up in self.given_up.values():
            counted = sum(f.kind != "throttled" for f in given_up.failures)
            assert counted >= self.policy.retry.attempts or late or hopeless

    def teardown(self):
        """From wherever it got to, it comes to an end once workers behave."""
        if not hasattr(self, "machine"):
            return
        for _ in range(500):
            if self.machine.done:
                break
            assert self.running or self.machine.next_wake is not None, "nothing will ever happen"
            for job in list(self.running):
                submit = self.running.pop(job)
                self.act(self.machine.handle(JobStarted(job, self.now)))
                self.act(self.machine.handle(ended(job, self.now, *submit.tasks)))
            if not self.machine.done and self.machine.next_wake is not None:
                self.now = max(self.now, self.machine.next_wake)
                self.act(self.machine.handle(Tick(self.now)))
        assert self.machine.done
        assert self.accepted | self.given_up.keys() == set(range(self.count))


TestAnyPool = AnyPool.TestCase
TestAnyPool.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
