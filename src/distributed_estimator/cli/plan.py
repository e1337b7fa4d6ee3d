"""`dest plan`: whether a query fits, what it costs and what to do, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from rich.console import Console
from rich.table import Table

from ..analysis.costs import CostModel, Prediction
from ..cutting import AutoCut, CutPlan, Side
from ..cutting.drawing import converter, ranges
from ..errors import InputError, short
from ..pipeline import in_bytes
from ..records.files import refused
from ..subexperiments import Allocation
from ..views import counted, duration
from ._devices import NOISELESS, backend_option
from ._forecast import Alternative, Forecast, alternatives_of, cheapest, features_of
from ._noise import noise_of, print_noise, recommendation, recommended
from ._options import NEW_FILE, Verb, examples
from ._output import (
    note,
    plain,
    print_files,
    print_json,
    print_table,
    printable,
    progress_console,
)
from ._query import query_options, read_query
from .costs import costs_type, model_of, predictions, print_predictions

MOST_LISTED = 10
"""Fragments, or cuts, that are listed one by one; more are counted by kind."""
MOST_KINDS = 10
_MOST_NUMBERS = 16
"""Characters of numbers in a cell."""
_CUT = ("kind", "name", "qubits", "position", "rank", "sampling_overhead")
_SECONDS = "not known: --costs RECORDS predicts them"


@dataclass(frozen=True, eq=False)
class Answer:
    """All that is found out about a query.

    Attributes:
        forecast: Its plan, and what that takes.
        alternatives: The plan and others, from the narrowest to the widest.
        noise: What devices do, by device, as in the JSON document.
        model: The fitted cost model; None: none is given.
        costs: What it predicts, for each setup.
    """

    forecast: Forecast
    alternatives: list[Alternative]
    noise: list[dict[str, Any]]
    model: CostModel | None
    costs: list[Prediction]

    @property
    def least(self) -> Alternative | None:
        """What costs least of all that fits."""
        return cheapest(self.alternatives, self.forecast)


@click.command(
    cls=Verb,
    short_help="Say whether a circuit fits, what it costs, and how to cut it.",
    epilog=examples(
        "dest plan circuit.qasm --observable ZZZZ --label AABB --shots 1000",
        "dest plan circuit.qasm --max-qubits 2 --precision 0.01 --figure plan.svg",
        "dest plan circuit.qasm --label AABB --backend fake_manila",
    ),
)
@query_options
@click.option("--costs", **costs_type)
@click.option(
    "--draw/--no-draw", default=False, help="Draw the circuit with its cuts as text, at the end."
)
@click.option(
    "--figure",
    type=NEW_FILE,
    metavar="PATH",
    help="Write a picture of the circuit, its cuts and its fragments to PATH, .svg or .png.",
)
@click.option(
    "--front",
    type=NEW_FILE,
    metavar="PATH",
    help="Write a chart of the price by the width of a fragment to PATH, .svg or .png. Needs "
    "--max-qubits.",
)
@backend_option(
    "Show what a device's noise does to the circuit, whole and cut: fake_manila and its like are "
    "simulated ones, ibm_fez and its like those of your account, MODULE:FUNCTION one of yours; "
    "once for each, of which one is recommended."
)
def plan(
    as_json: bool,
    draw: bool,
    costs: tuple[Path, ...],
    figure: Path | None,
    front: Path | None,
    backend: tuple[str, ...],
    **options: Any,
) -> None:
    """Say whether the circuit in FILE fits here, what it costs, and what to do.

    Takes a query as `dest estimate` does and runs nothing. First the verdict: memory (a plan fits
    if it takes at most half of what is free), shots, circuits, and what costs least. Shots for a
    precision come from a simulation of the pieces; parameters without a value are given random
    ones. Then plans of other widths, side by side, whose shots are predicted from those of this
    one; then what is cut. What cannot reach the observable is left out, as it is when the circuit
    is run. With --backend, it says what the noise of a device does, and whether to cut and to
    mitigate. With --costs, it predicts seconds, too.
    """
    _check_files(figure, front)
    query = read_query(**options)
    if front is not None:
        if not isinstance(query.settings.cuts, AutoCut):
            raise InputError("`--front` shows what other widths cost: give `--max-qubits N`")
        _charts().require_charts()
    devices = [own for own in backend if own not in NOISELESS]
    if devices and query.settings.exact:
        raise InputError(
            f"`exact` takes no shots, and {', '.join(devices)} gives nothing else: leave it out"
        )
    with progress_console().status("planning"):
        forecast = Forecast.of(query)
        model = model_of(costs, None) if costs else None
        found = [] if model is None else predictions(model, features_of(forecast))
        noise = noise_of(devices, forecast)
        answer = Answer(forecast, alternatives_of(forecast), noise, model, found)
    for text in (*query.notes, *(() if model is None else map(printable, model.notes()))):
        note(text)
    document = _document(answer)
    if figure is not None:
        forecast.plan.draw(query.settings.basis).save(figure)
        document |= {"figure": str(figure)}
    if front is not None:
        own = next(each for each in answer.alternatives if each.forecast is forecast)
        with refused("write", front):
            _charts().front_figure(document["alternatives"], own.facts, front)
        document |= {"front": str(front)}
    if as_json:
        print_json(document)
        return
    _print(answer)
    if draw:
        click.echo()
        click.echo(printable(str(draw_cuts(forecast.plan).draw("text", idle_wires=True))))
    print_files(
        {name: printable(document[name]) for name in ("figure", "front") if name in document}
    )


def _check_files(figure: Path | None, front: Path | None) -> None:
    for path in filter(None, (figure, front)):
        converter(path)
    if figure is not None and front is not None and figure.resolve() == front.resolve():
        raise InputError(f"`--figure` and `--front` both name `{front}`: give a file for each")


def draw_cuts(plan: CutPlan) -> QuantumCircuit:
    """The circuit of a plan with a box ✂ in the place of each cut, numbered as in the tables."""
    drawing = QuantumCircuit(plan.circuit.qubits)
    upcoming = list(enumerate(plan.cuts))
    for operation in plan.normal.operations:
        number, cut = upcoming[0] if upcoming else (0, None)
        here = operation.position, set(operation.qubits)
        if cut is not None and (cut.position, set(cut.qubits)) == here:
            drawing.append(
                Gate(f"✂{number} {cut.name}", len(operation.qubits), []), operation.qubits
            )
            del upcoming[0]
        elif operation.kind == "measure":
            drawing.append(Gate("measure", 1, []), operation.qubits)
        elif not operation.is_mark:
            drawing.append(operation.instruction, operation.qubits)
    return drawing


def _document(answer: Answer) -> dict[str, Any]:
    """Everything, for `--json`."""
    forecast, least = answer.forecast, answer.least
    query, plan = forecast.query, forecast.plan
    settings, price = query.settings, forecast.price
    found: dict[str, Any] = {
        "file": str(query.file),
        "verdict": {
            "fits": forecast.fits,
            "shots": forecast.shots,
            "circuits": forecast.circuits,
            "widest_fragment": forecast.width,
            "least": None if least is None else least.facts,
        },
        "num_qubits": query.circuit.num_qubits,
        "label": plan.label,
        "setting_basis": settings.basis,
        "num_fragments": plan.num_fragments,
        "num_cuts": plan.num_cuts,
        "num_circuits": forecast.num_circuits,
        "shots_total": None if settings.shots is settings.shots_total is None else forecast.shots,
        "price": None if price is None else asdict(price),
        "sampling_overhead": plan.sampling_overhead,
        "memory_bytes": forecast.memory,
        "memory_limit_bytes": forecast.limit,
        "fits": forecast.fits,
        "refusal": forecast.refusal,
        "alternatives": [each.facts for each in answer.alternatives],
        "fragments": forecast.fragments,
        "cuts": [
            {
                **{name: getattr(cut, name) for name in _CUT},
                "fragments": [fragment for fragment, _ in cut.ends],
            }
            for cut in plan.cuts
        ],
        "plan_key": plan.key,
        "notes": list(query.notes),
    }
    if answer.model is not None:
        found |= {"level": answer.model.level, "costs": [asdict(each) for each in answer.costs]}
    if answer.noise:
        found |= {"noise": answer.noise, "recommended": recommended(answer.noise)}
    return found


def _print(answer: Answer) -> None:
    """Prints the verdict, alternatives, what is cut, and what devices do."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in _verdict(answer):
        grid.add_row(plain(name), plain(text), style="bold" if name == "Verdict" else None)
    Console().print(grid)
    click.echo()
    _print_alternatives(answer.alternatives, answer.forecast)
    _print_fragments(answer.forecast)
    _print_cuts(answer.forecast.plan)
    for noise in answer.noise:
        print_noise(noise)
    if answer.noise:
        click.echo(f"Recommended: {recommendation(recommended(answer.noise))}")
    if answer.model is not None:
        print_predictions(answer.costs, answer.model.level)


