"""The page of a single training run, from its folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InputError, RecordError
from ..records import (
    Header,
    QueryRecord,
    TaskRecord,
    TrainingRecord,
    atomic,
    given_path,
    plain,
    read_records,
    to_dict,
)
from . import charts
from .accuracy import AccuracyCurve
from .charts import Figure, thinned
from .escape import one_line
from .load import QueryTotals, convert, parse_any, read_bytes, stage_table
from .render import Rows, check_page, environment_facts, href, page
from .trace import by_time, timeline_numbers

_LOGS = ("queries", "training", "tasks")
_SCORES = ("train_accuracy", "test_accuracy")
_NOT_MEASURED = "Not measured."


class _Point(msgspec.Struct):
    magnitude: float
    accuracy: float
    low: float
    high: float
    loss: float | None = None


class _Curve(msgspec.Struct):
    points: list[_Point]


class _Robustness(msgspec.Struct):
    curves: dict[str, _Curve] = {}


class _Results(msgspec.Struct):
    robustness: dict[str, list[list[float]] | None] | None = None


class _Result(msgspec.Struct):
    results: _Results | None = None


@dataclass(frozen=True)
class _Run:
    """What a run's folder holds; `summary` is that of `dest train`."""

    folder: Path
    headers: Sequence[Header]
    queries: Sequence[QueryRecord]
    training: Sequence[TrainingRecord]
    tasks: Sequence[TaskRecord]
    summary: Mapping[str, Any]
    robustness: Sequence[AccuracyCurve]


def write_run_report(
    folder: Path | str, out: Path | str | None = None, command: str | None = None
) -> Path:
    """Writes the report of a training run as one HTML file and returns its path.

    Args:
        folder: Of a `dest train`, finished or not, or of a training in a study.
        out: The file; None: report.html in the run's folder.
        command: What made it, for a reader to make it again; None: the plain command.

    Raises:
        MissingExtraError: vl-convert or Jinja2 is not installed.
        RecordError: The folder holds no training, its records are damaged, or the report cannot be
            written, or only over a file that is no report.
    """
    folder = given_path(folder)
    target = given_path(out) if out is not None else folder / "report.html"
    if command is None:
        command = shlex.join(["dest", "report", str(folder)])
    check_page(target)
    text = _page(_load(folder), target.parent, command)
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
    logs = [folder / f"{name}.jsonl{ending}" for name in _LOGS for ending in ("", ".gz")]
    records = list(read_records(*(log for log in logs if log.is_file())))
    training = [record for record in records if isinstance(record, TrainingRecord)]
    if not training:
        raise RecordError(
            f"{folder} holds no training: it has no training.jsonl with a step; name the folder of "
            "a `dest train`"
        )
    return _Run(
        folder=folder,
        headers=[record for record in records if isinstance(record, Header)],
        queries=[record for record in records if isinstance(record, QueryRecord)],
        training=training,
        tasks=[record for record in records if isinstance(record, TaskRecord)],
        summary=_document(folder / "summary.json", dict[str, Any]) or {},
        robustness=_curves(folder),
    )


def _document(path: Path, kind: Any) -> Any:
    """A JSON document; None where there is no file."""
    if not path.is_file():
        return None
    return convert(str(path), parse_any(str(path), read_bytes(path)), kind)


def _curves(folder: Path) -> list[AccuracyCurve]:
    """Accuracy under each attack, as `dest robustness` or a study measured it."""
    path = folder / "robustness.json"
    own: _Robustness | None = _document(path, _Robustness)
    points = {
        name: [[p.magnitude, p.accuracy, p.low, p.high] for p in curve.points]
        for name, curve in (own.curves if own else {}).items()
    }
    if not points:
        path = folder / "result.json"
        result: _Result | None = _document(path, _Result)
        found = (result.results.robustness if result and result.results else None) or {}
        points = {name: curve for name, curve in found.items() if curve}
    try:
        return [AccuracyCurve.of(name, curve) for name, curve in points.items()]
    except InputError as error:
        raise RecordError(
            f"{path} is damaged: it holds no curves of magnitude, accuracy, low and high ({error})"
        ) from error


