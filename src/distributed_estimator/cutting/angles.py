"""The angles of a circuit's gates as functions of its parameters.

Each angle of each gate occurrence is one column. Affine expressions, which is nearly all of them,
are evaluated for a whole batch at once, term by term: a matrix product would add up in another
order on another processor. The rest are evaluated by walking their expression tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, reduce
from typing import Any, NoReturn

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression

from ..errors import CircuitError, InputError
from .gates import FloatArray, IntArray

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda *args: reduce(np.add, args),
    "Mul": lambda *args: reduce(np.multiply, args),
    "Pow": np.power,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "Abs": np.abs,
    "sign": np.sign,
    "conjugate": np.conjugate,
    "re": np.real,
    "DiracDelta": np.zeros_like,  # the slope of sign(x), away from 0
}


class AngleTable:
    """Angles of gate occurrences, in the order the gates were met.

    Args:
        parameters: The circuit's parameters, in Qiskit's order.
        expressions: One number or expression an angle.
    """

    def __init__(
        self, parameters: Sequence[Parameter], expressions: Sequence[ParameterExpression | float]
    ) -> None:
        self.parameters, self.expressions = tuple(parameters), tuple(expressions)
        self._offsets = np.zeros(len(expressions))
        self._slopes = np.zeros((len(parameters), len(expressions)))
        self._nonlinear: list[int] = []
        self._known: dict[tuple[int, int], Any] = {}
        columns = {p: i for i, p in enumerate(parameters)}
        for k, expression in enumerate(expressions):
            affine = _affine(expression)
            if affine is None:
                self._nonlinear.append(k)
                continue
            self._offsets[k] = affine[0]
            for parameter, slope in affine[1].items():
                self._slopes[columns[parameter], k] = slope

    def evaluate(self, values: FloatArray) -> FloatArray:
        """All angles in radians, (bindings, parameters) -> (bindings, angles).

        Raises:
            InputError: An angle is NaN, infinite or complex at a binding.
        """
        with np.errstate(all="ignore"):  # what overflows is refused below
            angles = np.tile(self._offsets, (len(values), 1))
            for parameters, slopes in zip(*self._terms, strict=True):
                angles += values[:, parameters] * slopes
        for k in self._nonlinear:
            tree = self._trees[k]
            if tree is None:
                angles[:, k] = self._bound(self.expressions[k], values)
            else:
                with np.errstate(all="ignore"):  # what it leaves is refused below
                    angles[:, k] = _walk(tree, self._columns(values))
        if not np.isfinite(angles).all():
            bad = int(np.flatnonzero(~np.isfinite(angles).all(axis=0))[0])
            raise InputError(
                f"the gate angle `{self.expressions[bad]}` is not a finite real number at the "
                "parameter values given: bind others"
            )
        return np.asarray(angles, dtype=np.float64)

    @cached_property
    def _terms(self) -> tuple[IntArray, FloatArray]:
        """Parameters and slopes of each angle's first, second, … term, shape (terms, angles)."""
        most = int(np.count_nonzero(self._slopes, axis=0).max(initial=0))
        parameters = np.argsort(self._slopes == 0, axis=0, kind="stable")[:most]
        return parameters, np.take_along_axis(self._slopes, parameters, axis=0)

    def jacobian(
        self, values: FloatArray, parameters: Sequence[int], angles: Collection[int]
    ) -> FloatArray:
        """Slopes d angle / d parameter of some angles by some parameters, both by number.

        Slopes of other angles are of no meaning, but finite.

        Returns:
            Shape (1, parameters wanted, angles) when every expression is affine, else
            (bindings, parameters wanted, angles).

        Raises:
            InputError: A slope is NaN, infinite or complex at a binding.
        """
        affine = self._slopes[None, list(parameters)]
        nonlinear = [k for k in self._nonlinear if k in angles]
        if not nonlinear:
            return affine
        jacobian = np.repeat(affine, len(values), axis=0)
        for k in nonlinear:
            own = self.depends_on(k)
            for place, parameter in enumerate(parameters):
                if parameter in own:
                    slopes = jacobian[:, place, k] = self._slope(k, parameter, values)
                    if not np.isfinite(slopes).all():
                        self._refuse_slope(k, parameter, values[np.argmin(np.isfinite(slopes))])
        return jacobian

    def _refuse_slope(self, angle: int, parameter: int, row: FloatArray) -> NoReturn:
        name, others = self._names[parameter], sorted(self.depends_on(angle))
        place = ", ".join(f"{self._names[i]} = {row[i]:g}" for i in others)
        raise InputError(
            f"the gate angle `{self.expressions[angle]}` has no finite slope by the parameter "
            f"`{name}` at {place}: bind other values, or leave `{name}` out of the gradient"
        )

    def _slope(self, angle: int, parameter: int, values: FloatArray) -> FloatArray:
        key, name = (angle, parameter), self._names[parameter]
        tree = self._trees[angle]
        if tree is None:
            slope = self.expressions[angle].gradient(self.parameters[parameter])  # type: ignore[union-attr]
            return self._bound(slope, values)
        if key not in self._known:
            from sympy import Symbol

            self._known[key] = tree.diff(Symbol(name, real=True))
        with np.errstate(all="ignore"):  # what it leaves is refused by the caller
            return np.asarray(_walk(self._known[key], self._columns(values)))

    def depends_on(self, angle: int) -> frozenset[int]:
        """Indices of the parameters that `angle` is a function of."""
        expression = self.expressions[angle]
        names = {p.name for p in getattr(expression, "parameters", ())}
        return frozenset(i for i, name in enumerate(self._names) if name in names)

    @cached_property
    def _names(self) -> list[str]:
        return [p.name for p in self.parameters]

    @cached_property
    def _trees(self) -> dict[int, Any]:
        return {k: _tree(self.expressions[k]) for k in self._nonlinear}

    def _bound(self, expression: Any, values: FloatArray) -> FloatArray:
        """An expression at every row, one by one, with Qiskit's own arithmetic; NaN if it fails."""
        chosen = [p for p in self.parameters if p in getattr(expression, "parameters", ())]
        columns = [self.parameters.index(p) for p in chosen]
        if not chosen:
            return np.full(len(values), _number(expression))
        rows = values[:, columns].tolist()
        return np.array(
            [_number_at(expression, dict(zip(chosen, row, strict=True))) for row in rows]
        )

    def _columns(self, values: FloatArray) -> dict[str, FloatArray]:
        return dict(zip(self._names, values.T, strict=True))


