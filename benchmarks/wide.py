"""The paper's model whole and cut: time and memory as it gets wider, up to 120 qubits.

``python -m benchmarks.wide [--json] [--quick] [--budget SECONDS]``

One exact value of a QNN (ZFeatureMap, RealAmplitudes with linear entanglement, Z on every qubit),
all on the local simulator and one thread: not cut, cut once, and cut into pieces of at most ten
qubits. Every width has a process of its own, where the contestants take turns. The whole is left
out where its time, twice as much with every qubit, would exceed what is left of --budget. From 26
qubits on, the local simulator takes matrix product states for it by itself.

Every value is held against the same circuit not cut on Aer's matrix product states, which are exact
here: one CX a bond. How time grows with ever more cuts of small fragments is in `benchmarks.cuts`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks._harness import (
    Budget,
    Contestant,
    Timing,
    in_child,
    peak_memory,
    progress,
    slope,
    take_turns,
)
from benchmarks._report import Bar, Figure, Report, Skipped, compare, distance, parser, run
from benchmarks._workload import block_labels, workload
from benchmarks.cuts import estimator, query, uncut_call
from distributed_estimator.errors import PlanTooLargeError

PIECE, NARROW = 10, 12
WIDTHS = (12, 16, 20, 24, 26, 28, 40, 60, 80, 100, 120)
QUICK_WIDTHS = (14, 40)
GROWTH_PER_QUBIT = 2.0
SLOW = 10.0  # seconds: timed once, without a warm-up
HELD = 24
"""The width at which one cut is held to its share of the whole."""
ONCE_UP_TO = 32
MOST_SHARE, MOST_ERROR = 0.02, 1e-8
SCALE = 0.1  # of the angles, so that the value of a wide circuit is not 0

WHOLE, ONCE = "whole", "cut once"
PIECES = f"cut into pieces of at most {PIECE}"
MPS = "not cut, Aer EstimatorV2, matrix product states"


def cuts_of(qubits: int) -> dict[str, int]:
    """Cuts of every way to run it."""
    return {WHOLE: 0, ONCE: 1, PIECES: -(-qubits // PIECE) - 1}


def ways(qubits: int) -> list[str]:
    """Frugal first, and only what differs: two pieces are one cut, very wide halves a whole."""
    return [ONCE] if qubits <= 2 * PIECE else [PIECES, ONCE] if qubits <= ONCE_UP_TO else [PIECES]


def _contestant(qubits: int, way: str, slow: bool = False) -> Contestant:
    load = workload(qubits, 1, SCALE)
    ours = estimator(block_labels(qubits, cuts_of(qubits)[way]))
    return Contestant(way, lambda: query(ours, load), slow)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one process found.

    Attributes:
        uncut: On matrix product states.
        ours: By way.
        memory: Most bytes held by the end of the first query of each way, beyond what narrow
            circuits had taken.
    """

    uncut: Timing
    ours: Mapping[str, Timing]
    memory: Mapping[str, int]


def _measured(qubits: int, whole: bool, slow: bool, quick: bool) -> Measured:
    """Memory, of the most frugal way first, then times in turns; all in this process."""
    for way in (WHOLE, ONCE):  # loads kernels and packages
        _contestant(NARROW, way).call()
    own = [_contestant(qubits, way) for way in ways(qubits)]
    own += [_contestant(qubits, WHOLE, slow)] if whole else []
    before, memory = peak_memory(), {}
    for contestant in own:
        contestant.call()
        memory[contestant.name] = peak_memory() - before
    uncut = Contestant(MPS, uncut_call(workload(qubits, 1, SCALE)))
    repeats, allowance = (2, 0.1) if quick else (15, 4.0)
    timings = take_turns([uncut, *own], repeats, allowance)
    return Measured(timings.pop(MPS), timings, memory)


def _add(report: Report, qubits: int, found: Measured) -> None:
    """Rows of times, and figures of memory; a time for a wrong value means nothing."""
    for way, timing in found.ours.items():
        error = distance(timing.values / found.uncut.values, np.ones(1))
        if error is None or error > MOST_ERROR:
            raise RuntimeError(f"{qubits} qubits, {way}: relative error {error}")
        case = {"qubits": qubits, "cuts": cuts_of(qubits)[way]}
        report.rows.append(compare(case, timing, found.uncut, found.uncut.values))
        report.figures.append(Figure(case, f"{way}: memory", found.memory[way], "bytes"))
    if not {WHOLE, ONCE} <= set(found.ours):
        return
    whole, once = found.ours[WHOLE], found.ours[ONCE]
    report.rows.append(compare({"qubits": qubits, "cuts": 1}, once, whole, found.uncut.values))
    shares = {"time": once.seconds / whole.seconds}
    if found.memory[WHOLE] > 0:
        shares["memory"] = found.memory[ONCE] / found.memory[WHOLE]
    for what, share in shares.items():
        name = f"cut once / whole, {what}"
        bars = (Bar(name, share, "<=", MOST_SHARE),) if qubits == HELD else ()
        report.figures.append(Figure({"qubits": qubits}, name, share, "", bars))


def measure(arguments: argparse.Namespace) -> Report:
    """Every width, from the narrowest."""
    quick = arguments.quick
    report = Report("wide", {"quick": quick, "piece": PIECE, "budget": arguments.budget})
    budget, last = Budget(arguments.budget), (NARROW, 0.01)
    pieces: dict[int, float] = {}
    for qubits in QUICK_WIDTHS if quick else WIDTHS:
        progress(f"{qubits} qubits")
        expected = last[1] * GROWTH_PER_QUBIT ** (qubits - last[0])
        # What no memory holds costs no time: the estimator says so at once.
        fits = 16 << qubits <= psutil.virtual_memory().total  # its amplitudes
        refusal = budget.refusal(expected) if fits else None
        rest = expected > SLOW, quick
        try:
            found = in_child(_measured, qubits, refusal is None, *rest)
        except PlanTooLargeError as error:
            refusal, found = str(error), in_child(_measured, qubits, False, *rest)
        if refusal is not None:
            report.skipped.append(Skipped({"qubits": qubits, "cuts": 0}, WHOLE, refusal))
        _add(report, qubits, found)
        if WHOLE in found.ours:
            last = qubits, found.ours[WHOLE].seconds
            budget.spend(2 * last[1])  # for its memory, and timed
        if PIECES in found.ours:
            pieces[qubits] = found.ours[PIECES].seconds
    if len(pieces) > 1:
        name = f"log-log slope of time in pieces, {min(pieces)} to {max(pieces)} qubits"
        value = slope(list(pieces), list(pieces.values()))
        report.figures.append(Figure({"qubits": max(pieces)}, name, value, ""))
    return report


def main() -> None:
    """The command."""
    options = parser("wide", "Time and memory of wide circuits, whole and cut.")
    options.add_argument(
        "--budget",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="seconds the whole circuits may take altogether (default: 300)",
    )
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
