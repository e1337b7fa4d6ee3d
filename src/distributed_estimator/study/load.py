"""From a study's YAML file to a configuration that can be run: read, merged with a scale, checked.

YAML is data alone here: no tags, no aliases, no merging, and numbers in the usual digits only. YAML
1.1 has more in store: 0100 for 64, 1:30 for 90, dates, `<<`. These are texts, which are refused
where a number has to stand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, ClassVar

from ..errors import InputError, MissingExtraError, named
from ..records import given_path
from ..training.settings import Place, Reader, close_to
from .config import StudyConfig

try:
    import yaml
except ImportError as error:
    raise MissingExtraError("PyYAML", "study", "a study") from error

BUILT_IN = ("paper",)
WHOLE = ("reference_queries",)
"""Mappings that a scale replaces as one value."""

_MOST_BYTES = 1 << 20
_TAG = "tag:yaml.org,2002:"
_WHOLE_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$")
_DECIMAL = re.compile(
    r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN))$"
)


@dataclass(frozen=True, eq=False)
class Document:
    """A study's file, or one scale of it, as plain values.

    Attributes:
        source: The file's name in messages.
        value: The values.
        lines: The line, from 1, of each key and each value in a list.
    """

    source: str
    value: dict[str, Any]
    lines: Mapping[Place, int]

    def error(self, place: Place, message: str) -> str:
        """A message after file and line of a place, or of the nearest above it that is there."""
        while place not in self.lines:
            place = place[:-1]
        return f"{self.source}, line {self.lines[place]}: {message}"


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
        MissingExtraError: PyYAML is not installed.
    """
    document = _read(source)
    scales = _scales(document)
    if scale is None:
        scale = next(iter(scales), None)
    elif scale not in scales:
        has = f"has the scales {', '.join(scales)}" if scales else "has no scales: leave it out"
        raise InputError(f"the scale is `{scale}`, and {document.source} {has}")
    at_scale = _at(document, scale)
    study = Study(_checked(at_scale), scale, at_scale)
    for other in scales:
        if other != scale:
            _checked(_at(document, other))
    return study


def _checked(document: Document) -> StudyConfig:
    reader = Reader(null="null")
    config = reader.read(StudyConfig, document.value)
    problems = reader.problems or list(config.problems())
    if problems:
        raise InputError(named(list(dict.fromkeys(document.error(*each) for each in problems))))
    assert isinstance(config, StudyConfig)
    return config


def _scales(document: Document) -> dict[str, Any]:
    scales = document.value.get("scales") or {}
    if not isinstance(scales, dict):
        message = (
            "`scales` is no mapping: give the name of each scale and what it changes, such as "
            "`smoke: {shots: 100}`"
        )
        raise InputError(document.error(("scales",), message))
    for name, changes in scales.items():
        if not isinstance(changes, dict):
            message = f"the scale `{name}` is no mapping: give the keys it changes, or {{}}"
            raise InputError(document.error(("scales", name), message))
    return {str(name): changes for name, changes in scales.items()}


def _at(document: Document, scale: str | None) -> Document:
    """The document at a scale: its keys over the others, a null takes a key away."""
    below = {key: value for key, value in document.value.items() if key != "scales"}
    if scale is None:
        return replace(document, value=below)
    prefix = next(key for key in document.value["scales"] if str(key) == scale)
    above = {
        place[2:]: line
        for place, line in document.lines.items()
        if place[:2] == ("scales", prefix) and len(place) > 2
    }
    changes = document.value["scales"][prefix]
    known, changed = below.get("experiments"), changes.get("experiments")
    if not (isinstance(known, dict) and isinstance(changed, dict)):
        known, changed = {}, {}  # an error that the reader names
    for name in changed:
        if name not in known:
            message = (
                f"a scale changes the experiment `{name}`, which is not there: "
                f"{close_to(str(name), list(map(str, known)))}"
            )
            raise InputError(document.error(("scales", prefix, "experiments", name), message))
    merged = _merged(below, changes)
    return Document(document.source, merged, {**document.lines, **above})


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if key in merged and value is None:
            del merged[key]
        elif isinstance(known, dict) and isinstance(value, dict) and key not in WHOLE:
            merged[key] = _merged(known, value)
        else:
            merged[key] = value
    return merged


def _read(source: str | os.PathLike[str]) -> Document:
    name, text = _text(source)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise InputError(
                f"{name}, line 1: a study is a mapping with the keys `name`, `model`, `shots`, "
                "`experiments` and so on; see docs/study.md"
            )
        lines: dict[Place, int] = {(): 1}
        return Document(name, loader.value_of(root, (), lines), lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = name if mark is None else f"{name}, line {mark.line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(
            f"{place}: not YAML that a study can be read from ({problem}): put that line right"
        ) from error
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply: a study has six levels") from error
    except InputError:
        raise
    except (ValueError, OverflowError) as error:  # PyYAML's, of numbers in escapes and directives
        raise InputError(
            f"{name} is not YAML that a study can be read from (a number in an escape or a "
            "directive is too large): write characters themselves, and leave directives out"
        ) from error


def _text(source: str | os.PathLike[str]) -> tuple[str, str]:
    if source in BUILT_IN:
        file = f"{source}.yaml"
        return file, resources.files(__package__).joinpath(file).read_text("utf-8")
    path = given_path(source)
    if not path.is_file():
        raise InputError(
            f"`{path}` is no study: give {' or '.join(BUILT_IN)}, or the path of a YAML file"
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"`{path}` has more than {_MOST_BYTES} bytes: that is no study")
        return path.name, path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"`{path}` is no text in UTF-8 (byte {error.start}): save it so"
        ) from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [known for known in patterns if known[0] in (f"{_TAG}null", f"{_TAG}bool")]
        for first, patterns in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("found an alias: write the value out", event)
        if event.tag is not None:
            raise _refusal(f"found the tag {event.tag!r:.60}: leave it out", event)
        return super().compose_node(parent, index)

    def value_of(self, node: Any, place: Place, lines: dict[Place, int]) -> Any:
        """The value of a node; keeps the lines of its parts.

        Raises `YAMLError` where a key is no text or number, or is given twice: of keys that are
        equal, as 1, +1 and true are, YAML would keep the last in silence.
        """
        if isinstance(node, yaml.SequenceNode):
            return [self._part(item, item, (*place, i), lines) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.construct_object(node)
        found: dict[Any, Any] = {}
        written: dict[Any, int] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key is no text or number: give a name", key)
            name = self.construct_object(key)
            before = written.get(name, written.get(key.value))
            if before is not None:
                problem = f"`{key.value}` is there already, on line {before}: keep one"
                raise _refusal(problem, key)
            written |= dict.fromkeys((name, key.value), key.start_mark.line + 1)
            found[name] = self._part(key, item, (*place, name), lines)
        return found

    def _part(self, at: Any, node: Any, place: Place, lines: dict[Place, int]) -> Any:
        lines[place] = at.start_mark.line + 1
        return self.value_of(node, place, lines)


_Loader.add_implicit_resolver(f"{_TAG}int", _WHOLE_NUMBER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _DECIMAL, list("-+0123456789."))


def _refusal(problem: str, at: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, at.start_mark)
