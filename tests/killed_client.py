"""Clients that are killed while they have jobs at a service: for test_jobs.py.

It forks for each client, as imports take longest, and runs nothing itself, so that forks have no
threads to miss.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from qiskit import QuantumCircuit
from standin import sampler_of

from distributed_estimator import DistributedEstimator, EstimatorOptions

OPTIONS = EstimatorOptions(shots_total=3000, seed=7)


def circuit(size: int = 6) -> QuantumCircuit:
    """A chain of qubits."""
    chain = QuantumCircuit(size)
    for qubit in range(size):
        chain.ry(0.3 + qubit, qubit)
    for qubit in range(size - 1):
        chain.cx(qubit, qubit + 1)
    return chain


def run(folder: Path, died: Callable[[str], None]) -> None:
    """An estimate of a client that keeps a journal."""
    sampler = sampler_of(folder / "jobs", died=died)
    with DistributedEstimator(
        "AABBCC", sampler, workers=2, options=OPTIONS, journal=folder / "run.journal"
    ) as estimator:
        estimator.run([(circuit(), "ZZZZZZ")]).result()


def client(folder: Path, dies: tuple[str, int]) -> int:
    """Run a client in a fork; gives the signal that ended it, or 0.

    Args:
        folder: Its jobs and its journal.
        dies: The step at which it is killed, and at the how-many-th such step.
    """
    process = os.fork()
    if process:
        status = os.waitpid(process, 0)[1]
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    steps: Counter[str] = Counter()

    def died(step: str) -> None:
        steps[step] += 1
        if dies == (step, steps[step]):
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        run(folder, died)
    finally:
        os._exit(0)


if __name__ == "__main__":
    place, moments = Path(sys.argv[1]), json.loads(sys.argv[2])
    clients = [client(place / str(n), (step, count)) for n, (step, count) in enumerate(moments)]
    print(json.dumps(clients))
