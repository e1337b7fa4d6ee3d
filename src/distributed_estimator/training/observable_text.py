"""What is observed of a model, as text: a name such as z_mean, or a Pauli sum."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import isfinite

from qiskit.quantum_info import SparsePauliOp

from ..errors import InputError, ObservableError, shortened

_FORMS = "z_all, z_one, z_<qubit>, z_mean, z_each or a Pauli sum such as 0.5*ZZII - IIXX"
_ONE_Z = re.compile(r"z_([0-9]{1,6})")
# Every character can begin one kind of token only, so that a text takes time in its length.
_TOKEN = re.compile(
    r"\s*(?:(?P<weight>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<letters>[IXYZ]+)|(?P<sign>[+-])|(?P<times>\*)|(?P<other>\w+|\S)|(?P<end>\Z))"
)
_NEXT = {  # a term may have a sign of its own: ZZ + -0.5*XX
    "term": ("sign", "weight", "letters"),
    "signed": ("weight", "letters"),
    "weight": ("times",),
    "times": ("letters",),
    "letters": ("sign", "end"),
    "end": ("end",),
}
_LETTERS = "a string of the letters I, X, Y, Z"
_EXPECTED = {
    "term": f"a real weight or {_LETTERS}",
    "signed": f"a real weight or {_LETTERS}",
    "weight": "`*`",
    "times": _LETTERS,
    "letters": "`+`, `-` or the end",
}

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
    text = text.strip()
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
    text = text.strip()
    if text in _NAMED:
        return _NAMED[text](width)
    one = _ONE_Z.fullmatch(text)
    if one is None:
        return (_fitting(text, width),)
    qubit = int(one[1])
    if qubit >= width:
        raise ObservableError(
            f"the observable {text} is not on the circuit's {width} qubits: name one of z_0 to "
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
            f"the observable {shortened(text)} acts on {letters} qubits, the circuit has {width}: "
            "give one Pauli letter per qubit"
        )
    return SparsePauliOp(list(terms), list(terms.values()))


def _pauli_sum(text: str) -> dict[str, float]:
    """Weights by Pauli string, like terms added up."""
    terms: dict[str, float] = {}
    factor, state = 1.0, "term"
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind not in _NEXT[state]:
            raise _unread(text, match, _EXPECTED[state])
        if kind == "sign":
            factor *= float(f"{match[kind]}1")
            state = "term" if state == "letters" else "signed"
            continue
        if kind == "weight":
            factor *= float(match[kind])
            if not isfinite(factor):
                raise _unread(text, match, "a finite weight")
        elif kind == "letters":
            letters, width = match[kind], len(next(iter(terms), match[kind]))
            if len(letters) != width:
                raise _unread(text, match, f"{width} letters, as in the first term")
            terms[letters] = terms.get(letters, 0.0) + factor
            factor = 1.0
        state = kind
    if not any(terms.values()):
        raise ObservableError(
            f"the observable {shortened(text)} is zero: give weights that are not 0 and do not "
            "cancel"
        )
    return {letters: weight for letters, weight in terms.items() if weight}


def _unread(text: str, match: re.Match[str], expected: str) -> ObservableError:
    kind = str(match.lastgroup)
    found = f"`{match[kind][:20]}`" if match[kind] else "the end"
    return ObservableError(
        f"the observable {shortened(text)} has {found} as character {match.start(kind) + 1}, "
        f"where {expected} is expected: give {_FORMS}"
    )
