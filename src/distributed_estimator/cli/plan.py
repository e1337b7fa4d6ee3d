"""`dest plan FILE`: what a query would cut and run, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from rich.table import Table
from rich.text import Text

from ..analysis.costs import CostModel, load_costs
from ..cutting import Cut, CutPlan
from ..pipeline import in_bytes
from ..subexperiments import PILOT_SHOTS, PILOTS
from ._forecast import Forecast, costs_option, features_of, predictions, print_predictions
from ._output import counted, note, print_json, print_table, printable, progress_console, whole
from ._query import Query, query_options, read_query

MAX_DRAWN = 500
"""Larger circuits are drawn only when asked: a drawing takes longer to make, and far longer to
read, than the tables."""


@click.command(short_help="Show how a circuit would be cut, before anything runs.")
@query_options
@costs_option(required=False)
@click.option(
    "--draw/--no-draw",
    default=None,
    help=f"Draw the circuit with its cuts. Default: up to {MAX_DRAWN} operations.",
)
def plan(as_json: bool, draw: bool | None, costs: tuple[Path, ...], **options: Any) -> None:
    """Show how the circuit in FILE would be cut: fragments, cuts, settings, circuits, overhead.

    Takes the options of `dest estimate` and runs nothing. What cannot reach the observable is left
    out, as it is when the circuit is run. The plan fits if it takes at most half of the memory that
    is free. With --costs, it says what the query would cost, too.
    """
    query = read_query(**options)
    forecast = Forecast.of(query)
    model = _model(costs)
    found = [] if model is None else predictions(model, features_of(query, forecast))
    for text in query.notes:
        note(text)
    for text in () if model is None else model.notes():
        note(printable(text))
    if as_json:
        document = _as_dict(query, forecast)
        if model is not None:
            document |= {"level": model.level, "costs": [asdict(each) for each in found]}
        print_json(document)
        return
    _print_text(query, forecast)
    if model is not None:
        print_predictions(found, model.level)
    if draw or (draw is None and len(forecast.plan.normal.operations) <= MAX_DRAWN):
        click.echo()
        click.echo(printable(str(draw_cuts(forecast.plan).draw("text", idle_wires=True))))


def draw_cuts(plan: CutPlan) -> QuantumCircuit:
    """The circuit of a plan with a box ✂ in the place of each cut, numbered as in the tables."""
    drawing = QuantumCircuit(plan.circuit.qubits)
    upcoming = list(enumerate(plan.cuts))
    for operation in plan.normal.operations:
        if upcoming and _is_place_of(upcoming[0][1], operation.position, operation.qubits):
            number, cut = upcoming.pop(0)
            box = Gate(f"✂{number} {cut.name}", len(operation.qubits), [])
            drawing.append(box, operation.qubits)
        elif operation.instruction is not None:
            drawing.append(operation.instruction, operation.qubits)
    return drawing


def _is_place_of(cut: Cut, position: int, qubits: Sequence[int]) -> bool:
    return cut.position == position and set(cut.qubits) == set(qubits)


def _model(costs: Sequence[Path]) -> CostModel | None:
    if not costs:
        return None
    with progress_console().status("fitting"):
        return load_costs(*costs)


def _as_dict(query: Query, forecast: Forecast) -> dict[str, Any]:
    plan, circuits = forecast.plan, forecast.circuits
    return {
        "file": str(query.file),
        "num_qubits": query.circuit.num_qubits,
        "label": plan.label,
        "setting_basis": query.options.setting_basis,
        "num_fragments": plan.num_fragments,
        "num_cuts": plan.num_cuts,
        "num_circuits": sum(circuits),
        "shots_total": None if query.options.shots is None else query.options.shots * sum(circuits),
        "shots_at_least": forecast.fewest_shots * sum(circuits),
        "sampling_overhead": plan.sampling_overhead,
        "memory_bytes": forecast.memory,
        "memory_limit_bytes": forecast.limit,
        "fits": forecast.refusal is None,
        "refusal": forecast.refusal,
        "fragments": [
            {
                "qubits": list(fragment.qubits),
                "slots": len(fragment.slots),
                "settings": forecast.settings[index],
                "measurement_groups": forecast.groups[index],
                "circuits": circuits[index],
            }
            for index, fragment in enumerate(plan.fragments)
        ],
        "cuts": [
            {
                "kind": cut.kind,
                "name": cut.name,
                "qubits": list(cut.qubits),
                "fragments": [fragment for fragment, _ in cut.ends],
                "position": cut.position,
                "rank": list(cut.rank),
                "sampling_overhead": cut.sampling_overhead,
            }
            for cut in plan.cuts
        ],
        "plan_key": plan.key,
        "notes": list(query.notes),
    }


def _print_text(query: Query, forecast: Forecast) -> None:
    plan, circuits = forecast.plan, forecast.circuits
    widest = max((fragment.num_qubits for fragment in plan.fragments), default=0)
    print_table(_fragment_table(forecast))
    if plan.cuts:
        print_table(_cut_table(plan))
    click.echo(
        f"{counted(query.circuit.num_qubits, 'qubit')} in "
        f"{counted(plan.num_fragments, 'fragment')} of at most {widest}; "
        f"{counted(plan.num_cuts, 'cut')}; "
        f"{counted(sum(circuits), 'circuit')} a binding ({query.options.setting_basis} basis); "
        f"sampling overhead {plan.sampling_overhead:.4g}"
    )
    shots, precision = query.options.shots, query.options.default_precision
    least = whole(forecast.fewest_shots * sum(circuits))
    if shots is not None:
        click.echo(f"{counted(shots, 'shot')} a circuit, {least} in all")
    elif precision:
        click.echo(
            f"precision {precision:g}: at least {least} shots in all; {PILOTS} pilots of "
            f"{PILOT_SHOTS} shots a circuit, which are among them, show how many it takes"
        )
    if forecast.refusal is None:
        limit = f"{in_bytes(forecast.limit)} (half of what is free)"
        click.echo(f"fits: takes {in_bytes(forecast.memory)} of memory, the limit is {limit}")
    else:
        click.echo(printable(f"does not fit: {forecast.refusal}"))


def _fragment_table(forecast: Forecast) -> Table:
    table = Table(title="Fragments", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("qubits of the circuit")
    for name in ("width", "cut ends", "settings", "groups", "circuits"):
        table.add_column(name, justify="right")
    counts = zip(forecast.settings, forecast.groups, forecast.circuits, strict=True)
    for fragment, numbers in zip(forecast.plan.fragments, counts, strict=True):
        row = (fragment.num_qubits, len(fragment.slots), *numbers)
        table.add_row(str(fragment.index), _ranges(fragment.qubits), *map(whole, row))
    return table


def _cut_table(plan: CutPlan) -> Table:
    table = Table(title="Cuts", title_justify="left")
    table.add_column("#", justify="right")
    for name in ("kind", "gate", "qubits", "between fragments"):
        table.add_column(name)
    for name in ("instruction", "rank", "sampling overhead"):
        table.add_column(name, justify="right")
    for number, cut in enumerate(plan.cuts):
        table.add_row(
            str(number),
            cut.kind,
            Text(printable(cut.name)),
            " ".join(map(str, dict.fromkeys(cut.qubits))),
            " ".join(str(fragment) for fragment, _ in cut.ends),
            str(cut.position),
            "×".join(map(str, cut.rank)),
            f"{cut.sampling_overhead:.4g}",
        )
    return table


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as text, runs of consecutive ones shortened: 0-3, 7."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
