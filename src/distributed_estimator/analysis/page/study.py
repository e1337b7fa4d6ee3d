"""The page of a study: what was found, every figure and table, and what to know about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..escape import one_line
from ..study.costs import MOST_ERROR, WHAT, remarks
from ..study.data import STAGE_FIGURES, StudyData
from ..study.deviations import KINDS
from ..study.groups import grouped
from ..study.headlines import NOT_MEASURED, Headline
from ..study.rows import MEASURED, Chart, Sheet
from ..study.runs import Study
from ..study.text import MOST_REASON, WHY, alone_told, told
from .bars import bar_chart, share_chart
from .curves import speed_up_chart
from .machine import machine_facts
from .model import Because, Card, CardLine, Figure, Link, Page, Remarks, Section, Sources, Spec
from .render import render
from .stages import stage_chart
from .text import bar_name, record_links, table_of
from .timeline import timeline_table, timelines_of

QUESTIONS = {
    "RQ1": "RQ1: what cutting costs",
    "RQ2": "RQ2: share of reconstruction",
    "RQ4": "RQ4: accuracy",
    "RQ5": "RQ5: robustness",
}
_PAPER = (
    "fig4_training_time",
    "fig5_speed_up",
    "table1_reconstruction_share",
    "fig6_slow_down",
    "fig7_accuracy",
    "fig8_robustness",
)
_BEYOND = (
    "stage_shares",
    "saved_subexperiments",
    "saved_shots",
    "policies",
    "accuracy_differences",
    "speed_ups",
    "fleet_stages",
    "cost_model",
)
_TABLES = ("causes", "cost_model")
"""Tables that no figure is drawn from."""
_FIGURES = {"savings": "saved_subexperiments"}
"""Figures of the tables that are not called as they are."""
_STATES = {"met": "met", "not met": "unmet"}


def study_page(data: StudyData, place: Path, command: str, hashes: Mapping[str, str]) -> str:
    """The report of a study as one HTML file.

    Args:
        data: What the study found.
        place: The folder that the page will be in; its links begin there.
        command: What makes it again.
        hashes: SHA-256 of each table's CSV, by the table's name.

    Raises:
        MissingExtraError: Jinja2 is not installed.
        RecordError: Task records are damaged.
    """
    return render(page_of(data, place, command, hashes))


def page_of(data: StudyData, place: Path, command: str, hashes: Mapping[str, str]) -> Page:
    """The same before it is HTML."""
    study = data.study
    figures = _figures(data, place, command, hashes)
    named = f"Study {one_line(study.name)}, scale {one_line(study.scale)}"
    sections = (
        _headlines(data),
        Section("paper", "The paper's figures", figures=tuple(figures[name] for name in _PAPER)),
        _why(data, figures["causes"]),
        Section("beyond", "Beyond the paper", figures=tuple(figures[name] for name in _BEYOND)),
        _timelines(study, place, command),
        _deviations(data),
    )
    return Page(named, _lead(data), tuple(_facts(study)), sections, _foot(study, command))


def _why(data: StudyData, varied: Figure) -> Section:
    because = tuple(
        Because(
            one_line(reason.text, MOST_REASON),
            reason.basis == MEASURED,
            _FIGURES.get(reason.table or "", reason.table or "").replace("_", "-"),
        )
        for reason in data.reasons
    )
    title = "Why they differ from the paper"
    return Section("why", title, (WHY,), reasons=because, figures=(varied,))


def _lead(data: StudyData) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in data.study.counts.items())
    about = data.study.config.get("about")
    told_about = f"{one_line(about)} " if isinstance(about, str) else ""
    return f"{told_about}Runs: {counts}."


def _facts(study: Study) -> list[tuple[str, str]]:
    return [
        ("Begun", one_line(study.created, 40) or "not known"),
        ("Configuration", one_line(study.digest, 80)),
        *machine_facts(study.environments),
    ]


def _foot(study: Study, command: str) -> str:
    return (
        f"Made from the records of study {one_line(study.name)} alone. To make it again: "
        f"{one_line(command, 400)}"
    )


def _headlines(data: StudyData) -> Section:
    groups = grouped(data.headlines, lambda line: (line.question, line.what))
    cards = [
        Card(
            QUESTIONS.get(question, question),
            f"{what}. Bar: {lines[0].bar}.",
            tuple(_card_line(line) for line in lines),
        )
        for (question, what), lines in groups.items()
    ]
    cards.append(_cost_card(data.costs))
    missing = ", ".join(one_line(name) for name in data.missing)
    intro = [f"Missing: {missing}. To run them: {one_line(data.how_to_go_on, 400)}"]
    return Section("results", "Results", tuple(intro) if missing else (), tuple(cards))


def _cost_card(sheet: Sheet) -> Card:
    """The cost model's error for each setup."""
    lines = [
        CardLine(
            what=one_line(row.setup),
            value=f"{row.error_total:.3g}",
            more=f"p90 {row.p90_error_total:.3g} · n = {row.configurations} configurations",
            outcome=row.outcome,
            state=_STATES[row.outcome],
        )
        for row in sheet.rows
    ]
    if not lines:
        why = one_line(remarks(sheet), 600)
        lines.append(CardLine("all setups", NOT_MEASURED, why, "", "open"))
    told_bar = f"{WHAT[:1].upper()}{WHAT[1:]}. Bar: at most {MOST_ERROR:g}."
    return Card("Cost model", told_bar, tuple(lines), wide=True)


