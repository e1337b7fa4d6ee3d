"""Records of a file, sorted by kind, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import RecordError
from ..records import QueryRecord, TrainingRecord, read_records

RecordT = TypeVar("RecordT", QueryRecord, TrainingRecord)


@dataclass(frozen=True)
class QueryTotals:
    """What the queries of a run cost.

    Attributes:
        records: Query records: single queries or batches.
        queries: Expectation values asked for.
        subexperiments: Circuits times bindings that were run.
        shots: Shots over all of them; 0 for an exact run.
        seconds: T_total over all records.
        t_partition: Seconds of that stage over all records; so the next three.
        t_generate: See `t_partition`.
        t_execute: See `t_partition`.
        t_reconstruct: See `t_partition`.
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
        return sum((cls._of_one(record) for record in records), cls())

    @classmethod
    def _of_one(cls, record: QueryRecord) -> QueryTotals:
        return cls(
            records=1,
            queries=record.num_queries,
            subexperiments=record.num_subexperiments,
            shots=record.shots_total,
            seconds=record.t_total,
            t_partition=record.t_partition,
            t_generate=record.t_generate,
            t_execute=record.t_execute,
            t_reconstruct=record.t_reconstruct,
        )


def load_queries(path: Path | str) -> list[QueryRecord]:
    """The query records of a file, in the order they were written.

    Raises:
        RecordError: If the file cannot be read, is damaged or holds no query.
    """
    return _load(path, QueryRecord, "query")


def load_training(path: Path | str) -> list[TrainingRecord]:
    """The training records of a file, in the order they were written.

    Raises:
        RecordError: If the file cannot be read, is damaged or holds no training step.
    """
    return _load(path, TrainingRecord, "training")


def _load(path: Path | str, kind: type[RecordT], name: str) -> list[RecordT]:
    found = [record for record in read_records(path) if isinstance(record, kind)]
    if not found:
        raise RecordError(f"`{path}` holds no {name} record: name the file of a finished run")
    return found
