"""Examples in the README and the docs run as they stand, and promises name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    value, stderr, seconds = map(float, capsys.readouterr().out.split())
    assert -1.5 < value < 1.5
    assert 0 < stderr < 0.2
    assert seconds > 0
    assert (tmp_path / "runs" / "queries.jsonl").exists()


@pytest.mark.soak
def test_the_training_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "training.md", "exec"), {})
    accuracy, shots = map(float, capsys.readouterr().out.split())
    assert accuracy >= 0.9
    assert shots > 0
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_what_is_to_be_installed_can_be(page: str) -> None:
    """A path with extras, as pip reads it, and extras that there are."""
    (extras,) = re.findall(r'pip install "(?:\.\[([a-z,]+)\]|[^"]*)"', (ROOT / page).read_text())
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(known["optional-dependencies"])


PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), ROOT / "examples" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_on_the_first_screen(target: str) -> None:
    assert f"make {target}" in "\n".join(README.splitlines()[:25])
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
