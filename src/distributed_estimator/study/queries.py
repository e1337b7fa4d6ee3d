"""Runs of kind "queries": single queries of a workload's network, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.load import load_queries
from ..backends.fleet import Fleet, homogeneous
from ..errors import TrainingStoppedError
from ..estimator import DistributedEstimator, EstimatorOptions
from ..records import QueryRecord, RecordWriter
from ..reference import ReferenceEstimator
from ..reference.aer import lifted_limit, sampler_class, thread_options
from ..training.models import build_model, initial_weights
from .bounds import query_bound
from .folder import empty
from .runs import StudyRun, model_config, policy_of, stragglers_of, workload_config
from .trainings import cached_workload

Estimator = DistributedEstimator | ReferenceEstimator
Stop = Callable[[], bool]
Log = Callable[[str], RecordWriter]
"""Opens the record file of that name in the run's folder."""


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

        threads = stack.enter_context(_simulator_threads(run))
        estimator = stack.enter_context(_closed_at_end(_estimator(run, log)))
        for done, row in enumerate(rows, start=1):
            estimator.run([(circuit, observable, row)]).result()
            if stop() and done < len(rows):
                raise TrainingStoppedError(f"stopped after {done} of {len(rows)} queries")
    numbers = _numbers(load_queries(folder / "queries.jsonl"))
    bound = query_bound(run, folder)
    results = {**numbers["results"], "simulator_threads": threads, "lower_bound": bound}
    return {**numbers, "results": results}


def _simulator_threads(run: StudyRun) -> AbstractContextManager[int]:
    """Gives Aer the threads that a run asks for; one needs nothing done."""
    threads: int | None = run.config["simulator_threads"]
    return nullcontext(1) if threads == 1 else lifted_limit(threads)


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


def _estimator(run: StudyRun, log: Log) -> Estimator:
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
    return aer_sampler(config["shots"], config["seed"])


@contextmanager
def _closed_at_end(estimator: Estimator) -> Iterator[Estimator]:
    """Ends the workers of an estimator that has some."""
    try:
        yield estimator
    finally:
        if isinstance(estimator, DistributedEstimator):
            estimator.close()


def aer_sampler(shots: int, seed: int) -> Any:
    """Aer's sampler with one thread a worker.

    Raises:
        MissingExtraError: qiskit-aer is not installed.
    """
    sampler: Any = sampler_class("the backend `aer`")
    return sampler(default_shots=shots, seed=seed, options=thread_options(1))


def _numbers(records: list[QueryRecord]) -> dict[str, Any]:
    seconds = [record.t_total for record in records]
    return {
        "seconds": sum(seconds),
        "results": {
            "num_queries": len(records),
            "median_seconds": float(np.median(seconds)),
            "p95_seconds": float(np.percentile(seconds, 95)),
            "mean_value": float(np.mean([record.value.mean for record in records])),
            "values": [record.value.mean for record in records],
            "stderrs": [record.stderr.mean for record in records],
        },
    }
