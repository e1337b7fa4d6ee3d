"""Task and device records as a trace that chrome://tracing and Perfetto open.

In the Trace Event Format: a run is a process, its workers are threads, an attempt at a task is a
slice, and what it was made to sleep a slice within it. A simulated fleet is a process of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from ..errors import RecordError
from ..records import DeviceRecord, QueryRecord, TaskRecord, atomic, given_path, plain, read_records
from .placement import PlacedQuery, Track, lanes, nanoseconds, place_queries

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
    tasks: list[TaskRecord] = []
    devices: list[DeviceRecord] = []
    queries: list[QueryRecord] = []
    for record in read_records(*(log for log in logs if given_path(log).exists())):
        if isinstance(record, TaskRecord):
            tasks.append(record)
        elif isinstance(record, DeviceRecord):
            devices.append(record)
        elif isinstance(record, QueryRecord):
            queries.append(record)
    write_chrome_trace(path, tasks, devices, queries)


def _events(
    tasks: Iterable[TaskRecord],
    devices: Iterable[DeviceRecord],
    queries: Iterable[QueryRecord],
) -> Iterator[Event]:
    tracks = place_queries(tasks, queries)
    for pid, track in enumerate(tracks, start=1):
        yield from _track_events(pid, track)
    jobs = list(devices)
    if jobs:
        yield from _device_events(len(tracks) + 1, jobs)


def _track_events(pid: int, track: Track) -> Iterator[Event]:
    name = f"run {track.run_id}" + (f" ({track.number + 1})" if track.number else "")
    yield from _named(pid, name, {_QUERIES: "queries", _SUBMISSIONS: "submissions"})
    workers: dict[str, list[tuple[int, int, Event]]] = {}
    changes: Counter[tuple[int, str]] = Counter()
    for query in track.queries:
        yield _query_slice(pid, query)
        yield from _submissions(pid, query)
        for task in query.tasks:
            submitted, begun, ended = _times(query, task)
            _count(changes, submitted, begun, ended)
            if begun is None:
                yield _withdrawn(pid, task, ended)
            else:
                entry = (begun, max(begun, ended), _task_event(task))
                workers.setdefault(f"worker {task.worker}", []).append(entry)
    yield from _lane_events(pid, workers, _FIRST_WORKER)
    yield from _counters(pid, "tasks", changes)


def _device_events(pid: int, jobs: Sequence[DeviceRecord]) -> Iterator[Event]:
    yield from _named(pid, "devices", {})
    devices: dict[str, list[tuple[int, int, Event]]] = {}
    changes: Counter[tuple[int, str]] = Counter()
    for job in jobs:
        what = f"job {job.job} of device {job.device}"
        queued, started, finished = (
            nanoseconds(seconds, what) for seconds in (job.queued, job.started, job.finished)
        )
        _count(changes, queued, started, finished)
        entry = (started, max(started, finished), _device_event(job))
        devices.setdefault(job.device, []).append(entry)
    yield from _lane_events(pid, devices, 1)
    yield from _counters(pid, "jobs", changes)


def _times(query: PlacedQuery, task: TaskRecord) -> tuple[int, int | None, int]:
    """When an attempt was submitted, began (None: never) and ended."""
    what = f"task {task.key} of query {query.query_id}"
    submitted = query.begin + nanoseconds(task.submitted, what)
    finished = query.begin + nanoseconds(task.finished, what)
    if task.started is None:
        return submitted, None, finished
    return submitted, query.begin + nanoseconds(task.started, what), finished


def _count(changes: Counter[tuple[int, str]], submitted: int, begun: int | None, end: int) -> None:
    changes[submitted, "waiting"] += 1
    changes[end if begun is None else begun, "waiting"] -= 1
    if begun is not None:
        changes[begun, "running"] += 1
        changes[max(begun, end), "running"] -= 1


def _counters(pid: int, name: str, changes: Counter[tuple[int, str]]) -> Iterator[Event]:
    levels = {"waiting": 0, "running": 0}
    for moment in sorted({moment for moment, _ in changes}):
        for kind in levels:
            levels[kind] += changes[moment, kind]
        yield {"ph": "C", "name": name, "pid": pid, "ts": _us(moment), "args": dict(levels)}


def _lane_events(
    pid: int, slices: Mapping[str, list[tuple[int, int, Event]]], first: int
) -> Iterator[Event]:
    """Slices by worker, each on a thread of its own, or on several where they overlap."""
    tid = first
    for name in sorted(slices, key=natural):
        for lane in lanes(slices[name]):
            label = name + (f" ({lane.number + 1})" if lane.number else "")
            yield from _thread(pid, tid, label)
            for begin, end, event in lane.slices:
                yield from _complete(pid, tid, begin, end, event)
            tid += 1


def _complete(pid: int, tid: int, begin: int, end: int, event: Event) -> Iterator[Event]:
    place = {"ph": "X", "pid": pid, "tid": tid, "ts": _us(begin)}
    yield {**event, **place, "dur": _us(end - begin)}
    delay = event["args"].get("injected_delay") or 0.0
    if delay > 0:
        length = min(nanoseconds(delay, "an injected delay"), end - begin)
        names = {"name": "injected delay", "cat": "injected", "args": {"seconds": delay}}
        yield {**names, **place, "dur": _us(length)}


def _task_event(task: TaskRecord) -> Event:
    left_out = ("run_id", "worker", "started", "finished", "schema_version")
    return {
        "name": f"fragment {task.fragment}",
        "cat": "task",
        "cname": _COLOURS[task.status],
        "args": _without(task, left_out),
    }


def _device_event(job: DeviceRecord) -> Event:
    event: Event = {"name": f"job {job.job}", "cat": "device"}
    if job.status in _COLOURS:
        event["cname"] = _COLOURS[job.status]
    return {**event, "args": _without(job, ("device", "schema_version"))}


def _without(record: TaskRecord | DeviceRecord, left_out: Sequence[str]) -> Event:
    fields = {name: value for name, value in vars(record).items() if name not in left_out}
    return cast(Event, plain(fields))


def _query_slice(pid: int, query: PlacedQuery) -> Event:
    names = ("num_queries", "partition_label", "num_fragments", "shots_total", "policy", "pool")
    times = ("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_overlapped", "t_total")
    args = {name: getattr(query.record, name) for name in names + times if query.record}
    return {
        "ph": "X",
        "name": f"query {query.query_id}",
        "cat": "query",
        "pid": pid,
        "tid": _QUERIES,
        "ts": _us(query.begin),
        "dur": _us(query.end - query.begin),
        "args": plain({"tasks": len(query.tasks), **args}),
    }


def _submissions(pid: int, query: PlacedQuery) -> Iterator[Event]:
    """An instant for every job; its tasks were submitted together."""
    jobs = Counter((_times(query, task)[0], task.job, task.purpose) for task in query.tasks)
    for (moment, job, purpose), count in sorted(jobs.items()):
        args = {"job": job, "purpose": purpose, "tasks": count}
        yield _instant(pid, f"submit ({purpose})", moment, args)


def _withdrawn(pid: int, task: TaskRecord, moment: int) -> Event:
    return _instant(pid, f"{task.status} before it began", moment, _task_event(task)["args"])


def _instant(pid: int, name: str, moment: int, args: Event) -> Event:
    place = {"pid": pid, "tid": _SUBMISSIONS, "ts": _us(moment)}
    return {"ph": "i", "s": "t", "name": name, "cat": "submission", **place, "args": args}


def _named(pid: int, name: str, threads: Mapping[int, str]) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}
    for tid, thread in threads.items():
        yield from _thread(pid, tid, thread)


def _thread(pid: int, tid: int, name: str) -> Iterator[Event]:
    place = {"ph": "M", "pid": pid, "tid": tid}
    yield {**place, "name": "thread_name", "args": {"name": name}}
    yield {**place, "name": "thread_sort_index", "args": {"sort_index": tid}}


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts worker 10 behind worker 9."""
    return [
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,9})", name)
    ]


def _us(nanoseconds: int) -> float:
    """Microseconds, the format's unit."""
    return nanoseconds / 1000
