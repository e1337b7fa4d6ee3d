"""Accuracy of a network on its test samples, clean and perturbed (paper §V, RQ5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ..analysis.accuracy import AccuracyCurve, AccuracyPoint, wilson_interval
from ._ml import torch
from .attacks import Attack, AttackConfig, FloatArray, check_room, fgsm, gaussian, pgd
from .classifier import Classifier, evaluating, mean_loss
from .config import Loss
from .trained import Trained
from .workloads import Workload

BATCH = 500
"""Samples of one run. Bounds the memory; the time a sample takes hardly falls beyond it."""

SUMMARISED = ("gaussian", "fgsm")
"""The attacks that the paper's summary averages over."""


@dataclass(frozen=True)
class Measured:
    """Accuracy of a network on clean and on perturbed samples.

    Attributes:
        samples: Test samples, each of which counts once in the intervals however often it is drawn.
        clean: Without perturbation.
        curves: One an attack.
    """

    samples: int
    clean: AccuracyPoint
    curves: tuple[AccuracyCurve, ...]

    @property
    def summary(self) -> float | None:
        """The paper's: mean accuracy over non-zero magnitudes, averaged over Gaussian and FGSM.

        Of those two, whichever was measured; None if neither was.
        """
        means = [curve.mean_accuracy for curve in self.curves if curve.attack in SUMMARISED]
        return sum(means) / len(means) if means else None


class Probe:
    """Evaluates a network at samples of one's own making, by batches.

    Args:
        classifier: The network; left as it was.
        loss: What an attack raises.
        advance: Told the number of samples after each batch.
    """

    def __init__(
        self, classifier: Classifier, loss: Loss, advance: Callable[[int], None] | None = None
    ) -> None:
        self._classifier = classifier
        self._loss = mean_loss(loss)
        self._advance = advance or (lambda count: None)

    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of samples, shape (samples, features) to (samples,)."""
        with evaluating(self._classifier), torch.no_grad():
            return np.concatenate([self._scores(batch) for (batch,) in self._split(features)])

    def slope(self, features: FloatArray, targets: FloatArray) -> FloatArray:
        """The derivative of each sample's own loss by its features, shape (samples, features)."""
        with (
            evaluating(self._classifier),
            _weights_fixed(self._classifier),
            torch.enable_grad(),
        ):
            parts = [self._slope(*batch) for batch in self._split(features, targets)]
        return np.concatenate(parts)

    def mean_loss(self, scores: FloatArray, targets: FloatArray) -> float:
        """The loss of scores against targets."""
        return float(self._loss(torch.from_numpy(scores), torch.from_numpy(targets)))

    def _scores(self, features: FloatArray) -> FloatArray:
        scores: FloatArray = self._classifier(torch.from_numpy(features)).numpy()
        self._advance(len(features))
        return scores

    def _slope(self, features: FloatArray, targets: FloatArray) -> FloatArray:
        points = torch.from_numpy(features).clone().requires_grad_()
        loss = self._loss(self._classifier(points), torch.from_numpy(targets))
        (slope,) = torch.autograd.grad(len(features) * loss, points)
        self._advance(len(features))
        slopes: FloatArray = slope.numpy()
        return slopes

    def _split(self, *arrays: FloatArray) -> Iterator[tuple[FloatArray, ...]]:
        for start in range(0, len(arrays[0]), BATCH):
            yield tuple(array[start : start + BATCH] for array in arrays)


def measure(
    trained: Trained, attacks: AttackConfig, advance: Callable[[int], None] | None = None
) -> Measured:
    """Accuracies of a network on its test part, clean and perturbed.

    An interval takes the samples as independent, not the draws of a sample: a sample counts with
    the share of its draws that are right, and the variance of such shares is at most that of zeros
    and ones, so the interval is on the safe side.

    Args:
        trained: The network with its data.
        attacks: What to measure.
        advance: Told the number of evaluations after each batch.
    """
    seed = trained.config.seed if attacks.seed is None else attacks.seed
    workload = _thinned(trained.workload, attacks.samples, seed)
    if "gaussian" in attacks.attacks:
        check_room(attacks.draws, len(attacks.sigma), workload.x_test.size)
    probe = Probe(trained.classifier, trained.config.loss, advance)
    clean = _point(probe, 0.0, probe.scores(workload.x_test)[None], workload.y_test)
    curves = []
    for attack in attacks.attacks:
        grid = [magnitude for magnitude in attacks.grid(attack) if magnitude > 0]
        points = _perturbed(attack, attacks, np.array(grid), workload, probe, seed)
        scores = probe.scores(points.reshape(-1, points.shape[-1])).reshape(points.shape[:-1])
        found = [_point(probe, *at, workload.y_test) for at in zip(grid, scores, strict=True)]
        unmoved = [clean] if 0.0 in attacks.grid(attack) else []
        curves.append(AccuracyCurve(attack, (*unmoved, *found)))
    return Measured(len(workload.y_test), clean, tuple(curves))


def count_evaluations(trained: Trained, attacks: AttackConfig) -> tuple[int, int]:
    """How often a sample is evaluated, and how often the loss is differentiated by one."""
    values, gradients = 1, 0
    for attack in attacks.attacks:
        magnitudes = sum(magnitude > 0 for magnitude in attacks.grid(attack))
        values += magnitudes * (attacks.draws if attack == "gaussian" else 1)
        gradients += {"fgsm": 1, "pgd": attacks.pgd_steps * magnitudes}.get(attack, 0)
    samples = min(len(trained.workload.y_test), attacks.samples or len(trained.workload.y_test))
    return samples * values, samples * gradients


def _perturbed(
    attack: Attack,
    attacks: AttackConfig,
    grid: FloatArray,
    workload: Workload,
    probe: Probe,
    seed: int,
) -> FloatArray:
    """Shape (magnitudes, draws, samples, features)."""
    features, targets, bounds = workload.x_test, workload.y_test, workload.feature_range
    if attack == "gaussian":
        return gaussian(features, grid, attacks.draws, bounds, seed)
    if attack == "fgsm":
        return fgsm(probe.slope, features, targets, grid, bounds)[:, None]
    steps = attacks.pgd_steps
    moved = pgd(probe.slope, features, targets, grid, bounds, steps=steps, seed=seed)
    return moved[:, None]


def _point(
    probe: Probe, magnitude: float, scores: FloatArray, targets: FloatArray
) -> AccuracyPoint:
    """From scores of shape (draws, samples)."""
    share = float(np.mean((scores >= 0) == (targets > 0)))
    low, high = wilson_interval(share, len(targets))
    loss = probe.mean_loss(scores.reshape(-1), np.tile(targets, len(scores)))
    return AccuracyPoint(magnitude, share, low, high, loss)


def _thinned(workload: Workload, most: int | None, seed: int) -> Workload:
    """The workload with at most so many test samples, which are among the more of a seed."""
    if most is None or most >= len(workload.y_test):
        return workload
    order = np.random.default_rng([seed, 2]).permutation(len(workload.y_test))
    chosen = np.sort(order[:most])
    return replace(workload, x_test=workload.x_test[chosen], y_test=workload.y_test[chosen])


@contextmanager
def _weights_fixed(classifier: Classifier) -> Iterator[None]:
    """Keeps the network from being differentiated by its weights too, which costs circuits."""
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
