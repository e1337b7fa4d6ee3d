"""The documentation: links lead somewhere, what it shows works, and what it prints comes out.

Soak runs take the pages one by one, run their blocks in order and compare what is printed. Comments
before a block say what is otherwise: `<!-- not run -->` for what needs a cluster, a device or much
time (`<!-- not run: dest study -->`: lines that begin so), and before printed text
`<!-- times vary -->` or `<!-- numbers vary -->`. `make docs` checks the site, and runs notebooks.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from distributed_estimator.cli.main import dest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "examples/*.md")
    for path in ROOT.glob(pattern)
)
RUN = [
    path
    for pattern in ("README.md", "docs/*.md", "docs/how-to/*.md", "examples/README.md")
    for path in sorted(ROOT.glob(pattern))
    if "```{" not in path.read_text(encoding="utf-8")
]
_CODE = re.compile(r"^(`{3,}).*?^\1`*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
CIRCUITS = {
    4: "qreg q[4]; ry(0.9) q[0]; cx q[0],q[1]; cx q[1],q[2]; cx q[2],q[3];",
    6: "qreg q[6]; ry(0.9) q[0];\ncx q[0],q[1]; ry(0.4) q[1]; cx q[1],q[2]; ry(0.7) q[2];\n"
    "rzz(0.3) q[2],q[3]; ry(0.6) q[3];\n"
    "cx q[3],q[4]; ry(0.5) q[4]; cx q[4],q[5]; ry(0.2) q[5];",
}
DEST = [str(Path(sys.executable).parent / "dest")]
WIDE = {**os.environ, "COLUMNS": "130"}
_BLOCK = re.compile(r"((?:^<!--.*?-->\n+)*)^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TIME = re.compile(r"[\d-]+T[\d:.+]+|[\d.]+ ?(?:µs|ms|s|min|h)\b")
_NUMBER = re.compile(r"\d[\d.,e]*(?: ?(?:µs|ms|s|min|h)\b)?")


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


def test_notebooks_are_committed_clean_and_whole() -> None:
    assert len(NOTEBOOKS) >= 2
    for path in NOTEBOOKS:
        document = json.loads(path.read_text())
        cells = document["cells"]
        assert document["metadata"]["kernelspec"]["name"] == "python3"
        assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
        assert len({cell["id"] for cell in cells}) == len(cells)
        assert all(cell["metadata"] == {} for cell in cells)
        left = [(c["outputs"], c["execution_count"]) for c in cells if c["cell_type"] == "code"]
        assert left == [([], None)] * len(left)
        text = text_of(path)
        assert text.startswith("# ")
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
        everything = "\n".join("".join(cell["source"]) for cell in cells)
        places = r"(?<![\w.])/(?:home|root|tmp|work|Users|opt|usr|var)/\S*"
        assert re.findall(places, everything) == []


def test_the_python_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = (b.text for b in blocks_of(ROOT / "README.md") if b.language == "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    value, stderr, seconds = map(float, capsys.readouterr().out.split())
    assert -1.5 < value < 1.5
    assert 0 < stderr < 0.2
    assert seconds > 0
    assert (tmp_path / "runs" / "queries.jsonl").exists()


def test_pictures_of_plans_are_what_their_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "how-to" / "choose-cuts-and-shots.md"
    (example,) = (b.text for b in blocks_of(page) if ".draw().save(" in b.text)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, page.name, "exec"), {})
    (tmp_path / "circuit.qasm").write_text(f'OPENQASM 2.0;include "qelib1.inc";{CIRCUITS[6]}')
    (drawn,) = re.findall(r"^dest (plan .* --figure plan.svg)$", text_of(page), re.MULTILINE)
    assert CliRunner().invoke(dest, shlex.split(drawn)).exit_code == 0
    made = {path.name: path.read_text("utf-8") for path in tmp_path.glob("*.svg")}
    assert made.keys() == {"plan.svg", "plan-4-qubits.svg", "plan-20-qubits.svg"}
    for name, svg in made.items():
        assert svg == (ROOT / "docs" / "images" / name).read_text("utf-8")
        assert f"(../images/{name})" in text_of(page)


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_what_is_to_be_installed_can_be(page: str) -> None:
    """A path with extras, as pip reads it, and extras that there are."""
    (extras,) = re.findall(r'pip install "(?:\.\[([a-z,]+)\]|[^"]*)"', (ROOT / page).read_text())
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(known["optional-dependencies"])


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.suffix == ".md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_compiles_and_commands_are_those_of_the_program(page: Path) -> None:
    for number, block in enumerate(blocks_of(page)):
        if block.language == "python":
            compile(block.text, f"{page.name}, block {number}", "exec")
        for line in block.text.replace("\\\n", " ").splitlines() if block.language == "sh" else ():
            for command in line.split(" && "):
                if command.strip().startswith("dest "):
                    check_command(shlex.split(command, comments=True)[1:])


def check_command(words: list[str]) -> None:
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


@pytest.mark.parametrize(
    "line", ["dest unknown", "dest train iris --cut 2", "dest train iris --cuts x", "dest report"]
)
def test_a_command_that_is_wrong_is_noticed(line: str) -> None:
    with pytest.raises(click.ClickException):
        check_command(shlex.split(line)[1:])


# --- what is printed ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and what the comments before it say."""

    language: str
    text: str
    remarks: str

    def lines(self) -> Iterator[str]:
        """The lines of a shell block that are run."""
        skipped = re.findall(r"<!-- not run: (.*?) -->", self.remarks)
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith(tuple(skipped)):
                yield line


