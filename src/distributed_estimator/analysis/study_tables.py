"""Every table of a study's report: group-bys and merges of its runs and query records."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from .escape import natural, one_line
from .load import stage_table
from .study import Study

SERIES = {"contracted": "ours", "reference": "the paper's pipeline"}
"""What each pipeline is called in tables and figures."""
PAPER_SHARES = {1: (41, 0.430, 0.474), 2: (28, 0.489, 0.533), 3: (5, 0.530, 0.580)}
"""Table I of the paper: by cuts, n and the median and 95th percentile of T_rec/T_total."""
PAPER_WORKERS, PAPER_P = 16, 0.2
MOST_RATIO, MOST_SHARE, MOST_ERROR = 2.0, 0.02, 0.15
"""Bars: training time at 3 cuts over uncut, share of reconstruction, error of the cost model."""
DATASETS = ("iris", "mnist")
NOT_MEASURED = "not measured"
OWN_CHOICE = "the simulator's own choice"

_BAR = ["dataset", "series", "cuts"]
_CUTS = ("cuts", "label")
_STRAGGLERS = ("straggler_p", "straggler_delay")
_EXECUTION = ("pool", "policy", "policy_options", "backend", "workers", "queries", "trace")
"""What no number of circuits or shots depends on."""
_CHANGED = ("workers", "simulator_threads", "defer_measurements")
"""What runs of the experiment `causes` differ in."""
_WITHIN_A_BAR = ("dataset", "cuts", "seed", "trace", "queries")
_FOLLOWS = {"label": ("cuts", "qubits"), "policy_options": ("policy",), "workers": ("devices",)}
"""Keys that say nothing where these others are said."""
_SAME_QUERY = ("dataset", "qubits", "cuts", "label", "shots", "model", "workers")
_EQUAL = 1e-9
"""Numbers that differ by less, relatively, are the same but for their rounding."""


@dataclass(frozen=True)
class Table:
    """One table of a report.

    Attributes:
        name: Of its file.
        title: Its heading.
        experiment: That it was made from.
        rows: Its columns and rows, with the run ids of each in `runs`; empty: not measured.
        unmatched: Run ids that no row holds, each with the reason.
        notes: How to read it.
    """

    name: str
    title: str
    experiment: str
    rows: pd.DataFrame
    unmatched: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tables:
    """All tables of a study by name, and what of it the cost model was not validated with.

    Attributes:
        by_name: The tables, in the order of a report.
        headlines: Numbers with a bar, and whether they meet it.
        left_out: By reason, query records without a cost model; `setups` that are too small.
    """

    by_name: Mapping[str, Table]
    headlines: pd.DataFrame
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Table:
        return self.by_name[name]


def study_tables(study: Study) -> Tables:
    """Every table of a study; those that were not measured have no row."""
    costs, left_out = cost_model(study)
    tables = (
        training_time(study),
        speed_up(study),
        slow_down(study),
        accuracy(study),
        robustness(study),
        reconstruction_shares(study),
        stage_shares(study, "shares", "stage_shares", "Stages of a query, before and after"),
        savings(study),
        policies(study),
        differences(study),
        speed_ups(study),
        stage_shares(study, "fleet", "fleet_stages", "Stages of a query on a simulated fleet"),
        causes(study),
        changes(study),
        unit_costs(study),
        costs,
    )
    found = {table.name: table for table in tables}
    return Tables(found, headlines(study, found), left_out)


# Groups, series, pairs, spreads


def groups(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Parts of a frame by some columns; 16 workers stand behind 4 workers."""
    parts = list(frame.groupby(list(keys), sort=False, dropna=False))
    yield from sorted(parts, key=lambda part: [_order(value) for value in part[0]])


