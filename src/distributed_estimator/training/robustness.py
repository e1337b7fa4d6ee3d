"""How a trained network stands up to perturbed samples (paper §V, RQ5, Fig. 8).

Gaussian noise, FGSM and PGD move samples within the range that features can have. Magnitudes are in
radians, the unit of the scaled features. Whole grids of magnitudes are made at once, from the same
random numbers: the draws of one σ are those of another, stretched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..analysis.accuracy import AccuracyCurve, AccuracyPoint, wilson_interval
from ..analysis.load import QueryTotals, load_queries
from ..errors import InputError, RecordError
from ..records import atomic
from ._ml import torch
from .config import AttackConfig, Loss, TrainingConfig, check_room
from .networks import Classifier, accuracy, evaluating, mean_loss
from .runs import QueryMeter, RunFolder, write_json
from .sources import FloatArray
from .trained import TrainedNetwork

KIND = "robustness"
MOST_REFERENCE_HOURS = 1.0
"""The reference pipeline runs one query after the other: tens of milliseconds each, or seconds."""

BATCH = 500
"""Samples of one run. Bounds the memory; the time a sample takes hardly falls beyond it."""

SUMMARISED = ("gaussian", "fgsm")
"""The attacks that the paper's summary averages over."""

PGD_REACH = 2.5
"""The steps of PGD add up to this many radii, so that it can cross the ball and come back."""

Bounds = tuple[float, float]
Slope = Callable[[FloatArray, FloatArray], FloatArray]
"""The derivative of each sample's loss by its features, from features and targets."""


@dataclass(frozen=True)
class RobustnessFiles:
    """Where a result goes: the JSON document, and beside it the figure and the query log.

    `replace` says whether an earlier result there may be lost.
    """

    result: Path
    replace: bool = False

    @property
    def figure(self) -> Path:
        """The PNG."""
        return self.result.with_suffix(".png")

    @property
    def queries(self) -> Path:
        """Query records of the attacks."""
        return self.result.with_name(f"{self.result.stem}-queries.jsonl")

    def check(self) -> Self:
        """Returns itself if all files can be written without loss of anyone else's.

        Raises:
            InputError: The name or its folder does not serve, a file there is not an earlier
                result's, or that is not to be replaced.
        """
        if self.result.suffix != ".json":
            raise InputError(f"`{self.result}` does not end in .json: name a file that does")
        folder = self.result.parent
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise InputError(
                f"`{self.result}` cannot be written: `{folder}` is no folder to write to, name "
                "another file with --out"
            )
        taken = [path for path in (self.result, self.figure, self.queries) if path.exists()]
        if taken and not _is_result(self.result):
            raise InputError(
                f"`{taken[0]}` is there and belongs to something else: name another file with --out"
            )
        if taken and not self.replace:
            raise InputError(
                f"`{self.result}` holds an earlier measurement: name another file with --out, or "
                "give --replace to lose that one"
            )
        return self


def _is_result(path: Path) -> bool:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("kind") == KIND


@dataclass(frozen=True)
class Measured:
    """Accuracy of a network on clean and on perturbed samples, with one curve an attack.

    Each of the `samples` counts once in the intervals, however often it is drawn.
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


@dataclass(frozen=True)
class RobustnessResult:
    """What an evaluation came to.

    Attributes:
        config: How the network was trained; `shots` is None if it was attacked without shots.
        label: The partition label; None: not cut by label.
        epoch: Epochs the network was trained.
        finished: Whether training had ended.
        attacks: What was measured; its seed is the one that was used.
        totals: What the queries cost.
    """

    workload: str
    config: TrainingConfig
    label: str | None
    epoch: int
    finished: bool
    attacks: AttackConfig
    measured: Measured
    totals: QueryTotals
    seconds: float
    files: RobustnessFiles

    @property
    def title(self) -> str:
        """The network that was attacked, in one line."""
        title = self.config.title(self.workload, self.label)
        return f"{title}, {self.config.standing(self.epoch, self.finished)}"

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON document, without the place of its files."""
        fields = asdict(self)
        del fields["files"]
        measured = fields.pop("measured")
        measured["curves"] = {
            curve.attack: {
                "mean_accuracy": curve.mean_accuracy,
                "points": [asdict(point) for point in curve.points],
            }
            for curve in self.measured.curves
        }
        head = {"kind": KIND, "schema_version": 1, "summary": self.measured.summary}
        return {**head, **measured, **fields, "config": self.config.as_dict()}


