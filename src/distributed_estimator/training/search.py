"""Optimisers that take values alone: Qiskit Machine Learning's COBYLA and SPSA.

Neither can be stopped in the middle and taken up again. But both are functions of their seed and of
the losses they were told, so the checkpoint keeps those: a run that is resumed starts its optimiser
anew, answers what it asks from the journal, and evaluates only from where the journal ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ._ml import qiskit_machine_learning, torch
from .classifier import Classifier
from .session import Session

FloatArray = npt.NDArray[np.float64]
Point = float | npt.NDArray[Any]


def search(session: Session) -> None:
    """Trains until the budget is spent, and leaves the optimiser's choice set."""
    if session.is_done:
        return
    start = session.start.numpy().copy()
    optimize = _cobyla if session.config.optimizer == "cobyla" else _spsa
    with _seeded(session.config.seed):
        chosen = optimize(session, start)
    _set_weights(session, chosen)
    session.position.chosen = True
    session.position.epoch += 1
    session.close_epoch()


def _cobyla(session: Session, start: FloatArray) -> FloatArray:
    """Every evaluation is an epoch."""
    replayed = _Replay(session)

    def loss(asked: Point) -> float:
        point = np.asarray(asked, dtype=np.float64)
        if replayed.covers(point):
            return replayed.answer()
        _advance(session, point)
        session.close_epoch(asked=point)
        session.stop_if_asked()
        return session.losses[-1]

    optimizer = qiskit_machine_learning.optimizers.COBYLA(maxiter=session.config.epochs, rhobeg=1.0)
    return np.asarray(optimizer.minimize(loss, start).x)


def _spsa(session: Session, start: FloatArray) -> FloatArray:
    """Every iteration is an epoch: two evaluations on the training part, after a calibration."""
    replayed = _Replay(session)
    iterations = 0

    def loss(asked: Point) -> float:
        point = np.asarray(asked, dtype=np.float64)
        if replayed.covers(point):
            return replayed.answer()
        _set_weights(session, point)
        value = session.loss(session.score(session.features), session.targets)
        session.note(point, float(value))
        session.stop_if_asked()
        return session.losses[-1]

    def end_of_iteration(_: int, point: FloatArray, *__: object) -> bool:
        nonlocal iterations
        iterations += 1
        if iterations > session.position.epoch:  # else it was recorded before the run stopped
            _advance(session, point)
            session.close_epoch()
            session.stop_if_asked()
        return False

    optimizer = qiskit_machine_learning.optimizers.SPSA(
        maxiter=session.config.epochs, termination_checker=end_of_iteration
    )
    return np.asarray(optimizer.minimize(loss, start).x)


class _Replay:
    """Answers an optimiser from the journal of the run that is resumed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked = 0

    def covers(self, point: FloatArray) -> bool:
        """Whether the journal has the answer; raises `CheckpointError` if to another point."""
        if self._asked >= len(self._session.losses):
            self._asked += 1
            return False
        if not np.array_equal(self._session.points[self._asked].numpy(), point):
            raise CheckpointError(
                f"{self._session.config.optimizer} asks for other weights than when the run began "
                f"(evaluation {self._asked + 1}): go on with the versions of NumPy, SciPy and "
                "Qiskit Machine Learning that it began with"
            )
        self._asked += 1
        return True

    def answer(self) -> float:
        """The loss at the point asked for last."""
        return self._session.losses[self._asked - 1]


def weights_vector(classifier: Classifier) -> torch.Tensor:
    """The weights of a network that are trained, as one vector."""
    return torch.nn.utils.parameters_to_vector(_trained(classifier)).detach().clone()


def _trained(classifier: Classifier) -> list[torch.nn.Parameter]:
    return [parameter for parameter in classifier.parameters() if parameter.requires_grad]


def _advance(session: Session, point: FloatArray) -> None:
    _set_weights(session, point)
    session.position.epoch += 1
    session.position.step += 1


def _set_weights(session: Session, point: FloatArray) -> None:
    with torch.no_grad():
        vector = torch.tensor(point, dtype=torch.float64)
        torch.nn.utils.vector_to_parameters(vector, _trained(session.classifier))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generator that SPSA draws from, which is global, and gives the caller's back."""
    shared = qiskit_machine_learning.utils.algorithm_globals
    before = shared.random_seed, shared.random
    shared.random_seed = seed
    try:
        yield
    finally:
        shared.random_seed = before[0]
        shared._random = before[1]
