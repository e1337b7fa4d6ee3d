"""Everything that a study's report shows, from its records and before any of it is written."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...errors import RecordError
from .bars import charts, check_numbers
from .charts import charts_beyond
from .costs import MOST_ERROR, WHAT
from .deviations import Deviation, deviations, missing_experiments
from .explanation import reasons
from .headlines import Headline, headlines
from .rows import Chart, CostRow, Reason, Sheet
from .runs import Study
from .tables import sheets

REPORT_VERSION = 1
STAGE_FIGURES = {"stage_shares": False, "fleet_stages": True}
"""Tables that are drawn as stacked bars, and whether in seconds."""


@dataclass(frozen=True)
class StudyData:
    """Everything that a study's report shows, before any of it is written.

    Attributes:
        study: Its runs.
        charts: Figures of bars and points; without a bar: not measured.
        sheets: Tables; without a row: not measured.
        headlines: Its numbers against what they must show.
        reasons: Why the paper's numbers are others.
        deviations: What a reader must know.
        missing: Experiments without a finished run.
    """

    study: Study
    charts: tuple[Chart, ...]
    sheets: tuple[Sheet, ...]
    headlines: tuple[Headline, ...]
    reasons: tuple[Reason, ...]
    deviations: tuple[Deviation, ...]
    missing: tuple[str, ...]

    @property
    def how_to_go_on(self) -> str:
        """The command that runs what is missing and leaves what is there."""
        study = self.study
        return shlex.join(
            ["dest", "study", "run", study.name, "--scale", study.scale, "--out", study.place]
        )

    @property
    def costs(self) -> Sheet:
        """The table of the cost model's errors."""
        return next(sheet for sheet in self.sheets if sheet.name == "cost_model")

    def as_dict(self) -> dict[str, Any]:
        """The report for a JSON document: what was found, and no tables."""
        study = self.study
        return {
            "schema_version": REPORT_VERSION,
            "study": study.name,
            "scale": study.scale,
            "hash": study.digest,
            "runs": study.counts,
            "headlines": [asdict(line) for line in self.headlines],
            "cost_model": {
                "what": WHAT,
                "most": MOST_ERROR,
                "setups": [_cost(row) for row in self.costs.rows],
                "notes": list(self.costs.notes),
            },
            "explanation": [asdict(reason) for reason in self.reasons],
            "missing": list(self.missing),
            "not_measured": [sheet.name for sheet in self.sheets if not sheet.rows],
            "deviations": [asdict(line) for line in self.deviations],
            "environments": [dict(environment) for environment in study.environments],
        }


def _readable(study: Study) -> Study:
    """The study without the runs that a figure or table could not be made with."""
    damaged = dict(study.damaged)
    for run in study.runs:
        try:
            check_numbers(run)
        except RecordError as error:
            damaged[run.run_id] = str(error)
    runs = tuple(run for run in study.runs if run.run_id not in damaged)
    return replace(study, runs=runs, damaged=damaged)


def _cost(row: CostRow) -> dict[str, Any]:
    return {
        "setup": row.setup,
        "configurations": row.configurations,
        "value": row.error_total,
        "outcome": row.outcome,
    }


def study_data(study: Study) -> StudyData:
    """All tables, figures and remarks of a study, from its records alone.

    Runs whose records are damaged are left out, and named among the deviations.
    """
    study = _readable(study)
    drawn = charts(study)
    tables = sheets(study, drawn)
    by_name = {sheet.name: sheet for sheet in tables}
    told = reasons(study, by_name["savings"])
    unmatched = [(sheet.name, alone) for sheet in tables for alone in sheet.unmatched]
    return StudyData(
        study=study,
        charts=(*drawn, *charts_beyond(by_name)),
        sheets=tables,
        headlines=headlines(
            study, by_name["table1_reconstruction_share"], by_name["accuracy_differences"]
        ),
        reasons=told,
        deviations=deviations(study, drawn, told, unmatched),
        missing=missing_experiments(study),
    )