def _verdict(answer: Answer) -> Iterator[tuple[str, str]]:
    """Lines that answer whether it fits, what it costs and what to do."""
    forecast, least, widest = answer.forecast, answer.least, answer.forecast.most_qubits
    plan, way = forecast.plan, "cut" if forecast.plan.num_cuts else "whole"
    yield "Verdict", f"fits here, {way}" if forecast.fits else f"does not fit here, {way}"
    if forecast.refusal is not None:
        yield "Why", forecast.refusal
    yield (
        "Circuit",
        f"{counted(forecast.query.circuit.num_qubits, 'qubit')} in "
        f"{counted(plan.num_fragments, 'fragment')} of at most {forecast.width}, "
        f"{counted(plan.num_cuts, 'cut')}",
    )
    if forecast.memory is not None:
        limit = f"{in_bytes(forecast.limit)}, half of what is free"
        yield "Memory", f"{in_bytes(forecast.memory)} of at most {limit}"
    yield from _bill(forecast)
    if least is None:
        yield "Least bill", f"none fits, of plans at most {widest} wide"
    else:
        yield "Least bill", f"{_bill_of(least)}: {least.option}, of plans at most {widest} wide"
    if answer.costs:
        total = answer.costs[0].costs["total"]
        low, high = duration(total.low), duration(total.high)
        yield "Seconds", f"{duration(total.seconds)}, from {low} to {high}"
    else:
        yield "Seconds", _SECONDS
    if answer.noise:
        yield "Run on", recommendation(recommended(answer.noise))


