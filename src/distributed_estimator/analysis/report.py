"""The report of a study: one interactive page, one page in Markdown, tables and figures."""

from __future__ import annotations

import json
import logging
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import RecordError
from ..records import TaskRecord, given_path, plain
from ..views import counted
from . import charts
from .archive import Manifest, read_manifest, replaced_files, write_text
from .charts import Figure, Measure
from .escape import (
    between,
    csv_text,
    cuts_label,
    number,
    one_line,
    with_unit,
)
from .load import MANIFEST
from .pages import (
    Choices,
    Rows,
    check_page,
    entry,
    facts,
    href,
    markdown_page,
    page,
    require_pages,
    timelines,
)
from .study import Study, load_study
from .study_tables import (
    MOST_ERROR,
    SERIES,
    SLOTS,
    WORDS,
    Table,
    Tables,
    asks_paper,
    groups,
    study_tables,
)
from .trace import by_time

REPORT_VERSION = 2
RECORDS = "records"
REDRAW = "dest study report . --from-logs"
"""In the folder of published results; the same words on every machine."""
MOST_TIMELINES = 40
_MADE = "by `dest study report`"
"""In every page that is made here, and so may be made again."""
_STATES = {"met": "met", "not met": "unmet"}
_DESCRIPTION = [
    *("experiment", "pipeline", "dataset", "cuts", "seed", "workers", "policy", "straggler_p"),
    *("attempts", "cause"),
]
_UNIT_COSTS = [
    *("experiment", "dataset", "series", "cuts", "queries_a_call", "query_ms"),
    *("reconstruct_query_ms", "execute_circuit_ms", "reconstruct_shot_us"),
]
_FIGURES = [name for section in WORDS["sections"].values() for name in section]
_LOGGER = logging.getLogger(__name__)


# Remarks: runs that failed or are missing, and how a study departs from the paper


def remarks(study: Study, tables: Mapping[str, Table]) -> dict[str, Rows]:
    """Everything that a reader of the results must know beside the numbers: rows by kind.

    `protocol` is where runs differ from the paper's, `unmatched` are runs that no ratio was made
    with.
    """
    runs = study.runs
    done = runs[runs.status == "done"]
    delayed = done[done.straggler_p.fillna(0) > 0].rename(columns={"straggler_p": "p"})
    extrapolated = {
        "training time": _where(tables["fig4_training_time"].rows, basis="extrapolated"),
        "share of reconstruction": _where(tables["changes"].rows, change="workers"),
    }
    columns = ["dataset", "series", "cuts", "queries", "variant"]
    unmatched: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for table in tables.values():
        for run, why in table.unmatched:
            unmatched[table.name, why].append(run)
    return {
        "failed": _described(runs, "failed", study.damaged),
        "unfinished": _described(runs, "unfinished", dict.fromkeys(study.not_begun, "not begun")),
        "missing": [{"experiment": name, "without": made} for name, made in missing(study).items()],
        "protocol": [*_stated(study), *_departures(done)],
        "extrapolated": [
            row
            for what, rows in extrapolated.items()
            for row in rows.reindex(columns=columns).assign(number=what).to_dict("records")
        ],
        "origins": _counted(done, "origin"),
        "delays": _counted(delayed, "p"),
        "unmatched": [
            {"table": name, "why": why, "runs": " ".join(sorted(found))}
            for (name, why), found in unmatched.items()
        ],
    }


def _described(runs: pd.DataFrame, status: str, others: Mapping[str, str]) -> Rows:
    """Runs of a status, and others by their ids with the cause."""
    known = runs[runs.status == status]
    found: Rows = known.assign(run=known.run_id)[["run", *_DESCRIPTION]].to_dict("records")
    blank = dict.fromkeys(_DESCRIPTION)
    return [*found, *({"run": run, **blank, "cause": why} for run, why in others.items())]


def _counted(runs: pd.DataFrame, column: str) -> Rows:
    return [
        {"experiment": experiment, column: value, "runs": len(part)}
        for (experiment, value), part in groups(runs, ["experiment", column])
    ]


def missing(study: Study) -> dict[str, str]:
    """Experiments of this study, and of the paper's if it has some, without a finished run."""
    mine = study.config.get("experiments")
    due = WORDS["experiments"] if asks_paper(study) else ()
    names = dict.fromkeys([*due, *(mine if isinstance(mine, dict) else ())])
    made = {name: WORDS["experiments"].get(name, "its tables") for name in names}
    return {name: what for name, what in made.items() if study.done(name).empty}


