"""Options of a verb: paths, the fields of a configuration with type, default and help, groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
import msgspec

from ..training.config import TrainingConfig
from ..training.policies import PolicySettings, SpeculationSettings, StragglerSettings
from ..training.settings import Config, alternatives, expected, hints, meta

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
ConfigT = TypeVar("ConfigT", bound=Config)


_GROUPS = {
    "Circuit": "observable parameter values probabilities",
    "Data": "features reduction classes samples test-samples target data-dir from-logs",
    "Model": "feature-map feature-map-reps feature-map-entanglement ansatz ansatz-reps "
    "entanglement head",
    "Training": "optimizer epochs maxiter batch-size loss lr",
    "Runs": "resume scale only pipeline retry-failed dry-run",
    "Perturbations": "attack sigma epsilon draws pgd-steps",
    "What is simulated": "records service tasks overhead job-seconds repeats",
    "Cuts": "label max-qubits max-price cut-at cuts basis",
    "Shots": "shots precision shots-total max-shots adaptive-shots exact allocation seed",
    "Where it runs": "backend pool address workers",
    "Noise": "mitigate noise-factors extrapolator",
    "Tasks and faults": "policy tasks-per-batch batch-delay order in-flight "
    "deadline attempts timeout subexperiments-per-task speculate quantile factor budget restart "
    "journal",
    "Stragglers, for experiments": "straggler-p straggler-delay straggler-distribution "
    "straggler-shape slow-worker",
    "Costs": "costs fit validate level",
    "Output": "sql json csv out replace trace track figure draw front",
}
_OTHERS = "Other"
_GROUP_OF = {f"--{name}": title for title, names in _GROUPS.items() for name in names.split()}


class Verb(click.Command):
    """A command whose help shows options in groups; the same option is in the same one always."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a section a group."""
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*_GROUPS, _OTHERS)}
        for param in sorted(self.get_params(ctx), key=_place):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups[_GROUP_OF.get(param.opts[0], _OTHERS)].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _place(param: click.Parameter) -> int:
    """Sorts options of a group as it names them."""
    names = list(_GROUP_OF)
    return names.index(param.opts[0]) if param.opts[0] in names else len(names)


