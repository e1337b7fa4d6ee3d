"""One HTML file out of a page: styles, script and data within, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtraError, RecordError
from ...records import plain
from .model import Page

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = ("dom.js", "rows.js", "lines.js", "chart.js", "page.js")
_GENERATOR = '<meta name="generator" content="distributed-estimator">'
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def require_jinja() -> None:
    """Raises MissingExtraError, with the install command, if no page can be made."""
    _environment()


def render(page: Page) -> str:
    """The page as HTML.

    All text is escaped. Scripts and styles other than the page's own are refused by the browser:
    the page's content security policy names the hashes of its own.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    from markupsafe import Markup

    style, script = _asset("page.css"), "".join(_asset(name) for name in SCRIPTS)
    template = _environment().from_string(_asset("page.html"))
    return template.render(
        page=page,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        data=Markup(json_in_html({"charts": page.charts})),
    )


def check_page(path: Path) -> None:
    """Raises RecordError where a file that is no page of ours would be lost."""
    try:
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    if text and _GENERATOR not in text:
        raise RecordError(
            f"`{path}` is there and is no report page: move it away, or name another place with "
            "--out"
        )


def json_in_html(document: Any) -> str:
    r"""JSON that stands in a script element and cannot end it, in ASCII letters.

    Example:
        >>> json_in_html({"name": "</script>\u2028"})
        '{"name":"\\u003c/script\\u003e\\u2028"}'
    """
    text = json.dumps(plain(document), allow_nan=False, separators=(",", ":"))
    for letter, escaped in _ESCAPED.items():
        text = text.replace(letter, escaped)
    return text


def _environment() -> Environment:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "a report page") from error
    return Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    """As a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
