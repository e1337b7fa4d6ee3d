"""What a study is not: runs that failed or are missing, and how it departs from the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .groups import Unmatched, grouped, told_cuts
from .rows import EXTRAPOLATED, MEASURED, Chart, Reason
from .runs import Run, Study
from .words import counted

EXPERIMENTS = {
    "training": "Fig. 4, 7 and 8, accuracy differences",
    "scaling": "Fig. 5, speed-ups",
    "shares": "Table I, stage shares, savings, extrapolation of the reference",
    "stragglers": "Fig. 6",
    "policies": "policies under stragglers",
    "fleet": "stages on a fleet",
    "causes": "what the explanation says of threads, mid-circuit measurements and shares",
}
"""Each experiment of the paper's study with what is made from it."""
_EPOCHS = {
    "training": {"iris": 60, "mnist": 10},
    "scaling": {"iris": 10, "mnist": 5},
    "stragglers": {"iris": 10, "mnist": 3},
}
_CUTS = (0, 1, 2, 3)
_WORKERS = (1, 2, 4, 8, 16)
_SHOTS = 1024


@dataclass(frozen=True)
class Deviation:
    """One way in which a study is less than the paper's protocol, or other than it.

    Attributes:
        kind: "failed", "unfinished", "missing", "no partner", "protocol", "extrapolated" or
            "not real".
        what: What it concerns: a run's id, or an experiment.
        told: The rest, for the reader.
    """

    kind: str
    what: str
    told: str


KINDS = {
    "failed": "Failed runs",
    "unfinished": "Unfinished runs",
    "missing": "Missing experiments",
    "protocol": "Departures from the paper's protocol",
    "extrapolated": "Extrapolated, not measured",
    "not real": "Simulated, on a fake backend, or with injected delays",
    "no partner": "Runs that no ratio or difference was made with",
}
"""Headings, in the order in which they are listed."""


def deviations(
    study: Study,
    charts: Sequence[Chart],
    told: Sequence[Reason],
    unmatched: Sequence[tuple[str, Unmatched]],
) -> tuple[Deviation, ...]:
    """Everything that a reader of the results must know, by kind.

    Args:
        study: The study.
        charts: Its figures.
        told: Sentences of its explanation.
        unmatched: Runs without a partner, each with the name of the table that lacks it.
    """
    return (
        *_unhappy(study),
        *_missing(study),
        *_departures(study),
        *_extrapolated(charts),
        *(
            Deviation("extrapolated", "explanation", r.text)
            for r in told
            if r.basis == EXTRAPOLATED
        ),
        *_not_real(study),
        *_alone(unmatched),
    )


def missing_experiments(study: Study) -> tuple[str, ...]:
    """Experiments of the paper's study, and of this one, without a finished run."""
    mine = study.config.get("experiments")
    names = dict.fromkeys([*EXPERIMENTS, *(mine if isinstance(mine, dict) else ())])
    return tuple(name for name in names if not study.done(name))


def _alone(unmatched: Sequence[tuple[str, Unmatched]]) -> Iterator[Deviation]:
    for (table, why), members in grouped(unmatched, lambda item: (item[0], item[1].why)).items():
        runs = sorted({alone.run_id for _, alone in members})
        yield Deviation("no partner", table, f"{why}: {', '.join(runs)}")


def _unhappy(study: Study) -> Iterator[Deviation]:
    for run in study.runs:
        if run.status == "failed":
            tries = counted(run.attempts, "attempt")
            yield Deviation("failed", run.run_id, f"{_told(run)}, {tries}: {run.cause}")
        elif run.status == "unfinished":
            yield Deviation("unfinished", run.run_id, _told(run))
    for run_id, why in study.damaged.items():
        yield Deviation("failed", run_id, f"left out, since {why}")
    for run_id in study.not_begun:
        yield Deviation("unfinished", run_id, "not begun")


def _missing(study: Study) -> Iterator[Deviation]:
    for name in missing_experiments(study):
        made = EXPERIMENTS.get(name, "its tables")
        yield Deviation("missing", name, f"no finished run, so without: {made}")


