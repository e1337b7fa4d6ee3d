"""Checks of what a configuration is made of."""

from __future__ import annotations

from ..errors import InputError


def check_whole(name: str, value: object, least: int) -> None:
    """Raises InputError unless `value` is a whole number of at least `least`.

    Example:
        >>> check_whole("epochs", 3, 1)
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"`{name}` is {value!r}: give a whole number of at least {least}")


def check_seed(value: object) -> None:
    """Raises InputError unless `value` is a seed that every library takes."""
    check_whole("seed", value, 0)
    if isinstance(value, int) and value >= 2**32:
        raise InputError(f"`seed` is {value}: give a number below 2**32")
