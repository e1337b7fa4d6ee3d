"""How long commands take to begin: processor time of fresh processes, in turns.

``python -m benchmarks.startup [--json] [--quick] [--repeats N]``

What counts is the user and system time of a process and of its children. The training has one
epoch of few shots, so that nearly all its time is that of imports. Modules are compiled
(``__pycache__``), as they are from the second time on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks._harness import progress
from benchmarks._report import Bar, Figure, Report, parser, run
from benchmarks._runtime import in_turns
from benchmarks._workload import Outcome

CIRCUIT = """OPENQASM 3.0;
include "stdgates.inc";
qubit[4] q;
h q[0];
cx q[0], q[1];
cx q[1], q[2];
cx q[2], q[3];
"""
DEST = "import sys; from _dest import main; sys.exit(main())"
BARE, QISKIT = "python -c pass", "import qiskit"
COMMANDS = {
    BARE: ("pass",),
    QISKIT: ("import qiskit",),
    "import the estimator": ("from distributed_estimator import DistributedEstimator",),
    "dest --help": (DEST, "--help"),
    "dest plan --help": (DEST, "plan", "--help"),
    "dest train --help": (DEST, "train", "--help"),
    "dest plan": (DEST, "plan", "circuit.qasm", "--label", "AABB"),
    "dest train iris": (
        *(DEST, "train", "iris", "--cuts", "1", "--epochs", "1", "--shots", "16", "--seed", "7"),
        *("--no-figure", "--out", "run"),
    ),
}
TARGETS = {"dest --help": 0.4, "dest plan": 1.2, "dest train iris": 4.0}
"""Seconds of processor time."""


def _processor_seconds() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _begin(words: tuple[str, ...]) -> Outcome:
    """A process in a folder of its own."""
    kept = {n: own for n, own in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    with TemporaryDirectory() as folder:
        Path(folder, "circuit.qasm").write_text(CIRCUIT)
        before = _processor_seconds()
        subprocess.run(
            [sys.executable, "-c", *words], cwd=folder, env=kept, check=True, capture_output=True
        )
        return Outcome(np.zeros(1), {"processor": _processor_seconds() - before})


def measure(arguments: argparse.Namespace) -> Report:
    """Every command, as often as the others."""
    quick = arguments.quick
    repeats = 1 if quick else arguments.repeats
    report = Report("startup", {"quick": quick, "repeats": repeats})
    calls = {name: partial(_begin, words) for name, words in COMMANDS.items()}
    if quick:
        del calls["dest train iris"]
    else:
        progress("once for what is compiled and cached")
        for call in calls.values():
            call()
    seconds = {name: own.stages["processor"] for name, own in in_turns(calls, repeats).items()}
    for name, own in seconds.items():
        figure = f"{name}: processor time"
        bars = (Bar(figure, own, "<=", TARGETS[name]),) if name in TARGETS and not quick else ()
        report.figures.append(Figure({}, figure, own, "s", bars))
        for other in sorted({BARE, QISKIT} - {name}):
            ratio = Figure({}, f"{name}: over that of {other}", own / seconds[other], "")
            report.figures.append(ratio)
    return report


def main() -> None:
    """The command."""
    options = parser("startup", "How long commands take to begin.")
    options.add_argument("--repeats", type=int, default=7, metavar="N", help="default: 7")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
