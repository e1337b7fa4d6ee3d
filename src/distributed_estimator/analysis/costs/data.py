"""Query records sorted for a fit: by setup, then by configuration."""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import RecordError
from ...records import Header, QueryRecord, Record, encode, given_path, read_records
from ..columns import each_once
from ..tables import STAGES
from .features import Features, Setup

FloatArray = NDArray[np.float64]

TIMES: tuple[str, ...] = (*(field for _, field in STAGES), "t_total")
"""Record fields of the stages, then of their total."""
_COUNTS = (
    "num_cuts",
    "num_fragments",
    "num_circuits",
    "num_subexperiments",
    "num_queries",
    "shots_total",
    "subexp_workers",
)
_LOGS = ("queries.jsonl", "queries.jsonl.gz")
CLOCK = 1e-6
"""Seconds that a clock tells apart: what took less counts as this much."""
_MOST = 1e18
"""Greater numbers are no count and no time of anything that was run."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """Records whose features are the same.

    Attributes:
        features: What they share.
        times: Seconds, shape (records, stages and their total); at least `CLOCK` each.
    """

    features: Features
    times: FloatArray

    @property
    def median(self) -> FloatArray:
        """Over the records, shape (stages and their total,): one slow call moves it little."""
        return np.asarray(np.median(self.times, axis=0))


@dataclass(frozen=True, eq=False)
class CostData:
    """What there is to fit.

    Attributes:
        configurations: By setup, each in the order of its features.
        left_out: Numbers of records that no law is fitted to, by the reason.
        num_records: Those that are left.
        hash: SHA-256 over these, whatever their order and files.
    """

    configurations: dict[Setup, tuple[Configuration, ...]]
    left_out: dict[str, int]
    num_records: int
    hash: str

    @classmethod
    def of(cls, records: Iterable[Record]) -> CostData:
        """Sorts query records; others are ignored.

        Raises:
            RecordError: A time is no number of seconds, a total is 0, or a count cannot be; names
                the record.
        """
        left_out: Counter[str] = Counter()
        kept: list[QueryRecord] = []
        for record in records:
            if not isinstance(record, QueryRecord):
                continue
            check_record(record)
            reason = reason_left_out(record)
            if reason is None:
                kept.append(record)
            else:
                left_out[reason] += 1
        lines = sorted(encode(record) for record in kept)
        content = hashlib.sha256(b"\n".join(lines)).hexdigest()
        return cls(_by_setup(kept), dict(sorted(left_out.items())), len(kept), content)


def read_costs(*paths: str | os.PathLike[str]) -> tuple[list[QueryRecord], list[Header]]:
    """Query records and headers of record files, and of all `queries.jsonl` in folders.

    A file is read once, however many paths lead to it.

    Raises:
        RecordError: A path is missing, a folder has no such file, or a file is damaged.
    """
    files = {file.resolve(): file for path in paths for file in _files(given_path(path))}
    found = list(read_records(*files.values()))
    queries = [record for record in found if isinstance(record, QueryRecord)]
    headers = [record for record in found if isinstance(record, Header)]
    if not queries:
        named = ", ".join(f"`{path}`" for path in paths)
        raise RecordError(f"{named} has no query record: name what a finished run left behind")
    return queries, headers


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = each_once(file for name in _LOGS for file in path.rglob(name) if file.is_file())
    if not files:
        raise RecordError(
            f"`{path}` has no `queries.jsonl` in it: name the folder of a run or a study"
        )
    return files


def check_record(record: QueryRecord) -> None:
    """Refuses what nobody has measured or run: the record is damaged, or was edited."""
    for name in TIMES:
        seconds = getattr(record, name)
        if not 0 <= seconds <= _MOST or (name == "t_total" and seconds == 0):
            raise _damaged(record, name, seconds, "seconds above 0")
    counts = {name: getattr(record, name) for name in _COUNTS}
    counts |= {f"circuit.{name}": getattr(record.circuit, name) for name in ("num_qubits", "depth")}
    for name, count in counts.items():
        if not 0 <= count <= _MOST:
            raise _damaged(record, name, count, "a count")


def _damaged(record: QueryRecord, name: str, value: float, expected: str) -> RecordError:
    return RecordError(
        f"`{name}` of query {record.query_id} (run {record.run_id}) is {reprlib.repr(value)}, "
        f"expected {expected}: restore the records, or take it out"
    )


def reason_left_out(record: QueryRecord) -> str | None:
    """Why the cost of a record is not that of its features; None: it is."""
    straggler = record.straggler
    if record.precision:
        return "asked for a precision: pilots and rounds are not told apart"
    if straggler.p != 0 or straggler.slow_worker is not None:
        return "stragglers were injected"
    if record.retries or record.speculated or record.missing:
        return "tasks were repeated or missing"
    if record.num_queries == 0 or (record.num_circuits > 0 and record.num_subexperiments == 0):
        return "nothing ran"
    return None


def _by_setup(records: Sequence[QueryRecord]) -> dict[Setup, tuple[Configuration, ...]]:
    times: defaultdict[Setup, defaultdict[Features, list[list[float]]]]
    times = defaultdict(lambda: defaultdict(list))
    for record in records:
        taken = [max(CLOCK, getattr(record, name)) for name in TIMES]
        times[Setup.of(record)][Features.of(record)].append(taken)
    return {
        setup: tuple(
            Configuration(features, np.array(taken)) for features, taken in sorted(own.items())
        )
        for setup, own in sorted(times.items())
    }
