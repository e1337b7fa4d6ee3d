"""Report pages and Markdown from templates, and the page of a single training run.

Every text from data is escaped, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ..checks import require
from ..errors import RecordError
from ..records import (
    DeviceRecord,
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
from ..records.files import refused
from . import charts
from .accuracy import AccuracyCurve
from .charts import SCORES, Figure, page_specification, thinned
from .escape import MOST_SHOWN, NOT_MEASURED, cell, markdown, number, one_line, with_unit
from .load import QueryTotals, convert, parse_any, read_bytes, stage_table, time_of
from .study import ResultDocument, accuracy_curves
from .trace import PlacedQuery, by_time, timeline_numbers

if TYPE_CHECKING:
    from jinja2 import Environment

Rows = list[dict[str, Any]]
Choices = Sequence[tuple[str, Figure]]
"""Figures of which a page shows one at a time, with their labels."""

_GENERATOR = '<meta name="generator" content="distributed-estimator">'


# Pages


def require_pages() -> None:
    """Raises MissingExtraError, with the install command, if pages cannot be made."""
    charts.require_charts()
    environment()


def environment(**options: Any) -> Environment:
    """The templates of charts and pages."""
    jinja2 = require("jinja2", "report", "a report", "Jinja2")
    markup = require("markupsafe", "report", "a report", "Jinja2").Markup
    found: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        **options,
    )

    def shown(value: Any) -> Any:  # a number needs no escape
        is_number = value is None or isinstance(value, int | float)
        return markup(cell(value)) if is_number else cell(value)

    def unit(value: float | None, name: str) -> str:
        return NOT_MEASURED if value is None else with_unit(value, name)

    found.filters |= {"number": lambda n: markup(number(n)), "unit": unit, "cell": shown}
    return found


def page(template: str, drawn: Mapping[str, Figure | Choices], **values: Any) -> str:
    """A page as one HTML file with its styles, scripts and data.

    It shows figures, or several to choose from, by the id of their element. Scripts and styles
    other than the page's own are refused by the browser: the page's content security policy names
    the hashes of its own.
    """
    require_pages()
    from markupsafe import Markup

    parts = {"style": _asset("page.css"), "library": _library(), "script": _asset("page.js")}
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in parts.items()
    }
    data = json_in_html({name: _document(one) for name, one in drawn.items()})
    texts = {name: Markup(text) for name, text in {**parts, "data": data}.items()}
    return environment().get_template(template).render(**values, **texts, hashes=hashes)


def _asset(name: str) -> str:
    return files(__package__ or "").joinpath("templates", name).read_text("utf-8")


@cache
def _library() -> str:
    """Vega with all it needs, as one script."""
    return str(charts.require_charts().javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _document(figure: Figure | Choices) -> dict[str, Any]:
    if not isinstance(figure, Figure):
        return {"choices": [{"label": label, **_document(one)} for label, one in figure]}
    titles = [panel["title"] for panel in figure.panels]
    panels = [page_specification(panel) for panel in figure.panels]
    more = {"colours": figure.colours, "log": figure.logarithmic}
    return {"titles": titles, "panels": panels, **more}


def json_in_html(document: Any) -> str:
    r"""JSON that stands in a script element and cannot end it, in ASCII letters.

    Example:
        >>> json_in_html({"name": "</script>\u2028"})
        '{"name":"\\u003c/script\\u003e\\u2028"}'
    """
    text = json.dumps(plain(document), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def markdown_page(template: str, **values: Any) -> str:
    """A page in Markdown."""
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        is_safe = isinstance(value, Markup | int | float)
        return value if is_safe else Markup(markdown(str(value), MOST_SHOWN))

    return environment(finalize=shown).get_template(template).render(**values)


def check_page(path: Path, mark: str = _GENERATOR) -> None:
    """Raises RecordError where a file that is no page of ours, without its mark, would be lost."""
    with refused("read", path):
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    if text and mark not in text:
        raise RecordError(
            f"`{path}` is there and is no report page: move it away, or name another place with "
            "--out"
        )


def facts(begun: str, configuration: str, headers: Iterable[Mapping[str, Any]]) -> Rows:
    """What some records were made from, and the machines and versions that made them, each once."""
    moment = time_of(begun)
    begun = f"{moment:%Y-%m-%d %H:%M} UTC" if moment else begun
    found: dict[str, list[str]] = {"Begun": [one_line(begun, 40)], "Configuration": [configuration]}
    found |= {name: [] for name in ("Machine", "Threads", "Versions", "Commit")}
    for one in headers:
        machine, commit = one.get("machine") or {}, one.get("commit")
        count, memory = machine.get("cpu_count"), machine.get("memory_bytes")
        parts: dict[str, list[Any]] = {
            "Machine": [
                one.get("processor"),
                f"{count} processors" if count else None,
                f"{memory / 2**30:.0f} GiB" if memory else None,
                *(machine.get(name) for name in ("system", "architecture")),
            ],
            "Threads": [f"{k} = {v or 'not set'}" for k, v in (one.get("threads") or {}).items()],
            "Versions": [f"{k} {v}" for k, v in (one.get("versions") or {}).items() if v],
            "Commit": [f"{commit[:10]}{' with uncommitted changes' if one.get('dirty') else ''}"]
            if commit
            else [],
        }
        for name, texts in parts.items():
            found[name].append(", ".join(str(text) for text in texts if text))
    shown = {name: "; ".join(filter(None, dict.fromkeys(texts))) for name, texts in found.items()}
    return [{"what": name, "which": one_line(t, 600) or "not known"} for name, t in shown.items()]


def href(target: Path, place: Path) -> str:
    """A relative URL from the folder of a page to a folder."""
    return quote(Path(os.path.relpath(target, place)).as_posix()) + "/"


def entry(
    title: str, rows: Any, figure: Any, missing: str = "", **more: Sequence[Any]
) -> dict[str, Any]:
    """A figure and its table as a page's template takes them, with `notes`, `links` and `under`.

    Without a figure, `missing` says why there is none.
    """
    missing = "" if figure else missing
    entry = {"title": title, "rows": plain(rows), "drawn": bool(figure), "missing": missing}
    return {**entry, "notes": (), "links": (), "under": (), **more}


def timelines(queries: Iterable[tuple[str, PlacedQuery]]) -> tuple[Choices, Rows]:
    """Timelines of labelled queries, and a row of numbers for each."""
    found = list(queries)
    return (
        [(label, charts.timeline(label, query)) for label, query in found],
        [{"query": label, **timeline_numbers(query)} for label, query in found],
    )


# The page of a run


class _Point(msgspec.Struct):
    magnitude: float
    accuracy: float
    low: float
    high: float


class _Curve(msgspec.Struct):
    points: list[_Point]


class _Robustness(msgspec.Struct):
    """robustness.json, as `dest robustness` writes it."""

    curves: dict[str, _Curve] = {}


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
    text = _run_page(folder, href(folder, target.parent), command)
    with refused("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target, durable=False) as unfinished:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
    return target


def _run_page(folder: Path, records_href: str, command: str) -> str:
    if (folder / "study.json").is_file():
        raise RecordError(f"{folder} is a study: report it with `dest study report {folder}`")
    names = product(("queries", "training", "tasks"), ("", ".gz"))
    logs = [folder / f"{name}.jsonl{end}" for name, end in names]
    records = list(read_records(*(log for log in logs if log.is_file())))
    training = [record for record in records if isinstance(record, TrainingRecord)]
    if not training:
        raise RecordError(
            f"{folder} holds no training: it has no training.jsonl with a step; name the folder of "
            "a `dest train`"
        )
    queries = [record for record in records if isinstance(record, QueryRecord)]
    tasks = [record for record in records if isinstance(record, TaskRecord)]
    curves, stages = _curves(folder), stage_table(queries) if queries else ()
    placed = by_time(tasks, queries)
    places = {"median query": (len(placed) - 1) // 2, "slowest query": -1} if placed else {}
    choices, numbers = timelines((label, placed[place]) for label, place in places.items())
    drawn: dict[str, Figure | Choices | None] = {
        "loss": charts.loss(training),
        "accuracy": charts.accuracy(training),
        "stages": charts.run_stages(stages) if stages else None,
        "perturbed": charts.robustness(None, curves) if curves else None,
        "timeline": choices or None,
    }
    measure = f"Not measured: `dest robustness {one_line(str(folder), 400)}` does it."
    tables: dict[str, tuple[str, Rows, str]] = {
        "loss": ("Training loss", _steps(training), "Not measured."),
        "accuracy": ("Accuracy", [], "Not measured."),
        "stages": ("Estimator time by stage", [asdict(row) for row in stages], "Not measured."),
        "perturbed": ("Accuracy on perturbed test samples", _points(curves), measure),
        "timeline": (
            *("Tasks of single queries, by worker", numbers),
            "Not recorded: train with `--trace`.",
        ),
    }
    summary: dict[str, Any] = _document_at(folder / "summary.json", dict[str, Any]) or {}
    workload = summary.get("workload")
    name = workload if isinstance(workload, str) else folder.name
    headers = [to_dict(record) for record in records if isinstance(record, Header)]
    begun = min((record.started_at for record in queries), default="not known")
    return page(
        "run.html.jinja",
        {key: figure for key, figure in drawn.items() if figure},
        title=f"Training run {one_line(name)}",
        training=training,
        last=training[-1],
        totals=QueryTotals.of(queries),
        figures={
            key: entry(title, rows, drawn[key], missing, links=[("Records", records_href)])
            for key, (title, rows, missing) in tables.items()
        },
        shares=_shares(folder),
        facts=facts(begun, _settings(summary), headers),
        command=one_line(command, 400),
    )


def _document_at(path: Path, kind: Any) -> Any:
    """A JSON document; None where there is no file."""
    if not path.is_file():
        return None
    return convert(str(path), parse_any(str(path), read_bytes(path)), kind)


def _curves(folder: Path) -> list[AccuracyCurve]:
    """Accuracy under each attack, as `dest robustness` or a study measured it."""
    path = folder / "robustness.json"
    own: _Robustness | None = _document_at(path, _Robustness)
    if own and own.curves:
        points: dict[str, Any] = {
            name: [[p.magnitude, p.accuracy, p.low, p.high] for p in curve.points]
            for name, curve in own.curves.items()
        }
    else:
        path = folder / "result.json"
        result: ResultDocument | None = _document_at(path, ResultDocument)
        found = (result.results.robustness if result and result.results else None) or {}
        points = {name: curve for name, curve in found.items() if curve}
    return accuracy_curves(str(path), points)


def _settings(summary: Mapping[str, Any]) -> str:
    """The configuration of a run in one line, as far as it is numbers and texts."""
    config = summary.get("config")
    return ", ".join(
        f"{name} {value}"
        for name, value in (config if isinstance(config, dict) else {}).items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    )


def _steps(training: Sequence[TrainingRecord]) -> Rows:
    return [
        {
            **{"step": one.step, "epoch": one.epoch, "loss": one.loss},
            **{name: one.metrics[name] for name in SCORES if name in one.metrics},
            **{"queries": one.queries, "at": one.at},
        }
        for one in thinned(training)
    ]


def _points(curves: Sequence[AccuracyCurve]) -> Rows:
    return [
        {
            **{"attack": curve.attack, "magnitude_rad": point.magnitude},
            **{"accuracy": point.accuracy, "low": point.low, "high": point.high},
        }
        for curve in curves
        for point in curve.points
    ]


def _shares(folder: Path) -> Rows:
    """What each device did, real or simulated, as far as it was recorded."""
    names = [f"{name}.jsonl{end}" for name in ("tasks", "devices") for end in ("", ".gz")]
    logs = [folder / name for name in names if (folder / name).is_file()]
    jobs = [one for one in read_records(*logs) if isinstance(one, DeviceRecord)] if logs else []
    if not jobs:
        return []
    frame = require("pandas", "report", "a report").DataFrame([to_dict(job) for job in jobs])
    done = frame.status == "done"
    circuits = frame.circuits.where(done, 0)
    frame = frame.assign(jobs=1, failed=~done, circuits=circuits, shots=circuits * frame.shots)
    frame = frame.assign(busy_s=frame.finished - frame.started)
    sums = frame.groupby(frame.device.map(lambda device: one_line(device, 80)), sort=False)
    found = sums[["jobs", "failed", "circuits", "shots", "busy_s"]].sum()
    rows: Rows = plain(found.reset_index().to_dict("records"))
    return rows
