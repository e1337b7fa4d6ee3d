"""Which task when: small final classes, which propose; the dispatcher decides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from ..checks import check_kind, check_whole, described, is_number
from ..errors import InputError
from ..views import changed

MOST_SECONDS = 1e9
"""Longest time that may be asked for, 30 years: sums of such times are finite, and exact enough."""
MOST_BUDGET = 1e6
"""Largest budget for speculation, as a fraction of the number of tasks."""


def check_number(
    name: str, value: Any, expected: str, within: Callable[[float], bool] = lambda _: True
) -> None:
    """Raises `InputError` unless a value is a finite number, within bounds that `expected` says."""
    if not (is_number(value) and abs(value) <= sys.float_info.max and within(value)):
        raise InputError(f"`{name}` is {described(value)}: give {expected}")


def check_seconds(name: str, value: Any, *, positive: bool = False) -> None:
    """Raises `InputError` unless a value is a time from 0 to `MOST_SECONDS`."""
    expected = "a positive number of seconds" if positive else "seconds of at least 0"
    check_number(
        name,
        value,
        f"{expected} and at most {MOST_SECONDS:g}",
        lambda s: 0 <= s <= MOST_SECONDS and not (positive and s == 0),
    )


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a policy may know of a task.

    Attributes:
        key: Its identity.
        seconds: Expected service time; need only be right relative to other tasks'.
        group: What it belongs to (the fragment's number, which follows the partition's labels).
            Service times are learnt per group.
        influence: How much the result depends on it, compared with other tasks.
        subexperiments: How many it holds.
        chunk: Which part of their shots it has: first parts of all go before second ones.
    """

    key: str
    seconds: float
    group: int = 0
    influence: float = 0.0
    subexperiments: int = 1
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Eager:
    """All tasks at once, to a work-conserving pool: the paper's baseline."""


@dataclass(frozen=True, slots=True)
class Batches:
    """`size` tasks at a time, `delay` seconds from batch to batch (Alg. 2 of the paper)."""

    size: int
    delay: float = 0.0

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        check_seconds("delay", self.delay)


@dataclass(frozen=True, slots=True)
class Fifo:
    """In the order in which they were generated."""

    def rank(self, task: TaskSpec) -> float:
        """Tasks of lower rank go first."""
        return 0.0


@dataclass(frozen=True, slots=True)
class ByLabel:
    """Grouped by fragment, and so by partition label."""

    def rank(self, task: TaskSpec) -> float:
        """Tasks of lower rank go first."""
        return task.group


@dataclass(frozen=True, slots=True)
class LongestFirst:
    """The longest expected service time first (Graham's LPT rule), so that none is left over."""

    def rank(self, task: TaskSpec) -> float:
        """Tasks of lower rank go first."""
        return -task.seconds


@dataclass(frozen=True, slots=True)
class LargestInfluenceFirst:
    """What the result depends on most first, so that a deadline costs the least precision.

    By the share in the variances where pilots were run for a precision, else by the magnitudes of
    the weights of the terms that are measured.
    """

    def rank(self, task: TaskSpec) -> float:
        """Tasks of lower rank go first."""
        return -task.influence


@dataclass(frozen=True, slots=True)
class Speculation:
    """Run late tasks a second time; the first result wins, and results are never pooled.

    A job is late once it runs longer than `factor` times the `quantile` of what jobs took so far,
    relative to what was expected of them. Where a worker is idle, a late job is duplicated and
    both go on. Where none is, a second copy would only take another task's place: then, with
    `restart`, the late job is withdrawn and started again; without, it is left alone.

    Attributes:
        quantile: Of relative service times, in (0, 1).
        factor: Of at least 1.
        budget: Most duplicates and restarts, as a fraction of the number of tasks; up to 10⁶.
        restart: Whether late jobs are started again while no worker is idle.
    """

    quantile: float = 0.75
    factor: float = 1.5
    budget: float = 0.25
    restart: bool = False

    def __post_init__(self) -> None:
        check_number("quantile", self.quantile, "a number between 0 and 1", lambda q: 0 < q < 1)
        check_number("factor", self.factor, "a number of at least 1", lambda f: f >= 1)
        expected = f"a fraction of at least 0 and at most {MOST_BUDGET:g}"
        check_number("budget", self.budget, expected, lambda b: 0 <= b <= MOST_BUDGET)
        check_kind("restart", self.restart, bool, "True or False")


