"""`dest plan` and `dest predict`: what a query cuts, runs and costs, before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import click
from qiskit import QuantumCircuit
from qiskit.circuit import Gate

from ..analysis.costs import LEVEL, CostModel, Features, Prediction, load_costs, write_model
from ..backends.noise import NoisePrice, Outlook
from ..cutting import AutoCut, CutPlan
from ..cutting.drawing import converter, ranges
from ..cutting.search import SHOTS_A_CIRCUIT, other_widths
from ..errors import InputError, PlanTooLargeError, named, short
from ..estimator import DistributedEstimator, EstimatorOptions
from ..pipeline import Prepared, Price, Request, in_bytes
from ..pubs import merge, read_pubs
from ..records.files import refused
from ..views import counted, duration
from ._devices import NOISELESS, backend_option, find_device_of
from ._options import NEW_FILE, PATH, Verb, examples, is_given
from ._output import (
    note,
    print_files,
    print_json,
    print_table,
    printable,
    progress_console,
    share,
)
from ._query import Query, query_options, query_settings, read_query

MAX_DRAWN = 500
MAX_DRAWN_QUBITS = 24
"""Circuits with more operations or qubits are drawn only when asked: a drawing takes longer to
make, and far longer to read, than the tables."""
_SEARCHED = 0.01
"""The standard error that `cutting.search.Prediction` has the shots of."""
DEFAULT_SHOTS = 100_000
"""For what noise costs, where neither a number of shots nor a precision is given."""
_CUT = ("kind", "name", "qubits", "position", "rank", "sampling_overhead")


@dataclass(frozen=True, eq=False)
class Forecast:
    """A plan, the circuits it takes to measure an observable, and whether they fit in memory.

    Attributes:
        prepared: The plan reduced to what reaches the observable, and its experiments.
        memory: Bytes that a run takes; None: it would not run.
        limit: Bytes that it may take.
        refusal: Why it would not run; None: it would.
        price: What it takes where a precision rules; None: none does, or it would not run.
    """

    prepared: Prepared
    memory: int | None
    limit: int
    refusal: str | None
    price: Price | None

    @classmethod
    def of(cls, query: Query) -> Forecast:
        """Plans a query, as running it would.

        Raises:
            InputError: The cuts, the observable, the values or the shots do not fit the circuit.
        """
        settings, circuit = query.settings, query.circuit
        pub = circuit, list(query.observables), query.sample()
        memory, refusal, price = None, None, None
        with DistributedEstimator(
            settings.cuts, workers=settings.workers, options=settings.options
        ) as estimator:
            pipeline, (read,) = estimator.pipeline, read_pubs([pub], None)
            accuracy, batch = estimator.accuracy(None), merge([read])
            prepared, _ = pipeline.preparation.prepare(batch.circuit, batch.observables)
            prepared.plan.normal.angles.evaluate(batch.values)
            try:
                memory = pipeline.memory_of(Request(batch, accuracy, "plan"))
                if accuracy.adaptive and accuracy.budget is None:
                    price = estimator.price([pub])
            except PlanTooLargeError as error:
                refusal = str(error)
        return cls(prepared, memory, pipeline.memory.size, refusal, price)

    @property
    def plan(self) -> CutPlan:
        """The plan, without what the observable cannot see."""
        return self.prepared.plan

    @property
    def fragments(self) -> list[dict[str, Any]]:
        """What is run of each fragment; circuits whose outcome is sure are not."""
        return [
            {
                "qubits": list(each.fragment.qubits),
                "slots": len(each.fragment.slots),
                "settings": each.fragment.num_settings(each.basis),
                "measurement_groups": len(each.groups),
                "circuits": 0 if each.is_trivial else each.num_circuits,
            }
            for each in self.prepared.experiments
        ]

    @property
    def num_circuits(self) -> int:
        """Circuits of all fragments."""
        return sum(each["circuits"] for each in self.fragments)


def features_of(query: Query, forecast: Forecast) -> Features:
    """The features that the query's record will have.

    Raises:
        InputError: What its precision takes cannot be found out.
    """
    options, plan, circuits = query.settings.options, forecast.plan, forecast.num_circuits
    shots: float = options.shots or (options.shots_total or 0) / max(1, circuits)
    total = None if forecast.price is None else getattr(forecast.price, options.allocation)
    if forecast.price is not None and total is not None:
        circuits = forecast.price.circuits
        shots = total / max(1, circuits)
    elif not shots and options.default_precision > 0:
        raise InputError(
            "what a precision takes is not known, as the fragments cannot be simulated here: give "
            "`--shots N` or `--exact` to predict a cost"
        )
    return Features(
        num_qubits=query.circuit.num_qubits,
        depth=plan.circuit.depth(),
        widest_fragment=forecast.prepared.max_qubits,
        num_cuts=plan.num_cuts,
        num_fragments=plan.num_fragments,
        num_circuits=forecast.num_circuits,
        num_subexperiments=circuits,
        num_queries=len(query.observables) * len(query.values),
        shots=shots,
        workers=query.settings.workers,
    )


_COSTS: dict[str, Any] = {
    "multiple": True,
    "type": PATH,
    "metavar": "PATH",
    "help": "Predict the cost from PATH: a model that `dest predict --fit` wrote, a file of query "
    "records, or the folder of a run or a study; once for each.",
}


@click.command(
    cls=Verb,
    short_help="Show how a circuit would be cut, before anything runs.",
    epilog=examples(
        "dest plan circuit.qasm --observable ZZZZ --label AABB --shots 1000",
        "dest plan circuit.qasm --max-qubits 2 --precision 0.01 --figure plan.svg",
        "dest plan circuit.qasm --label AABB --backend fake_manila",
    ),
)
@query_options
@click.option("--costs", **_COSTS)
@click.option(
    "--draw/--no-draw",
    default=None,
    help=f"Draw the circuit with its cuts as text. Default: up to {MAX_DRAWN_QUBITS} qubits and "
    f"{MAX_DRAWN} operations, without --figure.",
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
    "once for each."
)
def plan(
    as_json: bool,
    draw: bool | None,
    costs: tuple[Path, ...],
    figure: Path | None,
    front: Path | None,
    backend: tuple[str, ...],
    **options: Any,
) -> None:
    """Show how the circuit in FILE would be cut: fragments, cuts, settings, circuits, overhead.

    Takes a query as `dest estimate` does and runs nothing. What cannot reach the observable is left
    out, as it is when the circuit is run. The plan fits if it takes at most half of the memory that
    is free. With --precision, it says how many shots that takes, from a simulation of the pieces;
    parameters without a value are given random ones. With --max-qubits, it says why the search
    chose its cuts, and what other widths would cost. With --backend, it says what the noise of the
    device does, whole and cut, and whether to cut and to mitigate. With --costs, it says what the
    query would cost, too.
    """
    for path in filter(None, (figure, front)):
        converter(path)
    if figure is not None and front is not None and figure.resolve() == front.resolve():
        raise InputError(f"`--figure` and `--front` both name `{front}`: give a file for each")
    query = read_query(**options)
    if front is not None:
        if not isinstance(query.settings.cuts, AutoCut):
            raise InputError("`--front` shows what other widths cost: give `--max-qubits N`")
        _charts().require_charts()
    forecast = Forecast.of(query)
    model = _model(costs, None) if costs else None
    found = [] if model is None else _predictions(model, features_of(query, forecast))
    for text in (*query.notes, *(() if model is None else map(printable, model.notes()))):
        note(text)
    document = _as_dict(query, forecast)
    if isinstance(query.settings.cuts, AutoCut):
        document["alternatives"] = _alternatives(query, query.settings.cuts, forecast.plan)
    if model is not None:
        document |= {"level": model.level, "costs": [asdict(each) for each in found]}
    noisy = [name for name in backend if name not in NOISELESS]
    if noisy:
        document["noise"] = [
            _noise_as_dict(name, _noise(query, name, forecast, document["shots_total"]))
            for name in noisy
        ]
    if figure is not None:
        forecast.plan.draw(query.settings.basis).save(figure)
        document |= {"figure": str(figure)}
    if front is not None:
        with refused("write", front):
            _charts().front_figure(document["alternatives"], _alternative(forecast.plan), front)
        document |= {"front": str(front)}
    if as_json:
        print_json(document)
        return
    _print_plan(document, query, forecast)
    for own in document.get("noise", ()):
        _print_noise(own)
    if model is not None:
        _print_predictions(found, model.level)
    if (figure is None and _is_small(forecast.plan)) if draw is None else draw:
        click.echo()
        click.echo(printable(str(draw_cuts(forecast.plan).draw("text", idle_wires=True))))
    print_files(
        {name: printable(document[name]) for name in ("figure", "front") if name in document}
    )


def _is_small(plan: CutPlan) -> bool:
    operations, qubits = len(plan.normal.operations), plan.circuit.num_qubits
    return operations <= MAX_DRAWN and qubits <= MAX_DRAWN_QUBITS


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


def _as_dict(query: Query, forecast: Forecast) -> dict[str, Any]:
    plan, circuits, shots = forecast.plan, forecast.num_circuits, query.settings.shots
    return {
        "file": str(query.file),
        "num_qubits": query.circuit.num_qubits,
        "label": plan.label,
        "setting_basis": query.settings.basis,
        "num_fragments": plan.num_fragments,
        "num_cuts": plan.num_cuts,
        "num_circuits": circuits,
        "shots_total": query.settings.shots_total
        if shots is None
        else shots * circuits * len(query.values),
        "price": None if forecast.price is None else asdict(forecast.price),
        "sampling_overhead": plan.sampling_overhead,
        "memory_bytes": forecast.memory,
        "memory_limit_bytes": forecast.limit,
        "fits": forecast.refusal is None,
        "refusal": forecast.refusal,
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


def _print_plan(document: dict[str, Any], query: Query, forecast: Forecast) -> None:
    fragments, cuts = document["fragments"], document["cuts"]
    print_table(
        ("#", "qubits of the circuit", "width", "cut ends", "settings", "groups", "circuits"),
        (
            (number, ranges(qubits), len(qubits), *map(short, counts))
            for number, (qubits, *counts) in enumerate(each.values() for each in fragments)
        ),
        "Fragments",
        left=2,
    )
    rows = [
        (
            *(number, cut["kind"], cut["name"], _joined(dict.fromkeys(cut["qubits"]))),
            *(_joined(dict.fromkeys(cut["fragments"])), cut["position"], _joined(cut["rank"], "×")),
            f"{cut['sampling_overhead']:.4g}",
        )
        for number, cut in enumerate(cuts)
    ]
    columns = ("#", "kind", "gate", "qubits", "on fragments", "instruction", "rank")
    if rows:
        print_table((*columns, "sampling overhead"), rows, "Cuts", left=5)
    if isinstance(query.settings.cuts, AutoCut):
        _print_choice(document["alternatives"], query, forecast)
    click.echo(
        f"{counted(document['num_qubits'], 'qubit')} in "
        f"{counted(document['num_fragments'], 'fragment')} of at most "
        f"{max((len(each['qubits']) for each in fragments), default=0)}; "
        f"{counted(document['num_cuts'], 'cut')}; "
        f"{counted(document['num_circuits'], 'circuit')} a binding "
        f"({document['setting_basis']} basis); "
        f"sampling overhead {document['sampling_overhead']:.4g}"
    )
    options, price = query.settings.options, forecast.price
    if options.shots is not None:
        total = short(document["shots_total"])
        click.echo(f"{counted(options.shots, 'shot')} a circuit, {total} in all")
    elif price is not None:
        known = [("optimal", price.optimal), ("neyman", price.neyman), ("uniform", price.uniform)]
        totals = [f"{name} {short(shots)}" for name, shots in known if shots is not None]
        default = " (the default)" if query.settings.precision is None else ""
        click.echo(
            f"precision {options.default_precision:g}{default}: about so many shots in all: "
            f"{', '.join(totals)}; quasi-probability bound {price.quasi_probability:.3g}"
        )
        if price.neyman is None and options.allocation == "optimal":
            circuits = counted(price.circuits, "circuit")
            click.echo(f"settings of wide fragments are drawn at random: {circuits} at most")
    if forecast.memory is not None:
        limit = f"{in_bytes(forecast.limit)} (half of what is free)"
        click.echo(f"fits: takes {in_bytes(forecast.memory)} of memory, the limit is {limit}")
    else:
        click.echo(printable(f"does not fit: {forecast.refusal}"))


def _alternatives(query: Query, search: AutoCut, plan: CutPlan) -> list[dict[str, Any]]:
    """Plans of other widths, and this one, as far as no narrower one costs less."""
    found = CutPlan.alternatives(query.circuit, search, plan.observed)
    return [_alternative(each) for each in found]


def _alternative(plan: CutPlan) -> dict[str, Any]:
    counts = {"num_fragments": plan.num_fragments, "num_cuts": plan.num_cuts}
    return asdict(plan.predicted) | {"price": plan.predicted.price} | counts


def _print_choice(found: Sequence[dict[str, Any]], query: Query, forecast: Forecast) -> None:
    """Prints what the search has paid for, what each cut multiplies, and other widths."""
    plan, precision = forecast.plan, query.settings.options.default_precision
    own, width = plan.predicted, cast(int, cast(AutoCut, query.settings.cuts).max_qubits)
    circuits = SHOTS_A_CIRCUIT * own.circuits
    click.echo(
        f"Chosen: the lowest price found with at most {counted(width, 'qubit')} a fragment, "
        f"{short(round(own.price))} shots:\n{short(round(own.shots))} for a standard error of "
        f"{_SEARCHED}, {short(round(circuits))} for {counted(own.circuits, 'circuit')} "
        f"(as long as {SHOTS_A_CIRCUIT:g} shots each), "
        f"{short(round(own.price - own.shots - circuits))} for the contraction.\n"
        f"Searches price a standard error of {_SEARCHED}, whatever precision is asked for."
    )
    if forecast.price is not None and precision != _SEARCHED:
        scaled = own.shots * (_SEARCHED / precision) ** 2
        click.echo(
            f"Shots go with its inverse square: {short(round(scaled))} for {precision:g}, which "
            "the line on precision below has from a simulation."
        )
    click.echo()
    alike = Counter(
        (
            *(cut.kind, cut.name, f"× {cut.spread:.3g}"),
            "× " + _joined(dict.fromkeys(len(s.basis("full").operations) for s in cut.sides), ", "),
        )
        for cut in plan.cuts
    )
    if alike:
        print_table(
            ("kind", "gate", "cuts", "shots of a fragment", "circuits of a fragment"),
            ((*key[:2], count, *key[2:]) for key, count in alike.items()),
            "What a cut costs each fragment that it ends on",
            left=2,
        )
    columns = ("at most", "width", "fragments", "cuts", "circuits", "shots", "price in shots")
    names = ("width", "num_fragments", "num_cuts", "circuits", "shots", "price")
    rows = (
        (limit, *(short(round(best[name])) for name in names), f"{best['price'] / own.price:.3g}")
        for limit in other_widths(width)
        for best in [each for each in found if each["width"] <= limit][-1:]
    )
    title = f"Searches for other widths, for a standard error of {_SEARCHED}"
    print_table((*columns, "× this"), rows, title)


def _noise(query: Query, name: str, forecast: Forecast, shots: int | None) -> NoisePrice:
    """What a device's noise does with as many shots as the query takes, if that is known."""
    settings, price = query.settings, forecast.price
    device = find_device_of(name)
    total = shots or (DEFAULT_SHOTS if price is None else price.optimal)
    options = EstimatorOptions(seed=settings.seed, setting_basis=settings.basis)
    with DistributedEstimator(forecast.plan, options=options) as estimator:
        pub = query.circuit, list(query.observables), query.sample()
        return estimator.noise(pub, device, shots=total)


