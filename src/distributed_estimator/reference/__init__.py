"""The paper's own pipeline on qiskit-addon-cutting and Aer, for comparison."""

from .estimator import ReferenceEstimator

__all__ = ["ReferenceEstimator"]


def __dir__() -> list[str]:
    return sorted(__all__)
