"""Writes what a study found: tables, figures, deviations and a summary."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...records import atomic, plain
from ..figures import require_matplotlib
from ..page import require_jinja, study_page
from .data import REPORT_VERSION, STAGE_FIGURES, StudyData, study_data
from .figures import draw_chart, draw_stages
from .rows import Sheet
from .runs import Study, load_study
from .text import csv_of, deviations_of, explanation_of, markdown_of, summary_of


@dataclass(frozen=True)
class WrittenReport:
    """A report on the disk.

    Attributes:
        data: What it shows.
        out: Its folder.
        files: Everything that was written, in order.
    """

    data: StudyData
    out: Path
    files: tuple[Path, ...]


def write_report(
    folder: Path | str, out: Path | str | None = None, command: str | None = None
) -> WrittenReport:
    """Writes the report of a study: report.html, tables/, figures/ and texts.

    Files of an earlier report that cannot be made any more are removed; others are left alone.

    Args:
        folder: The study.
        out: Where to; None: report in the study's folder.
        command: What made it, for a reader to make it again; None: the plain command.

    Raises:
        MissingExtraError: Matplotlib or Jinja2 is not installed.
        RecordError: The study cannot be read, or the report not be written.
    """
    data = study_data(load_study(folder))
    if any(sheet.rows for sheet in data.sheets):
        require_matplotlib()
    require_jinja()
    place = Path(out) if out is not None else Path(folder) / "report"
    if command is None:
        command = shlex.join(["dest", "study", "report", str(folder)])
    hashes = {sheet.name: _hash(csv_of(sheet)) for sheet in data.sheets if sheet.rows}
    page = study_page(data, place, command, hashes)
    try:
        written = _write(data, place, command, hashes)
        return WrittenReport(data, place, (*written, _text(place / "report.html", page)))
    except OSError as error:
        raise RecordError(
            f"cannot write {error.filename or place}: {error.strerror or error}"
        ) from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(data: StudyData, out: Path, command: str, hashes: Mapping[str, str]) -> list[Path]:
    for folder in (out / "tables", out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for sheet in data.sheets:
        paths = [out / "tables" / f"{sheet.name}.{kind}" for kind in ("md", "csv")]
        if not sheet.rows:
            _remove(paths)
            continue
        for path, text in zip(paths, (markdown_of(sheet), csv_of(sheet)), strict=True):
            written.append(_text(path, text))
    written += _write_figures(data, out / "figures", command, hashes)
    written.append(_text(out / "deviations.md", deviations_of(data)))
    written.append(_text(out / "explanation.md", explanation_of(data)))
    written.append(_text(out / "summary.md", summary_of(data)))
    document = json.dumps(plain(data.as_dict()), indent=2, allow_nan=False) + "\n"
    written.append(_text(out / "summary.json", document))
    return written


def _write_figures(
    data: StudyData, folder: Path, command: str, hashes: Mapping[str, str]
) -> list[Path]:
    written: list[Path] = []
    by_name = {sheet.name: sheet for sheet in data.sheets}
    for chart in data.charts:
        sheet = by_name[chart.sheet or chart.name]
        paths = _paths(folder, chart.name)
        if not chart.bars:
            _remove(paths)
            continue
        draw_chart(chart, paths[0], paths[1])
        about = {"title": chart.title, "experiment": chart.experiment}
        about |= _sources(chart.bars, sheet, hashes)
        written += [*paths[:2], _about(paths[2], data.study, about, command)]
    for name, absolute in STAGE_FIGURES.items():
        sheet, paths = by_name[name], _paths(folder, name)
        if not sheet.rows:
            _remove(paths)
            continue
        draw_stages(sheet, paths[0], paths[1], absolute=absolute)
        about = {"title": sheet.title, "experiment": sheet.experiment}
        about |= _sources(sheet.rows, sheet, hashes)
        written += [*paths[:2], _about(paths[2], data.study, about, command)]
    return written


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.{kind}" for kind in ("png", "svg", "json")]


def _sources(rows: Sequence[Any], sheet: Sheet, hashes: Mapping[str, str]) -> dict[str, Any]:
    """The table with a figure's numbers, and the records that they come from."""
    return {
        "data": f"tables/{sheet.name}.csv",
        "data_sha256": hashes[sheet.name],
        "origin": sorted({row.origin for row in rows}),
        "records": [f"runs/{run}" for run in sorted({run for row in rows for run in row.runs})],
    }


def _about(path: Path, study: Study, about: Mapping[str, Any], command: str) -> Path:
    document = {
        "schema_version": REPORT_VERSION,
        "study": study.name,
        "scale": study.scale,
        "study_hash": study.digest,
        "command": command,
        **about,
    }
    return _text(path, json.dumps(plain(document), indent=2, allow_nan=False) + "\n")


def _text(path: Path, text: str) -> Path:
    with atomic(path, durable=False) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return path


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