def _noise_as_dict(name: str, price: NoisePrice) -> dict[str, Any]:
    return {
        "device": name,
        "shots": price.shots,
        "value": price.value,
        "whole": None if price.whole is None else asdict(price.whole),
        "cut": asdict(price.cut),
        "fragments": [asdict(each) for each in price.fragments],
        "outlooks": [
            {
                "way": each.way,
                "mitigated": _mitigated(each),
                **{name: getattr(each, name) for name in ("bias", "stderr", "error")},
            }
            for each in price.outlooks
        ],
        "shots_to_cut": price.shots_to_cut,
        "recommended": {"way": price.best.way, "mitigated": _mitigated(price.best)},
    }


def _mitigated(outlook: Outlook) -> list[str]:
    plan = outlook.mitigation
    return [name for name in ("readout", "zne") if plan is not None and getattr(plan, name)]


def _print_noise(noise: dict[str, Any]) -> None:
    """Prints what a device does to the circuit and its fragments, what follows, and what to do."""
    pieces = [(f"fragment {place}", each) for place, each in enumerate(noise["fragments"])]
    columns = ("", "qubits", "two-qubit depth", "two-qubit gates", "gates fail", "bits misread")
    names = ("qubits", "depth", "gates")
    print_table(
        columns,
        (
            (
                *(name, *(short(own[each]) for each in names)),
                *(share(own[each]) for each in ("infidelity", "readout")),
            )
            for name, own in (("whole", noise["whole"]), ("cut", noise["cut"]), *pieces)
            if own is not None
        ),
        f"Transpiled to {noise['device']}",
    )
    print_table(
        ("", "mitigated", "by noise", "by shots", "error"),
        (
            (
                *(own["way"], ", ".join(own["mitigated"]) or "nothing"),
                *(f"{own[each]:.2g}" for each in ("bias", "stderr", "error")),
            )
            for own in noise["outlooks"]
        ),
        f"Errors of a value of {noise['value']:.2g}, {short(noise['shots'])} shots each",
        left=2,
    )
    best, first = noise["recommended"], noise["shots_to_cut"]
    way = "cut" if best["way"] == "cut" else "do not cut"
    what = f", mitigate {' and '.join(best['mitigated'])}" if best["mitigated"] else ""
    if noise["whole"] is None:
        why = "whole it does not fit"
    elif first is None:
        why = "cutting makes no error smaller, with any number of shots"
    else:
        why = f"cutting makes the error smaller from about {first:.2g} shots on"
    click.echo(f"Recommended on {noise['device']}: {way}{what} ({why})")