def _page(run: _Run, place: Path, command: str) -> str:
    drawn: dict[str, Figure | list[tuple[str, Figure]] | None] = {
        "loss": charts.loss(run.training),
        "accuracy": charts.accuracy(run.training),
        "stages": charts.run_stages(stage_table(run.queries)) if run.queries else None,
        "perturbed": charts.robustness(None, run.robustness) if run.robustness else None,
    }
    timelines = _timelines(run)
    if timelines:
        drawn["timeline"] = [(label, figure) for label, figure, _ in timelines]
    links = [("Records", href(run.folder, place))]
    measure = f"Not measured: `dest robustness {one_line(str(run.folder), 400)}` does it."
    entries = {
        "loss": _entry("Training loss", _steps(run.training), links),
        "accuracy": _entry("Accuracy", [], links),
        "stages": _entry("Estimator time by stage", _stages(run), links),
        "perturbed": _entry("Accuracy on perturbed test samples", _perturbed(run), links, measure),
        "timeline": _entry(
            "Tasks of single queries, by worker",
            [row for _, _, row in timelines],
            links,
            "Not recorded: train with `--trace`.",
        ),
    }
    for name, entry in entries.items():
        entry["drawn"] = drawn.get(name) is not None
        entry["missing"] = "" if entry["drawn"] else entry["missing"]
    last, totals = run.training[-1], asdict(QueryTotals.of(run.queries))
    workload = run.summary.get("workload")
    name = workload if isinstance(workload, str) else run.folder.name
    return page(
        "run.html.jinja",
        {name: figure for name, figure in drawn.items() if figure is not None},
        title=f"Training run {one_line(name)}",
        steps=last.step,
        records=len(run.queries),
        cards={
            "Scores after the last step": {
                "loss": last.loss,
                **{name: last.metrics[name] for name in _SCORES if name in last.metrics},
            },
            "What the queries add up to": {
                name: value for name, value in totals.items() if not name.startswith("t_")
            },
        },
        figures=entries,
        facts=_facts(run),
        command=one_line(command, 400),
    )


def _entry(
    title: str, rows: Rows, links: Sequence[tuple[str, str]], missing: str = _NOT_MEASURED
) -> dict[str, Any]:
    return {"title": title, "rows": plain(rows), "links": links, "missing": missing, "notes": ()}


def _facts(run: _Run) -> Rows:
    begun = min((record.started_at for record in run.queries), default="not known")
    config = run.summary.get("config")
    known = config if isinstance(config, dict) else {}
    settings = ", ".join(
        f"{name} {value}"
        for name, value in known.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    )
    environments = {json.dumps(to_dict(one), sort_keys=True): to_dict(one) for one in run.headers}
    return [
        {"what": "Begun", "which": one_line(begun, 40)},
        {"what": "Configuration", "which": one_line(settings, 600) or "not known"},
        *environment_facts(list(environments.values())),
    ]


def _steps(training: Sequence[TrainingRecord]) -> Rows:
    return [
        {
            **{"step": one.step, "epoch": one.epoch, "loss": one.loss},
            **{name: one.metrics[name] for name in _SCORES if name in one.metrics},
            **{"queries": one.queries, "at": one.at},
        }
        for one in thinned(training)
    ]


def _stages(run: _Run) -> Rows:
    return [asdict(row) for row in stage_table(run.queries)] if run.queries else []


def _perturbed(run: _Run) -> Rows:
    return [
        {
            **{"attack": curve.attack, "magnitude_rad": point.magnitude},
            **{"accuracy": point.accuracy, "low": point.low, "high": point.high},
        }
        for curve in run.robustness
        for point in curve.points
    ]


def _timelines(run: _Run) -> list[tuple[str, Figure, dict[str, Any]]]:
    """The median and the slowest of the traced queries."""
    placed = by_time(run.tasks, run.queries)
    if not placed:
        return []
    chosen = {"median query": placed[(len(placed) - 1) // 2], "slowest query": placed[-1]}
    return [
        (label, charts.timeline(label, query), {"query": label, **timeline_numbers(query)})
        for label, query in chosen.items()
    ]