def _stated(study: Study) -> Rows:
    """What the study itself states."""
    is_part = study.scale not in (None, "full")
    found = [("scale", study.scale, "the full matrix")] if is_part else []
    stated = study.config.get("deviations")
    texts = stated if isinstance(stated, list) else []
    found += [("as the study states", str(text), "") for text in texts]
    columns = ("experiment", "dataset", "what", "found", "paper")
    return [dict(zip(columns, ("all", "all", *row), strict=True)) for row in found]


def _departures(done: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Settings of finished runs that are none of the paper's, and settings of it without a run."""
    known = done[done.experiment.isin(list(WORDS["experiments"]))]
    for (experiment, dataset), runs in groups(known, ["experiment", "dataset"]):
        where = {"experiment": experiment, "dataset": dataset}
        protocol = WORDS["protocol"]["all"] | WORDS["protocol"].get(experiment, {})
        for key, of_all in protocol["allowed"].items():
            stated = of_all.get(dataset.split("_")[0]) if isinstance(of_all, dict) else of_all
            allowed = [None if value == "unset" else value for value in stated or ()]
            found = {str(v) for config in runs.config if (v := config.get(key)) not in allowed}
            if found and stated:
                paper = " or ".join(str(value) for value in allowed if value is not None)
                departs = {"found": ", ".join(sorted(found)), "paper": paper or "no limit"}
                yield {**where, "what": key, **departs}
        for key, values in protocol["run"].items():
            without = [str(value) for value in values if value not in set(runs[key])]
            if without:
                yield {**where, "what": key, "found": "no run", "paper": ", ".join(without)}


# What a report shows


@dataclass(frozen=True)
class StudyData:
    """Everything that a study's report shows, before any of it is written."""

    study: Study
    tables: Tables
    remarks: dict[str, Rows]

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
        return one_line(shlex.join([*study.command, place]), 400)

    @property
    def missing(self) -> list[str]:
        """Experiments without a finished run."""
        return [one_line(name) for name in missing(self.study)]

    @property
    def left_out(self) -> list[str]:
        """How much the cost model was not validated with, by reason."""
        return [f"left out: {number(n)} ({why})" for why, n in self.tables.left_out.items()]

    @property
    def counts(self) -> dict[str, int]:
        """How many runs there are, by status; those that are damaged too."""
        found = {str(status): len(part) for status, part in self.study.runs.groupby("status")}
        return {**found, **({"damaged": len(self.study.damaged)} if self.study.damaged else {})}

    def questions(self) -> Rows:
        """Headlines by question, each with a sentence and its lines as a reader sees them."""
        found = []
        for question, part in self.tables.headlines.groupby("question"):
            words, known = WORDS["questions"][question], part.value.dropna()
            rows = [
                {**row, **_found(row, words["unit"]), "state": _STATES.get(row["outcome"], "open")}
                for row in part.to_dict("records")
            ]
            texts = {"what": part.iloc[0].what, "bar": part.iloc[0].bar, "rows": rows}
            found.append({"columns": words["columns"], **_said(words, known), **texts})
        return found

    def cost_model(self) -> dict[str, Any]:
        """The cost model's error over its setups, and how many of them meet the bar."""
        rows = self.tables["cost_model"].rows.reindex(columns=["error_total", "outcome"])
        met = {"met": int((rows.outcome == "met").sum()), "setups": len(rows)}
        return {**_said(WORDS["questions"]["cost_model"], rows.error_total), **met}

    def cost_rows(self) -> Rows:
        """The cost model's error for each setup, with its 90th percentile."""
        return [
            {
                "setup": one_line(row.setup),
                "configurations": row.configurations,
                "value": with_unit(row.error_total, "share"),
                "spread": f"p90 {with_unit(row.p90_error_total, 'share')}",
                "outcome": row.outcome,
            }
            for row in self.tables["cost_model"].rows.itertuples()
        ]

    def reasons(self) -> dict[str, Rows]:
        """Numbers behind the causes of differences to the paper's, a table for each that is known.

        A row has the most cuts of a data set that were measured.
        """
        units = self.tables["unit_costs"].rows.reindex(columns=_UNIT_COSTS)
        shares = _where(units, experiment="shares")
        theirs, ours = (_where(shares, series=name) for name in ("the paper's pipeline", "ours"))
        uncut = _where(theirs, cuts=0)[["dataset", "execute_circuit_ms"]]
        rows = {
            "savings": _most_cuts(self.tables["savings"].rows),
            "shots": _most_cuts(
                ours.merge(theirs, on=["dataset", "cuts"], suffixes=("", "_theirs"))
            ),
            "midcircuit": _most_cuts(theirs.merge(uncut, on="dataset", suffixes=("", "_uncut"))),
            "changes": self.tables["changes"].rows.to_dict("records"),
            "together": _most_cuts(_where(units, experiment="training")),
        }
        return {name: found for name, found in rows.items() if found}

    def why(self) -> dict[str, Any]:
        """Why numbers differ from the paper's: causes with their tables, and what is not known."""
        reasons = self.reasons()
        causes = []
        for name, rows in reasons.items():
            words = WORDS["why"][name]
            columns = {"dataset": "data set", "cuts": "cuts", **words["columns"]}
            shown = [{head: row[column] for column, head in columns.items()} for row in rows]
            causes.append({"title": words["title"], "text": words["text"], "rows": plain(shown)})
        known = {*reasons, *(row["change"] for row in reasons.get("changes", ()))}
        missing = [words for name, words in WORDS["unmeasured"].items() if name not in known]
        return {"lead": WORDS["why"]["lead"], "causes": causes, "not_measured": missing}

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
            "not_measured": [t.name for t in self.tables.shown.values() if t.rows.empty],
            "deviations": self.remarks,
            "environments": [dict(environment) for environment in study.environments],
            "tables": {
                name: {
                    "title": table.title,
                    "experiment": table.experiment,
                    "notes": list(table.notes),
                    "rows": table.rows.to_dict("records"),
                }
                for name, table in self.tables.shown.items()
            },
        }

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name, in the order of a page; measured ones alone."""
        drawn = {name: _figure(name, self.table_of(name)) for name in _FIGURES}
        return {name: figure for name, figure in drawn.items() if figure is not None}

    def table_of(self, name: str) -> Table:
        """The table that holds the numbers of a figure."""
        return self.tables["savings" if name.startswith("saved_") else name]


def _where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for name, value in values.items():
        rows = rows if rows.empty else rows[rows[name] == value]
    return rows


def _most_cuts(rows: pd.DataFrame) -> Rows:
    """Of each data set, the row with the most cuts."""
    if rows.empty:
        return []
    cut = rows[rows.cuts > 0].sort_values("cuts", kind="stable")
    last = cut.drop_duplicates("dataset", keep="last").sort_values("dataset")
    found: Rows = last.to_dict("records")
    return found


def _said(words: Mapping[str, Any], known: pd.Series[float]) -> dict[str, str]:
    """What a card says above its lines; its range is empty where nothing was measured."""
    ends = between(known.min(), known.max(), words["unit"]) if len(known) else ""
    says = words["says"].format(range=ends, **SLOTS) if len(known) else ""
    return {"title": words["title"], "range": ends, "says": says}


def _found(row: Mapping[str, Any], unit: str) -> dict[str, str]:
    """A headline's number and the ends of its spread as texts; `spread` says what they are."""
    value, low, high = row["value"], row["low"], row["high"]
    series = row["series"].removeprefix(SERIES["contracted"])
    place = one_line(f"{row['dataset']}{series}, {cuts_label(row['cuts'])}", 120)
    if pd.isna(value):
        return {"place": place, "value": "–", "ends": "", "spread": "", "short": ""}
    kind, ends = "", ""
    if row["n"] > 1 and pd.notna(low):
        kind, ends = row["spread"], between(low, high, unit)
    elif pd.isna(low) and pd.notna(high):
        kind, ends = "p95", with_unit(high, unit)
    short = row["outcome"].replace(" is", "").replace(" the interval", "").split(":")[0]
    return {
        **{"place": place, "value": with_unit(value, unit), "spread": f"{kind} {ends}".strip()},
        **{"ends": ends or row["spread"].partition(": ")[2], "short": short},
    }


