"""What is logged: one JSON object a line, safe to append to, to tear and to merge.

A file holds a `Header` (versions and machine), then a `QueryRecord` for each query or batch of
queries and a `TrainingRecord` for each training step. `RecordWriter` appends, `read_records`
reads and merges.
"""

from .codec import KINDS, decode, encode, plain, to_dict
from .files import RecordWriter, atomic, given_path, read_records, truncate_records
from .json_schema import json_schema
from .schema import (
    SCHEMA_VERSION,
    CircuitInfo,
    DeviceRecord,
    Header,
    Machine,
    QueryRecord,
    Record,
    StragglerInfo,
    Summary,
    TaskRecord,
    TrainingRecord,
    new_run_id,
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
    "StragglerInfo",
    "Summary",
    "TaskRecord",
    "TrainingRecord",
    "atomic",
    "decode",
    "encode",
    "given_path",
    "json_schema",
    "plain",
    "new_run_id",
    "read_records",
    "to_dict",
    "truncate_records",
    "utc_now",
]
