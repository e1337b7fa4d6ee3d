"""The ground state of a transverse-field Ising chain by VQE, with gradients fragment by fragment.

Run it with `python examples/vqe_ising.py`; it needs the extra `ml` and
`pip install qiskit-algorithms`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import VQE
from scipy.optimize import minimize

from distributed_estimator import (
    AutoCut,
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
)

SPINS = 6
FIELD = 1.0  # the critical point, where neighbours are entangled the most
LAYERS = 3


def chain() -> SparsePauliOp:
    """Minus the sum of Z Z over neighbours, minus the field times the sum of X."""
    bonds = [("ZZ", [spin, spin + 1], -1.0) for spin in range(SPINS - 1)]
    field = [("X", [spin], -FIELD) for spin in range(SPINS)]
    return SparsePauliOp.from_sparse_list([*bonds, *field], num_qubits=SPINS)


def ansatz() -> QuantumCircuit:
    """Layers of evolution under the Hamiltonian's own terms, each with an angle of its own."""
    angles = iter(ParameterVector("θ", LAYERS * (2 * SPINS - 1)))
    circuit = QuantumCircuit(SPINS)
    circuit.h(range(SPINS))
    for _ in range(LAYERS):
        for spin in range(SPINS - 1):
            circuit.rzz(next(angles), spin, spin + 1)
        for spin in range(SPINS):
            circuit.rx(next(angles), spin)
    return circuit


def main() -> dict[str, float]:
    """Minimise on fragments of three qubits; compare with exact diagonalisation."""
    hamiltonian, circuit = chain(), ansatz()
    estimator = DistributedEstimator(
        # Cuts the RZZ in the middle of every layer, angle and all. The derivative by the angle of
        # a gate that is cut needs no circuit of its own.
        AutoCut(max_qubits=3),
        options=EstimatorOptions(default_precision=0),
    )
    energies: list[float] = []
    vqe = VQE(
        estimator,
        circuit,
        # VQE takes any function that has the arguments of SciPy's `minimize`.
        partial(minimize, method="L-BFGS-B", options={"maxiter": 120}),
        gradient=FragmentGradient(estimator),
        initial_point=np.full(circuit.num_parameters, -0.3),
        callback=lambda count, point, energy, metadata: energies.append(float(energy)),
    )
    found = vqe.compute_minimum_eigenvalue(hamiltonian)

    metadata = estimator.run([(circuit, hamiltonian, found.optimal_point)]).result()[0].metadata
    numbers = {
        "start": energies[0],
        "energy": float(found.eigenvalue),
        "exact": float(np.linalg.eigvalsh(hamiltonian.to_matrix())[0]),
        "num_cuts": float(metadata["num_cuts"]),
        "num_fragments": float(metadata["num_fragments"]),
    }
    print(
        f"{SPINS} spins, {circuit.num_parameters} angles, {metadata['num_cuts']} cuts, "
        f"{metadata['num_fragments']} fragments"
    )
    print(f"energy {numbers['start']:.4f} -> {numbers['energy']:.4f} in {len(energies)} calls")
    print(f"exact  {numbers['exact']:.4f}")
    return numbers


if __name__ == "__main__":
    main()
