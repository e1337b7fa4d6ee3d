"""What crosses to other processes: pickled works and tasks, of versions that both ends have."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import cloudpickle

from ...errors import InputError, PoolError
from ...records.schema import installed
from ..messages import Job, Work

PACKAGES = ("distributed-estimator", "numpy", "qiskit", "scipy", "cloudpickle")
"""Distributions whose versions decide the meaning of pickles, and the numbers that come out."""

_MOST_PACKED = 8
_MOST_BYTES = 256 << 20
_MOST_NAMED = 8


class Packer:
    """Pickles works, and keeps the last few."""

    def __init__(self) -> None:
        self._packed: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, work: Work) -> bytes:
        """The work, pickled; by value where its classes are the caller's own script's.

        Raises:
            InputError: It cannot be sent to another process.
        """
        with self._lock:
            if work.key not in self._packed:
                self._packed[work.key] = _pickled(work, "`backend`", "a backend that pickles")
                while len(self._packed) > 1 and (
                    len(self._packed) > _MOST_PACKED
                    or sum(map(len, self._packed.values())) > _MOST_BYTES
                ):
                    self._packed.popitem(last=False)
            return self._packed[work.key]


def pack_items(job: Job) -> bytes:
    """A job's items, pickled; by value where their classes are the caller's own script's.

    Raises:
        InputError: They cannot be sent to another process.
    """
    return _pickled(job.items, "a task", "tasks that pickle")


def _pickled(content: Any, name: str, remedy: str) -> bytes:
    try:
        return bytes(cloudpickle.dumps(content))
    except Exception as error:
        raise InputError(
            f"{name} cannot be sent to another process ({type(error).__name__}: {error}): use "
            f'pool="threads", or {remedy}'
        ) from error


def own_versions() -> dict[str, str | None]:
    """Versions of this process: Python's as "major.minor", packages' in full, None where absent."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, **{name: installed(name) for name in PACKAGES}}


def check_versions(theirs: Mapping[str, Mapping[str, str | None]]) -> None:
    """Compare workers with this process.

    Args:
        theirs: By worker, the result of `own_versions` there. A package that is not named counts
            as not installed.

    Raises:
        PoolError: Some worker differs; the message names each difference.
    """
    differences: dict[str, list[str]] = {}
    for worker, versions in theirs.items():
        for name, own in own_versions().items():
            if (found := versions.get(name)) != own:
                there, here = found or "(not installed)", own or "(not installed)"
                differences.setdefault(f"{name} {there} instead of {here}", []).append(worker)
    if differences:
        listed = "; ".join(f"{what} on {_named(on)}" for what, on in differences.items())
        raise PoolError(
            f"workers differ from this process: {listed}. Install on every worker what is "
            "installed here, `pip install distributed-estimator` and the versions above"
        )


def _named(workers: list[str]) -> str:
    more = len(workers) - _MOST_NAMED
    return ", ".join(workers[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
