"""What a user of the installed package relies on, whatever it computes."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import json
import logging
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import distributed_estimator
from distributed_estimator.cli.main import dest

ROOT = Path(__file__).parent.parent
PUBLIC_NAMES = {"AutoCut", "DistributedEstimator", "EstimatorOptions", "FragmentGradient"}

# What the extras add to a lean installation. (The cutting addon itself brings Aer and the runtime.)
EXTRAS = [
    "dask",
    "distributed",
    "qiskit_machine_learning",
    "ray",
    "sklearn",
    "torch",
    "vl_convert",
]
WITHOUT_EXTRAS = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter, warnings as errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_exactly_these() -> None:
    assert set(distributed_estimator.__all__) == PUBLIC_NAMES
    assert len(distributed_estimator.__all__) == len(PUBLIC_NAMES)


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_public_name_is_a_documented_class(name: str) -> None:
    exported = getattr(distributed_estimator, name)
    assert isinstance(exported, type)
    assert exported.__name__ == name
    assert exported.__module__.startswith("distributed_estimator")
    assert exported.__doc__


def test_public_names_are_listed_by_dir() -> None:
    assert set(dir(distributed_estimator)) >= PUBLIC_NAMES


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = distributed_estimator.no_such_name


def test_errors_have_one_base() -> None:
    from distributed_estimator import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    tree = [value for value in classes if value.__module__ == errors.__name__]
    assert len(tree) > 1
    assert all(issubclass(error, errors.DistributedEstimatorError) for error in tree)


def test_package_is_typed() -> None:
    assert importlib.resources.files("distributed_estimator").joinpath("py.typed").is_file()


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert importlib.metadata.version("distributed-estimator") == version
    assert distributed_estimator.__version__ == version
    shown = CliRunner().invoke(dest, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"dest, version {version}\n")
    assert cited is not None
    assert cited[1] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_command_is_installed() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="dest")
    assert callable(command.load())


def test_library_logger_has_a_null_handler_and_nothing_more() -> None:
    """Importing must not print, configure logging or raise a warning."""
    seen = run_python(
        """
        import json, logging
        from distributed_estimator import DistributedEstimator
        logger = logging.getLogger("distributed_estimator")
        print(json.dumps({
            "handlers": [type(handler).__name__ for handler in logger.handlers],
            "root": len(logging.getLogger().handlers),
            "level": logger.level,
            "propagate": logger.propagate,
        }))
        """
    )
    assert json.loads(seen) == {
        "handlers": ["NullHandler"],
        "root": 0,
        "level": logging.NOTSET,
        "propagate": True,
    }


def test_import_leaves_optional_engines_alone() -> None:
    loaded = run_python(
        f"""
        import json, sys
        from distributed_estimator import DistributedEstimator
        print(json.dumps([name for name in {EXTRAS!r} if name in sys.modules]))
        """
    )
    assert json.loads(loaded) == []


def test_core_names_work_without_extras() -> None:
    names = sorted(PUBLIC_NAMES - {"FragmentGradient"})
    found = run_python(
        WITHOUT_EXTRAS
        + textwrap.dedent(
            f"""
            import json
            from distributed_estimator import {", ".join(names)}
            print(json.dumps([item.__name__ for item in ({", ".join(names)})]))
            """
        )
    )
    assert json.loads(found) == names


def test_missing_extra_ends_in_an_install_hint() -> None:
    hint = run_python(
        WITHOUT_EXTRAS
        + textwrap.dedent(
            """
            from distributed_estimator import DistributedEstimator
            from distributed_estimator.errors import MissingExtraError
            try:
                from distributed_estimator import FragmentGradient
                FragmentGradient(DistributedEstimator())
            except MissingExtraError as error:
                print(error)
            """
        )
    )
    assert "FragmentGradient" in hint
    assert 'pip install "distributed-estimator[ml]"' in hint


def test_command_shows_help_without_extras() -> None:
    usage = run_python(
        WITHOUT_EXTRAS
        + textwrap.dedent(
            """
            from distributed_estimator.cli.main import main
            sys.argv = ["dest", "--help"]
            sys.exit(main())
            """
        )
    )
    assert usage.startswith("Usage: dest")
