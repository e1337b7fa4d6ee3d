"""A study as it is published: the records that its report is made from, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InputError, RecordError, named
from ..records import Record
from .documents import read_document
from .files import LEFT_BEHIND, replaced_files, write_text
from .packed import MANIFEST, RUNS, TABLES, Packed, PackedRun, write_packed
from .study import REPEAT, RunFolders, Study, load_study

ARCHIVE_VERSION = 2
_FILES = ("study.json", MANIFEST, RUNS, *TABLES.values())


class Manifest(msgspec.Struct):
    """What an archive says of itself.

    Attributes:
        study_hash: Of the study's configuration.
        runs: How many there are, by status.
        traces_left_out: Files with single tasks and jobs that are not in it.
        records_sha256: SHA-256 over its other files.
        archive_version: 2; earlier archives, of compressed logs, say nothing.
    """

    study_hash: str
    runs: dict[str, int]
    traces_left_out: int
    records_sha256: str
    archive_version: int = 1


@dataclass(frozen=True)
class Archive:
    """What became of a study's runs.

    Attributes:
        out: The archive.
        ended: How many runs are in it with their records, by status.
        unfinished: Runs that are in it by name alone, with their experiments.
        sizes: Bytes by file.
        left_out: Traces that are not in it.
        digest: SHA-256 of what is in it.
    """

    out: Path
    ended: dict[str, int]
    unfinished: dict[str, str]
    sizes: dict[str, int]
    left_out: int
    digest: str


def pack_study(folder: Path, out: Path) -> Archive | None:
    """Packs a study's runs that have ended; None, and nothing is written, if none has.

    Of the others their `run.json` is kept, so that a report lists them. Of runs of one kind, single
    tasks and jobs are kept of the first alone, which a report draws. An archive that is there
    already is replaced; one that was cut off is none until it is packed again.

    Raises:
        InputError: `folder` is an archive already, or `out` holds other things.
        RecordError: The study cannot be read, or the archive not be written.
    """
    if Packed.is_at(folder):
        raise InputError(f"`{folder}` is an archive already: name the folder that a study ran in")
    _check_place(out)
    study = load_study(folder)
    if study.damaged:
        raise RecordError(
            f"{len(study.damaged)} of the runs of `{folder}` cannot be packed: "
            f"{named(list(study.damaged.values()))}; {REPEAT}"
        )
    ended = study.runs[study.runs.status != "unfinished"]
    if ended.empty:
        return None
    drawn, source = set(study.traced_kinds()), study.source
    assert not isinstance(source, Packed)
    with replaced_files(out, _FILES, last=MANIFEST) as new:
        (new / "study.json").write_bytes((folder / "study.json").read_bytes())
        write_packed(new, _runs(study, source, drawn))
        digest = records_hash(new)
        counts = {str(status): len(part) for status, part in study.runs.groupby("status")}
        left_out = _left_out_before(folder) + sum(
            source.trace_files(run_id) for run_id in ended.run_id if run_id not in drawn
        )
        manifest = Manifest(study.digest, counts, left_out, digest, ARCHIVE_VERSION)
        document = {"schema_version": 1, **msgspec.structs.asdict(manifest)}
        write_text(new / MANIFEST, json.dumps(document, indent=2) + "\n")
        sizes = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
    unfinished = study.runs[study.runs.status == "unfinished"]
    return Archive(
        out,
        {status: count for status, count in counts.items() if status != "unfinished"},
        dict(zip(unfinished.run_id, unfinished.experiment, strict=True)),
        dict(sorted(sizes.items(), key=lambda item: -item[1])),
        left_out,
        digest,
    )


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"`{out}` is a file: name a folder for the archive")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    found = {name for name in names if not LEFT_BEHIND.fullmatch(name)}
    if not found:
        return
    if MANIFEST in found:
        read_document(out / MANIFEST, Manifest)
    elif RUNS not in found:  # as an archive has that was cut off while it was written
        raise InputError(f"`{out}` is not empty and no archive: name a new folder")
    foreign = sorted(found - set(_FILES))
    if foreign:
        raise InputError(
            f"`{out}` holds what no archive has ({named(foreign)}): move that away, or name a new "
            "folder"
        )


def _runs(study: Study, source: RunFolders, drawn: set[str]) -> Iterator[PackedRun]:
    for run_id, run in study.runs.iterrows():
        names = ("run.json", "result.json")
        found = {name: source.document(str(run_id), name)[1] for name in names}
        documents = {name: content for name, content in found.items() if content is not None}
        logs: dict[str, list[Record]] = {}
        if run.status != "unfinished":
            logs = source.logs(str(run_id), traces=run_id in drawn)
        yield PackedRun(str(run_id), run.experiment, documents, logs)


def _left_out_before(folder: Path) -> int:
    """Traces that an archive of an earlier release had left out."""
    path = folder / MANIFEST
    return read_document(path, Manifest).traces_left_out if path.is_file() else 0


def records_hash(folder: Path) -> str:
    """SHA-256 over the files of an archive but for its manifest.

    Raises:
        RecordError: One cannot be read.
    """
    total = hashlib.sha256()
    for name in (*_FILES[:1], *_FILES[2:]):
        try:
            content = (folder / name).read_bytes() if (folder / name).exists() else b""
        except OSError as error:
            raise RecordError(f"cannot read {folder / name}: {error.strerror}") from error
        total.update(f"{name}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """What an archive says of itself, once its records have shown that it still holds.

    Raises:
        RecordError: It is no archive, is damaged, or its records are others than were packed.
    """
    again = f"`dest study pack {{}} --out {folder}`"
    if not (folder / MANIFEST).is_file():
        raise RecordError(
            f"{folder} is no archive of a study: make one with {again.format('STUDY')}"
        )
    manifest = read_document(folder / MANIFEST, Manifest)
    if manifest.archive_version < ARCHIVE_VERSION:
        raise RecordError(
            f"{folder} is an archive of an earlier release: move it away and pack it again with "
            f"{again.format('THE_OLD_ARCHIVE')}"
        )
    if records_hash(folder) != manifest.records_sha256:
        raise RecordError(
            f"{folder} is damaged: its records are not those that were packed (`records_sha256` of "
            f"{MANIFEST} differs); restore them, or pack the study again"
        )
    return manifest


def summary(archive: Archive) -> dict[str, Any]:
    """What was packed, for a JSON document."""
    return {
        "archive": str(archive.out),
        "packed": sum(archive.ended.values()),
        "unfinished": sorted(archive.unfinished),
        "traces_left_out": archive.left_out,
        "bytes": sum(archive.sizes.values()),
        "bytes_by_file": archive.sizes,
        "records_sha256": archive.digest,
    }
