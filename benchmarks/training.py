"""One epoch of training: forward, backward and optimiser step for every mini-batch.

``python -m benchmarks.training [--json] [--quick]``

MNIST, 3 against 6, on 8 qubits: 200 training samples in mini-batches of 32, Adam, the paper's
model, 0 to 3 cuts. Everyone has the same data in the same batches, the same initial weights and
the same loop; an epoch begins at those weights again, and the exact ones have to end it with the
same weights. Timed are the optimiser steps, without scores, logs and checkpoints, and with the
plan at hand, as in every epoch but the first. What those add is a figure of its own: a whole call
of `train` for one epoch, which also has to end with these weights. All run on one thread.

`EstimatorQNN` runs with its own parameter shift, in double precision (its PyTorch connector rounds
to single, which costs as much time and makes other weights). Aer's `EstimatorV2` is exact unless
it is given a precision; with one it adds normal noise of that width to the exact value, here
1/√shots for values and gradients both. It is timed either way, once, since it takes many seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from qiskit_aer.primitives import EstimatorV2
from qiskit_machine_learning.neural_networks import EstimatorQNN

from benchmarks import _pennylane
from benchmarks._harness import Contestant, Timing, progress, take_turns
from benchmarks._report import Bar, Figure, Report, Skipped, compare, distance, parser, run
from benchmarks._workload import Floats, Outcome
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.models import Model, build_model, initial_weights
from distributed_estimator.training.networks import (
    Classifier,
    Jacobians,
    QuantumLayer,
    Response,
    Wanted,
    build_classifier,
    mean_loss,
)
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.workloads import Workload, WorkloadConfig, load_workload

SHOTS = 1024
BATCH = 32
SEED = 7
TOLERANCE = 1e-6  # between exact weights at the end of the epoch

AER = "not cut, EstimatorQNN on Aer EstimatorV2, exact, parameter shift"
AER_SHOTS = f"not cut, EstimatorQNN on Aer EstimatorV2, {SHOTS} shots, parameter shift"
PENNYLANE = "not cut, PennyLane default.qubit, exact, backprop"
LIGHTNING = "not cut, PennyLane lightning.qubit, exact, adjoint"
EXACT = (AER, PENNYLANE, LIGHTNING)


@dataclass(frozen=True)
class Task:
    """What everyone does.

    Attributes:
        config: How `train` would be told to do it, without cuts.
        start: Initial weights.
        batches: Features and targets of every step, in order.
    """

    config: TrainingConfig
    workload: Workload
    model: Model
    start: Floats
    batches: list[tuple[torch.Tensor, torch.Tensor]]

    def cut(self, cuts: int, shots: int | None) -> TrainingConfig:
        """The configuration of ours."""
        return replace(self.config, cuts=cuts, shots=shots)


@dataclass(frozen=True)
class QnnNetwork:
    """An `EstimatorQNN` where `QuantumLayer` wants a network: ours stays out of its way."""

    qnn: EstimatorQNN

    def evaluate(self, features: Floats, weights: Floats, wanted: Wanted) -> Response:
        """Values now, the derivative by the weights when it is asked for."""
        values = np.asarray(self.qnn.forward(features, weights))
        return values, lambda by_output: Jacobians(None, self._by_weights(features, weights))

    def _by_weights(self, features: Floats, weights: Floats) -> Floats:
        return np.asarray(self.qnn.backward(features, weights)[1])


def exact_name(cuts: int) -> str:
    """Ours without shots."""
    return f"ours, {cuts} cuts, exact"


def shots_name(cuts: int) -> str:
    """Ours with shots."""
    return f"ours, {cuts} cuts, {SHOTS} shots"


def whole_name(name: str) -> str:
    """Ours with everything that `train` does besides."""
    return f"{name}: plan, one epoch, scores before and after, logs, checkpoints"


def task(quick: bool) -> Task:
    """The data in its batches, in the order in which `train` takes them."""
    qubits, samples, batch = (4, 8, 4) if quick else (8, 200, BATCH)
    data = WorkloadConfig("mnist", num_features=qubits, samples=samples)
    config = TrainingConfig(data, epochs=1, batch_size=batch, seed=SEED, workers=1)
    load = load_workload(data)
    model = build_model(config.model, qubits)
    order = np.random.default_rng([SEED, 0]).permutation(samples)
    features, targets = load.x_train[order], load.y_train[order]
    both = (torch.from_numpy(part).split(batch) for part in (features, targets))
    batches = list(zip(*both, strict=True))
    return Task(config, load, model, initial_weights(model, SEED), batches)


def epoch(
    work: Task, model: Callable[[torch.Tensor], torch.Tensor], weights: torch.nn.Parameter
) -> Callable[[], Outcome]:
    """The steps of an epoch from the initial weights, `model` scoring a batch; values: the last."""
    loss = mean_loss(work.config.loss)

    def call() -> Outcome:
        with torch.no_grad():
            weights.copy_(torch.from_numpy(work.start))
        optimizer = torch.optim.Adam([weights], lr=work.config.lr)
        marks = []
        for features, targets in work.batches:
            marks.append(time.perf_counter())
            optimizer.zero_grad()
            value = loss(model(features), targets)
            marks.append(time.perf_counter())
            value.backward()
            marks.append(time.perf_counter())
            optimizer.step()
        marks.append(time.perf_counter())
        return Outcome(weights.detach().numpy().copy(), _stages(marks))

    return call


def _stages(marks: list[float]) -> dict[str, float]:
    """Seconds of the three parts of a step, over all steps."""
    spans = np.diff(marks).reshape(-1, 3).sum(axis=0)
    return dict(zip(("forward", "backward", "step"), spans.tolist(), strict=True))


def _steps(work: Task, config: TrainingConfig) -> Callable[[], Outcome]:
    _, classifier = build_classifier(config, work.workload.num_features, None, None)
    return epoch(work, classifier, classifier.layer.weights)


def _whole(work: Task, config: TrainingConfig) -> Callable[[], Outcome]:
    """What a user of `train` waits for."""

    def call() -> Outcome:
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder(Path(place) / "run")
            train(work.workload, config, folder)
            return Outcome(np.array(json.loads(folder.weights.read_text())["final"]))

    return call


def _ours(work: Task, all_cuts: range) -> list[Contestant]:
    found = []
    for cuts in all_cuts:
        for name, shots in ((exact_name(cuts), None), (shots_name(cuts), SHOTS)):
            config = work.cut(cuts, shots)
            found.append(Contestant(name, _steps(work, config)))
            found.append(Contestant(whole_name(name), _whole(work, config)))
    return found


def _aer_epoch(work: Task, precision: float) -> Callable[[], Outcome]:
    """The gradient takes the estimator's own precision, whatever the network is given."""
    options = {"backend_options": {"max_parallel_threads": 1}, "default_precision": precision}
    network = EstimatorQNN(
        circuit=work.model.circuit,
        observables=list(work.model.observables),
        input_params=work.model.inputs,
        weight_params=work.model.weights,
        estimator=EstimatorV2(options=options),
        default_precision=precision,
    )
    layer = QuantumLayer(QnnNetwork(network), work.start)  # type: ignore[arg-type]
    return epoch(work, Classifier(layer, None), layer.weights)


