"""The one way from a study's file to a configuration that can be run: read, typed, checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, named
from ._libraries import pydantic
from .checks import problems_of
from .config import (
    DevicePart,
    ModelPart,
    Part,
    PolicyPart,
    QueriesPart,
    RobustnessPart,
    SpeculationPart,
    StudyConfig,
    TrainingDatasetPart,
    TrainPart,
    VariantPart,
)
from .document import Document, Place, close_to, read_document, scales_of

_PARTS: dict[str, type[Part]] = {
    "model": ModelPart,
    "robustness": RobustnessPart,
    "device": DevicePart,
    "speculation": SpeculationPart,
}
_MEMBERS: dict[str, type[Part]] = {
    "policies": PolicyPart,
    "datasets": TrainingDatasetPart,
    "variants": VariantPart,
}
"""What stands below the keys of a mapping whose own names are free, or in a list."""

_WORDS = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "too_short": "at least one",
    "string_pattern_mismatch": "a name of letters, digits, - and _ that begins with a letter",
}
"""What is expected, by pydantic's name of the error, where its own words do not fit."""

_NUMBERS = (
    (r"[-+]?0[xXoObB][0-9a-fA-F_]+", "a number with digits from 0 to 9 alone"),
    (r"[-+]?0[0-9_]+", "a number without zeros before it"),
    (r"[-+]?[0-9]{19,}", "a number of at most 18 digits"),
    (r"[-+]?[0-9]+(_[0-9]+)+(\.[0-9_]*)?", "a number without `_` in it"),
    (r"[-+]?[0-9]+(:[0-9]+)+(\.[0-9]*)?", "a number without `:` in it"),
)
"""Ways to write numbers that are not taken, with what to give instead."""


@dataclass(frozen=True, eq=False)
class Study:
    """A study at one scale, checked.

    Attributes:
        config: What it consists of.
        scale: The scale's name; None: the file has none.
        document: Where it was read from, for the lines of what is found later.
    """

    config: StudyConfig
    scale: str | None
    document: Document

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that follow from what decides the runs."""
        return content_hash(self.config.deciding())


def content_hash(document: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of a JSON document, whatever the order of its keys.

    Example:
        >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
        True
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_study(source: str | os.PathLike[str], scale: str | None = None) -> Study:
    """Reads a study and checks it whole, its other scales included.

    Args:
        source: "paper", or the path of a YAML file.
        scale: Which scale; None: the file's first, where it has any.

    Raises:
        InputError: The file cannot be read or does not say what a study needs; names file, line,
            key, what was expected and what to do.
        MissingExtraError: pydantic or PyYAML is not installed.
    """
    study = _load(source, scale)
    for other in scales_of(source):
        if other != study.scale:
            _load(source, other)
    return study


def _load(source: str | os.PathLike[str], scale: str | None) -> Study:
    document = read_document(source, scale)
    try:
        config = StudyConfig.model_validate(document.value)
    except pydantic.ValidationError as error:
        found = [_told(document, problem) for problem in error.errors(include_url=False)]
        raise InputError(named(found)) from error
    problems = dict.fromkeys(document.error(*problem) for problem in problems_of(config))
    if problems:
        raise InputError(named([*problems]))
    return Study(config, document.scale, document)


def _told(document: Document, problem: Any) -> str:
    """One of pydantic's findings, with line and remedy."""
    place = tuple(_real(problem["loc"]))
    path = _path(place)
    kind = problem["type"]
    if kind in ("extra_forbidden", "invalid_key"):
        return document.error(place, _unknown_key(problem["loc"], path))
    if kind == "missing":
        return document.error(place[:-1], f"`{path}` is missing: add it")
    if kind.startswith("union_tag"):
        message = f"`{path}` needs `kind`: give `train` or `queries`"
        return document.error((*place, "kind"), message)
    text = f"`{path}` is {_shown(problem['input'])}: give {_expected(problem)}"
    return document.error(place, text)


def _unknown_key(steps: Place, path: str) -> str:
    """What is wrong with a key that is not known there, and what may have been meant."""
    word, known = str(steps[-1]), _known_keys(tuple(_real(steps[:-1])))
    if word not in known:
        hint = close_to(word, known) if known else "remove it"
        return f"`{path}` is no key of a study: {hint}"
    kind = steps[2]  # known, but to the other kind of experiment
    other = "queries" if kind == "train" else "train"
    return f"`{path}` belongs to `kind: {other}`, and this is `kind: {kind}`: remove it"


def _expected(problem: Any) -> str:
    """What belongs there, without the names of our classes."""
    kind = str(problem["type"])
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in ("int_type", "float_type") and isinstance(problem["input"], str):
        hint = _number_hint(problem["input"])
        if hint is not None:
            return hint
    text = str(problem["msg"]).removeprefix("Input should be ").removeprefix("Input should ")
    return f"a value {text}" if kind.startswith(("greater", "less")) else text


def _number_hint(text: str) -> str | None:
    """How to write what people would take for a number, and YAML did not; None: it is none."""
    for pattern, hint in _NUMBERS:
        if re.fullmatch(pattern, text):
            return hint
    try:
        is_number = math.isfinite(float(text))
    except ValueError:
        return None
    exponent = "before an exponent, a point: 1.0e-3, not 1e-3"
    return f"a number, which has no quotes and, {exponent}" if is_number else None


def _real(place: Place) -> Iterator[str | int]:
    """The steps that the file has; pydantic's also name the kind of an experiment."""
    for number, step in enumerate(place):
        if step == "[key]" or (number == 2 and place[0] == "experiments"):
            continue
        yield step


def _path(place: Place) -> str:
    """A place as one reads it, such as `experiments.training.cuts[2]`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _known_keys(place: Place) -> list[str]:
    """The keys of the mapping at a place, where they are fixed."""
    *above, last = ("", *place)
    if last == "":
        parts: tuple[type[Part], ...] = (StudyConfig,)
    elif last in _PARTS:
        parts = (_PARTS[str(last)],)
    elif above[-1] == "experiments":
        parts = (TrainPart, QueriesPart)
    else:
        parts = (_MEMBERS[str(above[-1])],) if above[-1] in _MEMBERS else ()
    return sorted({key for part in parts for key in part.model_fields})


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
