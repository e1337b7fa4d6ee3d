"""One round: all fragments of a batch, run at some bindings with some shots, if memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import psutil

from ..backends.seeds import Repetition
from ..cutting import FloatArray
from ..errors import DeadlineError, PlanTooLargeError, named, short
from ..execution import Arrays, Assignment, Attempt, Policy, Tally, TaskSpec
from ..reconstruction import FragmentTensor, Wanted
from ..records import TaskRecord
from ..subexperiments import (
    LARGEST_DENSE,
    Backend,
    Design,
    DrawnExperiment,
    FragmentExperiment,
    FragmentResult,
    PlacingBackend,
    Readout,
    ShotsTaken,
    Task,
    make_tasks,
)
from .preparation import Prepared
from .usage import Uses

_ALWAYS_FREE = 64 << 20
_MOST_NETWORK = 1 << 30
_DESIGN_ARRAYS = 6
"""Arrays as large as a fragment's weights that are held while these are looked for."""
_DRAWN_ARRAYS = 80
"""The same of tensors, and tables of outcomes, where settings are drawn."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, eq=False)
class RoundRequest:
    """One round to run, and its division into tasks, which depends on configuration alone.

    Attributes:
        prepared: The fragments, with the backend that runs them.
        policy: Limits on the size of a task.
        rows: Local bindings of each fragment, shape (rows, angles) each.
        shots: Shots per subexperiment; None for exact values.
        wanted: Results that will be asked for.
        run: Names the round; everything random derives from it.
        designs: Shots and weights of each fragment instead; None: the same shots everywhere.
        designed: Whether there are such, or the round is to lead to some.
        unfolds: Whether errors of readout are taken out, of which derivatives of all tensors tell
            what they leave open.
    """

    prepared: Prepared
    policy: Policy
    rows: Sequence[FloatArray]
    shots: int | None
    wanted: Wanted
    run: str = ""
    designs: Sequence[Design | None] | None = None
    designed: bool = False
    unfolds: bool = False

    @property
    def backend(self) -> Backend:
        """What evaluates the tasks."""
        return self.prepared.work.backend

    @property
    def sampled(self) -> bool:
        """Whether circuits are run with shots."""
        return self.shots is not None or self.designs is not None

    @property
    def covariances(self) -> bool:
        """Whether the covariances of sampled values are wanted."""
        return self.wanted == "errors"

    def mean_shots(self, number: int) -> int | None:
        """Shots that a fragment's circuits have on average, rounded up; None: exact values."""
        design = self.design(number)
        if design is None:
            return self.shots
        circuits = max(1, int(np.count_nonzero(design.shots)))
        return -(-int(design.shots.sum()) // circuits)

    def design(self, number: int) -> Design | None:
        """That of a fragment."""
        return None if self.designs is None else self.designs[number]

    @property
    def chunks(self) -> int:
        """Tasks that share the shots of a subexperiment."""
        return 1 if self.policy.deadline is None else self.policy.deadline.chunks

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """Rows that make a task at most."""
        rows, most = self.backend.rows_per_task(experiment), self.policy.subexperiments
        return rows if most is None else min(rows, max(1, most // max(1, experiment.num_circuits)))

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """Subexperiments that make a sampled task at most; None: a row is never divided."""
        limits = self.backend.circuits_per_task(experiment), self.policy.subexperiments
        return min((limit for limit in limits if limit is not None), default=None)


class Need:
    """Memory that a round takes, in bytes, where `workers` tasks run at a time."""

    def __init__(self, request: RoundRequest, workers: int) -> None:
        self.request, self.workers = request, workers
        self.fragments = []
        each = zip(request.prepared.experiments, request.rows, strict=True)
        for number, (experiment, angles) in enumerate(each):
            at_once = min(len(angles), workers * request.backend.rows_per_task(experiment))
            worker = 0
            if not experiment.is_trivial:
                worker = request.backend.row_bytes(experiment, angles, request.mean_shots(number))
            result = experiment.result_bytes(sampled=request.sampled)
            if request.covariances:
                result += experiment.covariance_bytes()
            weights = min(len(angles) * experiment.num_weights, LARGEST_DENSE)
            design = _DESIGN_ARRAYS * 8 * weights if request.designed or request.unfolds else 0
            if isinstance(experiment, DrawnExperiment):
                design = _DRAWN_ARRAYS * 8 * len(angles) * experiment.num_drawn
            self.fragments.append(at_once * worker + len(angles) * result + design)
        network = request.prepared.network
        self.network = 8 * network.elements_per_query(squared=request.covariances)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.fragments) + self.network

    def total_with(self, most_elements: int | None) -> int:
        """All of it where contractions hold at most so many numbers."""
        return self.total if most_elements is None else sum(self.fragments) + 8 * most_elements


class MemoryLimit:
    """Bytes a batch may take; None: half of what is free when it is asked for."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit

    @property
    def size(self) -> int:
        """The limit now, in bytes."""
        return self._limit or psutil.virtual_memory().available // 2

    def is_exceeded(self, size: int) -> bool:
        """Whether so many bytes are too many. Free memory is asked for only where it matters."""
        if self._limit is None and size < _ALWAYS_FREE:
            return False
        return size > self.size

    def check(self, need: Need) -> int | None:
        """Make sure that a round fits.

        Returns:
            Numbers that its contractions may hold if they must be sliced to fit; None: they fit.

        Raises:
            PlanTooLargeError: It does not fit; the message names the fragment that is to blame.
        """
        # How a contraction is sliced shows in the last bits, so what it may take unsliced depends
        # neither on the workers, nor on the other things in memory, nor on what is free.
        most = _MOST_NETWORK if self._limit is None else min(_MOST_NETWORK, self._limit // 8)
        most_elements = None
        if need.network > most:
            most_elements, request = most // 8, need.request
            network = request.prepared.network
            back = request.wanted == "environments" or request.unfolds
            try:
                network.sliced(most_elements, squared=False, derivatives=back)
                if request.covariances:
                    network.sliced(most_elements, squared=True)
            except PlanTooLargeError as error:
                raise PlanTooLargeError(self._refusal(need, 8 * most)) from error
        if self.is_exceeded(need.total_with(most_elements)):
            raise PlanTooLargeError(self._refusal(need))
        return most_elements

    def _refusal(self, need: Need, sliced: int | None = None) -> str:
        """Why it does not fit, and what would help.

        Slices of its contraction would have to fit in `sliced` bytes; None: they do.
        """
        prepared, worst = need.request.prepared, need.fragments.index(max(need.fragments))
        plan, fragment = prepared.plan, prepared.plan.fragments[worst]
        source = "half of what is free" if self._limit is None else "`memory_limit`"
        limit = f"the limit is {in_bytes(self.size)} ({source})"
        if sliced is not None and need.total <= self.size:
            limit = f"and its contraction cannot be sliced to fit in {in_bytes(sliced)}"
        return (
            f"the plan needs {in_bytes(need.total)} of memory, {limit}: fragment {worst} "
            f"({fragment.num_qubits} qubits, {len(fragment.slots)} slots, "
            f"{short(fragment.num_branches)} branches) takes "
            f"{in_bytes(need.fragments[worst])}, the contraction {in_bytes(need.network)} (number "
            f"of cuts {plan.num_cuts}, circuits a binding {short(prepared.num_circuits)}, sampling "
            f"overhead {plan.sampling_overhead:.3g}); {', or '.join(self._remedies(need, worst))}"
        )

    def _remedies(self, need: Need, worst: int) -> list[str]:
        """Changes to what is run, each of which applies to it."""
        request, fragment = need.request, need.request.prepared.plan.fragments[worst]
        remedies = ["cut fewer gates of that fragment"] if fragment.slots else []
        if fragment.num_qubits > 1:
            fewer = "give it fewer qubits" if fragment.slots else "cut it into narrower fragments"
            remedies.append(fewer)
        if max(map(len, request.rows), default=0) > 1:
            remedies.append("send fewer bindings a run")
        if request.shots is not None and request.backend.exact:
            wanted: Wanted = "values" if request.covariances else request.wanted
            exact = replace(request, shots=None, wanted=wanted)
            if not self.is_exceeded(Need(exact, need.workers).total):
                remedies.append("ask for exact values")
        if need.total <= psutil.virtual_memory().total:
            remedies.append("free memory" if self._limit is None else "raise `memory_limit`")
        return remedies


def in_bytes(size: int) -> str:
    """A number of bytes in a unit that keeps it readable.

    Example:
        >>> in_bytes(8), in_bytes(6_870_000), in_bytes(64 << 40)
        ('8 B', '6.552 MiB', '64 TiB')
    """
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{min(size, 10**300) / 2 ** (10 * power):.4g} {_UNITS[power]}"


@dataclass
class Spent:
    """What rounds took, all together.

    Chunks of the same subexperiments count once; `missing` are tasks without a result at the
    deadline, `overlapped` the seconds spent on results while other tasks were still running. What
    a journal knew did not run; designs count its shots all the same (`shots_seen`).
    """

    subexperiments: int = 0
    shots: int = 0
    shots_seen: int = 0
    missing: int = 0
    overlapped: float = 0.0
    tally: Tally = field(default_factory=Tally)
    uses: Uses = field(default_factory=Uses)

    def add(self, other: Spent) -> None:
        """Count what others took, too."""
        self.subexperiments += other.subexperiments
        self.shots += other.shots
        self.shots_seen += other.shots_seen
        self.missing += other.missing
        self.overlapped += other.overlapped
        self.tally.add(other.tally)
        self.uses.add([other.uses])


class Round:
    """Tasks of all fragments, and the tensors that their results make up.

    Args:
        request: The round.
        repetition: Compares its tasks with those of earlier rounds.
        influences: Per fragment, how much values depend on each row's measurement groups, shape
            (base rows, groups); rows that follow these are shifts of them. None: not needed.
        readouts: Of each fragment, errors of readout that are to be taken out; None: none.
    """

    def __init__(
        self,
        request: RoundRequest,
        repetition: Repetition,
        influences: Sequence[FloatArray] | None = None,
        readouts: Sequence[Readout | None] | None = None,
    ) -> None:
        self._request = request
        self._backend = request.backend
        self._experiments = request.prepared.experiments
        self._work = request.prepared.work
        self._repetition = repetition
        self.tasks: list[Task] = []
        self.tensors: list[FragmentTensor] = []
        for number, experiment in enumerate(self._experiments):
            tasks = [] if experiment.is_trivial else list(self._make_tasks(number, experiment))
            self.tasks += tasks
            design = request.design(number)
            weights = None if design is None else design.weights
            readout = None if readouts is None else readouts[number]
            self.tensors.append(
                FragmentTensor(experiment, len(request.rows[number]), tasks, weights, readout)
            )
        self._influences = [
            np.resize(table, (len(angles), table.shape[1]))
            for table, angles in zip(influences or (), request.rows, strict=influences is not None)
        ]
        self._total_influence = sum(float(table.sum()) for table in self._influences)
        self._taken: dict[int, int] = {}

    def _make_tasks(self, number: int, experiment: FragmentExperiment) -> Iterator[Task]:
        request, design = self._request, self._request.design(number)
        return make_tasks(
            number,
            experiment,
            request.rows[number],
            request.shots if design is None else design.shots,
            request.run,
            rows_per_task=request.rows_per_task(experiment),
            circuits_per_task=request.circuits_per_task(experiment),
            chunks=request.chunks,
        )

    def fold(self, number: int, arrays: Arrays) -> int | None:
        """Add a task's result to its fragment's tensor.

        Returns:
            The fragment's number if its tensor is complete now.

        Raises:
            BackendError: Tasks drew the same random numbers.
        """
        task = self.tasks[number]
        result = self._work.result_of(task, arrays)
        self._taken[number] = _shots_in(result)
        # Here, where the results of all workers come together: copies of one sampler may repeat
        # each other.
        self._repetition.check(result.draws, self._backend.name, task.seed)
        tensor = self.tensors[task.experiment]
        tensor.add(task, result)
        return task.experiment if tensor.complete else None

    def finish(self, tally: Tally, spent: Spent) -> None:
        """Count what the tasks took, and make do with the shots that have arrived.

        Raises:
            DeadlineError: Some circuits had no shots at all when the deadline came.
        """
        spent.tally.add(tally)
        spent.missing += len(tally.missing)
        drawn = [e for e in self._experiments if isinstance(e, DrawnExperiment)]
        spent.shots_seen += sum(self._taken.values()) + sum(e.sure_shots for e in drawn)
        ran: dict[tuple[object, ...], int] = {}
        where: dict[tuple[object, ...], str] = {}
        for number in self._taken.keys() - tally.known:  # without those whose results a journal had
            task = self.tasks[number]
            place, device = (task.experiment, task.start, task.circuits), self._device_of(task)
            circuits = task.num_subexperiments(self._experiments[task.experiment])
            ran[place], where[place] = max(ran.get(place, 0), circuits), device
            use = spent.uses.of(device)
            use.fragments.add(task.experiment)
            use.jobs += 1
            use.shots += self._taken[number]
            spent.shots += self._taken[number]
        for part, circuits in ran.items():  # chunks share them
            spent.uses.of(where[part]).circuits += circuits
        spent.subexperiments += sum(ran.values())
        deadline = self._request.policy.deadline
        if not tally.missing or deadline is None:
            return
        missing = [task for tensor in self.tensors for task in tensor.settle()]
        if missing:
            raise DeadlineError(
                f"after {deadline.seconds:g} s nothing had arrived of "
                f"{named([self._describe(task) for task in missing])}: give a later deadline, more "
                "chunks or more workers"
            )

    def _device_of(self, task: Task) -> str:
        """The name of what ran a task."""
        backend = self._backend
        if isinstance(backend, PlacingBackend):
            return backend.device_of(self._experiments[task.experiment], task)
        return backend.name

    @property
    def shots_taken(self) -> ShotsTaken:
        """Shots that the circuits got which have any; as requested where there are none to run."""
        shots = [
            tensor.shots(slice(None))[:, tensor.experiment.all_runs].ravel()
            for tensor in self.tensors
            if tensor.counts
        ]
        taken = np.concatenate([*shots, np.zeros(0)])
        taken = taken[taken > 0]
        if not taken.size:
            asked = self._request.shots or 0
            return ShotsTaken(asked, asked)
        return ShotsTaken(int(taken.min()), int(taken.max()))

    def assignment(self) -> Assignment:
        """The tasks as the dispatcher takes them."""
        work, specs = self._work, [self._spec(task) for task in self.tasks]
        origin = self._backend.identity
        return Assignment(work, self.tasks, specs, work.check, self._describe, origin, work.content)

    def _spec(self, task: Task) -> TaskSpec:
        experiment = self._experiments[task.experiment]
        return TaskSpec(
            task.key,
            self._backend.expected_seconds(experiment, task),
            task.experiment,
            self._influence(task),
            # Delays are injected into subexperiments, whose shots chunks share.
            task.num_subexperiments(experiment) if task.chunk[0] == 0 else 0,
            task.chunk[0],
        )

    def _influence(self, task: Task) -> float:
        """Its share of all influences."""
        if not self._total_influence:
            return 0.0
        experiment = self._experiments[task.experiment]
        shares = experiment.runs_of(task.circuits).sum(axis=1) / experiment.all_runs.sum(axis=1)
        rows = slice(task.start, task.start + len(task.angles))
        own = float(self._influences[task.experiment][rows].sum(axis=0) @ shares)
        return own / self._total_influence

    def _describe(self, task: Task) -> str:
        """Fragment, setting and bindings of a task, for error messages."""
        last = task.start + len(task.angles) - 1
        bindings = f"binding {last}" if last == task.start else f"bindings {task.start} to {last}"
        first, count = task.circuits or (0, self._experiments[task.experiment].num_circuits)
        settings = f"setting {first}" if count == 1 else f"settings {first} to {first + count - 1}"
        part = "" if task.chunk[1] == 1 else f", part {task.chunk[0] + 1} of the shots"
        return f"fragment {task.experiment}, {settings}, {bindings}{part}"

    def record(self, attempt: Attempt, run_id: str, query_id: str, start: float) -> TaskRecord:
        """The record of one attempt at a task, its times counted from `start`."""
        task = self.tasks[attempt.task]
        experiment = self._experiments[task.experiment]
        started = None if attempt.started is None else attempt.started - start
        circuits, shots = task.num_subexperiments(experiment), None
        if task.shots is not None:
            total = int(task.shots_of(experiment).sum())
            if attempt.arrays is not None:
                total = _shots_in(self._work.result_of(task, attempt.arrays))
            shots = round(total / circuits)
        return TaskRecord(
            run_id=run_id,
            query_id=query_id,
            key=task.key,
            job=attempt.job,
            fragment=task.experiment,
            rows=(task.start, len(task.angles)),
            circuits=task.circuits or (0, experiment.num_circuits),
            chunk=task.chunk[0],
            shots=shots,
            subexperiments=circuits,
            worker=attempt.worker,
            attempt=attempt.number,
            purpose=attempt.purpose,
            submitted=attempt.submitted - start,
            started=started,
            finished=attempt.finished - start,
            injected_delay=attempt.injected,
            status=attempt.status,
            cause=attempt.cause,
        )


def _shots_in(result: FragmentResult) -> int:
    """Shots that the circuits of a result took, all together."""
    return int(sum(counts[:, 0].sum() for counts in result.counts))
