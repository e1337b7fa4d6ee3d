"""Published results: an archive of a study, and beside it all that is made from its records."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import RecordError
from ...records import given_path
from ..figures import require_matplotlib
from .archive import read_manifest
from .data import STAGE_FIGURES, StudyData
from .report import WrittenReport, replaced_files, write_report, write_text
from .results_text import Drawing, results_page
from .runs import MANIFEST

RECORDS = "records"
PAGE = "README.md"
REDRAW = "dest study report . --from-logs"
"""In the folder of the results; the same words on every machine."""
_MADE = "<!-- Made from records/ "
"""In every page that is made here, and so may be made again."""
_PUBLISHED = {"figures": (".svg", ".json"), "tables": (".csv",)}
"""Folders of a report with the files of it that are published."""


def write_results(folder: Path | str, out: Path | str | None = None) -> WrittenReport:
    """Makes README.md, figures/, tables/ and summary.json from the archive in `records/`.

    Files of earlier results that cannot be made any more are removed; others are left alone. Text
    in the figures is text, which the reader's own fonts show: that halves their size.

    Args:
        folder: The results; its `records` is an archive of a study, which is only read.
        out: Where to write; None: into `folder`.

    Raises:
        MissingExtraError: Matplotlib or Jinja2 is not installed.
        RecordError: There is no archive, it is damaged, or the results cannot be written, or only
            over a README.md that is somebody's own; nothing was written.
    """
    folder = given_path(folder)
    place = folder if out is None else given_path(out)
    records = folder / RECORDS
    if not (records / MANIFEST).is_file():
        raise RecordError(
            f"{folder} holds no archive named {RECORDS}: pack a study there with "
            f"`dest study pack STUDY --out {records}`"
        )
    _check_page(place / PAGE)
    manifest = read_manifest(records)
    with tempfile.TemporaryDirectory() as drawn, _text_as_text():
        report = write_report(records, drawn, command=REDRAW)
        page = results_page(report.data, _drawings(report), manifest, REDRAW)
        known = {
            f"{name}/{one}{ending}"
            for name, endings in _PUBLISHED.items()
            for one in _names(report.data, name)
            for ending in endings
        }
        with replaced_files(place, known) as new:
            files = [write_text(new / PAGE, page), *_publish(report, new)]
    return WrittenReport(report.data, place, tuple(place / file.relative_to(new) for file in files))


def _check_page(page: Path) -> None:
    """Raises `RecordError` where a page that was not made here would be lost."""
    try:
        text = page.read_text("utf-8", errors="replace") if page.is_file() else ""
    except OSError as error:
        raise RecordError(f"cannot read {page}: {error.strerror or error}") from error
    if text and _MADE not in text:
        raise RecordError(
            f"`{page}` is there and was not made from {RECORDS}/: move it away, or give another "
            "folder with `--out`"
        )


@contextmanager
def _text_as_text() -> Iterator[None]:
    require_matplotlib()
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):
        yield


def _drawings(report: WrittenReport) -> list[Drawing]:
    """What the report says of each of its figures."""
    found = []
    for path in report.files:
        if path.parent.name == "figures" and path.suffix == ".json":
            about: dict[str, Any] = json.loads(path.read_text("utf-8"))
            found.append(Drawing(path.stem, about))
    return found


def _publish(report: WrittenReport, place: Path) -> Sequence[Path]:
    """Copies what is published of a report."""
    summary = (report.out / "summary.json").read_text("utf-8")
    written = [write_text(place / "summary.json", summary)]
    for name, endings in _PUBLISHED.items():
        sources = [file for file in report.files if file.parent == report.out / name]
        sources = [file for file in sources if file.suffix in endings]
        written += [write_text(place / name / file.name, _published(file)) for file in sources]
    return written


def _names(data: StudyData, folder: str) -> set[str]:
    """What files in a folder of a report may be called, whatever was measured."""
    if folder == "tables":
        return {sheet.name for sheet in data.sheets}
    return {chart.name for chart in data.charts} | set(STAGE_FIGURES)


def _published(file: Path) -> str:
    """A file's text; a picture says which data it was drawn from, and keeps its spaces."""
    text = file.read_text("utf-8")
    if file.suffix != ".svg":
        return text
    about = json.loads(file.with_suffix(".json").read_text("utf-8"))
    told = f"<desc>Data: {about['data']}, SHA-256 {about['data_sha256']}</desc>"
    return re.sub(r"<svg\b([^>]*>)", rf'<svg xml:space="preserve"\1\n {told}', text, count=1)
