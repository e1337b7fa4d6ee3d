"""A study's configuration: what its file may say, and what goes together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from msgspec import Meta

from ..errors import InputError
from ..training.config import AttackConfig, LearningRate, Optimizer, Pipeline, PoolName
from ..training.models import ModelConfig, build_model
from ..training.policies import PolicySettings, Probability, Seconds
from ..training.settings import Config, Count, Problem, Seed, Shots, Workers, close_to

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


class Size(NamedTuple):
    """Features of a data set, and its training and test samples of two classes."""

    features: int
    train: int
    test: int


SIZES: dict[str, Size] = {
    "iris": Size(4, 80, 20),
    "mnist": Size(784, 800, 200),
    "breast_cancer": Size(30, 455, 114),
    "wine": Size(13, 104, 26),
    "digits": Size(64, 291, 73),
}

MOST_QUBITS = 24
"""The uncut circuit is simulated as a whole: 2**24 amplitudes take 256 MB a sample."""

LATER = {
    "model": ("feature_map_entanglement",),
    "policies": ("in_flight", "deadline", "attempts", "timeout", "subexperiments"),
    "robustness": ("seed",),
}
"""Keys that studies have had since a later version: left out at their default, to keep the IDs."""


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
    pipelines: Annotated[tuple[Pipeline, ...], Some] = ("contracted",)
    pool: PoolName = "threads"
    policies: Annotated[tuple[str, ...], Some] = ("eager",)
    straggler_p: Annotated[tuple[Probability, ...], Some] = (0.0,)
    straggler_delay: Seconds = 0.0
    subexperiments: Count | None = None
    trace: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainExperiment(Experiment):
    """Trainings, each a run."""

    KIND: ClassVar[Literal["train"]] = "train"
    datasets: Annotated[dict[Dataset, TrainDataset], Some]
    workers: Annotated[tuple[Workers, ...], Some]
    robustness: AttackConfig | None = None


@dataclass(frozen=True, kw_only=True)
class QueriesExperiment(Experiment):
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
class StudyConfig(Config):
    """A study at one scale."""

    name: Key
    about: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    shots: Shots
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.1
    policies: dict[Key, PolicySettings] = field(default_factory=lambda: {"eager": PolicySettings()})
    experiments: Annotated[dict[Key, TrainExperiment | QueriesExperiment], Some]
    deviations: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document."""
        document = super().as_dict()
        without_later("model", document["model"])
        for policy in document["policies"].values():
            without_later("policies", policy)
        for experiment in document["experiments"].values():
            if experiment.get("robustness"):
                without_later("robustness", experiment["robustness"])
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
        for name, experiment in self.experiments.items():
            for place, message in _experiment_problems(experiment, self):
                yield (() if place[:1] == ("model",) else ("experiments", name)) + place, message


_DEFAULTS = {
    "model": ModelConfig().as_dict(),
    "policies": PolicySettings().as_dict(),
    "robustness": AttackConfig().as_dict(),
}


def without_later(part: str, document: dict[str, Any]) -> dict[str, Any]:
    """A part of a configuration without the keys that came later, where at their default."""
    for key in LATER[part]:
        if document[key] == _DEFAULTS[part][key]:
            del document[key]
    return document


def _experiment_problems(
    experiment: TrainExperiment | QueriesExperiment, study: StudyConfig
) -> Iterator[Problem]:
    """The errors of an experiment; places are below it, but for those in the model."""
    lists = {key: value for key, value in vars(experiment).items() if isinstance(value, tuple)}
    for key, values in lists.items():
        for number, value in _again(values):
            shown = "the same variant" if key == "variants" else repr(value)
            yield (key, number), f"`{key}` has {shown} twice: remove one"
    for dataset in experiment.datasets:
        yield from _dataset_problems(dataset, experiment, study)
    for number, name in enumerate(experiment.policies):
        if name not in study.policies:
            hint = close_to(name, list(study.policies))
            yield ("policies", number), f"`{name}` is none of the study's policies: {hint}"
    if any(experiment.straggler_p) and not experiment.straggler_delay:
        yield (
            ("straggler_p",),
            "`straggler_p` is above 0 and nothing is delayed: add `straggler_delay` in seconds",
        )
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


def _dataset_problems(
    name: Dataset, experiment: TrainExperiment | QueriesExperiment, study: StudyConfig
) -> Iterator[Problem]:
    dataset, place = experiment.datasets[name], ("datasets", name)
    most = min(SIZES[name].features, MOST_QUBITS)
    by_pca = dataset.reduction == "pca"
    for number, again in _again(dataset.qubits):
        yield (*place, "qubits", number), f"`qubits` has {again} twice: remove one"
    if dataset.reduction == "pool" and name not in ("mnist", "digits"):
        message = f"`reduction: pool` averages images, and {name} has none: remove it"
        yield (*place, "reduction"), message
    for number, qubits in enumerate(dataset.qubits):
        if qubits > most:
            message = f"`qubits` has {qubits}, and {name} takes 1 to {most}: give fewer"
            yield (*place, "qubits", number), message
            continue
        needs_pca = by_pca or (dataset.reduction is None and qubits < SIZES[name].features)
        if dataset.samples is not None and dataset.samples <= qubits and needs_pca:
            yield (
                (*place, "samples"),
                f"`samples` is {dataset.samples}, and {qubits} principal components need "
                f"{qubits + 1} or more: give more",
            )
        for position, cuts in enumerate(experiment.cuts):
            if cuts >= qubits:
                yield (
                    ("cuts", position),
                    f"`cuts` has {cuts}, and {name} with {qubits} qubits takes 0 to "
                    f"{qubits - 1}: remove it, or give more `qubits`",
                )
        try:
            build_model(study.model, qubits)
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
            yield (
                ("variants", number, "workers"),
                f"`workers` is {variant.workers}, and with `defer_measurements` a query is one "
                "job: give 1",
            )
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
