"""Train a quantum neural network on Iris in plain PyTorch, its circuit cut in two places.

Run it with `python examples/estimator_qnn.py`; it needs the extra `ml`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import qnn_circuit
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from distributed_estimator import DistributedEstimator, EstimatorOptions, FragmentGradient

CUTS = "AABC"  # qubits 0 and 1 stay together, 2 and 3 stand alone: two CX gates are cut
SHOTS = 1024
STEPS = 40
SEED = 7


def load() -> list[NDArray[np.float64]]:
    """Setosa (-1) or versicolor (+1) by 4 features: train and test features, train and test labels.

    The first 100 of the 150 flowers are of these two species.
    """
    data = load_iris()
    features, labels = data.data[:100], 2.0 * data.target[:100] - 1
    x_train, x_test, y_train, y_test = train_test_split(
        features, labels, test_size=0.2, stratify=labels, random_state=SEED
    )
    scaler = MinMaxScaler(clip=True).fit(x_train)
    return [scaler.transform(x_train), scaler.transform(x_test), y_train, y_test]


def main() -> dict[str, float]:
    """Train the cut network, then compare it with the uncut circuit at the same weights."""
    x_train, x_test, y_train, y_test = load()
    circuit, features, weights = qnn_circuit(
        feature_map=z_feature_map(4),
        ansatz=real_amplitudes(4, reps=1, entanglement="linear"),
    )
    observable = SparsePauliOp("ZZZZ")

    estimator = DistributedEstimator(CUTS, options=EstimatorOptions(shots=SHOTS, seed=SEED))
    qnn = EstimatorQNN(
        circuit=circuit,
        observables=observable,
        input_params=features,
        weight_params=weights,
        estimator=estimator,
        gradient=FragmentGradient(estimator),
    )

    start = np.random.default_rng(SEED).uniform(-np.pi, np.pi, len(weights))
    network = TorchConnector(qnn, initial_weights=start)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    x = torch.as_tensor(x_train)
    y = torch.as_tensor(y_train, dtype=torch.float32)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(x)[:, 0], y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"step {step:2}: loss {losses[-1]:.3f}")

    # A network returns values alone. Ask the estimator itself for their error bars.
    trained = network.weight.detach().numpy().astype(float)
    rows = np.hstack([x_test, np.tile(trained, (len(x_test), 1))])
    cut = estimator.run([(circuit, observable, rows)]).result()[0].data
    uncut = StatevectorEstimator().run([(circuit, observable, rows)], precision=0).result()[0].data
    numbers = {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "test_accuracy": float(np.mean(np.sign(cut.evs) == y_test)),
        "uncut_test_accuracy": float(np.mean(np.sign(uncut.evs) == y_test)),
        "mean_stderr": float(np.mean(cut.stds)),
        "rms_error_in_stderrs": float(np.sqrt(np.mean(((cut.evs - uncut.evs) / cut.stds) ** 2))),
    }
    print(f"loss {numbers['first_loss']:.3f} -> {numbers['last_loss']:.3f} in {STEPS} steps")
    print(
        f"test accuracy {numbers['test_accuracy']:.2f} cut with {SHOTS} shots, "
        f"{numbers['uncut_test_accuracy']:.2f} uncut and exact"
    )
    print(
        f"first test sample {cut.evs[0]:+.3f} ± {cut.stds[0]:.3f}, exactly {uncut.evs[0]:+.3f}; "
        f"over all, errors are {numbers['rms_error_in_stderrs']:.2f} error bars (r.m.s.)"
    )
    return numbers


if __name__ == "__main__":
    main()
