"""The page of a single training run, from its folder."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...records import (
    Header,
    QueryRecord,
    TrainingRecord,
    atomic,
    given_path,
    read_records,
    to_dict,
)
from ..accuracy import AccuracyPoint
from ..escape import one_line
from ..load import QueryTotals
from ..study.words import number
from ..tables import StageRow, stage_table
from .curves import accuracy_chart, loss_chart, robustness_chart, thinned
from .machine import machine_facts
from .model import Card, CardLine, Column, Figure, Page, Section, Sources, Spec, Table
from .render import check_page, render
from .stages import one_stage_chart
from .text import cell, record_links
from .timeline import timeline_table, timelines_of_run

_TRAINING = "training.jsonl"
_LOGS = (("queries.jsonl", "queries.jsonl.gz"), (_TRAINING, "training.jsonl.gz"))
_MOST_BYTES = 64 * 2**20
_NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class _Run:
    """What a run's folder holds; `summary` is that of the run, or of a study's result."""

    folder: Path
    headers: tuple[Header, ...]
    queries: tuple[QueryRecord, ...]
    training: tuple[TrainingRecord, ...]
    summary: Mapping[str, Any]
    robustness: Mapping[str, Sequence[Sequence[float]]]

    @property
    def name(self) -> str:
        workload = self.summary.get("workload")
        return one_line(f"{workload if isinstance(workload, str) else self.folder.name}")


def write_run_report(
    folder: Path | str, out: Path | str | None = None, command: str | None = None
) -> Path:
    """Writes the report of a training run as one HTML file and returns its path.

    Args:
        folder: Of a `dest train`, finished or not, or of a training in a study.
        out: The file; None: report.html in the run's folder.
        command: What made it, for a reader to make it again; None: the plain command.

    Raises:
        MissingExtraError: Jinja2 is not installed.
        RecordError: The folder holds no training, its records are damaged, or the report cannot be
            written, or only over a file that is no report.
    """
    folder = given_path(folder)
    target = given_path(out) if out is not None else folder / "report.html"
    if command is None:
        command = shlex.join(["dest", "report", str(folder)])
    check_page(target)
    text = render(_page(_load(folder), target.parent, command))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target, durable=False) as unfinished:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RecordError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _load(folder: Path) -> _Run:
    if (folder / "study.json").is_file():
        raise RecordError(f"{folder} is a study: report it with `dest study report {folder}`")
    paths = [folder / name for names in _LOGS for name in names if (folder / name).is_file()]
    records = list(read_records(*paths)) if paths else []
    training = tuple(record for record in records if isinstance(record, TrainingRecord))
    if not training:
        raise RecordError(
            f"{folder} holds no training: it has no {_TRAINING} with a step; name the folder of a "
            "`dest train`"
        )
    summary = _document(folder / "summary.json")
    result = _document(folder / "result.json").get("results")
    return _Run(
        folder=folder,
        headers=tuple(record for record in records if isinstance(record, Header)),
        queries=tuple(record for record in records if isinstance(record, QueryRecord)),
        training=training,
        summary=summary,
        robustness=_robustness(folder, result if isinstance(result, dict) else {}),
    )


def _document(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES // 2**20} MiB")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    if not isinstance(data, dict):
        raise RecordError(f"{path} is damaged: it is no JSON object")
    return data


def _robustness(
    folder: Path, results: Mapping[str, Any]
) -> Mapping[str, Sequence[Sequence[float]]]:
    """By attack, points of magnitude, accuracy and the ends of its interval."""
    path = folder / "robustness.json"
    curves = _document(path).get("curves")
    if not curves:
        path, curves = folder / "result.json", results.get("robustness")
    try:
        return {str(name): [_point(p) for p in _points(curve)] for name, curve in _items(curves)}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path} is damaged: it holds no curves of magnitude, accuracy, low and high ({error})"
        ) from error


def _items(curves: Any) -> list[tuple[Any, Any]]:
    return list(curves.items()) if curves else []


def _points(curve: Any) -> list[Any]:
    points = curve["points"] if isinstance(curve, dict) else curve
    return list(points or ())


def _point(point: Any) -> list[float]:
    names = ("magnitude", "accuracy", "low", "high")
    values = [point[name] for name in names] if isinstance(point, dict) else list(point[:4])
    magnitude, accuracy, low, high = (float(value) for value in values)
    AccuracyPoint(magnitude, accuracy, low, high, loss=math.nan)
    return [magnitude, accuracy, low, high]


def _page(run: _Run, place: Path, command: str) -> Page:
    sources = Sources(records=record_links([run.folder], place), command=one_line(command, 400))
    rows = stage_table(run.queries) if run.queries else ()
    sections = (
        Section("results", "Results", cards=_cards(run)),
        Section("training", "Training", figures=_training(run, sources)),
        Section("time", "Time by stage", figures=(_stages(rows, sources),)),
        Section("robustness", "Robustness", figures=(_perturbed(run, sources),)),
        Section("tasks", "Tasks", figures=(_tasks(run, sources),)),
    )
    title = f"Training run {run.name}"
    lead = f"{number(run.training[-1].step)} steps, {number(len(run.queries))} query records."
    foot = f"Made from the records of this run alone. To make it again: {one_line(command, 400)}"
    return Page(title, lead, tuple(_facts(run)), sections, foot)


def _facts(run: _Run) -> list[tuple[str, str]]:
    begun = min((record.started_at for record in run.queries), default="not known")
    config = run.summary.get("config")
    known = config if isinstance(config, dict) else {}
    told = ", ".join(
        f"{name} {value}"
        for name, value in known.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    )
    environments = {json.dumps(to_dict(one), sort_keys=True): to_dict(one) for one in run.headers}
    facts = [("Begun", one_line(begun, 40)), ("Configuration", one_line(told, 600) or "not known")]
    return [*facts, *machine_facts(list(environments.values()))]


def _cards(run: _Run) -> tuple[Card, ...]:
    last, totals = run.training[-1], QueryTotals.of(run.queries)
    scores = [("loss", last.loss), *sorted(_scores(last).items())]
    first = [CardLine(name, number(value), "", "", "open") for name, value in scores]
    costs = {f.name: getattr(totals, f.name) for f in fields(totals) if not f.name.startswith("t_")}
    second = [CardLine(name, number(value), "", "", "open") for name, value in costs.items()]
    return (
        Card("Scores", f"After step {last.step}, epoch {last.epoch}.", tuple(first)),
        Card("Costs", "What the queries of the run add up to.", tuple(second)),
    )


def _scores(record: TrainingRecord) -> dict[str, float]:
    names = {"train_accuracy": "accuracy, training", "test_accuracy": "accuracy, test"}
    return {told: record.metrics[name] for name, told in names.items() if name in record.metrics}


def _training(run: _Run, sources: Sources) -> tuple[Figure, ...]:
    names = ("train_accuracy", "test_accuracy")
    used = [name for name in names if any(name in record.metrics for record in run.training)]
    columns = ("step", "epoch", "loss", *used, "queries", "at")
    rows = tuple(
        tuple(
            cell(value)
            for value in (
                *(record.step, record.epoch, record.loss),
                *(record.metrics.get(name) for name in used),
                *(record.queries, record.at),
            )
        )
        for record in thinned(run.training)
    )
    table = Table("Steps of the training", tuple(_columns(columns)), rows)
    steps = len(run.training)
    notes = (f"{len(rows)} of {steps} steps are shown.",) if len(rows) < steps else ()
    loss = _figure("loss", "Training loss", loss_chart(run.training), table, sources)
    accuracy = _figure("accuracy", "Accuracy", accuracy_chart(run.training), None, sources)
    return replace(loss, notes=notes), replace(accuracy, notes=notes)


def _columns(names: Sequence[str], words: int = 0) -> list[Column]:
    return [Column(name.replace("_", " "), place >= words) for place, name in enumerate(names)]


def _figure(
    name: str, title: str, chart: Spec | None, table: Table | None, sources: Sources
) -> Figure:
    missing = "" if chart else _NOT_MEASURED
    return Figure(name, title, chart, table, sources=sources, missing=missing)


def _stages(rows: Sequence[StageRow], sources: Sources) -> Figure:
    title = "Estimator time by stage"
    if not rows:
        return Figure("stages", title, missing=_NOT_MEASURED)
    names = ("stage", *(field.name for field in fields(StageRow)[1:]))
    table = Table(
        title,
        tuple(_columns(names, 1)),
        tuple(tuple(cell(getattr(row, name)) for name in names) for row in rows),
    )
    return _figure("stages", title, one_stage_chart(rows, title), table, sources)


def _perturbed(run: _Run, sources: Sources) -> Figure:
    title = "Accuracy on perturbed test samples"
    chart = robustness_chart(run.robustness)
    if chart is None:
        missing = f"Not measured: `dest robustness {one_line(str(run.folder), 400)}` does it."
        return Figure("perturbed", title, missing=missing)
    rows = tuple(
        (one_line(name), *map(cell, point))
        for name, points in run.robustness.items()
        for point in points
    )
    names = ("attack", "magnitude (rad)", "accuracy", "low", "high")
    table = Table(title, tuple(_columns(names, 1)), rows)
    notes = ("The band is the 95 % interval.",)
    return Figure("perturbed", title, chart, table, notes, sources)


def _tasks(run: _Run, sources: Sources) -> Figure:
    title = "Tasks of single queries, by worker"
    found = timelines_of_run(run.folder, run.name)
    if not found:
        return Figure("timeline", title, missing="Not recorded: train with `--trace`.")
    choices = [{"group": one.group, "label": one.label, "chart": one.chart} for one in found]
    table = timeline_table(found)
    return Figure("timeline", title, {"choices": choices}, table, sources=sources)
