"""Imports go one way (CONTRIBUTING.md, "Packages"): import-linter, run on the contract for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the package below `root`/src against the contract in `root`/pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


WRONG = [
    ("errors", "records"),
    ("records.added", "pipeline"),
    ("cutting.added", "subexperiments"),
    ("backends.added", "execution"),
    ("execution.added", "reconstruction"),
    ("reconstruction.added", "execution"),
    ("pipeline.added", "reference"),
    ("reference.added", "pipeline"),
    ("estimator", "gradient"),
    ("gradient", "training"),
    ("training.added", "cli"),
    ("analysis.load", "cutting"),
    ("analysis.load", "pipeline"),
    ("simulation.added", "backends"),
    ("simulation.added", "analysis"),
]
RIGHT = [
    ("analysis.load", "records"),
    ("simulation.added", "execution"),
    ("training.added", "analysis"),
    ("study.added", "training"),
]


def lint_with(root: Path, imports: list[tuple[str, str]]) -> subprocess.CompletedProcess[str]:
    """Check a copy of the package and its contract to which imports are added."""
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for module, imported in imports:
        add_import(root, module, imported)
    return lint(root)


def add_import(root: Path, module: str, imported: str) -> None:
    """Let `module` (a dotted path; made if missing) import `imported`."""
    package = root / "src" / "distributed_estimator"
    path = package.joinpath(*module.split(".")).with_suffix(".py")
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.touch()
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\nfrom distributed_estimator import {imported} as _added\n")


def test_the_package_keeps_the_contract() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """All wrong imports at once, as the linter reports each."""
    return lint_with(tmp_path_factory.mktemp("broken"), WRONG)


@pytest.mark.parametrize(("module", "imported"), WRONG)
def test_an_import_against_the_direction_is_found(
    broken: subprocess.CompletedProcess[str], module: str, imported: str
) -> None:
    assert broken.returncode == 1, broken.stdout + broken.stderr
    arrow = f"distributed_estimator.{module} -> distributed_estimator.{imported}"
    assert arrow in broken.stdout


def test_a_package_missing_from_the_contract_is_found(tmp_path: Path) -> None:
    done = lint_with(tmp_path, [("unlisted", "errors")])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "distributed_estimator.unlisted" in done.stdout


def test_imports_along_the_direction_are_allowed(tmp_path: Path) -> None:
    done = lint_with(tmp_path, RIGHT)
    assert done.returncode == 0, done.stdout + done.stderr
