"""Packages that not everybody has, imported where they are needed."""

from __future__ import annotations

from typing import Any

from ..checks import require


def optional_import(module: str, package: str, extra: str, purpose: str) -> Any:
    """Imports a module of an optional package; see `require`."""
    return require(module, extra, purpose, package)
