"""Backends, which evaluate subexperiments."""

from .statevector import StatevectorBackend

__all__ = ["StatevectorBackend"]


def __dir__() -> list[str]:
    return sorted(__all__)
