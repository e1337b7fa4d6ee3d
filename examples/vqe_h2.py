"""The ground state of the hydrogen molecule by VQE, its two qubits on two devices.

Run it with `python examples/vqe_h2.py`; it needs `pip install qiskit-algorithms`.
"""

from __future__ import annotations

import numpy as np
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import VQE, NumPyMinimumEigensolver
from qiskit_algorithms.optimizers import SLSQP

from distributed_estimator import DistributedEstimator, EstimatorOptions

# Electronic energy in hartree of H2 at 0.735 Å in the STO-3G basis, parity mapping, two qubits
# removed by symmetry. The coefficients are those of Qiskit's own VQE tutorials and tests; the
# form is that of O'Malley et al., Phys. Rev. X 6, 031007 (2016).
H2 = SparsePauliOp.from_list(
    [
        ("II", -1.052373245772859),
        ("IZ", 0.39793742484318045),
        ("ZI", -0.39793742484318045),
        ("ZZ", -0.01128010425623538),
        ("XX", 0.18093119978423156),
    ]
)
NUCLEAR_REPULSION = 0.7199689944489797  # hartree: of two protons 0.735 Å apart


def main() -> dict[str, float]:
    """Minimise with exact values, then measure the energy found with an error bar."""
    ansatz = real_amplitudes(2, reps=1)
    estimator = DistributedEstimator(
        cuts="AB",  # the CX gate between the two qubits is cut
        options=EstimatorOptions(default_precision=0, seed=7),
    )
    vqe = VQE(estimator, ansatz, SLSQP(), initial_point=np.full(ansatz.num_parameters, 0.1))
    found = vqe.compute_minimum_eigenvalue(H2)

    # The state found, measured: as many shots as a standard error of 5 millihartree takes.
    pub = (ansatz, H2, found.optimal_point)
    measured = estimator.run([pub], precision=0.005).result()[0]

    exact = NumPyMinimumEigensolver().compute_minimum_eigenvalue(H2).eigenvalue
    numbers = {
        "energy": float(found.eigenvalue),
        "exact": float(exact),
        "hartree_fock": float(min(np.real(np.diag(H2.to_matrix())))),
        "measured": float(measured.data.evs),
        "stderr": float(measured.data.stds),
        "shots": float(measured.metadata["shots_total"]),
    }
    print("total energy of H2 at 0.735 Å, in hartree")
    for name in ("hartree_fock", "energy", "exact"):
        print(f"{name:>14} {numbers[name] + NUCLEAR_REPULSION:.6f}")
    print(
        f"      measured {numbers['measured'] + NUCLEAR_REPULSION:.4f} ± {numbers['stderr']:.4f}"
        f" with {numbers['shots']:.0f} shots"
    )
    return numbers


if __name__ == "__main__":
    main()
