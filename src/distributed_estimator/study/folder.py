"""The folder that keeps a study: what it is, its runs, and what each came to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ..errors import InputError, RecordError, named
from ..records import utc_now
from ..records.files import is_left_behind, read_json, write_json
from ..training.runs import File, RunFolder, held
from ..training.settings import flat
from .config import Study
from .matrix import SCHEMA_VERSION, StudyRun, runs_of

_KEPT = ("run.json", "attempts.json", RunFolder(Path()).lock.name)


class Attempts(msgspec.Struct):
    """attempts.json: how often a run was begun."""

    attempts: Annotated[int, msgspec.Meta(ge=0)]


class Done(Attempts, tag_field="status", tag="done"):
    """What result.json says of a run that ended well."""

    schema_version: Literal[1]
    run_id: str
    results: dict[str, Any]


class Failed(Attempts, tag_field="status", tag="failed"):
    """What result.json says of a run that failed."""

    schema_version: Literal[1]
    run_id: str
    cause: str


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study; each appears whole or not at all, but for the logs of its runs."""

    path: Path

    study = File("study.json", "Which study this is, and its whole configuration.")
    lock = File("study.lock", "Held by the process that runs the study; empty.")

    def of(self, run: StudyRun) -> Path:
        """The folder of a run."""
        return self.path / "runs" / run.run_id

    @contextmanager
    def held(self, study: Study) -> Iterator[None]:
        """Keeps other programs out, and the folder to one study; makes both if need be.

        Raises:
            InputError: Another program runs a study there, or the folder is of another study, holds
                other things or cannot be written.
        """
        self.check(study)
        taken = f"another program runs the study in `{self.path}`: wait for it, or name another"
        with held(self.lock, f"{taken} folder", InputError, "name another folder"):
            self.check(study)  # another program may have come first
            if not self.study.exists():
                document = {
                    "schema_version": SCHEMA_VERSION,
                    "name": study.config.name,
                    "scale": study.scale,
                    "hash": study.hash,
                    "config": study.config.as_dict(),
                    "created_at": utc_now(),
                    "runs": [run.run_id for run in runs_of(study)],
                }
                write_json(self.study, document)
            yield

    def check(self, study: Study) -> None:
        """Raises `InputError` unless the folder is free or holds this very study."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"`{self.path}` is a file: name a folder for the study")
        if self.study.exists():
            self._check_same(study)
            return
        names = sorted(entry.name for entry in self.path.iterdir())
        others = [n for n in names if n != self.lock.name and not is_left_behind(n)]
        if others:
            raise InputError(
                f"`{self.path}` holds no study, but {others[0]}: name a new folder for the study"
            )

    def _check_same(self, study: Study) -> None:
        found = read_json(self.study, "restore it, or remove its folder")
        if found.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"`{self.study}` has schema {found.get('schema_version')!r}, and this version "
                f"reads {SCHEMA_VERSION}: use the version that wrote it, or another folder"
            )
        if found.get("hash") == study.hash:
            return
        changes = differences(found.get("config") or {}, study.config.as_dict())
        why = named(changes) or "it was begun by a version whose runs were others"
        raise InputError(
            f"`{self.path}` is a study of another configuration (scale {found.get('scale')}, asked "
            f"for {study.scale}): {why}; name another folder, or give the configuration that it "
            "was begun with"
        )

    def result(self, run: StudyRun) -> dict[str, Any] | None:
        """What a run came to; None if it has not ended. `RecordError` for a damaged result."""
        path = self.of(run) / "result.json"
        if not path.exists():
            return None
        remedy = f"remove the folder `{path.parent}`, and the run is repeated"
        found = _read(path, Done | Failed, remedy)
        if found["run_id"] != run.run_id:
            raise RecordError(f"`{path}` is not the result of this run: {remedy}")
        return found

    def begin(self, run: StudyRun) -> int:
        """Prepares a run's folder for another attempt, and returns the attempt's number, from 1."""
        folder, before = self.of(run), 0
        attempts = folder / "attempts.json"
        if attempts.exists():
            remedy = "remove it, and they are counted from 1"
            before = _read(attempts, Attempts, remedy)["attempts"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").unlink(missing_ok=True)
            for entry in folder.iterdir():
                if is_left_behind(entry.name):
                    entry.unlink()
        except OSError as error:
            raise RecordError(
                f"`{folder}` cannot be written ({error.strerror}): move away what is in its place, "
                "or put its permissions right"
            ) from error
        write_json(attempts, {"attempts": before + 1})
        write_json(folder / "run.json", run.as_dict())
        return before + 1

    def end(self, run: StudyRun, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Writes down what a run came to; from here on it is never repeated."""
        document = {"schema_version": SCHEMA_VERSION, "run_id": run.run_id, **outcome}
        write_json(self.of(run) / "result.json", document)
        return document


def _read(path: Path, kind: Any, remedy: str) -> dict[str, Any]:
    """A JSON object that is as declared; raises `RecordError`, which ends in the remedy."""
    found = read_json(path, remedy)
    version = found.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecordError(
            f"`{path}` has schema version {version} and this release reads up to {SCHEMA_VERSION}: "
            f"install a newer distributed-estimator, or {remedy}"
        )
    try:
        msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise RecordError(f"`{path}` is damaged: {error}; {remedy}") from error
    return found


def empty(folder: Path) -> None:
    """Removes what an earlier attempt has left, but for the run's name and its trainer's lock."""
    for entry in folder.iterdir():
        if entry.name in _KEPT:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Where two JSON documents differ, in words, but for their texts.

    Example:
        >>> differences({"shots": 1024, "lr": 0.1}, {"shots": 100, "lr": 0.1})
        ['`shots` is 1024 there and 100 here']
    """
    there, here = dict(flat(found)), dict(flat(wanted))
    return [
        f"`{name}` is {_brief(there.get(name))} there and {_brief(here.get(name))} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
        and name.rpartition(".")[2] not in ("about", "deviations")
    ]


def _brief(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
