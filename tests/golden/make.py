"""Makes the golden files: what this version leaves on the disk, for later versions to read.

Run `python tests/golden/make.py tests/golden/VERSION` once a version, before what it writes
changes, and commit the folder; never make the files of an earlier version again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from qiskit.circuit.library import real_amplitudes

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.backends.fleet import Fleet, homogeneous
from distributed_estimator.errors import TrainingStoppedError
from distributed_estimator.gradient import FragmentGradient
from distributed_estimator.records import RecordWriter, read_records
from distributed_estimator.reference import ReferenceEstimator
from distributed_estimator.study.config import load_study
from distributed_estimator.study.folder import StudyFolder
from distributed_estimator.study.matrix import runs_of
from distributed_estimator.study.runner import run_study
from distributed_estimator.training.config import TrainingConfig
from distributed_estimator.training.loop import resume, train
from distributed_estimator.training.runs import RunFolder
from distributed_estimator.training.workloads import WorkloadConfig, load_workload

STUDY = """\
name: golden
shots: 16
experiments:
  learn:
    kind: train
    datasets:
      iris: {qubits: [2], epochs: 1, samples: 4, test_samples: 4}
    cuts: [1]
    seeds: [1]
    workers: [2]
  ask:
    kind: queries
    datasets:
      iris: {qubits: [2]}
    cuts: [1]
    seeds: [1]
    workers: [2]
    queries: 2
scales:
  small: {shots: 16}
"""


def make(out: Path) -> None:
    """Every kind of file in its smallest form."""
    out.mkdir(parents=True)
    records(out / "records.jsonl")
    journal(out / "run.journal")
    training(out / "training")
    (out / "study.yaml").write_text(STUDY)
    study = load_study(out / "study.yaml", "small")
    run_study(study, runs_of(study), StudyFolder(out / "study"))


def records(path: Path) -> None:
    """A record of every kind: with shots, exact, a gradient, of the reference, and torn lines."""
    circuit, point = real_amplitudes(4, reps=1, entanglement="linear"), np.linspace(0, 0.7, 8)
    options = EstimatorOptions(shots=64, seed=1)
    devices = homogeneous(1, seconds_per_job=1e-3, seconds_per_shot=0.0)
    with tempfile.TemporaryDirectory() as folder:
        log, trace = Path(folder, "queries.jsonl"), Path(folder, "tasks.jsonl")
        fleet = Fleet(devices, log=Path(folder, "devices.jsonl"))
        with DistributedEstimator(
            "AABB",
            backend=fleet,
            workers=1,
            options=options,
            log=RecordWriter(log, config_hash="c0ffee", attempt=2),
            trace=trace,
        ) as estimator:
            estimator.run([(circuit, "ZZZZ", point)]).result()
        log.write_bytes(log.read_bytes() + b'{"kind": "query", "run_id": "12')
        with DistributedEstimator("ABCD", log=log, workers=1) as estimator:
            estimator.run([(circuit, "ZZZZ", point)], precision=0).result()
            FragmentGradient(estimator).run([circuit], ["ZZZZ"], [point]).result()
        reference = ReferenceEstimator("AABB", shots=16, seed=1, log=log, workers=1)
        reference.run([(circuit, "ZZZZ", point)]).result()
        run = RunFolder(Path(folder, "run"))
        small = TrainingConfig(WorkloadConfig("iris", samples=4, test_samples=4), shots=16, cuts=1)
        small = replace(small, epochs=1)
        train(load_workload(small.workload), small, run)
        logs = (log, trace, Path(folder, "devices.jsonl"), run.training)
        path.write_bytes(b"".join(file.read_bytes() for file in logs) + b'{"kind": "trai')
    assert len({record.kind for record in read_records(path)}) == 5


def journal(path: Path) -> None:
    """The results of a query's tasks, and a torn line."""
    circuit = real_amplitudes(4, reps=1, entanglement="linear")
    options = EstimatorOptions(shots=64, seed=1)
    with DistributedEstimator("AABB", workers=1, options=options, journal=path) as estimator:
        estimator.run([(circuit, "ZZZZ", np.linspace(0, 0.7, 8))]).result()
    path.write_bytes(path.read_bytes() + b'{"key": "to')


def training(path: Path) -> None:
    """A run that was stopped half-way through its second epoch, and the weights it ends with."""
    config = TrainingConfig(WorkloadConfig("iris", samples=4, test_samples=4), shots=16, cuts=1)
    config = replace(config, epochs=2, batch_size=2, trace=True)
    folder, asked = RunFolder(path), iter(range(1, 100))
    try:
        train(load_workload(config.workload), config, folder, stop=lambda: next(asked) == 3)
    except TrainingStoppedError:
        folder.lock.unlink()
    with tempfile.TemporaryDirectory() as place:
        whole = RunFolder(Path(place, "run"))
        shutil.copytree(path, whole.path)
        resume(whole)
        shutil.copy(whole.weights, path.with_name("training-weights.json"))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
