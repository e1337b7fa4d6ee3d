"""Task and device records as a trace that chrome://tracing and Perfetto open.

In the Trace Event Format: a run is a process, its workers are threads, an attempt at a task is a
slice, and an injected delay a slice within it. A simulated fleet is a process of its own.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..errors import RecordError
from ..records import DeviceRecord, QueryRecord, TaskRecord, atomic, given_path, plain, read_records
from .escape import natural
from .placement import Track, lanes, nanoseconds, place_queries

Event = dict[str, Any]

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
_QUERIES, _SUBMISSIONS, _FIRST_WORKER = 1, 2, 3
"""Threads of a run's process."""
_QUERY_FIELDS = (
    *("num_queries", "partition_label", "num_fragments", "shots_total", "policy", "pool"),
    *("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_overlapped", "t_total"),
)


def chrome_trace(
    tasks: Iterable[TaskRecord],
    devices: Iterable[DeviceRecord] = (),
    queries: Iterable[QueryRecord] = (),
) -> dict[str, Any]:
    """A trace in the Trace Event Format, as a JSON document.

    Each run is a process with a thread per worker, a thread of its queries and one of its
    submissions, and counts of tasks that wait and run. Where queries of a run overlapped in time,
    it has several processes. Devices are threads of one more process, on a clock of their own.

    Args:
        tasks: Attempts at tasks, of any runs.
        devices: Jobs on simulated devices.
        queries: Records of the tasks' queries, which say when each began (to the millisecond).
            Queries without one are placed one after the other.

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic(path, durable=False) as unfinished,
            unfinished.open("w", encoding="ascii") as file,
        ):
            file.write('{"displayTimeUnit": "ms", "traceEvents": [')
            for number, event in enumerate(_events(tasks, devices, queries)):
                file.write((",\n" if number else "\n") + json.dumps(event, allow_nan=False))
            file.write("\n]}\n")
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


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
    """A slice of a worker or a device. Times are nanoseconds; `begun` is None where it never was.

    `fields` are those of the event but for its place and times.
    """

    thread: str
    submitted: int
    begun: int | None
    ended: int
    fields: Event


def _events(
    tasks: Iterable[TaskRecord],
    devices: Iterable[DeviceRecord],
    queries: Iterable[QueryRecord],
) -> Iterator[Event]:
    tracks = place_queries(tasks, queries)
    for pid, track in enumerate(tracks, start=1):
        yield from _track_events(pid, track)
    jobs = [_device_attempt(job) for job in devices]
    if jobs:
        yield from _named(len(tracks) + 1, "process", "devices")
        yield from _attempt_events(len(tracks) + 1, jobs, 1, "jobs")


def _track_events(pid: int, track: Track) -> Iterator[Event]:
    number = f" ({track.number + 1})" if track.number else ""
    yield from _named(pid, "process", f"run {track.run_id}{number}")
    yield from _named(pid, "thread", "queries", _QUERIES)
    yield from _named(pid, "thread", "submissions", _SUBMISSIONS)
    attempts: list[_Attempt] = []
    for query in track.queries:
        args = {name: getattr(query.record, name) for name in _QUERY_FIELDS if query.record}
        args = plain({"tasks": len(query.tasks), **args})
        fields = {"name": f"query {query.query_id}", "cat": "query", "args": args}
        yield _slice(pid, _QUERIES, query.begin, query.end, fields)
        own = [_task_attempt(task, query.begin, query.query_id) for task in query.tasks]
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


def _task_attempt(task: TaskRecord, origin: int, query_id: str) -> _Attempt:
    what = f"task {task.key} of query {query_id}"
    submitted, finished = (
        origin + nanoseconds(seconds, what) for seconds in (task.submitted, task.finished)
    )
    begun = None if task.started is None else origin + nanoseconds(task.started, what)
    left_out = {"run_id", "worker", "started", "finished", "schema_version"}
    fields = {
        "name": f"fragment {task.fragment}",
        "cat": "task",
        "cname": _COLOURS[task.status],
        "args": _without(task, left_out),
    }
    ended = finished if begun is None else max(begun, finished)
    return _Attempt(f"worker {task.worker}", submitted, begun, ended, fields)


def _device_attempt(job: DeviceRecord) -> _Attempt:
    what = f"job {job.job} of device {job.device}"
    queued, started, finished = (
        nanoseconds(seconds, what) for seconds in (job.queued, job.started, job.finished)
    )
    args = _without(job, {"device", "schema_version"})
    fields: Event = {"name": f"job {job.job}", "cat": "device", "args": args}
    if job.status in _COLOURS:
        fields["cname"] = _COLOURS[job.status]
    return _Attempt(job.device, queued, started, max(started, finished), fields)


def _without(record: TaskRecord | DeviceRecord, left_out: set[str]) -> Event:
    fields: Event = plain({k: value for k, value in vars(record).items() if k not in left_out})
    return fields


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
    for name in sorted(by_thread, key=natural):
        for lane in lanes(by_thread[name]):
            number = f" ({lane.number + 1})" if lane.number else ""
            yield from _named(pid, "thread", f"{name}{number}", tid)
            for begin, end, fields in lane.slices:
                yield _slice(pid, tid, begin, end, fields)
                delay = fields["args"].get("injected_delay") or 0.0
                if delay > 0:
                    until = min(end, begin + nanoseconds(delay, "an injected delay"))
                    names = {
                        "name": "injected delay",
                        "cat": "injected",
                        "args": {"seconds": delay},
                    }
                    yield _slice(pid, tid, begin, until, names)
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


def _named(
    pid: int, kind: Literal["process", "thread"], name: str, tid: int | None = None
) -> Iterator[Event]:
    """The name of a process or a thread, and its place among its like: that of its number."""
    place: Event = {"ph": "M", "pid": pid} if tid is None else {"ph": "M", "pid": pid, "tid": tid}
    yield {**place, "name": f"{kind}_name", "args": {"name": name}}
    yield {**place, "name": f"{kind}_sort_index", "args": {"sort_index": tid or pid}}
