"""Wide fragments on the local simulator: against Qulacs and Aer, and with gradients.

``python -m benchmarks.fragment [--json] [--quick] [--part PART]``

simulators: one exact value of the workload's circuit, not cut, on one thread, and two values on
two: ours has a worker for each, the others two threads. gradient: all derivatives of RealAmplitudes
against its value. start: the first value of a process, when nothing is compiled yet and when an
earlier process has done it. Cut and whole are compared by ``benchmarks.wide``.

Every case runs in processes of its own, as Qulacs reads `OMP_NUM_THREADS` when it is loaded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp

from benchmarks import _qulacs
from benchmarks._harness import Contestant, Timing, in_child, progress, take_turns
from benchmarks._report import Bar, Figure, Report, Skipped, compare, distance, parser, run
from benchmarks._workload import Outcome, workload
from distributed_estimator import DistributedEstimator
from distributed_estimator.gradient import FragmentGradient

OURS, QULACS, AER = "ours, statevector, exact", "Qulacs", "Aer EstimatorV2, exact"
HELD = range(16, 23)
"""Widths at which the bar holds."""


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables for child processes."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- simulators -----------------------------------------------------------------------------------


def _simulators(qubits: int, threads: int, repeats: int, allowance: float) -> list[Timing]:
    """Timings of all contestants, each in this process, which has its threads set."""
    from qiskit_aer.primitives import EstimatorV2

    load = workload(qubits, threads)
    pub = load.circuit, load.observable, load.bindings
    aer = EstimatorV2(options={"backend_options": {"max_parallel_threads": threads}})
    contestants = [
        Contestant(AER, lambda: Outcome(aer.run([pub], precision=0).result()[0].data.evs))
    ]
    if _qulacs.missing() is None:
        contestants.append(Contestant(QULACS, _qulacs.query(load)))
    with DistributedEstimator(workers=threads) as estimator:
        ours = Contestant(
            OURS, lambda: Outcome(estimator.run([pub], precision=0).result()[0].data.evs)
        )
        return list(take_turns([ours, *contestants], repeats, allowance).values())


def _measure_simulators(arguments: argparse.Namespace, report: Report) -> None:
    widths = (12,) if arguments.quick else range(8, 25, 2)
    repeats, allowance = (2, 0.1) if arguments.quick else (15, 4.0)
    for threads in (1, 2):
        for qubits in widths:
            case = {"qubits": qubits, "threads": threads, "queries": threads}
            progress(f"simulators: {qubits} qubits, {threads} threads")
            with _environment(OMP_NUM_THREADS=str(threads)):
                ours, *others = in_child(_simulators, qubits, threads, repeats, allowance)
            for other in others:
                error = distance(ours.values, other.values)
                if error is None or error > 1e-8:
                    raise RuntimeError(f"{other.name}: {error} from ours, expected at most 1e-8")
                held = other.name == QULACS and threads == 1 and qubits in HELD
                ratio = ours.seconds / other.seconds
                bars = (Bar("ours / Qulacs, time", ratio, "<=", 1.0),) if held else ()
                report.rows.append(compare(case, ours, other, other.values, bars))
            if _qulacs.missing() is not None:
                report.skipped.append(Skipped(case, QULACS, _qulacs.MISSING))


# --- gradients ------------------------------------------------------------------------------------


def _gradient(qubits: int, reps: int, repeats: int, allowance: float) -> list[Timing]:
    circuit = real_amplitudes(qubits, reps=reps, entanglement="linear")
    values = np.random.default_rng(7).uniform(-1, 1, circuit.num_parameters)
    pub = circuit, SparsePauliOp("Z" * qubits), values
    with DistributedEstimator() as estimator:
        gradient = FragmentGradient(estimator, precision=0)
        contestants = [
            Contestant(
                "value", lambda: Outcome(estimator.run([pub], precision=0).result()[0].data.evs)
            ),
            Contestant(
                "value and gradient", lambda: Outcome(gradient.values_and_gradients(pub)[1])
            ),
        ]
        return list(take_turns(contestants, repeats, allowance).values())


def _measure_gradient(arguments: argparse.Namespace, report: Report) -> None:
    repeats, allowance = (2, 0.1) if arguments.quick else (30, 4.0)
    for qubits, reps in ((10, 1),) if arguments.quick else ((12, 3), (14, 3), (16, 3), (18, 3)):
        case = {"qubits": qubits, "weights": qubits * (reps + 1)}
        progress(f"gradient: {qubits} qubits")
        with _environment(OMP_NUM_THREADS="1"):
            value, gradient = in_child(_gradient, qubits, reps, repeats, allowance)
        name = "value and gradient / value, time"
        ratio = gradient.seconds / value.seconds
        bars = (Bar(name, ratio, "<=", 5.0),) if qubits == 14 else ()
        report.figures.append(Figure(case, name, ratio, "", bars))
        report.figures.append(Figure(case, "value", value.seconds, "s"))


# --- the first value ------------------------------------------------------------------------------


def _first(qubits: int) -> float:
    load = workload(qubits, 1)
    with DistributedEstimator() as estimator:
        start = time.perf_counter()
        estimator.run([(load.circuit, load.observable, load.bindings)], precision=0).result()
        return time.perf_counter() - start


def _measure_start(arguments: argparse.Namespace, report: Report) -> None:
    narrow, wide = {"qubits": 8}, {"qubits": 12}
    progress("start: the first value of a process")
    with tempfile.TemporaryDirectory() as folder, _environment(NUMBA_CACHE_DIR=folder):
        first, then = in_child(_first, 12), in_child(_first, 12)
        if not any(Path(folder).rglob("*.nbc")):
            raise RuntimeError("nothing was kept for the second process")
    report.figures += [
        Figure(narrow, "first value of a process", in_child(_first, 8), "s"),
        Figure(wide, "first value of a process, kernels not compiled yet", first, "s"),
        Figure(wide, "first value of a process, kernels compiled before", then, "s"),
    ]


PARTS: Mapping[str, Callable[[argparse.Namespace, Report], None]] = {
    "simulators": _measure_simulators,
    "gradient": _measure_gradient,
    "start": _measure_start,
}


def measure(arguments: argparse.Namespace) -> Report:
    """Every part, or the one that is asked for."""
    settings = {"quick": arguments.quick, "part": arguments.part or "all"}
    report = Report("fragment", settings)
    for name in (arguments.part,) if arguments.part else PARTS:
        PARTS[name](arguments, report)
    return report


def main() -> None:
    """The command."""
    options = parser("fragment", "Time wide fragments on the local simulator.")
    options.add_argument("--part", choices=PARTS, help="one of them only")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
