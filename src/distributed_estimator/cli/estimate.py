"""`dest estimate FILE`: one query, its value, its standard error and where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..analysis.load import stages_of
from ..analysis.trace import trace_files
from ..errors import InputError, RecordError
from ..estimator import DistributedEstimator, EstimatorOptions
from ..execution import make_pool
from ..records import read_records
from ..training.policies import StragglerSettings, check_address
from ._options import policy_options, pool_options, straggler_options, take, take_policy
from ._output import (
    counted,
    note,
    print_json,
    print_table,
    progress_console,
    stages_as_dict,
    stages_as_table,
    with_error,
)
from ._paths import PATH
from ._query import Query, query_options, read_query


class Traces:
    """The folder where a query and its tasks are written down, and drawn for Perfetto.

    `queries` holds the record of the query, written when that is over; `tasks` one for every
    attempt at a task; `trace` all of that for chrome://tracing and Perfetto.
    """

    def __init__(self, folder: Path) -> None:
        self.tasks = folder / "tasks.jsonl"
        self.queries = folder / "queries.jsonl"
        self.trace = folder / "trace.json"

    def files(self) -> dict[str, str]:
        """Those that were made, by name; a query whose tasks were all in the journal ran none."""
        names = ("tasks", "queries", "trace")
        return {name: str(getattr(self, name)) for name in names if getattr(self, name).exists()}

    def check_free(self) -> None:
        """Refuses a folder in use; the rest of a run that did not end is none, and stays in it.

        So such a run is repeated by the same command. Makes nothing.

        Raises:
            InputError: A query is there that did end, or a trace of something else.
            RecordError: A file of that name is there that holds no records.
        """
        found = read_records(*(path for path in (self.queries, self.tasks) if path.exists()))
        kinds = {record.kind for record in found}
        if "query" in kinds or (self.trace.exists() and "task" not in kinds):
            path = self.queries if "query" in kinds else self.trace
            raise InputError(f"`{path}` is there already: name another folder with --trace")
        if "task" in kinds:
            note(f"`{self.tasks}` has tasks of a run that did not end; those of this one follow")

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draws what runs meanwhile, at the end: if it fails, too, where anything has run by then.

        Raises:
            RecordError: The trace cannot be written.
        """
        try:
            yield
        except BaseException:
            if self.tasks.exists():
                with suppress(RecordError):  # of two failures, the first is reported
                    trace_files(self.trace, self.tasks, self.queries)
                    note(f"`{self.trace}` shows what was done until then")
            raise
        trace_files(self.trace, self.tasks, self.queries)


@click.command(short_help="Estimate an expectation value of a circuit in a file.")
@query_options
@pool_options
@policy_options({"size": "--batch-size"})
@straggler_options
@click.option(
    "--trace",
    type=PATH,
    metavar="DIR",
    help="Record the query and every attempt at a task in DIR, and draw them for Perfetto.",
)
@click.option(
    "--journal",
    type=PATH,
    metavar="FILE",
    help="Keep results of tasks in FILE, so that the same command goes on after it was killed.",
)
def estimate(as_json: bool, trace: Path | None, journal: Path | None, **options: Any) -> None:
    """Estimate an expectation value of the circuit in FILE (OpenQASM 2, OpenQASM 3 or QPY).

    The circuit is cut where --label or --max-qubits says, and not at all without them. Final
    measurements in the file are taken off. Without --shots, --precision and --exact, shots are
    spent until the standard error is 1/64.
    """
    cluster = options.pop("pool") or "threads", options.pop("address")
    check_address(*cluster)
    policy = take_policy(options).policy
    stragglers = take(StragglerSettings, options).stragglers
    query = read_query(**options)
    settings = replace(query.options, policy=policy, stragglers=stragglers)
    traces = None if trace is None else Traces(trace)
    if traces is not None:
        traces.check_free()
    drawing = nullcontext() if traces is None else traces.drawn()
    with drawing, progress_console().status("estimating"):
        value, stderr, metadata = _run(query, settings, cluster, traces, journal)
    for text in query.notes:
        note(text)
    files = {} if traces is None else traces.files()
    if as_json:
        print_json(_as_dict(query, value, stderr, metadata, files))
    else:
        _print_text(query, value, stderr, metadata, files)


def _run(
    query: Query,
    options: EstimatorOptions,
    cluster: tuple[str, str | None],
    traces: Traces | None,
    journal: Path | None,
) -> tuple[float, float, dict[str, Any]]:
    binding = query.binding()
    name, address = cluster
    with (
        closing(make_pool(name, query.workers, address)) as pool,
        DistributedEstimator(
            cuts=query.cuts,
            pool=pool,
            workers=query.workers,
            options=options,
            log=None if traces is None else traces.queries,
            trace=None if traces is None else traces.tasks,
            journal=journal,
        ) as estimator,
    ):
        result = estimator.run([(query.circuit, query.observable, binding)]).result()[0]
    return float(result.data.evs), float(result.data.stds), dict(result.metadata)


def _as_dict(
    query: Query, value: float, stderr: float, metadata: dict[str, Any], files: dict[str, str]
) -> dict[str, Any]:
    terms = query.observable.to_list()
    return {
        "file": str(query.file),
        "observable": [{"paulis": name, "weight": float(weight.real)} for name, weight in terms],
        "value": value,
        "stderr": stderr,
        "stages": stages_as_dict(stages_of(metadata)),
        "record": metadata,
        "files": files,
        "notes": list(query.notes),
    }


def _print_text(
    query: Query, value: float, stderr: float, metadata: dict[str, Any], files: dict[str, str]
) -> None:
    exact = query.options.default_precision == 0
    click.echo(f"value {value:.12g} (exact)" if exact else f"value {with_error(value, stderr)}")
    counts = [counted(metadata[f"num_{noun}s"], noun) for noun in ("cut", "fragment", "circuit")]
    click.echo(", ".join([*counts, counted(metadata["shots_total"], "shot")]))
    print_table(stages_as_table(stages_of(metadata), per_record=False))
    for name, path in files.items():
        click.echo(f"{name:<8}{path}")
