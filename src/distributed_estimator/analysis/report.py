"""The report of a study: one interactive page, one page in Markdown, tables and figures."""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import RecordError
from ..records import TaskRecord, given_path, plain
from . import charts
from .archive import Manifest, read_manifest, replaced_files, write_text
from .charts import Figure, require_charts
from .escape import csv_text, cuts_label, number, one_line
from .load import MANIFEST
from .remarks import Remarks, missing, remarks
from .render import (
    Rows,
    check_page,
    environment_facts,
    href,
    markdown_page,
    page,
    require_jinja,
)
from .study import Study, load_study
from .study_tables import MOST_ERROR, NOT_MEASURED, SERIES, Table, Tables, study_tables
from .trace import by_time, timeline_numbers

REPORT_VERSION = 2
RECORDS = "records"
REDRAW = "dest study report . --from-logs"
"""In the folder of published results; the same words on every machine."""
MOST_TIMELINES = 40
_MADE = "by `dest study report`"
"""In every page that is made here, and so may be made again."""
_QUESTIONS = {
    "RQ1": "RQ1: what cutting costs",
    "RQ2": "RQ2: share of reconstruction",
    "RQ4": "RQ4: accuracy",
    "RQ5": "RQ5: robustness",
}
_SECTIONS = {
    "paper": (
        "fig4_training_time",
        "fig5_speed_up",
        "table1_reconstruction_share",
        "fig6_slow_down",
        "fig7_accuracy",
        "fig8_robustness",
    ),
    "why": ("causes", "changes", "unit_costs"),
    "beyond": (
        "stage_shares",
        "saved_subexperiments",
        "saved_shots",
        "policies",
        "accuracy_differences",
        "speed_ups",
        "fleet_stages",
        "cost_model",
    ),
}
"""Figures and tables in the order of a page."""
_HEADINGS = {
    "failed": "Failed runs",
    "unfinished": "Unfinished runs",
    "missing": "Missing experiments",
    "protocol": "Departures from the paper's protocol",
    "extrapolated": "Extrapolated, not measured",
    "origins": "Where numbers come from: simulated, on a fake backend, or real",
    "delays": "Runs with injected delays",
    "unmatched": "Runs that no ratio or difference was made with",
}
_STATES = {"met": "met", "not met": "unmet"}
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyData:
    """Everything that a study's report shows, before any of it is written.

    Attributes:
        study: Its runs.
        tables: Its tables and headlines.
        remarks: What a reader must know beside them.
    """

    study: Study
    tables: Tables
    remarks: Remarks

    @classmethod
    def of(cls, study: Study) -> StudyData:
        """All tables and remarks of a study, from its records alone."""
        tables = study_tables(study)
        return cls(study, tables, remarks(study, tables.by_name))

    @property
    def how_to_go_on(self) -> str:
        """The command that runs what is missing and leaves what is there."""
        study = self.study
        # Nothing can be run in an archive.
        place = "DIR" if (study.folder / MANIFEST).is_file() else str(study.folder)
        words = ["dest", "study", "run", study.name, "--scale", study.scale, "--out", place]
        return one_line(shlex.join(words), 400)

    @property
    def missing(self) -> list[str]:
        """Experiments without a finished run."""
        return [one_line(name) for name in missing(self.study)]

    @property
    def counts(self) -> dict[str, int]:
        """How many runs there are, by status; those that are damaged too."""
        found = {str(status): len(part) for status, part in self.study.runs.groupby("status")}
        return {**found, **({"damaged": len(self.study.damaged)} if self.study.damaged else {})}

    def questions(self) -> list[dict[str, Any]]:
        """Headlines by question, each with its lines as a reader sees them."""
        found = []
        for (question, what), part in self.tables.headlines.groupby(["question", "what"]):
            lines = [
                {
                    **{k: row[k] for k in ("dataset", "series", "cuts", "n", "paper", "outcome")},
                    **dict(zip(("value", "spread"), _found(row), strict=True)),
                    "state": _STATES.get(row["outcome"], "open"),
                }
                for row in part.to_dict("records")
            ]
            title = _QUESTIONS.get(str(question), str(question))
            bar = part.bar.iloc[0]
            found.append({"title": title, "what": what, "bar": bar, "rows": lines})
        return found

    def cost_rows(self) -> Rows:
        """The cost model's error for each setup, with its 90th percentile."""
        return [
            {
                "setup": one_line(row["setup"]),
                "configurations": row["configurations"],
                "value": f"{row['error_total']:.3g}",
                "spread": f"p90 {row['p90_error_total']:.3g}",
                "outcome": row["outcome"],
            }
            for row in self.tables["cost_model"].rows.to_dict("records")
        ]

    def reasons(self) -> dict[str, Any]:
        """Numbers behind the sentences that say why the paper's differ; see `why.jinja`."""
        units = self.tables["unit_costs"].rows
        shares = _where(units, experiment="shares")
        theirs, ours = (_where(shares, series=name) for name in ("the paper's pipeline", "ours"))
        changes = self.tables["changes"].rows
        rows = changes.to_dict("records")
        both = [] if ours.empty else theirs.merge(ours[["dataset", "cuts"]])
        found: dict[str, Any] = {
            "savings": _most_cuts(self.tables["savings"].rows),
            "shots": _beside(_most_cuts(pd.DataFrame(both)), ours, ("dataset", "cuts")),
            "midcircuit": [
                (base, row)
                for row, base in _beside(_most_cuts(theirs), _where(theirs, cuts=0), ("dataset",))
            ],
            "changes": rows,
            "divided": [row for row in rows if not math.isnan(row["share_if_divided"])],
            "together": _most_cuts(_where(units, experiment="training")),
        }
        names = {
            "savings": "repeated subexperiments",
            "shots": "loops over shots in reconstruction",
            "midcircuit": "mid-circuit measurements",
            "together": "queries of a training that are evaluated together",
        }
        causes = {
            "deferral": "what deferred measurements take",
            "threads": "threads of simulators",
            "workers": "shares of reconstruction by number of workers",
        }
        kinds = set() if changes.empty else set(changes.change)
        missing = [text for key, text in names.items() if not found[key]]
        missing += [text for key, text in causes.items() if key not in kinds]
        return {**found, "not_measured": missing}

    def as_dict(self) -> dict[str, Any]:
        """The report for a JSON document."""
        study = self.study
        return {
            "schema_version": REPORT_VERSION,
            "study": study.name,
            "scale": study.scale,
            "hash": study.digest,
            "runs": self.counts,
            "headlines": self.tables.headlines.to_dict("records"),
            "cost_model": {"most": MOST_ERROR, "left_out": dict(self.tables.left_out)},
            "missing": self.missing,
            "not_measured": [t.name for t in self.tables.by_name.values() if t.rows.empty],
            "deviations": self.remarks,
            "environments": [dict(environment) for environment in study.environments],
            "tables": {
                name: {
                    "title": table.title,
                    "experiment": table.experiment,
                    "notes": list(table.notes),
                    "rows": table.rows.to_dict("records"),
                }
                for name, table in self.tables.by_name.items()
            },
        }

    @cached_property
    def figures(self) -> dict[str, tuple[Table, Figure]]:
        """Every figure by name, with the table that holds its numbers; measured ones alone."""
        return dict(_figures(self.tables))


