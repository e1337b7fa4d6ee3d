"""Backends, which evaluate subexperiments."""

from .statevector import StatevectorBackend

__all__ = ["StatevectorBackend"]
