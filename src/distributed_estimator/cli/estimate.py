"""`dest estimate FILE`: values or probabilities, standard errors, and where the time went."""

from __future__ import annotations

import csv
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..analysis.load import stages_of
from ..analysis.trace import trace_files
from ..cutting import FloatArray
from ..cutting.drawing import ranges
from ..errors import InputError, PrecisionWarning, RecordError
from ..estimator import DistributedEstimator
from ..execution import make_pool
from ..probabilities import Probabilities
from ..records import read_records, to_dict
from ..training.policies import StragglerSettings, check_address
from ..views import counted, with_error
from ._devices import (
    DEFAULT,
    NoiseSettings,
    backend_option,
    find_backend,
    has_noise,
    noise_options,
)
from ._options import (
    PATH,
    FieldType,
    Verb,
    examples,
    policy_options,
    pool_options,
    straggler_options,
    take,
    take_policy,
)
from ._output import (
    note,
    print_files,
    print_json,
    print_stages,
    print_table,
    printable,
    progress_bar,
    stages_as_dict,
)
from ._query import Query, query_options, read_query

MAX_OUTCOMES = 32
MAX_VALUES = 40
_TRACES = {"tasks": "tasks.jsonl", "queries": "queries.jsonl", "trace": "trace.json"}


@contextmanager
def traced(tasks: Path, queries: Path, trace: Path) -> Iterator[None]:
    """Draws what runs meanwhile, at the end: if it fails, too, where anything has run by then.

    The rest of a run that did not end may be there, and stays: such a run is repeated by the same
    command.

    Args:
        tasks: A record for every attempt at a task.
        queries: The record of the query, written when that is over.
        trace: All of that for chrome://tracing and Perfetto.

    Raises:
        InputError: A query is there that did end, or a trace of something else.
        RecordError: A file of that name is there that holds no records, or cannot be written.
    """
    found = read_records(*(path for path in (queries, tasks) if path.exists()))
    kinds = {record.kind for record in found}
    if "query" in kinds or (trace.exists() and "task" not in kinds):
        path = queries if "query" in kinds else trace
        raise InputError(f"`{path}` is there already: name another folder with --trace")
    if "task" in kinds:
        note(f"`{tasks}` has tasks of a run that did not end; those of this one follow")
    try:
        yield
    except BaseException:
        if tasks.exists():
            with suppress(RecordError):  # of two failures, the first is reported
                trace_files(trace, tasks, queries)
                note(f"`{trace}` shows what was done until then")
        raise
    trace_files(trace, tasks, queries)


@click.command(
    cls=Verb,
    short_help="Estimate expectation values of a circuit in a file.",
    epilog=examples(
        "dest estimate circuit.qasm --observable ZZZZ --max-qubits 2",
        "dest estimate circuit.qasm --label AABB --values 0.1,pi/2",
        "dest estimate circuit.qasm --values @angles.csv --csv > values.csv",
        "dest estimate circuit.qasm --label AABB --backend fake_manila",
        "python write.py | dest estimate - --exact --json",
    ),
)
@query_options
@pool_options
@policy_options({"size": "--batch-size"})
@straggler_options
@noise_options
@backend_option(
    "What runs the circuits: statevector, a simulator without noise; aer; aer:noise=FILE, with a "
    "noise model in JSON; fake_manila and its like, simulated devices; ibm_fez and its like, those "
    "of your account; or MODULE:FUNCTION, a function of yours that gives a sampler or backend. "
    f"Once for each that fragments are shared by.  [default: {DEFAULT}]"
)
@click.option(
    "--probabilities",
    "qubits",
    type=FieldType(tuple[int, ...]),
    metavar="QUBITS",
    help="Probabilities of the outcomes of some qubits, such as 0,3,5, in the place of an "
    "expectation value.",
)
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
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print CSV: row, observable, parameters, value, stderr."
)
def estimate(
    as_json: bool,
    as_csv: bool,
    qubits: tuple[int, ...] | None,
    trace: Path | None,
    journal: Path | None,
    backend: tuple[str, ...],
    **options: Any,
) -> None:
    """Estimate expectation values of the circuit in FILE (OpenQASM 2, OpenQASM 3 or QPY).

    FILE is a path, or - for standard input. The circuit is cut where --label, --max-qubits or
    --cut-at says, and not at all without them. Final measurements in the file are taken off, the
    outcomes of others ignored. There is a value for every --observable at every binding of
    --values. Without --shots, --precision and --exact, shots are spent until every standard error
    is 1/64. With a --backend that has noise, values have it too, and --mitigate says what is done
    about it.
    """
    if as_json and as_csv:
        raise InputError("`--json` and `--csv` exclude one another: give one")
    pool, address = options.pop("pool") or "threads", options.pop("address")
    check_address(pool, address)
    policy = take_policy(options).policy
    stragglers = take(StragglerSettings, options).stragglers
    mitigation = take(NoiseSettings, options).mitigation
    if mitigation is not None and not has_noise(backend):
        raise InputError(
            f"`mitigate` is about noise, and {', '.join(backend or (DEFAULT,))} has none: give a "
            "`--backend` that has some, such as fake_manila"
        )
    if qubits is not None and options["observable"]:
        raise InputError(
            "`observable` and `probabilities` both say what to estimate: give one of them"
        )
    query = read_query(**options)
    query.bindings()  # all are there before anything is begun
    settings = replace(
        query.settings.options, policy=policy, stragglers=stragglers, mitigation=mitigation
    )
    found = [find_backend(spec) for spec in backend]
    files = {} if trace is None else {name: trace / file for name, file in _TRACES.items()}
    with (
        traced(**files) if files else nullcontext(),
        progress_bar("estimating", transient=True) as update,
        closing(make_pool(pool, query.settings.workers, address)) as workers,
        DistributedEstimator(
            cuts=query.settings.cuts,
            backend=found[0] if len(found) == 1 else found or None,
            pool=workers,
            workers=query.settings.workers,
            options=settings,
            log=files.get("queries"),
            trace=files.get("tasks"),
            journal=journal,
        ) as estimator,
        warnings.catch_warnings(record=True, category=PrecisionWarning) as caught,
    ):
        if query.settings.exact and not estimator.backend.exact:
            raise InputError(
                f"`exact` takes no shots, and {', '.join(backend)} gives nothing else: leave it "
                f"out, or run on `--backend {DEFAULT}`"
            )
        update()
        pipeline = estimator.pipeline
        pipeline.conditions = replace(pipeline.conditions, progress=_rounds(update))
        document = {
            "file": str(query.file),
            **_ask(estimator, query, qubits),
            "backends": list(backend) or [DEFAULT],
        }
    for text in (*query.notes, *(str(warning.message) for warning in caught)):
        note(text)
    # A query whose tasks were all in the journal ran none.
    written = {name: str(path) for name, path in files.items() if path.exists()}
    document |= {"files": written, "notes": list(query.notes)}
    if as_json:
        print_json(document)
    elif as_csv:
        _print_csv(document, query.parameters)
    else:
        _print_text(document, exact=settings.default_precision == 0)


