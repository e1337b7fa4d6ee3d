"""Time and memory against the number of cuts, on a chain of two-qubit fragments.

``python -m benchmarks.cuts [--json] [--quick]``

k cuts join k + 1 fragments: 59 cuts are a circuit of 120 qubits. The observable is Z on every
qubit, which every fragment and every cut can reach, and the angles are small enough for its value
to stay well away from zero, so that agreement says something. Every value is held against the same
chain not cut, on Aer's matrix product state (exact here: one CX a bond), against another placement
of as many cuts, and, where the circuit is narrow enough, against Qiskit's `Statevector`.

Memory is that of a fresh process that does one query: the most it held (resident, with Python,
Qiskit and Aer in it), and the most that was allocated through Python during plan and query.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from qiskit_aer.primitives import EstimatorV2

from benchmarks._harness import (
    Contestant,
    Timing,
    in_child,
    peak_memory,
    progress,
    slope,
    take_turns,
)
from benchmarks._report import Bar, Figure, Report, compare, parser, run
from benchmarks._workload import Floats, Outcome, Workload, block_labels, workload
from distributed_estimator import DistributedEstimator, EstimatorOptions

CUTS = (1, 2, 4, 8, 16, 29, 43, 59)
QUICK_CUTS = (1, 2, 3)
SLOPE_FROM = 8
STATEVECTOR_UP_TO = 8
TOLERANCE = 1e-10
STAGES = ("t_partition", "t_generate", "t_execute", "t_reconstruct", "t_total")
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes one query took in a process of its own.

    Attributes:
        imported: Most held before the query: Python, NumPy, Qiskit.
        resident: Most held by the end of it.
        allocated: Most allocated through Python while a plan was built and used.
    """

    imported: int
    resident: int
    allocated: int


def ours_name(cuts: int) -> str:
    """Ours, with its plan at hand."""
    return f"ours, {cuts} cuts, exact"


def cold_name(cuts: int) -> str:
    """Ours, from nothing."""
    return f"ours, {cuts} cuts, exact, plan built in the query"


def uncut_name(cuts: int) -> str:
    """The counterpart on the circuit that `cuts` cuts would cut."""
    return f"not cut, Aer EstimatorV2, matrix product state, {2 * (cuts + 1)} qubits"


def chain(cuts: int) -> Workload:
    """One query on two qubits a fragment."""
    return workload(2 * (cuts + 1), queries=1, scale=0.1)


def estimator(labels: Sequence[int]) -> DistributedEstimator:
    """Ours, on one worker: an exact query is one task a fragment at most."""
    options = EstimatorOptions(default_precision=0, seed=7)
    return DistributedEstimator(cuts=labels, workers=1, options=options)


def query(ours: DistributedEstimator, load: Workload) -> Outcome:
    """One exact query."""
    pub = (load.circuit, load.observable, load.bindings)
    result = ours.run([pub], precision=0).result()[0]
    metadata = result.metadata
    return Outcome(result.data.evs, {name: float(metadata[name]) for name in STAGES})


def uncut_call(load: Workload) -> Callable[[], Outcome]:
    """The query on Aer's matrix product states, not cut."""
    backend = {"max_parallel_threads": 1, "method": "matrix_product_state"}
    aer = EstimatorV2(options={"backend_options": backend})
    pub = (load.circuit, load.observable, load.bindings)
    return lambda: Outcome(aer.run([pub], precision=0).result()[0].data.evs)


def _contestants(cuts: int) -> list[Contestant]:
    load = chain(cuts)
    labels = block_labels(load.num_qubits, cuts)
    kept = estimator(labels)
    return [
        Contestant(ours_name(cuts), lambda: query(kept, load)),
        Contestant(cold_name(cuts), lambda: query(estimator(labels), load)),
        Contestant(uncut_name(cuts), uncut_call(load)),
    ]


