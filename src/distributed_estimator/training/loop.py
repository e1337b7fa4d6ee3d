"""Train a quantum neural network and keep everything that happened on the way (paper §V-A).

Gradient optimisers go step by step, and a checkpoint holds what they remember. Those that take
values alone, Qiskit Machine Learning's COBYLA and SPSA, cannot be stopped in the middle and taken
up again. But both are functions of their seed and of the losses that they were given, so the
checkpoint keeps those: a run that is resumed starts its optimiser again, answers what it asks from
the checkpoint, and evaluates only from where that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..analysis.trace import trace_files
from ..errors import CheckpointError, InputError
from ._ml import qiskit_machine_learning, torch
from .checkpoints import Checkpoint, RunState, snapshot
from .classifier import Classifier, build_classifier
from .config import TrainingConfig
from .models import initial_weights
from .runs import RunFolder, TrainingResult, write_json
from .session import Progress, Session, Stop
from .trained import data_of
from .workloads import Workload

FloatArray = npt.NDArray[np.float64]
Point = float | npt.NDArray[Any]


def train(
    workload: Workload,
    config: TrainingConfig,
    folder: RunFolder,
    *,
    head: torch.nn.Module | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> TrainingResult:
    """Trains a model on a workload.

    Every epoch leaves a record in `folder.training`, its queries in `folder.queries`, and a
    checkpoint to go on from; weights, summary and trace are written at the end. The record of epoch
    k holds the scores after k epochs, so the first describes the initial weights.

    Args:
        workload: The data.
        config: How to train.
        folder: A folder that holds no run.
        head: A classical module after the circuit, which `config.head` then calls "custom".
        progress: Called with each record once it is safe on the disk.
        stop: Asked after every step; training stops where it says so.

    Raises:
        InputError: The configuration does not fit the workload or the folder is taken; nothing
            is left behind.
        TrainingStoppedError: `stop` said so.
        CheckpointError, RecordError: The folder cannot be written; what was written is intact.
    """
    folder.check_free()
    if head is not None:
        config = replace(config, head="custom")
    data = snapshot(workload)
    with _session(workload, data, config, folder, head, progress, stop) as session:
        _check_budget(config, len(session.start))
        missing = folder.missing()
        with folder.held(), closing(session):
            folder.check_free()  # another process may have come first
            try:
                session.save()  # before anything is run: from here on, the run can be resumed
                data.save(folder.data)
                record = session.score_start()
            except BaseException:
                folder.clear(missing)
                raise
            session.progress(record)
            return _go_on(session)


def resume(
    folder: RunFolder,
    *,
    workload: Workload | None = None,
    head: torch.nn.Module | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> TrainingResult:
    """Goes on with a run that was stopped or killed, to the weights it would have had anyway.

    Args:
        folder: The run's folder.
        workload: The data; None: as it was kept beside the run.
        head: The classical module, where the run has one of the caller's.
        progress: As for `train`.
        stop: As for `train`.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged, or of other data or another head;
            nothing was changed.
        TrainingStoppedError: `stop` said so.
    """
    state = RunState.load(folder.checkpoint)
    workload, data = data_of(state, folder, workload)
    with (
        folder.held(),
        _session(workload, data, state.config, folder, head, progress, stop) as session,
        closing(session),
    ):
        session.restore(RunState.load(folder.checkpoint))  # none may have trained since
        if not folder.data.exists():
            data.save(folder.data)
        if not session.position.scored:
            session.progress(session.score_start())
        return _go_on(session)


def config_of(folder: RunFolder) -> TrainingConfig:
    """How the run in a folder is trained.

    Raises:
        CheckpointError: There is no checkpoint, or it is damaged.
    """
    return RunState.load(folder.checkpoint).config


@contextmanager
def _session(
    workload: Workload,
    data: Checkpoint,
    config: TrainingConfig,
    folder: RunFolder,
    head: torch.nn.Module | None,
    progress: Progress | None,
    stop: Stop | None,
) -> Iterator[Session]:
    """A session with PyTorch seeded; the caller's random state is given back at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        trace = folder.writer(folder.tasks) if config.trace else None
        log = folder.writer(folder.queries)
        model, classifier = build_classifier(config, workload.num_features, log, head, trace)
        session = Session(
            config=config,
            workload=workload,
            data=data.digest,
            folder=folder,
            model=model,
            classifier=classifier,
            optimizer=None if config.is_gradient_free else _optimizer(config, classifier),
            progress=progress or (lambda record: None),
            stop=stop or (lambda: False),
            start=_weights_vector(classifier),
        )
        yield session


