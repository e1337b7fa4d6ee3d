"""The network that is trained, as PyTorch modules: a circuit, a classical head or none, a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..records import RecordWriter
from ._ml import torch
from .config import Loss, TrainingConfig
from .models import Model, build_model, initial_weights
from .networks import Network, Wanted, build_network


class QuantumLayer(torch.nn.Module):
    """A circuit in double precision: one run for a batch.

    Maps features of shape (samples, features) to outputs of shape (samples, outputs).

    Differentiable by its weights and by the features, both through the cut circuit.

    Args:
        network: Evaluates the circuit.
        weights: Where training starts, shape (weights,).
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
        response = network.evaluate(
            features.detach().numpy().astype(np.float64, copy=False),
            weights.detach().numpy(),
            wanted,
        )
        ctx.jacobians = response.jacobians
        return torch.tensor(response.outputs, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        jacobians = ctx.jacobians()
        by_output = upstream[0].numpy()
        by_features = by_weights = None
        if jacobians.features is not None:
            by_features = torch.from_numpy(np.einsum("so,sof->sf", by_output, jacobians.features))
        if jacobians.weights is not None:
            by_weights = torch.from_numpy(np.einsum("so,sow->w", by_output, jacobians.weights))
        return by_features, by_weights, None, None


_evaluate: Callable[..., torch.Tensor] = _Evaluation.apply


class Classifier(torch.nn.Module):
    """Scores samples, shape (samples, features) to (samples,): the sign is the predicted class.

    Args:
        layer: The circuit.
        head: Maps its outputs, shape (samples, outputs), to one score a sample; None: their mean.
    """

    def __init__(self, layer: QuantumLayer, head: torch.nn.Module | None) -> None:
        super().__init__()
        self.layer = layer
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of a batch."""
        outputs = self.layer(features)
        if self.head is None:
            return torch.mean(outputs, dim=1)
        scores: torch.Tensor = self.head(outputs)
        if scores.numel() != len(features):
            raise InputError(
                f"the head gives scores of shape {tuple(scores.shape)} for {len(features)} "
                "samples: it must give one a sample"
            )
        return scores.reshape(len(features))


def build_classifier(
    config: TrainingConfig,
    num_features: int,
    log: RecordWriter | None,
    head: torch.nn.Module | None,
    trace: RecordWriter | None = None,
) -> tuple[Model, Classifier]:
    """The model of a configuration and a network for it, at its initial weights.

    Args:
        config: What to build.
        num_features: Features a sample.
        log: Where the queries are recorded.
        head: The classical head, where the configuration says "custom".
        trace: Where attempts at tasks are recorded.

    Raises:
        InputError: The model cannot be built or cut so, or the head is missing or not asked for.
    """
    if (head is not None) != (config.head == "custom"):
        raise InputError(
            f"`head` is {config.head!r} in the configuration and {'a' if head else 'no'} module "
            'was given: a module goes with "custom", and with nothing else'
        )
    model = build_model(config.model, num_features)
    network = build_network(model, config, log, trace)
    layer = QuantumLayer(network, initial_weights(model, config.seed))
    if config.head == "linear":
        head = torch.nn.Linear(len(model.observables), 1, dtype=torch.float64)
    return model, Classifier(layer, None if head is None else head.to(torch.float64))


def mean_loss(kind: Loss) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss of scores against targets ±1, both of shape (samples,)."""
    if kind == "mse":
        return torch.nn.functional.mse_loss
    # The score is the logit: noise may carry an expectation value past ±1, where (1 + y) / 2 is
    # no probability any more.
    return lambda scores, targets: torch.nn.functional.softplus(-targets * scores).mean()


def accuracy(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """The share of scores with the sign of their target; 0 counts as +1."""
    return float(((scores >= 0) == (targets > 0)).double().mean())


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
