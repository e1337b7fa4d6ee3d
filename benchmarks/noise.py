"""Training on a noisy device, with and without mitigated readout.

``python -m benchmarks.noise [--json] [--quick] [--shots N]``

The ground energy of an Ising chain of four qubits, cut in two, by SPSA on IBM's simulated
`fake_manila`. Errors of single values are a study: ``dest study run noise``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, Statevector
from rich.table import Table

from benchmarks._harness import progress
from benchmarks._report import Report, deliver, parser, show
from distributed_estimator import DistributedEstimator, EstimatorOptions, Mitigation
from distributed_estimator.backends.named import find_device

MITIGATIONS = {"nothing": None, "readout": Mitigation(readout=True)}
SEED = 11


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
    circuit = real_amplitudes(4, reps=1, entanglement="linear")
    terms = [("ZZ", [q, q + 1], -1.0) for q in range(3)] + [("X", [q], -1.0) for q in range(4)]
    energy = SparsePauliOp.from_sparse_list(terms, 4)
    ground = float(np.linalg.eigvalsh(energy.to_matrix())[0])
    rng = np.random.default_rng(SEED)
    point = rng.uniform(-0.5, 0.5, circuit.num_parameters)
    options = EstimatorOptions(shots=shots, seed=SEED, mitigation=MITIGATIONS[name])
    measured, exact, total = [], [], 0
    device = find_device("fake_manila")
    with DistributedEstimator("AABB", device, workers=1, options=options) as estimator:
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
    progress(f"{name}: measured {measured[-1]:.3f}, is {exact[-1]:.3f} of {ground:.3f}")
    return Training(name, tuple(measured), tuple(exact), ground, total)


def _table(trainings: list[Training]) -> Table:
    table = Table("mitigated", "measured", "energy", "ground energy", "shots", title="Training")
    for each in trainings:
        figures = (each.measured[-1], each.exact[-1], each.ground)
        table.add_row(each.mitigated, *(f"{f:.3f}" for f in figures), str(each.shots))
    return table


def main() -> None:
    """The command."""
    options = parser("noise", "Training on a noisy device, with and without mitigated readout.")
    options.add_argument("--shots", type=int, default=256, metavar="N", help="of every circuit")
    arguments = options.parse_args()
    steps = 2 if arguments.quick else 40
    trainings = [trained(name, steps, arguments.shots) for name in MITIGATIONS]
    settings = {"shots": arguments.shots, "quick": arguments.quick}
    found: dict[str, Any] = Report("noise", settings).as_json()
    found["trainings"] = [asdict(each) for each in trainings]
    deliver(found, arguments, lambda: show([_table(trainings)]))


if __name__ == "__main__":
    main()
