"""Where the time goes: the four stages of Eq. 1, summed and shared out."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RecordError
from ..records import QueryRecord

FloatArray = npt.NDArray[np.float64]

STAGES: tuple[tuple[str, str], ...] = (
    ("partition", "t_partition"),
    ("generate", "t_generate"),
    ("execute", "t_execute"),
    ("reconstruct", "t_reconstruct"),
)
"""Each stage with the record field that holds its seconds."""
_COUNTS = (
    *("num_cuts", "num_fragments", "num_circuits", "num_subexperiments", "num_queries"),
    *("shots_total", "subexp_workers"),
)
_LARGEST = 1e18
"""Of seconds and counts of anything that was run."""


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
    """The stages in order, then their total: T_total = T_part + T_gen + T_exec + T_rec.

    Raises:
        RecordError: If there is no record.
    """
    if not records:
        raise RecordError("no query record to tabulate: run a query with `log` first")
    return _rows([vars(record) for record in records])


def stages_of(metadata: Mapping[str, Any]) -> tuple[StageRow, ...]:
    """The same for one call, from the metadata of its result."""
    return _rows([metadata])


def _rows(records: Sequence[Mapping[str, Any]]) -> tuple[StageRow, ...]:
    total = _column(records, "t_total")
    rows = [_row(stage, _column(records, field), total) for stage, field in STAGES]
    return (*rows, _row("total", total, total))


def _column(records: Sequence[Mapping[str, Any]], field: str) -> FloatArray:
    return np.array([record[field] for record in records], dtype=float)


def _row(stage: str, seconds: FloatArray, total: FloatArray) -> StageRow:
    shares = np.divide(seconds, total, out=np.zeros_like(total), where=total > 0)
    whole = float(total.sum())
    return StageRow(
        stage=stage,
        seconds=float(seconds.sum()),
        share=float(seconds.sum()) / whole if whole > 0 else 0.0,
        median_seconds=float(np.median(seconds)),
        median_share=float(np.median(shares)),
        p95_share=float(np.quantile(shares, 0.95)),
    )


def check_record(record: QueryRecord) -> None:
    """Raises `RecordError` for times and counts that cannot be, as of a damaged record."""
    times = (*(field for _, field in STAGES), "t_total")
    values = {name: getattr(record, name) for name in (*times, *_COUNTS)}
    values |= {f"circuit.{name}": getattr(record.circuit, name) for name in ("num_qubits", "depth")}
    for name, value in values.items():
        if not 0 <= value <= _LARGEST or (name == "t_total" and value == 0):
            raise RecordError(
                f"`{name}` of query {record.query_id} (run {record.run_id}) is "
                f"{reprlib.repr(value)}, expected "
                f"{'seconds above 0' if name in times else 'a count'}: restore the records, or "
                "take it out"
            )
