"""Where circuits are cut: the search of `AutoCut`, beside that of qiskit-addon-cutting.

``python -m benchmarks.search [--json] [--quick] [--part PART] [--qasm FOLDER] [--peer]``

circuits: circuits of MQT Bench (Quetschlich, Burgholzer and Wille, 2023) into pieces of 10 qubits:
seconds, circuits for one measurement basis with all settings, and the predicted price. The bars are
what the addon's search finds; with --peer it is run, too. qasm: the same of every OpenQASM 2 file
of 12 to 120 qubits in and below a folder, for example one of QASMBench (Li and others, 2023);
what is refused is listed with the reason. A search is ended after --limit seconds. hundred: the
paper's model on 100 qubits, from nothing to its exact value, which Aer's matrix product states give
as well. rank: what the search predicts of plans, and what was measured: shots for a standard error
of 0.01, as pilots say, with the circuits run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mqt.bench import BenchmarkLevel, get_benchmark
from qiskit import QuantumCircuit, qasm2
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.transpiler.passes import RemoveBarriers
from qiskit_addon_cutting.automated_cut_finding import (
    DeviceConstraints,
    OptimizationParameters,
    find_cuts,
)
from scipy.stats import spearmanr

from benchmarks._harness import Child, in_child, progress
from benchmarks._report import Bar, Figure, Report, Skipped, parser, run
from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions
from distributed_estimator.cutting import CutPlan, Prediction
from distributed_estimator.reference.stages import flatten

WIDTH = 10
# Circuits that the addon's search takes for pieces of 10 qubits, for one measurement basis.
CIRCUITS: dict[tuple[str, int], int | None] = {
    ("ghz", 40): 60,
    ("wstate", 30): 675,
    ("vqe_real_amp", 20): 250,
    ("qnn", 50): 85,
    ("graphstate", 40): None,  # a random graph, another with each version
    ("dj", 30): 58,
    ("bv", 30): 25,
    ("vqe_su2", 30): 15_875,
    ("qnn", 80): 160,
}
MOST_SECONDS, MOST_SECONDS_OF_ALL, MOST_ERROR = 5.0, 3.0, 1e-8
LEAST_CORRELATION = 0.9
LIMIT = 120.0  # seconds
QASM_QUBITS = range(12, 121)
ADDON = "qiskit-addon-cutting"
_CHILD = Child()


def _circuit(name: str, qubits: int) -> QuantumCircuit:
    random.seed(0)  # of the graph states' graphs
    circuit = get_benchmark(name, BenchmarkLevel.INDEP, qubits)
    circuit.remove_final_measurements()
    return circuit


class _Plan(NamedTuple):
    seconds: float
    cuts: int
    predicted: Prediction


def _planned(circuit: QuantumCircuit) -> _Plan:
    """Ours."""
    begun = time.perf_counter()
    plan = CutPlan.build(circuit, AutoCut(WIDTH))
    seconds = time.perf_counter() - begun
    if plan.predicted.width > WIDTH:
        raise RuntimeError(f"a fragment of {plan.predicted.width} qubits, expected up to {WIDTH}")
    return _Plan(seconds, plan.num_cuts, plan.predicted)


def _addon(circuit: QuantumCircuit) -> _Plan:
    """The addon's, counted as ours runs it."""
    begun = time.perf_counter()
    flat = RemoveBarriers()(flatten(circuit, lambda qubits: len(qubits) > 1))
    marked, _ = find_cuts(flat, OptimizationParameters(seed=0), DeviceConstraints(WIDTH))
    seconds = time.perf_counter() - begun
    plan = CutPlan.build(marked, None)
    return _Plan(seconds, plan.num_cuts, plan.predicted)


def _figures(
    name: str, qubits: int, plan: _Plan, held: bool = False, most: int | None = None
) -> Iterator[Figure]:
    """What a plan costs; `held` to a time, and to `most` circuits."""
    figure, count = partial(Figure, {"qubits": qubits, "cuts": plan.cuts}), plan.predicted.circuits
    bars = (Bar("seconds", plan.seconds, "<=", MOST_SECONDS),) if held else ()
    yield figure(f"{name}: search", plan.seconds, "s", bars)
    bars = () if most is None else (Bar("circuits", count, "<=", most),)
    yield figure(f"{name}: circuits", count, "", bars)
    yield figure(f"{name}: predicted price", plan.predicted.price, "")


