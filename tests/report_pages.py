"""A report page taken apart."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

VOID = {"meta", "link"}


class Structure(HTMLParser):
    """Elements, ids and text of a page; fails where tags do not close as they were opened."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def attributes(self, name):
        """Values of an attribute, of all elements."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def count(self, tag):
        return sum(found == tag for found, _ in self.elements)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(path):
    """A page's text, structure and charts."""
    html = path.read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    charts = json.loads(found.group(1))["charts"]
    return SimpleNamespace(html=html, parsed=Structure(html), charts=charts)


def marks(spec):
    """All marks of a chart."""
    return [
        mark
        for panel in spec["panels"]
        for mark in (
            [mark for group in panel["groups"] for row in group["rows"] for mark in row["marks"]]
            if "groups" in panel
            else [point for series in panel["series"] for point in series["points"]]
        )
    ]
