"""A study's folder or archive as data frames: its runs, and the queries that they asked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..errors import InputError, MissingExtraError, RecordError, named
from ..records import Header, QueryRecord, Record, given_path, to_dict
from .accuracy import AccuracyCurve
from .escape import natural, one_line
from .load import (
    MANIFEST,
    TIMES,
    ForeignError,
    Packed,
    RunFolders,
    check_record,
    convert,
    parse,
    read_document,
)

try:
    import pandas as pd
except ImportError as error:
    raise MissingExtraError("pandas", "report", "a report") from error

REPEAT = "remove their folders, and `dest study run` repeats them"
"""What to do about runs that are damaged."""
PERTURBATIONS = ("gaussian", "fgsm")
"""Attacks of the paper's robustness summary."""
_OF_ONE_RUN = ("kind", "schema_version", "attempt", "config_hash")
_QUERY_COLUMNS = (*TIMES, "num_queries", "num_subexperiments", "shots_total")
_SECONDS = {
    "train": "training_seconds",
    "queries": "median_seconds",
    "values": "query_seconds",
}
_VALUE = ("value", "stderr", "exact", "predicted", "shots", "circuits")
"""Results of a run of kind `values`; `shots` are all that were taken."""
_SIMULATORS = ("statevector", "aer")

Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e18)]


class StudyDocument(msgspec.Struct):
    """What a report reads of study.json."""

    name: str
    scale: str | None
    hash: str
    config: dict[str, Any] = {}
    runs: list[str] | None = None
    created_at: Any = ""

    @property
    def command(self) -> list[str]:
        """The words that run it, but for its folder."""
        scale = [] if self.scale is None else ["--scale", self.scale]
        return ["dest", "study", "run", self.name, *scale, "--out"]


class RunConfig(msgspec.Struct):
    """What tables are made of in a run's configuration; whatever else it holds is kept too."""

    cuts: Count
    seed: int
    dataset: str = ""
    circuit: str | None = None
    device: Any = None
    mitigation: str | None = None
    budget: Count | None = msgspec.field(name="shots_total", default=None)
    workers: Count | None = None
    devices: Count | None = None
    qubits: Count | None = None
    epochs: Count | None = None
    queries: Count | None = None
    shots: Count | None = None
    simulator_threads: Annotated[int, Meta(ge=1, le=2**53)] | None = 1
    defer_measurements: bool | None = False
    straggler_p: float | None = None
    straggler_delay: float | None = None
    backend: str | None = None
    pool: str | None = None
    policy: str | None = None
    label: str | None = None


class RunDocument(msgspec.Struct):
    """run.json: what decides a run."""

    run_id: str
    experiment: str
    kind: Literal["train", "queries", "values"]
    pipeline: Literal["contracted", "reference"]
    config: dict[str, Any]


class Results(msgspec.Struct):
    """What tables are made of in the results of a run."""

    training_seconds: Seconds | None = None
    median_seconds: Seconds | None = None
    test_accuracy: float | None = None
    reference_queries: float | None = None
    lower_bound: float | None = None
    query_seconds: Seconds | None = None
    value: float | None = None
    stderr: float | None = None
    exact: float | None = None
    predicted: float | None = None
    shots: Count | None = None
    circuits: Count | None = None
    simulator_threads: float | None = None
    robustness_summary: float | None = None
    robustness: dict[str, list[list[float]] | None] | None = None


class ResultDocument(msgspec.Struct):
    """result.json: what became of a run."""

    status: Literal["done", "failed"]
    attempts: int
    run_id: str | None = None
    cause: Any = None
    results: Results | None = None