def _where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for name, value in values.items():
        rows = rows if rows.empty else rows[rows[name] == value]
    return rows


def _most_cuts(rows: pd.DataFrame) -> Rows:
    """Of each data set, the row with the most cuts."""
    if rows.empty:
        return []
    cut = rows[rows.cuts > 0].sort_values("cuts", kind="stable")
    found: Rows = (
        cut.drop_duplicates("dataset", keep="last").sort_values("dataset").to_dict("records")
    )
    return found


def _beside(rows: Rows, others: pd.DataFrame, keys: Sequence[str]) -> list[tuple[Any, Any]]:
    """Rows with the row of others that is of the same place."""
    pairs = [(row, _where(others, **{key: row[key] for key in keys})) for row in rows]
    return [(row, found.iloc[0].to_dict()) for row, found in pairs if not found.empty]


def _found(row: Mapping[str, Any]) -> tuple[str, str]:
    """A headline's number, and its spread."""
    value, low, high = (
        math.nan if row[name] is None else row[name] for name in ("value", "low", "high")
    )
    if math.isnan(value):
        return NOT_MEASURED, ""
    if row["n"] > 1 and not math.isnan(low):
        return f"{value:.3g}", f"{row['spread']} {low:.3g} to {high:.3g}"
    return f"{value:.3g}", f"p95 {high:.3g}" if math.isnan(low) and not math.isnan(high) else ""