# Figures


def _figure(name: str, table: Table) -> Figure | None:
    """The figure of a table; None: it has none, or was not measured."""
    words, rows = WORDS["tables"][table.name], table.rows
    if rows.empty:
        return None
    if name in ("stage_shares", "fleet_stages"):
        return charts.stages(table.title, rows, absolute=name == "fleet_stages")
    if name == "speed_ups":
        return charts.speed_up(table.title, rows)
    if "figure" not in words:
        return None
    measure, title, colours = Measure(**words["figure"]), table.title, None
    if name.startswith("saved_"):
        what = name.removeprefix("saved_")
        title = f"{what.capitalize()} of a query, the paper's pipeline and ours"
        measure = replace(measure, quantity=measure.quantity.format(what=what))
        rows = _both_sides(rows, what)
    elif name == "policies":
        rows = _by_policy(rows)
        colours = dict(zip(rows.key.drop_duplicates(), charts.CYCLE, strict=False))
    elif name in _PREPARED:
        rows = _PREPARED[name](rows)
    return charts.bars(title, rows, measure, colours)


def _by_policy(rows: pd.DataFrame) -> pd.DataFrame:
    """Times of the experiment `policies`, or of `stragglers` where that was not run; eager first.

    A series is a policy, and its bars are by the probability of stragglers.
    """
    known = "policies" if "policies" in set(rows.experiment) else "stragglers"
    rows = _where(rows, experiment=known)
    names = rows.series + ", " + rows.cuts.map(cuts_label)
    rows = rows.assign(series=names, key=[f"p = {p:g}" for p in rows.p], bound=rows.lower_bound)
    order = rows.assign(other=~names.str.contains("eager")).sort_values(
        ["other", "series", "p"], kind="stable"
    )
    return order.drop(columns="other")