def _bill(forecast: Forecast) -> Iterator[tuple[str, str]]:
    """Shots and circuits, and what they are for."""
    settings, price = forecast.query.settings, forecast.price
    options = settings.options
    shots = "not known" if forecast.shots is None else short(forecast.shots)
    if not options.default_precision:
        yield "Shots", "none: exact values"
    elif options.shots is not None:
        yield "Shots", f"{shots} in all, {short(options.shots)} a circuit"
    elif options.shots_total is not None:
        yield "Shots", f"{shots} in all"
    else:
        default = "" if settings.precision is not None else " (the default)"
        about = "" if forecast.shots is None else "about "
        yield "Shots", f"{about}{shots} for a precision of {options.default_precision:g}{default}"
    of = "a binding" if len(forecast.query.values) == 1 else "in all"
    yield "Circuits", f"{short(forecast.circuits)} {of}, {settings.basis} basis"
    if price is not None and price.neyman is not None:
        totals = {name: getattr(price, name) for name in get_args(Allocation)}
        yield "Allocation", ", ".join(f"{name} {short(own)}" for name, own in totals.items())
    elif price is not None:
        yield "Settings", "of wide fragments drawn at random: so many circuits at most"


def _bill_of(each: Alternative) -> str:
    shots = f", about {_rounded(each.shots)} shots" if each.shots else ""
    return f"{counted(each.forecast.circuits, 'circuit')}{shots}"


