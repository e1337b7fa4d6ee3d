"""Records: a frozen dataclass for each kind of line, and what follows from its declaration.

`encode` and `decode` turn a record into one line of strict JSON and back, and `json_schema`
describes the lines for others. Not-a-number and infinities are written as ``null``, because JSON
has neither; where a number must stand, ``null`` is read back as NaN.
"""

from __future__ import annotations

import inspect
import json
import math
import platform
import re
import reprlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NoReturn,
    TypeAlias,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
import numpy as np

from ..errors import RecordError
from .environment import Machine, processor_model, source_checkout, thread_limits
from .environment import installed as installed

SCHEMA_VERSION = 1
MAX_LISTED_VALUES = 16
PACKAGES = ("distributed-estimator", "numpy", "qiskit", "qiskit-aer", "qiskit-addon-cutting")

TaskStatus = Literal["done", "late", "failed", "lost", "damaged", "cancelled"]
_Version = Annotated[int, msgspec.Meta(extra_json_schema={"const": SCHEMA_VERSION})]


@dataclass(frozen=True)
class CircuitInfo:
    """A circuit's width, depth (layers of instructions) and structure hash `key`."""

    num_qubits: int
    depth: int
    key: str


@dataclass(frozen=True)
class StragglerInfo:
    """Injected stragglers (§III): each subexperiment slept with probability `p`.

    `delay` is the mean delay in seconds and `distribution` says how delays are distributed.
    `injected` tasks did sleep, for `injected_seconds` in all, the slow worker's included: that is
    the worker with the number `slow_worker`, which sleeps `slow_delay` seconds before every task.
    """

    p: float = 0.0
    delay: float = 0.0
    injected: int = 0
    injected_seconds: float = 0.0
    distribution: str = "constant"
    slow_worker: int | None = None
    slow_delay: float | None = None


@dataclass(frozen=True)
class Summary:
    """A number for every query of a batch, summed up; all of them if there are at most 16.

    Example:
        >>> Summary.of([1.0, 3.0])
        Summary(count=2, mean=2.0, min=1.0, max=3.0, values=(1.0, 3.0))
    """

    count: int
    mean: float
    min: float
    max: float
    values: tuple[float, ...] | None = None

    @classmethod
    def of(cls, numbers: float | Sequence[float] | np.ndarray[Any, np.dtype[Any]]) -> Summary:
        """Sums up numbers of any shape; of none, mean, min and max are NaN."""
        flat = np.asarray(numbers, dtype=float).ravel()
        values = tuple(flat.tolist()) if flat.size <= MAX_LISTED_VALUES else None
        if not flat.size:
            return cls(0, math.nan, math.nan, math.nan, values)
        with np.errstate(all="ignore"):
            mean = float(flat.mean())
        return cls(flat.size, mean, float(flat.min()), float(flat.max()), values)


@dataclass(frozen=True)
class DesignInfo:
    """How the shots of a round were divided, where they were not fixed.

    `allocation` is the rule. Of all shots, `pilot_shots` were taken before the first round and only
    chose how to divide, which was `fragment_shots` for each fragment of the first round; the
    largest standard error was to be `stderr`. `drawn` are the numbers of the fragments whose
    settings were drawn at random; none where it is left out. `norm` is that of the errors which was
    to meet the precision; where it is left out, the largest error was.
    """

    allocation: str
    pilot_shots: int
    fragment_shots: tuple[int, ...]
    stderr: float
    drawn: tuple[int, ...] | None = None
    norm: str | None = None


