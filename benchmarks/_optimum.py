"""The fewest shots a cut query can do with to first order: an oracle that no run can beat.

To first order a value is linear in the tensors of its fragments, y = Σ_f e_f · x_f. With n_s shots
for setting s the best linear unbiased estimate of e · x has the variance e' M(n)⁻¹ e, where M(n) is
Σ_s n_s I_s and I_s the information of one shot. `fewest` minimises it over the shots, and divides
them between fragments, with everything known that a run has to find out: probabilities and
derivatives. Its method, multiplicative updates with a bound on what is left, is not the
estimator's, so that one checks the other.

The observable is one Pauli string.
"""

from __future__ import annotations

import numpy as np

from benchmarks._cut_circuits import CutCircuit
from benchmarks._workload import Floats
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.pipeline.preparation import Preparation, Prepared
from distributed_estimator.pubs import batch_of
from distributed_estimator.subexperiments import FragmentExperiment, make_tasks

KNOWN = 10**12
"""Shots of a circuit after which its probabilities are known."""
STEPS, OFF = 3000, 0.005
"""Updates at most, and how far the variance may be above the least one, as a fraction."""
SURE = 1e-9
"""Least variance of an outcome; those of a sure one have none."""


def fewest(case: CutCircuit) -> Floats:
    """Variance × shots at the optimum, of every binding."""
    preparation = Preparation(case.labels, "full", StatevectorBackend())
    batch = batch_of(case.circuit, [case.observable] * len(case.bindings), case.bindings)
    prepared, _ = preparation.prepare(batch.circuit, batch.observables)
    return np.array([_fewest(prepared, values) for values in case.bindings])


def _fewest(prepared: Prepared, values: Floats) -> float:
    plan = prepared.plan
    angles = plan.normal.angles.evaluate(values[None])
    tables = [
        _outcomes(experiment, angles[:, experiment.fragment.angles])
        for experiment in prepared.experiments
    ]
    tensors = [
        experiment.layout.means(signed[None, None]).reshape(1, *experiment.fragment.shape)
        for experiment, (_, signed) in zip(prepared.experiments, tables, strict=True)
    ]
    environments = prepared.network.environments([*tensors, *(c.cores(angles) for c in plan.cuts)])
    roots = [
        np.sqrt(_least_variance(_information(experiment, *table), environment.ravel()))
        for experiment, table, environment in zip(
            prepared.experiments, tables, environments[: len(tables)], strict=True
        )
    ]
    return float(sum(roots)) ** 2


def _outcomes(experiment: FragmentExperiment, angles: Floats) -> tuple[Floats, Floats]:
    """Probabilities of a fragment's outcomes, and the same signed by the observable."""
    (task,) = make_tasks(
        0, experiment, angles, KNOWN, "", rows_per_task=1, circuits_per_task=None, chunks=1
    )
    (counts,) = StatevectorBackend().run(experiment, task).counts
    (single,) = experiment.groups[0].singles
    return counts[0, 0] / KNOWN, counts[0, single] / KNOWN


def _information(experiment: FragmentExperiment, plain: Floats, signed: Floats) -> Floats:
    """Of one shot of each setting, shape (settings, coordinates, coordinates)."""
    layout, found = experiment.layout, []
    for setting in range(layout.num_settings):
        places = np.flatnonzero(layout.setting_of == setting)
        rows, means = layout.outcome_rows[places], signed[places]
        covariance = np.diag(plain[places] + SURE) - np.outer(means, means)
        found.append(rows.T @ np.linalg.solve(covariance, rows))
    return np.array(found)


def _least_variance(information: Floats, environment: Floats) -> float:
    """The least e' M(n)⁻¹ e where the shots n add up to one.

    The derivatives of the variance φ by the shots are -d, with Σ n d = φ; as it is convex, it is
    nowhere below φ (2 - max d / φ).
    """
    count, best = len(information), np.inf
    shares = np.full(count, 1 / count)
    for _ in range(STEPS):
        total = np.tensordot(shares, information, 1)
        solved = np.linalg.solve(total, environment)
        variance = float(environment @ solved)
        slopes = (information @ solved) @ solved
        best = min(best, variance)
        if slopes.max() <= (1 + OFF) * variance or variance <= 0:
            break
        shares = shares * np.sqrt(np.maximum(slopes, 0.0))
        shares = (1 - SURE) * shares / shares.sum() + SURE / count
    return best