def _tried(
    name: str, circuit: QuantumCircuit, way: Callable[[QuantumCircuit], _Plan], limit: float
) -> Iterator[Figure | Skipped]:
    """The figures of a search in a process of its own, or why there are none."""
    try:
        yield from _figures(name, circuit.num_qubits, _CHILD.call(limit, way, circuit))
    except TimeoutError:
        yield Skipped({"qubits": circuit.num_qubits}, name, f"longer than {limit:g} s")
    except ValueError as error:
        yield Skipped({"qubits": circuit.num_qubits}, name, str(error))


def _circuits(arguments: argparse.Namespace) -> Iterator[Figure | Skipped]:
    for (name, qubits), most in list(CIRCUITS.items())[:: 4 if arguments.quick else 1]:
        progress(f"{name} on {qubits} qubits")
        circuit = _circuit(name, qubits)
        yield from _figures(name, qubits, _planned(circuit), True, most)
        if arguments.peer:
            yield from _tried(f"{name}, {ADDON}", circuit, _addon, arguments.limit)


def _qasm(arguments: argparse.Namespace) -> Iterator[Figure | Skipped]:
    """Every file of a folder, small ones first."""
    files = Path(arguments.qasm).rglob("*.qasm")
    for path in sorted(files, key=lambda path: (path.stat().st_size, path)):
        name = path.stem
        try:
            circuit = qasm2.load(path, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
        except qasm2.QASM2ParseError as error:
            yield Skipped({}, name, str(error))
            continue
        if circuit.num_qubits not in QASM_QUBITS:
            continue
        progress(f"{name} on {circuit.num_qubits} qubits")
        circuit.remove_final_measurements()
        yield from _tried(name, circuit, _planned, arguments.limit)
        if arguments.peer:
            yield from _tried(f"{name}, {ADDON}", circuit, _addon, arguments.limit)


# --- a hundred qubits -----------------------------------------------------------------------------


def _model(qubits: int) -> QuantumCircuit:
    """The paper's model, bound: a feature map of one rotation a qubit, and one layer."""
    rng = np.random.default_rng(1)
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.h(qubit)
        circuit.p(rng.uniform(0, 2), qubit)
    ansatz = real_amplitudes(qubits, "linear", reps=1)
    angles = rng.uniform(-0.3, 0.3, ansatz.num_parameters)
    return circuit.compose(ansatz.assign_parameters(angles))


def _from_nothing(qubits: int) -> tuple[float, float, int, float]:
    """Seconds of the plan and of all, the number of cuts, and the distance from Aer's value."""
    from qiskit_aer.primitives import EstimatorV2

    circuit, observable = _model(qubits), "I" * (qubits - 2) + "ZZ"
    begun = time.perf_counter()
    plan = CutPlan.build(circuit, AutoCut(WIDTH))
    planned = time.perf_counter() - begun
    with DistributedEstimator(AutoCut(WIDTH)) as estimator:
        begun = time.perf_counter()
        value = float(estimator.run([(circuit, "Z" * qubits)], precision=0).result()[0].data.evs)
        all_of_it = time.perf_counter() - begun
        near = float(estimator.run([(circuit, observable)], precision=0).result()[0].data.evs)
    options = {"method": "matrix_product_state", "matrix_product_state_max_bond_dimension": 64}
    peer = EstimatorV2(options={"backend_options": options})
    pubs = [(circuit, "Z" * qubits), (circuit, observable)]
    theirs = [float(each.data.evs) for each in peer.run(pubs, precision=0).result()]
    distance = max(abs(value - theirs[0]), abs(near - theirs[1]))
    return planned, all_of_it, plan.num_cuts, distance


def _hundred(quick: bool) -> Iterator[Figure]:
    qubits = 30 if quick else 100
    progress(f"the paper's model on {qubits} qubits")
    planned, all_of_it, cuts, distance = in_child(_from_nothing, qubits)
    figure = partial(Figure, {"qubits": qubits, "cuts": cuts})
    yield figure("plan", planned, "s", (Bar("seconds", planned, "<=", 1.0),))
    bar = Bar("seconds", all_of_it, "<=", MOST_SECONDS_OF_ALL)
    yield figure("plan and first exact value", all_of_it, "s", (bar,))
    bar = Bar("distance", distance, "<=", MOST_ERROR)
    yield figure("distance from matrix product states", distance, "", (bar,))


# --- what is predicted, and what is measured ------------------------------------------------------


def _layers(qubits: int, pairs: list[tuple[int, int]], angle: float, reps: int) -> QuantumCircuit:
    symbols = iter(ParameterVector("x", qubits * (reps + 1)))
    circuit = QuantumCircuit(qubits)
    for layer in range(reps + 1):
        for qubit in range(qubits):
            circuit.ry(next(symbols), qubit)
        for one, other in pairs if layer < reps else []:
            circuit.rzz(angle, one, other)
    return circuit


def _to_rank(quick: bool) -> list[QuantumCircuit]:
    chain = [(q, q + 1) for q in range(7)]
    ring = [(q, (q + 1) % 8) for q in range(8)]
    star = [(0, q) for q in range(1, 7)]
    lattice = [(q, q + 1) for q in (0, 1, 3, 4, 6, 7)] + [(q, q + 3) for q in range(6)]
    found = [
        _layers(8, chain, np.pi / 2, 1),
        _layers(8, chain, 0.3, 2),
        _layers(8, ring, np.pi / 2, 1),
        _layers(7, star, np.pi / 2, 1),
        _layers(9, lattice, 0.8, 1),
        _layers(9, lattice, 0.2, 1),
        real_amplitudes(4, "linear", reps=3),
        real_amplitudes(8, "linear", reps=2),
        _layers(7, [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)], np.pi / 2, 1),
        _layers(10, [(q, q + 1) for q in range(9)], np.pi / 2, 1),
        _layers(6, chain[:5], 1.0, 2),
        efficient_su2(6, entanglement="circular", reps=1),
    ]
    return found[:2] if quick else found


