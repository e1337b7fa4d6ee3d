"""The packages of the extra `ml`, imported in one place, so that a missing one is named with it.

PyTorch's compiler and scikit-learn come later, with the first optimiser and data set: each takes
nearly as long to import as all of these.
"""

from ..errors import MissingExtraError

try:
    import qiskit_machine_learning.neural_networks
    import qiskit_machine_learning.utils
    import safetensors
    import safetensors.torch
    import torch
except ImportError as error:
    raise MissingExtraError(error.name or "torch", "ml", "training") from error

__all__ = ["qiskit_machine_learning", "safetensors", "torch"]