def _other_placement(cuts: int) -> Floats:
    """The value with the cuts one qubit further: a fragment of one, then of two, then of one."""
    load = chain(cuts)
    labels = [(qubit + 1) // 2 for qubit in range(load.num_qubits)]
    return query(estimator(labels), load).values


def _check(cuts: int, timings: Mapping[str, Timing]) -> float:
    """The largest relative distance of ours from what it is held against."""
    value = timings[ours_name(cuts)].values
    held_against = [timings[uncut_name(cuts)].values, _other_placement(cuts)]
    if cuts <= STATEVECTOR_UP_TO:
        held_against.append(chain(cuts).exact())
    error = max(float(np.abs(value / other - 1).max()) for other in held_against)
    if not error <= TOLERANCE:
        raise RuntimeError(f"{cuts} cuts: relative error {error}, expected at most {TOLERANCE}")
    return error


def memory_of(cuts: int) -> Memory:
    """Measure one query in this process; meant for a fresh one."""
    load = chain(cuts)
    labels = block_labels(load.num_qubits, cuts)
    imported = peak_memory()
    query(estimator(labels), load)
    resident = peak_memory()
    tracemalloc.start()
    query(estimator(labels), load)
    _, allocated = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Memory(imported, resident, allocated)


def _memory_figures(cuts: int, memory: Memory) -> list[Figure]:
    case = {"cuts": cuts}
    peak = "peak memory of the process"
    bars = (Bar(f"{peak}, GiB", memory.resident / GIB, "<=", 1.0),) if cuts == CUTS[-1] else ()
    return [
        Figure(case, peak, memory.resident, "bytes", bars),
        Figure(case, "peak memory before the query", memory.imported, "bytes"),
        Figure(case, "peak allocated by plan and query", memory.allocated, "bytes"),
    ]


def _slope_figure(what: str, by_cuts: Mapping[int, float], target: float | None) -> Figure:
    """The log-log slope over the longer chains, or over all of them in a smoke run."""
    kept = {k: y for k, y in by_cuts.items() if k >= SLOPE_FROM} or dict(by_cuts)
    value = slope(list(kept), list(kept.values()))
    name = f"log-log slope of {what}, {min(kept)} to {max(kept)} cuts"
    judged = target is not None and min(kept) == SLOPE_FROM
    bars = (Bar(name, value, "<=", target),) if judged and target is not None else ()
    return Figure({"cuts": max(kept)}, name, value, "", bars)


def _add_case(report: Report, cuts: int, timings: Mapping[str, Timing]) -> None:
    case = {"cuts": cuts, "qubits": 2 * (cuts + 1)}
    uncut = timings[uncut_name(cuts)]
    error = _check(cuts, timings)
    for name in (ours_name(cuts), cold_name(cuts)):
        report.rows.append(compare(case, timings[name], uncut, uncut.values))
    plan = timings[cold_name(cuts)].stages["t_partition"]
    report.figures.append(Figure(case, "time to build the plan", plan, "s"))
    report.figures.append(Figure(case, "largest relative error", error, ""))


def measure(arguments: argparse.Namespace) -> Report:
    """Time every chain in turns, then its memory in a fresh process each."""
    all_cuts = QUICK_CUTS if arguments.quick else CUTS
    report = Report("cuts", {"quick": arguments.quick, "cuts": list(all_cuts), "workers": 1})
    repeats, allowance = (2, 0.05) if arguments.quick else (30, 1.0)
    progress(f"time with {', '.join(map(str, all_cuts))} cuts")
    contestants = [contestant for cuts in all_cuts for contestant in _contestants(cuts)]
    timings = take_turns(contestants, repeats, allowance)
    memories = {}
    for cuts in all_cuts:
        _add_case(report, cuts, timings)
        progress(f"memory with {cuts} cuts")
        memories[cuts] = in_child(memory_of, cuts)
        report.figures.extend(_memory_figures(cuts, memories[cuts]))
    seconds = {cuts: timings[ours_name(cuts)].seconds for cuts in all_cuts}
    plans = {cuts: timings[cold_name(cuts)].stages["t_partition"] for cuts in all_cuts}
    allocated = {cuts: float(memory.allocated) for cuts, memory in memories.items()}
    report.figures.append(_slope_figure("time, plan at hand", seconds, 1.2))
    report.figures.append(_slope_figure("time to build the plan", plans, None))
    report.figures.append(_slope_figure("memory allocated", allocated, None))
    return report


def main() -> None:
    """The command."""
    options = parser("cuts", "Time and memory against the number of cuts.")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
