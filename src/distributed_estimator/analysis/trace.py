"""Tasks on a time axis, and task and device records as a trace for chrome://tracing and Perfetto.

A trace is in the Trace Event Format: a run is a process, its workers are threads, an attempt at a
task is a slice, and an injected delay a slice within it. A simulated fleet is a process of its own.
Times here are whole nanoseconds.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from ..errors import RecordError
from ..records import DeviceRecord, QueryRecord, TaskRecord, atomic, given_path, plain, read_records
from ..records.files import refused
from .escape import natural
from .load import time_of

Event = dict[str, Any]
SliceT = TypeVar("SliceT")

# Names from the format's own palette: chrome://tracing refuses others, Perfetto has its own.
_COLOURS = {
    "done": "good",
    "late": "grey",
    "failed": "terrible",
    "damaged": "bad",
    "lost": "black",
    "cancelled": "white",
    "throttled": "yellow",
}
_PLACED = {
    "task": ("schema_version", "run_id", "worker", "started", "finished"),
    "device": ("schema_version", "device"),
}
"""Fields of records that are shown by the place of a slice, or not at all."""
_QUERIES, _SUBMISSIONS, _FIRST_WORKER = 1, 2, 3
"""Threads of a run's process."""
_QUERY_FIELDS = (
    *("num_queries", "partition_label", "num_fragments", "shots_total", "policy", "pool"),
    *("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_overlapped", "t_total"),
)
_QUERY_TOLERANCE = 2_000_000
"""Query records tell when they began to the millisecond."""
_SLICE_TOLERANCE = 1_000_000
"""A worker's end and its next begin are read on two clocks, the driver's and its own."""


# Placement


@dataclass(frozen=True)
class PlacedQuery:
    """A query with the attempts at its tasks, whose clock is 0 at its begin."""

    query_id: str
    record: QueryRecord | None
    tasks: tuple[TaskRecord, ...]
    begin: int
    end: int


def nanoseconds(seconds: float, what: str) -> int:
    """Seconds of a record as whole nanoseconds; `RecordError` where there is no number."""
    scaled = seconds * 1_000_000_000
    if not math.isfinite(scaled):
        raise RecordError(f"{what} has the time {seconds}: a trace needs finite seconds")
    return round(scaled)


def lanes(
    slices: Iterable[tuple[int, int, SliceT]],
    tolerance: int = _SLICE_TOLERANCE,
    *,
    rigid: bool = False,
) -> list[list[tuple[int, int, SliceT]]]:
    """Slices (begin, end, what) on as few lanes as there are slices at a time.

    A slice that begins up to the tolerance before the one in front of it ends begins at that end;
    a rigid one keeps its length then.
    """
    found: list[list[tuple[int, int, SliceT]]] = []
    for begin, end, what in sorted(slices, key=lambda item: item[:2]):
        lane = next((lane for lane in found if lane[-1][1] <= begin + tolerance), [])
        if not lane:
            found.append(lane)
        start = max(begin, lane[-1][1]) if lane else begin
        lane.append((start, max(start, end + (start - begin) * rigid), what))
    return found


def place_queries(
    tasks: Iterable[TaskRecord], queries: Iterable[QueryRecord]
) -> dict[str, list[list[PlacedQuery]]]:
    """Queries that follow one another, by run; in several rows where they overlapped in time.

    Queries with a record begin when it says, counted from the first of them all. Queries without
    one follow one another, behind those.

    Raises:
        RecordError: A record holds a time that is none.
    """
    records = {(record.run_id, record.query_id): record for record in queries}
    groups: dict[tuple[str, str], list[TaskRecord]] = {}
    for task in tasks:
        groups.setdefault((task.run_id, task.query_id), []).append(task)
    begins = {key: _started(records[key]) for key in groups if key in records}
    origin = min(begins.values(), default=0)
    dated: dict[str, list[tuple[int, int, PlacedQuery]]] = {run_id: [] for run_id, _ in groups}
    undated: dict[str, list[PlacedQuery]] = {run_id: [] for run_id in dated}
    for (run_id, query_id), members in groups.items():
        record, what = records.get((run_id, query_id)), f"query {query_id}"
        times = [*(task.finished for task in members), *([record.t_total] if record else [])]
        length = max(nanoseconds(seconds, what) for seconds in times)
        begin = begins[run_id, query_id] - origin if record else 0
        query = PlacedQuery(query_id, record, tuple(members), begin, begin + length)
        if record is None:
            undated[run_id].append(query)
        else:
            dated[run_id].append((begin, begin + length, query))
    found = {}
    for run_id, slices in dated.items():
        rows = [
            [replace(query, begin=begin, end=end) for begin, end, query in row]
            for row in lanes(slices, _QUERY_TOLERANCE, rigid=True) or [[]]
        ]
        end = max((row[-1].end for row in rows if row), default=0)
        for query in undated[run_id]:
            rows[0].append(replace(query, begin=end, end=end + query.end))
            end += query.end
        found[run_id] = rows
    return found


