"""Report pages and Markdown from templates: every text from data is escaped, nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import RecordError
from ..records import plain
from .charts import Figure, environment, page_specification
from .escape import MOST_SHOWN, markdown, one_line

_GENERATOR = '<meta name="generator" content="distributed-estimator">'
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}

Rows = list[dict[str, Any]]


def require_jinja() -> None:
    """Raises MissingExtraError, with the install command, if no page can be made."""
    environment()


def page(
    template: str, drawn: Mapping[str, Figure | Sequence[tuple[str, Figure]]], **values: Any
) -> str:
    """A page as one HTML file with its styles, scripts and data.

    Scripts and styles other than the page's own are refused by the browser: the page's content
    security policy names the hashes of its own.

    Args:
        template: Its name.
        drawn: By the id of their element, a figure, or several with their labels to choose from.
        values: Whatever else the template needs.

    Raises:
        MissingExtraError: Jinja2 or vl-convert is not installed.
    """
    from markupsafe import Markup

    parts = {
        "style": _asset("page.css"),
        "library": _library(),
        "script": _asset("page.js"),
    }
    return (
        environment()
        .get_template(template)
        .render(
            **values,
            **{name: Markup(text) for name, text in parts.items()},
            hashes={name: _hash(text) for name, text in parts.items()},
            data=Markup(json_in_html({name: _document(one) for name, one in drawn.items()})),
        )
    )


@cache
def _library() -> str:
    """Vega with all it needs, as one script."""
    from vl_convert import javascript_bundle

    return javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _document(figure: Figure | Sequence[tuple[str, Figure]]) -> dict[str, Any]:
    if not isinstance(figure, Figure):
        return {"choices": [{"label": label, **_document(one)} for label, one in figure]}
    panels = [page_specification(panel) for panel in figure.panels]
    return {"panels": panels, "colours": dict(figure.colours), "log": figure.logarithmic}


def markdown_page(template: str, **values: Any) -> str:
    """A page in Markdown."""
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        if isinstance(value, Markup | int | float):
            return value
        return Markup(markdown(str(value), MOST_SHOWN))

    return environment(finalize=shown).get_template(template).render(**values)


def check_page(path: Path, mark: str = _GENERATOR) -> None:
    """Raises RecordError where a file that is no page of ours, without its mark, would be lost."""
    try:
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    if text and mark not in text:
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


def environment_facts(environments: Sequence[Mapping[str, Any]]) -> Rows:
    """Machine, threads, versions and commit that made some records, each distinct one once."""
    facts: dict[str, list[str]] = {"Machine": [], "Threads": [], "Versions": [], "Commit": []}
    for one in environments:
        machine = one.get("machine") or {}
        memory = machine.get("memory_bytes")
        parts = [
            one.get("processor"),
            f"{machine['cpu_count']} processors" if machine.get("cpu_count") else None,
            f"{memory / 2**30:.0f} GiB" if isinstance(memory, int) else None,
            *(machine.get(name) for name in ("system", "architecture")),
        ]
        facts["Machine"].append(", ".join(str(part) for part in parts if part))
        threads = (one.get("threads") or {}).items()
        facts["Threads"].append(
            ", ".join(f"{name} = {value or 'not set'}" for name, value in threads)
        )
        versions = (one.get("versions") or {}).items()
        facts["Versions"].append(", ".join(f"{name} {value}" for name, value in versions if value))
        dirty = " with uncommitted changes" if one.get("dirty") else ""
        facts["Commit"].append(f"{one['commit']}{dirty}" if one.get("commit") else "")
    return [
        {
            "what": name,
            "which": one_line("; ".join(dict.fromkeys(filter(None, texts))), 600) or "not known",
        }
        for name, texts in facts.items()
    ]


def _asset(name: str) -> str:
    return files(__package__ or "").joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    """As a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def href(target: Path, place: Path) -> str:
    """A relative URL from the folder of a page to a folder."""
    return quote(Path(os.path.relpath(target, place)).as_posix()) + "/"