def _rounded(number: float | None) -> str:
    """To three digits, as it is a prediction."""
    if number is None or not math.isfinite(number):
        return "not known"
    return short(int(float(f"{number:.3g}")))


def _print_alternatives(found: Sequence[Alternative], forecast: Forecast) -> None:
    rows = []
    for each in found:
        own = each.forecast
        counts = own.width, own.plan.num_fragments, own.plan.num_cuts, own.circuits
        shots = _rounded(each.shots) if own.shots is None else short(own.shots)
        mark, fits = "this" if own is forecast else "", "yes" if own.fits else "no"
        rows.append((mark, *map(short, counts), "~" * (own.shots is None) + shots, fits))
    if len(rows) == 1:
        click.echo("Side by side: searches found no plan of another width\n")
        return
    columns = ("", "widest", "fragments", "cuts", "circuits", "shots", "fits")
    print_table(columns, rows, "Side by side, by --max-qubits (~ roughly predicted)")


def _print_fragments(forecast: Forecast) -> None:
    fragments = [(len(each["qubits"]), *each.values()) for each in forecast.fragments]
    columns = ("width", "cut ends", "settings", "bases", "circuits")
    if len(fragments) <= MOST_LISTED:
        rows: list[tuple[object, ...]] = [
            (number, ranges(qubits), width, *map(short, counts))
            for number, (width, qubits, *counts) in enumerate(fragments)
        ]
        print_table(("#", "qubits", *columns), rows, "Fragments", left=2)
        return
    kinds = _kinds([(width, *map(short, counts)) for width, _, *counts in fragments])
    print_table(("#", "fragments", *columns), kinds, "Fragments, by kind")


def _print_cuts(plan: CutPlan) -> None:
    if not plan.cuts:
        return
    costs = [
        (f"{cut.spread:.3g}", "/".join(dict.fromkeys(str(_operations(s)) for s in cut.sides)))
        for cut in plan.cuts
    ]
    title, columns = "Cuts, with factors of their fragments", ("shots ×", "circuits ×")
    if len(plan.cuts) > MOST_LISTED:
        kinds = _kinds([(c.kind, c.name, *own) for c, own in zip(plan.cuts, costs, strict=True)])
        print_table(("#", "cuts", "kind", "gate", *columns), kinds, f"{title}, by kind", left=4)
        return
    rows = [
        (
            *(number, cut.name, _joined(cut.qubits), _joined(end for end, _ in cut.ends)),
            *(cut.position, *own),
        )
        for number, (cut, own) in enumerate(zip(plan.cuts, costs, strict=True))
    ]
    heads = ("#", "gate", "qubits", "between", "number", *columns)
    print_table(heads, rows, title, left=4)


def _operations(side: Side) -> int:
    return len(side.basis("full").operations)


def _kinds(rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows that are alike, with their numbers and how many they are, the most frequent first."""
    numbers: dict[tuple[object, ...], list[int]] = {}
    for number, row in enumerate(rows):
        numbers.setdefault(row, []).append(number)
    kinds = sorted(numbers.items(), key=lambda each: -len(each[1]))
    found: list[tuple[object, ...]] = [
        (shortened_ranges(own), len(own), *row) for row, own in kinds[:MOST_KINDS]
    ]
    others = sum(len(own) for _, own in kinds[MOST_KINDS:])
    if others:
        found.append(("others", others, *[""] * len(rows[0])))
    return found


def shortened_ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges, the first of many."""
    text = ranges(numbers)
    return text if len(text) <= _MOST_NUMBERS else f"{text[:_MOST_NUMBERS].rpartition(',')[0]}, …"


def _joined(numbers: Iterable[int]) -> str:
    return " ".join(map(str, dict.fromkeys(numbers)))


def _charts() -> ModuleType:
    from ..analysis import charts  # takes the extra `report`

    return charts