def evaluate_robustness(
    folder: RunFolder,
    attacks: AttackConfig,
    files: RobustnessFiles | None = None,
    *,
    exact: bool = False,
    figure: bool = True,
    advance: Callable[[int, int], None] | None = None,
) -> RobustnessResult:
    """Perturbs the test part of a run's data and writes down how its network does.

    The run's own files are only read. Result, figure and query log appear together at the end.

    Args:
        folder: The run; one that has not ended is taken as its last checkpoint left it.
        attacks: What to measure.
        files: Where the result goes; None: robustness.json in the run's folder.
        exact: Whether to evaluate without shots, whatever the run did.
        figure: Whether to draw one; an earlier figure is removed if not.
        advance: Called with the evaluations of a sample that are done, and their total.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged or of other data.
        InputError: The files cannot be written where they are to go, or the attacks are too many.
        MissingExtraError: The packages that draw are not installed, and a figure wanted.
        RecordError: The operating system refused to write; earlier results are intact.
    """
    files = (files or RobustnessFiles(folder.path / "robustness.json")).check()
    if figure:
        from ..analysis import charts

        charts.require_charts()
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            log = stack.enter_context(atomic(files.queries))
            trained = TrainedNetwork.load(folder, exact=exact, log=log)
            config = trained.config
            seed = config.seed if attacks.seed is None else attacks.seed
            attacks = replace(attacks.ordered(), seed=seed)
            if config.pipeline == "reference":
                _check_reference(trained, attacks, folder)
            with closing(trained.classifier.layer.network):
                measured = measure(trained, attacks, advance)
            cuts = config.cuts_for(trained.model.num_qubits)
            result = RobustnessResult(
                workload=trained.workload.name,
                config=config,
                label=cuts if isinstance(cuts, str) else None,
                epoch=trained.epoch,
                finished=trained.finished,
                attacks=attacks,
                measured=measured,
                totals=QueryMeter(log).read(),
                seconds=time.perf_counter() - started,
                files=files,
            )
            if figure:
                picture = stack.enter_context(atomic(files.figure))
                charts.robustness_figure(measured.clean, measured.curves, picture, result.title)
            write_json(files.result, result.as_dict())
            if not figure:
                files.figure.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {error.filename or files.result}: {error.strerror or error}"
        ) from error
    return result


def _check_reference(trained: TrainedNetwork, attacks: AttackConfig, folder: RunFolder) -> None:
    """Refuses what would take the reference pipeline hours, and says how long."""
    values, gradients = count_evaluations(trained, attacks)
    # Two shifts for each place a parameter has; weights are differentiated by as well.
    places = sum(
        len(angle.parameters) for gate in trained.model.circuit.data for angle in gate.params
    )
    queries = trained.model.num_outputs * (values + gradients * (1 + 2 * places))
    known = QueryTotals.of(load_queries(folder.queries))
    hours = queries * known.seconds / known.queries / 3600
    if hours > MOST_REFERENCE_HOURS:
        raise InputError(
            f"these attacks take about {queries} queries of the reference pipeline, {hours:.2g} "
            f"hours at the pace of its training, and {MOST_REFERENCE_HOURS:g} is the most: attack "
            "fewer samples, in fewer draws or steps, or leave pgd out"
        )


