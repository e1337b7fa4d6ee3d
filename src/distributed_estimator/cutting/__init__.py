"""From a circuit to a plan: which gates and wires are cut, into which fragments. Pure."""

from .channels import LocalOperation, SettingBasis, Side, SlotBasis
from .drawing import Drawing
from .fragments import Cut, Fragment, Slot
from .gates import BoolArray as BoolArray
from .gates import ComplexArray as ComplexArray
from .gates import FloatArray as FloatArray
from .gates import IntArray as IntArray
from .marks import CutAt
from .plan import CutPlan, Cuts, Labels, check_cuts
from .rewrite import CutWire, Operation
from .search import AutoCut, Prediction, SizedDevice

__all__ = [
    "AutoCut",
    "Cut",
    "CutAt",
    "CutPlan",
    "CutWire",
    "Cuts",
    "Drawing",
    "Fragment",
    "Labels",
    "LocalOperation",
    "Operation",
    "Prediction",
    "SettingBasis",
    "Side",
    "SizedDevice",
    "Slot",
    "SlotBasis",
    "check_cuts",
]


def __dir__() -> list[str]:
    return sorted(__all__)
