"""Policies and stragglers as plain values, for studies and the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..errors import InputError
from ..execution.messages import SlowWorker
from ..execution.policies import (
    MOST_BUDGET,
    MOST_SECONDS,
    Batches,
    ByLabel,
    Deadline,
    Eager,
    Fifo,
    LargestInfluenceFirst,
    LongestFirst,
    Policy,
    Retry,
    Speculation,
    TaskOrder,
)
from ..execution.pools import CLUSTERS
from ..execution.stragglers import DELAYS, LONGEST, Stragglers
from .settings import Config, Count, about

Seconds = Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=MOST_SECONDS)]
Probability = Annotated[float, Meta(ge=0, le=1)]

ORDERS: Mapping[str, TaskOrder] = {
    "fifo": Fifo(),
    "label": ByLabel(),
    "longest": LongestFirst(),
    "influence": LargestInfluenceFirst(),
}


@dataclass(frozen=True)
class SpeculationSettings(Config):
    """When late tasks are run a second time; the first result counts.

    Attributes:
        quantile: With --speculate: of service times so far, which lateness is measured by.
        factor: With --speculate: a task is late after so many times that quantile.
        budget: With --speculate: most second runs, as a fraction of all tasks.
        restart: With --speculate: begin late tasks again where no worker is idle.
    """

    quantile: Annotated[float, Meta(gt=0, lt=1)] = Speculation().quantile
    factor: Annotated[float, Meta(ge=1, le=sys.float_info.max)] = Speculation().factor
    budget: Annotated[float, Meta(ge=0, le=MOST_BUDGET)] = Speculation().budget
    restart: bool = False


@dataclass(frozen=True)
class PolicySettings(Config):
    """How tasks are handed out.

    Attributes:
        dispatch: Hand out all tasks at once, or a batch at a time.
        size: Tasks in a batch, with --policy batches.
        delay: Seconds from one batch to the next, with --policy batches. None: 0.
        order: Which tasks come first: as generated, by partition label, the longest, or those that
            the result depends on most.
        in_flight: Most jobs at a time. None: one a worker.
        speculation: When late tasks are run a second time.
        deadline: Seconds after which to end with the shots that arrived.
        attempts: Failures after which a task is given up.
        timeout: Seconds after which a running job counts as lost. None: 20 times what jobs took so
            far, at least a minute, and an hour until some have ended.
        subexperiments: Most subexperiments in a task; another number draws other shots. None: as
            suits the backend.
    """

    dispatch: Annotated[Literal["eager", "batches"], about(option="--policy")] = "eager"
    size: Annotated[Count | None, about(option="--tasks-per-batch")] = None
    delay: Annotated[Seconds | None, about(option="--batch-delay")] = None
    order: Literal["fifo", "label", "longest", "influence"] = "fifo"
    in_flight: Count | None = None
    speculation: SpeculationSettings | None = None
    deadline: PositiveSeconds | None = None
    attempts: Count = Retry().attempts
    timeout: PositiveSeconds | None = None
    subexperiments: Annotated[Count | None, about(option="--subexperiments-per-task")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dispatch == "batches" and self.size is None:
            raise InputError("`dispatch` is batches, of no size: add `size`")
        for name in ("size", "delay"):
            if self.dispatch == "eager" and getattr(self, name) is not None:
                raise InputError(
                    f"`{name}` belongs to `dispatch` batches: add that, or leave `{name}` out"
                )

    @property
    def policy(self) -> Policy:
        """The same for an estimator."""
        dispatch = Eager() if self.size is None else Batches(self.size, self.delay or 0.0)
        return Policy(
            dispatch=dispatch,
            order=ORDERS[self.order],
            in_flight=self.in_flight,
            speculation=None if self.speculation is None else Speculation(**vars(self.speculation)),
            deadline=None if self.deadline is None else Deadline(self.deadline),
            retry=Retry(self.attempts, timeout=self.timeout),
            subexperiments=self.subexperiments,
        )


@dataclass(frozen=True)
class StragglerSettings(Config):
    """Injected stragglers, for experiments.

    Attributes:
        straggler_p: Inject stragglers, for experiments: the share of subexperiments that are
            delayed.
        straggler_delay: Their delay in seconds; the least for pareto, the median for lognormal.
        straggler_distribution: How delays are distributed. None: constant.
        straggler_shape: Tail exponent of pareto, or standard deviation of the logarithm for
            lognormal.
        slow_worker: Seconds that the first worker is made to sleep before every task.
    """

    straggler_p: Probability | None = None
    straggler_delay: PositiveSeconds | None = None
    straggler_distribution: Literal["constant", "pareto", "lognormal"] | None = None
    straggler_shape: Annotated[float, Meta(gt=0, le=sys.float_info.max)] | None = None
    slow_worker: Annotated[float, Meta(ge=0, lt=LONGEST)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("straggler_delay", "straggler_distribution", "straggler_shape"):
            if self.straggler_p is None and getattr(self, name) is not None:
                raise InputError(
                    f"`{name}` belongs to `straggler_p`: add that, or leave `{name}` out"
                )
        if self.straggler_p is not None and self.straggler_delay is None:
            raise InputError("`straggler_p` needs a delay: add `straggler_delay`, in seconds")
        has_shape = self.straggler_distribution in ("pareto", "lognormal")
        if has_shape and self.straggler_shape is None:
            raise InputError(
                f"`straggler_distribution` is {self.straggler_distribution}, which needs a shape: "
                "add `straggler_shape`"
            )
        if not has_shape and self.straggler_shape is not None:
            raise InputError(
                "`straggler_shape` belongs to `straggler_distribution` pareto or lognormal: add "
                "that, or leave `straggler_shape` out"
            )

    @property
    def stragglers(self) -> Stragglers | None:
        """The same for an estimator; None: none are injected."""
        if self.straggler_p is None and self.slow_worker is None:
            return None
        worker = None if self.slow_worker is None else SlowWorker(0, self.slow_worker)
        kind = DELAYS[self.straggler_distribution or "constant"]
        shape = () if self.straggler_shape is None else (self.straggler_shape,)
        return Stragglers(
            self.straggler_p or 0.0, kind(self.straggler_delay or 0.0, *shape), worker
        )


def check_address(pool: str, address: str | None) -> None:
    """Raises `InputError` for the address of a cluster with a pool that has none."""
    if address is not None and pool not in CLUSTERS:
        raise InputError(
            f"`address` names a cluster, and `pool` is {pool}: give dask or ray, or leave "
            "`address` out"
        )
