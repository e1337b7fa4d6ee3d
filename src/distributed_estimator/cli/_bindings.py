"""Values of a circuit's parameters: numbers and formulas, from options, CSV and JSON."""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..cutting import FloatArray
from ..errors import InputError, shortened
from ..views import counted
from ._files import named_file, read_bytes

_Row: TypeAlias = tuple[str, Mapping[str, Any] | Sequence[Any]]
"""The place of a binding, and its values by name or in order."""

_FORMULA = re.compile(r"[0-9.eEpitauπ+\-*/() ]{1,200}")
"""Letters that numbers and constants are made of: none of Python's words."""
_CONSTANTS = {"pi": math.pi, "π": math.pi, "tau": math.tau, "e": math.e}
_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_EXPECTED = "give a finite number or a formula in radians, such as 0.5, pi/2 or -3*pi/4"
_MOST_NAMES = 8


def number(text: str) -> float:
    """The number that a text is: itself, or a formula.

    Formulas have numbers, pi, tau, e, `+ - * / **` and parentheses.

    Raises:
        ValueError: It is none, or not finite.

    Example:
        >>> number("0.5"), number("-3*pi/4"), number("2**-1")
        (0.5, -2.356194490192345, 0.5)
    """
    try:
        found: Any = float(text)
    except ValueError:
        if not _FORMULA.fullmatch(text):
            raise
        try:
            found = _value(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
            raise ValueError(str(error)) from error
    if not (isinstance(found, float) and math.isfinite(found)):  # roots of negative ones are none
        raise ValueError("not finite")
    return found


def _value(node: ast.AST) -> Any:
    """The value of a formula; numbers are floats, so that no power fills the memory."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.operand))
    raise ValueError("no formula")


def read_bindings(
    values: Sequence[str], parameters: Sequence[str], names: Sequence[str]
) -> FloatArray:
    """Bindings from `--values` and `--parameter`.

    Args:
        values: Each a list of numbers in the circuit's order, or a file as `@FILE` or `-`, of CSV
            or JSON, with a binding a row.
        parameters: `NAME=VALUE`, the same in every binding.
        names: The circuit's parameters, in its order.

    Returns:
        Shape (bindings, parameters), NaN where a parameter has no value; one binding where there
        are no `values`.

    Raises:
        InputError: A text is no value, a name none of the circuit's, or a row too short or long.
    """
    fixed = _named_values(parameters, names)
    if not values:
        return np.array([[fixed.get(name, np.nan) for name in names]]).reshape(1, len(names))
    if not names:
        raise InputError("`--values` is given, and the circuit has no parameters: leave it out")
    rows = [row for text in values for row in _rows_of(text, names)]
    found = np.full((len(rows), len(names)), np.nan)
    for line, (place, row) in zip(found, rows, strict=True):
        given = row if isinstance(row, Mapping) else _in_order(row, place, names, fixed)
        twice = sorted(fixed.keys() & given.keys())
        if twice:
            raise InputError(
                f"{place} gives {twice[0]}, and so does `--parameter`: give it with one of them"
            )
        numbers = fixed | {name: _cell(given[name], place, name) for name in given}
        line[:] = [numbers.get(name, np.nan) for name in names]
    return found


def shown_names(names: Sequence[str]) -> str:
    """Names for a message, the first of them where there are many."""
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def _in_order(
    row: Sequence[Any], place: str, names: Sequence[str], fixed: Mapping[str, float]
) -> dict[str, Any]:
    """A row without names, of the parameters that have no value of their own."""
    free = [name for name in names if name not in fixed]
    if len(row) != len(free):
        raise InputError(
            f"{place} has {counted(len(row), 'value')}, and there are "
            f"{counted(len(free), 'parameter')}: give one for each, in this order: "
            f"{shown_names(free)}"
        )
    return dict(zip(free, row, strict=True))


def _cell(value: Any, place: str, name: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError("no number")
        return number(str(value))
    except ValueError as error:
        raise InputError(f"{place}, {name}: {shortened(value)} is no value; {_EXPECTED}") from error


def _named_values(texts: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Numbers by name, from `NAME=VALUE`; raises `InputError` for any that does not fit."""
    pairs = []
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not (name and separator):
            raise InputError(
                f"`--parameter {text}` cannot be read: give NAME=VALUE, such as theta=pi/2"
            )
        pairs.append((name, _cell(value, f"`--parameter {text}`", name)))
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"`--parameter` gives {', '.join(twice)} more than once: give each once")
    _check_known([name for name, _ in pairs], "`--parameter`", names)
    return dict(pairs)


def _check_known(given: Sequence[str], where: str, names: Sequence[str]) -> None:
    unknown = sorted(set(given).difference(names))
    if unknown:
        raise InputError(
            f"{where} names {shown_names(unknown)}, the circuit's parameters are: "
            f"{shown_names(names) or 'none'}"
        )


def _rows_of(text: str, names: Sequence[str]) -> Iterator[_Row]:
    """The bindings that one `--values` gives."""
    path = named_file(text)
    if path is None:
        yield f"`--values {shortened(text)[1:-1]}`", text.split(",")
        return
    try:
        content = read_bytes(path, "a CSV or JSON file of values", "fewer rows")
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is no text: {error.reason}") from error
    except InputError as error:
        raise InputError(f"`{path}` {error}") from error
    is_json = decoded.lstrip()[:1] in ("{", "[")
    rows = list((_from_json if is_json else _from_csv)(decoded, str(path), names))
    if not rows:
        raise InputError(f"`{path}` holds no values: give a row for each binding")
    yield from rows


def _from_csv(text: str, path: str, names: Sequence[str]) -> Iterator[_Row]:
    """Rows of a CSV file; the first may name the columns."""
    try:
        lines = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text))]
    except csv.Error as error:
        raise InputError(f"`{path}` is no readable CSV: {error}") from error
    lines = [line for line in lines if len(line) > 1 or any(line)]  # `,` has values missing
    columns: Sequence[str] | None = None
    if lines and _is_header(lines[0], names):
        columns = lines.pop(0)
        _check_columns(columns, f"`{path}`", names)
    for count, line in enumerate(lines, 1):
        place = f"`{path}`, row {count}"
        if columns is not None and len(line) != len(columns):
            raise InputError(
                f"{place} has {counted(len(line), 'value')}, and the first line names "
                f"{counted(len(columns), 'column')}: give one for each"
            )
        yield place, line if columns is None else dict(zip(columns, line, strict=True))


def _is_header(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a first row has names: those of the circuit, or at least no numbers."""
    return set(cells) <= set(names) or not any(map(_is_number, cells))


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _check_columns(columns: Sequence[str], where: str, names: Sequence[str]) -> None:
    _check_known(columns, f"the first line of {where}", names)
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"the first line of {where} names {twice[0]} more than once")


def _from_json(text: str, path: str, names: Sequence[str]) -> Iterator[_Row]:
    """Rows of a JSON document: a binding, or a list of some, each an object or a list."""
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except InputError as error:
        raise InputError(f"`{path}` {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{path}` begins as JSON does and is none: {error}") from error
    several = isinstance(document, list) and all(isinstance(each, list | dict) for each in document)
    for count, row in enumerate(document if several else [document], 1):
        place = f"`{path}`, row {count}"
        if isinstance(row, dict):
            _check_known(list(row), place, names)
        yield place, row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of values of one parameter, `json` would keep the last alone."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"gives {shortened(twice[0])} more than once in an object: give it once")
    return dict(pairs)
