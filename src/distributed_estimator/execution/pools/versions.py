"""Workers on other machines must run the same versions: what is sent to them is pickled."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ...errors import PoolError
from ...records.schema import installed

PACKAGES = ("distributed-estimator", "numpy", "qiskit", "scipy", "cloudpickle")
"""Distributions whose versions decide what pickles mean, and what numbers come out."""

_MOST_NAMED = 8


def own_versions() -> dict[str, str | None]:
    """Versions of this process: Python's as "major.minor", packages' in full, None where absent."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, **{name: installed(name) for name in PACKAGES}}


def check_versions(theirs: Mapping[str, Mapping[str, str | None]]) -> None:
    """Compare workers with this process.

    Args:
        theirs: By worker, what `own_versions` says there. A package that is not named counts as
            not installed.

    Raises:
        PoolError: Some worker differs; the message names each difference.
    """
    own = own_versions()
    differences: dict[str, list[str]] = {}
    for worker, versions in theirs.items():
        for name, version in own.items():
            if versions.get(name) != version:
                told = f"{name} {_told(versions.get(name))} instead of {_told(version)}"
                differences.setdefault(told, []).append(worker)
    if differences:
        listed = "; ".join(f"{told} on {_named(on)}" for told, on in differences.items())
        raise PoolError(
            f"workers differ from this process: {listed}. Install on every worker what is "
            "installed here, `pip install distributed-estimator` and the versions above"
        )


def _told(version: str | None) -> str:
    return "(not installed)" if version is None else version


def _named(workers: list[str]) -> str:
    more = len(workers) - _MOST_NAMED
    return ", ".join(workers[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