class Probe:
    """Evaluates a network, which is left as it was, at samples of one's own making, by batches."""

    def __init__(
        self, classifier: Classifier, loss: Loss, advance: Callable[[int], None] | None = None
    ) -> None:
        self._classifier = classifier
        self._loss = mean_loss(loss)
        self._advance = advance or (lambda count: None)

    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of samples of shape (samples, features), as the network gives them."""
        with torch.no_grad():
            return self._by_batches(self._classifier, features)

    def slope(self, features: FloatArray, targets: FloatArray) -> FloatArray:
        """The derivative of each sample's own loss by its features, shape (samples, features)."""
        # Weights without a gradient, as to differentiate by them costs circuits.
        fixed = {name: weights.detach() for name, weights in self._classifier.named_parameters()}

        def slope(batch: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            points = batch.clone().requires_grad_()
            scores = torch.func.functional_call(self._classifier, fixed, (points,))
            loss = self._loss(scores, targets)
            return torch.autograd.grad(len(points) * loss, points)[0]

        with torch.enable_grad():
            return self._by_batches(slope, features, targets)

    def _by_batches(self, evaluate: Callable[..., torch.Tensor], *arrays: FloatArray) -> FloatArray:
        found = []
        with evaluating(self._classifier):
            for batch in zip(*(torch.from_numpy(a).split(BATCH) for a in arrays), strict=True):
                found.append(evaluate(*batch).numpy())
                self._advance(len(batch[0]))
        return np.concatenate(found)


def measure(
    trained: TrainedNetwork,
    attacks: AttackConfig,
    advance: Callable[[int, int], None] | None = None,
) -> Measured:
    """Accuracies of a network on its test part, clean and perturbed.

    An interval takes the samples as independent, not the draws of a sample: a sample counts with
    the share of its draws that are right, and the variance of such shares is at most that of zeros
    and ones, so the interval is on the safe side.

    `advance` is called after each batch with the evaluations that are done, and their total.
    """
    done, total = 0, sum(count_evaluations(trained, attacks))

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        if advance is not None:
            advance(done, total)

    def point(magnitude: float, scores: FloatArray) -> AccuracyPoint:
        """From scores of shape (draws, samples), and of several classes a last axis for these."""
        repeated = torch.from_numpy(np.tile(targets, len(scores)))
        flat = torch.from_numpy(scores.reshape(-1, *scores.shape[2:]))
        share = accuracy(flat, repeated)
        low, high = wilson_interval(share, len(targets))
        loss = mean_loss(trained.config.loss)(flat, repeated)
        return AccuracyPoint(magnitude, share, low, high, float(loss))

    seed = trained.config.seed if attacks.seed is None else attacks.seed
    attacks, probe = attacks.ordered(), Probe(trained.classifier, trained.config.loss, count)
    features, targets = trained.workload.x_test, trained.workload.y_test
    bounds = trained.workload.feature_range
    if attacks.samples is not None and attacks.samples < len(targets):
        # Of a seed, fewer samples are among the more.
        order = np.random.default_rng([seed, 2]).permutation(len(targets))
        chosen = np.sort(order[: attacks.samples])
        features, targets = features[chosen], targets[chosen]
    if "gaussian" in attacks.attacks:
        check_room(attacks.draws, len(attacks.sigma), features.size)
    clean = point(0.0, probe.scores(features)[None])
    curves = []
    for attack in attacks.attacks:
        grid = np.array([magnitude for magnitude in attacks.grid(attack) if magnitude > 0])
        if attack == "gaussian":
            points = gaussian(features, grid, attacks.draws, bounds, seed)
        elif attack == "fgsm":
            points = fgsm(probe.slope, features, targets, grid, bounds)[:, None]
        else:
            way = {"steps": attacks.pgd_steps, "seed": seed}
            points = pgd(probe.slope, features, targets, grid, bounds, **way)[:, None]
        scores = probe.scores(points.reshape(-1, points.shape[-1]))
        scores = scores.reshape(*points.shape[:-1], *scores.shape[1:])
        unmoved = [clean] if 0.0 in attacks.grid(attack) else []
        found = [point(*at) for at in zip(grid.tolist(), scores, strict=True)]
        curves.append(AccuracyCurve(attack, (*unmoved, *found)))
    return Measured(len(targets), clean, tuple(curves))


def count_evaluations(trained: TrainedNetwork, attacks: AttackConfig) -> tuple[int, int]:
    """How often a sample is evaluated, and how often the loss is differentiated by one."""
    values, gradients = 1, 0
    for attack in set(attacks.attacks):
        magnitudes = sum(magnitude > 0 for magnitude in attacks.grid(attack))
        values += magnitudes * (attacks.draws if attack == "gaussian" else 1)
        gradients += {"fgsm": 1, "pgd": attacks.pgd_steps * magnitudes}.get(attack, 0)
    samples = min(len(trained.workload.y_test), attacks.samples or len(trained.workload.y_test))
    return samples * values, samples * gradients


def gaussian(
    features: FloatArray, sigma: FloatArray, draws: int, bounds: Bounds, seed: int
) -> FloatArray:
    """Noisy copies of samples, clipped to the range.

    Returns:
        Shape (magnitudes, draws, samples, features).

    Example:
        >>> gaussian(np.zeros((5, 2)), np.array([0.1, 0.2]), 3, (0.0, 1.0), seed=7).shape
        (2, 3, 5, 2)
    """
    noise = np.random.default_rng([seed, 0]).standard_normal((draws, *features.shape))
    return np.clip(features + sigma[:, None, None, None] * noise, *bounds)


def fgsm(
    slope: Slope, features: FloatArray, targets: FloatArray, epsilon: FloatArray, bounds: Bounds
) -> FloatArray:
    """The fast gradient sign method (Goodfellow et al. 2015): x + ε sign(∂loss/∂x), clipped.

    One gradient serves all radii.

    Returns:
        Shape (magnitudes, samples, features).
    """
    direction = np.sign(slope(features, targets))
    return np.clip(features + epsilon[:, None, None] * direction, *bounds)


def pgd(
    slope: Slope,
    features: FloatArray,
    targets: FloatArray,
    epsilon: FloatArray,
    bounds: Bounds,
    *,
    steps: int,
    seed: int,
) -> FloatArray:
    """Projected gradient descent on the negative loss in the L∞ ball (Madry et al. 2018).

    Starts uniformly in the ball, takes `steps` signed steps of 2.5 ε / steps, and after each goes
    back into the ball and the range. The last point counts. All radii go forward together. With
    shots the signs of small slopes are noise, so that PGD may fall short of FGSM.

    Returns:
        Shape (magnitudes, samples, features).
    """
    radius = epsilon[:, None, None]
    low = np.maximum(features - radius, bounds[0])
    high = np.minimum(features + radius, bounds[1])
    start = np.random.default_rng([seed, 1]).uniform(-1.0, 1.0, features.shape)
    points = np.clip(features + radius * start, low, high)
    repeated = np.tile(targets, len(epsilon))
    for _ in range(steps):
        slopes = slope(points.reshape(-1, features.shape[1]), repeated).reshape(points.shape)
        points = np.clip(points + PGD_REACH / steps * radius * np.sign(slopes), low, high)
    return points