def _with_interval(rows: pd.DataFrame) -> pd.DataFrame:
    """Means with their 95 % interval in place of the least and the greatest."""
    return rows.assign(low=rows.interval_low, high=rows.interval_high, spread=rows.interval)


def _by_device(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors as bars, a panel for each device and circuit."""
    circuits = [f"{row.device}, {row.circuit} of {row.qubits} qubits" for row in rows.itertuples()]
    names = [f"{row.mitigation}, {row.budget:,} shots" for row in rows.itertuples()]
    ends = {"low": rows.error - rows.error_stderr, "high": rows.error + rows.error_stderr}
    return rows.assign(
        dataset=circuits, series=names, value=rows.error, **ends, spread="standard error"
    )


def _with_stated(rows: pd.DataFrame) -> pd.DataFrame:
    """Table I as bars: what was found here, and what the paper states."""
    found = rows.assign(value=rows.median_share, high=rows.p95_share, basis="measured")
    stated = rows[rows.paper_n.notna()].drop_duplicates(["dataset", "cuts"])
    stated = stated.assign(
        series="stated in the paper's Table I",
        value=stated.paper_median_share,
        high=stated.paper_p95_share,
        n=stated.paper_n.astype(int),
        basis="stated in the paper",
        origin="the paper's own runs",
    )
    both = pd.concat([found, stated])
    return both.assign(low=both.value, spread="median to 95th percentile")


def _both_sides(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Savings as bars: ours, then the paper's."""
    sides = {"our": "ours", "paper": "the paper's pipeline"}
    both = pd.concat(rows.assign(series=n, value=rows[f"{s}_{what}"]) for s, n in sides.items())
    return both.assign(low=both.value, high=both.value, spread="exact")


_PREPARED: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "noise_errors": _by_device,
    "table1_reconstruction_share": _with_stated,
    "fig7_accuracy": _with_interval,
    "fig8_robustness": _with_interval,
    "accuracy_differences": lambda rows: rows.assign(dataset=rows.dataset + ", " + rows.metric),
}
"""What is drawn of a table's rows."""


# Files


@dataclass(frozen=True)
class WrittenReport:
    """A report on the disk: what it shows, its folder, and everything in it."""

    data: StudyData
    out: Path
    files: tuple[Path, ...]