def _charts() -> ModuleType:
    from ..analysis import charts  # takes the extra `report`

    return charts


def _joined(numbers: Iterable[int], between: str = " ") -> str:
    return between.join(map(str, numbers))


@click.command(
    cls=Verb,
    short_help="Predict what a query costs, from records of other queries.",
    epilog=examples(
        "dest predict circuit.qasm --label AABB --shots 1024 --costs runs/study",
        "dest predict --costs runs/study --validate --fit model.json",
    ),
)
@click.argument("file", type=PATH, required=False)
@click.option("--costs", required=True, **_COSTS)
@click.option(
    "--fit",
    "target",
    type=NEW_FILE,
    metavar="MODEL",
    help="Write the fitted model to MODEL, a JSON file, for --costs.",
)
@click.option("--validate", is_flag=True, help="Show errors for configurations that were held out.")
@click.option(
    "--level",
    type=float,
    default=None,
    metavar="P",
    help="Probability of intervals, in a fit.  [default: 0.9]",
)
@query_settings
def predict(
    file: Path | None,
    costs: tuple[Path, ...],
    target: Path | None,
    validate: bool,
    level: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict what the query on the circuit in FILE costs: every stage, with an interval.

    A law of cost is fitted to the query records in --costs, for every setup (pipeline, backend,
    pool, policy, plan at hand or not) on its own, or read from the model that it names. Takes a
    query as `dest estimate` does and runs nothing. Without FILE, --fit writes the model down, and
    --validate shows how far it is off.
    """
    notes: list[str] = []
    features = None
    if file is not None:
        query = read_query(file=file, **options)
        forecast = Forecast.of(query)
        features = features_of(query, forecast)
        notes += query.notes
        notes += [] if forecast.refusal is None else [f"it would not run: {forecast.refusal}"]
    elif target is None and not validate:
        raise click.UsageError(
            "give a FILE with a circuit to predict its cost, `--fit MODEL` or `--validate`"
        )
    elif any(map(is_given, options.values())):
        raise click.UsageError(
            "give a FILE with a circuit to predict its cost, or leave out the options of a query"
        )
    model = _model(costs, level)
    found = [] if features is None else _predictions(model, features)
    if target is not None:
        write_model(model, target)
    for text in (*notes, *map(printable, model.notes())):
        note(text)
    if as_json:
        print_json(_predicted(model, found) | {"model": None if target is None else str(target)})
        return
    _print_predictions(found, model.level)
    if validate:
        _print_errors(model)
    if target is not None:
        click.echo(f"model   {target}")


def _print_errors(model: CostModel) -> None:
    for own in model.setups:
        count = counted(own.validation.configurations, "configuration")
        click.echo(printable(f"Errors, each of {count} held out, {own.setup}"))
        columns = ("stage", "median", "90th percentile")
        worst = own.validation.p90_error
        medians = own.validation.median_error.items()
        print_table(columns, ((n, share(error), share(worst[n])) for n, error in medians))


def _model(costs: Sequence[Path], level: float | None) -> CostModel:
    with progress_console().status("fitting"):
        model = load_costs(*costs, level=LEVEL if level is None else level)
    if level not in (None, model.level):
        raise InputError(
            f"`--level` is {level:g}, and the model in `{costs[0]}` was fitted for "
            f"{model.level:g}: give the records in its place, to fit them again"
        )
    return model


def _predictions(model: CostModel, features: Features) -> list[Prediction]:
    """The cost of a query under every setup of the model in which the command could run it.

    Raises:
        InputError: There is none.
    """
    possible = ("contracted", "value", features.shots > 0)
    found = [
        own.predict(features)
        for own in model.setups
        if (own.setup.pipeline, own.setup.quantity, own.setup.sampled) == possible
    ]
    if not found:
        mode = "sampled" if features.shots > 0 else "exact"
        raise InputError(
            f"nothing is known of the cost of {mode} values; fitted are "
            f"{named([str(own.setup) for own in model.setups])}: record such queries first"
        )
    return found


def _predicted(model: CostModel, found: Sequence[Prediction]) -> dict[str, Any]:
    return {
        "level": model.level,
        "data_hash": model.data_hash,
        "sources": model.sources,
        "predictions": [asdict(each) for each in found],
        "validation": [
            {
                "setup": asdict(own.setup),
                "num_records": own.num_records,
                "ranges": own.ranges,
                **asdict(own.validation),
            }
            for own in model.setups
        ],
        "notes": model.notes(),
    }


def _print_predictions(found: Sequence[Prediction], level: float) -> None:
    """Prints a table for each setup, and notes what is extrapolated."""
    columns = ("stage", "time", f"{100 * level:g} % from", "to")
    for prediction in found:
        click.echo(printable(f"Predicted cost, {prediction.setup}"))
        rows = [
            (name, *map(duration, (cost.seconds, cost.low, cost.high)))
            for name, cost in prediction.costs.items()
        ]
        print_table(columns, rows)
    for prediction in found:
        if prediction.extrapolated:
            outside, of = "; ".join(prediction.extrapolated), f" ({prediction.setup})"
            text = f"extrapolated, so that intervals may be too narrow: {outside}"
            note(printable(text + of * (len(found) > 1)))
