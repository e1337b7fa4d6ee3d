"""A study's tables, headlines and deviations as Markdown and CSV, names from data escaped."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ..escape import csv_text, markdown, one_line
from .costs import MOST_ERROR, WHAT, remarks
from .data import STAGE_FIGURES, StudyData
from .deviations import KINDS
from .headlines import NOT_MEASURED, Headline
from .rows import ALL, CostRow, Sheet
from .words import counted

WHY = (
    "Every point carries numbers of this study's own records; what was not measured is named as "
    "such, and what is extrapolated is marked."
)
MOST_REASON = 2000
"""Characters of a sentence that are shown."""


def csv_of(sheet: Sheet) -> str:
    """A table as CSV, numbers in full and run ids at the end of a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.columns)
    for row in sheet.rows:
        writer.writerow([_csv_cell(getattr(row, name)) for name in sheet.columns])
    return text.getvalue()


def _csv_cell(value: Any) -> str | int | float:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, tuple):
        return csv_text(" ".join(value))
    return csv_text(value) if isinstance(value, str) else value


def markdown_of(sheet: Sheet) -> str:
    """A table as Markdown under its title, its notes below; run ids are in the CSV."""
    columns = [name for name in sheet.columns if name != "runs" and _is_used(sheet, name)]
    lines = [f"# {markdown(sheet.title)}", "", _line(name.replace("_", " ") for name in columns)]
    first = [getattr(sheet.rows[0], name) for name in columns]
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in first]
    lines.append(_line("---:" if number else "---" for number in numbers))
    lines += [_line(_cell(getattr(row, name)) for name in columns) for row in sheet.rows]
    lines += ["", *(f"{markdown(note)}  " for note in sheet.notes)]
    lines.append(f"From {_source(sheet)}, {counted(len(sheet.runs), 'run')}.  ")
    lines += alone_told(sheet)
    return "\n".join(lines).rstrip() + "\n"


def _source(sheet: Sheet) -> str:
    if sheet.experiment == ALL:
        return "all experiments"
    return f"experiment{'s' * (' and ' in sheet.experiment)} {markdown(sheet.experiment)}"


def alone_told(sheet: Sheet) -> list[str]:
    """How many of its unmatched runs no row was made from, if there are any."""
    alone = {one.run_id for one in sheet.unmatched} - set(sheet.runs)
    are = "is" if len(alone) == 1 else "are"
    told = f"{counted(len(alone), 'run')} {are} in no row: see the deviations."
    return [told] if alone else []


def _is_used(sheet: Sheet, name: str) -> bool:
    return any(getattr(row, name) is not None for row in sheet.rows)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return markdown(str(value), 120)


def deviations_of(data: StudyData) -> str:
    """deviations.md: everything by kind; a kind without any says so."""
    lines = [f"# Deviations of the study {markdown(data.study.name)}", ""]
    for kind, heading in KINDS.items():
        found = [line for line in data.deviations if line.kind == kind]
        lines += [f"## {heading}", ""]
        lines += [f"- {markdown(line.what)}: {markdown(line.told, 400)}" for line in found]
        lines += [] if found else ["None."]
        if kind == "missing" and found:
            lines += ["", f"To run them: `{_code(data.how_to_go_on)}`"]
        lines.append("")
    return "\n".join(lines)


def summary_of(data: StudyData) -> str:
    """summary.md: the headline numbers and where the rest is."""
    study = data.study
    lines = [
        f"# Study {markdown(study.name)}, scale {markdown(study.scale)}",
        "",
        _line(
            (
                "question",
                "number",
                "data set",
                "series",
                "cuts",
                "found",
                "n",
                "paper",
                "bar",
                "outcome",
            )
        ),
        _line(["---"] * 10),
        *(_headline(line) for line in data.headlines),
        "",
    ]
    if data.missing:
        names = ", ".join(markdown(name) for name in data.missing)
        lines += [f"Missing: {names}. To run them: `{_code(data.how_to_go_on)}`", ""]
    lines += ["## Cost model", "", *_costs(data.costs), ""]
    lines += ["## Tables and figures", "", *_contents(data), ""]
    lines += ["Why these numbers differ from the paper's: [explanation](explanation.md).  "]
    return "\n".join([*lines, "What departs from the paper: [deviations](deviations.md).", ""])


def _costs(sheet: Sheet) -> Iterator[str]:
    """What the cost model must show, setup by setup."""
    yield f"{WHAT[:1].upper()}{WHAT[1:]}; bar: at most {MOST_ERROR:g}."
    yield ""
    if sheet.rows:
        yield _line(("setup", "configurations", "found", "outcome"))
        yield _line(("---", "---:", "---:", "---"))
    for row in sheet.rows:
        yield _line((markdown(row.setup), str(row.configurations), cost_told(row), row.outcome))
    told = markdown(remarks(sheet), 600)
    yield from ("", told) if sheet.rows else (f"{NOT_MEASURED.capitalize()}. {told}",)


def cost_told(row: CostRow) -> str:
    """A setup's error of T_total with its 90th percentile, both relative."""
    return f"{row.error_total:.3g} (p90 {row.p90_error_total:.3g})"


def explanation_of(data: StudyData) -> str:
    """explanation.md: why the paper's numbers are others, with the table behind each sentence."""
    lines = [
        f"# Study {markdown(data.study.name)}, scale {markdown(data.study.scale)}: why its numbers "
        "differ from those that the paper states",
        "",
        WHY,
        "",
    ]
    for reason in data.reasons:
        link = f" ([table](tables/{reason.table}.md))" if reason.table else ""
        lines.append(f"- {markdown(reason.text, MOST_REASON)}{link}")
    return "\n".join([*lines, ""])


def _contents(data: StudyData) -> Iterator[str]:
    drawn = {sheet.name: [sheet.name] for sheet in data.sheets if sheet.name in STAGE_FIGURES}
    for chart in data.charts:
        drawn.setdefault(chart.sheet or chart.name, []).append(chart.name)
    for sheet in data.sheets:
        if sheet.rows:
            links = [f"[table](tables/{sheet.name}.md)", f"[CSV](tables/{sheet.name}.csv)"]
            links += [f"[{name}](figures/{name}.svg)" for name in drawn.get(sheet.name, ())]
            yield f"- {markdown(sheet.title)}: {', '.join(links)}"
        else:
            yield f"- {markdown(sheet.title)}: {NOT_MEASURED}"


def _headline(line: Headline) -> str:
    names = [markdown(name) for name in (line.what, line.dataset, line.series)]
    more = (line.paper or "–", line.bar, line.outcome)
    return _line((line.question, *names, str(line.cuts), told(line), str(line.n), *more))


def told(line: Headline) -> str:
    """A headline's number with its spread; "not measured" where there is none.

    Example:
        >>> told(Headline("RQ1", "ratio", "iris", "ours", 3, 1.5, 1.25, 2.0, 3, "min–max"))
        '1.5 (min–max 1.25 to 2)'
    """
    if line.value is None:
        return NOT_MEASURED
    number = f"{line.value:.3g}"
    known = [end is not None and not math.isnan(end) for end in (line.low, line.high)]
    if line.n > 1 and all(known):
        return f"{number} ({line.spread} {line.low:.3g} to {line.high:.3g})"
    return f"{number} (p95 {line.high:.3g})" if known[1] and not known[0] else number


def _code(text: str) -> str:
    """Text between backticks."""
    return one_line(text, 400).replace("`", "'")
