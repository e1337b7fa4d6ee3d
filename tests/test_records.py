"""Records survive a round trip, a crash at any byte, and many writers at once."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qiskit.circuit.library import real_amplitudes
from record_examples import STEP, query_record

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.analysis.costs import load_costs
from distributed_estimator.analysis.frames import query_records as ask
from distributed_estimator.analysis.pages import write_run_report
from distributed_estimator.analysis.report import write_report, write_results
from distributed_estimator.analysis.study import load_study
from distributed_estimator.analysis.trace import write_chrome_trace
from distributed_estimator.errors import InputError, RecordError
from distributed_estimator.execution import Journal
from distributed_estimator.records import (
    KINDS,
    SCHEMA_VERSION,
    Header,
    Record,
    RecordWriter,
    Summary,
    TrainingRecord,
    atomic,
    decode,
    encode,
    read_records,
    to_dict,
    truncate_records,
)
from distributed_estimator.training.runs import RunFolder

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=8)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: words,
    int: st.integers(0, 2**53),
    float: st.floats(),
    bool: st.booleans(),
    NoneType: st.none(),
    Summary: st.lists(st.floats(), max_size=20).map(Summary.of),
}
SPECIAL = {
    "precision": st.none() | finite,  # where null is None
    "slow_delay": st.none() | finite,
    "charged_seconds": st.none() | finite,
    "readout_stderr": st.none() | finite,
    "started": finite,
}


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type that a field of a record has."""
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    parts = [anything(part) for part in get_args(hint) if part is not ...]
    if isinstance(hint, UnionType):
        return st.one_of(parts)
    if get_origin(hint) is dict:
        return st.dictionaries(*parts, max_size=3)
    if get_origin(hint) is tuple:
        return st.lists(*parts, max_size=3).map(tuple)
    return PLAIN[hint] if hint in PLAIN else lines(hint)


