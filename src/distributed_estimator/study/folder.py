"""The folder that keeps a study: what it is, its runs, and what each came to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..analysis.load import read_document
from ..errors import InputError, RecordError, named
from ..records import utc_now
from ..records.files import hold_folder, is_left_behind, read_json, write_json
from ..training.runs import RunFolder
from .load import Study
from .matrix import runs_of
from .runs import SCHEMA_VERSION, StudyRun

_KEPT = ("run.json", "attempts.json", RunFolder(Path()).lock.name)
_REMEDY = "restore it, or remove its folder"


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
            file = hold_folder(self.lock)
        except OSError as error:
            raise InputError(
                f"`{self.path}` cannot be written ({error.strerror}): name another folder"
            ) from error
        if file is None:
            raise InputError(
                f"another program runs the study in `{self.path}`: wait for it, or name another "
                "folder"
            )
        with file:
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
            if entry != self.lock and not is_left_behind(entry.name)
        )
        if others:
            raise InputError(
                f"`{self.path}` holds no study, but {others[0]}: name a new folder for the study"
            )

    def _check_same(self, study: Study) -> None:
        found = read_json(self.study, _REMEDY)
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
        """What a run came to; None if it has not ended.

        Raises:
            RecordError: The file is damaged, of a newer schema or another run's.
        """
        path = self.of(run) / "result.json"
        if not path.exists():
            return None
        remedy = f"remove the folder `{path.parent}`, and the run is repeated"
        try:
            found: dict[str, Any] = read_document(path, dict[str, Any])
        except RecordError as error:
            raise RecordError(f"{error}; or {remedy}") from error
        if found.get("run_id") != run.run_id or not _is_outcome(found):
            raise RecordError(f"`{path}` is not the result of this run: {remedy}")
        return found

    def begin(self, run: StudyRun) -> int:
        """Prepares a run's folder for another attempt, and returns the attempt's number, from 1.

        Raises:
            RecordError: The folder cannot be written, or the number of attempts is damaged.
        """
        folder = self.of(run)
        attempt = 1 + _attempts(folder / "attempts.json")
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
        write_json(folder / "attempts.json", {"attempts": attempt})
        write_json(folder / "run.json", run.as_dict())
        return attempt

    def end(self, run: StudyRun, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Writes down what a run came to; from here on it is never repeated."""
        document = {"schema_version": SCHEMA_VERSION, "run_id": run.run_id, **outcome}
        write_json(self.of(run) / "result.json", document)
        return document


def _is_outcome(result: Mapping[str, Any]) -> bool:
    """Whether a result says what its status promises."""
    if type(result.get("attempts")) is not int:
        return False
    if result.get("status") == "done":
        return isinstance(result.get("results"), dict)
    return result.get("status") == "failed" and isinstance(result.get("cause"), str)


def _attempts(path: Path) -> int:
    """Attempts at a run that were begun; none where nothing tells of any."""
    if not path.exists():
        return 0
    remedy = "remove it, and they are counted from 1"
    attempts = read_json(path, remedy).get("attempts")
    if type(attempts) is not int or attempts < 0:
        raise RecordError(
            f"`{path}` is damaged: `attempts` is {attempts!r:.40}, expected a number of them; "
            + remedy
        )
    return attempts


def empty(folder: Path) -> None:
    """Removes what an earlier attempt at a run has left.

    What says which run it is stays, and so does the lock of a trainer, which may be held.
    """
    for entry in folder.iterdir():
        if entry.name in _KEPT:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


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
        "runs": [run.run_id for run in runs_of(study)],
    }
