"""From a circuit to a plan: which gates and wires are cut, into which fragments. Pure."""

from .channels import LocalOperation, SettingBasis, Side, SlotBasis
from .fragments import Cut, Fragment, Slot
from .gates import ComplexArray, FloatArray, IntArray
from .plan import AutoCut, CutPlan, Labels, check_cuts
from .rewrite import Operation

__all__ = [
    "AutoCut",
    "ComplexArray",
    "Cut",
    "CutPlan",
    "FloatArray",
    "Fragment",
    "Operation",
    "IntArray",
    "Labels",
    "LocalOperation",
    "SettingBasis",
    "Side",
    "Slot",
    "SlotBasis",
    "check_cuts",
]