@dataclass(frozen=True)
class Study:
    """What a study's folder holds.

    Attributes:
        folder: The folder.
        name: Of the matrix, such as paper.
        scale: smoke, laptop or full; None: it has none.
        command: The words that run it, but for its folder.
        digest: Hash of its configuration.
        config: That configuration.
        created: When it was begun; empty: not known.
        runs: A row for each run that can be read, by run id: what `run.json` and `result.json` say,
            `config` whole, `origin` of its numbers, `seconds` of a training or of the median query.
        queries: A row for each query record of a finished run: `run_id`, stages, counts, and the
            `record` itself.
        environments: Versions and machines that made its records, each once.
        source: Where its documents and records are.
        not_begun: Run ids of its matrix that have no folder yet.
        damaged: Why runs that have files cannot be read, by run id; they are in no frame.
    """

    folder: Path
    name: str
    scale: str | None
    command: Sequence[str]
    digest: str
    config: Mapping[str, Any]
    created: str
    runs: pd.DataFrame
    queries: pd.DataFrame
    environments: tuple[Mapping[str, Any], ...]
    source: RunFolders | Packed
    not_begun: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name and scale."""
        return self.name if self.scale is None else f"{self.name}, scale {self.scale}"

    def done(
        self, experiment: str, kind: str | None = None, pipeline: str | None = None
    ) -> pd.DataFrame:
        """The finished runs of an experiment, of one kind and pipeline or of all."""
        runs = self.runs
        chosen = (runs.status == "done") & (runs.experiment == experiment)
        for name, value in (("kind", kind), ("pipeline", pipeline)):
            chosen &= (runs[name] == value) | (value is None)
        return runs[chosen]

    def traced_kinds(self) -> list[str]:
        """One run of each kind that recorded its tasks: those of a kind differ in seeds alone."""
        kinds: dict[tuple[str, str, str], str] = {}
        done = self.runs[self.runs.status == "done"].sort_index()
        for run in done[done.run_id.isin(list(self.source.traced("tasks.jsonl")))].itertuples():
            place = f"{run.experiment} {run.dataset} {run.cuts} {run.config.get('devices')}"
            config = {k: v for k, v in run.config.items() if k not in ("seed", "queries")}
            kind = (place, run.pipeline, json.dumps(config, sort_keys=True))
            kinds.setdefault(kind, run.run_id)
        return [kinds[kind] for kind in sorted(kinds, key=lambda kind: (natural(kind[0]), *kind))]


def is_archive(folder: Path) -> bool:
    """Whether a study's folder was packed, so that nothing can be run in it."""
    return (folder / MANIFEST).is_file() or any(folder.glob("runs/*/*.jsonl.gz"))


def load_study(folder: Path | str) -> Study:
    """Reads a study's folder or archive; nothing is written.

    Raises:
        RecordError: It is no study, empty, of a newer schema or a mixture of two, its study.json is
            damaged, or all of its runs are.
    """
    folder = given_path(folder)
    if not (folder / "study.json").is_file():
        remedy = "name the folder that `dest study run … --out` wrote"
        if (folder / "records" / "study.json").is_file():
            remedy = "its `records` are one: name them, or give `--from-logs`"
        raise RecordError(f"{folder} is no study: it has no study.json; {remedy}")
    study = read_document(folder / "study.json", StudyDocument)
    if Packed.is_at(folder) and not (folder / MANIFEST).is_file():
        raise RecordError(f"{folder} was cut off while it was packed: pack the study again")
    source = Packed(folder) if Packed.is_at(folder) else RunFolders(folder)
    runs: dict[str, dict[str, Any]] = {}
    queries: list[dict[str, Any]] = []
    environments: dict[str, Mapping[str, Any]] = {}
    damaged: dict[str, str] = {}
    for run_id in source.run_ids():
        try:
            runs[run_id], records = _load_run(source, run_id)
        except ForeignError:
            raise
        except RecordError as error:
            damaged[run_id] = str(error)
            continue
        for record in records:
            if isinstance(record, Header):
                about = {k: v for k, v in to_dict(record).items() if k not in _OF_ONE_RUN}
                environments[json.dumps(about, sort_keys=True)] = about
            elif isinstance(record, QueryRecord):
                known = {name: getattr(record, name) for name in _QUERY_COLUMNS}
                queries.append({"run_id": run_id, **known, "record": record})
    _check_one_study(folder, study, runs, damaged)
    return Study(
        folder=folder,
        name=study.name,
        scale=study.scale,
        command=study.command,
        digest=study.hash,
        config=study.config,
        created=study.created_at if isinstance(study.created_at, str) else "",
        runs=pd.DataFrame(list(runs.values())).set_index("run_id", drop=False),
        queries=pd.DataFrame(queries, columns=["run_id", *_QUERY_COLUMNS, "record"]),
        environments=tuple(environments[key] for key in sorted(environments)),
        source=source,
        not_begun=tuple(sorted(set(study.runs or ()) - set(runs) - set(damaged))),
        damaged=damaged,
    )


