"""How a trained network stands up to perturbed samples (paper §V, RQ5, Fig. 8)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..analysis.accuracy import AccuracyCurve, AccuracyPoint, wilson_interval
from ..analysis.load import QueryTotals, load_queries
from ..errors import InputError, RecordError
from ..records import atomic
from ._ml import torch
from .attacks import Attack, AttackConfig, FloatArray, check_room, fgsm, gaussian, pgd
from .classifier import Classifier, evaluating, mean_loss
from .config import Loss, TrainingConfig
from .runs import QueryMeter, RunFolder, write_json
from .trained import Trained, load_trained
from .workloads import Workload

KIND = "robustness"
MOST_REFERENCE_HOURS = 1.0
"""The reference pipeline runs one query after the other: tens of milliseconds each, or seconds."""

BATCH = 500
"""Samples of one run. Bounds the memory; the time a sample takes hardly falls beyond it."""

SUMMARISED = ("gaussian", "fgsm")
"""The attacks that the paper's summary averages over."""

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class RobustnessFiles:
    """Where a result goes: the JSON document, and beside it the figure and the query log.

    Attributes:
        result: The document.
        replace: Whether an earlier result there may be lost.
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


@dataclass(frozen=True)
class RobustnessResult:
    """What an evaluation came to.

    Attributes:
        workload: Name of the task.
        config: How the network was trained; `shots` is None if it was attacked without shots.
        label: The partition label; None: not cut by label.
        epoch: Epochs the network was trained.
        finished: Whether training had ended.
        attacks: What was measured; its seed is the one that was used.
        measured: The accuracies.
        totals: What the queries cost.
        seconds: Wall time.
        files: Where the files are.
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
        config, state = self.config, "" if self.finished else ", not finished"
        return (
            f"{config.title(self.workload, self.label)}, epoch {self.epoch} of {config.epochs}"
            f"{state}, seed {config.seed}"
        )

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
        return {
            "kind": KIND,
            "schema_version": 1,
            "summary": self.measured.summary,
            **measured,
            **fields,
            "config": self.config.as_dict(),
        }


def evaluate_robustness(
    folder: RunFolder,
    attacks: AttackConfig,
    files: RobustnessFiles | None = None,
    *,
    exact: bool = False,
    figure: bool = True,
    advance: Advance | None = None,
) -> RobustnessResult:
    """Perturbs the test part of a run's data and writes down how its network does.

    The run's own files are only read. Result, figure and query log appear together at the end.

    Args:
        folder: The run; one that has not ended is taken as its last checkpoint left it.
        attacks: What to measure.
        files: Where the result goes; None: robustness.json in the run's folder.
        exact: Whether to evaluate without shots, whatever the run did.
        figure: Whether to draw one; an earlier figure is removed if not.
        advance: Told how many evaluations of a sample are done, and of how many.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged or of other data.
        InputError: The files cannot be written where they are to go, or the attacks are too many.
        MissingExtraError: Matplotlib is not installed, and a figure wanted.
        RecordError: The operating system refused to write; earlier results are intact.
    """
    files = (files or RobustnessFiles(folder.path / "robustness.json")).check()
    if figure:
        from ..analysis.charts import require_charts

        require_charts()
    try:
        with ExitStack() as stack:
            log = stack.enter_context(atomic(files.queries))
            result = _evaluate(folder, attacks, files, log, exact, advance)
            if figure:
                picture = stack.enter_context(atomic(files.figure))
                measured = result.measured
                from ..analysis.charts import robustness_figure

                robustness_figure(measured.clean, measured.curves, picture, result.title)
            write_json(files.result, result.as_dict())
            if not figure:
                files.figure.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {error.filename or files.result}: {error.strerror or error}"
        ) from error
    return result


def _evaluate(
    folder: RunFolder,
    attacks: AttackConfig,
    files: RobustnessFiles,
    log: Path,
    exact: bool,
    advance: Advance | None,
) -> RobustnessResult:
    started = time.perf_counter()
    trained = load_trained(folder, exact=exact, log=log)
    config = trained.config
    seed = config.seed if attacks.seed is None else attacks.seed
    attacks = replace(attacks.ordered(), seed=seed)
    total = sum(count_evaluations(trained, attacks))
    if config.pipeline == "reference":
        _check_reference(trained, attacks, folder)
    done = 0

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        if advance is not None:
            advance(done, total)

    with closing(trained.classifier.layer.network):
        measured = measure(trained, attacks, count)
    cuts = config.cuts_for(trained.model.num_qubits)
    return RobustnessResult(
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


def _check_reference(trained: Trained, attacks: AttackConfig, folder: RunFolder) -> None:
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


def _is_result(path: Path) -> bool:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("kind") == KIND


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
    attacks = attacks.ordered()
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
