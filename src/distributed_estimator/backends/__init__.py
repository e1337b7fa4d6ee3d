"""What evaluates subexperiments."""

from .base import Backend
from .statevector import StatevectorBackend

__all__ = ["Backend", "StatevectorBackend"]
