"""Observables from a file: lines of text, or JSON.

The forms are those in which people have Pauli sums: a coefficient and a Pauli string a line, what
`SparsePauliOp.to_list()` gives, or an object of coefficients by Pauli string.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any, TypeAlias

from qiskit.quantum_info import SparsePauliOp

from ..errors import ObservableError, shortened

MAX_TERMS = 200_000
_SEPARATOR = "---"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_Terms: TypeAlias = list[tuple[str, str, Any]]
"""Of each term, its place in the file, Pauli string and coefficient."""


def parse_observables(content: bytes, width: int) -> tuple[SparsePauliOp, ...]:
    r"""The observables that the content of a file holds.

    Text has a term a line, `0.5 ZZII`, the coefficient before or after the Pauli string, or left
    out for 1; `#` begins a comment, and a line `---` the next observable. JSON has an observable as
    an object of coefficients by Pauli string, as a list of pairs of both, or as a Pauli string; a
    list of these holds several.

    Raises:
        ObservableError: It holds none, or one on another number of qubits than `width`.

    Example:
        >>> [o.to_list() for o in parse_observables(b"0.5 ZI\n-1 XX  # a term\n---\nYY\n", 2)]
        [[('ZI', (0.5+0j)), ('XX', (-1+0j))], [('YY', (1+0j))]]
        >>> [o.to_list() for o in parse_observables(b'[["ZI", 0.5], ["XX", -1]]', 2)]
        [[('ZI', (0.5+0j)), ('XX', (-1+0j))]]
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ObservableError(f"is no text: {error.reason}") from error
    found = _from_json(text) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    observables = tuple(_sum_of(terms, width) for terms in found)
    if not observables:
        raise ObservableError("holds no observable: give a line such as `0.5 ZZII` for each term")
    return observables


def _from_lines(text: str) -> Iterator[_Terms]:
    terms: _Terms = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line == _SEPARATOR:
            if terms:
                yield terms
            terms = []
        elif line:
            words = line.replace("*", " ").split()
            # The coefficient may follow.
            if len(words) == 2 and (not words[1].strip("IXYZ") or words[0].strip(_LETTERS)):
                words.reverse()
            if not 1 <= len(words) <= 2:
                raise ObservableError(
                    f"has `{shortened(line)}` in line {number}: give a coefficient and a Pauli "
                    "string, such as `0.5 ZZII`"
                )
            terms.append((f"line {number}", words[0], words[1] if len(words) == 2 else 1.0))
    if terms:
        yield terms


def _from_json(text: str) -> Iterator[_Terms]:
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except ObservableError:
        raise
    except (ValueError, RecursionError) as error:
        raise ObservableError(f"begins as JSON does and is none: {error}") from error
    several = isinstance(document, list) and not all(map(_is_pair, document))
    for number, entry in enumerate(document if several else [document], 1):
        place = f"observable {number}"
        if isinstance(entry, str):
            yield [(place, entry, 1.0)]
        elif isinstance(entry, dict):
            yield [(place, str(name), weight) for name, weight in entry.items()]
        elif isinstance(entry, list) and entry and all(map(_is_pair, entry)):
            yield [(place, name, weight) for name, weight in entry]
        else:
            raise ObservableError(
                f"has {shortened(entry)} as {place}: give an object of coefficients by Pauli "
                'string, {"ZZII": 0.5}, or a list of pairs, [["ZZII", 0.5]]'
            )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of coefficients of one string, `json` would keep the last alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ObservableError(
            f"has {shortened(twice)} more than once in an object: add its coefficients up, or give "
            "a list of pairs"
        )
    return found


def _is_pair(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], int | float)
    )


def _sum_of(terms: _Terms, width: int) -> SparsePauliOp:
    if len(terms) > MAX_TERMS:
        raise ObservableError(
            f"has an observable of {len(terms)} terms, the most that is read is {MAX_TERMS}"
        )
    total: dict[str, float] = {}
    for place, name, weight in terms:
        if name.strip("IXYZ") or len(name) != width:
            raise ObservableError(
                f"has the Pauli string `{shortened(name)}` ({place}): give {width} letters I, X, Y "
                "and Z, one per qubit, the rightmost for qubit 0"
            )
        try:
            number = complex(weight)
        except (TypeError, ValueError, OverflowError):
            number = complex("nan")
        if number.imag or not isfinite(number.real):
            raise ObservableError(
                f"has the coefficient `{shortened(weight)}` ({place}): give a finite real number"
            )
        total[name] = total.get(name, 0.0) + number.real
    if not any(total.values()):
        raise ObservableError(
            "has an observable that is zero: give coefficients whose sum is not 0"
        )
    return SparsePauliOp(list(total), list(total.values()))
