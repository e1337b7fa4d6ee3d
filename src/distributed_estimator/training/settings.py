"""Configurations whose fields declare type, bounds and help once.

A `Config` is a frozen dataclass. msgspec reads the annotations of its fields, such as `Count` or
`Annotated[float, Meta(gt=0)]`; their help stands in the class's docstring, under "Attributes:".
Both serve Python (a constructor checks its arguments), files (`Reader`) and the command line
(`cli._options` makes an option of each field).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from inspect import cleandoc
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from ..checks import MOST_WORKERS
from ..errors import InputError, close_to, named, shortened

Place = tuple[str | int, ...]
"""Keys and positions from the root of a document to a value."""

Problem = tuple[Place, str]
"""Where something is wrong, and what, with what to do."""

ConfigT = TypeVar("ConfigT")
_KEPT = ("gt", "ge", "lt", "le", "min_length", "title", "description", "extra")
"""Parts of an annotation that messages, help and options use."""

_HELP = re.compile(r"^ {4}(\w+): (.*(?:\n {6}.*)*)", re.MULTILINE)
"""A line of a docstring's "Attributes:", with those that go on with it."""

Count = Annotated[int, Meta(ge=1, le=10**9)]
Shots = Annotated[int, Meta(ge=1, le=10**12)]
Workers = Annotated[int, Meta(ge=1, le=MOST_WORKERS)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
"""A seed that every library takes."""


def about(text: str | None = None, option: str | None = None, metavar: str | None = None) -> Meta:
    """A field's help, where it does not stand in the docstring; name and value of its option."""
    given = {"option": option, "metavar": metavar}
    extra = {name: each for name, each in given.items() if each is not None}
    return Meta(description=text, extra=extra or None)


class Config:
    """Base of configurations; constructors raise `InputError` for values out of bounds."""

    def __post_init__(self) -> None:
        reader = Reader()
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            kinds = _classes(hint)
            if kinds and isinstance(value, Mapping):
                raise InputError(f"`{name}` is {shortened(value)}: give a {' or '.join(kinds)}")
            found = reader.read(hint, value, (name,))
            if isinstance(value, list):
                object.__setattr__(self, name, found)
        reader.check()

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document; where a part has a `kind`, that is its class."""
        found: dict[str, Any] = _plain(type(self), self)
        return found


class Reader:
    """Makes configurations of plain data, and keeps all that is wrong with it.

    Args:
        null: The word for None in messages.

    Attributes:
        problems: In the order of the data.
    """

    def __init__(self, null: str = "None") -> None:
        self.problems: list[Problem] = []
        self._null = null

    def check(self) -> None:
        """Raises `InputError` if anything is wrong."""
        if self.problems:
            raise InputError(named([message for _, message in self.problems]))

    def read(self, hint: Any, value: Any, place: Place = ()) -> Any:
        """The value as its annotation has it; what is wrong with it becomes a problem."""
        if value is None and NoneType in alternatives(hint):
            return None
        if classes := _classes(hint):
            return self._object(classes, value, place)
        form = _open_form(hint)
        if form is None:
            return self._scalar(hint, value, place)
        kinds = Mapping if get_origin(form) is dict else list | tuple
        if not isinstance(value, kinds) or (not value and meta(hint).min_length):
            return self._refuse(value, place, f"give {expected(hint, value)}")
        item, *rest = get_args(form)
        if not isinstance(value, Mapping):
            return tuple(self.read(item, each, (*place, i)) for i, each in enumerate(value))
        found = {}
        for key, each in value.items():
            known = self.read(item, key, (*place, key))
            found[known] = self.read(rest[0], each, (*place, key))
        return found

    def _scalar(self, hint: Any, value: Any, place: Place) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = int(value) if isinstance(value, int) else float(value)  # as of NumPy's floats
        try:
            found = msgspec.convert(value, hint)
        except msgspec.ValidationError:
            return self._refuse(value, place, f"give {expected(hint, value)}")
        return found + 0.0 if isinstance(found, float) else found  # -0.0 is 0.0

    def _object(self, classes: Mapping[str, Any], value: Any, place: Place) -> Any:
        if isinstance(value, tuple(classes.values())):
            return value
        if not isinstance(value, Mapping):
            return self._refuse(value, place, "give a mapping")
        left, before = dict(value), len(self.problems)
        kind = left.pop("kind", None) if len(classes) > 1 else next(iter(classes))
        if not (isinstance(kind, str) and kind in classes):
            names = " or ".join(f"`{name}`" for name in classes)
            self.problems.append(((*place, "kind"), f"`{path(place)}` needs `kind`: give {names}"))
            return value
        known = hints(classes[kind])
        for key in [key for key in left if key not in known]:
            self.problems.append(((*place, key), _unknown(key, (*place, key), kind, classes)))
            del left[key]
        for field in fields(classes[kind]):
            is_required = field.default is MISSING and field.default_factory is MISSING
            if is_required and field.name not in left:
                self.problems.append((place, f"`{path((*place, field.name))}` is missing: add it"))
        made = {}
        for name, item in left.items():
            found = self.read(known[name], item, (*place, name))
            # Classes of others keep a number as it was written, as it may be part of a name.
            is_kept = found == item and not issubclass(classes[kind], Config)
            made[name] = item if is_kept else found
        if len(self.problems) > before:
            return value
        try:
            return classes[kind](**made)
        except InputError as error:
            self.problems.append((place, str(error)))
            return value

    def _refuse(self, value: Any, place: Place, remedy: str) -> Any:
        shown = self._null if value is None else shortened(value)
        self.problems.append((place, f"`{path(place)}` is {shown}: {remedy}"))
        return value


def from_dict(kind: type[ConfigT], document: Any) -> ConfigT:
    """The configuration that `as_dict` wrote, by this release or an older one.

    Fields that came later have the default that stands for what was done before.

    Raises:
        InputError: A field is unknown or out of range.
    """
    reader = Reader()
    found: ConfigT = reader.read(kind, document)
    reader.check()
    return found


def _hints(kind: Any) -> dict[str, Any]:
    found = get_type_hints(kind, include_extras=True)
    helps: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        _, _, section = cleandoc(each.__doc__ or "").partition("\nAttributes:\n")
        section = re.split(r"\n(?=\S)", section)[0]
        helps |= {name: " ".join(text.split()) for name, text in _HELP.findall(section)}
    return {
        field.name: Annotated[found[field.name], Meta(description=helps[field.name])]
        if field.name in helps
        else found[field.name]
        for field in fields(kind)
    }


hints: Callable[[Any], dict[str, Any]] = cache(_hints)
"""The annotations of a dataclass's fields with their help, by name."""


@cache
def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that an annotation allows, without their bounds."""
    if get_origin(hint) is Annotated:
        return alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(form for part in get_args(hint) for form in alternatives(part))
    return (hint,)


@cache
def meta(hint: Any) -> Meta:
    """Bounds and help of an annotation, of those of its parts that have some."""
    found: dict[str, Any] = {}
    for each in _metas(hint):
        found |= {name: getattr(each, name) for name in _KEPT if getattr(each, name) is not None}
    return Meta(**found)


def expected(hint: Any, value: Any = None) -> str:
    """What belongs where an annotation stands, for a message.

    Example:
        >>> expected(Seed), expected(Literal["a", "b"]), expected(Annotated[float, Meta(gt=0)])
        ('a whole number of at least 0 and below 4294967296', 'one of a, b', 'a number above 0')
    """
    bounds = meta(hint)
    forms = [form for form in alternatives(hint) if form is not NoneType]
    kind = get_origin(forms[0]) or forms[0]
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        text = bounds.title or noun + _range(bounds)
        return text + (number_hint(value) if isinstance(value, str) else "")
    if bounds.title:
        return bounds.title
    if kind is Literal:
        choices = [str(choice) for form in forms for choice in get_args(form)]
        return f"one of {', '.join(choices)}"
    if kind in (tuple, dict):
        if isinstance(value, list | tuple | dict) and not value:
            return "at least one"
        return f"a list, each {expected(get_args(forms[0])[0])}" if kind is tuple else "a mapping"
    return {bool: "true or false", str: "text"}[kind]


def number_hint(text: str) -> str:
    """What may be wrong with a text that stands in the place of a number; empty: it is none."""
    plain = text.replace("_", "").replace(":", "")
    try:
        float(plain) if plain[:2].lower() not in ("0x", "0o", "0b") else int(plain, 0)
    except ValueError:
        return ""
    return (
        ", without quotes, in digits from 0 to 9 (at most 18, none of them a zero before others) "
        "and with a point before an exponent: 1.0e-3, not 1e-3"
    )


def path(place: Place) -> str:
    """A place as one reads it, such as `experiments.training.cuts[2]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return "".join(steps).removeprefix(".")


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested documents, under dotted names.

    Example:
        >>> list(flat({"model": {"reps": 2}, "cuts": [1]}))
        [('model.reps', 2), ('cuts', [1])]
    """
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _plain(hint: Any, value: Any) -> Any:
    """A value for JSON, under the annotation of its place."""
    if is_dataclass(value):
        kind = {"kind": _kind(type(value))} if len(_classes(hint)) > 1 else {}
        parts = hints(type(value)).items()
        return kind | {name: _plain(each, getattr(value, name)) for name, each in parts}
    form = _open_form(hint)
    if isinstance(value, Mapping):
        return {str(key): _plain(get_args(form)[1], item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(get_args(form)[0] if form else Any, item) for item in value]
    return value


@cache
def _classes(hint: Any) -> dict[str, Any]:
    """The configurations that an annotation allows, by what tells them apart."""
    return {_kind(form): form for form in alternatives(hint) if is_dataclass(form)}


def _kind(kind: Any) -> str:
    """What tells a class from others that may stand in the same place."""
    return str(getattr(kind, "KIND", kind.__name__))


@cache
def _open_form(hint: Any) -> Any:
    """Of an annotation's types the mapping, or the list of any length; None: it has none."""
    for form in alternatives(hint):
        if get_origin(form) is dict or (get_origin(form) is tuple and get_args(form)[-1] is ...):
            return form
    return None


def _metas(hint: Any) -> Iterator[Meta]:
    if get_origin(hint) in (Annotated, Union, UnionType):
        first, *rest = get_args(hint)
        yield from _metas(first)
        for part in rest:
            yield from (part,) if isinstance(part, Meta) else _metas(part)


def _unknown(key: Any, place: Place, kind: str, classes: Mapping[str, Any]) -> str:
    others = [name for name, each in classes.items() if key in hints(each)]
    if others:
        return (
            f"`{path(place)}` belongs to `kind: {others[0]}`, and this is `kind: {kind}`: remove it"
        )
    return f"`{path(place)}` is no known key: {close_to(str(key), sorted(hints(classes[kind])))}"


def _range(bounds: Meta) -> str:
    words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = {word: getattr(bounds, name) for name, word in words.items()}
    texts = [
        f"{word} {limit if isinstance(limit, int) else format(limit, 'g')}"
        for word, limit in limits.items()
        if limit is not None
    ]
    return " " + " and ".join(texts) if texts else ""
