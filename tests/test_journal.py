"""The journal of finished tasks: exact, and safe against whatever ends its writer."""

from __future__ import annotations

import gc
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.errors import RecordError
from distributed_estimator.execution.journal import Journal

ODD = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308])
PAYLOAD = np.array([0x7FF8DEADBEEF0001, 0xFFF0000000000001], np.uint64).view(np.float64)
RESULTS = {
    "plain": (np.array([0.5, -1.25]), np.arange(6.0).reshape(2, 3)),
    "odd": (ODD, PAYLOAD),
    "scalar": (np.array(3.5),),
    "empty": (np.empty((0, 3)), np.empty(0)),
    "none": (),
    'quotes " and ünïcode\n\ud800': (np.array([1.0]),),
}


def bits(arrays):
    return [(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


def filled(path, results=RESULTS):
    with Journal(path) as journal:
        for key, arrays in results.items():
            journal.add(key, arrays)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


# --- what is kept


any_floats = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=st.floats(width=64, allow_nan=True, allow_infinity=True),
)


@settings(max_examples=50)
@example(RESULTS)
@given(results=st.dictionaries(st.text(max_size=8), st.lists(any_floats, max_size=3)))
def test_results_come_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, results):
    path = tmp_path_factory.mktemp("any") / "run.journal"
    with Journal(path) as journal:
        for key, arrays in results.items():
            assert journal.find(key) is None
            journal.add(key, arrays)
            assert bits(journal.find(key)) == bits(arrays)
    with Journal(path) as journal:
        assert journal.find("another one") is None
        for key, arrays in results.items():
            assert bits(journal.find(key)) == bits(arrays)


def test_arrays_of_any_layout(path: Path):
    grid = np.arange(12.0).reshape(3, 4)
    results = {"slice": (grid[::2, ::3],), "turned": (grid.T,), "big": (grid.astype(">f8"),)}
    with Journal(filled(path, results)) as journal:
        for key, (array,) in results.items():
            (found,) = journal.find(key)
            assert np.array_equal(found, array)
            assert found.dtype == np.float64
            found += 1  # belongs to the caller
            assert np.array_equal(journal.find(key)[0], array)


def test_the_first_result_of_a_task_stays(path: Path):
    with Journal(path) as journal:
        journal.add("task", (np.array([1.0]),))
        size = path.stat().st_size
        journal.add("task", (np.array([2.0]),))
        assert journal.find("task")[0] == 1.0
    assert path.stat().st_size == size


def test_the_file_is_made_with_the_first_look_up(path: Path):
    path = path.parent / "new" / path.name
    with Journal(path) as journal:
        assert not path.parent.exists()
        assert journal.find("task") is None
        assert path.read_bytes() == b""
        journal.add("task", (np.array([1.0]),))
    header, line = (json.loads(text) for text in path.read_text("ascii").splitlines())
    assert header["journal"] == 2
    assert set(header["versions"]) == {"distributed-estimator"}
    assert set(line) == {"key", "shapes", "data", "crc"}


def test_threads_share_it(path: Path):
    results = {f"task {n}": (np.full(n % 7, float(n)),) for n in range(200)}
    failed = []

    def work(journal, part):
        for number in range(part, 200, 4):
            key = f"task {number}"
            journal.add(key, results[key])
            if bits(journal.find(key)) != bits(results[key]):
                failed.append(key)

    with Journal(path) as journal:
        threads = [threading.Thread(target=work, args=(journal, part)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    with Journal(path) as journal:
        assert all(bits(journal.find(key)) == bits(results[key]) for key in results)


# --- what a lost writer leaves


def test_a_tail_torn_anywhere_is_cut_off(path: Path):
    whole = filled(path).read_bytes()
    *_, last = RESULTS
    kept = [key for key in RESULTS if key != last]
    start = whole[:-1].rindex(b"\n") + 1
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        with Journal(path) as journal:
            assert journal.find(last) is None
            assert all(bits(journal.find(key)) == bits(RESULTS[key]) for key in kept)
            assert path.stat().st_size == size  # not changed by reading
            journal.add(last, RESULTS[last])
        assert path.read_bytes() == whole


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch):
    write = os.write
    room = [40]

    def full(descriptor, data):
        if not room[0]:
            raise OSError(28, "No space left on device")
        part = bytes(data)[: room[0]]
        room[0] -= len(part)
        return write(descriptor, part)

    with Journal(filled(path)) as journal:
        whole = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RecordError, match=r"run\.journal`: No space left on device"):
            journal.add("more", (np.arange(100.0),))
        assert journal.find("more") is None
        monkeypatch.undo()
        journal.add("more", (np.array([1.0]),))
        assert journal.find("more")[0] == 1.0
    assert path.read_bytes().startswith(whole)
    with Journal(path) as journal:
        assert journal.find("more")[0] == 1.0


