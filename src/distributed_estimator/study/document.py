"""A study's YAML file: read as data alone, with the line of every key and value kept."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar

from ..errors import InputError
from ..records import given_path
from ._libraries import yaml

BUILT_IN = ("paper",)
SCALES = "scales"
_MOST_BYTES = 1 << 20
_TAG = "tag:yaml.org,2002:"
_NULL = f"{_TAG}null"
_WHOLE_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$")
_DECIMAL = re.compile(
    r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN))$"
)

Place = tuple[str | int, ...]
"""Keys and positions from the root of a document to a value."""


@dataclass(frozen=True, eq=False)
class Document:
    """One scale of a study, as written.

    Attributes:
        source: What the file is called in messages.
        root: The merged nodes, which know their lines.
        value: The same as plain Python values.
        scale: The scale; None: the file names none.
    """

    source: str
    root: yaml.MappingNode
    value: dict[str, Any]
    scale: str | None

    def line(self, place: Place) -> int:
        """The line, from 1, of what is at a place, or of the nearest that is there.

        For a key it is the key's own line.
        """
        line, node = 1, self.root
        for step in place:
            found = _step(node, step)
            if found is None:
                continue  # pydantic's own words for a choice, say, which no file has
            line, node = found
        return line

    def error(self, place: Place, message: str) -> str:
        """A message with file and line before it."""
        return f"{self.source}, line {self.line(place)}: {message}"


class _Loader(yaml.SafeLoader):
    """YAML as data alone: no tags, no aliases, no merging, and numbers in the usual digits only.

    YAML 1.1 has more in store: 0100 for 64, 1:30 for 90, dates, `<<`. Here these are texts, which
    are refused where a number has to stand.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [known for known in patterns if known[0] in (_NULL, f"{_TAG}bool")]
        for first, patterns in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("found an alias: write the value out", event)
        if event.tag is not None:
            raise _refusal(f"found the tag {event.tag!r:.60}: leave it out", event)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(f"{_TAG}int", _WHOLE_NUMBER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _DECIMAL, list("-+0123456789."))


def _refusal(problem: str, event: yaml.Event) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, event.start_mark)


def read_document(source: str | os.PathLike[str], scale: str | None = None) -> Document:
    """Reads one scale of a study.

    Args:
        source: The name of a study that comes with the package, or the path of a YAML file.
        scale: The scale; None: the file's first, where it has any.

    Raises:
        InputError: The file cannot be read, is no YAML, or has no such scale; names file and line.
    """
    name, text = _text(source)
    root, loader = _compose(name, text)
    try:
        scales = _take(root, SCALES)
        chosen = _choose(name, scales, scale)
        merged = root if chosen is None else _merge(name, root, chosen[1], ())
        value = loader.construct_document(merged)
    except yaml.YAMLError as error:
        raise InputError(_told(name, error)) from error
    finally:
        loader.dispose()
    return Document(name, merged, value, None if chosen is None else chosen[0])


