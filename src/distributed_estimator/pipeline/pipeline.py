"""Algorithm 1: a batch of queries through its four stages, timed and recorded.

partition   the plan, reduced to what can reach the observables           (cached by structure)
generate    angles, distinct local bindings, tasks
execute     tasks on the pool; fragment tensors fill up as results arrive
reconstruct values and standard errors, or gradients, from the tensors
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..backends import StatevectorBackend
from ..backends.seeds import Repetition
from ..cutting import Cuts, FloatArray, IntArray, SettingBasis
from ..errors import BackendError, DeadlineError, InputError, PlanTooLargeError, PrecisionWarning
from ..execution import (
    Arrays,
    Assignment,
    Attempt,
    Conditions,
    LargestInfluenceFirst,
    Policy,
    Pool,
    Stop,
    TaskSpec,
    one_thread,
    run_tasks,
)
from ..pubs import Batch
from ..reconstruction import Queries, Reconstruction, SliceWork, Wanted, derivatives
from ..records import (
    DesignInfo,
    MitigationInfo,
    QueryRecord,
    RecordWriter,
    StragglerInfo,
    Summary,
    new_run_id,
    utc_now,
)
from ..subexperiments import (
    DRAWN_AS_CIRCUITS,
    FEWEST_SHOTS,
    MOST_DRAWN_PILOTS,
    MOST_PILOTS,
    MOST_ROUNDS,
    OUTCOME_PILOT,
    Accuracy,
    AdjointBackend,
    AdjointTask,
    AdjointWork,
    Allocation,
    Backend,
    Design,
    DrawnExperiment,
    DrawnSettings,
    FragmentWork,
    Level,
    Mitigation,
    NoisyBackend,
    Norms,
    Outcomes,
    PlacingBackend,
    Readout,
    Seen,
    Sensitivity,
    ShotPlan,
    ShotsTaken,
    SlotDraw,
    Values,
    Zne,
    adjoint_pays,
    drawn_bases,
    drawn_together,
    draws_settings,
    environments,
    first_shots,
    no_noise,
    plan_outcomes,
    plan_shots,
    slot_draws,
    unique_rows,
)
from .calibrating import Calibrating, Kept
from .estimates import Estimate, Moves, without_noise
from .preparation import Preparation, Prepared
from .rounds import MemoryLimit, Need, Round, RoundRequest, Spent, in_bytes
from .usage import Uses

_log = logging.getLogger(__name__)
_ENOUGH = 0.9
"""Part of the shots asked for that a backend has to take, for a result to be estimated again."""
_KEPT = 0.75
"""Weight of a result that missed its precision, beside a further one of its own shots."""
_STRICTER = 0.95
"""Factor of the variance that results are planned for which missed, at every miss."""
_BOLD, _MORE = 2.0, 4
"""An error so many times the planned one tells that the noise of many fragments multiplies, which a
design does not see: every circuit of the next round has so many times as many shots at least."""
_LEAST_OPEN, _UNEVEN_READOUT = 1 / 4, 2.0
"""Part of a variance that a calibration of readout leaves for shots at least: one that leaves less
is too coarse. And the square of what it adds to an extrapolated value at most, in units of that of
what it adds at one noise factor."""
_ROUGH, _ROUGH_PART, _STEEPER = 3.0, 1 / 8, 1.1
"""Of a pilot for exponentials, its precision in units of that wanted, and its part of a limit of
shots, or of time, at most; and the margin for how values depend on those at noise factors."""
_PRICED = 3
"""Pilots that most prices are the mean of: what one leads to differs by about a fifth."""
_ERRORS = {"max": "standard error", "rms": "root mean square of a PUB's standard errors"}
_MOST_SPREADS = 1 << 24
"""Variances of settings that shots are divided by; of probabilities, the largest."""
_ONE_CORE_BYTES = 1 << 20
"""A batch that takes more holds BLAS to one thread: with several, it adds up in another order."""


@dataclass(frozen=True, eq=False)
class Request:
    """A batch to evaluate, and the accuracy wanted of its values, or of their derivatives.

    Attributes:
        run: Names the evaluation; everything random derives from it.
        parameters: Numbers of the parameters to differentiate by; None: values alone.
        errors: Whether standard errors of derivatives are wanted, where shots are fixed.
        independent: Whether every query is to have shots of its own.
        covariance: Whether the covariances of values are wanted.
        weights: Of the queries, where the derivatives of their sum are what has to be known well,
            shape (queries,): shots are divided for these, and standard errors are theirs.
    """

    batch: Batch
    accuracy: Accuracy
    run: str
    parameters: tuple[int, ...] | None = None
    errors: bool = True
    independent: bool = False
    covariance: bool = False
    weights: FloatArray | None = None

    @property
    def roughly(self) -> Request:
        """A pilot for exponentials."""
        own = self.accuracy
        most = own.most and max(1, int(_ROUGH_PART * own.most))
        rough = replace(
            own, precision=_ROUGH * own.precision, most=most, reuse=False, part=_ROUGH_PART
        )
        return replace(self, accuracy=rough, run=f"{self.run} pilot", covariance=False)

    def less(self, shots: int) -> Request:
        """With so many shots less in a limit."""
        most = self.accuracy.most and max(1, self.accuracy.most - shots)
        return replace(self, accuracy=replace(self.accuracy, most=most))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Values of a batch, and their derivatives where they were asked for.

    Attributes:
        values: Shape (queries,).
        stderrs: Standard errors of values, shape (queries,), of gradients in their shape, or of
            the gradient of their sum, shape (parameters,); NaN where they were not wanted.
        record: The record that was logged.
        gradients: Shape (queries, parameters); None where only values were asked for.
        product_formulas: Instructions of the circuit that ran as product formulas, with an error
            beside the exponential.
        covariance: Of values, shape (queries, queries); None where it was not asked for.
        devices: What each device did.
    """

    values: FloatArray
    stderrs: FloatArray
    record: QueryRecord
    gradients: FloatArray | None = None
    product_formulas: tuple[int, ...] = ()
    covariance: FloatArray | None = None
    devices: Uses = field(default_factory=Uses)