def write_report(
    folder: Path | str, out: Path | str | None = None, command: str | None = None
) -> WrittenReport:
    """Writes report.html, README.md, summary.json, tables/ and figures/ of a study or an archive.

    Files of earlier reports that cannot be made any more are removed; others are left alone.

    Args:
        folder: Of the study; only read.
        out: Where to write; None: `report` in the folder.
        command: What makes it again, for the reader; None: the plain command.

    Raises:
        MissingExtraError: vl-convert or Jinja2 is not installed.
        RecordError: It is no study, or the report cannot be written, or only over pages that are
            somebody's own; nothing was written.
    """
    folder = given_path(folder)
    place = folder / "report" if out is None else given_path(out)
    require_pages()
    check_page(place / "report.html")
    if command is None:
        command = shlex.join(["dest", "study", "report", str(folder)])
    tables = {name: f"tables/{name}.csv" for name in WORDS["tables"]}
    known = [*tables.values(), *(f"figures/{n}.{end}" for n in _FIGURES for end in ("png", "svg"))]
    # Of reports before `README.md` held all text.
    known += ["summary.md", "explanation.md", "deviations.md"]
    known += [old for n in _FIGURES for old in (f"tables/{n}.md", f"figures/{n}.json")]

    def fill(data: StudyData, new: Path) -> str:
        (new / "figures").mkdir()
        for name, figure in data.figures.items():
            paths = (new / "figures" / f"{name}.{kind}" for kind in ("png", "svg"))
            charts.write_picture(charts.picture(figure), *paths)
        for table in data.tables.by_name.values():
            if not table.rows.empty:
                write_text(new / tables[table.name], csv_of(table))
        write_text(new / "report.html", study_page(data, place, command))
        pictures = {f"figures/{name}.svg": one.title for name, one in data.figures.items()}
        return _readme(data, pictures, tables, command)

    return _write(folder, place, known, fill)


def write_results(folder: Path | str, out: Path | str | None = None) -> WrittenReport:
    """Makes README.md, summary.json and two pictures of all figures from an archive in `records/`.

    They are written to `out`, or into the folder itself. Raises as `write_report` does, and
    `RecordError` where there is no archive or it is damaged.
    """
    folder = given_path(folder)
    place = folder if out is None else given_path(out)
    require_pages()
    if not (folder / RECORDS / MANIFEST).is_file():
        raise RecordError(
            f"{folder} holds no archive named {RECORDS}: pack a study there with "
            f"`dest study pack STUDY --out {folder / RECORDS}`"
        )
    manifest = read_manifest(folder / RECORDS)
    titles = {"paper": "The paper's figures", "beyond": "Beyond the paper", "noise": "Noise"}

    def fill(data: StudyData, new: Path) -> str:
        pictures = {}
        for section, title in titles.items():
            names = [name for name in WORDS["sections"][section] if name in data.figures]
            if names:
                chart = charts.picture_of_all([data.figures[name] for name in names])
                charts.write_picture(chart, new / f"{section}.svg")
                pictures[f"{section}.svg"] = title
        tables = dict.fromkeys(data.tables.by_name, "summary.json")
        return _readme(data, pictures, tables, REDRAW, manifest)

    return _write(folder / RECORDS, place, [f"{section}.svg" for section in titles], fill)


def _write(
    records: Path, place: Path, known: Sequence[str], fill: Callable[[StudyData, Path], str]
) -> WrittenReport:
    """Writes what `fill` puts into a folder, the README.md that it returns, and summary.json."""
    check_page(place / "README.md", _MADE)
    data = StudyData.of(load_study(records))
    with replaced_files(place, known) as new:
        write_text(new / "README.md", fill(data, new))
        document = json.dumps(plain(data.as_dict()), indent=1, allow_nan=False)
        write_text(new / "summary.json", document + "\n")
        written = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    return WrittenReport(data, place, tuple(place / file for file in written))


def csv_of(table: Table) -> str:
    """A table as CSV, numbers in full and run ids at the end of a row."""
    rows = table.rows.copy()
    for name in rows.select_dtypes(exclude="number").columns:
        most = 10**9 if name == "runs" else 1000  # all ids of a row
        rows[name] = [csv_text(v, most) if isinstance(v, str) else v for v in rows[name]]
    text: str = rows.to_csv(index=False, lineterminator="\n")
    return text


def table_rows(table: Table) -> Rows:
    """A table as a page shows it: without run ids, and without columns that are empty."""
    shown = table.rows.drop(columns="runs", errors="ignore").dropna(axis="columns", how="all")
    rows: Rows = plain(shown.to_dict("records"))
    return rows


def _shared(data: StudyData, command: str) -> dict[str, Any]:
    """What both pages show."""
    study, about = data.study, data.study.config.get("about")
    return {
        "about": one_line(about, 2000) if isinstance(about, str) else "",
        "counts": data.counts,
        "questions": data.questions(),
        "cost_rows": data.cost_rows(),
        "cost_model": data.cost_model(),
        "is_paper": data.tables.is_paper,
        "missing": data.missing,
        "how_to_go_on": data.how_to_go_on.replace("`", "'"),
        "why": data.why(),
        "remarks": {WORDS["remarks"][kind]: plain(rows) for kind, rows in data.remarks.items()},
        "facts": facts(study.created, one_line(study.digest, 80), study.environments),
        "command": one_line(command, 400).replace("`", "'"),
    }


