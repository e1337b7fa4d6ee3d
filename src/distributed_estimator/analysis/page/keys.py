"""Series of charts: colours that the paper uses, and patterns that do without colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..study.groups import told_cuts
from ..tables import STAGES

CUTS = (("blue", "plain"), ("orange", "stripes"), ("green", "dots"), ("red", "crosses"))
_MORE = ("grey", "backward")
_STAGES = (("pink", "dots"), ("green", "stripes"), ("blue", "plain"), ("orange", "crosses"))
_CYCLE = (*CUTS, ("pink", "backward"), ("grey", "level"))
SHAPES = ("circle", "square", "diamond", "triangle")
_DASHES = (None, "7 3", "2 3", "9 3 2 3")


def key(identity: str, label: str, look: tuple[str, str], place: int = 0) -> dict[str, Any]:
    """A series: colour and pattern, and where it is a curve its marker and dashes."""
    return {
        "id": identity,
        "label": label,
        "colour": look[0],
        "pattern": look[1],
        "shape": SHAPES[place % len(SHAPES)],
        "dash": _DASHES[place % len(_DASHES)],
    }


def cut_id(cuts: int) -> str:
    """The series of a number of cuts."""
    return f"cuts-{cuts}"


def cut_keys(found: Iterable[int]) -> list[dict[str, Any]]:
    """A series for each number of cuts, in the paper's colours."""
    return [
        key(cut_id(cuts), told_cuts(cuts), CUTS[cuts] if cuts < len(CUTS) else _MORE, cuts)
        for cuts in sorted(set(found))
    ]


def stage_keys() -> list[dict[str, Any]]:
    """A series for each stage of a query."""
    return [key(name, name, look) for (name, _), look in zip(STAGES, _STAGES, strict=True)]


def fragment_keys(fragments: Iterable[int]) -> list[dict[str, Any]]:
    """A series for each fragment of a circuit."""
    return [
        key(f"fragment-{number}", f"fragment {number}", _CYCLE[number % len(_CYCLE)], number)
        for number in sorted(set(fragments))
    ]


def curve_keys(labels: Iterable[str]) -> list[dict[str, Any]]:
    """A series for each of some curves, by their place."""
    return [
        key(f"curve-{place}", label, _CYCLE[place % len(_CYCLE)], place)
        for place, label in enumerate(labels)
    ]