def _rounds(update: Callable[..., None]) -> Callable[[int, int], None]:
    """Shows the tasks of every round, pilots included."""
    rounds = 0

    def report(done: int, total: int) -> None:
        nonlocal rounds
        rounds += done == 0
        update(description=f"round {rounds}, tasks", completed=done, total=total)

    return report


def _ask(
    estimator: DistributedEstimator, query: Query, qubits: tuple[int, ...] | None
) -> dict[str, Any]:
    """Values of the observables, or probabilities of some qubits' outcomes, and their record."""
    if qubits is not None:
        outcomes = estimator.probabilities(query.circuit, qubits, query.bindings())
        answer, metadata = _probabilities_as_dict(query, outcomes), outcomes.metadata
        record = outcomes.record
    else:
        pub = query.circuit, list(query.observables), query.bindings()[:, None]
        result = estimator.run([pub]).result()[0]
        answer, metadata = _values_as_dict(query, result.data), result.metadata
        record = result.record
    assert record is not None, "results of a run have one"
    return {
        **answer,
        "devices": metadata["devices"],
        "mitigation": metadata.get("mitigation"),
        "stages": stages_as_dict(stages_of(metadata)),
        "record": {**metadata, **to_dict(record)},
    }


def _parameters(query: Query, row: FloatArray) -> dict[str, float]:
    return dict(zip(query.parameters, row.tolist(), strict=True))


def _probabilities_as_dict(query: Query, found: Probabilities) -> dict[str, Any]:
    """A distribution for each binding; that of a single one at the top as well."""
    distributions = [
        {
            "row": row,
            "parameters": _parameters(query, binding),
            "probabilities": values.tolist(),
            "stderrs": stderrs.tolist(),
            "nearest": nearest.tolist(),
        }
        for row, (binding, values, stderrs, nearest) in enumerate(
            zip(query.values, found.values, found.stderrs, found.nearest(), strict=True), 1
        )
    ]
    names = ("probabilities", "stderrs", "nearest")
    single = {name: distributions[0][name] for name in names} if len(distributions) == 1 else {}
    return {"qubits": list(found.qubits), **single, "distributions": distributions}


def _values_as_dict(query: Query, data: Any) -> dict[str, Any]:
    """A value for each binding and observable; a single one at the top as well."""
    values = [
        {
            "row": row + 1,
            "observable": query.names[place],
            "parameters": _parameters(query, query.values[row]),
            "value": float(data.evs[row, place]),
            "stderr": float(data.stds[row, place]),
        }
        for row, place in np.ndindex(data.evs.shape)
    ]
    observables = [
        {"name": name, "terms": [{"paulis": p, "weight": w.real} for p, w in each.to_list()]}
        for name, each in zip(query.names, query.observables, strict=True)
    ]
    single = {name: values[0][name] for name in ("value", "stderr")} if len(values) == 1 else {}
    return {**single, "values": values, "observables": observables}


