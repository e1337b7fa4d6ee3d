"""A network as a PyTorch module: double precision, one run for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ml import torch
from .networks import Network, Wanted


class QuantumLayer(torch.nn.Module):
    """Maps features of shape (samples, features) to outputs of shape (samples, outputs).

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
