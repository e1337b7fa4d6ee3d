"""Every gate of Qiskit's library: those of one or two qubits with their number of angles."""

from __future__ import annotations

from itertools import product

import numpy as np
from qiskit.circuit import ControlledGate, Gate, library
from qiskit.quantum_info import Pauli, SparsePauliOp, random_statevector, random_unitary

STANDARD = {
    gate.base_class.__name__: gate
    for gate in library.get_standard_gate_name_mapping().values()
    if isinstance(gate, Gate)
}
ONE_QUBIT, TWO_QUBIT, THREE_QUBIT = (
    {name: len(gate.params) for name, gate in STANDARD.items() if gate.num_qubits == width}
    for width in (1, 2, 3)
)
CONTROLLED = [name for name in TWO_QUBIT if isinstance(STANDARD[name], ControlledGate)]
ANGLES = {**ONE_QUBIT, **TWO_QUBIT, **THREE_QUBIT}
PARAMETRIC = [name for name in (*ONE_QUBIT, *TWO_QUBIT) if ANGLES[name]]

VARIANTS = [
    *((name, None) for name in TWO_QUBIT),
    *((name, state) for name, state in product(CONTROLLED, (0, 1))),
]
"""Two-qubit gates with the states of their control; None for Qiskit's default."""


def make(name, angles=(), ctrl_state=None):
    """A gate by class name; a control state is Qiskit's default unless given."""
    extra = {} if ctrl_state is None else {"ctrl_state": ctrl_state}
    return getattr(library, name)(*angles, **extra)


MATRICES = [random_unitary(2, seed=seed).data for seed in range(4)]

OTHERS = {
    "AndGate": lambda: library.AndGate(2, [-1, 1]),
    "BitFlipOracleGate": lambda: library.BitFlipOracleGate("a & b"),
    "BitwiseXorGate": lambda: library.BitwiseXorGate(3, 5),
    "C3SXGate": library.C3SXGate,
    "C3XGate": library.C3XGate,
    "C4XGate": library.C4XGate,
    "DiagonalGate": lambda: library.DiagonalGate(np.exp(1j * np.arange(8))),
    "ExactReciprocalGate": lambda: library.ExactReciprocalGate(2, 0.5),
    "FullAdderGate": lambda: library.FullAdderGate(1),
    "GraphStateGate": lambda: library.GraphStateGate([[0, 1, 1], [1, 0, 0], [1, 0, 0]]),
    "HalfAdderGate": lambda: library.HalfAdderGate(1),
    "HamiltonianGate": lambda: library.HamiltonianGate(SparsePauliOp(["ZZ", "XI"]), 0.7),
    "InnerProductGate": lambda: library.InnerProductGate(2),
    "IntegerComparatorGate": lambda: library.IntegerComparatorGate(2, 1),
    "LinearAmplitudeFunctionGate": lambda: library.LinearAmplitudeFunctionGate(
        2, 0.3, 0.1, (0, 1), (0, 1)
    ),
    "LinearFunction": lambda: library.LinearFunction([[1, 1, 0], [0, 1, 0], [1, 1, 1]]),
    "LinearPauliRotationsGate": lambda: library.LinearPauliRotationsGate(2, 0.4, 0.3),
    "MCGupDiag": lambda: library.MCGupDiag(MATRICES[0], 1, 0, 0),
    "MCMTGate": lambda: library.MCMTGate(library.RXGate(0.3), 1, 2),
    "MCPhaseGate": lambda: library.MCPhaseGate(0.3, 2),
    "MCU1Gate": lambda: library.MCU1Gate(0.3, 2),
    "MCXGate": lambda: library.MCXGate(3),
    "MSGate": lambda: library.MSGate(3, 0.4),
    "ModularAdderGate": lambda: library.ModularAdderGate(2),
    "MultiplierGate": lambda: library.MultiplierGate(1),
    "OrGate": lambda: library.OrGate(2),
    "PauliEvolutionGate": lambda: library.PauliEvolutionGate(SparsePauliOp(["ZZ", "XI"]), 0.7),
    "PauliGate": lambda: library.PauliGate("XYZ"),
    "PauliProductRotationGate": lambda: library.PauliProductRotationGate(Pauli("XYZ"), 0.3),
    "PermutationGate": lambda: library.PermutationGate([2, 0, 3, 1]),
    "PhaseOracleGate": lambda: library.PhaseOracleGate("a & b | c"),
    "PiecewiseChebyshevGate": lambda: library.PiecewiseChebyshevGate(np.cos, 2, 2, [1, 3]),
    "PiecewiseLinearPauliRotationsGate": lambda: library.PiecewiseLinearPauliRotationsGate(
        2, [0, 2], [0.3, 0.2], [0.1, 0.2]
    ),
    "PiecewisePolynomialPauliRotationsGate": lambda: library.PiecewisePolynomialPauliRotationsGate(
        2, [0, 2], [[0.3, 0.2], [0.1, 0.2]]
    ),
    "PolynomialPauliRotationsGate": lambda: library.PolynomialPauliRotationsGate(2, [0.3, 0.2]),
    "QFTGate": lambda: library.QFTGate(3),
    "QuadraticFormGate": lambda: library.QuadraticFormGate(2, [[1, 0], [0, 1]], [1, 1], 1),
    "RC3XGate": library.RC3XGate,
    "RVGate": lambda: library.RVGate(0.1, 0.2, 0.3),
    "StatePreparation": lambda: library.StatePreparation(random_statevector(8, seed=1)),
    "UCGate": lambda: library.UCGate(MATRICES),
    "UCPauliRotGate": lambda: library.UCPauliRotGate([0.1, 0.2, 0.3, 0.4], "X"),
    "UCRXGate": lambda: library.UCRXGate([0.1, 0.2, 0.3, 0.4]),
    "UCRYGate": lambda: library.UCRYGate([0.1, 0.2, 0.3, 0.4]),
    "UCRZGate": lambda: library.UCRZGate([0.1, 0.2, 0.3, 0.4]),
    "UniformSuperpositionGate": lambda: library.UniformSuperpositionGate(5),
    "UnitaryGate": lambda: library.UnitaryGate(random_unitary(8, seed=1)),
}
"""All others, each once; `WeightedSumGate` is left out, which Qiskit writes out only with help."""
