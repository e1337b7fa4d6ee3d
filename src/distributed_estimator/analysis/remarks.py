"""What a study is not: runs that failed or are missing, and how it departs from the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from .study import Study
from .study_tables import Table, groups

EXPERIMENTS = {
    "training": "Fig. 4, 7 and 8, accuracy differences",
    "scaling": "Fig. 5, speed-ups",
    "shares": "Table I, stage shares, savings, extrapolation of the reference",
    "stragglers": "Fig. 6",
    "policies": "policies under stragglers",
    "fleet": "stages on a fleet",
    "causes": "changes to the paper's pipeline",
}
"""Each experiment of the paper's study with what is made from it."""
_EPOCHS = {
    ("training", "iris"): 60,
    ("training", "mnist"): 10,
    ("scaling", "iris"): 10,
    ("scaling", "mnist"): 5,
    ("stragglers", "iris"): 10,
    ("stragglers", "mnist"): 3,
}
_ALL = {"experiment": "all", "dataset": "all"}
_CUTS = (0, 1, 2, 3)
_WORKERS = (1, 2, 4, 8, 16)

_DESCRIPTION = (
    *("experiment", "pipeline", "dataset", "cuts", "seed", "workers", "policy", "straggler_p"),
    *("attempts", "cause"),
)

Remarks = dict[str, list[dict[str, Any]]]
"""Rows by kind; a kind without any has an empty list."""


def remarks(study: Study, tables: Mapping[str, Table]) -> Remarks:
    """Everything that a reader of the results must know beside the numbers.

    Returns:
        `failed` and `unfinished` runs, `missing` experiments, `protocol` (where runs differ from
        the paper's), `extrapolated` numbers, `origins` of all numbers with injected `delays`, and
        `unmatched` runs that no ratio was made with.
    """
    runs = study.runs
    done = runs[runs.status == "done"]
    bars = tables["fig4_training_time"].rows
    return {
        "failed": [
            *_described(runs[runs.status == "failed"]),
            *(_unread(run_id, why) for run_id, why in study.damaged.items()),
        ],
        "unfinished": [
            *_described(runs[runs.status == "unfinished"]),
            *(_unread(run_id, "not begun") for run_id in study.not_begun),
        ],
        "missing": [{"experiment": name, "without": made} for name, made in missing(study).items()],
        "protocol": [*_stated(study), *_departures(done)],
        "extrapolated": [*_extrapolated(bars), *_extrapolated(tables["changes"].rows)],
        "origins": [
            {"experiment": experiment, "origin": origin, "runs": len(part)}
            for (experiment, origin), part in groups(done, ["experiment", "origin"])
        ],
        "delays": [
            {"experiment": experiment, "p": p, "runs": len(part)}
            for (experiment, p), part in groups(
                done[done.straggler_p.fillna(0) > 0], ["experiment", "straggler_p"]
            )
        ],
        "unmatched": [
            {"table": table.name, "why": why, "runs": " ".join(sorted(part.run))}
            for table in tables.values()
            for (why,), part in groups(
                pd.DataFrame(table.unmatched, columns=["run", "why"]), ["why"]
            )
        ],
    }


def _extrapolated(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Training times of the paper's pipeline, and shares with a processor for each worker."""
    if rows.empty:
        return []
    if "share_if_divided" in rows:
        chosen, name = rows[rows.share_if_divided.notna()], "share of reconstruction"
    else:
        chosen, name = rows[rows.basis == "extrapolated"], "training time"
    columns = ["dataset", "series", "cuts", "queries", "variant"]
    found = chosen.reindex(columns=columns).assign(number=name)
    return [] if found.empty else list(found.to_dict("records"))


def missing(study: Study) -> dict[str, str]:
    """Experiments of the paper's study, and of this one, without a finished run."""
    mine = study.config.get("experiments")
    names = dict.fromkeys([*EXPERIMENTS, *(mine if isinstance(mine, dict) else ())])
    return {n: EXPERIMENTS.get(n, "its tables") for n in names if study.done(n).empty}


def _described(runs: pd.DataFrame) -> list[dict[str, Any]]:
    found = runs[["run_id", *_DESCRIPTION]].rename(columns={"run_id": "run"})
    rows: list[dict[str, Any]] = found.to_dict("records")
    return rows


def _unread(run_id: str, cause: str) -> dict[str, Any]:
    return {"run": run_id, **dict.fromkeys(_DESCRIPTION), "cause": cause}


def _stated(study: Study) -> Iterator[dict[str, Any]]:
    """What the study itself states."""
    if study.scale != "full":
        yield {**_ALL, "what": "scale", "found": study.scale, "paper": "the full matrix"}
    stated = study.config.get("deviations")
    for text in stated if isinstance(stated, list) else ():
        yield {**_ALL, "what": "as the study states", "found": str(text), "paper": ""}


def _departures(done: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Settings of finished runs that are none of the paper's."""
    known = done[done.experiment.isin(list(EXPERIMENTS))]
    for (experiment, dataset), runs in groups(known, ["experiment", "dataset"]):
        where = {"experiment": experiment, "dataset": dataset}
        for key, allowed in _protocol(experiment, dataset).items():
            settings = [config.get(key) for config in runs.config]
            found = {str(value) for value in settings if value not in allowed}
            if found:
                paper = " or ".join(str(value) for value in allowed if value is not None)
                values = ", ".join(sorted(found))
                yield {**where, "what": key, "found": values, "paper": paper or "no limit"}
        wanted: dict[str, tuple[int, ...]] = {
            "workers": _WORKERS if experiment == "scaling" else (),
            "cuts": () if experiment in ("policies", "causes") else _CUTS,
        }
        for key, counts in wanted.items():
            without = [str(value) for value in counts if value not in set(runs[key])]
            if without:
                yield {**where, "what": key, "found": "no run", "paper": ", ".join(without)}


def _protocol(experiment: str, dataset: str) -> dict[str, tuple[Any, ...]]:
    """Values that the paper's protocol allows, by key of a run's configuration."""
    stressed = experiment in ("stragglers", "policies")
    allowed: dict[str, tuple[Any, ...]] = {
        "shots": (1024,),
        "straggler_p": (0, 0.2) if stressed else (0, None),
        "samples": (None,),
    }
    epochs = _EPOCHS.get((experiment, dataset.split("_")[0]))
    if epochs is not None:
        allowed["epochs"] = (epochs,)
    if stressed:
        allowed["straggler_delay"] = (0, 0.1, None)
    if experiment == "stragglers":
        allowed["workers"] = (8,)
    if experiment not in ("policies", "fleet"):
        allowed["backend"] = ("aer",)
    return allowed
