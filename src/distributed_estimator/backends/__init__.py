"""What evaluates subexperiments."""

from .statevector import StatevectorBackend

__all__ = ["StatevectorBackend"]
