"""Every gate of Qiskit's library: those of one or two qubits with their number of angles."""

from __future__ import annotations

from itertools import product

import numpy as np
from qiskit.circuit import library
from qiskit.quantum_info import Pauli, SparsePauliOp, random_statevector, random_unitary

ONE_QUBIT = {
    "HGate": 0,
    "IGate": 0,
    "PhaseGate": 1,
    "RGate": 2,
    "RXGate": 1,
    "RYGate": 1,
    "RZGate": 1,
    "SGate": 0,
    "SXGate": 0,
    "SXdgGate": 0,
    "SdgGate": 0,
    "TGate": 0,
    "TdgGate": 0,
    "U1Gate": 1,
    "U2Gate": 2,
    "U3Gate": 3,
    "UGate": 3,
    "XGate": 0,
    "YGate": 0,
    "ZGate": 0,
}

CONTROLLED = {
    "CHGate": 0,
    "CPhaseGate": 1,
    "CRXGate": 1,
    "CRYGate": 1,
    "CRZGate": 1,
    "CSGate": 0,
    "CSXGate": 0,
    "CSdgGate": 0,
    "CU1Gate": 1,
    "CU3Gate": 3,
    "CUGate": 4,
    "CXGate": 0,
    "CYGate": 0,
    "CZGate": 0,
}

TWO_QUBIT = {
    **CONTROLLED,
    "DCXGate": 0,
    "ECRGate": 0,
    "RXXGate": 1,
    "RYYGate": 1,
    "RZXGate": 1,
    "RZZGate": 1,
    "SwapGate": 0,
    "XXMinusYYGate": 2,
    "XXPlusYYGate": 2,
    "iSwapGate": 0,
}

THREE_QUBIT = {"CCXGate": 0, "CCZGate": 0, "CSwapGate": 0, "RCCXGate": 0}

ANGLES = {**ONE_QUBIT, **TWO_QUBIT, **THREE_QUBIT}
PARAMETRIC = [name for name in (*ONE_QUBIT, *TWO_QUBIT) if ANGLES[name]]
MAXIMALLY_CUT = {"SwapGate", "iSwapGate", "DCXGate"}
"""Gates of operator-Schmidt rank 4: sixteen coordinates a side."""

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