def _readme(
    data: StudyData,
    pictures: Mapping[str, str],
    tables: Mapping[str, str],
    command: str,
    manifest: Manifest | None = None,
) -> str:
    return markdown_page(
        "README.md.jinja",
        **_shared(data, command),
        study=data.study,
        pictures=[{"title": title, "href": href} for href, title in pictures.items()],
        tables=[
            {
                **{"name": name, "title": table.title, "notes": table.notes},
                "under": data.left_out if name == "cost_model" else (),
                **{"rows": table_rows(table), "href": tables[name]},
                "runs": len({run for runs in table.rows.get("runs", ()) for run in runs.split()}),
            }
            for name, table in data.tables.shown.items()
        ],
        digest=manifest.records_sha256 if manifest else "",
        traces_left_out=manifest.traces_left_out if manifest else 0,
    )


def study_page(data: StudyData, place: Path, command: str) -> str:
    """The report of a study as one HTML file, whose links begin in the folder `place`."""
    sections = {
        section: {
            name.replace("_", "-"): _entry(data, name, place)
            for name in names
            if data.table_of(name).name in data.tables.shown
        }
        for section, names in WORDS["sections"].items()
    }
    figures: dict[str, Figure | Choices] = {
        name.replace("_", "-"): figure for name, figure in data.figures.items()
    }
    choices, rows, kinds = _timelines(data.study)
    notes = []
    if rows:
        notes = ["Of each run, the query whose time is the median."]
        notes += [f"{len(rows)} of {kinds} kinds are shown."] if len(rows) < kinds else []
        figures["timeline"] = choices
    untraced = "No run of this study recorded its tasks: not measured."
    return page(
        "study.html.jinja",
        figures,
        title=f"Study {one_line(data.study.title)}",
        figures=sections,
        timeline=entry("Tasks by worker", rows, choices, untraced, notes=notes),
        **_shared(data, command),
    )


def _entry(data: StudyData, name: str, place: Path) -> dict[str, Any]:
    table, figure = data.table_of(name), data.figures.get(name)
    title = figure.title if figure else table.title
    if table.rows.empty:
        remedy = f"Not measured. To run what is missing: {data.how_to_go_on}"
        return entry(title, [], None, remedy)
    links = [("CSV", f"tables/{table.name}.csv")]
    links += [(k.upper(), f"figures/{name}.{k}") for k in ("svg", "png") if figure]
    links.append(("Records", href(data.study.folder, place)))
    under = data.left_out if name == "cost_model" else ()
    notes = table.notes
    return entry(title, table_rows(table), figure, notes=notes, links=links, under=under)


def _timelines(study: Study) -> tuple[list[tuple[str, Figure]], Rows, int]:
    """Timelines of one query of each kind that was traced, the median of its run by time.

    Returns the figures with their labels, a row of numbers for each, and how many kinds there are.
    Task records that are damaged are warned of, and left out.
    """
    choices: list[tuple[str, Figure]] = []
    rows: Rows = []
    try:
        kinds = study.traced_kinds()
    except RecordError as error:
        _LOGGER.warning("timelines left out: %s", error)
        kinds = []
    for run_id in kinds[:MOST_TIMELINES]:
        try:
            records = study.source.log(run_id, "tasks.jsonl")
            tasks = [record for record in records if isinstance(record, TaskRecord)]
            placed = by_time(tasks, list(study.queries.record[study.queries.run_id == run_id]))
            middle = placed[(len(placed) - 1) // 2 :][:1]
            label = _run_label(study.runs.loc[run_id])
            figures, numbers = timelines((label, query) for query in middle)
        except RecordError as error:  # drawn from here alone: the run's numbers are sound
            _LOGGER.warning("timeline left out: %s", error)
            continue
        choices += figures
        rows += [{"query": label, "run": one_line(run_id, 40), **row} for row in numbers]
    return choices, rows, len(kinds)


def _run_label(run: Any) -> str:
    config = run.config
    parts = [run.experiment, SERIES[run.pipeline], run.origin, run.dataset, cuts_label(run.cuts)]
    parts += [config["policy"]] if config.get("policy") else []
    parts += [counted(config[n], n[:-1]) for n in ("workers", "devices") if config.get(n)]
    parts += [f"p = {config['straggler_p']:g}"] if config.get("straggler_p") else []
    return ", ".join(one_line(str(part), 60) for part in parts)