def _pennylane_epoch(work: Task, device: str, diff_method: str) -> Callable[[], Outcome]:
    model = _pennylane.qnode(work.workload.num_features, device, diff_method)
    weights = torch.nn.Parameter(torch.tensor(work.start))
    return epoch(work, lambda features: model(features.T, weights), weights)


def _counterparts(work: Task, report: Report) -> list[Contestant]:
    found = [
        Contestant(AER, _aer_epoch(work, 0.0), slow=True),
        Contestant(AER_SHOTS, _aer_epoch(work, SHOTS**-0.5), slow=True),
    ]
    for name, device, diff_method, missing in (
        (PENNYLANE, "default.qubit", "backprop", _pennylane.missing()),
        (LIGHTNING, "lightning.qubit", "adjoint", _pennylane.lightning_missing()),
    ):
        if missing is None:
            found.append(Contestant(name, _pennylane_epoch(work, device, diff_method)))
        else:
            report.skipped.append(Skipped({"samples": len(work.workload.y_train)}, name, missing))
    return found


def _check(timings: Mapping[str, Timing], names: list[str]) -> Floats:
    """The exact weights at the end, on which every exact contestant has to agree."""
    agreed = timings[AER].values
    for name in names:
        error = distance(timings[name].values, agreed)
        if error is None or not error <= TOLERANCE:
            raise RuntimeError(f"{name}: weights off by {error}, expected at most {TOLERANCE}")
    return agreed


