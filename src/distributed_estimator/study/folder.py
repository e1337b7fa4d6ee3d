"""The folder that keeps a study: what it is, its runs, and what each came to."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, RecordError, named
from ..records import utc_now
from ..records.locks import take_lock
from ..training.runs import write_json
from .load import Study
from .runs import SCHEMA_VERSION, StudyRun

_LEFT_BEHIND = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of files that `atomic` had not finished when its process was killed."""


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study; each appears whole or not at all, but for the logs of its runs."""

    path: Path

    @property
    def study(self) -> Path:
        """Which study this is, and its whole configuration."""
        return self.path / "study.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the study; empty."""
        return self.path / "study.lock"

    def of(self, run: StudyRun) -> Path:
        """The folder of a run."""
        return self.path / "runs" / run.run_id

    @contextmanager
    def held(self, study: Study) -> Iterator[None]:
        """Keeps other programs out, and the folder to one study; makes both if need be.

        Raises:
            InputError: Another program runs a study there, the folder is of another study or holds
                other things, or cannot be written.
            RecordError: The operating system refused.
        """
        self.check(study)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = self.lock.open("w")
        except OSError as error:
            raise InputError(
                f"`{self.path}` cannot be written ({error.strerror}): name another folder"
            ) from error
        with file:
            if not take_lock(file.fileno()):
                raise InputError(
                    f"another program runs the study in `{self.path}`: wait for it, or name "
                    "another folder"
                )
            self.check(study)  # another program may have come first
            if not self.study.exists():
                write_json(self.study, _study_document(study))
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
        others = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry != self.lock and not _LEFT_BEHIND.fullmatch(entry.name)
        )
        if others:
            raise InputError(
                f"`{self.path}` holds no study, but {others[0]}: name a new folder for the study"
            )

    def _check_same(self, study: Study) -> None:
        found = read_json(self.study)
        if found.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"`{self.study}` has schema {found.get('schema_version')!r}, and this version "
                f"reads {SCHEMA_VERSION}: use the version that wrote it, or another folder"
            )
        if found.get("hash") == study.hash:
            return
        changes = differences(found.get("config") or {}, study.config.as_dict())
        raise InputError(
            f"`{self.path}` is a study of another configuration (scale {found.get('scale')}, asked "
            f"for {study.scale}): {named(changes) or 'its hash differs'}; name another folder, or "
            "give the configuration that it was begun with"
        )

    def result(self, run: StudyRun) -> dict[str, Any] | None:
        """What a run came to; None if it has not ended.

        Raises:
            RecordError: The file is damaged.
        """
        path = self.of(run) / "result.json"
        if not path.exists():
            return None
        found = read_json(path)
        if found.get("status") not in ("done", "failed") or found.get("run_id") != run.run_id:
            raise RecordError(
                f"`{path}` is not the result of this run: remove the folder `{path.parent}`, and "
                "the run is repeated"
            )
        return found

    def begin(self, run: StudyRun) -> int:
        """Prepares a run's folder for another attempt, and returns the attempt's number, from 1."""
        folder = self.of(run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
        for entry in folder.iterdir():
            if _LEFT_BEHIND.fullmatch(entry.name):
                entry.unlink()
        attempts = folder / "attempts.json"
        before = read_json(attempts)["attempts"] if attempts.exists() else 0
        write_json(attempts, {"attempts": before + 1})
        write_json(folder / "run.json", run.as_dict())
        return int(before) + 1

    def end(self, run: StudyRun, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Writes down what a run came to; from here on it is never repeated."""
        document = {"schema_version": SCHEMA_VERSION, "run_id": run.run_id, **outcome}
        write_json(self.of(run) / "result.json", document)
        return document


def empty(folder: Path) -> None:
    """Removes what an earlier attempt at a run has left, but for what says which run it is."""
    for entry in folder.iterdir():
        if entry.name in ("run.json", "attempts.json"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        RecordError: The file cannot be read, or holds no object.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"`{path}` is damaged: restore it, or remove its folder") from error
    if not isinstance(document, dict):
        raise RecordError(f"`{path}` holds no JSON object: restore it, or remove its folder")
    return document


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Where two JSON documents differ, in words.

    Example:
        >>> differences({"shots": 1024, "lr": 0.1}, {"shots": 100, "lr": 0.1})
        ['`shots` is 1024 there and 100 here']
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*found, *(key for key in wanted if key not in found)]
        texts = [key for key in ("about", "deviations") if key in keys]
        return [
            line
            for key in keys
            if key not in texts
            for line in differences(
                found.get(key), wanted.get(key), f"{place}.{key}" if place else str(key)
            )
        ]
    if found == wanted:
        return []
    return [f"`{place}` is {_brief(found)} there and {_brief(wanted)} here"]


def _brief(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _study_document(study: Study) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": study.config.name,
        "scale": study.scale,
        "hash": study.hash,
        "config": study.config.as_dict(),
        "created_at": utc_now(),
    }