def _go_on(session: Session) -> TrainingResult:
    if session.config.is_gradient_free:
        _search(session)
    else:
        _descend(session)
    return _finish(session)


def _descend(session: Session) -> None:
    """Mini-batches along the gradient."""
    position = session.position
    while not session.is_done:
        batches = _batches(session.config, len(session.targets), position.epoch)
        for batch in batches[position.batch :]:
            _step(session, session.features[batch], session.targets[batch])
            position.step += 1
            position.batch += 1
            gradients = [p.grad for p in session.classifier.parameters() if p.grad is not None]
            vector = torch.cat([gradient.reshape(-1) for gradient in gradients])
            session.norms.append(float(torch.linalg.vector_norm(vector)))
            session.check_weights()
            if position.batch < len(batches):
                session.stop_if_asked()
        position.epoch += 1
        position.batch = 0
        session.close_epoch()
        if not session.is_done:
            session.stop_if_asked()


def _step(session: Session, features: torch.Tensor, targets: torch.Tensor) -> None:
    optimizer = session.optimizer
    assert optimizer is not None

    def loss() -> float:
        session.check_weights()
        optimizer.zero_grad()
        value = session.loss(session.classifier(features), targets)
        value.backward()
        return float(value.detach())

    optimizer.step(loss)


def _batches(config: TrainingConfig, count: int, epoch: int) -> list[torch.Tensor]:
    """The samples of each step of an epoch: a function of seed and epoch, so nothing to keep."""
    if config.batch_size is None or config.batch_size >= count:
        return [torch.arange(count)]
    order = np.random.default_rng([config.seed, epoch]).permutation(count)
    return list(torch.from_numpy(order).split(config.batch_size))


def _optimizer(config: TrainingConfig, classifier: Classifier) -> torch.optim.Optimizer:
    parameters = list(classifier.parameters())
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr)
    return torch.optim.LBFGS(parameters, lr=config.lr, line_search_fn="strong_wolfe")


def _search(session: Session) -> None:
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
    """Answers an optimiser from the losses of the run that is resumed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked = 0

    def covers(self, point: FloatArray) -> bool:
        """Whether the loss is known; raises `CheckpointError` if to another point."""
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


def _weights_vector(classifier: Classifier) -> torch.Tensor:
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


def _finish(session: Session) -> TrainingResult:
    config, folder, classifier = session.config, session.folder, session.classifier
    model = session.model
    cuts = config.cuts_for(model.circuit.num_qubits)
    result = TrainingResult(
        workload=session.workload.name,
        config=config,
        label=cuts if isinstance(cuts, str) else None,
        num_qubits=model.circuit.num_qubits,
        num_weights=len(session.start),
        run_id=session.run_id,
        final=session.scores,
        seconds=session.position.seconds,
        totals=session.totals,
        folder=folder,
    )
    head = {} if classifier.head is None else classifier.head.state_dict()
    document = {
        "names": [parameter.name for parameter in model.weights],
        "initial": initial_weights(model, config.seed).tolist(),
        "final": classifier.layer.weights.tolist(),
        "head": {name: tensor.tolist() for name, tensor in head.items()},
    }
    write_json(folder.weights, document)
    write_json(folder.summary, result.as_dict())
    if config.trace:
        trace_files(folder.trace, folder.queries, folder.tasks)
    return result


def _check_budget(config: TrainingConfig, count: int) -> None:
    if config.optimizer == "cobyla" and config.epochs < count + 2:
        raise InputError(
            f"`maxiter` is {config.epochs}, and COBYLA takes {count + 2} evaluations to build its "
            f"first model of {count} weights: give {count + 2} or more"
        )
