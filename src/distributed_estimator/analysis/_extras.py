"""Libraries that not everybody has, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError


def required(package: str, purpose: str) -> Any:
    """The module of a package from the extra `analysis`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, "analysis", purpose) from error
