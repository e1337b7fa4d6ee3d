"""The records of a study as a few Parquet files, and back.

`runs.parquet` has a row for each run with its documents as they were; `queries.parquet`,
`training.parquet`, `tasks.parquet` and `devices.parquet` have a row for each record, whose columns
are the record's fields behind `study_run_id` and `file`. Any Parquet reader opens them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import RecordError
from ..records import Header, Record, decode, encode, to_dict

if TYPE_CHECKING:
    import pyarrow

MANIFEST = "archive.json"
"""Says in an archive what was left out of it."""
RUNS = "runs.parquet"
TABLES = {
    "query": "queries.parquet",
    "training": "training.parquet",
    "task": "tasks.parquet",
    "device": "devices.parquet",
}
"""The file of each kind of record."""
_SOURCE = ("study_run_id", "file")
_RUN = ("run_id", "experiment", "run", "result", "headers")


@dataclass(frozen=True)
class PackedRun:
    """A run on its way into an archive.

    Attributes:
        run_id: The run.
        experiment: What it belongs to.
        documents: `run.json`, and `result.json` where it has ended.
        logs: By the name of a log, its records in order.
    """

    run_id: str
    experiment: str
    documents: dict[str, bytes]
    logs: dict[str, list[Record]]


def write_packed(place: Path, runs: Iterable[PackedRun]) -> None:
    """Writes the Parquet files of some runs into a folder; the same runs make the same bytes.

    Raises:
        OSError: The operating system refused to write.
        RecordError: A record holds what Parquet cannot, such as a whole number of over 64 bits.
    """
    rows: list[dict[str, Any]] = []
    records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        documents = {name: content.decode() for name, content in run.documents.items()}
        row = {"run_id": run.run_id, "experiment": run.experiment}
        headers = []
        for file, log in run.logs.items():
            source = dict(zip(_SOURCE, (run.run_id, file), strict=True))
            for record in log:
                if isinstance(record, Header):
                    headers.append({"file": file, "header": encode(record).decode()})
                else:
                    records[record.kind].append({**source, **to_dict(record)})
        result = documents.get("result.json")
        rows.append({**row, "run": documents["run.json"], "result": result, "headers": headers})
    _write(place / RUNS, rows)
    for kind, found in records.items():
        _write(place / TABLES[kind], found)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    if not any(row.get("metrics") for row in rows):  # Parquet has no empty struct
        rows = [{k: v for k, v in row.items() if k != "metrics"} for row in rows]
    try:
        try:
            table = pyarrow.Table.from_pylist(rows)
        except UnicodeEncodeError:  # half a character, as in the name of some file
            text = json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace")
            table = pyarrow.Table.from_pylist(json.loads(text))
        parquet.write_table(table, path, compression="zstd", compression_level=19)
    except (pyarrow.ArrowException, OverflowError) as error:
        raise RecordError(f"the records cannot be written as {path.name}: {error}") from error


class Packed:
    """Runs in the Parquet files of an archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder holds an archive of this kind."""
        return (folder / RUNS).is_file()

    @cached_property
    def _runs(self) -> dict[str, dict[str, Any]]:
        return {row["run_id"]: row for row in _read(self.folder / RUNS, _RUN)}

    @cached_property
    def _queries(self) -> dict[str, list[Record]]:
        return self._by_run("query", "queries.jsonl")

    @cached_property
    def _traces(self) -> dict[str, list[Record]]:
        found = self._by_run("task", "tasks.jsonl")
        for run_id, jobs in self._by_run("device", "devices.jsonl").items():
            found.setdefault(run_id, []).extend(jobs)
        return found

    def _by_run(self, kind: str, file: str) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for run_id, name, record in self._records(kind):
            if name == file:
                found.setdefault(run_id, []).append(record)
        return found

    def _records(self, kind: str) -> Iterator[tuple[str, str, Record]]:
        path = self.folder / TABLES[kind]
        for row in _read(path, _SOURCE) if path.is_file() else ():
            run_id, file = (row.pop(name) for name in _SOURCE)
            if kind == "training":  # a column for every metric that some run has
                metrics = row.get("metrics") or {}
                row["metrics"] = {k: v for k, v in metrics.items() if v is not None}
            try:
                yield run_id, file, decode(msgspec.json.encode(row))
            except RecordError as error:
                raise RecordError(f"{path} is damaged: {error}") from error

    def run_ids(self) -> list[str]:
        """Ids of its runs, sorted."""
        return sorted(self._runs)

    def document(self, run_id: str, name: str) -> tuple[str, bytes | None]:
        """Where a document of a run stands, and what it says; None: it is not there."""
        text = self._runs[run_id].get(Path(name).stem)
        return f"{name} of run {run_id} in {self.folder}", None if text is None else text.encode()

    def queries(self, run_id: str) -> list[Record] | None:
        """Headers and query records of a run; None: it has none."""
        headers = [
            decode(one["header"].encode())
            for one in self._runs[run_id]["headers"]
            if one["file"] == "queries.jsonl"
        ]
        return [*headers, *self._queries.get(run_id, ())] or None

    def traces(self, run_id: str) -> list[Record]:
        """Task and device records of a run."""
        return self._traces.get(run_id, [])

    def traced(self) -> set[str]:
        """Ids of the runs that recorded their tasks."""
        return {
            run_id
            for run_id, records in self._traces.items()
            if any(record.kind == "task" for record in records)
        }

    def records(self) -> Iterator[tuple[str, str, str, Record]]:
        """All records: the id of its run, its experiment, the log it was in, and the record."""
        for run_id, row in self._runs.items():
            for one in row["headers"]:
                yield run_id, row["experiment"], one["file"], decode(one["header"].encode())
        for kind in TABLES:
            for run_id, file, record in self._records(kind):
                if run_id not in self._runs:
                    path = self.folder / TABLES[kind]
                    raise RecordError(f"{path} is damaged: its run {run_id!r:.40} is not in {RUNS}")
                yield run_id, self._runs[run_id]["experiment"], file, record


def _read(path: Path, columns: Collection[str]) -> list[dict[str, Any]]:
    """Rows of a Parquet file that has some columns.

    Raises:
        RecordError: It cannot be read, or is damaged.
    """
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
