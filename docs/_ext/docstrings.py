"""Makes reStructuredText of docstrings where their plain text would be taken for markup."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_CODE = re.compile(r"(`[^`]*`)")
_BARE = re.compile(r"\||(?<=\()\*")


def as_text(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Escapes `|x|` and `(*shape, n)`."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = _escaped(line)


def without_types(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Puts back what Napoleon takes for an attribute's type: the text in front of a colon."""
    if what in {"attribute", "data", "property"} and lines and lines[-1].startswith(":type: "):
        lines[0] = f"{lines.pop().removeprefix(':type: ')}: {lines[0]}"


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    parts[::2] = [_BARE.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def with_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Puts a dash where Sphinx puts two hyphens: between a parameter and what it is."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the extension."""
    app.connect("autodoc-process-docstring", as_text, priority=400)
    app.connect("autodoc-process-docstring", without_types, priority=600)
    app.connect("doctree-read", with_dashes)
    return {"version": "1", "parallel_read_safe": True}