def _check_one_study(
    folder: Path, study: StudyDocument, runs: Mapping[str, Any], damaged: Mapping[str, str]
) -> None:
    foreign = [] if study.runs is None else sorted(set(runs) - set(study.runs))
    if foreign:
        raise RecordError(
            f"{folder} is a mixture of two studies: {len(foreign)} of its runs, such as "
            f"{foreign[0]}, are not of its study.json; move them to a folder of their own"
        )
    if not runs and damaged:
        raise RecordError(f"no run of {folder} can be read: {named(list(damaged.values()))}")
    if not runs:
        raise RecordError(
            f"{folder} holds no run: start it with `{one_line(shlex.join(study.command), 400)} "
            f"{folder}`"
        )


def _load_run(source: RunFolders | Packed, run_id: str) -> tuple[dict[str, Any], list[Record]]:
    """A row of the frame of runs, and the records of a finished run's queries."""
    place, content = source.document(run_id, "run.json")
    run = parse(place, content, RunDocument)
    config = convert(place, run.config, RunConfig, "config")
    if run.run_id != run_id:
        raise ForeignError(
            f"{place} is of run {run.run_id!r:.40} and lies in the folder {run_id}: a mixture of "
            "two studies, or a folder that was renamed"
        )
    row = {**msgspec.structs.asdict(run), **msgspec.structs.asdict(config), "config": run.config}
    row |= {"status": "unfinished", "attempts": None, "cause": None, "origin": ""}
    place, content = source.document(run_id, "result.json")
    if content is None:
        return {**row, **_numbers(place, run, Results())}, []
    result = parse(place, content, ResultDocument)
    if result.run_id not in (None, run_id):
        raise ForeignError(
            f"{place} belongs to run {result.run_id!r:.40} and lies in the folder of {run_id}: a "
            "mixture of two studies"
        )
    failed = result.status == "failed"
    if not failed and result.results is None:
        raise RecordError(f"{place} is damaged: it is done without `results`")
    row |= {"status": result.status, "attempts": result.attempts}
    row |= _numbers(place, run, result.results or Results())
    if failed:
        return {**row, "cause": str(result.cause)}, []
    if run.kind == "values" and any(row[name] is None for name in _VALUE):
        raise RecordError(f"{place} is damaged: it is done without one of {', '.join(_VALUE)}")
    records = source.log(run_id, "queries.jsonl")
    queries = [record for record in records if isinstance(record, QueryRecord)]
    if run.kind != "train" and not any(query.num_queries for query in queries):
        raise RecordError(f"{place} is damaged: its run is done and holds no query")
    try:
        for query in queries:
            check_record(query)
    except RecordError as error:
        raise RecordError(f"the records of run {run_id} are damaged: {error}") from error
    origin = _origin(config, run.config.get("device"), {q.backend for q in queries})
    return {**row, "origin": origin}, records


def _numbers(place: str, run: RunDocument, results: Results) -> dict[str, Any]:
    """A run's results as columns."""
    known = results.robustness or {}
    measured = {name: points for name in PERTURBATIONS if (points := known.get(name))}
    curves = accuracy_curves(place, measured)
    mean = fmean(curve.mean_accuracy for curve in curves) if curves else None
    return {
        "seconds": getattr(results, _SECONDS[run.kind]),
        **{name: getattr(results, name) for name in _VALUE if run.kind == "values"},
        "test_accuracy": results.test_accuracy,
        "reference_queries": results.reference_queries,
        "lower_bound": results.lower_bound,
        "threads_held": results.simulator_threads,
        "robustness": mean if known else results.robustness_summary,
    }


def accuracy_curves(place: str, points: Mapping[str, Any]) -> list[AccuracyCurve]:
    """Curves from their points, by attack, as a document at some place holds them."""
    try:
        return [AccuracyCurve.of(name, curve) for name, curve in points.items()]
    except InputError as error:
        raise RecordError(f"{place} is damaged: `robustness` holds no curves ({error})") from error


def _origin(config: RunConfig, device: Any, backends: set[str]) -> str:
    """Whether a run's numbers are simulated, of a fake backend or of a real one."""
    names = [str(config.backend), *sorted(backends)]
    joined = " ".join(names).lower()
    if config.devices is not None or "fleet" in joined:
        return "simulated fleet"
    if "fake" in joined or "fake" in json.dumps(device).lower():
        return "fake backend"
    real = [
        name
        for name in dict.fromkeys(names)
        if name.lower() not in ("none", "null", "")
        and not any(simulator in name.lower() for simulator in _SIMULATORS)
    ]
    return one_line(f"real backend {', '.join(real)}", 120) if real else "local simulator"
