"""Data sets a quantum neural network is trained on, split and scaled the same way for every run.

A workload depends on its `WorkloadConfig` alone, never on how the circuit is cut: runs that share
one see the same samples, which is what makes cut and uncut runs comparable (paper §V-A).

Sources (`sources`, `mnist`, `files`) give raw samples; `load_workload` picks two classes, splits,
thins, reduces and scales them. Nothing is downloaded, unpickled or written.
"""

from .config import ALIASES, WORKLOADS, WorkloadConfig
from .load import load_workload
from .workload import FEATURE_RANGE, FloatArray, Workload

__all__ = [
    "ALIASES",
    "FEATURE_RANGE",
    "WORKLOADS",
    "FloatArray",
    "Workload",
    "WorkloadConfig",
    "load_workload",
]
