"""A study's configuration: what its YAML file may say, what goes together, and how it is read.

YAML is data alone here: no tags, no aliases, no merging, and numbers in the usual digits only. YAML
1.1 has more in store: 0100 for 64, 1:30 for 90, dates, `<<`. These are texts, which are refused
where a number has to stand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from ..errors import InputError, MissingExtraError, close_to, named
from ..records import given_path
from ..training.config import AttackConfig, LearningRate, Optimizer, Pipeline, PoolName
from ..training.models import ModelConfig, build_model
from ..training.policies import PolicySettings, Probability, Seconds
from ..training.settings import (
    Config,
    Count,
    Place,
    Problem,
    Reader,
    Seed,
    Shots,
    Workers,
)
from ..views import counted
from .values import FEWEST, MOST, Remedy, Shape, most_cuts, widest, width_of

try:
    import yaml
except ImportError as error:
    raise MissingExtraError("PyYAML", "study", "a study") from error

BUILT_IN = ("paper", "noise")
WHOLE = ("reference_queries",)
"""Mappings that a scale replaces as one value."""

MOST_QUBITS = 24
"""The uncut circuit is simulated as a whole: 2**24 amplitudes take 256 MB a sample."""

LATER: dict[type[Config], tuple[str, ...]] = {
    ModelConfig: ("feature_map_entanglement",),
    PolicySettings: ("in_flight", "deadline", "attempts", "timeout", "subexperiments"),
    AttackConfig: ("seed",),
}
"""Keys that studies have had since a later version: left out at their default, to keep the IDs."""

_MOST_BYTES = 1 << 20
_TAG = "tag:yaml.org,2002:"
_WHOLE_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$")
_DECIMAL = re.compile(
    r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN))$"
)

Places = Annotated[int, Meta(ge=0)]
Samples = Annotated[int, Meta(ge=4)]
Key = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z][A-Za-z0-9_-]*$",
        title="a name of letters, digits, - and _ that begins with a letter",
    ),
]
Dataset = Literal["iris", "mnist", "breast_cancer", "wine", "digits"]
Some = Meta(min_length=1)

SIZES: dict[str, tuple[int, int, int]] = {
    "iris": (4, 80, 20),
    "mnist": (784, 800, 200),
    "breast_cancer": (30, 455, 114),
    "wine": (13, 104, 26),
    "digits": (64, 291, 73),
}
"""Features of each data set, and its training and test samples of two classes."""


@dataclass(frozen=True, kw_only=True)
class Device(Config):
    """A simulated device, as `DeviceSpec` has it."""

    seconds_per_job: Seconds
    seconds_per_shot: Seconds
    seconds_per_circuit: Seconds = 0.0
    latency: Seconds = 0.0
    jitter: Seconds = 0.0


@dataclass(frozen=True, kw_only=True)
class QueryDataset(Config):
    """The part of a data set that is used; `qubits` are features a sample."""

    qubits: Annotated[tuple[Count, ...], Some]
    reduction: Literal["pca", "pool"] | None = None
    samples: Samples | None = None
    test_samples: Samples | None = None


@dataclass(frozen=True, kw_only=True)
class TrainDataset(QueryDataset):
    """A data set with the budget of a training on it."""

    epochs: Count
    batch_size: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Variant(Config):
    """One way to ask the same queries; `simulator_threads` null: as many as Aer takes by itself."""

    workers: Workers
    simulator_threads: Workers | None = 1
    defer_measurements: bool = False


@dataclass(frozen=True, kw_only=True)
class Experiment(Config):
    """What all experiments have; lists are crossed with one another."""

    about: str = ""
    cuts: Annotated[tuple[Places, ...], Some]
    seeds: Annotated[tuple[Seed, ...], Some]
    trace: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkExperiment(Experiment):
    """What experiments on the study's model have."""

    pipelines: Annotated[tuple[Pipeline, ...], Some] = ("contracted",)
    pool: PoolName = "threads"
    policies: Annotated[tuple[str, ...], Some] = ("eager",)
    straggler_p: Annotated[tuple[Probability, ...], Some] = (0.0,)
    straggler_delay: Seconds = 0.0
    subexperiments: Count | None = None


