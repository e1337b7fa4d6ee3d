"""Whether the files of a study are sound, of a schema that is known, and all of one study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ...errors import RecordError

STUDY_VERSION = 1
"""Newest schema of study.json, run.json and result.json that is read."""
KINDS = ("train", "queries")
PIPELINES = ("contracted", "reference")
_TEXTS = ("dataset", "backend", "pool", "policy", "label")
_WHOLES = (
    "qubits",
    "cuts",
    "seed",
    "shots",
    "workers",
    "epochs",
    "queries",
    "devices",
    "simulator_threads",
)
_NUMBERS = ("straggler_p", "straggler_delay")
_AXES = {"dataset": "datasets", "cuts": "cuts", "seed": "seeds", "policy": "policies"}
"""Keys of a run with those of an experiment that hold all their values."""
_MOST_BYTES = 64 * 2**20


class ForeignError(RecordError):
    """A file of another study or of a newer release: it says nothing of the study it lies in."""


class Member(Protocol):
    """What must be known of a run to say whether it is of a study."""

    @property
    def run_id(self) -> str:
        """Its folder's name."""

    @property
    def experiment(self) -> str:
        """What it belongs to."""

    @property
    def config(self) -> Mapping[str, Any]:
        """All that decides it."""


def read_document(path: Path, fields: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object of a study with a schema version and fields of known types.

    Raises:
        RecordError: It cannot be read, is damaged or newer.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecordError(f"{path} is damaged: it is larger than {_MOST_BYTES // 2**20} MiB")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int:
        raise RecordError(f"{path} is damaged: it is no object with a whole `schema_version`")
    if data["schema_version"] > STUDY_VERSION:
        raise ForeignError(
            f"{path} has schema version {data['schema_version']} and this release reads up to "
            f"{STUDY_VERSION}: install a newer distributed-estimator"
        )
    for name, kind in fields.items():
        if type(data.get(name)) is not kind:
            raise RecordError(
                f"{path} is damaged: `{name}` is {data.get(name)!r:.60}, expected {kind.__name__}"
            )
    return data


def check_run(path: Path, data: Mapping[str, Any]) -> None:
    """Raises `RecordError` unless a run.json says what a run's has to, and lies where it should."""
    config = data["config"]
    for name in (*_TEXTS, *_WHOLES):
        kind = str if name in _TEXTS else int
        missing = config.get(name) is None and name not in ("dataset", "cuts", "seed")
        if not missing and type(config.get(name)) is not kind:
            raise RecordError(
                f"{path} is damaged: `config.{name}` is {config.get(name)!r:.60}, expected "
                f"{kind.__name__}"
            )
    for name in _NUMBERS:
        value = config.get(name)
        if value is not None and type(value) not in (int, float):
            raise RecordError(
                f"{path} is damaged: `config.{name}` is {value!r:.60}, expected a number"
            )
    _check_variation(path, config)
    for name, allowed in (("kind", KINDS), ("pipeline", PIPELINES)):
        if data[name] not in allowed:
            raise RecordError(
                f"{path} is damaged: `{name}` is {data[name]!r:.40}, expected one of {allowed}"
            )
    if data["run_id"] != path.parent.name:
        raise ForeignError(
            f"{path} is of run {data['run_id']!r:.40} and lies in the folder {path.parent.name}: "
            "a mixture of two studies, or a folder that was renamed"
        )


def _check_variation(path: Path, config: Mapping[str, Any]) -> None:
    threads, deferred = config.get("simulator_threads"), config.get("defer_measurements")
    if threads is not None and threads < 1:
        raise RecordError(
            f"{path} is damaged: `config.simulator_threads` is {threads!r:.60}, expected at least 1"
        )
    if deferred is not None and type(deferred) is not bool:
        raise RecordError(
            f"{path} is damaged: `config.defer_measurements` is {deferred!r:.60}, expected bool"
        )


def listed_runs(folder: Path, study: Mapping[str, Any]) -> set[str] | None:
    """The run ids that a study.json names; None if it names none.

    Raises:
        RecordError: What stands there is no list of them.
    """
    listed = study.get("runs")
    if listed is None:
        return None
    if not (isinstance(listed, list) and all(isinstance(name, str) for name in listed)):
        raise RecordError(f"{folder / 'study.json'} is damaged: `runs` is no list of run ids")
    return set(listed)


def check_one_study(
    folder: Path, runs: Iterable[Member], listed: set[str] | None, config: Mapping[str, Any]
) -> None:
    """Raises `RecordError` if a run is none of those that the study's configuration asks for."""
    foreign = [run.run_id for run in runs if not _belongs(run, listed, config)]
    if foreign:
        raise RecordError(
            f"{folder} is a mixture of two studies: {len(foreign)} of its runs, such as "
            f"{foreign[0]}, are not of its study.json; move them to a folder of their own"
        )


def _belongs(run: Member, listed: set[str] | None, config: Mapping[str, Any]) -> bool:
    if listed is not None and run.run_id not in listed:
        return False
    experiments = config.get("experiments")
    if not isinstance(experiments, dict):
        return True
    experiment = experiments.get(run.experiment)
    if not isinstance(experiment, dict) or config.get("shots", run.config.get("shots")) != (
        run.config.get("shots")
    ):
        return False
    return all(
        run.config.get(key) in experiment[axis]
        for key, axis in _AXES.items()
        if isinstance(experiment.get(axis), list | dict)
    )