@dataclass(frozen=True, slots=True)
class Deadline:
    """End after `seconds` with the shots that have arrived by then.

    Attributes:
        seconds: From the beginning of a `run` call, planning and pilots included; one deadline for
            all its circuits.
        chunks: Tasks that the shots of a subexperiment are divided into.
    """

    seconds: float
    chunks: int = 4

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds, positive=True)
        check_whole("chunks", self.chunks, 1)


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens to tasks that fail, or whose worker is lost.

    Attributes:
        attempts: After so many failures a task is given up, and named in the run's error.
        backoff: Seconds before the second attempt; doubles with each one, up to 5 s.
        timeout: Seconds after which a running job counts as lost; None: 20 times what such a job
            took so far, at least a minute, and an hour as long as none has ended; 30 days where
            jobs wait for a service.
    """

    attempts: int = 3
    backoff: float = 0.05
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, 1)
        check_seconds("backoff", self.backoff)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout, positive=True)


TaskOrder: TypeAlias = Fifo | ByLabel | LongestFirst | LargestInfluenceFirst


@dataclass(frozen=True, slots=True)
class Policy:
    """How the dispatcher hands out the tasks of a run.

    Attributes:
        dispatch: All at once, or in batches.
        order: Which first.
        in_flight: Most jobs at a time; None: as many as there are workers.
        speculation: When late jobs are run twice; None: never.
        deadline: When to end with what there is; None: never.
        retry: What happens to failures.
        subexperiments: Most subexperiments in a task, 1 being the paper's protocol; None: as many
            as suit the backend. Part of what decides the random numbers, as it divides tasks.

    Example:
        >>> Policy(Batches(8, delay=0.1), LongestFirst(), deadline=Deadline(60)).name
        'batches(size=8, delay=0.1), longest_first, deadline(seconds=60, chunks=4)'
    """

    dispatch: Eager | Batches = Eager()
    order: TaskOrder = Fifo()
    in_flight: int | None = None
    speculation: Speculation | None = None
    deadline: Deadline | None = None
    retry: Retry = Retry()
    subexperiments: int | None = None

    __repr__ = changed

    def __post_init__(self) -> None:
        check_kind("dispatch", self.dispatch, Eager | Batches, "Eager() or Batches(size)")
        check_kind("order", self.order, TaskOrder, "Fifo(), LongestFirst() or the like")
        check_kind("speculation", self.speculation, Speculation | None, "Speculation(), or None")
        check_kind("deadline", self.deadline, Deadline | None, "Deadline(seconds), or None")
        check_kind("retry", self.retry, Retry, "Retry()")
        if self.in_flight is not None:
            check_whole("in_flight", self.in_flight, 1)
        if self.subexperiments is not None:
            check_whole("subexperiments", self.subexperiments, 1)

    @property
    def name(self) -> str:
        """Every part that is not the default, with its parameters; "eager" where all are."""
        parts = [named_parameters(self.dispatch)]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is not None and value != field.default:
                plain = isinstance(value, int)
                parts.append(f"{field.name}={value}" if plain else named_parameters(value))
        return ", ".join(parts)


def named_parameters(part: Any) -> str:
    """A part's name and parameters, such as `batches(size=8, delay=0.1)`."""
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(part).__name__).lstrip("_")
    values = ", ".join(f"{f.name}={getattr(part, f.name)}" for f in fields(part))
    return f"{name}({values})" if values else name
