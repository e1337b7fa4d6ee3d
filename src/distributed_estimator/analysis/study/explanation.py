"""Why the paper's numbers and ours differ; behind each sentence is a measurement of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..escape import one_line
from ..load import QueryTotals
from .cause_reasons import deferral, processors, share, threads
from .causes import variations
from .groups import grouped, told_cuts
from .headlines import NOT_MEASURED
from .rows import Reason, SavingRow, Sheet
from .runs import Run, Study
from .words import duration, listed, number

_PIPELINES = ("reference", "contracted")
Sides = Mapping[tuple[str, int, str], QueryTotals]
"""What the queries of experiment "shares" cost, by data set, cuts and pipeline."""


def reasons(study: Study, savings: Sheet) -> tuple[Reason, ...]:
    """Sentences with their numbers; where the study holds none, that they were not measured.

    Args:
        study: The study.
        savings: Its table of subexperiments and shots saved.

    Raises:
        RecordError: The records of a run are damaged.
    """
    sides, varied = _sides(study), variations(study)
    machine = processors(study)
    return (
        *_or_unmeasured(_repeated(savings.rows), "repeated subexperiments"),
        *_or_unmeasured(_loops(sides), "loops over shots in reconstruction"),
        *_or_unmeasured(_mid_circuit(sides), "mid-circuit measurements"),
        *_or_unmeasured(deferral(varied), "what deferred measurements take"),
        *(list(threads(varied, machine)) or _unmeasured_threads(study)),
        *_or_unmeasured(share(varied, machine), "shares of reconstruction by number of workers"),
        *_or_unmeasured(_batches(study), "queries of a training that are evaluated together"),
    )


def _or_unmeasured(found: Iterator[Reason], what: str) -> list[Reason]:
    told = f"Not measured here: {what}. The study holds no finished runs to compare."
    return list(found) or [Reason(told, NOT_MEASURED)]


def _sides(study: Study) -> Sides:
    groups = grouped(study.done("shares", "queries"), _side_of)
    sums = {key: sum((run.totals for run in runs), QueryTotals()) for key, runs in groups.items()}
    return {key: totals for key, totals in sums.items() if totals.queries}


def _side_of(run: Run) -> tuple[str, int, str]:
    return run.dataset, run.cuts, run.pipeline


def _repeated(rows: tuple[SavingRow, ...]) -> Iterator[Reason]:
    for dataset, members in grouped(rows, lambda row: row.dataset).items():
        row = max(members, key=lambda row: row.cuts)
        if row.cuts:
            yield Reason(
                f"Repeated subexperiments ({one_line(dataset)}, {told_cuts(row.cuts)}): the "
                "paper's pipeline runs a fragment anew for every term of the decomposition, "
                f"{number(row.paper_subexperiments)} subexperiments a query; ours runs each "
                f"distinct one once, {number(row.our_subexperiments)}: "
                f"{number(row.fewer_subexperiments)} times fewer, with "
                f"{number(row.fewer_shots)} times fewer shots.",
                table="savings",
            )


def _loops(sides: Sides) -> Iterator[Reason]:
    for dataset, cuts in _most_cuts(sides):
        theirs, ours = (sides[dataset, cuts, name] for name in _PIPELINES)
        if theirs.shots and ours.shots:
            seconds = [1e6 * side.t_reconstruct / side.shots for side in (theirs, ours)]
            yield Reason(
                f"Loops over shots ({one_line(dataset)}, {told_cuts(cuts)}): the paper's pipeline "
                "reconstructs in Python, shot by shot and term by term. That took "
                f"{duration(theirs.t_reconstruct / theirs.queries)} of a query, "
                f"{number(seconds[0])} µs a shot; ours contracts the means that workers send, "
                f"{duration(ours.t_reconstruct / ours.queries)} of a query, "
                f"{number(seconds[1])} µs a shot (all are means).",
                table="stage_shares",
            )


def _most_cuts(sides: Sides) -> Iterator[tuple[str, int]]:
    """Of each data set, the most cuts that both pipelines were measured at."""
    places = {(dataset, cuts) for dataset, cuts, _ in sides if cuts}
    both = [key for key in places if all((*key, name) in sides for name in _PIPELINES)]
    for dataset, members in grouped(both, lambda key: key[0]).items():
        yield dataset, max(cuts for _, cuts in members)


def _mid_circuit(sides: Sides) -> Iterator[Reason]:
    cut = [key for key in sides if key[1] and key[2] == "reference" and sides[key].subexperiments]
    for dataset, members in grouped(cut, lambda key: key[0]).items():
        uncut = sides.get((dataset, 0, "reference"))
        cuts = max(cuts for _, cuts, _ in members)
        if uncut and uncut.subexperiments:
            before, after = _of_one(uncut), _of_one(sides[dataset, cuts, "reference"])
            yield Reason(
                f"Mid-circuit measurement ({one_line(dataset)}): circuits that are not cut have "
                f"none, and T_exec of the paper's pipeline is {number(before)} ms for one circuit; "
                f"with {told_cuts(cuts)} some subexperiments have such measurements and are "
                f"simulated shot by shot, and T_exec is {number(after)} ms for each: the mean over "
                "those with and without them, which the records do not tell apart. All of these "
                "are on fewer qubits.",
                table="stage_shares",
            )


def _of_one(totals: QueryTotals) -> float:
    """Milliseconds of execution for each subexperiment."""
    return 1e3 * totals.t_execute / totals.subexperiments


def _unmeasured_threads(study: Study) -> list[Reason]:
    limits = sorted({_limit(environment) for environment in study.environments})
    workers = [run.config.get("workers") or 1 for run in study.runs if run.status == "done"]
    if not limits or not workers:
        return [Reason("Not measured here: threads of simulators and workers.", NOT_MEASURED)]
    told = (
        f"Thread oversubscription is not measured here: all records were made with "
        f"{one_line('; '.join(limits))}, on up to {max(workers)} workers, and there are no matched "
        "runs that differ in these limits."
    )
    return [Reason(told, NOT_MEASURED)]


def _limit(environment: Mapping[str, Any]) -> str:
    threads = environment.get("threads") or {}
    told = [f"{name} = {value or 'not set'}" for name, value in sorted(threads.items())]
    return ", ".join(told) or "thread limits that are not known"


def _batches(study: Study) -> Iterator[Reason]:
    runs = [run for run in study.done("training", "train") if run.pipeline == "contracted"]
    for dataset, members in grouped(runs, lambda run: run.dataset).items():
        cut = [run for run in members if run.cuts]
        totals = sum((run.totals for run in cut), QueryTotals())
        if totals.records and totals.queries:
            yield Reason(
                f"Queries evaluated together ({one_line(dataset)}): a training with cuts asks "
                f"{number(totals.queries / totals.records)} queries at a time, which share plan, "
                f"circuits and contraction; a query takes "
                f"{number(1e3 * totals.seconds / totals.queries)} ms of the estimator's time "
                f"(on {_backends(cut)}; both are means)."
            )


def _backends(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in run.backends})
    return listed([one_line(name, 60) for name in names])
