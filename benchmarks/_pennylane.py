"""PennyLane as a counterpart: its wire cuts, and uncut training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks._peers import Estimate
from benchmarks._workload import Floats, Outcome, Workload

MISSING = "pennylane is not installed: pip install pennylane"


def installed() -> bool:
    """Whether PennyLane is there."""
    return find_spec("pennylane") is not None


def missing() -> str | None:
    """Why training with it cannot be measured, or None if it can."""
    return None if installed() else MISSING


def lightning_missing() -> str | None:
    """The same for its simulator in C++."""
    if installed() and find_spec("pennylane_lightning") is not None:
        return None
    return "pennylane-lightning is not installed: pip install pennylane-lightning"


def cut_query(load: Workload, cut_before: Sequence[int]) -> Callable[[], Outcome]:
    """`qml.cut_circuit` on the workload, exact, all queries of it.

    A gate cut between qubits b - 1 and b becomes a wire cut on qubit b - 1 just before that gate:
    the same number of cuts at the same places. Without cuts the circuits run as they are, since
    `cut_circuit` refuses them.

    Args:
        load: The circuit and its bindings.
        cut_before: The qubits b.
    """
    import pennylane as qml

    device = qml.device("default.qubit")
    wires = qml.wires.Wires(range(load.num_qubits))

    def call() -> Outcome:
        start = time.perf_counter()
        scripts = [_script(row, load.num_qubits, cut_before) for row in load.bindings]
        if cut_before:
            pieces = [qml.cut_circuit(script, device_wires=wires) for script in scripts]
        else:
            pieces = [([script], lambda results: results[0]) for script in scripts]
        generated = time.perf_counter()
        flat = [tape for tapes, _ in pieces for tape in tapes]
        results = iter(qml.execute(flat, device, diff_method=None))
        executed = time.perf_counter()
        values = [join([next(results) for _ in tapes]) for tapes, join in pieces]
        stages = {
            "t_generate": generated - start,
            "t_execute": executed - generated,
            "t_reconstruct": time.perf_counter() - executed,
        }
        return Outcome(np.array(values, dtype=float).reshape(-1), stages)

    return call


def cut_estimate(values: Floats, cut_before: Sequence[int], shots: int, seed: int) -> Estimate:
    """One value of `qml.cut_circuit` with `shots` of each of its circuits.

    Args:
        values: Of one query, as a row of `Workload.bindings`.
        cut_before: As for `cut_query`.
        shots: Of each circuit.
        seed: Of the device.
    """
    import pennylane as qml

    num_qubits = len(values) // 3
    script = _script(values, num_qubits, cut_before)
    tapes, join = qml.cut_circuit(script, device_wires=qml.wires.Wires(range(num_qubits)))
    device = qml.device("default.qubit", seed=seed)
    results = qml.execute([tape.copy(shots=shots) for tape in tapes], device, diff_method=None)
    return Estimate(float(join(results)), shots * len(tapes), len(tapes))


def _script(row: Floats, num_qubits: int, cut_before: Sequence[int]) -> object:
    import pennylane as qml

    features, first, last = np.split(row, 3)
    operations = _feature_map(features) + [qml.RY(t, q) for q, t in enumerate(first)]
    for qubit in range(1, num_qubits):
        if qubit in cut_before:
            operations.append(qml.WireCut(wires=qubit - 1))
        operations.append(qml.CNOT([qubit - 1, qubit]))
    operations += [qml.RY(t, q) for q, t in enumerate(last)]
    return qml.tape.QuantumScript(operations, [_z_on_all(num_qubits)])


def _feature_map(features: Floats) -> list[object]:
    """`z_feature_map` with its two repetitions."""
    import pennylane as qml

    return [
        gate
        for qubit, x in enumerate(features)
        for _ in range(2)
        for gate in (qml.Hadamard(qubit), qml.PhaseShift(2 * x, qubit))
    ]


def _z_on_all(num_qubits: int) -> object:
    import pennylane as qml

    return qml.expval(qml.prod(*(qml.Z(q) for q in range(num_qubits))))


def qnode(num_qubits: int, device: str, diff_method: str) -> Callable[..., Any]:
    """The uncut QNN for PyTorch, from one column a feature and the weights to one value a sample.

    A batch is broadcast where the device can, and becomes a list of circuits where it cannot.

    Args:
        num_qubits: One feature each, and two weights.
        device: "default.qubit" or "lightning.qubit".
        diff_method: "backprop" or "adjoint".
    """
    import pennylane as qml

    @qml.qnode(qml.device(device), interface="torch", diff_method=diff_method)  # type: ignore[untyped-decorator]
    def model(columns: Any, weights: Any) -> object:
        for qubit in range(num_qubits):
            for _ in range(2):
                qml.Hadamard(qubit)
                qml.PhaseShift(2 * columns[qubit], qubit)
            qml.RY(weights[qubit], qubit)
        for qubit in range(1, num_qubits):
            qml.CNOT([qubit - 1, qubit])
        for qubit in range(num_qubits):
            qml.RY(weights[num_qubits + qubit], qubit)
        return _z_on_all(num_qubits)

    return model  # type: ignore[no-any-return]


def backprop_step(load: Workload, targets: Floats) -> Callable[[], Outcome]:
    """Forward and backward of the summed squared error on `default.qubit`, uncut.

    The batch is broadcast through one simulation in double precision, on one PyTorch thread.
    The outcome's values are the gradient of the loss.
    """
    import torch

    torch.set_num_threads(1)
    model = qnode(load.num_qubits, "default.qubit", "backprop")
    columns = torch.tensor(load.features.T.copy())
    weights = torch.tensor(load.weights, requires_grad=True)
    wanted = torch.tensor(targets)

    def call() -> Outcome:
        start = time.perf_counter()
        loss = ((model(columns, weights) - wanted) ** 2).sum()
        forward = time.perf_counter()
        (gradient,) = torch.autograd.grad(loss, weights)
        stages = {"forward": forward - start, "backward": time.perf_counter() - forward}
        return Outcome(gradient.numpy().copy(), stages)

    return call
