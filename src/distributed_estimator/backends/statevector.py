"""The local simulator: every setting of a fragment from one pass over its branches.

Each slot splits the state into as many branches as its side has operators (two for most gates and
wires). The inner products of the branches are the exact fragment tensor, for all settings at once;
shots are drawn from the exact outcome distribution of each setting. A fragment is compiled once:
gates on one qubit are fused, angles are gathered by kind of gate. What measurements and resets lose
splits states, too, into those of an environment, over which inner products are summed. Narrow
fragments are simulated here, at all rows at a time, wide ones in `wide`, those that are too wide
for state vectors in `compact`, where they are Clifford or hardly entangled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..cutting import ComplexArray, FloatArray, Fragment, IntArray, Operation, Slot
from ..cutting.gates import GateKernel
from ..forks import Lock
from ..subexperiments import (
    FragmentExperiment,
    FragmentResult,
    MeasurementGroup,
    SlotwiseMap,
    Task,
)
from .compact import CompactProgram
from .wide import NARROWEST, WideProgram

_WORK_PER_TASK = 4_000_000
_SECONDS_EXACT, _SECONDS_SAMPLED = 5e-5, 1.25e-4  # NumPy's calls, for the states and each group
_SECONDS_PER_AMPLITUDE = 5e-9  # and gate
_SECONDS_PER_AMPLITUDE_COMPILED = 7e-10
_SECONDS_PER_BYTE = 3e-9  # of tables of outcomes, to draw and sum up
_MOST_PROGRAMS = 1024
_FEWEST_STATES, _MOST_STATES = 64 << 20, 1 << 30
"""Bytes of state vectors that are always run, and that are run without another way in mind."""
_SMALL = 1 << 10
"""Amplitudes up to which one call that multiplies zeros too is faster than several without."""
_ZERO = np.array([[1], [0]], dtype=np.complex128)
_LOSSES = {
    "measure": np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]]], dtype=np.complex128),
    "reset": np.array([[[1, 0], [0, 0]], [[0, 1], [0, 0]]], dtype=np.complex128),
}
"""Kraus operators of what is done to a qubit without a look at the outcome."""
_TO_Z = {
    "X": np.array([[1, 1], [1, -1]], dtype=complex)[..., None] / np.sqrt(2),
    "Y": np.array([[1, -1j], [1, 1j]])[..., None] / np.sqrt(2),
}

_P = TypeVar("_P")
_Tables: TypeAlias = dict[GateKernel, ComplexArray]
"""Matrices of all occurrences of each kind of gate, shape (d, d, occurrences, rows)."""
_Part: TypeAlias = ComplexArray | tuple[GateKernel, int]
"""A constant matrix, or a gate with angles and the number of its occurrence."""


Method: TypeAlias = Literal["state vectors", "Paulis", "matrix product states"]
"""How a fragment is simulated."""


@dataclass(frozen=True)
class StatevectorBackend:
    """Exact or shot-by-shot simulation of fragments, complex128; see `Backend`.

    Attributes:
        memory_limit: Bytes that all tasks together may take; None: not known.

    Example:
        >>> StatevectorBackend().name
        'statevector'
    """

    name = identity = "statevector"
    exact = True
    max_qubits = None
    memory_limit: int | None = None

    def method(self, experiment: FragmentExperiment, angles: FloatArray) -> Method:
        """How rows of angles are simulated.

        Other than by state vectors only where these are large, and the other way is faster at any
        angles, or all gates are Clifford at these. That shows in the last bits, and so depends on
        configuration alone, not on what is free.
        """
        if self._state_bytes(experiment) <= self._most_states:
            return "state vectors"
        compact = _compact(experiment.fragment)
        if compact.is_clifford(angles):
            return "Paulis"
        weak = compact.seconds(experiment) < self.row_seconds(experiment)
        return "matrix product states" if weak else "state vectors"

    @property
    def _most_states(self) -> int:
        # Of several workers, each has a share of the limit.
        share = _MOST_STATES if self.memory_limit is None else self.memory_limit // 8
        return min(_MOST_STATES, max(_FEWEST_STATES, share))

    def rows_per_task(self, experiment: FragmentExperiment) -> int:
        """As many as take about 20 ms."""
        return max(1, _WORK_PER_TASK // experiment.row_work)

    def circuits_per_task(self, experiment: FragmentExperiment) -> int | None:
        """All come from the same state: to divide them is to simulate it several times."""
        return None

    def row_bytes(
        self, experiment: FragmentExperiment, angles: FloatArray, shots: int | None
    ) -> int:
        """Branch states, their inner products and tables."""
        fragment, method = experiment.fragment, self.method(experiment, angles)
        states = self._state_bytes(experiment)
        if method != "state vectors":
            states = _compact(fragment).row_bytes(experiment, paulis=method == "Paulis")
        outcomes = sum(group.num_outcomes for group in experiment.groups)
        grams = 16 * outcomes * fragment.num_branches**2
        return states + 3 * grams + (0 if shots is None else experiment.table_bytes())

    @staticmethod
    def _state_bytes(experiment: FragmentExperiment) -> int:
        fragment = experiment.fragment
        return 64 * fragment.num_branches << fragment.num_qubits + fragment.environment_qubits

    def expected_seconds(self, experiment: FragmentExperiment, task: Task) -> float:
        """What all circuits of its rows take: a task of some of them evaluates all the same."""
        # The fastest of five runs of each task, 2 to 12 qubits, 1 to 13 measurement groups and 1 to
        # 80 rows, on one core: the sum of these is right within a factor of about two.
        sampled = task.shots is not None
        calls = (_SECONDS_SAMPLED if sampled else _SECONDS_EXACT) * (1 + len(experiment.groups))
        method, row = self.method(experiment, task.angles), self.row_seconds(experiment)
        if method != "state vectors":
            compact = _compact(experiment.fragment)
            row = compact.seconds(experiment, paulis=method == "Paulis")
        row += _SECONDS_PER_BYTE * experiment.table_bytes() if sampled else 0.0
        return calls + len(task.angles) * row

    def row_seconds(self, experiment: FragmentExperiment) -> float:
        """What a row takes as state vectors, besides NumPy's calls and without its shots."""
        wide = _is_wide(experiment.fragment)
        seconds = _SECONDS_PER_AMPLITUDE_COMPILED if wide else _SECONDS_PER_AMPLITUDE
        return seconds * min(experiment.row_work, 10**30)  # which a float can hold

    def differentiates(self, experiment: FragmentExperiment, angles: FloatArray) -> bool:
        """Whether a fragment is wide; copies of a narrow one are run all at once."""
        wide = _is_wide(experiment.fragment)
        return wide and self.method(experiment, angles) == "state vectors"

    def gradient(
        self, experiment: FragmentExperiment, angles: FloatArray, vector: FloatArray
    ) -> FloatArray:
        """Derivatives of the product of a wide fragment's tensor with a vector by its angles."""
        program = _program_of(experiment.fragment)
        assert isinstance(program, WideProgram), "differentiates() says which ones"
        return program.gradient(angles, experiment.groups, vector)

    def tensors(self, experiment: FragmentExperiment, angles: FloatArray) -> list[FloatArray]:
        """Of each group, tensors of its outcomes, shape (rows, outcomes, product of ranks)."""
        program: Program | WideProgram | CompactProgram
        if self.method(experiment, angles) == "state vectors":
            program = _program_of(experiment.fragment)
        else:
            program = _compact(experiment.fragment)
        if isinstance(program, WideProgram | CompactProgram):
            return program.tensors(angles, experiment.groups)
        states, tensors = program.run(angles), []
        for group in experiment.groups:
            tensors.append(program.coordinates(states, group))
        return tensors

    def run(self, experiment: FragmentExperiment, task: Task) -> FragmentResult:
        """Evaluate the task's circuits; see `Backend`."""
        if task.shots is None and self.method(experiment, task.angles) != "state vectors":
            return FragmentResult(_compact(experiment.fragment).values(experiment, task.angles))
        tensors = self.tensors(experiment, task.angles)
        if task.shots is None:
            values = np.empty((len(task.angles), len(experiment.paulis), tensors[0].shape[2]))
            for group, tensor in zip(experiment.groups, tensors, strict=True):
                values[:, group.paulis] = group.means(tensor)
            return FragmentResult(values)
        rng = np.random.default_rng(task.seed)
        layout, runs = experiment.layout, experiment.runs_of(task.circuits)
        shots = np.broadcast_to(task.shots, (len(task.angles), *runs.shape))
        counts = []
        for number, (group, tensor) in enumerate(zip(experiment.groups, tensors, strict=True)):
            table = layout.draw(layout.probabilities(tensor), shots[:, number], rng)
            counts.append(group.signed(table * runs[number, layout.setting_of]))
        return FragmentResult(None, tuple(counts))