def _figures(tables: Tables) -> Iterator[tuple[str, tuple[Table, Figure]]]:
    quantities: dict[str, tuple[str, float | None]] = {
        "fig4_training_time": ("training time (s)", None),
        "fig5_speed_up": ("training time at 1 worker / at many", 1.0),
        "fig6_slow_down": ("training time with stragglers / without", 1.0),
        "fig7_accuracy": ("test accuracy", None),
        "fig8_robustness": ("mean accuracy under perturbation", None),
    }
    for name, (quantity, level) in quantities.items():
        table = tables[name]
        if not table.rows.empty:
            yield name, (table, charts.bars(table.title, table.rows, quantity, level=level))
    shares, savings = tables["table1_reconstruction_share"], tables["savings"]
    if not shares.rows.empty:
        rows = _with_stated(shares.rows)
        yield shares.name, (shares, charts.bars(shares.title, rows, "T_rec / T_total, median"))
    for what in ("subexperiments", "shots") if not savings.rows.empty else ():
        title = f"{what.capitalize()} of a query, the paper's pipeline and ours"
        figure = charts.bars(title, _both_sides(savings.rows, what), f"{what} a query")
        yield f"saved_{what}", (savings, figure)
    for name, absolute in (("stage_shares", False), ("fleet_stages", True)):
        table = tables[name]
        if not table.rows.empty:
            yield name, (table, charts.stages(table.title, table.rows, absolute=absolute))
    yield from _figures_beyond(tables)


def _figures_beyond(tables: Tables) -> Iterator[tuple[str, tuple[Table, Figure]]]:
    table = tables["policies"]
    rows = table.rows
    if not rows.empty:
        known = set(rows.experiment)
        rows = rows[rows.experiment == ("policies" if "policies" in known else "stragglers")]
        names = [f"{row.series}, p = {row.p:g}" for row in rows.itertuples()]
        rows = rows.assign(series=names, bound=rows.lower_bound)
        yield table.name, (table, charts.bars(table.title, rows, "median time (s)"))
    table = tables["accuracy_differences"]
    rows = table.rows
    if not rows.empty:
        names = [f"{row.dataset}, {row.metric}" for row in rows.itertuples()]
        figure = charts.bars(
            table.title, rows.assign(dataset=names), "difference to uncut", level=0.0, points=True
        )
        yield table.name, (table, figure)
    table = tables["speed_ups"]
    if not table.rows.empty:
        yield table.name, (table, charts.speed_up(table.title, table.rows))


def _with_stated(rows: pd.DataFrame) -> pd.DataFrame:
    """Table I as bars: what was found here, and what the paper states."""
    spread = "median to 95th percentile"
    found = rows.assign(value=rows.median_share, low=rows.median_share, high=rows.p95_share)
    stated = rows[rows.paper_n.notna()].drop_duplicates(["dataset", "cuts"])
    stated = stated.assign(
        series="stated in the paper's Table I",
        value=stated.paper_median_share,
        low=stated.paper_median_share,
        high=stated.paper_p95_share,
        n=stated.paper_n.astype(int),
        basis="stated in the paper",
        origin="the paper's own runs",
    )
    return pd.concat([found.assign(basis="measured"), stated]).assign(spread=spread)


