"""Records of a query, of a task and of a training step, to be changed as a test needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distributed_estimator.records import (
    CircuitInfo,
    QueryRecord,
    Summary,
    TaskRecord,
    TrainingRecord,
)

QUERY = QueryRecord(
    run_id="run",
    query_id="query",
    started_at="2030-01-01T00:00:00.000+00:00",
    pipeline="contracted",
    circuit=CircuitInfo(4, 5, "key"),
    num_queries=80,
    partition_label="AABB",
    num_cuts=1,
    num_fragments=2,
    num_terms=6,
    num_subexperiments=800,
    num_circuits=10,
    shots=1024,
    shots_total=800 * 1024,
    setting_basis="full",
    backend="statevector",
    pool="threads",
    subexp_workers=8,
    policy="eager",
    t_partition=0.1,
    t_generate=0.2,
    t_execute=0.5,
    t_reconstruct=0.2,
    t_total=1.0,
    value=Summary.of([0.5]),
    stderr=Summary.of([0.1]),
    precision=None,
    seed=7,
)
TASK = TaskRecord(
    run_id="run",
    query_id="query",
    key="key 0",
    job=0,
    fragment=1,
    rows=(0, 2),
    circuits=(3, 1),
    chunk=0,
    shots=100,
    subexperiments=2,
    worker="0",
    attempt=0,
    purpose="first",
    submitted=0.5,
    started=1.0,
    finished=3.0,
    injected_delay=0.0,
    status="done",
)
STEP = TrainingRecord(
    run_id="run", step=0, epoch=0, loss=0.25, metrics={"ä": 0.5}, queries=80, at=1.5
)


def query_record(**changes: Any) -> QueryRecord:
    """`QUERY` with other stage times or fields; `t_total` is the sum of the stages."""
    changed = replace(QUERY, **changes)
    if "t_total" in changes:
        return changed
    stages = changed.t_partition, changed.t_generate, changed.t_execute, changed.t_reconstruct
    return replace(changed, t_total=sum(stages))
