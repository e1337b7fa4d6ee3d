"""Traces: what chrome://tracing and Perfetto open says what the records say."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import entangled
from hypothesis import given
from hypothesis import strategies as st
from record_examples import TASK, query_record

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.analysis.trace import chrome_trace, trace_files, write_chrome_trace
from distributed_estimator.errors import RecordError
from distributed_estimator.execution import Constant, Policy, Stragglers
from distributed_estimator.records import (
    DeviceRecord,
    QueryRecord,
    RecordWriter,
    TaskRecord,
    read_records,
)

QUERY = query_record(t_partition=1.0, t_generate=1.0, t_execute=2.0, t_reconstruct=1.0)
DEVICE = DeviceRecord(
    device="left",
    job=0,
    task="key 0",
    circuits=1,
    shots=100,
    submitted=0.0,
    queued=0.5,
    started=1.0,
    finished=2.0,
    returned=2.5,
    status="done",
)


def events_of(tasks, devices=(), queries=()):
    """The events, checked for what every trace must be."""
    document = chrome_trace(tasks, devices, queries)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    events = document["traceEvents"]
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    processes = [e["pid"] for e in events if e["name"] == "process_name"]
    assert len(set(processes)) == len(processes)
    for event in events:
        assert event["ph"] in "XiMC"
        assert event["pid"] in processes
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
        if event["ph"] in "Xi":
            assert (event["pid"], event["tid"]) in named
    check_nesting(events)
    check_counters(events)
    return events


def check_nesting(events):
    """Attempts on a thread do not overlap; a delay lies within the attempt it follows."""
    threads = defaultdict(list)
    for event in slices(events):
        threads[event["pid"], event["tid"]].append(event)
    for thread in threads.values():
        begin = end = attempt_end = 0.0
        for event in thread:
            if event["cat"] == "injected":
                assert event["ts"] == begin
                assert event["ts"] + event["dur"] <= attempt_end + 1e-3
                continue
            begin, attempt_end = event["ts"], event["ts"] + event["dur"]
            assert begin >= end - 1e-3
            end = attempt_end


def check_counters(events):
    last = {}
    for event in (event for event in events if event["ph"] == "C"):
        assert all(level >= 0 for level in event["args"].values())
        assert event["ts"] > last.get(event["pid"], {"ts": -math.inf})["ts"]
        last[event["pid"]] = event
    for event in last.values():
        assert set(event["args"].values()) == {0}


def slices(events, category=None):
    return [e for e in events if e["ph"] == "X" and category in (None, e["cat"])]


def names_of(events, what="thread_name"):
    return [event["args"]["name"] for event in events if event["name"] == what]


# --- one query


def test_an_attempt_is_a_slice_with_all_that_is_known_of_it():
    events = events_of([replace(TASK, injected_delay=0.25)])
    (attempt,) = slices(events, "task")
    assert (attempt["ts"], attempt["dur"]) == (1e6, 2e6)
    assert attempt["name"] == "fragment 1"
    told = ("key", "fragment", "rows", "circuits", "shots", "attempt", "purpose", "status", "cause")
    wanted = {name: getattr(TASK, name) for name in told} | {"rows": [0, 2], "circuits": [3, 1]}
    assert {name: attempt["args"][name] for name in told} == wanted
    (delay,) = slices(events, "injected")
    assert (delay["ts"], delay["dur"], delay["tid"]) == (1e6, 0.25e6, attempt["tid"])
    assert names_of(events, "process_name") == ["run run"]
    assert names_of(events) == ["queries", "submissions", "worker 0"]


def test_counters_follow_the_tasks():
    tasks = [TASK, replace(TASK, key="key 1", started=2.0, finished=4.0, worker="1")]
    levels = [
        (event["ts"] / 1e6, event["args"]["waiting"], event["args"]["running"])
        for event in events_of(tasks)
        if event["ph"] == "C"
    ]
    assert levels == [(0.5, 2, 0), (1, 1, 1), (2, 0, 2), (3, 0, 1), (4, 0, 0)]


def test_a_submission_is_an_instant_for_each_job():
    tasks = [TASK, replace(TASK, key="key 1", started=3.0, finished=4.0)]
    tasks.append(replace(TASK, job=1, submitted=2.0, worker="1", purpose="duplicate", started=2.5))
    instants = [event for event in events_of(tasks) if event["ph"] == "i"]
    assert [(e["ts"], e["name"], e["args"]["tasks"]) for e in instants] == [
        (0.5e6, "submit (first)", 2),
        (2e6, "submit (duplicate)", 1),
    ]


def test_an_attempt_that_never_began_is_no_slice():
    task = replace(TASK, started=None, worker="", status="cancelled", finished=2.0)
    events = events_of([task])
    assert not slices(events, "task")
    assert [e["name"] for e in events if e["ph"] == "i"] == [
        "submit (first)",
        "cancelled before it began",
    ]


def test_workers_are_in_the_order_of_their_numbers():
    workers = ["10", "9", "node-2:a", "node-10:a", "²", ""]
    events = events_of([replace(TASK, worker=worker) for worker in workers])
    threads = [name.removeprefix("worker ") for name in names_of(events)[2:]]
    assert sorted(threads) == sorted(workers)
    assert threads.index("9") < threads.index("10")
    assert threads.index("node-2:a") < threads.index("node-10:a")


def test_clocks_that_differ_a_little_do_not_make_a_second_thread():
    tasks = [TASK, replace(TASK, key="key 1", started=2.9995, finished=4.0)]
    attempts = slices(events_of(tasks), "task")
    assert [(event["ts"], event["dur"]) for event in attempts] == [(1e6, 2e6), (3e6, 1e6)]
    tasks[1] = replace(tasks[1], started=2.9)
    assert names_of(events_of(tasks))[2:] == ["worker 0", "worker 0 (2)"]


def test_what_is_no_number_becomes_null_and_a_missing_time_is_told():
    (attempt,) = slices(events_of([replace(TASK, injected_delay=math.nan)]), "task")
    assert attempt["args"]["injected_delay"] is None
    for field in ("submitted", "started", "finished"):
        for value in (math.nan, math.inf, 1e300):
            with pytest.raises(RecordError, match=r"key 0 .*finite seconds|query .*finite"):
                chrome_trace([replace(TASK, **{field: value})])


# --- many queries


def test_queries_without_a_clock_follow_one_another():
    tasks = [replace(TASK, query_id=f"query {n}") for n in range(3)]
    events = events_of(tasks)
    assert [event["ts"] for event in slices(events, "task")] == [1e6, 4e6, 7e6]
    assert [(e["ts"], e["dur"]) for e in slices(events, "query")] == [
        (0, 3e6),
        (3e6, 3e6),
        (6e6, 3e6),
    ]


def dated(number, started_at):
    name = f"query {number}"
    return (
        replace(TASK, query_id=name),
        replace(QUERY, query_id=name, started_at=f"2030-01-01T{started_at}"),
    )


@pytest.mark.parametrize(
    ("starts", "placed"),
    [
        (("00", "02", "06"), [(1, 0), (1, 6e6), (2, 2e6)]),  # a process for those that overlap
        (("00", "04.999"), [(1, 0), (1, 5e6)]),  # within the clock's grain: it follows
    ],
)
def test_queries_that_overlap_are_in_processes_of_their_own(starts, placed):
    pairs = [dated(n, f"00:00:{start}+00:00") for n, start in enumerate(starts)]
    events = events_of([task for task, _ in pairs], (), [record for _, record in pairs])
    assert [(e["pid"], e["ts"]) for e in slices(events, "query")] == placed
    runs = ["run run", "run run (2)"][: placed[-1][0]]
    assert names_of(events, "process_name") == runs


def test_queries_without_a_record_follow_those_with_one():
    task, record = dated(0, "00:00:00.000+00:00")
    events = events_of([replace(TASK, query_id="undated"), task], (), [record])
    assert [(e["name"], e["ts"]) for e in slices(events, "query")] == [
        ("query query 0", 0),
        ("query undated", 5e6),
    ]


seconds = st.floats(0, 5, allow_nan=False)
attempts = st.builds(
    lambda query, job, worker, submitted, wait, length, delay, status, began: replace(
        TASK,
        query_id=f"query {query}",
        run_id=f"run {query % 2}",
        job=job,
        worker=str(worker),
        submitted=submitted,
        started=submitted + wait if began else None,
        finished=submitted + wait + length,
        injected_delay=delay,
        status=status,
    ),
    *(st.integers(0, 3), st.integers(0, 9), st.integers(0, 2), seconds, seconds, seconds),
    *(st.sampled_from([0.0, 0.5, 9.0]), st.sampled_from(["done", "late", "lost"]), st.booleans()),
)


@given(tasks=st.lists(attempts, max_size=20), known=st.sets(st.integers(0, 3)), gap=seconds)
def test_any_attempts_make_a_sound_trace(tasks, known, gap):
    queries = [
        replace(
            QUERY,
            run_id=f"run {n % 2}",
            query_id=f"query {n}",
            started_at=f"2030-01-01T00:00:{n * gap:06.3f}+00:00",
        )
        for n in known
    ]
    events = events_of(tasks, (), queries)
    begun = [task for task in tasks if task.started is not None]
    assert len(slices(events, "task")) == len(begun)
    assert len(slices(events, "injected")) == sum(task.injected_delay > 0 for task in begun)
    assert len(slices(events, "query")) == len({task.query_id for task in tasks})


# --- devices


def test_devices_are_a_process_of_their_own():
    jobs = [DEVICE, replace(DEVICE, job=1, started=2.0, finished=4.0, status="throttled")]
    jobs.append(replace(DEVICE, device="right", status="unheard of"))
    events = events_of([TASK], jobs)
    assert names_of(events, "process_name") == ["run run", "devices"]
    found = slices(events, "device")
    assert [(e["ts"], e["dur"], e["args"]["status"]) for e in found] == [
        (1e6, 1e6, "done"),
        (2e6, 2e6, "throttled"),
        (1e6, 1e6, "unheard of"),
    ]
    assert len({event["tid"] for event in found}) == 2
    assert names_of(events)[-2:] == ["left", "right"]


# --- files


def test_the_file_is_the_document(tmp_path: Path):
    odd = replace(TASK, key='"\n</script>\ud800ü', cause="a\tb\u2028", injected_delay=math.nan)
    logs = [tmp_path / name for name in "abcd"]
    for path, record in zip(logs, (TASK, odd, DEVICE, QUERY), strict=True):
        with RecordWriter(path) as log:
            log.write(record)
    path = tmp_path / "new" / "trace.json"
    trace_files(path, *logs, tmp_path / "missing.jsonl")
    document = json.loads(path.read_text("ascii"), parse_constant=pytest.fail)
    assert document == chrome_trace([TASK, odd], [DEVICE], [QUERY])
    assert odd.key in [e["args"]["key"] for e in slices(document["traceEvents"], "task")]
    assert [file.name for file in path.parent.iterdir()] == ["trace.json"]
    with pytest.raises(RecordError, match="`started_at` 'noon'"):
        write_chrome_trace(path, [TASK], (), [replace(QUERY, started_at="noon")])


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path):
    """The second begins and ends while the first is at it: either file is whole, the last stays."""
    path = tmp_path / "trace.json"

    def tasks():
        yield TASK
        write_chrome_trace(path, [])
        assert json.loads(path.read_text()) == chrome_trace([])

    write_chrome_trace(path, tasks())
    assert json.loads(path.read_text()) == chrome_trace([TASK])
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot write"):
        write_chrome_trace(tmp_path / "file" / "trace.json", [TASK])
    with pytest.raises(RecordError, match="finite"):
        write_chrome_trace(tmp_path / "trace.json", [replace(TASK, finished=math.nan)])
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


# --- a real run


def test_the_trace_of_an_estimator(tmp_path: Path):
    options = EstimatorOptions(
        shots=50,
        seed=7,
        policy=Policy(subexperiments=1),
        stragglers=Stragglers(0.5, Constant(0.002)),
    )
    tasks, queries = tmp_path / "tasks.jsonl", tmp_path / "queries.jsonl"
    with DistributedEstimator(
        "AABB", workers=2, options=options, log=queries, trace=tasks
    ) as estimator:
        for _ in range(3):
            result = estimator.run([(entangled(4, 1), "ZZZZ")]).result()[0]
    attempts = [record for record in read_records(tasks) if isinstance(record, TaskRecord)]
    records = [record for record in read_records(queries) if isinstance(record, QueryRecord)]
    events = events_of(attempts, (), records)
    assert len(slices(events, "query")) == 3
    assert len(slices(events, "task")) == 3 * result.metadata["num_subexperiments"]
    injected = sum(record.straggler.injected for record in records)
    assert len(slices(events, "injected")) == injected > 0
    assert names_of(events, "process_name") == [f"run {estimator.run_id}"]
