"""The options of `dest train` that say what to train, and the configuration they come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from ..training.config import GRADIENT_FREE, Head, Loss, Optimizer, TrainingConfig
from ..training.models import ANSATZES, ENTANGLEMENTS, FEATURE_MAPS, ModelConfig, feature_range
from ..training.workloads import WorkloadConfig
from ._paths import TEXT_PATH
from ._run_options import (
    add_options,
    policy_of,
    pool_of,
    pool_options,
    straggler_options,
    stragglers_of,
    training_policy_options,
)

DEFAULT_SHOTS = 1024
MNIST_EPOCHS, MNIST_BATCH = 10, 32
"""The paper's longest budget for MNIST, in mini-batches of PyTorch's usual size."""

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _choice(*names: str) -> click.Choice[str]:
    return click.Choice(names)


DATA = (
    click.option("--features", "num_features", type=int, help="Features a sample, and so qubits."),
    click.option(
        "--reduction",
        type=_choice("pca", "pool"),
        help="How images or wide tables come to so few features: components or averaged patches.",
    ),
    click.option("--classes", metavar="A,B", help="The two classes, by name or number."),
    click.option("--samples", type=int, help="Most training samples.  [default: all]"),
    click.option("--test-samples", type=int, help="Most test samples.  [default: all]"),
    click.option("--target", help="Column of a file that holds the class.  [default: the last]"),
    click.option("--data-dir", type=TEXT_PATH, help="Folder of torchvision's MNIST, the full set."),
)
MODEL = (
    click.option("--feature-map", type=_choice(*FEATURE_MAPS), default="z", show_default=True),
    click.option("--feature-map-reps", type=int, default=2, show_default=True),
    click.option(
        "--feature-map-entanglement",
        type=_choice(*ENTANGLEMENTS),
        default="linear",
        show_default=True,
        help="Pairs of qubits that a ZZ feature map joins.",
    ),
    click.option("--ansatz", type=_choice(*ANSATZES), default="real_amplitudes", show_default=True),
    click.option("--ansatz-reps", type=int, default=1, show_default=True),
    click.option(
        "--entanglement",
        type=_choice(*ENTANGLEMENTS),
        default="linear",
        show_default=True,
        help="Pairs of qubits that the ansatz joins.",
    ),
    click.option(
        "--observable",
        default="z_all",
        show_default=True,
        help="z_all, z_one, z_<qubit>, z_mean, z_each (one output a qubit) or a sum of Paulis.",
    ),
    click.option(
        "--head",
        type=_choice(*(name for name in get_args(Head) if name != "custom")),
        default="none",
        show_default=True,
        help="A classical layer after the circuit.",
    ),
)
CUTS = (
    click.option(
        "--cuts",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Places where the row of qubits is cut into contiguous pieces.",
    ),
    click.option("--label", help="One letter a qubit instead, such as AABB."),
    click.option("--max-qubits", type=int, help="Search for cuts instead, for so wide a device."),
)
TRAINING = (
    click.option("--shots", type=int, help=f"Shots of a circuit.  [default: {DEFAULT_SHOTS}]"),
    click.option("--exact", is_flag=True, help="Exact expectation values, without shots."),
    click.option(
        "--optimizer", type=_choice(*get_args(Optimizer)), default="adam", show_default=True
    ),
    click.option(
        "--epochs", type=int, help="Passes over the training part.  [default: 60, or 10 for MNIST]"
    ),
    click.option(
        "--maxiter",
        type=int,
        help="Evaluations of COBYLA, iterations of SPSA, or steps over the whole training part.",
    ),
    click.option(
        "--batch-size", type=int, help="Samples of a step.  [default: all, or 32 for MNIST]"
    ),
    click.option("--loss", type=_choice(*get_args(Loss)), default="mse", show_default=True),
    click.option("--lr", type=float, help="Learning rate.  [default: 0.1, or 1 for lbfgs]"),
    click.option(
        "--workers", type=int, default=8, show_default=True, help="Tasks to run at the same time."
    ),
    click.option(
        "--basis",
        "setting_basis",
        type=_choice("full", "minimal"),
        default="full",
        show_default=True,
        help="Settings at a cut: full takes fewer shots for an error, minimal fewer circuits.",
    ),
    click.option(
        "--pipeline",
        type=_choice("contracted", "reference"),
        default="contracted",
        show_default=True,
        help="reference: the paper's own, on qiskit-addon-cutting and Aer; many times slower.",
    ),
    click.option(
        "--seed",
        type=int,
        default=7,
        show_default=True,
        help="Of the split, the initial weights, the mini-batches and the shots.",
    ),
)


RECORDS = (
    click.option(
        "--trace",
        is_flag=True,
        help="Record every attempt at a task, and draw them for Perfetto at the end.",
    ),
)


def training_options(command: CommandT) -> CommandT:
    """Adds all of them to a command."""
    command = straggler_options(add_options(command, RECORDS))
    command = pool_options(training_policy_options(command))
    return add_options(command, (*DATA, *MODEL, *CUTS, *TRAINING))


def build_config(workload: str, settings: dict[str, Any]) -> TrainingConfig:
    """The configuration that the options come to.

    Raises:
        InputError: A value is out of range.
        click.UsageError: Options exclude one another.
    """
    left = dict(settings)
    model = ModelConfig(**{name: left.pop(name) for name in vars(ModelConfig())})
    classes = left.pop("classes")
    names = ("num_features", "reduction", "samples", "test_samples", "target", "data_dir")
    data = WorkloadConfig(
        name=workload,
        classes=None if classes is None else _pair(classes),
        feature_range=feature_range(model),
        seed=left["seed"],
        **{name: left.pop(name) for name in names},
    )
    pool, address = pool_of(left)
    dispatch: dict[str, Any] = {
        "pool": pool,
        "address": address,
        "policy": policy_of(left),
        "stragglers": stragglers_of(left),
    }
    return TrainingConfig(workload=data, model=model, **dispatch, **_budget(data, left))


def _budget(data: WorkloadConfig, settings: dict[str, Any]) -> dict[str, Any]:
    left = dict(settings)
    exact, shots = left.pop("exact"), left.pop("shots")
    if exact and shots is not None:
        raise click.UsageError("`--shots` and `--exact` exclude one another: give one")
    left["shots"] = None if exact else DEFAULT_SHOTS if shots is None else shots
    gradient_free = left["optimizer"] in GRADIENT_FREE
    is_mnist = data.name == "mnist_binary" and not gradient_free
    maxiter, epochs = left.pop("maxiter"), left.pop("epochs")
    if maxiter is not None and epochs is not None:
        raise click.UsageError("`--epochs` and `--maxiter` exclude one another: give one")
    if maxiter is not None and left["batch_size"] is not None:
        raise click.UsageError(
            "`--maxiter` counts steps over the whole training part: with `--batch-size` give "
            "`--epochs`"
        )
    if left["batch_size"] is None and is_mnist and maxiter is None:
        left["batch_size"] = MNIST_BATCH
    if epochs is None:
        epochs = maxiter if maxiter is not None else MNIST_EPOCHS if is_mnist else 60
    left["epochs"] = epochs
    if left["lr"] is None:
        left["lr"] = 1.0 if left["optimizer"] == "lbfgs" else 0.1
    return left


def _pair(text: str) -> tuple[str, str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise click.UsageError(f"`--classes` is {text!r}: give two, such as 3,6")
    return parts[0], parts[1]