def _started(record: QueryRecord) -> int:
    moment = time_of(record.started_at)
    if moment is None:
        raise RecordError(
            f"query {record.query_id} has `started_at` {record.started_at!r}: a trace needs a time "
            "in ISO 8601"
        )
    return nanoseconds(moment.timestamp(), f"query {record.query_id}")


def by_time(tasks: Sequence[TaskRecord], queries: Sequence[QueryRecord]) -> list[PlacedQuery]:
    """Traced queries, the fastest first; the median is that in the middle."""
    rows = [row for found in place_queries(tasks, queries).values() for row in found]
    placed = [query for row in rows for query in row]
    return sorted(placed, key=lambda query: query.end - query.begin)


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


# Traces


def chrome_trace(
    tasks: Iterable[TaskRecord],
    devices: Iterable[DeviceRecord] = (),
    queries: Iterable[QueryRecord] = (),
) -> dict[str, Any]:
    """A trace in the Trace Event Format, as a JSON document.

    Each run is a process with a thread per worker, a thread of its queries and one of its
    submissions, and counts of tasks that wait and run. Where queries of a run overlapped in time,
    it has several processes. Devices are threads of one more process, on a clock of their own.
    Queries begin when their records say (to the millisecond); those without one follow one another.

    Raises:
        RecordError: A record holds a time that is no number.

    Example:
        >>> chrome_trace([])
        {'displayTimeUnit': 'ms', 'traceEvents': []}
    """
    return {"displayTimeUnit": "ms", "traceEvents": list(_events(tasks, devices, queries))}


def write_chrome_trace(
    path: str | os.PathLike[str],
    tasks: Iterable[TaskRecord],
    devices: Iterable[DeviceRecord] = (),
    queries: Iterable[QueryRecord] = (),
) -> None:
    """Writes `chrome_trace` to a file, an event a line; the file is there whole or not at all.

    Its folder is made if need be.

    Raises:
        RecordError: As for `chrome_trace`, or the file cannot be written.
    """
    path = given_path(path)
    with refused("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic(path, durable=False) as unfinished,
            unfinished.open("w", encoding="ascii") as file,
        ):
            file.write('{"displayTimeUnit": "ms", "traceEvents": [')
            for number, event in enumerate(_events(tasks, devices, queries)):
                file.write((",\n" if number else "\n") + json.dumps(event, allow_nan=False))
            file.write("\n]}\n")


def trace_files(path: str | os.PathLike[str], *logs: str | os.PathLike[str]) -> None:
    """Writes the trace of all task, device and query records in some files to `path`.

    A log that is not there holds none: it is made with its first record.

    Raises:
        RecordError: As for `write_chrome_trace`, or a file cannot be read.
    """
    records = list(read_records(*(log for log in logs if given_path(log).exists())))
    write_chrome_trace(
        path,
        [record for record in records if isinstance(record, TaskRecord)],
        [record for record in records if isinstance(record, DeviceRecord)],
        [record for record in records if isinstance(record, QueryRecord)],
    )


class _Attempt(NamedTuple):
    """A slice of a worker or a device, which may never have begun; `fields` of its event."""

    thread: str
    submitted: int
    begun: int | None
    ended: int
    fields: Event


def _events(
    tasks: Iterable[TaskRecord], devices: Iterable[DeviceRecord], queries: Iterable[QueryRecord]
) -> Iterator[Event]:
    pid = 0
    for run_id, rows in place_queries(tasks, queries).items():
        for name, row in zip(_numbered(f"run {run_id}", len(rows)), rows, strict=True):
            pid += 1
            yield from _named(pid, name)
            yield from _run_events(pid, row)
    jobs = [_attempt(job) for job in devices]
    if jobs:
        yield from _named(pid + 1, "devices")
        yield from _attempt_events(pid + 1, jobs, 1, "jobs")


