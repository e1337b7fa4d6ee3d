"""A trained network in use: classes, probabilities and their standard errors of new rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..analysis.accuracy import wilson_interval
from ..checks import check_whole, from_numpy
from ..errors import CheckpointError, InputError, MissingExtraError, named, shortened
from ..estimator import AnyBackend, EstimatorOptions
from ..views import Shown, counted
from ._ml import torch
from .checkpoints import Checkpoint, RunState, restored, snapshot
from .config import Loss, PoolName, TrainingConfig
from .models import Model
from .networks import (
    Classifier,
    Elsewhere,
    accuracy,
    build_classifier,
    evaluating,
    mean_loss,
    predicted,
)
from .preprocessing import Preprocessing
from .runs import RunFolder, Scores
from .session import SCORED_AT_ONCE, load_classifier
from .sources import LARGEST, FloatArray
from .workloads import Workload, load_workload, target_values

Names = npt.NDArray[Any]
"""Text."""


@dataclass(frozen=True, eq=False, repr=False)
class Predictions(Shown):
    """What a network says of rows.

    Attributes:
        classes: Names of the predicted classes, shape (rows,).
        probabilities: Shape (rows, classes), in the order of the network's `classes_`.
        stderrs: Standard errors of the probabilities by shots, to first order; 0 for exact values,
            NaN where the reference pipeline does not know them.
    """

    classes: Names
    probabilities: FloatArray
    stderrs: FloatArray

    def _facts(self) -> dict[str, str]:
        names, counts = np.unique(self.classes, return_counts=True)
        each = (f"{count} {name}" for name, count in zip(names, counts, strict=True))
        return {
            "rows": str(len(self.classes)),
            "classes": shortened(", ".join(each))[1:-1],
            "probability": f"{self.probabilities.max(axis=1).mean():.3g} on average, of the class "
            "predicted",
            "stderr": f"{self.stderrs.max():.2g} at most",
        }


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown):
    """How a network does on rows whose classes are known.

    Attributes:
        accuracy: Share of the rows that are put into their class.
        stderr: Its standard error as that of a proportion, by the choice of rows and by shots.
        low: Lower end of its 95 % Wilson interval, which has a width at accuracies of 0 and 1, too.
        high: The upper end.
        confusion: Rows of a class (first axis) by predicted class (second axis), in the order of
            the network's `classes_`.
        predictions: Of every row.
    """

    accuracy: float
    stderr: float
    low: float
    high: float
    confusion: npt.NDArray[np.intp]
    predictions: Predictions

    def _facts(self) -> dict[str, str]:
        rows = counted(len(self.predictions.classes), "row")
        return {
            "accuracy": f"{self.accuracy:.3f} ± {self.stderr:.3f} of {rows}",
            "interval": f"{self.low:.3f} to {self.high:.3f}, 95 % (Wilson)",
            "confusion": " / ".join(" ".join(map(str, row)) for row in self.confusion.tolist()),
        }


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The network of a run, with its last weights, as a classifier of scikit-learn's kind.

    Rows are tables or arrays with the columns that the network was trained on, in their units; they
    are reduced and scaled as the training part was. A network on arrays of the caller's takes
    features as they were given to it.

    Attributes:
        config: How it was trained; with the shots and the pool that it was loaded with.
        classifier: Scores samples; on an estimator of its own, with the run's seed and cuts.
        epoch: Epochs trained.
        finished: Whether training had ended.

    Example:
        ::

            network = TrainedNetwork.load("runs/survey", exact=True)
            network.predict(rows), network.predict_proba(rows), network.score(rows, answers)
    """

    config: TrainingConfig
    workload: Workload
    model: Model
    classifier: Classifier
    epoch: int
    finished: bool

    _estimator_type = "classifier"

    @classmethod
    def load(
        cls,
        run: RunFolder | str | PathLike[str],
        *,
        exact: bool = False,
        shots: int | None = None,
        pool: PoolName | None = None,
        workers: int | None = None,
        backend: AnyBackend | Sequence[AnyBackend] | None = None,
        options: EstimatorOptions | None = None,
        log: Path | None = None,
        workload: Workload | None = None,
        head: torch.nn.Module | None = None,
    ) -> Self:
        """Reads the network of a run that has ended, or of its last checkpoint.

        Args:
            run: The run's folder; nothing in it is changed.
            exact: Whether to evaluate without shots, whatever the run did.
            shots: Shots a circuit, whatever the run took.
            pool: Where tasks run. None: where the run's did.
            workers: Tasks that run at a time. None: as many as the run's.
            backend: As for `DistributedEstimator`. None: the local simulator.
            options: Of the estimator, in the place of all that the run says of shots and seeds.
            log: Where queries of the network are recorded.
            workload: The data; None: as it was kept beside the run.
            head: The classical module, where the run has one of the caller's.

        Raises:
            CheckpointError: There is no checkpoint, it is damaged, or of other data or another
                head.
            InputError: Arguments exclude one another, or the reference pipeline does not take them.
        """
        given = {"exact": exact, "shots": shots is not None, "options": options is not None}
        if sum(given.values()) > 1:
            names = " and ".join(f"`{name}`" for name, is_given in given.items() if is_given)
            raise InputError(f"{names} exclude one another: give one")
        folder = run if isinstance(run, RunFolder) else RunFolder(Path(run))
        state = RunState.load(folder.checkpoint)
        config = state.config
        if exact or shots is not None:
            config = replace(config.exact() if config.shots_total or exact else config, shots=shots)
        if pool is not None:
            config = replace(config, pool=pool, address=None)
        if workers is not None:
            config = replace(config, workers=check_whole("workers", from_numpy(workers)))
        workload, _ = data_of(state, folder, workload)
        with torch.random.fork_rng(devices=[]):
            model, classifier = build_classifier(
                config.for_evaluation(),
                workload.num_features,
                None if log is None else folder.writer(log),
                head,
                num_classes=len(workload.classes),
                elsewhere=Elsewhere(backend, options),
            )
        load_classifier(state, classifier, folder)
        classifier.eval()
        return cls(config, workload, model, classifier, state.epoch, state.is_done)

    @property
    def classes_(self) -> Names:
        """Names of the classes, sorted as scikit-learn has them."""
        return np.sort(self.workload.classes)

    @property
    def n_features_in_(self) -> int:
        """Columns of a row."""
        made = self.preprocessing
        return self.workload.num_features if made is None else len(made.columns)

    @property
    def feature_names_in_(self) -> Names:
        """Names of the columns; an `AttributeError` if the network was trained on arrays."""
        if self.preprocessing is None:
            raise AttributeError("the network was trained on arrays, whose columns have no names")
        return np.array(self.preprocessing.columns)

    @cached_property
    def preprocessing(self) -> Preprocessing | None:
        """What makes features of rows; None: it was trained on arrays of the caller's.

        Runs of older releases have not kept it: it is fitted again if the data is still there.
        """
        if self.workload.preprocessing is None:
            with suppress(InputError, MissingExtraError):
                again = load_workload(self.config.workload)
                if snapshot(again).digest == snapshot(self.workload).digest:
                    return again.preprocessing
        return self.workload.preprocessing

    @property
    def title(self) -> str:
        """The network in one line."""
        cuts = self.config.cuts_for(self.model.num_qubits)
        title = self.config.title(self.workload.name, cuts if isinstance(cuts, str) else None)
        return f"{title}, {self.config.standing(self.epoch, self.finished)}"

    def predict(self, X: Any) -> Names:
        """Names of the classes of rows, shape (rows,); raises as `predict_with_errors` does."""
        return self.predict_with_errors(X).classes

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of shape (rows, classes), in the order of `classes_`.

        They sum to 1. After training by cross-entropy they are the logistic function, or the
        softmax, of the scores; after training by mean squares (1 + score) / 2, limited to [0, 1].
        """
        return self.predict_with_errors(X).probabilities

    def predict_with_errors(self, X: Any) -> Predictions:
        """Classes, probabilities and their standard errors.

        Args:
            X: A data frame, whose columns are found by name, or numbers of shape (rows, columns).

        Raises:
            InputError: Columns are missing, or a value is no finite number.
        """
        features = self._features(X)
        cuts = range(SCORED_AT_ONCE, len(features), SCORED_AT_ONCE)
        parts = [self._predict(part) for part in np.split(features, cuts)]
        targets, probabilities, stderrs = (
            np.concatenate(each) for each in zip(*parts, strict=True)
        )
        names, order = np.array(self.workload.classes), np.argsort(self.workload.classes)
        places = np.searchsorted(target_values(len(names)), targets)
        return Predictions(names[places], probabilities[:, order], stderrs[:, order])

    def evaluate(self, X: Any, y: Any) -> Evaluation:
        """Accuracy with its standard error, and the confusion matrix.

        Args:
            X: Rows, as for `predict_with_errors`.
            y: The names of their classes; numbers count by their text.

        Raises:
            InputError: Rows and classes differ in number, or a class was not among the network's.
        """
        actual = self._places(y)
        features = np.asarray(X) if not hasattr(X, "columns") else X
        if len(features) != len(actual):
            raise InputError(
                f"there are {len(features)} rows and {len(actual)} classes of them: give one each"
            )
        predictions = self.predict_with_errors(X)
        confusion = np.zeros((len(self.classes_), len(self.classes_)), dtype=np.intp)
        np.add.at(confusion, (actual, self._places(predictions.classes)), 1)
        share = float(np.trace(confusion) / len(actual))
        stderr = float(np.sqrt(share * (1 - share) / len(actual)))
        return Evaluation(
            share, stderr, *wilson_interval(share, len(actual)), confusion, predictions
        )

    def score(self, X: Any, y: Any) -> float:
        """The accuracy on rows of known classes; see `evaluate` for its standard error."""
        return self.evaluate(X, y).accuracy

    def fit(self, X: Any, y: Any = None) -> Self:
        """Refuses; scikit-learn's tools for fitted classifiers ask that there be such a method."""
        raise InputError(
            "a TrainedNetwork is trained, and is not fitted: train another with `dest train`, or "
            "wrap this one in scikit-learn's FrozenEstimator"
        )

    def close(self) -> None:
        """Ends the workers."""
        self.classifier.layer.network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TrainedNetwork: {self.title}, classes {', '.join(self.classes_)}>"

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, ClassifierMixin

        class Tagged(ClassifierMixin, BaseEstimator):
            pass

        return Tagged().__sklearn_tags__()

    def _places(self, names: Any) -> npt.NDArray[np.intp]:
        """Where names stand in `classes_`."""
        given, known = np.asarray(names).astype(str), self.classes_
        if given.ndim != 1:
            raise InputError(f"classes of rows have shape {given.shape}: give one name a row")
        unseen = sorted({*given.tolist()} - {*known.tolist()})
        if unseen:
            raise InputError(
                f"class {named([repr(name) for name in unseen])} was not among those of the "
                f"training ({', '.join(known)}): leave out rows of other classes"
            )
        return np.searchsorted(known, given)

    def _features(self, X: Any) -> FloatArray:
        made, (low, high) = self.preprocessing, self.workload.feature_range
        if made is not None:
            return made(_numbers(_selected(X, made.columns), self.n_features_in_))
        features = _numbers(X, self.n_features_in_)
        if features.min() < low or features.max() > high:
            raise InputError(
                f"features go from {features.min():g} to {features.max():g}, and the network was "
                f"trained on arrays with features from {low:g} to {high:g}: scale them as those"
            )
        return features

    def _predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Targets, probabilities and their standard errors, in the order of the workload."""
        layer = self.classifier.layer
        found = layer.network.estimate(features, layer.weights.detach().numpy())
        outputs = torch.tensor(found.outputs, dtype=torch.float64, requires_grad=True)
        with evaluating(self.classifier), torch.enable_grad():
            scores = self.classifier.scores(outputs)
            shares = _probabilities(scores, self.config.loss)
            slopes = np.stack(
                [
                    torch.autograd.grad(share.sum(), outputs, retain_graph=True)[0].numpy()
                    for share in shares.unbind(1)
                ],
                axis=1,
            )
        variances = np.einsum("rco,rop,rcp->rc", slopes, found.covariances, slopes)
        stderrs = np.sqrt(np.maximum(variances, 0.0))
        return predicted(scores.detach()).numpy(), shares.detach().numpy(), stderrs


def _probabilities(scores: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Shape (rows, classes), from scores as a classifier gives them.

    Where probabilities are limited to [0, 1], their slopes are those beside the limit.
    """
    if loss == "cross_entropy":
        if scores.ndim == 2:
            return torch.softmax(scores, dim=1)
        second = torch.sigmoid(scores)
        return torch.stack([1 - second, second], dim=1)
    each = torch.stack([-scores, scores], dim=1) if scores.ndim == 1 else scores
    free = (1 + each) / 2
    limited = free + (free.clamp(0, 1) - free).detach()
    total = limited.sum(dim=1, keepdim=True)
    return torch.where(total > 0, limited / total, 1 / each.shape[1])


