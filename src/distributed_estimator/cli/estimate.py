"""`dest estimate FILE`: one query, its value, its standard error and where the time went."""

from __future__ import annotations

from typing import Any

import click

from ..analysis.tables import stages_of
from ..estimator import DistributedEstimator
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
from ._query import Query, query_options, read_query


@click.command(short_help="Estimate an expectation value of a circuit in a file.")
@query_options
def estimate(as_json: bool, **options: Any) -> None:
    """Estimate an expectation value of the circuit in FILE (OpenQASM 2, OpenQASM 3 or QPY).

    The circuit is cut where --label or --max-qubits says, and not at all without them. Final
    measurements in the file are taken off. Without --shots, --precision and --exact, shots are
    spent until the standard error is 1/64.
    """
    query = read_query(**options)
    with progress_console().status("estimating"):
        value, stderr, metadata = _run(query)
    for text in query.notes:
        note(text)
    if as_json:
        print_json(_as_dict(query, value, stderr, metadata))
    else:
        _print_text(query, value, stderr, metadata)


def _run(query: Query) -> tuple[float, float, dict[str, Any]]:
    estimator = DistributedEstimator(
        cuts=query.cuts,
        workers=query.workers,
        options=query.options,
    )
    result = estimator.run([(query.circuit, query.observable, query.binding())]).result()[0]
    return float(result.data.evs), float(result.data.stds), dict(result.metadata)


def _as_dict(query: Query, value: float, stderr: float, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "file": str(query.file),
        "observable": [
            {"paulis": paulis, "weight": float(weight.real)}
            for paulis, weight in query.observable.to_list()
        ],
        "value": value,
        "stderr": stderr,
        "stages": stages_as_dict(stages_of(metadata)),
        "record": metadata,
        "notes": list(query.notes),
    }


def _print_text(query: Query, value: float, stderr: float, metadata: dict[str, Any]) -> None:
    exact = query.options.default_precision == 0
    click.echo(f"value {value:.12g} (exact)" if exact else f"value {with_error(value, stderr)}")
    counts = ("cut", "fragment", "circuit")
    click.echo(
        ", ".join(counted(metadata[f"num_{noun}s"], noun) for noun in counts)
        + f", {counted(metadata['shots_total'], 'shot')}"
    )
    print_table(stages_as_table(stages_of(metadata), per_record=False))
