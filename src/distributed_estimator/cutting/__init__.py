"""From a circuit to a plan: which gates and wires are cut, into which fragments. Pure."""

from .channels import LocalOperation, SettingBasis, Side, SlotBasis
from .fragments import Cut, Fragment, Slot
from .gates import BoolArray as BoolArray
from .gates import ComplexArray as ComplexArray
from .gates import FloatArray as FloatArray
from .gates import IntArray as IntArray
from .marks import CutAt
from .plan import AutoCut, CutPlan, Cuts, Labels, check_cuts
from .rewrite import Operation

__all__ = [
    "AutoCut",
    "Cut",
    "CutAt",
    "CutPlan",
    "Cuts",
    "Fragment",
    "Labels",
    "LocalOperation",
    "Operation",
    "SettingBasis",
    "Side",
    "Slot",
    "SlotBasis",
    "check_cuts",
]
