"""Tasks to simulate, and how long they take: as measured, or from a distribution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, RecordError
from ..execution.policies import MOST_SECONDS, Policy, TaskSpec, check_seconds
from ..execution.stragglers import Constant, LogNormal, Pareto, Stragglers
from ..records import Record, TaskRecord
from .run import SimulationResult, simulate

MOST_SUBEXPERIMENTS = 10**6
"""Of a task in records that are simulated, as delays are drawn for each of them."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """Service times without memory.

    Attributes:
        mean: Seconds.
    """

    mean: float

    def __post_init__(self) -> None:
        check_seconds("mean", self.mean, positive=True)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Service times in seconds, shape (count,)."""
        return rng.exponential(self.mean, count)


Service: TypeAlias = Constant | Exponential | LogNormal | Pareto
SERVICES: Mapping[str, tuple[Callable[..., Service], str]] = {
    "constant": (Constant, "SECONDS"),
    "exponential": (Exponential, "MEAN"),
    "lognormal": (LogNormal, "MEDIAN,SIGMA"),
    "pareto": (Pareto, "SCALE,SHAPE"),
}
"""The distributions by name, with the parameters of each."""


@dataclass(frozen=True, slots=True)
class Load:
    """Tasks and their service times without injected delays.

    Attributes:
        tasks: What a policy knows of them.
        services: Seconds that they take.
    """

    tasks: tuple[TaskSpec, ...]
    services: tuple[float, ...]

    @classmethod
    def drawn(cls, service: Service, count: int, seed: int) -> Load:
        """So many tasks of one group from a distribution; policies know what each one takes."""
        seconds = service.draw(np.random.default_rng(seed), count).tolist()
        return cls(tuple(TaskSpec(str(n), each) for n, each in enumerate(seconds)), tuple(seconds))

    @classmethod
    def measured(cls, records: Iterable[Record]) -> Load:
        """The tasks of task records, as one run; of each, the attempt that succeeded first.

        A policy knows of a task what those of its fragment take on average. Injected delays are
        taken out; tasks keep their keys, so `simulate` delays the attempts that a real run does.

        Raises:
            RecordError: No task of the records succeeded, or one has a time or a number of
                subexperiments that cannot be.
        """
        first: dict[tuple[str, str, str], TaskRecord] = {}
        for record in records:
            if not isinstance(record, TaskRecord) or record.started is None:
                continue
            if record.status == "done":
                first.setdefault((record.run_id, record.query_id, record.key), record)
        if not first:
            raise RecordError(
                "no task record with the status `done`: give the task records of a traced run"
            )
        services = {key: _service(record) for key, record in first.items()}
        of_fragment: defaultdict[int, list[float]] = defaultdict(list)
        for key, record in first.items():
            of_fragment[record.fragment].append(services[key])
        means = {fragment: sum(all_) / len(all_) for fragment, all_ in of_fragment.items()}
        tasks = [
            # Of several chunks, delays are injected into the first, for all subexperiments.
            TaskSpec(
                r.key,
                means[r.fragment],
                r.fragment,
                subexperiments=r.subexperiments if r.chunk == 0 else 0,
                chunk=r.chunk,
            )
            for r in first.values()
        ]
        return cls(tuple(tasks), tuple(services.values()))

    def resampled(self, count: int, seed: int) -> Load:
        """So many tasks, each like one of these that is picked at random."""
        rng = np.random.default_rng(seed)
        picks = rng.integers(len(self.tasks), size=count).tolist()
        tasks = (self.tasks[pick] for pick in picks)
        return Load(
            tuple(replace(task, key=f"{n}/{task.key}") for n, task in enumerate(tasks)),
            tuple(self.services[pick] for pick in picks),
        )


def parse_service(text: str) -> Service:
    """A distribution of service times from text such as `lognormal:0.05,1`.

    Raises:
        InputError: The name is unknown, or its numbers are not what it needs.

    Example:
        >>> parse_service("pareto:0.02,1.5")
        Pareto(scale=0.02, shape=1.5)
    """
    name, _, values = text.partition(":")
    kind, wanted = SERVICES.get(name, (None, ""))
    if kind is None:
        forms = ", ".join(f"{name}:{wanted}" for name, (_, wanted) in SERVICES.items())
        raise InputError(f"`{text}` is no distribution of service times: give one of {forms}")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != wanted.count(",") + 1:
        raise InputError(f"`{text}` cannot be read: give {name}:{wanted}")
    try:
        return kind(*numbers)
    except InputError as error:
        raise InputError(f"`{text}` is no distribution of service times: {error}") from error


def predicted(
    records: Iterable[Record],
    workers: int,
    policy: Policy,
    *,
    stragglers: Stragglers | None = None,
    **options: Any,
) -> SimulationResult:
    """What a run of the same tasks would be like on other workers or with another policy.

    Args:
        records: Task records of one run.
        workers: Jobs that run at a time.
        policy: How tasks are handed out.
        stragglers: Delays to inject; those of the records are taken out. The same stragglers
            delay the same attempts as in a real run, since these have the same keys.
        options: Of `simulate`.

    Raises:
        RecordError: As for `Load.measured`.
    """
    load = Load.measured(records)
    return simulate(load.tasks, load.services, policy, workers, stragglers=stragglers, **options)


def _service(record: TaskRecord) -> float:
    """Seconds without injected delays; refuses times and counts that cannot be."""
    assert record.started is not None
    for name in ("started", "finished", "injected_delay"):
        least = 0.0 if name == "injected_delay" else -MOST_SECONDS
        if not least <= getattr(record, name) <= MOST_SECONDS:
            raise _damaged(record, name, "seconds")
    if not 1 <= record.subexperiments <= MOST_SUBEXPERIMENTS:
        raise _damaged(record, "subexperiments", f"a number from 1 to {MOST_SUBEXPERIMENTS}")
    return max(0.0, record.finished - record.started - record.injected_delay)


def _damaged(record: TaskRecord, name: str, expected: str) -> RecordError:
    return RecordError(
        f"`{name}` of task {record.key} (query {record.query_id}, attempt {record.attempt}) is "
        f"{getattr(record, name)!r}, expected {expected}: restore the records, or take it out"
    )
