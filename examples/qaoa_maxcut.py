"""MaxCut by QAOA on Aer with shots: two clusters of a graph on two devices.

The `QAOA` of qiskit-algorithms takes a sampler and optimises sampled bit strings. Its energy is an
expectation value, so `VQE` with the QAOA circuit as its ansatz optimises the same through an
estimator.

Run it with `python examples/qaoa_maxcut.py`; it needs the extra `aer` and
`pip install qiskit-algorithms`.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from qiskit.circuit.library import qaoa_ansatz
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_aer.primitives import SamplerV2
from qiskit_algorithms import VQE
from qiskit_algorithms.optimizers import COBYLA

from distributed_estimator import DistributedEstimator, EstimatorOptions

NODES = 8
LEFT = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
RIGHT = [(4, 5), (5, 6), (6, 7), (7, 4), (4, 6)]
EDGES = [*LEFT, *RIGHT, (3, 4)]  # one edge joins the clusters
CUTS = "AAAABBBB"  # a QAOA layer has one RZZ gate an edge: one gate a layer is cut
LAYERS = 2
SHOTS = 1024


def cut_size(sides: str) -> int:
    """Edges between nodes on different sides; `sides[i]` is that of node i."""
    return sum(sides[a] != sides[b] for a, b in EDGES)


def main() -> dict[str, float]:
    """Optimise the angles on Aer, read the best cut, compare with trying every one."""
    # Of a bit string, its energy is minus the number of edges that it cuts.
    terms = [("ZZ", edge, 0.5) for edge in EDGES] + [("", (), -0.5 * len(EDGES))]
    hamiltonian = SparsePauliOp.from_sparse_list(terms, num_qubits=NODES)
    ansatz = qaoa_ansatz(hamiltonian, reps=LAYERS)

    # Aer's own threads slow down many small circuits.
    sampler = SamplerV2(options={"backend_options": {"max_parallel_threads": 1}})
    estimator = DistributedEstimator(
        CUTS, backend=sampler, options=EstimatorOptions(shots=SHOTS, seed=7)
    )
    vqe = VQE(estimator, ansatz, COBYLA(maxiter=60), initial_point=np.array([0.4, 0.2, 0.3, 0.6]))
    found = vqe.compute_minimum_eigenvalue(hamiltonian)
    energy = estimator.run([(ansatz, hamiltonian, found.optimal_point)]).result()[0].data

    # A bit string of all nodes takes all qubits at a time: the last step is not cut.
    state = Statevector(ansatz.assign_parameters(found.optimal_point))
    likely = max(state.probabilities_dict().items(), key=lambda entry: entry[1])[0][::-1]
    numbers = {
        "energy": float(energy.evs),
        "stderr": float(energy.stds),
        "exact_energy": float(np.real(state.expectation_value(hamiltonian))),
        "random_energy": -0.5 * len(EDGES),
        "cut": cut_size(likely),
        "best_cut": max(cut_size("".join(sides)) for sides in product("01", repeat=NODES)),
    }
    print(f"angles {found.optimal_point.round(3)} after {found.cost_function_evals} energies")
    print(
        f"mean cut {-numbers['energy']:.3f} ± {numbers['stderr']:.3f} by {SHOTS} shots a "
        f"subexperiment on Aer, exactly {-numbers['exact_energy']:.3f}; "
        f"of random cuts {-numbers['random_energy']:.1f}"
    )
    print(f"likeliest cut {likely}: {numbers['cut']} edges; the best has {numbers['best_cut']}")
    return numbers


if __name__ == "__main__":
    main()
