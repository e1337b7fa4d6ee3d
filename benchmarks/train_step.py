"""One training step of a QNN: forward and gradient of all weights for a batch of samples.

``python -m benchmarks.train_step [--json] [--quick]``

Four qubits, eight weights, 80 samples. Ours and the uncut Qiskit counterparts go through
`EstimatorQNN`: values, and their derivative by every weight for every sample. PennyLane runs
forward and backward of the summed squared error, as training with it does. From each the gradient
of that loss is formed, and the exact ones have to agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit_aer.primitives import EstimatorV2
from qiskit_machine_learning.gradients import BaseEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from benchmarks import _pennylane
from benchmarks._harness import Contestant, Timing, progress, take_turns
from benchmarks._report import Bar, Report, Skipped, compare, distance, parser, run
from benchmarks._workload import Floats, Outcome, Workload, block_labels, workload
from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient

QUBITS = 4
SAMPLES = 80
SHOTS = 1024
SEED = 7

AER = "not cut, EstimatorQNN on Aer EstimatorV2, parameter shift"
STATEVECTOR = "not cut, EstimatorQNN on StatevectorEstimator, parameter shift"
PENNYLANE = "not cut, PennyLane default.qubit, backprop"
UNCUT = (AER, STATEVECTOR, PENNYLANE)


def exact_name(cuts: int) -> str:
    """Ours without shots."""
    return f"ours, {cuts} cuts, exact"


def shots_name(cuts: int) -> str:
    """Ours with shots."""
    return f"ours, {cuts} cuts, {SHOTS} shots"


def targets(load: Workload) -> Floats:
    """A label of ±1 for every sample."""
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], len(load.features))
    return np.asarray(signs, dtype=float)


def _qnn(
    load: Workload,
    estimator: BaseEstimatorV2,
    gradient: BaseEstimatorGradient | None = None,
    precision: float = 0.0,
) -> EstimatorQNN:
    parameters = list(load.circuit.parameters)
    return EstimatorQNN(
        circuit=load.circuit,
        estimator=estimator,
        observables=load.observable,
        input_params=parameters[:QUBITS],
        weight_params=parameters[QUBITS:],
        gradient=gradient,
        default_precision=precision,
    )


def _exact_qnn(load: Workload, cuts: int) -> EstimatorQNN:
    options = EstimatorOptions(default_precision=0, seed=SEED)
    estimator = DistributedEstimator(cuts=block_labels(QUBITS, cuts), options=options)
    return _qnn(load, estimator, FragmentGradient(estimator, precision=0))


def _shots_qnn(load: Workload, cuts: int) -> EstimatorQNN:
    """Fixed shots, which win over the precision that `EstimatorQNN` passes."""
    options = EstimatorOptions(shots=SHOTS, seed=SEED)
    estimator = DistributedEstimator(cuts=block_labels(QUBITS, cuts), options=options)
    return _qnn(load, estimator, FragmentGradient(estimator), precision=1 / 64)


def qnn_step(network: EstimatorQNN, load: Workload) -> Callable[[], Outcome]:
    """Forward and backward of a QNN; the outcome's values are the gradient of the loss."""
    wanted = targets(load)

    def call() -> Outcome:
        start = time.perf_counter()
        values = network.forward(load.features, load.weights)
        forward = time.perf_counter()
        _, jacobian = network.backward(load.features, load.weights)
        stages = {"forward": forward - start, "backward": time.perf_counter() - forward}
        residuals = np.asarray(values)[:, 0] - wanted
        return Outcome(2 * residuals @ np.asarray(jacobian)[:, 0, :], stages)

    return call


def _ours(load: Workload, all_cuts: range) -> list[Contestant]:
    found = []
    for cuts in all_cuts:
        found.append(Contestant(exact_name(cuts), qnn_step(_exact_qnn(load, cuts), load)))
        found.append(Contestant(shots_name(cuts), qnn_step(_shots_qnn(load, cuts), load)))
    return found


def _counterparts(load: Workload, report: Report) -> list[Contestant]:
    aer = EstimatorV2(options={"backend_options": {"max_parallel_threads": 1}})
    found = [
        Contestant(AER, qnn_step(_qnn(load, aer), load)),
        Contestant(STATEVECTOR, qnn_step(_qnn(load, StatevectorEstimator()), load)),
    ]
    if _pennylane.installed() and find_spec("torch") is not None:
        step = _pennylane.backprop_step(load, targets(load))
        found.append(Contestant(PENNYLANE, step))
    else:
        reason = "pennylane or torch is not installed: pip install pennylane torch"
        report.skipped.append(Skipped({"samples": len(load.features)}, PENNYLANE, reason))
    return found


def _check(timings: Mapping[str, Timing], names: list[str]) -> Floats:
    """The exact gradient, on which every exact contestant has to agree."""
    agreed = timings[STATEVECTOR].values
    for name in names:
        error = distance(timings[name].values, agreed)
        if error is None or error > 1e-8:
            raise RuntimeError(f"{name}: gradient off by {error}, expected at most 1e-8")
    return agreed


def _bars(cuts: int, ours: Timing, counterpart: Timing) -> tuple[Bar, ...]:
    if (cuts, ours.name, counterpart.name) != (3, exact_name(3), PENNYLANE):
        return ()
    figure = "ours exact, 3 cuts / uncut PennyLane backprop, time"
    return (Bar(figure, ours.seconds / counterpart.seconds, "<=", 1.0),)


def measure(arguments: argparse.Namespace) -> Report:
    """Time every contestant in turns."""
    samples, all_cuts = (4, range(2)) if arguments.quick else (SAMPLES, range(4))
    load = workload(QUBITS, samples)
    settings = {"quick": arguments.quick, "samples": samples, "weights": len(load.weights)}
    report = Report("train_step", settings)
    counterparts = _counterparts(load, report)
    contestants = _ours(load, all_cuts) + counterparts
    repeats, allowance = (2, 0.05) if arguments.quick else (30, 6.0)
    progress(f"{len(contestants)} ways to take one step on {samples} samples")
    timings = take_turns(contestants, repeats, allowance)
    exact = _check(timings, [exact_name(c) for c in all_cuts] + [c.name for c in counterparts])
    for cuts in all_cuts:
        case = {"qubits": QUBITS, "cuts": cuts, "samples": samples}
        for name in (exact_name(cuts), shots_name(cuts)):
            for other in (timings[name] for name in UNCUT if name in timings):
                ours = timings[name]
                report.rows.append(compare(case, ours, other, exact, _bars(cuts, ours, other)))
    return report


def main() -> None:
    """The command."""
    options = parser("train_step", "Time one training step, cut and not cut.")
    run(measure, options.parse_args())


if __name__ == "__main__":
    main()
