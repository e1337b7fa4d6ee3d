"""Injected stragglers: which attempts are delayed, and for how long."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checks import check_kind, is_number, is_whole
from ..errors import InputError
from .messages import SlowWorker
from .policies import check_number, check_seconds, named_parameters

LONGEST = 4e6
"""Seconds that one attempt is delayed at most: more is not a time that systems can wait for."""
_MOST_SIGMA = 100


@dataclass(frozen=True, slots=True)
class Constant:
    """Every delay takes the same time, as in the paper.

    Attributes:
        seconds: The delay, at least 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    @property
    def mean(self) -> float:
        """Expected delay in seconds."""
        return self.seconds

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Delays in seconds, shape (count,)."""
        return np.full(count, float(self.seconds))


@dataclass(frozen=True, slots=True)
class Pareto:
    """A heavy tail: a delay is longer than x with probability (scale / x)^shape.

    Attributes:
        scale: The least delay in seconds.
        shape: The tail's exponent; the smaller, the heavier. The mean is infinite up to 1, the
            variance up to 2.
    """

    scale: float
    shape: float

    def __post_init__(self) -> None:
        check_seconds("scale", self.scale, positive=True)
        check_number("shape", self.shape, "a positive number", lambda shape: shape > 0)

    @property
    def mean(self) -> float:
        """Expected delay in seconds; may be infinite."""
        return self.scale * self.shape / (self.shape - 1) if self.shape > 1 else math.inf

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Delays in seconds, shape (count,)."""
        with np.errstate(over="ignore"):
            return self.scale * np.exp(rng.standard_exponential(count) / self.shape)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Delays whose logarithm is normally distributed.

    Attributes:
        median: Half of the delays are longer, in seconds.
        sigma: Standard deviation of a delay's natural logarithm, from 0 to 100.
    """

    median: float
    sigma: float

    def __post_init__(self) -> None:
        check_seconds("median", self.median, positive=True)
        expected = f"a number of at least 0 and at most {_MOST_SIGMA}"
        check_number("sigma", self.sigma, expected, lambda sigma: 0 <= sigma <= _MOST_SIGMA)

    @property
    def mean(self) -> float:
        """Expected delay in seconds."""
        with np.errstate(over="ignore"):
            return float(self.median * np.exp(np.square(self.sigma) / 2))

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Delays in seconds, shape (count,)."""
        with np.errstate(over="ignore"):
            return self.median * np.exp(self.sigma * rng.standard_normal(count))


Delay: TypeAlias = Constant | Pareto | LogNormal
DELAYS: Mapping[str, type[Delay]] = {
    "constant": Constant,
    "pareto": Pareto,
    "lognormal": LogNormal,
}
"""The distributions by their names in records and on the command line."""


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Delays every subexperiment with probability p, on its own: t' = t + 1{u < p} Δ (§III).

    A task's subexperiments run one after the other, so their delays add up. Delays follow from a
    task's key and the number of the attempt alone, whatever the pool, the order and the policy;
    another attempt draws again.

    Attributes:
        p: Probability that a subexperiment is delayed, in [0, 1].
        delay: How long.
        slow: A worker that takes longer besides, if any.

    Example:
        >>> stragglers = Stragglers(0.5, Constant(0.1))
        >>> stragglers.name
        'constant(seconds=0.1)'
        >>> stragglers.seconds("task", 0, 10) == stragglers.seconds("task", 0, 10)
        True
    """

    p: float
    delay: Delay
    slow: SlowWorker | None = None

    def __post_init__(self) -> None:
        check_number("p", self.p, "a probability, from 0 to 1", lambda p: 0 <= p <= 1)
        expected = "Constant(seconds), Pareto(scale, shape) or LogNormal(median, sigma)"
        check_kind("delay", self.delay, Delay, expected)
        expected = (
            "SlowWorker(worker, delay) with a worker's number, from 0, and seconds of at least 0 "
            f"and less than {LONGEST:.0f}"
        )
        check_kind("slow", self.slow, SlowWorker | None, expected)
        if self.slow is not None:
            worker, delay = self.slow.worker, self.slow.delay
            if not (is_whole(worker) and worker >= 0 and is_number(delay) and 0 <= delay < LONGEST):
                raise InputError(f"`slow` is {self.slow!r}: give {expected}")

    @property
    def name(self) -> str:
        """The delays' distribution with its parameters, for records."""
        return named_parameters(self.delay).replace("log_normal", "lognormal")

    def seconds(self, key: str, attempt: int, subexperiments: int) -> float:
        """How long one attempt at a task is delayed, in seconds, 0 for most; at most `LONGEST`.

        Args:
            key: The task's key; one that names the run, too, has every run draw others.
            attempt: How often the task was submitted before.
            subexperiments: How many it holds.
        """
        digest = hashlib.blake2b(f"{key}\0{attempt}".encode(), digest_size=16).digest()
        first = self._first_delayed((int.from_bytes(digest[:8], "little") + 0.5) / 2.0**64)
        if first >= subexperiments:
            return 0.0
        rng = np.random.default_rng(int.from_bytes(digest[8:], "little"))
        count = 1 + int(rng.binomial(subexperiments - 1 - int(first), self.p))
        with np.errstate(over="ignore"):
            return min(float(self.delay.draw(rng, count).sum()), LONGEST)

    def _first_delayed(self, u: float) -> float:
        """The first delayed subexperiment's number, once rounded down: geometric, at quantile u.

        Most attempts are not delayed, and need no generator of their own to find that out.
        """
        if self.p in (0, 1):
            return math.inf if self.p == 0 else 0.0
        # Not rounded, as where p is next to nothing it is infinite.
        return math.log(u) / math.log1p(-self.p)
