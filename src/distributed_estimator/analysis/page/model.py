"""What a page is made of, as plain text and numbers; the template turns it into HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]
"""A chart as the page's script takes it."""


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page; `href` is a relative URL."""

    text: str
    href: str


@dataclass(frozen=True)
class Column:
    """A column of a table, and whether it holds numbers."""

    name: str
    number: bool


@dataclass(frozen=True)
class Table:
    """A table of text."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sources:
    """Where a figure comes from, and the command that makes it again."""

    files: tuple[Link, ...] = ()
    records: tuple[Link, ...] = ()
    command: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart with its table.

    Attributes:
        id: Of its element, from the code and not from data.
        title: Its heading.
        chart: What to draw; None: nothing.
        table: Its numbers.
        notes: What a reader must know.
        sources: Where it comes from.
        missing: What to say where nothing was measured.
    """

    id: str
    title: str
    chart: Spec | None = None
    table: Table | None = None
    notes: tuple[str, ...] = ()
    sources: Sources | None = None
    missing: str = ""


@dataclass(frozen=True)
class CardLine:
    """A number on a card; `state` is "met", "unmet" or "open"."""

    what: str
    value: str
    more: str
    outcome: str
    state: str


@dataclass(frozen=True)
class Card:
    """Numbers that answer one question; a wide card has long names in front of them."""

    title: str
    told: str
    lines: tuple[CardLine, ...]
    wide: bool = False


@dataclass(frozen=True)
class Because:
    """A sentence of an explanation; `figure` is the id of the one that holds its numbers."""

    text: str
    measured: bool = True
    figure: str = ""


@dataclass(frozen=True)
class Remarks:
    """Remarks of one kind."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A part of a page; `id` is from the code and not from data."""

    id: str
    title: str
    intro: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    reasons: tuple[Because, ...] = ()
    remarks: tuple[Remarks, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    foot: str

    @property
    def charts(self) -> dict[str, Spec]:
        """Its charts by the id of their figure."""
        return {
            figure.id: figure.chart
            for section in self.sections
            for figure in section.figures
            if figure.chart is not None
        }