def scales_of(source: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of a study's scales, in the file's order.

    Raises:
        InputError: As for `read_document`.
    """
    name, text = _text(source)
    root, _ = _compose(name, text)
    return tuple(key.value for key, _ in _entries(name, _take(root, SCALES)))


def close_to(word: str, known: Sequence[str]) -> str:
    """A hint for a message: what may have been meant, or all there is.

    Example:
        >>> close_to("sheds", ["seeds", "cuts"]), close_to("x", ["seeds", "cuts"])
        ('did you mean `seeds`?', 'use some of seeds, cuts')
    """
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.65)
    return f"did you mean `{found[0]}`?" if found else f"use some of {', '.join(known)}"


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


def _compose(name: str, text: str) -> tuple[yaml.MappingNode, _Loader]:
    try:
        root, loader = _parse(name, text)
        if not isinstance(root, yaml.MappingNode):
            raise InputError(
                f"{name}, line 1: a study is a mapping with the keys `name`, `model`, `shots`, "
                "`experiments` and so on; see docs/study.md"
            )
        _check_keys(name, root, loader)
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply: a study has six levels") from error
    return root, loader


def _parse(name: str, text: str) -> tuple[Any, _Loader]:
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except yaml.YAMLError as error:
        raise InputError(_told(name, error)) from error
    except (ValueError, OverflowError) as error:  # PyYAML's, of numbers in escapes and directives
        raise InputError(
            f"{name} is not YAML that a study can be read from (a number in an escape or a "
            "directive is too large): write characters themselves, and leave directives out"
        ) from error


def _told(name: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = name if mark is None else f"{name}, line {mark.line + 1}"
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{place}: not YAML that a study can be read from ({problem}): put that line right"


def _check_keys(name: str, node: Any, loader: _Loader) -> None:
    """Raises `InputError` where a key is no text or number, or is given twice.

    Of keys that are equal, YAML keeps the last in silence: 1, +1 and true are.
    """
    lines: dict[Any, int] = {}
    for key, value in _children(node):
        if key is not None:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{name}, line {line}: a key is no text or number: give a name")
            meant = (key.value, loader.construct_object(key))
            before = next((lines[same] for same in meant if same in lines), None)
            if before is not None:
                raise InputError(
                    f"{name}, line {line}: `{key.value}` is there already, on line {before}: "
                    "keep one"
                )
            lines |= dict.fromkeys(meant, line)
        _check_keys(name, value, loader)


def _take(root: yaml.MappingNode, key: str) -> Any:
    """Takes a key out of a mapping; None if it is not there."""
    for place, (name, value) in enumerate(root.value):
        if name.value == key:
            del root.value[place]
            return value
    return None


def _entries(name: str, scales: Any) -> list[tuple[Any, Any]]:
    if scales is None:
        return []
    if not isinstance(scales, yaml.MappingNode):
        raise InputError(
            f"{name}, line {scales.start_mark.line + 1}: `{SCALES}` is no mapping: give the name "
            "of each scale and what it changes, such as `smoke: {shots: 100}`"
        )
    return list(scales.value)


def _choose(name: str, scales: Any, scale: str | None) -> tuple[str, Any] | None:
    entries = _entries(name, scales)
    known = [str(key.value) for key, _ in entries]
    if not known and scale is None:
        return None
    if scale is None:
        scale = known[0]
    if scale not in known:
        has = f"has the scales {', '.join(known)}" if known else "has no scales: leave it out"
        raise InputError(f"the scale is `{scale}`, and {name} {has}")
    node = entries[known.index(scale)][1]
    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            f"{name}, line {node.start_mark.line + 1}: the scale `{scale}` is no mapping: give "
            "the keys it changes, or {}"
        )
    return scale, node


def _merge(
    name: str, below: yaml.MappingNode, above: yaml.MappingNode, place: Place
) -> yaml.MappingNode:
    """`below` with the keys of `above` over it; a null takes a key away."""
    merged = {key.value: (key, value) for key, value in below.value}
    for key, value in above.value:
        known = merged.get(key.value)
        if place == ("experiments",) and known is None:
            raise InputError(
                f"{name}, line {key.start_mark.line + 1}: a scale changes the experiment "
                f"`{key.value}`, which is not there: {close_to(str(key.value), list(merged))}"
            )
        if known is not None and value.tag == _NULL:
            del merged[key.value]
        elif known is not None and _both_mappings(known[1], value) and key.value not in _WHOLE:
            merged[key.value] = (key, _merge(name, known[1], value, (*place, key.value)))
        else:
            merged[key.value] = (key, value)
    return yaml.MappingNode(below.tag, list(merged.values()), below.start_mark, below.end_mark)


_WHOLE = ("reference_queries",)
"""Mappings that a scale replaces as one value."""


def _both_mappings(*nodes: Any) -> bool:
    return all(isinstance(node, yaml.MappingNode) for node in nodes)


def _step(node: Any, step: str | int) -> tuple[int, Any] | None:
    """The line and node one step down; None if that step is not there."""
    for number, (key, value) in enumerate(_children(node)):
        if step == number if key is None else str(key.value) == str(step):
            return (value if key is None else key).start_mark.line + 1, value
    return None


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value
    elif isinstance(node, yaml.SequenceNode):
        yield from ((None, item) for item in node.value)
