"""Every table of a study's report: group-bys and merges of its runs and query records.

A table is a function from a study to rows, and to the runs that no row holds; its words stand in
`templates/study.toml`.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from .accuracy import CONFIDENCE
from .costs import (
    LEVEL,
    MOST_FOLDS,
    CostData,
    Setup,
    Validation,
    least_configurations,
    leave_one_out,
    reason_left_out,
)
from .escape import NOT_MEASURED, natural, one_line
from .load import STAGES, stages_of
from .study import Study

WORDS: Mapping[str, Any] = tomllib.loads(
    files(__package__ or "").joinpath("templates", "study.toml").read_text("utf-8")
)
"""What a report shows, in which order and words."""
SERIES = {"contracted": "ours", "reference": "the paper's pipeline"}
"""What each pipeline is called in tables and figures."""
PAPER_SHARES = {1: (41, 0.430, 0.474), 2: (28, 0.489, 0.533), 3: (5, 0.530, 0.580)}
"""Table I of the paper: by cuts, n and the median and 95th percentile of T_rec/T_total."""
PAPER_WORKERS, PAPER_P = 16, 0.2
MOST_RATIO, MOST_SHARE, MOST_ERROR = 2.0, 0.02, 0.15
"""Bars: training time at 3 cuts over uncut, share of reconstruction, error of the cost model."""
DATASETS = ("iris", "mnist")
OWN_CHOICE = "the simulator's own choice"

SLOTS = {
    "most_ratio": MOST_RATIO,
    "most_share": MOST_SHARE,
    "most_percent": 100 * MOST_SHARE,
    "paper_least": 100 * PAPER_SHARES[1][1],
    "paper_most": 100 * PAPER_SHARES[3][1],
    "most_error": MOST_ERROR,
    "most_error_percent": 100 * MOST_ERROR,
    "most_folds": MOST_FOLDS,
    "level": 100 * LEVEL,
}
_BAR = ["dataset", "series", "cuts"]
_CELL = ["experiment", "device", "circuit", "qubits", "cuts", "mitigation", "budget"]
_CUTS = ("cuts", "label")
_STRAGGLERS = ("straggler_p", "straggler_delay")
_EXECUTION = ("pool", "policy", "policy_options", "backend", "workers", "queries", "trace")
"""What no number of circuits or shots depends on."""
_CHANGED = ("workers", "simulator_threads", "defer_measurements")
"""What runs of the experiment `causes` differ in."""
_VARIATION = ["deferred", "free", "threads", "workers"]
_WITHIN_A_BAR = ("dataset", "cuts", "seed", "trace", "queries")
_FOLLOWS = {"label": ("cuts", "qubits"), "policy_options": ("policy",), "workers": ("devices",)}
"""Keys that say nothing where these others are said."""
_SAME_QUERY = ("dataset", "qubits", "cuts", "label", "shots", "model", "workers")
_EQUAL = 1e-9
"""Numbers that differ by less, relatively, are the same but for their rounding."""

Unmatched = list[tuple[str, str]]
"""Run ids that no row holds, each with the reason."""
Made = tuple[pd.DataFrame, Unmatched]


@dataclass(frozen=True)
class Table:
    """One table of a report.

    Rows have the ids of their runs in the column `runs`; where there are none, nothing was
    measured. `unmatched` are ids of runs that no row holds, each with the reason.
    """

    name: str
    title: str
    experiment: str
    rows: pd.DataFrame
    unmatched: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Tables:
    """All tables of a study by name, in the order of a report.

    `headlines` are numbers with a bar, and whether they meet it; `left_out` says how much the cost
    model was not validated with, by reason. `is_paper`: it asks the paper's questions.
    """

    by_name: Mapping[str, Table]
    headlines: pd.DataFrame
    left_out: Mapping[str, int]
    is_paper: bool

    @property
    def shown(self) -> dict[str, Table]:
        """Tables that were measured, and those that a study of the paper's questions is to have."""
        optional = {name for name, words in WORDS["tables"].items() if words.get("optional")}
        return {
            name: table
            for name, table in self.by_name.items()
            if len(table.rows) or (self.is_paper and name not in optional)
        }

    def __getitem__(self, name: str) -> Table:
        return self.by_name[name]