# --- what is refused


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def changed_number(line):
    return line.replace(b'"data": "AAAA', b'"data": "BAAA', 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed_number, "checksum"),
        (lambda line: line.replace(b'"plain"', b'"plane"'), "checksum"),
        (lambda line: line.replace(b"[2]", b"[1]", 1), "checksum"),
        (lambda line: line[:20] + b"\n", ""),
        (lambda line: b"\0" * 40 + b"\n", ""),
        (lambda line: b"[" * 100_000 + b"\n", "nests too deeply"),
        (lambda line: b"\n", ""),
        (lambda line: b'{"key": "plain"}\n', "missing required field"),
        (lambda line: b"7\n", "Expected `object`, got `int`"),
    ],
)
def test_damage_names_file_and_line(path: Path, damage, message: str):
    lines = lines_of(filled(path))
    damaged = damage(lines[1])
    assert damaged != lines[1]
    path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(RecordError, match=rf"run\.journal, line 2 is damaged \(.*{message}"):
        Journal(path)
    assert path.read_bytes() == before


def test_damage_after_opening_is_found(path: Path):
    with Journal(filled(path)) as journal:
        lines = lines_of(path)
        swapped = changed_number(lines[1])
        with path.open("r+b") as file:
            file.write(lines[0] + swapped)
        with pytest.raises(RecordError, match=r"damaged \(its checksum"):
            journal.find("plain")
        assert bits(journal.find("odd")) == bits(RESULTS["odd"])


@pytest.mark.parametrize("field", ["journal", "versions"])
def test_another_version_is_refused(path: Path, field: str):
    first, *rest = lines_of(filled(path))
    header = json.loads(first)
    header[field] = 3 if field == "journal" else {"distributed-estimator": "0.0.1"}
    path.write_bytes(b"".join([json.dumps(header).encode() + b"\n", *rest]))
    with pytest.raises(RecordError, match=r"do not mix, so go on with the one that wrote it"):
        Journal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"OPENQASM 2.0;",
        b"OPENQASM 2.0;\nqreg q[2];\n",
        b'{"kind": "header"}\n',
        b"{\n}\n",
        b"[1]\n",
        b"\n",
        b'{"a": 1}',
        b"\xff\xfe\n",
        b'{"journal": "PRX Quantum", "title": "not ours"}',
        b'{"journal": 1, "versions": {"another-package',
    ],
)
def test_another_kind_of_file_is_left_alone(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(RecordError, match="is no journal: name another file"):
        Journal(path)
    assert path.read_bytes() == content


def test_what_is_no_regular_file_is_refused_and_not_waited_for(path: Path):
    os.mkfifo(path)
    for place in (path, Path(os.devnull)):
        with pytest.raises(RecordError, match=f"`{place}` is no regular file: name a file"):
            Journal(place)


# --- who holds it


def test_a_second_writer_is_told(path: Path):
    message = re.escape(f"`{path}` is in use by another run")
    with Journal(filled(path)) as journal:
        with pytest.raises(RecordError, match=message):
            Journal(path)
        journal.add("more", (np.array([1.0]),))
    with Journal(path) as journal:
        assert journal.find("more")[0] == 1.0


@pytest.mark.parametrize("begin", ["find", "add"])
def test_two_that_begin_a_file(path: Path, begin: str):
    with Journal(path) as one, Journal(path) as other:
        if begin == "find":
            assert one.find("task") is None
        else:
            one.add("task", (np.array([1.0]),))
        for use in (lambda: other.add("task", ()), lambda: other.find("task")):
            with pytest.raises(RecordError, match=re.escape(f"`{path}` is in use by another run")):
                use()


@pytest.mark.parametrize("changed", ["circuit", "angle", "observable", "shots"])
def test_a_result_is_found_for_the_same_content_alone(path: Path, changed: str):
    """Seed and place in the run are those of the run before, which alone make the key."""
    theta = Parameter("theta")
    circuit, other = QuantumCircuit(1), QuantumCircuit(1)
    circuit.ry(theta, 0)
    other.rx(theta, 0)
    asked = {"circuit": circuit, "angle": 0.4, "observable": "Y", "shots": 300}
    changes = {"circuit": other, "angle": 0.9, "observable": "X", "shots": 301}

    def value(journal: Path | None, circuit, angle, observable, shots):
        options = EstimatorOptions(shots=shots, seed=7)
        with DistributedEstimator(workers=1, options=options, journal=journal) as estimator:
            return float(estimator.run([(circuit, observable, [angle])]).result()[0].data.evs)

    value(path, **asked)
    asked[changed] = changes[changed]
    assert value(path, **asked) == value(None, **asked)
    with open(path, encoding="utf-8") as lines:
        assert len(list(lines)) == 3  # the header and both results


def test_a_closed_one_opens_again_and_a_forgotten_one_lets_go(path: Path):
    journal = Journal(filled(path))
    journal.close()
    journal.close()
    with Journal(path) as other:
        other.add("more", (np.array([1.0]),))
    assert journal.find("more")[0] == 1.0
    del journal
    gc.collect()
    Journal(path).close()