def blocks_of(page: Path) -> list[Block]:
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, text, remarks) for remarks, language, text in found]


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, env=WIDE, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def output_of(block: Block, folder: Path) -> str:
    """What a block prints."""
    if block.language == "python":
        (folder / "block.py").write_text(block.text, encoding="utf-8")
        out = run([sys.executable, "block.py"], folder)
        for wanted in re.findall(r"print\(.*\)  # (.*)$", block.text, re.MULTILINE):
            assert wanted in out.splitlines()
        return out
    out = ""
    for line in block.lines():
        for command in line.split(" && "):
            program, *rest = shlex.split(command, comments=True)
            out += run([*{"dest": DEST, "python": [sys.executable]}[program], *rest], folder)
    return out


def plain(text: str, remarks: str) -> list[str]:
    """Lines without what may vary."""
    if "numbers vary" in remarks:
        text = _NUMBER.sub("#", text)
    if "times vary" in remarks:
        text = _TIME.sub("#", text)
    lines = (" ".join(re.sub("─+", "─", line).split()) for line in text.splitlines())
    return [line for line in lines if line]


def check_shown(block: Block, out: str) -> None:
    """Whether a page's text is what was printed, `…` standing for anything."""
    printed, shown = ("\n".join(plain(text, block.remarks)) for text in (out, block.text))
    pattern = ".*?".join(map(re.escape, shown.split("…")))
    assert re.search(pattern, printed, re.DOTALL), f"the page shows\n{shown}\n\nnot\n{printed}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training and a study, which pages take for granted."""
    folder = tmp_path_factory.mktemp("runs")
    run([*DEST, "train", "iris", "--cuts", "2", "--trace", "--out", "iris"], folder)
    shutil.copytree(ROOT / "docs" / "results" / "laptop" / "records", folder / "study")
    return folder


@pytest.mark.soak
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_what_comes_out(page: Path, tmp_path: Path, runs: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for made in runs.iterdir():
        if f"dest train {made.name}" not in page.read_text(encoding="utf-8"):
            shutil.copytree(made, tmp_path / "runs" / made.name)
    qubits = 6 if page.parent.name == "how-to" else 4
    circuit = f'OPENQASM 2.0;\ninclude "qelib1.inc";\n{CIRCUITS[qubits]}\n'
    if page.parent != ROOT:  # the README makes its own
        (tmp_path / "circuit.qasm").write_text(circuit, encoding="utf-8")
    out = ""
    for block in blocks_of(page):
        if "<!-- not run -->" in block.remarks:
            continue
        if block.language in ("python", "sh"):
            out += output_of(block, tmp_path)
        elif block.language == "text" and block.text != circuit:
            check_shown(block, out)
            out = ""


def test_a_text_that_no_longer_comes_out_is_noticed() -> None:
    block = Block("text", "a 1 in 2 s\n…\nb 3\n", "<!-- times vary -->")
    check_shown(block, "a   1 in 7 ms\nother\nb 3\n")
    with pytest.raises(AssertionError, match="b 3"):
        check_shown(block, "a   1 in 7 ms\nother\nb 4\n")
