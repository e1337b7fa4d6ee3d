"""Train a quantum neural network and keep everything that happened on the way (paper §V-A)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DistributedEstimatorError, InputError, MissingExtraError
from ..estimator import DistributedEstimator, EstimatorOptions
from ..records import RecordWriter, TrainingRecord
from ..reference import ReferenceEstimator
from .models import Model, build_model, initial_weights, labels_for_cuts
from .runs import (
    QueryMeter,
    RunFolder,
    Scores,
    TrainingConfig,
    TrainingResult,
    write_json,
)
from .workloads import FloatArray, Workload

if TYPE_CHECKING:
    from qiskit_machine_learning.neural_networks import EstimatorQNN

Progress = Callable[[TrainingRecord], None]


def train(
    workload: Workload,
    config: TrainingConfig,
    folder: RunFolder,
    progress: Progress | None = None,
) -> TrainingResult:
    """Trains the paper's model on a workload.

    Every step leaves a record in `folder.training` and its queries in `folder.queries`; the weights
    and the summary are written at the end. Step k's record holds the scores after k steps, so the
    last one, which has no gradient, describes the final weights.

    Args:
        workload: The data.
        config: How to train.
        folder: A folder that holds no run.
        progress: Called with each record when it is made.

    Raises:
        InputError: If the configuration does not fit the workload or the folder is taken; nothing
            is written.
        MissingExtraError: If the extra `ml` is not installed; nothing is written.
    """
    require_ml()
    folder.check_free()
    model = build_model(workload.num_features)
    weights = initial_weights(model, config.seed)
    label = labels_for_cuts(workload.num_features, config.cuts) if config.cuts else None
    _check_budget(config, len(weights))

    qnn = _build_qnn(model, config, label, folder.queries)
    meter = QueryMeter(folder.queries)
    with RecordWriter(folder.training) as log:
        watch = _Watch(workload, qnn, meter, log, progress)
        optimize = _adam if config.optimizer == "adam" else _cobyla
        with _plain_errors():
            final = optimize(qnn, workload, config, weights, watch)
            scores = watch.observe(final, qnn.forward(workload.x_train, final)[:, 0])

    result = TrainingResult(
        workload=workload.name,
        config=config,
        label=label,
        run_id=meter.run_id,
        final=scores,
        seconds=watch.seconds,
        totals=meter.totals,
        folder=folder,
    )
    names = [parameter.name for parameter in model.weights]
    write_json(
        folder.weights, {"names": names, "initial": weights.tolist(), "final": final.tolist()}
    )
    write_json(folder.summary, result.as_dict())
    return result


def require_ml() -> None:
    """Raises MissingExtraError, with the install command, if a network cannot be trained."""
    for module, package in (
        ("torch", "torch"),
        ("qiskit_machine_learning", "qiskit-machine-learning"),
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingExtraError(package, "ml", "training") from error


def _adam(
    qnn: EstimatorQNN,
    workload: Workload,
    config: TrainingConfig,
    weights: FloatArray,
    watch: _Watch,
) -> FloatArray:
    import torch
    from qiskit_machine_learning.connectors import TorchConnector

    network = TorchConnector(qnn, initial_weights=weights)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    features = torch.as_tensor(workload.x_train)
    targets = torch.as_tensor(workload.y_train, dtype=torch.float32)
    watch.start()  # only now: the optimizer's constructor imports for seconds
    for _ in range(config.maxiter):
        optimizer.zero_grad()
        outputs = network(features)[:, 0]
        loss = torch.nn.functional.mse_loss(outputs, targets)
        loss.backward()
        gradient = float(torch.linalg.vector_norm(network.weight.grad))
        watch.observe(_as_array(network.weight), _as_array(outputs), gradient)
        optimizer.step()
    return _as_array(network.weight)


def _cobyla(
    qnn: EstimatorQNN,
    workload: Workload,
    config: TrainingConfig,
    weights: FloatArray,
    watch: _Watch,
) -> FloatArray:
    from scipy.optimize import minimize

    def loss(candidate: FloatArray) -> float:
        outputs = qnn.forward(workload.x_train, candidate)[:, 0]
        return watch.observe(candidate, outputs).loss

    watch.start()
    budget = {"maxiter": config.maxiter, "rhobeg": 1.0}
    return np.asarray(minimize(loss, weights, method="COBYLA", options=budget).x)


@dataclass
class _Watch:
    """Scores the weights of each step on both parts of the workload and records them."""

    workload: Workload
    qnn: EstimatorQNN
    meter: QueryMeter
    log: RecordWriter
    progress: Progress | None
    step: int = 0
    started: float = 0.0

    def start(self) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.started

    def observe(
        self, weights: FloatArray, outputs: FloatArray, gradient: float | None = None
    ) -> Scores:
        """Records weights with their outputs on the training part and the gradient's norm."""
        unseen = self.qnn.forward(self.workload.x_test, weights)[:, 0]
        scores = Scores(
            loss=float(np.mean((outputs - self.workload.y_train) ** 2)),
            train_accuracy=_accuracy(outputs, self.workload.y_train),
            test_accuracy=_accuracy(unseen, self.workload.y_test),
        )
        totals = self.meter.read()
        metrics = {
            "train_accuracy": scores.train_accuracy,
            "test_accuracy": scores.test_accuracy,
            "shots": float(totals.shots),
        }
        if gradient is not None:
            metrics["gradient_norm"] = gradient
        record = TrainingRecord(
            run_id=self.meter.run_id,
            step=self.step,
            epoch=self.step,  # the whole training part is one batch
            loss=scores.loss,
            metrics=metrics,
            queries=totals.queries,
            at=self.seconds,
        )
        self.log.write(record)
        if self.progress is not None:
            self.progress(record)
        self.step += 1
        return scores


def _build_qnn(model: Model, config: TrainingConfig, label: str | None, log: Path) -> EstimatorQNN:
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    from ..gradient import FragmentGradient

    estimator: DistributedEstimator | ReferenceEstimator
    gradient: FragmentGradient | None = None
    if config.pipeline == "reference":
        assert config.shots is not None
        estimator = ReferenceEstimator(
            label, shots=config.shots, workers=config.workers, seed=config.seed, log=log
        )
    else:
        options = EstimatorOptions(
            shots=config.shots,
            default_precision=0.0 if config.shots is None else 1 / 64,
            seed=config.seed,
            setting_basis=config.setting_basis,
        )
        estimator = DistributedEstimator(
            cuts=label, pool="threads", workers=config.workers, options=options, log=log
        )
        gradient = FragmentGradient(estimator)
    return EstimatorQNN(
        circuit=model.circuit,
        observables=model.observable,
        input_params=model.inputs,
        weight_params=model.weights,
        estimator=estimator,
        gradient=gradient,
        # None: the estimator's options decide. The network's own default would hide them.
        default_precision=None,  # type: ignore[arg-type]
    )


def _check_budget(config: TrainingConfig, num_weights: int) -> None:
    least = num_weights + 2
    if config.optimizer == "cobyla" and config.maxiter < least:
        raise InputError(
            f"`maxiter` is {config.maxiter}, and COBYLA takes {least} evaluations to build its "
            f"first model of {num_weights} weights: give {least} or more"
        )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Brings the package's own errors out of those that Qiskit Machine Learning wraps them in."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__cause__, DistributedEstimatorError):
            raise error.__cause__ from None
        raise


def _accuracy(outputs: FloatArray, targets: FloatArray) -> float:
    return float(np.mean(np.where(outputs >= 0, 1.0, -1.0) == targets))


def _as_array(tensor: Any) -> FloatArray:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
