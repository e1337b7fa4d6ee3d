"""How deep the calls go: a newcomer follows a query from `run` to the pool, and there to NumPy."""

from __future__ import annotations

import os
import sys
import traceback

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes

import distributed_estimator
from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.backends import statevector
from distributed_estimator.execution.pools import ThreadPool

TO_THE_POOL = 9  # one of them runs the noise factors, of which there are mostly one
IN_WORKER = 5  # one of them simulates alone, for forecasts of noise as well
PACKAGE = os.path.dirname(distributed_estimator.__file__)


def frames():
    """(file, function) of the package's calls below the caller of this function's caller."""
    codes = [frame.f_code for frame, _ in traceback.walk_stack(sys._getframe(2))]
    ours = [code for code in codes if code.co_filename.startswith(PACKAGE)]
    ours = [code for code in ours if code.co_name != "apply_real_gate"]  # a kernel itself
    return [(os.path.relpath(code.co_filename, PACKAGE), code.co_name) for code in ours]


def in_worker(calls):
    """Those of a worker, on whatever thread or process it runs."""
    last = max(n for n, (file, _) in enumerate(calls) if file == "execution/worker.py")
    return calls[: last + 1]


class Watched(ThreadPool):
    """Gets every job, however short, and notes who hands it over."""

    job_seconds = 0.0

    def __init__(self):
        super().__init__(2)
        self.callers = []

    def submit(self, order, tell):
        self.callers.append(frames())
        super().submit(order, tell)


@pytest.fixture
def kernel_callers(monkeypatch):
    """Who calls the kernels that gates and outcomes go through."""
    callers = []

    def watch(module, name):
        kernel = getattr(module, name)

        def watched(*arguments):
            callers.append(frames())
            return kernel(*arguments)

        monkeypatch.setattr(module, name, watched)

    watch(statevector, "apply_gate")
    watch(statevector, "outcome_grams")
    return callers


@pytest.mark.parametrize("accuracy", [{"default_precision": 0.0}, {"shots": 64}, {}])
@pytest.mark.parametrize("gradient", [False, True])
def test_few_calls_lie_between_run_and_the_pool_and_in_a_worker(accuracy, gradient, kernel_callers):
    circuit, point = real_amplitudes(4, reps=1), np.linspace(0, 1, 8)
    pool = Watched()
    options = EstimatorOptions(seed=1, **accuracy)
    with DistributedEstimator("AABB", pool=pool, options=options) as estimator:
        if gradient:
            FragmentGradient(estimator).run([circuit], ["ZZZZ"], [point]).result()
        else:
            for _ in range(2):  # the second may run in the caller's own thread
                estimator.run([(circuit, "ZZZZ", point)]).result()
    pool.close()
    longest = max(pool.callers, key=len)
    assert len(longest) <= TO_THE_POOL, longest
    deepest = max(map(in_worker, kernel_callers), key=len)
    assert len(deepest) <= IN_WORKER, deepest
