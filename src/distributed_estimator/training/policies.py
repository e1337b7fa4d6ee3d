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
    """When late tasks are run a second time; the first result counts."""

    quantile: Annotated[
        float,
        Meta(gt=0, lt=1),
        about("With --speculate: of service times so far, which lateness is measured by."),
    ] = Speculation().quantile
    factor: Annotated[
        float,
        Meta(ge=1, le=sys.float_info.max),
        about("With --speculate: a task is late after so many times that quantile."),
    ] = Speculation().factor
    budget: Annotated[
        float,
        Meta(ge=0, le=MOST_BUDGET),
        about("With --speculate: most second runs, as a fraction of all tasks."),
    ] = Speculation().budget
    restart: Annotated[
        bool, about("With --speculate: begin late tasks again where no worker is idle.")
    ] = False


@dataclass(frozen=True)
class PolicySettings(Config):
    """How tasks are handed out; `size` and `delay` are those of batches."""

    dispatch: Annotated[
        Literal["eager", "batches"],
        about("Hand out all tasks at once, or a batch at a time.", option="--policy"),
    ] = "eager"
    size: Annotated[
        Count | None,
        about("Tasks in a batch, with --policy batches.", option="--tasks-per-batch"),
    ] = None
    delay: Annotated[
        Seconds | None,
        about(
            "Seconds from one batch to the next, with --policy batches. None: 0.",
            option="--batch-delay",
        ),
    ] = None
    order: Annotated[
        Literal["fifo", "label", "longest", "influence"],
        about(
            "Which tasks come first: as generated, by partition label, the longest, or those that "
            "the result depends on most."
        ),
    ] = "fifo"
    in_flight: Annotated[Count | None, about("Most jobs at a time. None: one a worker.")] = None
    speculation: Annotated[
        SpeculationSettings | None, about("When late tasks are run a second time.")
    ] = None
    deadline: Annotated[
        PositiveSeconds | None, about("Seconds after which to end with the shots that arrived.")
    ] = None
    attempts: Annotated[Count, about("Failures after which a task is given up.")] = Retry().attempts
    timeout: Annotated[
        PositiveSeconds | None,
        about(
            "Seconds after which a running job counts as lost. None: 20 times what jobs took so "
            "far, at least a minute, and an hour until some have ended."
        ),
    ] = None
    subexperiments: Annotated[
        Count | None,
        about(
            "Most subexperiments in a task; another number draws other shots. None: as suits the "
            "backend.",
            option="--subexperiments-per-task",
        ),
    ] = None

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
    """Injected stragglers, for experiments."""

    straggler_p: Annotated[
        Probability | None,
        about("Inject stragglers, for experiments: the share of subexperiments that are delayed."),
    ] = None
    straggler_delay: Annotated[
        PositiveSeconds | None,
        about("Their delay in seconds; the least for pareto, the median for lognormal."),
    ] = None
    straggler_distribution: Annotated[
        Literal["constant", "pareto", "lognormal"] | None,
        about("How delays are distributed. None: constant."),
    ] = None
    straggler_shape: Annotated[
        Annotated[float, Meta(gt=0, le=sys.float_info.max)] | None,
        about("Tail exponent of pareto, or standard deviation of the logarithm for lognormal."),
    ] = None
    slow_worker: Annotated[
        Annotated[float, Meta(ge=0, lt=LONGEST)] | None,
        about("Seconds that the first worker is made to sleep before every task."),
    ] = None

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
