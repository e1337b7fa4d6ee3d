"""One circuit on two noisy devices and the local simulator, one of which goes away midway.

Run it with `python examples/hybrid.py`; it needs the extras `aer` and `runtime`, whose fake
devices have the noise of real ones.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import Pauli, Statevector
from qiskit_aer.primitives import SamplerV2
from qiskit_ibm_runtime.fake_provider import FakeLimaV2, FakeManilaV2

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends import StatevectorBackend
from distributed_estimator.backends.devices import Devices
from distributed_estimator.execution import Policy
from distributed_estimator.records import DeviceRecord, TaskRecord, read_records

QUBITS = 8
SHOTS = 400
LIVES = 8
"""Jobs after which a device goes away."""


class Mortal(SamplerV2):
    """Aer's sampler of a device whose connection is lost after some jobs."""

    jobs: Iterator[int]

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        """As any sampler; the estimator runs copies, which share the count of jobs."""
        if next(self.jobs) >= LIVES:
            raise ConnectionError("no route to the device")
        return super().run(pubs, shots=shots)


def chain() -> QuantumCircuit:
    """Rotations, and a CX between all neighbours."""
    angles = np.random.default_rng(3).uniform(-0.4, 0.4, (2, QUBITS))
    circuit = QuantumCircuit(QUBITS)
    for qubit in range(QUBITS):
        circuit.ry(angles[0, qubit], qubit)
    for qubit in range(QUBITS - 1):
        circuit.cx(qubit, qubit + 1)
    for qubit in range(QUBITS):
        circuit.ry(angles[1, qubit], qubit)
    return circuit


def main() -> dict[str, float]:
    """Run 60 jobs, a circuit each, on four fragments; say what became of them."""
    logging.basicConfig(format="%(message)s")  # warnings say which device is lost
    mortal = Mortal.from_backend(FakeManilaV2())
    mortal.jobs = count()
    backend = Devices([mortal, SamplerV2.from_backend(FakeLimaV2()), StatevectorBackend()])
    circuit, observable = chain(), "Z" * QUBITS
    # With `subexperiments=1`, every circuit is a job of its own.
    options = EstimatorOptions(shots=SHOTS, seed=1, policy=Policy(subexperiments=1))
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "jobs.jsonl"
        with DistributedEstimator(
            "AABBCCDD", backend, workers=4, options=options, trace=trace
        ) as estimator:
            result = estimator.run([(circuit, observable)]).result()[0]
        records = list(read_records(trace))

    tasks = {record.key for record in records if isinstance(record, TaskRecord)}
    jobs = [record for record in records if isinstance(record, DeviceRecord)]
    done = Counter(job.task for job in jobs if job.status == "done")
    numbers = {
        "value": float(result.data.evs),
        "stderr": float(result.data.stds),
        "exact": float(Statevector(circuit).expectation_value(Pauli(observable)).real),
        "jobs": float(len(tasks)),
        "lost": float(len(tasks - set(done))),
        "twice": float(sum(times > 1 for times in done.values())),
        "failed": float(sum(job.status == "failed" for job in jobs)),
    }
    print(
        f"value {numbers['value']:.3f} ± {numbers['stderr']:.3f}, without noise "
        f"{numbers['exact']:.3f}"
    )
    print(
        f"{len(tasks)} jobs: {numbers['lost']:.0f} lost, {numbers['twice']:.0f} done twice, "
        f"{numbers['failed']:.0f} failed on the device that went away"
    )
    for number, share in enumerate(backend.shares):
        numbers[f"jobs_{number}"] = float(share.tasks)
        print(f"{share.tasks:3} jobs, {share.shots:6} shots  {share.device}")
    return numbers


if __name__ == "__main__":
    main()
