"""What runs left on the disk: record files, documents, run folders and archives, and their totals.

An archive holds a study's records as Parquet: `runs.parquet` has a row for each run with its
documents as they were; `queries.parquet`, `training.parquet`, `tasks.parquet` and `devices.parquet`
have a row for each record, whose columns are the record's fields behind `study_run_id` and `file`.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from ..errors import RecordError
from ..records import QueryRecord, Record, TrainingRecord, decode, given_path, read_records
from ..records.schema import parse as parse_json

RecordT = TypeVar("RecordT", QueryRecord, TrainingRecord)
DocumentT = TypeVar("DocumentT")

STUDY_VERSION = 1
"""Newest schema of study.json, run.json and result.json that is read."""
MANIFEST = "archive.json"
"""Says in an archive what was left out of it."""
RUNS = "runs.parquet"
TABLES = {
    "query": "queries.parquet",
    "training": "training.parquet",
    "task": "tasks.parquet",
    "device": "devices.parquet",
}
"""The file of each kind of record in an archive."""
LOGS = ("queries.jsonl", "robustness-queries.jsonl", "training.jsonl")
TRACES = {"tasks.jsonl": "task", "devices.jsonl": "device"}
"""The logs of single tasks and jobs, with the kind of their records."""
STAGES = ("partition", "generate", "execute", "reconstruct")
"""The stages of Eq. 1; records hold the seconds of each as `t_…`, and their sum as `t_total`."""
TIMES = tuple(f"t_{name}" for name in (*STAGES, "total"))
SOURCE_COLUMNS = ("study_run_id", "file")
_RUN_COLUMNS = ("run_id", "experiment", "run", "result", "headers")
_COUNTS = (
    *("num_cuts", "num_fragments", "num_circuits", "num_subexperiments", "num_queries"),
    *("shots_total", "subexp_workers"),
)
_LARGEST = 1e18
"""Of seconds and counts of anything that was run."""
_MOST_BYTES = 64 * 2**20


# Records of one file, and what they add up to


@dataclass(frozen=True)
class QueryTotals:
    """What the queries of a run cost, over all records: single queries or batches.

    `queries` are expectation values asked for, `subexperiments` circuits times bindings that were
    run, with so many `shots` (0 for an exact run). `seconds` is T_total, and each `t_…` its part of
    a stage.
    """

    records: int = 0
    queries: int = 0
    subexperiments: int = 0
    shots: int = 0
    seconds: float = 0.0
    t_partition: float = 0.0
    t_generate: float = 0.0
    t_execute: float = 0.0
    t_reconstruct: float = 0.0

    def __add__(self, other: QueryTotals) -> QueryTotals:
        mine, theirs = vars(self), vars(other)
        return QueryTotals(**{name: mine[name] + theirs[name] for name in mine})

    @classmethod
    def of(cls, records: Iterable[QueryRecord]) -> QueryTotals:
        """Adds up query records; of none, all totals are 0."""
        fields = ("num_queries", "num_subexperiments", "shots_total", "t_total", *TIMES[:-1])
        return sum((cls(1, *(getattr(each, name) for name in fields)) for each in records), cls())


def load_queries(path: Path | str) -> list[QueryRecord]:
    """The query records of a file, in the order they were written.

    Raises:
        RecordError: If the file cannot be read, is damaged or holds no query.
    """
    return _load(path, QueryRecord)


def load_training(path: Path | str) -> list[TrainingRecord]:
    """The training records of a file; see `load_queries`."""
    return _load(path, TrainingRecord)


def _load(path: Path | str, kind: type[RecordT]) -> list[RecordT]:
    found = [record for record in read_records(path) if isinstance(record, kind)]
    if not found:
        raise RecordError(f"`{path}` holds no {kind.kind} record: name the file of a finished run")
    return found


@dataclass(frozen=True)
class StageRow:
    """One stage over all records of a run; times in seconds.

    Attributes:
        stage: partition, generate, execute, reconstruct or total.
        seconds: The sum over all records.
        share: That sum over the sum of T_total, 0 where T_total is 0.
        median_seconds: The median over the records.
        median_share: The median over the records of the share within a record.
        p95_share: Its 95th percentile, which the paper reports too (Table I).
    """

    stage: str
    seconds: float
    share: float
    median_seconds: float
    median_share: float
    p95_share: float


def stage_table(records: Sequence[QueryRecord]) -> tuple[StageRow, ...]:
    """The stages in order, then their total: T_total = T_part + T_gen + T_exec + T_rec."""
    if not records:
        raise RecordError("no query record to tabulate: run a query with `log` first")
    return stages_of({name: [getattr(record, name) for record in records] for name in TIMES})


def stages_of(times: Mapping[str, Any]) -> tuple[StageRow, ...]:
    """The same from the times of one call, as in the metadata of its result, or of several."""
    total = np.atleast_1d(np.array(times["t_total"], dtype=float))
    whole = float(total.sum())
    rows = []
    for stage in (*STAGES, "total"):
        seconds = np.atleast_1d(np.array(times[f"t_{stage}"], dtype=float))
        shares = np.divide(seconds, total, out=np.zeros_like(total), where=total > 0)
        rows.append(
            StageRow(
                stage=stage,
                seconds=float(seconds.sum()),
                share=float(seconds.sum()) / whole if whole > 0 else 0.0,
                median_seconds=float(np.median(seconds)),
                median_share=float(np.median(shares)),
                p95_share=float(np.quantile(shares, 0.95)),
            )
        )
    return tuple(rows)


def check_record(record: QueryRecord) -> None:
    """Raises `RecordError` for times and counts that cannot be, as of a damaged record."""
    values = {name: getattr(record, name) for name in (*TIMES, *_COUNTS)}
    values |= {f"circuit.{name}": getattr(record.circuit, name) for name in ("num_qubits", "depth")}
    for name, value in values.items():
        if not 0 <= value <= _LARGEST or (name == "t_total" and value == 0):
            expected = "seconds above 0" if name in TIMES else "a count"
            raise RecordError(
                f"`{name}` of query {record.query_id} (run {record.run_id}) is "
                f"{reprlib.repr(value)}, expected {expected}: restore the records, or take it out"
            )


def time_of(text: str) -> datetime | None:
    """A time in a record as one in UTC; None: it cannot be read."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# Documents


