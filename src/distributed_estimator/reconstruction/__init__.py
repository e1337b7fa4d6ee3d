"""From functionals to values, standard errors and environments. Pure."""

from .network import Network as Network
from .reconstruction import Queries as Queries
from .reconstruction import Reconstruction as Reconstruction
from .reconstruction import Wanted as Wanted
from .slicing import SliceWork as SliceWork
from .slicing import run_here as run_here
from .tensors import FragmentTensor as FragmentTensor
