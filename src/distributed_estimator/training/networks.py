"""A model run by an estimator: outputs of a batch of samples, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from qiskit.circuit import Parameter

from ..cutting import CutPlan
from ..errors import DistributedEstimatorError
from ..estimator import DistributedEstimator, EstimatorOptions
from ..execution import Pool, make_pool
from ..gradient import FragmentGradient
from ..records import RecordWriter
from ..reference import ReferenceEstimator
from ._ml import qiskit_machine_learning
from .config import TrainingConfig
from .models import Model

FloatArray = npt.NDArray[np.float64]
Estimator = DistributedEstimator | ReferenceEstimator


@dataclass(frozen=True)
class Wanted:
    """What to differentiate by."""

    features: bool
    weights: bool

    def __bool__(self) -> bool:
        return self.features or self.weights


@dataclass(frozen=True, eq=False)
class Jacobians:
    """Derivatives of outputs, None where not wanted.

    Attributes:
        features: Shape (samples, outputs, features).
        weights: Shape (samples, outputs, weights).
    """

    features: FloatArray | None
    weights: FloatArray | None


@dataclass(frozen=True, eq=False)
class Response:
    """Outputs of a batch, shape (samples, outputs), and a way to their derivatives."""

    outputs: FloatArray
    jacobians: Callable[[], Jacobians]


class Network(Protocol):
    """Evaluates a batch in one go; `estimator` keeps the count of runs."""

    estimator: Estimator

    def evaluate(self, features: FloatArray, weights: FloatArray, wanted: Wanted) -> Response:
        """Outputs at features of shape (samples, features) and weights of shape (weights,)."""
        ...

    def close(self) -> None:
        """Ends the workers and closes the logs."""


class FragmentNetwork:
    """A model on a `DistributedEstimator`.

    Exact values come with their derivatives from one evaluation. With shots, values and
    derivatives come from independent ones, because a loss multiplies the two: shared noise would
    bias its gradient.

    Args:
        model: The circuit and its observables.
        estimator: Evaluates it; is closed with the network.
        pool: The estimator's, where it has not started it itself; is closed, too.
    """

    def __init__(
        self, model: Model, estimator: DistributedEstimator, pool: Pool | None = None
    ) -> None:
        self.estimator: Estimator = estimator
        self._logs = [log for log in (estimator.log, estimator.trace) if log is not None]
        self._closes = [estimator.close, *([] if pool is None else [pool.close])]
        self._gradient = FragmentGradient(estimator)
        self._exact = estimator.accuracy(None).exact
        self._model = model
        self._observables = [[observable] for observable in model.observables]
        numbers = {parameter: i for i, parameter in enumerate(model.circuit.parameters)}
        self._features = [numbers[parameter] for parameter in model.inputs]
        self._weights = [numbers[parameter] for parameter in model.weights]

    def evaluate(self, features: FloatArray, weights: FloatArray, wanted: Wanted) -> Response:
        """As `Network` says."""
        rows = np.empty((len(features), len(self._features) + len(self._weights)))
        rows[:, self._features] = features
        rows[:, self._weights] = weights
        pub = (self._model.circuit, self._observables, rows)
        if self._exact and wanted:
            values, jacobians = self._differentiate(pub, wanted)
            return Response(values, lambda: jacobians)
        values = np.asarray(self.estimator.run([pub]).result()[0].data.evs)
        return Response(values.T, lambda: self._differentiate(pub, wanted)[1])

    def close(self) -> None:
        """As `Network` says."""
        for close in self._closes:
            close()
        for log in self._logs:
            log.close()

    def _differentiate(
        self, pub: tuple[object, ...], wanted: Wanted
    ) -> tuple[FloatArray, Jacobians]:
        count = len(self._model.inputs) if wanted.features else 0
        parameters: list[Parameter] = [
            *(self._model.inputs if wanted.features else ()),
            *(self._model.weights if wanted.weights else ()),
        ]
        values, gradients = self._gradient.values_and_gradients(pub, parameters)
        gradients = gradients.transpose(1, 0, 2)
        jacobians = Jacobians(
            gradients[:, :, :count] if wanted.features else None,
            gradients[:, :, count:] if wanted.weights else None,
        )
        return values.T, jacobians


class ReferenceNetwork:
    """A model on the paper's own pipeline, through Qiskit Machine Learning's parameter shifts."""

    def __init__(
        self, model: Model, estimator: ReferenceEstimator, log: RecordWriter | None
    ) -> None:
        self.estimator: Estimator = estimator
        self._log = log
        self._qnn = qiskit_machine_learning.neural_networks.EstimatorQNN(
            circuit=model.circuit,
            observables=list(model.observables),
            input_params=model.inputs,
            weight_params=model.weights,
            estimator=estimator,
            # None: the estimator's shots decide. The network's own default would hide them.
            default_precision=None,  # type: ignore[arg-type]
        )

    def evaluate(self, features: FloatArray, weights: FloatArray, wanted: Wanted) -> Response:
        """As `Network` says."""
        with _plain_errors():
            outputs = np.asarray(self._qnn.forward(features, weights))

        def differentiate() -> Jacobians:
            self._qnn.input_gradients = wanted.features
            with _plain_errors():
                by_features, by_weights = self._qnn.backward(features, weights)
            return Jacobians(
                None if by_features is None else np.asarray(by_features),
                None if by_weights is None else np.asarray(by_weights),
            )

        return Response(outputs, differentiate)

    def close(self) -> None:
        """As `Network` says."""
        if self._log is not None:
            self._log.close()


def build_network(
    model: Model,
    config: TrainingConfig,
    log: RecordWriter | None,
    trace: RecordWriter | None = None,
) -> Network:
    """The network that a configuration asks for.

    Raises:
        InputError: The model cannot be cut as asked.
    """
    cuts = config.cuts_for(model.circuit.num_qubits)
    if config.pipeline == "reference":
        assert config.shots is not None
        assert cuts is None or isinstance(cuts, str)
        reference = ReferenceEstimator(
            cuts,
            shots=config.shots,
            workers=config.workers,
            seed=config.seed,
            log=log,
            stragglers=config.stragglers,
        )
        return ReferenceNetwork(model, reference, log)
    options = EstimatorOptions(
        shots=config.shots,
        default_precision=0.0 if config.shots is None else 1 / 64,
        seed=config.seed,
        setting_basis=config.setting_basis,
        policy=config.policy,
        stragglers=config.stragglers,
    )
    pool = None
    if config.address is not None:
        pool = make_pool(config.pool, config.workers, config.address)
    estimator = DistributedEstimator(
        cuts=CutPlan.build(model.circuit, cuts),
        pool=pool or config.pool,
        workers=config.workers,
        options=options,
        log=log,
        trace=trace,
    )
    return FragmentNetwork(model, estimator, pool)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Brings the package's own errors out of those that Qiskit Machine Learning wraps them in."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__cause__, DistributedEstimatorError):
            raise error.__cause__ from None
        raise