@dataclass(frozen=True)
class MitigationInfo:
    """What was done about the noise of the backend.

    Each circuit ran as `twirling` copies (0: as it is), with two-qubit gates `factors` times over;
    the `extrapolator` made one value of those at all factors (None: there is one). Where `readout`
    errors were taken out, `readout_stderr` is the largest part of a standard error that their
    calibration causes, and `calibrated_at` the time of the oldest calibration, ISO-8601, UTC.
    """

    readout: bool
    twirling: int
    factors: tuple[int, ...]
    extrapolator: str | None = None
    readout_stderr: float | None = None
    calibrated_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class QueryRecord:
    """One query, or one batch of queries evaluated together (paper §III, Eq. 1).

    All `t_…` fields are seconds: t_total = t_partition + t_generate + t_execute + t_reconstruct,
    and t_overlapped is reconstruction done while tasks still ran (not part of the sum).
    """

    kind: ClassVar[str] = "query"

    run_id: str
    query_id: str
    started_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    """ISO-8601, UTC."""
    pipeline: Literal["contracted", "reference"]
    quantity: Literal["value", "gradient"] = "value"
    """What was asked of every query."""
    circuit: CircuitInfo
    num_queries: Annotated[int, msgspec.Meta(ge=0)]
    partition_label: str | None
    num_cuts: int
    num_fragments: int
    max_fragment_qubits: int | None = None
    """Qubits of the widest fragment that runs, 0 where none does; None: an older record."""
    num_terms: int
    """Terms of the quasi-probability decomposition, summed one by one or not."""
    num_subexperiments: int
    """Circuits times bindings really run; for exact values, that their tensors stand for."""
    num_circuits: int
    shots: int | None
    """Shots a subexperiment, as the backend took them; None: exact, or not one number for all."""
    shots_total: int
    setting_basis: str
    backend: str
    pool: str
    subexp_workers: int
    policy: str
    straggler: StragglerInfo = StragglerInfo()
    t_partition: float
    t_generate: float
    t_execute: float
    t_reconstruct: float
    t_overlapped: float = 0.0
    t_total: float
    plan_cached: bool = False
    retries: int = 0
    speculated: int = 0
    missing: int = 0
    """Tasks that had not arrived at the deadline; the value is made of the others, or of the whole
    round before them, which a round that is cut short does not replace."""
    value: Summary
    stderr: Summary
    stderr_first_order: int = 0
    """Queries whose standard error is to first order, as the unbiased variance was not positive or
    would have taken long."""
    precision: float | None
    design: DesignInfo | None = None
    """None: shots were fixed, or there were none; such a line leaves it out."""
    mitigation: MitigationInfo | None = None
    """None: nothing; such a line leaves it out."""
    seed: int | None
    schema_version: _Version = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One epoch of training; `queries` counts those asked so far, `at` is seconds since start."""

    kind: ClassVar[str] = "training"

    run_id: str
    step: int
    epoch: int
    loss: float
    metrics: dict[str, float]
    queries: int
    at: float
    schema_version: _Version = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One attempt at a task. Times are seconds since its query began."""

    kind: ClassVar[str] = "task"

    run_id: str
    query_id: str
    """Of the query record that the task belongs to."""
    key: str
    """The task's identity: the same for all attempts at it."""
    job: int
    """Tasks of one job ran one after the other on one worker."""
    fragment: int
    rows: tuple[int, ...]
    """First row of local bindings, and how many."""
    circuits: tuple[int, ...]
    """First of the fragment's circuits, and how many."""
    chunk: int
    """Which part of the shots, where these are divided."""
    shots: int | None
    """A circuit: those of its result, or where there is none, those asked for; None: exact."""
    subexperiments: int
    worker: str
    """The worker's name within the pool; empty where none began."""
    attempt: int
    """How often the task was submitted before."""
    purpose: str
    """"first", "retry", "duplicate" or "restart"."""
    submitted: float
    started: float | None
    finished: float
    injected_delay: float
    """Seconds of an injected straggler."""
    status: TaskStatus
    """A late one was overtaken by another attempt."""
    cause: str | None = None
    schema_version: _Version = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class DeviceRecord:
    """A job on a device, real or simulated. Times are seconds on the clock of the run.

    Of a real device, times that its service does not tell are those that the client saw.
    """

    kind: ClassVar[str] = "device"

    device: str
    job: int
    """Counts from 0 on each device."""
    task: str
    """The task's key."""
    circuits: int
    shots: int
    """A circuit; 0 for exact values."""
    submitted: float
    """When the caller sent it."""
    queued: float
    """When it arrived at the device, after the network."""
    started: float
    finished: float
    returned: float
    """When the caller had the result."""
    status: str
    """"done" or "failed"."""
    service_job: str | None = None
    """The id that the service gave it; None: it is simulated, as for the fields that follow."""
    calibrated_at: str | None = None
    """When the device was calibrated, ISO-8601, UTC; None: the service does not say."""
    charged_seconds: float | None = None
    """Seconds of the device that the service charged for."""
    options: str | None = None
    """Options of the sampler other than its defaults, as text, without accounts and addresses."""
    schema_version: _Version = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Header:
    """Stands first in a file: what wrote the records after it.

    `versions` are those of Python and of `PACKAGES` (None: not installed). Fields that came later
    are None or empty in older files.
    """

    kind: ClassVar[str] = "header"

    versions: dict[str, str | None]
    machine: Machine
    processor: str | None = None
    """The processor's model."""
    threads: dict[str, str | None] = field(default_factory=dict)
    """Environment variables that limit threads (None: not set), and `usable_cpus`."""
    commit: str | None = None
    """Of the source checkout that the package ran from; None: installed, or not known."""
    dirty: bool | None = None
    """Whether the package's sources differed from that commit."""
    config_hash: str | None = None
    """Of the configuration of the run, where the writer was given it."""
    attempt: int | None = None
    """How often the run was begun, this time included, where the writer was given it."""
    schema_version: _Version = SCHEMA_VERSION

    @classmethod
    def current(cls, *, config_hash: str | None = None, attempt: int | None = None) -> Header:
        """Describes this process, and the run it is in."""
        versions = {name: installed(name) for name in PACKAGES}
        versions["python"] = platform.python_version()
        checkout = source_checkout()
        return cls(
            versions=versions,
            machine=Machine.current(),
            processor=processor_model(),
            threads=thread_limits(),
            commit=checkout.commit,
            dirty=checkout.dirty,
            config_hash=config_hash,
            attempt=attempt,
        )


