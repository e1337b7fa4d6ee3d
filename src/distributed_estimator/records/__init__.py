"""Records of runs: one JSON object a line, safe to append to, to tear and to merge.

A file holds a `Header` (versions and machine), then a `QueryRecord` for each query or batch of
queries, a `TrainingRecord` for each epoch, a `TaskRecord` for each attempt at a task, or a
`DeviceRecord` for each job on a simulated device, or on one of several. `RecordWriter` appends,
`read_records` reads and merges. All other files of this package are written with what `files` has,
too.
"""

from ..checks import given_path
from .environment import Machine
from .files import RecordWriter, atomic, read_records, truncate_records
from .schema import (
    KINDS,
    SCHEMA_VERSION,
    CircuitInfo,
    DesignInfo,
    DeviceRecord,
    Header,
    MitigationInfo,
    QueryRecord,
    Record,
    StragglerInfo,
    Summary,
    TaskRecord,
    TrainingRecord,
    decode,
    encode,
    json_schema,
    new_run_id,
    plain,
    to_dict,
    utc_now,
)

__all__ = [
    "KINDS",
    "SCHEMA_VERSION",
    "CircuitInfo",
    "DeviceRecord",
    "Header",
    "Machine",
    "QueryRecord",
    "Record",
    "RecordWriter",
    "DesignInfo",
    "MitigationInfo",
    "StragglerInfo",
    "Summary",
    "TaskRecord",
    "TrainingRecord",
    "atomic",
    "decode",
    "encode",
    "given_path",
    "json_schema",
    "new_run_id",
    "plain",
    "read_records",
    "to_dict",
    "truncate_records",
    "utc_now",
]


def __dir__() -> list[str]:
    return sorted(__all__)
