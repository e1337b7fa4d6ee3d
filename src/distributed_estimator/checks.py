"""Checks of arguments and of optional packages that are made in many places."""

from __future__ import annotations

import importlib
import os
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import numpy as np

from .errors import InputError, MissingExtraError

MOST_WORKERS = 4096
LARGEST_PRECISION = 1e100
"""As a standard error: its square is a number."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; True and False are none.

    Example:
        >>> is_number(1), is_number(0.5), is_number(True), is_number("1")
        (True, True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def from_numpy(value: Any) -> Any:
    """A number of NumPy's as Python's; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_whole(name: str, value: Any, least: int = 1, otherwise: str = "") -> int:
    """A whole number, checked. One of NumPy's is none, as it is none in JSON; see `from_numpy`.

    Args:
        name: Of the argument, for the error.
        value: Its value.
        least: The smallest that is allowed.
        otherwise: What else may be given, for the error.

    Raises:
        InputError: It is none, or less than `least`.

    Example:
        >>> check_whole("epochs", 3)
        3
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(
            f"`{name}` is {described(value)}: give a whole number of at least {least}{otherwise}"
        )
    return value


def check_workers(value: Any) -> int:
    """A number of workers, checked: a whole number from 1 to `MOST_WORKERS`."""
    if check_whole("workers", from_numpy(value)) > MOST_WORKERS:
        raise InputError(f"`workers` is {described(value)}: {MOST_WORKERS} are the most")
    return int(value)


def check_precision(value: Any, name: str) -> None:
    """Raise `InputError` unless `value` is a number from 0 to `LARGEST_PRECISION`."""
    number = from_numpy(value)
    if not (is_number(number) and 0 <= number <= LARGEST_PRECISION):
        raise InputError(
            f"`{name}` is {value!r}: give a standard error above 0 and up to "
            f"{LARGEST_PRECISION:g}, or 0 for the exact value"
        )


def check_kind(name: str, value: object, kinds: Any, expected: str) -> None:
    """Raise `InputError` unless a value is an instance of one of `kinds`."""
    if not isinstance(value, kinds):
        raise InputError(f"`{name}` is {described(value)}: give {expected}")


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path that somebody gave.

    Raises:
        InputError: It is none, or empty as that of an unset variable, which `Path` would take for
            the current folder.

    Example:
        >>> given_path("runs/iris").name
        'iris'
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path!r} is no path: give text or a `pathlib.Path`")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"{text!r} is no path: name a file or folder (`.` is the current folder)")
    return Path(text)


def described(value: object) -> str:
    """A value for a message; a class is often given where an instance of it is meant.

    Example:
        >>> described(5), described(dict), described(object())
        ('5', 'the class dict, not an instance of it', 'an object of the class object')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}, not an instance of it"
    if type(value).__repr__ is object.__repr__:  # which would show an address
        return f"an object of the class {type(value).__name__}"
    return f"{value!r:.200}"


def require(module: str, extra: str, purpose: str, package: str | None = None) -> Any:
    """Import a module of an optional package.

    Args:
        module: Dotted name.
        extra: The extra of ours that installs it.
        purpose: What needs it, for the message.
        package: The name that pip installs it by, where that is another.

    Raises:
        MissingExtraError: It is not installed; the message holds the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package or module, extra, purpose) from error


class Fixed:
    """Refuses to change what was given to the constructor later, as that would have no effect.

    Its direct subclasses set those arguments that are attributes, too, in `__dict__`.
    """

    _fixed: ClassVar[frozenset[str]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Fixed in cls.__bases__:
            cls._fixed = frozenset(signature(cls.__init__).parameters)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._fixed:
            kind = type(self).__name__
            raise AttributeError(
                f"`{name}` of a {kind} cannot be changed: make a new {kind}({name}=...)"
            )
        super().__setattr__(name, value)
