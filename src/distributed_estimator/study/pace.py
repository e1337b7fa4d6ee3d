"""How long a study takes, before it is begun: from a small table of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..backends.fleet import DeviceSpec
from .config import SIZES
from .runs import StudyRun

# Seconds by number of cuts, 0 to 3: medians on two cores, Python 3.11, one thread in NumPy's BLAS.
_TRAINING = (0.00022, 0.00014, 0.0002, 0.00025)
"""A query of a training on 8 qubits: a value, or a gradient by all weights."""
_REFERENCE = (0.01, 0.28, 2.4, 18.5)
_DEFERRED = (0.01, 0.09, 0.85, 7.5)
"""The reference with deferred measurements."""
_AER = (0.007, 0.035, 0.065, 0.09)
_STATEVECTOR = (0.003, 0.004, 0.005, 0.005)
_SUBEXPERIMENTS = {4: (5.4, 24.0, 33.0, 35.0), 8: (7.4, 42.0, 115.0, 156.0)}
"""Of a query of a training, on average over values and gradients."""
_SETTINGS = (1.0, 10.0, 35.0, 60.0)
"""Circuits of a single query."""
_TASK = 0.0015
"""One that holds a single subexperiment."""
_START, _LOAD, _ATTACK = 0.1, {"mnist": 2.0}, 0.6
"""A run's beginning, its data, and the attacks on it."""


def expected_seconds(run: StudyRun) -> float:
    """About how long a run takes on a laptop; right within a factor of about two."""
    config = run.config
    qubits, workers = int(config["qubits"]), int(config["workers"])
    delay = float(config["straggler_p"] * config["straggler_delay"])  # of one, on average
    if run.kind == "queries":
        return _START + int(config["queries"]) * _query_seconds(run, workers, delay)
    values, gradients = training_queries(run)
    if run.pipeline == "reference":
        shifts = 2 * 2 * qubits
        return (values + gradients * shifts) * _at(_REFERENCE, run)
    queries = values + gradients
    seconds = _START + queries * _at(_TRAINING, run) * qubits / 8
    if config["robustness"] is not None:
        seconds += _ATTACK
    if config["policy_options"]["subexperiments"] == 1 or config["straggler_p"]:
        nearest = min(_SUBEXPERIMENTS, key=lambda known: abs(known - qubits))
        subexperiments = _at(_SUBEXPERIMENTS[nearest], run) * qubits / nearest
        # Each adds its task on one core, and its delay on one of the workers.
        seconds += queries * subexperiments * (_TASK + delay / workers)
    return seconds


def total_seconds(runs: Iterable[StudyRun]) -> float:
    """The same for several runs, with the time that their data take to load."""
    runs = list(runs)
    loads = {(run.config["dataset"], run.config["qubits"], run.config["seed"]) for run in runs}
    loading = sum(_LOAD.get(dataset, 0.1) for dataset, _, _ in loads)
    return loading + sum(expected_seconds(run) for run in runs)


def training_queries(run: StudyRun) -> tuple[int, int]:
    """About how many values and gradients a training asks for, scores of epochs included."""
    config = run.config
    _, train, test = SIZES[config["dataset"]]
    train, test = min(train, config["samples"] or train), min(test, config["test_samples"] or test)
    epochs: int = config["epochs"]
    return (epochs + 1) * (train + test) + epochs * train, epochs * train


def _query_seconds(run: StudyRun, workers: int, delay: float) -> float:
    config = run.config
    if run.pipeline == "reference":
        return _at(_DEFERRED if config["defer_measurements"] else _REFERENCE, run)
    if config["backend"] == "aer":
        return _at(_AER, run)
    jobs = math.ceil(_at(_SETTINGS, run) / workers)
    seconds = _at(_STATEVECTOR, run) + jobs * delay
    if config["backend"] == "fleet":
        device = DeviceSpec(name="device", **config["device"])
        seconds += jobs * (2 * device.latency + device.service_seconds(1, config["shots"]))
    return float(seconds)


def _at(table: tuple[float, ...], run: StudyRun) -> float:
    """The table's value for a run's cuts; beyond it, it goes on growing as it did."""
    beyond = max(0, run.config["cuts"] - len(table) + 1)
    return float(table[run.config["cuts"] - beyond] * (table[-1] / table[-2]) ** beyond)
