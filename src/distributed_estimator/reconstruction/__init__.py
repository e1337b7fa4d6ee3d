"""From functionals to values, standard errors and environments. Pure."""

from .network import Network
from .reconstruction import Queries, Reconstruction, Wanted
from .slicing import RunSlices, SliceWork, run_here
from .tensors import FragmentTensor

__all__ = [
    "FragmentTensor",
    "Network",
    "Queries",
    "Reconstruction",
    "RunSlices",
    "SliceWork",
    "Wanted",
    "run_here",
]