def _selected(X: Any, columns: tuple[str, ...]) -> Any:
    """A data frame's columns by name; an array as it is."""
    if not hasattr(X, "columns"):
        return X
    known = {str(name): name for name in X.columns}
    missing = [f"`{name}`" for name in columns if name not in known]
    if missing:
        raise InputError(
            f"the data has no column {named(missing)}: give those that the network was trained on"
        )
    return X[[known[name] for name in columns]]


def _numbers(X: Any, width: int) -> FloatArray:
    """Finite numbers of shape (rows, width)."""
    try:
        rows = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the rows are no numbers ({error}): give real ones") from error
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InputError(
            f"the rows have shape {rows.shape}: give (rows, {width}), one row or more and the "
            f"columns that the network was trained on"
        )
    wrong = np.argwhere(~(np.abs(rows) < LARGEST))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"row {row + 1} has {shortened(float(rows[row, column]))} in column {column + 1}: give "
            f"a number below {LARGEST:g}, or leave the row out"
        )
    return rows


def exact_scores(folder: RunFolder) -> Scores:
    """How well the weights of a run do without shots; raises as `TrainedNetwork.load` does."""
    trained = TrainedNetwork.load(folder, exact=True)
    load, loss = trained.workload, mean_loss(trained.config.loss)
    with torch.no_grad():
        train, test = (trained.classifier(torch.from_numpy(x)) for x in (load.x_train, load.x_test))
    targets, unseen = torch.from_numpy(load.y_train), torch.from_numpy(load.y_test)
    return Scores(float(loss(train, targets)), accuracy(train, targets), accuracy(test, unseen))


def data_of(
    state: RunState, folder: RunFolder, given: Workload | None
) -> tuple[Workload, Checkpoint]:
    """The data of a run, and a snapshot of it: as given, or as kept, or loaded again."""
    if given is None and folder.data.exists():
        given = restored(Checkpoint.load(folder.data))
    workload = load_workload(state.config.workload) if given is None else given
    data = snapshot(workload)
    if data.digest != state.data:
        raise CheckpointError(
            f"the data of workload `{workload.name}` is not what `{folder.path}` was trained on: "
            "give the same data, or begin a new run"
        )
    return workload, data