def _run_events(pid: int, queries: Sequence[PlacedQuery]) -> Iterator[Event]:
    yield from _named(pid, "queries", _QUERIES)
    yield from _named(pid, "submissions", _SUBMISSIONS)
    attempts: list[_Attempt] = []
    for query in queries:
        args = {name: getattr(query.record, name) for name in _QUERY_FIELDS if query.record}
        args = plain({"tasks": len(query.tasks), **args})
        fields = {"name": f"query {query.query_id}", "cat": "query", "args": args}
        yield _slice(pid, _QUERIES, query.begin, query.end, fields)
        own = [_attempt(task, query.begin) for task in query.tasks]
        jobs = Counter(
            (attempt.submitted, task.job, task.purpose)
            for attempt, task in zip(own, query.tasks, strict=True)
        )
        for (moment, job, purpose), count in sorted(jobs.items()):
            args = {"job": job, "purpose": purpose, "tasks": count}
            yield _submission(pid, f"submit ({purpose})", moment, args)
        for attempt in own:
            if attempt.begun is None:
                args = attempt.fields["args"]
                yield _submission(pid, f"{args['status']} before it began", attempt.ended, args)
        attempts += own
    yield from _attempt_events(pid, attempts, _FIRST_WORKER, "tasks")


def _attempt(record: TaskRecord | DeviceRecord, origin: int = 0) -> _Attempt:
    """A task on the clock of its query, which began at `origin`, or a job of a device."""
    if isinstance(record, TaskRecord):
        name, thread, waits = (
            f"fragment {record.fragment}",
            f"worker {record.worker}",
            record.submitted,
        )
        what = f"task {record.key} of query {record.query_id}"
    else:
        name, thread, waits = f"job {record.job}", record.device, record.queued
        what = f"{name} of device {thread}"
    submitted, finished = (origin + nanoseconds(at, what) for at in (waits, record.finished))
    begun = None if record.started is None else origin + nanoseconds(record.started, what)
    ended = finished if begun is None else max(begun, finished)
    names = [n for n in record.__dataclass_fields__ if n not in _PLACED[record.kind]]
    args = {n: getattr(record, n) for n in names}
    colour = {"cname": _COLOURS[record.status]} if record.status in _COLOURS else {}
    fields = {"name": name, "cat": record.kind, **colour, "args": plain(args)}
    return _Attempt(thread, submitted, begun, ended, fields)


def _attempt_events(
    pid: int, attempts: Sequence[_Attempt], first: int, what: str
) -> Iterator[Event]:
    """Slices, on a thread for each worker (several where they overlap), and counts of `what`."""
    by_thread: dict[str, list[tuple[int, int, Event]]] = {}
    changes: Counter[tuple[int, str]] = Counter()
    for thread, submitted, begun, ended, fields in attempts:
        changes[submitted, "waiting"] += 1
        changes[ended if begun is None else begun, "waiting"] -= 1
        if begun is not None:
            changes[begun, "running"] += 1
            changes[ended, "running"] -= 1
            by_thread.setdefault(thread, []).append((begun, ended, fields))
    tid = first
    for thread in sorted(by_thread, key=natural):
        rows = lanes(by_thread[thread])
        for name, row in zip(_numbered(thread, len(rows)), rows, strict=True):
            yield from _named(pid, name, tid)
            for begin, end, fields in row:
                yield _slice(pid, tid, begin, end, fields)
                delay = fields["args"].get("injected_delay") or 0.0
                if delay > 0:
                    until = min(end, begin + nanoseconds(delay, "an injected delay"))
                    slept = {"name": "injected delay", "cat": "injected"}
                    yield _slice(pid, tid, begin, until, {**slept, "args": {"seconds": delay}})
            tid += 1
    levels = {"waiting": 0, "running": 0}
    for moment in sorted({moment for moment, _ in changes}):
        for kind in levels:
            levels[kind] += changes[moment, kind]
        yield {"ph": "C", "name": what, "pid": pid, "ts": moment / 1000, "args": dict(levels)}


def _slice(pid: int, tid: int, begin: int, end: int, fields: Mapping[str, Any]) -> Event:
    """A slice; the format's times are microseconds."""
    times = {"ts": begin / 1000, "dur": (end - begin) / 1000}
    return {**fields, "ph": "X", "pid": pid, "tid": tid, **times}


def _submission(pid: int, name: str, moment: int, args: Event) -> Event:
    place = {"pid": pid, "tid": _SUBMISSIONS, "ts": moment / 1000}
    return {"ph": "i", "s": "t", "name": name, "cat": "submission", **place, "args": args}


def _numbered(name: str, count: int) -> list[str]:
    return [name, *(f"{name} ({number})" for number in range(2, count + 1))]


def _named(pid: int, name: str, tid: int | None = None) -> Iterator[Event]:
    """The name of a process or a thread, and its place among its like: that of its number."""
    kind = "process" if tid is None else "thread"
    place: Event = {"ph": "M", "pid": pid, **({} if tid is None else {"tid": tid})}
    yield {**place, "name": f"{kind}_name", "args": {"name": name}}
    yield {**place, "name": f"{kind}_sort_index", "args": {"sort_index": tid or pid}}