def _print_csv(document: dict[str, Any], parameters: list[str]) -> None:
    """A line for each value, or for each outcome of each binding."""
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    if "values" in document:
        write(("row", "observable", *map(printable, parameters), "value", "stderr"))
        for own in document["values"]:
            given = own["parameters"].values()
            write((own["row"], own["observable"], *given, own["value"], own["stderr"]))
        return
    write(("row", "outcome", *map(printable, parameters), "probability", "stderr", "nearest"))
    for own in document["distributions"]:
        given = own["parameters"].values()
        columns = own["probabilities"], own["stderrs"], own["nearest"]
        for outcome, numbers in enumerate(zip(*columns, strict=True)):
            write((own["row"], _bits(outcome, document["qubits"]), *given, *numbers))


def _bits(outcome: int, qubits: list[int]) -> str:
    return f"{outcome:0{len(qubits)}b}"


def _print_probabilities(document: dict[str, Any], *, exact: bool) -> None:
    """The most probable outcomes of each binding, in order of their numbers."""
    qubits, every = document["qubits"], document["distributions"]
    most = max(1, MAX_OUTCOMES // len(every))
    title = f"Outcomes of qubits {', '.join(map(str, reversed(qubits)))}"
    for own in every[:MAX_OUTCOMES]:
        values, stderrs, nearest = own["probabilities"], own["stderrs"], own["nearest"]
        order = sorted(range(len(values)), key=lambda outcome: -values[outcome])
        rows = [
            (_bits(o, qubits), _shown(values[o], stderrs[o], exact), f"{nearest[o]:.6f}")
            for o in sorted(order[:most])
        ]
        columns = ("outcome", "probability", "nearest distribution")
        print_table(columns, rows, title if len(every) == 1 else f"{title}, row {own['row']}")
    total = sum(len(own["probabilities"]) for own in every)
    shown = sum(min(most, len(own["probabilities"])) for own in every[:MAX_OUTCOMES])
    if shown < total:
        note(f"the {shown} most probable of {total} outcomes; --json and --csv have all")


def _print_values(document: dict[str, Any], *, exact: bool) -> None:
    values = document["values"]
    if len(values) == 1:
        click.echo(f"value {_shown(values[0]['value'], values[0]['stderr'], exact)}")
        return
    rows = [
        (own["row"], own["observable"], _shown(own["value"], own["stderr"], exact))
        for own in values[:MAX_VALUES]
    ]
    print_table(("row", "observable", "value"), rows, left=2)
    if len(values) > MAX_VALUES:
        note(f"the first {MAX_VALUES} of {len(values)} values; --json and --csv have all")


def _shown(value: float, stderr: float, exact: bool) -> str:
    return f"{value:.12g} (exact)" if exact else with_error(value, stderr)


def _noise_lines(document: dict[str, Any]) -> Iterator[str]:
    """What was done about the noise of the backend."""
    found = document["mitigation"]
    if found is None:
        return
    if found["readout"]:
        part = found.get("readout_stderr")
        yield "readout errors taken out" + (
            "" if part is None else f"; their calibration adds {part:.2g} to a standard error"
        )
        yield counted(
            sum(device["calibration_shots"] for device in document["devices"]), "calibration shot"
        )
    if found.get("extrapolator"):
        factors = ", ".join(map(str, found["factors"]))
        yield f"extrapolated from noise factors {factors} ({found['extrapolator']})"
    if found["twirling"]:
        yield f"each circuit ran as {found['twirling']} twirled copies"


def _print_text(document: dict[str, Any], *, exact: bool) -> None:
    record = document["record"]
    if "distributions" in document:
        _print_probabilities(document, exact=exact)
    else:
        _print_values(document, exact=exact)
    counts = [counted(record[f"num_{noun}s"], noun) for noun in ("cut", "fragment", "circuit")]
    click.echo(", ".join([*counts, counted(record["shots_total"], "shot")]))
    click.echo(f"on {', '.join(document['backends'])}")
    for line in _noise_lines(document):
        click.echo(line)
    columns = ("device", "fragments", "jobs", "circuits", "shots")
    if len(document["devices"]) > 1:
        rows = [own | {"fragments": ranges(own["fragments"])} for own in document["devices"]]
        print_table(columns, ([own[name] for name in columns] for own in rows))
    drawn = (record.get("design") or {}).get("drawn") or ()
    if drawn:
        which = ", ".join(f"fragment {number}" for number in drawn)
        ran = counted(record["num_subexperiments"], "circuit")
        click.echo(f"settings of {which} drawn at random: {ran} ran, pilots included")
    print_stages(stages_of(record), medians=False)
    print_files(document["files"])
