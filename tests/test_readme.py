"""The README's example runs as it stands, and its promises name what exists."""

from __future__ import annotations

import re
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


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_on_the_first_screen(target: str) -> None:
    assert f"make {target}" in "\n".join(README.splitlines()[:25])
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
