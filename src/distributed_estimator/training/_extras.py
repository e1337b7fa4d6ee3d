"""Packages that not everybody has, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError


def optional_import(module: str, package: str, extra: str, purpose: str) -> Any:
    """Imports a module of an optional package.

    Args:
        module: Dotted name.
        package: The name that pip installs it by.
        extra: The extra of ours that installs it.
        purpose: What needs it, for the message.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package, extra, purpose) from error