def asks_paper(study: Study) -> bool:
    """Whether a study has experiments of the paper's, so that all of its tables are due."""
    mine = study.config.get("experiments")
    names = {*(mine if isinstance(mine, dict) else ()), *study.runs.experiment}
    return not names.isdisjoint(WORDS["experiments"])


def study_tables(study: Study) -> Tables:
    """Every table of a study; those that were not measured have no row."""
    costs, left_out = cost_model(study)
    made: dict[str, Made] = {
        "fig4_training_time": training_time(study),
        "fig5_speed_up": speed_up(study),
        "fig6_slow_down": slow_down(study),
        "fig7_accuracy": training_bars(study, "test_accuracy", np.mean),
        "fig8_robustness": training_bars(study, "robustness", np.mean),
        "table1_reconstruction_share": (reconstruction_shares(study), []),
        "stage_shares": (stage_shares(study, "shares"), []),
        "savings": savings(study),
        "policies": policies(study),
        "accuracy_differences": differences(study),
        "speed_ups": (speed_ups(study), []),
        "fleet_stages": (stage_shares(study, "fleet"), []),
        "causes": (causes(study), []),
        "changes": (changes(study), []),
        "unit_costs": (unit_costs(study), []),
        "cost_model": (costs, []),
        "noise_errors": (noise_errors(study), []),
    }
    tables = {}
    for name, (rows, unmatched) in made.items():
        words = WORDS["tables"][name]
        notes = tuple(note.format(**SLOTS) for note in words["notes"])
        place = words["title"], words["experiment"]
        tables[name] = Table(name, *place, rows, tuple(unmatched), notes)
    lines, is_paper = headlines(study, tables), asks_paper(study)
    return Tables(tables, lines if is_paper else lines[:0], left_out, is_paper)


# Groups, series, pairs, spreads


