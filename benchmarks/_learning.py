"""Test accuracies over seeds: what a run is, what they come to, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks._paired import Paired, holm
from benchmarks._report import Bar
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.workloads import WorkloadConfig

SHOTS = 1024
LEVEL = 0.05  # of the tests taken together
LINEAR_AHEAD = 0.05  # most that a linear model may be better
DECIMALS = 12  # accuracies are shares of at most a few hundred samples


@dataclass(frozen=True)
class Setting:
    """Data and budget that all numbers of cuts share.

    Attributes:
        workload: "iris" or "mnist".
        qubits: And so features.
        epochs: Passes over the training part.
        batch_size: None: the whole training part.
        samples: Most training samples; None: all.
    """

    workload: str
    qubits: int
    epochs: int
    batch_size: int | None
    samples: int | None = None

    def data(self, seed: int) -> WorkloadConfig:
        """The data of a seed."""
        return WorkloadConfig(
            self.workload, num_features=self.qubits, samples=self.samples, seed=seed
        )

    def training(self, cuts: int, seed: int) -> TrainingConfig:
        """The run of a seed."""
        return TrainingConfig(
            self.data(seed),
            cuts=cuts,
            shots=SHOTS,
            epochs=self.epochs,
            batch_size=self.batch_size,
            workers=1,
            seed=seed,
        )

    def __str__(self) -> str:
        return f"{self.workload}, {self.qubits} qubits"


@dataclass(frozen=True)
class Run:
    """One training."""

    setting: Setting
    cuts: int
    seed: int

    def __str__(self) -> str:
        return f"{self.setting}, {self.cuts} cuts, seed {self.seed}"


@dataclass(frozen=True)
class Score:
    """What a run came to.

    Attributes:
        linear: Test accuracy of logistic regression on the run's data.
        label: How the circuit was cut.
        seconds: Of the training, with scores, logs and checkpoints.
    """

    test_accuracy: float
    linear: float
    label: str | None
    seconds: float


@dataclass(frozen=True)
class Cell:
    """A number of cuts in a setting, over all seeds.

    Attributes:
        scores: One a seed.
        against_uncut: The paired differences to no cuts; None for no cuts.
    """

    setting: Setting
    cuts: int
    scores: tuple[Score, ...]
    against_uncut: Paired | None

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return _mean([score.test_accuracy for score in self.scores])

    @property
    def linear(self) -> float:
        """Mean test accuracy of the linear model."""
        return _mean([score.linear for score in self.scores])

    @property
    def case(self) -> dict[str, int]:
        """The case as a report holds it."""
        return {"qubits": self.setting.qubits, "cuts": self.cuts}

    def bars(self) -> tuple[Bar, ...]:
        """No difference beyond the interval, and not far behind the linear model."""
        name = self.setting.workload
        behind = round(self.linear - self.accuracy, DECIMALS)
        bars = [Bar(f"{name}, linear model's accuracy above ours", behind, "<=", LINEAR_AHEAD)]
        if self.against_uncut is not None:
            figure = f"{name}, mean difference to uncut, against half its 95 % interval"
            found = self.against_uncut
            bars.append(Bar(figure, abs(found.mean), "<=", found.half_width))
        return tuple(bars)

    def as_json(self, adjusted: float | None) -> dict[str, Any]:
        """Everything, with the p-value adjusted for all comparisons."""
        against = None
        if self.against_uncut is not None:
            against = self.against_uncut.as_json() | {"p_value_holm": adjusted}
        return {
            **asdict(self.setting),
            "cuts": self.cuts,
            "label": self.scores[0].label,
            "test_accuracy": self.accuracy,
            "linear_model": self.linear,
            "against_uncut": against,
            "seeds": [asdict(score) for score in self.scores],
        }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), DECIMALS)


def adjusted_p_values(cells: Sequence[Cell]) -> list[float | None]:
    """Holm's p-value of each cell over all comparisons; None where nothing is compared."""
    compared = [cell.against_uncut for cell in cells if cell.against_uncut is not None]
    values = iter(holm([found.p_value for found in compared]))
    return [None if cell.against_uncut is None else next(values) for cell in cells]


def statement(cells: Sequence[Cell]) -> str:
    """What all comparisons with no cuts come to."""
    compared = [cell.against_uncut for cell in cells if cell.against_uncut is not None]
    outside = sum(not found.contains_zero for found in compared)
    smallest = min(p for p in adjusted_p_values(cells) if p is not None)
    verdict = "a difference" if smallest <= LEVEL else "no difference"
    return (
        f"{len(compared) - outside} of {len(compared)} 95 % intervals contain 0. With Holm's "
        f"correction over all {len(compared)}, the smallest p-value is {smallest:.2g}: {verdict} "
        f"at the {LEVEL:.0%} level."
    )


def markdown(cells: Sequence[Cell]) -> str:
    """The table for people, in per cent and percentage points."""
    columns = (
        *("data", "qubits", "cuts", "test accuracy", "lowest to highest seed"),
        *("difference to uncut, 95 % interval", "linear model"),
    )
    lines = [columns, ("---",) * len(columns), *map(_line, cells)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{statement(cells)}\n"


def _line(cell: Cell) -> tuple[str, ...]:
    shares = [score.test_accuracy for score in cell.scores]
    difference = "–"
    if cell.against_uncut is not None:
        mean, half = cell.against_uncut.mean, cell.against_uncut.half_width
        low, high = mean - half, mean + half
        difference = f"{_points(mean)} [{_points(low)}, {_points(high)}]"
    return (
        cell.setting.workload,
        str(cell.setting.qubits),
        str(cell.cuts) if cell.scores[0].label is None else f"{cell.cuts} ({cell.scores[0].label})",
        f"{cell.accuracy:.1%}",
        f"{min(shares):.1%} to {max(shares):.1%}",
        difference,
        f"{cell.linear:.1%}",
    )


def _points(share: float) -> str:
    """Percentage points with a sign, but for 0.

    >>> _points(-0.0125), _points(0.0)
    ('−1.2', '0.0')
    """
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
