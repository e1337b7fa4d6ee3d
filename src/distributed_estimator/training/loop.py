"""Train a quantum neural network and keep everything that happened on the way (paper §V-A).

Gradient optimisers go step by step, and a checkpoint holds what they remember. Those that take
values alone, Qiskit Machine Learning's COBYLA and SPSA, cannot be stopped in the middle and taken
up again. But both are functions of their seed and of the losses that they were given, so the
checkpoint keeps those: a run that is resumed starts its optimiser again, answers what it asks from
the checkpoint, and evaluates only from where that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from ..analysis.trace import trace_files
from ..errors import CheckpointError, InputError
from ._ml import qiskit_machine_learning, torch
from .checkpoints import Checkpoint, RunState, kept, snapshot
from .config import TrainingConfig
from .models import initial_weights
from .networks import Classifier, build_classifier
from .norm_test import NormTest
from .runs import RunFolder, TrainingResult, write_json
from .session import Progress, Session, Stop
from .sources import FloatArray
from .trained import data_of
from .workloads import Workload


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
    config = config.for_classes(len(workload.classes), workload.num_features)
    data = snapshot(workload)
    with _session(workload, data, config, folder, head, progress, stop) as session:
        weights = len(session.state.start)
        if config.optimizer == "cobyla" and config.epochs < weights + 2:
            raise InputError(
                f"`maxiter` is {config.epochs}, and COBYLA takes {weights + 2} evaluations to "
                f"build its first model of {weights} weights: give {weights + 2} or more"
            )
        missing = folder.missing()
        with folder.held(), closing(session):
            folder.check_free()  # another process may have come first
            try:
                if not config.is_gradient_free:
                    first = _batches(config, len(session.targets), 0)[0]
                    layer = session.classifier.layer
                    layer.network.check_step(
                        session.features[first].numpy(), layer.weights.detach().numpy()
                    )
                session.save()  # before anything is run: from here on, the run can be resumed
                kept(workload).save(folder.data)
                record = session.score_epoch()
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
            kept(workload).save(folder.data)
        if not session.state.scored:
            session.progress(session.score_epoch())
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
        model, classifier = build_classifier(
            config, workload.num_features, log, head, trace, num_classes=len(workload.classes)
        )
        start = torch.nn.utils.parameters_to_vector(_trained(classifier)).detach().clone()
        yield Session(
            state=RunState(config, data.digest, start, test=NormTest.of(config)),
            workload=workload,
            folder=folder,
            model=model,
            classifier=classifier,
            optimizer=None
            if config.is_gradient_free
            else _OPTIMIZERS[config.optimizer](classifier.parameters(), lr=config.lr),
            progress=progress or (lambda record: None),
            stop=stop or (lambda: False),
        )


def _go_on(session: Session) -> TrainingResult:
    if not session.config.is_gradient_free:
        _descend(session)
    elif not session.state.is_done:
        _search(session)
    return _finish(session)


def _descend(session: Session) -> None:
    """Mini-batches along the gradient."""
    state = session.state
    while not state.is_done:
        batches = _batches(session.config, len(session.targets), state.epoch)
        for batch in batches[state.batch :]:
            _step(session, batch)
            state.step += 1
            state.batch += 1
            gradients = [p.grad for p in session.classifier.parameters() if p.grad is not None]
            vector = torch.cat([gradient.reshape(-1) for gradient in gradients])
            state.norms.append(float(torch.linalg.vector_norm(vector)))
            session.check_weights()
            session.adapt_shots()
            if state.batch < len(batches):
                session.stop_if_asked()
        state.epoch += 1
        state.batch = 0
        session.close_epoch()
        if not state.is_done:
            session.stop_if_asked()


def _step(session: Session, batch: torch.Tensor) -> None:
    optimizer = session.optimizer
    assert optimizer is not None
    chosen = session.chosen(batch)
    features, targets = session.features[chosen], session.targets[chosen]

    def loss() -> float:
        session.check_weights()
        optimizer.zero_grad()
        outputs = session.classifier.layer(features)
        value = session.loss(session.classifier.scores(outputs), targets)
        value.backward(retain_graph=session.state.test is not None)
        session.measure_noise(value, outputs, len(chosen) / len(batch))
        return float(value.detach())

    optimizer.step(loss)


def _batches(config: TrainingConfig, samples: int, epoch: int) -> list[torch.Tensor]:
    """The samples of each step of an epoch: a function of seed and epoch, so nothing to keep."""
    if config.batch_size is None or config.batch_size >= samples:
        return [torch.arange(samples)]
    order = np.random.default_rng([config.seed, epoch]).permutation(samples)
    return list(torch.from_numpy(order).split(config.batch_size))


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "lbfgs": partial(torch.optim.LBFGS, line_search_fn="strong_wolfe"),
}


def _search(session: Session) -> None:
    """Trains until the budget is spent, and leaves the optimiser's choice set.

    Of COBYLA every evaluation is an epoch. Of SPSA every iteration is one: two evaluations on the
    training part, after a calibration.
    """
    from qiskit_machine_learning import optimizers  # with SciPy's statistics, which take long

    state, iterations, budget = session.state, count(1), session.config.epochs
    optimizer: Any

    def advance(point: FloatArray, asked: FloatArray | None = None) -> None:
        _set_weights(session, point)
        state.epoch += 1
        state.step += 1
        session.close_epoch(asked)

    def evaluate(point: FloatArray) -> None:
        _set_weights(session, point)
        value = session.loss(session.score(session.features), session.targets)
        session.note(point, float(value))

    def end_of_iteration(_: int, point: FloatArray, *__: object) -> bool:
        if next(iterations) > state.epoch:  # else recorded before the run stopped
            advance(point)
            session.stop_if_asked()
        return False

    with _seeded(session.config.seed):
        if session.config.optimizer == "cobyla":
            loss = _answers(session, lambda point: advance(point, asked=point))
            optimizer = optimizers.COBYLA(maxiter=budget, rhobeg=1.0)
        else:
            loss = _answers(session, evaluate)
            optimizer = optimizers.SPSA(maxiter=budget, termination_checker=end_of_iteration)
        chosen = optimizer.minimize(loss, state.start.numpy().copy()).x
    _set_weights(session, np.asarray(chosen))
    state.chosen = True
    state.epoch += 1
    session.close_epoch()


def _answers(
    session: Session, evaluate: Callable[[FloatArray], None]
) -> Callable[[float | npt.NDArray[Any]], float]:
    """The loss for an optimiser: as the run that is resumed has it, beyond that evaluated."""
    numbers, state = count(), session.state

    def loss(asked: float | npt.NDArray[Any]) -> float:
        point, number = np.asarray(asked, dtype=np.float64), next(numbers)
        if number >= len(state.losses):
            evaluate(point)
            session.stop_if_asked()
        elif not np.array_equal(state.points[number].numpy(), point):
            raise CheckpointError(
                f"{session.config.optimizer} asks for other weights than when the run began "
                f"(evaluation {number + 1}): go on with the versions of NumPy, SciPy and "
                "Qiskit Machine Learning that it began with"
            )
        return state.losses[number]

    return loss


def _trained(classifier: Classifier) -> list[torch.nn.Parameter]:
    return [parameter for parameter in classifier.parameters() if parameter.requires_grad]


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
    model, state = session.model, session.state
    cuts = config.cuts_for(model.num_qubits)
    result = TrainingResult(
        workload=session.workload.name,
        config=config,
        label=cuts if isinstance(cuts, str) else None,
        num_qubits=model.num_qubits,
        num_weights=len(state.start),
        run_id=session.estimator.run_id,
        final=state.scores,
        seconds=state.seconds,
        totals=session.meter.read(),
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
