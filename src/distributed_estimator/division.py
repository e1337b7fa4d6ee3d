"""How a fragment's rows, circuits and shots are divided into tasks: by configuration alone."""

from __future__ import annotations

from .execution import Policy
from .subexperiments import Backend, FragmentExperiment


def rows_per_task(experiment: FragmentExperiment, backend: Backend, policy: Policy) -> int:
    """Rows that make a task at most."""
    rows = backend.rows_per_task(experiment)
    if policy.subexperiments is None:
        return rows
    return min(rows, max(1, policy.subexperiments // max(1, experiment.num_circuits)))


def circuits_per_task(
    experiment: FragmentExperiment, backend: Backend, policy: Policy
) -> int | None:
    """Subexperiments that make a sampled task at most; None: a row is never divided."""
    limits = backend.circuits_per_task(experiment), policy.subexperiments
    return min((limit for limit in limits if limit is not None), default=None)


def chunks(policy: Policy) -> int:
    """Tasks that share the shots of a subexperiment."""
    return 1 if policy.deadline is None else policy.deadline.chunks


def tasks_per_row(
    experiment: FragmentExperiment, backend: Backend, policy: Policy, shots: int | None
) -> int:
    """Tasks that a row's circuits and shots are divided into; 1 for exact values."""
    if shots is None:
        return 1
    circuits = circuits_per_task(experiment, backend, policy)
    parts = 1 if circuits is None else -(-experiment.num_circuits // circuits)
    return chunks(policy) * max(1, parts)
