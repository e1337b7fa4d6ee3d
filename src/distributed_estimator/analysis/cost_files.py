"""Cost models and the records that they are fitted to, in files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from ..errors import RecordError
from ..records import Header, QueryRecord, atomic, given_path
from .costs import LEVEL, MODEL_VERSION, CostModel
from .load import RUNS, record_files, records_of

_LOGS = ("queries.jsonl", "queries.jsonl.gz")


def read_costs(*paths: str | os.PathLike[str]) -> tuple[list[QueryRecord], list[Header]]:
    """Query records and headers of record files, and of all `queries.jsonl` in folders.

    A file is read once, however many paths lead to it.

    Raises:
        RecordError: A path is missing, a folder has no such file, or a file is damaged.
    """
    files = {file.resolve(): file for path in paths for file in record_files(path, _LOGS)}
    found = [
        record
        for file in files.values()
        for source, record in records_of(file, file)
        if file.name != RUNS or source.file.endswith("/queries.jsonl")
    ]
    queries = [record for record in found if isinstance(record, QueryRecord)]
    if not queries:
        places = ", ".join(f"`{path}`" for path in paths)
        raise RecordError(f"{places} has no query record: name the files of a finished run")
    return queries, [record for record in found if isinstance(record, Header)]


def load_costs(*paths: str | os.PathLike[str], level: float = LEVEL) -> CostModel:
    """A model from one model file, or fitted to record files and folders of runs and studies.

    Args:
        paths: One model file, or any number of record files and folders.
        level: Probability of the intervals of a fit; a file has its own.

    Raises:
        InputError: `level` is not between 0 and 1.
        RecordError: A file cannot be read or is damaged, or there are too few records.
    """
    files = [given_path(path) for path in paths]
    models = [file for file in files if _is_model(file)]
    if not models:
        return CostModel.fit(*read_costs(*files), level)
    if len(files) > 1:
        raise RecordError(
            f"`{models[0]}` is a cost model: give it alone, or the records of all to fit them again"
        )
    return read_model(models[0])


def write_model(model: CostModel, path: Path) -> None:
    """Writes a model file, whole or not at all.

    Raises:
        RecordError: It cannot be written, or something other than a model would be lost.
    """
    if path.is_file() and path.stat().st_size and not _is_model(path):
        raise RecordError(f"`{path}` exists and is no cost model: name another file")
    text = json.dumps(msgspec.to_builtins(model), indent=2, allow_nan=False)
    try:
        with atomic(path) as unfinished:
            unfinished.write_text(text + "\n", "ascii")
    except OSError as error:
        raise RecordError(f"cannot write `{path}`: {error.strerror}") from error


class _Version(msgspec.Struct):
    schema_version: int = MODEL_VERSION


def read_model(path: Path) -> CostModel:
    """Reads a model file; nothing in it is ever executed.

    Raises:
        RecordError: It is missing, damaged or of a newer schema.
    """
    try:
        data = json.loads(path.read_bytes())
        version = msgspec.convert(data, _Version).schema_version
        if version <= MODEL_VERSION:
            return msgspec.convert(data, CostModel)
    except OSError as error:
        raise RecordError(f"cannot read `{path}`: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no JSON, or not of the declared types
        raise RecordError(
            f"`{path}` is no cost model that can be read ({error}): fit one with `dest predict "
            "--fit`"
        ) from error
    raise RecordError(
        f"the schema version of `{path}` is {version} and this release reads up to "
        f"{MODEL_VERSION}: install a newer distributed-estimator, or fit the records again"
    )


def _is_model(path: Path) -> bool:
    """Whether a file claims to be a model."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return b'"cost_model"' in file.read(200)
    except OSError:
        return False  # whoever reads it as records says why
