"""Numbers, names and places as the page shows them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..escape import one_line
from ..study.groups import told_cuts
from ..study.rows import Sheet
from ..study.words import number
from .model import Column, Link, Table

_NOT_SHOWN = ("runs",)


def cell(value: Any) -> str:
    """What a table shows of a value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return number(value)
    return one_line(str(value))


def bar_name(dataset: str, series: str, cuts: int) -> str:
    """What a bar stands for; however long its names are, the cuts are told."""
    names = [one_line(name, 80) for name in (dataset, series) if name]
    return ", ".join([*names, told_cuts(cuts)])


def table_of(sheet: Sheet) -> Table | None:
    """A sheet's rows without their run ids; None where it has no row."""
    names = [
        name
        for name in sheet.columns
        if name not in _NOT_SHOWN and any(getattr(row, name) is not None for row in sheet.rows)
    ]
    if not sheet.rows:
        return None
    columns = tuple(
        Column(name.replace("_", " "), all(_is_number(getattr(row, name)) for row in sheet.rows))
        for name in names
    )
    rows = tuple(tuple(cell(getattr(row, name)) for name in names) for row in sheet.rows)
    return Table(sheet.title, columns, rows)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def href(target: Path, page: Path) -> str:
    """A relative URL from the folder of the page to a file."""
    return quote(Path(os.path.relpath(target, page)).as_posix())


def record_links(folders: Iterable[Path], page: Path) -> tuple[Link, ...]:
    """Links to folders of records, by their names."""
    return tuple(Link(one_line(folder.name, 40), href(folder, page) + "/") for folder in folders)
