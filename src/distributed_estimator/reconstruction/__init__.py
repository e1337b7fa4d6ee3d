"""From functionals to values, standard errors and environments. Pure."""

from .accumulate import FragmentTensor, Queries, Reconstruction
from .network import Network

__all__ = ["FragmentTensor", "Network", "Queries", "Reconstruction"]
