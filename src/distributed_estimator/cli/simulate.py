"""`dest simulate`: how long a run would take on how many workers, and how long at least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import click
import numpy as np
from msgspec import Meta
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import InputError
from ..execution.policies import LargestInfluenceFirst, Policy
from ..execution.stragglers import Stragglers
from ..records import TaskRecord, read_records
from ..simulation import Load, Service, SimulationResult, parse_service
from ..simulation import simulate as simulate_run
from ..training.policies import Seconds, StragglerSettings
from ..training.settings import Config, Count, about
from ._options import (
    json_option,
    options_of,
    policy_options,
    straggler_options,
    take,
    take_policy,
)
from ._output import counted, duration, note, print_json, print_table, progress_console
from ._paths import PATH

MOST_WORKERS = 10_000
MOST_TASKS = 1_000_000
_DEFAULT_TASKS = 1000


@dataclass(frozen=True)
class SimulateSettings(Config):
    """A simulation, besides policy and stragglers."""

    service: Annotated[
        str | None,
        about(
            "Seconds that tasks take: constant:SECONDS, exponential:MEAN, lognormal:MEDIAN,SIGMA "
            "or pareto:SCALE,SHAPE."
        ),
    ] = None
    num_tasks: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_TASKS)] | None,
        about(
            "Number of tasks; with --records, drawn from those. None: those of the records, or "
            f"{_DEFAULT_TASKS}.",
            option="--tasks",
        ),
    ] = None
    workers: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=MOST_WORKERS)], ...],
        Meta(
            min_length=1,
            title=f"a list of whole numbers from 1 to {MOST_WORKERS}, such as 1,2,4,8",
        ),
        about("Numbers of workers, one after the other."),
    ] = (1, 2, 4, 8)
    overhead: Annotated[
        Seconds, about("Seconds that a worker spends on every job besides its tasks.")
    ] = 0.0
    job_seconds: Annotated[
        Seconds, about("Seconds that a job should take at least: shorter tasks share one.")
    ] = 0.0
    repeats: Annotated[
        Count, about("Runs to take the mean of, each with tasks and delays of its own.")
    ] = 1
    seed: Annotated[Annotated[int, Meta(ge=0)], about("Of tasks, services and delays.")] = 7


@dataclass(frozen=True, eq=False)
class _Question:
    """A simulation, with all that it needs."""

    records: Load | None
    service: Service | None
    settings: SimulateSettings
    policy: Policy
    stragglers: Stragglers | None

    def load(self, seed: int) -> Load:
        if self.records is None:
            assert self.service is not None
            return Load.drawn(self.service, self.settings.num_tasks or _DEFAULT_TASKS, seed)
        number = self.settings.num_tasks
        return self.records.resampled(number, seed) if number else self.records

    def run(self, workers: int, repeat: int) -> SimulationResult:
        """One run; the same repeat has the same tasks and delays on any number of workers."""
        seed = int(np.random.SeedSequence([self.settings.seed, repeat]).generate_state(1)[0])
        load = self.load(seed)
        return simulate_run(
            load.tasks,
            load.services,
            self.policy,
            workers,
            stragglers=self.stragglers,
            overhead=self.settings.overhead,
            job_seconds=self.settings.job_seconds,
            seed=seed,
        )


@click.command(short_help="Simulate a run on any number of workers.")
@click.option(
    "--records",
    type=PATH,
    metavar="FILE",
    help="Task records of a traced run: its tasks and how long they took.",
)
@options_of(SimulateSettings)
@policy_options({"size": "--batch-size"})
@straggler_options
@json_option
def simulate(as_json: bool, **options: Any) -> None:
    """Simulate a run: the dispatcher of real runs on a virtual clock.

    Tasks take as long as --records or --service say. The lower bound is an expected time that no
    policy can beat, however it orders, restarts and duplicates tasks; speed-up is against one
    worker under the same policy, useful the share of all workers' time that went into results.
    """
    question = _read(**options)
    workers, repeats = question.settings.workers, question.settings.repeats
    with progress_console().status("simulating") as status:

        def runs(number: int) -> list[SimulationResult]:
            status.update(f"simulating {counted(number, 'worker')}")
            return [question.run(number, repeat) for repeat in range(repeats)]

        alone = runs(1)
        results = [alone if number == 1 else runs(number) for number in workers]
    if any(_gave_up(result, question.policy) for each in (alone, *results) for result in each):
        note(
            "tasks are missing, since jobs took so long that they counted as lost, as in a real "
            "run: give `--timeout SECONDS`, more than the longest job takes"
        )
    stragglers = question.stragglers
    head = {
        "num_tasks": len(question.load(0).tasks),
        "policy": question.policy.name,
        "straggler_p": 0.0 if stragglers is None else stragglers.p,
        "straggler_distribution": None if stragglers is None else stragglers.name,
        "repeats": repeats,
        "seed": question.settings.seed,
        "rows": [_row(each, alone) for each in results],
    }
    if as_json:
        print_json(head)
    else:
        _print_text(head, stragglers)


def _read(records: Path | None, **options: Any) -> _Question:
    settings = take(SimulateSettings, options)
    if (records is None) == (settings.service is None):
        raise click.UsageError(
            "give `--records FILE` or `--service TEXT`, one of them, to say how long tasks take"
        )
    policy, stragglers = take_policy(options).policy, take(StragglerSettings, options).stragglers
    if policy.subexperiments is not None:
        raise click.UsageError(
            "`--subexperiments-per-task` has no effect on tasks that are given: leave it out"
        )
    if isinstance(policy.order, LargestInfluenceFirst):
        note("what the result depends on most is not known here: tasks run as generated")
    return _Question(
        records=None if records is None else _measured(records),
        service=None if settings.service is None else parse_service(settings.service),
        settings=settings,
        policy=policy,
        stragglers=stragglers,
    )


def _measured(path: Path) -> Load:
    found = [record for record in read_records(path) if isinstance(record, TaskRecord)]
    if not found:
        raise InputError(
            f"`{path}` has no task records: give the task records of a traced run, not its queries"
        )
    queries = {(record.run_id, record.query_id) for record in found}
    if len(queries) > 1:
        note(f"the tasks of {counted(len(queries), 'query record')} are simulated as one run")
    return Load.measured(found)


def _gave_up(result: SimulationResult, policy: Policy) -> bool:
    """Whether tasks are missing that the deadline did not end."""
    in_time = policy.deadline is None or result.makespan < policy.deadline.seconds
    return result.missing > 0 and (in_time or result.retries > 0)


def _row(results: Sequence[SimulationResult], alone: Sequence[SimulationResult]) -> dict[str, Any]:
    """Means over the repeats on one number of workers; None where tasks are missing."""
    times = [result.makespan for result in results]
    time = fmean(times)
    is_whole = not any(result.missing for result in (*results, *alone))
    bounds = [result.lower_bound for result in results if result.lower_bound is not None]
    bound = fmean(bounds) if len(bounds) == len(results) else None

    def mean(name: str) -> float:
        return fmean(attrgetter(name)(result) for result in results)

    return {
        "workers": results[0].workers,
        "time": time,
        "time_stderr": stdev(times) / math.sqrt(len(times)) if len(times) > 1 else None,
        "speed_up": fmean(each.makespan for each in alone) / time if is_whole and time else None,
        "utilisation": mean("utilisation"),
        "tail": mean("tail"),
        **{name: mean(f"latency.{name}") for name in ("p50", "p95", "p99")},
        "lower_bound": bound,
        "time_over_bound": time / bound if bound else None,
        **{name: mean(name) for name in ("wasted", "retries", "speculated", "missing")},
    }


def _print_text(head: dict[str, Any], stragglers: Stragglers | None) -> None:
    slow = f", stragglers p={stragglers.p:g} {stragglers.name}" if stragglers else ""
    mean = f", mean of {head['repeats']} runs" if head["repeats"] > 1 else ""
    click.echo(f"{counted(head['num_tasks'], 'task')}, {head['policy']}{slow}{mean}")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = _COLUMNS if any(row["missing"] for row in head["rows"]) else _COLUMNS[:-1]
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    for row in head["rows"]:
        values = ((row[name], shown) for _, name, shown in columns)
        table.add_row(
            *(
                "–" if value is None or math.isnan(value) else shown(value)
                for value, shown in values
            )
        )
    print_table(table)


_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("workers", "workers", str),
    ("time", "time", duration),
    ("±", "time_stderr", duration),
    ("speed-up", "speed_up", "{:.3g}".format),
    ("useful", "utilisation", lambda share: f"{100 * share:.1f} %"),
    ("tail", "tail", duration),
    ("p95", "p95", duration),
    ("lower bound", "lower_bound", duration),
    ("time / bound", "time_over_bound", "{:.3g}".format),
    ("missing", "missing", "{:g}".format),
)
"""Titles, fields of a row, and their format."""
