"""A cost model as a JSON file, and back; nothing in it is ever executed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...checks import is_number
from ...errors import RecordError
from ...records import atomic, given_path
from .data import read_costs
from .features import STAGE_TERMS, TERMS, Features, Setup
from .model import COSTS, LEVEL, CostModel, SetupCosts, Validation

KIND = "cost_model"
MODEL_VERSION = 1
"""Newest schema of model files that is read."""
_MOST_BYTES = 16 * 2**20


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
            f"`{models[0]}` is a cost model: give it alone, or the records of all to fit them anew"
        )
    return read_model(models[0])


def write_model(model: CostModel, path: Path) -> None:
    """Writes a model file, whole or not at all.

    Raises:
        RecordError: It cannot be written, or something other than a model would be lost.
    """
    if path.is_file() and path.stat().st_size and not _is_model(path):
        raise RecordError(f"`{path}` is there and is no cost model: name another file")
    text = json.dumps(model_as_dict(model), indent=2, allow_nan=False)
    try:
        with atomic(path) as unfinished:
            unfinished.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise RecordError(f"cannot write `{path}`: {error.strerror}") from error


def read_model(path: Path) -> CostModel:
    """Reads a model file.

    Raises:
        RecordError: It is missing, damaged or of a newer schema.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RecordError(f"`{path}` is too large for a cost model: name another file")
        data = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise RecordError(f"cannot read `{path}`: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise _damaged(path, f"its kind is not {KIND}")
    version = data.get("schema_version")
    if type(version) is not int:
        raise _damaged(path, "it has no whole number `schema_version`")
    if version > MODEL_VERSION:
        raise RecordError(
            f"the schema version of `{path}` is {version} and this release reads up to "
            f"{MODEL_VERSION}: install a newer distributed-estimator, or fit the records anew"
        )
    try:
        return _model(data)
    except KeyError as error:
        raise _damaged(path, f"it has no {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _damaged(path, str(error)) from error


def model_as_dict(model: CostModel) -> dict[str, Any]:
    """A model as JSON has it."""
    return {
        "kind": KIND,
        "schema_version": MODEL_VERSION,
        "level": model.level,
        "data_hash": model.data_hash,
        "sources": list(model.sources),
        "left_out": model.left_out,
        "too_few": [asdict(s) | {"configurations": n} for s, n in model.too_few.items()],
        "setups": [asdict(own) for own in model.setups],
    }


def _is_model(path: Path) -> bool:
    """Whether a file claims to be a model."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError:
        return False  # whoever reads it as records says why
    return re.search(rb'"kind"\s*:\s*"%b"' % KIND.encode(), start) is not None


def _model(data: Mapping[str, Any]) -> CostModel:
    level = _number(data["level"], "level", 0, 1)
    few = {_setup(entry): _count(entry["configurations"]) for entry in data["too_few"]}
    return CostModel(
        setups=tuple(_costs(entry) for entry in data["setups"]),
        level=level,
        too_few=few,
        left_out={reason: _count(count) for reason, count in data["left_out"].items()},
        data_hash=str(data["data_hash"]),
        sources=tuple(
            {name: source[name] for name in ("versions", "machine", "processor")}
            for source in data["sources"]
        ),
    )


def _costs(entry: Mapping[str, Any]) -> SetupCosts:
    unknown = {name for own in entry["weights"].values() for name in own} - set(TERMS)
    if unknown:
        raise ValueError(f"it has the unknown terms {sorted(unknown)}")
    return SetupCosts(
        setup=_setup(entry["setup"]),
        weights={
            stage: {
                name: _number(weight, f"weight of {name}", 0)
                for name, weight in entry["weights"][stage].items()
            }
            for stage in STAGE_TERMS
        },
        factors=_by_cost(entry["factors"], "factor of", 1),
        ranges={f.name: _range(entry["ranges"][f.name], f.name) for f in fields(Features)},
        num_records=_count(entry["num_records"]),
        validation=_validation(entry["validation"]),
    )


def _setup(entry: Mapping[str, Any]) -> Setup:
    values = {f.name: entry[f.name] for f in fields(Setup)}
    for name, value in values.items():
        wanted = bool if name in ("sampled", "plan_cached") else str
        if not isinstance(value, wanted):
            raise TypeError(f"`{name}` of a setup is {value!r}, expected {wanted.__name__}")
    return Setup(**values)


def _validation(entry: Mapping[str, Any]) -> Validation:
    return Validation(
        configurations=_count(entry["configurations"]),
        median_error=_by_cost(entry["median_error"], "error of", 0),
        p90_error=_by_cost(entry["p90_error"], "error of", 0),
    )


def _by_cost(entry: Mapping[str, Any], what: str, least: float) -> dict[str, float]:
    return {name: _number(entry[name], f"{what} {name}", least) for name in COSTS}


def _range(entry: Any, name: str) -> tuple[float, float]:
    low, high = entry
    return _number(low, f"range of {name}", 0), _number(high, f"range of {name}", 0)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a count of it is {value!r:.40}, expected a whole number of at least 0")
    return value


def _number(value: Any, name: str, least: float, most: float = math.inf) -> float:
    if not (is_number(value) and math.isfinite(value) and least <= value <= most):
        raise ValueError(f"its {name} is {value!r}, expected a number of at least {least:g}")
    return float(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _damaged(path: Path, why: str) -> RecordError:
    return RecordError(
        f"`{path}` is no cost model that can be read: {why}; fit one with `dest predict --fit`"
    )