def _rank(quick: bool) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    predicted, measured, shots = [], [], []
    for number, circuit in enumerate(_to_rank(quick)):
        progress(f"plans of circuit {number}")
        plans = {}
        for width in (2, 3, 4) if circuit.num_qubits > 4 else (2, 3):
            plan = CutPlan.build(circuit, AutoCut(width))
            plans[plan.key] = plan
        for plan in plans.values():
            bindings = rng.uniform(-np.pi, np.pi, (1 if quick else 4, circuit.num_parameters))
            with DistributedEstimator(plan, options=EstimatorOptions(seed=1)) as estimator:
                pubs = [(circuit, "Z" * circuit.num_qubits, binding) for binding in bindings]
                prices = [estimator.price([pub], precision=0.01) for pub in pubs]
            taken = float(np.mean([price.optimal for price in prices]))
            circuits = float(np.mean([price.circuits for price in prices]))
            predicted.append(plan.predicted)
            shots.append(taken)
            measured.append(taken + plan.predicted.price - plan.predicted.shots)
            assert circuits <= plan.predicted.circuits
    case = {"plans": len(predicted)}
    price = float(spearmanr([each.price for each in predicted], measured).statistic)
    bar = Bar("rank correlation", price, ">=", LEAST_CORRELATION)
    yield Figure(case, "rank correlation of prices", price, "", (bar,))
    alone = float(spearmanr([each.shots for each in predicted], shots).statistic)
    yield Figure(case, "rank correlation of shots alone", alone, "")


def measure(arguments: argparse.Namespace) -> Report:
    """All figures of the parts asked for."""
    parts = {
        "circuits": partial(_circuits, arguments),
        "qasm": partial(_qasm, arguments),
        "hundred": partial(_hundred, arguments.quick),
        "rank": partial(_rank, arguments.quick),
    }
    settings = {"quick": arguments.quick, "width": WIDTH, "limit": arguments.limit}
    report = Report("search", settings)
    for name, part in parts.items():
        if arguments.part in (None, name) and (name != "qasm" or arguments.qasm):
            for found in part():
                (report.skipped if isinstance(found, Skipped) else report.figures).append(found)
    _CHILD.end()
    return report


def main() -> None:
    """Measure and print."""
    options = parser("search", __doc__.split("\n\n", maxsplit=1)[0])
    options.add_argument("--part", choices=("circuits", "qasm", "hundred", "rank"))
    options.add_argument(
        "--qasm", type=Path, metavar="FOLDER", help="search the OpenQASM 2 files there, too"
    )
    options.add_argument("--peer", action="store_true", help="run the addon's search, too")
    options.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help=f"end a search after so long (default: {LIMIT:g})",
    )
    arguments = options.parse_args()
    if arguments.part == "qasm" and arguments.qasm is None:
        options.error("--part qasm needs --qasm FOLDER")
    run(measure, arguments)


if __name__ == "__main__":
    main()