@dataclass(frozen=True, kw_only=True)
class TrainExperiment(NetworkExperiment):
    """Trainings, each a run."""

    KIND: ClassVar[Literal["train"]] = "train"
    datasets: Annotated[dict[Dataset, TrainDataset], Some]
    workers: Annotated[tuple[Workers, ...], Some]
    robustness: AttackConfig | None = None


@dataclass(frozen=True, kw_only=True)
class QueriesExperiment(NetworkExperiment):
    """Single queries, a number of them each run.

    `workers` are as many as devices on a fleet, and part of each of the `variants`.
    """

    KIND: ClassVar[Literal["queries"]] = "queries"
    datasets: Annotated[dict[Dataset, QueryDataset], Some]
    queries: Count
    reference_queries: dict[Places, Count] = field(default_factory=dict)
    backend: Literal["statevector", "aer", "fleet"] = "statevector"
    workers: Annotated[tuple[Workers, ...], Some] | None = None
    variants: Annotated[tuple[Variant, ...], Some] | None = None
    devices: Annotated[tuple[Workers, ...], Some] | None = None
    device: Device | None = None


@dataclass(frozen=True, kw_only=True)
class ValuesExperiment(Experiment):
    """Values of circuits on simulated devices with noise, each a run.

    A seed decides the circuit's angles and the shots; `shots_total` are all shots of a value.
    """

    KIND: ClassVar[Literal["values"]] = "values"
    circuits: Annotated[tuple[Shape, ...], Some]
    devices: Annotated[tuple[str, ...], Some]
    qubits: Annotated[tuple[Count, ...], Some]
    mitigations: Annotated[tuple[Remedy, ...], Some]
    shots_total: Annotated[tuple[Shots, ...], Some]


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Config):
    """A study at one scale."""

    name: Key
    about: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    shots: Shots | None = None
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.1
    policies: dict[Key, PolicySettings] = field(default_factory=lambda: {"eager": PolicySettings()})
    experiments: Annotated[dict[Key, TrainExperiment | QueriesExperiment | ValuesExperiment], Some]
    deviations: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document."""
        document = super().as_dict()
        document["model"] = without_later(self.model)
        document["policies"] = {name: without_later(part) for name, part in self.policies.items()}
        for name, experiment in self.experiments.items():
            if isinstance(experiment, TrainExperiment) and experiment.robustness is not None:
                attacks = without_later(experiment.robustness)
                document["experiments"][name]["robustness"] = attacks
        return document

    def deciding(self) -> dict[str, Any]:
        """The part that decides the runs: without the texts."""
        document = self.as_dict()
        del document["about"], document["deviations"]
        for experiment in document["experiments"].values():
            del experiment["about"]
        return document

    def problems(self) -> Iterator[Problem]:
        """Finds what cannot be run as it stands, beyond the type of each value."""
        is_network = (isinstance(e, NetworkExperiment) for e in self.experiments.values())
        if self.shots is None and any(is_network):
            yield ("shots",), "`shots` is missing: add it"
        for name, experiment in self.experiments.items():
            for place, message in (
                *_repeated(experiment),
                *(
                    _values_problems(experiment)
                    if isinstance(experiment, ValuesExperiment)
                    else _experiment_problems(experiment, self)
                ),
            ):
                yield (() if place[:1] == ("model",) else ("experiments", name)) + place, message


def without_later(part: Config) -> dict[str, Any]:
    """A part of a configuration for JSON, without the keys that came later at their default."""
    document, default = part.as_dict(), type(part)().as_dict()
    later = [key for key in LATER[type(part)] if document[key] == default[key]]
    return {key: value for key, value in document.items() if key not in later}


# --- what goes together ---------------------------------------------------------------------------


def _repeated(experiment: Experiment) -> Iterator[Problem]:
    for key, values in vars(experiment).items():
        for number, value in _again(values if isinstance(values, tuple) else ()):
            shown = "the same variant" if key == "variants" else repr(value)
            yield (key, number), f"`{key}` has {shown} twice: remove one"


def _values_problems(experiment: ValuesExperiment) -> Iterator[Problem]:
    """What circuits and devices do not allow."""
    widths = {}
    for number, name in enumerate(experiment.devices):
        if name.lower().startswith("ibm_"):
            message = "is one of an account, and a study simulates: give one such as fake_manila"
            yield ("devices", number), f"`devices` has {name}, which {message}"
            continue
        try:
            widths[name] = width_of(name)
        except InputError as error:
            yield ("devices", number), f"`devices` has {name}: {error}"
    for shape, (number, qubits) in product(experiment.circuits, enumerate(experiment.qubits)):
        if not FEWEST[shape] <= qubits <= MOST:
            takes = f"`{shape}` takes {FEWEST[shape]} to {MOST}"
            yield ("qubits", number), f"`qubits` has {qubits}, and {takes}: give others"
            continue
        most = most_cuts(shape, qubits)
        for place, cuts in enumerate(experiment.cuts):
            if cuts > most:
                takes = f"`{shape}` of {qubits} qubits takes 0 to {most}"
                yield ("cuts", place), f"`cuts` has {cuts}, and {takes}: remove it"
                continue
            width = widest(shape, qubits, cuts)
            for name in (name for name, has in widths.items() if has < width):
                yield (
                    ("qubits", number),
                    f"`qubits` has {qubits}, which with {counted(cuts, 'cut')} take {width} at "
                    f"once, and {name} has {widths[name]}: give fewer, or a larger device",
                )


def _experiment_problems(
    experiment: TrainExperiment | QueriesExperiment, study: StudyConfig
) -> Iterator[Problem]:
    """The errors of an experiment; places are below it, but for those in the model."""
    for dataset, part in experiment.datasets.items():
        for place, message in _dataset_problems(dataset, part, study.model):
            yield place if place == ("model",) else ("datasets", dataset, *place), message
        for number, cuts in enumerate(experiment.cuts):
            for qubits in part.qubits:
                if qubits <= _most_qubits(dataset) and cuts >= qubits:
                    yield (
                        ("cuts", number),
                        f"`cuts` has {cuts}, and {dataset} with {qubits} qubits takes 0 to "
                        f"{qubits - 1}: remove it, or give more `qubits`",
                    )
    for number, name in enumerate(experiment.policies):
        if name not in study.policies:
            hint = close_to(name, list(study.policies))
            yield ("policies", number), f"`{name}` is none of the study's policies: {hint}"
    if any(experiment.straggler_p) and not experiment.straggler_delay:
        message = "is above 0 and nothing is delayed: add `straggler_delay` in seconds"
        yield ("straggler_p",), f"`straggler_p` {message}"
    if "reference" in experiment.pipelines:
        yield from _reference_problems(experiment)
    if isinstance(experiment, QueriesExperiment):
        yield from _query_problems(experiment)


def _again(values: tuple[Hashable, ...]) -> Iterator[tuple[int, Hashable]]:
    """Values that were there before, with their places: they would be the same run twice."""
    seen: set[Hashable] = set()
    for number, value in enumerate(values):
        if value in seen:
            yield number, value
        seen.add(value)


def _most_qubits(dataset: str) -> int:
    return min(SIZES[dataset][0], MOST_QUBITS)


def _dataset_problems(name: str, dataset: QueryDataset, model: ModelConfig) -> Iterator[Problem]:
    for number, again in _again(dataset.qubits):
        yield ("qubits", number), f"`qubits` has {again} twice: remove one"
    if dataset.reduction == "pool" and name not in ("mnist", "digits"):
        message = f"`reduction: pool` averages images, and {name} has none: remove it"
        yield ("reduction",), message
    for number, qubits in enumerate(dataset.qubits):
        if qubits > _most_qubits(name):
            message = f"has {qubits}, and {name} takes 1 to {_most_qubits(name)}: give fewer"
            yield ("qubits", number), f"`qubits` {message}"
            continue
        fewer = dataset.reduction is None and qubits < SIZES[name][0]
        if (dataset.samples or 10**9) <= qubits and (fewer or dataset.reduction == "pca"):
            yield (
                ("samples",),
                f"`samples` is {dataset.samples}, and {qubits} principal components need "
                f"{qubits + 1} or more: give more",
            )
        try:
            build_model(model, qubits)
        except InputError as error:
            yield ("model",), f"the model cannot be built on the {qubits} qubits of {name}: {error}"


def _reference_problems(experiment: TrainExperiment | QueriesExperiment) -> Iterator[Problem]:
    """The reference pipeline has threads, stragglers and nothing else of its own."""
    is_query = isinstance(experiment, QueriesExperiment)
    needed: dict[str, Any] = {"pool": "threads", "policies": ("eager",), "subexperiments": None}
    needed |= {"backend": "aer"} if is_query else {"trace": False}
    for key, value in needed.items():
        found = getattr(experiment, key)
        if found != value:
            remedy = f"give `{value}`" if isinstance(value, str) else "leave it out"
            yield (
                (key,),
                f"`{key}` is {_listed(found)}, and the reference pipeline runs every subexperiment "
                "as a task on threads, eagerly, with Aer, and traces no trainings: "
                f"{remedy}, or take `reference` out of `pipelines`",
            )


def _query_problems(experiment: QueriesExperiment) -> Iterator[Problem]:
    is_fleet, variants = experiment.backend == "fleet", experiment.variants
    if experiment.reference_queries and "reference" not in experiment.pipelines:
        message = "belongs to the reference pipeline: add `reference` to `pipelines`, or remove it"
        yield ("reference_queries",), f"`reference_queries` {message}"
    for cuts in experiment.reference_queries:
        if cuts not in experiment.cuts:
            yield (
                ("reference_queries", cuts),
                f"`reference_queries` names {cuts} cuts, and `cuts` has "
                f"{_listed(experiment.cuts)}: remove it, or add it there",
            )
    if variants and (experiment.backend != "aer" or experiment.pipelines != ("reference",)):
        yield (
            ("variants",),
            "`variants` change how the reference pipeline asks Aer, and `backend` is "
            f"{experiment.backend}, `pipelines` is {_listed(experiment.pipelines)}: give "
            "`backend: aer` and `pipelines: [reference]`, or remove them",
        )
    for number, variant in enumerate(variants or ()):
        if variant.defer_measurements and variant.workers != 1:
            message = "and with `defer_measurements` a query is one job: give 1"
            yield ("variants", number, "workers"), f"`workers` is {variant.workers}, {message}"
    if experiment.workers is not None and variants:
        yield ("workers",), "each of `variants` has its own `workers`: remove this one"
    if experiment.workers is not None and is_fleet:
        message = "a fleet has as many workers as devices: remove `workers`, give `devices`"
        yield ("workers",), message
    if experiment.workers is None and variants is None and not is_fleet:
        yield (), "`workers` is missing: add it"
    for key in ("devices", "device"):
        if is_fleet and getattr(experiment, key) is None:
            yield (), f"`{key}` is missing: a fleet needs it, add it"
        if not is_fleet and getattr(experiment, key) is not None:
            yield (key,), f"`{key}` belongs to `backend: fleet`: add that, or remove it"
    if is_fleet and experiment.pool != "threads":
        message = "and a simulated fleet lives in this process: give `threads`"
        yield ("pool",), f"`pool` is {experiment.pool}, {message}"


def _listed(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


# --- how it is read -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Document:
    """A study's file, or one scale of it, as plain values, and the line, from 1, of each place."""

    source: str
    value: dict[Any, Any]
    lines: Mapping[Place, int]

    def error(self, place: Place, message: str) -> str:
        """A message after file and line of a place, or of the nearest above it that is there."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.source}, line {self.lines.get(place, 1)}: {message}"


@dataclass(frozen=True, eq=False)
class Study:
    """A study at one scale, checked; its document knows the lines of what is found wrong later."""

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
    """Reads a study, "paper", "noise" or a YAML file, and checks it whole, all scales included.

    Its scale is the file's first, where none is named.

    Raises:
        InputError: The file cannot be read or does not say what a study needs; names file, line,
            key, what was expected and what to do.
        MissingExtraError: PyYAML is not installed.
    """
    document = _read(source)
    names = list(_scales(document))
    if scale is not None and scale not in names:
        has = f"has the scales {', '.join(names)}" if names else "has no scales: leave it out"
        raise InputError(f"the scale is `{scale}`, and {document.source} {has}")
    if scale is None and names:
        scale = names[0]
    at_scale = _at(document, scale)
    study = Study(_checked(at_scale), scale, at_scale)
    for other in names:
        if other != scale:
            _checked(_at(document, other))
    return study


def _checked(document: Document) -> StudyConfig:
    reader = Reader(null="null")
    config: StudyConfig = reader.read(StudyConfig, document.value)
    problems = reader.problems or list(config.problems())
    if problems:
        raise InputError(named(list(dict.fromkeys(document.error(*each) for each in problems))))
    return config


def _scales(document: Document) -> dict[str, Any]:
    """The keys of the scales as they are in the file, by their names."""
    scales = document.value.get("scales")
    scales = {} if scales is None else scales
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
    return {str(name): name for name in scales}


def _at(document: Document, scale: str | None) -> Document:
    """The document at a scale: its keys over the others; a null takes a key away."""
    below = {name: value for name, value in document.value.items() if name != "scales"}
    if scale is None:
        return replace(document, value=below)
    key = _scales(document)[scale]
    changes = document.value["scales"][key]
    known, changed = below.get("experiments"), changes.get("experiments")
    if isinstance(known, dict) and isinstance(changed, dict):  # else an error that the reader names
        for name in changed:
            if name not in known:
                hint = close_to(str(name), list(map(str, known)))
                message = f"a scale changes the experiment `{name}`, which is not there: {hint}"
                raise InputError(document.error(("scales", key, "experiments", name), message))
    # A scale may have taken a key away; the line that did is still known.
    lines = {
        place[2:]: line for place, line in document.lines.items() if place[:2] == ("scales", key)
    }
    return replace(document, value=_merged(below, changes), lines={**document.lines, **lines})


def _merged(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
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
        return Document(name, loader.value_of(root), loader.lines)
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

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines: dict[Place, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("found an alias: write the value out", event)
        if event.tag is not None:
            raise _refusal(f"found the tag {event.tag!r:.60}: leave it out", event)
        return super().compose_node(parent, index)

    def value_of(self, node: Any, place: Place = ()) -> Any:
        """The value of a node at a place, whose lines are kept.

        Raises `YAMLError` where a key is no text or number, or is given twice: of keys that are
        equal, as 1, +1 and true are, YAML would keep the last in silence.
        """
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.lines[*place, number] = item.start_mark.line + 1
            return [self.value_of(item, (*place, i)) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.construct_object(node)
        found: dict[Any, Any] = {}
        written: dict[Any, int] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key is no text or number: give a name", key)
            name, line = self.construct_object(key), key.start_mark.line + 1
            before = written.get(name, written.get(key.value))
            if before is not None:
                problem = f"`{key.value}` is there already, on line {before}: keep one"
                raise _refusal(problem, key)
            written |= dict.fromkeys((name, key.value), line)
            self.lines[*place, name] = line
            found[name] = self.value_of(item, (*place, name))
        return found


_Loader.add_implicit_resolver(f"{_TAG}int", _WHOLE_NUMBER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _DECIMAL, list("-+0123456789."))


def _refusal(problem: str, at: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, at.start_mark)