def examples(*lines: str) -> str:
    """The end of a verb's help."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


class _Path(click.Path):
    """A path; an empty one, as of an unset variable, is none."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if not os.fspath(value):
            self.fail("it is empty: name a file or folder (`.` is the current folder)", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
TEXT_PATH = _Path(path_type=str)
NEW_FILE = _Path(dir_okay=False, path_type=Path)
NEW_FOLDER = _Path(file_okay=False, path_type=Path)
FOLDER = _Path(exists=True, file_okay=False, path_type=Path)


class FieldType(click.ParamType[Any]):
    """What a field takes, written as text; a list has commas between its values."""

    def __init__(self, hint: Any) -> None:
        self._hint, self._kind = hint, _kind(hint)
        self._is_list = get_origin(self._kind) is tuple
        self.name = "list" if self._is_list else {int: "n", float: "x"}.get(self._kind, "text")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; ends the command with the option, the text and what to give."""
        if not isinstance(value, str) or self._kind is str:
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        try:
            scalar = _with_zero(value) if self._kind is float else value
            given = [_with_zero(part) for part in parts] if self._is_list else scalar
            found = msgspec.convert(given, self._hint, strict=False)
            if found is not None:
                return found
        except msgspec.ValidationError:
            pass
        name = "" if param is None else param.opts[0]
        text = value if value.isprintable() and 0 < len(value) <= 60 else f"{value!r:.60}"
        raise click.UsageError(f"`{name}` is {text}: give {expected(self._hint, parts or ())}", ctx)


def _with_zero(number: str) -> str:
    """The same number where it begins with its point, which JSON's do not."""
    return f"0{number}" if number.startswith(".") else number


def options_of(
    kind: type[Config],
    only: Collection[str] = (),
    *,
    without: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    types: Mapping[str, click.ParamType[Any]] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Callable[[CommandT], CommandT]:
    """Adds an option for each field of a configuration; one that is not given is None, () or False.

    Args:
        kind: The configuration. Fields that hold another one have no option.
        only: The fields to take; none: all.
        without: Fields to leave out.
        defaults: Texts for the help, where the verb has defaults of its own.
        types: Types, where a verb takes less than the field.
        aliases: Second names of options.
    """
    known: dict[str, Any] = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]

    def decorate(command: CommandT) -> CommandT:
        for name, hint in reversed(hints(kind).items()):
            nested = any(is_dataclass(form) for form in alternatives(hint))
            if nested or name in without or (only and name not in only):
                continue
            option = (meta(hint).extra or {}).get("option") or f"--{name.replace('_', '-')}"
            names = [option, *((aliases or {}).get(name, "").split()), name]
            text = _help(hint, known[name], (defaults or {}).get(name))
            type_ = {"type": types[name]} if types and name in types else _type(hint)
            command = click.option(*names, help=text, **type_)(command)
        return command

    return decorate


def take(kind: type[ConfigT], given: dict[str, Any], **more: Any) -> ConfigT:
    """The configuration that options come to; takes them out of `given`.

    Args:
        kind: The configuration.
        given: Values by the names of fields, some of which belong to others.
        more: Fields with values of their own.

    Raises:
        InputError: Fields do not go together.
    """
    names = [name for name in hints(kind) if name in given and name not in more]
    values = {name: given.pop(name) for name in names}
    return kind(**{name: value for name, value in values.items() if is_given(value)}, **more)


def is_given(value: Any) -> bool:
    """Whether an option was given."""
    return value is not None and value is not False and value != ()


def policy_options(aliases: Mapping[str, str] | None = None) -> Callable[[CommandT], CommandT]:
    """Adds the parts of a policy to a command."""
    speculate = click.option(
        "--speculate/--no-speculate",
        default=False,
        help="Run late tasks a second time; the first result counts.",
    )

    def decorate(command: CommandT) -> CommandT:
        command = speculate(options_of(SpeculationSettings)(command))
        return options_of(PolicySettings, aliases=aliases)(command)

    return decorate


def take_policy(given: dict[str, Any]) -> PolicySettings:
    """The policy that options come to; takes them out of `given`.

    Raises:
        InputError: Fields do not go together.
        click.UsageError: A part of speculation was given without it.
    """
    parts = {name: given.pop(name) for name in hints(SpeculationSettings)}
    if given.pop("speculate"):
        return take(PolicySettings, given, speculation=take(SpeculationSettings, parts))
    for name in filter(lambda name: is_given(parts[name]), parts):
        raise click.UsageError(
            f"`--{name}` belongs to `--speculate`: add that, or leave `--{name}` out"
        )
    return take(PolicySettings, given)


straggler_options: Callable[[CommandT], CommandT] = options_of(StragglerSettings)
pool_options: Callable[[CommandT], CommandT] = options_of(TrainingConfig, ("pool", "address"))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _kind(hint: Any) -> Any:
    return next(form for form in alternatives(hint) if form is not NoneType)


def _type(hint: Any) -> dict[str, Any]:
    """The part of an option that says what it takes."""
    kind = _kind(hint)
    if kind is bool:
        return {"is_flag": True}
    several = get_origin(kind) is tuple and get_args(kind)[-1] is ...
    item = get_args(kind)[0] if several else kind
    if get_origin(item) is Literal:
        return {"type": click.Choice(get_args(item)), "multiple": several}
    if several and item is str:
        return {"multiple": True, "metavar": (meta(hint).extra or {}).get("metavar")}
    return {"type": FieldType(hint)}


def _help(hint: Any, default: Any, own: str | None) -> str:
    """The field's help; "None: all." becomes a default."""
    text, _, unset = (meta(hint).description or "").partition(" None: ")
    if own is None and not (default is MISSING or default is None or default is False):
        items = default if isinstance(default, tuple) else (default,)
        own = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)
    own = own or unset.rstrip(".")
    return f"{text}  [default: {own}]" if own else text