def _bars(ours: Timing, counterpart: Timing) -> tuple[Bar, ...]:
    figure, target = {
        (exact_name(3), PENNYLANE): ("ours exact, 3 cuts / uncut PennyLane backprop", 1.0),
        (shots_name(3), AER_SHOTS): (
            f"ours {SHOTS} shots, 3 cuts / uncut EstimatorQNN on Aer with its own parameter shift",
            0.05,
        ),
    }.get((ours.name, counterpart.name), (None, 0.0))
    if figure is None:
        return ()
    return (Bar(f"{figure}, time of an epoch", ours.seconds / counterpart.seconds, "<=", target),)


def _add_case(
    report: Report, case: dict[str, int], timings: Mapping[str, Timing], exact: Floats
) -> None:
    """Exact against exact, shots against shots, and both against backprop."""
    cuts = case["cuts"]
    pairs = {exact_name(cuts): EXACT, shots_name(cuts): (AER_SHOTS, PENNYLANE)}
    for name, others in pairs.items():
        ours = timings[name]
        for other in (timings[other] for other in others if other in timings):
            report.rows.append(compare(case, ours, other, exact, _bars(ours, other)))
        whole = timings[whole_name(name)]
        report.figures.append(Figure(case, whole.name, whole.seconds, "s"))


def _settings(work: Task, quick: bool) -> dict[str, object]:
    return {
        "quick": quick,
        "samples": len(work.workload.y_train),
        "batch_size": work.config.batch_size,
        "weights": len(work.start),
        "optimizer": work.config.optimizer,
        "lr": work.config.lr,
        "shots": SHOTS,
        "seed": SEED,
        "threads": 1,
        "timed": "forward, backward and optimiser step; no scores, logs or checkpoints",
    }


def measure(arguments: argparse.Namespace) -> Report:
    """Time every contestant in turns."""
    torch.set_num_threads(1)
    work = task(arguments.quick)
    qubits, samples = work.workload.num_features, len(work.workload.y_train)
    all_cuts = range(2) if arguments.quick else range(4)
    report = Report("training", _settings(work, arguments.quick))
    counterparts = _counterparts(work, report)
    contestants = _ours(work, all_cuts) + counterparts
    progress(f"{len(contestants)} ways through an epoch of {samples} samples")
    repeats, allowance = (2, 0.05) if arguments.quick else (20, 3.0)
    timings = take_turns(contestants, repeats, allowance)
    ours = [exact_name(cuts) for cuts in all_cuts]
    theirs = [name for name in EXACT if name in timings]
    exact = _check(timings, ours + [whole_name(name) for name in ours] + theirs)
    for cuts in all_cuts:
        case = {"qubits": qubits, "cuts": cuts, "samples": samples}
        _add_case(report, case, timings, exact)
    return report


def main() -> None:
    """The command."""
    options = parser("training", "Time one epoch of training, cut and not cut.")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
