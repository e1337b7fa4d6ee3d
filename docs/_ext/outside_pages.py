"""Keeps links right between pages and the files of the repository that pages include.

In the repository `[contributing](../CONTRIBUTING.md)` opens the file; on the site the same link has
to open the page that includes it. And a link in an included file is relative to that file. Files
that no page shows (YAML, Python) become downloads.
"""

import posixpath
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

PAGES = {
    "../CHANGELOG.md": "project/changelog",
    "../CONTRIBUTING.md": "project/contributing",
    "../SECURITY.md": "project/security",
    "../examples/README.md": "how-to/examples",
    "../README.md": "index",
    "README.md": "index",
    "decisions/README.md": "decisions/index",
}
"""The page that includes a file, by the file's path from `docs`."""
_FILES = {page: file for file, page in PAGES.items()}


def lead_to_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Gives links the targets that they have on the site."""
    page = app.env.current_document.docname
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link.get("reftype") != "myst":
            continue
        if link.get("refdomain") == "doc":
            file = posixpath.relpath(app.srcdir / link["reftarget"], app.srcdir) + ".md"
            link["reftarget"] = PAGES.get(file, link["reftarget"])
        elif page in _FILES:
            _offer(app, link, posixpath.join("/", posixpath.dirname(_FILES[page])))


def _offer(app: Sphinx, link: addnodes.pending_xref, folder: str) -> None:
    """Makes a download of a link to a file beside the one that is included."""
    target = posixpath.join(folder, link["reftarget"])
    if (app.srcdir / target.lstrip("/")).is_file():
        download = addnodes.download_reference("", *link.children, **link.attributes)
        download["reftarget"] = target
        link.replace_self(download)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the extension."""
    # Before Sphinx collects what is to be downloaded.
    app.connect("doctree-read", lead_to_pages, priority=400)
    return {"version": "1", "parallel_read_safe": True}
