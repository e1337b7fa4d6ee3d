"""Paths on the command line; an empty one, as of an unset variable, is none of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if not os.fspath(value):
            self.fail("it is empty: name a file or folder (`.` is the current folder)", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
TEXT_PATH = _Path(path_type=str)
NEW_FILE = _Path(dir_okay=False, path_type=Path)
NEW_FOLDER = _Path(file_okay=False, path_type=Path)
FOLDER = _Path(exists=True, file_okay=False, path_type=Path)
