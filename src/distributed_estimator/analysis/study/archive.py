"""A study as it is published: what its report is made from, compressed, and nothing else.

An archive is a study's folder whose record files are compressed, with an `archive.json` that says
what was left out and carries a hash of all the rest. Whatever reads studies reads archives. The
same study makes the same bytes, whenever and wherever it is packed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, RecordError, named
from ..page.timeline import traced_kinds
from .checks import read_document
from .runs import COMPRESSED, MANIFEST, REPEAT, Run, Study, is_archive, load_study
from .words import counted

ARCHIVE_VERSION = 1
_GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls the format."""
_LOGS = ("queries.jsonl", "robustness-queries.jsonl", "training.jsonl")
_TRACES = ("tasks.jsonl", "devices.jsonl")
"""Large, and drawn of one run of each kind: those of the others are left out."""
_DOCUMENTS = ("run.json", "result.json")


@dataclass(frozen=True)
class Packed:
    """What became of a study's runs.

    Attributes:
        out: The archive.
        ended: Runs that are in it with their records.
        unfinished: Runs that are in it by name alone.
        sizes: Bytes by the kind of file, as they lie in the archive.
        left_out: Traces that are not in it.
        digest: SHA-256 of what is in it.
    """

    out: Path
    ended: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    sizes: dict[str, int]
    left_out: int
    digest: str


def pack_study(folder: Path, out: Path) -> Packed | None:
    """Packs a study's runs that have ended; None, and nothing is written, if none has.

    Of the others their `run.json` is kept, so that a report lists them. An archive that is there
    already is replaced, once the new one is whole.

    Raises:
        InputError: `folder` is an archive, or `out` holds other things.
        RecordError: The study cannot be read, the archive not be written, or the manifest of the
            one in `out` is damaged.
    """
    if is_archive(folder):
        raise InputError(f"`{folder}` is an archive already: name the folder that a study ran in")
    _check_place(out)
    study = load_study(folder)
    if study.damaged:
        raise RecordError(
            f"{counted(len(study.damaged), 'run')} of `{folder}` cannot be packed: "
            f"{named(list(study.damaged.values()))}; {REPEAT}"
        )
    ended = tuple(run for run in study.runs if run.status != "unfinished")
    if not ended:
        return None
    try:
        with _replaced(out.resolve()) as place:
            left_out = _fill(place, study)
            digest = records_hash(place)
            _write_manifest(place, study, left_out, digest)
            sizes = _sizes(place)
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror or error}") from error
    unfinished = tuple(run for run in study.runs if run.status == "unfinished")
    return Packed(out, ended, unfinished, sizes, left_out, digest)


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"`{out}` is a file: name a folder for the archive")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not found:
        return
    if MANIFEST not in found:
        raise InputError(f"`{out}` is not empty and no archive: name a new folder")
    foreign = sorted(found - {"study.json", "runs", MANIFEST})
    if foreign:
        raise InputError(
            f"`{out}` holds what no archive has ({named(foreign)}): move that away, or name a new "
            "folder"
        )
    _read_manifest(out)


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `out` at the end, unless something was raised."""
    out.parent.mkdir(parents=True, exist_ok=True)
    place = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    place.mkdir()
    try:
        yield place
        _take_place(out, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _take_place(out: Path, place: Path) -> None:
    """Gives `place` the name `out`; what had it is removed last, and has it again on errors."""
    old = place.with_name(f"{place.name}.old")
    if out.exists():
        out.rename(old)
    try:
        place.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    if old.exists():
        shutil.rmtree(old)


def _fill(place: Path, study: Study) -> int:
    """Copies and compresses; returns how many traces were left out."""
    _copy(study.folder / "study.json", place / "study.json")
    drawn = {kind[0].run_id for kind in traced_kinds(study)}
    left_out = 0
    for run in study.runs:
        target = place / "runs" / run.folder.name
        target.mkdir(parents=True)
        names = _DOCUMENTS if run.status != "unfinished" else _DOCUMENTS[:1]
        for name in names:
            _copy(run.folder / name, target / name)
        if run.status == "unfinished":
            continue
        for name in (*_LOGS, *_TRACES):
            if name in _TRACES and run.run_id not in drawn:
                left_out += int((run.folder / name).is_file())
            elif (run.folder / name).is_file():
                # Records are digits for the most part: this strategy makes them a tenth smaller.
                # Without a name and a time: the same records make the same bytes.
                packer = zlib.compressobj(
                    9, zlib.DEFLATED, _GZIP, zlib.DEF_MEM_LEVEL, zlib.Z_FILTERED
                )
                _copy(run.folder / name, target / f"{name}.gz", packer)
    return left_out


def _copy(source: Path, target: Path, packer: Any = None) -> None:
    """Copies a file, compressed by `packer` if there is one; what cannot be read is named."""
    with target.open("wb") as copy:
        for block in _blocks(source):
            copy.write(block if packer is None else packer.compress(block))
        copy.write(b"" if packer is None else packer.flush())


def _blocks(path: Path) -> Iterator[bytes]:
    """What a file holds, unpacked.

    Raises:
        RecordError: It cannot be read, or is damaged.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def _write_manifest(place: Path, study: Study, left_out: int, digest: str) -> None:
    statuses = Counter(run.status for run in study.runs)
    document = {
        "schema_version": ARCHIVE_VERSION,
        "study_hash": study.digest,
        "runs": dict(sorted(statuses.items())),
        "traces_left_out": left_out,
        "records_sha256": digest,
    }
    (place / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _sizes(place: Path) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for path in place.rglob("*"):
        if path.is_file():
            sizes[path.name] += path.stat().st_size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def records_hash(folder: Path) -> str:
    """SHA-256 of an archive's documents and records, whatever compressed them.

    Raises:
        RecordError: A file cannot be read, or is damaged.
    """
    found = [folder / "study.json"]
    for pattern in (*(f"runs/*/{name}" for name in _DOCUMENTS), COMPRESSED):
        found += folder.glob(pattern)
    total = hashlib.sha256()
    for path in sorted(found):
        content = hashlib.sha256()
        for block in _blocks(path):
            content.update(block)
        name = path.relative_to(folder).as_posix().removesuffix(".gz")
        total.update(f"{name}\n{content.hexdigest()}\n".encode())
    return total.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an archive says of itself, once its records have shown that it still holds.

    Raises:
        RecordError: It is no archive, is damaged, or its records are others than were packed.
    """
    if not (folder / MANIFEST).is_file():
        raise RecordError(
            f"{folder} is no archive of a study: make one with "
            f"`dest study pack STUDY --out {folder}`"
        )
    manifest = _read_manifest(folder)
    if records_hash(folder) != manifest["records_sha256"]:
        raise RecordError(
            f"{folder} is damaged: its records are not those that were packed (`records_sha256` of "
            f"{MANIFEST} differs); restore them, or pack the study again"
        )
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    return read_document(folder / MANIFEST, {"records_sha256": str, "traces_left_out": int})
