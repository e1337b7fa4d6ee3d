"""What earlier runs saw of fragments, which takes the place of a pilot where it is near enough."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..cutting import FloatArray
from ..forks import Lock

_FADING = 0.5
"""Part of the shots that are remembered which still count in the next run."""
_NEAR = 0.25
"""Mean square of the difference of angles (radians²) up to which rows are alike."""
_MOST_ROWS = 4096
_MOST_KEYS = 64

Counts = list[FloatArray]
"""Of a fragment, by measurement group, as in `FragmentResult`; empty where it does not run."""


@dataclass(eq=False)
class Priors:
    """Counts of outcomes by the angles they were seen at, for every kind of question to a plan."""

    _known: OrderedDict[Hashable, list[tuple[FloatArray, Counts]]] = field(
        default_factory=OrderedDict
    )
    _lock: Lock = field(default_factory=Lock)

    def recall(self, key: Hashable, rows: Sequence[FloatArray]) -> list[Counts] | None:
        """What was seen nearest to local bindings of each fragment, faded.

        Args:
            key: Names what is asked: the parameters to differentiate by, or None.
            rows: Of each fragment, shape (rows, angles).

        Returns:
            By fragment; None where some row is like none that is known.
        """
        with self._lock:
            known = self._known.get(key)
        if known is None or not all(map(len, rows)):
            return None
        recalled: list[Counts] = []
        for (angles, counts), wanted in zip(known, rows, strict=True):
            if not counts:
                recalled.append([])
                continue
            # On the circle, |e^ix - e^iy|² is (x - y)² where they are near.
            points, others = np.exp(1j * wanted), np.exp(1j * angles)
            distances = 2 * wanted.shape[1] - 2 * (points.conj() @ others.T).real
            nearest = distances.argmin(axis=1)
            worst = distances[np.arange(len(wanted)), nearest].max(initial=0.0)
            if worst > _NEAR * max(1, wanted.shape[1]):
                return None
            recalled.append([_FADING * own[nearest] for own in counts])
        return recalled

    @property
    def state(self) -> list[Any]:
        """What is known, as lists and arrays, for `restore`."""
        with self._lock:
            return [[key, known] for key, known in self._known.items()]

    def restore(self, state: list[Any]) -> None:
        """Know what others knew, and nothing else."""
        with self._lock:
            self._known = OrderedDict((key, known) for key, known in state)

    def remember(self, key: Hashable, rows: Sequence[FloatArray], counts: Sequence[Counts]) -> None:
        """Keep what was seen, before what was known."""
        if not all(map(len, rows)):
            return
        with self._lock:
            known = self._known.pop(key, None)
            if known is None:
                known = [
                    (angles[:0], [own[:0] for own in seen])
                    for angles, seen in zip(rows, counts, strict=True)
                ]
            self._known[key] = [
                (
                    np.concatenate([angles, before])[:_MOST_ROWS],
                    [np.concatenate(both)[:_MOST_ROWS] for both in zip(seen, old, strict=True)],
                )
                for angles, seen, (before, old) in zip(rows, counts, known, strict=True)
            ]
            while len(self._known) > _MOST_KEYS:
                self._known.popitem(last=False)