def _told(run: Run) -> str:
    config = run.config
    parts = [
        run.experiment,
        run.pipeline,
        run.dataset,
        told_cuts(run.cuts),
        f"seed {config['seed']}",
    ]
    parts += [counted(config["workers"], "worker")] if config.get("workers") is not None else []
    parts += [str(config["policy"])] if config.get("policy") is not None else []
    parts += [f"p = {config['straggler_p']}"] if config.get("straggler_p") else []
    return ", ".join(parts)


def _departures(study: Study) -> Iterator[Deviation]:
    if study.scale != "full":
        yield Deviation("protocol", "all", f"the scale is {study.scale}, a part of the full matrix")
    stated = study.config.get("deviations")
    for told in stated if isinstance(stated, list) else ():
        yield Deviation("protocol", "as the study states", str(told))
    groups = grouped(
        (run for run in study.runs if run.status == "done" and run.experiment in EXPERIMENTS),
        lambda run: (run.experiment, run.dataset),
    )
    for (experiment, dataset), runs in groups.items():
        for told in _of_group(experiment, dataset, runs):
            yield Deviation("protocol", f"{experiment}, {dataset}", told)


def _of_group(experiment: str, dataset: str, runs: Sequence[Run]) -> Iterator[str]:
    name = dataset.split("_")[0]
    budget = _EPOCHS.get(experiment, {}).get(name)
    stressed = experiment in ("stragglers", "policies")
    checks: dict[str, Sequence[Any] | None] = {
        "shots": (_SHOTS,),
        "epochs": None if budget is None else (budget,),
        "straggler_p": (0, 0.2) if stressed else (0, None),
        "straggler_delay": (0, 0.1, None) if stressed else None,
        "workers": (8,) if experiment == "stragglers" else None,
        "samples": (None,),
    }
    for key, allowed in checks.items():
        found = {
            str(run.config.get(key)) for run in runs if run.config.get(key) not in (allowed or ())
        }
        if allowed is not None and found:
            paper = " or ".join(str(value) for value in allowed if value is not None)
            told = f"the paper's is {paper}" if paper else "the paper names no limit"
            yield f"{key} is {', '.join(sorted(found))}; {told}"
    if experiment not in ("policies", "causes"):
        yield from _not_covered("cuts", _CUTS, {run.cuts for run in runs})
    if experiment == "scaling":
        yield from _not_covered("workers", _WORKERS, {run.config.get("workers") for run in runs})
    other = {str(run.config.get("backend")) for run in runs} - {"aer"}
    if other and experiment not in ("policies", "fleet"):
        yield f"the backend is {', '.join(sorted(other))}; the paper's is Aer's sampler"


def _not_covered(what: str, wanted: Sequence[int], found: set[Any]) -> Iterator[str]:
    without = [str(number) for number in wanted if number not in found]
    if without:
        yield f"no finished run with {what} = {', '.join(without)}"


def _extrapolated(charts: Sequence[Chart]) -> Iterator[Deviation]:
    for chart in charts:
        for bar in chart.bars:
            if bar.basis != MEASURED:
                told = (
                    f"{bar.dataset}, {bar.series}, {told_cuts(bar.cuts)}: from {bar.queries} "
                    f"measured {'query' if bar.queries == 1 else 'queries'}"
                )
                yield Deviation("extrapolated", chart.name, told)


def _not_real(study: Study) -> Iterator[Deviation]:
    done = [run for run in study.runs if run.status == "done"]
    for (experiment, origin), runs in grouped(
        done, lambda run: (run.experiment, run.origin)
    ).items():
        yield Deviation("not real", experiment, f"{origin}: {counted(len(runs), 'run')}")
    delayed = [run for run in done if run.config.get("straggler_p")]
    for (experiment, p), runs in grouped(
        delayed, lambda run: (run.experiment, float(run.config["straggler_p"]))
    ).items():
        yield Deviation(
            "not real", experiment, f"delays injected with p = {p:g}: {counted(len(runs), 'run')}"
        )
