"""Shots of the next step, by the norm test."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .config import TrainingConfig
from .sources import FloatArray

_STEPS = 19
"""Steps that the mean is over, in effect: as long as the memory of Adam."""
_GROWTH = 2.0
"""Most by which shots grow from one step to the next."""
_MOST = 100
"""Shots of a step at most, over those of the first, where nothing else is said."""


@dataclass
class NormTest:
    """Chooses shots so that the error of the loss gradient is a part θ of its norm.

    The test is that of Byrd, Chin, Nocedal and Wu, "Sample size selection in optimization methods
    for machine learning" (2012), with shots for samples: the variance V of an estimate m of the
    gradient, summed over the weights, is to be at most θ² |m|². Here m is the mean over the last
    steps, which is what Adam follows, and what small steps of any optimiser add up to; so noise
    averages out between steps, too. V falls as one over the shots of a step, which gives those of
    the next.

    gCANS (Gu et al., 2021) also takes shots by variance and norm of such means, but from the
    learning rate and a bound on the curvature, which hold for gradient descent. iCANS (Kübler et
    al., 2020) gives each weight shots of its own, which the design of shots does here.

    Attributes:
        theta: θ.
        most: Shots of a step at most.
        shots: Of the next step.
        steps: That were made, as far as they count.
        price: Mean of the variance of a step's gradient times its shots.
        mean: m.
    """

    theta: float
    most: int
    shots: int
    steps: int = 0
    price: float = 0.0
    mean: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, config: TrainingConfig) -> NormTest | None:
        """The test of a run before its first step; None: its shots do not adapt."""
        if config.adaptive_shots is None or config.shots_total is None:
            return None
        most = config.max_shots or _MOST * config.shots_total
        return cls(config.adaptive_shots, most, config.shots_total)

    def update(self, shots: int, variance: float, gradient: FloatArray) -> None:
        """Take in a step: its shots, its gradient and the variance of that.

        Example:
            >>> test = NormTest(theta=0.5, most=10_000, shots=1000)
            >>> test.update(1000, 0.1, np.array([0.6, 0.8]))
            >>> test.shots
            400
        """
        self.steps = min(self.steps + 1, _STEPS)
        new = 2 / (self.steps + 1)
        self.price += new * (shots * variance - self.price)
        mean = np.array(self.mean) if self.mean else np.zeros_like(gradient)
        mean += new * (gradient - mean)
        self.mean = mean.tolist()
        # The squares of the weights of a mean that fades so have the sum 1/steps.
        wanted = self.price / self.steps / max(self.theta**2 * float(mean @ mean), 1e-300)
        self.shots = max(1, math.ceil(min(wanted, _GROWTH * shots, self.most)))
