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

from ..errors import InputError
from ..execution.policies import LargestInfluenceFirst, Policy
from ..execution.stragglers import Stragglers
from ..records import TaskRecord, read_records
from ..simulation import Load, SimulationResult, parse_service
from ..simulation import simulate as simulate_run
from ..training.policies import Seconds, StragglerSettings
from ..training.settings import Config, Count, about
from ..views import counted, duration
from ._options import (
    PATH,
    Verb,
    examples,
    json_option,
    options_of,
    policy_options,
    straggler_options,
    take,
    take_policy,
)
from ._output import note, print_json, print_table, progress_console, share

MOST_WORKERS = 10_000
MOST_TASKS = 1_000_000
_DEFAULT_TASKS = 1000
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("workers", "workers", str),
    ("time", "time", duration),
    ("±", "time_stderr", duration),
    ("speed-up", "speed_up", "{:.3g}".format),
    ("useful", "utilisation", share),
    ("tail", "tail", duration),
    ("p95", "p95", duration),
    ("lower bound", "lower_bound", duration),
    ("time / bound", "time_over_bound", "{:.3g}".format),
    ("missing", "missing", "{:g}".format),
)
"""Titles, fields of a row, and their format."""


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


@click.command(
    cls=Verb,
    short_help="Simulate a run on any number of workers.",
    epilog=examples(
        "dest simulate --service lognormal:0.02,0.5 --workers 1,16,256",
        "dest simulate --records trace/tasks.jsonl --workers 1,2,4 --speculate",
    ),
)
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
def simulate(as_json: bool, records: Path | None, **options: Any) -> None:
    """Simulate a run: the dispatcher of real runs on a virtual clock.

    Tasks take as long as --records or --service say. The lower bound is an expected time that no
    policy can beat, however it orders, restarts and duplicates tasks; speed-up is against one
    worker under the same policy, useful the share of all workers' time that went into results.
    """
    settings = take(SimulateSettings, options)
    load = _loads(records, settings)
    policy, stragglers = take_policy(options).policy, take(StragglerSettings, options).stragglers
    if policy.subexperiments is not None:
        raise click.UsageError(
            "`--subexperiments-per-task` has no effect on tasks that are given: leave it out"
        )
    if isinstance(policy.order, LargestInfluenceFirst):
        note("what the result depends on most is not known here: tasks run as generated")

    results = _sweep(settings, load, policy, stragglers)
    if any(_gave_up(result, policy) for each in results.values() for result in each):
        note(
            "tasks are missing, since jobs took so long that they counted as lost, as in a real "
            "run: give `--timeout SECONDS`, more than the longest job takes"
        )
    document = {
        "num_tasks": len(load(0).tasks),
        "policy": policy.name,
        "straggler_p": 0.0 if stragglers is None else stragglers.p,
        "straggler_distribution": None if stragglers is None else stragglers.name,
        "repeats": settings.repeats,
        "seed": settings.seed,
        "rows": [_row(results[number], results[1]) for number in settings.workers],
    }
    if as_json:
        print_json(document)
    else:
        _print_text(document)


def _sweep(
    settings: SimulateSettings,
    load: Callable[[int], Load],
    policy: Policy,
    stragglers: Stragglers | None,
) -> dict[int, list[SimulationResult]]:
    """Runs by number of workers, one of which is 1.

    The same repeat has the same tasks and delays on any number of workers.
    """
    results: dict[int, list[SimulationResult]] = {}
    with progress_console().status("simulating") as status:
        for workers in dict.fromkeys((1, *settings.workers)):
            status.update(f"simulating {counted(workers, 'worker')}")
            results[workers] = []
            for repeat in range(settings.repeats):
                seed = np.random.SeedSequence([settings.seed, repeat]).generate_state(1)[0]
                drawn = load(int(seed))
                result = simulate_run(
                    drawn.tasks,
                    drawn.services,
                    policy,
                    workers,
                    stragglers=stragglers,
                    overhead=settings.overhead,
                    job_seconds=settings.job_seconds,
                    seed=int(seed),
                )
                results[workers].append(result)
    return results


def _loads(path: Path | None, settings: SimulateSettings) -> Callable[[int], Load]:
    """What gives the tasks of a seed, from records or from a distribution."""
    if (path is None) == (settings.service is None):
        raise click.UsageError(
            "give `--records FILE` or `--service TEXT`, one of them, to say how long tasks take"
        )
    number = settings.num_tasks
    if settings.service is not None:
        service = parse_service(settings.service)
        return lambda seed: Load.drawn(service, number or _DEFAULT_TASKS, seed)
    assert path is not None
    found = [record for record in read_records(path) if isinstance(record, TaskRecord)]
    if not found:
        raise InputError(
            f"`{path}` has no task records: give the task records of a traced run, not its queries"
        )
    queries = {(record.run_id, record.query_id) for record in found}
    if len(queries) > 1:
        note(f"the tasks of {counted(len(queries), 'query record')} are simulated as one run")
    measured = Load.measured(found)
    return lambda seed: measured.resampled(number, seed) if number else measured


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

    def means(*names: str) -> dict[str, float]:
        of = {name: attrgetter(name) for name in names}
        return {
            name.rpartition(".")[2]: fmean(get(result) for result in results)
            for name, get in of.items()
        }

    return {
        "workers": results[0].workers,
        "time": time,
        "time_stderr": stdev(times) / math.sqrt(len(times)) if len(times) > 1 else None,
        "speed_up": fmean(each.makespan for each in alone) / time if is_whole and time else None,
        **means("utilisation", "tail", "latency.p50", "latency.p95", "latency.p99"),
        "lower_bound": bound,
        "time_over_bound": time / bound if bound else None,
        **means("wasted", "retries", "speculated", "missing"),
    }


def _print_text(document: dict[str, Any]) -> None:
    p, name, repeats = (
        document[key] for key in ("straggler_p", "straggler_distribution", "repeats")
    )
    slow = f", stragglers p={p:g} {name}" if name else ""
    mean = f", mean of {repeats} runs" if repeats > 1 else ""
    click.echo(f"{counted(document['num_tasks'], 'task')}, {document['policy']}{slow}{mean}")
    columns = _COLUMNS if any(row["missing"] for row in document["rows"]) else _COLUMNS[:-1]

    def shown(value: Any, form: Callable[[Any], str]) -> str:
        return "–" if value is None or math.isnan(value) else form(value)

    rows = [[shown(row[name], form) for _, name, form in columns] for row in document["rows"]]
    print_table([title for title, _, _ in columns], rows, left=0)
