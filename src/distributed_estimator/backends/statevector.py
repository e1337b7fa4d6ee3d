"""The local simulator: every setting of a fragment from one pass over its branches.

Each slot splits the state into as many branches as its side has operators (two for most gates and
wires). The inner products of the branches are the exact fragment tensor, for all settings at once;
shots are drawn from the exact outcome distribution of each setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..cutting import Fragment
from ..subexperiments import (
    FragmentEstimate,
    FragmentExperiment,
    MeasurementGroup,
    SlotwiseMap,
    Task,
)
from .kernels import apply_gate, outcome_grams
from .program import program_of

ComplexArray = NDArray[np.complex128]
FloatArray = NDArray[np.float64]

_WORK_PER_TASK = 4_000_000
_SECONDS_EXACT, _SECONDS_SAMPLED = 5e-5, 1.25e-4  # NumPy's calls, for the states and each group
_SECONDS_PER_AMPLITUDE = 5e-9  # and gate
_SECONDS_PER_BYTE = 3e-9  # of tables of outcomes, to draw and sum up
_TO_Z = {
    "X": np.array([[1, 1], [1, -1]], dtype=complex)[..., None] / np.sqrt(2),
    "Y": np.array([[1, -1j], [1, 1j]])[..., None] / np.sqrt(2),
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
    def identity(self) -> str:
        """Its name: it has no options."""
        return self.name

    @property
    def exact(self) -> bool:
        """It can."""
        return True

    @property
    def max_qubits(self) -> int | None:
        """None."""
        return None

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """As many as take about 20 ms."""
        return max(1, _WORK_PER_TASK // experiment.row_work)

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """All come from the same state: to divide them is to simulate it several times."""
        return None

    def row_bytes(self, experiment: FragmentExperiment, shots: int | None) -> int:
        """Branch states, their inner products and tables."""
        fragment = experiment.fragment
        states = 16 * fragment.num_branches << fragment.num_qubits
        outcomes = sum(group.num_outcomes for group in experiment.groups)
        grams = 16 * outcomes * fragment.num_branches**2
        return 4 * states + 3 * grams + (0 if shots is None else experiment.table_bytes())

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """What all circuits of its rows take: a task of some of them evaluates all the same."""
        # The fastest of five runs of each task, 2 to 12 qubits, 1 to 13 measurement groups and 1 to
        # 80 rows, on one core: the sum of these is right within a factor of about two.
        sampled = task.shots is not None
        calls = (_SECONDS_SAMPLED if sampled else _SECONDS_EXACT) * (1 + len(experiment.groups))
        row = _SECONDS_PER_AMPLITUDE * experiment.row_work
        row += _SECONDS_PER_BYTE * experiment.table_bytes() if sampled else 0.0
        return calls + len(task.angles) * row

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentEstimate:
        """Evaluate the task's circuits; see `Backend`."""
        states = program_of(experiment.fragment).run(task.angles)
        tensors = []
        for group in experiment.groups:
            tensors.append(group_coordinates(experiment.fragment, states, group))
        if task.shots is None:
            return _exact(experiment, tensors)
        rng = np.random.default_rng(task.seed)
        layout = experiment.layout
        drawn = [layout.draw(layout.probabilities(t), task.shots, rng) for t in tensors]
        if task.circuits is not None:
            kept = _outcomes_of(experiment, task.circuits)
            drawn = [table * own for table, own in zip(drawn, kept, strict=True)]
        return FragmentEstimate.of_frequencies(experiment, task, drawn, task.shots)


def group_coordinates(
    fragment: Fragment, states: ComplexArray, group: MeasurementGroup
) -> FloatArray:
    """The fragment tensor of each outcome of a group.

    Args:
        fragment: The fragment.
        states: Its branch states, shape (branches, 2**qubits, rows).
        group: The Paulis measured.

    Returns:
        Shape (rows, outcomes, product of ranks).
    """
    for qubit, letter in group.basis:
        if letter in _TO_Z:
            states = apply_gate(states, _TO_Z[letter], [[0, 1], [0, 1]], [qubit])
    grams = outcome_grams(states, group.generators)
    counts = [len(slot.side.branches) for slot in fragment.slots]
    slots = range(len(counts))
    pairs = grams.reshape(-1, *counts, *counts)
    pairs = pairs.transpose(0, *(x for s in slots for x in (1 + s, 1 + len(counts) + s)))
    flat = _coordinate_map(fragment)(pairs.reshape(len(pairs), -1)).real
    return np.asarray(flat.reshape(states.shape[2], group.num_outcomes, -1))


def _outcomes_of(experiment: FragmentExperiment, circuits: tuple[int, int]) -> FloatArray:
    """1 at the slot outcomes that some circuits have and 0 elsewhere, shape (groups, outcomes)."""
    table = np.zeros((len(experiment.groups), experiment.layout.num_outcomes))
    for part in experiment.family_parts(circuits):
        for group, settings in part.by_group():
            table[group, part.family.places[settings]] = 1.0
    for family in experiment.sure_families(circuits):
        table[0, family.places] = 1.0
    return table


def _exact(experiment: FragmentExperiment, tensors: list[FloatArray]) -> FragmentEstimate:
    rows, _, size = tensors[0].shape
    values = np.empty((rows, len(experiment.paulis), size))
    for group, tensor in zip(experiment.groups, tensors, strict=True):
        values[:, list(group.paulis)] = group.signs @ tensor
    return FragmentEstimate(values, (), None)


@lru_cache(maxsize=512)
def _coordinate_map(fragment: Fragment) -> SlotwiseMap:
    return SlotwiseMap([slot.side.coordinates for slot in fragment.slots])
