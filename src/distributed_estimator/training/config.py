"""How a network is trained, and attacked: frozen values that go through JSON and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
from msgspec import Meta

from ..analysis.accuracy import MOST_RADIANS
from ..checks import from_numpy
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
Ratio = Annotated[float, Meta(gt=0, lt=1, title="a ratio above 0 and below 1, such as 0.6")]

Attack = Literal["gaussian", "fgsm", "pgd"]
Magnitudes = Annotated[
    tuple[Annotated[float, Meta(ge=0, le=MOST_RADIANS)], ...], Meta(min_length=1)
]
"""In radians."""

GRADIENT_FREE = ("cobyla", "spsa")
ATTACKS: tuple[Attack, ...] = get_args(Attack)
MOST_BYTES = 2**30
"""Of the noisy copies of all samples, which are made at once."""

_LATER = ("shots_total", "adaptive_shots", "max_shots")
"""Fields of a training since a later version, left out of documents at their default, None."""

TASK_LOG = "tasks.jsonl"
"""Stands beside the query log."""


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How to train. Runs that differ in their cuts alone have the same data, start and budget.

    Where tasks run, and in which order, decides nothing that is learnt, but for the deadline of
    the policy and its number of subexperiments in a task.

    Attributes:
        workload: The data.
        model: The circuit.
        cuts: Places where the row of qubits is cut, into blocks as even as they can be.
        label: A partition label per qubit, such as AABB, instead of cuts.
        max_qubits: Search for cuts instead, so that no fragment is wider than so many.
        shots: Shots a subexperiment. None: exact values.
        shots_total: Instead of shots a subexperiment, those that the values and derivatives of a
            step (of COBYLA and SPSA, an evaluation) take in all, divided by what earlier steps saw
            so that the largest standard error (of the loss gradient, or of the values) is least.
        adaptive_shots: Let the shots of steps, which begin with shots_total, follow the noise of
            the loss gradient: its error, averaged over recent steps, is to be this part of its
            norm, such as 0.6. Where shots are few, steps take some of the samples, at random.
        max_shots: Shots of a step at most, where they adapt, if two samples with two shots a
            circuit take no more. None: 100 times shots_total.
        optimizer: adam, sgd or lbfgs (fragment-local gradients); cobyla or spsa (none).
        epochs: Passes over the training part; for COBYLA its evaluations, for SPSA its
            iterations (maxiter), each over the whole training part.
        batch_size: Samples of a gradient step. None: all.
        loss: mse between output and target ±1, or cross_entropy with the output as logit; of more
            than two classes, each with an output, softmax makes probabilities of the logits.
        lr: Learning rate of a gradient optimiser.
        head: A classical layer after the circuit: none (the output of a circuit with
            several is their mean), linear, or in Python custom (the module given to train).
        workers: Tasks that run at a time.
        seed: Of the initial weights, the mini-batches and the shots.
        setting_basis: Settings at a cut: full takes fewer shots for an error, minimal runs fewer
            circuits.
        pipeline: contracted for DistributedEstimator, or reference for the paper's own,
            on qiskit-addon-cutting and Aer; many times slower.
        pool: Where tasks run.
        address: Of a cluster that runs, for dask or ray. None: one on this machine.
        policy: How tasks are handed out.
        stragglers: Delays that are injected; None: none are. The reference takes no slow worker.
        trace: Record every attempt at a task, and draw them for Perfetto.
    """

    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    cuts: Annotated[int, Meta(ge=0)] = 0
    label: str | None = None
    max_qubits: Count | None = None
    shots: Shots | None = 1024
    shots_total: Shots | None = None
    adaptive_shots: Ratio | None = None
    max_shots: Shots | None = None
    optimizer: Optimizer = "adam"
    epochs: Count = 60
    batch_size: Count | None = None
    loss: Loss = "mse"
    lr: LearningRate = 0.1
    head: Head = "none"
    workers: Workers = 8
    seed: Seed = 7
    setting_basis: Annotated[SettingBasis, about(option="--basis")] = "full"
    pipeline: Pipeline = "contracted"
    pool: PoolName = "threads"
    address: str | None = None
    policy: Policy = field(default_factory=Policy)
    stragglers: Stragglers | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = [self.cuts > 0, self.label is not None, self.max_qubits is not None]
        if sum(ways) > 1:
            raise InputError("`cuts`, `label` and `max_qubits` exclude one another: give one")
        if self.shots_total is not None and self.shots != TrainingConfig.shots:
            raise InputError(
                f"`shots` is {self.shots} and `shots_total` is {self.shots_total}: give one of them"
            )
        self._check_adaptive()
        if self.pipeline == "reference":
            self._check_reference()
        check_address(self.pool, self.address)
        if self.is_gradient_free and self.batch_size is not None:
            raise InputError(
                f"`batch_size` is {self.batch_size}, and {self.optimizer} takes the whole training "
                "part at each evaluation: leave it out, or choose adam, sgd or lbfgs"
            )

    def _check_adaptive(self) -> None:
        if self.adaptive_shots is None:
            if self.max_shots is not None:
                raise InputError(
                    f"`max_shots` is {self.max_shots}, and shots of steps do not adapt: leave it "
                    "out, or give `adaptive_shots`"
                )
            return
        if self.shots_total is None:
            raise InputError(
                f"`adaptive_shots` is {self.adaptive_shots:g}, and `shots_total` is not given: "
                "give the shots of the first step"
            )
        if self.is_gradient_free:
            raise InputError(
                f"`adaptive_shots` is {self.adaptive_shots:g}, and {self.optimizer} takes no "
                "gradient: leave it out, or choose adam, sgd or lbfgs"
            )
        if self.max_shots is not None and self.max_shots < self.shots_total:
            raise InputError(
                f"`max_shots` is {self.max_shots} and `shots_total`, of the first step, "
                f"{self.shots_total}: give no fewer"
            )

    def _check_reference(self) -> None:
        if self.shots is None:
            raise InputError("the reference pipeline has no exact values: give `shots`")
        if self.max_qubits is not None:
            raise InputError("the reference pipeline cuts by label: give `cuts` or `label`")
        if self.shots_total is not None:
            raise InputError("the reference pipeline does not divide `shots_total`: give `shots`")
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

    def for_classes(self, num_classes: int, num_features: int) -> TrainingConfig:
        """The same with outputs for so many classes, where the model has its default for two.

        Without a head class k has the output of Z on qubit k, before a head every qubit has one.

        Raises:
            InputError: There are more classes than qubits to observe.

        Example:
            >>> TrainingConfig().for_classes(3, num_features=4).model.observable
            'z_0, z_1, z_2'
        """
        if num_classes == 2 or self.model.observable != ModelConfig.observable:
            return self
        if self.head == "none" and num_classes > num_features:
            raise InputError(
                f"there are {num_classes} classes and {num_features} features, a qubit each, and "
                "class k is observed on qubit k: give more features (`num_features`), a `head`, or "
                "an `observable` for each class with commas between them"
            )
        each = ", ".join(f"z_{number}" for number in range(num_classes))
        observable = each if self.head == "none" else "z_each"
        return replace(self, model=replace(self.model, observable=observable))

    def title(self, workload: str, label: str | None) -> str:
        """A run of this configuration in a few words: data, cuts, shots, optimiser."""
        cut = f"cut {label}" if label else "not cut"
        if self.max_qubits is not None:
            cut = f"fragments of at most {self.max_qubits} qubits"
        shots = "exact" if self.shots is None else f"{self.shots} shots a circuit"
        if self.shots_total is not None:
            shots = f"{self.shots_total} shots a step"
        if self.adaptive_shots is not None:
            shots = f"shots by the gradient's noise, θ = {self.adaptive_shots:g}"
        return f"{workload}, {cut}, {shots}, {self.optimizer}"

    def standing(self, epoch: int, finished: bool) -> str:
        """How far a run of this configuration is, in a few words."""
        state = "" if finished else ", not finished"
        return f"epoch {epoch} of {self.epochs}{state}, seed {self.seed}"

    def exact(self) -> TrainingConfig:
        """The same without shots."""
        return replace(self, shots=None, shots_total=None, adaptive_shots=None, max_shots=None)

    def for_evaluation(self) -> TrainingConfig:
        """The same network without what served the study of its training.

        Nothing is delayed or traced, and no deadline cuts shots off: every query waits for all of
        them. Tasks are as large, so the shots that are drawn are those that training without a
        deadline would draw; a deadline divides them into chunks, with other random numbers.
        """
        policy = Policy(subexperiments=self.policy.subexperiments)
        fixed = replace(self, adaptive_shots=None, max_shots=None)
        return replace(fixed, policy=policy, stragglers=None, trace=False)

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document, as earlier releases wrote it if they could."""
        document = super().as_dict()
        left_out = [name for name in _LATER if document[name] is None]
        return {name: value for name, value in document.items() if name not in left_out}

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


@dataclass(frozen=True)
class AttackConfig(Config):
    """Which perturbations of a trained network's samples to measure; magnitudes in any order.

    Attributes:
        attacks: Some of gaussian, fgsm and pgd.
        sigma: Standard deviations of the Gaussian noise, in radians.
        epsilon: Radii of FGSM and PGD in the L∞ norm, in radians.
        draws: Noisy copies of each sample, for each σ.
        pgd_steps: Steps of PGD, of size 2.5 ε / steps each.
        seed: Of noise, random starts and the choice of samples. None: the run's.
        samples: At most so many test samples, chosen at random. None: all.

    Raises:
        InputError: A field is out of range.

    Example:
        >>> AttackConfig(attacks=("fgsm",), epsilon=(0.2, 0.1)).grid("fgsm")
        (0.1, 0.2)
    """

    attacks: Annotated[tuple[Attack, ...], Meta(min_length=1), about(option="--attack")] = ATTACKS
    sigma: Magnitudes = (0.0, 0.05, 0.1, 0.2, 0.3)
    epsilon: Magnitudes = (0.0, 0.05, 0.1, 0.2, 0.3)
    draws: Count = 10
    pgd_steps: Count = 10
    seed: Seed | None = None
    samples: Count | None = None

    def __post_init__(self) -> None:
        for name in ("attacks", "sigma", "epsilon"):
            given = getattr(self, name)
            if isinstance(given, list | tuple | np.ndarray):
                object.__setattr__(self, name, tuple(map(from_numpy, given)))
        super().__post_init__()
        for name in ("sigma", "epsilon"):
            grid = getattr(self, name)
            if not any(grid):
                raise InputError(
                    f"`{name}` has no magnitude above 0: give some, such as 0,0.05,0.1,0.2"
                )
            if len(set(grid)) < len(grid):
                raise InputError(f"`{name}` is {grid}, a magnitude twice: give each once")
        if "gaussian" in self.attacks:  # at the least; how many values a draw has is seen later
            check_room(self.draws, len(self.sigma), 1)

    def ordered(self) -> AttackConfig:
        """The same with each attack once, in the order of `ATTACKS`, and magnitudes sorted."""
        return replace(
            self,
            attacks=tuple(attack for attack in ATTACKS if attack in self.attacks),
            sigma=self.grid("gaussian"),
            epsilon=self.grid("fgsm"),
        )

    def grid(self, attack: Attack) -> tuple[float, ...]:
        """The magnitudes of an attack, in their order."""
        return tuple(sorted(self.sigma if attack == "gaussian" else self.epsilon))


def check_room(draws: int, magnitudes: int, values: int) -> None:
    """Raises InputError if so many draws of so many values, for each magnitude, take too much."""
    size = 8 * draws * magnitudes * values
    if size > MOST_BYTES:
        raise InputError(
            f"`draws` is {draws}, and the noisy copies for {magnitudes} magnitudes take "
            f"{size / 2**30:.3g} GiB or more, {MOST_BYTES / 2**30:g} GiB is the limit: give fewer "
            "draws, magnitudes or samples"
        )
