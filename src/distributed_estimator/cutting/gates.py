"""Gate unitaries as functions of their angles, derived from samples rather than tabulated.

Every angle of a gate in Qiskit's standard library enters its unitary through frequencies 0, 1/2
and 1 alone, so five samples an angle determine the unitary everywhere. The same expansion says
which parameter-shift rule an angle obeys. Whether two circuits are the same goes by their gates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import (
    AnnotatedOperation,
    ControlledGate,
    Gate,
    Instruction,
    Operation,
    Parameter,
    ParameterExpression,
    QuantumCircuit,
)
from qiskit.circuit.library import HamiltonianGate, PauliEvolutionGate, UnitaryGate
from qiskit.quantum_info import Operator

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
ComplexArray = NDArray[np.complex128]
BoolArray = NDArray[np.bool_]

MAX_MATRIX_QUBITS = 6
"""Gates on more qubits run through their definition rather than as one matrix."""

_MAX_SYMBOLIC_ANGLES = 4
_NEGLIGIBLE = 1e-12
_SAMPLE_ANGLES = 4 * np.pi * np.arange(5) / 5
# What a matrix element can be made of, and its derivatives.
_WAVES: tuple[Callable[[FloatArray], FloatArray], ...] = (
    np.ones_like,
    lambda x: np.cos(x / 2),
    lambda x: np.sin(x / 2),
    np.cos,
    np.sin,
)
_SLOPES: tuple[Callable[[FloatArray], FloatArray], ...] = (
    np.zeros_like,
    lambda x: np.sin(x / 2) / -2,
    lambda x: np.cos(x / 2) / 2,
    lambda x: -np.sin(x),
    np.cos,
)


@dataclass(frozen=True, eq=False)
class ShiftRule:
    """A parameter-shift rule: ``f'(x) = sum_m weights[m] * f(x + shifts[m])``.

    Two terms for frequency one (Schuld et al. 2019), more for several (Wierichs et al. 2022).
    """

    shifts: tuple[float, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class GateKernel:
    """The unitary of one gate: a constant matrix, or a trigonometric polynomial of its angles.

    Attributes:
        num_qubits: Width of the gate.
        exponents: Shape (terms, angles); which of 1, cos(x/2), sin(x/2), cos(x), sin(x)
            each angle contributes to each term.
        coefficients: Shape (terms, 2**num_qubits, 2**num_qubits).
    """

    num_qubits: int
    exponents: NDArray[np.intp]
    coefficients: ComplexArray
    nonzero: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nonzero", (np.abs(self.coefficients) > 0).any(axis=0))

    @property
    def num_angles(self) -> int:
        """Number of angles; 0 for a constant gate."""
        return int(self.exponents.shape[1])

    def matrices(self, angles: FloatArray) -> ComplexArray:
        """The unitaries, (rows, num_angles) -> (rows, d, d); one row for a constant gate."""
        if not self.num_angles:
            return self.coefficients
        return self._combine(self._factors(angles))

    def derivatives(self, angles: FloatArray, index: int) -> ComplexArray:
        """Partial derivatives of the unitaries by angle `index`, shape (rows, d, d)."""
        factors = self._factors(angles)
        used, place = self._used[index]
        factors[index] = _gather([_SLOPES[e](angles[:, index]) for e in used], place)
        return self._combine(factors)

    @cached_property
    def shift_rules(self) -> tuple[ShiftRule, ...]:
        """The parameter-shift rule of each angle."""
        levels = map(self._levels, range(self.num_angles))
        differences = ({abs(a - b) for a, b in product(own, own)} - {0} for own in levels)
        return tuple(map(_equidistant_rule, differences))

    def _factors(self, angles: FloatArray) -> list[FloatArray]:
        """Per angle, its contribution to each term, shape (terms, rows)."""
        return [
            _gather([_WAVES[e](angles[:, j]) for e in used], place)
            for j, (used, place) in enumerate(self._used)
        ]

    @cached_property
    def _used(self) -> list[tuple[list[int], NDArray[np.intp] | None]]:
        """Per angle, the waves that occur and the place of each term's (None: in order)."""
        used: list[tuple[list[int], NDArray[np.intp] | None]] = []
        for column in self.exponents.T:
            waves, place = np.unique(column, return_inverse=True)
            in_order = np.array_equal(place, np.arange(len(waves)))
            used.append(([int(e) for e in waves], None if in_order else place.reshape(-1)))
        return used

    def _combine(self, factors: list[FloatArray]) -> ComplexArray:
        """(terms, rows) factors to (rows, d, d), laid out so that each element is contiguous."""
        terms = factors[0]
        for factor in factors[1:]:
            terms = terms * factor
        flat = self._columns @ terms
        dim = 1 << self.num_qubits
        return np.asarray(flat.T.reshape(-1, dim, dim), dtype=np.complex128)

    @cached_property
    def _columns(self) -> ComplexArray:
        return np.ascontiguousarray(self.coefficients.reshape(len(self.exponents), -1).T)

    def _levels(self, index: int) -> set[int]:
        """Multiples n of a half for which exp(i n x / 2) occurs in the unitary."""
        others = np.delete(self.exponents, index, axis=1)
        levels: set[int] = set()
        for rest in np.unique(others, axis=0):
            row = np.zeros((5, *self.coefficients.shape[1:]), dtype=np.complex128)
            for position in np.flatnonzero((others == rest).all(axis=1)):
                row[self.exponents[position, index]] += self.coefficients[position]
            for level, (even, odd) in ((1, (1, 2)), (2, (3, 4))):
                for sign in (1, -1):
                    if np.abs(row[even] - 1j * sign * row[odd]).max() > _NEGLIGIBLE:
                        levels.add(sign * level)
            if np.abs(row[0]).max() > _NEGLIGIBLE:
                levels.add(0)
        return levels


