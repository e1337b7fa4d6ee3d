"""A study as it is published: the records that its report is made from, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InputError, RecordError, named
from ..records import Header, encode, to_dict
from .load import LOGS, MANIFEST, RUNS, SOURCE_COLUMNS, TABLES, TRACES, Packed, read_document
from .study import REPEAT, Study, load_study

ARCHIVE_VERSION = 2
_FILES = ("study.json", MANIFEST, RUNS, *TABLES.values())
_LEFT_BEHIND = re.compile(r"\.[0-9a-f]{8}")
"""Names of folders that a killed program may leave."""


class Manifest(msgspec.Struct):
    """What an archive says of itself: runs by status, traces left out, SHA-256 of its other files.

    Earlier archives, of compressed logs, say no version.
    """

    study_hash: str
    runs: dict[str, int]
    traces_left_out: int
    records_sha256: str
    archive_version: int = 1


@dataclass(frozen=True)
class Archive:
    """What became of a study's runs.

    `ended` counts runs that are in the archive with their records, by status; `unfinished` has the
    experiments of those that are in it by name alone, `sizes` bytes by file.
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
    tasks and jobs are kept of the first alone, which a report draws. The same runs make the same
    bytes. An archive that is there already is replaced; one that was cut off is none until it is
    packed again.

    Raises:
        InputError: `folder` is an archive already, or `out` holds other things.
        RecordError: The study cannot be read, the archive not be written, or a record holds what
            Parquet cannot, such as a whole number of over 64 bits.
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
    counts = {str(status): len(part) for status, part in study.runs.groupby("status")}
    ended = {status: count for status, count in counts.items() if status != "unfinished"}
    if not ended:
        return None
    unfinished = study.runs[study.runs.status == "unfinished"]
    drawn = set(study.traced_kinds())
    left_out = sum(
        count
        for run_id, count in study.source.traced(*TRACES).items()
        if run_id not in drawn | set(unfinished.run_id)
    )
    if (folder / MANIFEST).is_file():  # an archive of an earlier release
        left_out += read_document(folder / MANIFEST, Manifest).traces_left_out
    with replaced_files(out, _FILES, last=MANIFEST) as new:
        (new / "study.json").write_bytes((folder / "study.json").read_bytes())
        _write_runs(new, study, drawn)
        manifest = Manifest(study.digest, counts, left_out, records_hash(new), ARCHIVE_VERSION)
        document = {"schema_version": 1, **msgspec.structs.asdict(manifest)}
        write_text(new / MANIFEST, json.dumps(document, indent=2) + "\n")
        sizes = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
    return Archive(
        out,
        ended,
        dict(zip(unfinished.run_id, unfinished.experiment, strict=True)),
        dict(sorted(sizes.items(), key=lambda item: -item[1])),
        left_out,
        manifest.records_sha256,
    )


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"`{out}` is a file: name a folder for the archive")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    found = {name for name in names if not _LEFT_BEHIND.fullmatch(name)}
    if MANIFEST in found:
        read_document(out / MANIFEST, Manifest)
    elif found and RUNS not in found:  # as an archive has that was cut off while it was written
        raise InputError(f"`{out}` is not empty and no archive: name a new folder")
    foreign = sorted(found - set(_FILES))
    if foreign:
        raise InputError(
            f"`{out}` holds what no archive has ({named(foreign)}): move that away, or name a new "
            "folder"
        )


def _write_runs(place: Path, study: Study, drawn: Collection[str]) -> None:
    """Writes the documents and records of all runs; tasks and jobs of those that are drawn."""
    rows: list[dict[str, Any]] = []
    records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for run_id, experiment, status in study.runs[["run_id", "experiment", "status"]].to_numpy():
        names = (*LOGS, *TRACES) if run_id in drawn else LOGS
        headers = []
        for file in names if status != "unfinished" else ():
            source = dict(zip(SOURCE_COLUMNS, (run_id, file), strict=True))
            for record in study.source.log(run_id, file):
                if isinstance(record, Header):
                    headers.append({"file": file, "header": encode(record).decode()})
                else:
                    records[record.kind].append({**source, **to_dict(record)})
        row = {"run_id": run_id, "experiment": experiment}
        for name in ("run", "result"):
            content = study.source.document(run_id, f"{name}.json")[1]
            row[name] = None if content is None else content.decode()
        rows.append({**row, "headers": headers})
    _write(place / RUNS, rows)
    for kind, found in records.items():
        _write(place / TABLES[kind], found)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    if not any(row.get("metrics") for row in rows):  # Parquet has no empty struct
        rows = [{k: v for k, v in row.items() if k != "metrics"} for row in rows]
    try:
        try:
            table = pyarrow.Table.from_pylist(rows)
        except UnicodeEncodeError:  # half a character, as in the name of some file
            text = json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace")
            table = pyarrow.Table.from_pylist(json.loads(text))
        parquet.write_table(table, path, compression="zstd", compression_level=19)
    except (pyarrow.ArrowException, OverflowError) as error:
        raise RecordError(f"the records cannot be written as {path.name}: {error}") from error


def records_hash(folder: Path) -> str:
    """SHA-256 over the files of an archive but for its manifest."""
    total = hashlib.sha256()
    for name in (name for name in _FILES if name != MANIFEST):
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


# Files of a report or an archive, which take their places together


@contextmanager
def replaced_files(
    out: Path, known: Collection[str] = (), last: str | None = None
) -> Iterator[Path]:
    """A folder to fill, whose files take their places in `out` at the end.

    If it cannot be filled, or a folder is in the place of a file, `out` is as it was. Of the files
    in it, `known` ones that are not among the new are removed, others stay. The file `last` is
    removed first and takes its place last: where it is, all are whole.
    """
    new = out / f".{secrets.token_hex(4)}"
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        new.mkdir(parents=True)
        yield new
        old = [name for name in known if not (new / name).exists()]
        if last is not None:
            (out / last).unlink(missing_ok=True)
        try:
            _move(new, out, last)
        except KeyboardInterrupt:  # half of them would be two reports in one
            _move(new, out, last)
            raise
        for name in old:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        blamed = error.filename2 or error.filename
        if blamed is None or new.name in str(blamed):
            blamed = out
        raise RecordError(f"cannot write {blamed}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # what is not empty stays
                place.rmdir()


def _move(new: Path, out: Path, last: str | None) -> None:
    files = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    for file in files:
        if (out / file).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out / file))
        (out / file).parent.mkdir(parents=True, exist_ok=True)
    for file in sorted(files, key=lambda file: (file.name == last, file)):
        (new / file).replace(out / file)


def write_text(path: Path, text: str) -> None:
    """Writes a file with the same bytes on every system, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
