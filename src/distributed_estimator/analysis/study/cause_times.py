"""Times of two sets of query records against each other, as sentences tell them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ...records import QueryRecord
from .causes import shares_of
from .words import number

SAME = 0.1
"""Times that differ by less, relatively, are told as no difference."""


def times(records: Sequence[QueryRecord], name: str = "t_execute") -> list[float]:
    """Seconds of a stage, T_exec unless another is named."""
    return [getattr(record, name) for record in records]


def told_median(records: Sequence[QueryRecord], name: str = "t_execute") -> str:
    """Their median in words."""
    return number(median(times(records, name)))


def told_share(records: Sequence[QueryRecord]) -> str:
    """The median of T_rec / T_total in words."""
    return number(median(shares_of(records)))


def time_ratio(
    one: Sequence[QueryRecord], other: Sequence[QueryRecord], name: str = "t_execute"
) -> float:
    """The median of the one over that of the other; 1 where that is 0."""
    base = median(times(other, name))
    return median(times(one, name)) / base if base > 0 else 1.0


def verdict(one: Sequence[QueryRecord], other: Sequence[QueryRecord]) -> str:
    """T_exec of the first against the second; says so where it makes no difference."""
    ratio = time_ratio(one, other)
    if abs(ratio - 1) <= SAME:
        return f"{number(ratio)} times as long, which counts as no difference"
    told = f"{number(ratio)} times as long"
    return f"{told}, though the ranges overlap" if overlap(one, other) else told


def overlap(one: Sequence[QueryRecord], other: Sequence[QueryRecord]) -> bool:
    """Whether some T_exec of the one lies among those of the other."""
    mine, theirs = times(one), times(other)
    return max(min(mine), min(theirs)) <= min(max(mine), max(theirs))


def told_counts(one: Sequence[QueryRecord], other: Sequence[QueryRecord]) -> str:
    """How many queries each median is of, and where they lie."""
    return f"medians of n = {len(one)} ({_range(one)}) and n = {len(other)} ({_range(other)})"


def _range(records: Sequence[QueryRecord]) -> str:
    seconds = times(records)
    return f"{number(min(seconds))} to {number(max(seconds))} s"
