"""Checks of what a configuration is made of."""

from __future__ import annotations

from ..checks import check_whole
from ..errors import InputError


def check_seed(value: object) -> None:
    """Raises InputError unless `value` is a seed that every library takes."""
    check_whole("seed", value, 0)
    if isinstance(value, int) and value >= 2**32:
        raise InputError(f"`seed` is {value}: give a number below 2**32")