def _tree(expression: Any) -> Any:
    """The expression as SymPy has it; None without SymPy, or where Qiskit cannot translate it."""
    try:
        from sympy import Symbol

        tree = expression.sympify()
        # Real symbols, as the slopes of |x| and sign(x) need.
        return tree.xreplace({s: Symbol(s.name, real=True) for s in tree.free_symbols})
    except Exception:  # Qiskit's MissingOptionalLibraryError, or any error of the translation
        return None


def _affine(expression: ParameterExpression | float) -> tuple[float, dict[Parameter, float]] | None:
    """Offset and slopes of an affine expression; None for any other."""
    if not isinstance(expression, ParameterExpression):
        return float(expression), {}
    slopes: dict[Parameter, float] = {}
    for parameter in expression.parameters:
        try:
            slope = expression.gradient(parameter)
            slopes[parameter] = _number(slope)
        except (TypeError, ValueError, RuntimeError):
            return None
    try:
        return _number(expression.bind(dict.fromkeys(expression.parameters, 0.0))), slopes
    except ZeroDivisionError:  # x * x / x
        return None


def _number(value: ParameterExpression | complex) -> float:
    number = complex(value.numeric() if isinstance(value, ParameterExpression) else value)
    if number.imag:
        raise CircuitError(f"a gate angle is the complex number {number}: angles have to be real")
    return number.real


def _number_at(expression: Any, values: dict[Parameter, float]) -> float:
    try:
        return _number(expression.bind(values))
    except (ArithmeticError, RuntimeError, CircuitError):  # infinite, NaN, complex
        return math.nan


def _walk(node: Any, columns: dict[str, FloatArray]) -> Any:
    """Evaluate a SymPy tree on columns of numbers, without generating code from it."""
    if node.is_Symbol:
        return columns[node.name]
    if node.is_number:
        return _number(complex(node))
    name = type(node).__name__
    if name not in _FUNCTIONS:
        raise CircuitError(
            f"the parameter expression `{node}` uses `{name}`, which is not supported"
        )
    return _FUNCTIONS[name](*(_walk(argument, columns) for argument in node.args))


def check_values(values: FloatArray, parameters: Sequence[Parameter]) -> None:
    """Raise `InputError` unless `values` is a finite (bindings, parameters) array."""
    if values.shape[-1] != len(parameters):
        raise InputError(
            f"{values.shape[-1]} parameter values were given, the circuit has {len(parameters)}: "
            "give one value per parameter"
        )
    if not np.isfinite(values).all():
        rows = values.reshape(-1, len(parameters))
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=0))[0])
        raise InputError(
            f"parameter `{parameters[bad].name}` is NaN or infinite: bind finite numbers only"
        )
