"""What the variations of the paper's pipeline say: threads, mid-circuit measurement and shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from ...records import QueryRecord
from ..escape import one_line
from .cause_times import (
    SAME,
    overlap,
    time_ratio,
    times,
    told_counts,
    told_median,
    told_share,
    verdict,
)
from .causes import EXPERIMENT, Variation, matched, shares_of
from .groups import grouped, told_cuts
from .rows import EXTRAPOLATED, Reason
from .runs import Study
from .tables import PAPER_SHARES
from .words import counted, listed, number

_AER = "qiskit_aer."
"""How names of Aer's samplers begin in records."""


@dataclass(frozen=True)
class Processors:
    """What the records say of the machine that made them.

    Attributes:
        count: Usable processors; None: not known, or not one number.
        told: The same in words.
    """

    count: int | None
    told: str


def processors(study: Study) -> Processors:
    """Usable processors, from the headers of the records."""
    threads = [environment.get("threads") or {} for environment in study.environments]
    counts = sorted({str(one.get("usable_cpus") or "not known") for one in threads})
    only = counts[0] if len(counts) == 1 else ""
    count = int(only) if only.isascii() and only.isdigit() and len(only) < 6 else None
    told = "usable processors: " + one_line(" or ".join(counts) or "not known", 60)
    return Processors(count, told if count is None else counted(count, "usable processor"))


def threads(found: Sequence[Variation], machine: Processors) -> Iterator[Reason]:
    """T_exec with as many threads as the simulator likes, against one for each worker."""
    for members in _circuits(found):
        both = _pair([one for one in members if not one.deferred and one.threads in (1, None)])
        if both is None:
            continue
        limited, free = matched(*both)
        if not limited:
            continue
        text = (
            f"Thread oversubscription ({_place(both[0])}, {counted(both[0].workers, 'worker')}, "
            f"{machine.told}): T_exec of a query of the paper's pipeline is "
            f"{told_median(free)} s where the simulator chooses its own number of threads"
            f"{_most_threads(both[1])}, and "
            f"{told_median(limited)} s with one thread for each worker: {verdict(free, limited)} "
            f"({told_counts(free, limited)})."
        )
        if _held(both[1]) == [1]:
            text += (
                " The simulator could have no more than 1 thread there, either: what it does with "
                "more is not measured."
            )
        elif time_ratio(free, limited) < 1 - SAME and not overlap(free, limited):
            text += (
                " More threads are faster here, so oversubscription is no cause of the difference."
            )
        yield Reason(text, table=EXPERIMENT)


def _held(one: Variation) -> list[float]:
    """Threads that the simulator could have in its runs, where these tell."""
    found = {run.number("simulator_threads") for run in one.runs}
    return sorted(threads for threads in found if threads is not None)


def _most_threads(one: Variation) -> str:
    held = _held(one)
    return f" (at most {listed([number(threads) for threads in held])})" if held else ""


def _pair(members: Sequence[Variation]) -> tuple[Variation, Variation] | None:
    """One thread and the simulator's own choice, at the most workers that both were run on."""
    by_place = {(one.workers, one.threads): one for one in members}
    workers = [count for count, of in by_place if of is None and (count, 1) in by_place]
    if not workers:
        return None
    return by_place[max(workers), 1], by_place[max(workers), None]


def deferral(found: Sequence[Variation]) -> Iterator[Reason]:
    """T_exec and the share with measurements inside circuits, against the same at their end."""
    for members in _circuits(found):
        plain = {one.workers: one for one in members if not one.deferred and one.threads == 1}
        for one in members:
            if one.deferred and one.threads == 1 and one.workers in plain:
                base = plain[one.workers]
                during, deferred = matched(base, one)
                if shares_of(during) and shares_of(deferred):
                    others = [each for each in members if each not in (base, one)]
                    text = _deferred(one, during, deferred) + _against_others(one, base, others)
                    yield Reason(text, table=EXPERIMENT)


def _deferred(
    one: Variation, during: Sequence[QueryRecord], deferred: Sequence[QueryRecord]
) -> str:
    return (
        f"Mid-circuit measurement ({_place(one)}, {counted(one.workers, 'worker')}): T_exec of a "
        f"query of the paper's pipeline is {told_median(during)} s with measurements inside "
        f"circuits, which are simulated shot by shot, and {told_median(deferred)} s with the same "
        f"ones deferred to the end of circuits: {verdict(during, deferred)} "
        f"({told_counts(during, deferred)}). "
        "Deferred, all circuits of a query go to the sampler in one call, so what separate calls "
        f"take is part of the difference. T_rec/T_total is {told_share(during)}, and deferred "
        f"{told_share(deferred)}.{_stated(one.cuts)} {_conclusion(during, deferred)}"
    )


def _conclusion(during: Sequence[QueryRecord], deferred: Sequence[QueryRecord]) -> str:
    """What the share depends on, if its change is more than chance and is that of T_exec."""
    part, gen, execute, rebuilt = _stages(during)
    faster = median(times(deferred))
    if faster >= (1 - SAME) * execute:
        return "T_exec is not shorter with that, so nothing follows for the share."
    if median(shares_of(deferred)) <= (1 + SAME) * median(shares_of(during)):
        return "So the share does not rise here where these circuits are faster."
    alone = rebuilt / (part + gen + faster + rebuilt) if rebuilt > 0 else 0.0
    told = ""
    if abs(time_ratio(deferred, during, "t_reconstruct") - 1) > SAME:
        told = (
            f"T_rec is {told_median(during, 't_reconstruct')} s, and deferred "
            f"{told_median(deferred, 't_reconstruct')} s; with all but T_exec as it was, the "
            f"medians would make a share of {number(alone)}. "
        )
    if min(shares_of(deferred)) <= max(shares_of(during)):
        return told + "The ranges of the shares overlap: what they depend on is not settled here."
    return told + "So the share depends on how long executing these circuits takes."


