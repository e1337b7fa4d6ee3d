"""Tasks of many queries on one time axis. All times here are whole nanoseconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from ..errors import RecordError
from ..records import QueryRecord, TaskRecord

SliceT = TypeVar("SliceT")

_SECOND = 1_000_000_000
_QUERY_TOLERANCE = 2_000_000
"""Query records tell when they began to the millisecond."""
_SLICE_TOLERANCE = 1_000_000
"""A worker's end and its next begin are read on two clocks, the driver's and its own."""


@dataclass(frozen=True)
class PlacedQuery:
    """A query with its tasks.

    Attributes:
        query_id: Of its records.
        record: Its query record, if there is one.
        tasks: Attempts at its tasks.
        begin: When it began, which is 0 on the clock of its tasks; `end` when it ended.
    """

    query_id: str
    record: QueryRecord | None
    tasks: tuple[TaskRecord, ...]
    begin: int
    end: int

    def moved(self, by: int) -> PlacedQuery:
        """The same query later."""
        return replace(self, begin=self.begin + by, end=self.end + by)


@dataclass
class Track:
    """Queries of one run that follow one another.

    Attributes:
        run_id: The run.
        number: Of the tracks of this run, from 0; there are several where queries overlapped.
        queries: In order of time.
    """

    run_id: str
    number: int
    queries: list[PlacedQuery] = field(default_factory=list)

    @property
    def end(self) -> int:
        """When its last query ended."""
        return self.queries[-1].end if self.queries else 0


@dataclass
class Lane(Generic[SliceT]):
    """Slices that do not overlap.

    Attributes:
        number: From 0.
        slices: (begin, end, what).
    """

    number: int
    slices: list[tuple[int, int, SliceT]] = field(default_factory=list)

    @property
    def end(self) -> int | None:
        """When its last slice ended."""
        return self.slices[-1][1] if self.slices else None


def nanoseconds(seconds: float, what: str) -> int:
    """Seconds of a record as whole nanoseconds.

    Raises:
        RecordError: There is no number.
    """
    scaled = seconds * _SECOND
    if not math.isfinite(scaled):
        raise RecordError(f"{what} has the time {seconds}: a trace needs finite seconds")
    return round(scaled)


def place_queries(tasks: Iterable[TaskRecord], queries: Iterable[QueryRecord]) -> list[Track]:
    """Sorts tasks by query, and queries by run and time.

    Queries with a record begin when it says, counted from the first of them all; if two overlap,
    they are on different tracks. Queries without one follow one another, behind those.

    Raises:
        RecordError: A record holds a time that is none.
    """
    records = {(record.run_id, record.query_id): record for record in queries}
    groups: dict[tuple[str, str], list[TaskRecord]] = {}
    for task in tasks:
        groups.setdefault((task.run_id, task.query_id), []).append(task)
    origin = min((_started(records[key]) for key in groups if key in records), default=0)
    runs: dict[str, tuple[list[PlacedQuery], list[PlacedQuery]]] = {}
    for key, members in groups.items():
        dated, undated = runs.setdefault(key[0], ([], []))
        record = records.get(key)
        (undated if record is None else dated).append(_placed(key[1], record, members, origin))
    return [track for run, parts in runs.items() for track in _tracks(run, *parts)]


def lanes(slices: Iterable[tuple[int, int, SliceT]]) -> list[Lane[SliceT]]:
    """Slices on as few lanes as there are slices at a time.

    A slice that begins up to a millisecond before the one in front of it ends begins at that end.
    """
    found: list[Lane[SliceT]] = []
    for begin, end, what in sorted(slices, key=lambda item: item[:2]):
        lane = next((lane for lane in found if (lane.end or 0) <= begin + _SLICE_TOLERANCE), None)
        if lane is None:
            lane = Lane(len(found))
            found.append(lane)
        begin = begin if lane.end is None else max(begin, lane.end)
        lane.slices.append((begin, max(begin, end), what))
    return found


def _started(record: QueryRecord) -> int:
    try:
        moment = datetime.fromisoformat(record.started_at)
    except ValueError as error:
        raise RecordError(
            f"query {record.query_id} has `started_at` {record.started_at!r}: a trace needs a time "
            "in ISO 8601"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return nanoseconds(moment.timestamp(), f"query {record.query_id}")


def _placed(
    query_id: str, record: QueryRecord | None, tasks: Sequence[TaskRecord], origin: int
) -> PlacedQuery:
    what = f"query {query_id}"
    begin = 0 if record is None else _started(record) - origin
    length = max(nanoseconds(task.finished, what) for task in tasks)
    if record is not None:
        length = max(length, nanoseconds(record.t_total, what))
    return PlacedQuery(query_id, record, tuple(tasks), begin, begin + length)


def _tracks(run_id: str, dated: list[PlacedQuery], undated: list[PlacedQuery]) -> list[Track]:
    tracks = [Track(run_id, 0)]
    for query in sorted(dated, key=lambda query: query.begin):
        limit = query.begin + _QUERY_TOLERANCE
        track = next((track for track in tracks if track.end <= limit), None)
        if track is None:
            track = Track(run_id, len(tracks))
            tracks.append(track)
        track.queries.append(query.moved(max(0, track.end - query.begin)))
    end = max(track.end for track in tracks)
    for query in undated:
        tracks[0].queries.append(query.moved(end))
        end = tracks[0].end
    return tracks


def by_time(tasks: Sequence[TaskRecord], queries: Sequence[QueryRecord]) -> list[PlacedQuery]:
    """Traced queries, the fastest first."""
    placed = [query for track in place_queries(tasks, queries) for query in track.queries]
    return sorted(placed, key=lambda query: query.end - query.begin)


def median_query(tasks: Sequence[TaskRecord], queries: Sequence[QueryRecord]) -> PlacedQuery | None:
    """The traced query whose time is the median; None: none was traced."""
    placed = by_time(tasks, queries)
    return placed[(len(placed) - 1) // 2] if placed else None


def timeline_numbers(query: PlacedQuery) -> dict[str, Any]:
    """What a timeline shows, in numbers."""
    begun = [task for task in query.tasks if task.started is not None]
    workers = len({task.worker for task in begun})
    length = (query.end - query.begin) / 1e9
    busy = sum(max(0.0, task.finished - (task.started or 0.0)) for task in begun)
    return {
        "tasks": len(query.tasks),
        "workers": workers,
        "ms": 1e3 * length,
        "busy_share": busy / (workers * length) if workers and length > 0 else None,
        "delay_s": sum(task.injected_delay for task in begun),
    }
