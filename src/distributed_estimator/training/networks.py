"""The network that is trained: a circuit run by an estimator, a classical head or none, a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from ..cutting import CutPlan
from ..errors import DistributedEstimatorError, InputError, shortened
from ..estimator import AnyBackend, DistributedEstimator, EstimatorOptions
from ..execution import Pool, make_pool
from ..gradient import FragmentGradient
from ..pipeline.priors import Priors
from ..pubs import merge, read_pubs
from ..records import RecordWriter
from ..reference import ReferenceEstimator
from ._ml import qiskit_machine_learning, torch
from .config import Loss, TrainingConfig
from .models import Model, build_model, initial_weights
from .sources import FloatArray

Estimator = DistributedEstimator | ReferenceEstimator


class Wanted(NamedTuple):
    """What to differentiate by."""

    features: bool
    weights: bool


class Jacobians(NamedTuple):
    """Derivatives of outputs by features and by weights; None where they are not wanted.

    Their shapes are (samples, outputs, features) and (samples, outputs, weights).
    """

    features: FloatArray | None
    weights: FloatArray | None


class Estimated(NamedTuple):
    """Outputs, shape (samples, outputs), and their covariances, shape (samples, outputs, outputs).

    Covariances are those of shots; NaN where they are not known.
    """

    outputs: FloatArray
    covariances: FloatArray


class Noise(NamedTuple):
    """What the shots of a step leave open of the loss gradient by the circuit's weights.

    Attributes:
        shots: Shots of the step.
        values: Standard errors of outputs, shape (samples, outputs).
        derivatives: Those by weights, shape (samples, outputs, weights).
        stderrs: Standard errors of the gradient if outputs were known, shape (weights,).
    """

    shots: int
    values: FloatArray
    derivatives: FloatArray
    stderrs: FloatArray


_Pub = tuple[QuantumCircuit, list[list[SparsePauliOp]], FloatArray]

_VALUES = 1 / 8
"""Part of a step's shots that its values take. The least variance of a gradient of Iris has 1/8,
and its minimum is flat."""
_FEWEST_ADAPTED, _DIVIDED_WELL = 2, 5
"""Shots of a circuit at least where errors are to be known, as one says nothing of its variance;
and where samples are left out lest circuits have fewer."""

Response = tuple[FloatArray, Callable[[FloatArray], Jacobians]]
"""Outputs of a batch, shape (samples, outputs), and a way to their derivatives from the slopes of
the loss by the outputs, of the same shape, for which they are to be known well."""


class Network(ABC):
    """A model on an estimator, which keeps the count of runs; evaluates a batch in one go.

    Attributes:
        of_step: Shots of a step, which may change between steps; None: the estimator's options
            hold for each run.
        noise: Of the last gradient by weights whose shots were divided; None: there was none.
    """

    of_step: int | None = None
    noise: Noise | None = None

    def __init__(self, estimator: Estimator, *owned: Pool | DistributedEstimator | RecordWriter):
        self.estimator = estimator
        self._owned = owned

    @abstractmethod
    def evaluate(self, features: FloatArray, weights: FloatArray, wanted: Wanted) -> Response:
        """Outputs at features of shape (samples, features) and weights of shape (weights,)."""

    @abstractmethod
    def estimate(self, features: FloatArray, weights: FloatArray) -> Estimated:
        """Outputs as `evaluate` has them, and what shots leave open of them."""

    @abstractmethod
    def check_step(self, features: FloatArray, weights: FloatArray) -> None:
        """Raises `InputError` where there are too few shots for a step at these samples."""

    def num_affordable(self, features: FloatArray, weights: FloatArray) -> int:
        """Of how many of these samples a step is to be made."""
        return len(features)

    @property
    def priors(self) -> Priors | None:
        """What runs saw, by which the next divide their shots; None: they do not."""
        return None

    def close(self) -> None:
        """Ends the workers and closes the logs."""
        for each in self._owned:
            each.close()


class FragmentNetwork(Network):
    """A model on a `DistributedEstimator`, which is closed with it, and so are its logs and pool.

    Exact values come with their derivatives from one evaluation. With shots, values and
    derivatives come from independent ones, because a loss multiplies the two: shared noise would
    bias its gradient. Of the shots of a step an eighth goes to its values, whose errors count
    little in the gradient, and as many to values alone. Those of derivatives by weights are divided
    for the gradient of the loss.
    A network that `adapts` takes more than those where there are too few to know errors.
    """

    def __init__(
        self,
        model: Model,
        estimator: DistributedEstimator,
        pool: Pool | None = None,
        of_step: int | None = None,
        *,
        adapts: bool = False,
    ) -> None:
        owned = (estimator, pool, estimator.log, estimator.trace)
        super().__init__(estimator, *(each for each in owned if each is not None))
        self._gradient = FragmentGradient(estimator)
        self._estimator = estimator
        self._exact = estimator.accuracy(None).exact
        self.of_step, self._adapts = of_step, adapts
        self._model = model
        self._observables = [[observable] for observable in model.observables]
        numbers = {parameter: i for i, parameter in enumerate(model.circuit.parameters)}
        self._features = [numbers[parameter] for parameter in model.inputs]
        self._weights = [numbers[parameter] for parameter in model.weights]

    def evaluate(self, features: FloatArray, weights: FloatArray, wanted: Wanted) -> Response:
        """As `Network` says."""
        pub = self._pub(features, weights)
        if self._exact and any(wanted):
            values, jacobians = self._differentiate(pub, wanted, None)
            return values, lambda by_output: jacobians
        self.noise = None
        own, others = self._divided(pub, wanted)
        data = self._estimator.run([pub], shots_total=own).result()[0].data

        def differentiate(by_output: FloatArray) -> Jacobians:
            if own is None or others is None or wanted.features or not np.isfinite(by_output).all():
                return self._differentiate(pub, wanted, others)[1]
            found, stderrs = self._gradient.weighted(
                pub, by_output.T, self._model.weights, shots_total=others
            )
            by_weights = found.transpose(1, 0, 2)
            self.noise = Noise(own + others, np.asarray(data.stds).T, by_weights, stderrs)
            return Jacobians(None, by_weights)

        return np.asarray(data.evs).T, differentiate

    def estimate(self, features: FloatArray, weights: FloatArray) -> Estimated:
        """As `Network` says; outputs of a sample share shots, so that covariances are measured."""
        pub, several = self._pub(features, weights), len(self._observables) > 1
        own, _ = self._divided(pub, Wanted(features=False, weights=False))
        several = several and not self._exact
        found = self._estimator.run([pub], shots_total=own, covariance=several).result()
        data = found[0].data
        if several:
            square = found.metadata["covariance"].reshape(*data.evs.shape, *data.evs.shape)
            covariances = np.einsum("osps->sop", square)
        else:
            covariances = np.einsum("os,op->sop", data.stds**2, np.eye(len(data.stds)))
        return Estimated(np.asarray(data.evs).T, covariances)

    def check_step(self, features: FloatArray, weights: FloatArray) -> None:
        """As `Network` says."""
        self._divided(self._pub(features, weights), Wanted(features=False, weights=True))

    def num_affordable(self, features: FloatArray, weights: FloatArray) -> int:
        """As many as have shots that can be divided well; not fewer than tell how they scatter."""
        if self.of_step is None or not self._adapts:
            return len(features)
        pub = self._pub(features, weights)
        circuits = sum(self._gradient.num_circuits(pub, self._model.weights))
        return max(2, len(features) * self.of_step // (_DIVIDED_WELL * circuits))

    @property
    def priors(self) -> Priors | None:
        """As `Network` says."""
        if not self._estimator.options.reuse_pilots:
            return None
        pub = self._pub(np.zeros((1, len(self._features))), np.zeros(len(self._weights)))
        batch = merge(read_pubs([pub], None))
        preparation = self._estimator.pipeline.preparation
        return preparation.prepare(batch.circuit, batch.observables)[0].priors

    def _pub(self, features: FloatArray, weights: FloatArray) -> _Pub:
        rows = np.empty((len(features), len(self._features) + len(self._weights)))
        rows[:, self._features] = features
        rows[:, self._weights] = weights
        return self._model.circuit, self._observables, rows

    def _divided(self, pub: _Pub, wanted: Wanted) -> tuple[int | None, int | None]:
        """Shots of values and of derivatives; None: as many as the estimator's options say."""
        shots = self.of_step
        if shots is None:
            return None, None
        values, derivatives = self._gradient.num_circuits(pub, self._parameters(wanted) or None)
        own = max(values, int(_VALUES * shots))
        if not any(wanted):
            return own, None
        if self._adapts:
            values, derivatives = _FEWEST_ADAPTED * values, _FEWEST_ADAPTED * derivatives
            shots = max(shots, values + derivatives)
            own = max(values, int(_VALUES * shots))
        if shots < values + derivatives:
            raise InputError(
                f"`shots_total` is {shots}, and the values and derivatives of a step have "
                f"{values + derivatives} circuits: give at least {values + derivatives}"
            )
        own = min(own, shots - derivatives)
        return own, shots - own

    def _parameters(self, wanted: Wanted) -> list[Parameter]:
        model = self._model
        inputs = model.inputs if wanted.features else ()
        return [*inputs, *(model.weights if wanted.weights else ())]

    def _differentiate(
        self, pub: _Pub, wanted: Wanted, shots: int | None
    ) -> tuple[FloatArray, Jacobians]:
        inputs = self._model.inputs if wanted.features else ()
        values, gradients = self._gradient.values_and_gradients(
            pub, self._parameters(wanted), shots_total=shots
        )
        gradients = gradients.transpose(1, 0, 2)
        return values.T, Jacobians(
            gradients[:, :, : len(inputs)] if wanted.features else None,
            gradients[:, :, len(inputs) :] if wanted.weights else None,
        )