class _Fused:
    """Gates that follow each other on the same qubit, applied as one; or one gate of any width."""

    def __init__(self, qubits: tuple[int, ...], part: _Part) -> None:
        self.qubits = qubits
        self.parts = [part]

    def append(self, part: _Part) -> None:
        """Follow with another gate, multiplying constants at once."""
        last = self.parts[-1]
        if isinstance(part, np.ndarray) and isinstance(last, np.ndarray):
            self.parts[-1] = part @ last
        else:
            self.parts.append(part)

    @cached_property
    def nonzero(self) -> list[list[int]]:
        """Per row of the matrix, the columns that can differ from zero."""
        total = np.eye(1 << len(self.qubits), dtype=int)
        for part in self.parts:
            pattern = np.abs(part) > 0 if isinstance(part, np.ndarray) else part[0].nonzero
            total = np.asarray(pattern, dtype=int) @ total
        return [list(np.flatnonzero(row)) for row in total]

    @cached_property
    def is_real(self) -> bool:
        """Whether the matrix is real at any angles."""
        elements = (p if isinstance(p, np.ndarray) else p[0].coefficients for p in self.parts)
        return not any(np.any(array.imag) for array in elements)

    def matrices(self, tables: _Tables) -> ComplexArray:
        """Shape (d, d, rows or 1)."""
        return reduce(lambda all_, m: np.einsum("ijr,jkr->ikr", m, all_), self._factors(tables))

    def column(self, tables: _Tables) -> ComplexArray:
        """What the gates make of |0>, shape (d, rows or 1)."""
        first, *rest = self._factors(tables)
        return reduce(lambda all_, m: np.einsum("ijr,jr->ir", m, all_), rest, first[:, 0])

    def _factors(self, tables: _Tables) -> list[ComplexArray]:
        return [
            part[:, :, None] if isinstance(part, np.ndarray) else tables[part[0]][..., part[1], :]
            for part in self.parts
        ]