def _card_line(line: Headline) -> CardLine:
    found = told(line)
    value, _, spread = found.partition(" (")
    more = [f"n = {line.n}"] if line.n else []
    more += [spread.removesuffix(")")] if spread else []
    more += [f"paper: {line.paper}"] if line.paper else []
    outcome = "" if line.outcome == NOT_MEASURED else line.outcome
    return CardLine(
        what=bar_name(line.dataset, line.series, line.cuts),
        value=value,
        more=one_line(" · ".join(more)),
        outcome=outcome,
        state=_STATES.get(line.outcome, "open"),
    )


def _figures(
    data: StudyData, place: Path, command: str, hashes: Mapping[str, str]
) -> dict[str, Figure]:
    """Every figure by the name of its files; those that were not measured say so."""
    sheets = {sheet.name: sheet for sheet in data.sheets}
    drawn: list[tuple[str, str, Sheet, Spec | None, Chart | None]] = [
        (chart.name, chart.title, sheets[chart.sheet or chart.name], bar_chart(chart), chart)
        for chart in data.charts
    ]
    for name, absolute in STAGE_FIGURES.items():
        chart = stage_chart(sheets[name], absolute=absolute)
        drawn.append((name, sheets[name].title, sheets[name], chart, None))
    shares = sheets["table1_reconstruction_share"]
    beside = share_chart(shares)
    drawn.append((shares.name, shares.title, shares, bar_chart(beside), beside))
    sheet = sheets["speed_ups"]
    drawn.append((sheet.name, sheet.title, sheet, speed_up_chart(sheet), None))
    drawn += [(name, sheets[name].title, sheets[name], None, None) for name in _TABLES]
    found = {}
    for name, title, sheet, spec, bars in drawn:
        sources = _sources(data, sheet, name, place, command, hashes) if sheet.rows else None
        found[name] = _figure(data, name, title, sheet, spec, bars, sources)
    return found


def _figure(
    data: StudyData,
    name: str,
    title: str,
    sheet: Sheet,
    spec: Spec | None,
    chart: Chart | None,
    sources: Sources | None,
) -> Figure:
    notes = dict.fromkeys(chart.notes if chart else sheet.notes)
    notes.update(dict.fromkeys(alone_told(sheet)))
    missing = f"{NOT_MEASURED.capitalize()}. To run what is missing: {data.how_to_go_on}"
    return Figure(
        id=name.replace("_", "-"),
        title=one_line(title),
        chart=spec,
        table=table_of(sheet),
        notes=tuple(one_line(note, 400) for note in notes) if sheet.rows else (),
        sources=sources,
        missing="" if sheet.rows else one_line(missing, 400),
    )


def _sources(
    data: StudyData,
    sheet: Sheet,
    name: str,
    place: Path,
    command: str,
    hashes: Mapping[str, str],
) -> Sources:
    files = [Link("CSV", f"tables/{sheet.name}.csv"), Link("Markdown", f"tables/{sheet.name}.md")]
    pictures = {chart.name for chart in data.charts if chart.bars} | set(STAGE_FIGURES)
    if name in pictures:
        files += [Link(kind.upper(), f"figures/{name}.{kind}") for kind in ("svg", "png")]
    return Sources(
        files=tuple(files),
        records=record_links((data.study.folder / "runs" / run for run in sheet.runs), place),
        command=one_line(command, 400),
        digest=hashes[sheet.name],
    )


def _timelines(study: Study, place: Path, command: str) -> Section:
    found, kinds = timelines_of(study)
    title = "Tasks of one query of each kind, by worker"
    if not found:
        missing = "No run of this study recorded its tasks: not measured."
        return Section("tasks", "Tasks", figures=(Figure("timeline", title, missing=missing),))
    choices = [{"group": one.group, "label": one.label, "chart": one.chart} for one in found]
    notes = ["Of each run, the query whose time is the median."]
    notes += [f"{len(found)} of {kinds} kinds are shown."] if len(found) < kinds else []
    folders = sorted({study.folder / "runs" / one.run for one in found})
    figure = Figure(
        "timeline",
        title,
        chart={"choices": choices},
        table=timeline_table(found),
        notes=tuple(notes),
        sources=Sources(records=record_links(folders, place), command=one_line(command, 400)),
    )
    return Section("tasks", "Tasks", figures=(figure,))


def _deviations(data: StudyData) -> Section:
    remarks = []
    for kind, heading in KINDS.items():
        lines = [line for line in data.deviations if line.kind == kind]
        texts = tuple(f"{one_line(line.what)}: {one_line(line.told, 400)}" for line in lines)
        remarks.append(Remarks(heading, texts))
    return Section("deviations", "Deviations and failed runs", remarks=tuple(remarks))