class ForeignError(RecordError):
    """A file of another study or of a newer release: it says nothing of the study it lies in."""


def read_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """A JSON document with a schema version, checked against its declaration.

    Raises:
        RecordError: It cannot be read, is damaged or newer than this release.
    """
    return parse(str(path), read_bytes(path), kind)


def read_bytes(path: Path) -> bytes:
    """The content of a JSON document; `RecordError` if it is larger than any of ours."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecordError(f"{path} is damaged: it is larger than {_MOST_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def parse(place: str, content: bytes | None, kind: type[DocumentT]) -> DocumentT:
    """As `read_document`, of a document's content."""
    data = parse_any(place, content)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int:
        raise RecordError(f"{place} is damaged: it is no object with a whole `schema_version`")
    if version > STUDY_VERSION:
        raise ForeignError(
            f"{place} has schema version {version} and this release reads up to {STUDY_VERSION}: "
            "install a newer distributed-estimator"
        )
    return convert(place, data, kind)


def parse_any(place: str, content: bytes | None) -> Any:
    """What a JSON document says."""
    try:
        data = parse_json(content or b"")
        if content and b"\\ud" in content.lower():  # which no data frame can hold
            data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
        return data
    except ValueError as error:
        raise RecordError(f"{place} is damaged: it is not JSON ({error})") from error


def convert(place: str, data: Any, kind: type[DocumentT], within: str = "") -> DocumentT:
    """Data of a document, checked against its declaration."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        why = str(error).replace("`$.", f"`{within}.".replace("`.", "`"))
        raise RecordError(f"{place} is damaged: {why}; restore it, or run it again") from error


# Runs of a study


class RunFolders:
    """Runs in folders, as `dest study run` writes them; archives of earlier releases too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_ids(self) -> list[str]:
        """Ids of its runs, sorted."""
        # One that was only just made has neither file yet.
        places = (self.folder.glob(f"runs/*/{name}.json") for name in ("run", "result"))
        return sorted({place.parent.name for place in chain(*places)})

    def document(self, run_id: str, name: str) -> tuple[str, bytes | None]:
        """Where a document of a run stands, and what it says; None: it is not there."""
        path = self.folder / "runs" / run_id / name
        return str(path), read_bytes(path) if path.exists() or name == "run.json" else None

    def log(self, run_id: str, name: str) -> list[Record]:
        """Headers and records of a log of a run; none if it is not there."""
        place = self._place(run_id, name)
        return [] if place is None else list(read_records(place))

    def traced(self, *names: str) -> dict[str, int]:
        """How many of these logs each run has that has any."""
        return Counter(run for run in self.run_ids() for name in names if self._place(run, name))

    def _place(self, run_id: str, name: str) -> Path | None:
        places = (self.folder / "runs" / run_id / f"{name}{ending}" for ending in ("", ".gz"))
        return next((place for place in places if place.is_file()), None)