class Program:
    """A fragment's steps, ready to run on any number of rows."""

    def __init__(self, fragment: Fragment) -> None:
        sides = [slot.side for slot in fragment.slots]
        counts = [len(side.branches) for side in sides]
        self._pairs_shape = *counts, *counts
        self._pairs_order = [1 + s + end for s in range(len(sides)) for end in (0, len(sides))]
        self._to_coordinates = SlotwiseMap([side.coordinates for side in sides])
        columns: dict[GateKernel, list[tuple[int, ...]]] = {}
        steps = list(_fuse(fragment.steps, columns))
        # One-qubit gates that come first on their qubit make a product state.
        self._first: list[_Fused | None] = [None] * fragment.num_qubits
        self._steps: list[_Fused | Slot | Operation] = []
        touched: set[int] = set()
        for step in steps:
            qubits = (step.qubit,) if isinstance(step, Slot) else tuple(step.qubits)
            if isinstance(step, _Fused) and len(qubits) == 1 and touched.isdisjoint(qubits):
                self._first[qubits[0]] = step
            else:
                self._steps.append(step)
            touched.update(qubits)
        self._gathers = {kernel: np.array(own) for kernel, own in columns.items()}

    def run(self, angles: FloatArray) -> ComplexArray:
        """Branch states, (rows, angles) -> (branches, 2**qubits, rows).

        The highest qubits are the environment, which holds what measurements and resets lose.
        """
        tables = {k: _table(k, columns, angles) for k, columns in self._gathers.items()}
        first = [_ZERO if fused is None else fused.column(tables) for fused in self._first]
        states, lost = product_state(first, len(angles)), 1
        for step in self._steps:
            if isinstance(step, Slot):
                states = apply_branches(states, step.side.branches, step.qubit)
            elif isinstance(step, Operation):
                states, lost = lose(states, lost, _LOSSES[step.kind], step.qubits[0])
            else:
                apply = apply_real_gate if step.is_real else apply_gate
                states = apply(states, step.matrices(tables), step.nonzero, step.qubits)
        if lost == 1:
            return states
        branches, dim, rows = states.shape
        whole = states.reshape(lost, -1, dim, rows).swapaxes(0, 1)
        return whole.reshape(branches // lost, lost * dim, rows)

    def coordinates(self, states: ComplexArray, group: MeasurementGroup) -> FloatArray:
        """The fragment tensor of each outcome of a group, from branch states.

        Returns:
            Shape (rows, outcomes, product of ranks).
        """
        rows = states.shape[2]
        for qubit, letter in group.basis:
            if letter in _TO_Z:
                states = apply_gate(states, _TO_Z[letter], [[0, 1], [0, 1]], [qubit])
        grams = outcome_grams(states, group.generators).reshape(-1, *self._pairs_shape)
        pairs = grams.transpose(0, *self._pairs_order)
        flat = self._to_coordinates(pairs.reshape(len(pairs), -1)).real
        return np.asarray(flat.reshape(rows, group.num_outcomes, -1))


def _table(kernel: GateKernel, columns: IntArray, angles: FloatArray) -> ComplexArray:
    """Matrices of all occurrences of one kind of gate, shape (d, d, occurrences, rows)."""
    gathered = angles.T[columns]  # occurrences, angles of the gate, rows
    flat = gathered.transpose(0, 2, 1).reshape(-1, kernel.num_angles)
    matrices = kernel.matrices(flat)
    return matrices.transpose(1, 2, 0).reshape(*matrices.shape[1:], len(columns), -1)


def _fuse(
    steps: Iterable[Operation | Slot], columns: dict[GateKernel, list[tuple[int, ...]]]
) -> Iterator[_Fused | Slot | Operation]:
    """Slots, losses, and gates fused; notes the columns of the angles of gates in `columns`."""
    open_runs: dict[int, _Fused] = {}
    for step in steps:
        if isinstance(step, Slot):
            open_runs.pop(step.qubit, None)
            yield step
            continue
        if step.kernel is None:
            open_runs.pop(step.qubits[0], None)
            yield step
            continue
        part: _Part = np.asarray(step.kernel.coefficients[0])
        if step.angles:
            own = columns.setdefault(step.kernel, [])
            part = step.kernel, len(own)
            own.append(step.angles)
        run = open_runs.get(step.qubits[0]) if len(step.qubits) == 1 else None
        if run is not None:
            run.append(part)
            continue
        for qubit in step.qubits:
            open_runs.pop(qubit, None)
        fused = _Fused(step.qubits, part)
        if len(step.qubits) == 1:
            open_runs[step.qubits[0]] = fused
        yield fused


_programs: dict[str, Program | WideProgram] = {}
_compacts: dict[str, CompactProgram] = {}
_lock = Lock()


def _is_wide(fragment: Fragment) -> bool:
    """Whether compiled kernels take it: with a qubit for each loss, unless fewer hold them all."""
    return fragment.num_qubits >= NARROWEST and fragment.num_lost == fragment.environment_qubits


def _program_of(fragment: Fragment) -> Program | WideProgram:
    """The fragment's program; fragments of the same content share one, in any process."""
    with _lock:
        wide = _is_wide(fragment)
        make = (lambda: WideProgram(fragment.purified)) if wide else (lambda: Program(fragment))
        return _kept(_programs, fragment.key, make)


def _kept(programs: dict[str, _P], key: str, make: Callable[[], _P]) -> _P:
    if key not in programs:
        programs[key] = make()
        if len(programs) > _MOST_PROGRAMS:
            del programs[next(iter(programs))]
    return programs[key]


def _compact(fragment: Fragment) -> CompactProgram:
    """The same for its program without state vectors."""
    with _lock:
        return _kept(_compacts, fragment.key, lambda: CompactProgram(fragment))


# --- kernels --------------------------------------------------------------------------------------
# State vectors in batches: gates, slots and inner products on arrays (branches, 2**n, rows). Rows
# come last, so that every operation runs over contiguous memory however small the fragment.


def product_state(columns: Sequence[ComplexArray], rows: int) -> ComplexArray:
    """A product of one-qubit states in one branch, shape (1, 2**num_qubits, rows).

    The columns are the states of the qubits, shape (2, rows or 1).
    """
    total = np.ones((1, 1), dtype=np.complex128)
    for column in reversed(columns):
        product = total[:, None] * column
        total = product.reshape(-1, product.shape[-1])
    return (total if total.shape[1] == rows else np.repeat(total, rows, axis=1))[None]


def apply_gate(
    states: NDArray[Any],
    matrices: NDArray[Any],
    nonzero: Sequence[Sequence[int]],
    qubits: Sequence[int],
) -> NDArray[Any]:
    """Apply one gate to every branch.

    Args:
        states: Shape (branches, 2**n, rows); qubit q is bit q of the middle index.
        matrices: Shape (d, d, rows or 1), in Qiskit's order of `qubits`.
        nonzero: Per matrix row, the columns that can differ from zero.
        qubits: The qubits acted on.
    """
    if len(qubits) == 1 and states.size <= _SMALL:
        split = states.reshape(len(states), -1, 2, 1 << qubits[0], states.shape[2])
        return np.asarray(np.einsum("ijr,bajcr->baicr", matrices, split)).reshape(states.shape)
    views = _expose(states, qubits)
    result = np.empty_like(states)
    product = np.empty_like(views[0]) if max(map(len, nonzero)) > 1 else None
    for i, target in enumerate(_expose(result, qubits)):
        first, *rest = nonzero[i]
        # 1 in all rows, as most elements of a CX are.
        if not rest and matrices.shape[2] == 1 and matrices[i, first, 0] == 1:
            np.copyto(target, views[first])
            continue
        np.multiply(views[first], matrices[i, first], out=target)
        for j in rest:
            np.multiply(views[j], matrices[i, j], out=product)
            target += product
    return result


def apply_real_gate(
    states: ComplexArray,
    matrices: ComplexArray,
    nonzero: Sequence[Sequence[int]],
    qubits: Sequence[int],
) -> ComplexArray:
    """As `apply_gate`, for matrices without imaginary parts: a third of the arithmetic."""
    if states.size <= _SMALL:
        return apply_gate(states, matrices, nonzero, qubits)
    factors = matrices.real
    if factors.shape[2] > 1:
        factors = np.repeat(factors, 2, axis=2)  # of the real and of the imaginary part
    return apply_gate(states.view(np.float64), factors, nonzero, qubits).view(np.complex128)


def apply_branches(states: ComplexArray, operators: ComplexArray, qubit: int) -> ComplexArray:
    """Split every branch into one per operator, shape (branches · operators, 2**n, rows)."""
    branches, dim, rows = states.shape
    split = states.reshape(branches, -1, 2, 1 << qubit, rows)
    if states.size <= _SMALL:
        return np.asarray(np.einsum("kij,bajcr->bkaicr", operators, split)).reshape(-1, dim, rows)
    shape = branches, len(operators), dim >> qubit + 1, 2, 1 << qubit, rows
    result = np.zeros(shape, dtype=np.complex128)
    for number, operator in enumerate(operators.tolist()):
        for i in range(2):
            for j in range(2):
                if operator[i][j]:
                    result[:, number, :, i] += operator[i][j] * split[:, :, j]
    return result.reshape(-1, dim, rows)


def lose(
    states: ComplexArray, lost: int, operators: ComplexArray, qubit: int
) -> tuple[ComplexArray, int]:
    """Apply a channel of two Kraus operators, whose number goes to the environment.

    The `lost` states of the environment are the slowest part of the axis of branches. Only their
    inner products matter, so that no more are kept than all branches have dimensions: those of the
    triangular factor.
    """
    branches, dim, rows = states.shape
    both = apply_branches(states, operators, qubit).reshape(branches, 2, dim, rows)
    states, lost = both.swapaxes(0, 1).reshape(2 * branches, dim, rows), 2 * lost
    size = 2 * branches // lost * dim
    if lost > size:
        flat = states.reshape(lost, size, rows).transpose(2, 0, 1)
        kept: Any = np.linalg.qr(flat, mode="r")
        states, lost = kept.transpose(1, 2, 0).reshape(-1, dim, rows), size
    return states, lost


def outcome_grams(states: ComplexArray, generators: tuple[tuple[int, ...], ...]) -> ComplexArray:
    """Inner products of branches, outcome by outcome.

    Args:
        states: Shape (branches, 2**n, rows), already in the measured basis.
        generators: Qubits whose parities make up an outcome.

    Returns:
        Shape (rows, outcomes, branches, branches); element (i, j) is <psi_j|P_outcome|psi_i>.
    """
    branches, dim, rows = states.shape
    order = None
    if generators:
        order = _outcome_order(dim.bit_length() - 1, generators)
    if branches == 1:  # probabilities alone
        chances = states[0].real ** 2 + states[0].imag ** 2
        chances = chances if order is None else chances[order]
        summed = chances.reshape(1 << len(generators), -1, rows).sum(axis=1)
        return np.asarray(summed.T, dtype=np.complex128)[:, :, None, None]
    if order is not None:
        states = states[:, order]
    parts = states.reshape(branches, 1 << len(generators), -1, rows).transpose(3, 1, 0, 2)
    parts = np.ascontiguousarray(parts)
    return np.asarray(parts @ parts.conj().swapaxes(-1, -2))


@lru_cache(maxsize=256)
def _outcome_order(num_qubits: int, generators: tuple[tuple[int, ...], ...]) -> IntArray:
    """Basis states sorted by their outcome, equally many for each."""
    states = np.arange(1 << num_qubits)
    outcome = np.zeros_like(states)
    for bit, qubits in enumerate(generators):
        mask = sum(1 << q for q in qubits)
        outcome |= (np.bitwise_count(states & mask) & 1).astype(states.dtype) << bit
    return np.argsort(outcome, kind="stable")


def _expose(states: NDArray[Any], qubits: Sequence[int]) -> list[NDArray[Any]]:
    """Views of the states for each value of `qubits`, without a copy."""
    branches, dim, rows = states.shape
    shape, indices = _layout(dim, tuple(qubits))
    split = states.reshape(branches, *shape, rows)
    return [split[index] for index in indices]


@lru_cache(maxsize=1024)
def _layout(dim: int, qubits: tuple[int, ...]) -> tuple[list[int], list[tuple[Any, ...]]]:
    """How to split an axis of length `dim` so that each of `qubits` has an axis of its own."""
    shape, axes, above = [], {}, dim
    for qubit in sorted(qubits, reverse=True):
        shape += [above >> qubit + 1, 2]
        axes[qubit] = len(shape)
        above = 1 << qubit
    shape.append(above)
    indices = []
    for value in range(1 << len(qubits)):
        index: list[Any] = [slice(None)] * (len(shape) + 2)
        for bit, qubit in enumerate(qubits):
            index[axes[qubit]] = value >> bit & 1
        indices.append(tuple(index))
    return shape, indices
