"""Runs that may be compared: pairs that differ in one thing, series, and the spread of a bar."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, TypeVar

from scipy.special import stdtrit

from ..accuracy import CONFIDENCE
from ..trace import natural
from .runs import Run

ItemT = TypeVar("ItemT")
KeyT = TypeVar("KeyT", bound=Hashable)

SERIES = {"contracted": "ours", "reference": "the paper's pipeline"}
"""What each pipeline is called in tables and figures."""
CUTS = ("cuts", "label")
STRAGGLERS = ("straggler_p", "straggler_delay")
EXECUTION = ("pool", "policy", "policy_options", "backend", "workers", "queries", "trace")
"""What no number of circuits or shots depends on."""
_OF_A_BAR = ("dataset", "cuts", "seed", "trace", "queries")
_FOLLOWS = {
    "label": ("cuts", "qubits"),
    "policy_options": ("policy",),
    "workers": ("devices",),
}
"""Keys that say nothing where these others are said."""
_EQUAL = 1e-9
"""Numbers that differ by less, relatively, are the same but for their rounding."""
_UNITS = {"workers": "worker", "devices": "device", "qubits": "qubit"}


@dataclass(frozen=True)
class Pair:
    """Two runs that differ in what is compared and in nothing else."""

    base: Run
    other: Run

    def ratio(self) -> float | None:
        """Time of the other over time of the base; None where there is none."""
        base, other = self.base.seconds, self.other.seconds
        return other / base if base is not None and other is not None and base > 0 else None


@dataclass(frozen=True)
class Unmatched:
    """A run that no ratio was made with.

    Attributes:
        run_id: The run.
        why: What is missing.
    """

    run_id: str
    why: str


@dataclass(frozen=True)
class Spread:
    """Numbers of a bar.

    Attributes:
        value: Their median, or their mean.
        low: Lower end of the spread.
        high: Its upper end.
        n: How many there are.
        spread: What `low` and `high` are: "min–max" or "95 % interval"; or why they are none:
            "none (n = 1)", "no spread: all 3 equal".
    """

    value: float
    low: float
    high: float
    n: int
    spread: str


def median_range(numbers: Sequence[float]) -> Spread:
    """The median, with the least and the greatest."""
    return _range(median(numbers), numbers)


def mean_range(numbers: Sequence[float]) -> Spread:
    """The mean, with the least and the greatest."""
    return _range(fmean(numbers), numbers)


def _range(value: float, numbers: Sequence[float]) -> Spread:
    told = "min–max" if len(numbers) > 1 else "none (n = 1)"
    return Spread(value, min(numbers), max(numbers), len(numbers), told)


def mean_interval(numbers: Sequence[float]) -> Spread:
    """The mean with its 95 % interval by Student's t.

    There is none with one number; nor with equal ones, whose interval would have no width, however
    few they are.

    Example:
        >>> found = mean_interval([0.0, 0.1])
        >>> round(found.low, 3), round(found.high, 3), found.spread
        (-0.585, 0.685, '95 % interval')
    """
    n, mean = len(numbers), fmean(numbers)
    if n < 2:
        return Spread(mean, math.nan, math.nan, n, "none (n = 1)")
    if max(numbers) - min(numbers) <= _EQUAL * max(1.0, abs(mean)):
        return Spread(mean, math.nan, math.nan, n, f"no spread: all {n} equal")
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * stdev(numbers) / math.sqrt(n)
    return Spread(mean, mean - half, mean + half, n, "95 % interval")


def pairs(
    bases: Iterable[Run], others: Iterable[Run], compared: Sequence[str], what: str
) -> tuple[list[Pair], list[Unmatched]]:
    """Runs that match in all but the compared keys of their configuration.

    Args:
        bases: What is compared with.
        others: What is compared.
        compared: Keys that may differ; "pipeline" is one too.
        what: The missing partner of an unmatched run, for the reader: "at 16 workers".
    """
    by_key = {match_key(run, compared): run for run in bases}
    found: list[Pair] = []
    alone: list[Unmatched] = []
    used = set()
    for run in others:
        key = match_key(run, compared)
        if key in by_key:
            used.add(key)
            found.append(Pair(by_key[key], run))
        else:
            alone.append(Unmatched(run.run_id, f"no finished partner {what}"))
    alone += [
        Unmatched(run.run_id, f"nothing to compare {what} with it")
        for key, run in by_key.items()
        if key not in used
    ]
    return found, alone


def match_key(run: Run, compared: Sequence[str]) -> str:
    """Everything that decides a run but what is compared, as canonical JSON."""
    fields = {"experiment": run.experiment, "kind": run.kind, "pipeline": run.pipeline}
    everything = {**run.config, **fields}
    return canonical({key: value for key, value in everything.items() if key not in compared})


def series_names(runs: Sequence[Run], compared: Sequence[str] = ()) -> dict[str, str]:
    """What to call the series that each run belongs to, by run id.

    A series is a pipeline and whatever else differs between runs on one data set, besides cuts,
    seed and what is compared; so runs of one bar differ in nothing but their seeds.
    """
    keys = sorted({key for run in runs for key in run.config} - {*_OF_A_BAR, *compared})
    varying = [key for key in keys if _varies(runs, key)]
    return {
        run.run_id: ", ".join(
            [SERIES[run.pipeline], *(_told(key, run.config.get(key)) for key in varying)]
        )
        for run in runs
    }


def _varies(runs: Sequence[Run], key: str) -> bool:
    """Whether a key has two values where runs would share a bar."""
    seen: dict[str, str] = {}
    for run in runs:
        shared = [run.config.get(name) for name in ("dataset", *_FOLLOWS.get(key, ()))]
        value = canonical(run.config.get(key))
        if seen.setdefault(canonical([run.pipeline, *shared]), value) != value:
            return True
    return False


def _told(key: str, value: Any) -> str:
    if key in _UNITS:
        return f"{value} {_UNITS[key]}{'' if value == 1 else 's'}"
    if key == "policy_options" and isinstance(value, dict):
        return " ".join(f"{name}={option}" for name, option in value.items()) or "defaults"
    return str(value) if key in ("policy", "backend", "pool", "label") else f"{key} {value}"


def grouped(items: Iterable[ItemT], key: Callable[[ItemT], KeyT]) -> dict[KeyT, list[ItemT]]:
    """Items by a key, the keys sorted."""
    groups: dict[KeyT, list[ItemT]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return {name: groups[name] for name in sorted(groups, key=_order)}


def _order(value: Any) -> Any:
    """Sorts 16 workers behind 4 workers."""
    if isinstance(value, tuple):
        return tuple(_order(part) for part in value)
    return natural(value) if isinstance(value, str) else value


def told_cuts(cuts: int) -> str:
    """How many cuts, in words.

    Example:
        >>> told_cuts(0), told_cuts(1), told_cuts(2)
        ('uncut', '1 cut', '2 cuts')
    """
    return f"{cuts} cut" + "s" * (cuts > 1) if cuts else "uncut"


def told_origin(runs: Iterable[Run]) -> str:
    """Where the numbers of some runs come from, each origin once."""
    return ", ".join(sorted({run.origin for run in runs}))


def run_ids(runs: Iterable[Run]) -> tuple[str, ...]:
    """Ids of runs, sorted, each once."""
    return tuple(sorted({run.run_id for run in runs}))


def canonical(value: Any) -> str:
    """A JSON value as text that is the same for equal values."""
    return json.dumps(value, sort_keys=True)
