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
PACKAGE = "distributed_estimator"
CLASSES = {
    *("AutoCut", "CutAt", "CutPlan", "DistributedEstimator", "EstimatorOptions"),
    *("FragmentGradient", "Mitigation", "Policy", "TrainedNetwork", "Zne"),
}
ERRORS = {
    *("BackendError", "CheckpointError", "DeadlineError", "DistributedEstimatorError"),
    *("InputError", "MissingExtraError", "PlanTooLargeError", "PoolError", "PrecisionWarning"),
    *("RecordError", "RunCancelledError", "TrainingStoppedError"),
}
PUBLIC_NAMES = CLASSES | ERRORS
NEED_ML = {"FragmentGradient", "TrainedNetwork"}

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
PACKAGES = [
    *(f"{PACKAGE}.{name}" for name in ("backends", "cutting", "execution", "execution.pools")),
    *(f"{PACKAGE}.{name}" for name in ("records", "reference", "simulation")),
]
HEAVY = {
    *("scipy.linalg", "scipy.optimize", "scipy.sparse", "scipy.special", "scipy.stats"),
    *("cotengra", "networkx", "numba", "pymetis", "qiskit_qasm3_import"),
    *("click", "rich", "urllib.request", "http.client", "ssl"),
    *("altair", "duckdb", "jinja2", "matplotlib", "pandas", "polars", "pyarrow", "vl_convert"),
    *("qiskit_addon_cutting", "qiskit_aer", "qiskit_ibm_runtime", "qiskit_machine_learning"),
    *("dask", "distributed", "ray", "sklearn", "torch"),
}
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


def test_public_names_are_exactly_these_and_documented() -> None:
    assert sorted(distributed_estimator.__all__) == sorted(PUBLIC_NAMES)
    assert dir(distributed_estimator) == sorted(PUBLIC_NAMES | {"__version__"})
    for name in PUBLIC_NAMES:
        exported = getattr(distributed_estimator, name)
        assert isinstance(exported, type)
        assert (exported.__name__, exported.__module__.split(".")[0]) == (name, PACKAGE)
        assert exported.__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = distributed_estimator.no_such_name


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_list_public_names_only(name: str) -> None:
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, each) for each in dir(package))


def test_packages_are_there_without_being_imported_one_by_one() -> None:
    done = run_python(
        "import distributed_estimator as package\n"
        "print(package.execution.Eager(), package.errors.CutError, package.cutting.Cut)"
    )
    assert done.startswith("Eager() <class 'distributed_estimator.errors.CutError'>")


def test_errors_have_one_base() -> None:
    from distributed_estimator import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    tree = [value for value in classes if value.__module__ == errors.__name__]
    assert len(tree) > 1
    assert tree.pop(tree.index(errors.PrecisionWarning)).__base__ is UserWarning
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


def test_an_import_has_no_effects() -> None:
    """It prints nothing, raises no warning, leaves logging and optional engines alone."""
    seen = run_python(
        """
        import json, logging, sys
        from distributed_estimator import DistributedEstimator
        logger = logging.getLogger("distributed_estimator")
        print(json.dumps({
            "handlers": [type(handler).__name__ for handler in logger.handlers],
            "root": len(logging.getLogger().handlers),
            "level": logger.level,
            "propagate": logger.propagate,
            "loaded": [name for name in EXTRAS if name in sys.modules],
        }))
        """.replace("EXTRAS", repr(EXTRAS))
    )
    assert json.loads(seen) == {
        "handlers": ["NullHandler"],
        "root": 0,
        "level": logging.NOTSET,
        "propagate": True,
        "loaded": [],
    }


def test_an_import_loads_nothing_heavy_besides_qiskit() -> None:
    """SciPy's parts take a third of a second, compilers and engines more: with their first use."""
    seen = run_python(
        """
        import json, sys
        import qiskit.primitives, qiskit.quantum_info
        before = set(sys.modules)
        from distributed_estimator import DistributedEstimator
        print(json.dumps(sorted(set(sys.modules) - before)))
        """
    )
    loaded = set(json.loads(seen))
    assert "distributed_estimator.estimator" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_without_extras_names_work_and_what_needs_one_says_so() -> None:
    found = run_python(
        WITHOUT_EXTRAS
        + f"NEED_ML = {NEED_ML!r}"
        + textwrap.dedent(
            """
            import json
            import distributed_estimator as package
            from distributed_estimator.errors import MissingExtraError
            names = [n for n in package.__all__ if n not in NEED_ML and getattr(package, n)]
            hint = ""
            try:
                package.FragmentGradient(package.DistributedEstimator())
            except MissingExtraError as error:
                hint = str(error)
            print(json.dumps([names, hint]))
            from distributed_estimator.cli.main import main
            sys.argv = ["dest", "--help"]
            sys.exit(main())
            """
        )
    )
    first, _, usage = found.partition("\n")
    names, hint = json.loads(first)
    assert set(names) == PUBLIC_NAMES - NEED_ML
    assert "FragmentGradient" in hint
    assert 'pip install "distributed-estimator[ml]"' in hint
    assert usage.startswith("Usage: dest")