def _against_others(one: Variation, base: Variation, others: Sequence[Variation]) -> str:
    """Whether another change moves the share further, of the changes that were measured."""
    moved = []
    for other in others:
        records = matched(base, one, other)
        if all(map(shares_of, records)):
            before, deferred, after = (median(shares_of(own)) for own in records)
            moved.append((abs(after - before), abs(deferred - before), other.told, number(after)))
    if not moved:
        return ""
    told = "; ".join(f"{name}: {after}" for _, _, name, after in moved)
    if all(far < deferred for far, deferred, _, _ in moved):
        return f" No other change that was measured moves it as far ({told})."
    return f" Another change that was measured moves it as far or further ({told})."


def share(found: Sequence[Variation], machine: Processors) -> Iterator[Reason]:
    """How the share of reconstruction depends on the number of workers."""
    for members in _circuits(found):
        plain = sorted(
            (one for one in members if not one.deferred and one.threads == 1),
            key=lambda one: one.workers,
        )
        if len(plain) < 2 or plain[0].workers != 1:
            continue
        records = matched(*plain)
        if not all(map(shares_of, records)):
            continue
        best = min(range(1, len(plain)), key=lambda place: median(times(records[place])))
        shrinks, told = _trend(plain[best].workers, records[0], records[best])
        yield Reason(_measured_shares(plain, records, machine, told), table=EXPERIMENT)
        workers = plain[-1].workers
        enough = machine.count is not None and machine.count >= workers
        if shrinks and not enough and not _serial([record for own in records for record in own]):
            yield _extrapolated_share(plain[0], records[0], workers)


def _measured_shares(
    plain: Sequence[Variation],
    records: Sequence[Sequence[QueryRecord]],
    machine: Processors,
    told: str,
) -> str:
    workers = listed([str(one.workers) for one in plain])
    counts = listed([str(len(own)) for own in records])
    execute = listed([told_median(own) for own in records])
    rebuilt = listed([told_median(own, "t_reconstruct") for own in records])
    return (
        f"Share of reconstruction ({_place(plain[0])}, {machine.told}): with {workers} workers, "
        f"T_exec of a query of the paper's pipeline is {execute} s, T_rec {rebuilt} s, and "
        f"T_rec/T_total {listed([told_share(own) for own in records])} (medians of n = {counts}). "
        f"{told}{_stated(plain[0].cuts)}"
    )


def _trend(
    workers: int, one: Sequence[QueryRecord], more: Sequence[QueryRecord]
) -> tuple[bool, str]:
    """Whether more workers shorten T_exec and not T_rec, and that in words."""
    execute, rebuild = (time_ratio(more, one, name) for name in ("t_execute", "t_reconstruct"))
    unknown = "what more processors would do to the share is not measured."
    if execute >= 1 - SAME:
        return False, (
            f"More workers do not help here: at best, T_exec is {number(execute)} times that of 1 "
            f"worker, with {counted(workers, 'worker')}{_serial([*one, *more])}. "
            f"{unknown.capitalize()}"
        )
    told = f"From 1 worker to {workers},"
    if rebuild < 1 - SAME:
        both = f"T_exec to {number(execute)} of it, T_rec to {number(rebuild)}"
        return False, f"{told} both shrink here ({both}), so {unknown}"
    return True, (
        f"{told} T_exec shrinks to {number(execute)} of it, and T_rec, serial Python, does not "
        f"({number(rebuild)}): the share depends on how many workers there are"
        f"{_serial([*one, *more])}."
    )


def _serial(records: Sequence[QueryRecord]) -> str:
    """Why simulations for several workers do not overlap, where the sampler is Aer's."""
    if not all(record.backend.startswith(_AER) for record in records):
        return ""
    # `qiskit_aer.jobs.utils.DEFAULT_EXECUTOR` has one thread, and `AerJob` takes no other here.
    return ". Aer runs all jobs of a process one after another, on the one thread of its executor"


def _extrapolated_share(plain: Variation, records: Sequence[QueryRecord], workers: int) -> Reason:
    part, gen, execute, rebuilt = _stages(records)
    found = rebuilt / (rebuilt + part + gen + execute / workers)
    return Reason(
        f"Extrapolated, not measured ({_place(plain)}): if each of {workers} workers had a "
        f"processor of its own, and T_exec of 1 worker shrank to 1/{workers}, the share "
        f"T_rec / (T_rec + T_part + T_gen + T_exec / {workers}) would be {number(found)}, from "
        f"medians of n = {len(records)} with 1 worker."
        f"{_stated(plain.cuts)}",
        EXTRAPOLATED,
        EXPERIMENT,
    )


def _stages(records: Sequence[QueryRecord]) -> list[float]:
    """Median seconds of each stage."""
    names = ("t_partition", "t_generate", "t_execute", "t_reconstruct")
    return [median(times(records, name)) for name in names]


def _stated(cuts: int) -> str:
    if cuts not in PAPER_SHARES:
        return ""
    n, stated, _ = PAPER_SHARES[cuts]
    return f" The paper's Table I states {stated:.3f} with {told_cuts(cuts)} (n = {n})."


def _circuits(found: Sequence[Variation]) -> list[list[Variation]]:
    """Variations by what is run."""
    groups = grouped(found, lambda one: (one.dataset, one.series, one.cuts))
    return list(groups.values())


def _place(one: Variation) -> str:
    # Behind the pipeline's name is what sets this series apart from others.
    more = [one_line(part, 80) for part in one.series.split(", ")[1:]]
    return ", ".join([one_line(one.dataset, 80), told_cuts(one.cuts), *more])