def constant_kernel(matrix: ComplexArray) -> GateKernel:
    """A kernel without angles from a unitary of shape (d, d)."""
    matrix = np.asarray(matrix, dtype=np.complex128)
    return GateKernel(matrix.shape[0].bit_length() - 1, np.zeros((1, 0), np.intp), matrix[None])


def kernel_of(operation: Instruction) -> GateKernel | None:
    """The kernel of a gate, or None when it has to be decomposed first.

    A gate is decomposed when it is too wide to hold as a matrix, is defined by a circuit of its
    own, or depends on its angles in a way that five samples each do not determine. So is a
    `PauliEvolutionGate`: its matrix is the exact exponential, but a device runs the product formula
    of its synthesis, as is done where it is cut or its time is not bound yet.
    """
    if isinstance(operation, PauliEvolutionGate) or not isinstance(operation, Gate):
        return None
    if operation.num_qubits > MAX_MATRIX_QUBITS:
        return None
    if any(getattr(p, "parameters", ()) for p in operation.params):
        if len(operation.params) > _MAX_SYMBOLIC_ANGLES or not is_standard(operation):
            return None
        return _fitted_kernel(_GateFamily.of(operation))
    # Qiskit raises CircuitError, TypeError or its own; all mean "no matrix".
    with suppress(Exception):
        return constant_kernel(np.asarray(operation.to_matrix()))
    if definition_of(operation) is None:
        with suppress(Exception):
            return constant_kernel(Operator(operation).data)
    return None


def definition_of(operation: Instruction) -> QuantumCircuit | None:
    """A gate's definition, if it has one; some have one only when their angles are numbers."""
    try:
        return operation.definition
    except Exception:  # a definition may raise anything
        return None


def is_standard(operation: Instruction) -> bool:
    """Whether name, width and angles determine the gate, as in Qiskit's standard library.

    The name of an open-controlled gate holds its control state.
    """
    base = getattr(operation, "base_class", type(operation))
    return bool(base.__module__.startswith("qiskit.circuit.library.standard_gates."))


@dataclass(frozen=True)
class _GateFamily:
    """A gate of any angles, as a cache key: equal for gates that differ in angles alone."""

    operation: Gate = field(compare=False)
    identity: tuple[Any, ...]

    @staticmethod
    def of(operation: Gate) -> _GateFamily:
        control = operation.ctrl_state if isinstance(operation, ControlledGate) else None
        base = getattr(operation, "base_class", type(operation))
        return _GateFamily(operation, (base, operation.name, operation.num_qubits, control))

    def matrix(self, angles: tuple[float, ...]) -> ComplexArray:
        gate = self.operation.to_mutable()
        gate.params = [float(a) for a in angles]
        return np.asarray(gate.to_matrix(), dtype=np.complex128)


@lru_cache(maxsize=256)
def _fitted_kernel(family: _GateFamily) -> GateKernel | None:
    count = len(family.operation.params)
    try:
        samples = [family.matrix(point) for point in product(_SAMPLE_ANGLES, repeat=count)]
    except Exception:  # no matrix for these angles: decompose
        return None
    dim = samples[0].shape[0]
    tensor = np.array(samples).reshape(*(5,) * count, dim, dim)
    inverse = np.linalg.inv(np.stack([wave(_SAMPLE_ANGLES) for wave in _WAVES], axis=1))
    for axis in range(count):
        tensor = np.moveaxis(np.tensordot(inverse, tensor, axes=(1, axis)), 0, axis)
    tensor[np.abs(tensor) < _NEGLIGIBLE] = 0
    exponents = np.argwhere(np.abs(tensor).max(axis=(-1, -2)) > 0)
    kernel = GateKernel(dim.bit_length() - 1, exponents, tensor[tuple(exponents.T)])
    probe = np.array([0.3 + 0.7 * j for j in range(count)])
    error = np.abs(kernel.matrices(probe[None])[0] - family.matrix(tuple(probe))).max()
    return kernel if error < 1e-12 else None


def _gather(waves: list[FloatArray], place: NDArray[np.intp] | None) -> FloatArray:
    stacked = np.array(waves)
    return stacked if place is None else stacked[place]


