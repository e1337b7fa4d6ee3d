"""Runs tasks on a pool and hands their results on as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed

from ..subexperiments import Backend, FragmentEstimate, FragmentExperiment, Task
from .pools import Pool

Result = tuple[Task, FragmentEstimate]

_SECONDS_PER_JOB = 0.01
"""Tasks expected to be shorter share a job, so that dispatch costs little beside them."""


def run_tasks(
    pool: Pool,
    backend: Backend,
    experiments: Sequence[FragmentExperiment],
    tasks: Sequence[Task],
    fold: Callable[[Task, FragmentEstimate, bool], None],
) -> None:
    """Run every task once and fold its result, in whatever order they finish.

    `fold` also learns whether other tasks still run meanwhile.

    The first task that fails cancels those not yet started; its error is raised.
    """
    jobs = list(_bundle(backend, experiments, tasks))
    if len(jobs) == 1 and pool.in_process and _is_short(backend, jobs[0]):
        for task, estimate in _run_job(backend, jobs[0]):
            fold(task, estimate, False)
        return
    futures = [pool.submit(_run_job, backend, job) for job in jobs]
    try:
        for future in as_completed(futures):
            overlapped = not all(other.done() for other in futures)
            for task, estimate in future.result():
                fold(task, estimate, overlapped)
    finally:
        for future in futures:
            future.cancel()


def _is_short(backend: Backend, job: Sequence[tuple[FragmentExperiment, Task]]) -> bool:
    return sum(backend.expected_seconds(*item) for item in job) < _SECONDS_PER_JOB


def _run_job(backend: Backend, job: Sequence[tuple[FragmentExperiment, Task]]) -> list[Result]:
    return [(task, backend.run(experiment, task)) for experiment, task in job]


def _bundle(
    backend: Backend, experiments: Sequence[FragmentExperiment], tasks: Sequence[Task]
) -> Iterator[list[tuple[FragmentExperiment, Task]]]:
    job: list[tuple[FragmentExperiment, Task]] = []
    seconds = 0.0
    for task in tasks:
        experiment = experiments[task.experiment]
        job.append((experiment, task))
        seconds += backend.expected_seconds(experiment, task)
        if seconds >= _SECONDS_PER_JOB:
            yield job
            job, seconds = [], 0.0
    if job:
        yield job