def groups(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Parts of a frame by some columns; 16 workers stand behind 4 workers."""
    parts = list(frame.groupby(list(keys), sort=False, dropna=False))
    yield from sorted(parts, key=lambda part: _order(part[0]))


def _order(key: Sequence[Any]) -> list[Any]:
    return [natural(value) if isinstance(value, str) else value for value in key]


def series(runs: pd.DataFrame, compared: Collection[str] = ()) -> list[str]:
    """What to call the series that each run belongs to.

    A series is a pipeline and whatever else differs between runs on one data set, besides cuts,
    seed and what is compared; so runs of one bar differ in nothing but their seeds.
    """
    configs = list(zip(runs.pipeline, runs.config, strict=True))
    keys = sorted({key for _, config in configs for key in config})
    varying = [
        key for key in keys if key not in (*_WITHIN_A_BAR, *compared) and _varies(configs, key)
    ]
    return [
        ", ".join([SERIES[pipeline], *(_value_label(key, config.get(key)) for key in varying)])
        for pipeline, config in configs
    ]


def _varies(configs: Sequence[tuple[str, Mapping[str, Any]]], key: str) -> bool:
    """Whether a key has two values where runs would share a bar."""
    names = ("dataset", *_FOLLOWS.get(key, ()))
    bars = [canonical([pipeline, *map(config.get, names)]) for pipeline, config in configs]
    values = [canonical(config.get(key)) for _, config in configs]
    return len(set(zip(bars, values, strict=True))) > len(set(bars))


def _value_label(key: str, value: Any) -> str:
    if key in ("workers", "devices", "qubits"):
        return f"{value} {key.removesuffix('s')}{'' if value == 1 else 's'}"
    if key == "policy_options" and isinstance(value, dict):
        return " ".join(f"{name}={option}" for name, option in value.items()) or "defaults"
    return str(value) if key in ("policy", "backend", "pool", "label") else f"{key} {value}"


def canonical(value: Any) -> str:
    """A JSON value as text that is the same for equal values."""
    return json.dumps(value, sort_keys=True)


def paired(
    runs: pd.DataFrame,
    base: pd.Series[bool],
    other: pd.Series[bool],
    compared: Collection[str],
    what: str | Sequence[str],
) -> Made:
    """Runs beside the one that differs from them in nothing but the compared keys.

    Args:
        runs: Those of both sides.
        base: Which of them are compared with.
        other: Which of them are compared.
        compared: Keys of the configuration that may differ; "pipeline" is one too.
        what: The missing partner of an unmatched run, or that of each: "at 16 workers".

    Returns:
        A row for each pair, the base's columns behind `base_`, with its `series` and `ratio`, the
        other's seconds over the base's (NaN without a time on both sides); and the runs without a
        partner.
    """
    matches = []
    for run in runs.to_dict("records"):
        key = {**run["config"], **{n: run[n] for n in ("experiment", "kind", "pipeline")}}
        matches.append(canonical({k: v for k, v in key.items() if k not in compared}))
    runs = runs.assign(match=matches, what=what)
    bases, others = runs[base], runs[other]
    unique = bases.drop_duplicates("match", keep="last").add_prefix("base_")
    pairs = others.merge(unique, left_on="match", right_on="base_match")
    known = (pairs.seconds > 0) & (pairs.base_seconds > 0)
    ratio = (pairs.seconds / pairs.base_seconds).where(known)
    lonely = others[~others.match.isin(bases.match)]
    idle = bases[~bases.match.isin(others.match)]
    return pairs.assign(ratio=ratio, series=series(pairs, compared)), [
        *((run.run_id, f"no finished partner {run.what}") for run in lonely.itertuples()),
        *((run.run_id, f"nothing to compare {run.what} with it") for run in idle.itertuples()),
    ]


def timed(made: Made) -> Made:
    """Pairs with a ratio of times; and the runs without a partner or without a time."""
    pairs, alone = made
    without = pairs.run_id[pairs.ratio.isna()]
    reasons = [(run_id, "no time above 0 s on both sides") for run_id in without]
    return pairs[pairs.ratio.notna()], [*alone, *reasons]


def spread(numbers: Sequence[float], centre: Callable[[Any], Any] = np.median) -> dict[str, Any]:
    """The median or mean of some numbers, with the least and the greatest."""
    values = [float(number) for number in numbers]
    kind = "min–max" if len(values) > 1 else "none (n = 1)"
    ends = {"low": min(values), "high": max(values)}
    return {"value": float(centre(values)), **ends, "n": len(values), "spread": kind}


def interval(numbers: Sequence[float]) -> dict[str, Any]:
    """The mean with its 95 % interval by Student's t.

    There is none with one number; nor with equal ones, whose interval would have no width, however
    few they are.

    Example:
        >>> found = interval([0.0, 0.1])
        >>> round(found["low"], 3), round(found["high"], 3), found["spread"]
        (-0.585, 0.685, '95 % interval')
    """
    values = np.array(numbers, dtype=float)
    n, mean = len(values), float(values.mean())
    found = {"value": mean, "low": math.nan, "high": math.nan, "n": n}
    if n < 2:
        return {**found, "spread": "none (n = 1)"}
    if np.ptp(values) <= _EQUAL * max(1.0, abs(mean)):
        return {**found, "spread": f"no spread: all {n} equal"}
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / math.sqrt(n))
    return {**found, "low": mean - half, "high": mean + half, "spread": "95 % interval"}


def _sources(part: pd.DataFrame) -> dict[str, str]:
    """Where a row's numbers come from: origins and ids of runs, those of both sides of pairs."""
    origins, runs = (
        sorted(set(part[[name for name in names if name in part]].to_numpy().ravel()))
        for names in (("origin", "base_origin"), ("run_id", "base_run_id"))
    )
    return {"origin": ", ".join(origins), "runs": " ".join(runs)}


def _rows(
    frame: pd.DataFrame, keys: Sequence[str], numbers: Callable[[pd.DataFrame], Mapping[str, Any]]
) -> pd.DataFrame:
    """A row for each group: its keys, what `numbers` makes of it, its sources."""
    return pd.DataFrame(
        {**dict(zip(keys, key, strict=True)), **numbers(part), **_sources(part)}
        for key, part in groups(frame, keys)
    )


# The paper's figures


def training_bars(study: Study, column: str, centre: Callable[[Any], Any]) -> Made:
    """One bar for each data set, series and number of cuts of the trainings.

    Fig. 7 is `test_accuracy`; Fig. 8 is `robustness`, the mean accuracy over magnitudes above 0,
    averaged over the perturbations that were run.
    """
    runs = study.done("training", "train")
    runs = runs.assign(series=series(runs))

    def row(part: pd.DataFrame) -> dict[str, Any]:
        found = {**spread(part[column], centre), "basis": "measured"}
        if centre is np.mean:
            ends = interval(part[column])
            found |= {"interval_low": ends["low"], "interval_high": ends["high"]}
            found["interval"] = ends["spread"]
        return found

    rows = _rows(runs[runs[column].notna()], _BAR, row)
    return rows, [(run_id, "no such number") for run_id in runs.run_id[runs[column].isna()]]


def training_time(study: Study) -> Made:
    """Fig. 4: training time by cuts; the reference's is extrapolated from measured queries."""
    bars, alone = training_bars(study, "seconds", np.median)
    extrapolated, more = _extrapolated(study)
    rows = pd.concat([bars, extrapolated], ignore_index=True)
    if len(rows):
        order = [_order(key) for key in rows[_BAR].itertuples(index=False)]
        rows = rows.iloc[sorted(range(len(rows)), key=order.__getitem__)].reset_index(drop=True)
    return rows, [*alone, *more]


def _extrapolated(study: Study) -> Made:
    """Reference trainings: measured seconds a query times the queries that a training asks."""
    shares = study.done("shares", "queries", "reference")
    # As all runs are simulated but those of `causes`: with one thread, as the circuit stands.
    usual = (shares.simulator_threads == 1) & ~shares.defer_measurements.fillna(False).astype(bool)
    shares = shares.assign(query=_query_keys(shares))[usual]
    trainings = study.done("training", "train")
    # What decides a training's own time and not that of the reference names no series.
    names = series(trainings.assign(pipeline="reference"), set(_EXECUTION) - {"workers"})
    trainings = trainings.assign(query=_query_keys(trainings), series=names)
    whole = trainings[trainings.pipeline == "reference"]["query"]
    asked = trainings[(trainings.pipeline != "reference") & ~trainings["query"].isin(whole)]
    measured = asked["query"].isin(shares["query"])
    counted = asked.reference_queries > 0
    why = {
        "no reference query measured of its circuit": ~measured,
        "no number of reference queries": measured & ~counted,
    }
    alone = [
        (run_id, f"its time cannot be extrapolated: {reason}")
        for reason, chosen in why.items()
        for run_id in asked.run_id[chosen]
    ]
    rows = []
    for (query, name), part in asked[measured & counted].groupby(["query", "series"]):
        base = shares[shares["query"] == query]
        records = study.queries[study.queries.run_id.isin(base.run_id)]
        records = records[records.num_queries > 0]
        seconds, queries = records.t_total / records.num_queries, part.reference_queries
        spread_of = "min–max of the measured queries" if len(seconds) > 1 else "none (1 query)"
        rows.append(
            {
                **{"dataset": part.dataset.iloc[0], "series": name, "cuts": part.cuts.iloc[0]},
                "value": seconds.median() * queries.median(),
                "low": seconds.min() * queries.min(),
                "high": seconds.max() * queries.max(),
                **{"n": len(part), "spread": spread_of, "basis": "extrapolated"},
                "origin": _sources(base)["origin"],
                "runs": _sources(pd.concat([base, part]))["runs"],
                "queries": len(seconds),
            }
        )
    return pd.DataFrame(rows), alone


def _query_keys(runs: pd.DataFrame) -> list[str]:
    """What the time of a reference query depends on."""
    found = []
    for config in runs.config:
        p = float(config.get("straggler_p") or 0)
        delay = float(config.get("straggler_delay") or 0) if p else 0.0
        found.append(canonical([*(config.get(name) for name in _SAME_QUERY), p, delay]))
    return found


def _scaled(study: Study) -> pd.DataFrame:
    runs = study.done("scaling")
    return runs.assign(workers=runs.workers.fillna(1).astype(int))


def speed_up(study: Study) -> Made:
    """Fig. 5: time of one worker over that of 16, or of the most that a data set was run with."""
    runs = _scaled(study)
    one, counts = runs.workers == 1, runs[runs.workers != 1].groupby("dataset").workers
    most = counts.agg(lambda found: PAPER_WORKERS if PAPER_WORKERS in set(found) else max(found))
    wanted = runs.dataset.map(most).astype(float).fillna(PAPER_WORKERS)
    what = [f"between 1 and {count:g} workers" for count in wanted]
    found, alone = timed(paired(runs, one, ~one & (runs.workers == wanted), ("workers",), what))

    def row(part: pd.DataFrame) -> dict[str, Any]:
        numbers = spread(1 / part.ratio)
        return {**numbers, "basis": "measured", "workers": part.workers.iloc[0]}

    return _rows(found, _BAR, row), alone


def speed_ups(study: Study) -> pd.DataFrame:
    """Speed-up over one worker at every number of workers that was measured."""
    runs = _scaled(study)
    found, _ = timed(paired(runs, runs.workers == 1, runs.workers != 1, ("workers",), ""))
    return _rows(found, ["workers", *_BAR], lambda part: spread(1 / part.ratio))


def slow_down(study: Study) -> Made:
    """Fig. 6: time under stragglers over time without, per policy."""
    runs = study.done("stragglers")
    ps = runs.straggler_p.fillna(0.0)
    p = PAPER_P if PAPER_P in set(ps) else max(ps, default=0.0) or PAPER_P
    what = f"between p = 0 and p = {p:g}"
    found, alone = timed(paired(runs, ps == 0, ps == p, _STRAGGLERS, what))
    numbers = {"basis": "measured", "p": p}
    return _rows(found, _BAR, lambda part: {**spread(part.ratio), **numbers}), alone


# Queries: shares, stages, savings, causes


def _queries(study: Study, runs: pd.DataFrame, compared: Collection[str] = ()) -> pd.DataFrame:
    """Query records of some runs, with the columns of their run."""
    runs = runs.assign(series=series(runs, compared))
    columns = ["run_id", "origin", "dataset", "series", "cuts", "pipeline", "seed", *_CHANGED]
    return study.queries.merge(runs[columns].reset_index(drop=True), on="run_id")


def reconstruction_shares(study: Study) -> pd.DataFrame:
    """Table I: median and 95th percentile of T_rec/T_total by cuts."""

    def row(part: pd.DataFrame) -> dict[str, Any]:
        stage = stages_of(part.to_dict("list"))[STAGES.index("reconstruct")]
        paper = PAPER_SHARES.get(part.cuts.iloc[0], (None, None, None))
        return {
            "n": len(part),
            "median_share": stage.median_share,
            "p95_share": stage.p95_share,
            **dict(zip(("paper_n", "paper_median_share", "paper_p95_share"), paper, strict=True)),
        }

    return _rows(_queries(study, study.done("shares", "queries")), _BAR, row)


def stage_shares(study: Study, experiment: str) -> pd.DataFrame:
    """Time of each stage of a query, by series and cuts."""
    return pd.DataFrame(
        {
            **dict(zip(_BAR, key, strict=True)),
            "stage": stage.stage,
            "n": len(part),
            "median_seconds": stage.median_seconds,
            "share": stage.share,
            "median_share": stage.median_share,
            **_sources(part),
        }
        for key, part in groups(_queries(study, study.done(experiment, "queries")), _BAR)
        for stage in stages_of(part.to_dict("list"))
    )


def savings(study: Study) -> Made:
    """Subexperiments and shots that a query takes, the paper's pipeline beside ours."""
    totals = study.queries.groupby("run_id")[
        ["num_queries", "num_subexperiments", "shots_total"]
    ].sum()
    runs = study.done("shares", "queries").reset_index(drop=True).merge(totals, on="run_id")
    runs["subexperiments"] = runs.num_subexperiments / runs.num_queries
    runs["a_query_shots"] = runs.shots_total / runs.num_queries
    compared = ("pipeline", *_EXECUTION)
    theirs, ours = runs.pipeline == "reference", runs.pipeline == "contracted"
    pairs, alone = paired(runs, theirs, ours, compared, "of the other pipeline")

    def row(part: pd.DataFrame) -> dict[str, Any]:
        found: dict[str, Any] = {"n": len(part)}
        for what, column in (("subexperiments", "subexperiments"), ("shots", "a_query_shots")):
            paper, our = part[f"base_{column}"].median(), part[column].median()
            found |= {f"paper_{what}": paper, f"our_{what}": our}
            found[f"fewer_{what}"] = paper / our if our else math.nan
        return found

    return _rows(pairs, _BAR, row), alone


def unit_costs(study: Study) -> pd.DataFrame:
    """What one query, circuit and shot take, over all queries of an experiment."""

    def row(part: pd.DataFrame) -> dict[str, Any]:
        sums = part.select_dtypes("number").sum()
        circuits, shots = sums.num_subexperiments or math.nan, sums.shots_total or math.nan
        return {
            "n": len(part),
            "queries_a_call": sums.num_queries / len(part),
            "query_ms": 1e3 * sums.t_total / sums.num_queries,
            "reconstruct_query_ms": 1e3 * sums.t_reconstruct / sums.num_queries,
            "execute_circuit_ms": 1e3 * sums.t_execute / circuits,
            "reconstruct_shot_us": 1e6 * sums.t_reconstruct / shots,
        }

    shares = _queries(study, study.done("shares", "queries")).assign(experiment="shares")
    training = _queries(study, study.done("training", "train", "contracted"))
    frame = pd.concat([shares, training.assign(experiment="training")], ignore_index=True)
    frame = frame.assign(series=frame.pipeline.map(SERIES))
    keys = ["experiment", *_BAR]
    asked = frame.groupby(keys, dropna=False).num_queries.transform("sum") > 0
    return _rows(frame[asked], keys, row)


def _variations(study: Study) -> pd.DataFrame:
    """Query records of the experiment `causes`, with what was changed in them."""
    frame = _queries(study, study.done("causes", "queries", "reference"), _CHANGED)
    frame = frame[frame.t_total > 0]
    frame = frame.assign(
        deferred=frame.defer_measurements.fillna(False).astype(bool),
        free=frame.simulator_threads.isna(),
        threads=frame.simulator_threads.fillna(0).astype(int),
        workers=frame.workers.fillna(1).astype(int),
        share=frame.t_reconstruct / frame.t_total,
    )
    names = [_variant(*row) for row in frame[_VARIATION].itertuples(index=False)]
    return frame.assign(variant=pd.Series(names, frame.index, dtype=object))


def _variant(deferred: bool, free: bool, threads: int, workers: int) -> str:
    parts = [f"{workers} worker{'' if workers == 1 else 's'}"]
    if free:
        parts.append(f"{OWN_CHOICE} of threads")
    elif threads > 1:
        parts.append(f"{threads} threads each")
    if deferred:
        parts.append("measurements deferred")
    return ", ".join(parts)


def causes(study: Study) -> pd.DataFrame:
    """Stages of a query of the paper's pipeline under each variation."""

    def row(part: pd.DataFrame) -> dict[str, Any]:
        columns = {"t_exec": part.t_execute, "t_rec": part.t_reconstruct, "share": part.share}
        spreads = {name: spread(column) for name, column in columns.items()}
        first = part.iloc[0]
        return {
            "variant": first.variant,
            "simulator_threads": OWN_CHOICE if first.free else str(first.threads),
            "n": len(part),
            "t_part": part.t_partition.median(),
            "t_gen": part.t_generate.median(),
            **{name: found["value"] for name, found in spreads.items()},
            **{f"{n}_{end}": f[end] for n, f in spreads.items() for end in ("low", "high")},
            "spread": spreads["t_exec"]["spread"],
        }

    rows = _rows(_variations(study), [*_BAR, *_VARIATION], row)
    return rows.drop(columns=["free", "threads"], errors="ignore")


def changes(study: Study) -> pd.DataFrame:
    """Each variation of the paper's pipeline over the plain one, on queries of the same seeds.

    Plain is one thread of the simulator for each worker and measurements where they stand, on as
    many workers as the variation; a plain variation is compared with one worker.
    """
    rows = []
    for key, circuit in groups(_variations(study), _BAR):
        plain = circuit[~circuit.deferred & (circuit.threads == 1)]
        for (deferred, _, threads, workers), part in groups(circuit, _VARIATION):
            is_plain = not deferred and threads == 1
            base = plain[plain.workers == (1 if is_plain else workers)]
            base, part = base[base.seed.isin(part.seed)], part[part.seed.isin(base.seed)]
            if (is_plain and workers == 1) or not len(part):
                continue
            before, after = (side.median(numeric_only=True) for side in (base, part))
            fixed = before.t_reconstruct + before.t_partition + before.t_generate
            divided = before.t_reconstruct / (fixed + before.t_execute / workers)
            rows.append(
                {
                    **dict(zip(_BAR, key, strict=True)),
                    "change": "workers" if is_plain else "deferral" if deferred else "threads",
                    "variant": part.variant.iloc[0],
                    "over": base.variant.iloc[0],
                    "threads_held": study.runs.threads_held[part.run_id.unique()].max(),
                    "n": len(part),
                    "t_exec_ratio": after.t_execute / before.t_execute,
                    "overlap": max(base.t_execute.min(), part.t_execute.min())
                    <= min(base.t_execute.max(), part.t_execute.max()),
                    "t_rec_ratio": after.t_reconstruct / before.t_reconstruct,
                    "share_before": before.share,
                    "share_after": after.share,
                    "share_if_divided": divided if is_plain else math.nan,
                    "paper_share": PAPER_SHARES.get(key[2], (None, math.nan))[1],
                    **_sources(pd.concat([base, part])),
                }
            )
    return pd.DataFrame(rows)


# Beyond the paper


def policies(study: Study) -> Made:
    """Time of each policy with and without stragglers, over the bound that none can beat."""
    parts: list[pd.DataFrame] = []
    alone: Unmatched = []

    def row(part: pd.DataFrame) -> dict[str, Any]:
        numbers = spread(part.seconds)
        bound = part.lower_bound.median() if part.lower_bound.notna().all() else math.nan
        return {
            **numbers,
            "over_clean": part.over_clean.median(),
            "lower_bound": bound,
            "over_bound": numbers["value"] / bound if bound else math.nan,
        }

    for experiment in ("stragglers", "policies"):
        runs = study.done(experiment)
        runs = runs[runs.seconds.notna()]
        runs = runs.assign(p=runs.straggler_p.fillna(0.0), series=series(runs, _STRAGGLERS))
        clean = runs.p == 0
        for p in sorted(set(runs.p) - {0.0}) or [PAPER_P]:
            what = f"between p = 0 and p = {p:g}"
            alone += paired(runs, clean, runs.p == p, _STRAGGLERS, what)[1]
        pairs, _ = paired(runs, clean, runs.p >= 0, _STRAGGLERS, "")
        over_clean = pairs.seconds / pairs.base_seconds.where(pairs.base_seconds > 0)
        runs = runs.assign(over_clean=over_clean.set_axis(pairs.run_id))
        parts.append(_rows(runs, ["experiment", *_BAR, "p"], row))
    return pd.concat(parts, ignore_index=True), alone


def differences(study: Study) -> Made:
    """Differences of accuracy and robustness to the uncut training of the same seed."""
    runs = study.done("training", "train")
    pairs, alone = paired(runs, runs.cuts == 0, runs.cuts > 0, _CUTS, "uncut")
    metrics = {"test accuracy": "test_accuracy", "robustness": "robustness"}
    long = pd.concat(
        pairs.assign(order=order, metric=metric, difference=pairs[name] - pairs[f"base_{name}"])
        for order, (metric, name) in enumerate(metrics.items())
    )

    def row(part: pd.DataFrame) -> dict[str, Any]:
        found = interval(part.difference)
        if found["n"] < 2:
            zero = "no interval: one seed only"
        elif math.isnan(found["low"]):
            zero = found["spread"]
        else:
            zero = "inside" if found["low"] <= 0 <= found["high"] else "outside"
        return {**found, "zero": zero}

    rows = _rows(long[long.difference.notna()], [*_BAR, "order", "metric"], row)
    return rows.drop(columns="order", errors="ignore"), alone


def cost_model(study: Study) -> tuple[pd.DataFrame, dict[str, int]]:
    """How well the cost model predicts the study's own queries, each configuration held out.

    Returns a row for each setup, and how much was left out by reason.
    """
    data = CostData.of(study.queries.record)
    members: defaultdict[Setup, set[str]] = defaultdict(set)
    for run_id, record in zip(study.queries.run_id, study.queries.record, strict=True):
        if reason_left_out(record) is None:
            members[Setup.of(record)].add(run_id)
    rows, few = [], 0
    for setup, configurations in data.configurations.items():
        if len(configurations) < least_configurations(LEVEL):
            few += 1
            continue
        held_out = leave_one_out(configurations)
        found = Validation.of(held_out)
        total = found.median_error["total"]
        rows.append(
            {
                "setup": one_line(str(setup)),
                "configurations": found.configurations,
                "n": sum(len(each.times) for each in configurations),
                "error_total": total,
                "p90_error_total": found.p90_error["total"],
                "inside_interval": held_out.coverage(LEVEL),
                "outcome": _outcome(total, MOST_ERROR),
                **{f"error_{stage}": found.median_error[stage] for stage in STAGES},
                **_sources(study.runs[study.runs.run_id.isin(members[setup])]),
            }
        )
    left_out = {**data.left_out, **({"setups with too few configurations": few} if few else {})}
    return pd.DataFrame(rows), left_out


def noise_errors(study: Study) -> pd.DataFrame:
    """How far values on noisy devices are off, root mean square over circuits.

    Beside it stand what error bars and forecasts say, root mean square too, and what was paid.
    """

    def row(part: pd.DataFrame) -> dict[str, Any]:
        squares = (part.value - part.exact) ** 2
        error = math.sqrt(squares.mean())
        return {
            "n": len(part),
            "error": error,
            "error_stderr": squares.sem() / (2 * error) if error else math.nan,
            "claimed": math.sqrt((part.stderr**2).mean()),
            "predicted": math.sqrt((part.predicted**2).mean()),
            **{name: part[name].mean() for name in ("shots", "circuits", "seconds")},
        }

    runs = study.runs
    return _rows(runs[(runs.status == "done") & (runs.kind == "values")], _CELL, row)


# Numbers with a bar


def headlines(study: Study, tables: Mapping[str, Table]) -> pd.DataFrame:
    """One row for each question, data set and number of cuts that has a bar."""
    runs = study.done("training", "train", "contracted")
    times, _ = timed(paired(runs, runs.cuts == 0, runs.cuts == 3, _CUTS, "uncut"))
    names = ("table1_reconstruction_share", "fig6_slow_down", "accuracy_differences")
    shares, slowed, both = (_ours(tables[name].rows) for name in names)
    found: dict[str, Rows] = {
        "RQ1": _rows(times, _BAR, lambda part: spread(part.ratio)).to_dict("records"),
        "RQ2": [
            {**row, "value": row["median_share"], "low": None, "high": row["p95_share"]}
            | {"paper": f"{100 * row['paper_median_share']:.0f} %"}
            for row in shares
        ],
        "RQ3": slowed,
        "RQ4": [row for row in both if row["metric"] == "test accuracy"],
        "RQ5": [row for row in both if row["metric"] == "robustness"],
    }
    most = {"RQ1": MOST_RATIO, "RQ2": MOST_SHARE}
    lines = []
    for question, rows in found.items():
        words = WORDS["questions"][question]
        shown = ("what", "bar", "paper", "spread")
        words = {name: words[name].format(**SLOTS) for name in shown if name in words}
        for row in rows:
            if question in most:
                outcome = _outcome(row["value"], most[question])
            elif question == "RQ3":
                outcome = "as found"
            else:
                has_interval = row["zero"] in ("inside", "outside")
                outcome = f"0 is {row['zero']} the interval" if has_interval else row["zero"]
            lines.append({"question": question, **row, **words, "outcome": outcome})
        known = {(row["dataset"].split("_")[0], row["cuts"]) for row in rows}  # widths are suffixes
        for dataset, cuts in product(DATASETS, (3,) if question == "RQ1" else (1, 2, 3)):
            if (dataset, cuts) not in known:
                place = {"dataset": dataset, "series": SERIES["contracted"], "cuts": cuts}
                empty = {"n": 0, "spread": "", "outcome": NOT_MEASURED}
                lines.append({"question": question, **words, **place, **empty})
    lines.sort(key=lambda line: (line["question"], line["dataset"], line["cuts"]))
    columns = ["question", "what", *_BAR, "value", "low", "high", "n", "spread", "bar", "outcome"]
    return pd.DataFrame(lines, columns=[*columns, "paper"]).fillna({"paper": ""})


Rows = list[dict[str, Any]]


def _ours(rows: pd.DataFrame) -> Rows:
    """Rows of this package's pipeline with 1 to 3 cuts."""
    if rows.empty:
        return []
    mine = rows.series.str.startswith(SERIES["contracted"]) & rows.cuts.isin((1, 2, 3))
    found: Rows = rows[mine].to_dict("records")
    return found


def _outcome(value: float, most: float) -> str:
    return "met" if value <= most else "not met"