class ReferenceNetwork(Network):
    """A model on the paper's own pipeline, through Qiskit Machine Learning's parameter shifts."""

    def __init__(
        self, model: Model, estimator: ReferenceEstimator, log: RecordWriter | None
    ) -> None:
        super().__init__(estimator, *([] if log is None else [log]))
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

        def differentiate(by_output: FloatArray) -> Jacobians:
            self._qnn.input_gradients = wanted.features
            with _plain_errors():
                found = self._qnn.backward(features, weights)
            return Jacobians(*(None if each is None else np.asarray(each) for each in found))

        return outputs, differentiate

    def estimate(self, features: FloatArray, weights: FloatArray) -> Estimated:
        """As `Network` says; errors of cut circuits are not known to the reference."""
        values, _ = self.evaluate(features, weights, Wanted(features=False, weights=False))
        return Estimated(values, np.full((*values.shape, values.shape[1]), np.nan))

    def check_step(self, features: FloatArray, weights: FloatArray) -> None:
        """Every circuit has its own shots."""


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Brings the package's own errors out of those that Qiskit Machine Learning wraps them in."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__cause__, DistributedEstimatorError):
            raise error.__cause__ from None
        raise


class Elsewhere(NamedTuple):
    """Another place and accuracy than a configuration has; None: as it says."""

    backend: AnyBackend | Sequence[AnyBackend] | None = None
    options: EstimatorOptions | None = None