def lines(kind: Any) -> st.SearchStrategy[Any]:
    """Instances of a dataclass with any values."""
    hints = {field.name: get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
    hints.pop("schema_version", None)
    special = {name: SPECIAL[name] for name in SPECIAL.keys() & hints.keys()}
    return st.builds(kind, **{name: anything(hint) for name, hint in hints.items()} | special)


def same(a: Any, b: Any) -> bool:
    """Equal, where all that is not finite counts as NaN and NaN equals itself."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or not (math.isfinite(a) or math.isfinite(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def step(number: int, **changes: Any) -> TrainingRecord:
    return dataclasses.replace(STEP, **{"step": number} | changes)


def steps_in(*paths: Path) -> list[int]:
    return [r.step for r in read_records(*paths) if isinstance(r, TrainingRecord)]


def headers_in(path: Path) -> int:
    return sum(isinstance(record, Header) for record in read_records(path))


def write_steps(path: Path, numbers: range) -> None:
    with RecordWriter(path) as log:
        for number in numbers:
            log.write(step(number))


# --- what a record says -----------------------------------------------------------------------


@given(st.one_of(map(lines, KINDS.values())))
def test_a_record_comes_back_from_one_line_of_strict_json(record: Record) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = encode(record)
    assert b"\n" not in line
    assert json.loads(line, parse_constant=refuse)["kind"] == record.kind
    back = decode(line)
    assert type(back) is type(record)
    assert same(to_dict(back), to_dict(record))


def test_not_a_number_is_written_as_null() -> None:
    data = json.loads(encode(step(1, loss=math.nan, metrics={"a": math.inf})))
    assert (data["loss"], data["metrics"]) == (None, {"a": None})


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    record = step(np.int64(3), loss=np.float32(0.5), metrics={"a": np.float64(2)})  # type: ignore[arg-type]
    assert decode(encode(record)) == step(3, loss=0.5, metrics={"a": 2.0})


@given(st.lists(finite.filter(lambda x: abs(x) < 1e100), min_size=1, max_size=40))
def test_a_summary_lists_its_values_up_to_sixteen(values: list[float]) -> None:
    summary = Summary.of(np.array(values).reshape(-1, 1))
    assert (summary.count, summary.min, summary.max) == (len(values), min(values), max(values))
    assert summary.mean == pytest.approx(
        math.fsum(values) / len(values), abs=1e-6 * max(map(abs, values))
    )
    assert summary.values == (tuple(values) if len(values) <= 16 else None)


def test_a_summary_of_nothing_has_no_mean() -> None:
    summary = Summary.of([])
    assert summary.count == 0
    assert math.isnan(summary.mean)


def test_the_header_names_versions_and_machine_but_nobody() -> None:
    header = Header.current()
    assert header.versions["numpy"] == np.__version__
    assert header.machine.cpu_count == os.cpu_count()
    text = encode(header).decode()
    for name in (os.uname().nodename, os.environ.get("USER") or "\0", str(Path.home())):
        assert name not in text


@pytest.mark.parametrize(
    ("labels", "observable", "widest"),
    [("AAAB", "ZZZZ", 3), (None, "ZZZZ", 4), ("AABB", "IIIZ", 2), ("AABB", "IIII", 0)],
)
def test_the_width_of_the_widest_fragment_is_recorded(
    labels: str | None, observable: str, widest: int
) -> None:
    circuit = real_amplitudes(4, reps=1, entanglement="linear")
    with DistributedEstimator(labels, options=EstimatorOptions(shots=8)) as estimator:
        result = estimator.run([(circuit, observable, np.zeros(8))]).result()[0]
    assert result.metadata["max_fragment_qubits"] == widest


# --- reading ----------------------------------------------------------------------------------


def test_files_are_merged_in_order(tmp_path: Path) -> None:
    write_steps(tmp_path / "a.jsonl", range(2))
    write_steps(tmp_path / "b.jsonl", range(2, 5))
    assert steps_in(tmp_path / "b.jsonl", tmp_path / "a.jsonl") == [2, 3, 4, 0, 1]


def test_unknown_keys_are_tolerated() -> None:
    data = json.loads(encode(query_record())) | {"color": "red"}
    data["circuit"]["shape"] = [1]
    assert decode(json.dumps(data).encode()) == query_record()


def test_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, range(1))
    newer = json.dumps({"schema_version": SCHEMA_VERSION + 1, "kind": "unheard-of"})
    with path.open("a") as file:
        file.write(newer)  # no newline: still not mistaken for a torn line
    with pytest.raises(
        RecordError, match=rf"line 3 .*version is {SCHEMA_VERSION + 1} .* {SCHEMA_VERSION}:"
    ):
        list(read_records(path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data.pop("step"), "missing required field `step`"),
        (lambda data: data.update(step="1"), "field `step` is '1': Expected `int`, got `str`"),
        (lambda data: data.update(step=True), "field `step` is True: Expected `int`, got `bool`"),
        (
            lambda data: data.update(loss="low"),
            "field `loss` is 'low': Expected `float`",
        ),
        (
            lambda data: data.update(metrics={"a": []}),
            r"`metrics` is {'a': \[\]}: Expected `f",
        ),
        (lambda data: data.update(kind="query"), "missing required field `query_id`"),
        (lambda data: data.update(kind=["query"]), "kind is"),
        (lambda data: data.pop("schema_version"), "schema_version"),
    ],
)
def test_a_wrong_field_is_named(damage: Any, message: str) -> None:
    data = json.loads(encode(step(1)))
    damage(data)
    with pytest.raises(RecordError, match=message):
        decode(json.dumps(data).encode())


@pytest.mark.parametrize("line", [b"{", b"[]", b"3", b"\xff", b"NaN", b"[" * 100_000])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(RecordError, match="JSON"):
        decode(line)


def test_damage_in_any_whole_line_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, range(2))
    whole = path.read_bytes().splitlines(keepends=True)
    for number in (1, 2, 3):
        damaged = [*whole[: number - 1], whole[number - 1][:30] + b"\n", *whole[number:]]
        path.write_bytes(b"".join(damaged))
        with pytest.raises(RecordError, match=rf"log\.jsonl, line {number} is unreadable"):
            list(read_records(path))
    with pytest.raises(RecordError, match=r"cannot read `.*nowhere\.jsonl`: No such file"):
        list(read_records(tmp_path / "nowhere.jsonl"))


# --- crashes ----------------------------------------------------------------------------------


def test_a_crash_at_any_byte_costs_one_record_at_most(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, range(3))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) + 1):
        survivors = [0, 1, 2] if cut >= len(whole) - 1 else [0, 1]
        path.write_bytes(whole[:cut])
        assert steps_in(path) == survivors
        write_steps(path, range(3, 5))
        assert steps_in(path) == [*survivors, 3, 4]
        assert headers_in(path) == 1


def test_a_crash_while_writing_the_header_leaves_a_file_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, range(1))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        write_steps(path, range(7, 8))
        expected = [0, 7] if cut == len(whole) - 1 else [7]
        assert (steps_in(path), headers_in(path)) == (expected, 1)


@pytest.mark.parametrize("torn", [20, -1])
def test_a_crash_while_closing_a_torn_line_changes_nothing(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "log.jsonl"
    write_steps(path, range(1))
    torn_line = encode(step(1))
    torn_line = torn_line if torn == -1 else torn_line[:torn]
    path.write_bytes(path.read_bytes() + torn_line)
    start = path.stat().st_size
    write_steps(path, range(2, 3))
    whole = path.read_bytes()
    survivors = [0, 1] if torn == -1 else [0]
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        saved = [2] if cut == len(whole) - 1 else []
        assert steps_in(path) == survivors + saved
        write_steps(path, range(3, 4))
        assert steps_in(path) == [*survivors, *saved, 3]


# --- writing ----------------------------------------------------------------------------------


def test_a_file_has_one_header_and_is_made_with_the_first_record(tmp_path: Path) -> None:
    log = RecordWriter(tmp_path / "deep" / "er" / "log.jsonl")
    log.close()
    assert list(tmp_path.iterdir()) == []
    log.write(step(0))
    log.close()
    log.close()
    log.write(step(1))
    log.close()
    write_steps(log.path, range(2, 3))
    assert (steps_in(log.path), headers_in(log.path)) == ([0, 1, 2], 1)


def test_a_pickled_writer_appends_to_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RecordWriter("log.jsonl") as log:
        log.write(step(0))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pickle.loads(pickle.dumps(log)) as other:
            other.write(step(1))
        log.write(step(2))
    assert steps_in(tmp_path / "log.jsonl") == [0, 1, 2]


@pytest.mark.parametrize("path", ["", b"log.jsonl", 5, True, "a\0b"])
@pytest.mark.parametrize(
    "use",
    [
        RecordWriter,
        Journal,
        lambda path: list(read_records(path)),
        lambda path: write_chrome_trace(path, []),
        lambda path: load_costs(path),
        lambda path: ask(path, "select 1"),
        lambda path: load_study(path),
        lambda path: write_report("study", path),
        lambda path: write_run_report("run", path),
        lambda path: write_results("results", path),
        RunFolder,
    ],
)
def test_what_is_no_path_is_refused(use: Callable[[Any], object], path: Any, tmp_path: Path):
    with pytest.raises(InputError, match="is no path: "):
        use(path)


def test_a_folder_is_no_file_to_replace(tmp_path: Path):
    with pytest.raises(IsADirectoryError), atomic(tmp_path):
        pass
    with pytest.raises(IsADirectoryError), atomic(Path()):
        pass


@pytest.mark.parametrize("kind", [RecordWriter, Journal])
def test_a_place_that_cannot_be_written_is_found_at_once(
    kind: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path, "is a folder: give the path of a file"),
        (tmp_path / "file" / "log", "file` must be a folder"),
        (tmp_path / "file" / "new" / "log", "file` must be a folder"),
        (tmp_path / ("x" * 300), "cannot write `.*`: File name too long"),
    ):
        with pytest.raises(RecordError, match=message):
            kind(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(RecordError, match="cannot write"):
        kind(tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_a_record_error(tmp_path: Path) -> None:
    log = RecordWriter(tmp_path / "runs" / "log.jsonl")
    with pytest.raises(RecordError, match="training record cannot be written as JSON"):
        log.write(step(0, metrics={"a": object()}))
    with pytest.raises(RecordError, match="pipeline is 'new': use one of contracted, reference"):
        log.write(query_record(pipeline="new"))
    assert not log.path.exists()
    (tmp_path / "runs").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        log.write(step(0))


def test_a_file_goes_back_to_what_it_was(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "log.jsonl") as log:
        assert log.size() == 0
        log.write(step(0))
        log.sync()
        size = log.size()
        assert size == log.path.stat().st_size
        log.write(step(1))
        with log.path.open("ab") as file:
            file.write(b"half a li")
        truncate_records(log.path, size, check_only=True)
        assert log.path.stat().st_size > size
        truncate_records(log.path, size)
        log.write(step(2))
    assert steps_in(log.path) == [0, 2]


def test_a_file_that_never_was_so_long_is_left_alone(tmp_path: Path) -> None:
    write_steps(tmp_path / "log.jsonl", range(1))
    before = (tmp_path / "log.jsonl").read_bytes()
    for size in (5, 10**6):
        with pytest.raises(RecordError, match=f"no line that ends after {size}"):
            truncate_records(tmp_path / "log.jsonl", size)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    with pytest.raises(RecordError, match=r"cannot write `.*nothing\.jsonl`: No such file"):
        truncate_records(tmp_path / "nothing.jsonl", 0)


def test_threads_do_not_interleave(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "log.jsonl") as log, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.write(step(number)), range(400)))
    assert sorted(steps_in(log.path)) == list(range(400))
    assert headers_in(log.path) == 1


def test_processes_do_not_interleave(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=write_steps, args=(path, range(k * 300, (k + 1) * 300)))
        for k in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(steps_in(path)) == list(range(600))
    assert headers_in(path) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "log.jsonl") as log:
        log.write(step(0))
        child = os.fork()
        if not child:
            log.write(step(1))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        log.write(step(2))
    assert steps_in(log.path) == [0, 1, 2]
