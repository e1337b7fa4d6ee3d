"""What commands leave unimported, on which the time they take to begin depends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from distributed_estimator.cli.main import VERBS, dest

COMMAND = """
import json, sys
from distributed_estimator.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
TRAINING = """
import json, sys
import distributed_estimator.training.loop
print(json.dumps([0, sorted(sys.modules)]), file=sys.stderr)
"""
COMPILERS = {"numba", "torch._dynamo", "torch._inductor", "sympy"}
STATISTICS = {"pandas", "scipy.optimize", "scipy.stats", "sklearn"}
ENGINES = {"dask", "distributed", "ray", "qiskit_aer", "qiskit_machine_learning", "torch"}

CIRCUIT = """OPENQASM 3.0;
include "stdgates.inc";
qubit[4] q;
h q[0];
cx q[0], q[1];
cx q[1], q[2];
"""


def imported(folder: Path, code: str, *words: str) -> set[str]:
    """The modules that a process has at its end, in which nothing may fail."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    return set(modules)


def test_help_of_the_command_takes_neither_qiskit_nor_numpy(tmp_path: Path) -> None:
    found = imported(tmp_path, COMMAND, "--help")
    assert found.isdisjoint({"qiskit", "numpy", "torch", "msgspec", "rich"})


def test_a_plan_takes_no_engine_and_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "circuit.qasm").write_text(CIRCUIT)
    found = imported(tmp_path, COMMAND, "plan", "circuit.qasm", "--label", "AABB")
    assert "qiskit" in found
    assert found.isdisjoint(ENGINES | COMPILERS | STATISTICS)


def test_a_training_takes_compilers_and_statistics_with_what_needs_them_only(
    tmp_path: Path,
) -> None:
    """PyTorch imports its compiler with the first optimiser, scikit-learn SciPy's statistics."""
    found = imported(tmp_path, TRAINING)
    assert "torch" in found
    assert found.isdisjoint(COMPILERS | STATISTICS | {"qiskit_machine_learning.optimizers"})


@pytest.mark.parametrize("name", VERBS)
def test_the_help_has_the_first_line_of_each_verb(name: str) -> None:
    command = dest.get_command(click.Context(dest), name)
    assert command is not None
    assert VERBS[name] == command.get_short_help_str(limit=200)
