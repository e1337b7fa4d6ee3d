"""Imports go one way (CONTRIBUTING.md, "Rooms"): import-linter, run on the contract for real."""

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


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its contract, to break."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    return tmp_path


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


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("errors", "records"),
        ("records", "pipeline"),
        ("cutting.added", "subexperiments"),
        ("backends.added", "execution"),
        ("execution.added", "reconstruction"),
        ("reconstruction.added", "execution"),
        ("pipeline", "reference"),
        ("reference", "pipeline"),
        ("estimator", "gradient"),
        ("gradient", "training"),
        ("training.added", "cli"),
        ("analysis.added", "cutting"),
        ("analysis.added", "pipeline"),
        ("simulation.added", "backends"),
        ("simulation.added", "analysis"),
    ],
)
def test_an_import_against_the_direction_is_found(copy: Path, module: str, imported: str) -> None:
    add_import(copy, module, imported)
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    arrow = f"distributed_estimator.{module} -> distributed_estimator.{imported}"
    assert arrow in done.stdout


def test_a_room_missing_from_the_contract_is_found(copy: Path) -> None:
    add_import(copy, "unlisted", "errors")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "distributed_estimator.unlisted" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("analysis.added", "records"),
        ("simulation.added", "execution"),
        ("training.added", "analysis"),
        ("study.added", "training"),
    ],
)
def test_an_import_along_the_direction_is_allowed(copy: Path, module: str, imported: str) -> None:
    add_import(copy, module, imported)
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
