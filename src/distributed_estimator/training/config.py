"""How a network is trained, in one frozen value that goes through JSON and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ..checks import check_whole, is_number
from ..cutting import AutoCut, SettingBasis
from ..errors import InputError
from ..execution.policies import Policy
from ..execution.stragglers import Stragglers
from ._checks import check_seed
from .models import ModelConfig, labels_for_cuts
from .workloads import WorkloadConfig

Optimizer = Literal["adam", "sgd", "lbfgs", "cobyla", "spsa"]
Loss = Literal["mse", "cross_entropy"]
Head = Literal["none", "linear", "custom"]
Pipeline = Literal["contracted", "reference"]
PoolName = Literal["threads", "processes", "dask", "ray"]

GRADIENT_FREE = ("cobyla", "spsa")

TASK_LOG = "tasks.jsonl"
"""Stands beside the query log."""
ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Runs that differ in their cuts alone have the same data, start and budget.

    Attributes:
        workload: The data.
        model: The circuit.
        cuts: Places where the row of qubits is cut, into blocks as even as they can be.
        label: A partition label per qubit, instead of `cuts`.
        max_qubits: Cuts searched for, so that no fragment is wider, instead of `cuts`.
        shots: Shots a subexperiment; None: exact values.
        optimizer: "adam", "sgd" or "lbfgs" (fragment-local gradients); "cobyla" or "spsa" (none).
        epochs: Passes over the training part; for COBYLA its evaluations, for SPSA its iterations
            (`maxiter`), each over the whole training part.
        batch_size: Samples of one gradient step; None: the whole training part.
        loss: "mse" between output and target ±1, or "cross_entropy" with the output as logit.
        lr: Learning rate of the gradient optimisers.
        head: A classical layer after the circuit: "none" (the output of a circuit with several
            is their mean), "linear", or "custom" (the module given to `train`).
        workers: Tasks that run at a time.
        seed: Of the initial weights, the shots and the mini-batches. The data has its own.
        setting_basis: "full" or "minimal" (DistributedEstimator only).
        pipeline: "contracted" for DistributedEstimator, "reference" for the paper's own.
        pool: Where tasks run (DistributedEstimator only, like all that follow but `stragglers`).
        address: Of a Dask or Ray cluster that runs; None: one is started on this machine.
        policy: How tasks are handed out. What is learnt does not depend on it, but for its
            deadline and its size of tasks, nor on the pool.
        stragglers: Delays that are injected; None: none are. The reference takes no slow worker.
        trace: Whether to keep a record of every attempt at a task.
    """

    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    cuts: int = 0
    label: str | None = None
    max_qubits: int | None = None
    shots: int | None = 1024
    optimizer: Optimizer = "adam"
    epochs: int = 60
    batch_size: int | None = None
    loss: Loss = "mse"
    lr: float = 0.1
    head: Head = "none"
    workers: int = 8
    seed: int = 7
    setting_basis: SettingBasis = "full"
    pipeline: Pipeline = "contracted"
    pool: PoolName = "threads"
    address: str | None = None
    policy: Policy = field(default_factory=Policy)
    stragglers: Stragglers | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        for name, least in (("cuts", 0), ("epochs", 1), ("workers", 1)):
            check_whole(name, getattr(self, name), least)
        for name in ("max_qubits", "shots", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        _check_choices(self)
        check_seed(self.seed)
        _check_rate(self.lr)
        self._check_together()

    def _check_together(self) -> None:
        ways = [self.cuts > 0, self.label is not None, self.max_qubits is not None]
        if sum(ways) > 1:
            raise InputError("`cuts`, `label` and `max_qubits` exclude one another: give one")
        if self.pipeline == "reference":
            self._check_reference()
        if self.is_gradient_free and self.batch_size is not None:
            raise InputError(
                f"`batch_size` is {self.batch_size}, and {self.optimizer} takes the whole training "
                "part at each evaluation: leave it out, or choose adam, sgd or lbfgs"
            )

    def _check_reference(self) -> None:
        if self.shots is None:
            raise InputError("the reference pipeline has no exact values: give `shots`")
        if self.max_qubits is not None:
            raise InputError("the reference pipeline cuts by label: give `cuts` or `label`")
        defaults = {"pool": "threads", "address": None, "policy": Policy(), "trace": False}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                raise InputError(
                    f"`{name}` says how DistributedEstimator runs tasks, and the reference "
                    "pipeline takes `workers` and `stragglers` only: leave it out, or set "
                    '`pipeline` to "contracted"'
                )

    @property
    def is_gradient_free(self) -> bool:
        """Whether the optimiser takes values alone."""
        return self.optimizer in GRADIENT_FREE

    def cuts_for(self, num_qubits: int) -> str | AutoCut | None:
        """What the estimator is told to cut.

        Raises:
            InputError: The row of qubits cannot be cut that often, or has not as many labels.
        """
        if self.label is not None and len(self.label) != num_qubits:
            raise InputError(
                f"`label` has {len(self.label)} letters, the circuit has {num_qubits} qubits: give "
                "one letter a qubit"
            )
        if self.max_qubits is not None:
            return AutoCut(max_qubits=self.max_qubits)
        if self.label is not None or not self.cuts:
            return self.label
        return labels_for_cuts(num_qubits, self.cuts)

    def for_evaluation(self) -> TrainingConfig:
        """The same network without what was to be learnt of training itself.

        Nothing is delayed or traced, and no deadline cuts shots off: every query waits for all of
        them. Tasks are as large, so the shots that are drawn are those that training without a
        deadline would draw; a deadline divides them into chunks, with other random numbers.
        """
        policy = Policy(subexperiments=self.policy.subexperiments)
        return replace(self, policy=policy, stragglers=None, trace=False)

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document; where a part has a `kind`, that is its class."""
        return _fields_of(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrainingConfig:
        """The configuration that `as_dict` wrote, by this release or an older one.

        Raises:
            InputError: A field is unknown or out of range.

        Example:
            >>> config = TrainingConfig(cuts=2, shots=None)
            >>> TrainingConfig.from_dict(config.as_dict()) == config
            True
        """
        return _build(cls, document)


def _fields_of(value: Any) -> dict[str, Any]:
    hints = get_type_hints(type(value))
    return {f.name: _plain(hints[f.name], getattr(value, f.name)) for f in fields(value)}


def _plain(hint: Any, value: Any) -> Any:
    kinds = _kinds(hint)
    if not kinds or value is None:
        return value
    return ({"kind": type(value).__name__} if len(kinds) > 1 else {}) | _fields_of(value)


def _kinds(hint: Any) -> dict[str, type[Any]]:
    """The dataclasses that a field may hold, by name."""
    options = [kind for kind in get_args(hint) or (hint,) if isinstance(kind, type)]
    return {kind.__name__: kind for kind in options if is_dataclass(kind)}


def _build(kind: type[ConfigT], document: Any) -> ConfigT:
    hints = get_type_hints(kind)
    # Fields that came later have the default that stands for what was done before.
    if not isinstance(document, Mapping) or not set(document) <= set(hints):
        found = sorted(document) if isinstance(document, Mapping) else document
        raise InputError(
            f"a {kind.__name__} has the fields {sorted(hints)}, found {found}: it was written by "
            "another version of the package"
        )
    values = {name: _convert(hints[name], value) for name, value in document.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"a {kind.__name__} holds what it cannot: {error}") from error


def _convert(hint: Any, value: Any) -> Any:
    kinds = _kinds(hint)
    if not kinds or (value is None and NoneType in get_args(hint)):
        return tuple(value) if isinstance(value, list) else value
    if len(kinds) == 1:
        (kind,) = kinds.values()
        return _build(kind, value)
    left = dict(value) if isinstance(value, Mapping) else {}
    name = left.pop("kind", None)
    if name not in kinds:
        raise InputError(f"{value!r} is of none of the kinds {', '.join(sorted(kinds))}")
    return _build(kinds[name], left)


def _check_choices(config: TrainingConfig) -> None:
    for name, hint in get_type_hints(TrainingConfig).items():
        choices = get_args(hint)
        if not choices or not all(isinstance(choice, str) for choice in choices):
            continue
        value = getattr(config, name)
        if value not in choices:
            raise InputError(f"`{name}` is {value!r}: give one of {', '.join(choices)}")


def _check_rate(value: Any) -> None:
    if not (is_number(value) and 0 < value < sys.float_info.max):
        raise InputError(f"`lr` is {value!r}: give a positive learning rate, such as 0.1")