def _order(value: Any) -> Any:
    return natural(value) if isinstance(value, str) else value


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
    seen: dict[str, str] = {}
    for pipeline, config in configs:
        shared = [pipeline, *(config.get(name) for name in ("dataset", *_FOLLOWS.get(key, ())))]
        value = canonical(config.get(key))
        if seen.setdefault(canonical(shared), value) != value:
            return True
    return False


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
    bases: pd.DataFrame, others: pd.DataFrame, compared: Collection[str], what: str
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Runs beside the one that differs from them in nothing but the compared keys.

    Args:
        bases: What is compared with.
        others: What is compared.
        compared: Keys of the configuration that may differ; "pipeline" is one too.
        what: The missing partner of an unmatched run: "at 16 workers".

    Returns:
        A row for each pair, the base's columns behind `base_`; and the runs without a partner.
    """
    bases = bases.assign(match=_match_keys(bases, compared))
    others = others.assign(match=_match_keys(others, compared))
    base = bases.drop_duplicates("match", keep="last").add_prefix("base_")
    both = others.merge(base, left_on="match", right_on="base_match")
    alone = [
        (run_id, f"no finished partner {what}")
        for run_id in others.run_id[~others.match.isin(bases.match)]
    ]
    alone += [
        (run_id, f"nothing to compare {what} with it")
        for run_id in bases.run_id[~bases.match.isin(others.match)]
    ]
    return both, alone


def _match_keys(runs: pd.DataFrame, compared: Collection[str]) -> list[str]:
    keys = ("experiment", "kind", "pipeline")
    return [
        canonical(
            {
                k: v
                for k, v in {**run["config"], **{n: run[n] for n in keys}}.items()
                if k not in compared
            }
        )
        for run in runs.to_dict("records")
    ]


def time_ratios(
    pairs: pd.DataFrame, compared: Collection[str], alone: list[tuple[str, str]]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Pairs with `ratio`, the other's time over the base's, and their series."""
    pairs = pairs.assign(series=series(pairs, compared))
    timed = (pairs.seconds > 0) & (pairs.base_seconds > 0)
    without = [(run_id, "no time above 0 s on both sides") for run_id in pairs.run_id[~timed]]
    known = pairs[timed]
    return known.assign(ratio=known.seconds / known.base_seconds), [*alone, *without]


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


def _sources(part: pd.DataFrame) -> dict[str, Any]:
    """Where a row's numbers come from: origins and ids of runs, those of both sides of pairs."""
    sides = [name for name in ("run_id", "base_run_id") if name in part]
    origins = [name for name in ("origin", "base_origin") if name in part]
    return {
        "origin": ", ".join(sorted(set(part[origins].to_numpy().ravel()))),
        "runs": " ".join(sorted(set(part[sides].to_numpy().ravel()))),
    }


def _rows(
    frame: pd.DataFrame,
    keys: Sequence[str],
    numbers: Callable[[pd.DataFrame], Mapping[str, Any] | None],
) -> pd.DataFrame:
    """A row for each group: its keys, what `numbers` makes of it (None: no row), its sources."""
    rows = []
    for key, part in groups(frame, keys):
        found = numbers(part)
        if found is not None:
            rows.append({**dict(zip(keys, key, strict=True)), **found, **_sources(part)})
    return pd.DataFrame(rows)


# The paper's figures