def _network(
    model: Model,
    config: TrainingConfig,
    log: RecordWriter | None,
    trace: RecordWriter | None,
    elsewhere: Elsewhere,
) -> Network:
    cuts = config.cuts_for(model.num_qubits)
    if config.pipeline == "reference":
        if elsewhere != Elsewhere():
            raise InputError(
                "the reference pipeline runs on Aer, with the shots of its configuration: leave "
                "`backend` and `options` out"
            )
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
    designed = config.shots_total is not None
    options = EstimatorOptions(
        shots=None if designed else config.shots,
        shots_total=config.shots_total,
        reuse_pilots=designed,
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
        backend=elsewhere.backend,
        pool=pool or config.pool,
        workers=config.workers,
        options=elsewhere.options or options,
        log=log,
        trace=trace,
    )
    of_step = None if config.is_gradient_free or elsewhere.options else config.shots_total
    return FragmentNetwork(
        model, estimator, pool, of_step, adapts=config.adaptive_shots is not None
    )


class QuantumLayer(torch.nn.Module):
    """A circuit in double precision: one run for a batch.

    Maps features of shape (samples, features) to outputs of shape (samples, outputs).
    Differentiable by its weights, shape (weights,), and by the features, both through the cut
    circuit.
    """

    def __init__(self, network: Network, weights: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.network = network
        self.weights = torch.nn.Parameter(torch.tensor(weights, dtype=torch.float64))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The outputs of a batch."""
        needed = torch.is_grad_enabled()
        wanted = Wanted(
            features=needed and features.requires_grad,
            weights=needed and self.weights.requires_grad,
        )
        return _evaluate(features, self.weights, self.network, wanted)


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, weights: torch.Tensor, network: Network, wanted: Wanted
    ) -> torch.Tensor:
        outputs, ctx.jacobians = network.evaluate(
            features.detach().numpy().astype(np.float64, copy=False),
            weights.detach().numpy(),
            wanted,
        )
        return torch.tensor(outputs, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_output = upstream[0].numpy()
        by_features, by_weights = ctx.jacobians(by_output)
        if by_features is not None:
            by_features = torch.from_numpy(np.einsum("so,sof->sf", by_output, by_features))
        if by_weights is not None:
            by_weights = torch.from_numpy(np.einsum("so,sow->w", by_output, by_weights))
        return by_features, by_weights, None, None


_evaluate: Callable[..., torch.Tensor] = _Evaluation.apply


class Classifier(torch.nn.Module):
    """Scores samples of shape (samples, features).

    Of two classes a sample has one score, shape (samples,), whose sign is the predicted class; of
    more one a class, shape (samples, classes), the greatest of which is. A head maps the outputs,
    shape (samples, outputs), to scores. None: their mean, or the outputs themselves.
    """

    def __init__(
        self, layer: QuantumLayer, head: torch.nn.Module | None, num_classes: int = 2
    ) -> None:
        super().__init__()
        self.layer = layer
        self.head = head
        self.num_classes = num_classes

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of a batch."""
        return self.scores(self.layer(features))

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """The scores, from outputs of shape (samples, outputs)."""
        is_binary = self.num_classes == 2
        if self.head is None:
            return torch.mean(outputs, dim=1) if is_binary else outputs
        scores: torch.Tensor = self.head(outputs)
        if scores.numel() != len(outputs) * (1 if is_binary else self.num_classes):
            each = "one" if is_binary else f"{self.num_classes}, one a class,"
            raise InputError(
                f"the head gives scores of shape {tuple(scores.shape)} for {len(outputs)} "
                f"samples: it must give {each} a sample"
            )
        return scores.reshape(len(outputs), *([] if is_binary else [self.num_classes]))


def build_classifier(
    config: TrainingConfig,
    num_features: int,
    log: RecordWriter | None,
    head: torch.nn.Module | None,
    trace: RecordWriter | None = None,
    *,
    num_classes: int = 2,
    elsewhere: Elsewhere = Elsewhere(),  # noqa: B008
) -> tuple[Model, Classifier]:
    """The model of a configuration and a network for it, at its initial weights.

    `log` records queries and `trace` the attempts at tasks; `head` is the classical one, where the
    configuration says "custom".

    Raises:
        InputError: The model cannot be built or cut so, or the head is missing or not asked for.
    """
    if (head is not None) != (config.head == "custom"):
        raise InputError(
            f"`head` is {config.head!r} in the configuration and {'a' if head else 'no'} module "
            'was given: a module goes with "custom", and with nothing else'
        )
    model = build_model(config.model, num_features)
    if config.head == "none" and num_classes not in (2, model.num_outputs):
        raise InputError(
            f"`observable` is {shortened(config.model.observable)}, which has {model.num_outputs} "
            f"output(s), and there are {num_classes} classes: give one for each class with commas "
            "between them, or a `head`"
        )
    network = _network(model, config, log, trace, elsewhere)
    layer = QuantumLayer(network, initial_weights(model, config.seed))
    if config.head == "linear":
        scores = 1 if num_classes == 2 else num_classes
        head = torch.nn.Linear(model.num_outputs, scores, dtype=torch.float64)
    head = None if head is None else head.to(torch.float64)
    return model, Classifier(layer, head, num_classes)


def mean_loss(kind: Loss) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss of scores against targets, as a `Classifier` gives and a `Workload` has them.

    Of several classes mse asks for a score of +1 from a sample's own class and -1 from the others.
    """
    functional = torch.nn.functional

    def mse(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if scores.ndim == 2:
            targets = 2.0 * functional.one_hot(targets.long(), scores.shape[1]) - 1.0
        return functional.mse_loss(scores, targets.to(scores.dtype))

    def cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # The score is the logit: noise may carry an expectation value past ±1, where (1 + y) / 2 is
        # no probability any more.
        if scores.ndim == 2:
            return functional.cross_entropy(scores, targets.long())
        return functional.softplus(-targets * scores).mean()

    return mse if kind == "mse" else cross_entropy


def loss_variance(
    loss: torch.Tensor, outputs: torch.Tensor, noise: Noise, part: float = 1.0
) -> float:
    """Variance of the loss gradient by the circuit's weights, summed over these.

    That of shots to first order: of the derivatives, with what their samples share, and of the
    slopes of the loss by the outputs, as if no two outputs shared shots. Where samples are a part
    of a batch, their scatter comes on top, of which that of their shots is a part itself.

    Args:
        loss: Mean over the samples; its graph is kept.
        outputs: Of the circuit, shape (samples, outputs).
        noise: Of the step.
        part: Of the batch that the samples are, chosen at random without replacement.
    """
    (slopes,) = torch.autograd.grad(loss, outputs, create_graph=True)
    variance = float((noise.stderrs**2).sum())
    for by_weight in torch.from_numpy(noise.derivatives).unbind(-1):
        (change,) = torch.autograd.grad(slopes, outputs, by_weight, retain_graph=True)
        variance += float(((change.numpy() * noise.values) ** 2).sum())
    if part == 1:
        return variance
    own = np.einsum("so,sow->sw", slopes.detach().numpy(), noise.derivatives)
    scatter = len(own) * float(own.var(axis=0, ddof=1).sum())
    return part * variance + (1 - part) * scatter


def accuracy(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """The share of samples whose scores predict their target."""
    return float((predicted(scores) == targets).double().mean())


def predicted(scores: torch.Tensor) -> torch.Tensor:
    """The targets that scores stand for.

    Of two classes ±1 by the sign, where 0 counts as +1; of more the number of the greatest.
    """
    if scores.ndim == 1:
        return torch.where(scores >= 0, 1.0, -1.0).to(scores.dtype)
    return scores.argmax(dim=1).to(scores.dtype)


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Switches dropout and its like off, and back on where they were on."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
