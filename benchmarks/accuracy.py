"""What is learned with cuts and without: test accuracy over seeds, beside a linear model.

``python -m benchmarks.accuracy [--json] [--quick] [--workload iris|mnist] [--markdown FILE]``

The paper's RQ4, with its longest budgets: Iris on 4 qubits, 60 full-batch steps; MNIST, 3 against
6, on 4, 6 and 8 qubits by PCA, 10 epochs in mini-batches of 32; Adam, 1024 shots a circuit, 0 to 3
cuts, 5 seeds. A seed is that of the split, the initial weights, the mini-batches and the shots, so
runs that differ in their cuts alone are paired. Each number of cuts is held against no cuts by the
95 % t-interval of the paired differences, and against scikit-learn's logistic regression on the
same features. Of many such intervals one may miss 0 by chance, so Holm's correction over all of
them stands beside.

Every run goes through `train`, into a folder that is thrown away.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression

from benchmarks._harness import progress
from benchmarks._learning import (
    SHOTS,
    Cell,
    Run,
    Score,
    Setting,
    adjusted_p_values,
    markdown,
    statement,
)
from benchmarks._paired import paired
from benchmarks._report import Figure, Report, deliver, parser
from distributed_estimator.training.loop import train
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.workloads import load_workload

CUTS = range(4)
SEEDS = range(5)

SETTINGS = (
    Setting("iris", 4, epochs=60, batch_size=None),
    *(Setting("mnist", qubits, epochs=10, batch_size=32) for qubits in (4, 6, 8)),
)


def train_one(run: Run) -> Score:
    """Train in this process, and fit the linear model to the same samples."""
    torch.set_num_threads(1)
    config = run.setting.training(run.cuts, run.seed)
    load = load_workload(config.workload)
    linear = LogisticRegression(max_iter=1000).fit(load.x_train, load.y_train)
    with tempfile.TemporaryDirectory() as place:
        result = train(load, config, RunFolder(Path(place) / "run"))
    share = float(linear.score(load.x_test, load.y_test))
    return Score(result.final.test_accuracy, share, result.label, result.seconds)


def _train_all(runs: Sequence[Run], processes: int) -> dict[Run, Score]:
    scores = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for run, score in zip(runs, pool.map(train_one, runs), strict=True):
            scores[run] = score
            progress(
                f"[{len(scores)}/{len(runs)}] {run}: {score.test_accuracy:.3f}, "
                f"linear {score.linear:.3f}, {score.seconds:.1f} s"
            )
    return scores


def _cell(setting: Setting, cuts: int, seeds: range, scores: Mapping[Run, Score]) -> Cell:
    own, uncut = ([scores[Run(setting, k, seed)] for seed in seeds] for k in (cuts, 0))
    pairs = zip(own, uncut, strict=True)
    differences = [ours.test_accuracy - theirs.test_accuracy for ours, theirs in pairs]
    return Cell(setting, cuts, tuple(own), paired(differences) if cuts else None)


def _chosen(arguments: argparse.Namespace) -> tuple[list[Setting], range, range]:
    """Settings, numbers of cuts and seeds; a smoke run has little of each."""
    chosen = [s for s in SETTINGS if arguments.workload in (None, s.workload)]
    if not arguments.quick:
        return chosen, CUTS, SEEDS
    small = [replace(s, epochs=2, samples=16, batch_size=8) for s in chosen if s.qubits == 4]
    return small, range(2), range(2)


def measure(arguments: argparse.Namespace) -> tuple[Report, list[Cell]]:
    """Train everything; the report holds the bars, but for a smoke run, which learns nothing."""
    settings, all_cuts, seeds = _chosen(arguments)
    runs = [Run(s, cuts, seed) for s in settings for cuts in all_cuts for seed in seeds]
    progress(f"{len(runs)} runs in {arguments.processes} processes")
    scores = _train_all(runs, arguments.processes)
    cells = [_cell(s, cuts, seeds, scores) for s in settings for cuts in all_cuts]
    described = {"quick": arguments.quick, "shots": SHOTS, "seeds": list(seeds)}
    report = Report("accuracy", described)
    for cell in cells:
        name = f"{cell.setting.workload}, mean test accuracy"
        bars = () if arguments.quick else cell.bars()
        report.figures.append(Figure(cell.case, name, cell.accuracy, "", bars))
    return report, cells


def document(report: Report, cells: Sequence[Cell]) -> dict[str, Any]:
    """What `--json` prints: the report with every cell and seed."""
    adjusted = adjusted_p_values(cells)
    found = [cell.as_json(p) for cell, p in zip(cells, adjusted, strict=True)]
    return report.as_json() | {"cells": found, "statement": statement(cells)}


def main() -> None:
    """The command."""
    options = parser("accuracy", "Train with cuts and without, and compare what was learned.")
    options.add_argument("--workload", choices=("iris", "mnist"), help="one of them only")
    options.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    arguments = options.parse_args()
    report, cells = measure(arguments)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(cells), "utf-8")
    deliver(document(report, cells), arguments, lambda: _print(report, cells))


def _print(report: Report, cells: Sequence[Cell]) -> None:
    sys.stdout.write(markdown(cells))
    for case, bar in report.bars():
        sys.stdout.write(f"\n- {case['qubits']} qubits, {case['cuts']} cuts: {bar}")
    sys.stdout.write("\n" if report.bars() else "")


if __name__ == "__main__":
    main()
