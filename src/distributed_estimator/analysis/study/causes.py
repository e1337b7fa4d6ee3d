"""What a query of the paper's pipeline takes when one thing at a time is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from ...records import QueryRecord
from .groups import Spread, grouped, median_range, run_ids, series_names, told_origin
from .rows import CauseRow, Sheet
from .runs import Run, Study
from .words import counted

EXPERIMENT = "causes"
CHANGED = ("workers", "simulator_threads", "defer_measurements")
"""What its runs differ in."""
OWN_CHOICE = "the simulator's own choice"


@dataclass(frozen=True)
class Variation:
    """Runs that differ in nothing but their seeds.

    Attributes:
        dataset: The workload.
        series: Whatever else is known of them, but cuts.
        cuts: How many.
        workers: Subexperiments that are executed at a time.
        threads: Of the simulator for each of them; None: its own choice.
        deferred: Whether measurements inside circuits are moved to their end.
        runs: The runs.
    """

    dataset: str
    series: str
    cuts: int
    workers: int
    threads: int | None
    deferred: bool
    runs: tuple[Run, ...]

    @property
    def told(self) -> str:
        """What sets it apart, in words."""
        parts = [counted(self.workers, "worker")]
        if self.threads is None:
            parts.append(f"{OWN_CHOICE} of threads")
        elif self.threads > 1:
            parts.append(f"{self.threads} threads each")
        parts += ["measurements deferred"] if self.deferred else []
        return ", ".join(parts)

    @cached_property
    def by_seed(self) -> Mapping[int | None, list[QueryRecord]]:
        """Its query records."""
        groups = grouped(self.runs, lambda run: str(run.config["seed"]))
        return {
            members[0].config["seed"]: [record for run in members for record in run.queries()]
            for members in groups.values()
        }

    @property
    def records(self) -> list[QueryRecord]:
        """All of them."""
        return [record for own in self.by_seed.values() for record in own]


def variations(study: Study) -> tuple[Variation, ...]:
    """Every variation that was run, those of one circuit behind each other.

    Raises:
        RecordError: The records of a run are damaged.
    """
    runs = [
        run
        for run in study.done(EXPERIMENT, "queries")
        if run.totals.records and run.pipeline == "reference"
    ]
    names = series_names(runs, CHANGED)
    groups = grouped(runs, lambda run: (run.dataset, names[run.run_id], run.cuts, *_changed(run)))
    return tuple(
        Variation(
            dataset,
            series,
            cuts,
            workers,
            threads=None if free else threads,
            deferred=deferred,
            runs=tuple(members),
        )
        for (dataset, series, cuts, deferred, free, threads, workers), members in groups.items()
    )


def _changed(run: Run) -> tuple[bool, bool, int, int]:
    """Deferred, whether the simulator chooses its threads, these threads (0), and workers."""
    config = run.config
    threads = config.get("simulator_threads", 1)
    deferred = bool(config.get("defer_measurements"))
    return deferred, threads is None, threads or 0, config.get("workers") or 1


def matched(*some: Variation) -> list[list[QueryRecord]]:
    """Query records of each, of the seeds that all of them have."""
    seeds = [seed for seed in some[0].by_seed if all(seed in other.by_seed for other in some)]
    return [[record for seed in seeds for record in one.by_seed[seed]] for one in some]


def shares_of(records: Sequence[QueryRecord]) -> list[float]:
    """T_rec / T_total of each."""
    return [record.t_reconstruct / record.t_total for record in records if record.t_total > 0]


def causes(study: Study) -> Sheet:
    """Stages of a query of the paper's pipeline under each variation.

    Raises:
        RecordError: The records of a run are damaged.
    """
    return Sheet(
        EXPERIMENT,
        "Stages of a query of the paper's pipeline, one thing changed at a time",
        EXPERIMENT,
        tuple(row for one in variations(study) if (row := _row(one)) is not None),
        notes=(
            "Times are seconds, medians over n query records; share: T_rec/T_total within a "
            "record. …_low and …_high are the least and the greatest.",
        ),
    )


def _row(one: Variation) -> CauseRow | None:
    records = one.records
    shares = shares_of(records)
    if not shares:
        return None
    execute = median_range([record.t_execute for record in records])
    rebuilt = median_range([record.t_reconstruct for record in records])
    return CauseRow(
        dataset=one.dataset,
        series=one.series,
        cuts=one.cuts,
        variant=one.told,
        workers=one.workers,
        simulator_threads=OWN_CHOICE if one.threads is None else str(one.threads),
        deferred=one.deferred,
        n=len(records),
        t_part=median(record.t_partition for record in records),
        t_gen=median(record.t_generate for record in records),
        **_ends("t_exec", execute),
        **_ends("t_rec", rebuilt),
        **_ends("share", median_range(shares)),
        spread=execute.spread,
        origin=told_origin(one.runs),
        runs=run_ids(one.runs),
    )


def _ends(name: str, spread: Spread) -> dict[str, float]:
    return {name: spread.value, f"{name}_low": spread.low, f"{name}_high": spread.high}