def _bars(
    runs: pd.DataFrame, column: str, centre: Callable[[Any], Any]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One bar for each data set, series and number of cuts; runs without the number."""
    runs = runs.assign(series=series(runs))
    missing = runs[column].isna()
    without = [(run_id, "no such number") for run_id in runs.run_id[missing]]
    rows = _rows(
        runs[~missing], _BAR, lambda part: {**spread(part[column], centre), "basis": "measured"}
    )
    return rows, without


def training_time(study: Study) -> Table:
    """Fig. 4: training time by cuts; the reference's is extrapolated from measured queries."""
    bars, alone = _bars(study.done("training", "train"), "seconds", np.median)
    extrapolated, more = _extrapolated(study)
    rows = pd.concat([bars, extrapolated], ignore_index=True)
    if len(rows):
        order = [[_order(value) for value in key] for key in rows[_BAR].itertuples(index=False)]
        rows = rows.iloc[sorted(range(len(rows)), key=order.__getitem__)].reset_index(drop=True)
    return Table(
        "fig4_training_time",
        "Fig. 4 · RQ1: training time by number of cuts",
        "training",
        rows,
        (*alone, *more),
        (
            "value: training time in seconds, the median over runs.",
            "Hollow bars are extrapolated, not measured: median seconds of the measured reference "
            "queries (column `queries`) times the queries that the same training asks of the "
            "paper's pipeline.",
        ),
    )


def _extrapolated(study: Study) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Reference trainings: measured seconds a query times the queries that a training asks."""
    shares = study.done("shares", "queries", "reference")
    # As all runs are simulated but those of `causes`: with one thread, as the circuit stands.
    usual = (shares.simulator_threads == 1) & ~shares.defer_measurements.fillna(False).astype(bool)
    shares = shares.assign(query=_query_keys(shares))[usual]
    trainings = study.done("training", "train")
    trainings = trainings.assign(query=_query_keys(trainings))
    # What decides a training's own time and not that of the reference names no series.
    trainings["series"] = series(
        trainings.assign(pipeline="reference"), set(_EXECUTION) - {"workers"}
    )
    whole = trainings[trainings.pipeline == "reference"]["query"]
    asked = trainings[(trainings.pipeline != "reference") & ~trainings["query"].isin(whole)]
    measured = asked["query"].isin(shares["query"])
    counted = asked.reference_queries > 0
    alone = [
        (run_id, "its time cannot be extrapolated: no reference query measured of its circuit")
        for run_id in asked.run_id[~measured]
    ]
    alone += [
        (run_id, "its time cannot be extrapolated: no number of reference queries")
        for run_id in asked.run_id[measured & ~counted]
    ]
    rows = []
    for (query, name), part in asked[measured & counted].groupby(["query", "series"]):
        base = shares[shares["query"] == query]
        own = study.queries[study.queries.run_id.isin(base.run_id) & study.queries.num_queries > 0]
        seconds, queries = own.t_total / own.num_queries, part.reference_queries
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


def _worker_pairs(runs: pd.DataFrame, workers: int) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Runs on one worker, each with the same on `workers`."""
    counts = runs.workers.fillna(1)
    base, other = runs[counts == 1], runs[(counts == workers) & (workers != 1)]
    return paired(base, other, ("workers",), f"between 1 and {workers} workers")


def speed_up(study: Study) -> Table:
    """Fig. 5: time of one worker over that of 16, or of the most that a data set was run with."""
    runs = study.done("scaling")
    matches = []
    for _, members in groups(runs, ["dataset"]):
        counts = set(members.workers.fillna(1)) - {1}
        most = PAPER_WORKERS if PAPER_WORKERS in counts else max(counts, default=PAPER_WORKERS)
        matches.append(_worker_pairs(members, int(most)))
    found, alone = _joined(matches, runs)
    ratios, alone = time_ratios(found, ("workers",), alone)
    return Table(
        "fig5_speed_up",
        "Fig. 5 · RQ2: speed-up of many workers over 1",
        "scaling",
        _rows(
            ratios,
            _BAR,
            lambda part: {
                **spread(1 / part.ratio),
                "basis": "measured",
                "workers": int(part.workers.iloc[0]),
            },
        ),
        tuple(alone),
        (
            "value: training time with 1 worker over that with `workers`, the median over pairs of "
            "runs that differ in their workers alone.",
        ),
    )


def _joined(
    matches: Sequence[tuple[pd.DataFrame, list[tuple[str, str]]]], runs: pd.DataFrame
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Several pairings as one."""
    empty, _ = paired(runs[:0], runs[:0], (), "")
    pairs = pd.concat([pairs for pairs, _ in matches], ignore_index=True) if matches else empty
    return pairs, [one for _, alone in matches for one in alone]


def _straggler_pairs(runs: pd.DataFrame, p: float) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Runs without stragglers, each with the same at probability `p`."""
    base, other = runs[runs.straggler_p.fillna(0) == 0], runs[runs.straggler_p.fillna(0) == p]
    return paired(base, other, _STRAGGLERS, f"between p = 0 and p = {p:g}")


def slow_down(study: Study) -> Table:
    """Fig. 6: time under stragglers over time without, per policy."""
    runs = study.done("stragglers")
    found = set(runs.straggler_p.fillna(0.0))
    p = PAPER_P if PAPER_P in found else max(found, default=0.0) or PAPER_P
    pairs, alone = _straggler_pairs(runs, p)
    ratios, alone = time_ratios(pairs, _STRAGGLERS, alone)
    return Table(
        "fig6_slow_down",
        "Fig. 6 · RQ3: slow-down under injected stragglers",
        "stragglers",
        _rows(ratios, _BAR, lambda part: {**spread(part.ratio), "basis": "measured", "p": p}),
        tuple(alone),
        (
            "value: training time with stragglers of probability `p` over that without, the median "
            "over pairs of runs that differ in their stragglers alone.",
        ),
    )


def accuracy(study: Study) -> Table:
    """Fig. 7: test accuracy after clean training."""
    bars, alone = _bars(study.done("training", "train"), "test_accuracy", np.mean)
    notes = ("value: test accuracy, the mean over seeds.",)
    title = "Fig. 7 · RQ4: test accuracy"
    return Table("fig7_accuracy", title, "training", bars, tuple(alone), notes)


def robustness(study: Study) -> Table:
    """Fig. 8: mean accuracy over magnitudes above 0, averaged over the perturbations run."""
    bars, alone = _bars(study.done("training", "train"), "robustness", np.mean)
    return Table(
        "fig8_robustness",
        "Fig. 8 · RQ5: robustness",
        "training",
        bars,
        tuple(alone),
        (
            "value: mean accuracy over magnitudes above 0, averaged over Gaussian noise and FGSM "
            "as far as they were run; the mean over seeds.",
        ),
    )


# Queries: shares, stages, savings, causes


def _queries(study: Study, runs: pd.DataFrame, compared: Collection[str] = ()) -> pd.DataFrame:
    """Query records of some runs, with the columns of their run."""
    runs = runs.assign(series=series(runs, compared))
    columns = ["run_id", "origin", "dataset", "series", "cuts", "pipeline", "seed", *_CHANGED]
    return study.queries.merge(runs[columns].reset_index(drop=True), on="run_id")


def reconstruction_shares(study: Study) -> Table:
    """Table I: median and 95th percentile of T_rec/T_total by cuts."""

    def row(part: pd.DataFrame) -> dict[str, Any]:
        stage = stage_table(list(part.record))[3]
        paper_n, paper_median, paper_p95 = PAPER_SHARES.get(part.cuts.iloc[0], (None, None, None))
        return {
            "n": len(part),
            "median_share": stage.median_share,
            "p95_share": stage.p95_share,
            "paper_n": paper_n,
            "paper_median_share": paper_median,
            "paper_p95_share": paper_p95,
        }

    return Table(
        "table1_reconstruction_share",
        "Table I · RQ2: share of reconstruction in a query",
        "shares",
        _rows(_queries(study, study.done("shares", "queries")), _BAR, row),
        notes=(
            "Shares of T_rec in T_total within a query record; n counts query records.",
            "The paper's: its Table I, over its own runs and machine.",
        ),
    )


def stage_shares(study: Study, experiment: str, name: str, title: str) -> Table:
    """Time of each stage of a query, by series and cuts."""
    rows = [
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
        for stage in stage_table(list(part.record))
    ]
    note = "share: of the summed time of all n query records; median_share: within a record."
    return Table(name, title, experiment, pd.DataFrame(rows), notes=(note,))


def savings(study: Study) -> Table:
    """Subexperiments and shots that a query takes, the paper's pipeline beside ours."""
    totals = study.queries.groupby("run_id")[
        ["num_queries", "num_subexperiments", "shots_total"]
    ].sum()
    runs = study.done("shares", "queries").reset_index(drop=True).merge(totals, on="run_id")
    runs = runs.assign(
        subexperiments=runs.num_subexperiments / runs.num_queries,
        query_shots=runs.shots_total / runs.num_queries,
    )
    ours, theirs = (runs[runs.pipeline == name] for name in SERIES)
    compared = ("pipeline", *_EXECUTION)
    pairs, alone = paired(theirs, ours, compared, "of the other pipeline")

    def row(part: pd.DataFrame) -> dict[str, Any]:
        found: dict[str, Any] = {"n": len(part)}
        for what, column in (("subexperiments", "subexperiments"), ("shots", "query_shots")):
            paper, our = part[f"base_{column}"].median(), part[column].median()
            found |= {f"paper_{what}": paper, f"our_{what}": our}
            found[f"fewer_{what}"] = paper / our if our else math.nan
        return found

    return Table(
        "savings",
        "Subexperiments and shots of a query, the paper's pipeline and ours",
        "shares",
        _rows(pairs.assign(series=series(pairs, compared)), _BAR, row),
        tuple(alone),
        ("fewer_…: the paper's number over ours; n counts pairs of matched runs.",),
    )


def unit_costs(study: Study) -> Table:
    """What one query, circuit and shot take, over all queries of an experiment."""

    def row(part: pd.DataFrame) -> dict[str, Any] | None:
        queries, circuits = part.num_queries.sum(), part.num_subexperiments.sum()
        shots = part.shots_total.sum()
        if not queries:
            return None
        return {
            "n": len(part),
            "queries_a_call": queries / len(part),
            "query_ms": 1e3 * part.t_total.sum() / queries,
            "reconstruct_query_ms": 1e3 * part.t_reconstruct.sum() / queries,
            "execute_circuit_ms": 1e3 * part.t_execute.sum() / circuits if circuits else math.nan,
            "reconstruct_shot_us": 1e6 * part.t_reconstruct.sum() / shots if shots else math.nan,
        }

    shares = _queries(study, study.done("shares", "queries")).assign(experiment="shares")
    training = _queries(study, study.done("training", "train", "contracted"))
    frame = pd.concat([shares, training.assign(experiment="training")], ignore_index=True)
    frame = frame.assign(series=[SERIES[pipeline] for pipeline in frame.pipeline])
    return Table(
        "unit_costs",
        "What one query, one circuit and one shot take",
        "shares and training",
        _rows(frame, ["experiment", *_BAR], row),
        notes=(
            "Means over all queries of a pipeline: summed time over the number of queries, "
            "circuits or shots. queries_a_call: queries that are evaluated together; n counts "
            "calls.",
        ),
    )


def _variations(study: Study) -> pd.DataFrame:
    """Query records of the experiment `causes`, with what was changed in them."""
    frame = _queries(study, study.done("causes", "queries", "reference"), _CHANGED)
    frame = frame[frame.t_total > 0]
    return frame.assign(
        deferred=frame.defer_measurements.fillna(False).astype(bool),
        free=frame.simulator_threads.isna(),
        threads=frame.simulator_threads.fillna(0).astype(int),
        workers=frame.workers.fillna(1).astype(int),
        share=frame.t_reconstruct / frame.t_total,
    )


_VARIATION = ["deferred", "free", "threads", "workers"]


def _variant(deferred: bool, free: bool, threads: int, workers: int) -> str:
    parts = [f"{workers} worker{'' if workers == 1 else 's'}"]
    if free:
        parts.append(f"{OWN_CHOICE} of threads")
    elif threads > 1:
        parts.append(f"{threads} threads each")
    if deferred:
        parts.append("measurements deferred")
    return ", ".join(parts)


def causes(study: Study) -> Table:
    """Stages of a query of the paper's pipeline under each variation."""

    def row(part: pd.DataFrame) -> dict[str, Any]:
        deferred, free, threads, workers = part[_VARIATION].iloc[0]
        spreads = {
            name: spread(part[column])
            for name, column in (
                ("t_exec", "t_execute"),
                ("t_rec", "t_reconstruct"),
                ("share", "share"),
            )
        }
        return {
            "variant": _variant(deferred, free, threads, workers),
            "simulator_threads": OWN_CHOICE if free else str(threads),
            "n": len(part),
            "t_part": part.t_partition.median(),
            "t_gen": part.t_generate.median(),
            **{name: found["value"] for name, found in spreads.items()},
            **{f"{n}_{end}": f[end] for n, f in spreads.items() for end in ("low", "high")},
            "spread": spreads["t_exec"]["spread"],
        }

    return Table(
        "causes",
        "Stages of a query of the paper's pipeline, one thing changed at a time",
        "causes",
        _rows(_variations(study), [*_BAR, *_VARIATION], row).drop(
            columns=["free", "threads"], errors="ignore"
        ),
        notes=(
            "Times are seconds, medians over n query records; share: T_rec/T_total within a "
            "record. …_low and …_high are the least and the greatest.",
        ),
    )


def changes(study: Study) -> Table:
    """Each variation of the paper's pipeline over the plain one, on queries of the same seeds.

    Plain is one thread of the simulator for each worker and measurements where they stand, on as
    many workers as the variation; a plain variation is compared with one worker.
    """
    rows = []
    for key, circuit in groups(_variations(study), _BAR):
        plain = circuit[~circuit.deferred & (circuit.threads == 1)]
        for (deferred, free, threads, workers), part in groups(circuit, _VARIATION):
            is_plain = not deferred and threads == 1
            base = plain[plain.workers == (1 if is_plain else workers)]
            if is_plain and workers == 1:
                continue
            base, part = base[base.seed.isin(part.seed)], part[part.seed.isin(base.seed)]
            if not len(part):
                continue
            before, after = (side.median(numeric_only=True) for side in (base, part))
            fixed = before.t_reconstruct + before.t_partition + before.t_generate
            held = study.runs.threads_held[list(dict.fromkeys(part.run_id))].dropna()
            rows.append(
                {
                    **dict(zip(_BAR, key, strict=True)),
                    "change": "workers" if is_plain else "deferral" if deferred else "threads",
                    "variant": _variant(deferred, free, threads, workers),
                    "over": _variant(False, False, 1, int(base.workers.iloc[0])),
                    "threads_held": held.max() if len(held) else math.nan,
                    "n": len(part),
                    "t_exec_ratio": after.t_execute / before.t_execute,
                    "overlap": max(base.t_execute.min(), part.t_execute.min())
                    <= min(base.t_execute.max(), part.t_execute.max()),
                    "t_rec_ratio": after.t_reconstruct / before.t_reconstruct,
                    "share_before": before.share,
                    "share_after": after.share,
                    "share_if_divided": before.t_reconstruct / (fixed + before.t_execute / workers)
                    if is_plain
                    else math.nan,
                    "paper_share": PAPER_SHARES.get(key[2], (None, math.nan))[1],
                    **_sources(pd.concat([base, part])),
                }
            )
    return Table(
        "changes",
        "Each change to the paper's pipeline over the plain pipeline",
        "causes",
        pd.DataFrame(rows),
        notes=(
            "Ratios of medians, on queries of the same seeds; overlap: whether the ranges of "
            "T_exec overlap. threads_held: the most threads that the simulator could have.",
            "share_if_divided is extrapolated: the share if each worker had a processor of its own "
            "and T_exec of 1 worker were divided by their number.",
        ),
    )


# Beyond the paper


def policies(study: Study) -> Table:
    """Time of each policy with and without stragglers, over the bound that none can beat."""
    keys = ["experiment", *_BAR, "p"]
    parts: list[pd.DataFrame] = []
    alone: list[tuple[str, str]] = []
    for experiment in ("stragglers", "policies"):
        runs = study.done(experiment)
        runs = runs[runs.seconds.notna()]
        runs = runs.assign(p=runs.straggler_p.fillna(0.0), series=series(runs, _STRAGGLERS))
        clean, _ = _straggler_pairs(runs, 0.0)
        delayed = [_straggler_pairs(runs, p) for p in sorted(set(runs.p) - {0.0}) or [PAPER_P]]
        pairs, unmatched = _joined([(clean, []), *delayed], runs)
        pairs = pairs[pairs.base_seconds > 0]
        ratios = (pairs.seconds / pairs.base_seconds).groupby([pairs[key] for key in keys]).median()

        def row(part: pd.DataFrame, ratios: pd.Series[float] = ratios) -> dict[str, Any]:
            numbers = spread(part.seconds)
            bound = part.lower_bound.median() if part.lower_bound.notna().all() else math.nan
            key = tuple(part[keys].iloc[0])
            return {
                **numbers,
                "over_clean": ratios.get(key, math.nan),
                "lower_bound": bound,
                "over_bound": numbers["value"] / bound if bound else math.nan,
            }

        parts.append(_rows(runs, keys, row))
        alone += unmatched
    return Table(
        "policies",
        "Policies with and without injected stragglers",
        "stragglers and policies",
        pd.concat(parts, ignore_index=True),
        tuple(alone),
        (
            "value: median seconds of a training (stragglers) or of a query (policies).",
            "over_clean: median over runs of their time over that of the same run at p = 0, where "
            "there is one.",
            "lower_bound: expected seconds that no policy can beat, where the records hold them; "
            "value is a median, which may be below it by chance.",
        ),
    )


def differences(study: Study) -> Table:
    """Differences of accuracy and robustness to the uncut training of the same seed."""
    runs = study.done("training", "train")
    pairs, alone = paired(runs[runs.cuts == 0], runs[runs.cuts > 0], _CUTS, "uncut")
    pairs = pairs.assign(series=series(pairs, _CUTS))
    long = pd.concat(
        [
            pairs.assign(
                order=order, metric=metric, difference=pairs[column] - pairs[f"base_{column}"]
            )
            for order, (metric, column) in enumerate(
                (("test accuracy", "test_accuracy"), ("robustness", "robustness"))
            )
        ]
    )
    long = long[long.difference.notna()]

    def row(part: pd.DataFrame) -> dict[str, Any]:
        found = interval(part.difference)
        if found["n"] < 2:
            zero = "no interval: one seed only"
        elif math.isnan(found["low"]):
            zero = found["spread"]
        else:
            zero = "inside" if found["low"] <= 0 <= found["high"] else "outside"
        return {**found, "zero": zero}

    rows = _rows(long, [*_BAR, "order", "metric"], row).drop(columns="order", errors="ignore")
    return Table(
        "accuracy_differences",
        "RQ4, RQ5: accuracy with cuts less accuracy uncut",
        "training",
        rows,
        tuple(alone),
        (
            "Mean of paired differences with the 95 % interval of Student's t over seeds.",
            "Equal differences say nothing of their spread: there is no interval then.",
        ),
    )


def speed_ups(study: Study) -> Table:
    """Speed-up over one worker at every number of workers that was measured."""
    runs = study.done("scaling")
    counts = sorted(set(runs.workers.fillna(1)) - {1})
    pairs, _ = _joined([_worker_pairs(runs, int(count)) for count in counts], runs)
    ratios, _ = time_ratios(pairs, ("workers",), [])
    rows = _rows(ratios, ["workers", *_BAR], lambda part: spread(1 / part.ratio))
    return Table(
        "speed_ups",
        "Speed-up over one worker",
        "scaling",
        rows if rows.empty else rows.astype({"workers": int}),
        notes=("value: training time with 1 worker over that with `workers`, the median.",),
    )


def cost_model(study: Study) -> tuple[Table, dict[str, int]]:
    """How well the cost model predicts the study's own queries, each configuration held out.

    Returns:
        A row for each setup, and how much was left out by reason.
    """
    runs = study.runs[study.runs.status == "done"]
    data = CostData.of(study.queries.record)
    least = least_configurations(LEVEL)
    members: defaultdict[Setup, set[str]] = defaultdict(set)
    for run_id, record in zip(study.queries.run_id, study.queries.record, strict=True):
        if reason_left_out(record) is None:
            members[Setup.of(record)].add(run_id)
    rows = []
    for setup, configurations in data.configurations.items():
        if len(configurations) < least:
            continue
        held_out = leave_one_out(configurations)
        found = Validation.of(held_out)
        error = found.median_error
        rows.append(
            {
                "setup": one_line(str(setup)),
                "configurations": found.configurations,
                "n": sum(len(each.times) for each in configurations),
                "error_total": error["total"],
                "p90_error_total": found.p90_error["total"],
                "inside_interval": held_out.coverage(LEVEL),
                "outcome": "met" if error["total"] <= MOST_ERROR else "not met",
                **{f"error_{stage}": error[stage] for stage in error if stage != "total"},
                **_sources(runs[runs.run_id.isin(members[setup])]),
            }
        )
    few = sum(len(own) < least for own in data.configurations.values())
    left_out = {**data.left_out, **({"setups with too few configurations": few} if few else {})}
    table = Table(
        "cost_model",
        "Cost model: how far predictions are off",
        "all",
        pd.DataFrame(rows),
        notes=(
            "Every configuration is predicted by a fit that it was held out of (in parts where "
            f"there are more than {MOST_FOLDS}); others of the same circuit stay in the fit.",
            "error_…: median of |predicted / measured - 1| over configurations; measured is the "
            "median of a configuration's records.",
            f"inside_interval: share of records inside the {100 * LEVEL:.0f} % interval for "
            "T_total, whose width comes from the other configurations.",
            f"Bar: error_total at most {MOST_ERROR:g}.",
        ),
    )
    return table, left_out


# Numbers with a bar


def headlines(study: Study, tables: Mapping[str, Table]) -> pd.DataFrame:
    """One row for each question, data set and number of cuts that has a bar."""
    found = [
        *_cutting_cost(study),
        *_share_lines(tables["table1_reconstruction_share"].rows),
        *_difference_lines(tables["accuracy_differences"].rows),
    ]
    found.sort(key=lambda line: (line["question"], line["dataset"], line["cuts"]))
    columns = ("question", "what", *_BAR, "value", "low", "high", "n", "spread")
    return pd.DataFrame(found, columns=[*columns, "bar", "outcome", "paper"])


def _line(what: Mapping[str, str], row: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None, "n": 0, "spread": "", "paper": ""}
    return {**empty, **what, "outcome": NOT_MEASURED, **{k: row[k] for k in _BAR}, **more}


def _what(question: str, what: str, bar: str) -> dict[str, str]:
    return {"question": question, "what": what, "bar": bar}


def _cutting_cost(study: Study) -> Iterator[dict[str, Any]]:
    runs = study.done("training", "train", "contracted")
    pairs, _ = paired(runs[runs.cuts == 0], runs[runs.cuts == 3], _CUTS, "uncut")
    ratios, _ = time_ratios(pairs, _CUTS, [])
    what = _what("RQ1", "training time at 3 cuts / uncut", f"at most {MOST_RATIO:g}")
    paper = {"paper": "increases sharply"}
    for key, part in groups(ratios, _BAR):
        numbers = spread(part.ratio)
        outcome = _outcome(numbers["value"], MOST_RATIO)
        yield _line(what, dict(zip(_BAR, key, strict=True)), **numbers, outcome=outcome, **paper)
    for row in _not_measured(ratios, (3,)):
        yield _line(what, row, **paper)


def _share_lines(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    what = _what("RQ2", "median T_rec/T_total", f"at most {MOST_SHARE:g}")
    mine = _ours(rows)
    for row in mine.to_dict("records"):
        yield _line(
            what,
            row,
            **{"value": row["median_share"], "high": row["p95_share"], "n": row["n"]},
            spread="high is the 95th percentile",
            outcome=_outcome(row["median_share"], MOST_SHARE),
            paper=f"{row['paper_median_share']:.3f}",
        )
    for row in _not_measured(mine, (1, 2, 3)):
        yield _line(what, row)


def _difference_lines(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for question, metric in (("RQ4", "test accuracy"), ("RQ5", "robustness")):
        bar = "0 inside the 95 % interval, or reported as found"
        what = _what(question, f"{metric}, difference to uncut", bar)
        mine = _ours(rows)
        mine = mine if mine.empty else mine[mine.metric == metric]
        for row in mine.to_dict("records"):
            has_interval = row["zero"] in ("inside", "outside")
            numbers = {name: row[name] for name in ("value", "low", "high", "n", "spread")}
            outcome = f"0 is {row['zero']} the interval" if has_interval else row["zero"]
            yield _line(what, row, **numbers, outcome=outcome)
        for row in _not_measured(mine, (1, 2, 3)):
            yield _line(what, row)


def _ours(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of this package's pipeline with 1 to 3 cuts."""
    if rows.empty:
        return rows
    return rows[rows.series.str.startswith(SERIES["contracted"]) & rows.cuts.isin((1, 2, 3))]


def _not_measured(rows: pd.DataFrame, cuts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The paper's data sets and numbers of cuts that no row is about; widths have a suffix."""
    known = (
        set()
        if rows.empty
        else {(d.split("_")[0], c) for d, c in zip(rows.dataset, rows.cuts, strict=True)}
    )
    for dataset in DATASETS:
        for count in cuts:
            if (dataset, count) not in known:
                yield {"dataset": dataset, "series": SERIES["contracted"], "cuts": count}


def _outcome(value: float, most: float) -> str:
    return "met" if value <= most else "not met"
