"""Tutorials are committed clean, and what how-to guides show is Python and commands that work.

The site's build runs the notebooks; here they are only read.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from distributed_estimator.cli.main import dest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
GUIDES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *GUIDES]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def read(notebook: Path) -> dict[str, Any]:
    return json.loads(notebook.read_text())


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_there_are_tutorials_and_guides() -> None:
    assert len(NOTEBOOKS) >= 2
    assert len(GUIDES) >= 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_committed_without_what_running_it_leaves(self, path: Path) -> None:
        for cell in read(path)["cells"]:
            assert cell["metadata"] == {}
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []
                assert cell["execution_count"] is None

    def test_runs_on_any_python_3(self, path: Path) -> None:
        document = read(path)
        assert document["metadata"]["kernelspec"]["name"] == "python3"
        assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)

    def test_its_cells_have_names_of_their_own(self, path: Path) -> None:
        names = [cell["id"] for cell in read(path)["cells"]]
        assert len(set(names)) == len(names)

    def test_begins_with_its_title_and_has_no_other(self, path: Path) -> None:
        texts = [source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown"]
        assert texts[0].startswith("# ")
        assert len(re.findall(r"^# ", "\n".join(texts), re.MULTILINE)) == 1

    def test_names_no_place_on_a_machine(self, path: Path) -> None:
        text = "\n".join(source(cell) for cell in read(path)["cells"])
        assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users|opt|usr|var)/\S*", text) == []

    def test_its_links_lead_somewhere(self, path: Path) -> None:
        texts = [source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown"]
        targets = re.findall(r"\]\((?!http)([^)#]+)", "\n".join(texts))
        assert [t for t in targets if not (path.parent / t).exists()] == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_python_in_a_guide_compiles(guide: Path) -> None:
    for number, block in enumerate(blocks(guide, "python")):
        compile(block, f"{guide.name}, block {number}", "exec")


def commands(page: Path) -> list[str]:
    """The parts of shell blocks that call `dest`."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split(" && ")]
    return [part for part in parts if part.startswith("dest ")]


COMMANDS = [
    pytest.param(line, id=f"{page.stem}: {line}") for page in PAGES for line in commands(page)
]


def check(words: list[str]) -> None:
    """Raise a `click.ClickException` where a command, an option or its value is unknown."""
    command: click.Command = dest
    context = click.Context(dest, info_name="dest")
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command, context = found, click.Context(found, info_name=name, parent=context)
    given, _, _ = command.make_parser(context).parse_args(words)
    for parameter in command.params:
        value = given.get(parameter.name)
        is_given = isinstance(value, str | list | tuple)
        if parameter.required and not is_given:
            raise click.UsageError(f"{parameter.name} is missing")
        if is_given and not isinstance(parameter.type, click.Path | click.File):
            parameter.type_cast_value(context, value)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_texts_are_those_of_the_program(line: str) -> None:
    check(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize(
    "line", ["dest unknown", "dest train iris --cut 2", "dest train iris --cuts x", "dest report"]
)
def test_a_command_that_is_wrong_is_noticed(line: str) -> None:
    with pytest.raises(click.ClickException):
        check(shlex.split(line)[1:])
