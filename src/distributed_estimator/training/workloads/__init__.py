"""Data sets a quantum neural network is trained on, split and scaled the same way for every run.

A workload depends on its `WorkloadConfig` alone, never on how the circuit is cut: runs that share
one see the same samples, which makes cut and uncut runs comparable (paper §V-A). `sources` and
`files` give raw samples, of which `load_workload` makes a `Workload`. Nothing is downloaded,
unpickled or written.
"""

from .config import ALIASES, FEATURE_RANGE, WORKLOADS, FloatArray, WorkloadConfig
from .workload import Workload, load_workload

__all__ = [
    "ALIASES",
    "FEATURE_RANGE",
    "WORKLOADS",
    "FloatArray",
    "Workload",
    "WorkloadConfig",
    "load_workload",
]
