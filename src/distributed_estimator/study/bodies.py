"""What a run of a study does: a training with the attacks on its network, or single queries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.load import load_queries
from ..backends.fleet import Fleet, homogeneous
from ..errors import DamagedCheckpointError, TrainingStoppedError
from ..estimator import DistributedEstimator, EstimatorOptions
from ..records import DeviceRecord, RecordWriter, read_records
from ..reference import ReferenceEstimator
from ..reference.execution import lifted_limit, sampler_class, thread_options
from ..simulation import lower_bound
from ..training.config import TrainingConfig
from ..training.loop import config_of, resume, train
from ..training.models import build_model, initial_weights
from ..training.robustness import RobustnessFiles, evaluate_robustness
from ..training.runs import RunFolder, TrainingResult
from ..training.workloads import Workload, WorkloadConfig, load_workload
from .folder import empty
from .runs import (
    StudyRun,
    attack_config,
    model_config,
    policy_of,
    stragglers_of,
    training_config,
    workload_config,
)

Stop = Callable[[], bool]
Log = Callable[[str], RecordWriter]
"""Opens the record file of that name in the run's folder."""


def run_training(run: StudyRun, folder: Path, attempt: int, stop: Stop) -> dict[str, Any]:
    """Trains, attacks, and returns the numbers; what an earlier attempt has trained is kept.

    Args:
        run: The run.
        folder: Its folder.
        attempt: The attempt's number, which goes into the headers of its records.
        stop: Asked after every step.

    Raises:
        TrainingStoppedError: `stop` said so.
        CheckpointError: Another process trains in the folder, data or logs of an earlier attempt
            are damaged, or its checkpoint cannot be read or is of another version; nothing was
            changed.
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


@lru_cache(maxsize=4)
def cached_workload(config: WorkloadConfig) -> Workload:
    """A workload's samples; runs of a study share them, and MNIST takes seconds to load."""
    return load_workload(config)


def _train(run: StudyRun, folder: RunFolder, stop: Stop) -> TrainingResult:
    config = training_config(run)
    with folder.held():  # another trainer's files are its own
        goes_on = _goes_on(folder, config)
        if not goes_on:
            empty(folder.path)
    if goes_on:
        return resume(folder, stop=stop)
    return train(cached_workload(workload_config(run)), config, folder, stop=stop)


def _goes_on(folder: RunFolder, config: TrainingConfig) -> bool:
    """Whether an earlier attempt left a checkpoint of this training that is not damaged.

    One that cannot be read, this time or by this version, is an error: it may be sound.
    """
    try:
        return folder.checkpoint.exists() and config_of(folder) == config
    except DamagedCheckpointError:
        return False


def _asked(run: StudyRun, folder: RunFolder) -> dict[str, int]:
    """Values and gradients asked for, and the single queries that these are for the reference.

    Its gradients are parameter shifts: two queries for each place that a weight has.
    """
    records = load_queries(folder.queries)
    values = sum(r.num_queries for r in records if r.quantity == "value")
    gradients = sum(r.num_queries for r in records if r.quantity == "gradient")
    model = build_model(model_config(run), run.config["qubits"])
    weights = set(model.weights)
    places = sum(
        len(weights & set(getattr(angle, "parameters", ())))
        for instruction in model.circuit.data
        for angle in instruction.operation.params
    )
    if run.pipeline == "reference":
        return {"values": values, "gradients": 0, "reference_queries": values}
    shifted = values + 2 * places * gradients
    return {"values": values, "gradients": gradients, "reference_queries": shifted}


def _attack(run: StudyRun, folder: RunFolder, stop: Stop) -> dict[str, Any]:
    attacks = attack_config(run)
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

    Args:
        run: The run.
        folder: Its folder.
        attempt: The attempt's number, which goes into the headers of its records.
        stop: Asked after every query.

    Raises:
        TrainingStoppedError: `stop` said so.
    """
    empty(folder)
    circuit, observable, rows = _problem(run)
    with ExitStack() as stack:

        def log(name: str) -> RecordWriter:
            writer = RecordWriter(folder / name, config_hash=run.run_id, attempt=attempt)
            return stack.enter_context(writer)

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


def _problem(run: StudyRun) -> tuple[Any, Any, Any]:
    """Circuit, observable and the parameter values of each query, in the circuit's order."""
    model = build_model(model_config(run), run.config["qubits"])
    samples = cached_workload(workload_config(run)).x_train
    weights = initial_weights(model, run.config["seed"])
    places = {parameter: place for place, parameter in enumerate(model.circuit.parameters)}
    rows = np.empty((run.config["queries"], len(places)))
    chosen = samples[np.arange(len(rows)) % len(samples)]
    rows[:, [places[parameter] for parameter in model.inputs]] = chosen
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
            stragglers=stragglers_of(run),
            log=log("queries.jsonl"),
            defer_measurements=config["defer_measurements"],
            simulator_threads=config["simulator_threads"],
        )
    options = EstimatorOptions(
        shots=config["shots"],
        seed=config["seed"],
        policy=policy_of(run),
        stragglers=stragglers_of(run),
    )
    return DistributedEstimator(
        config["label"],
        _backend(run, log),
        config["pool"],
        config["workers"],
        options,
        log("queries.jsonl"),
        trace=log("tasks.jsonl") if config["trace"] else None,
    )


def _backend(run: StudyRun, log: Log) -> Any:
    config = run.config
    if config["backend"] == "fleet":
        devices = homogeneous(config["devices"], seed=config["seed"], **config["device"])
        return Fleet(devices, log=log("devices.jsonl"))
    if config["backend"] == "statevector":
        return None
    sampler: Any = sampler_class("the backend `aer`")
    return sampler(default_shots=config["shots"], seed=config["seed"], options=thread_options(1))


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
    return lower_bound(services, workers, stragglers_of(run), subexperiments)
