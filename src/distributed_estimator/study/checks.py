"""What goes together in a study and what does not, beyond the type of each value."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from ..errors import InputError
from ..training.models import ModelConfig, build_model
from .config import (
    DatasetPart,
    ExperimentPart,
    PolicyPart,
    QueriesPart,
    StudyConfig,
    TrainPart,
)
from .document import Place, close_to

Problem = tuple[Place, str]
"""Where it is, and what is wrong there with what to do."""

FEATURES = {"iris": 4, "wine": 13, "breast_cancer": 30, "digits": 64, "mnist": 784}
"""How many features a data set has; its circuit has no more qubits."""

MOST_QUBITS = 24
"""The uncut circuit is simulated as a whole: 2**24 amplitudes take 256 MB a sample."""


def problems_of(config: StudyConfig) -> Iterator[Problem]:
    """What cannot be run as it stands."""
    for name, policy in config.policies.items():
        yield from _policy_problems(name, policy)
    for name, experiment in config.experiments.items():
        place = ("experiments", name)
        yield from _repeats(place, experiment)
        yield from _sizes(place, experiment, config)
        yield from _unknown_policies(place, experiment, config)
        yield from _straggler_problems(place, experiment)
        if "reference" in experiment.pipelines:
            yield from _reference_problems(place, experiment)
        if isinstance(experiment, QueriesPart):
            yield from _query_problems(place, experiment)


def _policy_problems(name: str, policy: PolicyPart) -> Iterator[Problem]:
    place = ("policies", name)
    if policy.dispatch == "batches" and policy.size is None:
        yield place, f"the policy `{name}` dispatches batches of no size: add `size`"
    for key, value in (("size", policy.size), ("delay", policy.delay)):
        if policy.dispatch == "eager" and value is not None:
            message = f"`{key}` is that of batches: add `dispatch: batches`, or remove it"
            yield (*place, key), message


def _repeats(place: Place, experiment: ExperimentPart) -> Iterator[Problem]:
    """Values given twice, which would be the same run twice."""
    names = ("cuts", "seeds", "pipelines", "policies", "straggler_p", "workers", "devices")
    for key in (*names, "variants"):
        values: list[Hashable] = getattr(experiment, key, None) or []
        for number, value in _again(values):
            shown = "the same variant" if key == "variants" else repr(value)
            yield (*place, key, number), f"`{key}` has {shown} twice: remove one"


def _again(values: Iterable[Hashable]) -> Iterator[tuple[int, Hashable]]:
    """Values that were there before, with their places."""
    seen: set[Hashable] = set()
    for number, value in enumerate(values):
        if value in seen:
            yield number, value
        seen.add(value)


def _sizes(place: Place, experiment: ExperimentPart, config: StudyConfig) -> Iterator[Problem]:
    assert isinstance(experiment, TrainPart | QueriesPart)
    for name, dataset in experiment.datasets.items():
        widths = (*place, "datasets", name, "qubits")
        for number, again in _again(dataset.qubits):
            yield (*widths, number), f"`qubits` has {again} twice: remove one"
        for number, qubits in enumerate(dataset.qubits):
            at = (*widths, number)
            yield from _width_problems(at, name, dataset, qubits, config)
            for position, cuts in enumerate(experiment.cuts):
                if cuts >= qubits:
                    message = (
                        f"`cuts` has {cuts}, and {name} with {qubits} qubits takes 0 to "
                        f"{qubits - 1}: remove it, or give more `qubits`"
                    )
                    yield (*place, "cuts", position), message


def _width_problems(
    place: Place, name: str, dataset: DatasetPart, qubits: int, config: StudyConfig
) -> Iterator[Problem]:
    most = min(FEATURES[name], MOST_QUBITS)
    if qubits > most:
        yield place, f"`qubits` has {qubits}, and {name} takes 1 to {most}: give fewer"
        return
    samples = dataset.samples
    if samples is not None and samples <= qubits and _is_by_pca(name, dataset, qubits):
        message = (
            f"`samples` is {samples}, and {qubits} principal components need {qubits + 1} or "
            "more: give more"
        )
        yield (*place[:-2], "samples"), message
    if dataset.reduction == "pool" and name not in ("mnist", "digits"):
        yield place, f"`reduction: pool` averages images, and {name} has none: remove it"
    try:
        build_model(ModelConfig(**config.model.model_dump()), qubits)
    except InputError as error:
        yield ("model",), f"the model cannot be built on the {qubits} qubits of {name}: {error}"


def _is_by_pca(name: str, dataset: DatasetPart, qubits: int) -> bool:
    return dataset.reduction == "pca" or (dataset.reduction is None and qubits < FEATURES[name])


def _unknown_policies(
    place: Place, experiment: ExperimentPart, config: StudyConfig
) -> Iterator[Problem]:
    for number, name in enumerate(experiment.policies):
        if name not in config.policies:
            hint = close_to(name, list(config.policies))
            message = f"`{name}` is none of the study's policies: {hint}"
            yield (*place, "policies", number), message


def _straggler_problems(place: Place, experiment: ExperimentPart) -> Iterator[Problem]:
    if any(p > 0 for p in experiment.straggler_p) and experiment.straggler_delay == 0:
        yield (
            (*place, "straggler_p"),
            "`straggler_p` is above 0 and nothing is delayed: add `straggler_delay` in seconds",
        )


def _reference_problems(place: Place, experiment: ExperimentPart) -> Iterator[Problem]:
    """The reference pipeline has threads, stragglers and nothing else of its own."""
    alone = "the reference pipeline runs every subexperiment as a task on threads"
    if experiment.pool != "threads":
        yield (
            (*place, "pool"),
            f"`pool` is {experiment.pool}, and {alone}: give `threads`, or take `reference` out "
            "of `pipelines`",
        )
    if experiment.policies != ["eager"]:
        yield (
            (*place, "policies"),
            f"{alone}, eagerly: leave `policies` out, or take `reference` out of `pipelines`",
        )
    if experiment.subexperiments is not None:
        yield (
            (*place, "subexperiments"),
            f"{alone}: leave `subexperiments` out, or take `reference` out of `pipelines`",
        )
    if isinstance(experiment, QueriesPart) and experiment.backend != "aer":
        yield (
            (*place, "pipelines"),
            f"the reference pipeline runs on Aer, and `backend` is {experiment.backend}: give "
            "`aer`, or take `reference` out of `pipelines`",
        )
    if isinstance(experiment, TrainPart) and experiment.trace:
        yield (*place, "trace"), "the reference pipeline traces no tasks of trainings: leave it out"


def _query_problems(place: Place, experiment: QueriesPart) -> Iterator[Problem]:
    if "reference" not in experiment.pipelines and experiment.reference_queries:
        yield (
            (*place, "reference_queries"),
            "`reference_queries` belongs to the reference pipeline: add `reference` to "
            "`pipelines`, or remove it",
        )
    for cuts in experiment.reference_queries:
        if cuts not in experiment.cuts:
            yield (
                (*place, "reference_queries", cuts),
                f"`reference_queries` names {cuts} cuts, and `cuts` has {experiment.cuts}: remove "
                "it, or add it there",
            )
    yield from _variant_problems(place, experiment)
    if experiment.backend == "fleet":
        yield from _fleet_problems(place, experiment)
        return
    if experiment.workers is None and experiment.variants is None:
        yield place, "`workers` is missing: add it"
    for key in ("devices", "device"):
        if getattr(experiment, key) is not None:
            yield (*place, key), f"`{key}` belongs to `backend: fleet`: add that, or remove it"


def _variant_problems(place: Place, experiment: QueriesPart) -> Iterator[Problem]:
    if experiment.variants is None:
        return
    if experiment.backend != "aer":
        yield (
            (*place, "variants"),
            f"`variants` are of queries on Aer, and `backend` is {experiment.backend}: give `aer`, "
            "or remove them",
        )
    if experiment.pipelines != ["reference"]:
        yield (
            (*place, "variants"),
            "`variants` change how the reference pipeline asks, and `pipelines` is "
            f"[{', '.join(experiment.pipelines)}]: give `pipelines: [reference]`, or remove them",
        )
    if experiment.workers is not None:
        yield (*place, "workers"), "each of `variants` has its own `workers`: remove this one"
    for number, variant in enumerate(experiment.variants):
        if variant.defer_measurements and variant.workers != 1:
            yield (
                (*place, "variants", number, "workers"),
                f"`workers` is {variant.workers}, and with `defer_measurements` a query is one "
                "job: give 1",
            )


def _fleet_problems(place: Place, experiment: QueriesPart) -> Iterator[Problem]:
    for key in ("devices", "device"):
        if getattr(experiment, key) is None:
            yield place, f"`{key}` is missing: a fleet needs it, add it"
    if experiment.workers is not None:
        yield (
            (*place, "workers"),
            "a fleet has as many workers as devices: remove `workers`, give `devices`",
        )
    if experiment.pool != "threads":
        yield (
            (*place, "pool"),
            f"`pool` is {experiment.pool}, and a simulated fleet lives in this process: give "
            "`threads`",
        )
