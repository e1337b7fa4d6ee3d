"""`dest estimate FILE`: values or probabilities, standard errors, and where the time went."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..analysis.load import stages_of
from ..analysis.trace import trace_files
from ..errors import InputError, PrecisionWarning, RecordError
from ..estimator import DistributedEstimator
from ..execution import make_pool
from ..probabilities import Probabilities
from ..records import read_records, to_dict
from ..training.policies import StragglerSettings, check_address
from ..views import counted, with_error
from ._devices import NoiseSettings, device_option, find_device, noise_options
from ._options import (
    PATH,
    FieldType,
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
    progress_console,
    stages_as_dict,
)
from ._query import Query, query_options, read_query

MAX_OUTCOMES = 32
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


@click.command(short_help="Estimate an expectation value of a circuit in a file.")
@query_options
@pool_options
@policy_options({"size": "--batch-size"})
@straggler_options
@noise_options
@device_option(
    "Run on a device: fake_manila and its like are simulated, ibm_fez and its like are those of "
    "your account; once for each that fragments are shared by. Default: a simulator without noise."
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
def estimate(
    as_json: bool,
    qubits: tuple[int, ...] | None,
    trace: Path | None,
    journal: Path | None,
    device: tuple[str, ...],
    **options: Any,
) -> None:
    """Estimate an expectation value of the circuit in FILE (OpenQASM 2, OpenQASM 3 or QPY).

    The circuit is cut where --label or --max-qubits says, and not at all without them. Final
    measurements in the file are taken off, the outcomes of others ignored. Without --shots,
    --precision and --exact, shots are spent until the standard error (of probabilities, every one)
    is 1/64. With --device, circuits run with its noise, and --mitigate says what is done about it.
    """
    pool, address = options.pop("pool") or "threads", options.pop("address")
    check_address(pool, address)
    policy = take_policy(options).policy
    stragglers = take(StragglerSettings, options).stragglers
    mitigation = take(NoiseSettings, options).mitigation
    if mitigation is not None and not device:
        raise InputError("`mitigate` is about a device's noise: give one with `--device NAME`")
    if qubits is not None and options["observable"] is not None:
        raise InputError(
            "`observable` and `probabilities` both say what to estimate: give one of them"
        )
    query = read_query(**options)
    binding = query.binding()
    settings = replace(
        query.settings.options, policy=policy, stragglers=stragglers, mitigation=mitigation
    )
    backend = _backend(device, exact=query.settings.exact)
    files = {} if trace is None else {name: trace / file for name, file in _TRACES.items()}
    with (
        traced(**files) if files else nullcontext(),
        progress_console().status("estimating"),
        closing(make_pool(pool, query.settings.workers, address)) as workers,
        DistributedEstimator(
            cuts=query.settings.cuts,
            backend=backend,
            pool=workers,
            workers=query.settings.workers,
            options=settings,
            log=files.get("queries"),
            trace=files.get("tasks"),
            journal=journal,
        ) as estimator,
        warnings.catch_warnings(record=True, category=PrecisionWarning) as caught,
    ):
        if qubits is not None:
            found = estimator.probabilities(query.circuit, qubits, binding)
            answer, record = _probabilities_as_dict(found), found.record
            metadata = found.metadata
        else:
            pub = (query.circuit, list(query.observables), binding)
            result = estimator.run([pub]).result()[0]
            answer, record = _values_as_dict(query, result.data), result.record
            metadata = result.metadata
    assert record is not None, "results of a run have one"
    for text in (*query.notes, *(str(warning.message) for warning in caught)):
        note(text)
    # A query whose tasks were all in the journal ran none.
    written = {name: str(path) for name, path in files.items() if path.exists()}
    document = {
        "file": str(query.file),
        **answer,
        "devices": list(device),
        "mitigation": metadata.get("mitigation"),
        "stages": stages_as_dict(stages_of(metadata)),
        "record": {**to_dict(record), **metadata},
        "files": written,
        "notes": list(query.notes),
    }
    if as_json:
        print_json(document)
    else:
        _print_text(document, exact=settings.default_precision == 0)


def _backend(devices: Sequence[str], *, exact: bool) -> Any:
    """What runs circuits; None: the simulator without noise."""
    if not devices:
        return None
    if exact:
        raise InputError(
            "`exact` takes no shots, and a device gives nothing else: give one of them"
        )
    found = [find_device(name) for name in devices]
    return found if len(found) > 1 else found[0]


def _probabilities_as_dict(found: Probabilities) -> dict[str, Any]:
    return {
        "qubits": list(found.qubits),
        "probabilities": found.values.tolist(),
        "stderrs": found.stderrs.tolist(),
        "nearest": found.nearest().tolist(),
    }


def _values_as_dict(query: Query, data: Any) -> dict[str, Any]:
    values = [
        {
            "observable": [{"paulis": name, "weight": w.real} for name, w in observable.to_list()],
            "value": float(value),
            "stderr": float(stderr),
        }
        for observable, value, stderr in zip(query.observables, data.evs, data.stds, strict=True)
    ]
    return values[0] if len(values) == 1 else {"values": values}


def _print_probabilities(document: dict[str, Any], *, exact: bool) -> None:
    """The most probable outcomes, in order of their numbers."""
    qubits, values = document["qubits"], document["probabilities"]
    order = sorted(range(len(values)), key=lambda outcome: -values[outcome])
    shown = sorted(order[:MAX_OUTCOMES])
    rows = [
        (
            f"{outcome:0{len(qubits)}b}",
            _shown(values[outcome], document["stderrs"][outcome], exact),
            f"{document['nearest'][outcome]:.6f}",
        )
        for outcome in shown
    ]
    title = f"Outcomes of qubits {', '.join(map(str, reversed(qubits)))}"
    print_table(("outcome", "probability", "nearest distribution"), rows, title)
    if len(shown) < len(values):
        note(f"the {len(shown)} most probable of {len(values)} outcomes; --json has all")


def _shown(value: float, stderr: float, exact: bool) -> str:
    return f"{value:.12g} (exact)" if exact else with_error(value, stderr)


def _noise_lines(document: dict[str, Any]) -> Iterator[str]:
    """Where it ran, and what was done about the noise there."""
    if document["devices"]:
        devices = document["devices"]
        whose = "its" if len(devices) == 1 else "their"
        yield f"on {', '.join(devices)}, with {whose} noise"
    found = document["mitigation"]
    if found is None:
        return
    if found["readout"]:
        part = found.get("readout_stderr")
        yield "readout errors taken out" + (
            "" if part is None else f"; their calibration adds {part:.2g} to a standard error"
        )
    if found.get("extrapolator"):
        factors = ", ".join(map(str, found["factors"]))
        yield f"extrapolated from noise factors {factors} ({found['extrapolator']})"
    if found["twirling"]:
        yield f"each circuit ran as {found['twirling']} twirled copies"


def _print_text(document: dict[str, Any], *, exact: bool) -> None:
    record = document["record"]
    if "probabilities" in document:
        _print_probabilities(document, exact=exact)
    else:
        for number, own in enumerate(document.get("values", [document])):
            name = f"value {number}" if "values" in document else "value"
            click.echo(f"{name} {_shown(own['value'], own['stderr'], exact)}")
    counts = [counted(record[f"num_{noun}s"], noun) for noun in ("cut", "fragment", "circuit")]
    click.echo(", ".join([*counts, counted(record["shots_total"], "shot")]))
    for line in _noise_lines(document):
        click.echo(line)
    drawn = (record.get("design") or {}).get("drawn") or ()
    if drawn:
        which = ", ".join(f"fragment {number}" for number in drawn)
        ran = counted(record["num_subexperiments"], "circuit")
        click.echo(f"settings of {which} drawn at random: {ran} ran, pilots included")
    print_stages(stages_of(record), medians=False)
    print_files(document["files"])
