"""Imported by the fork server, so that workers have their modules from the start.

The environment that these were imported with is not for what the server starts for others.
"""

from ..pinning import restore_environment
from .process_worker import serve

__all__ = ["serve"]

restore_environment()
