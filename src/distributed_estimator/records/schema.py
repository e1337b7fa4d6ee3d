"""What a record says: frozen dataclasses, one for each kind of line."""

from __future__ import annotations

import math
import os
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ..errors import RecordError
from .environment import processor_model, source_checkout, thread_limits

SCHEMA_VERSION = 1
MAX_LISTED_VALUES = 16
PIPELINES = ("contracted", "reference")
QUANTITIES = ("value", "gradient")
TASK_STATUSES = ("done", "late", "failed", "lost", "damaged", "cancelled")
PACKAGES = ("distributed-estimator", "numpy", "qiskit", "qiskit-aer", "qiskit-addon-cutting")


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


@dataclass(frozen=True, kw_only=True)
class QueryRecord:
    """One query, or one batch of queries evaluated together (paper §III, Eq. 1).

    All `t_…` fields are seconds: t_total = t_partition + t_generate + t_execute + t_reconstruct,
    and t_overlapped is reconstruction done while tasks still ran (not part of the sum).

    Raises:
        RecordError: `pipeline` is unknown or `num_queries` negative.
    """

    kind: ClassVar[str] = "query"

    run_id: str
    query_id: str
    started_at: str
    """ISO-8601, UTC."""
    pipeline: str
    """"contracted" or "reference"."""
    quantity: str = "value"
    """"value" or "gradient": what was asked of every query."""
    circuit: CircuitInfo
    num_queries: int
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
    round before them where that had more shots."""
    value: Summary
    stderr: Summary
    stderr_first_order: int = 0
    """Queries whose unbiased variance was not positive, so that the first-order one stands in."""
    precision: float | None
    seed: int | None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.pipeline not in PIPELINES:
            raise RecordError(f'pipeline is {self.pipeline!r}: use "contracted" or "reference"')
        if self.quantity not in QUANTITIES:
            raise RecordError(f'quantity is {self.quantity!r}: use "value" or "gradient"')
        if self.num_queries < 0:
            raise RecordError(f"num_queries is {self.num_queries}: it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One step of training; `queries` counts those asked so far, `at` is seconds since start."""

    kind: ClassVar[str] = "training"

    run_id: str
    step: int
    epoch: int
    loss: float
    metrics: dict[str, float]
    queries: int
    at: float
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One attempt at a task. Times are seconds since its query began.

    Raises:
        RecordError: `status` is unknown.
    """

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
    status: str
    """"done", "late" (another attempt won), "failed", "lost", "damaged" or "cancelled"."""
    cause: str | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.status not in TASK_STATUSES:
            raise RecordError(f"status is {self.status!r}: use one of {TASK_STATUSES}")


@dataclass(frozen=True, kw_only=True)
class DeviceRecord:
    """A job on a simulated device. Times are seconds on the fleet's clock."""

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
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Machine:
    """Where records were made; names neither the host nor the user. None: not known."""

    system: str
    architecture: str
    cpu_count: int | None
    memory_bytes: int | None

    @classmethod
    def current(cls) -> Machine:
        """Describes the machine this process runs on."""
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            memory = None
        return cls(platform.system(), platform.machine(), os.cpu_count(), memory)


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
    """Of the configuration of the run, where the writer was told one."""
    attempt: int | None = None
    """How often the run was begun, this time included, where the writer was told."""
    schema_version: int = SCHEMA_VERSION

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


def installed(package: str) -> str | None:
    """The version of a package; None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


Record: TypeAlias = Header | QueryRecord | TrainingRecord | TaskRecord | DeviceRecord
