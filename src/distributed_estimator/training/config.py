"""How a network is trained, in one frozen value that goes through JSON and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from ..cutting import AutoCut, SettingBasis
from ..errors import InputError
from ..execution.policies import Policy
from ..execution.stragglers import Stragglers
from . import settings
from .models import ModelConfig, labels_for_cuts
from .policies import check_address
from .settings import Config, Count, Seed, Shots, Workers, about
from .workloads import WorkloadConfig

Optimizer = Literal["adam", "sgd", "lbfgs", "cobyla", "spsa"]
Loss = Literal["mse", "cross_entropy"]
Head = Literal["none", "linear", "custom"]
Pipeline = Literal["contracted", "reference"]
PoolName = Literal["threads", "processes", "dask", "ray"]
LearningRate = Annotated[
    float, Meta(gt=0, lt=sys.float_info.max, title="a positive learning rate, such as 0.1")
]

GRADIENT_FREE = ("cobyla", "spsa")

TASK_LOG = "tasks.jsonl"
"""Stands beside the query log."""


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How to train. Runs that differ in their cuts alone have the same data, start and budget.

    Where tasks run, and in which order, decides nothing that is learnt, but for the deadline of
    the policy and its number of subexperiments in a task.
    """

    workload: Annotated[WorkloadConfig, about("The data.")] = field(default_factory=WorkloadConfig)
    model: Annotated[ModelConfig, about("The circuit.")] = field(default_factory=ModelConfig)
    cuts: Annotated[
        int,
        Meta(
            ge=0,
            description="Places where the row of qubits is cut, into blocks as even as they can "
            "be.",
        ),
    ] = 0
    label: Annotated[
        str | None, about("A partition label per qubit, such as AABB, instead of cuts.")
    ] = None
    max_qubits: Annotated[
        Count | None,
        about("Search for cuts instead, so that no fragment is wider than so many."),
    ] = None
    shots: Annotated[Shots | None, about("Shots a subexperiment. None: exact values.")] = 1024
    optimizer: Annotated[
        Optimizer,
        about("adam, sgd or lbfgs (fragment-local gradients); cobyla or spsa (none)."),
    ] = "adam"
    epochs: Annotated[
        Count,
        about(
            "Passes over the training part; for COBYLA its evaluations, for SPSA its "
            "iterations (maxiter), each over the whole training part."
        ),
    ] = 60
    batch_size: Annotated[Count | None, about("Samples of a gradient step. None: all.")] = None
    loss: Annotated[
        Loss,
        about("mse between output and target ±1, or cross_entropy with the output as logit."),
    ] = "mse"
    lr: Annotated[LearningRate, about("Learning rate of a gradient optimiser.")] = 0.1
    head: Annotated[
        Head,
        about(
            "A classical layer after the circuit: none (the output of a circuit with "
            "several is their mean), linear, or in Python custom (the module given to train)."
        ),
    ] = "none"
    workers: Annotated[Workers, about("Tasks that run at a time.")] = 8
    seed: Annotated[
        Seed,
        about("Of the initial weights, the mini-batches and the shots."),
    ] = 7
    setting_basis: Annotated[
        SettingBasis,
        about(
            "Settings at a cut: full takes fewer shots for an error, minimal runs fewer circuits.",
            option="--basis",
        ),
    ] = "full"
    pipeline: Annotated[
        Pipeline,
        about(
            "contracted for DistributedEstimator, or reference for the paper's own, "
            "on qiskit-addon-cutting and Aer; many times slower."
        ),
    ] = "contracted"
    pool: Annotated[
        PoolName,
        about("Where tasks run."),
    ] = "threads"
    address: Annotated[
        str | None, about("Of a cluster that runs, for dask or ray. None: one on this machine.")
    ] = None
    policy: Annotated[Policy, about("How tasks are handed out.")] = field(default_factory=Policy)
    stragglers: Annotated[
        Stragglers | None,
        about("Delays that are injected; None: none are. The reference takes no slow worker."),
    ] = None
    trace: Annotated[bool, about("Record every attempt at a task, and draw them for Perfetto.")] = (
        False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = [self.cuts > 0, self.label is not None, self.max_qubits is not None]
        if sum(ways) > 1:
            raise InputError("`cuts`, `label` and `max_qubits` exclude one another: give one")
        if self.pipeline == "reference":
            self._check_reference()
        check_address(self.pool, self.address)
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
        """The cuts of a circuit, as the estimator takes them.

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

    def title(self, workload: str, label: str | None) -> str:
        """A run of this configuration in a few words: data, cuts, shots, optimiser."""
        cut = f"cut {label}" if label else "not cut"
        if self.max_qubits is not None:
            cut = f"fragments of at most {self.max_qubits} qubits"
        shots = "exact" if self.shots is None else f"{self.shots} shots a circuit"
        return f"{workload}, {cut}, {shots}, {self.optimizer}"

    def for_evaluation(self) -> TrainingConfig:
        """The same network without what served the study of its training.

        Nothing is delayed or traced, and no deadline cuts shots off: every query waits for all of
        them. Tasks are as large, so the shots that are drawn are those that training without a
        deadline would draw; a deadline divides them into chunks, with other random numbers.
        """
        policy = Policy(subexperiments=self.policy.subexperiments)
        return replace(self, policy=policy, stragglers=None, trace=False)

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
        try:
            return settings.from_dict(cls, document)
        except InputError as error:
            raise InputError(
                f"the training's configuration cannot be read ({error}): it was written by "
                "another version of the package"
            ) from error
