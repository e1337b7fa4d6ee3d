"""Every one- and two-qubit gate of Qiskit's standard library, and how many angles it takes."""

from __future__ import annotations

from itertools import product

from qiskit.circuit import library

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