def _both_sides(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Savings as bars: ours, then the paper's."""
    sides = (("our", "ours"), ("paper", "the paper's pipeline"))
    return pd.concat(
        [
            rows.assign(
                series=name,
                **dict.fromkeys(("value", "low", "high"), rows[f"{side}_{what}"]),
                spread="none",
            )
            for side, name in sides
        ]
    )


@dataclass(frozen=True)
class WrittenReport:
    """A report on the disk.

    Attributes:
        data: What it shows.
        out: Its folder.
        files: Everything in it.
    """

    data: StudyData
    out: Path
    files: tuple[Path, ...]


def write_report(
    folder: Path | str, out: Path | str | None = None, command: str | None = None
) -> WrittenReport:
    """Writes report.html, README.md, summary.json, tables/ and figures/ of a study.

    Files of earlier reports that cannot be made any more are removed; others are left alone.

    Args:
        folder: A study's folder or an archive; only read.
        out: Where to write; None: `report` in the folder.
        command: What makes it again, for the reader; None: the plain command.

    Raises:
        MissingExtraError: vl-convert or Jinja2 is not installed.
        RecordError: It is no study, or the report cannot be written, or only over pages that are
            somebody's own; nothing was written.
    """
    folder = given_path(folder)
    place = folder / "report" if out is None else given_path(out)
    require_charts()
    require_jinja()
    check_page(place / "report.html")
    check_page(place / "README.md", _MADE)
    if command is None:
        command = shlex.join(["dest", "study", "report", str(folder)])
    data = StudyData.of(load_study(folder))
    names = [name for section in _SECTIONS.values() for name in section]
    known = {f"tables/{name}.csv" for name in data.tables.by_name}
    known |= {f"figures/{name}.{kind}" for name in names for kind in ("png", "svg")}
    # Of reports of 0.1.0.
    known |= {"summary.md", "explanation.md", "deviations.md"}
    known |= {f"tables/{name}.md" for name in names} | {f"figures/{name}.json" for name in names}
    with replaced_files(place, known) as new:
        for name, (_, figure) in data.figures.items():
            (new / "figures").mkdir(exist_ok=True)
            paths = [new / "figures" / f"{name}.{kind}" for kind in ("png", "svg")]
            charts.write_picture(charts.picture(figure), *paths)
        for table in data.tables.by_name.values():
            if not table.rows.empty:
                write_text(new / "tables" / f"{table.name}.csv", csv_of(table))
        pictures = [
            (figure.title, f"figures/{name}.svg") for name, (_, figure) in data.figures.items()
        ]
        tables = {name: f"tables/{name}.csv" for name in data.tables.by_name}
        write_text(new / "README.md", _readme(data, pictures, tables, command))
        write_text(new / "report.html", study_page(data, place, command))
        _write_summary(data, new)
        written = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    return WrittenReport(data, place, tuple(place / file for file in written))


def write_results(folder: Path | str, out: Path | str | None = None) -> WrittenReport:
    """Makes README.md, summary.json and two pictures of all figures from an archive in `records/`.

    Args:
        folder: The results; its `records` is an archive of a study, which is only read.
        out: Where to write; None: into `folder`.

    Raises:
        MissingExtraError: vl-convert or Jinja2 is not installed.
        RecordError: There is no archive, it is damaged, or the results cannot be written, or only
            over a README.md that is somebody's own; nothing was written.
    """
    folder = given_path(folder)
    place = folder if out is None else given_path(out)
    require_charts()
    require_jinja()
    if not (folder / RECORDS / MANIFEST).is_file():
        raise RecordError(
            f"{folder} holds no archive named {RECORDS}: pack a study there with "
            f"`dest study pack STUDY --out {folder / RECORDS}`"
        )
    check_page(place / "README.md", _MADE)
    manifest = read_manifest(folder / RECORDS)
    data = StudyData.of(load_study(folder / RECORDS))
    known = [f"{section}.svg" for section in ("paper", "beyond")]
    with replaced_files(place, known) as new:
        pictures = []
        for section, title in (("paper", "The paper's figures"), ("beyond", "Beyond the paper")):
            figures = [data.figures[n][1] for n in _SECTIONS[section] if n in data.figures]
            if figures:
                charts.write_picture(charts.picture_of_all(figures), new / f"{section}.svg")
                pictures.append((title, f"{section}.svg"))
        tables = dict.fromkeys(data.tables.by_name, "summary.json")
        write_text(new / "README.md", _readme(data, pictures, tables, REDRAW, manifest))
        _write_summary(data, new)
        written = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    return WrittenReport(data, place, tuple(place / file for file in written))


def _write_summary(data: StudyData, place: Path) -> None:
    document = json.dumps(plain(data.as_dict()), indent=1, allow_nan=False)
    write_text(place / "summary.json", document + "\n")


def csv_of(table: Table) -> str:
    """A table as CSV, numbers in full and run ids at the end of a row."""
    texts = table.rows.select_dtypes(exclude="number").columns
    rows = table.rows.copy()
    for name in texts:
        most = 10**9 if name == "runs" else 1000  # all ids of a row
        rows[name] = [csv_text(v, most) if isinstance(v, str) else v for v in rows[name]]
    text: str = rows.to_csv(index=False, lineterminator="\n")
    return text


def table_rows(table: Table) -> Rows:
    """A table as a page shows it: without run ids, and without columns that are empty."""
    shown = table.rows.drop(columns="runs", errors="ignore").dropna(axis="columns", how="all")
    rows: Rows = plain(shown.to_dict("records"))
    return rows


def _facts(study: Study) -> Rows:
    return [
        {"what": "Begun", "which": one_line(study.created, 40) or "not known"},
        {"what": "Configuration", "which": one_line(study.digest, 80)},
        *environment_facts(study.environments),
    ]


def _shared(data: StudyData, command: str) -> dict[str, Any]:
    """What both pages show."""
    about = data.study.config.get("about")
    return {
        "about": one_line(about, 2000) if isinstance(about, str) else "",
        "counts": data.counts,
        "questions": data.questions(),
        "cost_rows": data.cost_rows(),
        "most_error": MOST_ERROR,
        "left_out": data.tables.left_out,
        "missing": data.missing,
        "how_to_go_on": data.how_to_go_on.replace("`", "'"),
        "reasons": plain(data.reasons()),
        "remarks": {_HEADINGS[kind]: plain(rows) for kind, rows in data.remarks.items()},
        "facts": _facts(data.study),
        "command": one_line(command, 400).replace("`", "'"),
    }


def _readme(
    data: StudyData,
    pictures: Sequence[tuple[str, str]],
    tables: Mapping[str, str],
    command: str,
    manifest: Manifest | None = None,
) -> str:
    return markdown_page(
        "README.md.jinja",
        **_shared(data, command),
        study=data.study,
        pictures=[{"title": title, "href": href} for title, href in pictures],
        tables=[
            {
                **{"name": name, "title": table.title, "notes": table.notes},
                **{"rows": table_rows(table), "href": tables[name]},
                "runs": len({run for runs in table.rows.get("runs", ()) for run in runs.split()}),
            }
            for name, table in data.tables.by_name.items()
        ],
        digest=manifest.records_sha256 if manifest else "",
        traces_left_out=manifest.traces_left_out if manifest else 0,
    )


def study_page(data: StudyData, place: Path, command: str) -> str:
    """The report of a study as one HTML file.

    Args:
        data: What the study found.
        place: The folder that the page will be in; its links begin there.
        command: What makes it again.

    Raises:
        MissingExtraError: vl-convert or Jinja2 is not installed.
    """
    sections = {
        section: {name.replace("_", "-"): _entry(data, name, place) for name in names}
        for section, names in _SECTIONS.items()
    }
    timelines, kinds = _timelines(data.study)
    notes = ["Of each run, the query whose time is the median."]
    notes += [f"{len(timelines)} of {kinds} kinds are shown."] if len(timelines) < kinds else []
    missing_text = "No run of this study recorded its tasks: not measured."
    timeline = {
        "title": "Tasks by worker",
        "drawn": bool(timelines),
        "missing": "" if timelines else missing_text,
        "notes": notes if timelines else [],
        "rows": [row for _, _, row in timelines],
        "links": [],
    }
    figures: dict[str, Any] = {
        name.replace("_", "-"): figure for name, (_, figure) in data.figures.items()
    }
    if timelines:
        figures["timeline"] = [(label, figure) for label, figure, _ in timelines]
    values = _shared(data, command)
    title = f"Study {one_line(data.study.name)}, scale {one_line(data.study.scale)}"
    return page(
        "study.html.jinja", figures, title=title, figures=sections, timeline=timeline, **values
    )


def _entry(data: StudyData, name: str, place: Path) -> dict[str, Any]:
    """A figure or table as the page's template takes it."""
    table, figure = data.figures.get(name, (data.tables.by_name.get(name), None))
    if table is None:  # a figure that was not measured, of a table with another name
        table = data.tables["savings"]
    links = []
    if not table.rows.empty:
        links.append(("CSV", f"tables/{table.name}.csv"))
        links += [(k.upper(), f"figures/{name}.{k}") for k in ("svg", "png") if figure is not None]
        links.append(("Records", href(data.study.folder, place)))
    remedy = f"Not measured. To run what is missing: {data.how_to_go_on}"
    return {
        "title": figure.title if figure else table.title,
        "drawn": figure is not None,
        "missing": remedy if table.rows.empty else "",
        "notes": () if table.rows.empty else table.notes,
        "rows": table_rows(table),
        "links": links,
    }


def _timelines(study: Study) -> tuple[list[tuple[str, Figure, dict[str, Any]]], int]:
    """One query of each kind that was traced, the median of its run by time; and how many kinds.

    Task records that are damaged are warned of, and left out.
    """
    found = []
    try:
        kinds = study.traced_kinds()
    except RecordError as error:
        _LOGGER.warning("timelines left out: %s", error)
        kinds = []
    for run_id in kinds[:MOST_TIMELINES]:
        run = study.runs.loc[run_id]
        try:
            records = [*study.source.log(run_id, "tasks.jsonl")]
            tasks = [record for record in records if isinstance(record, TaskRecord)]
            own = study.queries.record[study.queries.run_id == run_id]
            placed = by_time(tasks, list(own))
            if not placed:
                continue
            query = placed[(len(placed) - 1) // 2]
            places = [
                one_line(str(part), 60)
                for part in (
                    *(run.experiment, SERIES[run.pipeline], run.origin),
                    *(run.dataset, cuts_label(run.cuts)),
                )
            ]
            config = run.config
            places += [one_line(str(config["policy"]), 60)] if config.get("policy") else []
            for name in ("workers", "devices"):
                places += [f"{number(config[name])} {name}"] if config.get(name) else []
            places += [f"p = {config['straggler_p']:g}"] if config.get("straggler_p") else []
            label = ", ".join(places)
            row = {"query": label, "run": one_line(run_id, 40), **timeline_numbers(query)}
            found.append((label, charts.timeline(label, query), row))
        except RecordError as error:  # drawn from here alone: the run's numbers are sound
            _LOGGER.warning("timeline left out: %s", error)
    return found, len(kinds)
