"""What the documentation shows is run, page by page in order, and compared with what it prints.

Comments before a block say what is otherwise: `<!-- not run -->` for what needs a cluster, a device
or much time (`<!-- not run: dest study -->`: lines that begin so), and before printed text
`<!-- times vary -->` or `<!-- numbers vary -->`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    path
    for pattern in ("README.md", "docs/*.md", "docs/how-to/*.md", "examples/README.md")
    for path in sorted(ROOT.glob(pattern))
    if "```{" not in path.read_text(encoding="utf-8")
]
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
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_what_comes_out(page: Path, tmp_path: Path, runs: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for made in runs.iterdir():
        if f"dest train {made.name}" not in page.read_text(encoding="utf-8"):
            shutil.copytree(made, tmp_path / "runs" / made.name)
    qubits = 6 if page.parent.name == "how-to" else 4
    circuit = f'OPENQASM 2.0;\ninclude "qelib1.inc";\n{CIRCUITS[qubits]}\n'
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