class Packed:
    """Runs in the Parquet files of an archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._logs: dict[str, dict[tuple[str, str], list[Record]]] = {}

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder holds an archive of this kind."""
        return (folder / RUNS).is_file()

    @cached_property
    def _runs(self) -> dict[str, dict[str, Any]]:
        return {row["run_id"]: row for row in _read(self.folder / RUNS, _RUN_COLUMNS)}

    def _of_kind(self, kind: str) -> dict[tuple[str, str], list[Record]]:
        """Records by run and log."""
        if kind not in self._logs:
            found: dict[tuple[str, str], list[Record]] = {}
            for run_id, file, record in self._records(kind):
                found.setdefault((run_id, file), []).append(record)
            self._logs[kind] = found
        return self._logs[kind]

    def _records(self, kind: str) -> Iterator[tuple[str, str, Record]]:
        path = self.folder / TABLES[kind]
        for row in _read(path, SOURCE_COLUMNS) if path.is_file() else ():
            run_id, file = (row.pop(name) for name in SOURCE_COLUMNS)
            if kind == "training":  # a column for every metric that some run has
                metrics = row.get("metrics") or {}
                row["metrics"] = {k: v for k, v in metrics.items() if v is not None}
            try:
                yield run_id, file, decode(msgspec.json.encode(row))
            except RecordError as error:
                raise RecordError(f"{path} is damaged: {error}") from error

    def _headers(self, run_id: str) -> Iterator[tuple[str, Record]]:
        for one in self._runs[run_id]["headers"]:
            yield one["file"], decode(one["header"].encode())

    def run_ids(self) -> list[str]:
        """Ids of its runs, sorted."""
        return sorted(self._runs)

    def document(self, run_id: str, name: str) -> tuple[str, bytes | None]:
        """Where a document of a run stands, and what it says; None: it is not there."""
        text = self._runs[run_id].get(Path(name).stem)
        return f"{name} of run {run_id} in {self.folder}", None if text is None else text.encode()

    def log(self, run_id: str, name: str) -> list[Record]:
        """Headers and records of the queries or of a trace of a run; none if it is not there."""
        headers = [header for file, header in self._headers(run_id) if file == name]
        return [*headers, *self._of_kind(TRACES.get(name, "query")).get((run_id, name), ())]

    def traced(self, *names: str) -> dict[str, int]:
        """How many of these traces each run has that has any."""
        logs = [log for name in names for log in self._of_kind(TRACES[name])]
        return Counter(run_id for run_id, file in logs if file in names)

    def records(self) -> Iterator[tuple[str, str, str, Record]]:
        """All records: the id of its run, its experiment, the log it was in, and the record."""
        for run_id, row in self._runs.items():
            for file, header in self._headers(run_id):
                yield run_id, row["experiment"], file, header
        for kind in TABLES:
            for run_id, file, record in self._records(kind):
                if run_id not in self._runs:
                    path = self.folder / TABLES[kind]
                    raise RecordError(f"{path} is damaged: its run {run_id!r:.40} is not in {RUNS}")
                yield run_id, self._runs[run_id]["experiment"], file, record


def _read(path: Path, columns: Collection[str]) -> list[dict[str, Any]]:
    """Rows of a Parquet file that has some columns."""
    import pyarrow
    from pyarrow import parquet

    try:
        table: pyarrow.Table = parquet.read_table(path)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except pyarrow.ArrowException as error:
        raise RecordError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise RecordError(f"{path} is damaged: it has no column {', '.join(missing)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


# Record files at a path


@dataclass(frozen=True)
class Source:
    """Where records were: the file, and its run in a study as `run.json` beside it has it."""

    file: str
    study_run_id: str | None = None
    experiment: str | None = None


def record_files(
    path: str | os.PathLike[str], patterns: Sequence[str] = ("*.jsonl", "*.jsonl.gz")
) -> list[Path]:
    """The record files at a path: the file itself, or all in a folder and the folders in it.

    The records of an archive stand for its `runs.parquet`. Compressed files that stand beside the
    same file uncompressed do not count.

    Raises:
        RecordError: There is nothing, or a folder without record files.
    """
    place = given_path(path)
    if not place.is_dir():
        if not place.exists():
            raise RecordError(f"`{place}` does not exist: name a record file or a run's folder")
        return [place]
    found = {f for pattern in patterns for f in place.rglob(pattern) if f.is_file()}
    found |= {f.with_name(RUNS) for f in place.rglob(MANIFEST) if f.with_name(RUNS).is_file()}
    if not found:
        raise RecordError(
            f"`{place}` holds no record files ({' or '.join(patterns)}): name the folder of a run "
            "or of a study"
        )
    return sorted(f for f in found if f.suffix != ".gz" or f.with_suffix("") not in found)


def records_of(file: Path, path: str | os.PathLike[str]) -> Iterator[tuple[Source, Record]]:
    """Records with where they are from, of one of the `record_files` of a path.

    Raises:
        RecordError: The file is damaged or of a newer schema.
    """
    if file.name == RUNS:
        for run_id, experiment, log, record in Packed(file.parent).records():
            yield Source(f"runs/{run_id}/{log}", run_id, experiment), record
        return
    name = file.name if file == Path(path) else file.relative_to(path).as_posix()
    described = file.with_name("run.json")
    run = read_document(described, dict[str, Any]) if described.is_file() else {}
    ids = (run.get(key) for key in ("run_id", "experiment"))
    source = Source(name, *(each if isinstance(each, str) else None for each in ids))
    for record in read_records(file):
        yield source, record
