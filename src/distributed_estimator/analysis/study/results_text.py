"""The page of published results as Markdown, names from data escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..escape import markdown, one_line
from ..page.machine import machine_facts
from .costs import MOST_ERROR, WHAT, remarks
from .data import StudyData
from .deviations import KINDS
from .groups import grouped
from .headlines import NOT_MEASURED, Headline
from .rows import CostRow, Reason, Sheet
from .text import MOST_REASON, WHY, cost_told, markdown_of, told
from .words import counted

_OF_THE_PAPER = ("fig", "table")
"""Beginnings of the names of tables that the paper has too."""
_OF_THE_REASONS = ("causes",)


@dataclass(frozen=True)
class Drawing:
    """A figure of a report: the name of its files, and what its JSON says."""

    name: str
    about: Mapping[str, Any]


def results_page(
    data: StudyData, drawings: Sequence[Drawing], manifest: Mapping[str, Any], redraw: str
) -> str:
    """README.md of published results.

    Args:
        data: What the study found.
        drawings: Its figures, in the order to show them in.
        manifest: Of the archive that it was made from.
        redraw: The command that makes it again, in its own folder.
    """
    study = data.study
    papers = [sheet for sheet in data.sheets if sheet.name.startswith(_OF_THE_PAPER)]
    why = [sheet for sheet in data.sheets if sheet.name in _OF_THE_REASONS]
    ours = [sheet for sheet in data.sheets if sheet not in (*papers, *why)]
    blocks = [
        f"# Results of the study {markdown(study.name)}, scale {markdown(study.scale)}",
        "<!-- Made from records/ by `dest study report`: change the code, not this page. -->",
        *_lead(data),
        "## Against what they must show",
        *_headlines(data.headlines),
        *_costs(data.costs),
        *_missing(data),
        "## The paper's figures",
        *_sheets(data, papers, drawings),
        "## Why they differ from the paper",
        WHY,
        "\n".join(map(_reason, data.reasons)),
        *_sheets(data, why, drawings),
        "## Beyond the paper",
        *_sheets(data, ours, drawings),
        "## Deviations and failed runs",
        *_deviations(data),
        "## Machine and versions",
        _facts(data),
        "## Made again",
        *_again(manifest, redraw),
    ]
    return "\n\n".join(blocks) + "\n"


def _lead(data: StudyData) -> Iterator[str]:
    about = data.study.config.get("about")
    if isinstance(about, str):
        yield markdown(about, MOST_REASON)
    counts = ", ".join(f"{count} {status}" for status, count in data.study.counts.items())
    origins = grouped((run for run in data.study.runs if run.results), lambda run: run.origin)
    told_origins = ", ".join(f"{len(runs)} {markdown(name)}" for name, runs in origins.items())
    yield (
        f"Runs: {counts}. Where their numbers come from: {told_origins or 'none has any'}; every "
        "figure and row says it too. Everything on this page is made from `records/` alone."
    )


def _headlines(lines: Iterable[Headline]) -> Iterator[str]:
    """A table for each question, so that it fits a page."""
    groups = grouped(lines, lambda line: (line.question, line.what, line.bar))
    for (question, what, bar), members in groups.items():
        yield f"{markdown(question)}: {markdown(what)}. Bar: {markdown(bar)}."
        names = list(dict.fromkeys(line.series for line in members))
        heads = ["data set", "cuts", "found", "n", "paper", "outcome"]
        rows = [
            [
                *(markdown(line.dataset), str(line.cuts), told(line), str(line.n)),
                *(line.paper or "–", line.outcome),
            ]
            for line in members
        ]
        if len(names) > 1:
            heads.insert(1, "series")
            for row, line in zip(rows, members, strict=True):
                row.insert(1, markdown(line.series))
        yield _table(heads, rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def _costs(sheet: Sheet) -> Iterator[str]:
    yield f"Cost model: {WHAT}. Bar: at most {MOST_ERROR:g}."
    if sheet.rows:
        yield _table(("setup", "configurations", "found", "outcome"), map(_cost, sheet.rows))
    else:
        yield f"{NOT_MEASURED.capitalize()}."
    if told_remarks := remarks(sheet):
        yield markdown(told_remarks, MOST_REASON)


def _cost(row: CostRow) -> Sequence[str]:
    return markdown(row.setup), str(row.configurations), cost_told(row), row.outcome


def _missing(data: StudyData) -> Iterator[str]:
    if data.missing:
        names = ", ".join(markdown(name) for name in data.missing)
        command = one_line(data.how_to_go_on, 400).replace("`", "'")
        yield f"Missing: {names}. To run them: `{command}`"


def _reason(reason: Reason) -> str:
    link = f" ([numbers](tables/{reason.table}.csv))" if reason.table else ""
    return f"- {markdown(reason.text, MOST_REASON)}{link}"


def _sheets(data: StudyData, sheets: Sequence[Sheet], drawings: Sequence[Drawing]) -> Iterator[str]:
    notes = {chart.name: chart.notes for chart in data.charts}
    for sheet in sheets:
        mine = [one for one in drawings if one.about["data"] == f"tables/{sheet.name}.csv"]
        if not sheet.rows:
            yield f"### {markdown(sheet.title)}"
            yield f"{NOT_MEASURED.capitalize()}."
        elif not mine:
            yield f"##{markdown_of(sheet)}".rstrip()
            yield f"[Numbers in full (CSV)](tables/{sheet.name}.csv)"
        for one in mine:
            yield from _figure(one, notes.get(one.name, sheet.notes), sheet)


def _figure(one: Drawing, notes: Iterable[str], sheet: Sheet) -> Iterator[str]:
    title = markdown(str(one.about["title"]))
    yield f"### {title}"
    yield f"![{title}](figures/{one.name}.svg)"
    told_notes = " ".join(markdown(note, 400) for note in dict.fromkeys(notes))
    origins = ", ".join(markdown(origin) for origin in one.about["origin"])
    runs = counted(len(one.about["records"]), "run")
    yield (
        f"{told_notes} {origins[:1].upper()}{origins[1:]}, {runs}. "
        f"[Numbers (CSV)](tables/{sheet.name}.csv) · "
        f"[their records](figures/{one.name}.json), SHA-256 {one.about['data_sha256'][:12]}"
    ).strip()


def _deviations(data: StudyData) -> Iterator[str]:
    for kind, heading in KINDS.items():
        found = [line for line in data.deviations if line.kind == kind]
        lines = [f"- {markdown(line.what)}: {markdown(line.told, 400)}" for line in found]
        yield f"### {heading}"
        yield "\n".join(lines) or "None."


def _facts(data: StudyData) -> str:
    facts = [
        ("Begun", data.study.created or "not known"),
        ("Configuration", data.study.digest),
        *machine_facts(data.study.environments),
    ]
    return _table(
        ("what", "which"), [(name, markdown(value, MOST_REASON)) for name, value in facts]
    )


def _again(manifest: Mapping[str, Any], redraw: str) -> Iterator[str]:
    yield "In this folder, with the extra `report` installed:"
    yield f"```sh\n{redraw}\n```"
    left_out = manifest["traces_left_out"]
    yield (
        f"SHA-256 of the records: `{one_line(manifest['records_sha256'], 64).replace('`', '')}`. "
        "They are compressed and otherwise as they were written"
        + (
            f"; {left_out} files with single tasks and jobs, of further runs of a kind, are left "
            "out."
            if left_out
            else "."
        )
    )
    yield (
        "`dest study report records --out REPORT` makes the interactive page with timelines of "
        "tasks, `dest records records --sql TEXT` asks the records anything, and "
        "`dest predict --costs records` predicts from them."
    )