def new_run_id() -> str:
    """Twelve hexadecimal digits that no other run has."""
    return uuid.uuid4().hex[:12]


def utc_now() -> str:
    """The time now, ISO-8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


Record: TypeAlias = Header | QueryRecord | TrainingRecord | TaskRecord | DeviceRecord
KINDS: dict[str, type[Record]] = {
    kind.kind: kind for kind in (Header, QueryRecord, TrainingRecord, TaskRecord, DeviceRecord)
}
"""Each kind of line with its dataclass."""


def to_dict(record: Record) -> dict[str, Any]:
    """The fields of a record, `kind` first, nested ones as dicts; NaN stays NaN."""
    nested = {
        name: _values(value) if is_dataclass(value) else value
        for name, value in _values(record).items()
    }
    return {"kind": record.kind, **nested}


def _values(record: Any) -> dict[str, Any]:
    """All fields; those that a line left out are attributes of the class alone."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def plain(value: Any) -> Any:
    """A value for strict JSON: NumPy's numbers as Python's, NaN and infinities as None."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def encode(record: Record) -> bytes:
    """A record as one line of ASCII, without the newline; NumPy's numbers are written as Python's.

    Raises:
        RecordError: A field holds what JSON has no word for, or a word that no reader takes.
    """
    fields = {"kind": record.kind, **_values(record)}
    # Hashes depend on the text of older lines.
    fields = {n: own for n, own in fields.items() if own is not None or n not in _LEFT_OUT}
    if isinstance(design := fields.get("design"), DesignInfo):
        fields["design"] = {name: own for name, own in vars(design).items() if own is not None}
    for name, words in _words(record.kind).items():
        if fields[name] not in words:
            raise RecordError(f"{name} is {fields[name]!r}: use one of {', '.join(words)}")
    try:
        try:
            line = _ENCODER.encode(fields)
        except ValueError:  # not finite: rare, so looked for only now
            line = _ENCODER.encode(plain(fields))
    except (TypeError, ValueError) as error:
        raise RecordError(f"a {record.kind} record cannot be written as JSON: {error}") from error
    return line.encode("ascii")


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return vars(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{reprlib.repr(value)} is no value of JSON")


def parse(line: bytes) -> Any:
    """Any JSON value that a line holds.

    Raises:
        ValueError: The line is not strict JSON in UTF-8, or holds a number that is not finite.
    """
    try:
        return _DECODER.decode(line.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no finite number")


_LEFT_OUT = {
    *("design", "mitigation"),
    *("service_job", "calibrated_at", "charged_seconds", "options"),
}
"""Fields that came later, and that a line leaves out where they are null."""
# Not msgspec's codec: hashes depend on the text of lines, and it has no half characters.
_ENCODER = json.JSONEncoder(allow_nan=False, default=_as_json)
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)


def decode(line: bytes) -> Record:
    """The record on one line; keys that this version does not know are ignored.

    Raises:
        RecordError: No JSON, an unknown kind, a field missing or of the wrong type, or a newer
            schema; the message says which.
    """
    try:
        data = parse(line)
    except ValueError as error:
        raise RecordError(f"it is not JSON ({error})") from error
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int:
        raise RecordError("it is no JSON object with a whole number `schema_version`")
    if data["schema_version"] > SCHEMA_VERSION:
        raise RecordError(
            f"its schema version is {data['schema_version']} and this release reads up to "
            f"{SCHEMA_VERSION}: install a newer distributed-estimator"
        )
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RecordError(f"its kind is {kind!r}, expected one of {sorted(KINDS)}")
    try:
        try:
            return msgspec.convert(data, KINDS[kind])
        except msgspec.ValidationError:  # perhaps for a null where a number must stand
            return msgspec.convert(_with_nan(KINDS[kind], data), KINDS[kind])
    except msgspec.ValidationError as error:
        place = re.search(r"`\$\.(\w+)", str(error))
        found = f"its field `{place[1]}` is {reprlib.repr(data[place[1]])}: " if place else ""
        raise RecordError(f"{found}{error}") from error


@cache
def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _words(kind: str) -> dict[str, tuple[str, ...]]:
    """The words that fields of a kind of records may hold, where there is a list of them."""
    return {
        name: get_args(hint)
        for name, hint in get_type_hints(KINDS[kind]).items()
        if get_origin(hint) is Literal
    }


def _with_nan(hint: Any, value: Any) -> Any:
    """JSON for a type, NaN where a number must stand and null does."""
    if value is None:
        return math.nan if hint is float else None
    if isinstance(hint, UnionType):  # of a type and None
        hint = get_args(hint)[0]
    if isinstance(value, dict) and is_dataclass(hint):
        hints = _fields(cast(Any, hint))
        return {name: _with_nan(hints.get(name), item) for name, item in value.items()}
    if isinstance(value, dict) and get_origin(hint) is dict:
        return {name: _with_nan(get_args(hint)[1], item) for name, item in value.items()}
    if isinstance(value, list) and get_origin(hint) is tuple:
        return [_with_nan(get_args(hint)[0], item) for item in value]
    return value


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of one line of a record file, whatever its kind.

    Fields that came later are not required, since older files lack them, and fields that are not
    known are allowed, since newer files may have them: readers take both. `null` stands where a
    number is not a number, so every fractional number may be `null`.

    Example:
        >>> sorted(json_schema()["$defs"])[:3]
        ['CircuitInfo', 'DesignInfo', 'DeviceRecord']
    """
    kinds, definitions = msgspec.json.schema_components(
        KINDS.values(), ref_template="#/$defs/{name}"
    )
    for kind in KINDS.values():
        definition = definitions[kind.__name__]
        definition["properties"] = {"kind": {"const": kind.kind}, **definition["properties"]}
        definition["required"] = ["kind", *definition["required"], "schema_version"]
    for name, definition in definitions.items():
        about = re.split("(?:Raises|Example):", definition["description"])[0]
        definition["description"] = " ".join(about.split())
        for field_name, note in _field_notes(globals()[name]):
            definition["properties"][field_name]["description"] = note
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "DistributedEstimator record",
        "description": "One line of a record file, such as queries.jsonl.",
        "oneOf": list(kinds),
        "$defs": _nullable(definitions),
    }


def _nullable(schema: Any) -> Any:
    """A JSON Schema in which every fractional number may be null."""
    if isinstance(schema, dict):
        schema = {key: _nullable(item) for key, item in schema.items()}
        return schema | {"type": ["number", "null"]} if schema.get("type") == "number" else schema
    return list(map(_nullable, schema)) if isinstance(schema, list) else schema


def _field_notes(kind: type[Any]) -> list[tuple[str, str]]:
    """Fields with the texts that stand below them in the source, which Python does not keep."""
    found = re.findall(r'\n    (\w+): .+\n    """([^\0]+?)"""(?=\n)', inspect.getsource(kind))
    return [(name, " ".join(note.split())) for name, note in found]