@dataclass(frozen=True)
class Price:
    """What a run takes to meet a precision.

    Attributes:
        circuits: Circuits of all bindings and noise factors; at most so many where settings are
            drawn at random.
        optimal: Shots in all, those of pilots included, as `EstimatorOptions.allocation` divides
            them; a run takes about as many.
        neyman: The same; None where `optimal` draws settings, which are too many to run each.
        uniform: The same.
        quasi_probability: Shots that sampling the terms of a quasi-probability decomposition takes
            at most, by the sampling overhead of the cuts.
    """

    circuits: int
    optimal: int
    neyman: int | None
    uniform: int | None
    quasi_probability: float

    def __add__(self, other: Price) -> Price:
        """What both take."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        sums: Any = [None if None in pair else sum(pair) for pair in pairs]
        return Price(*sums)


@dataclass(eq=False)
class Pipeline:
    """The four stages over a backend and a pool.

    The clock of `conditions` also times the stages; `memory_limit` is in bytes, None: half of what
    is free. Query records go to `log`, task records to `trace`; the seed is for them alone: seeds
    derive from the names of runs.

    Raises:
        InputError: Noise is to be mitigated, and the backend has none.
    """

    cuts: Cuts
    backend: Backend
    pool: Pool
    conditions: Conditions
    basis: SettingBasis = "full"
    memory_limit: int | None = None
    log: RecordWriter | None = None
    trace: RecordWriter | None = None
    seed: int | None = None
    run_id: str = field(default_factory=new_run_id)
    mitigation: Mitigation | None = None

    def __post_init__(self) -> None:
        self.levels = [Level()]
        if self.mitigation is not None:
            if not isinstance(self.backend, NoisyBackend):
                raise no_noise(self.backend.name)
            self.levels = self.mitigation.levels()
            for level in self.levels:  # runs ask it for the same; what it cannot do is refused now
                self.backend.mitigated(self.mitigation, level.factor)
        self.preparation = Preparation(self.cuts, self.basis, self.backend)
        self.memory = MemoryLimit(self.memory_limit)
        self.repetition = Repetition()

    def evaluate(
        self, request: Request, stop: Stop | None = None, begun: float | None = None
    ) -> Evaluation:
        """Values of a batch, with standard errors or derivatives.

        The run that has the deadline has `begun` then on the conditions' clock; None: now.

        Raises:
            BackendError: The backend cannot give the accuracy asked for, or failed.
            DeadlineError: Some circuits had no shots at all when the deadline came.
            PlanTooLargeError: It would not fit in memory.
            PoolError: Workers could not be started or reached.
            RunCancelledError: It was stopped.
        """
        if request.accuracy.exact and not self.backend.exact:
            raise BackendError(
                f"`precision` is 0, but the backend {self.backend.name} samples: ask for a "
                "positive precision, leave it out where `shots` or `shots_total` is set, or use "
                "the statevector backend (backend=None)"
            )
        if request.accuracy.exact and self.mitigation is not None:
            raise BackendError(
                "`precision` is 0, and exact values have no noise: ask for a positive precision, "
                "or leave `mitigation` out"
            )
        call = _Call(request, replace(self.conditions, stop=stop), begun)
        pilots, levels, request = self._levels_of(request, call)
        sessions, estimates = self._run(levels, request, call)
        first, estimate = sessions[0], estimates[0]
        if len(levels) > 1:
            estimate, _ = without_noise(self._zne, estimates, request.weights)
        first.add(sessions[1:], pilots)
        record = first.record(estimate)
        _log.debug(
            "query %s: %d queries, %d shots; partition %.3g s, generate %.3g s, execute %.3g s, "
            "reconstruct %.3g s",
            *(record.query_id, record.num_queries, record.shots_total, record.t_partition),
            *(record.t_generate, record.t_execute, record.t_reconstruct),
        )
        self._warn(request.accuracy, first.norms, estimate, first.spent.shots_seen)
        if self.log is not None:
            self.log.write(record)
        formulas = first.plan.normal.product_formulas
        return Evaluation(
            *(estimate.values, estimate.whole_stderrs, record),
            *(estimate.gradients, formulas, estimate.whole_covariance),
            devices=first.uses,
        )

    def _levels_of(
        self, request: Request, call: _Call
    ) -> tuple[list[_Session], list[Level], Request]:
        """Pilots of the noise factors, how these share shots, and what is left to be asked.

        Where exponentials are fitted, how factors share shots depends on the values, which the
        pilots are for.
        """
        if not (self._is_exponential and request.accuracy.promises):
            return [], self.levels, request
        assert self.mitigation is not None
        rough = [replace(own, end=_ROUGH_PART * own.end) for own in self.levels]
        pilots, estimates = self._run(rough, request.roughly, call)
        _, slopes = without_noise(self._zne, estimates, request.weights)
        sizes = np.abs(slopes).reshape(len(slopes), -1).max(axis=1, initial=0.0)
        taken = sum(session.spent.shots_seen for session in pilots)
        return pilots, self.mitigation.levels(_STEEPER * sizes), request.less(taken)

    def _run(
        self, levels: Sequence[Level], request: Request, call: _Call
    ) -> tuple[list[_Session], list[Estimate]]:
        """Run a request at all noise factors."""
        if len(levels) > 1:  # refused before any of them has taken shots
            least = min(levels, key=lambda own: own.part)
            with _Session(self, request, call, least) as session:
                session.check_shots()
        sessions, estimates = [], []
        for level in levels:
            with _Session(self, request, call, level) as session:
                session.log_methods()
                estimates.append(session.estimate(session.first_plan()))
                session.remember()
            sessions.append(session)
        return sessions, estimates

    @property
    def _zne(self) -> Zne:
        assert self.mitigation is not None
        assert isinstance(self.mitigation.zne, Zne)
        return self.mitigation.zne

    @property
    def _is_exponential(self) -> bool:
        return len(self.levels) > 1 and self._zne.extrapolator == "exponential"

    def _warn(self, accuracy: Accuracy, norms: Norms, estimate: Estimate, taken: int) -> None:
        """Say so where a precision was not met with the shots that were taken."""
        error = float(norms.of(estimate.whole_stderrs).max(initial=0.0))
        if not accuracy.promises or error <= accuracy.precision:
            return
        largest = f"the largest {_ERRORS[accuracy.norm]} is {error:.3g}"
        readout = float(norms.of(estimate.readout_stderrs).max(initial=0.0))
        message = (
            f"precision {accuracy.precision:g} takes more than the {taken} shots that "
            f"`max_shots`, the deadline or the backend allow: {largest}"
        )
        if readout**2 > (1 - _LEAST_OPEN) * accuracy.precision**2:
            assert self.mitigation is not None
            shots = self.mitigation.calibration_shots * (2 * readout / accuracy.precision) ** 2
            message = (
                f"precision {accuracy.precision:g} takes a better calibration of readout, which "
                f"adds {readout:.3g}: {largest}; set `calibration_shots` to {math.ceil(shots)} or "
                "more"
            )
        warnings.warn(message, PrecisionWarning, stacklevel=3)

    def num_circuits(self, request: Request) -> int:
        """Circuits of a request, which does not run."""
        with _Session(self, request, _Call(request, self.conditions)) as session:
            return session.num_circuits * len(self.levels)

    def memory_of(self, request: Request) -> int:
        """Bytes that a request takes, which does not run; of one with rounds, the first.

        Raises:
            InputError: It has fewer shots than can be divided.
            PlanTooLargeError: It would not fit.
        """
        with _Session(self, request, _Call(request, self.conditions)) as session:
            return session.memory()

    def price(self, request: Request) -> Price:
        """What a request with a precision is likely to take, as pilots say, which run.

        Raises:
            PlanTooLargeError: They do not fit in memory.
        """

        def planned(allocation: Allocation, draw: int = 0) -> tuple[int, list[_Session]]:
            accuracy = replace(request.accuracy, allocation=allocation)
            own = replace(request, accuracy=accuracy, run=f"{request.run} draw {draw}")
            call, sessions, shots = _Call(own, self.conditions), [], 0
            pilots, levels, own = self._levels_of(own, call)
            for level in levels:
                with _Session(self, own, call, level) as session:
                    shots += session.planned_shots()
                sessions.append(session)
            return shots + sum(pilot.spent.shots for pilot in pilots), sessions

        optimal, sessions = planned("optimal")
        draws = any(session.draws for session in sessions)
        if not draws:  # pilots of settings that are drawn take long
            others = sum(planned("optimal", draw)[0] for draw in range(1, _PRICED))
            optimal = round((optimal + others) / _PRICED)
        neyman = None if draws else planned("neyman")[0]
        uniform = None if draws else planned("uniform")[0]
        circuits = sum(session.num_circuits for session in sessions)
        if draws:
            circuits = min(circuits, optimal)
        bound = sum(session.quasi_probability for session in sessions)
        return Price(circuits, optimal, neyman, uniform, bound)


class _Call:
    """What all sessions of an evaluation share.

    Args:
        request: What is evaluated.
        conditions: Those of its tasks.
        begun: When the run that has the deadline began, on the conditions' clock; None: now.
    """

    def __init__(
        self, request: Request, conditions: Conditions, begun: float | None = None
    ) -> None:
        self.conditions, self.begun = conditions, begun
        self.kept = Kept(request.run, conditions.journal)
        self.start, self.query_id = conditions.clock(), new_run_id()


class _Session(ExitStack):
    """One batch on its way through the stages; what it holds meanwhile is freed at the end."""

    def __init__(
        self, pipeline: Pipeline, request: Request, call: _Call, level: Level | None = None
    ) -> None:
        super().__init__()
        self.level, self.call = pipeline.levels[0] if level is None else level, call
        if len(pipeline.levels) > 1:
            run, accuracy = f"{request.run} noise {self.level.factor}", request.accuracy
            request = replace(request, run=run, accuracy=self.level.accuracy(accuracy))
        self.pipeline, self.request, self.conditions = pipeline, request, call.conditions
        self.query_id, self.started_at = call.query_id, utc_now()
        self.times = dict.fromkeys(("partition", "generate", "execute", "reconstruct"), 0.0)
        self.shots_taken = ShotsTaken()
        self.spent = Spent()
        self._measured: Sequence[FloatArray] | None = None
        self._counts: list[list[FloatArray]] = []
        self._planned: ShotPlan | None = None
        self._slot_draws: dict[int, tuple[SlotDraw, ...]] = {}
        self._pilot_shots = 0
        self._adjoint: tuple[int, ...] = ()
        self._known: dict[tuple[int, str], Readout] = {}
        self._all = [self]
        """This one, and those of further noise factors that the record counts."""
        self._mark, self._begun = call.conditions.clock(), call.start
        policy = call.conditions.policy
        began, self._end = call.start if call.begun is None else call.begun, math.inf
        if policy.deadline is not None:
            deadline = replace(policy.deadline, seconds=self.level.end * policy.deadline.seconds)
            self.conditions = replace(call.conditions, policy=replace(policy, deadline=deadline))
            self._end = began + deadline.seconds
        self.prepared, self.plan_cached = pipeline.preparation.prepare(
            request.batch.circuit, request.batch.observables
        )
        self.plan = self.prepared.plan
        known = "known" if self.plan_cached else "new"
        _log.debug("query %s: %s plan %r", self.query_id, known, self.plan)
        self._lap("partition")
        self.angles = self.plan.normal.angles.evaluate(request.batch.values)
        # Distinct local bindings of each fragment, and for each binding the place of its own. Rows
        # are distinguished by what was given: angles are rounded differently elsewhere.
        rows: list[FloatArray] = []
        self.inverses: list[IntArray] = []
        for fragment, parameters in zip(self.plan.fragments, self.prepared.parameters, strict=True):
            places, inverse = unique_rows(request.batch.values[:, parameters])
            if request.independent:
                places = inverse = np.arange(len(request.batch.values))
            rows.append(self.angles[places][:, fragment.angles])
            self.inverses.append(inverse)
        self.rows, self.shifts = rows, None
        if request.parameters is not None:
            self.shifts = self.prepared.shifts(request.parameters)
            if request.accuracy.exact:
                self._adjoint = self._where_adjoint_pays(self.shifts)
            self.rows = [
                base if number in self._adjoint else shifts.rows(base)
                for number, (shifts, base) in enumerate(zip(self.shifts, rows, strict=True))
            ]
            self.slopes = derivatives.slopes_of_angles(
                self.plan, self.shifts, request.batch.values, request.parameters
            )

    @cached_property
    def _running(self) -> Prepared:
        """What is prepared, on a backend that does what it can about noise."""
        return self.prepared.mitigated(self.pipeline.mitigation, self.level.factor)

    @property
    def backend(self) -> Backend:
        """What evaluates tasks."""
        return self._running.work.backend

    @property
    def _known_as(self) -> Hashable:
        """What pilots that may be used again have in common."""
        parameters, several = self.request.parameters, len(self.pipeline.levels) > 1
        return (parameters, self.level.factor) if several else parameters

    def _where_adjoint_pays(self, shifts: Sequence[derivatives.Shifts]) -> tuple[int, ...]:
        """Fragments whose derivatives are exact and take less than all their shifted rows."""
        products = len(self.request.batch.observable)
        return tuple(
            number
            for number, (experiment, own, rows) in enumerate(
                zip(self.prepared.experiments, shifts, self.rows, strict=True)
            )
            if adjoint_pays(self.backend, experiment, rows, own.count * len(rows), products)
        )

    def estimate(self, plan: ShotPlan | int | None) -> Estimate:
        """What was asked for, which meets the accuracy or is the best in time.

        Results that miss their precision keep most of their weight beside a further round, which
        all before it have designed, or none where that takes fewer shots. A round that the deadline
        cuts short adds to none.

        Args:
            plan: Of the first round, or shots of every circuit; None: exact values.
        """
        accuracy, run = self.request.accuracy, self._name
        wanted = self._wanted
        if not isinstance(plan, ShotPlan):
            return self._estimate(self._sample(run, wanted, plan))
        before, fewest = self.spent.shots_seen, 0
        seen = self._sample(f"{run} round 0", wanted, designs=plan.designs)
        best = self._estimate(seen)
        reached = self.error(best)
        for number in range(1, MOST_ROUNDS):
            errors, limits = self.norms.of(best.stderrs), self._limits(best.moves)
            missed = ~(errors <= limits)
            is_over = self.conditions.clock() >= self._end
            if accuracy.budget is not None or plan.is_short or is_over or not missed.any():
                return best
            if self.spent.shots_seen - before < _ENOUGH * sum(plan.fragment_shots):
                return best  # to ask again until errors seem small would choose between values
            # Plans that a result misses again were too bold for it.
            aim = limits**2 * _STRICTER**number
            further = (aim - (_KEPT * errors) ** 2) / (1 - _KEPT) ** 2
            kept = np.where(missed, np.where(further > aim, _KEPT, 0.0), 1.0)
            variances = np.where(missed, np.where(further > aim, further, aim), np.inf)
            if reached > _BOLD * plan.stderr:
                fewest = _MORE * max(fewest, FEWEST_SHOTS)
            plan = self._plan(accuracy, seen, variances, fewest=fewest)
            missing = self.spent.missing
            before = self.spent.shots_seen
            if plan.is_short:
                return best
            try:
                seen = self._sample(f"{run} round {number}", wanted, designs=plan.designs)
            except DeadlineError:
                return best
            if self.spent.missing > missing:
                return best
            further_round = self._estimate(seen)
            reached = float(self.norms.of(further_round.stderrs)[missed].max())
            best = best.with_round(further_round, kept[self.norms.number])
        if (self.norms.of(best.stderrs) <= self._limits(best.moves)).all():
            return best
        raise BackendError(
            f"precision {accuracy.precision:g} was not met in {MOST_ROUNDS} rounds (standard error "
            f"{self.error(best):.3g}): ask for a larger precision, or for fewer cuts"
        )

    def error(self, estimate: Estimate) -> float:
        """The largest standard error of shots, or norm of standard errors."""
        return float(self.norms.of(estimate.stderrs).max(initial=0.0))

    def _limits(self, moves: Moves) -> float | FloatArray:
        """Standard errors, or their norms, that are left for shots beside those of calibrations.

        All that there may be where a calibration leaves too little, which no shots help.
        """
        precision = self.request.accuracy.precision
        if not moves:
            return precision
        whole, several = precision**2, len(self.pipeline.levels) > 1
        added = self.norms.of(np.sqrt(sum(move**2 for move in moves.values()))) * self.level.error
        left = whole - (_UNEVEN_READOUT if several else 1.0) * added**2
        return np.sqrt(np.where(left < _LEAST_OPEN * whole, whole, left))

    @cached_property
    def norms(self) -> Norms:
        """Which results are to meet the precision together.

        They are values of a PUB, or components of a gradient.
        """
        batch, parameters, norm = (
            self.request.batch,
            self.request.parameters,
            self.request.accuracy.norm,
        )
        if parameters is None:
            return Norms.of_groups(batch.pub, norm)
        gradients = len(batch.pub) if self.request.weights is None else 1
        return Norms.of_groups(np.repeat(np.arange(gradients), len(parameters)), norm)

    def memory(self) -> int:
        """Bytes that its first round takes, which does not run."""
        accuracy, wanted = self.request.accuracy, self._wanted
        shots = accuracy.shots
        if accuracy.adaptive:
            self._draw_at_first()
            shots, fixed = self._first_shots(knows=False)
            shots, wanted = (shots, "environments") if fixed is None else (fixed, wanted)
        request, most_elements = self._fitting(self._asked(self._name, wanted, shots))
        return Need(request, self.pipeline.pool.workers).total_with(most_elements)

    def check_shots(self) -> None:
        """See that there are shots enough to begin with.

        Raises:
            InputError: There are not.
        """
        if self.request.accuracy.adaptive:
            self._draw_at_first()
            self._first_shots(knows=False)

    def planned_shots(self) -> int:
        """Shots of pilots, which are taken, and of the round that they design, which is not."""
        plan = self.first_plan()
        if not isinstance(plan, ShotPlan):
            return (plan or 0) * self.num_circuits
        return self.spent.shots + sum(plan.fragment_shots)

    @property
    def quasi_probability(self) -> float:
        """Shots to sample terms of the cuts at most: of n, a query's variance is Πγ² norm² / n."""
        batch = self.request.batch
        query, _, weights = batch.observables.entries(batch.observable)
        norms = np.bincount(query, np.abs(weights), len(batch.observable))
        roots = np.bincount(self.norms.number, norms * self.norms.scales)
        overhead, precision = self.plan.sampling_overhead, self.request.accuracy.precision
        return overhead * float((roots**2).sum()) / precision**2

    def remember(self) -> None:
        """Let later runs know what this one saw."""
        if self.request.accuracy.reuse and self._counts and not self._slot_draws:
            self.prepared.priors.remember(self._known_as, self.rows, self._counts)

    @property
    def _wanted(self) -> Wanted:
        """What rounds are to give."""
        if self.shifts is not None:
            return "environments"
        return "values" if self.request.accuracy.exact else "errors"

    @property
    def draws(self) -> bool:
        """Whether settings of some fragment are drawn."""
        return bool(self._slot_draws)

    @property
    def _name(self) -> str:
        return self.request.run if self.shifts is None else f"{self.request.run} gradient"

    def first_plan(self) -> ShotPlan | int | None:
        """The first round, after its pilots; or its shots a circuit where none are needed.

        None: exact values.
        """
        accuracy = self.request.accuracy
        if not accuracy.adaptive:
            return accuracy.shots
        self._draw_at_first()
        recalled = None
        if accuracy.reuse and not self.draws:
            recalled = self.prepared.priors.recall(self._known_as, self.rows)
        pilot, fixed = self._first_shots(knows=recalled is not None)
        if fixed is not None:
            return fixed
        if recalled is not None:
            self._counts = recalled
            asked = self._asked(self._name, "environments", 1)
            return self._plan(accuracy, self._generate(asked)[1])
        shots, name, plan = pilot, f"{self._name} pilot", None
        most = MOST_DRAWN_PILOTS if self.draws else MOST_PILOTS
        if self.draws:  # what the first one saw of the environments is what settings are drawn for
            self._draw_for(self._sample(name, "environments", pilot))
            name = f"{self._name} pilot of settings"
        for number in range(1, most + 1):
            before = self.spent.shots_seen
            seen = self._sample(name, "environments", shots)
            enough = self.spent.shots_seen - before >= _ENOUGH * shots * self._pilot_circuits
            may_pilot = number < most and (enough or self.draws)
            plan = self._plan(accuracy, seen, may_pilot=may_pilot)
            if not plan.needs_pilot:
                break
            # As many shots as all pilots had so far, for every circuit: too little is known of
            # where shots are needed to divide them.
            shots, name = pilot << (number - 1 + self.draws), f"{self._name} pilot {number + 1}"
        self._pilot_shots = self.spent.shots
        return plan

    def _first_shots(self, *, knows: bool) -> tuple[int, int | None]:
        """Those of `first_shots`."""
        accuracy, parameters = self.request.accuracy, self.request.parameters
        results = len(self.request.batch.values) * max(1, len(parameters or ()))
        circuits = self._pilot_circuits
        pilot, fixed = first_shots(accuracy, circuits, results, knows=knows, draws=self.draws)
        return min(pilot, OUTCOME_PILOT) if self._asks_outcomes else pilot, fixed

    def _draw_at_first(self) -> None:
        """Draw settings of the fragments with too many, while nothing is known.

        Those of probabilities are run, each.
        """
        if self._asks_outcomes:
            return
        for number, experiment in enumerate(self.prepared.experiments):
            if draws_settings(self.request.accuracy, experiment.num_weights):
                bases = drawn_bases(experiment.fragment)
                groups = drawn_together(experiment.fragment, self.plan.cuts)
                self._slot_draws[number] = tuple(SlotDraw.best(own, bases) for own in groups)

    def _draw_for(self, seen: Reconstruction) -> None:
        """Draw them for what their fragments' tensors are multiplied with."""
        found = environments(
            self._pilots(seen),
            lambda values: self._derivatives_at(seen, values),
            self.request.accuracy,
        )
        for number in self._slot_draws:
            bases = seen.tensors[number].experiment.layout.bases
            groups = [draw.slots for draw in self._slot_draws[number]]
            self._slot_draws[number] = slot_draws(groups, bases, found[number])

    def _with_draws(
        self, run: str, shots: int | None, designs: Sequence[Design | None] | None
    ) -> tuple[Prepared, Sequence[Design | None]]:
        """Experiments of the settings that a round draws, and shots of these."""
        experiments = list(self.prepared.experiments)
        own: list[Design | None] = list(designs or [None] * len(experiments))
        for number, slots in self._slot_draws.items():
            experiment, design = experiments[number], own[number]
            if design is None:
                shape = len(self.rows[number]), len(experiment.groups)
                totals = np.full(shape, DRAWN_AS_CIRCUITS * (shots or 0))
            else:
                totals = design.shots[:, :, 0]
            bases = drawn_bases(experiment.fragment)
            table = 8 * totals.size * min(int(totals.sum()), experiment.num_circuits)
            if self.pipeline.memory.is_exceeded(table):
                raise PlanTooLargeError(
                    f"the settings that are drawn for fragment {number} at {len(totals)} bindings "
                    f"take up to {in_bytes(table)} of memory, the limit is "
                    f"{in_bytes(self.pipeline.memory.size)}: send fewer bindings a run, or ask for "
                    "a larger precision"
                )
            drawn = DrawnSettings.draw(bases, slots, totals, f"{run} {number} settings")
            own[number] = Design(drawn.shots, None)
            experiments[number] = DrawnExperiment(
                experiment.fragment, experiment.paulis, "full", drawn
            )
        work = FragmentWork(self.backend, tuple(experiments))
        return replace(self.prepared, experiments=work.experiments, work=work), own

    @property
    def _pilot_circuits(self) -> int:
        """Circuits of all rows, as a pilot counts them."""
        drawn = sum(
            len(self.rows[n])
            * (experiment.num_circuits - DRAWN_AS_CIRCUITS * len(experiment.groups))
            for n, experiment in enumerate(self.prepared.experiments)
            if n in self._slot_draws
        )
        return self.num_circuits - drawn

    @property
    def num_circuits(self) -> int:
        """Circuits of all rows."""
        experiments = self.prepared.experiments
        return sum(
            len(rows) * experiment.num_circuits
            for rows, experiment in zip(self.rows, experiments, strict=True)
            if not experiment.is_trivial
        )

    def _plan(
        self,
        accuracy: Accuracy,
        seen: Reconstruction,
        variances: FloatArray | None = None,
        *,
        may_pilot: bool = False,
        fewest: int = 0,
    ) -> ShotPlan:
        """The next round, from what all earlier ones saw; see `plan_shots`."""
        if self._asks_outcomes:
            plan = self._plan_outcomes(
                accuracy, seen, variances, may_pilot=may_pilot, fewest=fewest
            )
        else:
            if self._slot_draws:
                self._draw_for(seen)
            if variances is None and accuracy.budget is None and (moves := self._moves(seen)):
                variances = np.asarray(self._limits(moves)) ** 2
            plan = plan_shots(
                self._pilots(seen),
                lambda values: self._derivatives_at(seen, values),
                accuracy,
                self.spent.shots_seen,
                variances,
                may_pilot=may_pilot,
                fewest=fewest,
            )
        if not plan.needs_pilot:
            self._measured, self._planned = plan.influences, self._planned or plan
        self._lap("reconstruct")
        return plan

    @property
    def _asks_outcomes(self) -> bool:
        """Whether results are probabilities, which are too many for `plan_shots`."""
        return isinstance(self.request.batch.observables, Outcomes)

    def _plan_outcomes(
        self,
        accuracy: Accuracy,
        seen: Reconstruction,
        variances: FloatArray | None,
        *,
        may_pilot: bool,
        fewest: int,
    ) -> ShotPlan:
        """The next round for probabilities; see `plan_outcomes`."""
        settings = sum(e.layout.num_settings for e in self.prepared.experiments)
        most = _MOST_SPREADS // max(1, settings * len(self.request.batch.values))
        targets = variances
        if targets is None:
            targets = np.full(seen.queries.count, accuracy.precision**2)
        chosen, spreads = seen.spreads(targets, max(1, most))
        spent = self.spent.shots_seen
        return plan_outcomes(
            spreads, targets[chosen], accuracy, spent, may_pilot=may_pilot, fewest=fewest
        )

    def _pilots(self, seen: Reconstruction) -> list[Seen | None]:
        return [
            Seen(tensor.experiment, counts, tensor.readout) if counts else None
            for tensor, counts in zip(seen.tensors, self._counts, strict=True)
        ]

    def _derivatives_at(
        self, seen: Reconstruction, values: Values
    ) -> tuple[int, list[Sensitivity]]:
        """Number of norms, and derivatives of their results at several draws of the tensors."""
        draws = max((len(own) for own in values if own is not None), default=1)
        filled = [
            np.repeat(tensor.values[None], draws, axis=0) if own is None else own
            for tensor, own in zip(seen.tensors, values, strict=True)
        ]
        count, found = self._sensitivities(seen.at(filled))
        count //= draws
        split = []
        for own, inverse in zip(found, self.inverses, strict=True):
            # Of a block of rows, those of all draws follow each other.
            base = int(inverse.max(initial=-1)) + 1
            order = np.argsort(own.results // count, kind="stable")
            first = order[: len(order) // draws]
            blocks, rows = np.divmod(own.rows[first], draws * base)
            vectors = own.vectors[0, order].reshape(draws, -1, *own.vectors.shape[2:])
            results = own.results[first]
            vectors = vectors * self.norms.scales[results, None, None]
            split.append(Sensitivity(blocks * base + rows, self.norms.number[results], vectors))
        return int(self.norms.number.max(initial=-1)) + 1, split

    def _sensitivities(self, seen: Reconstruction) -> tuple[int, list[Sensitivity]]:
        """How many results there are, and how they depend on the fragments' tensors."""
        if self.shifts is None:
            return seen.queries.count, seen.sensitivities()
        parameters, weights = self.slopes.shape[1], self.request.weights
        found = derivatives.sensitivities(self.plan, seen, self.shifts, self.angles, self.slopes)
        if weights is None:
            return seen.queries.count * parameters, found
        draws = seen.queries.count // len(weights)
        return draws * parameters, derivatives.of_sums(found, weights, parameters)

    def _estimate(self, sample: Reconstruction) -> Estimate:
        values, shots = sample.values(), self.shots_taken
        sampled = any(tensor.counts for tensor in sample.tensors)
        stderrs, first_order, gradients = np.zeros_like(values), 0, None
        moves: Moves = {}
        if self.shifts is not None:
            known = self._derivatives_by_angles(sample) if self._adjoint else {}
            gradients = derivatives.gradients(
                self.plan, sample, self.shifts, self.angles, self.slopes, known
            )
            shape = gradients.shape if self.request.weights is None else gradients.shape[1:]
            stderrs = np.zeros(shape)
            if sampled and not (self.request.errors or self.request.accuracy.adaptive):
                stderrs[:] = np.nan
            elif sampled:
                count, sensitivities = self._sensitivities(sample)
                variances = sample.first_order(count, sensitivities)
                stderrs = np.sqrt(variances).reshape(shape)
                moves = sample.readout_errors(count, sensitivities)
        elif sampled:
            stderrs, first_order = sample.standard_errors(values)
            moves = self._moves(sample)
        moves = {qubit: own.reshape(stderrs.shape) for qubit, own in moves.items()}
        covariance = sample.covariance(stderrs) if self.request.covariance else None
        self._lap("reconstruct")
        return Estimate(values, stderrs, shots, first_order, gradients, covariance, moves)

    def _moves(self, sample: Reconstruction) -> Moves:
        """How far results move with a standard error of the calibration of each qubit's readout."""
        if not self._unfolds:
            return {}
        return sample.readout_errors(*self._sensitivities(sample))

    def _sample(
        self,
        run: str,
        wanted: Wanted,
        shots: int | None = None,
        designs: Sequence[Design | None] | None = None,
    ) -> Reconstruction:
        """Generate the tasks of all fragments and run them; fold results in as they arrive."""
        clock = self.conditions.clock
        round_, reconstruction = self._generate(self._asked(run, wanted, shots, designs))
        self._lap("generate")
        _log.debug("query %s: %s has %d tasks", self.query_id, run, len(round_.tasks))

        def fold(number: int, arrays: Arrays, others_run: bool) -> None:
            before = clock()
            complete = round_.fold(number, arrays)
            if others_run:
                if complete is not None:
                    reconstruction.fragment_complete(complete)
                self.spent.overlapped += clock() - before

        try:
            conditions = self._conditions_of(round_)
            tally = run_tasks(self.pipeline.pool, round_.assignment(), fold, conditions)
            round_.finish(tally, self.spent)
        finally:
            self._lap("execute")
        missing = self.spent.missing
        _log.debug("query %s: %s is over, %d tasks missing", self.query_id, run, missing)
        self.shots_taken = round_.shots_taken
        if self.request.accuracy.adaptive:
            new = [list(tensor.counts) for tensor in round_.tensors]
            before = self._counts or [[] for _ in new]
            for number in self._slot_draws:  # other settings are drawn in every round
                before[number] = []
            both = zip(before, new, strict=True)
            self._counts = [list(map(np.add, old, own)) if old else own for old, own in both]
        return reconstruction

    def _asked(
        self,
        run: str,
        wanted: Wanted,
        shots: int | None,
        designs: Sequence[Design | None] | None = None,
    ) -> RoundRequest:
        """A round, whose settings are drawn where there are too many."""
        policy, prepared = self.conditions.policy, self._running
        if self.draws:
            prepared, designs = self._with_draws(run, shots, designs)
            wanted = "environments"  # covariances of tensors of many slots are too many
        designed = self.request.accuracy.adaptive
        unfolds = self._unfolds
        return RoundRequest(
            *(prepared, policy, self.rows, shots, wanted, run, designs, designed, unfolds)
        )

    @property
    def _unfolds(self) -> bool:
        """Whether errors of readout are taken out."""
        mitigation = self.pipeline.mitigation
        return mitigation is not None and mitigation.readout

    def _readouts(self, prepared: Prepared) -> list[Readout | None] | None:
        """What is known of errors of readout of every fragment; calibrated if need be."""
        if not self._unfolds:
            return None
        if self._asks_outcomes:
            raise InputError(
                "errors of readout are taken out of expectation values of Paulis, not of "
                "probabilities: ask `run` for products of Z, or set `mitigation` without `readout`"
            )
        self._lap("generate")
        assert isinstance(self.backend, NoisyBackend)
        # Fragments that are alike may run on devices that are not.
        keys = [(own.fragment.index, own.key) for own in prepared.experiments]
        for key, experiment in zip(keys, prepared.experiments, strict=True):
            if not (experiment.is_trivial or key in self._known):
                self._known[key] = self.backend.readout(experiment, self._readout_run)
        self._lap("execute")
        return [self._known.get(key) for key in keys]

    @property
    def _readout_run(self) -> Calibrating:
        """What calibrations are run by, and kept."""
        call, conditions = self.call, self.conditions
        return Calibrating(
            self.pipeline.pool, conditions, self._end, self.pipeline.backend.identity, call.kept
        )

    def _fitting(self, request: RoundRequest) -> tuple[RoundRequest, int | None]:
        """The round, if there is memory for it, and the numbers that its contractions may hold.

        Where there is none for covariances of whole tensors, errors are to first order.
        """
        need = Need(request, self.pipeline.pool.workers)
        try:
            return request, self.pipeline.memory.check(need)
        except PlanTooLargeError:
            if not request.covariances:
                raise
        return self._fitting(replace(request, wanted="environments"))

    def _generate(self, request: RoundRequest) -> tuple[Round, Reconstruction]:
        """The tasks of all fragments, if there is memory for them, and their reconstruction."""
        pipeline, prepared, batch = self.pipeline, self.prepared, self.request.batch
        request, most_elements = self._fitting(request)
        if Need(request, pipeline.pool.workers).total > _ONE_CORE_BYTES:
            self.enter_context(one_thread())
        queries = Queries.build(
            batch.observables, batch.observable, batch.binding, self.inverses, prepared.term_paulis
        )
        influences = self._measured
        if influences is None:
            influences = derivatives.influences_of_terms(
                prepared.experiments, queries, self.inverses
            )
        if not isinstance(self.conditions.policy.order, LargestInfluenceFirst):
            influences = None
        readouts = self._readouts(request.prepared)
        round_ = Round(request, pipeline.repetition, influences, readouts)
        reconstruction = Reconstruction(
            self.plan,
            prepared.network,
            round_.tensors,
            queries,
            self.angles,
            wanted=request.wanted,
            most_elements=most_elements,
            run_slices=self._run_slices,
        )
        return round_, reconstruction

    def log_methods(self) -> None:
        """Name the fragments that the local simulator runs without state vectors, and how."""
        backend = self.backend
        if not (isinstance(backend, StatevectorBackend) and _log.isEnabledFor(logging.INFO)):
            return
        for experiment, rows in zip(self.prepared.experiments, self.rows, strict=True):
            method, fragment = backend.method(experiment, rows), experiment.fragment
            if method != "state vectors" and not experiment.is_trivial:
                _log.info(
                    "fragment %d (%d qubits, %d slots) is simulated by %s",
                    fragment.index,
                    fragment.num_qubits,
                    len(fragment.slots),
                    method,
                )

    def _conditions_of(self, round_: Round) -> Conditions:
        """The conditions with the time that is left until the deadline, and the trace.

        Raises:
            DeadlineError: None is left.
        """
        conditions, log = self.conditions, self.pipeline.trace
        deadline = conditions.policy.deadline
        if deadline is not None:
            left = self._end - conditions.clock()
            if left <= 0:
                raise DeadlineError(
                    f"after {deadline.seconds:g} s some tasks of the run were still to be made: "
                    "give a later deadline, or fewer circuits a run"
                )
            deadline = replace(deadline, seconds=left)
            conditions = replace(conditions, policy=replace(conditions.policy, deadline=deadline))
        if log is None:
            return conditions
        names = self.pipeline.run_id, self.query_id

        def watch(attempt: Attempt) -> None:
            log.write(round_.record(attempt, *names, self._begun))

        return replace(conditions, watch=watch)

    def _derivatives_by_angles(self, sample: Reconstruction) -> dict[int, FloatArray]:
        """Of every query by the angles of the fragments where adjoint differentiation pays.

        Their environments are known by now: the derivatives of a query are those of the product of
        the fragment's tensor with one vector.
        """
        backend, experiments = self.backend, self.prepared.experiments
        assert isinstance(backend, AdjointBackend), "adjoint_pays() asked for it"
        sensitivities = sample.sensitivities()
        tasks = [
            AdjointTask(number, row, self.rows[number][row], vector)
            for number in self._adjoint
            for row, vector in zip(
                sensitivities[number].rows.tolist(), sensitivities[number].vectors[0], strict=True
            )
        ]
        self._lap("reconstruct")
        work = AdjointWork(backend, experiments)
        size = max(
            backend.row_bytes(experiments[number], self.rows[number], None)
            for number in self._adjoint
        )
        specs = [
            TaskSpec(f"{work.key} {number}", work.seconds(task), task.experiment)
            for number, task in enumerate(tasks)
        ]
        results = self._run_all(Assignment(work, tasks, specs, work.check, work.describe), size)
        self._lap("execute")
        found = np.split(np.arange(len(tasks)), len(self._adjoint))
        return {
            number: np.array([results[place][0] for place in places])
            for number, places in zip(self._adjoint, found, strict=True)
        }

    def _run_slices(self, work: SliceWork, tasks: Sequence[int]) -> Sequence[Arrays]:
        """Run slices on the pool."""
        specs = [TaskSpec(f"{work.key} {task}", work.seconds) for task in tasks]
        assignment = Assignment(work, tasks, specs, work.check, work.describe)
        return self._run_all(assignment, 8 * work.elements)

    def _run_all(self, assignment: Assignment, size: int) -> Sequence[Arrays]:
        """Run tasks on the pool, or here where they, of such a size, would not fit side by side."""
        pool, conditions, tasks = self.pipeline.pool, self.conditions, assignment.tasks
        if self.pipeline.memory.is_exceeded(size * pool.workers):
            return [assignment.work.run(task) for task in tasks]
        results: dict[int, Arrays] = {}
        tally = run_tasks(
            pool,
            assignment,
            lambda number, arrays, _: results.update({number: arrays}),
            Conditions(
                Policy(retry=conditions.policy.retry), stop=conditions.stop, clock=conditions.clock
            ),
        )
        self.spent.tally.add(tally)
        return [results[number] for number in range(len(tasks))]

    def _lap(self, stage: str) -> None:
        now = self.conditions.clock()
        self.times[stage] += now - self._mark
        self._mark = now

    def record(self, estimate: Estimate) -> QueryRecord:
        """The record of the batch as it stands."""
        pipeline, plan, times, spent = self.pipeline, self.plan, self.times, self.spent
        fewest, most = estimate.shots.fewest, estimate.shots.most
        accuracy = self.request.accuracy
        fixed = accuracy.shots is not None or accuracy.budget is not None
        return QueryRecord(
            run_id=pipeline.run_id,
            query_id=self.query_id,
            started_at=self.started_at,
            pipeline="contracted",
            quantity="value" if estimate.gradients is None else "gradient",
            circuit=self.prepared.circuit_info,
            num_queries=len(self.request.batch.observable),
            partition_label=plan.label,
            num_cuts=plan.num_cuts,
            num_fragments=plan.num_fragments,
            max_fragment_qubits=self.prepared.max_qubits,
            num_terms=plan.num_terms,
            num_subexperiments=spent.subexperiments,
            num_circuits=self.prepared.num_circuits * len(pipeline.levels),
            shots=most if 0 < fewest == most else None,
            shots_total=spent.shots,
            setting_basis=pipeline.basis,
            backend=pipeline.backend.name,
            pool=pipeline.pool.name,
            subexp_workers=pipeline.pool.workers,
            policy=self.call.conditions.policy.name,
            straggler=self._straggler_info(),
            t_partition=times["partition"],
            t_generate=times["generate"],
            t_execute=times["execute"],
            t_reconstruct=times["reconstruct"],
            t_overlapped=spent.overlapped,
            t_total=math.fsum(times.values()),
            plan_cached=self.plan_cached,
            retries=spent.tally.retries,
            speculated=spent.tally.speculated,
            missing=spent.missing,
            value=Summary.of(estimate.values),
            stderr=Summary.of(estimate.whole_stderrs),
            stderr_first_order=estimate.first_order,
            precision=None if fixed else accuracy.precision / self.level.error,
            design=self._design_info(),
            mitigation=self._mitigation_info(estimate),
            seed=pipeline.seed,
        )

    def add(self, others: Sequence[_Session], pilots: Sequence[_Session]) -> None:
        """Count what other noise factors took in the record, and pilots of all of them."""
        self._all += others
        self._pilot_shots += sum(own.spent.shots for own in pilots)
        for other in (*others, *pilots):
            self.spent.add(other.spent)
            for stage, seconds in other.times.items():
                self.times[stage] += seconds

    @property
    def uses(self) -> Uses:
        """What each device did, all noise factors and pilots together."""
        found, backend = Uses(), self.backend
        found.add([self.spent.uses])
        names = backend.names if isinstance(backend, PlacingBackend) else (backend.name,)
        for place, shots in self.call.kept.shots.items():
            found.of(names[place]).calibration_shots += shots
        for session in self._all:
            for readout in session._known.values():
                name = readout.device if len(names) > 1 else names[0]
                found.of(name).calibrated_before(readout.calibrated_at)
        return found

    def _mitigation_info(self, estimate: Estimate) -> MitigationInfo | None:
        own = self.pipeline.mitigation
        if own is None:
            return None
        extrapolator = own.zne.extrapolator if isinstance(own.zne, Zne) else None
        readout = float(estimate.readout_stderrs.max(initial=0.0)) if own.readout else None
        known = [readout.calibrated_at for s in self._all for readout in s._known.values()]
        times = [at for at in known if at is not None]
        return MitigationInfo(
            own.readout, own.copies, own.factors, extrapolator, readout, min(times, default=None)
        )

    def _design_info(self) -> DesignInfo | None:
        if self._planned is None:
            return None
        accuracy, drawn = self.request.accuracy, tuple(self._slot_draws) or None
        plans = [(own.level, own._planned) for own in self._all if own._planned is not None]
        shots = np.sum([planned.fragment_shots for _, planned in plans], axis=0).tolist()
        stderr = max(planned.stderr / level.error for level, planned in plans)
        pilots = sum(own._pilot_shots for own in self._all)
        norm = None if accuracy.norm == "max" else accuracy.norm
        return DesignInfo(accuracy.allocation, pilots, tuple(shots), stderr, drawn, norm)

    def _straggler_info(self) -> StragglerInfo:
        own, tally = self.conditions.stragglers, self.spent.tally
        if own is None:
            return StragglerInfo()
        slow = (None, None) if own.slow is None else (own.slow.worker, own.slow.delay)
        injected = tally.injected, tally.injected_seconds
        return StragglerInfo(own.p, own.delay.mean, *injected, own.name, *slow)
