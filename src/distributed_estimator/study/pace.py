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
    if run.kind == "queries":
        return _START + int(run.config["queries"]) * _query_seconds(run)
    values, gradients = training_queries(run)
    qubits: int = run.config["qubits"]
    if run.pipeline == "reference":
        shifts = 2 * 2 * qubits
        return (values + gradients * shifts) * _at(_REFERENCE, run)
    queries = values + gradients
    seconds = _START + queries * _at(_TRAINING, run) * qubits / 8
    if run.config["robustness"] is not None:
        seconds += _ATTACK
    if run.config["policy_options"]["subexperiments"] == 1 or run.config["straggler_p"]:
        seconds += queries * _per_subexperiment(run) * _subexperiments(run)
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


def _query_seconds(run: StudyRun) -> float:
    config = run.config
    if run.pipeline == "reference":
        return _at(_DEFERRED if config["defer_measurements"] else _REFERENCE, run)
    if config["backend"] == "aer":
        return _at(_AER, run)
    jobs = math.ceil(_at(_SETTINGS, run) / config["workers"])
    seconds = _at(_STATEVECTOR, run) + jobs * _delay(run)
    if config["backend"] == "fleet":
        device = DeviceSpec(name="device", **config["device"])
        seconds += jobs * (2 * device.latency + device.service_seconds(1, config["shots"]))
    return float(seconds)


def _per_subexperiment(run: StudyRun) -> float:
    """Seconds that one adds: its task on one core, and its delay on one of the workers."""
    workers: int = run.config["workers"]
    return _TASK + _delay(run) / workers


def _delay(run: StudyRun) -> float:
    """Seconds that a subexperiment is delayed, on average."""
    return float(run.config["straggler_p"] * run.config["straggler_delay"])


def _subexperiments(run: StudyRun) -> float:
    qubits: int = run.config["qubits"]
    nearest = min(_SUBEXPERIMENTS, key=lambda known: abs(known - qubits))
    return _at(_SUBEXPERIMENTS[nearest], run) * qubits / nearest


def _at(table: tuple[float, ...], run: StudyRun) -> float:
    """The table's value for a run's cuts; beyond it, it goes on growing as it did."""
    cuts: int = run.config["cuts"]
    last = len(table) - 1
    if cuts <= last:
        return table[cuts]
    return float(table[last] * (table[last] / table[last - 1]) ** (cuts - last))
