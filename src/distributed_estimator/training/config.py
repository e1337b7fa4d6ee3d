"""How a network is trained, in one frozen value that goes through JSON and back."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ..cutting import AutoCut, SettingBasis
from ..errors import InputError
from ._checks import check_seed, check_whole
from .models import ModelConfig, labels_for_cuts
from .workloads import WorkloadConfig

Optimizer = Literal["adam", "sgd", "lbfgs", "cobyla", "spsa"]
Loss = Literal["mse", "cross_entropy"]
Head = Literal["none", "linear", "custom"]
Pipeline = Literal["contracted", "reference"]

GRADIENT_FREE = ("cobyla", "spsa")
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
        workers: Size of the thread pool.
        seed: Of the initial weights, the shots and the mini-batches. The data has its own.
        setting_basis: "full" or "minimal" (DistributedEstimator only).
        pipeline: "contracted" for DistributedEstimator, "reference" for the paper's own.
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
        if self.pipeline == "reference" and self.shots is None:
            raise InputError("the reference pipeline has no exact values: give `shots`")
        if self.pipeline == "reference" and self.max_qubits is not None:
            raise InputError("the reference pipeline cuts by label: give `cuts` or `label`")
        if self.is_gradient_free and self.batch_size is not None:
            raise InputError(
                f"`batch_size` is {self.batch_size}, and {self.optimizer} takes the whole training "
                "part at each evaluation: leave it out, or choose adam, sgd or lbfgs"
            )

    @property
    def is_gradient_free(self) -> bool:
        """Whether the optimiser takes values alone."""
        return self.optimizer in GRADIENT_FREE

    def cuts_for(self, num_qubits: int) -> str | AutoCut | None:
        """What the estimator is told to cut.

        Raises:
            InputError: The row of qubits cannot be cut that often.
        """
        if self.max_qubits is not None:
            return AutoCut(max_qubits=self.max_qubits)
        if self.label is not None or not self.cuts:
            return self.label
        return labels_for_cuts(num_qubits, self.cuts)

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrainingConfig:
        """The configuration that `as_dict` wrote.

        Raises:
            InputError: A field is unknown, missing or out of range.

        Example:
            >>> config = TrainingConfig(cuts=2, shots=None)
            >>> TrainingConfig.from_dict(config.as_dict()) == config
            True
        """
        return _build(cls, document)


def _build(kind: type[ConfigT], document: Mapping[str, Any]) -> ConfigT:
    hints = get_type_hints(kind)
    if set(document) != set(hints):
        raise InputError(
            f"a {kind.__name__} has the fields {sorted(hints)}, found {sorted(document)}: it was "
            "written by another version of the package"
        )
    values = {name: _convert(hint, document[name]) for name, hint in hints.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"a {kind.__name__} holds what it cannot: {error}") from error


def _convert(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value)
    return tuple(value) if isinstance(value, list) else value


def _check_choices(config: TrainingConfig) -> None:
    for name, hint in get_type_hints(TrainingConfig).items():
        choices = get_args(hint)
        if not choices or not all(isinstance(choice, str) for choice in choices):
            continue
        value = getattr(config, name)
        if value not in choices:
            raise InputError(f"`{name}` is {value!r}: give one of {', '.join(choices)}")


def _check_rate(value: object) -> None:
    if not isinstance(value, int | float) or not 0 < value < sys.float_info.max:
        raise InputError(f"`lr` is {value!r}: give a positive learning rate, such as 0.1")