def _equidistant_rule(differences: set[int]) -> ShiftRule:
    """The rule for expectation frequencies `differences` (in halves)."""
    if not differences:
        return ShiftRule((), ())
    unit = 2 if all(d % 2 == 0 for d in differences) else 1
    order = max(differences) // unit
    scale = unit / 2
    points = (2 * np.arange(1, 2 * order + 1) - 1) * np.pi / (2 * order)
    weights = (-1.0) ** np.arange(2 * order) / (4 * order * np.sin(points / 2) ** 2)
    shifts = np.where(points > np.pi, points - 2 * np.pi, points) / scale
    return ShiftRule(tuple(map(float, shifts)), tuple(map(float, weights * scale)))


# --- whether two circuits are the same: exactly, and before anything is cut -----------------------


def structure_key(circuit: QuantumCircuit) -> str:
    """A content hash of a circuit: its gates, qubits and angles, parameters by name."""
    places = {bit: number for number, bit in enumerate(circuit.qubits)}
    lines = [f"{circuit.num_qubits}"]
    for item in circuit.data:
        qubits = [places[bit] for bit in item.qubits]
        content = "" if item.is_standard_gate() else _content(item.operation)
        lines.append(f"{item.name} {qubits} {[_as_text(p) for p in item.params]} {content}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def gate_key(gate: Instruction) -> str:
    """The content of a gate as text, its symbolic parameters left out."""
    base = getattr(gate, "base_class", type(gate))
    numbers = ["" if getattr(p, "parameters", ()) else _as_text(p) for p in gate.params]
    content = "" if is_standard(gate) else _content(gate)
    return f"{base.__name__} {gate.name} {gate.num_qubits} {numbers} {content}"


def structure_of(circuit: QuantumCircuit) -> list[Any]:
    """The properties that two circuits of one plan share; compared, never hashed.

    Qiskit compares gates to a tolerance, which is no ground to return one circuit's value for
    another's; this compares numbers exactly, and definitions and matrices where gates have any.
    """
    structure = [circuit.num_qubits, circuit.qubits, _exactly(circuit.global_phase)]
    return structure + [
        (i.name, [_exactly(p) for p in i.params], i.qubits)
        if i.is_standard_gate()
        else (_gate_structure(i.operation), i.qubits, i.clbits)
        for i in circuit.data
    ]


def _gate_structure(operation: Operation) -> list[Any]:
    parameters = [_exactly(p) for p in getattr(operation, "params", ())]
    structure: list[Any] = [type(operation), operation.name, parameters]
    if isinstance(operation, AnnotatedOperation):
        return [*structure, operation.modifiers, _gate_structure(operation.base_op)]
    if not isinstance(operation, Instruction):  # a Clifford, say: compares exactly by itself
        return [*structure, operation]
    if isinstance(operation, ControlledGate):
        structure += [operation.ctrl_state, _gate_structure(operation.base_gate)]
    if type(operation) is UnitaryGate:
        return structure
    definition, matrix = definition_of(operation), _matrix(operation)
    if definition is not None:
        structure.append(structure_of(definition))
    # Without either there is nothing to compare but the object itself.
    structure.append(operation if definition is matrix is None else matrix)
    return structure


def _content(operation: Operation) -> str:
    """The content of a gate beyond its name and parameters, as text."""
    if isinstance(operation, AnnotatedOperation):
        base = operation.base_op
        numbers = [_as_text(p) for p in getattr(base, "params", ())]
        return f"{operation.modifiers} {base.name} {numbers} {_content(base)}"
    if isinstance(operation, UnitaryGate | HamiltonianGate):
        return ""  # its parameters are all there is
    if not isinstance(operation, Instruction):
        return repr(operation)
    if isinstance(operation, ControlledGate):
        base = operation.base_gate
        return f"{base.name} {[_as_text(p) for p in base.params]} {_content(base)}"
    matrix = _matrix(operation)
    if matrix is not None:
        return matrix.hex()
    definition = definition_of(operation)
    return "" if definition is None else structure_key(definition)


def _matrix(operation: Instruction) -> bytes | None:
    """The matrix of a gate that brings its own, to the bit."""
    if isinstance(operation, PauliEvolutionGate):  # is its definition
        return None
    if operation.num_qubits > MAX_MATRIX_QUBITS and type(operation) is not UnitaryGate:
        return None
    try:
        return np.asarray(operation.to_matrix()).tobytes()
    except Exception:  # Qiskit raises CircuitError, TypeError or AttributeError
        return None


def _exactly(parameter: Any) -> Any:
    """A gate's parameter as something that is equal to nothing but itself."""
    if isinstance(parameter, np.ndarray):
        return parameter.tobytes()
    if isinstance(parameter, QuantumCircuit):  # what a box holds
        return structure_of(parameter)
    if isinstance(parameter, Parameter) or not isinstance(parameter, ParameterExpression):
        return parameter
    return str(parameter), parameter.parameters


def _as_text(parameter: Any) -> str:
    if isinstance(parameter, QuantumCircuit):
        return structure_key(parameter)
    if isinstance(parameter, ParameterExpression) and not parameter.parameters:
        parameter = parameter.numeric()
    return parameter.tobytes().hex() if isinstance(parameter, np.ndarray) else str(parameter)
