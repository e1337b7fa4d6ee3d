"""Links of the documentation where it is read in the repository; `make docs` checks the site."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "examples/*.md")
    for path in ROOT.glob(pattern)
)
_CODE = re.compile(r"^(`{3,}).*?^\1`*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


def text_of(path: Path) -> str:
    """A page's Markdown; of a notebook, that of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors_of(text: str) -> set[str]:
    """The anchors of a page's headings, as repository hosts make them."""
    without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = _HEADING.findall(without_blocks)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_CODE.sub("", text_of(page))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors_of(text_of(target)):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A `title`, here\n\n```sh\n# not one\n```\n")
    page.write_text(
        "[a](other.md#a-title-here) [b](gone.md) [c](other.md#not-one) `[d](gone.md)` "
        "[e](https://example.org)\n"
    )
    assert list(broken_links(page)) == [
        "gone.md: no such file",
        "other.md#not-one: no such heading",
    ]


@pytest.mark.parametrize("folder", ["how-to", "tutorials"])
def test_the_landing_page_lists_every_guide(folder: str) -> None:
    landing = text_of(ROOT / "docs" / "README.md")
    # A guide that shows a file of the repository is listed by that file.
    included = re.compile(r"\A```\{include\} \.\./(\S+)")
    for page in (ROOT / "docs" / folder).glob("[!.]*.*"):
        shown = included.match(text_of(page))
        assert f"({shown[1] if shown else f'{folder}/{page.name}'})" in landing
