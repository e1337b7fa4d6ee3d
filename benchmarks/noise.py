"""What a device's noise does to values, whole and cut, with and without mitigation.

``python -m benchmarks.noise [--json] [--quick] [--part PART] [--device NAME] [--shots N] …``

IBM's simulated devices, each with Aer and the noise of its calibration; circuits that fit whole, so
that both ways run on the same device, with the same number of shots in all; calibration of the
readout comes on top, once a device. Errors are distances from the exact value, root mean square
over circuits, with the standard error of that.

Part `cuts`: chains of 4 to 12 qubits, CX from neighbour to neighbour between two layers of RY by
random angles, Z on every qubit, cut into blocks. Circuits are the first whose value is at least
0.2, as noise does little to a value of 0.
Part `shapes`: a ring whose closing gates are cut, and a chain whose long-range gates are, on
devices that would have to route them. Part `training`: the ground energy of an Ising chain of four
qubits, cut in two, by SPSA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_aer.primitives import SamplerV2
from rich.table import Table

from benchmarks._harness import progress
from benchmarks._report import Report, deliver, parser, show
from benchmarks._workload import block_labels
from distributed_estimator import (
    CutAt,
    DistributedEstimator,
    EstimatorOptions,
    Mitigation,
    Zne,
)
from distributed_estimator.backends.named import find_device
from distributed_estimator.backends.sampler import SamplerBackend

PARTS = ("cuts", "shapes", "training")
MITIGATIONS = {
    "nothing": None,
    "readout": Mitigation(readout=True),
    "readout, zne": Mitigation(readout=True, zne=Zne()),
}
LEAST = 0.2
SHOTS = 1 << 13
CIRCUITS = 3
SEED = 11


@dataclass(frozen=True)
class Case:
    """Circuits of one kind on one device.

    Attributes:
        device: Its name.
        kind: "chain", "ring" or "far".
        qubits: Of each circuit.
        cuts: How many are cut; 0: whole.
        circuits: How many at most; 0: as many as asked for.
    """

    device: str
    kind: str
    qubits: int
    cuts: int
    circuits: int = 0


CASES = (
    *(Case("fake_manila", "chain", 4, cuts) for cuts in (0, 1, 3)),
    *(Case("fake_jakarta", "chain", 6, cuts) for cuts in (0, 1, 2)),
    *(Case("fake_guadalupe", "chain", 8, cuts) for cuts in (0, 1, 2)),
    *(Case("fake_guadalupe", "chain", 12, cuts, circuits=2) for cuts in (0, 2)),
    *(Case("fake_sherbrooke", "chain", 6, cuts, circuits=2) for cuts in (0, 1)),
)
SHAPES = (
    *(Case("fake_guadalupe", "ring", 6, cuts, circuits=2) for cuts in (0, 2)),
    *(Case("fake_guadalupe", "far", 6, cuts, circuits=2) for cuts in (0, 2)),
)


def chain(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    """RY on every qubit, CX from neighbour to neighbour, and RY again."""
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(rng.uniform(-1.0, 1.0), qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    for qubit in range(qubits):
        circuit.ry(rng.uniform(-1.0, 1.0), qubit)
    return circuit


def ring(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    """Two layers of RX and RZZ around a ring; what closes it comes last in each."""
    circuit = QuantumCircuit(qubits)
    for _ in range(2):
        for qubit in range(qubits):
            circuit.rx(rng.uniform(-0.6, 0.6), qubit)
        for qubit in range(qubits):
            circuit.rzz(rng.uniform(0.2, 0.5), qubit, (qubit + 1) % qubits)
    return circuit


def far(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    """Two layers of RX and RZZ along a chain, with a gate from end to end after each."""
    circuit = QuantumCircuit(qubits)
    for layer in range(2):
        for qubit in range(qubits):
            circuit.rx(rng.uniform(-0.6, 0.6), qubit)
        for qubit in range(qubits - 1):
            circuit.rzz(rng.uniform(0.2, 0.5), qubit, qubit + 1)
        circuit.rzz(0.4, layer, qubits - 1 - layer)
    return circuit


_KINDS: dict[str, Callable[[int, np.random.Generator], QuantumCircuit]] = {
    "chain": chain,
    "ring": ring,
    "far": far,
}


@cache
def circuits_of(kind: str, qubits: int, count: int) -> tuple[tuple[QuantumCircuit, float], ...]:
    """The first circuits whose value is large enough, and their values."""
    found: list[tuple[QuantumCircuit, float]] = []
    observable = SparsePauliOp("Z" * qubits)
    for seed in range(10_000):
        circuit = _KINDS[kind](qubits, np.random.default_rng(seed))
        value = float(Statevector(circuit).expectation_value(observable).real)
        if abs(value) >= LEAST:
            found.append((circuit, value))
        if len(found) == count:
            break
    return tuple(found)


def cuts_of(case: Case, circuit: QuantumCircuit) -> str | CutAt:
    """Labels of blocks, or the numbers of the last two-qubit gate of each layer."""
    if case.kind == "chain" or not case.cuts:
        return "".join("ABCDEFGH"[label] for label in block_labels(case.qubits, case.cuts))
    gates = [number for number, item in enumerate(circuit.data) if len(item.qubits) == 2]
    layers = np.array_split(gates, 2)
    return CutAt([int(layer[-1]) for layer in layers])


@dataclass(frozen=True)
class Row:
    """What came out of one case with one mitigation.

    Attributes:
        values: Exact ones.
        errors: Distances from these.
        stderrs: As they were claimed.
        predicted: Errors that `DistributedEstimator.noise` foretells, root mean square.
        shots: Of a value, on average, calibrations apart.
        subexperiments: Circuits that ran for a value, on average.
        seconds: For a value, on average.
    """

    case: Case
    mitigated: str
    values: tuple[float, ...]
    errors: tuple[float, ...]
    stderrs: tuple[float, ...]
    predicted: float
    shots: float
    subexperiments: float
    seconds: float

    @property
    def rms(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(np.square(self.errors))))

    @property
    def spread(self) -> float:
        """Standard error of that."""
        squares = np.square(self.errors)
        if len(squares) < 2 or not self.rms:
            return 0.0
        return float(squares.std(ddof=1) / np.sqrt(len(squares)) / (2 * self.rms))

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"rms": self.rms, "spread": self.spread}


@cache
def backend_of(name: str) -> tuple[Any, SamplerBackend]:
    """A device, and what runs circuits on it."""
    device = find_device(name)
    return device, SamplerBackend(SamplerV2.from_backend(device))


def rows_of(case: Case, count: int, shots: int) -> Iterator[Row]:
    """Run a case with every mitigation."""
    device, backend = backend_of(case.device)
    own = circuits_of(case.kind, case.qubits, min(count, case.circuits or count))
    observable = "Z" * case.qubits
    way = "cut" if case.cuts else "whole"
    for name, mitigation in MITIGATIONS.items():
        if case.kind != "chain" and case.cuts and mitigation and mitigation.zne:
            continue  # three times 900 circuits took half an hour
        found, squares = [], []
        begun = time.perf_counter()
        for number, (circuit, exact) in enumerate(own):
            options = EstimatorOptions(shots_total=shots, seed=SEED + number, mitigation=mitigation)
            cuts = cuts_of(case, circuit)
            with DistributedEstimator(cuts, backend, workers=1, options=options) as estimator:
                result = estimator.run([(circuit, observable)]).result()[0]
                price = estimator.noise((circuit, observable), device, shots=shots)
            for outlook in price.outlooks:
                plan = outlook.mitigation
                if outlook.way == way and _name_of(plan) == name:
                    squares.append(outlook.error**2)
            found.append((float(result.data.evs) - exact, float(result.data.stds), result.metadata))
        errors, stderrs, records = zip(*found, strict=True)
        row = Row(
            case,
            name,
            tuple(exact for _, exact in own),
            errors,
            stderrs,
            float(np.sqrt(np.mean(squares))),
            float(np.mean([record["shots_total"] for record in records])),
            float(np.mean([record["num_subexperiments"] for record in records])),
            (time.perf_counter() - begun) / len(own),
        )
        progress(
            f"{case.device} {case.kind} {case.qubits} qubits, {case.cuts} cuts, {name}: "
            f"{row.rms:.4f} ± {row.spread:.4f}, predicted {row.predicted:.4f}, "
            f"{row.seconds:.1f} s a value"
        )
        yield row


def _name_of(plan: Mitigation | None) -> str:
    if plan is None:
        return "nothing"
    return "readout, zne" if plan.zne else "readout"


# --- training


@dataclass(frozen=True)
class Training:
    """Energies of a training, as they were measured and as they are.

    Attributes:
        mitigated: What was done about the noise.
        measured: After each step, from the device.
        exact: At the same parameters.
        ground: The least there is.
        shots: In all.
    """

    mitigated: str
    measured: tuple[float, ...]
    exact: tuple[float, ...]
    ground: float
    shots: int


def trained(name: str, steps: int, shots: int) -> Training:
    """SPSA with gains of 0.15 and differences of 0.2, the same for every mitigation.

    Args:
        name: Of the mitigation.
        steps: How many.
        shots: Of every circuit.
    """
    _, backend = backend_of("fake_manila")
    circuit = real_amplitudes(4, reps=1, entanglement="linear")
    terms = [("ZZ", [q, q + 1], -1.0) for q in range(3)] + [("X", [q], -1.0) for q in range(4)]
    energy = SparsePauliOp.from_sparse_list(terms, 4)
    ground = float(np.linalg.eigvalsh(energy.to_matrix())[0])
    rng = np.random.default_rng(SEED)
    point = rng.uniform(-0.5, 0.5, circuit.num_parameters)
    options = EstimatorOptions(shots=shots, seed=SEED, mitigation=MITIGATIONS[name])
    measured, exact, total = [], [], 0
    with DistributedEstimator("AABB", backend, workers=1, options=options) as estimator:
        for step in range(steps):
            way = rng.choice([-1.0, 1.0], len(point))
            both = np.stack([point + 0.2 * way, point - 0.2 * way])
            result = estimator.run([(circuit, energy, both)]).result()[0]
            total += result.metadata["shots_total"]
            plus, minus = map(float, result.data.evs)
            point = point - 0.15 / (1 + step / 20) * (plus - minus) / 0.4 * way
            measured.append((plus + minus) / 2)
            bound = Statevector(circuit.assign_parameters(point))
            exact.append(float(bound.expectation_value(energy).real))
        last = estimator.run([(circuit, energy, point)]).result()[0]
    measured.append(float(last.data.evs))
    progress(f"training, {name}: measured {measured[-1]:.3f}, is {exact[-1]:.3f} of {ground:.3f}")
    return Training(name, tuple(measured), tuple(exact), ground, total)


# --- the command


def measure(arguments: argparse.Namespace) -> tuple[list[Row], list[Training]]:
    """Everything that was asked for."""
    parts = PARTS if arguments.part is None else (arguments.part,)
    cases = [*(CASES if "cuts" in parts else ()), *(SHAPES if "shapes" in parts else ())]
    count, shots, steps = arguments.circuits, arguments.shots, 40
    if arguments.quick:
        cases = [case for case in cases if case.qubits == 4 and case.cuts < 2]
        count, shots, steps = 1, 1000, 2
    cases = [case for case in cases if arguments.device in (None, case.device)]
    rows: list[Row] = []
    for case in cases:
        for row in rows_of(case, count, shots):
            rows.append(row)
            _keep(arguments, rows, [])
    names = list(MITIGATIONS)[:2] if "training" in parts else ()
    return rows, [trained(name, steps, shots // 32) for name in names]


def _keep(
    arguments: argparse.Namespace, rows: Sequence[Row], trainings: Sequence[Training]
) -> None:
    """Write what there is so far, as the rest takes long."""
    if arguments.json not in (None, Path("-")):
        text = json.dumps(document(arguments, rows, trainings), indent=2)
        arguments.json.write_text(text + "\n", "utf-8")


def document(
    arguments: argparse.Namespace, rows: Sequence[Row], trainings: Sequence[Training]
) -> dict[str, Any]:
    """What `--json` prints."""
    settings = {"shots": arguments.shots, "circuits": arguments.circuits, "quick": arguments.quick}
    return Report("noise", settings).as_json() | {
        "cells": [row.as_json() for row in rows],
        "trainings": [asdict(each) for each in trainings],
    }


def _tables(rows: Sequence[Row], trainings: Sequence[Training]) -> Iterator[Table]:
    columns = ("device", "kind", "qubits", "cuts", "mitigated", "error", "±", "claimed")
    table = Table(*columns, "predicted", "shots", "circuits", "s a value", title="Errors")
    for row in rows:
        case, claimed = row.case, float(np.sqrt(np.mean(np.square(row.stderrs))))
        figures = (row.rms, row.spread, claimed, row.predicted)
        table.add_row(
            *(case.device, case.kind, str(case.qubits), str(case.cuts), row.mitigated),
            *(f"{figure:.4f}" for figure in figures),
            *(f"{row.shots:.0f}", f"{row.subexperiments:.0f}", f"{row.seconds:.1f}"),
        )
    yield table
    table = Table("mitigated", "measured", "energy", "ground energy", "shots", title="Training")
    for each in trainings:
        figures = (each.measured[-1], each.exact[-1], each.ground)
        table.add_row(each.mitigated, *(f"{f:.3f}" for f in figures), str(each.shots))
    yield table


def main() -> None:
    """The command."""
    options = parser("noise", "Errors on noisy devices, whole and cut, with mitigation.")
    options.add_argument("--part", choices=PARTS, help="one of them only")
    options.add_argument("--device", metavar="NAME", help="cases on one device only")
    options.add_argument("--shots", type=int, default=SHOTS, metavar="N", help="of each value")
    options.add_argument("--circuits", type=int, default=CIRCUITS, metavar="N", help="of a case")
    arguments = options.parse_args()
    rows, trainings = measure(arguments)
    found = document(arguments, rows, trainings)
    deliver(found, arguments, lambda: show(_tables(rows, trainings)))


if __name__ == "__main__":
    main()
