"""Seeded results that must agree on any processor; run as a script, it prints them as JSON."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate, real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import random_unitary
from qiskit_aer.primitives import SamplerV2 as AerSampler

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient
from distributed_estimator.cli.main import main
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import train
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.workloads import WorkloadConfig, load_workload

SHOTS = 120
"""With probabilities of 1/4 and 1/2: where NumPy's binomial takes another branch."""


def qnn():
    return z_feature_map(4).compose(real_amplitudes(4, reps=1, entanglement="linear"))


def simple():
    """Outcomes of probability 0, 1/4 and 1/2, known to rounding."""
    circuit = QuantumCircuit(4)
    circuit.h(0)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    return circuit


def general():
    """Cuts whose bases come out of a singular value decomposition, degenerate ones too."""
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(0.4 + qubit, qubit)
    flip = np.kron([[0, 1], [1, 0]], np.eye(2)) @ np.diag([1, 1, 1, -1])
    circuit.cz(0, 1)
    circuit.swap(1, 2)
    circuit.append(UnitaryGate(flip), [1, 2])
    circuit.append(UnitaryGate(random_unitary(4, seed=5)), [2, 3])
    return circuit


def estimates():
    found = {}
    theta = np.random.default_rng(3).uniform(-3, 3, (4, 12))
    pubs = [
        (qnn(), ["ZZZZ", "XXII", "YIIY"], theta[:, None]),
        (simple(), ["ZZZZ", "XXXX"]),
        (general(), ["ZZZZ", "XYII"]),
    ]
    cases = {
        "full": ("AABB", None, {"setting_basis": "full", "shots": SHOTS}),
        "minimal": ("ABBC", None, {"setting_basis": "minimal", "shots": SHOTS}),
        "precision": ("AABB", None, {"default_precision": 0.05}),
        "exact": ("ABBC", None, {"default_precision": 0.0}),
        "statevector sampler": ("AABB", StatevectorSampler(), {"shots": SHOTS}),
        "Aer": ("AABB", AerSampler(), {"shots": SHOTS}),
    }
    for name, (label, backend, options) in cases.items():
        with DistributedEstimator(
            label, backend, workers=2, options=EstimatorOptions(seed=7, **options)
        ) as estimator:
            results = estimator.run(pubs).result()
            found[name] = [[r.data.evs.tolist(), r.data.stds.tolist()] for r in results]
            found[f"{name}, shots"] = [r.metadata["shots_total"] for r in results]
            if backend is None:
                job = FragmentGradient(estimator).run([qnn()], ["ZZZZ"], [theta[0]])
                found[f"{name}, gradient"] = np.asarray(job.result().gradients[0]).tolist()
    return found


def training(folder):
    data = WorkloadConfig("iris", seed=7, samples=20, test_samples=10)
    config = TrainingConfig(data, cuts=2, shots=64, epochs=3, optimizer="adam", seed=7)
    result = train(load_workload(data), config, RunFolder(folder))
    return [json.loads(result.folder.weights.read_text("utf-8")), vars(result.final)]


def simulation():
    command = "simulate --service lognormal:0.02,0.5 --tasks 200 --workers 2,16 --seed 7 --json"
    delays = "--straggler-p 0.2 --straggler-delay 0.1"
    with redirect_stdout(io.StringIO()) as out:
        assert main([*command.split(), *delays.split()]) == 0
    return json.loads(out.getvalue())


def everything():
    with tempfile.TemporaryDirectory() as folder:
        return {
            **estimates(),
            "training": training(Path(folder) / "run"),
            "simulation": simulation(),
        }


if __name__ == "__main__":
    print(json.dumps(everything()))
