"""Where circuits are cut: the search of `AutoCut`, beside that of qiskit-addon-cutting.

``python -m benchmarks.search [--json] [--quick] [--part PART] [--peer]``

circuits: circuits of MQT Bench (Quetschlich, Burgholzer and Wille, 2023) into pieces of 10 qubits:
seconds, circuits for one measurement basis with all settings, and the predicted price. The bars are
what the addon's search finds; with --peer it is run, too, up to two minutes a circuit. hundred:
the paper's model on 100 qubits, from nothing to its exact value, which Aer's matrix product states
give as well. rank: what the search predicts of plans, and what was measured: shots for a standard
error of 0.01, as pilots say, with the circuits run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
from mqt.bench import BenchmarkLevel, get_benchmark
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit_addon_cutting.automated_cut_finding import (
    DeviceConstraints,
    OptimizationParameters,
    find_cuts,
)
from scipy.stats import spearmanr

from benchmarks._harness import in_child, progress
from benchmarks._report import Bar, Figure, Report, Skipped, parser, run
from distributed_estimator import AutoCut, DistributedEstimator, EstimatorOptions
from distributed_estimator.cutting import CutPlan

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
PEER_SECONDS = 120.0


def _circuit(name: str, qubits: int) -> QuantumCircuit:
    random.seed(0)  # of the graph states' graphs
    circuit = get_benchmark(name, BenchmarkLevel.INDEP, qubits)
    circuit.remove_final_measurements()
    return circuit


def _planned(circuit: QuantumCircuit) -> tuple[CutPlan, float]:
    begun = time.perf_counter()
    plan = CutPlan.build(circuit, AutoCut(WIDTH))
    return plan, time.perf_counter() - begun


def _circuits(quick: bool, peer: bool) -> Iterator[Figure | Skipped]:
    for (name, qubits), most in list(CIRCUITS.items())[:: 4 if quick else 1]:
        progress(f"{name} on {qubits} qubits")
        circuit = _circuit(name, qubits)
        plan, seconds = _planned(circuit)
        case = {"qubits": qubits, "cuts": plan.num_cuts}
        figure = partial(Figure, case)
        bar = Bar("seconds", seconds, "<=", MOST_SECONDS)
        yield figure(f"{name}: search", seconds, "s", (bar,))
        count = plan.predicted.circuits
        bars = () if most is None else (Bar("circuits", count, "<=", most),)
        yield figure(f"{name}: circuits", count, "", bars)
        yield figure(f"{name}: predicted price", plan.predicted.price, "")
        if peer:
            yield from _peer(name, circuit, case)


def _peer(name: str, circuit: QuantumCircuit, case: dict[str, int]) -> Iterator[Figure | Skipped]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        asked = pool.submit(_addon, circuit)
        try:
            seconds, circuits = asked.result(PEER_SECONDS)
            yield Figure(case, f"{name}: search of qiskit-addon-cutting", seconds, "s")
            yield Figure(case, f"{name}: circuits of its plan", circuits, "")
        except TimeoutError:
            for process in list(pool._processes.values()):
                process.kill()
            yield Skipped(case, f"{name}: qiskit-addon-cutting", f"longer than {PEER_SECONDS:g} s")


def _addon(circuit: QuantumCircuit) -> tuple[float, int]:
    """Seconds of the addon's search, and the circuits of its plan as ours runs it."""
    begun = time.perf_counter()
    flat = circuit.decompose(["Oracle"])
    marked, _ = find_cuts(flat, OptimizationParameters(seed=0), DeviceConstraints(WIDTH))
    seconds = time.perf_counter() - begun
    return seconds, CutPlan.build(marked, None).predicted.circuits


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
        "circuits": partial(_circuits, arguments.quick, arguments.peer),
        "hundred": partial(_hundred, arguments.quick),
        "rank": partial(_rank, arguments.quick),
    }
    report = Report("search", {"quick": arguments.quick, "width": WIDTH})
    for name, part in parts.items():
        if arguments.part in (None, name):
            for found in part():
                (report.skipped if isinstance(found, Skipped) else report.figures).append(found)
    return report


def main() -> None:
    """Measure and print."""
    options = parser("search", __doc__.split("\n\n", maxsplit=1)[0])
    options.add_argument("--part", choices=("circuits", "hundred", "rank"))
    options.add_argument("--peer", action="store_true", help="run the addon's search, too")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
