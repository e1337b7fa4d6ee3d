"""What a tracker has to be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

Held = set[tuple[str, int]]
"""Names of scalars with the epochs they are held for."""


class Tracker(Protocol):
    """Where records go. Any method may fail in any way; none leaves half a scalar behind."""

    def open(self, run_id: str) -> Held:
        """Finds what is tracked of a run, or begins to track it."""

    def write(self, epoch: int, scalars: Mapping[str, float], when: float) -> None:
        """Adds scalars of an epoch; `when` is in seconds since 1970."""

    def close(self, outcome: str) -> None:
        """Says how the session ended, in MLflow's words."""


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The values of nested documents, under dotted names."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
