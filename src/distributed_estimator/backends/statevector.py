"""The local simulator: every setting of a fragment from one pass over its branches.

Each slot splits the state into as many branches as its side has operators (two for most gates and
wires). The inner products of the branches are the exact fragment tensor, for all settings at once;
shots are drawn from the exact outcome distribution of each setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..cutting import Fragment, GateStep, SlotStep
from ..cutting.gates import GateKernel, constant_kernel
from ..subexperiments import FragmentEstimate, FragmentExperiment, MeasurementGroup, Task
from ..subexperiments.slotwise import SlotwiseMap
from .base import Counts, estimate_from_counts
from .kernels import apply_branches, apply_gate, outcome_grams, outcome_order, zero_state

ComplexArray = NDArray[np.complex128]
FloatArray = NDArray[np.float64]

_TO_Z = {
    "X": constant_kernel(np.array([[1, 1], [1, -1]]) / np.sqrt(2)),
    "Y": constant_kernel(np.array([[1, -1j], [1, 1j]]) / np.sqrt(2)),
}


@dataclass(frozen=True)
class StatevectorBackend:
    """Exact or shot-by-shot simulation of fragments with NumPy, complex128.

    Example:
        >>> StatevectorBackend().name
        'statevector'
    """

    @property
    def name(self) -> str:
        """For records."""
        return "statevector"

    @property
    def exact(self) -> bool:
        """It can."""
        return True

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """At 5 ns an amplitude and gate."""
        return 5e-9 * len(task.angles) * experiment.row_work

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentEstimate:
        """Evaluate all settings of the task's rows; see `Backend`."""
        states = simulate(experiment.fragment, task.angles)
        tensors = [
            group_coordinates(experiment.fragment, states, group) for group in experiment.groups
        ]
        if task.shots is None:
            return _exact(experiment, tensors)
        return estimate_from_counts(experiment, task, _draw(experiment, task, tensors))


def simulate(fragment: Fragment, angles: FloatArray) -> ComplexArray:
    """Branch states of a fragment, shape (rows, branches, 2**qubits)."""
    states = zero_state(len(angles), fragment.num_qubits)
    for step in _program(fragment):
        if isinstance(step, SlotStep):
            operators = fragment.slots[step.slot].side.branches
            states = apply_branches(states, operators, step.qubit)
        else:
            states = apply_gate(states, step.matrices(angles), step.nonzero, step.qubits)
    return states


def group_coordinates(
    fragment: Fragment, states: ComplexArray, group: MeasurementGroup
) -> FloatArray:
    """The fragment tensor of each outcome of a group, shape (rows, outcomes, ranks)."""
    for qubit, letter in group.basis:
        if letter in _TO_Z:
            kernel = _TO_Z[letter]
            states = apply_gate(states, kernel.coefficients, kernel.nonzero, [qubit])
    order = outcome_order(fragment.num_qubits, group.generators)
    grams = outcome_grams(states, order, group.num_outcomes)
    counts = [len(slot.side.branches) for slot in fragment.slots]
    slots = len(counts)
    pairs = grams.reshape(-1, *counts, *counts)
    pairs = pairs.transpose(0, *(x for s in range(slots) for x in (1 + s, 1 + slots + s)))
    flat = _coordinate_map(fragment)(pairs.reshape(len(pairs), -1)).real
    return flat.reshape(len(states), group.num_outcomes, -1)


def _exact(experiment: FragmentExperiment, tensors: list[FloatArray]) -> FragmentEstimate:
    rows, _, size = tensors[0].shape
    values = np.empty((rows, len(experiment.paulis), size))
    for group, tensor in zip(experiment.groups, tensors, strict=True):
        values[:, list(group.paulis)] = group.signs @ tensor
    return FragmentEstimate(values, ())


def _draw(
    experiment: FragmentExperiment, task: Task, tensors: list[FloatArray]
) -> Iterator[Counts]:
    rng = np.random.default_rng(task.seed)
    for group, tensor in zip(experiment.groups, tensors, strict=True):
        for family in experiment.families:
            yield group, family, rng.multinomial(task.shots, family.probabilities(tensor))


@lru_cache(maxsize=512)
def _coordinate_map(fragment: Fragment) -> SlotwiseMap:
    return SlotwiseMap([slot.side.coordinates for slot in fragment.slots])


class _Fused:
    """Gates that follow each other on one qubit, as one matrix; or one wider gate."""

    def __init__(self, step: GateStep) -> None:
        self.qubits = step.qubits
        self.nonzero = step.kernel.nonzero
        self._parts: list[tuple[GateKernel, list[int]]] = [(step.kernel, list(step.angles))]

    def extend(self, step: GateStep) -> None:
        """Follow with another gate on the same qubit."""
        self._parts.append((step.kernel, list(step.angles)))
        self.nonzero = (step.kernel.nonzero.astype(int) @ self.nonzero.astype(int)) > 0

    def matrices(self, angles: FloatArray) -> ComplexArray:
        """Shape (rows or 1, d, d)."""
        total: ComplexArray | None = None
        for kernel, columns in self._parts:
            matrices = kernel.matrices(angles[:, columns])
            total = matrices if total is None else matrices @ total
        assert total is not None
        return total


@lru_cache(maxsize=512)
def _program(fragment: Fragment) -> tuple[_Fused | SlotStep, ...]:
    """The fragment's steps with runs of one-qubit gates fused."""
    program: list[_Fused | SlotStep] = []
    open_runs: dict[int, _Fused] = {}
    for step in fragment.steps:
        if isinstance(step, SlotStep):
            open_runs.pop(step.qubit, None)
            program.append(step)
            continue
        if len(step.qubits) == 1 and step.qubits[0] in open_runs:
            open_runs[step.qubits[0]].extend(step)
            continue
        fused = _Fused(step)
        program.append(fused)
        for qubit in step.qubits:
            open_runs.pop(qubit, None)
        if len(step.qubits) == 1:
            open_runs[step.qubits[0]] = fused
    return tuple(program)
