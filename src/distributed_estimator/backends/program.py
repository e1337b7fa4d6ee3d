"""A fragment compiled for the local simulator: gates fused, angles gathered by kind of gate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..cutting import Fragment, GateStep, SlotStep
from ..cutting.gates import GateKernel
from ..forks import Lock
from .kernels import apply_branches, apply_gate, apply_real_gate, product_state

ComplexArray = NDArray[np.complex128]
FloatArray = NDArray[np.float64]


_ZERO = np.array([[1], [0]], dtype=np.complex128)


class _Fused:
    """Gates that follow each other on the same qubit, applied as one; or one gate of any width.

    Attributes:
        qubits: The qubits acted on.
        parts: (kernel number, occurrence) of each gate with angles, or a constant matrix.
    """

    def __init__(self, qubits: tuple[int, ...], part: ComplexArray | tuple[int, int]) -> None:
        self.qubits = qubits
        self.parts: list[ComplexArray | tuple[int, int]] = [part]
        self.nonzero: list[list[int]] = []
        self.is_real = False

    def append(self, part: ComplexArray | tuple[int, int]) -> None:
        """Follow with another gate, multiplying constants at once."""
        last = self.parts[-1]
        if isinstance(last, np.ndarray) and isinstance(part, np.ndarray):
            self.parts[-1] = part @ last
        else:
            self.parts.append(part)

    def close(self, kernels: list[GateKernel]) -> None:
        """Find which matrix elements can differ from zero, and whether all are real."""
        total = np.eye(1 << len(self.qubits), dtype=int)
        self.is_real = True
        for part in self.parts:
            constant = isinstance(part, np.ndarray)
            pattern = np.abs(part) > 0 if constant else kernels[part[0]].nonzero
            total = np.asarray(pattern, dtype=int) @ total
            elements = kernels[part[0]].coefficients if isinstance(part, tuple) else part
            self.is_real = self.is_real and not np.any(elements.imag)
        self.nonzero = [list(np.flatnonzero(row)) for row in total]

    def matrices(self, tables: list[ComplexArray]) -> ComplexArray:
        """Shape (d, d, rows or 1)."""
        first, *rest = self._factors(tables)
        for matrix in rest:
            first = np.einsum("ijr,jkr->ikr", matrix, first)
        return first

    def column(self, tables: list[ComplexArray]) -> ComplexArray:
        """What the gates make of |0>, shape (d, rows or 1)."""
        first, *rest = self._factors(tables)
        column = first[:, 0]
        for matrix in rest:
            column = np.einsum("ijr,jr->ir", matrix, column)
        return column

    def _factors(self, tables: list[ComplexArray]) -> list[ComplexArray]:
        return [
            part[:, :, None] if isinstance(part, np.ndarray) else tables[part[0]][..., part[1], :]
            for part in self.parts
        ]


class Program:
    """A fragment's steps, ready to run on any number of rows."""

    def __init__(self, fragment: Fragment) -> None:
        self._fragment = fragment
        self._kernels: list[GateKernel] = []
        self._columns: list[list[tuple[int, ...]]] = []
        self._first: dict[int, _Fused] = {}
        self._steps = list(self._split(self._compile()))
        self._gathers = [np.array(columns) for columns in self._columns]
        for step in (*self._first.values(), *self._steps):
            if isinstance(step, _Fused):
                step.close(self._kernels)

    def run(self, angles: FloatArray) -> ComplexArray:
        """Branch states, (rows, angles) -> (branches, 2**qubits, rows)."""
        tables = [
            self._table(kernel, columns, angles)
            for kernel, columns in zip(self._kernels, self._gathers, strict=True)
        ]
        columns = [
            self._first[qubit].column(tables) if qubit in self._first else _ZERO
            for qubit in range(self._fragment.num_qubits)
        ]
        states = product_state(columns, len(angles))
        for step in self._steps:
            if isinstance(step, SlotStep):
                operators = self._fragment.slots[step.slot].side.branches
                states = apply_branches(states, operators, step.qubit)
            else:
                matrices = step.matrices(tables)
                apply = apply_real_gate if step.is_real else apply_gate
                states = apply(states, matrices, step.nonzero, step.qubits)
        return states

    @staticmethod
    def _table(kernel: GateKernel, columns: NDArray[np.intp], angles: FloatArray) -> ComplexArray:
        """Matrices of all occurrences of one kind of gate, shape (d, d, occurrences, rows)."""
        gathered = angles.T[columns]  # occurrences, angles of the gate, rows
        flat = gathered.transpose(0, 2, 1).reshape(-1, kernel.num_angles)
        matrices = kernel.matrices(flat)
        return matrices.transpose(1, 2, 0).reshape(*matrices.shape[1:], len(columns), -1)

    def _compile(self) -> Iterator[_Fused | SlotStep]:
        open_runs: dict[int, _Fused] = {}
        for step in self._fragment.steps:
            if isinstance(step, SlotStep):
                open_runs.pop(step.qubit, None)
                yield step
                continue
            part = self._part(step)
            run = open_runs.get(step.qubits[0]) if len(step.qubits) == 1 else None
            if run is not None:
                run.append(part)
                continue
            fused = _Fused(step.qubits, part)
            for qubit in step.qubits:
                open_runs.pop(qubit, None)
            if len(step.qubits) == 1:
                open_runs[step.qubits[0]] = fused
            yield fused

    def _split(self, steps: Iterator[_Fused | SlotStep]) -> Iterator[_Fused | SlotStep]:
        """Takes out one-qubit gates that come first on their qubit: they make a product state."""
        touched: set[int] = set()
        for step in steps:
            qubits = (step.qubit,) if isinstance(step, SlotStep) else step.qubits
            if isinstance(step, _Fused) and len(qubits) == 1 and touched.isdisjoint(qubits):
                self._first[qubits[0]] = step
            else:
                yield step
            touched.update(qubits)

    def _part(self, step: GateStep) -> ComplexArray | tuple[int, int]:
        if not step.angles:
            return np.asarray(step.kernel.coefficients[0])
        if step.kernel not in self._kernels:
            self._kernels.append(step.kernel)
            self._columns.append([])
        number = self._kernels.index(step.kernel)
        self._columns[number].append(step.angles)
        return number, len(self._columns[number]) - 1


_programs: OrderedDict[str, Program] = OrderedDict()
_lock = Lock()
_MOST_PROGRAMS = 1024


def program_of(fragment: Fragment) -> Program:
    """The fragment's program; fragments of the same content share one, in any process."""
    with _lock:
        if fragment.key not in _programs:
            _programs[fragment.key] = Program(fragment)
            if len(_programs) > _MOST_PROGRAMS:
                _programs.popitem(last=False)
        return _programs[fragment.key]
