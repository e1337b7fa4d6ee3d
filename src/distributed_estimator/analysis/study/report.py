"""Writes what a study found: tables, figures, deviations and a summary."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...records import given_path, plain
from ..figures import require_matplotlib
from ..page import check_page, require_jinja, study_page
from .data import REPORT_VERSION, STAGE_FIGURES, StudyData, study_data
from .figures import draw_chart, draw_stages
from .rows import Sheet
from .runs import Study, load_study
from .text import csv_of, deviations_of, explanation_of, markdown_of, summary_of

_TABLES = {"md": markdown_of, "csv": csv_of}
_FIGURES = ("png", "svg", "json")
"""Files of a table and of a figure, by their endings."""


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

    All of it or nothing is written. Files of an earlier report that cannot be made any more are
    removed; others are left alone.

    Args:
        folder: The study.
        out: Where to; None: report in the study's folder.
        command: What made it, for a reader to make it again; None: the plain command.

    Raises:
        MissingExtraError: Matplotlib or Jinja2 is not installed.
        RecordError: The study cannot be read, or the report not be written.
    """
    folder = given_path(folder)
    place = folder / "report" if out is None else given_path(out)
    data = study_data(load_study(folder))
    if any(sheet.rows for sheet in data.sheets):
        require_matplotlib()
    require_jinja()
    check_page(place / "report.html")
    if command is None:
        command = shlex.join(["dest", "study", "report", str(folder)])
    hashes = {sheet.name: _hash(csv_of(sheet)) for sheet in data.sheets if sheet.rows}
    page = study_page(data, place, command, hashes)
    tables = {f"tables/{sheet.name}.{kind}" for sheet in data.sheets for kind in _TABLES}
    names = {chart.name for chart in data.charts} | set(STAGE_FIGURES)
    figures = {f"figures/{name}.{kind}" for name in names for kind in _FIGURES}
    with replaced_files(place, tables | figures) as new:
        files = [*_write(data, new, command, hashes), write_text(new / "report.html", page)]
    return WrittenReport(data, place, tuple(place / file.relative_to(new) for file in files))


@contextmanager
def replaced_files(out: Path, known: Collection[str]) -> Iterator[Path]:
    """A folder to fill, whose files take their places in `out` at the end.

    If it cannot be filled, or a folder is in the place of a file, `out` is as it was.

    Args:
        out: The folder, which is made if need be.
        known: Files in it that are removed if they are not among the new ones; others stay.

    Raises:
        RecordError: The operating system refused to write.
    """
    new = out / f".{secrets.token_hex(4)}"
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        new.mkdir(parents=True)
        yield new
        old = [name for name in known if not (new / name).exists()]
        try:
            _move(new, out)
        except KeyboardInterrupt:  # half of them would be two reports in one
            _move(new, out)
            raise
        for name in old:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        blamed = error.filename2 or error.filename
        if blamed is None or new.name in str(blamed):
            blamed = out
        raise RecordError(f"cannot write {blamed}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # what is not empty stays
                place.rmdir()


def _move(new: Path, out: Path) -> None:
    files = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    for file in files:
        if (out / file).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out / file))
        (out / file).parent.mkdir(parents=True, exist_ok=True)
    for file in files:
        (new / file).replace(out / file)


def write_text(path: Path, text: str) -> Path:
    """Writes a file with the same bytes on every system, and its folder; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(data: StudyData, out: Path, command: str, hashes: Mapping[str, str]) -> list[Path]:
    (out / "figures").mkdir()
    written: list[Path] = []
    for sheet in data.sheets:
        if sheet.rows:
            for kind, text_of in _TABLES.items():
                path = out / "tables" / f"{sheet.name}.{kind}"
                written.append(write_text(path, text_of(sheet)))
    written += _write_figures(data, out / "figures", command, hashes)
    written.append(write_text(out / "deviations.md", deviations_of(data)))
    written.append(write_text(out / "explanation.md", explanation_of(data)))
    written.append(write_text(out / "summary.md", summary_of(data)))
    document = json.dumps(plain(data.as_dict()), indent=2, allow_nan=False) + "\n"
    written.append(write_text(out / "summary.json", document))
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
            continue
        draw_chart(chart, paths[0], paths[1])
        about = {"title": chart.title, "experiment": chart.experiment}
        about |= _sources(chart.bars, sheet, hashes)
        written += [*paths[:2], _about(paths[2], data.study, about, command)]
    for name, absolute in STAGE_FIGURES.items():
        sheet, paths = by_name[name], _paths(folder, name)
        if not sheet.rows:
            continue
        draw_stages(sheet, paths[0], paths[1], absolute=absolute)
        about = {"title": sheet.title, "experiment": sheet.experiment}
        about |= _sources(sheet.rows, sheet, hashes)
        written += [*paths[:2], _about(paths[2], data.study, about, command)]
    return written


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.{kind}" for kind in _FIGURES]


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
    return write_text(path, json.dumps(plain(document), indent=2, allow_nan=False) + "\n")
