"""A simulated fleet of QPUs: real values, modelled time.

What a network, queues, rate limits and unlike devices do to a run can be studied with it where
there is no QPU. Values come from a simulator; only the time they take is made up, and every name
says so.
"""

from .device import SimulatedQPU
from .fleet import Fleet
from .router import soonest
from .spec import Background, Calibration, DeviceSpec, homogeneous

__all__ = [
    "Background",
    "Calibration",
    "DeviceSpec",
    "Fleet",
    "SimulatedQPU",
    "homogeneous",
    "soonest",
]
