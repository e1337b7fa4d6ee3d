"""What is observed of a model, as text: a name such as z_mean, or a Pauli sum."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import isfinite

from qiskit.quantum_info import SparsePauliOp

from ..errors import InputError, ObservableError

MOST_CHARACTERS = 10_000
"""Of a text. A sum longer than that is better built in Python."""

_FORMS = "z_all, z_one, z_<qubit>, z_mean, z_each or a Pauli sum such as 0.5*ZZII + 0.5*IIZZ"
_ONE_Z = re.compile(r"z_([0-9]{1,6})")
# No two parts that stand side by side match the same characters, so nothing is tried twice.
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PAULIS = rf"(?:{_NUMBER} ?\* ?)?[IXYZ]+"
_PAULI_SUM = re.compile(rf"(?:[+-] ?)?{_PAULIS}(?: ?[+-] ?{_PAULIS})*")
_PAULI_TERM = re.compile(rf"([+-]?) ?(?:({_NUMBER}) ?\* ?)?([IXYZ]+)")

_NAMED: dict[str, Callable[[int], tuple[SparsePauliOp, ...]]] = {
    "z_all": lambda width: (SparsePauliOp("Z" * width),),
    "z_one": lambda width: (_z_on([width - 1], width),),
    "z_mean": lambda width: (_z_on(range(width), width) / width,),
    "z_each": lambda width: tuple(_z_on([qubit], width) for qubit in range(width)),
}


def check_observable(text: object) -> None:
    """Raises InputError unless `text` says what to observe, for some number of qubits.

    Example:
        >>> check_observable("0.5*ZZII + 0.5*IIZZ")
    """
    if not isinstance(text, str):
        raise InputError(f"`observable` is {text!r}: give {_FORMS}")
    if text not in _NAMED and not _ONE_Z.fullmatch(text):
        _pauli_sum(text)


def read_observables(text: str, width: int) -> tuple[SparsePauliOp, ...]:
    """What `text` names on `width` qubits, one observable an output.

    Raises:
        ObservableError: It is no observable, or none of so many qubits.

    Example:
        >>> [observable.paulis.to_labels() for observable in read_observables("z_each", 2)]
        [['IZ'], ['ZI']]
    """
    if text in _NAMED:
        return _NAMED[text](width)
    one = _ONE_Z.fullmatch(text)
    if one is None:
        return (_fitting(text, width),)
    qubit = int(one[1])
    if qubit >= width:
        raise ObservableError(
            f"`observable` is {text}, the circuit has {width} qubits: name one of z_0 to "
            f"z_{width - 1}"
        )
    return (_z_on([qubit], width),)


def _z_on(qubits: Iterable[int], width: int) -> SparsePauliOp:
    return SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0) for qubit in qubits], width)


def _fitting(text: str, width: int) -> SparsePauliOp:
    terms = _pauli_sum(text)
    letters = len(next(iter(terms)))
    if letters != width:
        raise ObservableError(
            f"`observable` is {text}, with {letters} letters a term, the circuit has {width} "
            "qubits: give one Pauli letter per qubit"
        )
    return SparsePauliOp(list(terms), list(terms.values()))


def _pauli_sum(text: str) -> dict[str, float]:
    """Weights by Pauli string, like terms added up."""
    terms: dict[str, float] = {}
    for sign, number, letters in _PAULI_TERM.findall(_plain(text)):
        terms[letters] = terms.get(letters, 0.0) + float(f"{sign}{number or 1}")
    if len({len(letters) for letters in terms}) > 1:
        raise ObservableError(
            f"`observable` is {text!r}, with terms of different lengths: give each term one Pauli "
            "letter per qubit"
        )
    if not all(map(isfinite, terms.values())) or not any(terms.values()):
        raise ObservableError(
            f"`observable` is {text!r}, which is zero or infinite: give finite weights, not all 0"
        )
    return {letters: weight for letters, weight in terms.items() if weight}


def _plain(text: str) -> str:
    """A Pauli sum with single spaces; raises ObservableError if it is none, or too long."""
    if len(text) > MOST_CHARACTERS:
        raise ObservableError(
            f"`observable` has {len(text)} characters, {MOST_CHARACTERS} is the limit: give a "
            "shorter Pauli sum"
        )
    plain = " ".join(text.split())
    if not _PAULI_SUM.fullmatch(plain):
        raise ObservableError(
            f"`observable` is {text!r}: give {_FORMS}, with real weights before a * and the "
            "letters I, X, Y, Z"
        )
    return plain
